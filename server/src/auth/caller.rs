//! The caller of a service, and the one place that decides what a caller may see and change.
//!
//! Invariant: every query that serves a caller binds a [`Visibility`] made here. An object outside
//! of it answers exactly as one that never existed ([`Error::NotFound`]).

use std::net::IpAddr;

use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::clock::Time;
use crate::error::{Error, Result};

/// What a person may do at all.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, sqlx::Type)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum Role {
    /// Adds people, sees everyone's state, may stop and remove anything.
    Operator,
    /// Sees and changes what is theirs.
    User,
    /// Sees everyone's state, never logs, environment or files; changes nothing.
    Auditor,
    /// The machine's root on the root socket; no person has this role.
    #[serde(skip_deserializing)]
    System,
}

/// How much of its owner's rights a token carries; each level holds the ones before.
#[derive(
    Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize, ToSchema, sqlx::Type,
)]
#[serde(rename_all = "snake_case")]
#[sqlx(rename_all = "snake_case")]
pub enum TokenScope {
    /// Look.
    Read,
    /// Pull, create, start, stop, remove.
    Operate,
    /// Tokens, sessions, passwords, people, registry credentials.
    Manage,
}

/// What proved who is asking.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Via {
    /// A session cookie; the session's id.
    Session(String),
    /// A bearer token; the token's id.
    Token(String),
    /// The root socket.
    RootSocket,
    /// The socket for this host's users; the user's name there.
    LocalUser(String),
    /// Nothing: the request was for something that needs no proof.
    Nothing,
    /// Nobody asks: the server does what follows from a rule.
    Policy,
}

/// Who is named in the audit row.
#[derive(Debug, Clone)]
pub struct Actor {
    /// Who, if known.
    pub principal: Option<PrincipalId>,
    /// Their name as it was then.
    pub name: String,
    /// What proved it.
    pub via: Via,
    /// Where the request came from; `None` for Unix sockets.
    pub address: Option<IpAddr>,
    /// The request's id.
    pub request_id: String,
}

/// An authenticated caller.
#[derive(Debug, Clone)]
pub struct Caller {
    /// Who.
    pub principal: PrincipalId,
    /// Their name.
    pub name: String,
    /// What they may do at all.
    pub role: Role,
    /// How much of it this request may use.
    pub scope: TokenScope,
    /// When what was shown ends; `None` on the sockets of this host.
    pub expires_at: Option<Time>,
    /// When the caller's account ends by itself.
    pub account_expires_at: Option<Time>,
    /// Whether they have to set up a second factor before anything else.
    pub factor_due: bool,
    /// For the audit.
    pub actor: Actor,
}

/// Whose objects a query may touch. Bound as `(?n is null or owner = ?n)`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Visibility {
    /// Everyone's.
    Everyone,
    /// One principal's.
    Only(PrincipalId),
}

impl Visibility {
    /// What to bind for `?n` in `(?n is null or owner = ?n)`.
    pub fn owner(self) -> Option<i64> {
        match self {
            Self::Everyone => None,
            Self::Only(owner) => Some(i64::from(owner.0)),
        }
    }

    /// Whether an object of `owner` is inside.
    #[cfg(test)]
    fn covers(self, owner: PrincipalId) -> bool {
        match self {
            Self::Everyone => true,
            Self::Only(only) => only == owner,
        }
    }
}

impl Caller {
    /// Whose objects' state the caller may see.
    pub fn sees(&self) -> Visibility {
        match self.role {
            Role::Operator | Role::Auditor | Role::System => Visibility::Everyone,
            Role::User => Visibility::Only(self.principal),
        }
    }

    /// Whose objects the caller may change (stop, remove, limit).
    pub fn changes(&self) -> Visibility {
        match self.role {
            Role::Operator | Role::System => Visibility::Everyone,
            // Routes that change things refuse auditors outright; this is the second lock.
            Role::User | Role::Auditor => Visibility::Only(self.principal),
        }
    }

    /// Whether the caller may read what is *in* an object that they see: logs, environment, files.
    pub fn reads_content(&self, owner: PrincipalId) -> Result<()> {
        if owner == self.principal {
            return Ok(());
        }
        Err(Error::denied(
            "content.owner-only",
            "only its owner may read what is in it (logs, environment, files)",
        ))
    }

    /// The server itself, which does what follows from a rule that somebody has made; `policy` in the audit.
    pub fn policy() -> Self {
        let name = Role::System.as_str().to_owned();
        let actor = Actor {
            principal: None,
            name: name.clone(),
            via: Via::Policy,
            address: None,
            request_id: String::new(),
        };
        Self {
            principal: PrincipalId::SYSTEM,
            name,
            role: Role::System,
            scope: TokenScope::Manage,
            expires_at: None,
            account_expires_at: None,
            factor_due: false,
            actor,
        }
    }

    /// The caller as a person with an account.
    ///
    /// # Errors
    /// The root socket's caller has none.
    pub fn person(&self) -> Result<PrincipalId> {
        match self.role {
            Role::System => {
                Err(Error::denied("person.none", "the root socket has no account of its own"))
            }
            Role::Operator | Role::User | Role::Auditor => Ok(self.principal),
        }
    }

    /// The session that the caller has signed in with.
    pub fn session(&self) -> Option<&str> {
        match &self.actor.via {
            Via::Session(id) => Some(id),
            Via::Token(_) | Via::RootSocket | Via::LocalUser(_) | Via::Nothing | Via::Policy => {
                None
            }
        }
    }
}

impl Via {
    /// The word in the audit.
    pub fn as_str(&self) -> &'static str {
        match self {
            Self::Session(_) => "session",
            Self::Token(_) => "token",
            Self::RootSocket => "root_socket",
            Self::LocalUser(_) => "local_user",
            Self::Nothing => "nothing",
            Self::Policy => "policy",
        }
    }
}

impl Role {
    /// The word in JSON and in the inventory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Operator => "operator",
            Self::User => "user",
            Self::Auditor => "auditor",
            Self::System => "system",
        }
    }
}

impl TokenScope {
    /// The word in JSON and in the inventory.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Manage => "manage",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn caller(role: Role) -> Caller {
        let actor = Actor {
            principal: Some(PrincipalId(5000)),
            name: "a".into(),
            via: Via::Nothing,
            address: None,
            request_id: String::new(),
        };
        Caller {
            principal: PrincipalId(5000),
            name: "a".into(),
            role,
            scope: TokenScope::Manage,
            expires_at: None,
            account_expires_at: None,
            factor_due: false,
            actor,
        }
    }

    #[test]
    fn only_operators_and_the_system_change_what_is_not_theirs() {
        let other = PrincipalId(6000);
        for (role, sees, changes) in [
            (Role::Operator, true, true),
            (Role::System, true, true),
            (Role::Auditor, true, false),
            (Role::User, false, false),
        ] {
            let caller = caller(role);
            assert_eq!(caller.sees().covers(other), sees, "{role:?}");
            assert_eq!(caller.changes().covers(other), changes, "{role:?}");
            assert!(caller.reads_content(other).is_err(), "{role:?}");
            assert!(caller.reads_content(caller.principal).is_ok(), "{role:?}");
        }
    }
}
