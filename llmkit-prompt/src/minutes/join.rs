//! Entries that say the same, once.

use std::collections::HashSet;

use unicode_segmentation::UnicodeSegmentation;

use super::{ActionItem, Decision, Evidence, Minutes, Topic};

/// From this part of their words in common on (intersection over union), two entries are the same.
const SAME_WORDS: f64 = 0.7;
/// From this part of their words in common on, two entries about the same words of the transcript are the same.
const SAME_PLACE: f64 = 0.3;
/// Beyond so many entries of a kind they are only compared with the last ones.
const MAX_COMPARED: usize = 500;

/// Joins what is there twice; gives what was joined, for the record.
pub(super) fn join(minutes: &mut Minutes) -> Vec<String> {
    let mut notes = Vec::new();
    minutes.topics = joined(std::mem::take(&mut minutes.topics), &mut notes);
    minutes.decisions = joined(std::mem::take(&mut minutes.decisions), &mut notes);
    minutes.action_items = joined(std::mem::take(&mut minutes.action_items), &mut notes);
    let rejected = std::mem::take(&mut minutes.rejected);
    for entry in rejected {
        if !minutes.rejected.iter().rev().take(MAX_COMPARED).any(|other| *other == entry) {
            minutes.rejected.push(entry);
        }
    }
    notes
}

trait Entry {
    fn what(&self) -> &str;
    fn evidence(&self) -> &Evidence;
    /// Takes over what this lacks.
    fn absorb(&mut self, other: Self);
}

impl Entry for Topic {
    fn what(&self) -> &str {
        &self.title
    }

    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn absorb(&mut self, other: Self) {
        if self.summary.is_empty() {
            self.summary = other.summary;
        } else if !other.summary.is_empty() && !self.summary.contains(&other.summary) {
            self.summary = format!("{} {}", self.summary, other.summary);
        }
    }
}

impl Entry for Decision {
    fn what(&self) -> &str {
        &self.what
    }

    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn absorb(&mut self, _: Self) {}
}

impl Entry for ActionItem {
    fn what(&self) -> &str {
        &self.what
    }

    fn evidence(&self) -> &Evidence {
        &self.evidence
    }

    fn absorb(&mut self, other: Self) {
        if self.owner.as_ref().is_none_or(|owner| !owner.verified) {
            self.owner = other.owner.or(self.owner.take());
        }
        if self.due.as_ref().is_none_or(|due| due.date.is_none()) {
            self.due = other.due.or(self.due.take());
        }
    }
}

fn joined<E: Entry>(entries: Vec<E>, notes: &mut Vec<String>) -> Vec<E> {
    let mut kept: Vec<(E, HashSet<String>)> = Vec::new();
    for entry in entries {
        let own = words(entry.what());
        let from = kept.len().saturating_sub(MAX_COMPARED);
        let same = kept[from..].iter_mut().find(|(other, words)| {
            let common = common(words, &own);
            let overlap = overlaps(other.evidence(), entry.evidence());
            common >= SAME_WORDS || overlap && common >= SAME_PLACE
        });
        match same {
            Some((other, _)) => {
                notes.push(format!("joined `{}` with `{}`", entry.what(), other.what()));
                if entry.evidence().is_verified() || !other.evidence().is_verified() {
                    other.absorb(entry);
                }
            }
            None => kept.push((entry, own)),
        }
    }
    kept.into_iter().map(|(entry, _)| entry).collect()
}

fn words(text: &str) -> HashSet<String> {
    text.unicode_words().map(str::to_lowercase).collect()
}

/// Intersection over union.
fn common(a: &HashSet<String>, b: &HashSet<String>) -> f64 {
    let both = a.intersection(b).count();
    let either = a.len() + b.len() - both;
    if either == 0 { 0.0 } else { both as f64 / either as f64 }
}

/// Whether both are shown by the same words.
fn overlaps(a: &Evidence, b: &Evidence) -> bool {
    match (a, b) {
        (Evidence::Verified { range: a, .. }, Evidence::Verified { range: b, .. }) => {
            let both = a.end.min(b.end).saturating_sub(a.start.max(b.start));
            2 * both >= a.len().min(b.len())
        }
        _ => false,
    }
}
