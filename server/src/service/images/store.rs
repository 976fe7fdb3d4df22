//! The content store: blobs by digest under `store/blobs/sha256/`, what is coming in under
//! `store/tmp/`.
//!
//! A blob has its name only when all its bytes are on disk and were hashed. Whoever uses blobs pins
//! them first; what is pinned is never collected, and the pin's lock makes two pulls of one blob take
//! turns, so that it is downloaded, stored and unpacked once.

use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError};

use berth_runtime::digest::Digest;
use sha2::{Digest as _, Sha256};
use tokio::fs::File;
use tokio::io::AsyncWriteExt;
use tokio::sync::OwnedMutexGuard;

use crate::auth::keys::random_id;
use crate::error::{Error, Result};
use crate::registry::client::mismatch;

/// Bytes of a file's write buffer.
const BUFFER_BYTES: usize = 1 << 20;

/// The store.
pub struct Content {
    blobs: PathBuf,
    temporary: PathBuf,
    pins: Mutex<HashMap<Digest, Pin>>,
}

#[derive(Default)]
struct Pin {
    count: usize,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// A digest that somebody uses; counted until dropped.
pub struct Pinned {
    content: Arc<Content>,
    digest: Digest,
    turn: Arc<tokio::sync::Mutex<()>>,
}

/// Bytes on their way in. Dropped without [`Incoming::commit`], they leave nothing.
pub struct Incoming {
    file: Option<File>,
    place: Temporary,
    hash: Sha256,
    bytes: u64,
}

/// A file below `store/tmp/`, gone when this is.
struct Temporary(PathBuf);

impl Content {
    /// Opens the store, makes what is missing, and drops what an earlier server was still receiving.
    pub fn open(directory: &Path) -> io::Result<Self> {
        let blobs = directory.join("blobs/sha256");
        let temporary = directory.join("tmp");
        std::fs::create_dir_all(&blobs)?;
        std::fs::create_dir_all(&temporary)?;
        for entry in std::fs::read_dir(&temporary)? {
            std::fs::remove_file(entry?.path())?;
        }
        Ok(Self { blobs, temporary, pins: Mutex::default() })
    }

    /// Pins a digest, whether it is stored or not.
    pub fn pin(self: &Arc<Self>, digest: &Digest) -> Pinned {
        let mut pins = self.pins.lock().unwrap_or_else(PoisonError::into_inner);
        let pin = pins.entry(digest.clone()).or_default();
        pin.count += 1;
        let turn = Arc::clone(&pin.turn);
        Pinned { content: Arc::clone(self), digest: digest.clone(), turn }
    }

    /// Whether the blob is stored.
    pub fn has(&self, digest: &Digest) -> bool {
        self.path(digest).is_file()
    }

    /// The stored blob, open for reading.
    pub fn open_blob(&self, digest: &Digest) -> Result<OwnedFd> {
        std::fs::File::open(self.path(digest)).map(OwnedFd::from).map_err(disk("open a blob"))
    }

    /// The stored blob's size.
    pub fn size(&self, digest: &Digest) -> Result<u64> {
        let meta = std::fs::metadata(self.path(digest)).map_err(disk("look at a blob"))?;
        Ok(meta.len())
    }

    /// Begins to receive a blob.
    pub async fn receive(&self) -> Result<Incoming> {
        let path = self.temporary.join(random_id()?);
        // Whoever waits here may be cancelled while the file is made: then its owner goes with it.
        let made = tokio::task::spawn_blocking(move || {
            let file = std::fs::File::create_new(&path)?;
            Ok((file, Temporary(path)))
        });
        let made = made.await.map_err(|source| Error::broken("create a blob", source))?;
        let (file, place) = made.map_err(disk("create a blob"))?;
        let mut file = File::from_std(file);
        file.set_max_buf_size(BUFFER_BYTES);
        Ok(Incoming { file: Some(file), place, hash: Sha256::new(), bytes: 0 })
    }

    /// Stores bytes that are in memory.
    pub async fn put(&self, digest: &Digest, bytes: &[u8]) -> Result<()> {
        if self.has(digest) {
            return Ok(());
        }
        let mut incoming = self.receive().await?;
        incoming.write(bytes).await?;
        incoming.commit(self, digest).await
    }

    /// Every stored blob.
    pub fn list(&self) -> Result<Vec<Digest>> {
        let entries = std::fs::read_dir(&self.blobs).map_err(disk("list the blobs"))?;
        let mut found = Vec::new();
        for entry in entries {
            let name = entry.map_err(disk("list the blobs"))?.file_name();
            if let Ok(digest) = format!("sha256:{}", name.to_string_lossy()).parse() {
                found.push(digest);
            }
        }
        Ok(found)
    }

    /// Removes a blob; success when it is gone already.
    pub fn remove(&self, digest: &Digest) -> Result<()> {
        match std::fs::remove_file(self.path(digest)) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                Err(disk("remove a blob")(error))
            }
            _ => Ok(()),
        }
    }

    fn path(&self, digest: &Digest) -> PathBuf {
        self.blobs.join(digest.hex())
    }
}

impl Pinned {
    /// Waits until nobody else fetches or removes this digest.
    pub async fn turn(&self) -> OwnedMutexGuard<()> {
        Arc::clone(&self.turn).lock_owned().await
    }

    /// Whether nobody else has pinned it.
    pub fn is_alone(&self) -> bool {
        let pins = self.content.pins.lock().unwrap_or_else(PoisonError::into_inner);
        pins.get(&self.digest).is_none_or(|pin| pin.count <= 1)
    }
}

impl Drop for Pinned {
    fn drop(&mut self) {
        let mut pins = self.content.pins.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(pin) = pins.get_mut(&self.digest) {
            pin.count -= 1;
            if pin.count == 0 {
                pins.remove(&self.digest);
            }
        }
    }
}

impl Incoming {
    /// Takes the next bytes.
    pub async fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.hash.update(bytes);
        self.bytes += bytes.len() as u64;
        match &mut self.file {
            Some(file) => file.write_all(bytes).await.map_err(disk("write a blob")),
            None => Ok(()),
        }
    }

    /// Bytes taken so far.
    pub fn bytes(&self) -> u64 {
        self.bytes
    }

    /// The digest of what has come.
    pub fn digest(&self) -> Digest {
        Digest::from_hash(&self.hash.clone().finalize().into())
    }

    /// The file as it is now, open for reading; on disk as far as this program is concerned.
    pub async fn reopen(&mut self) -> Result<std::fs::File> {
        if let Some(file) = &mut self.file {
            file.flush().await.map_err(disk("write an upload"))?;
        }
        std::fs::File::open(&self.place.0).map_err(disk("open an upload"))
    }

    /// Names the blob, if it is what it should be; on disk when this returns.
    pub async fn commit(mut self, content: &Content, digest: &Digest) -> Result<()> {
        if self.digest() != *digest {
            return Err(mismatch("a blob"));
        }
        let Some(mut file) = self.file.take() else { return Ok(()) };
        file.flush().await.map_err(disk("write a blob"))?;
        let file = file.into_std().await;
        let (from, to, directory) =
            (self.place.0.clone(), content.path(digest), content.blobs.clone());
        let named = tokio::task::spawn_blocking(move || {
            file.sync_all()?;
            std::fs::rename(from, to)?;
            std::fs::File::open(directory)?.sync_all()
        });
        let named = named.await.map_err(|source| Error::broken("store a blob", source))?;
        named.map_err(disk("store a blob"))
    }
}

impl Drop for Temporary {
    fn drop(&mut self) {
        match std::fs::remove_file(&self.0) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => {
                tracing::warn!(error = %error, "an unfinished download was not removed");
            }
            _ => {}
        }
    }
}

/// The disk's errors, for people where they can do something about it.
pub fn disk(step: &'static str) -> impl Fn(io::Error) -> Error {
    move |error| match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            Error::exhausted("disk.full", "the disk that holds the images is full")
        }
        _ => Error::broken(step, error),
    }
}
