//! Sets of names, for following values through a template.

/// A set of small numbers.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Names(Vec<u64>);

impl Names {
    pub(super) fn one(name: usize) -> Self {
        let mut names = Self::default();
        names.insert(name);
        names
    }

    pub(super) fn insert(&mut self, name: usize) {
        let word = name / 64;
        if self.0.len() <= word {
            self.0.resize(word + 1, 0);
        }
        self.0[word] |= 1 << (name % 64);
    }

    pub(super) fn contains(&self, name: usize) -> bool {
        self.0.get(name / 64).is_some_and(|word| word & (1 << (name % 64)) != 0)
    }

    /// Adds the others; says whether any was new.
    pub(super) fn add(&mut self, others: &Self) -> bool {
        if self.0.len() < others.0.len() {
            self.0.resize(others.0.len(), 0);
        }
        let mut grown = false;
        for (word, other) in self.0.iter_mut().zip(&others.0) {
            grown |= *other & !*word != 0;
            *word |= other;
        }
        grown
    }
}
