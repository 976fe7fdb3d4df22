//! I07, I09 and I12: each fault of a registry at each place of a pull. The pull ends with a clear
//! sentence, or succeeds where it may; nothing stays that should not; others notice nothing; and the
//! same pull from the healed registry succeeds.

use std::net::TcpListener;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{Check, Client, Options, TestServer, requires_root, sample};
use tokio::task::JoinSet;

use super::faulty::{Fault, Faulty, PLACES, Place};
use super::registry::{Image, OCI_INDEX, RATES, begin, ended, host_architecture, pull};
use super::support::{Entry, archive, sha256};

/// What the tests' configuration says of stalls.
const STALL_SECS: u64 = 2;
/// How long `/healthz` may take at worst, on a machine that does other things as well.
const ANSWER_LIMIT: Duration = Duration::from_secs(3);
/// Pulls at once, of each of two people.
const AT_ONCE: usize = 4;

/// Three layers that nobody has pulled before.
fn image(marker: &str) -> Image {
    let layer = |number: usize| {
        let text = format!("{marker} {number} ").repeat(150);
        archive(&[Entry::file(format!("file-{number}"), text.as_bytes())])
    };
    Image::of(&[layer(0), layer(1), layer(2)], host_architecture())
}

/// Whether the pull must fail or succeed, where that is certain.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Want {
    Fails,
    Succeeds,
    Ends,
}

#[derive(Debug, Clone)]
struct Case {
    row: &'static str,
    place: Place,
    fault: Fault,
    times: usize,
    want: Want,
}

fn faults() -> Vec<(&'static str, Fault, Want)> {
    use Want::{Ends, Fails, Succeeds};
    let header = |name, value: &str| Fault::Header(name, value.to_owned());
    vec![
        ("I12", Fault::Drip, Fails),
        ("I12", Fault::Stall, Ends),
        ("I12", Fault::Mute, Fails),
        ("I12", Fault::Cut(0), Fails),
        ("I12", Fault::Cut(60), Fails),
        ("I12", Fault::Reset(0), Fails),
        ("I12", Fault::Reset(60), Fails),
        ("I12", Fault::Status(500), Fails),
        ("I12", Fault::Status(503), Fails),
        ("I12", Fault::Status(429), Fails),
        ("I12", Fault::Status(404), Fails),
        ("I12", Fault::Status(418), Fails),
        ("I12", Fault::Noise, Fails),
        ("I12", Fault::Head, Fails),
        ("I12", Fault::Chunks("zz\r\nevil\r\n"), Fails),
        ("I12", Fault::Chunks("ffffffffffffffff\r\nevil"), Fails),
        ("I12", Fault::Chunks("4\r\nevil\r\n0\r\n\r\n"), Fails),
        ("I07", Fault::Flip, Fails),
        ("I07", Fault::Longer, Ends),
        ("I07", Fault::Shorter, Ends),
        ("I07", Fault::Behind, Succeeds),
        ("I07", Fault::Length("3"), Ends),
        ("I07", Fault::Length("99999"), Ends),
        ("I07", Fault::Length("18446744073709551615"), Ends),
        ("I07", Fault::Length("99999999999999999999999"), Fails),
        ("I07", Fault::Length("-1"), Fails),
        ("I07", Fault::Length("0x10"), Fails),
        ("I07", header("content-length", "7"), Fails),
        ("I06", header("content-type", "text/html"), Succeeds),
        ("I06", header("content-type", OCI_INDEX), Ends),
        ("I06", header("content-type", "\u{1}"), Ends),
        ("I07", header("content-encoding", "gzip"), Ends),
        ("I07", header("docker-content-digest", "sha256:0000"), Ends),
    ]
}

fn cases() -> Vec<Case> {
    let mut all = Vec::new();
    for (row, fault, want) in faults() {
        for place in PLACES {
            // A challenge is its head; what its body is makes no difference.
            let body = matches!(fault, Fault::Longer | Fault::Shorter | Fault::Stall);
            let want = if place == Place::Challenge && body { Want::Ends } else { want };
            let fails = matches!(place, Place::Config | Place::Layer(_))
                && matches!(fault, Fault::Stall | Fault::Longer | Fault::Shorter);
            let want = if fails { Want::Fails } else { want };
            all.push(Case { row, place, fault: fault.clone(), times: usize::MAX, want });
        }
    }
    all
}

/// Asks `/healthz` again and again until it is dropped, and keeps the longest wait.
struct Probe {
    stop: Arc<AtomicBool>,
    task: tokio::task::JoinHandle<Duration>,
}

impl Probe {
    fn start(client: Client) -> Self {
        let stop = Arc::new(AtomicBool::new(false));
        let own = Arc::clone(&stop);
        let task = tokio::spawn(async move {
            let mut longest = Duration::ZERO;
            while !own.load(Ordering::Relaxed) {
                let begun = Instant::now();
                client.get("/healthz").await.expect_status(200);
                longest = longest.max(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(20)).await;
            }
            longest
        });
        Self { stop, task }
    }

    async fn longest(self) -> Duration {
        self.stop.store(true, Ordering::Relaxed);
        self.task.await.expect("the probe")
    }
}

struct Lab {
    server: TestServer,
    registry: Faulty,
    people: [Client; 2],
    probe: Probe,
}

impl Lab {
    async fn start() -> Self {
        let registry = Faulty::start();
        let section = format!(
            "[registries]\ninsecure = [\"{}\"]\nstall_secs = {STALL_SECS}\n{RATES}",
            registry.address
        );
        let server = TestServer::with(Options { sections: section, ..Options::default() }).await;
        let people = [server.person("anna", "user").await, server.person("bert", "user").await];
        let probe = Probe::start(server.anonymous());
        Self { server, registry, people, probe }
    }

    /// Tries all, some at once, and says how each ended: its state, or what is wrong about that.
    async fn run(&self, cases: &[Case]) -> Vec<(Case, String, String)> {
        let mut done = Vec::new();
        for (round, some) in cases.chunks(2 * AT_ONCE).enumerate() {
            let mut tasks = JoinSet::new();
            for (place, case) in some.iter().enumerate() {
                let name = format!("r{round}-{place}");
                let image = image(&format!("{case:?} {name}"));
                self.registry.host(&name, image, case.place, case.fault.clone(), case.times);
                let client = self.people[place % 2].clone();
                let reference = format!("{}/{name}:v1", self.registry.address);
                tasks.spawn(async move { (place, name, pull(&client, &reference).await) });
            }
            while let Some(ended) = tasks.join_next().await {
                let (place, name, operation) = ended.expect("a pull");
                let case = some[place].clone();
                let struck = format!("struck {} times", self.registry.struck(&name));
                done.push((case, seen(&operation), struck));
            }
            self.heal_all(round, some.len()).await;
        }
        done
    }

    async fn heal_all(&self, round: usize, count: usize) {
        self.assert_nothing_half().await;
        for place in 0..count {
            let name = format!("r{round}-{place}");
            self.registry.heal(&name);
            let reference = format!("{}/{name}:v1", self.registry.address);
            let done = pull(&self.people[place % 2], &reference).await;
            assert_eq!(done["state"], "succeeded", "{name}, healed: {done}");
            // What was pulled is of no more use.
            let id = done["result"]["image"].as_str().expect("an image");
            let path = format!("/api/v1/images/{id}");
            self.people[place % 2].delete(&path).await.expect_status(204);
        }
    }

    /// Nothing is on its way in for long, and every blob is its digest's.
    async fn assert_nothing_half(&self) {
        let data = self.server.data_dir();
        let begun = Instant::now();
        for directory in ["layers/tmp", "store/tmp"] {
            // Its other layers' unpackers hear of the failure a moment later.
            while std::fs::read_dir(data.join(directory)).expect("a directory").count() > 0 {
                assert!(begun.elapsed() < Duration::from_secs(5), "{directory} keeps something");
                tokio::time::sleep(Duration::from_millis(10)).await;
            }
        }
        for entry in std::fs::read_dir(data.join("store/blobs/sha256")).expect("the blobs") {
            let path = entry.expect("a blob").path();
            // One whose image was removed goes when it goes.
            let Ok(bytes) = std::fs::read(&path) else { continue };
            let found = sha256(&bytes);
            assert_eq!(found[7..], *path.file_name().expect("its name").to_string_lossy());
        }
    }

    /// Nobody else had to wait.
    async fn end(self) {
        let longest = self.probe.longest().await;
        let word = if longest < ANSWER_LIMIT { "in time".into() } else { format!("{longest:?}") };
        Check { id: "I12", variant: "/healthz meanwhile", control: "" }.sees("in time", word);
    }
}

/// How an operation ended, in a word; what is wrong with how it says so, in more.
fn seen(operation: &Value) -> String {
    let state = operation["state"].as_str().unwrap_or_default().to_owned();
    if state != "failed" {
        return state;
    }
    let code = operation["failure"]["code"].as_str().unwrap_or_default();
    let message = operation["failure"]["message"].as_str().unwrap_or_default();
    let clear = (10..=1_001).contains(&message.chars().count())
        && !message.chars().any(char::is_control)
        && !matches!(code, "" | "internal");
    if clear { state } else { operation.to_string() }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn each_fault_at_each_place_ends_the_pull_and_leaves_nothing() {
    requires_root!();
    let lab = Lab::start().await;
    for (case, state, struck) in lab.run(&sample(&cases(), 24)).await {
        let Case { row, place, fault, want, .. } = case;
        let shown = format!("{fault:?}");
        let variant = format!("{} at {place:?}", shown.chars().take(80).collect::<String>());
        let check = Check { id: row, variant: &variant, control: &struck };
        match want {
            Want::Fails => check.sees("failed", state),
            Want::Succeeds => check.sees("succeeded", state),
            Want::Ends if state == "succeeded" => check.sees("succeeded", state),
            Want::Ends => check.sees("failed", state),
        }
    }
    lab.end().await;
}

/// Cut or reset at each byte of each answer, once: a layer is taken up again, all else fails.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_an_answer_may_end_at_any_byte() {
    requires_root!();
    let lab = Lab::start().await;
    let mut all = Vec::new();
    for place in PLACES {
        lab.registry.host("measure", image("measure"), place, Fault::Mute, 1);
        let bytes = lab.registry.answer_bytes("measure", place);
        let step = if matches!(place, Place::Layer(_)) { 29 } else { 1 };
        for at in (0..bytes).step_by(step).chain([bytes - 1]) {
            for fault in [Fault::Cut(at), Fault::Reset(at)] {
                all.push(Case { row: "I12", place, fault, times: 1, want: Want::Ends });
            }
        }
    }
    let (mut failed, mut succeeded) = (0, 0);
    for (case, state, struck) in lab.run(&sample(&all, 16)).await {
        let variant = format!("{:?} at {:?}, once", case.fault, case.place);
        let check = Check { id: "I12", variant: &variant, control: &struck };
        let ends = matches!(state.as_str(), "failed" | "succeeded");
        (failed, succeeded) = match state.as_str() {
            "failed" => (failed + 1, succeeded),
            _ => (failed, succeeded + 1),
        };
        check.sees("ends", if ends { "ends" } else { state.as_str() });
    }
    assert!(failed > 0, "no cut made a difference; {succeeded} succeeded");
    lab.end().await;
}

/// A registry that says next to nothing can be left at once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_a_pull_that_waits_is_cancelled_within_two_seconds() {
    requires_root!();
    let registry = Faulty::start();
    let section = format!("[registries]\ninsecure = [\"{}\"]\n", registry.address);
    let server = TestServer::with(Options { sections: section, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let mut all = Vec::new();
    for fault in [Fault::Drip, Fault::Stall, Fault::Mute] {
        let places =
            PLACES.into_iter().filter(|place| *place != Place::Challenge || fault == Fault::Mute);
        all.extend(places.map(|place| (fault.clone(), place)));
    }
    for (number, (fault, place)) in sample(&all, 5).into_iter().enumerate() {
        let name = format!("c{number}");
        registry.host(&name, image(&name), place, fault.clone(), usize::MAX);
        let id = begin(&anna, &format!("{}/{name}:v1", registry.address)).await;
        let begun = Instant::now();
        while registry.struck(&name) == 0 {
            assert!(begun.elapsed() < Duration::from_secs(20), "{name} is not asked for");
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
        let cancelled = Instant::now();
        anna.post(&format!("/api/v1/operations/{id}/cancel"), &json!({})).await;
        let done = ended(&anna, &id).await;
        let took = cancelled.elapsed();
        let variant = format!("{fault:?} at {place:?}");
        let in_time =
            if took < Duration::from_secs(2) { "in time".into() } else { format!("{took:?}") };
        Check {
            id: "I12",
            variant: &format!("{variant}, cancelled"),
            control: "it would wait for 30 s",
        }
        .sees(
            "cancelled, in time",
            format!("{}, {in_time}", done["state"].as_str().unwrap_or_default()),
        );
    }
    assert_eq!(anna.get("/api/v1/images").await.json()["items"], json!([]));
}

/// A listener that nobody may connect to.
fn recorder() -> (TcpListener, u16) {
    let recorder = TcpListener::bind("127.0.0.1:0").expect("a port");
    recorder.set_nonblocking(true).expect("it can be asked");
    let port = recorder.local_addr().expect("its address").port();
    (recorder, port)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i09_no_answer_leads_to_where_the_policy_forbids() {
    requires_root!();
    let lab = Lab::start().await;
    let (recorder, port) = recorder();
    let own = lab.server.address.port();
    let mut targets = Vec::new();
    for host in [
        "127.0.0.1",
        "localhost",
        "[::1]",
        "[::ffff:127.0.0.1]",
        "[::ffff:7f00:1]",
        "0.0.0.0",
        "[::]",
        "2130706433",
        "0x7f000001",
        "0177.0.0.1",
        "127.1",
        "a.localhost",
        "[64:ff9b::7f00:1]",
    ] {
        targets.push(format!("https://{host}:{port}/x"));
        targets.push(format!("http://{host}:{port}/x"));
    }
    targets.extend([
        format!("http://127.0.0.1:{own}/api/v1/me"),
        "http://169.254.169.254/latest/meta-data".to_owned(),
        "https://[::ffff:169.254.169.254]/".to_owned(),
        "https://10.0.0.1/".to_owned(),
        "file:///etc/passwd".to_owned(),
        "ftp://127.0.0.1/".to_owned(),
        "unix:/run/berth/supervisor.sock".to_owned(),
        "data:,x".to_owned(),
        format!("http://user:secret@{}/x", lab.registry.address),
        format!("//127.0.0.1:{port}/x"),
        "javascript:alert(1)".to_owned(),
        "http://".to_owned(),
        String::new(),
    ]);
    let mut all = Vec::new();
    for target in targets {
        for place in PLACES {
            let fault = Fault::Redirect(target.clone());
            all.push(Case { row: "I09", place, fault, times: usize::MAX, want: Want::Fails });
        }
        // The way to the token, not a redirect.
        let challenge = format!("Bearer realm=\"{target}\",service=\"x\"");
        let fault = Fault::Header("www-authenticate", challenge);
        all.push(Case {
            row: "I09",
            place: Place::Challenge,
            fault,
            times: usize::MAX,
            want: Want::Fails,
        });
    }
    let tried = sample(&all, 16);
    for (case, state, struck) in lab.run(&tried).await {
        let variant = format!("{:?} at {:?}", case.fault, case.place);
        Check { id: "I09", variant: &variant, control: &struck }.sees("failed", state);
    }
    let met = usize::from(recorder.accept().is_ok());
    let control = "a client without a policy connects";
    Check { id: "I09", variant: "connections to forbidden places", control }.sees(0, met);
    let address = recorder.local_addr().expect("its address");
    let _connection = std::net::TcpStream::connect(address).expect("the control");
    assert!(recorder.accept().is_ok(), "the control: the recorder records");
    lab.end().await;
}

/// Round in circles, and to another registry that the operator lists: never with the credentials.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i09_redirects_end_and_carry_no_credentials_elsewhere() {
    requires_root!();
    let (registry, other) =
        (Faulty::start(), super::registry::Fake::start(image("elsewhere"), |_| None));
    let section =
        format!("[registries]\ninsecure = [\"{}\", \"{}\"]\n", registry.address, other.address);
    let server = TestServer::with(Options { sections: section, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let credentials =
        json!({"registry": registry.address, "username": "anna", "password": "hunter2-marker"});
    anna.put("/api/v1/registries", &credentials).await.expect_status(200);
    for (number, place) in PLACES.into_iter().enumerate() {
        let name = format!("loop{number}");
        let image = image(&name);
        let path = match place {
            Place::Token => format!("/token/{name}"),
            Place::Layer(layer) => format!("/v2/{name}/blobs/{}", image.layers[layer]),
            _ => format!("/v2/{name}/manifests/v1"),
        };
        let round = Fault::Redirect(format!("http://{}{path}", registry.address));
        registry.host(&name, image.clone(), place, round, usize::MAX);
        let done = pull(&anna, &format!("{}/{name}:v1", registry.address)).await;
        let struck = format!("struck {} times", registry.struck(&name));
        Check { id: "I09", variant: &format!("in a circle at {place:?}"), control: &struck }
            .sees("failed", seen(&done));
        assert!(registry.struck(&name) <= 40, "{name}: {struck}");
        let away = Fault::Redirect(format!("http://{}{path}", other.address));
        let name = format!("away{number}");
        registry.host(&name, image, place, away, usize::MAX);
        pull(&anna, &format!("{}/{name}:v1", registry.address)).await;
        assert!(registry.struck(&name) > 0, "{name} was not asked for");
    }
    let met = other.seen.lock().expect("the log").clone();
    assert!(!met.is_empty(), "the control: it was led there");
    let told: Vec<_> = met.iter().filter(|seen| seen.headers.contains("authorization")).collect();
    Check { id: "I09", variant: "Authorization to another host", control: "it was led there" }
        .finds_nothing(&told);
}
