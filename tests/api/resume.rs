//! The event stream over lost connections and restarts: nothing missed, nothing twice, and a word when
//! something cannot be had any more.

use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::{Client, Options, TestServer, requires_root};

const LIMIT: Duration = Duration::from_secs(60);
const STREAM: &str = "/api/v1/events/stream";
/// Changes that the writer makes, and after how many the reader's connection is cut.
const CHANGES: usize = 90;
const CUT_EVERY: usize = 7;

/// One server-sent event.
#[derive(Debug, Clone, PartialEq)]
struct Said {
    id: String,
    kind: String,
    data: Value,
}

/// An open stream.
struct Stream {
    response: reqwest::Response,
    buffer: String,
}

impl Stream {
    /// Opens one at `path`, or `None` while the server is away.
    async fn open(client: &Client, path: &str, last: Option<&str>) -> Option<Self> {
        let mut request = client.request("GET", path);
        if let Some(last) = last {
            request = request.header("last-event-id", last);
        }
        let response = request.send().await.ok()?;
        assert_eq!(response.status(), 200, "{path}");
        Some(Self { response, buffer: String::new() })
    }

    /// The next event; `None` when the connection is gone.
    async fn next(&mut self) -> Option<Said> {
        loop {
            if let Some((block, rest)) = self.buffer.split_once("\n\n") {
                let said = parse(block);
                self.buffer = rest.to_owned();
                match said {
                    Some(said) => return Some(said),
                    None => continue,
                }
            }
            let chunk = tokio::time::timeout(LIMIT, self.response.chunk()).await;
            let chunk = chunk.expect("the stream says something in time").ok()??;
            self.buffer.push_str(std::str::from_utf8(&chunk).expect("UTF-8 in whole lines"));
        }
    }
}

/// A block of lines; `None` for comments.
fn parse(block: &str) -> Option<Said> {
    let field = |name: &str| {
        let line = block.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':'));
        line.map(|value| value.trim_start().to_owned())
    };
    let data = field("data")?;
    Some(Said {
        id: field("id").unwrap_or_default(),
        kind: field("event").unwrap_or_default(),
        data: serde_json::from_str(&data).expect("JSON"),
    })
}

fn plain() -> Options {
    Options { no_supervisor: true, ..Options::default() }
}

/// A container that has come no further than its row.
async fn container(client: &Client) -> String {
    let body = json!({"image": "127.0.0.1:1/none:latest", "name": "c"});
    let made = client.post("/api/v1/containers", &body).await;
    assert!(matches!(made.status, 201 | 202), "{made:?}");
    let id = made.json()["id"].as_str().expect("an id").to_owned();
    let deadline = Instant::now() + LIMIT;
    while client.get(&format!("/api/v1/containers/{id}")).await.json()["status"] != "failed" {
        assert!(Instant::now() < deadline, "its pull has not failed");
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    id
}

async fn rename(client: &Client, id: &str, name: &str) -> bool {
    let request = client.request("PATCH", &format!("/api/v1/containers/{id}"));
    match request.json(&json!({"name": name})).send().await {
        Ok(answer) if answer.status() == 200 => true,
        Ok(answer) => panic!("{name}: {}", answer.status()),
        Err(_away) => false,
    }
}

/// The new names of all changes, oldest first, as the list has them.
async fn listed(client: &Client) -> Vec<String> {
    let path = "/api/v1/events?kind=container.changed&limit=500";
    let items = client.get(path).await.expect_status(200).json();
    let items = items["items"].as_array().expect("items").clone();
    items.iter().rev().map(|event| event["data"]["name"].to_string()).collect()
}

#[tokio::test]
async fn a_reader_who_is_cut_off_misses_nothing_and_hears_nothing_twice() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let anna = server.person("anna", "user").await;
    let id = container(&anna).await;
    let mut stream = Stream::open(&anna, STREAM, None).await;
    let writer = async {
        for number in 0..CHANGES {
            while !rename(&anna, &id, &format!("c{number}")).await {
                tokio::time::sleep(Duration::from_millis(5)).await;
            }
            if number == CHANGES / 2 {
                server.kill_server();
                server.start_server().await;
            }
        }
    };
    let reader = async {
        let (mut heard, mut last, mut cuts): (Vec<String>, Option<String>, usize) =
            (vec![], None, 0);
        let wanted = json!(format!("c{}", CHANGES - 1)).to_string();
        let deadline = Instant::now() + LIMIT;
        while heard.last() != Some(&wanted) {
            assert!(Instant::now() < deadline, "heard {heard:?}");
            let Some(open) = &mut stream else {
                tokio::time::sleep(Duration::from_millis(5)).await;
                stream = Stream::open(&anna, STREAM, last.as_deref()).await;
                continue;
            };
            let Some(said) = open.next().await else {
                stream = None;
                continue;
            };
            assert_ne!(said.kind, "gap", "{said:?}");
            last = Some(said.id.clone());
            if said.kind == "container.changed" {
                heard.push(said.data["data"]["name"].to_string());
                if heard.len().is_multiple_of(CUT_EVERY) {
                    stream = None;
                    cuts += 1;
                }
            }
        }
        (heard, cuts)
    };
    let ((), (heard, cuts)) = tokio::join!(writer, reader);
    assert_eq!(heard, listed(&anna).await);
    assert!(heard.len() >= CHANGES && cuts >= CHANGES / CUT_EVERY, "{} {cuts}", heard.len());
}

#[tokio::test]
async fn what_is_no_longer_kept_is_said_and_not_kept_silent_about() {
    requires_root!();
    let sections = "[retention]\nevents_max = 5\n".to_owned();
    let server = TestServer::with(Options { sections, ..plain() }).await;
    let anna = server.person("anna", "user").await;
    let id = container(&anna).await;
    for number in 0..20 {
        assert!(rename(&anna, &id, &format!("c{number}")).await);
    }
    let items = anna.get("/api/v1/events?kind=container.changed").await.json()["items"].clone();
    let of = |name: &str| {
        let items = items.as_array().expect("items").iter();
        let mut found = items.filter(|event| event["data"]["name"] == name);
        found.next().expect("it is listed")["id"].as_str().expect("an id").to_owned()
    };
    // Rows are dropped at the server's start.
    server.kill_server();
    server.start_server().await;
    let deadline = Instant::now() + LIMIT;
    while anna.get("/api/v1/events").await.json()["items"].as_array().expect("items").len() > 5 {
        assert!(Instant::now() < deadline, "old events are not dropped");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    let mut stream = Stream::open(&anna, STREAM, Some(&of("c3"))).await.expect("it opens");
    let gap = stream.next().await.expect("it speaks");
    assert_eq!(
        (gap.kind.as_str(), &gap.data["reason"]),
        ("gap", &json!("no-longer-kept")),
        "{gap:?}"
    );
    let mut names = Vec::new();
    while names.last() != Some(&json!("c19")) {
        let said = stream.next().await.expect("it goes on");
        names.push(said.data["data"]["name"].clone());
    }
    assert_eq!(names, ["c15", "c16", "c17", "c18", "c19"].map(|name| json!(name)));
    // Whoever comes back with the gap's own id is not told again.
    let mut stream = Stream::open(&anna, STREAM, Some(&gap.id)).await.expect("it opens");
    assert_eq!(stream.next().await.expect("it speaks").data["data"]["name"], "c15");
    // The control: from what is kept, no gap is spoken of; the parameter does what the header does.
    for (path, last) in
        [(STREAM.to_owned(), Some(of("c16"))), (format!("{STREAM}?after={}", of("c16")), None)]
    {
        let mut stream = Stream::open(&anna, &path, last.as_deref()).await.expect("it opens");
        let said = stream.next().await.expect("it speaks");
        assert_eq!(
            (said.kind.as_str(), &said.data["data"]["name"]),
            ("container.changed", &json!("c17"))
        );
    }
}

#[tokio::test]
async fn a_place_that_nobody_was_given_is_said_to_be_unknown() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let anna = server.person("anna", "user").await;
    let id = container(&anna).await;
    let mut stream = Stream::open(&anna, STREAM, Some("made-up")).await.expect("it opens");
    let gap = stream.next().await.expect("it speaks");
    assert_eq!((gap.kind.as_str(), &gap.data["reason"]), ("gap", &json!("unknown")));
    assert!(rename(&anna, &id, "after").await);
    loop {
        let said = stream.next().await.expect("it goes on");
        if said.kind == "container.changed" {
            assert_eq!(said.data["data"]["name"], "after");
            break;
        }
    }
    let refused = anna.get(&format!("{STREAM}?after=made-up")).await;
    assert_eq!((refused.status, refused.code().as_str()), (422, "request.invalid"));
    assert_eq!(anna.get(&format!("{STREAM}?kind=%27")).await.status, 422);
}

#[tokio::test]
async fn filters_narrow_and_a_quiet_stream_still_moves_on() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let (hers, his) = (container(&anna).await, container(&tom).await);
    let changed = format!("{STREAM}?kind=container.changed&subject={hers}");
    let mut narrow = Stream::open(&anna, &changed, None).await.expect("it opens");
    let mut quiet =
        Stream::open(&anna, &format!("{STREAM}?kind=image.*"), None).await.expect("opens");
    let mut whole = Stream::open(&server.operator(), &format!("{STREAM}?kind=container.*"), None)
        .await
        .expect("it opens");
    assert!(rename(&tom, &his, "his").await && rename(&anna, &hers, "hers").await);
    let said = narrow.next().await.expect("it speaks");
    assert_eq!(&said.data["subject"], &json!(hers), "{said:?}");
    assert_eq!(said.data["data"]["name"], "hers");
    let mut names = Vec::new();
    while names.len() < 2 {
        let said = whole.next().await.expect("it speaks");
        if said.kind == "container.changed" {
            names.push(said.data["data"]["name"].clone());
        }
    }
    assert_eq!(names, [json!("his"), json!("hers")], "an operator hears of everybody's");
    // Nothing of images happens: what comes is a heartbeat, and from its place nothing is repeated.
    let beat = quiet.next().await.expect("it speaks");
    assert_eq!(beat.kind, "heartbeat", "{beat:?}");
    assert!(!beat.id.is_empty() && beat.data["at"].is_string());
    assert!(rename(&anna, &hers, "later").await);
    let mut again = Stream::open(&anna, STREAM, Some(&beat.id)).await.expect("it opens");
    assert_eq!(again.next().await.expect("it speaks").data["data"]["name"], "later");
}
