//! Opens arbitrary bytes as safetensors and reads everything in them.
//!
//! Run: `cargo +nightly fuzz run safetensors -- -rss_limit_mb=2048`, with the fixtures of `llmkit-core/tests` as a corpus to start from.
#![no_main]

use libfuzzer_sys::fuzz_target;
use llmkit_core::checkpoint::{Safetensors, TensorSource};

fuzz_target!(|bytes: &[u8]| {
    let Ok(file) = Safetensors::from_bytes(bytes.to_vec()) else { return };
    for name in file.names() {
        if let (Ok(values), Some(info)) = (file.read_f32(&name), file.info(&name)) {
            assert_eq!(values.len(), info.shape.iter().product::<usize>());
        }
    }
});
