//! `berth backup`: one file, taken while the server runs or not.
//!
//! The inventory is what one read transaction sees. Keys are read before and after it and have to be the
//! same, so that whatever the copy holds sealed can be opened with the keys beside it. The supervisor's
//! record is read last: it only ever grows, so nobody whom the copy knows is missing in it.

use std::fs::File;
use std::io::{self, BufWriter, Read, Write as _};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail, ensure};
use nix::errno::Errno;
use nix::fcntl::{AT_FDCWD, RenameFlags, renameat2};

use super::archive::{self, FORMAT, Manifest, Part};
use super::{
    BLOBS, CERTIFICATE, CONFIG, INVENTORY, KEYS, PEOPLE, Workshop, in_words, make_file, parent_of,
    read_small, sync_directory, wait_for,
};
use crate::clock::Time;
use crate::config::Loaded;
use crate::inventory::copy::{self, Facts};

/// Keys are rotated by hand: a second time in one backup is a coincidence, a fifth is none.
const TRIES_MAX: u32 = 5;

/// The arguments of `berth backup`.
#[derive(Debug, clap::Args)]
#[command(after_long_help = "\
It holds the inventory (people with their password hashes, sessions, tokens as hashes, images and \
containers as rows, operations, events, audit, sealed registry credentials), the keys that sign sessions \
and tokens and open those credentials, the certificate that Berth has made with its key, the supervisor's \
record of who has which ids, and the configuration file. Keep it as you keep root's own files: whoever \
has it can sign in as anybody.

It does not hold what containers have written, their logs, nor the last hour's figures, nor files that \
the configuration only names: your own certificate, the credentials of a proxy. Images are in it with \
--with-images alone; without, they are listed after a restore and have to be pulled again before anything \
starts from them.")]
pub struct BackupArgs {
    /// Where to: a file that is not there yet (made 0600), or `-` for the standard output.
    #[arg(long, value_name = "FILE")]
    to: PathBuf,
    /// Also the images' layers, manifests and configurations, as they came from their registries.
    #[arg(long)]
    with_images: bool,
}

/// What is copied, and from where.
struct Source {
    part: Part,
    path: PathBuf,
}

/// Takes the backup; what is in it, in words, unless it went to the standard output.
///
/// # Errors
/// Why there is none; then nothing is left of it.
pub fn run(loaded: &Loaded, args: &BackupArgs) -> Result<Option<String>> {
    if args.to.as_os_str() == "-" {
        let workshop = Workshop::make(&std::env::temp_dir(), "backup")?;
        let (manifest, sources, _) = collect(loaded, args, &workshop)?;
        let out = BufWriter::new(io::stdout().lock());
        write(out, &manifest, &sources)?.flush().context("write to the standard output")?;
        return Ok(None);
    }
    let to = &args.to;
    ensure!(!exists(to)?, "{} is there already: name a new file", to.display());
    let parent = parent_of(to)?;
    let workshop = Workshop::make(parent, "backup")?;
    let (manifest, sources, facts) = collect(loaded, args, &workshop)?;
    let whole = workshop.path("whole");
    let out = write(BufWriter::new(make_file(&whole)?), &manifest, &sources)?;
    let file = out.into_inner().map_err(io::IntoInnerError::into_error);
    let file = file.with_context(|| format!("write {}", to.display()))?;
    file.sync_all().with_context(|| format!("write {}", to.display()))?;
    let bytes = file.metadata().with_context(|| format!("look at {}", to.display()))?.len();
    name_new(&whole, to)?;
    sync_directory(parent)?;
    Ok(Some(format!(
        "{}: {bytes} bytes, schema {}, {}\nIt holds secrets: whoever has it can sign in as anybody.",
        to.display(),
        facts.schema,
        in_words(&facts)
    )))
}

/// Copies what changes, and hashes everything.
fn collect(
    loaded: &Loaded,
    args: &BackupArgs,
    workshop: &Workshop,
) -> Result<(Manifest, Vec<Source>, Facts)> {
    let config = &loaded.config;
    let data = &config.runtime.data_dir;
    let inventory = data.join(INVENTORY);
    ensure!(
        exists(&inventory)?,
        "{} is not there: nothing has run here yet, or --config names another appliance's file",
        inventory.display()
    );
    let copied = workshop.path("berth.db");
    let keys = copy_with_keys(&inventory, &data.join(KEYS), &copied)?;
    let facts = wait_for(copy::inspect(&copied)).context("the inventory cannot be backed up")?;
    let mut sources = vec![source(INVENTORY, copied.clone())?];
    let mut small = |name: &str, bytes: Option<Vec<u8>>| -> Result<()> {
        let Some(bytes) = bytes else { return Ok(()) };
        let path = workshop.path(&name.replace('/', "."));
        make_file(&path)?.write_all(&bytes).context("copy a small file")?;
        sources.push(source(name, path)?);
        Ok(())
    };
    small(KEYS, keys)?;
    small(CERTIFICATE, read_small(&data.join(CERTIFICATE))?)?;
    small(PEOPLE, read_small(&data.join(PEOPLE))?)?;
    if let Some(path) = &loaded.path {
        small(CONFIG, read_small(path)?)?;
    }
    if args.with_images {
        sources.extend(blobs(&copied, data)?);
    }
    let manifest = Manifest {
        format: FORMAT,
        version: env!("CARGO_PKG_VERSION").to_owned(),
        schema: facts.schema,
        made_at: Time::now().to_string(),
        instance: config.runtime.instance.clone(),
        with_images: args.with_images,
        parts: sources.iter().map(|source| source.part.clone()).collect(),
    };
    Ok((manifest, sources, facts))
}

/// Copies the inventory; the keys that belong to it. A rotation writes new keys first and seals what is in
/// the inventory anew before it forgets old ones: with the same keys before and after, none is missing.
fn copy_with_keys(inventory: &Path, keys: &Path, to: &Path) -> Result<Option<Vec<u8>>> {
    for _ in 0..TRIES_MAX {
        let before = read_small(keys)?;
        wait_for(copy::take(inventory, to))?;
        if read_small(keys)? == before {
            return Ok(before);
        }
        std::fs::remove_file(to).context("remove a copy of the inventory")?;
    }
    bail!("the signing keys are being changed all the time; try again when that is over")
}

/// The blobs of the copy's images; one that is not here is missing in the backup as it is missing now.
fn blobs(inventory: &Path, data: &Path) -> Result<Vec<Source>> {
    let mut sources = Vec::new();
    for digest in wait_for(copy::blobs(inventory))? {
        let Some(hex) = digest.strip_prefix("sha256:") else { continue };
        let name = format!("{BLOBS}{hex}");
        let path = data.join(&name);
        match path.metadata() {
            Ok(found) => {
                let part = Part { name, bytes: found.len(), sha256: hex.to_owned() };
                sources.push(Source { part, path });
            }
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                eprintln!("berth: {digest} belongs to an image and is not in the store");
            }
            Err(error) => return Err(error).with_context(|| format!("look at {name}")),
        }
    }
    Ok(sources)
}

fn source(name: &str, path: PathBuf) -> Result<Source> {
    let file = File::open(&path).with_context(|| format!("read {}", path.display()))?;
    let part = Part::of(name, file).with_context(|| format!("read {}", path.display()))?;
    Ok(Source { part, path })
}

fn write<W: io::Write>(out: W, manifest: &Manifest, sources: &[Source]) -> Result<W> {
    let mut next = sources.iter();
    archive::write(out, manifest, |part| {
        let source = next.next().context("find a part's source")?;
        let file = File::open(&source.path).with_context(|| {
            format!("read {} (was an image removed meanwhile? then start again)", part.name)
        })?;
        Ok(Box::new(file) as Box<dyn Read>)
    })
}

/// Gives a file its name, which nobody else has taken meanwhile.
fn name_new(from: &Path, to: &Path) -> Result<()> {
    let named = renameat2(AT_FDCWD, from, AT_FDCWD, to, RenameFlags::RENAME_NOREPLACE);
    let named = match named {
        // Network file systems know no such rename.
        Err(Errno::EINVAL | Errno::ENOSYS) if !exists(to)? => {
            std::fs::rename(from, to).map_err(anyhow::Error::from)
        }
        named => named.map_err(anyhow::Error::from),
    };
    named.with_context(|| format!("name {}", to.display()))
}

fn exists(path: &Path) -> Result<bool> {
    match path.symlink_metadata() {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error).with_context(|| format!("look at {}", path.display())),
    }
}
