use std::path::{Path, PathBuf};

use llmkit_core::{ChatTemplate, Message, Tokenizer};

use super::AlpacaRow;
use crate::{Error, Result};

/// One example as the model sees it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Example {
    /// The whole conversation.
    pub ids: Vec<u32>,
    /// How many of `ids`, from the start, are given and not learned.
    pub prompt_len: usize,
}

impl Example {
    /// How many tokens are learned. The first token of a sequence has nothing to be predicted from.
    pub fn trained_tokens(&self) -> usize {
        self.ids.len() - self.prompt_len.max(1).min(self.ids.len())
    }
}

/// What to do with an example of which truncation would leave no answer at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Overlong {
    /// Refuse the data set, naming the line.
    #[default]
    Error,
    /// Leave the example out and count it.
    Drop,
}

/// Makes rows into [`Example`]s with the model's own chat template.
#[derive(Debug, Clone)]
pub struct Encoder<'a> {
    tokenizer: &'a Tokenizer,
    template: &'a ChatTemplate,
    max_length: usize,
    overlong: Overlong,
}

/// Examples, and what happened to the rows that they came from.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Dataset {
    /// The examples, in the order of their rows.
    pub examples: Vec<Example>,
    /// Examples that lost the end of their answer to the length limit.
    pub truncated: usize,
    /// Rows left out because nothing of their answer would have remained.
    pub dropped: usize,
}

impl Dataset {
    /// Tokens that are learned, over all examples.
    pub fn trained_tokens(&self) -> usize {
        self.examples.iter().map(Example::trained_tokens).sum()
    }
}

impl<'a> Encoder<'a> {
    /// An encoder for examples of at most 1,024 tokens that refuses a data set where an answer would be lost.
    pub fn new(tokenizer: &'a Tokenizer, template: &'a ChatTemplate) -> Self {
        Self { tokenizer, template, max_length: 1024, overlong: Overlong::Error }
    }

    /// Sets the longest example, in tokens.
    pub fn with_max_length(self, max_length: usize) -> Self {
        Self { max_length, ..self }
    }

    /// Sets what to do with an example whose answer would be lost wholly.
    pub fn with_overlong(self, overlong: Overlong) -> Self {
        Self { overlong, ..self }
    }

    /// Encodes rows that came from the file `origin`.
    ///
    /// # Errors
    /// [`Error::Data`] naming the line whose answer truncation would remove wholly, unless such rows are dropped;
    /// [`Error::NoData`] if nothing is left; [`Error::Core`] if the template or the tokenizer fails.
    pub fn encode(&self, rows: &[AlpacaRow], origin: &Path) -> Result<Dataset> {
        let mut dataset = Dataset::default();
        for row in rows {
            let mut example = self.example(row, origin)?;
            if example.prompt_len >= self.max_length {
                match self.overlong {
                    Overlong::Drop => {
                        dataset.dropped += 1;
                        continue;
                    }
                    Overlong::Error => {
                        let reason = format!(
                            "the prompt alone takes {} tokens and the limit is {}, so truncation would remove the answer wholly; \
                             raise the maximum length, or drop such rows with `Overlong::Drop`",
                            example.prompt_len, self.max_length
                        );
                        return Err(Error::Data { path: origin.to_path_buf(), line: row.line, reason });
                    }
                }
            }
            if example.ids.len() > self.max_length {
                example.ids.truncate(self.max_length);
                dataset.truncated += 1;
            }
            dataset.examples.push(example);
        }
        if dataset.examples.is_empty() {
            let reason = format!(
                "all {} rows of {} are longer than {} tokens",
                rows.len(),
                origin.display(),
                self.max_length
            );
            return Err(Error::NoData { reason });
        }
        Ok(dataset)
    }

    fn example(&self, row: &AlpacaRow, origin: &Path) -> Result<Example> {
        let mut messages = row.prompt();
        let prompt = self.template.render(&messages, true)?;
        messages.push(Message::assistant(&row.output));
        let whole = self.template.render(&messages, false)?;
        let Some(answer) = whole.strip_prefix(&prompt) else {
            let reason = "the chat template does not continue its own generation prompt when the answer follows, so the answer can't \
                          be told from the prompt"
                .to_owned();
            return Err(Error::Data { path: PathBuf::from(origin), line: row.line, reason });
        };
        // Encoded apart: a token must not span the border, or the model would learn an answer that begins inside one.
        // Templates write their special tokens themselves.
        let mut ids = self.tokenizer.encode(&prompt, false)?;
        let prompt_len = ids.len();
        ids.extend(self.tokenizer.encode(answer, false)?);
        Ok(Example { ids, prompt_len })
    }
}
