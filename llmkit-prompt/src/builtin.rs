//! The prompts that come with the crate. Each is a file under `prompts/`, to be read, copied and replaced.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};

use crate::{ChatPrompt, Error, PromptFile, Result};

/// The files by name.
const FILES: &[(&str, &str)] = &[
    ("minutes/extract", include_str!("../prompts/minutes/extract.md")),
    ("agent/last_answer", include_str!("../prompts/agent/last_answer.md")),
    ("agent/react", include_str!("../prompts/agent/react.md")),
    ("agent/retry", include_str!("../prompts/agent/retry.md")),
    ("agent/text", include_str!("../prompts/agent/text.md")),
    ("agent/untrusted", include_str!("../prompts/agent/untrusted.md")),
    ("agent/value", include_str!("../prompts/agent/value.md")),
    ("reasoning/extract", include_str!("../prompts/reasoning/extract.md")),
    ("reasoning/few_shot_cot", include_str!("../prompts/reasoning/few_shot_cot.md")),
    ("reasoning/few_shot_cot_example", include_str!("../prompts/reasoning/few_shot_cot_example.md")),
    ("reasoning/least_to_most_decompose", include_str!("../prompts/reasoning/least_to_most_decompose.md")),
    ("reasoning/least_to_most_solve", include_str!("../prompts/reasoning/least_to_most_solve.md")),
    ("reasoning/plan_and_solve", include_str!("../prompts/reasoning/plan_and_solve.md")),
    ("reasoning/revise", include_str!("../prompts/reasoning/revise.md")),
    ("reasoning/step_back_answer", include_str!("../prompts/reasoning/step_back_answer.md")),
    ("reasoning/step_back_principles", include_str!("../prompts/reasoning/step_back_principles.md")),
    ("reasoning/step_back_question", include_str!("../prompts/reasoning/step_back_question.md")),
    ("reasoning/tree_answer", include_str!("../prompts/reasoning/tree_answer.md")),
    ("reasoning/tree_propose", include_str!("../prompts/reasoning/tree_propose.md")),
    ("reasoning/tree_sample", include_str!("../prompts/reasoning/tree_sample.md")),
    ("reasoning/tree_value", include_str!("../prompts/reasoning/tree_value.md")),
    ("reasoning/tree_vote", include_str!("../prompts/reasoning/tree_vote.md")),
    ("reasoning/zero_shot_cot", include_str!("../prompts/reasoning/zero_shot_cot.md")),
    ("reasoning/zero_shot_cot_reason", include_str!("../prompts/reasoning/zero_shot_cot_reason.md")),
    ("pearl/execute", include_str!("../prompts/pearl/execute.md")),
    ("pearl/merge", include_str!("../prompts/pearl/merge.md")),
    ("pearl/mine", include_str!("../prompts/pearl/mine.md")),
    ("pearl/plain", include_str!("../prompts/pearl/plain.md")),
    ("pearl/plan", include_str!("../prompts/pearl/plan.md")),
    ("pearl/refine", include_str!("../prompts/pearl/refine.md")),
    ("pearl/repair", include_str!("../prompts/pearl/repair.md")),
    ("pearl/route", include_str!("../prompts/pearl/route.md")),
    ("pearl/simplify", include_str!("../prompts/pearl/simplify.md")),
    ("summary/combine", include_str!("../prompts/summary/combine.md")),
    ("summary/part", include_str!("../prompts/summary/part.md")),
    ("summary/refine", include_str!("../prompts/summary/refine.md")),
    ("summary/whole", include_str!("../prompts/summary/whole.md")),
    ("memory/recap", include_str!("../prompts/memory/recap.md")),
    ("memory/summary", include_str!("../prompts/memory/summary.md")),
    ("typed/again", include_str!("../prompts/typed/again.md")),
    ("typed/schema", include_str!("../prompts/typed/schema.md")),
];

/// The built-in prompt `name`.
///
/// # Panics
/// If there is none of this name; [`names`] lists them.
pub fn prompt(name: &str) -> ChatPrompt {
    file(name).prompt().clone()
}

/// The file of the built-in prompt `name`, with its version and description.
///
/// # Panics
/// If there is none of this name; [`names`] lists them.
pub fn file(name: &str) -> PromptFile {
    let text =
        source(name).unwrap_or_else(|| panic!("expected the name of a built-in prompt, found `{name}`"));
    PromptFile::parse(name, text).expect("a test checks that every built-in prompt is valid")
}

/// Writes the file of the built-in prompt `name` into `folder`, to be edited there; [`Prompts::load`](crate::Prompts::load) then takes it in place of the
/// built-in one. An existing file is never overwritten.
///
/// ```
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// let folder = tempfile::tempdir()?;
/// let path = llmkit_prompt::builtin::write("reasoning/zero_shot_cot", folder.path())?;
/// assert!(path.ends_with("reasoning/zero_shot_cot.md"));
/// # Ok(())
/// # }
/// ```
///
/// # Errors
/// [`Error::UnknownPrompt`] if there is none of this name, [`Error::Io`] if the file is there already or cannot be written.
pub fn write(name: &str, folder: impl AsRef<Path>) -> Result<PathBuf> {
    let text = source(name).ok_or_else(|| {
        let known: Vec<String> = names().map(str::to_owned).collect();
        let suggestion = crate::template::closest(name, &known);
        Error::UnknownPrompt { name: name.to_owned(), version: None, suggestion, versions: Vec::new() }
    })?;
    let path = folder.as_ref().join(format!("{name}.md"));
    let failed = |source| Error::Io { action: "write", path: path.clone(), source };
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder).map_err(failed)?;
    }
    let mut file = fs::File::create_new(&path).map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    Ok(path)
}

/// The text of the file of the built-in prompt `name`, if there is one.
pub fn source(name: &str) -> Option<&'static str> {
    FILES.iter().find(|(known, _)| *known == name).map(|(_, text)| *text)
}

/// The names of all built-in prompts.
pub fn names() -> impl Iterator<Item = &'static str> {
    FILES.iter().map(|(name, _)| *name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_built_in_prompt_is_valid_and_named_as_its_file() {
        for name in names() {
            assert_eq!(prompt(name).name(), name);
        }
    }
}
