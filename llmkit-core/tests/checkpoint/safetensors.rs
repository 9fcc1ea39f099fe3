use llmkit_core::Error;
use llmkit_core::checkpoint::{Safetensors, TensorSource};

use crate::build::{folder, safetensors};
use crate::fixture;

const A: &str = r#"{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
const B: &str = r#"{"b":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}"#;
const INDEX: &str = "model.safetensors.index.json";

#[test]
fn reads_what_python_wrote() {
    let file = Safetensors::open(fixture("checkpoint/dtypes.safetensors")).unwrap();
    let counting: Vec<f32> = (0..24).map(|i| i as f32 * 0.25 - 3.0).collect();
    for (name, dtype) in [("f32", "F32"), ("f16", "F16"), ("bf16", "BF16")] {
        assert_eq!(file.read_f32(name).unwrap(), counting, "{name}");
        let info = file.info(name).unwrap();
        assert_eq!((info.dtype.as_str(), info.shape.as_slice()), (dtype, [2, 3, 4].as_slice()));
    }
    assert_eq!(file.read_f32("scalar").unwrap(), [2.5]);
    assert!(file.info("scalar").unwrap().shape.is_empty());
    assert!(file.read_f32("empty").unwrap().is_empty());
    let error = file.read_f32("i64").unwrap_err().to_string();
    assert!(error.contains("tensor `i64` as F32, F16 or BF16") && error.contains("I64"), "{error}");
    let error = file.read_f32("absent").unwrap_err();
    assert!(matches!(&error, Error::Tensors { missing, .. } if missing == &["absent"]), "{error}");
}

#[test]
fn reads_shards_through_their_index() {
    let path = fixture("llama/sharded-bf16");
    let sharded = Safetensors::open(&path).unwrap();
    // The same tensors, shard by shard, each as a file of its own.
    let mut names = Vec::new();
    for shard in 1..=3 {
        let single = Safetensors::open(path.join(format!("model-0000{shard}-of-00003.safetensors"))).unwrap();
        assert_eq!(single.metadata()["format"], "pt");
        for name in single.names() {
            assert_eq!(sharded.info(&name), single.info(&name));
            assert_eq!(sharded.read_f32(&name).unwrap(), single.read_f32(&name).unwrap());
            names.push(name);
        }
    }
    names.sort();
    assert_eq!(sharded.names(), names);
    assert_eq!(names.len(), 21);
    assert_eq!(Safetensors::open(path.join(INDEX)).unwrap().names(), names);
}

#[test]
fn malformed_files_are_refused() {
    let message = |bytes: Vec<u8>| Safetensors::from_bytes(bytes).unwrap_err().to_string();
    let one = |shape: &str, offsets: &str, data: usize| {
        message(safetensors(
            &format!(r#"{{"a":{{"dtype":"F32","shape":{shape},"data_offsets":{offsets}}}}}"#),
            data,
        ))
    };
    let two = |second: &str| {
        let first = r#""a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}"#;
        message(safetensors(&format!("{{{first},{second}}}"), 8))
    };
    let huge = (1u64 << 61) - 1;
    let lies: Vec<String> = (0..8u64)
        .map(|i| {
            let (begin, end) = (i * huge, (i + 1) * huge);
            format!(r#""t{i}":{{"dtype":"U8","shape":[{huge}],"data_offsets":[{begin},{end}]}}"#)
        })
        .collect();
    let cases = [
        ("truncated", message(vec![0; 7])),
        ("100000000 bytes", message([&100_000_001u64.to_le_bytes()[..], b"{}"].concat())),
        ("truncated", message([&3u64.to_le_bytes()[..], b"{}"].concat())),
        ("repeated names", message(safetensors("[]", 0))),
        ("truncated", one("[1]", "[0,4]", 3)),
        ("something follows", one("[1]", "[0,4]", 5)),
        ("side by side", one("[2]", "[0,4]", 4)),
        ("side by side", one("[1]", "[0,5]", 5)),
        ("side by side", one("[1]", "[4,0]", 4)),
        ("side by side", one("[1]", "[2,6]", 6)),
        ("side by side", one("[4611686018427387904,4]", "[0,0]", 0)),
        ("`a` twice", two(r#""a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#)),
        ("side by side", two(r#""b":{"dtype":"F32","shape":[1],"data_offsets":[2,6]}"#)),
        ("side by side", two(r#""b":{"dtype":"Q9","shape":[1],"data_offsets":[4,8]}"#)),
        // Header and data of 2^64 - 8 bytes together, where a careless sum overflows.
        ("truncated", message(safetensors(&format!("{{{}}}", lies.join(",")), 0))),
    ];
    for (expected, found) in cases {
        assert!(found.contains(expected), "{expected:?} is not in: {found}");
    }
}

#[test]
fn an_index_and_its_shards_must_agree() {
    let (a, b) = (safetensors(A, 4), safetensors(B, 4));
    let second = r#""b":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}"#;
    let a_and_b = safetensors(&format!("{},{second}}}", A.strip_suffix('}').unwrap()), 8);
    let message = |index: &str, files: &[(&str, &[u8])]| {
        let mut files = files.to_vec();
        files.push((INDEX, index.as_bytes()));
        Safetensors::open(folder(&files).path()).unwrap_err().to_string()
    };
    let both = r#"{"weight_map":{"a":"1.safetensors","b":"2.safetensors"}}"#;
    let one = ("1.safetensors", a.as_slice());
    let two = ("2.safetensors", b.as_slice());
    assert!(Safetensors::open(folder(&[(INDEX, both.as_bytes()), one, two]).path()).is_ok());

    let cases = [
        ("2.safetensors is missing", message(both, &[one])),
        ("tensor `b`", message(r#"{"weight_map":{"a":"1.safetensors","b":"1.safetensors"}}"#, &[one])),
        ("found `b`", message(r#"{"weight_map":{"a":"1.safetensors"}}"#, &[("1.safetensors", &a_and_b)])),
        ("`../1.safetensors`", message(r#"{"weight_map":{"a":"../1.safetensors"}}"#, &[one])),
        ("`/etc/passwd`", message(r#"{"weight_map":{"a":"/etc/passwd"}}"#, &[one])),
        ("not valid JSON", message(r#"{"weight_map":{"a":1}}"#, &[one])),
        (
            "2.safetensors is not a usable checkpoint",
            message(both, &[one, ("2.safetensors", &b[..b.len() - 1])]),
        ),
    ];
    for (expected, found) in cases {
        assert!(found.contains(expected), "{expected:?} is not in: {found}");
    }
}
