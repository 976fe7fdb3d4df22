//! Sharing a container with people and groups: who has what of it, given and taken away by its owner.
//!
//! - A person is addressed by the exact name that they sign in with. For whoever may not see all people the answer
//!   is the same whether there is one of this name or not, so that nobody finds out who is here: a name that nobody
//!   has is kept like another and leads nowhere. Only where the caller manages a group that the person is in, which
//!   tells them that already, the answer says that they are known.
//! - A group is addressed by its name, by those who are in it; another answers as one that does not exist.
//! - What was shared ends at once, for streams and terminals that are open too ([`At`]).

use berth_runtime::id::{ContainerId, PrincipalId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::containers::{find, find_for};
use crate::app::App;
use crate::auth::{Caller, Granted, Right, Rights, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::containers::{self, Container};
use crate::inventory::events::NewEvent;
use crate::inventory::grants::{self, Grant, GranteeKind, Object};
use crate::inventory::{Write, groups, people};

/// Grants of one object.
const GRANTS_MAX: u32 = 50;
/// No name of people or groups is longer.
const NAME_BYTES_MAX: usize = 32;

/// Something that somebody is at for a while by one of their rights to a container, such as a log that they follow.
#[derive(Debug, Clone)]
pub struct At {
    container: ContainerId,
    right: Right,
}

/// With whom a container is shared.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = ContainerGrant)]
pub struct GrantView {
    /// With a person or a group.
    pub kind: GranteeKind,
    /// Their name.
    pub name: String,
    /// What they may do with it.
    pub rights: Vec<Right>,
    /// Whether the caller is known to see that there is such a person or group. Else there may be nobody of this name,
    /// and then this leads nowhere.
    pub known: bool,
    /// Since when.
    pub given_at: Time,
}

/// A container to be shared.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = ContainerGrantRequest, example = json!({
    "kind": "person", "name": "tom", "rights": ["state", "logs", "terminal"],
}))]
pub struct GrantRequest {
    /// With a person or a group.
    pub kind: GranteeKind,
    /// The name that the person signs in with, or that of a group that one is in.
    pub name: String,
    /// What they may do with it: `state` (always with the others), `logs`, `terminal`, `files`, `manage`.
    pub rights: Vec<Right>,
}

impl At {
    /// For a container that the caller has the right to now.
    pub fn new(row: &Container, right: Right) -> Self {
        Self::of(row.id.clone(), right)
    }

    /// The same by its id.
    pub(super) fn of(container: ContainerId, right: Right) -> Self {
        Self { container, right }
    }

    /// Whether the caller still has the right. Of a container that is gone everything ends by itself.
    pub(super) async fn is_allowed(&self, app: &App, caller: &Caller) -> Result<bool> {
        match find(app, caller, self.container.as_str()).await {
            Ok(row) => Ok(row.rights(caller).has(self.right)),
            Err(Error::NotFound(_)) => {
                let gone = containers::find_any(app.inventory.read(), &self.container).await?;
                Ok(gone.is_none())
            }
            Err(error) => Err(error),
        }
    }
}

/// With whom a container is shared: groups first, by name.
///
/// # Errors
/// The caller sees the container and not that.
pub async fn list(app: &App, caller: &Caller, key: &str) -> Result<Vec<GrantView>> {
    let row = find_for(app, caller, key, Right::SeeShares).await?;
    let rows = grants::list(app.inventory.read(), object(&row)).await?;
    let mut all = Vec::with_capacity(rows.len());
    for grant in rows {
        all.push(view(app, caller, grant).await?);
    }
    Ok(all)
}

/// Shares a container, in place of what was shared with the same person or group before.
///
/// # Errors
/// The caller is not its owner, there is nobody whom they could share it with by this name, or it is shared with as
/// many as can be.
pub async fn set(
    app: &App,
    caller: &Caller,
    key: &str,
    request: &GrantRequest,
) -> Result<GrantView> {
    let id = find_for(app, caller, key, Right::Share).await?.id;
    let granted = read_rights(&request.rights)?;
    let (kind, name) = (request.kind, request.name.as_str());
    check_name(caller, kind, name)?;
    let mut write = app.inventory.change(&caller.actor, "container.share").await?;
    // Again, now that nobody else writes.
    let row = find_for(app, caller, id.as_str(), Right::Share).await?;
    write.subject("container", &row.id, row.owner);
    let grantee = match kind {
        GranteeKind::Group => Some(group(app, caller, name).await?),
        GranteeKind::Person => person(app, caller, name).await?,
    };
    let given_at = Time::now();
    let grant = Grant { kind, name: name.to_owned(), grantee, granted, given_at };
    grants::set(write.db(), object(&row), &grant, caller.principal).await?;
    if grants::count(write.db(), object(&row)).await? > GRANTS_MAX {
        let text = format!(
            "it is shared with {GRANTS_MAX} people and groups already, and cannot be with more; share it with a group"
        );
        return Err(Error::exhausted("sharing.too-many", text));
    }
    let what = words(&Rights::from(granted).list());
    let text = format!("{what} with {}", whom(kind, name));
    event(&mut write, caller, &row, ("container.shared", text)).await?;
    write.commit().await?;
    // It may be less than before.
    app.credentials_changed();
    view(app, caller, grant).await
}

/// Shares a container with somebody no more, if it was: what they are at in it ends at once.
///
/// # Errors
/// The caller may not.
pub async fn remove(
    app: &App,
    caller: &Caller,
    key: &str,
    (kind, name): (GranteeKind, &str),
) -> Result<()> {
    let id = find_for(app, caller, key, Right::Unshare).await?.id;
    let mut write = app.inventory.change(&caller.actor, "container.unshare").await?;
    let row = find_for(app, caller, id.as_str(), Right::Unshare).await?;
    write.subject("container", &row.id, row.owner);
    if grants::remove(write.db(), object(&row), kind, name).await? {
        let text = format!("with {}", whom(kind, name));
        event(&mut write, caller, &row, ("container.unshared", text)).await?;
    }
    write.commit().await?;
    app.credentials_changed();
    Ok(())
}

/// What was asked for, as it is kept.
fn read_rights(asked: &[Right]) -> Result<Granted> {
    let mut granted = Granted::default();
    if asked.is_empty() {
        let text = "name at least one of state, logs, terminal, files, manage";
        return Err(Error::field("/rights", text));
    }
    for (number, right) in asked.iter().enumerate() {
        match right {
            Right::State => {}
            Right::Logs => granted.logs = true,
            Right::Terminal => granted.terminal = true,
            Right::Files => granted.files = true,
            Right::Manage => granted.manage = true,
            Right::Remove | Right::SeeShares | Right::Share | Right::Unshare => {
                let text = format!(
                    "{} stays its owner’s; state, logs, terminal, files and manage can be shared",
                    right.as_str()
                );
                return Err(Error::field(format!("/rights/{number}"), text));
            }
        }
    }
    Ok(granted)
}

/// What can be said of a name without looking anybody up.
fn check_name(caller: &Caller, kind: GranteeKind, name: &str) -> Result<()> {
    if kind == GranteeKind::Person && name == caller.name {
        return Err(Error::field("/name", "it is yours already"));
    }
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    if first && name.len() <= NAME_BYTES_MAX && name.chars().all(good) {
        return Ok(());
    }
    let rule = "names are 1 to 32 lower-case letters, digits, '.', '_' or '-', a letter first";
    Err(Error::field("/name", rule))
}

/// A group that the caller sees.
async fn group(app: &App, caller: &Caller, name: &str) -> Result<PrincipalId> {
    let db = app.inventory.read();
    let found = groups::find_named(db, caller.sees(), name).await?;
    found.ok_or_else(|| Error::field("/name", format!("you are in no group named {name}")))
}

/// Somebody of this name, if there is one: that is said only to those who see everybody.
async fn person(app: &App, caller: &Caller, name: &str) -> Result<Option<PrincipalId>> {
    let found = people::account(app.inventory.read(), name).await?.map(|account| account.id);
    match (found, caller.sees()) {
        (None, Visibility::Everyone) => Err(Error::field("/name", "there is nobody of this name")),
        (found, _) => Ok(found),
    }
}

async fn view(app: &App, caller: &Caller, grant: Grant) -> Result<GrantView> {
    let known = match (grant.kind, grant.grantee) {
        (_, None) => false,
        (GranteeKind::Group, Some(_)) => true,
        (GranteeKind::Person, Some(_)) if caller.sees() == Visibility::Everyone => true,
        (GranteeKind::Person, Some(person)) => {
            grants::is_managed_by(app.inventory.read(), person, caller.principal).await?
        }
    };
    Ok(GrantView {
        kind: grant.kind,
        name: grant.name,
        rights: Rights::from(grant.granted).list(),
        known,
        given_at: grant.given_at,
    })
}

fn object(row: &Container) -> Object<'_> {
    Object { kind: "container", id: row.id.as_str() }
}

fn whom(kind: GranteeKind, name: &str) -> String {
    match kind {
        GranteeKind::Person => name.to_owned(),
        GranteeKind::Group => format!("the group {name}"),
    }
}

fn words(rights: &[Right]) -> String {
    let words: Vec<_> = rights.iter().map(|right| right.as_str()).collect();
    words.join(", ")
}

/// For the owner and those who oversee: with whom somebody's container is shared is nothing for the others that it is
/// shared with, so this is no event of the container's own.
async fn event(
    write: &mut Write,
    caller: &Caller,
    row: &Container,
    (kind, text): (&'static str, String),
) -> Result<()> {
    let (owner, subject) = (row.owner, row.id.as_str());
    let data = json!({"by": caller.name, "name": row.name, "text": text});
    write.event(NewEvent { owner, kind, subject_kind: "grant", subject, data }).await
}
