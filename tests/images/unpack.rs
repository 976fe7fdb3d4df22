//! What becomes of ordinary and odd layers: metadata, whiteouts, caps, digests, removal.

use std::collections::HashSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::MetadataExt;
use std::process::Stdio;
use std::time::{Duration, Instant};

use flate2::Compression;
use flate2::write::GzEncoder;
use nix::fcntl::{Flock, FlockArg};
use serde_json::json;
use system_tests::{Check, requires_root};

use super::support::{Entry, LAYER_ID, Layers, archive, pax_record, seal, sha256};

fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::new(), Compression::fast());
    encoder.write_all(bytes).expect("memory");
    encoder.finish().expect("memory")
}

#[test]
fn metadata_is_kept_and_owned_by_the_layer_range() {
    requires_root!();
    let layers = Layers::new();
    let long = "long/".to_owned() + &"n".repeat(200);
    let mut owned = Entry::file("home/user", b"u");
    owned.uid = 1000;
    let tar = archive(&[
        Entry::dir("bin").mode(0o1777),
        Entry::file("bin/su", b"#!").mode(0o4755),
        Entry::link("bin/other", "bin/su"),
        Entry::symlink("sh", "/bin/su"),
        owned,
        Entry::file("short", b"long").pax("path", &long),
        Entry::file("times", b"").pax("mtime", "1234567890.5"),
        Entry::new("pipe", b'6').mode(0o622),
        Entry::new("null", b'3'),
    ]);
    let said = layers.unpack(&tar);
    assert!(said.is_unpacked(), "{}", said.answer);
    assert_eq!(said.answer["devices_skipped"], 1);
    let root = layers.path_of(&said.blob);
    let meta = |path: &str| fs::symlink_metadata(root.join(path)).expect("an entry");
    assert_eq!(meta("bin").mode() & 0o7777, 0o1777);
    assert_eq!(meta("bin").mtime(), 1_000_000_000);
    assert_eq!((meta("bin/su").mode() & 0o7777, meta("bin/su").uid()), (0o4755, LAYER_ID));
    assert_eq!(meta("bin/su").ino(), meta("bin/other").ino());
    assert_eq!(meta("home/user").uid(), LAYER_ID + 1000);
    assert_eq!(meta("times").mtime_nsec(), 500_000_000);
    assert_eq!(meta("pipe").mode() & 0o7777, 0o622);
    assert_eq!(fs::read(root.join(long)).expect("a long name"), b"long");
    assert!(fs::symlink_metadata(root.join("null")).is_err());
}

#[test]
fn i04_whiteouts_hide_what_is_below_and_nothing_else() {
    requires_root!();
    let layers = Layers::new();
    let lower = archive(&[
        Entry::file("gone", b"1"),
        Entry::file("kept", b"1"),
        Entry::file("emptied/old", b"1"),
        Entry::file("replaced/old", b"1"),
        Entry::file("file-to-dir", b"1"),
    ]);
    let upper = archive(&[
        Entry::file(".wh.gone", b""),
        Entry::file("emptied/.wh..wh..opq", b""),
        Entry::file("emptied/new", b"2"),
        Entry::file(".wh.replaced", b""),
        Entry::file("replaced/new", b"2"),
        Entry::file(".wh.file-to-dir", b""),
        Entry::dir("file-to-dir"),
        Entry::file("spoof", b"2").pax("SCHILY.xattr.user.overlay.whiteout", "y"),
        Entry::dir("kept-dir").pax("SCHILY.xattr.user.overlay.opaque", "y"),
        Entry::dir("t").pax("SCHILY.xattr.trusted.overlay.redirect", "/etc"),
        Entry::new("kept", b'3'),
    ]);
    let below = layers.unpack(&lower);
    let above = layers.unpack(&upper);
    assert!(below.is_unpacked() && above.is_unpacked(), "{} {}", below.answer, above.answer);
    let merged = merged_view(&layers, &[&below.blob, &above.blob]);
    let expected = [
        "emptied",
        "emptied/new",
        "file-to-dir",
        "kept",
        "kept-dir",
        "replaced",
        "replaced/new",
        "spoof",
        "t",
    ];
    assert_eq!(merged, expected);
    for odd in [".wh.", ".wh..", ".wh...", ".wh./x", "d/.wh.x/y"] {
        let said = layers.unpack(&archive(&[Entry::file(odd, b"")]));
        assert_eq!(said.answer["answer"], "failed", "{odd}");
    }
}

/// The names in an overlay of these layers, lowest first, mounted as containers mount it.
fn merged_view(layers: &Layers, blobs: &[&str]) -> Vec<String> {
    let lower: Vec<String> =
        blobs.iter().rev().map(|blob| layers.path_of(blob).display().to_string()).collect();
    let target = layers.scratch.0.join("merged");
    fs::create_dir_all(&target).expect("a mount point");
    let script = format!(
        "mount -t overlay overlay -o ro,userxattr,lowerdir={} {} && cd {} && find . -mindepth 1 | sort",
        lower.join(":"),
        target.display(),
        target.display()
    );
    let output = std::process::Command::new("unshare").args(["-m", "sh", "-c", &script]).output();
    let output = output.expect("unshare");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let text = String::from_utf8(output.stdout).expect("names");
    text.lines().map(|line| line.trim_start_matches("./").to_owned()).collect()
}

#[test]
fn sparse_files_stay_sparse() {
    requires_root!();
    let layers = Layers::new();
    let map = b"2\n0\n512\n1073741312\n512\n";
    let mut data = map.to_vec();
    data.resize(512, 0);
    data.extend([b'a'; 512]);
    data.extend([b'z'; 512]);
    let tar = archive(&[Entry::file("GNUSparseFile.0/big", &data)
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.name", "big")
        .pax("GNU.sparse.realsize", "1073741824")]);
    let said = Layers { bytes_max: 2 << 30, ..layers };
    let answer = said.unpack(&tar);
    assert!(answer.is_unpacked(), "{}", answer.answer);
    let meta = fs::metadata(said.path_of(&answer.blob).join("big")).expect("the file");
    assert_eq!(meta.len(), 1 << 30);
    assert!(meta.blocks() < 64, "{} blocks", meta.blocks());
    assert_eq!(answer.answer["bytes"], 1024);
}

#[test]
fn i05_bombs_stop_at_the_caps_and_leave_nothing() {
    requires_root!();
    let mut layers = Layers::new();
    layers.bytes_max = 8 << 20;
    layers.entries_max = 1_000;
    let check = |name: &str, said: super::support::Said| {
        assert_eq!(said.answer["answer"], "failed", "{name}");
        assert_eq!(said.code(), "layer.too-large", "{name}: {}", said.answer);
        layers.assert_holds_only(&[]);
    };
    let zeros = archive(&[Entry::file("zeros", &vec![0; 64 << 20])]);
    let packed = gzip(&zeros);
    check("gzip", layers.unpack_as(&packed, "gzip", &sha256(&packed), &sha256(&zeros)));
    check("plain", layers.unpack(&zeros));
    let many: Vec<Entry> = (0..1_001).map(|n| Entry::dir(format!("d{n}"))).collect();
    check("entries", layers.unpack(&archive(&many)));
    let tail = vec![0; 64 << 20];
    check("zeros after the end", layers.unpack(&tail));
    let huge = Entry::file("sparse", &[b"0\n".as_slice(), &[0; 510]].concat())
        .pax("GNU.sparse.major", "1")
        .pax("GNU.sparse.minor", "0")
        .pax("GNU.sparse.realsize", "1099511627776");
    check("sparse", layers.unpack(&archive(&[huge])));
    // The control: what is just below the caps is unpacked.
    let fine = layers.unpack(&archive(&[Entry::file("zeros", &vec![0; 8 << 20])]));
    assert!(fine.is_unpacked(), "{}", fine.answer);
}

#[test]
fn i07_only_the_bytes_that_the_digests_name_are_stored() {
    requires_root!();
    let layers = Layers::new();
    let tar = archive(&[Entry::file("a", b"x")]);
    let packed = gzip(&tar);
    let (blob, diff_id) = (sha256(&packed), sha256(&tar));
    let other = sha256(b"other");
    let garbage = [packed.as_slice(), b"trailing garbage"].concat();
    let cut = &packed[..packed.len() - 4];
    let after_end = [tar.as_slice(), &[7; 512]].concat();
    let refused = [
        ("another blob digest", layers.unpack_as(&packed, "gzip", &other, &diff_id)),
        ("another diff_id", layers.unpack_as(&packed, "gzip", &blob, &other)),
        ("garbage after gzip", layers.unpack_as(&garbage, "gzip", &sha256(&garbage), &diff_id)),
        ("cut gzip", layers.unpack_as(cut, "gzip", &sha256(cut), &diff_id)),
        ("garbage after the archive", layers.unpack(&after_end)),
        ("another compression", layers.unpack_as(&packed, "zstd", &blob, &diff_id)),
        ("no archive", layers.unpack(b"hello")),
        ("nothing", layers.unpack(b"")),
        ("traversal as a digest", layers.unpack_as(&tar, "none", "sha256:../../x", &diff_id)),
        ("upper case", layers.unpack_as(&tar, "none", &sha256(&tar).to_uppercase(), &diff_id)),
    ];
    for (name, said) in refused {
        assert!(!said.is_unpacked(), "{name}");
    }
    // The control, twice: the second time it is there already. Members of gzip add up.
    for _ in 0..2 {
        assert!(layers.unpack_as(&packed, "gzip", &blob, &diff_id).is_unpacked());
    }
    let members = [gzip(&tar[..700]), gzip(&tar[700..])].concat();
    let said = layers.unpack_as(&members, "gzip", &sha256(&members), &diff_id);
    assert!(said.is_unpacked(), "{}", said.answer);
    layers.assert_holds_only(&[&blob, &sha256(&members)]);
    // A stored layer is not given out under another diff_id.
    assert!(!layers.unpack_as(&packed, "gzip", &blob, &other).is_unpacked());
    for blob in [blob, sha256(&members)] {
        assert_eq!(layers.run(&json!({"remove": {"blob": blob}}))["answer"], "done");
        assert_eq!(layers.run(&json!({"remove": {"blob": blob}}))["answer"], "done");
    }
    layers.assert_holds_only(&[]);
}

#[test]
fn hanging_up_cancels_within_two_seconds_and_a_sweep_takes_what_a_kill_leaves() {
    requires_root!();
    let layers = Layers::new();
    let tar = archive(&[Entry::file("a", &vec![1; 1 << 20])]);
    let digest = sha256(&tar);
    let task = json!({"unpack": {"blob": digest, "diff_id": digest, "compression": "none",
        "bytes_max": u64::MAX}});
    for killed in [false, true] {
        let mut child = layers.worker(&task).stdin(Stdio::piped()).spawn().expect("a worker");
        let mut input = child.stdin.take().expect("its input");
        input.write_all(&tar[..700_000]).expect("the first part");
        let staged =
            || fs::read_dir(layers.data().join("layers/tmp")).is_ok_and(|d| d.count() == 1);
        let limit = Instant::now() + Duration::from_secs(20);
        while !staged() {
            assert!(Instant::now() < limit, "nothing is staged");
            std::thread::yield_now();
        }
        if killed {
            child.kill().expect("the worker lives");
            child.wait().expect("its end");
            assert!(staged(), "the control: a killed worker leaves its staging directory");
            // Its child ends with it and gives up the lock.
            let limit = Instant::now() + Duration::from_secs(20);
            while staged() {
                assert!(Instant::now() < limit, "the sweep takes it");
                assert_eq!(layers.run(&json!("sweep"))["answer"], "done");
            }
        } else {
            drop(child.stdout.take());
            let begun = Instant::now();
            child.wait().expect("its end");
            assert!(begun.elapsed() < Duration::from_secs(2), "{:?}", begun.elapsed());
        }
        layers.assert_holds_only(&[]);
    }
}

#[test]
fn a_sweep_between_making_and_locking_a_staging_directory_fails_no_unpack() {
    requires_root!();
    let layers = Layers::new();
    let staged = layers.data().join("layers/tmp");
    layers.run(&json!("sweep"));
    let tar = archive(&[Entry::file("a", b"1")]);
    // The control: what a sweep does, without a pause, takes three before their worker has locked them;
    // of each worker the first only.
    let taken = std::thread::scope(|scope| {
        let sweeper = scope.spawn(|| {
            let limit = Instant::now() + Duration::from_secs(60);
            let mut taken = HashSet::new();
            while taken.len() < 3 && Instant::now() < limit {
                for entry in fs::read_dir(&staged).expect("staging").flatten() {
                    let Ok(directory) = fs::File::open(entry.path()) else { continue };
                    let is_staged = !entry.file_name().to_string_lossy().contains("-gone-");
                    if is_staged
                        && !taken.contains(&entry.file_name())
                        && Flock::lock(directory, FlockArg::LockExclusiveNonblock)
                            .is_ok_and(|_lock| fs::remove_dir(entry.path()).is_ok())
                    {
                        taken.insert(entry.file_name());
                    }
                }
            }
            taken.len()
        });
        while !sweeper.is_finished() {
            let said = layers.unpack(&tar);
            assert!(said.is_unpacked(), "{}", said.answer);
            assert_eq!(layers.run(&json!({"remove": {"blob": sha256(&tar)}}))["answer"], "done");
        }
        sweeper.join().expect("the sweeper")
    });
    assert_eq!(taken, 3, "the sweep never came between");
    layers.assert_holds_only(&[]);
}

#[test]
fn a_later_entry_replaces_an_earlier_one() {
    requires_root!();
    let layers = Layers::new();
    let deep = "d/".repeat(1500);
    let tar = archive(&[
        Entry::file("x", b"1"),
        Entry::file("x", b"2"),
        Entry::file("x/y", b"").pax("path", format!("z/{deep}f")),
        Entry::file("z", b"3"),
        Entry::symlink("x", "z"),
    ]);
    let said = layers.unpack(&tar);
    assert!(said.is_unpacked(), "{}", said.answer);
    let root = layers.path_of(&said.blob);
    assert_eq!(fs::read(root.join("z")).expect("a file"), b"3");
    assert_eq!(fs::read_link(root.join("x")).expect("a link").to_string_lossy(), "z");
}

#[test]
fn file_capabilities_are_bound_to_the_layer_range() {
    requires_root!();
    let layers = Layers::new();
    let v2 = [1, 0, 0, 2, 0, 4, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0];
    let tar = archive(&[Entry::file("ping", b"p")
        .mode(0o755)
        .pax("SCHILY.xattr.security.capability", v2)]);
    let said = layers.unpack(&tar);
    assert!(said.is_unpacked(), "{}", said.answer);
    let path = layers.path_of(&said.blob).join("ping");
    let output = std::process::Command::new("python3")
        .args([
            "-c",
            "import os,sys; sys.stdout.write(os.getxattr(sys.argv[1],'security.capability').hex())",
        ])
        .arg(path)
        .output()
        .expect("python3");
    let hex = String::from_utf8(output.stdout).expect("hex");
    // Version 3 with the range's first id as its root.
    let root: String = LAYER_ID.to_le_bytes().iter().map(|byte| format!("{byte:02x}")).collect();
    assert!(hex.starts_with("01000003") && hex.ends_with(&root), "{hex}");
}

#[test]
fn headers_with_bad_sums_and_records_are_refused() {
    requires_root!();
    let layers = Layers::new();
    let mut bad_sum = archive(&[Entry::file("a", b"x")]);
    bad_sum[0] = b'b';
    let mut negative = archive(&[Entry::file("a", b"x")]);
    let mut block: [u8; 512] = negative[..512].try_into().expect("a block");
    block[124..136].fill(0xff);
    seal(&mut block);
    negative[..512].copy_from_slice(&block);
    let mut record = Vec::new();
    let good = pax_record("path", b"x");
    super::support::block_entry(b"p", b'x', &good[..good.len() - 1], &mut record);
    record.extend(archive(&[Entry::file("a", b"x")]));
    for (name, tar) in [("sum", bad_sum), ("negative size", negative), ("record", record)] {
        let said = layers.unpack(&tar);
        assert_eq!(said.code(), "layer.invalid", "{name}: {}", said.answer);
    }
}

/// A name of many parts makes as many directories, which an archive's number of entries says nothing of.
#[test]
fn i05_directories_that_names_imply_count_as_entries() {
    requires_root!();
    let mut layers = Layers::new();
    layers.entries_max = 1_000;
    let deep = |number: usize| {
        Entry::file("x", b"").pax("path", format!("{number}/{}x", "d/".repeat(300)))
    };
    let bomb: Vec<Entry> = (0..8).map(deep).collect();
    let said = layers.unpack(&archive(&bomb));
    Check { id: "I05", variant: "8 names of 300 parts each", control: "8 entries are few" }
        .sees("layer.too-large", said.code());
    layers.assert_holds_only(&[]);
    let fine = layers.unpack(&archive(&bomb[..2]));
    assert!(fine.is_unpacked(), "the control, below the cap: {}", fine.answer);
}

#[test]
fn a_full_directory_gives_way_to_a_later_entry_of_its_name() {
    requires_root!();
    let layers = Layers::new();
    let entries = [
        Entry::dir("x"),
        Entry::file("x/y", b"1"),
        Entry::dir("x/z"),
        Entry::dir("p/q"),
        Entry::file("x", b"2"),
        Entry::symlink("p", "elsewhere"),
    ];
    let said = layers.unpack(&archive(&entries));
    assert!(said.is_unpacked(), "{}", said.answer);
    let root = layers.path_of(&said.blob);
    assert_eq!(fs::read(root.join("x")).expect("a file"), b"2");
    // The times of what is gone are set nowhere, and make nothing anew.
    assert!(fs::symlink_metadata(root.join("elsewhere")).is_err());
}
