use std::sync::Arc;

use super::RopeTable;

/// Where a forward pass stands in its sequences; made once a pass by [`CausalLm::positions`](crate::models::CausalLm::positions), read by
/// every block.
#[derive(Debug, Clone)]
pub struct Positions {
    /// The rotations of these positions: one table for each kind of rotation that the model has.
    pub ropes: Vec<RopeTable>,
    /// How many positions of each sequence are real, where they differ: the others are padding behind them.
    pub counts: Option<Arc<[usize]>>,
}
