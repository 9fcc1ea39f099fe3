mod factors;
mod rule;

use std::collections::BTreeMap;

use llmkit_core::models::Model;

pub(crate) use factors::{Factors, FactorsPlace};
pub use rule::{MajoritySign, Rule};

use crate::layers::MemoryTensors;
use crate::linalg::Matrix;
use crate::{Bias, Error, Lora, LoraConfig, Result, Scope, Targets};
use rule::Draws;

/// How several LoRAs become one: PEFT's `add_weighted_adapter`.
///
/// | PEFT's `combination_type` | here |
/// |---|---|
/// | `cat` | [`Cat`](Self::Cat) |
/// | `linear`, `ties`, `dare_linear`, `dare_ties`, `magnitude_prune` | [`Factors`](Self::Factors) with that [`Rule`] |
/// | `svd` | [`Updates`](Self::Updates) with [`Rule::Linear`] |
/// | `ties_svd`, `dare_linear_svd`, `dare_ties_svd`, `magnitude_prune_svd` | [`Updates`](Self::Updates) with that [`Rule`] |
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Combination {
    /// The factors side by side: exactly the weighted sum of the updates, of the sum of their ranks.
    Cat,
    /// The rule on the factors `A` and on the factors `B`, each taken times the square root of its adapter's weight and scale. The ranks must
    /// be the same. It is quick, and rough: the product of sums is not the sum of products.
    Factors(Rule),
    /// The rule on the updates `scale B A`, then the best approximation of a rank, from the singular value decomposition.
    Updates {
        /// The rule.
        rule: Rule,
        /// The rank; by default the highest of the adapters'.
        rank: Option<usize>,
    },
}

/// Makes one LoRA for `model` of several, each with its weight, which may be negative.
///
/// The result has scale 1 in every layer (its alpha is its rank, and it is no rsLoRA), so that it can be used wherever a LoRA can. A layer that
/// only some adapters act on is combined from those; a layer that one adapter trains whole is taken over as it is.
///
/// # Errors
/// [`Error::Combination`] where there is no adapter, a weight or density is impossible, ranks differ for [`Combination::Factors`], two adapters
/// train the same layer whole, or an adapter has what is not an update of low rank (trained biases or tokens, `lora_bias`, DoRA).
/// [`Error::Factorisation`] for weights that are not finite.
pub fn combine(model: &dyn Model, adapters: &[(&Lora, f64)], how: Combination) -> Result<Lora> {
    let refuse = |reason: String| Err(Error::Combination { reason });
    let Some((first, _)) = adapters.first() else { return refuse("there is none".into()) };
    if let Some((_, weight)) = adapters.iter().find(|(_, weight)| !weight.is_finite()) {
        return refuse(format!("a weight is {weight}; give finite numbers"));
    }
    // PEFT scales a single adapter, whatever the rule.
    let how = if adapters.len() == 1 { Combination::Factors(Rule::Linear) } else { how };
    if let Combination::Factors(rule) | Combination::Updates { rule, .. } = how {
        rule.validate()?;
    }

    let mut layers: BTreeMap<String, Vec<(Factors, f64)>> = BTreeMap::new();
    let mut highest = Vec::new();
    for (index, (lora, weight)) in adapters.iter().enumerate() {
        if lora.config().bias != Bias::None {
            return refuse(format!(
                "adapter {index} trains biases; only updates of low rank can be combined"
            ));
        }
        if lora.config().trainable_token_indices.is_some() {
            return refuse(format!(
                "adapter {index} trains tokens; only updates of low rank can be combined"
            ));
        }
        let factors = Factors::of(lora).map_err(|error| match error {
            Error::Combination { reason } => {
                Error::Combination { reason: format!("adapter {index}: {reason}") }
            }
            other => other,
        })?;
        highest.push(factors.values().map(Factors::rank).max().unwrap_or(0));
        for (path, factors) in factors {
            layers.entry(path).or_default().push((factors, *weight));
        }
    }
    let rank = match how {
        Combination::Cat => highest.iter().sum(),
        Combination::Factors(_) if highest.iter().any(|rank| *rank != highest[0]) => {
            return refuse(format!(
                "their ranks {highest:?} differ; combine the updates or concatenate instead"
            ));
        }
        Combination::Factors(_) | Combination::Updates { rank: None, .. } => {
            highest.iter().copied().max().unwrap_or(0)
        }
        Combination::Updates { rank: Some(rank), .. } => rank,
    };

    let mut tensors = MemoryTensors::new("(a combination of LoRAs)");
    let modules_to_save = take_over_whole_layers(adapters, &layers, &mut tensors)?;
    for (path, parts) in &layers {
        let mut combined = combine_layer(path, parts, how, rank)?;
        combined.pad(rank);
        combined.insert_into(path, &mut tensors);
    }
    let theirs = &first.config().scope;
    let scope = Scope {
        modules_to_save,
        base_model_name_or_path: theirs.base_model_name_or_path.clone(),
        task_type: theirs.task_type.clone(),
        ..Scope::new(Targets::names(layers.keys().cloned()))
    };
    Lora::with_tensors(model, LoraConfig::new(scope).with_rank(rank).with_alpha(rank as f64), &tensors)
}

fn combine_layer(path: &str, parts: &[(Factors, f64)], how: Combination, rank: usize) -> Result<Factors> {
    let place = parts[0].0.place;
    match how {
        Combination::Cat => {
            let scaled: Vec<f64> = parts.iter().map(|(factors, weight)| weight * factors.scale).collect();
            Ok(Factors::side_by_side(parts.iter().map(|(factors, _)| factors).zip(scaled)))
        }
        Combination::Factors(rule) => {
            let ranks: Vec<usize> = parts.iter().map(|(factors, _)| factors.rank()).collect();
            if ranks.iter().any(|rank| *rank != ranks[0]) {
                let reason = format!(
                    "their ranks {ranks:?} in {path} differ; combine the updates or concatenate instead"
                );
                return Err(Error::Combination { reason });
            }
            let mut draws = Draws::new(rule, path);
            // The sign goes onto one side, or it would cancel itself.
            let roots = |sign: bool| -> Vec<f32> {
                let root = |(factors, weight): &(Factors, f64)| {
                    let scaled = weight * factors.scale;
                    let root = scaled.abs().sqrt();
                    (if sign && scaled < 0.0 { -root } else { root }) as f32
                };
                parts.iter().map(root).collect()
            };
            let mut side = |of: fn(&Factors) -> &Matrix, weights: Vec<f32>| {
                let matrices = parts.iter().map(|(factors, _)| of(factors).values.clone()).collect();
                let like = of(&parts[0].0);
                Matrix::new(like.rows, like.columns, rule.apply(matrices, &weights, &mut draws))
            };
            let a = side(|factors| &factors.a, roots(true));
            let b = side(|factors| &factors.b, roots(false));
            Ok(Factors { a, b, scale: 1.0, place })
        }
        // The sum of updates of low rank is of low rank itself: its decomposition needs no matrix of the layer's size.
        Combination::Updates { rule: Rule::Linear, .. } => {
            let scaled: Vec<f64> = parts.iter().map(|(factors, weight)| weight * factors.scale).collect();
            let sum = Factors::side_by_side(parts.iter().map(|(factors, _)| factors).zip(scaled));
            Ok(Factors::from_svd(sum.svd(path)?, rank, place))
        }
        Combination::Updates { rule, .. } => {
            let updates: Vec<Matrix> = parts.iter().map(|(factors, _)| factors.update()).collect();
            let (rows, columns) = (updates[0].rows, updates[0].columns);
            let weights: Vec<f32> = parts.iter().map(|(_, weight)| *weight as f32).collect();
            let updates = updates.into_iter().map(|update| update.values).collect();
            let update = rule.apply(updates, &weights, &mut Draws::new(rule, path));
            let svd = crate::linalg::svd_double(&Matrix::new(rows, columns, update), rank, path)?;
            Ok(Factors::from_svd(svd, rank, place))
        }
    }
}

/// Puts the layers that adapters train whole into `tensors`, and gives the entries of `modules_to_save` that name them.
fn take_over_whole_layers(
    adapters: &[(&Lora, f64)],
    updated: &BTreeMap<String, Vec<(Factors, f64)>>,
    tensors: &mut MemoryTensors,
) -> Result<Vec<String>> {
    let mut modules: Vec<String> = Vec::new();
    for (index, (lora, _)) in adapters.iter().enumerate() {
        for named in lora.saved_layers().tensors() {
            let layer = named.key.rsplit_once('.').map_or(named.key.as_str(), |(path, _)| path);
            let path = layer.strip_prefix(crate::AdapterFolder::PREFIX).unwrap_or(layer);
            if tensors.contains(&named.key) || updated.contains_key(path) {
                let reason = format!("adapter {index} trains {path} whole, and another acts on it too");
                return Err(Error::Combination { reason });
            }
            tensors.insert(named.key.clone(), named.param.shape(), named.param.values());
            if !modules.iter().any(|module| module == path) {
                modules.push(path.to_owned());
            }
        }
    }
    Ok(modules)
}
