//! R02, R04, R05, R10, R01: paths and descriptors by which an image or a program would reach the host.

use std::fs;
use std::io::{BufRead, BufReader};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use system_tests::programs;

use crate::bundle::{Bundle, is_root, runtime, said};

#[test]
fn working_directories_by_descriptor_are_refused() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("cwd");
    bundle.sleep();
    let escapes = "(unreachable)";
    for number in 3..64 {
        let path = format!("/proc/self/fd/{number}");
        let output = bundle.exec(&["--cwd", &path], "readlink /proc/self/cwd; ls");
        assert!(!output.status.success(), "{path}: {}", said(&output));
        assert!(!said(&output).contains(escapes), "{path}: {}", said(&output));
    }
    for (name, content) in
        [("w", "/proc/self/fd/7"), ("c", "/proc/self/cwd"), ("r", "/proc/1/root")]
    {
        symlink(content, bundle.root(name)).expect("link");
        let output = bundle.exec(&["--cwd", &format!("/{name}")], "pwd");
        assert!(!output.status.success(), "{content}: {}", said(&output));
    }
    let name = bundle.name().to_owned();
    bundle.succeed(bundle.command(&["delete", "--force", &name]));
    for number in 3..16 {
        bundle.change(|config| config["process"]["cwd"] = format!("/proc/self/fd/{number}").into());
        let output = bundle.run("pwd");
        assert!(!output.status.success(), "created in descriptor {number}: {}", said(&output));
    }
    // The control: an ordinary link inside is followed.
    symlink("/etc", bundle.root("plain")).expect("link");
    bundle.change(|config| config["process"]["cwd"] = "/plain".into());
    let output = bundle.run("pwd -P; ls /proc/self/fd");
    assert_eq!(bundle.succeed(output), "/etc\n0\n1\n2\n3\n", "3 is that of ls itself");
}

#[test]
fn a_waiting_container_holds_nothing_of_the_host() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("fds");
    bundle.program(&["sleep", "1000"]);
    bundle.succeed(bundle.create());
    let pid = bundle.pid();
    let mut sockets = 0;
    for entry in fs::read_dir(format!("/proc/{pid}/fd")).expect("list descriptors") {
        let entry = entry.expect("list descriptors");
        let number: u32 = entry.file_name().to_string_lossy().parse().expect("a number");
        let target = fs::read_link(entry.path()).expect("read a descriptor");
        let target = target.to_string_lossy();
        if number > 2 {
            assert!(target.starts_with("socket:["), "descriptor {number} is {target}");
            sockets += 1;
        }
    }
    assert!(sockets <= 2, "{sockets} sockets: its parent's and its gate's");
    let link = |name: &str| fs::read_link(format!("/proc/{pid}/{name}")).expect("read a link");
    assert_eq!(link("cwd"), Path::new("/"));
    // R01: what it runs from is no file of the host's.
    let own = fs::metadata(format!("/proc/{pid}/exe")).expect("inspect the binary");
    let host = fs::metadata(runtime()).expect("inspect the runtime");
    assert_ne!((own.dev(), own.ino()), (host.dev(), host.ino()));
    assert!(is_never_written(pid), "not even host root writes to the sealed copy");
}

fn is_never_written(pid: i64) -> bool {
    let opened = fs::OpenOptions::new().write(true).open(format!("/proc/{pid}/exe"));
    opened.and_then(|mut file| std::io::Write::write_all(&mut file, b"x")).is_err()
}

/// R01: the copy that containers begin as is made once for a build, on a file system that takes no writes;
/// where there can be none, each process has one of its own. In a mount namespace with a `/run` of its own.
#[test]
fn the_copy_is_one_of_a_build_and_takes_no_writes() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("copy");
    bundle.program(&["sleep", "1000"]);
    let script = "mount -t tmpfs none /run && echo ready && exec sleep 1000";
    let mut place = Command::new("unshare");
    place.args(["--mount", "sh", "-c", script]).stdout(Stdio::piped());
    let mut place = Ended(place.spawn().expect("start unshare"));
    let mut ready = String::new();
    let said = place.0.stdout.take().expect("a pipe");
    BufReader::new(said).read_line(&mut ready).expect("it says");
    let inside = |program: &Path| {
        let mut command = Command::new("nsenter");
        command.arg(format!("--mount=/proc/{}/ns/mnt", place.0.id())).arg(program);
        command
    };
    let shell = |script: &str| {
        let mut command = inside(Path::new("sh"));
        assert!(command.args(["-c", script]).status().expect("a shell").success(), "{script}");
    };
    let exe_of = |program: &Path| {
        bundle.succeed(bundle.create_by(inside(program)));
        let pid = bundle.pid();
        let path = format!("/proc/{pid}/exe");
        assert_eq!(fs::read(&path).expect("read it"), fs::read(program).expect("read it"));
        assert!(is_never_written(pid), "it can be written to");
        let link = fs::read_link(&path).expect("read a link").to_string_lossy().into_owned();
        let facts = fs::metadata(&path).expect("inspect it");
        bundle.succeed(bundle.command(&["delete", "--force", bundle.name()]));
        (link, facts.dev(), facts.ino())
    };
    let first = exe_of(&runtime());
    assert!(first.0.starts_with("/run/berth-runtime/"), "{}", first.0);
    assert_eq!(exe_of(&runtime()), first, "the same one again");
    // The control, and another build: a file like it that is written to.
    let other = bundle.outside("other");
    programs::copy(&runtime(), &other);
    let second = exe_of(&other);
    assert!(second.0.starts_with("/run/berth-runtime/") && second.0 != first.0, "{}", second.0);
    assert_eq!(exe_of(&runtime()), first, "two builds take turns");
    shell(&format!("printf changed >>{}", other.display()));
    let third = exe_of(&other);
    assert!(third.0.starts_with("/run/berth-runtime/") && third.0 != second.0, "{}", third.0);
    shell("[ $(ls /run/berth-runtime | wc -l) = 2 ]");
    shell("umount /run/berth-runtime/* && rmdir /run/berth-runtime/* && mount -o remount,ro /run");
    let fourth = exe_of(&runtime());
    assert!(fourth.0.starts_with("/memfd:"), "{}", fourth.0);
}

/// A process that ends with the test.
struct Ended(Child);

impl Drop for Ended {
    fn drop(&mut self) {
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// R01: an image whose program is a link to what runs it, and a racer that writes to every binary it
/// sees while later processes come in.
#[test]
fn the_hosts_binary_is_never_written() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("binary");
    symlink("/proc/self/exe", bundle.root("bin/again")).expect("link");
    // What our binary needs to run inside, so that the racer has it in front of it.
    let libraries = std::process::Command::new("ldd").arg(runtime()).output().expect("run ldd");
    let libraries = String::from_utf8_lossy(&libraries.stdout).into_owned();
    for path in libraries.split_whitespace().filter(|word| word.starts_with('/')) {
        let inside = bundle.root(&path[1..]);
        fs::create_dir_all(inside.parent().expect("a directory")).expect("make a directory");
        fs::copy(path, inside).expect("copy a library");
    }
    let before = fs::read(runtime()).expect("read the runtime");
    // The control: the racer does write where it may, to a program that does not run.
    let racer = "cp /bin/busybox /mine; for f in /mine /proc/[0-9]*/exe; do \
        { echo overwritten >$f; } 2>/dev/null && echo wrote $f; done; \
        while [ ! -e /stop ]; do for f in /proc/[0-9]*/exe; do \
        { echo overwritten >$f; } 2>/dev/null && echo wrote $f; done; done";
    bundle.change(|config| config["root"]["readonly"] = false.into());
    bundle.program(&["sh", "-c", racer]);
    let name = bundle.name().to_owned();
    bundle.succeed(bundle.create());
    bundle.succeed(bundle.command(&["start", &name]));
    for _ in 0..RACES {
        // Runs our binary inside, which finds that it is no shell.
        let output = bundle.command(&["exec", &name, "again", "nonsense"]);
        assert!(said(&output).contains("nonsense"), "{}", said(&output));
    }
    // The first process may see it and end before `touch` has: then that is killed with it.
    bundle.exec(&[], "touch /stop");
    bundle.wait_for("stopped");
    let wrote = fs::read_to_string(bundle.outside("output")).expect("read its output");
    assert_eq!(wrote, "wrote /mine\n");
    assert!(before == fs::read(runtime()).expect("read the runtime"), "the host's binary changed");
}

/// Later processes that come in while the racer runs.
const RACES: u32 = 20;

#[test]
fn special_directories_that_are_links_are_refused() {
    if !is_root() {
        return;
    }
    for (name, content) in
        [("proc", "/etc"), ("sys", "bin"), ("dev", "../../.."), ("proc", "nowhere")]
    {
        let bundle = Bundle::new(&format!("special-{name}-{}", content.len()));
        symlink(content, bundle.root(name)).expect("link");
        let output = bundle.run("true");
        bundle.refuse(output, "must be an ordinary directory");
        // The control: without the link the same root starts.
        fs::remove_file(bundle.root(name)).expect("remove the link");
        let output = bundle.run("true");
        bundle.succeed(output);
    }
}

#[test]
fn device_links_of_an_image_lead_nowhere() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("devices");
    let canary = bundle.outside("canary");
    fs::create_dir(&canary).expect("make a host directory");
    fs::write(canary.join("null"), "canary").expect("write a host file");
    fs::create_dir(bundle.root("dev")).expect("make /dev");
    for name in ["console", "ptmx", "pts", "shm", "mqueue", "null", "fd", "tty"] {
        symlink(canary.join("null"), bundle.root("dev").join(name)).expect("link");
    }
    let output = bundle.run("echo x >/dev/null; stat -c %t:%T /dev/null; ls /dev");
    let text = bundle.succeed(output);
    assert!(text.starts_with("1:3\n"), "{text}");
    assert_eq!(fs::read_to_string(canary.join("null")).expect("read"), "canary");
    let names: Vec<_> = fs::read_dir(&canary).expect("list").collect();
    assert_eq!(names.len(), 1, "nothing was made on the host");
}

#[test]
fn mount_targets_stay_inside_and_away_from_proc() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("targets");
    let path = bundle.outside("config.json");
    let fair = fs::read(&path).expect("read the configuration");
    let bind = |target: &str| {
        fs::write(&path, &fair).expect("write the configuration");
        bundle.change(|config| {
            let mounts = config["mounts"].as_array_mut().expect("mounts");
            let source = "/etc/hostname";
            mounts.push(serde_json::json!({ "destination": target, "type": "bind",
                "source": source, "options": ["bind", "ro"] }));
        });
        bundle.run("cat /inside/file 2>/dev/null; true")
    };
    for target in ["/proc/self/attr", "/proc/sys/kernel/x", "//proc/./sys", "/a/../../x", "/", "x"]
    {
        let output = bind(target);
        assert!(!output.status.success(), "{target}: {}", said(&output));
    }
    // An absolute link and one that climbs stay in the root.
    let outside = std::env::temp_dir().join(format!("berth-outside-{}", std::process::id()));
    symlink(&outside, bundle.root("climbs")).expect("link");
    symlink("/inside", bundle.root("link")).expect("link");
    fs::create_dir(bundle.root("inside")).expect("make a directory");
    bundle.own();
    let output = bind("/climbs/file");
    assert!(!outside.exists(), "made on the host: {}", said(&output));
    let host = fs::read_to_string("/etc/hostname").expect("read a host file");
    let output = bind("/link/file");
    assert_eq!(bundle.succeed(output), host, "the control: an ordinary target is mounted");
}

#[test]
fn cgroups_cannot_be_mounted_or_written() {
    if !is_root() {
        return;
    }
    let bundle = Bundle::new("cgroups");
    fs::create_dir(bundle.root("mnt")).expect("make /mnt");
    bundle.own();
    let script = "mount -t cgroup -o memory none /mnt 2>&1; mount -t cgroup2 none /mnt 2>&1; \
        unshare -r true 2>&1; for f in $(ls -d /sys/fs/cgroup/* 2>/dev/null); do \
        [ -f $f ] && { echo 1 >$f; } 2>&1; done; echo done";
    let output = bundle.run(script);
    let text = bundle.succeed(output);
    for line in text.lines().filter(|line| *line != "done") {
        let refused =
            ["Operation not permitted", "permission denied", "Read-only", "Permission denied"];
        let refused = refused.iter().any(|words| line.contains(words));
        assert!(refused || line.contains("Invalid argument"), "{line:?} in {text}");
    }
    assert!(text.contains("ermi"), "something was refused: {text}");
    // The control: with the capability and without the filter, the same mount succeeds inside.
    bundle.change(|config| {
        config["linux"]["seccomp"] = serde_json::Value::Null;
        for set in ["bounding", "effective", "permitted"] {
            let set = config["process"]["capabilities"][set].as_array_mut().expect("a set");
            set.push("CAP_SYS_ADMIN".into());
        }
    });
    let kind =
        if Path::new("/sys/fs/cgroup/memory").exists() { "cgroup -o memory" } else { "cgroup2" };
    let output = bundle.run(&format!("mount -t {kind} none /mnt && echo mounted"));
    assert_eq!(bundle.succeed(output), "mounted\n");
}
