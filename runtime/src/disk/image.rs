//! One file system in a file: made, attached to a loop device, mounted, grown, taken away.

use std::fs::File;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::fs::{FileExt as _, MetadataExt as _};
use std::path::PathBuf;

use nix::errno::Errno;
use nix::fcntl::{FallocateFlags, OFlag, fallocate, open, openat};
use nix::mount::{MntFlags, MsFlags, mount, umount2};
use nix::sys::stat::Mode;
use nix::unistd::{UnlinkatFlags, fsync, unlinkat};

use berth_runtime::record::{Failure, FailureClass};

use super::{DATA, Image, check_room, failed, failure, refused, tools};
use crate::files::{self, FileError, Place};
use crate::people::Person;
use crate::places::Places;
use crate::supervise::say;
use crate::sys::loop_device;

/// A block of every file system that is made here, and what a device is read and written in.
const BLOCK_BYTES: u32 = 4096;
/// Tries to get a device that nobody else takes first.
const DEVICE_TRIES_MAX: u32 = 64;
const CAP_SYS_RESOURCE: u32 = 24;
const LOOPS: &str = "/sys/block";

/// Where ext4 has what is looked at of it, from the start of the file (ext4(5), "superblock").
const SUPERBLOCK: u64 = 1024;
const SUPERBLOCK_BYTES: usize = 1024;
const MAGIC: u16 = 0xef53;
const STATE_VALID: u16 = 1;
const STATE_ERRORS: u16 = 2;
/// The journal has to be read first.
const INCOMPAT_RECOVER: u32 = 4;

/// What a file system says of itself.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Superblock {
    bytes: u64,
    clean: bool,
}

fn name(number: u32) -> String {
    format!("{number}.ext4")
}

fn place_name(person: &Person, number: u32) -> String {
    format!("{}.{number}", person.first_id)
}

/// A size in whole blocks.
fn size(bytes: u64) -> u64 {
    bytes.next_multiple_of(u64::from(BLOCK_BYTES))
}

/// The numbers of the file systems in a person's `data`.
pub(super) fn numbers(data: &OwnedFd) -> Vec<u32> {
    let names = files::names(data).unwrap_or_default();
    names.iter().filter_map(|name| name.strip_suffix(".ext4")?.parse().ok()).collect()
}

/// The numbers of those that have a place to be mounted on.
pub(super) fn mounted(places: &Places, person: &Person) -> Vec<u32> {
    let names = files::names(&places.disks).unwrap_or_default();
    let theirs = format!("{}.", person.first_id);
    names.iter().filter_map(|name| name.strip_prefix(&theirs)?.parse().ok()).collect()
}

/// Whether the file behind a person's file system is there at all.
pub(crate) fn is_there(places: &Places, person: &Person, image: Image) -> bool {
    let data = places.own(person).and_then(|own| files::open_in(own, DATA));
    data.is_ok_and(|data| open_file(&data, image.number).is_ok())
}

/// The root of a person's file system, which has to be mounted.
pub(crate) fn root(places: &Places, person: &Person, image: Image) -> Result<OwnedFd, FileError> {
    find(places, person, image.number)?.ok_or_else(|| FileError::Content {
        object: format!("the data of person {}", person.person),
        reason: "their file system is not mounted".into(),
    })
}

/// The same, `None` when nothing is mounted there.
pub(crate) fn find(
    places: &Places,
    person: &Person,
    number: u32,
) -> Result<Option<OwnedFd>, FileError> {
    let name = place_name(person, number);
    if !files::is_directory(&places.disks, &name) {
        return Ok(None);
    }
    let root = files::open_in(&places.disks, &name)?;
    let (own, above) = (files::status(&root, &name)?, files::status(&places.disks, "disks")?);
    Ok((own.st_dev != above.st_dev).then_some(root))
}

fn open_file(data: &OwnedFd, number: u32) -> Result<File, FileError> {
    let flags = OFlag::O_RDWR | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let file = openat(data, name(number).as_str(), flags, Mode::empty());
    file.map(File::from).map_err(FileError::os("open", name(number)))
}

/// Makes a new, empty file system and mounts it; its root.
pub(super) fn make(
    places: &Places,
    person: &Person,
    data: &OwnedFd,
    image: Image,
) -> Result<OwnedFd, Failure> {
    check_room(data, size(image.bytes))?;
    let name = name(image.number);
    let flags = OFlag::O_RDWR | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_CLOEXEC;
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let file = openat(data, name.as_str(), flags, mode)
        .map_err(FileError::os("create", name.as_str()))
        .map_err(failed)?;
    set_aside(&file, size(image.bytes))?;
    tools::make(&places.data_path(person).join(&name))?;
    // On the disk before any record can name it: what is in it, its length, its name.
    for on_disk in [fsync(&file), fsync(data)] {
        on_disk.map_err(FileError::os("sync", name.as_str())).map_err(failed)?;
    }
    attach(places, person, data, image)?;
    root(places, person, image).map_err(failed)
}

/// Gives a file all the blocks that it can come to need.
fn set_aside(file: impl AsFd, bytes: u64) -> Result<(), Failure> {
    let length = i64::try_from(bytes).map_err(|_| refused("set blocks aside")(Errno::EFBIG))?;
    match fallocate(file, FallocateFlags::empty(), 0, length) {
        Ok(()) => Ok(()),
        Err(Errno::ENOSPC | Errno::EDQUOT | Errno::EFBIG) => {
            let message = format!("the disk cannot promise {} MiB", bytes >> 20);
            Err(failure(FailureClass::Exhausted, "disk.room", message))
        }
        Err(Errno::EOPNOTSUPP) => {
            let message = "the file system of data_dir cannot set blocks aside for a file";
            Err(failure(FailureClass::Unavailable, "data.way", message))
        }
        Err(errno) => Err(refused("set blocks aside")(errno)),
    }
}

/// Mounts a person's file system, unless it is; mends it first when it was not left clean.
pub(super) fn attach(
    places: &Places,
    person: &Person,
    data: &OwnedFd,
    image: Image,
) -> Result<(), Failure> {
    let path = places.disk_path(&place_name(person, image.number));
    if find(places, person, image.number).map_err(failed)?.is_some() {
        return Ok(());
    }
    let file = open_file(data, image.number).map_err(|error| match error.errno() {
        Some(Errno::ENOENT) => {
            let message = format!(
                "the file of person {}'s data is missing: people/{}/data/{}",
                person.person,
                person.first_id,
                name(image.number)
            );
            failure(FailureClass::Broken, "data.missing", message)
        }
        _ => failed(error),
    })?;
    let found = superblock(&file)?;
    let wanted = size(image.bytes).max(found.bytes);
    let (device, fresh) = match device_of(&file)? {
        Some(device) => (device, false),
        None => {
            trim(&file, wanted)?;
            (new_device(&file)?, true)
        }
    };
    if fresh && !found.clean {
        tools::check(&device.path)?;
    }
    files::make_directory(&places.disks, &place_name(person, image.number), Place::ROOT)
        .map_err(failed)?;
    let flags = MsFlags::MS_NOSUID | MsFlags::MS_NODEV;
    // Its size as people see it is the whole of the file; tables that are not used stay unwritten.
    let options = Some("minixdf,noinit_itable,errors=remount-ro");
    mount(Some(&device.path), &path, Some("ext4"), flags, options)
        .map_err(refused("mount a person's file system"))?;
    keep_blocks(&device.name);
    Ok(())
}

/// Gives the file the length that it is to have, after a growing that was killed, and the blocks that may
/// have come out of it: by whoever copied it here, or by the kernel.
fn trim(file: &File, wanted: u64) -> Result<(), Failure> {
    let length = file.metadata().map_err(FileError::io("look at", "an image")).map_err(failed)?;
    if length.len() > wanted {
        file.set_len(wanted).map_err(FileError::io("shorten", "an image")).map_err(failed)?;
    }
    if let Err(failure) = set_aside(file, wanted) {
        // What is there can be read; what is full is full.
        say(&format!("a person's file system has not all of its blocks: {failure}"));
    }
    Ok(())
}

/// Has the kernel never give blocks of the file back: neither on a trim of the host's (fstrim(8)), nor when
/// ext4 writes zeros to parts of files that were set aside inside.
fn keep_blocks(device: &str) {
    let discard = format!("{LOOPS}/{device}/queue/discard_max_bytes");
    let zeroing = format!("/sys/fs/ext4/{device}/extent_max_zeroout_kb");
    for path in [discard, zeroing] {
        if let Err(error) = std::fs::write(&path, "0") {
            say(&format!("{path}: {error}"));
        }
    }
}

/// A loop device.
struct Device {
    name: String,
    path: PathBuf,
    file: File,
}

impl Device {
    fn open(name: &str) -> nix::Result<Self> {
        let path = PathBuf::from("/dev").join(name);
        let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
        let file = File::from(open(&path, flags, Mode::empty())?);
        Ok(Self { name: name.to_owned(), path, file })
    }
}

/// The device that has the file already: of a supervisor before this one, whose mounts are its own.
fn device_of(file: &File) -> Result<Option<Device>, Failure> {
    let about = file.metadata().map_err(FileError::io("look at", "an image")).map_err(failed)?;
    let listed = std::fs::read_dir(LOOPS).map_err(FileError::io("list", LOOPS)).map_err(failed)?;
    for entry in listed.flatten() {
        let name = entry.file_name().to_string_lossy().into_owned();
        if !name.starts_with("loop") || !entry.path().join("loop").exists() {
            continue;
        }
        // One that has just let go of its file is none.
        let Ok(device) = Device::open(&name) else { continue };
        if loop_device::backing(&device.file) == Ok((about.dev(), about.ino())) {
            return Ok(Some(device));
        }
    }
    Ok(None)
}

fn new_device(file: &File) -> Result<Device, Failure> {
    let flags = OFlag::O_RDWR | OFlag::O_CLOEXEC;
    let control = open("/dev/loop-control", flags, Mode::empty())
        .map_err(refused("open /dev/loop-control"))?;
    for _ in 0..DEVICE_TRIES_MAX {
        let number =
            loop_device::free_number(&control).map_err(refused("look for a loop device"))?;
        let device =
            Device::open(&format!("loop{number}")).map_err(refused("open a loop device"))?;
        match loop_device::configure(&device.file, file, BLOCK_BYTES) {
            Ok(()) => return Ok(device),
            Err(Errno::EBUSY) => {}
            Err(errno) => return Err(refused("attach a file to a loop device")(errno)),
        }
    }
    Err(failure(FailureClass::Unavailable, "data.device", "no loop device is to be had"))
}

/// Whether a file system can grow while it is mounted: the kernel asks for CAP_SYS_RESOURCE, which a host
/// that is a container itself may not have.
pub(crate) fn grows_mounted() -> bool {
    let text = std::fs::read_to_string("/proc/self/status").unwrap_or_default();
    let mask = text.lines().find_map(|line| line.strip_prefix("CapEff:"));
    let mask = mask.and_then(|mask| u64::from_str_radix(mask.trim(), 16).ok());
    mask.is_some_and(|mask| mask & (1 << CAP_SYS_RESOURCE) != 0)
}

/// Makes file, device and file system larger, in that order: whatever a kill leaves of it is what was
/// before, in a file that [`attach`] makes as long as its file system says.
pub(super) fn grow(
    places: &Places,
    person: &Person,
    data: &OwnedFd,
    image: Image,
    bytes: u64,
) -> Result<(), Failure> {
    let mounted = root(places, person, image).map_err(failed)?;
    let file = open_file(data, image.number).map_err(failed)?;
    let length = file.metadata().map_err(FileError::io("look at", "an image")).map_err(failed)?;
    let wanted = size(bytes);
    check_room(data, wanted.saturating_sub(length.len()))?;
    let device = device_of(&file)?.ok_or_else(|| {
        failure(FailureClass::Broken, "data.device", "the person's file system has no device")
    })?;
    let grown = set_aside(&file, wanted).and_then(|()| {
        loop_device::take_size(&device.file).map_err(refused("grow a loop device"))?;
        loop_device::grow_ext4(&mounted, wanted / u64::from(BLOCK_BYTES))
            .map_err(refused("grow a person's file system"))
    });
    if let Err(why) = grown {
        let kept = superblock(&file)?.bytes.max(length.len());
        file.set_len(kept).map_err(FileError::io("shorten", "an image")).map_err(failed)?;
        loop_device::take_size(&device.file).map_err(refused("shorten a loop device"))?;
        return Err(why);
    }
    // New tables are zeroed, which takes their blocks out of the file.
    set_aside(&file, wanted)
}

/// Unmounts a file system that is not a person's any more, and removes its file.
pub(super) fn remove(
    places: &Places,
    person: &Person,
    data: &OwnedFd,
    number: u32,
) -> Result<(), Failure> {
    let place = place_name(person, number);
    if find(places, person, number).map_err(failed)?.is_some() {
        let path = places.disk_path(&place);
        match umount2(&path, MntFlags::UMOUNT_NOFOLLOW) {
            Ok(()) => {}
            // Somebody of the host's has a file of it open: it goes with that.
            Err(Errno::EBUSY) => umount2(&path, MntFlags::UMOUNT_NOFOLLOW | MntFlags::MNT_DETACH)
                .map_err(refused("unmount a person's file system"))?,
            Err(errno) => return Err(refused("unmount a person's file system")(errno)),
        }
    }
    match unlinkat(&places.disks, place.as_str(), UnlinkatFlags::RemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(failed(FileError::os("remove", place)(errno))),
    }
    files::remove_file(data, &name(number)).map_err(failed)
}

fn superblock(file: &File) -> Result<Superblock, Failure> {
    let mut bytes = [0; SUPERBLOCK_BYTES];
    file.read_exact_at(&mut bytes, SUPERBLOCK)
        .map_err(FileError::io("read the superblock of", "an image"))
        .map_err(failed)?;
    read_superblock(&bytes).ok_or_else(|| {
        failure(FailureClass::Broken, "data.damaged", "the file holds no ext4 file system")
    })
}

fn read_superblock(bytes: &[u8; SUPERBLOCK_BYTES]) -> Option<Superblock> {
    let short = |at: usize| Some(u16::from_le_bytes(bytes.get(at..at + 2)?.try_into().ok()?));
    let long = |at: usize| Some(u32::from_le_bytes(bytes.get(at..at + 4)?.try_into().ok()?));
    if short(0x38)? != MAGIC {
        return None;
    }
    let blocks = u64::from(long(0x4)?) | u64::from(long(0x150)?) << 32;
    let block_bytes = 1024_u64.checked_shl(long(0x18)?)?;
    let state = short(0x3a)?;
    let clean = state & STATE_VALID != 0
        && state & STATE_ERRORS == 0
        && long(0x60)? & INCOMPAT_RECOVER == 0;
    Some(Superblock { bytes: blocks.checked_mul(block_bytes)?, clean })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_superblock_says_how_large_and_how_clean_a_file_system_is() {
        let mut bytes = [0; SUPERBLOCK_BYTES];
        assert_eq!(read_superblock(&bytes), None, "zeros are none");
        bytes[0x38..0x3a].copy_from_slice(&MAGIC.to_le_bytes());
        bytes[0x4..0x8].copy_from_slice(&16_384_u32.to_le_bytes());
        bytes[0x18] = 2;
        bytes[0x3a] = 1;
        let found = |clean| Some(Superblock { bytes: 64 << 20, clean });
        assert_eq!(read_superblock(&bytes), found(true));
        bytes[0x60] = 4;
        assert_eq!(read_superblock(&bytes), found(false), "its journal has to be read");
        (bytes[0x60], bytes[0x3a]) = (0, 3);
        assert_eq!(read_superblock(&bytes), found(false), "it has found errors");
        bytes[0x18] = 200;
        assert_eq!(read_superblock(&bytes), None, "no block is that large");
    }
}
