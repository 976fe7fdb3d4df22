//! config-linux.md, "Devices".

use std::fs;

use serde_json::{Value, json};

use crate::case::{Case, is_berths};

/// Lets the container make every node, as engines do.
fn with_rules(case: Case) -> Case {
    let rules = json!({ "devices": [{ "allow": true, "access": "rwm" }] });
    case.with("/linux/resources", rules)
}

const STAT: &str = "stat -c '%n %F %t:%T %a %u:%g'";

/// `type`, `path`, `major`, `minor`, `fileMode`, `uid`, `gid`.
#[test]
fn devices_are_made_as_configured() {
    let Some(case) = Case::new("devices-made") else { return };
    let script = format!("{STAT} /dev/fuse /dev/below/disk /dev/pipe /dev/zero; wc -c </dev/null");
    let devices = json!([
        { "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229, "fileMode": 0o600, "uid": 3, "gid": 4 },
        { "path": "/dev/below/disk", "type": "b", "major": 7, "minor": 9, "fileMode": 0o640 },
        { "path": "/dev/pipe", "type": "p", "fileMode": 0o622, "uid": 5 },
        { "path": "/dev/zero", "type": "c", "major": 1, "minor": 5, "fileMode": 0o444, "uid": 6 },
        { "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "fileMode": 0o666 },
    ]);
    let case = with_rules(case).script(&script).with("/linux/devices", devices);
    let expected = "/dev/fuse character special file a:e5 600 3:4\n\
        /dev/below/disk block special file 7:9 640 0:0\n\
        /dev/pipe fifo 0:0 622 5:0\n\
        /dev/zero character special file 1:5 444 6:0\n0\n";
    assert_eq!(case.run(), expected);
}

/// Where a node may not be made it is the host's: by the rules of the cgroup, in a user namespace.
#[test]
fn devices_that_may_not_be_made_are_the_hosts() {
    if !is_berths() {
        // Of what crun is given as standard input it changes the owner: of the host's /dev/null.
        eprintln!("SKIPPED conformance: runc makes nodes before the rules hold, crun does harm");
        return;
    }
    let Some(case) = Case::new("devices-bound") else { return };
    let zero = json!([{ "path": "/dev/zero", "type": "c", "major": 1, "minor": 5 }]);
    let script = format!("{STAT} /dev/zero; grep -c ' /dev/zero ' /proc/self/mountinfo");
    let case = case.script(&script).with("/linux/devices", zero);
    let maps = json!([{ "containerID": 0, "hostID": 700_000, "size": 1000 }]);
    assert_eq!(case.run(), "/dev/zero character special file 1:5 666 0:0\n1\n");
    for name in ["proc", "dev"] {
        let place = case.directory.join("rootfs").join(name);
        fs::create_dir_all(place).expect("make a directory");
    }
    let case = case.with("/linux/uidMappings", maps.clone()).with("/linux/gidMappings", maps);
    let case = case.with("/linux/namespaces/-", json!({ "type": "user" }));
    let nobody = "/dev/zero character special file 1:5 666 65534:65534\n1\n";
    assert_eq!(case.run(), nobody, "the host's root is nobody in there");
    let absent = json!([{ "path": "/dev/nosuch", "type": "c", "major": 10, "minor": 229 }]);
    let said = case.with("/linux/devices", absent).create_refused();
    assert!(said.contains("linux.devices[0] (/dev/nosuch)"), "{said}");
}

/// "If a file already exists at path that does not match the requested device, the runtime MUST generate an
/// error"; one that matches is taken.
#[test]
fn what_is_there_already_has_to_be_the_device() {
    let Some(case) = Case::new("devices-there") else { return };
    let file = json!([{ "path": "/bin/busybox", "type": "c", "major": 10, "minor": 229 }]);
    let case = with_rules(case).with("/linux/devices", file);
    if is_berths() {
        // runc takes whatever is there.
        let said = case.create_refused();
        assert!(said.contains("linux.devices[0] (/bin/busybox): something else"), "{said}");
    }
    let twice = json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 });
    let case = case.with("/linux/devices", json!([twice, twice]));
    assert_eq!(case.script("test -c /dev/fuse && echo there").run(), "there\n");
}

/// What cannot be is an error that names it.
#[test]
fn devices_that_cannot_be_are_refused() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: runc takes some of these");
        return;
    }
    let good = json!({ "path": "/dev/fuse", "type": "c", "major": 10, "minor": 229 });
    let bad = |name: &str, value: Value| {
        let mut device = good.clone();
        device[name] = value;
        device
    };
    for (number, (device, part)) in [
        (bad("path", json!("dev/fuse")), "linux.devices[0].path"),
        (bad("path", json!("/dev/../fuse")), "linux.devices[0].path"),
        (bad("path", json!("/proc/fuse")), "linux.devices[0].path"),
        (bad("path", json!("/dev/null")), "/dev/null is another device"),
        (bad("type", json!("a")), "linux.devices[0].type"),
        (bad("major", json!(-1)), "-1:229 is no device"),
        (bad("minor", json!(1 << 20)), "10:1048576 is no device"),
        (bad("fileMode", json!(0o20_000_000)), "linux.devices[0].fileMode"),
    ]
    .into_iter()
    .enumerate()
    {
        let Some(case) = Case::new(&format!("devices-bad-{number}")) else { return };
        let said = case.with("/linux/devices", json!([device])).create_refused();
        assert!(said.contains(part), "{part}: {said}");
    }
}
