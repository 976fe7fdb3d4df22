//! The kept corpus of each fuzz target, and every seed cut and changed a little: an ordinary test.
//! `tests/fuzz/run` searches for more. The targets of the runtime's own program are replayed by its unit
//! tests (`runtime/src/foreign.rs`).

#![allow(
    dead_code,
    unreachable_pub,
    unused_imports,
    reason = "the parsers' sources are included whole; the parsers alone are used"
)]

#[path = "src/change.rs"]
mod change;
#[path = "src/error.rs"]
mod error;
#[path = "src/layer.rs"]
mod layer;
#[path = "../../server/src/service/logs.rs"]
mod logs;
#[path = "src/registry.rs"]
mod registry;
#[path = "src/runtime_client.rs"]
mod runtime_client;
#[path = "../../server/src/service/images/archive.rs"]
mod saved;
#[path = "src/targets.rs"]
mod targets;

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::process::ExitCode;

use system_tests::{Dice, times};

fn main() -> ExitCode {
    let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus");
    let (mut passed, mut failed) = (0, 0);
    for (name, target) in targets::ALL {
        let seeds = seeds(&corpus.join(name));
        let outcome = catch_unwind(AssertUnwindSafe(|| {
            assert!(!seeds.is_empty(), "there are no seeds of {name}");
            replay(target, &seeds);
        }));
        let word = if outcome.is_ok() { "ok" } else { "FAILED" };
        println!("test {name} ... {word}");
        passed += usize::from(outcome.is_ok());
        failed += usize::from(outcome.is_err());
    }
    let word = if failed == 0 { "ok" } else { "FAILED" };
    println!("test result: {word}. {passed} passed; {failed} failed; 0 ignored");
    if failed == 0 { ExitCode::SUCCESS } else { ExitCode::FAILURE }
}

fn seeds(directory: &Path) -> Vec<Vec<u8>> {
    let entries = std::fs::read_dir(directory).into_iter().flatten();
    let mut paths: Vec<_> = entries.map(|entry| entry.expect("a seed").path()).collect();
    paths.sort();
    paths.iter().map(|path| std::fs::read(path).expect("a seed")).collect()
}

fn replay(target: targets::Target, seeds: &[Vec<u8>]) {
    let mut dice = Dice::new();
    for seed in seeds {
        target(seed);
        for _ in 0..times(2000, 20) {
            let other = &seeds[dice.below(seeds.len())];
            let changed = change::changed(seed, other, |end| dice.below(end));
            let outcome = catch_unwind(AssertUnwindSafe(|| target(&changed)));
            assert!(outcome.is_ok(), "with {:?}", String::from_utf8_lossy(&changed));
        }
    }
}
