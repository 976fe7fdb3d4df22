//! Launching a container.

use axum::Form;
use axum::extract::{Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::containers::LaunchPage;
use berth_web::format::{bytes, cores};
use berth_web::shell::{ApiCall, Section};
use serde::Deserialize;

use super::container::ceilings;
use super::entry::refusal;
use super::form::{Posted, Wrong};
use super::frame::{Frame, sentence};
use super::request::{launch_form, launch_request};
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::error::{Error, Result};
use crate::http::routes::{Access, Routes};
use crate::service::Page;
use crate::service::containers::create;
use crate::service::images;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let act = Access::Member(TokenScope::Operate);
    routes.page(act, Method::GET, "/launch", show).page(act, Method::POST, "/launch", launch)
}

#[derive(Debug, Default, Deserialize)]
struct LaunchQuery {
    #[serde(default)]
    image: String,
}

async fn show(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<LaunchQuery>,
) -> Result<Response> {
    let limits = &app.config.containers.default_limits;
    let posted = [
        ("image", query.image),
        ("cpu", cores(limits.cpu_millis.into())),
        ("cpu_weight", limits.cpu_weight.to_string()),
        ("memory", bytes(limits.memory_bytes)),
        ("swap", bytes(limits.swap_bytes)),
        ("pids", limits.pids.to_string()),
        ("network", "private".to_owned()),
        ("restart", "no".to_owned()),
    ];
    let posted = posted.map(|(name, value)| (name.to_owned(), value));
    let posted = Posted::new(posted.into());
    let page = page(&app, &frame, &caller, &posted, Wrong::default(), String::new()).await?;
    frame.page(&page)
}

async fn launch(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Form(pairs): Form<Vec<(String, String)>>,
) -> Result<Response> {
    let posted = Posted::new(pairs);
    let result = match launch_request(&posted) {
        Ok(request) => create::create(&app, &caller, request, None).await,
        Err(wrong) => Err(wrong.into_error()),
    };
    match result {
        Ok(made) => {
            let view = made.container;
            let text = format!("{} is {}.", view.name, view.status.as_str());
            frame.done(&format!("/containers/{}", view.id), &text)
        }
        Err(error @ Error::NotFound(_)) => {
            let text = sentence(&error.to_string());
            let page = page(&app, &frame, &caller, &posted, Wrong::default(), text).await?;
            frame.page_with(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
        Err(error) => {
            let (status, wrong, text) = refusal(error)?;
            let page = page(&app, &frame, &caller, &posted, wrong, text).await?;
            frame.page_with(status, &page)
        }
    }
}

async fn page(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    posted: &Posted,
    mut wrong: Wrong,
    error: String,
) -> Result<LaunchPage> {
    let listed = images::list(app, caller, None, &Page { limit: 200, after: None }).await?;
    let names = listed.items.iter().flat_map(|image| &image.references).map(ToString::to_string);
    let mut shell = frame.shell("Launch", Section::Containers);
    let body = match launch_request(posted) {
        Ok(request) => serde_json::to_string(&request)
            .map_err(|error| Error::broken("write a request", error))?,
        Err(_) => "{\"image\": \"alpine:3.22\", \"start\": true}".to_owned(),
    };
    shell.path = "/launch".to_owned();
    shell.calls = vec![ApiCall::send("Launch this", "POST", "/api/v1/containers", Some(body))];
    let form = launch_form(posted, &mut wrong);
    Ok(LaunchPage {
        shell,
        form,
        error: if error.is_empty() { wrong.rest() } else { error },
        images: names.collect(),
        ceilings: ceilings(app),
    })
}
