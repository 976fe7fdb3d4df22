//! The server's secret keys, and all that is made with them: signed session and API tokens (JWT,
//! RFC 7519), sealed list cursors, and keys derived for other uses.
//!
//! One key signs; older ones verify until what they signed has ended ([`Keys::rotate`]). Invariants:
//! one algorithm (HS256), never taken from the token; a token that names a key is verified with that
//! one or not at all; a token is only as good as the row that holds the hash of its id, looked up on
//! each use; the keys never leave this module and its file.

use std::path::{Path, PathBuf};
use std::sync::{Arc, PoisonError, RwLock};

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_runtime::id::PrincipalId;
use chacha20poly1305::aead::{Aead, KeyInit};
use chacha20poly1305::{ChaCha20Poly1305, Key, Nonce};
use jsonwebtoken::{Algorithm, DecodingKey, EncodingKey, Header, Validation};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keyring::{self, SECRETS_MAX, Secret};
use crate::clock::Time;
use crate::error::{Error, Result};

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

/// A new token.
#[derive(Debug)]
pub struct Signed {
    /// What its owner shows.
    pub token: String,
    /// The hash of its id.
    pub id_hash: SecretHash,
    /// The key that signed it, as the inventory keeps it: empty for one whose tokens name no key.
    pub key: String,
}

/// A key, without its secret.
#[derive(Debug, Clone)]
pub struct KeyFacts {
    /// Its name.
    pub id: String,
    /// When it was made.
    pub made_at: Time,
    /// Until when it verifies; `None` for the one that signs.
    pub until: Option<Time>,
    /// What the inventory calls it.
    pub row_id: String,
}

/// The keys and what is made of them.
pub struct Keys {
    path: PathBuf,
    issuer: String,
    ring: RwLock<Arc<Vec<Secret>>>,
}

impl Keys {
    /// Reads the key file, or makes it when there is none.
    ///
    /// # Errors
    /// When the file cannot be read or written, is damaged, or is open to others.
    pub fn open(path: &Path, instance: &str) -> anyhow::Result<Self> {
        Ok(Self::with(path, keyring::open(path)?, instance))
    }

    fn with(path: &Path, secrets: Vec<Secret>, instance: &str) -> Self {
        let issuer = format!("berth:{instance}");
        Self { path: path.to_owned(), issuer, ring: RwLock::new(Arc::new(secrets)) }
    }

    fn ring(&self) -> Arc<Vec<Secret>> {
        self.ring.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Replaces file and ring.
    fn put(&self, secrets: Vec<Secret>) -> Result<()> {
        keyring::write(&self.path, &secrets).map_err(|error| {
            Error::broken("write the key file", std::io::Error::other(format!("{error:#}")))
        })?;
        *self.ring.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(secrets);
        Ok(())
    }

    /// Every key, the one that signs first.
    pub fn facts(&self) -> Vec<KeyFacts> {
        let facts = |secret: &Secret| KeyFacts {
            id: secret.id.clone(),
            made_at: secret.made_at,
            until: secret.until,
            row_id: row_id(secret),
        };
        self.ring().iter().map(facts).collect()
    }

    /// Makes a new key that signs from now on; the one before verifies until `until`. One at a time:
    /// the caller holds the inventory's turn.
    ///
    /// # Errors
    /// When there are too many, or the file cannot be written; then nothing has changed.
    pub fn rotate(&self, until: Time) -> Result<String> {
        let mut secrets = self.ring().as_ref().clone();
        if secrets.len() >= SECRETS_MAX {
            return Err(Error::exhausted(
                "key.too-many",
                format!("{SECRETS_MAX} keys are the most: retire an old one first"),
            ));
        }
        if let Some(old) = secrets.first_mut() {
            old.until = Some(until);
        }
        let new = Secret::make()?;
        let id = new.id.clone();
        secrets.insert(0, new);
        self.put(secrets)?;
        Ok(id)
    }

    /// Forgets old keys; the one that signs stays.
    ///
    /// # Errors
    /// When the file cannot be written; then nothing has changed.
    pub fn forget(&self, old: impl Fn(&KeyFacts) -> bool) -> Result<()> {
        let gone: Vec<String> = self.facts().into_iter().filter(old).map(|key| key.id).collect();
        let mut secrets = self.ring().as_ref().clone();
        secrets.retain(|secret| secret.until.is_none() || !gone.contains(&secret.id));
        self.put(secrets)
    }

    /// The keys for one other use, named by `label`: what is sealed now is sealed with the first, and
    /// an older one may have sealed what is to be opened.
    pub fn derive(&self, label: &str) -> Vec<[u8; 32]> {
        self.ring().iter().map(|secret| secret.derive(label)).collect()
    }

    /// A new token.
    ///
    /// # Errors
    /// When the kernel has no random bytes or the token cannot be encoded.
    pub fn sign(
        &self,
        audience: Audience,
        principal: PrincipalId,
        expires_at: Time,
    ) -> Result<Signed> {
        let ring = self.ring();
        let secret = ring.first().ok_or_else(|| Error::defect("find the key that signs"))?;
        let jti = random_text::<18>()?;
        let id_hash = hash_secret(&jti);
        let claims = WireClaims {
            iss: self.issuer.clone(),
            aud: audience.as_str().to_owned(),
            sub: principal.to_string(),
            jti,
            iat: Time::now().secs(),
            exp: expires_at.secs(),
        };
        let mut header = Header::new(Algorithm::HS256);
        header.kid = (!secret.unnamed).then(|| secret.id.clone());
        let key = EncodingKey::from_secret(&secret.derive("jwt"));
        let token = jsonwebtoken::encode(&header, &claims, &key)
            .map_err(|source| Error::broken("sign a token", source))?;
        Ok(Signed { token, id_hash, key: row_id(secret) })
    }

    /// What a token says, if it is ours, for this audience and not over.
    pub fn verify(&self, audience: Audience, token: &str) -> Option<Claims> {
        if token.len() > TOKEN_BYTES_MAX {
            return None;
        }
        let named = jsonwebtoken::decode_header(token).ok()?.kid;
        let ring = self.ring();
        let now = Time::now();
        let secret = ring.iter().find(|secret| match &named {
            Some(id) => !secret.unnamed && secret.id == *id,
            None => secret.unnamed,
        });
        let secret = secret.filter(|secret| secret.until.is_none_or(|until| until > now))?;
        let mut validation = Validation::new(Algorithm::HS256);
        validation.set_audience(&[audience.as_str()]);
        validation.set_issuer(&[&self.issuer]);
        validation.set_required_spec_claims(&["exp", "aud", "iss", "sub"]);
        validation.leeway = 0;
        let key = DecodingKey::from_secret(&secret.derive("jwt"));
        let claims: WireClaims = jsonwebtoken::decode(token, &key, &validation).ok()?.claims;
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
        let cipher = self.ciphers().next().ok_or_else(|| Error::defect("find a key to seal"))?;
        let sealed = cipher
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
        let nonce = Nonce::from(<[u8; 12]>::try_from(nonce).ok()?);
        let plain = self.ciphers().find_map(|cipher| cipher.decrypt(&nonce, sealed).ok())?;
        String::from_utf8(plain).ok()
    }

    fn ciphers(&self) -> impl Iterator<Item = ChaCha20Poly1305> {
        self.derive("cursor").into_iter().map(|key| ChaCha20Poly1305::new(&Key::from(key)))
    }
}

/// What the inventory calls a key.
fn row_id(secret: &Secret) -> String {
    if secret.unnamed { String::new() } else { secret.id.clone() }
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

#[cfg(test)]
mod tests {
    use super::*;
    use std::time::Duration;

    fn keys() -> Keys {
        of([7; 32], "test")
    }

    fn of(secret: [u8; 32], instance: &str) -> Keys {
        let path = std::env::temp_dir().join(format!("berth-keys-{}", std::process::id()));
        Keys::with(&path, vec![Secret::of(secret, Time(0), false)], instance)
    }

    #[test]
    fn a_token_is_good_for_its_audience_instance_and_time_only() {
        let keys = keys();
        let later = Time::now().after(Duration::from_secs(60));
        let signed = keys.sign(Audience::Session, PrincipalId(1000), later).expect("random bytes");
        let token = signed.token;
        let claims = keys.verify(Audience::Session, &token).expect("a good token is taken");
        assert_eq!((claims.principal, claims.id_hash), (PrincipalId(1000), signed.id_hash));
        assert!(keys.verify(Audience::Api, &token).is_none());
        assert!(of([7; 32], "other").verify(Audience::Session, &token).is_none());
        assert!(of([8; 32], "test").verify(Audience::Session, &token).is_none());
        let past = Time::now().before(Duration::from_secs(2));
        let past = keys.sign(Audience::Session, PrincipalId(1000), past).expect("random bytes");
        assert!(keys.verify(Audience::Session, &past.token).is_none());
    }

    #[test]
    fn the_algorithm_is_never_the_tokens_choice() {
        let keys = keys();
        let later = Time::now().after(Duration::from_secs(60));
        let signed = keys.sign(Audience::Api, PrincipalId(1000), later).expect("random bytes");
        let (head, rest) = signed.token.split_once('.').expect("a token has three parts");
        let (claims, _) = rest.split_once('.').expect("a token has three parts");
        let id = &keys.facts()[0].id;
        for header in [
            format!(r#"{{"alg":"none","kid":"{id}"}}"#),
            format!(r#"{{"alg":"HS512","typ":"JWT","kid":"{id}"}}"#),
            format!(r#"{{"alg":"RS256","kid":"{id}"}}"#),
            r#"{"alg":"HS256","kid":"0000000000000000"}"#.to_owned(),
            r#"{"alg":"HS256","kid":"../../dev/null"}"#.to_owned(),
            r#"{"alg":"HS256"}"#.to_owned(),
        ] {
            assert_ne!(URL_SAFE_NO_PAD.encode(&header), head);
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
        assert!(of([8; 32], "test").unseal(&sealed).is_none());
        for cut in 0..sealed.len() {
            assert!(keys.unseal(&sealed[..cut]).is_none());
        }
    }

    #[test]
    fn an_old_key_verifies_until_its_end_and_never_signs() {
        let path = std::env::temp_dir().join(format!("berth-keys-r-{}", std::process::id()));
        let keys = Keys::with(&path, vec![Secret::of([7; 32], Time(0), true)], "test");
        let later = Time::now().after(Duration::from_secs(60));
        let sign = || keys.sign(Audience::Api, PrincipalId(1000), later).expect("random bytes");
        let old = sign();
        let sealed = keys.seal("42").expect("random bytes");
        keys.rotate(later).expect("a place for the file");
        let new = sign();
        assert!(old.key.is_empty() && new.key == keys.facts()[0].id);
        for signed in [&old, &new] {
            assert!(keys.verify(Audience::Api, &signed.token).is_some());
        }
        assert_eq!(keys.unseal(&sealed).as_deref(), Some("42"));
        // What is read from the file is the same.
        let again = Keys::open(&path, "test").expect("the file");
        assert!(again.verify(Audience::Api, &old.token).is_some());
        keys.forget(|key| key.until.is_some()).expect("a place for the file");
        assert!(keys.verify(Audience::Api, &old.token).is_none());
        assert!(keys.verify(Audience::Api, &new.token).is_some());
        keys.rotate(Time::now().before(Duration::from_secs(1))).expect("a place for the file");
        assert!(keys.verify(Audience::Api, &new.token).is_none(), "its time is over");
        std::fs::remove_file(&path).expect("removed");
    }
}
