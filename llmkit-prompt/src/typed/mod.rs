//! Answers as values: asked for, read, and asked for again when they can't be read.
//!
//! ```
//! use llmkit_core::Message;
//! use llmkit_prompt::testing::ScriptedModel;
//! use llmkit_prompt::typed::Typed;
//! use schemars::JsonSchema;
//! use serde::Deserialize;
//!
//! #[derive(Deserialize, JsonSchema)]
//! struct Dish {
//!     /// What it is called.
//!     name: String,
//!     litres: f32,
//! }
//!
//! # pollster::block_on(async {
//! // The first answer lacks a field; the model is told which, and mends it.
//! let model = ScriptedModel::new([r#"{"name": "tureen"}"#, r#"{"name": "tureen", "litres": 3.5}"#]);
//! let dish = Typed::<Dish>::new().run(&model, vec![Message::user("Which dish holds soup?")]).await?;
//! assert_eq!((dish.value.name.as_str(), dish.value.litres), ("tureen", 3.5));
//! assert!(model.requests()[1].messages.last().unwrap().content.contains("litres"));
//! # Ok::<(), llmkit_prompt::Error>(())
//! # }).unwrap();
//! ```
//!
//! - [`Typed`]: a value of a type, by its JSON schema;
//! - [`Parsed`]: the same for what any parser reads: a list, a table, a date;
//! - [`PartialJson`]: the value of JSON that is still being written.

mod ask;
mod parsed;
mod partial;
mod value;

pub use parsed::Parsed;
pub use partial::PartialJson;
pub use value::Typed;
