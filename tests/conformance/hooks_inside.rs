//! config.md, "POSIX-platform Hooks", and runtime.md, "Lifecycle": hooks of the container's namespaces.

use serde_json::{Value, json};

use crate::case::{Case, is_berths, is_passed_over};
use crate::hooks::{hook, told};

/// "CreateContainer": in the container's namespaces, its mounts made, with the path and the root of the
/// runtime's; "State": `pid` as the container sees it. What it mounts below the bundle's root is the
/// container's.
///
/// crun (1.8) tells hooks in the namespaces that the id is 0, and "created" before that is so.
#[test]
fn create_container_hooks_run_in_the_namespaces_with_the_runtimes_root() {
    let Some(case) = Case::new("hooks-create-inside") else { return };
    let script = "cat >$D/told; readlink /proc/self/ns/mnt >$D/mnt; readlink /proc/self/ns/net >$D/net; \
        test -e $D/rootfs/proc/self && echo made >>$D/order; echo $$ >$D/pid; umask >>$D/order; \
        mkdir $D/rootfs/t; mount -t tmpfs none $D/rootfs/t; echo there >$D/rootfs/t/file";
    let outside = hook(&case, "echo runtime >>$D/order");
    let hooks = json!({ "createContainer": [hook(&case, script)], "createRuntime": [outside] });
    let case = case.script("cat /t/file; readlink /proc/self/ns/mnt; readlink /proc/self/ns/net");
    let case = case.with("/hooks", hooks).with("/annotations", json!({ "org.a": "b" }));
    let output = case.run();
    assert_eq!(output, format!("there\n{}{}", case.file("mnt"), case.file("net")));
    // runc has its own umask there.
    assert_eq!(case.file("order"), "runtime\nmade\n0022\n");
    let state = told(&case, "told");
    assert_eq!((&state["status"], &state["pid"]), (&json!("creating"), &json!(1)));
    assert_eq!((&state["id"], &state["annotations"]["org.a"]), (&json!(case.id), &json!("b")));
    assert_eq!(state["bundle"].as_str(), case.directory.to_str());
    assert_ne!(case.file("pid"), "1\n", "a process of its own");
}

/// A hook of the container's own files.
fn inside(script: &str) -> Value {
    json!({ "path": "/bin/busybox", "args": ["sh", "-c", script], "env": ["PATH=/bin"] })
}

/// "StartContainer": in the container's root and namespaces, after `start` and before the program, and by
/// the program's user; in order.
#[test]
fn start_container_hooks_run_in_the_root_before_the_program() {
    let Some(case) = Case::new("hooks-start-inside") else { return };
    let first = "cat >/t/state; pwd >>/t/order; id -u >>/t/order";
    let second = "test -d /proc/1 && test ! -e /t/program && echo second >>/t/order";
    let case = case.script("touch /t/program; cat /t/order; sleep 1000");
    let case = case.with("/process/user", json!({ "uid": 3, "gid": 4 }));
    let case = case.with("/process/cwd", "/bin".into());
    let place = case.directory.join("rootfs/t");
    std::fs::create_dir(&place).expect("make a directory");
    std::os::unix::fs::chown(&place, Some(3), None).expect("give it to the user");
    let hooks = json!({ "startContainer": [inside(first), inside(second)] });
    let case = case.with("/hooks", hooks).created();
    assert_eq!(case.file("rootfs/t/order"), "", "not before the start");
    case.done("start ID");
    case.wait("the program", || case.file("output").ends_with("second\n"));
    assert_eq!(case.file("output"), "/bin\n3\nsecond\n");
    let state = told(&case, "rootfs/t/state");
    assert_eq!((&state["pid"], &state["id"]), (&json!(1), &json!(case.id)));
    // crun says "starting", which is no state of the specification's.
    if is_berths() {
        assert_eq!(state["status"], "created");
    }
}

/// "State": `pid` "as seen by the container", also where that shares the pid namespace of another.
#[test]
fn hooks_in_a_joined_pid_namespace_are_told_the_id_there() {
    let Some(first) = Case::new("hooks-joined") else { return };
    let first = first.started();
    let path = format!("/proc/{}/ns/pid", first.state()["pid"]);
    let Some(case) = Case::new("hooks-joining") else { return };
    let namespaces = json!([{ "type": "pid", "path": path }, { "type": "mount" }, { "type": "ipc" },
        { "type": "uts" }, { "type": "network" }]);
    let case = case.script("echo $$").with("/linux/namespaces", namespaces);
    let hooks = json!({ "startContainer": [inside("cat >/told")] });
    let case = case.with("/hooks", hooks);
    let seen = case.run();
    let state = told(&case, "rootfs/told");
    assert_eq!(state["pid"].to_string(), seen.trim());
    assert_ne!(seen, "1\n", "the first container's own is that");
}

/// "Lifecycle", 5 and 7: a hook that fails is an error that destroys, or stops, the container; the program
/// does not run, nor do the hooks after it. `run` takes the container away.
#[test]
fn a_failing_hook_in_the_namespaces_is_the_operations_failure() {
    for point in ["createContainer", "startContainer"] {
        let Some(case) = Case::new(&format!("hooks-fail-{point}")) else { return };
        let (fails, never) = (inside("exit 7"), inside("echo never >&2"));
        let (fails, never) = match point {
            "createContainer" => (hook(&case, "exit 7"), hook(&case, "echo >$D/never")),
            _ => (fails, never),
        };
        let stop = hook(&case, "echo >$D/stop");
        let hooks = json!({ point: [fails, never], "poststop": [stop] });
        let case = case.script("echo program >&2").with("/hooks", hooks);
        let said = case.refused("run ID");
        assert!(!said.contains("never") && !said.contains("program"), "{said}");
        assert_eq!(case.file("never"), "");
        case.refused("state ID");
        if is_berths() {
            assert!(said.contains(&format!("hooks.{point}[0]")) && said.contains('7'), "{said}");
            assert_eq!(case.file("stop"), "\n", "its end is told");
        }
    }
    let Some(case) = Case::new("hooks-start-fail") else { return };
    let case = case.with("/hooks", json!({ "startContainer": [inside("exit 7")] })).created();
    // runc (1.1) does not wait for what becomes of its `start`.
    if is_berths() {
        case.refused("start ID");
    } else {
        case.call("start ID");
    }
    case.wait_for("stopped");
    case.done("delete ID");
}

/// One that cannot be run is named, with the reason.
#[test]
fn hooks_in_the_namespaces_that_are_not_there_are_named() {
    for point in ["createContainer", "startContainer"] {
        let Some(case) = Case::new(&format!("hooks-absent-{point}")) else { return };
        let absent = json!({ "path": "/bin/absent" });
        let said = case.with("/hooks", json!({ point: [absent] })).refused("run ID");
        assert!(said.contains("/bin/absent"), "{said}");
    }
}

/// "timeout", with what the hook has started.
#[test]
fn hooks_in_the_namespaces_that_take_too_long_are_killed() {
    if is_passed_over() {
        return;
    }
    for point in ["createContainer", "startContainer"] {
        let Some(case) = Case::new(&format!("hooks-slow-{point}")) else { return };
        let script = "sleep 1000 & wait";
        let mut slow =
            if point == "createContainer" { hook(&case, script) } else { inside(script) };
        slow["timeout"] = 1.into();
        let said = case.with("/hooks", json!({ point: [slow] })).refused("run ID");
        assert!(said.contains(&format!("hooks.{point}[0]")) && said.contains("in time"), "{said}");
    }
}

/// A program of the image's is under the container's filter, also as a hook.
#[test]
fn start_container_hooks_are_under_the_filter() {
    for keeps in [true, false] {
        let Some(case) = Case::new(&format!("hooks-filter-{keeps}")) else { return };
        let rule =
            json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 });
        let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
        let case = case.script("test -e /ran && test ! -e /made && echo held");
        let case = case.with("/process/noNewPrivileges", keeps.into());
        let case = case.with("/linux/seccomp", seccomp);
        let hooks = json!({ "startContainer": [inside("mkdir /made; touch /ran")] });
        assert_eq!(case.with("/hooks", hooks).run(), "held\n");
    }
}

/// Hooks in the namespaces are given standard streams and nothing else. runc's (1.1) have what the program
/// keeps, and those in the host's root some of runc's own.
#[test]
fn hooks_in_the_namespaces_have_no_other_descriptors() {
    if is_passed_over() {
        return;
    }
    let Some(case) = Case::new("hooks-inside-files") else { return };
    let seen = "for n in 3 4 5 6 7 8 9; do test -e /proc/self/fd/$n && echo $n; done";
    let outside = hook(&case, &format!("{{ {seen}; echo ran; }} >$D/seen"));
    let within = inside(&format!("{{ {seen}; echo ran; }} >/seen"));
    let hooks = json!({ "createContainer": [outside], "startContainer": [within] });
    let case = case.script("exec true").with("/hooks", hooks);
    let plain = case.command(&["run", "--preserve-fds", "1", &case.id]);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" \"$@\" 3<config.json 4<config.json"]);
    command.arg(crate::case::runtime()).args(plain.get_args()).current_dir(&case.directory);
    let output = command.stdin(std::process::Stdio::null()).output().expect("run the runtime");
    assert!(output.status.success(), "{}", crate::case::said(&output));
    assert_eq!((case.file("seen"), case.file("rootfs/seen")), ("ran\n".into(), "ran\n".into()));
}
