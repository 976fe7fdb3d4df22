//! config.md, "Mounts", and config-linux.md, "Default Filesystems".

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};

use nix::mount::{MntFlags, MsFlags, mount, umount2};
use serde_json::{Value, json};

use crate::case::{Case, is_berths, runtime};

/// config-linux.md, "Namespaces": without one of cgroups, a mount of type `cgroup` shows the container's
/// own cgroup in each tree, and nothing in it can be written.
#[test]
fn a_cgroup_mount_without_a_namespace_shows_the_own_cgroup_read_only() {
    let Some(case) = Case::new("cgroup-mount") else { return };
    let sys = json!({ "destination": "/sys", "type": "sysfs", "source": "sysfs",
        "options": ["nosuid", "noexec", "nodev", "ro"] });
    let cgroup = json!({ "destination": "/sys/fs/cgroup", "type": "cgroup", "source": "cgroup",
        "options": ["nosuid", "noexec", "nodev", "relatime", "ro"] });
    let script = "cd /sys/fs/cgroup; for tree in . pids unified; do \
        test -f $tree/cgroup.procs || continue; read -r pid <$tree/cgroup.procs; \
        echo first $pid in $tree; (echo 1 >$tree/cgroup.procs) 2>/dev/null && echo wrote $tree; \
        done; mkdir pids/made 2>/dev/null && echo made; echo end";
    let case = case.script(script).with("/mounts/-", sys).with("/mounts/-", cgroup);
    let text = case.run();
    let mut lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.pop(), Some("end"), "{text}");
    assert!(
        !lines.is_empty() && lines.iter().all(|line| line.starts_with("first 1 in ")),
        "{text}"
    );
}

/// "Linux mount options": `rro` and its like hold for what is mounted below too, `ro` for the mount alone.
#[test]
fn recursive_options_hold_for_what_is_mounted_below() {
    let Some(case) = Case::new("recursive") else { return };
    let script = "while read -r a b c d place options rest; do case $place in \
        /host/*) echo below $options;; /host) echo top $options;; esac; done </proc/self/mountinfo";
    let case = case.script(script);
    let mounts = case.config["mounts"].as_array().expect("a list").clone();
    let shown = |case: Case, options: &[&str]| {
        let mount = json!({ "destination": "/host", "type": "bind", "source": "/sys",
            "options": options });
        let mut all = mounts.clone();
        all.push(mount);
        let case = case.with("/mounts", all.into());
        (case.run(), case)
    };
    let (text, case) = shown(case, &["rbind", "rro", "rnoatime"]);
    let lines: Vec<&str> = text.lines().collect();
    assert!(lines.len() > 1, "/sys has mounts below: {text}");
    let held = |line: &&str| line.contains(" ro,") && line.contains("noatime");
    assert!(lines.iter().all(held), "{text}");
    let (text, _case) = shown(case, &["rbind", "ro"]);
    assert!(text.lines().any(|line| line.starts_with("top ro,")), "{text}");
    assert!(text.lines().any(|line| line.starts_with("below rw,")), "{text}");
}

/// "Linux mount options", `tmpcopyup`: what the image has there is in the tmpfs, which is apart from it.
#[test]
fn a_tmpfs_can_begin_with_what_the_image_has() {
    let Some(case) = Case::new("copy-up") else { return };
    let place = case.directory.join("rootfs/data");
    fs::create_dir_all(place.join("a/b")).expect("make directories");
    fs::write(place.join("a/b/file"), "kept").expect("write a file");
    fs::write(place.join("big"), vec![b'x'; 100_000]).expect("write a file");
    fs::set_permissions(place.join("a/b/file"), fs::Permissions::from_mode(0o4751)).expect("mode");
    chown(place.join("a/b"), Some(7), Some(8)).expect("change the owner");
    symlink("/nowhere/at/all", place.join("link")).expect("make a link");
    for number in 0..300 {
        fs::write(place.join(format!("a/name-that-is-rather-long-{number}")), "").expect("write");
    }
    fs::set_permissions(&place, fs::Permissions::from_mode(0o1777)).expect("mode");
    let tmpfs = json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs",
        "options": ["nosuid", "nodev", "tmpcopyup"] });
    let script = "cd /data; cat a/b/file; echo; wc -c <big; readlink link; ls a | wc -l; \
        stat -c '%n %a %u:%g' . a/b a/b/file; stat -c %Y a/b/file; echo more >a/b/file; touch made; \
        grep -c ' /data .* tmpfs ' /proc/self/mountinfo";
    let case = case.script(script).with("/mounts/-", tmpfs.clone());
    let time = fs::metadata(place.join("a/b/file")).expect("it is there").mtime();
    let expected = format!(
        "kept\n100000\n/nowhere/at/all\n301\n. 1777 0:0\na/b 755 7:8\na/b/file 4751 0:0\n{time}\n1\n"
    );
    let expected = match is_berths() {
        true => expected,
        // runc 1.1 leaves times and set-user-id bits away.
        false => case.run(),
    };
    if is_berths() {
        assert_eq!(case.run(), expected);
    } else {
        assert!(expected.starts_with("kept\n100000\n/nowhere/at/all\n301\n"), "{expected}");
    }
    assert_eq!(fs::read_to_string(place.join("a/b/file")).expect("it is there"), "kept");
    assert!(!place.join("made").exists());
    let mut sealed = tmpfs;
    sealed["options"] = json!(["ro", "tmpcopyup", "mode=700"]);
    let case = with_fourth(case, sealed).script(
        "cat /data/a/b/file; touch /data/made 2>/dev/null && echo wrote; stat -c ' %a' /data",
    );
    if is_berths() {
        // runc 1.1 copies into what is read-only already.
        assert_eq!(case.run(), "kept 700\n");
    }
}

/// What runc does and the specification leaves open: without `mode` a tmpfs has that of the directory at its
/// place, so that what only root could read is not everybody's; where there is none, everybody writes.
#[test]
fn a_tmpfs_has_the_mode_of_its_place() {
    let Some(case) = Case::new("tmpfs-mode") else { return };
    let place = case.directory.join("rootfs/data");
    fs::create_dir(&place).expect("make a directory");
    fs::set_permissions(&place, fs::Permissions::from_mode(0o2710)).expect("mode");
    let tmpfs = |place: &str, options: &[&str]| json!({ "destination": place, "type": "tmpfs", "source": "tmpfs", "options": options });
    let case = case.script("stat -c '%n %a' /data /new /copied /data/given");
    let case = case.with("/mounts/-", tmpfs("/data", &["nosuid"]));
    let case = case.with("/mounts/-", tmpfs("/new", &["nosuid"]));
    let case = case.with("/mounts/-", tmpfs("/copied", &["tmpcopyup"]));
    let case = case.with("/mounts/-", tmpfs("/data/given", &["mode=705"]));
    assert_eq!(case.run(), "/data 2710\n/new 1777\n/copied 1777\n/data/given 705\n");
}

/// config.md, "Mounts", `type`: whatever file system the kernel has, with its source and its options.
#[test]
fn any_file_system_of_the_kernel_can_be_mounted() {
    let Some(case) = Case::new("any-type") else { return };
    for name in ["lower", "upper", "work"] {
        fs::create_dir(case.directory.join(name)).expect("make a directory");
    }
    fs::write(case.directory.join("lower/file"), "below").expect("write a file");
    let at = |name: &str| format!("{name}dir={}", case.directory.join(name).display());
    let overlay = json!({ "destination": "/merged", "type": "overlay", "source": "merged",
        "options": ["nosuid", at("lower"), at("upper"), at("work")] });
    let ramfs = json!({ "destination": "/ram", "type": "ramfs", "source": "ramfs",
        "options": ["sync", "ro", "mode=700"] });
    let script = "cat /merged/file; echo; echo new >/merged/made; \
        grep -E ' /(merged|ram) ' /proc/self/mountinfo | while read -r a b c d place flags rest; do \
        echo $place $flags ${rest#- }; done; touch /ram/made 2>/dev/null && echo wrote; echo end";
    let case = case.script(script).with("/mounts/-", overlay).with("/mounts/-", ramfs);
    let text = case.run();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!((lines[0], lines.len(), lines[lines.len() - 1]), ("below", 4, "end"), "{text}");
    assert!(lines[1].starts_with("/merged rw,nosuid,relatime overlay merged rw,"), "{text}");
    assert!(lines[2].starts_with("/ram ro,relatime ramfs ramfs r"), "{text}");
    assert!(lines[2].contains("sync"), "{text}");
    assert_eq!(case.file("upper/made"), "new\n");
    let absent = json!({ "destination": "/t", "type": "nosuch", "source": "none" });
    let said = with_fourth(case, absent).create_refused();
    if is_berths() {
        assert!(said.contains("mounts[3].type: \"nosuch\""), "{said}");
    }
}

/// Another mount in the place of the one that a test has added.
fn with_fourth(mut case: Case, mount: Value) -> Case {
    case.config["mounts"][3] = mount;
    case
}

/// Directories in one another beyond what is copied are an error, not a crash.
#[test]
fn a_copy_up_has_a_limit_of_depth() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: the limit is Berth's");
        return;
    }
    let Some(case) = Case::new("copy-up-deep") else { return };
    let mut place = case.directory.join("rootfs/data");
    place.extend((0..70).map(|_| "d"));
    fs::create_dir_all(&place).expect("make directories");
    let tmpfs = json!({ "destination": "/data", "type": "tmpfs", "source": "tmpfs",
        "options": ["tmpcopyup"] });
    let said = case.with("/mounts/-", tmpfs).create_refused();
    assert!(said.contains("mounts[3] (/data)"), "{said}");
}

/// A mount of the host's, gone at the end.
struct Outside {
    place: std::path::PathBuf,
}

impl Outside {
    fn new(case: &Case, kind: MsFlags) -> Self {
        let place = std::env::temp_dir().join(format!("berth-conformance-mount-{}", case.id));
        fs::create_dir(&place).expect("make a directory");
        let none = None::<&str>;
        mount(Some("tmpfs"), &place, Some("tmpfs"), MsFlags::empty(), none).expect("mount a tmpfs");
        mount(none, &place, none, kind, none).expect("change the propagation");
        fs::create_dir(place.join("below")).expect("make a directory");
        Self { place }
    }
}

impl Drop for Outside {
    fn drop(&mut self) {
        // What is mounted below it goes along.
        umount2(&self.place, MntFlags::MNT_DETACH).expect("unmount the tmpfs");
        fs::remove_dir(&self.place).expect("remove its place");
    }
}

/// The mounts at and below `/out` in a running container: the fields of their propagation.
fn shown(case: &Case) -> Vec<String> {
    let path = format!("/proc/{}/mountinfo", case.state()["pid"]);
    let text = fs::read_to_string(path).expect("it runs");
    let lines = text.lines().filter(|line| line.contains(" /out"));
    let kinds = lines.map(|line| {
        let fields = line.split(' ').skip(6).take_while(|field| *field != "-");
        let names = fields.map(|field| field.split(':').next().expect("a name"));
        names.collect::<Vec<_>>().join(" ")
    });
    kinds.collect()
}

/// "Linux mount options": `shared`, `slave`, `private`, `unbindable`; without one of them private.
#[test]
fn mounts_are_passed_on_as_their_options_say() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: runc makes of every mount a slave first");
        return;
    }
    for (option, kind, sees, seen) in [
        ("rshared", "shared", true, true),
        ("shared", "shared", true, true),
        ("rslave", "master", true, false),
        ("slave", "master", true, false),
        ("rprivate", "", false, false),
        ("private", "", false, false),
        ("runbindable", "unbindable", false, false),
        ("rbind", "", false, false),
    ] {
        let Some(case) = Case::new(&format!("propagation-{option}")) else { return };
        let outside = Outside::new(&case, MsFlags::MS_SHARED);
        let bound = json!({ "destination": "/out", "type": "bind", "source": outside.place,
            "options": ["rbind", option] });
        let sets = json!({ "bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"],
            "permitted": ["CAP_SYS_ADMIN"] });
        let case = case.with("/mounts/-", bound).with("/process/capabilities", sets).started();
        assert_eq!(shown(&case), [kind], "{option}");
        case.done("exec ID mkdir /out/inner");
        let none = None::<&str>;
        let below = outside.place.join("below");
        mount(Some("tmpfs"), &below, Some("tmpfs"), MsFlags::empty(), none).expect("mount");
        assert_eq!(shown(&case).len() == 2, sees, "{option}: what the host mounts");
        case.done("exec ID mount -t tmpfs tmpfs /out/inner");
        let host = fs::read_to_string("/proc/self/mountinfo").expect("the host's");
        let inner = format!("{} ", outside.place.join("inner").display());
        assert_eq!(host.contains(&inner), seen, "{option}: what the container mounts");
    }
}

/// The same in a user namespace: what a container without power over the host mounts is not passed on to it
/// (mount_namespaces(7), "Restrictions on mount namespaces"). The control is `rshared` in the test before.
#[test]
fn nothing_is_passed_on_to_the_host_from_a_user_namespace() {
    if runtime().ends_with("crun") {
        eprintln!(
            "SKIPPED conformance: crun gives the host's null device to a user namespace's root"
        );
        return;
    }
    let Some(case) = Case::new("propagation-user") else { return };
    let outside = Outside::new(&case, MsFlags::MS_SHARED);
    for name in ["proc", "dev", "out"] {
        let place = case.directory.join("rootfs").join(name);
        fs::create_dir(place).expect("make a directory");
    }
    let bound = json!({ "destination": "/out", "type": "bind", "source": outside.place,
        "options": ["rbind", "rshared"] });
    let sets = json!({ "bounding": ["CAP_SYS_ADMIN"], "effective": ["CAP_SYS_ADMIN"],
        "permitted": ["CAP_SYS_ADMIN"] });
    let maps = json!([{ "containerID": 0, "hostID": 700_000, "size": 1000 }]);
    let case = case.with("/mounts/-", bound).with("/process/capabilities", sets);
    let case = case.with("/linux/uidMappings", maps.clone()).with("/linux/gidMappings", maps);
    let case = case.with("/linux/namespaces/-", json!({ "type": "user" })).started();
    let kinds = shown(&case);
    assert_eq!(kinds, ["shared master"], "{kinds:?}");
    case.done("exec ID mount -t tmpfs tmpfs /out/below");
    assert_eq!(shown(&case).len(), 2, "it is mounted there");
    let host = fs::read_to_string("/proc/self/mountinfo").expect("the host's");
    let below = format!("{} ", outside.place.join("below").display());
    assert!(!host.contains(&below), "and nowhere else");
}

/// config-linux.md, "Rootfs Mount Propagation".
#[test]
fn the_root_is_passed_on_as_configured() {
    for (value, kind) in [
        ("rshared", "shared"),
        ("shared", "shared"),
        ("private", ""),
        ("rprivate", ""),
        ("unbindable", "unbindable"),
        ("rslave", ""),
    ] {
        if !is_berths() && !kind.is_empty() {
            // runc passes the root on only if the host's mount is so already, and cannot have it unbindable.
            continue;
        }
        let Some(case) = Case::new(&format!("root-{value}")) else { return };
        let case = case.with("/linux/rootfsPropagation", value.into()).started();
        let path = format!("/proc/{}/mountinfo", case.state()["pid"]);
        let text = fs::read_to_string(path).expect("it runs");
        let root = text.lines().find(|line| line.split(' ').nth(4) == Some("/")).expect("a root");
        let field = root.split(' ').nth(6).expect("a field").split(':').next().expect("a name");
        let expected = if kind.is_empty() { "-" } else { kind };
        // Whether it is a slave depends on the host's mounts.
        let seen = if value == "rslave" && field == "master" { "-" } else { field };
        assert_eq!(seen, expected, "{value}: {root}");
    }
    let Some(case) = Case::new("root-nosuch") else { return };
    let said = case.with("/linux/rootfsPropagation", "sideways".into()).create_refused();
    if is_berths() {
        assert!(said.contains("linux.rootfsPropagation") && said.contains("sideways"), "{said}");
    }
}

/// "Linux mount options", `remount`: the mount that is there is changed.
#[test]
fn a_remount_changes_what_is_there() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: runc 1.1 mounts anew");
        return;
    }
    let Some(case) = Case::new("remount") else { return };
    let tmpfs = json!({ "destination": "/t", "type": "tmpfs", "source": "tmpfs",
        "options": ["size=64k"] });
    let bound = json!({ "destination": "/t", "source": "/", "options": ["bind", "remount", "ro",
        "nosuid"] });
    let sized =
        json!({ "destination": "/t", "type": "tmpfs", "options": ["remount", "size=128k"] });
    let script = "grep ' /t ' /proc/self/mountinfo | while read -r a b c d e f rest; do \
        echo $f; case $rest in *size=128k*) echo sized;; esac; done; \
        touch /t/made 2>/dev/null && echo wrote; echo end";
    let case = case.script(script).with("/mounts/-", tmpfs).with("/mounts/-", bound);
    let case = case.with("/mounts/-", sized);
    let text = case.run();
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(lines.len(), 3, "{text}");
    assert!(lines[0].starts_with("ro,nosuid"), "{text}");
    assert_eq!(lines[1..], ["sized", "end"]);
    let nothing = json!({ "destination": "/bin", "options": ["remount", "bind", "ro"] });
    let said = case.with("/mounts/-", nothing).create_refused();
    assert!(said.contains("mounts[6] (/bin)"), "{said}");
}

/// `uidMappings` and `gidMappings` of a mount: owners on disk are shown by them; in a user namespace
/// `idmap` alone takes the container's.
#[test]
fn the_owners_of_a_mount_are_mapped() {
    let Some(case) = Case::new("idmap") else { return };
    let outside = case.directory.join("outside");
    fs::create_dir(&outside).expect("make a directory");
    fs::write(outside.join("file"), "").expect("write a file");
    chown(outside.join("file"), Some(3), Some(4)).expect("change the owner");
    let row = |host: u32| json!([{ "containerID": 0, "hostID": host, "size": 1000 }]);
    let mount = |more: Value| {
        let mut mount = json!({ "destination": "/out", "type": "bind", "source": outside,
            "options": ["rbind"] });
        for (key, value) in more.as_object().expect("an object") {
            mount[key] = value.clone();
        }
        mount
    };
    let mapped = mount(json!({ "uidMappings": row(50_000), "gidMappings": row(60_000) }));
    let case = case.script("stat -c '%u:%g' /out/file").with("/mounts/-", mapped);
    if !is_berths() {
        eprintln!("SKIPPED conformance: runc 1.1 wants a user namespace for mapped mounts");
        return;
    }
    assert_eq!(case.run(), "50003:60004\n");
    let plain = mount(json!({ "options": ["rbind", "idmap"] }));
    let case = with_fourth(case, plain);
    let said = case.create_refused();
    assert!(said.contains("idmap") && said.contains("/out"), "{said}");
    for name in ["proc", "dev", "out"] {
        let place = case.directory.join("rootfs").join(name);
        fs::create_dir_all(place).expect("make a directory");
    }
    let case = case.with("/linux/uidMappings", row(700_000));
    let case = case.with("/linux/gidMappings", row(700_000));
    let case = case.with("/linux/namespaces/-", json!({ "type": "user" }));
    assert_eq!(case.run(), "3:4\n");
    let control = with_fourth(case, mount(json!({})));
    assert_eq!(control.run(), "65534:65534\n", "without it they are nobody's");
}
