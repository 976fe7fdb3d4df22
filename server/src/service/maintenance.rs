//! Maintenance: an operator says why, everybody is told, and nothing new is begun but by operators. What
//! runs goes on; looking, stopping and removing work.
//!
//! The row says whether it is so, across restarts; memory has a copy, since every page shows it.

use std::sync::{PoisonError, RwLock};

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use berth_runtime::id::PrincipalId;

use crate::app::App;
use crate::auth::{Caller, Role, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::maintenance::{self, Notice};

/// Characters of what people are told.
const MESSAGE_CHARS_MAX: usize = 300;

/// The copy in memory.
#[derive(Default)]
pub struct Maintenance {
    notice: RwLock<Option<Notice>>,
    /// Held while it is changed, so that row and copy change in the same order.
    turn: tokio::sync::Mutex<()>,
}

/// What people are to be told.
#[derive(Debug, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct MaintenanceRequest {
    /// Why, and until when: one line of 1 to 300 characters.
    #[schema(min_length = 1, max_length = 300)]
    pub message: String,
}

/// Whether the machine is in maintenance.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct MaintenanceView {
    /// Whether it is.
    pub on: bool,
    /// What people are told.
    pub message: Option<String>,
    /// Since when.
    pub since: Option<Time>,
    /// Who has begun it, for operators and auditors.
    pub by: Option<String>,
}

impl Maintenance {
    /// What people are told now.
    pub fn notice(&self) -> Option<Notice> {
        self.notice.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    fn put(&self, notice: Option<Notice>) {
        *self.notice.write().unwrap_or_else(PoisonError::into_inner) = notice;
    }
}

/// Reads the row, at the server's start.
pub async fn load(app: &App) -> Result<()> {
    let notice = maintenance::find(app.inventory.read()).await?;
    if let Some(notice) = &notice {
        tracing::warn!(since = %notice.since, by = notice.by, "the machine is in maintenance");
    }
    app.maintenance.put(notice);
    Ok(())
}

/// Whether it is so, as the caller may know it.
pub fn show(app: &App, caller: &Caller) -> MaintenanceView {
    let notice = app.maintenance.notice();
    let oversees = caller.sees() == Visibility::Everyone;
    MaintenanceView {
        on: notice.is_some(),
        message: notice.as_ref().map(|notice| notice.message.clone()),
        since: notice.as_ref().map(|notice| notice.since),
        by: notice.map(|notice| notice.by).filter(|_| oversees),
    }
}

/// Whether the caller may begin something new now.
///
/// # Errors
/// During maintenance, unless the caller is an operator; with the operator's words.
pub fn admit(app: &App, caller: &Caller) -> Result<()> {
    let may = matches!(caller.role, Role::Operator | Role::System);
    match app.maintenance.notice().filter(|_| !may) {
        None => Ok(()),
        Some(Notice { message, .. }) => Err(Error::unavailable(
            "server.maintenance",
            format!("the machine is in maintenance, and nothing new is begun: {message}"),
        )),
    }
}

/// Begins it, or changes what people are told.
///
/// # Errors
/// When there is nothing to tell, or too much.
pub async fn begin(
    app: &App,
    caller: &Caller,
    request: &MaintenanceRequest,
) -> Result<MaintenanceView> {
    let message = check(&request.message)?;
    let _turn = app.maintenance.turn.lock().await;
    let since = app.maintenance.notice().map_or_else(Time::now, |notice| notice.since);
    let mut write = app.inventory.change(&caller.actor, "maintenance.begin").await?;
    write.subject("maintenance", "machine", PrincipalId::SYSTEM);
    maintenance::set(write.db(), message, caller.principal, since).await?;
    write.commit().await?;
    let (message, by) = (message.to_owned(), caller.name.clone());
    app.maintenance.put(Some(Notice { message, since, by }));
    Ok(show(app, caller))
}

/// Ends it; one that is over is over.
pub async fn end(app: &App, caller: &Caller) -> Result<MaintenanceView> {
    let _turn = app.maintenance.turn.lock().await;
    let mut write = app.inventory.change(&caller.actor, "maintenance.end").await?;
    write.subject("maintenance", "machine", PrincipalId::SYSTEM);
    maintenance::remove(write.db()).await?;
    write.commit().await?;
    app.maintenance.put(None);
    Ok(show(app, caller))
}

fn check(message: &str) -> Result<&str> {
    let message = message.trim();
    let count = message.chars().count();
    if !(1..=MESSAGE_CHARS_MAX).contains(&count) {
        let detail =
            format!("{count} characters are not 1 to {MESSAGE_CHARS_MAX}: say why, and until when");
        return Err(Error::field("/message", detail));
    }
    if message.contains(char::is_control) {
        return Err(Error::field("/message", "it holds a control character; it is one line"));
    }
    Ok(message)
}
