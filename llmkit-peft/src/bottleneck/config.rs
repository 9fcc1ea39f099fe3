use std::collections::BTreeMap;
use std::path::Path;

use serde::de::DeserializeOwned;
use serde_json::{Map, Value};

use super::{NonLinearity, PhmConfig};
use crate::{Error, Result};

/// How a bottleneck adapter is shaped: AdapterHub's `BnConfig`, field by field, and what `config` in its `adapter_config.json` holds.
///
/// ```
/// use llmkit_peft::BottleneckConfig;
///
/// let config = BottleneckConfig::houlsby().with_reduction_factor(8.0).with_dropout(0.1);
/// assert!(config.mh_adapter && config.output_adapter);
/// ```
#[derive(Debug, Clone, PartialEq)]
#[doc(alias = "BnConfig")]
pub struct BottleneckConfig {
    /// Whether there is a bottleneck after attention.
    pub mh_adapter: bool,
    /// Whether there is a bottleneck after the feed-forward network.
    pub output_adapter: bool,
    /// How many times narrower than the residual stream the bottleneck is.
    pub reduction_factor: ReductionFactor,
    /// The function between the projections.
    pub non_linearity: NonLinearity,
    /// Whether the sublayer's output joins the residual stream (and is normalised, in models that normalise after) before the bottleneck
    /// reads it; default false.
    pub original_ln_before: bool,
    /// Whether that happens after the bottleneck; default true.
    pub original_ln_after: bool,
    /// A trained normalisation of what the bottleneck reads; default false.
    pub ln_before: bool,
    /// A trained normalisation of what the bottleneck gives; default false.
    pub ln_after: bool,
    /// How the weights start; default [`InitBottleneck::Bert`].
    pub init_weights: InitBottleneck,
    /// Where set, every bottleneck starts from this seed, all alike, rather than from the seed of the whole adapter; default none.
    pub init_weights_seed: Option<u64>,
    /// Whether the bottleneck reads what the sublayer read, instead of its output; default false.
    pub is_parallel: bool,
    /// The factor of the bottleneck's result; default 1.
    pub scaling: Scaling,
    /// Whether a trained gate decides for each sequence how much of the result counts; default false. It averages over all positions, those
    /// behind a sequence's end and, in a decoder, those still to come included: it fits encoders and batches of one length.
    pub use_gating: bool,
    /// What is added to the bottleneck's result; default [`AdapterResidual::Output`].
    pub residual_before_ln: AdapterResidual,
    /// Whether it is added before `ln_after` normalises; default false.
    pub adapter_residual_before_ln: bool,
    /// Blocks without bottlenecks, from 0; default none.
    pub leave_out: Vec<usize>,
    /// The probability that an element of the bottleneck's result is dropped while training, in [0, 1); default 0.
    pub dropout: f64,
    /// The probability that a sequential bottleneck's result is dropped for a whole sequence while training, in [0, 1); default 0.
    pub stochastic_depth: f64,
    /// Projections that are sums of Kronecker products, as Compacter has them; default ordinary ones.
    pub phm: PhmConfig,
    /// Whether the model's head, such as a classifier's last layers, trains along; default false. A file says so by having a prediction head.
    pub train_head: bool,
    /// Fields that llmkit doesn't act on; they are written back as they came.
    pub other: Map<String, Value>,
}

/// How many times narrower than the residual stream a bottleneck is. The width is rounded down, and is at least 1.
#[derive(Debug, Clone, PartialEq)]
pub enum ReductionFactor {
    /// The same in every block.
    All(f64),
    /// By block, from 0, and for the blocks that aren't named.
    PerBlock {
        /// The blocks' own factors.
        blocks: BTreeMap<usize, f64>,
        /// That of the others. Without it, each block needs its own.
        default: Option<f64>,
    },
}

/// The factor of a bottleneck's result.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Scaling {
    /// This number.
    Fixed(f64),
    /// A trained number, from 1 on.
    Learned,
    /// A trained number for each channel, from 1 on.
    Channel,
}

/// What is added to the result of a sequential bottleneck.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum AdapterResidual {
    /// The sublayer's output: `true` in AdapterHub's files.
    #[default]
    Output,
    /// What the bottleneck reads: `false`.
    Input,
    /// The sublayer's output after it joined the residual stream, before the normalisation: `"post_add"`.
    Sum,
}

/// How a bottleneck's weights start. Biases start at zero.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum InitBottleneck {
    /// Both projections normal with standard deviation 0.02: close to the identity.
    #[default]
    Bert,
    /// The upward projection zero, the other uniform in `±1 / sqrt(in)`: the identity (He et al. 2021).
    MamAdapter,
    /// Both projections normal with standard deviation 0.01, cut off at two of them: closer to the identity (Houlsby et al. 2019).
    Houlsby,
}

impl BottleneckConfig {
    /// Houlsby et al. (2019, <https://arxiv.org/abs/1902.00751>): bottlenecks after attention and after the feed-forward network, swish,
    /// 16 times narrower.
    #[doc(alias = "DoubleSeqBnConfig")]
    pub fn houlsby() -> Self {
        Self {
            mh_adapter: true,
            output_adapter: true,
            reduction_factor: ReductionFactor::All(16.0),
            non_linearity: NonLinearity::Swish,
            original_ln_before: false,
            original_ln_after: true,
            ln_before: false,
            ln_after: false,
            init_weights: InitBottleneck::Bert,
            init_weights_seed: None,
            is_parallel: false,
            scaling: Scaling::Fixed(1.0),
            use_gating: false,
            residual_before_ln: AdapterResidual::Output,
            adapter_residual_before_ln: false,
            leave_out: Vec::new(),
            dropout: 0.0,
            stochastic_depth: 0.0,
            phm: PhmConfig::default(),
            train_head: false,
            other: Map::new(),
        }
    }

    /// Pfeiffer et al. (2020, <https://arxiv.org/abs/2005.00247>): a bottleneck after the feed-forward network, ReLU, 16 times narrower.
    #[doc(alias = "SeqBnConfig")]
    pub fn pfeiffer() -> Self {
        Self {
            mh_adapter: false,
            original_ln_before: true,
            non_linearity: NonLinearity::Relu,
            ..Self::houlsby()
        }
    }

    /// He et al. (2021, <https://arxiv.org/abs/2110.04366>): a bottleneck beside the feed-forward network, ReLU, half as wide as the
    /// residual stream, scaled by 4; it starts as the identity.
    #[doc(alias = "ParBnConfig")]
    pub fn parallel() -> Self {
        Self {
            mh_adapter: false,
            reduction_factor: ReductionFactor::All(2.0),
            non_linearity: NonLinearity::Relu,
            init_weights: InitBottleneck::MamAdapter,
            is_parallel: true,
            scaling: Scaling::Fixed(4.0),
            ..Self::houlsby()
        }
    }

    /// Adapter+ (Steitz and Roth 2024, <https://arxiv.org/abs/2406.06820>), made for vision: a bottleneck behind the feed-forward network's whole
    /// join, GELU, 96 times narrower, scaled by channel, and dropped for a tenth of the sequences while training.
    #[doc(alias = "AdapterPlusConfig")]
    pub fn adapter_plus() -> Self {
        Self {
            reduction_factor: ReductionFactor::All(96.0),
            non_linearity: NonLinearity::Gelu,
            original_ln_after: false,
            residual_before_ln: AdapterResidual::Input,
            init_weights: InitBottleneck::Houlsby,
            scaling: Scaling::Channel,
            stochastic_depth: 0.1,
            ..Self::pfeiffer()
        }
    }

    /// Compacter (Mahabadi et al. 2021, <https://arxiv.org/abs/2106.04647>): Houlsby's places, GELU, 32 times narrower, with projections that
    /// are sums of Kronecker products of small matrices, one factor of which all bottlenecks share.
    #[doc(alias = "CompacterConfig")]
    pub fn compacter() -> Self {
        Self {
            reduction_factor: ReductionFactor::All(32.0),
            non_linearity: NonLinearity::Gelu,
            phm: PhmConfig { phm_layer: true, ..PhmConfig::default() },
            ..Self::houlsby()
        }
    }

    /// Compacter++ of the same paper: [`compacter`](Self::compacter) at Pfeiffer's place.
    #[doc(alias = "CompacterPlusPlusConfig")]
    pub fn compacter_plus_plus() -> Self {
        Self { mh_adapter: false, original_ln_before: true, ..Self::compacter() }
    }

    /// Sets how many times narrower the bottlenecks are.
    pub fn with_reduction_factor(self, factor: f64) -> Self {
        Self { reduction_factor: ReductionFactor::All(factor), ..self }
    }

    /// Sets the function between the projections.
    pub fn with_non_linearity(self, non_linearity: NonLinearity) -> Self {
        Self { non_linearity, ..self }
    }

    /// Sets the factor of the result.
    pub fn with_scaling(self, scaling: Scaling) -> Self {
        Self { scaling, ..self }
    }

    /// Sets how the weights start.
    pub fn with_init(self, init_weights: InitBottleneck) -> Self {
        Self { init_weights, ..self }
    }

    /// Sets the dropout probability.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Trains the model's head along.
    pub fn with_head(self, train_head: bool) -> Self {
        Self { train_head, ..self }
    }

    /// Leaves these blocks without bottlenecks.
    pub fn with_leave_out(self, blocks: impl IntoIterator<Item = usize>) -> Self {
        Self { leave_out: blocks.into_iter().collect(), ..self }
    }

    /// Reads the `config` of an `adapter_config.json`; `origin` is its path.
    ///
    /// # Errors
    /// [`Error::Config`] for a missing or impossible field, and fields that ask for a computation which llmkit does not do.
    pub fn parse(fields: &Map<String, Value>, origin: &Path) -> Result<Self> {
        let mut fields = Fields { origin, fields: fields.clone() };
        if let Some(architecture) = fields.fields.get("architecture").filter(|value| !value.is_null()) {
            let expected =
                "null (a bottleneck adapter), the only one of AdapterHub's architectures that is supported";
            return Err(fields.wrong("config.architecture", expected, architecture.to_string()));
        }
        for field in ["inv_adapter", "cross_adapter", "invertible_adapter"] {
            let value = fields.fields.get(field).unwrap_or(&Value::Null);
            if !matches!(value, Value::Null | Value::Bool(false)) {
                return Err(fields.wrong(
                    field,
                    "null or false (its method is not supported)",
                    value.to_string(),
                ));
            }
        }
        // Written anyway.
        for (field, usual) in [
            ("inv_adapter", Value::Null),
            ("inv_adapter_reduction_factor", Value::Null),
            ("cross_adapter", false.into()),
        ] {
            if fields.fields.get(field) == Some(&usual) {
                fields.fields.shift_remove(field);
            }
        }
        let name: String = fields.required("non_linearity", "a function's name")?;
        let config = Self {
            mh_adapter: fields.required("mh_adapter", "true or false")?,
            output_adapter: fields.required("output_adapter", "true or false")?,
            reduction_factor: {
                let expected = "a number, or numbers by block";
                let value = fields.required("reduction_factor", expected)?;
                ReductionFactor::parse(&value)
                    .ok_or_else(|| fields.wrong("reduction_factor", expected, value.to_string()))?
            },
            non_linearity: NonLinearity::from_name(&name)
                .ok_or_else(|| fields.wrong("non_linearity", &NonLinearity::names(), name))?,
            original_ln_before: fields.flag("original_ln_before", false)?,
            original_ln_after: fields.flag("original_ln_after", true)?,
            ln_before: fields.flag("ln_before", false)?,
            ln_after: fields.flag("ln_after", false)?,
            init_weights: fields.one_of(
                "init_weights",
                InitBottleneck::default(),
                &[
                    ("bert".into(), InitBottleneck::Bert),
                    ("mam_adapter".into(), InitBottleneck::MamAdapter),
                    ("houlsby".into(), InitBottleneck::Houlsby),
                ],
            )?,
            init_weights_seed: fields.or("init_weights_seed", None, "a whole number or null")?,
            is_parallel: fields.flag("is_parallel", false)?,
            scaling: match fields.fields.get("scaling").and_then(Value::as_f64) {
                Some(factor) => {
                    fields.fields.shift_remove("scaling");
                    Scaling::Fixed(factor)
                }
                None => fields.one_of(
                    "scaling",
                    Scaling::Fixed(1.0),
                    &[("learned".into(), Scaling::Learned), ("channel".into(), Scaling::Channel)],
                )?,
            },
            use_gating: fields.flag("use_gating", false)?,
            residual_before_ln: fields.one_of(
                "residual_before_ln",
                AdapterResidual::default(),
                &[
                    (true.into(), AdapterResidual::Output),
                    (false.into(), AdapterResidual::Input),
                    ("post_add".into(), AdapterResidual::Sum),
                ],
            )?,
            adapter_residual_before_ln: fields.flag("adapter_residual_before_ln", false)?,
            leave_out: fields.or("leave_out", Vec::new(), "a list of block indices")?,
            dropout: fields.or("dropout", 0.0, "a number")?,
            stochastic_depth: fields.or("stochastic_depth", 0.0, "a number")?,
            phm: PhmConfig::parse(&mut fields)?,
            train_head: false,
            other: fields.fields,
        };
        config.validate(origin)?;
        Ok(config)
    }

    /// The fields as AdapterHub writes them.
    pub fn to_json(&self) -> Map<String, Value> {
        let mut fields = self.other.clone();
        let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
        set("mh_adapter", self.mh_adapter.into());
        set("output_adapter", self.output_adapter.into());
        set("reduction_factor", self.reduction_factor.to_json());
        set("non_linearity", self.non_linearity.name().into());
        set("original_ln_before", self.original_ln_before.into());
        set("original_ln_after", self.original_ln_after.into());
        set("ln_before", self.ln_before.into());
        set("ln_after", self.ln_after.into());
        let init = match self.init_weights {
            InitBottleneck::Bert => "bert",
            InitBottleneck::MamAdapter => "mam_adapter",
            InitBottleneck::Houlsby => "houlsby",
        };
        set("init_weights", init.into());
        set("init_weights_seed", self.init_weights_seed.into());
        set("is_parallel", self.is_parallel.into());
        let scaling = match self.scaling {
            Scaling::Fixed(factor) => factor.into(),
            Scaling::Learned => "learned".into(),
            Scaling::Channel => "channel".into(),
        };
        set("scaling", scaling);
        set("use_gating", self.use_gating.into());
        let residual = match self.residual_before_ln {
            AdapterResidual::Output => true.into(),
            AdapterResidual::Input => false.into(),
            AdapterResidual::Sum => "post_add".into(),
        };
        set("residual_before_ln", residual);
        set("adapter_residual_before_ln", self.adapter_residual_before_ln.into());
        set("leave_out", self.leave_out.clone().into());
        set("dropout", self.dropout.into());
        set("stochastic_depth", self.stochastic_depth.into());
        self.phm.write(&mut set);
        // What AdapterHub's own classes always write.
        for field in ["inv_adapter", "inv_adapter_reduction_factor"] {
            fields.entry(field).or_insert(Value::Null);
        }
        fields.entry("cross_adapter").or_insert(false.into());
        fields
    }

    /// Checks the numbers and what doesn't go together.
    pub(super) fn validate(&self, origin: &Path) -> Result<()> {
        let wrong = |field: &str, expected: &str, found: String| {
            Err(Error::Config {
                origin: origin.into(),
                field: field.into(),
                expected: expected.into(),
                found,
            })
        };
        if !self.mh_adapter && !self.output_adapter {
            return wrong(
                "mh_adapter",
                "true, or output_adapter true",
                "both false: no bottleneck at all".into(),
            );
        }
        if let Some(factor) = self.reduction_factor.all().find(|factor| !factor.is_finite() || *factor <= 0.0)
        {
            return wrong("reduction_factor", "a positive number", factor.to_string());
        }
        if let Scaling::Fixed(factor) = self.scaling
            && !factor.is_finite()
        {
            return wrong("scaling", "a finite number", factor.to_string());
        }
        for (field, probability) in [("dropout", self.dropout), ("stochastic_depth", self.stochastic_depth)] {
            if !(0.0..1.0).contains(&probability) {
                return wrong(field, "a probability in [0, 1)", probability.to_string());
            }
        }
        if !self.is_parallel && self.residual_before_ln == AdapterResidual::Sum && !self.original_ln_before {
            let expected =
                "true or false where original_ln_before is false: there is no sum before the bottleneck";
            return wrong("residual_before_ln", expected, "\"post_add\"".into());
        }
        if self.phm.phm_layer && self.init_weights != InitBottleneck::Bert {
            return wrong(
                "init_weights",
                "\"bert\" where phm_layer is true",
                format!("{:?}", self.init_weights),
            );
        }
        self.phm.validate(origin)
    }

    /// The width of the bottleneck in `block` of a model of width `hidden`.
    pub(super) fn width(&self, block: usize, hidden: usize, origin: &Path) -> Result<usize> {
        let wrong = |expected: &str, found: String| Error::Config {
            origin: origin.into(),
            field: "reduction_factor".into(),
            expected: expected.into(),
            found,
        };
        let Some(factor) = self.reduction_factor.of(block) else {
            let found = self.reduction_factor.to_json().to_string();
            return Err(wrong(&format!("a factor for block {block}, or a \"default\""), found));
        };
        let width = (hidden as f64 / factor).floor();
        if width > MAX_WIDTH {
            return Err(wrong(&format!("a bottleneck of at most {MAX_WIDTH} channels"), factor.to_string()));
        }
        let width = (width as usize).max(1);
        let dim = self.phm.phm_dim;
        if self.phm.phm_layer && (width % dim != 0 || hidden % dim != 0) {
            let expected =
                format!("widths {hidden} and hidden / reduction_factor divisible by phm_dim = {dim}");
            return Err(wrong(&expected, format!("{factor}, which gives {width}")));
        }
        Ok(width)
    }
}

/// Wider bottlenecks than any model's residual stream.
const MAX_WIDTH: f64 = 65536.0;

impl ReductionFactor {
    fn of(&self, block: usize) -> Option<f64> {
        match self {
            Self::All(factor) => Some(*factor),
            Self::PerBlock { blocks, default } => blocks.get(&block).copied().or(*default),
        }
    }

    fn all(&self) -> impl Iterator<Item = f64> {
        let (blocks, default) = match self {
            Self::All(factor) => (None, Some(*factor)),
            Self::PerBlock { blocks, default } => (Some(blocks), *default),
        };
        blocks.into_iter().flat_map(|blocks| blocks.values().copied()).chain(default)
    }

    fn parse(value: &Value) -> Option<Self> {
        let Value::Object(entries) = value else { return value.as_f64().map(Self::All) };
        let (mut blocks, mut default) = (BTreeMap::new(), None);
        for (block, factor) in entries {
            if block == "default" {
                default = Some(factor.as_f64()?);
            } else {
                blocks.insert(block.parse().ok()?, factor.as_f64()?);
            }
        }
        Some(Self::PerBlock { blocks, default })
    }

    fn to_json(&self) -> Value {
        match self {
            Self::All(factor) => whole_as_integer(*factor),
            Self::PerBlock { blocks, default } => {
                let blocks = blocks.iter().map(|(block, factor)| (block.to_string(), *factor));
                let entries = blocks.chain(default.map(|factor| ("default".to_owned(), factor)));
                Value::Object(entries.map(|(block, factor)| (block, whole_as_integer(factor))).collect())
            }
        }
    }
}

fn whole_as_integer(value: f64) -> Value {
    if value.fract() == 0.0 && value.abs() < 1e15 { (value as i64).into() } else { value.into() }
}

/// A configuration's fields, of which each is taken once.
pub(super) struct Fields<'a> {
    pub(super) origin: &'a Path,
    pub(super) fields: Map<String, Value>,
}

impl Fields<'_> {
    pub(super) fn wrong(&self, field: &str, expected: &str, found: String) -> Error {
        Error::Config { origin: self.origin.into(), field: field.into(), expected: expected.into(), found }
    }

    fn required<T: DeserializeOwned>(&mut self, field: &str, expected: &str) -> Result<T> {
        match self.fields.shift_remove(field) {
            None => Err(self.wrong(field, expected, "no such field".into())),
            Some(value) => self.convert(field, expected, value),
        }
    }

    pub(super) fn or<T: DeserializeOwned>(&mut self, field: &str, default: T, expected: &str) -> Result<T> {
        match self.fields.shift_remove(field) {
            None => Ok(default),
            Some(value) => self.convert(field, expected, value),
        }
    }

    pub(super) fn flag(&mut self, field: &str, default: bool) -> Result<bool> {
        self.or(field, default, "true or false")
    }

    pub(super) fn one_of<T: Copy>(&mut self, field: &str, default: T, choices: &[(Value, T)]) -> Result<T> {
        let Some(value) = self.fields.shift_remove(field) else { return Ok(default) };
        match choices.iter().find(|(name, _)| *name == value) {
            Some((_, choice)) => Ok(*choice),
            None => {
                let names: Vec<_> = choices.iter().map(|(name, _)| name.to_string()).collect();
                Err(self.wrong(field, &names.join(" or "), value.to_string()))
            }
        }
    }

    fn convert<T: DeserializeOwned>(&self, field: &str, expected: &str, value: Value) -> Result<T> {
        let found = value.to_string();
        serde_json::from_value(value).map_err(|_| self.wrong(field, expected, found))
    }
}
