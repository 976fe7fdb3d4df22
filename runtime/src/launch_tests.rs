//! Overlay roots on the running kernel, as the monitor launches them; needs root. What a configuration
//! does besides is tested through the command line, in `tests/runtime`.

use std::collections::BTreeMap;
use std::fs::{self, File, Permissions};
use std::io::Read;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::wire::{
    Console, Limits, LogOptions, NetworkMode, ProcessSpec, StartRequest, StopOptions, Tmpfs,
};
use nix::sys::wait::{Id, WaitPidFlag, WaitStatus, waitid};
use nix::unistd::Uid;

use super::{CgroupEntry, Created, InjectedFile, Launch, OverlayRoot, RootSource, User, create};
use crate::hooks::inside::Inside;
use crate::namespace::{IdMap, id_map_namespace};
use crate::profile::{self, ProfileHost};

const LAYERS_FIRST: u32 = 2_000_224_256;
const PERSON_FIRST: u32 = 2_000_420_864;

/// Directories of one container, removed at the end.
struct Host {
    directory: PathBuf,
}

impl Drop for Host {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.directory) {
            assert!(std::thread::panicking(), "remove {}: {error}", self.directory.display());
        }
    }
}

impl Host {
    /// Two layers in the layer range: a busybox, and one over it.
    fn new(name: &str) -> Self {
        let directory =
            std::env::temp_dir().join(format!("berth-launch-{name}-{}", std::process::id()));
        let host = Self { directory };
        let lower = host.directory.join("lower");
        fs::create_dir_all(lower.join("bin")).expect("make a layer");
        fs::copy(busybox(), lower.join("bin/busybox")).expect("copy busybox");
        for name in ["sh", "cat", "id", "grep", "ls", "stat", "touch", "sleep"] {
            symlink("busybox", lower.join("bin").join(name)).expect("link busybox");
        }
        fs::create_dir(lower.join("etc")).expect("make /etc");
        let passwd = "root:x:0:0::/root:/bin/sh\napp:x:33:33::/srv/app:/bin/sh\n";
        fs::write(lower.join("etc/passwd"), passwd).expect("write /etc/passwd");
        fs::write(lower.join("etc/group"), "root:x:0:\napp:x:33:\nextra:x:44:app\n")
            .expect("write");
        symlink("../run/nowhere/resolv.conf", lower.join("etc/resolv.conf")).expect("link");
        fs::write(lower.join("shown"), "lower").expect("write a file");
        let top = host.directory.join("top");
        fs::create_dir(&top).expect("make a layer");
        fs::write(top.join("shown"), "top").expect("write a file");
        for part in ["upper", "work"] {
            fs::create_dir_all(host.directory.join("own").join(part)).expect("make the upper");
        }
        give(&lower, LAYERS_FIRST);
        give(&top, LAYERS_FIRST);
        give(&host.directory.join("own"), PERSON_FIRST);
        host
    }

    fn open(&self, name: &str) -> OwnedFd {
        File::open(self.directory.join(name)).expect("open a directory").into()
    }

    fn overlay(&self) -> RootSource {
        let ids = IdMap { inside: LAYERS_FIRST, outside: PERSON_FIRST, count: 65_536 };
        RootSource::Overlay(OverlayRoot {
            layers: vec![self.open("lower"), self.open("top")],
            id_map: id_map_namespace(ids).expect("make a user namespace"),
            upper: self.open("own"),
        })
    }
}

fn busybox() -> PathBuf {
    let beside = std::env::var_os("BERTH_RUNTIME_BIN")
        .and_then(|path| Some(Path::new(&path).parent()?.join("busybox")));
    let places = ["/usr/bin/busybox", "/bin/busybox"].map(PathBuf::from);
    let found = beside.into_iter().chain(places).find(|path| path.exists());
    found.expect("busybox-static is installed")
}

fn give(path: &Path, first: u32) {
    let facts = fs::symlink_metadata(path).expect("inspect");
    nix::unistd::fchownat(
        nix::fcntl::AT_FDCWD,
        path,
        Some(first.into()),
        Some(first.into()),
        nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
    )
    .expect("give to the range");
    if facts.is_dir() {
        for entry in fs::read_dir(path).expect("list") {
            give(&entry.expect("list").path(), first);
        }
    }
}

fn request(script: &str) -> StartRequest {
    StartRequest {
        container: ContainerId::from_bytes([7; 16]),
        person: PrincipalId(1000),
        run: 1,
        layers: Vec::new(),
        process: ProcessSpec {
            args: ["sh", "-c", script].map(str::to_owned).into(),
            env: Vec::new(),
            cwd: "/made/here".to_owned(),
            user: String::new(),
            capabilities_dropped: Vec::new(),
            ulimits: BTreeMap::new(),
        },
        hostname: "box".to_owned(),
        read_only_root: false,
        tmpfs: vec![Tmpfs { target: "/scratch".to_owned(), size_bytes: 1 << 20 }],
        volumes: Vec::new(),
        data_sets: Vec::new(),
        shm_bytes: 1 << 20,
        network: NetworkMode::None,
        ports: Vec::new(),
        limits: Limits {
            cpu_millis: 1000,
            cpu_weight: 100,
            memory_bytes: 64 << 20,
            swap_bytes: 0,
            pids: 64,
        },
        console: Console::default(),
        log: LogOptions { file_bytes_max: 1 << 20, files_max: 2 },
        stop: StopOptions { signal: 15, grace_secs: 10 },
    }
}

/// Launches, and gives the container with the read end of its output.
fn launch(host: &Host, request: &StartRequest, user: &str) -> (Created, File) {
    let facts = ProfileHost { first_id: PERSON_FIRST, cgroup_v2: false, apparmor: false };
    let spec = profile::spec(request, &facts).expect("a fair request");
    let (read, write) = nix::unistd::pipe2(nix::fcntl::OFlag::O_CLOEXEC).expect("make a pipe");
    let null: OwnedFd = File::open("/dev/null").expect("open the null device").into();
    let error = write.as_fd().try_clone_to_owned().expect("copy the pipe");
    let file = |path: &str, text: &str| InjectedFile {
        path: path.to_owned(),
        content: text.as_bytes().to_vec(),
    };
    let created = create(Launch {
        spec: &spec,
        joined: Vec::new(),
        root: host.overlay(),
        stdio: [null, write, error],
        user: User::Named(user.to_owned()),
        cgroup: CgroupEntry::default(),
        own_cgroups: Vec::new(),
        files: vec![file("/etc/hosts", "HOSTS\n"), file("/etc/resolv.conf", "RESOLV\n")],
        volumes: Vec::new(),
        gate: None,
        before_root: None,
        hooks: Inside::default(),
        listener: None,
        preserved: 0,
    });
    (created.expect("launch the container"), File::from(read))
}

fn run(host: &Host, request: &StartRequest, user: &str) -> String {
    let (mut created, mut output) = launch(host, request, user);
    created.start().expect("start the container");
    let mut text = String::new();
    output.read_to_string(&mut text).expect("read its output");
    let end = waitid(Id::PIDFd(created.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("wait for it");
    assert!(matches!(end, WaitStatus::Exited(_, 0)), "{end:?}: {text}");
    text
}

/// Skips where the test cannot be made, and says so.
fn can_run() -> bool {
    if Uid::effective().is_root() {
        return true;
    }
    eprintln!("SKIPPED launch: needs root");
    false
}

#[test]
fn layers_are_stacked_and_belong_to_the_containers_root() {
    if !can_run() {
        return;
    }
    let host = Host::new("stack");
    let script = "cat /shown; echo; stat -c '%u:%g' /shown /bin/busybox /etc; pwd; cat /etc/hosts \
        /etc/resolv.conf; echo new >/shown; touch /made/file /scratch/file; stat -c %u /etc/hosts; \
        echo again >/dev/stdout; id";
    let text = run(&host, &request(script), "");
    let lines: Vec<&str> = text.lines().collect();
    assert_eq!(
        lines,
        [
            "top",
            "0:0",
            "0:0",
            "0:0",
            "/made/here",
            "HOSTS",
            "RESOLV",
            "0",
            "again",
            "uid=0(root) gid=0(root)"
        ],
        "{text}"
    );
    // Written above, by the person's own ids; below, nothing has changed.
    let upper = host.directory.join("own/upper");
    assert_eq!(fs::read_to_string(upper.join("shown")).expect("read the upper"), "new\n");
    assert_eq!(fs::metadata(upper.join("made/file")).expect("inspect").uid(), PERSON_FIRST);
    let below = fs::read_to_string(host.directory.join("top/shown")).expect("read the layer");
    assert_eq!(below, "top");
    assert!(!upper.join("scratch/file").exists(), "a tmpfs is not on disk");
}

#[test]
fn a_second_start_finds_what_the_first_has_written() {
    if !can_run() {
        return;
    }
    let host = Host::new("again");
    run(&host, &request("echo kept >/kept"), "");
    assert_eq!(run(&host, &request("cat /kept"), ""), "kept\n");
}

#[test]
fn a_read_only_root_takes_no_writes_and_names_are_looked_up_inside() {
    if !can_run() {
        return;
    }
    let host = Host::new("readonly");
    let mut request =
        request("touch /x 2>&1; touch /scratch/y && id; echo $HOME; echo out >/dev/stdout");
    request.read_only_root = true;
    let text = run(&host, &request, "app");
    assert!(text.contains("Read-only file system"), "{text}");
    assert!(text.contains("uid=33(app) gid=33(app) groups=44(extra)"), "{text}");
    assert!(text.contains("/srv/app\nout\n"), "{text}");
}

#[test]
fn the_callers_mount_namespace_and_the_hosts_table_stay_as_they_were() {
    if !can_run() {
        return;
    }
    let host = Host::new("table");
    let own = || fs::read_link("/proc/thread-self/ns/mnt").expect("read the namespace");
    let before = (own(), fs::read_to_string("/proc/1/mountinfo").expect("read the mount table"));
    let (created, _output) = launch(&host, &request("sleep 60"), "");
    let inside = fs::read_to_string(format!("/proc/{}/mountinfo", created.pid)).expect("read");
    assert!(inside.contains("overlay"), "the control: the container has its overlay: {inside}");
    assert!(!inside.contains("/m "), "nothing of the staging directory is left: {inside}");
    let after = (own(), fs::read_to_string("/proc/1/mountinfo").expect("read the mount table"));
    assert_eq!(before, after);
    // Never started: dropping it ends the child.
    let pidfd = created.pidfd.try_clone().expect("copy the descriptor");
    drop(created);
    waitid(Id::PIDFd(pidfd.as_fd()), WaitPidFlag::WEXITED).expect("the child ends by itself");
}

#[test]
fn a_layer_set_as_deep_as_allowed_is_mounted() {
    if !can_run() {
        return;
    }
    let host = Host::new("deep");
    let ids = IdMap { inside: LAYERS_FIRST, outside: PERSON_FIRST, count: 65_536 };
    let mut layers = vec![host.open("lower")];
    layers.resize_with(berth_runtime::wire::LAYERS_MAX, || host.open("top"));
    // The same directory twice is refused by overlayfs on some kernels, so each is a copy.
    for (index, layer) in layers.iter_mut().enumerate().skip(1) {
        let path = host.directory.join(format!("layer{index}"));
        fs::create_dir(&path).expect("make a layer");
        chown(&path, Some(LAYERS_FIRST), Some(LAYERS_FIRST)).expect("give to the range");
        fs::set_permissions(&path, Permissions::from_mode(0o755)).expect("open to all");
        *layer = File::open(&path).expect("open a layer").into();
    }
    let overlay = OverlayRoot {
        layers,
        id_map: id_map_namespace(ids).expect("make a user namespace"),
        upper: host.open("own"),
    };
    let facts = ProfileHost { first_id: PERSON_FIRST, cgroup_v2: false, apparmor: false };
    let spec = profile::spec(&request("true"), &facts).expect("a fair request");
    let null = || -> OwnedFd { File::open("/dev/null").expect("open the null device").into() };
    let launch = Launch {
        spec: &spec,
        joined: Vec::new(),
        root: RootSource::Overlay(overlay),
        stdio: [null(), null(), null()],
        user: User::Named(String::new()),
        cgroup: CgroupEntry::default(),
        own_cgroups: Vec::new(),
        files: Vec::new(),
        volumes: Vec::new(),
        gate: None,
        before_root: None,
        hooks: Inside::default(),
        listener: None,
        preserved: 0,
    };
    let mut created = create(launch).expect("launch with many layers");
    created.start().expect("start it");
    let end = waitid(Id::PIDFd(created.pidfd.as_fd()), WaitPidFlag::WEXITED).expect("wait for it");
    assert!(matches!(end, WaitStatus::Exited(_, _)), "{end:?}");
}
