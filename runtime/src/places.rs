//! Where things lie on disk and on tmpfs, as open directories.
//!
//! ```text
//! data_dir/                 root 0711
//!   db/ store/              the server's, 0700
//!   layers/sha256|tmp       root 0700
//!   people/<first id>/      root 0700
//!     containers/<id>/                root 0711
//!       upper work                    the person's root, 0755
//!     volumes/<id>/                   root 0700 (`volume`)
//!       data                          the person's root at first, then whose they make it
//!     uploads/<id>                    the person's root's, until they are put in their place (`stored`)
//!     logs/<id>/<n>.log               the monitor's, 0700
//!     data/<n>.ext4                   their own file system, in place of all but the logs (`disk`)
//!   state/people.json       root 0700
//!     containers/<id>/start.json end.json
//!       init/exit.json                the monitor's, 0700
//! run_dir/                  root 0711
//!   supervisor.sock         the server's, 0600
//!   server/                 the server's, 0700
//!   local/                  the server's, 0711: the socket for the host's users
//!   disks/<first id>.<n>/   root 0700: people's own file systems, mounted
//!   containers/<id>/init/   root 0700: live.json, lock, monitor.sock, attach.sock
//!   containers/<id>/execs/  root 0700: <number>, one for each exec that goes on
//! ```

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_runtime::config::RuntimeConfig;
use berth_runtime::digest::Digest;
use berth_runtime::id::ContainerId;

use crate::disk;
use crate::files::{self, FileError, Place};
use crate::people::Person;

/// The first process of a container; each process has directories of its own by name.
pub(crate) const INIT: &str = "init";
/// What later processes are recorded in.
const EXECS: &str = "execs";

/// Root's directories.
#[derive(Debug)]
pub(crate) struct Places {
    /// `data_dir/layers/sha256`.
    pub(crate) layers: OwnedFd,
    /// `data_dir/people`.
    pub(crate) people: OwnedFd,
    /// `data_dir/state`.
    pub(crate) state: OwnedFd,
    /// `data_dir/state/containers`.
    pub(crate) records: OwnedFd,
    /// `run_dir`.
    pub(crate) run: OwnedFd,
    /// `run_dir/containers`.
    pub(crate) runs: OwnedFd,
    /// `run_dir/disks`.
    pub(crate) disks: OwnedFd,
    data_dir: PathBuf,
    run_dir: PathBuf,
}

impl Places {
    /// Makes what is missing, with owners and modes as above.
    pub(crate) fn prepare(config: &RuntimeConfig, server: Place) -> Result<Self, FileError> {
        let top = Place { mode: 0o711, ..Place::ROOT };
        let data = files::make_path(&config.data_dir, top)?;
        files::make_directory(&data, "db", server)?;
        files::make_directory(&data, "store", server)?;
        let layers = files::make_directory(&data, "layers", Place::ROOT)?;
        files::make_directory(&layers, "tmp", Place::ROOT)?;
        let layers = files::make_directory(&layers, "sha256", Place::ROOT)?;
        let people = files::make_directory(&data, "people", Place::ROOT)?;
        let state = files::make_directory(&data, "state", Place::ROOT)?;
        let records = files::make_directory(&state, "containers", Place::ROOT)?;
        let run = files::make_path(&config.run_dir, top)?;
        files::make_directory(&run, "server", server)?;
        files::make_directory(&run, "local", Place { mode: 0o711, ..server })?;
        let runs = files::make_directory(&run, "containers", Place::ROOT)?;
        let disks = files::make_directory(&run, "disks", Place::ROOT)?;
        let (data_dir, run_dir) = (config.data_dir.clone(), config.run_dir.clone());
        Ok(Self { layers, people, state, records, run, runs, disks, data_dir, run_dir })
    }

    /// Opens what [`Places::prepare`] has made.
    pub(crate) fn open(config: &RuntimeConfig) -> Result<Self, FileError> {
        let data = files::open_directory(&config.data_dir)?;
        let layers = files::open_in(&data, "layers")?;
        let state = files::open_in(&data, "state")?;
        let run = files::open_directory(&config.run_dir)?;
        Ok(Self {
            layers: files::open_in(&layers, "sha256")?,
            people: files::open_in(&data, "people")?,
            records: files::open_in(&state, "containers")?,
            state,
            runs: files::open_in(&run, "containers")?,
            disks: files::open_in(&run, "disks")?,
            run,
            data_dir: config.data_dir.clone(),
            run_dir: config.run_dir.clone(),
        })
    }

    /// An unpacked layer's directory.
    pub(crate) fn layer(&self, blob: &Digest) -> Result<OwnedFd, FileError> {
        files::open_in(&self.layers, blob.hex())
    }

    /// Whether a layer is there, whole: unpacked layers get their name last.
    pub(crate) fn has_layer(&self, blob: &Digest) -> bool {
        files::is_directory(&self.layers, blob.hex())
    }

    /// `state/containers/<id>`.
    pub(crate) fn record(&self, container: &ContainerId) -> Result<OwnedFd, FileError> {
        files::open_in(&self.records, container.as_str())
    }

    /// `state/containers/<id>/init`.
    pub(crate) fn exit(&self, container: &ContainerId) -> Result<OwnedFd, FileError> {
        files::open_in(self.record(container)?, INIT)
    }

    /// `run_dir/containers/<id>/init`.
    pub(crate) fn live(&self, container: &ContainerId) -> Result<OwnedFd, FileError> {
        files::open_in(files::open_in(&self.runs, container.as_str())?, INIT)
    }

    /// `run_dir/containers/<id>/execs`.
    pub(crate) fn execs(&self, container: &ContainerId) -> Result<OwnedFd, FileError> {
        files::open_in(files::open_in(&self.runs, container.as_str())?, EXECS)
    }

    /// The same, made when it is not there.
    pub(crate) fn make_execs(&self, container: &ContainerId) -> Result<OwnedFd, FileError> {
        let own = files::open_in(&self.runs, container.as_str())?;
        files::make_directory(own, EXECS, Place::ROOT)
    }

    /// `people/<first id>`.
    pub(crate) fn own(&self, person: &Person) -> Result<OwnedFd, FileError> {
        files::open_in(&self.people, &person.first_id.to_string())
    }

    /// The same, made when it is not there.
    pub(crate) fn make_home(&self, person: &Person) -> Result<OwnedFd, FileError> {
        files::make_directory(&self.people, &person.first_id.to_string(), Place::ROOT)
    }

    /// The path of `people/<first id>/data`, for programs.
    pub(crate) fn data_path(&self, person: &Person) -> PathBuf {
        self.data_dir.join("people").join(person.first_id.to_string()).join(disk::DATA)
    }

    /// The path of what a person's file system is mounted on, for mount(2).
    pub(crate) fn disk_path(&self, name: &str) -> PathBuf {
        self.run_dir.join("disks").join(name)
    }

    /// What a person's `containers` and `volumes` are in: their own directory, or their own file system, which has to be
    /// mounted.
    pub(crate) fn data_root(&self, person: &Person) -> Result<OwnedFd, FileError> {
        match person.data {
            Some(image) => disk::image_root(self, person, image),
            None => self.make_home(person),
        }
    }

    /// Where the writable layers of a person's containers are; `None` when there are none, or when what they
    /// were on is gone for good.
    pub(crate) fn containers(&self, person: &Person) -> Result<Option<OwnedFd>, FileError> {
        self.tree(person, disk::CONTAINERS)
    }

    /// Where a person's volumes are; the same.
    pub(crate) fn volumes(&self, person: &Person) -> Result<Option<OwnedFd>, FileError> {
        self.tree(person, disk::VOLUMES)
    }

    /// One of the directories in [`Places::data_root`].
    pub(crate) fn tree(&self, person: &Person, name: &str) -> Result<Option<OwnedFd>, FileError> {
        if person.data.is_some_and(|image| !disk::has_image(self, person, image)) {
            return Ok(None);
        }
        let root = self.data_root(person)?;
        match files::is_directory(&root, name) {
            true => files::open_in(&root, name).map(Some),
            false => Ok(None),
        }
    }

    /// `people/<first id>/logs/<id>`.
    pub(crate) fn logs(
        &self,
        person: &Person,
        container: &ContainerId,
    ) -> Result<OwnedFd, FileError> {
        let own = files::open_in(&self.people, &person.first_id.to_string())?;
        files::open_in(files::open_in(own, "logs")?, container.as_str())
    }

    /// Makes the record and run directories of a container; returns them, those of its first process.
    pub(crate) fn make_records(
        &self,
        person: &Person,
        container: &ContainerId,
    ) -> Result<(OwnedFd, OwnedFd), FileError> {
        let state = |error: FileError| error.below("state");
        let record =
            files::make_directory(&self.records, container.as_str(), Place::ROOT).map_err(state)?;
        files::make_directory(&record, INIT, Self::monitors(person)).map_err(state)?;
        let run = |error: FileError| error.below("run");
        let own =
            files::make_directory(&self.runs, container.as_str(), Place::ROOT).map_err(run)?;
        let own = files::make_directory(&own, INIT, Place::ROOT).map_err(run)?;
        Ok((record, own))
    }

    /// Makes the directories of a container in its owner's tree; returns that with `upper` and `work`,
    /// and that of the logs.
    pub(crate) fn make_tree(
        &self,
        person: &Person,
        container: &ContainerId,
    ) -> Result<(OwnedFd, OwnedFd), FileError> {
        self.make_own(person, container).map_err(|error| error.below("people"))
    }

    fn make_own(
        &self,
        person: &Person,
        container: &ContainerId,
    ) -> Result<(OwnedFd, OwnedFd), FileError> {
        let own = self.make_home(person)?;
        let root = self.data_root(person)?;
        let containers = files::make_directory(&root, disk::CONTAINERS, Place::ROOT)?;
        // The container's root passes through it, and reaches it in no other way than by its mount.
        let pass = Place { mode: 0o711, ..Place::ROOT };
        let tree = files::make_directory(&containers, container.as_str(), pass)?;
        let root = Place { uid: person.first_id, gid: person.first_id, mode: 0o755 };
        for name in ["upper", "work"] {
            files::make_once(&tree, name, root)?;
        }
        let logs = files::make_directory(&own, "logs", Place::ROOT)?;
        let logs = files::make_directory(&logs, container.as_str(), Self::monitors(person))?;
        Ok((tree, logs))
    }

    fn monitors(person: &Person) -> Place {
        Place { uid: person.monitor_uid, gid: person.monitor_uid, mode: 0o700 }
    }
}

/// The server's user, by name, as the owner of what it may write.
pub(crate) fn server_place(config: &RuntimeConfig) -> Result<Place, FileError> {
    let found = nix::unistd::User::from_name(&config.server_user)
        .map_err(FileError::os("look up user", config.server_user.as_str()))?;
    let user = found.ok_or_else(|| FileError::Content {
        object: "/etc/passwd".into(),
        reason: format!("there is no user {:?} ([runtime] server_user)", config.server_user),
    })?;
    Ok(Place { uid: user.uid.as_raw(), gid: user.gid.as_raw(), mode: 0o700 })
}
