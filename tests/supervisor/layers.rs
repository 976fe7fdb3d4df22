//! R21: root of a container and the files of a layer that it shares with others: whatever it does to them is
//! done to copies of its own, and what lies below is byte for byte what was unpacked.

use std::collections::{BTreeMap, BTreeSet};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::process::Command;

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
