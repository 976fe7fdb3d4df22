//! Rate limits: by person and by address, and that nobody spends another's.

use std::time::{Duration, Instant};

use serde_json::json;
use system_tests::client::send;
use system_tests::instance::PASSWORD;
use system_tests::{Answer, Client, Options, TestServer, requires_root};

async fn server(rates: &str) -> TestServer {
    TestServer::with(Options {
        no_supervisor: true,
        server: "trusted_proxies = [\"127.0.0.1\"]".into(),
        sections: format!("[rates]\n{rates}\n"),
        ..Options::default()
    })
    .await
}

/// Asks until it is refused; how often it was answered, and the refusal.
async fn until_refused(ask: impl AsyncFn() -> Answer) -> (u32, Answer) {
    for count in 0..1000 {
        let answer = ask().await;
        if answer.status == 429 {
            return (count, answer);
        }
    }
    panic!("nothing was refused");
}

fn assert_says_when(answer: &Answer, budget: &str) -> u64 {
    assert_eq!(answer.code(), "too-many-requests", "{answer:?}");
    assert!(answer.header("ratelimit-policy").starts_with(&format!("\"{budget}\";q=")));
    assert!(answer.header("ratelimit").starts_with(&format!("\"{budget}\";r=0;t=")));
    answer.header("retry-after").parse().expect("seconds")
}

#[tokio::test]
async fn a_person_has_a_minutes_worth_and_nobody_spends_it_for_them() {
    requires_root!();
    let server = server("person_per_min = 120").await;
    let anna = server.person("anna", "user").await;
    let bert = server.person("bert", "user").await;
    let first = anna.get("/api/v1/me").await.expect_status(200);
    assert!(first.header("ratelimit-policy").contains("q=120;w=60"), "{first:?}");
    let (count, refused) = until_refused(async || anna.get("/api/v1/me").await).await;
    assert!((100..=140).contains(&count), "{count} of 120");
    let wait = assert_says_when(&refused, "person");
    assert!((1..=3).contains(&wait), "{wait} s");
    // A page says it as well.
    let page = anna.get("/account").await;
    assert!(page.status == 429 && page.code() == "too-many-requests", "{page:?}");
    // Another person, at the same address, is not hindered; nor are strangers on loopback.
    bert.get("/api/v1/me").await.expect_status(200);
    server.anonymous().get("/healthz").await.expect_status(200);
    // Another token of hers is hers.
    let deadline = Instant::now() + Duration::from_secs(10);
    while anna.get("/api/v1/me").await.status == 429 {
        assert!(Instant::now() < deadline, "it never came back");
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
}

#[tokio::test]
async fn changes_and_costly_requests_have_budgets_of_their_own() {
    requires_root!();
    let server = server("changes_per_min = 20\ncostly_per_min = 3").await;
    let anna = server.person("anna", "user").await;
    let pull = json!({"reference": "No Reference"});
    let (count, refused) =
        until_refused(async || anna.post("/api/v1/images/pull", &pull).await).await;
    assert!((3..=4).contains(&count), "{count} of 3");
    assert_says_when(&refused, "costly");
    let (count, refused) = until_refused(async || anna.delete("/api/v1/tokens/none").await).await;
    assert!((12..=20).contains(&count), "{count} of what is left of 20");
    assert_says_when(&refused, "changes");
    anna.get("/api/v1/me").await.expect_status(200);
}

#[tokio::test]
async fn an_address_is_limited_and_never_those_who_have_signed_in_there() {
    requires_root!();
    let server = server("address_per_min = 30\nsign_ins_per_min = 5").await;
    let lab = "198.51.100.7";
    let from = |client: &Client, address: &str, path: &str| {
        client.request("GET", path).header("x-forwarded-for", address)
    };
    let anna = server.person("anna", "user").await;
    let nobody = server.anonymous();
    let (count, refused) = until_refused(async || send(from(&nobody, lab, "/readyz")).await).await;
    assert!((30..=32).contains(&count), "{count} of 30");
    assert_says_when(&refused, "address");
    // Tokens that are no good are a stranger's requests.
    let forged = nobody.with_bearer("forged");
    assert_eq!(send(from(&forged, lab, "/api/v1/me")).await.status, 429);
    // Where nothing is, it is the same.
    assert_eq!(send(from(&nobody, lab, "/no-such-page")).await.status, 429);
    // Who has signed in is not hindered there, nor is another address.
    send(from(&anna, lab, "/api/v1/me")).await.expect_status(200);
    assert_eq!(send(from(&nobody, "198.51.100.8", "/healthz")).await.status, 200);

    let sign_in = async |cookie: &str, address: &str| {
        let body = json!({"name": "anna", "password": PASSWORD});
        let request = nobody.raw("POST", "/api/v1/sessions").json(&body);
        let request = request.header("x-forwarded-for", address).header("cookie", cookie);
        send(request.header("sec-fetch-site", "same-origin")).await
    };
    let (count, refused) = until_refused(async || sign_in("", "198.51.100.9").await).await;
    assert!((5..=6).contains(&count), "{count} of 5");
    assert_says_when(&refused, "sign-ins");
    // The owner's own browser signs in from that very address.
    let device =
        anna.cookie().split("; ").find(|pair| pair.contains("_device=")).expect("a device");
    sign_in(device, "198.51.100.9").await.expect_status(201);
}
