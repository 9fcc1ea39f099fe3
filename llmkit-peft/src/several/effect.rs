use std::collections::HashMap;
use std::fmt;

use llmkit_core::models::Model;
use llmkit_core::nn::Layer;

use crate::Method;

/// A place in a transformer where a method may act.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Place<'a> {
    /// The linear layer, embedding or norm of this path.
    Layer(&'a str),
    /// Where sublayers join the residual stream: [`Adapter::join`](llmkit_core::Adapter::join).
    Join,
    /// In front of the embedded sequence: [`Adapter::prompt`](llmkit_core::Adapter::prompt).
    Prompt,
    /// In front of every layer's keys and values: [`Adapter::prefix`](llmkit_core::Adapter::prefix).
    Prefix,
}

/// What a method does in a place. It decides with what other methods it can act together.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Effect {
    /// Nothing: the base model's computation stands.
    Nothing,
    /// It adds to what the base computes, whatever others add.
    Adds,
    /// It computes something else in the base's stead.
    Replaces,
}

impl fmt::Display for Place<'_> {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Layer(path) => write!(formatter, "`{path}`"),
            Self::Join => formatter.write_str("the ends of sublayers"),
            Self::Prompt => formatter.write_str("the beginning of the sequence"),
            Self::Prefix => formatter.write_str("the beginning of keys and values"),
        }
    }
}

/// Which of several methods act where.
#[derive(Debug, Clone)]
pub(super) struct Acting {
    layers: HashMap<String, Vec<usize>>,
    pub(super) join: Vec<usize>,
    pub(super) prompt: Vec<usize>,
    pub(super) prefix: Vec<usize>,
    /// Paths of the norms on which any acts.
    pub(super) norms: Vec<String>,
    /// The path of the table of the tokens' vectors.
    pub(super) words: Option<String>,
}

impl Acting {
    pub(super) fn new<'m>(model: &dyn Model, methods: impl Iterator<Item = &'m dyn Method> + Clone) -> Self {
        let act = |place: Place<'_>| {
            let effects = methods.clone().map(move |method| method.effect(place)).enumerate();
            effects
                .filter(|(_, effect)| *effect != Effect::Nothing)
                .map(|(index, _)| index)
                .collect::<Vec<_>>()
        };
        let mut layers = HashMap::new();
        let mut norms = Vec::new();
        let mut words = None;
        model.visit(&mut |layer| {
            if let Layer::Embedding(embedding) = layer {
                // It is the first; positions and types come after it.
                words.get_or_insert_with(|| embedding.path().to_owned());
            }
            let acting = act(Place::Layer(layer.path()));
            if !acting.is_empty() {
                if matches!(layer, Layer::Norm(_)) {
                    norms.push(layer.path().to_owned());
                }
                layers.insert(layer.path().to_owned(), acting);
            }
        });
        let [join, prompt, prefix] = [Place::Join, Place::Prompt, Place::Prefix].map(act);
        Self { layers, join, prompt, prefix, norms, words }
    }

    /// The methods that act on the layer called `path`, in their order.
    pub(super) fn on(&self, path: &str) -> &[usize] {
        self.layers.get(path).map_or(&[], Vec::as_slice)
    }

    pub(super) fn layers(&self) -> impl Iterator<Item = (&str, &[usize])> {
        self.layers.iter().map(|(path, acting)| (path.as_str(), acting.as_slice()))
    }
}
