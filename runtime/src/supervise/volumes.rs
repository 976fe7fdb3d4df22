//! People's volumes, as the supervisor has them made and removed. What is removed loses its name at once; its
//! files go in a task, one a person at a time. A volume may be in containers of other people than its owner: who
//! has one is asked of all that runs.

use std::collections::BTreeMap;

use berth_runtime::id::{PrincipalId, VolumeId};
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{Answer, StartRequest};

use super::connection::{Reply, Token};
use super::containers::{Entry, failure};
use super::dispatch::Answered;
use super::tasks::{Purpose, Task};
use super::{Supervisor, say};
use crate::people::Person;
use crate::volume;

impl Supervisor {
    /// Makes a volume; nothing of it takes long.
    pub(super) fn volume_make(&mut self, person: PrincipalId, volume: &VolumeId) -> Answered {
        let known = self.known_person(person)?;
        self.data_fault(person)?;
        volume::make(&self.places, &known, volume)?;
        Ok(Answer::Done {}.into())
    }

    /// Removes one that no run has.
    pub(super) fn volume_remove(&mut self, person: PrincipalId, volume: &VolumeId) -> Answered {
        let known = self.known_person(person)?;
        self.data_fault(person)?;
        self.refuse_in_use(person, volume)?;
        if volume::give_up(&self.places, &known, volume)? {
            self.sweep_volumes(person);
        }
        Ok(Answer::Done {}.into())
    }

    fn refuse_in_use(&self, person: PrincipalId, volume: &VolumeId) -> Result<(), Failure> {
        let has = |entry: &Entry| {
            entry.start.as_ref().is_some_and(|start| start.has_volume(person, volume))
        };
        if self.containers.values().any(|entry| entry.is_active() && has(entry)) {
            let message = format!("volume {} is in use by a running container", volume.short());
            return Err(failure(FailureClass::Conflict, "volume.in-use", message));
        }
        Ok(())
    }

    /// Gives one to somebody else.
    pub(super) fn volume_hand_over(
        &mut self,
        token: Token,
        (person, volume): (PrincipalId, VolumeId),
        heir: PrincipalId,
    ) -> Option<Reply> {
        match self.begin_hand_over(token, (person, volume), heir) {
            Ok(()) => None,
            Err(failure) => Some(failure.into()),
        }
    }

    fn begin_hand_over(
        &mut self,
        token: Token,
        (person, volume): (PrincipalId, VolumeId),
        heir: PrincipalId,
    ) -> Result<(), Failure> {
        let people = [person, heir];
        if person == heir {
            let message = format!("volume {} is theirs", volume.short());
            return Err(failure(FailureClass::Invalid, "volume.heir", message));
        }
        let [from, to] = [self.known_person(person)?, self.known_person(heir)?];
        people.iter().try_for_each(|one| self.data_fault(*one))?;
        self.refuse_in_use(person, &volume)?;
        if self.tasks.values().any(|task| task.changes_files_of(person)) {
            let message = format!("files of person {person} are being changed just now");
            return Err(failure(FailureClass::Unavailable, "volume.busy", message));
        }
        let task = Task::VolumeHandOver { person: from, volume, heir: to };
        self.begin_task(task, Purpose::HandOver { token, people })?;
        self.hold_data(people);
        Ok(())
    }

    /// Looks how much is in one.
    pub(super) fn volume_measure(
        &mut self,
        token: Token,
        person: PrincipalId,
        volume: VolumeId,
    ) -> Option<Reply> {
        match self.data_fault(person).and_then(|()| self.known_person(person)) {
            Ok(person) => self.answer_by_task(token, Task::VolumeMeasure { person, volume }, None),
            Err(failure) => Some(failure.into()),
        }
    }

    /// Whether all that a start wants is there; whose it is.
    pub(super) fn check_volumes(
        &self,
        request: &StartRequest,
    ) -> Result<BTreeMap<PrincipalId, Person>, Failure> {
        let mut owners = BTreeMap::new();
        for one in &request.volumes {
            let owner = self.known_person(one.owner_in(request.person))?;
            self.data_fault(owner.person)?;
            if !volume::is_there(&self.places, &owner, &one.volume)? {
                return Err(volume::unknown(&one.volume));
            }
            owners.insert(owner.person, owner);
        }
        Ok(owners)
    }

    /// Begins to remove what earlier supervisors have left; of people with a file system of their own when
    /// that is mounted.
    pub(super) fn recover_volumes(&mut self) {
        let people: Vec<PrincipalId> = self
            .people
            .after(None)
            .filter(|person| person.data.is_none())
            .map(|person| person.person)
            .collect();
        for person in people {
            self.sweep_volumes(person);
        }
    }

    /// Removes what there is of a person's removed volumes.
    pub(super) fn sweep_volumes(&mut self, person: PrincipalId) {
        let Some(known) = self.people.get(person) else { return };
        if let Some(again) = self.sweeps.get_mut(&person) {
            *again = true;
            return;
        }
        if !volume::needs_sweep(&self.places, &known) {
            return;
        }
        match self.begin_task(Task::VolumesSweep { person: known }, Purpose::Volumes(person)) {
            Ok(_) => {
                self.sweeps.insert(person, false);
            }
            // They stay until the next removal, or the next start.
            Err(failure) => say(&format!("removed volumes of person {person}: {failure}")),
        }
    }

    /// That has ended.
    pub(super) fn volumes_swept(&mut self, person: PrincipalId, answer: Answer) {
        let again = self.sweeps.remove(&person).unwrap_or(false);
        if let Answer::Failed(failure) = answer {
            say(&format!("removed volumes of person {person}: {failure}"));
            return;
        }
        if again {
            self.sweep_volumes(person);
        }
    }
}
