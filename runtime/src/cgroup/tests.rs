//! Of the pure parts: the mount table and paths. What the kernel does is shown by `tests/limits`.

use std::path::Path;

use berth_runtime::record::CgroupVersion;

use super::*;

const HYBRID: &str = "\
31 23 0:28 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755
32 31 0:29 / /sys/fs/cgroup/cpu,cpuacct rw - cgroup cgroup rw,cpu,cpuacct
35 31 0:32 / /sys/fs/cgroup/memory rw shared:7 master:1 - cgroup cgroup rw,memory
36 31 0:33 /part /mnt/pids rw - cgroup cgroup rw,pids
39 31 0:36 / /sys/fs/cgroup/pids rw - cgroup cgroup rw,pids
40 31 0:37 / /sys/fs/cgroup/systemd rw - cgroup cgroup rw,xattr,name=systemd
41 31 0:38 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate
";

#[test]
fn the_layout_is_read_from_the_mount_table() {
    let hybrid = Hierarchy::parse(HYBRID).expect("a hybrid layout");
    assert_eq!(hybrid.version(), CgroupVersion::V1);
    assert_eq!(hybrid.unified(), Some(Path::new("/sys/fs/cgroup/unified")));
    assert_eq!(hybrid.root_of(Controller::Pids), Some(Path::new("/sys/fs/cgroup/pids")));
    assert_eq!(hybrid.root_of(Controller::Cpuacct), hybrid.root_of(Controller::Cpu));
    assert_eq!(hybrid.root_of(Controller::Devices), None);
    // Five trees: one is shared by two controllers, the unified one is last.
    assert_eq!(hybrid.roots().len(), 5);
    assert_eq!(hybrid.roots()[4].0, Path::new("/sys/fs/cgroup/unified"));

    let legacy = HYBRID.lines().filter(|line| !line.contains("cgroup2")).collect::<Vec<_>>();
    let legacy = Hierarchy::parse(&legacy.join("\n")).expect("a legacy layout");
    assert_eq!((legacy.version(), legacy.unified()), (CgroupVersion::V1, None));

    let v2 = "26 22 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate";
    let v2 = Hierarchy::parse(v2).expect("a unified layout");
    assert_eq!(v2, Hierarchy::V2 { root: "/sys/fs/cgroup".into() });
    assert!(matches!(
        Hierarchy::parse("22 1 8:1 / / rw - ext4 /dev/sda rw"),
        Err(Error::Layout(_))
    ));
}

#[test]
fn a_path_cannot_leave_its_hierarchy() {
    let v2 = Hierarchy::V2 { root: "/sys/fs/cgroup".into() };
    for bad in ["", "/", "berth", "/berth/../other", "/berth//x", "/berth/.", "/berth/x\0"] {
        assert!(Cgroup::at(&v2, bad).is_err(), "{bad:?}");
    }
    let cgroup = Cgroup::at(&v2, "/berth/g2").and_then(|group| group.child("p1000/c1"));
    assert_eq!(cgroup.expect("a good path").path(), "/berth/g2/p1000/c1");
}
