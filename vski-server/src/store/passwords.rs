//! Password hashing, a few at a time on threads of its own.
//!
//! Argon2 takes 19 MiB and tens of milliseconds for each password, and the allocator keeps such memory with the thread
//! that used it. On two threads of their own, hashing never takes more than two cores and two times that memory,
//! however many logins come at once; those beyond a short queue are refused.

use std::sync::mpsc::{Receiver, SyncSender, sync_channel};
use std::sync::{Arc, LazyLock, Mutex, PoisonError};

use argon2::Argon2;
use argon2::password_hash::phc::PasswordHash;
use argon2::password_hash::{PasswordHasher, PasswordVerifier};
use tokio::sync::oneshot;

use super::error::{FieldError, StoreError};

/// Shortest password of an admin, characters (PocketBase's).
const MIN_CHARS: usize = 8;

/// Longest password, bytes: argon2 reads all of it.
pub const MAX_BYTES: usize = 1024;

/// Passwords that are hashed at once.
const THREADS: usize = 2;

/// Passwords that may wait: more would time out anyway.
const QUEUE_LIMIT: usize = 64;

type Job = Box<dyn FnOnce() + Send>;

static QUEUE: LazyLock<SyncSender<Job>> = LazyLock::new(|| {
    let (queue, jobs) = sync_channel(QUEUE_LIMIT);
    let jobs = Arc::new(Mutex::new(jobs));
    for number in 0..THREADS {
        let jobs = Arc::clone(&jobs);
        let thread = std::thread::Builder::new().name(format!("password-{number}"));
        thread
            .spawn(move || {
                while let Some(job) = next(&jobs) {
                    job();
                }
            })
            .expect("the system can start a thread");
    }
    queue
});

/// Runs `work`, which hashes, on one of the threads.
pub async fn run<T: Send + 'static>(work: impl FnOnce() -> T + Send + 'static) -> Result<T, StoreError> {
    let (reply, answer) = oneshot::channel();
    let job = move || {
        // A caller that went away needs no answer.
        let _ = reply.send(work());
    };
    QUEUE.try_send(Box::new(job)).map_err(|_| StoreError::Overloaded)?;
    answer.await.map_err(|_| StoreError::ShuttingDown)
}

/// The error where a new password and its confirmation differ.
#[must_use]
pub fn mismatch() -> FieldError {
    FieldError {
        field: "passwordConfirm".to_owned(),
        code: "validation_values_mismatch",
        message: "must be the same as the password".to_owned(),
    }
}

/// Checks an admin's new password before it is hashed.
pub fn check(password: &str) -> Result<(), StoreError> {
    let code = if password.chars().count() < MIN_CHARS {
        "validation_min_text_constraint"
    } else if password.len() > MAX_BYTES {
        "validation_max_text_constraint"
    } else {
        return Ok(());
    };
    let message = format!("must have {MIN_CHARS} characters or more, at most {MAX_BYTES} bytes");
    Err(StoreError::field("password", code, message))
}

/// The argon2id hash of a password. Takes tens of milliseconds: not for an async thread, see [`run`].
pub fn hash(password: &str) -> Result<String, StoreError> {
    let hash = Argon2::default().hash_password(password.as_bytes());
    Ok(hash.map_err(|error| StoreError::Invalid(format!("hash the password: {error}")))?.to_string())
}

/// Whether the password is the one whose hash is stored. Without a hash it takes as long, so that nobody learns who exists.
pub fn verify(stored: Option<&str>, password: &str) -> bool {
    static NOBODY: LazyLock<String> = LazyLock::new(|| hash("nobody's password").unwrap_or_default());
    if password.len() > MAX_BYTES {
        return false;
    }
    // Records that were imported without a password have an empty hash, which none opens.
    let known = stored.filter(|stored| !stored.is_empty());
    let matches = PasswordHash::new(known.unwrap_or(&NOBODY))
        .is_ok_and(|stored| Argon2::default().verify_password(password.as_bytes(), &stored).is_ok());
    matches && known.is_some()
}

fn next(jobs: &Mutex<Receiver<Job>>) -> Option<Job> {
    jobs.lock().unwrap_or_else(PoisonError::into_inner).recv().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn work_beyond_the_queue_is_refused_and_the_rest_is_done() {
        let jobs =
            (0..QUEUE_LIMIT * 4).map(|n| run(move || std::hint::black_box(hash(&format!("password {n}"))).is_ok()));
        let done = futures_util::future::join_all(jobs).await;
        let (right, refused): (Vec<_>, Vec<_>) = done.into_iter().partition(Result::is_ok);
        assert!(right.len() >= QUEUE_LIMIT && !refused.is_empty(), "{} done, {} refused", right.len(), refused.len());
    }
}
