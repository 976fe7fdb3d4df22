//! `ETag`, `If-Match`, `If-None-Match` (RFC 9110, 8.8.3 and 13) of what can be edited.
//!
//! Tags are strong and stand for what can be edited, not for what the kernel does with it, so a
//! `GET` is never answered 304. Preconditions are judged by the service inside the write, after it is
//! known that the caller may see and change the object (13.2.1).

use axum::Json;
use axum::extract::FromRequestParts;
use axum::http::header::{ETAG, HeaderName, HeaderValue, IF_MATCH, IF_NONE_MATCH};
use axum::http::request::Parts;
use axum::response::{IntoResponse, Response};
use serde::Serialize;

use crate::error::{Error, Result};
use crate::service::edits::{Expected, NoneOf, Version};

/// Tags in one request at most.
const TAGS_MAX: usize = 32;

/// From which versions the request may be carried out.
#[derive(Debug)]
pub struct Precondition(pub Expected);

/// A JSON body with its `ETag`.
#[derive(Debug)]
pub struct Tagged<T>(pub Version, pub T);

/// `*`, or a list of tags.
#[derive(Debug, PartialEq, Eq)]
enum Tags {
    Any,
    Listed(Vec<Tag>),
}

#[derive(Debug, PartialEq, Eq)]
struct Tag {
    weak: bool,
    text: String,
}

impl<S: Send + Sync> FromRequestParts<S> for Precondition {
    type Rejection = Error;

    async fn from_request_parts(parts: &mut Parts, _: &S) -> Result<Self> {
        // If-Match compares strongly: a weak tag never fits. If-None-Match compares weakly.
        let any_of = match tags(parts, IF_MATCH)? {
            None | Some(Tags::Any) => None,
            Some(Tags::Listed(tags)) => {
                Some(tags.into_iter().filter(|tag| !tag.weak).map(|tag| tag.text).collect())
            }
        };
        let none_of = match tags(parts, IF_NONE_MATCH)? {
            None => NoneOf::Nothing,
            Some(Tags::Any) => NoneOf::Everything,
            Some(Tags::Listed(tags)) => {
                NoneOf::Listed(tags.into_iter().map(|tag| tag.text).collect())
            }
        };
        Ok(Self(Expected { any_of, none_of }))
    }
}

impl<T: Serialize> IntoResponse for Tagged<T> {
    fn into_response(self) -> Response {
        let mut response = Json(self.1).into_response();
        response.headers_mut().extend(header(self.0.as_str()).map(|value| (ETAG, value)));
        response
    }
}

/// A version as the header's value.
pub fn header(version: &str) -> Option<HeaderValue> {
    HeaderValue::try_from(format!("\"{version}\"")).ok()
}

/// The tags of all lines of one header, which count as one list.
fn tags(parts: &Parts, name: HeaderName) -> Result<Option<Tags>> {
    let lines: Vec<_> = parts.headers.get_all(&name).iter().collect();
    if lines.is_empty() {
        return Ok(None);
    }
    let texts: Option<Vec<&str>> = lines.iter().map(|line| line.to_str().ok()).collect();
    let read = texts.and_then(|texts| parse(&texts.join(",")));
    read.map(Some).ok_or_else(|| {
        let rule = format!("{name} must be * or a list of up to {TAGS_MAX} ETags in double quotes");
        Error::invalid("request.malformed", rule)
    })
}

/// `*`, or a comma-separated list of entity tags, of which elements may be empty (RFC 9110, 5.6.1).
fn parse(text: &str) -> Option<Tags> {
    let mut rest = text.trim();
    if rest == "*" {
        return Some(Tags::Any);
    }
    let mut tags = Vec::new();
    loop {
        rest = rest.trim_start_matches([' ', '\t', ',']);
        if rest.is_empty() {
            break;
        }
        let (weak, after) = match rest.strip_prefix("W/") {
            Some(after) => (true, after),
            None => (false, rest),
        };
        let (tag, after) = after.strip_prefix('"')?.split_once('"')?;
        // etagc: visible characters without the quote.
        if tag.chars().any(|c| !c.is_ascii_graphic()) || tags.len() == TAGS_MAX {
            return None;
        }
        tags.push(Tag { weak, text: tag.to_owned() });
        rest = after.trim_start_matches([' ', '\t']);
        if !rest.is_empty() && !rest.starts_with(',') {
            return None;
        }
    }
    (!tags.is_empty()).then_some(Tags::Listed(tags))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn listed(text: &str) -> Vec<(bool, String)> {
        match parse(text) {
            Some(Tags::Listed(tags)) => tags.into_iter().map(|tag| (tag.weak, tag.text)).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn lists_of_tags_are_read_as_the_rfc_writes_them() {
        assert_eq!(parse(" * "), Some(Tags::Any));
        assert_eq!(listed("\"a\""), [(false, "a".to_owned())]);
        assert_eq!(listed("\"a,b\", W/\"c\" ,,"), [(false, "a,b".into()), (true, "c".into())]);
        assert_eq!(listed("\"\""), [(false, String::new())]);
        for wrong in ["", ",", "a", "\"a", "\"a\" \"b\"", "*, \"a\"", "w/\"a\"", "\"a b\"", "'a'"] {
            assert_eq!(parse(wrong), None, "{wrong}");
        }
        assert_eq!(parse(&"\"a\",".repeat(TAGS_MAX + 1)), None);
    }
}
