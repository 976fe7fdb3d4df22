//! The dashboard's pages: each handler parses, makes the service call that the API makes, and fills
//! a view of the web crate. Forms are answered with a way on (post, redirect, get); a refused form
//! comes back with what was typed and what is wrong.

mod account;
mod allowance;
mod asks;
mod bulk;
mod container;
mod containers;
mod days;
mod enrol;
mod entry;
mod events;
mod files;
mod filter;
mod form;
mod frame;
mod groups;
mod happened;
mod help;
mod home;
mod hour;
mod image;
mod images;
mod launch;
mod log;
mod machine;
mod maintenance;
mod offboarding;
mod operations;
mod people;
mod person;
mod posture;
mod reference;
mod registries;
mod request;
mod sharing;
mod shown;
mod space;
mod story;
mod system;
mod terminal;
mod unneeded;
mod used;
mod volumes;

use axum::extract::Path;
use axum::http::Method;
use axum::http::header::{CACHE_CONTROL, CONTENT_TYPE, HeaderMap};
use axum::response::{IntoResponse, Response};
use berth_web::assets;
use berth_web::shell::{Shell, Strip, Theme};

pub(super) use self::form::read_form;
use super::routes::{Access, Routes};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::inventory::maintenance::Notice;

/// Adds the routes of all pages.
pub(super) fn routes(routes: Routes) -> Routes {
    let routes = routes.page(Access::Public, Method::GET, "/assets/{name}", asset);
    let routes = entry::routes(routes);
    let routes = home::routes(routes);
    let routes = account::routes(routes);
    let routes = help::routes(routes);
    let routes = posture::routes(routes);
    let routes = days::routes(routes);
    let routes = people::routes(routes);
    let routes = enrol::routes(routes);
    let routes = groups::routes(routes);
    let routes = allowance::routes(routes);
    let routes = person::routes(routes);
    let routes = asks::routes(routes);
    let routes = space::routes(routes);
    let routes = offboarding::routes(routes);
    let routes = events::routes(routes);
    let routes = registries::routes(routes);
    let routes = system::routes(routes);
    let routes = maintenance::routes(routes);
    let routes = containers::routes(routes);
    let routes = bulk::routes(routes);
    let routes = container::routes(routes);
    let routes = log::routes(routes);
    let routes = story::routes(routes);
    let routes = terminal::routes(routes);
    let routes = sharing::routes(routes);
    let routes = launch::routes(routes);
    let routes = operations::routes(routes);
    let routes = image::routes(routes);
    let routes = unneeded::routes(routes);
    let routes = volumes::routes(routes);
    let routes = files::routes(routes);
    images::routes(routes)
}

/// The colours that a browser has chosen.
pub(super) fn theme(app: &App, headers: &HeaderMap) -> Theme {
    frame::theme(&app.config.runtime.instance, headers)
}

/// The frame of a page that no handler makes.
pub(super) fn shell(caller: Option<&Caller>, theme: Theme, path: &str) -> Shell {
    frame::shell(caller, theme, path)
}

/// What everybody is told during maintenance.
pub(super) fn maintenance_strip(notice: &Notice, caller: Option<&Caller>) -> Strip {
    frame::maintenance_strip(notice, caller)
}

async fn asset(Path(name): Path<String>) -> Result<Response> {
    let asset = assets::find(&name).ok_or(Error::NotFound("asset"))?;
    let headers = [(CONTENT_TYPE, asset.content_type), (CACHE_CONTROL, assets::CACHE_CONTROL)];
    Ok((headers, asset.body).into_response())
}
