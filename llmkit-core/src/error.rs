use std::io;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// What can go wrong in `llmkit-core`. Each message says what was expected, what was found, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The operating system refused to read or write a file.
    #[error("cannot {action} {}: {source}", path.display())]
    Io {
        /// What was being done, as a verb: `"read"`, `"write"`, `"map"`.
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// The cause.
        #[source]
        source: io::Error,
    },
    /// A file that the operation needs is not there.
    #[error("{} is missing: {remedy}", path.display())]
    MissingFile {
        /// The file that was looked for.
        path: PathBuf,
        /// What to do about it.
        remedy: String,
    },
    /// A JSON file does not parse.
    #[error("{} is not valid JSON: {source}", path.display())]
    Json {
        /// The file.
        path: PathBuf,
        /// The parser's message, with line and column.
        #[source]
        source: serde_json::Error,
    },
    /// A checkpoint file is malformed: truncated, oversized, or lying about its own contents.
    #[error("{} is not a usable checkpoint: expected {expected}, found {found}", path.display())]
    Checkpoint {
        /// The file.
        path: PathBuf,
        /// What the format demands.
        expected: String,
        /// What the file holds.
        found: String,
    },
    /// A checkpoint and a model disagree about their tensors. All disagreements are listed.
    #[error("{} does not fit the model:{}", path.display(), list_disagreements(missing, unexpected, mismatched))]
    Tensors {
        /// The file or folder.
        path: PathBuf,
        /// Parameters of the model that the file lacks.
        missing: Vec<String>,
        /// Tensors of the file that the model has no place for.
        unexpected: Vec<String>,
        /// Tensors whose shape differs from the parameter's.
        mismatched: Vec<ShapeMismatch>,
    },
    /// A model's configuration is unusable.
    #[error("{}: field `{field}`: expected {expected}, found {found}", path.display())]
    Config {
        /// The configuration file.
        path: PathBuf,
        /// The offending field.
        field: String,
        /// What would be accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// The architecture is not one that this version can run.
    #[error("{}: architecture `{found}` is not supported; supported: {}", path.display(), supported.join(", "))]
    UnsupportedArchitecture {
        /// The configuration file.
        path: PathBuf,
        /// The architecture that it names.
        found: String,
        /// Those that this build knows.
        supported: Vec<String>,
    },
    /// A tokenizer could not be built or refused its input.
    #[error("tokenizer: {reason}")]
    Tokenizer {
        /// What happened.
        reason: String,
    },
    /// A chat template does not parse or failed while rendering.
    #[error("chat template: {reason}")]
    Template {
        /// The engine's message, with its line.
        reason: String,
    },
    /// The requested device cannot be used.
    #[error("device `{requested}`: {remedy}")]
    Device {
        /// The device as it was asked for.
        requested: String,
        /// What to do.
        remedy: String,
    },
    /// A setting of a generation request is out of range.
    #[error("generation setting `{setting}`: expected {expected}, found {found}")]
    Generation {
        /// The setting's name.
        setting: &'static str,
        /// The accepted range.
        expected: &'static str,
        /// The value given.
        found: String,
    },
    /// A model's logits are unusable.
    #[error(
        "logits of new token {step} (counted from 0): expected {expected}, found {found}; check the checkpoint, its number type \
         and the settings"
    )]
    Logits {
        /// Which new token, counted from 0.
        step: usize,
        /// What was needed.
        expected: &'static str,
        /// What was there.
        found: String,
    },
    /// A grammar, or a schema, that an answer must fit is unusable.
    #[error("grammar: {reason}")]
    Grammar {
        /// What is wrong with it.
        reason: String,
    },
    /// A language model (local or remote) failed to answer.
    #[error("language model `{model}`: {reason}")]
    Model {
        /// The model's name.
        model: String,
        /// What happened.
        reason: String,
    },
    /// A model behind a network failed to answer.
    #[error("language model `{model}`{}: {reason}", status.map(|status| format!(" (HTTP status {status})")).unwrap_or_default())]
    Remote {
        /// The model's name.
        model: String,
        /// What happened and what to do. Holds no key.
        reason: String,
        /// The HTTP status, where the server answered.
        status: Option<u16>,
        /// How long the server asks to wait.
        retry_after: Option<Duration>,
        /// The cause, where the transport failed.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
    /// A model could not be downloaded.
    #[error("cannot fetch `{repo}` from the hub: {reason}")]
    Hub {
        /// The repository.
        repo: String,
        /// What happened and what to do.
        reason: String,
    },
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A tensor whose shape in the file is not that of the parameter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ShapeMismatch {
    /// The tensor's name.
    pub name: String,
    /// The shape that the model needs.
    pub expected: Vec<usize>,
    /// The shape in the file.
    pub found: Vec<usize>,
}

impl Error {
    /// An [`Error::Io`] about `path`; for `map_err`.
    pub fn io(action: &'static str, path: impl AsRef<Path>) -> impl FnOnce(io::Error) -> Self {
        let path = path.as_ref().to_path_buf();
        move |source| Self::Io { action, path, source }
    }
}

fn list_disagreements(missing: &[String], unexpected: &[String], mismatched: &[ShapeMismatch]) -> String {
    let mut text = String::new();
    if !missing.is_empty() {
        text += &format!("\n  missing from the file ({}): {}", missing.len(), missing.join(", "));
    }
    if !unexpected.is_empty() {
        text += &format!("\n  unknown to the model ({}): {}", unexpected.len(), unexpected.join(", "));
    }
    for ShapeMismatch { name, expected, found } in mismatched {
        text += &format!("\n  {name}: expected shape {expected:?}, found {found:?}");
    }
    text
}
