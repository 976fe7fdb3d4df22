//! What went wrong, in words: a child's `(stage, errno)` becomes a sentence here, in the parent.

use berth_runtime::record::{Failure, FailureClass};
use nix::errno::Errno;
use serde::{Deserialize, Serialize};

use crate::files::FileError;
use crate::init::{Report, Stage};
use crate::plan::Plan;
use crate::spec::SpecError;

/// Characters of a program's name that a failure shows: it may be as long as a message.
const NAME_CHARS_MAX: usize = 200;

/// The names of what a plan works on.
#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub struct Words {
    mounts: Vec<String>,
    sysctls: Vec<String>,
    read_only: Vec<String>,
    masked: Vec<String>,
    #[serde(default)]
    hooks: Vec<String>,
    program: String,
    cwd: String,
}

impl Words {
    /// Those of a container.
    pub fn of(plan: &Plan) -> Self {
        let text = |value: &std::ffi::CString| value.to_string_lossy().into_owned();
        Self {
            mounts: plan.mounts.steps.iter().map(|step| step.label.clone()).collect(),
            sysctls: plan.mounts.sysctls.iter().map(|sysctl| text(&sysctl.path)).collect(),
            read_only: plan.mounts.read_only.iter().map(text).collect(),
            masked: plan.mounts.masked.iter().map(text).collect(),
            ..Self::of_process(&plan.process)
        }
    }

    /// Those of a process.
    pub fn of_process(plan: &crate::plan::ProcessPlan) -> Self {
        let program = plan.arguments.strings().first();
        Self {
            program: program.map(|name| name.to_string_lossy().into_owned()).unwrap_or_default(),
            cwd: plan.cwd.to_string_lossy().into_owned(),
            ..Self::default()
        }
    }

    /// With the names of hooks in the container's namespaces.
    pub fn with_hooks(self, hooks: Vec<String>) -> Self {
        Self { hooks, ..self }
    }

    /// The sentence for a report.
    pub fn describe(&self, report: Report) -> Failure {
        let errno = Errno::from_raw(report.errno);
        let at = |list: &[String]| {
            list.get(usize::from(report.index)).cloned().unwrap_or_else(|| "?".to_owned())
        };
        match report.stage {
            Stage::Program | Stage::Execute => self.program(errno),
            Stage::Cwd if errno == Errno::ELOOP => invalid(
                "container.working-directory",
                format!("enter {}: it leads through a magic or endless link", self.cwd),
            ),
            Stage::Cwd => invalid(
                "container.working-directory",
                format!("enter {}: {}", self.cwd, errno.desc()),
            ),
            Stage::CwdOutside => invalid(
                "container.working-directory",
                format!("{} is outside of the container", self.cwd),
            ),
            Stage::UnknownUser => {
                invalid("container.user", "the user is not in the image's /etc/passwd".to_owned())
            }
            Stage::UnknownGroup => {
                invalid("container.user", "the group is not in the image's /etc/group".to_owned())
            }
            Stage::UserId | Stage::GroupId | Stage::Groups if errno == Errno::EINVAL => invalid(
                "container.user",
                "the user or a group is not among the ids of the container".to_owned(),
            ),
            Stage::Passwd => {
                invalid("container.user", format!("read /etc/passwd: {}", file(errno)))
            }
            Stage::Group => invalid("container.user", format!("read /etc/group: {}", file(errno))),
            Stage::Mount => mount(&at(&self.mounts), errno),
            Stage::Sysctl => system(&format!("write {}", at(&self.sysctls)), errno),
            Stage::ReadOnlyPath => {
                system(&format!("make {} read-only", at(&self.read_only)), errno)
            }
            Stage::Mask => system(&format!("mask {}", at(&self.masked)), errno),
            Stage::MemoryPolicy => memory_policy(errno),
            Stage::Hook => system(&format!("run {}", at(&self.hooks)), errno),
            Stage::HookFailed => {
                let end = match report.errno {
                    status @ 0.. => format!("exit status {status}"),
                    signal => format!("ended by signal {}", -signal),
                };
                broken(&format!("run {}: {end}", at(&self.hooks)))
            }
            Stage::HookSlow => {
                broken(&format!("run {}: not at its end in time, killed", at(&self.hooks)))
            }
            stage => system(plain(stage), errno),
        }
    }

    fn program(&self, errno: Errno) -> Failure {
        let name: String = self.program.chars().take(NAME_CHARS_MAX).collect();
        match errno {
            // No file has a name that is too long to be looked up.
            Errno::ENOENT | Errno::ENOTDIR | Errno::ENAMETOOLONG | Errno::ELOOP => {
                // "no such file or directory" and "permission denied" are what engines tell 127 and 126 by.
                let text = format!(
                    "run {name:?}: no such file or directory: the program or the interpreter that it \
                     names is not in the container"
                );
                invalid("container.program-not-found", text)
            }
            Errno::EACCES | Errno::EPERM => {
                let text = format!("run {name:?}: permission denied: the user may not execute it");
                invalid("container.program-not-executable", text)
            }
            Errno::ENOEXEC => {
                let text = format!("run {name:?}: it is no program for this machine");
                invalid("container.program-not-executable", text)
            }
            errno => system(&format!("run {name:?}"), errno),
        }
    }
}

fn memory_policy(errno: Errno) -> Failure {
    match errno {
        // set_mempolicy(2).
        Errno::EINVAL => invalid(
            "container.config",
            "set linux.memoryPolicy: mode, flags and nodes do not go together, or the nodes are not the \
             container's (linux.resources.cpu.mems)"
                .to_owned(),
        ),
        errno => system("set linux.memoryPolicy", errno),
    }
}

fn mount(label: &str, errno: Errno) -> Failure {
    match errno {
        Errno::EEXIST if label.starts_with("linux.devices") => {
            invalid("container.mount-target", format!("make {label}: something else is there"))
        }
        Errno::EPERM if label.starts_with("linux.devices") => invalid(
            "container.device",
            format!("make {label}: it may not be made here, and the host has no such node to bind"),
        ),
        // EEXIST: a link that leads nowhere.
        Errno::ELOOP | Errno::ENOTDIR | Errno::EISDIR | Errno::EEXIST => invalid(
            "container.mount-target",
            format!("mount {label}: the target must be an ordinary directory or file, not a link"),
        ),
        Errno::EXDEV => invalid(
            "container.mount-target",
            format!("mount {label}: a link of the image leads into /proc, /sys or /dev"),
        ),
        Errno::EROFS => invalid(
            "container.mount-target",
            format!(
                "mount {label}: the target is not there, and cannot be made in what is read-only"
            ),
        ),
        Errno::E2BIG => invalid(
            "container.mount-target",
            format!(
                "mount {label}: what the image has there is too much, or too deep, to be copied"
            ),
        ),
        Errno::ENAMETOOLONG => invalid(
            "container.mount-target",
            format!("mount {label}: a part of the target is longer than 255 bytes"),
        ),
        errno => system(&format!("mount {label}"), errno),
    }
}

fn file(errno: Errno) -> &'static str {
    match errno {
        Errno::EFBIG => "it is too large",
        Errno::EINVAL => "it is not an ordinary file",
        Errno::ELOOP => "it leads through a magic or endless link",
        other => other.desc(),
    }
}

fn plain(stage: Stage) -> &'static str {
    match stage {
        Stage::Ready | Stage::Wait => "wait for the parent",
        Stage::Cgroups => "enter its cgroups",
        Stage::Session => "begin a session",
        Stage::BecomeRoot => "become root of the user namespace",
        Stage::Join => "join the container's namespaces",
        Stage::CgroupNamespace => "make a cgroup namespace",
        Stage::Keyring => "make a session keyring",
        Stage::Propagation => "separate the mounts from the host's",
        Stage::Root => "attach the root",
        Stage::Overlay => "mount the overlay",
        Stage::ReadOnlyRoot => "make the root read-only",
        Stage::Held => "wait for the hooks",
        Stage::Pivot => "change the root",
        Stage::Hostname => "set the host name",
        Stage::Domainname => "set the domain name",
        Stage::Loopback => "bring the loopback interface up",
        Stage::Home => "set HOME",
        Stage::Stdio => "place standard input, output and error",
        Stage::Terminal => "open a terminal in the container",
        Stage::Console => "bind the terminal at /dev/console",
        Stage::Descriptors => "close descriptors",
        Stage::Bounding => "drop capabilities from the bounding set",
        Stage::Groups => "set supplementary groups",
        Stage::GroupId => "set the group",
        Stage::UserId => "set the user",
        Stage::Capabilities => "set capabilities",
        Stage::Ambient => "set ambient capabilities",
        Stage::NoNewPrivileges => "set no_new_privs",
        Stage::Listener => "wait for the seccomp listener",
        Stage::Personality => "set linux.personality",
        Stage::AppArmor => "name the AppArmor profile",
        Stage::Seccomp => "load the system call filter",
        _ => "build the container",
    }
}

fn invalid(code: &str, message: String) -> Failure {
    Failure::new(FailureClass::Invalid, code, message)
}

/// A configuration that cannot be run.
pub fn from_spec(error: SpecError) -> Failure {
    Failure::new(FailureClass::Invalid, "container.config", error.to_string())
}

/// A call that failed: what was to be done, and what the kernel said.
pub fn system(step: &str, errno: Errno) -> Failure {
    let class = match errno {
        Errno::ENOSPC | Errno::EDQUOT | Errno::ENOMEM | Errno::EMFILE | Errno::ENFILE => {
            FailureClass::Exhausted
        }
        // clone3 in a cgroup that is full, or at the user's process limit.
        Errno::EAGAIN | Errno::EBUSY => FailureClass::Exhausted,
        _ => FailureClass::Broken,
    };
    Failure::new(class, "container.start-failed", format!("{step}: {}", errno.desc()))
}

/// A disk is full.
pub(crate) fn disk_full(error: &FileError) -> Failure {
    Failure::new(FailureClass::Exhausted, "disk.full", format!("the disk is full: {error}"))
}

/// Something that cannot be unless there is a defect.
pub fn broken(message: &str) -> Failure {
    Failure::new(FailureClass::Broken, "container.start-failed", message)
}
