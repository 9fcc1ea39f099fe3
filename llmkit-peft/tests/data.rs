//! Rows to examples, with a real tokenizer and a real chat template.
#![allow(missing_docs, clippy::unwrap_used)]

use std::path::{Path, PathBuf};

use llmkit_core::{ChatTemplate, Tokenizer};
use llmkit_peft::Error;
use llmkit_peft::data::{AlpacaRow, Encoder, Overlong};

const CHATML: &str = "{% for message in messages %}<|im_start|>{{ message.role }}\n{{ message.content }}<|im_end|>\n{% endfor %}\
                      {% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}";

fn tokenizer() -> Tokenizer {
    let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../llmkit-core/tests/fixtures/tokenizer");
    Tokenizer::from_file(fixtures.join("byte_level/tokenizer.json")).unwrap()
}

fn template(source: &str) -> ChatTemplate {
    ChatTemplate::new(source, None, None).unwrap()
}

fn row(instruction: &str, output: &str, line: usize) -> AlpacaRow {
    AlpacaRow { instruction: instruction.into(), input: String::new(), output: output.into(), line }
}

fn origin() -> PathBuf {
    "rows.jsonl".into()
}

#[test]
fn the_answer_is_told_from_the_prompt() {
    let (tokenizer, template) = (tokenizer(), template(CHATML));
    let data = Encoder::new(&tokenizer, &template)
        .encode(&[row("Name a color.", "Blue, 你好 🙂", 1)], &origin())
        .unwrap();
    let example = &data.examples[0];
    let decode = |ids: &[u32]| tokenizer.decode(ids, false).unwrap();
    assert_eq!(
        decode(&example.ids[..example.prompt_len]),
        "<|im_start|>user\nName a color.<|im_end|>\n<|im_start|>assistant\n"
    );
    // What is learned ends with the end of the turn, so that the model learns to stop.
    assert_eq!(decode(&example.ids[example.prompt_len..]), "Blue, 你好 🙂<|im_end|>\n");
    assert_eq!(data.trained_tokens(), example.ids.len() - example.prompt_len);
}

#[test]
fn truncation_is_counted_and_never_takes_a_whole_answer_unasked() {
    let (tokenizer, template) = (tokenizer(), template(CHATML));
    let rows = [row("Hi", "A short answer.", 1), row(&"Count on and on. ".repeat(20), "Never.", 7)];
    let lengths: Vec<_> = rows
        .iter()
        .map(|row| Encoder::new(&tokenizer, &template).encode(std::slice::from_ref(row), &origin()).unwrap())
        .collect();
    let (short, long) = (&lengths[0].examples[0], &lengths[1].examples[0]);
    assert!(short.ids.len() < long.prompt_len);

    // A limit inside the short answer: it loses its end, and the long prompt everything.
    let limit = short.ids.len() - 1;
    let encoder = Encoder::new(&tokenizer, &template).with_max_length(limit);
    let error = encoder.encode(&rows, &origin()).unwrap_err();
    assert!(matches!(error, Error::Data { line: 7, .. }), "{error}");
    assert!(error.to_string().contains("remove the answer wholly"), "{error}");

    let encoder = encoder.with_overlong(Overlong::Drop);
    let data = encoder.encode(&rows, &origin()).unwrap();
    assert_eq!((data.examples.len(), data.truncated, data.dropped), (1, 1, 1));
    assert_eq!(data.examples[0].ids, short.ids[..limit]);

    let error = encoder.encode(&rows[1..], &origin()).unwrap_err();
    assert!(matches!(error, Error::NoData { .. }), "{error}");
}

#[test]
fn a_template_that_rewrites_its_own_prompt_is_refused() {
    let tokenizer = tokenizer();
    let template =
        template("{{ messages | length }}{% for message in messages %}{{ message.content }}{% endfor %}");
    let error = Encoder::new(&tokenizer, &template).encode(&[row("a", "b", 4)], &origin()).unwrap_err();
    assert!(matches!(error, Error::Data { line: 4, .. }), "{error}");
}
