//! Which OCI configurations this runtime can hold to: what it does not support is an error that names
//! the field, never silently left out.

use oci_spec::runtime::{Linux, LinuxNamespaceType, Process, Spec};

/// Why a configuration cannot be run.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum SpecError {
    /// A field that has to be there.
    #[error("config: {0} is missing")]
    Missing(&'static str),
    /// A property that this runtime does not have (yet).
    #[error("config: {field} is not supported ({value})")]
    Unsupported {
        /// The field's path.
        field: String,
        /// Its value, or what of it is not supported.
        value: String,
    },
    /// A value that cannot be.
    #[error("config: {field}: {reason}")]
    Invalid {
        /// The field's path.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
}

/// Shorthand for [`SpecError::Unsupported`].
pub fn unsupported(field: impl Into<String>, value: impl ToString) -> SpecError {
    SpecError::Unsupported { field: field.into(), value: value.to_string() }
}

/// Shorthand for [`SpecError::Invalid`].
pub fn invalid(field: impl Into<String>, reason: impl ToString) -> SpecError {
    SpecError::Invalid { field: field.into(), reason: reason.to_string() }
}

/// Refuses what the plan does not read.
pub fn check(spec: &Spec) -> Result<(), SpecError> {
    let linux = spec.linux().as_ref().ok_or(SpecError::Missing("linux"))?;
    if spec.root().is_none() {
        return Err(SpecError::Missing("root"));
    }
    if let Some(hooks) = spec.hooks() {
        crate::hooks::check(hooks)?;
    }
    if spec.vm().is_some() {
        return Err(unsupported("vm", "virtual machines"));
    }
    crate::network::moving::devices(spec)?;
    check_linux(linux)?;
    check_namespaces(linux)
}

fn check_linux(linux: &Linux) -> Result<(), SpecError> {
    let absent = [
        ("linux.intelRdt", linux.intel_rdt().is_some()),
        ("linux.mountLabel", linux.mount_label().as_ref().is_some_and(|label| !label.is_empty())),
        ("linux.timeOffsets", linux.time_offsets().as_ref().is_some_and(|map| !map.is_empty())),
    ];
    if let Some((field, _)) = absent.iter().find(|(_, present)| *present) {
        return Err(unsupported(*field, "set"));
    }
    let propagation = linux.rootfs_propagation().as_deref().unwrap_or_default();
    if !["", "private", "rprivate", "slave", "rslave"].contains(&propagation) {
        return Err(unsupported("linux.rootfsPropagation", propagation));
    }
    for (index, device) in linux.devices().iter().flatten().enumerate() {
        let path = device.path().to_string_lossy();
        if !crate::rootfs::devices::is_default(&path) {
            return Err(unsupported(format!("linux.devices[{index}]"), path));
        }
    }
    Ok(())
}

fn check_namespaces(linux: &Linux) -> Result<(), SpecError> {
    let mut seen = Vec::new();
    for (index, namespace) in linux.namespaces().iter().flatten().enumerate() {
        let field = format!("linux.namespaces[{index}]");
        if let Some(path) = namespace.path() {
            return Err(unsupported(format!("{field}.path"), path.display()));
        }
        if seen.contains(&namespace.typ()) {
            return Err(invalid(field, "the same type twice"));
        }
        seen.push(namespace.typ());
    }
    for needed in [LinuxNamespaceType::Mount, LinuxNamespaceType::Pid] {
        if !seen.contains(&needed) {
            return Err(unsupported(
                "linux.namespaces",
                format!("without a new {needed} namespace"),
            ));
        }
    }
    let mapped = !linux.uid_mappings().as_ref().is_none_or(Vec::is_empty);
    if seen.contains(&LinuxNamespaceType::User) != mapped {
        return Err(invalid("linux.uidMappings", "a user namespace needs mappings, and they it"));
    }
    Ok(())
}

/// Refuses what a process asks for and the plan does not read.
pub fn check_process(process: &Process) -> Result<(), SpecError> {
    let named = |text: &Option<String>| text.as_ref().is_some_and(|text| !text.is_empty());
    let profile = process.apparmor_profile().as_deref().unwrap_or_default();
    if !profile.is_empty() && !crate::apparmor::has(profile) {
        let why = format!("{profile:?} is not loaded on this host");
        return Err(invalid("process.apparmorProfile", why));
    }
    let absent = [("process.selinuxLabel", named(process.selinux_label()))];
    // Of no use to a first process, and wrong all the same if it can not be.
    crate::scheduling::Affinity::of(process)?;
    match absent.iter().find(|(_, present)| *present) {
        Some((field, _)) => Err(unsupported(*field, "set")),
        None => Ok(()),
    }
}
