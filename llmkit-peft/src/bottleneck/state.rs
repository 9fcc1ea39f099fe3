use std::collections::HashMap;

use burn::module::Param;
use burn::tensor::{Device, Tensor, TensorData};
use rand::Rng;
use rand_chacha::ChaCha8Rng;

use crate::ParamRef;
use crate::random::standard_normal;

/// A tensor that an adapter needs, before it exists: so that a file is checked before memory is taken for it.
pub(super) struct Wanted {
    pub(super) name: String,
    pub(super) shape: Vec<usize>,
    pub(super) init: Init,
}

/// How a tensor starts.
#[derive(Debug, Clone, Copy)]
pub(super) enum Init {
    Zeros,
    Ones,
    /// With this standard deviation.
    Normal(f64),
    /// With this standard deviation, and nothing beyond two of them.
    TruncatedNormal(f64),
    /// Between this and its negative.
    Uniform(f64),
}

impl Wanted {
    pub(super) fn new(name: impl Into<String>, shape: impl Into<Vec<usize>>, init: Init) -> Self {
        Self { name: name.into(), shape: shape.into(), init }
    }

    pub(super) fn sample(&self, rng: &mut ChaCha8Rng) -> Vec<f32> {
        let len = self.shape.iter().product();
        let mut repeat = |sample: &mut dyn FnMut(&mut ChaCha8Rng) -> f64| -> Vec<f32> {
            (0..len).map(|_| sample(rng) as f32).collect()
        };
        match self.init {
            Init::Zeros => vec![0.0; len],
            Init::Ones => vec![1.0; len],
            Init::Normal(deviation) => repeat(&mut |rng| deviation * standard_normal(rng)),
            Init::TruncatedNormal(deviation) => repeat(&mut |rng| {
                loop {
                    let value = standard_normal(rng);
                    if value.abs() <= 2.0 {
                        return deviation * value;
                    }
                }
            }),
            Init::Uniform(bound) if bound > 0.0 => repeat(&mut |rng| rng.random_range(-bound..bound)),
            Init::Uniform(_) => vec![0.0; len],
        }
    }
}

/// A bottleneck's values by their names, each with its shape.
pub(super) type Values = HashMap<String, (Vec<usize>, Vec<f32>)>;

/// Values on their way into parameters.
pub(super) struct Take<'a> {
    pub(super) values: Values,
    pub(super) device: &'a Device,
}

impl Take<'_> {
    fn data(&mut self, name: &str) -> TensorData {
        let (shape, values) = self.values.remove(name).expect("every wanted tensor has been read or made");
        TensorData::new(values, shape)
    }

    pub(super) fn vector(&mut self, name: &str) -> Param<Tensor<1>> {
        Param::from_data(self.data(name), self.device)
    }

    pub(super) fn matrix(&mut self, name: &str) -> Param<Tensor<2>> {
        Param::from_data(self.data(name), self.device)
    }

    pub(super) fn cube(&mut self, name: &str) -> Param<Tensor<3>> {
        Param::from_data(self.data(name), self.device)
    }
}

/// The parameters of a part of an adapter, with their names in it.
#[derive(Default)]
pub(super) struct State<'a> {
    pub(super) entries: Vec<Entry<'a>>,
}

pub(super) struct Entry<'a> {
    pub(super) name: String,
    pub(super) param: ParamRef<'a>,
    /// Whether it trains; what does not is frozen, or another entry's parameter under a second name.
    pub(super) trained: bool,
}

impl<'a> State<'a> {
    pub(super) fn push(&mut self, name: impl Into<String>, param: impl Into<ParamRef<'a>>) {
        self.push_if(name, param, true);
    }

    /// One that trains only where `trained`.
    pub(super) fn push_if(&mut self, name: impl Into<String>, param: impl Into<ParamRef<'a>>, trained: bool) {
        self.entries.push(Entry { name: name.into(), param: param.into(), trained });
    }
}
