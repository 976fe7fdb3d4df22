//! R03, R04, R12: what is masked and read-only, with the same container unmasked as the control; a root
//! whose devices are links, where there is no `/dev` of the container's own; keys of whoever starts it.

use std::fs;
use std::os::unix::fs::symlink;
use std::process::Command;

use serde_json::json;
use system_tests::Check;
use system_tests::programs::{attacker, install, unguarded};

use crate::bundle::{Bundle, is_root, runtime, said};

/// How much of each masked file is readable, or how many entries of a directory.
const SIZES: &str = "for f in /proc/acpi /proc/asound /proc/interrupts /proc/keys /proc/latency_stats \
    /proc/sched_debug /proc/scsi /proc/timer_list /proc/timer_stats /sys/devices/virtual/powercap \
    /sys/firmware; do \
    if [ -d $f ]; then echo $f $(ls $f | wc -w); elif [ -e $f ]; then echo $f $(cat $f | wc -c); fi; done";

#[test]
fn masked_paths_are_empty_and_are_not_without_the_mask() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("masks");
    let masked = bundle.run(SIZES);
    let masked = bundle.succeed(masked);
    bundle.change(|config| config["linux"]["maskedPaths"] = json!([]));
    let open = bundle.run(SIZES);
    let open = bundle.succeed(open);
    let mut told = 0;
    for (line, control) in masked.lines().zip(open.lines()) {
        let (path, size) = line.split_once(' ').expect("two words");
        assert!(control.starts_with(path), "{control}");
        told += u32::from(!control.ends_with(" 0"));
        let control = format!("unmasked: {control}");
        Check { id: "R03", variant: path, control: &control }.sees("0", size);
    }
    assert!(told >= 3, "the control tells something: {open}");
}

#[test]
fn read_only_paths_are_so_by_their_mounts() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("readonly");
    // With the capability that the kernel itself asks for, so that the mount alone refuses.
    bundle.change(|config| {
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut().expect("a set");
            set.push("CAP_NET_ADMIN".into());
        }
    });
    let script = "f=/proc/sys/net/ipv4/ip_default_ttl; { echo 65 >$f; } 2>&1; cat $f";
    let output = bundle.run(script);
    let guarded = bundle.succeed(output);
    bundle.change(|config| config["linux"]["readonlyPaths"] = json!([]));
    let output = bundle.run(script);
    let control = bundle.succeed(output);
    assert_eq!(control, "65\n", "the control writes");
    let refused = guarded.contains("Read-only file system") && !guarded.contains("65");
    Check {
        id: "R18",
        variant: "a parameter of its own",
        control: "without the mount it is written",
    }
    .sees(true, refused);
}

/// What of a root without `/dev` of the container's own is a link.
const DEVICES: [&str; 8] =
    ["dev", "dev/console", "dev/ptmx", "dev/pts", "dev/shm", "dev/mqueue", "dev/null", "dev/tty"];

#[test]
fn devices_of_a_root_that_are_links_lead_nowhere_without_a_dev_of_its_own() {
    if !is_root() {
        return;
    }
    for path in DEVICES {
        let bundle = Bundle::new(&format!("root-{}", path.replace('/', "-")));
        let canary = bundle.outside("canary");
        fs::create_dir(&canary).expect("make a host directory");
        fs::write(canary.join("token"), "canary").expect("write a host file");
        bundle.change(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            mounts.retain(|mount| mount["destination"] != "/dev");
            config["root"]["readonly"] = false.into();
        });
        if path != "dev" {
            fs::create_dir(bundle.root("dev")).expect("make /dev");
        }
        let directory = ["dev", "dev/pts", "dev/shm", "dev/mqueue"].contains(&path);
        let target = if directory { canary.clone() } else { canary.join("token") };
        symlink(&target, bundle.root(path)).expect("link");
        bundle.own();
        let control = unguarded(&format!(
            "mount {} {} && {{ cat {canary}/token 2>/dev/null | wc -c; }}",
            if directory { "-t tmpfs none" } else { "--bind /dev/null" },
            bundle.root(path).display(),
            canary = canary.display()
        ));
        assert_eq!(control.trim(), "0", "the control covers the host's file");
        let output = bundle.run("true");
        let check = |variant: &str| -> (String, &'static str) {
            (format!("/{path}, {variant}"), "mount(8) through the link covers the host's file")
        };
        let left: Vec<String> = fs::read_dir(&canary)
            .expect("list")
            .flatten()
            .map(|entry| entry.file_name().to_string_lossy().into_owned())
            .collect();
        let (variant, control) = check("the host");
        Check { id: "R04", variant: &variant, control }.sees("[\"token\"]", format!("{left:?}"));
        let text = fs::read_to_string(canary.join("token")).expect("read");
        Check { id: "R04", variant: &variant, control }.sees("canary", text);
        // What Berth puts nothing on is the image's business.
        let ours = !["dev/console", "dev/ptmx"].contains(&path);
        let (variant, control) = check("started");
        assert!(
            output.status.success() || said(&output).contains("ordinary directory"),
            "{}",
            said(&output)
        );
        Check { id: "R04", variant: &variant, control }.sees(!ours, output.status.success());
    }
}

#[test]
fn keys_of_whoever_starts_a_container_do_not_come_with_it() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("callers-keys");
    let program = bundle.outside("attacker");
    install(attacker(), &program);
    install(attacker(), &bundle.root("attacker"));
    bundle.own();
    // The filter and the mask would keep keys from being looked for; without both, there are none.
    bundle.change(|config| {
        config["linux"]["seccomp"] = serde_json::Value::Null;
        config["linux"]["maskedPaths"] = json!([]);
        config["process"]["args"] = json!(["/attacker", "keys"]);
    });
    let said = |words: &[&str]| -> String {
        let output = Command::new(&program).arg("with-key").args(words).output().expect("run it");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    };
    let path = program.to_str().expect("temporary paths are UTF-8");
    let control = said(&["/usr/bin/unshare", "--user", "--map-root-user", path, "keys"]);
    assert_eq!(control, "key 0", "the control finds the caller's key");
    let runtime = runtime();
    let state = bundle.outside("state");
    let root = bundle.root("");
    let directory = root.parent().expect("the bundle");
    let inside = said(&[
        runtime.to_str().expect("it is UTF-8"),
        "--root",
        state.to_str().expect("it is UTF-8"),
        "run",
        "--bundle",
        directory.to_str().expect("it is UTF-8"),
        bundle.name(),
    ]);
    let control = format!("in a user namespace alone: {control}");
    // ENOKEY.
    Check { id: "R12", variant: "the caller's session keyring", control: &control }
        .sees("key 126", inside);
}
