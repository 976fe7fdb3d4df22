//! Every code of a problem has its entry in the catalogue (`GET /api/v1/problems`), with the status
//! that it comes with, and every entry can come: the codes are read from the source. A code that is
//! added without cause and cure fails here.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};

use serde_json::Value;
use system_tests::{Options, TestServer, requires_root};

/// How source makes a refusal, and the status that follows from it; none where the catalogue says it.
const MADE: &[(&str, Option<u64>)] = &[
    ("Error::denied(", Some(403)),
    ("Error::conflict(", Some(409)),
    ("Error::exhausted(", Some(507)),
    ("Error::reached(", Some(507)),
    ("Error::unavailable(", Some(503)),
    ("Error::invalid(", None),
    ("Self::denied(", Some(403)),
    ("Self::conflict(", Some(409)),
    ("Self::exhausted(", Some(507)),
    ("Self::unavailable(", Some(503)),
    ("Self::invalid(", None),
    ("Refusal::new(", None),
    // What the runtime answers, by its class.
    ("FailureClass::Denied,", Some(403)),
    ("FailureClass::Conflict,", Some(409)),
    ("FailureClass::Exhausted,", Some(507)),
    ("FailureClass::Unavailable,", Some(503)),
    ("FailureClass::Invalid,", None),
];

/// Where something else than a literal is the code: these pass on what is found elsewhere.
const PASSED_ON: &[(&str, usize)] = &[
    // The constructors themselves, and a failure of the supervisor's.
    ("server/src/error.rs", 7),
    ("server/src/service/containers/actions.rs", 2),
    // `container.<state>`, below.
    ("server/src/service/containers.rs", 1),
];

/// Codes that no literal beside a constructor shows: the fixed ones of `Error::code` are read from
/// there, these are put together or become refusals only at the server.
const OTHERWISE: &[(&str, u64)] = &[
    // The class depends on what the kernel said.
    ("container.build", 507),
    ("container.start-failed", 507),
    // A start that lacks an object is a conflict with the container, which is there.
    ("layer.unknown", 409),
    ("person.unknown", 409),
    ("volume.unknown", 409),
    ("data-set.unknown", 409),
];

/// The supervisor's codes that the server turns into others before anybody sees them.
const INNER: &[&str] = &[
    "layer.above-given",
    "peer.denied",
    "wire.answer",
    "wire.descriptors",
    "wire.length",
    "wire.request",
    "wire.version",
];

/// The OCI command line's own: it prints them, no server answers them.
const COMMAND_LINE: &[&str] = &[
    "runtime/src/commands/",
    "runtime/src/state.rs",
    "runtime/src/exec.rs",
    "runtime/src/undo.rs",
];

/// The same in a file that is not its alone: what a bundle can ask for and the API cannot.
const COMMAND_LINE_CODES: &[&str] = &["container.device", "limits.not-held"];

#[tokio::test]
async fn every_code_has_cause_and_cure_and_every_entry_can_come() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let listed = server.anonymous().get("/api/v1/problems").await.expect_status(200).json();
    let items = listed["items"].as_array().expect("a list");
    let known: BTreeMap<&str, u64> =
        items.iter().map(|item| (text(item, "code"), status(item))).collect();
    assert_eq!(known.len(), items.len(), "a code is there twice");
    let found = codes();
    let mut wrong = Vec::new();
    for (code, (place, expected)) in &found {
        match known.get(code.as_str()) {
            None => wrong.push(format!("{code} ({place}) has no entry in http/catalogue")),
            Some(status) if expected.is_some_and(|expected| expected != *status) => {
                wrong.push(format!("{code} ({place}) is not answered with {status}"));
            }
            Some(_) => {}
        }
    }
    let unused = known.keys().filter(|code| !found.contains_key(**code));
    wrong.extend(unused.map(|code| format!("{code} is in the catalogue and nowhere else")));
    assert!(found.len() > 90, "only {} codes: not the source", found.len());
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    // What a problem's type leads to can be opened by whoever got it.
    for code in ["unauthenticated", "container.not-running", "internal"] {
        let page = server.anonymous().get(&format!("/problems/{code}")).await.expect_status(200);
        assert!(page.text.contains(code) && page.text.contains("What to do"), "{}", page.text);
    }
    server.anonymous().get("/problems/no.such-code").await.expect_status(404);
}

#[tokio::test]
async fn problems_bear_the_title_of_their_code() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let listed = server.anonymous().get("/api/v1/problems").await.expect_status(200).json();
    let refused = server.anonymous().get("/api/v1/containers").await.expect_status(401);
    let items = listed["items"].as_array().expect("a list");
    let entry = items.iter().find(|item| item["code"] == "unauthenticated").expect("an entry");
    assert_eq!(refused.json()["title"], entry["title"]);
    // A page says the same, and leads to the explanation.
    let page = server.operator().get("/containers/none").await.expect_status(404);
    assert!(page.text.contains("href=\"/problems/not-found\""), "{}", page.text);
}

#[test]
fn codes_are_found_in_source() {
    let source =
        "Err(Error::conflict(\n    \"a.b\",\n))?; Error::denied(\"c\", x); Refusal::new(code, d)
        // Error::conflict(\"in.comment\")
        fail(FailureClass::Busy, \"d.e\"); fail(FailureClass::Invalid, \"f.g\")";
    let mut found = Found::default();
    read("x.rs", source, &mut found);
    let codes: Vec<&str> = found.codes.keys().map(String::as_str).collect();
    assert_eq!((codes, found.passed_on), (vec!["a.b", "c", "f.g"], 1));
}

/// Codes with where they are and the status that they must have.
type Codes = BTreeMap<String, (String, Option<u64>)>;

#[derive(Default)]
struct Found {
    codes: Codes,
    passed_on: usize,
}

/// Every code that the server can answer.
fn codes() -> Codes {
    let mut all = Codes::new();
    let mut passed_on = BTreeMap::new();
    for (path, source) in sources() {
        let mut found = Found::default();
        read(&path, &source, &mut found);
        if found.passed_on > 0 {
            passed_on.insert(path.clone(), found.passed_on);
        }
        all.extend(found.codes);
        if path == "server/src/error.rs" {
            let fixed = between(&source, "pub fn code(&self)", "\n    }\n");
            let words = fixed.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
            all.extend(words.map(|code| (code.to_owned(), (path.clone(), None))));
        }
        if path == "server/src/service/lifecycle.rs" {
            let states = between(&source, "pub(crate) fn as_str", "\n    }\n");
            let words = states.split("=> \"").skip(1).filter_map(|rest| rest.split('"').next());
            let code = |state| (format!("container.{state}"), (path.clone(), Some(409)));
            all.extend(words.map(code));
        }
        if path == "runtime/src/failure.rs" {
            // Its helper for what is wrong with a configuration.
            let words = source.split("invalid(").skip(1).filter_map(|rest| rest.split('"').nth(1));
            let words = words.filter(|word| is_code(word) && word.starts_with("container."));
            all.extend(words.map(|code| (code.to_owned(), (path.clone(), Some(422)))));
        }
    }
    let expected = PASSED_ON.iter().map(|(path, count)| ((*path).to_owned(), *count)).collect();
    assert_eq!(
        passed_on, expected,
        "where a code is no literal, no test can see it: write it out, or say in PASSED_ON what it is"
    );
    let otherwise = OTHERWISE.iter().map(|(code, status)| {
        ((*code).to_owned(), ("tests/api/problems.rs".to_owned(), Some(*status)))
    });
    all.extend(otherwise);
    for code in INNER.iter().chain(COMMAND_LINE_CODES) {
        all.remove(*code);
    }
    all
}

/// The codes of one file.
fn read(path: &str, source: &str, found: &mut Found) {
    let code: String = source
        .lines()
        .filter(|line| !line.trim_start().starts_with("//"))
        .flat_map(|line| [line, "\n"])
        .collect();
    for (made, status) in MADE {
        for rest in code.split(made).skip(1) {
            let rest = rest.trim_start();
            let literal = rest.strip_prefix('"').and_then(|rest| rest.split('"').next());
            match literal.filter(|word| is_code(word)) {
                Some(word) => {
                    found.codes.insert(word.to_owned(), (path.to_owned(), *status));
                }
                // A class also stands in tables, beside no code.
                None => found.passed_on += usize::from(made.ends_with('(')),
            }
        }
    }
}

fn is_code(word: &str) -> bool {
    let letters = |letter: u8| letter.is_ascii_lowercase() || b".-".contains(&letter);
    !word.is_empty() && word.bytes().all(letters)
}

/// The server's source and what of the runtime answers it: without tests.
fn sources() -> Vec<(String, String)> {
    let top = Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package has a parent");
    let mut wanted: Vec<PathBuf> = vec![top.join("server/src"), top.join("runtime/src")];
    let mut sources = Vec::new();
    let mut seen = BTreeSet::new();
    while let Some(path) = wanted.pop() {
        if path.is_dir() {
            let entries = std::fs::read_dir(&path).expect("read a folder");
            wanted.extend(entries.map(|entry| entry.expect("read a folder").path()));
            continue;
        }
        let name = path.strip_prefix(top).expect("below the top").display().to_string();
        let elsewhere = COMMAND_LINE.iter().any(|place| name.starts_with(place));
        if elsewhere || !name.ends_with(".rs") || !seen.insert(name.clone()) {
            continue;
        }
        let source = std::fs::read_to_string(&path).expect("read a source file");
        let source = source.split("#[cfg(test)]\nmod tests").next().unwrap_or_default();
        sources.push((name, source.to_owned()));
    }
    sources
}

fn between<'a>(text: &'a str, from: &str, to: &str) -> &'a str {
    let (_, rest) = text.split_once(from).expect("the place is there");
    rest.split(to).next().unwrap_or_default()
}

fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().expect("a text")
}

fn status(value: &Value) -> u64 {
    value["status"].as_u64().expect("a status")
}
