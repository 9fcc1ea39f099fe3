use std::path::Path;

use llmkit_core::models::Model;
use serde_json::Value;

use crate::{
    AdaLoraLayer, AdapterFolder, BitFitLayer, BoftLayer, Bottleneck, Error, Ia3Layer, LayerMethod, Learned,
    LnTuningLayer, LohaLayer, LokrLayer, LoraLayer, Method, MethodConfig, MultitaskPrompt, OftLayer, Prefix,
    Prompt, PromptConfig, PromptEncoder, PromptMethod, Result, TunedLayer, VeraLayer,
};

/// How a method reads its folder.
type Load = fn(&dyn Model, &Path) -> Result<Box<dyn Method>>;

/// The methods by what PEFT calls them.
fn methods() -> Vec<(&'static str, Load)> {
    vec![
        layered::<AdaLoraLayer>(),
        layered::<BitFitLayer>(),
        layered::<BoftLayer>(),
        layered::<Ia3Layer>(),
        layered::<LnTuningLayer>(),
        layered::<LohaLayer>(),
        layered::<LokrLayer>(),
        layered::<LoraLayer>(),
        layered::<OftLayer>(),
        layered::<VeraLayer>(),
        prompting::<MultitaskPrompt>(),
        prompting::<Prefix>(),
        prompting::<Prompt>(),
        prompting::<PromptEncoder>(),
    ]
}

fn layered<L: TunedLayer>() -> (&'static str, Load) {
    (L::Config::PEFT_TYPE, |model, folder| Ok(Box::new(LayerMethod::<L>::load(model, folder)?)))
}

fn prompting<L: Learned>() -> (&'static str, Load) {
    (L::Config::PEFT_TYPE, |model, folder| Ok(Box::new(PromptMethod::<L>::load(model, folder)?)))
}

/// Reads a folder of any method, as its configuration says which.
///
/// # Errors
/// [`Error::Config`] for a `peft_type` that llmkit doesn't have, and whatever the method's own `load` says.
pub fn load_adapter(model: &dyn Model, folder: impl AsRef<Path>) -> Result<Box<dyn Method>> {
    let folder = folder.as_ref();
    let files = AdapterFolder::new(folder);
    let wrong = |field: &str, expected: String, found: String| Error::Config {
        origin: files.config_path(),
        field: field.into(),
        expected,
        found,
    };
    let config: Value = serde_json::from_str(&files.config()?)
        .map_err(|error| wrong("(the whole file)", "a JSON object".into(), error.to_string()))?;
    // AdapterHub's files have no `peft_type`, and the adapter's own configuration one level deeper.
    if config.get("peft_type").is_none() && config["config"].is_object() {
        return Ok(Box::new(Bottleneck::load(model, folder)?));
    }
    let kind = config["peft_type"].as_str().unwrap_or_default();
    let methods = methods();
    match methods.iter().find(|(name, _)| *name == kind) {
        Some((_, load)) => load(model, folder),
        None => {
            let names: Vec<_> = methods.iter().map(|(name, _)| *name).collect();
            let expected = format!("a method that llmkit has: {}", names.join(", "));
            Err(wrong("peft_type", expected, config["peft_type"].to_string()))
        }
    }
}
