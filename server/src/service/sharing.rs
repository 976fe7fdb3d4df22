//! Sharing a container, a volume or an image with people and groups: who has what of it, given and taken away by its
//! owner.
//!
//! - A person is addressed by the exact name that they sign in with. For whoever may not see all people the answer
//!   is the same whether there is one of this name or not, so that nobody finds out who is here: a name that nobody
//!   has is kept like another and leads nowhere. Only where the caller manages a group that the person is in, which
//!   tells them that already, the answer says that they are known.
//! - A group is addressed by its name, by those who are in it; another answers as one that does not exist.
//! - What was shared ends at once, for streams and terminals that are open too ([`At`]). A container that runs keeps
//!   a volume that it has until it ends, and does not start with it again. Who has kept an image has one of their own.

use berth_runtime::id::{ContainerId, PrincipalId, VolumeId};
use serde::{Deserialize, Serialize};
use serde_json::json;
use utoipa::ToSchema;

use super::{containers as services, images as held, volumes as kept};
use crate::app::App;
use crate::auth::{Caller, Granted, Kind, Right, Rights, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::containers::{self, Container};
use crate::inventory::events::NewEvent;
use crate::inventory::grants::{self, Grant, GranteeKind, Object};
use crate::inventory::{Write, groups, images, people, volumes};

/// Grants of one object.
const GRANTS_MAX: u32 = 50;
/// No name of people or groups is longer.
const NAME_BYTES_MAX: usize = 32;

/// Something that somebody is at for a while by one of their rights to an object, such as a log that they follow.
#[derive(Debug, Clone)]
pub struct At {
    kind: Kind,
    id: String,
    right: Right,
}

/// With whom something is shared.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Grant)]
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

/// Something to be shared.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = GrantRequest, example = json!({
    "kind": "person", "name": "tom", "rights": ["state", "logs", "terminal"],
}))]
pub struct GrantRequest {
    /// With a person or a group.
    pub kind: GranteeKind,
    /// The name that the person signs in with, or that of a group that one is in.
    pub name: String,
    /// What they may do with it. With a container: `state` (always with the others), `logs`, `terminal`, `files`,
    /// `manage`. With a volume: `files` to read it, and `write` to write to it as well. With an image: `files` to read it, to
    /// launch from it and to keep it.
    pub rights: Vec<Right>,
}

impl At {
    /// For a container that the caller has the right to now.
    pub fn new(row: &Container, right: Right) -> Self {
        Self::of(row.id.clone(), right)
    }

    /// The same by its id.
    pub(super) fn of(container: ContainerId, right: Right) -> Self {
        Self { kind: Kind::Container, id: container.to_string(), right }
    }

    /// For a volume that the caller has the right to now.
    pub(super) fn volume(volume: &VolumeId, right: Right) -> Self {
        Self { kind: Kind::Volume, id: volume.to_string(), right }
    }

    /// For an image that the caller has the right to now.
    pub(super) fn image(id: &str, right: Right) -> Self {
        Self { kind: Kind::Image, id: id.to_owned(), right }
    }

    /// Whether the caller still has the right. Of what is gone everything ends by itself.
    pub(super) async fn is_allowed(&self, app: &App, caller: &Caller) -> Result<bool> {
        match find(app, caller, (self.kind, &self.id)).await {
            Ok(shared) => Ok(shared.rights.has(self.right)),
            Err(Error::NotFound(_)) => Ok(!self.is_there(app).await?),
            Err(error) => Err(error),
        }
    }

    /// Whether there is such an object, for anybody.
    async fn is_there(&self, app: &App) -> Result<bool> {
        let (db, id) = (app.inventory.read(), self.id.as_str());
        let bad = |source| Error::broken("read an id", source);
        Ok(match self.kind {
            Kind::Container => containers::find_any(db, &id.parse().map_err(bad)?).await?.is_some(),
            Kind::Volume => volumes::is_there(db, &id.parse().map_err(bad)?).await?,
            Kind::Image => images::is_there(db, id).await?,
        })
    }
}

/// What can be shared, as its row says.
struct Shared {
    kind: Kind,
    id: String,
    owner: PrincipalId,
    name: String,
    /// The caller's.
    rights: Rights,
}

impl Shared {
    fn object(&self) -> Object<'_> {
        Object { kind: self.kind.as_str(), id: &self.id }
    }

    /// The action of sharing it, and the event.
    fn sharing(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Container => ("container.share", "container.shared"),
            Kind::Volume => ("volume.share", "volume.shared"),
            Kind::Image => ("image.share", "image.shared"),
        }
    }

    /// The action of ending that, and the event.
    fn unsharing(&self) -> (&'static str, &'static str) {
        match self.kind {
            Kind::Container => ("container.unshare", "container.unshared"),
            Kind::Volume => ("volume.unshare", "volume.unshared"),
            Kind::Image => ("image.unshare", "image.unshared"),
        }
    }
}

/// An object that the caller sees.
async fn find(app: &App, caller: &Caller, (kind, key): (Kind, &str)) -> Result<Shared> {
    Ok(match kind {
        Kind::Container => {
            let row = services::find(app, caller, key).await?;
            let (rights, id) = (row.rights(caller), row.id.to_string());
            Shared { kind, id, owner: row.owner, name: row.name, rights }
        }
        Kind::Volume => {
            let row = kept::find(app, caller, key).await?;
            let (rights, id) = (row.rights(caller), row.id.to_string());
            Shared { kind, id, owner: row.owner, name: row.name, rights }
        }
        Kind::Image => {
            let image = held::find(app, caller, key).await?;
            let (name, rights) = (image.name(), image.rights);
            Shared { kind, id: image.row.id, owner: image.row.owner, name, rights }
        }
    })
}

/// The same where the caller has `right` to it.
async fn find_for(app: &App, caller: &Caller, what: (Kind, &str), right: Right) -> Result<Shared> {
    let found = find(app, caller, what).await?;
    found.rights.need(right)?;
    Ok(found)
}

/// With whom something is shared: groups first, by name.
///
/// # Errors
/// The caller sees it and not that.
pub async fn list(app: &App, caller: &Caller, what: (Kind, &str)) -> Result<Vec<GrantView>> {
    let shared = find_for(app, caller, what, Right::SeeShares).await?;
    let rows = grants::list(app.inventory.read(), shared.object()).await?;
    let mut all = Vec::with_capacity(rows.len());
    for grant in rows {
        all.push(view(app, caller, grant).await?);
    }
    Ok(all)
}

/// Shares it, in place of what was shared with the same person or group before.
///
/// # Errors
/// The caller is not its owner, there is nobody whom they could share it with by this name, or it is shared with as
/// many as can be.
pub async fn set(
    app: &App,
    caller: &Caller,
    what: (Kind, &str),
    request: &GrantRequest,
) -> Result<GrantView> {
    let found = find_for(app, caller, what, Right::Share).await?;
    let granted = read_rights(found.kind, &request.rights)?;
    let (kind, name) = (request.kind, request.name.as_str());
    check_name(caller, kind, name)?;
    let (action, shared) = found.sharing();
    let mut write = app.inventory.change(&caller.actor, action).await?;
    // Again, now that nobody else writes.
    let row = find_for(app, caller, (found.kind, &found.id), Right::Share).await?;
    write.subject(row.kind.as_str(), &row.id, row.owner);
    let grantee = match kind {
        GranteeKind::Group => Some(group(app, caller, name).await?),
        GranteeKind::Person => person(app, caller, name).await?,
    };
    let given_at = Time::now();
    let grant = Grant { kind, name: name.to_owned(), grantee, granted, given_at };
    grants::set(write.db(), row.object(), &grant, caller.principal).await?;
    if grants::count(write.db(), row.object()).await? > GRANTS_MAX {
        let text = format!(
            "it is shared with {GRANTS_MAX} people and groups already, and cannot be with more; share it with a group"
        );
        return Err(Error::exhausted("sharing.too-many", text));
    }
    let what = words(&Rights::from(granted).list());
    let text = format!("{what} with {}", whom(kind, name));
    event(&mut write, caller, &row, (shared, text)).await?;
    write.commit().await?;
    // It may be less than before.
    app.credentials_changed();
    view(app, caller, grant).await
}

/// Shares it with somebody no more, if it was: what they are at in it ends at once.
///
/// # Errors
/// The caller may not.
pub async fn remove(
    app: &App,
    caller: &Caller,
    what: (Kind, &str),
    (kind, name): (GranteeKind, &str),
) -> Result<()> {
    let found = find_for(app, caller, what, Right::Unshare).await?;
    let (action, unshared) = found.unsharing();
    let mut write = app.inventory.change(&caller.actor, action).await?;
    let row = find_for(app, caller, (found.kind, &found.id), Right::Unshare).await?;
    write.subject(row.kind.as_str(), &row.id, row.owner);
    if grants::remove(write.db(), row.object(), kind, name).await? {
        let text = format!("with {}", whom(kind, name));
        event(&mut write, caller, &row, (unshared, text)).await?;
    }
    write.commit().await?;
    app.credentials_changed();
    Ok(())
}

/// What was asked for, as it is kept.
fn read_rights(kind: Kind, asked: &[Right]) -> Result<Granted> {
    let (can, rest): (&[Right], _) = match kind {
        Kind::Container => (
            &[Right::State, Right::Logs, Right::Terminal, Right::Files, Right::Manage],
            "state, logs, terminal, files and manage can be shared",
        ),
        Kind::Volume => (
            &[Right::State, Right::Files, Right::Write],
            "files (to read it) and write can be shared",
        ),
        Kind::Image => (
            &[Right::State, Right::Files],
            "files (to read it, launch from it and keep it) can be shared",
        ),
    };
    for (number, right) in asked.iter().enumerate() {
        if !can.contains(right) {
            let of = match right {
                Right::Remove | Right::SeeShares | Right::Share | Right::Unshare => {
                    "stays its owner’s"
                }
                _ => "is nothing of it",
            };
            let text = format!("{} {of}; {rest}", right.as_str());
            return Err(Error::field(format!("/rights/{number}"), text));
        }
    }
    let has = |right| asked.contains(&right);
    match kind {
        Kind::Container if asked.is_empty() => {
            let text = "name at least one of state, logs, terminal, files, manage";
            Err(Error::field("/rights", text))
        }
        Kind::Container => Ok(Granted {
            logs: has(Right::Logs),
            terminal: has(Right::Terminal),
            files: has(Right::Files),
            manage: has(Right::Manage),
            write: false,
        }),
        Kind::Volume if !has(Right::Files) && !has(Right::Write) => {
            let text = "name files, to have it read, or write, to have it written to as well";
            Err(Error::field("/rights", text))
        }
        Kind::Volume => Ok(Granted { files: true, write: has(Right::Write), ..Granted::default() }),
        Kind::Image if !has(Right::Files) => {
            let text = "name files, to have it read, launched from and kept";
            Err(Error::field("/rights", text))
        }
        Kind::Image => Ok(Granted { files: true, ..Granted::default() }),
    }
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

/// For the owner and those who oversee: with whom something of somebody's is shared is nothing for the others that it is
/// shared with, so this is no event of its own.
async fn event(
    write: &mut Write,
    caller: &Caller,
    row: &Shared,
    (kind, text): (&'static str, String),
) -> Result<()> {
    let (owner, subject) = (row.owner, row.id.as_str());
    let data = json!({"by": caller.name, "name": row.name, "text": text});
    write.event(NewEvent { owner, kind, subject_kind: "grant", subject, data }).await
}
