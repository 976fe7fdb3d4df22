//! A later process in a running container: the same plan of a program, its own child, the container's
//! namespaces, cgroup, filter and protections.

use std::fs::{self, File};
use std::os::fd::{AsFd, AsRawFd, OwnedFd};

use berth_runtime::record::Failure;
use nix::sched::{CloneFlags as Sched, setns};
use nix::unistd::Pid;
use oci_spec::runtime::{LinuxNamespaceType, Process, Spec};

use crate::accounts;
use crate::attributes::Attributes;
use crate::failure::{Words, broken, from_spec, system};
use crate::init::Joining;
use crate::joined;
use crate::launch::{
    Birth, CgroupEntry, User, errno_of, give_pipes_to_root, maps_of, owner_in, release, wire,
};
use crate::plan::{self, Streams, UserPlan};
use crate::scheduling::Affinity;
use crate::seccomp::{self, listener::Listener};
use crate::sys::clone3::{CloneFlags, Forked, clone3};

/// All that a later process is run with.
pub struct Exec<'a> {
    /// The configuration that the container was created with.
    pub spec: &'a Spec,
    /// The program.
    pub process: &'a Process,
    /// Who runs it.
    pub user: User,
    /// Standard input, output and error.
    pub stdio: [OwnedFd; 3],
    /// Whether it gets a terminal of the container's in their place.
    pub terminal: bool,
    /// Descriptors of the caller's from 3 on that the program keeps; all of them are open.
    pub preserved: u32,
    /// Who decides about calls that the container's filter leaves open.
    pub listener: Option<Listener>,
    /// The container's first process.
    pub init: OwnedFd,
    /// The container's cgroup.
    pub cgroup: CgroupEntry,
}

/// A process that is in the container and waits.
pub struct Joined {
    /// Its id, as the caller's pid namespace numbers it. The caller is its parent.
    pub pid: Pid,
    /// The same, as a descriptor.
    pub pidfd: OwnedFd,
    /// The master of its terminal, if it has one.
    pub terminal: Option<OwnedFd>,
    gate: OwnedFd,
    words: Words,
    listener: Option<Listener>,
}

impl Joined {
    /// Lets it run its program, and returns when it does.
    ///
    /// # Errors
    /// The step that failed; the process ends, for the caller to reap.
    pub fn start(&self) -> Result<(), Failure> {
        let process = (self.pid, self.pidfd.as_fd());
        release(&self.gate, &self.words, self.listener.as_ref(), process)
    }
}

/// Puts a process into a container. The caller's later children are born in the container's pid
/// namespace from then on, so it should have no more.
///
/// # Errors
/// A [`Failure`] that names the step; the child is gone and reaped then.
pub fn exec(exec: Exec<'_>) -> Result<Joined, Failure> {
    let Exec { spec, process, user, stdio, terminal, preserved, listener, init, cgroup } = exec;
    let init_pid = pid_of(&init)?;
    let user = match user {
        User::FromSpec => plan::user_from_spec(process),
        User::Named(text) => UserPlan::Named(
            accounts::Request::parse(&text)
                .map_err(|error| from_spec(crate::spec::invalid("user", error)))?,
        ),
    };
    let linux = spec.linux().as_ref();
    let linux = linux.ok_or_else(|| from_spec(crate::spec::SpecError::Missing("linux")))?;
    let filter = linux.seccomp().as_ref().map(seccomp::compile).transpose().map_err(from_spec)?;
    let mut plan = plan::process_plan(process, user, filter).map_err(from_spec)?;
    plan.attributes = Attributes::of(linux).map_err(from_spec)?;
    let affinity = Affinity::of(process).map_err(from_spec)?;
    plan.give_what_is_ours(spec).map_err(from_spec)?;
    plan.streams = if terminal { Streams::Terminal } else { Streams::Given };
    plan.preserved = preserved;
    let words = Words::of_process(&plan);
    let user_namespace = joined::has(spec, LinuxNamespaceType::User);
    let id_maps = match joined::is_joined(spec, LinuxNamespaceType::User) {
        true => Some(maps_of(init_pid)?),
        false => user_namespace.then(|| plan::id_maps_of(linux)),
    };
    let root = joined::is_joined(spec, LinuxNamespaceType::Mount).then(|| root_of(init_pid));
    let root = root.transpose()?;
    give_pipes_to_root(&stdio, id_maps.as_ref())?;
    let (ours, wiring) = wire(stdio, None, cgroup.tasks)?;
    setns(&init, Sched::CLONE_NEWPID)
        .map_err(|errno| system("enter the container's pid namespace", errno))?;
    let joining = Joining { pidfd: init, namespaces: namespaces(spec), user_namespace, root };
    affinity.begin()?;
    let flags =
        CloneFlags { cgroup: cgroup.unified.as_ref().map(AsFd::as_fd), ..CloneFlags::default() };
    let (pid, pidfd) = match clone3(&flags).map_err(|errno| system("clone a process", errno))? {
        Forked::Child => crate::init::run_joining(plan, joining, wiring),
        Forked::Parent { child, pidfd } => (child, pidfd),
    };
    drop((joining, wiring));
    let owner = owner_in(id_maps.as_ref());
    let mut birth = Birth { pid, pidfd: Some(pidfd), ours, owner, words, listener, terminal: None };
    birth.lead(&plan, None, None)?;
    affinity.finish(pid)?;
    let gate = birth.ours.try_clone();
    let gate = gate.map_err(|error| system("copy", errno_of(&error)))?;
    let pidfd = birth.pidfd.take().ok_or_else(|| broken("the child's descriptor is gone"))?;
    let terminal = birth.terminal.take();
    let (words, listener) = (std::mem::take(&mut birth.words), birth.listener.take());
    Ok(Joined { pid, pidfd, terminal, gate, words, listener })
}

/// The container's own namespaces, except pid.
fn namespaces(spec: &Spec) -> i32 {
    let linux = spec.linux().iter().flat_map(|linux| linux.namespaces().iter().flatten());
    let others = linux.filter(|namespace| namespace.typ() != LinuxNamespaceType::Pid);
    others.fold(0, |flags, namespace| flags | namespace.typ() as i32)
}

/// The process behind a descriptor (proc(5), fdinfo), which is -1 once it has been waited for.
fn pid_of(pidfd: &OwnedFd) -> Result<Pid, Failure> {
    let path = format!("/proc/self/fdinfo/{}", pidfd.as_raw_fd());
    let text = fs::read_to_string(&path)
        .map_err(|error| system(&format!("read {path}"), errno_of(&error)))?;
    let number = text.lines().find_map(|line| line.strip_prefix("Pid:")?.trim().parse().ok());
    number.map(Pid::from_raw).ok_or_else(|| broken("the container's first process is gone"))
}

/// Its root directory.
fn root_of(pid: Pid) -> Result<OwnedFd, Failure> {
    let opened = File::open(format!("/proc/{pid}/root")).map(OwnedFd::from);
    opened.map_err(|error| system("open the container's root", errno_of(&error)))
}
