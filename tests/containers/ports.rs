//! Ports of the host: leased with a container and gone with it, held against everybody else's, reached by
//! whoever may. What the kernel makes of them is tried in `tests/network`.

use std::io::Read;
use std::net::{Ipv4Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, LIMIT, act, import, in_status, ready, run, show};
use system_tests::{Answer, Options, TestServer, requires_root};

/// Answers each who connects to 8080, for ever.
const SERVES: &str = "exec nc -ll -p 8080 -e echo hello";

/// What is said on a port of the host; none when nobody answers.
fn said(port: u64) -> Option<String> {
    let address = (Ipv4Addr::LOCALHOST, u16::try_from(port).expect("a port")).into();
    let mut stream = TcpStream::connect_timeout(&address, Duration::from_secs(2)).ok()?;
    stream.set_read_timeout(Some(Duration::from_secs(5))).expect("a limit");
    let mut text = String::new();
    stream.read_to_string(&mut text).ok()?;
    (!text.is_empty()).then_some(text)
}

async fn says(port: u64, wanted: Option<&str>) {
    let begin = Instant::now();
    loop {
        let now = tokio::task::spawn_blocking(move || said(port)).await.expect("it ends");
        if now.as_deref() == wanted {
            return;
        }
        assert!(begin.elapsed() < LIMIT, "port {port} says {now:?} and not {wanted:?}");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

fn host_port(shown: &Value) -> u64 {
    shown["ports"][0]["host_port"].as_u64().unwrap_or_else(|| panic!("no port: {shown}"))
}

#[tokio::test]
async fn a_port_is_a_containers_from_its_making_to_its_removal() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    for client in [&anna, &bert] {
        import(client).await;
    }
    let wanted = json!({"ports": [{"container_port": 8080}]});
    let web = run(&anna, "web", SERVES, wanted.clone()).await;
    let shown = in_status(&anna, &web, "running").await;
    let port = host_port(&shown);
    assert_eq!(
        shown["ports"],
        json!([{"protocol": "tcp", "host_port": port, "container_port": 8080}])
    );
    says(port, Some("hello\n")).await;
    // Another's leads elsewhere.
    let other = run(&bert, "other", SERVES, wanted).await;
    let others = host_port(&in_status(&bert, &other, "running").await);
    assert_ne!(others, port);
    says(others, Some("hello\n")).await;

    // It stays while the container rests, and over kills of both processes.
    act(&anna, &web, "stop").await.expect_status(200);
    says(port, None).await;
    let late = json!({
        "name": "late", "image": IMAGE, "ports": [{"container_port": 80, "host_port": port}],
    });
    held(&bert.post("/api/v1/containers", &late).await);
    act(&anna, &web, "start").await.expect_status(200);
    says(port, Some("hello\n")).await;
    server.kill_server();
    server.kill_supervisor();
    server.start_supervisor().await;
    server.start_server().await;
    ready(&server).await;
    says(port, Some("hello\n")).await;
    assert_eq!(host_port(&show(&anna, &web).await), port);
    // Removed, it is free for whoever comes.
    anna.delete(&format!("/api/v1/containers/{web}?force=true")).await.expect_status(204);
    says(port, None).await;
    let body = json!({
        "name": "next", "image": IMAGE, "command": ["sh", "-c", SERVES], "start": true,
        "ports": [{"container_port": 8080, "host_port": port}],
    });
    bert.post("/api/v1/containers", &body).await.expect_status(201);
    says(port, Some("hello\n")).await;
}

/// What is said of a port that is leased already.
fn held(answer: &Answer) -> String {
    assert_eq!(answer.status, 409, "{}", answer.text);
    let problem = answer.json();
    assert_eq!(problem["type"], "/problems/port.held");
    problem["detail"].as_str().expect("words").to_owned()
}

#[tokio::test]
async fn whose_a_port_is_is_told_to_those_who_see_it_anyhow() {
    requires_root!();
    let server = TestServer::start().await;
    let (anna, bert) = (server.person("anna", "user").await, server.person("bert", "user").await);
    let olga = server.operator();
    for client in [&anna, &bert, &olga] {
        import(client).await;
    }
    let body = json!({
        "name": "web", "image": IMAGE, "command": ["true"], "ports": [{"container_port": 8080}],
    });
    let shown = anna.post("/api/v1/containers", &body).await.expect_status(201).json();
    let (web, port) = (shown["id"].clone(), host_port(&shown));
    let mut other = body.clone();
    other["name"] = json!("other");
    bert.post("/api/v1/containers", &other).await.expect_status(201);

    // Held: to others it is only said that it is, to an operator by whom.
    let body = json!({
        "name": "late", "image": IMAGE, "command": ["true"],
        "ports": [{"container_port": 80, "host_port": port}],
    });
    let told = held(&bert.post("/api/v1/containers", &body).await);
    assert!(told.contains("somebody else") && !told.contains("anna"), "{told}");
    let told = held(&anna.post("/api/v1/containers", &body).await);
    assert!(told.contains("your container web"), "{told}");
    let told = held(&olga.post("/api/v1/containers", &body).await);
    assert!(told.contains("web of anna"), "{told}");
    assert_eq!(
        bert.get("/api/v1/containers").await.json()["items"].as_array().map(Vec::len),
        Some(1)
    );
    // Of the other protocol it is another port.
    let mut udp = body.clone();
    udp["ports"][0]["protocol"] = json!("udp");
    bert.post("/api/v1/containers", &udp).await.expect_status(201);

    // Lists: each their own, operators everybody's, page by page.
    let listed = anna.get("/api/v1/ports").await.expect_status(200).json();
    assert_eq!(
        listed["items"],
        json!([{
            "protocol": "tcp", "host_port": port, "container_port": 8080, "container": web,
            "container_name": "web", "owner": shown["owner"],
        }])
    );
    let first = olga.get("/api/v1/ports?limit=2").await.json();
    let next = first["next"].as_str().expect("there is more");
    let second = olga.get(&format!("/api/v1/ports?limit=2&after={next}")).await.json();
    let names = |page: &Value| -> Vec<String> {
        let items = page["items"].as_array().expect("items").iter();
        items.map(|item| item["container_name"].as_str().expect("a name").to_owned()).collect()
    };
    assert_eq!([names(&first), names(&second)].concat(), ["web", "other", "late"]);
}

#[tokio::test]
async fn ports_are_bounded_and_what_cannot_be_is_said() {
    requires_root!();
    let sections = "[containers]\nports_per_person_max = 3\n".to_owned();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    import(&anna).await;
    let policy = anna.get("/api/v1/ports/policy").await.expect_status(200).json();
    assert_eq!(
        (&policy["per_person_max"], &policy["addresses"]),
        (&json!(3), &json!(["127.0.0.1"]))
    );
    let first = policy["first"].as_u64().expect("a port");
    let made = async |ports: Value| {
        let body = json!({"image": IMAGE, "command": ["true"], "ports": ports});
        anna.post("/api/v1/containers", &body).await
    };
    for (ports, pointer) in [
        (json!([{"container_port": 0}]), "/ports/0/container_port"),
        (json!([{"container_port": 1, "host_port": first - 1}]), "/ports/0/host_port"),
        (
            json!([{"container_port": 1, "host_port": first}, {"container_port": 2, "host_port": first}]),
            "/ports/1/host_port",
        ),
    ] {
        let problem = made(ports).await.expect_status(422).json();
        assert_eq!(problem["fields"][0]["pointer"], pointer, "{problem}");
    }
    let body = json!({
        "image": IMAGE, "command": ["true"], "network": "none", "ports": [{"container_port": 1}],
    });
    anna.post("/api/v1/containers", &body).await.expect_status(422);
    // One that is named is not given away as a free one.
    let both = json!([{"container_port": 1}, {"container_port": 2, "host_port": first}]);
    let made_two = made(both).await.expect_status(201).json();
    let ports: Vec<_> = made_two["ports"].as_array().expect("ports").iter().collect();
    assert_eq!(ports.len(), 2, "{made_two}");
    assert!(ports.iter().any(|port| port["host_port"] == first && port["container_port"] == 2));
    let two = json!([{"container_port": 1}, {"container_port": 2}]);
    let problem = made(two).await.expect_status(507).json();
    assert_eq!(problem["type"], "/problems/port.too-many");
    assert!(problem["detail"].as_str().is_some_and(|text| text.contains("2 ports")), "{problem}");
    made(json!([{"container_port": 1}])).await.expect_status(201);
    // The same by the form, which says what is wrong beside the field.
    let form = |text: &str| {
        let text: String = text.bytes().map(|byte| format!("%{byte:02X}")).collect();
        let request = anna.request("POST", "/launch/preview");
        let request = request.header("content-type", "application/x-www-form-urlencoded");
        request.body(format!("image=berth%2Fbusybox%3A1&command=true&ports={text}"))
    };
    let plain = async |text: &str| {
        let page = system_tests::client::send(form(text)).await.text;
        page.replace("&#34;", "\"").replace("&quot;", "\"")
    };
    assert!(plain("80\n53/sctp").await.contains("\"53/sctp\" is not 8080"));
    assert!(plain("8080/udp").await.contains("\"protocol\": \"udp\""));
}
