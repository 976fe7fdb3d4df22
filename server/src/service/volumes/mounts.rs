//! Volumes in containers: which ones somebody's container may have, when it is made and again at each start.
//!
//! What is somebody else's is mounted by what was shared with the container's owner, whoever starts it; what they
//! oversee does not count.

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire;
use sqlx::{SqliteConnection, SqliteExecutor};

use crate::app::App;
use crate::auth::{Kind, Right, Role, Visibility, policy};
use crate::error::{Error, Result};
use crate::inventory::volumes::{self, Mount, Volume};
use crate::runtime_client::RuntimeError;
use crate::service::containers::actions::LaunchError;
use crate::service::containers::ensure_known;
use crate::service::containers::spec::MountRequest;

/// Gives a new container what it asks for of volumes that are its owner's or shared with them.
///
/// # Errors
/// When one is neither, or is to be written to and was shared to be read.
pub(crate) async fn attach(
    db: &mut SqliteConnection,
    (id, owner): (&ContainerId, PrincipalId),
    wanted: &[MountRequest],
) -> Result<()> {
    for (position, one) in (0..).zip(wanted) {
        let found = mountable(&mut *db, owner, &one.volume).await?;
        let Some((volume, writes)) = found else {
            let text = format!("you have no volume {:?}; make it first", one.volume);
            return Err(Error::field(format!("/mounts/{position}/volume"), text));
        };
        if !writes && !one.read_only {
            let text = format!("{} was shared with you to be read: mount it read-only", one.volume);
            return Err(Error::field(format!("/mounts/{position}/read_only"), text));
        }
        volumes::attach(&mut *db, id, position, &one.of(volume.id)).await?;
    }
    Ok(())
}

/// A volume that containers of `owner`'s may have, and whether they may write to it. What somebody sees as an operator
/// they do not mount by that.
async fn mountable(
    db: impl SqliteExecutor<'_>,
    owner: PrincipalId,
    key: &str,
) -> Result<Option<(Volume, bool)>> {
    let row = match volumes::find(db, Visibility::Only(owner), owner, key).await {
        Ok(row) => row,
        Err(Error::NotFound(_)) => return Ok(None),
        Err(error) => return Err(error),
    };
    let rights = policy::rights((owner, Role::User), (Kind::Volume, row.owner), row.granted);
    let writes = rights.has(Right::Write);
    Ok(Some((row, writes)).filter(|_| rights.has(Right::Files)))
}

/// Sees to it that the supervisor has a container's volumes, and says how they are mounted. What was shared and is
/// not any more is refused as the supervisor would, if it knew.
pub(crate) async fn for_start(
    app: &App,
    owner: PrincipalId,
    mounts: &[Mount],
) -> Result<Vec<wire::VolumeMount>, LaunchError> {
    let unknown = LaunchError::Unknown;
    let mut wanted = Vec::new();
    for mount in mounts {
        let (db, id) = (app.inventory.read(), mount.volume.as_str());
        let found = mountable(db, owner, id).await.map_err(unknown)?;
        let (volume, writes) = found.ok_or_else(|| not_shared(mount))?;
        if volume.heir.is_some() {
            return Err(moving(mount));
        }
        if !writes && !mount.read_only {
            return Err(not_writable(mount));
        }
        let made = match ensure_known(app, volume.owner, volume.group).await {
            Ok(()) => app.runtime.volume_make(volume.owner, &volume.id).await,
            Err(error) => return Err(unknown(error)),
        };
        made.map_err(|error| match error {
            RuntimeError::Refused(failure) => LaunchError::Refused(failure),
            error => unknown(error.into()),
        })?;
        wanted.push(wire::VolumeMount {
            volume: volume.id,
            owner: Some(volume.owner).filter(|whose| *whose != owner),
            target: mount.target.clone(),
            read_only: mount.read_only,
            sub_path: mount.sub_path.clone(),
            copy_up: true,
        });
    }
    Ok(wanted)
}

fn not_shared(mount: &Mount) -> LaunchError {
    let message = format!(
        "the volume {} on {} was removed, or is shared with the container’s owner no more",
        mount.name, mount.target
    );
    LaunchError::Refused(Failure::new(FailureClass::Conflict, "volume.not-shared", message))
}

fn moving(mount: &Mount) -> LaunchError {
    let message =
        format!("the volume {} on {} is being given to somebody else", mount.name, mount.target);
    LaunchError::Refused(Failure::new(FailureClass::Conflict, "volume.moving", message))
}

fn not_writable(mount: &Mount) -> LaunchError {
    let message = format!(
        "the volume {} on {} is shared with the container’s owner to be read, and the container \
         is to write to it",
        mount.name, mount.target
    );
    LaunchError::Refused(Failure::new(FailureClass::Conflict, "volume.read-only", message))
}
