//! I01: what comes first and what comes after it, under one name.

use super::super::support::Entry;
use super::list::{Case, Fate, List, d, f, h, of_kind, s};

const KINDS: [&str; 7] = ["file", "directory", "link", "link out", "hard link", "fifo", "whiteout"];

fn entry(kind: &str, canary: &str) -> Entry {
    match kind {
        "file" => f("x", b"file"),
        "directory" => d("x").mode(0o711),
        "link" => s("x", "target"),
        "link out" => s("x", canary),
        "hard link" => h("x", "base"),
        "fifo" => of_kind("x", b'6'),
        "whiteout" => f(".wh.x", b""),
        other => unreachable!("{other}"),
    }
}

pub(super) fn cases(canary: &str) -> Vec<Case> {
    let mut list = List::new("I01", "order");
    for first in KINDS {
        for second in KINDS {
            let entries = [f("base", b"base"), entry(first, canary), entry(second, canary)];
            list.ok(format!("{first}, then {second}"), &entries);
        }
        let below = [f("base", b"base"), entry(first, canary), f("x/y", b"below")];
        let fate = match first {
            "file" | "hard link" | "fifo" => Fate::Refused,
            _ => Fate::Unpacked,
        };
        let name = format!("{first}, then a file below it");
        match fate {
            Fate::Unpacked => list.ok(name, &below),
            Fate::Refused => list.no(name, &below),
        }
        let full = [f("base", b"base"), d("x"), f("x/y", b"1"), d("x/z"), entry(first, canary)];
        list.ok(format!("full directory, then {first}"), &full);
        let replaced = [f("base", b"base"), entry(first, canary), d("x"), f("x/secret", b"new")];
        list.ok(format!("{first}, then a directory, then a file in it"), &replaced);
    }
    list.ok("a link's target appears later", &[s("l", "t"), f("l/x", b"1"), d("t").mode(0o700)]);
    list.ok(
        "the cached parent is replaced",
        &[f("p/a", b"1"), s("p", "q"), f("p/b", b"2"), d("q").mode(0o700), f("p/c", b"3")],
    );
    list.ok(
        "the cached parent's parent is replaced",
        &[f("p/q/a", b"1"), s("p", "r"), f("p/q/b", b"2")],
    );
    list.ok(
        "the cached parent is hidden and made anew",
        &[f("p/a", b"1"), f(".wh.p", b""), f("p/b", b"2")],
    );
    list.no("a chain of 41 links", &{
        let mut all: Vec<Entry> =
            (0..41).map(|n| s(format!("l{n}"), format!("l{}", n + 1))).collect();
        all.push(d("l41"));
        all.push(f("l0/x", b"x"));
        all
    });
    list.no("links in a circle", &[s("a", "b/c"), s("b", "a/c"), f("a/x", b"x")]);
    list.cases
}
