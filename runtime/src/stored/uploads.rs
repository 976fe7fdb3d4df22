//! What is being uploaded: files of a person's beside their containers and volumes, by ids that the server
//! gives, until they are put in their place. They count to what the person may keep.

use std::os::fd::OwnedFd;
use std::time::{Duration, SystemTime};

use nix::errno::Errno;
use nix::fcntl::{OFlag, openat};
use nix::sys::stat::{Mode, SFlag, fchmod, fstat};
use nix::unistd::{Gid, Uid, fchown};

use berth_runtime::contents::UPLOADS_PER_PERSON_MAX;
use berth_runtime::id::UploadId;
use berth_runtime::record::{Failure, FailureClass};

use super::failed;
use crate::disk;
use crate::files::{self, FileError, Place};
use crate::people::Person;
use crate::places::Places;

/// How long an upload to which nothing is added stays.
const AGE_MAX: Duration = Duration::from_secs(24 * 60 * 60);

/// An upload that is to be put somewhere.
pub(super) struct Upload {
    /// The directory that it is in, which is the person's root's.
    pub(super) directory: OwnedFd,
    /// The file, to be read.
    pub(super) file: OwnedFd,
    /// Its name there.
    pub(super) name: UploadId,
}

fn directory(places: &Places, person: &Person) -> Result<OwnedFd, Failure> {
    let root = places.data_root(person).map_err(failed)?;
    // The child that puts one in its place is the person's root, and takes it away from here.
    let place = Place { uid: person.first_id, gid: person.first_id, mode: 0o700 };
    files::make_directory(root, disk::UPLOADS, place).map_err(failed)
}

/// Opens an upload to be appended to, and makes it when it is not there; with its size so far.
pub(crate) fn open(
    places: &Places,
    person: &Person,
    upload: &UploadId,
) -> Result<(u64, OwnedFd), Failure> {
    let directory = directory(places, person)?;
    let flags = OFlag::O_WRONLY | OFlag::O_APPEND | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW;
    let error = |errno| failed(FileError::os("open upload", upload.as_str())(errno));
    let file = match openat(&directory, upload.as_str(), flags, Mode::empty()) {
        Ok(file) => file,
        Err(Errno::ENOENT) => {
            sweep(&directory)?;
            let flags = flags | OFlag::O_CREAT | OFlag::O_EXCL;
            let mode = Mode::from_bits_truncate(0o600);
            let file = openat(&directory, upload.as_str(), flags, mode).map_err(error)?;
            let (uid, gid) = (Uid::from_raw(person.first_id), Gid::from_raw(person.first_id));
            fchown(&file, Some(uid), Some(gid)).map_err(error)?;
            fchmod(&file, mode).map_err(error)?;
            file
        }
        Err(errno) => return Err(error(errno)),
    };
    let stat = fstat(&file).map_err(error)?;
    if stat.st_mode & SFlag::S_IFMT.bits() != SFlag::S_IFREG.bits() {
        return Err(error(Errno::EINVAL));
    }
    Ok((u64::try_from(stat.st_size).unwrap_or(0), file))
}

/// Removes what nobody goes on with, and refuses one more than there may be.
fn sweep(directory: &OwnedFd) -> Result<(), Failure> {
    let mut left = 0;
    for name in files::names(directory).map_err(failed)? {
        let Ok(stat) = nix::sys::stat::fstatat(
            directory,
            name.as_str(),
            nix::fcntl::AtFlags::AT_SYMLINK_NOFOLLOW,
        ) else {
            continue;
        };
        let changed = Duration::from_secs(u64::try_from(stat.st_mtime).unwrap_or(0));
        let age = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH + changed);
        match age {
            Ok(age) if age > AGE_MAX => {
                files::remove_file(directory, &name).map_err(failed)?;
            }
            _ => left += 1,
        }
    }
    if left < UPLOADS_PER_PERSON_MAX {
        return Ok(());
    }
    let message = format!("{left} uploads are not put anywhere yet, the most; end some of them");
    Err(Failure::new(FailureClass::Exhausted, "files.too-many-uploads", message))
}

/// Opens an upload that is to be put somewhere.
pub(super) fn take(places: &Places, person: &Person, upload: &UploadId) -> Result<Upload, Failure> {
    let directory = directory(places, person)?;
    let flags = OFlag::O_RDONLY | OFlag::O_CLOEXEC | OFlag::O_NOFOLLOW | OFlag::O_NONBLOCK;
    match openat(&directory, upload.as_str(), flags, Mode::empty()) {
        Ok(file) => Ok(Upload { directory, file, name: upload.clone() }),
        Err(Errno::ENOENT) => {
            let message =
                "there is no such upload: it was put in its place, given up, or is too old";
            Err(Failure::new(FailureClass::Conflict, "files.upload-unknown", message))
        }
        Err(errno) => Err(failed(FileError::os("open upload", upload.as_str())(errno))),
    }
}

/// Removes an upload.
pub(crate) fn drop_one(places: &Places, person: &Person, upload: &UploadId) -> Result<(), Failure> {
    files::remove_file(directory(places, person)?, upload.as_str()).map_err(failed)
}
