//! From a built (or joined) container to execve: user, privileges, the pause, the program.
//!
//! Runs between clone3 and execve: nothing here allocates, locks, logs or panics.

use std::ffi::CStr;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, AtFlags, OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstatat};
use nix::sys::statfs::{PROC_SUPER_MAGIC, fstatfs};
use nix::unistd;

use super::{At, Report, Stage, Wiring, filter, leave, streams, wait_for_byte};
use crate::accounts::{self, LookupError};
use crate::hooks::inside;
use crate::plan::{ProcessPlan, Streams, UserPlan};
use crate::sys::{exec, fd, prctl, process};

/// Walks the rest of the way; gives what failed.
pub(super) fn finish(plan: &mut ProcessPlan, wiring: &Wiring) -> Report {
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
    process::set_group(group).at(Stage::GroupId)?;
    prctl::keep_capabilities().at(Stage::UserId)?;
    process::set_user(user).at(Stage::UserId)?;
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
