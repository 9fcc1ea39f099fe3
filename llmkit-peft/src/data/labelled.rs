use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use llmkit_core::Tokenizer;
use serde::Deserialize;

use super::lines::{Lines, csv_records};
use crate::{Error, Result};

/// A text and what is to be said of it: one row of a data set for classification or regression.
#[derive(Debug, Clone, PartialEq, Deserialize)]
pub struct LabelledText {
    /// The text.
    pub text: String,
    /// A second text, where pairs are classified.
    #[serde(default)]
    pub pair: Option<String>,
    /// What it is.
    pub label: TextLabel,
    /// Where the row stands in its file, from 1.
    #[serde(skip)]
    pub line: usize,
}

/// A label as a file gives it.
#[derive(Debug, Clone, PartialEq, Deserialize)]
#[serde(untagged)]
pub enum TextLabel {
    /// The name of a class.
    Name(String),
    /// The number of a class, or the number to predict where the model gives one.
    Number(f64),
    /// The names of all that applies, which may be none.
    Names(Vec<String>),
    /// One number for each of the model's labels.
    Numbers(Vec<f64>),
}

/// What an example teaches a classifier.
#[derive(Debug, Clone, PartialEq)]
pub enum Label {
    /// The class of this number.
    Class(usize),
    /// A number for each of the model's labels: the value to predict, or 1 where the label applies and 0 where not.
    Values(Vec<f32>),
}

/// A text as a classifier sees it, with its label.
#[derive(Debug, Clone, PartialEq)]
pub struct Labelled {
    /// The tokens, special tokens included.
    pub ids: Vec<u32>,
    /// The tokens' types, one for each.
    pub type_ids: Vec<u32>,
    /// What is to be learned.
    pub label: Label,
}

/// Labelled examples, and what happened to the rows that they came from.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct LabelledDataset {
    /// The examples, in the order of their rows.
    pub examples: Vec<Labelled>,
    /// Examples that lost the end of their text to the length limit.
    pub truncated: usize,
}

/// Reads rows `text,label`: a CSV file with these (and perhaps `pair`) in its header if its name ends in `.csv`, JSONL otherwise; empty
/// lines are skipped.
///
/// In JSONL a label is a name, a number, a list of names (all that applies) or a list of numbers; in CSV all labels are numbers, or all
/// are names.
///
/// # Errors
/// [`Error::Data`] with the line's number where a line is malformed or its text empty; [`Error::NoData`] for a file without rows.
pub fn read_labelled(path: impl AsRef<Path>) -> Result<Vec<LabelledText>> {
    let path = path.as_ref();
    let csv = path.extension().is_some_and(|extension| extension.eq_ignore_ascii_case("csv"));
    let rows = if csv { read_csv(path)? } else { read_jsonl(path)? };
    for row in &rows {
        if row.text.trim().is_empty() {
            return Err(wrong(path, row.line, "`text` is empty".into()));
        }
    }
    if rows.is_empty() {
        return Err(Error::NoData { reason: format!("{} has no rows", path.display()) });
    }
    Ok(rows)
}

fn read_jsonl(path: &Path) -> Result<Vec<LabelledText>> {
    let mut lines = Lines::open(path)?;
    let mut rows = Vec::new();
    while let Some((line, content)) = lines.next_line()? {
        let row = serde_json::from_slice(content);
        let mut row: LabelledText =
            row.map_err(|error| wrong(path, line, format!("not a row {{\"text\", \"label\"}}: {error}")))?;
        row.line = line;
        rows.push(row);
    }
    Ok(rows)
}

fn read_csv(path: &Path) -> Result<Vec<LabelledText>> {
    let mut records = csv_records(path)?.into_iter();
    let Some((line, header)) = records.next() else { return Ok(Vec::new()) };
    let column = |name: &str| header.iter().position(|field| field.trim().eq_ignore_ascii_case(name));
    let (Some(text), Some(label)) = (column("text"), column("label")) else {
        let reason = format!("the header is {header:?}; it must name the columns `text` and `label`");
        return Err(wrong(path, line, reason));
    };
    let pair = column("pair");
    let records: Vec<_> = records.collect();
    // A column that holds names as well holds no numbers.
    let number = |text: &str| text.trim().parse::<f64>().ok().filter(|number| number.is_finite());
    let numbers =
        records.iter().all(|(_, fields)| fields.get(label).is_some_and(|text| number(text).is_some()));
    let row = |(line, mut fields): (usize, Vec<String>)| {
        if fields.len() != header.len() {
            let reason = format!("{} fields, where the header has {}", fields.len(), header.len());
            return Err(wrong(path, line, reason));
        }
        let label = std::mem::take(&mut fields[label]);
        let label = match number(&label).filter(|_| numbers) {
            Some(number) => TextLabel::Number(number),
            None => TextLabel::Name(label),
        };
        Ok(LabelledText {
            text: std::mem::take(&mut fields[text]),
            pair: pair.map(|pair| std::mem::take(&mut fields[pair])),
            label,
            line,
        })
    };
    records.into_iter().map(row).collect()
}

fn wrong(path: &Path, line: usize, reason: String) -> Error {
    Error::Data { path: path.to_path_buf(), line, reason }
}

/// The names of all classes that occur in `rows`, sorted: the labels for a fresh classifier.
pub fn label_names(rows: &[LabelledText]) -> Vec<String> {
    let mut names = BTreeSet::new();
    for row in rows {
        match &row.label {
            TextLabel::Name(name) => drop(names.insert(name.clone())),
            TextLabel::Names(all) => names.extend(all.iter().cloned()),
            TextLabel::Number(_) | TextLabel::Numbers(_) => {}
        }
    }
    names.into_iter().collect()
}

/// Makes labelled texts into examples for a classifier of `labels`.
#[derive(Debug, Clone)]
pub struct LabelEncoder {
    tokenizer: Tokenizer,
    by_name: BTreeMap<String, usize>,
}

impl LabelEncoder {
    /// An encoder for texts of at most `max_length` tokens, special tokens included; what exceeds it is cut off and counted.
    ///
    /// # Errors
    /// [`Error::Core`] if `max_length` leaves no room beside the special tokens.
    pub fn new(tokenizer: &Tokenizer, labels: &[String], max_length: usize) -> Result<Self> {
        let by_name = labels.iter().enumerate().map(|(index, label)| (label.clone(), index)).collect();
        Ok(Self { tokenizer: tokenizer.with_max_length(max_length)?, by_name })
    }

    /// Encodes rows that came from the file `origin`.
    ///
    /// # Errors
    /// [`Error::Data`] naming the line whose label the classifier doesn't have; [`Error::Core`] if the tokenizer fails.
    pub fn encode(&self, rows: &[LabelledText], origin: &Path) -> Result<LabelledDataset> {
        let mut dataset = LabelledDataset::default();
        // Bounded, so that the texts of a large file need not exist as tokens twice. Whether a row is a pair is its own affair, not its
        // neighbours'.
        let alike = rows.chunk_by(|a, b| a.pair.is_some() == b.pair.is_some());
        for rows in alike.flat_map(|rows| rows.chunks(1024)) {
            let encoded = if rows.iter().any(|row| row.pair.is_some()) {
                let pair = |row: &'_ LabelledText| row.pair.clone().unwrap_or_default();
                let seconds: Vec<String> = rows.iter().map(pair).collect();
                let pairs: Vec<(&str, &str)> =
                    rows.iter().zip(&seconds).map(|(row, pair)| (row.text.as_str(), pair.as_str())).collect();
                self.tokenizer.encode_pairs(&pairs)?
            } else {
                let texts: Vec<&str> = rows.iter().map(|row| row.text.as_str()).collect();
                self.tokenizer.encode_texts(&texts)?
            };
            for (row, encoded) in rows.iter().zip(encoded) {
                let label = self.label(&row.label).map_err(|reason| wrong(origin, row.line, reason))?;
                dataset.truncated += usize::from(encoded.truncated);
                dataset.examples.push(Labelled { ids: encoded.ids, type_ids: encoded.type_ids, label });
            }
        }
        Ok(dataset)
    }

    fn label(&self, label: &TextLabel) -> Result<Label, String> {
        let count = self.by_name.len();
        let class = |name: &String| {
            let names: Vec<_> = self.by_name.keys().map(String::as_str).collect();
            let unknown = || format!("the label {name:?} is none of the classifier's: {}", names.join(", "));
            self.by_name.get(name).copied().ok_or_else(unknown)
        };
        match label {
            TextLabel::Name(name) => Ok(Label::Class(class(name)?)),
            TextLabel::Number(value) if count == 1 => Ok(Label::Values(vec![*value as f32])),
            TextLabel::Number(value) => {
                // A class may be called by a number.
                if let Some(index) = self.by_name.get(&value.to_string()) {
                    return Ok(Label::Class(*index));
                }
                // Among classes that are called by numbers, a place would be mistaken for a name.
                let numbered = self.by_name.keys().any(|name| name.parse::<f64>().is_ok());
                if !numbered && value.fract() == 0.0 && (0.0..count as f64).contains(value) {
                    return Ok(Label::Class(*value as usize));
                }
                let names: Vec<_> = self.by_name.keys().map(String::as_str).collect();
                Err(format!(
                    "the class {value} is neither the name of one ({}) nor, among classes without numbers for names, a place from 0 to {}",
                    names.join(", "),
                    count - 1
                ))
            }
            TextLabel::Names(names) => {
                let mut values = vec![0.0; count];
                for name in names {
                    values[class(name)?] = 1.0;
                }
                Ok(Label::Values(values))
            }
            TextLabel::Numbers(values) if values.len() == count => {
                Ok(Label::Values(values.iter().map(|value| *value as f32).collect()))
            }
            TextLabel::Numbers(values) => {
                Err(format!("{} numbers, where the classifier has {count} labels", values.len()))
            }
        }
    }
}
