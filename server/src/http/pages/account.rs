//! One's own account: tokens, logins for registries, sessions, password.

use axum::extract::{Path, Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::account::{
    AccountPage, FactorBegun, FactorPart, LoginRow, Logins, SessionRow, TokenRow,
};
use berth_web::containers::ConfirmPage;
use berth_web::format::Moment;
use berth_web::parts::{Badge, Field};
use berth_web::shell::{ApiCall, Section, Tone};
use serde::Deserialize;

use super::form::{Posted, Wrong};
use super::frame::{Frame, encoded, sentence};
use crate::app::App;
use crate::auth::factor::{Picture, picture};
use crate::auth::{Caller, Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::extract::Visitor;
use crate::http::routes::{Access, FormFields, Routes};
use crate::registry::Credentials;
use crate::service::registries::{self, Login, LoginState};
use crate::service::{factor, sessions, tokens};

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let own = Access::SignedIn(TokenScope::Manage);
    let pulls = Access::Member(TokenScope::Manage);
    routes
        .page(own, Method::GET, "/account", show)
        .form(
            own,
            "/account/tokens",
            FormFields::once(&["token_name", "scope", "days"]),
            make_token,
        )
        .page(own, Method::GET, "/account/tokens/{id}/revoke", ask_revoke)
        .form(own, "/account/tokens/{id}/revoke", FormFields::once(&[]), revoke_token)
        .form(
            pulls,
            "/account/registries",
            FormFields::once(&["registry", "username", "password"]),
            set_login,
        )
        .page(pulls, Method::GET, "/account/registries/remove", ask_remove_login)
        .form(pulls, "/account/registries/remove", FormFields::once(&["registry"]), remove_login)
        .form(own, "/account/sessions/{id}/end", FormFields::once(&[]), end_session)
        .form(
            own,
            "/account/password",
            FormFields::once(&["username", "current", "password"]),
            change_password,
        )
        .form(
            own,
            "/account/second-factor",
            FormFields::once(&["username", "current"]),
            begin_factor,
        )
        .form(own, "/account/second-factor/confirm", FormFields::once(&["code"]), confirm_factor)
        .form(own, "/account/second-factor/codes", FormFields::once(&["code"]), renew_codes)
        .form(own, "/account/second-factor/remove", FormFields::once(&["code"]), remove_factor)
}

/// What the page shows besides what there is.
#[derive(Default)]
struct Shown {
    password_error: String,
    token_error: String,
    token_name: String,
    fresh_token: Option<String>,
    /// What the form for a registry holds.
    login: Logins,
    /// What is to be said of the second factor.
    factor: FactorPart,
}

/// Which registry's login.
#[derive(Debug, Default, Deserialize)]
struct Which {
    #[serde(default)]
    registry: String,
}

async fn show(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(Which { registry }): Query<Which>,
) -> Result<Response> {
    let login = Logins { registry: Field::new(registry), ..Logins::default() };
    page(&app, &frame, &caller, StatusCode::OK, Shown { login, ..Shown::default() }).await
}

async fn make_token(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let mut wrong = Wrong::default();
    let scopes = [TokenScope::Read, TokenScope::Operate, TokenScope::Manage]
        .map(|scope| (scope.as_str(), scope));
    let scope = wrong.choice(&posted, "scope", "/scope", &scopes);
    let days = wrong.number(&posted, "days", "/days").unwrap_or(0);
    let made = match scope {
        Some(scope) if wrong.is_empty() => {
            tokens::make(&app, &caller, posted.text("token_name"), scope, days).await
        }
        _ => Err(wrong.into_error()),
    };
    let (status, shown) = match made {
        Ok(made) => {
            (StatusCode::CREATED, Shown { fresh_token: Some(made.secret), ..Shown::default() })
        }
        Err(error) => {
            let (status, wrong, text) = frame.refusal(error)?;
            let token_error = if text.is_empty() { sentence(&wrong.rest()) } else { text };
            let token_name = posted.text("token_name").to_owned();
            (status, Shown { token_error, token_name, ..Shown::default() })
        }
    };
    page(&app, &frame, &caller, status, shown).await
}

async fn ask_revoke(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let tokens = tokens::list(&app, &caller).await?;
    let token = tokens.into_iter().find(|token| token.id == id);
    let token = token.ok_or(Error::NotFound("token"))?;
    let used = token.used_at.map(|at| Moment::new(at.0, Time::now().0).words);
    let page = ConfirmPage {
        shell: frame.shell("Revoke a token", Section::Account),
        question: format!("Revoke {}?", token.name),
        losses: vec![
            "Whatever uses it is refused at once, and streams that it has opened end.".to_owned(),
            used.map_or_else(
                || "It has never been used.".to_owned(),
                |used| format!("It was last used {used}."),
            ),
        ],
        verb: "Revoke it",
        path: format!("/account/tokens/{id}/revoke"),
        hidden: Vec::new(),
        back: "/account".to_owned(),
        ..ConfirmPage::default()
    };
    frame.page(&page)
}

async fn revoke_token(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let result = tokens::end(&app, &caller, &id).await;
    frame.outcome(result, "/account", "The token is revoked.")
}

async fn set_login(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let (registry, username) = (posted.text("registry"), posted.text("username"));
    let password = posted.exact("password").to_owned();
    let credentials = Credentials { username: username.to_owned(), password };
    match registries::set(&app, &caller, registry, &credentials).await {
        Ok(login) => {
            let text = format!("Kept: your next pull from {} signs in with it.", login.registry);
            frame.done("/account", &text)
        }
        Err(error) => {
            let (status, mut wrong, text) = frame.refusal(error)?;
            let mut field = |name: &str, value: &str| Field {
                value: value.to_owned(),
                error: sentence(&wrong.take(&format!("/{name}"))),
            };
            let login = Logins {
                registry: field("registry", registry),
                username: field("username", username),
                password_error: field("password", "").error,
                error: text,
                ..Logins::default()
            };
            page(&app, &frame, &caller, status, Shown { login, ..Shown::default() }).await
        }
    }
}

async fn ask_remove_login(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(Which { registry }): Query<Which>,
) -> Result<Response> {
    let known = registries::list(&app, &caller).await?;
    let login = known.into_iter().find(|login| login.registry == registry);
    let login = login.ok_or(Error::NotFound("login"))?;
    let page = ConfirmPage {
        shell: frame.shell("Remove a login", Section::Account),
        question: format!("Remove your login for {registry}?"),
        losses: vec![
            format!("The password for {} there is forgotten and cannot be shown.", login.username),
            format!("Images from {registry} that you have stay; pulls of private ones will fail."),
        ],
        verb: "Remove it",
        path: "/account/registries/remove".to_owned(),
        hidden: vec![("registry".to_owned(), registry)],
        back: "/account".to_owned(),
        ..ConfirmPage::default()
    };
    frame.page(&page)
}

async fn remove_login(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let result = registries::remove(&app, &caller, posted.text("registry")).await;
    frame.outcome(result, "/account", "The login is forgotten.")
}

async fn end_session(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<String>,
) -> Result<Response> {
    let result = sessions::end(&app, &caller, &id).await;
    frame.outcome(result, "/account", "That browser is signed out.")
}

async fn change_password(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    visitor: Visitor,
    posted: Posted,
) -> Result<Response> {
    let (present, new) = (posted.exact("current"), posted.exact("password"));
    match sessions::change_password(&app, &caller, &visitor, present, new).await {
        Ok(()) => frame.done("/account", "Your password is changed; other sessions have ended."),
        Err(error) => {
            let (status, mut wrong, text) = frame.refusal(error)?;
            let said = [wrong.take("/present_password"), wrong.take("/password")].join(" ");
            let password_error = if text.is_empty() { sentence(said.trim()) } else { text };
            let shown = Shown { password_error, ..Shown::default() };
            page(&app, &frame, &caller, status, shown).await
        }
    }
}

async fn begin_factor(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    visitor: Visitor,
    posted: Posted,
) -> Result<Response> {
    let begun = factor::begin(&app, &caller, &visitor, posted.exact("current")).await;
    factor_page(&app, &frame, &caller, begun.map(|_| Vec::new()), "/present_password").await
}

async fn confirm_factor(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let codes = factor::confirm(&app, &caller, posted.text("code")).await;
    factor_page(&app, &frame, &caller, codes, "/code").await
}

async fn renew_codes(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    visitor: Visitor,
    posted: Posted,
) -> Result<Response> {
    let codes = factor::renew_codes(&app, &caller, &visitor, posted.text("code")).await;
    factor_page(&app, &frame, &caller, codes, "/code").await
}

async fn remove_factor(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    visitor: Visitor,
    posted: Posted,
) -> Result<Response> {
    match factor::remove(&app, &caller, &visitor, posted.text("code")).await {
        Ok(()) => frame.done("/account", "Your second factor is removed."),
        Err(error) => factor_page(&app, &frame, &caller, Err(error), "/code").await,
    }
}

/// The page with what has come of a step, or what is wrong with what stood at `pointer`.
async fn factor_page(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    step: Result<Vec<String>>,
    pointer: &str,
) -> Result<Response> {
    let (status, mut part) = match step {
        Ok(fresh_codes) => (StatusCode::OK, FactorPart { fresh_codes, ..FactorPart::default() }),
        Err(error) => {
            let (status, mut wrong, text) = frame.refusal(error)?;
            let error = if text.is_empty() { sentence(&wrong.take(pointer)) } else { text };
            (status, FactorPart { error, ..FactorPart::default() })
        }
    };
    if let Some(begun) = factor::pending(app, caller).await? {
        let Picture { side, path } = picture(&begun.address)?;
        let groups: Vec<char> = begun.secret.chars().collect();
        let groups = groups.chunks(4).map(|group| group.iter().collect::<String>());
        let secret = groups.collect::<Vec<_>>().join(" ");
        part.begun = Some(FactorBegun { secret, side, path });
    }
    page(app, frame, caller, status, Shown { factor: part, ..Shown::default() }).await
}

async fn page(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    status: StatusCode,
    shown: Shown,
) -> Result<Response> {
    let now = Time::now().0;
    let tokens = tokens::list(app, caller).await?.into_iter().map(|token| TokenRow {
        revoke: format!("/account/tokens/{}/revoke", token.id),
        name: token.name,
        scopes: match token.scope {
            TokenScope::Read => "read".to_owned(),
            TokenScope::Operate => "read, operate".to_owned(),
            TokenScope::Manage => "everything you may".to_owned(),
        },
        expires: Some(Moment::new(token.expires_at.0, now)),
        used: token.used_at.map(|at| Moment::new(at.0, now)),
    });
    let sessions = sessions::list(app, caller).await?.into_iter().map(|session| SessionRow {
        revoke: format!("/account/sessions/{}/end", session.id),
        agent: browser(&session.agent),
        address: session.address,
        since: Moment::new(session.created_at.0, now),
        seen: Moment::new(session.seen_at.0, now),
        own: session.current,
    });
    let mut shell = frame.shell("Account", Section::Account);
    shell.path = "/account".to_owned();
    shell.calls = vec![
        ApiCall::get("List your tokens", "/api/v1/tokens"),
        ApiCall::get("List your sessions", "/api/v1/sessions"),
    ];
    let logins = match caller.role {
        Role::Auditor => None,
        _ => Some(logins(app, caller, shown.login).await?),
    };
    if logins.is_some() {
        shell.calls.push(ApiCall::get("List your logins for registries", "/api/v1/registries"));
        let body = "{\"registry\": \"ghcr.io\", \"username\": \"me\", \"password\": \"…\"}";
        let (title, path) = ("Keep one", "/api/v1/registries");
        shell.calls.push(ApiCall::send(title, "PUT", path, Some(body.to_owned())));
    }
    let known = factor::show(app, caller).await?;
    let since = known.since.map(|at| Moment::new(at.0, now));
    let (codes_left, required) = (known.recovery_codes_left, known.required);
    shell.calls.push(ApiCall::get("Your second factor", "/api/v1/me/second-factor"));
    let view = AccountPage {
        factor: FactorPart { since, codes_left, required, ..shown.factor },
        tokens: tokens.collect(),
        sessions: sessions.collect(),
        ends: caller.account_expires_at.map(|at| Moment::new(at.0, now)),
        shell,
        password_error: shown.password_error,
        token_error: shown.token_error,
        token_name: Field::new(shown.token_name),
        fresh_token: shown.fresh_token,
        logins,
    };
    frame.page_with(status, &view)
}

/// The logins that are kept, beside the form as it was typed.
async fn logins(app: &App, caller: &Caller, form: Logins) -> Result<Logins> {
    let known = registries::list(app, caller).await?;
    let here = known.iter().find(|login| login.registry == form.registry.value);
    let username = match here {
        Some(login) if form.username.value.is_empty() => Field::new(login.username.clone()),
        _ => form.username.clone(),
    };
    let (rows, replaces) = (known.iter().map(login_row).collect(), here.is_some());
    Ok(Logins { rows, username, replaces, ..form })
}

fn login_row(login: &Login) -> LoginRow {
    let now = Time::now().0;
    let state = match login.state {
        LoginState::Good => Badge {
            tone: Tone::Good,
            icon: "check",
            word: "kept".to_owned(),
            reason: "not refused so far".to_owned(),
        },
        LoginState::Refused(since) => Badge {
            tone: Tone::Bad,
            icon: "failed",
            word: "refused".to_owned(),
            reason: format!("by the registry, {}; replace it", Moment::new(since.0, now).words),
        },
        LoginState::Lost => Badge {
            tone: Tone::Attention,
            icon: "attention",
            word: "unreadable".to_owned(),
            reason: "the server’s key is another; replace it".to_owned(),
        },
    };
    LoginRow {
        registry: login.registry.clone(),
        username: login.username.clone(),
        since: Moment::new(login.created_at.0, now),
        state,
        replace: format!("/account?registry={}#registries", encoded(&login.registry)),
        remove: format!("/account/registries/remove?registry={}", encoded(&login.registry)),
    }
}

/// A browser's name out of what it says of itself, in two words.
fn browser(agent: &str) -> String {
    let name = ["Firefox", "Edg", "Chrome", "Safari", "curl"];
    let name = name.into_iter().find(|name| agent.contains(name)).map(|name| match name {
        "Edg" => "Edge",
        name => name,
    });
    let system = ["Android", "iPhone", "iPad", "Windows", "Mac OS X", "Linux"];
    let system = system.into_iter().find(|system| agent.contains(system));
    match (name, system) {
        (Some(name), Some(system)) => format!("{name} on {system}"),
        (Some(name), None) => name.to_owned(),
        (None, _) => agent.chars().take(40).collect(),
    }
}
