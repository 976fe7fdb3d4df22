//! The seam through which every container is begun: by the monitor and by the OCI command line alike.
//!
//! [`create`] plans in the caller (all text, descriptors, mount steps and filter bytes), clones the
//! child into its namespaces, and returns when the child has built everything and waits.
//! [`Created::start`] lets it run the program. A child that is never started ends when [`Created`]
//! is dropped (its socket hangs up), so a caller that dies leaves no waiting container behind.
//!
//! The caller must be root, single-threaded, and run from a sealed copy of its binary
//! ([`crate::sys::memfd::ensure_sealed`]): what a container sees as `/proc/1/exe` is that copy.

use std::ffi::CString;
use std::fs::File;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::path::{Path, PathBuf};

use berth_runtime::record::Failure;
use nix::errno::Errno;
use nix::fcntl::AT_FDCWD;
use nix::sys::socket::{AddressFamily, SockFlag, SockType, socketpair};
use nix::sys::stat::{SFlag, fstat};
use nix::sys::wait::{Id, WaitPidFlag, waitid};
use nix::unistd::{Gid, Pid, Uid, fchown, read, write};
use oci_spec::runtime::Spec;

use crate::accounts;
use crate::failure::{Words, broken, from_spec, system};
use crate::hooks::inside::Inside;
use crate::init::{REPORT_BYTES, Report, Root, Stage, Wiring};
use crate::namespace::{IdMap, write_id_maps};
use crate::owner::Acting;
use crate::plan::{self, Plan, ProcessPlan, Streams, UserPlan};
use crate::rlimit::{self, Limit};
use crate::rootfs::cgroups::OwnCgroup;
use crate::rootfs::staging::{OverlayPlan, Staging};
use crate::rootfs::standing::Standing;
use crate::rootfs::target::{Kind, Target};
use crate::seccomp::listener::Listener;
use crate::sys::clone3::{CloneFlags, Forked, clone3};
use crate::sys::mount_api::{Change, clone_tree, set_attributes};
use crate::sys::process;
use crate::timing;

/// All that a container is launched with.
pub struct Launch<'a> {
    /// The OCI configuration, from [`crate::profile`] or a bundle. Its `root.path` is not read;
    /// relative sources of bind mounts start at the working directory.
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
    /// The same in each tree, for a configuration that mounts cgroups without a namespace for them.
    pub own_cgroups: Vec<OwnCgroup>,
    /// Small files over what the image has (`/etc/hosts` and the like); with an overlay root only.
    pub files: Vec<InjectedFile>,
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
        root,
        stdio,
        user,
        cgroup,
        own_cgroups,
        files,
        gate,
        before_root,
        hooks,
        listener,
        preserved,
    } = launch;
    let process = spec.process().as_ref().ok_or(crate::spec::SpecError::Missing("process"));
    let process = process.map_err(from_spec)?;
    let user = match user {
        User::FromSpec => plan::user_from_spec(process),
        User::Named(text) => UserPlan::Named(accounts::Request::parse(&text).map_err(from_user)?),
    };
    let places = file_places(&files)?;
    let mut plan =
        plan::plan(spec, user, (Path::new(""), &own_cgroups), places).map_err(from_spec)?;
    plan.process.preserved = preserved;
    plan.held = before_root.is_some();
    let words = Words::of(&plan).with_hooks(hooks.names);
    (plan.create_hooks, plan.process.start_hooks) = (hooks.create, hooks.start);
    give_pipes_to_root(&stdio, plan.id_maps.as_ref())?;
    let (ours, theirs) =
        socketpair(AddressFamily::Unix, SockType::SeqPacket, None, SockFlag::SOCK_CLOEXEC)
            .map_err(|errno| system("make a socket pair", errno))?;
    let stdio = stdio.map(above_stdio);
    let [input, output, error] = stdio;
    let wiring = Wiring { parent: theirs, gate, stdio: [input?, output?, error?] };
    timing::done("plan");
    let standing = Standing::in_root(&root)?;
    let (root, staging) = prepare_root(root, &plan, &files)?;
    timing::done("layers in a private mount namespace");
    let flags = CloneFlags {
        namespaces: plan.namespaces,
        cgroup: cgroup.unified.as_ref().map(AsFd::as_fd),
    };
    let owner = plan.id_maps.as_ref().and_then(|(users, _)| host_id_of_root(users));
    let owner = owner.map(Uid::from_raw);
    let acting = act_as(owner)?;
    let forked = clone3(&flags);
    if let Ok(Forked::Child) = forked {
        if let Some(acting) = acting {
            acting.stay();
        }
        crate::init::run(plan, root, wiring);
    }
    drop((acting, root, wiring, standing));
    if let Some(staging) = staging {
        staging.leave()?;
    }
    timing::done("clone3 into all namespaces");
    let (pid, pidfd) = match forked.map_err(|errno| system("clone into new namespaces", errno))? {
        Forked::Parent { child, pidfd } => (child, pidfd),
        Forked::Child => return Err(broken("a child came back from its own life")),
    };
    let terminal = None;
    let mut birth = Birth { pid, pidfd: Some(pidfd), ours, owner, words, listener, terminal };
    birth.lead(&plan.process, plan.id_maps.as_ref(), &cgroup, before_root)?;
    timing::done("child: overlay, mounts, masks");
    birth.into_created()
}

fn from_user(error: accounts::BadUser) -> Failure {
    use berth_runtime::record::FailureClass;
    Failure::new(FailureClass::Invalid, "container.user", error.to_string())
}

/// A child that is being built; ended and reaped unless it becomes a [`Created`].
pub struct Birth {
    /// The child.
    pub pid: Pid,
    /// The same; taken when it is born.
    pub pidfd: Option<OwnedFd>,
    /// The parent's end of the socket between them.
    pub ours: OwnedFd,
    /// Whose its user namespace is.
    pub owner: Option<Uid>,
    /// For its reports.
    pub words: Words,
    /// For its filter.
    pub listener: Option<Listener>,
    /// The master of its terminal, once it has made one.
    pub terminal: Option<OwnedFd>,
}

impl Birth {
    /// Does the parent's part, and waits until the child has done its own.
    pub fn lead(
        &mut self,
        process: &ProcessPlan,
        id_maps: Option<&(Vec<IdMap>, Vec<IdMap>)>,
        cgroup: &CgroupEntry,
        before_root: Option<&BeforeRoot<'_>>,
    ) -> Result<(), Failure> {
        let pid = self.pid;
        for procs in &cgroup.procs {
            write(procs, pid.to_string().as_bytes())
                .map_err(|errno| system("write to cgroup.procs", errno))?;
        }
        timing::done("into the v1 cgroups");
        if let Some(value) = process.oom_score_adj {
            let path = format!("/proc/{pid}/oom_score_adj");
            std::fs::write(&path, value.to_string())
                .map_err(|error| system(&format!("write {value} to {path}"), errno_of(&error)))?;
        }
        if let Some((users, groups)) = id_maps {
            write_id_maps(pid, users, groups)
                .map_err(|error| system("write the user namespace's id maps", errno_of(&error)))?;
        }
        write(&self.ours, &[1]).map_err(|errno| system("release the child", errno))?;
        if let Some(act) = before_root {
            self.hold(act)?;
        }
        if process.streams != Streams::Given {
            self.receive_terminal()?;
        }
        match self.receive_past_filter()? {
            Some(Report { stage: Stage::Ready, .. }) => {
                process.scheduling.set(pid)?;
                // Now, so that a small limit does not hinder the building; and as the owner, since a
                // host's root that lacks CAP_SYS_RESOURCE may set only what is its own.
                let _acting = act_as(self.owner)?;
                rlimit::set(pid, &process.limits).map_err(|(limit, errno)| {
                    let Limit { kind, soft, hard, .. } = limit;
                    system(&format!("set {kind:?} to {soft}:{hard}"), errno)
                })
            }
            Some(report) => Err(self.words.describe(report)),
            None => Err(broken("the first process ended while the container was being built")),
        }
    }

    /// The child's report, once the listener of a filter that it loads now has been served.
    fn receive_past_filter(&self) -> Result<Option<Report>, Failure> {
        let pidfd = self.pidfd.as_ref().ok_or_else(|| broken("the child's descriptor is gone"))?;
        receive_past_filter(&self.ours, self.listener.as_ref(), (self.pid, pidfd.as_fd()))
    }

    /// Lets the caller act while the child waits before its root.
    fn hold(&self, act: &BeforeRoot<'_>) -> Result<(), Failure> {
        match receive(&self.ours)? {
            Some(Report { stage: Stage::Held, errno: 0, .. }) => act(self.pid)?,
            Some(report) => return Err(self.words.describe(report)),
            None => return Err(broken("the process ended while it was being made")),
        }
        write(&self.ours, &[1]).map_err(|errno| system("release the child", errno)).map(drop)
    }

    /// The child's message with the master of its terminal, or what it failed at before that.
    fn receive_terminal(&mut self) -> Result<(), Failure> {
        let (bytes, mut fds) = loop {
            match berth_runtime::receive_message(&self.ours) {
                Err(Errno::EINTR) => {}
                Err(Errno::ECONNRESET) => break (Vec::new(), Vec::new()),
                other => break other.map_err(|errno| system("read the child's report", errno))?,
            }
        };
        match (Report::from_bytes(&bytes), fds.pop()) {
            (Some(Report { stage: Stage::Terminal, errno: 0, .. }), Some(master)) => {
                self.terminal = Some(master);
                Ok(())
            }
            (Some(report), _) => Err(self.words.describe(report)),
            (None, _) => Err(broken("the process ended while it was being made")),
        }
    }

    fn into_created(mut self) -> Result<Created, Failure> {
        let path = format!("/proc/{}/ns/net", self.pid);
        let network =
            File::open(&path).map_err(|error| system(&format!("open {path}"), errno_of(&error)))?;
        let gate = self.ours.try_clone().map_err(|error| system("copy", errno_of(&error)))?;
        let pidfd = self.pidfd.take().ok_or_else(|| broken("the child's descriptor is gone"))?;
        Ok(Created {
            pid: self.pid,
            pidfd,
            network_namespace: network.into(),
            terminal: self.terminal.take(),
            gate: Some(gate),
            words: std::mem::take(&mut self.words),
            listener: self.listener.take(),
        })
    }
}

impl Drop for Birth {
    fn drop(&mut self) {
        let Some(pidfd) = &self.pidfd else { return };
        // A child that has reported ends by itself; both calls fail only when it is gone already.
        if process::pidfd_send_signal(pidfd, libc::SIGKILL).is_ok() {
            while let Err(Errno::EINTR) = waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED) {}
        }
    }
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

/// A report as by [`receive`]; serves the listener of a filter that the process loads before it.
fn receive_past_filter(
    socket: &OwnedFd,
    listener: Option<&Listener>,
    process: (Pid, BorrowedFd<'_>),
) -> Result<Option<Report>, Failure> {
    match (receive(socket)?, listener) {
        (Some(Report { stage: Stage::Listener, index, errno: 0 }), Some(listener)) => {
            if listener.serve(process, index, socket)? {
                write(socket, &[1]).map_err(|errno| system("release the process", errno))?;
            }
            receive(socket)
        }
        (report, _) => Ok(report),
    }
}

/// A report, or nothing when the child's end is closed.
pub fn receive(socket: &OwnedFd) -> Result<Option<Report>, Failure> {
    let mut bytes = [0; REPORT_BYTES + 1];
    loop {
        return match read(socket, &mut bytes) {
            Err(Errno::EINTR) => continue,
            // A child that dies with our byte unread resets the connection.
            Ok(0) | Err(Errno::ECONNRESET) => Ok(None),
            Err(errno) => Err(system("read the child's report", errno)),
            Ok(length) => match Report::from_bytes(&bytes[..length]) {
                Some(report) => Ok(Some(report)),
                None => Err(broken("the child's report is none")),
            },
        };
    }
}

/// The same open file at a number that the child's stdio does not overwrite.
pub fn above_stdio(fd: OwnedFd) -> Result<OwnedFd, Failure> {
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

fn act_as(owner: Option<Uid>) -> Result<Option<Acting>, Failure> {
    let acting = owner.map(Acting::as_user).transpose();
    acting.map_err(|errno| system("act as the user namespace's owner", errno))
}

/// What the container's root is on the host.
pub fn host_id_of_root(maps: &[IdMap]) -> Option<u32> {
    maps.iter().find(|map| map.inside == 0).map(|map| map.outside)
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
            let step = format!("clone the mount of the root {}", path.display());
            let tree = clone_tree(AT_FDCWD, &name, true).map_err(|errno| system(&step, errno))?;
            let change =
                Change { propagation: libc::MS_PRIVATE, recursive: true, ..Change::default() };
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
