use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Int, Tensor, TensorData};
use llmkit_core::Tokenizer;
use llmkit_core::checkpoint::{Safetensors, TensorSource};
use llmkit_core::models::Model;
use serde::{Deserialize, Serialize};

use super::config::in_range;
use super::method::PROGRAM;
use super::prompt_tuning::text_ids;
use super::{
    Learned, LearnedTensor, ParamSource, PromptConfig, PromptMethod, PromptScope, PromptSizes, PromptStart,
};
use crate::{Dropout, Error, Result};

/// Multitask prompt tuning (Wang et al. 2023, <https://arxiv.org/abs/2303.02861>): the prompt of a task is one that all tasks share, times
/// a low-rank matrix of the task's own, element by element: `prompt * (cols[task] rows[task])`.
///
/// A fresh one, and one that was read, act for task 0; [`with_task`](Self::with_task) and [`with_tasks`](Self::with_tasks) choose others.
pub type MultitaskPromptTuning = PromptMethod<MultitaskPrompt>;

/// How prompts of several tasks are shaped: PEFT's `MultitaskPromptTuningConfig`, and what an `adapter_config.json` of type
/// `MULTITASK_PROMPT_TUNING` holds.
///
/// ```
/// use llmkit_peft::MultitaskPromptTuningConfig;
///
/// let config = MultitaskPromptTuningConfig::new(20, 3).with_ranks(2);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct MultitaskPromptTuningConfig {
    /// How many vectors, for which model.
    #[serde(flatten)]
    pub scope: PromptScope,
    /// How the vectors start; default drawn at random.
    #[serde(rename = "prompt_tuning_init", default)]
    pub init: MultitaskPromptTuningInit,
    /// The text from which they start, where they do.
    #[serde(rename = "prompt_tuning_init_text", default)]
    pub init_text: Option<String>,
    /// The tokenizer of the text, for PEFT: it does not load a folder without where the prompt started from a text.
    #[serde(default)]
    pub tokenizer_name_or_path: Option<String>,
    /// The `adapter_model.safetensors` of prompts that were trained before, from which they start, where they do.
    #[serde(rename = "prompt_tuning_init_state_dict_path", default)]
    pub init_path: Option<PathBuf>,
    /// The task of these whose matrix is taken, where only one is; default 0.
    #[serde(rename = "prompt_tuning_init_task", default)]
    pub init_task: usize,
    /// The rank of each task's matrix; default 1.
    #[serde(rename = "num_ranks", default = "one")]
    pub ranks: usize,
    /// How many tasks there are; default 1.
    #[serde(rename = "num_tasks", default = "one")]
    pub tasks: usize,
}

/// How the prompts of several tasks start.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
pub enum MultitaskPromptTuningInit {
    /// Normal with standard deviation 1, and each task's matrix the product of two of standard deviation 0.02.
    #[default]
    Random,
    /// The model's vectors of a text's tokens, repeated or cut off to fit.
    Text,
    /// From trained prompts: what their tasks share, and the mean of their tasks' factors.
    AverageSourceTasks,
    /// From trained prompts: what their tasks share, and the factors of one task.
    ExactSourceTask,
    /// From trained prompts: what their tasks share, and fresh factors.
    OnlySourceShared,
}

fn one() -> usize {
    1
}

impl MultitaskPromptTuningConfig {
    /// Prompts of `tasks` tasks, drawn at random, with matrices of rank 1; a number of vectors is a scope, too.
    pub fn new(scope: impl Into<PromptScope>, tasks: usize) -> Self {
        Self {
            scope: scope.into(),
            init: MultitaskPromptTuningInit::Random,
            init_text: None,
            tokenizer_name_or_path: None,
            init_path: None,
            init_task: 0,
            ranks: one(),
            tasks,
        }
    }

    /// Sets the rank of each task's matrix.
    pub fn with_ranks(self, ranks: usize) -> Self {
        Self { ranks, ..self }
    }

    /// Starts from `text`, in the tokens of `tokenizer_name_or_path`: [`MultitaskPromptTuning::from_text`] reads it.
    pub fn with_text(self, text: impl Into<String>, tokenizer_name_or_path: impl Into<String>) -> Self {
        Self {
            init: MultitaskPromptTuningInit::Text,
            init_text: Some(text.into()),
            tokenizer_name_or_path: Some(tokenizer_name_or_path.into()),
            ..self
        }
    }

    /// Starts from trained prompts, whose `adapter_model.safetensors` is at `path`.
    pub fn with_source(self, init: MultitaskPromptTuningInit, path: impl Into<PathBuf>) -> Self {
        Self { init, init_path: Some(path.into()), ..self }
    }

    /// Sets which task of the trained prompts is the source.
    pub fn with_source_task(self, task: usize) -> Self {
        Self { init_task: task, ..self }
    }
}

impl PromptConfig for MultitaskPromptTuningConfig {
    const PEFT_TYPE: &'static str = "MULTITASK_PROMPT_TUNING";

    fn scope(&self) -> &PromptScope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut PromptScope {
        &mut self.scope
    }

    fn complete(&mut self, model: &dyn Model, origin: &Path) -> Result<()> {
        self.scope.complete(PromptSizes::of_embeddings(model, origin)?, origin)
    }

    fn validate(&self, origin: &Path) -> Result<()> {
        in_range("num_virtual_tokens", self.scope.num_virtual_tokens, origin)?;
        in_range("num_ranks", self.ranks, origin)?;
        in_range("num_tasks", self.tasks, origin)
    }
}

/// The learned vectors and factors of [`MultitaskPromptTuning`].
#[derive(Module, Debug)]
pub struct MultitaskPrompt {
    /// `[tokens, hidden]`
    embeddings: Param<Tensor<2>>,
    /// `[tasks, tokens, ranks]`
    cols: Param<Tensor<3>>,
    /// `[tasks, ranks, hidden]`
    rows: Param<Tensor<3>>,
    /// The task of each sequence, or of all.
    #[module(skip)]
    chosen: Vec<usize>,
}

/// What a fresh prompt starts from.
struct Source {
    embeddings: PromptStart,
    cols: PromptStart,
    rows: PromptStart,
}

impl Source {
    fn new(config: &MultitaskPromptTuningConfig) -> Result<Self> {
        let fresh = Self {
            embeddings: PromptStart::Normal(1.0),
            cols: PromptStart::Normal(0.02),
            rows: PromptStart::Normal(0.02),
        };
        Ok(match config.init {
            MultitaskPromptTuningInit::Random => fresh,
            MultitaskPromptTuningInit::Text => Self { embeddings: PromptStart::Text, ..fresh },
            MultitaskPromptTuningInit::OnlySourceShared => {
                let (_, embeddings) = trained(config, "prompt_embeddings")?;
                Self { embeddings: PromptStart::Values(embeddings), ..fresh }
            }
            MultitaskPromptTuningInit::AverageSourceTasks | MultitaskPromptTuningInit::ExactSourceTask => {
                if config.tasks != 1 {
                    return Err(wrong(
                        config,
                        "num_tasks",
                        "1, as the source gives one task's factors",
                        &config.tasks,
                    ));
                }
                let factors = |key: &str| -> Result<PromptStart> {
                    let (shape, values) = trained(config, key)?;
                    let tasks = shape.first().copied().unwrap_or_default();
                    let size = values.len().checked_div(tasks).unwrap_or_default();
                    if config.init == MultitaskPromptTuningInit::AverageSourceTasks {
                        let mean = |i: usize| values.iter().skip(i).step_by(size).sum::<f32>() / tasks as f32;
                        return Ok(PromptStart::Values((0..size).map(mean).collect()));
                    }
                    let task = config.init_task;
                    match (task < tasks).then(|| &values[task * size..][..size]) {
                        Some(values) => Ok(PromptStart::Values(values.to_vec())),
                        None => {
                            let expected = format!("a task of the source's {tasks}");
                            Err(wrong(config, "prompt_tuning_init_task", &expected, &task))
                        }
                    }
                };
                let (_, embeddings) = trained(config, "prompt_embeddings")?;
                Self {
                    embeddings: PromptStart::Values(embeddings),
                    cols: factors("prefix_task_cols")?,
                    rows: factors("prefix_task_rows")?,
                }
            }
        })
    }
}

/// The shape and values of a tensor of the prompts from which new ones start.
fn trained(config: &MultitaskPromptTuningConfig, key: &str) -> Result<(Vec<usize>, Vec<f32>)> {
    let field = "prompt_tuning_init_state_dict_path";
    let path = config.init_path.as_ref().ok_or_else(|| {
        wrong(config, field, "the file of trained prompts (set it by `with_source`)", &"null")
    })?;
    let file = Safetensors::open(path)?;
    let info = file.info(key).ok_or_else(|| Error::Adapter {
        path: path.clone(),
        missing: vec![key.to_owned()],
        unexpected: Vec::new(),
        mismatched: Vec::new(),
    })?;
    let [tokens, hidden] = config.scope.vectors();
    let expected = match key {
        "prompt_embeddings" => vec![tokens, hidden],
        "prefix_task_cols" => vec![info.shape.first().copied().unwrap_or_default(), tokens, config.ranks],
        _ => vec![info.shape.first().copied().unwrap_or_default(), config.ranks, hidden],
    };
    if info.shape != expected {
        return Err(Error::Adapter {
            path: path.clone(),
            missing: Vec::new(),
            unexpected: Vec::new(),
            mismatched: vec![format!("{key}: expected {expected:?}, found {:?}", info.shape)],
        });
    }
    Ok((expected, file.read_f32(key)?))
}

fn wrong(
    _config: &MultitaskPromptTuningConfig,
    field: &str,
    expected: &str,
    found: &dyn std::fmt::Display,
) -> Error {
    Error::Config {
        origin: PROGRAM.into(),
        field: field.into(),
        expected: expected.into(),
        found: found.to_string(),
    }
}

impl Learned for MultitaskPrompt {
    type Config = MultitaskPromptTuningConfig;

    fn make(
        config: &MultitaskPromptTuningConfig,
        source: &mut ParamSource<'_>,
        _encoder: bool,
    ) -> Result<Self> {
        let shape @ [tokens, hidden] = config.scope.vectors();
        let start = match source.is_fresh() {
            true => Source::new(config)?,
            false => {
                Source { embeddings: PromptStart::Zeros, cols: PromptStart::Zeros, rows: PromptStart::Zeros }
            }
        };
        Ok(Self {
            embeddings: source.param("prompt_embeddings", shape, start.embeddings),
            cols: source.param("prefix_task_cols", [config.tasks, tokens, config.ranks], start.cols),
            rows: source.param("prefix_task_rows", [config.tasks, config.ranks, hidden], start.rows),
            chosen: vec![0],
        })
    }

    fn tensors(&self) -> Vec<LearnedTensor<'_>> {
        vec![
            LearnedTensor::new("prefix_task_cols", &self.cols),
            LearnedTensor::new("prefix_task_rows", &self.rows),
            LearnedTensor::new("prompt_embeddings", &self.embeddings),
        ]
    }

    fn select(&self, parents: &[usize]) -> Option<Self> {
        if self.chosen.len() == 1 {
            return None;
        }
        let chosen = parents.iter().map(|parent| self.chosen[*parent]).collect();
        Some(Self { chosen, ..self.clone() })
    }

    fn prompt(&self, batch: usize, _dropout: Option<Dropout>) -> Option<Tensor<3>> {
        let chosen = self.chosen.len();
        assert!(chosen == 1 || chosen == batch, "tasks for {chosen} sequences, and a batch of {batch}");
        let tasks: Vec<i32> = self.chosen.iter().map(|task| *task as i32).collect();
        let tasks = TensorData::new(tasks, [chosen]);
        let tasks = Tensor::<1, Int>::from_data(tasks, &self.embeddings.device().without_autodiff());
        let matrices = self.cols.val().select(0, tasks.clone()).matmul(self.rows.val().select(0, tasks));
        let prompts = self.embeddings.val().unsqueeze::<3>() * matrices;
        Some(if chosen == batch { prompts } else { prompts.repeat_dim(0, batch) })
    }
}

impl MultitaskPromptTuning {
    /// Fresh prompts that start as the configuration's text, which `tokenizer` splits.
    ///
    /// # Errors
    /// [`Error::Config`] if the configuration has no text, or the tokenizer another vocabulary than the model.
    pub fn from_text(
        model: &dyn Model,
        config: MultitaskPromptTuningConfig,
        tokenizer: &Tokenizer,
        seed: u64,
    ) -> Result<Self> {
        let ids = text_ids(config.init_text.as_deref(), tokenizer)?;
        Self::start(model, config, seed, Some(&ids))
    }

    /// Acts for `task` from now on.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no such task.
    pub fn with_task(self, task: usize) -> Result<Self> {
        self.with_tasks([task])
    }

    /// Acts for one task in each row of a batch; a single task stands for all rows.
    ///
    /// # Errors
    /// [`Error::Setting`] if there is no such task, or none is given.
    ///
    /// A batch of another number of rows then panics.
    pub fn with_tasks(mut self, tasks: impl IntoIterator<Item = usize>) -> Result<Self> {
        let chosen: Vec<usize> = tasks.into_iter().collect();
        if chosen.is_empty() || chosen.iter().any(|task| *task >= self.config().tasks) {
            return Err(Error::Setting {
                setting: "tasks",
                expected: "at least one task, each below num_tasks",
                found: format!("{chosen:?} of {}", self.config().tasks),
            });
        }
        self.learned_mut().chosen = chosen;
        Ok(self)
    }
}
