mod config;
mod file;
mod head;
mod layer;
mod layout;
mod non_linearity;
mod phm;
mod state;

use std::collections::HashMap;
use std::path::Path;

use burn::module::{Module, ParamId};
use burn::tensor::{Int, Tensor};
use llmkit_core::models::Model;
use llmkit_core::nn::{Embedding, Layer, LayerMut, Linear, Norm};
use llmkit_core::{Adapter, Site, Sublayer};
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

pub use config::{AdapterResidual, BottleneckConfig, InitBottleneck, ReductionFactor, Scaling};
pub use non_linearity::NonLinearity;
pub use phm::{InitPhm, PhmConfig};

use crate::dropout::derive;
use crate::{Dropout, Effect, Error, Method, PeftModule, Place, Result, SavedLayers};
use file::HubFile;
use layer::{BottleneckLayer, Join};
use layout::{Layout, hidden_size};
use phm::SharedPhm;
use state::{Take, Wanted};

/// Bottleneck adapters (Houlsby et al. 2019, <https://arxiv.org/abs/1902.00751>): small networks after the sublayers of a transformer or
/// beside them, `h + scale * up(f(down(h)))`, in AdapterHub's forms and files.
///
/// They act where a sublayer's output joins the residual stream, so they attach to every model. The files are those of the Python library
/// `adapters`, both ways (load ours there with `use_safetensors=True`): for BERT, RoBERTa, XLM-RoBERTa, DistilBERT, Llama and Mistral as
/// they are, for Qwen2 and Qwen3 with the `adapter_interface.json` that is written along, and for other decoders with an interface of
/// one's own. In Gemma 3 and other models that normalise a sublayer's output before it joins, the bottleneck acts behind that
/// normalisation, which AdapterHub's hooks can't.
///
/// With [`BottleneckConfig::train_head`] the model's head trains along and is saved as AdapterHub's prediction head.
///
/// ```
/// # use llmkit_core::checkpoint::Checkpoint;
/// # use llmkit_core::models::load_sequence_classifier;
/// # use llmkit_core::Device;
/// use llmkit_peft::{Bottleneck, BottleneckConfig, Method};
///
/// # fn main() -> Result<(), Box<dyn std::error::Error>> {
/// # let folder = concat!(env!("CARGO_MANIFEST_DIR"), "/../llmkit-core/tests/fixtures/encoders/bert-sequence");
/// # let out = tempfile::tempdir()?;
/// # let out = out.path();
/// let model = load_sequence_classifier(&Checkpoint::open(folder)?, &Device::Auto.resolve()?)?;
/// let config = BottleneckConfig::pfeiffer().with_reduction_factor(4.0).with_head(true);
/// let adapter = Bottleneck::new(&model, config, 0)?.with_name("weather")?;
/// adapter.save(out)?;
/// assert_eq!(Bottleneck::load(&model, out)?.name(), "weather");
/// # Ok(())
/// # }
/// ```
#[derive(Module, Debug)]
pub struct Bottleneck {
    layers: Vec<BottleneckLayer>,
    shared: SharedPhm,
    head: SavedLayers,
    #[module(skip)]
    places: HashMap<Site, usize>,
    #[module(skip)]
    config: BottleneckConfig,
    #[module(skip)]
    hub: HubFile,
    #[module(skip)]
    dropout_seed: Option<u64>,
}

impl Bottleneck {
    /// A fresh adapter for `model`, on the model's device. `seed` fixes what is drawn.
    ///
    /// # Errors
    /// [`Error::Config`] for impossible numbers and fields that don't go together, and if the head is to train and there is none, or it is
    /// tied to the embedding.
    pub fn new(model: &dyn Model, config: BottleneckConfig, seed: u64) -> Result<Self> {
        let origin = Path::new("(the program's configuration)");
        let hub = HubFile::fresh(model, Layout::of(model), config.train_head);
        let plan = Plan::new(model, config, hub, origin)?;
        let values = plan.sample(seed);
        let bottleneck = plan.build(model, values)?;
        if bottleneck.config.train_head && model.is_tied() {
            return Err(Error::Config {
                origin: origin.into(),
                field: "train_head".into(),
                expected: "false where the head is the embedding's own tensor".into(),
                found: "true".into(),
            });
        }
        Ok(bottleneck)
    }

    /// How the adapter is shaped.
    pub fn config(&self) -> &BottleneckConfig {
        &self.config
    }

    /// Where there are bottlenecks, in the model's order.
    pub fn sites(&self) -> impl Iterator<Item = Site> {
        self.layers.iter().map(|layer| layer.site)
    }

    /// A tied head that trained would have changed the embedding in Python; one that is the embedding's own values is as good as none.
    fn refuse_a_tied_head(&self, model: &dyn Model, origin: &Path) -> Result<()> {
        if !model.is_tied() {
            return Ok(());
        }
        let mut same = true;
        model.visit(&mut |layer| {
            if let Layer::Linear(linear) = layer
                && self.head.contains(linear.path())
            {
                let identity = |layer: &Linear, input| layer.forward(input);
                let width = linear.d_input();
                let probe: Tensor<3> = Tensor::eye(width, &linear.weight.device()).unsqueeze();
                let difference = self.head.linear(linear, probe.clone()) - identity(linear, probe);
                same &= difference.abs().max().into_scalar::<f32>() == 0.0;
            }
        });
        match same {
            true => Ok(()),
            false => Err(Error::Config {
                origin: origin.into(),
                field: "model_class".into(),
                expected: "a head of its own (this model's head is its embedding; `load_without_head` leaves it aside)".into(),
                found: "a trained head".into(),
            }),
        }
    }
}

/// What a bottleneck adapter for a model consists of, before its tensors exist.
struct Plan {
    config: BottleneckConfig,
    hub: HubFile,
    sites: Vec<(Site, Vec<Wanted>)>,
    shared: Vec<Wanted>,
    head: Vec<String>,
}

impl Plan {
    fn new(model: &dyn Model, config: BottleneckConfig, hub: HubFile, origin: &Path) -> Result<Self> {
        config.validate(origin)?;
        let wrong = |field: &str, expected: String, found: String| {
            Err(Error::Config { origin: origin.into(), field: field.into(), expected, found })
        };
        let hidden = hidden_size(model);
        let (mut sites, mut widths) = (Vec::new(), Vec::new());
        for block in (0..model.num_blocks()).filter(|block| !config.leave_out.contains(block)) {
            let width = config.width(block, hidden, origin)?;
            let places = [(config.mh_adapter, Sublayer::Attention), (config.output_adapter, Sublayer::Mlp)];
            for (_, sublayer) in places.into_iter().filter(|(has, _)| *has) {
                sites.push((Site { layer: block, sublayer }, layer::wanted(&config, hidden, width)));
            }
            widths.push(width);
        }
        let Some(&width) = widths.first() else {
            let expected = format!("some of the model's {} blocks", model.num_blocks());
            return wrong("leave_out", format!("{expected} not named"), format!("{:?}", config.leave_out));
        };
        if config.phm.phm_layer && config.phm.shared_w_phm && widths.iter().any(|other| *other != width) {
            let expected = "one for all blocks where shared_W_phm is true".into();
            return wrong("reduction_factor", expected, format!("bottlenecks of widths {widths:?}"));
        }
        let shared = config.phm.wanted_shared(hidden, width);
        let head = if config.train_head { Layout::of(model).head(model) } else { Vec::new() };
        if config.train_head && head.is_empty() {
            let expected = "a model with a head, such as a sequence classifier";
            return wrong("train_head", expected.into(), "a model without one".into());
        }
        Ok(Self { config, hub, sites, shared, head })
    }

    /// Fresh values, for each site and for what they share.
    fn sample(&self, seed: u64) -> Vec<HashMap<String, (Vec<usize>, Vec<f32>)>> {
        let draw = |wanted: &[Wanted], mut rng: ChaCha8Rng| {
            wanted
                .iter()
                .map(|wanted| (wanted.name.clone(), (wanted.shape.clone(), wanted.sample(&mut rng))))
                .collect()
        };
        let rng = |part: u64| {
            let seed = self.config.init_weights_seed.unwrap_or_else(|| derive(seed, part));
            ChaCha8Rng::seed_from_u64(seed)
        };
        let sites = self.sites.iter().map(|(site, wanted)| {
            let half = u64::from(site.sublayer == Sublayer::Mlp);
            draw(wanted, rng(2 * site.layer as u64 + half + 1))
        });
        sites.chain([draw(&self.shared, rng(0))]).collect()
    }

    /// Makes the adapter of its values.
    fn build(
        self,
        model: &dyn Model,
        mut values: Vec<HashMap<String, (Vec<usize>, Vec<f32>)>>,
    ) -> Result<Bottleneck> {
        let device = model.device();
        let shared = values.pop().expect("what is shared comes last");
        let shared = SharedPhm::take(&self.config.phm, &mut Take { values: shared, device: &device });
        let layers: Vec<_> = self
            .sites
            .iter()
            .zip(values)
            .map(|((site, _), values)| {
                BottleneckLayer::take(&self.config, &mut Take { values, device: &device }, *site)
            })
            .collect();
        let places = layers.iter().enumerate().map(|(index, layer)| (layer.site, index)).collect();
        let head = SavedLayers::new(model, &self.head)?;
        Ok(Bottleneck {
            layers,
            shared,
            head,
            places,
            config: self.config,
            hub: self.hub,
            dropout_seed: None,
        })
    }
}

impl Adapter for Bottleneck {
    fn embed(&self, base: &Embedding, ids: Tensor<2, Int>) -> Tensor<3> {
        self.head.embed(base, ids)
    }

    fn linear(&self, base: &Linear, input: Tensor<3>) -> Tensor<3> {
        self.head.linear(base, input)
    }

    fn norm(&self, base: &Norm, input: Tensor<3>) -> Tensor<3> {
        self.head.norm(base, input)
    }

    fn join(&self, site: Site, output: Tensor<3>, residual: Tensor<3>, norm: Option<&Norm>) -> Tensor<3> {
        let Some(&index) = self.places.get(&site) else {
            let sum = output + residual;
            return match norm {
                Some(norm) => self.norm(norm, sum),
                None => sum,
            };
        };
        let dropout =
            self.dropout_seed.map(|seed| Dropout::new(self.config.dropout, seed).derive(index as u64));
        self.layers[index].join(Join {
            adapter: self,
            config: &self.config,
            shared: &self.shared,
            output,
            residual,
            norm,
            dropout,
        })
    }
}

impl Method for Bottleneck {
    fn kind(&self) -> &str {
        "bottleneck"
    }

    fn parameter_names(&self) -> Vec<(ParamId, String)> {
        let trained = self.tensors().into_iter().filter(|(_, trained)| *trained).map(|(named, _)| named);
        let head = self.head.tensors();
        let head = self.hub.head.as_ref().map_or(Vec::new(), |file| file.rename(head));
        trained.chain(head).map(|named| (named.param.id(), named.key)).collect()
    }

    fn save(&self, folder: &Path) -> Result<()> {
        self.save_folder(folder)
    }

    fn merge_layer(&self, _layer: LayerMut<'_>) -> Result<bool> {
        Err(Error::NotMergeable {
            kind: "a bottleneck adapter".into(),
            reason: "it has layers of its own with a function between them".into(),
        })
    }

    fn effect(&self, place: Place<'_>) -> Effect {
        match place {
            Place::Join => Effect::Replaces,
            Place::Layer(path) if self.head.contains(path) => Effect::Replaces,
            Place::Layer(_) | Place::Prompt | Place::Prefix => Effect::Nothing,
        }
    }
}

impl PeftModule for Bottleneck {
    fn with_dropout_seed(self, seed: Option<u64>) -> Self {
        Self { dropout_seed: seed, ..self }
    }
}
