use std::fmt;

use llmkit_core::models::Model;

use crate::{PeftModule, parameters};

/// How much of a model trains.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct ParameterSummary {
    /// Parameters of the adapter.
    pub trainable: usize,
    /// Parameters of the adapter and the base together; a tied head counts once.
    pub all: usize,
}

impl ParameterSummary {
    /// The share of the parameters that trains, in percent.
    pub fn percent(&self) -> f64 {
        100.0 * self.trainable as f64 / self.all as f64
    }
}

impl fmt::Display for ParameterSummary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "trainable params: {} || all params: {} || trainable%: {:.4}",
            grouped(self.trainable),
            grouped(self.all),
            self.percent()
        )
    }
}

/// Counts what trains. The summary displays as the line that PEFT's `print_trainable_parameters` prints.
#[doc(alias = "print_trainable_parameters")]
pub fn trainable_parameters(model: &dyn Model, adapter: &impl PeftModule) -> ParameterSummary {
    let mut base = 0;
    model.visit(&mut |layer| {
        if !(model.is_tied() && Some(layer.path()) == model.head_path()) {
            base += layer.num_parameters();
        }
    });
    let trainable = parameters::sizes(adapter).into_iter().map(|(_, size)| size).sum();
    ParameterSummary { trainable, all: base + trainable }
}

fn grouped(number: usize) -> String {
    let digits = number.to_string();
    let groups: Vec<&str> = digits
        .as_bytes()
        .rchunks(3)
        .rev()
        .map(|group| std::str::from_utf8(group).unwrap_or_default())
        .collect();
    groups.join(",")
}

#[cfg(test)]
mod tests {
    use super::grouped;

    #[test]
    fn thousands_are_grouped() {
        assert_eq!(grouped(7), "7");
        assert_eq!(grouped(1_234_567), "1,234,567");
        assert_eq!(grouped(123_456), "123,456");
    }
}
