//! Volumes: directories of a person's that outlive their containers.
//!
//! One can be shared with others ([`super::sharing`]), to be read or written to in their containers as well; what
//! is in it stays its owner's. That it is shared is looked at when such a container is made and at each of its
//! starts; what runs keeps it until it ends. Others' containers keep a volume only while they run.
//!
//! Making one commits a row; the supervisor makes the directory before a container that has it starts, each
//! time, so that nothing of a create can be left half done. Removing one commits that nobody sees it any
//! more, and has the supervisor remove it; what is cut short in between is finished by [`finish_removals`].

mod hand_over;
mod mounts;

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use berth_runtime::id::{ContainerId, PrincipalId, VolumeId};
use berth_runtime::wire;
use serde::Serialize;
use serde_json::json;
use tokio::sync::Semaphore;
use utoipa::ToSchema;

pub(crate) use self::hand_over::finish_all as finish_hand_overs;
pub use self::hand_over::hand_over;
pub(crate) use self::mounts::{attach, for_start};
use super::containers::actions::in_background;
use super::containers::spec::check_name;
use super::containers::view::OwnerView;
use super::edits::{Expected, Version};
use super::{Listed, Page, maintenance};
use crate::app::App;
use crate::auth::keys::random_id;
use crate::auth::{Caller, Right, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::Write;
use crate::inventory::events::NewEvent;
use crate::inventory::idempotency::{self, IdempotencyKey};
use crate::inventory::volumes::{self, Mount, User, Volume};

/// Places in containers that one volume's view tells of.
const USERS_SHOWN: usize = 100;
/// Places that are looked through for who has a volume.
const USERS_MAX: u32 = 10_000;
/// Containers that a refusal names.
const USERS_NAMED: usize = 5;
/// Volumes that are looked through at once.
const MEASURES_MAX: usize = 2;
/// How old what was found may be before it is looked at again.
const MEASURE_AGE: Duration = Duration::from_secs(60);
/// How long a request waits for that; it goes on.
const MEASURE_WAIT: Duration = Duration::from_secs(2);

/// A volume.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Volume)]
pub struct VolumeView {
    /// 32 hexadecimal digits.
    #[schema(value_type = String)]
    pub id: VolumeId,
    /// Unique among its owner's.
    pub name: String,
    /// Whose it is.
    pub owner: OwnerView,
    /// When it was made.
    pub created_at: Time,
    /// What the caller may do with it: `files` is to read it, in containers too, and `write` to write to it.
    pub rights: Vec<Right>,
    /// How many containers have it, running or not: everybody's for its owner and those who oversee, else one's own.
    pub containers: u32,
    /// What it held when that was last looked at; absent when it was not since the server's start.
    pub used: Option<VolumeUseView>,
}

/// What a volume held.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = VolumeUse)]
pub struct VolumeUseView {
    /// Bytes on disk.
    pub bytes: u64,
    /// Files, directories, links.
    pub entries: u64,
    /// Whether all of it was counted; else it is more than that.
    pub is_whole: bool,
    /// When.
    pub measured_at: Time,
}

/// A volume with who has it.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = VolumeDetail)]
pub struct VolumeDetail {
    /// The volume.
    #[serde(flatten)]
    pub volume: VolumeView,
    /// The containers that have it, by name: the first hundred places, of containers that the caller sees by owning
    /// them or by overseeing.
    pub used_by: Vec<VolumeUser>,
    /// For its owner: who else has it in containers of theirs.
    pub used_by_others: Vec<OtherUser>,
}

/// Somebody else than its owner who has a volume.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = VolumeOtherUser)]
pub struct OtherUser {
    /// Who.
    pub person: String,
    /// In how many containers of theirs.
    pub containers: u32,
    /// How many of those run, and so keep the volume from being removed.
    pub running: u32,
}

/// A container that has a volume.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct VolumeUser {
    /// The container's id.
    #[schema(value_type = String)]
    pub container: ContainerId,
    /// Its name.
    pub container_name: String,
    /// Where it has it.
    pub target: String,
    /// Whether it cannot write to it there.
    pub read_only: bool,
    /// The part of it that it has; null for the whole.
    pub sub_path: Option<String>,
}

/// A change to a volume; what is `None` stays.
#[derive(Debug, Default)]
pub struct Change {
    /// The new name.
    pub name: Option<String>,
    /// What it was made from.
    pub expected: Expected,
}

/// What is remembered of volumes while the server runs.
#[derive(Debug)]
pub struct Volumes {
    used: Mutex<HashMap<VolumeId, VolumeUseView>>,
    /// Those that are being given to somebody else by this server.
    moving: Mutex<HashSet<VolumeId>>,
    measures: Arc<Semaphore>,
}

impl Default for Volumes {
    fn default() -> Self {
        let moving = Mutex::default();
        Self { used: Mutex::default(), moving, measures: Arc::new(Semaphore::new(MEASURES_MAX)) }
    }
}

impl Volumes {
    fn used(&self, id: &VolumeId) -> Option<VolumeUseView> {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).get(id).copied()
    }

    fn note(&self, id: &VolumeId, used: VolumeUseView) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone(), used);
    }

    /// Whether nobody was moving it.
    fn begin_move(&self, id: &VolumeId) -> bool {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner).insert(id.clone())
    }

    fn end_move(&self, id: &VolumeId) {
        self.moving.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }

    fn forget(&self, id: &VolumeId) {
        self.used.lock().unwrap_or_else(PoisonError::into_inner).remove(id);
    }
}

impl From<User> for VolumeUser {
    fn from(user: User) -> Self {
        let User { container, container_name, mount, .. } = user;
        let Mount { target, read_only, sub_path, .. } = mount;
        Self { container, container_name, target, read_only, sub_path }
    }
}

/// The version of what can be edited of a volume.
pub fn version(volume: &VolumeView) -> Version {
    Version::of(&volume.name)
}

/// Volumes by name: one's own and those that are shared with one; everybody's for operators and auditors.
///
/// # Errors
/// When the page is none.
pub async fn list(app: &App, caller: &Caller, page: &Page) -> Result<Listed<VolumeView>> {
    let after = page.after.as_deref().map(|text| text.split_once(' '));
    let after = match after {
        Some(None) => return Err(Error::field("?after", "no such page")),
        other => other.flatten(),
    };
    let who = (caller.sees(), caller.principal);
    let rows = volumes::list(app.inventory.read(), who, after, page.rows()).await?;
    let listed = page.cut(rows, |row| format!("{} {}", row.name, row.id));
    let view = |row: Volume| view(app, caller, row);
    Ok(Listed { items: listed.items.into_iter().map(view).collect(), next: listed.next })
}

/// What the caller can mount, as a container's request names it.
pub async fn names(app: &App, caller: &Caller, limit: u32) -> Result<Vec<String>> {
    let own = (Visibility::Only(caller.principal), caller.principal);
    let rows = volumes::list(app.inventory.read(), own, None, limit).await?;
    let name = |row: Volume| match row.owner == caller.principal {
        true => row.name,
        false => full_name(&row),
    };
    Ok(rows.into_iter().map(name).collect())
}

/// What somebody else's volume is called.
fn full_name(row: &Volume) -> String {
    format!("{}/{}", row.owner_name, row.name)
}

/// One volume, with who has it and what it holds.
pub async fn inspect(app: &App, caller: &Caller, key: &str) -> Result<VolumeDetail> {
    let row = find(app, caller, key).await?;
    measure(app, (&row.id, row.owner)).await;
    detail(app, caller, row).await
}

/// A volume that the caller sees.
pub(super) async fn find(app: &App, caller: &Caller, key: &str) -> Result<Volume> {
    volumes::find(app.inventory.read(), caller.sees(), caller.principal, key).await
}

/// Whether the caller has `right` to a volume.
///
/// # Errors
/// It is not there for them, or they may not.
pub async fn check(app: &App, caller: &Caller, key: &str, right: Right) -> Result<()> {
    find_for(app, caller, key, right).await.map(drop)
}

async fn detail(app: &App, caller: &Caller, row: Volume) -> Result<VolumeDetail> {
    let users = volumes::users(app.inventory.read(), &row.id, USERS_MAX).await?;
    let used_by_others = match row.owner == caller.principal {
        true => others(app, row.owner, &users),
        false => Vec::new(),
    };
    let oversees = caller.sees().owner().is_none();
    let seen = |user: &User| oversees || user.owner == caller.principal;
    let used_by = users.into_iter().filter(seen).take(USERS_SHOWN).map(Into::into).collect();
    Ok(VolumeDetail { volume: view(app, caller, row), used_by, used_by_others })
}

/// Who else than `owner` has it, by name.
fn others(app: &App, owner: PrincipalId, users: &[User]) -> Vec<OtherUser> {
    let mut found: BTreeMap<&str, BTreeMap<&ContainerId, bool>> = BTreeMap::new();
    for user in users.iter().filter(|user| user.owner != owner) {
        let runs = runs(app, &user.container);
        found.entry(&user.owner_name).or_default().insert(&user.container, runs);
    }
    let count = |number: usize| u32::try_from(number).unwrap_or(u32::MAX);
    let other = |(person, containers): (&str, BTreeMap<_, bool>)| OtherUser {
        person: person.to_owned(),
        containers: count(containers.len()),
        running: count(containers.values().filter(|runs| **runs).count()),
    };
    found.into_iter().map(other).collect()
}

/// Whether the supervisor has a run of a container, as far as is known.
fn runs(app: &App, container: &ContainerId) -> bool {
    app.containers.observed(container).is_some_and(|record| record.live.is_some())
}

fn view(app: &App, caller: &Caller, row: Volume) -> VolumeView {
    VolumeView {
        used: app.volumes.used(&row.id),
        rights: row.rights(caller).list(),
        id: row.id,
        name: row.name,
        owner: OwnerView { id: row.owner.0, name: row.owner_name },
        created_at: row.created_at,
        containers: row.containers,
    }
}

/// What volumes of somebody's held on disk, by their ids, as far as it can be looked at in a moment; of the others
/// what was found last.
pub(super) async fn sizes(app: &App, owner: PrincipalId, ids: &[VolumeId]) -> HashMap<String, u64> {
    let all = async {
        for id in ids {
            measure(app, (id, owner)).await;
        }
    };
    // What takes longer goes on, and is seen by whoever comes next.
    drop(tokio::time::timeout(MEASURE_WAIT, all).await);
    let used = |id: &VolumeId| Some((id.to_string(), app.volumes.used(id)?.bytes));
    ids.iter().filter_map(used).collect()
}

/// Has a volume looked through, unless it was a moment ago, and waits a while for what comes of it.
async fn measure(app: &App, (id, owner): (&VolumeId, PrincipalId)) {
    let fresh = |used: VolumeUseView| used.measured_at.after(MEASURE_AGE) > Time::now();
    if app.volumes.used(id).is_some_and(fresh) {
        return;
    }
    // Whoever comes while others are looked through sees what was found last.
    let Ok(permit) = Arc::clone(&app.volumes.measures).try_acquire_owned() else { return };
    let (app, id) = (app.clone(), id.clone());
    let looking = tokio::spawn(async move {
        let found = match app.runtime.volume_measure(owner, &id).await {
            Ok(found) => found,
            // Nothing was ever in it.
            Err(error) if error.is_not_found() => {
                wire::VolumeUse { bytes: 0, entries: 0, is_whole: true }
            }
            Err(error) => {
                tracing::debug!(volume = %id, error = %error, "a volume was not measured");
                return;
            }
        };
        let wire::VolumeUse { bytes, entries, is_whole } = found;
        let measured_at = Time::now();
        app.volumes.note(&id, VolumeUseView { bytes, entries, is_whole, measured_at });
        drop(permit);
    });
    // Late or failed, it is seen by whoever comes next.
    drop(tokio::time::timeout(MEASURE_WAIT, looking).await);
}

/// Makes a volume; the same key makes it once.
///
/// # Errors
/// The name is none, or is another volume's of the caller's, or they have as many as they may.
pub async fn create(
    app: &App,
    caller: &Caller,
    name: &str,
    key: Option<IdempotencyKey>,
) -> Result<VolumeDetail> {
    maintenance::admit(app, caller)?;
    check_name("/name", name)?;
    let id: VolumeId =
        random_id()?.parse().map_err(|source| Error::broken("make a volume's id", source))?;
    let owner = caller.principal;
    let mut write = app.inventory.change(&caller.actor, "volume.create").await?;
    if let Some(known) = idempotency::recall(&mut write, caller, key.as_ref()).await? {
        drop(write);
        let row = find(app, caller, &known).await?;
        return detail(app, caller, row).await;
    }
    let (now, most) =
        (volumes::count(write.db(), owner).await?, app.config.containers.volumes_per_person_max);
    if now >= most {
        let text = format!(
            "you have {now} volumes and may have {most}; remove some, or ask an operator for more"
        );
        return Err(Error::exhausted("volume.too-many", text));
    }
    volumes::insert(write.db(), &id, owner, name).await?;
    idempotency::remember(&mut write, caller, key.as_ref(), id.as_str()).await?;
    write.subject("volume", &id, owner);
    event(&mut write, (&id, owner), "volume.created", json!({"name": name})).await?;
    write.commit().await?;
    let row = find(app, caller, id.as_str()).await?;
    detail(app, caller, row).await
}

/// Gives a volume another name. Containers that have it keep it.
pub async fn change(app: &App, caller: &Caller, key: &str, change: Change) -> Result<VolumeDetail> {
    if let Some(name) = &change.name {
        check_name("/name", name)?;
    }
    find_to_change(app, caller, key).await?;
    let mut write = app.inventory.change(&caller.actor, "volume.change").await?;
    // Again, now that nobody else writes.
    let row = find_to_change(app, caller, key).await?;
    let id = row.id.clone();
    write.subject("volume", &id, row.owner);
    change.expected.check(&Version::of(&row.name))?;
    if let Some(name) = change.name.filter(|name| *name != row.name) {
        volumes::rename(write.db(), &id, &name).await?;
        let data =
            json!({"by": caller.name, "name": name, "renamed": {"from": row.name, "to": name}});
        event(&mut write, (&id, row.owner), "volume.changed", data).await?;
    }
    write.commit().await?;
    let row = find_to_change(app, caller, id.as_str()).await?;
    detail(app, caller, row).await
}

/// Removes a volume that no container of its owner's has and no other runs with, with all that is in it. Answers
/// whether it is gone already; else the supervisor is away, and it goes when that is back.
///
/// # Errors
/// Containers have it: the refusal names them, those of others by whose they are.
pub async fn remove(app: &App, caller: &Caller, key: &str, expected: Expected) -> Result<bool> {
    find_to_change(app, caller, key).await?;
    let mut write = app.inventory.change(&caller.actor, "volume.remove").await?;
    let row = find_to_change(app, caller, key).await?;
    write.subject("volume", &row.id, row.owner);
    expected.check(&Version::of(&row.name))?;
    let users = volumes::users(write.db(), &row.id, USERS_MAX).await?;
    let others = others(app, row.owner, &users);
    let runs = others.iter().any(|other| other.running > 0);
    // What begins to run from here on finds it gone, or keeps it until that has ended.
    if runs || !volumes::set_removed(write.db(), &row.id).await? {
        return Err(in_use(&row, &users, &others));
    }
    let data = json!({"by": caller.name, "name": row.name});
    event(&mut write, (&row.id, row.owner), "volume.removed", data).await?;
    write.commit().await?;
    let task_app = app.clone();
    match in_background(async move { finish_removal(&task_app, &row).await }).await {
        Ok(()) => Ok(true),
        Err(error) => {
            app.containers.note_unsettled();
            match error {
                // A run of a container that is gone is still being undone, or the supervisor is away.
                Error::Unavailable(_) | Error::Conflict(_) => Ok(false),
                error => Err(error),
            }
        }
    }
}

/// Whoever may remove a volume sees its owner's containers that have it, and how many of whom else run with it.
fn in_use(row: &Volume, users: &[User], others: &[OtherUser]) -> Error {
    let own = users.iter().filter(|user| user.owner == row.owner);
    let mut names: Vec<String> = own.map(|user| user.container_name.clone()).collect();
    names.dedup();
    let own = !names.is_empty();
    for OtherUser { person, running, .. } in others.iter().filter(|other| other.running > 0) {
        let containers = if *running == 1 { "container" } else { "containers" };
        names.push(format!("{running} running {containers} of {person}"));
    }
    let more = names.len().saturating_sub(USERS_NAMED);
    names.truncate(USERS_NAMED);
    let mut text = format!("the volume {} is in use by {}", row.name, names.join(", "));
    if more > 0 {
        text.push_str(&format!(" and {more} more"));
    }
    text.push_str(match own {
        true => "; remove what has it first",
        false => "; share it no more, and have them stop what runs",
    });
    Error::conflict("volume.in-use", text)
}

/// Has the supervisor remove a volume that is to be gone, and forgets it.
async fn finish_removal(app: &App, row: &Volume) -> Result<()> {
    match app.runtime.volume_remove(row.owner, &row.id).await {
        Ok(()) => {}
        // Whom it does not know has nothing there.
        Err(error) if error.is_not_found() => {}
        Err(error) => return Err(error.into()),
    }
    let mut write = app.inventory.record().await?;
    volumes::delete(write.db(), &row.id).await?;
    write.commit().await?;
    app.volumes.forget(&row.id);
    Ok(())
}

/// Removes what is to be gone and is not yet.
pub(crate) async fn finish_removals(app: &App) -> Result<()> {
    for row in volumes::leaving(app.inventory.read()).await? {
        match finish_removal(app, &row).await {
            // A run that has it is still being undone.
            Ok(()) | Err(Error::Conflict(_)) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// A volume that the caller sees and has `right` to.
pub(super) async fn find_for(
    app: &App,
    caller: &Caller,
    key: &str,
    right: Right,
) -> Result<Volume> {
    let row = find(app, caller, key).await?;
    row.rights(caller).need(right)?;
    Ok(row)
}

async fn find_to_change(app: &App, caller: &Caller, key: &str) -> Result<Volume> {
    let row = find_for(app, caller, key, Right::Remove).await?;
    check_still(&row)?;
    Ok(row)
}

/// Refuses what cannot be done with a volume while it is given to somebody else.
pub(crate) fn check_still(row: &Volume) -> Result<()> {
    match row.heir {
        None => Ok(()),
        Some(_) => {
            let text = format!(
                "the volume {} is being given to somebody else; wait until it is",
                row.name
            );
            Err(Error::conflict("volume.moving", text))
        }
    }
}

async fn event(
    write: &mut Write,
    (id, owner): (&VolumeId, PrincipalId),
    kind: &'static str,
    data: serde_json::Value,
) -> Result<()> {
    let subject = id.as_str();
    write.event(NewEvent { owner, kind, subject_kind: "volume", subject, data }).await
}
