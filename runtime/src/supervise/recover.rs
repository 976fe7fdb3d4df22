//! What a new supervisor finds: containers on disk, monitors that live on, runs that are half built or
//! lost. It adopts what lives and plans to undo the rest.
//!
//! A monitor lives when it holds its run's lock; it is known by pid, start time and boot, so a number
//! that the kernel has given to another process since is never taken for it.

use std::collections::BTreeSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use berth_runtime::id::ContainerId;
use berth_runtime::record::{ExitCause, Failure, Live};

use super::containers::{Entry, LOCK, Monitor};
use super::setup::SetupError;
use super::tasks::{Purpose, Task};
use super::{Supervisor, say, setup};
use crate::files::{self, FileError};
use crate::ledger::{self, LiveRecord, NetworkPlace, StartRecord};
use crate::network::{Attachment, Network};
use crate::people::Person;
use crate::process::ProcessKey;
use crate::sys::lock::try_lock;
use crate::{layer, undo};

/// How long a monitor that holds its lock may take to write down who it is.
const HELLO_LIMIT: Duration = Duration::from_secs(2);

/// What is left of a run.
enum Found {
    /// Its monitor.
    Alive { monitor: OwnedFd, running: Option<Box<(Live, OwnedFd)>> },
    /// Something on tmpfs, and nobody who looks after it.
    Remains,
    /// Nothing.
    Nothing,
}

impl Supervisor {
    /// Makes the table of containers from disk and kernel.
    pub(super) fn recover(&mut self) -> Result<(), SetupError> {
        for container in self.known()? {
            self.recover_one(&container);
        }
        let found = self.scope.containers().unwrap_or_else(|error| {
            say(&format!("list the containers' cgroups: {}", crate::scope::chain(&error)));
            Vec::new()
        });
        for one in found {
            if !self.containers.get(&one.container).is_some_and(Entry::is_active) {
                self.undo_stray(&one);
            }
        }
        self.recover_totals();
        self.recover_rates();
        self.recover_disks();
        self.recover_volumes();
        self.look_at_data_sets();
        let sweep = self.sweep_network();
        let layers = self.begin_layer(&layer::Task::Sweep, None, 0);
        for failure in [sweep.err(), layers.err()].into_iter().flatten() {
            say(&format!("sweep: {failure}"));
        }
        Ok(())
    }

    /// Has the journal say which data sets cannot be had. A file system that does not answer holds up the task alone.
    fn look_at_data_sets(&mut self) {
        if self.config.data_sets.is_empty() {
            return;
        }
        if let Err(failure) = self.begin_task(Task::DataSets {}, Purpose::Own) {
            say(&format!("look at the data sets: {failure}"));
        }
    }

    /// Removes what former containers have left of interfaces, and makes the table anew. What is left
    /// is looked for now, before a start can make something that looks the same.
    fn sweep_network(&mut self) -> Result<u64, Failure> {
        let live = self.live_places();
        let attached: Vec<Attachment> = live.iter().map(NetworkPlace::attachment).collect();
        let stale = Network::new(&self.config)?.stale(&attached)?;
        self.begin_task(Task::SweepNetwork { stale, live }, Purpose::Own)
    }

    /// The places of all containers that have a monitor.
    fn live_places(&self) -> Vec<NetworkPlace> {
        let active = self.containers.values().filter(|entry| entry.monitor.is_some());
        active.filter_map(|entry| entry.start.as_ref()?.place.clone()).collect()
    }

    /// Some rule of the host's has changed: if it was somebody who took our table away, it comes back.
    pub(super) fn rules_changed(&mut self) {
        if let Some(rules) = &self.rules {
            rules.drain();
        }
        self.restore_rates();
        let running = self.containers.values().filter(|entry| entry.running().is_some());
        let mut places =
            running.filter_map(|entry| entry.start.as_ref()?.place.as_ref()).peekable();
        if places.peek().is_none() {
            return;
        }
        let leases = places.any(|place| !place.ports.is_empty());
        let guarded = Network::new(&self.config).and_then(|network| network.guarded(leases));
        if matches!(guarded, Ok(true)) {
            return;
        }
        say("the nftables tables are not whole: making them again");
        let task = Task::RestoreNetwork { live: self.live_places() };
        if let Err(failure) = self.begin_task(task, Purpose::Own) {
            say(&format!("make the nftables table again: {failure}"));
        }
    }

    /// Every container that disk or tmpfs bears something of.
    fn known(&self) -> Result<BTreeSet<ContainerId>, FileError> {
        let mut names = files::names(&self.places.records)?;
        names.extend(files::names(&self.places.runs)?);
        for person in self.people.after(None) {
            names.extend(self.trees_of(&person));
        }
        Ok(names.iter().filter_map(|name| name.parse().ok()).collect())
    }

    /// The containers that a person has a tree of.
    pub(super) fn trees_of(&self, person: &Person) -> Vec<String> {
        let Ok(own) = self.places.own(person) else { return Vec::new() };
        let logs = files::open_in(own, "logs").and_then(files::names).unwrap_or_default();
        // Theirs may not be mounted yet.
        let trees = self.places.containers(person).ok().flatten();
        let mut names = trees.map(files::names).and_then(Result::ok).unwrap_or_default();
        names.extend(logs);
        names
    }

    pub(super) fn recover_one(&mut self, container: &ContainerId) {
        let record = self.places.record(container);
        let start = record.as_ref().ok().and_then(|record| {
            StartRecord::read(record).unwrap_or_else(|error| {
                say(&format!("container {container}: {error}"));
                None
            })
        });
        let owner = start.as_ref().map(|start| start.person).or_else(|| {
            let theirs = |person: &Person| {
                self.trees_of(person).iter().any(|name| name == container.as_str())
            };
            self.people.after(None).find(theirs).map(|person| person.person)
        });
        let Some(owner) = owner else {
            // Directories that were made for a start which was never written down.
            for directory in [&self.places.runs, &self.places.records] {
                if let Err(error) = undo::remove_tree(directory, container.as_str()) {
                    say(&format!("container {container}: {error}"));
                }
            }
            return;
        };
        self.containers.insert(container.clone(), Entry::new(owner, start));
        match self.find(container) {
            Found::Alive { monitor, running } => {
                if let Some(entry) = self.containers.get_mut(container) {
                    entry.monitor =
                        Some(Monitor::adopted(monitor, running.map(|running| *running)));
                }
                self.refresh_paused(container);
                self.recover_execs(container);
            }
            Found::Remains => self.plan_undo(container, self.cause_of_loss(container)),
            Found::Nothing => {
                if !self.is_recorded(container) {
                    self.plan_undo(container, self.cause_of_loss(container));
                }
            }
        }
    }

    fn find(&self, container: &ContainerId) -> Found {
        let Ok(run) = self.places.live(container) else {
            let there = files::is_directory(&self.places.runs, container.as_str());
            return if there { Found::Remains } else { Found::Nothing };
        };
        let Ok(lock) = setup::open_lock(&run, LOCK) else { return Found::Remains };
        let newest = self.containers.get(container).map_or(0, Entry::run);
        let deadline = Instant::now() + HELLO_LIMIT;
        loop {
            // Nobody holds it, or it cannot be told: then whatever is left is undone.
            if try_lock(&lock).unwrap_or(true) {
                return Found::Remains;
            }
            let record =
                LiveRecord::read(&run).ok().flatten().filter(|record| record.run == newest);
            if let Some(record) = record
                && let Some(monitor) = record.monitor.open(&self.boot_id)
            {
                let running = record.live.and_then(|live| self.open_live(live)).map(Box::new);
                return Found::Alive { monitor, running };
            }
            if Instant::now() > deadline {
                return Found::Remains;
            }
            // It was started a moment ago, by a supervisor that is gone.
            std::thread::sleep(Duration::from_millis(5));
        }
    }

    fn open_live(&self, live: Live) -> Option<(Live, OwnedFd)> {
        let key = ProcessKey {
            pid: live.pid,
            start_ticks: live.start_ticks,
            boot_id: self.boot_id.clone(),
        };
        let init = key.open(&self.boot_id)?;
        Some((live, init))
    }

    /// Whether the newest run's end is written down.
    fn is_recorded(&self, container: &ContainerId) -> bool {
        let run = self.containers.get(container).map_or(0, Entry::run);
        let exit = self.places.record(container).and_then(ledger::read_exit);
        run == 0 || exit.is_ok_and(|exit| exit.is_some_and(|exit| exit.run >= run))
    }

    /// Why the newest run has no end on record.
    fn cause_of_loss(&self, container: &ContainerId) -> ExitCause {
        let start = self.containers.get(container).and_then(|entry| entry.start.as_ref());
        match start {
            Some(start) if start.boot_id != self.boot_id => ExitCause::HostLost,
            _ => ExitCause::MonitorLost,
        }
    }

    /// A cgroup that no run accounts for.
    fn undo_stray(&mut self, found: &crate::cgroup::Found) {
        let Some(person) = self.people.get(found.person) else { return };
        let lost = super::containers::lost(0, 0, ExitCause::MonitorLost, None);
        let person = Person { group: found.group, ..person };
        let container = found.container.clone();
        let task = Task::Undo { person, container, place: None, lost };
        if let Err(failure) = self.begin_task(task, Purpose::Own) {
            say(&format!("container {}: {failure}", found.container));
        }
    }
}
