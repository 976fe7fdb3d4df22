//! config.md, "Mounts", and config-linux.md, "Default Filesystems".

use serde_json::json;

use crate::case::Case;

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
