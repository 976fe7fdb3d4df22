//! The copy of our binary that the OCI command line runs from: on a file system in memory that was made
//! read-only once the copy was on it, so that nobody who finds it under `/proc/<pid>/exe` can write to it
//! (CVE-2019-5736). It is made once for each build and boot, since copying costs more than a container's
//! namespaces; where it cannot be, each command makes a sealed copy of its own ([`memfd::ensure_sealed`]).
//!
//! `/run/berth-runtime/<build>` is the mount: seen in the host's mount table, complete before it is there.

use std::ffi::CString;
use std::fs::{self, DirBuilder, File, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStringExt;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::mount::{MntFlags, umount2};
use nix::sys::stat::Mode;
use nix::sys::statfs::{TMPFS_MAGIC, fstatfs};
use nix::sys::statvfs::{FsFlags, fstatvfs};

use crate::sys::lock::try_lock;
use crate::sys::memfd;
use crate::sys::mount_api::{attach, attributes, fs_config, fs_mount, fs_open, fs_reconfigure};

/// Where the mounts are.
const PLACE: &str = "/run/berth-runtime";
const NAME: &str = "berth-runtime";

/// Returns when this process runs from a copy that nobody can write to; else becomes one, with the same
/// arguments and environment.
pub fn ensure_sealed() -> io::Result<()> {
    let own = File::open("/proc/self/exe")?;
    let kept = is_kept(&own);
    // What was installed on such a file system is no copy.
    if kept && fs::read_link("/proc/self/exe")?.starts_with(PLACE) {
        return Ok(());
    }
    // Never from one copy to another, whatever the place is called.
    if !kept
        && !memfd::is_sealed(&own)
        && let Ok(copy) = copy_of(&own)
    {
        let arguments: Result<Vec<CString>, _> =
            std::env::args_os().map(|word| CString::new(word.into_vec())).collect();
        // Only a failure comes back; then the way that needs no mount is left.
        memfd::execute(&copy, &arguments?);
    }
    memfd::ensure_sealed()
}

/// Whether a file is on a file system in memory that takes no writes.
fn is_kept(file: &File) -> bool {
    let in_memory = fstatfs(file).is_ok_and(|facts| facts.filesystem_type() == TMPFS_MAGIC);
    let sealed = fstatvfs(file).is_ok_and(|facts| facts.flags().contains(FsFlags::ST_RDONLY));
    in_memory && sealed
}

/// The copy of this very build, made where it is not there.
fn copy_of(own: &File) -> io::Result<OwnedFd> {
    let facts = own.metadata()?;
    // What a change of the file changes; its ctime cannot be set.
    let build = format!(
        "{:x}-{:x}-{:x}-{:x}-{:x}",
        facts.dev(),
        facts.ino(),
        facts.size(),
        facts.ctime(),
        facts.ctime_nsec()
    );
    let mount = Path::new(PLACE).join(&build);
    open(&mount).or_else(|_| {
        let lock = make_place()?;
        // Whoever makes it is done soon; until then a copy of one's own does as well.
        if !try_lock(&lock)? {
            return Err(Errno::EBUSY.into());
        }
        open(&mount).or_else(|_| {
            remove_others(&build);
            make(own, &mount)?;
            open(&mount)
        })
    })
}

fn open(mount: &Path) -> io::Result<OwnedFd> {
    let file = File::open(mount.join(NAME))?;
    if is_kept(&file) { Ok(file.into()) } else { Err(Errno::ENOENT.into()) }
}

/// The directory of the mounts, root's alone.
fn make_place() -> io::Result<File> {
    match DirBuilder::new().mode(0o700).create(PLACE) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    let place = File::open(PLACE)?;
    let facts = place.metadata()?;
    let ours = facts.uid() == nix::unistd::geteuid().as_raw() && facts.mode() & 0o022 == 0;
    if ours && facts.is_dir() { Ok(place) } else { Err(Errno::EPERM.into()) }
}

/// Those of other builds but the newest, with which somebody may take turns. Whoever runs from one goes on
/// to do so.
fn remove_others(build: &str) {
    let entries = fs::read_dir(PLACE).into_iter().flatten().flatten();
    let made = |entry: &fs::DirEntry| entry.metadata().and_then(|facts| facts.modified()).ok();
    let mut others: Vec<_> = entries
        .filter(|entry| entry.file_name() != build)
        .map(|entry| (made(&entry), entry))
        .collect();
    others.sort_by_key(|(made, _)| *made);
    others.pop();
    for (_, entry) in others {
        // A mount that stays costs its memory only.
        umount2(&entry.path(), MntFlags::MNT_DETACH | MntFlags::UMOUNT_NOFOLLOW).ok();
        fs::remove_dir(entry.path()).ok();
    }
}

fn make(own: &File, mount: &PathBuf) -> io::Result<()> {
    let context = fs_open(c"tmpfs")?;
    let size = CString::new(format!("{}k", own.metadata()?.len() / 1024 + 64))?;
    for (key, value) in [(c"source", c"berth-runtime"), (c"size", &*size), (c"mode", c"0755")] {
        fs_config(&context, key, Some(value))?;
    }
    let detached = fs_mount(&context, attributes::NOSUID | attributes::NODEV)?;
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mut copy = File::from(openat(&detached, NAME, flags, Mode::S_IRWXU)?);
    io::copy(&mut &*own, &mut copy)?;
    copy.set_permissions(Permissions::from_mode(0o555))?;
    // The kernel refuses while anybody has it open for writing.
    drop(copy);
    fs_config(&context, c"ro", None)?;
    fs_reconfigure(&context)?;
    match fs::create_dir(mount) {
        Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
        _ => {}
    }
    Ok(attach(&detached, File::open(mount)?)?)
}
