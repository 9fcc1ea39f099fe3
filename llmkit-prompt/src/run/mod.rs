//! How the pieces of this crate call a model: each call is counted, traced and recorded.

mod defaults;
pub(crate) mod spans;
mod trace;
mod work;

pub use defaults::WithDefaults;
pub(crate) use trace::add;
pub use trace::{Call, Trace, TraceEvent, Traced};
pub use work::Run;
