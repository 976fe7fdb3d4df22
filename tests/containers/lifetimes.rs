//! How long containers run: stopped at their end and kept, put off within what is allowed, bounded by an allowance
//! that is lowered later, found when the server was away.

use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::containers::{act, identity, import, in_status, log, run, show, until};
use system_tests::{Client, TestServer, requires_root};

/// Ends of its own accord when it is asked to, and says so.
const POLITE: &str = "trap 'echo bye; exit 0' TERM; while :; do usleep 20000; done";

/// Seconds from now to a time as the API writes it: `2026-11-28T17:00:00.250Z`.
fn ahead(time: &Value) -> f64 {
    let text = time.as_str().unwrap_or_else(|| panic!("{time} is no time"));
    let part = |from: usize, to: usize| text[from..to].parse::<i64>().expect("digits");
    // Days by the calendar that counts years from March.
    let (month, year) = ((part(5, 7) + 9) % 12, part(0, 4) - i64::from(part(5, 7) < 3));
    let days = 365 * year + year / 4 - year / 100 + year / 400 + (month * 306 + 5) / 10;
    let days = days + part(8, 10) - 1 - 719_468;
    let secs = days * 86_400 + part(11, 13) * 3600 + part(14, 16) * 60 + part(17, 19);
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("a clock").as_secs_f64();
    secs as f64 + part(20, 23) as f64 / 1000.0 - now
}

async fn allowance_of(person: &Client) -> String {
    format!("/api/v1/people/{}/allowance", person.get("/api/v1/me").await.json()["id"])
}

async fn extend(person: &Client, id: &str, query: &str) -> system_tests::Answer {
    person.post(&format!("/api/v1/containers/{id}/extend{query}"), &Value::Null).await
}

async fn told(olga: &Client, id: &str) -> Vec<String> {
    let path = format!("/api/v1/containers/{id}/activity?limit=100");
    let lines = olga.get(&path).await.expect_status(200).json();
    let texts = lines["items"].as_array().expect("lines").iter();
    texts.map(|line| line["text"].as_str().unwrap_or_default().to_owned()).collect()
}

#[tokio::test]
async fn a_container_is_stopped_at_its_end_and_kept() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    import(&anna).await;
    let always = |secs: Option<u32>| json!({"restart": {"name": "always"}, "lifetime_secs": secs});
    let begun = Instant::now();
    let ends = run(&anna, "ends", POLITE, always(Some(10))).await;
    let frozen = run(&anna, "frozen", POLITE, always(Some(10))).await;
    act(&anna, &frozen, "pause").await.expect_status(200);
    let flaps = run(&anna, "flaps", "usleep 100000; exit 3", always(Some(10))).await;
    let stays = run(&anna, "stays", POLITE, always(None)).await;
    let shown = show(&anna, &ends).await;
    assert!((5.0..=10.0).contains(&ahead(&shown["ends_at"])), "{shown}");
    assert_eq!((&shown["lifetime_secs"], &shown["ends_soon"]), (&json!(10), &json!(false)));
    assert_eq!(show(&anna, &stays).await["ends_at"], json!(null));
    // What its policy starts again goes on with the same end.
    let end = show(&anna, &flaps).await["ends_at"].clone();
    let path = format!("/api/v1/containers/{flaps}");
    let later = until(&anna, &path, |now| now["run"].as_u64() > Some(2)).await;
    assert_eq!(later["ends_at"], end, "{later}");

    let ended = in_status(&anna, &ends, "exited").await;
    assert!(begun.elapsed() >= Duration::from_secs(9), "{:?}", begun.elapsed());
    let said = "stopped: its lifetime of 10 s ended; exited with code 0";
    assert_eq!(ended["status_text"], said, "{ended}");
    assert!(log(&anna, &ends, "").await.contains("bye"), "it was asked, not killed");
    assert_eq!(ended["ends_at"], json!(null));
    let thawed = in_status(&anna, &frozen, "exited").await;
    assert_eq!(thawed["status_text"], said, "a frozen one is thawed to end: {thawed}");
    let flapped = in_status(&anna, &flaps, "exited").await;
    assert_eq!(flapped["status"], "exited");
    // It was told before, by the rule that did it, once.
    let lines = told(&olga, &ends).await;
    assert!(lines.iter().any(|line| line.starts_with("its time is nearly over")), "{lines:?}");
    assert!(lines.iter().any(|line| line.contains("its lifetime of 10 s ended")), "{lines:?}");
    let audit = olga.get(&format!("/api/v1/audit?action=container.stop&subject={ends}")).await;
    let rows = audit.expect_status(200).json()["items"].as_array().expect("rows").clone();
    assert_eq!((rows.len(), &rows[0]["via"]), (1, &json!("policy")), "{rows:?}");

    // No policy starts it again; the control runs on; somebody may, and its time begins anew.
    server.kill_server();
    server.start_server().await;
    identity(&anna, &stays).await;
    for id in [&ends, &frozen, &flaps] {
        assert_eq!(show(&anna, id).await["status"], "exited");
    }
    let anew = act(&anna, &ends, "start").await.expect_status(200).json();
    assert!(ahead(&anew["ends_at"]) > 5.0, "{anew}");
}

#[tokio::test]
async fn an_end_is_put_off_within_what_is_allowed() {
    requires_root!();
    let server = TestServer::start().await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    import(&anna).await;
    let allowance = allowance_of(&anna).await;
    let wrong = json!({"lifetime_secs": 60, "lifetime_default_secs": 61});
    let refused = olga.put(&allowance, &wrong).await.expect_status(422);
    assert!(refused.text.contains("/lifetime_default_secs"), "{}", refused.text);
    let rule = json!({"lifetime_secs": 3600, "lifetime_default_secs": 30});
    olga.put(&allowance, &rule).await.expect_status(200);

    let body = json!({"image": "berth/busybox:1", "lifetime_secs": 3601});
    let refused = anna.post("/api/v1/containers", &body).await.expect_status(422);
    assert!(refused.text.contains("/lifetime_secs") && refused.text.contains("1 h"), "{refused:?}");

    let id = run(&anna, "work", POLITE, json!({})).await;
    let shown = show(&anna, &id).await;
    assert!((20.0..=30.0).contains(&ahead(&shown["ends_at"])), "the usual: {shown}");
    let page = format!("/containers/{id}");
    assert!(!anna.get(&page).await.text.contains("Its time is nearly over"), "the control");
    until(&anna, &format!("/api/v1/containers/{id}"), |now| now["ends_soon"] == true).await;
    assert!(anna.get(&page).await.text.contains("Its time is nearly over"));
    assert!(anna.get("/containers").await.text.contains("stops in"));
    // By one click, as the page's button does it.
    let form = anna.request("POST", &format!("{page}/extend"));
    let form = form.header("content-type", "application/x-www-form-urlencoded").body("back=");
    send(form).await.expect_status(303);
    let put_off = show(&anna, &id).await;
    assert!((20.0..=30.0).contains(&ahead(&put_off["ends_at"])), "{put_off}");
    assert_eq!(put_off["ends_soon"], json!(false));

    let far = extend(&anna, &id, "?secs=3000").await.expect_status(200).json();
    assert!((2900.0..=3000.0).contains(&ahead(&far["ends_at"])), "{far}");
    for (query, status, code) in [
        ("", 409, "container.no-later"),
        ("?secs=100", 409, "container.no-later"),
        ("?secs=3700", 409, "container.lifetime"),
        ("?secs=9", 422, "request.invalid"),
    ] {
        let refused = extend(&anna, &id, query).await;
        assert_eq!((refused.status, refused.code().as_str()), (status, code), "{}", refused.text);
    }
    assert_eq!(show(&anna, &id).await["ends_at"], far["ends_at"], "refused is not done");
    act(&anna, &id, "stop?grace_secs=0").await.expect_status(200);
    let refused = extend(&anna, &id, "").await;
    assert_eq!((refused.status, refused.code().as_str()), (409, "container.not-running"));

    // Without a rule there is no end, until one is asked for.
    olga.put(&allowance, &json!({})).await.expect_status(200);
    let free = act(&anna, &id, "start").await.expect_status(200).json();
    assert_eq!(free["ends_at"], json!(null), "{free}");
    assert_eq!(extend(&anna, &id, "").await.code(), "container.no-end");
    let asked = extend(&anna, &id, "?secs=600").await.expect_status(200).json();
    assert!((500.0..=600.0).contains(&ahead(&asked["ends_at"])), "{asked}");
}

#[tokio::test]
async fn a_lowered_allowance_counts_from_then_on_and_an_end_is_found_after_an_absence() {
    requires_root!();
    let server = TestServer::start().await;
    let olga = server.operator();
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    for person in [&anna, &bert] {
        import(person).await;
    }
    // Bert's own, without a bound, is what applies to him.
    olga.put(&allowance_of(&bert).await, &json!({})).await.expect_status(200);
    let annas = run(&anna, "annas", POLITE, json!({})).await;
    let short = run(&anna, "short", POLITE, json!({"lifetime_secs": 30})).await;
    let berts = run(&bert, "berts", POLITE, json!({})).await;
    let before = show(&anna, &short).await["ends_at"].clone();

    let rule = json!({"lifetime_secs": 1000});
    let path = "/api/v1/allowance/preview";
    let seen = olga.post(path, &rule).await.expect_status(200).json();
    let over = seen["over"].as_array().expect("people");
    let endings: Vec<_> = over.iter().map(|one| (&one["name"], &one["endings_total"])).collect();
    assert_eq!(endings, [(&json!("anna"), &json!(1))], "{seen}");
    assert_eq!(over[0]["endings"][0]["name"], "annas", "{seen}");
    assert_eq!(show(&anna, &annas).await["ends_at"], json!(null), "a look changes nothing");

    olga.put("/api/v1/allowance", &rule).await.expect_status(200);
    let bounded = show(&anna, &annas).await;
    assert!((900.0..=1000.0).contains(&ahead(&bounded["ends_at"])), "{bounded}");
    assert_eq!(show(&anna, &short).await["ends_at"], before, "what ends sooner stays so");
    assert_eq!(show(&bert, &berts).await["ends_at"], json!(null), "another's own allowance");
    // A group's holds beside it: the smaller one of both.
    let group = json!({"lifetime_secs": 600});
    olga.put("/api/v1/groups/2/allowance", &group).await.expect_status(200);
    let lower = show(&anna, &annas).await;
    assert!((500.0..=600.0).contains(&ahead(&lower["ends_at"])), "{lower}");
    let too = show(&bert, &berts).await;
    assert!((500.0..=600.0).contains(&ahead(&too["ends_at"])), "he counts to it: {too}");
    let at_most = extend(&bert, &berts, "").await;
    assert_eq!(at_most.code(), "container.lifetime", "{}", at_most.text);

    // The server is away when the time comes.
    let (pid, _) = identity(&anna, &short).await;
    server.kill_server();
    let left = Duration::from_secs_f64(ahead(&before).max(0.0)) + Duration::from_millis(200);
    let over = Instant::now() + left;
    tokio::time::sleep_until(over.into()).await;
    assert!(std::path::Path::new(&format!("/proc/{pid}")).exists(), "the control: it ran on");
    server.start_server().await;
    let ended = in_status(&anna, &short, "exited").await;
    let said = "stopped: its lifetime of 30 s ended; exited with code 0";
    assert_eq!(ended["status_text"], said, "with its grace: {ended}");
    identity(&anna, &annas).await;
}
