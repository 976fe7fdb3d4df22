//! A real `docker-registry` on loopback, images to push to it, and a registry of our own that
//! misbehaves as told.

use std::collections::HashMap;
use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::{TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{Client, programs};

use super::support::{Entry, Scratch, archive, sha256};

pub(crate) const OCI_MANIFEST: &str = "application/vnd.oci.image.manifest.v1+json";
pub(crate) const OCI_INDEX: &str = "application/vnd.oci.image.index.v1+json";
const LIMIT: Duration = Duration::from_secs(60);
/// Lines that let one person try as much as tests do.
pub(crate) const RATES: &str =
    "[rates]\ncostly_per_min = 1000000\nchanges_per_min = 1000000\nperson_per_min = 1000000\n";

/// An image in memory: blobs by digest, and the digest of its manifest or index.
#[derive(Clone, Default)]
pub(crate) struct Image {
    pub blobs: HashMap<String, Vec<u8>>,
    pub top: String,
    pub top_type: String,
    /// Layer digests, lowest first.
    pub layers: Vec<String>,
}

impl Image {
    /// An image with a plain layer for each archive.
    pub(crate) fn of(layers: &[Vec<u8>], architecture: &str) -> Self {
        let mut image = Self { top_type: OCI_MANIFEST.into(), ..Self::default() };
        image.layers = layers.iter().map(|layer| image.add(layer.clone())).collect();
        let config = json!({"architecture": architecture, "os": "linux",
            "config": {"Cmd": ["/bin/sh"], "Env": ["A=b"], "WorkingDir": "/w", "User": "1:1"},
            "rootfs": {"type": "layers", "diff_ids": image.layers},
            "history": [{"created_by": "made by a test"}]});
        let config = image.add(config.to_string().into_bytes());
        image.set_manifest(&config);
        image
    }

    pub(crate) fn small(marker: &str) -> Self {
        let base = archive(&[Entry::dir("bin"), Entry::file("bin/sh", b"#!").mode(0o755)]);
        let own = archive(&[Entry::file("marker", marker.as_bytes())]);
        Self::of(&[base, own], host_architecture())
    }

    pub(crate) fn index(of: &[(&str, &Self)]) -> Self {
        let mut index = Self { top_type: OCI_INDEX.into(), ..Self::default() };
        let mut manifests = Vec::new();
        for (architecture, image) in of {
            index.blobs.extend(image.blobs.clone());
            let size = image.blobs[&image.top].len();
            manifests.push(json!({"mediaType": OCI_MANIFEST, "digest": image.top, "size": size,
                "platform": {"os": "linux", "architecture": architecture}}));
        }
        let document = json!({"schemaVersion": 2, "mediaType": OCI_INDEX, "manifests": manifests});
        index.top = index.add(document.to_string().into_bytes());
        index
    }

    pub(crate) fn add(&mut self, bytes: Vec<u8>) -> String {
        let digest = sha256(&bytes);
        self.blobs.insert(digest.clone(), bytes);
        digest
    }

    fn set_manifest(&mut self, config: &str) {
        let describe = |kind: &str, digest: &str| json!({"mediaType": kind, "digest": digest, "size": self.blobs[digest].len()});
        let kind = "application/vnd.oci.image.layer.v1.tar";
        let layers: Vec<Value> = self.layers.iter().map(|layer| describe(kind, layer)).collect();
        let config = describe("application/vnd.oci.image.config.v1+json", config);
        let document = json!({"schemaVersion": 2, "mediaType": OCI_MANIFEST, "config": config,
            "layers": layers});
        self.top = self.add(document.to_string().into_bytes());
    }

    /// The same, with other descriptors of its layers in the manifest.
    pub(crate) fn change_layers(&mut self, change: impl FnMut(&mut Value)) {
        let mut document: Value =
            serde_json::from_slice(&self.blobs[&self.top]).expect("a manifest");
        document["layers"].as_array_mut().expect("layers").iter_mut().for_each(change);
        self.top = self.add(document.to_string().into_bytes());
    }

    /// As an OCI layout in a directory.
    pub(crate) fn write_layout(&self, directory: &Path, tag: &str) {
        let blobs = directory.join("blobs/sha256");
        fs::create_dir_all(&blobs).expect("a layout");
        for (digest, bytes) in &self.blobs {
            fs::write(blobs.join(&digest[7..]), bytes).expect("a blob");
        }
        fs::write(directory.join("oci-layout"), r#"{"imageLayoutVersion":"1.0.0"}"#)
            .expect("a file");
        fs::write(directory.join("index.json"), self.layout_index(tag).to_string())
            .expect("a file");
    }

    /// As an OCI layout in an archive.
    pub(crate) fn layout_archive(&self, tag: &str) -> Vec<u8> {
        let mut entries = vec![
            Entry::file("oci-layout", br#"{"imageLayoutVersion":"1.0.0"}"#),
            Entry::file("index.json", self.layout_index(tag).to_string().as_bytes()),
        ];
        for (digest, bytes) in &self.blobs {
            entries.push(Entry::file(format!("blobs/sha256/{}", &digest[7..]), bytes));
        }
        archive(&entries)
    }

    pub(crate) fn layout_index(&self, tag: &str) -> Value {
        json!({"schemaVersion": 2, "manifests": [{"mediaType": self.top_type, "digest": self.top,
            "size": self.blobs[&self.top].len(),
            "annotations": {"org.opencontainers.image.ref.name": tag}}]})
    }
}

pub(crate) fn host_architecture() -> &'static str {
    if cfg!(target_arch = "x86_64") { "amd64" } else { "arm64" }
}

/// A certificate authority of the lab's own, and a certificate that it has signed.
pub(crate) struct Authority {
    /// What clients are to trust.
    pub ca: PathBuf,
    pub certificate: PathBuf,
    pub key: PathBuf,
    _scratch: Scratch,
}

impl Authority {
    /// Signs a certificate for these DNS names.
    pub(crate) fn new(names: &[&str]) -> Self {
        let scratch = Scratch::new();
        let names: Vec<String> = names.iter().map(|name| format!("DNS:{name}")).collect();
        let script = format!(
            "printf 'subjectAltName={}' > names
             openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 2 \\
                 -keyout ca.key -out ca.pem -subj /CN=lab
             openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \\
                 -keyout key.pem -out request.pem -subj /CN=registry
             openssl x509 -req -in request.pem -CA ca.pem -CAkey ca.key -CAcreateserial -days 2 \\
                 -extfile names -out certificate.pem",
            names.join(",")
        );
        let output =
            Command::new("sh").args(["-ec", &script]).current_dir(&scratch.0).output().expect("sh");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        let file = |name: &str| scratch.0.join(name);
        let (ca, certificate, key) = (file("ca.pem"), file("certificate.pem"), file("key.pem"));
        Self { ca, certificate, key, _scratch: scratch }
    }
}

/// The Debian package's registry, on a port of its own.
pub(crate) struct DockerRegistry {
    pub address: String,
    child: Child,
    scratch: Scratch,
    credentials: Option<String>,
}

impl DockerRegistry {
    /// `None`, and a skip, when the machine has no `docker-registry` or `skopeo`.
    pub(crate) fn start(credentials: Option<(&str, &str)>) -> Option<Self> {
        Self::launch(credentials, "")
    }

    /// The same over TLS.
    pub(crate) fn start_tls(authority: &Authority) -> Option<Self> {
        let (certificate, key) = (authority.certificate.display(), authority.key.display());
        Self::launch(None, &format!(", tls: {{certificate: {certificate}, key: {key}}}"))
    }

    fn launch(credentials: Option<(&str, &str)>, tls: &str) -> Option<Self> {
        for program in ["docker-registry", "skopeo", "htpasswd"] {
            if Command::new(program).arg("--help").output().is_err() {
                programs::skip("needs docker-registry, skopeo and htpasswd");
                return None;
            }
        }
        let scratch = Scratch::new();
        let port =
            TcpListener::bind("127.0.0.1:0").expect("a port").local_addr().expect("it").port();
        let address = format!("127.0.0.1:{port}");
        let mut config = format!(
            "version: 0.1\nlog: {{level: error}}\nstorage: {{filesystem: {{rootdirectory: {}}}}}\n\
             http: {{addr: {address}{tls}}}\n",
            scratch.0.join("registry").display()
        );
        if let Some((user, password)) = credentials {
            let output = Command::new("htpasswd").args(["-Bbn", user, password]).output();
            let file = scratch.0.join("htpasswd");
            fs::write(&file, output.expect("htpasswd").stdout).expect("a file");
            config += &format!("auth: {{htpasswd: {{realm: test, path: {}}}}}\n", file.display());
        }
        let file = scratch.0.join("config.yml");
        fs::write(&file, config).expect("a file");
        let child = Command::new("docker-registry")
            .arg("serve")
            .arg(&file)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("docker-registry");
        let begun = Instant::now();
        while TcpStream::connect(&address).is_err() {
            assert!(begun.elapsed() < LIMIT, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        let credentials = credentials.map(|(user, password)| format!("{user}:{password}"));
        Some(Self { address, child, scratch, credentials })
    }

    /// Lines for `[registries]` that allow it.
    pub(crate) fn section(&self) -> String {
        format!("[registries]\ninsecure = [\"{}\"]\n", self.address)
    }

    pub(crate) fn push(&self, image: &Image, name: &str, tag: &str) {
        let layout = self.scratch.0.join(format!("layout-{name}-{tag}"));
        image.write_layout(&layout, tag);
        let mut command = Command::new("skopeo");
        command.args(["copy", "--all", "--preserve-digests", "--insecure-policy"]);
        command.args(["--dest-tls-verify=false"]);
        if let Some(credentials) = &self.credentials {
            command.arg(format!("--dest-creds={credentials}"));
        }
        command.arg(format!("oci:{}:{tag}", layout.display()));
        command.arg(format!("docker://{}/{name}:{tag}", self.address));
        let output = command.output().expect("skopeo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
    }
}

/// What a [`Fake`] answers.
pub(crate) struct Reply {
    pub status: u16,
    pub headers: Vec<(String, String)>,
    pub body: Vec<u8>,
    /// Bytes of the body that are really sent.
    pub sent: Option<usize>,
    /// How long to wait, in the middle of the body.
    pub stall: Option<Duration>,
}

impl Reply {
    pub(crate) fn ok(body: impl Into<Vec<u8>>) -> Self {
        let (headers, sent, stall) = (Vec::new(), None, None);
        Self { status: 200, headers, body: body.into(), sent, stall }
    }

    pub(crate) fn status(status: u16) -> Self {
        Self { status, ..Self::ok("") }
    }

    pub(crate) fn header(mut self, name: &str, value: &str) -> Self {
        self.headers.push((name.into(), value.into()));
        self
    }
}

/// A request as it came: `GET /v2/…`, and its headers in lower case.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    pub line: String,
    pub headers: String,
}

type Answer = dyn Fn(&str) -> Option<Reply> + Send + Sync;

/// A registry that serves an image, and misbehaves where `answer` says something else.
pub(crate) struct Fake {
    pub address: String,
    pub seen: Arc<Mutex<Vec<Seen>>>,
}

impl Fake {
    pub(crate) fn start(
        image: Image,
        answer: impl Fn(&str) -> Option<Reply> + Send + Sync + 'static,
    ) -> Self {
        let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = listener.local_addr().expect("its address").to_string();
        let seen: Arc<Mutex<Vec<Seen>>> = Arc::default();
        let (log, answer): (_, Arc<Answer>) = (Arc::clone(&seen), Arc::new(answer));
        let image = Arc::new(image);
        std::thread::spawn(move || {
            for stream in listener.incoming().flatten() {
                let (log, answer, image) =
                    (Arc::clone(&log), Arc::clone(&answer), Arc::clone(&image));
                std::thread::spawn(move || serve(&stream, &log, &*answer, &image));
            }
        });
        Self { address, seen }
    }

    pub(crate) fn section(&self) -> String {
        format!("[registries]\ninsecure = [\"{}\"]\n", self.address)
    }

    pub(crate) fn lines(&self) -> Vec<String> {
        self.seen.lock().expect("the log").iter().map(|seen| seen.line.clone()).collect()
    }
}

fn serve(stream: &TcpStream, log: &Mutex<Vec<Seen>>, answer: &Answer, image: &Image) {
    let mut reader = BufReader::new(stream);
    let mut line = String::new();
    if reader.read_line(&mut line).is_err() || line.is_empty() {
        return;
    }
    let mut headers = String::new();
    loop {
        let mut header = String::new();
        match reader.read_line(&mut header) {
            Ok(count) if count > 2 => headers += &header.to_ascii_lowercase(),
            _ => break,
        }
    }
    let line = line.rsplit_once(' ').map(|(line, _)| line.to_owned()).unwrap_or_default();
    log.lock().expect("the log").push(Seen { line: line.clone(), headers });
    let reply = answer(&line).unwrap_or_else(|| ordinary(&line, image));
    // The other side may have hung up.
    drop(send(stream, &line, &reply));
}

fn ordinary(line: &str, image: &Image) -> Reply {
    let (_, path) = line.split_once(' ').unwrap_or(("", ""));
    let last = path.rsplit('/').next().unwrap_or_default();
    if path.contains("/manifests/") {
        let digest = if last.starts_with("sha256:") { last } else { image.top.as_str() };
        let Some(body) = image.blobs.get(digest) else { return Reply::status(404) };
        let kind = if digest == image.top { image.top_type.as_str() } else { OCI_MANIFEST };
        return Reply::ok(body.clone()).header("content-type", kind);
    }
    match image.blobs.get(last) {
        Some(body) => Reply::ok(body.clone()),
        None => Reply::status(404),
    }
}

fn send(mut stream: &TcpStream, line: &str, reply: &Reply) -> std::io::Result<()> {
    let mut head = format!("HTTP/1.1 {} x\r\nconnection: close\r\n", reply.status);
    if !reply.headers.iter().any(|(name, _)| name == "content-length") {
        head += &format!("content-length: {}\r\n", reply.body.len());
    }
    for (name, value) in &reply.headers {
        head += &format!("{name}: {value}\r\n");
    }
    stream.write_all(format!("{head}\r\n").as_bytes())?;
    if line.starts_with("HEAD") {
        return Ok(());
    }
    let sent = reply.sent.unwrap_or(reply.body.len());
    let half = if reply.stall.is_some() { sent / 2 } else { 0 };
    stream.write_all(&reply.body[..half])?;
    stream.flush()?;
    if let Some(stall) = reply.stall {
        std::thread::sleep(stall);
    }
    stream.write_all(&reply.body[half..sent])
}

/// Begins a pull and answers its operation's id.
pub(crate) async fn begin(client: &Client, reference: &str) -> String {
    let body = json!({"reference": reference});
    let answer = client.post("/api/v1/images/pull", &body).await.expect_status(202);
    answer.json()["id"].as_str().expect("an id").to_owned()
}

/// An operation once it has ended.
pub(crate) async fn ended(client: &Client, id: &str) -> Value {
    let begun = Instant::now();
    loop {
        let operation =
            client.get(&format!("/api/v1/operations/{id}")).await.expect_status(200).json();
        if operation["state"] != "running" {
            return operation;
        }
        assert!(begun.elapsed() < LIMIT, "still running: {operation}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

pub(crate) async fn pull(client: &Client, reference: &str) -> Value {
    let id = begin(client, reference).await;
    ended(client, &id).await
}
