//! Reading what a model wrote: JSON in prose, lists, tables, tagged sections, dates, code blocks, choices.
//!
//! Models wrap their answers in explanations, fences and slips. Each function here finds one kind of answer in such a text, in time
//! proportional to its length, and says in words that can be shown to the model what is wrong when there is none: see
//! [`Error::Parse`](crate::Error::Parse). Nothing is guessed silently: what [`json_with_repairs`] had to mend, it lists; a date that could be
//! two days is an error.
//!
//! ```
//! use llmkit_prompt::parse;
//!
//! # fn main() -> Result<(), llmkit_prompt::Error> {
//! #[derive(serde::Deserialize)]
//! struct Dish { name: String, deep: bool }
//!
//! let answer = "Sure! Here it is:\n```json\n{'name': 'tureen', 'deep': True,}\n```\nAnything else?";
//! let dish: Dish = parse::json(answer)?;
//! assert_eq!(dish.name, "tureen");
//! assert!(dish.deep);
//!
//! assert_eq!(parse::list("1. a bowl\n2. a plate"), ["a bowl", "a plate"]);
//! assert_eq!(parse::tagged("<answer>a bowl</answer>", "answer"), Some("a bowl"));
//! # Ok(())
//! # }
//! ```

mod choice;
mod code;
mod date;
mod json;
mod list;
mod place;
mod table;
mod tagged;

pub use choice::{boolean, choice};
pub use code::{CodeBlock, code_blocks};
pub use date::{DateOrder, DateReader, date};
pub use json::{MAX_DEPTH, MAX_TEXT, Repair, RepairKind, Repaired, json, json_with_repairs};
pub use list::list;
pub use table::{Table, table};
pub use tagged::{Section, sections, tagged};

pub(crate) use place::excerpt;
