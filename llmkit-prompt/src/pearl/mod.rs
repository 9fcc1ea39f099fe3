//! PEARL.
mod action;
mod line;
mod parse;
mod plan;

pub use action::{Action, Actions, CONCAT, DOCUMENT};
pub use plan::{Argument, Plan, PlanFault, PlanProblem, Step};
