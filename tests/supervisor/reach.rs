//! R17, R18: what of Berth's own is in reach of others: its sockets, state, layers and people's files, for
//! another user of the host and for root in a container; kernel parameters, from inside.

use std::fs;
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use serde_json::json;
use system_tests::containers::{import, run, show};
use system_tests::programs::{attacker, in_own_namespaces, install};
use system_tests::supervisor::Supervisor;
use system_tests::{Check, TestServer, requires_root};

use crate::hostile::{attacker_layer, attempt, request};

/// A user of the host that is nobody's here: neither root, nor the server, nor in any range.
const STRANGER: &str = "54321";

/// Everything below, as root sees it.
fn walk(directory: &Path, found: &mut Vec<PathBuf>) {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            walk(&entry.path(), found);
        }
        found.push(entry.path());
    }
}

/// What the stranger is told of each path: whether it may be read, written or listed.
fn as_stranger(paths: &[PathBuf]) -> Vec<String> {
    let script = "while read -r path; do
        if [ -r \"$path\" ] || [ -w \"$path\" ]; then echo \"$path\"; fi; done";
    let mut command = Command::new("setpriv");
    command.args(["--reuid", STRANGER, "--regid", STRANGER, "--clear-groups", "sh", "-c", script]);
    let mut child =
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("run setpriv");
    let list: String = paths.iter().map(|path| format!("{}\n", path.display())).collect();
    let mut input = child.stdin.take().expect("it is a pipe");
    let writer = std::thread::spawn(move || std::io::Write::write_all(&mut input, list.as_bytes()));
    let output = child.wait_with_output().expect("wait for it");
    writer.join().expect("no panic").expect("it reads all");
    String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
}

#[tokio::test]
async fn nothing_of_berths_own_is_open_to_other_users_of_the_host() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await.token("operate").await;
    import(&anna).await;
    let id = run(&anna, "box", "echo there; sleep 1000", json!({"network": "none"})).await;
    let mut paths = vec![server.data_dir(), server.run_dir()];
    walk(&server.data_dir(), &mut paths);
    walk(&server.run_dir(), &mut paths);
    assert!(paths.len() > 40, "there is something to be found: {}", paths.len());
    // The control: the same walk of what is open to all finds all of it.
    let open = server.dir.join("open");
    fs::create_dir(&open).expect("make a directory");
    fs::write(open.join("file"), "x").expect("write a file");
    let control = as_stranger(&[open.clone(), open.join("file")]);
    assert_eq!(control.len(), 2, "the control finds what is open");
    let control = format!("of a directory open to all it finds {} of 2", control.len());
    // What is meant for them (tests/api/local_users.rs); nobody lists even its directory.
    let meant = server.run_dir().join("local/berth.sock");
    let (for_them, paths): (Vec<PathBuf>, Vec<PathBuf>) =
        paths.into_iter().partition(|path| *path == meant);
    assert_eq!(as_stranger(&for_them).len(), 1, "the socket for local users is open to them");
    Check { id: "R17", variant: "files and directories", control: &control }
        .finds_nothing(&as_stranger(&paths));

    let sockets: Vec<&PathBuf> = paths
        .iter()
        .filter(|path| fs::symlink_metadata(path).is_ok_and(|facts| facts.file_type().is_socket()))
        .collect();
    // The supervisor's, the root socket, and the container's monitor's.
    assert!(sockets.len() >= 3, "{sockets:?}");
    let loose: Vec<String> = sockets
        .iter()
        .map(|path| (path, fs::metadata(path).expect("inspect a socket").mode() & 0o7777))
        .filter(|(_, mode)| *mode != 0o600)
        .map(|(path, mode)| format!("{} {mode:o}", path.display()))
        .collect();
    // In a directory that nobody else enters, the mode is the second lock.
    let loose: Vec<&String> = loose.iter().filter(|line| !line.contains("/containers/")).collect();
    Check { id: "R17", variant: "modes of sockets", control: "srwxr-xr-x is what bind(2) makes" }
        .finds_nothing(&loose);

    let program = server.dir.join("attacker");
    install(attacker(), &program);
    let connect = |who: Option<&str>| -> Vec<String> {
        let mut command = match who {
            Some(_) => Command::new("setpriv"),
            None => Command::new("env"),
        };
        if let Some(who) = who {
            command.args(["--reuid", who, "--regid", who, "--clear-groups"]);
        }
        let output = command.arg(&program).arg("connect").args(&sockets).output().expect("run it");
        String::from_utf8_lossy(&output.stdout).lines().map(str::to_owned).collect()
    };
    let as_root = connect(None);
    assert!(as_root.iter().all(|line| line.ends_with(" 0")), "the control connects: {as_root:?}");
    for line in connect(Some(STRANGER)) {
        let (path, errno) = line.rsplit_once(' ').expect("two words");
        let variant = format!("connect to {}", path.replace(&server.instance, "INSTANCE"));
        Check { id: "R17", variant: &variant, control: "root connects" }.sees("13", errno);
    }
    abstract_sockets(&server, &show(&anna, &id).await);
}

/// No process of ours has a socket with an abstract name, which would have no mode (CVE-2020-15257).
fn abstract_sockets(server: &TestServer, container: &serde_json::Value) {
    use std::os::linux::net::SocketAddrExt as _;
    use std::os::unix::net::{SocketAddr, UnixListener};
    let named = || -> Vec<String> {
        let pids = [server.server_pid(), server.supervisor_pid(), Some(std::process::id())];
        let container = container["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok());
        let monitor = container.and_then(parent_of);
        let pids: Vec<u32> = pids.into_iter().chain([container, monitor]).flatten().collect();
        assert_eq!(pids.len(), 5, "server, supervisor, this test, container, monitor");
        let table = fs::read_to_string("/proc/net/unix").expect("read the table");
        let inodes: Vec<String> = pids.into_iter().flat_map(sockets_of).collect();
        let row = |line: &str| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let (inode, name) = (words.get(6)?, words.get(7)?);
            let ours = name.starts_with('@') && inodes.contains(&(*inode).to_owned());
            ours.then(|| (*name).to_owned())
        };
        table.lines().filter_map(row).collect()
    };
    let found = named();
    let name = format!("control-{}", server.instance);
    let address = SocketAddr::from_abstract_name(&name).expect("a short name");
    let listener = UnixListener::bind_addr(&address).expect("listen");
    let control = named();
    drop(listener);
    assert_eq!(control, [format!("@{name}")], "the control is seen");
    Check { id: "R17", variant: "abstract sockets", control: "one of this test's is seen" }
        .finds_nothing(&found);
}

fn parent_of(pid: u32) -> Option<u32> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix("PPid:"))?.trim().parse().ok()
}

fn sockets_of(pid: u32) -> Vec<String> {
    let entries = fs::read_dir(format!("/proc/{pid}/fd")).into_iter().flatten().flatten();
    let links = entries.filter_map(|entry| fs::read_link(entry.path()).ok());
    let inode = |link: PathBuf| {
        let text = link.to_string_lossy().into_owned();
        text.strip_prefix("socket:[").and_then(|rest| rest.strip_suffix(']')).map(str::to_owned)
    };
    links.filter_map(inode).collect()
}

#[test]
fn no_socket_of_the_hosts_is_seen_from_inside() {
    requires_root!();
    let berth = Supervisor::start();
    let layer = attacker_layer(&berth);
    let program = berth.dir.join("attacker");
    install(attacker(), &program);
    let control = Command::new(&program).arg("sockets").output().expect("run it on the host");
    let control = String::from_utf8_lossy(&control.stdout).into_owned();
    let own = berth.run_dir().join("supervisor.sock").display().to_string();
    assert!(control.contains(&own), "the control sees ours: {control}");
    let control = format!("on the host it sees {}", control.lines().count() - 1);
    let output = attempt(&berth, &request(&berth, &[&layer], &["/attacker", "sockets"])).output();
    Check { id: "R17", variant: "sockets, from inside", control: &control }.sees("end\n", output);
    // By path, through whatever of the host might be reached.
    let paths = ["", "/proc/1/root", "/proc/self/root", "/proc/1/cwd", "/.."]
        .map(|prefix| format!("{prefix}{own}"));
    let mut words = vec!["/attacker", "connect"];
    words.extend(paths.iter().map(String::as_str));
    let output = attempt(&berth, &request(&berth, &[&layer], &words)).output();
    for line in output.lines() {
        let (path, errno) = line.rsplit_once(' ').expect("two words");
        let variant =
            format!("connect to {} from inside", path.replace(&berth.instance, "INSTANCE"));
        Check { id: "R17", variant: &variant, control: &control }.sees("2", errno);
    }
}

#[test]
fn kernel_parameters_cannot_be_written_from_inside() {
    requires_root!();
    let berth = Supervisor::start();
    let layer = attacker_layer(&berth);
    let program = berth.dir.join("attacker");
    install(attacker(), &program);
    for place in ["/proc/sys", "/sys", "/proc/irq", "/proc/fs", "/proc/bus"] {
        let words = ["writable", place];
        let free = in_own_namespaces(&program, &words);
        let as_root = Command::new(&program).args(words).output().expect("run it as root");
        let as_root = String::from_utf8_lossy(&as_root.stdout).lines().count() - 1;
        assert!(place != "/proc/sys" || as_root > 100, "the control opens them: {as_root}");
        let control = format!(
            "in namespaces of its own {} can be opened, as the host's root {as_root}",
            free.lines().count() - 1
        );
        let words = ["/attacker", "writable", place];
        let output = attempt(&berth, &request(&berth, &[&layer], &words)).output();
        Check { id: "R18", variant: place, control: &control }.sees("end\n", output);
    }
    let words = ["/attacker", "writable", "/proc/sysrq-trigger"];
    let output = attempt(&berth, &request(&berth, &[&layer], &words)).output();
    Check { id: "R18", variant: "/proc/sysrq-trigger", control: "root may write to it" }
        .sees("end\n", output);
}

/// Ways in which a request could ask for a kernel parameter: there is none.
#[tokio::test]
async fn requests_for_kernel_parameters_are_refused() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await.token("operate").await;
    import(&anna).await;
    let plain = json!({"image": system_tests::containers::IMAGE, "network": "none"});
    anna.post("/api/v1/containers", &plain).await.expect_status(201);
    for (field, value) in [
        ("sysctls", json!({"kernel.core_pattern": "|/bin/x"})),
        ("sysctl", json!({"kernel.shm_rmid_forced": "1+kernel.core_pattern=|/x"})),
        ("Sysctls", json!({"net.ipv4.ip_forward": "1"})),
        ("host_config", json!({"Sysctls": {"kernel.msgmax": "1"}})),
        ("annotations", json!({"run.oci.sysctl": "kernel.core_pattern=x"})),
    ] {
        let mut body = plain.clone();
        body[field] = value;
        let answer = anna.post("/api/v1/containers", &body).await;
        let refused = [400, 422].contains(&answer.status);
        let control = "the same without the field: 201";
        Check { id: "R18", variant: &format!("{field} of a request"), control }.sees(true, refused);
    }
}
