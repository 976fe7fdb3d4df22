//! Where Berth's cgroups lie: `<scope>/g<group>/p<person>/{monitors, c<container>}`.
//!
//! The scope is systemd's delegated one, or a plain directory named after the instance. A person's
//! cgroup is the parent of all that runs for them, so that a quota on it bounds the sum; a
//! container's monitor stands beside the container, out of reach of its limits.

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::LimitState;

use super::{Cgroup, Error, Hierarchy, Settings, files};

/// The root of an instance's cgroups.
#[derive(Debug, Clone)]
pub struct Scope {
    root: Cgroup,
}

/// A container's cgroup that the kernel has, wherever it came from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Found {
    /// The group it counts to.
    pub group: PrincipalId,
    /// Whose it is.
    pub person: PrincipalId,
    /// The container.
    pub container: ContainerId,
}

impl Scope {
    /// The scope at `path` from the hierarchies' roots, such as
    /// `/berth.slice/berth-containers.scope`; made where it is absent.
    pub fn open(hierarchy: &Hierarchy, path: &str) -> Result<Self, Error> {
        let root = Cgroup::at(hierarchy, path)?;
        root.create()?;
        Ok(Self { root })
    }

    /// Holds all that is in it together, whoever's it is.
    pub fn hold(&self, settings: &Settings) -> Result<Vec<LimitState>, Error> {
        self.root.bound(settings, &[])
    }

    /// The leaf for what keeps the scope alive.
    pub fn holder(&self) -> Result<Cgroup, Error> {
        self.root.child("holder")
    }

    /// A group's cgroup: a parent of people's.
    pub fn group(&self, group: PrincipalId) -> Result<Cgroup, Error> {
        self.root.child(&format!("g{group}"))
    }

    /// A person's cgroup: a parent of leaves, so no process may be put in it.
    pub fn person(&self, group: PrincipalId, person: PrincipalId) -> Result<Cgroup, Error> {
        self.root.child(&format!("g{group}/p{person}"))
    }

    /// The leaf of a person's monitors.
    pub fn monitors(&self, group: PrincipalId, person: PrincipalId) -> Result<Cgroup, Error> {
        self.person(group, person)?.child("monitors")
    }

    /// The leaf of one container.
    pub fn container(
        &self,
        group: PrincipalId,
        person: PrincipalId,
        container: &ContainerId,
    ) -> Result<Cgroup, Error> {
        self.person(group, person)?.child(&format!("c{container}"))
    }

    /// Every person's cgroup that is there, with its group, in any hierarchy.
    pub fn people(&self) -> Result<Vec<(PrincipalId, PrincipalId)>, Error> {
        let mut found = Vec::new();
        for directory in self.root.directories() {
            for (group, path) in files::children(&directory, 'g')? {
                for (person, _) in files::children(&path, 'p')? {
                    let (Ok(group), Ok(person)) = (group.parse(), person.parse()) else { continue };
                    let one = (PrincipalId(group), PrincipalId(person));
                    if !found.contains(&one) {
                        found.push(one);
                    }
                }
            }
        }
        Ok(found)
    }

    /// Every container's cgroup that is there, in any hierarchy: what a crash has left is seen too.
    pub fn containers(&self) -> Result<Vec<Found>, Error> {
        let mut found = Vec::new();
        for directory in self.root.directories() {
            for (group, path) in files::children(&directory, 'g')? {
                for (person, path) in files::children(&path, 'p')? {
                    for (container, _) in files::children(&path, 'c')? {
                        let ids = (group.parse().ok(), person.parse().ok(), container.parse().ok());
                        if let (Some(group), Some(person), Some(container)) = ids {
                            let (group, person) = (PrincipalId(group), PrincipalId(person));
                            let one = Found { group, person, container };
                            if !found.contains(&one) {
                                found.push(one);
                            }
                        }
                    }
                }
            }
        }
        Ok(found)
    }

    /// Removes a person's cgroups, and their group's, as far as nothing is in them any more.
    pub fn prune(&self, group: PrincipalId, person: PrincipalId) -> Result<(), Error> {
        let group_cgroup = self.group(group)?;
        for level in [self.monitors(group, person)?, self.person(group, person)?, group_cgroup] {
            if !level.remove_if_empty()? {
                // Something else still runs there; the last one to end comes by here again.
                break;
            }
        }
        Ok(())
    }
}
