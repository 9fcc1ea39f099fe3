use std::sync::Arc;

use burn::tensor::{Int, Tensor};
use llmkit_core::Adapter;
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, KeyValue, Linear, Norm};

use super::effect::Acting;
use super::{Effect, Place};
use crate::{Error, Method, Result};

/// Several adapters that act together, as PEFT's `set_adapter([a, b])` lets them: what they add to one layer's output adds up,
/// `y = W x + update_a(x) + update_b(x)`.
///
/// Adapters that act in different places (a LoRA and a soft prompt, say) go together always. In one place there can be several that add,
/// as LoRAs do, or one that replaces what the base computes, as a layer trained whole does.
#[derive(Debug, Clone)]
pub struct StackedAdapters {
    methods: Vec<Arc<dyn Method>>,
    acting: Arc<Acting>,
}

impl StackedAdapters {
    /// Stacks adapters with their names, which errors use.
    ///
    /// # Errors
    /// [`Error::Together`] naming the two that cannot act in one place.
    pub fn new<S: Into<String>>(
        model: &dyn Model,
        adapters: impl IntoIterator<Item = (S, Arc<dyn Method>)>,
    ) -> Result<Self> {
        let (names, methods): (Vec<String>, Vec<_>) =
            adapters.into_iter().map(|(name, method)| (name.into(), method)).unzip();
        let acting = Acting::new(model, methods.iter().map(AsRef::as_ref));
        let together = Together { names: &names, methods: &methods };
        for (path, on_layer) in acting.layers() {
            together.check(Place::Layer(path), on_layer)?;
        }
        together.check(Place::Join, &acting.join)?;
        together.check(Place::Prompt, &acting.prompt)?;
        together.check(Place::Prefix, &acting.prefix)?;
        // What acts at the join normalises by itself in models that normalise after it.
        for norm in &acting.norms {
            let others = acting.on(norm).iter().filter(|other| !acting.join.contains(other));
            if let Some((first, second)) = acting.join.first().zip(others.copied().next()) {
                return Err(together.refuse(*first, second, Place::Layer(norm)));
            }
        }
        Ok(Self { methods, acting: Arc::new(acting) })
    }

    fn of<'a>(&'a self, acting: &'a [usize]) -> impl Iterator<Item = &'a dyn Method> {
        acting.iter().map(|index| self.methods[*index].as_ref())
    }
}

/// What is to act together, by name.
struct Together<'a> {
    names: &'a [String],
    methods: &'a [Arc<dyn Method>],
}

impl Together<'_> {
    fn check(&self, place: Place<'_>, acting: &[usize]) -> Result<()> {
        let [first, second, ..] = acting else { return Ok(()) };
        let replaces = |index: &&usize| self.methods[**index].effect(place) == Effect::Replaces;
        match acting.iter().find(replaces) {
            None => Ok(()),
            Some(one) => Err(self.refuse(if one == first { *second } else { *first }, *one, place)),
        }
    }

    fn refuse(&self, first: usize, second: usize, place: Place<'_>) -> Error {
        let (one, other) = (&self.methods[first], &self.methods[second]);
        Error::Together {
            adapters: vec![self.names[first].clone(), self.names[second].clone()],
            place: place.to_string(),
            reason: format!(
                "both act there ({} and {}), and one of them computes something in the base's stead",
                one.kind(),
                other.kind()
            ),
        }
    }
}

impl Adapter for StackedAdapters {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        match self.acting.on(base.path()) {
            [] => base.forward(ids),
            [one] => self.methods[*one].embed(base, ids),
            several => {
                let plain = base.forward(ids.clone());
                self.of(several).fold(plain.clone(), |sum, method| {
                    sum + (method.embed(base, ids.clone()) - plain.clone())
                })
            }
        }
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        match self.acting.on(base.path()) {
            [] => base.forward(input),
            [one] => self.methods[*one].linear(base, input),
            several => self.of(several).fold(base.forward(input.clone()), |sum, method| {
                sum + method.linear_update(base, input.clone())
            }),
        }
    }

    fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        match self.acting.on(base.path()) {
            [one] => self.methods[*one].norm(base, input),
            // Nothing adds to a norm: several were refused.
            _ => base.forward(input),
        }
    }

    fn join(
        &self,
        site: llmkit_core::Site,
        output: Tensor<3>,
        residual: Tensor<3>,
        norm: Option<&Norm>,
    ) -> Tensor<3> {
        match self.acting.join.as_slice() {
            [] => {
                let sum = output + residual;
                match norm {
                    Some(norm) => self.norm(norm, sum),
                    None => sum,
                }
            }
            [one] => self.methods[*one].join(site, output, residual, norm),
            several => {
                let sum = output.clone() + residual.clone();
                let sum = self.of(several).fold(sum.clone(), |total, method| {
                    total + (method.join(site, output.clone(), residual.clone(), None) - sum.clone())
                });
                match norm {
                    Some(norm) => self.norm(norm, sum),
                    None => sum,
                }
            }
        }
    }

    fn prefix(&self, layer: usize, batch: usize) -> Option<KeyValue> {
        // The last comes first: each puts its keys before those that are there.
        self.of(&self.acting.prefix).fold(None, |seen, method| match (method.prefix(layer, batch), seen) {
            (Some(prefix), Some(seen)) => Some(prefix.followed_by(seen)),
            (prefix, seen) => prefix.or(seen),
        })
    }

    fn prompt(&self, embeddings: Tensor<3>) -> Tensor<3> {
        self.of(&self.acting.prompt).fold(embeddings, |embeddings, method| method.prompt(embeddings))
    }

    fn prefix_len(&self) -> usize {
        self.of(&self.acting.prefix).map(|method| method.prefix_len()).sum()
    }

    fn prompt_len(&self) -> usize {
        self.of(&self.acting.prompt).map(|method| method.prompt_len()).sum()
    }
}
