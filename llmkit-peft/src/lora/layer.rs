use std::collections::BTreeMap;
use std::path::Path;

use burn::module::{Module, Param, ParamId};
use burn::tensor::{Device, Int, Tensor};
use llmkit_core::checkpoint::{TensorData, TensorSource};
use llmkit_core::kernels::{LoraFactors, lora_linear};
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, Layer, LayerMut, Linear, matmul_transposed};

use super::init::{Factors, InitLora, tensor, zeros};
use super::{LoraConfig, LoraPlus, Sizes, dora, plus};
use crate::dropout::Dropout;
use crate::layers::{AdapterFolder, Attach, Named, TunedLayer, tied_head};
use crate::linalg::Matrix;
use crate::{Error, Result, WeightSpace};

/// The update of one layer: `scale * B A x`, where the base computes `W x`. In an embedding `x` picks a column of `A`.
#[derive(Module, Debug)]
pub struct LoraLayer {
    /// `[r, in]`; an embedding's is `[r, vocab]`.
    pub(crate) lora_a: Param<Tensor<2>>,
    /// `[out, r]`; an embedding's is `[hidden, r]`.
    pub(crate) lora_b: Param<Tensor<2>>,
    /// `[out]`: the bias of `lora_B`.
    pub(crate) lora_b_bias: Option<Param<Tensor<1>>>,
    /// `[out]`: DoRA's lengths of the weight's rows; of an embedding's columns, `[hidden]`.
    pub(crate) magnitude: Option<Param<Tensor<1>>>,
    #[module(skip)]
    pub(crate) path: String,
    #[module(skip)]
    pub(crate) scale: f64,
    #[module(skip)]
    on: On,
    #[module(skip)]
    initial: Option<Initial>,
    /// `[out]`: the squared lengths of the base's rows, for DoRA.
    #[module(skip)]
    squares: Option<Tensor<1>>,
    /// The base's weight, where the adapter's file holds a copy of it: PEFT writes one for embeddings and heads that are targets.
    #[module(skip)]
    base_copy: Option<Tensor<2>>,
    #[module(skip)]
    pub(super) plus: Option<LoraPlus>,
}

/// The kind of the layer.
#[derive(Debug, Clone, PartialEq)]
enum On {
    Linear,
    /// An embedding, with the head that follows it.
    Embedding(Option<TiedHead>),
}

/// A head that is tied to an embedding and gets its update, transposed.
#[derive(Debug, Clone, PartialEq)]
struct TiedHead {
    path: String,
    scale: f64,
}

/// The factors that PiSSA and OLoRA started from, and that are subtracted.
#[derive(Debug, Clone)]
struct Initial {
    /// `[r, in]`
    a: Tensor<2>,
    /// `[out, r]`
    b: Tensor<2>,
}

/// What the layers of a LoRA have in common.
#[derive(Debug, Clone, Default)]
pub struct LoraShared {
    /// The head that must follow the embedding of this path.
    tied: Option<Tied>,
}

#[derive(Debug, Clone)]
struct Tied {
    embedding: String,
    head: String,
}

impl LoraLayer {
    fn on_linear(linear: &Linear, config: &LoraConfig, attach: &Attach<'_, LoraShared>) -> Result<Self> {
        let path = linear.path();
        if let Some(tied) = attach.shared.tied.as_ref().filter(|tied| tied.head == path) {
            return Err(wrong(
                attach.origin,
                "target_modules",
                format!("{} instead of the head that is tied to it", tied.embedding),
                path.to_owned(),
            ));
        }
        let sizes = config.sizes(attach.origin)?(path);
        let Sizes { rank, scale } = sizes;
        let (d_input, d_output) = (linear.d_input(), linear.d_output());
        if config.init == InitLora::Orthogonal && rank % 2 == 1 {
            let expected = "an even rank with orthogonal initialisation".into();
            return Err(wrong(attach.origin, "r", expected, format!("{rank} for {path}")));
        }
        if config.init.subtracts() && rank > d_input.min(d_output) {
            let expected = format!("at most {} with this `init_lora_weights`", d_input.min(d_output));
            return Err(wrong(attach.origin, "r", expected, format!("{rank} for {path}")));
        }
        if config.init.subtracts() && scale <= 0.0 {
            let expected = "a number above 0 with this `init_lora_weights`".into();
            return Err(wrong(
                attach.origin,
                "lora_alpha",
                expected,
                format!("a scale of {scale} for {path}"),
            ));
        }
        let device = attach.device;
        let drawn = match attach.file {
            // Overwritten from the file.
            Some(_) if !config.init.subtracts() => None,
            _ => Some(config.init.factors(&linear.weight, sizes, &mut attach.rng(path), path)?),
        };
        if attach.file.is_some() && matches!(config.init, InitLora::PissaFast(_)) {
            tracing::warn!(
                layer = path,
                "a randomised PiSSA changed the base by factors that its file does not hold; they were computed anew and differ a little: \
                 save it in PEFT with `path_initial_model_for_weight_conversion`"
            );
        }
        let (a, b) = parameters(drawn, [rank, d_input], [d_output, rank], device);
        let initial = config.init.subtracts().then(|| Initial { a: a.clone(), b: b.clone() });
        let bias = || Param::from_tensor(Tensor::zeros([d_output], device));
        let layer = Self {
            lora_a: Param::from_tensor(a),
            lora_b: Param::from_tensor(b),
            lora_b_bias: config.lora_bias.then(bias),
            magnitude: None,
            path: path.to_owned(),
            scale,
            on: On::Linear,
            initial,
            squares: None,
            base_copy: None,
            plus: config.lora_plus,
        };
        layer.finish(linear.weight.clone(), config, attach)
    }

    fn on_embedding(
        embedding: &Embedding,
        config: &LoraConfig,
        attach: &Attach<'_, LoraShared>,
    ) -> Result<Self> {
        let path = embedding.path();
        let [vocab, hidden] = embedding.weight.dims();
        let sizes = config.sizes(attach.origin)?;
        let Sizes { rank, scale } = sizes(path);
        if config.lora_bias {
            return Err(wrong(attach.origin, "lora_bias", "false for embeddings".into(), path.to_owned()));
        }
        let head = match &attach.shared.tied {
            Some(tied) if tied.embedding == path => {
                let of_head = sizes(&tied.head);
                if config.use_dora || of_head.rank != rank {
                    let expected =
                        "false where an embedding and its tied head have DoRA or different ranks".into();
                    return Err(wrong(attach.origin, "ensure_weight_tying", expected, "true".into()));
                }
                Some(TiedHead { path: tied.head.clone(), scale: of_head.scale })
            }
            _ => None,
        };
        let device = attach.device;
        let drawn = match attach.file {
            Some(_) => None,
            None => Some(config.init.embedding_factors(vocab, hidden, rank, &mut attach.rng(path))),
        };
        let (a, b) = parameters(drawn, [rank, vocab], [hidden, rank], device);
        let layer = Self {
            lora_a: Param::from_tensor(a),
            lora_b: Param::from_tensor(b),
            lora_b_bias: None,
            magnitude: None,
            path: path.to_owned(),
            scale,
            on: On::Embedding(head),
            // Nothing to subtract, but the file's rank doubles with that of the other layers.
            initial: config
                .init
                .subtracts()
                .then(|| Initial { a: zeros([rank, vocab], device), b: zeros([hidden, rank], device) }),
            squares: None,
            base_copy: None,
            plus: config.lora_plus,
        };
        layer.finish(embedding.weight.clone(), config, attach)
    }

    /// Adds what depends on the base's weight and on the file.
    fn finish(
        mut self,
        weight: Tensor<2>,
        config: &LoraConfig,
        attach: &Attach<'_, LoraShared>,
    ) -> Result<Self> {
        if config.use_dora {
            let squares = dora::squares(self.rows(weight.clone()));
            self.squares = Some(squares.clone());
            let lengths = match attach.file {
                Some(_) => Some(squares),
                None => self.lengths(&weight),
            };
            self.magnitude = lengths.map(Param::from_tensor);
        }
        if let Some(file) = attach.file {
            self.read_copies(weight, file)?;
        }
        Ok(self)
    }

    /// Starts from another `A`, of the same shape.
    pub(super) fn with_a(mut self, a: Matrix) -> Self {
        self.lora_a = self.lora_a.map(|old| tensor(a, &old.device()).set_require_grad(old.is_require_grad()));
        self
    }

    /// Starts from other factors, of the same shapes, over a base whose weight is `weight`.
    pub(super) fn with_factors(mut self, factors: Factors, weight: &Tensor<2>) -> Self {
        self = self.with_a(factors.a);
        let b = factors.b;
        self.lora_b = self.lora_b.map(|old| tensor(b, &old.device()).set_require_grad(old.is_require_grad()));
        let lengths = self.lengths(weight);
        self.magnitude = self
            .magnitude
            .zip(lengths)
            .map(|(magnitude, lengths)| magnitude.map(|old| lengths.set_require_grad(old.is_require_grad())));
        self
    }

    /// Checks the copies that the file holds of tensors that are known otherwise.
    fn read_copies(&mut self, weight: Tensor<2>, file: &dyn TensorSource) -> Result<()> {
        let mut mismatched = Vec::new();
        let mut same = |key: &str, expected: &Tensor<2>, what: &str| -> Result<bool> {
            let Some(info) = file.info(key) else { return Ok(false) };
            if info.shape != expected.dims() {
                mismatched.push(format!("{key}: expected {:?}, found {:?}", expected.dims(), info.shape));
            } else if expected.clone().try_into_vec_as::<f32>().ok() != Some(file.read_f32(key)?) {
                mismatched.push(format!("{key}: other values than {what}"));
            }
            Ok(true)
        };
        if same(&format!("{}base_layer.weight", self.prefix()), &weight, "the base model's")? {
            self.base_copy = Some(weight.clone());
        }
        if let Some(head) = self.head() {
            let prefix = format!("{}{}.", AdapterFolder::PREFIX, head.path);
            same(&format!("{prefix}base_layer.weight"), &weight, "the base model's")?;
            let read = |end: &str, shape: [usize; 2]| -> Result<Option<Tensor<2>>> {
                let key = format!("{}{end}", self.prefix());
                match file.info(&key) {
                    Some(info) if info.shape == shape => {
                        let values = file.read_f32(&key)?;
                        let data = burn::tensor::TensorData::new(values, shape);
                        Ok(Some(Tensor::<2>::from_data(data, &weight.device()).transpose()))
                    }
                    // Reported with the embedding's own tensors.
                    _ => Ok(None),
                }
            };
            if let Some(a) = read("lora_embedding_B", self.lora_b.val().dims())? {
                same(&format!("{prefix}lora_A.weight"), &a, "the embedding's")?;
            }
            if let Some(b) = read("lora_embedding_A", self.lora_a.val().dims())? {
                same(&format!("{prefix}lora_B.weight"), &b, "the embedding's")?;
            }
        }
        if mismatched.is_empty() {
            return Ok(());
        }
        let (missing, unexpected) = (Vec::new(), Vec::new());
        Err(Error::Adapter { path: file.path().to_path_buf(), missing, unexpected, mismatched })
    }

    /// The factors of the whole update: beside the trained ones, those that are subtracted.
    pub(crate) fn factors(&self) -> (Tensor<2>, Tensor<2>) {
        let (a, b) = (self.lora_a.val(), self.lora_b.val());
        match &self.initial {
            Some(initial) if self.on == On::Linear => {
                let like = |constant: Tensor<2>, tracked: &Tensor<2>| {
                    if tracked.is_autodiff() { constant.autodiff() } else { constant }
                };
                let initial_a = like(initial.a.clone(), &a);
                let initial_b = like(initial.b.clone().neg(), &b);
                (Tensor::cat(vec![a, initial_a], 0), Tensor::cat(vec![b, initial_b], 1))
            }
            _ => (a, b),
        }
    }

    /// The same update as an ordinary LoRA: the trained factors and the subtracted ones side by side.
    fn of_twice_the_rank(&self) -> Self {
        let Some(Initial { a, b }) = &self.initial else { return self.clone() };
        let constant = |param: &Param<Tensor<2>>| param.val().without_autodiff();
        let a = Tensor::cat(vec![constant(&self.lora_a), a.clone()], 0);
        let b = Tensor::cat(vec![constant(&self.lora_b), b.clone().neg()], 1);
        let (lora_a, lora_b) = (Param::from_tensor(a), Param::from_tensor(b));
        Self { lora_a, lora_b, initial: None, ..self.clone() }
    }

    /// The rows whose lengths DoRA sets: in an embedding, the columns.
    fn rows(&self, weight: Tensor<2>) -> Tensor<2> {
        if self.is_embedding() { weight.transpose() } else { weight }
    }

    /// The lengths that the rows have now, if they matter.
    fn lengths(&self, weight: &Tensor<2>) -> Option<Tensor<1>> {
        let squares = self.squares.as_ref()?;
        let (a, b) = self.factors();
        Some(dora::lengths(squares, self.rows(weight.clone()), a, b, self.scale))
    }

    /// By what DoRA multiplies each output.
    ///
    /// # Shapes
    /// `[out]`
    fn stretch(&self, weight: &Tensor<2>) -> Option<Tensor<1>> {
        let magnitude = self.magnitude.as_ref()?;
        Some(magnitude.val() / self.lengths(weight)?)
    }

    /// What acts in a linear layer: in a head that follows an embedding, the embedding's factors transposed.
    fn linear_factors(&self) -> LoraFactors {
        match self.head() {
            Some(head) => {
                let (a, b) = (self.lora_b.val().transpose(), self.lora_a.val().transpose());
                LoraFactors { a, b, scale: head.scale }
            }
            None => {
                let (a, b) = self.factors();
                LoraFactors { a, b, scale: self.scale }
            }
        }
    }

    /// `dropped` is the input after dropout, while training with it.
    fn forward(&self, base: &Linear, input: Tensor<3>, dropped: Option<Tensor<3>>) -> Tensor<3> {
        let weight = || base.weight.clone();
        let factors = self.linear_factors();
        // A head that follows an embedding has the embedding's factors, but not its lengths.
        let stretch = if self.head().is_some() { None } else { self.stretch(&base.weight) };
        let output = match (stretch, dropped) {
            // One node of the graph, which keeps the input and its narrow product alone.
            (None, None) => lora_linear(input, weight(), factors),
            (None, Some(dropped)) => {
                // The scale goes onto the narrow product.
                let narrow = matmul_transposed(dropped, factors.a) * factors.scale;
                matmul_transposed(input, weight()) + matmul_transposed(narrow, factors.b)
            }
            (Some(stretch), None) => lora_linear(input, weight(), factors) * stretch.unsqueeze(),
            // What is dropped of the input still passes through the base: W x + (m - 1) W x' + m s B A x', with x' the dropped input.
            (Some(stretch), Some(dropped)) => {
                let rest = matmul_transposed(input - dropped.clone(), weight());
                rest + lora_linear(dropped, weight(), factors) * stretch.unsqueeze()
            }
        };
        let output = match &base.bias {
            Some(bias) => output + bias.clone().unsqueeze(),
            None => output,
        };
        match &self.lora_b_bias {
            None => output,
            Some(bias) => output + bias.val().unsqueeze() * self.scale,
        }
    }

    /// The rank and the scale of the update.
    pub fn sizes(&self) -> Sizes {
        Sizes { rank: self.lora_a.val().dims()[0], scale: self.scale }
    }

    /// Whether the layer is an embedding.
    pub fn is_embedding(&self) -> bool {
        matches!(self.on, On::Embedding(_))
    }

    fn head(&self) -> Option<&TiedHead> {
        match &self.on {
            On::Embedding(head) => head.as_ref(),
            On::Linear => None,
        }
    }

    fn prefix(&self) -> String {
        format!("{}{}.", AdapterFolder::PREFIX, self.path)
    }

    /// What the update adds to the base's weight, before DoRA sets lengths: `scale * B A`, transposed in an embedding.
    ///
    /// # Shapes
    /// That of the weight: `[out, in]`, or `[vocab, hidden]`.
    pub(crate) fn delta_weight(&self) -> Tensor<2> {
        let (a, b) = self.factors();
        let delta = b.without_autodiff().matmul(a.without_autodiff()) * self.scale;
        if self.is_embedding() { delta.transpose() } else { delta }
    }

    /// `weight` with the update worked in.
    fn merged(&self, weight: Tensor<2>) -> Tensor<2> {
        let sum = weight.clone() + self.delta_weight();
        match self.stretch(&weight).map(Tensor::without_autodiff) {
            None => sum,
            Some(stretch) if self.is_embedding() => sum * stretch.unsqueeze_dim::<2>(0),
            Some(stretch) => sum * stretch.unsqueeze_dim::<2>(1),
        }
    }
}

impl TunedLayer for LoraLayer {
    type Config = LoraConfig;
    type Shared = LoraShared;

    fn shared(
        model: &dyn Model,
        config: &LoraConfig,
        _seed: u64,
        _file: Option<&dyn TensorSource>,
    ) -> Result<LoraShared> {
        let tied = config.ensure_weight_tying.then(|| tied_head(model)).flatten();
        Ok(LoraShared { tied: tied.map(|(embedding, head)| Tied { embedding, head }) })
    }

    fn accepts(layer: Layer<'_>) -> bool {
        matches!(layer, Layer::Linear(_) | Layer::Embedding(_))
    }

    fn attach(layer: Layer<'_>, config: &LoraConfig, attach: &Attach<'_, LoraShared>) -> Result<Self> {
        match layer {
            Layer::Linear(linear) => Self::on_linear(linear, config, attach),
            Layer::Embedding(embedding) => Self::on_embedding(embedding, config, attach),
            Layer::Norm(_) => unreachable!("norms are not accepted"),
        }
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(&self, base: &Linear, input: Tensor<3>, _: &LoraShared, dropout: Option<Dropout>) -> Tensor<3> {
        let dropped = dropout.map(|dropout| dropout.apply(input.clone()));
        self.forward(base, input, dropped)
    }

    fn adds(&self) -> bool {
        self.magnitude.is_none()
    }

    fn linear_update(
        &self,
        _: &Linear,
        input: Tensor<3>,
        _: &LoraShared,
        dropout: Option<Dropout>,
    ) -> Tensor<3> {
        let input = match dropout {
            Some(dropout) => dropout.apply(input),
            None => input,
        };
        let LoraFactors { a, b, scale } = self.linear_factors();
        let update = matmul_transposed(matmul_transposed(input, a) * scale, b);
        match &self.lora_b_bias {
            Some(bias) => update + bias.val().unsqueeze() * self.scale,
            None => update,
        }
    }

    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>, _: &LoraShared) -> Tensor<3> {
        let [batch, seq] = ids.dims();
        let [hidden, _] = self.lora_b.val().dims();
        let picked = self.lora_a.val().select(1, ids.clone().reshape([batch * seq]));
        let update = (picked * self.scale).transpose().matmul(self.lora_b.val().transpose());
        let output = base.forward(ids) + update.reshape([batch, seq, hidden]);
        match self.stretch(&base.weight) {
            Some(stretch) => output * stretch.unsqueeze(),
            None => output,
        }
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        let (a, b) = match self.on {
            On::Linear => ("lora_A.weight", "lora_B.weight"),
            On::Embedding(_) => ("lora_embedding_A", "lora_embedding_B"),
        };
        let mut tensors = vec![Named::new(a, &self.lora_a), Named::new(b, &self.lora_b)];
        tensors.extend(self.lora_b_bias.as_ref().map(|bias| Named::new("lora_B.bias", bias)));
        tensors.extend(self.magnitude.as_ref().map(|magnitude| {
            Named::new("lora_magnitude_vector", magnitude).with_alias("lora_magnitude_vector.weight")
        }));
        tensors
    }

    fn other_paths(&self) -> Vec<String> {
        self.head().map(|head| head.path.clone()).into_iter().collect()
    }

    fn copies(&self) -> Vec<(String, TensorData<'static>)> {
        let data = |tensor: Tensor<2>| TensorData::from_tensor(tensor.without_autodiff());
        let mut prefixes = vec![self.prefix()];
        let mut copies = Vec::new();
        if let Some(head) = self.head() {
            let prefix = format!("{}{}.", AdapterFolder::PREFIX, head.path);
            copies.push((format!("{prefix}lora_A.weight"), data(self.lora_b.val().transpose())));
            copies.push((format!("{prefix}lora_B.weight"), data(self.lora_a.val().transpose())));
            prefixes.push(prefix);
        }
        if let Some(copy) = &self.base_copy {
            let keys = prefixes.into_iter().map(|prefix| format!("{prefix}base_layer.weight"));
            copies.extend(keys.map(|key| (key, data(copy.clone()))));
        }
        copies
    }

    fn read_keys(&self) -> Vec<String> {
        let mut keys = vec![format!("{}base_layer.weight", self.prefix())];
        if let Some(head) = self.head() {
            let ends = ["lora_A.weight", "lora_B.weight", "base_layer.weight"];
            keys.extend(ends.map(|end| format!("{}{}.{end}", AdapterFolder::PREFIX, head.path)));
        }
        keys
    }

    fn for_file(layers: &[Self], config: &LoraConfig) -> Option<(Vec<Self>, LoraConfig)> {
        if layers.iter().all(|layer| layer.initial.is_none()) {
            return None;
        }
        // An adapter that goes on from a checkpoint was loaded with the file's configuration.
        let config = if config.init.subtracts() { config.of_twice_the_rank() } else { config.clone() };
        Some((layers.iter().map(Self::of_twice_the_rank).collect(), config))
    }

    fn merge(&self, layer: LayerMut<'_>, _: &LoraShared) -> Result<()> {
        let linear = match layer {
            LayerMut::Linear(linear) => linear,
            LayerMut::Embedding(embedding) => {
                embedding.weight = self.merged(embedding.weight.clone());
                return Ok(());
            }
            LayerMut::Norm(_) => unreachable!("norms are not accepted"),
        };
        linear.weight = match self.head() {
            Some(head) => {
                let (a, b) = (self.lora_b.val().transpose(), self.lora_a.val().transpose());
                linear.weight.clone() + b.without_autodiff().matmul(a.without_autodiff()) * head.scale
            }
            None => self.merged(linear.weight.clone()),
        };
        if let Some(bias) = &self.lora_b_bias {
            let bias = bias.val().without_autodiff() * self.scale;
            linear.bias = Some(match linear.bias.take() {
                Some(base) => base + bias,
                None => bias,
            });
        }
        Ok(())
    }

    fn learning_rate_factors(
        layers: &[Self],
        _config: &LoraConfig,
        others: &[Named<'_>],
    ) -> BTreeMap<ParamId, f64> {
        plus::factors(layers, others)
    }

    fn training_state(&self) -> Vec<(String, TensorData<'static>)> {
        let mut state = Vec::new();
        if let Some(Initial { a, b }) = &self.initial {
            state.push(("initial_A".to_owned(), TensorData::from_tensor(a.clone())));
            state.push(("initial_B".to_owned(), TensorData::from_tensor(b.clone())));
            state.push(("scale".to_owned(), TensorData::f32([PARTS], parts(self.scale).to_vec())));
        }
        if let Some(LoraPlus { ratio, embedding }) = self.plus {
            let values = [parts(ratio), parts(embedding)].concat();
            state.push(("lora_plus".to_owned(), TensorData::f32([2 * PARTS], values)));
        }
        state
    }

    fn restore_training_state(
        mut self,
        file: &dyn TensorSource,
        key: &dyn Fn(&str) -> String,
    ) -> Result<Self> {
        let plus = key("lora_plus");
        if file.info(&plus).is_some() {
            let values = read(file, &plus, &[2 * PARTS])?;
            let (ratio, embedding) = (whole(&values[..PARTS]), whole(&values[PARTS..]));
            self.plus = Some(LoraPlus { ratio, embedding });
        }
        let (initial_a, initial_b) = (key("initial_A"), key("initial_B"));
        let Some(info) = file.info(&initial_a) else { return Ok(self) };
        // The adapter's own file holds the trained factors and the subtracted ones side by side.
        let ([both, d_input], [d_output, _]) = (self.lora_a.val().dims(), self.lora_b.val().dims());
        let rank = both / 2;
        if info.shape != [rank, d_input] || self.initial.is_some() {
            return Err(Error::Resume {
                path: file.path().to_path_buf(),
                reason: format!(
                    "{initial_a}: expected shape [{rank}, {d_input}], found {:?}; load the adapter from the checkpoint's own folder",
                    info.shape
                ),
            });
        }
        let device = self.lora_a.val().device();
        let matrix = |key: &str, shape: [usize; 2]| -> Result<Tensor<2>> {
            let values = read(file, key, &shape)?;
            Ok(Tensor::from_data(burn::tensor::TensorData::new(values, shape), &device))
        };
        self.initial = Some(Initial {
            a: matrix(&initial_a, [rank, d_input])?,
            b: matrix(&initial_b, [d_output, rank])?,
        });
        self.scale = whole(&read(file, &key("scale"), &[PARTS])?);
        self.lora_a = self.lora_a.map(|a| a.narrow(0, 0, rank));
        self.lora_b = self.lora_b.map(|b| b.narrow(1, 0, rank));
        Ok(self)
    }
}

impl WeightSpace for LoraLayer {
    const NAME: &'static str = "lora";

    fn weight(&self, base: Tensor<2>, _: &LoraShared) -> Tensor<2> {
        let (a, b) = self.factors();
        let sum = base.clone() + b.matmul(a) * self.scale;
        match self.stretch(&base) {
            None => sum,
            Some(stretch) => sum * stretch.unsqueeze_dim::<2>(1),
        }
    }

    fn changes_bias(&self, _has_bias: bool) -> bool {
        self.lora_b_bias.is_some()
    }
}

/// Fresh factors as tensors; zeros where a file will overwrite them.
fn parameters(
    factors: Option<Factors>,
    a: [usize; 2],
    b: [usize; 2],
    device: &Device,
) -> (Tensor<2>, Tensor<2>) {
    match factors {
        Some(factors) => (tensor(factors.a, device), tensor(factors.b, device)),
        // Of the right shape, but of one number: a hostile configuration may ask for any rank.
        None => (zeros([1, 1], device).expand(a), zeros([1, 1], device).expand(b)),
    }
}

fn wrong(origin: &Path, field: &str, expected: String, found: String) -> Error {
    Error::Config { origin: origin.into(), field: field.into(), expected, found }
}

fn read(file: &dyn TensorSource, key: &str, shape: &[usize]) -> Result<Vec<f32>> {
    match file.info(key) {
        Some(info) if info.shape == shape => Ok(file.read_f32(key)?),
        info => Err(Error::Resume {
            path: file.path().to_path_buf(),
            reason: format!("{key}: expected shape {shape:?}, found {:?}", info.map(|info| info.shape)),
        }),
    }
}

/// How many `f32` hold an `f64` without loss.
const PARTS: usize = 3;

/// `value` as a sum of `f32`, each taking what the ones before left over.
fn parts(value: f64) -> [f32; PARTS] {
    let mut rest = value;
    [(); PARTS].map(|()| {
        let part = rest as f32;
        rest -= f64::from(part);
        part
    })
}

/// The sum again.
fn whole(parts: &[f32]) -> f64 {
    parts.iter().rev().map(|part| f64::from(*part)).sum()
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use burn::module::Param;
    use burn::tensor::{Device, Tensor, TensorData};
    use llmkit_core::checkpoint::{Safetensors, TensorSource};
    use llmkit_core::nn::Linear;

    use super::super::dora;
    use super::{LoraLayer, On, parts, whole};

    #[test]
    fn numbers_survive_in_parts() {
        for value in [0.0, 1.0, -2.5, 3.0 * 2f64.sqrt() / 5f64.sqrt(), 1e-7 / 3.0, 16.0, 123_456.789] {
            assert_eq!(whole(&parts(value)).to_bits(), f64::to_bits(value));
        }
    }

    #[test]
    fn dora_drops_as_peft_does() {
        let path = "tests/fixtures/lowrank/dora-dropout/expected.safetensors";
        let file = Safetensors::open(Path::new(env!("CARGO_MANIFEST_DIR")).join(path)).unwrap();
        let device = Device::flex();
        let data = |name: &str| TensorData::new(file.read_f32(name).unwrap(), file.info(name).unwrap().shape);
        let matrix = |name: &str| Tensor::<2>::from_data(data(name), &device);
        let vector = |name: &str| Tensor::<1>::from_data(data(name), &device);
        let base = Linear::new("layer", matrix("weight"), Some(vector("bias")));
        let layer = LoraLayer {
            lora_a: Param::from_tensor(matrix("lora_A")),
            lora_b: Param::from_tensor(matrix("lora_B")),
            lora_b_bias: None,
            magnitude: Some(Param::from_tensor(vector("magnitude"))),
            path: "layer".into(),
            scale: 1.5,
            on: On::Linear,
            initial: None,
            squares: Some(dora::squares(matrix("weight"))),
            base_copy: None,
            plus: None,
        };
        let input = Tensor::<3>::from_data(data("input"), &device);
        let [_, _, width] = input.dims();
        let mask: Vec<f32> = (0..width).map(|i| if i < width / 2 { 2.0 } else { 0.0 }).collect();
        let mask = Tensor::<1>::from_data(TensorData::new(mask, [width]), &device);
        let dropped = input.clone() * mask.unsqueeze();
        let output = layer.forward(&base, input, Some(dropped));
        let expected = Tensor::<3>::from_data(data("output"), &device);
        let difference: f32 = (output - expected).abs().max().into_scalar();
        assert!(difference < 1e-4, "{difference}");
    }
}
