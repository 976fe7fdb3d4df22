//! `/api/v1/volumes/{id}/files` and `/api/v1/containers/{id}/files`: the same handlers for both.

use axum::Json;
use axum::body::Body;
use axum::extract::State;
use axum::http::header::{
    ACCEPT_RANGES, CONTENT_DISPOSITION, CONTENT_LENGTH, CONTENT_RANGE, CONTENT_TYPE, RANGE,
};
use axum::http::{HeaderMap, StatusCode};
use axum::response::{IntoResponse, Response};
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

use crate::app::App;
use crate::auth::TokenScope;
use crate::error::{Error, Result};
use crate::http::extract::{Caller, Items, JsonBody, PageParams, Path, Query, page};
use crate::http::problem::ProblemBody;
use crate::http::routes::{Access, Routes, routes};
use crate::http::stream;
use crate::service::files::{self, At, Download, FileView, Holder, Part, Upload, Uploaded};

/// Adds the routes.
pub fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let operate = Access::Member(TokenScope::Operate);
    routes
        .add(read, routes!(of_volume::list))
        .add(operate, routes!(of_volume::remove))
        .add(read, routes!(of_volume::show))
        .add(read, routes!(of_volume::download))
        .upload(operate, routes!(of_volume::upload))
        .add(read, routes!(of_volume::archive))
        .add(operate, routes!(of_volume::make_folder))
        .add(read, routes!(of_container::list))
        .add(operate, routes!(of_container::remove))
        .add(read, routes!(of_container::show))
        .add(read, routes!(of_container::download))
        .upload(operate, routes!(of_container::upload))
        .add(read, routes!(of_container::archive))
        .add(operate, routes!(of_container::make_folder))
}

/// A path.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct PathQuery {
    /// The path, such as `/var/data/report.txt`, at most 4,095 bytes; the top when it is left out. Links on the way
    /// lead to places inside only.
    #[serde(default)]
    #[param(required = false)]
    path: String,
}

/// A folder, and which part of it.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct FolderQuery {
    /// The folder; `/`, the top, when it is left out.
    path: Option<String>,
    /// Items at most, 1 to 500.
    limit: Option<u32>,
    /// The `next` of the page before.
    after: Option<String>,
}

/// What is uploaded.
#[derive(Debug, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
struct UploadQuery {
    /// Where the file is to be. Its folder has to be there; a link at its place is replaced, not followed.
    #[serde(default)]
    #[param(required = false)]
    path: String,
    /// Permission bits in octal digits. Without them a file that is replaced keeps its own, a new one gets 0644.
    mode: Option<String>,
    /// For an upload in parts: 32 hexadecimal digits of your choice that name it.
    upload: Option<String>,
    /// Where this part begins: how many bytes the parts before it had. With `upload`.
    offset: Option<u64>,
    /// How many bytes the whole file has, at most 1 TiB. With `upload`.
    total: Option<u64>,
}

/// A folder to be made.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = FolderCreate)]
struct FolderRequest {
    /// Its path; the folder around it has to be there.
    path: String,
}

/// An upload of which more is to come.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = UploadState)]
struct UploadState {
    /// The upload.
    upload: String,
    /// How many bytes of it are there: where the next part begins.
    bytes: u64,
}

/// The bytes of a file.
#[derive(ToSchema)]
#[schema(value_type = String, format = Binary)]
#[expect(dead_code, reason = "only its description is used: the body is a stream")]
struct Content(Vec<u8>);

impl UploadQuery {
    fn part(self) -> Result<(String, Option<String>, Option<Part>)> {
        let Self { path, mode, upload, offset, total } = self;
        let part = match (upload, offset, total) {
            (None, None, None) => None,
            (Some(upload), Some(offset), Some(total)) => Some(Part { upload, offset, total }),
            _ => {
                let text = "goes together with ?offset and ?total, or all three are left out";
                return Err(Error::field("?upload", text));
            }
        };
        Ok((path, mode, part))
    }
}

async fn listed(
    app: &App,
    caller: &Caller,
    (holder, key): (Holder, String),
    query: FolderQuery,
) -> Result<Json<Items<FileView>>> {
    let page = page(app, &PageParams { limit: query.limit, after: query.after })?;
    let path = query.path.unwrap_or_else(|| "/".to_owned());
    let listed = files::list(app, caller, &At { holder, key, path }, &page).await?;
    Ok(Json(Items::seal(app, listed)?))
}

/// Answers with a file, or with the part of it that is asked for.
fn content(
    app: &App,
    caller: &Caller,
    headers: &HeaderMap,
    download: Download,
) -> Result<Response> {
    let total = download.file.bytes;
    let asked = headers.get(RANGE).and_then(|value| value.to_str().ok());
    let (status, from, length) = match asked.and_then(|text| range(text, total)) {
        Some(Some((from, length))) => (StatusCode::PARTIAL_CONTENT, from, length),
        Some(None) => {
            let headers = [(CONTENT_RANGE, format!("bytes */{total}"))];
            return Ok((StatusCode::RANGE_NOT_SATISFIABLE, headers).into_response());
        }
        None => (StatusCode::OK, 0, total),
    };
    let mut answer = (
        status,
        [
            (CONTENT_TYPE, "application/octet-stream".to_owned()),
            (CONTENT_LENGTH, length.to_string()),
            (ACCEPT_RANGES, "bytes".to_owned()),
            (CONTENT_DISPOSITION, disposition(&download.file.name)),
        ],
    )
        .into_response();
    if status == StatusCode::PARTIAL_CONTENT {
        let text = format!("bytes {from}-{}/{total}", from + length - 1);
        let value = text.parse().map_err(|source| Error::broken("write a header", source))?;
        answer.headers_mut().insert(CONTENT_RANGE, value);
    }
    let right = download.right.clone();
    let read = stream::guarded(app, caller, right, download.read(from, length))?;
    *answer.body_mut() = Body::from_stream(read);
    Ok(answer)
}

/// One range of bytes (RFC 9110, section 14): begin and length, `None` for one that lies beyond the end. What is
/// none, or is several, is as if nothing had been asked for.
fn range(text: &str, total: u64) -> Option<Option<(u64, u64)>> {
    let (first, last) = text.strip_prefix("bytes=")?.split_once('-')?;
    let number = |text: &str| {
        let digits = !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if digits { text.parse::<u64>().ok() } else { None }
    };
    if first.is_empty() {
        let length = number(last)?.min(total);
        return Some((length > 0).then_some((total - length, length)));
    }
    let from = number(first)?;
    let to = if last.is_empty() { u64::MAX } else { number(last)? };
    if to < from {
        return None;
    }
    Some((from < total).then(|| (from, (to.min(total - 1)) - from + 1)))
}

/// A name as a browser is to save a file under (RFC 6266): as it is in UTF-8, and nearly so in ASCII.
fn disposition(name: &str) -> String {
    let safe = |c: char| match c.is_ascii_alphanumeric() || "._- ".contains(c) {
        true => c,
        false => '_',
    };
    let plain: String = name.chars().map(safe).collect();
    let mut exact = String::new();
    for byte in name.bytes() {
        match byte.is_ascii_alphanumeric() || b"._-".contains(&byte) {
            true => exact.push(char::from(byte)),
            false => exact.push_str(&format!("%{byte:02X}")),
        }
    }
    format!("attachment; filename=\"{plain}\"; filename*=UTF-8''{exact}")
}

/// Answers with a folder as an archive.
async fn archived(app: &App, caller: &Caller, at: &At) -> Result<Response> {
    let (name, right, read) = files::archive(app, caller, at).await?;
    let headers =
        [(CONTENT_TYPE, "application/x-tar".to_owned()), (CONTENT_DISPOSITION, disposition(&name))];
    let body = Body::from_stream(stream::guarded(app, caller, right, read)?);
    Ok((headers, body).into_response())
}

async fn uploaded(
    app: &App,
    caller: &Caller,
    (holder, key): (Holder, String),
    query: UploadQuery,
    body: Body,
) -> Result<Response> {
    let (path, mode, part) = query.part()?;
    let named = part.as_ref().map(|part| part.upload.clone()).unwrap_or_default();
    let upload = Upload { bytes: body.into_data_stream(), mode, part };
    Ok(match files::upload(app, caller, &At { holder, key, path }, upload).await? {
        Uploaded::Put(file) => Json(file).into_response(),
        Uploaded::Partly(bytes) => {
            let state = UploadState { upload: named, bytes };
            (StatusCode::ACCEPTED, Json(state)).into_response()
        }
    })
}

/// The handlers for one kind of holder.
macro_rules! handlers {
    ($module:ident, $holder:expr, $tag:literal, $base:literal,
     $list:literal, $show:literal, $download:literal, $upload:literal, $archive:literal,
     $make:literal, $remove:literal,
     $entry_path:literal, $content_path:literal, $archive_path:literal, $folder_path:literal) => {
        mod $module {
            use super::*;

            /// Lists what a folder holds, by name. Only the owner may; `/proc`, `/sys` and `/dev` of a container
            /// that runs are no files. Of a folder with very many names not all are looked at.
            #[utoipa::path(get, path = $base, tag = $tag, operation_id = $list,
                params(("id" = String, Path, description = "Its id, or the name of one's own"), FolderQuery),
                responses((status = 200, body = Items<FileView>), (status = 403, body = ProblemBody),
                    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
                    (status = 422, body = ProblemBody)))]
            pub(super) async fn list(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
                Query(query): Query<FolderQuery>,
            ) -> Result<Json<Items<FileView>>> {
                listed(&app, &caller, ($holder, key), query).await
            }

            /// Shows one file, folder or link; a link is not followed.
            #[utoipa::path(get, path = $entry_path, tag = $tag, operation_id = $show,
                params(("id" = String, Path, description = "Its id, or the name of one's own"), PathQuery),
                responses((status = 200, body = FileView), (status = 403, body = ProblemBody),
                    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
                    (status = 422, body = ProblemBody)))]
            pub(super) async fn show(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
                Query(query): Query<PathQuery>,
            ) -> Result<Json<FileView>> {
                let at = At { holder: $holder, key, path: query.path };
                Ok(Json(files::look(&app, &caller, &at).await?))
            }

            /// Downloads a file, or with `Range` one stretch of it. Links are followed inside only.
            #[utoipa::path(get, path = $content_path, tag = $tag, operation_id = $download,
                params(("id" = String, Path, description = "Its id, or the name of one's own"), PathQuery,
                    ("Range" = Option<String>, Header, description = "Such as `bytes=1000-`")),
                responses((status = 200, content_type = "application/octet-stream", body = Content),
                    (status = 206, content_type = "application/octet-stream", body = Content),
                    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
                    (status = 409, body = ProblemBody), (status = 416),
                    (status = 422, body = ProblemBody)))]
            pub(super) async fn download(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
                Query(query): Query<PathQuery>,
                headers: HeaderMap,
            ) -> Result<Response> {
                let at = At { holder: $holder, key, path: query.path };
                let download = files::open(&app, &caller, &at).await?;
                content(&app, &caller, &headers, download)
            }

            /// Uploads a file: the body is its content. It has its name when all of it is on disk, belongs to whom
            /// the file before it did, or the folder, and counts to what its owner may keep.
            ///
            /// A large file can be sent in parts, and gone on with after a break, also one of the server's: with
            /// `upload`, `offset` and `total`, each part's answer (202) says how many bytes are there, and the last
            /// part's (200) shows the file. An empty part asks how many are there. What nothing is added to for a
            /// day is given up.
            #[utoipa::path(put, path = $content_path, tag = $tag, operation_id = $upload,
                params(("id" = String, Path, description = "Its id, or the name of one's own"), UploadQuery),
                request_body(content = Content, content_type = "application/octet-stream",
                    description = "The file, or the part of it; the media type is not looked at"),
                responses((status = 200, body = FileView), (status = 202, body = UploadState),
                    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
                    (status = 409, body = ProblemBody), (status = 413, body = ProblemBody),
                    (status = 422, body = ProblemBody), (status = 507, body = ProblemBody)))]
            pub(super) async fn upload(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
                Query(query): Query<UploadQuery>,
                body: Body,
            ) -> Result<Response> {
                uploaded(&app, &caller, ($holder, key), query, body).await
            }

            /// Downloads a folder as a tar archive in GNU's form, with owners as the container numbers them. What a
            /// program changes meanwhile is as it is met; an archive that breaks off ends the connection.
            #[utoipa::path(get, path = $archive_path, tag = $tag, operation_id = $archive,
                params(("id" = String, Path, description = "Its id, or the name of one's own"), PathQuery),
                responses((status = 200, content_type = "application/x-tar", body = Content),
                    (status = 403, body = ProblemBody), (status = 404, body = ProblemBody),
                    (status = 409, body = ProblemBody), (status = 422, body = ProblemBody)))]
            pub(super) async fn archive(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
                Query(query): Query<PathQuery>,
            ) -> Result<Response> {
                archived(&app, &caller, &At { holder: $holder, key, path: query.path }).await
            }

            /// Makes a folder, which belongs to whom the one around it does.
            #[utoipa::path(post, path = $folder_path, tag = $tag, operation_id = $make,
                params(("id" = String, Path, description = "Its id, or the name of one's own")),
                request_body = FolderRequest,
                responses((status = 201, body = FileView), (status = 403, body = ProblemBody),
                    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
                    (status = 422, body = ProblemBody), (status = 507, body = ProblemBody)))]
            pub(super) async fn make_folder(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
                JsonBody(body): JsonBody<FolderRequest>,
            ) -> Result<(StatusCode, Json<FileView>)> {
                let at = At { holder: $holder, key, path: body.path };
                Ok((StatusCode::CREATED, Json(files::make_folder(&app, &caller, &at).await?)))
            }

            /// Removes a file, or a folder with all that is in it. Links are removed, not followed.
            #[utoipa::path(delete, path = $base, tag = $tag, operation_id = $remove,
                params(("id" = String, Path, description = "Its id, or the name of one's own"), PathQuery),
                responses((status = 204), (status = 403, body = ProblemBody),
                    (status = 404, body = ProblemBody), (status = 409, body = ProblemBody),
                    (status = 422, body = ProblemBody), (status = 503, body = ProblemBody)))]
            pub(super) async fn remove(
                State(app): State<App>,
                caller: Caller,
                Path(key): Path<String>,
                Query(query): Query<PathQuery>,
            ) -> Result<StatusCode> {
                let at = At { holder: $holder, key, path: query.path };
                files::remove(&app, &caller, &at).await?;
                Ok(StatusCode::NO_CONTENT)
            }
        }
    };
}

handlers!(
    of_volume,
    Holder::Volume,
    "volumes",
    "/api/v1/volumes/{id}/files",
    "list_volume_files",
    "show_volume_file",
    "download_volume_file",
    "upload_volume_file",
    "archive_volume_folder",
    "make_volume_folder",
    "remove_volume_file",
    "/api/v1/volumes/{id}/files/entry",
    "/api/v1/volumes/{id}/files/content",
    "/api/v1/volumes/{id}/files/archive",
    "/api/v1/volumes/{id}/files/folder"
);
handlers!(
    of_container,
    Holder::Container,
    "containers",
    "/api/v1/containers/{id}/files",
    "list_container_files",
    "show_container_file",
    "download_container_file",
    "upload_container_file",
    "archive_container_folder",
    "make_container_folder",
    "remove_container_file",
    "/api/v1/containers/{id}/files/entry",
    "/api/v1/containers/{id}/files/content",
    "/api/v1/containers/{id}/files/archive",
    "/api/v1/containers/{id}/files/folder"
);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_read_as_browsers_send_them() {
        assert_eq!(range("bytes=0-", 10), Some(Some((0, 10))));
        assert_eq!(range("bytes=3-5", 10), Some(Some((3, 3))));
        assert_eq!(range("bytes=3-500", 10), Some(Some((3, 7))));
        assert_eq!(range("bytes=-4", 10), Some(Some((6, 4))));
        assert_eq!(range("bytes=-40", 10), Some(Some((0, 10))));
        assert_eq!(range("bytes=10-", 10), Some(None));
        assert_eq!(range("bytes=-0", 10), Some(None));
        assert_eq!(range("bytes=0-", 0), Some(None));
        for odd in ["bytes=5-3", "bytes=0-1,3-4", "bytes=a-", "lines=0-", "bytes=+1-2", "bytes="] {
            assert_eq!(range(odd, 10), None, "{odd}");
        }
    }

    #[test]
    fn no_name_leaves_its_header() {
        let name = "a\"; filename=x\r\nSet-Cookie: y=ä";
        let text = disposition(name);
        assert!(text.is_ascii() && !text.contains(['\r', '\n']), "{text}");
        assert_eq!(text.matches('"').count(), 2, "{text}");
        assert!(text.ends_with("y%3D%C3%A4"), "{text}");
    }
}
