use burn::tensor::Tensor;

/// How much the loss depends on each element of one parameter: `|w * dL/dw|`, smoothed over the steps, times how much that wavers
/// (Zhang et al. 2023, <https://arxiv.org/abs/2303.10512>, equations 8 to 11).
#[derive(Debug, Clone)]
pub(super) struct Importance {
    /// The running mean of the sensitivity, flattened.
    pub(super) sensitivity: Tensor<1>,
    /// The running mean of its distance from that mean, flattened.
    pub(super) uncertainty: Tensor<1>,
}

impl Importance {
    /// Takes one more step into account.
    ///
    /// # Shapes
    /// `value` and `gradient` `[n]`, without autodiff.
    pub(super) fn after(
        before: Option<Self>,
        value: Tensor<1>,
        gradient: Tensor<1>,
        beta1: f64,
        beta2: f64,
    ) -> Self {
        let now = (value * gradient).abs();
        let fresh = now.clone() * (1.0 - beta1);
        let (sensitivity, uncertainty) = match before {
            Some(before) => (before.sensitivity * beta1 + fresh, Some(before.uncertainty * beta2)),
            None => (fresh, None),
        };
        let distance = (now - sensitivity.clone()).abs() * (1.0 - beta2);
        let uncertainty = match uncertainty {
            Some(before) => before + distance,
            None => distance,
        };
        Self { sensitivity, uncertainty }
    }

    /// The score of each element.
    ///
    /// # Shapes
    /// `[n]`
    pub(super) fn scores(&self) -> Tensor<1> {
        self.sensitivity.clone() * self.uncertainty.clone()
    }
}
