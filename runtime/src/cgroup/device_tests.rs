//! v1's controller and the eBPF program of v2 against a plain reading of the same rules. A hybrid host has
//! both: a program attached in its unified tree is in force there, too.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use super::*;

/// One thing that is tried, with what it needs.
struct Probe {
    kind: DeviceKind,
    major: u16,
    minor: u32,
    access: DeviceAccess,
}

/// The answer that the documentation of [`Fence`] gives.
fn allowed(fence: &Fence, probe: &Probe) -> bool {
    let bits = |access: DeviceAccess| [access.read, access.write, access.mknod];
    let matches = fence.exceptions.iter().any(|rule| {
        let named = rule.kind == probe.kind
            && rule.major.is_none_or(|major| major == probe.major)
            && rule.minor.is_none_or(|minor| minor == probe.minor);
        let mut asked =
            bits(probe.access).into_iter().zip(bits(rule.access)).filter(|(asked, _)| *asked);
        named && if fence.open { asked.any(|(_, has)| has) } else { asked.all(|(_, has)| has) }
    });
    matches != fence.open
}

fn access(letters: &str) -> DeviceAccess {
    let has = |letter| letters.contains(letter);
    DeviceAccess { read: has('r'), write: has('w'), mknod: has('m') }
}

fn rule(text: &str) -> DeviceRule {
    let (kind, rest) = text.split_once(' ').expect("a kind");
    let (numbers, letters) = rest.split_once(' ').expect("numbers");
    let (major, minor) = numbers.split_once(':').expect("two numbers");
    DeviceRule {
        kind: if kind == "b" { DeviceKind::Block } else { DeviceKind::Character },
        major: major.parse().ok(),
        minor: minor.parse().ok(),
        access: access(letters),
    }
}

fn fences() -> Vec<Fence> {
    let of = |open: bool, rules: &[&str]| Fence {
        open,
        exceptions: rules.iter().map(|text| rule(text)).collect(),
    };
    vec![
        of(false, &[]),
        of(false, &["c 1:3 rwm", "c 1:5 r", "c 1:8 w", "b 7:0 m", "c 10:* rw"]),
        of(false, &["c *:* m", "b *:1 rw", "c 1:3 r"]),
        of(true, &[]),
        of(true, &["c 1:3 w", "c 10:* r", "b 7:* m", "c 1:11 rwm"]),
        of(true, &["b *:* rwm", "c *:5 w"]),
    ]
}

fn probes() -> Vec<Probe> {
    let nodes = [
        ("c", 1, 3),
        ("c", 1, 5),
        ("c", 1, 8),
        ("c", 1, 11),
        ("c", 10, 229),
        ("b", 7, 0),
        ("b", 7, 1),
    ];
    let all = nodes.into_iter().flat_map(|(kind, major, minor)| {
        ["r", "w", "rw", "m"].map(|letters| Probe {
            kind: if kind == "b" { DeviceKind::Block } else { DeviceKind::Character },
            major,
            minor,
            access: access(letters),
        })
    });
    all.collect()
}

/// Tries each node in each way and writes one letter for each: + or -. Only EPERM is the fence's answer.
const SCRIPT: &str = r#"
import os, sys
sys.stdin.readline()
for line in open(sys.argv[1]):
    node, kind, major, minor, how = line.split()
    try:
        if how == 'm':
            os.mknod(node + '-new', int(kind, 8) | 0o600, os.makedev(int(major), int(minor)))
            os.unlink(node + '-new')
        else:
            flag = {'r': os.O_RDONLY, 'w': os.O_WRONLY, 'rw': os.O_RDWR}[how]
            os.close(os.open(node, flag | os.O_NONBLOCK))
        print(end='+')
    except PermissionError:
        print(end='-')
    except OSError:
        print(end='+')
"#;

/// What a process in the cgroup is answered.
fn answers(cgroup: &Cgroup, list: &Path) -> String {
    let mut command = Command::new("python3");
    command.args(["-c", SCRIPT]).arg(list).stdin(Stdio::piped()).stdout(Stdio::piped());
    let mut child = command.spawn().expect("python3 starts");
    cgroup.join(i32::try_from(child.id()).expect("a pid")).expect("it joins");
    let mut input = child.stdin.take().expect("a pipe");
    std::io::Write::write_all(&mut input, b"go\n").expect("it reads");
    let output = child.wait_with_output().expect("reaped");
    assert!(output.status.success(), "the script ends well");
    String::from_utf8(output.stdout).expect("plus and minus")
}

/// The nodes, and the list of what to try.
fn nodes(directory: &Path) -> std::path::PathBuf {
    let mut list = String::new();
    for probe in probes() {
        let (letter, mode) = match probe.kind {
            DeviceKind::Block => ("b", "60000"),
            DeviceKind::Character => ("c", "20000"),
        };
        let Probe { major, minor, access, .. } = probe;
        let node = directory.join(format!("{letter}{major}-{minor}"));
        if !node.exists() {
            let mut mknod = Command::new("mknod");
            mknod.arg(&node).args([letter, &major.to_string(), &minor.to_string()]);
            assert!(mknod.status().expect("mknod starts").success(), "make a node");
        }
        let how = match (access.read, access.write) {
            (true, true) => "rw",
            (true, false) => "r",
            (false, true) => "w",
            (false, false) => "m",
        };
        list += &format!("{} {mode} {major} {minor} {how}\n", node.display());
    }
    let path = directory.join("list");
    fs::write(&path, list).expect("write the list");
    path
}

#[test]
fn both_layouts_answer_as_the_rules_read() {
    if !nix::unistd::geteuid().is_root() {
        eprintln!("SKIPPED devices: needs root");
        return;
    }
    let directory = std::env::temp_dir().join(format!("berth-fences-{}", std::process::id()));
    fs::create_dir(&directory).expect("a directory for nodes");
    let list = nodes(&directory);
    let host = Hierarchy::detect().expect("cgroups are mounted");
    let unified = host.unified().map(|root| Hierarchy::V2 { root: root.to_owned() });
    let layouts = [Some(host.clone()), unified.filter(|unified| *unified != host)];
    let path = format!("/berth-fences-{}", std::process::id());
    for layout in layouts.into_iter().flatten() {
        for (index, fence) in fences().iter().enumerate() {
            let cgroup = Cgroup::at(&layout, &path).expect("a good path");
            cgroup.create().expect("made");
            let fenced = cgroup.fence_devices(fence);
            let found = fenced.map(|()| answers(&cgroup, &list));
            cgroup.remove().expect("removed");
            let expected: String = probes()
                .iter()
                .map(|probe| if allowed(fence, probe) { '+' } else { '-' })
                .collect();
            let version = layout.version();
            assert_eq!(found.expect("fenced"), expected, "fence {index} on {version:?}: {fence:?}");
        }
    }
    fs::remove_dir_all(&directory).expect("nodes removed");
}
