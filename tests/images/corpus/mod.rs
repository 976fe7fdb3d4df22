//! I01 to I04 and I11: a corpus of hostile archives, each named for what it tries.
//!
//! Every one is unpacked by the real worker beside planted trees, which must not change. What is
//! unpacked must be, entry by entry, what Python's `tarfile` reads in it, and GNU tar must list the
//! same; all else is a refusal that leaves nothing. The control lets `tarfile` extract the same archive
//! without a filter, in a root of its own beside the planted tree.

mod broken;
mod follow;
mod list;
mod names;
mod order;
mod pax;
mod sizes;
mod sparse;
mod whiteouts;

use std::collections::{HashMap, HashSet};
use std::fs;
use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Stdio};

use serde_json::{Value, json};
use system_tests::{Check, Options, TestServer, programs, requires_root, sample, times};

use self::list::{Case, Fate};
use super::faulty::{Fault, Faulty, Place};
use super::import::import;
use super::registry::{Image, RATES, host_architecture, pull};
use super::support::{LAYER_ID, Layers, Scratch, snapshot};

const ORACLE: &str = include_str!("oracle.py");

/// All archives; `canary` is the absolute path of a planted tree.
fn cases(canary: &str) -> Vec<Case> {
    [
        follow::cases(canary),
        names::cases(canary),
        order::cases(canary),
        sizes::cases(),
        pax::cases(),
        whiteouts::cases(canary),
        broken::cases(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// A tree that must not change, with a mode, a time and an attribute of its own.
fn plant(canary: &Path) {
    fs::create_dir_all(canary).expect("a canary");
    fs::write(canary.join("secret"), "canary").expect("a file in it");
    fs::set_permissions(canary, fs::Permissions::from_mode(0o700)).expect("its mode");
    let done = Command::new("touch")
        .args(["-d", "2001-02-03"])
        .arg(canary.join("secret"))
        .arg(canary)
        .status();
    assert!(done.is_ok_and(|status| status.success()), "touch");
}

fn python(job: &Value) -> HashMap<String, Value> {
    let mut child = Command::new("python3")
        .args(["-c", ORACLE])
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("python3");
    let mut input = child.stdin.take().expect("its input");
    input.write_all(job.to_string().as_bytes()).expect("the job");
    drop(input);
    let output = child.wait_with_output().expect("its answer");
    assert!(output.status.success(), "the oracle failed");
    serde_json::from_slice(&output.stdout).expect("its answer is JSON")
}

/// What an extractor without guards does with each: `tarfile`, in a root of its own.
fn control(scratch: &Scratch, canary: &Path, cases: &[Case]) -> HashMap<String, Value> {
    let jail = scratch.0.join("jail");
    fs::create_dir_all(&jail).expect("a jail");
    let mut named = Vec::new();
    for (number, case) in cases.iter().enumerate() {
        let name = format!("{number}.tar");
        fs::write(jail.join(&name), &case.bytes).expect("an archive");
        named.push(json!({"name": case.name, "archive": format!("/{name}")}));
    }
    python(&json!({"control": jail, "canary": canary, "cases": named}))
}

#[test]
fn hostile_archives_come_to_what_other_readers_read_or_are_refused() {
    requires_root!();
    if Command::new("python3").arg("--version").output().is_err() {
        programs::skip("needs python3 as the oracle");
        return;
    }
    let layers = Layers::new();
    fs::create_dir_all(layers.data().join("layers")).expect("the store");
    let canary = layers.scratch.0.join("canary");
    // Where `..` of the staging directory would lead, and where absolute names would.
    let planted =
        [layers.data().join("layers/canary"), layers.data().join("canary"), canary.clone()];
    planted.iter().for_each(|path| plant(path));
    let before = planted.each_ref().map(|path| snapshot(path));
    let cases = cases(&canary.display().to_string());
    let names: HashSet<&str> = cases.iter().map(|case| case.name.as_str()).collect();
    assert_eq!(names.len(), cases.len(), "two of one name");
    assert!(names.len() >= 400, "{} cases", names.len());
    let cases = sample(&cases, 120);
    let controls = control(&layers.scratch, &canary, &cases);
    let mut observed: HashMap<&str, String> = HashMap::new();
    let (mut jobs, mut refused) = (Vec::new(), 0);
    for (number, case) in cases.iter().enumerate() {
        let said = layers.unpack(&case.bytes);
        let mut seen = match said.code() {
            "" if said.is_unpacked() => Fate::Unpacked.to_string(),
            "layer.invalid" | "layer.too-large" => Fate::Refused.to_string(),
            _ => format!("broken: {}", said.answer),
        };
        if planted.each_ref().map(|path| snapshot(path)) != before {
            seen += "; a planted tree has changed";
        }
        observed.insert(&case.name, seen);
        if said.is_unpacked() {
            let archive = layers.scratch.0.join("jail").join(format!("{number}.tar"));
            let layer = layers.path_of(&said.blob);
            jobs.push(json!({"name": case.name, "archive": archive, "layer": layer}));
        } else {
            refused += 1;
        }
    }
    let verdicts = python(&json!({"first_id": LAYER_ID, "cases": jobs}));
    for (name, verdict) in &verdicts {
        if *verdict != json!([]) {
            observed.get_mut(name.as_str()).expect("a case").push_str(&verdict.to_string());
        }
    }
    for case in &cases {
        let (expected, seen) = (case.fate.to_string(), &observed[case.name.as_str()]);
        if expected != *seen {
            eprintln!("{} {}: expected {expected}, saw {seen}", case.row, case.name);
        }
    }
    for case in &cases {
        let control = controls[&case.name].as_str().expect("a word");
        let check = Check { id: case.row, variant: &case.name, control };
        check.sees(case.fate, &observed[case.name.as_str()]);
    }
    let struck = controls
        .values()
        .filter(|word| word.as_str().is_some_and(|w| w.contains("changed")))
        .count();
    assert!(
        struck >= times(40, 1),
        "the control's extractor was broken out of {struck} times only"
    );
    assert!(refused > 0 && refused < cases.len(), "{refused} of {} refused", cases.len());
    let left = fs::read_dir(layers.data().join("layers/tmp")).expect("staging").count();
    assert_eq!(left, 0, "left in staging");
}

/// The same by the doors that people have: a pull, and an import.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hostile_archives_fare_the_same_by_a_pull_and_by_an_import() {
    requires_root!();
    let registry = Faulty::start();
    let section = format!("[registries]\ninsecure = [\"{}\"]\n{RATES}", registry.address);
    let server = TestServer::with(Options { sections: section, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let canary = server.dir.join("canary");
    let planted = [server.data_dir().join("layers/canary"), canary.clone()];
    planted.iter().for_each(|path| plant(path));
    let before = planted.each_ref().map(|path| snapshot(path));
    let cases = cases(&canary.display().to_string());
    for (number, case) in sample(&cases, 12).into_iter().enumerate() {
        let image = Image::of(std::slice::from_ref(&case.bytes), host_architecture());
        let archive = image.layout_archive("lab/corpus:v1");
        let repository = format!("c{number}");
        registry.host(&repository, image, Place::Challenge, Fault::Mute, 0);
        let reference = format!("{}/{repository}:v1", registry.address);
        for (door, done) in
            [("a pull", pull(&anna, &reference).await), ("an import", import(&anna, archive).await)]
        {
            let mut seen = match done["state"].as_str() {
                Some("succeeded") => Fate::Unpacked.to_string(),
                Some("failed") if done["failure"]["code"] != "internal" => {
                    Fate::Refused.to_string()
                }
                _ => done.to_string(),
            };
            if planted.each_ref().map(|path| snapshot(path)) != before {
                seen += "; a planted tree has changed";
            }
            let variant = format!("{}, by {door}", case.name);
            Check { id: case.row, variant: &variant, control: "see the same at the unpacker" }
                .sees(case.fate, seen);
        }
    }
}
