//! Signing in and out, and finding out who is behind a cookie or token.

use std::net::IpAddr;
use std::time::Duration;

use berth_runtime::id::PrincipalId;

use crate::app::App;
use crate::auth::budget::Spender;
use crate::auth::keys::{Audience, random_id};
use crate::auth::throttle::Counted;
use crate::auth::{Actor, Caller, Role, TokenScope, Via, password};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::people::{self, Account};
use crate::inventory::sessions::{self, NewSession, Session};
use crate::inventory::{Write, tokens};
use crate::service::factor;
use crate::service::sharing::At;

/// A browser is taken for its owner's this long after they signed in with it.
const DEVICE_DAYS: u64 = 400;

/// Somebody who has not proved who they are.
#[derive(Debug, Clone)]
pub struct Visitor {
    /// Where the request came from.
    pub address: Option<IpAddr>,
    /// Whether it came by TLS, to us or to a trusted proxy.
    pub https: bool,
    /// What the browser says it is.
    pub agent: String,
    /// The request's id.
    pub request_id: String,
    /// The device cookie.
    pub device: Option<String>,
}

/// A new session, as its browser is to keep it.
#[derive(Debug)]
pub struct SignedIn {
    /// Who.
    pub person: PrincipalId,
    /// The session's id.
    pub session: String,
    /// The session cookie's value.
    pub cookie: String,
    /// The device cookie's value.
    pub device: String,
    /// When the session ends.
    pub expires_at: Time,
    /// When the device cookie ends.
    pub device_expires_at: Time,
    /// Whether the cookies are for TLS only.
    pub https: bool,
}

impl Visitor {
    /// For the audit.
    pub fn actor(&self, principal: Option<PrincipalId>, name: &str) -> Actor {
        Actor {
            principal,
            name: name.chars().take(64).collect(),
            via: Via::Nothing,
            address: self.address,
            request_id: self.request_id.clone(),
        }
    }
}

/// Signs in by name and password, and a code where somebody has a second factor.
///
/// # Errors
/// The same one for an unknown name, a wrong password and a disabled person; another one for the code, which
/// only those meet who know the password.
pub async fn sign_in(
    app: &App,
    visitor: &Visitor,
    (name, password, code): (&str, &str, &str),
) -> Result<SignedIn> {
    if name.len() > 256 || password.len() > 4096 {
        return Err(refused());
    }
    let account = people::account(app.inventory.read(), name).await?;
    let counted = counted(app, visitor, name, account.as_ref());
    spend(app, visitor, &counted)?;
    if let Some(retry_secs) = app.throttle.wait_secs(&counted) {
        return Err(Error::TooMany { retry_secs });
    }
    app.throttle.count(&counted);
    let stored = account.as_ref().and_then(|account| account.password_hash.clone());
    let right = app.passwords.verify(password, stored).await?;
    let account = account.filter(|account| right && !account.disabled).ok_or_else(refused)?;
    let actor = visitor.actor(Some(account.id), &account.name);
    let mut write = app.inventory.change(&actor, "session.open").await?;
    // They may have been disabled, or changed the password, while this one was checked.
    let now = people::account_by_id(write.db(), account.id).await?;
    let good = now.is_some_and(|now| !now.disabled && now.password_hash == account.password_hash);
    if !good {
        return Err(refused());
    }
    factor::admit(app, write.db(), account.id, code).await?;
    let signed_in = open(app, &mut write, visitor, account.id).await?;
    write.subject("session", &signed_in.session, account.id);
    write.commit().await?;
    app.throttle.forget(&counted);
    Ok(signed_in)
}

/// Opens a session inside a write.
pub(super) async fn open(
    app: &App,
    write: &mut Write,
    visitor: &Visitor,
    person: PrincipalId,
) -> Result<SignedIn> {
    let expires_at = Time::now().after(app.config.auth.session_life());
    let signed = app.keys.sign(Audience::Session, person, expires_at)?;
    let device_life = std::time::Duration::from_secs(DEVICE_DAYS * 86_400);
    let device_expires_at = Time::now().after(device_life);
    let device = app.keys.sign(Audience::Device, person, device_expires_at)?.token;
    let id = random_id()?;
    let address = visitor.address.map(|address| address.to_string()).unwrap_or_default();
    let agent: String = visitor.agent.chars().filter(|c| !c.is_control()).take(200).collect();
    let new = NewSession {
        id: &id,
        jti_hash: signed.id_hash,
        key_id: &signed.key,
        person,
        expires_at,
        address: &address,
        agent: &agent,
    };
    sessions::insert(write.db(), &new, app.config.auth.sessions_max).await?;
    let (cookie, https) = (signed.token, visitor.https);
    Ok(SignedIn { person, session: id, cookie, device, expires_at, device_expires_at, https })
}

/// Who is behind a session cookie.
pub async fn by_cookie(app: &App, visitor: &Visitor, cookie: &str) -> Result<Option<Caller>> {
    let Some(claims) = app.keys.verify(Audience::Session, cookie) else { return Ok(None) };
    let holder = sessions::holder(app.inventory.read(), &claims.id_hash).await?;
    let holder = holder.filter(|holder| holder.person == claims.principal);
    Ok(holder.map(|holder| {
        let via = Via::Session(holder.id.clone());
        caller(app, visitor, holder, via, TokenScope::Manage)
    }))
}

/// Who is behind a bearer token.
pub async fn by_token(app: &App, visitor: &Visitor, token: &str) -> Result<Option<Caller>> {
    let Some(claims) = app.keys.verify(Audience::Api, token) else { return Ok(None) };
    let found = tokens::holder(app.inventory.read(), &claims.id_hash).await?;
    let found = found.filter(|(holder, _)| holder.person == claims.principal);
    Ok(found.map(|(holder, scope)| {
        let via = Via::Token(holder.id.clone());
        caller(app, visitor, holder, via, scope)
    }))
}

/// Who a user of this host is, on the socket for local users: the kernel's word, so no password is asked. It carries
/// what a program may do; where a second factor is required of somebody, only looking, since none is shown here.
///
/// # Errors
/// When they are nobody here.
pub async fn local(app: &App, visitor: &Visitor, user: &str) -> Result<Caller> {
    let holder = sessions::local_holder(app.inventory.read(), user).await?;
    let holder = holder.ok_or_else(|| {
        Error::denied(
            "local.no-account",
            format!(
                "{user}, a user of this host, has no account here: an operator can say on a person's page \
                 that they are this user"
            ),
        )
    })?;
    let scope = match app.config.auth.second_factor.is_required_of(holder.role) {
        true => TokenScope::Read,
        false => TokenScope::Operate,
    };
    let caller = caller(app, visitor, holder, Via::LocalUser(user.to_owned()), scope);
    Ok(Caller { expires_at: None, factor_due: false, ..caller })
}

/// The machine's root, on the root socket.
pub fn system(visitor: &Visitor) -> Caller {
    let actor = Actor {
        via: Via::RootSocket,
        ..visitor.actor(Some(PrincipalId::SYSTEM), Role::System.as_str())
    };
    Caller {
        principal: PrincipalId::SYSTEM,
        name: Role::System.as_str().to_owned(),
        role: Role::System,
        scope: TokenScope::Manage,
        expires_at: None,
        account_expires_at: None,
        factor_due: false,
        actor,
    }
}

/// Whether what the caller has shown is still good, with the same rights as then.
pub async fn still_good(app: &App, caller: &Caller) -> Result<bool> {
    let db = app.inventory.read();
    let holder = match &caller.actor.via {
        Via::RootSocket => return Ok(true),
        Via::Nothing | Via::Policy => return Ok(false),
        Via::LocalUser(user) => {
            let holder = sessions::local_holder(db, user).await?;
            holder.filter(|now| now.person == caller.principal)
        }
        Via::Session(id) => sessions::holder_by_id(db, id).await?,
        Via::Token(id) => tokens::holder_by_id(db, id).await?,
    };
    Ok(holder.is_some_and(|now| now.role == caller.role))
}

/// The same, and whether the caller still has the right to what they are at.
pub async fn still_good_at(app: &App, caller: &Caller, at: Option<&At>) -> Result<bool> {
    match at {
        _ if !still_good(app, caller).await? => Ok(false),
        Some(at) => at.is_allowed(app, caller).await,
        None => Ok(true),
    }
}

/// Waits until the caller may not go on: signed out, token ended, person disabled or given another role, what they
/// are `at` not shared with them any more, or the server stops. What has ended already is noticed at once.
pub async fn right_ends(app: &App, caller: &Caller, at: Option<&At>) {
    let mut credentials = app.credentials();
    let expiry = caller.expires_at.map_or(Duration::MAX, |at| at.until());
    // tokio's timers reach two years ahead.
    let expiry = tokio::time::sleep(expiry.min(Duration::from_secs(365 * 86_400)));
    tokio::pin!(expiry);
    credentials.mark_changed();
    loop {
        tokio::select! {
            biased;
            () = app.stopping.cancelled() => return,
            () = &mut expiry => return,
            changed = credentials.changed() => {
                let good =
                    changed.is_ok() && still_good_at(app, caller, at).await.unwrap_or(false);
                if !good {
                    return;
                }
            }
        }
    }
}

/// The caller's sessions.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<Session>> {
    sessions::list(app.inventory.read(), caller.person()?, caller.session()).await
}

/// Ends one of the caller's sessions: with it, its open streams.
pub async fn end(app: &App, caller: &Caller, id: &str) -> Result<()> {
    let person = caller.person()?;
    let mut write = app.inventory.change(&caller.actor, "session.end").await?;
    write.subject("session", id, person);
    sessions::delete(write.db(), person, id).await?;
    write.commit().await?;
    app.credentials_changed();
    Ok(())
}

/// Ends the session, or the token, that asks.
///
/// # Errors
/// When the caller shows neither.
pub async fn sign_out(app: &App, caller: &Caller) -> Result<()> {
    match &caller.actor.via {
        Via::Session(id) => end(app, caller, id).await,
        // Of whatever scope: who holds a token may always give it up.
        Via::Token(id) => super::tokens::end(app, caller, id).await,
        Via::RootSocket | Via::LocalUser(_) | Via::Nothing | Via::Policy => {
            Err(Error::conflict("session.none", "you are signed in with neither session nor token"))
        }
    }
}

/// Changes the caller's password and ends all their other sessions. Tokens live on.
///
/// # Errors
/// When the present password is wrong.
pub async fn change_password(
    app: &App,
    caller: &Caller,
    visitor: &Visitor,
    present: &str,
    new: &str,
) -> Result<()> {
    let person = caller.person()?;
    password::check(new, &caller.name)?;
    check_password(app, caller, visitor, present).await?;
    let hash = app.passwords.hash(new).await?;
    let mut write = app.inventory.change(&caller.actor, "person.password").await?;
    write.subject("person", person, person);
    people::update_password(write.db(), person, &hash).await?;
    sessions::delete_all(write.db(), person, caller.session()).await?;
    write.commit().await?;
    app.credentials_changed();
    Ok(())
}

/// Whether this is the caller's password; a wrong one is counted as at sign-in.
///
/// # Errors
/// When it is not, or there were too many wrong ones.
pub(super) async fn check_password(
    app: &App,
    caller: &Caller,
    visitor: &Visitor,
    present: &str,
) -> Result<()> {
    let (account, counted) = count_try(app, caller, visitor).await?;
    if !app.passwords.verify(present, account.password_hash).await? {
        return Err(Error::field("/present_password", "this is not your password"));
    }
    app.throttle.forget(&counted);
    Ok(())
}

/// Counts a try of the caller's to prove something, until it is forgotten; whose account it is.
///
/// # Errors
/// When there were too many, or the caller has no account any more.
pub(super) async fn count_try(
    app: &App,
    caller: &Caller,
    visitor: &Visitor,
) -> Result<(Account, Vec<Counted>)> {
    let person = caller.person()?;
    let account = people::account(app.inventory.read(), &caller.name).await?;
    let account = account.filter(|account| account.id == person).ok_or(Error::Unauthenticated)?;
    let counted = counted(app, visitor, &caller.name, Some(&account));
    if let Some(retry_secs) = app.throttle.wait_secs(&counted) {
        return Err(Error::TooMany { retry_secs });
    }
    app.throttle.count(&counted);
    Ok((account, counted))
}

/// Spends a try to sign in, right or wrong: checking a password costs much. A browser that its owner
/// has used before pays for itself, whatever others do from the same address.
pub(super) fn spend(app: &App, visitor: &Visitor, counted: &[Counted]) -> Result<()> {
    let device = counted.iter().find_map(|key| match key {
        Counted::Device(hash) => Some(Spender::DeviceSignIns(*hash)),
        Counted::Account(_) | Counted::Address(_) => None,
    });
    let spender = device.or_else(|| visitor.address.and_then(Spender::sign_ins));
    match spender.map(|spender| app.budgets.spend(spender)) {
        Some(Err(budget)) => Err(Error::Limited(budget)),
        _ => Ok(()),
    }
}

/// What a try is counted against: the owner's browser on its own, strangers by account and address.
fn counted(app: &App, visitor: &Visitor, name: &str, account: Option<&Account>) -> Vec<Counted> {
    let device = visitor.device.as_deref().and_then(|cookie| {
        let claims = app.keys.verify(Audience::Device, cookie)?;
        (claims.principal == account?.id).then_some(claims.id_hash)
    });
    match device {
        Some(device) => vec![Counted::Device(device)],
        None => {
            let account = Counted::Account(name.to_owned());
            std::iter::once(account).chain(visitor.address.and_then(Counted::address)).collect()
        }
    }
}

fn caller(
    app: &App,
    visitor: &Visitor,
    holder: sessions::Holder,
    via: Via,
    scope: TokenScope,
) -> Caller {
    let actor = Actor { via, ..visitor.actor(Some(holder.person), &holder.name) };
    Caller {
        principal: holder.person,
        name: holder.name,
        role: holder.role,
        scope,
        expires_at: Some(holder.expires_at),
        account_expires_at: holder.account_expires_at,
        factor_due: !holder.has_factor && app.config.auth.second_factor.is_required_of(holder.role),
        actor,
    }
}

fn refused() -> Error {
    Error::denied("session.refused", "name or password is wrong")
}
