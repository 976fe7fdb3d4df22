//! Volumes: directories of a person's that outlive their containers.
//!
//! ```text
//! volumes/<id>/            root 0700; it is there: the volume is there
//!   data                   what containers see, from the first use on
//!   new                    the same, while the first use makes it; of nobody once the lock is free
//! volumes/gone.<id>.<n>/   removed, and not away yet
//! volumes/gone.<id>.coming/  on its way here from somebody else
//! ```
//!
//! Invariants: a volume's name is made and given up by one call of the kernel's, `data` gets its name when
//! all of it is on disk, so a kill leaves a volume that was used or one that was not, and what is left over
//! goes with the next use or the next sweep. Nothing in `data` is ever reached by a string that somebody
//! else has chosen but by openat2 with `data` as the root, or one name at a time without following links.

use std::collections::HashSet;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, RenameFlags, openat, renameat, renameat2};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstatat};
use nix::unistd::{Gid, Pid, Uid, fchown, fsync, syncfs};

use berth_runtime::config::RANGE_IDS;
use berth_runtime::id::VolumeId;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::VolumeUse;

use crate::disk;
use crate::files::{self, FileError, Place};
use crate::people::Person;
use crate::places::Places;
use crate::sys::directory::Entries;
use crate::sys::lock::{try_lock, unlock};
use crate::undo::remove_tree;

/// Volumes of one person at most, those that are being removed among them.
const VOLUMES_PER_PERSON_MAX: usize = 4096;
/// The content of one that has been used.
const DATA: &str = "data";
/// The content while it is made.
const NEW: &str = "new";
/// How the names of removed ones begin.
const GONE: &str = "gone.";
/// Second names of files, while one is copied.
const LINKS: &str = "links";
/// Removals of one name that are not away yet, at most.
const GONE_MAX: u32 = 1000;
/// The mode of a content that nothing was brought to: no directory of an image has it.
const UNTOUCHED: Mode = Mode::S_ISVTX;
/// How long a first use may keep another waiting.
const FIRST_USE_LIMIT: Duration = Duration::from_secs(45);
const LOCK_PAUSE: Duration = Duration::from_millis(20);
/// How long measuring may take, and what it may look at.
const MEASURE_LIMIT: Duration = Duration::from_secs(10);
const MEASURED_ENTRIES_MAX: u64 = 1 << 20;
/// Directories in one another that are measured; each is a descriptor.
const MEASURED_DEPTH_MAX: usize = 256;
/// What stat(2) counts a file's room in.
const STAT_BLOCK_BYTES: u64 = 512;

const DIRECTORY: OFlag =
    OFlag::O_RDONLY.union(OFlag::O_DIRECTORY).union(OFlag::O_CLOEXEC).union(OFlag::O_NOFOLLOW);

fn failed(error: FileError) -> Failure {
    match error.is_full() {
        true => crate::failure::disk_full(&error),
        false => Failure::new(FailureClass::Broken, "volume.file", error.to_string()),
    }
}

/// There is none of this id.
pub(crate) fn unknown(volume: &VolumeId) -> Failure {
    let message = format!("volume {} is not known", volume.short());
    Failure::new(FailureClass::NotFound, "volume.unknown", message)
}

/// Whether a person has it.
pub(crate) fn is_there(
    places: &Places,
    person: &Person,
    volume: &VolumeId,
) -> Result<bool, Failure> {
    let volumes = places.volumes(person).map_err(failed)?;
    Ok(volumes.is_some_and(|volumes| files::is_directory(volumes, volume.as_str())))
}

/// Makes one, unless it is there.
pub(crate) fn make(places: &Places, person: &Person, volume: &VolumeId) -> Result<(), Failure> {
    let root = places.data_root(person).map_err(failed)?;
    let volumes = files::make_directory(root, disk::VOLUMES, Place::ROOT).map_err(failed)?;
    if files::is_directory(&volumes, volume.as_str()) {
        return Ok(());
    }
    if files::names(&volumes).map_err(failed)?.len() >= VOLUMES_PER_PERSON_MAX {
        let message = format!("the person has {VOLUMES_PER_PERSON_MAX} volumes, and no more fit");
        return Err(Failure::new(FailureClass::Exhausted, "volume.limit", message));
    }
    files::make_directory(volumes, volume.as_str(), Place::ROOT).map(drop).map_err(failed)
}

/// Takes a volume's name away, on disk; whether there is something to be swept now.
pub(crate) fn give_up(
    places: &Places,
    person: &Person,
    volume: &VolumeId,
) -> Result<bool, Failure> {
    let Some(volumes) = places.volumes(person).map_err(failed)? else { return Ok(false) };
    for number in 0..GONE_MAX {
        let gone = format!("{GONE}{volume}.{number}");
        let flags = RenameFlags::RENAME_NOREPLACE;
        match renameat2(&volumes, volume.as_str(), &volumes, gone.as_str(), flags) {
            Ok(()) => {
                fsync(&volumes)
                    .map_err(FileError::os("sync the directory of", gone))
                    .map_err(failed)?;
                return Ok(true);
            }
            Err(Errno::ENOENT) => return Ok(false),
            Err(Errno::EEXIST) => {}
            Err(errno) => return Err(failed(FileError::os("rename", volume.as_str())(errno))),
        }
    }
    Err(failed(FileError::os("rename", volume.as_str())(Errno::EEXIST)))
}

/// Gives a volume to somebody else: all of it is copied to theirs, with their ids in the place of the others', and has its
/// name there before it loses the one that it had. Nothing else is done with the data of either meanwhile. A kill leaves
/// it whole with one of them, or with both; then the one that is there to be given is what is true, and copied anew.
pub(crate) fn hand_over(
    places: &Places,
    person: &Person,
    volume: &VolumeId,
    heir: &Person,
) -> Result<(), Failure> {
    let root = places.data_root(heir).map_err(failed)?;
    let theirs = files::make_directory(root, disk::VOLUMES, Place::ROOT).map_err(failed)?;
    // One that another supervisor has begun ends soon, as does a sweep, which takes what it has left.
    while !try_lock(&theirs).map_err(FileError::os("lock", "volumes")).map_err(failed)? {
        std::thread::sleep(LOCK_PAUSE);
    }
    let is_theirs = files::is_directory(&theirs, volume.as_str());
    if !is_there(places, person, volume)? {
        return if is_theirs { Ok(()) } else { Err(unknown(volume)) };
    }
    let ours = places.volumes(person).map_err(failed)?.ok_or_else(|| unknown(volume))?;
    let holder = files::open_in(&ours, volume.as_str()).map_err(failed)?;
    // Of one that was never used nothing can be what is true.
    if !is_theirs || files::is_directory(&holder, DATA) {
        if is_theirs {
            give_up(places, heir, volume)?;
        }
        bring(&holder, (person, volume), (heir, &theirs))?;
    }
    give_up(places, person, volume).map(drop)
}

fn bring(
    holder: &OwnedFd,
    (person, volume): (&Person, &VolumeId),
    (heir, theirs): (&Person, &OwnedFd),
) -> Result<(), Failure> {
    if files::names(theirs).map_err(failed)?.len() >= VOLUMES_PER_PERSON_MAX {
        let message = format!("the person has {VOLUMES_PER_PERSON_MAX} volumes, and no more fit");
        return Err(Failure::new(FailureClass::Exhausted, "volume.limit", message));
    }
    let coming = format!("{GONE}{volume}.coming");
    remove_tree(theirs, &coming).map_err(failed)?;
    let to = files::make_directory(theirs, &coming, Place::ROOT).map_err(failed)?;
    if files::is_directory(holder, DATA) {
        let from = files::open_in(holder, DATA).map_err(failed)?;
        let data = files::make_directory(&to, DATA, Place::ROOT).map_err(failed)?;
        let links = files::make_directory(&to, LINKS, Place::ROOT).map_err(failed)?;
        let shift = disk::Shift { from: person.first_id, to: heir.first_id };
        disk::copy_for(heir, &from, &data, (&links, shift))?;
        remove_tree(&to, LINKS).map_err(failed)?;
    }
    let name = volume.as_str();
    fsync(&to).map_err(FileError::os("sync", name)).map_err(failed)?;
    renameat2(theirs, coming.as_str(), theirs, name, RenameFlags::RENAME_NOREPLACE)
        .map_err(FileError::os("rename to", name))
        .map_err(failed)?;
    fsync(theirs).map_err(FileError::os("sync the directory of", name)).map_err(failed)
}

/// Whether removed volumes of the person's are not away yet.
pub(crate) fn needs_sweep(places: &Places, person: &Person) -> bool {
    let volumes = places.volumes(person).ok().flatten();
    let names = volumes.map(files::names).and_then(Result::ok).unwrap_or_default();
    names.iter().any(|name| name.starts_with(GONE))
}

/// Removes what is left of removed volumes. One at a time works on a person's.
pub(crate) fn sweep(places: &Places, person: &Person) -> Result<(), Failure> {
    let Some(volumes) = places.volumes(person).map_err(failed)? else { return Ok(()) };
    while !try_lock(&volumes).map_err(FileError::os("lock", "volumes")).map_err(failed)? {
        std::thread::sleep(LOCK_PAUSE);
    }
    for name in files::names(&volumes).map_err(failed)? {
        if name.starts_with(GONE) {
            remove_tree(&volumes, &name).map_err(failed)?;
        }
    }
    Ok(())
}

/// A volume that is open for a container.
#[derive(Debug)]
pub(crate) struct Open {
    /// Its content.
    pub(crate) content: OwnedFd,
    holder: OwnedFd,
    /// Whether this is its first use: it is locked, and has its content's name when [`Open::settle`] gives it.
    pub(crate) is_fresh: bool,
}

impl Open {
    /// Opens a volume. Of a first use anybody else's waits for the end.
    pub(crate) fn new(
        places: &Places,
        person: &Person,
        volume: &VolumeId,
    ) -> Result<Self, Failure> {
        let volumes = places.volumes(person).map_err(failed)?.ok_or_else(|| unknown(volume))?;
        let holder =
            files::open_in(&volumes, volume.as_str()).map_err(|error| match error.errno() {
                Some(Errno::ENOENT) => unknown(volume),
                _ => failed(error),
            })?;
        let deadline = Instant::now() + FIRST_USE_LIMIT;
        loop {
            if files::is_directory(&holder, DATA) {
                let content = files::open_in(&holder, DATA).map_err(failed)?;
                return Ok(Self { content, holder, is_fresh: false });
            }
            let lock = |errno| failed(FileError::os("lock", volume.as_str())(errno));
            if try_lock(&holder).map_err(lock)? {
                if files::is_directory(&holder, DATA) {
                    unlock(&holder).map_err(lock)?;
                    continue;
                }
                let content = begin(&holder, person).map_err(failed)?;
                return Ok(Self { content, holder, is_fresh: true });
            }
            if Instant::now() > deadline {
                let message = format!(
                    "another container has been filling volume {} for {FIRST_USE_LIMIT:?}",
                    volume.short()
                );
                return Err(Failure::new(FailureClass::Unavailable, "volume.busy", message));
            }
            std::thread::sleep(LOCK_PAUSE);
        }
    }

    /// Opens one that has to have been used: for whoever may not write to it, and so does not fill it.
    pub(crate) fn used(
        places: &Places,
        owner: &Person,
        volume: &VolumeId,
    ) -> Result<Self, Failure> {
        let volumes = places.volumes(owner).map_err(failed)?.ok_or_else(|| unknown(volume))?;
        if !files::is_directory(&volumes, volume.as_str()) {
            return Err(unknown(volume));
        }
        let holder = files::open_in(&volumes, volume.as_str()).map_err(failed)?;
        if !files::is_directory(&holder, DATA) {
            let message = format!(
                "volume {} was never used, and whoever may only read it cannot be the first: a container \
                 of its owner's has to start with it, or a file be put in it",
                volume.short()
            );
            return Err(Failure::new(FailureClass::Conflict, "volume.unused", message));
        }
        let content = files::open_in(&holder, DATA).map_err(failed)?;
        Ok(Self { content, holder, is_fresh: false })
    }

    /// Ends a first use of a volume of `owner`'s: what was brought is on disk, and has its name. Where the image
    /// had nothing at the place the content belongs to whoever the program of `process`, a container's of
    /// `person`, is in that container.
    pub(crate) fn settle(
        &self,
        owner: &Person,
        (person, process): (&Person, Pid),
    ) -> Result<(), Failure> {
        if !self.is_fresh {
            return Ok(());
        }
        self.name(owner, (person, process)).map_err(failed)
    }

    fn name(&self, owner: &Person, (person, process): (&Person, Pid)) -> Result<(), FileError> {
        let Self { content, .. } = self;
        let stat = files::status(content, NEW)?;
        if stat.st_mode & 0o7777 == UNTOUCHED.bits() {
            let (user, group) = ids_of(process, person)?;
            let (user, group) = (owner.first_id + user, owner.first_id + group);
            fchown(content, Some(Uid::from_raw(user)), Some(Gid::from_raw(group)))
                .map_err(FileError::os("change owner of", NEW))?;
            fchmod(content, Mode::from_bits_truncate(0o755))
                .map_err(FileError::os("change mode of", NEW))?;
        }
        if !files::names(content)?.is_empty() {
            syncfs(content).map_err(FileError::os("sync", NEW))?;
        }
        self.publish()
    }

    fn publish(&self) -> Result<(), FileError> {
        let Self { holder, .. } = self;
        renameat(holder, NEW, holder, DATA).map_err(FileError::os("rename to", DATA))?;
        fsync(holder).map_err(FileError::os("sync the directory of", DATA))?;
        unlock(holder).map_err(FileError::os("unlock", DATA))
    }
}

/// A volume's content, to be read; `None` while it was never used.
pub(crate) fn content(
    places: &Places,
    person: &Person,
    volume: &VolumeId,
) -> Result<Option<OwnedFd>, Failure> {
    let volumes = places.volumes(person).map_err(failed)?.ok_or_else(|| unknown(volume))?;
    if !files::is_directory(&volumes, volume.as_str()) {
        return Err(unknown(volume));
    }
    let holder = files::open_in(&volumes, volume.as_str()).map_err(failed)?;
    match files::is_directory(&holder, DATA) {
        true => files::open_in(&holder, DATA).map(Some).map_err(failed),
        false => Ok(None),
    }
}

/// The same, to be written to: that is a use, so that nothing is brought from an image any more. What was
/// never used belongs to the person's root then.
pub(crate) fn begin_use(
    places: &Places,
    person: &Person,
    volume: &VolumeId,
) -> Result<OwnedFd, Failure> {
    let open = Open::new(places, person, volume)?;
    if open.is_fresh {
        fchmod(&open.content, Mode::from_bits_truncate(0o755))
            .map_err(FileError::os("change mode of", NEW))
            .and_then(|()| open.publish())
            .map_err(failed)?;
    }
    Ok(open.content)
}

/// An empty content, in the place of what a killed first use has left.
fn begin(holder: &OwnedFd, person: &Person) -> Result<OwnedFd, FileError> {
    remove_tree(holder, NEW)?;
    let mode = UNTOUCHED.bits();
    files::make_directory(holder, NEW, Place { uid: person.first_id, gid: person.first_id, mode })
}

/// Who a container's first process is, as the container numbers them, if that is one of the person's ids; else
/// its root.
fn ids_of(process: Pid, person: &Person) -> Result<(u32, u32), FileError> {
    let path = format!("/proc/{process}/status");
    let status = std::fs::read_to_string(&path).map_err(FileError::io("read", path))?;
    let id = |name: &str| {
        let words = status.lines().find_map(|line| line.strip_prefix(name));
        let effective = words.and_then(|words| words.split_whitespace().nth(1)?.parse().ok());
        let own = person.first_id..person.first_id + RANGE_IDS;
        effective.filter(|id| own.contains(id)).unwrap_or(person.first_id) - person.first_id
    };
    Ok((id("Uid:"), id("Gid:")))
}

/// What a volume holds, as far as it can be looked at within the limits. Programs may be changing it.
pub(crate) fn measure(
    places: &Places,
    person: &Person,
    volume: &VolumeId,
) -> Result<VolumeUse, Failure> {
    if !is_there(places, person, volume)? {
        return Err(unknown(volume));
    }
    let volumes = places.volumes(person).map_err(failed)?.ok_or_else(|| unknown(volume))?;
    let holder = files::open_in(&volumes, volume.as_str()).map_err(failed)?;
    let found = VolumeUse { bytes: 0, entries: 0, is_whole: true };
    let mut measure =
        Measure { found, seen: HashSet::new(), deadline: Instant::now() + MEASURE_LIMIT };
    if let Ok(content) = files::open_in(&holder, DATA) {
        let error = |errno| failed(FileError::os("measure", volume.as_str())(errno));
        measure.walk(content).map_err(error)?;
    }
    Ok(measure.found)
}

struct Measure {
    found: VolumeUse,
    /// Files with several names.
    seen: HashSet<u64>,
    deadline: Instant,
}

impl Measure {
    /// Directories are held open on the way, and left by what is held: `..` of one that a program moves
    /// meanwhile leads elsewhere.
    fn walk(&mut self, top: OwnedFd) -> nix::Result<()> {
        let mut way = vec![(top, Entries::new())];
        loop {
            let depth = way.len();
            let Some((here, entries)) = way.last_mut() else { return Ok(()) };
            let Some(name) = entries.next(&*here)? else {
                way.pop();
                continue;
            };
            if name == c"." || name == c".." {
                continue;
            }
            if self.found.entries >= MEASURED_ENTRIES_MAX || Instant::now() > self.deadline {
                self.found.is_whole = false;
                return Ok(());
            }
            let stat = match fstatat(&*here, name, AtFlags::AT_SYMLINK_NOFOLLOW) {
                Ok(stat) => stat,
                // Gone meanwhile.
                Err(Errno::ENOENT) => continue,
                Err(errno) => return Err(errno),
            };
            self.count(&stat);
            if !is_directory(&stat) {
                continue;
            }
            if depth >= MEASURED_DEPTH_MAX {
                self.found.is_whole = false;
                continue;
            }
            match openat(&*here, name, DIRECTORY, Mode::empty()) {
                Ok(inner) => way.push((inner, Entries::new())),
                Err(Errno::ENOENT | Errno::ENOTDIR | Errno::ELOOP) => {}
                Err(errno) => return Err(errno),
            }
        }
    }

    fn count(&mut self, stat: &FileStat) {
        self.found.entries += 1;
        if is_directory(stat) || stat.st_nlink < 2 || self.seen.insert(stat.st_ino) {
            self.found.bytes += u64::try_from(stat.st_blocks).unwrap_or(0) * STAT_BLOCK_BYTES;
        }
    }
}

fn is_directory(stat: &FileStat) -> bool {
    stat.st_mode & SFlag::S_IFMT.bits() == SFlag::S_IFDIR.bits()
}
