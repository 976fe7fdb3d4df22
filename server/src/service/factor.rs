//! The second factor of a person: set up by themselves, asked for at each sign-in, given up with a code of it;
//! taken away by an operator when phone and recovery codes are lost.
//!
//! Whether somebody must have one is the operator's to say (`auth.second_factor`). Who must and has none may
//! sign in, and do nothing but set it up. Tokens were made by somebody who had signed in, and need no code.

use std::time::{SystemTime, UNIX_EPOCH};

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use sqlx::SqliteConnection;
use utoipa::ToSchema;

use super::sessions::{self, Visitor};
use crate::app::App;
use crate::auth::factor::{self, Code};
use crate::auth::keys::hash_secret;
use crate::auth::{Caller, sealed};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::events::NewEvent;
use crate::inventory::{factors, people};

const LABEL: &str = "second-factor";

/// Whether somebody has a second factor.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = SecondFactor)]
pub struct FactorView {
    /// Whether a code is asked for at sign-in.
    pub on: bool,
    /// Since when.
    pub since: Option<Time>,
    /// Recovery codes that were not used yet.
    pub recovery_codes_left: u32,
    /// Whether the machine wants it of them.
    pub required: bool,
}

/// A factor that is to be confirmed.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = NewSecondFactor)]
pub struct Begun {
    /// In base 32, for typing.
    pub secret: String,
    /// The same as an address that programs on phones read (`otpauth:`).
    pub address: String,
}

/// One's own.
pub async fn show(app: &App, caller: &Caller) -> Result<FactorView> {
    let person = caller.person()?;
    let mut db = app.inventory.read().acquire().await?;
    let found = factors::find(&mut db, person).await?;
    let on = found.filter(|found| found.confirmed_at.is_some());
    Ok(FactorView {
        on: on.is_some(),
        since: on.as_ref().and_then(|found| found.confirmed_at),
        recovery_codes_left: on.map_or(0, |found| found.codes_left),
        required: app.config.auth.second_factor.is_required_of(caller.role),
    })
}

/// Makes a secret, which counts when a code of it was shown.
///
/// # Errors
/// When the password is wrong, or there is a factor.
pub async fn begin(app: &App, caller: &Caller, visitor: &Visitor, password: &str) -> Result<Begun> {
    let person = caller.person()?;
    sessions::check_password(app, caller, visitor, password).await?;
    let secret = factor::new_secret()?;
    let mut write = app.inventory.change(&caller.actor, "second-factor.begin").await?;
    // Inside the write, so that a rotation of keys sees the row.
    let sealed = sealed::seal(&app.keys, LABEL, &person.to_string(), &secret)?;
    factors::begin(write.db(), person, &sealed).await?;
    write.subject("person", person, person);
    write.commit().await?;
    begun(app, caller, secret)
}

/// What the caller has begun and not confirmed.
pub async fn pending(app: &App, caller: &Caller) -> Result<Option<Begun>> {
    let person = caller.person()?;
    let mut db = app.inventory.read().acquire().await?;
    let found = factors::find(&mut db, person).await?;
    let found = found.filter(|found| found.confirmed_at.is_none());
    let open = |sealed: &[u8]| sealed::open(&app.keys, LABEL, &person.to_string(), sealed);
    let secret = found.and_then(|found| open(&found.sealed));
    secret.map(|secret| begun(app, caller, secret)).transpose()
}

fn begun(app: &App, caller: &Caller, secret: String) -> Result<Begun> {
    let machine = format!("Berth {}", app.config.runtime.instance);
    Ok(Begun { address: factor::address(&secret, &caller.name, &machine)?, secret })
}

/// The code shows that the phone has the secret: from now on it is asked for. Answers recovery codes, which
/// are shown this once. All other sessions end.
///
/// # Errors
/// When nothing was begun, or the code is wrong.
pub async fn confirm(app: &App, caller: &Caller, code: &str) -> Result<Vec<String>> {
    let person = caller.person()?;
    let mut write = app.inventory.change(&caller.actor, "second-factor.confirm").await?;
    let found = factors::find(write.db(), person).await?;
    let found = found.filter(|found| found.confirmed_at.is_none()).ok_or_else(|| {
        Error::conflict("second-factor.not-begun", "begin to set up a second factor first")
    })?;
    let timed = matches!(Code::read(code), Some(Code::Timed(_)));
    if !timed || !take(app, write.db(), person, &found, code).await? {
        return Err(wrong("/code"));
    }
    factors::confirm(write.db(), person).await?;
    let codes = new_codes(write.db(), person).await?;
    crate::inventory::sessions::delete_all(write.db(), person, caller.session()).await?;
    write.subject("person", person, person);
    write.commit().await?;
    app.credentials_changed();
    Ok(codes)
}

/// New recovery codes, in the place of all before.
///
/// # Errors
/// When there is no factor, or the code is wrong.
pub async fn renew_codes(
    app: &App,
    caller: &Caller,
    visitor: &Visitor,
    code: &str,
) -> Result<Vec<String>> {
    let person = proved(app, caller, visitor, code).await?;
    let mut write = app.inventory.change(&caller.actor, "second-factor.codes").await?;
    let codes = new_codes(write.db(), person).await?;
    write.subject("person", person, person);
    write.commit().await?;
    Ok(codes)
}

/// Gives the factor up.
///
/// # Errors
/// When there is none, the code is wrong, or the machine wants one of them.
pub async fn remove(app: &App, caller: &Caller, visitor: &Visitor, code: &str) -> Result<()> {
    if app.config.auth.second_factor.is_required_of(caller.role) {
        let text = "this machine wants a second factor of you; you can have another after an \
                    operator has reset it";
        return Err(Error::denied("second-factor.required", text));
    }
    let person = proved(app, caller, visitor, code).await?;
    let mut write = app.inventory.change(&caller.actor, "second-factor.remove").await?;
    factors::delete(write.db(), person).await?;
    write.subject("person", person, person);
    write.commit().await
}

/// Takes a person's factor away, who has lost it; their sessions end, and they are told.
///
/// # Errors
/// When there is no such person, or they have none.
pub async fn reset(app: &App, caller: &Caller, id: PrincipalId) -> Result<()> {
    let person = people::find(app.inventory.read(), caller.changes(), id).await?;
    let mut write = app.inventory.change(&caller.actor, "second-factor.reset").await?;
    if !factors::delete(write.db(), id).await? {
        return Err(Error::NotFound("second factor"));
    }
    crate::inventory::sessions::delete_all(write.db(), id, None).await?;
    write.subject("person", id, id);
    let event = NewEvent {
        owner: id,
        kind: "person.second_factor_reset",
        subject_kind: "person",
        subject: &id.to_string(),
        data: serde_json::json!({"by": caller.name, "name": person.name}),
    };
    write.event(event).await?;
    write.commit().await?;
    app.credentials_changed();
    Ok(())
}

/// Whether somebody whose password was right may sign in with this code. It is used up by that.
///
/// # Errors
/// When they have a factor, and the code is not there or wrong.
pub(super) async fn admit(
    app: &App,
    db: &mut SqliteConnection,
    person: PrincipalId,
    code: &str,
) -> Result<()> {
    let found = factors::find(db, person).await?;
    let Some(found) = found.filter(|found| found.confirmed_at.is_some()) else { return Ok(()) };
    if code.trim().is_empty() {
        let text = "a code of your second factor is needed, too";
        return Err(Error::denied("session.second-factor", text));
    }
    match take(app, db, person, &found, code).await? {
        true => Ok(()),
        false => {
            let text = "the code is wrong, over, or was used before";
            Err(Error::denied("session.second-factor", text))
        }
    }
}

/// Seals all secrets with the key that signs now. What no key opens is left as it is.
pub(super) async fn reseal_all(app: &App, db: &mut SqliteConnection) -> Result<()> {
    for (person, old) in factors::all_sealed(db).await? {
        match sealed::open(&app.keys, LABEL, &person.to_string(), &old) {
            Some(secret) => {
                let new = sealed::seal(&app.keys, LABEL, &person.to_string(), &secret)?;
                factors::reseal(db, person, &new).await?;
            }
            None => tracing::warn!(%person, "a second factor was not sealed anew: no key opens it"),
        }
    }
    Ok(())
}

/// The caller, who has shown a good code. It is used up by that, whatever becomes of the rest.
async fn proved(app: &App, caller: &Caller, visitor: &Visitor, code: &str) -> Result<PrincipalId> {
    let (account, counted) = sessions::count_try(app, caller, visitor).await?;
    let person = account.id;
    let mut write = app.inventory.record().await?;
    let found = factors::find(write.db(), person).await?;
    let found = found.filter(|found| found.confirmed_at.is_some());
    let found = found.ok_or(Error::NotFound("second factor"))?;
    if !take(app, write.db(), person, &found, code).await? {
        return Err(wrong("/code"));
    }
    write.commit().await?;
    app.throttle.forget(&counted);
    Ok(person)
}

/// Whether the code is good; it is used up then.
async fn take(
    app: &App,
    db: &mut SqliteConnection,
    person: PrincipalId,
    found: &factors::Factor,
    code: &str,
) -> Result<bool> {
    match Code::read(code) {
        None => Ok(false),
        Some(Code::Recovery(hash)) => factors::use_code(db, person, &hash).await,
        Some(Code::Timed(digits)) => {
            let secret = sealed::open(&app.keys, LABEL, &person.to_string(), &found.sealed);
            let secret = secret.ok_or_else(|| {
                let text = "your second factor can no longer be read, because the server's key is \
                            another; use a recovery code, or ask an operator to reset it";
                Error::conflict("second-factor.lost", text)
            })?;
            let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
            match factor::check(&secret, &digits, now, found.last_step)? {
                Some(step) => factors::use_step(db, person, step).await,
                None => Ok(false),
            }
        }
    }
}

async fn new_codes(db: &mut SqliteConnection, person: PrincipalId) -> Result<Vec<String>> {
    let codes = factor::recovery_codes()?;
    let hashes: Vec<_> = codes.iter().map(|code| hash_secret(&code.replace('-', ""))).collect();
    factors::set_codes(db, person, &hashes).await?;
    Ok(codes)
}

fn wrong(pointer: &str) -> Error {
    Error::field(pointer, "the code is wrong, over, or was used before")
}
