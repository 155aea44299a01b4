//! Work for SQLite and the disk, off the asynchronous workers.

/// Runs `work` on a blocking thread. A panic in it goes on in the caller, whose supervisor restarts the database.
pub(crate) async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> T {
    match tokio::task::spawn_blocking(work).await {
        Ok(value) => value,
        Err(error) => match error.try_into_panic() {
            Ok(panic) => std::panic::resume_unwind(panic),
            // The runtime is going down and never started it: nobody waits for the answer any more.
            Err(_) => std::future::pending().await,
        },
    }
}
