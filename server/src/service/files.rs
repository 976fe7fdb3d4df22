//! Files in volumes and containers: looked at, downloaded, uploaded, removed by their owner and by whoever they are
//! shared with.
//!
//! Nothing of them is read or written here but through a descriptor that the supervisor has opened; what is
//! uploaded goes to a file of the owner's own, counts to what they may keep, and gets its name when all of it
//! is on disk. Each act that brings content out or in is in the audit, with its path. Deliberately absent:
//! policy on what a container's root may do, which is the kernel's.

use std::collections::HashSet;
use std::fs::File;
use std::io::{Seek as _, SeekFrom};
use std::sync::{Mutex, PoisonError};

use berth_runtime::contents::{
    FileFacts, FileKind, FilesAct, FilesPlace, PATH_BYTES_MAX, UPLOAD_BYTES_MAX,
};
use berth_runtime::id::{ContainerId, PrincipalId, UploadId};
use berth_runtime::wire::Answer;
use bytes::Bytes;
use futures_util::{Stream, StreamExt};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::unix::pipe::Receiver;
use utoipa::ToSchema;

use super::containers::actions::start_refused;
use super::containers::ensure_known;
use super::volumes::check_still;
use super::{Listed, Page, maintenance, sharing};
use crate::app::App;
use crate::auth::keys::random_id;
use crate::auth::{Caller, Right};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::containers::{self, Container};
use crate::inventory::volumes;
use crate::runtime_client::{Files as Wanted, RuntimeError};

/// Bytes read at once.
const PIECE_BYTES: usize = 256 << 10;
/// What a whole archive ends with, in bytes that are 0.
const END_BYTES: usize = 1024;
/// Characters of a path that the audit keeps.
const PATH_CHARS_MAX: usize = 300;
/// Calls that one removal takes at most, of ten seconds each.
const REMOVE_CALLS_MAX: u32 = 5;
/// The last moment of the year 9999.
const MODIFIED_MS_MAX: i64 = 253_402_300_799_999;
/// The permission bits that can be given.
const MODE_MAX: u32 = 0o7777;
/// The supervisor's code for a path at which nothing is.
const NONE: &str = "files.none";

/// A file, a folder, a link.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = File)]
pub struct FileView {
    /// Its name.
    pub name: String,
    /// Whether that is its name. One that is not UTF-8 is shown as nearly as can be, and is had only with the
    /// folder around it.
    pub is_exact: bool,
    /// What it is.
    pub kind: Kind,
    /// Its size.
    pub bytes: u64,
    /// Permission bits as chmod(1) takes them, such as `0644`.
    pub mode: String,
    /// Its owner, as the container numbers them.
    pub uid: u32,
    /// Its group.
    pub gid: u32,
    /// When its content was last changed.
    pub modified_at: Time,
    /// Where a link leads; null for everything else.
    pub target: Option<String>,
}

/// What a file is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = FileKind)]
pub enum Kind {
    /// An ordinary file.
    File,
    /// A directory.
    Folder,
    /// A symbolic link.
    Link,
    /// A device, a pipe, a socket.
    Special,
}

impl From<FileFacts> for FileView {
    fn from(facts: FileFacts) -> Self {
        Self {
            name: facts.name,
            is_exact: facts.is_exact,
            kind: match facts.kind {
                FileKind::File => Kind::File,
                FileKind::Folder => Kind::Folder,
                FileKind::Link => Kind::Link,
                FileKind::Special => Kind::Special,
            },
            bytes: facts.bytes,
            mode: format!("{:04o}", facts.mode),
            uid: facts.uid,
            gid: facts.gid,
            // Whatever a program has set, a year that can be written.
            modified_at: Time(facts.modified_ms.clamp(0, MODIFIED_MS_MAX)),
            target: facts.target,
        }
    }
}

/// What has files.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Holder {
    /// A volume.
    Volume,
    /// A container.
    Container,
}

/// A path in a volume or container, as a caller names it.
#[derive(Debug, Clone)]
pub struct At {
    /// What kind of thing has it.
    pub holder: Holder,
    /// Which: an id, or the name of one's own.
    pub key: String,
    /// The path; `/` is the top.
    pub path: String,
}

/// What is known of uploads while the server runs.
#[derive(Debug, Default)]
pub struct Files {
    /// Those to which something is being added.
    busy: Mutex<HashSet<(PrincipalId, UploadId)>>,
}

/// Held while something is added to an upload.
struct Adding<'a> {
    files: &'a Files,
    key: (PrincipalId, UploadId),
}

impl Files {
    fn begin(&self, owner: PrincipalId, upload: &UploadId) -> Result<Adding<'_>> {
        let key = (owner, upload.clone());
        let mut busy = self.busy.lock().unwrap_or_else(PoisonError::into_inner);
        if !busy.insert(key.clone()) {
            let text = "something is being added to this upload just now; wait for its end";
            return Err(Error::conflict("files.upload-busy", text));
        }
        Ok(Adding { files: self, key })
    }
}

impl Drop for Adding<'_> {
    fn drop(&mut self) {
        self.files.busy.lock().unwrap_or_else(PoisonError::into_inner).remove(&self.key);
    }
}

/// A file that is being downloaded.
pub struct Download {
    /// What it is.
    pub file: FileView,
    /// By which right of theirs the caller reads it, where it is not the owner's alone.
    pub right: Option<sharing::At>,
    content: File,
}

impl Download {
    /// `length` bytes from `from` on. A file that has become shorter by then is an error.
    ///
    /// # Errors
    /// In the stream: as reading's.
    pub fn read(
        self,
        from: u64,
        length: u64,
    ) -> impl Stream<Item = Result<Bytes>> + Send + 'static {
        let broken = |source| Error::broken("read a file", source);
        async_stream::try_stream! {
            let mut content = self.content;
            content.seek(SeekFrom::Start(from)).map_err(broken)?;
            let mut content = tokio::fs::File::from_std(content).take(length);
            let mut left = length;
            while left > 0 {
                let mut piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
                let count = content.read_buf(&mut piece).await.map_err(broken)?;
                if count == 0 {
                    let text = "the file became shorter meanwhile";
                    Err::<(), Error>(Error::conflict("files.shorter", text))?;
                }
                left = left.saturating_sub(count as u64);
                yield piece.freeze();
            }
        }
    }
}

/// Something to be uploaded.
pub struct Upload<S> {
    /// Its bytes, or the next part of them.
    pub bytes: S,
    /// Permission bits, in octal digits.
    pub mode: Option<String>,
    /// Which upload this is a part of; none for all of it at once.
    pub part: Option<Part>,
}

/// Where a part of an upload belongs.
#[derive(Debug, Clone)]
pub struct Part {
    /// The upload: 32 hexadecimal digits of the caller's choice.
    pub upload: String,
    /// Where the part begins.
    pub offset: u64,
    /// How large the whole is.
    pub total: u64,
}

/// What came of an upload.
pub enum Uploaded {
    /// All of it is there, in its place.
    Put(FileView),
    /// So many bytes are there; more are to come.
    Partly(u64),
}

/// A volume or container that the caller may look into.
struct Ground {
    owner: PrincipalId,
    place: FilesPlace,
    /// Which, for the audit.
    id: String,
    kind: &'static str,
    /// By which right of theirs the caller reads it, where it is not the owner's alone.
    right: Option<sharing::At>,
}

/// What is done with files.
#[derive(Debug, Clone, Copy)]
enum Act {
    Read,
    Change,
}

impl Act {
    /// What it takes of a container: whoever may run programs in it could change its files anyway.
    fn of_container(self) -> &'static [Right] {
        match self {
            Self::Read => &[Right::Files],
            Self::Change => &[Right::Files, Right::Terminal],
        }
    }

    /// What it takes of a volume.
    fn of_volume(self) -> &'static [Right] {
        match self {
            Self::Read => &[Right::Files],
            Self::Change => &[Right::Files, Right::Write],
        }
    }
}

/// Finds it, and sees to it that the supervisor knows it. Who sees a thing, and neither owns it nor has been given
/// what is needed, reads nothing of what is in it, names included.
async fn ground(app: &App, caller: &Caller, at: &At, needs: Act) -> Result<Ground> {
    if at.path.len() > PATH_BYTES_MAX {
        let text = format!("a path has at most {PATH_BYTES_MAX} bytes");
        return Err(Error::field("/path", text));
    }
    let db = app.inventory.read();
    match at.holder {
        Holder::Volume => {
            let row = volumes::find(db, caller.sees(), caller.principal, &at.key).await?;
            needs.of_volume().iter().try_for_each(|right| row.rights(caller).need(*right))?;
            check_still(&row)?;
            ensure_known(app, row.owner, row.group).await?;
            app.runtime.volume_make(row.owner, &row.id).await?;
            let id = row.id.to_string();
            let right = Some(sharing::At::volume(&row.id, Right::Files));
            let place = FilesPlace::Volume(row.id);
            Ok(Ground { owner: row.owner, place, id, kind: "volume", right })
        }
        Holder::Container => {
            let row = containers::find(db, caller.sees(), caller.principal, &at.key).await?;
            needs.of_container().iter().try_for_each(|right| row.rights(caller).need(*right))?;
            of_container(app, &row).await
        }
    }
}

async fn of_container(app: &App, row: &Container) -> Result<Ground> {
    let layers = containers::layers(app.inventory.read(), &row.id).await?;
    if layers.is_empty() {
        let text = "its image is not here yet, so there are no files";
        return Err(Error::conflict("container.no-image", text));
    }
    ensure_known(app, row.owner, row.group).await?;
    let place = FilesPlace::Container { container: row.id.clone(), layers };
    let right = Some(sharing::At::new(row, Right::Files));
    Ok(Ground { owner: row.owner, place, id: row.id.to_string(), kind: "container", right })
}

impl Ground {
    fn wanted(&self, path: &str, act: FilesAct) -> Wanted {
        Wanted { place: self.place.clone(), path: path.to_owned(), act }
    }

    /// A container that does not run has nobody else at it meanwhile, and is still there.
    async fn hold(&self, app: &App) -> Result<Option<tokio::sync::OwnedMutexGuard<()>>> {
        let FilesPlace::Container { container, .. } = &self.place else { return Ok(None) };
        if app.containers.observed(container).is_some_and(|record| record.live.is_some()) {
            return Ok(None);
        }
        let lock = app.containers.lock(container).await;
        let id: &ContainerId = container;
        match containers::find_any(app.inventory.read(), id).await? {
            Some(_) => Ok(Some(lock)),
            None => Err(Error::NotFound("container")),
        }
    }

    /// A volume that was removed meanwhile is not to come back by what was done here.
    async fn settle(&self, app: &App) -> Result<()> {
        let FilesPlace::Volume(volume) = &self.place else { return Ok(()) };
        if volumes::is_there(app.inventory.read(), volume).await? {
            return Ok(());
        }
        match app.runtime.volume_remove(self.owner, volume).await {
            Ok(()) | Err(_) => Err(Error::NotFound("volume")),
        }
    }

    async fn ask(&self, app: &App, path: &str, act: FilesAct) -> Result<Answer> {
        let _hold = self.hold(app).await?;
        let answer = app.runtime.files(self.owner, self.wanted(path, act)).await;
        self.settle(app).await?;
        answer.map_err(refused)
    }

    /// Writes down that somebody does something.
    async fn audit(
        &self,
        app: &App,
        caller: &Caller,
        action: &'static str,
        path: &str,
    ) -> Result<()> {
        let mut write = app.inventory.change(&caller.actor, action).await?;
        write.subject("file", format!("{} {}:{}", self.kind, self.id, plain(path)), self.owner);
        write.commit().await
    }
}

/// A path as the audit keeps it: of a bounded length, and without anything that moves a cursor.
fn plain(path: &str) -> String {
    let harmless = |letter: char| match letter.is_control() {
        true => '\u{fffd}',
        false => letter,
    };
    let mut text: String = path.chars().take(PATH_CHARS_MAX).map(harmless).collect();
    if path.chars().nth(PATH_CHARS_MAX).is_some() {
        text.push('…');
    }
    text
}

/// A refusal, for the caller: the volume or container is there, whatever else was not found.
fn refused(error: RuntimeError) -> Error {
    match error {
        RuntimeError::Refused(failure) if failure.code == NONE => Error::NotFound("file or folder"),
        RuntimeError::Refused(failure) => start_refused(failure),
        error => error.into(),
    }
}

fn unexpected(answer: &Answer) -> Error {
    Error::defect(format!("the supervisor answered {answer:.200?} to an act on files"))
}

/// What a folder holds, by name. Of one with very many names not all are looked at.
///
/// # Errors
/// The path is no folder, or nothing that the container's root may look into.
pub async fn list(app: &App, caller: &Caller, at: &At, page: &Page) -> Result<Listed<FileView>> {
    let ground = ground(app, caller, at, Act::Read).await?;
    let most = page.limit as usize;
    let (mut items, mut after): (Vec<FileView>, _) = (Vec::new(), page.after.clone());
    loop {
        let act = FilesAct::List { after: after.clone() };
        let Answer::Files { files, more, .. } = ground.ask(app, &at.path, act).await? else {
            return Err(Error::defect("list a folder"));
        };
        after = files.last().map(|file| file.name.clone());
        items.extend(files.into_iter().map(FileView::from));
        if items.len() > most || !more || after.is_none() {
            break;
        }
    }
    let more = items.len() > most;
    items.truncate(most);
    let next = items.last().filter(|_| more).map(|file| file.name.clone());
    Ok(Listed { items, next })
}

/// What is at a path; a link is not followed.
///
/// # Errors
/// Nothing is there.
pub async fn look(app: &App, caller: &Caller, at: &At) -> Result<FileView> {
    let ground = ground(app, caller, at, Act::Read).await?;
    match ground.ask(app, &at.path, FilesAct::Look).await? {
        Answer::File(facts) => Ok(facts.into()),
        other => Err(unexpected(&other)),
    }
}

/// Opens a file to be downloaded.
///
/// # Errors
/// It is no ordinary file.
pub async fn open(app: &App, caller: &Caller, at: &At) -> Result<Download> {
    let ground = ground(app, caller, at, Act::Read).await?;
    let opened = {
        let _hold = ground.hold(app).await?;
        let wanted = ground.wanted(&at.path, FilesAct::Open);
        app.runtime.files_open(ground.owner, wanted).await.map_err(refused)?
    };
    match opened {
        (Answer::File(facts), content) => {
            ground.audit(app, caller, "file.read", &at.path).await?;
            Ok(Download { file: facts.into(), right: ground.right, content: content.into() })
        }
        (other, _) => Err(unexpected(&other)),
    }
}

/// What of an archive there is: its name, by which right it is read, and its bytes.
type Archived<S> = (String, Option<sharing::At>, S);

/// A folder as a tar archive, and what a browser is to call it. One that could not be written to its end is an
/// error in the stream.
///
/// # Errors
/// It is no folder.
pub async fn archive(
    app: &App,
    caller: &Caller,
    at: &At,
) -> Result<Archived<impl Stream<Item = Result<Bytes>> + Send + 'static + use<>>> {
    let ground = ground(app, caller, at, Act::Read).await?;
    let (_, pipe) = {
        let _hold = ground.hold(app).await?;
        let wanted = ground.wanted(&at.path, FilesAct::Archive);
        app.runtime.files_open(ground.owner, wanted).await.map_err(refused)?
    };
    ground.audit(app, caller, "file.read", &at.path).await?;
    let name = at.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
    let name = format!("{}.tar", if name.is_empty() { &at.key } else { name });
    let broken = |source: std::io::Error| Error::broken("read an archive", source);
    let mut pipe = Receiver::from_owned_fd(pipe).map_err(broken)?;
    let read = async_stream::try_stream! {
        let mut zeros = 0;
        loop {
            let mut piece = bytes::BytesMut::with_capacity(PIECE_BYTES);
            let count = pipe.read_buf(&mut piece).await.map_err(broken)?;
            if count == 0 {
                break;
            }
            zeros = match piece.iter().rev().position(|byte| *byte != 0) {
                Some(trailing) => trailing,
                None => END_BYTES.min(zeros + count),
            };
            yield piece.freeze();
        }
        if zeros < END_BYTES {
            let text = "the folder is too large or too deep";
            Err::<(), Error>(Error::conflict("files.archive-cut", text))?;
        }
    };
    Ok((name, ground.right, read))
}

/// Whether the caller may change files there at all, to be asked before anything is read of what it sends.
///
/// # Errors
/// It may not, or sees no such volume or container.
pub async fn may_change(app: &App, caller: &Caller, at: &At) -> Result<()> {
    ground(app, caller, at, Act::Change).await.map(drop)
}

/// Makes a folder.
///
/// # Errors
/// Something of that name is there, or there is no folder for it.
pub async fn make_folder(app: &App, caller: &Caller, at: &At) -> Result<FileView> {
    maintenance::admit(app, caller)?;
    let ground = ground(app, caller, at, Act::Change).await?;
    ground.audit(app, caller, "file.make-folder", &at.path).await?;
    ground.ask(app, &at.path, FilesAct::MakeFolder).await?;
    match ground.ask(app, &at.path, FilesAct::Look).await? {
        Answer::File(facts) => Ok(facts.into()),
        other => Err(unexpected(&other)),
    }
}

/// Removes a file, or a folder with all that is in it.
///
/// # Errors
/// It is not there, or could not be removed.
pub async fn remove(app: &App, caller: &Caller, at: &At) -> Result<()> {
    let ground = ground(app, caller, at, Act::Change).await?;
    ground.audit(app, caller, "file.remove", &at.path).await?;
    for call in 0..REMOVE_CALLS_MAX {
        match ground.ask(app, &at.path, FilesAct::Remove).await {
            Ok(Answer::FilesRemoved { is_whole: true, .. }) => return Ok(()),
            Ok(Answer::FilesRemoved { .. }) => {}
            Ok(other) => return Err(unexpected(&other)),
            // Somebody else has removed the rest.
            Err(Error::NotFound(_)) if call > 0 => return Ok(()),
            Err(error) => return Err(error),
        }
    }
    let text = "much of it is removed and not all yet; remove it again to go on";
    Err(Error::unavailable("files.still-removing", text))
}

/// Takes an upload, or a part of one, and puts the file in its place when all of it is there.
///
/// # Errors
/// It does not fit, breaks off, or does not go on where the upload is.
pub async fn upload<S, E>(
    app: &App,
    caller: &Caller,
    at: &At,
    upload: Upload<S>,
) -> Result<Uploaded>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    maintenance::admit(app, caller)?;
    let mode = upload.mode.as_deref().map(mode).transpose()?;
    let whole = upload.part.is_none();
    let part = match upload.part {
        Some(part) => part,
        None => Part { upload: random_id()?, offset: 0, total: UPLOAD_BYTES_MAX },
    };
    let id: UploadId =
        part.upload.parse().map_err(|_| Error::field("?upload", "is not 32 hexadecimal digits"))?;
    if part.total > UPLOAD_BYTES_MAX {
        return Err(Error::TooLarge { limit_bytes: UPLOAD_BYTES_MAX });
    }
    let ground = ground(app, caller, at, Act::Change).await?;
    let _adding = app.files.begin(ground.owner, &id)?;
    // A part of many can be gone on with; nobody knows the name of the other.
    let kept = whole.then(|| id.clone());
    let mut unfinished = Unfinished { app: app.clone(), owner: ground.owner, upload: kept };
    let bytes = receive(app, &ground, (&id, &part), upload.bytes).await?;
    if !whole && bytes < part.total {
        return Ok(Uploaded::Partly(bytes));
    }
    ground.audit(app, caller, "file.write", &at.path).await?;
    match ground.ask(app, &at.path, FilesAct::Put { upload: id.clone(), mode }).await {
        Ok(Answer::File(facts)) => {
            unfinished.upload = None;
            Ok(Uploaded::Put(facts.into()))
        }
        Ok(other) => Err(unexpected(&other)),
        Err(error) => Err(error),
    }
}

/// An upload that is given up unless it is put in its place, also when whoever sends it is gone.
struct Unfinished {
    app: App,
    owner: PrincipalId,
    upload: Option<UploadId>,
}

impl Drop for Unfinished {
    fn drop(&mut self) {
        let (app, owner) = (self.app.clone(), self.owner);
        let runtime = tokio::runtime::Handle::try_current();
        if let (Some(upload), Ok(runtime)) = (self.upload.take(), runtime) {
            runtime.spawn(async move {
                if let Err(error) = app.runtime.upload_drop(owner, &upload).await {
                    tracing::debug!(error = %error, "an upload was not given up; it goes with age");
                }
            });
        }
    }
}

fn mode(text: &str) -> Result<u32> {
    let digits =
        (1..=4).contains(&text.len()) && text.bytes().all(|byte| (b'0'..=b'7').contains(&byte));
    let mode = u32::from_str_radix(text, 8).ok().filter(|mode| digits && *mode <= MODE_MAX);
    mode.ok_or_else(|| Error::field("?mode", "is not one to four octal digits, such as 0644"))
}

/// Adds what comes; how much there is then.
async fn receive<S, E>(
    app: &App,
    ground: &Ground,
    (id, part): (&UploadId, &Part),
    mut bytes: S,
) -> Result<u64>
where
    S: Stream<Item = Result<Bytes, E>> + Unpin,
{
    let (mut have, file) = app.runtime.upload_open(ground.owner, id).await.map_err(refused)?;
    if have > part.total {
        return Err(too_much(part.total));
    }
    let mut file = tokio::fs::File::from_std(file.into());
    let mut added = false;
    while let Some(chunk) = bytes.next().await {
        let broke = |_| Error::invalid("files.upload-cut", "the upload broke off before its end");
        let chunk = chunk.map_err(broke)?;
        if chunk.is_empty() {
            continue;
        }
        if !added && have != part.offset {
            let text = format!(
                "{have} bytes of this upload are there, and this part begins at {}: send what is missing",
                part.offset
            );
            return Err(Error::conflict("files.upload-offset", text));
        }
        added = true;
        if have + chunk.len() as u64 > part.total {
            return Err(too_much(part.total));
        }
        file.write_all(&chunk).await.map_err(full)?;
        have += chunk.len() as u64;
    }
    file.flush().await.map_err(full)?;
    if added {
        file.sync_data().await.map_err(full)?;
    }
    Ok(have)
}

/// Why no more is taken.
fn too_much(total: u64) -> Error {
    match total {
        UPLOAD_BYTES_MAX => Error::TooLarge { limit_bytes: UPLOAD_BYTES_MAX },
        total => Error::field("?total", format!("more came than the {total} bytes that it says")),
    }
}

/// What writing has failed of.
fn full(error: std::io::Error) -> Error {
    match error.kind() {
        std::io::ErrorKind::StorageFull | std::io::ErrorKind::QuotaExceeded => {
            Error::exhausted("disk.full", "no room is left for the upload")
        }
        _ => Error::broken("write an upload", error),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn modes_are_octal_and_paths_harmless() {
        assert_eq!(mode("0644").ok(), Some(0o644));
        assert_eq!(mode("7").ok(), Some(7));
        for wrong in ["", "8", "+644", "00644", "rwx", "-1"] {
            assert!(mode(wrong).is_err(), "{wrong}");
        }
        assert_eq!(plain("/a\n\u{1b}[2J"), "/a\u{fffd}\u{fffd}[2J");
        assert_eq!(plain(&"x".repeat(400)).chars().count(), PATH_CHARS_MAX + 1);
    }
}
