//! Groups: made, named and bounded by operators. Each person's resources count to one; what the group
//! may use together is held by the kernel in the cgroup above its people's.
//!
//! People may be in other groups too, which gives them what is shared with these and nothing of their
//! resources. Operators say who manages a group; managers add members and remove them. So a manager learns
//! whether there is somebody of a name; nobody else does by these functions.

use berth_runtime::id::PrincipalId;

use super::allowances::{self, AllowanceSet, AllowanceView};
use super::containers::view;
use super::edits::{Expected, Version};
use super::{Listed, Page, lifetimes, people};
use crate::app::App;
use crate::auth::{Caller, Visibility};
use crate::error::{Error, Result};
use crate::inventory::allowances::{self as rows, Allowance};
use crate::inventory::groups::{self, Group, MemberRole};
use crate::inventory::people as accounts;

pub use crate::inventory::groups::Member;

/// Members of one group, besides those who count to it.
const MEMBERS_MAX: u32 = 1000;
/// Characters of a note, at most.
const NOTE_CHARS_MAX: usize = 500;

/// A change to a group; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The new name.
    pub name: Option<String>,
    /// The new note.
    pub note: Option<String>,
    /// What it was made from.
    pub expected: Expected,
}

/// The version of what can be edited of a group.
pub fn version(group: &Group) -> Version {
    Version::of(&(&group.name, &group.note))
}

/// Groups by name: those that the caller is in; all for operators and auditors.
pub async fn list(app: &App, caller: &Caller, page: &Page) -> Result<Listed<Group>> {
    let after = page.after.as_deref();
    let (db, me) = (app.inventory.read(), caller.principal);
    let rows = groups::list(db, caller.sees(), me, after, page.rows()).await?;
    let mut listed = page.cut(rows, |group| group.name.clone());
    listed.items.iter_mut().for_each(|group| hide(caller, group));
    Ok(listed)
}

/// One group.
///
/// # Errors
/// There is none, or the caller is not in it.
pub async fn find(app: &App, caller: &Caller, id: PrincipalId) -> Result<Group> {
    let db = app.inventory.read();
    let mut group = groups::find(db, caller.sees(), caller.principal, id).await?;
    hide(caller, &mut group);
    Ok(group)
}

/// How many people there are is not said to each of them.
fn hide(caller: &Caller, group: &mut Group) {
    if caller.sees() == Visibility::Everyone {
        return;
    }
    group.containers = None;
    if group.role != Some(MemberRole::Manager) {
        (group.members, group.joined) = (None, None);
    }
}

/// A group, for whoever may see who is in it.
async fn find_with_members(app: &App, caller: &Caller, id: PrincipalId) -> Result<Group> {
    let group = find(app, caller, id).await?;
    if caller.sees() == Visibility::Everyone || group.role == Some(MemberRole::Manager) {
        return Ok(group);
    }
    Err(Error::denied("group.managers-only", "only those who manage the group see who is in it"))
}

/// Everybody who is in a group, by name.
///
/// # Errors
/// The caller does not manage it.
pub async fn members(
    app: &App,
    caller: &Caller,
    id: PrincipalId,
    page: &Page,
) -> Result<Listed<Member>> {
    find_with_members(app, caller, id).await?;
    let after = page.after.as_deref();
    let rows = groups::members(app.inventory.read(), id, after, page.rows()).await?;
    Ok(page.cut(rows, |member| member.name.clone()))
}

/// Makes somebody a member of a group, or a manager.
///
/// # Errors
/// The caller does not manage it, wants to make a manager without being an operator, or there is nobody of
/// this name.
pub async fn set_member(
    app: &App,
    caller: &Caller,
    id: PrincipalId,
    (name, role): (&str, MemberRole),
) -> Result<Member> {
    find_with_members(app, caller, id).await?;
    if name.len() > 32 {
        return Err(Error::field("/name", "no name is longer than 32 characters"));
    }
    let mut write = app.inventory.change(&caller.actor, "group.member").await?;
    write.subject("group", id, id);
    // Again, now that nobody else writes.
    find_with_members(app, caller, id).await?;
    let account = accounts::account(app.inventory.read(), name).await?;
    let Some(account) = account else {
        return Err(Error::field("/name", "there is nobody of this name"));
    };
    let known = groups::find_member(write.db(), id, &account.name).await?;
    let is_manager = known.as_ref().is_some_and(|one| one.role == MemberRole::Manager);
    if (role == MemberRole::Manager) != is_manager {
        operators_only(caller)?;
    }
    // Whoever counts to it is a member by that alone.
    if known.is_none() && groups::count_members(write.db(), id).await? >= MEMBERS_MAX {
        let text =
            format!("a group has {MEMBERS_MAX} members at most, besides those who count to it");
        return Err(Error::exhausted("group.members-too-many", text));
    }
    match (role, known.is_some_and(|one| one.counts)) {
        (MemberRole::Member, true) => groups::remove_member(write.db(), id, account.id).await?,
        _ => groups::set_member(write.db(), id, account.id, role).await?,
    }
    let now = groups::find_member(write.db(), id, &account.name).await?;
    write.commit().await?;
    now.ok_or_else(|| Error::defect("find a member just made"))
}

/// Takes somebody out of a group: what is shared with it ends for them at once. Whoever counts to it stays in
/// it, but manages it no more. Members may take themselves out.
///
/// # Errors
/// The caller does not manage it, or would take a manager out without being an operator; nobody of this name is
/// in it, or only by counting to it.
pub async fn remove_member(app: &App, caller: &Caller, id: PrincipalId, name: &str) -> Result<()> {
    may_remove(app, caller, id, name).await?;
    let mut write = app.inventory.change(&caller.actor, "group.member-remove").await?;
    write.subject("group", id, id);
    // Again, now that nobody else writes.
    may_remove(app, caller, id, name).await?;
    let member = groups::find_member(write.db(), id, name).await?;
    let member = member.ok_or(Error::NotFound("member"))?;
    if member.role == MemberRole::Manager && member.person != caller.principal {
        operators_only(caller)?;
    }
    if member.added_at.is_none() {
        let text = format!(
            "{} is in it because their resources count to it; an operator can move them",
            member.name
        );
        return Err(Error::conflict("group.counts-to-it", text));
    }
    groups::remove_member(write.db(), id, member.person).await?;
    write.commit().await?;
    // What rests on being in it ends.
    app.credentials_changed();
    Ok(())
}

async fn may_remove(app: &App, caller: &Caller, id: PrincipalId, name: &str) -> Result<()> {
    match name == caller.name {
        true => find(app, caller, id).await.map(drop),
        false => find_with_members(app, caller, id).await.map(drop),
    }
}

/// Who manages a group is for operators to say.
fn operators_only(caller: &Caller) -> Result<()> {
    match caller.changes() {
        Visibility::Everyone => Ok(()),
        Visibility::Only(_) => Err(Error::denied(
            "group.operators-only",
            "who manages a group is for an operator to say",
        )),
    }
}

/// Makes a group, to which nobody counts yet.
pub async fn add(app: &App, caller: &Caller, name: &str, note: &str) -> Result<Group> {
    people::check_name(name)?;
    check_note(note)?;
    let mut write = app.inventory.change(&caller.actor, "group.add").await?;
    let id = groups::insert(write.db(), name, note).await?;
    write.subject("group", id, id);
    write.commit().await?;
    find(app, caller, id).await
}

/// Changes name or note.
pub async fn change(app: &App, caller: &Caller, id: PrincipalId, change: Change) -> Result<Group> {
    if let Some(name) = &change.name {
        people::check_name(name)?;
    }
    if let Some(note) = &change.note {
        check_note(note)?;
    }
    let mut write = app.inventory.change(&caller.actor, "group.change").await?;
    write.subject("group", id, id);
    // Now that nobody else writes.
    let group = find(app, caller, id).await?;
    change.expected.check(&version(&group))?;
    let name = change.name.unwrap_or(group.name);
    let note = change.note.unwrap_or(group.note);
    groups::update(write.db(), id, &name, &note).await?;
    write.commit().await?;
    find(app, caller, id).await
}

/// Removes a group that nobody counts to; who else was in it has nothing of what was shared with it any more.
///
/// # Errors
/// Somebody does, or it is the one that people begin in.
pub async fn delete(app: &App, caller: &Caller, id: PrincipalId) -> Result<()> {
    let _one = app.allowances.lock().await;
    let mut write = app.inventory.change(&caller.actor, "group.delete").await?;
    write.subject("group", id, id);
    let group = find(app, caller, id).await?;
    if id == PrincipalId::DEFAULT_GROUP {
        let text = "people begin in it; rename it instead";
        return Err(Error::conflict("group.default", text));
    }
    if !groups::delete(write.db(), id).await? {
        let count = group.members.unwrap_or_default();
        let text = format!("{count} people count to it; move them first");
        return Err(Error::conflict("group.not-empty", text));
    }
    write.commit().await?;
    app.credentials_changed();
    // Nothing runs in it, and its id is never given again: what the supervisor remembers is only in the way.
    if let Err(error) = app.runtime.group_total(id, Allowance::FREE.total()).await {
        tracing::warn!(group = %id, error = %error, "a deleted group's total is remembered");
    }
    Ok(())
}

/// What applies to a group.
pub async fn allowance(app: &App, caller: &Caller, id: PrincipalId) -> Result<AllowanceView> {
    find(app, caller, id).await?;
    let mut db = app.inventory.read().acquire().await?;
    let found = rows::of_group(&mut db, id).await?;
    Ok(AllowanceView { own: found.own, allowance: found.allowance, extras: Vec::new() })
}

/// Gives a group an allowance; the kernel holds it from now on.
///
/// # Errors
/// More memory of it is in use than it allows; then what was before stays.
pub async fn set_allowance(
    app: &App,
    caller: &Caller,
    id: PrincipalId,
    allowance: Allowance,
) -> Result<AllowanceSet> {
    allowances::check(&allowance)?;
    if allowance.data_bytes.is_some() {
        let text =
            "a group has no bound on disk: each of its people has a file system of their own";
        return Err(Error::field("/data_bytes", text));
    }
    let _one = app.allowances.lock().await;
    find(app, caller, id).await?;
    let held = view::held(&app.runtime.group_total(id, allowance.total()).await?);
    let mut write = app.inventory.change(&caller.actor, "group.allowance").await?;
    write.subject("group", id, id);
    rows::set(write.db(), id, &allowance).await?;
    lifetimes::bound(write.db()).await?;
    write.commit().await?;
    app.containers.note_life();
    Ok(AllowanceSet { view: AllowanceView { own: true, allowance, extras: Vec::new() }, held })
}

fn check_note(note: &str) -> Result<()> {
    let count = note.chars().count();
    if count > NOTE_CHARS_MAX {
        let detail = format!("{count} characters; at most {NOTE_CHARS_MAX} are possible");
        return Err(Error::field("/note", detail));
    }
    if note.contains(char::is_control) {
        return Err(Error::field("/note", "it holds a control character; it is one line"));
    }
    Ok(())
}
