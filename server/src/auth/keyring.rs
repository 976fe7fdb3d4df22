//! The key file: the secret that signs now, and older ones that only verify until what they signed
//! has ended. One file, 0600, replaced whole.
//!
//! A file of 32 bytes is that of the first version: one secret, whose tokens name no key.

use std::fs;
use std::io::Write as _;
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _};
use std::path::Path;

use anyhow::{Context as _, Result, bail, ensure};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::keys::random_bytes;
use crate::clock::Time;

/// Bytes of a secret.
pub(super) const SECRET_BYTES: usize = 32;
/// Secrets that are kept at most; more would only be old ones that nobody ended.
pub(super) const SECRETS_MAX: usize = 16;
/// The key file is never larger.
const FILE_BYTES_MAX: u64 = 64 * 1024;
/// Hexadecimal digits of a secret's name.
const ID_BYTES: usize = 8;

/// One secret.
#[derive(Clone)]
pub(super) struct Secret {
    pub(super) bytes: [u8; SECRET_BYTES],
    /// Its name, in tokens and in `berth keys`; tells nothing of it.
    pub(super) id: String,
    pub(super) made_at: Time,
    /// When it is to be forgotten; `None` for the one that signs.
    pub(super) until: Option<Time>,
    /// Whether tokens that name no key are its own.
    pub(super) unnamed: bool,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct File {
    version: u32,
    keys: Vec<Row>,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Row {
    id: String,
    secret: String,
    made_at: i64,
    until: Option<i64>,
    unnamed: bool,
}

impl Secret {
    /// A new one.
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub(super) fn make() -> crate::error::Result<Self> {
        Ok(Self::of(random_bytes()?, Time::now(), false))
    }

    pub(super) fn of(bytes: [u8; SECRET_BYTES], made_at: Time, unnamed: bool) -> Self {
        let name = derive(&bytes, "id");
        let id = name[..ID_BYTES].iter().map(|byte| format!("{byte:02x}")).collect();
        Self { bytes, id, made_at, until: None, unnamed }
    }

    /// The key for one use, named by `label`.
    pub(super) fn derive(&self, label: &str) -> [u8; 32] {
        derive(&self.bytes, label)
    }
}

/// Reads the file, or makes one with a new secret. The signing one comes first.
///
/// # Errors
/// When it cannot be read or written, is damaged, or is open to others.
pub(super) fn open(path: &Path) -> Result<Vec<Secret>> {
    let shown = path.display();
    let found = match fs::metadata(path) {
        Ok(found) => found,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            let secrets = vec![Secret::make()?];
            write(path, &secrets).with_context(|| format!("create {shown}"))?;
            return Ok(secrets);
        }
        Err(error) => return Err(error).with_context(|| format!("read {shown}")),
    };
    let mode = found.permissions().mode();
    ensure!(mode & 0o077 == 0, "{shown} is open to others (mode {mode:o}): chmod 600");
    ensure!(found.len() <= FILE_BYTES_MAX, "{shown} is larger than {FILE_BYTES_MAX} bytes");
    let bytes = fs::read(path).with_context(|| format!("read {shown}"))?;
    if let Ok(bytes) = <[u8; SECRET_BYTES]>::try_from(bytes.as_slice()) {
        let made_at = found.modified().ok().and_then(|at| at.elapsed().ok());
        let made_at = Time::now().before(made_at.unwrap_or_default());
        return Ok(vec![Secret::of(bytes, made_at, true)]);
    }
    parse(&bytes).with_context(|| {
        format!("{shown} is damaged: restore it, or move it away, and everyone signs in anew")
    })
}

fn parse(bytes: &[u8]) -> Result<Vec<Secret>> {
    let file: File = serde_json::from_slice(bytes)?;
    ensure!(file.version == 1, "version {} is not known", file.version);
    let mut secrets = Vec::new();
    for row in file.keys {
        let bytes = STANDARD.decode(&row.secret).ok();
        let bytes = bytes.and_then(|bytes| <[u8; SECRET_BYTES]>::try_from(bytes).ok());
        let Some(bytes) = bytes else { bail!("the secret of {:?} is no secret", row.id) };
        let secret = Secret {
            until: row.until.map(Time),
            ..Secret::of(bytes, Time(row.made_at), row.unnamed)
        };
        ensure!(secret.id == row.id, "the secret of {:?} is another's", row.id);
        secrets.push(secret);
    }
    let signing = secrets.iter().filter(|secret| secret.until.is_none()).count();
    ensure!(signing == 1 && secrets[0].until.is_none(), "{signing} keys sign, not the first alone");
    ensure!(secrets.len() <= SECRETS_MAX, "more than {SECRETS_MAX} keys");
    Ok(secrets)
}

/// Replaces the file; on disk when this returns.
///
/// # Errors
/// When the disk refuses; then the old file stands.
pub(super) fn write(path: &Path, secrets: &[Secret]) -> Result<()> {
    let row = |secret: &Secret| Row {
        id: secret.id.clone(),
        secret: STANDARD.encode(secret.bytes),
        made_at: secret.made_at.0,
        until: secret.until.map(|until| until.0),
        unnamed: secret.unnamed,
    };
    let file = File { version: 1, keys: secrets.iter().map(row).collect() };
    let text = serde_json::to_string_pretty(&file)?;
    let temporary = path.with_extension("new");
    let mut file = fs::OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&temporary)?;
    file.set_permissions(fs::Permissions::from_mode(0o600))?;
    file.write_all(text.as_bytes())?;
    file.sync_all()?;
    fs::rename(&temporary, path)?;
    if let Some(directory) = path.parent() {
        fs::File::open(directory)?.sync_all()?;
    }
    Ok(())
}

fn derive(secret: &[u8; SECRET_BYTES], label: &str) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update(b"berth key\0");
    hash.update(label.as_bytes());
    hash.update(b"\0");
    hash.update(secret);
    hash.finalize().into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_keeps_its_keys_and_a_damaged_one_is_refused() {
        let path = std::env::temp_dir().join(format!("berth-keyring-{}", std::process::id()));
        let made = open(&path).expect("a new file");
        let mode = fs::metadata(&path).expect("it is there").permissions().mode();
        assert_eq!(mode & 0o777, 0o600);
        let mut old = Secret::of([7; SECRET_BYTES], Time(5), true);
        old.until = Some(Time(9));
        write(&path, &[made[0].clone(), old.clone()]).expect("written");
        let read = open(&path).expect("it reads");
        assert_eq!((read[0].bytes, &read[0].id), (made[0].bytes, &made[0].id));
        assert_eq!(
            (read[1].until, read[1].unnamed, read[1].made_at),
            (Some(Time(9)), true, Time(5))
        );
        let good = fs::read_to_string(&path).expect("text");
        for bad in [good.replacen("null", "5", 1), good.replacen("\"id\": \"", "\"id\": \"0", 1)] {
            fs::write(&path, bad).expect("written");
            assert!(open(&path).is_err());
        }
        // The first version's file: a secret and nothing else.
        fs::write(&path, [7; SECRET_BYTES]).expect("written");
        let first = open(&path).expect("it reads");
        assert!(first[0].unnamed && first[0].id == old.id && first[0].until.is_none());
        fs::remove_file(&path).expect("removed");
    }
}
