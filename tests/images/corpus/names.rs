//! I01: names, and what they are hard links to.

use super::list::{
    Case, GNU, List, MAGIC, NAME, PREFIX, d, edited, f, field, h, of_kind, s, whole,
};

pub(super) fn cases(canary: &str) -> Vec<Case> {
    let mut list = List::new("I01", "name");
    odd(&mut list);
    lengths(&mut list);
    slashes(&mut list);
    prefixes(&mut list);
    let mut links = List::new("I01", "hard link");
    hard_links(&mut links, canary);
    list.cases.extend(links.cases);
    list.cases
}

fn odd(list: &mut List) {
    for (what, name) in [
        ("newline", b"a\nb".as_slice()),
        ("not UTF-8", b"a\xff\xfe"),
        ("overlong UTF-8 of a slash", b"..\xc0\xafcanary"),
        ("escape sequence", b"\x1b[2Jx"),
        ("right to left", "a\u{202e}b".as_bytes()),
        ("backslashes", b"..\\..\\canary\\evil"),
        ("drive letter", b"C:evil"),
        ("dash", b"-rf"),
        ("three dots", b"..."),
        ("dots and a blank", b".. "),
        ("dot in the middle", b"a/./b"),
        ("two slashes", b"a//b"),
        ("only a dot first", b"./x"),
        ("blank", b" "),
        ("decomposed", "e\u{301}".as_bytes()),
    ] {
        list.ok(what, &[f(name, b"x")]);
    }
    for (what, name) in [
        ("empty", b"".as_slice()),
        ("dot", b"."),
        ("slash", b"/"),
        ("dots", b".."),
        ("dots and a slash", b"../"),
        ("dots behind a dot", b"./.."),
        ("up to the root", b"a/.."),
        ("up past the root", b"a/../.."),
        ("up past the root and back", b"a/../../root/evil"),
        ("dots through a link's name", b"l/../../canary/evil"),
    ] {
        list.no(format!("file called {what}"), &[s("l", "d/d"), f(name, b"x")]);
    }
    for (what, name) in [("dot", "."), ("dot and a slash", "./"), ("up to the root", "a/..")] {
        list.ok(format!("directory called {what}"), &[d(name).mode(0o750)]);
    }
    list.no("directory called dots", &[d("..").mode(0o777)]);
    list.no("directory called nothing", &[d("")]);
    list.no("NUL by PAX", &[f("x", b"x").pax("path", b"ok\0/../../canary/evil")]);
    list.no("NUL in a PAX link target", &[s("x", "y").pax("linkpath", b"ok\0evil")]);
    list.ok_bytes(
        "NUL in the header ends it",
        whole(&[edited(f("x", b"x"), |block| {
            field(block, NAME, b"cut\0/../../canary/evil");
        })]),
    );
    list.ok_bytes(
        "hundred bytes without a NUL",
        whole(&[edited(f("x", b"x"), |block| {
            field(block, NAME, &[b'n'; 100]);
        })]),
    );
}

fn lengths(list: &mut List) {
    let long = |name: String| vec![f("x", b"x").pax("path", name)];
    list.ok("component of 255 bytes", &long("n".repeat(255)));
    list.no("component of 256 bytes", &long("n".repeat(256)));
    list.no("component of 4,000 bytes", &long("n".repeat(4000)));
    list.ok("path of 4,095 bytes", &long("d/".repeat(2047) + "x"));
    list.no("path of 4,096 bytes", &long("d/".repeat(2047) + "xx"));
    list.no("path of 100,000 bytes", &long("d/".repeat(50_000) + "x"));
    list.no("component of 256 bytes in the middle", &long(format!("a/{}/b", "n".repeat(256))));
    list.ok("link target of 4,095 bytes", &[s("x", "y").pax("linkpath", "t".repeat(4095))]);
    list.no("link target of 4,096 bytes", &[s("x", "y").pax("linkpath", "t".repeat(4096))]);
    list.no("empty link target", &[s("x", "")]);
}

fn slashes(list: &mut List) {
    list.ok("directory with a slash", &[d("x/")]);
    list.ok("directory with three", &[d("x///")]);
    // GNU tar takes these for directories, others for files.
    list.no("file with a slash", &[f("x/", b"x")]);
    list.no("file with a slash by PAX", &[f("x", b"x").pax("path", "y/")]);
    list.no(
        "contiguous file with a slash",
        &[{
            let mut entry = f("x/", b"x");
            entry.kind = b'7';
            entry
        }],
    );
    list.ok("symbolic link with a slash", &[s("x/", "y")]);
    list.ok("fifo with a slash", &[of_kind("x/", b'6')]);
    list.ok("hard link with a slash", &[f("y", b"x"), h("x/", "y")]);
    list.ok("V7 directory by its slash", &[of_kind("x/", 0)]);
    list.no("V7 directory that PAX calls a file", &[of_kind("x/", 0).pax("path", "x")]);
    list.no("V7 file that PAX calls a directory", &[of_kind("x", 0).pax("path", "x/")]);
}

fn prefixes(list: &mut List) {
    let with = |magic: &'static [u8], prefix: &'static [u8], kind: u8| {
        let mut entry = f("name", b"");
        entry.kind = kind;
        whole(&[edited(entry, move |block| {
            field(block, MAGIC, magic);
            field(block, PREFIX, prefix);
        })])
    };
    const POSIX: &[u8] = b"ustar\x0000";
    list.ok_bytes("POSIX prefix", with(POSIX, b"dir/sub", b'0'));
    list.ok_bytes("POSIX prefix of a directory", with(POSIX, b"dir", b'5'));
    list.no_bytes("POSIX prefix up and out", with(POSIX, b"../canary", b'0'));
    list.no_bytes("GNU magic and a prefix", with(GNU, b"dir", b'0'));
    list.no_bytes("no magic and a prefix", with(b"", b"dir", b'0'));
    list.ok_bytes("no magic", with(b"", b"", b'0'));
    list.ok_bytes("GNU magic", with(GNU, b"", b'0'));
    list.no_bytes("POSIX prefix of a sparse file", with(POSIX, b"dir", b'S'));
    for (kind, shown) in
        [(b'x', "PAX header"), (b'g', "global header"), (b'L', "long name"), (b'K', "long target")]
    {
        list.no_bytes(format!("{shown} without a magic"), with(b"", b"", kind));
        list.no_bytes(format!("{shown} of an unknown version"), with(b"ustar\x0011", b"", kind));
    }
    list.no_bytes("another magic and a prefix", with(b"ustar\x0011", b"dir", b'Z'));
}

fn hard_links(list: &mut List, canary: &str) {
    let out = |rest: &str| format!("{canary}/{rest}");
    list.no("to nothing", &[h("x", "nothing")]);
    list.no("to what comes later", &[h("x", "later"), f("later", b"x")]);
    list.no("to nothing, empty", &[h("x", "")]);
    list.no("to a directory", &[d("y"), h("x", "y")]);
    list.no("to the root", &[h("x", ".")]);
    list.no("to the root by dots", &[h("x", "a/..")]);
    list.no("up and out", &[h("x", "../canary/secret")]);
    list.no("absolute", &[h("x", out("secret"))]);
    list.no("through a link out", &[s("l", canary), h("x", "l/secret")]);
    list.no("through a relative link out", &[s("l", "../canary"), h("x", "l/secret")]);
    list.no("to a whiteout's name", &[f(".wh.y", b""), h("x", ".wh.y")]);
    list.no("to what a whiteout hides", &[f(".wh.y", b""), h("x", "y")]);
    list.no("to itself", &[f("x", b"x"), h("x", "./x")]);
    list.ok("to a file", &[f("y", b"x"), h("x", "y")]);
    list.ok("to a file, absolute inside", &[f("y", b"x"), h("x", "/y")]);
    list.ok("to a link that leads out", &[s("l", out("secret")), h("x", "l")]);
    list.ok("to a fifo", &[of_kind("p", b'6'), h("x", "p")]);
    list.ok("over its target's twin", &[f("y", b"x"), h("x", "y"), h("x", "y")]);
    list.ok("over a directory", &[f("y", b"x"), d("x"), f("x/z", b"z"), h("x", "y")]);
    list.ok("in a chain", &[f("a", b"x"), h("b", "a"), h("c", "b"), f("a", b"new")]);
    list.no("to a device that was left out", &[of_kind("n", b'3'), h("x", "n")]);
    list.no(
        "with data",
        &[f("y", b"x"), {
            let mut entry = h("x", "y");
            entry.data = b"evil".to_vec();
            entry
        }],
    );
    list.no("over the directory that it is below", &[f("d/y", b"x"), h("d", "d/y")]);
}
