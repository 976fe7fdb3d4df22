//! The first operator: exactly one caller with the one-time secret becomes it.

use berth_runtime::id::PrincipalId;
use subtle::ConstantTimeEq;

use super::people::check_name;
use super::sessions::{self, SignedIn, Visitor};
use crate::app::App;
use crate::auth::keys::{self, hash_secret, random_text};
use crate::auth::throttle::Counted;
use crate::auth::{Actor, Caller, Role, Via, password};
use crate::error::{Error, Result};
use crate::inventory::people;

/// Whether nobody has set this appliance up yet.
pub async fn needed(app: &App) -> Result<bool> {
    let mut db = app.inventory.read().acquire().await?;
    Ok(!people::any(&mut db).await?)
}

/// Makes a new one-time secret; an older one ends. Only the root socket's caller gets here.
///
/// # Errors
/// When the first operator has been made.
pub async fn make_secret(app: &App, caller: &Caller) -> Result<String> {
    let secret = random_text::<18>()?;
    let mut write = app.inventory.change(&caller.actor, "setup.secret").await?;
    if people::any(write.db()).await? {
        return Err(done());
    }
    people::set_setup_secret(write.db(), &hash_secret(&secret)).await?;
    write.commit().await?;
    Ok(secret)
}

/// Makes the first operator and signs them in.
///
/// # Errors
/// When the secret is not the one, or has been used.
pub async fn complete(
    app: &App,
    visitor: &Visitor,
    secret: &str,
    name: &str,
    password: &str,
) -> Result<SignedIn> {
    let counted: Vec<_> = visitor.address.and_then(Counted::address).into_iter().collect();
    sessions::spend(app, visitor, &counted)?;
    if let Some(retry_secs) = app.throttle.wait_secs(&counted) {
        return Err(Error::TooMany { retry_secs });
    }
    let hash = hash_secret(secret);
    let stored = people::setup_secret(app.inventory.read()).await?;
    if stored.is_none() && !needed(app).await? {
        return Err(done());
    }
    // Guessing is hopeless (144 bits); this keeps strangers from the password derivation below.
    let same = stored.is_some_and(|stored| bool::from(stored.ct_eq(&hash)));
    if !same {
        app.throttle.count(&counted);
        return Err(Error::denied("setup.wrong-secret", "this is not the setup secret"));
    }
    check_name(name)?;
    password::check(password, name)?;
    let password_hash = app.passwords.hash(password).await?;
    let actor = Actor { via: Via::Nothing, ..visitor.actor(None, name) };
    let mut write = app.inventory.change(&actor, "setup.complete").await?;
    // One write at a time: of many callers with the secret, one finds the row.
    if !people::take_setup_secret(write.db(), &hash).await? || people::any(write.db()).await? {
        return Err(done());
    }
    let person = people::insert(write.db(), name, Role::Operator, Some(&password_hash)).await?;
    write.subject("person", person, person);
    let signed_in = sessions::open(app, &mut write, visitor, person).await?;
    write.commit().await?;
    if let Err(error) = super::people::place(app, person, PrincipalId::DEFAULT_GROUP).await {
        tracing::warn!(person = %person, error = %error, "a person has no id range yet");
    }
    Ok(signed_in)
}

fn done() -> Error {
    Error::conflict("setup.done", "this appliance has been set up already; sign in")
}

/// A secret that fits in a link.
///
/// # Errors
/// When the kernel has no random bytes.
pub(super) fn link_secret() -> Result<(String, keys::SecretHash)> {
    let secret = random_text::<24>()?;
    let hash = hash_secret(&secret);
    Ok((secret, hash))
}
