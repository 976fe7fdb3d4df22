//! R10, R11, R12, R15: what a program of an image may ask of the kernel: cgroups and their files,
//! devices, more privilege by files that promise it, and every system call on every instruction set.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;

use nix::sys::stat::{Mode, SFlag, makedev, mknod};
use serde_json::json;
use system_tests::programs::{attacker, in_own_namespaces, install};
use system_tests::supervisor::{Run, Supervisor};
use system_tests::{Check, prober, requires_root, sample};
use tar::EntryType;

use crate::hostile::{Host, Layer, attempt, once, plain, remove, request};

const EPERM: &str = "1";
const EACCES: &str = "13";

/// What the attacker's lines say, by all words but the last.
fn answers(output: &str) -> BTreeMap<String, String> {
    let pair = |line: &str| line.rsplit_once(' ').map(|(what, n)| (what.to_owned(), n.to_owned()));
    output.lines().filter_map(pair).collect()
}

/// Runs the attacker on the host, in new user, mount and cgroup namespaces, as root of those.
fn unconfined(berth: &Supervisor, words: &[&str]) -> BTreeMap<String, String> {
    let program = berth.dir.join("attacker");
    install(attacker(), &program);
    answers(&in_own_namespaces(&program, words))
}

/// The container's directory in each hierarchy, by `/proc/<pid>/cgroup` and where those are mounted.
fn cgroups(pid: i32) -> BTreeMap<String, PathBuf> {
    let text = fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("read its cgroups");
    let place = |line: &str| {
        let mut parts = line.splitn(3, ':').skip(1);
        let (name, path) = (parts.next()?, parts.next()?);
        let mount = match name {
            "" => "unified",
            name => name.trim_start_matches("name="),
        };
        let directory = Path::new("/sys/fs/cgroup").join(mount).join(path.trim_start_matches('/'));
        directory.exists().then(|| (name.to_owned(), directory))
    };
    text.lines().filter_map(place).collect()
}

fn end(berth: &Supervisor, run: &Run<'_>) {
    run.act("container_kill");
    run.wait_exit();
    remove(berth, &run.container);
}

#[test]
fn cgroups_are_out_of_reach() {
    requires_root!();
    let berth = Supervisor::start();
    let layer = berth.unpack(&Layer::new().file("attacker", 0o755, attacker()).bytes());
    let free = unconfined(&berth, &["cgroups"]);
    let output = attempt(&berth, &request(&berth, &[&layer], &["/attacker", "cgroups"])).output();
    for (what, errno) in answers(&output) {
        let control = format!("in namespaces of its own on the host: errno {}", free[&what]);
        Check { id: "R10", variant: &what, control: &control }.sees(EPERM, errno);
    }
    assert!(free.values().any(|errno| errno == "0"), "the control mounts something: {free:?}");
    // Files by which a cgroup of version 1 runs a program on the host, or loosens itself.
    let names = ["release_agent", "notify_on_release", "devices.allow", "cgroup.procs"];
    let script = format!(
        "for d in /sys/fs/cgroup /sys/fs/cgroup/* /proc/1/root/sys/fs/cgroup/*; do \
         for f in {}; do {{ echo 1 >$d/$f; }} 2>/dev/null && echo wrote $d/$f; done; done; \
         ls /sys/fs/cgroup; echo end",
        names.join(" ")
    );
    let run = berth.started(&request(&berth, &[], &["sh", "-c", &format!("{script}; sleep 1000")]));
    let output = plain(&run.wait_log("end\n"));
    let held: Vec<PathBuf> = cgroups(run.pid()).into_values().collect();
    let control = format!("the host's root may write {} such files of it", held.len());
    let check = Check { id: "R10", variant: "files that run programs", control: &control };
    check.sees("end\n", output);
    let agents: Vec<String> = fs::read_dir("/sys/fs/cgroup")
        .expect("list the hierarchies")
        .flatten()
        .filter_map(|entry| fs::read_to_string(entry.path().join("release_agent")).ok())
        .filter(|agent| !agent.trim().is_empty())
        .collect();
    Check { id: "R10", variant: "release agents of the host", control: &control }
        .finds_nothing(&agents);
    end(&berth, &run);
}

/// Devices of the host that would be the host: memory, the kernel's log, disks, FUSE, loop control.
const NODES: [(&str, u32, u32); 8] = [
    ("c", 1, 1),
    ("c", 1, 11),
    ("c", 10, 229),
    ("c", 10, 237),
    ("c", 10, 200),
    ("b", 254, 0),
    ("b", 7, 0),
    ("c", 5, 1),
];

#[test]
fn devices_of_the_host_cannot_be_had() {
    requires_root!();
    let berth = Supervisor::start();
    let mut layer = Layer::new().file("attacker", 0o755, attacker()).fifo("trap");
    for (kind, major, minor) in NODES {
        let of = if kind == "b" { EntryType::Block } else { EntryType::Char };
        layer = layer.device(&format!("node-{kind}-{major}-{minor}"), of, major, minor);
    }
    let layer = berth.unpack(&layer.bytes());
    for (kind, major, minor) in sample(&NODES, 3) {
        let variant = |way: &str| format!("{kind} {major}:{minor}, {way}");
        let path = format!("/node-{kind}-{major}-{minor}");
        let output = attempt(&berth, &request(&berth, &[&layer], &["/attacker", "device", &path]));
        let control =
            format!("mknod on the host made it: {}", host_node(&berth, kind, major, minor));
        Check { id: "R11", variant: &variant("in a layer"), control: &control }
            .sees("open 2\n", output.output());
        let (major, minor) = (major.to_string(), minor.to_string());
        let words = ["/attacker", "device", "/tmp/node", kind, &major, &minor];
        let output = attempt(&berth, &request(&berth, &[&layer], &words)).output();
        Check { id: "R11", variant: &variant("by mknod"), control: &control }
            .sees("mknod 1\nopen 2\n", output);
    }
    // A FIFO is only a FIFO.
    let output =
        attempt(&berth, &request(&berth, &[&layer], &["stat", "-c", "%F", "/trap"])).output();
    Check { id: "R11", variant: "a FIFO", control: "made by the layer" }.sees("fifo\n", output);
}

/// Whether the host's root can make such a node, and opens it.
fn host_node(berth: &Supervisor, kind: &str, major: u32, minor: u32) -> String {
    let path = berth.dir.join("node");
    let flag = if kind == "b" { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
    let number = makedev(major.into(), minor.into());
    mknod(&path, flag, Mode::from_bits_truncate(0o600), number).expect("root makes nodes");
    let opened =
        fs::File::open(&path).map_or_else(|error| error.to_string(), |_| "opened".to_owned());
    fs::remove_file(&path).expect("remove the node");
    opened
}

/// The mount's guard alone: a node that the device cgroup allows lies in the container's own root, put
/// there by the host; the same number in `/dev` opens.
#[test]
fn a_node_in_the_root_is_refused_by_the_mount_alone() {
    requires_root!();
    let berth = Supervisor::start();
    let layer = berth.unpack(&Layer::new().file("attacker", 0o755, attacker()).bytes());
    let mut request = request(&berth, &[&layer], &["true"]);
    once(&berth, &request);
    let container = request["container"].as_str().expect("it has a name").to_owned();
    let upper = find(&berth.data_dir(), |path| {
        path.ends_with("upper") && path.to_string_lossy().contains(&container[..12])
    });
    let node = upper.expect("the container has a writable layer").join("zero");
    mknod(&node, SFlag::S_IFCHR, Mode::from_bits_truncate(0o666), makedev(1, 5))
        .expect("make a node");
    fs::set_permissions(&node, fs::Permissions::from_mode(0o666)).expect("open it to all");
    request["run"] = json!(2);
    request["process"]["args"] = json!(["/attacker", "device", "/zero"]);
    let refused = once(&berth, &request).output();
    request["run"] = json!(3);
    request["process"]["args"] = json!(["/attacker", "device", "/dev/zero"]);
    let opened = once(&berth, &request).output();
    assert!(opened.ends_with("open 0\n"), "the control opens: {opened}");
    let check =
        Check { id: "R11", variant: "nodev alone", control: "the same number in /dev opens" };
    check.sees(format!("open {EACCES}"), refused.lines().last().unwrap_or_default());
    remove(&berth, &container);
}

fn find(directory: &Path, wanted: impl Fn(&Path) -> bool + Copy) -> Option<PathBuf> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        let path = entry.path();
        if wanted(&path) {
            return Some(path);
        }
        // Not into what images hold.
        let is_tree = path.parent().is_some_and(|parent| parent.ends_with("layers"));
        if !is_tree
            && entry.file_type().is_ok_and(|kind| kind.is_dir())
            && let Some(found) = find(&path, wanted)
        {
            return Some(found);
        }
    }
    None
}

/// What the device cgroup of version 1 is to hold.
const DEVICES: [&str; 8] = [
    "c 136:* rw",
    "c 1:3 rw",
    "c 1:5 rw",
    "c 1:7 rw",
    "c 1:8 rw",
    "c 1:9 rw",
    "c 5:0 rw",
    "c 5:2 rw",
];

/// The cgroup's guard alone: nodes in the host's own mount, opened by a process of the host's root that
/// is in the container's cgroup.
#[test]
fn the_device_cgroup_allows_its_list_and_nothing_else() {
    requires_root!();
    let berth = Supervisor::start();
    let run = berth.run("devices", &["sleep", "1000"]);
    let groups = cgroups(run.pid());
    let Some(group) = groups.get("devices") else {
        system_tests::programs::skip("the device cgroup of version 2 has no file to read");
        return;
    };
    let list = fs::read_to_string(group.join("devices.list")).expect("read its devices");
    let list: BTreeSet<&str> = list.lines().collect();
    let control = "a new cgroup's list is a *:* rwm";
    Check { id: "R11", variant: "devices.list", control }
        .sees(format!("{:?}", BTreeSet::from(DEVICES)), format!("{list:?}"));
    let program = berth.dir.join("attacker");
    install(attacker(), &program);
    for (kind, major, minor) in sample(&NODES, 4).into_iter().chain([("c", 1, 5)]) {
        let node = berth.dir.join("node");
        let flag = if kind == "b" { SFlag::S_IFBLK } else { SFlag::S_IFCHR };
        let number = makedev(major.into(), minor.into());
        mknod(&node, flag, Mode::from_bits_truncate(0o600), number).expect("root makes nodes");
        let open = |enter: &str| {
            let script = format!("{enter} exec {} device {}", program.display(), node.display());
            let output = Command::new("sh").args(["-c", &script]).output().expect("run a shell");
            String::from_utf8_lossy(&output.stdout).trim().to_owned()
        };
        let outside = open("");
        let inside = open(&format!("echo $$ >{}/cgroup.procs;", group.display()));
        fs::remove_file(&node).expect("remove the node");
        let allowed = DEVICES.contains(&format!("{kind} {major}:{minor} rw").as_str());
        let variant = format!("{kind} {major}:{minor}, the cgroup alone");
        let control = format!("outside of the cgroup: {outside}");
        let wanted = if allowed { outside.clone() } else { format!("open {EPERM}") };
        Check { id: "R11", variant: &variant, control: &control }.sees(wanted, inside);
    }
    end(&berth, &run);
}

/// What `/proc/self/status` says of privilege.
fn status(text: &str) -> String {
    let wanted = [
        "Uid",
        "Gid",
        "Groups",
        "CapInh",
        "CapPrm",
        "CapEff",
        "CapBnd",
        "CapAmb",
        "NoNewPrivs",
        "Seccomp",
    ];
    let line = |line: &str| {
        let (name, rest) = line.split_once(':')?;
        let rest = rest.split_whitespace().collect::<Vec<_>>().join(" ");
        wanted.contains(&name).then(|| format!("{name} {rest}"))
    };
    text.lines().filter_map(line).collect::<Vec<_>>().join("\n")
}

fn golden(user: u32, in_force: &str) -> String {
    let none = "0000000000000000";
    format!(
        "Uid {user} {user} {user} {user}\nGid {user} {user} {user} {user}\nGroups \nCapInh {none}\n\
         CapPrm {in_force}\nCapEff {in_force}\nCapBnd 00000000800405fb\nCapAmb {none}\nNoNewPrivs 1\n\
         Seccomp 2"
    )
}

#[test]
fn files_that_promise_privilege_give_none() {
    requires_root!();
    let berth = Supervisor::start();
    let host = Host::new(&berth);
    let busybox = fs::read("/bin/busybox").expect("the host has a static busybox");
    // Version 2 (vfs_cap_data): effective, and what the profile would let a file give.
    let words: [u32; 5] = [0x0200_0001, 0x8004_05fb, 0, 0, 0];
    let capabilities: Vec<u8> = words.iter().flat_map(|word| word.to_le_bytes()).collect();
    let layer = Layer::new()
        .file("gain/cat", 0o6755, &busybox)
        .file("gain/prober", 0o6755, &prober::compile(&[]))
        .file_with("caps/cat", 0o755, &busybox, ("security.capability", &capabilities));
    let layer = berth.unpack(&layer.bytes());
    for (user, wanted) in [
        ("", golden(0, "00000000800405fb")),
        ("user", golden(1000, "0000000000000000")),
        ("65535:65535", golden(65_535, "0000000000000000")),
    ] {
        for program in ["/bin/cat", "/gain/cat", "/caps/cat"] {
            let mut request = request(&berth, &[&layer], &[program, "/proc/self/status"]);
            request["process"]["user"] = json!(user);
            let output = attempt(&berth, &request).output();
            let variant = format!("{program} as {user:?}");
            Check { id: "R12", variant: &variant, control: &set_user_id(&berth, &layer) }
                .sees(&wanted, status(&output));
        }
    }
    Check { id: "R12", variant: "the host", control: Host::CONTROL }.finds_nothing(&host.changes());
}

/// What the layer's program is without no_new_privs and nosuid: the host runs it as another user, from
/// the layer's own directory.
fn set_user_id(berth: &Supervisor, layer: &str) -> String {
    let digest = layer.trim_start_matches("sha256:");
    let inner = berth.data_dir().join("layers/sha256").join(digest).join("gain");
    let owner = fs::metadata(inner.join("prober")).expect("inspect the program").uid();
    let mut command = Command::new("setpriv");
    command.args(["--reuid", "54321", "--regid", "54321", "--clear-groups"]);
    let output =
        command.args(["./prober", "user"]).current_dir(inner).output().expect("run setpriv");
    let became = String::from_utf8_lossy(&output.stdout).trim().to_owned();
    assert_eq!(became, owner.to_string(), "the control becomes the layer's root: {output:?}");
    assert_ne!(owner, 0, "which is not the host's");
    format!("without no_new_privs the program becomes {became}")
}

#[test]
fn system_calls_of_an_image_are_answered_by_the_profile() {
    requires_root!();
    let berth = Supervisor::start();
    for (name, flags, rows_min) in [("x86_64", &[][..], 55), ("i386", &["-m32"][..], 40)] {
        let program = prober::compile(flags);
        let layer = berth.unpack(&Layer::new().file("prober", 0o755, &program).bytes());
        let path = berth.dir.join("prober");
        install(&program, &path);
        let free = Command::new(&path).output().expect("run the prober unconfined");
        let free = prober::answers(&String::from_utf8_lossy(&free.stdout));
        let output = attempt(&berth, &request(&berth, &[&layer], &["/prober"])).output();
        let confined = prober::answers(&output);
        assert!(confined.len() >= rows_min, "{name}: {} rows", confined.len());
        for ((abi, call), errno) in confined {
            let control = free[&(abi.clone(), call.clone())];
            assert!(
                !prober::is_refused(&call) || control != errno,
                "{abi} {call}: as without the filter"
            );
            let variant = format!("{name} program, {abi} {call}");
            let control = format!("errno {control}");
            Check { id: "R15", variant: &variant, control: &control }
                .sees(prober::expected(&call), errno);
        }
        fs::remove_file(&path).expect("remove the prober");
    }
}
