//! R18: kernel parameters of a configuration: those of the container's own namespaces, one key and one
//! value each; everything else is refused before anything is written.

use std::fs;

use serde_json::json;
use system_tests::{Check, sample};

use crate::bundle::{Bundle, is_root, said};

/// Keys and values, and whether they are taken.
const ROWS: [(&str, &str, bool); 34] = [
    ("net.ipv4.ip_default_ttl", "77", true),
    ("net.ipv4.ping_group_range", "0 65535", true),
    ("kernel.msgmax", "4096", true),
    ("kernel.shm_rmid_forced", "1", true),
    ("kernel.sem", "250 32000 32 128", true),
    ("fs.mqueue.msg_max", "20", true),
    ("kernel.core_pattern", "|/bin/x", false),
    ("kernel.core_pattern", "core", false),
    ("kernel.modprobe", "/bin/x", false),
    ("kernel.hotplug", "/bin/x", false),
    ("kernel.poweroff_cmd", "/bin/x", false),
    ("kernel.panic", "1", false),
    ("kernel.sysrq", "1", false),
    ("kernel.hostname", "x", false),
    ("kernel.domainname", "x", false),
    ("kernel.yama.ptrace_scope", "0", false),
    ("kernel.unprivileged_bpf_disabled", "0", false),
    ("kernel.msgmax.x", "1", false),
    ("kernel.shm_rmid_forced+kernel.core_pattern", "1", false),
    ("kernel.shm_rmid_forced ", "1", false),
    ("kernel.shm_rmid_forced", "1\n1", false),
    ("kernel.shm_rmid_forced", "", false),
    ("kernel.shm_rmid_forced", "1\0", false),
    ("kernel/msgmax", "1", false),
    ("kernel/../kernel/core_pattern", "x", false),
    ("net.ipv4../../kernel/core_pattern", "x", false),
    ("net....kernel.core_pattern", "x", false),
    ("net.ipv4.ip_default_ttl", "77\nkernel.core_pattern=x", false),
    ("fs.file-max", "1", false),
    ("fs.suid_dumpable", "2", false),
    ("fs.protected_symlinks", "0", false),
    ("vm.drop_caches", "3", false),
    ("vm.overcommit_memory", "1", false),
    ("user.max_user_namespaces", "0", false),
];

fn proc_path(key: &str) -> String {
    format!("/proc/sys/{}", key.replace('.', "/"))
}

#[test]
fn only_parameters_of_the_containers_own_namespaces_are_set() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("sysctl");
    let host = |key: &str| fs::read_to_string(proc_path(key)).unwrap_or_default();
    for (key, value, taken) in sample(&ROWS, 14) {
        let before = host(key);
        bundle.change(|config| config["linux"]["sysctl"] = json!({ key: value }));
        let output = bundle.run(&format!("cat {}", proc_path(key.trim())));
        let variant = format!("{key} = {value:?}");
        let control = "net.ipv4.ip_default_ttl is taken, and is 77 inside";
        let check = || Check { id: "R18", variant: &variant, control };
        check().sees(taken, output.status.success());
        if taken {
            let inside = String::from_utf8_lossy(&output.stdout).into_owned();
            let inside: Vec<&str> = inside.split_whitespace().collect();
            check().sees(value, inside.join(" "));
        } else {
            assert!(said(&output).contains("linux.sysctl"), "{variant}: {}", said(&output));
        }
        check().sees(before, host(key));
    }
}

#[test]
fn a_namespace_that_is_the_hosts_has_no_parameters() {
    if !is_root() {
        return;
    }
    for (kind, key, value) in [
        ("network", "net.ipv4.ip_default_ttl", "78"),
        ("ipc", "kernel.msgmax", "4097"),
        ("ipc", "fs.mqueue.msg_max", "21"),
    ] {
        let bundle = Bundle::new(&format!("shared-{}", value));
        bundle.change(|config| {
            config["linux"]["sysctl"] = json!({ key: value });
            // Mounts that need the namespace go with it.
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["type"] != "sysfs" && mount["type"] != "mqueue");
        });
        let output = bundle.run("true");
        bundle.succeed(output);
        let before = fs::read_to_string(proc_path(key)).expect("read the host's");
        bundle.change(|config| {
            let namespaces = config["linux"]["namespaces"].as_array_mut().expect("namespaces");
            namespaces.retain(|namespace| namespace["type"] != kind);
        });
        let output = bundle.run("true");
        let variant = format!("{key} with the host's {kind} namespace");
        let check = || Check {
            id: "R18",
            variant: &variant,
            control: "with a namespace of its own it is set",
        };
        check().sees(false, output.status.success());
        check().sees(before, fs::read_to_string(proc_path(key)).expect("read the host's"));
    }
}
