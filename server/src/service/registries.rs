//! People's own credentials for registries. The password goes in sealed and comes out only to be
//! sent to that registry.

use berth_runtime::id::PrincipalId;

use crate::app::App;
use crate::auth::{Caller, sealed};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::events::NewEvent;
use crate::inventory::registries::{self, CredentialRow};
use crate::registry::Credentials;
use crate::registry::reference::DEFAULT_REGISTRY;

/// Bytes of a user name or password at most.
const SECRET_BYTES_MAX: usize = 8 * 1024;
/// Registries that one person has credentials for at most.
const REGISTRIES_MAX: usize = 50;

/// Credentials for a registry, without the password.
#[derive(Debug, Clone)]
pub struct Login {
    /// The registry.
    pub registry: String,
    /// The user's name there.
    pub username: String,
    /// When they were set.
    pub created_at: Time,
    /// Whether they are of use.
    pub state: LoginState,
}

/// Whether credentials are of use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LoginState {
    /// As far as is known.
    Good,
    /// The registry has refused them since then.
    Refused(Time),
    /// They can no longer be read: the server's key is another.
    Lost,
}

/// The registries that the caller has credentials for.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<Login>> {
    let owner = caller.principal;
    let rows = registries::list(app.inventory.read(), owner).await?;
    Ok(rows.into_iter().map(|row| login(app, owner, row)).collect())
}

fn login(app: &App, owner: PrincipalId, row: CredentialRow) -> Login {
    let state = match (unseal(app, owner, &row.registry, &row.sealed), row.refused_at) {
        (Err(_), _) => LoginState::Lost,
        (Ok(_), Some(since)) => LoginState::Refused(since),
        (Ok(_), None) => LoginState::Good,
    };
    Login { registry: row.registry, username: row.username, created_at: row.created_at, state }
}

/// Notes whether the registry takes what `owner` signs in with.
pub async fn note(app: &App, owner: PrincipalId, registry: &str, taken: bool) -> Result<()> {
    let since = (!taken).then(Time::now);
    let mut write = app.inventory.observe().await?;
    if registries::set_refused(write.db(), owner, registry, since).await? && !taken {
        write
            .event(NewEvent {
                owner,
                kind: "registry.credentials.refused",
                subject_kind: "registry",
                subject: registry,
                data: serde_json::json!({}),
            })
            .await?;
    }
    write.commit().await
}

/// Sets or replaces the caller's credentials for a registry.
///
/// # Errors
/// When a value is none.
pub async fn set(
    app: &App,
    caller: &Caller,
    registry: &str,
    credentials: &Credentials,
) -> Result<Login> {
    let registry = registry_name(registry)?;
    let owner = caller.principal;
    let Credentials { username, password } = credentials;
    if username.is_empty() || username.contains(':') || username.len() > 256 {
        return Err(Error::field("/username", "1 to 256 bytes, no colon"));
    }
    if password.is_empty() || password.len() > SECRET_BYTES_MAX {
        return Err(Error::field("/password", format!("1 to {SECRET_BYTES_MAX} bytes")));
    }
    for (pointer, text) in [("/username", username), ("/password", password)] {
        if text.chars().any(char::is_control) {
            return Err(Error::field(pointer, "control characters are not allowed"));
        }
    }
    let known = registries::list(app.inventory.read(), owner).await?;
    let is_new = known.iter().all(|row| row.registry != registry);
    if is_new && known.len() >= REGISTRIES_MAX {
        return Err(Error::exhausted(
            "registry.too-many",
            format!("credentials for {REGISTRIES_MAX} registries are the most"),
        ));
    }
    let mut write = app.inventory.change(&caller.actor, "registry.credentials.set").await?;
    // Inside the write, so that a rotation of keys sees the row.
    let sealed = seal(app, owner, &registry, password)?;
    registries::set(write.db(), owner, &registry, username, &sealed).await?;
    write.subject("registry", &registry, owner);
    write.commit().await?;
    let rows = registries::list(app.inventory.read(), owner).await?;
    let row = rows.into_iter().find(|row| row.registry == registry);
    let row = row.ok_or_else(|| Error::defect("find credentials that were set"))?;
    Ok(login(app, owner, row))
}

/// Forgets the caller's credentials for a registry.
///
/// # Errors
/// When there are none.
pub async fn remove(app: &App, caller: &Caller, registry: &str) -> Result<()> {
    let registry = registry_name(registry).map_err(|_| Error::NotFound("credentials"))?;
    let mut write = app.inventory.change(&caller.actor, "registry.credentials.remove").await?;
    registries::delete(write.db(), caller.principal, &registry).await?;
    write.subject("registry", &registry, caller.principal);
    write.commit().await
}

/// What `owner` signs in to `registry` with.
pub async fn credentials(
    app: &App,
    owner: PrincipalId,
    registry: &str,
) -> Result<Option<Credentials>> {
    match registries::find(app.inventory.read(), owner, registry).await? {
        Some((username, sealed)) => {
            let password = unseal(app, owner, registry, &sealed)?;
            Ok(Some(Credentials { username, password }))
        }
        None => Ok(None),
    }
}

/// A registry as references name it.
fn registry_name(text: &str) -> Result<String> {
    let name = text.trim().to_ascii_lowercase();
    let name = match name.as_str() {
        "index.docker.io" | "registry-1.docker.io" | "hub.docker.com" => DEFAULT_REGISTRY,
        other => other,
    };
    let known = format!("{name}/a/b:c").parse::<crate::registry::ImageReference>();
    match known {
        Ok(reference) if reference.registry == name => Ok(name.to_owned()),
        _ => Err(Error::field("/registry", "a registry's host, such as ghcr.io or host:5000")),
    }
}

/// What the sealed is for.
const LABEL: &str = "registry-credentials";

/// Whose and for which registry is bound in: a row copied to another person opens nothing.
fn context(owner: PrincipalId, registry: &str) -> String {
    format!("{owner} {registry}")
}

/// Seals all credentials with the key that signs now, so that no older one is needed for them.
/// What no key opens is left as it is.
pub(super) async fn reseal_all(app: &App, db: &mut sqlx::SqliteConnection) -> Result<()> {
    for (owner, registry, sealed) in registries::all_sealed(db).await? {
        match unseal(app, owner, &registry, &sealed) {
            Ok(password) => {
                let sealed = seal(app, owner, &registry, &password)?;
                registries::reseal(db, owner, &registry, &sealed).await?;
            }
            Err(error) => {
                tracing::warn!(owner = %owner, registry, error = %error, "not sealed anew")
            }
        }
    }
    Ok(())
}

fn seal(app: &App, owner: PrincipalId, registry: &str, password: &str) -> Result<Vec<u8>> {
    sealed::seal(&app.keys, LABEL, &context(owner, registry), password)
}

fn unseal(app: &App, owner: PrincipalId, registry: &str, sealed: &[u8]) -> Result<String> {
    let opened = crate::auth::sealed::open(&app.keys, LABEL, &context(owner, registry), sealed);
    opened.ok_or_else(|| {
        Error::conflict(
            "registry.credentials-lost",
            format!(
                "your saved credentials for {registry} can no longer be read, because the server's \
                 key is another; enter them again, or remove them"
            ),
        )
    })
}
