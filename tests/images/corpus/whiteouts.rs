//! I04: whiteouts, opaque marks, device 0:0 and overlay's own attributes.

use super::list::{Case, List, d, edited, f, field, h, of_kind, s, whole};

pub(super) fn cases(canary: &str) -> Vec<Case> {
    let mut list = List::new("I04", "whiteout");
    names(&mut list);
    places(&mut list, canary);
    let mut attributes = List::new("I04", "attribute");
    of_overlay(&mut attributes);
    [list.cases, attributes.cases].into_iter().flatten().collect()
}

fn names(list: &mut List) {
    for name in [".wh.", ".wh..", ".wh...", "d/.wh.", "d/.wh..", "d/.wh..."] {
        list.no(format!("{name:?}"), &[f(name, b"")]);
    }
    for name in [".wh./x", ".wh.x/y", "d/.wh.x/y", "d/.wh..wh..opq/y", ".wh.x/.wh.y"] {
        list.no(format!("below {name:?}"), &[f(name, b"x")]);
    }
    for name in [
        ".wh.x",
        "d/.wh.x",
        ".wh..wh..opq",
        "d/.wh..wh..opq",
        ".wh.x y",
        ".wh.\u{e9}",
        ".wh.a\nb",
        ".wh. ",
    ] {
        list.ok(format!("{name:?}"), &[f(name, b"")]);
    }
    for name in [".wh..wh.plnk", ".wh..wh.aufs", ".wh..wh.x", ".wh..wh.plnk/123"] {
        list.ok(format!("aufs's {name:?}"), &[f(name, b"x")]);
    }
    list.no("of 300 bytes", &[f("x", b"").pax("path", format!(".wh.{}", "n".repeat(300)))]);
    list.no("of a name with a NUL", &[f("x", b"").pax("path", b".wh.a\0b")]);
    list.ok("with data", &[f(".wh.x", b"data"), f("y", b"y")]);
    list.ok("as a directory", &[d(".wh.x")]);
    list.ok("as a link out", &[s(".wh.x", "../canary")]);
    list.ok("as a device", &[of_kind(".wh.x", b'3')]);
    list.ok("as a hard link", &[f("y", b"y"), h(".wh.x", "y")]);
    list.ok("of another case", &[f(".WH.x", b"")]);
}

fn places(list: &mut List, canary: &str) {
    list.no("up and out", &[f("../canary/.wh.secret", b"")]);
    list.no("up and out, opaque", &[f("../canary/.wh..wh..opq", b"")]);
    list.ok("through a link out", &[s("l", canary), f("l/.wh.secret", b"")]);
    list.ok("through a relative link out", &[s("l", "../canary"), f("l/.wh.secret", b"")]);
    list.ok("through a link out, opaque", &[s("l", "../canary"), f("l/.wh..wh..opq", b"")]);
    list.ok("of a link out", &[s("l", canary), f(".wh.l", b"")]);
    list.ok("of a link out, before it", &[f(".wh.l", b""), s("l", canary)]);
    list.ok("of what the same layer has", &[f("x", b"x"), f(".wh.x", b"")]);
    list.ok("of a directory that the same layer has", &[d("x"), f("x/y", b"y"), f(".wh.x", b"")]);
    list.ok("and then a file", &[f(".wh.x", b""), f("x", b"x")]);
    list.ok("and then a directory", &[f(".wh.x", b""), d("x")]);
    list.ok("and then something below it", &[f(".wh.x", b""), f("x/y", b"y")]);
    list.ok("twice", &[f(".wh.x", b""), f(".wh.x", b"")]);
    list.ok("of the directory that it is in", &[f("d/x", b"x"), f("d/.wh.d", b"")]);
    list.no("below a file", &[f("x", b"x"), f("x/.wh.y", b"")]);
    for (what, kind) in [("character", b'3'), ("block", b'4')] {
        let node = |name: &'static str| {
            edited(of_kind(name, kind), |block| {
                field(block, 329..337, b"0000000");
                field(block, 337..345, b"0000000");
            })
        };
        list.ok_bytes(format!("{what} device 0:0"), whole(&[node("x")]));
        list.ok_bytes(format!("{what} device 0:0 in a directory"), whole(&[node("d/x")]));
    }
}

fn of_overlay(list: &mut List) {
    for key in [
        "opaque", "whiteout", "redirect", "metacopy", "origin", "impure", "nlink", "protattr",
        "upper",
    ] {
        for space in ["trusted", "user", "security"] {
            let key = format!("SCHILY.xattr.{space}.overlay.{key}");
            list.ok(format!("{key} of a file"), &[f("x", b"x").pax(&key, "y")]);
            list.ok(format!("{key} of a directory"), &[d("x").pax(&key, "/../../canary")]);
        }
    }
    for key in [
        "security.selinux",
        "security.ima",
        "security.apparmor",
        "trusted.evil",
        "system.evil",
        "evil",
    ] {
        let key = format!("SCHILY.xattr.{key}");
        list.ok(format!("{key} of a file"), &[f("x", b"x").pax(&key, "v")]);
    }
    list.ok("user.overlay alone", &[f("x", b"x").pax("SCHILY.xattr.user.overlay", "y")]);
    list.ok("overlay's of the root", &[d(".").pax("SCHILY.xattr.user.overlay.opaque", "y")]);
    list.ok("overlay's of a link", &[s("x", "y").pax("SCHILY.xattr.user.overlay.redirect", "/x")]);
    list.ok("empty", &[f("x", b"x").pax("SCHILY.xattr.user.x", "")]);
    list.ok("with a NUL", &[f("x", b"x").pax("SCHILY.xattr.user.x", b"a\0b")]);
    list.ok(
        "twice",
        &[f("x", b"x").pax("SCHILY.xattr.user.x", "1").pax("SCHILY.xattr.user.x", "2")],
    );
    list.ok(
        "an ACL that is none",
        &[f("x", b"x").pax("SCHILY.xattr.system.posix_acl_access", "evil")],
    );
    list.ok(
        "capabilities that are none",
        &[f("x", b"x").pax("SCHILY.xattr.security.capability", "evil")],
    );
}
