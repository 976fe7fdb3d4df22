//! The server's secret key, and all that is made with it: signed session and API tokens (JWT,
//! RFC 7519), sealed list cursors, and keys derived for other uses.
//!
//! Invariants: one algorithm (HS256), never taken from the token; a token is only as good as the row
//! that holds the hash of its id, looked up on each use; the key never leaves this module.

use std::fs;
use std::io::Write;
use std::os::unix::fs::{OpenOptionsExt, PermissionsExt};
use std::path::Path;

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_runtime::id::PrincipalId;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::clock::Time;
use crate::error::{Error, Result};

const KEY_BYTES: usize = 32;
/// A token is refused unread above this.
const TOKEN_BYTES_MAX: usize = 2048;

/// The SHA-256 of a secret: what is stored of it.
pub type SecretHash = [u8; 32];

/// What a signed token is for; one is never taken for another.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Audience {
    /// The session cookie.
    Session,
    /// `Authorization: Bearer`.
    Api,
    /// The cookie that tells a browser its owner has signed in with before.
    Device,
}

/// What a valid token says.
#[derive(Debug, Clone)]
pub struct Claims {
    /// Whose it is.
    pub principal: PrincipalId,
    /// The hash of its id.
    pub id_hash: SecretHash,
}

#[derive(Serialize, Deserialize)]
struct WireClaims {
    iss: String,
    aud: String,
    sub: String,
    jti: String,
    iat: i64,
    exp: i64,
}

/// The key and what is made of it.
pub struct Keys {
    root: [u8; KEY_BYTES],
    encoding: EncodingKey,
    decoding: DecodingKey,
    issuer: String,
}

impl Keys {
    /// Reads the key file, or makes it when there is none.
    ///
    /// # Errors
    /// When the file cannot be read or written, has another length, or is open to others.
    pub fn open(path: &Path, instance: &str) -> anyhow::Result<Self> {
        use anyhow::{Context, ensure};
        let shown = path.display();
        let root = match fs::read(path) {
            Ok(bytes) => {
                let mode = fs::metadata(path)?.permissions().mode();
                ensure!(mode & 0o077 == 0, "{shown} is open to others (mode {mode:o}): chmod 600");
                bytes.try_into().map_err(|_| {
                    anyhow::anyhow!("{shown} is damaged: move it away, and everyone signs in anew")
                })?
            }
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
                create(path).with_context(|| format!("create {shown}"))?
            }
            Err(error) => return Err(error).with_context(|| format!("read {shown}")),
        };
        Ok(Self::from_root(root, instance))
    }

    fn from_root(root: [u8; KEY_BYTES], instance: &str) -> Self {
        let signing = derive(&root, "jwt");
        Self {
            root,
            encoding: EncodingKey::from_secret(&signing),
            decoding: DecodingKey::from_secret(&signing),
            issuer: format!("berth:{instance}"),
        }
    }

    /// A key for one other use, named by `label`.
    pub fn derive(&self, label: &str) -> [u8; 32] {
        derive(&self.root, label)
    }

    /// A new token and the hash of its id.
    ///
    /// # Errors
    /// When the kernel has no random bytes or the token cannot be encoded.
    pub fn sign(
        &self,
        audience: Audience,
        principal: PrincipalId,
        expires_at: Time,
    ) -> Result<(String, SecretHash)> {
        let jti = random_text::<18>()?;
        let hash = hash_secret(&jti);
        let claims = WireClaims {
            iss: self.issuer.clone(),
            aud: audience.as_str().to_owned(),
            sub: principal.to_string(),
            jti,
            iat: Time::now().secs(),
            exp: expires_at.secs(),
        };
        let token = jsonwebtoken::encode(&Header::new(Algorithm::HS256), &claims, &self.encoding)
            .map_err(|source| Error::broken("sign a token", source))?;
        Ok((token, hash))
    }

    /// What a token says, if it is ours, for this audience and not over.
    pub fn verify(&self, audience: Audience, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[audience.as_str()]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.leeway = 0;
        let claims: WireClaims =
            jsonwebtoken::decode(token, &self.decoding, &validation).ok()?.claims;
        Some(Claims {
            principal: PrincipalId(claims.sub.parse().ok()?),
            id_hash: hash_secret(&claims.jti),
        })
    }

    /// Seals a position in a list, so that it can be given out without telling how much lies
    /// before it.
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn seal(&self, plain: &str) -> Result<String> {
        let nonce: [u8; 12] = random_bytes()?;
        let sealed = self
            .cipher()
            .encrypt(&Nonce::from(nonce), plain.as_bytes())
            .map_err(|_| Error::defect("seal a cursor"))?;
        let mut bytes = nonce.to_vec();
        bytes.extend(sealed);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    /// What [`Keys::seal`] sealed; `None` for anything else.
    pub fn unseal(&self, text: &str) -> Option<String> {
        if text.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let bytes = URL_SAFE_NO_PAD.decode(text).ok()?;
        let (nonce, sealed) = bytes.split_at_checked(12)?;
        let nonce: [u8; 12] = nonce.try_into().ok()?;
        String::from_utf8(self.cipher().decrypt(&Nonce::from(nonce), sealed).ok()?).ok()
    }

    fn cipher(&self) -> ChaCha20Poly1305 {
        ChaCha20Poly1305::new(&Key::from(self.derive("cursor")))
    }
}

impl Audience {
    fn as_str(self) -> &'static str {
        match self {
            Self::Session => "session",
            Self::Api => "api",
            Self::Device => "device",
        }
    }
}

/// What is stored of a secret. The secrets are random, so a plain hash is enough.
pub fn hash_secret(secret: &str) -> SecretHash {
    Sha256::digest(secret.as_bytes()).into()
}

/// A random secret of `N` bytes as base64url.
///
/// # Errors
/// When the kernel has no random bytes.
pub fn random_text<const N: usize>() -> Result<String> {
    Ok(URL_SAFE_NO_PAD.encode(random_bytes::<N>()?))
}

/// A random object id: 32 hexadecimal digits.
///
/// # Errors
/// When the kernel has no random bytes.
pub fn random_id() -> Result<String> {
    Ok(berth_runtime::id::ContainerId::from_bytes(random_bytes()?).into())
}

/// Random bytes of the kernel's.
///
/// # Errors
/// When the kernel has none.
pub fn random_bytes<const N: usize>() -> Result<[u8; N]> {
    let mut bytes = [0; N];
    getrandom::fill(&mut bytes).map_err(|source| Error::broken("read random bytes", source))?;
    Ok(bytes)
}

fn derive(root: &[u8; KEY_BYTES], label: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"berth key\0");
    hash.update(label.as_bytes());
    hash.update(b"\0");
    hash.update(root);
    hash.finalize().into()
}

fn create(path: &Path) -> anyhow::Result<[u8; KEY_BYTES]> {
    let root: [u8; KEY_BYTES] = random_bytes()?;
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.write_all(&root)?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(root)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn keys() -> Keys {
        Keys::from_root([7; KEY_BYTES], "test")
    }

    #[test]
    fn a_token_is_good_for_its_audience_instance_and_time_only() {
        let keys = keys();
        let later = Time::now().after(Duration::from_secs(60));
        let (token, hash) =
            keys.sign(Audience::Session, PrincipalId(1000), later).expect("random bytes");
        let claims = keys.verify(Audience::Session, &token).expect("a good token is taken");
        assert_eq!((claims.principal, claims.id_hash), (PrincipalId(1000), hash));
        assert!(keys.verify(Audience::Api, &token).is_none());
        assert!(Keys::from_root([7; 32], "other").verify(Audience::Session, &token).is_none());
        assert!(Keys::from_root([8; 32], "test").verify(Audience::Session, &token).is_none());
        let past = Time::now().before(Duration::from_secs(2));
        let (token, _) =
            keys.sign(Audience::Session, PrincipalId(1000), past).expect("random bytes");
        assert!(keys.verify(Audience::Session, &token).is_none());
    }

    #[test]
    fn the_algorithm_is_never_the_tokens_choice() {
        let keys = keys();
        let later = Time::now().after(Duration::from_secs(60));
        let (token, _) = keys.sign(Audience::Api, PrincipalId(1000), later).expect("random bytes");
        let (_, rest) = token.split_once('.').expect("a token has three parts");
        let (claims, _) = rest.split_once('.').expect("a token has three parts");
        for header in [r#"{"alg":"none"}"#, r#"{"alg":"HS512","typ":"JWT"}"#, r#"{"alg":"RS256"}"#]
        {
            let header = URL_SAFE_NO_PAD.encode(header);
            assert!(keys.verify(Audience::Api, &format!("{header}.{rest}")).is_none());
            assert!(keys.verify(Audience::Api, &format!("{header}.{claims}.")).is_none());
        }
    }

    #[test]
    fn a_sealed_cursor_opens_only_here_and_only_whole() {
        let keys = keys();
        let sealed = keys.seal("42").expect("random bytes");
        assert_eq!(keys.unseal(&sealed).as_deref(), Some("42"));
        assert!(Keys::from_root([8; 32], "test").unseal(&sealed).is_none());
        for cut in 0..sealed.len() {
            assert!(keys.unseal(&sealed[..cut]).is_none());
        }
    }
}
