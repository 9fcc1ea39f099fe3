//! Where requests run: one thread with a runtime of its own, so that the client works under any executor.

use std::future::Future;
use std::pin::Pin;
use std::sync::OnceLock;
use std::task::{Context, Poll};
use std::{future, thread};

use tokio::runtime::{Builder, Handle};
use tokio::task::{JoinError, JoinHandle};
use tracing::Instrument;

use super::failure::Failure;

/// A task on the client's thread. Dropping it aborts the task, which closes its connection.
pub(super) struct Task<T>(JoinHandle<T>);

impl<T> Drop for Task<T> {
    fn drop(&mut self) {
        self.0.abort();
    }
}

impl<T> Future for Task<T> {
    type Output = Result<T, JoinError>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        Pin::new(&mut self.0).poll(context)
    }
}

/// Starts `work` on the client's thread, inside the caller's tracing span.
///
/// # Errors
/// The thread could not be started.
pub(super) fn spawn<T: Send + 'static>(
    work: impl Future<Output = T> + Send + 'static,
) -> Result<Task<T>, Failure> {
    let handle = handle().map_err(|reason| Failure::new(format!("no thread for requests: {reason}")))?;
    Ok(Task(handle.spawn(work.in_current_span())))
}

/// Runs `work` on the client's thread.
pub(super) async fn run<T: Send + 'static>(
    work: impl Future<Output = Result<T, Failure>> + Send + 'static,
) -> Result<T, Failure> {
    spawn(work)?
        .await
        .unwrap_or_else(|error| Err(Failure::new(format!("the request's task failed: {error}"))))
}

/// The thread starts with the first request and lives as long as the program; the requests of all clients share it.
fn handle() -> Result<&'static Handle, &'static str> {
    static HANDLE: OnceLock<Result<Handle, String>> = OnceLock::new();
    HANDLE.get_or_init(|| start().map_err(|error| error.to_string())).as_ref().map_err(String::as_str)
}

fn start() -> std::io::Result<Handle> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let handle = runtime.handle().clone();
    thread::Builder::new()
        .name("llmkit-remote".to_owned())
        .spawn(move || runtime.block_on(future::pending::<()>()))?;
    Ok(handle)
}
