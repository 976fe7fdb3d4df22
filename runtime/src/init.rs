//! The child's life between clone3 and execve: it walks the plan, one call per step, and reports
//! `(step, errno)` when one fails. It does not allocate, lock, log or panic.
//!
//! Order, and why:
//!
//! | step | why here |
//! |---|---|
//! | wait for the parent | only then are the id maps written and the v1 cgroups joined |
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
mod streams;

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::mount::{MntFlags, MsFlags};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd;

use crate::accounts::{self, LookupError};
use crate::hooks::inside;
use crate::plan::{Plan, ProcessPlan, Streams, UserPlan};
use crate::rootfs::build;
use crate::sys::{exec, fd, mount_api, prctl, process};

/// Where in its life a child was; [`crate::launch`] has the words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Stage {
    /// Not a failure: everything is built.
    Ready,
    Wait,
    Session,
    BecomeRoot,
    Join,
    CgroupNamespace,
    Keyring,
    Propagation,
    Root,
    Overlay,
    Mount,
    Sysctl,
    ReadOnlyPath,
    Mask,
    ReadOnlyRoot,
    Pivot,
    Hostname,
    Domainname,
    Loopback,
    UnknownUser,
    UnknownGroup,
    Passwd,
    Group,
    Home,
    Stdio,
    Terminal,
    Console,
    Descriptors,
    Cwd,
    CwdOutside,
    Bounding,
    Groups,
    GroupId,
    UserId,
    Capabilities,
    Ambient,
    NoNewPrivileges,
    AppArmor,
    Program,
    Seccomp,
    Execute,
    /// Not a failure: the mounts are made, and the root is entered when the parent says so.
    Held,
    /// A hook could not be run.
    Hook,
    /// A hook has failed; in place of an error number its exit status, or minus the signal that ended it.
    HookFailed,
    HookSlow,
    Personality,
    MemoryPolicy,
    /// Not a failure: a filter is about to be loaded, whose listener will be the descriptor `index`.
    Listener,
}

/// All stages, by number.
const STAGES: [Stage; 48] = [
    Stage::Ready,
    Stage::Wait,
    Stage::Session,
    Stage::BecomeRoot,
    Stage::Join,
    Stage::CgroupNamespace,
    Stage::Keyring,
    Stage::Propagation,
    Stage::Root,
    Stage::Overlay,
    Stage::Mount,
    Stage::Sysctl,
    Stage::ReadOnlyPath,
    Stage::Mask,
    Stage::ReadOnlyRoot,
    Stage::Pivot,
    Stage::Hostname,
    Stage::Domainname,
    Stage::Loopback,
    Stage::UnknownUser,
    Stage::UnknownGroup,
    Stage::Passwd,
    Stage::Group,
    Stage::Home,
    Stage::Stdio,
    Stage::Terminal,
    Stage::Console,
    Stage::Descriptors,
    Stage::Cwd,
    Stage::CwdOutside,
    Stage::Bounding,
    Stage::Groups,
    Stage::GroupId,
    Stage::UserId,
    Stage::Capabilities,
    Stage::Ambient,
    Stage::NoNewPrivileges,
    Stage::AppArmor,
    Stage::Program,
    Stage::Seccomp,
    Stage::Execute,
    Stage::Held,
    Stage::Hook,
    Stage::HookFailed,
    Stage::HookSlow,
    Stage::Personality,
    Stage::MemoryPolicy,
    Stage::Listener,
];

/// What a child says: where it is, which item of that stage's list, and what the kernel answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Where.
    pub stage: Stage,
    /// Which item, 0 where there is no list.
    pub index: u16,
    /// The error.
    pub errno: i32,
}

/// Bytes of a [`Report`] on the socket: stage, index, errno.
pub const REPORT_BYTES: usize = 8;

impl Report {
    fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let mut bytes = [0; REPORT_BYTES];
        bytes[..2].copy_from_slice(&(self.stage as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.index.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.errno.to_ne_bytes());
        bytes
    }

    /// The report that these bytes are, if they are one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; REPORT_BYTES] = bytes.try_into().ok()?;
        let number = u16::from_ne_bytes([bytes[0], bytes[1]]);
        Some(Self {
            stage: *STAGES.get(usize::from(number))?,
            index: u16::from_ne_bytes([bytes[2], bytes[3]]),
            errno: i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
    }
}

/// Says at which stage a call failed.
pub trait At<T> {
    /// At a stage without a list.
    fn at(self, stage: Stage) -> Result<T, Report>;
    /// At one item of a stage's list.
    fn at_index(self, stage: Stage, index: usize) -> Result<T, Report>;
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, stage: Stage) -> Result<T, Report> {
        self.at_index(stage, 0)
    }

    fn at_index(self, stage: Stage, index: usize) -> Result<T, Report> {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        self.map_err(|errno| Report { stage, index, errno: errno as i32 })
    }
}

/// Where the root comes from, on the child's side.
pub enum Root {
    /// A detached mount, attached over the working directory and then pivoted to.
    Tree(OwnedFd),
    /// Overlay options; the working directory is the staging directory.
    Overlay(std::ffi::CString),
}

/// What a child has besides its plan.
pub struct Wiring {
    /// The child's end: go, ready, and (without a gate) start.
    pub parent: OwnedFd,
    /// A listening socket on which the start comes.
    pub gate: Option<OwnedFd>,
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
    if plan.id_maps.is_some() {
        become_root()?;
    }
    if plan.cgroup_namespace {
        nix::sched::unshare(nix::sched::CloneFlags::CLONE_NEWCGROUP).at(Stage::CgroupNamespace)?;
    }
    new_keyring()?;
    let none = None::<&CStr>;
    nix::mount::mount(none, c"/", none, MsFlags::MS_REC | MsFlags::MS_SLAVE, none)
        .at(Stage::Propagation)?;
    let root = open_root(root, plan)?;
    if plan.held {
        hold(wiring.parent.as_fd())?;
    }
    unistd::fchdir(&root).at(Stage::Pivot)?;
    inside::run(&plan.create_hooks, inside::Held { umask: 0o022, filter: None })?;
    pivot()?;
    drop(root);
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

/// A session and default signals of its own; then waits until the parent has done its part.
fn begin(wiring: &Wiring) -> Result<(), Report> {
    prctl::not_dumpable().at(Stage::Session)?;
    process::default_signals();
    let none = nix::sys::signal::SigSet::empty();
    none.thread_set_mask().at(Stage::Session)?;
    unistd::setsid().at(Stage::Session)?;
    // What is made on the way is made with the mode that is written there.
    nix::sys::stat::umask(Mode::empty());
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
    let (user, group) = (unistd::Uid::from_raw(0), unistd::Gid::from_raw(0));
    unistd::setresgid(group, group, group).at(Stage::BecomeRoot)?;
    unistd::setresuid(user, user, user).at(Stage::BecomeRoot)
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
    }
}

/// Makes the working directory the root of the mount namespace. The old root ends up mounted over it and is detached
/// with everything in it (pivot_root(2), "pivot_root(".", ".")").
fn pivot() -> Result<(), Report> {
    unistd::pivot_root(c".", c".").at(Stage::Pivot)?;
    nix::mount::umount2(c".", MntFlags::MNT_DETACH).at(Stage::Pivot)?;
    unistd::chdir(c"/").at(Stage::Pivot)
}

fn bring_loopback_up() -> nix::Result<()> {
    use nix::sys::socket::{AddressFamily, SockFlag, SockType, socket};
    let socket = socket(AddressFamily::Inet, SockType::Datagram, SockFlag::SOCK_CLOEXEC, None)?;
    process::loopback_up(&socket)
}

/// From a built (or joined) container to execve; gives what failed.
fn finish(plan: &mut ProcessPlan, wiring: &Wiring) -> Report {
    match prepare(plan, wiring) {
        Err(report) => report,
        Ok(program) => release(plan, wiring, program),
    }
}

/// Everything before the pause; gives the place of the program among the candidates.
fn prepare(plan: &mut ProcessPlan, wiring: &Wiring) -> Result<usize, Report> {
    let (user, group, named) = match &plan.user {
        UserPlan::Numbers { user, group, .. } => (*user, *group, None),
        UserPlan::Named(request) => {
            let account = accounts::look_up(request).map_err(lookup_report)?;
            (account.user, account.group, Some(account))
        }
    };
    if plan.home_wanted {
        let home = named.as_ref().map_or(&b"/"[..], |account| match account.home_length {
            0 => b"/",
            length => &account.home[..length],
        });
        plan.environment.set_late([b"HOME=", home]).at(Stage::Home)?;
    }
    match plan.streams {
        Streams::Given => streams::place(&wiring.stdio, user).at(Stage::Stdio)?,
        terminal => streams::make_terminal(wiring.parent.as_fd(), user, terminal)?,
    }
    streams::close_the_rest(wiring, plan.preserved).at(Stage::Descriptors)?;
    enter_directory(plan)?;
    nix::sys::stat::umask(Mode::from_bits_truncate(plan.umask));
    let groups = match (&plan.user, &named) {
        (UserPlan::Numbers { groups, .. }, _) => &groups[..],
        (UserPlan::Named(_), Some(account)) => &account.groups[..account.group_count],
        (UserPlan::Named(_), None) => &[],
    };
    let mut capabilities = plan.capabilities.thread;
    if named.is_some() && user != 0 {
        // What an ordinary program of that user is left with by execve. no_new_privs keeps a file's
        // capabilities from adding to the permitted set, so none may be in it that the user has not.
        capabilities.permitted &= plan.capabilities.ambient;
        capabilities.effective = capabilities.permitted;
    }
    plan.attributes.set()?;
    change_user(plan, wiring.parent.as_fd(), (user, group), groups, capabilities)?;
    if let Some(words) = &plan.apparmor {
        enter_profile(words).at(Stage::AppArmor)?;
    }
    find_program(&plan.candidates)
}

/// Names the AppArmor profile that execve enters. From unconfined this holds under no_new_privs too
/// (the kernel's apparmor/domain.c refuses only what would widen). The file is the process's own, by
/// whatever user; `/proc` is the container's, fresh.
fn enter_profile(words: &CStr) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let file = nix::fcntl::open(c"/proc/thread-self/attr/apparmor/exec", flags, Mode::empty())?;
    // Not a file of the image's that stands where there is no proc.
    if fstatfs(&file)?.filesystem_type() != PROC_SUPER_MAGIC {
        return Err(Errno::EOPNOTSUPP);
    }
    let bytes = words.to_bytes();
    match unistd::write(&file, bytes)? {
        written if written == bytes.len() => Ok(()),
        _ => Err(Errno::EIO),
    }
}

fn lookup_report(error: LookupError) -> Report {
    let (stage, errno) = match error {
        LookupError::UnknownUser => (Stage::UnknownUser, Errno::ENOENT),
        LookupError::UnknownGroup => (Stage::UnknownGroup, Errno::ENOENT),
        LookupError::Passwd(errno) => (Stage::Passwd, errno),
        LookupError::Group(errno) => (Stage::Group, errno),
    };
    Report { stage, index: 0, errno: errno as i32 }
}

/// Enters the working directory without magic links, making it if absent, and checks that it is
/// inside the root (CVE-2024-21626).
fn enter_directory(plan: &ProcessPlan) -> Result<(), Report> {
    let directory = match open_directory(&plan.cwd) {
        Err(Errno::ENOENT) => {
            for parent in &plan.cwd_parents {
                match unistd::mkdir(parent.as_c_str(), Mode::from_bits_truncate(0o755)) {
                    Ok(()) | Err(Errno::EEXIST) => {}
                    Err(errno) => return Err(errno).at(Stage::Cwd),
                }
            }
            open_directory(&plan.cwd)
        }
        other => other,
    };
    unistd::fchdir(directory.at(Stage::Cwd)?).at(Stage::Cwd)?;
    exec::cwd_is_inside_root().at(Stage::CwdOutside)
}

fn open_directory(path: &CStr) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC)
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    openat2(AT_FDCWD, path, how)
}

fn change_user(
    plan: &ProcessPlan,
    parent: BorrowedFd<'_>,
    (user, group): (u32, u32),
    groups: &[u32],
    capabilities: prctl::Capabilities,
) -> Result<(), Report> {
    for capability in 0..plan.capabilities_known {
        if plan.capabilities.bounding & (1 << capability) == 0 {
            prctl::drop_bounding(capability).at(Stage::Bounding)?;
        }
    }
    if !plan.no_new_privileges {
        // Without no_new_privs a filter needs CAP_SYS_ADMIN (seccomp(2)), which goes below.
        plan.seccomp.as_ref().map_or(Ok(()), |filter| filter::load(filter, parent))?;
    }
    process::set_groups(groups).at(Stage::Groups)?;
    let group = unistd::Gid::from_raw(group);
    unistd::setresgid(group, group, group).at(Stage::GroupId)?;
    prctl::keep_capabilities().at(Stage::UserId)?;
    let user = unistd::Uid::from_raw(user);
    unistd::setresuid(user, user, user).at(Stage::UserId)?;
    prctl::clear_ambient().at(Stage::Ambient)?;
    prctl::set_capabilities(capabilities).at(Stage::Capabilities)?;
    for capability in 0..plan.capabilities_known {
        if plan.capabilities.ambient & (1 << capability) != 0 {
            prctl::raise_ambient(capability).at(Stage::Ambient)?;
        }
    }
    // A change of user makes the process dumpable by its new user's rules; it stays closed until execve.
    prctl::not_dumpable().at(Stage::UserId)?;
    if plan.no_new_privileges {
        prctl::no_new_privileges().at(Stage::NoNewPrivileges)?;
    }
    Ok(())
}

/// The first candidate that is a file and may be executed by the user.
fn find_program(candidates: &[std::ffi::CString]) -> Result<usize, Report> {
    let mut answer = Errno::ENOENT;
    for (index, path) in candidates.iter().enumerate() {
        let executable = unistd::faccessat(
            AT_FDCWD,
            path.as_c_str(),
            unistd::AccessFlags::X_OK,
            AtFlags::AT_EACCESS,
        );
        let facts = executable.and_then(|()| fstatat(AT_FDCWD, path.as_c_str(), AtFlags::empty()));
        match facts {
            Ok(facts)
                if SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT == SFlag::S_IFREG =>
            {
                return Ok(index);
            }
            Ok(_) => answer = Errno::EACCES,
            Err(Errno::ENOENT | Errno::ENOTDIR) => {}
            Err(errno) => answer = errno,
        }
    }
    Err(answer).at(Stage::Program)
}

/// Says "ready", pauses, and runs the program when it is let. Reports of what fails after the pause
/// go to whoever has ended it.
fn release(plan: &ProcessPlan, wiring: &Wiring, program: usize) -> Report {
    let ready = Report { stage: Stage::Ready, index: 0, errno: 0 };
    if unistd::write(&wiring.parent, &ready.to_bytes()).is_err() {
        process::exit_now(2);
    }
    let starter = match &wiring.gate {
        None => None,
        Some(gate) => match exec::accept(gate) {
            Ok(starter) => Some(starter),
            Err(_) => process::exit_now(2),
        },
    };
    let to = starter.as_ref().map_or(wiring.parent.as_fd(), AsFd::as_fd);
    if wait_for_byte(to).is_err() {
        process::exit_now(2);
    }
    let report = match last_steps(plan, to) {
        Err(report) => report,
        Ok(()) => {
            let errno =
                exec::execute(&plan.candidates[program], &plan.arguments, &plan.environment);
            Report { stage: Stage::Execute, index: 0, errno: errno as i32 }
        }
    };
    leave(report, to)
}

/// Hooks are under the filter that the program will be under. Where a listener decides about calls, it
/// has to be there for theirs.
fn last_steps(plan: &ProcessPlan, to: BorrowedFd<'_>) -> Result<(), Report> {
    fd::close_on_exec_from(3 + plan.preserved).at(Stage::Descriptors)?;
    let umask = plan.umask;
    match plan.seccomp.as_ref().filter(|_| plan.no_new_privileges) {
        Some(filter) if filter.listens() => {
            filter::load(filter, to)?;
            inside::run(&plan.start_hooks, inside::Held { umask, filter: None })
        }
        filter => {
            inside::run(&plan.start_hooks, inside::Held { umask, filter })?;
            filter.map_or(Ok(()), |filter| filter::load(filter, to))
        }
    }
}
