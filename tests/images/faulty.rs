//! A registry of our own that misbehaves: one fault, at one place of one image's pull.
//!
//! It asks for a token first, so that a pull is, in order: a challenge, the token, the manifest, the
//! config, the layers. Each repository has an image and a fault of its own, which can be healed.

use std::collections::HashMap;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use nix::sys::socket::{setsockopt, sockopt};
use serde_json::{Value, json};

use super::registry::{Image, OCI_MANIFEST};

/// Where a fault strikes.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Place {
    Challenge,
    Token,
    Manifest,
    Config,
    Layer(usize),
}

pub(crate) const PLACES: [Place; 7] = [
    Place::Challenge,
    Place::Token,
    Place::Manifest,
    Place::Config,
    Place::Layer(0),
    Place::Layer(1),
    Place::Layer(2),
];

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Fault {
    /// A byte now and then, from the first on.
    Drip,
    /// The head and half of the body, then nothing.
    Stall,
    /// Nothing at all.
    Mute,
    /// The connection ends after so many bytes, in good order.
    Cut(usize),
    /// It is reset after so many bytes.
    Reset(usize),
    /// A bit is wrong in the middle of the body.
    Flip,
    /// More bytes than there should be, and a length that says so.
    Longer,
    /// Fewer bytes than there should be, and a length that says so.
    Shorter,
    /// Bytes behind the body, which no length speaks of.
    Behind,
    /// Another `Content-Length` than the body has.
    Length(&'static str),
    /// Other headers, over the right ones.
    Header(&'static str, String),
    /// Another status.
    Status(u16),
    /// Somewhere else.
    Redirect(String),
    /// A body in chunks that are none.
    Chunks(&'static str),
    /// Bytes that are no HTTP.
    Noise,
    /// A head without an end.
    Head,
}

struct Hosted {
    image: Image,
    place: Place,
    fault: Mutex<Option<Fault>>,
    /// How often the fault strikes at most.
    left: AtomicUsize,
    struck: AtomicUsize,
}

type Shelf = Arc<Mutex<HashMap<String, Arc<Hosted>>>>;

/// The registry.
pub(crate) struct Faulty {
    pub address: String,
    shelf: Shelf,
}

impl Faulty {
    pub(crate) fn start() -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let shelf: Shelf = Arc::default();
        let (own, shown) = (Arc::clone(&shelf), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shelf, address) = (Arc::clone(&own), shown.clone());
                // The other side may hang up at any time.
                std::thread::spawn(move || drop(serve(&stream, &stream, &shelf, &address)));
            }
        });
        Self { address, shelf }
    }

    /// The same behind `wrap`, which makes of a connection what is spoken over.
    pub(crate) fn start_behind<S: Read + Write>(
        host: &str,
        wrap: impl Fn(TcpStream) -> S + Clone + Send + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let port = listener.local_addr().expect("its address").port();
        let address = format!("{host}:{port}");
        let shelf: Shelf = Arc::default();
        let (own, shown) = (Arc::clone(&shelf), address.clone());
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (shelf, address, wrap) = (Arc::clone(&own), shown.clone(), wrap.clone());
                std::thread::spawn(move || {
                    let Ok(raw) = stream.try_clone() else { return };
                    drop(serve(wrap(stream), &raw, &shelf, &address));
                });
            }
        });
        Self { address, shelf }
    }

    /// A repository with an image and a fault that strikes so many times.
    pub(crate) fn host(&self, name: &str, image: Image, place: Place, fault: Fault, times: usize) {
        let hosted = Hosted {
            image,
            place,
            fault: Mutex::new(Some(fault)),
            left: AtomicUsize::new(times),
            struck: AtomicUsize::new(0),
        };
        self.shelf.lock().expect("the shelf").insert(name.to_owned(), Arc::new(hosted));
    }

    fn find(&self, name: &str) -> Arc<Hosted> {
        Arc::clone(&self.shelf.lock().expect("the shelf")[name])
    }

    pub(crate) fn heal(&self, name: &str) {
        *self.find(name).fault.lock().expect("the fault") = None;
    }

    /// How often the fault has struck.
    pub(crate) fn struck(&self, name: &str) -> usize {
        self.find(name).struck.load(Ordering::SeqCst)
    }

    /// The length of the answer at a place, head and body.
    pub(crate) fn answer_bytes(&self, name: &str, place: Place) -> usize {
        let hosted = self.find(name);
        answer(&hosted.image, name, place, &self.address).whole(None, None).len()
    }
}

struct Answer {
    status: u16,
    headers: Vec<(String, String)>,
    body: Vec<u8>,
}

impl Answer {
    fn whole(&self, length: Option<&str>, instead: Option<(&str, &str)>) -> Vec<u8> {
        let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", self.status);
        let own = self.body.len().to_string();
        head += &format!("content-length: {}\r\n", length.unwrap_or(&own));
        for (name, value) in &self.headers {
            if instead.is_none_or(|(other, _)| other != name) {
                head += &format!("{name}: {value}\r\n");
            }
        }
        if let Some((name, value)) = instead {
            head += &format!("{name}: {value}\r\n");
        }
        [head.as_bytes(), b"\r\n", &self.body].concat()
    }
}

fn config_of(image: &Image) -> String {
    let manifest: Value = serde_json::from_slice(&image.blobs[&image.top]).expect("json");
    manifest["config"]["digest"].as_str().expect("a digest").to_owned()
}

fn answer(image: &Image, name: &str, place: Place, address: &str) -> Answer {
    let ok = |body: Vec<u8>, headers: &[(&str, &str)]| Answer {
        status: 200,
        headers: headers.iter().map(|(k, v)| ((*k).to_owned(), (*v).to_owned())).collect(),
        body,
    };
    match place {
        Place::Challenge => {
            let scheme = if address.starts_with("127.") { "http" } else { "https" };
            let realm = format!("Bearer realm=\"{scheme}://{address}/token/{name}\",service=\"x\"");
            Answer { status: 401, ..ok(Vec::new(), &[("www-authenticate", &realm)]) }
        }
        Place::Token => ok(
            json!({"token": "good"}).to_string().into_bytes(),
            &[("content-type", "application/json")],
        ),
        Place::Manifest => ok(image.blobs[&image.top].clone(), &[("content-type", OCI_MANIFEST)]),
        Place::Config => ok(image.blobs[&config_of(image)].clone(), &[]),
        Place::Layer(number) => ok(image.blobs[&image.layers[number]].clone(), &[]),
    }
}

fn place_of(path: &str, headers: &str, image: &Image) -> Option<Place> {
    if path.starts_with("/token/") {
        return Some(Place::Token);
    }
    if !headers.contains("authorization: bearer good") {
        return Some(Place::Challenge);
    }
    if path.contains("/manifests/") {
        return Some(Place::Manifest);
    }
    let digest = path.rsplit('/').next()?;
    if digest == config_of(image) {
        return Some(Place::Config);
    }
    image.layers.iter().position(|layer| layer == digest).map(Place::Layer)
}

fn serve(
    mut stream: impl Read + Write,
    raw: &TcpStream,
    shelf: &Shelf,
    address: &str,
) -> std::io::Result<()> {
    let (line, headers) = head(&mut stream)?;
    let path = line.split(' ').nth(1).unwrap_or_default().to_owned();
    let path = path.split('?').next().unwrap_or_default();
    let name = path.split('/').nth(2).unwrap_or_default();
    let hosted = shelf.lock().expect("the shelf").get(name).cloned();
    let Some(hosted) = hosted else { return Ok(()) };
    let Some(place) = place_of(path, &headers, &hosted.image) else { return Ok(()) };
    let answer = answer(&hosted.image, name, place, address);
    let fault =
        if place == hosted.place { hosted.fault.lock().expect("the fault").clone() } else { None };
    let strikes = |_: &Fault| {
        let take = |left: usize| left.checked_sub(1);
        hosted.left.fetch_update(Ordering::SeqCst, Ordering::SeqCst, take).is_ok()
    };
    match fault.filter(strikes) {
        None => stream.write_all(&answer.whole(None, None)),
        Some(fault) => {
            hosted.struck.fetch_add(1, Ordering::SeqCst);
            strike(&mut stream, raw, answer, &fault)
        }
    }
}

fn head(stream: &mut impl Read) -> std::io::Result<(String, String)> {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut headers = String::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            return Ok((line, headers));
        }
        headers += &header.to_ascii_lowercase();
    }
}

fn strike(
    stream: &mut (impl Read + Write),
    raw: &TcpStream,
    mut answer: Answer,
    fault: &Fault,
) -> std::io::Result<()> {
    let middle = answer.body.len() / 2;
    match fault {
        Fault::Drip => return drip(stream, &answer.whole(None, None)),
        Fault::Stall => {
            let whole = answer.whole(None, None);
            stream.write_all(&whole[..whole.len() - answer.body.len().div_ceil(2)])?;
            return hold(stream);
        }
        Fault::Mute => return hold(stream),
        Fault::Cut(bytes) | Fault::Reset(bytes) => {
            let whole = answer.whole(None, None);
            stream.write_all(&whole[..whole.len().min(*bytes)])?;
            stream.flush()?;
            if matches!(fault, Fault::Reset(_)) {
                let now = nix::libc::linger { l_onoff: 1, l_linger: 0 };
                setsockopt(raw, sockopt::Linger, &now)?;
                return Ok(());
            }
            return raw.shutdown(Shutdown::Both);
        }
        Fault::Flip => match answer.body.get_mut(middle) {
            Some(byte) => *byte ^= 1,
            None => answer.headers.clear(),
        },
        Fault::Longer => answer.body.extend_from_slice(b"{} garbage"),
        Fault::Shorter => {
            answer.body.pop();
        }
        Fault::Behind => {
            let whole = answer.whole(None, None);
            return stream
                .write_all(&[whole.as_slice(), b"HTTP/1.1 200 evil\r\n\r\nevil"].concat());
        }
        Fault::Length(text) => return stream.write_all(&answer.whole(Some(text), None)),
        Fault::Header(name, value) => {
            return stream.write_all(&answer.whole(None, Some((name, value))));
        }
        Fault::Status(status) => {
            answer = Answer { status: *status, headers: Vec::new(), body: vec![b'<'; 2000] };
            answer.headers.push(("retry-after".into(), "1000000000".into()));
        }
        Fault::Redirect(target) => {
            answer = Answer { status: 307, headers: Vec::new(), body: Vec::new() };
            answer.headers.push(("location".into(), target.clone()));
        }
        Fault::Chunks(text) => {
            let head =
                format!("HTTP/1.1 {} x\r\ntransfer-encoding: chunked\r\n\r\n", answer.status);
            stream.write_all(&[head.as_bytes(), text.as_bytes()].concat())?;
            return raw.shutdown(Shutdown::Write);
        }
        Fault::Noise => return stream.write_all(b"\x16\x03\x01\x00\xa5 this is no HTTP\r\n\r\n"),
        Fault::Head => {
            stream.write_all(b"HTTP/1.1 200 x\r\n")?;
            for _ in 0..100_000 {
                stream.write_all(b"x-more: and more and more and more and more\r\n")?;
            }
            return Ok(());
        }
    }
    stream.write_all(&answer.whole(None, None))
}

/// A byte each tenth of a second: never silent, never done.
fn drip(stream: &mut impl Write, bytes: &[u8]) -> std::io::Result<()> {
    for byte in bytes {
        stream.write_all(&[*byte])?;
        stream.flush()?;
        std::thread::sleep(Duration::from_millis(100));
    }
    Ok(())
}

/// Says nothing more until the other side hangs up.
fn hold(stream: &mut impl Read) -> std::io::Result<()> {
    let begun = Instant::now();
    while begun.elapsed() < Duration::from_secs(120) && stream.read(&mut [0; 64])? > 0 {}
    Ok(())
}
