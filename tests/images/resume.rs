//! A blob whose transfer breaks off: a front before the real registry cuts connections, and the pull
//! goes on from the byte that it had.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use system_tests::{Options, TestServer, requires_root};

use super::registry::{DockerRegistry, Fake, Image, Reply, host_architecture, pull};
use super::support::{Entry, archive, sha256};

/// What was asked for: path, `Range`, and how many bytes of the body went back.
type Asked = Arc<Mutex<Vec<(String, String, u64)>>>;

/// Passes requests on to a registry, and cuts the connection in the middle of a blob.
struct Front {
    address: String,
    asked: Asked,
}

/// What is cut.
#[derive(Clone)]
struct Cut {
    blob: String,
    /// After how many bytes of a body.
    bytes: u64,
    /// How often.
    times: usize,
}

impl Front {
    fn start(registry: &str, cut: Cut) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let asked: Asked = Arc::default();
        let (log, registry) = (Arc::clone(&asked), registry.to_owned());
        let left = Arc::new(Mutex::new(cut.times));
        std::thread::spawn(move || {
            for client in listener.incoming().flatten() {
                let (log, registry) = (Arc::clone(&log), registry.clone());
                let (cut, left) = (cut.clone(), Arc::clone(&left));
                // Either side may hang up: that ends this connection only.
                std::thread::spawn(move || drop(pass(&client, &registry, &cut, &left, &log)));
            }
        });
        Self { address, asked }
    }

    fn section(&self) -> String {
        format!("[registries]\ninsecure = [\"{}\"]\n", self.address)
    }

    /// The requests for a blob: the `Range` and the bytes sent.
    fn of(&self, blob: &str) -> Vec<(String, u64)> {
        let asked = self.asked.lock().expect("the log");
        let of_blob = asked.iter().filter(|(path, ..)| path.ends_with(blob));
        of_blob.map(|(_, range, bytes)| (range.clone(), *bytes)).collect()
    }
}

/// The lines of a head, and whatever had come behind it.
fn head(stream: &TcpStream) -> std::io::Result<(Vec<String>, BufReader<TcpStream>)> {
    let mut reader = BufReader::new(stream.try_clone()?);
    let mut lines = Vec::new();
    loop {
        let mut line = String::new();
        if reader.read_line(&mut line)? <= 2 {
            return Ok((lines, reader));
        }
        lines.push(line.trim_end().to_owned());
    }
}

fn pass(
    client: &TcpStream,
    registry: &str,
    cut: &Cut,
    left: &Mutex<usize>,
    log: &Asked,
) -> std::io::Result<()> {
    let (lines, _) = head(client)?;
    let Some(path) = lines.first().and_then(|line| line.split(' ').nth(1)) else { return Ok(()) };
    let mut up = TcpStream::connect(registry)?;
    let kept = lines.iter().filter(|line| !line.to_ascii_lowercase().starts_with("connection:"));
    let kept: Vec<&str> = kept.map(String::as_str).collect();
    up.write_all(format!("{}\r\nconnection: close\r\n\r\n", kept.join("\r\n")).as_bytes())?;
    let (answer, mut body) = head(&up)?;
    let mut down = client;
    down.write_all(format!("{}\r\n\r\n", answer.join("\r\n")).as_bytes())?;
    let get = lines[0].starts_with("GET ");
    let cuts = get && path.ends_with(&cut.blob) && {
        let mut left = left.lock().expect("the count");
        let cuts = *left > 0;
        *left = left.saturating_sub(1);
        cuts
    };
    let limit = if cuts { cut.bytes } else { u64::MAX };
    let mut sent = 0;
    let mut buffer = vec![0; 16 * 1024];
    while sent < limit {
        let most = usize::try_from(limit - sent).unwrap_or(usize::MAX).min(buffer.len());
        let count = body.read(&mut buffer[..most])?;
        if count == 0 {
            break;
        }
        down.write_all(&buffer[..count])?;
        sent += count as u64;
    }
    let range = lines.iter().find_map(|line| {
        let (name, value) = line.split_once(": ")?;
        name.eq_ignore_ascii_case("range").then(|| value.to_owned())
    });
    if get {
        let entry = (path.to_owned(), range.unwrap_or_default(), sent);
        log.lock().expect("the log").push(entry);
    }
    client.shutdown(Shutdown::Both)
}

/// Bytes that no two parts of are the same, as long as asked for.
fn noise(bytes: usize) -> Vec<u8> {
    let block = |number: usize| sha256(&number.to_le_bytes()).into_bytes();
    (0..).flat_map(block).take(bytes).collect()
}

fn large_image() -> Image {
    let layer = archive(&[Entry::dir("data"), Entry::file("data/noise", &noise(3 << 20))]);
    Image::of(&[layer], host_architecture())
}

#[tokio::test]
async fn a_blob_that_breaks_off_goes_on_from_the_byte_it_had() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(None) else { return };
    let image = large_image();
    registry.push(&image, "app", "v1");
    let (blob, whole) = (image.layers[0].clone(), image.blobs[&image.layers[0]].len() as u64);
    for cut in [1, 100_000, whole - 1] {
        let front =
            Front::start(&registry.address, Cut { blob: blob.clone(), bytes: cut, times: 1 });
        let sections = front.section();
        let server = TestServer::with(Options { sections, ..Options::default() }).await;
        let anna = server.person("anna", "user").await;
        let done = pull(&anna, &format!("{}/app:v1", front.address)).await;
        assert_eq!(done["state"], "succeeded", "cut at {cut}: {done}");
        let asked = front.of(&blob);
        assert_eq!(asked.len(), 2, "cut at {cut}: {asked:?}");
        assert_eq!(asked[0], ("bytes=0-".to_owned(), cut));
        let first: u64 =
            asked[1].0.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("a byte");
        // What the cut took with it on the way is asked for again, and nothing else.
        assert!(first <= cut, "cut at {cut}: {asked:?}");
        assert_eq!(asked[1].1, whole - first, "cut at {cut}: {asked:?}");
        assert!(cut - first < 1 << 20, "cut at {cut}: {asked:?}");
        // Intact: what was unpacked is what was pushed.
        let path = server.data_dir().join("layers/sha256").join(&blob[7..]).join("data/noise");
        let found = std::fs::read(&path).expect("the file of the layer");
        assert_eq!(sha256(&found), sha256(&noise(3 << 20)), "cut at {cut}");
        let id = done["result"]["image"].as_str().expect("an image");
        let shown = anna.get(&format!("/api/v1/images/{id}")).await.expect_status(200).json();
        assert_eq!(shown["image"]["manifest_digest"], image.top.as_str());
    }
}

#[tokio::test]
async fn a_blob_that_always_breaks_off_ends_the_pull_with_a_clear_error() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(None) else { return };
    let image = large_image();
    registry.push(&image, "app", "v1");
    let blob = image.layers[0].clone();
    let cut = Cut { blob: blob.clone(), bytes: 50_000, times: usize::MAX };
    let front = Front::start(&registry.address, cut);
    let sections = front.section();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let done = pull(&anna, &format!("{}/app:v1", front.address)).await;
    assert_eq!(done["state"], "failed", "{done}");
    assert_eq!(done["failure"]["code"], "registry.broken", "{done}");
    let message = done["failure"]["message"].as_str().expect("a message");
    assert!(message.contains("keeps breaking off in the middle of a layer"), "{message}");
    // Each went on where the one before had ended, and the progress says how far it came.
    let asked = front.of(&blob);
    assert_eq!(asked.len(), 5, "{asked:?}");
    let came = done["progress"]["layers"][0]["downloaded_bytes"].as_u64().expect("a figure");
    assert!((1..=250_000).contains(&came), "{done}");
    let firsts: Vec<u64> = asked
        .iter()
        .map(|(range, _)| range.trim_matches(|c: char| !c.is_ascii_digit()).parse().expect("it"))
        .collect();
    assert!(firsts.is_sorted(), "{asked:?}");
    // Nothing of it stays.
    let left = |path: &str| std::fs::read_dir(server.data_dir().join(path)).expect("it").count();
    assert_eq!((left("store/tmp"), left("layers/sha256")), (0, 0));
}

#[tokio::test]
async fn a_wrong_range_is_refused_and_one_that_is_ignored_is_read_from_the_start() {
    requires_root!();
    let image = large_image();
    let (blob, whole) = (image.layers[0].clone(), image.blobs[&image.layers[0]].clone());
    let path = format!("GET /v2/app/blobs/{blob}");
    let tries = AtomicUsize::new(0);
    let fake = Fake::start(image.clone(), move |line| {
        if line != path {
            return None;
        }
        let from = |first: usize| {
            let sent = format!("bytes {first}-{}/{}", whole.len() - 1, whole.len());
            let part = Reply::ok(whole[first..].to_vec()).header("content-range", &sent);
            Reply { status: 206, ..part }
        };
        match tries.fetch_add(1, Ordering::SeqCst) {
            // It breaks off, is away for a moment, and sends from another byte than was asked for.
            0 => Some(Reply { sent: Some(whole.len() / 2), ..Reply::ok(whole.clone()) }),
            1 => Some(Reply::status(503)),
            2 => Some(from(1)),
            // The ordinary answer knows no ranges.
            _ => None,
        }
    });
    let sections = fake.section();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let asked = fake.lines().into_iter().filter(|line| line.contains(&blob)).count();
    assert_eq!(asked, 4);
}
