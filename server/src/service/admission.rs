//! What is made or started is first held against what its owner may use together, and what their group
//! may. The kernel holds the sums whatever is admitted here; so containers may have more than a sum between
//! them. Refused is what could never be had: more containers or ports than may be, and one container that
//! asks for more than the whole sum.
//!
//! What runs goes on, and what a restart policy starts again is not judged: a lowered allowance takes
//! nothing away from what was admitted before.

use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use berth_runtime::wire::Limits;
use sqlx::SqliteConnection;

use super::containers::view::bytes;
use super::in_use;
use crate::app::App;
use crate::config::ContainersConfig;
use crate::error::{Error, LiftedBy, Reached, Result};
use crate::inventory::allowances::{self, Bounded, Sum, Whose};
use crate::inventory::usage::{Counts, counts};
use crate::inventory::{images, people};

/// One container's limit that is more than a whole sum.
#[derive(Debug)]
pub(crate) struct Exceeded {
    sum: Sum,
    limit: Bounded,
    asked: u64,
    allowed: u64,
}

/// The bounded limits of one container.
pub(crate) fn of_one(limits: &Limits) -> [(Bounded, u64); 4] {
    [
        (Bounded::CpuMillis, limits.cpu_millis.into()),
        (Bounded::MemoryBytes, limits.memory_bytes),
        (Bounded::SwapBytes, limits.swap_bytes),
        (Bounded::Pids, limits.pids.into()),
    ]
}

/// A number of what is bounded, for people.
pub(crate) fn words(which: Bounded, value: u64) -> String {
    let counted = |one: &str, many: &str| match value {
        1 => format!("1 {one}"),
        value => format!("{value} {many}"),
    };
    match which {
        Bounded::CpuMillis => {
            let text = format!("{}.{:03}", value / 1000, value % 1000);
            let text = text.trim_end_matches('0').trim_end_matches('.');
            format!("{text} {}", if text == "1" { "core" } else { "cores" })
        }
        Bounded::MemoryBytes => format!("{} of memory", bytes(value)),
        Bounded::SwapBytes => format!("{} of swap", bytes(value)),
        Bounded::Pids => counted("process", "processes"),
        Bounded::ContainersMax => counted("container", "containers"),
        Bounded::PortsMax => counted("port of the host", "ports of the host"),
        Bounded::ImagesMax => counted("image", "images"),
        Bounded::ImagesBytes => format!("{} of images", bytes(value)),
        Bounded::DataBytes => format!("{} on disk", bytes(value)),
        Bounded::IoReadBytesPerSec => format!("{} a second read from the disk", bytes(value)),
        Bounded::IoWriteBytesPerSec => format!("{} a second written to the disk", bytes(value)),
        Bounded::NetBytesPerSec => format!("{} a second over the network", bytes(value)),
    }
}

/// The configuration with default limits that the owner's sums admit: what nobody has asked for is no
/// reason to refuse a container.
pub(crate) async fn config(app: &App, owner: PrincipalId) -> Result<ContainersConfig> {
    let mut config = app.config.containers.clone();
    let mut db = app.inventory.read().acquire().await?;
    let limits = &mut config.default_limits;
    for Sum { allowance, .. } in allowances::sums(&mut db, owner).await? {
        let less = |now: u32, most: Option<u32>| most.map_or(now, |most| now.min(most));
        limits.cpu_millis = less(limits.cpu_millis, allowance.cpu_millis);
        limits.pids = less(limits.pids, allowance.pids);
        limits.memory_bytes = limits.memory_bytes.min(allowance.memory_bytes.unwrap_or(u64::MAX));
        limits.swap_bytes = limits.swap_bytes.min(allowance.swap_bytes.unwrap_or(u64::MAX));
    }
    Ok(config)
}

/// What of `limits` is more than all that is the owner's, or their group's, may have together. Of what was
/// admitted `before`, only what grows is judged.
pub(crate) async fn exceeded(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    limits: &Limits,
    before: Option<&Limits>,
) -> Result<Option<Exceeded>> {
    let before = before.map(of_one);
    for sum in allowances::sums(db, owner).await? {
        for (index, (limit, asked)) in of_one(limits).into_iter().enumerate() {
            let Some(allowed) = sum.allowance.bound(limit) else { continue };
            let grows = before.is_none_or(|before| asked > before[index].1);
            if asked > allowed && grows {
                return Ok(Some(Exceeded { sum, limit, asked, allowed }));
            }
        }
    }
    Ok(None)
}

/// Refuses a container that asks for more than a whole sum, with what of that is in use.
pub(crate) async fn refuse(app: &App, exceeded: Exceeded) -> Error {
    let Exceeded { sum, limit, asked, allowed } = exceeded;
    let used = match in_use::look(app, &[(sum.of, sum.id)]).await {
        Ok(seen) => seen.first().map_or(0, |seen| seen.of(limit)),
        Err(error) => return error,
    };
    let detail = format!(
        "the container asks for {}; all containers of {} may have {} together, of which {} in use now. Ask \
         for no more than that, or ask an operator for a larger allowance",
        words(limit, asked),
        name(&sum),
        words(limit, allowed),
        if used == 0 { "nothing is".to_owned() } else { format!("{} are", amount(limit, used)) },
    );
    Error::reached(
        "container.above-allowance",
        detail,
        reached(&sum, limit, [allowed, used, asked]),
    )
}

/// Refuses a start for which the owner's sums have become too small, or after the owner's account has ended.
pub(crate) async fn check_start(app: &App, owner: PrincipalId, limits: &Limits) -> Result<()> {
    let mut db = app.inventory.read().acquire().await?;
    if people::has_ended(&mut db, owner).await? {
        let text = "the account of its owner has ended; an operator can give it a later end";
        return Err(Error::conflict("person.ended", text));
    }
    let found = exceeded(&mut db, owner, limits, None).await?;
    drop(db);
    match found {
        Some(found) => Err(refuse(app, found).await),
        None => Ok(()),
    }
}

/// Refuses one container more than the owner, or their group, may have.
pub(crate) async fn check_containers(
    app: &App,
    db: &mut SqliteConnection,
    owner: PrincipalId,
) -> Result<()> {
    let configured = u64::from(app.config.containers.per_person_max);
    for sum in allowances::sums(&mut *db, owner).await? {
        let limit = Bounded::ContainersMax;
        let Some(allowed) = most(&sum, limit, configured) else { continue };
        let now = counts(&mut *db, sum.of, sum.id).await?.containers;
        if now < allowed {
            continue;
        }
        let detail = match sum.of {
            Whose::Person => format!(
                "you have {now} containers and may have {allowed}; remove some, or ask an operator for \
                 more"
            ),
            Whose::Group => format!(
                "your group {} has {now} containers and may have {allowed}; an operator can give it more",
                sum.name
            ),
        };
        let reached = reached(&sum, limit, [allowed, now, 1]);
        return Err(Error::reached("container.too-many", detail, reached));
    }
    Ok(())
}

/// Refuses `more` ports where the owner, or their group, may not have as many.
pub(crate) async fn check_ports(
    app: &App,
    db: &mut SqliteConnection,
    owner: PrincipalId,
    more: usize,
) -> Result<()> {
    let configured = u64::from(app.config.containers.ports_per_person_max);
    let more = u64::try_from(more).unwrap_or(u64::MAX);
    for sum in allowances::sums(&mut *db, owner).await? {
        let limit = Bounded::PortsMax;
        let Some(allowed) = most(&sum, limit, configured) else { continue };
        let now = counts(&mut *db, sum.of, sum.id).await?.ports;
        if now.saturating_add(more) <= allowed {
            continue;
        }
        let detail = match sum.of {
            Whose::Person => format!(
                "you have {now} ports of the host and ask for {more} more; you may have {allowed}. Remove a \
                 container that has some, or ask an operator for more"
            ),
            Whose::Group => format!(
                "your group {} has {now} ports of the host and you ask for {more} more; it may have \
                 {allowed}. An operator can give it more",
                sum.name
            ),
        };
        let reached = reached(&sum, limit, [allowed, now, more]);
        return Err(Error::reached("port.too-many", detail, reached));
    }
    Ok(())
}

/// Refuses one image more than the owner, or their group, may hold; the one of this manifest may be theirs
/// already.
pub(crate) async fn check_images(app: &App, owner: PrincipalId, manifest: &Digest) -> Result<()> {
    let mut db = app.inventory.read().acquire().await?;
    if images::holds_manifest(&mut db, owner, manifest).await? {
        return Ok(());
    }
    for sum in allowances::sums(&mut db, owner).await? {
        let Some(allowed) = sum.allowance.images_max.map(u64::from) else { continue };
        let now = counts(&mut db, sum.of, sum.id).await?.images;
        if now >= allowed {
            return Err(refuse_images(&sum, Bounded::ImagesMax, [allowed, now, 1]));
        }
    }
    Ok(())
}

/// What the owner, and their group, hold of images, to be looked at again when one has come.
pub(crate) async fn held_images(
    db: &mut SqliteConnection,
    owner: PrincipalId,
) -> Result<Vec<Counts>> {
    let mut held = Vec::new();
    for sum in allowances::sums(&mut *db, owner).await? {
        held.push(counts(&mut *db, sum.of, sum.id).await?);
    }
    Ok(held)
}

/// Refuses an image that has just been written down where it makes more of what is more than its owner, or
/// their group, may hold: others may have come since it was begun, or the allowance may have been lowered.
pub(crate) async fn check_new_image(
    db: &mut SqliteConnection,
    owner: PrincipalId,
    before: &[Counts],
) -> Result<()> {
    for (sum, before) in allowances::sums(&mut *db, owner).await?.iter().zip(before) {
        let now = counts(&mut *db, sum.of, sum.id).await?;
        for (limit, before, now) in [
            (Bounded::ImagesMax, before.images, now.images),
            (Bounded::ImagesBytes, before.image_bytes, now.image_bytes),
        ] {
            let Some(allowed) = sum.allowance.bound(limit) else { continue };
            if now > allowed && now > before {
                return Err(refuse_images(sum, limit, [allowed, before, now - before]));
            }
        }
    }
    Ok(())
}

/// The refusal of more images, or of more in them, than may be held.
pub(crate) fn refuse_images(sum: &Sum, limit: Bounded, numbers: [u64; 3]) -> Error {
    let [allowed, used, asked] = numbers;
    let what = match limit {
        Bounded::ImagesMax => "one more image".to_owned(),
        limit => format!("a layer or an archive of {} or more", amount(limit, asked)),
    };
    let detail = format!(
        "{what} is more than is left: {} may hold {}, and {} are held or on their way{}. Remove images \
         that are not needed, or ask an operator for a larger allowance",
        name(sum),
        words(limit, allowed),
        amount(limit, used),
        if limit == Bounded::ImagesBytes { ", stored and unpacked" } else { "" },
    );
    Error::reached("image.above-allowance", detail, reached(sum, limit, numbers))
}

/// A bound of a sum; for one person the configuration's where their allowance has none.
fn most(sum: &Sum, limit: Bounded, configured: u64) -> Option<u64> {
    sum.allowance.bound(limit).or((sum.of == Whose::Person).then_some(configured))
}

fn reached(sum: &Sum, limit: Bounded, [allowed, used, asked]: [u64; 3]) -> Reached {
    let (of, name) = (sum.of, sum.name.clone());
    Reached { limit, of, name, allowed, used, asked, lifted_by: LiftedBy::Operator }
}

fn name(sum: &Sum) -> String {
    match sum.of {
        Whose::Person => sum.name.clone(),
        Whose::Group => format!("the group {}", sum.name),
    }
}

/// The same without saying of what.
fn amount(which: Bounded, value: u64) -> String {
    match which {
        Bounded::MemoryBytes | Bounded::SwapBytes | Bounded::ImagesBytes | Bounded::DataBytes => {
            bytes(value)
        }
        which => words(which, value),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn amounts_are_said_as_people_say_them() {
        for (which, value, expected) in [
            (Bounded::CpuMillis, 1000, "1 core"),
            (Bounded::CpuMillis, 1500, "1.5 cores"),
            (Bounded::CpuMillis, 10, "0.01 cores"),
            (Bounded::CpuMillis, 12_000, "12 cores"),
            (Bounded::CpuMillis, 0, "0 cores"),
            (Bounded::MemoryBytes, 512 << 20, "512 MiB of memory"),
            (Bounded::Pids, 1, "1 process"),
            (Bounded::PortsMax, 3, "3 ports of the host"),
        ] {
            assert_eq!(words(which, value), expected);
        }
    }
}
