//! What confines a container now, as the kernel shows it of its first process: never what was asked for.
//! Each line is judged against the default profile ([`crate::profile`]).
//!
//! The process's directory in procfs is held open: when the process ends, reads fail, and never show
//! another's.

use std::fs::File;
use std::io::Read as _;
use std::os::fd::OwnedFd;

use nix::fcntl::{OFlag, open, openat};
use nix::sys::stat::{Mode, fstat};

use berth_runtime::config::{RANGE_IDS, RuntimeConfig};
use berth_runtime::record::{Failure, LimitState};
use berth_runtime::wire::{POSTURE_LINES_MAX, PostureLine, PostureWord};

use crate::apparmor;
use crate::capability;
use crate::failure::system;
use crate::people::Person;
use crate::process::ProcessKey;
use crate::profile;

/// Bytes of one of the kernel's files at most.
const FILE_BYTES_MAX: u64 = 256 << 10;
/// Bytes of a value that is shown, at most.
const VALUE_BYTES_MAX: usize = 300;
/// The kernel's seccomp mode with filters (proc_pid_status(5)).
const SECCOMP_FILTER: &str = "2";

/// What a container is, as far as it is known without looking.
pub(crate) struct Known<'a> {
    /// The supervisor's configuration.
    pub(crate) config: &'a RuntimeConfig,
    /// Whose it is.
    pub(crate) person: &'a Person,
    /// Its first process.
    pub(crate) process: &'a ProcessKey,
    /// Its limits when they were set last.
    pub(crate) limits: &'a [LimitState],
}

/// Looks at a container's first process. Nothing when it has ended.
pub(crate) fn look(known: &Known<'_>) -> Result<Option<Vec<PostureLine>>, Failure> {
    let Some(process) = Process::open(known.process)? else { return Ok(None) };
    let Some(seen) = process.read() else { return Ok(None) };
    let mut lines = Vec::new();
    ids(&mut lines, known.person.first_id, &seen);
    capabilities(&mut lines, &seen);
    privileges(&mut lines, known.config, &seen);
    namespaces(&mut lines, &process);
    paths(&mut lines, &process, &seen);
    limits(&mut lines, known.limits);
    mounts(&mut lines, &seen);
    lines.truncate(POSTURE_LINES_MAX);
    // One that has ended meanwhile has shown a part of nothing.
    Ok(process.is_there().then_some(lines))
}

/// A process's directory in procfs.
struct Process {
    directory: OwnedFd,
}

/// Its files, as text.
struct Seen {
    status: String,
    user_map: String,
    group_map: String,
    mounts: Vec<Mount>,
    label: Option<String>,
    oom_score_adj: String,
}

impl Process {
    fn open(key: &ProcessKey) -> Result<Option<Self>, Failure> {
        let path = format!("/proc/{}", key.pid);
        let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
        let directory = match open(path.as_str(), flags, Mode::empty()) {
            Ok(directory) => directory,
            Err(nix::errno::Errno::ENOENT) => return Ok(None),
            Err(errno) => return Err(system(&format!("open {path}"), errno)),
        };
        // Looked at after the directory is held: it is this process's, or one that came later has it.
        Ok(key.open(&key.boot_id).map(|_| Self { directory }))
    }

    fn is_there(&self) -> bool {
        self.file("stat").is_some()
    }

    fn read(&self) -> Option<Seen> {
        Some(Seen {
            status: self.file("status")?,
            user_map: self.file("uid_map")?,
            group_map: self.file("gid_map")?,
            mounts: self.file("mountinfo")?.lines().filter_map(Mount::parse).collect(),
            // Without a security module that labels processes, reading it fails.
            label: self
                .file("attr/current")
                .map(|text| text.trim_end_matches(['\n', '\0']).to_owned()),
            oom_score_adj: self.file("oom_score_adj")?.trim().to_owned(),
        })
    }

    fn file(&self, name: &str) -> Option<String> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let file = openat(&self.directory, name, flags, Mode::empty()).ok()?;
        let mut bytes = Vec::new();
        File::from(file).take(FILE_BYTES_MAX).read_to_end(&mut bytes).ok()?;
        Some(String::from_utf8_lossy(&bytes).into_owned())
    }

    /// Whether a namespace is another one than ours; nothing where the kernel has none of the kind.
    fn owns(&self, kind: &str) -> Option<bool> {
        let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC;
        let theirs = openat(&self.directory, format!("ns/{kind}").as_str(), flags, Mode::empty());
        let ours = open(format!("/proc/self/ns/{kind}").as_str(), flags, Mode::empty());
        let (theirs, ours) = (fstat(theirs.ok()?).ok()?, fstat(ours.ok()?).ok()?);
        Some((theirs.st_dev, theirs.st_ino) != (ours.st_dev, ours.st_ino))
    }

    /// Whether its root has something at a path of the profile's own, which leads through proc and sys
    /// only.
    fn has(&self, path: &str) -> bool {
        let flags = OFlag::O_PATH | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
        openat(&self.directory, format!("root{path}").as_str(), flags, Mode::empty()).is_ok()
    }
}

/// A line of mountinfo (proc_pid_mountinfo(5)).
#[derive(Debug, PartialEq, Eq)]
struct Mount {
    target: String,
    options: String,
    kind: String,
    /// Whether what is mounted there, or on the host, is seen on the other side.
    is_tied: bool,
}

impl Mount {
    fn parse(line: &str) -> Option<Self> {
        let (left, right) = line.split_once(" - ")?;
        let fields: Vec<&str> = left.split(' ').collect();
        let [_, _, _, _, target, options, tags @ ..] = fields.as_slice() else { return None };
        Some(Self {
            target: (*target).to_owned(),
            options: (*options).to_owned(),
            kind: right.split(' ').next()?.to_owned(),
            is_tied: tags
                .iter()
                .any(|tag| tag.starts_with("shared:") || tag.starts_with("master:")),
        })
    }

    fn has(&self, option: &str) -> bool {
        self.options.split(',').any(|found| found == option)
    }
}

impl Seen {
    fn status(&self, name: &str) -> &str {
        let line = self.status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.unwrap_or_default().trim()
    }

    fn mount_at(&self, path: &str) -> Option<&Mount> {
        // What was mounted last lies on top.
        self.mounts.iter().rev().find(|mount| mount.target == path)
    }
}

fn push(
    lines: &mut Vec<PostureLine>,
    id: impl Into<String>,
    word: PostureWord,
    value: impl Into<String>,
    reason: impl Into<String>,
) {
    let mut value = value.into();
    if value.len() > VALUE_BYTES_MAX {
        value.truncate(value.floor_char_boundary(VALUE_BYTES_MAX));
        value.push('…');
    }
    lines.push(PostureLine { id: id.into(), word, value, reason: reason.into() });
}

fn judged(holds: bool) -> PostureWord {
    if holds { PostureWord::Holds } else { PostureWord::Loosened }
}

fn ids(lines: &mut Vec<PostureLine>, first_id: u32, seen: &Seen) {
    for (id, text) in [("user_map", &seen.user_map), ("group_map", &seen.group_map)] {
        let rows: Vec<Vec<&str>> =
            text.lines().map(|line| line.split_whitespace().collect()).collect();
        let own =
            [["0", &first_id.to_string(), &RANGE_IDS.to_string()].map(str::to_owned).to_vec()];
        let holds = rows == own;
        let value: Vec<String> = rows.iter().map(|row| row.join(" ")).collect();
        let reason = match holds {
            true => {
                "root in it, and every other id, is an id of its owner's that is nobody on the host"
            }
            false => "ids in it are not those of its owner's own range",
        };
        push(lines, id, judged(holds), value.join("; "), reason);
    }
}

fn capabilities(lines: &mut Vec<PostureLine>, seen: &Seen) {
    let allowed = profile::capability_bits();
    for (id, name, most, what) in [
        ("capabilities.effective", "CapEff", allowed, "what it can do now"),
        ("capabilities.permitted", "CapPrm", allowed, "what it can turn on"),
        (
            "capabilities.inheritable",
            "CapInh",
            0,
            "what it passes to programs with file capabilities",
        ),
        ("capabilities.bounding", "CapBnd", allowed, "what anything in it can ever gain"),
        ("capabilities.ambient", "CapAmb", 0, "what it passes to any program"),
    ] {
        let bits = u64::from_str_radix(seen.status(name), 16);
        let value =
            bits.as_ref().map_or_else(|_| seen.status(name).to_owned(), |bits| names(*bits));
        let more = bits.map_or(u64::MAX, |bits| bits & !most);
        let reason = match more {
            0 => format!("{what}, over what is its own only; no more than the profile's"),
            more => format!("{what}; more than the profile's by {}", names(more)),
        };
        push(lines, id, judged(more == 0), value, reason);
    }
}

fn names(bits: u64) -> String {
    let names: Vec<String> = (0..64u8)
        .filter(|number| bits & (1 << number) != 0)
        .map(|number| capability::name(number).map_or(number.to_string(), str::to_owned))
        .collect();
    if names.is_empty() { "none".to_owned() } else { names.join(" ") }
}

fn privileges(lines: &mut Vec<PostureLine>, config: &RuntimeConfig, seen: &Seen) {
    let no_new = seen.status("NoNewPrivs") == "1";
    let reason = match no_new {
        true => "no program gains privileges by its file (set-user-ID, file capabilities)",
        false => "programs can gain privileges by their files",
    };
    push(lines, "no_new_privileges", judged(no_new), if no_new { "on" } else { "off" }, reason);
    let filters = seen.status("Seccomp_filters");
    let filtered = seen.status("Seccomp") == SECCOMP_FILTER && filters != "0";
    let (value, reason) = match filtered {
        true => {
            let value =
                if filters.is_empty() { "filtered".into() } else { format!("{filters} filtering") };
            (value, "system calls that a container has no use for are refused")
        }
        false => ("off".to_owned(), "every system call is let through"),
    };
    push(lines, "seccomp", judged(filtered), value, reason);
    label(lines, config, seen.label.as_deref());
    let score = seen.oom_score_adj.parse::<i32>();
    let holds = score.as_ref().is_ok_and(|score| *score >= 0);
    let reason = match holds {
        true => "when the machine lacks memory it is not spared at the cost of others",
        false => "when the machine lacks memory others are killed before it",
    };
    push(lines, "oom_score_adj", judged(holds), seen.oom_score_adj.clone(), reason);
}

fn label(lines: &mut Vec<PostureLine>, config: &RuntimeConfig, label: Option<&str>) {
    let label = label.unwrap_or_default();
    let value = if label.is_empty() { "none" } else { label };
    let enforced = label.strip_prefix(apparmor::PROFILE) == Some(" (enforce)");
    let (word, reason) = if enforced {
        (PostureWord::Holds, "AppArmor is one more fence around the others")
    } else if !apparmor::is_on() {
        (PostureWord::Absent, "this host's kernel has no AppArmor, or it is off")
    } else if !config.apparmor {
        (PostureWord::Loosened, "the operator has turned it off (runtime.apparmor)")
    } else {
        (PostureWord::Loosened, "the container's profile is not loaded, or does not refuse")
    };
    push(lines, "apparmor", word, value, reason);
}

fn namespaces(lines: &mut Vec<PostureLine>, process: &Process) {
    for (kind, what) in [
        ("user", "its root is not the host's"),
        ("pid", "it sees and signals its own processes only"),
        ("mnt", "it sees its own files only"),
        ("net", "it has its own addresses, ports and rules"),
        ("ipc", "it shares no memory or queues with others"),
        ("uts", "its host name is its own"),
        ("cgroup", "it does not see where it is held"),
        ("time", "its clocks since boot are its own"),
    ] {
        let id = format!("namespace.{kind}");
        match process.owns(kind) {
            Some(true) => push(lines, id, PostureWord::Holds, "its own", what),
            Some(false) => {
                push(lines, id, PostureWord::Loosened, "the host's", "shared with the host")
            }
            None => {
                push(lines, id, PostureWord::Absent, "none", "this kernel has no such namespace")
            }
        }
    }
}

fn paths(lines: &mut Vec<PostureLine>, process: &Process, seen: &Seen) {
    for path in profile::masked_paths() {
        let id = format!("masked.{path}");
        // A file lies under the null device, a directory under an empty one.
        match seen.mount_at(&path) {
            Some(_) => push(
                lines,
                id,
                PostureWord::Holds,
                "covered",
                "it tells or does what is the host's",
            ),
            None if process.has(&path) => {
                push(lines, id, PostureWord::Loosened, "open", "it can be read in the container");
            }
            None => push(lines, id, PostureWord::Absent, "none", "this kernel has no such file"),
        }
    }
    for path in profile::READ_ONLY {
        let id = format!("read_only.{path}");
        match seen.mount_at(path).map(|mount| mount.has("ro")) {
            Some(true) => {
                push(lines, id, PostureWord::Holds, "read-only", "it sets what is the host's")
            }
            None if !process.has(path) => {
                push(lines, id, PostureWord::Absent, "none", "this kernel has no such file");
            }
            Some(false) | None => {
                push(lines, id, PostureWord::Loosened, "writable", "it sets what is the host's");
            }
        }
    }
}

fn limits(lines: &mut Vec<PostureLine>, limits: &[LimitState]) {
    for limit in limits {
        let id = format!("limit.{}", limit.name);
        if !limit.held {
            push(lines, id, PostureWord::Absent, "none", limit.reason.clone());
            continue;
        }
        let now = std::fs::read_to_string(&limit.file).unwrap_or_default();
        let now = now.trim();
        if now == limit.value {
            push(
                lines,
                id,
                PostureWord::Holds,
                now,
                format!("the kernel holds it: {}", limit.file),
            );
        } else {
            let reason = format!(
                "it was set to {}, and {} has been changed since by somebody with root on the host",
                limit.value, limit.file
            );
            push(
                lines,
                id,
                PostureWord::Loosened,
                if now.is_empty() { "gone" } else { now },
                reason,
            );
        }
    }
}

fn mounts(lines: &mut Vec<PostureLine>, seen: &Seen) {
    for mount in &seen.mounts {
        let reason = match mount.is_tied {
            false => "what is mounted in it stays in it",
            true => "what is mounted on the host is seen in it, or the other way round",
        };
        let value = format!("{} {}", mount.kind, mount.options);
        push(lines, format!("mount.{}", mount.target), judged(!mount.is_tied), value, reason);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_of_mountinfo_is_read_with_and_without_tags() {
        let line = "36 35 98:0 /a /b\\040c rw,noatime shared:1 master:2 - ext3 /dev/root rw,errors=continue";
        let mount = Mount::parse(line).expect("a mount");
        assert_eq!((mount.target.as_str(), mount.kind.as_str()), ("/b\\040c", "ext3"));
        assert!(mount.is_tied && mount.has("noatime") && !mount.has("ro"));
        let mount = Mount::parse("1 2 0:3 / /proc ro,nosuid - proc proc rw").expect("a mount");
        assert!(!mount.is_tied && mount.has("ro"));
        assert_eq!(Mount::parse("1 2 0:3 /"), None);
    }

    #[test]
    fn what_is_not_as_the_profile_has_it_is_loosened() {
        let own = ProcessKey::own(&crate::process::boot_id().expect("procfs")).expect("procfs");
        let process = Process::open(&own).expect("it can be looked at").expect("it lives");
        let seen = process.read().expect("it has its files");
        let mut lines = Vec::new();
        ids(&mut lines, 2_000_000_000, &seen);
        namespaces(&mut lines, &process);
        capabilities(&mut lines, &seen);
        let word = |id: &str| lines.iter().find(|line| line.id == id).map(|line| line.word);
        assert_eq!(word("user_map"), Some(PostureWord::Loosened));
        assert_eq!(word("namespace.pid"), Some(PostureWord::Loosened));
        let ended = ProcessKey { start_ticks: own.start_ticks + 1, ..own };
        assert!(Process::open(&ended).expect("it can be looked for").is_none());
    }
}
