//! The seam through which every container is begun: by the monitor and by the OCI command line alike.
//!
//! [`create`] plans in the caller (all text, descriptors, mount steps and filter bytes), clones the
//! child into its namespaces, and returns when the child has built everything and waits.
//! [`Created::start`] lets it run the program. A child that is never started ends when [`Created`]
//! is dropped (its socket hangs up), so a caller that dies leaves no waiting container behind.
//!
//! The caller must be root, single-threaded, and run from a sealed copy of its binary
//! ([`crate::kept::ensure_sealed`]): what a container sees as `/proc/1/exe` is that copy.

mod between;
mod birth;

use std::ffi::CString;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::{SFlag, fstat};
use nix::unistd::{Gid, Pid, Uid, fchown, write};
use oci_spec::runtime::{LinuxNamespaceType, Spec};

use crate::accounts;
use crate::failure::{Words, broken, from_spec, system};
use crate::hooks::inside::Inside;
use crate::init::{Root, Wiring};
use crate::joined::Joined;
use crate::namespace::{IdMap, read_id_maps};
use crate::plan::{self, Plan, Surroundings, UserPlan};
use crate::rootfs::cgroups::OwnCgroup;
use crate::rootfs::mounts::Volume;
use crate::rootfs::staging::{OverlayPlan, Staging};
use crate::rootfs::standing::Standing;
use crate::rootfs::target::{Kind, Target};
use crate::seccomp::listener::Listener;
use crate::spec::SpecError;
use crate::sys::clone3::{CloneFlags, Forked};
use crate::sys::mount_api::{Change, clone_tree, set_attributes};
use crate::timing;

use between::Crossing;
use birth::{act_as, receive_past_filter};

pub use birth::Birth;

/// All that a container is launched with.
pub struct Launch<'a> {
    /// The OCI configuration, from [`crate::profile`] or a bundle. Its `root.path` is not read;
    /// relative sources of bind mounts start at the working directory.
    pub spec: &'a Spec,
    /// The namespaces that it joins ([`crate::joined::open_all`]).
    pub joined: Vec<Joined>,
    /// Where the root file system comes from.
    pub root: RootSource,
    /// Standard input, output and error of the program. Pipes are given to the program's user, so
    /// that it may open `/dev/stdout`.
    pub stdio: [OwnedFd; 3],
    /// Who runs the program.
    pub user: User,
    /// The cgroup that the child is in before it has its cgroup namespace.
    pub cgroup: CgroupEntry,
    /// The same in each tree, for a configuration that mounts cgroups without a namespace for them.
    pub own_cgroups: Vec<OwnCgroup>,
    /// Small files over what the image has (`/etc/hosts` and the like); with an overlay root only.
    pub files: Vec<InjectedFile>,
    /// Volumes, with their places.
    pub volumes: Vec<Volume>,
    /// A listening `SOCK_SEQPACKET` socket on which the child waits for its start when the process
    /// that creates and the one that starts differ (OCI command line); see [`release`].
    pub gate: Option<OwnedFd>,
    /// Run when the mounts are made and the root is not entered yet, with the first process's id.
    pub before_root: Option<&'a BeforeRoot<'a>>,
    /// Hooks in the container's namespaces.
    pub hooks: Inside,
    /// Who decides about calls that its filter leaves open.
    pub listener: Option<Listener>,
    /// Descriptors of the caller's from 3 on that the program keeps; all of them are open.
    pub preserved: u32,
}

/// What the caller does with a half-built container; its failure is the creation's.
pub type BeforeRoot<'a> = dyn Fn(Pid) -> Result<(), Failure> + 'a;

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

/// The cgroups of a container, which the child enters by itself before anything else.
#[derive(Default)]
pub struct CgroupEntry {
    /// A directory of the unified hierarchy, in which the child is born (`CLONE_INTO_CGROUP`).
    pub unified: Option<OwnedFd>,
    /// `tasks` files of v1 hierarchies, open for writing, for [`CgroupEntry::enter`].
    pub tasks: Vec<OwnedFd>,
}

impl CgroupEntry {
    /// Puts the caller, a process of one thread, into the v1 hierarchies. The kernel moves a thread that
    /// names itself (0) at once; for one that another names, and for any process that is written to
    /// `cgroup.procs`, it waits for an RCU grace period, of 8 to 14 ms. Does not allocate.
    pub fn enter(tasks: &[OwnedFd]) -> nix::Result<()> {
        tasks.iter().try_for_each(|file| write(file, b"0").map(drop))
    }
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
#[derive(Debug)]
pub struct Created {
    /// The first process, as the caller's pid namespace numbers it. The caller is its parent.
    pub pid: Pid,
    /// The same, as a descriptor.
    pub pidfd: OwnedFd,
    /// Its network namespace.
    pub network_namespace: OwnedFd,
    /// The master of its terminal, if its configuration asks for one.
    pub terminal: Option<OwnedFd>,
    /// The caller's end; the child's end hangs up when it runs the program.
    gate: Option<OwnedFd>,
    words: Words,
    listener: Option<Listener>,
}

/// Builds a container whose first process waits for its start.
///
/// With an overlay root the caller's mount namespace is left and entered again, which needs
/// `CAP_SYS_ADMIN` and `CAP_SYS_CHROOT`.
///
/// # Errors
/// A [`Failure`] that names the step and its object. The child is gone and reaped then; the cgroup,
/// the layers and the upper directory are the caller's to clean.
pub fn create(launch: Launch<'_>) -> Result<Created, Failure> {
    let Launch {
        spec,
        joined,
        root,
        stdio,
        user,
        cgroup,
        own_cgroups,
        files,
        volumes,
        gate,
        before_root,
        hooks,
        listener,
        preserved,
    } = launch;
    let none = || from_spec(SpecError::Missing("process"));
    let process = spec.process().as_ref().ok_or_else(none)?;
    let user = match user {
        User::FromSpec => plan::user_from_spec(process),
        User::Named(text) => UserPlan::Named(accounts::Request::parse(&text).map_err(from_user)?),
    };
    let places = file_places(&files)?;
    let around = Surroundings { bundle: Path::new(""), own_cgroups: &own_cgroups, joined: &joined };
    let mut plan = plan::plan(spec, user, around, places).map_err(from_spec)?;
    plan.mounts.add_volumes(volumes);
    (plan.process.preserved, plan.held) = (preserved, before_root.is_some());
    let words = Words::of(&plan).with_hooks(hooks.names);
    (plan.create_hooks, plan.process.start_hooks) = (hooks.create, hooks.start);
    give_pipes_to_root(&stdio, plan.id_maps.as_ref())?;
    let (ours, wiring) = wire(stdio, gate, cgroup.tasks)?;
    timing::done("plan");
    // A root in a mount namespace that is joined is no place of ours.
    let standing = match plan.mounts_joined {
        true => None,
        false => Standing::in_root(&root)?,
    };
    let (root, staging) = prepare_root(root, &plan, &files)?;
    timing::done("layers in a private mount namespace");
    let own_cgroup = cgroup.unified.as_ref().map(AsFd::as_fd);
    let flags = CloneFlags { namespaces: plan.namespaces, cgroup: own_cgroup, sibling: false };
    let owner = owner_in(plan.id_maps.as_ref());
    let acting = act_as(owner)?;
    let time_offsets = plan.time_offsets.as_deref();
    let forked = between::clone_child(&Crossing { joined: &joined, time_offsets }, &flags);
    if let Ok(Forked::Child) = forked {
        if let Some(acting) = acting {
            acting.stay();
        }
        crate::init::run(plan, root, wiring);
    }
    drop((acting, root, standing));
    if let Some(staging) = staging {
        staging.leave()?;
    }
    timing::done("clone3 into all namespaces");
    let (pid, pidfd) = match forked? {
        Forked::Parent { child, pidfd } => (child, pidfd),
        Forked::Child => return Err(broken("a child came back from its own life")),
    };
    let (pidfd, terminal) = (Some(pidfd), None);
    let mut birth = Birth { pid, pidfd, ours, owner, words, listener, terminal };
    if joined.iter().any(|one| one.kind == LinuxNamespaceType::User) {
        birth.owner = meet_owner(pid, &wiring.stdio)?;
    }
    drop((wiring, joined));
    birth.lead(&plan.process, plan.id_maps.as_ref(), before_root)?;
    timing::done("child: overlay, mounts, masks");
    birth.into_created()
}

/// The two ends of what the parent and the child talk over; the child's with all that it has besides.
pub fn wire(
    stdio: [OwnedFd; 3],
    gate: Option<OwnedFd>,
    tasks: Vec<OwnedFd>,
) -> Result<(OwnedFd, Wiring), Failure> {
    let (ours, parent) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| system("make a socket pair", errno))?;
    let [input, output, error] = stdio.map(above_stdio);
    Ok((ours, Wiring { parent, gate, tasks, stdio: [input?, output?, error?] }))
}

fn from_user(error: accounts::BadUser) -> Failure {
    use berth_runtime::record::FailureClass;
    Failure::new(FailureClass::Invalid, "container.user", error.to_string())
}

impl Created {
    /// Lets the first process run its program, and returns when it does. May be called without
    /// privilege.
    ///
    /// # Errors
    /// The step between release and execve that failed; the process ends, for the caller to reap.
    pub fn start(&mut self) -> Result<(), Failure> {
        let gate = self.gate.take().ok_or_else(|| broken("the container was started before"))?;
        let process = (self.pid, self.pidfd.as_fd());
        release(&gate, &self.words, self.listener.as_ref(), process)
    }

    /// The names for the failures of its start.
    pub fn words(&self) -> &Words {
        &self.words
    }

    /// Leaves the start to another process, which comes to the gate and calls [`release`].
    pub fn leave_to_gate(mut self) {
        self.gate = None;
    }
}

/// Lets a child that waits run its program; returns when it does.
pub fn release(
    gate: &OwnedFd,
    words: &Words,
    listener: Option<&Listener>,
    process: (Pid, BorrowedFd<'_>),
) -> Result<(), Failure> {
    write(gate, &[1]).map_err(|errno| system("release the first process", errno))?;
    match receive_past_filter(gate, listener, process)? {
        None => Ok(()),
        Some(report) => Err(words.describe(report)),
    }
}

/// The same open file at a number that the child's stdio does not overwrite.
fn above_stdio(fd: OwnedFd) -> Result<OwnedFd, Failure> {
    // try_clone_to_owned dups to the lowest number from 3 up, close-on-exec.
    fd.as_fd()
        .try_clone_to_owned()
        .map_err(|error| system("copy a stdio descriptor", errno_of(&error)))
}

/// Pipes become those of the container's root, who passes them on to the program's user: the child has
/// no power over the host's owner.
pub fn give_pipes_to_root(
    stdio: &[OwnedFd; 3],
    id_maps: Option<&(Vec<IdMap>, Vec<IdMap>)>,
) -> Result<(), Failure> {
    let Some((users, groups)) = id_maps else { return Ok(()) };
    let (Some(user), Some(group)) = (host_id_of_root(users), host_id_of_root(groups)) else {
        return Ok(());
    };
    for fd in stdio {
        let mode = fstat(fd).map_err(|errno| system("inspect a stdio descriptor", errno))?.st_mode;
        if SFlag::from_bits_truncate(mode) & SFlag::S_IFMT == SFlag::S_IFIFO {
            fchown(fd, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
                .map_err(|errno| system("give a pipe to the container's root", errno))?;
        }
    }
    Ok(())
}

/// What the container's root is on the host.
pub fn host_id_of_root(maps: &[IdMap]) -> Option<u32> {
    maps.iter().find(|map| map.inside == 0).map(|map| map.outside)
}

/// Whom a user namespace with these maps belongs to.
pub fn owner_in(id_maps: Option<&(Vec<IdMap>, Vec<IdMap>)>) -> Option<Uid> {
    id_maps.and_then(|(users, _)| host_id_of_root(users)).map(Uid::from_raw)
}

/// Of a user namespace that the child has joined; the pipes become those of its root.
fn meet_owner(pid: Pid, stdio: &[OwnedFd; 3]) -> Result<Option<Uid>, Failure> {
    let maps = maps_of(pid)?;
    give_pipes_to_root(stdio, Some(&maps))?;
    Ok(owner_in(Some(&maps)))
}

/// The id maps of a process's user namespace.
pub fn maps_of(pid: Pid) -> Result<(Vec<IdMap>, Vec<IdMap>), Failure> {
    read_id_maps(pid).map_err(|error| {
        system("read the id maps of the user namespace that is joined", errno_of(&error))
    })
}

/// Where each file goes and what it is called in the staging directory.
fn file_places(files: &[InjectedFile]) -> Result<Vec<(CString, Target)>, Failure> {
    let place = |(index, file): (usize, &InjectedFile)| {
        if file.content.len() > INJECTED_BYTES_MAX {
            return Err(broken(&format!(
                "{} is larger than {INJECTED_BYTES_MAX} bytes",
                file.path
            )));
        }
        let target = Target::new(&file.path, Kind::FileOrDeadLink, "files").map_err(from_spec)?;
        let name = CString::new(format!("f{index}")).expect("digits have no NUL byte");
        Ok((name, target))
    };
    files.iter().enumerate().map(place).collect()
}

fn prepare_root(
    root: RootSource,
    plan: &Plan,
    files: &[InjectedFile],
) -> Result<(Root, Option<Staging>), Failure> {
    match root {
        RootSource::Directory(path) => {
            if !files.is_empty() {
                return Err(broken("files are laid over overlay roots only"));
            }
            let name = CString::new(path.as_os_str().as_encoded_bytes())
                .map_err(|_| system("open the root", Errno::EINVAL))?;
            if plan.mounts_joined {
                return Ok((Root::Joined(name), None));
            }
            let step = format!("clone the mount of the root {}", path.display());
            let tree = clone_tree(AT_FDCWD, &name, true).map_err(|errno| system(&step, errno))?;
            // What is to be shared is so when the root is entered, and not with the host's.
            let propagation = match plan.root_propagation.kind {
                libc::MS_SLAVE => libc::MS_SLAVE,
                _ => libc::MS_PRIVATE,
            };
            let change = Change { propagation, recursive: true, ..Change::default() };
            set_attributes(&tree, change).map_err(|errno| system(&step, errno))?;
            Ok((Root::Tree(tree), None))
        }
        RootSource::Overlay(overlay) => {
            let owner = plan.id_maps.as_ref().and_then(|(users, groups)| {
                Some((host_id_of_root(users)?, host_id_of_root(groups)?))
            });
            let owner = owner.ok_or_else(|| broken("an overlay root needs a user namespace"))?;
            let overlay = OverlayPlan::new(&overlay)?;
            let staging = Staging::enter(overlay, files, owner)?;
            Ok((Root::Overlay(staging.options.clone()), Some(staging)))
        }
    }
}

/// The error number of an I/O error that the kernel gave.
pub fn errno_of(error: &std::io::Error) -> Errno {
    error.raw_os_error().map_or(Errno::EIO, Errno::from_raw)
}

#[cfg(test)]
#[path = "launch_tests.rs"]
mod tests;
