//! Acts on files of volumes and containers, as the supervisor has them done: each is a task. What is written
//! to a container that does not run occupies it, so that no start has its layers meanwhile.

use berth_runtime::contents::{FilesAct as Act, FilesPlace};
use berth_runtime::digest::Digest;
use berth_runtime::id::{ContainerId, PrincipalId, UploadId};
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::Answer;

use super::connection::{Reply, Token};
use super::containers::{Entry, failure};
use super::dispatch::Answered;
use super::tasks::{Purpose, Task};
use super::{Supervisor, validate};
use crate::people::Person;
use crate::process::ProcessKey;
use crate::stored::{self, Ground, Order};
use crate::volume;

/// Permission bits, all of them.
const MODE_MAX: u32 = 0o7777;

impl Supervisor {
    /// Does something with the files of a volume or a container.
    pub(super) fn files(
        &mut self,
        token: Token,
        (person, place): (PrincipalId, FilesPlace),
        path: String,
        act: Act,
    ) -> Option<Reply> {
        match self.begin_files(token, (person, place), path, act) {
            Ok(()) => None,
            Err(failure) => Some(failure.into()),
        }
    }

    fn begin_files(
        &mut self,
        token: Token,
        (person, place): (PrincipalId, FilesPlace),
        path: String,
        act: Act,
    ) -> Result<(), Failure> {
        self.data_fault(person)?;
        let person = self.known_person(person)?;
        if let Act::Put { mode: Some(mode), .. } = &act
            && *mode > MODE_MAX
        {
            let message = format!("mode {mode:o} is more than permission bits ({MODE_MAX:o})");
            return Err(failure(FailureClass::Invalid, "files.mode", message));
        }
        let ground = self.ground(&person, place)?;
        let changes = act.changes();
        let still = match &ground {
            Ground::Still { container, .. } => {
                // It has a writable layer from now on, started or not.
                let fresh = || Entry::new(person.person, None);
                self.containers.entry(container.clone()).or_insert_with(fresh);
                Some(container.clone()).filter(|_| changes)
            }
            Ground::Volume(_) | Ground::Running(_) => None,
        };
        let order = Box::new(Order { person, ground, path, act });
        let task = Task::Files { boot_id: self.boot_id.clone(), order };
        let purpose = match changes {
            true => Purpose::Files { token, person: person.person, container: still.clone() },
            false => Purpose::Answer { token, container: None },
        };
        let number = self.begin_task(task, purpose)?;
        if let Some(entry) = still.and_then(|container| self.containers.get_mut(&container)) {
            entry.task = Some(number);
        }
        Ok(())
    }

    /// What is acted on, as the record has it.
    fn ground(&self, person: &Person, place: FilesPlace) -> Result<Ground, Failure> {
        match place {
            FilesPlace::Volume(volume) => match volume::is_there(&self.places, person, &volume)? {
                true => Ok(Ground::Volume(volume)),
                false => Err(volume::unknown(&volume)),
            },
            FilesPlace::Container { container, layers } => {
                self.container_ground(person, container, layers)
            }
        }
    }

    fn container_ground(
        &self,
        person: &Person,
        container: ContainerId,
        layers: Vec<Digest>,
    ) -> Result<Ground, Failure> {
        if let Some(entry) = self.containers.get(&container) {
            if entry.person != person.person {
                let message = format!("container {} is another person's", container.short());
                return Err(failure(FailureClass::Denied, "container.foreign", message));
            }
            if let Some((live, _)) = entry.running() {
                let (pid, start_ticks) = (live.pid, live.start_ticks);
                let boot_id = self.boot_id.clone();
                return Ok(Ground::Running(ProcessKey { pid, start_ticks, boot_id }));
            }
            if entry.is_active() {
                let message = format!("container {} starts or ends just now", container.short());
                return Err(failure(FailureClass::Unavailable, "container.busy", message));
            }
        }
        validate::layers(&layers)?;
        for blob in &layers {
            if !self.places.has_layer(blob) {
                let message = format!("layer {blob} is not unpacked here");
                return Err(failure(FailureClass::NotFound, "layer.unknown", message));
            }
        }
        Ok(Ground::Still { container, layers, layer_first: self.people.layer_first() })
    }

    /// Whether a container has a writable layer, as one may that was never started.
    pub(super) fn has_tree(&self, container: &ContainerId) -> bool {
        let person = self.containers.get(container).and_then(|entry| self.people.get(entry.person));
        let trees = person.and_then(|person| self.places.containers(&person).ok().flatten());
        trees.is_some_and(|trees| crate::files::is_directory(trees, container.as_str()))
    }

    /// Opens an upload; nothing of it takes long.
    pub(super) fn upload_open(&mut self, person: PrincipalId, upload: &UploadId) -> Answered {
        self.data_fault(person)?;
        let known = self.known_person(person)?;
        let (bytes, file) = stored::open_upload(&self.places, &known, upload)?;
        Ok(Reply { answer: Answer::Upload { bytes }, fds: vec![file] })
    }

    /// Gives one up.
    pub(super) fn upload_drop(
        &mut self,
        token: Token,
        person: PrincipalId,
        upload: UploadId,
    ) -> Option<Reply> {
        match self.data_fault(person).and_then(|()| self.known_person(person)) {
            Ok(person) => self.answer_by_task(token, Task::UploadDrop { person, upload }, None),
            Err(failure) => Some(failure.into()),
        }
    }
}
