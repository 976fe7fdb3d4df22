//! F14: many at once on the same names and on their own. One wins, the others are told why not; nothing
//! hangs, nothing breaks, and when all is removed nothing is left.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, import};
use system_tests::{Answer, Check, Client, Dice, Options, TestServer, requires_root, times};

use crate::footprint;

/// Eight for each processor of CI's machine.
const CLIENTS: usize = 16;
/// No request may take longer: a stop's grace, a kill's limit, and a queue of others before it.
const ANSWER_LIMIT: Duration = Duration::from_secs(60);

async fn roomy() -> TestServer {
    TestServer::with(Options { one_subnet: true, ..Default::default() }).await
}

#[tokio::test]
async fn of_many_who_do_the_same_one_wins() {
    requires_root!();
    let server = roomy().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let control = format!("{CLIENTS} requests at once, all answered");
    for round in 0..times(20, 1) {
        let check = |variant: &str, expected: &str, observed: String| {
            let variant = format!("{variant}, round {round}");
            Check { id: "F14", variant: &variant, control: &control }.sees(expected, observed);
        };
        let body = json!({"name": "same", "image": IMAGE, "stop_grace_secs": 1,
            "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do usleep 20000; done"]});
        let made = all(&anna, "POST", "/api/v1/containers", &body).await;
        check("create of one name", "201 x1, 409 x15", made);
        let started = all(&anna, "POST", "/api/v1/containers/same/start", &Value::Null).await;
        check("start of one", "200 x1, 409 x15", started);
        // Each waits for the same end.
        let stopped = all(&anna, "POST", "/api/v1/containers/same/stop", &Value::Null).await;
        check("stop of one", "200 or 409", only(&stopped, "200 or 409"));
        let removed = all(&anna, "DELETE", "/api/v1/containers/same", &Value::Null).await;
        check("remove of one", "204 x1, 404 x15", removed);
    }
}

/// The same of everybody at once; how often which status came.
async fn all(client: &Client, method: &'static str, path: &'static str, body: &Value) -> String {
    let ask = |_| {
        let (client, body) = (client.clone(), body.clone());
        tokio::spawn(async move { limited(client.send(method, path, &body)).await })
    };
    let waiting: Vec<_> = (0..CLIENTS).map(ask).collect();
    let mut seen = BTreeMap::<String, usize>::new();
    for one in waiting {
        let answer = one.await.expect("it is answered");
        let kind = match answer.status {
            500.. => format!("{} {}", answer.status, answer.code()),
            status => status.to_string(),
        };
        *seen.entry(kind).or_default() += 1;
    }
    let parts: Vec<_> = seen.iter().map(|(status, count)| format!("{status} x{count}")).collect();
    parts.join(", ")
}

/// `allowed` when every status of `seen` is in it, and the first is there.
fn only(seen: &str, allowed: &str) -> String {
    let good = |part: &str| part.split(' ').next().is_some_and(|status| allowed.contains(status));
    match seen.split(", ").all(good) && seen.starts_with(&allowed[..3]) {
        true => allowed.to_owned(),
        false => seen.to_owned(),
    }
}

async fn limited(answer: impl Future<Output = Answer>) -> Answer {
    tokio::time::timeout(ANSWER_LIMIT, answer).await.expect("nothing hangs")
}

#[tokio::test]
async fn a_crowd_breaks_nothing_and_leaves_nothing() {
    requires_root!();
    let server = roomy().await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    // What a first life makes for its owner stays.
    let first = json!({"name": "first", "image": IMAGE, "command": ["true"], "start": true});
    limited(anna.post("/api/v1/containers", &first)).await.expect_status(201);
    limited(anna.delete("/api/v1/containers/first?force=true")).await.expect_status(204);
    let before = footprint::of(&server);
    let until = Instant::now() + Duration::from_secs(times(60, 4) as u64);
    let work = |number: usize| {
        let anna = anna.clone();
        tokio::spawn(async move { jostle(&anna, number, until).await })
    };
    let crowd: Vec<_> = (0..CLIENTS).map(work).collect();
    let mut seen = BTreeMap::<String, usize>::new();
    for one in crowd {
        for (what, count) in one.await.expect("nobody hangs") {
            *seen.entry(what).or_default() += count;
        }
    }
    let control = format!("{} requests of {CLIENTS}: {seen:?}", seen.values().sum::<usize>());
    let check = |variant| Check { id: "F14", variant, control: &control };
    let broken: Vec<_> = seen.keys().filter(|what| what.contains(" 5")).collect();
    check("a crowd: what broke").finds_nothing(&broken);
    let won = ["create 201", "start 200", "stop 200", "remove 204"];
    let missing: Vec<_> = won.iter().filter(|what| !seen.contains_key(**what)).collect();
    check("a crowd: what never worked").finds_nothing(&missing);
    let left = anna.get("/api/v1/containers?limit=100").await.expect_status(200).json();
    for item in left["items"].as_array().expect("a list") {
        let id = item["id"].as_str().expect("an id");
        let gone = limited(anna.delete(&format!("/api/v1/containers/{id}?force=true"))).await;
        assert_eq!(gone.status, 204, "{}", gone.text);
    }
    let names =
        ["cgroups", "links", "nft", "run directory", "monitors", "state", "zombies", "people"];
    check("a crowd: what is left").finds_nothing(&footprint::differences(&server, &before, &names));
}

/// One of the crowd: anything, on anybody's names or its own.
async fn jostle(anna: &Client, number: usize, until: Instant) -> BTreeMap<String, usize> {
    let mut dice = Dice::new();
    let mut seen = BTreeMap::new();
    while Instant::now() < until {
        let name = match dice.below(3) {
            0 => format!("own-{number}"),
            _ => format!("all-{}", dice.below(4)),
        };
        let path = format!("/api/v1/containers/{name}");
        let post = |verb: &str| format!("{path}/{verb}");
        let verb =
            ["create", "start", "stop", "kill", "remove", "restart", "pause", "resume", "change"]
                [dice.below(9)];
        let answer = match verb {
            "create" => {
                let restart =
                    [json!({"name": "no"}), json!({"name": "always"})][dice.below(2)].clone();
                let body = json!({"name": name, "image": IMAGE, "start": dice.below(2) == 0,
                    "stop_grace_secs": 1, "restart": restart,
                    "command": ["sh", "-c", "trap 'exit 0' TERM; while :; do usleep 20000; done"]});
                limited(anna.post("/api/v1/containers", &body)).await
            }
            "remove" => limited(anna.delete(&format!("{path}?force=true"))).await,
            "change" => limited(anna.patch(&path, &json!({"limits": {"pids": 64}}))).await,
            verb => limited(anna.post(&post(verb), &Value::Null)).await,
        };
        let what = match answer.status {
            500.. => format!("{verb} {} {}", answer.status, answer.text),
            status => format!("{verb} {status}"),
        };
        *seen.entry(what).or_default() += 1;
    }
    seen
}
