//! F04: the power fails at random moments while people work. The disk is kept as it was at each moment,
//! without what the kernel had not written yet, and the appliance is started from it.

use std::collections::BTreeSet;
use std::fs;
use std::path::Path;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use serde_json::json;
use sha2::{Digest, Sha256};
use system_tests::client::send;
use system_tests::clonable_disk::ClonableDisk;
use system_tests::containers::{IMAGE, import, ready};
use system_tests::reality::{disagreements, integrity, inventory, names};
use system_tests::{Check, Client, Dice, Options, TestServer, image, requires_root, times};

/// Cuts of one load.
const CUTS_EACH: usize = 10;
const DISK_BYTES: u64 = 512 << 20;
/// Between two cuts, at most.
const PAUSE_MS_MAX: usize = 700;
/// Files in each image, of this size.
const FILES: usize = 4;
const FILE_BYTES: usize = 40_000;

/// What people were told, and what they have asked for, in order.
#[derive(Debug, Default)]
struct Story {
    told: Vec<Fact>,
    asked: Vec<Fact>,
}

#[derive(Debug, Clone, PartialEq, Eq)]
enum Fact {
    Person(String),
    Container(String),
    NoContainer(String),
    Image(String),
    NoImage(String),
}

/// One cut: how much of the story is in it for certain, and how much at most.
struct Cut {
    name: String,
    told: usize,
    asked: usize,
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn f04_a_power_cut_loses_nothing_that_was_acknowledged() {
    requires_root!();
    let mut wrong = Vec::new();
    for round in 0..times(20, 1) {
        wrong.extend(one_load(round, times(CUTS_EACH, 3)).await);
    }
    assert!(wrong.is_empty(), "{wrong:#?}");
}

/// Lets people work, cuts the power a few times, and looks at what each cut has left.
async fn one_load(round: usize, cuts: usize) -> Vec<String> {
    let dir = std::env::temp_dir().join(format!("berth-disk-{}-{round}", std::process::id()));
    let disk = ClonableDisk::new(&dir, DISK_BYTES);
    let data_dir = Some(disk.mounted.join("berth"));
    let server = TestServer::with(Options { data_dir, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let (story, cuts) = work_and_cut(&server, &anna, &disk, cuts).await;
    server.cut_power();
    let (mut wrong, mut lost) = (Vec::new(), 0);
    for cut in cuts {
        disk.swap(&cut.name);
        // The control: a file that was written and not synced.
        let bytes = fs::read(disk.mounted.join(&cut.name)).unwrap_or_default();
        let kept = bytes == content(&cut.name, 0);
        lost += usize::from(!kept);
        let control = format!("a file without fsync was {}", if kept { "kept" } else { "lost" });
        let found = after(&server, &anna, &story, &cut).await;
        server.cut_power();
        let moment = format!("round {round}, {}: {} told, {} asked", cut.name, cut.told, cut.asked);
        let check = Check { id: "F04", variant: &moment, control: &control };
        if !check.holds("", &found.join("; ")) {
            wrong.push(format!("{moment}: {found:?}"));
        }
    }
    assert!(lost > 0, "no cut has lost anything, not even what nobody synced");
    // The data directory is on the disk, which goes last.
    drop(server);
    drop(disk);
    wrong
}

async fn work_and_cut(
    server: &TestServer,
    anna: &Client,
    disk: &ClonableDisk,
    cuts: usize,
) -> (Story, Vec<Cut>) {
    let story = Mutex::new(Story::default());
    let (over, next) = (AtomicBool::new(false), AtomicUsize::new(0));
    let work = async {
        while !over.load(Ordering::Relaxed) {
            let number = next.fetch_add(1, Ordering::Relaxed);
            one_piece(server, anna, &story, number).await;
        }
    };
    let cutting = async {
        let mut dice = Dice::new();
        let mut made = Vec::new();
        for number in 0..cuts {
            let pause = u64::try_from(dice.below(PAUSE_MS_MAX)).expect("it is small");
            tokio::time::sleep(Duration::from_millis(pause)).await;
            let name = format!("cut{number}");
            let told = story.lock().expect("not poisoned").told.len();
            tokio::task::block_in_place(|| {
                fs::write(disk.mounted.join(&name), content(&name, 0)).expect("write a file");
                disk.keep(&name);
            });
            let asked = story.lock().expect("not poisoned").asked.len();
            made.push(Cut { name, told, asked });
        }
        over.store(true, Ordering::Relaxed);
        made
    };
    let others = async {
        let second = async {
            while !over.load(Ordering::Relaxed) {
                let number = next.fetch_add(1, Ordering::Relaxed);
                one_piece(server, anna, &story, number).await;
            }
        };
        tokio::join!(work, second)
    };
    let (made, _) = tokio::join!(cutting, others);
    (story.into_inner().expect("not poisoned"), made)
}

/// Something that somebody does, told afterwards.
async fn one_piece(server: &TestServer, anna: &Client, story: &Mutex<Story>, number: usize) {
    let ask = |fact: Fact| story.lock().expect("not poisoned").asked.push(fact);
    let told = |fact: Fact| story.lock().expect("not poisoned").told.push(fact);
    match number % 4 {
        0 => {
            let name = format!("p{number}");
            ask(Fact::Person(name.clone()));
            let body = json!({"name": name, "role": "user"});
            server.operator().post("/api/v1/people", &body).await.expect_status(201);
            told(Fact::Person(name));
        }
        1 => {
            let name = format!("imported:{number}");
            ask(Fact::Image(name.clone()));
            let id = image::import(anna, archive(&name)).await;
            told(Fact::Image(name.clone()));
            if number % 8 == 1 {
                ask(Fact::NoImage(name.clone()));
                anna.delete(&format!("/api/v1/images/{id}")).await.expect_status(204);
                told(Fact::NoImage(name));
            }
        }
        _ => {
            let name = format!("c{number}");
            ask(Fact::Container(name.clone()));
            let body = json!({"name": name, "image": IMAGE, "command": ["sh", "-c", "echo here"],
                "start": number % 4 == 2, "stop_grace_secs": 0});
            let made = anna.post("/api/v1/containers", &body).await.expect_status(201).json();
            told(Fact::Container(name.clone()));
            if number.is_multiple_of(3) {
                ask(Fact::NoContainer(name.clone()));
                let id = made["id"].as_str().expect("an id");
                let path = format!("/api/v1/containers/{id}?force=true");
                let answer = send(anna.request("DELETE", &path)).await;
                if answer.status == 204 {
                    told(Fact::NoContainer(name));
                }
            }
        }
    }
}

/// The same bytes for the same name.
fn content(name: &str, file: usize) -> Vec<u8> {
    let seed = Sha256::digest(format!("{name} {file}"));
    seed.iter().copied().cycle().take(FILE_BYTES).collect()
}

fn archive(name: &str) -> Vec<u8> {
    let contents: Vec<(String, Vec<u8>)> =
        (0..FILES).map(|file| (format!("files/{file}"), content(name, file))).collect();
    let files: Vec<(&str, u32, &[u8])> =
        contents.iter().map(|(path, bytes)| (path.as_str(), 0o644, bytes.as_slice())).collect();
    image::archive(name, &files)
}

/// Starts from what a cut has left, and compares.
async fn after(server: &TestServer, anna: &Client, story: &Story, cut: &Cut) -> Vec<String> {
    let mut wrong = Vec::new();
    let whole = integrity(server);
    if whole != "ok" {
        wrong.push(format!("the inventory: {whole}"));
    }
    server.start_supervisor().await;
    server.start_server().await;
    ready(server).await;
    let (told, asked) = (&story.told[..cut.told], &story.asked[..cut.asked]);
    let people = rows(server, "select name from people");
    let containers = rows(server, "select name from containers");
    let images = rows(server, "select name || ':' || value from image_references");
    for fact in told {
        let (is_there, undone) = match fact {
            Fact::Person(name) => (people.contains(name), None),
            Fact::Container(name) => {
                (containers.contains(name), Some(Fact::NoContainer(name.clone())))
            }
            Fact::Image(name) => (has(&images, name), Some(Fact::NoImage(name.clone()))),
            Fact::NoContainer(name) => (!containers.contains(name), None),
            Fact::NoImage(name) => (!has(&images, name), None),
        };
        // Whoever asked for its end may have got it.
        if !is_there && !undone.is_some_and(|undone| asked.contains(&undone)) {
            wrong.push(format!("lost: {fact:?}"));
        }
    }
    let was_asked = |fact: Fact| asked.contains(&fact);
    for name in containers.iter().filter(|name| !was_asked(Fact::Container((*name).clone()))) {
        wrong.push(format!("a container that nobody asked for: {name}"));
    }
    wrong.extend(missing_bytes(server, anna).await);
    wrong.extend(disagreements(server).await);
    wrong
}

fn rows(server: &TestServer, sql: &str) -> BTreeSet<String> {
    inventory(server, sql).into_iter().collect()
}

fn has(images: &BTreeSet<String>, name: &str) -> bool {
    images.iter().any(|image| image.ends_with(&format!("/{name}")) || image == name)
}

/// Whatever a listed image lacks of its blobs and files.
async fn missing_bytes(server: &TestServer, anna: &Client) -> Vec<String> {
    let mut wrong = Vec::new();
    let blobs = server.data_dir().join("store/blobs/sha256");
    let wanted = "select blob from image_layers union select manifest_digest from images \
                  union select config_digest from images";
    for wanted in inventory(server, wanted) {
        let name = wanted.trim_start_matches("sha256:");
        let digest = match fs::read(blobs.join(name)) {
            Ok(bytes) => Sha256::digest(&bytes).iter().map(|byte| format!("{byte:02x}")).collect(),
            Err(error) => error.to_string(),
        };
        if digest != name {
            wrong.push(format!("the blob {name}: {digest}"));
        }
    }
    let listed = anna.get("/api/v1/images?limit=500").await.expect_status(200).json();
    for one in listed["items"].as_array().expect("a list") {
        let id = one["id"].as_str().expect("an id");
        let layers = inventory(
            server,
            &format!("select blob from image_layers where image = '{id}' order by position"),
        );
        let Some(name) = one.to_string().split('"').find_map(imported_name) else { continue };
        for layer in layers {
            let layer = layer.trim_start_matches("sha256:");
            let folder = server.data_dir().join("layers/sha256").join(layer);
            wrong.extend(unlike(&folder, &name));
        }
    }
    wrong
}

fn imported_name(text: &str) -> Option<String> {
    let at = text.find("imported:")?;
    Some(text[at..].to_owned())
}

fn unlike(folder: &Path, name: &str) -> Vec<String> {
    let mut wrong = Vec::new();
    for file in 0..FILES {
        let path = folder.join(format!("files/{file}"));
        let path = if path.exists() { path } else { find(folder, &format!("files/{file}")) };
        match fs::read(&path) {
            Ok(bytes) if bytes == content(name, file) => {}
            Ok(bytes) => wrong.push(format!("{name}, file {file}: {} other bytes", bytes.len())),
            Err(error) => wrong.push(format!("{name}, {}: {error}", path.display())),
        }
    }
    wrong
}

/// A layer's files may lie one folder further down.
fn find(folder: &Path, path: &str) -> std::path::PathBuf {
    let inner = names(folder).into_iter().map(|name| folder.join(name).join(path));
    inner.into_iter().find(|path| path.exists()).unwrap_or_else(|| folder.join(path))
}
