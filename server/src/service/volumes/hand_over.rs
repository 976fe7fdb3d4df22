//! Giving a volume to somebody else, by an operator: with all that is in it, which counts to them from then on. The wish is
//! committed first; then the supervisor copies it, with the ids of the one person's range as the other's, and then it is
//! the other's in the inventory. What is cut short in between is gone on with by [`finish_all`], or given up where the
//! supervisor refuses it.
//!
//! Nothing runs with it meanwhile. Containers that name it without owning it do not start with it any more, as after a
//! share's end, and what its owner has shared of it ends: whom the new one shares it with is theirs to say.

use std::time::{Duration, Instant};

use berth_runtime::id::PrincipalId;
use berth_runtime::record::FailureClass;
use serde_json::json;
use tokio::task::JoinHandle;

use super::{USERS_MAX, check_still, event, find_for, runs};
use crate::app::App;
use crate::auth::{Caller, Right, Visibility};
use crate::error::{Error, Result};
use crate::inventory::people;
use crate::inventory::volumes::{self, Volume};
use crate::runtime_client::RuntimeError;
use crate::service::containers::ensure_known;

/// How long a request waits for the end; it goes on.
const WAIT: Duration = Duration::from_secs(20);
/// How long it may be in use by a container that has just ended.
const UNDONE_LIMIT: Duration = Duration::from_secs(5);
/// Between two looks at that.
const UNDONE_PAUSE: Duration = Duration::from_millis(100);
/// A volume's name at most, in bytes.
const NAME_BYTES_MAX: usize = 63;

/// Gives a volume to a person of this name, and answers whether it is theirs by now; else that goes on.
///
/// # Errors
/// There is no such volume or person, it is theirs, they have as many as they may, or something runs with it.
pub async fn hand_over(app: &App, caller: &Caller, key: &str, to: &str) -> Result<bool> {
    find_for(app, caller, key, Right::Remove).await?;
    let mut write = app.inventory.change(&caller.actor, "volume.hand-over").await?;
    let row = find_for(app, caller, key, Right::Remove).await?;
    write.subject("volume", &row.id, row.owner);
    check_still(&row)?;
    let heir = people::account(app.inventory.read(), to).await?;
    let heir = heir.ok_or_else(|| Error::field("/to", "there is nobody of this name"))?.id;
    if heir == row.owner {
        return Err(Error::field("/to", "it is theirs already"));
    }
    let (now, most) =
        (volumes::count(write.db(), heir).await?, app.config.containers.volumes_per_person_max);
    if now >= most {
        let text = format!("{to} has {now} volumes and may have {most}");
        return Err(Error::exhausted("volume.too-many", text));
    }
    let users = volumes::users(write.db(), &row.id, USERS_MAX).await?;
    if let Some(user) = users.iter().find(|user| runs(app, &user.container)) {
        let text = format!(
            "the container {} of {} runs with the volume {}; stop it first",
            user.container_name, user.owner_name, row.name
        );
        return Err(Error::conflict("volume.in-use", text));
    }
    volumes::set_heir(write.db(), &row.id, Some(heir)).await?;
    let data = json!({"by": caller.name, "name": row.name, "text": format!("to {to}")});
    event(&mut write, (&row.id, row.owner), "volume.handing_over", data).await?;
    write.commit().await?;
    let Some(work) = begin(app, Volume { heir: Some(heir), ..row }) else { return Ok(false) };
    match tokio::time::timeout(WAIT, work).await {
        Ok(Ok(Ok(()))) => Ok(true),
        Ok(Ok(Err(Error::Unavailable(_)))) | Err(_) => Ok(false),
        Ok(Ok(Err(error))) => Err(error),
        Ok(Err(error)) => Err(Error::broken("give a volume to somebody else", error)),
    }
}

/// Begins to do what was wished, unless that is under way.
fn begin(app: &App, row: Volume) -> Option<JoinHandle<Result<()>>> {
    if !app.volumes.begin_move(&row.id) {
        return None;
    }
    let app = app.clone();
    Some(tokio::spawn(async move {
        let done = finish(&app, &row).await;
        app.volumes.end_move(&row.id);
        if let Err(error) = &done {
            tracing::warn!(volume = %row.id, error = %error, "a volume was not given to somebody else");
        }
        done
    }))
}

/// Has the supervisor give it, and writes down whose it is. What is refused is given up: it stays its owner's.
async fn finish(app: &App, row: &Volume) -> Result<()> {
    let Some(heir) = row.heir else { return Ok(()) };
    let group = people::find(app.inventory.read(), Visibility::Everyone, heir).await?.group;
    ensure_known(app, row.owner, row.group).await?;
    ensure_known(app, heir, group).await?;
    match give(app, row, heir).await {
        Ok(()) => {}
        // It was never used: there is nothing of it on the disk.
        Err(error) if error.is_not_found() => {}
        // Nobody knows what has come of it: it is asked again.
        Err(error) if !is_final(&error) => {
            app.containers.note_unsettled();
            return Err(error.into());
        }
        Err(error) => {
            let mut write = app.inventory.record().await?;
            volumes::set_heir(write.db(), &row.id, None).await?;
            let data = json!({"name": row.name, "reason": error.to_string()});
            event(&mut write, (&row.id, row.owner), "volume.kept", data).await?;
            write.commit().await?;
            return Err(error.into());
        }
    }
    // A row of the audit's for whose it is now, as there is one for whose it was.
    let mut write = app.inventory.change(&Caller::policy().actor, "volume.receive").await?;
    write.subject("volume", &row.id, heir);
    let mut name = row.name.clone();
    if volumes::has_name(write.db(), heir, &name).await? {
        // Ids are nobody's name, and the end of one is as good as a number.
        let end = format!("-{}", &row.id.as_str()[..6]);
        name.truncate(NAME_BYTES_MAX - end.len());
        name.push_str(&end);
    }
    if !volumes::set_handed_over(write.db(), &row.id, &name).await? {
        return Ok(());
    }
    let data = json!({"name": row.name});
    event(&mut write, (&row.id, row.owner), "volume.given", data).await?;
    let data = json!({"name": name, "text": format!("by {}", row.owner_name)});
    event(&mut write, (&row.id, heir), "volume.received", data).await?;
    write.commit().await?;
    app.volumes.forget(&row.id);
    app.credentials_changed();
    Ok(())
}

/// Has the supervisor copy it. A container that has ended has its volumes until its mounts are undone, which takes a
/// moment; that none runs with it was looked at when it was wished.
async fn give(app: &App, row: &Volume, heir: PrincipalId) -> Result<(), RuntimeError> {
    let deadline = Instant::now() + UNDONE_LIMIT;
    loop {
        match app.runtime.volume_hand_over((row.owner, &row.id), heir).await {
            Err(RuntimeError::Refused(failure))
                if failure.code == "volume.in-use" && Instant::now() < deadline =>
            {
                tokio::time::sleep(UNDONE_PAUSE).await;
            }
            done => return done,
        }
    }
}

/// Whether the supervisor will say the same again.
fn is_final(error: &RuntimeError) -> bool {
    let RuntimeError::Refused(failure) = error else { return false };
    !matches!(failure.class, FailureClass::Unavailable)
}

/// Goes on with what a stop of the server, or of the supervisor, has cut short; it may take long, and is not waited for.
pub(crate) async fn finish_all(app: &App) -> Result<()> {
    for row in volumes::moving(app.inventory.read()).await? {
        drop(begin(app, row));
    }
    Ok(())
}
