//! People: added by an operator with a one-time link, disabled, enabled, given a role, an end of their account.
//! When an account has ended, its ways in end at once, and nothing of its owner's runs; nothing is removed.

use std::time::Duration;

use berth_runtime::id::PrincipalId;

use super::containers::actions;
use super::edits::{Expected, Version};
use super::{Listed, Page, allowances, data, offboard, setup};
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::audit::{By, Row};
use crate::inventory::events::NewEvent;
use crate::inventory::people::{self, Access, Person};
use crate::inventory::{containers, groups, offboardings, sessions, tokens};

const DAY: Duration = Duration::from_secs(86_400);
/// How far ahead an account's end may lie.
const ENDS_WITHIN_DAYS: u32 = 36_525;
/// Accounts, and containers, that are ended in one go; the rest follow in the next.
const ENDS_AT_ONCE_MAX: u32 = 64;

/// A one-time link's secret; shown once.
#[derive(Debug)]
pub struct Invitation {
    /// Goes into the link.
    pub secret: String,
    /// When the link ends.
    pub expires_at: Time,
}

/// A person to be added.
#[derive(Debug, Clone)]
pub struct NewPerson<'a> {
    /// Their name.
    pub name: &'a str,
    /// What they may do.
    pub role: Role,
    /// When their account is to end by itself.
    pub expires_at: Option<Time>,
}

/// A change to a person; what is `None` stays.
#[derive(Debug, Clone, Default)]
pub struct Change {
    /// The new role.
    pub role: Option<Role>,
    /// Whether they may not sign in.
    pub disabled: Option<bool>,
    /// The user of this host that they are; empty for none.
    pub local_user: Option<String>,
    /// Whose resources theirs are to count to.
    pub group: Option<PrincipalId>,
    /// When the account ends by itself; `Some(None)` for never.
    pub expires_at: Option<Option<Time>>,
    /// What it was made from.
    pub expected: Expected,
}

/// The version of what can be edited of a person.
pub fn version(person: &Person) -> Version {
    let disabled = person.disabled_at.is_some();
    let ends = person.expires_at.map(|at| at.0);
    Version::of(&(&person.name, person.role, disabled, person.group.0, &person.local_user, ends))
}

/// Names are what people sign in with and what others see: short, plain, without look-alikes.
///
/// # Errors
/// Points at `/name`.
pub fn check_name(name: &str) -> Result<()> {
    let first = name.starts_with(|c: char| c.is_ascii_lowercase());
    let good = |c: char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(c);
    if first && name.len() <= 32 && name.chars().all(good) && name != Role::System.as_str() {
        return Ok(());
    }
    let rule = "use 1 to 32 lower-case letters, digits, '.', '_' or '-', a letter first";
    Err(Error::field("/name", rule))
}

/// A name as hosts have them, of `/etc/passwd` or a directory service.
///
/// # Errors
/// Points at `/local_user`.
fn check_local_user(user: &str) -> Result<()> {
    let good = |c: char| c.is_ascii_graphic() && !":/,\"'".contains(c);
    if user == "root" {
        return Err(Error::field(
            "/local_user",
            "root has a socket of its own and is nobody's user",
        ));
    }
    if user.len() <= 64 && !user.starts_with('-') && user.chars().all(good) {
        return Ok(());
    }
    let rule = "write the name of a user of this host, as `id -un` prints it, or nothing";
    Err(Error::field("/local_user", rule))
}

/// When an account is to end, as people write it: a day, through which it is good, or a time; empty for never.
///
/// # Errors
/// Points at `/expires_at` when it is neither, or does not lie ahead, or does too far.
pub fn end_of_account(text: &str) -> Result<Option<Time>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let at = Time::parse_end(text).map_err(|rule| Error::field("/expires_at", rule))?;
    let now = Time::now();
    if at <= now {
        let rule = format!("{at} is past; name a later one, or disable the person");
        return Err(Error::field("/expires_at", rule));
    }
    if at > now.after(DAY * ENDS_WITHIN_DAYS) {
        let rule = format!("{at} is more than 100 years ahead; leave it empty for no end");
        return Err(Error::field("/expires_at", rule));
    }
    Ok(Some(at))
}

/// Adds a person, who sets their password by the link.
pub async fn add(app: &App, caller: &Caller, new: &NewPerson<'_>) -> Result<(Person, Invitation)> {
    check_name(new.name)?;
    let mut write = app.inventory.change(&caller.actor, "person.add").await?;
    let (id, invitation) = insert(app, caller, write.db(), new).await?;
    write.subject("person", id, id);
    write.commit().await?;
    app.credentials_changed();
    let person = people::find(app.inventory.read(), caller.sees(), id).await?;
    if let Err(error) = place(app, id, person.group).await {
        // They get it at the server's next start, or with their first container.
        tracing::warn!(person = %id, error = %error, "a person has no id range yet");
    }
    Ok((person, invitation))
}

/// Writes somebody down whose name is good, with a link.
pub(super) async fn insert(
    app: &App,
    caller: &Caller,
    db: &mut sqlx::SqliteConnection,
    new: &NewPerson<'_>,
) -> Result<(PrincipalId, Invitation)> {
    let (secret, hash) = setup::link_secret()?;
    let expires_at = link_ends(app, new.expires_at);
    let id = people::insert(&mut *db, new.name, new.role, None).await?;
    if new.expires_at.is_some() {
        people::update_expiry(&mut *db, id, new.expires_at).await?;
    }
    people::set_invitation(db, id, caller.principal, &hash, expires_at).await?;
    Ok((id, Invitation { secret, expires_at }))
}

/// No link outlives the account that it is for.
fn link_ends(app: &App, account: Option<Time>) -> Time {
    let link = Time::now().after(app.config.auth.invitation_life());
    account.map_or(link, |account| account.min(link))
}

/// Sees to it that the supervisor knows a person and has given them an id range; to be called before
/// anything of theirs is started. It costs one round trip when they have one.
/// Tells whether their total is held, which it is not while they use more memory.
pub async fn place(app: &App, person: PrincipalId, group: PrincipalId) -> Result<bool> {
    let range = app.runtime.person_add(person, group).await?;
    data::first(app, &range).await?;
    if let Err(error) = allowances::hold(app, &range).await {
        // They use more now; what was before is held.
        tracing::warn!(person = %person, error = %error, "a person's total is not held yet");
        return Ok(false);
    }
    Ok(true)
}

/// The same for everybody and the system: at the server's start, for those who were added, or whose
/// allowances were changed, while the supervisor was away.
pub async fn place_all(app: &App) -> Result<()> {
    let known = app.runtime.people().await?;
    let system = (PrincipalId::SYSTEM, PrincipalId::DEFAULT_GROUP);
    let mut wanted = people::all_ids(app.inventory.read()).await?;
    wanted.push(system);
    for (person, group) in wanted {
        match known.iter().find(|range| range.person == person) {
            None => drop(place(app, person, group).await?),
            Some(range) if range.group != group => {
                if let Err(error) = place(app, person, group).await {
                    tracing::warn!(person = %person, error = %error, "not in their group yet");
                }
            }
            Some(range) => {
                if let Err(error) = allowances::hold(app, range).await {
                    tracing::warn!(person = %person, error = %error, "a total is not held yet");
                }
            }
        }
    }
    Ok(())
}

/// A new link for somebody who has lost the first one, or their password.
pub async fn invite(app: &App, caller: &Caller, id: PrincipalId) -> Result<Invitation> {
    let person = people::find(app.inventory.read(), caller.changes(), id).await?;
    if person.disabled_at.is_some() {
        return Err(Error::conflict("person.disabled", "enable this person first"));
    }
    if person.expires_at.is_some_and(|at| at <= Time::now()) {
        return Err(Error::conflict(
            "person.ended",
            "give this person's account a later end first",
        ));
    }
    let (secret, hash) = setup::link_secret()?;
    let expires_at = link_ends(app, person.expires_at);
    let mut write = app.inventory.change(&caller.actor, "person.invite").await?;
    people::set_invitation(write.db(), id, caller.principal, &hash, expires_at).await?;
    write.subject("person", id, id);
    write.commit().await?;
    Ok(Invitation { secret, expires_at })
}

/// How many sessions, tokens and registry logins a person has; never which.
pub async fn access(app: &App, caller: &Caller, id: PrincipalId) -> Result<Access> {
    people::find(app.inventory.read(), caller.sees(), id).await?;
    people::access(app.inventory.read(), id).await
}

/// Ends all sessions and tokens of a person at once, open streams too. They may sign in again.
pub async fn end_access(app: &App, caller: &Caller, id: PrincipalId) -> Result<()> {
    people::find(app.inventory.read(), caller.changes(), id).await?;
    let mut write = app.inventory.change(&caller.actor, "person.end-access").await?;
    write.subject("person", id, id);
    sessions::delete_all(write.db(), id, None).await?;
    tokens::delete_all(write.db(), id).await?;
    write.commit().await?;
    app.credentials_changed();
    Ok(())
}

/// One person: people see themselves, operators and auditors everybody.
pub async fn find(app: &App, caller: &Caller, id: PrincipalId) -> Result<Person> {
    people::find(app.inventory.read(), caller.sees(), id).await
}

/// People by name.
pub async fn list(app: &App, caller: &Caller, page: &Page) -> Result<Listed<Person>> {
    let after = page.after.as_deref();
    let rows = people::list(app.inventory.read(), caller.sees(), after, page.rows()).await?;
    Ok(page.cut(rows, |person| person.name.clone()))
}

/// Changes role, host user, group or the account's end, or disables or enables. A disabled person's sessions, tokens and open streams end
/// at once; their containers are the operator's to stop.
///
/// # Errors
/// When no operator would be left.
pub async fn change(app: &App, caller: &Caller, id: PrincipalId, change: Change) -> Result<Person> {
    let action = match (change.disabled, &change.local_user, change.group) {
        (Some(true), _, _) => "person.disable",
        (Some(false), _, _) => "person.enable",
        (None, Some(_), _) if change.role.is_none() => "person.local-user",
        (None, _, Some(_)) if change.role.is_none() => "person.group",
        (None, _, _) if change.role.is_none() && change.expires_at.is_some() => "person.expiry",
        (None, _, _) => "person.role",
    };
    if let Some(user) = &change.local_user {
        check_local_user(user)?;
    }
    people::find(app.inventory.read(), caller.changes(), id).await?;
    let mut write = app.inventory.change(&caller.actor, action).await?;
    write.subject("person", id, id);
    // Read again now that nobody else writes.
    let person = people::find(app.inventory.read(), caller.changes(), id).await?;
    change.expected.check(&version(&person))?;
    if offboardings::is_open(write.db(), id).await? {
        return Err(offboard::leaving());
    }
    if let Some(role) = change.role {
        people::update_role(write.db(), id, role).await?;
    }
    if let Some(user) = &change.local_user {
        let user = Some(user.as_str()).filter(|user| !user.is_empty());
        people::update_local_user(write.db(), id, user).await?;
        // Whoever is that user now sees what is in the person's containers: they are told.
        let event = NewEvent {
            owner: id,
            kind: "person.local_user",
            subject_kind: "person",
            subject: &id.to_string(),
            data: serde_json::json!({"by": caller.name, "name": person.name, "user": user}),
        };
        write.event(event).await?;
    }
    if let Some(at) = change.expires_at {
        people::update_expiry(write.db(), id, at).await?;
    }
    match change.disabled {
        Some(true) => {
            people::update_disabled(write.db(), id, Some(Time::now())).await?;
            end_ways_in(write.db(), id).await?;
        }
        Some(false) => people::update_disabled(write.db(), id, None).await?,
        None => {}
    }
    if person.role == Role::Operator && people::count_operators(write.db()).await? == 0 {
        return Err(Error::conflict(
            "person.last-operator",
            "somebody must be left who can operate this appliance, and whose account does not end",
        ));
    }
    if let Some(group) = change.group.filter(|group| *group != person.group) {
        move_to(app, write.db(), id, group).await?;
    }
    write.commit().await?;
    app.credentials_changed();
    people::find(app.inventory.read(), caller.sees(), id).await
}

/// Ends sessions, tokens and link of somebody who may not be here any more.
async fn end_ways_in(db: &mut sqlx::SqliteConnection, id: PrincipalId) -> Result<()> {
    sessions::delete_all(&mut *db, id, None).await?;
    tokens::delete_all(&mut *db, id).await?;
    people::delete_invitation(db, id).await
}

/// Does what follows from the end of accounts: their ways in end as those of somebody who is disabled, open streams
/// too, and what runs of theirs is asked to end. Answers when the next account ends.
pub async fn end_due(app: &App) -> Result<Option<Time>> {
    let mut db = app.inventory.read().acquire().await?;
    let due = people::ended(&mut db, ENDS_AT_ONCE_MAX).await?;
    drop(db);
    for id in due {
        let mut write = app.inventory.record().await?;
        if people::set_ended(write.db(), id).await? {
            end_ways_in(write.db(), id).await?;
            let subject = id.to_string();
            let object = ("person", subject.as_str(), id);
            write.note(Row::unasked(By::Policy, "person.expire", object));
            write.commit().await?;
            app.credentials_changed();
        }
    }
    for id in containers::of_ended_owners(app.inventory.read(), ENDS_AT_ONCE_MAX).await? {
        let app = app.clone();
        tokio::spawn(async move {
            let stopped = actions::stop(&app, &Caller::policy(), id.as_str(), None).await;
            // What is being stopped already, or has gone, needs nothing; all else is tried again.
            if let Err(error) = stopped {
                tracing::debug!(container = %id, error = %error, "not stopped at its owner's end");
            }
        });
    }
    people::next_end(app.inventory.read()).await
}

/// Lets a person's resources count to another group, whose total is theirs from the next start on. Last
/// before the commit: should that fail, the next start puts the supervisor back.
///
/// # Errors
/// Something of theirs runs, or there is no such group.
async fn move_to(
    app: &App,
    db: &mut sqlx::SqliteConnection,
    id: PrincipalId,
    group: PrincipalId,
) -> Result<()> {
    if !groups::exists(&mut *db, group).await? {
        return Err(Error::field("/group", "there is no such group"));
    }
    people::update_group(db, id, group).await?;
    app.containers.forget_people();
    app.runtime.person_add(id, group).await?;
    Ok(())
}
