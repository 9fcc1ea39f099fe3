//! The methods that are compared, each with the settings of `benches/methods_peft.py`.
// The comparison and the bench use different parts of it.
#![allow(dead_code)]

use anyhow::{Result, bail};
use clap::ValueEnum;
use llmkit_core::models::Model;
use llmkit_peft::{
    AdaLora, AdaLoraConfig, BitFit, BitFitConfig, Boft, BoftConfig, Bottleneck, BottleneckConfig,
    FullFineTune, Ia3, Ia3Config, InitLora, LnTuning, LnTuningConfig, Loha, LohaConfig, Lokr, LokrConfig,
    Lora, LoraConfig, LoraPlus, Oft, OftConfig, PTuning, PTuningConfig, PeftModule, PrefixInit, PrefixTuning,
    PrefixTuningConfig, PromptTuning, PromptTuningConfig, Targets, Vera, VeraConfig,
};

/// What a model is trained for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Task {
    /// The next token: SmolLM2 on definitions.
    Generation,
    /// A label: MiniLM on the kinds of things that are defined.
    Classification,
}

impl Task {
    pub(crate) fn name(self) -> &'static str {
        match self {
            Self::Generation => "generation",
            Self::Classification => "classification",
        }
    }
}

/// A method by its name, and a learning rate of the size that is usual for it, for generation and for classification.
pub(crate) struct Entry {
    pub(crate) name: &'static str,
    /// None where the method does not apply.
    generation: Option<f64>,
    classification: Option<f64>,
}

const fn entry(name: &'static str, generation: Option<f64>, classification: Option<f64>) -> Entry {
    Entry { name, generation, classification }
}

/// All that there is to compare.
pub(crate) const METHODS: [Entry; 24] = [
    entry("head", None, Some(1e-2)),
    entry("lora", Some(1e-3), Some(5e-3)),
    entry("rslora", Some(1e-3), Some(2e-3)),
    entry("dora", Some(1e-3), Some(5e-3)),
    entry("pissa", Some(5e-4), Some(1e-3)),
    entry("lora_plus", Some(5e-4), Some(1e-3)),
    entry("adalora", Some(2e-3), Some(5e-3)),
    entry("vera", Some(5e-3), Some(1e-2)),
    entry("loha", Some(1e-3), Some(5e-3)),
    entry("lokr", Some(2e-3), Some(5e-3)),
    entry("oft", Some(2e-3), Some(5e-3)),
    entry("boft", Some(2e-3), Some(5e-3)),
    entry("ia3", Some(1e-2), Some(2e-2)),
    entry("ln_tuning", Some(5e-3), Some(1e-2)),
    // Llama has no biases.
    entry("bitfit", None, Some(1e-2)),
    entry("houlsby", Some(1e-3), Some(2e-3)),
    entry("pfeiffer", Some(1e-3), Some(2e-3)),
    entry("parallel", Some(1e-3), Some(2e-3)),
    entry("compacter", Some(3e-3), Some(5e-3)),
    entry("prompt_tuning", Some(3e-2), Some(3e-2)),
    entry("p_tuning", Some(3e-3), Some(3e-3)),
    entry("prefix_tuning", Some(1e-2), Some(1e-2)),
    entry("full", Some(1e-4), Some(2e-4)),
    entry("full_top", Some(1e-4), Some(5e-4)),
];

impl Entry {
    pub(crate) fn learning_rate(&self, task: Task) -> Option<f64> {
        match task {
            Task::Generation => self.generation,
            Task::Classification => self.classification,
        }
    }
}

/// The names of the methods for `task`: those asked for, or all.
pub(crate) fn chosen(task: Task, asked: &[String]) -> Result<Vec<&'static str>> {
    let all = METHODS.iter().filter(|method| method.learning_rate(task).is_some());
    let names: Vec<&str> = all.map(|method| method.name).collect();
    if let Some(unknown) = asked.iter().find(|name| METHODS.iter().all(|method| method.name != *name)) {
        bail!("there is no method {unknown:?}; there are {}", names.join(", "));
    }
    Ok(names.into_iter().filter(|name| asked.is_empty() || asked.iter().any(|asked| asked == name)).collect())
}

/// What is done with a method, whichever it is.
pub(crate) trait Work {
    fn run<A: PeftModule>(self, adapter: A) -> Result<serde_json::Value>;
}

/// Makes the method called `name` for `model` and does the work with it. `total_steps` is for methods that plan ahead.
pub(crate) fn with_method(
    name: &str,
    task: Task,
    model: &dyn Model,
    total_steps: usize,
    work: impl Work,
) -> Result<serde_json::Value> {
    const SEED: u64 = 7;
    // The linear layers of the blocks, as PEFT's side names them.
    let linear = || {
        Targets::names(
            match task {
                Task::Generation => SEVEN.as_slice(),
                Task::Classification => SIX.as_slice(),
            }
            .iter()
            .copied(),
        )
    };
    let lora = || LoraConfig::new(linear()).with_rank(8).with_alpha(16.0);
    let bottleneck = |config: BottleneckConfig| {
        // As in AdapterHub, a classifier's head trains along.
        Bottleneck::new(model, config.with_head(task == Task::Classification), SEED)
    };
    match name {
        // A head on a frozen encoder: what every method has to beat.
        "head" => work.run(FullFineTune::only(model, Targets::names(["classifier"]))?),
        "lora" => work.run(Lora::new(model, lora(), SEED)?),
        "rslora" => work.run(Lora::new(model, lora().with_rank(32).with_rslora(true), SEED)?),
        "dora" => work.run(Lora::new(model, lora().with_dora(true), SEED)?),
        "pissa" => {
            let config = lora().with_alpha(8.0).with_init(InitLora::PissaFast(4));
            work.run(Lora::new(model, config, SEED)?)
        }
        "lora_plus" => work.run(Lora::new(model, lora().with_lora_plus(LoraPlus::new(16.0)), SEED)?),
        "adalora" => {
            let fifth = total_steps / 5;
            let config = AdaLoraConfig::new(linear(), total_steps).with_ranks(12, 8).with_alpha(32.0);
            work.run(AdaLora::new(model, config.with_warmup(fifth, fifth).with_interval(2), SEED)?)
        }
        "vera" => work.run(Vera::new(model, VeraConfig::new(linear()).with_rank(256), SEED)?),
        "loha" => work.run(Loha::new(model, LohaConfig::new(linear()).with_rank(8).with_alpha(16.0), SEED)?),
        "lokr" => work.run(Lokr::new(model, LokrConfig::new(linear()).with_rank(8).with_alpha(16.0), SEED)?),
        "oft" => work.run(Oft::new(model, OftConfig::new(linear()).with_block_size(32), SEED)?),
        "boft" => {
            // One factor: PEFT takes no more on the CPU.
            let config = BoftConfig::new(linear()).with_block_size(8).with_butterfly_factors(1);
            work.run(Boft::new(model, config, SEED)?)
        }
        "ia3" => {
            let (targets, feedforward) = match task {
                Task::Generation => (["k_proj", "v_proj", "down_proj"], "down_proj"),
                // PEFT's choice for BERT; it means attention's `output.dense` as well.
                Task::Classification => (["key", "value", "output.dense"], "output.dense"),
            };
            let config = Ia3Config::new(Targets::names(targets));
            let config = config.with_feedforward_modules(Targets::names([feedforward]));
            work.run(Ia3::new(model, config, SEED)?)
        }
        "ln_tuning" => {
            let norms = match task {
                Task::Generation => ["input_layernorm", "post_attention_layernorm", "norm"].as_slice(),
                Task::Classification => ["LayerNorm"].as_slice(),
            };
            work.run(LnTuning::new(model, LnTuningConfig::new(Targets::names(norms.iter().copied())), SEED)?)
        }
        "bitfit" => work.run(BitFit::new(model, BitFitConfig::every_bias(model)?, SEED)?),
        "houlsby" => work.run(bottleneck(BottleneckConfig::houlsby())?),
        "pfeiffer" => work.run(bottleneck(BottleneckConfig::pfeiffer())?),
        "parallel" => work.run(bottleneck(BottleneckConfig::parallel().with_reduction_factor(16.0))?),
        "compacter" => work.run(bottleneck(BottleneckConfig::compacter())?),
        "prompt_tuning" => work.run(PromptTuning::new(model, PromptTuningConfig::new(PROMPT), SEED)?),
        "p_tuning" => {
            let config = PTuningConfig::new(PROMPT).with_hidden_size(128);
            work.run(PTuning::new(model, config, SEED)?)
        }
        "prefix_tuning" => {
            // A random start breaks the model at first, and these runs are short.
            let config = PrefixTuningConfig::new(PROMPT).with_init(PrefixInit::Zero);
            work.run(PrefixTuning::new(model, config, SEED)?)
        }
        "full" => work.run(FullFineTune::new(model)),
        // The last blocks alone, as one would do by hand.
        "full_top" => {
            let last = model.num_blocks() - 1;
            let top = match task {
                Task::Generation => format!(r"model\.layers\.({}|{last})\..*|model\.norm", last - 1),
                Task::Classification => {
                    format!(r"bert\.encoder\.layer\.{last}\..*|bert\.pooler.*|classifier")
                }
            };
            work.run(FullFineTune::only(model, Targets::Regex(top))?)
        }
        _ => bail!("there is no method {name:?} for {}", task.name()),
    }
}

/// Virtual tokens.
const PROMPT: usize = 20;
const SEVEN: [&str; 7] = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"];
const SIX: [&str; 6] =
    ["query", "key", "value", "attention.output.dense", "intermediate.dense", "output.dense"];
