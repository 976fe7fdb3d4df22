//! The keys that sign sessions and tokens: rotated while everybody stays signed in, retired at once
//! when one may be known to others. Only the machine's root gets here.
//!
//! Each change holds the inventory's turn from reading rows to replacing the key file, and whatever
//! signs or seals does so inside a write of its own: no row is missed.

use std::time::Duration;

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use utoipa::ToSchema;

use super::{factor, registries};
use crate::app::App;
use crate::auth::Caller;
use crate::auth::keys::KeyFacts;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::keys;

/// An old key is kept at least this long, for lists that are being paged through.
const KEPT_MIN: Duration = Duration::from_secs(3600);

/// A key, without its secret.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct SigningKey {
    /// Its name, 16 hexadecimal digits.
    pub id: String,
    /// Whether it signs; the others only verify.
    pub signs: bool,
    /// When it was made.
    pub made_at: Time,
    /// When it is forgotten by itself: the last of its sessions and tokens has ended then.
    pub until: Option<Time>,
    /// Sessions and tokens that end with it.
    pub holds: u32,
}

/// Every key, the one that signs first.
pub async fn list(app: &App) -> Result<Vec<SigningKey>> {
    let mut db = app.inventory.read().acquire().await?;
    let mut found = Vec::new();
    for key in app.keys.facts() {
        found.push(SigningKey {
            holds: keys::count(&mut db, &key.row_id).await?,
            signs: key.until.is_none(),
            id: key.id,
            made_at: key.made_at,
            until: key.until,
        });
    }
    Ok(found)
}

/// Makes a new key that signs; nobody is signed out. Registry credentials and second factors are sealed anew.
///
/// # Errors
/// When there are too many old keys, or the key file cannot be written.
pub async fn rotate(app: &App, caller: &Caller) -> Result<Vec<SigningKey>> {
    let mut write = app.inventory.change(&caller.actor, "keys.rotate").await?;
    let old = app.keys.facts().into_iter().find(|key| key.until.is_none());
    let old = old.ok_or_else(|| Error::defect("find the key that signs"))?;
    let last = keys::last_end(write.db(), &old.row_id).await?;
    let kept = Time::now().after(KEPT_MIN);
    let id = app.keys.rotate(last.map_or(kept, |last| last.max(kept)))?;
    // Should this not be committed, the old key still opens what it sealed; it is done again before
    // that key is forgotten.
    registries::reseal_all(app, write.db()).await?;
    factor::reseal_all(app, write.db()).await?;
    write.subject("key", &id, PrincipalId::SYSTEM);
    write.commit().await?;
    tracing::info!(key = id, old = old.id, "a new key signs");
    list(app).await
}

/// Forgets an old key at once: its sessions and tokens end.
///
/// # Errors
/// When there is no such key, or it is the one that signs.
pub async fn retire(app: &App, caller: &Caller, id: &str) -> Result<()> {
    let facts = app.keys.facts();
    let key = facts.iter().find(|key| key.id == id).ok_or(Error::NotFound("key"))?;
    if key.until.is_none() {
        return Err(Error::conflict("key.signs", "this key signs: rotate first, then retire it"));
    }
    reseal(app).await?;
    let mut write = app.inventory.change(&caller.actor, "keys.retire").await?;
    // From here on it verifies nothing, whatever becomes of the rows.
    app.keys.forget(|key| key.id == id)?;
    keys::end_all(write.db(), &key.row_id).await?;
    write.subject("key", id, PrincipalId::SYSTEM);
    write.commit().await?;
    app.credentials_changed();
    tracing::info!(key = id, "a key was retired, with its sessions and tokens");
    Ok(())
}

/// Forgets keys whose last session or token has ended.
pub(super) async fn forget_ended(app: &App) -> Result<()> {
    let now = Time::now();
    let ended = |key: &KeyFacts| key.until.is_some_and(|until| until <= now);
    if app.keys.facts().iter().any(ended) {
        reseal(app).await?;
        let write = app.inventory.record().await?;
        app.keys.forget(ended)?;
        drop(write);
    }
    Ok(())
}

/// Seals credentials anew, on disk when this returns: only then an old key can go.
async fn reseal(app: &App) -> Result<()> {
    let mut write = app.inventory.record().await?;
    registries::reseal_all(app, write.db()).await?;
    factor::reseal_all(app, write.db()).await?;
    write.commit().await
}
