//! What people may keep on disk, as the supervisor has it done: one task a person at a time, and whatever
//! needs their data waits for its end.

use std::collections::{BTreeMap, BTreeSet, VecDeque};

use berth_runtime::id::PrincipalId;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{Answer, Request};

use super::connection::{Reply, Token};
use super::containers::{Entry, failure};
use super::tasks::{Purpose, Task};
use super::{Supervisor, say, validate};
use crate::disk::{self, Image};
use crate::ledger::StartRecord;
use crate::people::Person;

/// Requests that wait for one person's data at most.
const QUEUE_MAX: usize = 64;

/// The state of everybody's data.
#[derive(Default)]
pub(super) struct Disks {
    /// Whose is being worked on.
    busy: BTreeSet<PrincipalId>,
    /// What waits for that.
    waiting: BTreeMap<PrincipalId, VecDeque<(Token, Request)>>,
    /// Whose cannot be used, and why.
    faults: BTreeMap<PrincipalId, Failure>,
}

/// What a task with somebody's data was for.
#[derive(Debug, Clone, Copy)]
pub(super) enum Step {
    /// Disk and mounts agree with the record.
    Settle,
    /// Their file system has another size.
    Grow(Image),
    /// A copy of everything is where it is to be.
    Copy(Option<Image>),
}

impl Supervisor {
    /// Begins to look after everybody's data that needs it.
    pub(super) fn recover_disks(&mut self) {
        let concerned: Vec<PrincipalId> = self
            .people
            .after(None)
            .filter(|person| disk::is_of_concern(&self.places, person))
            .map(|person| person.person)
            .collect();
        for person in concerned {
            self.settle_data(None, person);
        }
    }

    /// Whose data a request needs while it is being worked on.
    pub(super) fn waits_for_data(&self, request: &Request) -> Option<PrincipalId> {
        let person = match request {
            Request::ContainerStart(start) => {
                // What it writes to a volume lies with whoever has that.
                let owners = start.volumes.iter().map(|one| one.owner_in(start.person));
                let mut all = std::iter::once(start.person).chain(owners);
                return all.find(|person| self.disks.busy.contains(person));
            }
            Request::VolumeHandOver { person, heir, .. } => {
                return [*person, *heir].into_iter().find(|one| self.disks.busy.contains(one));
            }
            Request::ContainerRemove { container } => self.containers.get(container)?.person,
            Request::PersonData { person, .. }
            | Request::PersonDataUse { person }
            | Request::VolumeMake { person, .. }
            | Request::VolumeRemove { person, .. }
            | Request::VolumeMeasure { person, .. }
            | Request::Files { person, .. }
            | Request::UploadOpen { person, .. }
            | Request::UploadDrop { person, .. } => *person,
            _ => return None,
        };
        self.disks.busy.contains(&person).then_some(person)
    }

    /// Puts a request off until nobody works on the person's data.
    pub(super) fn queue_for_data(
        &mut self,
        token: Token,
        person: PrincipalId,
        request: Request,
    ) -> Option<Reply> {
        let waiting = self.disks.waiting.entry(person).or_default();
        if waiting.len() >= QUEUE_MAX {
            let message = format!("too many requests wait for the data of person {person}");
            return Some(failure(FailureClass::Unavailable, "person.busy", message).into());
        }
        waiting.push_back((token, request));
        None
    }

    /// Why the person's data cannot be used.
    pub(super) fn data_fault(&self, person: PrincipalId) -> Result<(), Failure> {
        self.disks.faults.get(&person).map_or(Ok(()), |fault| Err(fault.clone()))
    }

    /// Gives a person another limit.
    pub(super) fn person_data(
        &mut self,
        token: Token,
        person: PrincipalId,
        bytes: Option<u64>,
    ) -> Option<Reply> {
        match self.begin_data(token, person, bytes) {
            Ok(()) => None,
            Err(failure) => Some(failure.into()),
        }
    }

    fn begin_data(
        &mut self,
        token: Token,
        person: PrincipalId,
        bytes: Option<u64>,
    ) -> Result<(), Failure> {
        bytes.map_or(Ok(()), validate::data)?;
        let known = self.known_person(person)?;
        let (step, task) = match (known.data, bytes) {
            (Some(image), Some(bytes)) if image.bytes < bytes && disk::grows_mounted() => {
                self.data_fault(person)?;
                (Step::Grow(Image { bytes, ..image }), Task::DataGrow { person: known, bytes })
            }
            (None, None) if !disk::is_of_concern(&self.places, &known) => {
                if let Some(reply) = self.person_data_use(token, person) {
                    self.answer(token, reply);
                }
                return Ok(());
            }
            // Also where nothing changes: what had failed is tried again.
            (before, bytes) if before.map(|image| image.bytes) == bytes => {
                self.settle_data(Some(token), person);
                return Ok(());
            }
            (_, bytes) => {
                self.refuse_busy(person)?;
                let number = disk::next_number(&self.places, &known);
                let to = bytes.map(|bytes| Image { number, bytes });
                (Step::Copy(to), Task::DataCopy { person: known, to })
            }
        };
        self.begin_task(task, Purpose::Data { token: Some(token), person, step })?;
        self.disks.busy.insert(person);
        Ok(())
    }

    /// A copy is of what nobody changes meanwhile.
    fn refuse_busy(&self, person: PrincipalId) -> Result<(), Failure> {
        let busy = |entry: &Entry| entry.is_active() || entry.task.is_some();
        // Containers of others, too, that have a volume of theirs.
        let theirs = |entry: &Entry| {
            let on_it = |start: &StartRecord| start.is_on_disk_of(person);
            entry.person == person || entry.start.as_ref().is_some_and(on_it)
        };
        let written = self.tasks.values().any(|task| task.changes_files_of(person));
        if !written && !self.containers.values().any(|entry| theirs(entry) && busy(entry)) {
            return Ok(());
        }
        let message = "less data than before, or a first bound or none, can be had only while \
             nothing of the person's runs, and nothing that has their volumes: stop those containers first";
        Err(failure(FailureClass::Conflict, "data.busy", message))
    }

    /// What a person has and may have.
    pub(super) fn person_data_use(&mut self, token: Token, person: PrincipalId) -> Option<Reply> {
        let known = self.data_fault(person).and_then(|()| self.known_person(person));
        match known {
            Ok(person) => self.answer_by_task(token, Task::DataUse { person }, None),
            Err(failure) => Some(failure.into()),
        }
    }

    pub(super) fn known_person(&self, person: PrincipalId) -> Result<Person, Failure> {
        self.people.get(person).ok_or_else(|| {
            let message = format!("person {person} is not known to the supervisor");
            failure(FailureClass::NotFound, "person.unknown", message)
        })
    }

    /// Makes disk and mounts agree with the record; `token` waits for what the person has then.
    fn settle_data(&mut self, token: Option<Token>, person: PrincipalId) {
        let begun = self.known_person(person).and_then(|known| {
            let purpose = Purpose::Data { token, person, step: Step::Settle };
            self.begin_task(Task::DataSettle { person: known }, purpose)
        });
        match begun {
            Ok(_) => {
                self.disks.busy.insert(person);
            }
            Err(failure) => self.data_done(token, person, Step::Settle, Answer::Failed(failure)),
        }
    }

    /// A task with somebody's data has ended.
    pub(super) fn data_done(
        &mut self,
        token: Option<Token>,
        person: PrincipalId,
        step: Step,
        answer: Answer,
    ) {
        let answer = match (step, answer) {
            (Step::Settle, Answer::Failed(failure)) => {
                say(&format!("the data of person {person}: {failure}"));
                self.disks.faults.insert(person, failure.clone());
                Answer::Failed(failure)
            }
            (Step::Settle, answer) => {
                self.disks.faults.remove(&person);
                self.adopt_trees(person);
                self.sweep_volumes(person);
                answer
            }
            (Step::Grow(image), answer @ Answer::PersonData(_)) => {
                match self.people.set_data(person, Some(image)) {
                    Ok(()) => answer,
                    Err(failure) => Answer::Failed(failure),
                }
            }
            (Step::Copy(to), Answer::Done {}) => match self.people.set_data(person, to) {
                // From here on what was before is what is left over.
                Ok(()) => return self.settle_data(token, person),
                Err(failure) => {
                    self.settle_data(None, person);
                    return self.answer_data(token, Answer::Failed(failure));
                }
            },
            (Step::Grow(_) | Step::Copy(_), answer) => answer,
        };
        self.disks.busy.remove(&person);
        self.answer_data(token, answer);
        self.next_for_data(person);
    }

    /// Nobody else works on the data of these from now on, until [`Supervisor::free_data`].
    pub(super) fn hold_data(&mut self, people: [PrincipalId; 2]) {
        self.disks.busy.extend(people);
    }

    /// What has waited for that comes.
    pub(super) fn free_data(&mut self, people: [PrincipalId; 2]) {
        for person in people {
            self.disks.busy.remove(&person);
        }
        for person in people {
            self.sweep_volumes(person);
            self.next_for_data(person);
        }
    }

    fn answer_data(&mut self, token: Option<Token>, answer: Answer) {
        if let Some(token) = token {
            self.answer(token, Reply::from(answer));
        }
    }

    /// Dispatches what has waited; the first that works on the data again holds up the rest.
    fn next_for_data(&mut self, person: PrincipalId) {
        let waiting = self.disks.waiting.remove(&person).unwrap_or_default();
        for (token, request) in waiting {
            if self.connections.contains_key(&token)
                && let Some(reply) = self.dispatch(token, request, Vec::new())
            {
                self.answer(token, reply);
            }
        }
    }

    /// Containers that only a file system shows which was not mounted when the others were looked for.
    fn adopt_trees(&mut self, person: PrincipalId) {
        let Some(known) = self.people.get(person) else { return };
        for name in self.trees_of(&known) {
            let Ok(container) = name.parse() else { continue };
            if !self.containers.contains_key(&container) {
                self.recover_one(&container);
            }
        }
    }
}
