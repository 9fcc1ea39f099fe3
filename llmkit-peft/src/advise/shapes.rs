use llmkit_core::Result;
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::models::ModelSizes;

/// The layers of a checkpoint on which methods act, known from its header.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct LayerShapes {
    sizes: ModelSizes,
    /// `[out, in]` of every linear layer of the blocks.
    linear: Vec<(u64, u64)>,
    /// All numbers of the model; a tied head counts once.
    all: u64,
}

impl LayerShapes {
    /// Reads the header and the configuration of `checkpoint`.
    ///
    /// # Errors
    /// [`Error::Config`](llmkit_core::Error::Config) naming a size that is missing or impossible.
    pub fn read(checkpoint: &Checkpoint) -> Result<Self> {
        let sizes = ModelSizes::read(checkpoint)?;
        let source = checkpoint.source();
        let tied = checkpoint.config()["tie_word_embeddings"] == true;
        let (mut linear, mut all) = (Vec::new(), 0u64);
        for name in source.names() {
            let Some(info) = source.info(&name) else { continue };
            if tied && name == "lm_head.weight" {
                continue;
            }
            let shape: Vec<u64> = info.shape.iter().map(|size| *size as u64).collect();
            all = all.saturating_add(shape.iter().fold(1, |product, size| product.saturating_mul(*size)));
            if let ([output, input], true) = (shape.as_slice(), in_block(&name)) {
                linear.push((*output, *input));
            }
        }
        Ok(Self { sizes, linear, all })
    }

    /// How many linear layers the blocks have.
    pub fn targets(&self) -> u64 {
        self.linear.len() as u64
    }

    /// All numbers of the model.
    pub fn all(&self) -> u64 {
        self.all
    }

    pub(super) fn sum(&self, numbers: &dyn Fn(u64, u64) -> u64) -> u64 {
        self.linear.iter().fold(0, |sum, (output, input)| sum.saturating_add(numbers(*output, *input)))
    }

    pub(super) fn inputs(&self) -> u64 {
        self.sum(&|_, input| input)
    }

    pub(super) fn outputs(&self) -> u64 {
        self.sum(&|output, _| output)
    }

    pub(super) fn widest_input(&self) -> u64 {
        self.linear.iter().map(|(_, input)| *input).max().unwrap_or(0)
    }

    pub(super) fn widest_output(&self) -> u64 {
        self.linear.iter().map(|(output, _)| *output).max().unwrap_or(0)
    }

    pub(super) fn hidden(&self) -> u64 {
        self.sizes.hidden
    }

    pub(super) fn keys(&self) -> u64 {
        self.sizes.keys
    }

    pub(super) fn blocks(&self) -> u64 {
        self.sizes.blocks
    }

    /// The scales of IA3: of keys, values, and what the last layer of the feed-forward network reads.
    pub(super) fn ia3(&self) -> u64 {
        let block = self.sizes.keys.saturating_mul(2).saturating_add(self.sizes.intermediate);
        self.sizes.blocks.saturating_mul(block)
    }
}

/// Whether the tensor of this name is a weight within a numbered block.
fn in_block(name: &str) -> bool {
    name.ends_with(".weight") && name.split('.').any(|part| part.parse::<usize>().is_ok())
}
