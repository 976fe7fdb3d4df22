//! What was used, by day: one's own days, or for those who oversee people each person's sum.

use std::collections::HashMap;

use axum::extract::{Query, State};
use axum::http::Method;
use axum::response::Response;
use berth_web::parts::Scope;
use berth_web::people::{UsagePage, UsageRow};
use berth_web::shell::{ApiCall, Section};
use serde::Deserialize;

use super::frame::{Frame, leads};
use crate::app::App;
use crate::auth::{Caller, TokenScope, Visibility};
use crate::error::Result;
use crate::http::routes::{Access, Routes};
use crate::service::days::{self, UsageDay, UsageDays, Wanted};

const PATH: &str = "/usage";
/// The spans that can be chosen, in days up to today; the first is usual.
const SPANS: [(&str, i64); 3] = [("30 days", 30), ("7 days", 7), ("A year", 365)];

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.page(Access::SignedIn(TokenScope::Read), Method::GET, PATH, show)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct DaysQuery {
    days: String,
}

async fn show(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<DaysQuery>,
) -> Result<Response> {
    let chosen = SPANS.iter().find(|(_, days)| days.to_string() == query.days);
    let (_, span) = *chosen.unwrap_or(&SPANS[0]);
    let from = days::shown(days::today() - span + 1);
    let wanted = Wanted { from: Some(from.clone()), ..Wanted::default() };
    let found = days::list(&app, &caller, &wanted).await?;
    let oversees = caller.sees() == Visibility::Everyone;
    let mut shell =
        frame.shell("Use by day", if oversees { Section::People } else { Section::Home });
    shell.path = PATH.to_owned();
    shell.calls = vec![
        ApiCall::get("What was used", format!("/api/v1/usage/days?from={from}")),
        ApiCall::get("The same as a table", format!("/api/v1/usage/days?from={from}&format=csv")),
    ];
    let page = UsagePage {
        shell,
        span: format!("From {} to {}", found.from, found.to),
        spans: SPANS.map(|(label, days)| scope(label, days, days == span)).into(),
        of_days: !oversees,
        rows: match oversees {
            true => by_person(&found, leads("/people/{id}", Some(&caller)).is_some()),
            false => found.items.iter().map(|day| row(day, day.day.clone(), None)).collect(),
        },
        csv: format!("/api/v1/usage/days?from={from}&format=csv"),
    };
    frame.page(&page)
}

fn scope(label: &'static str, days: i64, current: bool) -> Scope {
    Scope { label, count: None, path: format!("{PATH}?days={days}"), current }
}

/// Each person's sum, most processor time first.
fn by_person(found: &UsageDays, links: bool) -> Vec<UsageRow> {
    let mut sums: HashMap<u32, UsageDay> = HashMap::new();
    for day in &found.items {
        match sums.entry(day.person.id) {
            std::collections::hash_map::Entry::Vacant(place) => drop(place.insert(day.clone())),
            std::collections::hash_map::Entry::Occupied(mut place) => place.get_mut().add(day),
        }
    }
    let mut sums: Vec<UsageDay> = sums.into_values().collect();
    sums.sort_by(|a, b| {
        b.cpu_hours.total_cmp(&a.cpu_hours).then_with(|| a.person.name.cmp(&b.person.name))
    });
    let is_person = |id: u32| id != berth_runtime::id::PrincipalId::SYSTEM.0;
    let path = |id: u32| (links && is_person(id)).then(|| format!("/people/{id}"));
    sums.iter().map(|sum| row(sum, sum.person.name.clone(), path(sum.person.id))).collect()
}

fn row(sums: &UsageDay, name: String, path: Option<String>) -> UsageRow {
    let shown = |hours: f64| format!("{hours:.1}");
    UsageRow {
        name,
        path,
        cpu: shown(sums.cpu_hours),
        memory: shown(sums.memory_gib_hours),
        images: shown(sums.image_gib_hours),
        containers: shown(sums.container_hours),
    }
}
