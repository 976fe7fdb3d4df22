//! R21: root of a container and the files of a layer that it shares with others: whatever it does to them is
//! done to copies of its own, and what lies below is byte for byte what was unpacked. And what somebody with the
//! host's powers has changed in a stored layer is found by comparing it with the bytes that it came from.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::fd::AsFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::programs::{attacker, install, unguarded};
use system_tests::supervisor::Supervisor;
use system_tests::{Check, requires_root};

use crate::hostile::{Layer, attacker_layer, attempt, request};

/// The ways of `attacker.c`, each with a file of its own.
const WAYS: [&str; 21] = [
    "splice",
    "vmsplice",
    "mprotect",
    "mapping",
    "memory",
    "race",
    "descriptor-link",
    "mapping-link",
    "handle",
    "flags",
    "hole",
    "clone",
    "remount",
    "write",
    "truncate",
    "mode",
    "owner",
    "attribute",
    "time",
    "removal",
    "name",
];
/// Those that the kernel lets nobody go, host's root neither: what they do is refused, or happens to a copy.
const CLOSED_TO_ALL: [&str; 7] =
    ["splice", "vmsplice", "mprotect", "memory", "race", "hole", "clone"];
/// What each file holds.
const CONTENT: [u8; 8192] = [b'o'; 8192];

/// All that can be said of what is below a directory. Any change of an inode moves its `ctime`.
fn tree(top: &Path) -> BTreeMap<PathBuf, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![top.to_owned()];
    while let Some(path) = todo.pop() {
        let facts = fs::symlink_metadata(&path).expect("inspect");
        let content = match () {
            () if facts.is_file() => {
                format!("{:x?}", Sha256::digest(fs::read(&path).expect("read")))
            }
            () if facts.is_symlink() => format!("{:?}", fs::read_link(&path).expect("read a link")),
            () => String::new(),
        };
        if facts.is_dir() {
            todo.extend(
                fs::read_dir(&path).expect("list").map(|entry| entry.expect("list").path()),
            );
        }
        let said = format!(
            "{:o} {}:{} {} {}.{} {content}",
            facts.mode(),
            facts.uid(),
            facts.gid(),
            facts.rdev(),
            facts.ctime(),
            facts.ctime_nsec()
        );
        found.insert(path, said);
    }
    found
}

/// By name, what is not as it was.
fn altered(
    before: &BTreeMap<PathBuf, String>,
    after: &BTreeMap<PathBuf, String>,
    top: &Path,
) -> Vec<String> {
    let changed = |path: &&PathBuf| before.get(*path) != after.get(*path);
    let paths: BTreeSet<&PathBuf> = before.keys().chain(after.keys()).filter(changed).collect();
    let name = |path: &&PathBuf| path.strip_prefix(top).expect("below it").display().to_string();
    paths.iter().map(name).collect()
}

#[test]
fn root_of_a_container_alters_nothing_of_a_layer_that_it_shares() {
    requires_root!();
    let berth = Supervisor::start();
    let program = attacker_layer(&berth);
    let mut files = Layer::new().directory("shared", 0o755);
    for way in WAYS {
        files = files.file(&format!("shared/{way}"), 0o644, &CONTENT);
    }
    let shared = berth.unpack(&files.bytes());
    let store = berth.data_dir().join("layers/sha256");
    let place = store.join(&shared["sha256:".len()..]);
    let words = ["/attacker", "alter", "/shared"];
    let request = request(&berth, &[&program, &shared], &words);
    let before = tree(&store);
    let said = attempt(&berth, &request).output();
    let answers: BTreeMap<&str, &str> =
        said.lines().filter_map(|line| line.split_once(' ')).collect();
    let tried: Vec<_> = WAYS.iter().filter(|way| answers.contains_key(*way)).collect();
    assert_eq!(tried.len(), WAYS.len(), "each was tried: {said}");
    for way in ["write", "truncate", "mapping", "mode", "removal"] {
        assert_eq!(answers[way], "0", "{way} is done, to a copy of its own: {said}");
    }
    let after = tree(&store);

    // The control: the same ways, as the host's root, on the files themselves.
    let own = berth.dir.join("attacker");
    install(attacker(), &own);
    let script = format!("{} alter {}", own.display(), place.join("shared").display());
    let free = unguarded(&script);
    let changed = altered(&after, &tree(&store), &place.join("shared"));
    // Else nobody could remove it.
    let status = Command::new("chattr").args(["-R", "-i"]).arg(place.join("shared")).status();
    assert!(status.expect("run chattr").success(), "take the mark of the control away");
    let missed: Vec<_> = WAYS
        .iter()
        .filter(|way| !CLOSED_TO_ALL.contains(way) && !changed.iter().any(|name| name == *way))
        .collect();
    assert!(missed.is_empty(), "the control alters what it may: {missed:?}\n{free}");
    let control = format!("host's root alters {}", changed.join(", "));
    let harm = format!("{:?}", altered(&before, &after, &store));
    Check { id: "R21", variant: "files of a layer, every way", control: &control }.sees("[]", harm);

    // What the host's root may do no more than a container's: a defect of the kernel's would show here.
    for way in CLOSED_TO_ALL {
        let text = fs::read(place.join("shared").join(way)).expect("read");
        let variant = format!("what nobody may: {way}");
        Check { id: "R21", variant: &variant, control: &control }.sees(true, text == CONTENT);
    }
}

/// A layer with one of each, as an archive.
fn one_of_each() -> Vec<u8> {
    Layer::new()
        .directory("etc", 0o755)
        .file("etc/config", 0o644, &CONTENT)
        .file("etc/empty", 0o600, b"")
        .file_with("etc/marked", 0o644, b"x", ("user.mark", b"one"))
        .link("etc/link", "config")
        .fifo("etc/fifo")
        .directory("deep/er/still", 0o700)
        .file("deep/er/still/.wh.gone", 0o644, b"")
        .file("setuid", 0o4755, b"#!")
        .bytes()
}

/// What the supervisor says of a stored layer, given the bytes that it came from.
fn verified(berth: &Supervisor, layer: &str, archive: &[u8]) -> Value {
    let path = berth.dir.join("verified.tar");
    fs::write(&path, archive).expect("write the layer");
    let bytes = fs::File::open(&path).expect("open the layer");
    let request = json!({"op": "layer_verify", "blob": layer, "diff_id": layer,
        "compression": "none"});
    berth.call_with(&request, &[bytes.as_fd()]).0
}

/// How somebody changes a layer's files, and what is then said: path and harm.
type Harm = (&'static str, fn(&Path), &'static [(&'static str, &'static str)]);

const HARMS: [Harm; 10] = [
    (
        "a byte",
        |top| {
            let path = top.join("etc/config");
            let mut bytes = fs::read(&path).expect("read");
            bytes[4_711] ^= 1;
            fs::write(&path, bytes).expect("write");
        },
        &[("etc/config", "content")],
    ),
    (
        "a length",
        |top| fs::write(top.join("etc/empty"), "no more").expect("write"),
        &[("etc/empty", "size")],
    ),
    (
        "a mode",
        |top| {
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(top.join("setuid"), mode).expect("change the mode");
        },
        &[("setuid", "mode")],
    ),
    (
        "the root's mode",
        |top| {
            let mode = fs::Permissions::from_mode(0o777);
            fs::set_permissions(top, mode).expect("change the mode");
        },
        &[(".", "mode")],
    ),
    (
        "an owner",
        |top| chown(top.join("etc/marked"), Some(0), Some(0)).expect("change the owner"),
        &[("etc/marked", "owner")],
    ),
    (
        "a file is gone",
        |top| fs::remove_file(top.join("etc/fifo")).expect("remove"),
        &[("etc/fifo", "missing")],
    ),
    (
        "a whiteout is gone",
        |top| fs::remove_file(top.join("deep/er/still/gone")).expect("remove"),
        &[("deep/er/still/gone", "missing")],
    ),
    (
        "a file more",
        |top| fs::write(top.join("deep/er/more"), "x").expect("write"),
        &[("deep/er/more", "added")],
    ),
    (
        "a link elsewhere",
        |top| {
            fs::remove_file(top.join("etc/link")).expect("remove");
            symlink("empty", top.join("etc/link")).expect("link");
            let owner = fs::symlink_metadata(top.join("setuid")).expect("inspect").uid();
            std::os::unix::fs::lchown(top.join("etc/link"), Some(owner), Some(owner))
                .expect("change the owner");
        },
        &[("etc/link", "target")],
    ),
    (
        "a directory in a file's place",
        |top| {
            fs::remove_file(top.join("etc/config")).expect("remove");
            fs::create_dir(top.join("etc/config")).expect("make a directory");
        },
        &[("etc/config", "kind")],
    ),
];

#[test]
fn whatever_is_changed_in_a_stored_layer_is_found_and_named() {
    requires_root!();
    let berth = Supervisor::start();
    let archive = one_of_each();
    let store = berth.data_dir().join("layers");
    for (what, change, expected) in HARMS {
        let layer = berth.unpack(&archive);
        let top = store.join("sha256").join(&layer["sha256:".len()..]);
        let before = tree(&top);
        let whole = verified(&berth, &layer, &archive);
        assert_eq!(whole["answer"], "layer_verified", "{whole}");
        assert_eq!(before, tree(&top), "looking changes nothing");
        let control = format!("untouched it is whole: {} differences", whole["differences"]);
        assert_eq!(whole["differences"], 0, "{whole}");
        assert!(whole["entries"].as_u64().expect("a count") >= 11, "all of it: {whole}");
        change(&top);
        let harmed = verified(&berth, &layer, &archive);
        let found: Vec<(String, String)> = harmed["shown"]
            .as_array()
            .unwrap_or_else(|| panic!("{what}: {harmed}"))
            .iter()
            .map(|one| {
                let text = |name: &str| one[name].as_str().expect("a text").to_owned();
                (text("path").trim_matches('"').to_owned(), text("harm"))
            })
            .collect();
        let expected: Vec<(String, String)> =
            expected.iter().map(|&(path, harm)| (path.to_owned(), harm.to_owned())).collect();
        Check { id: "R21", variant: what, control: &control }
            .sees(format!("{expected:?}"), format!("{found:?}"));
        let left: Vec<_> = fs::read_dir(store.join("tmp")).expect("list").flatten().collect();
        assert!(left.is_empty(), "what was unpacked is gone again: {left:?}");
        let removed = berth.call(&json!({"op": "layer_remove", "blob": layer}));
        assert_eq!(removed["answer"], "done", "{removed}");
        system_tests::supervised::wait_for("the harmed layer is gone", || {
            fs::read_dir(store.join("tmp")).expect("list").next().is_none().then_some(())
        });
    }
}

#[test]
fn bytes_that_are_not_the_layers_say_nothing_of_it() {
    requires_root!();
    let berth = Supervisor::start();
    let archive = one_of_each();
    let layer = berth.unpack(&archive);
    let mut other = archive.clone();
    other[600] ^= 1;
    let refused = verified(&berth, &layer, &other);
    assert_eq!(refused["answer"], "failed", "{refused}");
    assert_eq!(refused["class"], "invalid", "{refused}");
    let unknown = format!("sha256:{}", "0".repeat(64));
    let refused = verified(&berth, &unknown, &archive);
    assert_eq!(refused["code"], "layer.unknown", "{refused}");
    let whole = verified(&berth, &layer, &archive);
    assert_eq!(whole["differences"], 0, "{whole}");
}
