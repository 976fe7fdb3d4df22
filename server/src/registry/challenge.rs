//! What a registry asks for before it answers (`WWW-Authenticate`, RFC 9110 section 11.6.1; the
//! distribution project's token specification).

use reqwest::header::{HeaderMap, HeaderValue, WWW_AUTHENTICATE};
use serde::Deserialize;
use url::Url;

/// How a registry wants to be asked.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Challenge {
    /// Name and password with every request.
    Basic,
    /// A token from `realm`.
    Bearer {
        /// The token service's address.
        realm: Url,
        /// What to ask it for.
        service: Option<String>,
    },
}

impl Challenge {
    /// As a client in this process is to see it. It speaks plain HTTP to the gateway, which chooses
    /// the scheme itself.
    pub fn to_header(&self) -> Option<HeaderValue> {
        let Self::Bearer { realm, service } = self else {
            return Some(HeaderValue::from_static("Basic realm=\"registry\""));
        };
        let mut realm = realm.clone();
        realm.set_scheme("http").ok()?;
        let mut text = format!("Bearer realm={}", quoted(realm.as_str()));
        if let Some(service) = service {
            text += &format!(",service={}", quoted(service));
        }
        HeaderValue::from_str(&text).ok()
    }
}

/// As a quoted-string (RFC 9110 section 5.6.4).
fn quoted(text: &str) -> String {
    format!("\"{}\"", text.replace('\\', "\\\\").replace('"', "\\\""))
}

/// A token service's answer.
#[derive(Debug, Deserialize)]
pub struct TokenAnswer {
    token: Option<String>,
    access_token: Option<String>,
}

impl TokenAnswer {
    /// The token, under either of its names; one that no header can carry is none.
    pub fn token(self) -> Option<String> {
        [self.token, self.access_token]
            .into_iter()
            .flatten()
            .find(|token| !token.is_empty() && token.bytes().all(|byte| byte.is_ascii_graphic()))
    }
}

/// The challenge to follow; a token is preferred to a password with every request.
pub fn challenge(headers: &HeaderMap) -> Option<Challenge> {
    let mut basic = None;
    for value in headers.get_all(WWW_AUTHENTICATE) {
        let Ok(text) = value.to_str() else { continue };
        let (scheme, rest) = text.trim().split_once(' ').unwrap_or((text.trim(), ""));
        if scheme.eq_ignore_ascii_case("basic") {
            basic = Some(Challenge::Basic);
        } else if scheme.eq_ignore_ascii_case("bearer") {
            let parameters = parameters(rest);
            let find = |name: &str| {
                let found = parameters.iter().find(|(key, _)| key.eq_ignore_ascii_case(name));
                found.map(|(_, value)| value.clone())
            };
            let realm = find("realm").and_then(|realm| Url::parse(&realm).ok());
            if let Some(realm) = realm {
                return Some(Challenge::Bearer { realm, service: find("service") });
            }
        }
    }
    basic
}

/// `key="value", key=value`; a backslash in quotes takes the next character as it is.
fn parameters(text: &str) -> Vec<(String, String)> {
    let mut found = Vec::new();
    let mut chars = text.chars().peekable();
    loop {
        while chars.next_if(|c| c.is_whitespace() || *c == ',').is_some() {}
        let mut key = String::new();
        while let Some(c) = chars.next_if(|c| *c != '=' && *c != ',') {
            key.push(c);
        }
        if chars.next_if_eq(&'=').is_none() {
            return found;
        }
        let mut value = String::new();
        if chars.next_if_eq(&'"').is_some() {
            while let Some(c) = chars.next() {
                match c {
                    '"' => break,
                    '\\' => value.extend(chars.next()),
                    c => value.push(c),
                }
            }
        } else {
            while let Some(c) = chars.next_if(|c| *c != ',') {
                value.push(c);
            }
        }
        found.push((key.trim().to_owned(), value));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn challenges_are_read_and_tokens_preferred() {
        let check = |values: &[&'static str], expected: Option<Challenge>| {
            let mut headers = HeaderMap::new();
            for value in values {
                headers.append(WWW_AUTHENTICATE, value.parse().unwrap());
            }
            assert_eq!(challenge(&headers), expected, "{values:?}");
        };
        let bearer = |realm: &str, service: Option<&str>| {
            let realm = realm.parse().unwrap();
            Some(Challenge::Bearer { realm, service: service.map(str::to_owned) })
        };
        let docker = r#"Bearer realm="https://auth.docker.io/token",service="registry.docker.io""#;
        check(&[docker], bearer("https://auth.docker.io/token", Some("registry.docker.io")));
        check(
            &[r#"Basic realm="x""#, docker],
            bearer("https://auth.docker.io/token", Some("registry.docker.io")),
        );
        check(&[r#"bearer Realm="https://a/\"b,c""#], bearer("https://a/\"b,c", None));
        check(&[r#"Bearer realm="no address""#], None);
        check(&[r#"Basic realm="Registry""#], Some(Challenge::Basic));
        check(&["Negotiate"], None);
        check(&["Bearer"], None);
    }

    #[test]
    fn a_challenge_goes_on_as_it_was_understood() {
        let check = |challenge: Challenge, expected: &str| {
            let header = challenge.to_header().unwrap();
            assert_eq!(header, expected);
            let headers = HeaderMap::from_iter([(WWW_AUTHENTICATE, header)]);
            assert!(super::challenge(&headers).is_some(), "{expected}");
        };
        check(Challenge::Basic, "Basic realm=\"registry\"");
        let realm = Url::parse("https://auth.example/token?a=b").unwrap();
        let service = Some("x\"y".to_owned());
        check(
            Challenge::Bearer { realm, service },
            r#"Bearer realm="http://auth.example/token?a=b",service="x\"y""#,
        );
    }

    #[test]
    fn tokens_that_no_header_can_carry_are_none() {
        let read = |text: &str| serde_json::from_str::<TokenAnswer>(text).unwrap().token();
        assert_eq!(read(r#"{"token": "a.b.c"}"#).as_deref(), Some("a.b.c"));
        assert_eq!(read(r#"{"token": "", "access_token": "x"}"#).as_deref(), Some("x"));
        for text in [r#"{"token": "a\nb"}"#, r#"{"token": "a b"}"#, r#"{"token": "é"}"#, "{}"] {
            assert_eq!(read(text), None, "{text}");
        }
    }
}
