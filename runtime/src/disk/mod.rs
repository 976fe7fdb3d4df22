//! What a person may keep on disk, held by the kernel: a file system of their own, in a file whose blocks
//! are all set aside. Who has no limit is in the store that all share.
//!
//! ```text
//! people/<first id>/containers/      in the shared store; `volumes/` beside it
//! people/<first id>/data/<n>.ext4    their file system; `lock` is held by whoever works on it
//! run_dir/disks/<first id>.<n>/      where that is mounted: containers/<id>/upper|work, volumes/<id>/data
//! ```
//!
//! Invariants: the record of people says which of them is true, and whatever else is found is what a step
//! left that was killed: it goes at the next start ([`settle`]). Nothing that is true is ever changed but
//! by growing it; everything else makes a copy, looks whether it is one, and changes the record by one
//! rename. A file's blocks are there before anybody is told of them, so nobody's file system can fail
//! because others have filled the disk.
//!
//! A smaller limit is a copy, too: resize2fs(8) moves blocks in place, and what a power cut leaves of that is
//! no file system.

mod copy;
mod image;
mod tools;

use std::os::fd::{AsFd, OwnedFd};
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::statvfs::fstatvfs;
use nix::unistd::fsync;
use serde::{Deserialize, Serialize};

use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{DataUse, DataWay};

pub(crate) use self::copy::Shift;
pub(crate) use self::image::{grows_mounted, is_there as has_image, root as image_root};
pub(crate) use self::tools::{CHECK, MAKE, program};
use crate::files::{self, FileError, Place};
use crate::people::Person;
use crate::places::Places;
use crate::supervise::say;
use crate::sys::lock::try_lock;
use crate::undo::remove_tree;

/// Where what people's containers have written lies, below their own directory or on their file system.
pub(crate) const CONTAINERS: &str = "containers";
/// Where people's volumes lie, beside that.
pub(crate) const VOLUMES: &str = "volumes";
/// Where what they are uploading lies, beside that, until it is put in its place.
pub(crate) const UPLOADS: &str = "uploads";
/// All that moves with a person's data; uploads begin anew.
const TREES: [&str; 2] = [CONTAINERS, VOLUMES];
/// Their file systems, below their own directory.
pub(crate) const DATA: &str = "data";
/// Held by whoever works on a person's data.
const LOCK: &str = "lock";
/// Between two looks whether another has let go of it.
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// Second names of files, while they are copied.
const LINKS: &str = ".links";
/// Of a disk, what people's file systems leave to everything else: one in so many bytes, and at most …
const SPARE_PART: u64 = 20;
/// … this many.
const SPARE_BYTES_MAX: u64 = 2 << 30;

/// A person's own file system, as the record has it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Image {
    /// Names it; counts a person's file systems.
    pub(crate) number: u32,
    /// Its size in bytes, which is the person's limit.
    pub(crate) bytes: u64,
}

fn failure(class: FailureClass, code: &str, message: impl Into<String>) -> Failure {
    Failure::new(class, code, message)
}

fn failed(error: FileError) -> Failure {
    match error.is_full() {
        true => crate::failure::disk_full(&error),
        false => failure(FailureClass::Broken, "data.file", error.to_string()),
    }
}

/// A step of the kernel's own that failed.
fn refused(what: &str) -> impl FnOnce(Errno) -> Failure {
    move |errno| failure(FailureClass::Broken, "data.kernel", format!("{what}: {}", errno.desc()))
}

/// The number that a person's next file system has.
pub(crate) fn next_number(places: &Places, person: &Person) -> u32 {
    let data = places.own(person).and_then(|own| files::open_in(own, DATA));
    let there = data.map(|data| image::numbers(&data)).unwrap_or_default();
    there.into_iter().chain(person.data.map(|image| image.number)).max().unwrap_or(0) + 1
}

/// Whether there is anything of a person's for [`settle`] to look after.
pub(crate) fn is_of_concern(places: &Places, person: &Person) -> bool {
    let own = places.own(person);
    person.data.is_some() || own.is_ok_and(|own| files::is_directory(own, DATA))
}

/// What a person has and may have.
pub(crate) fn used(places: &Places, person: &Person) -> Result<DataUse, Failure> {
    let Some(image) = person.data else {
        return Ok(DataUse { way: DataWay::Shared, limit_bytes: None, used_bytes: None });
    };
    let root = places.data_root(person).map_err(failed)?;
    let about = fstatvfs(&root).map_err(refused("look at a person's file system"))?;
    let used = about.blocks().saturating_sub(about.blocks_free()) * about.fragment_size();
    let limit_bytes = Some(image.bytes);
    Ok(DataUse { way: DataWay::Image, limit_bytes, used_bytes: Some(used) })
}

/// Makes disk and mounts agree with the record; what is told is what the person has then.
pub(crate) fn settle(places: &Places, person: &Person) -> Result<DataUse, Failure> {
    let (own, data, _lock) = enter(places, person)?;
    if let Some(image) = person.data {
        image::attach(places, person, &data, image)?;
    }
    for number in image::numbers(&data).into_iter().chain(image::mounted(places, person)) {
        if person.data.is_none_or(|image| image.number != number) {
            image::remove(places, person, &data, number)?;
        }
    }
    // The directory with the lock stays: somebody may be waiting for it.
    if person.data.is_some() {
        remove_trees(&own)?;
    }
    used(places, person)
}

/// Grows the person's file system, whatever runs on it.
pub(crate) fn grow(places: &Places, person: &Person, bytes: u64) -> Result<DataUse, Failure> {
    let (_, data, _lock) = enter(places, person)?;
    let image = person.data.ok_or_else(|| {
        failure(FailureClass::Conflict, "data.shared", "the person has no file system of their own")
    })?;
    image::grow(places, person, &data, image, bytes)?;
    used(places, &Person { data: Some(Image { bytes, ..image }), ..*person })
}

/// Makes a copy of all that the person has where `to` says that it is to be. What the record says stays
/// as it is; a copy that fails is taken away.
pub(crate) fn copy_to(places: &Places, person: &Person, to: Option<Image>) -> Result<(), Failure> {
    let (own, data, _lock) = enter(places, person)?;
    let from = TREES.map(|name| places.tree(person, name).map(|tree| (name, tree)));
    let from = from.into_iter().collect::<Result<Vec<_>, _>>().map_err(failed)?;
    if let Some((_, Some(volumes))) = from.iter().find(|(name, _)| *name == VOLUMES) {
        // What is being removed from it by somebody whose supervisor was killed is gone soon.
        hold(volumes)?;
    }
    let copied = match to {
        Some(image) => image::make(places, person, &data, image)
            .and_then(|root| fill(&from, &root, Some(image))),
        None => remove_trees(&own).and_then(|()| {
            leave_spare(&own, person, places)?;
            fill(&from, &own, None)
        }),
    };
    let Err(why) = copied else { return Ok(()) };
    let taken = match to {
        Some(image) => image::remove(places, person, &data, image.number),
        None => remove_trees(&own),
    };
    if let Err(failure) = taken {
        say(&format!("person {}: take a copy away: {failure}", person.person));
    }
    Err(why)
}

/// What somebody keeps in a directory of their own, before it is theirs or when it is not any more.
fn remove_trees(own: &OwnedFd) -> Result<(), Failure> {
    let trees = TREES.iter().chain([&UPLOADS]);
    trees.into_iter().try_for_each(|name| remove_tree(own, name)).map_err(failed)
}

/// Copies trees to the directory `to`, under their names, and looks whether they are there, on disk.
fn fill(
    from: &[(&str, Option<OwnedFd>)],
    to: &OwnedFd,
    image: Option<Image>,
) -> Result<(), Failure> {
    let place = |name| files::make_directory(to, name, Place::ROOT).map_err(failed);
    for (name, from) in from {
        let tree = place(name)?;
        let Some(from) = from else { continue };
        let said = |stopped: copy::Stopped| said(&stopped, image);
        let links = place(LINKS)?;
        let copied =
            copy::copy(from.as_fd(), tree.as_fd(), links.as_fd(), Shift::NONE).map_err(said);
        drop(links);
        let removed = remove_tree(to, LINKS).map_err(failed);
        copied.and(removed)?;
        copy::compare(from.as_fd(), tree.as_fd(), Shift::NONE).map_err(said)?;
    }
    nix::unistd::syncfs(to).map_err(refused("sync a copy"))?;
    fsync(to).map_err(refused("sync a copy"))
}

/// Copies all that is in the directory `from` to the empty one `to` of `person`'s, with their ids in the place of
/// another's, and looks whether it is there, on disk.
pub(crate) fn copy_for(
    person: &Person,
    from: &OwnedFd,
    to: &OwnedFd,
    (links, shift): (&OwnedFd, Shift),
) -> Result<(), Failure> {
    let said = |stopped: copy::Stopped| said(&stopped, person.data);
    let (from, to) = (from.as_fd(), to.as_fd());
    copy::copy(from, to, links.as_fd(), shift).map_err(said)?;
    copy::compare(from, to, shift).map_err(said)?;
    nix::unistd::syncfs(to).map_err(refused("sync a copy"))
}

fn said(stopped: &copy::Stopped, image: Option<Image>) -> Failure {
    let name = &stopped.name;
    match (stopped.errno, image) {
        (Errno::ENOSPC | Errno::EDQUOT, Some(image)) => {
            let message = format!(
                "more is kept than {} MiB hold: remove something first, or allow more",
                image.bytes >> 20
            );
            failure(FailureClass::Conflict, "data.over", message)
        }
        (Errno::ENOSPC | Errno::EDQUOT, None) => {
            failure(FailureClass::Exhausted, "disk.room", "the disk is full")
        }
        (Errno::EUCLEAN, _) => {
            let message = format!("the copy of {name:?} is not like it: nothing was changed");
            failure(FailureClass::Broken, "data.copy", message)
        }
        (errno, _) => {
            let message = format!("copy {name:?}: {}; nothing was changed", errno.desc());
            failure(FailureClass::Broken, "data.copy", message)
        }
    }
}

/// Refuses to move what would leave the shared disk without its spare part.
fn leave_spare(own: &OwnedFd, person: &Person, places: &Places) -> Result<(), Failure> {
    let used = used(places, person)?.used_bytes.unwrap_or(0);
    check_room(own, used)
}

/// Whether `bytes` more fit on the disk that `directory` is on.
fn check_room(directory: impl AsFd, bytes: u64) -> Result<(), Failure> {
    let disk = fstatvfs(directory).map_err(refused("look at the disk"))?;
    let spare = (disk.blocks() * disk.fragment_size() / SPARE_PART).min(SPARE_BYTES_MAX);
    let free = (disk.blocks_available() * disk.fragment_size()).saturating_sub(spare);
    if bytes <= free {
        return Ok(());
    }
    let message = format!(
        "{} MiB more are wanted, and the disk can promise {} MiB: what people may keep is set aside \
         for each of them, so that nobody fills another's",
        bytes.div_ceil(1 << 20),
        free >> 20
    );
    Err(failure(FailureClass::Exhausted, "disk.room", message))
}

/// The person's own directory, that of their file systems, and the lock on these: somebody whose supervisor
/// was killed may be at work on them yet, and ends soon.
fn enter(places: &Places, person: &Person) -> Result<(OwnedFd, OwnedFd, OwnedFd), Failure> {
    let own = places.make_home(person).map_err(failed)?;
    let data = files::make_directory(&own, DATA, Place::ROOT).map_err(failed)?;
    let lock = crate::supervise::open_lock(&data, LOCK).map_err(failed)?;
    hold(&lock)?;
    Ok((own, data, lock))
}

/// Takes a lock, however long another has it: who holds one ends.
fn hold(lock: &OwnedFd) -> Result<(), Failure> {
    while !try_lock(lock).map_err(refused("lock a person's data"))? {
        std::thread::sleep(LOCK_PAUSE);
    }
    Ok(())
}
