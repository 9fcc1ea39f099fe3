//! Tokenizers, from their own files and out of GGUF.

use llmkit_core::Tokenizer;
use llmkit_core::checkpoint::gguf::GgufFile;

use crate::{campaign, mutate, read};

const TEXT: &str = "Hello <|im_start|> wörld 🌍 don't 12345\n\n  </s> \u{0}";

/// What loaded must work, or say why it does not.
fn use_it(tokenizer: &Tokenizer) {
    let Ok((ids, offsets)) = tokenizer.encode_with_offsets(TEXT, true) else { return };
    assert_eq!(ids.len(), offsets.len());
    let _ = tokenizer.decode(&ids, true);
    let mut stream = tokenizer.decode_stream(false);
    for id in ids.iter().take(20).chain(&[0, u32::MAX]) {
        let _ = stream.step(*id);
    }
    let _ = (tokenizer.bos_token(), tokenizer.eos_token(), tokenizer.pad_token_id(), tokenizer.vocab_size());
}

#[test]
fn tokenizer_files() {
    for (folder, count) in [("tokenizer/byte_level", 1200), ("tokenizer/sentencepiece", 1200)] {
        let valid = read(&format!("{folder}/tokenizer.json"));
        let place = tempfile::tempdir().unwrap();
        let path = place.path().join("tokenizer.json");
        let outcome = campaign(
            folder,
            count,
            |rng| {
                let bytes = mutate::json(rng, &valid);
                let size = bytes.len();
                (bytes, size)
            },
            |bytes| {
                std::fs::write(&path, bytes).unwrap();
                let tokenizer = Tokenizer::from_file(&path);
                tokenizer.iter().for_each(use_it);
                tokenizer.is_ok()
            },
        );
        assert!(outcome.loaded > 20 && outcome.refused > 100, "{outcome:?}");
    }
}

#[test]
fn tokenizer_settings() {
    let tokenizer = read("tokenizer/byte_level/tokenizer.json");
    let valid: Vec<_> = ["config.json", "generation_config.json", "tokenizer_config.json"]
        .map(|name| (name, read(&format!("tokenizer/byte_level/{name}"))))
        .into();
    let place = tempfile::tempdir().unwrap();
    std::fs::write(place.path().join("tokenizer.json"), &tokenizer).unwrap();
    let outcome = campaign(
        "tokenizer settings",
        800,
        |rng| {
            let mut files = valid.clone();
            let which = rng.below(3);
            files[which].1 = mutate::json(rng, &valid[which].1);
            let size = tokenizer.len() + files.iter().map(|(_, bytes)| bytes.len()).sum::<usize>();
            (files, size)
        },
        |files| {
            for (name, bytes) in files {
                std::fs::write(place.path().join(name), bytes).unwrap();
            }
            let tokenizer = Tokenizer::from_folder(place.path());
            tokenizer.iter().for_each(use_it);
            tokenizer.is_ok()
        },
    );
    assert!(outcome.loaded > 20 && outcome.refused > 20, "{outcome:?}");
}

#[test]
fn gguf() {
    for (folder, count) in [("tokenizer/byte_level", 800), ("tokenizer/sentencepiece", 800)] {
        let valid = read(&format!("{folder}/tokenizer.gguf"));
        let outcome = campaign(
            &format!("{folder}, gguf"),
            count,
            |rng| {
                let bytes = mutate::bytes(rng, &valid, valid.len());
                let size = bytes.len();
                (bytes, size)
            },
            |bytes| {
                let Ok(file) = GgufFile::from_bytes(bytes.clone()) else { return false };
                let tokenizer = Tokenizer::from_gguf(file.metadata());
                tokenizer.iter().for_each(use_it);
                tokenizer.is_ok()
            },
        );
        assert!(outcome.loaded > 20 && outcome.refused > 100, "{outcome:?}");
    }
}
