//! I03 and I11: sums that are wrong, archives that are cut, ends that are none.

use super::list::{Case, List, blocks, d, edited, f, field, s, whole};

pub(super) fn cases() -> Vec<Case> {
    let mut list = List::new("I03", "sum");
    sums(&mut list);
    let mut cuts = List::new("I11", "cut");
    cut(&mut cuts);
    let mut ends = List::new("I03", "end");
    of_archives(&mut ends);
    [list.cases, cuts.cases, ends.cases].into_iter().flatten().collect()
}

fn sums(list: &mut List) {
    let with = |text: &[u8]| {
        let mut bytes = blocks(&[f("x", b"x"), f("y", b"y")]);
        bytes[1024 + 148..1024 + 156].copy_from_slice(text);
        whole(&[bytes])
    };
    list.no_bytes("blank", with(b"        "));
    list.no_bytes("zero", with(b"000000\0 "));
    list.no_bytes("of letters", with(b"abcdef\0 "));
    list.no_bytes("of one more", {
        let mut bytes = blocks(&[f("x", b"x"), f("y", b"y")]);
        bytes[1024] += 1;
        whole(&[bytes])
    });
    list.no_bytes("of the first entry", {
        let mut bytes = whole(&[blocks(&[f("x", b"x")])]);
        bytes[0] = b'z';
        bytes
    });
    list.ok_bytes("of signed bytes", {
        let mut bytes = blocks(&[f("\u{e9}", b"x")]);
        bytes[148..156].fill(b' ');
        let sum: i32 = bytes[..512].iter().map(|&byte| i32::from(byte.cast_signed())).sum();
        bytes[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
        whole(&[bytes])
    });
}

/// An archive of five entries, cut at each block: between entries it is whole, elsewhere not.
fn cut(list: &mut List) {
    let entries = [
        d("d"),
        f("d/x", &[7; 700]),
        s("l", "d").pax("mtime", "5"),
        f("y", &[8; 1024]),
        f("long", b"z").pax("path", "n".repeat(200)),
    ];
    let bytes = blocks(&entries);
    let mut ends = vec![0];
    for count in 1..=entries.len() {
        ends.push(blocks(&entries[..count]).len());
    }
    for at in (0..=bytes.len()).step_by(512) {
        let name = format!("after {at} bytes");
        match at > 0 && ends.contains(&at) {
            true => list.ok_bytes(name, bytes[..at].to_vec()),
            false => list.no_bytes(name, bytes[..at].to_vec()),
        }
    }
    for at in [1, 100, 511, 513, 1023, 1025, bytes.len() - 1] {
        list.no_bytes(format!("after {at} bytes"), bytes[..at].to_vec());
    }
}

fn of_archives(list: &mut List) {
    let x = blocks(&[f("x", b"x")]);
    let with = |tail: &[u8]| [x.as_slice(), tail].concat();
    list.ok_bytes("no marker", x.clone());
    list.ok_bytes("half a marker", with(&[0; 512]));
    list.ok_bytes("a record of zeros", with(&[0; 10_240]));
    list.no_bytes("part of a block", with(&[0; 100]));
    list.no_bytes(
        "an entry after half a marker",
        with(&[vec![0; 512], x.clone(), vec![0; 1024]].concat()),
    );
    list.no_bytes(
        "an entry after the marker",
        with(&[vec![0; 1024], x.clone(), vec![0; 1024]].concat()),
    );
    list.no_bytes("one byte after the marker", with(&[vec![0; 1024], vec![1]].concat()));
    list.no_bytes("17 MiB of zeros after it", with(&vec![0; 17 << 20]));
    list.no_bytes("nothing at all", Vec::new());
    list.ok_bytes("only a marker", vec![0; 1024]);
    list.no_bytes("text", b"hello, this is no archive".repeat(40));
    list.no_bytes("one letter", vec![b'A'; 4096]);
    list.no_bytes("a gzip header", [b"\x1f\x8b\x08\0".as_slice(), &[0; 600]].concat());
    list.no_bytes("another archive in the place of data", {
        let mut bytes = x.clone();
        bytes.truncate(512);
        bytes.extend(blocks(&[f("y", b"y")]));
        bytes.resize(bytes.len() + 1000, 0);
        bytes
    });
    list.ok_bytes(
        "a size that ends in the marker",
        whole(&[edited(f("x", b"x"), |block| {
            field(block, 124..136, b"00000001777");
        })])[..1536]
            .to_vec(),
    );
}
