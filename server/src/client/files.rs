//! `berth cp` and `berth ls`: files and folders of containers and volumes, to this machine and from it.
//!
//! A file goes up in parts, so that a connection that breaks costs no more than one of them, and comes down to a
//! name of its own until all of it is there. No name that a server has said becomes one on this machine. A folder
//! comes down as the tar archive that the server makes, and goes up file by file.

use std::fs::File;
use std::io::{Read as _, Write as _};
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use serde_json::{Value, json};

use super::api::Api;
use super::error::{Failure, Outcome, REFUSED};
use super::output::{Output, Table, say, tell};
use super::show::{age, number, text};
use super::units::shown_bytes;
use super::{Name, Server};

/// Bytes of one part of an upload.
const PART_BYTES: usize = 16 << 20;
/// How long one part may take.
const PART_TIMEOUT: Duration = Duration::from_secs(15 * 60);
/// Tries of one part when the connection breaks.
const TRIES_MAX: u32 = 5;
/// Between two of them.
const PAUSE: Duration = Duration::from_secs(1);
/// Folders in one another that are sent.
const DEPTH_MAX: usize = 100;

/// What `cp` takes.
#[derive(Args)]
pub struct CpArgs {
    #[command(flatten)]
    server: Server,
    /// What is copied: CONTAINER:/path, volume:NAME:/path, or a path of this machine's.
    from: String,
    /// Where to: the same; a folder of a container or volume comes as a tar archive, to the standard output by -.
    to: String,
}

/// What `ls` takes.
#[derive(Args)]
pub struct LsArgs {
    #[command(flatten)]
    server: Server,
    /// CONTAINER:/path or volume:NAME:/path.
    place: String,
    /// As JSON, with all that the server says.
    #[arg(long)]
    json: bool,
}

/// A path in a container or volume.
#[derive(Debug, Clone, PartialEq, Eq)]
struct There {
    /// `containers` or `volumes`.
    kind: &'static str,
    name: String,
    path: String,
}

impl There {
    /// Reads one; `None` for a path of this machine's: one that begins with `/`, `.` or `~`, or holds no colon.
    fn read(text: &str) -> Result<Option<Self>, Failure> {
        let (kind, rest) = match text.strip_prefix("volume:") {
            Some(rest) => ("volumes", rest),
            None if text.starts_with(['/', '.', '~']) => return Ok(None),
            None => ("containers", text),
        };
        let Some((name, path)) = rest.split_once(':') else {
            return match kind {
                "volumes" => Err(Failure::Usage(format!("{text:?} is not volume:NAME:/path"))),
                _ => Ok(None),
            };
        };
        let name: Name = name.parse().map_err(|why| Failure::Usage(format!("{name:?} {why}")))?;
        let path = if path.is_empty() { "/" } else { path };
        Ok(Some(Self { kind, name: name.as_str().to_owned(), path: path.to_owned() }))
    }

    fn parts<'a>(&'a self, end: &[&'a str]) -> Vec<&'a str> {
        let mut parts = vec![self.kind, self.name.as_str(), "files"];
        parts.extend(end);
        parts
    }

    /// Something in it, if it is a folder.
    fn below(&self, name: &str) -> Self {
        Self { path: format!("{}/{name}", self.path.trim_end_matches('/')), ..self.clone() }
    }

    /// Its last name.
    fn last(&self) -> &str {
        let last = self.path.trim_end_matches('/').rsplit('/').next().unwrap_or_default();
        if last.is_empty() { &self.name } else { last }
    }

    /// What is there; `None` when nothing is.
    async fn look(&self, api: &Api) -> Result<Option<Value>, Failure> {
        match api.get(&self.parts(&["entry"]), &[("path", self.path.as_str())]).await {
            Ok(entry) => Ok(Some(entry)),
            Err(Failure::Refused(problem)) if problem.detail == NOTHING_THERE => Ok(None),
            Err(failure) => Err(failure),
        }
    }
}

/// What the server says of a path at which nothing is; of a container or volume that is not there it says other
/// words.
const NOTHING_THERE: &str = "there is no such file or folder";

/// `berth cp`.
///
/// # Errors
/// When neither side, or both, are a container's or a volume's; or what is copied cannot be.
pub async fn cp(args: CpArgs) -> Outcome {
    let (from, to) = (There::read(&args.from)?, There::read(&args.to)?);
    match (from, to) {
        (Some(from), None) => down(&args.server.api()?, &from, &args.to).await,
        (None, Some(to)) => up(&args.server.api()?, Path::new(&args.from), &to).await,
        _ => Err(Failure::Usage(
            "exactly one side is CONTAINER:/path or volume:NAME:/path; the other is a path of this machine’s"
                .into(),
        )),
    }
}

async fn down(api: &Api, from: &There, to: &str) -> Outcome {
    let entry = from
        .look(api)
        .await?
        .ok_or_else(|| Failure::Here(format!("{}: {NOTHING_THERE}", from.path)))?;
    let folder = text(&entry["kind"]) == "folder";
    let end = if folder { "archive" } else { "content" };
    let mut answer = api.bytes(&from.parts(&[end]), &[("path", from.path.as_str())]).await?;
    let mut target = Target::open(to, from.last(), folder)?;
    let broke =
        |error: reqwest::Error| Failure::Unreachable(format!("the download broke off: {error}"));
    while let Some(chunk) = answer.chunk().await.map_err(broke)? {
        target.write(&chunk)?;
    }
    target.finish()?;
    Ok(0)
}

/// Where a download goes.
enum Target {
    Stdout,
    File { file: File, part: PathBuf, path: PathBuf },
}

impl Target {
    fn open(to: &str, last: &str, folder: bool) -> Result<Self, Failure> {
        if to == "-" {
            return Ok(Self::Stdout);
        }
        let mut path = PathBuf::from(to);
        if path.is_dir() {
            // The name is what was typed.
            path.push(if folder { format!("{last}.tar") } else { last.to_owned() });
        }
        let name = path.file_name().map(|name| name.to_string_lossy().into_owned());
        let name = name.ok_or_else(|| Failure::Usage(format!("{to:?} names no file")))?;
        let part = path.with_file_name(format!(".{name}.{}.part", std::process::id()));
        let file = File::options().write(true).create_new(true).open(&part);
        let file = file.map_err(|error| here("write", &part, &error))?;
        Ok(Self::File { file, part, path })
    }

    fn write(&mut self, bytes: &[u8]) -> Result<(), Failure> {
        match self {
            Self::Stdout => Output::Stdout.write(bytes),
            Self::File { file, part, .. } => {
                file.write_all(bytes).map_err(|error| here("write", part, &error))
            }
        }
    }

    fn finish(self) -> Result<(), Failure> {
        let Self::File { part, path, .. } = &self else { return Ok(()) };
        std::fs::rename(part, path).map_err(|error| here("write", path, &error))
    }
}

impl Drop for Target {
    fn drop(&mut self) {
        if let Self::File { part, .. } = self {
            // When it has its name, nothing is there.
            drop(std::fs::remove_file(part));
        }
    }
}

fn here(verb: &str, path: &Path, error: &std::io::Error) -> Failure {
    Failure::Here(format!("{verb} {}: {error}", path.display()))
}

async fn up(api: &Api, from: &Path, to: &There) -> Outcome {
    let facts = std::fs::metadata(from).map_err(|error| here("read", from, &error))?;
    let into = match to.look(api).await? {
        Some(entry) => text(&entry["kind"]) == "folder",
        None => to.path.ends_with('/'),
    };
    let name = from.canonicalize().ok();
    let name = name.as_deref().unwrap_or(from).file_name();
    let name = name.map(|name| name.to_string_lossy().into_owned());
    let to = match (into, name) {
        (true, Some(name)) => to.below(&name),
        (true, None) => return Err(Failure::Usage(format!("{} has no name", from.display()))),
        (false, _) => to.clone(),
    };
    match facts.is_dir() {
        true => folder_up(api, from, &to).await,
        false => file_up(api, from, &to).await.map(|()| 0),
    }
}

/// Sends a folder with all that is in it. What is neither file nor folder is left out, and told.
async fn folder_up(api: &Api, from: &Path, to: &There) -> Outcome {
    let mut code = 0;
    let mut left = vec![(from.to_owned(), to.clone(), 0)];
    while let Some((from, to, depth)) = left.pop() {
        let made = api.post(&to.parts(&["folder"]), Some(&json!({"path": to.path}))).await;
        match made {
            Ok(_) => {}
            Err(Failure::Refused(problem)) if problem.code == "files.exists" => {}
            Err(failure) => return Err(failure),
        }
        let entries = std::fs::read_dir(&from).map_err(|error| here("read", &from, &error))?;
        for entry in entries {
            let entry = entry.map_err(|error| here("read", &from, &error))?;
            let (path, name) = (entry.path(), entry.file_name());
            let kind = entry.file_type().map_err(|error| here("read", &path, &error))?;
            let Some(name) = name.to_str().filter(|_| depth < DEPTH_MAX) else {
                tell(&format!(
                    "{} is left out: its name is not UTF-8, or too deep",
                    path.display()
                ));
                code = REFUSED;
                continue;
            };
            if kind.is_dir() {
                left.push((path, to.below(name), depth + 1));
            } else if kind.is_file() {
                file_up(api, &path, &to.below(name)).await?;
            } else {
                tell(&format!("{} is left out: it is neither file nor folder", path.display()));
                code = REFUSED;
            }
        }
    }
    Ok(code)
}

async fn file_up(api: &Api, from: &Path, to: &There) -> Result<(), Failure> {
    use std::os::unix::fs::PermissionsExt as _;
    let mut file = File::open(from).map_err(|error| here("read", from, &error))?;
    let facts = file.metadata().map_err(|error| here("read", from, &error))?;
    let (total, mode) = (facts.len(), format!("{:o}", facts.permissions().mode() & 0o777));
    let upload = upload_name()?;
    let mut offset = 0;
    loop {
        let mut part = Vec::new();
        let wanted = (total - offset).min(PART_BYTES as u64);
        (&mut file)
            .take(wanted)
            .read_to_end(&mut part)
            .map_err(|error| here("read", from, &error))?;
        if (part.len() as u64) < wanted {
            return Err(Failure::Here(format!("{} became shorter meanwhile", from.display())));
        }
        offset = send_part(api, to, (upload.as_str(), offset, total), &mode, part).await?;
        if offset >= total {
            return Ok(());
        }
    }
}

/// 32 hexadecimal digits that nobody else has.
fn upload_name() -> Result<String, Failure> {
    let mut bytes = [0; 16];
    getrandom::fill(&mut bytes)
        .map_err(|error| Failure::Here(format!("name an upload: {error}")))?;
    Ok(bytes.iter().map(|byte| format!("{byte:02x}")).collect())
}

/// Sends one part, again when the connection breaks; where the next begins.
async fn send_part(
    api: &Api,
    to: &There,
    (upload, offset, total): (&str, u64, u64),
    mode: &str,
    part: Vec<u8>,
) -> Result<u64, Failure> {
    let end = offset + part.len() as u64;
    let (from, of) = (offset.to_string(), total.to_string());
    let query = [
        ("path", to.path.as_str()),
        ("mode", mode),
        ("upload", upload),
        ("offset", from.as_str()),
        ("total", of.as_str()),
    ];
    let mut tries = 0;
    loop {
        let sent = api.put_bytes(&to.parts(&["content"]), &query, part.clone(), PART_TIMEOUT).await;
        match sent {
            Ok(_) => return Ok(end),
            // It had come, and the answer was lost.
            Err(Failure::Refused(problem))
                if tries > 0 && problem.code == "files.upload-offset" && end < total =>
            {
                return Ok(end);
            }
            Err(failure) if failure.is_passing() && tries < TRIES_MAX => {
                tries += 1;
                tokio::time::sleep(PAUSE).await;
            }
            Err(failure) => return Err(failure),
        }
    }
}

/// `berth ls`.
///
/// # Errors
/// When it is no folder of a container or volume.
pub async fn ls(args: LsArgs) -> Outcome {
    let place = There::read(&args.place)?.ok_or_else(|| {
        let text = format!("{:?} is not CONTAINER:/path or volume:NAME:/path", args.place);
        Failure::Usage(text)
    })?;
    let items =
        args.server.api()?.list(&place.parts(&[]), &[("path", place.path.as_str())]).await?;
    if args.json {
        say(&super::harmless::json(&Value::Array(items)))?;
        return Ok(0);
    }
    let mut table = Table::new(&["MODE", "OWNER", "SIZE", "CHANGED", "NAME"]);
    for item in &items {
        let sign = match text(&item["kind"]) {
            "folder" => "/",
            "special" => "?",
            _ => "",
        };
        let target = match item["target"].as_str() {
            Some(target) => format!(" -> {target}"),
            None => String::new(),
        };
        table.row([
            text(&item["mode"]).to_owned(),
            format!("{}:{}", number(&item["uid"]), number(&item["gid"])),
            shown_bytes(number(&item["bytes"])),
            age(&item["modified_at"]),
            format!("{}{sign}{target}", text(&item["name"])),
        ]);
    }
    say(&table.text())?;
    Ok(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn there(text: &str) -> Option<(&'static str, String, String)> {
        let found = There::read(text).ok().flatten();
        found.map(|one| (one.kind, one.name, one.path))
    }

    #[test]
    fn places_are_told_from_paths_of_this_machine() {
        let of = |kind, name: &str, path: &str| Some((kind, name.to_owned(), path.to_owned()));
        assert_eq!(there("box:/etc"), of("containers", "box", "/etc"));
        assert_eq!(there("box:"), of("containers", "box", "/"));
        assert_eq!(there("volume:data:/a:b"), of("volumes", "data", "/a:b"));
        for local in ["./box:/x", "/a:b", "~/a:b", "plain", "../x:y"] {
            assert_eq!(there(local), None, "{local}");
        }
        for bad in ["volume:data", "volume:..:/x", ":/x"] {
            assert!(There::read(bad).is_err(), "{bad}");
        }
        let top = There::read("box:/").expect("good").expect("there");
        assert_eq!((top.last(), top.below("x").path.as_str()), ("box", "/x"));
    }
}
