use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;

use burn::tensor::Device;
use serde_json::Value;

use super::bert::{Bert, BertConfig};
use super::distilbert::{DISTILBERT_NORM, DistilBertConfig, load_distilbert};
use super::encoder_config::labels;
use super::heads::{MaskedLm, Pooling, SequenceClassifier, TokenClassifier, Transform};
use super::modernbert::{ModernBert, ModernBertConfig};
use super::{ConfigReader, Encoder};
use crate::checkpoint::{Checkpoint, TensorInfo, TensorSource};
use crate::nn::{Activation, Embedding, Linear, NormConfig, Weights};
use crate::{Error, Result};

/// Builds the encoder that `checkpoint` holds on `device`, in `f32`: BERT, RoBERTa, XLM-RoBERTa, CamemBERT, DistilBERT or ModernBERT. If
/// the checkpoint has a head, it is left aside.
///
/// # Errors
/// [`Error::UnsupportedArchitecture`], [`Error::Config`], or [`Error::Tensors`] naming every tensor that does not fit.
pub fn load_encoder(checkpoint: &Checkpoint, device: &Device) -> Result<Arc<dyn Encoder>> {
    let plan = Plan::read(checkpoint)?;
    Weights::load(&plan.source, device, |weights| {
        if let Some(prefix) = plan.prefix {
            let names = plan.source.names();
            let below = |name: &str| name.strip_prefix(prefix).is_some_and(|rest| rest.starts_with('.'));
            names.iter().filter(|name| !below(name)).for_each(|name| weights.ignore(name));
        }
        plan.encoder(weights)
    })
}

/// Builds the encoder and masked-language head that `checkpoint` holds on `device`, in `f32`. The next-sentence head that BERT's first
/// checkpoints have beside it is left aside.
///
/// # Errors
/// As [`load_encoder`].
pub fn load_masked_lm(checkpoint: &Checkpoint, device: &Device) -> Result<MaskedLm> {
    let plan = Plan::read(checkpoint)?;
    let tied = plan.config.flag_or("tie_word_embeddings", true)?;
    Weights::load(&plan.source, device, |weights| {
        for name in ["weight", "bias"] {
            weights.at("cls.seq_relationship").ignore(name);
        }
        let encoder = plan.encoder(weights);
        let (transform, decoder) = plan.masked_lm(weights, encoder.word_embeddings(), tied);
        MaskedLm { encoder, transform, decoder, tied, config: plan.raw.clone() }
    })
}

/// Builds the encoder and sequence classifier that `checkpoint` holds on `device`, in `f32`.
///
/// # Errors
/// As [`load_encoder`].
pub fn load_sequence_classifier(checkpoint: &Checkpoint, device: &Device) -> Result<SequenceClassifier> {
    let plan = Plan::read(checkpoint)?;
    let labels = labels(plan.config, plan.raw)?;
    Weights::load(&plan.source, device, |weights| {
        let encoder = plan.encoder(weights);
        let (pooling, output) = plan.sequence_classifier(weights, labels.len());
        SequenceClassifier { encoder, pooling, output, labels, config: plan.raw.clone() }
    })
}

/// Builds the encoder and token classifier that `checkpoint` holds on `device`, in `f32`.
///
/// # Errors
/// As [`load_encoder`].
pub fn load_token_classifier(checkpoint: &Checkpoint, device: &Device) -> Result<TokenClassifier> {
    let plan = Plan::read(checkpoint)?;
    let labels = labels(plan.config, plan.raw)?;
    Weights::load(&plan.source, device, |weights| {
        let encoder = plan.encoder(weights);
        let transform = match &plan.family {
            Family::ModernBert(config) => Some(modernbert_transform(weights, config)),
            _ => None,
        };
        let output = Linear::load(&weights.at("classifier"), encoder.hidden_size(), labels.len(), true);
        TokenClassifier { encoder, transform, output, labels }
    })
}

/// What a checkpoint says that it holds.
struct Plan<'a> {
    family: Family,
    /// Where the encoder's tensors stand: below this name, or at the root.
    prefix: Option<&'static str>,
    config: ConfigReader<'a>,
    raw: &'a Value,
    source: Modern<'a>,
}

enum Family {
    Bert(BertConfig),
    Roberta(BertConfig),
    DistilBert(DistilBertConfig),
    ModernBert(ModernBertConfig),
}

/// The models by the name before `Model` or `For..` in an architecture, and by `model_type`.
const MODELS: [(&str, &str); 6] = [
    ("Bert", "bert"),
    ("Roberta", "roberta"),
    ("XLMRoberta", "xlm-roberta"),
    ("Camembert", "camembert"),
    ("DistilBert", "distilbert"),
    ("ModernBert", "modernbert"),
];

impl<'a> Plan<'a> {
    fn read(checkpoint: &'a Checkpoint) -> Result<Self> {
        let (path, raw) = (checkpoint.path(), checkpoint.config());
        let config = ConfigReader::new(path, raw);
        let source = Modern::new(checkpoint.source());
        let kind = model_type(path, raw)?;

        // Before anything is made for each layer that a hostile file may claim.
        let depth = if kind == "distilbert" { "n_layers" } else { "num_hidden_layers" };
        let (layers, tensors) = (config.size(depth)?, source.names().len());
        if layers > tensors {
            let expected = format!("at most the number of tensors in the checkpoint ({tensors})");
            return Err(config.wrong(depth, &expected, &layers));
        }
        let (family, prefix) = match kind {
            "bert" => (Family::Bert(BertConfig::read(config)?), "bert"),
            "distilbert" => (Family::DistilBert(DistilBertConfig::read(config)?), "distilbert"),
            "modernbert" => (Family::ModernBert(ModernBertConfig::read(config, raw)?), "model"),
            _ => (Family::Roberta(BertConfig::read_roberta(config)?), "roberta"),
        };
        let table = match family {
            Family::ModernBert(_) => "embeddings.tok_embeddings.weight",
            _ => "embeddings.word_embeddings.weight",
        };
        let prefix = source.info(&format!("{prefix}.{table}")).is_some().then_some(prefix);
        Ok(Self { family, prefix, config, raw, source })
    }

    fn encoder(&self, weights: &Weights<'_>) -> Arc<dyn Encoder> {
        let weights = &self.body(weights);
        match &self.family {
            Family::Bert(config) | Family::Roberta(config) => {
                Arc::new(Bert::load(weights, config, self.raw.clone()))
            }
            Family::DistilBert(config) => Arc::new(load_distilbert(weights, config, self.raw.clone())),
            Family::ModernBert(config) => Arc::new(ModernBert::load(weights, config, self.raw.clone())),
        }
    }

    /// The place of the encoder's tensors.
    fn body<'w>(&self, weights: &Weights<'w>) -> Weights<'w> {
        match self.prefix {
            Some(prefix) => weights.at(prefix),
            None => weights.clone(),
        }
    }

    fn masked_lm(&self, weights: &Weights<'_>, table: &Embedding, tied: bool) -> (Transform, Linear) {
        let [vocab_size, width] = table.weight.dims();
        let (transform, decoder, own_bias, has_bias) = match &self.family {
            Family::Bert(config) => {
                let head = weights.at("cls.predictions");
                let at = head.at("transform");
                let transform = Transform::load(&at.at("dense"), width, true, config.hidden_act)
                    .with_norm(&at.at("LayerNorm"), NormConfig::layer(config.layer_norm_eps));
                (transform, head.at("decoder"), Some(head), true)
            }
            Family::Roberta(config) => {
                let head = weights.at("lm_head");
                let transform = Transform::load(&head.at("dense"), width, true, Activation::Gelu)
                    .with_norm(&head.at("layer_norm"), NormConfig::layer(config.layer_norm_eps));
                (transform, head.at("decoder"), Some(head), true)
            }
            Family::DistilBert(config) => {
                let transform =
                    Transform::load(&weights.at("vocab_transform"), width, true, config.activation)
                        .with_norm(&weights.at("vocab_layer_norm"), DISTILBERT_NORM);
                (transform, weights.at("vocab_projector"), None, true)
            }
            Family::ModernBert(config) => {
                let transform = modernbert_transform(weights, config);
                (transform, weights.at("decoder"), None, config.decoder_bias)
            }
        };
        let mut output = if tied {
            // Some writers store the tied weight a second time.
            decoder.ignore("weight");
            table.tied_head(decoder.path())
        } else {
            Linear::load(&decoder, width, vocab_size, false)
        };
        // Tied models take the bias that stands beside the decoder, untied ones the decoder's own, where the file has both.
        let bias = match own_bias {
            Some(own) if own.contains("bias") && (tied || !decoder.contains("bias")) => {
                decoder.ignore("bias");
                own
            }
            own => {
                if let Some(own) = own {
                    own.ignore("bias");
                }
                decoder
            }
        };
        output.bias = has_bias.then(|| bias.tensor("bias", [vocab_size]));
        (transform, output)
    }

    fn sequence_classifier(&self, weights: &Weights<'_>, num_labels: usize) -> (Pooling, Linear) {
        let classifier = weights.at("classifier");
        let output = |at: &Weights<'_>, width| Linear::load(at, width, num_labels, true);
        match &self.family {
            Family::Bert(config) => {
                let pooler = self.body(weights).at("pooler.dense");
                if !pooler.contains("weight") {
                    // So that it is named as missing.
                    Linear::load(&pooler, config.hidden_size, config.hidden_size, true);
                }
                (Pooling::Pooler, output(&classifier, config.hidden_size))
            }
            Family::Roberta(config) => {
                let width = config.hidden_size;
                let transform = Transform::load(&classifier.at("dense"), width, true, Activation::Tanh);
                (Pooling::First(transform), output(&classifier.at("out_proj"), width))
            }
            Family::DistilBert(config) => {
                let at = weights.at("pre_classifier");
                let transform = Transform::load(&at, config.dim, true, Activation::Relu);
                (Pooling::First(transform), output(&classifier, config.dim))
            }
            Family::ModernBert(config) => {
                let transform = modernbert_transform(weights, config);
                let pooling =
                    if config.classifier_mean { Pooling::Mean(transform) } else { Pooling::First(transform) };
                (pooling, output(&classifier, config.hidden_size))
            }
        }
    }
}

fn modernbert_transform(weights: &Weights<'_>, config: &ModernBertConfig) -> Transform {
    let head = weights.at("head");
    let (width, activation) = (config.hidden_size, config.classifier_activation);
    Transform::load(&head.at("dense"), width, config.classifier_bias, activation)
        .with_norm(&head.at("norm"), config.norm())
}

/// The `model_type` of a configuration: that of its architecture, or what it says itself.
pub(super) fn model_type(path: &Path, raw: &Value) -> Result<&'static str> {
    let architecture = raw["architectures"][0].as_str();
    let named = raw["model_type"].as_str();
    let by_architecture = |name: &str| {
        MODELS.iter().find(|(model, _)| {
            name.strip_prefix(model)
                .is_some_and(|rest| rest == "Model" || (rest.starts_with("For") && rest != "ForCausalLM"))
        })
    };
    let found = match (architecture, named) {
        (Some(architecture), _) => by_architecture(architecture),
        (None, named) => MODELS.iter().find(|(_, model_type)| Some(*model_type) == named),
    };
    found.map(|(_, model_type)| *model_type).ok_or_else(|| Error::UnsupportedArchitecture {
        path: path.to_path_buf(),
        found: architecture.or(named).unwrap_or("(none named)").to_owned(),
        supported: MODELS.iter().map(|(model, _)| format!("{model}Model and {model}For..")).collect(),
    })
}

/// A checkpoint under today's names: the first BERT files call a normalisation's weight and bias `gamma` and `beta`.
struct Modern<'a> {
    inner: &'a dyn TensorSource,
    /// From today's names to the file's, where they differ.
    old: BTreeMap<String, String>,
}

impl<'a> Modern<'a> {
    fn new(inner: &'a dyn TensorSource) -> Self {
        let mut old = BTreeMap::new();
        for name in inner.names() {
            for (before, now) in
                [("LayerNorm.gamma", "LayerNorm.weight"), ("LayerNorm.beta", "LayerNorm.bias")]
            {
                if let Some(place) = name.strip_suffix(before) {
                    let now = format!("{place}{now}");
                    // A file that has both keeps its old one as left over.
                    if inner.info(&now).is_none() {
                        old.insert(now, name.clone());
                    }
                }
            }
        }
        Self { inner, old }
    }

    fn stored<'n>(&'n self, name: &'n str) -> &'n str {
        self.old.get(name).map_or(name, String::as_str)
    }
}

impl TensorSource for Modern<'_> {
    fn path(&self) -> &Path {
        self.inner.path()
    }

    fn names(&self) -> Vec<String> {
        let renamed: BTreeSet<_> = self.old.values().collect();
        let kept = self.inner.names().into_iter().filter(|name| !renamed.contains(name));
        let mut names: Vec<_> = kept.chain(self.old.keys().cloned()).collect();
        names.sort();
        names
    }

    fn info(&self, name: &str) -> Option<TensorInfo> {
        self.inner.info(self.stored(name))
    }

    fn read_f32(&self, name: &str) -> Result<Vec<f32>> {
        self.inner.read_f32(self.stored(name))
    }
}
