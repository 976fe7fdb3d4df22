//! I02: an entry of a symbolic link's name, or below it, that sets mode, owner, times or attributes.

use super::super::support::Entry;
use super::list::{Case, List, d, f, h, of_kind, s};

/// What is put at the link's name, or below it.
fn followers(name: &str) -> Vec<(&'static str, Vec<Entry>)> {
    let late = |mut entry: Entry| {
        entry.mtime = 1;
        entry
    };
    let owned = |mut entry: Entry| {
        entry.uid = 1234;
        entry
    };
    let acl = [
        2, 0, 0, 0, 1, 0, 7, 0, 255, 255, 255, 255, 4, 0, 7, 0, 255, 255, 255, 255, 32, 0, 7, 0,
        255, 255, 255, 255,
    ];
    vec![
        ("directory, mode 0777", vec![d(name).mode(0o777)]),
        ("directory, setgid", vec![d(name).mode(0o2777)]),
        ("directory, owner", vec![owned(d(name))]),
        ("directory, times", vec![late(d(name))]),
        ("directory, attribute", vec![d(name).pax("SCHILY.xattr.user.evil", "1")]),
        ("directory, ACL", vec![d(name).pax("SCHILY.xattr.system.posix_acl_access", acl)]),
        ("directory with a slash", vec![d(format!("{name}/")).mode(0o777)]),
        ("directory with a dot", vec![d(format!("{name}/.")).mode(0o777)]),
        ("file, setuid", vec![f(name, b"x").mode(0o4777)]),
        ("file, owner", vec![owned(f(name, b"x"))]),
        ("file, times", vec![late(f(name, b"x"))]),
        ("file, attribute", vec![f(name, b"x").pax("SCHILY.xattr.user.evil", "1")]),
        ("fifo, mode 0666", vec![of_kind(name, b'6').mode(0o666)]),
        ("symbolic link, owner and times", vec![late(owned(s(name, "elsewhere")))]),
        ("hard link", vec![f("base", b"x"), h(name, "base")]),
        ("file below", vec![late(owned(f(format!("{name}/evil"), b"x").mode(0o4777)))]),
        ("directory below, and its times", vec![late(d(format!("{name}/evil")).mode(0o777))]),
    ]
}

pub(super) fn cases(canary: &str) -> Vec<Case> {
    let mut list = List::new("I02", "follow");
    let secret = format!("{canary}/secret");
    let targets = [
        ("to a tree", canary),
        ("to a file", secret.as_str()),
        ("up to a tree", "../canary"),
        ("up to a file", "../canary/secret"),
    ];
    for (how, target) in targets {
        for (what, entries) in followers("l") {
            let mut all = vec![s("l", target)];
            all.extend(entries);
            list.ok(format!("link {how}, {what}"), &all);
        }
    }
    // A directory was there first, with times to be set at the end; then the link takes its place.
    let mut late = d("l").mode(0o777);
    late.mtime = 1;
    list.ok("directory, then a link of its name", &[late.clone(), s("l", canary)]);
    list.ok(
        "directory below, then a link in its parent's place",
        &[
            {
                let mut inner = d("p/inner").mode(0o777);
                inner.mtime = 1;
                inner
            },
            s("p", canary),
        ],
    );
    list.ok("twice", &[s("l", canary), late.clone(), s("l", canary), late]);
    list.ok(
        "hard link to a link, then a directory of its name",
        &[s("l", canary), h("m", "l"), d("m").mode(0o777)],
    );
    list.ok(
        "through a link that is replaced in between",
        &[d("p"), f("p/x", b"1"), s("p", "../canary"), f("p/secret", b"evil")],
    );
    list.cases
}
