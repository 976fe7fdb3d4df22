//! The child's life between clone3 and execve: it walks the plan, one call per step, and reports
//! `(step, errno)` when one fails. It does not allocate, lock, log or panic.
//!
//! Order, and why:
//!
//! | step | why here |
//! |---|---|
//! | namespaces that are joined | before the clone, by the process between (`launch/between.rs`) |
//! | v1 cgroups | all that follows is counted there (on v2 it is born there) |
//! | wait for the parent | only then are the id maps written |
//! | become root of the user namespace | everything below is done with no power over the host |
//! | cgroup namespace | its root is the cgroup that the child is in at this moment |
//! | session keyring | before anything could ask for keys |
//! | root, mounts, sysctls | sysctls before `/proc/sys` is made read-only |
//! | read-only and masked paths | after every mount, so that none can uncover them |
//! | hooks, if any, the parent's and then our own | the mounts are made, the host's root is still there |
//! | `pivot_root`, detach the old root | from here on no path leads to the host |
//! | names, loopback | need only the new namespaces |
//! | account look-up | in the new root, so that no link can lead to a host file |
//! | stdio or a terminal, other descriptors closed | at the pause nothing of the host is open |
//! | personality, memory policy | before a filter that may refuse them |
//! | user and groups, capabilities, no_new_privs | after all that needs privilege |
//! | AppArmor profile named | execve enters it; what setting up needs is done |
//! | program found, "ready", pause | errors in the configuration show at creation |
//! | hooks of the start | as the program, and under its filter, which is loaded in each before ours |
//! | seccomp, execve | last, so that the filter need not allow what setting up needs |

mod filter;
mod program;
mod report;
mod streams;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::Mode;
use nix::unistd;

use crate::hooks::inside;
use crate::launch::CgroupEntry;
use crate::plan::{Plan, ProcessPlan};
use crate::rootfs::build;
use crate::rootfs::options::Propagation;
use crate::sys::mount_api::{self, Change};
use crate::sys::{prctl, process};

use program::finish;
pub use report::{At, REPORT_BYTES, Report, Stage};

/// Where the root comes from, on the child's side.
pub enum Root {
    /// A detached mount, attached over the working directory and then pivoted to.
    Tree(OwnedFd),
    /// Overlay options; the working directory is the staging directory.
    Overlay(std::ffi::CString),
    /// A directory of the mount namespace that the child has joined.
    Joined(std::ffi::CString),
}

/// What a child has besides its plan.
pub struct Wiring {
    /// The child's end: go, ready, and (without a gate) start.
    pub parent: OwnedFd,
    /// A listening socket on which the start comes.
    pub gate: Option<OwnedFd>,
    /// What it enters its v1 cgroups by.
    pub tasks: Vec<OwnedFd>,
    /// Standard input, output and error, none of them numbered below 3.
    pub stdio: [OwnedFd; 3],
}

/// Runs the first process of a container. Never returns.
pub fn run(mut plan: Plan, root: Root, wiring: Wiring) -> ! {
    let report = match set_up(&plan, root, &wiring) {
        Err(report) => report,
        Ok(()) => finish(&mut plan.process, &wiring),
    };
    leave(report, wiring.parent.as_fd())
}

/// The running container that a later process joins.
pub struct Joining {
    /// Its first process.
    pub pidfd: OwnedFd,
    /// `CLONE_NEW*` of its own namespaces, except pid, in which the child is born.
    pub namespaces: i32,
    /// Whether one of them is a user namespace.
    pub user_namespace: bool,
    /// The container's root where that is not the root of its mount namespace.
    pub root: Option<OwnedFd>,
}

/// Runs a later process of a container. Never returns.
pub fn run_joining(mut plan: ProcessPlan, joining: Joining, wiring: Wiring) -> ! {
    let report = match join(&joining, &wiring) {
        Err(report) => report,
        Ok(()) => finish(&mut plan, &wiring),
    };
    leave(report, wiring.parent.as_fd())
}

/// Enters the namespaces all at once, the user namespace being the first of them; the root and the
/// working directory become the container's.
fn join(joining: &Joining, wiring: &Wiring) -> Result<(), Report> {
    begin(wiring)?;
    process::join_namespaces(&joining.pidfd, joining.namespaces).at(Stage::Join)?;
    if let Some(root) = &joining.root {
        unistd::fchdir(root).at(Stage::Pivot)?;
        change_root()?;
    }
    if joining.user_namespace {
        become_root()?;
    }
    new_keyring()
}

/// Reports and ends. When nobody listens the exit status alone has to say it.
fn leave(report: Report, to: BorrowedFd<'_>) -> ! {
    let sent = unistd::write(to, &report.to_bytes()).is_ok();
    process::exit_now(if sent { 1 } else { 2 })
}

fn set_up(plan: &Plan, root: Root, wiring: &Wiring) -> Result<(), Report> {
    begin(wiring)?;
    if plan.user_namespace {
        become_root()?;
    }
    if plan.cgroup_namespace {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP).at(Stage::CgroupNamespace)?;
    }
    new_keyring()?;
    if !plan.mounts_joined {
        let none = None::<&CStr>;
        nix::mount::mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
            .at(Stage::Propagation)?;
    }
    let root = open_root(root, plan)?;
    if plan.held {
        hold(wiring.parent.as_fd())?;
    }
    unistd::fchdir(&root).at(Stage::Pivot)?;
    inside::run(&plan.create_hooks, inside::Held { umask: 0o022, filter: None })?;
    match plan.mounts_joined {
        true => change_root()?,
        false => pivot()?,
    }
    if matches!(plan.root_propagation.kind, libc::MS_SHARED | libc::MS_UNBINDABLE) {
        let Propagation { kind, recursive } = plan.root_propagation;
        let change = Change { propagation: kind, recursive, ..Change::default() };
        mount_api::set_attributes(&root, change).at(Stage::Propagation)?;
    }
    if let Some(name) = &plan.hostname {
        unistd::sethostname(name).at(Stage::Hostname)?;
    }
    if let Some(name) = &plan.domainname {
        process::set_domainname(name).at(Stage::Domainname)?;
    }
    if plan.loopback {
        bring_loopback_up().at(Stage::Loopback)?;
    }
    Ok(())
}

/// A session and default signals of its own, and its v1 cgroups; then waits until the parent has written the
/// id maps.
fn begin(wiring: &Wiring) -> Result<(), Report> {
    prctl::not_dumpable().at(Stage::Session)?;
    process::default_signals();
    let none = nix::sys::signal::SigSet::empty();
    none.thread_set_mask().at(Stage::Session)?;
    unistd::setsid().at(Stage::Session)?;
    // What is made on the way is made with the mode that is written there.
    nix::sys::stat::umask(Mode::empty());
    CgroupEntry::enter(&wiring.tasks).at(Stage::Cgroups)?;
    wait_for_byte(wiring.parent.as_fd()).at(Stage::Wait)
}

/// Says that the mounts are made, and waits for the parent's hooks.
fn hold(parent: BorrowedFd<'_>) -> Result<(), Report> {
    let held = Report { stage: Stage::Held, index: 0, errno: 0 };
    unistd::write(parent, &held.to_bytes()).at(Stage::Held)?;
    wait_for_byte(parent).at(Stage::Held)
}

/// `EPIPE` when the other side hangs up.
fn wait_for_byte(socket: BorrowedFd<'_>) -> nix::Result<()> {
    let mut byte = [0];
    loop {
        match unistd::read(socket, &mut byte) {
            Err(Errno::EINTR) => {}
            Ok(0) => return Err(Errno::EPIPE),
            other => return other.map(drop),
        }
    }
}

fn become_root() -> Result<(), Report> {
    process::set_groups(&[]).at(Stage::BecomeRoot)?;
    process::set_group(0).at(Stage::BecomeRoot)?;
    process::set_user(0).at(Stage::BecomeRoot)
}

/// Kernels without keyrings have nothing to keep apart.
fn new_keyring() -> Result<(), Report> {
    match prctl::new_session_keyring() {
        Err(Errno::ENOSYS) => Ok(()),
        other => other.at(Stage::Keyring),
    }
}

/// Opens the root and builds in it.
fn open_root(root: Root, plan: &Plan) -> Result<OwnedFd, Report> {
    match root {
        Root::Tree(tree) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let top = nix::fcntl::open(c".", flags, Mode::empty()).at(Stage::Root)?;
            mount_api::attach(&tree, &top).at(Stage::Root)?;
            build::build(&plan.mounts, tree.as_fd(), None)?;
            Ok(tree)
        }
        Root::Overlay(options) => {
            let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
            let staging = nix::fcntl::open(c".", flags, Mode::empty()).at(Stage::Root)?;
            let mounted = build::mount_overlay(&options).at(Stage::Overlay)?;
            build::build(&plan.mounts, mounted.as_fd(), Some(staging.as_fd()))?;
            Ok(mounted)
        }
        Root::Joined(path) => {
            let how = OpenHow::new()
                .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
                .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
            let place = openat2(AT_FDCWD, path.as_c_str(), how).at(Stage::Root)?;
            build::build(&plan.mounts, place.as_fd(), None)?;
            Ok(place)
        }
    }
}

/// Makes the working directory the root of the mount namespace. The old root ends up mounted over it and is
/// detached with everything in it (pivot_root(2), "pivot_root(".", ".")").
fn pivot() -> Result<(), Report> {
    unistd::pivot_root(c".", c".").at(Stage::Pivot)?;
    nix::mount::umount2(c".", MntFlags::MNT_DETACH).at(Stage::Pivot)?;
    unistd::chdir(c"/").at(Stage::Pivot)
}

/// In a mount namespace with others the root is the process's own alone (chroot(2)): the working directory.
fn change_root() -> Result<(), Report> {
    unistd::chroot(c".").at(Stage::Pivot)?;
    unistd::chdir(c"/").at(Stage::Pivot)
}

fn bring_loopback_up() -> nix::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    process::loopback_up(&socket)
}
