//! What every page handler needs around its one service call: who looks, in which colours, the
//! notice of the action before, and the answers (a page, or a way on with a notice).
//!
//! The notice travels in a cookie of half a minute that the next page reads and ends; it is text,
//! escaped like any other.

use std::collections::HashMap;
use std::sync::LazyLock;
use std::time::Duration;

use axum::extract::FromRequestParts;
use axum::http::StatusCode;
use axum::http::header::{CONTENT_TYPE, COOKIE, HeaderMap, HeaderValue, LOCATION, SET_COOKIE};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use berth_web::Template;
use berth_web::format::{Moment, bytes};
use berth_web::shell::{ENTRIES, Entry, Flash, Section, Shell, Strip, Theme, Tone, Viewer};

use super::entry::refusal;
use super::form::Wrong;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::guard::{Seen, cookie};
use crate::http::reached::Reached;
use crate::http::routes::Access;
use crate::inventory::maintenance::Notice;
use crate::service::machine::{self, Disk};

/// How long a notice waits for the page that shows it.
const FLASH_SECS: u32 = 30;
/// A choice is kept for as long as browsers let it be.
const KEPT_SECS: u32 = 400 * 86_400;
/// Below this share of the disk everyone is told.
const DISK_LOW_PERCENT: u64 = 5;
/// Whose account ends within so many days is told on each page.
const ACCOUNT_ENDS_DAYS: u64 = 14;
/// Sent by a page that looks again by itself. The notice is for whoever opens a page: a look that happens
/// to be under way when somebody is led to another page must not take it from there.
const LOOK: &str = "berth-look";
/// A notice's bytes at most; a cookie has room for 4096.
const FLASH_BYTES_MAX: usize = 1500;

/// The frame of a request for a page.
pub(super) struct Frame {
    instance: String,
    caller: Option<Caller>,
    theme: Theme,
    flash: Option<Flash>,
    /// Where one asks for more of what was in the way of what led here.
    flash_ask: Option<String>,
    path: String,
    origin: String,
    https: bool,
    /// The request's `Cookie` headers alone.
    cookies: HeaderMap,
    strips: Vec<Strip>,
    seen: Seen,
}

impl FromRequestParts<App> for Frame {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let instance = app.config.runtime.instance.clone();
        let headers = &parts.headers;
        let reached = parts.extensions.get::<Reached>();
        let path = parts.uri.path_and_query().map_or("/", |path| path.as_str());
        let caller = parts.extensions.get::<Caller>().cloned();
        let told = (!headers.contains_key(LOOK))
            .then(|| cookie(headers, &format!("{instance}_flash")).and_then(read_flash))
            .flatten();
        let (flash, flash_ask) = match told {
            Some((flash, ask)) => (Some(flash), ask),
            None => (None, None),
        };
        // One call of the kernel; a file system that cannot be asked is no news for everyone.
        let disk = caller.as_ref().and_then(|_| machine::disk(&app.config.store_dir()).ok());
        Ok(Self {
            strips: strips(app, caller.as_ref(), disk.as_ref()),
            caller,
            theme: theme(&instance, headers),
            flash,
            flash_ask,
            path: path.to_owned(),
            origin: reached.map(Reached::origin).unwrap_or_default(),
            https: reached.is_some_and(|reached| reached.https),
            cookies: headers.get_all(COOKIE).iter().map(|value| (COOKIE, value.clone())).collect(),
            seen: parts.extensions.get::<Seen>().cloned().unwrap_or_default(),
            instance,
        })
    }
}

impl Frame {
    /// Who looks.
    ///
    /// # Errors
    /// When nobody has signed in.
    pub(super) fn caller(&self) -> Result<&Caller> {
        self.caller.as_ref().ok_or(Error::Unauthenticated)
    }

    /// Scheme, host and port as the browser sees them.
    pub(super) fn origin(&self) -> &str {
        &self.origin
    }

    /// The page's frame.
    pub(super) fn shell(&self, title: impl Into<String>, section: Section) -> Shell {
        Shell {
            title: title.into(),
            section,
            flash: self.flash.clone(),
            ask: self.seen.ask().or_else(|| self.flash_ask.clone()),
            origin: self.origin.clone(),
            strips: self.strips.clone(),
            ..shell(self.caller.as_ref(), self.theme, &self.path)
        }
    }

    /// The page itself; its notice is used up.
    ///
    /// # Errors
    /// When a template fails, which none does that compiles.
    pub(super) fn page(&self, view: &impl Template) -> Result<Response> {
        self.page_with(StatusCode::OK, view)
    }

    /// The page with a status of its own, as when a form was refused.
    ///
    /// # Errors
    /// As [`Frame::page`].
    pub(super) fn page_with(&self, status: StatusCode, view: &impl Template) -> Result<Response> {
        let html = view.render().map_err(|error| Error::broken("render a page", error))?;
        let mut response = (status, html).into_response();
        let headers = response.headers_mut();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("text/html; charset=utf-8"));
        if self.flash.is_some() {
            self.set_cookie(headers, "flash", "", 0)?;
        }
        Ok(response)
    }

    /// On to another page.
    ///
    /// # Errors
    /// When the path is no header value.
    pub(super) fn on(&self, path: &str) -> Result<Response> {
        let mut response = StatusCode::SEE_OTHER.into_response();
        let path = HeaderValue::try_from(local(path))
            .map_err(|error| Error::broken("write a redirect", error))?;
        response.headers_mut().insert(LOCATION, path);
        Ok(response)
    }

    /// On to another page, which says what has been done.
    ///
    /// # Errors
    /// As [`Frame::on`].
    pub(super) fn done(&self, path: &str, text: &str) -> Result<Response> {
        self.tell(path, Tone::Good, text)
    }

    /// On to another page, which says why something was refused. What is broken goes to the error
    /// page instead.
    ///
    /// # Errors
    /// What is no refusal.
    pub(super) fn refused(&self, path: &str, error: Error) -> Result<Response> {
        match error {
            Error::Broken { .. } | Error::Unauthenticated | Error::NotFound(_) => Err(error),
            refusal => {
                self.seen.set_refusal(&refusal);
                self.tell(path, Tone::Bad, &sentence(&refusal.to_string()))
            }
        }
    }

    /// Notes that something was refused though the page goes on.
    pub(super) fn note(&self, error: &Error) {
        self.seen.set_refusal(error);
    }

    /// Status, field errors and text of a form that was refused.
    ///
    /// # Errors
    /// What is no refusal.
    pub(super) fn refusal(&self, error: Error) -> Result<(StatusCode, Wrong, String)> {
        self.note(&error);
        refusal(error)
    }

    /// The outcome of an action, told on the page at `path`.
    ///
    /// # Errors
    /// As [`Frame::refused`].
    pub(super) fn outcome<T>(&self, result: Result<T>, path: &str, text: &str) -> Result<Response> {
        match result {
            Ok(_) => self.done(path, text),
            Err(error) => self.refused(path, error),
        }
    }

    fn tell(&self, path: &str, tone: Tone, text: &str) -> Result<Response> {
        let mut response = self.on(path)?;
        let mut end = text.len().min(FLASH_BYTES_MAX);
        while !text.is_char_boundary(end) {
            end -= 1;
        }
        let value = match (tone, self.seen.ask()) {
            (Tone::Good, _) => format!("+{}", &text[..end]),
            (_, Some(ask)) => format!("?{ask} {}", &text[..end]),
            (_, None) => format!("-{}", &text[..end]),
        };
        let value = URL_SAFE_NO_PAD.encode(value);
        self.set_cookie(response.headers_mut(), "flash", &value, FLASH_SECS)?;
        Ok(response)
    }

    /// What this browser keeps under `name`, from [`Frame::kept`].
    pub(super) fn cookie(&self, name: &str) -> Option<String> {
        let value = cookie(&self.cookies, &format!("{}_{name}", self.instance))?;
        (!value.is_empty()).then(|| value.to_owned())
    }

    /// On to another page, and this browser keeps `value` from now on; nothing with `None`.
    ///
    /// # Errors
    /// As [`Frame::on`].
    pub(super) fn kept(&self, name: &str, value: Option<&str>, path: &str) -> Result<Response> {
        let mut response = self.on(path)?;
        let secs = if value.is_some() { KEPT_SECS } else { 0 };
        self.set_cookie(response.headers_mut(), name, value.unwrap_or(""), secs)?;
        Ok(response)
    }

    /// Back to where the colours were chosen, in the chosen ones.
    ///
    /// # Errors
    /// As [`Frame::on`].
    pub(super) fn themed(&self, theme: Theme, back: &str) -> Result<Response> {
        let mut response = self.on(back)?;
        self.set_cookie(response.headers_mut(), "theme", theme.name(), KEPT_SECS)?;
        Ok(response)
    }

    fn set_cookie(
        &self,
        headers: &mut HeaderMap,
        what: &str,
        value: &str,
        secs: u32,
    ) -> Result<()> {
        let name = format!("{}_{what}", self.instance);
        let secure = if self.https { "; Secure" } else { "" };
        let text =
            format!("{name}={value}; Path=/; Max-Age={secs}; HttpOnly; SameSite=Lax{secure}");
        let value =
            HeaderValue::try_from(text).map_err(|error| Error::broken("write a cookie", error))?;
        headers.append(SET_COOKIE, value);
        Ok(())
    }
}

/// `text` as a sentence: errors begin small and have no full stop.
pub(super) fn sentence(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().map(char::to_uppercase);
    let mut out: String = first.into_iter().flatten().chain(chars).collect();
    if !out.is_empty() && !out.ends_with(['.', '!', '?']) {
        out.push('.');
    }
    out
}

/// A path of this server, whatever a form or link says: no other host, no scheme.
pub(super) fn local(path: &str) -> &str {
    let elsewhere =
        path.starts_with("//") || path.contains('\\') || path.contains(char::is_control);
    if path.starts_with('/') && !elsewhere { path } else { "/" }
}

/// One segment of a path or one value of a query.
pub(super) fn encoded(text: &str) -> String {
    url::form_urlencoded::byte_serialize(text.as_bytes()).collect()
}

/// What everyone must know, whoever looks.
fn strips(app: &App, caller: Option<&Caller>, disk: Option<&Disk>) -> Vec<Strip> {
    let maintenance = app.maintenance.notice().map(|notice| maintenance_strip(&notice, caller));
    let account = caller.and_then(|caller| account_strip(caller, Time::now()));
    maintenance.into_iter().chain(account).chain(disk.and_then(disk_strip)).collect()
}

/// Says to whoever looks that their account ends soon.
fn account_strip(caller: &Caller, now: Time) -> Option<Strip> {
    let at = caller.account_expires_at?;
    let soon = at <= now.after(Duration::from_secs(ACCOUNT_ENDS_DAYS * 86_400));
    let Moment { words, exact, .. } = Moment::new(at.0, now.0);
    soon.then(|| Strip {
        tone: Tone::Attention,
        text: format!(
            "Your account ends {words} ({exact}): then you cannot sign in, and what runs of yours is stopped. \
             Nothing is removed. An operator can give it a later end."
        ),
        link: None,
    })
}

/// Says that the machine is in maintenance, in the operator's words.
pub(super) fn maintenance_strip(notice: &Notice, caller: Option<&Caller>) -> Strip {
    let path = leads("/system/maintenance", caller);
    Strip {
        tone: Tone::Attention,
        text: format!("In maintenance: {}", sentence(&notice.message)),
        link: path.map(|path| ("Change or end it", path.to_owned())),
    }
}

/// Says that the disk is nearly full, which concerns whoever pulls or writes.
fn disk_strip(disk: &Disk) -> Option<Strip> {
    let left = disk.available_bytes;
    if left > disk.total_bytes / 100 * DISK_LOW_PERCENT {
        return None;
    }
    let share = format!("{} of {}", bytes(left), bytes(disk.total_bytes));
    Some(Strip {
        tone: if left > disk.total_bytes / 100 { Tone::Attention } else { Tone::Bad },
        text: format!("The disk for images and files is nearly full: {share} left."),
        link: Some(("See your images", "/images".to_owned())),
    })
}

/// The frame around a page for `caller`.
pub(super) fn shell(caller: Option<&Caller>, theme: Theme, path: &str) -> Shell {
    Shell {
        viewer: caller.map(viewer),
        entries: caller.map(entries).unwrap_or_default(),
        theme,
        path: path.to_owned(),
        ..Shell::default()
    }
}

/// The colours that a browser has chosen.
pub(super) fn theme(instance: &str, headers: &HeaderMap) -> Theme {
    Theme::read(cookie(headers, &format!("{instance}_theme")).unwrap_or(""))
}

/// The path, if there is a page there that lets the caller in: the route table decides, so that no
/// link leads to a refusal or to nowhere.
pub(super) fn leads(path: &'static str, caller: Option<&Caller>) -> Option<&'static str> {
    static PAGES: LazyLock<HashMap<String, Access>> = LazyLock::new(|| {
        let (table, _) = crate::http::describe();
        let pages = table.into_iter().filter(|row| row.method == "GET");
        pages.map(|row| (row.path, row.access)).collect()
    });
    PAGES.get(path).is_some_and(|access| access.allows(caller).is_ok()).then_some(path)
}

/// The entries of the navigation that lead somewhere for the caller.
fn entries(caller: &Caller) -> Vec<&'static Entry> {
    ENTRIES.iter().filter(|entry| leads(entry.path, Some(caller)).is_some()).collect()
}

fn viewer(caller: &Caller) -> Viewer {
    Viewer {
        name: caller.name.clone(),
        role: caller.role.as_str().to_owned(),
        acts: matches!(caller.role, Role::Operator | Role::User),
    }
}

/// The notice, and where one asks for more of what was in the way.
fn read_flash(value: &str) -> Option<(Flash, Option<String>)> {
    let text = String::from_utf8(URL_SAFE_NO_PAD.decode(value).ok()?).ok()?;
    let flash = |tone, text: &str| Flash { tone, text: text.to_owned() };
    match text.split_at_checked(1)? {
        ("+", text) => Some((flash(Tone::Good, text), None)),
        ("-", text) => Some((flash(Tone::Bad, text), None)),
        ("?", rest) => {
            let (ask, text) = rest.split_once(' ')?;
            let ours = ask.starts_with("/asks?limit=").then(|| ask.to_owned());
            Some((flash(Tone::Bad, text), ours))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_link_leads_elsewhere() {
        assert_eq!(local("/containers?q=a"), "/containers?q=a");
        for path in [
            "//evil",
            "https://evil",
            "",
            "evil",
            "/\\evil",
            "/a\r\nb",
            "/\tevil",
            "/\u{1}",
            "/\u{7f}",
            "/\u{85}",
        ] {
            assert_eq!(local(path), "/", "{path:?}");
        }
    }

    #[test]
    fn a_disk_is_said_to_be_full_before_it_is() {
        let of = |available_bytes| Disk { total_bytes: 1000, available_bytes, files_available: 9 };
        assert!(disk_strip(&of(51)).is_none());
        assert_eq!(disk_strip(&of(50)).map(|strip| strip.tone), Some(Tone::Attention));
        assert_eq!(disk_strip(&of(10)).map(|strip| strip.tone), Some(Tone::Bad));
    }

    #[test]
    fn notices_survive_the_cookie() {
        let value = URL_SAFE_NO_PAD.encode("-it’s gone; really");
        let (flash, ask) = read_flash(&value).expect("a notice");
        assert_eq!((flash.tone, flash.text.as_str()), (Tone::Bad, "it’s gone; really"));
        assert_eq!(ask, None);
        let value = URL_SAFE_NO_PAD.encode("?/asks?limit=pids too many");
        let (flash, ask) = read_flash(&value).expect("a notice");
        assert_eq!((flash.text.as_str(), ask.as_deref()), ("too many", Some("/asks?limit=pids")));
        let value = URL_SAFE_NO_PAD.encode("?//evil.example too many");
        assert_eq!(read_flash(&value).expect("a notice").1, None);
        assert!(read_flash("%").is_none() && read_flash("").is_none());
    }

    #[test]
    fn refusals_become_sentences() {
        assert_eq!(sentence("sign in first"), "Sign in first.");
        assert_eq!(sentence(""), "");
    }
}
