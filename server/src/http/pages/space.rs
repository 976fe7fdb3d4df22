//! My space: what one uses of what one may, now and lately; what ends, and what takes the disk.

use axum::extract::{Query, State};
use axum::http::Method;
use axum::response::Response;
use berth_web::charts::{Chart, FigureRow, Figures, Unit};
use berth_web::format::{Moment, bytes, bytes_of, percent};
use berth_web::parts::{Meter, Scope};
use berth_web::shell::{ApiCall, Section};
use berth_web::space::{EndRow, LimitRow, SpacePage, ThingRow};
use serde::Deserialize;

use super::asks::plain;
use super::frame::Frame;
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::error::Result;
use crate::http::routes::{Access, Routes};
use crate::inventory::allowances::Bounded;
use crate::service::space::{
    self, EndKind, SpaceEnd, SpaceLimit, SpacePoint, SpaceThing, SpaceView, Span, ThingKind,
};

const PATH: &str = "/space";

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    routes.page(Access::SignedIn(TokenScope::Read), Method::GET, PATH, show)
}

#[derive(Debug, Default, Deserialize)]
#[serde(default)]
struct SpaceQuery {
    span: String,
}

async fn show(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<SpaceQuery>,
) -> Result<Response> {
    let span = if query.span == "week" { Span::Week } else { Span::Day };
    let view = space::mine(&app, &caller, span).await?;
    let scope =
        |label, path: &str, current| Scope { label, count: None, path: path.to_owned(), current };
    let mut shell = frame.shell("My space", Section::Home);
    shell.path = PATH.to_owned();
    shell.calls = vec![
        ApiCall::get("All of this", "/api/v1/me/space"),
        ApiCall::get("The last week", "/api/v1/me/space?span=week"),
    ];
    let asks = caller.role != Role::Auditor;
    let now = view.at.0;
    frame.page(&SpacePage {
        shell,
        limits: view.limits.iter().map(|limit| limit_row(limit, asks)).collect(),
        spans: vec![
            scope("The last day", PATH, span == Span::Day),
            scope("The last week", "/space?span=week", span == Span::Week),
        ],
        charts: if view.points.is_empty() { Vec::new() } else { drawn(&view) },
        axis: axis(span),
        rows: view.points.iter().rev().map(|point| figures(point, now)).collect(),
        ends: view.ends.into_iter().map(|end| end_row(end, now)).collect(),
        largest: view.largest.into_iter().map(thing_row).collect(),
    })
}

fn name(limit: Bounded) -> &'static str {
    match limit {
        Bounded::CpuMillis => "Processor, cores",
        Bounded::MemoryBytes => "Memory",
        Bounded::SwapBytes => "Swap",
        Bounded::Pids => "Processes",
        Bounded::ContainersMax => "Containers",
        Bounded::PortsMax => "Ports of the host",
        Bounded::ImagesMax => "Images",
        Bounded::ImagesBytes => "Size of images",
        Bounded::DataBytes => "Kept on disk",
        Bounded::IoReadBytesPerSec => "Read from disk, a second",
        Bounded::IoWriteBytesPerSec => "Written to disk, a second",
        Bounded::NetBytesPerSec => "Network, a second",
    }
}

fn limit_row(limit: &SpaceLimit, asks: bool) -> LimitRow {
    let SpaceLimit { limit, allowed, used } = *limit;
    let meter = match (used, allowed) {
        (Some(used), Some(most)) => Some(Meter {
            key: limit.name(),
            label: name(limit).to_owned(),
            text: match limit.name().ends_with("_bytes") {
                true => bytes_of(used, most),
                false => format!("{} of {}", plain(limit, used), plain(limit, most)),
            },
            percent: Some(percent(used, most)),
            note: String::new(),
        }),
        _ => None,
    };
    LimitRow {
        name: name(limit),
        used: used.map_or_else(|| "not counted".to_owned(), |used| plain(limit, used)),
        allowed: allowed.map_or_else(|| "no bound".to_owned(), |most| plain(limit, most)),
        meter,
        ask: allowed.filter(|_| asks).map(|_| format!("/asks?limit={}", limit.name())),
    }
}

fn drawn(view: &SpaceView) -> Vec<Chart> {
    let step = i64::from(view.step_secs) * 1000;
    let line = |of: fn(&SpacePoint) -> u64| -> Vec<(&'static str, Vec<(i64, u64)>)> {
        vec![("", view.points.iter().map(|point| (point.time.0, of(point))).collect())]
    };
    let limit = |which: Bounded| -> Vec<(i64, u64)> {
        let found = view.limits.iter().find(|limit| limit.limit == which);
        let allowed = found.and_then(|limit| limit.allowed);
        allowed.map(|most| (view.since.0, most)).into_iter().collect()
    };
    let chart = |key, title, unit, lines, limit| {
        Chart::draw(&Figures {
            key,
            title,
            unit,
            since: view.since.0,
            until: view.at.0,
            step,
            lines,
            limit,
            marks: Vec::new(),
        })
    };
    vec![
        chart(
            "cpu",
            "Processor",
            Unit::Cores,
            line(|point| point.cpu_millis),
            limit(Bounded::CpuMillis),
        ),
        chart(
            "memory",
            "Memory",
            Unit::Bytes,
            line(|point| point.memory_bytes),
            limit(Bounded::MemoryBytes),
        ),
        chart(
            "containers",
            "Running containers",
            Unit::Count,
            line(|point| (point.containers_millis + 500) / 1000),
            limit(Bounded::ContainersMax),
        ),
    ]
}

fn axis(span: Span) -> Vec<String> {
    let words = match span {
        Span::Day => ["24 h ago", "18", "12", "6", "now"].as_slice(),
        Span::Week => &["7 days ago", "6", "5", "4", "3", "2", "1", "now"],
    };
    words.iter().map(|word| (*word).to_owned()).collect()
}

fn figures(point: &SpacePoint, now: i64) -> FigureRow {
    FigureRow {
        at: Moment::new(point.time.0, now),
        cells: vec![
            Unit::Cores.words(point.cpu_millis),
            Unit::Bytes.words(point.memory_bytes),
            format!("{}.{}", point.containers_millis / 1000, point.containers_millis % 1000 / 100),
        ],
    }
}

fn end_row(end: SpaceEnd, now: i64) -> EndRow {
    let (what, path) = match end.kind {
        EndKind::Account => ("account", "/account"),
        EndKind::Token => ("token", "/account"),
        EndKind::Granted => ("granted for a time", "/asks"),
        EndKind::Look => ("an operator’s look", "/containers"),
    };
    EndRow { what, name: end.name, at: Moment::new(end.at.0, now), path }
}

fn thing_row(thing: SpaceThing) -> ThingRow {
    let (what, place) = match thing.kind {
        ThingKind::Image => ("image", "/images"),
        ThingKind::Volume => ("volume", "/volumes"),
    };
    ThingRow {
        what,
        path: format!("{place}/{}", thing.id),
        name: thing.name,
        size: bytes(thing.bytes),
    }
}
