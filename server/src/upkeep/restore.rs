//! `berth restore`: a backup, or an inventory that an upgrade has kept, in the place of what is here.
//!
//! Everything is put aside, verified and synced first, in `db.restoring-TIME` beside `db`; then the two
//! directories change places by one rename (RENAME_EXCHANGE, rename(2)), so that whoever comes after a
//! kill finds the one or the other whole. A file `unfinished` in it says that nobody has to miss it: what a
//! killed restore leaves is removed by the next one, and what was replaced never is.

use std::collections::BTreeSet;
use std::fs::{File, Permissions};
use std::io::{self, BufReader, Read as _, Write};
use std::os::unix::fs::{OpenOptionsExt as _, PermissionsExt as _, chown};
use std::os::unix::net::UnixDatagram;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};
use nix::unistd::{User, geteuid};

use super::archive::{self, Manifest, Part};
use super::record::{self, Here};
use super::{
    BLOBS, CERTIFICATE, CONFIG, INVENTORY, KEYS, PEOPLE, Workshop, in_words, make_directory,
    make_file, read_small, sync_directory, wait_for,
};
use crate::clock::Time;
use crate::config::Config;
use crate::hold;
use crate::inventory::copy::{self, Absent, Facts, MARK_FILE};

/// Says that a directory was not finished.
const UNFINISHED: &str = "unfinished";
const STAGED: &str = "db.restoring-";
const REPLACED: &str = "db.replaced-";
/// What every SQLite database begins with.
const SQLITE_MAGIC: &[u8] = b"SQLite format 3\0";
/// A server that is just ending may take as long.
const PATIENCE: Duration = Duration::from_secs(2);

/// The arguments of `berth restore`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
The server must not run: stop berth.socket and berth.service. On another machine, stop \
berth-supervisor.service too: its record of who has which ids is restored there. Containers run on.

Who signed in before the backup is signed in again, also by sessions and tokens that were ended since: \
`berth keys rotate --retire` ends all of them. Images whose layers are not on this machine are listed and \
have to be pulled again; a container that had been started, and whose files are not here, keeps its row, \
begins anew from its image at its next start, and says so among what has happened to it.

FILE may also be an inventory that an upgrade has kept (`db/berth.db.version-N`): then keys and certificate \
stay as they are. That is the way back to the version before, whose program is to be installed then.")]
pub struct RestoreArgs {
    /// The backup.
    file: PathBuf,
    /// Only say whether it is whole, and what is in it.
    #[arg(long, conflicts_with_all = ["to", "replace", "config_to"])]
    check: bool,
    /// The data directory, in place of the configuration's.
    #[arg(long, value_name = "DIR")]
    to: Option<PathBuf>,
    /// Put it in the place of an inventory that is there; that one is kept beside it.
    #[arg(long)]
    replace: bool,
    /// Also write the configuration that it holds, to a file that is not there yet.
    #[arg(long, value_name = "FILE")]
    config_to: Option<PathBuf>,
}

/// What was put aside and verified.
struct Staged {
    facts: Facts,
    /// Of a backup; a kept inventory has none.
    manifest: Option<Manifest>,
}

/// Restores, or checks; what was done, in words.
///
/// # Errors
/// Why nothing was changed.
pub fn run(config: &Config, args: &RestoreArgs) -> Result<String> {
    let shown = args.file.display();
    if args.check {
        let workshop = Workshop::make(&std::env::temp_dir(), "restore")?;
        let db = workshop.path("db");
        make_directory(&db)?;
        let staged = stage(&args.file, None, &db).with_context(|| shown.to_string())?;
        return Ok(format!("{shown}: whole\n{}", description(&staged)));
    }
    let data = args.to.as_deref().unwrap_or(&config.runtime.data_dir);
    prepare(data, config)?;
    let db = data.join("db");
    let _hold = hold::take(&db, PATIENCE).context("stop the server first")?;
    sweep(data)?;
    let replaces = holds_inventory(&db)?;
    ensure!(
        args.replace || !replaces,
        "{} holds an inventory: --replace puts it aside, beside the new one",
        db.display()
    );
    let time = Time::now().to_string().replace(':', "-");
    let next = data.join(format!("{STAGED}{time}"));
    make_directory(&next)?;
    make_file(&next.join(UNFINISHED))?;
    sync_directory(data)?;
    let workshop = Workshop::make(data, "restore")?;
    let staged = stage(&args.file, Some(&workshop.0), &next).with_context(|| shown.to_string());
    let placed = staged.and_then(|staged| {
        let absent = place(config, data, &args.file, (&workshop, &next), &staged)?;
        if let Some(to) = &args.config_to {
            write_config(&workshop, to)?;
        }
        Ok((staged, absent))
    });
    let (staged, absent) = match placed {
        Ok(placed) => placed,
        Err(error) => {
            drop(std::fs::remove_dir_all(&next));
            return Err(error);
        }
    };
    let kept = exchange(data, &next, &data.join(format!("{REPLACED}{time}")))?;
    let mut lines = vec![format!("restored into {}", db.display()), description(&staged)];
    lines.extend(kept.map(|kept| format!("what was there before is in {}", kept.display())));
    lines.extend(losses(config, &staged, &absent));
    Ok(lines.join("\n"))
}

/// The data directory with a `db` in it, as the supervisor and the installer make them.
fn prepare(data: &Path, config: &Config) -> Result<()> {
    let make = |path: &Path, mode: u32| -> Result<bool> {
        match std::fs::create_dir(path) {
            Ok(()) => {
                let mode = std::fs::set_permissions(path, Permissions::from_mode(mode));
                mode.with_context(|| format!("set the mode of {}", path.display()))?;
                Ok(true)
            }
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(false),
            Err(error) => Err(error).with_context(|| format!("make {}", path.display())),
        }
    };
    make(data, 0o711)?;
    make(&data.join("state"), 0o700)?;
    for name in ["db", "store", "store/blobs", "store/blobs/sha256"] {
        if make(&data.join(name), 0o700)? {
            give_to_server(&data.join(name), config)?;
        }
    }
    Ok(())
}

/// Whether there is an inventory, or what shows that there was one.
fn holds_inventory(db: &Path) -> Result<bool> {
    for name in ["berth.db", "berth.db-wal", "token.key", MARK_FILE] {
        let found = db.join(name).symlink_metadata();
        match found {
            Ok(_) => return Ok(true),
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => return Err(error).with_context(|| format!("look into {}", db.display())),
        }
    }
    Ok(false)
}

/// Deals with what killed restores have left: the unfinished goes; what was replaced, or finished and not put
/// in place any more, is kept by its name.
fn sweep(data: &Path) -> Result<()> {
    let entries = std::fs::read_dir(data).with_context(|| format!("list {}", data.display()))?;
    for entry in entries {
        let entry = entry.with_context(|| format!("list {}", data.display()))?;
        let name = entry.file_name().to_string_lossy().into_owned();
        let (path, shown) = (entry.path(), entry.path().display().to_string());
        if name.starts_with(".berth-restore-") {
            std::fs::remove_dir_all(&path).with_context(|| format!("remove {shown}"))?;
        }
        let Some(time) = name.strip_prefix(STAGED) else { continue };
        if path.join(UNFINISHED).exists() {
            std::fs::remove_dir_all(&path).with_context(|| format!("remove {shown}"))?;
        } else {
            let kept = data.join(format!("{REPLACED}{time}"));
            std::fs::rename(&path, kept).with_context(|| format!("name {shown}"))?;
        }
    }
    Ok(())
}

/// Puts everything aside and verifies it: the inventory's files into `db`, the rest into `beside`. Without
/// that, only the inventory is kept, for as long as it is looked at.
fn stage(file: &Path, beside: Option<&Path>, db: &Path) -> Result<Staged> {
    let mut input = BufReader::new(File::open(file).context("open it")?);
    let mut magic = [0; 16];
    let count = input.read(&mut magic).context("read it")?;
    if &magic[..count] == SQLITE_MAGIC {
        return stage_kept(file, db);
    }
    let input = magic[..count].chain(input);
    let look = |manifest: &Manifest| {
        let newest = copy::newest_schema();
        ensure!(
            manifest.schema <= newest,
            "it is of version {}, with schema {}; this program knows {newest} and older: install that \
             version first",
            manifest.version,
            manifest.schema
        );
        Ok(())
    };
    let put = |part: &Part| -> Result<Box<dyn Write>> {
        let place = place_of(part, beside.unwrap_or(db), db)?;
        Ok(match beside {
            None if part.name != INVENTORY => Box::new(io::sink()),
            _ => Box::new(make_file(&place)?),
        })
    };
    let manifest = archive::read(input, look, put)?;
    ensure!(db.join("berth.db").exists(), "it holds no inventory");
    let facts = wait_for(copy::inspect(&db.join("berth.db"))).context("the inventory in it")?;
    ensure!(
        facts.schema == manifest.schema,
        "its manifest says schema {}, its inventory {}",
        manifest.schema,
        facts.schema
    );
    Ok(Staged { facts, manifest: Some(manifest) })
}

/// An inventory that an upgrade has kept: copied, so that it stays where it is.
fn stage_kept(file: &Path, db: &Path) -> Result<Staged> {
    let mut log = file.as_os_str().to_owned();
    log.push("-wal");
    ensure!(
        !Path::new(&log).exists(),
        "it has a write-ahead log beside it, so it is one in use: take a backup of it (berth backup)"
    );
    let copied = db.join("berth.db");
    let mut from = File::open(file).context("open it")?;
    io::copy(&mut from, &mut make_file(&copied)?).context("copy it")?;
    let facts = wait_for(copy::inspect(&copied))?;
    Ok(Staged { facts, manifest: None })
}

/// Where a part is put aside; a name that a backup has no business with is refused.
fn place_of(part: &Part, beside: &Path, db: &Path) -> Result<PathBuf> {
    let small = part.bytes <= super::SMALL_BYTES_MAX;
    let blob = part.name.strip_prefix(BLOBS);
    Ok(match part.name.as_str() {
        INVENTORY => db.join("berth.db"),
        KEYS if small => db.join("token.key"),
        CERTIFICATE if small => db.join("tls-generated.pem"),
        PEOPLE if small => beside.join("people.json"),
        CONFIG if small => beside.join(CONFIG),
        _ if blob == Some(part.sha256.as_str()) && is_hash(&part.sha256) => {
            beside.join(&part.sha256)
        }
        other => bail!("it holds {other:?}, which is no part of a backup"),
    })
}

fn is_hash(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
}

/// Puts in place what harms nobody before the inventory is there: blobs, the record of people. Finishes
/// the inventory's directory; what it speaks of that is not here.
fn place(
    config: &Config,
    data: &Path,
    file: &Path,
    (workshop, next): (&Workshop, &Path),
    staged: &Staged,
) -> Result<Absent> {
    if staged.manifest.is_none() {
        keep_keys(&data.join("db"), file, next)?;
    }
    place_record(config, data, workshop)?;
    place_blobs(config, data, workshop, staged)?;
    let layers = names(&data.join("layers/sha256"))?;
    let layers = layers.into_iter().map(|hex| format!("sha256:{hex}")).collect();
    let mut containers = BTreeSet::new();
    for first_id in names(&data.join("people"))? {
        containers.extend(names(&data.join("people").join(first_id).join("containers"))?);
    }
    let inventory = next.join("berth.db");
    let absent = wait_for(async {
        let absent = copy::absent(&inventory, &layers, &containers).await?;
        copy::note_restored(&inventory, &absent).await?;
        Ok(absent)
    })?;
    for name in names(next)? {
        let path = next.join(&name);
        give_to_server(&path, config)?;
        sync_directory(&path)?;
    }
    give_to_server(next, config)?;
    std::fs::remove_file(next.join(UNFINISHED)).context("finish what was put aside")?;
    sync_directory(next)?;
    sync_directory(data)?;
    Ok(absent)
}

/// A kept inventory goes with the keys that are here.
fn keep_keys(db: &Path, file: &Path, next: &Path) -> Result<()> {
    // Beside the file itself, when it lies in a directory that was replaced before.
    let beside = file.parent().unwrap_or(db);
    for name in ["token.key", "tls-generated.pem"] {
        let found = match read_small(&db.join(name))? {
            Some(bytes) => Some(bytes),
            None => read_small(&beside.join(name))?,
        };
        if let Some(bytes) = found {
            make_file(&next.join(name))?
                .write_all(&bytes)
                .with_context(|| format!("copy {name}"))?;
        }
    }
    Ok(())
}

/// Writes the record of people, where the backup's says more than the one that is here.
fn place_record(config: &Config, data: &Path, workshop: &Workshop) -> Result<()> {
    let Some(backup) = read_small(&workshop.path("people.json"))? else { return Ok(()) };
    let present = read_small(&data.join(PEOPLE))?;
    let here = Here {
        first_ids: names(&data.join("people"))?.iter().filter_map(|id| id.parse().ok()).collect(),
        layers: !names(&data.join("layers/sha256"))?.is_empty(),
    };
    let Some(merged) = record::merged(present.as_deref(), &backup, &here)? else { return Ok(()) };
    ensure!(
        data != config.runtime.data_dir || !is_listening(&config.supervisor_socket()),
        "the supervisor's record of people has to be changed: stop berth-supervisor.service first"
    );
    let new = data.join("state/people.json.restored");
    drop(std::fs::remove_file(&new));
    let mut file = make_file(&new)?;
    file.write_all(&merged).and_then(|()| file.sync_all()).context("write the record of people")?;
    std::fs::rename(&new, data.join(PEOPLE)).context("name the record of people")?;
    sync_directory(&data.join("state"))
}

/// Whether a supervisor takes requests there; one that does not is refused at once (unix(7)).
fn is_listening(socket: &Path) -> bool {
    let connected = UnixDatagram::unbound().and_then(|end| end.connect(socket));
    // A socket of another kind (EPROTOTYPE) is one that somebody listens on.
    match connected {
        Ok(()) => true,
        Err(error) => error.raw_os_error() == Some(Errno::EPROTOTYPE as i32),
    }
}

/// Moves blobs into the store; those that no image holds are removed by the server at its start.
fn place_blobs(config: &Config, data: &Path, workshop: &Workshop, staged: &Staged) -> Result<()> {
    let store = data.join(BLOBS);
    let parts = staged.manifest.iter().flat_map(|manifest| &manifest.parts);
    let mut any = false;
    for part in parts.filter(|part| part.name.starts_with(BLOBS)) {
        let from = workshop.path(&part.sha256);
        give_to_server(&from, config)?;
        sync_directory(&from)?;
        std::fs::rename(&from, store.join(&part.sha256))
            .with_context(|| format!("move a blob into {}", store.display()))?;
        any = true;
    }
    if any { sync_directory(&store) } else { Ok(()) }
}

/// The server's user owns what it uses.
fn give_to_server(path: &Path, config: &Config) -> Result<()> {
    if !geteuid().is_root() {
        return Ok(());
    }
    let name = &config.runtime.server_user;
    let user = User::from_name(name).with_context(|| format!("look for the user {name}"))?;
    let user = user.with_context(|| format!("there is no user {name} (runtime.server_user)"))?;
    chown(path, Some(user.uid.as_raw()), Some(user.gid.as_raw()))
        .with_context(|| format!("give {} to {name}", path.display()))
}

fn write_config(workshop: &Workshop, to: &Path) -> Result<()> {
    let bytes = read_small(&workshop.path(CONFIG))?.context("there is no configuration in it")?;
    let shown = to.display();
    let mut options = std::fs::OpenOptions::new();
    let file = options.write(true).create_new(true).mode(0o644).open(to);
    let mut file = file.with_context(|| format!("create {shown}"))?;
    file.write_all(&bytes).and_then(|()| file.sync_all()).with_context(|| format!("write {shown}"))
}

/// The moment at which it is so. What was there before, if there was anything, gets a name to be kept by.
fn exchange(data: &Path, next: &Path, kept: &Path) -> Result<Option<PathBuf>> {
    let db = data.join("db");
    let is_empty = names(&db)?.is_empty();
    let moved = match is_empty {
        true => std::fs::rename(next, &db),
        false => renameat2(AT_FDCWD, next, AT_FDCWD, &db, RenameFlags::RENAME_EXCHANGE)
            .map_err(io::Error::from),
    };
    moved.with_context(|| {
        format!(
            "put {} in the place of {} (is that a mount of its own? then mount it at {} and restore \
             again)",
            next.display(),
            db.display(),
            data.display()
        )
    })?;
    sync_directory(data)?;
    if is_empty {
        return Ok(None);
    }
    std::fs::rename(next, kept).with_context(|| format!("name {}", kept.display()))?;
    sync_directory(data)?;
    Ok(Some(kept.to_owned()))
}

/// The names in a directory; none when it is not there.
fn names(path: &Path) -> Result<BTreeSet<String>> {
    let listed = || format!("list {}", path.display());
    let entries = match std::fs::read_dir(path) {
        Ok(entries) => entries,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(BTreeSet::new()),
        Err(error) => return Err(error).with_context(listed),
    };
    entries
        .map(|entry| {
            let entry = entry.with_context(listed)?;
            Ok(entry.file_name().to_string_lossy().into_owned())
        })
        .collect()
}

fn description(staged: &Staged) -> String {
    let facts = &staged.facts;
    match &staged.manifest {
        None => format!("an inventory of schema {}: {}", facts.schema, in_words(facts)),
        Some(manifest) => format!(
            "made {} by version {} of {}, schema {}: {}; {}",
            manifest.made_at,
            manifest.version,
            manifest.instance,
            facts.schema,
            in_words(facts),
            if manifest.with_images { "with images" } else { "without images" }
        ),
    }
}

/// What is not as it was, and what to do about it.
fn losses(config: &Config, staged: &Staged, absent: &Absent) -> Vec<String> {
    let manifest = staged.manifest.as_ref();
    let has_blobs = manifest.is_some_and(|manifest| manifest.with_images);
    let mut lines = Vec::new();
    match absent.images.len() {
        0 => {}
        count if has_blobs => {
            lines.push(format!("{count} images are unpacked when the server starts"));
        }
        count => lines.push(format!(
            "{count} images are listed whose layers are not on this machine: pull them again before \
             anything starts from them"
        )),
    }
    match absent.containers.len() {
        0 => {}
        count => lines.push(format!(
            "{count} containers have lost what they had written: they begin anew from their image"
        )),
    }
    let here = &config.runtime.instance;
    lines.push(match manifest.filter(|manifest| manifest.instance != *here) {
        Some(manifest) => format!(
            "sessions and tokens are over: they were given by {}, and this instance is called {here}",
            manifest.instance
        ),
        None => "sessions and tokens that were ended since the backup are valid again: `berth keys \
                 rotate --retire` ends all of them"
            .to_owned(),
    });
    lines
}
