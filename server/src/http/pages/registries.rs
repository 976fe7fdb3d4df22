//! Where images may come from, for those who oversee the machine; operators ask registries.

use axum::extract::State;
use axum::http::Method;
use axum::response::Response;
use berth_web::parts::{Badge, Fact};
use berth_web::shell::{ApiCall, Section, Tone};
use berth_web::system::{RegistriesPage, RegistryRow};

use super::form::Posted;
use super::frame::Frame;
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::error::Result;
use crate::http::routes::{Access, FormFields, Routes};
use crate::service::system::{self, RegistryCheck, RegistryPolicy};

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let ask = Access::Operator(TokenScope::Operate);
    routes.page(Access::Overseer(TokenScope::Read), Method::GET, "/registries", list).form(
        ask,
        "/registries/check",
        FormFields::once(&["registry"]),
        check,
    )
}

async fn list(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    show(&app, &frame, &caller, None)
}

async fn check(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    match system::check_registry(&app, &caller, posted.text("registry")).await {
        Ok(said) => show(&app, &frame, &caller, Some(&said)),
        Err(error) => frame.refused("/registries", error),
    }
}

fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    said: Option<&RegistryCheck>,
) -> Result<Response> {
    let policy = system::registries(app);
    let mut shell = frame.shell("Registries", Section::Registries);
    shell.path = "/registries".to_owned();
    shell.calls = vec![
        ApiCall::get("Where images may come from", "/api/v1/system/registries"),
        ApiCall::send(
            "Ask one whether it answers",
            "POST",
            "/api/v1/system/registries/check",
            Some("{\"registry\": \"docker.io\"}".to_owned()),
        ),
    ];
    let rows = system::configured(&policy)
        .into_iter()
        .map(|name| RegistryRow {
            rights: rights(&policy, &name),
            said: said.filter(|said| said.registry == name).map(answer),
            name,
        })
        .collect();
    let view = RegistriesPage {
        shell,
        asks: caller.role == Role::Operator,
        open: policy.allowed.is_empty(),
        rows,
        forbidden: policy.forbidden_networks.clone(),
        facts: vec![
            Fact::text("Short names mean", "docker.io"),
            Fact::text("Proxy", policy.proxy.clone().unwrap_or_else(|| "none".to_owned())),
            Fact::text(
                "Trusted authorities",
                match &policy.ca_file {
                    Some(path) => format!("the system’s and those in {path}"),
                    None => "the system’s".to_owned(),
                },
            ),
        ],
        written: written(&policy),
    };
    frame.page(&view)
}

fn rights(policy: &RegistryPolicy, name: &str) -> Vec<&'static str> {
    let listed = |list: &[String]| list.iter().any(|listed| listed == name);
    let mut rights = Vec::new();
    if listed(&policy.allowed) {
        rights.push("allowed");
    }
    if policy.allowed.is_empty() {
        rights.push("allowed, as all are");
    }
    if listed(&policy.insecure) {
        rights.push("insecure: plain HTTP");
    }
    if listed(&policy.internal) {
        rights.push("internal: private addresses");
    }
    if !policy.allowed.is_empty() && !listed(&policy.allowed) {
        rights.push("not allowed");
    }
    rights
}

fn answer(said: &RegistryCheck) -> Badge {
    let millis = said.millis.unwrap_or(0);
    if !said.answers {
        let (tone, icon) = (Tone::Bad, "failed");
        return Badge { tone, icon, word: "no".to_owned(), reason: said.problem.clone() };
    }
    let sign_in = if said.wants_sign_in { ", wants a sign-in" } else { "" };
    Badge {
        tone: Tone::Good,
        icon: "check",
        word: "answers".to_owned(),
        reason: format!("in {millis} ms{sign_in}"),
    }
}

/// The policy as the configuration file would say it.
fn written(policy: &RegistryPolicy) -> String {
    let list = |names: &[String]| {
        let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
        quoted.join(", ")
    };
    let mut text = format!(
        "[registries]\nallowed = [{}]\ninsecure = [{}]\ninternal = [{}]\nforbidden_networks = [{}]",
        list(&policy.allowed),
        list(&policy.insecure),
        list(&policy.internal),
        list(&policy.forbidden_networks),
    );
    for (key, value) in [("proxy", &policy.proxy), ("ca_file", &policy.ca_file)] {
        if let Some(value) = value {
            text.push_str(&format!("\n{key} = {value:?}"));
        }
    }
    text
}
