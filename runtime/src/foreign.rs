//! What must hold of each thing that this program reads, whatever is in it: `tests/fuzz/run` searches for
//! bytes that break it, the test below replays the kept corpus and changes it a little.

use std::path::Path;

use oci_spec::runtime::{LinuxResources, LinuxSeccomp, Spec};
use serde::{Serialize, de::DeserializeOwned};
use serde_json::Value;

use crate::accounts;
use crate::cgroup::{fence, fence_agrees};
use crate::ledger::{EndRecord, ExecRecord, LiveRecord, StartRecord};
use crate::people;
use crate::plan::{Surroundings, plan, user_from_spec};
use crate::seccomp::{compile, reading_tests};
use crate::spec::check;
use crate::spelling;
use crate::state::{Attempt, Record};
use crate::unknown;

#[cfg(test)]
#[path = "../../tests/fuzz/src/change.rs"]
mod change;

/// A target.
type Target = fn(&[u8]);

/// All of them by name.
const ALL: [(&str, Target); 5] = [
    ("oci-config", config),
    ("seccomp", seccomp),
    ("devices", devices),
    ("state", state),
    ("accounts", account_files),
];

/// Gives `bytes` to the target that `BERTH_FUZZ_TARGET` names.
#[cfg(fuzzing)]
pub fn try_one(bytes: &[u8]) {
    static CHOSEN: std::sync::LazyLock<Target> = std::sync::LazyLock::new(|| {
        let name = std::env::var("BERTH_FUZZ_TARGET").unwrap_or_default();
        let known = ALL.iter().find(|(known, _)| *known == name);
        known.expect("BERTH_FUZZ_TARGET names a target").1
    });
    CHOSEN(bytes);
}

/// What was read is written and read again the same, by `same`; returned as it was read first.
fn kept<T: Serialize + DeserializeOwned>(bytes: &[u8], same: fn(&T, &T) -> bool) -> Option<T> {
    let read: T = spelling::parse(bytes).ok()?;
    let written = serde_json::to_vec(&read).expect("it can be written");
    let again: T = spelling::parse(&written).expect("and read again");
    assert!(same(&again, &read), "{} became another", String::from_utf8_lossy(&written));
    Some(read)
}

/// Of what has no order of its own: the same text.
fn text<T: Serialize>(one: &T, other: &T) -> bool {
    let [one, other] = [one, other].map(|value| serde_json::to_vec(value).expect("written"));
    one == other
}

/// A `config.json`: kept beside the container, planned, and what it says in vain is named.
fn config(bytes: &[u8]) {
    let Some(spec) = kept(bytes, Spec::eq) else { return };
    if let Ok(given) = serde_json::from_slice::<Value>(bytes) {
        let read = serde_json::to_value(&spec).expect("it can be written");
        assert!(unknown::properties(&read, &read).is_empty(), "all that was read is known");
        unknown::properties(&given, &read);
    }
    if check(&spec).is_err() {
        return;
    }
    let Some(process) = spec.process() else { return };
    // Sources of mounts are opened, never attached or written.
    let user = user_from_spec(process);
    let around = Surroundings { bundle: Path::new("/nowhere"), own_cgroups: &[], joined: &[] };
    let Ok(plan) = plan(&spec, user, around, Vec::new()) else { return };
    let given = spec.mounts().as_ref().map_or(0, Vec::len);
    assert!(plan.mounts.steps.len() >= given, "no mount is lost");
    assert!(plan.process.candidates.iter().all(|path| !path.is_empty()));
}

/// A `linux.seccomp`: the program answers each call as a plain reading of the rules does.
fn seccomp(bytes: &[u8]) {
    let Some(spec) = kept(bytes, LinuxSeccomp::eq) else { return };
    let Ok(filter) = compile(&spec) else { return };
    reading_tests::agree(&spec, &filter);
}

/// A list of `linux.resources.devices`: the fence answers as the last rule that fits.
fn devices(bytes: &[u8]) {
    let Some(resources) = kept(bytes, LinuxResources::eq) else { return };
    let Ok(made) = fence(Some(&resources)) else { return };
    fence_agrees(resources.devices().as_deref().unwrap_or_default(), &made);
}

/// The files in which the command line and the supervisor remember.
fn state(bytes: &[u8]) {
    kept::<Record>(bytes, text);
    kept::<Attempt>(bytes, text);
    kept::<StartRecord>(bytes, text);
    kept::<ExecRecord>(bytes, text);
    kept::<EndRecord>(bytes, text);
    kept::<LiveRecord>(bytes, text);
    kept::<people::Content>(bytes, text);
}

/// An image's `/etc/passwd`, in pieces of the size that the first byte says, and the user looked for in
/// it: the lines are those of any reader, but for those that are too long.
fn account_files(bytes: &[u8]) {
    let Some((&size, bytes)) = bytes.split_first() else { return };
    accounts::tests::agree(bytes, usize::from(size) + 1);
    if let Ok(text) = std::str::from_utf8(bytes)
        && let Ok(request) = accounts::Request::parse(text)
    {
        let shown = |name: &accounts::Name| match name {
            accounts::Name::Number(number) => number.to_string(),
            accounts::Name::Text(text) => text.clone(),
        };
        let group = request.group.as_ref().map(|group| format!(":{}", shown(group)));
        let again = shown(&request.user) + &group.unwrap_or_default();
        assert_eq!(accounts::Request::parse(&again).expect("its own text"), request);
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::panic::{AssertUnwindSafe, catch_unwind};
    use std::time::{SystemTime, UNIX_EPOCH};

    use serde_json::{Value, json};

    use super::{ALL, Path, change};

    /// xorshift64*, by `BERTH_SEED` or else the clock.
    struct Dice(u64);

    impl Dice {
        fn new() -> Self {
            let clock =
                || SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |now| now.as_secs());
            let given = std::env::var("BERTH_SEED").ok().and_then(|text| text.parse().ok());
            Self(given.unwrap_or_else(clock) | 1)
        }

        fn below(&mut self, end: usize) -> usize {
            self.0 ^= self.0 >> 12;
            self.0 ^= self.0 << 25;
            self.0 ^= self.0 >> 27;
            let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
            usize::try_from(high).expect("31 bits") % end
        }
    }

    #[test]
    fn the_kept_corpus_breaks_nothing() {
        let mut dice = Dice::new();
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        for (name, target) in ALL {
            let entries = fs::read_dir(corpus.join(name)).expect("a corpus");
            let mut paths: Vec<_> = entries.map(|entry| entry.expect("a seed").path()).collect();
            paths.sort();
            let seeds: Vec<Vec<u8>> =
                paths.iter().map(|path| fs::read(path).expect("a seed")).collect();
            assert!(!seeds.is_empty(), "there are no seeds of {name}");
            for seed in &seeds {
                target(seed);
                for _ in 0..20 {
                    let other = &seeds[dice.below(seeds.len())];
                    let changed = change::changed(seed, other, |end| dice.below(end));
                    let outcome = catch_unwind(AssertUnwindSafe(|| target(&changed)));
                    let shown = String::from_utf8_lossy(&changed);
                    assert!(outcome.is_ok(), "{name} with {shown:?}");
                }
            }
        }
    }

    /// Each value of each seed in turn as something that it should not be: a few things a run, with
    /// `BERTH_LONG` all of them.
    #[test]
    fn no_single_value_breaks_anything() {
        let corpus = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/fuzz/corpus");
        let long = "x".repeat(70_000);
        let strange = [
            json!(null),
            json!("\0"),
            json!("a\0b"),
            json!("/\0"),
            json!(""),
            json!("."),
            json!("../../.."),
            json!(long),
            json!(-1),
            json!(0),
            json!(u64::MAX),
            json!(i64::MIN),
            json!(0.5),
            json!([]),
            json!({}),
            json!([null]),
            json!(true),
        ];
        let (mut dice, mut tried) = (Dice::new(), 0);
        let all = std::env::var_os("BERTH_LONG").is_some();
        for (name, target) in ALL {
            for entry in fs::read_dir(corpus.join(name)).expect("a corpus") {
                let bytes = fs::read(entry.expect("a seed").path()).expect("a seed");
                let Ok(seed) = serde_json::from_slice::<Value>(&bytes) else { continue };
                for place in places(&seed) {
                    for value in &strange {
                        if !all && dice.below(5) > 0 {
                            continue;
                        }
                        let mut changed = seed.clone();
                        *changed.pointer_mut(&place).expect("it is there") = value.clone();
                        let bytes = serde_json::to_vec(&changed).expect("it can be written");
                        let outcome = catch_unwind(AssertUnwindSafe(|| target(&bytes)));
                        assert!(outcome.is_ok(), "{name}: {place} as {value}");
                        tried += 1;
                    }
                }
            }
        }
        assert!(tried > 2000, "only {tried} tried");
    }

    /// Pointers (RFC 6901) to all that is in a value.
    fn places(value: &Value) -> Vec<String> {
        let below = |key: &str, value: &Value| {
            let key = key.replace('~', "~0").replace('/', "~1");
            let here = format!("/{key}");
            let deeper = places(value).into_iter().map(|place| format!("{here}{place}"));
            deeper.collect::<Vec<_>>()
        };
        let all = match value {
            Value::Object(fields) => fields.iter().flat_map(|(key, one)| below(key, one)).collect(),
            Value::Array(list) => {
                let numbered = list.iter().enumerate();
                numbered.flat_map(|(index, one)| below(&index.to_string(), one)).collect()
            }
            _ => Vec::new(),
        };
        [vec![String::new()], all].concat()
    }
}
