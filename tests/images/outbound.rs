//! The way to registries: token services, the lab's proxy and authority, and that nobody else can
//! use it.

use std::io::{BufRead, BufReader, Read, Write};
use std::net::{Shutdown, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};

use serde_json::json;
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Options, TestServer, requires_root};

use super::registry::{Authority, DockerRegistry, Fake, Image, Reply, pull};

async fn server_with(section: String) -> TestServer {
    TestServer::with(Options { sections: section, ..Options::default() }).await
}

/// A registry that wants a token from `realm`, and the sections that list both.
fn asking(image: &Image, realm: &Fake) -> (Fake, String) {
    let challenge = format!("Bearer realm=\"http://{}/token\",service=\"s\"", realm.address);
    let asked = AtomicUsize::new(0);
    let fake = Fake::start(image.clone(), move |_| {
        let first = asked.fetch_add(1, Ordering::SeqCst) == 0;
        first.then(|| Reply::status(401).header("www-authenticate", &challenge))
    });
    let section =
        format!("[registries]\ninsecure = [\"{}\", \"{}\"]\n", fake.address, realm.address);
    (fake, section)
}

#[tokio::test]
async fn a_token_service_gets_the_password_and_the_registry_the_token() {
    requires_root!();
    let image = Image::small("x");
    let realm = Fake::start(image.clone(), |_| Some(Reply::ok(r#"{"access_token": "t0ken"}"#)));
    let (fake, section) = asking(&image, &realm);
    let server = server_with(section).await;
    let anna = server.person("anna", "user").await;
    let credentials = json!({"registry": fake.address, "username": "a", "password": "b"});
    anna.put("/api/v1/registries", &credentials).await.expect_status(200);
    let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let tokens = realm.seen.lock().expect("the log").clone();
    assert_eq!(tokens.len(), 1, "one token serves the whole pull: {tokens:?}");
    assert!(tokens[0].line.contains("scope=repository%3Aapp%3Apull"), "{tokens:?}");
    assert!(tokens[0].line.contains("service=s"), "{tokens:?}");
    // a:b, in lower case as the log keeps headers.
    assert!(tokens[0].headers.contains("authorization: basic ytpi"), "{tokens:?}");
    let seen = fake.seen.lock().expect("the log").clone();
    assert!(!seen[0].headers.contains("authorization"), "{seen:?}");
    assert!(seen.len() >= 4);
    for request in &seen[1..] {
        assert!(request.headers.contains("authorization: bearer t0ken"), "{request:?}");
        assert!(!request.headers.contains("proxy-authorization"), "{request:?}");
    }
}

#[tokio::test]
async fn hostile_token_services_end_a_pull_and_nothing_else() {
    requires_root!();
    let image = Image::small("x");
    let long = format!("{{\"token\": \"{}\"}}", "x".repeat(1 << 20));
    let cases: Vec<(&str, Reply, &str)> = vec![
        ("a newline", Reply::ok(r#"{"token": "a\r\nx-injected: 1"}"#), "registry.broken"),
        ("no ASCII", Reply::ok("{\"token\": \"\u{e9}\"}"), "registry.broken"),
        ("no JSON", Reply::ok("token"), "registry.broken"),
        ("none", Reply::ok("{}"), "registry.broken"),
        ("1 MiB", Reply::ok(long), "image.too-large"),
        ("503", Reply::status(503), "registry.broken"),
        ("429", Reply::status(429), "registry.rate-limited"),
        ("403", Reply::status(403), "registry.refused"),
        (
            "led away",
            Reply::status(302).header("location", "http://169.254.169.254/"),
            "registry.forbidden",
        ),
    ];
    for (name, reply, code) in cases {
        let reply = Mutex::new(Some(reply));
        let realm = Fake::start(image.clone(), move |_| {
            let first = reply.lock().expect("it").take();
            Some(first.unwrap_or_else(|| Reply::status(500)))
        });
        let challenge = format!("Bearer realm=\"http://{}/token\"", realm.address);
        let fake = Fake::start(image.clone(), move |_| {
            Some(Reply::status(401).header("www-authenticate", &challenge))
        });
        let section =
            format!("[registries]\ninsecure = [\"{}\", \"{}\"]\n", fake.address, realm.address);
        let server = server_with(section).await;
        let pid = server.server_pid();
        let anna = server.person("anna", "user").await;
        let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
        assert_eq!(done["failure"]["code"], code, "{name}: {done}");
        server.anonymous().get("/readyz").await.expect_status(200);
        assert_eq!(server.server_pid(), pid, "{name}");
        assert!(!server.server_log().contains("panicked"), "{name}");
    }
    // The control: a good token from the same places.
    let realm = Fake::start(image.clone(), |_| Some(Reply::ok(r#"{"token": "good"}"#)));
    let (fake, section) = asking(&image, &realm);
    let server = server_with(section).await;
    let anna = server.person("anna", "user").await;
    let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
    assert_eq!(done["state"], "succeeded", "{done}");
}

/// I09: where else a layer might be had (`urls` of its descriptor, OCI image-spec) is not asked.
#[tokio::test]
async fn i09_the_urls_of_a_layer_lead_nowhere() {
    requires_root!();
    let elsewhere = Fake::start(Image::small("x"), |_| None);
    let kinds = ["tar", "nondistributable.v1.tar"];
    for (number, kind) in kinds.iter().enumerate() {
        for has_blob in [true, false] {
            let mut image = Image::small(&format!("{number}{has_blob}"));
            image.change_layers(|layer| {
                let digest = layer["digest"].clone();
                let name = digest.as_str().expect("a digest");
                layer["urls"] = json!([format!("http://{}/v2/x/blobs/{name}", elsewhere.address)]);
                layer["mediaType"] = format!("application/vnd.oci.image.layer.{kind}")
                    .replace("layer.tar", "layer.v1.tar")
                    .into();
            });
            if !has_blob {
                image.blobs.remove(&image.layers[1].clone());
            }
            let fake = Fake::start(image, |_| None);
            let section = format!(
                "[registries]\ninsecure = [\"{}\", \"{}\"]\n",
                fake.address, elsewhere.address
            );
            let server = server_with(section).await;
            let anna = server.person("anna", "user").await;
            let done = pull(&anna, &format!("{}/app:v1", fake.address)).await;
            let asked = elsewhere.lines();
            let variant = format!("urls of a layer, {kind}, has it itself: {has_blob}");
            let control = format!("the pull {}; the registry itself was asked", done["state"]);
            assert!(!fake.lines().is_empty(), "the control: {done}");
            Check { id: "I09", variant: &variant, control: &control }.finds_nothing(&asked);
            let may = if has_blob { &["succeeded", "failed"][..] } else { &["failed"] };
            assert!(may.iter().any(|state| done["state"] == *state), "{done}");
        }
    }
    // The control: asked for, the place has it.
    let image = Image::small("x");
    let anonymous = Client::anonymous(&format!("http://{}", elsewhere.address));
    anonymous.get(&format!("/v2/x/blobs/{}", image.layers[1])).await.expect_status(200);
    assert_eq!(elsewhere.lines().len(), 1, "the control is seen");
}

#[tokio::test]
async fn credentials_say_when_the_registry_or_the_server_has_lost_them() {
    requires_root!();
    let Some(registry) = DockerRegistry::start(Some(("lab", "right"))) else { return };
    registry.push(&Image::small("x"), "app", "v1");
    let server = server_with(registry.section()).await;
    let anna = server.person("anna", "user").await;
    let reference = format!("{}/app:v1", registry.address);
    let set = async |client: &Client, password: &str| {
        let body = json!({"registry": registry.address, "username": "lab", "password": password});
        client.put("/api/v1/registries", &body).await.expect_status(200).json()
    };
    let shown = async |client: &Client| {
        client.get("/api/v1/registries").await.expect_status(200).json()["items"][0].clone()
    };
    let anonymous = pull(&anna, &reference).await;
    assert_eq!(anonymous["failure"]["code"], "registry.refused", "{anonymous}");
    assert_eq!(set(&anna, "right").await["state"], "good");
    assert_eq!(pull(&anna, &reference).await["state"], "succeeded");
    assert_eq!(shown(&anna).await["state"], "good");

    set(&anna, "wrong").await;
    let refused = pull(&anna, &reference).await;
    assert_eq!(refused["failure"]["code"], "registry.refused", "{refused}");
    let first = shown(&anna).await;
    assert_eq!(first["state"], "refused", "{first}");
    assert!(first["refused_at"].is_string(), "{first}");
    pull(&anna, &reference).await;
    assert_eq!(shown(&anna).await["refused_at"], first["refused_at"], "since the first time");
    let events = anna.get("/api/v1/events?limit=50").await.expect_status(200).json();
    let told = events["items"].as_array().expect("events").iter();
    assert_eq!(told.filter(|event| event["kind"] == "registry.credentials.refused").count(), 1);
    assert_eq!(set(&anna, "right").await["state"], "good");

    server.stop_server();
    std::fs::remove_file(server.data_dir().join("db/token.key")).expect("the key");
    server.start_server().await;
    let answer = server.sign_in("anna", PASSWORD).await.expect_status(201);
    let anna = server.anonymous().with_cookies_of(&answer);
    assert_eq!(shown(&anna).await["state"], "lost");
    let lost = pull(&anna, &reference).await;
    assert_eq!(lost["failure"]["code"], "registry.credentials-lost", "{lost}");
    assert_eq!(set(&anna, "right").await["state"], "good");
    assert_eq!(pull(&anna, &reference).await["state"], "succeeded");
}

#[tokio::test]
async fn the_labs_own_authority_is_trusted_when_the_operator_names_it() {
    requires_root!();
    let authority = Authority::new(&["localhost"]);
    let Some(registry) = DockerRegistry::start_tls(&authority) else { return };
    registry.push(&Image::small("x"), "app", "v1");
    let port = registry.address.rsplit_once(':').expect("a port").1;
    let address = format!("localhost:{port}");
    let section = format!("[registries]\ninternal = [\"{address}\"]\n");
    let trusting = format!("{section}ca_file = \"{}\"\n", authority.ca.display());
    for (section, state) in [(section, "failed"), (trusting, "succeeded")] {
        let server = server_with(section).await;
        let anna = server.person("anna", "user").await;
        let done = pull(&anna, &format!("{address}/app:v1")).await;
        assert_eq!(done["state"], state, "{done}");
        if state == "failed" {
            assert_eq!(done["failure"]["code"], "registry.unreachable", "{done}");
        }
    }
}

/// What a proxy was asked, and with which credentials.
type Asked = Arc<Mutex<Vec<(String, String)>>>;

/// A proxy that connects everybody to `registry`, whatever they ask for.
fn proxy(registry: SocketAddr) -> (SocketAddr, Asked) {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let address = listener.local_addr().expect("its address");
    let asked: Asked = Arc::default();
    let log = Arc::clone(&asked);
    std::thread::spawn(move || {
        for client in listener.incoming().flatten() {
            let log = Arc::clone(&log);
            // A client that hangs up ends its own thread only.
            std::thread::spawn(move || drop(tunnel(client, registry, &log)));
        }
    });
    (address, asked)
}

fn tunnel(client: TcpStream, registry: SocketAddr, log: &Asked) -> std::io::Result<()> {
    let mut reader = BufReader::new(client.try_clone()?);
    let mut line = String::new();
    reader.read_line(&mut line)?;
    let mut credentials = String::new();
    loop {
        let mut header = String::new();
        if reader.read_line(&mut header)? <= 2 {
            break;
        }
        if header.to_ascii_lowercase().starts_with("proxy-authorization:") {
            header.trim().clone_into(&mut credentials);
        }
    }
    log.lock().expect("the log").push((line.trim().to_owned(), credentials));
    let mut up = TcpStream::connect(registry)?;
    let (mut down, mut back) = (client.try_clone()?, up.try_clone()?);
    down.write_all(b"HTTP/1.1 200 ok\r\n\r\n")?;
    std::thread::spawn(move || {
        drop(std::io::copy(&mut back, &mut down));
        drop(down.shutdown(Shutdown::Write));
    });
    std::io::copy(&mut reader, &mut up)?;
    up.shutdown(Shutdown::Write)
}

#[tokio::test]
async fn public_registries_are_reached_through_the_labs_proxy() {
    requires_root!();
    let authority = Authority::new(&["registry.example"]);
    let Some(registry) = DockerRegistry::start_tls(&authority) else { return };
    registry.push(&Image::small("x"), "app", "v1");
    let (address, asked) = proxy(registry.address.parse().expect("an address"));
    let secret = authority.ca.with_file_name("credentials");
    std::fs::write(&secret, "lab:pass\n").expect("a file");
    let section = format!(
        "[registries]\nca_file = \"{}\"\nproxy = \"http://{address}\"\n\
         proxy_credentials_file = \"{}\"\n",
        authority.ca.display(),
        secret.display()
    );
    let server = server_with(section).await;
    let anna = server.person("anna", "user").await;
    let done = pull(&anna, "registry.example/app:v1").await;
    assert_eq!(done["state"], "succeeded", "{done}");
    let seen = asked.lock().expect("the log").clone();
    assert!(!seen.is_empty());
    for (line, credentials) in &seen {
        assert_eq!(line, "CONNECT registry.example:443 HTTP/1.1");
        // lab:pass
        assert!(credentials.ends_with("Basic bGFiOnBhc3M="), "{credentials}");
    }
    // Its own network is not reached through it.
    for reference in ["localhost:1/app:v1", "127.0.0.1:1/app:v1", "169.254.169.254/app:v1"] {
        let done = pull(&anna, reference).await;
        assert_eq!(done["failure"]["code"], "registry.forbidden", "{reference}: {done}");
    }
    assert_eq!(asked.lock().expect("the log").len(), seen.len());
    // The control: without the proxy the name leads nowhere.
    let server = server_with(String::new()).await;
    let anna = server.person("anna", "user").await;
    let done = pull(&anna, "registry.example/app:v1").await;
    assert_eq!(done["state"], "failed", "{done}");
}

/// Loopback ports that a process listens on, as the kernel shows them.
fn listening(pid: u32) -> Vec<u16> {
    let links = std::fs::read_dir(format!("/proc/{pid}/fd")).expect("descriptors");
    let sockets: Vec<String> = links
        .filter_map(|link| std::fs::read_link(link.ok()?.path()).ok()?.to_str().map(str::to_owned))
        .filter_map(|link| Some(link.strip_prefix("socket:[")?.strip_suffix(']')?.to_owned()))
        .collect();
    let table = std::fs::read_to_string(format!("/proc/{pid}/net/tcp")).expect("a table");
    table
        .lines()
        .skip(1)
        .filter_map(|line| {
            let words: Vec<&str> = line.split_whitespace().collect();
            let own = words[3] == "0A" && sockets.iter().any(|inode| inode == words[9]);
            let port = u16::from_str_radix(words[1].split_once(':')?.1, 16).ok()?;
            own.then_some(port)
        })
        .collect()
}

#[tokio::test]
async fn nobody_else_passes_through_the_gateway() {
    requires_root!();
    let image = Image::small("x");
    let fake = Fake::start(image, |_| None);
    let server = server_with(fake.section()).await;
    let pid = server.server_pid().expect("a server");
    let own: u16 = server.url().rsplit_once(':').expect("a port").1.parse().expect("a number");
    let ports: Vec<u16> = listening(pid).into_iter().filter(|port| *port != own).collect();
    assert_eq!(ports.len(), 1, "the gateway is the only other port: {ports:?}");
    let target = &fake.address;
    for request in [
        format!("GET http://{target}/v2/app/manifests/v1 HTTP/1.1\r\nHost: {target}\r\n"),
        format!(
            "GET http://{target}/v2/ HTTP/1.1\r\nHost: {target}\r\n\
             Proxy-Authorization: Basic YmVydGg6YmVydGg=\r\n"
        ),
        format!("CONNECT {target} HTTP/1.1\r\nHost: {target}\r\n"),
    ] {
        let mut stream = TcpStream::connect(("127.0.0.1", ports[0])).expect("a connection");
        stream.set_read_timeout(Some(std::time::Duration::from_secs(20))).expect("a limit");
        stream.write_all(format!("{request}Connection: close\r\n\r\n").as_bytes()).expect("sent");
        let mut answer = String::new();
        stream.read_to_string(&mut answer).expect("an answer");
        assert!(answer.starts_with("HTTP/1.1 407 "), "{request}{answer}");
    }
    assert!(fake.lines().is_empty());
    // The control: a pull passes.
    let anna = server.person("anna", "user").await;
    let done = pull(&anna, &format!("{target}/app:v1")).await;
    assert_eq!(done["state"], "succeeded", "{done}");
    assert!(!fake.lines().is_empty());
}
