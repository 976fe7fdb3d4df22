//! Groups: made, named and bounded by operators. Each person's resources count to one; what the group
//! may use together is held by the kernel in the cgroup above its people's.

use berth_runtime::id::PrincipalId;

use super::allowances::{self, AllowanceSet, AllowanceView};
use super::containers::view;
use super::edits::{Expected, Version};
use super::{Listed, Page, people};
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::inventory::allowances::{self as rows, Allowance};
use crate::inventory::groups::{self, Group};

/// People in one answer.
const MEMBERS_MAX: u32 = 500;
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

/// Groups by name.
pub async fn list(app: &App, page: &Page) -> Result<Listed<Group>> {
    let after = page.after.as_deref();
    let rows = groups::list(app.inventory.read(), after, page.rows()).await?;
    Ok(page.cut(rows, |group| group.name.clone()))
}

/// One group.
pub async fn find(app: &App, id: PrincipalId) -> Result<Group> {
    groups::find(app.inventory.read(), id).await
}

/// People who count to a group, by name: the first [`MEMBERS_MAX`].
pub async fn members(app: &App, id: PrincipalId) -> Result<Vec<(PrincipalId, String)>> {
    groups::members(app.inventory.read(), id, MEMBERS_MAX).await
}

/// Makes a group, to which nobody counts yet.
pub async fn add(app: &App, caller: &Caller, name: &str, note: &str) -> Result<Group> {
    people::check_name(name)?;
    check_note(note)?;
    let mut write = app.inventory.change(&caller.actor, "group.add").await?;
    let id = groups::insert(write.db(), name, note).await?;
    write.subject("group", id, id);
    write.commit().await?;
    find(app, id).await
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
    let group = find(app, id).await?;
    change.expected.check(&version(&group))?;
    let name = change.name.unwrap_or(group.name);
    let note = change.note.unwrap_or(group.note);
    groups::update(write.db(), id, &name, &note).await?;
    write.commit().await?;
    find(app, id).await
}

/// Removes a group that nobody counts to.
///
/// # Errors
/// Somebody does, or it is the one that people begin in.
pub async fn delete(app: &App, caller: &Caller, id: PrincipalId) -> Result<()> {
    let _one = app.allowances.lock().await;
    let mut write = app.inventory.change(&caller.actor, "group.delete").await?;
    write.subject("group", id, id);
    let group = find(app, id).await?;
    if id == PrincipalId::DEFAULT_GROUP {
        let text = "people begin in it; rename it instead";
        return Err(Error::conflict("group.default", text));
    }
    if !groups::delete(write.db(), id).await? {
        let text = format!("{} people count to it; move them first", group.members);
        return Err(Error::conflict("group.not-empty", text));
    }
    write.commit().await?;
    // Nothing runs in it, and its id is never given again: what the supervisor remembers is only in the way.
    if let Err(error) = app.runtime.group_total(id, Allowance::FREE.total()).await {
        tracing::warn!(group = %id, error = %error, "a deleted group's total is remembered");
    }
    Ok(())
}

/// What applies to a group.
pub async fn allowance(app: &App, id: PrincipalId) -> Result<AllowanceView> {
    find(app, id).await?;
    let mut db = app.inventory.read().acquire().await?;
    Ok(rows::of_group(&mut db, id).await?.into())
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
    let _one = app.allowances.lock().await;
    find(app, id).await?;
    let held = view::held(&app.runtime.group_total(id, allowance.total()).await?);
    let mut write = app.inventory.change(&caller.actor, "group.allowance").await?;
    write.subject("group", id, id);
    rows::set(write.db(), id, &allowance).await?;
    write.commit().await?;
    Ok(AllowanceSet { view: AllowanceView { own: true, allowance }, held })
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
