//! What happens once, before the first request: configuration, lock, socket, telling the init system.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use nix::sys::stat::{FchmodatFlags, Mode, fchmodat};
use nix::unistd::{Gid, Uid, fchownat};
use serde::Deserialize;

use berth_runtime::config::{CONFIG_PATH, RANGE_IDS, RuntimeConfig};

use crate::files::{self, FileError, Place};
use crate::places::Places;
use crate::sys::lock::try_lock;
use crate::sys::socket;

/// A configuration file's size at most.
const CONFIG_BYTES_MAX: u64 = 1 << 20;
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
    #[error("{}: {reason}", path.display())]
    Config {
        /// The file.
        path: PathBuf,
        /// What is wrong with it, by key and line where that is known.
        reason: String,
    },
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

#[derive(Deserialize)]
struct Whole {
    #[serde(default)]
    runtime: RuntimeConfig,
}

/// The configuration's path: `--config`, else the environment, else the usual one.
pub(crate) fn config_path(option: Option<PathBuf>) -> PathBuf {
    option
        .or_else(|| std::env::var_os("BERTH_CONFIG").map(PathBuf::from))
        .unwrap_or_else(|| CONFIG_PATH.into())
}

/// Reads `[runtime]`. Whoever can write the file commands root, so it must be root's alone.
pub(crate) fn load_config(path: &Path) -> Result<RuntimeConfig, SetupError> {
    let bad = |reason: String| SetupError::Config { path: path.to_owned(), reason };
    let mut text = String::new();
    match File::open(path) {
        Err(error)
            if error.kind() == std::io::ErrorKind::NotFound && path == Path::new(CONFIG_PATH) => {}
        Err(error) => return Err(bad(error.to_string())),
        Ok(file) => {
            let stat = files::status(&file, "the configuration")?;
            if stat.st_uid != 0 || stat.st_mode & 0o022 != 0 {
                return Err(bad("it must be owned by root and writable by nobody else".into()));
            }
            file.take(CONFIG_BYTES_MAX)
                .read_to_string(&mut text)
                .map_err(|error| bad(error.to_string()))?;
        }
    }
    let whole: Whole = toml::from_str(&text).map_err(|error| bad(error.to_string()))?;
    check_config(&whole.runtime).map_err(bad)?;
    Ok(whole.runtime)
}

fn check_config(config: &RuntimeConfig) -> Result<(), String> {
    let name = &config.instance;
    let plain = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit();
    if !(1..=8).contains(&name.len()) || !name.bytes().all(plain) {
        return Err(format!("[runtime] instance = {name:?} is not 1 to 8 letters a-z and digits"));
    }
    for (key, path) in [("data_dir", &config.data_dir), ("run_dir", &config.run_dir)] {
        if !path.is_absolute() || path.parent().is_none() {
            return Err(format!("[runtime] {key} = {} is not an absolute path", path.display()));
        }
    }
    let ids = (u64::from(config.id_last) + 1).saturating_sub(u64::from(config.id_first));
    if config.id_first < 100_000 || !config.id_first.is_multiple_of(RANGE_IDS) {
        return Err("[runtime] id_first is not a multiple of 65536 above 100000".into());
    }
    if ids < 3 * u64::from(RANGE_IDS) {
        return Err("[runtime] id_first..id_last holds fewer than three ranges of 65536 ids".into());
    }
    Ok(())
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
