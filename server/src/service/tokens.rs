//! Personal API tokens: shown once, ended at any time.

use std::time::Duration;

use crate::app::App;
use crate::auth::keys::{Audience, random_id};
use crate::auth::{Caller, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::tokens::{self, NewToken, Token};

/// A new token with its secret.
#[derive(Debug)]
pub struct Made {
    /// The token.
    pub token: Token,
    /// What goes behind `Authorization: Bearer`.
    pub secret: String,
}

/// Makes a token.
///
/// # Errors
/// A token can't make one that carries more than itself.
pub async fn make(
    app: &App,
    caller: &Caller,
    name: &str,
    scope: TokenScope,
    days: u32,
) -> Result<Made> {
    let person = caller.person()?;
    if name.trim() != name || name.is_empty() || name.chars().count() > 64 {
        return Err(Error::field("/name", "use 1 to 64 characters, no space at either end"));
    }
    if name.chars().any(char::is_control) {
        return Err(Error::field("/name", "control characters are not allowed"));
    }
    let days_max = app.config.auth.token_days_max;
    if days == 0 || days > days_max {
        return Err(Error::field("/days", format!("choose 1 to {days_max} days")));
    }
    if scope > caller.scope {
        return Err(Error::denied("token.scope", "a token cannot make one with a larger scope"));
    }
    let expires_at = Time::now().after(Duration::from_secs(u64::from(days) * 86_400));
    let id = random_id()?;
    let mut write = app.inventory.change(&caller.actor, "token.make").await?;
    // Inside the write, so that a rotation of keys sees the row of whatever it may end.
    let signed = app.keys.sign(Audience::Api, person, expires_at)?;
    let (jti_hash, key_id) = (signed.id_hash, signed.key.as_str());
    let new = NewToken { id: &id, jti_hash, key_id, person, name, scope, expires_at };
    tokens::insert(write.db(), &new, app.config.auth.tokens_max).await?;
    write.subject("token", &id, person);
    write.commit().await?;
    let token = Token {
        id,
        name: name.to_owned(),
        scope,
        created_at: Time::now(),
        expires_at,
        used_at: None,
    };
    Ok(Made { token, secret: signed.token })
}

/// The caller's tokens.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<Token>> {
    tokens::list(app.inventory.read(), caller.person()?).await
}

/// Ends one of the caller's tokens: with it, its open streams.
pub async fn end(app: &App, caller: &Caller, id: &str) -> Result<()> {
    let person = caller.person()?;
    let mut write = app.inventory.change(&caller.actor, "token.end").await?;
    write.subject("token", id, person);
    tokens::delete(write.db(), person, id).await?;
    write.commit().await?;
    app.credentials_changed();
    Ok(())
}
