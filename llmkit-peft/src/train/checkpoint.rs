use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use burn::module::ParamId;
use burn::tensor::{Device, Tensor};
use llmkit_core::checkpoint::{Safetensors, TensorData, TensorSource, save_safetensors, write_atomic};
use serde::{Deserialize, Serialize};

use super::adamw::Moments;
use super::{AdamW, TrainConfig};
use crate::{Error, PeftModule, Result, parameters};

const STATE: &str = "trainer_state.json";
const OPTIMIZER: &str = "optimizer.safetensors";
const PREFIX: &str = "checkpoint-";

/// Where in the data a run stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
pub(super) struct Position {
    pub(super) epoch: usize,
    pub(super) step_in_epoch: usize,
    /// A hash of the training data: the place means nothing in other data.
    pub(super) data: u64,
}

#[derive(Debug, Serialize, Deserialize)]
struct State {
    steps: usize,
    position: Position,
    config: TrainConfig,
    /// A hash of the adapter: another one would go on from these moments without a word.
    adapter: u64,
}

/// Writes `checkpoint-STEP` below `folder`: the adapter's own files, the optimizer's moments, and where the run stands. The folder appears
/// under its name only once it is complete.
pub(super) fn save<A: PeftModule>(
    folder: &Path,
    step: usize,
    adapter: &A,
    optimizer: &AdamW,
    position: Position,
    config: &TrainConfig,
) -> Result<PathBuf> {
    let target = folder.join(format!("{PREFIX}{step}"));
    let staged = folder.join(format!(".{PREFIX}{step}.partial"));
    remove_if_there(&staged)?;
    fs::create_dir_all(&staged).map_err(llmkit_core::Error::io("create", &staged))?;

    adapter.save(&staged)?;
    adapter.save_training_state(&staged)?;
    let names: BTreeMap<ParamId, String> = adapter.parameter_names().into_iter().collect();
    let moments = optimizer.moments().iter().filter_map(|(id, moments)| Some((names.get(id)?, moments)));
    let tensors = moments.flat_map(|(name, Moments { mean, mean_square })| {
        [
            (format!("{name}.mean"), TensorData::from_tensor(mean.clone())),
            (format!("{name}.mean_square"), TensorData::from_tensor(mean_square.clone())),
        ]
    });
    save_safetensors(staged.join(OPTIMIZER), tensors, None)?;
    let fingerprint = parameters::fingerprint(adapter, adapter.parameter_names());
    let state = State { steps: optimizer.steps(), position, config: *config, adapter: fingerprint };
    let json = serde_json::to_string_pretty(&state).expect("numbers and strings always serialise") + "\n";
    write_atomic(staged.join(STATE), |file| std::io::Write::write_all(file, json.as_bytes()))?;

    // A run that was resumed further back writes the same step again.
    remove_if_there(&target)?;
    fs::rename(&staged, &target).map_err(llmkit_core::Error::io("write", &target))?;
    Ok(target)
}

/// Reads what [`save`] wrote, but for the adapter itself.
pub(super) fn load<A: PeftModule>(
    folder: &Path,
    adapter: &A,
    config: &TrainConfig,
) -> Result<(AdamW, Position)> {
    let wrong = |reason: String| Error::Resume { path: folder.to_path_buf(), reason };
    let path = folder.join(STATE);
    let text = fs::read_to_string(&path).map_err(|source| match source.kind() {
        std::io::ErrorKind::NotFound => {
            wrong(format!("it has no {STATE}; pass a folder called `{PREFIX}STEP`"))
        }
        _ => llmkit_core::Error::io("read", &path)(source).into(),
    })?;
    let state: State =
        serde_json::from_str(&text).map_err(|error| wrong(format!("{STATE} is malformed: {error}")))?;
    if let Some(difference) = difference(&state.config, config) {
        return Err(wrong(difference));
    }
    if state.adapter != parameters::fingerprint(adapter, adapter.parameter_names()) {
        return Err(wrong(
            "the adapter is not the one of this checkpoint; load it from the same folder".into(),
        ));
    }
    let file = Safetensors::open(folder.join(OPTIMIZER))?;
    if file.names().is_empty() {
        // No step has had anything to learn yet.
        return Ok((AdamW::restore(config.adamw, state.steps, BTreeMap::new()), state.position));
    }
    let sizes: BTreeMap<ParamId, usize> = parameters::sizes(adapter).into_iter().collect();
    let device = adapter.devices().first().cloned().unwrap_or_default().without_autodiff();
    let mut moments = BTreeMap::new();
    for (id, name) in adapter.parameter_names() {
        let read = |part: &str| -> Result<Tensor<1>> {
            let name = format!("{name}.{part}");
            let expected = sizes.get(&id).copied().unwrap_or_default();
            match file.info(&name) {
                Some(info) if info.shape == [expected] => Ok(flat(file.read_f32(&name)?, &device)),
                Some(info) => {
                    Err(wrong(format!("{name}: expected shape [{expected}], found {:?}", info.shape)))
                }
                None => Err(wrong(format!("{OPTIMIZER} lacks {name}"))),
            }
        };
        moments.insert(id, Moments { mean: read("mean")?, mean_square: read("mean_square")? });
    }
    Ok((AdamW::restore(config.adamw, state.steps, moments), state.position))
}

/// Removes all checkpoints up to `step` but the latest `keep`. Those of later steps are another run's, and not this one's to remove.
pub(super) fn prune(folder: &Path, step: usize, keep: usize) -> Result<()> {
    let mut steps = Vec::new();
    for entry in fs::read_dir(folder).map_err(llmkit_core::Error::io("read", folder))? {
        let name = entry.map_err(llmkit_core::Error::io("read", folder))?.file_name();
        let Some(name) = name.to_str() else { continue };
        let saved = name.strip_prefix(PREFIX).and_then(|saved| saved.parse::<usize>().ok());
        steps.extend(saved.filter(|saved| *saved <= step));
    }
    steps.sort_unstable_by(|a, b| b.cmp(a));
    steps.iter().skip(keep).try_for_each(|step| remove_if_there(&folder.join(format!("{PREFIX}{step}"))))
}

/// The first setting that would make the resumed run another run. How often to save or score, and how much to recompute, may change.
fn difference(saved: &TrainConfig, now: &TrainConfig) -> Option<String> {
    let comparable = |config: &TrainConfig| {
        let free = TrainConfig::default();
        TrainConfig {
            eval_every: free.eval_every,
            checkpoint_every: free.checkpoint_every,
            keep_checkpoints: free.keep_checkpoints,
            recompute: free.recompute,
            loss_chunk: free.loss_chunk,
            ..*config
        }
    };
    let fields = |config| serde_json::to_value(comparable(config)).unwrap_or_default();
    let (saved, now) = (fields(saved), fields(now));
    saved.as_object()?.iter().find(|(name, value)| now.get(name.as_str()) != Some(value)).map(
        |(name, value)| {
            format!("it was trained with {name} = {value}, this run has {}; use the same settings", now[name])
        },
    )
}

fn flat(values: Vec<f32>, device: &Device) -> Tensor<1> {
    let len = values.len();
    Tensor::from_data(burn::tensor::TensorData::new(values, [len]), device)
}

fn remove_if_there(folder: &Path) -> Result<()> {
    match fs::remove_dir_all(folder) {
        Err(source) if source.kind() != std::io::ErrorKind::NotFound => {
            Err(llmkit_core::Error::io("remove", folder)(source).into())
        }
        _ => Ok(()),
    }
}
