//! Lets a fault strike at the n-th state-changing system call of a kind of Berth's processes.
//!
//! ```text
//! inject --role monitor --nth 17 --fault kill PID...
//! inject --role server --nth 3 --fault EIO --calls fsync,fdatasync PID...
//! ```
//!
//! PIDs and all that they start are traced (ptrace(2)). It prints `ready`, and then one line of JSON: what
//! was struck, or, when its standard input ends first, how many calls were seen. strace(1) could
//! inject, too, but counts each call's name and each thread apart: with it there is no "for every step of
//! an operation". Here one count goes over all threads and processes of the role.
//!
//! A call is struck before the kernel carries it out. Killed is the whole process.

use std::collections::HashMap;
use std::io::{Read, Write};
use std::sync::atomic::{AtomicU64, Ordering};

use anyhow::{Context, Result, bail};
use nix::errno::Errno;
use nix::sys::ptrace::{self, Event, Options};
use nix::sys::signal::{Signal, kill};
use nix::sys::wait::{WaitPidFlag, WaitStatus, waitpid};
use nix::unistd::Pid;
use serde_json::json;

/// Calls that change what outlives the call: files, mounts, processes, the network, messages.
const CHANGING: &[(&str, i64)] = &[
    ("write", libc::SYS_write),
    ("writev", libc::SYS_writev),
    ("pwrite64", libc::SYS_pwrite64),
    ("pwritev2", libc::SYS_pwritev2),
    ("copy_file_range", libc::SYS_copy_file_range),
    ("sendfile", libc::SYS_sendfile),
    ("splice", libc::SYS_splice),
    ("sendto", libc::SYS_sendto),
    ("sendmsg", libc::SYS_sendmsg),
    ("connect", libc::SYS_connect),
    ("bind", libc::SYS_bind),
    ("open", libc::SYS_open),
    ("openat", libc::SYS_openat),
    ("openat2", libc::SYS_openat2),
    ("memfd_create", libc::SYS_memfd_create),
    ("ftruncate", libc::SYS_ftruncate),
    ("fallocate", libc::SYS_fallocate),
    ("fsync", libc::SYS_fsync),
    ("fdatasync", libc::SYS_fdatasync),
    ("syncfs", libc::SYS_syncfs),
    ("rename", libc::SYS_rename),
    ("renameat", libc::SYS_renameat),
    ("renameat2", libc::SYS_renameat2),
    ("link", libc::SYS_link),
    ("linkat", libc::SYS_linkat),
    ("symlink", libc::SYS_symlink),
    ("symlinkat", libc::SYS_symlinkat),
    ("unlink", libc::SYS_unlink),
    ("unlinkat", libc::SYS_unlinkat),
    ("mkdir", libc::SYS_mkdir),
    ("mkdirat", libc::SYS_mkdirat),
    ("rmdir", libc::SYS_rmdir),
    ("mknodat", libc::SYS_mknodat),
    ("chmod", libc::SYS_chmod),
    ("fchmod", libc::SYS_fchmod),
    ("fchmodat", libc::SYS_fchmodat),
    ("fchown", libc::SYS_fchown),
    ("fchownat", libc::SYS_fchownat),
    ("setxattr", libc::SYS_setxattr),
    ("lsetxattr", libc::SYS_lsetxattr),
    ("fsetxattr", libc::SYS_fsetxattr),
    ("utimensat", libc::SYS_utimensat),
    ("mount", libc::SYS_mount),
    ("umount2", libc::SYS_umount2),
    ("fsopen", libc::SYS_fsopen),
    ("fsconfig", libc::SYS_fsconfig),
    ("fsmount", libc::SYS_fsmount),
    ("move_mount", libc::SYS_move_mount),
    ("open_tree", libc::SYS_open_tree),
    ("mount_setattr", libc::SYS_mount_setattr),
    ("pivot_root", libc::SYS_pivot_root),
    ("chroot", libc::SYS_chroot),
    ("clone", libc::SYS_clone),
    ("clone3", libc::SYS_clone3),
    ("fork", libc::SYS_fork),
    ("vfork", libc::SYS_vfork),
    ("execve", libc::SYS_execve),
    ("execveat", libc::SYS_execveat),
    ("unshare", libc::SYS_unshare),
    ("setns", libc::SYS_setns),
    ("kill", libc::SYS_kill),
    ("pidfd_send_signal", libc::SYS_pidfd_send_signal),
    ("setsid", libc::SYS_setsid),
    ("sethostname", libc::SYS_sethostname),
    ("capset", libc::SYS_capset),
    ("setgroups", libc::SYS_setgroups),
    ("setresuid", libc::SYS_setresuid),
    ("setresgid", libc::SYS_setresgid),
    ("prlimit64", libc::SYS_prlimit64),
    ("seccomp", libc::SYS_seccomp),
    ("keyctl", libc::SYS_keyctl),
    ("flock", libc::SYS_flock),
    ("landlock_restrict_self", libc::SYS_landlock_restrict_self),
];

/// Answers that a caller of the kernel must expect.
const ERRORS: &[(&str, Errno)] = &[
    ("EIO", Errno::EIO),
    ("ENOSPC", Errno::ENOSPC),
    ("EINTR", Errno::EINTR),
    ("ENOMEM", Errno::ENOMEM),
    ("EMFILE", Errno::EMFILE),
];

/// The OCI command line's, which are struck with all that they start of Berth's own.
const VERBS: &[&str] = &["create", "start", "exec", "kill", "delete"];

/// How many calls of the role were seen.
static SEEN: AtomicU64 = AtomicU64::new(0);

struct Wish {
    role: String,
    nth: u64,
    error: Option<Errno>,
    calls: Vec<(&'static str, i64)>,
    pids: Vec<Pid>,
}

/// One traced task.
struct Task {
    role: String,
    /// The answer that its call under way shall have.
    answer: Option<Errno>,
}

fn main() -> Result<()> {
    let wish = read_arguments()?;
    let mut tasks = HashMap::new();
    for pid in &wish.pids {
        seize(*pid, &mut tasks)?;
    }
    std::thread::spawn(wait_for_the_end);
    say("ready");
    trace(&wish, &mut tasks)
}

fn read_arguments() -> Result<Wish> {
    let mut wish = Wish {
        role: String::new(),
        nth: 0,
        error: None,
        calls: CHANGING.to_vec(),
        pids: Vec::new(),
    };
    let mut arguments = std::env::args().skip(1);
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument} lacks its value"));
        match argument.as_str() {
            "--role" => wish.role = value()?,
            "--nth" => wish.nth = value()?.parse().context("--nth is a number")?,
            "--fault" => {
                let name = value()?;
                let found = ERRORS.iter().find(|(known, _)| *known == name);
                if name != "kill" && found.is_none() {
                    bail!("unknown fault {name}");
                }
                wish.error = found.map(|(_, errno)| *errno);
            }
            "--calls" => {
                let names = value()?;
                wish.calls.retain(|(name, _)| names.split(',').any(|wanted| wanted == *name));
            }
            pid => wish.pids.push(Pid::from_raw(pid.parse().context("a pid is a number")?)),
        }
    }
    Ok(wish)
}

/// Attaches to every thread of a process.
fn seize(pid: Pid, tasks: &mut HashMap<Pid, Task>) -> Result<()> {
    let options = Options::PTRACE_O_TRACESYSGOOD
        | Options::PTRACE_O_TRACEFORK
        | Options::PTRACE_O_TRACEVFORK
        | Options::PTRACE_O_TRACECLONE
        | Options::PTRACE_O_TRACEEXEC;
    let role = role_of(pid);
    // Threads that start meanwhile are found in the second round.
    for _ in 0..2 {
        let folder = format!("/proc/{pid}/task");
        for entry in std::fs::read_dir(&folder).with_context(|| format!("read {folder}"))? {
            let name = entry.context("read a thread's name")?.file_name();
            let thread = Pid::from_raw(name.to_string_lossy().parse().context("a thread's id")?);
            if tasks.contains_key(&thread) {
                continue;
            }
            match ptrace::seize(thread, options) {
                // It was started by a thread that is traced, or it has ended.
                Err(Errno::EPERM | Errno::ESRCH) => continue,
                other => other.with_context(|| format!("trace {thread}"))?,
            }
            ptrace::interrupt(thread).with_context(|| format!("stop {thread}"))?;
            tasks.insert(thread, Task { role: role.clone(), answer: None });
        }
    }
    Ok(())
}

/// What a process of Berth's does; empty for one that is none of Berth's.
fn role_of(pid: Pid) -> String {
    let line = std::fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
    let words: Vec<&[u8]> = line.split(|byte| *byte == 0).collect();
    let has = |word: &str| words.contains(&word.as_bytes());
    let program = words.first().copied().unwrap_or_default();
    let role = match program {
        // Workers are started by this name.
        _ if program != b"/proc/self/exe" && !program.windows(5).any(|part| part == b"berth") => "",
        _ if has("supervise") => "supervisor",
        _ if has("monitor") => "monitor",
        _ if has("layer") => "unpacker",
        _ if has("task") => "task",
        _ if has("serve") => "server",
        _ if VERBS.iter().any(|verb| has(verb)) => "verb",
        _ => "",
    };
    role.to_owned()
}

/// Whoever started this closes its standard input when the operation is over.
fn wait_for_the_end() {
    let mut nothing = Vec::new();
    drop(std::io::stdin().read_to_end(&mut nothing));
    say(&json!({"seen": SEEN.load(Ordering::Relaxed)}).to_string());
    // Whatever is traced goes on by itself.
    std::process::exit(0);
}

fn say(line: &str) {
    let mut out = std::io::stdout().lock();
    // Nobody may listen any more; then nobody misses it.
    drop(writeln!(out, "{line}"));
    drop(out.flush());
}

fn trace(wish: &Wish, tasks: &mut HashMap<Pid, Task>) -> Result<()> {
    loop {
        let status = match waitpid(None, Some(WaitPidFlag::__WALL)) {
            Ok(status) => status,
            // Nobody is left; the end is said by the other thread.
            Err(Errno::ECHILD) => loop {
                std::thread::park();
            },
            Err(error) => return Err(error).context("wait for what is traced"),
        };
        let Some(pid) = status.pid() else { continue };
        let signal = match status {
            WaitStatus::PtraceSyscall(_) => {
                if at_call(wish, tasks, pid) {
                    return Ok(());
                }
                None
            }
            WaitStatus::PtraceEvent(_, _, event) => {
                if !at_event(tasks, pid, event) {
                    continue;
                }
                None
            }
            WaitStatus::Stopped(_, signal) => at_signal(pid, signal),
            WaitStatus::Exited(..) | WaitStatus::Signaled(..) => {
                tasks.remove(&pid);
                continue;
            }
            _ => None,
        };
        match ptrace::syscall(pid, signal) {
            // It was killed meanwhile.
            Ok(()) | Err(Errno::ESRCH) => {}
            Err(error) => return Err(error).context("let a task go on"),
        }
    }
}

/// A new task's first stop is its tracer's; any other signal is its own.
fn at_signal(pid: Pid, signal: Signal) -> Option<Signal> {
    let is_own = ptrace::getsiginfo(pid).is_ok();
    (signal != Signal::SIGTRAP && is_own).then_some(signal)
}

/// Whether the task shall go on under this tracer.
fn at_event(tasks: &mut HashMap<Pid, Task>, pid: Pid, event: i32) -> bool {
    let forks = [Event::PTRACE_EVENT_FORK, Event::PTRACE_EVENT_VFORK, Event::PTRACE_EVENT_CLONE];
    if forks.iter().any(|kind| *kind as i32 == event) {
        let child = ptrace::getevent(pid).ok().and_then(|id| i32::try_from(id).ok());
        let role = tasks.get(&pid).map(|task| task.role.clone()).unwrap_or_default();
        if let Some(child) = child {
            let child = Pid::from_raw(child);
            tasks.entry(child).or_insert(Task { role, answer: None });
        }
    } else if event == Event::PTRACE_EVENT_EXEC as i32 {
        let role = role_of(pid);
        if role.is_empty() {
            tasks.remove(&pid);
            // It may have been killed, and then needs no detaching.
            ptrace::detach(pid, None).ok();
            return false;
        }
        tasks.insert(pid, Task { role, answer: None });
    }
    true
}

/// Whether the fault has struck.
fn at_call(wish: &Wish, tasks: &mut HashMap<Pid, Task>, pid: Pid) -> bool {
    let Ok(mut registers) = ptrace::getregs(pid) else { return false };
    let Ok(info) = ptrace::syscall_info(pid) else { return false };
    // A child may stop before its parent has told of it.
    let task = tasks.entry(pid).or_insert_with(|| Task { role: role_of(pid), answer: None });
    if info.op == libc::PTRACE_SYSCALL_INFO_EXIT {
        let Some(errno) = task.answer.take() else { return false };
        registers.rax = (-i64::from(errno as i32)).cast_unsigned();
        ptrace::setregs(pid, registers).ok();
        return true;
    }
    if info.op != libc::PTRACE_SYSCALL_INFO_ENTRY || task.role != wish.role {
        return false;
    }
    let Some(name) = counted(wish, pid, &registers) else { return false };
    let count = SEEN.fetch_add(1, Ordering::Relaxed) + 1;
    if count != wish.nth {
        return false;
    }
    let group = thread_group(pid);
    say(&json!({"call": name, "nth": count, "pid": group.as_raw(), "role": task.role,
        "about": subject(pid, &registers)})
    .to_string());
    match wish.error {
        Some(errno) => {
            task.answer = Some(errno);
            // No call has this number: the kernel does nothing and the answer is ours.
            registers.orig_rax = u64::MAX;
            ptrace::setregs(pid, registers).ok();
            false
        }
        None => {
            kill(group, Signal::SIGKILL).ok();
            true
        }
    }
}

/// The name of a call that counts.
fn counted(wish: &Wish, pid: Pid, registers: &libc::user_regs_struct) -> Option<&'static str> {
    let number = registers.orig_rax.cast_signed();
    let (name, _) = wish.calls.iter().find(|(_, known)| *known == number)?;
    let creates = |flags: u64| flags & u64::from(libc::O_CREAT.cast_unsigned()) != 0;
    let counts = match number {
        libc::SYS_open => creates(registers.rsi),
        libc::SYS_openat => creates(registers.rdx),
        libc::SYS_openat2 => {
            let flags = ptrace::read(pid, registers.rdx as ptrace::AddressType);
            creates(flags.unwrap_or(0).cast_unsigned())
        }
        libc::SYS_write | libc::SYS_writev => !is_idle_talk(pid, registers.rdi),
        // A thread is nobody's business.
        libc::SYS_clone => registers.rdi & 0x0001_0000 == 0,
        _ => true,
    };
    counts.then_some(*name)
}

/// Wake-ups of one's own threads, and the log on standard error.
fn is_idle_talk(pid: Pid, fd: u64) -> bool {
    if fd == 1 || fd == 2 {
        return true;
    }
    let target = std::fs::read_link(format!("/proc/{pid}/fd/{fd}")).unwrap_or_default();
    target.to_string_lossy().starts_with("anon_inode:[event")
}

/// What the call's first argument is, if it is a descriptor; else its first path.
fn subject(pid: Pid, registers: &libc::user_regs_struct) -> String {
    let target = std::fs::read_link(format!("/proc/{pid}/fd/{}", registers.rdi));
    let target = target.map(|path| path.to_string_lossy().into_owned()).unwrap_or_default();
    let path = text_at(pid, registers.rsi);
    match (target.is_empty(), path.is_empty()) {
        (_, true) => target,
        (true, false) => path,
        (false, false) => format!("{target} {path}"),
    }
}

/// A short path in the task's memory; empty when there is none.
fn text_at(pid: Pid, address: u64) -> String {
    let mut text = Vec::new();
    for word in 0..8 {
        let Ok(word) = ptrace::read(pid, (address + word * 8) as ptrace::AddressType) else {
            break;
        };
        for byte in word.to_ne_bytes() {
            if byte == 0 {
                return String::from_utf8(text).unwrap_or_default();
            }
            if !byte.is_ascii_graphic() {
                return String::new();
            }
            text.push(byte);
        }
    }
    String::from_utf8(text).unwrap_or_default()
}

fn thread_group(pid: Pid) -> Pid {
    let status = std::fs::read_to_string(format!("/proc/{pid}/status")).unwrap_or_default();
    let line = status.lines().find_map(|line| line.strip_prefix("Tgid:"));
    line.and_then(|text| text.trim().parse().ok()).map_or(pid, Pid::from_raw)
}
