//! One-time links by which people set their password.

use super::factor;
use super::sessions::{self, SignedIn, Visitor};
use crate::app::App;
use crate::auth::keys::hash_secret;
use crate::auth::password;
use crate::auth::throttle::Counted;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::people;

/// Whose link it is and until when it is good. Looking does not use it up.
pub async fn look(app: &App, visitor: &Visitor, secret: &str) -> Result<(String, Time)> {
    throttled(app, visitor)?;
    let mut db = app.inventory.read().acquire().await?;
    match people::find_invitation(&mut db, &hash_secret(secret)).await? {
        Some((account, expires_at)) => Ok((account.name, expires_at)),
        None => Err(unknown(app, visitor)),
    }
}

/// Sets the password and signs in; the link ends, and so do all older sessions. A link is one way in, and no
/// way around a second factor.
pub async fn accept(
    app: &App,
    visitor: &Visitor,
    (secret, password, code): (&str, &str, &str),
) -> Result<SignedIn> {
    let (name, _) = look(app, visitor, secret).await?;
    password::check(password, &name)?;
    let password_hash = app.passwords.hash(password).await?;
    let mut write = app.inventory.change(&visitor.actor(None, &name), "invitation.accept").await?;
    let found = people::find_invitation(write.db(), &hash_secret(secret)).await?;
    let Some((account, _)) = found else { return Err(unknown(app, visitor)) };
    factor::admit(app, write.db(), account.id, code).await.inspect_err(|_| {
        app.throttle.count(&at_address(visitor));
    })?;
    people::update_password(write.db(), account.id, &password_hash).await?;
    people::delete_invitation(write.db(), account.id).await?;
    crate::inventory::sessions::delete_all(write.db(), account.id, None).await?;
    write.subject("person", account.id, account.id);
    let signed_in = sessions::open(app, &mut write, visitor, account.id).await?;
    write.commit().await?;
    app.credentials_changed();
    Ok(signed_in)
}

fn throttled(app: &App, visitor: &Visitor) -> Result<()> {
    let counted = at_address(visitor);
    sessions::spend(app, visitor, &counted)?;
    match app.throttle.wait_secs(&counted) {
        Some(retry_secs) => Err(Error::TooMany { retry_secs }),
        None => Ok(()),
    }
}

fn unknown(app: &App, visitor: &Visitor) -> Error {
    let counted = at_address(visitor);
    app.throttle.count(&counted);
    Error::NotFound("invitation (it was used, replaced, or has ended)")
}

fn at_address(visitor: &Visitor) -> Vec<Counted> {
    visitor.address.and_then(Counted::address).into_iter().collect()
}
