//! The seam through which every container is begun: by the monitor and by the OCI command line alike.
//!
//! [`create`] plans in the caller (all text, descriptors, mount steps and filter bytes), clones the
//! child into its namespaces, and returns when the child has built everything and waits.
//! [`Created::start`] lets it run the program. A child that is never started ends when [`Created`]
//! is dropped (its socket hangs up), so a caller that dies leaves no waiting container behind.
//!
//! The caller must be root, single-threaded, and run from a sealed copy of its binary
//! ([`crate::sys::memfd::ensure_sealed`]): what a container sees as `/proc/1/exe` is that copy.

use std::os::fd::OwnedFd;
use std::path::PathBuf;

use berth_runtime::record::{Failure, FailureClass};
use nix::unistd::Pid;
use oci_spec::runtime::Spec;

/// All that a container is launched with.
pub struct Launch<'a> {
    /// The OCI configuration, from [`crate::profile`] or a bundle. Its `root.path` is not read.
    pub spec: &'a Spec,
    /// Where the root file system comes from.
    pub root: RootSource,
    /// Standard input, output and error of the program. Pipes are given to the program's user, so
    /// that it may open `/dev/stdout`.
    pub stdio: [OwnedFd; 3],
    /// Who runs the program.
    pub user: User,
    /// The cgroup that the child is in before it has its cgroup namespace.
    pub cgroup: CgroupEntry,
    /// Small files over what the image has (`/etc/hosts` and the like); with an overlay root only.
    pub files: Vec<InjectedFile>,
    /// A listening `SOCK_SEQPACKET` socket on which the child waits for its start when the process
    /// that creates and the one that starts differ (OCI command line); see [`start_through`].
    pub gate: Option<OwnedFd>,
}

/// Where a container's root file system comes from.
pub enum RootSource {
    /// A directory as it is (OCI bundle).
    Directory(PathBuf),
    /// Layers under a writable directory, mounted by the child in its own user namespace.
    Overlay(OverlayRoot),
}

/// The parts of an overlay root.
pub struct OverlayRoot {
    /// The unpacked layers' directories, lowest first (the order of [`berth_runtime::wire::StartRequest`]).
    pub layers: Vec<OwnedFd>,
    /// A user namespace that maps the layer range to the container's range: inside ids are the
    /// layer range's, outside ids the person's ([`crate::namespace::id_map_namespace`] makes one; it
    /// can be kept and used for every container of a person).
    pub id_map: OwnedFd,
    /// A directory that holds `upper` and `work`, both owned by the container's root.
    pub upper: OwnedFd,
}

/// Who runs the program.
pub enum User {
    /// The numbers in the configuration's `process.user`.
    FromSpec,
    /// `user[:group]` as in an image's `User`, names or numbers, resolved by the child in its own
    /// root with supplementary groups and, unless the environment has one, `HOME`. Empty: `0`.
    Named(String),
}

/// The cgroups of a container. All are entered before the child makes its cgroup namespace.
#[derive(Default)]
pub struct CgroupEntry {
    /// A directory of the unified hierarchy, in which the child is born (`CLONE_INTO_CGROUP`).
    pub unified: Option<OwnedFd>,
    /// `cgroup.procs` files of v1 hierarchies, open for writing; the child's pid is written to each.
    pub procs: Vec<OwnedFd>,
}

/// A small file laid over what the image has at the same path, owned by the container's root.
pub struct InjectedFile {
    /// Absolute path inside. Symbolic links on the way are followed inside the root only.
    pub path: String,
    /// What it holds, at most [`INJECTED_BYTES_MAX`] bytes.
    pub content: Vec<u8>,
}

/// Bytes of one injected file at most.
pub const INJECTED_BYTES_MAX: usize = 16 * 1024;

/// A container that is built and waits for its start.
pub struct Created {
    /// The first process, as the caller's pid namespace numbers it. The caller is its parent.
    pub pid: Pid,
    /// The same, as a descriptor.
    pub pidfd: OwnedFd,
    /// Its network namespace.
    pub network_namespace: OwnedFd,
    /// Its user namespace.
    pub user_namespace: OwnedFd,
    /// The child's end hangs up when it runs the program.
    gate: Option<OwnedFd>,
}

/// Builds a container whose first process waits for its start.
///
/// # Errors
/// A [`Failure`] that names the step and its object. The child is gone and reaped then; the cgroup,
/// the layers and the upper directory are the caller's to clean.
pub fn create(launch: Launch<'_>) -> Result<Created, Failure> {
    let Launch { spec, root, stdio, user, cgroup, files, gate } = launch;
    drop((spec, root, stdio, user, cgroup, files, gate));
    Err(Failure::new(FailureClass::Unavailable, "launch.unfinished", "not built yet"))
}

impl Created {
    /// Lets the first process run its program, and returns when it does. May be called without
    /// privilege.
    ///
    /// # Errors
    /// The step between release and execve that failed; the process ends, for the caller to reap.
    pub fn start(&mut self) -> Result<(), Failure> {
        drop(self.gate.take());
        Err(Failure::new(FailureClass::Unavailable, "launch.unfinished", "not built yet"))
    }
}
