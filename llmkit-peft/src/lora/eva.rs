use std::collections::{BTreeMap, HashMap};
use std::sync::Mutex;

use burn::tensor::Tensor;
use llmkit_core::Adapter;
use llmkit_core::models::{CausalLm, Model};
use llmkit_core::nn::Linear;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::pca::IncrementalPca;
use super::{InitLora, Lora, LoraConfig};
use crate::data::Batch;
use crate::layers::{Targets, TunedLayer};
use crate::linalg::Matrix;
use crate::{Error, Result};

/// How EVA chooses ranks and when it stops: PEFT's `EvaConfig`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct EvaConfig {
    /// A layer's rank is at most `rho` times what the configuration says; 1 leaves the ranks alone. Default 2.
    pub rho: f64,
    /// A direction has converged when a batch turns it by no more than this cosine. Default 0.99.
    pub tau: f64,
    /// Whether the directions are divided by the square root of their singular values. Default false.
    pub whiten: bool,
    /// Whether a layer's alpha follows its rank, so that its scale stays. Default true.
    pub adjust_scaling_factors: bool,
    /// Whether only learned tokens count. Default true.
    pub use_label_mask: bool,
    /// PEFT's mark of tokens that are not learned.
    label_mask_value: i64,
}

impl Default for EvaConfig {
    fn default() -> Self {
        Self {
            rho: 2.0,
            tau: 0.99,
            whiten: false,
            adjust_scaling_factors: true,
            use_label_mask: true,
            label_mask_value: -100,
        }
    }
}

impl EvaConfig {
    /// Sets how much larger than configured a rank may become.
    pub fn with_rho(self, rho: f64) -> Self {
        Self { rho, ..self }
    }

    /// Sets the cosine at which a direction has converged.
    pub fn with_tau(self, tau: f64) -> Self {
        Self { tau, ..self }
    }
}

/// EVA (Paischer et al. 2024, <https://arxiv.org/abs/2410.07170>): a LoRA whose `A` starts as the principal directions of each layer's inputs,
/// and whose ranks go where they explain most of the inputs' variance. `B` starts at zero, so the adapter begins as the identity.
///
/// Watches a model's linear layers as an adapter that changes nothing: run batches through the model with it, calling
/// [`end_batch`](Self::end_batch) after each, until that says true; then [`into_lora`](Self::into_lora). [`eva_lora`] does it all.
#[derive(Debug)]
pub struct Eva {
    config: LoraConfig,
    settings: EvaConfig,
    /// The ranks that the configuration gives the layers.
    budget: BTreeMap<String, usize>,
    state: Mutex<State>,
}

#[derive(Debug, Default)]
struct State {
    /// What the layers read since the last batch ended, in order; layers after one another with the same input share it.
    inputs: Vec<(Vec<String>, Matrix)>,
    /// Which rows of the inputs count.
    rows: Option<(usize, Vec<usize>)>,
    /// The layers that have an analysis of their own, and those that share another's. Empty before the first batch.
    order: Vec<String>,
    leaders: HashMap<String, String>,
    analyses: HashMap<String, IncrementalPca>,
    ranks: BTreeMap<String, usize>,
}

impl Eva {
    /// Watches the linear layers that `config` targets.
    ///
    /// # Errors
    /// [`Error::Setting`] for impossible settings, and as [`Lora::new`].
    pub fn new(model: &dyn Model, config: LoraConfig, settings: EvaConfig) -> Result<Self> {
        if !(1.0..=1000.0).contains(&settings.rho) {
            let found = settings.rho.to_string();
            return Err(Error::Setting { setting: "rho", expected: "a number in 1..=1000", found });
        }
        if !(0.0..=1.0).contains(&settings.tau) {
            let found = settings.tau.to_string();
            return Err(Error::Setting { setting: "tau", expected: "a cosine in 0..=1", found });
        }
        let config = LoraConfig { init: InitLora::Eva, ..config };
        let lora = Lora::new(model, config.clone(), 0)?;
        let watched = lora.layers().iter().filter(|layer| !layer.is_embedding());
        let budget = watched.map(|layer| (layer.path().to_owned(), layer.sizes().rank)).collect();
        Ok(Self { config, settings, budget, state: Mutex::default() })
    }

    /// Says which positions of the next batch count, as `row * seq + column`, of `total` in it; all do otherwise.
    pub fn only(&self, positions: Vec<usize>, total: usize) {
        self.lock().rows = Some((total, positions));
    }

    /// Works in what the layers have read since the last call, and says whether the directions that the ranks need have converged.
    ///
    /// # Errors
    /// [`Error::Factorisation`] if an input is not finite.
    pub fn end_batch(&self) -> Result<bool> {
        let mut state = self.lock();
        state.rows = None;
        let inputs = std::mem::take(&mut state.inputs);
        if state.order.is_empty() {
            for (paths, input) in &inputs {
                let components = paths.iter().map(|path| self.largest_rank(path)).max().unwrap_or(0);
                let analysis = IncrementalPca::new(components.min(input.columns));
                state.analyses.insert(paths[0].clone(), analysis);
                for path in paths {
                    state.order.push(path.clone());
                    state.leaders.insert(path.clone(), paths[0].clone());
                    state.ranks.insert(path.clone(), components);
                }
            }
        }
        for (paths, input) in inputs {
            // A layer that no token reached in the first batch has no analysis; it starts as usual.
            let Some(rank) = state.ranks.get(&paths[0]).copied() else { continue };
            let Some(analysis) = state.analyses.get_mut(&paths[0]) else { continue };
            if !analysis.has_converged(rank) {
                analysis.add(&input, self.settings.tau, &paths[0])?;
            }
        }
        if state.analyses.is_empty()
            || state.analyses.values().any(|analysis| analysis.components().is_none())
        {
            return Ok(false);
        }
        let ranks = self.distribute(&state);
        state.ranks = ranks;
        let converged =
            |(path, analysis): (&String, &IncrementalPca)| analysis.has_converged(state.ranks[path]);
        Ok(state.analyses.iter().all(converged))
    }

    fn largest_rank(&self, path: &str) -> usize {
        let rank = self.budget.get(path).copied().unwrap_or(0) as f64;
        (rank * self.settings.rho).round() as usize
    }

    /// Gives the whole budget to the directions that explain most, layer by layer.
    fn distribute(&self, state: &State) -> BTreeMap<String, usize> {
        let mut shares: Vec<(f64, &String)> = Vec::new();
        for path in &state.order {
            let explained = state.analyses[&state.leaders[path]].explained();
            shares.extend(explained.iter().map(|share| (*share, path)));
        }
        shares.sort_by(|(a, _), (b, _)| b.total_cmp(a));
        let mut ranks: BTreeMap<String, usize> = state.order.iter().map(|path| (path.clone(), 0)).collect();
        let budget: usize = state.order.iter().filter_map(|path| self.budget.get(path)).sum();
        for (_, path) in shares.into_iter().take(budget) {
            *ranks.entry(path.clone()).or_default() += 1;
        }
        // The one whose analysis several share has the largest rank of them, so that it converges far enough for all.
        for path in &state.order {
            let leader = &state.leaders[path];
            let (own, of_leader) = (ranks[path], ranks[leader]);
            if own > of_leader {
                ranks.insert(leader.clone(), own);
                ranks.insert(path.clone(), of_leader);
            }
        }
        ranks
    }

    /// The LoRA that starts from what was seen. Layers that got no rank are not among its targets; `seed` fixes the factors of targets
    /// that were not watched, such as embeddings.
    ///
    /// # Errors
    /// [`Error::NoData`] if no batch had as many positions as the largest rank; otherwise as [`Lora::new`].
    pub fn into_lora(self, model: &dyn Model, seed: u64) -> Result<Lora> {
        let state = self.state.into_inner().unwrap_or_else(std::sync::PoisonError::into_inner);
        if state.analyses.values().all(|analysis| analysis.components().is_none()) {
            let reason =
                "no batch gave EVA as many positions as the largest rank; use larger batches or a lower rank";
            return Err(Error::NoData { reason: reason.into() });
        }
        let mut config = self.config;
        let plain = Lora::new(model, config.clone(), seed)?;
        let (mut names, mut starts) = (Vec::new(), HashMap::new());
        let (mut ranks, mut alphas) = (Vec::new(), Vec::new());
        for layer in plain.layers() {
            let path = layer.path();
            let before = layer.sizes();
            let components = state
                .leaders
                .get(path)
                .and_then(|leader| state.analyses[leader].components())
                .zip(state.ranks.get(path).copied());
            let divisor = |rank: usize| if config.use_rslora { (rank as f64).sqrt() } else { rank as f64 };
            let mut alpha = before.scale * divisor(before.rank);
            let mut rank = before.rank;
            if let Some((components, chosen)) = components {
                if chosen == 0 {
                    continue;
                }
                if self.settings.adjust_scaling_factors {
                    alpha *= chosen as f64 / rank as f64;
                }
                rank = chosen;
                let mut a = components.directions.first_rows(rank);
                if self.settings.whiten {
                    let factors: Vec<f32> = components.lengths.iter().map(|s| s.sqrt().recip()).collect();
                    a.scale_rows(&factors);
                }
                starts.insert(path.to_owned(), a);
            }
            names.push(path.to_owned());
            if rank != config.rank {
                ranks.push((path.to_owned(), rank));
            }
            if (alpha - config.alpha).abs() > 1e-9 * config.alpha.abs() {
                alphas.push((path.to_owned(), alpha));
            }
        }
        config.scope.target_modules = Targets::Names(names);
        config.rank_pattern = ranks.into_iter().collect();
        config.alpha_pattern = alphas.into_iter().collect();
        let settings = serde_json::to_value(self.settings).expect("numbers always serialise");
        config.scope.other.insert("eva_config".into(), settings);
        let lora = Lora::new(model, config, seed)?;
        Ok(lora.map_layers(|layer| match starts.remove(layer.path()) {
            Some(a) => layer.with_a(a),
            None => layer,
        }))
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(std::sync::PoisonError::into_inner)
    }
}

impl Adapter for Eva {
    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        let path = base.path();
        if self.budget.contains_key(path) {
            let mut state = self.lock();
            let is_leader = state.leaders.get(path).is_none_or(|leader| leader == path);
            if is_leader {
                let [batch, seq, width] = input.dims();
                let rows = Matrix::from_tensor(input.clone().reshape([batch * seq, width]));
                let rows = match &state.rows {
                    Some((total, chosen)) if *total == rows.rows => rows.pick_rows(chosen),
                    _ => rows,
                };
                match state.inputs.last_mut() {
                    Some((paths, last)) if *last == rows => paths.push(path.to_owned()),
                    _ => state.inputs.push((vec![path.to_owned()], rows)),
                }
            }
        }
        base.forward(input)
    }
}

/// A LoRA that starts from the inputs of `model`'s layers over `batches`, which are gone through again until the directions have converged.
///
/// # Errors
/// As [`Eva::new`], [`Eva::end_batch`] and [`Eva::into_lora`].
pub fn eva_lora(
    model: &dyn CausalLm,
    config: LoraConfig,
    settings: EvaConfig,
    batches: &[Batch],
    seed: u64,
) -> Result<Lora> {
    const PASSES: usize = 100;
    let eva = Eva::new(model, config, settings)?;
    let head = model.head_path().is_some_and(|head| eva.budget.contains_key(head));
    let mut converged = false;
    'passes: for _ in 0..PASSES {
        for batch in batches {
            if settings.use_label_mask {
                // The learned tokens' own places: each follows the place that predicts it.
                eva.only(batch.positions.iter().map(|place| place + 1).collect(), batch.tokens());
            }
            let mut hidden = model.embed(batch.ids.clone(), &eva);
            let positions = model.positions(&[0], hidden.dims()[1], None);
            for index in 0..model.num_blocks() {
                hidden = model.block(index, hidden, &positions, None, &eva);
            }
            if head {
                model.head(hidden, &eva);
            }
            converged = eva.end_batch()?;
            if converged {
                break 'passes;
            }
        }
    }
    if !converged {
        tracing::warn!(passes = PASSES, "EVA's directions have not converged; the last ones are used");
    }
    eva.into_lora(model, seed)
}

/// A generator for sketches that don't depend on anything.
pub(super) fn sketch_rng() -> ChaCha8Rng {
    ChaCha8Rng::seed_from_u64(42)
}
