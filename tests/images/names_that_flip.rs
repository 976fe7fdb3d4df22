//! I09: a name server that changes its mind. The registry's name leads to a public address when it is
//! looked up and to loopback a moment later, or to both at once: what was checked is what is connected to.
//!
//! The server runs in a mount namespace of its own, in which the resolver's configuration names a stub.

use std::net::{Ipv4Addr, TcpListener, UdpSocket};
use std::process::{Child, Command};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::{Check, Options, TestServer, programs, requires_root};

use super::registry::{RATES, begin, ended};

/// What an address record is.
const A: [u8; 2] = [0, 1];
const AAAA: [u8; 2] = [0, 28];

/// Answers to the questions for addresses, in turn; each lives for no second at all.
#[derive(Clone, Default)]
struct Answers {
    v4: Vec<Vec<[u8; 4]>>,
    v6: Vec<[u8; 16]>,
}

struct Stub {
    address: Ipv4Addr,
    answers: Arc<Mutex<Answers>>,
    asked: Arc<AtomicUsize>,
}

impl Stub {
    fn start() -> Self {
        let [.., high, low] = std::process::id().to_be_bytes();
        let address = Ipv4Addr::new(127, 153, high, low.max(1));
        let socket = UdpSocket::bind((address, 53)).expect("a name server's port");
        let (answers, asked) = (Arc::<Mutex<Answers>>::default(), Arc::<AtomicUsize>::default());
        let (own, count) = (Arc::clone(&answers), Arc::clone(&asked));
        std::thread::spawn(move || {
            let mut question = [0; 512];
            while let Ok((length, from)) = socket.recv_from(&mut question) {
                let reply = reply(&question[..length], &own.lock().expect("answers"), &count);
                drop(socket.send_to(&reply, from));
            }
        });
        Self { address, answers, asked }
    }

    fn say(&self, answers: Answers) {
        self.asked.store(0, Ordering::SeqCst);
        *self.answers.lock().expect("answers") = answers;
    }
}

/// RFC 1035, section 4.1: the question again, and the records.
fn reply(question: &[u8], answers: &Answers, asked: &AtomicUsize) -> Vec<u8> {
    let end = 12 + question[12..].iter().position(|&byte| byte == 0).unwrap_or(0) + 5;
    let kind = [question[end - 4], question[end - 3]];
    let records: Vec<Vec<u8>> = match kind {
        A if !answers.v4.is_empty() => {
            let turn = asked.fetch_add(1, Ordering::SeqCst);
            answers.v4[turn % answers.v4.len()].iter().map(|address| address.to_vec()).collect()
        }
        AAAA => answers.v6.iter().map(|address| address.to_vec()).collect(),
        _ => Vec::new(),
    };
    let count = u8::try_from(records.len()).expect("few records");
    let mut out =
        [&question[..2], &[0x81, 0x80, 0, 1, 0, count, 0, 0, 0, 0], &question[12..end]].concat();
    for record in records {
        let length = u8::try_from(record.len()).expect("an address");
        out.extend([0xc0, 12]);
        out.extend(kind);
        out.extend([0, 1, 0, 0, 0, 0, 0, length]);
        out.extend(record);
    }
    out
}

/// The instance's server, started again where names are looked up at the stub.
struct Elsewhere(Child);

impl Elsewhere {
    async fn start(server: &TestServer, stub: &Stub) -> Self {
        server.kill_server();
        let dir = server.dir.display();
        let resolver = format!("nameserver {}\noptions timeout:1 attempts:1\n", stub.address);
        std::fs::write(server.dir.join("resolv.conf"), resolver).expect("a file");
        std::fs::write(server.dir.join("nsswitch.conf"), "hosts: dns\n").expect("a file");
        let script = format!(
            "mount --make-rprivate / && mount --bind {dir}/resolv.conf /etc/resolv.conf && \
             mount --bind {dir}/nsswitch.conf /etc/nsswitch.conf && \
             exec setpriv --reuid 65534 --regid 65534 --clear-groups {} --config {} serve",
            programs::berth().display(),
            server.config_path().display()
        );
        let log = std::fs::File::create(server.dir.join("elsewhere.log")).expect("a log");
        let child = Command::new("unshare")
            .args(["--mount", "sh", "-c", &script])
            .stderr(log)
            .spawn()
            .expect("unshare");
        let this = Self(child);
        let begun = Instant::now();
        let client = server.anonymous();
        while !client.raw("GET", "/healthz").send().await.is_ok_and(|answer| answer.status() == 200)
        {
            assert!(begun.elapsed() < Duration::from_secs(30), "the server does not answer");
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        this
    }
}

impl Drop for Elsewhere {
    fn drop(&mut self) {
        drop(self.0.kill());
        drop(self.0.wait());
    }
}

const LOOPBACK: [u8; 4] = [127, 0, 0, 1];
const PUBLIC: [u8; 4] = [93, 184, 215, 14];

fn answers() -> Vec<(&'static str, Answers)> {
    let v4 = |addresses: &[[u8; 4]]| Answers { v4: vec![addresses.to_vec()], v6: Vec::new() };
    let v6 = |text: &str| {
        let address: std::net::Ipv6Addr = text.parse().expect("an address");
        Answers { v4: Vec::new(), v6: vec![address.octets()] }
    };
    vec![
        ("loopback", v4(&[LOOPBACK])),
        ("another loopback address", v4(&[[127, 9, 9, 9]])),
        ("unspecified", v4(&[[0, 0, 0, 0]])),
        ("link-local", v4(&[[169, 254, 169, 254]])),
        ("private and loopback", v4(&[[10, 0, 0, 1], LOOPBACK])),
        ("loopback in IPv6", v6("::1")),
        ("loopback mapped into IPv6", v6("::ffff:127.0.0.1")),
        ("loopback behind NAT64", v6("64:ff9b::7f00:1")),
        ("loopback in 6to4", v6("2002:7f00:1::")),
        ("unspecified in IPv6", v6("::")),
        (
            "public first, loopback from then on",
            Answers { v4: vec![vec![PUBLIC], vec![LOOPBACK]], v6: Vec::new() },
        ),
        ("public and loopback at once", v4(&[PUBLIC, LOOPBACK])),
    ]
}

/// Whether somebody on this machine is connecting to this address (proc(5), `/proc/net/tcp`).
fn is_connecting(address: [u8; 4], port: u16) -> bool {
    let place = format!("{:08X}:{port:04X}", u32::from_le_bytes(address));
    let table = std::fs::read_to_string("/proc/net/tcp").unwrap_or_default();
    table.lines().any(|line| line.split_whitespace().nth(2) == Some(place.as_str()))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i09_the_address_that_was_checked_is_the_one_that_is_connected_to() {
    requires_root!();
    let stub = Stub::start();
    let recorder = TcpListener::bind("0.0.0.0:0").expect("a port");
    recorder.set_nonblocking(true).expect("it can be asked");
    let port = recorder.local_addr().expect("its address").port();
    let sections =
        format!("[registries]\ninternal = [\"listed.test:{port}\"]\nstall_secs = 2\n{RATES}");
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let _elsewhere = Elsewhere::start(&server, &stub).await;
    for (name, answers) in answers() {
        let leads_out = answers.v4.iter().flatten().any(|address| *address == PUBLIC);
        stub.say(answers.clone());
        let id = begin(&anna, &format!("flip.test:{port}/app:v1")).await;
        let begun = Instant::now();
        while !answers.v4.is_empty() && stub.asked.load(Ordering::SeqCst) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{name}: nobody asked");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        if leads_out {
            // Nobody answers there; what matters is that it went there. Without a route it ends by itself.
            let path = format!("/api/v1/operations/{id}");
            while !is_connecting(PUBLIC, port) && anna.get(&path).await.json()["state"] == "running"
            {
                assert!(begun.elapsed() < Duration::from_secs(20), "{name}: it goes nowhere");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
            anna.post(&format!("/api/v1/operations/{id}/cancel"), &json!({})).await;
        }
        let done = ended(&anna, &id).await;
        let code = done["failure"]["code"].as_str().unwrap_or_default();
        let met = recorder.accept().is_ok();
        let seen =
            format!("connected: {met}, looked up {} times", stub.asked.load(Ordering::SeqCst));
        let once = usize::from(!answers.v4.is_empty());
        let variant = format!("a name that is {name}");
        Check {
            id: "I09",
            variant: &variant,
            control: "a listed name of that address is connected to",
        }
        .sees(format!("connected: false, looked up {once} times"), seen);
        assert!(leads_out || code == "registry.forbidden", "{name}: {done}");
    }
    // The control: what the operator lists may be there.
    stub.say(Answers { v4: vec![vec![LOOPBACK]], v6: Vec::new() });
    let id = begin(&anna, &format!("listed.test:{port}/app:v1")).await;
    ended(&anna, &id).await;
    assert!(recorder.accept().is_ok(), "the control: nobody came");
}
