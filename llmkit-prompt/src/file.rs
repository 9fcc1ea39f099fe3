//! Prompts as files: front matter, then turns.

use llmkit_core::Role;
use serde::Deserialize;

use crate::{ChatPrompt, Error, Result};

/// What stands between the lines that fence a file's front matter.
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct FrontMatter {
    pub(crate) name: String,
    #[serde(default)]
    pub(crate) version: Option<String>,
    #[serde(default)]
    pub(crate) description: Option<String>,
    #[serde(default)]
    pub(crate) variables: Vec<String>,
}

/// Reads a prompt's file: front matter in YAML between lines `---` or in TOML between lines `+++`, then the turns, each after a line `system:`, `user:` or
/// `assistant:` of its own. A body without such lines is one user turn.
pub(crate) fn chat_prompt(file: &str, text: &str) -> Result<ChatPrompt> {
    let (front, body) = front_matter(file, text)?;
    ChatPrompt::new(front.name, turns(body), front.variables)
}

fn front_matter<'a>(file: &str, text: &'a str) -> Result<(FrontMatter, &'a str)> {
    let refuse = |reason: String| Error::PromptFile { file: file.to_owned(), reason };
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let fence = text.lines().next().unwrap_or_default().trim_end();
    if !matches!(fence, "---" | "+++") {
        return Err(refuse(
            "expected front matter between lines `---` (YAML) or `+++` (TOML) at its start".into(),
        ));
    }
    let after = text.split_once('\n').map_or("", |(_, after)| after);
    let mut length = 0;
    for line in after.split_inclusive('\n') {
        if line.trim_end() == fence {
            let front = &after[..length];
            let body = &after[length + line.len()..];
            let front = if fence == "---" {
                serde_saphyr::from_str(front).map_err(|error| refuse(error.to_string()))?
            } else {
                toml::from_str(front).map_err(|error| refuse(error.to_string()))?
            };
            return Ok((front, body));
        }
        length += line.len();
    }
    Err(refuse(format!("its front matter has no end: expected a second line `{fence}`")))
}

fn turns(body: &str) -> Vec<(Role, String)> {
    let mut turns: Vec<(Role, String)> = Vec::new();
    for line in body.split_inclusive('\n') {
        let role = match line.trim_end() {
            "system:" => Some(Role::System),
            "user:" => Some(Role::User),
            "assistant:" => Some(Role::Assistant),
            _ => None,
        };
        match (role, turns.last_mut()) {
            (Some(role), _) => turns.push((role, String::new())),
            (None, Some((_, text))) => text.push_str(line),
            (None, None) if line.trim().is_empty() => {}
            (None, None) => turns.push((Role::User, line.to_owned())),
        }
    }
    turns.into_iter().map(|(role, text)| (role, text.trim_matches(['\n', '\r']).to_owned())).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn both_kinds_of_front_matter_and_every_role_are_read() {
        let yaml = "---\nname: greet\nvariables: [name]\n---\nsystem:\nBe kind.\n\nuser:\nI am {{ name }}.\n";
        let toml =
            "+++\nname = \"greet\"\nvariables = [\"name\"]\n+++\nsystem:\nBe kind.\nuser:\nI am {{ name }}.";
        for text in [yaml, toml] {
            let prompt = chat_prompt("greet.md", text).unwrap();
            let turns: Vec<_> = prompt.turns().collect();
            assert_eq!(turns, [(Role::System, "Be kind."), (Role::User, "I am {{ name }}.")]);
        }
    }

    #[test]
    fn what_is_no_prompt_file_is_refused() {
        for (text, part) in [
            ("Hello", "expected front matter"),
            ("---\nname: a\n", "has no end"),
            ("---\nname: a\ncolour: red\n---\nHi", "colour"),
        ] {
            let error = chat_prompt("a.md", text).unwrap_err().to_string();
            assert!(error.contains("a.md") && error.contains(part), "{error}");
        }
    }
}
