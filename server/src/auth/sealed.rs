//! Secrets of others that the inventory keeps and that have to be read again: sealed by a key of the ring
//! (ChaCha20-Poly1305, RFC 8439). What they belong to is bound in, so that a row which is copied to another
//! person opens nothing.

use chacha20poly1305::aead::{Aead, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};

use super::keys::{Keys, random_bytes};
use crate::error::{Error, Result};

const NONCE_BYTES: usize = 12;

/// Seals with the key that signs now. `label` is what it is for, `context` what it belongs to.
///
/// # Errors
/// When the kernel has no random bytes.
pub fn seal(keys: &Keys, label: &str, context: &str, plain: &str) -> Result<Vec<u8>> {
    let nonce: [u8; NONCE_BYTES] = random_bytes()?;
    let payload = Payload { msg: plain.as_bytes(), aad: context.as_bytes() };
    let sealed = ciphers(keys, label)
        .next()
        .ok_or_else(|| Error::defect("find a key to seal with"))?
        .encrypt(&Nonce::from(nonce), payload)
        .map_err(|_| Error::defect("seal a secret"))?;
    Ok([nonce.as_slice(), &sealed].concat())
}

/// What [`seal`] has sealed; `None` when no key of the ring opens it, or it belongs to something else.
pub fn open(keys: &Keys, label: &str, context: &str, sealed: &[u8]) -> Option<String> {
    let (nonce, sealed) = sealed.split_at_checked(NONCE_BYTES)?;
    let nonce = Nonce::from(<[u8; NONCE_BYTES]>::try_from(nonce).ok()?);
    let open = |cipher: ChaCha20Poly1305| {
        cipher.decrypt(&nonce, Payload { msg: sealed, aad: context.as_bytes() }).ok()
    };
    String::from_utf8(ciphers(keys, label).find_map(open)?).ok()
}

/// The one that seals first, then those of older keys.
fn ciphers(keys: &Keys, label: &str) -> impl Iterator<Item = ChaCha20Poly1305> {
    keys.derive(label).into_iter().map(|key| ChaCha20Poly1305::new(&Key::from(key)))
}
