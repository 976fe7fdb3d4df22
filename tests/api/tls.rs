//! TLS: the operator's own pair and its reload, the generated one, cookies and HSTS beside plain
//! loopback, broken handshakes.

use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::{Value, json};
use sha2::{Digest, Sha256};
use system_tests::certificates::{Authority, put, this_year, trusting, with_tls};
use system_tests::client::send;
use system_tests::instance::{PASSWORD, free_address};
use system_tests::{Answer, Client, TestServer, programs, requires_root};

const LIMIT: Duration = Duration::from_secs(30);

/// The certificate that the server shows now, as `openssl x509 -fingerprint` writes it.
async fn shown(client: &Client) -> String {
    let response = client.raw("GET", "/healthz").send().await.expect("the server answers");
    let info = response.extensions().get::<reqwest::tls::TlsInfo>().expect("TLS was spoken");
    fingerprint(info.peer_certificate().expect("a certificate was shown"))
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = Sha256::digest(certificate);
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

async fn sign_in(client: &Client, name: &str) -> Answer {
    let body = json!({"name": name, "password": PASSWORD});
    client.post("/api/v1/sessions", &body).await
}

async fn certificate_of(server: &TestServer) -> Value {
    let state = server.root().get("/api/v1/system/network").await.expect_status(200).json();
    state["certificate"].clone()
}

fn hang_up(server: &TestServer) {
    let pid = server.server_pid().expect("the server runs");
    kill(Pid::from_raw(i32::try_from(pid).expect("a pid")), Signal::SIGHUP).expect("signal it");
}

async fn until(what: &str, done: impl AsyncFn() -> bool) {
    let deadline = Instant::now() + LIMIT;
    while !done().await {
        assert!(Instant::now() < deadline, "{what}: not in time");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

#[tokio::test]
async fn sessions_of_tls_and_of_loopback_stand_side_by_side() {
    requires_root!();
    let authority = Authority::new();
    authority.install(&authority.good(&["berth.lab"]));
    let address = free_address();
    let server = TestServer::with(with_tls(address, "", authority.section(""))).await;
    let secure = authority.client("berth.lab", address);

    let answer = sign_in(&secure, "olga").await.expect_status(201);
    let prefix = format!("__Host-{}_", server.instance);
    let cookies: Vec<&str> =
        answer.headers.get_all("set-cookie").iter().filter_map(|v| v.to_str().ok()).collect();
    assert_eq!(cookies.len(), 2, "{cookies:?}");
    for cookie in cookies {
        assert!(cookie.starts_with(&prefix) && cookie.contains("; Path=/;"), "{cookie}");
        assert!(cookie.contains("; Secure") && !cookie.contains("Domain"), "{cookie}");
    }
    assert_eq!(answer.header("strict-transport-security"), "max-age=15552000");
    let by_tls = secure.with_cookies_of(&answer);
    let plain = server.sign_in("olga", PASSWORD).await.expect_status(201);
    assert_eq!(plain.header("strict-transport-security"), "", "HSTS on loopback");
    let by_loopback = server.anonymous().with_cookies_of(&plain);
    assert!(!by_loopback.cookie().contains("__Host-"), "{}", by_loopback.cookie());
    for client in [&by_tls, &by_loopback] {
        client.get("/api/v1/me").await.expect_status(200);
    }
    // A name that somebody on the wire could write into a browser is nobody's over TLS.
    let planted = by_loopback.cookie().to_owned();
    assert_eq!(secure.with_cookie(&planted).get("/api/v1/me").await.status, 401);
    // Changing something needs our own origin, and over TLS one of TLS.
    for (origin, status) in [("https", 201), ("http", 403)] {
        let origin = format!("{origin}://berth.lab:{}", address.port());
        let body = json!({"name": "laptop", "scope": "read", "days": 1});
        let request = by_tls.raw("POST", "/api/v1/tokens").header("origin", &origin).json(&body);
        assert_eq!(send(request).await.status, status, "{origin}");
    }
    // Signing out of one leaves the other.
    by_tls.delete("/api/v1/me/session").await.expect_status(204);
    assert_eq!(by_tls.get("/api/v1/me").await.status, 401);
    by_loopback.get("/api/v1/me").await.expect_status(200);
    // Plain HTTP on the TLS address gets no answer in HTTP.
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.write_all(b"GET /healthz HTTP/1.1\r\nHost: berth.lab\r\n\r\n").expect("send");
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    assert!(!answer.starts_with(b"HTTP/"), "{answer:?}");
}

#[tokio::test]
async fn only_names_of_the_certificate_and_the_configuration_are_answered() {
    requires_root!();
    let authority = Authority::new();
    authority.install(&authority.good(&["berth.lab", "*.wild.lab", "127.0.0.1"]));
    let address = free_address();
    let options = with_tls(address, "hosts = [\"other.lab\"]", authority.section(""));
    let server = TestServer::with(options).await;
    let status = async |host: &str| {
        let request = authority.client("berth.lab", address).raw("GET", "/healthz");
        send(request.header("host", host)).await.status
    };
    for host in ["berth.lab", "BERTH.lab:443", "other.lab", "127.0.0.1", "localhost"] {
        assert_eq!(status(host).await, 200, "{host}");
    }
    for host in ["a.wild.lab", "*.wild.lab", "stranger.example", "192.0.2.1", "berth.lab.evil"] {
        assert_eq!(status(host).await, 421, "{host}");
    }
    // The certificate's names hold on TLS only: in plain HTTP nothing proves them.
    let request = server.anonymous().raw("GET", "/healthz").header("host", "berth.lab");
    assert_eq!(send(request).await.status, 421);
    // Whoever asks learns no name; the operator's log says what to configure.
    let request = server.anonymous().raw("GET", "/healthz").header("host", "stranger.example");
    let answer = send(request).await;
    assert!(!answer.text.contains("other.lab") && answer.code() == "host.unknown", "{answer:?}");
    let log = server.server_log();
    assert!(log.contains("server.hosts") && log.contains("a.wild.lab"), "{log}");
    // No HSTS for an address: it would mean every service there.
    let by_address = authority.client("127.0.0.1", address);
    let answer = by_address.get("/healthz").await.expect_status(200);
    assert_eq!(answer.header("strict-transport-security"), "");
}

#[tokio::test]
async fn a_new_pair_is_taken_without_a_restart_and_a_bad_one_refused() {
    requires_root!();
    let authority = Authority::new();
    let first = authority.good(&["berth.lab"]);
    authority.install(&first);
    let address = free_address();
    let server = TestServer::with(with_tls(address, "", authority.section(""))).await;
    // A client each: one that comes back may resume its session, and is shown nothing then.
    let now = async || shown(&authority.client("berth.lab", address)).await;
    let pid = server.server_pid();
    let old = now().await;
    // Bad ones: a key that is another's, half a file, one whose time is over, nothing.
    let other = authority.good(&["berth.lab"]);
    let over = authority.pair(&["berth.lab"], this_year() - 5);
    for (name, certificate, key, words) in [
        ("another's key", &first.certificate, &other.key, "is no key for"),
        ("half a file", &first.certificate[..200].to_owned(), &first.key, "PEM"),
        ("over", &over.certificate, &over.key, "the certificate ended at"),
        ("empty", &String::new(), &first.key, "no certificate"),
    ] {
        put(&authority.certificate_path(), certificate, 0o644);
        put(&authority.key_path(), key, 0o600);
        hang_up(&server);
        until(name, async || {
            let why = certificate_of(&server).await["refused"]["why"].clone();
            why.as_str().is_some_and(|why| why.contains(words))
        })
        .await;
        assert_eq!(now().await, old, "{name}: it took the old one's place");
    }
    assert!(server.server_log().contains("was refused; the old one stays"));
    // The controls: a good one, by the signal; another, by looking at the files.
    authority.install(&other);
    hang_up(&server);
    until("a new pair", async || now().await != old).await;
    assert!(certificate_of(&server).await["refused"].is_null());
    let second = now().await;
    authority.install(&authority.good(&["berth.lab"]));
    until("a change that nobody signalled", async || now().await != second).await;
    assert_eq!(server.server_pid(), pid, "it was restarted");
}

#[tokio::test]
async fn without_a_pair_one_is_made_kept_shown_and_renewed() {
    requires_root!();
    let address = free_address();
    let options = with_tls(address, "hosts = [\"berth.lab\"]", String::new());
    let server = TestServer::with(options).await;
    let file = server.data_dir().join("db/tls-generated.pem");
    let about = std::fs::metadata(&file).expect("it is there");
    assert_eq!(about.permissions().mode() & 0o777, 0o600);
    let made = pem(&std::fs::read_to_string(&file).expect("it reads"));
    // It vouches for itself: for the configured name, for localhost and for the address.
    for name in ["berth.lab", "localhost", "127.0.0.1"] {
        let client = trusting(&made, name, address);
        let answer = client.get("/healthz").await.expect_status(200);
        // Nobody could get past the warning that comes with its renewal.
        assert_eq!(answer.header("strict-transport-security"), "", "{name}");
    }
    let fingerprint = fingerprint(&made);
    assert_eq!(shown(&trusting(&made, "berth.lab", address)).await, fingerprint);
    let output = Command::new(programs::berth())
        .args(["certificate", "--config"])
        .arg(server.config_path())
        .output()
        .expect("run berth certificate");
    let said = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(said.contains(&fingerprint) && said.contains("berth.lab"), "{said}");
    assert!(server.server_log().contains(&fingerprint), "the log does not show it");
    // A restart keeps it.
    server.stop_server();
    server.start_server().await;
    assert_eq!(certificate_of(&server).await["fingerprint_sha256"], json!(fingerprint));
    // Near its end it is made anew, while the server runs.
    let authority = Authority::new();
    let names = ["berth.lab", "localhost", "127.0.0.1"];
    let ending = authority.pair(&names, this_year() - 2);
    put(&file, &format!("{}{}", ending.certificate, ending.key), 0o600);
    hang_up(&server);
    until("the old one is refused or replaced", async || {
        let now = certificate_of(&server).await;
        now["refused"].is_object() || now["fingerprint_sha256"] != json!(fingerprint)
    })
    .await;
    server.stop_server();
    server.start_server().await;
    let renewed = pem(&std::fs::read_to_string(&file).expect("it reads"));
    trusting(&renewed, "berth.lab", address).get("/healthz").await.expect_status(200);
    assert_ne!(shown(&trusting(&renewed, "berth.lab", address)).await, fingerprint);
}

/// The first block of a PEM file in DER, by the decoder of openssl.
fn pem(text: &str) -> Vec<u8> {
    let path = std::env::temp_dir().join(format!("berth-pem-{}", std::process::id()));
    std::fs::write(&path, text).expect("write a file");
    let output = Command::new("openssl")
        .args(["x509", "-outform", "der", "-in"])
        .arg(&path)
        .output()
        .expect("run openssl");
    drop(std::fs::remove_file(path));
    assert!(output.status.success(), "{output:?}");
    output.stdout
}

#[tokio::test]
async fn hsts_is_the_operators_choice() {
    requires_root!();
    let authority = Authority::new();
    authority.install(&authority.good(&["berth.lab"]));
    for (own, hsts, expected) in [(true, "never", ""), (false, "always", "max-age=15552000")] {
        let address = free_address();
        let line = format!("hsts = {hsts:?}");
        let section = if own { authority.section(&line) } else { format!("[tls]\n{line}\n") };
        let options = with_tls(address, "hosts = [\"berth.lab\"]", section);
        let server = TestServer::with(options).await;
        let client = if own {
            authority.client("berth.lab", address)
        } else {
            let file = server.data_dir().join("db/tls-generated.pem");
            let made = std::fs::read_to_string(file).expect("it reads");
            trusting(&pem(&made), "berth.lab", address)
        };
        let answer = client.get("/healthz").await.expect_status(200);
        assert_eq!(answer.header("strict-transport-security"), expected, "own {own}, {hsts}");
    }
}

#[tokio::test]
async fn old_versions_are_not_spoken() {
    requires_root!();
    let address = free_address();
    let _server = TestServer::with(with_tls(address, "", String::new())).await;
    let speaks = |version: &str| {
        let output = Command::new("openssl")
            .args(["s_client", version, "-cipher", "ALL:@SECLEVEL=0", "-connect"])
            .arg(address.to_string())
            .stdin(std::process::Stdio::null())
            .output()
            .expect("run openssl");
        let text = String::from_utf8_lossy(&output.stdout).into_owned();
        text.contains("BEGIN CERTIFICATE")
    };
    for version in ["-tls1", "-tls1_1"] {
        assert!(!speaks(version), "{version}");
    }
    for version in ["-tls1_2", "-tls1_3"] {
        assert!(speaks(version), "the control {version}");
    }
}

#[tokio::test]
async fn slow_handshakes_are_few_and_end() {
    requires_root!();
    let authority = Authority::new();
    authority.install(&authority.good(&["berth.lab"]));
    let address = free_address();
    let section = authority.section("handshakes_max = 8");
    let server = TestServer::with(with_tls(address, "", section)).await;
    let client = authority.client("berth.lab", address);
    client.get("/healthz").await.expect_status(200);
    let silent: Vec<TcpStream> =
        (0..8).map(|_| TcpStream::connect(address).expect("connect")).collect();
    let start = Instant::now();
    // One more is closed at once instead of waiting.
    until("the places are taken", async || closed_within(address, Duration::from_secs(2))).await;
    assert!(client.raw("GET", "/healthz").send().await.is_err(), "there was a place");
    // Who has an address of its own is not hindered: plain loopback answers.
    server.anonymous().get("/healthz").await.expect_status(200);
    until("the silent ones are cut", async || client.raw("GET", "/healthz").send().await.is_ok())
        .await;
    assert!(start.elapsed() > Duration::from_secs(5), "they were cut before their time");
    drop(silent);
    // Nonsense ends at once, and is nobody else's trouble.
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.write_all(&[0x16; 4096]).expect("send");
    let mut answer = Vec::new();
    drop(stream.read_to_end(&mut answer));
    client.get("/healthz").await.expect_status(200);
}

/// Whether a new connection that says nothing is closed by the server within a time.
fn closed_within(address: SocketAddr, limit: Duration) -> bool {
    let mut stream = TcpStream::connect(address).expect("connect");
    stream.set_read_timeout(Some(limit)).expect("limit the wait");
    let mut byte = [0];
    match stream.read(&mut byte) {
        Ok(0) => true,
        Ok(_) => false,
        Err(error) => error.kind() == std::io::ErrorKind::ConnectionReset,
    }
}

#[tokio::test]
async fn a_pair_that_cannot_be_served_is_refused_at_start() {
    requires_root!();
    let authority = Authority::new();
    let good = authority.good(&["berth.lab"]);
    authority.install(&good);
    let address = free_address();
    let server = TestServer::with(with_tls(address, "", authority.section(""))).await;
    server.stop_server();
    let serve = || {
        let output = Command::new("timeout")
            .args(["3", "setpriv", "--reuid=65534", "--regid=65534", "--clear-groups"])
            .arg(programs::berth())
            .args(["serve", "--config"])
            .arg(server.config_path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .expect("run berth serve");
        (output.status.code(), String::from_utf8_lossy(&output.stderr).into_owned())
    };
    put(&authority.key_path(), &authority.good(&["berth.lab"]).key, 0o600);
    let (code, said) = serve();
    assert!(code == Some(1) && said.contains("is no key for"), "{said}");
    put(&authority.key_path(), &good.key, 0o600);
    std::os::unix::fs::chown(authority.key_path(), Some(0), Some(0)).expect("take it");
    let (code, said) = serve();
    assert!(code == Some(1) && said.contains("must be allowed to"), "{said}");
    put(&authority.key_path(), &good.key, 0o600);
    let (code, said) = serve();
    assert!(code == Some(124) && said.contains("ready"), "the control: {said}");
}
