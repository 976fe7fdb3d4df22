//! What happens once, before the first request: configuration, lock, socket, telling the init system.

use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{Gid, Uid, fchownat};

use berth_runtime::config::ConfigError;

use crate::files::{FileError, Place};
use crate::places::Places;
use crate::sys::lock::try_lock;
use crate::sys::socket;

/// How long to wait for the supervisor before this one to be gone.
const LOCK_LIMIT: Duration = Duration::from_secs(5);
/// Connections that may wait to be accepted.
const BACKLOG: i32 = 64;

/// Why the supervisor does not start.
#[derive(Debug, thiserror::Error)]
pub(crate) enum SetupError {
    /// The command line is wrong.
    #[error("{0}")]
    Usage(String),
    /// The configuration is wrong.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// Another supervisor of this instance runs.
    #[error("another supervisor of instance {0:?} is running")]
    Running(String),
    /// A file or directory.
    #[error(transparent)]
    File(#[from] FileError),
    /// The cgroups.
    #[error("prepare the cgroups: {0}")]
    Scope(String),
}

/// Locks the state directory for this process, so that only one supervisor runs. The lock lasts as
/// long as the descriptor.
pub(super) fn lock(places: &Places, instance: &str) -> Result<OwnedFd, SetupError> {
    let name = "supervisor.lock";
    let deadline = Instant::now() + LOCK_LIMIT;
    let file = open_lock(&places.state, name)?;
    while !try_lock(&file).map_err(FileError::os("lock", name))? {
        if Instant::now() > deadline {
            return Err(SetupError::Running(instance.to_owned()));
        }
        // The one before may be ending this moment, after a crash or in an upgrade.
        std::thread::sleep(Duration::from_millis(20));
    }
    Ok(file)
}

/// Opens a lock file in `directory`.
pub(crate) fn open_lock(directory: impl AsFd, name: &str) -> Result<OwnedFd, FileError> {
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    openat(directory, name, flags, Mode::from_bits_truncate(0o600))
        .map_err(FileError::os("open", name))
}

/// Listens on the run directory's socket, which belongs to the server's user.
pub(super) fn listen(places: &Places, server: Place) -> Result<OwnedFd, FileError> {
    let name = "supervisor.sock";
    let before = nix::sys::stat::umask(Mode::from_bits_truncate(0o177));
    let listener = socket::listen_in(places.run.as_fd(), name, BACKLOG);
    nix::sys::stat::umask(before);
    let listener = listener.map_err(FileError::os("listen on", name))?;
    let mode = Mode::from_bits_truncate(0o600);
    fchmodat(&places.run, name, mode, FchmodatFlags::NoFollowSymlink)
        .or_else(|errno| match errno {
            // Kernels before 6.6 change modes by the followed path only; the directory is root's, so
            // nobody else can have put a link there.
            Errno::EOPNOTSUPP => fchmodat(&places.run, name, mode, FchmodatFlags::FollowSymlink),
            other => Err(other),
        })
        .map_err(FileError::os("change mode of", name))?;
    let (uid, gid) = (Uid::from_raw(server.uid), Gid::from_raw(server.gid));
    let flags = nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW;
    fchownat(&places.run, name, Some(uid), Some(gid), flags)
        .map_err(FileError::os("change owner of", name))?;
    Ok(listener)
}

/// Allows as many descriptors as the host does: each container costs three.
pub(super) fn raise_descriptor_limit() -> Result<(), FileError> {
    let object = "the limit of open descriptors";
    let (_, hard) = getrlimit(Resource::RLIMIT_NOFILE).map_err(FileError::os("read", object))?;
    setrlimit(Resource::RLIMIT_NOFILE, hard, hard).map_err(FileError::os("raise", object))
}

/// Says `READY=1` to whoever asked to be told (sd_notify(3)).
pub(super) fn notify_ready() -> Result<(), FileError> {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::ffi::OsStrExt as _;
    use std::os::unix::net::{SocketAddr, UnixDatagram};
    let Some(path) = std::env::var_os("NOTIFY_SOCKET") else { return Ok(()) };
    let address = match path.as_bytes().strip_prefix(b"@") {
        Some(name) => SocketAddr::from_abstract_name(name),
        None => SocketAddr::from_pathname(&path),
    };
    address
        .and_then(|address| {
            let text = format!("READY=1\nMAINPID={}", std::process::id());
            UnixDatagram::unbound()?.send_to_addr(text.as_bytes(), &address)
        })
        .map(drop)
        .map_err(FileError::io("notify", path.to_string_lossy()))
}
