//! Passwords: argon2id, one at a time.
//!
//! One derivation takes 19 MiB and some 30 ms, so they are queued: at most [`QUEUE_MAX`] wait, and
//! more are turned away before anything is allocated. An unknown name costs the same time as a
//! wrong password.

use std::sync::Arc;

use argon2::{Algorithm, Argon2, Params, PasswordHasher, PasswordVerifier, Version};
use tokio::sync::Semaphore;

use crate::error::{Error, Result};

/// Callers that may wait for their turn.
const QUEUE_MAX: usize = 128;
/// The shortest password taken.
const CHARS_MIN: usize = 10;
/// The longest, in bytes.
const BYTES_MAX: usize = 512;

/// Derives and checks passwords.
pub struct Passwords {
    turn: Arc<Semaphore>,
    queue: Arc<Semaphore>,
    /// The hash of nobody's password, checked for unknown names.
    nobody: String,
}

impl Passwords {
    /// A derivation queue.
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn new() -> Result<Self> {
        let nobody = derive(&super::keys::random_text::<24>()?)?;
        Ok(Self {
            turn: Arc::new(Semaphore::new(1)),
            queue: Arc::new(Semaphore::new(QUEUE_MAX)),
            nobody,
        })
    }

    /// The hash to be stored.
    ///
    /// # Errors
    /// When the queue is full.
    pub async fn hash(&self, password: &str) -> Result<String> {
        let password = password.to_owned();
        self.in_turn(move || derive(&password)).await?
    }

    /// Whether `password` is the one behind `stored`; without one, `false` after the same time.
    ///
    /// # Errors
    /// When the queue is full.
    pub async fn verify(&self, password: &str, stored: Option<String>) -> Result<bool> {
        let known = stored.is_some();
        let stored = stored.unwrap_or_else(|| self.nobody.clone());
        let password = password.to_owned();
        let same = self
            .in_turn(move || {
                argon2()?.verify_password(password.as_bytes(), &*stored).map_err(fault)
            })
            .await?
            .is_ok();
        Ok(known && same)
    }

    async fn in_turn<T: Send + 'static>(
        &self,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T> {
        let Ok(_place) = self.queue.clone().try_acquire_owned() else {
            return Err(Error::unavailable("sign-in.busy", "too many people are signing in"));
        };
        let turn = self.turn.clone().acquire_owned().await;
        let turn = turn.map_err(|source| Error::broken("wait for a turn", source))?;
        let work = tokio::task::spawn_blocking(move || {
            let result = work();
            // Moved in here, so that a caller who hangs up does not let a second one start.
            drop(turn);
            result
        });
        work.await.map_err(|source| Error::broken("derive a password", source))
    }
}

/// Refuses passwords that are no protection.
///
/// # Errors
/// Points at `/password`.
pub fn check(password: &str, name: &str) -> Result<()> {
    if password.chars().count() < CHARS_MIN {
        return Err(Error::field("/password", format!("use at least {CHARS_MIN} characters")));
    }
    if password.len() > BYTES_MAX {
        return Err(Error::field("/password", format!("use at most {BYTES_MAX} bytes")));
    }
    if password.to_lowercase() == name.repeat(password.len() / name.len().max(1)) {
        return Err(Error::field("/password", "don't use your name"));
    }
    let first = password.chars().next();
    if password.chars().all(|character| Some(character) == first) {
        return Err(Error::field("/password", "use more than one character"));
    }
    Ok(())
}

fn derive(password: &str) -> Result<String> {
    let hash = argon2()?.hash_password(password.as_bytes()).map_err(fault)?;
    Ok(hash.to_string())
}

/// OWASP's first choice for argon2id with one lane (19 MiB, two passes).
fn argon2() -> Result<Argon2<'static>> {
    let params = Params::new(19 * 1024, 2, 1, None)
        .map_err(|source| Error::defect(format!("set argon2's parameters: {source}")))?;
    Ok(Argon2::new(Algorithm::Argon2id, Version::V0x13, params))
}

fn fault(error: argon2::password_hash::Error) -> Error {
    Error::defect(format!("derive a password: {error}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weak_passwords_are_refused() {
        for weak in ["", "short", "aaaaaaaaaaaa", "annaannaanna", &"x y".repeat(300)] {
            assert!(check(weak, "anna").is_err(), "{weak}");
        }
        assert!(check("correct horse", "anna").is_ok());
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_person_is_taken() {
        let passwords = Passwords::new().expect("random bytes");
        let stored = passwords.hash("correct horse").await.expect("the queue is empty");
        let right = passwords.verify("correct horse", Some(stored.clone())).await;
        assert!(right.expect("the queue is empty"));
        assert!(!passwords.verify("wrong", Some(stored)).await.expect("the queue is empty"));
        assert!(!passwords.verify("correct horse", None).await.expect("the queue is empty"));
    }
}
