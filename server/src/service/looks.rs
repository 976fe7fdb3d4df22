//! An operator's look into somebody else's container: a deliberate act with a reason, for an hour, of which the owner is
//! told. Until it ends the operator reads log, environment and files, as if these had been shared with them; they
//! run and change nothing by it.

use std::time::Duration;

use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::time::{MissedTickBehavior, interval};
use utoipa::ToSchema;

use super::containers::find_for;
use crate::app::App;
use crate::auth::{Caller, Right};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::Write;
use crate::inventory::containers::Container;
use crate::inventory::events::NewEvent;
use crate::inventory::grants::Object;
use crate::inventory::looks::{self, Look};

/// How long one goes on.
const LIFE: Duration = Duration::from_secs(60 * 60);
/// Characters of a reason.
const REASON_CHARS: std::ops::RangeInclusive<usize> = 1..=500;
/// Looks into one container that are kept and shown.
const KEPT: u32 = 50;
/// What rests on a look that has ended by itself ends so soon.
const PERIOD: Duration = Duration::from_secs(5);

/// A look, going on or past.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct LookView {
    /// Which operator looks.
    pub operator: String,
    /// Why, in their words.
    pub reason: String,
    /// Since when.
    pub began_at: Time,
    /// Until when.
    pub ends_at: Time,
}

/// A wish to look.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"reason": "It sends mail by the thousand; looking for what does it"}))]
pub struct LookRequest {
    /// Why, 1 to 500 characters on one line. The owner reads it.
    pub reason: String,
}

impl From<Look> for LookView {
    fn from(look: Look) -> Self {
        let Look { operator, reason, began_at, ends_at } = look;
        Self { operator, reason, began_at, ends_at }
    }
}

/// Who has looked into a container, newest first: for its owner and those who see everybody's.
///
/// # Errors
/// The caller sees the container and not that.
pub async fn list(app: &App, caller: &Caller, key: &str) -> Result<Vec<LookView>> {
    let row = find_for(app, caller, key, Right::SeeShares).await?;
    let all = looks::list(app.inventory.read(), object(&row), KEPT).await?;
    Ok(all.into_iter().map(LookView::from).collect())
}

/// Begins to look, or looks on for another hour.
///
/// # Errors
/// It is the caller's own, or no reason is given.
pub async fn begin(
    app: &App,
    caller: &Caller,
    key: &str,
    request: &LookRequest,
) -> Result<LookView> {
    let operator = caller.person()?;
    let reason = check(&request.reason)?;
    let id = find_for(app, caller, key, Right::SeeShares).await?.id;
    let mut write = app.inventory.change(&caller.actor, "container.look").await?;
    let row = find_for(app, caller, id.as_str(), Right::SeeShares).await?;
    if row.owner == operator {
        return Err(Error::conflict("look.own", "it is yours: you read it without this"));
    }
    write.subject("container", &row.id, row.owner);
    let began_at = Time::now();
    let look = Look {
        operator: caller.name.clone(),
        reason: reason.to_owned(),
        began_at,
        ends_at: began_at.after(LIFE),
    };
    looks::begin(write.db(), object(&row), operator, &look, KEPT).await?;
    event(&mut write, caller, &row, ("container.look", reason)).await?;
    write.commit().await?;
    Ok(look.into())
}

/// Ends one's own look, if there is one: what one reads by it ends at once.
///
/// # Errors
/// There is no such container.
pub async fn end(app: &App, caller: &Caller, key: &str) -> Result<()> {
    let operator = caller.person()?;
    let id = find_for(app, caller, key, Right::SeeShares).await?.id;
    let mut write = app.inventory.change(&caller.actor, "container.look-end").await?;
    let row = find_for(app, caller, id.as_str(), Right::SeeShares).await?;
    write.subject("container", &row.id, row.owner);
    if looks::end(write.db(), object(&row), operator, Time::now()).await? {
        event(&mut write, caller, &row, ("container.look_ended", "")).await?;
    }
    write.commit().await?;
    app.credentials_changed();
    Ok(())
}

/// Has what rests on looks end with them, until the server stops.
pub async fn run(app: App) {
    let mut ticks = interval(PERIOD);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut before = Time::now();
    loop {
        tokio::select! {
            _ = ticks.tick() => {}
            () = app.stopping.cancelled() => return,
        }
        let now = Time::now();
        match looks::any_ended(app.inventory.read(), before, now).await {
            Ok(ended) => {
                before = now;
                if ended {
                    app.credentials_changed();
                }
            }
            Err(error) => tracing::warn!(error = %error, "operators’ looks were not looked after"),
        }
    }
}

fn check(reason: &str) -> Result<&str> {
    let reason = reason.trim();
    if !REASON_CHARS.contains(&reason.chars().count()) {
        let text = "say why in 1 to 500 characters; the owner reads it";
        return Err(Error::field("/reason", text));
    }
    if reason.contains(char::is_control) {
        return Err(Error::field("/reason", "it holds a control character; it is one line"));
    }
    Ok(reason)
}

fn object(row: &Container) -> Object<'_> {
    Object { kind: "container", id: row.id.as_str() }
}

/// For the owner and those who see everybody's, as sharing is.
async fn event(
    write: &mut Write,
    caller: &Caller,
    row: &Container,
    (kind, text): (&'static str, &str),
) -> Result<()> {
    let (owner, subject) = (row.owner, row.id.as_str());
    let data = json!({"by": caller.name, "name": row.name, "text": text});
    write.event(NewEvent { owner, kind, subject_kind: "grant", subject, data }).await
}
