//! The minutes of a meeting, each entry with the words of the transcript that show it.
//!
//! A model writes topics, decisions and action items, and quotes the transcript for each. The quotes are then looked up: what the transcript does not
//! say is rejected, or flagged. Names and dates are held against the transcript too; "by Friday" becomes a date by rule, and what
//! could mean several days stays words.
//!
//! ```
//! use llmkit_prompt::minutes::{MinutesTaker, Transcript};
//! use llmkit_prompt::testing::ScriptedModel;
//!
//! # pollster::block_on(async {
//! let transcript = Transcript::parse(
//!     "[00:00:05] Ana Ruiz: Let's ship it next Friday.\n\
//!      [00:00:09] Ben Ode: Agreed. I'll write the release notes by tomorrow.",
//! )?;
//! let model = ScriptedModel::new([r#"{
//!     "title": "Release",
//!     "decisions": [
//!         {"what": "Ship next Friday.", "quote": "Let's ship it next Friday."},
//!         {"what": "Hire two people.", "quote": "We hire two more people."}
//!     ],
//!     "action_items": [
//!         {"what": "Write the release notes.", "owner": "Ben", "due": "by tomorrow", "quote": "I'll write the release notes by tomorrow."}
//!     ]
//! }"#]);
//! let minutes = MinutesTaker::new().with_date("2026-11-24".parse().unwrap()).run(&model, &transcript).await?.value;
//!
//! assert_eq!(minutes.decisions.len(), 1); // nobody said anything of hiring
//! assert_eq!(minutes.rejected[0].what, "Hire two people.");
//! let item = &minutes.action_items[0];
//! assert_eq!(item.owner.as_ref().unwrap().name, "Ben Ode");
//! assert_eq!(item.due.as_ref().unwrap().date, Some("2026-11-25".parse().unwrap()));
//! assert!(minutes.to_markdown().contains("- [ ] **Ben Ode**: Write the release notes., due 2026-11-25"));
//! # Ok::<(), llmkit_prompt::Error>(())
//! # }).unwrap();
//! ```
//!
//! [`QuoteFinder`] and [`resolve_date`] are of use elsewhere too.

mod captions;
mod check;
mod dates;
mod draft;
mod join;
mod markdown;
mod quotes;
mod record;
mod speech;
mod taker;
mod transcript;

pub use dates::{DateRule, ResolvedDate, Undated, resolve_date};
pub use quotes::{QuoteFinder, QuoteMatch, Unfound};
pub use record::{
    ActionItem, Decision, Due, Evidence, Minutes, Owner, Rejected, RejectedKind, Topic, UnreadPart,
};
pub use taker::{MinutesTaker, Unverified};
pub use transcript::{Transcript, TranscriptFormat, Turn};
