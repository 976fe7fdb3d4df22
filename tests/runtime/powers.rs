//! Containers in user namespaces have what their configuration asks of the host: its root gives it, since
//! theirs may not.

use std::os::unix::fs::chown;
use std::os::unix::net::UnixListener;

use serde_json::json;

use crate::bundle::{Bundle, FIRST_ID, is_root};

#[test]
fn a_niceness_below_zero_and_a_real_time_io_priority_hold() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("nice");
    bundle.change(|config| {
        config["process"]["scheduler"] = json!({ "policy": "SCHED_BATCH", "nice": -9 });
        config["process"]["ioPriority"] = json!({ "class": "IOPRIO_CLASS_RT", "priority": 2 });
        config["linux"]["personality"] = json!({ "domain": "LINUX32" });
    });
    let text = bundle.succeed(bundle.run("cat /proc/self/stat; busybox ionice; busybox uname -m"));
    let mut lines = text.lines();
    let stat: Vec<&str> = lines.next().expect("a line").split(' ').collect();
    // proc_pid_stat(5): nice and policy.
    assert_eq!((stat[18], stat[40]), ("-9", "3"), "{text}");
    assert_eq!(lines.next(), Some("realtime: prio 2"), "{text}");
    if cfg!(target_arch = "x86_64") {
        assert_eq!(lines.next(), Some("i686"), "{text}");
    }
}

#[test]
fn hooks_in_the_namespaces_are_in_the_user_namespace() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("hooked");
    let place = bundle.outside("seen");
    std::fs::create_dir(&place).expect("make a directory");
    chown(&place, Some(FIRST_ID), Some(FIRST_ID)).expect("give it to the range");
    let script = format!("cat /proc/self/uid_map >{}/map; id -u >&2", place.display());
    let outside = json!({ "path": "/bin/sh", "args": ["sh", "-c", script], "env": ["PATH=/bin"] });
    let within = json!({ "path": "/bin/busybox", "args": ["sh", "-c", "id -u >&2; mkdir /x"] });
    bundle.change(|config| {
        config["hooks"] = json!({ "createContainer": [outside], "startContainer": [within] });
        config["process"]["user"] = json!({ "uid": 33, "gid": 44 });
    });
    let output = bundle.run("echo ran");
    let said = String::from_utf8_lossy(&output.stderr);
    // The last hook's failure: the root is read-only.
    assert!(said.starts_with("0\n33\n") && said.contains("hooks.startContainer[0]"), "{said}");
    assert!(output.stdout.is_empty() && !output.status.success(), "{said}");
    let map = std::fs::read_to_string(place.join("map")).expect("the hook has written");
    let map: Vec<&str> = map.split_whitespace().collect();
    assert_eq!(map, ["0", &FIRST_ID.to_string(), "65536"]);
}

#[test]
fn a_listener_is_told_of_a_container_in_a_user_namespace() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("asked");
    let path = bundle.outside("agent");
    let agent = UnixListener::bind(&path).expect("listen");
    let rule = json!({ "names": ["mkdir", "mkdirat"], "action": "SCMP_ACT_NOTIFY" });
    bundle.change(|config| {
        config["linux"]["seccomp"] = json!({ "defaultAction": "SCMP_ACT_ALLOW",
            "syscalls": [rule], "listenerPath": path });
    });
    let served = std::thread::spawn(move || {
        let (connection, _) = agent.accept().expect("accept");
        let (text, fds) = berth_runtime::receive_message(&connection).expect("receive");
        let state: serde_json::Value = serde_json::from_slice(&text).expect("the state is JSON");
        (state, fds.len())
    });
    let output = bundle.run("mkdir /tmp/made 2>&1; echo end");
    let (state, descriptors) = served.join().expect("the listener's thread");
    assert_eq!((&state["fds"], descriptors), (&json!(["seccompFd"]), 1));
    // The listener has gone with its descriptor.
    let text = bundle.succeed(output);
    assert!(text.contains("Function not implemented") && text.ends_with("end\n"), "{text}");
}
