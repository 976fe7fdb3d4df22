//! I03: malformed PAX records, times that are none, unknown types.

use super::super::support::{Entry, block_entry, pax_record};
use super::list::{Case, List, MODE, TIME, blocks, d, edited, f, field, of_kind, whole};

pub(super) fn cases() -> Vec<Case> {
    let mut list = List::new("I03", "PAX record");
    records(&mut list);
    let mut times = List::new("I03", "time");
    of_times(&mut times);
    let mut kinds = List::new("I03", "type");
    of_kinds(&mut kinds);
    [list.cases, times.cases, kinds.cases].into_iter().flatten().collect()
}

fn records(list: &mut List) {
    let with = |records: &[u8]| {
        let mut out = Vec::new();
        block_entry(b"pax", b'x', records, &mut out);
        whole(&[out, blocks(&[f("x", b"x")])])
    };
    for (what, bytes) in [
        ("length 0", b"0 path=evil\n".as_slice()),
        ("length too large", b"99 path=evil\n"),
        ("length too small", b"5 path=evil\n"),
        ("length one less", b"12 path=evil\n"),
        ("length of 2^64 + 13", b"18446744073709551629 path=evil\n"),
        ("length with a sign", b"+13 path=evi\n"),
        ("no length", b"path=evil\n"),
        ("no blank", b"13path=evil\n"),
        ("two blanks", b"14  path=evil\n"),
        ("no equals", b"12 pathevil\n"),
        ("no key", b"9 =evil\n"),
        ("no end of line", b"13 path=evill"),
        ("a carriage return for it", b"13 path=evil\r"),
        ("a NUL for it", b"13 path=evil\0"),
        ("only a length", b"3 \n"),
        ("garbage after it", b"13 path=evil\ngarbage"),
        ("NULs after it", b"13 path=evil\n\0\0\0\0"),
        ("an empty line after it", b"13 path=evil\n\n"),
    ] {
        list.no_bytes(what, with(bytes));
    }
    list.ok_bytes("none", with(b""));
    list.ok_bytes("an end of line more", with(b"14 path=evil\n\n"));
    list.ok_bytes("equals in the value", with(&pax_record("path", b"a=b")));
    list.ok_bytes("end of line in the value", with(&pax_record("path", b"a\nb")));
    list.ok_bytes("not UTF-8", with(&pax_record("path", b"a\xff")));
    list.ok_bytes("an unknown key", with(&pax_record("VENDOR.evil", b"../../x")));
    list.ok_bytes(
        "names of people",
        with(&[pax_record("uname", b"root"), pax_record("gname", b"root")].concat()),
    );
    list.ok_bytes(
        "binary names",
        with(&[pax_record("hdrcharset", b"BINARY"), pax_record("path", b"a\xff")].concat()),
    );
    let attributes = |count: usize| {
        let mut entry = f("x", b"x");
        for number in 0..count {
            entry = entry.pax(&format!("SCHILY.xattr.user.{number}"), "v");
        }
        entry
    };
    list.ok("sixteen attributes", &[attributes(16)]);
    list.no("257 attributes", &[attributes(257)]);
    list.no("an attribute without a name", &[f("x", b"x").pax("SCHILY.xattr.", "v")]);
    list.no("a NUL in an attribute's name", &[f("x", b"x").pax("SCHILY.xattr.user.a\0b", "v")]);
    list.no(
        "an attribute of 128 KiB",
        &[f("x", b"x").pax("SCHILY.xattr.user.a", "v".repeat(128 << 10))],
    );
    list.no(
        "an attribute's name of 300 bytes",
        &[f("x", b"x").pax(&format!("SCHILY.xattr.user.{}", "n".repeat(300)), "v")],
    );
}

fn of_times(list: &mut List) {
    let at = |text: &str| f("x", b"x").pax("mtime", text);
    list.ok("a fraction", &[at("1234567890.123456789")]);
    list.ok("before 1970", &[at("-86400.5")]);
    list.ok("many digits", &[at("1.0000000000000000000000000000001")]);
    for text in [
        "",
        "now",
        "nan",
        "inf",
        "1e9",
        "0x10",
        "1.5.5",
        "1,5",
        "--1",
        "+1",
        " 1",
        "9223372036854775808",
    ] {
        list.no(format!("{text:?}"), &[at(text)]);
    }
    for (what, bytes) in [
        ("base 256, negative", [0xff; 12].as_slice()),
        ("base 256, 2^33", &[0x80, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0]),
    ] {
        list.ok_bytes(what, whole(&[edited(f("x", b"x"), move |block| field(block, TIME, bytes))]));
    }
    list.ok_bytes(
        "a mode with the file type in it",
        whole(&[edited(f("x", b"x"), |block| field(block, MODE, b"0100644"))]),
    );
    list.ok_bytes(
        "all bits of a mode",
        whole(&[edited(f("x", b"x"), |block| field(block, MODE, b"0007777"))]),
    );
    list.no_bytes(
        "a mode of nines",
        whole(&[edited(f("x", b"x"), |block| field(block, MODE, b"9999999"))]),
    );
    let mut late = d("d");
    late.mtime = 5;
    list.ok("of a directory that is written into later", &[late, f("d/x", b"x")]);
}

fn of_kinds(list: &mut List) {
    let of = |kind: u8| Entry { data: b"data".to_vec(), ..of_kind("x", kind) };
    for kind in *b"89ADEIJMNRVXZaby~\x01\x7f\x80\xff ?" {
        list.no(format!("{:?}", char::from(kind)), &[of(kind)]);
    }
    list.ok("contiguous file", &[of(b'7')]);
    list.ok("V7 file", &[of(0)]);
    for (what, kind) in [("character device", b'3'), ("block device", b'4')] {
        list.ok(what, &[of_kind("x", kind)]);
        list.ok(format!("{what} over a file"), &[f("x", b"kept"), of_kind("x", kind)]);
        list.ok(
            format!("{what} over a link out"),
            &[super::list::s("x", "../canary/secret"), of_kind("x", kind)],
        );
        list.no_bytes(
            format!("{what}, up and out"),
            whole(&[blocks(&[of_kind("../canary/n", kind)])]),
        );
        list.ok_bytes(
            format!("{what} with large numbers"),
            whole(&[edited(of_kind("x", kind), |block| {
                field(block, 329..337, b"7777777");
                field(block, 337..345, b"7777777");
            })]),
        );
    }
    list.ok("a fifo, then a file", &[of_kind("x", b'6'), f("x", b"file")]);
    list.ok("a fifo of mode 07777", &[of_kind("x", b'6').mode(0o7777)]);
}
