//! Taking somebody off the machine: all of theirs is stopped, and then kept with the account disabled, or removed and the
//! account deleted.
//!
//! What was asked for is committed first, with the account disabled; then an operation goes step by step, each of which
//! can be taken again. What a stop of the server cuts short, the next start goes on with ([`resume_all`]); whatever comes
//! to be meanwhile becomes a step. The report stays when the account is gone.

use std::time::Duration;

use berth_runtime::id::{ContainerId, PrincipalId, VolumeId};
use serde::Serialize;
use serde_json::{Value, json};
use utoipa::ToSchema;

use super::containers::actions::{self, Force};
use super::edits::Expected;
use super::operations::{self, Handle};
use super::{images, people, volumes};
use crate::app::App;
use crate::auth::keys::random_id;
use crate::auth::{Actor, Caller, Role, TokenScope, Via};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::offboardings::{self, Act, Kind, Offboarding, Step, Things};
use crate::inventory::operations::NewOperation;
use crate::inventory::people as rows;
use crate::inventory::{containers, sessions, tokens};

/// Between two tries of what could not be done.
const PAUSE: Duration = Duration::from_millis(500);
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// How it stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum OffboardingState {
    /// It was only looked at: this would happen.
    Preview,
    /// It goes on.
    Running,
    /// All of it is done.
    Ended,
}

/// What happens when somebody leaves, or has happened.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Offboarding)]
pub struct OffboardingView {
    /// Who leaves.
    #[schema(value_type = u32)]
    pub person: PrincipalId,
    /// Their name.
    pub name: String,
    /// What becomes of what is theirs, and of the account.
    pub things: Things,
    /// How it stands.
    pub state: OffboardingState,
    /// Whether the account is there still.
    pub has_account: bool,
    /// The operation that does it; null for a preview.
    pub operation: Option<String>,
    /// Who asked for it; null for a preview.
    pub asked_by: Option<String>,
    /// When.
    pub begun_at: Option<Time>,
    /// When all of it was done.
    pub ended_at: Option<Time>,
    /// What is done, in order.
    pub steps: Vec<Step>,
}

/// Says what would happen, and changes nothing.
///
/// # Errors
/// When there is no such person.
pub async fn look(
    app: &App,
    caller: &Caller,
    id: PrincipalId,
    things: Things,
) -> Result<OffboardingView> {
    let person = people::find(app, caller, id).await?;
    let mut db = app.inventory.read().acquire().await?;
    let mut steps = offboardings::planned(&mut db, id, act_of(things)).await?;
    drop(db);
    let kept = steps.iter().filter(|step| step.kind == Kind::Volume);
    let kept: Vec<VolumeId> = kept.filter_map(|step| step.object.parse().ok()).collect();
    let sizes = volumes::sizes(app, id, &kept).await;
    for step in steps.iter_mut().filter(|step| step.kind == Kind::Volume) {
        step.bytes = sizes.get(&step.object).copied();
    }
    Ok(OffboardingView {
        person: id,
        name: person.name,
        things,
        state: OffboardingState::Preview,
        has_account: true,
        operation: None,
        asked_by: None,
        begun_at: None,
        ended_at: None,
        steps,
    })
}

/// How somebody's leaving stands.
///
/// # Errors
/// When nobody has asked for it.
pub async fn find(app: &App, id: PrincipalId) -> Result<OffboardingView> {
    let db = app.inventory.read();
    let row = offboardings::find(db, id).await?.ok_or(Error::NotFound("offboarding"))?;
    let steps = offboardings::steps(db, id).await?.into_iter().map(|(_, step)| step).collect();
    let mut connection = db.acquire().await?;
    let has_account = rows::account_by_id(&mut connection, id).await?.is_some();
    let state = match row.ended_at {
        Some(_) => OffboardingState::Ended,
        None => OffboardingState::Running,
    };
    Ok(OffboardingView {
        person: id,
        name: row.name,
        things: row.things,
        state,
        has_account,
        operation: Some(row.operation),
        asked_by: Some(row.asked_by_name),
        begun_at: Some(row.begun_at),
        ended_at: row.ended_at,
        steps,
    })
}

/// Begins it: the account is disabled, its ways in end, and the rest is done by an operation. Asked for again, it is
/// what it was.
///
/// # Errors
/// When it is oneself, the last operator, or something else was asked for and goes on.
pub async fn begin(
    app: &App,
    caller: &Caller,
    id: PrincipalId,
    things: Things,
) -> Result<OffboardingView> {
    let before = offboardings::find(app.inventory.read(), id).await?;
    if let Some(before) = before {
        let gone = before.things == Things::Delete && before.ended_at.is_some();
        if before.things == things && (gone || before.ended_at.is_none()) {
            if !gone && !app.operations.is_running(&before.operation) {
                // Its operation was cancelled, or has failed.
                resume(app, before).await?;
            }
            return find(app, id).await;
        }
    }
    rows::find(app.inventory.read(), caller.changes(), id).await?;
    if id == caller.principal {
        let text = "nobody takes themselves off the machine; have another operator do it";
        return Err(Error::conflict("person.self", text));
    }
    let operation = random_id()?;
    let mut write = app.inventory.change(&caller.actor, "person.offboard").await?;
    write.subject("person", id, id);
    // Again, now that nobody else writes.
    let person = rows::find(app.inventory.read(), caller.changes(), id).await?;
    if offboardings::is_open(write.db(), id).await? {
        return Err(leaving());
    }
    rows::update_disabled(write.db(), id, Some(person.disabled_at.unwrap_or_else(Time::now)))
        .await?;
    sessions::delete_all(write.db(), id, None).await?;
    tokens::delete_all(write.db(), id).await?;
    rows::delete_invitation(write.db(), id).await?;
    if person.role == Role::Operator && rows::count_operators(write.db()).await? == 0 {
        return Err(Error::conflict(
            "person.last-operator",
            "somebody must be left who can operate this appliance, and whose account does not end",
        ));
    }
    let new = Offboarding {
        person: id,
        name: person.name,
        things,
        operation: operation.clone(),
        asked_by: caller.principal,
        asked_by_name: caller.name.clone(),
        begun_at: Time::now(),
        ended_at: None,
    };
    offboardings::insert(write.db(), &new).await?;
    offboardings::add_steps(write.db(), id, act_of(things)).await?;
    insert_operation(write.db(), &new).await?;
    write.commit().await?;
    app.credentials_changed();
    spawn(app, &new);
    find(app, id).await
}

/// Goes on with what a stop of the server has cut short.
pub async fn resume_all(app: &App) -> Result<()> {
    for row in offboardings::open(app.inventory.read()).await? {
        resume(app, row).await?;
    }
    Ok(())
}

async fn resume(app: &App, row: Offboarding) -> Result<()> {
    let row = Offboarding { operation: random_id()?, ..row };
    let mut write = app.inventory.record().await?;
    offboardings::set_operation(write.db(), row.person, &row.operation).await?;
    insert_operation(write.db(), &row).await?;
    write.commit().await?;
    spawn(app, &row);
    Ok(())
}

/// The refusal of another change while somebody is taken off the machine.
pub(super) fn leaving() -> Error {
    let text = "this person is being taken off the machine; wait until that is done";
    Error::conflict("person.leaving", text)
}

async fn insert_operation(db: &mut sqlx::SqliteConnection, row: &Offboarding) -> Result<()> {
    let new = NewOperation {
        id: &row.operation,
        owner: row.asked_by,
        kind: "person.offboard",
        subject_kind: "person",
        subject: &row.name,
    };
    operations::insert(db, &new).await
}

fn spawn(app: &App, row: &Offboarding) {
    let (task_app, row) = (app.clone(), row.clone());
    let operation = row.operation.clone();
    app.operations.spawn(
        app,
        operation,
        |handle| async move { work(&task_app, &row, handle).await },
    );
}

/// The operator who asked, as the one on whose behalf the steps are taken; they may have signed out long since.
fn on_behalf(row: &Offboarding) -> Caller {
    let actor = Actor {
        principal: Some(row.asked_by),
        name: row.asked_by_name.clone(),
        via: Via::Policy,
        address: None,
        request_id: format!("offboard-{}", row.person),
    };
    Caller {
        principal: row.asked_by,
        name: row.asked_by_name.clone(),
        role: Role::Operator,
        scope: TokenScope::Manage,
        expires_at: None,
        account_expires_at: None,
        factor_due: false,
        actor,
    }
}

/// Takes step after step until nothing is left to do.
async fn work(app: &App, row: &Offboarding, handle: Handle) -> Result<Value> {
    let (caller, person) = (on_behalf(row), row.person);
    let mut pause = PAUSE;
    loop {
        for operation in offboardings::running_operations(app.inventory.read(), person).await? {
            // What has ended meanwhile needs no cancel.
            if let Err(error) = operations::cancel(app, &caller, &operation).await {
                tracing::debug!(operation, error = %error, "not cancelled for one who leaves");
            }
        }
        let mut write = app.inventory.record().await?;
        offboardings::add_steps(write.db(), person, act_of(row.things)).await?;
        write.commit().await?;
        let steps = offboardings::steps(app.inventory.read(), person).await?;
        let total = steps.len();
        let mut done = steps.iter().filter(|(_, step)| step.done_at.is_some()).count();
        for (position, step) in steps.iter().filter(|(_, step)| step.done_at.is_none()) {
            let outcome = tokio::select! {
                () = handle.cancelled() => return Err(stopped()),
                outcome = take(app, &caller, step) => outcome,
            };
            let text = outcome.as_ref().err().map(|error| error.to_failure().message);
            done += usize::from(text.is_none());
            let mut write = app.inventory.record().await?;
            let outcome = text.as_deref().map_or(Ok(()), Err);
            offboardings::note_step(write.db(), (person, *position), outcome).await?;
            write.commit().await?;
            handle.progress(json!({"done": done, "total": total}));
        }
        if done == total && end(app, &caller, row).await? {
            return Ok(json!({"person": person, "things": row.things, "steps": total}));
        }
        tokio::select! {
            () = handle.cancelled() => return Err(stopped()),
            () = tokio::time::sleep(pause) => pause = PAUSE_MAX.min(pause * 2),
        }
    }
}

fn stopped() -> Error {
    let text = "it goes on when the server starts again, or when it is asked for again";
    Error::conflict("person.leaving", text)
}

/// Takes a step; that it was taken before is as good.
async fn take(app: &App, caller: &Caller, step: &Step) -> Result<()> {
    let object = step.object.as_str();
    let done = match (step.act, step.kind) {
        (Act::Stop, _) => return stop(app, caller, object).await,
        (Act::Remove, Kind::Container) => actions::remove(app, caller, object, Force::Yes).await,
        (Act::Remove, Kind::Volume) => {
            volumes::remove(app, caller, object, Expected::default()).await
        }
        (Act::Remove, Kind::Image) => {
            images::remove(app, caller, object, &Expected::default()).await.map(|()| true)
        }
    };
    match done {
        Ok(true) | Err(Error::NotFound(_)) => Ok(()),
        Ok(false) => {
            Err(Error::unavailable("supervisor.away", "it goes when the supervisor is back"))
        }
        Err(error) => Err(error),
    }
}

async fn stop(app: &App, caller: &Caller, id: &str) -> Result<()> {
    match actions::stop(app, caller, id, None).await {
        Ok(_) | Err(Error::NotFound(_)) => {}
        Err(error) => return Err(error),
    }
    let id: ContainerId =
        id.parse().map_err(|source| Error::broken("read a container's id", source))?;
    let wanted = containers::find_any(app.inventory.read(), &id).await?;
    let live = app.containers.observed(&id).is_some_and(|record| record.live.is_some());
    match wanted {
        Some(_) if live => {
            Err(Error::unavailable("container.still-stopping", "it is still being stopped"))
        }
        _ => Ok(()),
    }
}

/// Ends it, if nothing has come to be meanwhile; whether it has ended.
async fn end(app: &App, caller: &Caller, row: &Offboarding) -> Result<bool> {
    let person = row.person;
    let action = match row.things {
        Things::Keep => "person.offboarded",
        Things::Delete => "person.delete",
    };
    let mut write = app.inventory.change(&caller.actor, action).await?;
    write.subject("person", person, person);
    if !offboardings::is_open(write.db(), person).await? {
        return Ok(true);
    }
    let again = offboardings::planned(write.db(), person, act_of(row.things)).await?;
    if !again.is_empty() {
        return Ok(false);
    }
    if row.things == Things::Delete {
        if offboardings::has_things(write.db(), person).await? {
            return Ok(false);
        }
        offboardings::delete_account(write.db(), person).await?;
    }
    offboardings::end(write.db(), person).await?;
    write.commit().await?;
    app.credentials_changed();
    Ok(true)
}

fn act_of(things: Things) -> Act {
    match things {
        Things::Keep => Act::Stop,
        Things::Delete => Act::Remove,
    }
}
