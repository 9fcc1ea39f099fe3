//! What the configurations of encoders share.

use serde_json::Value;

use super::ConfigReader;
use crate::Result;
use crate::nn::Activation;

/// More labels than any classifier has; a file may not ask for names without end.
const MOST_LABELS: usize = 1 << 16;

/// The function that `field` names as transformers does; `default` where it names none.
pub(super) fn activation(config: ConfigReader<'_>, field: &str, default: &str) -> Result<Activation> {
    let known = [
        ("gelu", Activation::Gelu),
        ("gelu_python", Activation::Gelu),
        ("gelu_new", Activation::GeluTanh),
        ("gelu_fast", Activation::GeluTanh),
        ("gelu_pytorch_tanh", Activation::GeluTanh),
        ("relu", Activation::Relu),
        ("silu", Activation::Silu),
        ("swish", Activation::Silu),
        ("tanh", Activation::Tanh),
    ];
    let name = config.text_or(field, default)?;
    match known.iter().find(|(known, _)| *known == name) {
        Some((_, activation)) => Ok(*activation),
        None => {
            let names: Vec<_> = known.iter().map(|(name, _)| *name).collect();
            Err(config.wrong(field, &format!("one of {names:?}"), &name))
        }
    }
}

/// Insists that `heads` vectors of one length make up a vector of `width`.
pub(super) fn divides(config: ConfigReader<'_>, field: &str, heads: usize, width: usize) -> Result<()> {
    if width.is_multiple_of(heads) {
        return Ok(());
    }
    Err(config.wrong(field, &format!("a divisor of the hidden size ({width})"), &heads))
}

/// The names of a classifier's labels, in the order of its scores: those of `id2label`, or `LABEL_0`, `LABEL_1` and so on,
/// `num_labels` (default 2) of them.
pub(super) fn labels(config: ConfigReader<'_>, raw: &Value) -> Result<Vec<String>> {
    let too_many = |found: usize| config.wrong("num_labels", &format!("at most {MOST_LABELS}"), &found);
    let named = raw.get("id2label").filter(|named| !named.is_null());
    let Some(named) = named else {
        let count = config.size_or("num_labels", 2)?;
        if count > MOST_LABELS {
            return Err(too_many(count));
        }
        return Ok((0..count).map(|index| format!("LABEL_{index}")).collect());
    };
    let count = named.as_object().map_or(0, serde_json::Map::len);
    if count > MOST_LABELS {
        return Err(too_many(count));
    }
    let name = |index: usize| named.get(index.to_string()).and_then(Value::as_str).map(str::to_owned);
    match (0..count).map(name).collect::<Option<Vec<_>>>() {
        Some(names) if !names.is_empty() => Ok(names),
        _ => Err(config.wrong("id2label", "a name for each number from 0 on", named)),
    }
}
