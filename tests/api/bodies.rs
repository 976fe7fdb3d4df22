//! Bodies of requests made by chance, after the API's own description and beside it: whatever comes is
//! answered with less than 500, and the server goes on. `BERTH_LONG=1` takes ten minutes.

use std::time::{Duration, Instant};

use serde_json::{Map, Value, json};
use system_tests::client::send;
use system_tests::{Check, Client, Dice, Options, TestServer, is_long, requires_root};

/// Values that parsers have stumbled over.
fn odd(dice: &mut Dice) -> Value {
    let all = [
        Value::Null,
        json!(true),
        json!(-1),
        json!(0),
        json!(u64::MAX),
        json!(i64::MIN),
        json!(1e308),
        json!(0.1),
        json!(""),
        json!("\u{0}"),
        json!("a\nb\u{202e}\u{1b}[2J"),
        json!("../../../etc/passwd"),
        json!("x".repeat(70_000)),
        json!("'; drop table people; --"),
        json!([]),
        json!({}),
        json!([[[[[[[[]]]]]]]]),
        json!({"": {"": {"": null}}}),
        json!(["a", 1, null]),
        json!("sha256:".to_owned() + &"a".repeat(64)),
    ];
    all[dice.below(all.len())].clone()
}

/// A value of a schema, or one that is none in one place of eight.
fn value(schema: &Value, document: &Value, depth: usize, dice: &mut Dice) -> Value {
    if depth > 6 || dice.below(8) == 0 {
        return odd(dice);
    }
    if let Some(place) = schema["$ref"].as_str() {
        let target = document.pointer(place.trim_start_matches('#')).cloned().unwrap_or_default();
        return value(&target, document, depth + 1, dice);
    }
    for key in ["oneOf", "anyOf", "allOf"] {
        if let Some(choices) = schema[key].as_array().filter(|all| !all.is_empty()) {
            return value(&choices[dice.below(choices.len())], document, depth + 1, dice);
        }
    }
    if let Some(words) = schema["enum"].as_array().filter(|all| !all.is_empty()) {
        return words[dice.below(words.len())].clone();
    }
    let kind = match &schema["type"] {
        Value::Array(kinds) if !kinds.is_empty() => kinds[dice.below(kinds.len())].clone(),
        one => one.clone(),
    };
    match kind.as_str() {
        Some("object") => object(schema, document, depth, dice),
        Some("array") => {
            let count = dice.below(4);
            (0..count).map(|_| value(&schema["items"], document, depth + 1, dice)).collect()
        }
        Some("integer" | "number") => json!(dice.below(1 << 20)),
        Some("boolean") => json!(dice.below(2) == 0),
        Some("string") => json!(format!("word{}", dice.below(1000))),
        _ => odd(dice),
    }
}

fn object(schema: &Value, document: &Value, depth: usize, dice: &mut Dice) -> Value {
    let mut made = Map::new();
    for (key, of) in schema["properties"].as_object().into_iter().flatten() {
        if dice.below(5) != 0 {
            made.insert(key.clone(), value(of, document, depth + 1, dice));
        }
    }
    if dice.below(6) == 0 {
        made.insert(format!("more{}", dice.below(9)), odd(dice));
    }
    Value::Object(made)
}

/// The text of a body, broken in one of six.
fn text(value: &Value, dice: &mut Dice) -> Vec<u8> {
    let mut bytes = value.to_string().into_bytes();
    match dice.below(12) {
        0 => bytes.truncate(dice.below(bytes.len() + 1)),
        1 => {
            let at = dice.below(bytes.len() + 1);
            bytes.insert(at, [0, 0xff, b'"', b'{', b'\\', b','][dice.below(6)]);
        }
        _ => {}
    }
    bytes
}

/// Method, path and schema of everything that takes JSON.
fn takers(document: &Value) -> Vec<(String, String, Value)> {
    let mut found = Vec::new();
    for (path, methods) in document["paths"].as_object().into_iter().flatten() {
        for (method, operation) in methods.as_object().into_iter().flatten() {
            let schema = &operation["requestBody"]["content"]["application/json"]["schema"];
            // Ends the caller's own session, or the whole appliance's.
            let ends =
                path.contains("sessions") || path.contains("keys") || path.contains("password");
            if !schema.is_null() && !ends {
                found.push((method.to_uppercase(), path.clone(), schema.clone()));
            }
        }
    }
    found
}

/// The path with something in the place of each of its parameters.
fn filled(path: &str, dice: &mut Dice) -> String {
    let words = ["0123456789abcdef0123456789abcdef", "2", "x", "%2e%2e", "lab"];
    let parts = path.split('/').map(|part| match part.starts_with('{') {
        true => words[dice.below(words.len())],
        false => part,
    });
    parts.collect::<Vec<_>>().join("/")
}

#[tokio::test]
async fn a_body_made_by_chance_is_answered_with_less_than_500() {
    requires_root!();
    let rates =
        "[rates]\ncostly_per_min = 1000000\nchanges_per_min = 1000000\nperson_per_min = 1000000\n";
    let server =
        TestServer::with(Options { sections: rates.to_owned(), ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    let omar = server.person("omar", "operator").await;
    let document = anna.get("/api/v1/openapi.json").await.expect_status(200).json();
    let takers = takers(&document);
    assert!(takers.len() > 10, "only {} routes take JSON", takers.len());
    let pid = server.server_pid();
    let mut dice = Dice::new();
    let mut wrong: Vec<String> = Vec::new();
    let (mut tried, mut taken) = (0_usize, 0_usize);
    let begun = Instant::now();
    let enough = |tried: usize| match is_long() {
        true => begun.elapsed() > Duration::from_secs(600),
        false => tried >= 300,
    };
    while !enough(tried) && wrong.len() < 5 {
        let (method, path, schema) = &takers[tried % takers.len()];
        let body = text(&value(schema, &document, 0, &mut dice), &mut dice);
        let path = filled(path, &mut dice);
        let client: &Client = if dice.below(3) == 0 { &omar } else { &anna };
        let request = client.request(method, &path).header("content-type", "application/json");
        let answer = send(request.body(body.clone())).await;
        tried += 1;
        taken += usize::from(answer.status < 300);
        // In maintenance all that comes after would be refused alike.
        if path.ends_with("/maintenance") && answer.status < 300 {
            omar.delete("/api/v1/maintenance").await.expect_status(200);
        }
        if answer.status >= 500 && answer.code() != "supervisor.away"
            || answer.text.contains("panicked")
        {
            let shown: String = String::from_utf8_lossy(&body).chars().take(300).collect();
            wrong.push(format!("{method} {path} {shown}: {}", answer.text));
        }
    }
    assert!(taken > 0, "nothing was taken: the bodies are no test");
    assert_eq!(server.server_pid(), pid);
    server.anonymous().get("/healthz").await.expect_status(200);
    let variant = format!("JSON bodies of {} routes", takers.len());
    Check { id: "W06", variant: &variant, control: &format!("{taken} of {tried} were taken") }
        .finds_nothing(&wrong);
}
