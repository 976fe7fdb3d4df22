//! Ending and clearing away what a container's run has left in the kernel and on tmpfs, and what the
//! container has on disk. Every step can be done again, and "gone already" is success: whoever did it
//! may have been killed half-way.

use std::collections::BTreeSet;
use std::os::fd::AsFd;
use std::time::Duration;

use berth_runtime::config::RuntimeConfig;
use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{ExitRecord, Failure, FailureClass, LimitState};
use berth_runtime::wire::{Limits, Total};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::cgroup::{self, Cgroup, Disk, Hierarchy, Scope, Settings};
use crate::files::{self, FileError};
use crate::layer;
use crate::ledger::{self, NetworkPlace};
use crate::network::{Attachment, Network};
use crate::people::Person;
use crate::places::Places;
use crate::process::{self, ProcessKey};
use crate::sys::process::pidfd_send_signal;

/// How long killed processes may take to be gone; one in uninterruptible sleep may take longer, and
/// is tried again.
const END_LIMIT: Duration = Duration::from_secs(10);
/// Looks at a session that still forks, at most; each kills all that was there.
const END_ROUNDS_MAX: u32 = 1000;

/// The instance whose things are undone.
pub(crate) struct At<'a> {
    /// Its configuration.
    pub(crate) config: &'a RuntimeConfig,
    /// Its scope's path from the cgroup hierarchies' roots.
    pub(crate) scope: &'a str,
}

/// Whose sum is held: a person's, or with `person` absent a whole group's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct Sum {
    /// The group.
    pub(crate) group: PrincipalId,
    /// A person who counts to it.
    pub(crate) person: Option<PrincipalId>,
}

/// A sum, its total, and what is inside it.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Held {
    /// Whose.
    pub(crate) sum: Sum,
    /// What all of it may use together.
    pub(crate) total: Total,
    /// The disk that it is on.
    pub(crate) disk: Disk,
    /// A group's people who have something running.
    pub(crate) people: Vec<(PrincipalId, Total)>,
    /// What runs.
    pub(crate) containers: Vec<(PrincipalId, ContainerId, Limits)>,
}

impl Sum {
    /// Its cgroup.
    pub(crate) fn cgroup(&self, scope: &Scope) -> Result<Cgroup, cgroup::Error> {
        match self.person {
            Some(person) => scope.person(self.group, person),
            None => scope.group(self.group),
        }
    }
}

impl Held {
    /// Makes the kernel hold it, in a cgroup that is there; what it then shows.
    pub(crate) fn apply(&self, scope: &Scope) -> Result<Vec<LimitState>, cgroup::Error> {
        let group = self.sum.group;
        let mut inner = Vec::new();
        for (person, total) in &self.people {
            inner.push((scope.person(group, *person)?, Settings::from(total)));
        }
        for (person, container, limits) in &self.containers {
            inner.push((scope.container(group, *person, container)?, Settings::from(limits)));
        }
        self.sum.cgroup(scope)?.bound(&Settings::of_total(&self.total, &self.disk), &inner)
    }
}

fn failed(error: &FileError) -> Failure {
    Failure::new(FailureClass::Broken, "container.undo", error.to_string())
}

impl At<'_> {
    fn scope(&self) -> Result<Scope, Failure> {
        Ok(Scope::open(&Hierarchy::detect()?, self.scope)?)
    }

    /// A container's cgroup.
    pub(crate) fn cgroup(
        &self,
        person: &Person,
        container: &ContainerId,
    ) -> Result<Cgroup, Failure> {
        Ok(self.scope()?.container(person.group, person.person, container)?)
    }

    /// Holds all that runs for a person or a group to their total; what is told is what the kernel then
    /// shows.
    pub(crate) fn hold_total(&self, held: &Held) -> Result<Vec<LimitState>, Failure> {
        Ok(held.apply(&self.scope()?)?)
    }

    /// Ends every process of the run, takes cgroup and address away, and writes `lost` down when there
    /// is no exit record of the run; last, so that whoever reads it finds the rest gone.
    pub(crate) fn undo(
        &self,
        person: &Person,
        container: &ContainerId,
        place: Option<&NetworkPlace>,
        lost: &ExitRecord,
    ) -> Result<(), Failure> {
        let cgroup = self.cgroup(person, container)?;
        if cgroup.exists() {
            cgroup.kill()?;
            cgroup.wait_empty(END_LIMIT)?;
            cgroup.remove()?;
        }
        if let Some(place) = place {
            Network::new(self.config)?.detach(&place.attachment())?;
        }
        let places = Places::open(self.config).map_err(|error| failed(&error))?;
        self.settle_records(&places, container, lost).map_err(|error| failed(&error))
    }

    fn settle_records(
        &self,
        places: &Places,
        container: &ContainerId,
        lost: &ExitRecord,
    ) -> Result<(), FileError> {
        if lost.run > 0 {
            let record = places.record(container)?;
            let known = ledger::read_exit(&record)?.is_some_and(|exit| exit.run >= lost.run);
            if !known {
                ledger::write_exit(places.exit(container)?, lost)?;
            }
        }
        remove_tree(&places.runs, container.as_str())
    }

    /// Removes all that the disk holds of a container that does not run. The record goes last: until
    /// then the container is known, and removing it can be asked for again.
    pub(crate) fn remove(&self, person: &Person, container: &ContainerId) -> Result<(), Failure> {
        let places = Places::open(self.config).map_err(|error| failed(&error))?;
        let own = person.first_id.to_string();
        let removed = || -> Result<(), FileError> {
            if files::is_directory(&places.people, &own) {
                if let Some(trees) = places.containers(person)? {
                    remove_tree(trees, container.as_str())?;
                }
                let own = places.own(person)?;
                if files::is_directory(&own, "logs") {
                    remove_tree(files::open_in(&own, "logs")?, container.as_str())?;
                }
            }
            remove_tree(&places.runs, container.as_str())?;
            remove_tree(&places.records, container.as_str())
        };
        removed().map_err(|error| failed(&error))
    }

    /// Kills every process of a container that is in the session of `leader`, until none is left that
    /// has not been: what was killed forks no more, frozen or not.
    pub(crate) fn end_session(
        &self,
        person: &Person,
        container: &ContainerId,
        leader: &ProcessKey,
    ) -> Result<(), Failure> {
        let cgroup = self.cgroup(person, container)?;
        let session = u64::try_from(leader.pid).unwrap_or(u64::MAX);
        let mut killed = BTreeSet::new();
        for _ in 0..END_ROUNDS_MAX {
            // The number stays the session's as long as a process is in it; later it may be another's.
            let reused = |stat: process::Stat| stat.start_ticks != leader.start_ticks;
            if process::read_stat(leader.pid).is_ok_and(reused) || !cgroup.exists() {
                return Ok(());
            }
            let mut fresh = false;
            for pid in cgroup.pids()? {
                let Ok(stat) = process::read_stat(pid) else { continue };
                if stat.session != session || killed.contains(&(pid, stat.start_ticks)) {
                    continue;
                }
                let key = ProcessKey { pid, start_ticks: stat.start_ticks, ..leader.clone() };
                let Some(pidfd) = key.open(&leader.boot_id) else { continue };
                match pidfd_send_signal(&pidfd, libc::SIGKILL) {
                    Ok(()) | Err(Errno::ESRCH) => {}
                    Err(errno) => return Err(crate::failure::system("end a program", errno)),
                }
                killed.insert((pid, stat.start_ticks));
                fresh = true;
            }
            if !fresh {
                return Ok(());
            }
        }
        Err(crate::failure::broken("a program's session makes processes faster than they end"))
    }

    /// Removes interfaces that were found stale, and makes the table agree with those that are left.
    pub(crate) fn sweep_network(
        &self,
        stale: &[u32],
        live: &[NetworkPlace],
    ) -> Result<(), Failure> {
        let live: Vec<Attachment> = live.iter().map(NetworkPlace::attachment).collect();
        Ok(Network::new(self.config)?.sweep(stale, &live)?)
    }

    /// Makes tables again that somebody has taken away.
    pub(crate) fn restore_network(&self, live: &[NetworkPlace]) -> Result<(), Failure> {
        let live: Vec<Attachment> = live.iter().map(NetworkPlace::attachment).collect();
        Ok(Network::new(self.config)?.restore(&live)?)
    }
}

/// Removes `name` and all below it, by descriptors, whatever links or depth a container has made.
pub(crate) fn remove_tree(parent: impl AsFd, name: &str) -> Result<(), FileError> {
    let text = std::ffi::CString::new(name).map_err(|_| FileError::Content {
        object: name.into(),
        reason: "a name with a NUL".into(),
    })?;
    match layer::remove_tree(parent.as_fd(), &text) {
        Ok(()) | Err(nix::errno::Errno::ENOENT) => Ok(()),
        Err(errno) => Err(FileError::os("remove the tree", name)(errno)),
    }
}
