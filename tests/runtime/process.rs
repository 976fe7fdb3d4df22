//! R12: the state in which programs start, the same for a container's first process and every later
//! one; limits, keyring, protections of `/proc` and `/sys`.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use system_tests::programs;

use crate::bundle::{Bundle, FIRST_ID, is_root};
use crate::prober::{prober, remove};

/// The eleven capabilities of the profile.
const CAPABILITIES: &str = "00000000800405fb";
const NONE: &str = "0000000000000000";

const STATUS: &str = "grep -E '^(Uid|Gid|Groups|Cap|NoNewPrivs|Seccomp:)' /proc/self/status";

/// What `/proc/self/status` is to say, with blanks squeezed.
fn golden(ids: [u32; 2], groups: &str, in_force: &str) -> String {
    let [user, group] = ids;
    format!(
        "Uid: {user} {user} {user} {user}\nGid: {group} {group} {group} {group}\nGroups:{groups}\n\
         CapInh: {NONE}\nCapPrm: {in_force}\nCapEff: {in_force}\nCapBnd: {CAPABILITIES}\n\
         CapAmb: {NONE}\nNoNewPrivs: 1\nSeccomp: 2\n"
    )
}

fn squeeze(text: &str) -> String {
    let line = |line: &str| line.split_whitespace().collect::<Vec<_>>().join(" ") + "\n";
    text.lines().map(line).collect()
}

#[test]
fn first_and_later_processes_start_in_the_profiles_state() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("golden");
    let root = golden([0, 0], "", CAPABILITIES);
    let output = bundle.run(STATUS);
    assert_eq!(squeeze(&bundle.succeed(output)), root);
    bundle.sleep();
    assert_eq!(squeeze(&bundle.succeed(bundle.exec(&[], STATUS))), root);
    let app = bundle.succeed(bundle.exec(&["-u", "app"], STATUS));
    assert_eq!(squeeze(&app), golden([33, 44], " 55 66", NONE));
    // Init and exec are in the same namespaces and cgroups.
    let shown = "readlink /proc/self/ns/user /proc/self/ns/mnt /proc/self/ns/pid /proc/self/ns/net \
        /proc/self/ns/ipc /proc/self/ns/uts /proc/self/ns/cgroup /proc/self/ns/time; \
        cat /proc/self/uid_map /proc/self/cgroup";
    let later = bundle.succeed(bundle.exec(&[], shown));
    let first = bundle.succeed(bundle.exec(&[], &shown.replace("/self/", "/1/")));
    assert_eq!(later, first);
    assert!(squeeze(&later).contains(&format!("0 {FIRST_ID} 65536")), "{later}");
    // All of them the container's own: the host's are others.
    for kind in ["user", "mnt", "pid", "net", "ipc", "uts", "cgroup", "time"] {
        let link = fs::read_link(format!("/proc/self/ns/{kind}")).expect("read a namespace");
        let link = link.to_string_lossy().into_owned();
        assert!(!later.contains(&link), "{kind} is the host's: {link}");
    }
}

#[test]
fn set_user_id_programs_gain_nothing() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("setuid");
    let program = prober("prober-64", &[]);
    programs::copy(&program, &bundle.root("gain"));
    remove("prober-64", &program);
    bundle.own();
    let mode = fs::Permissions::from_mode(0o4755);
    fs::set_permissions(bundle.root("gain"), mode).expect("make it set-user-id");
    bundle.sleep();
    assert_eq!(bundle.succeed(bundle.exec(&["-u", "app"], "/gain user")), "33\n");
    // The control: where privileges may be gained, the same program gains the container's root.
    let process = bundle.outside("process.json");
    let text = r#"{"user":{"uid":33,"gid":44},"args":["/gain","user"],"cwd":"/",
        "noNewPrivileges":false}"#;
    fs::write(&process, text).expect("write the process");
    let path = process.to_str().expect("temporary paths are UTF-8");
    let without = bundle.succeed(bundle.command(&["exec", "--process", path, bundle.name()]));
    assert_eq!(without, "0\n");
}

#[test]
fn limits_are_the_profiles_or_the_hosts_whichever_is_smaller() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("limits");
    let output = bundle.run("grep -E 'open files|core file|locked memory' /proc/self/limits");
    let text = squeeze(&bundle.succeed(output));
    let own = fs::read_to_string("/proc/self/limits").expect("read our own limits");
    let hard = |name: &str| -> u64 {
        let line = own.lines().find(|line| line.starts_with(name)).expect("a limit");
        let field = line[name.len()..].split_whitespace().nth(1).expect("a hard limit");
        field.parse().unwrap_or(u64::MAX)
    };
    let (files, memory) =
        (hard("Max open files").min(65_536), hard("Max locked memory").min(65_536));
    let wanted = format!(
        "Max core file size 0 0 bytes\nMax open files {} {files} files\n\
         Max locked memory {memory} {memory} bytes\n",
        files.min(1024)
    );
    assert_eq!(text, wanted);
}

#[test]
fn what_would_tell_of_the_host_is_masked_and_its_settings_are_read_only() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("masked");
    let script = "for f in /proc/keys /proc/timer_list /proc/interrupts; do \
            [ -e $f ] && wc -c <$f; done; ls /sys/firmware /proc/acpi | grep -v : | grep . ; \
        for f in /proc/sys/kernel/core_pattern /proc/sysrq-trigger /proc/irq/default_smp_affinity \
            /sys/kernel/uevent_helper /sys/kernel/mm/ksm/run; do \
            [ -e $f ] && { echo x >$f; } 2>&1; done; true";
    let output = bundle.run(script);
    let text = bundle.succeed(output);
    for line in text.lines() {
        let fine = line == "0" || line.contains("Read-only file system");
        let fine = fine || line.contains("Permission denied");
        assert!(fine, "{line:?} in {text}");
    }
    // The control: on the host these are not empty.
    let control = fs::read_to_string("/proc/interrupts").expect("read /proc/interrupts");
    assert!(!control.is_empty(), "the host's file says something");
    assert!(text.contains("Read-only file system"), "{text}");
}

#[test]
fn later_processes_have_no_keyring_of_the_callers() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("keys");
    // Reading keys needs a call that the filter refuses and a file that is masked; without both, the
    // container still has a session keyring of its own.
    bundle.change(|config| {
        config["linux"]["seccomp"] = serde_json::Value::Null;
        config["linux"]["maskedPaths"] = serde_json::json!([]);
    });
    let output = bundle.run("cat /proc/keys");
    let text = bundle.succeed(output);
    assert!(text.contains("_ses"), "a session keyring: {text}");
    let own = fs::read_to_string("/proc/keys").unwrap_or_default();
    let serials = |text: &str| -> Vec<String> {
        text.lines().filter_map(|line| line.split_whitespace().next().map(str::to_owned)).collect()
    };
    let host = serials(&own);
    assert!(serials(&text).iter().all(|serial| !host.contains(serial)), "{own}\n{text}");
}
