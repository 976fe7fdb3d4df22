//! Who may set a field: whoever may use its route, on what is theirs. Each field of each body is driven
//! by everybody else, at a value that its owner may give it, and nothing comes of it.

use std::collections::BTreeSet;

use serde_json::{Value, json};
use system_tests::{Check, Client, TestServer, image, requires_root};

use super::json::{Body, bodies, pointer};
use crate::matrix::{ROWS, Who};

/// Somebody who may not, and what such a one is told.
struct Outsider {
    name: &'static str,
    client: Client,
    /// Of what others own: that it is not there.
    is_told: u16,
}

/// Everybody there is, seen from the one whose things are in the paths.
struct Everybody {
    anonymous: Client,
    stranger: Client,
    auditor: Client,
    user: Client,
    reading: Client,
}

impl Everybody {
    /// Those of them who may not use `route`.
    fn outside(&self, route: &str) -> Vec<Outsider> {
        let one =
            |name, client: &Client, is_told| Outsider { name, client: client.clone(), is_told };
        let row =
            ROWS.iter().find(|row| row.route == route).expect("tests/api/matrix.rs has a row");
        let mut outside = Vec::new();
        if row.who != Who::Public {
            outside.push(one("nobody", &self.anonymous, 401));
            outside.push(one("a token that may read", &self.reading, 403));
        }
        if matches!(row.who, Who::Member | Who::Operator) {
            outside.push(one("an auditor", &self.auditor, 403));
        }
        match row.who {
            Who::Operator => outside.push(one("a user", &self.user, 403)),
            Who::Member if route.contains("{id}") => {
                outside.push(one("a stranger", &self.stranger, 404));
            }
            _ => {}
        }
        outside
    }
}

/// What can be set, as its owner and an operator see it.
async fn all_that_is(owner: &Client, operator: &Client) -> Vec<Value> {
    let mut all = Vec::new();
    for path in ["containers", "images", "registries", "tokens"] {
        all.push(owner.get(&format!("/api/v1/{path}")).await.expect_status(200).json());
    }
    for item in all[0]["items"].as_array().cloned().expect("a list") {
        let id = item["id"].as_str().expect("an id");
        all.push(owner.get(&format!("/api/v1/containers/{id}")).await.expect_status(200).json());
    }
    all.push(operator.get("/api/v1/people").await.expect_status(200).json());
    for part in &mut all {
        forget_times(part);
    }
    all
}

/// When somebody was last here is no setting.
fn forget_times(value: &mut Value) {
    match value {
        Value::Object(map) => {
            map.retain(|name, _| !name.starts_with("last_") && !name.ends_with("used_at"));
            map.values_mut().for_each(forget_times);
        }
        Value::Array(list) => list.iter_mut().for_each(forget_times),
        _ => {}
    }
}

#[tokio::test]
async fn no_field_is_set_by_one_who_may_not() {
    requires_root!();
    let server = TestServer::with(super::generous()).await;
    let (olga, anna) = (server.operator(), server.person("anna", "user").await);
    let everybody = Everybody {
        anonymous: server.anonymous(),
        stranger: server.person("eve", "user").await,
        auditor: server.person("argus", "auditor").await,
        user: server.person("uma", "user").await,
        reading: olga.token("read").await,
    };
    let image = image::import(&anna, image::archive("lab/app:v1", &[("a", 0o755, b"a")])).await;
    let body = json!({"name": "driven", "image": image, "command": ["a"]});
    let made = anna.post("/api/v1/containers", &body).await.expect_status(201).json();
    let container = made["id"].as_str().expect("an id");
    let person = json!({"name": "tried", "role": "user"});
    let person = olga.post("/api/v1/people", &person).await.expect_status(201).json();
    let person = person["person"]["id"].to_string();
    let before = all_that_is(&anna, &olga).await;
    let mut fields = 0;
    for body in bodies(&image) {
        let id = match body.route {
            route if route.contains("/people/") => person.as_str(),
            route if route.contains("/images/") => &image,
            _ => container,
        };
        let outside = everybody.outside(body.route);
        for field in &body.fields {
            fields += usize::from(!outside.is_empty());
            for outsider in &outside {
                let answers = drive(outsider, &body, field, id).await;
                let variant = format!("{}: {} by {}", body.route, field.name, outsider.name);
                let control =
                    "the same values are taken from those who may: each_field_takes_its_bounds";
                let check = Check { id: "A03", variant: &variant, control };
                check.sees(outsider.is_told, answers);
            }
        }
    }
    assert!(fields > 60, "the control: {fields} fields were driven");
    let after = all_that_is(&anna, &olga).await;
    Check {
        id: "A03",
        variant: "what came of all of it",
        control: "everything there is, as listed",
    }
    .sees(json!(before), json!(after));
}

/// Sends each value that the field may have; which answers came.
async fn drive(outsider: &Outsider, body: &Body, field: &super::Field, id: &str) -> String {
    let (method, path) = body.route.split_once(' ').expect("a method and a path");
    let path = path.replace("{id}", id);
    let pointer = pointer(&body.base, field.name);
    let mut answers = BTreeSet::new();
    let usual = body.base.pointer(&pointer).expect("the base has the field").clone();
    for value in field.at.iter().chain([&usual]) {
        let mut sent = body.base.clone();
        *sent.pointer_mut(&pointer).expect("the base has the field") = value.clone();
        answers.insert(outsider.client.send(method, &path, &sent).await.status.to_string());
    }
    Vec::from_iter(answers).join(", ")
}
