//! What handlers take. A refused value is a problem like any other.

use axum::body::{Body, HttpBody as _};
use axum::extract::{FromRequest, FromRequestParts, Request};
use axum::http::HeaderMap;
use axum::http::header::{CONTENT_ENCODING, CONTENT_TYPE};
use axum::http::request::Parts;
use http_body_util::BodyExt as _;
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};
use utoipa::{IntoParams, ToSchema};

use super::routes::BODY_BYTES_MAX;
use crate::app::App;
use crate::error::{Error, FieldError, Refusal, Result};
use crate::inventory::grants::GranteeKind;
use crate::inventory::idempotency::IdempotencyKey;
use crate::service::{Listed, Page};

pub use crate::auth::Caller;
pub use crate::service::sessions::Visitor;

/// JSON deeper than this is refused.
const DEPTH_MAX: usize = 32;
/// What is too large is read on to here and dropped: closing on a sender who still sends would take
/// the refusal away from them.
const DRAINED_BYTES_MAX: usize = 16 * BODY_BYTES_MAX;
/// Items in one page of a list, at most and if nothing is said.
const LIMIT_MAX: u32 = 500;
const LIMIT_DEFAULT: u32 = 100;

/// A JSON body: one value, no unknown or duplicate fields, no content coding.
#[derive(Debug)]
pub struct JsonBody<T>(pub T);

/// The JSON body of a create, with its `Idempotency-Key` if there was one.
#[derive(Debug)]
pub struct Create<T>(pub T, pub Option<IdempotencyKey>);

/// Parts of the path. What does not parse names nothing: not found.
#[derive(Debug)]
pub struct Path<T>(pub T);

/// The query. Unknown parameters are refused if `T` denies unknown fields.
#[derive(Debug)]
pub struct Query<T>(pub T);

/// `limit` and `after` of a list, unsealed.
#[derive(Debug)]
pub struct PageQuery(pub Page);

/// `limit` and `after`, for the OpenAPI document; embed with `#[param(inline)]` or name both in
/// `params(PageParams)`.
#[derive(Debug, serde::Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
pub struct PageParams {
    /// Items at most, 1 to 500.
    pub limit: Option<u32>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

/// Which share of an object.
#[derive(Debug, serde::Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct GrantQuery {
    /// With a person or a group.
    #[param(inline)]
    kind: GranteeKind,
    /// Their name.
    name: String,
}

impl GrantQuery {
    /// With whom.
    pub fn whom(&self) -> (GranteeKind, &str) {
        (self.kind, &self.name)
    }
}

/// A page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Items<T> {
    /// The items.
    pub items: Vec<T>,
    /// Where the next page begins: give it as `after`. Null on the last page.
    pub next: Option<String>,
}

impl<T> Items<T> {
    /// A page as it is given out, its position sealed.
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn seal<S: Into<T>>(app: &App, listed: Listed<S>) -> Result<Self> {
        let next = listed.next.map(|position| app.keys.seal(&position)).transpose()?;
        Ok(Self { items: listed.items.into_iter().map(Into::into).collect(), next })
    }

    /// A list that is never longer than one page.
    pub fn whole(items: Vec<T>) -> Self {
        Self { items, next: None }
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        parts.extensions.get::<Self>().cloned().ok_or(Error::Unauthenticated)
    }
}

impl<S: Send + Sync> axum::extract::OptionalFromRequestParts<S> for Caller {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Option<Self>> {
        Ok(parts.extensions.get::<Self>().cloned())
    }
}

impl<S: Send + Sync> FromRequestParts<S> for Visitor {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        let found = parts.extensions.get::<Self>().cloned();
        found.ok_or_else(|| Error::defect("find the request's origin"))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for JsonBody<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body, "application/json").await?;
        Ok(Self(parse(&bytes)?))
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequest<S> for Create<T> {
    type Rejection = Error;

    async fn from_request(request: Request, _: &S) -> Result<Self> {
        let (parts, body) = request.into_parts();
        let bytes = read(&parts.headers, body, "application/json").await?;
        let value = parse(&bytes)?;
        let key = idempotency_key(&parts, &bytes)?;
        Ok(Self(value, key))
    }
}

impl<S: Send + Sync, T: DeserializeOwned + Send> FromRequestParts<S> for Path<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match axum::extract::Path::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Path(value)) => Ok(Self(value)),
            Err(_) => Err(Error::NotFound("object")),
        }
    }
}

impl<S: Send + Sync, T: DeserializeOwned> FromRequestParts<S> for Query<T> {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, state: &S) -> Result<Self> {
        match axum::extract::Query::<T>::from_request_parts(parts, state).await {
            Ok(axum::extract::Query(value)) => Ok(Self(value)),
            Err(error) => Err(Error::invalid("request.invalid", error.body_text())),
        }
    }
}

impl FromRequestParts<App> for PageQuery {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, app: &App) -> Result<Self> {
        let Query(params) = Query::<PageParams>::from_request_parts(parts, app).await?;
        page(app, &params).map(Self)
    }
}

/// A page out of its parameters, for queries that have more of them.
///
/// # Errors
/// Points at the wrong parameter.
pub fn page(app: &App, params: &PageParams) -> Result<Page> {
    let limit = params.limit.unwrap_or(LIMIT_DEFAULT);
    if limit == 0 || limit > LIMIT_MAX {
        return Err(Error::field("?limit", format!("choose 1 to {LIMIT_MAX}")));
    }
    let unseal = |text: &str| {
        app.keys.unseal(text).ok_or_else(|| Error::field("?after", "no page was given this name"))
    };
    let after = params.after.as_deref().map(unseal).transpose()?;
    Ok(Page { limit, after })
}

/// The pairs of a form; no body at all is an empty form.
pub(super) async fn read_form_body(
    headers: &HeaderMap,
    body: Body,
) -> Result<Vec<(String, String)>> {
    if !headers.contains_key(CONTENT_TYPE) && body.is_end_stream() {
        return Ok(Vec::new());
    }
    let bytes = read(headers, body, "application/x-www-form-urlencoded").await?;
    Ok(url::form_urlencoded::parse(&bytes).into_owned().collect())
}

async fn read(headers: &HeaderMap, body: Body, wanted: &str) -> Result<Vec<u8>> {
    let media_type = headers.get(CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or("");
    let essence = media_type.split(';').next().unwrap_or("").trim();
    if !essence.eq_ignore_ascii_case(wanted) {
        return Err(Error::invalid("request.media-type", format!("send {wanted}")));
    }
    if headers.contains_key(CONTENT_ENCODING) {
        return Err(Error::invalid("request.media-type", "send the body without content coding"));
    }
    let mut body = body;
    let (mut bytes, mut total) = (Vec::new(), 0);
    while let Some(frame) = body.frame().await {
        let frame = frame.map_err(|_| malformed("the body ended early".into()))?;
        let Ok(data) = frame.into_data() else { continue };
        total += data.len();
        if total <= BODY_BYTES_MAX {
            bytes.extend_from_slice(&data);
        } else if total > DRAINED_BYTES_MAX {
            break;
        }
    }
    if total > BODY_BYTES_MAX {
        return Err(Error::TooLarge { limit_bytes: BODY_BYTES_MAX as u64 });
    }
    Ok(bytes)
}

fn parse<T: DeserializeOwned>(bytes: &[u8]) -> Result<T> {
    let strict: Strict = serde_json::from_slice(bytes).map_err(|error| match error.classify() {
        serde_json::error::Category::Data => Error::invalid("request.malformed", error.to_string()),
        _ => malformed(format!("the body is no JSON: {error}")),
    })?;
    serde_path_to_error::deserialize(strict.0).map_err(|error| {
        let pointer = pointer(error.path());
        let detail = error.into_inner().to_string();
        Error::Invalid {
            refusal: Refusal::new("request.invalid", detail.clone()),
            fields: vec![FieldError { pointer, detail }],
        }
    })
}

fn pointer(path: &serde_path_to_error::Path) -> String {
    use serde_path_to_error::Segment;
    let mut text = String::new();
    for segment in path {
        let part = match segment {
            Segment::Seq { index } => index.to_string(),
            Segment::Map { key } => key.replace('~', "~0").replace('/', "~1"),
            Segment::Enum { variant } => variant.clone(),
            Segment::Unknown => continue,
        };
        text.push('/');
        text.push_str(&part);
    }
    text
}

fn malformed(detail: String) -> Error {
    Error::Invalid { refusal: Refusal::new("request.malformed", detail), fields: Vec::new() }
}

fn idempotency_key(parts: &Parts, body: &[u8]) -> Result<Option<IdempotencyKey>> {
    let Some(value) = parts.headers.get("idempotency-key") else { return Ok(None) };
    let key = value.to_str().unwrap_or("");
    if key.is_empty()
        || key.len() > 128
        || parts.headers.get_all("idempotency-key").iter().count() > 1
    {
        let rule = "the Idempotency-Key must be one header of 1 to 128 ASCII characters";
        return Err(Error::invalid("idempotency-key.invalid", rule));
    }
    Ok(Some(IdempotencyKey {
        key: key.to_owned(),
        fingerprint: fingerprint(parts.method.as_str(), parts.uri.path(), body),
    }))
}

/// What tells one create from another that was sent with the same key.
pub fn fingerprint(method: &str, path: &str, body: &[u8]) -> [u8; 32] {
    let mut hash = Sha256::new();
    for part in [method.as_bytes(), path.as_bytes(), body] {
        hash.update((part.len() as u64).to_le_bytes());
        hash.update(part);
    }
    hash.finalize().into()
}

/// A JSON value whose objects name each key once and that is not too deep.
struct Strict(serde_json::Value);

impl<'de> serde::Deserialize<'de> for Strict {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        serde::de::DeserializeSeed::deserialize(StrictSeed { depth: 0 }, deserializer).map(Self)
    }
}

struct StrictSeed {
    depth: usize,
}

impl<'de> serde::de::DeserializeSeed<'de> for StrictSeed {
    type Value = serde_json::Value;

    fn deserialize<D: serde::Deserializer<'de>>(self, d: D) -> Result<Self::Value, D::Error> {
        d.deserialize_any(self)
    }
}

impl<'de> serde::de::Visitor<'de> for StrictSeed {
    type Value = serde_json::Value;

    fn expecting(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("a JSON value")
    }

    fn visit_bool<E>(self, value: bool) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_i64<E>(self, value: i64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_u64<E>(self, value: u64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_f64<E>(self, value: f64) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_str<E>(self, value: &str) -> Result<Self::Value, E> {
        Ok(value.into())
    }

    fn visit_unit<E>(self) -> Result<Self::Value, E> {
        Ok(serde_json::Value::Null)
    }

    fn visit_seq<A: serde::de::SeqAccess<'de>>(self, mut list: A) -> Result<Self::Value, A::Error> {
        let depth = deeper(self.depth)?;
        let mut values = Vec::new();
        while let Some(value) = list.next_element_seed(StrictSeed { depth })? {
            values.push(value);
        }
        Ok(values.into())
    }

    fn visit_map<A: serde::de::MapAccess<'de>>(self, mut map: A) -> Result<Self::Value, A::Error> {
        let depth = deeper(self.depth)?;
        let mut values = serde_json::Map::new();
        while let Some(key) = map.next_key::<String>()? {
            let value = map.next_value_seed(StrictSeed { depth })?;
            if values.insert(key.clone(), value).is_some() {
                let text = format!("the field {key:?} is there twice");
                return Err(serde::de::Error::custom(text));
            }
        }
        Ok(values.into())
    }
}

fn deeper<E: serde::de::Error>(depth: usize) -> Result<usize, E> {
    if depth >= DEPTH_MAX {
        return Err(E::custom(format!("the body is nested deeper than {DEPTH_MAX} levels")));
    }
    Ok(depth + 1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[derive(Debug, serde::Deserialize)]
    #[serde(deny_unknown_fields)]
    struct Sample {
        #[expect(dead_code, reason = "only its parsing is looked at")]
        name: String,
        #[expect(dead_code, reason = "only its parsing is looked at")]
        map: std::collections::BTreeMap<String, u8>,
    }

    fn check(body: &str) -> std::result::Result<Sample, (String, Vec<FieldError>)> {
        parse::<Sample>(body.as_bytes()).map_err(|error| match error {
            Error::Invalid { refusal, fields } => (refusal.code.into_owned(), fields),
            other => panic!("not an invalid request: {other}"),
        })
    }

    #[test]
    fn duplicate_unknown_and_deep_fields_are_refused() {
        assert!(check(r#"{"name":"a","map":{"x":1}}"#).is_ok());
        for malformed in [
            r#"{"name":"a","name":"b","map":{}}"#,
            r#"{"name":"a","map":{"x":1,"x":2}}"#,
            r#"{"name":"a","map":{}} x"#,
            "\u{feff}{}",
            "",
            &format!("{}{}", "[".repeat(40), "]".repeat(40)),
            &"[".repeat(1_000_000),
        ] {
            assert_eq!(check(malformed).expect_err("malformed").0, "request.malformed");
        }
        let (code, fields) = check(r#"{"name":"a","map":{"x":300}}"#).expect_err("too large");
        assert_eq!((code.as_str(), fields[0].pointer.as_str()), ("request.invalid", "/map/x"));
        let (_, fields) = check(r#"{"name":"a","map":{},"Name":1}"#).expect_err("unknown");
        assert_eq!(fields[0].pointer, "/Name");
    }
}
