use std::path::Path;

use indexmap::IndexMap;
use serde::{Deserialize, Serialize};

use super::{InitLora, LoraPlus};
use crate::layers::{
    Bias, MethodConfig, Scope, TokenIndices, as_integer_if_whole, as_integers_if_whole, compile_pattern,
    lookup_pattern, null_as_default,
};
use crate::{Error, Result};

/// How a LoRA is shaped: PEFT's `LoraConfig`, and what an `adapter_config.json` of type `LORA` holds.
///
/// ```
/// use llmkit_peft::{LoraConfig, Targets};
///
/// let config = LoraConfig::new(Targets::names(["q_proj", "v_proj"])).with_rank(16).with_alpha(32.0).with_rslora(true);
/// assert_eq!(config.rank, 16);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct LoraConfig {
    /// The layers to act on, and what trains whole beside them.
    #[serde(flatten)]
    pub scope: Scope,
    /// The rank `r` of the update; default 8.
    #[serde(rename = "r", default = "default_rank")]
    pub rank: usize,
    /// The numerator of the scale: `alpha / r`, or `alpha / sqrt(r)` with rsLoRA; default 8.
    #[serde(rename = "lora_alpha", default = "default_alpha", serialize_with = "as_integer_if_whole")]
    pub alpha: f64,
    /// The probability that an input of the update is dropped while training, in [0, 1); default 0.
    #[serde(rename = "lora_dropout", default)]
    pub dropout: f64,
    /// Which biases train along; default none.
    #[serde(default)]
    pub bias: Bias,
    /// Scale by `alpha / sqrt(r)`, which stays stable at high ranks (Kalajdzievski 2023); default false.
    #[serde(default)]
    pub use_rslora: bool,
    /// Whether `lora_B` has a bias of its own; default false.
    #[serde(default)]
    pub lora_bias: bool,
    /// DoRA (Liu et al. 2024): the update turns the weight's rows, and a trained vector sets their lengths; default false.
    #[serde(default)]
    pub use_dora: bool,
    /// Tokens whose vectors train along; default none.
    #[serde(default)]
    pub trainable_token_indices: Option<TokenIndices>,
    /// Whether a head that is tied to the embedding gets the embedding's update as well; by default it stays the base's.
    #[serde(default)]
    pub ensure_weight_tying: bool,
    /// LoRA+: other learning rates for some of the tensors. Not in the file, which is for applying the adapter; training checkpoints keep
    /// it.
    #[serde(skip)]
    pub lora_plus: Option<LoraPlus>,
    /// How the factors start; default [`InitLora::Default`].
    #[serde(rename = "init_lora_weights", default)]
    pub init: InitLora,
    /// Other ranks for layers whose path ends in a match of the key.
    #[serde(default, deserialize_with = "null_as_default")]
    pub rank_pattern: IndexMap<String, usize>,
    /// Other alphas for layers whose path ends in a match of the key.
    #[serde(default, deserialize_with = "null_as_default", serialize_with = "as_integers_if_whole")]
    pub alpha_pattern: IndexMap<String, f64>,
}

/// The rank and the scale of the update in one layer.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sizes {
    /// The rank `r`.
    pub rank: usize,
    /// The factor of `B A x`.
    pub scale: f64,
}

impl LoraConfig {
    /// A LoRA of rank 8 and alpha 8 on these layers.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self {
            scope: scope.into(),
            rank: default_rank(),
            alpha: default_alpha(),
            dropout: 0.0,
            bias: Bias::None,
            use_rslora: false,
            lora_bias: false,
            use_dora: false,
            trainable_token_indices: None,
            ensure_weight_tying: false,
            lora_plus: None,
            init: InitLora::Default,
            rank_pattern: IndexMap::new(),
            alpha_pattern: IndexMap::new(),
        }
    }

    /// Sets the rank.
    pub fn with_rank(self, rank: usize) -> Self {
        Self { rank, ..self }
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

    /// Scales by `alpha / sqrt(r)`.
    pub fn with_rslora(self, use_rslora: bool) -> Self {
        Self { use_rslora, ..self }
    }

    /// Gives `lora_B` a bias of its own.
    pub fn with_lora_bias(self, lora_bias: bool) -> Self {
        Self { lora_bias, ..self }
    }

    /// Trains the lengths of the weights' rows apart from their directions.
    pub fn with_dora(self, use_dora: bool) -> Self {
        Self { use_dora, ..self }
    }

    /// Trains the vectors of these tokens along; a tied head follows.
    pub fn with_trainable_tokens(self, tokens: impl IntoIterator<Item = usize>) -> Self {
        let tokens = TokenIndices::Embedding(tokens.into_iter().collect());
        Self { trainable_token_indices: Some(tokens), ..self }
    }

    /// Gives a head that is tied to the embedding the embedding's update as well.
    pub fn with_weight_tying(self, ensure_weight_tying: bool) -> Self {
        Self { ensure_weight_tying, ..self }
    }

    /// Sets other learning rates for some of the tensors.
    pub fn with_lora_plus(self, lora_plus: LoraPlus) -> Self {
        Self { lora_plus: Some(lora_plus), ..self }
    }

    /// Sets how the factors start.
    pub fn with_init(self, init: InitLora) -> Self {
        Self { init, ..self }
    }

    /// Gives layers whose path ends in a match of `pattern` another rank.
    pub fn with_rank_for(mut self, pattern: impl Into<String>, rank: usize) -> Self {
        self.rank_pattern.insert(pattern.into(), rank);
        self
    }

    /// Gives layers whose path ends in a match of `pattern` another alpha.
    pub fn with_alpha_for(mut self, pattern: impl Into<String>, alpha: f64) -> Self {
        self.alpha_pattern.insert(pattern.into(), alpha);
        self
    }

    /// The configuration of an ordinary LoRA that holds the trained factors and the initial ones side by side, as PEFT converts it.
    pub(super) fn of_twice_the_rank(&self) -> Self {
        // alpha / r, or alpha / sqrt(r), stays as it is.
        let factor = if self.use_rslora { std::f64::consts::SQRT_2 } else { 2.0 };
        let mut config =
            Self { rank: 2 * self.rank, alpha: factor * self.alpha, init: InitLora::Default, ..self.clone() };
        config.rank_pattern.values_mut().for_each(|rank| *rank *= 2);
        config.alpha_pattern.values_mut().for_each(|alpha| *alpha *= factor);
        config
    }

    /// A function from a layer's path to its rank and scale.
    pub(crate) fn sizes(&self, origin: &Path) -> Result<impl Fn(&str) -> Sizes + use<>> {
        let ranks = compile_pattern(self.rank_pattern.iter().map(|(k, v)| (k, *v)), "rank_pattern", origin)?;
        let alphas =
            compile_pattern(self.alpha_pattern.iter().map(|(k, v)| (k, *v)), "alpha_pattern", origin)?;
        let (rank, alpha, use_rslora) = (self.rank, self.alpha, self.use_rslora);
        Ok(move |path: &str| {
            let rank = lookup_pattern(&ranks, path).copied().unwrap_or(rank);
            let alpha = lookup_pattern(&alphas, path).copied().unwrap_or(alpha);
            let divisor = if use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            Sizes { rank, scale: alpha / divisor }
        })
    }
}

impl MethodConfig for LoraConfig {
    const PEFT_TYPE: &'static str = "LORA";
    const MUST_BE_NEUTRAL: &'static [&'static str] = &[
        "alora_invocation_tokens",
        "arrow_config",
        "corda_config",
        "fan_in_fan_out",
        "kasa_config",
        "layer_replication",
        "lora_ga_config",
        "megatron_config",
        "monteclora_config",
        "target_parameters",
        "use_bdlora",
        "use_qalora",
        "velora_config",
    ];

    fn scope(&self) -> &Scope {
        &self.scope
    }

    fn scope_mut(&mut self) -> &mut Scope {
        &mut self.scope
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn bias(&self) -> Bias {
        self.bias
    }

    fn trainable_tokens(&self) -> Option<&TokenIndices> {
        self.trainable_token_indices.as_ref()
    }

    fn ensure_weight_tying(&self) -> bool {
        self.ensure_weight_tying
    }

    fn validate(&self, origin: &Path) -> Result<()> {
        let wrong = |field: &str, expected: &str, found: String| {
            Err(Error::Config {
                origin: origin.into(),
                field: field.into(),
                expected: expected.into(),
                found,
            })
        };
        if let Some(rank) = std::iter::once(&self.rank)
            .chain(self.rank_pattern.values())
            .find(|rank| !(1..=1 << 16).contains(*rank))
        {
            return wrong("r", "an integer in 1..=65536", rank.to_string());
        }
        if let Some(alpha) =
            std::iter::once(&self.alpha).chain(self.alpha_pattern.values()).find(|alpha| !alpha.is_finite())
        {
            return wrong("lora_alpha", "a finite number", alpha.to_string());
        }
        if !(0.0..1.0).contains(&self.dropout) {
            return wrong("lora_dropout", "a probability in [0, 1)", self.dropout.to_string());
        }
        if self.lora_bias && self.use_dora {
            return wrong("lora_bias", "false where `use_dora` is true", "true".into());
        }
        if self.lora_bias && !matches!(self.init, InitLora::Default | InitLora::Random) {
            return wrong("lora_bias", "false with this `init_lora_weights`", "true".into());
        }
        if let Some(plus) = self.lora_plus
            && ![plus.ratio, plus.embedding].iter().all(|factor| factor.is_finite() && *factor >= 0.0)
        {
            return wrong("lora_plus", "finite factors of at least 0", format!("{plus:?}"));
        }
        Ok(())
    }
}

fn default_rank() -> usize {
    8
}

fn default_alpha() -> f64 {
    8.0
}
