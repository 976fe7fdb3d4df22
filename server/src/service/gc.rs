//! What nothing needs any more, and of all that stays, why: images, and the copies of the inventory that
//! upgrades have kept. Nothing goes unless somebody says so; content that no image holds goes by itself.

use std::path::PathBuf;
use std::time::Duration;

use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::edits::Expected;
use super::images;
use crate::app::App;
use crate::auth::{Caller, Visibility};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::unneeded::{self, Candidate};

/// Images that are looked at, those first that nothing has needed for longest.
const IMAGES_MAX: u32 = 2_000;
/// Things that one call removes and one answer names.
const ITEMS_MAX: usize = 200;
const DAYS_MAX: u32 = 3_650;
const DAYS_DEFAULT: u32 = 7;
const DAY: Duration = Duration::from_hours(24);
/// Copies of the inventory that upgrades have kept; what follows is the schema's number.
const KEPT_COPY: &str = "berth.db.version-";

/// What may go.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields, default)]
pub struct GcRequest {
    /// For how many days nothing has needed it, 0 to 3,650.
    #[schema(minimum = 0, maximum = 3650)]
    pub unneeded_days: u32,
    /// Images that have a tag, too.
    pub tagged: bool,
    /// Everybody's and the system's, and the inventory's old copies; for operators.
    pub everyone: bool,
}

/// What goes or has gone, what stays, and why.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct GcView {
    /// Bytes that are freed at most, as far as the caller may know what shares them.
    pub frees_bytes: u64,
    /// What was looked at, at most 200: what goes first, then what stays.
    pub items: Vec<GcItem>,
    /// Whether there is more than that; what goes of it goes with the next call.
    pub more: bool,
}

/// One thing.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct GcItem {
    /// What it is.
    pub kind: GcKind,
    /// An image's id, or a file's name.
    pub id: String,
    /// What it is called; null for an image without a name.
    pub name: Option<String>,
    /// Whose; null for the system's.
    pub owner_name: Option<String>,
    /// Its size, what it shares with others included.
    pub bytes: u64,
    /// Since when nothing needs it.
    pub needed_at: Time,
    /// Whether it goes.
    pub verdict: GcVerdict,
    /// Why, in one word.
    pub reason: GcReason,
    /// Why, in a sentence.
    pub why: String,
}

/// What may go.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GcKind {
    /// An image.
    Image,
    /// A copy of the inventory, kept before its schema was changed.
    InventoryCopy,
}

/// What becomes of it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GcVerdict {
    /// It has gone.
    Removed,
    /// It goes when asked to.
    Remove,
    /// It stays.
    Keep,
}

/// Why.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum GcReason {
    /// Containers use it.
    InUse,
    /// It has a tag.
    Tagged,
    /// Something has needed it lately.
    Recent,
    /// It is the way back to the version before.
    WayBack,
    /// Nothing needs it.
    Unneeded,
    /// It could not be removed.
    Refused,
}

impl Default for GcRequest {
    fn default() -> Self {
        Self { unneeded_days: DAYS_DEFAULT, tagged: false, everyone: false }
    }
}

impl GcRequest {
    /// Whose things are meant.
    ///
    /// # Errors
    /// When the caller may not ask for this, or the days are too many.
    fn whose(&self, most: Visibility, caller: &Caller) -> Result<Visibility> {
        if self.unneeded_days > DAYS_MAX {
            let detail = format!("{} is more than {DAYS_MAX} days", self.unneeded_days);
            return Err(Error::field("/unneeded_days", detail));
        }
        match (self.everyone, most) {
            (false, _) => Ok(Visibility::Only(caller.principal)),
            (true, Visibility::Everyone) => Ok(Visibility::Everyone),
            (true, Visibility::Only(_)) => Err(Error::denied(
                "gc.everyone",
                "everyone: only operators remove what is not theirs; leave it out for your own",
            )),
        }
    }
}

/// What would go, and why the rest stays.
///
/// # Errors
/// When the request asks for what is not the caller's.
pub async fn look(app: &App, caller: &Caller, request: &GcRequest) -> Result<GcView> {
    let whose = request.whose(caller.sees(), caller)?;
    plan(app, request, whose).await
}

/// Removes what would go. What has come to be needed meanwhile stays, and says so.
///
/// # Errors
/// When the request asks for what is not the caller's.
pub async fn remove(app: &App, caller: &Caller, request: &GcRequest) -> Result<GcView> {
    let whose = request.whose(caller.changes(), caller)?;
    let mut view = plan(app, request, whose).await?;
    // That it was asked for; each thing that goes has a row of its own.
    let mut write = app.inventory.change(&caller.actor, "gc.remove").await?;
    let owner = match whose {
        Visibility::Everyone => PrincipalId::SYSTEM,
        Visibility::Only(owner) => owner,
    };
    write.subject("gc", "", owner);
    write.commit().await?;
    let mut gone = 0_usize;
    for item in view.items.iter_mut().filter(|item| item.verdict == GcVerdict::Remove) {
        let done = match item.kind {
            GcKind::Image => images::remove(app, caller, &item.id, &Expected::default()).await,
            GcKind::InventoryCopy => remove_copy(app, caller, &item.id).await,
        };
        match done {
            Ok(()) => {
                item.verdict = GcVerdict::Removed;
                gone += 1;
            }
            Err(error) => {
                tracing::info!(id = item.id, error = %error, "what seemed unneeded stays");
                (item.verdict, item.reason) = (GcVerdict::Keep, GcReason::Refused);
                item.why = error.to_failure().message;
            }
        }
    }
    // What is left has been counted as going.
    let kept = view.items.iter().filter(|item| item.reason == GcReason::Refused);
    view.frees_bytes = view.frees_bytes.saturating_sub(kept.map(|item| item.bytes).sum());
    view.items.sort_by_key(|item| item.verdict);
    tracing::info!(by = caller.name, count = gone, "removed what nothing needed");
    Ok(view)
}

async fn plan(app: &App, request: &GcRequest, whose: Visibility) -> Result<GcView> {
    let db = app.inventory.read();
    let before = Time::now().before(DAY * request.unneeded_days);
    let found = unneeded::candidates(db, whose, IMAGES_MAX + 1).await?;
    let mut more = found.len() > IMAGES_MAX as usize;
    let mut items: Vec<GcItem> = found
        .into_iter()
        .take(IMAGES_MAX as usize)
        .map(|candidate| judged(candidate, request, before))
        .collect();
    if whose == Visibility::Everyone {
        items.extend(copies(app, request, before).await?);
    }
    items.sort_by_key(|item| item.verdict);
    more |= items.len() > ITEMS_MAX;
    items.truncate(ITEMS_MAX);
    let going = || items.iter().filter(|item| item.verdict == GcVerdict::Remove);
    let images = going().filter(|item| item.kind == GcKind::Image);
    let ids: Vec<&str> = images.map(|item| item.id.as_str()).collect();
    let copies = going().filter(|item| item.kind == GcKind::InventoryCopy);
    let copies: u64 = copies.map(|item| item.bytes).sum();
    let frees_bytes = unneeded::freed_by(db, whose, &ids).await?.saturating_add(copies);
    Ok(GcView { frees_bytes, items, more })
}

fn judged(image: Candidate, request: &GcRequest, before: Time) -> GcItem {
    use GcReason::{InUse, Recent, Tagged, Unneeded};
    use GcVerdict::{Keep, Remove};
    let days = request.unneeded_days;
    let (verdict, reason, why) = match &image {
        image if image.containers > 0 => (Keep, InUse, used_by(image)),
        Candidate { tag: Some(_), .. } if !request.tagged => (
            Keep,
            Tagged,
            "it has a tag, so somebody may mean to use it; `tagged` has it go, too".to_owned(),
        ),
        image if image.needed_at > before => (
            Keep,
            Recent,
            format!("it came here, or its last container went, less than {days} days ago"),
        ),
        Candidate { tag: Some(_), .. } => {
            (Remove, Unneeded, format!("no container has used it for {days} days or more"))
        }
        _ => (Remove, Unneeded, "it has no tag, and no container uses it".to_owned()),
    };
    GcItem {
        kind: GcKind::Image,
        id: image.id,
        name: image.tag.or(image.digest),
        owner_name: image.owner_name,
        bytes: image.bytes,
        needed_at: image.needed_at,
        verdict,
        reason,
        why,
    }
}

fn used_by(image: &Candidate) -> String {
    let names = image.container_names.join(", ");
    match image.containers - image.container_names.len() as u64 {
        0 if image.containers == 1 => format!("the container {names} uses it"),
        0 => format!("the containers {names} use it"),
        others => format!("the containers {names} and {others} more use it"),
    }
}

/// The inventory's copies. The newest is the way back from the last upgrade, and stays.
async fn copies(app: &App, request: &GcRequest, before: Time) -> Result<Vec<GcItem>> {
    let directory = app.config.db_dir();
    let listed = tokio::task::spawn_blocking(move || list_copies(&directory)).await;
    let listed = listed.map_err(|source| Error::broken("list the inventory's copies", source))?;
    let listed = listed.map_err(|source| Error::broken("list the inventory's copies", source))?;
    let newest = listed.iter().map(|copy| copy.schema).max();
    let days = request.unneeded_days;
    let items = listed.into_iter().map(|copy| {
        let (verdict, reason, why) = if Some(copy.schema) == newest {
            let why = "it is the way back to the version before the last upgrade".to_owned();
            (GcVerdict::Keep, GcReason::WayBack, why)
        } else if copy.made_at > before {
            let why = format!("it was made less than {days} days ago");
            (GcVerdict::Keep, GcReason::Recent, why)
        } else {
            let why = "a newer copy is the way back from the last upgrade".to_owned();
            (GcVerdict::Remove, GcReason::Unneeded, why)
        };
        GcItem {
            kind: GcKind::InventoryCopy,
            name: Some(format!("inventory of schema {}", copy.schema)),
            id: copy.name,
            owner_name: None,
            bytes: copy.bytes,
            needed_at: copy.made_at,
            verdict,
            reason,
            why,
        }
    });
    Ok(items.collect())
}

/// A copy of the inventory.
struct Copy {
    name: String,
    schema: u64,
    bytes: u64,
    made_at: Time,
}

fn list_copies(directory: &std::path::Path) -> std::io::Result<Vec<Copy>> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(directory)? {
        let entry = entry?;
        let Ok(name) = entry.file_name().into_string() else { continue };
        let Some(schema) = name.strip_prefix(KEPT_COPY).and_then(|rest| rest.parse().ok()) else {
            continue;
        };
        let metadata = entry.metadata()?;
        let since = metadata.modified()?.duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
        let made_at = Time(i64::try_from(since.as_millis()).unwrap_or(i64::MAX));
        found.push(Copy { name, schema, bytes: metadata.len(), made_at });
    }
    Ok(found)
}

/// Removes a copy that [`list_copies`] has named.
async fn remove_copy(app: &App, caller: &Caller, name: &str) -> Result<()> {
    let mut write = app.inventory.change(&caller.actor, "inventory.copy-remove").await?;
    write.subject("inventory", name, PrincipalId::SYSTEM);
    write.commit().await?;
    let path: PathBuf = app.config.db_dir().join(name);
    let removed = tokio::fs::remove_file(&path).await;
    removed.map_err(|source| Error::broken(format!("remove {}", path.display()), source))
}
