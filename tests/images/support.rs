//! Archives made byte by byte, and the layer worker driven directly.

use std::fs;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::programs;

/// The first id of the range that layers are unpacked in.
pub(crate) const LAYER_ID: u32 = 1_900_000_000;

static DIRECTORIES: AtomicU32 = AtomicU32::new(0);

/// A directory of this test's own, removed at the end.
pub(crate) struct Scratch(pub PathBuf);

impl Scratch {
    pub(crate) fn new() -> Self {
        let number = DIRECTORIES.fetch_add(1, Ordering::Relaxed);
        let name = format!("berth-images-{}-{number}", std::process::id());
        let path = std::env::temp_dir().join(name);
        fs::create_dir_all(&path).expect("a scratch directory");
        Self(path)
    }
}

impl Drop for Scratch {
    fn drop(&mut self) {
        if let Err(error) = fs::remove_dir_all(&self.0) {
            eprintln!("{} stays: {error}", self.0.display());
        }
    }
}

pub(crate) fn sha256(bytes: &[u8]) -> String {
    let hex: String = Sha256::digest(bytes).iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{hex}")
}

/// One tar entry as it is written.
#[derive(Clone)]
pub(crate) struct Entry {
    pub name: Vec<u8>,
    pub kind: u8,
    pub link: Vec<u8>,
    pub mode: u32,
    pub uid: u64,
    pub mtime: u64,
    pub data: Vec<u8>,
    /// The header's size, when it is not the data's.
    pub size: Option<u64>,
    /// PAX records before it.
    pub pax: Vec<(String, Vec<u8>)>,
    /// Blocks put before everything, as they are.
    pub before: Vec<u8>,
}

impl Entry {
    pub(crate) fn new(name: impl AsRef<[u8]>, kind: u8) -> Self {
        Self {
            name: name.as_ref().to_vec(),
            kind,
            link: Vec::new(),
            mode: if kind == b'5' { 0o755 } else { 0o644 },
            uid: 0,
            mtime: 1_000_000_000,
            data: Vec::new(),
            size: None,
            pax: Vec::new(),
            before: Vec::new(),
        }
    }

    pub(crate) fn file(name: impl AsRef<[u8]>, data: &[u8]) -> Self {
        Self { data: data.to_vec(), ..Self::new(name, b'0') }
    }

    pub(crate) fn dir(name: impl AsRef<[u8]>) -> Self {
        Self::new(name, b'5')
    }

    pub(crate) fn symlink(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(name, b'2') }
    }

    pub(crate) fn link(name: impl AsRef<[u8]>, target: impl AsRef<[u8]>) -> Self {
        Self { link: target.as_ref().to_vec(), ..Self::new(name, b'1') }
    }

    pub(crate) fn mode(mut self, mode: u32) -> Self {
        self.mode = mode;
        self
    }

    pub(crate) fn pax(mut self, key: &str, value: impl AsRef<[u8]>) -> Self {
        self.pax.push((key.to_owned(), value.as_ref().to_vec()));
        self
    }

    fn write(&self, out: &mut Vec<u8>) {
        out.extend_from_slice(&self.before);
        if !self.pax.is_empty() {
            let records: Vec<u8> =
                self.pax.iter().flat_map(|(key, value)| pax_record(key, value)).collect();
            block_entry(b"pax", b'x', &records, out);
        }
        let size = self.size.unwrap_or(self.data.len() as u64);
        header(self, size, out);
        padded(&self.data, out);
    }
}

/// A header and its data for an extension (`x`, `g`, `L`, `K`).
pub(crate) fn block_entry(name: &[u8], kind: u8, data: &[u8], out: &mut Vec<u8>) {
    header(&Entry { kind, ..Entry::file(name, b"") }, data.len() as u64, out);
    padded(data, out);
}

pub(crate) fn pax_record(key: &str, value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [format!("{length} {key}=").as_bytes(), value, b"\n"].concat()
}

fn header(entry: &Entry, size: u64, out: &mut Vec<u8>) {
    let mut block = [0u8; 512];
    let put = |block: &mut [u8; 512], at: usize, bytes: &[u8]| {
        block[at..at + bytes.len()].copy_from_slice(bytes);
    };
    put(&mut block, 0, &entry.name[..entry.name.len().min(100)]);
    put(&mut block, 100, format!("{:07o}", entry.mode).as_bytes());
    put(&mut block, 108, format!("{:07o}", entry.uid).as_bytes());
    put(&mut block, 116, format!("{:07o}", entry.uid).as_bytes());
    put(&mut block, 124, format!("{size:011o}").as_bytes());
    put(&mut block, 136, format!("{:011o}", entry.mtime).as_bytes());
    block[156] = entry.kind;
    put(&mut block, 157, &entry.link[..entry.link.len().min(100)]);
    put(&mut block, 257, b"ustar\x0000");
    seal(&mut block);
    out.extend_from_slice(&block);
}

/// Writes the checksum into a header.
pub(crate) fn seal(block: &mut [u8; 512]) {
    block[148..156].fill(b' ');
    let sum: u32 = block.iter().map(|&byte| u32::from(byte)).sum();
    block[148..155].copy_from_slice(format!("{sum:06o}\0").as_bytes());
}

fn padded(data: &[u8], out: &mut Vec<u8>) {
    out.extend_from_slice(data);
    out.resize(out.len().next_multiple_of(512), 0);
}

/// A whole archive.
pub(crate) fn archive(entries: &[Entry]) -> Vec<u8> {
    let mut out = Vec::new();
    for entry in entries {
        entry.write(&mut out);
    }
    out.resize(out.len() + 1024, 0);
    out
}

/// A layer store of a test's own.
pub(crate) struct Layers {
    pub scratch: Scratch,
    pub bytes_max: u64,
    pub entries_max: u64,
}

/// What a worker said.
pub(crate) struct Said {
    pub answer: Value,
    pub blob: String,
}

impl Said {
    pub(crate) fn is_unpacked(&self) -> bool {
        self.answer["answer"] == "layer_unpacked"
    }

    pub(crate) fn code(&self) -> &str {
        self.answer["code"].as_str().unwrap_or("")
    }
}

impl Layers {
    pub(crate) fn new() -> Self {
        let scratch = Scratch::new();
        fs::create_dir(scratch.0.join("data")).expect("a data directory");
        Self { scratch, bytes_max: 1 << 30, entries_max: 100_000 }
    }

    pub(crate) fn data(&self) -> PathBuf {
        self.scratch.0.join("data")
    }

    pub(crate) fn path_of(&self, blob: &str) -> PathBuf {
        self.data().join("layers/sha256").join(blob.trim_start_matches("sha256:"))
    }

    /// Unpacks a plain archive under its right digests.
    pub(crate) fn unpack(&self, tar: &[u8]) -> Said {
        self.unpack_as(tar, "none", &sha256(tar), &sha256(tar))
    }

    pub(crate) fn unpack_as(
        &self,
        bytes: &[u8],
        compression: &str,
        blob: &str,
        diff_id: &str,
    ) -> Said {
        let task = json!({"unpack": {"blob": blob, "diff_id": diff_id, "compression": compression,
                "bytes_max": u64::MAX}});
        let mut child = self.worker(&task).stdin(Stdio::piped()).spawn().expect("a worker");
        let mut input = child.stdin.take().expect("its input");
        // It may have refused before the end.
        drop(input.write_all(bytes));
        drop(input);
        let output = child.wait_with_output().expect("its answer");
        let answer = serde_json::from_slice(&output.stdout).unwrap_or(Value::Null);
        Said { answer, blob: blob.to_owned() }
    }

    pub(crate) fn run(&self, task: &Value) -> Value {
        let output = self.worker(task).stdin(Stdio::null()).output().expect("a worker");
        serde_json::from_slice(&output.stdout).unwrap_or(Value::Null)
    }

    pub(crate) fn worker(&self, task: &Value) -> Command {
        let place = json!({"data_dir": self.data(), "first_id": LAYER_ID,
            "bytes_max": self.bytes_max, "entries_max": self.entries_max});
        let mut command = Command::new(programs::berth_runtime());
        command.arg("layer").arg(json!({"place": place, "task": task}).to_string());
        command.stdout(Stdio::piped());
        command
    }

    /// Nothing is staged, and nothing but `named` has a name.
    pub(crate) fn assert_holds_only(&self, named: &[&str]) {
        let list = |path: &str| -> Vec<String> {
            let entries = fs::read_dir(self.data().join(path)).expect("the store");
            let name = |entry: std::io::Result<fs::DirEntry>| {
                entry.expect("an entry").file_name().to_string_lossy().into_owned()
            };
            entries.map(name).collect()
        };
        assert_eq!(list("layers/tmp"), Vec::<String>::new(), "left in staging");
        let mut expected: Vec<_> =
            named.iter().map(|name| name.trim_start_matches("sha256:").to_owned()).collect();
        let mut found = list("layers/sha256");
        expected.sort();
        found.sort();
        assert_eq!(found, expected, "named layers");
    }
}

/// Everything below a directory: path, type, mode, size, link target or content, nothing followed.
pub(crate) fn snapshot(root: &Path) -> Vec<String> {
    use std::os::unix::fs::{FileTypeExt, MetadataExt};
    let mut lines = Vec::new();
    let mut todo = vec![root.to_owned()];
    while let Some(path) = todo.pop() {
        let meta = fs::symlink_metadata(&path).expect("metadata");
        let kind = meta.file_type();
        let shown = path.strip_prefix(root).expect("below the root").display().to_string();
        let what = if kind.is_symlink() {
            format!("link {}", fs::read_link(&path).expect("a link").display())
        } else if kind.is_dir() {
            todo.extend(
                fs::read_dir(&path).expect("a directory").map(|e| e.expect("entry").path()),
            );
            "dir".to_owned()
        } else if kind.is_file() {
            format!("file {}", sha256(&fs::read(&path).expect("a file")))
        } else if kind.is_char_device() {
            format!("char {}", meta.rdev())
        } else if kind.is_fifo() {
            "fifo".to_owned()
        } else {
            "other".to_owned()
        };
        let (mode, uid, mtime) = (meta.mode() & 0o7777, meta.uid(), meta.mtime());
        lines.push(format!("{shown} {what} {mode:o} {uid} {mtime} {}", meta.nlink()));
    }
    lines.sort();
    lines
}
