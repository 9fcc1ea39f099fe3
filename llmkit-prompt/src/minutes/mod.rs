//! Minutes.
mod captions;
mod dates;
mod quotes;
mod speech;
mod transcript;

pub use dates::{DateRule, ResolvedDate, Undated, resolve_date};
pub use quotes::{QuoteFinder, QuoteMatch, Unfound};
pub use transcript::{Transcript, TranscriptFormat, Turn};
