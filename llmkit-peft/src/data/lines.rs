use std::fs::File;
use std::io::{BufRead, BufReader, Read};
use std::path::{Path, PathBuf};

use crate::{Error, Result};

/// The longest line that is read, in bytes: a file without line breaks must not fill the memory.
const MAX_LINE: u64 = 16 << 20;

/// The lines of a file that hold something, with their numbers from 1.
pub(super) struct Lines {
    path: PathBuf,
    reader: BufReader<File>,
    line: usize,
    text: Vec<u8>,
}

impl Lines {
    pub(super) fn open(path: &Path) -> Result<Self> {
        let file = File::open(path).map_err(llmkit_core::Error::io("read", path))?;
        Ok(Self { path: path.to_path_buf(), reader: BufReader::new(file), line: 0, text: Vec::new() })
    }

    pub(super) fn next_line(&mut self) -> Result<Option<(usize, &[u8])>> {
        loop {
            self.line += 1;
            self.text.clear();
            let mut limited = self.reader.by_ref().take(MAX_LINE);
            let read = limited.read_until(b'\n', &mut self.text);
            let read = read.map_err(llmkit_core::Error::io("read", &self.path))?;
            if read == 0 {
                return Ok(None);
            }
            if read as u64 == MAX_LINE {
                let reason = format!("longer than {MAX_LINE} bytes; is this a file with one row a line?");
                return Err(Error::Data { path: self.path.clone(), line: self.line, reason });
            }
            // A byte order mark, as some editors on Windows write it.
            let mark = match self.line {
                1 if self.text.starts_with(b"\xef\xbb\xbf") => 3,
                _ => 0,
            };
            if !self.text[mark..].trim_ascii().is_empty() {
                return Ok(Some((self.line, &self.text[mark..])));
            }
        }
    }
}

/// The records of a CSV file (RFC 4180) with the line on which each begins: fields with commas between them, and quotes around those that
/// hold commas, quotes (doubled) or line breaks.
pub(super) fn csv_records(path: &Path) -> Result<Vec<(usize, Vec<String>)>> {
    let mut lines = Lines::open(path)?;
    let mut records = Vec::new();
    let mut open: Option<Record> = None;
    let mut last = 0;
    while let Some((line, content)) = lines.next_line()? {
        let wrong = |reason: &str| Error::Data { path: path.to_path_buf(), line, reason: reason.into() };
        let text = std::str::from_utf8(content).map_err(|_| wrong("not UTF-8"))?;
        let mut record = match open.take() {
            None => Record { line, ..Record::default() },
            Some(mut record) => {
                // Inside quotes, blank lines belong to the field.
                record.field.extend(std::iter::repeat_n('\n', line - last - 1));
                record
            }
        };
        last = line;
        if record.field.len() as u64 > MAX_LINE {
            return Err(wrong("a field is too long; is a closing quote missing?"));
        }
        record.read(text).map_err(wrong)?;
        match record.quoted {
            true => open = Some(record),
            false => records.push((record.line, record.fields)),
        }
    }
    match open {
        None => Ok(records),
        Some(record) => {
            let reason = "a quote is never closed".into();
            Err(Error::Data { path: path.to_path_buf(), line: record.line, reason })
        }
    }
}

#[derive(Default)]
struct Record {
    line: usize,
    fields: Vec<String>,
    field: String,
    /// Whether the reader is inside quotes.
    quoted: bool,
}

impl Record {
    /// Reads one line, whose end closes the last field unless that is quoted.
    fn read(&mut self, text: &str) -> Result<(), &'static str> {
        let mut chars = text.chars().peekable();
        let mut closed = false;
        while let Some(char) = chars.next() {
            match (self.quoted, char) {
                (true, '"') if chars.peek() == Some(&'"') => {
                    chars.next();
                    self.field.push('"');
                }
                (true, '"') => {
                    self.quoted = false;
                    closed = true;
                }
                (true, char) => self.field.push(char),
                (false, ',') => {
                    self.fields.push(std::mem::take(&mut self.field));
                    closed = false;
                }
                (false, '\r' | '\n') => {}
                (false, _) if closed => {
                    return Err("a closing quote is followed by something other than a comma");
                }
                (false, '"') if self.field.is_empty() => self.quoted = true,
                (false, char) => self.field.push(char),
            }
        }
        if !self.quoted {
            self.fields.push(std::mem::take(&mut self.field));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    fn records(content: &str) -> Result<Vec<(usize, Vec<String>)>> {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        file.write_all(content.as_bytes()).unwrap();
        csv_records(file.path())
    }

    #[test]
    fn quoted_fields_hold_commas_quotes_and_line_breaks() {
        let found = records("\u{feff}text,label\r\n\"a, \"\"b\"\"\",x\r\n\n\"two\n\nlines\",\n").unwrap();
        let expected: [(usize, [&str; 2]); 3] =
            [(1, ["text", "label"]), (2, ["a, \"b\"", "x"]), (4, ["two\n\nlines", ""])];
        assert_eq!(found, expected.map(|(line, fields)| (line, fields.map(str::to_owned).to_vec())));
    }

    #[test]
    fn broken_quotes_are_named_with_their_line() {
        for (content, at) in [("a,b\n\"c,d\n", 2), ("a,b\n\"c\"d,e\n", 2)] {
            let error = records(content).unwrap_err();
            assert!(matches!(error, Error::Data { line, .. } if line == at), "{error}");
        }
    }
}
