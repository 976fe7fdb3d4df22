//! I03: sparse files, in GNU's four forms.

use super::super::support::Entry;
use super::list::{GNU, List, MAGIC, d, edited, f, field, of_kind, whole};

/// GNU's old form: up to four runs in the header.
fn old(size: u64, runs: &[(u64, u64)], data: &[u8], magic: &'static [u8]) -> Vec<u8> {
    let mut entry = f("sparse", data);
    entry.kind = b'S';
    let runs = runs.to_vec();
    edited(entry, move |block| {
        field(block, MAGIC, magic);
        for (place, (offset, length)) in runs.iter().enumerate() {
            let at = 386 + 24 * place;
            field(block, at..at + 12, format!("{offset:011o}").as_bytes());
            field(block, at + 12..at + 24, format!("{length:011o}").as_bytes());
        }
        field(block, 483..495, format!("{size:011o}").as_bytes());
    })
}

fn form_1_0(map: &str, data: &[u8], size: &str) -> Entry {
    let mut bytes = map.as_bytes().to_vec();
    bytes.resize(bytes.len().next_multiple_of(512), 0);
    bytes.extend_from_slice(data);
    f("GNUSparseFile.0/sparse", &bytes)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "sparse")
        .pax("GNU.sparse.realsize", size)
}

fn form_0_1(map: &str, data: &[u8], size: &str) -> Entry {
    f("GNUSparseFile.0/sparse", data)
        .pax("GNU.sparse.size", size)
        .pax("GNU.sparse.numblocks", "1")
        .pax("GNU.sparse.name", "sparse")
        .pax("GNU.sparse.map", map)
}

pub(super) fn cases(list: &mut List) {
    let data = [b'd'; 512];
    list.ok_bytes("old form", whole(&[old(4096, &[(1024, 512), (4096, 0)], &data, GNU)]));
    for (what, size, runs) in [
        ("runs overlap", 4096, [(1024, 512), (1024, 0)].as_slice()),
        ("runs go back", 4096, &[(2048, 256), (0, 256)]),
        ("a run beyond the end", 1024, &[(1024, 512)]),
        ("runs of more than the data", 8192, &[(0, 1024)]),
        ("runs of less than the data", 8192, &[(0, 256)]),
        ("no runs, but data", 8192, &[]),
        ("an offset near 2^33", 8_589_934_591, &[(8_589_934_591, 512)]),
    ] {
        list.no_bytes(format!("old form, {what}"), whole(&[old(size, runs, &data, GNU)]));
    }
    let posix = old(4096, &[(1024, 512), (4096, 0)], &data, b"ustar\x0000");
    list.no_bytes("old form under POSIX's magic", whole(&[posix]));
    list.no_bytes("old form, more to come, cut off", {
        let mut bytes = old(4096, &[(0, 512)], &data, GNU);
        let mut block: [u8; 512] = bytes[..512].try_into().expect("a block");
        block[482] = 1;
        super::super::support::seal(&mut block);
        bytes[..512].copy_from_slice(&block);
        bytes[..512].to_vec()
    });
    by_pax(list, &data);
    odd(list, &data);
}

fn by_pax(list: &mut List, data: &[u8]) {
    list.ok("form 0.1", &[form_0_1("1024,512", data, "4096")]);
    list.ok("form 1.0", &[form_1_0("1\n1024\n512\n", data, "4096")]);
    for (what, map) in [
        ("an odd number of figures", "1024,512,2048"),
        ("no figure", ""),
        ("a sign", "+1024,512"),
        ("a run beyond the end", "4000,512"),
        ("runs that overlap", "0,256,128,256"),
        ("a sum of 2^64", "0,9223372036854775807,1,9223372036854775807"),
        ("another sum", "1024,511"),
    ] {
        list.no(format!("form 0.1, {what}"), &[form_0_1(map, data, "4096")]);
    }
    for (what, map) in [
        ("no count", "\n1024\n512\n"),
        ("a count of 2^60", "1152921504606846976\n1024\n512\n"),
        ("a count too large", "3\n1024\n512\n"),
        ("letters", "1\nabc\n512\n"),
        ("a figure without an end", "11111111111111111111111111111111"),
        ("runs that go back", "2\n2048\n256\n0\n256\n"),
        ("a run beyond the end", "1\n4095\n512\n"),
    ] {
        list.no(format!("form 1.0, {what}"), &[form_1_0(map, data, "4096")]);
    }
}

fn odd(list: &mut List, data: &[u8]) {
    list.no(
        "1 TiB with data at its end",
        &[form_1_0("1\n1099511627264\n512\n", data, "1099511627776")],
    );
    list.no("1 TiB of nothing", &[form_1_0("0\n", b"", "1099511627776")]);
    list.no(
        "up and out by its name",
        &[form_1_0("1\n0\n512\n", data, "512").pax("GNU.sparse.name", "../canary/secret")],
    );
    list.no(
        "NUL in its name",
        &[form_1_0("1\n0\n512\n", data, "512").pax("GNU.sparse.name", "a\0b")],
    );
    list.no("an empty name", &[form_1_0("1\n0\n512\n", data, "512").pax("GNU.sparse.name", "")]);
    list.no(
        "version 2",
        &[f("x", data)
            .pax("GNU.sparse.major", "2")
            .pax("GNU.sparse.minor", "0")
            .pax("GNU.sparse.realsize", "512")],
    );
    list.no(
        "no size",
        &[f("x", data).pax("GNU.sparse.map", "0,512").pax("GNU.sparse.numblocks", "1")],
    );
    list.no("an unknown key", &[form_0_1("0,512", data, "512").pax("GNU.sparse.evil", "1")]);
    list.no("a directory", &[d("x").pax("GNU.sparse.map", "0,0").pax("GNU.sparse.size", "0")]);
    list.no(
        "a fifo",
        &[of_kind("x", b'6').pax("GNU.sparse.map", "0,0").pax("GNU.sparse.size", "0")],
    );
}
