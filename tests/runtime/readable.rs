//! R19: what a container can read of `/proc` and `/sys`, all of it, compared with `readable.golden`; with
//! the same container unmasked as the control, and a neighbour whose names must be nowhere in what is read.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use serde_json::{Value, json};
use system_tests::Check;
use system_tests::programs::{attacker, install};

use crate::bundle::{Bundle, is_root};

const GOLDEN: &str = include_str!("readable.golden");
/// Findings that a failure names at most.
const SHOWN_MAX: usize = 40;

/// What a walk has found.
struct Walk {
    /// Files that tell something.
    readable: BTreeSet<String>,
    /// Paths that have a neighbour's name in them, or in what they tell.
    marked: Vec<String>,
}

impl Walk {
    fn by(bundle: &Bundle, neighbour: &str) -> Self {
        // The words of the command line are in its own process's files.
        let (begin, end) = neighbour.split_at(neighbour.len() / 2);
        bundle.program(&["/attacker", "readable", begin, end]);
        let output = bundle.command(&["run", "--bundle", bundle.directory(), bundle.name()]);
        let text = bundle.succeed(output);
        assert!(text.ends_with("end\n"), "it came to its end: {}", text.len());
        let mut walk = Self { readable: BTreeSet::new(), marked: Vec::new() };
        for line in text.lines() {
            // Drivers have names of several words.
            let Some((letter, rest)) = line.split_once(' ') else { continue };
            let marked = rest.strip_suffix(" marked");
            let path = marked.unwrap_or(rest);
            if letter == "f" {
                walk.readable.insert(path.to_owned());
            }
            if marked.is_some() {
                walk.marked.push(path.to_owned());
            }
        }
        walk
    }

    /// What the golden list does not have.
    fn unlisted(&self) -> Vec<&String> {
        let patterns: Vec<&str> = patterns().collect();
        let listed = |path: &str| patterns.iter().any(|pattern| fits(pattern, path));
        self.readable.iter().filter(|path| !listed(path)).collect()
    }
}

/// The golden list's patterns; each line has its reason.
fn patterns() -> impl Iterator<Item = &'static str> {
    let lines = GOLDEN.lines().filter(|line| !line.is_empty() && !line.starts_with("# "));
    lines.map(|line| line.split_once("  ").unwrap_or_else(|| panic!("no reason: {line}")).0)
}

/// Whether a pattern of the golden list has this path.
fn fits(pattern: &str, path: &str) -> bool {
    let mut parts = path.split('/');
    for wanted in pattern.split('/') {
        if wanted == "**" {
            return parts.next().is_some();
        }
        let Some(part) = parts.next() else { return false };
        let same = match wanted {
            "#" => part.bytes().all(|byte| byte.is_ascii_digit()),
            wanted => match wanted.split_once('*') {
                Some((begin, end)) => part.starts_with(begin) && part.ends_with(end),
                None => part == wanted,
            },
        };
        if !same {
            return false;
        }
    }
    parts.next().is_none()
}

/// A loop device of a file, as each person with a limit on what they keep has one.
struct Loop {
    device: String,
    file: PathBuf,
}

impl Loop {
    fn new(file: PathBuf) -> Self {
        let made = fs::File::create(&file).and_then(|made| made.set_len(1 << 20));
        made.expect("make a file");
        let output = Command::new("losetup").args(["--find", "--show"]).arg(&file).output();
        let output = output.expect("run losetup");
        assert!(output.status.success(), "losetup: {}", String::from_utf8_lossy(&output.stderr));
        let device = String::from_utf8(output.stdout).expect("a path");
        Self { device: device.trim().to_owned(), file }
    }
}

impl Drop for Loop {
    fn drop(&mut self) {
        let detached = Command::new("losetup").args(["--detach", &self.device]).status();
        let removed = fs::remove_file(&self.file);
        if !std::thread::panicking() {
            assert!(detached.expect("run losetup").success(), "detach {}", self.device);
            removed.expect("remove the file");
        }
    }
}

/// The masks of a configuration that cover something here.
fn masks(config: &Value) -> Vec<String> {
    let masks = config["linux"]["maskedPaths"].as_array().expect("masks");
    let masks = masks.iter().map(|mask| mask.as_str().expect("a path").to_owned());
    masks.filter(|mask| Path::new(mask).exists()).collect()
}

#[test]
fn what_can_be_read_of_the_host_is_in_the_golden_list_and_no_neighbour_is() {
    if !is_root() {
        return;
    }
    let neighbour = Bundle::new("the-neighbour");
    let program = neighbour.name().to_owned();
    neighbour.change(|config| config["hostname"] = program.clone().into());
    neighbour.sleep();
    let disk = Loop::new(std::env::temp_dir().join(format!("{program}.img")));
    let bundle = Bundle::new("walker");
    install(attacker(), &bundle.root("attacker"));
    bundle.own();
    let covering = masks(&bundle.config());
    let guarded = Walk::by(&bundle, &program);
    bundle.change(|config| config["linux"]["maskedPaths"] = json!([]));
    let open = Walk::by(&bundle, &program);
    drop(disk);

    let unlisted = open.unlisted();
    let below = |path: &str, mask: &str| {
        path.strip_prefix(mask).is_some_and(|rest| rest.is_empty() || rest.starts_with('/'))
    };
    let stray: Vec<_> =
        unlisted.iter().filter(|path| !covering.iter().any(|mask| below(path, mask))).collect();
    let told = covering.iter().filter(|mask| open.readable.iter().any(|path| below(path, mask)));
    let told = told.count();
    assert!(told >= 5, "the control reads what is masked: {told} of {covering:?}");
    assert!(!open.marked.is_empty(), "the control finds the file behind the neighbour's disk");
    let control = format!(
        "unmasked, {} more files can be read, below {told} of {} masks; {} have the neighbour's name",
        open.readable.len() - guarded.readable.len(),
        covering.len(),
        open.marked.len()
    );
    assert!(
        stray.is_empty(),
        "neither listed nor masked: {:?}",
        &stray[..stray.len().min(SHOWN_MAX)]
    );
    let found = guarded.unlisted();
    let found = format!("{:?}", &found[..found.len().min(SHOWN_MAX)]);
    Check { id: "R19", variant: "/proc and /sys, every file", control: &control }.sees("[]", found);
    let marked = format!("{:?}", &guarded.marked[..guarded.marked.len().min(SHOWN_MAX)]);
    Check { id: "R19", variant: "a neighbour's name", control: &control }.sees("[]", marked);
}
