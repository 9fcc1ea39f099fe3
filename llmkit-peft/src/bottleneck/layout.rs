use llmkit_core::models::Model;
use llmkit_core::nn::Layer;
use llmkit_core::{Site, Sublayer};
use serde_json::Value;

/// Where AdapterHub's model of an architecture keeps its bottlenecks.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) struct Layout {
    /// What the names of all layers but the head's start with, in a model that has a head.
    base: &'static str,
    /// What the names of those layers start with behind it.
    roots: &'static [&'static str],
    blocks: &'static str,
    attention: &'static str,
    mlp: &'static str,
    /// What the architecture's classes are called before `Model` or `For..`.
    pub(super) family: Option<&'static str>,
}

const BERT: Layout = Layout {
    base: "bert.",
    roots: &["embeddings.", "encoder.", "pooler."],
    blocks: "encoder.layer",
    attention: "attention.output.adapters",
    mlp: "output.adapters",
    family: Some("Bert"),
};

const DISTILBERT: Layout = Layout {
    base: "distilbert.",
    roots: &["embeddings.", "transformer."],
    blocks: "transformer.layer",
    attention: "attention_adapters.adapters",
    mlp: "output_adapters.adapters",
    family: Some("DistilBert"),
};

/// Llama, Mistral, and what AdapterHub's model interface makes of others with layers of the same names.
const DECODER: Layout = Layout {
    base: "model.",
    roots: &["embed_tokens.", "embeddings.", "layers.", "norm.", "final_norm."],
    blocks: "layers",
    attention: "attention_adapters.adapters",
    mlp: "output_adapters.adapters",
    family: None,
};

impl Layout {
    pub(super) fn of(model: &dyn Model) -> Self {
        match model_type(model.config()) {
            "bert" => BERT,
            "roberta" => Self { base: "roberta.", family: Some("Roberta"), ..BERT },
            "xlm-roberta" => Self { base: "roberta.", family: Some("XLMRoberta"), ..BERT },
            "camembert" => Self { base: "roberta.", family: Some("Camembert"), ..BERT },
            "distilbert" => DISTILBERT,
            "modernbert" => Self { family: Some("ModernBert"), ..DECODER },
            _ => DECODER,
        }
    }

    /// The prefix of the model's own names.
    pub(super) fn prefix_of_model(&self, model: &dyn Model) -> &'static str {
        let mut prefixed = false;
        model.visit(&mut |layer| prefixed |= layer.path().starts_with(self.base));
        if prefixed { self.base } else { "" }
    }

    /// The prefix of a file's names.
    pub(super) fn prefix_of_file(&self, names: &[String]) -> &'static str {
        if names.iter().any(|name| name.starts_with(self.base)) { self.base } else { "" }
    }

    /// The name of a bottleneck's module.
    pub(super) fn module(&self, site: Site, adapter: &str) -> String {
        let at = match site.sublayer {
            Sublayer::Attention => self.attention,
            Sublayer::Mlp => self.mlp,
        };
        format!("{}.{}.{at}.{adapter}.", self.blocks, site.layer)
    }

    /// The paths of the layers of the model's head.
    pub(super) fn head(&self, model: &dyn Model) -> Vec<String> {
        let mut paths = Vec::new();
        if model.head_path().is_some() {
            model.visit(&mut |layer| {
                let path = layer.path();
                let of_base =
                    path.starts_with(self.base) || self.roots.iter().any(|root| path.starts_with(root));
                if !of_base {
                    paths.push(path.to_owned());
                }
            });
        }
        paths
    }
}

/// The width of the residual stream: that of the vectors that the first embedding gives.
pub(super) fn hidden_size(model: &dyn Model) -> usize {
    let mut width = None;
    model.visit(&mut |layer| {
        if let Layer::Embedding(embedding) = layer {
            width.get_or_insert(embedding.weight.dims()[1]);
        }
    });
    width.expect("every model embeds its tokens")
}

/// What the configuration calls the architecture. The first configurations of BERT only name a class.
pub(super) fn model_type(config: &Value) -> &str {
    let class = config["architectures"][0].as_str().unwrap_or_default();
    config["model_type"].as_str().unwrap_or(if class.starts_with("Bert") { "bert" } else { "" })
}
