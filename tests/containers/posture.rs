//! The posture: each line against what the kernel shows to this test, and read, not assumed.

use std::fs;
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::net::UnixListener;
use std::path::Path;
use std::thread::JoinHandle;

use nix::sys::socket::{
    AddressFamily, Backlog, Shutdown, SockFlag, SockType, UnixAddr, bind, connect, listen,
    shutdown, socket,
};
use serde_json::{Value, json};
use system_tests::containers::{act, import, in_status, run, show, until};
use system_tests::supervisor::{receive, send};
use system_tests::{Check, Client, TestServer, requires_root};

async fn posture(client: &Client, id: &str) -> Value {
    client.get(&format!("/api/v1/containers/{id}/posture")).await.expect_status(200).json()
}

fn line<'a>(posture: &'a Value, id: &str) -> &'a Value {
    let lines = posture["items"].as_array().expect("lines");
    lines.iter().find(|line| line["id"] == id).unwrap_or_else(|| panic!("no {id} in {posture:#}"))
}

#[tokio::test]
async fn each_line_is_what_the_kernel_shows() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let more = json!({"capabilities_dropped": ["CHOWN"], "user": "7:8"});
    let id = run(&anna, "kept", "while :; do sleep 1000; done", more).await;
    in_status(&anna, &id, "running").await;
    let pid = show(&anna, &id).await["pid"].as_i64().expect("it runs");
    let seen = posture(&anna, &id).await;
    let file = |name: &str| fs::read_to_string(format!("/proc/{pid}/{name}")).expect("it lives");
    let status = file("status");
    let field = |name: &str| {
        let line = status.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.expect("the kernel has it").trim().to_owned()
    };
    let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
    for (id, expected) in [
        ("user_map", words(&file("uid_map"))),
        ("group_map", words(&file("gid_map"))),
        ("seccomp", format!("{} filtering", field("Seccomp_filters"))),
        ("oom_score_adj", file("oom_score_adj").trim().to_owned()),
    ] {
        assert_eq!(line(&seen, id)["value"], expected, "{id}");
        assert_eq!(line(&seen, id)["word"], "holds", "{id}");
    }
    assert_eq!(field("Seccomp"), "2");
    assert_eq!(
        (field("NoNewPrivs").as_str(), &line(&seen, "no_new_privileges")["value"]),
        ("1", &json!("on"))
    );
    // As another user than root it has none now, and what it can ever gain lacks what was dropped.
    assert_eq!(
        (field("CapEff").as_str(), &line(&seen, "capabilities.effective")["value"]),
        ("0000000000000000", &json!("none"))
    );
    let bounding = line(&seen, "capabilities.bounding")["value"].as_str().expect("names");
    let bits = u64::from_str_radix(&field("CapBnd"), 16).expect("hexadecimal");
    assert_eq!(bounding.split(' ').count(), usize::try_from(bits.count_ones()).expect("few"));
    assert!(bounding.contains("SETUID") && !bounding.contains("CHOWN"), "{bounding}");
    for kind in ["user", "pid", "mnt", "net", "ipc", "uts", "cgroup", "time"] {
        let of = |who: &str| fs::read_link(format!("/proc/{who}/ns/{kind}")).expect("a namespace");
        assert_ne!(of(&pid.to_string()), of("self"), "{kind}");
        assert_eq!(line(&seen, &format!("namespace.{kind}"))["word"], "holds", "{kind}");
    }
    let mounts = file("mountinfo");
    for path in ["/proc/kcore", "/proc/keys", "/sys/firmware"] {
        let covered = mounts.lines().any(|line| line.split(' ').nth(4) == Some(path));
        let word = if covered { "holds" } else { "absent" };
        assert_eq!(line(&seen, &format!("masked.{path}"))["word"], word, "{path}");
    }
    assert_eq!(line(&seen, "read_only./proc/sys")["value"], "read-only");
    let root = line(&seen, "mount./")["value"].as_str().expect("a mount");
    assert!(root.starts_with("overlay rw"), "{root}");
    let loosened = seen["items"].as_array().expect("lines").iter();
    let loosened = loosened.filter(|line| line["word"] == "loosened").count();
    assert_eq!(seen["loosened"], loosened);
    assert_eq!(loosened, 0, "{seen:#}");
}

#[tokio::test]
async fn what_somebody_changes_behind_our_back_is_seen_and_said() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "kept", "while :; do sleep 1000; done", Value::Null).await;
    in_status(&anna, &id, "running").await;
    let before = posture(&anna, &id).await;
    let memory = line(&before, "limit.memory").clone();
    assert_eq!(memory["word"], "holds");
    let shown = show(&anna, &id).await;
    let held = shown["limits_held"].as_array().expect("limits");
    let file = held.iter().find(|limit| limit["name"] == "memory").expect("memory")["file"].clone();
    let other = (256_u64 << 20).to_string();
    fs::write(file.as_str().expect("a file"), &other).expect("root may");
    let after = posture(&anna, &id).await;
    let seen = line(&after, "limit.memory");
    assert_eq!((&seen["word"], &seen["value"]), (&json!("loosened"), &json!(other)));
    let reason = seen["reason"].as_str().expect("why");
    assert!(reason.contains("somebody with root on the host"), "{reason}");
    assert_eq!(after["loosened"], 1);
    assert_eq!(seen["changed"], Value::Null, "nobody has asked Berth for it");
    // Set by Berth, it holds again.
    let body = json!({"limits": {"memory_bytes": 96 << 20}});
    anna.patch(&format!("/api/v1/containers/{id}"), &body).await.expect_status(200);
    let set = (96_u64 << 20).to_string();
    let path = format!("/api/v1/containers/{id}/posture");
    until(&anna, &path, |seen| line(seen, "limit.memory")["value"] == set.as_str()).await;
    assert_eq!(line(&posture(&anna, &id).await, "limit.memory")["word"], "holds");
}

#[tokio::test]
async fn who_has_changed_a_limit_is_named() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let limits = json!({"limits": {"memory_bytes": 64 << 20, "pids": 20}});
    let id = run(&anna, "kept", "while :; do sleep 1000; done", limits).await;
    in_status(&anna, &id, "running").await;
    let before = posture(&anna, &id).await;
    for line in before["items"].as_array().expect("lines") {
        assert_eq!(line["changed"], Value::Null, "{line}");
    }
    let path = format!("/api/v1/containers/{id}");
    for (who, limits) in [
        (&anna, json!({"memory_bytes": 96 << 20})),
        (&olga, json!({"pids": 30})),
        // Saved as it was, which changes nothing.
        (&olga, json!({"memory_bytes": 96 << 20})),
    ] {
        who.patch(&path, &json!({"limits": limits})).await.expect_status(200);
    }
    let after = posture(&anna, &id).await;
    for (limit, by, text) in
        [("memory", "anna", "memory 64 MiB → 96 MiB"), ("pids", "olga", "processes 20 → 30")]
    {
        let seen = line(&after, &format!("limit.{limit}"));
        assert_eq!(seen["word"], "holds", "{seen}");
        assert_eq!((&seen["changed"]["by"], &seen["changed"]["text"]), (&json!(by), &json!(text)));
        assert!(seen["changed"]["at"].as_str().is_some_and(|at| at.ends_with('Z')), "{seen}");
    }
    assert_eq!(line(&after, "limit.cpu")["changed"], Value::Null);
}

#[tokio::test]
async fn an_older_supervisor_is_said_to_be_one() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let id = run(&anna, "kept", "while :; do sleep 1000; done", Value::Null).await;
    in_status(&anna, &id, "running").await;
    let at = server.run_dir().join("supervisor.sock");
    let unknown = json!({"version": 1, "request": {"op": "container_fortune", "container": id}});
    let answer = asked(&at, &unknown);
    assert_eq!(answer["code"], "wire.request", "{answer}");
    server.kill_supervisor();
    let older = Older::listen(&at, &answer);
    let refused = anna.get(&format!("/api/v1/containers/{id}/posture")).await;
    assert_eq!((refused.status, refused.code()), (503, "supervisor.version".to_owned()));
    assert!(refused.text.contains("older than the server"), "{}", refused.text);
    let page = anna.get(&format!("/containers/{id}/posture")).await.expect_status(200);
    assert!(page.text.contains("What confines it cannot be read now. The supervisor is older"));
    drop(older);
    server.start_supervisor().await;
    assert_eq!(line(&posture(&anna, &id).await, "seccomp")["word"], "holds");
}

/// What the supervisor at `path` answers.
fn asked(path: &Path, request: &Value) -> Value {
    let flags = SockFlag::SOCK_CLOEXEC;
    let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
    connect(fd.as_raw_fd(), &UnixAddr::new(path).expect("a short path")).expect("it listens");
    send(&fd, request.to_string().as_bytes(), &[]).expect("send");
    receive(&fd).expect("an answer").0
}

/// One that answers every request as a supervisor does that does not know it.
struct Older {
    listener: OwnedFd,
    thread: Option<JoinHandle<()>>,
}

impl Older {
    fn listen(path: &Path, answer: &Value) -> Self {
        fs::remove_file(path).expect("the one before has ended");
        let flags = SockFlag::SOCK_CLOEXEC;
        let fd = socket(AddressFamily::Unix, SockType::SeqPacket, flags, None).expect("a socket");
        bind(fd.as_raw_fd(), &UnixAddr::new(path).expect("a short path")).expect("bind");
        fs::set_permissions(path, fs::Permissions::from_mode(0o666))
            .expect("open it to the server");
        listen(&fd, Backlog::new(64).expect("a backlog")).expect("listen");
        let listener = UnixListener::from(fd.try_clone().expect("a descriptor"));
        let answer = answer.to_string();
        let thread = std::thread::spawn(move || {
            while let Ok((connection, _)) = listener.accept() {
                let connection = OwnedFd::from(connection);
                if receive(&connection).is_some() {
                    match send(&connection, answer.as_bytes(), &[]) {
                        // The server may have hung up meanwhile.
                        Ok(()) | Err(_) => {}
                    }
                }
            }
        });
        Self { listener: fd, thread: Some(thread) }
    }
}

impl Drop for Older {
    fn drop(&mut self) {
        shutdown(self.listener.as_raw_fd(), Shutdown::Both).expect("it listens");
        self.thread.take().expect("it ends once").join().expect("it does not panic");
    }
}

#[tokio::test]
async fn a_stranger_sees_nothing_and_what_does_not_run_has_none() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let eve = server.person("eve", "user").await;
    import(&anna).await;
    let id = run(&anna, "kept", "while :; do sleep 1000; done", Value::Null).await;
    in_status(&anna, &id, "running").await;
    let path = format!("/api/v1/containers/{id}/posture");
    let control = "its owner and an operator are";
    Check { id: "A01", variant: "a stranger is shown a posture", control }
        .sees(404, eve.get(&path).await.status);
    assert_eq!(olga.get(&path).await.status, 200);
    act(&anna, &id, "stop").await.expect_status(200);
    let refused = anna.get(&path).await;
    assert_eq!((refused.status, refused.code()), (409, "container.not-running".to_owned()));
}
