//! The tokens that `berth login` has made, in one file below `$XDG_CONFIG_HOME/berth`, else
//! `~/.config/berth` (XDG Base Directory Specification): the directory 0700, the file 0600.
//!
//! A file or directory that others can read or write, or that is another's, is refused, not mended:
//! what was in it may be known by then.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{ErrorKind, Read, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg, OFlag};
use nix::unistd::geteuid;
use serde::{Deserialize, Serialize};

use super::error::Failure;
use super::place::Trust;

/// The file at most.
const FILE_BYTES_MAX: u64 = 1 << 20;
const FILE_NAME: &str = "credentials.json";

/// What is kept of one server.
#[derive(Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Credential {
    /// The person's name there.
    pub name: String,
    /// What goes behind `Authorization: Bearer`.
    pub token: String,
    /// The token's id there.
    pub token_id: String,
    /// When it ends by itself (RFC 3339).
    pub expires_at: String,
    /// Why the server is believed to be the one.
    #[serde(default)]
    pub trust: Trust,
    /// Plain HTTP to another machine was allowed.
    #[serde(default)]
    pub insecure_http: bool,
}

/// The file's content.
#[derive(Default, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Kept {
    /// The server of the newest login.
    #[serde(default)]
    pub current: Option<String>,
    /// Each server's, by its address.
    #[serde(default)]
    pub servers: BTreeMap<String, Credential>,
}

/// Where credentials are kept.
pub struct Store {
    directory: PathBuf,
}

impl std::fmt::Debug for Credential {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        formatter.debug_struct("Credential").field("name", &self.name).finish_non_exhaustive()
    }
}

impl Store {
    /// The caller's own.
    ///
    /// # Errors
    /// When neither `XDG_CONFIG_HOME` nor `HOME` says where.
    pub fn find() -> Result<Self, Failure> {
        // The specification has relative paths ignored.
        let absolute = |name: &str| {
            std::env::var_os(name).map(PathBuf::from).filter(|path| path.is_absolute())
        };
        let base = absolute("XDG_CONFIG_HOME")
            .or_else(|| absolute("HOME").map(|home| home.join(".config")))
            .ok_or_else(|| {
                Failure::Here("neither XDG_CONFIG_HOME nor HOME says where credentials are".into())
            })?;
        Ok(Self { directory: base.join("berth") })
    }

    /// What is kept; nothing when there is no file.
    ///
    /// # Errors
    /// When it is not the caller's alone, or cannot be read.
    pub fn read(&self) -> Result<Kept, Failure> {
        let Some(directory) = self.open_directory()? else { return Ok(Kept::default()) };
        drop(directory);
        let path = self.directory.join(FILE_NAME);
        let Some(file) = open(&path, OFlag::O_NONBLOCK)? else { return Ok(Kept::default()) };
        let failed = |error: &dyn std::fmt::Display| {
            Failure::Here(format!("read {}: {error}", path.display()))
        };
        let mut text = String::new();
        let read = file.take(FILE_BYTES_MAX + 1).read_to_string(&mut text);
        read.map_err(|error| failed(&error))?;
        if text.len() as u64 > FILE_BYTES_MAX {
            return Err(failed(&"it is larger than 1 MiB"));
        }
        // The parser's message may quote a token: only where it is wrong is told.
        serde_json::from_str(&text).map_err(|error| {
            let (line, column) = (error.line(), error.column());
            failed(&format_args!("line {line}, column {column} is not what this berth writes"))
        })
    }

    /// Changes what is kept, with nobody else doing so meanwhile; whole or not at all.
    ///
    /// # Errors
    /// As for [`Store::read`], and when it cannot be written.
    pub fn change<T>(&self, change: impl FnOnce(&mut Kept) -> T) -> Result<T, Failure> {
        let failed = |what: &str, error: &dyn std::fmt::Display| {
            Failure::Here(format!("{what} {}: {error}", self.directory.display()))
        };
        let mut builder = fs::DirBuilder::new();
        let made = builder.recursive(true).mode(0o700).create(&self.directory);
        made.map_err(|error| failed("make", &error))?;
        let directory = self.open_directory()?.ok_or_else(|| failed("open", &"it is gone"))?;
        let _lock = Flock::lock(directory, FlockArg::LockExclusive)
            .map_err(|(_, error)| failed("lock", &error))?;
        let mut kept = self.read()?;
        let result = change(&mut kept);
        let text = serde_json::to_string_pretty(&kept).expect("what is kept has string keys only");
        self.replace(text.as_bytes()).map_err(|error| failed("write to", &error))?;
        Ok(result)
    }

    fn replace(&self, bytes: &[u8]) -> std::io::Result<()> {
        let path = self.directory.join(FILE_NAME);
        // A link of the caller's own stays one.
        let path = fs::canonicalize(&path).unwrap_or(path);
        let new = path.with_extension("new");
        // Whoever wrote it was killed: the lock is ours.
        match fs::remove_file(&new) {
            Err(error) if error.kind() != ErrorKind::NotFound => return Err(error),
            _ => {}
        }
        let mut file = OpenOptions::new().write(true).create_new(true).mode(0o600).open(&new)?;
        file.set_permissions(fs::Permissions::from_mode(0o600))?;
        file.write_all(bytes)?;
        file.sync_all()?;
        fs::rename(&new, &path)?;
        File::open(path.parent().unwrap_or(Path::new("/")))?.sync_all()
    }

    fn open_directory(&self) -> Result<Option<File>, Failure> {
        open(&self.directory, OFlag::O_DIRECTORY)
    }
}

/// Opens what only the caller can read and write; `None` when there is nothing.
fn open(path: &Path, flags: OFlag) -> Result<Option<File>, Failure> {
    let shown = path.display();
    let failed = |error: &dyn std::fmt::Display| Failure::Here(format!("open {shown}: {error}"));
    let me = geteuid().as_raw();
    match fs::symlink_metadata(path) {
        Err(error) if error.kind() == ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(&error)),
        Ok(found) if found.file_type().is_symlink() && found.uid() != me => {
            return Err(failed(&"it is a symbolic link of somebody else's; remove it"));
        }
        Ok(_) => {}
    }
    let file = OpenOptions::new().read(true).custom_flags(flags.bits()).open(path);
    let file = file.map_err(|error| failed(&error))?;
    let found = file.metadata().map_err(|error| failed(&error))?;
    if found.uid() != me {
        return Err(failed(&"it is somebody else's, not yours"));
    }
    if found.mode() & 0o077 != 0 {
        let mode = found.mode() & 0o7777;
        let cure = if found.is_dir() { "chmod 700" } else { "chmod 600" };
        return Err(failed(&format_args!(
            "others can get at it (mode {mode:04o}), so its tokens may be known; `{cure} {shown}`, and \
             `berth login` again if anybody was on this machine"
        )));
    }
    if !flags.contains(OFlag::O_DIRECTORY) && !found.is_file() {
        return Err(failed(&"it is no regular file"));
    }
    Ok(Some(file))
}
