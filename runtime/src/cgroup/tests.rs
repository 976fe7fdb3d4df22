//! Of the pure parts anywhere; of what the kernel does, as root on whichever layout the host has.

use std::io::Write as _;
use std::os::fd::AsFd;
use std::os::unix::process::ExitStatusExt as _;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::CgroupVersion;
use berth_runtime::wire::Limits;
use nix::poll::{PollFd, PollFlags, poll};

use super::hierarchy::in_sight;
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

/// As where a file system is mounted over `/sys`, and its cgroups are then brought back without one of them.
#[test]
fn what_another_mount_covers_is_not_used() {
    let own = files::read(Path::new("/proc/self/mountinfo")).expect("a mount table");
    let here = Hierarchy::parse_all(&own).expect("cgroups are mounted");
    let covered = "9 1 9:9 / /sys/fs/cgroup rw - cgroup2 none rw
9 1 9:9 / /nowhere rw - cgroup none rw,memory,pids,cpu";
    let text = format!("{covered}\n{own}");
    assert_ne!(Hierarchy::parse_all(&text).expect("a layout"), here);
    assert_eq!(Hierarchy::parse_all(&in_sight(&text)).expect("a layout"), here);
}

/// Controllers that only some configurations ask for make no container of the supervisor's pay, and no
/// host one of v1.
#[test]
fn controllers_to_be_asked_for_are_found_when_asked_for() {
    let cpuset = "33 31 0:30 / /sys/fs/cgroup/cpuset rw - cgroup cgroup rw,cpuset";
    let text = format!("{HYBRID}{cpuset}\n");
    let own = Hierarchy::parse(&text).expect("a hybrid layout");
    assert_eq!(own.root_of(Controller::Cpuset), None);
    let all = Hierarchy::parse_all(&text).expect("a hybrid layout");
    assert_eq!(all.root_of(Controller::Cpuset), Some(Path::new("/sys/fs/cgroup/cpuset")));
    assert_eq!(all.roots().len(), own.roots().len() + 1);
    // A cgroup that is older than the mount is not in it.
    let made = Cgroup::made_at(all, "/no/such").expect("a good path");
    assert_eq!(made.directory(Controller::Cpuset), None);
    assert!(made.directory(Controller::Memory).is_some());

    let v2 = "26 22 0:23 / /sys/fs/cgroup rw,nosuid shared:4 - cgroup2 cgroup2 rw,nsdelegate\n\
        40 22 0:41 / /run/vpn rw - cgroup cgroup rw,net_cls";
    let v2 = Hierarchy::parse_all(v2).expect("a unified layout");
    assert_eq!(v2, Hierarchy::V2 { root: "/sys/fs/cgroup".into() });
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

/// A cgroup of this test's own, removed at its end.
struct Place(Cgroup);

impl Place {
    /// `None`, said aloud, where the tests don't run as root.
    fn new(name: &str) -> Option<Self> {
        if !nix::unistd::geteuid().is_root() {
            eprintln!("SKIPPED {name}: needs root");
            return None;
        }
        let hierarchy = Hierarchy::detect().expect("cgroups are mounted");
        let path = format!("/bt{}{name}", std::process::id());
        let place = Self(Cgroup::at(&hierarchy, &path).expect("a good path"));
        Some(place)
    }

    /// A container's cgroup in it, the way the supervisor makes one.
    fn container(&self) -> (Scope, Cgroup) {
        let scope = Scope::open(&self.0.hierarchy, self.0.path()).expect("the scope is made");
        let container = ContainerId::from_bytes([7; 16]);
        let cgroup = scope.container(PrincipalId(2), PrincipalId(1000), &container);
        let cgroup = cgroup.expect("a good path");
        cgroup.create().expect("the cgroup is made");
        (scope, cgroup)
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let removed = self.0.remove();
        if !std::thread::panicking() {
            removed.expect("nothing is left in the test's cgroups");
        }
    }
}

/// A shell that enters the cgroup before it runs `script`.
fn run_in(cgroup: &Cgroup, script: &str) -> Child {
    let mut shell = Command::new("sh");
    let wait = format!("read -r go; {script}");
    let mut child = shell.args(["-c", &wait]).stdin(Stdio::piped()).spawn().expect("sh starts");
    cgroup.join(i32::try_from(child.id()).expect("a pid")).expect("it joins");
    let mut stdin = child.stdin.take().expect("a pipe");
    writeln!(stdin, "go").expect("it reads");
    child
}

fn limits(memory_mib: u64, swap_mib: u64) -> Settings {
    Settings::from(&Limits {
        cpu_millis: 500,
        cpu_weight: 200,
        memory_bytes: memory_mib << 20,
        swap_bytes: swap_mib << 20,
        pids: 64,
    })
}

#[test]
fn limits_are_set_read_back_and_changed_in_any_direction() {
    let Some(place) = Place::new("limits") else { return };
    let (_, cgroup) = place.container();
    let v2 = cgroup.hierarchy.version() == CgroupVersion::V2;
    for (memory, swap) in [(64, 0), (128, 64), (32, 512), (512, 0), (64, 1), (64, 0)] {
        let states = cgroup.apply(&limits(memory, swap)).expect("they are set");
        let find = |name| states.iter().find(|state| state.name == name).expect("each is told");
        assert!(states.iter().all(|state| state.held), "{states:?}");
        assert_eq!(states.len(), 5);
        assert_eq!(find("memory").value, (memory << 20).to_string());
        let swap = if v2 { swap } else { memory + swap };
        assert_eq!(find("swap").value, (swap << 20).to_string());
        assert_eq!(find("cpu").value, if v2 { "50000 100000" } else { "50000" });
        assert_eq!(find("cpu_weight").value, if v2 { "200" } else { "2048" });
        assert_eq!(find("pids").value, "64");
    }
    // The last write of this change is refused (the kernel knows no such number): none has been made.
    let wrong = Settings { pids: Some(Bound::At(1 << 40)), ..limits(256, 0) };
    assert!(matches!(cgroup.apply(&wrong), Err(Error::Write { .. })));
    let states =
        cgroup.apply(&Settings { memory_bytes: Some(Bound::At(64 << 20)), ..Settings::default() });
    assert!(states.expect("it is set")[0].held);
    let file = &cgroup.apply(&limits(64, 0)).expect("they are set")[2].file;
    assert!(std::path::Path::new(file).exists(), "{file}");
}

/// As an engine does that removes the parent of its last container while another is made in it.
#[test]
fn a_cgroup_is_made_though_others_remove_what_is_above_it() {
    let Some(place) = Place::new("parents") else { return };
    place.0.create().expect("it is made");
    let above = place.0.child("above").expect("a good path");
    let leaf = above.child("leaf").expect("a good path");
    let over = std::sync::atomic::AtomicBool::new(false);
    std::thread::scope(|scope| {
        scope.spawn(|| {
            while !over.load(std::sync::atomic::Ordering::Relaxed) {
                for directory in above.directories() {
                    std::fs::remove_dir(directory).ok();
                }
            }
        });
        let made: Result<(), Error> = (0..100).try_for_each(|_| {
            leaf.create()?;
            assert!(leaf.directories().iter().all(|directory| directory.is_dir()));
            leaf.remove()
        });
        over.store(true, std::sync::atomic::Ordering::Relaxed);
        made.expect("each is made");
    });
}

#[test]
fn memory_is_not_lowered_below_what_is_in_use() {
    let Some(place) = Place::new("use") else { return };
    let (_, cgroup) = place.container();
    cgroup.apply(&limits(256, 0)).expect("limits");
    let script = "exec python3 -c 'x=bytearray(96<<20); print(len(x), flush=True); \
                  import time; time.sleep(60)'";
    let mut child = run_in(&cgroup, script);
    let usage = match cgroup.hierarchy.version() {
        CgroupVersion::V2 => "memory.current",
        CgroupVersion::V1 => "memory.usage_in_bytes",
    };
    let usage = cgroup.directory(Controller::Memory).expect("memory").join(usage);
    wait_for("96 MiB in use", || files::read_number(&usage).is_ok_and(|bytes| bytes > 96 << 20));
    assert!(matches!(cgroup.apply(&limits(32, 0)), Err(Error::MemoryInUse { .. })));
    assert_eq!(child.try_wait().ok(), Some(None), "the process lives on");
    let states = cgroup.apply(&limits(256, 0)).expect("limits");
    assert!(states.iter().all(|state| state.held), "{states:?}");
    cgroup.kill().expect("killed");
    child.wait().expect("reaped");
}

#[test]
fn lack_of_memory_is_told() {
    let Some(place) = Place::new("oom") else { return };
    let (_, cgroup) = place.container();
    cgroup.apply(&limits(32, 0)).expect("limits");
    let notifier = cgroup.oom_notifier().expect("a notifier").expect("memory is counted");
    assert_eq!(cgroup.oom_kills().expect("a count"), 0);
    let mut child = run_in(&cgroup, "exec python3 -c 'x=bytearray(96<<20)'");
    let mut fds = [PollFd::new(notifier.as_fd(), PollFlags::POLLIN)];
    assert_eq!(poll(&mut fds, 30_000_u16), Ok(1), "the notifier becomes readable");
    assert_eq!(child.wait().expect("reaped").signal(), Some(libc::SIGKILL));
    wait_for("the count", || cgroup.oom_kills().is_ok_and(|kills| kills == 1));
}

#[test]
fn processes_are_counted_frozen_thawed_and_killed() {
    let Some(place) = Place::new("kill") else { return };
    let (scope, cgroup) = place.container();
    let script = "while :; do sleep 0.01; done & while :; do sleep 0.01; done";
    let mut child = run_in(&cgroup, script);
    let pid = i32::try_from(child.id()).expect("a pid");
    wait_for("both loops", || cgroup.pids().is_ok_and(|pids| pids.len() >= 3));
    assert!(cgroup.pids().expect("pids").contains(&pid));
    cgroup.freeze().expect("frozen");
    assert!(cgroup.frozen().expect("known"));
    let before = cgroup.pids().expect("pids");
    assert_eq!(cgroup.pids().expect("pids"), before, "nothing is forked while frozen");
    cgroup.thaw().expect("thawed");
    assert!(!cgroup.frozen().expect("known"));
    cgroup.freeze().expect("frozen again");
    cgroup.kill().expect("killed while frozen");
    cgroup.wait_empty(Duration::from_secs(10)).expect("empty");
    child.wait().expect("reaped");
    assert_eq!(scope.containers().expect("a list").len(), 1);
    scope.monitors(PrincipalId(2), PrincipalId(1000)).expect("path").create().expect("made");
    scope.prune(PrincipalId(2), PrincipalId(1000)).expect("nothing to prune yet");
    assert!(cgroup.exists());
    cgroup.remove().expect("removed");
    cgroup.remove().expect("removed twice");
    scope.prune(PrincipalId(2), PrincipalId(1000)).expect("pruned");
    assert!(!scope.person(PrincipalId(2), PrincipalId(1000)).expect("path").exists());
    cgroup.kill().expect("killing what is gone");
}

#[test]
fn what_is_half_made_is_ended_and_removed() {
    let Some(place) = Place::new("half") else { return };
    let (_, cgroup) = place.container();
    for missing in cgroup.directories() {
        cgroup.create().expect("made");
        std::fs::remove_dir(&missing).expect("one of its directories is removed");
        cgroup.kill().expect("nothing is in it");
        cgroup.wait_empty(Duration::from_secs(1)).expect("empty");
        cgroup.remove().expect("removed");
        assert!(!cgroup.exists(), "without {}", missing.display());
    }
    // A hierarchy that came later has no directory of what runs, which is killed all the same.
    let Some((unified, other)) = cgroup.unified().zip(cgroup.directories().into_iter().next())
    else {
        return;
    };
    if unified != other {
        cgroup.create().expect("made");
        // One process, which leaves nobody behind.
        let mut child = run_in(&cgroup, "exec sleep 1000");
        std::fs::write(
            other.parent().expect("a parent").join("cgroup.procs"),
            child.id().to_string(),
        )
        .expect("it leaves one of them");
        wait_for("its removal", || std::fs::remove_dir(&other).is_ok());
        cgroup.kill().expect("killed");
        assert_eq!(child.wait().expect("reaped").signal(), Some(libc::SIGKILL));
        cgroup.wait_empty(Duration::from_secs(10)).expect("empty");
        cgroup.remove().expect("removed");
    }
}

/// Every answer of the device fence, the same on v1 and v2, and without the fence (the control).
#[test]
fn only_listed_devices_open() {
    let Some(place) = Place::new("devices") else { return };
    let (_, open) = place.container();
    let fenced = place.0.child("fenced").expect("a good path");
    fenced.create().expect("made");
    fenced.restrict_devices(&CONTAINER_DEVICES).expect("restricted");
    let directory = std::env::temp_dir().join(format!("berth-devices-{}", std::process::id()));
    std::fs::create_dir(&directory).expect("a directory for nodes");
    let nodes = [
        ("c", 1, 3, true),
        ("c", 1, 5, true),
        ("c", 1, 9, true),
        ("c", 1, 1, false),
        ("c", 1, 11, false),
        ("b", 1, 3, false),
        ("b", 7, 0, false),
        ("c", 10, 229, false),
    ];
    let try_in =
        |cgroup: &Cgroup, script: &str| run_in(cgroup, script).wait().expect("reaped").success();
    for (kind, major, minor, allowed) in nodes {
        let node = directory.join(format!("{kind}{major}-{minor}"));
        let node = node.to_str().expect("a plain path");
        let make = format!("mknod {node} {kind} {major} {minor}");
        assert!(!try_in(&fenced, &make), "{make} is refused");
        assert!(try_in(&open, &make), "{make} works outside the fence");
        // Whether there is such a device does not matter: only EPERM is the fence's answer.
        let open_it = format!(
            "exec python3 -c 'import os,sys\ntry: os.open(\"{node}\", os.O_RDWR|os.O_NONBLOCK)\n\
             except PermissionError: sys.exit(1)\nexcept OSError: pass'"
        );
        assert_eq!(try_in(&fenced, &open_it), allowed, "{node} in the fence");
        assert!(try_in(&open, &open_it), "{node} outside the fence");
    }
    std::fs::remove_dir_all(&directory).expect("nodes removed");
}

fn wait_for(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = Instant::now() + Duration::from_secs(30);
    while !done() {
        assert!(Instant::now() < deadline, "waited for {what}");
        std::thread::sleep(Duration::from_millis(5));
    }
}
