//! Ctrl-C in a conversation: it stops the answer under way, and ends the program where there is none.

use std::process;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

const WAITING: u8 = 0;
const RUNNING: u8 = 1;
const STOPPING: u8 = 2;

/// What a shell reports of a program that Ctrl-C ended.
const INTERRUPTED: i32 = 130;

pub(crate) struct Answering(Arc<AtomicU8>);

/// An answer under way, until it is dropped.
pub(crate) struct Running<'a>(&'a AtomicU8);

impl Answering {
    pub(crate) fn install() -> Result<Self, ctrlc::Error> {
        let state = Arc::new(AtomicU8::new(WAITING));
        let seen = state.clone();
        ctrlc::set_handler(move || {
            // A second signal ends a program that does not stop its answer.
            if seen.compare_exchange(RUNNING, STOPPING, Ordering::SeqCst, Ordering::SeqCst).is_err() {
                process::exit(INTERRUPTED);
            }
        })?;
        Ok(Self(state))
    }

    pub(crate) fn begin(&self) -> Running<'_> {
        self.0.store(RUNNING, Ordering::SeqCst);
        Running(&self.0)
    }
}

impl Running<'_> {
    pub(crate) fn interrupted(&self) -> bool {
        self.0.load(Ordering::SeqCst) == STOPPING
    }
}

impl Drop for Running<'_> {
    fn drop(&mut self) {
        self.0.store(WAITING, Ordering::SeqCst);
    }
}
