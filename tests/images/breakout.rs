//! I01 and I02: archives that try to write outside of their layer.
//!
//! Each case is unpacked by the real worker beside a planted tree, which must not change. The control
//! unpacks the same cases by a naive extractor, which the attacks do change the planted tree through.

use std::fs;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::Path;

use system_tests::requires_root;

use super::support::{Entry, Layers, Scratch, archive, snapshot};

/// What has to come of a case.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
enum Expect {
    /// Unpacked, and this path is in the layer.
    Has(&'static str),
    /// Refused.
    Refused,
}

use Expect::{Has, Refused};

type Case = (&'static str, Vec<Entry>, Expect);

fn f(name: impl AsRef<[u8]>, data: &[u8]) -> Entry {
    Entry::file(name, data)
}

fn d(name: impl AsRef<[u8]>) -> Entry {
    Entry::dir(name)
}

fn s(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry::symlink(name, target)
}

fn h(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Entry {
    Entry::link(name, target)
}

/// `canary` is the absolute path of the planted tree, which lies beside the naive root.
#[expect(clippy::too_many_lines, reason = "a table, one row per case")]
fn cases(canary: &str) -> Vec<Case> {
    let abs = |rest: &str| format!("{canary}/{rest}");
    let up = |rest: &str| format!("../canary/{rest}");
    vec![
        ("relative file", vec![f("a/b", b"x")], Has("a/b")),
        ("file up and out", vec![f(up("evil"), b"x")], Refused),
        ("file far up", vec![f("../../../../../../../../tmp/berth-evil", b"x")], Refused),
        ("file up inside", vec![f("a/../b", b"x")], Has("b")),
        ("file up through missing", vec![f(format!("a/../{}", up("evil")), b"x")], Refused),
        ("absolute file", vec![f(abs("evil"), b"x")], Has("CANARY/evil")),
        ("absolute file up", vec![f("/../../etc/evil", b"x")], Has("etc/evil")),
        ("overwrite absolute", vec![f(abs("secret"), b"x")], Has("CANARY/secret")),
        ("directory up and out", vec![d(up("evil"))], Refused),
        ("absolute directory", vec![d(abs("evil"))], Has("CANARY/evil")),
        ("mode of absolute directory", vec![d(canary).mode(0o777)], Has("CANARY")),
        ("symlink then file through it", vec![s("l", canary), f("l/evil", b"x")], Has("l")),
        (
            "relative symlink then file",
            vec![s("l", "../canary"), f("l/evil", b"x")],
            Has("canary/evil"),
        ),
        (
            "symlink then directory below",
            vec![s("l", "../canary"), d("l/evil")],
            Has("canary/evil"),
        ),
        (
            "symlink chain",
            vec![s("a", "../canary"), s("b", "a"), f("b/evil", b"x")],
            Has("canary/evil"),
        ),
        (
            "symlink in the middle",
            vec![d("x"), s("x/l", "../../canary"), f("x/l/evil", b"x")],
            Has("canary/evil"),
        ),
        ("symlink to dots", vec![s("l", ".."), f("l/canary/evil", b"x")], Has("canary/evil")),
        (
            "symlink to root",
            vec![s("l", "/"), f(format!("l{canary}/evil"), b"x")],
            Has("CANARY/evil"),
        ),
        ("symlink loop", vec![s("l", "l"), f("l/x", b"x")], Refused),
        ("two symlinks in a loop", vec![s("a", "b"), s("b", "a"), f("a/x", b"x")], Refused),
        ("file replaces symlink", vec![s("l", abs("secret")), f("l", b"x")], Has("l")),
        ("file replaces relative symlink", vec![s("l", up("secret")), f("l", b"x")], Has("l")),
        ("I02 directory over symlink", vec![s("l", canary), d("l").mode(0o777)], Has("l")),
        (
            "I02 directory over relative symlink",
            vec![s("l", "../canary"), d("l").mode(0o777)],
            Has("l"),
        ),
        (
            "I02 slash after symlink's name",
            vec![s("l", "../canary"), d("l/").mode(0o777)],
            Has("l"),
        ),
        ("fifo over symlink", vec![s("l", up("secret")), Entry::new("l", b'6')], Has("l")),
        ("hard link up and out", vec![h("l", up("secret"))], Refused),
        ("absolute hard link", vec![h("l", abs("secret"))], Refused),
        ("write through hard link", vec![h("l", up("secret")), f("l", b"x")], Refused),
        ("write through absolute hard link", vec![h("l", abs("secret")), f("l", b"x")], Refused),
        ("hard link through symlink", vec![s("d", "../canary"), h("l", "d/secret")], Refused),
        (
            "hard link to symlink then file",
            vec![s("s", up("secret")), h("l", "s"), f("l", b"x")],
            Has("l"),
        ),
        ("hard link's name up and out", vec![f("x", b"x"), h(up("evil"), "x")], Refused),
        ("hard link's name absolute", vec![f("x", b"x"), h(abs("evil"), "x")], Has("CANARY/evil")),
        (
            "hard link through symlinked name",
            vec![f("x", b"x"), s("d", "../canary"), h("d/evil", "x")],
            Has("canary/evil"),
        ),
        ("hard link to itself", vec![f("x", b"x"), h("x", "x")], Refused),
        ("hard link to a directory", vec![d("x"), h("l", "x")], Refused),
        ("hard link to root", vec![h("l", "/")], Refused),
        ("symlink's name up and out", vec![s(up("evil"), "/etc")], Refused),
        ("symlink's name absolute", vec![s(abs("evil"), "/etc")], Has("CANARY/evil")),
        ("root replaced by a file", vec![f(".", b"x")], Refused),
        ("root replaced by a symlink", vec![s("./", canary), f("evil", b"x")], Refused),
        ("root replaced by dots", vec![s("a/..", canary)], Refused),
        ("empty name", vec![f("", b"x")], Refused),
        ("only slashes", vec![f("///", b"x")], Refused),
        ("long name by PAX up and out", vec![f("x", b"x").pax("path", up("evil"))], Refused),
        ("link target by PAX up and out", vec![h("l", "x").pax("linkpath", up("secret"))], Refused),
        ("NUL in a PAX path", vec![f("x", b"x").pax("path", b"a\0/../../canary/evil")], Refused),
        ("whiteout up and out", vec![f("../canary/.wh.secret", b"")], Refused),
        ("opaque mark up and out", vec![f("../canary/.wh..wh..opq", b"")], Refused),
        (
            "whiteout through symlink",
            vec![s("l", "../canary"), f("l/.wh.secret", b"")],
            Has("canary/secret"),
        ),
        ("device node", vec![Entry::new("sda", b'4')], Has("")),
        (
            "deep path",
            vec![f("d/".repeat(1000) + "x", b"x").pax("path", "d/".repeat(1000) + "x")],
            Has("d/d/d"),
        ),
        ("component too long", vec![f("x", b"").pax("path", "n".repeat(300))], Refused),
    ]
}

/// A tree that must not change: a file, a directory with a mode and a time of its own.
fn plant(root: &Path) -> std::path::PathBuf {
    let canary = root.join("canary");
    fs::create_dir(&canary).expect("a canary");
    fs::write(canary.join("secret"), "canary").expect("a file in it");
    fs::set_permissions(&canary, fs::Permissions::from_mode(0o700)).expect("its mode");
    canary
}

#[test]
fn i01_no_archive_leaves_its_layer() {
    requires_root!();
    let mut count = 0;
    let layers = Layers::new();
    // Where `..` of the staging directory would lead, and where absolute names would.
    fs::create_dir_all(layers.data().join("layers/tmp")).expect("the store");
    let beside = plant(&layers.data().join("layers"));
    let canary = plant(&layers.scratch.0);
    let text = canary.display().to_string();
    let before = (snapshot(&beside), snapshot(&canary));
    for (name, entries, expect) in cases(&text) {
        let said = layers.unpack(&archive(&entries));
        match expect {
            Has(path) => {
                assert!(said.is_unpacked(), "{name}: {}", said.answer);
                let path = path.replace("CANARY", text.trim_start_matches('/'));
                let found = layers.path_of(&said.blob).join(path);
                assert!(fs::symlink_metadata(&found).is_ok(), "{name}: no {}", found.display());
            }
            Refused => assert_eq!(said.answer["answer"], "failed", "{name}"),
        }
        assert_eq!((snapshot(&beside), snapshot(&canary)), before, "{name}");
        count += 1;
    }
    assert!(count >= 40, "{count} cases");
    assert!(!Path::new("/tmp/berth-evil").exists());
    assert_eq!(fs::read_dir(layers.data().join("layers/tmp")).expect("staging").count(), 0);
}

/// The attacks are real: an extractor that joins names and lets the kernel follow links changes the
/// planted tree in most of them. Absolute names lead to the planted tree only.
#[test]
fn i01_control_a_naive_extractor_is_broken_out_of() {
    let mut broken = Vec::new();
    let scratch = Scratch::new();
    for (number, (name, entries, _)) in cases("CANARY").iter().enumerate() {
        let case = scratch.0.join(number.to_string());
        fs::create_dir_all(case.join("root")).expect("a root");
        let canary = plant(&case);
        let before = snapshot(&canary);
        let text = canary.display().to_string();
        for entry in entries {
            let replace = |bytes: &[u8]| {
                String::from_utf8_lossy(bytes).replace("CANARY", &text).replace('\0', "")
            };
            let (path, link) = (replace(&entry.name), replace(&entry.link));
            // Only what stays near the planted tree is tried for real.
            if path.contains("../../..") || path.starts_with("/..") || path.len() > 300 {
                continue;
            }
            naive(&case.join("root"), &path, &link, entry);
        }
        if snapshot(&canary) != before {
            broken.push(*name);
        }
    }
    assert!(broken.len() >= 20, "only {}: {broken:?}", broken.len());
}

fn naive(root: &Path, path: &str, link: &str, entry: &Entry) {
    let path = root.join(path);
    // Every failure is as good as a refusal here.
    drop(match entry.kind {
        b'5' => fs::create_dir_all(&path)
            .and_then(|()| fs::set_permissions(&path, fs::Permissions::from_mode(entry.mode))),
        b'2' => symlink(link, &path),
        b'1' => fs::hard_link(root.join(link), &path),
        b'0' => match path.file_name().and_then(|name| name.to_str()) {
            Some(name) if name.starts_with(".wh.") => {
                fs::remove_file(path.with_file_name(&name[4..]))
            }
            _ => fs::write(&path, &entry.data),
        },
        _ => Ok(()),
    });
}
