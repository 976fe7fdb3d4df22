//! What the manual says of this runtime is refused: each field that its page names, and no other.

use serde_json::{Value, json};

use crate::case::{Case, is_berths};

const PAGE: &str = include_str!("../../web/templates/help/runtime.html");

/// The fields of the page; where each is put; a value that the page speaks of.
fn rows() -> Vec<(&'static str, &'static str, Value)> {
    let null = json!([{ "path": "/dev/null", "type": "c", "major": 1, "minor": 3, "uid": 1 }]);
    let counted = json!({ "destination": "/t", "type": "tmpfs", "options": ["iversion"] });
    vec![
        ("linux.namespaces", "/linux/namespaces", json!([{ "type": "pid" }])),
        ("linux.devices", "/linux/devices", null),
        ("mounts[].options", "/mounts/-", counted),
        ("process.selinuxLabel", "/process/selinuxLabel", json!("a:b:c:s0")),
        ("linux.mountLabel", "/linux/mountLabel", json!("a:b:c:s0")),
        ("linux.intelRdt", "/linux/intelRdt", json!({ "closID": "a" })),
        ("vm", "/vm", json!({ "kernel": { "path": "/kernel" } })),
    ]
}

#[test]
fn each_field_that_the_manual_calls_refused_is() {
    if !is_berths() {
        eprintln!("SKIPPED conformance: the manual is of Berth's runtime");
        return;
    }
    let Some(control) = Case::new("manual") else { return };
    assert_eq!(control.script("echo ran").run(), "ran\n", "without any of them it runs");
    for (number, (field, place, value)) in rows().into_iter().enumerate() {
        let Some(case) = Case::new(&format!("manual-{number}")) else { return };
        let said = case.with(place, value).create_refused();
        // Of lists it says which one.
        let parts: Vec<&str> = field.split("[]").collect();
        assert!(said.contains("not supported"), "{field}: {said}");
        assert!(parts.iter().all(|part| said.contains(part)), "{field}: {said}");
    }
}

#[test]
fn the_manual_names_these_fields() {
    let (_, table) = PAGE.split_once("<h2>What is refused</h2>").expect("the page has the list");
    let terms =
        table.split("<dt>").skip(1).map(|rest| rest.split("</dt>").next().expect("it ends"));
    let named: Vec<&str> = terms
        .flat_map(|term| term.split("<code>").skip(1))
        .map(|code| code.split("</code>").next().expect("it ends"))
        .collect();
    let expected: Vec<&str> = rows().iter().map(|(field, ..)| *field).collect();
    assert_eq!(named, expected);
}
