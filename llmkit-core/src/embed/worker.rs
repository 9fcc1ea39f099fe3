use std::sync::{Arc, Mutex, PoisonError};

use tokio::sync::oneshot;

use crate::{Error, Result};

/// Runs a model's work on threads of their own, one call after another, so that no executor is held up.
#[derive(Debug, Clone, Default)]
pub(super) struct Worker {
    turn: Arc<Mutex<()>>,
}

impl Worker {
    /// Runs `work` when its turn comes; any executor may wait for it.
    pub(super) async fn run<T: Send + 'static>(
        &self,
        model: &str,
        work: impl FnOnce() -> Result<T> + Send + 'static,
    ) -> Result<T> {
        let failed = |reason: String| Error::Model { model: model.to_owned(), reason };
        let (sender, receiver) = oneshot::channel();
        let turn = self.turn.clone();
        std::thread::Builder::new()
            .name("llmkit-embed".into())
            .spawn(move || {
                // The lock guards no data, so a panic while it was held left nothing half done.
                let _turn = turn.lock().unwrap_or_else(PoisonError::into_inner);
                // Whoever asked may have left while others had their turns.
                if !sender.is_closed() {
                    let _ = sender.send(work());
                }
            })
            .map_err(|error| failed(format!("no thread to run on: {error}")))?;
        match receiver.await {
            Ok(result) => result,
            Err(_) => Err(failed("its thread panicked; the message is on standard error".into())),
        }
    }
}
