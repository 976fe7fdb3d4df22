//! The unpacked layers on disk: `layers/sha256/<hex>` and `layers/tmp/`, root's own (0700).
//!
//! A layer exists when its name does. It gets the name by one rename, after everything in it was
//! synced; what is in `tmp` is nobody's and goes at the next sweep. Each staging directory is locked
//! (flock(2)) by its worker, so a sweep never meets one in use. A layer's facts are kept on its root
//! as a `trusted.` attribute, which no container can see or set.

use std::ffi::{CStr, CString};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::Path;
use std::time::{Duration, Instant};

use berth_runtime::digest::Digest;
use berth_runtime::record::Failure;
use nix::dir::{Dir, Type};
use nix::errno::Errno;
use nix::fcntl::{AtFlags, Flock, FlockArg, OFlag, RenameFlags, open, openat, renameat2};
use nix::sys::signal::kill;
use nix::sys::stat::{Mode, fstat, fstatat, mkdirat};
use nix::sys::statvfs::fstatvfs;
use nix::unistd::{Gid, Pid, Uid, UnlinkatFlags, fchown, fsync, syncfs, unlinkat};
use serde::{Deserialize, Serialize};

use super::fault::{broken, os};
use crate::sys;

/// How long a killed worker's child may take to end.
const CHILD_END_MAX: Duration = Duration::from_secs(5);
/// Where a layer's facts are kept on its root.
pub(super) const FACTS_XATTR: &CStr = c"trusted.berth.layer";
/// Bytes of facts at most.
const FACTS_BYTES_MAX: usize = 1024;
/// Staging directories made in turn, when sweeps take them before they are locked.
const STAGE_TRIES_MAX: usize = 16;
/// Names tried for a directory that is lifted out of a tree being removed.
const LIFT_TRIES_MAX: u64 = 1 << 32;

/// What is kept of each layer beside its files.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct StoredFacts {
    pub(crate) diff_id: Digest,
    pub(crate) entries: u64,
    pub(crate) bytes: u64,
    pub(crate) devices_skipped: u64,
}

/// The open directories of the store.
pub(crate) struct Store {
    named: OwnedFd,
    staged: OwnedFd,
}

/// A staging directory; locked while this lives.
pub(super) struct Staging {
    name: CString,
    lock: Flock<OwnedFd>,
}

impl Store {
    /// Opens the store below `data_dir`, making what is missing. Safe to call again and again.
    pub(crate) fn open(data_dir: &Path) -> Result<Self, Failure> {
        let failed = |errno| os("open the layer store", errno);
        let data = open(data_dir, directory_flags(), Mode::empty()).map_err(failed)?;
        let layers = make_directory(data.as_fd(), c"layers").map_err(failed)?;
        let named = make_directory(layers.as_fd(), c"sha256").map_err(failed)?;
        let staged = make_directory(layers.as_fd(), c"tmp").map_err(failed)?;
        Ok(Self { named, staged })
    }

    /// The facts of layer `blob`, or `None` when it is not stored.
    pub(crate) fn find(&self, blob: &Digest) -> Result<Option<StoredFacts>, Failure> {
        let fd = match openat(&self.named, blob.hex(), directory_flags(), Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(os(format!("open layer {blob}"), errno)),
        };
        let mut bytes = vec![0; FACTS_BYTES_MAX];
        let length = sys::layer::get_xattr(fd.as_fd(), FACTS_XATTR, &mut bytes)
            .map_err(|errno| os(format!("read the facts of layer {blob}"), errno))?;
        match serde_json::from_slice(&bytes[..length]) {
            Ok(facts) => Ok(Some(facts)),
            Err(error) => Err(broken(format!("read the facts of layer {blob}: {error}"))),
        }
    }

    /// The root of layer `blob`, open for reading.
    pub(super) fn open_layer(&self, blob: &Digest) -> Result<OwnedFd, Failure> {
        openat(&self.named, blob.hex(), directory_flags(), Mode::empty())
            .map_err(|errno| os(format!("open layer {blob}"), errno))
    }

    /// Bytes that are free for what is staged.
    pub(super) fn free_bytes(&self) -> Result<u64, Failure> {
        let facts =
            fstatvfs(&self.staged).map_err(|errno| os("look at the layers' disk", errno))?;
        Ok(facts.blocks_available().saturating_mul(facts.fragment_size()))
    }

    /// A page of stored layers above `after`, ascending, and whether there are more.
    pub(crate) fn list(
        &self,
        after: Option<&Digest>,
        count_max: usize,
    ) -> Result<(Vec<Digest>, bool), Failure> {
        let failed = |errno| os("list the layers", errno);
        let mut dir = reopen(self.named.as_fd()).map_err(failed)?;
        let mut found = Vec::new();
        for entry in dir.iter() {
            let entry = entry.map_err(failed)?;
            let name = entry.file_name().to_string_lossy();
            if let Ok(digest) = format!("sha256:{name}").parse::<Digest>()
                && after.is_none_or(|after| digest > *after)
            {
                found.push(digest);
            }
        }
        found.sort_unstable();
        let more = found.len() > count_max;
        found.truncate(count_max);
        Ok((found, more))
    }

    /// An empty staging directory owned by `owner`, locked.
    pub(super) fn stage(&self, blob: &Digest, owner: u32) -> Result<Staging, Failure> {
        let failed = |errno| os("make a staging directory", errno);
        let pid = std::process::id();
        let name = CString::new(format!("{}-{pid}", blob.hex())).map_err(|_| broken("a NUL"))?;
        if let Err(errno) = remove_tree(self.staged.as_fd(), &name)
            && errno != Errno::ENOENT
        {
            return Err(failed(errno));
        }
        for _ in 0..STAGE_TRIES_MAX {
            mkdirat(&self.staged, name.as_c_str(), Mode::from_bits_truncate(0o755))
                .map_err(failed)?;
            if let Some(lock) = self.lock_staged(&name).map_err(failed)? {
                fchown(&*lock, Some(Uid::from_raw(owner)), Some(Gid::from_raw(owner)))
                    .map_err(failed)?;
                return Ok(Staging { name, lock });
            }
        }
        Err(failed(Errno::EAGAIN))
    }

    /// Locks the staging directory just made. `None` when a sweep came between, took it for one that was
    /// left, and has removed it.
    fn lock_staged(&self, name: &CStr) -> nix::Result<Option<Flock<OwnedFd>>> {
        let fd = match openat(&self.staged, name, directory_flags(), Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(errno),
        };
        // A sweep holds it only to remove an empty directory: the wait is short.
        let lock = Flock::lock(fd, FlockArg::LockExclusive).map_err(|(_, errno)| errno)?;
        match fstatat(&self.staged, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
            Ok(named) if named.st_ino == fstat(&*lock)?.st_ino => Ok(Some(lock)),
            Ok(_) | Err(Errno::ENOENT) => Ok(None),
            Err(errno) => Err(errno),
        }
    }

    /// Gives a staged layer its name, on disk when this returns. Somebody else's equal layer that
    /// came first is as good.
    pub(super) fn name(
        &self,
        staging: &Staging,
        blob: &Digest,
        facts: &StoredFacts,
    ) -> Result<(), Failure> {
        let failed = |step: &'static str| move |errno| os(step, errno);
        let bytes = serde_json::to_vec(facts).map_err(|error| broken(error.to_string()))?;
        let root = staging.fd();
        sys::layer::set_xattr(root, FACTS_XATTR, &bytes).map_err(failed("keep a layer's facts"))?;
        // Once for all files of the layer: a sync per file costs more than the download.
        syncfs(root).map_err(failed("write the layer to disk"))?;
        let (from, to) = (self.staged.as_fd(), self.named.as_fd());
        let flags = RenameFlags::RENAME_NOREPLACE;
        match renameat2(from, staging.name.as_c_str(), to, blob.hex(), flags) {
            Ok(()) => {}
            Err(Errno::EEXIST) => self.discard(staging)?,
            Err(errno) => return Err(failed("name the layer")(errno)),
        }
        fsync(&self.named).map_err(failed("write the layer's name to disk"))
    }

    /// Removes a staging directory.
    pub(super) fn discard(&self, staging: &Staging) -> Result<(), Failure> {
        remove_tree(self.staged.as_fd(), &staging.name)
            .map_err(|errno| os("remove a staging directory", errno))
    }

    /// Takes the name from layer `blob`; from then on it is not there. Success when it was not.
    pub(super) fn unname(&self, blob: &Digest) -> Result<(), Failure> {
        let failed = |errno| os(format!("remove layer {blob}"), errno);
        let name = unnamed(blob);
        let flags = RenameFlags::RENAME_NOREPLACE;
        match renameat2(&self.named, blob.hex(), &self.staged, name.as_str(), flags) {
            Ok(()) => {}
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        }
        fsync(&self.named).map_err(failed)
    }

    /// Removes the tree that [`Store::unname`] has set aside, unless a sweep does by now.
    pub(super) fn remove_unnamed(&self, blob: &Digest) -> Result<(), Failure> {
        let name = CString::new(unnamed(blob)).map_err(|_| broken("a NUL"))?;
        let failed = |errno| os("remove a layer's files", errno);
        let fd = match openat(&self.staged, name.as_c_str(), directory_flags(), Mode::empty()) {
            Ok(fd) => fd,
            Err(Errno::ENOENT) => return Ok(()),
            Err(errno) => return Err(failed(errno)),
        };
        let _lock = match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => lock,
            Err((_, Errno::EWOULDBLOCK)) => return Ok(()),
            Err((_, errno)) => return Err(failed(errno)),
        };
        match remove_tree(self.staged.as_fd(), &name) {
            Ok(()) | Err(Errno::ENOENT) => Ok(()),
            Err(errno) => Err(failed(errno)),
        }
    }

    /// Removes what interrupted workers have left.
    pub(super) fn sweep(&self) -> Result<(), Failure> {
        let failed = |errno| os("sweep the staging directory", errno);
        let mut names: Vec<CString> = Vec::new();
        for entry in reopen(self.staged.as_fd()).map_err(failed)?.iter() {
            let name = entry.map_err(failed)?.file_name().to_owned();
            if name.as_c_str() != c"." && name.as_c_str() != c".." {
                names.push(name);
            }
        }
        for name in names {
            let locked =
                match openat(&self.staged, name.as_c_str(), directory_flags(), Mode::empty()) {
                    Ok(fd) => lock_left(fd, &name),
                    Err(Errno::ENOENT) => continue,
                    Err(errno) => return Err(failed(errno)),
                };
            match locked {
                Ok(_lock) => match remove_tree(self.staged.as_fd(), &name) {
                    Ok(()) | Err(Errno::ENOENT) => {}
                    Err(errno) => return Err(failed(errno)),
                },
                // Its worker lives.
                Err(Errno::EWOULDBLOCK) => {}
                Err(errno) => return Err(failed(errno)),
            }
        }
        Ok(())
    }
}

impl Staging {
    /// The directory.
    pub(super) fn fd(&self) -> BorrowedFd<'_> {
        self.lock.as_fd()
    }
}

/// What a layer is called while its worker removes it.
fn unnamed(blob: &Digest) -> String {
    format!("{}-gone-{}", blob.hex(), std::process::id())
}

/// Takes the lock of what a worker may have left. When the worker is gone, its child holds the lock for a
/// moment longer.
fn lock_left(fd: OwnedFd, name: &CStr) -> Result<Flock<OwnedFd>, Errno> {
    let pid = name.to_str().ok().and_then(|name| name.rsplit('-').next()?.parse().ok());
    let is_gone = pid.is_some_and(|pid| kill(Pid::from_raw(pid), None) == Err(Errno::ESRCH));
    let deadline = Instant::now() + CHILD_END_MAX;
    let mut fd = fd;
    loop {
        match Flock::lock(fd, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((again, Errno::EWOULDBLOCK)) if is_gone && Instant::now() < deadline => fd = again,
            Err((_, errno)) => return Err(errno),
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

fn directory_flags() -> OFlag {
    OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC
}

fn make_directory(at: BorrowedFd<'_>, name: &CStr) -> nix::Result<OwnedFd> {
    match mkdirat(at, name, Mode::from_bits_truncate(0o700)) {
        Ok(()) => fsync(at)?,
        Err(Errno::EEXIST) => {}
        Err(errno) => return Err(errno),
    }
    openat(at, name, directory_flags(), Mode::empty())
}

/// A second, independent open of a directory, to read it from its start.
fn reopen(fd: BorrowedFd<'_>) -> nix::Result<Dir> {
    Dir::openat(fd, c".", directory_flags(), Mode::empty())
}

/// Removes `name` below `at`, whatever it is. The tree may be as deep as it likes: subdirectories
/// are lifted up before they are emptied, so neither stack nor descriptors grow with the depth.
/// Nobody else may be writing below `at`.
pub(crate) fn remove_tree(at: BorrowedFd<'_>, name: &CStr) -> nix::Result<()> {
    match unlinkat(at, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) => return Ok(()),
        Err(Errno::EISDIR) => {}
        Err(errno) => return Err(errno),
    }
    let top = openat(at, name, directory_flags(), Mode::empty())?;
    let mut lifted: u64 = 0;
    while empty_once(top.as_fd(), &mut lifted)? {}
    unlinkat(at, name, UnlinkatFlags::RemoveDir)
}

/// One pass over `top`; whether it has found anything.
fn empty_once(top: BorrowedFd<'_>, lifted: &mut u64) -> nix::Result<bool> {
    let mut found = false;
    for entry in reopen(top)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        found = true;
        if entry.file_type() != Some(Type::Directory) {
            match unlinkat(top, name, UnlinkatFlags::NoRemoveDir) {
                Ok(()) | Err(Errno::ENOENT) => continue,
                Err(Errno::EISDIR) => {}
                Err(errno) => return Err(errno),
            }
        }
        let inner = match openat(top, name, directory_flags(), Mode::empty()) {
            Ok(inner) => inner,
            Err(Errno::ENOENT) => continue,
            Err(errno) => return Err(errno),
        };
        while lift_once(top, inner.as_fd(), lifted)? {}
        unlinkat(top, name, UnlinkatFlags::RemoveDir)?;
    }
    Ok(found)
}

/// Removes the files in `inner` and moves its directories to `top`; whether it has found anything.
fn lift_once(top: BorrowedFd<'_>, inner: BorrowedFd<'_>, lifted: &mut u64) -> nix::Result<bool> {
    let mut found = false;
    for entry in reopen(inner)?.iter() {
        let entry = entry?;
        let name = entry.file_name();
        if name == c"." || name == c".." {
            continue;
        }
        found = true;
        match unlinkat(inner, name, UnlinkatFlags::NoRemoveDir) {
            Ok(()) | Err(Errno::ENOENT) => continue,
            Err(Errno::EISDIR) => {}
            Err(errno) => return Err(errno),
        }
        while *lifted < LIFT_TRIES_MAX {
            *lifted += 1;
            let place = format!(".lifted-{lifted}");
            let flags = RenameFlags::RENAME_NOREPLACE;
            match renameat2(inner, name, top, place.as_str(), flags) {
                Ok(()) => break,
                Err(Errno::EEXIST) => {}
                Err(errno) => return Err(errno),
            }
        }
    }
    Ok(found)
}
