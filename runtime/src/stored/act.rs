//! The acts, in the confined child.

use std::ffi::CStr;
use std::fs::File;
use std::io::{self, Read as _, Write as _};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{AtFlags, OFlag, openat, renameat};
use nix::sys::stat::{FileStat, Mode, SFlag, fchmod, fstat, fstatat, mkdirat};
use nix::unistd::{Gid, Uid, UnlinkatFlags, fchown, fsync, pipe2, unlinkat};

use berth_runtime::contents::FileFacts;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::Answer;

use super::uploads::Upload;
use super::walk::{self, Path, facts, kind};
use super::{Act, Order, refused, tar};

/// Bytes of a pipe that an archive goes through.
const PIPE_BYTES: i32 = 1 << 20;
/// Bytes copied at once.
const CHUNK_BYTES: usize = 1 << 20;
/// The mode of a new file, and of a new folder.
const FILE_MODE: u32 = 0o644;
const FOLDER_MODE: u32 = 0o755;

/// What is to be said, and what is to be done when it is.
pub(super) struct Done {
    pub(super) answer: Answer,
    pub(super) fds: Vec<OwnedFd>,
    pub(super) archive: Option<Archive>,
}

/// An archive that is to be written.
pub(super) struct Archive {
    folder: OwnedFd,
    name: String,
    out: OwnedFd,
}

impl Archive {
    /// Writes it; whoever reads sees by its end whether it is whole.
    pub(super) fn write(self) -> io::Result<()> {
        tar::write(self.folder, &self.name, File::from(self.out))
    }
}

impl From<Answer> for Done {
    fn from(answer: Answer) -> Self {
        Self { answer, fds: Vec::new(), archive: None }
    }
}

/// Does it.
pub(super) fn perform(
    root: BorrowedFd<'_>,
    order: &Order,
    upload: Option<&Upload>,
) -> Result<Done, Failure> {
    let path = Path::read(&order.path)?;
    match &order.act {
        Act::Look => look(root, &path),
        Act::List { after } => {
            let folder = path.folder(root)?;
            let listed = walk::list(&folder, after.as_deref());
            let (files, more, is_whole) = listed.map_err(|errno| path.failure(errno))?;
            Ok(Answer::Files { files, more, is_whole }.into())
        }
        Act::Open => open(root, &path),
        Act::Archive => archive(root, &path),
        Act::MakeFolder => make_folder(root, &path),
        Act::Remove => {
            let (folder, name) = path.parent(root)?;
            let removed = walk::remove(&folder, &name);
            let (entries, is_whole) = removed.map_err(|errno| path.failure(errno))?;
            Ok(Answer::FilesRemoved { entries, is_whole }.into())
        }
        Act::Put { mode, .. } => {
            let upload = upload.ok_or_else(|| path.failure(Errno::EBADF))?;
            put(root, &path, upload, *mode)
        }
    }
}

fn look(root: BorrowedFd<'_>, path: &Path) -> Result<Done, Failure> {
    if path.name() == "." {
        let folder = path.folder(root)?;
        let stat = fstat(&folder).map_err(|errno| path.failure(errno))?;
        return Ok(Answer::File(facts(c"/", &stat)).into());
    }
    let (folder, name) = path.parent(root)?;
    let found = walk::look(folder.as_fd(), &name).map_err(|errno| path.failure(errno))?;
    Ok(Answer::File(found).into())
}

fn open(root: BorrowedFd<'_>, path: &Path) -> Result<Done, Failure> {
    let no_file = || {
        let message = format!("{:?}: it is no ordinary file", path.name());
        Failure::new(FailureClass::Conflict, "files.not-file", message)
    };
    // Looked at before it is opened: opening is an act upon a pipe or a device.
    let place = path.open(root, OFlag::O_PATH)?;
    let is_file = |stat: &FileStat| kind(stat) == SFlag::S_IFREG;
    let stat = fstat(&place).map_err(|errno| path.failure(errno))?;
    path.admit(root, &place)?;
    if !is_file(&stat) {
        return Err(no_file());
    }
    let file = path.open(root, OFlag::O_RDONLY)?;
    path.admit(root, &file)?;
    let stat = fstat(&file).map_err(|errno| path.failure(errno))?;
    if !is_file(&stat) {
        return Err(no_file());
    }
    let name = std::ffi::CString::new(path.name()).map_err(|_| path.failure(Errno::EINVAL))?;
    let answer = Answer::File(facts(&name, &stat));
    Ok(Done { answer, fds: vec![file], archive: None })
}

fn archive(root: BorrowedFd<'_>, path: &Path) -> Result<Done, Failure> {
    let folder = path.folder(root)?;
    let (reader, out) = pipe2(OFlag::O_CLOEXEC).map_err(refused("make a pipe"))?;
    // The default does as well where the host's limit is low.
    let _size = nix::fcntl::fcntl(&out, nix::fcntl::FcntlArg::F_SETPIPE_SZ(PIPE_BYTES));
    let archive = Archive { folder, name: path.name().to_owned(), out };
    Ok(Done { answer: Answer::Done {}, fds: vec![reader], archive: Some(archive) })
}

fn make_folder(root: BorrowedFd<'_>, path: &Path) -> Result<Done, Failure> {
    let (parent, name) = path.parent(root)?;
    let failed = |errno| path.failure(errno);
    let around = fstat(&parent).map_err(failed)?;
    mkdirat(&parent, name.as_c_str(), Mode::S_IRWXU).map_err(failed)?;
    let flags = OFlag::O_RDONLY | OFlag::O_DIRECTORY | OFlag::O_NOFOLLOW | OFlag::O_CLOEXEC;
    let made = openat(&parent, name.as_c_str(), flags, Mode::empty()).map_err(failed)?;
    give(&made, &around).map_err(failed)?;
    let inherited = around.st_mode & Mode::S_ISGID.bits();
    fchmod(&made, Mode::from_bits_truncate(FOLDER_MODE | inherited)).map_err(failed)?;
    fsync(&parent).map_err(failed)?;
    Ok(Answer::Done {}.into())
}

/// A file belongs to whom what is `like` it does.
fn give(file: &OwnedFd, like: &FileStat) -> nix::Result<()> {
    let (user, group) = (Uid::from_raw(like.st_uid), Gid::from_raw(like.st_gid));
    match fchown(file, Some(user), Some(group)) {
        // An owner that has no id in the container is nobody there: root stays.
        Err(Errno::EINVAL) => Ok(()),
        other => other,
    }
}

/// Puts an upload in its place: what is there under the name is the old file, or the whole new one.
fn put(
    root: BorrowedFd<'_>,
    path: &Path,
    upload: &Upload,
    mode: Option<u32>,
) -> Result<Done, Failure> {
    let failed = |errno| path.failure(errno);
    let (folder, name) = path.parent(root)?;
    let before = match fstatat(&folder, name.as_c_str(), AtFlags::AT_SYMLINK_NOFOLLOW) {
        Ok(stat) if kind(&stat) == SFlag::S_IFDIR => return Err(failed(Errno::EISDIR)),
        Ok(stat) => Some(stat).filter(|stat| kind(stat) == SFlag::S_IFREG),
        Err(Errno::ENOENT) => None,
        Err(errno) => return Err(failed(errno)),
    };
    let around = fstat(&folder).map_err(failed)?;
    let like = before.as_ref().unwrap_or(&around);
    let kept = before.as_ref().map_or(FILE_MODE, |stat| stat.st_mode & 0o7777);
    let dress = |file: &OwnedFd| {
        give(file, like)?;
        fchmod(file, Mode::from_bits_truncate(mode.unwrap_or(kept) & 0o7777))?;
        fsync(file)
    };
    // On the same mount it is moved there; else a copy is, and the upload goes last.
    dress(&upload.file).map_err(failed)?;
    match renameat(&upload.directory, upload.name.as_str(), &folder, name.as_c_str()) {
        Ok(()) => {}
        Err(Errno::EXDEV) => {
            let temporary = format!(".{}.upload", upload.name.short());
            let copied = copy(&upload.file, &folder, &temporary, dress)
                .and_then(|()| renameat(&folder, temporary.as_str(), &folder, name.as_c_str()));
            if let Err(errno) = copied {
                match unlinkat(&folder, temporary.as_str(), UnlinkatFlags::NoRemoveDir) {
                    Ok(()) | Err(_) => {}
                }
                return Err(failed(errno));
            }
            let gone =
                unlinkat(&upload.directory, upload.name.as_str(), UnlinkatFlags::NoRemoveDir);
            gone.map_err(failed)?;
        }
        Err(errno) => return Err(failed(errno)),
    }
    fsync(&folder).map_err(failed)?;
    Ok(Answer::File(put_facts(&folder, &name).map_err(failed)?).into())
}

fn put_facts(folder: &OwnedFd, name: &CStr) -> nix::Result<FileFacts> {
    walk::look(folder.as_fd(), name)
}

fn copy(
    from: &OwnedFd,
    folder: &OwnedFd,
    name: &str,
    dress: impl Fn(&OwnedFd) -> nix::Result<()>,
) -> nix::Result<()> {
    let flags = OFlag::O_WRONLY | OFlag::O_CREAT | OFlag::O_EXCL | OFlag::O_NOFOLLOW;
    // What an earlier try, cut short, has left.
    match unlinkat(folder, name, UnlinkatFlags::NoRemoveDir) {
        Ok(()) | Err(Errno::ENOENT) => {}
        Err(errno) => return Err(errno),
    }
    let mode = Mode::S_IRUSR | Mode::S_IWUSR;
    let made = openat(folder, name, flags | OFlag::O_CLOEXEC, mode)?;
    let errno = |error: io::Error| error.raw_os_error().map_or(Errno::EIO, Errno::from_raw);
    let (mut source, mut to) = (
        File::from(from.try_clone().map_err(errno)?),
        File::from(made.try_clone().map_err(errno)?),
    );
    let mut chunk = vec![0; CHUNK_BYTES];
    loop {
        let count = match source.read(&mut chunk) {
            Ok(0) => break,
            Ok(count) => count,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(errno(error)),
        };
        to.write_all(&chunk[..count]).map_err(errno)?;
    }
    dress(&made)
}
