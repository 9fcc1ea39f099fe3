use std::fmt;

use super::LayerShapes;

/// A method with its main setting, acting on every linear layer of the blocks.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Choice {
    /// [`FullFineTune`](crate::FullFineTune).
    Full,
    /// LoRA scaled by `alpha / rank`.
    Lora {
        /// The rank of the update.
        rank: usize,
    },
    /// LoRA scaled by `alpha / sqrt(rank)`.
    RsLora {
        /// The rank of the update.
        rank: usize,
    },
    /// LoRA that learns direction and magnitude apart.
    Dora {
        /// The rank of the update.
        rank: usize,
    },
    /// Orthogonal fine-tuning.
    Oft {
        /// The width of the rotated blocks.
        block_size: usize,
    },
    /// A Kronecker product as the update.
    LoKr {
        /// The rank of the second factor.
        rank: usize,
    },
    /// LoRA whose rank is shared out while it trains.
    AdaLora {
        /// The rank at the start.
        rank: usize,
    },
    /// Learned scales of keys, values and the feed-forward network.
    Ia3,
    /// Learned keys and values before every layer's: P-tuning v2.
    Prefix {
        /// Their number.
        tokens: usize,
    },
    /// Learned scales of random projections.
    Vera {
        /// The projections' rank.
        rank: usize,
    },
    /// Virtual tokens that a network writes.
    PTuning {
        /// Their number.
        tokens: usize,
    },
    /// Virtual tokens.
    PromptTuning {
        /// Their number.
        tokens: usize,
    },
}

/// What a method adds to a model's training, in numbers (of four bytes).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct MethodCost {
    /// What trains: each has a gradient and two moments.
    pub parameters: u64,
    /// What is saved, where that is not what trains.
    pub saved: u64,
    /// What is kept beside without training.
    pub fixed: u64,
    /// What one token of a batch leaves for the backward pass, over all blocks.
    pub kept_per_token: u64,
    /// Virtual tokens before every sequence.
    pub prompt: u64,
}

impl MethodCost {
    /// A method of which nothing counts but the parameters.
    pub fn parameters(parameters: u64) -> Self {
        Self { parameters, saved: parameters, ..Self::default() }
    }
}

impl Choice {
    /// What PEFT's comparison scored: the share of GSM8K's questions that Llama-3.2-3B answered after training on MetaMathQA.
    ///
    /// Of a method at another rank nothing is published; the score that is given is then that of the rank which is.
    pub fn published(self) -> f64 {
        match self {
            Self::Full => 0.472,
            Self::Lora { .. } => 0.478,
            Self::RsLora { .. } => 0.513,
            Self::Dora { .. } => 0.469,
            Self::Oft { .. } => 0.491,
            Self::LoKr { .. } => 0.466,
            Self::AdaLora { .. } => 0.373,
            Self::Ia3 => 0.455,
            Self::Prefix { .. } => 0.416,
            Self::Vera { .. } => 0.354,
            Self::PTuning { .. } => 0.350,
            Self::PromptTuning { .. } => 0.343,
        }
    }

    /// The setting that was scored, where it is known.
    pub fn published_setting(self) -> Option<Self> {
        match self {
            Self::Lora { .. } => Some(Self::Lora { rank: 32 }),
            Self::RsLora { .. } => Some(Self::RsLora { rank: 64 }),
            Self::Dora { .. } => Some(Self::Dora { rank: 32 }),
            Self::Full | Self::Ia3 => Some(self),
            _ => None,
        }
    }

    /// What is weighed against each other, the largest setting of each method first.
    pub fn all() -> Vec<Self> {
        let mut all =
            vec![Self::RsLora { rank: 64 }, Self::RsLora { rank: 32 }, Self::Oft { block_size: 32 }];
        all.extend([32, 16, 8, 4, 2, 1].map(|rank| Self::Lora { rank }));
        all.push(Self::Full);
        all.extend([32, 16, 8].map(|rank| Self::Dora { rank }));
        all.push(Self::LoKr { rank: 32 });
        all.push(Self::Ia3);
        all.push(Self::Prefix { tokens: 100 });
        all.push(Self::Prefix { tokens: 20 });
        all.push(Self::AdaLora { rank: 32 });
        all.push(Self::Vera { rank: 256 });
        all.push(Self::PTuning { tokens: 20 });
        all.push(Self::PromptTuning { tokens: 20 });
        all
    }

    /// What it adds to the training of a model of these layers. Tests hold the plans of full fine-tuning, LoRA and IA3 against what the
    /// allocator sees; what the others keep for the backward pass is an estimate.
    pub fn cost(self, shapes: &LayerShapes) -> MethodCost {
        let product = |a: u64, b: usize| a.saturating_mul(b as u64);
        let (inputs, outputs) = (shapes.inputs(), shapes.outputs());
        let both = inputs.saturating_add(outputs);
        let per_target = |numbers: &dyn Fn(u64, u64) -> u64| shapes.sum(numbers);
        match self {
            Self::Full => MethodCost::parameters(shapes.all()),
            Self::Lora { rank } | Self::RsLora { rank } => MethodCost::parameters(product(both, rank)),
            Self::AdaLora { rank } => {
                MethodCost::parameters(product(both.saturating_add(shapes.targets()), rank))
            }
            Self::Dora { rank } => MethodCost {
                // The magnitudes; and the unscaled output of every layer is kept.
                kept_per_token: outputs,
                ..MethodCost::parameters(product(both, rank).saturating_add(outputs))
            },
            Self::Oft { block_size } => {
                let block = block_size as u64;
                let skew = block * block.saturating_sub(1) / 2;
                MethodCost {
                    // The rotated input of every layer.
                    kept_per_token: inputs,
                    ..MethodCost::parameters(per_target(&|_, input| {
                        input.div_ceil(block).saturating_mul(skew)
                    }))
                }
            }
            Self::LoKr { rank } => {
                let parameters = per_target(&|output, input| {
                    let ((a, c), (b, d)) = (factors(output), factors(input));
                    let rank = rank as u64;
                    let right = (rank * (c + d)).min(c.saturating_mul(d));
                    a.saturating_mul(b).saturating_add(right)
                });
                MethodCost { kept_per_token: both, ..MethodCost::parameters(parameters) }
            }
            Self::Ia3 => MethodCost::parameters(shapes.ia3()),
            Self::Vera { rank } => {
                let trained = outputs.saturating_add(product(shapes.targets(), rank));
                let fixed = product(shapes.widest_input().saturating_add(shapes.widest_output()), rank);
                MethodCost { fixed, saved: trained.saturating_add(fixed), ..MethodCost::parameters(trained) }
            }
            Self::Prefix { tokens } => {
                MethodCost::parameters(product(shapes.keys().saturating_mul(2 * shapes.blocks()), tokens))
            }
            Self::PromptTuning { tokens } => MethodCost {
                prompt: tokens as u64,
                ..MethodCost::parameters(product(shapes.hidden(), tokens))
            },
            Self::PTuning { tokens } => {
                // A table and two layers within, all of the model's width; what is saved is what they write.
                let hidden = shapes.hidden();
                let table = product(hidden, tokens);
                let network = hidden.saturating_mul(hidden.saturating_add(1)).saturating_mul(3);
                MethodCost {
                    prompt: tokens as u64,
                    saved: table,
                    ..MethodCost::parameters(table.saturating_add(network))
                }
            }
        }
    }
}

/// The two factors of a size that are nearest to each other, the smaller first, as LoKr splits it.
fn factors(size: u64) -> (u64, u64) {
    let mut first = size.isqrt().max(1);
    while !size.is_multiple_of(first) {
        first -= 1;
    }
    (first, size / first)
}

impl fmt::Display for Choice {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Full => write!(f, "full fine-tuning"),
            Self::Lora { rank } => write!(f, "LoRA, rank {rank}"),
            Self::RsLora { rank } => write!(f, "rsLoRA, rank {rank}"),
            Self::Dora { rank } => write!(f, "DoRA, rank {rank}"),
            Self::Oft { block_size } => write!(f, "OFT, blocks of {block_size}"),
            Self::LoKr { rank } => write!(f, "LoKr, rank {rank}"),
            Self::AdaLora { rank } => write!(f, "AdaLoRA from rank {rank}"),
            Self::Ia3 => write!(f, "IA3"),
            Self::Prefix { tokens } => write!(f, "prefix tuning, {tokens} tokens"),
            Self::Vera { rank } => write!(f, "VeRA, rank {rank}"),
            Self::PTuning { tokens } => write!(f, "P-tuning, {tokens} tokens"),
            Self::PromptTuning { tokens } => write!(f, "prompt tuning, {tokens} tokens"),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::factors;

    #[test]
    fn factors_are_as_near_as_can_be() {
        assert_eq!((factors(64), factors(48), factors(7), factors(0)), ((8, 8), (6, 8), (1, 7), (1, 0)));
    }
}
