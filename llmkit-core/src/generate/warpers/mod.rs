//! The steps that shape a distribution before a draw: each takes candidates in the order of their ids and leaves them so, and none
//! removes the likeliest.

pub(super) mod min_p;
pub(super) mod temperature;
pub(super) mod top_k;
pub(super) mod top_p;
