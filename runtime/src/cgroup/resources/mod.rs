//! `linux.resources` of an OCI configuration (runtime-spec, config-linux.md, "Control groups"): each value
//! becomes a write to one file of the cgroup, in the words of whichever layout the host has.
//!
//! All or none: values in force before are read first, and written back when a later write is refused. A
//! value that cannot be, that the kernel refuses, or that nothing on this host can hold is an error that
//! names the field and the value. Where the kernel rounds or clamps, what it made of a value is read back.
//! As in runc, a number that is 0 is left alone, but for those of which 0 says something (`idle`, `burst`,
//! `swappiness`, rates), and -1 is "no limit"; `memory.kernel` and `memory.kernelTCP` are ignored.

mod check;
mod convert;
mod fence;
mod v1;
mod v2;
mod write;

use std::fmt::Display;

use oci_spec::runtime::{LinuxMemory, LinuxResources};

use super::{Cgroup, Controller, Error, Hierarchy};
use write::Write;

pub use convert::{cpu_weight, numbers, swap_alone};
pub use fence::fence;
#[cfg(any(test, fuzzing))]
pub use fence::tests::agree as fence_agrees;

/// Where the values in force before a change came from.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Before {
    /// From the kernel, in a new cgroup that is removed when the change fails.
    New,
    /// From somebody, so that they are put back when it fails.
    InForce,
}

impl Cgroup {
    /// Sets every resource that is given, but for device rules ([`fence`]).
    pub fn set_resources(&self, resources: &LinuxResources, before: Before) -> Result<(), Error> {
        check::check(resources)?;
        let mut plan = Plan { cgroup: self, writes: Vec::new() };
        match &self.hierarchy {
            Hierarchy::V1 { .. } => v1::plan(&mut plan, resources)?,
            Hierarchy::V2 { .. } => v2::plan(&mut plan, resources)?,
        }
        write::make(&plan.writes, before)
    }
}

/// The writes of one change, in the order in which they are tried.
struct Plan<'a> {
    cgroup: &'a Cgroup,
    writes: Vec<Write>,
}

impl Plan<'_> {
    /// The controller's file on v1, by the first of several names that is there.
    fn v1_file(
        &self,
        (controller, names): (Controller, &[&str]),
        (field, asked): (&str, &dyn Display),
    ) -> Result<std::path::PathBuf, Error> {
        let Some(directory) = self.cgroup.directory(controller) else {
            let name = controller.v1_name();
            let reason = format!("the {name} controller is not mounted");
            return Err(lacking(field, asked, reason));
        };
        let found = names.iter().map(|name| directory.join(name)).find(|file| file.exists());
        found.ok_or_else(|| {
            lacking(field, asked, format!("the kernel has no {}", names.join(" and no ")))
        })
    }

    /// The file on v2, whose controller is enabled for the cgroup if need be.
    fn v2_file(
        &self,
        name: &str,
        (field, asked): (&str, &dyn Display),
    ) -> Result<std::path::PathBuf, Error> {
        let root = self.cgroup.hierarchy.unified().unwrap_or(std::path::Path::new("/"));
        let file = self.cgroup.below(root).join(name);
        if file.exists() {
            return Ok(file);
        }
        let controller = name.split('.').next().unwrap_or_default();
        let enabled = super::hierarchy::enable(root, &self.cgroup.path, controller);
        let enabled = enabled.map_err(|error| refused(field, asked, error))?;
        if enabled && file.exists() {
            return Ok(file);
        }
        let reason = if enabled || controller == "cgroup" {
            format!("the kernel has no {name}")
        } else {
            format!("the {controller} controller is not available to this cgroup")
        };
        Err(lacking(field, asked, reason))
    }
}

/// `memory.swappiness`; what Docker writes for "not set" is -1 in a number without sign.
fn swappiness(memory: &LinuxMemory) -> Option<u64> {
    memory.swappiness().filter(|swappiness| *swappiness != u64::MAX)
}

/// What no file of this host's holds.
fn lacking(field: &str, asked: impl Display, reason: impl Into<String>) -> Error {
    Error::Lacking { field: field.to_owned(), asked: asked.to_string(), reason: reason.into() }
}

/// What failed for a field's sake.
fn refused(field: &str, asked: impl Display, source: Error) -> Error {
    let (field, asked) = (field.to_owned(), asked.to_string());
    Error::Resource { field, asked, source: Box::new(source) }
}

#[cfg(test)]
mod tests;
