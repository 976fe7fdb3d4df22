//! `berth backup` and `berth restore`: the appliance's own state in one file, and back.
//!
//! Both read and write the files themselves, as root and without the server: a backup is taken while it
//! runs, or when it does not come up any more. `archive` is the file's form.

mod archive;
mod backup;
mod record;
mod restore;

use std::fs::{DirBuilder, File, OpenOptions};
use std::future::Future;
use std::io::{self, Read as _};
use std::os::unix::fs::{DirBuilderExt as _, OpenOptionsExt as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};

pub use backup::{BackupArgs, run as backup};
pub use restore::{RestoreArgs, run as restore};

/// The inventory, from the data directory.
const INVENTORY: &str = "db/berth.db";
/// What signs and seals: without it everybody signs in anew, and no registry credential can be read.
const KEYS: &str = "db/token.key";
/// The certificate that Berth makes, with its key.
const CERTIFICATE: &str = "db/tls-generated.pem";
/// The supervisor's record of who has which ids.
const PEOPLE: &str = "state/people.json";
/// The configuration file; it lies elsewhere.
const CONFIG: &str = "berth.toml";
/// Before a blob's hexadecimal digits.
const BLOBS: &str = "store/blobs/sha256/";
/// A file beside the inventory is never larger.
const SMALL_BYTES_MAX: u64 = 16 << 20;

/// A directory of our own, gone with all that is in it when this is.
struct Workshop(PathBuf);

impl Workshop {
    /// Makes it in `parent`.
    fn make(parent: &Path, purpose: &str) -> Result<Self> {
        let path = parent.join(format!(".berth-{purpose}-{}", crate::auth::keys::random_id()?));
        make_directory(&path)?;
        Ok(Self(path))
    }

    fn path(&self, name: &str) -> PathBuf {
        self.0.join(name)
    }
}

impl Drop for Workshop {
    fn drop(&mut self) {
        if let Err(error) = std::fs::remove_dir_all(&self.0) {
            eprintln!("berth: remove {}: {error}", self.0.display());
        }
    }
}

/// A new directory of the caller's alone.
fn make_directory(path: &Path) -> Result<()> {
    let made = DirBuilder::new().mode(0o700).create(path);
    made.with_context(|| format!("make {}", path.display()))
}

/// A new file of the caller's alone.
fn make_file(path: &Path) -> Result<File> {
    let made = OpenOptions::new().write(true).create_new(true).mode(0o600).open(path);
    made.with_context(|| format!("create {}", path.display()))
}

/// A small file's bytes; `None` when it is not there.
fn read_small(path: &Path) -> Result<Option<Vec<u8>>> {
    let shown = path.display();
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error).with_context(|| format!("read {shown}")),
    };
    let mut bytes = Vec::new();
    let read = file.take(SMALL_BYTES_MAX + 1).read_to_end(&mut bytes);
    read.with_context(|| format!("read {shown}"))?;
    ensure!(
        bytes.len() as u64 <= SMALL_BYTES_MAX,
        "{shown} is larger than {SMALL_BYTES_MAX} bytes"
    );
    Ok(Some(bytes))
}

/// Makes a directory's names last (fsync(2)).
fn sync_directory(path: &Path) -> Result<()> {
    let synced = File::open(path).and_then(|directory| directory.sync_all());
    synced.with_context(|| format!("sync {}", path.display()))
}

/// The directory that a path names something in.
fn parent_of(path: &Path) -> Result<&Path> {
    match path.parent() {
        Some(parent) if parent.as_os_str().is_empty() => Ok(Path::new(".")),
        Some(parent) => Ok(parent),
        None => bail!("{} names no file", path.display()),
    }
}

/// Runs what asks the inventory, on this thread.
fn wait_for<T>(work: impl Future<Output = Result<T>>) -> Result<T> {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    runtime.context("start a thread")?.block_on(work)
}

/// `7 people, 12 images, 30 containers`.
fn in_words(facts: &crate::inventory::copy::Facts) -> String {
    let count = |number: i64, one: &str, many: &str| match number {
        1 => format!("1 {one}"),
        _ => format!("{number} {many}"),
    };
    [
        count(facts.people, "person", "people"),
        count(facts.images, "image", "images"),
        count(facts.containers, "container", "containers"),
    ]
    .join(", ")
}
