use std::path::{Path, PathBuf};

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use llmkit_core::checkpoint::{TensorData as FileTensor, TensorSource};
use llmkit_core::models::Model;
use llmkit_core::nn::{Layer, LayerMut, Linear, matmul_transposed};
use serde::{Deserialize, Serialize};

use crate::random::normal;
use crate::torch_random::TorchGenerator;
use crate::weight_space::replace_weight;
use crate::{
    AdapterFolder, Attach, Bias, Dropout, Error, LayerMethod, MethodConfig, Named, Result, Scope, TunedLayer,
    WeightSpace,
};

/// VeRA (Kopiczko et al. 2023, <https://arxiv.org/abs/2310.11454>): an update of low rank between two random matrices that all layers
/// share and that never train, `y = W x + b * B (d * (A x))`; what trains are the vectors `b [out]` and `d [r]` of each layer.
///
/// `b` starts at zero, so a fresh VeRA leaves the model as it is. `A` and `B` are as large as the largest target needs; the others use
/// their first columns and rows.
pub type Vera = LayerMethod<VeraLayer>;

/// How a [`Vera`] is shaped: PEFT's `VeraConfig`, and what an `adapter_config.json` of type `VERA` holds.
///
/// ```
/// use llmkit_peft::{Targets, VeraConfig};
///
/// // A file of a few kilobytes: the projections are drawn again from their key.
/// let config = VeraConfig::new(Targets::ModelDefault).with_rank(256).with_save_projection(false);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct VeraConfig {
    /// The linear layers to act on; by default PEFT's choice (`q_proj` and `v_proj` of Llama and its kin, `query` and `value` of BERT).
    #[serde(flatten)]
    pub scope: Scope,
    /// The rank `r`, higher than LoRA's since it costs little; default 256.
    #[serde(rename = "r", default = "default_rank")]
    pub rank: usize,
    /// The key from which `A` and `B` are drawn, as torch's generator for the CPU draws them; default 0.
    #[serde(default)]
    pub projection_prng_key: i64,
    /// Whether `A` and `B` are in the file; without them it is small, and reading it draws them again. Default true, as in PEFT.
    #[serde(default = "yes")]
    pub save_projection: bool,
    /// The probability that an input of the update is dropped while training, in [0, 1); default 0.
    #[serde(rename = "vera_dropout", default)]
    pub dropout: f64,
    /// Where every element of `d` starts; default 0.1.
    #[serde(default = "default_d_initial")]
    pub d_initial: f64,
    /// Which biases train along; default none.
    #[serde(default)]
    pub bias: Bias,
    /// Whether `b` starts at zero and `d` at [`d_initial`](Self::d_initial); otherwise `b` at one and `d` normal, for tests. Default true.
    #[serde(default = "yes")]
    pub init_weights: bool,
}

impl VeraConfig {
    /// A VeRA of rank 256 on the layers of `scope`.
    pub fn new(scope: impl Into<Scope>) -> Self {
        Self {
            scope: scope.into(),
            rank: default_rank(),
            projection_prng_key: 0,
            save_projection: true,
            dropout: 0.0,
            d_initial: default_d_initial(),
            bias: Bias::None,
            init_weights: true,
        }
    }

    /// Sets the rank.
    pub fn with_rank(self, rank: usize) -> Self {
        Self { rank, ..self }
    }

    /// Sets the key from which the projections are drawn.
    pub fn with_projection_key(self, projection_prng_key: i64) -> Self {
        Self { projection_prng_key, ..self }
    }

    /// Says whether the projections are in the file.
    pub fn with_save_projection(self, save_projection: bool) -> Self {
        Self { save_projection, ..self }
    }

    /// Sets the dropout probability.
    pub fn with_dropout(self, dropout: f64) -> Self {
        Self { dropout, ..self }
    }

    /// Sets where every element of `d` starts.
    pub fn with_d_initial(self, d_initial: f64) -> Self {
        Self { d_initial, ..self }
    }

    /// Sets which biases train along.
    pub fn with_bias(self, bias: Bias) -> Self {
        Self { bias, ..self }
    }

    /// Starts away from the identity, for tests.
    pub fn with_random_init(self) -> Self {
        Self { init_weights: false, ..self }
    }
}

fn default_rank() -> usize {
    256
}

fn default_d_initial() -> f64 {
    0.1
}

fn yes() -> bool {
    true
}

impl MethodConfig for VeraConfig {
    const PEFT_TYPE: &'static str = "VERA";
    const MUST_BE_NEUTRAL: &'static [&'static str] = &["fan_in_fan_out"];
    const ABSENT_FIELDS: &'static [&'static str] = &["exclude_modules"];
    const TARGET_BIASES: &'static str = "vera_only";

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
        let rank = (1..=1 << 16).contains(&self.rank);
        check("r", rank, "an integer in 1..=65536", self.rank as f64)?;
        let dropout = (0.0..1.0).contains(&self.dropout);
        check("vera_dropout", dropout, "a probability in [0, 1)", self.dropout)?;
        check("d_initial", self.d_initial.is_finite(), "a finite number", self.d_initial)
    }

    fn dropout(&self) -> f64 {
        self.dropout
    }

    fn bias(&self) -> Bias {
        self.bias
    }
}

/// The random matrices that all layers of a [`Vera`] share.
#[derive(Debug, Clone)]
pub struct Projections {
    /// `[r, in]`, for the widest input
    a: Tensor<2>,
    /// `[out, r]`, for the widest output
    b: Tensor<2>,
    in_file: bool,
}

/// How many numbers a file may have drawn whatever the size of the model.
const DRAWN_AT_LEAST: usize = 1 << 22;

const KEYS: [&str; 2] = ["base_model.vera_A", "base_model.vera_B"];

impl Projections {
    /// `A` and `B` as PEFT draws them: uniform, Kaiming's bound for a gain of `sqrt(2)`.
    fn draw(config: &VeraConfig, d_output: usize, d_input: usize, device: &Device) -> Self {
        let mut generator = TorchGenerator::new(config.projection_prng_key);
        let mut matrix = |rows: usize, columns: usize| {
            // In this order: the last bit depends on it.
            let bound = 3f64.sqrt() * (2f64.sqrt() / (columns as f64).sqrt());
            let values = generator.uniform(rows * columns, bound);
            Tensor::from_data(TensorData::new(values, [rows, columns]), device)
        };
        let a = matrix(config.rank, d_input);
        let b = matrix(d_output, config.rank);
        Self { a, b, in_file: config.save_projection }
    }

    fn read(
        file: &dyn TensorSource,
        config: &VeraConfig,
        d_output: usize,
        d_input: usize,
        device: &Device,
    ) -> Result<Self> {
        let shapes = [[config.rank, d_input], [d_output, config.rank]];
        let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
        for (key, shape) in KEYS.iter().zip(shapes) {
            match file.info(key) {
                None => missing.push((*key).to_owned()),
                Some(info) if info.shape != shape => {
                    mismatched.push(format!("{key}: expected {shape:?}, found {:?}", info.shape));
                }
                Some(_) => {}
            }
        }
        if !missing.is_empty() || !mismatched.is_empty() {
            let unexpected = Vec::new();
            return Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected, mismatched });
        }
        let matrix = |index: usize| -> Result<Tensor<2>> {
            let values = file.read_f32(KEYS[index])?;
            Ok(Tensor::from_data(TensorData::new(values, shapes[index]), device))
        };
        Ok(Self { a: matrix(0)?, b: matrix(1)?, in_file: true })
    }

    /// What a layer uses of them.
    ///
    /// # Shapes
    /// `[r, in]` and `[out, r]`.
    fn of(&self, d_output: usize, d_input: usize) -> (Tensor<2>, Tensor<2>) {
        (self.a.clone().narrow(1, 0, d_input), self.b.clone().narrow(0, 0, d_output))
    }
}

/// The vectors of one linear layer.
#[derive(Module, Debug)]
pub struct VeraLayer {
    /// `[out]`
    vera_lambda_b: Param<Tensor<1>>,
    /// `[r]`
    vera_lambda_d: Param<Tensor<1>>,
    #[module(skip)]
    path: String,
}

impl TunedLayer for VeraLayer {
    type Config = VeraConfig;
    type Shared = Projections;

    fn shared(
        model: &dyn Model,
        config: &VeraConfig,
        _seed: u64,
        file: Option<&dyn TensorSource>,
    ) -> Result<Projections> {
        let model_type = model.config()["model_type"].as_str().unwrap_or_default();
        let targets =
            config.scope.targets(VeraConfig::default_targets(model_type), Path::new("VeraConfig"))?;
        let (mut d_output, mut d_input) = (0, 0);
        let (mut missing, mut mismatched) = (Vec::new(), Vec::new());
        let mut numbers = 0;
        model.visit(&mut |layer| {
            numbers += layer.num_parameters();
            if let Layer::Linear(linear) = layer
                && targets.matches(linear.path(), model.head_path() == Some(linear.path()))
            {
                d_output = d_output.max(linear.d_output());
                d_input = d_input.max(linear.d_input());
                // Before projections of a stranger's rank are made.
                let key = format!("{}{}.vera_lambda_d", AdapterFolder::PREFIX, linear.path());
                match file.map(|file| file.info(&key)) {
                    None => {}
                    Some(None) => missing.push(key),
                    Some(Some(info)) if info.shape != [config.rank] => {
                        mismatched.push(format!("{key}: expected [{}], found {:?}", config.rank, info.shape));
                    }
                    Some(Some(_)) => {}
                }
            }
        });
        if let Some(file) = file
            && !(missing.is_empty() && mismatched.is_empty())
        {
            let unexpected = Vec::new();
            return Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected, mismatched });
        }
        let device = model.device();
        match file {
            Some(file) if config.save_projection => {
                Projections::read(file, config, d_output, d_input, &device)
            }
            // A small file must not ask for more than the model itself takes.
            Some(_) if config.rank.saturating_mul(d_input + d_output) > numbers.max(DRAWN_AT_LEAST) => {
                Err(Error::Config {
                    origin: PathBuf::from("VeraConfig"),
                    field: "r".into(),
                    expected: "projections that are not larger than the model (save them in the file)".into(),
                    found: config.rank.to_string(),
                })
            }
            _ => Ok(Projections::draw(config, d_output, d_input, &device)),
        }
    }

    fn shared_tensors(shared: &Projections) -> Vec<(String, FileTensor<'static>)> {
        if !shared.in_file {
            return Vec::new();
        }
        let [a, b] = KEYS.map(str::to_owned);
        vec![(a, FileTensor::from_tensor(shared.a.clone())), (b, FileTensor::from_tensor(shared.b.clone()))]
    }

    fn attach(layer: Layer<'_>, config: &VeraConfig, attach: &Attach<'_, Projections>) -> Result<Self> {
        let Layer::Linear(linear) = layer else { unreachable!("only linear layers are accepted") };
        let (rank, d_output) = (config.rank, linear.d_output());
        let (b, d) = match config.init_weights {
            true => (vec![0.0; d_output], vec![config.d_initial as f32; rank]),
            false => (vec![1.0; d_output], normal(rank, 1.0, &mut attach.rng(linear.path()))),
        };
        Ok(Self {
            vera_lambda_b: Param::from_data(TensorData::new(b, [d_output]), attach.device),
            vera_lambda_d: Param::from_data(TensorData::new(d, [rank]), attach.device),
            path: linear.path().to_owned(),
        })
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(
        &self,
        base: &Linear,
        input: Tensor<3>,
        shared: &Projections,
        dropout: Option<Dropout>,
    ) -> Tensor<3> {
        let (a, b) = shared.of(base.d_output(), base.d_input());
        let dropped = match dropout {
            Some(dropout) => dropout.apply(input.clone()),
            None => input.clone(),
        };
        let narrow = matmul_transposed(dropped, a) * self.vera_lambda_d.val().unsqueeze();
        base.forward(input) + matmul_transposed(narrow, b) * self.vera_lambda_b.val().unsqueeze()
    }

    fn adds(&self) -> bool {
        true
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        vec![
            Named::new("vera_lambda_b", &self.vera_lambda_b),
            Named::new("vera_lambda_d", &self.vera_lambda_d),
        ]
    }

    fn merge(&self, layer: LayerMut<'_>, shared: &Projections) -> Result<()> {
        replace_weight(self, layer, shared)
    }
}

impl WeightSpace for VeraLayer {
    const NAME: &'static str = "vera";

    fn weight(&self, base: Tensor<2>, shared: &Projections) -> Tensor<2> {
        let [d_output, d_input] = base.dims();
        let (a, b) = shared.of(d_output, d_input);
        let column = |vector: &Param<Tensor<1>>| vector.val().unsqueeze_dim::<2>(1);
        base + (b * column(&self.vera_lambda_b)).matmul(a * column(&self.vera_lambda_d))
    }
}
