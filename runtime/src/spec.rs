//! Which OCI configurations this runtime can hold to: what it does not support is an error that names
//! the field, never silently left out.

use oci_spec::runtime::{Linux, Process, Spec};

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
    crate::resctrl::of(spec, "id")?;
    check_linux(linux)?;
    crate::time_offsets::lines(spec, linux)?;
    crate::joined::check(spec, linux)
}

fn check_linux(linux: &Linux) -> Result<(), SpecError> {
    if is_given(linux.mount_label()) {
        return Err(unsupported("linux.mountLabel", "set"));
    }
    crate::plan::root_propagation(linux)?;
    crate::rootfs::nodes::all(linux)?;
    Ok(())
}

/// Refuses what a process asks for and the plan does not read.
pub fn check_process(process: &Process) -> Result<(), SpecError> {
    let profile = process.apparmor_profile().as_deref().unwrap_or_default();
    if !profile.is_empty() && !crate::apparmor::has(profile) {
        let why = format!("{profile:?} is not loaded on this host");
        return Err(invalid("process.apparmorProfile", why));
    }
    if is_given(process.selinux_label()) {
        return Err(unsupported("process.selinuxLabel", "set"));
    }
    // Of no use to a first process, and wrong all the same if it cannot be.
    crate::scheduling::Affinity::of(process)?;
    Ok(())
}

/// Empty text is as good as none.
fn is_given(text: &Option<String>) -> bool {
    text.as_ref().is_some_and(|text| !text.is_empty())
}
