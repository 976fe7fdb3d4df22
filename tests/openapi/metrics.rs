//! The metrics, read by Prometheus' own parser: what they say is what the kernel shows, each sees their own, and
//! the dashboard that is given out asks for nothing that is not there.

use std::collections::{BTreeMap, BTreeSet};
use std::io::Write as _;
use std::path::Path;
use std::process::{Command, Stdio};
use std::time::Instant;

use serde_json::{Value, json};
use system_tests::containers::{import, in_status, run, until};
use system_tests::{Client, TestServer, programs, requires_root};

const DASHBOARD: &str = include_str!("../../web/static/grafana.json");
/// How long figures may take to come: they are looked at every ten seconds.
const LIMIT: std::time::Duration = std::time::Duration::from_secs(40);

/// Every series: its name, its labels, its value.
type Series = Vec<(String, BTreeMap<String, String>, f64)>;

/// What is scraped, parsed; names with their types in the second.
async fn scrape(python: &Path, client: &Client) -> (Series, BTreeMap<String, String>) {
    let answer = client.get("/api/v1/metrics").await.expect_status(200);
    assert_eq!(answer.header("content-type"), "text/plain; version=0.0.4; charset=utf-8");
    let script = Path::new(env!("CARGO_MANIFEST_DIR")).join("openapi/metrics.py");
    let mut child = Command::new(python)
        .arg(script)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .expect("run python");
    let mut stdin = child.stdin.take().expect("it is a pipe");
    let text = answer.text.clone();
    let feed = std::thread::spawn(move || drop(stdin.write_all(text.as_bytes())));
    let output = child.wait_with_output().expect("wait for it");
    feed.join().expect("it was fed");
    assert!(output.status.success(), "not understood:\n{}", answer.text);
    let families: Vec<Value> = serde_json::from_slice(&output.stdout).expect("JSON");
    let (mut series, mut types) = (Vec::new(), BTreeMap::new());
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    for family in &families {
        types.insert(text(&family["name"]), text(&family["type"]));
        assert!(!text(&family["help"]).is_empty(), "{family}");
        for one in family["series"].as_array().expect("series") {
            let labels = one["labels"].as_object().expect("labels").iter();
            let labels = labels.map(|(name, value)| (name.clone(), text(value))).collect();
            series.push((text(&one["name"]), labels, one["value"].as_f64().expect("a number")));
        }
    }
    (series, types)
}

/// The value of the one series of this name whose labels hold these.
fn value(series: &Series, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
    let fits = |found: &BTreeMap<String, String>| {
        labels.iter().all(|(name, value)| found.get(*name).is_some_and(|found| found == value))
    };
    let mut found = series.iter().filter(|(known, with, _)| known == name && fits(with));
    let first = found.next().map(|(.., value)| *value);
    assert!(found.next().is_none(), "{name} {labels:?} is there twice");
    first
}

#[tokio::test]
async fn metrics_are_what_prometheus_reads_and_the_dashboard_asks_for() {
    requires_root!();
    let python = match crate::python() {
        Ok(python) => python,
        Err(reason) => {
            programs::skip(&reason);
            return;
        }
    };
    let server = TestServer::start().await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    for client in [&anna, &bert] {
        import(client).await;
    }
    let limits = json!({"limits": {"memory_bytes": 64 << 20, "cpu_millis": 500, "pids": 32}});
    let busy = run(&anna, "busy", "while :; do :; done", limits).await;
    let idle = run(&bert, "idle", "sleep 600", json!({})).await;
    in_status(&anna, &busy, "running").await;
    in_status(&bert, &idle, "running").await;
    let olga = server.operator();
    let here = [("container", "busy"), ("person", "anna")];
    let begin = Instant::now();
    let (series, types) = loop {
        let (series, types) = scrape(&python, &olga).await;
        if value(&series, "berth_container_cpu_seconds_total", &here).is_some_and(|used| used > 0.5)
        {
            break (series, types);
        }
        assert!(begin.elapsed() < LIMIT, "no processor time came: {series:#?}");
    };
    let of = |name: &str, labels: &[(&str, &str)]| {
        value(&series, name, labels).unwrap_or_else(|| panic!("no {name} {labels:?}: {series:#?}"))
    };
    assert_eq!(of("berth_container_memory_limit_bytes", &here), f64::from(64 << 20));
    assert_eq!(of("berth_container_cpu_cores_limit", &here), 0.5);
    assert_eq!(of("berth_container_pids_limit", &here), 32.0);
    assert_eq!(of("berth_container_paused", &here), 0.0);
    assert!(of("berth_container_memory_bytes", &here) > 0.0);
    let stats = anna.get("/api/v1/containers/busy/stats").await.json();
    let used = stats["sample"]["cpu"]["usage_usec"].as_f64().expect("a number") / 1e6;
    let scraped = of("berth_container_cpu_seconds_total", &here);
    assert!(scraped <= used, "no more than the kernel says now: {scraped} and {used}");
    assert_eq!(of("berth_person_containers", &[("person", "anna"), ("state", "running")]), 1.0);
    assert_eq!(of("berth_person_images", &[("person", "bert")]), 1.0);
    assert_eq!(of("berth_containers_left_out", &[]), 0.0);
    assert!(of("berth_machine_cpus", &[]) >= 1.0);
    assert_eq!(types["berth_container_oom_kills"], "counter");
    assert_eq!(types["berth_container_memory_bytes"], "gauge");

    // The dashboard asks for what there is, by labels that there are.
    let names: BTreeSet<&str> = series.iter().map(|(name, ..)| name.as_str()).collect();
    let asked = asked_for(DASHBOARD);
    assert!(asked.len() >= 15, "the control: it asks for {asked:?}");
    let lacking: Vec<_> = asked.iter().filter(|name| !names.contains(name.as_str())).collect();
    // Without PSI in the kernel there is no pressure.
    assert!(
        lacking.iter().all(|name| name.starts_with("berth_machine_pressure")),
        "it asks for {lacking:?}, which is not there"
    );

    // A person sees their own figures, and no name of anybody else's.
    let (own, _) = scrape(&python, &bert).await;
    assert!(value(&own, "berth_container_pids_limit", &[("container", "idle")]).is_some());
    let others = |labels: &BTreeMap<String, String>| {
        labels.get("person").is_some_and(|person| person != "bert")
    };
    let seen: Vec<_> = own.iter().filter(|(_, labels, _)| others(labels)).collect();
    assert!(seen.is_empty(), "{seen:?}");
    assert!(!own.iter().any(|(name, ..)| name.starts_with("berth_machine")), "{own:?}");
    assert_eq!(server.anonymous().get("/api/v1/metrics").await.status, 401);

    // What rests has no series.
    bert.post("/api/v1/containers/idle/stop?grace_secs=0", &Value::Null).await;
    until(&bert, "/api/v1/containers/idle", |shown| shown["status"] == "exited").await;
    let (own, _) = scrape(&python, &bert).await;
    assert_eq!(value(&own, "berth_container_pids_limit", &[("container", "idle")]), None);
    assert_eq!(value(&own, "berth_person_containers", &[("state", "all")]), Some(1.0));
}

/// Every metric's name in the expressions of a dashboard.
fn asked_for(dashboard: &str) -> BTreeSet<String> {
    let dashboard: Value = serde_json::from_str(dashboard).expect("the dashboard is JSON");
    let mut names = BTreeSet::new();
    for panel in dashboard["panels"].as_array().expect("panels") {
        for target in panel["targets"].as_array().expect("targets") {
            let text = target["expr"].as_str().expect("an expression");
            let words = text.split(|c: char| !c.is_ascii_alphanumeric() && c != '_');
            names.extend(words.filter(|word| word.starts_with("berth_")).map(str::to_owned));
        }
    }
    names
}
