//! I03: sizes and names that two readers could read in two ways.

use super::super::support::{Entry, block_entry, pax_record};
use super::list::{
    Case, GNU, List, MAGIC, SIZE, UID, blocks, d, edited, f, field, h, of_kind, s, whole,
};

pub(super) fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (family, fill) in [
        ("size", sizes as fn(&mut List)),
        ("size field", size_fields),
        ("long name", long_names),
        ("global header", globals),
        ("sparse", super::sparse::cases),
    ] {
        let mut list = List::new("I03", family);
        fill(&mut list);
        all.extend(list.cases);
    }
    all
}

/// An archive of one file within data: what a reader of the wrong size takes for an entry.
fn smuggled() -> Vec<u8> {
    blocks(&[f("smuggled", b"evil")])
}

fn sized(entry: Entry, header: u64, pax: &str) -> Entry {
    Entry { size: Some(header), ..entry.pax("size", pax) }
}

fn sizes(list: &mut List) {
    let inner = smuggled();
    list.ok("header 0, PAX 1024", &[sized(f("x", &inner), 0, "1024")]);
    list.ok(
        "header 1024, PAX 0",
        &[{
            let mut entry = sized(f("x", b""), 1024, "0");
            entry.data = inner.clone();
            entry
        }],
    );
    list.no("header 1024, PAX 512", &[sized(f("x", &[7; 1024]), 1024, "512")]);
    list.ok("header 1, PAX 1000", &[sized(f("x", &[7; 1000]), 1, "1000")]);
    list.ok("header and PAX agree", &[sized(f("x", &[7; 1000]), 1000, "1000")]);
    list.ok("PAX size with zeros before it", &[sized(f("x", &[7; 10]), 10, "0000000010")]);
    for (what, text) in [
        ("a sign", "+10"),
        ("a blank", " 10"),
        ("a blank after it", "10 "),
        ("an exponent", "1e1"),
        ("hexadecimal", "0xa"),
        ("an underscore", "1_0"),
        ("a fraction", "10.0"),
        ("a minus", "-10"),
        ("no digit", ""),
        ("2^63", "9223372036854775808"),
        ("2^64", "18446744073709551616"),
        ("2^64 + 10", "18446744073709551626"),
        ("other digits", "\u{661}\u{660}"),
    ] {
        list.no(format!("PAX size with {what}"), &[sized(f("x", &[7; 10]), 10, text)]);
    }
    list.no("PAX size beyond the end", &[sized(f("x", b"x"), 1, "5000")]);
    list.no("PAX size of 8 EiB less one", &[sized(f("x", b"x"), 1, "9223372036854775807")]);
    for (what, kind) in
        [("directory", b'5'), ("link", b'2'), ("hard link", b'1'), ("fifo", b'6'), ("device", b'3')]
    {
        let entry = || {
            let mut entry = of_kind("x", kind);
            entry.link = if kind == b'1' { b"y".to_vec() } else { b"t".to_vec() };
            if kind != b'1' && kind != b'2' {
                entry.link.clear();
            }
            entry
        };
        let mut claimed = entry();
        claimed.size = Some(1024);
        let claim = [f("y", b"y"), claimed.clone(), f("after", b"x")];
        claimed.data = inner.clone();
        let data = [f("y", b"y"), claimed, f("after", b"x")];
        let by_pax = [f("y", b"y"), entry().pax("size", "1024"), f("after", b"x")];
        // All readers in use agree that these have no data, whatever the header says.
        let agreed = matches!(kind, b'5' | b'1');
        list.put(agreed, format!("{what} with a size"), &claim);
        list.put(agreed, format!("{what} with a size, and data"), &data);
        list.put(kind == b'5', format!("{what} with a PAX size"), &by_pax);
    }
}

fn size_fields(list: &mut List) {
    let with = |data: &'static [u8], text: &'static [u8]| {
        whole(&[
            edited(f("x", data), move |block| field(block, SIZE, text)),
            blocks(&[f("z", b"z")]),
        ])
    };
    list.ok_bytes("base 256", with(b"0123456789", &[0x80, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]));
    list.ok_bytes("blanks before it", with(b"0123456789", b"         12 "));
    list.ok_bytes("twelve digits, no end", with(b"0123456789", b"000000000012"));
    list.ok_bytes("digits and a NUL", with(b"0123456789", b"12"));
    list.ok_bytes("nothing", with(b"", b""));
    for (what, text) in [
        ("base 256, 2^62", [0x80, 0, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0].as_slice()),
        ("base 256, 2^63", &[0x80, 0, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 0]),
        ("base 256, 2^70", &[0x80, 0, 0, 0x40, 0, 0, 0, 0, 0, 0, 0, 0]),
        ("base 256, negative", &[0xff; 12]),
        ("base 256, another first byte", &[0x81, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]),
        ("base 256, 0xc0", &[0xc0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 10]),
        ("eights", b"00000000018"),
        ("a plus", b"+0000000012"),
        ("a minus", b"-0000000012"),
        ("hexadecimal", b"0x0000000a"),
        ("digits after a NUL", b"12\x0034"),
        ("digits after a blank", b"12 34"),
        ("letters", b"abcdefghijk"),
        ("all sevens", b"77777777777"),
    ] {
        list.no_bytes(what, with(b"0123456789", text));
    }
    list.no_bytes(
        "an owner of 2^32 in base 256",
        whole(&[edited(f("x", b"x"), |block| {
            field(block, UID, &[0x80, 0, 0, 1, 0, 0, 0, 0]);
        })]),
    );
    list.no("an owner of 65,536", &[f("x", b"x").pax("uid", "65536")]);
    list.no("a group of 65,536", &[f("x", b"x").pax("gid", "65536")]);
    list.no("an owner of -1", &[f("x", b"x").pax("uid", "-1")]);
    list.ok("the last owner", &[f("x", b"x").pax("uid", "65535").pax("gid", "65535")]);
    list.ok(
        "a header's owner, overridden",
        &[{
            let mut entry = f("x", b"x").pax("uid", "7").pax("gid", "8");
            entry.uid = 9;
            entry
        }],
    );
}

/// A GNU long name (`L`) or link target (`K`).
fn long(kind: u8, text: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    block_entry(b"././@LongLink", kind, text, &mut out);
    out
}

fn pax(key: &str, value: &[u8]) -> Vec<u8> {
    let mut out = Vec::new();
    block_entry(b"pax", b'x', &pax_record(key, value), &mut out);
    out
}

fn gnu(entry: Entry) -> Vec<u8> {
    edited(entry, |block| field(block, MAGIC, GNU))
}

fn long_names(list: &mut List) {
    let x = || gnu(f("x", b"x"));
    let name = b"a-long-name\0".as_slice();
    let other = b"another-name\0".as_slice();
    list.ok_bytes("alone", whole(&[long(b'L', name), x()]));
    list.ok_bytes("without a NUL", whole(&[long(b'L', b"a-long-name"), x()]));
    list.ok_bytes("of a link's target", whole(&[long(b'K', name), gnu(s("x", "y"))]));
    list.ok_bytes("of both", whole(&[long(b'L', name), long(b'K', other), gnu(s("x", "y"))]));
    list.ok_bytes("of a file's link target", whole(&[long(b'K', name), x()]));
    list.ok_bytes(
        "and PAX, the same",
        whole(&[long(b'L', name), pax("path", b"a-long-name"), x()]),
    );
    list.no_bytes("and PAX, another", whole(&[long(b'L', name), pax("path", b"pax-name"), x()]));
    list.no_bytes("after PAX, another", whole(&[pax("path", b"pax-name"), long(b'L', name), x()]));
    let link = || gnu(s("x", "y"));
    list.no_bytes("and PAX link target", whole(&[long(b'K', name), pax("linkpath", b"t"), link()]));
    list.no_bytes("twice", whole(&[long(b'L', name), long(b'L', other), x()]));
    list.no_bytes("of a target, twice", whole(&[long(b'K', name), long(b'K', other), link()]));
    list.no_bytes("empty", whole(&[long(b'L', b""), x()]));
    list.no_bytes("only a NUL", whole(&[long(b'L', b"\0"), x()]));
    list.no_bytes("up and out", whole(&[long(b'L', b"../canary/secret\0"), x()]));
    list.no_bytes("bytes after its NUL", whole(&[long(b'L', b"short\0/../../canary\0"), x()]));
    list.no_bytes("at the end", whole(&[x(), long(b'L', name)]));
    list.no_bytes("cut off", long(b'L', name)[..512].to_vec());
    list.no_bytes("of 2 MiB", whole(&[long(b'L', &[b'n'; 2 << 20]), x()]));
    list.no_bytes(
        "of 1 GiB, claimed",
        whole(&[edited(of_kind("l", b'L'), |block| {
            field(block, SIZE, b"10000000000");
        })]),
    );
    list.no_bytes("PAX header twice", whole(&[pax("path", b"one"), pax("path", b"two"), x()]));
    list.no_bytes("PAX header at the end", whole(&[x(), pax("path", b"one")]));
    list.ok("PAX path twice in one header", &[f("x", b"x").pax("path", "one").pax("path", "two")]);
    list.ok("PAX size twice in one header", &[f("x", b"12345").pax("size", "2").pax("size", "5")]);
    list.no("empty PAX path", &[f("x", b"x").pax("path", "")]);
    list.no("empty PAX link target", &[s("x", "y").pax("linkpath", "")]);
    list.ok("PAX link target of a file", &[f("x", b"x").pax("linkpath", "y")]);
    list.no(
        "PAX link target up and out",
        &[f("y", b""), h("x", "y").pax("linkpath", "../canary/secret")],
    );
    list.ok("one file twice", &[f("x", b"first"), f("x", b"second, longer")]);
    list.ok(
        "one file under two spellings",
        &[f("x", b"first"), f("./x", b"second"), f("/x", b"3")],
    );
}

fn globals(list: &mut List) {
    let global = |records: &[u8]| {
        let mut out = Vec::new();
        block_entry(b"g", b'g', records, &mut out);
        out
    };
    let x = || blocks(&[f("x", b"x"), d("y")]);
    list.ok_bytes("comment", whole(&[global(&pax_record("comment", b"0123abcd")), x()]));
    list.ok_bytes("time", whole(&[global(&pax_record("mtime", b"12345")), x()]));
    let own = blocks(&[f("own", b"x").pax("mtime", "77")]);
    list.ok_bytes(
        "time, and one's own",
        whole(&[global(&pax_record("mtime", b"12345")), own, x()]),
    );
    list.ok_bytes("empty", whole(&[global(b""), x()]));
    for (key, value) in [
        ("path", "evil"),
        ("linkpath", "evil"),
        ("size", "0"),
        ("uid", "0"),
        ("gid", "7"),
        ("uname", "root"),
        ("hdrcharset", "BINARY"),
        ("SCHILY.xattr.user.x", "1"),
        ("GNU.sparse.realsize", "1099511627776"),
        ("VENDOR.key", "1"),
    ] {
        let record = pax_record(key, value.as_bytes());
        list.no_bytes(format!("sets {key}"), whole(&[global(&record), x()]));
        let late = format!("sets {key} between two files");
        list.no_bytes(late, whole(&[x(), global(&record), blocks(&[f("z", b"z")])]));
    }
    list.no_bytes("malformed", whole(&[global(b"99 comment=x\n"), x()]));
    list.no_bytes("of 2 MiB", whole(&[global(&pax_record("comment", &[b'c'; 2 << 20])), x()]));
}
