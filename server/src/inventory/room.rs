//! Room on the inventory's disk for what has to work when that is full: to end, to remove, to sign in,
//! to write down what has ended.
//!
//! Blocks are set aside behind the ends of the write-ahead log and of the file (`FALLOC_FL_KEEP_SIZE`,
//! fallocate(2)): SQLite grows into them, and whatever else fills the disk cannot have them. So that they
//! are there when they are needed, other writes are refused while less than [`LOW_BYTES`] are left. A
//! checkpoint cuts what lies behind the file's end (but not behind the log's), so both are looked after
//! again and again. To open the inventory takes files that are not there yet: for them, whole files lie
//! ready to be given up.
//!
//! Where a file system cannot set blocks aside, [`LOW_BYTES`] is all the room there is.

use std::fs::{File, OpenOptions};
use std::io;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, OpenOptionsExt};
use std::path::{Path, PathBuf};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, fallocate};
use nix::sys::statvfs::statvfs;

/// Of the write-ahead log: some hundred acts. Its index grows at 16 MiB only.
const LOG_BYTES: u64 = 12 << 20;
/// Behind the end of the file: the rows of as many.
const FILE_BYTES: u64 = 4 << 20;
/// With less than this left the disk counts as full.
const LOW_BYTES: u64 = 8 << 20;
/// Between two looks.
const PAUSE: Duration = Duration::from_secs(1);
/// What is given up to open the inventory on a full disk: a log and its index, a file each.
const READY: [&str; 2] = ["reserve-1", "reserve-2"];
const READY_BYTES: u64 = 256 << 10;

/// The room of one inventory.
pub(super) struct Room {
    path: PathBuf,
    /// Open as long as the inventory is: to close it would release SQLite's locks of this process
    /// (fcntl(2)).
    file: File,
    seen: Mutex<Seen>,
}

struct Seen {
    next: Instant,
    low: bool,
    can_set_aside: bool,
}

/// Before the inventory is opened: gives up what lies ready when the disk is full.
pub(super) fn make_way(path: &Path) {
    if available(path).is_ok_and(|bytes| bytes >= 2 * READY_BYTES) && has_inodes(path) {
        return;
    }
    for name in READY {
        match std::fs::remove_file(path.with_file_name(name)) {
            Ok(()) => tracing::warn!("the inventory's disk is full: gave up a file kept for that"),
            // Without it, too, there may be room enough.
            Err(error) => tracing::debug!(name, %error, "nothing to give up"),
        }
    }
}

impl Room {
    /// Of the inventory at `path`, which is there.
    pub(super) fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().read(true).write(true).open(path)?;
        let seen = Seen { next: Instant::now(), low: false, can_set_aside: true };
        Ok(Self { path: path.to_owned(), file, seen: Mutex::new(seen) })
    }

    /// Whether only what ends or removes something may write now.
    pub(super) fn is_low(&self) -> bool {
        let mut seen = self.seen.lock().unwrap_or_else(PoisonError::into_inner);
        if Instant::now() >= seen.next {
            match self.look(&mut seen) {
                Ok(low) if low != seen.low => {
                    seen.low = low;
                    match low {
                        true => tracing::warn!("the inventory's disk is full"),
                        false => tracing::info!("the inventory's disk has room again"),
                    }
                }
                Ok(_) => {}
                Err(error) => tracing::warn!(%error, "cannot see to the room for the inventory"),
            }
            seen.next = Instant::now() + PAUSE;
        }
        seen.low
    }

    fn look(&self, seen: &mut Seen) -> io::Result<bool> {
        let mut log = self.path.clone().into_os_string();
        log.push("-wal");
        let log = OpenOptions::new().write(true).open(log);
        let wanted = [
            (Some(&self.file), self.file.metadata()?.size() + FILE_BYTES),
            (log.as_ref().ok(), LOG_BYTES),
        ];
        let mut missing = 0;
        for (file, bytes) in wanted {
            missing += bytes.saturating_sub(allocated(file)?);
        }
        let left = available(&self.path)?;
        if !seen.can_set_aside || missing == 0 {
            return Ok(left < LOW_BYTES);
        }
        if left < LOW_BYTES + missing {
            return Ok(true);
        }
        for (file, bytes) in wanted {
            let Some(file) = file else { continue };
            if allocated(Some(file))? < bytes && !set_aside(file, bytes)? {
                tracing::warn!("the file system of the inventory cannot set room aside");
                seen.can_set_aside = false;
            }
        }
        for name in READY {
            self.lay_ready(name)?;
        }
        Ok(false)
    }

    fn lay_ready(&self, name: &str) -> io::Result<()> {
        let path = self.path.with_file_name(name);
        let file =
            OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(path)?;
        if allocated(Some(&file))? < READY_BYTES {
            set_aside(&file, READY_BYTES)?;
        }
        Ok(())
    }
}

/// Bytes on disk of a file; all of one that is not there, which needs none.
fn allocated(file: Option<&File>) -> io::Result<u64> {
    file.map_or(Ok(u64::MAX), |file| Ok(file.metadata()?.blocks() * 512))
}

/// Has the file's first `bytes` on disk, without growing it; false where that cannot be had.
fn set_aside(file: &File, bytes: u64) -> io::Result<bool> {
    let length = i64::try_from(bytes).unwrap_or(i64::MAX);
    match fallocate(file.as_fd(), FallocateFlags::FALLOC_FL_KEEP_SIZE, 0, length) {
        Ok(()) => Ok(true),
        Err(Errno::EOPNOTSUPP | Errno::ENOSYS) => Ok(false),
        Err(errno) => Err(errno.into()),
    }
}

/// Bytes that the server's user may still have.
fn available(path: &Path) -> io::Result<u64> {
    let found = statvfs(path.parent().unwrap_or(path))?;
    Ok(found.blocks_available().saturating_mul(found.fragment_size()))
}

/// Whether new files can be made; a file system without a table of them says 0 of 0.
fn has_inodes(path: &Path) -> bool {
    let found = statvfs(path.parent().unwrap_or(path));
    found.is_ok_and(|found| found.files() == 0 || found.files_available() >= 2)
}
