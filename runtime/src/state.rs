//! What the OCI command line remembers of a container: one directory below `--root` with the record,
//! the configuration it was created with, and the socket at which it waits for its start.
//!
//! The record holds what was done; what the container is doing now is read from the kernel. A process
//! is known by its id and start time, so that a number given to another is never taken for it.

use std::fs::{self, DirBuilder, File};
use std::io::Write;
use std::os::fd::OwnedFd;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use berth_runtime::record::{Failure, FailureClass, Status};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;
use serde::{Deserialize, Serialize};

use crate::cgroup::{Cgroup, Hierarchy};
use crate::failure::{Words, system};
use crate::launch::errno_of;
use crate::sys::process;

/// Bytes of a configuration or record that are read at most.
pub const FILE_BYTES_MAX: u64 = 4 << 20;
const ID_BYTES_MAX: usize = 255;

/// The record of one container.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Record {
    /// Its name.
    pub id: String,
    /// Its first process.
    pub pid: i32,
    /// That process's start time (proc_pid_stat(5), field 22).
    pub start_ticks: u64,
    /// The bundle's directory.
    pub bundle: PathBuf,
    /// When it was created, milliseconds since 1970.
    pub created_ms: u128,
    /// Its cgroup, from the hierarchies' roots.
    pub cgroup: String,
    /// The unit of systemd's that its cgroup is, with `--systemd-cgroup`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unit: Option<String>,
    /// Directories of resctrl that are the container's alone, the inner first.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub resctrl: Vec<PathBuf>,
    /// For failures at its start.
    pub words: Words,
}

/// What a creation makes before there is a record, for whoever removes what is left of an interrupted one.
#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// The cgroup that it makes, from the hierarchies' roots.
    pub cgroup: Option<String>,
    /// Directories of resctrl that it makes, the inner first.
    #[serde(default)]
    pub resctrl: Vec<PathBuf>,
}

/// A container's directory.
#[derive(Debug, Clone)]
pub struct Place {
    directory: PathBuf,
    id: String,
}

impl Place {
    /// Names it without looking.
    pub fn new(root: &Path, id: &str) -> Result<Self, Failure> {
        let plain = |byte: u8| byte.is_ascii_alphanumeric() || b"_+-.".contains(&byte);
        let fits = (1..=ID_BYTES_MAX).contains(&id.len()) && id.bytes().all(plain);
        if !fits || id == "." || id == ".." {
            let text = format!("{id:?} is not a container id (letters, digits and _+-.)");
            return Err(Failure::new(FailureClass::Invalid, "container.id", text));
        }
        Ok(Self { directory: root.join(id), id: id.to_owned() })
    }

    /// Makes it; a container of that name must not be there.
    pub fn create(&self) -> Result<(), Failure> {
        let mut builder = DirBuilder::new();
        builder.mode(0o700);
        if let Some(root) = self.directory.parent() {
            builder.recursive(true);
            builder.create(root).map_err(|error| io("make", root, &error))?;
            builder.recursive(false);
        }
        builder.create(&self.directory).map_err(|error| match error.kind() {
            std::io::ErrorKind::AlreadyExists => {
                let text = format!("container {:?} exists already", self.id);
                Failure::new(FailureClass::Conflict, "container.exists", text)
            }
            _ => io("make", &self.directory, &error),
        })
    }

    /// Removes it with all that is in it; the record first, since its presence makes the container.
    pub fn remove(&self) -> Result<(), Failure> {
        let record = self.directory.join("state.json");
        match fs::remove_file(&record) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                return Err(io("remove", &record, &error));
            }
            _ => {}
        }
        match fs::remove_dir_all(&self.directory) {
            Err(error) if error.kind() != std::io::ErrorKind::NotFound => {
                Err(io("remove", &self.directory, &error))
            }
            _ => Ok(()),
        }
    }

    /// Its directory.
    pub fn directory(&self) -> &Path {
        &self.directory
    }

    /// Where it waits for its start.
    pub fn gate(&self) -> PathBuf {
        self.directory.join("start.sock")
    }

    /// Writes record and configuration; the record last, since its presence makes the container.
    pub fn write(&self, record: &Record, spec: &Spec) -> Result<(), Failure> {
        self.write_json("config.json", spec)?;
        self.write_json("state.json", record)
    }

    /// Writes what is about to be made.
    pub fn begin(&self, attempt: &Attempt) -> Result<(), Failure> {
        self.write_json("creating.json", attempt)
    }

    /// What an interrupted creation was about to make.
    pub fn attempt(&self) -> Result<Option<Attempt>, Failure> {
        match read_json(&self.directory.join("creating.json")) {
            Ok(attempt) => Ok(Some(attempt)),
            Err(ReadError::Absent) => Ok(None),
            Err(ReadError::Other(failure)) => Err(failure),
        }
    }

    fn write_json(&self, name: &str, value: &impl Serialize) -> Result<(), Failure> {
        self.stage(name, value)?.commit()
    }

    /// Writes a changed configuration beside the one in force, which [`Staged::commit`] replaces.
    pub fn stage_spec(&self, spec: &Spec) -> Result<Staged, Failure> {
        self.stage("config.json", spec)
    }

    fn stage(&self, name: &str, value: &impl Serialize) -> Result<Staged, Failure> {
        let temporary = self.directory.join(format!("{name}.new"));
        let path = self.directory.join(name);
        let bytes = serde_json::to_vec(value)
            .map_err(|error| io("encode", &path, &std::io::Error::other(error)))?;
        let written = File::create(&temporary).and_then(|mut file| file.write_all(&bytes));
        // No fsync: the directory is on tmpfs, and after a reboot there is no container to remember.
        written.map_err(|error| io("write", &temporary, &error))?;
        Ok(Staged { temporary, path })
    }

    /// Reads the record.
    pub fn read(&self) -> Result<Record, Failure> {
        read_json(&self.directory.join("state.json")).map_err(|error| match error {
            ReadError::Absent => {
                let text = format!("container {:?} does not exist", self.id);
                Failure::new(FailureClass::NotFound, "container.not-found", text)
            }
            ReadError::Other(failure) => failure,
        })
    }

    /// Reads the configuration that it was created with.
    pub fn read_spec(&self) -> Result<Spec, Failure> {
        read_spec(&self.directory.join("config.json"))
    }
}

/// A file that is written and not yet in force.
#[derive(Debug)]
pub struct Staged {
    temporary: PathBuf,
    path: PathBuf,
}

impl Staged {
    /// Puts it in force.
    pub fn commit(self) -> Result<(), Failure> {
        fs::rename(&self.temporary, &self.path).map_err(|error| io("rename to", &self.path, &error))
    }
}

impl Drop for Staged {
    fn drop(&mut self) {
        // Gone when it was committed; what is left otherwise does no harm.
        fs::remove_file(&self.temporary).ok();
    }
}

/// Reads an OCI configuration.
pub fn read_spec(path: &Path) -> Result<Spec, Failure> {
    read_json(path).map_err(|error| match error {
        ReadError::Absent => {
            let text = format!("read {}: no such file", path.display());
            Failure::new(FailureClass::Invalid, "container.config", text)
        }
        ReadError::Other(failure) => failure,
    })
}

/// Names the properties of the configuration at `path` that `spec`, read from it, does not have.
pub fn unknown_properties(path: &Path, spec: &Spec) -> Result<Vec<String>, Failure> {
    let given: serde_json::Value = read_json(path).map_err(|error| match error {
        ReadError::Absent => io("read", path, &std::io::Error::from_raw_os_error(libc::ENOENT)),
        ReadError::Other(failure) => failure,
    })?;
    let read = serde_json::to_value(spec)
        .map_err(|error| io("understand", path, &std::io::Error::other(error)))?;
    Ok(crate::unknown::properties(&given, &read))
}

enum ReadError {
    Absent,
    Other(Failure),
}

fn read_json<T: serde::de::DeserializeOwned>(path: &Path) -> Result<T, ReadError> {
    let bytes = match fs::metadata(path).map(|facts| facts.len()) {
        Ok(length) if length > FILE_BYTES_MAX => {
            let text = format!("read {}: larger than {FILE_BYTES_MAX} bytes", path.display());
            let failure = Failure::new(FailureClass::Invalid, "container.config", text);
            return Err(ReadError::Other(failure));
        }
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            return Err(ReadError::Absent);
        }
        Ok(_) => fs::read(path),
        Err(error) => Err(error),
    };
    let bytes = bytes.map_err(|error| ReadError::Other(io("read", path, &error)))?;
    crate::spelling::parse(&bytes).map_err(|error| {
        let text = format!("understand {}: {error}", path.display());
        ReadError::Other(Failure::new(FailureClass::Invalid, "container.config", text))
    })
}

impl Record {
    /// What the container is doing, as the kernel shows it.
    pub fn status(&self, place: &Place) -> Result<Status, Failure> {
        if !self.lives() {
            return Ok(Status::Stopped);
        }
        if place.gate().exists() {
            return Ok(Status::Created);
        }
        if self.cgroup()?.frozen().unwrap_or(false) {
            return Ok(Status::Paused);
        }
        Ok(Status::Running)
    }

    /// Whether its first process is there and no zombie.
    pub fn lives(&self) -> bool {
        stat(self.pid)
            .is_some_and(|(state, ticks)| ticks == self.start_ticks && !matches!(state, 'Z' | 'X'))
    }

    /// A descriptor of its first process, certainly of that one.
    pub fn open(&self) -> Result<OwnedFd, Failure> {
        let gone = || {
            // "container not running" is what engines look for, to tell it from a failure.
            let text = format!("container not running: {:?}", self.id);
            Failure::new(FailureClass::Conflict, "container.not-running", text)
        };
        let pidfd = process::pidfd_open(Pid::from_raw(self.pid)).map_err(|_| gone())?;
        // Compared after opening: had the number been given away before, the times would differ.
        if self.lives() { Ok(pidfd) } else { Err(gone()) }
    }

    /// Its cgroup.
    pub fn cgroup(&self) -> Result<Cgroup, Failure> {
        Ok(Cgroup::made_at(Hierarchy::detect_all()?, &self.cgroup)?)
    }
}

/// State letter and start time of a process (proc_pid_stat(5)); the name before them may hold anything.
pub fn stat(pid: i32) -> Option<(char, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let mut fields = text.rsplit_once(')')?.1.split_ascii_whitespace();
    let state = fields.next()?.chars().next()?;
    // State is field 3, start time field 22.
    Some((state, fields.nth(18)?.parse().ok()?))
}

fn io(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    match error.raw_os_error() {
        Some(_) => system(&format!("{verb} {}", path.display()), errno_of(error)),
        None => {
            let text = format!("{verb} {}: {error}", path.display());
            Failure::new(FailureClass::Broken, "container.state", text)
        }
    }
}
