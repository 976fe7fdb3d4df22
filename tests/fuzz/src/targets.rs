//! One function for each parser of foreign bytes. It must not panic, and says what must hold of
//! whatever the parser takes: that a second reader takes it for the same, that it comes back from what
//! it was written to, that no cap was passed.

use std::fs::File;
use std::io::{Read, Write};

use berth_runtime::console::{ConsoleEvent, ConsoleOrder};
use berth_runtime::digest::Digest;
use berth_runtime::wire::{Answer, Compression, Envelope, LAYERS_MAX};
use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde_json::Value;

use crate::layer::{Listed, list};
use crate::logs::{LogEntry, LogReader, LogSelection};
use crate::registry::challenge::{Challenge, TokenAnswer, challenge as read_challenge};
use crate::registry::manifest::{self as documents, Document, ImageConfig};
use crate::registry::range::fits;
use crate::registry::reference::ImageReference;
use crate::saved::Archive as Saved;

/// A target.
pub type Target = fn(&[u8]);

/// All of them by name.
pub const ALL: [(&str, Target); 11] = [
    ("archive", archive),
    ("manifest", manifest),
    ("config", config),
    ("reference", reference),
    ("digest", digest),
    ("challenge", challenge),
    ("range", range),
    ("frame", frame),
    ("console", console),
    ("saved", saved),
    ("log", log),
];

/// Bytes that an archive may inflate to here.
const INFLATED_BYTES_MAX: u64 = 1 << 20;

/// A layer: the first byte chooses the compression. What is taken is read the same in pieces of any
/// size, by another reader, and from what it is written to.
pub fn archive(bytes: &[u8]) {
    let Some((&form, bytes)) = bytes.split_first() else { return };
    let compression = match form % 3 {
        0 => Compression::None,
        1 => Compression::Gzip,
        _ => Compression::Zstd,
    };
    let read = |input: &mut dyn Read| list(input, compression, INFLATED_BYTES_MAX).ok();
    let whole = read(&mut &bytes[..]);
    assert_eq!(whole, read(&mut Trickle(bytes)), "the same in small pieces");
    let Some((listed, digest)) = whole else { return };
    let content: usize = listed.iter().map(|entry| entry.content.len()).sum();
    assert!(content as u64 <= INFLATED_BYTES_MAX, "more than the cap");
    assert!(listed.iter().all(|entry| entry.path.len() < 4096 && !entry.path.contains(&0)));
    if compression == Compression::None {
        assert_eq!(digest, Digest::of(bytes), "hashed whole");
        other_reader(bytes, &listed);
    }
    if listed.iter().all(|entry| !entry.path.is_empty()) {
        let again = list(written(&listed).as_slice(), Compression::None, 2 * INFLATED_BYTES_MAX);
        let (again, _) = again.expect("what was taken is taken again");
        let plain = |entry: &Listed| (entry.path.clone(), entry.kind, entry.content.clone());
        let [again, before] =
            [&again, &listed].map(|all| all.iter().map(plain).collect::<Vec<_>>());
        assert_eq!(again, before, "written and read again");
    }
}

/// One, two, three … bytes at a time.
struct Trickle<'a>(&'a [u8]);

impl Read for Trickle<'_> {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        let count = (self.0.len() % 7 + 1).min(self.0.len()).min(out.len());
        out[..count].copy_from_slice(&self.0[..count]);
        self.0 = &self.0[count..];
        Ok(count)
    }
}

/// The tar crate must find the same names and contents, sparse files aside, whose holes it fills.
fn other_reader(bytes: &[u8], listed: &[Listed]) {
    if listed.iter().any(|entry| entry.is_sparse || entry.kind == b'1') {
        return;
    }
    let mut theirs = tar::Archive::new(bytes);
    let mut count = 0;
    for entry in theirs.entries().expect("a reader") {
        // A refusal is no other reading: it knows no sums of signed bytes.
        let Ok(mut entry) = entry else { return };
        if entry.header().entry_type().is_pax_global_extensions() {
            continue;
        }
        let Some(ours) = listed.get(count) else { break };
        // It keeps all NULs behind a long name but one.
        assert_eq!(without_nuls(&entry.path_bytes()), ours.path, "entry {count}");
        if ours.kind == b'0' {
            let mut content = Vec::new();
            entry.read_to_end(&mut content).expect("its content");
            assert_eq!(content, ours.content, "content of {count}");
        }
        count += 1;
    }
    assert_eq!(count, listed.len(), "entries");
}

fn without_nuls(name: &[u8]) -> &[u8] {
    let end = name.iter().rposition(|&byte| byte != 0).map_or(0, |last| last + 1);
    &name[..end]
}

/// The entries as another archive, names in PAX records.
fn written(listed: &[Listed]) -> Vec<u8> {
    let mut out = Vec::new();
    let mut put = |kind: u8, data: &[u8]| {
        let mut header = tar::Header::new_ustar();
        header.set_entry_type(tar::EntryType::new(kind));
        header.set_size(data.len() as u64);
        header.set_mode(0o644);
        header.set_uid(0);
        header.set_gid(0);
        header.set_mtime(0);
        header.as_mut_bytes()[0] = b'x';
        header.set_cksum();
        out.extend_from_slice(header.as_bytes());
        out.extend_from_slice(data);
        out.resize(out.len().next_multiple_of(512), 0);
    };
    for entry in listed {
        let mut records = record(b"path", &entry.path);
        if !entry.link.is_empty() {
            records.extend(record(b"linkpath", &entry.link));
        }
        put(b'x', &records);
        put(entry.kind, &entry.content);
    }
    out.resize(out.len() + 1024, 0);
    out
}

fn record(key: &[u8], value: &[u8]) -> Vec<u8> {
    let rest = key.len() + value.len() + 3;
    let mut length = rest;
    while length != rest + length.to_string().len() {
        length = rest + length.to_string().len();
    }
    [length.to_string().as_bytes(), b" ", key, b"=", value, b"\n"].concat()
}

/// As a general reader has it, which also minds what the parsers pass over: how deep it is, how large
/// its numbers are.
fn general(bytes: &[u8]) -> Option<Value> {
    let text = std::str::from_utf8(bytes).expect("what was taken is UTF-8");
    serde_json::from_str(text).ok()
}

/// A manifest or index: never both, whoever calls it what, and its digests as a general reader has them.
pub fn manifest(bytes: &[u8]) {
    const INDEX: &str = "application/vnd.oci.image.index.v1+json";
    let as_it_is = documents::parse(bytes, None);
    let called = documents::ACCEPTED.map(|kind| documents::parse(bytes, Some(kind)).is_ok());
    assert!(called.iter().filter(|taken| **taken).count() <= 2, "taken for two things");
    let Ok(document) = as_it_is else { return };
    let Some(value) = general(bytes) else { return };
    let digests = |key: &str| -> Vec<String> {
        let of = |one: &Value| one["digest"].as_str().unwrap_or_default().to_owned();
        value[key].as_array().map(|all| all.iter().map(of).collect()).unwrap_or_default()
    };
    let said = value["mediaType"].as_str();
    match document {
        Document::Image(image) => {
            assert!((1..=LAYERS_MAX).contains(&image.layers.len()), "layers");
            let ours: Vec<_> =
                image.layers.iter().map(|layer| layer.blob.digest.to_string()).collect();
            assert_eq!(ours, digests("layers"));
            assert_eq!(image.config.digest.to_string(), value["config"]["digest"]);
            assert!(value["manifests"].is_null() && said != Some(INDEX), "both");
            assert!(documents::parse(bytes, Some(INDEX)).is_err(), "an index, too");
        }
        Document::Index(entries) => {
            let ours: Vec<_> = entries.iter().map(|entry| entry.digest.to_string()).collect();
            assert_eq!(ours, digests("manifests"));
            assert!(value["layers"].is_null() && value["config"].is_null(), "both");
            if let Ok(chosen) = documents::choose(&entries) {
                assert!(entries.iter().any(|entry| entry.digest == chosen.digest));
            }
        }
    }
}

/// An image's config: kept in the inventory as it was understood, so that it must come back from there.
pub fn config(bytes: &[u8]) {
    let guess =
        serde_json::from_slice::<ImageConfig>(bytes).map(|config| config.rootfs.diff_ids.len());
    let Ok(config) = documents::parse_config(bytes, guess.unwrap_or(1)) else { return };
    if let Some(value) = general(bytes) {
        let ids = value["rootfs"]["diff_ids"].as_array().map(Vec::len);
        assert_eq!(Some(config.rootfs.diff_ids.len()), ids, "diff_ids");
    }
    let kept = serde_json::to_string(&config).expect("it can be kept");
    let again: ImageConfig = serde_json::from_str(&kept).expect("and read again");
    assert_eq!(serde_json::to_string(&again).expect("it can be kept"), kept);
    assert!(documents::parse_config(kept.as_bytes(), again.rootfs.diff_ids.len()).is_ok());
}

/// A reference comes back from its text, and holds nothing that a path or an address could trip over.
pub fn reference(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let Ok(found) = text.parse::<ImageReference>() else { return };
    let shown = found.to_string();
    assert!(
        shown.is_ascii()
            && !shown.contains(char::is_whitespace)
            && !shown.contains(char::is_control)
    );
    assert!(!found.registry.contains(['/', '@', '?', '#']) && !found.registry.is_empty());
    assert!(
        found.repository.split('/').all(|part| !part.is_empty() && part != "." && part != "..")
    );
    assert!(found.tag.is_some() || found.digest.is_some());
    if shown.len() <= 512 {
        assert_eq!(shown.parse::<ImageReference>().expect("its own text"), found);
    }
}

/// A digest is a file's name.
pub fn digest(bytes: &[u8]) {
    let Ok(text) = std::str::from_utf8(bytes) else { return };
    let by_hand = text.len() == 71
        && text.starts_with("sha256:")
        && text[7..].chars().all(|c| matches!(c, '0'..='9' | 'a'..='f'));
    let found = text.parse::<Digest>().ok();
    assert_eq!(found.is_some(), by_hand);
    if let Some(found) = found {
        assert_eq!((found.as_str(), found.hex()), (text, &text[7..]));
    }
    let as_json = serde_json::from_value::<Digest>(Value::String(text.to_owned()));
    assert_eq!(as_json.is_ok(), by_hand);
}

/// Each line a challenge; the last is read as a token service's answer, too.
pub fn challenge(bytes: &[u8]) {
    let mut headers = HeaderMap::new();
    for line in bytes.split(|&byte| byte == b'\n').take(16) {
        if let Ok(value) = HeaderValue::from_bytes(line) {
            headers.append(WWW_AUTHENTICATE, value);
        }
        if let Ok(answer) = serde_json::from_slice::<TokenAnswer>(line)
            && let Some(token) = answer.token()
        {
            assert!(HeaderValue::from_str(&format!("Bearer {token}")).is_ok(), "a header's text");
        }
    }
    let Some(found) = read_challenge(&headers) else { return };
    let Some(header) = found.to_header() else { return };
    let again = read_challenge(&HeaderMap::from_iter([(WWW_AUTHENTICATE, header)]));
    match (found, again.expect("what goes on is a challenge")) {
        (Challenge::Basic, again) => assert_eq!(again, Challenge::Basic),
        (
            Challenge::Bearer { realm, service },
            Challenge::Bearer { realm: shown, service: told },
        ) => {
            assert_eq!((realm.host_str(), realm.path()), (shown.host_str(), shown.path()));
            assert_eq!(service, told);
        }
        (found, again) => panic!("{found:?} became {again:?}"),
    }
}

/// `Range` in the first line, `Content-Range` in the second.
pub fn range(bytes: &[u8]) {
    let mut lines = bytes.splitn(2, |&byte| byte == b'\n');
    let mut header = || HeaderValue::from_bytes(lines.next().unwrap_or_default()).ok();
    let (asked, sent) = (header(), header());
    let mut headers = HeaderMap::new();
    if let Some(sent) = &sent {
        headers.insert(CONTENT_RANGE, sent.clone());
    }
    if !fits(asked.as_ref(), &headers) {
        return;
    }
    let numbers = |value: Option<HeaderValue>| -> Vec<u64> {
        let text = value.expect("both are there").to_str().expect("text").to_owned();
        let parts = text.split(|c: char| !c.is_ascii_digit());
        parts.filter_map(|part| part.parse().ok()).collect()
    };
    let (asked, sent) = (numbers(asked), numbers(sent));
    assert_eq!(asked[0], sent[0], "begins where it was asked to");
    assert!(sent.len() < 3 || sent[1] + 1 == sent[2], "goes on to the end");
}

/// A message to the supervisor, or from it.
pub fn frame(bytes: &[u8]) {
    if let Ok(envelope) = Envelope::read(bytes) {
        let text = serde_json::to_vec(&envelope).expect("it can be said");
        let again = Envelope::read(&text).expect("and heard again");
        assert_eq!(serde_json::to_vec(&again).expect("it can be said"), text);
    }
    if let Ok(answer) = serde_json::from_slice::<Answer>(bytes)
        && let Ok(text) = serde_json::to_vec(&answer)
        && let Ok(again) = serde_json::from_slice::<Answer>(&text)
    {
        assert_eq!(serde_json::to_vec(&again).expect("it can be said"), text);
    }
}

/// A message to the monitor of a program, or from it: what it means is written the same way.
pub fn console(bytes: &[u8]) {
    let mut written = Vec::new();
    if let Some(order) = ConsoleOrder::read(bytes) {
        order.write(&mut written);
        assert_eq!(written, bytes, "{order:?}");
    }
    if let Some(event) = ConsoleEvent::read(bytes) {
        event.write(&mut written);
        assert_eq!(written, bytes, "{event:?}");
    }
}

fn file_of(bytes: &[u8]) -> File {
    let name = c"berth-fuzz";
    let fd = nix::sys::memfd::memfd_create(name, nix::sys::memfd::MFdFlags::MFD_CLOEXEC);
    let mut file = File::from(fd.expect("a file in memory"));
    file.write_all(bytes).expect("memory");
    file
}

/// An uploaded archive of images: each layer found lies in the upload, and is what its digest says.
pub fn saved(bytes: &[u8]) {
    use std::io::Seek;
    let mut file = file_of(bytes);
    file.rewind().expect("a file in memory");
    let Ok(mut archive) = Saved::open(file) else { return };
    let Ok(images) = archive.images() else { return };
    assert!(!images.is_empty() && images.len() <= 16);
    for image in images {
        assert_eq!(image.layers.len(), image.config.rootfs.diff_ids.len());
        assert!((1..=LAYERS_MAX).contains(&image.layers.len()));
        for layer in &image.layers {
            let start = usize::try_from(layer.part.offset).expect("within the file");
            let end = start + usize::try_from(layer.part.bytes).expect("within the file");
            assert_eq!(Digest::of(&bytes[start..end]), layer.digest);
        }
        assert!(documents::parse(&image.manifest, None).is_ok(), "it can be exported");
    }
}

/// A segment of a log, the first byte how much of its end is wanted.
pub fn log(bytes: &[u8]) {
    let Some((&tail, bytes)) = bytes.split_first() else { return };
    let read = |selection: LogSelection| -> Vec<LogEntry> {
        let segments = vec![(1, file_of(bytes).into())];
        let mut reader = LogReader::open(segments, selection).expect("a file in memory");
        let mut all = Vec::new();
        loop {
            let more = reader.read().expect("a file in memory");
            if more.is_empty() {
                return all;
            }
            all.extend(more);
        }
    };
    let all = read(LogSelection::default());
    let length: usize = all.iter().map(|entry| entry.content.len()).sum();
    assert!(length <= bytes.len() && all.iter().all(|entry| !entry.content.contains(&b'\n')));
    assert!(all.is_sorted_by(|one, next| one.next < next.next), "places ascend");
    let end = read(LogSelection { tail: Some(usize::from(tail)), ..LogSelection::default() });
    assert!(all.ends_with(&end), "the end of the same");
    if let Some(entry) = all.get(usize::from(tail)) {
        let rest = read(LogSelection { from: Some(entry.next), ..LogSelection::default() });
        assert_eq!(rest, all[usize::from(tail) + 1..], "from a place on");
    }
}
