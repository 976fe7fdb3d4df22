//! Help: the manual, the API's reference, the codes of problems. Public: what an error page links to
//! can be read by whoever got it.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::wire::Limits;
use berth_web::format::{bytes, cores, count, span};
use berth_web::help::{
    ApiPage, GuidePage, Here, IndexPage, Known, KnownPage, ProblemsPage, ResourcePage, Topic, View,
};
use berth_web::shell::{ApiCall, Section};

use super::frame::Frame;
use super::reference;
use crate::app::App;
use crate::auth::Role;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::http::catalogue;
use crate::http::routes::{Access, Routes};

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .page(Access::Public, Method::GET, "/help", index)
        .page(Access::Public, Method::GET, "/help/{topic}", guide)
        .page(Access::Public, Method::GET, "/help/api", api)
        .page(Access::Public, Method::GET, "/help/api/{resource}", resource)
        .page(Access::Public, Method::GET, "/help/problems", problems)
        .page(Access::Public, Method::GET, "/problems/{code}", problem)
}

async fn index(frame: Frame) -> Result<Response> {
    frame.page(&IndexPage { shell: frame.shell("Help", Section::Help), views: views("/help") })
}

async fn guide(State(app): State<App>, frame: Frame, Path(slug): Path<String>) -> Result<Response> {
    let topic = Topic::ALL.into_iter().find(|topic| topic.slug() == slug);
    let topic = topic.ok_or(Error::NotFound("page"))?;
    frame.page(&GuidePage {
        shell: frame.shell(topic.title(), Section::Help),
        views: views(&format!("/help/{slug}")),
        topic,
        here: here(&app, &frame),
    })
}

async fn api(frame: Frame) -> Result<Response> {
    let mut shell = frame.shell("API", Section::Help);
    shell.calls = vec![ApiCall::get("The document", "/api/v1/openapi.json")];
    frame.page(&ApiPage {
        shell,
        views: views("/help/api"),
        about: reference::about(),
        groups: reference::groups(frame.origin()),
    })
}

async fn resource(
    State(app): State<App>,
    frame: Frame,
    Path(name): Path<String>,
) -> Result<Response> {
    let (_, root_socket) = places(&app, &frame);
    let places = reference::Places { origin: frame.origin().to_owned(), root_socket };
    let group = reference::group(&name, &places).ok_or(Error::NotFound("page"))?;
    frame.page(&ResourcePage {
        shell: frame.shell(format!("API: {name}"), Section::Help),
        views: views("/help/api"),
        objects: reference::objects(&group),
        group,
    })
}

async fn problems(frame: Frame) -> Result<Response> {
    let mut shell = frame.shell("Problems", Section::Help);
    shell.calls = vec![ApiCall::get("The same list", "/api/v1/problems")];
    let group = |group: &catalogue::Group| (group.title, group.known.iter().map(known).collect());
    frame.page(&ProblemsPage {
        shell,
        views: views("/help/problems"),
        groups: catalogue::GROUPS.iter().map(group).collect(),
    })
}

async fn problem(frame: Frame, Path(code): Path<String>) -> Result<Response> {
    let found = catalogue::find(&code).ok_or(Error::NotFound("page"))?;
    frame.page(&KnownPage {
        shell: frame.shell(found.title, Section::Help),
        views: views("/help/problems"),
        known: known(found),
    })
}

fn known(known: &catalogue::Known) -> Known {
    let status = StatusCode::from_u16(known.status).ok();
    let words = status.and_then(|status| status.canonical_reason()).unwrap_or("");
    Known {
        code: known.code,
        status: format!("{} {words}", known.status),
        title: known.title,
        cause: known.cause,
        cure: known.cure,
    }
}

/// The views of help, the one at `path` being shown.
fn views(path: &str) -> Vec<View> {
    let view = |label, at: String| View { label, current: at == path, path: at };
    let topics = Topic::ALL.map(|topic| view(topic.title(), format!("/help/{}", topic.slug())));
    let mut views = vec![view("Overview", "/help".to_owned())];
    views.extend(topics);
    views.push(view("API", "/help/api".to_owned()));
    views.push(view("Problems", "/help/problems".to_owned()));
    views
}

/// Hours in the words of a sentence.
fn hours(hours: u32) -> String {
    match (hours / 24, hours % 24) {
        (0, 1) => "an hour".to_owned(),
        (1, 0) => "a day".to_owned(),
        (days, 0) => format!("{days} days"),
        _ => format!("{hours} hours"),
    }
}

/// The data directory and root's socket: this machine's for operators, elsewhere the usual ones.
fn places(app: &App, frame: &Frame) -> (String, String) {
    let usual = Config::default();
    let operator = frame.caller().is_ok_and(|caller| caller.role == Role::Operator);
    let config = if operator { &app.config } else { &usual };
    (config.runtime.data_dir.display().to_string(), config.root_socket().display().to_string())
}

/// What the manual says of this machine; its limits only to those who have signed in.
fn here(app: &App, frame: &Frame) -> Here {
    let config = &app.config;
    let containers = &config.containers;
    let limits = |limits: &Limits| {
        let memory = bytes(limits.memory_bytes);
        let (cores, pids) = (cores(limits.cpu_millis.into()), count(limits.pids.into()));
        let unit = if limits.cpu_millis == 1000 { "core" } else { "cores" };
        format!("{cores} {unit}, {memory} of memory and {pids} processes")
    };
    let inside = |text: String| if frame.caller().is_ok() { text } else { String::new() };
    let (data_dir, root_socket) = places(app, frame);
    Here {
        origin: frame.origin().to_owned(),
        containers_max: inside(containers.per_person_max.to_string()),
        log_kept: bytes(containers.log_file_bytes * u64::from(containers.log_files)),
        import_max: bytes(config.images.import_bytes_max),
        session: hours(config.auth.session_hours),
        token_days: config.auth.token_days_max.to_string(),
        invitation: hours(config.auth.invitation_hours),
        idempotency: hours(config.retention.idempotency_hours),
        grace: span(containers.stop_grace_secs.into()),
        defaults: inside(limits(&containers.default_limits)),
        ceilings: inside(limits(&config.runtime.ceilings)),
        data_dir,
        root_socket,
    }
}
