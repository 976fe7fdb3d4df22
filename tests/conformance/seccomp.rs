//! config-linux.md, "Seccomp": actions, architectures, flags, and a listener that decides about calls.

use std::os::fd::{AsFd, AsRawFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::thread::JoinHandle;

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use serde_json::{Value, json};

use crate::case::{Case, LIMIT, is_berths, is_passed_over};

const MKDIR: [&str; 2] = ["mkdir", "mkdirat"];

fn with_rule(case: Case, rule: Value) -> Case {
    let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    case.with("/linux/seccomp", seccomp)
}

/// "action": each as the kernel has it (seccomp(2)).
#[test]
fn actions_are_the_kernels() {
    let killed = format!("{}\n", 128 + libc::SIGSYS);
    let rows = [
        ("SCMP_ACT_KILL", killed.as_str()),
        ("SCMP_ACT_KILL_THREAD", &killed),
        ("SCMP_ACT_KILL_PROCESS", &killed),
        ("SCMP_ACT_TRAP", &killed),
        ("SCMP_ACT_LOG", "0\n"),
        ("SCMP_ACT_ALLOW", "0\n"),
        ("SCMP_ACT_ERRNO", "mkdir: can't create directory '/made': Operation not permitted\n1\n"),
        // Nobody traces it.
        ("SCMP_ACT_TRACE", "mkdir: can't create directory '/made': Function not implemented\n1\n"),
    ];
    for (action, expected) in rows {
        let Some(case) = Case::new(&format!("{}-", action.to_lowercase())) else { return };
        let case = case.script("mkdir /made 2>&1; echo $?");
        let text = with_rule(case, json!({ "names": MKDIR, "action": action })).run();
        // The shell says how its child ended, in words of its own.
        let told = text.strip_prefix("Bad system call\n").unwrap_or(&text);
        assert_eq!(told, expected, "{action}");
    }
}

/// "flags": each is taken, and the rules hold. runc (1.1) has none of them.
#[test]
fn every_flag_is_taken() {
    if is_passed_over() {
        return;
    }
    for flag in ["LOG", "SPEC_ALLOW", "TSYNC"] {
        let Some(case) = Case::new(&format!("seccomp-flag-{flag}")) else { return };
        let flags = json!([format!("SECCOMP_FILTER_FLAG_{flag}")]);
        let rule = json!({ "names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": 28 });
        let case = with_rule(case.script("mkdir /made 2>/dev/null || echo refused"), rule);
        assert_eq!(case.with("/linux/seccomp/flags", flags).run(), "refused\n", "{flag}");
    }
    let Some(case) = Case::new("seccomp-flag-bad") else { return };
    let case = with_rule(case, json!({ "names": MKDIR, "action": "SCMP_ACT_LOG" }));
    let said = case.with("/linux/seccomp/flags", json!(["SECCOMP_FILTER_FLAG_X"])).create_refused();
    assert!(said.contains("SECCOMP_FILTER_FLAG_X"), "{said}");
}

/// "architectures": those of other processors are taken, the native one is filtered whatever is named, and
/// names that there are none of are refused.
#[test]
fn every_architecture_is_taken_and_the_native_one_filtered() {
    let names = "X86 X86_64 X32 ARM AARCH64 MIPS MIPS64 MIPS64N32 MIPSEL MIPSEL64 MIPSEL64N32 PPC PPC64 \
        PPC64LE S390 S390X PARISC PARISC64 RISCV64 LOONGARCH64 M68K SH SHEB";
    let every: Vec<String> = names.split(' ').map(|name| format!("SCMP_ARCH_{name}")).collect();
    let rule = json!({ "names": MKDIR, "action": "SCMP_ACT_ERRNO", "errnoRet": 28 });
    for (name, listed) in [("every", json!(every)), ("other", json!(["SCMP_ARCH_S390X"]))] {
        let Some(case) = Case::new(&format!("seccomp-arch-{name}")) else { return };
        let case = case.script("mkdir /made 2>/dev/null || echo refused");
        let case = with_rule(case, rule.clone()).with("/linux/seccomp/architectures", listed);
        // runc (1.1) knows fewer, and libseccomp refuses to mix byte orders.
        if is_berths() {
            assert_eq!(case.run(), "refused\n", "{name}");
        }
    }
    let Some(case) = Case::new("seccomp-arch-bad") else { return };
    let case = with_rule(case, rule);
    let case = case.with("/linux/seccomp/architectures", json!(["SCMP_ARCH_VAX"]));
    assert!(case.create_refused().contains("SCMP_ARCH_VAX"));
}

/// A filter that leaves `mkdir` to whoever listens at `agent` in the case's directory.
fn asking(case: Case) -> (Case, UnixListener) {
    let path = case.directory.join("agent");
    let agent = UnixListener::bind(&path).expect("listen");
    let case = with_rule(case, json!({ "names": MKDIR, "action": "SCMP_ACT_NOTIFY" }));
    let case = case.with("/linux/seccomp/listenerPath", path.to_str().expect("UTF-8").into());
    (case.with("/linux/seccomp/listenerMetadata", "some words".into()), agent)
}

/// What a listener was told.
struct Told {
    state: Value,
    descriptor: OwnedFd,
}

fn wait_readable(fd: impl AsFd) {
    let limit = PollTimeout::try_from(LIMIT).expect("a short time");
    let ready = poll(&mut [PollFd::new(fd.as_fd(), PollFlags::POLLIN)], limit);
    assert_eq!(ready, Ok(1), "waited for a message in vain");
}

/// "The runtime MUST send exactly one container process state per connection", and close it.
fn receive(agent: &UnixListener) -> Told {
    wait_readable(agent);
    let (connection, _) = agent.accept().expect("accept");
    let (mut text, mut descriptors) = (Vec::new(), Vec::new());
    loop {
        wait_readable(&connection);
        let (bytes, fds) = berth_runtime::receive_message(&connection).expect("receive");
        descriptors.extend(fds);
        if bytes.is_empty() {
            break;
        }
        text.extend(bytes);
    }
    assert_eq!(descriptors.len(), 1, "one descriptor");
    let state = serde_json::from_slice(&text).expect("the state is JSON");
    Told { state, descriptor: descriptors.remove(0) }
}

/// Answers one call with an error.
fn answer(told: &Told, errno: Errno) {
    wait_readable(&told.descriptor);
    let raw = told.descriptor.as_raw_fd();
    // SAFETY: the struct is plain data, for which zero is a value, and which the kernel wants.
    let mut asked: libc::seccomp_notif = unsafe { std::mem::zeroed() };
    // SAFETY: the kernel writes a struct of this type (seccomp_unotify(2)), which outlives the call.
    let result = unsafe { libc::ioctl(raw, libc::SECCOMP_IOCTL_NOTIF_RECV, &raw mut asked) };
    assert_eq!(Errno::result(result), Ok(0), "receive a call");
    let mut said =
        libc::seccomp_notif_resp { id: asked.id, val: 0, error: -(errno as i32), flags: 0 };
    // SAFETY: the kernel reads a struct of this type, which outlives the call.
    let result = unsafe { libc::ioctl(raw, libc::SECCOMP_IOCTL_NOTIF_SEND, &raw mut said) };
    assert_eq!(Errno::result(result), Ok(0), "answer the call");
}

/// One connection and one call.
fn serve(agent: UnixListener) -> JoinHandle<(Value, UnixListener)> {
    std::thread::spawn(move || {
        let told = receive(&agent);
        answer(&told, Errno::ENOMEDIUM);
        (told.state, agent)
    })
}

/// "SCMP_ACT_NOTIFY", "listenerPath", "Container Process State": whoever listens answers the program's call.
#[test]
fn a_listener_decides_about_the_first_programs_calls() {
    for keeps in [true, false] {
        let Some(case) = Case::new(&format!("notify-{keeps}")) else { return };
        let script = "mkdir /made 2>&1; test -e /made || echo none; sleep 1000";
        let case = case.script(script).with("/annotations", json!({ "org.a": "b" }));
        let (case, agent) = asking(case.with("/process/noNewPrivileges", keeps.into()));
        let served = serve(agent);
        let case = case.started();
        let (told, _) = served.join().expect("the listener's thread");
        let expected = "mkdir: can't create directory '/made': No medium found\nnone\n";
        case.wait("the program", || case.file("output") == expected);
        let state = case.state();
        assert_eq!(
            (&told["fds"], &told["metadata"]),
            (&json!(["seccompFd"]), &json!("some words"))
        );
        assert_eq!((&told["pid"], &told["state"]["pid"]), (&state["pid"], &state["pid"]));
        assert_eq!(told["state"]["id"], case.id.as_str());
        assert!(
            told["ociVersion"].is_string() && told["state"]["ociVersion"].is_string(),
            "{told}"
        );
        assert_eq!(told["state"]["annotations"]["org.a"], "b");
        assert_eq!(told["state"]["bundle"].as_str(), case.directory.to_str());
        // "created" is the specification's word before the program has run; runc's is always "creating".
        let status = if keeps && is_berths() { "created" } else { "creating" };
        assert_eq!(told["state"]["status"], status);
    }
}

/// The same for a later program, with the container's own state; and with `run`. With runc (1.1) the call of
/// a later program was seen to be answered with ENOSYS, as if nobody listened.
#[test]
fn a_listener_decides_about_later_programs_calls() {
    if is_passed_over() {
        return;
    }
    let Some(case) = Case::new("notify-exec") else { return };
    let (case, agent) = asking(case);
    let first = std::thread::spawn(move || (receive(&agent), agent));
    let case = case.started();
    let (held, agent) = first.join().expect("the listener's thread");
    let served = serve(agent);
    let said = case.refused("exec ID /bin/mkdir /made");
    assert!(said.contains("No medium found"), "{said}");
    let (told, _) = served.join().expect("the listener's thread");
    let state = case.state();
    assert_eq!(
        (&told["state"]["pid"], &told["state"]["status"]),
        (&state["pid"], &json!("running"))
    );
    assert!(told["pid"].is_i64() && told["pid"] != state["pid"], "{told}");
    drop(held);

    let Some(case) = Case::new("notify-run") else { return };
    let flags = json!(["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV", "SECCOMP_FILTER_FLAG_TSYNC"]);
    let (case, agent) = asking(case.script("mkdir /made 2>&1"));
    let served = serve(agent);
    assert!(case.with("/linux/seccomp/flags", flags).refused("run ID").contains("No medium found"));
    served.join().expect("the listener's thread");
}

/// "If sending to this socket fails, the runtime MUST generate an error"; and a filter that cannot be
/// served is one too. Nothing is left of the container.
#[test]
fn a_listener_that_is_not_there_is_an_error() {
    let Some(case) = Case::new("notify-absent") else { return };
    let (case, agent) = asking(case.script("echo ran"));
    drop(agent);
    let said = case.refused("run ID");
    assert!(!said.contains("ran\n"), "{said}");
    case.refused("state ID");
    if is_berths() {
        assert!(said.contains(case.directory.join("agent").to_str().expect("UTF-8")), "{said}");
        let case = case.with("/linux/seccomp/listenerPath", Value::Null);
        let case = case.with("/linux/seccomp/listenerMetadata", Value::Null);
        assert!(case.create_refused().contains("listenerPath: missing"));
    }
}

/// A hook of the container's files is asked about as the program is.
#[test]
fn a_listener_decides_about_start_hooks_too() {
    let Some(case) = Case::new("notify-hook") else { return };
    if is_passed_over() {
        return;
    }
    let hook = json!({ "path": "/bin/busybox", "args": ["sh", "-c", "mkdir /made 2>/seen; true"],
        "env": ["PATH=/bin"] });
    let (case, agent) = asking(case.script("cat /seen"));
    let served = serve(agent);
    let text = case.with("/hooks", json!({ "startContainer": [hook] })).run();
    served.join().expect("the listener's thread");
    assert!(text.contains("No medium found"), "{text}");
}
