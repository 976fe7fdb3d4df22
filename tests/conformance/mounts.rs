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
