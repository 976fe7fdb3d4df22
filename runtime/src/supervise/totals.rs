//! Totals: what all that runs for a person, or for a group, may use together.
//!
//! The kernel holds a change first; only then it is written down, for what is started later. A cgroup
//! that is there and was never bounded (whoever made it was killed in between) is bounded by the next
//! supervisor, and nothing is started in one that does not hold what is written down.

use std::collections::BTreeMap;

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{Failure, FailureClass, LimitState};
use berth_runtime::wire::{Answer, Total};

use super::connection::{Reply, Token};
use super::containers::{Entry, failure};
use super::tasks::{Purpose, Task};
use super::{Supervisor, say, validate};
use crate::cgroup::{Bound, Disk, Settings};
use crate::people::Person;
use crate::scope::chain;
use crate::undo::{Held, Sum};

impl Supervisor {
    /// Holds a person to a total. `None`: the answer comes later.
    pub(super) fn person_total(
        &mut self,
        token: Token,
        person: PrincipalId,
        total: Total,
    ) -> Option<Reply> {
        let Some(known) = self.people.get(person) else {
            let message = format!("person {person} is not known to the supervisor");
            return Some(failure(FailureClass::NotFound, "person.unknown", message).into());
        };
        let runs_in = self.containers.values().filter(|entry| entry.is_active());
        let mut runs_in = runs_in.filter(|entry| entry.person == person);
        let group = runs_in.find_map(|entry| Some(entry.start.as_ref()?.group));
        let sum = Sum { group: group.unwrap_or(known.group), person: Some(person) };
        self.begin_total(token, sum, total).unwrap_or_else(|failure| Some(failure.into()))
    }

    /// Holds a group to a total. `None`: the answer comes later.
    pub(super) fn group_total(
        &mut self,
        token: Token,
        group: PrincipalId,
        total: Total,
    ) -> Option<Reply> {
        let begun = self.people.check_group(group).and_then(|()| {
            let sum = Sum { group, person: None };
            self.begin_total(token, sum, total)
        });
        begun.unwrap_or_else(|failure| Some(failure.into()))
    }

    fn begin_total(
        &mut self,
        token: Token,
        sum: Sum,
        total: Total,
    ) -> Result<Option<Reply>, Failure> {
        validate::total(&total, &self.config.ceilings)?;
        // A group's change goes through its people's cgroups, so the two wait for one another.
        let meets = |other: &Sum| {
            other.group == sum.group
                && (other.person == sum.person || other.person.is_none() || sum.person.is_none())
        };
        if self.totals.iter().any(meets) {
            let message = "another total of the same group is being changed";
            return Err(failure(FailureClass::Conflict, "person.busy", message));
        }
        if !sum.cgroup(&self.scope)?.exists() {
            self.keep_total(sum, total)?;
            return Ok(Some(Answer::Limits { limits: Vec::new() }.into()));
        }
        let task = Task::Total { held: self.held(sum, total) };
        self.begin_task(task, Purpose::Total { token, sum, total })?;
        self.totals.insert(sum);
        Ok(None)
    }

    /// The kernel has taken a total, or refused it.
    pub(super) fn total_held(&mut self, sum: Sum, total: Total, answer: Answer) -> Reply {
        self.totals.remove(&sum);
        let Answer::Limits { mut limits } = answer else { return answer.into() };
        let kept = self.hold_rate(sum, &total).and_then(|held| {
            limits.extend(held);
            self.keep_total(sum, total)
        });
        kept.map_or_else(Reply::from, |()| Answer::Limits { limits }.into())
    }

    fn keep_total(&mut self, sum: Sum, total: Total) -> Result<(), Failure> {
        match sum.person {
            Some(person) => self.people.set_total(person, total),
            None => self.people.set_group_total(sum.group, total),
        }
    }

    /// A sum as it is to be held, with what is inside it.
    fn held(&self, sum: Sum, total: Total) -> Held {
        let mut people: BTreeMap<PrincipalId, Total> = BTreeMap::new();
        let mut containers: Vec<(PrincipalId, ContainerId, _)> = Vec::new();
        for (id, entry) in self.containers.iter().filter(|(_, entry)| entry.is_active()) {
            let Some(start) = &entry.start else { continue };
            if start.group != sum.group || sum.person.is_some_and(|person| person != entry.person) {
                continue;
            }
            containers.push((entry.person, id.clone(), start.limits));
            if sum.person.is_none() {
                let total = self.people.get(entry.person).map(|person| person.total);
                people.insert(entry.person, total.unwrap_or_default());
            }
        }
        let disk = Disk::below(&self.config.data_dir);
        Held { sum, total, disk, people: people.into_iter().collect(), containers }
    }

    /// Sees to it that the cgroups above what is about to be started hold what is written down.
    pub(super) fn hold_totals(&mut self, person: &Person) -> Result<(), Failure> {
        let group = person.group;
        let above = [
            (Sum { group, person: None }, self.people.group_total(group)),
            (Sum { group, person: Some(person.person) }, person.total),
        ];
        for (sum, total) in above {
            if self.bounded.contains(&sum) {
                continue;
            }
            // A new one has no bound by itself. In one that is not new, everything is set.
            let held = self.held(sum, total);
            if total != Total::FREE || !held.containers.is_empty() {
                held.apply(&self.scope)?;
            }
            self.bounded.insert(sum);
        }
        Ok(())
    }

    /// Has the kernel leave the host what is reserved for it. Where it refuses, since more is in use by now, what
    /// was before stays until the next start.
    pub(super) fn hold_reserve(&mut self) {
        let reserve = &self.config.reserve;
        let memory = nix::sys::sysinfo::sysinfo().map_or(0, |info| info.ram_total());
        let cpus = std::thread::available_parallelism().map_or(1, usize::from);
        let cpu = reserve.cpu_left(u32::try_from(cpus).unwrap_or(u32::MAX));
        let bound = |value: Option<u64>| value.map_or(Bound::Unbounded, Bound::At);
        let settings = Settings {
            cpu_weight: Some(reserve.cpu_weight.into()),
            memory_bytes: Some(bound(reserve.memory_left(memory))),
            ..Settings::of_cpu_millis(cpu)
        };
        self.together = self.scope.hold(&settings).unwrap_or_else(|error| {
            let reason = chain(&error);
            say(&format!("hold what is reserved for the host: {reason}"));
            vec![LimitState {
                name: "memory".to_owned(),
                held: false,
                file: String::new(),
                value: String::new(),
                reason,
            }]
        });
    }

    /// Bounds the cgroups that a former supervisor has left, and takes away those in which nothing is.
    pub(super) fn recover_totals(&mut self) {
        let found = self.scope.people().unwrap_or_else(|error| {
            say(&format!("list the people's cgroups: {}", chain(&error)));
            Vec::new()
        });
        for (group, person) in found {
            let theirs = |entry: &Entry| entry.person == person && entry.is_active();
            if !self.containers.values().any(theirs) {
                self.prune_person(group, person);
            }
            let total = self.people.get(person).map(|person| person.total).unwrap_or_default();
            for (sum, total) in [
                (Sum { group, person: None }, self.people.group_total(group)),
                (Sum { group, person: Some(person) }, total),
            ] {
                if let Err(failure) = self.recover_total(sum, total) {
                    say(&format!("hold a total of group {group}, person {person}: {failure}"));
                }
            }
        }
    }

    fn recover_total(&mut self, sum: Sum, total: Total) -> Result<(), Failure> {
        let cgroup = sum.cgroup(&self.scope)?;
        if self.bounded.contains(&sum) || !cgroup.exists() {
            return Ok(());
        }
        // It may be there in some of the hierarchies only.
        cgroup.create()?;
        self.held(sum, total).apply(&self.scope)?;
        self.bounded.insert(sum);
        Ok(())
    }

    /// Removes a person's cgroups, and their group's, as far as nothing is in them.
    pub(super) fn prune_person(&mut self, group: PrincipalId, person: PrincipalId) {
        if let Err(error) = self.scope.prune(group, person) {
            say(&format!("remove the cgroup of person {person}: {}", chain(&error)));
        }
        self.drop_rates();
        let scope = &self.scope;
        // What of it is missing somewhere is made again without a bound.
        let whole = |sum: &Sum| sum.cgroup(scope).is_ok_and(|cgroup| cgroup.is_whole());
        let touched = |sum: &Sum| sum.group == group && sum.person.is_none_or(|one| one == person);
        self.bounded.retain(|sum| !touched(sum) || whole(sum));
    }
}
