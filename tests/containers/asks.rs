//! Asking for more of a limit: in the way, asked for, decided in place, held by the kernel, and over by itself.

use std::time::Duration;

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, act, import, in_status, run, until};
use system_tests::{Client, TestServer, requires_root};

const MIB: u64 = 1 << 20;

async fn id_of(person: &Client) -> String {
    person.get("/api/v1/me").await.expect_status(200).json()["id"].to_string()
}

async fn asks(person: &Client, body: Value) -> Value {
    person.post("/api/v1/asks", &body).await.expect_status(201).json()
}

/// A time so far ahead, as the API takes it.
fn ahead(pause: Duration) -> String {
    let at = std::time::SystemTime::now() + pause;
    let since = at.duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    since.as_secs().to_string()
}

async fn memory(person: &Client) -> Value {
    person.get("/api/v1/me/usage").await.expect_status(200).json()["allowance"]["memory_bytes"]
        .clone()
}

#[tokio::test]
async fn who_is_refused_asks_for_more_and_an_operator_decides() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let auditor = server.person("looks", "auditor").await;
    import(&anna).await;
    let id = id_of(&anna).await;
    let allowance = format!("/api/v1/people/{id}/allowance");
    olga.put(&allowance, &json!({"containers_max": 1, "memory_bytes": 512 * MIB}))
        .await
        .expect_status(200);
    let make = |name: &str| json!({"name": name, "image": IMAGE, "command": ["true"]});
    anna.post("/api/v1/containers", &make("one")).await.expect_status(201);
    let refused = anna.post("/api/v1/containers", &make("two")).await.expect_status(507).json();
    assert_eq!(refused["ask"], "/asks?limit=containers_max", "{refused}");
    // So does the page of the form that was refused.
    let form = format!("image={IMAGE}&name=two&command=true&start=no");
    let launch = anna.request("POST", "/launch");
    let launch = launch.header("content-type", "application/x-www-form-urlencoded").body(form);
    let page = system_tests::client::send(launch).await.expect_status(507).text;
    assert!(page.contains("href=\"/asks?limit=containers_max\""), "{page}");
    let page = anna.get("/asks?limit=containers_max").await.expect_status(200).text;
    assert!(page.contains("value=\"containers_max\" selected"), "{page}");
    // What is no more, or not bounded, is not asked for.
    let wrong = json!({"limit": "containers_max", "wanted": 1, "reason": "x"});
    assert_eq!(anna.post("/api/v1/asks", &wrong).await.status, 422);
    let wrong = json!({"limit": "images_max", "wanted": 5, "reason": "x"});
    assert_eq!(anna.post("/api/v1/asks", &wrong).await.code(), "ask.not-bounded");
    let wanted = json!({"limit": "containers_max", "wanted": 3, "reason": "one a course"});
    let ask = asks(&anna, wanted.clone()).await;
    assert_eq!((&ask["state"], &ask["now"]["allowed"]), (&json!("open"), &json!(1)), "{ask}");
    assert_eq!((&ask["now"]["used"], &ask["now"]["whole"]), (&json!(1), &json!(null)), "{ask}");
    assert_eq!(anna.post("/api/v1/asks", &wanted).await.code(), "ask.open");
    let path = format!("/api/v1/asks/{}", ask["id"]);
    // Nobody else learns of it or decides; the operator sees what it would come to.
    assert_eq!(bert.get(&path).await.status, 404);
    assert_eq!(bert.post(&format!("{path}/withdraw"), &Value::Null).await.status, 404);
    for who in [&anna, &bert, &auditor] {
        assert_eq!(who.post(&format!("{path}/approve"), &json!({})).await.status, 403);
    }
    let seen = olga.get("/api/v1/asks?state=open").await.expect_status(200).json();
    let whole = &seen["items"][0]["now"]["whole"];
    assert!(whole["together"].as_u64() > Some(3), "with what the others may have: {seen}");
    assert!(olga.get("/home").await.text.contains("1 ask"), "operators are told");
    // Less than was asked for, for good.
    let less = json!({"granted": 2, "for_good": true, "answer": "two for now"});
    let granted = olga.post(&format!("{path}/approve"), &less).await.expect_status(200).json();
    assert_eq!((&granted["state"], &granted["granted"]), (&json!("approved"), &json!(2)));
    let own = anna.get(&allowance).await.expect_status(200).json();
    assert_eq!((&own["containers_max"], &own["memory_bytes"]), (&json!(2), &json!(512 * MIB)));
    anna.post("/api/v1/containers", &make("two")).await.expect_status(201);
    assert_eq!(anna.post("/api/v1/containers", &make("three")).await.status, 507);
    assert_eq!(olga.post(&format!("{path}/approve"), &json!({})).await.code(), "ask.decided");
    assert_eq!(olga.post(&format!("{path}/end"), &json!({})).await.code(), "ask.not-for-a-time");
    let told = anna.get("/api/v1/events?kind=ask.approved").await.expect_status(200).text;
    assert!(told.contains("two for now"), "{told}");
    assert!(anna.get("/asks").await.text.contains("two for now"), "the page tells the answer");
    // A no has a reason; what is withdrawn is not decided.
    let ask = asks(&anna, wanted.clone()).await;
    let path = format!("/api/v1/asks/{}", ask["id"]);
    assert_eq!(olga.post(&format!("{path}/decline"), &json!({"reason": " "})).await.status, 422);
    let no = json!({"reason": "the machine is full"});
    olga.post(&format!("{path}/decline"), &no).await.expect_status(200);
    assert!(anna.get("/asks").await.text.contains("the machine is full"));
    let ask = asks(&anna, wanted).await;
    let path = format!("/api/v1/asks/{}", ask["id"]);
    anna.post(&format!("{path}/withdraw"), &Value::Null).await.expect_status(200);
    assert_eq!(olga.post(&format!("{path}/decline"), &no).await.code(), "ask.decided");
    for action in ["ask.make", "ask.approve", "ask.decline", "ask.withdraw"] {
        let rows = olga.get(&format!("/api/v1/audit?action={action}&outcome=done")).await.json();
        assert!(rows["items"][0].is_object(), "no row of {action}: {rows}");
    }
}

#[tokio::test]
async fn only_so_many_asks_of_one_person_wait() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    let bounds = [
        ("memory_bytes", 512 * MIB),
        ("swap_bytes", 512 * MIB),
        ("cpu_millis", 500),
        ("pids", 100),
        ("images_max", 3),
        ("containers_max", 3),
    ];
    let allowance: serde_json::Map<_, _> =
        bounds.iter().map(|(name, most)| ((*name).to_owned(), json!(most))).collect();
    let path = format!("/api/v1/people/{}/allowance", id_of(&anna).await);
    olga.put(&path, &Value::Object(allowance)).await.expect_status(200);
    let ask = |limit: &str, most: u64| json!({"limit": limit, "wanted": most * 2, "reason": "x"});
    for (limit, most) in &bounds[..5] {
        asks(&anna, ask(limit, *most)).await;
    }
    let (limit, most) = bounds[5];
    let refused = anna.post("/api/v1/asks", &ask(limit, most)).await;
    assert_eq!((refused.status, refused.code()), (507, "ask.too-many".to_owned()));
    // The control: with one fewer it is taken.
    let open = anna.get("/api/v1/asks?state=open").await.json();
    let path = format!("/api/v1/asks/{}/withdraw", open["items"][0]["id"]);
    anna.post(&path, &Value::Null).await.expect_status(200);
    asks(&anna, ask(limit, most)).await;
}

/// The bound of the person's memory as the kernel holds it, in the cgroup above a container's.
fn held(shown: &Value) -> u64 {
    let pid = shown["pid"].as_i64().expect("it runs");
    let groups = std::fs::read_to_string(format!("/proc/{pid}/cgroup")).expect("it lives");
    let line = groups.lines().find(|line| line.contains(":memory:"));
    let (root, file) = match line {
        Some(_) => ("/sys/fs/cgroup/memory", "memory.limit_in_bytes"),
        None => ("/sys/fs/cgroup", "memory.max"),
    };
    let line = line.or_else(|| groups.lines().find(|line| line.starts_with("0::")));
    let group = line.and_then(|line| line.splitn(3, ':').nth(2)).expect("a cgroup");
    let parent = std::path::Path::new(group).parent().expect("a person's").to_owned();
    let path = format!("{root}{}/{file}", parent.display());
    let text = std::fs::read_to_string(&path).unwrap_or_else(|error| panic!("{path}: {error}"));
    text.trim().parse().unwrap_or(u64::MAX)
}

#[tokio::test]
async fn what_is_granted_for_a_time_is_over_at_its_hour_also_while_the_server_is_down() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let allowance = format!("/api/v1/people/{}/allowance", id_of(&anna).await);
    olga.put(&allowance, &json!({"memory_bytes": 512 * MIB})).await.expect_status(200);
    let lives = run(&anna, "lives", "sleep 1000", json!({})).await;
    let shown = in_status(&anna, &lives, "running").await;
    assert_eq!(held(&shown), 512 * MIB);
    let wanted = json!({
        "limit": "memory_bytes", "wanted": 1024 * MIB, "reason": "a large batch",
        "until": "2026-01-01",
    });
    assert_eq!(anna.post("/api/v1/asks", &wanted).await.status, 422, "that is past");
    let wanted = json!({"limit": "memory_bytes", "wanted": 1024 * MIB, "reason": "a large batch"});
    let ask = asks(&anna, wanted.clone()).await;
    let path = format!("/api/v1/asks/{}", ask["id"]);
    let term = json!({"until": ahead(Duration::from_secs(3600))});
    olga.post(&format!("{path}/approve"), &term).await.expect_status(200);
    // It holds in the kernel and in what is admitted; what the allowance itself says is as before.
    assert_eq!(held(&shown), 1024 * MIB);
    assert_eq!(memory(&anna).await, 1024 * MIB);
    let own = anna.get(&allowance).await.expect_status(200).json();
    assert_eq!(own["memory_bytes"], 512 * MIB, "{own}");
    assert_eq!(own["extras"][0]["granted"], 1024 * MIB, "{own}");
    // A change of the allowance meanwhile is what holds afterwards.
    olga.put(&allowance, &json!({"memory_bytes": 768 * MIB})).await.expect_status(200);
    assert_eq!((held(&shown), memory(&anna).await), (1024 * MIB, json!(1024 * MIB)));
    // An operator ends it before its hour.
    olga.post(&format!("{path}/end"), &Value::Null).await.expect_status(200);
    assert_eq!(memory(&anna).await, 768 * MIB);
    until(&anna, &path, |ask| ask["state"] == "ended" && held(&shown) == 768 * MIB).await;
    // By itself, to the second.
    let ask = asks(&anna, wanted.clone()).await;
    let path = format!("/api/v1/asks/{}", ask["id"]);
    let term = json!({"until": ahead(Duration::from_secs(5))});
    olga.post(&format!("{path}/approve"), &term).await.expect_status(200);
    assert_eq!(held(&shown), 1024 * MIB);
    until(&anna, &path, |ask| ask["state"] == "ended" && held(&shown) == 768 * MIB).await;
    let told = anna.get("/api/v1/events?kind=ask.ended").await.expect_status(200).json();
    assert_eq!(told["items"].as_array().map(Vec::len), Some(2), "{told}");
    // And where nobody was there at its hour.
    let ask = asks(&anna, wanted).await;
    let path = format!("/api/v1/asks/{}", ask["id"]);
    let hour = ahead(Duration::from_secs(5));
    olga.post(&format!("{path}/approve"), &json!({"until": hour})).await.expect_status(200);
    server.kill_server();
    while ahead(Duration::ZERO) <= hour {
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    assert_eq!(held(&shown), 1024 * MIB, "the control: nobody has looked");
    server.start_server().await;
    assert_eq!(memory(&anna).await, 768 * MIB);
    until(&anna, &path, |ask| ask["state"] == "ended" && held(&shown) == 768 * MIB).await;
    act(&anna, &lives, "stop").await.expect_status(200);
}
