//! The pages before sign-in: setup, sign-in, invitation; signing out; the colours.

use axum::extract::{Path, Query, State};
use axum::http::header::{HeaderMap, SET_COOKIE};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::entry::{InvitationPage, SetupPage, SignInPage};
use berth_web::parts::Field;
use berth_web::shell::{Section, Theme};
use serde::Deserialize;

use super::form::{Posted, Wrong};
use super::frame::{Frame, local, sentence};
use crate::app::App;
use crate::auth::TokenScope;
use crate::error::{Error, Result};
use crate::http::api::sessions::{cookies, forget_cookie};
use crate::http::extract::{Caller, Visitor};
use crate::http::problem;
use crate::http::routes::{Access, FormFields, Routes};
use crate::service::sessions::SignedIn;
use crate::service::{invitations, sessions, setup};

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    routes
        .page(Access::Public, Method::GET, "/", start)
        .page(Access::Public, Method::GET, "/setup", show_setup)
        .form(
            Access::Public,
            "/setup",
            FormFields::once(&["secret", "name", "password"]),
            complete_setup,
        )
        .page(Access::Public, Method::GET, "/sign-in", show_sign_in)
        .form(
            Access::Public,
            "/sign-in",
            FormFields::once(&["name", "password", "code", "next"]),
            sign_in,
        )
        .page(Access::Public, Method::GET, "/invitation/{secret}", show_invitation)
        .form(
            Access::Public,
            "/invitation",
            FormFields::once(&["token", "name", "password", "again", "code"]),
            accept_invitation,
        )
        .form(Access::SignedIn(TokenScope::Read), "/sign-out", FormFields::once(&[]), sign_out)
        .form(Access::Public, "/theme", FormFields::once(&["theme", "back"]), choose_theme)
}

/// Where to go after signing in.
#[derive(Debug, Default, Deserialize)]
struct Next {
    #[serde(default)]
    next: String,
}

async fn start(State(app): State<App>, frame: Frame) -> Result<Response> {
    if setup::needed(&app).await? { frame.on("/setup") } else { frame.on("/home") }
}

async fn show_setup(State(app): State<App>, frame: Frame) -> Result<Response> {
    if !setup::needed(&app).await? {
        return frame.on("/home");
    }
    frame.page(&setup_page(&frame, &Posted::default(), Wrong::default(), String::new()))
}

async fn complete_setup(
    State(app): State<App>,
    frame: Frame,
    visitor: Visitor,
    posted: Posted,
) -> Result<Response> {
    let (secret, name) = (posted.text("secret"), posted.text("name"));
    match setup::complete(&app, &visitor, secret, name, posted.exact("password")).await {
        Ok(done) => enter(&app, &frame, &done, "/home"),
        Err(error) => {
            let (status, wrong, text) = frame.refusal(error)?;
            frame.page_with(status, &setup_page(&frame, &posted, wrong, text))
        }
    }
}

fn setup_page(frame: &Frame, posted: &Posted, mut wrong: Wrong, error: String) -> SetupPage {
    SetupPage {
        shell: frame.shell("Set up", Section::None),
        secret: Field { value: posted.text("secret").into(), error: wrong.take("/secret") },
        name: Field { value: posted.text("name").into(), error: wrong.take("/name") },
        password_error: wrong.take("/password"),
        error: if error.is_empty() { wrong.rest() } else { error },
    }
}

async fn show_sign_in(
    State(app): State<App>,
    frame: Frame,
    Query(query): Query<Next>,
) -> Result<Response> {
    if setup::needed(&app).await? {
        return frame.on("/setup");
    }
    if frame.caller().is_ok() {
        return frame.on(&query.next);
    }
    frame.page(&sign_in_page(&frame, "", &query.next, String::new()))
}

async fn sign_in(
    State(app): State<App>,
    frame: Frame,
    visitor: Visitor,
    posted: Posted,
) -> Result<Response> {
    let (name, next) = (posted.text("name"), posted.text("next"));
    let proofs = (name, posted.exact("password"), posted.text("code"));
    match sessions::sign_in(&app, &visitor, proofs).await {
        Ok(done) => enter(&app, &frame, &done, next),
        Err(error) => {
            let asks_code = error.code() == "session.second-factor";
            let (status, _, text) = frame.refusal(error)?;
            let page = SignInPage { asks_code, ..sign_in_page(&frame, name, next, text) };
            frame.page_with(status, &page)
        }
    }
}

fn sign_in_page(frame: &Frame, name: &str, next: &str, error: String) -> SignInPage {
    SignInPage {
        shell: frame.shell("Sign in", Section::None),
        error,
        name: name.to_owned(),
        next: local(next).to_owned(),
        asks_code: false,
    }
}

async fn show_invitation(
    State(app): State<App>,
    frame: Frame,
    visitor: Visitor,
    Path(secret): Path<String>,
) -> Result<Response> {
    let (name, _) = invitations::look(&app, &visitor, &secret).await?;
    frame.page(&invitation_page(&frame, name, secret, String::new()))
}

async fn accept_invitation(
    State(app): State<App>,
    frame: Frame,
    visitor: Visitor,
    posted: Posted,
) -> Result<Response> {
    let (secret, password) = (posted.text("token"), posted.exact("password"));
    let result = if password == posted.exact("again") {
        let proofs = (secret, password, posted.text("code"));
        invitations::accept(&app, &visitor, proofs).await
    } else {
        Err(Error::field("/password", "the two passwords are not the same"))
    };
    match result {
        Ok(done) => enter(&app, &frame, &done, "/home"),
        Err(error) => {
            let asks_code = error.code() == "session.second-factor";
            let (status, mut wrong, text) = frame.refusal(error)?;
            let text = if text.is_empty() { sentence(&wrong.take("")) } else { text };
            let (name, secret) = (posted.text("name").to_owned(), secret.to_owned());
            let page = invitation_page(&frame, name, secret, text);
            frame.page_with(status, &InvitationPage { asks_code, ..page })
        }
    }
}

fn invitation_page(frame: &Frame, name: String, token: String, error: String) -> InvitationPage {
    let shell = frame.shell("Welcome", Section::None);
    InvitationPage { shell, name, token, error, asks_code: false }
}

async fn sign_out(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    sessions::sign_out(&app, &caller).await?;
    let mut response = frame.done("/sign-in", "You are signed out.")?;
    add_cookies(&mut response, forget_cookie(&app)?);
    Ok(response)
}

async fn choose_theme(frame: Frame, posted: Posted) -> Result<Response> {
    frame.themed(Theme::read(posted.text("theme")), posted.text("back"))
}

/// On, with the cookies of a new session.
fn enter(app: &App, frame: &Frame, done: &SignedIn, path: &str) -> Result<Response> {
    let mut response = frame.on(path)?;
    add_cookies(&mut response, cookies(app, done)?);
    Ok(response)
}

/// Adds cookies to those that are there: `extend` would take their place.
fn add_cookies(response: &mut Response, cookies: HeaderMap) {
    for value in cookies.get_all(SET_COOKIE) {
        response.headers_mut().append(SET_COOKIE, value.clone());
    }
}

/// Status, field errors and text of a refused form; what is broken goes on to the error page.
pub(super) fn refusal(error: Error) -> Result<(StatusCode, Wrong, String)> {
    let status = problem::status(&error);
    match error {
        Error::Broken { .. } => Err(error),
        error => match Wrong::of(&error) {
            Some(wrong) => Ok((status, wrong, String::new())),
            None => Ok((status, Wrong::default(), sentence(&error.to_string()))),
        },
    }
}
