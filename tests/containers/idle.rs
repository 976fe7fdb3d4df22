//! What nobody uses is stopped, by what the kernel sees of its use: processor, disk, network, open programs.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{act, identity, import, run, show};
use system_tests::{Client, TestServer, requires_root};

/// The shortest that a rule may say, and looks are ten seconds apart.
const LIMIT: Duration = Duration::from_secs(120);
const QUIET: &str = "trap 'exit 0' TERM; sleep 7777 & wait";

async fn once(client: &Client, id: &str, good: impl Fn(&Value) -> bool) -> Value {
    let deadline = Instant::now() + LIMIT;
    loop {
        let seen = show(client, id).await;
        if good(&seen) {
            return seen;
        }
        assert!(Instant::now() < deadline, "{seen}");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
}

/// Sends to a container for as long as the task lives: nobody has to listen there.
fn talk_to(address: &Value) -> tokio::task::JoinHandle<()> {
    let address: SocketAddr =
        format!("{}:9", address.as_str().expect("an address")).parse().expect("an address");
    tokio::spawn(async move {
        let socket = tokio::net::UdpSocket::bind("0.0.0.0:0").await.expect("a socket");
        let mut ticks = tokio::time::interval(Duration::from_millis(200));
        loop {
            ticks.tick().await;
            // Who does not listen may say so.
            let _refused = socket.send_to(&[7; 1000], address).await;
        }
    })
}

#[tokio::test]
async fn what_nobody_uses_is_stopped_by_the_kernels_evidence() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    for person in [&anna, &bert] {
        import(person).await;
    }
    let id = anna.get("/api/v1/me").await.json()["id"].clone();
    let allowance = format!("/api/v1/people/{id}/allowance");
    olga.put(&allowance, &json!({"idle_secs": 30})).await.expect_status(200);

    let always = json!({"restart": {"name": "always"}});
    let quiet = run(&anna, "quiet", QUIET, always.clone()).await;
    let kept = run(&anna, "kept", QUIET, always).await;
    let busy =
        run(&anna, "busy", "while :; do :; done", json!({"limits": {"cpu_millis": 50}})).await;
    let talks = run(&anna, "talks", QUIET, json!({})).await;
    let open = run(&anna, "open", QUIET, json!({})).await;
    let frozen = run(&anna, "frozen", QUIET, json!({})).await;
    let others = run(&bert, "others", QUIET, json!({})).await;
    let talk = talk_to(&show(&anna, &talks).await["address"]);
    act(&anna, &frozen, "pause").await.expect_status(200);
    let session = json!({"program": {"command": ["sleep", "7777"]}});
    anna.post(&format!("/api/v1/containers/{open}/execs"), &session).await.expect_status(201);

    // It is told before, and a click is use.
    once(&anna, &kept, |now| now["idle"]["stops_soon"] == true).await;
    let page = format!("/containers/{kept}");
    assert!(anna.get(&page).await.text.contains("Nobody has used it for"));
    let form = anna.request("POST", &format!("{page}/extend"));
    let form = form.header("content-type", "application/x-www-form-urlencoded").body("back=");
    send(form).await.expect_status(303);
    let used = show(&anna, &kept).await;
    assert!(used["idle"]["idle_secs"].as_u64().is_some_and(|secs| secs < 10), "{used}");

    let ended = once(&anna, &quiet, |now| now["status"] == "exited").await;
    let said = "stopped: nobody has used it for 30 s; exited with code 0";
    assert_eq!(ended["status_text"], said, "{ended}");
    for (client, id) in [(&anna, &busy), (&anna, &talks), (&anna, &open), (&anna, &kept)] {
        let shown = show(client, id).await;
        assert_eq!(shown["status"], "running", "{shown}");
        identity(client, id).await;
    }
    assert_eq!(show(&anna, &frozen).await["status"], "paused", "what is paused waits");
    let control = show(&bert, &others).await;
    assert_eq!(
        (&control["status"], &control["idle"]["stops_at"]),
        (&json!("running"), &json!(null))
    );
    assert!(
        control["idle"]["idle_secs"].as_u64() > Some(25),
        "as unused, without a rule: {control}"
    );
    let audit = olga.get(&format!("/api/v1/audit?action=container.stop&subject={quiet}")).await;
    let rows = audit.expect_status(200).json()["items"].as_array().expect("rows").clone();
    assert_eq!((rows.len(), &rows[0]["via"]), (1, &json!("policy")), "{rows:?}");

    // The other control: what was kept from it by traffic is stopped without.
    talk.abort();
    let ended = once(&anna, &talks, |now| now["status"] == "exited").await;
    assert_eq!(ended["status_text"], said, "{ended}");
    // No policy starts it again, and a start is use.
    assert_eq!(show(&anna, &quiet).await["status"], "exited");
    act(&anna, &quiet, "start").await.expect_status(200);
    identity(&anna, &quiet).await;
}
