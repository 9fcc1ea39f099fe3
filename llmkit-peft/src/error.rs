use std::path::PathBuf;

/// What can go wrong in `llmkit-peft`. Each message says what was expected, what was found, where, and what to do.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// The model, a checkpoint or a tokenizer failed.
    #[error(transparent)]
    Core(#[from] llmkit_core::Error),
    /// A field of an adapter's configuration is unusable.
    #[error("{}: field `{field}`: expected {expected}, found {found}", origin.display())]
    Config {
        /// The configuration file, or `LoraConfig` for one made in the program.
        origin: PathBuf,
        /// The field.
        field: String,
        /// What would be accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// No layer of the model matches.
    #[error("`{field}` = {pattern} matches no layer of the model; its linear layers end in {}", available.join(", "))]
    NoTarget {
        /// The field of the configuration.
        field: &'static str,
        /// Its value.
        pattern: String,
        /// The last parts of the paths of the model's layers.
        available: Vec<String>,
    },
    /// The method is more than other weights.
    #[error("{kind} can't be merged into a model's weights: {reason}; keep the adapter beside the model")]
    NotMergeable {
        /// What its file calls the method.
        kind: String,
        /// Why not.
        reason: String,
    },
    /// There is no bias to train.
    #[error(
        "the model ({model_type}) has no biases in its linear layers, so BitFit has nothing to train; use LN tuning, or name layers in \
         `BitFitConfig::new` to give them one"
    )]
    NoBias {
        /// The model's `model_type`.
        model_type: String,
    },
    /// A burn module holds no state of an adapter that was attached to another.
    #[error("the module lacks these parameters of the adapter: {}; pass the module that the adapter was attached to", names.join(", "))]
    NotAttached {
        /// Their names in the adapter's file.
        names: Vec<String>,
    },
    /// An adapter's file and its configuration (or the base model) disagree. All disagreements are listed.
    #[error(
        "{} does not fit this base model and its adapter_config.json: missing [{}], unknown [{}], of another shape [{}]; \
         load it with the base model that it was trained on",
        path.display(), missing.join(", "), unexpected.join(", "), mismatched.join(", ")
    )]
    Adapter {
        /// The adapter's file.
        path: PathBuf,
        /// Keys that the adapter needs and the file lacks.
        missing: Vec<String>,
        /// Keys of the file that the adapter has no place for.
        unexpected: Vec<String>,
        /// Keys of the wrong shape, with both shapes.
        mismatched: Vec<String>,
    },
    /// A data set's line can't be used.
    #[error("{}:{line}: {reason}", path.display())]
    Data {
        /// The file.
        path: PathBuf,
        /// The line, from 1.
        line: usize,
        /// What is wrong with it and what to do.
        reason: String,
    },
    /// An example that the model can't read.
    #[error("example {index}: expected {expected}, found {found}")]
    Example {
        /// Its place in the data, from 0.
        index: usize,
        /// What would be accepted.
        expected: String,
        /// What is there.
        found: String,
    },
    /// A data set has nothing to train on.
    #[error("nothing to train on: {reason}")]
    NoData {
        /// Why.
        reason: String,
    },
    /// A training setting is out of range.
    #[error("training setting `{setting}`: expected {expected}, found {found}")]
    Setting {
        /// The setting.
        setting: &'static str,
        /// What would be accepted.
        expected: &'static str,
        /// What was given.
        found: String,
    },
    /// Trainable parameters that the loss does not reach.
    #[error("these trainable parameters never get a gradient, so training would leave them as they are: {}", names.join(", "))]
    NoGradient {
        /// Their names.
        names: Vec<String>,
    },
    /// The loss or a gradient became infinite or not a number.
    #[error("step {step}: {what} is {value}; lower the learning rate or look at the data of this step")]
    NotFinite {
        /// The optimizer step, from 1.
        step: usize,
        /// `"loss"` or `"gradient norm"`.
        what: &'static str,
        /// The value.
        value: f64,
    },
    /// A matrix can't be factorised.
    #[error("cannot factorise the matrix of {path}: {reason}; check the model's weights")]
    Factorisation {
        /// The layer.
        path: String,
        /// Why.
        reason: String,
    },
    /// A set of adapters has no adapter of a name, or has one already.
    #[error("adapter `{name}`: expected {expected}; there are: {}", if known.is_empty() { "none".into() } else { known.join(", ") })]
    AdapterName {
        /// The name.
        name: String,
        /// What would be accepted.
        expected: &'static str,
        /// The names that the set has.
        known: Vec<String>,
    },
    /// Adapters that can't act together.
    #[error("{} cannot act together on {place}: {reason}", adapters.iter().map(|name| format!("`{name}`")).collect::<Vec<_>>().join(" and "))]
    Together {
        /// Their names.
        adapters: Vec<String>,
        /// Where they would.
        place: String,
        /// Why they can't.
        reason: String,
    },
    /// LoRAs that can't be combined or taken apart.
    #[error("cannot work on these LoRAs: {reason}")]
    Combination {
        /// Why, and what to do.
        reason: String,
    },
    /// An output is no number, so that there is nothing to compare.
    #[error("sample {sample}: an output is {value}; look at the weights of the model and the adapter")]
    Output {
        /// The sample, from 0.
        sample: usize,
        /// The output.
        value: f32,
    },
    /// Two models that should be the same but for their weights are not.
    #[error(
        "the two models are not of one architecture: expected {expected}, found {found}; take the model that the other was made from"
    )]
    OtherModel {
        /// The first layer that differs.
        path: String,
        /// What the first model has.
        expected: String,
        /// What the second has.
        found: String,
    },
    /// A file would hold the base model rather than the fine-tuned one.
    #[error(
        "{}: stored as {weights}, only {:.1} % of what the adapter changes would be left, as the base lies on that grid; \
         store it as F16 or Q8_0, or keep the adapter beside the quantised base",
        path.display(), 100.0 * kept
    )]
    UpdateLost {
        /// The file that was to be written.
        path: PathBuf,
        /// The type of its weights.
        weights: String,
        /// The share of the update that would be left.
        kept: f64,
    },
    /// A training checkpoint can't be resumed.
    #[error("cannot resume from {}: {reason}", path.display())]
    Resume {
        /// The checkpoint's folder.
        path: PathBuf,
        /// What does not fit.
        reason: String,
    },
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
