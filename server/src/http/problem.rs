//! The only place that turns an [`Error`] into a status, and into problem details (RFC 9457) or an
//! error page. Anything broken is logged once, here, and told to nobody.
//!
//! A handler's error travels in the response's extensions up to [`finish`], which knows the request's
//! id and whether a page or the API was asked.

use std::sync::Arc;

use axum::http::header::{
    ALLOW, CONTENT_TYPE, ETAG, HeaderValue, LOCATION, RETRY_AFTER, WWW_AUTHENTICATE,
};
use axum::http::{Method, StatusCode, Uri};
use axum::response::{IntoResponse, Response};
use berth_web::Template;
use berth_web::entry::{ProblemInFrame, ProblemPage};
use berth_web::shell::Theme;
use serde::Serialize;
use utoipa::ToSchema;

use super::catalogue;
use super::pages;
use super::precondition;
use super::rate;
use super::routes::Surface;
use crate::auth::Caller;
use crate::error::{Error, FieldError, Reached};
use crate::inventory::allowances::Whose;
use crate::inventory::maintenance::Notice;

/// Characters of one text of a refusal at most.
const TEXT_CHARS_MAX: usize = 1000;
/// Wrong fields that a refusal names at most.
const FIELDS_MAX: usize = 100;
/// Before somebody asks again during maintenance.
const MAINTENANCE_SECS: u64 = 60;

/// Problem details (RFC 9457).
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Problem)]
pub struct ProblemBody {
    /// `/problems/<code>`; stable. The page there says why it comes and what to do;
    /// `GET /api/v1/problems` lists all.
    #[serde(rename = "type")]
    pub kind: String,
    /// What the type means, in a few words; the same for all problems of a type.
    pub title: String,
    /// The status.
    pub status: u16,
    /// One sentence for people.
    pub detail: String,
    /// The wrong fields, where known.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub fields: Vec<FieldError>,
    /// The limit of an allowance that is reached, if that is why.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub limit: Option<Reached>,
    /// The page where one asks an operator for more of it, if it is a limit of one's own.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub ask: Option<String>,
    /// The request's id, also in the log.
    pub request_id: String,
}

/// What a response brings of its error.
#[derive(Debug, Clone)]
pub struct Pending(pub Arc<Error>);

/// The answer to a method that a path does not know.
pub struct MethodNotAllowed;

impl IntoResponse for Error {
    fn into_response(self) -> Response {
        let mut response = status(&self).into_response();
        let headers = response.headers_mut();
        match &self {
            Self::TooMany { retry_secs } => {
                headers.insert(RETRY_AFTER, HeaderValue::from(*retry_secs));
            }
            Self::Limited(budget) => {
                headers.insert(RETRY_AFTER, HeaderValue::from(budget.wait_secs));
                rate::add_headers(headers, budget);
            }
            Self::Unavailable(refusal) => {
                let secs = if refusal.code == "server.maintenance" { MAINTENANCE_SECS } else { 1 };
                headers.insert(RETRY_AFTER, HeaderValue::from(secs));
            }
            Self::Stale { version } => {
                headers.extend(precondition::header(version).map(|value| (ETAG, value)));
            }
            Self::Unauthenticated => {
                headers.insert(WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
            }
            _ => {}
        }
        response.extensions_mut().insert(Pending(Arc::new(self)));
        response
    }
}

impl IntoResponse for MethodNotAllowed {
    fn into_response(self) -> Response {
        let error = Error::invalid("method-not-allowed", "this path does not know this method");
        let mut response = StatusCode::METHOD_NOT_ALLOWED.into_response();
        response.extensions_mut().insert(Pending(Arc::new(error)));
        response
    }
}

/// The status of an error.
pub fn status(error: &Error) -> StatusCode {
    match error {
        Error::NotFound(_) => StatusCode::NOT_FOUND,
        Error::Unauthenticated => StatusCode::UNAUTHORIZED,
        Error::Denied(_) => StatusCode::FORBIDDEN,
        Error::Conflict(_) => StatusCode::CONFLICT,
        Error::Stale { .. } => StatusCode::PRECONDITION_FAILED,
        Error::Invalid { refusal, .. } => catalogue::find(&refusal.code)
            .and_then(|known| StatusCode::from_u16(known.status).ok())
            .unwrap_or(StatusCode::UNPROCESSABLE_ENTITY),
        Error::TooLarge { .. } => StatusCode::PAYLOAD_TOO_LARGE,
        Error::Exhausted(_) | Error::Reached { .. } => StatusCode::INSUFFICIENT_STORAGE,
        Error::TooMany { .. } | Error::Limited(_) => StatusCode::TOO_MANY_REQUESTS,
        Error::Unavailable(_) => StatusCode::SERVICE_UNAVAILABLE,
        Error::Broken { .. } => StatusCode::INTERNAL_SERVER_ERROR,
    }
}

/// What the rendering of an error needs to know of its request.
#[derive(Debug)]
pub struct Asked<'a> {
    /// The method.
    pub method: &'a Method,
    /// The target.
    pub uri: &'a Uri,
    /// API or page.
    pub surface: Surface,
    /// The request's id.
    pub request_id: &'a str,
    /// The colours of a page.
    pub theme: Theme,
    /// What everybody is told during maintenance.
    pub notice: Option<Notice>,
}

/// Gives a failed response its body.
pub fn finish(asked: &Asked<'_>, mut response: Response) -> Response {
    let status = response.status();
    let caller = response.extensions_mut().remove::<Caller>();
    let pending = response.extensions_mut().remove::<Pending>();
    let Some(Pending(error)) = pending else {
        if !status.is_client_error() && !status.is_server_error()
            || response.headers().contains_key(CONTENT_TYPE)
        {
            return response;
        }
        // A refusal that some layer made without our error: the status is all that is known.
        let detail = status.canonical_reason().unwrap_or("refused").to_lowercase();
        let error = Error::invalid("request.refused", detail);
        return render(asked, response, &error, caller.as_ref());
    };
    if let Error::Broken { context, source } = error.as_ref() {
        let mut text = context.clone();
        let mut cause = source.as_deref().map(|error| error as &dyn std::error::Error);
        while let Some(error) = cause {
            text = format!("{text}: {error}");
            cause = error.source();
        }
        tracing::error!(request_id = asked.request_id, error = text, "a request failed");
    }
    render(asked, response, &error, caller.as_ref())
}

fn render(
    asked: &Asked<'_>,
    response: Response,
    error: &Error,
    caller: Option<&Caller>,
) -> Response {
    if asked.surface == Surface::Page
        && matches!(error, Error::Unauthenticated)
        && asked.method == Method::GET
    {
        return to_sign_in(asked.uri);
    }
    let status = response.status();
    let detail = match error {
        Error::Broken { .. } => {
            "something is broken here; the operator's log has the detail".into()
        }
        other => other.to_string(),
    };
    let detail = cut(&detail);
    let problem = ProblemBody {
        kind: format!("/problems/{}", error.code()),
        title: match catalogue::find(error.code()) {
            Some(known) => known.title,
            None => status.canonical_reason().unwrap_or("Error"),
        }
        .to_owned(),
        status: status.as_u16(),
        detail,
        fields: match error {
            Error::Invalid { fields, .. } => fields.iter().take(FIELDS_MAX).map(short).collect(),
            _ => Vec::new(),
        },
        limit: match error {
            Error::Reached { reached, .. } => Some(Reached::clone(reached)),
            _ => None,
        },
        ask: caller.and_then(|caller| ask_for_more(error, &caller.name)),
        request_id: asked.request_id.to_owned(),
    };
    let (media_type, body) = match asked.surface {
        Surface::Api => {
            ("application/problem+json", serde_json::to_string(&problem).unwrap_or_default())
        }
        Surface::Page => ("text/html; charset=utf-8", page(asked, &problem, caller)),
    };
    let mut rendered = (status, body).into_response();
    rendered.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(media_type));
    for name in [RETRY_AFTER, WWW_AUTHENTICATE, ALLOW, ETAG, rate::LIMIT, rate::POLICY] {
        if let Some(value) = response.headers().get(&name) {
            rendered.headers_mut().insert(name, value.clone());
        }
    }
    rendered
}

/// The page where the person of this name asks for more of what was in the way, if it was theirs alone.
pub(super) fn ask_for_more(error: &Error, name: &str) -> Option<String> {
    match error {
        Error::Reached { reached, .. } if reached.of == Whose::Person && reached.name == name => {
            Some(format!("/asks?limit={}", reached.limit.name()))
        }
        _ => None,
    }
}

/// A refusal shows what was sent; whoever sends much gets no more back for it.
fn cut(text: &str) -> String {
    match text.char_indices().nth(TEXT_CHARS_MAX) {
        Some((end, _)) => format!("{}…", &text[..end]),
        None => text.to_owned(),
    }
}

fn short(field: &FieldError) -> FieldError {
    FieldError { pointer: cut(&field.pointer), detail: cut(&field.detail) }
}

/// Somebody opened a page without having signed in.
fn to_sign_in(uri: &Uri) -> Response {
    let path = uri.path_and_query().map_or("/", |path| path.as_str());
    let next: String = url::form_urlencoded::byte_serialize(path.as_bytes()).collect();
    let mut response = StatusCode::SEE_OTHER.into_response();
    let target = HeaderValue::try_from(format!("/sign-in?next={next}"));
    response.headers_mut().insert(LOCATION, target.unwrap_or(HeaderValue::from_static("/sign-in")));
    response
}

/// The error page: in the frame of whoever has signed in, else by itself.
fn page(asked: &Asked<'_>, problem: &ProblemBody, caller: Option<&Caller>) -> String {
    let code = problem.kind.trim_start_matches("/problems/");
    let advice = catalogue::find(code).map_or("", |known| known.cure);
    let mut detail = problem.detail.clone();
    detail.get_mut(..1).map(str::make_ascii_uppercase);
    let path = asked.uri.path_and_query().map_or("/", |path| path.as_str());
    let again = *asked.method == Method::GET && matches!(problem.status, 429 | 500 | 503);
    // Without the path: what is not there and what is not yours are the same page to the byte.
    let mut shell = pages::shell(caller, asked.theme, "/");
    shell.title.clone_from(&problem.title);
    shell.ask.clone_from(&problem.ask);
    shell.strips.extend(asked.notice.iter().map(|notice| pages::maintenance_strip(notice, caller)));
    let view = ProblemPage {
        shell,
        status: problem.status,
        code: code.to_owned(),
        what: problem.title.clone(),
        detail: format!("{detail}."),
        advice: advice.to_owned(),
        again: if again { path.to_owned() } else { String::new() },
        request_id: problem.request_id.clone(),
    };
    match caller {
        Some(_) => ProblemInFrame { shell: view.shell.clone(), problem: view }.render(),
        None => view.render(),
    }
    .unwrap_or_default()
}
