//! config-linux.md, "Network Devices" (1.3): devices of the host that are moved into a container.

use std::path::Path;
use std::process::Command;

use serde_json::json;

use crate::case::{Case, is_passed_over};

/// A pair of devices, named after this process and a letter.
struct Pair {
    names: [String; 2],
}

impl Pair {
    fn new(letter: char) -> Self {
        let names = ['a', 'b'].map(|end| format!("bd{letter}{}{end}", std::process::id()));
        let [first, second] = &names;
        ip(&["link", "add", first, "type", "veth", "peer", "name", second]);
        Self { names }
    }
}

impl Drop for Pair {
    fn drop(&mut self) {
        // It ends with the namespace that one end of it was in.
        for name in self.names.iter().filter(|name| exists(name)) {
            Command::new("ip").args(["link", "delete", name]).status().expect("run ip");
        }
    }
}

fn ip(arguments: &[&str]) {
    let status = Command::new("ip").args(arguments).status().expect("run ip");
    assert!(status.success(), "ip {arguments:?}");
}

fn exists(name: &str) -> bool {
    Path::new("/sys/class/net").join(name).exists()
}

/// A case, unless the runtime is one that is known to pass this property over.
fn case(name: &str) -> Option<Case> {
    if is_passed_over() { None } else { Case::new(name) }
}

/// It is moved and renamed, keeps its lasting addresses of global scope and its settings, and is up.
#[test]
fn devices_are_moved_with_their_addresses_and_set_up() {
    let Some(case) = case("devices-moved") else { return };
    let pair = Pair::new('m');
    let [name, _] = &pair.names;
    ip(&["link", "set", name, "mtu", "1300"]);
    ip(&["address", "add", "192.0.2.7/24", "dev", name]);
    ip(&[
        "address",
        "add",
        "192.0.2.8/32",
        "dev",
        name,
        "valid_lft",
        "1000",
        "preferred_lft",
        "1000",
    ]);
    let script = "cat /sys/class/net/moved/mtu; ip -o address show dev moved; ip link show moved";
    let case = case.script(&script.replace("ip ", "busybox ip "));
    let case = case.with(
        "/mounts/-",
        json!({ "destination": "/sys", "type": "sysfs",
        "source": "sysfs", "options": ["ro"] }),
    );
    let case = case.with("/linux/netDevices", json!({ name: { "name": "moved" } }));
    let text = case.run();
    assert!(text.starts_with("1300\n"), "{text}");
    assert!(text.contains(" 192.0.2.7/24 ") && !text.contains("192.0.2.8"), "{text}");
    let up = text.lines().any(|line| line.contains("moved@") && line.contains(",UP"));
    assert!(up, "{text}");
    case.wait("the end of the device with its namespace", || !exists(name));
}

/// Without a name it keeps its own; `%d` is for the kernel to fill.
#[test]
fn devices_keep_their_name_or_are_numbered() {
    let Some(case) = case("devices-names") else { return };
    let pairs = [Pair::new('k'), Pair::new('n')];
    let [kept, numbered] = [&pairs[0].names[0], &pairs[1].names[0]];
    let case = case.script("busybox ip -o link | busybox cut -d: -f2");
    let devices = json!({ kept: {}, numbered: { "name": "net%d" } });
    let text = case.with("/linux/netDevices", devices).run();
    let mut names: Vec<&str> =
        text.lines().filter_map(|line| line.trim().split('@').next()).collect();
    names.sort_unstable();
    let mut expected = vec![kept.as_str(), "lo", "net0"];
    expected.sort_unstable();
    // What the kernel itself puts into new namespaces is none of ours.
    names.retain(|name| expected.contains(name));
    assert_eq!(names, expected, "{text}");
}

/// "MUST check that moving the network interface to the container namespace is possible": a device that is
/// not there, a name that is taken, no namespace to move to. Nothing has been moved then.
#[test]
fn devices_that_cannot_be_moved_are_refused() {
    let Some(mut case) = case("devices-refused") else { return };
    let pair = Pair::new('r');
    let [name, other] = &pair.names;
    let fair = case.config.clone();
    for (devices, named) in [
        (json!({ "bd-absent": {} }), "bd-absent"),
        (json!({ name: {}, "bd-absent": {} }), "bd-absent"),
        (json!({ name: { "name": "lo" } }), "lo"),
        (json!({ name: { "name": "a/b" } }), "\"a/b\""),
        (json!({ name: { "name": "0123456789abcdef" } }), "0123456789abcdef"),
        (json!({ name: { "name": "a%db%d" } }), "a%db%d"),
        (json!({ name: { "name": "same" }, other: { "name": "same" } }), "\"same\""),
    ] {
        case = case.with("/linux/netDevices", devices);
        let said = case.create_refused();
        assert!(said.contains(named), "{named}: {said}");
        assert!(exists(name) && exists(other), "{named}: nothing was moved");
        case.config = fair.clone();
    }
    let kinds = ["pid", "mount", "ipc", "uts"].map(|kind| json!({ "type": kind }));
    let case = case.with("/linux/namespaces", json!(kinds));
    let said = case.with("/linux/netDevices", json!({ name: {} })).create_refused();
    assert!(said.contains("linux.netDevices") && exists(name), "{said}");
}
