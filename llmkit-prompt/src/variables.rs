//! The declared variables of a prompt against what its templates use.

use std::collections::HashSet;

use crate::mentions::mentions;
use crate::template::Compiled;
use crate::{Error, Result, VariableProblem};

/// Compares the templates of the prompt `prompt` with its declaration.
///
/// # Errors
/// [`Error::Variables`] with every disagreement.
pub(crate) fn check(prompt: &str, templates: &[&Compiled], declared: &[String]) -> Result<()> {
    let mut problems = Vec::new();
    let mut used = HashSet::new();
    let mut suggested = HashSet::new();
    for template in templates {
        let mut free = template.free_variables();
        for mention in mentions(template.source()) {
            if !free.remove(mention.name) {
                continue;
            }
            used.insert(mention.name.to_owned());
            if !declared.iter().any(|name| name == mention.name) {
                let suggestion = closest(mention.name, declared);
                suggested.extend(suggestion.clone());
                problems.push(undeclared(template, mention.line, mention.name, suggestion));
            }
        }
        // What the scanner cannot find again is still used; its line is then the template's first.
        for name in free {
            if !declared.contains(&name) {
                let suggestion = closest(&name, declared);
                suggested.extend(suggestion.clone());
                problems.push(undeclared(template, 1, &name, suggestion));
            }
            used.insert(name);
        }
    }
    let mut seen = HashSet::new();
    for name in declared {
        if !seen.insert(name) {
            problems.push(VariableProblem::Repeated { name: name.clone() });
        } else if templates.iter().any(|template| template.is_global(name)) {
            problems.push(VariableProblem::Reserved { name: name.clone() });
        } else if !used.contains(name) && !suggested.contains(name) {
            // A variable that a misspelling meant is no second fault.
            problems.push(VariableProblem::Unused { name: name.clone() });
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Variables { prompt: prompt.to_owned(), problems })
}

fn undeclared(template: &Compiled, line: usize, name: &str, suggestion: Option<String>) -> VariableProblem {
    VariableProblem::Undeclared {
        template: template.name().to_owned(),
        line,
        name: name.to_owned(),
        suggestion,
    }
}

/// The declared name nearest to `name`, within a third of its letters (at least one edit, a swap of neighbours counting as one).
fn closest(name: &str, declared: &[String]) -> Option<String> {
    let allowed = (name.chars().count() / 3).max(1);
    declared
        .iter()
        .map(|other| (strsim::damerau_levenshtein(&name.to_lowercase(), &other.to_lowercase()), other))
        // A one-letter name is one edit away from every other.
        .filter(|(distance, other)| *distance <= allowed && *distance < other.chars().count())
        .min()
        .map(|(_, other)| other.clone())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_closest_name_is_suggested_and_a_far_one_is_not() {
        let declared = ["question".to_owned(), "context".to_owned(), "x".to_owned()];
        assert_eq!(closest("questoin", &declared).as_deref(), Some("question"));
        assert_eq!(closest("Context", &declared).as_deref(), Some("context"));
        assert_eq!(closest("answer", &declared), None);
        assert_eq!(closest("y", &declared), None);
    }
}
