use std::path::Path;

use llmkit_core::models::Model;
use serde_json::Value;

use crate::{AdaLora, AdapterFolder, BitFit, Error, Ia3, LnTuning, Lora, Method, Result, Vera};

/// Reads a folder of any method, as its configuration says which.
///
/// # Errors
/// [`Error::Config`] for a `peft_type` that llmkit doesn't have, and whatever the method's own `load` says.
pub fn load_adapter(model: &dyn Model, folder: impl AsRef<Path>) -> Result<Box<dyn Method>> {
    let folder = folder.as_ref();
    let files = AdapterFolder::new(folder);
    let wrong = |field: &str, expected: &str, found: String| Error::Config {
        origin: files.config_path(),
        field: field.into(),
        expected: expected.into(),
        found,
    };
    let config: Value = serde_json::from_str(&files.config()?)
        .map_err(|error| wrong("(the whole file)", "a JSON object", error.to_string()))?;
    Ok(match config["peft_type"].as_str() {
        Some("ADALORA") => Box::new(AdaLora::load(model, folder)?),
        Some("BEFT") => Box::new(BitFit::load(model, folder)?),
        Some("IA3") => Box::new(Ia3::load(model, folder)?),
        Some("LN_TUNING") => Box::new(LnTuning::load(model, folder)?),
        Some("LORA") => Box::new(Lora::load(model, folder)?),
        Some("VERA") => Box::new(Vera::load(model, folder)?),
        _ => {
            let found = config["peft_type"].to_string();
            return Err(wrong(
                "peft_type",
                "a method that llmkit has: ADALORA, BEFT, IA3, LN_TUNING, LORA, VERA",
                found,
            ));
        }
    })
}
