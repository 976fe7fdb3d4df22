//! A04 and the API's manners: bodies that two readers could read in two ways, sizes, problem details,
//! paging, the audit.

use std::io::{Read, Write};
use std::net::TcpStream;

use serde_json::json;
use system_tests::client::send;
use system_tests::supervised::wait_for;
use system_tests::{Options, TestServer, requires_root};

fn plain() -> Options {
    Options { no_supervisor: true, ..Options::default() }
}

#[tokio::test]
async fn a_body_is_read_in_one_way_or_not_at_all() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let post = async |body: Vec<u8>, extra: Option<(&str, &str)>| {
        let mut request = olga.request("POST", "/api/v1/people");
        request = request.header("content-type", "application/json");
        if let Some((name, value)) = extra {
            request = request.header(name, value);
        }
        send(request.body(body)).await
    };
    for (body, status) in [
        (r#"{"name":"a1","name":"a2","role":"user"}"#, 400),
        (r#"{"name":"a1","role":"user","Role":"operator"}"#, 422),
        (r#"{"name":"a1","role":"user","admin":true}"#, 422),
        (r#"{"name":"a1","role":null}"#, 422),
        (r#"{"name":"a1","role":"system"}"#, 422),
        (r#"{"name":"a1"}"#, 422),
        ("\u{feff}{\"name\":\"a1\",\"role\":\"user\"}", 400),
        (r#"{"name":"a1","role":"user"} {"#, 400),
        ("", 400),
    ] {
        let answer = post(body.as_bytes().to_vec(), None).await;
        assert_eq!(answer.status, status, "{body}: {}", answer.text);
    }
    let good = br#"{"name":"a1","role":"user"}"#.to_vec();
    assert_eq!(post(good.clone(), Some(("content-encoding", "gzip"))).await.status, 415);
    let mut large = good.clone();
    large.resize(2 << 20, b' ');
    assert_eq!(post(large, None).await.status, 413);
    let deep = format!("{{\"name\":{}1{}}}", "[".repeat(100_000), "]".repeat(100_000));
    assert_eq!(post(deep.into_bytes(), None).await.status, 400);
    let answer = post(br#"{"name":"No Name","role":"user"}"#.to_vec(), None).await;
    let problem = answer.expect_status(422).json();
    assert_eq!(problem["fields"][0]["pointer"], "/name", "{problem}");
    assert_eq!(problem["status"], 422);
    assert!(problem["request_id"].as_str().is_some_and(|id| !id.is_empty()));
    post(good, None).await.expect_status(201);
}

#[tokio::test]
async fn lists_come_in_pages_that_miss_nobody() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    for number in 0..7 {
        let body = json!({"name": format!("person{number}"), "role": "user"});
        olga.post("/api/v1/people", &body).await.expect_status(201);
    }
    let mut names = Vec::new();
    let mut path = "/api/v1/people?limit=3".to_owned();
    for _ in 0..10 {
        let page = olga.get(&path).await.expect_status(200).json();
        for item in page["items"].as_array().expect("items") {
            names.push(item["name"].as_str().expect("a name").to_owned());
        }
        let Some(next) = page["next"].as_str() else { break };
        path = format!("/api/v1/people?limit=3&after={next}");
    }
    assert_eq!(names.len(), 8);
    assert!(names.is_sorted() && names[0] == "olga");
    for bad in ["limit=0", "limit=501", "limit=x", "after=x"] {
        assert_eq!(olga.get(&format!("/api/v1/people?{bad}")).await.status, 422, "{bad}");
    }
}

#[tokio::test]
async fn every_change_and_every_refusal_is_audited() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let id = anna.get("/api/v1/me").await.json()["id"].clone();
    let refused = anna.post("/api/v1/people", &json!({"name": "eve", "role": "user"})).await;
    assert_eq!(refused.status, 403);
    let deadline = std::time::Instant::now() + std::time::Duration::from_secs(5);
    loop {
        let rows = olga.get("/api/v1/audit").await.expect_status(200).json();
        let rows = rows["items"].as_array().expect("items").clone();
        let has = |action: &str, outcome: &str| {
            rows.iter().any(|row| row["action"] == action && row["outcome"] == outcome)
        };
        if has("POST /api/v1/people", "role.denied") {
            let row = rows.iter().find(|row| row["outcome"] == "role.denied").expect("found");
            assert_eq!((&row["actor"], &row["actor_name"]), (&id, &"anna".into()));
            for action in ["setup.secret", "setup.complete", "person.add", "invitation.accept"] {
                assert!(has(action, "done"), "{action} is not in {rows:#?}");
            }
            return;
        }
        assert!(std::time::Instant::now() < deadline, "the refusal is not in {rows:#?}");
        tokio::time::sleep(std::time::Duration::from_millis(20)).await;
    }
}

#[tokio::test]
async fn whoever_has_connected_before_the_stop_is_answered() {
    requires_root!();
    let server = TestServer::with(plain()).await;
    let address = server.url().trim_start_matches("http://").to_owned();
    let connect = || TcpStream::connect(&address).expect("connect");
    let ask = |stream: &mut TcpStream| {
        let head = format!("GET /healthz HTTP/1.1\r\nHost: {address}\r\n\r\n");
        stream.write_all(head.as_bytes()).expect("ask");
    };
    let (mut fresh, mut kept) = (connect(), connect());
    ask(&mut kept);
    let mut first = [0; 15];
    kept.read_exact(&mut first).expect("an answer");
    assert_eq!(&first, b"HTTP/1.1 200 OK");
    // Connections are taken in one after the other: the first is in by now.
    let pid = server.server_pid().expect("it runs").cast_signed();
    nix::sys::signal::kill(nix::unistd::Pid::from_raw(pid), nix::sys::signal::Signal::SIGTERM)
        .expect("tell it to stop");
    // The controls: the one that has had its answer is let go, and nobody new is taken in. Which
    // of the two is done first is nobody's promise.
    let mut rest = Vec::new();
    kept.read_to_end(&mut rest).expect("the end");
    wait_for("the listener's end", || TcpStream::connect(&address).is_err().then_some(()));
    ask(&mut fresh);
    let mut answer = String::new();
    fresh.read_to_string(&mut answer).expect("an answer, then the end");
    assert!(answer.starts_with("HTTP/1.1 200 OK"), "{answer:?}");
}
