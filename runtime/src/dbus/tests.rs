//! A conversation with a peer that is a thread of the test.

use std::os::unix::net::UnixListener;
use std::thread::{self, JoinHandle};

use super::*;

const SECOND: Duration = Duration::from_secs(1);

/// A socket at which one peer does as it is told, removed at the end.
struct Peer {
    path: std::path::PathBuf,
    thread: Option<JoinHandle<()>>,
}

impl Peer {
    fn new(name: &str, act: impl FnOnce(UnixStream) + Send + 'static) -> Self {
        let name = format!("berth-dbus-{}-{name}", std::process::id());
        let path = std::env::temp_dir().join(name);
        let listener = UnixListener::bind(&path).expect("listen");
        let thread = thread::spawn(move || act(listener.accept().expect("somebody comes").0));
        Self { path, thread: Some(thread) }
    }

    fn end(mut self) {
        self.thread.take().expect("once").join().expect("the peer saw what it was to see");
    }
}

impl Drop for Peer {
    fn drop(&mut self) {
        std::fs::remove_file(&self.path).expect("remove the socket");
    }
}

fn handshake(stream: &mut UnixStream) {
    let uid: String =
        nix::unistd::geteuid().to_string().bytes().map(|digit| format!("{digit:02x}")).collect();
    let expected = format!("\0AUTH EXTERNAL {uid}\r\nBEGIN\r\n");
    let mut line = vec![0; expected.len()];
    stream.read_exact(&mut line).expect("both lines");
    assert_eq!(line, expected.as_bytes());
    stream.write_all(b"OK 0123456789abcdef\r\n").expect("answer");
}

/// One message: its fixed part and its body's text, as far as it is text.
fn read_call(stream: &mut UnixStream) -> Vec<u8> {
    let mut bytes = vec![0; wire::FIXED_BYTES];
    stream.read_exact(&mut bytes).expect("a message");
    bytes.resize(wire::length(&bytes).expect("a length"), 0);
    stream.read_exact(&mut bytes[wire::FIXED_BYTES..]).expect("all of it");
    bytes
}

/// A message of a kind, with header fields and a body.
fn answer(kind: u8, fields: &[(u8, &str, &str)], answers: u32, body: &[u8]) -> Vec<u8> {
    let mut whole = Body::default();
    whole.byte(b'l').byte(kind).byte(0).byte(1);
    whole.number(u32::try_from(body.len()).expect("short")).number(9);
    whole.array(8, |list| {
        list.structure().byte(5).signature("u").number(answers);
        for (code, signature, text) in fields {
            list.structure().byte(*code).signature(signature);
            if *signature == "g" {
                list.signature(text)
            } else {
                list.text(text)
            };
        }
    });
    let mut bytes = whole.into_bytes();
    bytes.resize(bytes.len().next_multiple_of(8), 0);
    bytes.extend(body);
    bytes
}

const METHOD: Method<'_> = Method { object: "/a/b", interface: "a.B", member: "Do" };

/// The example of the specification's own marshalling rules: every field at its boundary.
#[test]
fn a_call_is_marshalled_as_the_specification_has_it() {
    let mut body = Body::of("sa(sv)");
    body.text("x").array(8, |list| {
        list.structure().text("Flag").signature("b").flag(true);
        list.structure().text("Pids").signature("au").array(4, |pids| {
            pids.number(7).number(8);
        });
    });
    let bytes = wire::call(1, METHOD, &body);
    assert_eq!(bytes.len(), wire::length(&bytes).expect("a length"));
    assert_eq!(bytes[..4], *b"l\x01\x00\x01");
    let at = bytes.len() - body.clone().into_bytes().len();
    assert_eq!(at % 8, 0, "the body begins at a multiple of 8");
    let expected: &[u8] = b"\x01\0\0\0x\0\0\0\x2c\0\0\0\0\0\0\0\x04\0\0\0Flag\0\x01b\0\x01\0\0\0\
        \x04\0\0\0Pids\0\x02au\0\0\0\0\x08\0\0\0\x07\0\0\0\x08\0\0\0";
    assert_eq!(bytes[at..], *expected);
}

#[test]
fn an_answer_is_awaited_and_signals_are_kept() {
    let peer = Peer::new("answer", |mut stream| {
        handshake(&mut stream);
        let call = read_call(&mut stream);
        assert!(call.windows(4).any(|part| part == b"/a/b"));
        let mut job = Body::of("s");
        job.text("first");
        let signal =
            |member| answer(4, &[(3, "s", member), (8, "g", "s")], 77, &job.clone().into_bytes());
        // Of other signals, and of answers to others, nothing is seen.
        for message in [signal("Other"), signal("Wanted"), answer(2, &[], 55, b"")] {
            stream.write_all(&message).expect("send");
        }
        let mut body = Body::of("o");
        body.text("/job/1");
        // In pieces, as a socket may give it.
        let message = answer(2, &[(8, "g", "o")], 1, &body.into_bytes());
        for piece in message.chunks(5) {
            stream.write_all(piece).expect("send");
        }
        read_call(&mut stream);
        let mut body = Body::of("s");
        body.text("not here");
        let fields = [(4, "s", "org.x.NoSuchUnit"), (8, "g", "s")];
        stream.write_all(&answer(3, &fields, 2, &body.into_bytes())).expect("send");
    });
    let mut bus = Bus::connect(&peer.path, SECOND * 10).expect("connected");
    let done = bus.call(METHOD, &Body::default()).expect("answered");
    assert_eq!(done.reader().text().expect("a path"), "/job/1");
    let signal = bus.signal("Wanted").expect("it has come already");
    assert_eq!(signal.reader().text().expect("a text"), "first");
    let error = bus.call(METHOD, &Body::default()).expect_err("refused");
    assert_eq!(error.to_string(), "org.x.NoSuchUnit: not here");
    peer.end();
}

#[test]
fn a_peer_that_is_silent_wrong_or_gone_is_an_error() {
    let silent = Peer::new("silent", |mut stream| {
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("until it has had enough");
    });
    let error = Bus::connect(&silent.path, SECOND / 20).expect_err("nobody answers");
    assert!(matches!(error, Error::Timeout(_)), "{error}");
    silent.end();
    let rejecting = Peer::new("rejecting", |mut stream| {
        stream.write_all(b"REJECTED EXTERNAL\r\n").expect("send");
        let mut rest = Vec::new();
        stream.read_to_end(&mut rest).expect("until it has had enough");
    });
    assert!(matches!(Bus::connect(&rejecting.path, SECOND * 10), Err(Error::Malformed(_))));
    rejecting.end();
    for (name, wrong) in [
        ("big-endian", b"B\x02\x00\x01\0\0\0\0\0\0\0\x01\0\0\0\0".to_vec()),
        ("long", b"l\x02\x00\x01\xff\xff\xff\x7f\0\0\0\x01\0\0\0\0".to_vec()),
        // A header field that says it is longer than the message.
        ("field", b"l\x02\x00\x01\0\0\0\0\x01\0\0\0\x08\0\0\0\x03\x01s\0\xff\xff\0\0".to_vec()),
    ] {
        let peer = Peer::new(name, move |mut stream| {
            handshake(&mut stream);
            read_call(&mut stream);
            stream.write_all(&wrong).expect("send");
        });
        let mut bus = Bus::connect(&peer.path, SECOND * 10).expect("connected");
        let error = bus.call(METHOD, &Body::default()).expect_err("it is wrong");
        assert!(matches!(error, Error::Malformed(_)), "{name}: {error}");
        peer.end();
    }
    let gone = Peer::new("gone", |mut stream| handshake(&mut stream));
    let mut bus = Bus::connect(&gone.path, SECOND * 10).expect("connected");
    let error = bus.call(METHOD, &Body::default()).expect_err("it is gone");
    assert!(matches!(error, Error::Socket { .. }), "{error}");
    gone.end();
}
