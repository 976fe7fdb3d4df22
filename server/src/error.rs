//! The one error type of services and inventory. It names what the caller may do about a failure
//! and knows nothing of HTTP; `http::problem` is the only place that turns it into a status.
//!
//! Texts reach people: one sentence, no path of the host, no secret. What only the log may hold goes
//! into [`Error::Broken`], whose text no caller ever sees.

use std::borrow::Cow;

use berth_runtime::record::{Failure, FailureClass};

use crate::inventory::allowances::{Bounded, Whose};
use crate::runtime_client::RuntimeError;

/// The result of services and inventory.
pub type Result<T, E = Error> = std::result::Result<T, E>;

/// A stable code, such as `container.not-running`, and a sentence for people.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{detail}")]
pub struct Refusal {
    /// The end of the problem's `type`.
    pub code: Cow<'static, str>,
    /// One sentence.
    pub detail: String,
}

/// One wrong field of a request.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
pub struct FieldError {
    /// A JSON pointer (RFC 6901) into the body, such as `/limits/memory_bytes`, or `?name` for a
    /// query parameter.
    pub pointer: String,
    /// What is wrong with it.
    pub detail: String,
}

/// A limit of an allowance, or of the configuration where that has none, that stands in the way.
#[derive(Debug, Clone, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[schema(as = LimitReached)]
pub struct Reached {
    /// Which, as an allowance names it.
    pub limit: Bounded,
    /// Whose sum it bounds.
    pub of: Whose,
    /// Their name, or the group's.
    pub name: String,
    /// What it is: bytes, thousandths of a core, or a number.
    pub allowed: u64,
    /// What is in use now, in the same unit.
    pub used: u64,
    /// What was asked for, in the same unit.
    pub asked: u64,
    /// Who can give more.
    pub lifted_by: LiftedBy,
}

/// Who can lift a limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, serde::Serialize, utoipa::ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum LiftedBy {
    /// Anyone who is an operator.
    Operator,
}

/// What went wrong, by what the caller may do about it.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// No such object, or one that the caller may not see: both read the same.
    #[error("there is no such {0}")]
    NotFound(&'static str),
    /// Nobody has signed in, or what was shown is not valid any more.
    #[error("sign in first")]
    Unauthenticated,
    /// The role, the token's scope or the policy forbids it.
    #[error("{0}")]
    Denied(Refusal),
    /// The object's state forbids it now.
    #[error("{0}")]
    Conflict(Refusal),
    /// What was to be changed has been changed since the caller looked.
    #[error(
        "it was changed since you looked at it; get it again, look at what is different, and send \
         your change with the new ETag in If-Match"
    )]
    Stale {
        /// The version that is there now.
        version: String,
    },
    /// The request is wrong and will stay wrong.
    #[error("{refusal}")]
    Invalid {
        /// Why.
        refusal: Refusal,
        /// Where, as far as it is known.
        fields: Vec<FieldError>,
    },
    /// The request is larger than is read.
    #[error("the request is larger than {limit_bytes} bytes")]
    TooLarge {
        /// The limit.
        limit_bytes: u64,
    },
    /// A limit is reached: disk, addresses, ids, objects per person.
    #[error("{0}")]
    Exhausted(Refusal),
    /// A limit of an allowance is reached.
    #[error("{refusal}")]
    Reached {
        /// Why.
        refusal: Refusal,
        /// Which, and how far.
        reached: Box<Reached>,
    },
    /// Too many tries; later ones may succeed.
    #[error("too many attempts; try again in {retry_secs} s")]
    TooMany {
        /// Seconds to wait.
        retry_secs: u64,
    },
    /// More requests than the configuration allows; later ones succeed.
    #[error(
        "too many requests: {} a minute are allowed ({}); try again in {} s",
        .0.per_min, .0.name, .0.wait_secs
    )]
    Limited(crate::auth::budget::Budget),
    /// Passing: the same request may succeed later.
    #[error("{0}")]
    Unavailable(Refusal),
    /// A defect or a broken host: logged in full, told to nobody.
    #[error("{context}")]
    Broken {
        /// Verb and object, for the log.
        context: String,
        /// The cause.
        #[source]
        source: Option<Box<dyn std::error::Error + Send + Sync>>,
    },
}

impl Refusal {
    /// A refusal.
    pub fn new(code: impl Into<Cow<'static, str>>, detail: impl Into<String>) -> Self {
        Self { code: code.into(), detail: cut(detail.into()) }
    }
}

/// Details may quote what others have sent, which is kept and shown as long as the operation is.
const DETAIL_CHARS_MAX: usize = 1_000;

fn cut(mut text: String) -> String {
    if let Some((end, _)) = text.char_indices().nth(DETAIL_CHARS_MAX) {
        text.truncate(end);
        text.push('…');
    }
    text
}

impl Error {
    /// The policy forbids it.
    pub fn denied(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Denied(Refusal::new(code, detail))
    }

    /// The state forbids it.
    pub fn conflict(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Conflict(Refusal::new(code, detail))
    }

    /// The request is wrong, with no field to point at.
    pub fn invalid(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Invalid { refusal: Refusal::new(code, detail), fields: Vec::new() }
    }

    /// One field is wrong. `pointer` is a JSON pointer such as `/name`.
    pub fn field(pointer: impl Into<String>, detail: impl Into<String>) -> Self {
        let field = FieldError { pointer: pointer.into(), detail: cut(detail.into()) };
        let detail = format!("{}: {}", field.pointer.trim_start_matches('/'), field.detail);
        Self::Invalid { refusal: Refusal::new("request.invalid", detail), fields: vec![field] }
    }

    /// A limit is reached.
    pub fn exhausted(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Exhausted(Refusal::new(code, detail))
    }

    /// A limit of an allowance is reached.
    pub fn reached(code: &'static str, detail: impl Into<String>, reached: Reached) -> Self {
        Self::Reached { refusal: Refusal::new(code, detail), reached: Box::new(reached) }
    }

    /// Passing trouble.
    pub fn unavailable(code: &'static str, detail: impl Into<String>) -> Self {
        Self::Unavailable(Refusal::new(code, detail))
    }

    /// A defect or a broken host; `context` is verb and object, such as `read the token key`.
    pub fn broken(
        context: impl Into<String>,
        source: impl Into<Box<dyn std::error::Error + Send + Sync>>,
    ) -> Self {
        Self::Broken { context: context.into(), source: Some(source.into()) }
    }

    /// A defect that no other error stands behind.
    pub fn defect(context: impl Into<String>) -> Self {
        Self::Broken { context: context.into(), source: None }
    }

    /// The stable code: the end of the problem's `type`.
    pub fn code(&self) -> &str {
        match self {
            Self::NotFound(_) => "not-found",
            Self::Unauthenticated => "unauthenticated",
            Self::Denied(refusal)
            | Self::Conflict(refusal)
            | Self::Exhausted(refusal)
            | Self::Unavailable(refusal)
            | Self::Reached { refusal, .. }
            | Self::Invalid { refusal, .. } => &refusal.code,
            Self::Stale { .. } => "edit.stale",
            Self::TooLarge { .. } => "request.too-large",
            Self::TooMany { .. } => "too-many-attempts",
            Self::Limited(_) => "too-many-requests",
            Self::Broken { .. } => "internal",
        }
    }

    /// The same failure as the supervisor would word it, to be kept with an operation.
    pub fn to_failure(&self) -> Failure {
        let class = match self {
            Self::NotFound(_) => FailureClass::NotFound,
            Self::Unauthenticated | Self::Denied(_) => FailureClass::Denied,
            Self::Conflict(_) | Self::Stale { .. } => FailureClass::Conflict,
            Self::Invalid { .. } | Self::TooLarge { .. } => FailureClass::Invalid,
            Self::Exhausted(_) | Self::Reached { .. } => FailureClass::Exhausted,
            Self::TooMany { .. } | Self::Limited(_) | Self::Unavailable(_) => {
                FailureClass::Unavailable
            }
            Self::Broken { .. } => FailureClass::Broken,
        };
        let message = match self {
            Self::Broken { .. } => "something is broken; the operator's log has the detail".into(),
            other => other.to_string(),
        };
        Failure::new(class, self.code(), message)
    }
}

impl From<RuntimeError> for Error {
    fn from(error: RuntimeError) -> Self {
        match error {
            RuntimeError::Refused(failure) => failure.into(),
            RuntimeError::Away { .. } => {
                Self::unavailable("supervisor.away", "the supervisor does not answer")
            }
            RuntimeError::HungUp { .. } => Self::unavailable(
                "supervisor.away",
                "the supervisor ended before it answered; what was asked may have been done",
            ),
            RuntimeError::TimedOut { .. } => {
                Self::unavailable("supervisor.slow", "the supervisor has not answered in time")
            }
            RuntimeError::TooLong { .. } => {
                Self::invalid("request.too-long", "this is more than one container can be told")
            }
            RuntimeError::Unexpected { .. } => Self::broken("ask the supervisor", error),
        }
    }
}

/// The supervisor's codes that are about its conversation with us, never about a caller's request.
fn is_ours(code: &str) -> bool {
    code.starts_with("wire.") || code.starts_with("peer.")
}

impl From<Failure> for Error {
    fn from(failure: Failure) -> Self {
        match failure.code.as_str() {
            "wire.version" => {
                let text = "the supervisor is of another version than the server";
                return Self::unavailable("supervisor.version", text);
            }
            code if is_ours(code) => return Self::broken("ask the supervisor", failure),
            // One code for people, whichever field it is: the sentence names it.
            code if code.starts_with("start.") => {
                return Self::invalid("container.start-refused", failure.message);
            }
            _ => {}
        }
        let refusal = Refusal::new(failure.code.clone(), failure.message.clone());
        match failure.class {
            // Which object it was only the calling service knows; it maps `NotFound` before this.
            FailureClass::NotFound => Self::NotFound("object"),
            FailureClass::Conflict => Self::Conflict(refusal),
            FailureClass::Invalid => Self::Invalid { refusal, fields: Vec::new() },
            FailureClass::Denied => Self::Denied(refusal),
            FailureClass::Exhausted => Self::Exhausted(refusal),
            FailureClass::Unavailable => Self::Unavailable(refusal),
            FailureClass::Broken => Self::broken("ask the supervisor", failure),
        }
    }
}
