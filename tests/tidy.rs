//! House rules of CONTRIBUTING.md that a machine can check, read from the files that git tracks.
//!
//! Each rule is a function from a file's text to what is wrong with it, so that each is also tried on
//! a text that breaks it. Not here: what rustfmt and clippy check.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};
use std::process::Command;

/// A tracked file: its path from the top of the repository, and its text.
struct Source {
    path: String,
    text: String,
}

fn top() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).parent().expect("the package has a parent").to_owned()
}

/// Every text file that git tracks or would.
fn sources() -> Vec<Source> {
    let output = Command::new("git")
        .args(["ls-files", "--cached", "--others", "--exclude-standard", "-z"])
        .current_dir(top())
        .output()
        .expect("run git");
    assert!(output.status.success(), "git ls-files: {}", String::from_utf8_lossy(&output.stderr));
    let names = String::from_utf8(output.stdout).expect("file names are UTF-8");
    let names: BTreeSet<&str> = names.split('\0').filter(|name| !name.is_empty()).collect();
    assert!(names.len() > 20, "only {} files: not the repository", names.len());
    names
        .into_iter()
        .filter_map(|name| {
            let text = std::fs::read_to_string(top().join(name)).ok()?;
            Some(Source { path: name.to_owned(), text })
        })
        .collect()
}

/// Applies a rule to all files whose path passes, and fails with everything it finds.
fn check(applies: fn(&str) -> bool, rule: fn(&Source) -> Vec<String>) {
    let mut looked_at = 0;
    let mut wrong = Vec::new();
    for source in sources().iter().filter(|source| applies(&source.path)) {
        looked_at += 1;
        wrong.extend(rule(source).into_iter().map(|what| format!("{}: {what}", source.path)));
    }
    assert!(looked_at > 0, "the rule applies to no file");
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

/// What the rule says of a text under a path.
fn broken(rule: fn(&Source) -> Vec<String>, path: &str, text: &str) -> usize {
    rule(&Source { path: path.to_owned(), text: text.to_owned() }).len()
}

fn is_rust(path: &str) -> bool {
    path.ends_with(".rs")
}

/// The lines of code, numbered from 1: without comments and without what is in string literals.
fn code_lines(text: &str) -> impl Iterator<Item = (usize, String)> {
    text.lines().enumerate().map(|(index, line)| (index + 1, code_of(line)))
}

fn code_of(line: &str) -> String {
    let mut code = String::with_capacity(line.len());
    let mut in_string = false;
    let mut escaped = false;
    let mut previous = ' ';
    for letter in line.chars() {
        if in_string {
            in_string = escaped || letter != '"';
            escaped = !escaped && letter == '\\';
        } else if letter == '"' && previous != '\'' {
            in_string = true;
        } else if letter == '/' && previous == '/' {
            code.pop();
            break;
        } else {
            code.push(letter);
        }
        previous = letter;
    }
    code
}

fn words(code: &str) -> impl Iterator<Item = &str> {
    code.split(|letter: char| !letter.is_alphanumeric() && letter != '_')
}

// ---- the rules ----

fn opens_with_its_purpose(source: &Source) -> Vec<String> {
    let fine = source.text.trim().is_empty() || source.text.starts_with("//! ");
    if fine { vec![] } else { vec!["does not open with //!".to_owned()] }
}

fn keeps_unsafe_in_its_place(source: &Source) -> Vec<String> {
    code_lines(&source.text)
        .filter(|(_, code)| words(code).any(|word| word == "unsafe"))
        .map(|(number, _)| format!("line {number}: unsafe outside runtime/src/sys"))
        .collect()
}

fn leaves_nothing_unfinished(source: &Source) -> Vec<String> {
    let forbidden = ["todo!", "unimplemented!", "dbg!", "#[ignore", "#[should_panic"];
    let mut wrong = Vec::new();
    for (number, code) in code_lines(&source.text) {
        for what in forbidden.iter().filter(|what| code.contains(**what)) {
            wrong.push(format!("line {number}: {what}"));
        }
    }
    wrong
}

/// Paths that exist on one person's machine only. `/home/app` is an image's.
fn names_no_machine(source: &Source) -> Vec<String> {
    let foreign = |line: &str| {
        let line = line.replace("/home/app", "");
        ["/home/", "/Users/", "/work/"].iter().any(|root| {
            line.match_indices(root).any(|(at, _)| {
                let starts = at == 0 || !line.as_bytes()[at - 1].is_ascii_alphanumeric();
                let inside = at > 0 && b">}/.)*".contains(&line.as_bytes()[at - 1]);
                let next = line.as_bytes().get(at + root.len());
                starts && !inside && next.is_some_and(u8::is_ascii_alphanumeric)
            })
        })
    };
    source
        .text
        .lines()
        .enumerate()
        .filter(|(_, line)| foreign(line))
        .map(|(index, line)| format!("line {}: {}", index + 1, line.trim()))
        .collect()
}

/// Who may import what (CONTRIBUTING.md): the first column is where, the second what never.
const NEVER_IMPORTED: &[(&str, &[&str])] = &[
    ("server/src/http/", &["crate::runtime_client", "sqlx", "nix"]),
    ("server/src/service/", &["axum", "askama", "berth_web", "crate::http"]),
    ("server/src/inventory/", &["axum", "crate::service", "crate::runtime_client", "crate::http"]),
    ("server/src/runtime_client", &["sqlx", "axum", "crate::service", "crate::inventory"]),
    ("server/src/auth/", &["axum"]),
    (
        "server/src/client/",
        &["axum", "sqlx", "crate::service", "crate::inventory", "crate::http", "crate::app"],
    ),
    ("web/", &["berth_runtime", "axum", "sqlx", "tokio", "nix"]),
    ("runtime/", &["tokio", "reqwest", "sqlx", "axum", "berth_web", "hyper"]),
    ("runtime/src/init.rs", &["std::fs", "tracing"]),
];

fn imports_only_what_it_may(source: &Source) -> Vec<String> {
    let mut wrong = Vec::new();
    let rows = NEVER_IMPORTED.iter().filter(|(place, _)| source.path.starts_with(place));
    let never: Vec<&str> = rows.flat_map(|(_, names)| names.iter().copied()).collect();
    for (number, code) in code_lines(&source.text) {
        for name in never.iter().filter(|name| mentions(&code, name)) {
            wrong.push(format!("line {number}: {name} must not be used here"));
        }
    }
    wrong
}

/// Handlers may name the rows that services return, and call nothing of the inventory.
fn handlers_only_name_rows(source: &Source) -> Vec<String> {
    let is_type = |name: &str| name.starts_with(|letter: char| letter.is_ascii_uppercase());
    let called = |code: &str| {
        code.split("crate::inventory").skip(1).any(|rest| {
            let path = rest.split([';', '(', ')', '>', ' ', '&']).next().unwrap_or_default();
            let group = rest.split_once("::{").and_then(|(_, names)| names.split('}').next());
            match group {
                Some(names) => !names.split(',').all(|name| is_type(name.trim())),
                None => !path.split("::").any(is_type),
            }
        })
    };
    code_lines(&source.text)
        .filter(|(_, code)| code.contains(".inventory.") || called(code))
        .map(|(number, _)| format!("line {number}: the inventory is the services' alone"))
        .collect()
}

/// Whether the code holds the path `name` itself, as `use name` or `name::…`.
fn mentions(code: &str, name: &str) -> bool {
    let part = |letter: u8| letter.is_ascii_alphanumeric() || letter == b'_' || letter == b':';
    code.match_indices(name).any(|(at, _)| {
        let starts = at == 0 || !part(code.as_bytes()[at - 1]);
        let rest = &code[at + name.len()..];
        let used = code.trim_start().trim_start_matches("pub ").starts_with("use ");
        starts && (rest.starts_with("::") || (used && !rest.bytes().next().is_some_and(part)))
    })
}

/// Relative links of a document lead somewhere.
fn links_lead_somewhere(source: &Source) -> Vec<String> {
    let folder = top().join(&source.path).parent().expect("a file has a folder").to_owned();
    source
        .text
        .split("](")
        .skip(1)
        .filter_map(|rest| rest.split([')', '#', ' ']).next())
        .filter(|link| !link.is_empty() && !link.contains("://") && !link.starts_with("mailto:"))
        .filter(|link| !folder.join(link).exists())
        .map(|link| format!("{link} is not there"))
        .collect()
}

// ---- the rules on this repository ----

#[test]
fn each_source_file_opens_with_its_purpose() {
    check(is_rust, opens_with_its_purpose);
}

#[test]
fn unsafe_is_in_one_place() {
    let elsewhere = |path: &str| {
        is_rust(path) && !path.starts_with("tests/") && !path.starts_with("runtime/src/sys/")
    };
    check(elsewhere, keeps_unsafe_in_its_place);
}

#[test]
fn nothing_is_left_unfinished() {
    check(is_rust, leaves_nothing_unfinished);
}

#[test]
fn no_file_names_a_path_of_somebodys_machine() {
    check(|path| path != "tests/tidy.rs", names_no_machine);
}

#[test]
fn layers_import_only_what_they_may() {
    check(is_rust, imports_only_what_it_may);
}

#[test]
fn handlers_leave_the_inventory_to_services() {
    check(|path| is_rust(path) && path.starts_with("server/src/http/"), handlers_only_name_rows);
}

#[test]
fn links_in_documents_lead_somewhere() {
    check(|path| path.ends_with(".md"), links_lead_somewhere);
}

#[test]
fn migrations_are_numbered_without_gap() {
    let numbers: Vec<usize> = sources()
        .iter()
        .filter_map(|source| source.path.strip_prefix("migrations/")?.strip_suffix(".sql"))
        .map(|name| name.split('_').next().and_then(|number| number.parse().ok()))
        .map(|number| number.expect("a migration's name starts with its number"))
        .collect();
    assert_eq!(numbers, (1..=numbers.len()).collect::<Vec<_>>());
}

// ---- the rules on texts that break them ----

#[test]
fn each_rule_finds_what_breaks_it() {
    assert_eq!(broken(opens_with_its_purpose, "a.rs", "fn main() {}\n"), 1);
    assert_eq!(broken(keeps_unsafe_in_its_place, "a.rs", "unsafe { x() }\n// unsafe\n"), 1);
    assert_eq!(broken(leaves_nothing_unfinished, "a.rs", concat!("to", "do!()\n\"dbg!\"\n")), 1);
    let home = ["/home", "/ann/x and <folder>/work/a"].concat();
    assert_eq!(broken(names_no_machine, "a.md", &home), 1);
    let rule = imports_only_what_it_may;
    assert_eq!(broken(rule, "server/src/http/a.rs", "use sqlx::Row;\nuse crate::service;\n"), 1);
    assert_eq!(broken(rule, "server/src/service/a.rs", "    axum::serve(a);\n// axum::x\n"), 1);
    assert_eq!(broken(rule, "runtime/src/a.rs", "use tokio;\nuse my_tokio::a;\n"), 1);
    let rows = "use crate::inventory::a::{B, C};\nuse crate::inventory::a;\napp.inventory.read()\n";
    assert_eq!(broken(handlers_only_name_rows, "server/src/http/a.rs", rows), 2);
    assert_eq!(broken(links_lead_somewhere, "README.md", "[a](none.md) [b](https://x)"), 1);
}
