/// Which backend runs.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Device {}
