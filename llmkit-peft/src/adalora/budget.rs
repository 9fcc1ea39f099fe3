/// How many singular values all layers together may keep, step by step: AdaLoRA's cubic schedule.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Budget {
    /// Singular values at the start.
    pub(super) initial: usize,
    /// Singular values at the end.
    pub(super) target: usize,
    /// Steps before the first allocation.
    pub(super) tinit: usize,
    /// Steps after the last one.
    pub(super) tfinal: usize,
    /// Steps between two allocations.
    pub(super) interval: usize,
    /// Steps of the whole run.
    pub(super) total_step: usize,
}

/// What is due after an optimizer step.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Due {
    /// Importance is measured, and nothing masked.
    Measure,
    /// Importance is measured, then all but `budget` singular values are masked. They may grow back.
    Allocate {
        /// How many stay.
        budget: usize,
    },
    /// The last allocation, by the importance measured so far.
    Finish {
        /// How many stay.
        budget: usize,
    },
    /// What the last allocation masked stays masked.
    Keep,
}

impl Budget {
    /// What is due after optimizer step `step`, from 1.
    pub(super) fn due(&self, step: usize) -> Due {
        let last = self.total_step - self.tfinal;
        match step.cmp(&last) {
            std::cmp::Ordering::Greater => Due::Keep,
            std::cmp::Ordering::Equal => Due::Finish { budget: self.target },
            std::cmp::Ordering::Less if step <= self.tinit || !step.is_multiple_of(self.interval) => {
                Due::Measure
            }
            std::cmp::Ordering::Less => {
                let left = 1.0 - (step - self.tinit) as f64 / (last - self.tinit) as f64;
                let above = (self.initial - self.target) as f64 * left.powi(3);
                Due::Allocate { budget: (above + self.target as f64) as usize }
            }
        }
    }
}

/// Which triplets stay when all but `budget` of them are masked: those whose score is above that of the best one to go. Ties go
/// together, as in PEFT, so that fewer may stay.
pub(super) fn keep(scores: &[Vec<f32>], budget: usize) -> Vec<Vec<bool>> {
    let mut all: Vec<f32> = scores.iter().flatten().copied().collect();
    let gone = all.len().saturating_sub(budget);
    if gone == 0 {
        return scores.iter().map(|layer| vec![true; layer.len()]).collect();
    }
    let (_, threshold, _) = all.select_nth_unstable_by(gone - 1, f32::total_cmp);
    let threshold = *threshold;
    scores.iter().map(|layer| layer.iter().map(|score| *score > threshold).collect()).collect()
}

#[cfg(test)]
mod tests {
    use super::{Budget, Due, keep};

    #[test]
    fn the_budget_falls_with_the_cube_of_what_is_left() {
        let budget = Budget { initial: 36, target: 18, tinit: 2, tfinal: 3, interval: 2, total_step: 12 };
        let due: Vec<Due> = (1..=12).map(|step| budget.due(step)).collect();
        // 18 + 18 * (1 - 2/7)^3 = 24.56; 18 + 18 * (3/7)^3 = 19.42; 18 + 18 * (1/7)^3 = 18.05.
        assert_eq!(due[..3], [Due::Measure; 3]);
        assert_eq!(due[3], Due::Allocate { budget: 24 });
        assert_eq!(due[5], Due::Allocate { budget: 19 });
        assert_eq!(due[7], Due::Allocate { budget: 18 });
        assert_eq!((due[4], due[6]), (Due::Measure, Due::Measure));
        assert_eq!(due[8], Due::Finish { budget: 18 });
        assert_eq!(due[9..], [Due::Keep; 3]);
    }

    #[test]
    fn the_least_important_go_and_ties_go_together() {
        let scores = [vec![0.3, 0.1], vec![0.2, 0.9, 0.1]];
        assert_eq!(keep(&scores, 3), [vec![true, false], vec![true, true, false]]);
        assert_eq!(keep(&scores, 4), [vec![true, false], vec![true, true, false]]);
        assert_eq!(keep(&scores, 5), [vec![true, true], vec![true, true, true]]);
        assert_eq!(keep(&scores, 0), [vec![false, false], vec![false, false, false]]);
    }
}
