use std::cell::RefCell;
use std::collections::BTreeSet;

use burn::tensor::{Device, Shape, Tensor, TensorData};

use crate::checkpoint::TensorSource;
use crate::{Error, Result, ShapeMismatch};

/// A checkpoint seen from one place in a model, while the model is being built.
///
/// [`Weights::at`] steps down (`weights.at("layers").at(0)`), [`Weights::tensor`] takes a tensor. What does not fit is collected,
/// so that [`Weights::load`] can name all of it at once; until then, zeros stand in.
#[derive(Clone)]
pub struct Weights<'a> {
    source: &'a dyn TensorSource,
    device: &'a Device,
    log: &'a RefCell<Log>,
    path: String,
}

#[derive(Default)]
struct Log {
    taken: BTreeSet<String>,
    missing: Vec<String>,
    mismatched: Vec<ShapeMismatch>,
    failed: Option<Error>,
}

impl<'a> Weights<'a> {
    /// Builds a model from `source` on `device`. Every tensor of the source must be taken and every one asked for be there.
    ///
    /// # Errors
    /// [`Error::Tensors`] listing everything that is missing, left over or of the wrong shape;
    /// [`Error::Checkpoint`] if a tensor can't be read.
    pub fn load<M>(
        source: &dyn TensorSource,
        device: &Device,
        build: impl FnOnce(&Weights<'_>) -> M,
    ) -> Result<M> {
        let log = RefCell::default();
        let model = build(&Weights { source, device, log: &log, path: String::new() });
        let log = log.into_inner();
        if let Some(error) = log.failed {
            return Err(error);
        }
        let unexpected: Vec<_> =
            source.names().into_iter().filter(|name| !log.taken.contains(name)).collect();
        if !log.missing.is_empty() || !log.mismatched.is_empty() || !unexpected.is_empty() {
            return Err(Error::Tensors {
                path: source.path().to_path_buf(),
                missing: log.missing,
                unexpected,
                mismatched: log.mismatched,
            });
        }
        Ok(model)
    }

    /// The place called `name` below this one.
    pub fn at(&self, name: impl std::fmt::Display) -> Self {
        Self { path: self.join(&name.to_string()), ..self.clone() }
    }

    /// Where this is, such as `model.layers.0.mlp`.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the checkpoint holds a tensor of this name here.
    pub fn contains(&self, name: &str) -> bool {
        self.source.info(&self.join(name)).is_some()
    }

    /// Counts a tensor as taken without reading it: one that other programs write although it can be derived.
    pub fn ignore(&self, name: &str) {
        self.log.borrow_mut().taken.insert(self.join(name));
    }

    /// Takes the tensor called `name` from here, as `f32`.
    pub fn tensor<const D: usize>(&self, name: &str, shape: [usize; D]) -> Tensor<D> {
        let name = self.join(name);
        let mut log = self.log.borrow_mut();
        log.taken.insert(name.clone());
        match self.source.info(&name) {
            None => log.missing.push(name),
            Some(info) if info.shape != shape => {
                log.mismatched.push(ShapeMismatch { name, expected: shape.to_vec(), found: info.shape });
            }
            // Once something is wrong nothing more is read: the model will be thrown away.
            Some(_) if log.failed.is_some() || !log.missing.is_empty() || !log.mismatched.is_empty() => {}
            Some(_) => match self.source.read_f32(&name) {
                Ok(values) => {
                    return Tensor::from_data(TensorData::new(values, Shape::from(shape)), self.device);
                }
                Err(error) => log.failed = Some(error),
            },
        }
        // Allocates nothing of the size that a hostile configuration may ask for.
        Tensor::<1>::zeros([1], self.device).reshape([1; D])
    }

    fn join(&self, name: &str) -> String {
        if self.path.is_empty() { name.to_owned() } else { format!("{}.{name}", self.path) }
    }
}
