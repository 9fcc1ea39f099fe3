//! What LoRA promises.
#![allow(missing_docs, clippy::unwrap_used)]

mod common;

use common::method::{Promises, check_method};
use common::{all_linear, base};
use llmkit_peft::Lora;

#[test]
fn lora_keeps_what_methods_promise() {
    let model = base("gqa-tied");
    check_method(
        &model,
        Promises::default(),
        || Lora::new(model.as_ref(), all_linear().with_dropout(0.1), 5).unwrap(),
        |folder| Lora::load(model.as_ref(), folder).unwrap(),
    );
}
