//! The declared variables of a prompt against what its templates use.

use std::collections::HashSet;

use minijinja::value::{Serde, Value, ValueKind};
use serde::Serialize;

use super::engine::Engine;
use super::suggest::closest;
use crate::{Error, Result, VariableProblem};

/// Compares the templates of the prompt `prompt` with its declaration.
///
/// # Errors
/// [`Error::Variables`] with every disagreement.
pub(super) fn check(prompt: &str, engine: &Engine, declared: &[String]) -> Result<()> {
    let mut problems = Vec::new();
    let mut used = HashSet::new();
    let mut suggested = HashSet::new();
    for usage in &engine.analysis().uses {
        used.insert(usage.name.as_str());
        if !declared.contains(&usage.name) {
            let suggestion = closest(&usage.name, declared);
            suggested.extend(suggestion.clone());
            problems.push(VariableProblem::Undeclared {
                template: usage.template.clone(),
                line: usage.line,
                name: usage.name.clone(),
                suggestion,
            });
        }
    }
    let mut seen = HashSet::new();
    for name in declared {
        if !seen.insert(name) {
            problems.push(VariableProblem::Repeated { name: name.clone() });
        } else if engine.is_global(name) {
            problems.push(VariableProblem::Reserved { name: name.clone() });
        } else if !used.contains(name.as_str()) && !suggested.contains(name) {
            // A variable that a misspelling meant is no second fault.
            problems.push(VariableProblem::Unused { name: name.clone() });
        }
    }
    if problems.is_empty() {
        return Ok(());
    }
    Err(Error::Variables { prompt: prompt.to_owned(), problems })
}

/// The values of `variables` out of `values`, and those that were given before.
pub(super) fn take(
    prompt: &str,
    variables: &[String],
    given_before: &indexmap::IndexMap<String, serde_json::Value>,
    values: impl Serialize,
) -> Result<Value> {
    let values = Value::from(Serde(values));
    if values.kind() != ValueKind::Map {
        return Err(Error::NotAMap { prompt: prompt.to_owned(), found: values.kind().to_string() });
    }
    let given: Vec<String> = values.try_iter().into_iter().flatten().map(|key| key.to_string()).collect();
    let missing: Vec<String> = variables.iter().filter(|name| !given.contains(name)).cloned().collect();
    if !missing.is_empty() {
        return Err(Error::MissingValues { prompt: prompt.to_owned(), missing, given });
    }
    let now = variables.iter().map(|name| (name.clone(), values.get_attr(name).unwrap_or_default()));
    let before = given_before.iter().map(|(name, value)| (name.clone(), Value::from(Serde(value))));
    Ok(Value::from_pairs(now.chain(before)))
}

/// That each of `names` is one of the prompt's `variables`.
pub(super) fn known<'n>(
    prompt: &str,
    variables: &[String],
    names: impl IntoIterator<Item = &'n str>,
) -> Result<()> {
    for name in names {
        if !variables.iter().any(|known| known == name) {
            return Err(Error::NoSuchVariable {
                prompt: prompt.to_owned(),
                name: name.to_owned(),
                suggestion: closest(name, variables),
                variables: variables.to_vec(),
            });
        }
    }
    Ok(())
}
