use std::path::Path;
use std::sync::Arc;

use burn::tensor::{Device, Tensor, TensorData};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde_json::{Map, Value, json};

use super::{Pooling, SequenceClassifier, Transform};
use crate::models::auto_encoder::model_type;
use crate::models::modernbert::ModernBertConfig;
use crate::models::{ConfigReader, Encoder};
use crate::nn::{Activation, Linear, Norm};
use crate::{Error, Result};

/// What errors call the origin of a configuration that is no file.
const ORIGIN: &str = "(the encoder's configuration)";

impl SequenceClassifier {
    /// A classifier for `labels` on an encoder that has no head yet: the layers that `AutoModelForSequenceClassification` adds to such a
    /// checkpoint, drawn from the same distributions, from `seed`. One label makes a model that gives a number.
    ///
    /// The encoder's layers take the names that they have in a classifier (`bert.encoder.layer.0..`), so that an adapter's file made here
    /// fits transformers' model and the other way round. BERT's own pooler is kept where there is one; what is fresh must train: the
    /// classifier does so by itself under a fine-tuning method, and a fresh pooler or transform if it is named in
    /// `modules_to_save` as well ([`fresh_layers`](Self::fresh_layers) names all).
    ///
    /// # Errors
    /// [`Error::UnsupportedArchitecture`] if transformers has no such classifier; [`Error::Config`] if there is no label, or one twice.
    pub fn fresh(encoder: Arc<dyn Encoder>, labels: &[impl AsRef<str>], seed: u64) -> Result<Self> {
        let origin = Path::new(ORIGIN);
        let labels: Vec<String> = labels.iter().map(|label| label.as_ref().to_owned()).collect();
        let config = with_labels(origin, encoder.config(), &labels)?;
        let mut fresh = Fresh {
            rng: ChaCha8Rng::seed_from_u64(seed),
            std: encoder.config()["initializer_range"].as_f64().unwrap_or(0.02),
            cut: f64::INFINITY,
            device: encoder.device(),
        };
        let (width, count) = (encoder.hidden_size(), labels.len());
        match model_type(origin, encoder.config())? {
            "bert" => {
                let encoder = below("bert", encoder);
                let pooling = match has_pooler(encoder.as_ref()) {
                    true => Pooling::Pooler,
                    // What the pooler does, in its place.
                    false => {
                        let dense = fresh.linear("bert.pooler.dense", width, width, true);
                        Pooling::First(Transform::new(dense, Activation::Tanh, None))
                    }
                };
                let output = fresh.linear("classifier", width, count, true);
                Ok(Self { encoder, pooling, output, labels, config })
            }
            "distilbert" => {
                let dense = fresh.linear("pre_classifier", width, width, true);
                let pooling = Pooling::First(Transform::new(dense, Activation::Relu, None));
                let output = fresh.linear("classifier", width, count, true);
                Ok(Self { encoder: below("distilbert", encoder), pooling, output, labels, config })
            }
            "modernbert" => {
                let read =
                    ModernBertConfig::read(ConfigReader::new(origin, encoder.config()), encoder.config())?;
                let cut = encoder.config()["initializer_cutoff_factor"].as_f64().unwrap_or(3.0);
                let range = fresh.std;
                fresh.cut = cut;
                fresh.std = range / (2.0 * encoder.num_blocks() as f64).sqrt();
                let dense = fresh.linear("head.dense", width, width, read.classifier_bias);
                let norm = Norm::new(
                    "head.norm",
                    Tensor::ones([width], &fresh.device),
                    read.norm_bias.then(|| Tensor::zeros([width], &fresh.device)),
                    read.norm(),
                );
                let transform = Transform::new(dense, read.classifier_activation, Some(norm));
                fresh.std = (width as f64).powf(-0.5);
                let output = fresh.linear("classifier", width, count, true);
                let pooling =
                    if read.classifier_mean { Pooling::Mean(transform) } else { Pooling::First(transform) };
                Ok(Self { encoder: below("model", encoder), pooling, output, labels, config })
            }
            // RoBERTa and its kin.
            _ => {
                let dense = fresh.linear("classifier.dense", width, width, true);
                let pooling = Pooling::First(Transform::new(dense, Activation::Tanh, None));
                let output = fresh.linear("classifier.out_proj", width, count, true);
                let encoder = below("roberta", encoder.without_pooler());
                Ok(Self { encoder, pooling, output, labels, config })
            }
        }
    }

    /// The layers of the head, which a classifier made by [`fresh`](Self::fresh) must learn.
    pub fn fresh_layers(&self) -> Vec<String> {
        let mut layers = Vec::new();
        if let Pooling::First(transform) | Pooling::Mean(transform) = &self.pooling {
            transform.visit(&mut |layer| layers.push(layer.path().to_owned()));
        }
        layers.push(self.output.path().to_owned());
        layers
    }
}

/// The configuration of a classifier of `labels`.
fn with_labels(origin: &Path, encoder: &Value, labels: &[String]) -> Result<Value> {
    let wrong = |found: String| Error::Config {
        path: origin.to_path_buf(),
        field: "id2label".into(),
        expected: "one label or more, each once".into(),
        found,
    };
    if labels.is_empty() {
        return Err(wrong("none".into()));
    }
    let mut config = encoder.clone();
    let names = labels.iter().enumerate().map(|(index, label)| (index.to_string(), json!(label)));
    let ids: Map<_, _> =
        labels.iter().enumerate().map(|(index, label)| (label.clone(), json!(index))).collect();
    if ids.len() < labels.len() {
        return Err(wrong(format!("{labels:?}")));
    }
    config["id2label"] = names.collect::<Map<_, _>>().into();
    config["label2id"] = ids.into();
    if config.get("num_labels").is_some() {
        config["num_labels"] = labels.len().into();
    }
    let class = encoder["architectures"][0].as_str().map(|class| match class.find("For") {
        Some(end) => &class[..end],
        None => class.strip_suffix("Model").unwrap_or(class),
    });
    if let Some(class) = class {
        config["architectures"] = json!([format!("{class}ForSequenceClassification")]);
    }
    Ok(config)
}

/// The encoder under the names of a model in which it stands at `place`.
fn below(place: &str, encoder: Arc<dyn Encoder>) -> Arc<dyn Encoder> {
    let path = encoder.word_embeddings().path();
    if path.strip_prefix(place).is_some_and(|rest| rest.starts_with('.')) {
        return encoder;
    }
    encoder.with_layers(&mut |layer| {
        layer.move_below(place);
        true
    })
}

fn has_pooler(encoder: &dyn Encoder) -> bool {
    let mut found = false;
    encoder.visit(&mut |layer| found |= layer.path().ends_with("pooler.dense"));
    found
}

/// Draws layers as transformers initialises them.
struct Fresh {
    rng: ChaCha8Rng,
    /// The standard deviation of the weights.
    std: f64,
    /// The largest weight, in standard deviations.
    cut: f64,
    device: Device,
}

impl Fresh {
    fn linear(&mut self, path: &str, d_input: usize, d_output: usize, bias: bool) -> Linear {
        let weight: Vec<f32> = (0..d_input * d_output).map(|_| (self.std * self.normal()) as f32).collect();
        let weight = Tensor::from_data(TensorData::new(weight, [d_output, d_input]), &self.device);
        Linear::new(path, weight, bias.then(|| Tensor::zeros([d_output], &self.device)))
    }

    /// Box and Muller's method (1958), drawn again where it goes beyond the cut.
    fn normal(&mut self) -> f64 {
        loop {
            let radius = (-2.0 * (1.0 - self.rng.random::<f64>()).ln()).sqrt();
            let value = radius * (std::f64::consts::TAU * self.rng.random::<f64>()).cos();
            if value.abs() <= self.cut.max(1.0) {
                return value;
            }
        }
    }
}
