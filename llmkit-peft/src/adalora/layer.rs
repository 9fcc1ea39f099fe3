use std::collections::BTreeSet;
use std::path::Path;

use burn::module::{Module, Param};
use burn::tensor::{Bool, Device, Tensor, TensorData};
use indexmap::IndexMap;
use llmkit_core::checkpoint::{TensorData as FileTensor, TensorSource};
use llmkit_core::kernels::{LoraFactors, lora_linear};
use llmkit_core::models::Model;
use llmkit_core::nn::{Layer, LayerMut, Linear, matmul_transposed};

use super::AdaLoraConfig;
use super::budget::{Due, keep};
use super::importance::Importance;
use crate::random::normal;
use crate::rank_patterns::expect_in_file;
use crate::weight_space::replace_weight;
use crate::{Attach, Dropout, Error, MethodConfig, Named, Progress, Result, TunedLayer, WeightSpace};

/// The update of one linear layer: `scale * B (E * (A x))`.
///
/// A *triplet* is a row of `A`, a singular value of `E` and a column of `B`.
#[derive(Module, Debug)]
pub struct AdaLoraLayer {
    /// `[rank, in]`
    lora_a: Param<Tensor<2>>,
    /// `[rank, 1]`
    lora_e: Param<Tensor<2>>,
    /// `[out, rank]`
    lora_b: Param<Tensor<2>>,
    #[module(skip)]
    path: String,
    #[module(skip)]
    alpha: f64,
    /// The rank with which training began.
    #[module(skip)]
    init_r: usize,
    /// Which of the first `init_r` triplets are still there; none for all of them.
    #[module(skip)]
    places: Option<Vec<bool>>,
    /// Which of the triplets that are there the last allocation kept.
    #[module(skip)]
    kept: Option<Vec<bool>>,
    #[module(skip)]
    importance: Option<Factors<Importance>>,
}

/// Something for each of the three factors.
#[derive(Debug, Clone)]
struct Factors<T> {
    a: T,
    e: T,
    b: T,
}

impl AdaLoraLayer {
    /// How many singular values the layer has, masked ones included.
    pub fn rank(&self) -> usize {
        self.lora_e.shape()[0]
    }

    /// How many of them the last allocation kept.
    pub fn kept_rank(&self) -> usize {
        self.kept.as_ref().map_or(self.rank(), |kept| count(kept))
    }

    /// How many of them aren't zero: what the last allocation kept, and what has grown back since.
    pub fn nonzero_rank(&self) -> usize {
        self.singular_values().into_iter().filter(|value| *value != 0.0).count()
    }

    /// The singular values, masked ones included.
    pub fn singular_values(&self) -> Vec<f32> {
        host(self.lora_e.val().without_autodiff().reshape([self.rank()]))
    }

    /// PEFT divides by the rank with which training began, whatever is left of it.
    fn scale(&self) -> f64 {
        scale(self.alpha, self.init_r, self.places.as_deref())
    }

    /// # Shapes
    /// `[batch, seq, in]` to `[batch, seq, out]`.
    fn forward(&self, base: &Linear, input: Tensor<3>, dropout: Option<Dropout>) -> Tensor<3> {
        if self.rank() == 0 {
            return base.forward(input);
        }
        let a = self.lora_a.val() * self.lora_e.val();
        let (b, scale) = (self.lora_b.val(), self.scale());
        let output = match dropout {
            None => lora_linear(input, base.weight.clone(), LoraFactors { a, b, scale }),
            Some(dropout) => {
                let narrow = matmul_transposed(dropout.apply(input.clone()), a) * scale;
                matmul_transposed(input, base.weight.clone()) + matmul_transposed(narrow, b)
            }
        };
        match &base.bias {
            Some(bias) => output + bias.clone().unsqueeze(),
            None => output,
        }
    }

    /// Takes the step's gradients into the importance of each element.
    fn measured(mut self, config: &AdaLoraConfig, progress: &Progress<'_>) -> Self {
        let mut before = self.importance.take().map(|Factors { a, e, b }| [a, e, b]).map(<[_; 3]>::into_iter);
        let mut next = |param: &Param<Tensor<2>>| {
            let before = before.as_mut().and_then(Iterator::next);
            let Some(gradient) = progress.gradients.get(param.id) else { return before };
            let value = param.val().without_autodiff();
            let len = value.shape().num_elements();
            let (beta1, beta2) = (config.beta1, config.beta2);
            Some(Importance::after(before, value.reshape([len]), gradient.clone(), beta1, beta2))
        };
        let factors = (next(&self.lora_a), next(&self.lora_e), next(&self.lora_b));
        if let (Some(a), Some(e), Some(b)) = factors {
            self.importance = Some(Factors { a, e, b });
        }
        self
    }

    /// The score of each triplet: its singular value's, and the means of its row's and column's.
    fn scores(&self) -> Option<Vec<f32>> {
        let rank = self.rank();
        if rank == 0 {
            return Some(Vec::new());
        }
        let Factors { a, e, b } = self.importance.as_ref()?;
        let matrix = |importance: &Importance, like: &Param<Tensor<2>>| -> Tensor<2> {
            importance.scores().reshape(like.shape())
        };
        let of_rows = matrix(a, &self.lora_a).mean_dim(1).reshape([rank]);
        let of_columns = matrix(b, &self.lora_b).mean_dim(0).reshape([rank]);
        Some(host(e.scores() + (of_rows + of_columns)))
    }

    /// Sets the singular values that the last allocation did not keep to zero.
    fn masked(mut self) -> Self {
        let Some(kept) = &self.kept else { return self };
        if kept.is_empty() {
            return self;
        }
        let gone: Vec<bool> = kept.iter().map(|kept| !kept).collect();
        self.lora_e = edited(self.lora_e, |e| {
            let mask = Tensor::<2, Bool>::from_data(TensorData::new(gone, e.shape()), &e.device());
            e.mask_fill(mask, 0.0)
        });
        self
    }

    /// What goes into the file: without the triplets that the last allocation took away, unless they have grown back since, so that
    /// the file computes the same.
    fn compacted(&self) -> Self {
        let Some(kept) = &self.kept else { return self.clone() };
        let values = self.singular_values();
        let stays: Vec<bool> = kept.iter().zip(&values).map(|(kept, value)| *kept || *value != 0.0).collect();
        let mut rows = stays.iter();
        let all = vec![true; self.init_r];
        let places: Vec<bool> = self
            .places
            .as_ref()
            .unwrap_or(&all)
            .iter()
            .map(|there| *there && *rows.next().expect("one flag for each triplet that is there"))
            .collect();
        let select = |param: &Param<Tensor<2>>, dim: usize| pick(param.val().without_autodiff(), dim, &stays);
        let file_scale = scale(self.alpha, self.init_r, Some(&places));
        let e = select(&self.lora_e, 0);
        // Where alpha is not positive, PEFT's scale depends on what is left.
        let e =
            if file_scale == self.scale() || file_scale == 0.0 { e } else { e * (self.scale() / file_scale) };
        Self {
            lora_a: Param::from_tensor(select(&self.lora_a, 0)),
            lora_e: Param::from_tensor(e),
            lora_b: Param::from_tensor(select(&self.lora_b, 1)),
            path: self.path.clone(),
            alpha: self.alpha,
            init_r: self.init_r,
            places: Some(places),
            kept: None,
            importance: None,
        }
    }
}

fn count(flags: &[bool]) -> usize {
    flags.iter().filter(|flag| **flag).count()
}

fn scale(alpha: f64, init_r: usize, places: Option<&[bool]>) -> f64 {
    let numerator = if alpha > 0.0 { alpha } else { places.map_or(init_r, count) as f64 };
    numerator / (init_r as f64 + 1e-5)
}

fn host(tensor: Tensor<1>) -> Vec<f32> {
    tensor.into_data_as::<f32>().iter::<f32>().collect()
}

/// The rows (`dim` 0) or columns (1) that `stays` says.
fn pick(matrix: Tensor<2>, dim: usize, stays: &[bool]) -> Tensor<2> {
    let indices: Vec<i32> =
        stays.iter().enumerate().filter(|(_, stays)| **stays).map(|(index, _)| index as i32).collect();
    let device = matrix.device();
    if indices.is_empty() {
        let mut shape = matrix.dims();
        shape[dim] = 0;
        return Tensor::from_data(TensorData::new(Vec::<f32>::new(), shape), &device);
    }
    let len = indices.len();
    matrix.select(dim, Tensor::from_data(TensorData::new(indices, [len]), &device))
}

/// A parameter of the same id with another value, which may have another shape.
fn edited<const D: usize>(
    param: Param<Tensor<D>>,
    edit: impl FnOnce(Tensor<D>) -> Tensor<D>,
) -> Param<Tensor<D>> {
    param.map(|old| {
        let (autodiff, require_grad) = (old.is_autodiff(), old.is_require_grad());
        let new = edit(old.without_autodiff());
        if autodiff { Tensor::from_inner(new).set_require_grad(require_grad) } else { new }
    })
}

/// The distance of a factor's vectors from being orthogonal and of length one: `|M - I|` in Frobenius' norm.
fn distance(products: Tensor<2>) -> Tensor<1> {
    let [rank, _] = products.dims();
    let identity = Tensor::<2>::eye(rank, &products.device().without_autodiff());
    // Not under the root's infinite slope at zero.
    (products - identity).square().sum().clamp_min(1e-24).sqrt()
}

/// The key under which PEFT keeps which triplets a layer has.
fn pattern_key(path: &str) -> String {
    format!("{path}.lora_E")
}

impl TunedLayer for AdaLoraLayer {
    type Config = AdaLoraConfig;
    type Shared = ();

    /// Checks that the file's ranks are those of targets.
    fn shared(
        model: &dyn Model,
        config: &AdaLoraConfig,
        _seed: u64,
        _file: Option<&dyn TensorSource>,
    ) -> Result<()> {
        let Some(pattern) = &config.rank_pattern else { return Ok(()) };
        let origin = Path::new("AdaLoraConfig");
        let model_type = model.config()["model_type"].as_str().unwrap_or_default();
        let targets = config.scope.targets(AdaLoraConfig::default_targets(model_type), origin)?;
        let mut known = BTreeSet::new();
        model.visit(&mut |layer| {
            if targets.matches(layer.path(), model.head_path() == Some(layer.path())) {
                known.insert(pattern_key(layer.path()));
            }
        });
        match pattern.keys().find(|key| !known.contains(*key)) {
            None => Ok(()),
            Some(key) => Err(Error::Config {
                origin: origin.to_path_buf(),
                field: "rank_pattern".into(),
                expected: "the targets' paths with `.lora_E` behind".into(),
                found: key.clone(),
            }),
        }
    }

    fn attach(layer: Layer<'_>, config: &AdaLoraConfig, attach: &Attach<'_, ()>) -> Result<Self> {
        let Layer::Linear(linear) = layer else { unreachable!("only linear layers are accepted") };
        let path = linear.path().to_owned();
        let pattern = config.rank_pattern.as_ref().and_then(|pattern| pattern.get(&pattern_key(&path)));
        if let Some(places) = pattern.filter(|places| places.len() != config.init_r) {
            return Err(Error::Config {
                origin: attach.origin.to_path_buf(),
                field: "rank_pattern".into(),
                expected: format!("{} flags for {path}, one for each of `init_r`", config.init_r),
                found: places.len().to_string(),
            });
        }
        let rank = pattern.map_or(config.init_r, |places| count(places));
        let (d_input, d_output) = (linear.d_input(), linear.d_output());
        // Before anything of a stranger's rank is made.
        let (a, e, b) = ([rank, d_input], [rank, 1], [d_output, rank]);
        let shapes = [("lora_A", &a[..]), ("lora_E", &e), ("lora_B", &b)];
        expect_in_file(attach, &path, &shapes)?;
        let mut rng = attach.rng(&path);
        let std = if config.has_random_init() { 1.0 } else { 0.02 };
        let e_std = if config.has_random_init() { 1.0 } else { 0.0 };
        let mut draw = |shape: [usize; 2], std: f64, device: &Device| {
            let len = shape[0] * shape[1];
            let values = match attach.file {
                // Overwritten from the file.
                Some(_) => vec![0.0; len],
                None => normal(len, std, &mut rng),
            };
            Param::from_data(TensorData::new(values, shape), device)
        };
        Ok(Self {
            lora_a: draw([rank, d_input], std, attach.device),
            lora_e: draw([rank, 1], e_std, attach.device),
            lora_b: draw([d_output, rank], std, attach.device),
            path,
            alpha: config.alpha,
            init_r: config.init_r,
            places: pattern.cloned(),
            kept: None,
            importance: None,
        })
    }

    fn path(&self) -> &str {
        &self.path
    }

    fn linear(&self, base: &Linear, input: Tensor<3>, _: &(), dropout: Option<Dropout>) -> Tensor<3> {
        self.forward(base, input, dropout)
    }

    fn adds(&self) -> bool {
        true
    }

    fn tensors(&self) -> Vec<Named<'_>> {
        vec![
            Named::new("lora_A", &self.lora_a),
            Named::new("lora_E", &self.lora_e),
            Named::new("lora_B", &self.lora_b),
        ]
    }

    fn for_file(layers: &[Self], config: &AdaLoraConfig) -> Option<(Vec<Self>, AdaLoraConfig)> {
        if layers.iter().all(|layer| layer.kept.is_none()) {
            return None;
        }
        let layers: Vec<Self> = layers.iter().map(Self::compacted).collect();
        let pattern: IndexMap<_, _> = layers
            .iter()
            .filter_map(|layer| Some((pattern_key(&layer.path), layer.places.clone()?)))
            .collect();
        Some((layers, AdaLoraConfig { rank_pattern: Some(pattern), ..config.clone() }))
    }

    fn merge(&self, layer: LayerMut<'_>, _: &()) -> Result<()> {
        replace_weight(self, layer, &())
    }

    fn penalty(layers: &[Self], config: &AdaLoraConfig) -> Option<Tensor<1>> {
        if config.orth_reg_weight == 0.0 {
            return None;
        }
        let present = layers.iter().filter(|layer| layer.rank() > 0);
        let distances = present.map(|layer| {
            let (a, b) = (layer.lora_a.val(), layer.lora_b.val());
            distance(a.clone().matmul(a.transpose())) + distance(b.clone().transpose().matmul(b))
        });
        let weight = config.orth_reg_weight / (2 * layers.len()) as f64;
        distances.reduce(|sum, distance| sum + distance).map(|sum| sum * weight)
    }

    fn after_step(
        layers: Vec<Self>,
        config: &mut AdaLoraConfig,
        _shared: &(),
        progress: &Progress<'_>,
    ) -> Vec<Self> {
        if progress.step == 1 && progress.total_steps != config.total_step {
            tracing::warn!(
                total_step = config.total_step,
                steps = progress.total_steps,
                "AdaLoRA's budget was planned for another number of steps than this run has"
            );
        }
        let initial = layers.iter().map(Self::rank).sum();
        let due = config.budget(layers.len(), initial).due(progress.step);
        let measured = |layers: Vec<Self>| -> Vec<Self> {
            layers.into_iter().map(|layer| layer.measured(config, progress)).collect()
        };
        match due {
            Due::Measure => measured(layers),
            Due::Allocate { budget } => allocated(measured(layers), budget),
            Due::Finish { budget } => {
                let layers = allocated(layers, budget);
                layers.into_iter().map(|layer| Self { importance: None, ..layer }).collect()
            }
            Due::Keep => layers.into_iter().map(Self::masked).collect(),
        }
    }

    fn training_state(&self) -> Vec<(String, FileTensor<'static>)> {
        let mut state = Vec::new();
        for (name, param) in [("lora_A", &self.lora_a), ("lora_E", &self.lora_e), ("lora_B", &self.lora_b)] {
            state.push((name.to_owned(), FileTensor::from_tensor(param.val().without_autodiff())));
        }
        for (name, flags) in [("places", &self.places), ("kept", &self.kept)] {
            if let Some(flags) = flags {
                let values: Vec<f32> = flags.iter().map(|flag| f32::from(u8::from(*flag))).collect();
                state.push((name.to_owned(), FileTensor::f32([values.len()], values)));
            }
        }
        if let Some(Factors { a, e, b }) = &self.importance {
            for (name, importance) in [("lora_A", a), ("lora_E", e), ("lora_B", b)] {
                let Importance { sensitivity, uncertainty } = importance.clone();
                state.push((format!("{name}.sensitivity"), FileTensor::from_tensor(sensitivity)));
                state.push((format!("{name}.uncertainty"), FileTensor::from_tensor(uncertainty)));
            }
        }
        state
    }

    fn restore_training_state(self, file: &dyn TensorSource, key: &dyn Fn(&str) -> String) -> Result<Self> {
        let wrong = |reason: String| Error::Resume { path: file.path().to_path_buf(), reason };
        let flags = |name: &str, most: usize| -> Result<Option<Vec<bool>>> {
            let name = key(name);
            match file.info(&name) {
                None => Ok(None),
                Some(info) if info.shape.len() == 1 && info.shape[0] <= most => {
                    Ok(Some(file.read_f32(&name)?.into_iter().map(|value| value != 0.0).collect()))
                }
                Some(info) => {
                    Err(wrong(format!("{name}: expected at most {most} flags, found {:?}", info.shape)))
                }
            }
        };
        let places = flags("places", self.init_r)?;
        let rank = places.as_deref().map_or(self.init_r, count);
        let kept = flags("kept", rank)?;
        let lengths = [(&places, self.init_r), (&kept, rank)];
        if lengths.iter().any(|(flags, len)| flags.as_ref().is_some_and(|flags| flags.len() != *len)) {
            return Err(wrong(format!("{}: too few flags", key("places"))));
        }
        let device = self.lora_a.val().device().without_autodiff();
        let read = |name: &str, shape: &[usize]| -> Result<Vec<f32>> {
            let name = key(name);
            match file.info(&name) {
                Some(info) if info.shape == shape => Ok(file.read_f32(&name)?),
                Some(info) => Err(wrong(format!("{name}: expected shape {shape:?}, found {:?}", info.shape))),
                None => Err(wrong(format!("{name} is missing"))),
            }
        };
        let (d_input, d_output) = (self.lora_a.shape()[1], self.lora_b.shape()[0]);
        let shapes = Factors { a: [rank, d_input], e: [rank, 1], b: [d_output, rank] };
        let matrix = |param: Param<Tensor<2>>, name: &str, shape: [usize; 2]| -> Result<Param<Tensor<2>>> {
            let values = read(name, &shape)?;
            Ok(edited(param, |_| Tensor::from_data(TensorData::new(values, shape), &device)))
        };
        let importance = |name: &str, [rows, columns]: [usize; 2]| -> Result<Importance> {
            let vector = |part: &str| -> Result<Tensor<1>> {
                let len = rows * columns;
                let values = read(&format!("{name}.{part}"), &[len])?;
                Ok(Tensor::from_data(TensorData::new(values, [len]), &device))
            };
            Ok(Importance { sensitivity: vector("sensitivity")?, uncertainty: vector("uncertainty")? })
        };
        let importance = match file.info(&key("lora_E.sensitivity")) {
            None => None,
            Some(_) => Some(Factors {
                a: importance("lora_A", shapes.a)?,
                e: importance("lora_E", shapes.e)?,
                b: importance("lora_B", shapes.b)?,
            }),
        };
        Ok(Self {
            lora_a: matrix(self.lora_a, "lora_A", shapes.a)?,
            lora_e: matrix(self.lora_e, "lora_E", shapes.e)?,
            lora_b: matrix(self.lora_b, "lora_B", shapes.b)?,
            places,
            kept,
            importance,
            ..self
        })
    }
}

impl WeightSpace for AdaLoraLayer {
    const NAME: &'static str = "adalora";

    fn weight(&self, base: Tensor<2>, _: &()) -> Tensor<2> {
        if self.rank() == 0 {
            return base;
        }
        base + self.lora_b.val().matmul(self.lora_a.val() * self.lora_e.val()) * self.scale()
    }
}

/// Masks all but `budget` triplets, the least important ones.
fn allocated(layers: Vec<AdaLoraLayer>, budget: usize) -> Vec<AdaLoraLayer> {
    let scores: Option<Vec<Vec<f32>>> = layers.iter().map(AdaLoraLayer::scores).collect();
    let Some(scores) = scores else {
        tracing::warn!("AdaLoRA has measured no importance yet, so that it keeps every rank");
        return layers;
    };
    let kept = keep(&scores, budget);
    layers
        .into_iter()
        .zip(kept)
        .map(|(layer, kept)| AdaLoraLayer { kept: Some(kept), ..layer }.masked())
        .collect()
}
