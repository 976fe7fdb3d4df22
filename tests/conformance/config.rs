//! config.md and config-linux.md.

use serde_json::json;

use crate::case::{Case, is_berths};

/// config.md, "Root": `readonly`.
#[test]
fn a_read_only_root_is_read_only() {
    let Some(case) = Case::new("readonly") else { return };
    let script = "touch /made 2>/dev/null && echo wrote; echo end";
    assert_eq!(case.script(script).with("/root/readonly", true.into()).run(), "end\n");
}

/// config.md, "Process": `cwd`, `env`, `args`, `user`.
#[test]
fn the_process_is_as_configured() {
    let Some(case) = Case::new("process") else { return };
    let user = json!({ "uid": 3, "gid": 4, "additionalGids": [5, 6], "umask": 63 });
    let case = case.script("pwd; echo $A; id; umask").with("/process/cwd", "/bin".into());
    let case = case.with("/process/env", json!(["A=b c", "PATH=/bin"]));
    let case = case.with("/process/user", user);
    assert_eq!(case.run(), "/bin\nb c\nuid=3 gid=4 groups=5,6\n0077\n");
}

/// config.md, "POSIX process": `rlimits`, `oomScoreAdj`, `noNewPrivileges`.
#[test]
fn limits_and_preferences_are_as_configured() {
    let Some(case) = Case::new("rlimits") else { return };
    let script = "ulimit -Sn; ulimit -Hn; cat /proc/self/oom_score_adj; \
        grep NoNewPrivs /proc/self/status";
    let limit = json!({ "type": "RLIMIT_NOFILE", "soft": 100, "hard": 200 });
    let case = case.script(script).with("/process/rlimits", json!([limit]));
    let case = case.with("/process/oomScoreAdj", 500.into());
    assert_eq!(case.run(), "100\n200\n500\nNoNewPrivs:\t1\n");
}

/// config.md, "Linux Process": the five sets of `capabilities`.
#[test]
fn capabilities_are_exactly_those_configured() {
    let Some(case) = Case::new("capabilities") else { return };
    let sets = json!({ "bounding": ["CAP_KILL", "CAP_CHOWN"], "permitted": ["CAP_KILL"],
        "effective": ["CAP_KILL"], "inheritable": ["CAP_KILL"], "ambient": ["CAP_KILL"] });
    let case = case.script("exec grep Cap /proc/self/status").with("/process/capabilities", sets);
    let case = case.with("/process/user", json!({ "uid": 9, "gid": 9 }));
    let kill = "0000000000000020";
    let expected = format!(
        "CapInh:\t{kill}\nCapPrm:\t{kill}\nCapEff:\t{kill}\nCapBnd:\t0000000000000021\nCapAmb:\t{kill}\n"
    );
    assert_eq!(case.run(), expected);
}

/// config.md, "Linux Process", `capabilities`: one that cannot be granted does not hinder the start.
/// Only what is inheritable can be ambient (capabilities(7)), and `runc spec` lists more. A log names it.
#[test]
fn ambient_capabilities_that_are_not_inheritable_are_left_out() {
    let Some(case) = Case::new("ambient") else { return };
    let sets = json!({ "bounding": ["CAP_KILL"], "permitted": ["CAP_KILL"],
        "effective": ["CAP_KILL"], "ambient": ["CAP_KILL"] });
    let case = case.script("exec grep -E 'Amb|Eff' /proc/self/status");
    let case = case.with("/process/capabilities", sets);
    let text = case.done("--log log run ID");
    assert_eq!(text, "CapEff:\t0000000000000020\nCapAmb:\t0000000000000000\n");
    if is_berths() {
        let log = case.file("log");
        let named = log.contains("level=warning") && log.contains("ambient: CAP_KILL is not");
        assert!(named && log.lines().count() == 1, "{log}");
    }
}

/// "Runtimes SHOULD NOT fail if the container configuration requests capabilities that cannot be granted",
/// as `--privileged` of an engine does on a host whose root has not all of them. A log names them.
#[test]
fn capabilities_that_the_host_has_not_are_left_out() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: runc 1.1 fails with them");
        return;
    }
    let Some(case) = Case::new("privileged") else { return };
    let features: serde_json::Value = serde_json::from_str(&case.done("features")).expect("JSON");
    let all = &features["linux"]["capabilities"];
    let sets = json!({ "bounding": all, "permitted": all, "effective": all });
    let case = case.script("exec grep -E 'Prm|Eff|Bnd' /proc/self/status");
    let case = case.with("/process/capabilities", sets);
    let status = std::fs::read_to_string("/proc/self/status").expect("our own");
    let own = status.lines().find_map(|line| line.strip_prefix("CapPrm:\t")).expect("a set");
    let output = case.call("--log log run ID");
    let expected = format!("CapPrm:\t{own}\nCapEff:\t{own}\nCapBnd:\t{own}\n");
    assert_eq!(String::from_utf8_lossy(&output.stdout), expected);
    assert!(output.stderr.is_empty(), "what is logged is not among what the container writes");
    let missing = all.as_array().expect("a list").len()
        - u64::from_str_radix(own, 16).expect("a number").count_ones() as usize;
    let log = case.file("log");
    assert_eq!(
        log.lines().filter(|line| line.contains("not ours to give")).count(),
        missing,
        "{log}"
    );
}

/// config.md, "Hostname".
#[test]
fn the_host_name_is_set() {
    let Some(case) = Case::new("hostname") else { return };
    assert_eq!(case.script("hostname").with("/hostname", "a-name".into()).run(), "a-name\n");
}

/// config.md, "Hostname": of the container's uts namespace, which has to be its own. The name is the
/// host's present one, so that a runtime that sets it does no harm.
#[test]
fn a_host_name_without_a_uts_namespace_is_refused() {
    let Some(case) = Case::new("hostname-host") else { return };
    let own = std::fs::read_to_string("/proc/sys/kernel/hostname").expect("the host has a name");
    let kinds = ["pid", "ipc", "mount", "network", "cgroup"].map(|kind| json!({ "type": kind }));
    let case = case.with("/hostname", own.trim().into()).with("/linux/namespaces", json!(kinds));
    case.create_refused();
}

/// config-linux.md, "Masked Paths", "Readonly Paths".
#[test]
fn paths_are_masked_and_read_only() {
    let Some(case) = Case::new("masks") else { return };
    let script = "cat /proc/keys; ls /proc/fs | wc -l; \
        echo 1 2>/dev/null >/proc/sys/kernel/domainname && echo wrote; echo end";
    let case = case.script(script).with("/linux/maskedPaths", json!(["/proc/keys", "/proc/fs"]));
    let case = case.with("/linux/readonlyPaths", json!(["/proc/sys"]));
    assert_eq!(case.run(), "0\nend\n");
}

/// config-linux.md, "Sysctl".
#[test]
fn sysctls_of_own_namespaces_are_set() {
    let Some(case) = Case::new("sysctl") else { return };
    let case = case.script("cat /proc/sys/net/ipv4/ip_forward /proc/sys/kernel/shmmni");
    let sysctl = json!({ "net.ipv4.ip_forward": "1", "kernel.shmmni": "77" });
    assert_eq!(case.with("/linux/sysctl", sysctl).run(), "1\n77\n");
}

/// config-linux.md, "Sysctl": one of the host's is refused.
#[test]
fn sysctls_of_the_host_are_refused() {
    let Some(case) = Case::new("sysctl-host") else { return };
    let case = case.with("/linux/sysctl", json!({ "kernel.panic_on_oops": "0" }));
    case.create_refused();
}

/// config-linux.md, "Default Devices" and "Default Filesystems".
#[test]
fn the_default_devices_are_there() {
    let Some(case) = Case::new("devices") else { return };
    let script = "for d in null zero full random urandom tty; do test -c /dev/$d || echo $d; done; \
        for l in fd stdin stdout stderr ptmx; do test -h /dev/$l || test -c /dev/$l || echo $l; done; \
        echo end";
    assert_eq!(case.script(script).run(), "end\n");
}

/// config-linux.md, "Seccomp": an action with its errno, and the rest allowed.
#[test]
fn seccomp_answers_with_the_given_errno() {
    let Some(case) = Case::new("seccomp") else { return };
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 });
    let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": [rule] });
    let case = case.script("mkdir /made 2>&1; echo end").with("/linux/seccomp", seccomp);
    let text = case.run();
    assert!(text.contains("No space left on device") && text.ends_with("end\n"), "{text}");
}

/// config-linux.md, "Seccomp": a call with two actions, which the specification leaves open and podman's
/// own profile has. The kernel's order counts (seccomp(2)): what refuses goes before what lets through.
#[test]
fn of_two_actions_for_a_call_the_stricter_is_taken() {
    let refuse =
        json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_ERRNO", "errnoRet": 28 });
    let log = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_LOG" });
    let made = |name, rules| {
        let case = Case::new(name)?.script("mkdir /made 2>/dev/null && echo made; echo end");
        let seccomp = json!({ "defaultAction": "SCMP_ACT_ALLOW", "syscalls": rules });
        Some(case.with("/linux/seccomp", seccomp))
    };
    let Some(control) = made("seccomp-log", json!([log])) else { return };
    assert_eq!(control.run(), "made\nend\n", "the looser one alone lets it through");
    for (name, rules) in [
        ("seccomp-refused-first", json!([refuse, log])),
        ("seccomp-refused-last", json!([log, refuse])),
    ] {
        let Some(case) = made(name, rules) else { return };
        if !crate::case::is_berths() && name == "seccomp-refused-last" {
            // Others take the first that they read.
            continue;
        }
        assert_eq!(case.run(), "end\n", "{name}");
    }
    if crate::case::is_berths() {
        let mut other = refuse.clone();
        other["errnoRet"] = json!(5);
        let Some(case) = made("seccomp-errnos", json!([refuse, other])) else { return };
        assert!(case.create_refused().contains("errnoRet"));
    }
}

/// config.md, "Extensibility": unknown properties are ignored; Berth names them in its log, and no other.
#[test]
fn unknown_properties_are_ignored() {
    let Some(case) = Case::new("unknown") else { return };
    let case = case.script("echo ran").with("/unknown", json!({ "a": 1 }));
    let case = case.with("/process/unknown", true.into());
    assert_eq!(case.done("--log log run ID"), "ran\n");
    if is_berths() {
        let log = case.file("log");
        assert_eq!(log.lines().count(), 2, "{log}");
        assert!(
            log.contains("level=warning") && log.contains(" process.unknown is not known"),
            "{log}"
        );
    }
}
