use std::sync::mpsc::{self, RecvTimeoutError};
use std::thread;
use std::time::Duration;

use notify::{RecursiveMode, Watcher};

use super::prompts::{Prompts, Reload};
use crate::{Error, Result};

/// How long a folder must be quiet before it is read again: editors write a file in several steps.
const QUIET: Duration = Duration::from_millis(50);
/// How long it is waited for that at most.
const PATIENCE: u32 = 20;

/// Keeps [`Prompts`] up to date while it lives; made by [`Prompts::watch`].
///
/// ```no_run
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let prompts = llmkit_prompt::Prompts::load("prompts")?;
/// let watch = prompts.watch(|reload| match reload {
///     Ok(reload) => reload.failed.iter().for_each(|error| eprintln!("{error}")),
///     Err(error) => eprintln!("{error}"),
/// })?;
/// # drop(watch);
/// # Ok(())
/// # }
/// ```
#[derive(Debug)]
#[must_use = "the folder is watched until this is dropped"]
pub struct PromptWatch {
    // Dropping it closes the channel, which ends the thread.
    _watcher: notify::RecommendedWatcher,
}

impl Prompts {
    /// Reloads the prompts whenever something in their folder changes, until the result is dropped. `tell` hears, on a thread of its own, of each reload
    /// that found something.
    ///
    /// # Errors
    /// [`Error::Watch`] if the operating system refuses, or there is no folder.
    pub fn watch(&self, mut tell: impl FnMut(Result<Reload>) + Send + 'static) -> Result<PromptWatch> {
        let folder = self.folder().ok_or_else(|| Error::Watch {
            folder: std::path::PathBuf::new(),
            reason: "built-in prompts do not change: load a folder".to_owned(),
        })?;
        let failed = |reason: String| Error::Watch { folder: folder.to_path_buf(), reason };
        let (send, events) = mpsc::channel();
        let mut watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            // Reading files is no change.
            if !matches!(&event, Ok(event) if event.kind.is_access()) {
                // When the thread is gone there is nobody to tell.
                let _ = send.send(());
            }
        })
        .map_err(|error| failed(error.to_string()))?;
        watcher.watch(folder, RecursiveMode::Recursive).map_err(|error| failed(error.to_string()))?;
        let prompts = self.clone();
        thread::Builder::new()
            .name("prompt-watch".to_owned())
            .spawn(move || {
                while events.recv().is_ok() {
                    for _ in 0..PATIENCE {
                        match events.recv_timeout(QUIET) {
                            Ok(()) => {}
                            Err(RecvTimeoutError::Timeout | RecvTimeoutError::Disconnected) => break,
                        }
                    }
                    let reload = prompts.reload();
                    if !matches!(&reload, Ok(reload) if reload.is_empty()) {
                        tell(reload);
                    }
                }
            })
            .map_err(|error| failed(error.to_string()))?;
        Ok(PromptWatch { _watcher: watcher })
    }
}
