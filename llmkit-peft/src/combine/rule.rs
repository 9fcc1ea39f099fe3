use crate::dropout::{derive, mix};
use crate::{Error, Result};

/// How numbers of several adapters become one.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Rule {
    /// The weighted sum.
    Linear,
    /// The weighted sum of what is left when each adapter keeps its largest numbers only.
    MagnitudePrune {
        /// The share of numbers that is kept, from 0 to 1.
        density: f64,
    },
    /// TIES (Yadav et al. 2023): each adapter keeps its largest numbers; where they disagree about the sign, the majority decides, and the
    /// weighted mean of those that agree is taken.
    Ties {
        /// The share of numbers that is kept, from 0 to 1.
        density: f64,
        /// What the majority is.
        majority: MajoritySign,
    },
    /// DARE (Yu et al. 2023): the weighted sum of what is left when each adapter keeps numbers at random, scaled up by what is lost.
    DareLinear {
        /// The share of numbers that is kept on average, above 0 and up to 1.
        density: f64,
        /// What the choice follows from.
        seed: u64,
    },
    /// DARE's choice, then TIES' majority.
    DareTies {
        /// The share of numbers that is kept on average, above 0 and up to 1.
        density: f64,
        /// What the majority is.
        majority: MajoritySign,
        /// What the choice follows from.
        seed: u64,
    },
}

/// Which sign a majority has.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum MajoritySign {
    /// That of the sum.
    #[default]
    Total,
    /// The one that more adapters have.
    Frequency,
}

impl Rule {
    pub(super) fn validate(self) -> Result<()> {
        let (density, random) = match self {
            Self::Linear => return Ok(()),
            Self::MagnitudePrune { density } | Self::Ties { density, .. } => (density, false),
            Self::DareLinear { density, .. } | Self::DareTies { density, .. } => (density, true),
        };
        if (0.0..=1.0).contains(&density) && !(random && density == 0.0) {
            return Ok(());
        }
        let expected = if random { "above 0 and up to 1" } else { "from 0 to 1" };
        Err(Error::Combination { reason: format!("the density is {density}; it must be {expected}") })
    }

    /// Combines tensors of the same size, each flattened.
    pub(super) fn apply(self, mut tensors: Vec<Vec<f32>>, weights: &[f32], draws: &mut Draws) -> Vec<f32> {
        match self {
            Self::Linear => weighted_sum(&tensors, weights),
            Self::MagnitudePrune { density } => {
                tensors.iter_mut().for_each(|tensor| keep_largest(tensor, density));
                weighted_sum(&tensors, weights)
            }
            Self::Ties { density, majority } => {
                tensors.iter_mut().for_each(|tensor| keep_largest(tensor, density));
                mean_of_majority(&tensors, weights, majority)
            }
            Self::DareLinear { density, .. } => {
                tensors.iter_mut().for_each(|tensor| draws.keep_some(tensor, density));
                weighted_sum(&tensors, weights)
            }
            Self::DareTies { density, majority, .. } => {
                tensors.iter_mut().for_each(|tensor| draws.keep_some(tensor, density));
                mean_of_majority(&tensors, weights, majority)
            }
        }
    }
}

fn weighted_sum(tensors: &[Vec<f32>], weights: &[f32]) -> Vec<f32> {
    let mut sum = vec![0.0; tensors[0].len()];
    for (tensor, weight) in tensors.iter().zip(weights) {
        sum.iter_mut().zip(tensor).for_each(|(sum, value)| *sum += weight * value);
    }
    sum
}

/// Zeroes all but the `density` of the numbers that are largest, whatever their sign; of equal ones, the first stay.
fn keep_largest(tensor: &mut [f32], density: f64) {
    let kept = (density * tensor.len() as f64) as usize;
    if kept >= tensor.len() {
        return;
    }
    let mut order: Vec<usize> = (0..tensor.len()).collect();
    let larger_first =
        |a: &usize, b: &usize| tensor[*b].abs().total_cmp(&tensor[*a].abs()).then_with(|| a.cmp(b));
    if kept > 0 {
        order.select_nth_unstable_by(kept - 1, larger_first);
    }
    for index in order.split_off(kept) {
        tensor[index] = 0.0;
    }
}

fn mean_of_majority(tensors: &[Vec<f32>], weights: &[f32], majority: MajoritySign) -> Vec<f32> {
    let sign = |value: f32| if value == 0.0 { 0.0 } else { value.signum() };
    (0..tensors[0].len())
        .map(|index| {
            let values = || tensors.iter().map(|tensor| tensor[index]);
            let total: f32 = match majority {
                MajoritySign::Total => values().sum(),
                MajoritySign::Frequency => values().map(sign).sum(),
            };
            let elected = if total >= 0.0 { 1.0 } else { -1.0 };
            let agreeing = values().zip(weights).filter(|(value, _)| sign(*value) == elected);
            let (sum, count) = agreeing
                .fold((0.0f32, 0u32), |(sum, count), (value, weight)| (sum + weight * value, count + 1));
            sum / count.max(1) as f32
        })
        .collect()
}

/// The random choices of one layer: they follow from the seed, the layer's path and the number of the tensor alone.
pub(super) struct Draws {
    key: u64,
    count: u64,
}

impl Draws {
    pub(super) fn new(rule: Rule, path: &str) -> Self {
        let seed = match rule {
            Rule::DareLinear { seed, .. } | Rule::DareTies { seed, .. } => seed,
            Rule::Linear | Rule::MagnitudePrune { .. } | Rule::Ties { .. } => 0,
        };
        Self { key: path.bytes().fold(seed, |hash, byte| derive(hash, u64::from(byte))), count: 0 }
    }

    /// Keeps each number with the probability `density`, divided by it.
    fn keep_some(&mut self, tensor: &mut [f32], density: f64) {
        let key = derive(self.key, self.count);
        self.count += 1;
        if density >= 1.0 {
            return;
        }
        let threshold = (density * f64::from(u32::MAX)) as u32;
        for (pair, values) in tensor.chunks_mut(2).enumerate() {
            let bits = mix(key.wrapping_add((pair as u64).wrapping_mul(crate::dropout::GOLDEN)));
            for (value, bits) in values.iter_mut().zip([bits as u32, (bits >> 32) as u32]) {
                *value = if bits < threshold { *value / density as f32 } else { 0.0 };
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::{Draws, MajoritySign, Rule};

    fn apply(rule: Rule, tensors: &[&[f32]], weights: &[f32]) -> Vec<f32> {
        let tensors = tensors.iter().map(|tensor| tensor.to_vec()).collect();
        rule.apply(tensors, weights, &mut Draws::new(rule, "a.layer"))
    }

    #[test]
    fn the_largest_numbers_stay() {
        let rule = Rule::MagnitudePrune { density: 0.5 };
        assert_eq!(apply(rule, &[&[1.0, -4.0, 3.0, 0.5, 2.0]], &[2.0]), [0.0, -8.0, 6.0, 0.0, 0.0]);
        assert_eq!(apply(rule, &[&[1.0, -1.0, 1.0, 1.0]], &[1.0]), [1.0, -1.0, 0.0, 0.0]);
        assert_eq!(apply(Rule::MagnitudePrune { density: 0.0 }, &[&[1.0, 2.0]], &[1.0]), [0.0, 0.0]);
    }

    #[test]
    fn a_majority_of_the_sum_or_of_the_number() {
        let tensors: [&[f32]; 3] = [&[1.0, 1.0, 0.0], &[1.0, 1.0, 0.0], &[-3.0, 2.0, 0.0]];
        let ties = |majority| Rule::Ties { density: 1.0, majority };
        assert_eq!(apply(ties(MajoritySign::Total), &tensors, &[1.0, 3.0, 1.0]), [-3.0, 2.0, 0.0]);
        assert_eq!(apply(ties(MajoritySign::Frequency), &tensors, &[1.0, 3.0, 1.0]), [2.0, 2.0, 0.0]);
    }

    #[test]
    fn chance_keeps_the_mean_and_follows_the_seed() {
        let ones = vec![1.0f32; 20_001];
        let rule = |seed| Rule::DareLinear { density: 0.25, seed };
        let kept = apply(rule(1), &[&ones], &[1.0]);
        assert!(kept.iter().all(|value| [0.0, 4.0].contains(value)));
        let mean = kept.iter().sum::<f32>() / kept.len() as f32;
        assert!((mean - 1.0).abs() < 0.05, "{mean}");
        assert_eq!(kept, apply(rule(1), &[&ones], &[1.0]));
        assert_ne!(kept, apply(rule(2), &[&ones], &[1.0]));
    }

    #[test]
    fn impossible_densities_are_refused() {
        for rule in [
            Rule::MagnitudePrune { density: 1.5 },
            Rule::Ties { density: f64::NAN, majority: MajoritySign::Total },
            Rule::DareLinear { density: 0.0, seed: 0 },
        ] {
            assert!(rule.validate().unwrap_err().to_string().contains("density"));
        }
    }
}
