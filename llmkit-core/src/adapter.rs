/// The places in a transformer where a fine-tuning method may act.
pub trait Adapter: Send + Sync {}

/// The base model as it is.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoAdapter;

impl Adapter for NoAdapter {}
