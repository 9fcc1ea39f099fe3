use super::super::candidate::{Candidate, max_logit};

/// `logit / temperature`.
///
/// The logits are first shifted so that the greatest is 0: the distribution stays the same, and a temperature near 0 cannot
/// overflow; it drives all others towards minus infinity, where they are dropped.
pub(in super::super) fn divide(candidates: &mut Vec<Candidate>, temperature: f32) {
    if temperature == 1.0 {
        return;
    }
    let max = max_logit(candidates);
    for candidate in candidates.iter_mut() {
        candidate.logit = (candidate.logit - max) / temperature;
    }
    candidates.retain(|candidate| candidate.logit.is_finite());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_temperature_near_zero_leaves_the_likeliest() {
        let mut candidates = vec![
            Candidate { id: 0, logit: -3e38 },
            Candidate { id: 1, logit: 3e38 },
            Candidate { id: 2, logit: 7.0 },
        ];
        divide(&mut candidates, 1e-38);
        assert_eq!(candidates, [Candidate { id: 1, logit: 0.0 }]);
    }
}
