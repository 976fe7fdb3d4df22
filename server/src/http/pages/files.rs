//! Files of a volume or container: a folder at a time, with uploads, new folders and removals.

use axum::extract::multipart::{MultipartError, MultipartRejection};
use axum::extract::{Multipart, Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_web::containers::{ConfirmPage, Tab};
use berth_web::files::{FileRow, FolderPage};
use berth_web::format::{Moment, bytes};
use berth_web::parts::Field;
use berth_web::shell::{ApiCall, Section};
use serde::Deserialize;

use super::form::Posted;
use super::frame::{Frame, encoded, sentence};
use super::log::visible;
use super::shown;
use crate::app::App;
use crate::auth::{Caller, Right, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::extract::{Items, Query};
use crate::http::routes::{Access, FormFields, Routes};
use crate::service::files::{self, At, FileView, Holder, Kind, Upload};
use crate::service::{Page, containers, volumes};

/// Rows on one page.
const ROWS: u32 = 200;

/// Where a page is.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
struct Place {
    #[serde(default)]
    path: String,
    after: Option<String>,
}

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let look = Access::SignedIn(TokenScope::Read);
    let act = Access::Member(TokenScope::Operate);
    let mut routes = routes;
    for (holder, base) in [(Holder::Volume, "/volumes"), (Holder::Container, "/containers")] {
        let path = |end: &str| format!("{base}/{{id}}/files{end}");
        routes = routes
            .page(
                look,
                Method::GET,
                &path(""),
                move |app: State<App>,
                      frame: Frame,
                      caller: Caller,
                      id: Path<String>,
                      at: Query<Place>| {
                    folder(app, frame, caller, (holder, id.0), at.0)
                },
            )
            .page_upload(
                act,
                &path(""),
                FormFields::once(&["file"]),
                move |app: State<App>,
                      frame: Frame,
                      caller: Caller,
                      id: Path<String>,
                      at: Query<Place>,
                      form: Result<Multipart, MultipartRejection>| {
                    upload(app, frame, caller, (holder, id.0, at.0.path), form)
                },
            )
            .form(
                act,
                &path("/folder"),
                FormFields::once(&["path", "name"]),
                move |app: State<App>,
                      frame: Frame,
                      caller: Caller,
                      id: Path<String>,
                      posted: Posted| {
                    make_folder(app, frame, caller, (holder, id.0), posted)
                },
            )
            .page(
                act,
                Method::GET,
                &path("/remove"),
                move |app: State<App>,
                      frame: Frame,
                      caller: Caller,
                      id: Path<String>,
                      at: Query<Place>| {
                    ask_remove(app, frame, caller, (holder, id.0), at.0.path)
                },
            )
            .form(
                act,
                &path("/remove"),
                FormFields::once(&["path"]),
                move |app: State<App>,
                      frame: Frame,
                      caller: Caller,
                      id: Path<String>,
                      posted: Posted| {
                    remove(app, frame, caller, (holder, id.0), posted)
                },
            );
    }
    routes
}

/// The page of the volume or container.
fn base(holder: Holder, id: &str) -> String {
    match holder {
        Holder::Volume => format!("/volumes/{}", encoded(id)),
        Holder::Container => format!("/containers/{}", encoded(id)),
    }
}

/// The page of a folder in it.
fn address(holder: Holder, id: &str, path: &str) -> String {
    format!("{}/files?path={}", base(holder, id), encoded(path))
}

fn below(path: &str, name: &str) -> String {
    format!("{}/{name}", path.trim_end_matches('/'))
}

/// The folder that something is in.
fn above(path: &str) -> &str {
    match path.trim_end_matches('/').rsplit_once('/') {
        Some(("", _)) | None => "/",
        Some((parent, _)) => parent,
    }
}

/// What a page shows besides what is there.
#[derive(Default)]
struct Shown {
    error: String,
    name: Field,
}

async fn folder(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    (holder, id): (Holder, String),
    place: Place,
) -> Result<Response> {
    show(&app, &frame, &caller, (holder, &id, place), StatusCode::OK, Shown::default()).await
}

async fn show(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    (holder, id, place): (Holder, &str, Place),
    status: StatusCode,
    shown: Shown,
) -> Result<Response> {
    let path = if place.path.is_empty() { "/".to_owned() } else { place.path };
    let at = At { holder, key: id.to_owned(), path: path.clone() };
    let after = place.after.as_deref().and_then(|after| app.keys.unseal(after));
    let (title, head, section, writes) = match holder {
        Holder::Volume => {
            let found = volumes::inspect(app, caller, id).await?;
            let writes = found.volume.rights.contains(&Right::Write);
            (found.volume.name, None, Section::Volumes, writes)
        }
        Holder::Container => {
            let found = containers::inspect(app, caller, id).await?;
            let head = shown::head(caller, &found.container, Tab::Files);
            let writes = head.may.files && head.may.terminal;
            (found.container.name, Some(head), Section::Containers, writes)
        }
    };
    let mut error = shown.error;
    let listed = match files::list(app, caller, &at, &Page { limit: ROWS, after }).await {
        Ok(listed) => Items::<FileView>::seal(app, listed)?,
        // What is in the way is said on the page, from which one gets elsewhere.
        Err(why @ (Error::Conflict(_) | Error::Unavailable(_) | Error::Invalid { .. })) => {
            frame.note(&why);
            error = sentence(&why.to_string());
            Items::whole(Vec::new())
        }
        Err(why) => return Err(why),
    };
    let api = format!("/api/v1{}/files", base(holder, id));
    let mut shell = frame.shell(title.clone(), section);
    shell.path = address(holder, id, &path);
    shell.calls = vec![
        ApiCall::get("List this folder", format!("{api}?path={}", encoded(&path))),
        ApiCall::get("Have it as tar", format!("{api}/archive?path={}", encoded(&path))),
    ];
    let view = FolderPage {
        shell,
        head,
        title,
        base: base(holder, id),
        error,
        way: way(holder, id, &path),
        here: visible(path.trim_end_matches('/').rsplit('/').next().unwrap_or_default()),
        query: encoded(&path),
        acts: writes,
        archive: format!("{api}/archive?path={}", encoded(&path)),
        name: shown.name,
        rows: listed.items.iter().map(|file| row(holder, id, &path, file)).collect(),
        next: listed
            .next
            .map(|next| format!("{}&after={}", address(holder, id, &path), encoded(&next))),
        path,
    };
    frame.page_with(status, &view)
}

/// The folders above one, the top first.
fn way(holder: Holder, id: &str, path: &str) -> Vec<(String, String)> {
    let mut way = Vec::new();
    let mut here = path.trim_end_matches('/');
    while let Some((parent, _)) = here.rsplit_once('/') {
        let name = parent.rsplit('/').next().unwrap_or_default();
        let name = if name.is_empty() { "top".to_owned() } else { visible(name) };
        way.push((name, address(holder, id, if parent.is_empty() { "/" } else { parent })));
        here = parent;
    }
    way.reverse();
    way
}

fn row(holder: Holder, id: &str, folder: &str, file: &FileView) -> FileRow {
    let path = below(folder, &file.name);
    let content = || format!("/api/v1{}/files/content?path={}", base(holder, id), encoded(&path));
    let (kind, there) = match file.kind {
        Kind::Folder => ("folder", address(holder, id, &path)),
        Kind::File => ("file", content()),
        Kind::Link => ("link", content()),
        Kind::Special => ("no file to be read", String::new()),
    };
    let exact = |text: String| if file.is_exact { text } else { String::new() };
    FileRow {
        name: visible(&file.name),
        kind,
        address: exact(there),
        size: if file.kind == Kind::File { bytes(file.bytes) } else { String::new() },
        mode: file.mode.clone(),
        owner: format!("{}:{}", file.uid, file.gid),
        changed: Moment::new(file.modified_at.0, Time::now().0),
        target: file.target.as_deref().map(visible).unwrap_or_default(),
        remove: exact(format!("{}/files/remove?path={}", base(holder, id), encoded(&path))),
    }
}

async fn upload(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    (holder, id, path): (Holder, String, String),
    form: Result<Multipart, MultipartRejection>,
) -> Result<Response> {
    let there = address(holder, &id, &path);
    let at = At { holder, key: id, path };
    files::may_change(&app, &caller, &at).await?;
    let result = match form {
        Ok(form) => receive(&app, &caller, at, form).await,
        Err(error) => Err(Error::invalid("request.malformed", error.body_text())),
    };
    match result {
        Ok(name) => frame.done(&there, &format!("{} is there.", visible(&name))),
        Err(error) => frame.refused(&there, error),
    }
}

/// Puts the form's file under its own name into the folder.
async fn receive(app: &App, caller: &Caller, mut at: At, mut form: Multipart) -> Result<String> {
    let broken = |error: MultipartError| Error::invalid("request.malformed", error.body_text());
    let missing = || Error::field("/file", "choose a file first");
    let field = form.next_field().await.map_err(broken)?.ok_or_else(missing)?;
    if field.name() != Some("file") {
        let pointer = format!("/{}", field.name().unwrap_or_default());
        return Err(Error::field(pointer, "this form has no such field"));
    }
    // Some browsers send where it was.
    let name = field.file_name().unwrap_or_default();
    let name = name.rsplit(['/', '\\']).next().unwrap_or_default().to_owned();
    if name.is_empty() {
        return Err(missing());
    }
    at.path = below(&at.path, &name);
    files::upload(app, caller, &at, Upload { bytes: field, mode: None, part: None }).await?;
    Ok(name)
}

async fn make_folder(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    (holder, id): (Holder, String),
    posted: Posted,
) -> Result<Response> {
    let (path, name) = (posted.exact("path").to_owned(), posted.exact("name"));
    let there = address(holder, &id, &path);
    let at = At { holder, key: id, path: below(&path, name) };
    files::may_change(&app, &caller, &at).await?;
    if name.contains('/') {
        return frame.refused(&there, Error::field("/name", "is one name, without a slash"));
    }
    match files::make_folder(&app, &caller, &at).await {
        Ok(_) => frame.done(&there, &format!("{} is made.", visible(name))),
        Err(error) => frame.refused(&there, error),
    }
}

async fn ask_remove(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    (holder, id): (Holder, String),
    path: String,
) -> Result<Response> {
    let at = At { holder, key: id.clone(), path: path.clone() };
    let file = files::look(&app, &caller, &at).await?;
    let name = visible(&file.name);
    let (section, loss) = match (holder, file.kind) {
        (Holder::Volume, Kind::Folder) => {
            (Section::Volumes, "The folder goes with all that is in it. Nothing brings it back.")
        }
        (Holder::Volume, _) => (Section::Volumes, "Nothing brings it back."),
        (Holder::Container, Kind::Folder) => {
            (Section::Containers, "The folder goes with all that is in it. Nothing brings it back.")
        }
        (Holder::Container, _) => (Section::Containers, "Nothing brings it back."),
    };
    frame.page(&ConfirmPage {
        shell: frame.shell(format!("Remove {name}"), section),
        question: format!("Remove {name}?"),
        losses: vec![loss.to_owned()],
        verb: "Remove it",
        path: format!("{}/files/remove", base(holder, &id)),
        hidden: vec![("path".to_owned(), path.clone())],
        back: address(holder, &id, above(&path)),
        ..ConfirmPage::default()
    })
}

async fn remove(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    (holder, id): (Holder, String),
    posted: Posted,
) -> Result<Response> {
    let path = posted.exact("path").to_owned();
    let there = address(holder, &id, above(&path));
    let at = At { holder, key: id, path };
    files::may_change(&app, &caller, &at).await?;
    let name = visible(at.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default());
    let removed = files::remove(&app, &caller, &at).await;
    frame.outcome(removed, &there, &format!("{name} is removed."))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn paths_lead_up_and_down() {
        assert_eq!(below("/", "a"), "/a");
        assert_eq!(below("/a/", "b c"), "/a/b c");
        assert_eq!((above("/a"), above("/a/b/"), above("/")), ("/", "/a", "/"));
        let way = way(Holder::Volume, "x", "/a/b");
        let names: Vec<&str> = way.iter().map(|(name, _)| name.as_str()).collect();
        assert_eq!(names, ["top", "a"]);
        assert_eq!(way[1].1, "/volumes/x/files?path=%2Fa");
    }
}
