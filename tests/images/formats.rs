//! I03: what an archive says must be what other readers take it to say, or it is refused. The oracle
//! is Python's `tarfile`; archives are made of headers that readers are known to disagree on.

use std::collections::BTreeMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use serde_json::Value;
use system_tests::{programs, requires_root};

use super::support::{Entry, Layers, archive, block_entry, pax_record, seal, sha256};

const ORACLE: &str = r#"
import hashlib, json, sys, tarfile
found = {}
with tarfile.open(sys.argv[1]) as archive:
    for member in archive:
        if member.isreg():
            data = archive.extractfile(member).read()
            name = "/".join(p for p in member.name.split("/") if p not in ("", "."))
            found[name] = "sha256:" + hashlib.sha256(data).hexdigest()
print(json.dumps(found))
"#;

/// A deterministic stream of choices (xorshift).
struct Choices(u64);

impl Choices {
    fn below(&mut self, count: u64) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0 % count
    }
}

/// An entry with a header form chosen among those that have broken readers before.
fn odd_entry(choices: &mut Choices, number: u64) -> Vec<u8> {
    let data: Vec<u8> = (0..choices.below(1500)).map(|n| b'a' + (n % 23) as u8).collect();
    let mut entry = Entry::file(format!("d{}/f{number}", choices.below(3)), &data);
    let size = data.len();
    let mut before = Vec::new();
    match choices.below(12) {
        0 => {
            entry.size = Some(0);
            entry = entry.pax("size", size.to_string());
        }
        1 => {
            // What a reader that heeds the header alone takes for an entry of its own.
            let inner = archive(&[Entry::file(format!("smuggled{number}"), b"evil")]);
            entry.data = inner[..1024].to_vec();
            entry.size = Some(0);
            entry = entry.pax("size", "1024");
        }
        2 => {
            let long = format!("long/{}{number}", "n".repeat(150));
            block_entry(b"././@LongLink", b'L', format!("{long}\0").as_bytes(), &mut before);
        }
        3 => {
            block_entry(b"././@LongLink", b'L', format!("gnu{number}\0").as_bytes(), &mut before);
            entry = entry.pax("path", format!("pax{number}"));
        }
        4 => {
            let record = pax_record("path", format!("global{number}").as_bytes());
            block_entry(b"g", b'g', &record, &mut before);
        }
        5 => block_entry(b"g", b'g', &pax_record("comment", b"hello"), &mut before),
        6 => entry = entry.pax("path", format!("p/é{number}")),
        7 => entry.kind = 0,
        8 => entry.kind = b'7',
        9 => entry = entry.pax("path", "first").pax("path", format!("second{number}")),
        10 => entry = entry.pax("mtime", "12.25").pax("uid", "7").pax("SCHILY.xattr.user.k", "v"),
        _ => {}
    }
    entry.before = before;
    let mut bytes = archive(&[entry]);
    bytes.truncate(bytes.len() - 1024);
    match choices.below(10) {
        // The size in base 256.
        0 if bytes[156] == b'0' => {
            let mut block: [u8; 512] = bytes[..512].try_into().expect("a block");
            block[124..136].fill(0);
            block[124] = 0x80;
            block[128..136].copy_from_slice(&(size as u64).to_be_bytes());
            seal(&mut block);
            bytes[..512].copy_from_slice(&block);
        }
        // One bit elsewhere.
        1 => {
            let at =
                usize::try_from(choices.below(512.min(bytes.len() as u64))).expect("below 512");
            bytes[at] ^= 1 << choices.below(8);
            if choices.below(2) == 0 {
                let mut block: [u8; 512] = bytes[..512].try_into().expect("a block");
                seal(&mut block);
                bytes[..512].copy_from_slice(&block);
            }
        }
        _ => {}
    }
    bytes
}

#[test]
fn i03_archives_read_as_python_reads_them_or_are_refused() {
    requires_root!();
    if Command::new("python3").arg("--version").output().is_err() {
        programs::skip("needs python3 as the oracle");
        return;
    }
    let layers = Layers::new();
    let file = layers.scratch.0.join("archive.tar");
    let (mut agreed, mut refused) = (0, 0);
    for seed in 1..=160 {
        let mut choices = Choices(0x9e37_79b9_7f4a_7c15_u64.wrapping_mul(seed));
        let mut tar = Vec::new();
        for number in 0..=choices.below(4) {
            tar.extend(odd_entry(&mut choices, number));
        }
        tar.resize(tar.len() + 1024, 0);
        fs::write(&file, &tar).expect("the archive");
        let said = layers.unpack(&tar);
        if !said.is_unpacked() {
            assert_eq!(said.code(), "layer.invalid", "seed {seed}: {}", said.answer);
            refused += 1;
            continue;
        }
        let output = Command::new("python3").args(["-c", ORACLE]).arg(&file).output();
        let output = output.expect("python3");
        let expected: Value = serde_json::from_slice(&output.stdout).unwrap_or_else(|_| {
            panic!("seed {seed}: only Python refuses: {}", String::from_utf8_lossy(&output.stderr))
        });
        let found = files(&layers.path_of(&said.blob));
        assert_eq!(serde_json::to_value(found).expect("json"), expected, "seed {seed}");
        agreed += 1;
    }
    assert!(agreed >= 50 && refused >= 20, "{agreed} agreed, {refused} refused");
}

fn files(root: &Path) -> BTreeMap<String, String> {
    let mut found = BTreeMap::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let kind = fs::symlink_metadata(&path).expect("metadata").file_type();
        if kind.is_dir() {
            todo.extend(
                fs::read_dir(&path).expect("a directory").map(|e| e.expect("entry").path()),
            );
        } else if kind.is_file() {
            let name = path.strip_prefix(root).expect("below").display().to_string();
            found.insert(name, sha256(&fs::read(&path).expect("a file")));
        }
    }
    found
}
