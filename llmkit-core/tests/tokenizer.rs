//! Tokenizers against Python's `tokenizers` and `transformers`, and against files that mean harm.
#![cfg(feature = "models")]
#![allow(clippy::unwrap_used)]

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};

use llmkit_core::checkpoint::gguf::{GgufFile, Metadata, MetadataValue};
use llmkit_core::{Error, Tokenizer};
use serde_json::{Value, json};

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/tokenizer")
}

fn read<T: serde::de::DeserializeOwned>(path: impl AsRef<Path>) -> T {
    serde_json::from_str(&fs::read_to_string(path).unwrap()).unwrap()
}

fn texts() -> Vec<String> {
    read(fixtures().join("texts.json"))
}

#[derive(serde::Deserialize)]
struct Expected {
    size: usize,
    variants: BTreeMap<String, Vec<Vec<u32>>>,
    decodings: Vec<Decoding>,
}

#[derive(serde::Deserialize)]
struct Decoding {
    ids: Vec<u32>,
    text: String,
    plain: String,
}

fn expected(kind: &str) -> Expected {
    read(fixtures().join(kind).join("expected.json"))
}

fn metadata(kind: &str) -> Metadata {
    GgufFile::open(fixtures().join(kind).join("tokenizer.gguf")).unwrap().metadata().clone()
}

fn string(text: &str) -> MetadataValue {
    MetadataValue::String(text.to_owned())
}

fn assert_encodes(tokenizer: &Tokenizer, expected: &[Vec<u32>], what: &str) {
    let texts = texts();
    assert!(texts.len() > 300 && texts.len() == expected.len());
    for (text, expected) in texts.iter().zip(expected) {
        assert_eq!(&tokenizer.encode(text, false).unwrap(), expected, "{what}: {text:?}");
    }
    assert_eq!(tokenizer.encode_batch(&texts, false).unwrap(), expected, "{what}, as a batch");
}

fn assert_decodes(tokenizer: &Tokenizer, decodings: &[Decoding]) {
    for Decoding { ids, text, plain } in decodings {
        for (skip, expected) in [(false, text), (true, plain)] {
            assert_eq!(&tokenizer.decode(ids, skip).unwrap(), expected, "{ids:?}");
            let mut stream = tokenizer.decode_stream(skip);
            // Twice, for a stream that has ended is ready for another text.
            for _ in 0..2 {
                let mut streamed = String::new();
                for &id in ids {
                    let piece = stream.step(id).unwrap();
                    assert!(piece.as_deref() != Some(""), "{ids:?}");
                    streamed.extend(piece);
                }
                streamed.extend(stream.finish().unwrap());
                assert_eq!(&streamed, expected, "{ids:?}");
            }
        }
    }
}

#[test]
fn a_folder_encodes_and_decodes_as_python_does() {
    for (kind, variant) in [("byte_level", "smollm"), ("sentencepiece", "llama")] {
        let tokenizer = Tokenizer::from_folder(fixtures().join(kind)).unwrap();
        let expected = expected(kind);
        assert_eq!(tokenizer.vocab_size(), expected.size);
        assert_encodes(&tokenizer, &expected.variants[variant], kind);
        assert_decodes(&tokenizer, &expected.decodings);
    }
}

#[test]
fn a_byte_level_gguf_encodes_and_decodes_as_the_original() {
    let expected = expected("byte_level");
    let mut metadata = metadata("byte_level");
    for (pre, ids) in &expected.variants {
        metadata.insert("tokenizer.ggml.pre".to_owned(), string(pre));
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        assert_eq!(tokenizer.vocab_size(), expected.size);
        assert_encodes(&tokenizer, ids, pre);
        assert_decodes(&tokenizer, &expected.decodings);
    }
    assert_eq!(expected.variants.len(), 4);
}

#[test]
fn a_sentencepiece_gguf_encodes_and_decodes_as_transformers_does() {
    let expected = expected("sentencepiece");
    let metadata = metadata("sentencepiece");
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    assert_eq!(tokenizer.vocab_size(), expected.size);
    assert_encodes(&tokenizer, &expected.variants["llama"], "llama");
    assert_decodes(&tokenizer, &expected.decodings);

    let mut bare = metadata.clone();
    bare.insert("tokenizer.ggml.add_space_prefix".to_owned(), MetadataValue::Bool(false));
    let bare = Tokenizer::from_gguf(&bare).unwrap();
    assert_encodes(&bare, &expected.variants["no_prefix"], "no_prefix");
    for text in ["a", " a", "  a  b "] {
        assert_eq!(bare.decode(&bare.encode(text, false).unwrap(), false).unwrap(), text);
    }

    let mut phi3 = metadata;
    phi3.insert("general.architecture".to_owned(), string("phi3"));
    assert_encodes(&Tokenizer::from_gguf(&phi3).unwrap(), &expected.variants["phi3"], "phi3");
}

#[test]
fn a_tokenizer_goes_into_a_gguf_and_comes_back() {
    for (kind, variant) in [("byte_level", "smollm"), ("sentencepiece", "llama")] {
        let original = Tokenizer::from_folder(fixtures().join(kind)).unwrap();
        let metadata = original.to_gguf().unwrap();
        let expected = expected(kind);
        let again = Tokenizer::from_gguf(&metadata).unwrap();
        assert_eq!(again.vocab_size(), expected.size);
        assert_encodes(&again, &expected.variants[variant], kind);
        assert_decodes(&again, &expected.decodings);
        assert_eq!(again.encode("a", true).unwrap(), original.encode("a", true).unwrap(), "{kind}");
        assert_eq!(again.bos_token_id(), original.bos_token_id());
        assert_eq!(again.eos_token_ids(), original.eos_token_ids());
        assert_eq!(again.pad_token_id(), original.pad_token_id());
        for id in 0..expected.size as u32 {
            assert_eq!(again.is_special(id), original.is_special(id), "{kind}: {id}");
        }
        assert_eq!(again.to_gguf().unwrap(), metadata, "{kind}: a second time");
        // What the file that Python wrote says, this one says too, apart from the scores, which are ranks.
        for (key, value) in self::metadata(kind) {
            // A byte-level vocabulary has no use for an unknown token, and tokenizer.json does not name one.
            let theirs_alone = !key.starts_with("tokenizer.")
                || key == "tokenizer.ggml.scores"
                || kind == "byte_level" && key == "tokenizer.ggml.unknown_token_id";
            assert!(theirs_alone || metadata.get(&key) == Some(&value), "{kind}: {key}");
        }
    }
}

#[test]
fn scores_stand_for_merges() {
    // llama.cpp reads the scores of a SentencePiece vocabulary and not the merges.
    let mut metadata = Tokenizer::from_folder(fixtures().join("sentencepiece")).unwrap().to_gguf().unwrap();
    assert!(metadata.remove("tokenizer.ggml.merges").is_some());
    let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
    assert_encodes(&tokenizer, &expected("sentencepiece").variants["llama"], "by scores");
}

/// A change to a tokenizer file.
type Change<'a> = &'a dyn Fn(&mut Value);

#[test]
fn what_a_gguf_has_no_place_for_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    let reason = |kind: &str, change: &dyn Fn(&mut Value)| {
        let mut json: Value = read(fixtures().join(kind).join("tokenizer.json"));
        change(&mut json);
        fs::write(&path, json.to_string()).unwrap();
        Tokenizer::from_file(&path).unwrap().to_gguf().unwrap_err().to_string()
    };
    let split = json!({ "type": "WhitespaceSplit" });
    let cases: [(&str, Change<'_>, &str); 5] = [
        ("byte_level", &|json| json["pre_tokenizer"]["pretokenizers"][0] = split.clone(), "pre-tokenizer"),
        ("byte_level", &|json| json["normalizer"] = json!({ "type": "Lowercase" }), "pre-tokenizer"),
        ("byte_level", &|json| json["model"]["ignore_merges"] = json!(true), "ignore_merges"),
        ("sentencepiece", &|json| json["normalizer"] = json!({ "type": "NFKC" }), "normalizer"),
        ("sentencepiece", &|json| json["model"]["byte_fallback"] = json!(false), "bytes"),
    ];
    for (kind, change, expected) in cases {
        let found = reason(kind, change);
        assert!(found.contains("GGUF") && found.contains(expected), "{found}");
    }
}

#[test]
fn what_is_saved_reads_back_the_same() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("new/tokenizer.json");
    for (kind, variant) in [("byte_level", "smollm"), ("sentencepiece", "llama")] {
        let built = Tokenizer::from_gguf(&metadata(kind)).unwrap();
        built.save(&path).unwrap();
        let expected = expected(kind);
        let read_back = Tokenizer::from_file(&path).unwrap();
        assert_encodes(&read_back, &expected.variants[variant], kind);
        assert_decodes(&read_back, &expected.decodings);
        assert_eq!(read_back.encode("a", true).unwrap(), built.encode("a", true).unwrap());
        // And it is, part for part, what Python wrote.
        let (ours, theirs): (Value, Value) =
            (read(&path), read(fixtures().join(kind).join("tokenizer.json")));
        for part in ["normalizer", "pre_tokenizer", "added_tokens"] {
            assert_eq!(ours[part], theirs[part], "{kind}: {part}");
        }
        for part in ["vocab", "merges", "byte_fallback", "ignore_merges"] {
            assert_eq!(ours["model"][part], theirs["model"][part], "{kind}: {part}");
        }
    }
}

#[test]
fn a_folder_says_which_tokens_are_special() {
    let tokenizer = Tokenizer::from_folder(fixtures().join("byte_level")).unwrap();
    assert_eq!(tokenizer.bos_token().as_deref(), Some("<|im_start|>"));
    assert_eq!(tokenizer.eos_token().as_deref(), Some("<|im_end|>"));
    let id = |token: &str| tokenizer.token_to_id(token).unwrap();
    // The tokenizer's own first, then those of generation_config.json, each once; config.json's are not asked.
    assert_eq!(tokenizer.eos_token_ids(), [id("<|im_end|>"), id("<|endoftext|>")]);
    assert_eq!(tokenizer.bos_token_id(), Some(id("<|im_start|>")));
    assert_eq!(tokenizer.pad_token_id(), Some(id("<|im_end|>")));
    assert!(tokenizer.is_special(id("<|im_end|>")) && !tokenizer.is_special(id("<think>")));
    assert_eq!(tokenizer.id_to_token(id("<think>")).as_deref(), Some("<think>"));
    assert_eq!(tokenizer.id_to_token(1_000_000), None);

    let tokenizer = Tokenizer::from_folder(fixtures().join("sentencepiece")).unwrap();
    assert_eq!(
        (tokenizer.bos_token_id(), tokenizer.eos_token_ids(), tokenizer.pad_token_id()),
        (Some(1), &[2][..], None)
    );
}

#[test]
fn a_gguf_says_which_tokens_are_special() {
    let tokenizer = Tokenizer::from_gguf(&metadata("byte_level")).unwrap();
    assert_eq!(tokenizer.eos_token_ids(), [2, 0]);
    assert_eq!((tokenizer.bos_token_id(), tokenizer.pad_token_id()), (Some(1), Some(2)));
    assert_eq!(tokenizer.eos_token().as_deref(), Some("<|im_end|>"));
}

#[test]
fn begin_and_end_tokens_are_added_as_the_gguf_says() {
    let cases = [
        ("byte_level", None, None, None, (false, false)),
        ("byte_level", Some("llama-bpe"), None, None, (true, false)),
        ("byte_level", Some("llama-bpe"), Some(false), Some(true), (false, true)),
        ("byte_level", None, Some(true), Some(true), (true, true)),
        ("sentencepiece", None, None, None, (true, false)),
        ("sentencepiece", None, Some(false), Some(false), (false, false)),
    ];
    for (kind, pre, begin, end, (begins, ends)) in cases {
        let mut metadata = metadata(kind);
        metadata.remove("tokenizer.ggml.add_bos_token");
        metadata.extend(pre.map(|pre| ("tokenizer.ggml.pre".to_owned(), string(pre))));
        for (name, value) in [("bos", begin), ("eos", end)] {
            metadata.extend(
                value.map(|value| (format!("tokenizer.ggml.add_{name}_token"), MetadataValue::Bool(value))),
            );
        }
        let tokenizer = Tokenizer::from_gguf(&metadata).unwrap();
        let mut expected = tokenizer.encode("some text", false).unwrap();
        if begins {
            expected.insert(0, tokenizer.bos_token_id().unwrap());
        }
        if ends {
            expected.push(tokenizer.eos_token_ids()[0]);
        }
        assert_eq!(
            tokenizer.encode("some text", true).unwrap(),
            expected,
            "{kind} {pre:?} {begin:?} {end:?}"
        );
    }
}

#[test]
fn a_stream_shows_characters_whole_and_soon() {
    let text = "señal ἀγάπη 凤凰 🦊🐉 𝔘 end";
    let tokenizer = Tokenizer::from_folder(fixtures().join("byte_level")).unwrap();
    let ids = tokenizer.encode(text, false).unwrap();
    let mut held = 0;
    let mut stream = tokenizer.decode_stream(true);
    let mut shown = String::new();
    for (index, &id) in ids.iter().enumerate() {
        if let Some(piece) = stream.step(id).unwrap() {
            assert!(!piece.contains(char::REPLACEMENT_CHARACTER), "{piece:?}");
            shown += &piece;
        } else {
            held += 1;
        }
        // Nothing that is complete is held back.
        let complete = tokenizer.decode(&ids[..=index], true).unwrap();
        assert_eq!(shown, complete.trim_end_matches(char::REPLACEMENT_CHARACTER), "after {index}");
    }
    assert_eq!(stream.finish().unwrap(), None);
    assert_eq!(shown, text);
    assert!(held > 10, "only {held} tokens end within a character");
}

#[test]
fn truncation_and_padding_of_the_file_are_dropped() {
    let mut json: Value = read(fixtures().join("byte_level/tokenizer.json"));
    json["truncation"] =
        json!({"direction": "Right", "max_length": 2, "strategy": "LongestFirst", "stride": 0});
    json["padding"] = json!({"strategy": {"Fixed": 64}, "direction": "Right", "pad_to_multiple_of": null,
        "pad_id": 0, "pad_type_id": 0, "pad_token": "<|endoftext|>"});
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::write(&path, json.to_string()).unwrap();
    assert_encodes(&Tokenizer::from_file(path).unwrap(), &expected("byte_level").variants["smollm"], "cut");
}

fn reason(error: Error) -> String {
    match error {
        Error::Tokenizer { reason } => reason,
        other => panic!("not about a tokenizer: {other}"),
    }
}

#[test]
fn unusable_gguf_metadata_is_refused_with_the_reason() {
    fn list(metadata: &mut Metadata, name: &str) -> Vec<MetadataValue> {
        match metadata.remove(name) {
            Some(MetadataValue::Array(values)) => values,
            other => panic!("{name}: {other:?}"),
        }
    }
    const BYTES: &str = "byte_level";
    const PIECES: &str = "sentencepiece";
    type Damage = fn(&mut Metadata);
    let cases: &[(&str, &str, Damage)] = &[
        (BYTES, "tokenizer.ggml.model", |m| drop(m.remove("tokenizer.ggml.model"))),
        (BYTES, "`gpt2`", |m| drop(m.insert("tokenizer.ggml.model".into(), string("t5")))),
        (BYTES, "smollm, llama-bpe", |m| drop(m.insert("tokenizer.ggml.pre".into(), string("viking")))),
        (BYTES, "not a string", |m| drop(m.insert("tokenizer.ggml.pre".into(), MetadataValue::U32(1)))),
        (BYTES, "carries no tokenizer", |m| drop(m.remove("tokenizer.ggml.tokens"))),
        (BYTES, "array of strings", |m| {
            drop(m.insert("tokenizer.ggml.tokens".into(), MetadataValue::Array(vec![MetadataValue::U8(1)])))
        }),
        (BYTES, "`tokenizer.ggml.merges` is missing", |m| drop(m.remove("tokenizer.ggml.merges"))),
        (BYTES, "2 entries for", |m| {
            let types = MetadataValue::Array(vec![MetadataValue::I32(1); 2]);
            m.insert("tokenizer.ggml.token_type".into(), types);
        }),
        (BYTES, "are both", |m| {
            let mut tokens = list(m, "tokenizer.ggml.tokens");
            tokens[300] = tokens[301].clone();
            m.insert("tokenizer.ggml.tokens".into(), MetadataValue::Array(tokens));
        }),
        (BYTES, "is not a token", |m| {
            drop(m.insert("tokenizer.ggml.merges".into(), MetadataValue::Array(vec![string("a unheardof")])))
        }),
        // Each part is a token, but not what they make; longer than every token.
        (BYTES, "is not a token", |m| {
            let pair = string("<|endoftext|> <|endoftext|>");
            m.insert("tokenizer.ggml.merges".into(), MetadataValue::Array(vec![pair]));
        }),
        (BYTES, "a space between", |m| {
            drop(m.insert("tokenizer.ggml.merges".into(), MetadataValue::Array(vec![string("ab")])))
        }),
        (BYTES, "a space between", |m| {
            drop(m.insert("tokenizer.ggml.merges".into(), MetadataValue::Array(vec![string("")])))
        }),
        (BYTES, "is 4294967295", |m| {
            drop(m.insert("tokenizer.ggml.eos_token_id".into(), MetadataValue::U32(u32::MAX)))
        }),
        (BYTES, "is -1", |m| drop(m.insert("tokenizer.ggml.bos_token_id".into(), MetadataValue::I32(-1)))),
        (BYTES, "not a boolean", |m| drop(m.insert("tokenizer.ggml.add_bos_token".into(), string("yes")))),
        (PIECES, "1 entries for", |m| {
            drop(
                m.insert("tokenizer.ggml.scores".into(), MetadataValue::Array(vec![MetadataValue::F32(0.0)])),
            )
        }),
        (PIECES, "finite numbers", |m| {
            drop(m.insert(
                "tokenizer.ggml.scores".into(),
                MetadataValue::Array(vec![MetadataValue::F32(f32::NAN)]),
            ))
        }),
        (PIECES, "tokenizer.ggml.scores", |m| drop(m.remove("tokenizer.ggml.scores"))),
        (PIECES, "gemma", |m| drop(m.insert("general.architecture".into(), string("gemma2")))),
        (PIECES, "is 9999", |m| {
            drop(m.insert("tokenizer.ggml.unknown_token_id".into(), MetadataValue::U32(9999)))
        }),
        (PIECES, "characters long", |m| {
            let mut tokens = list(m, "tokenizer.ggml.tokens");
            tokens[300] = string(&"é".repeat(100_000));
            m.insert("tokenizer.ggml.tokens".into(), MetadataValue::Array(tokens));
        }),
    ];
    for (kind, expected, damage) in cases {
        let mut metadata = metadata(kind);
        damage(&mut metadata);
        let text = reason(Tokenizer::from_gguf(&metadata).unwrap_err());
        assert!(text.contains(expected), "expected {expected:?} in {text:?}");
    }
}

#[test]
fn an_unusable_folder_is_refused_with_the_reason() {
    let folder = tempfile::tempdir().unwrap();
    let write = |name: &str, text: &str| fs::write(folder.path().join(name), text).unwrap();
    let refusal = || Tokenizer::from_folder(folder.path()).unwrap_err().to_string();

    assert!(refusal().contains("tokenizer.json is missing"));
    write("tokenizer.model", "");
    assert!(refusal().contains("save_pretrained"));
    write("tokenizer.json", "{");
    assert!(refusal().contains("not valid JSON"));
    write("tokenizer.json", r#"{"model": {"type": "Nonsense"}}"#);
    assert!(refusal().contains("tokenizer"));

    let mut json: Value = read(fixtures().join("byte_level/tokenizer.json"));
    write("tokenizer.json", &json.to_string());
    assert!(Tokenizer::from_folder(folder.path()).is_ok());
    write("tokenizer_config.json", r#"{"eos_token": "</nowhere>"}"#);
    let text = refusal();
    assert!(
        text.contains("tokenizer_config.json") && text.contains("eos_token") && text.contains("</nowhere>"),
        "{text}"
    );
    write("tokenizer_config.json", "{}");
    write("config.json", r#"{"eos_token_id": [0, 100000]}"#);
    assert!(refusal().contains("100000"));
    write("config.json", r#"{"eos_token_id": "two"}"#);
    assert!(refusal().contains("two"));
    write("config.json", r#"{"eos_token_id": -1}"#);
    assert!(Tokenizer::from_folder(folder.path()).unwrap().eos_token_ids().is_empty());

    // A merge that makes a token longer than all there are would overrun a buffer of the `tokenizers` crate.
    json["model"]["merges"] = json!([["<|endoftext|>", "<|endoftext|>"]]);
    write("tokenizer.json", &json.to_string());
    assert!(refusal().contains("merge 0"));
    json["model"]["merges"] = json!(["<|endoftext|> <|endoftext|>"]);
    write("tokenizer.json", &json.to_string());
    assert!(refusal().contains("merge 0"));
}

#[test]
fn tokens_listed_only_in_the_config_are_added() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("tokenizer.json");
    fs::copy(fixtures().join("byte_level/tokenizer.json"), &path).unwrap();
    let next = Tokenizer::from_file(&path).unwrap().vocab_size();
    let config = |id: usize| {
        let listed = json!({"added_tokens_decoder": {
            (id + 1).to_string(): {"content": "<b>", "special": false, "normalized": false},
            id.to_string(): {"content": "<a>", "special": true},
        }, "eos_token": "<a>"});
        fs::write(folder.path().join("tokenizer_config.json"), listed.to_string()).unwrap();
    };
    config(next);
    let tokenizer = Tokenizer::from_folder(folder.path()).unwrap();
    let next = u32::try_from(next).unwrap();
    assert_eq!(tokenizer.encode("<a><b>", false).unwrap(), [next, next + 1]);
    assert!(tokenizer.is_special(next) && !tokenizer.is_special(next + 1));
    assert_eq!(tokenizer.eos_token_ids(), [next]);
    config(5000);
    assert!(Tokenizer::from_folder(folder.path()).unwrap_err().to_string().contains("5000"));
}

/// The real SmolLM2 as scripts/check_smollm2_tokenizer.py recorded it.
#[test]
#[ignore = "needs a real model: set LLMKIT_SMOLLM2_GGUF to SmolLM2-135M-Instruct's GGUF file and LLMKIT_SMOLLM2_IDS to what \
            scripts/check_smollm2_tokenizer.py wrote for it, and run with --run-ignored"]
fn smollm2_encodes_as_python_does() {
    let variable = |name: &str| std::env::var(name).unwrap_or_else(|_| panic!("set {name}"));
    let file = GgufFile::open(variable("LLMKIT_SMOLLM2_GGUF")).unwrap();
    let tokenizer = Tokenizer::from_gguf(file.metadata()).unwrap();
    let recorded: Value = read(variable("LLMKIT_SMOLLM2_IDS"));
    let expected: Vec<Vec<u32>> = serde_json::from_value(recorded["ids"].clone()).unwrap();
    assert_encodes(&tokenizer, &expected, "SmolLM2");
    for text in texts() {
        assert_eq!(tokenizer.decode(&tokenizer.encode(&text, false).unwrap(), false).unwrap(), text);
    }
    let template = llmkit_core::ChatTemplate::from_gguf(file.metadata()).unwrap();
    for case in recorded["chats"].as_array().unwrap() {
        let messages: Vec<llmkit_core::Message> = serde_json::from_value(case["messages"].clone()).unwrap();
        let text = template.render(&messages, true).unwrap();
        assert_eq!(text, case["text"].as_str().unwrap());
        let ids: Vec<u32> = serde_json::from_value(case["ids"].clone()).unwrap();
        assert_eq!(tokenizer.encode(&text, false).unwrap(), ids);
    }
}
