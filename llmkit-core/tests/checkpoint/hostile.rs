//! Whatever the bytes: no panic, and no more memory than a multiple of the file.

use llmkit_core::checkpoint::gguf::GgufFile;
use llmkit_core::checkpoint::{Safetensors, TensorSource};
use proptest::prelude::*;

use crate::build::{Gguf, pair, safetensors, tensor, text};
use crate::fixture;
use crate::memory::peak_of;

/// Memory allowed for a file: a metadata value takes up to 32 bytes for one byte of file, and serde's intermediate form of JSON a little more;
/// the constant is for error messages and the like.
fn allowance(file: usize) -> usize {
    64 * file + (64 << 10)
}

/// Opens and reads everything; says whether the file opened.
fn exercise_gguf(bytes: &[u8]) -> bool {
    let copy = bytes.to_vec();
    let (file, peak) = peak_of(|| GgufFile::from_bytes(copy));
    assert!(peak <= allowance(bytes.len()), "{peak} bytes of memory for a file of {}", bytes.len());
    let Ok(file) = file else { return false };
    read_all(&file);
    let _ = file.config();
    let _ = file.rope_factors();
    true
}

fn exercise_safetensors(bytes: &[u8]) -> bool {
    let copy = bytes.to_vec();
    let (file, peak) = peak_of(|| Safetensors::from_bytes(copy));
    assert!(peak <= allowance(bytes.len()), "{peak} bytes of memory for a file of {}", bytes.len());
    let Ok(file) = file else { return false };
    read_all(&file);
    true
}

fn read_all(source: &dyn TensorSource) {
    for name in source.names() {
        if let Ok(values) = source.read_f32(&name) {
            assert_eq!(values.len(), source.info(&name).unwrap().shape.iter().product::<usize>(), "{name}");
        }
    }
}

/// What an attacker does to a valid file.
#[derive(Debug, Clone)]
enum Mutation {
    Truncate(prop::sample::Index),
    Flip(prop::sample::Index, u8),
    /// Overwrites eight bytes, where a length or an offset may be.
    Number(prop::sample::Index, u64),
    Remove(prop::sample::Index, usize),
    Insert(prop::sample::Index, Vec<u8>),
}

fn mutation() -> impl Strategy<Value = Mutation> {
    let at = any::<prop::sample::Index>;
    let number = prop_oneof![Just(u64::MAX), Just(1 << 63), Just(1 << 32), 0..300u64, any::<u64>()];
    prop_oneof![
        1 => at().prop_map(Mutation::Truncate),
        3 => (at(), 0..8u8).prop_map(|(at, bit)| Mutation::Flip(at, bit)),
        3 => (at(), number).prop_map(|(at, number)| Mutation::Number(at, number)),
        1 => (at(), 1..40usize).prop_map(|(at, count)| Mutation::Remove(at, count)),
        1 => (at(), prop::collection::vec(any::<u8>(), 1..40)).prop_map(|(at, bytes)| Mutation::Insert(at, bytes)),
    ]
}

fn mutate(bytes: &mut Vec<u8>, mutation: &Mutation) {
    if bytes.is_empty() {
        return;
    }
    // Most of a file is data, where nothing can go wrong; the head is at most the first kilobyte here.
    let head = bytes.len().min(1024);
    match mutation {
        Mutation::Truncate(at) => bytes.truncate(at.index(bytes.len())),
        Mutation::Flip(at, bit) => bytes[at.index(head)] ^= 1 << bit,
        Mutation::Number(at, number) => {
            let at = at.index(head);
            let end = bytes.len().min(at + 8);
            bytes[at..end].copy_from_slice(&number.to_le_bytes()[..end - at]);
        }
        Mutation::Remove(at, count) => {
            let at = at.index(head);
            bytes.drain(at..bytes.len().min(at + count));
        }
        Mutation::Insert(at, new) => {
            let at = at.index(head);
            bytes.splice(at..at, new.iter().copied());
        }
    }
}

fn valid_gguf() -> Vec<u8> {
    let mut file = Gguf::small();
    file.pairs = vec![
        pair("general.architecture", 8, &text("llama")),
        pair("llama.attention.head_count", 4, &2u32.to_le_bytes()),
        pair(
            "names",
            9,
            &[&8u32.to_le_bytes()[..], &2u64.to_le_bytes(), &text("one"), &text("two")].concat(),
        ),
        pair("bytes", 9, &[&0u32.to_le_bytes()[..], &40u64.to_le_bytes(), &[7; 40]].concat()),
    ];
    file.tensors = vec![
        tensor("token_embd.weight", &[3, 2], 0, 0),
        tensor("blk.0.attn_q.weight", &[32, 4], 3, 32),
        tensor("blk.0.ffn_up.weight", &[256], 12, 128),
        tensor("rope_freqs.weight", &[2], 1, 288),
    ];
    file.data = (0..292).map(|at| at as u8).collect();
    file.bytes()
}

fn valid_safetensors() -> Vec<u8> {
    let header = r#"{"__metadata__":{"format":"pt"},"a":{"dtype":"F32","shape":[2,3],"data_offsets":[0,24]},"b":{"dtype":"BF16","shape":[5],"data_offsets":[24,34]}}"#;
    safetensors(header, 34)
}

#[test]
fn the_files_that_are_mutated_are_valid() {
    assert!(exercise_gguf(&valid_gguf()));
    assert!(exercise_safetensors(&valid_safetensors()));
}

#[test]
fn every_prefix_of_a_valid_file_is_refused() {
    for (valid, exercise) in [
        (valid_gguf(), exercise_gguf as fn(&[u8]) -> bool),
        (valid_safetensors(), exercise_safetensors as fn(&[u8]) -> bool),
    ] {
        for length in 0..valid.len() {
            assert!(!exercise(&valid[..length]), "a prefix of {length} bytes opened");
        }
    }
}

#[test]
fn every_single_bit_of_a_head_may_be_wrong() {
    for (valid, exercise) in [
        (valid_gguf(), exercise_gguf as fn(&[u8]) -> bool),
        (valid_safetensors(), exercise_safetensors as fn(&[u8]) -> bool),
    ] {
        for bit in 0..valid.len() * 8 {
            let mut bytes = valid.clone();
            bytes[bit / 8] ^= 1 << (bit % 8);
            exercise(&bytes);
        }
    }
}

#[test]
fn the_densest_metadata_stay_within_the_allowance() {
    let mut file = Gguf::small();
    let count = 1_000_000u64;
    let array = [&0u32.to_le_bytes()[..], &count.to_le_bytes(), &vec![1; count as usize]].concat();
    file.pairs.push(pair("bytes", 9, &array));
    assert!(exercise_gguf(&file.bytes()));
    // As dense as JSON gets: one tensor whose shape is a long list of ones.
    let ones = vec!["1"; 500_000].join(",");
    let header = format!(r#"{{"a":{{"dtype":"F32","shape":[{ones}],"data_offsets":[0,4]}}}}"#);
    assert!(exercise_safetensors(&safetensors(&header, 4)));
}

#[test]
fn experts_and_layers_that_the_file_makes_up_take_no_memory() {
    let experts = |dims: [u64; 3], bytes: usize| {
        let mut file = Gguf::small();
        file.pairs = vec![pair("general.architecture", 8, &text("qwen3moe"))];
        file.tensors = vec![tensor("blk.0.ffn_up_exps.weight", &dims, 1, 0)];
        file.data = vec![0; bytes];
        file.bytes()
    };
    assert!(exercise_gguf(&experts([32, 1, 4], 256)));
    for (dims, bytes) in [([0, 0, 1 << 40], 0), ([0, 1, u64::MAX], 0), ([1, 1, 4096], 8192), ([32, 1, 0], 0)]
    {
        let bytes = experts(dims, bytes);
        assert!(!exercise_gguf(&bytes), "{dims:?}");
        let error = GgufFile::from_bytes(bytes).unwrap_err().to_string();
        assert!(error.contains("blk.0.ffn_up_exps.weight"), "{error}");
    }

    let mut file = Gguf::small();
    file.pairs = vec![pair("general.architecture", 8, &text("gemma3"))];
    for (key, value) in [
        ("embedding_length", 3),
        ("feed_forward_length", 3),
        ("block_count", u32::MAX),
        ("context_length", 8),
        ("attention.head_count", 1),
        ("attention.sliding_window", 4),
    ] {
        file.pairs.push(pair(&format!("gemma3.{key}"), 4, &value.to_le_bytes()));
    }
    file.pairs.push(pair("gemma3.attention.layer_norm_rms_epsilon", 6, &1e-6f32.to_le_bytes()));
    let file = GgufFile::from_bytes(file.bytes()).unwrap();
    let (config, peak) = peak_of(|| file.config());
    let error = config.unwrap_err().to_string();
    assert!(error.contains("gemma3.block_count") && peak < 16 << 10, "{error}: {peak} bytes");
}

#[test]
fn a_count_beyond_the_file_takes_no_memory() {
    let mut bytes = b"GGUF".to_vec();
    bytes.extend(3u32.to_le_bytes());
    for count in [u64::MAX, 1 << 40, 1 << 32] {
        let claims_tensors = [&bytes[..], &count.to_le_bytes(), &0u64.to_le_bytes()].concat();
        let claims_pairs = [&bytes[..], &0u64.to_le_bytes(), &count.to_le_bytes()].concat();
        for bytes in [claims_tensors, claims_pairs] {
            let (file, peak) = peak_of(|| GgufFile::from_bytes(bytes));
            assert!(file.unwrap_err().to_string().contains("the rest of the head can hold"));
            assert!(peak < 8 << 10, "{peak}");
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(2000))]

    #[test]
    fn arbitrary_bytes_after_the_magic(version in 2..4u32, tail in prop::collection::vec(any::<u8>(), 0..400)) {
        exercise_gguf(&[b"GGUF", &version.to_le_bytes()[..], &tail].concat());
        exercise_gguf(&tail);
        exercise_safetensors(&tail);
        exercise_safetensors(&[&(tail.len() as u64 / 2).to_le_bytes()[..], &tail].concat());
    }

    #[test]
    fn mutated_gguf(mutations in prop::collection::vec(mutation(), 1..5)) {
        let mut bytes = valid_gguf();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        exercise_gguf(&bytes);
    }

    #[test]
    fn mutated_safetensors(mutations in prop::collection::vec(mutation(), 1..5)) {
        let mut bytes = valid_safetensors();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        exercise_safetensors(&bytes);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(100))]

    #[test]
    fn a_mutated_real_model(
        model in prop::sample::select(vec!["checkpoint/biased.gguf", "gguf/qwen3moe/model.gguf", "gguf/gemma3/model.gguf", "gguf/phi3/model.gguf"]),
        mutations in prop::collection::vec(mutation(), 1..4),
    ) {
        let mut bytes = std::fs::read(fixture(model)).unwrap();
        mutations.iter().for_each(|mutation| mutate(&mut bytes, mutation));
        exercise_gguf(&bytes);
    }
}
