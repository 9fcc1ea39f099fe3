//! More than 10,000 damaged models, tokenizers and templates: each ends in an error or loads and works; none panics, and none takes
//! more memory than files of its size may. Every input follows from its number, so a failure names what to try again.
#![cfg(feature = "cpu")]
#![allow(clippy::unwrap_used)]

mod chat;
mod memory;
mod models;
mod mutate;
mod tokenizers;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use mutate::Rng;

/// The longest that one input may take. The slowest are templates that use up their fuel.
const LONGEST: Duration = Duration::from_secs(20);

/// One test at a time: the memory of all threads is counted together.
static ALONE: Mutex<()> = Mutex::new(());

fn alone() -> MutexGuard<'static, ()> {
    ALONE.lock().unwrap_or_else(PoisonError::into_inner)
}

/// A file or folder of `tests/fixtures`.
fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures").join(name)
}

fn read(name: &str) -> Vec<u8> {
    std::fs::read(fixture(name)).unwrap()
}

/// What is left of a campaign's inputs: how many loaded, how many ended in an error.
#[derive(Debug, Default, PartialEq, Eq)]
struct Outcome {
    loaded: usize,
    refused: usize,
}

/// Makes `count` inputs with `make` and hands each to `load`, which says whether it loaded. `make` gives the input and its size in bytes.
fn campaign<T>(
    name: &str,
    count: u64,
    make: impl Fn(&mut Rng) -> (T, usize),
    load: impl Fn(&T) -> bool,
) -> Outcome {
    let _alone = alone();
    let mut outcome = Outcome::default();
    let mut failures = Vec::new();
    // What is built once, such as the thread pool, does not count.
    for warm_up in 0..3 {
        load(&make(&mut Rng::new(warm_up)).0);
    }
    // `tokenizers` panics on some files, which is caught; writing a backtrace takes tens of megabytes.
    let hook = std::panic::take_hook();
    std::panic::set_hook(Box::new(|_| {}));
    for number in 0..count {
        let (input, size) = make(&mut Rng::new(number));
        let begin = Instant::now();
        let (result, peak) = memory::peak_of(|| catch_unwind(AssertUnwindSafe(|| load(&input))));
        match result {
            Ok(true) => outcome.loaded += 1,
            Ok(false) => outcome.refused += 1,
            Err(_) => failures.push(format!("{name} {number} panicked")),
        }
        if peak > memory::allowance(size) {
            failures.push(format!("{name} {number} took {peak} bytes of memory for {size} bytes of files"));
        }
        if begin.elapsed() > LONGEST {
            failures.push(format!("{name} {number} took {:?}", begin.elapsed()));
        }
        if failures.len() == 20 {
            break;
        }
    }
    std::panic::set_hook(hook);
    assert!(failures.is_empty(), "{}", failures.join("\n"));
    eprintln!("{name}: {outcome:?}");
    outcome
}
