use std::collections::BTreeMap;
use std::fs;
use std::path::Path;

use half::{bf16, f16};
use llmkit_core::Error;
use llmkit_core::checkpoint::{
    Checkpoint, FloatType, Safetensors, TensorData, TensorSource, save_safetensors, save_sharded,
};
use proptest::prelude::*;
use serde_json::Value;

use crate::fixture;

fn values(count: usize, seed: usize) -> Vec<f32> {
    (0..count).map(|i| ((i * 31 + seed * 7) % 101) as f32 / 8.0 - 5.0).collect()
}

/// Five tensors of 256 bytes each, given out of order.
fn five() -> Vec<(String, TensorData<'static>)> {
    [3, 0, 4, 1, 2].map(|i| (format!("t{i}"), TensorData::f32([8, 8], values(64, i)))).into()
}

fn files(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = fs::read_dir(folder)
        .unwrap()
        .map(|entry| entry.unwrap().file_name().into_string().unwrap())
        .collect();
    names.sort();
    names
}

#[test]
fn saved_tensors_load_as_they_were() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    let floats = values(200_000, 1);
    let halves: Vec<f16> = values(15, 2).into_iter().map(f16::from_f32).collect();
    let brains: Vec<bf16> = values(6, 3).into_iter().map(bf16::from_f32).collect();
    let tensors = [
        ("b.half".to_owned(), TensorData::f16([3, 5], halves.as_slice())),
        ("z.float".to_owned(), TensorData::f32([400, 500], floats.as_slice())),
        ("a.brain".to_owned(), TensorData::bf16([6], brains)),
        (
            "c.later".to_owned(),
            TensorData::deferred([2, 2], FloatType::Bf16, || Ok(vec![1.0, 1.003, -2.5, 0.0])),
        ),
        ("d.empty".to_owned(), TensorData::f32([0, 3], Vec::new())),
        ("e.scalar".to_owned(), TensorData::f32([], vec![4.25])),
    ];
    let metadata = BTreeMap::from([("made by".to_owned(), "a test".to_owned())]);
    save_safetensors(&path, tensors, Some(metadata)).unwrap();

    let file = Safetensors::open(&path).unwrap();
    assert_eq!(file.names(), ["a.brain", "b.half", "c.later", "d.empty", "e.scalar", "z.float"]);
    assert_eq!(file.read_f32("z.float").unwrap(), floats);
    assert_eq!(file.read_f32("b.half").unwrap(), values(15, 2));
    assert_eq!(file.read_f32("a.brain").unwrap(), values(6, 3));
    assert_eq!(file.read_f32("c.later").unwrap(), [1.0, bf16::from_f32(1.003).to_f32(), -2.5, 0.0]);
    assert_eq!(file.read_f32("e.scalar").unwrap(), [4.25]);
    assert_eq!(file.info("d.empty").unwrap().shape, [0, 3]);
    assert_eq!(file.info("c.later").unwrap().dtype, "BF16");
    assert_eq!(file.metadata()["format"], "pt");
    assert_eq!(file.metadata()["made by"], "a test");
}

#[test]
fn values_are_aligned_in_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.safetensors");
    // By name alone, the odd half would push the float to an offset of 2.
    let tensors = [
        ("a".to_owned(), TensorData::f16([1], vec![f16::ONE])),
        ("b".to_owned(), TensorData::f32([1], vec![2.0])),
    ];
    save_safetensors(&path, tensors, None).unwrap();
    let bytes = fs::read(path).unwrap();
    let length = u64::from_le_bytes(bytes[..8].try_into().unwrap()) as usize;
    let header: Value = serde_json::from_slice(&bytes[8..8 + length]).unwrap();
    assert_eq!(length % 8, 0);
    assert_eq!(header["b"]["data_offsets"], serde_json::json!([0, 4]));
    assert_eq!(header["a"]["data_offsets"], serde_json::json!([4, 6]));
}

#[test]
fn the_order_of_tensors_does_not_change_the_file() {
    let folder = tempfile::tempdir().unwrap();
    let (one, two) = (folder.path().join("1"), folder.path().join("2"));
    save_safetensors(&one, five(), None).unwrap();
    save_safetensors(&two, five().into_iter().rev(), None).unwrap();
    assert_eq!(fs::read(one).unwrap(), fs::read(two).unwrap());
}

#[test]
fn shards_keep_to_the_limit_and_load_again() {
    let folder = tempfile::tempdir().unwrap();
    save_sharded(folder.path(), five(), None, 600).unwrap();
    let names = [
        "model-00001-of-00003.safetensors",
        "model-00002-of-00003.safetensors",
        "model-00003-of-00003.safetensors",
    ];
    assert_eq!(files(folder.path()), [&names[..], &["model.safetensors.index.json"]].concat());
    let index: Value =
        serde_json::from_slice(&fs::read(folder.path().join("model.safetensors.index.json")).unwrap())
            .unwrap();
    assert_eq!(index["metadata"]["total_size"], 5 * 256);
    assert_eq!(index["weight_map"]["t2"], names[1]);
    let read = Safetensors::open(folder.path()).unwrap();
    assert_eq!(read.names(), ["t0", "t1", "t2", "t3", "t4"]);
    for i in 0..5 {
        assert_eq!(read.read_f32(&format!("t{i}")).unwrap(), values(64, i));
    }
}

#[test]
fn a_save_of_another_shape_leaves_nothing_stale() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    save_sharded(folder.path(), five(), None, 300).unwrap();
    assert_eq!(files(folder.path()).len(), 5 + 2);
    save_sharded(folder.path(), five(), None, 600).unwrap();
    assert_eq!(files(folder.path()).len(), 3 + 2);
    save_sharded(folder.path(), five(), None, 5 * 256).unwrap();
    assert_eq!(files(folder.path()), ["config.json", "model.safetensors"]);
    save_sharded(folder.path(), five(), None, 600).unwrap();
    assert_eq!(files(folder.path()).len(), 3 + 2);
    assert_eq!(Safetensors::open(folder.path()).unwrap().names().len(), 5);
}

#[test]
fn a_hostile_index_makes_a_save_remove_nothing_but_shards() {
    let folder = tempfile::tempdir().unwrap();
    fs::write(folder.path().join("config.json"), "{}").unwrap();
    let index = r#"{"weight_map":{"a":"config.json","b":"model.safetensors"}}"#;
    fs::write(folder.path().join("model.safetensors.index.json"), index).unwrap();
    save_sharded(folder.path(), five(), None, usize::MAX).unwrap();
    assert_eq!(files(folder.path()), ["config.json", "model.safetensors"]);
}

#[test]
fn a_failing_tensor_leaves_the_older_checkpoint() {
    let folder = tempfile::tempdir().unwrap();
    save_sharded(folder.path(), five(), None, 600).unwrap();
    let before: Vec<Vec<u8>> =
        files(folder.path()).iter().map(|name| fs::read(folder.path().join(name)).unwrap()).collect();
    let names = files(folder.path());
    let failing =
        |tensors: &mut Vec<(String, TensorData<'static>)>, data| tensors.push(("t9".to_owned(), data));

    let mut tensors = five();
    let broken = || Err(Error::Model { model: "source".into(), reason: "gone".into() });
    failing(&mut tensors, TensorData::deferred([8, 8], FloatType::F32, broken));
    let error = save_sharded(folder.path(), tensors, None, 300).unwrap_err();
    assert!(matches!(&error, Error::Model { reason, .. } if reason == "gone"), "{error}");

    let mut tensors = five();
    failing(&mut tensors, TensorData::deferred([8, 8], FloatType::F32, || Ok(vec![0.0; 63])));
    let error = save_sharded(folder.path(), tensors, None, 300).unwrap_err();
    assert!(matches!(&error, Error::Tensors { mismatched, .. } if mismatched[0].found == [63]), "{error}");

    assert_eq!(files(folder.path()), names);
    let after: Vec<Vec<u8>> = names.iter().map(|name| fs::read(folder.path().join(name)).unwrap()).collect();
    assert!(before == after);
}

#[test]
fn names_that_a_header_cannot_hold_are_refused() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("x.safetensors");
    let named = |name: &str| (name.to_owned(), TensorData::f32([1], vec![0.0]));
    let twice = save_safetensors(&path, [named("a"), named("a")], None).unwrap_err().to_string();
    assert!(twice.contains("two named `a`"), "{twice}");
    let reserved = save_safetensors(&path, [named("__metadata__")], None).unwrap_err().to_string();
    assert!(reserved.contains("__metadata__"), "{reserved}");
    assert_eq!(files(folder.path()), <[&str; 0]>::default());
}

#[test]
#[should_panic(expected = "shape [2, 2] holds 4 values, 3 were given")]
fn a_wrong_shape_is_the_callers_mistake() {
    let _ = TensorData::f32([2, 2], vec![0.0; 3]);
}

/// Writes a checkpoint again, as f32 safetensors.
fn convert(source: &dyn TensorSource, folder: &Path, max_shard_bytes: usize) {
    let tensors = source.names().into_iter().map(|name| {
        let shape = source.info(&name).unwrap().shape;
        (name.clone(), TensorData::deferred(shape, FloatType::F32, move || source.read_f32(&name)))
    });
    save_sharded(folder, tensors, None, max_shard_bytes).unwrap();
}

#[test]
fn a_gguf_file_saved_as_safetensors_is_the_same_model() {
    let checkpoint = Checkpoint::open(fixture("llama/gguf/model.gguf")).unwrap();
    let source = checkpoint.source();
    let folder = tempfile::tempdir().unwrap();
    convert(source, folder.path(), 100_000);
    let saved = Safetensors::open(folder.path()).unwrap();
    assert_eq!(saved.names(), source.names());
    for name in saved.names() {
        assert_eq!(saved.read_f32(&name).unwrap(), source.read_f32(&name).unwrap(), "{name}");
    }
}

/// `scripts/check_converted.py` compares what this writes with what Python reads from the same file.
#[test]
#[ignore = "needs LLMKIT_GGUF, a GGUF file, and LLMKIT_OUT, a folder to write to"]
fn a_given_gguf_file_is_converted() {
    let variable = |name| std::env::var_os(name).unwrap_or_else(|| panic!("{name} is not set"));
    let checkpoint = Checkpoint::open(variable("LLMKIT_GGUF")).unwrap();
    let folder = std::path::PathBuf::from(variable("LLMKIT_OUT"));
    convert(checkpoint.source(), &folder, 100_000_000);
    fs::write(folder.join("config.json"), serde_json::to_vec_pretty(checkpoint.config()).unwrap()).unwrap();
}

proptest! {
    // Each case syncs files to the disk.
    #![proptest_config(ProptestConfig::with_cases(32))]

    #[test]
    fn whatever_is_saved_loads_as_it_was(
        tensors in prop::collection::btree_map("[a-z.\"\\\\é]{1,12}", prop::collection::vec(-1e30f32..1e30, 0..40), 0..8),
        max_shard_bytes in 0usize..400,
    ) {
        let folder = tempfile::tempdir().unwrap();
        let data = tensors.iter().map(|(name, values)| (name.clone(), TensorData::f32([values.len()], values.as_slice())));
        save_sharded(folder.path(), data, None, max_shard_bytes).unwrap();
        let read = Safetensors::open(folder.path()).unwrap();
        prop_assert_eq!(read.names(), tensors.keys().cloned().collect::<Vec<_>>());
        for (name, values) in &tensors {
            prop_assert_eq!(&read.read_f32(name).unwrap(), values);
        }
    }
}
