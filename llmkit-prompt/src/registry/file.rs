//! Prompts as files: front matter, then turns.

use llmkit_core::Role;
use serde::Serialize;
use serde_json::Value;

use crate::template::closest;
use crate::{ChatPrompt, Error, Escape, Partials, Result, VariableProblem};

/// The largest file of a prompt, in bytes: 512 KiB.
pub(super) const LARGEST: usize = 512 * 1024;
/// The longest front matter, in bytes.
const LONGEST_FRONT: usize = 64 * 1024;
const KEYS: [&str; 6] = ["name", "version", "description", "variables", "untrusted", "escape"];

/// A prompt as it stands in a file.
///
/// The file begins with front matter, in YAML between two lines `---` or in TOML between two lines `+++`; then come the turns, each after a line `system:`,
/// `user:` or `assistant:` of its own. A body without such lines is one user turn. Blank lines around a turn are dropped. A line of a turn that is
/// to read `user:` itself is written `\user:`.
///
/// | Key | Meaning |
/// |---|---|
/// | `name` | the prompt's name; in a folder that of the path, and may be left out |
/// | `version` | a text such as `"1.2.0"`; newer ones are greater part by part |
/// | `description` | one sentence |
/// | `variables` | the names that the turns use, all of them |
/// | `untrusted` | those whose values come from strangers: [`ChatPrompt::with_untrusted`] |
/// | `escape` | `none`, `xml`, `json` or `markdown`: [`Escape`] |
///
/// ```
/// use llmkit_prompt::PromptFile;
/// use serde_json::json;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let file = PromptFile::parse("greet.md", "---
/// name: greet
/// version: 1.0.0
/// variables: [name]
/// ---
/// system:
/// Be kind.
///
/// user:
/// I am {{ name }}.
/// ")?;
/// assert_eq!(file.version(), Some("1.0.0"));
/// assert_eq!(file.prompt().render(json!({ "name": "Ada" }))?[1].content, "I am Ada.");
///
/// let error = PromptFile::parse("greet.md", "---\nname: greet\nvariabels: [name]\n---\nI am {{ name }}.").unwrap_err();
/// assert_eq!(error.to_string(), "greet.md:3: `variabels` is no key of a prompt; did you mean `variables`?");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct PromptFile {
    version: Option<String>,
    description: Option<String>,
    prompt: ChatPrompt,
    #[serde(skip)]
    source: String,
}

impl PromptFile {
    /// Reads the text of a file. Errors name it `file`.
    ///
    /// # Errors
    /// [`Error::PromptFile`] for what is wrong with the file's form, [`Error::Syntax`], [`Error::Variables`] and so on for what is wrong with its
    /// templates; the lines are the file's.
    pub fn parse(file: &str, text: &str) -> Result<Self> {
        Self::parse_with(&Partials::new(), file, None, text)
    }

    /// [`parse`](Self::parse) for a file whose turns include `partials`; `name` is its name where it gives itself none.
    pub(crate) fn parse_with(
        partials: &Partials,
        file: &str,
        name: Option<&str>,
        text: &str,
    ) -> Result<Self> {
        if text.len() > LARGEST {
            return Err(Error::Oversized { what: file.to_owned(), found: text.len(), allowed: LARGEST });
        }
        let text = crate::template::normalised(text.strip_prefix('\u{feff}').unwrap_or(text).to_owned());
        let (front, body, first_line) = front_matter(file, &text)?;
        let refuse = |line: usize, reason: String| Error::PromptFile { file: file.to_owned(), line, reason };
        let name = match (&front.name, name) {
            (Some(own), Some(path)) if own != path => {
                let reason = format!(
                    "its name is `{own}`, its path says `{path}`: make them equal, or leave the name out"
                );
                return Err(refuse(2, reason));
            }
            (Some(name), _) => name.clone(),
            (None, Some(name)) => name.to_owned(),
            (None, None) => return Err(refuse(1, "expected a `name` in its front matter".to_owned())),
        };
        let turns = turns(body);
        let starts: Vec<usize> = turns.iter().map(|turn| first_line + turn.line).collect();
        let build = || {
            let turns = turns.iter().map(|turn| (turn.role, turn.text.clone()));
            let prompt = ChatPrompt::new_with(partials, &name, turns, &front.variables)?;
            Ok(prompt.with_untrusted(&front.untrusted)?.with_escape(front.escape))
        };
        let prompt = build().map_err(|error| in_file(error, file, &name, &starts))?;
        Ok(Self { version: front.version, description: front.description, prompt, source: text })
    }

    pub(super) fn with_version(mut self, version: &str) -> Self {
        self.version = Some(version.to_owned());
        self
    }

    /// The prompt's name.
    pub fn name(&self) -> &str {
        self.prompt.name()
    }

    /// The version that the file gives itself.
    pub fn version(&self) -> Option<&str> {
        self.version.as_deref()
    }

    /// What the prompt is for.
    pub fn description(&self) -> Option<&str> {
        self.description.as_deref()
    }

    /// The prompt.
    pub fn prompt(&self) -> &ChatPrompt {
        &self.prompt
    }

    /// The file's text.
    pub fn source(&self) -> &str {
        &self.source
    }
}

#[derive(Default)]
struct FrontMatter {
    name: Option<String>,
    version: Option<String>,
    description: Option<String>,
    variables: Vec<String>,
    untrusted: Vec<String>,
    escape: Escape,
}

/// The front matter, the body, and the line on which the body begins.
fn front_matter<'a>(file: &str, text: &'a str) -> Result<(FrontMatter, &'a str, usize)> {
    let refuse = |line: usize, reason: String| Error::PromptFile { file: file.to_owned(), line, reason };
    let fence = text.lines().next().unwrap_or_default().trim_end();
    if !matches!(fence, "---" | "+++") {
        let reason = "expected front matter between lines `---` (YAML) or `+++` (TOML) at its start";
        return Err(refuse(1, reason.to_owned()));
    }
    let after = text.split_once('\n').map_or("", |(_, after)| after);
    let mut length = 0;
    for (index, line) in after.split_inclusive('\n').enumerate() {
        if line.trim_end() == fence {
            let front = read_front(file, fence == "---", &after[..length])?;
            return Ok((front, &after[length + line.len()..], index + 3));
        }
        length += line.len();
        if length > LONGEST_FRONT {
            return Err(refuse(1, format!("its front matter is longer than {LONGEST_FRONT} bytes")));
        }
    }
    Err(refuse(1, format!("its front matter has no end: expected a second line `{fence}`")))
}

fn read_front(file: &str, is_yaml: bool, front: &str) -> Result<FrontMatter> {
    let refuse = |line: usize, reason: String| Error::PromptFile { file: file.to_owned(), line, reason };
    let value: Value = if front.trim().is_empty() {
        Value::Object(serde_json::Map::new())
    } else if is_yaml {
        serde_saphyr::from_str(front).map_err(|error| {
            let line = error.location().map_or(1, |place| usize::try_from(place.line()).unwrap_or(1) + 1);
            let reason = error.to_string();
            refuse(line, reason.lines().next().unwrap_or_default().to_owned())
        })?
    } else {
        toml::from_str(front).map_err(|error| {
            let line =
                error.span().map_or(1, |span| 2 + front[..span.start.min(front.len())].matches('\n').count());
            refuse(line, error.message().to_owned())
        })?
    };
    let Value::Object(map) = value else {
        return Err(refuse(2, "expected keys and values in its front matter".to_owned()));
    };
    let mut read = FrontMatter::default();
    for (key, value) in map {
        // Where the key stands; nested ones are refused anyway.
        let at = front
            .lines()
            .position(|line| line.trim_start_matches(['"', '\'']).starts_with(&key))
            .unwrap_or(0)
            + 2;
        let expected = |what: &str| refuse(at, format!("`{key}`: expected {what}, found {value}"));
        let text = || match &value {
            Value::String(text) => Ok(text.clone()),
            _ => Err(expected("a text")),
        };
        let list = || {
            let items = value.as_array().ok_or_else(|| expected("a list of names"))?;
            let names = items.iter().map(|item| item.as_str().map(str::to_owned));
            names.collect::<Option<Vec<String>>>().ok_or_else(|| expected("a list of names"))
        };
        match key.as_str() {
            "name" => read.name = Some(text()?),
            "version" => {
                read.version = Some(match &value {
                    Value::Number(number) if number.is_u64() => number.to_string(),
                    Value::String(text) if !text.is_empty() => text.clone(),
                    _ => return Err(expected("a text in quotes, such as \"1.2\"")),
                });
            }
            "description" => read.description = Some(text()?),
            "variables" => read.variables = list()?,
            "untrusted" => read.untrusted = list()?,
            "escape" => {
                let name = text()?;
                read.escape = match Escape::ALL.iter().find(|(known, _)| *known == name) {
                    Some((_, escape)) => *escape,
                    None => return Err(expected("`none`, `xml`, `json` or `markdown`")),
                };
            }
            _ => {
                let known = KEYS.map(str::to_owned);
                let remedy = match closest(&key, &known) {
                    Some(meant) => format!("did you mean `{meant}`?"),
                    None => format!("there are `{}`", known.join("`, `")),
                };
                return Err(refuse(at, format!("`{key}` is no key of a prompt; {remedy}")));
            }
        }
    }
    Ok(read)
}

struct Turn {
    role: Role,
    text: String,
    /// The line of the body on which the text begins, from 0.
    line: usize,
}

fn turns(body: &str) -> Vec<Turn> {
    let mut turns: Vec<Turn> = Vec::new();
    for (index, line) in body.split_inclusive('\n').enumerate() {
        let role = match line.trim_end() {
            "system:" => Some(Role::System),
            "user:" => Some(Role::User),
            "assistant:" => Some(Role::Assistant),
            _ => None,
        };
        // `\user:` stands for a line `user:`.
        let escaped = line.trim_start_matches('\\').trim_end();
        let line = match line.strip_prefix('\\') {
            Some(line) if matches!(escaped, "system:" | "user:" | "assistant:") => line,
            _ => line,
        };
        match (role, turns.last_mut()) {
            (Some(role), _) => turns.push(Turn { role, text: String::new(), line: index + 1 }),
            (None, Some(turn)) => turn.text.push_str(line),
            (None, None) if line.trim().is_empty() => {}
            (None, None) => turns.push(Turn { role: Role::User, text: line.to_owned(), line: index }),
        }
    }
    for turn in &mut turns {
        let text = turn.text.trim_start_matches('\n');
        turn.line += turn.text.len() - text.len();
        turn.text = text.trim_end_matches('\n').to_owned();
    }
    turns
}

/// The error with the file's own lines in place of the turns'.
fn in_file(mut error: Error, file: &str, name: &str, starts: &[usize]) -> Error {
    let place = |template: &mut String, line: &mut usize| {
        let index = template
            .strip_prefix(name)
            .and_then(|rest| rest.strip_prefix('[')?.strip_suffix(']')?.parse::<usize>().ok());
        if let Some(start) = index.and_then(|index| starts.get(index)) {
            *line += start.saturating_sub(1);
            file.clone_into(template);
        }
    };
    match &mut error {
        Error::Syntax { template, line, .. }
        | Error::Reference { template, line, .. }
        | Error::LongTag { template, line, .. } => place(template, line),
        Error::Variables { problems, .. } => {
            for problem in problems {
                if let VariableProblem::Undeclared { template, line, .. }
                | VariableProblem::UnknownField { template, line, .. } = problem
                {
                    place(template, line);
                }
            }
        }
        _ => {}
    }
    error
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(text: &str) -> Vec<(Role, String)> {
        let file = PromptFile::parse("greet.md", text).unwrap();
        file.prompt().turns().map(|(role, text)| (role, text.to_owned())).collect()
    }

    #[test]
    fn both_kinds_of_front_matter_and_every_role_are_read() {
        let yaml =
            "---\nname: greet\nvariables: [name]\n---\nsystem:\nBe kind.\n\nuser:\n\n\nI am {{ name }}.\n";
        let toml = "+++\r\nname = \"greet\"\r\nvariables = [\"name\"]\r\n+++\r\nsystem:\r\nBe kind.\r\nuser:\r\nI am {{ name }}.";
        for text in [yaml, toml] {
            assert_eq!(
                parsed(text),
                [(Role::System, "Be kind.".to_owned()), (Role::User, "I am {{ name }}.".to_owned())]
            );
        }
    }

    #[test]
    fn a_line_that_looks_like_a_role_can_be_written() {
        assert_eq!(
            parsed("---\nname: a\n---\n\\user:\nHi\n\\\\system:\n\\other:"),
            [(Role::User, "user:\nHi\n\\system:\n\\other:".to_owned())]
        );
    }

    #[test]
    fn what_is_wrong_is_said_with_the_line_of_the_file() {
        for (text, expected) in [
            (
                "Hello",
                "a.md:1: expected front matter between lines `---` (YAML) or `+++` (TOML) at its start",
            ),
            ("---\nname: a\n", "a.md:1: its front matter has no end: expected a second line `---`"),
            (
                "---\nname: a\ncolour: red\n---\nHi",
                "a.md:3: `colour` is no key of a prompt; there are `name`, `version`, `description`, `variables`, `untrusted`, `escape`",
            ),
            (
                "+++\nname = \"a\"\n\nescpae = \"xml\"\n+++\nHi",
                "a.md:4: `escpae` is no key of a prompt; did you mean `escape`?",
            ),
            (
                "---\nname: a\nvariables: text\n---\nHi",
                "a.md:3: `variables`: expected a list of names, found \"text\"",
            ),
            (
                "---\nname: a\nversion: 1.10\n---\nHi",
                "a.md:3: `version`: expected a text in quotes, such as \"1.2\", found 1.1",
            ),
            ("---\nversion: 1.1.0\n---\nHi", "a.md:1: expected a `name` in its front matter"),
        ] {
            assert_eq!(PromptFile::parse("a.md", text).unwrap_err().to_string(), expected);
        }
        for text in ["---\nname: [a\n---\nHi", "+++\nname = \n+++\nHi"] {
            let error = PromptFile::parse("a.md", text).unwrap_err().to_string();
            assert!(error.starts_with("a.md:2: ") || error.starts_with("a.md:3: "), "{error}");
        }
        let text = "---\nname: a\nvariables: [text]\n---\nsystem:\n\nBe brief.\n\nuser:\n\nText:\n{{ txet }}";
        let error = PromptFile::parse("a.md", text).unwrap_err().to_string();
        assert!(error.contains("a.md:12: `txet` is not declared; did you mean `text`?"), "{error}");
        let error =
            PromptFile::parse("a.md", "---\nname: a\n---\nuser:\nx\n{% if %}").unwrap_err().to_string();
        assert!(error.starts_with("a.md:6: the template does not parse"), "{error}");
    }
}
