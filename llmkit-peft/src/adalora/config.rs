use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::budget::Budget;
use crate::layers::as_integer_if_whole;
use crate::{Bias, Error, MethodConfig, Result, Scope};

/// How an [`AdaLora`](super::AdaLora) is shaped and trained: PEFT's `AdaLoraConfig`, and what an `adapter_config.json` of type `ADALORA`
/// holds.
///
/// ```
/// use llmkit_peft::{AdaLoraConfig, Targets};
///
/// // 1000 steps, of which the first 100 leave the ranks alone, and the last 300 keep what was chosen.
/// let config = AdaLoraConfig::new(Targets::AllLinear, 1000).with_ranks(12, 8).with_warmup(100, 300).with_interval(10);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct AdaLoraConfig {
    /// The linear layers to act on; by default PEFT's choice (`q_proj` and `v_proj` of Llama and its kin, `query` and `value` of BERT).
    #[serde(flatten)]
    pub scope: Scope,
    /// The rank of each layer at the start; default 12.
    #[serde(default = "default_init_r")]
    pub init_r: usize,
    /// The mean rank of the layers at the end; default 8.
    #[serde(default = "default_target_r")]
    pub target_r: usize,
    /// Optimizer steps before the budget begins to fall; default 0.
    #[serde(default)]
    pub tinit: usize,
    /// Optimizer steps at the end in which the ranks stay; default 0.
    #[serde(default)]
    pub tfinal: usize,
    /// Optimizer steps between two allocations; default 1.
    #[serde(rename = "deltaT", default = "default_interval")]
    pub interval: usize,
    /// How much of the mean sensitivity stays from step to step; default 0.85.
    #[serde(default = "default_beta")]
    pub beta1: f64,
    /// How much of its mean uncertainty stays; default 0.85.
    #[serde(default = "default_beta")]
    pub beta2: f64,
    /// The weight of the penalty on factors that are not orthogonal; default 0.5.
    #[serde(default = "default_orth_reg_weight")]
    pub orth_reg_weight: f64,
    /// Optimizer steps of the whole training.
    pub total_step: usize,
    /// The numerator of the scale `alpha / init_r`; default 8. Where it is not positive, the scale is one.
    #[serde(rename = "lora_alpha", default = "default_alpha", serialize_with = "as_integer_if_whole")]
    pub alpha: f64,
    /// The probability that an input of the update is dropped while training, in [0, 1); default 0.
    #[serde(rename = "lora_dropout", default)]
    pub dropout: f64,
    /// Which biases train along; default none.
    #[serde(default)]
    pub bias: Bias,
    /// False for normal factors, for tests; anything else for PEFT's start.
    #[serde(default = "true_value")]
    pub(super) init_lora_weights: Value,
    /// For each layer of a file, which of its `init_r` singular values it holds.
    #[serde(default)]
    pub(super) rank_pattern: Option<IndexMap<String, Vec<bool>>>,
}

fn default_init_r() -> usize {
    12
}

fn default_target_r() -> usize {
    8
}

fn default_interval() -> usize {
    1
}

fn default_beta() -> f64 {
    0.85
}

fn default_orth_reg_weight() -> f64 {
    0.5
}

fn default_alpha() -> f64 {
    8.0
}

fn true_value() -> Value {
    Value::Bool(true)
}

impl AdaLoraConfig {
    /// An AdaLoRA that falls from rank 12 to 8 on the layers of `scope`, in a training of `total_step` optimizer steps.
    pub fn new(scope: impl Into<Scope>, total_step: usize) -> Self {
        Self {
            scope: scope.into(),
            init_r: default_init_r(),
            target_r: default_target_r(),
            tinit: 0,
            tfinal: 0,
            interval: default_interval(),
            beta1: default_beta(),
            beta2: default_beta(),
            orth_reg_weight: default_orth_reg_weight(),
            total_step,
            alpha: default_alpha(),
            dropout: 0.0,
            bias: Bias::None,
            init_lora_weights: true_value(),
            rank_pattern: None,
        }
    }

    /// Sets the rank at the start and the mean rank at the end.
    pub fn with_ranks(self, init_r: usize, target_r: usize) -> Self {
        Self { init_r, target_r, ..self }
    }

    /// Sets the optimizer steps before the first allocation and after the last one.
    pub fn with_warmup(self, tinit: usize, tfinal: usize) -> Self {
        Self { tinit, tfinal, ..self }
    }

    /// Sets the optimizer steps between two allocations.
    pub fn with_interval(self, interval: usize) -> Self {
        Self { interval, ..self }
    }

    /// Sets how much of the mean sensitivity and uncertainty stays from step to step.
    pub fn with_betas(self, beta1: f64, beta2: f64) -> Self {
        Self { beta1, beta2, ..self }
    }

    /// Sets the weight of the penalty on factors that are not orthogonal.
    pub fn with_orth_reg_weight(self, orth_reg_weight: f64) -> Self {
        Self { orth_reg_weight, ..self }
    }

    /// Sets alpha.
    pub fn with_alpha(self, alpha: f64) -> Self {
        Self { alpha, ..self }
    }

    /// Sets the dropout probability.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Sets which biases train along.
    pub fn with_bias(self, bias: Bias) -> Self {
        Self { bias, ..self }
    }

    /// Draws all factors from a normal distribution: not the identity, for tests.
    pub fn with_random_init(self) -> Self {
        Self { init_lora_weights: Value::Bool(false), ..self }
    }

    pub(super) fn has_random_init(&self) -> bool {
        self.init_lora_weights == Value::Bool(false)
    }

    /// The budget of layers that have `initial` singular values.
    pub(super) fn budget(&self, layers: usize, initial: usize) -> Budget {
        Budget {
            initial,
            target: self.target_r.saturating_mul(layers).min(initial),
            tinit: self.tinit,
            tfinal: self.tfinal,
            interval: self.interval,
            total_step: self.total_step,
        }
    }
}

impl MethodConfig for AdaLoraConfig {
    const PEFT_TYPE: &'static str = "ADALORA";
    const MUST_BE_NEUTRAL: &'static [&'static str] = &[
        "alora_invocation_tokens",
        "arrow_config",
        "corda_config",
        "eva_config",
        "fan_in_fan_out",
        "kasa_config",
        "layer_replication",
        "loftq_config",
        "lora_ga_config",
        "megatron_config",
        "monteclora_config",
        "target_parameters",
        "trainable_token_indices",
        "use_bdlora",
        "use_dora",
        "use_qalora",
        "velora_config",
    ];

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    fn validate(&self, origin: &Path) -> Result<()> {
        let check = |field: &str, good: bool, expected: &str, found: f64| match good {
            true => Ok(()),
            false => Err(Error::Config {
                origin: origin.to_path_buf(),
                field: field.into(),
                expected: expected.into(),
                found: found.to_string(),
            }),
        };
        let rank = (1..=1 << 16).contains(&self.init_r);
        check("init_r", rank, "an integer in 1..=65536", self.init_r as f64)?;
        check("deltaT", self.interval > 0, "at least 1", self.interval as f64)?;
        let open = |share: f64| share > 0.0 && share < 1.0;
        check("beta1", open(self.beta1), "a number between 0 and 1", self.beta1)?;
        check("beta2", open(self.beta2), "a number between 0 and 1", self.beta2)?;
        let weight = self.orth_reg_weight;
        check("orth_reg_weight", weight.is_finite() && weight >= 0.0, "a number from 0", weight)?;
        check("lora_alpha", self.alpha.is_finite(), "a finite number", self.alpha)?;
        check("lora_dropout", (0.0..1.0).contains(&self.dropout), "a probability in [0, 1)", self.dropout)?;
        let falls = self.total_step.checked_sub(self.tfinal).is_some_and(|last| self.tinit < last);
        check("total_step", falls, "more than tinit and tfinal together", self.total_step as f64)
    }

    fn default_targets(model_type: &str) -> Option<&'static [&'static str]> {
        match model_type {
            "llama" | "gemma3_text" | "qwen2" | "qwen3" => Some(&["q_proj", "v_proj"]),
            "bert" => Some(&["query", "value"]),
            "roberta" => Some(&["query", "key", "value", "dense"]),
            _ => None,
        }
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn bias(&self) -> Bias {
        self.bias
    }
}
