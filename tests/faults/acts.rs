//! What people do, as steps that a fault can strike: prepared, asked for, asked for again, judged.

use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, import, until};
use system_tests::registry::DockerRegistry;
use system_tests::{Client, Options, TestServer, image};

/// How long one request may take, a fault included.
const REQUEST_LIMIT: Duration = Duration::from_secs(60);

/// One of the things that are struck.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Act {
    Pull,
    Import,
    Create,
    Start,
    Update,
    Stop,
    Remove,
}

impl Act {
    /// The processes that do something in it.
    pub(crate) fn roles(self) -> &'static [&'static str] {
        match self {
            Self::Pull | Self::Import => &["server", "supervisor", "unpacker"],
            Self::Create => &["server"],
            Self::Start => &["server", "supervisor", "monitor"],
            Self::Update => &["server", "supervisor"],
            Self::Stop => &["server", "supervisor", "monitor"],
            Self::Remove => &["server", "supervisor", "task"],
        }
    }
}

/// An appliance, somebody in it, and images.
pub(crate) struct Stage {
    pub server: TestServer,
    pub anna: Client,
    reference: String,
    archive: Vec<u8>,
    subjects: AtomicUsize,
    _registry: DockerRegistry,
}

/// What one act is done to.
#[derive(Debug, Clone)]
pub(crate) struct Subject {
    /// Its name, or its key.
    name: String,
    /// Its id, once it has one.
    id: String,
}

impl Stage {
    pub(crate) async fn set() -> Self {
        let registry = DockerRegistry::start();
        let file = |name, text: &'static str| (name, 0o644, text.as_bytes());
        let pushed = image::archive("pushed:1", &[file("etc/pushed", "pushed")]);
        let reference = registry.push(&pushed, "pushed:1");
        let archive = image::archive("imported:1", &[file("etc/imported", "imported")]);
        let rates = "[rates]\ncostly_per_min = 1000000\nchanges_per_min = 1000000\n\
                     person_per_min = 1000000\n";
        let sections = registry.section() + rates;
        let server = TestServer::with(Options { sections, ..Options::default() }).await;
        let anna = server.person("anna", "user").await;
        import(&anna).await;
        Self {
            server,
            anna,
            reference,
            archive,
            subjects: AtomicUsize::new(0),
            _registry: registry,
        }
    }

    /// Brings about what the act needs.
    pub(crate) async fn prepare(&self, act: Act) -> Subject {
        let name = format!("s{}", self.subjects.fetch_add(1, Ordering::Relaxed));
        let mut subject = Subject { name, id: String::new() };
        if matches!(act, Act::Pull | Act::Import | Act::Create) {
            return subject;
        }
        let made = self.ask_create(&subject).await.expect("a container");
        subject.id = made["id"].as_str().expect("an id").to_owned();
        if matches!(act, Act::Update | Act::Stop | Act::Remove) {
            self.ask(self.post(&subject, "start")).await.expect("it starts");
        }
        if act == Act::Remove {
            self.ask(self.post(&subject, "stop")).await.expect("it stops");
        }
        subject
    }

    /// Does it: the answer, if it was acknowledged, else why not.
    pub(crate) async fn perform(&self, act: Act, subject: &Subject) -> Result<Value, String> {
        let path = format!("/api/v1/containers/{}", subject.id);
        match act {
            Act::Create => self.ask_create(subject).await,
            Act::Start => self.ask(self.post(subject, "start")).await,
            Act::Stop => self.ask(self.post(subject, "stop")).await,
            Act::Remove => self.ask(self.anna.request("DELETE", &path)).await,
            Act::Update => {
                let body = json!({"limits": {"memory_bytes": 96 << 20, "pids": 77}});
                self.ask(self.anna.request("PATCH", &path).json(&body)).await
            }
            Act::Pull => {
                let body = json!({"reference": self.reference});
                let request = self.anna.request("POST", "/api/v1/images/pull").json(&body);
                self.follow(self.ask(request).await?).await
            }
            Act::Import => {
                let request = self.anna.request("POST", "/api/v1/images/import");
                let request = request.header("content-type", "application/x-tar");
                self.follow(self.ask(request.body(self.archive.clone())).await?).await
            }
        }
    }

    fn post(&self, subject: &Subject, verb: &str) -> reqwest::RequestBuilder {
        self.anna.request("POST", &format!("/api/v1/containers/{}/{verb}", subject.id))
    }

    async fn ask_create(&self, subject: &Subject) -> Result<Value, String> {
        let body = json!({
            "name": subject.name, "image": IMAGE, "command": ["sh", "-c", "sleep 1000"],
            "stop_grace_secs": 0,
        });
        let request = self.anna.request("POST", "/api/v1/containers");
        self.ask(request.header("idempotency-key", &subject.name).json(&body)).await
    }

    async fn ask(&self, request: reqwest::RequestBuilder) -> Result<Value, String> {
        let sent = async {
            let answer = request.send().await.map_err(|error| format!("no answer: {error}"))?;
            let status = answer.status();
            let text = answer.text().await.map_err(|error| format!("half an answer: {error}"))?;
            if status.is_success() {
                return Ok(serde_json::from_str(&text).unwrap_or(Value::Null));
            }
            Err(format!("{status}: {text}"))
        };
        match tokio::time::timeout(REQUEST_LIMIT, sent).await {
            Ok(answer) => answer,
            Err(_) => Err(format!("hung for {} s", REQUEST_LIMIT.as_secs())),
        }
    }

    /// Waits for an operation's end; acknowledged is what has succeeded.
    async fn follow(&self, begun: Value) -> Result<Value, String> {
        let id = begun["id"].as_str().expect("an operation has an id");
        let path = format!("/api/v1/operations/{id}");
        let deadline = Instant::now() + REQUEST_LIMIT;
        loop {
            let now = self.ask(self.anna.request("GET", &path)).await?;
            match now["state"].as_str() {
                Some("succeeded") => return Ok(now),
                Some("running") if Instant::now() < deadline => {}
                _ => return Err(now.to_string()),
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Whether what the act wants is so now.
    pub(crate) async fn is_done(&self, act: Act, subject: &Subject) -> bool {
        let path = format!("/api/v1/containers/{}", subject.id);
        match act {
            Act::Pull | Act::Import => self.image(act).await.is_some(),
            Act::Create => self.named(&subject.name).await.is_some(),
            Act::Remove => self.anna.get(&path).await.status == 404,
            Act::Start => self.anna.get(&path).await.json()["status"] == "running",
            Act::Stop => self.anna.get(&path).await.json()["status"] == "exited",
            Act::Update => {
                let limits = &self.anna.get(&path).await.json()["limits"];
                limits["memory_bytes"] == 96 << 20 && limits["pids"] == 77
            }
        }
    }

    /// Whether a start was ended by the kill that struck: the program's own process, or the monitor
    /// without which none runs, and its end is told as what it was.
    pub(crate) async fn was_done_and_is_known_to_have_ended(
        &self,
        act: Act,
        subject: &Subject,
    ) -> bool {
        if act != Act::Start {
            return false;
        }
        let known = self.anna.get(&format!("/api/v1/containers/{}", subject.id)).await.json();
        let last = &known["exit"];
        last["run"] == known["run"] && (last["cause"] == "monitor_lost" || last["signal"] == 9)
    }

    /// Takes away what the act and its preparation have left.
    pub(crate) async fn tidy(&self, act: Act, subject: &Subject) {
        if matches!(act, Act::Pull | Act::Import) {
            if let Some(image) = self.image(act).await {
                self.anna.delete(&format!("/api/v1/images/{image}")).await.expect_status(204);
            }
            return;
        }
        if let Some(id) = self.named(&subject.name).await {
            let path = format!("/api/v1/containers/{id}");
            let answer = self.anna.delete(&format!("{path}?force=true")).await;
            assert!(answer.status < 300, "{answer:?}");
            until(&self.anna, &path, |value| value["status"] == 404).await;
        }
    }

    async fn image(&self, act: Act) -> Option<String> {
        let wanted = if act == Act::Pull { &self.reference } else { "imported:1" };
        let images = self.anna.get("/api/v1/images").await.expect_status(200).json();
        let found = images["items"].as_array().expect("a list").iter();
        let mut found = found.filter(|image| image.to_string().contains(wanted));
        found.next().map(|image| image["id"].as_str().expect("an id").to_owned())
    }

    async fn named(&self, name: &str) -> Option<String> {
        let listed = self.anna.get("/api/v1/containers?limit=100").await.expect_status(200).json();
        let mut found = listed["items"].as_array().expect("a list").iter();
        let found = found.find(|one| one["name"] == name);
        found.map(|one| one["id"].as_str().expect("an id").to_owned())
    }
}
