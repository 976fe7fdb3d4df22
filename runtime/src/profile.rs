//! The default profile: the OCI configuration of every container that the supervisor starts. Users
//! can tighten it and never loosen it.

use berth_runtime::record::Failure;
use berth_runtime::wire::StartRequest;
use oci_spec::runtime::Spec;

/// What the profile needs to know beyond the request; all of it the supervisor's own.
#[derive(Debug, Clone, Copy)]
pub struct ProfileHost {
    /// First host id of the person's range of [`berth_runtime::config::RANGE_IDS`].
    pub first_id: u32,
    /// Whether the host has the unified hierarchy alone (a private `cgroup2` is mounted read-only);
    /// else the container sees no cgroup file system.
    pub cgroup_v2: bool,
}

/// Builds the OCI configuration for a request, with everything the request asks for, or refuses it.
/// `process.user` is left at 0:0: names are resolved by the child ([`crate::launch::User::Named`]).
///
/// # Errors
/// `invalid` with the field's name, when a value is impossible or would loosen the profile.
pub fn spec(request: &StartRequest, host: &ProfileHost) -> Result<Spec, Failure> {
    let _ = (request, host.first_id, host.cgroup_v2);
    Err(Failure::new(
        berth_runtime::record::FailureClass::Unavailable,
        "profile.unfinished",
        "not built yet",
    ))
}
