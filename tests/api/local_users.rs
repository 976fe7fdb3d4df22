//! The socket for this host's users: who they are is the kernel's word and the host's names, never theirs.

use serde_json::json;
use system_tests::{Check, Client, Options, TestServer, requires_root};

/// Users that every host of ours has: name and id (`/usr/share/doc/base-passwd`).
const DAEMON: u32 = 1;
const BIN: u32 = 2;
/// An id without a name.
const NAMELESS: u32 = 4_000_000;

#[tokio::test]
async fn a_user_of_the_host_is_who_an_operator_says_they_are_and_nobody_else() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let anna_id = anna.get("/api/v1/me").await.json()["id"].clone();
    let socket = server.run_dir().join("local/berth.sock");
    let daemon = Client::local(&socket, DAEMON);
    let bin = Client::local(&socket, BIN);
    let refused = |variant, seen: (u16, serde_json::Value)| {
        let control = "the user who is named on a person's page is that person";
        Check { id: "A09", variant, control }.sees("403 local.no-account", said(&seen));
    };
    refused("a user of the host whom nobody has named", daemon("GET", "/api/v1/me", &[]));
    refused("the same, for what is open to all", daemon("GET", "/healthz", &[]));

    let page = format!("/api/v1/people/{anna_id}");
    let named = server.operator().patch(&page, &json!({"local_user": "daemon"})).await;
    assert_eq!(named.expect_status(200).json()["local_user"], "daemon");
    let told = anna.get("/api/v1/events?limit=50").await;
    assert!(told.text.contains("person.local_user"), "the person is told: {told:?}");
    let (status, me) = daemon("GET", "/api/v1/me", &[]);
    assert_eq!((status, &me["name"]), (200, &json!("anna")), "{me}");
    // What they do is anna's, and the audit says by which door.
    let key =
        ["-H", "Content-Type: application/json", "-d", r#"{"name":"x","scope":"read","days":1}"#];
    let made = daemon("POST", "/api/v1/tokens", &key);
    let control = "anna by her session makes one";
    Check { id: "A09", variant: "a token that outlives the user of the host", control }
        .sees("403 token.scope", said(&made));
    let own = json!({"name": "x", "scope": "read", "days": 1});
    let token = anna.post("/api/v1/tokens", &own).await.expect_status(201).json();
    let (status, body) = daemon("DELETE", "/api/v1/containers/none", &[]);
    assert_eq!((status, code(&body)), (404, "not-found"), "{body}");
    let rows = server.operator().get("/api/v1/audit?actor=anna&limit=100").await.json();
    let by_socket = |row: &&serde_json::Value| row["via"] == "local_user";
    let found = rows["items"].as_array().expect("rows").iter().find(by_socket);
    assert!(found.is_some_and(|row| row["address"] == "" || row["address"].is_null()), "{rows}");

    // Whatever they show, they are who the kernel says.
    let bearer = format!("Authorization: Bearer {}", token["secret"].as_str().expect("a token"));
    refused("another user with somebody's token", bin("GET", "/api/v1/me", &["-H", &bearer]));
    let nameless = Client::local(&socket, NAMELESS)("GET", "/api/v1/me", &[]);
    Check { id: "A09", variant: "an id without a name", control: "an id with one gets an answer" }
        .sees(0, nameless.0);

    // Of two people only one can be that user.
    let berta = server.person("berta", "user").await;
    let berta_id = berta.get("/api/v1/me").await.json()["id"].clone();
    let second = server.operator();
    let taken =
        second.patch(&format!("/api/v1/people/{berta_id}"), &json!({"local_user": "daemon"})).await;
    assert_eq!((taken.status, code(&taken.json())), (409, "person.local-user-taken"));
    // Nobody but an operator says who is who.
    let own =
        berta.patch(&format!("/api/v1/people/{berta_id}"), &json!({"local_user": "bin"})).await;
    assert_eq!(own.status, 403, "{own:?}");

    // It ends with the word that began it, or with the account.
    server.operator().patch(&page, &json!({"disabled": true})).await.expect_status(200);
    refused("the user of somebody who is disabled", daemon("GET", "/api/v1/me", &[]));
    server.operator().patch(&page, &json!({"disabled": false})).await.expect_status(200);
    assert_eq!(daemon("GET", "/api/v1/me", &[]).0, 200);
    server.operator().patch(&page, &json!({"local_user": ""})).await.expect_status(200);
    refused("a user who is nobody's any more", daemon("GET", "/api/v1/me", &[]));
}

#[tokio::test]
async fn whoever_needs_a_second_factor_only_looks() {
    requires_root!();
    let sections = "[auth]\nsecond_factor = \"overseers\"\n".to_owned();
    let server = TestServer::with(Options { sections, ..Default::default() }).await;
    let root = server.root();
    let people = root.get("/api/v1/people").await.expect_status(200).json();
    let olga = people["items"][0]["id"].clone();
    let page = format!("/api/v1/people/{olga}");
    root.patch(&page, &json!({"local_user": "daemon"})).await.expect_status(200);
    let socket = server.run_dir().join("local/berth.sock");
    let daemon = Client::local(&socket, DAEMON);
    assert_eq!(daemon("GET", "/api/v1/containers", &[]).0, 200);
    let removed = daemon("DELETE", "/api/v1/containers/none", &[]);
    let control = "a user of whom none is required gets 404 for the same";
    Check { id: "A09", variant: "an operator without a factor on the local socket", control }
        .sees("403 token.scope", said(&removed));
}

fn said((status, problem): &(u16, serde_json::Value)) -> String {
    format!("{status} {}", code(problem))
}

fn code(problem: &serde_json::Value) -> &str {
    let address = problem["type"].as_str().unwrap_or_default();
    address.strip_prefix("/problems/").unwrap_or_default()
}
