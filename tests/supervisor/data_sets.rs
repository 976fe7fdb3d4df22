//! Data sets: directories of the host's that containers read by name. What is read of them and what is not, what is
//! written to them (nothing), where a path or a name of one could lead (R05, R06).

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use system_tests::programs::{berth_runtime, unguarded};
use system_tests::supervisor::{PERSON, Supervisor};
use system_tests::{Check, requires_root};

use crate::hostile::{Outcome, attempt, request};
use crate::volumes::wait_until;

/// A place of a test's own beside the supervisor's; what was mounted in it goes with it.
struct Ground {
    top: PathBuf,
    mounted: Vec<PathBuf>,
}

impl Ground {
    fn new() -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let name = format!("berth-sets-{}-{number}", std::process::id());
        let top = std::env::temp_dir().join(name);
        fs::create_dir_all(&top).expect("make the place");
        let this = Self { top, mounted: Vec::new() };
        open(&this.top, 0o755);
        this
    }

    fn directory(&self, name: &str) -> PathBuf {
        let path = self.top.join(name);
        fs::create_dir_all(&path).expect("make a directory");
        open(&path, 0o755);
        path
    }

    /// A file system in memory at a place.
    fn mount(&mut self, place: &Path) {
        let done = Command::new("mount").args(["-t", "tmpfs", "none"]).arg(place).status();
        assert!(done.expect("run mount").success(), "mount on {}", place.display());
        self.mounted.push(place.to_owned());
    }
}

impl Drop for Ground {
    fn drop(&mut self) {
        for place in self.mounted.iter().rev() {
            // It is reported where it was made; a directory that stays is seen.
            drop(Command::new("umount").arg(place).status());
        }
        drop(fs::remove_dir_all(&self.top));
    }
}

fn open(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("change the mode");
}

fn file(path: &Path, text: &str, mode: u32) {
    fs::write(path, text).expect("write a file");
    open(path, mode);
}

/// Sections of the configuration for these.
fn sections(all: &[(&str, &Path)]) -> String {
    let one =
        |(name, path): &(&str, &Path)| format!("[runtime.data_sets.{name}]\npath = {path:?}\n");
    all.iter().map(one).collect()
}

fn scripted(berth: &Supervisor, text: &str, sets: &[(&str, &str)]) -> Value {
    let mut request = request(berth, &[], &["sh", "-c", text]);
    let one = |(name, target): &(&str, &str)| json!({"name": name, "target": target});
    request["data_sets"] = sets.iter().map(one).collect();
    request
}

#[track_caller]
fn refused(outcome: Outcome) -> (String, String) {
    match outcome {
        Outcome::Refused { code, message } => (code, message),
        ran @ Outcome::Ran { .. } => panic!("{ran:?}"),
    }
}

#[test]
fn a_data_set_is_read_and_never_written_to_with_all_that_is_mounted_in_it() {
    requires_root!();
    let mut ground = Ground::new();
    let set = ground.directory("dogs");
    let below = ground.directory("dogs/below");
    ground.mount(&below);
    open(&below, 0o777);
    file(&set.join("file"), "of the host\n", 0o666);
    file(&below.join("file"), "of another file system\n", 0o666);
    file(&set.join("key"), "secret\n", 0o600);
    open(&set, 0o777);
    let berth = Supervisor::with(&sections(&[("dogs", &set)]));
    let text = "exec 2>&1; cat /d/file /d/below/file; stat -c '%u %g' /d /d/file; cat /d/key; \
        for p in /d /d/below; do echo x > $p/file; echo x > $p/new; rm $p/file; mkdir $p/m; \
        chmod 700 $p/file; mv $p/file $p/moved; touch $p/file; ln $p/file $p/other; \
        mount -o remount,rw,bind $p && echo remounted; umount $p && echo unmounted; done; \
        grep -E ' /d(/below)? ' /proc/self/mountinfo; echo end";
    let seen = attempt(&berth, &scripted(&berth, text, &[("dogs", "/d")])).output();
    assert!(
        seen.starts_with("of the host\nof another file system\n65534 65534\n65534 65534\n"),
        "{seen}"
    );
    assert!(seen.contains("'/d/key': Permission denied") && seen.ends_with("end\n"), "{seen}");
    let check = Check {
        id: "R05",
        variant: "a container writes to a data set that every user of the host may write to",
        control: "a plain bind mount of the same directory is written to by the same user",
    };
    let unchanged = |path: &Path, text: &str| fs::read_to_string(path).is_ok_and(|now| now == text);
    check.sees(true, unchanged(&set.join("file"), "of the host\n"));
    check.sees(true, unchanged(&below.join("file"), "of another file system\n"));
    for place in [&set, &below] {
        let names = fs::read_dir(place).expect("it is there").count();
        assert_eq!(names, if *place == set { 3 } else { 1 }, "nothing was made in it");
    }
    assert!(seen.matches("Read-only file system").count() >= 12, "{seen}");
    assert!(!seen.contains("remounted") && !seen.contains("unmounted"), "{seen}");
    let mounts: Vec<&str> = seen.lines().filter(|line| line.contains(" - ")).collect();
    assert_eq!(mounts.len(), 2, "{seen}");
    for mount in mounts {
        let options = mount.split(' ').nth(5).unwrap_or_default();
        for option in ["ro", "nosuid", "nodev"] {
            assert!(options.split(',').any(|word| word == option), "{option}: {mount}");
        }
    }
    let wrote = unguarded(&format!(
        "mkdir -p /tmp/m && mount --rbind {} /tmp/m && cd /tmp/m && setpriv --reuid 70000 --clear-groups \
         sh -c 'echo x > file && echo x > below/file && echo written'",
        set.display()
    ));
    assert_eq!(wrote, "written\n", "the control writes");
}

#[test]
fn a_setuid_file_and_a_device_node_of_a_data_set_give_nobody_anything() {
    requires_root!();
    let ground = Ground::new();
    let set = ground.directory("tools");
    let berth = Supervisor::with(&sections(&[("tools", &set)]));
    let record =
        fs::read_to_string(berth.data_dir().join("state/people.json")).expect("the record");
    let record: Value = serde_json::from_str(&record).expect("JSON");
    let first = record["people"][PERSON.to_string()]["first_id"].to_string();
    let d = set.display();
    // Root's by the ids of the container, which a mount with set-user-id would make it for anybody.
    let made = unguarded(&format!(
        "cd {d} && cp $(command -v busybox || echo /bin/busybox) id && cp /usr/bin/id hosts && \
         chown {first}:{first} id hosts && chmod 6755 id hosts && mknod null c 1 3 && \
         mknod zero c 1 5 && chmod 666 null zero && echo made"
    ));
    assert_eq!(made, "made\n", "busybox and coreutils are here");
    let mut start = scripted(
        &berth,
        "exec 2>&1; /d/id -u; head -c 1 /d/zero && echo opened; echo x > /d/null && echo opened; echo end",
        &[("tools", "/d")],
    );
    start["process"]["user"] = json!("1000:1000");
    let seen = attempt(&berth, &start).output();
    assert!(seen.ends_with("end\n"), "{seen}");
    let check = Check {
        id: "R05",
        variant: "a setuid file and device nodes in a data set",
        control: "by a plain bind mount the file gives its owner's id and the device opens",
    };
    check.sees("1000", seen.lines().next().unwrap_or_default());
    check.sees(false, seen.contains("opened"));
    let control = unguarded(&format!(
        "mkdir -p /tmp/m && mount --bind {d} /tmp/m && setpriv --reuid 1000 --clear-groups sh -c \
         '/tmp/m/hosts -u; head -c 1 /tmp/m/zero > /tmp/m/null && echo opened'"
    ));
    assert_eq!(control, format!("{first}\nopened\n"), "the control works");
}

#[test]
fn a_path_that_leads_elsewhere_or_nowhere_is_refused_and_the_rest_serves_on() {
    requires_root!();
    let ground = Ground::new();
    let good = ground.directory("good");
    file(&good.join("file"), "good\n", 0o644);
    let secret = ground.directory("secret");
    file(&secret.join("file"), "canary\n", 0o644);
    symlink(&secret, ground.top.join("link")).expect("a link");
    symlink(&ground.top, ground.top.join("up")).expect("a link");
    file(&ground.top.join("plain"), "canary\n", 0o644);
    let closed = ground.directory("closed");
    open(&closed, 0o750);
    let swapped = ground.directory("swapped");
    let at = |name: &str| ground.top.join(name);
    let bad = [
        ("missing", at("missing"), "nothing is there"),
        ("last-link", at("link"), "symbolic link"),
        ("middle-link", at("up/secret"), "symbolic link"),
        ("plain-file", at("plain"), "no directory"),
        ("through-file", at("plain/x"), "no directory"),
        ("closed", at("closed"), "not every user"),
    ];
    let mut all: Vec<(&str, &Path)> = vec![("good", &good), ("swapped", &swapped)];
    all.extend(bad.iter().map(|(name, path, _)| (*name, path.as_path())));
    let berth = Supervisor::with(&sections(&all));
    for (name, path, why) in &bad {
        let tried = attempt(&berth, &scripted(&berth, "cat /d/file /d", &[(name, "/d")]));
        let (code, message) = refused(tried);
        let check = Check {
            id: "R06",
            variant: &format!("a data set's path is {name}"),
            control: "a plain directory is mounted, and the link leads where it should not for cat(1)",
        };
        check.sees("data-set.unavailable", &*code);
        assert!(message.contains(name) && message.contains(why), "{message}");
        let place = path.display().to_string();
        assert!(!message.contains(&place), "it says where it is: {message}");
        let told = format!("data set {name} at {place}: ");
        wait_until(&berth, "the journal says it", || berth.log().contains(&told));
    }
    let told = berth.log();
    assert!(!told.contains("data set good") && !told.contains("data set swapped"), "{told}");
    let read = |name| attempt(&berth, &scripted(&berth, "cat /d/*", &[(name, "/d")]));
    assert_eq!(read("good").output(), "good\n");
    let led =
        unguarded(&format!("cat {}/file {}/file", at("link").display(), at("up/secret").display()));
    assert_eq!(led, "canary\ncanary\n", "the control leads there");
    // Good when the supervisor started, and somebody else's since.
    fs::remove_dir(&swapped).expect("empty");
    symlink(&secret, &swapped).expect("a link");
    assert_eq!(refused(read("swapped")).0, "data-set.unavailable");
    let mut doctor = Command::new(berth_runtime());
    doctor.args(["doctor", "--json", "--config"]).arg(berth.config());
    let output = doctor.output().expect("run the doctor");
    let mut report: Value = serde_json::from_slice(&output.stdout).expect("a report");
    let checks = report["checks"].take();
    let check = checks.as_array().and_then(|all| all.iter().find(|one| one["id"] == "data.sets"));
    let check = check.expect("it looks at them");
    assert_eq!(check["status"], "lack", "{check}");
    let found = check["found"].as_str().expect("words");
    for (name, ..) in &bad {
        assert!(found.contains(name), "{name}: {found}");
    }
    assert!(!found.contains("good") && found.contains("swapped"), "{found}");
}

#[test]
fn a_name_is_a_key_of_the_configuration_and_never_a_path() {
    requires_root!();
    let ground = Ground::new();
    let set = ground.directory("dogs");
    file(&set.join("file"), "dogs\n", 0o644);
    let berth = Supervisor::with(&sections(&[("dogs", &set)]));
    let cats = ground.directory("cats");
    file(&cats.join("file"), "cats\n", 0o644);
    let place = cats.display().to_string();
    for name in ["cats", "../cats", "dogs/../cats", "", ".", "..", "/etc", "dogs/", "Dogs", &place]
    {
        let (code, message) =
            refused(attempt(&berth, &scripted(&berth, "cat /d/file", &[(name, "/d")])));
        let variant = format!("a start names the data set {name:?}");
        let control = "the one that is configured is read";
        Check { id: "R06", variant: &variant, control }.sees("data-set.unknown", &*code);
        assert!(message.contains("no data set"), "{message}");
    }
    let read = attempt(
        &berth,
        &scripted(&berth, "cat /d/file /e/f/file", &[("dogs", "/d"), ("dogs", "/e/f")]),
    );
    assert_eq!(read.output(), "dogs\ndogs\n");
    // No two mounts have one place.
    let mut request = scripted(&berth, "cat /d/file", &[("dogs", "/d")]);
    request["tmpfs"] = json!([{"target": "/d", "size_bytes": 4096}]);
    let (code, message) = refused(attempt(&berth, &request));
    assert!(code.starts_with("start.") && message.contains("same target"), "{code}: {message}");
    let facts = fs::metadata(set.join("file")).expect("it is there");
    assert_eq!((facts.uid(), facts.mode() & 0o777), (0, 0o644), "left as it was");
}
