//! `Idempotency-Key`: a create that is sent again makes nothing new.

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{Answer, Client, TestServer, requires_root};

async fn create(client: &Client, key: Option<&str>, name: &str) -> Answer {
    // Nothing is there to pull from: the rows are what is looked at.
    let body = json!({"image": "127.0.0.1:1/none:latest", "name": name});
    let mut request = client.request("POST", "/api/v1/containers").json(&body);
    if let Some(key) = key {
        request = request.header("idempotency-key", key);
    }
    send(request).await
}

fn id(answer: &Answer) -> Value {
    assert!(matches!(answer.status, 201 | 202), "{answer:?}");
    answer.json()["id"].clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 4)]
async fn a_create_sent_again_answers_with_the_first_ones_object() {
    requires_root!();
    let server = TestServer::start().await;
    let anna = server.person("anna", "user").await;
    let senders: Vec<_> = (0..16)
        .map(|_| {
            let anna = anna.clone();
            tokio::spawn(async move { create(&anna, Some("key-1"), "train").await })
        })
        .collect();
    let mut ids = Vec::new();
    for sender in senders {
        ids.push(id(&sender.await.expect("a sender ends")));
    }
    assert!(ids.iter().all(|id| *id == ids[0]), "{ids:?}");
    // It holds over a crash: the key is in the same commit as the container.
    server.kill_server();
    server.start_server().await;
    assert_eq!(id(&create(&anna, Some("key-1"), "train").await), ids[0]);
    let listed = anna.get("/api/v1/containers").await.expect_status(200).json();
    assert_eq!(listed["items"].as_array().map(Vec::len), Some(1), "{listed}");
    // The same key with another request is a mistake of the caller's.
    let answer = create(&anna, Some("key-1"), "other").await;
    assert_eq!((answer.status, answer.code().as_str()), (422, "idempotency-key.reused"));
    // Another person's keys are another person's.
    let berta = server.person("berta", "user").await;
    assert_ne!(id(&create(&berta, Some("key-1"), "train").await), ids[0]);
    // The control: without a key, or with another one, the request is a new one, whose name is taken.
    assert_eq!(create(&anna, None, "train").await.status, 409);
    assert_eq!(create(&anna, Some("key-2"), "train").await.status, 409);
    assert_ne!(id(&create(&anna, Some("key-2"), "eval").await), ids[0]);
}
