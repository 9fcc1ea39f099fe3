use std::path::Path;

use llmkit_core::models::Model;
use serde_json::Value;

use crate::{
    AdapterFolder, Error, Lora, Method, MultitaskPromptTuning, PTuning, PrefixTuning, PromptTuning, Result,
};

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
        Some("LORA") => Box::new(Lora::load(model, folder)?),
        Some("MULTITASK_PROMPT_TUNING") => Box::new(MultitaskPromptTuning::load(model, folder)?),
        Some("P_TUNING") => Box::new(PTuning::load(model, folder)?),
        Some("PREFIX_TUNING") => Box::new(PrefixTuning::load(model, folder)?),
        Some("PROMPT_TUNING") => Box::new(PromptTuning::load(model, folder)?),
        _ => {
            let found = config["peft_type"].to_string();
            return Err(wrong(
                "peft_type",
                "a method that llmkit has: LORA, MULTITASK_PROMPT_TUNING, P_TUNING, PREFIX_TUNING, PROMPT_TUNING",
                found,
            ));
        }
    })
}
