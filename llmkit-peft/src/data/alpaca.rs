use std::path::Path;

use llmkit_core::Message;
use serde::Deserialize;

use super::lines::Lines;
use crate::{Error, Result};

/// One example in the format of Stanford Alpaca (Taori et al. 2023).
#[derive(Debug, Clone, PartialEq, Eq, Deserialize)]
pub struct AlpacaRow {
    /// What to do.
    pub instruction: String,
    /// What to do it with; may be empty.
    #[serde(default)]
    pub input: String,
    /// The answer to learn.
    pub output: String,
    /// Where the row stands in its file, from 1.
    #[serde(skip)]
    pub line: usize,
}

impl AlpacaRow {
    /// The user's turn: the instruction, and below it the input where there is one.
    pub fn prompt(&self) -> Vec<Message> {
        let question = if self.input.trim().is_empty() {
            self.instruction.clone()
        } else {
            format!("{}\n\n{}", self.instruction, self.input)
        };
        vec![Message::user(question)]
    }
}

/// Reads a JSONL file of Alpaca rows; empty lines are skipped.
///
/// # Errors
/// [`Error::Data`] with the line's number where a line is no JSON object, lacks `instruction` or `output`, or has an empty
/// one; [`Error::NoData`] for a file without rows.
pub fn read_alpaca(path: impl AsRef<Path>) -> Result<Vec<AlpacaRow>> {
    let path = path.as_ref();
    let mut lines = Lines::open(path)?;
    let mut rows = Vec::new();
    while let Some((line, content)) = lines.next_line()? {
        let wrong = |reason: String| Error::Data { path: path.to_path_buf(), line, reason };
        let mut row: AlpacaRow = serde_json::from_slice(content).map_err(|error| {
            wrong(format!("not a row {{\"instruction\", \"input\", \"output\"}}: {error}"))
        })?;
        row.line = line;
        if row.instruction.trim().is_empty() {
            return Err(wrong("`instruction` is empty".into()));
        }
        if row.output.trim().is_empty() {
            return Err(wrong("`output` is empty, so there is nothing to learn".into()));
        }
        rows.push(row);
    }
    if rows.is_empty() {
        return Err(Error::NoData { reason: format!("{} has no rows", path.display()) });
    }
    Ok(rows)
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn file(content: &str) -> tempfile::NamedTempFile {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        file
    }

    #[test]
    fn rows_come_with_their_lines() {
        let file = file(
            "\u{feff}{\"instruction\":\"Say hi\",\"output\":\"hi\"}\n\n{\"instruction\":\"Add\",\"input\":\"1 2\",\"output\":\"3\"}",
        );
        let rows = read_alpaca(file.path()).unwrap();
        assert_eq!(rows.iter().map(|row| row.line).collect::<Vec<_>>(), [1, 3]);
        assert_eq!(rows[0].prompt()[0].content, "Say hi");
        assert_eq!(rows[1].prompt()[0].content, "Add\n\n1 2");
    }

    #[test]
    fn a_malformed_line_is_named() {
        let good = "{\"instruction\":\"a\",\"output\":\"b\"}\n";
        for bad in [
            "{\"instruction\":\"a\"",
            "[]",
            "{\"instruction\":\"a\"}",
            "{\"instruction\":\"a\",\"output\":\" \"}",
            "\u{1}",
        ] {
            let file = file(&format!("{good}{good}{bad}\n{good}"));
            let error = read_alpaca(file.path()).unwrap_err();
            assert!(matches!(error, Error::Data { line: 3, .. }), "{bad}: {error}");
            assert!(error.to_string().contains(":3: "), "{error}");
        }
    }

    #[test]
    fn an_empty_file_is_an_error() {
        assert!(matches!(read_alpaca(file("\n \n").path()), Err(Error::NoData { .. })));
    }
}
