//! config.md, "POSIX-platform Hooks", and runtime.md, "Lifecycle": hooks of the runtime's namespaces.

use serde_json::{Value, json};

use crate::case::{Case, is_berths, is_passed_over};

/// A hook that runs a script with this case's busybox; `$D` is the case's directory.
pub fn hook(case: &Case, script: &str) -> Value {
    let bin = case.directory.join("rootfs/bin");
    json!({ "path": bin.join("busybox"), "args": ["sh", "-c", script, "zero", "one"],
        "env": [format!("PATH={}", bin.display()), format!("D={}", case.directory.display())] })
}

/// The state that a hook was told.
pub fn told(case: &Case, name: &str) -> Value {
    serde_json::from_str(&case.file(name)).expect("a hook is told the state")
}

/// "Lifecycle": the order of the hooks around the program, and the "State" that each is told.
#[test]
fn hooks_run_in_order_and_are_told_the_state() {
    let Some(case) = Case::new("hooks-order") else { return };
    let one = |name: &str| hook(&case, &format!("cat >$D/{name}; echo {name} $0 $1 >>$D/order"));
    let hooks = json!({ "prestart": [one("prestart")], "poststop": [one("poststop")],
        "createRuntime": [one("first"), one("second")], "poststart": [one("poststart")] });
    let case = case.with("/hooks", hooks).with("/annotations", json!({ "org.a": "b" })).created();
    let created = "prestart zero one\nfirst zero one\nsecond zero one\n";
    // runc runs poststart hooks at creation already (1.1).
    let order = case.file("order");
    assert!(order == created || !is_berths() && order.starts_with(created), "{order}");
    let pid = case.state()["pid"].clone();
    for name in ["prestart", "first"] {
        let state = told(&case, name);
        assert_eq!((&state["status"], &state["pid"]), (&json!("creating"), &pid));
        assert_eq!((&state["id"], &state["annotations"]["org.a"]), (&json!(case.id), &json!("b")));
        assert_eq!(state["bundle"].as_str(), case.directory.to_str());
    }
    case.done("start ID");
    case.wait("poststart", || case.file("order").ends_with("poststart zero one\n"));
    if is_berths() {
        assert_eq!(told(&case, "poststart")["status"], "running");
    }
    case.done("kill ID KILL");
    case.wait_for("stopped");
    case.done("delete ID");
    assert!(case.file("order").ends_with("poststop zero one\n"), "{}", case.file("order"));
    assert_eq!(told(&case, "poststop")["status"], "stopped");
}

/// "CreateRuntime": in the runtime's namespaces, with the container's made and its root not yet entered;
/// `env` is exactly what is configured.
#[test]
fn create_runtime_hooks_run_outside_before_the_root_is_entered() {
    let Some(case) = Case::new("hooks-where") else { return };
    let script = "state=$(grep -o '\"pid\":[0-9]*'); pid=${state#*:}; \
        readlink /proc/self/ns/mnt; test -d /proc/$pid/root$D && echo before; \
        test $(readlink /proc/$pid/ns/net) != $(readlink /proc/self/ns/net) && echo made; \
        env | grep -cvE '^(PATH|D|PWD|SHLVL|OLDPWD)='";
    // grep's count of nothing is no success.
    let hooks =
        json!({ "createRuntime": [hook(&case, &format!("{{ {script}; }} >$D/seen; true"))] });
    let case = case.with("/hooks", hooks).created();
    let own = std::fs::read_link("/proc/self/ns/mnt").expect("an own mount namespace");
    assert_eq!(case.file("seen"), format!("{}\nbefore\nmade\n0\n", own.display()));
}

/// "Lifecycle", 3 and 4: a hook that fails before the start is an error, and the container is destroyed.
#[test]
fn a_failing_hook_of_creation_destroys_the_container() {
    for point in ["prestart", "createRuntime"] {
        let Some(case) = Case::new(&format!("hooks-fail-{point}")) else { return };
        let fails = hook(&case, "exit 7");
        let (never, stop) = (hook(&case, "echo >$D/never"), hook(&case, "echo >$D/stop"));
        let case = case.with("/hooks", json!({ point: [fails, never], "poststop": [stop] }));
        let said = case.create_refused();
        assert_eq!(case.file("never"), "");
        if is_berths() {
            assert!(said.contains(&format!("hooks.{point}[0]")) && said.contains('7'), "{said}");
            assert_eq!(case.file("stop"), "\n", "its end is told");
        }
    }
}

/// "Lifecycle", 9 and 13: hooks that fail after the start are logged, and the others run. runc ends the
/// container at the first.
#[test]
fn failing_hooks_after_the_start_are_logged_and_the_rest_runs() {
    let Some(case) = Case::new("hooks-late") else { return };
    if is_passed_over() {
        return;
    }
    let hooks = json!({
        "poststart": [hook(&case, "exit 7"), hook(&case, "echo >$D/poststart")],
        "poststop": [hook(&case, "exit 8"), hook(&case, "echo >$D/poststop")],
    });
    let case = case.with("/hooks", hooks).created();
    case.done("--log log start ID");
    assert_eq!((case.file("poststart"), &case.state()["status"]), ("\n".into(), &json!("running")));
    let log = case.file("log");
    assert!(log.contains("level=warning") && log.contains("hooks.poststart[0]"), "{log}");
    case.done("kill ID KILL");
    case.wait_for("stopped");
    case.done("delete ID");
    assert_eq!(case.file("poststop"), "\n");
}

/// "timeout": a hook that takes longer is ended, with what it has started. runc ends the hook alone.
#[test]
fn a_hook_that_takes_too_long_is_killed_with_what_it_has_started() {
    let Some(case) = Case::new("hooks-timeout") else { return };
    if is_passed_over() {
        return;
    }
    let mut slow = hook(&case, "sleep 1000 & echo $! >$D/pid; wait");
    slow["timeout"] = 1.into();
    let case = case.with("/hooks", json!({ "createRuntime": [slow] }));
    let said = case.create_refused();
    assert!(said.contains("after 1 s"), "{said}");
    let pid = case.file("pid");
    let lives = || {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", pid.trim()));
        stat.is_ok_and(|text| !text.contains(") Z "))
    };
    case.wait("the end of what it has started", || !lives());
}

/// "path" must be absolute, "env" of names and values, "timeout" above zero: the error names the property.
#[test]
fn hooks_that_cannot_be_are_refused() {
    let Some(case) = Case::new("hooks-bad") else { return };
    if is_passed_over() {
        return;
    }
    let case = case.with("/hooks", json!({ "poststop": [{ "path": "bin/true" }] }));
    assert!(case.create_refused().contains("hooks.poststop[0].path"));
    let hook = json!({ "path": "/bin/true", "env": ["A"] });
    let case = case.with("/hooks", json!({ "poststart": [hook] }));
    assert!(case.create_refused().contains("hooks.poststart[0].env"));
    let case = case.with("/hooks", json!({ "prestart": [{ "path": "/bin/true", "timeout": 0 }] }));
    assert!(case.create_refused().contains("hooks.prestart[0].timeout"));
}

/// A hook is given standard streams and nothing else: neither what the program keeps nor what whoever
/// called the runtime has left open.
#[test]
fn hooks_have_no_descriptors_of_the_callers() {
    let Some(case) = Case::new("hooks-files") else { return };
    let script =
        "for n in 3 4; do test -e /proc/self/fd/$n && echo $n; done >$D/seen; echo ran >>$D/seen";
    let hooks = json!({ "createRuntime": [hook(&case, script)] });
    let case = case.script("exec true").with("/hooks", hooks);
    let plain = case.command(&["run", "--preserve-fds", "1", &case.id]);
    let mut command = std::process::Command::new("/bin/sh");
    command.args(["-c", "exec \"$0\" \"$@\" 3<config.json 4<config.json"]);
    command.arg(crate::case::runtime()).args(plain.get_args()).current_dir(&case.directory);
    let output = command.stdin(std::process::Stdio::null()).output().expect("run the runtime");
    assert!(output.status.success(), "{}", crate::case::said(&output));
    assert_eq!(case.file("seen"), "ran\n");
}
