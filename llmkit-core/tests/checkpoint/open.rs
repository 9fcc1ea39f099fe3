use llmkit_core::Error;
use llmkit_core::checkpoint::Checkpoint;

use crate::build::{Gguf, folder, safetensors};
use crate::{assert_holds, fixture};

fn message(files: &[(&str, &[u8])]) -> String {
    Checkpoint::open(folder(files).path()).unwrap_err().to_string()
}

#[test]
fn opens_a_folder_and_a_gguf_file() {
    let path = fixture("llama/f16");
    let checkpoint = Checkpoint::open(&path).unwrap();
    assert_eq!(checkpoint.path(), path);
    assert_eq!(checkpoint.config()["hidden_size"], 48);
    assert!(checkpoint.gguf().is_none());
    assert_eq!(checkpoint.source().info("model.embed_tokens.weight").unwrap().shape, [101, 48]);

    let checkpoint = Checkpoint::open(fixture("llama/gguf/model.gguf")).unwrap();
    assert_eq!(checkpoint.config()["hidden_size"], 64);
    assert_eq!(checkpoint.gguf().unwrap().architecture(), "llama");
    assert_eq!(assert_holds(checkpoint.source(), "llama/gguf/weights.safetensors"), 6);
}

#[test]
fn what_is_missing_is_named_with_a_remedy() {
    let weights = safetensors("{}", 0);
    let absent = Checkpoint::open(fixture("no-such-model")).unwrap_err();
    assert!(
        matches!(&absent, Error::MissingFile { path, .. } if path.ends_with("no-such-model")),
        "{absent}"
    );
    let cases = [
        ("config.json is missing", message(&[("model.safetensors", &weights)])),
        ("neither model.safetensors nor", message(&[("config.json", b"{}")])),
        ("pickle", message(&[("config.json", b"{}"), ("pytorch_model.bin", b"\x80\x02")])),
        ("save_pretrained", message(&[("config.json", b"{}"), ("pytorch_model.bin.index.json", b"{}")])),
        ("config.json is not valid JSON", message(&[("config.json", b"{"), ("model.safetensors", &weights)])),
        ("a JSON object", message(&[("config.json", b"[]"), ("model.safetensors", &weights)])),
    ];
    for (expected, found) in cases {
        assert!(found.contains(expected), "{expected:?} is not in: {found}");
    }
    let single = Checkpoint::open(fixture("llama/f16/model.safetensors")).unwrap_err().to_string();
    assert!(single.contains("pass the folder"), "{single}");
}

#[test]
fn a_gguf_file_is_known_by_its_content_and_needs_its_hyperparameters() {
    let files = folder(&[("weights.bin", &Gguf::small().bytes())]);
    let error = Checkpoint::open(files.path().join("weights.bin")).unwrap_err();
    assert!(matches!(&error, Error::Config { field, .. } if field == "qwen2.embedding_length"), "{error}");
}
