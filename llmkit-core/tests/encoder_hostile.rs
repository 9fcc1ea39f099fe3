//! Folders of encoders that were tampered with: an error or a model each time, never a panic.
#![allow(missing_docs, clippy::unwrap_used)]

use std::fs;
use std::path::{Path, PathBuf};

use llmkit_core::Device;
use llmkit_core::checkpoint::Checkpoint;
use llmkit_core::embed::{CrossEncoder, SentenceEncoder};
use llmkit_core::models::{load_encoder, load_masked_lm, load_sequence_classifier, load_token_classifier};
use serde_json::{Value, json};

/// Mutations of each folder.
const ROUNDS: u64 = 250;

fn fixtures() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures")
}

fn device() -> burn::tensor::Device {
    Device::from_env().unwrap().resolve().unwrap()
}

/// A small generator of numbers (splitmix64): the same tampering in every run.
struct Numbers(u64);

impl Numbers {
    fn next(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    fn below(&mut self, end: usize) -> usize {
        (self.next() % end as u64) as usize
    }
}

fn hostile(numbers: &mut Numbers) -> Value {
    let values = [
        json!(null),
        json!(0),
        json!(-1),
        json!(1),
        json!(2),
        json!(7),
        json!(1u64 << 27),
        json!(u64::MAX),
        json!(1e300),
        json!(0.5),
        json!("gelu"),
        json!("../../x"),
        json!(""),
        json!(true),
        json!([]),
        json!({}),
        json!(["cls", "max"]),
        json!({"0": "a", "1": "b"}),
        json!(["full_attention", "sliding_attention"]),
    ];
    values[numbers.below(values.len())].clone()
}

/// Changes one field somewhere in `value`.
fn tamper(value: &mut Value, numbers: &mut Numbers) {
    match value {
        Value::Object(fields) if !fields.is_empty() => {
            let name = fields.keys().nth(numbers.below(fields.len())).unwrap().clone();
            if numbers.below(8) == 0 {
                fields.remove(&name);
            } else {
                tamper(&mut fields[&name], numbers);
            }
        }
        Value::Array(items) if !items.is_empty() => {
            let at = numbers.below(items.len());
            tamper(&mut items[at], numbers);
        }
        other => *other = hostile(numbers),
    }
}

fn files(folder: &Path, below: &str) -> Vec<String> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder.join(below)).unwrap() {
        let entry = entry.unwrap();
        let name = Path::new(below).join(entry.file_name()).to_str().unwrap().to_owned();
        if entry.file_type().unwrap().is_dir() {
            found.extend(files(folder, &name));
        } else if !name.ends_with("expected.safetensors") {
            found.push(name);
        }
    }
    found.sort();
    found
}

/// Lays `folders` over each other, and gives `load` the result with one file changed, again and again. Some of the results must load and some not, or
/// the tampering would show nothing.
fn survives(folders: &[&str], load: impl Fn(&Path) -> bool) {
    let place = tempfile::tempdir().unwrap();
    for folder in folders.iter().map(|folder| fixtures().join(folder)) {
        for file in files(&folder, "") {
            let to = place.path().join(&file);
            fs::create_dir_all(to.parent().unwrap()).unwrap();
            fs::copy(folder.join(&file), to).unwrap();
        }
    }
    assert!(load(place.path()), "{folders:?} does not load untouched");
    let names = files(place.path(), "");
    let mut numbers = Numbers(folders.iter().map(|name| name.len() as u64).sum());
    let (mut loaded, mut refused) = (0, 0);
    for _ in 0..ROUNDS {
        // config.json has most of the fields, so it has its turn more often.
        let turn = numbers.below(names.len() + 3);
        let name = names.get(turn).map_or("config.json", String::as_str);
        let path = place.path().join(name);
        let before = fs::read(&path).unwrap();
        let after = match serde_json::from_slice::<Value>(&before) {
            Ok(mut value) if numbers.below(5) > 0 => {
                tamper(&mut value, &mut numbers);
                value.to_string().into_bytes()
            }
            _ => {
                let mut bytes = before.clone();
                for _ in 0..1 + numbers.below(4) {
                    let at = numbers.below(bytes.len());
                    bytes[at] = numbers.next() as u8;
                }
                if numbers.below(4) == 0 {
                    bytes.truncate(numbers.below(bytes.len()));
                }
                bytes
            }
        };
        // Another file in its place: the one before may still be mapped.
        fs::remove_file(&path).unwrap();
        fs::write(&path, after).unwrap();
        if load(place.path()) {
            loaded += 1
        } else {
            refused += 1
        }
        fs::remove_file(&path).unwrap();
        fs::write(&path, before).unwrap();
    }
    assert!(loaded > 10 && refused > 10, "{folders:?}: {loaded} loaded, {refused} refused");
}

#[test]
fn encoders_and_heads() {
    let device = device();
    let open = |folder: &Path| Checkpoint::open(folder).ok();
    for name in ["bert", "roberta", "distilbert", "modernbert"] {
        survives(&[&format!("encoders/{name}")], |folder| {
            open(folder).is_some_and(|checkpoint| load_encoder(&checkpoint, &device).is_ok())
        });
    }
    for name in ["bert-old-names", "bert-untied", "roberta-mlm", "modernbert-mlm"] {
        survives(&[&format!("encoders/{name}")], |folder| {
            open(folder).is_some_and(|checkpoint| load_masked_lm(&checkpoint, &device).is_ok())
        });
    }
    for name in ["bert-sequence", "xlm-roberta-sequence", "distilbert-sequence", "modernbert-mean"] {
        survives(&[&format!("encoders/{name}")], |folder| {
            open(folder).is_some_and(|checkpoint| load_sequence_classifier(&checkpoint, &device).is_ok())
        });
    }
    survives(&["encoders/camembert-token"], |folder| {
        open(folder).is_some_and(|checkpoint| load_token_classifier(&checkpoint, &device).is_ok())
    });
}

#[test]
fn sentence_encoders_that_load_also_encode() {
    for variant in ["prompts-excluded", "dense", "newest", "lower-case"] {
        survives(&["sentence/base", &format!("sentence/{variant}")], |folder| {
            match SentenceEncoder::load(folder, &device()) {
                Ok(encoder) => match encoder.encode_queries(&["the cat sat on the mat", "A dog"]) {
                    Ok(vectors) => vectors.iter().all(|vector| vector.len() == encoder.dimensions()),
                    Err(_) => false,
                },
                Err(_) => false,
            }
        });
    }
}

#[test]
fn cross_encoders_that_load_also_score() {
    survives(&["sentence/cross", "sentence/cross-identity"], |folder| {
        CrossEncoder::load(folder, &device()).is_ok_and(|model| model.score(&[("the cat", "a dog")]).is_ok())
    });
}
