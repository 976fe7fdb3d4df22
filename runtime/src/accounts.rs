//! `user[:group]` as in an image's `User`: parsing it, and looking names up in a root file system's
//! `/etc/passwd` and `/etc/group`.
//!
//! The look-up runs in a cloned child after its root is in place, so it allocates nothing, reads
//! through one fixed buffer, never blocks (regular files only) and reads at most [`BYTES_MAX`].
//! Numbers are parsed strictly: what is not a plain decimal below [`ID_MAX`] is a name or an error,
//! and never becomes another number (CVE-2024-40635).

use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};

use nix::errno::Errno;
use nix::fcntl::{OFlag, OpenHow, ResolveFlag, openat2};
use nix::sys::stat::{Mode, SFlag, fstat};

/// Bytes of one account file that are read at most; a longer file is refused.
pub const BYTES_MAX: u64 = 4 << 20;
/// Bytes of one line that count; longer lines are skipped.
const LINE_BYTES_MAX: usize = 8192;
/// Supplementary groups at most.
pub const GROUPS_MAX: usize = 256;
/// Bytes of a home directory's path at most.
pub const HOME_BYTES_MAX: usize = 1024;
/// The largest id: 2^32-1 and 2^32-2 mean "no id" to the kernel in places.
pub const ID_MAX: u32 = u32::MAX - 2;
/// Bytes of `user[:group]` at most.
pub const TEXT_BYTES_MAX: usize = 256;

/// A user or group as it was asked for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Name {
    /// By number.
    Number(u32),
    /// By name.
    Text(String),
}

/// `user[:group]`, parsed.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Request {
    /// The user.
    pub user: Name,
    /// The group, when one is named; then there are no supplementary groups.
    pub group: Option<Name>,
}

/// Why a text is no `user[:group]`.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum BadUser {
    /// A number that is no id.
    #[error("user {0:?}: ids are decimal numbers from 0 to {ID_MAX}")]
    Number(String),
    /// Not a name.
    #[error("user {0:?}: not of the form user[:group]")]
    Form(String),
}

impl Request {
    /// Parses `user[:group]`; empty means `0`.
    pub fn parse(text: &str) -> Result<Self, BadUser> {
        let bad = || BadUser::Form(text.chars().take(80).collect());
        if text.len() > TEXT_BYTES_MAX || text.bytes().any(|byte| byte < 0x20 || byte == 0x7f) {
            return Err(bad());
        }
        if text.is_empty() {
            return Ok(Self { user: Name::Number(0), group: None });
        }
        let (user, group) = match text.split_once(':') {
            Some((_, group)) if group.is_empty() || group.contains(':') => return Err(bad()),
            Some((user, group)) => (user, Some(group)),
            None => (text, None),
        };
        if user.is_empty() {
            return Err(bad());
        }
        Ok(Self { user: parse_name(user)?, group: group.map(parse_name).transpose()? })
    }
}

/// What begins like a number must be one; everything else is a name.
fn parse_name(text: &str) -> Result<Name, BadUser> {
    if text.starts_with(|first: char| first.is_ascii_digit() || "+-".contains(first)) {
        return match parse_id(text.as_bytes()) {
            Some(id) => Ok(Name::Number(id)),
            None => Err(BadUser::Number(text.chars().take(80).collect())),
        };
    }
    Ok(Name::Text(text.to_owned()))
}

/// A plain decimal number from 0 to [`ID_MAX`], without sign or leading zeros.
pub fn parse_id(text: &[u8]) -> Option<u32> {
    let plain = matches!(text, [b'0'] | [b'1'..=b'9', ..]) && text.len() <= 10;
    if !plain {
        return None;
    }
    let mut value: u64 = 0;
    for byte in text {
        if !byte.is_ascii_digit() {
            return None;
        }
        value = value * 10 + u64::from(byte - b'0');
    }
    u32::try_from(value).ok().filter(|id| *id <= ID_MAX)
}

/// Who runs a program.
#[derive(Debug, Clone, Copy)]
pub struct Account {
    /// User id.
    pub user: u32,
    /// Group id.
    pub group: u32,
    /// Supplementary groups; the first `group_count` count.
    pub groups: [u32; GROUPS_MAX],
    /// How many supplementary groups there are.
    pub group_count: usize,
    /// The home directory; the first `home_length` bytes count.
    pub home: [u8; HOME_BYTES_MAX],
    /// Bytes of the home directory's path; 0 when none is known.
    pub home_length: usize,
}

/// Why a look-up failed.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum LookupError {
    /// No such user.
    UnknownUser,
    /// No such group.
    UnknownGroup,
    /// `/etc/passwd` cannot be read.
    Passwd(Errno),
    /// `/etc/group` cannot be read.
    Group(Errno),
}

/// Resolves `request` in the calling process's own root.
pub fn look_up(request: &Request) -> Result<Account, LookupError> {
    let mut account = Account {
        user: 0,
        group: 0,
        groups: [0; GROUPS_MAX],
        group_count: 0,
        home: [0; HOME_BYTES_MAX],
        home_length: 0,
    };
    let mut name = [0; TEXT_BYTES_MAX];
    let name_length = look_up_user(request, &mut account, &mut name)?;
    match &request.group {
        Some(Name::Number(id)) => account.group = *id,
        Some(Name::Text(group)) => account.group = look_up_group(group)?,
        None => add_groups(&name[..name_length], &mut account)?,
    }
    Ok(account)
}

/// Fills in the user, their primary group and home; gives the length of the name put in `name`.
fn look_up_user(
    request: &Request,
    account: &mut Account,
    name: &mut [u8; TEXT_BYTES_MAX],
) -> Result<usize, LookupError> {
    let mut found = None;
    let result = each_line(c"/etc/passwd", |line| {
        let Some([entry, id, group, home]) = fields(line, [0, 2, 3, 5]) else { return true };
        let (Some(id), Some(group)) = (parse_id(id), parse_id(group)) else { return true };
        let wanted = match &request.user {
            Name::Number(number) => id == *number,
            Name::Text(text) => entry == text.as_bytes(),
        };
        if !wanted || entry.len() > name.len() {
            return true;
        }
        name[..entry.len()].copy_from_slice(entry);
        found = Some((id, group, entry.len()));
        if home.len() <= account.home.len() {
            account.home[..home.len()].copy_from_slice(home);
            account.home_length = home.len();
        }
        false
    });
    match (&request.user, result, found) {
        (_, Ok(()), Some((id, group, length))) => {
            (account.user, account.group) = (id, group);
            Ok(length)
        }
        // A number needs no entry, and no file.
        (Name::Number(id), Ok(()) | Err(Errno::ENOENT), _) => {
            account.user = *id;
            Ok(0)
        }
        (Name::Text(_), Ok(()) | Err(Errno::ENOENT), _) => Err(LookupError::UnknownUser),
        (_, Err(errno), _) => Err(LookupError::Passwd(errno)),
    }
}

fn look_up_group(name: &str) -> Result<u32, LookupError> {
    let mut found = None;
    let result = each_line(c"/etc/group", |line| {
        let Some([entry, id]) = fields(line, [0, 2]) else { return true };
        if entry == name.as_bytes() {
            found = parse_id(id);
        }
        found.is_none()
    });
    match (result, found) {
        (Ok(()), Some(id)) => Ok(id),
        (Ok(()) | Err(Errno::ENOENT), _) => Err(LookupError::UnknownGroup),
        (Err(errno), _) => Err(LookupError::Group(errno)),
    }
}

/// Adds the groups whose member list names the user.
fn add_groups(name: &[u8], account: &mut Account) -> Result<(), LookupError> {
    if name.is_empty() {
        return Ok(());
    }
    let result = each_line(c"/etc/group", |line| {
        let Some([id, members]) = fields(line, [2, 3]) else { return true };
        let Some(id) = parse_id(id) else { return true };
        let member = members.split(|byte| *byte == b',').any(|member| member == name);
        if member && account.group_count < GROUPS_MAX {
            account.groups[account.group_count] = id;
            account.group_count += 1;
        }
        true
    });
    match result {
        Ok(()) | Err(Errno::ENOENT) => Ok(()),
        Err(errno) => Err(LookupError::Group(errno)),
    }
}

/// The fields of a line with the given places (ascending), `:` between fields.
fn fields<const N: usize>(line: &[u8], places: [usize; N]) -> Option<[&[u8]; N]> {
    let mut wanted = [&line[..0]; N];
    let mut filled = 0;
    for (place, field) in line.split(|byte| *byte == b':').enumerate() {
        if filled < N && places[filled] == place {
            wanted[filled] = field;
            filled += 1;
        }
    }
    (filled == N).then_some(wanted)
}

/// Gives each line of a file to `visit` until that says `false`.
fn each_line(path: &CStr, visit: impl FnMut(&[u8]) -> bool) -> nix::Result<()> {
    let file = open_regular(path)?;
    let mut lines = Lines { visit, line: [0; LINE_BYTES_MAX], length: 0, skipping: false };
    let mut chunk = [0; 4096];
    let mut total = 0;
    loop {
        let read = nix::unistd::read(&file, &mut chunk)?;
        if read == 0 {
            lines.end();
            return Ok(());
        }
        total += read as u64;
        if total > BYTES_MAX {
            return Err(Errno::EFBIG);
        }
        if !lines.add(&chunk[..read]) {
            return Ok(());
        }
    }
}

/// Opens an account file without blocking on what it may be instead (a FIFO, a device), and without
/// following magic links. The caller's root is the container's, so links cannot lead out.
fn open_regular(path: &CStr) -> nix::Result<OwnedFd> {
    let how = OpenHow::new()
        .flags(OFlag::O_RDONLY | OFlag::O_NONBLOCK | OFlag::O_NOCTTY | OFlag::O_CLOEXEC)
        .mode(Mode::empty())
        .resolve(ResolveFlag::RESOLVE_NO_MAGICLINKS);
    // Looked at before it is opened for reading: opening a device or FIFO can have effects.
    let seen = openat2(nix::fcntl::AT_FDCWD, path, how.flags(OFlag::O_PATH | OFlag::O_CLOEXEC))?;
    regular(&seen)?;
    let file = openat2(nix::fcntl::AT_FDCWD, path, how)?;
    let size = regular(&file)?;
    if size > BYTES_MAX {
        return Err(Errno::EFBIG);
    }
    Ok(file)
}

fn regular(file: &OwnedFd) -> nix::Result<u64> {
    let facts = fstat(file.as_fd())?;
    if SFlag::from_bits_truncate(facts.st_mode) & SFlag::S_IFMT != SFlag::S_IFREG {
        return Err(Errno::EINVAL);
    }
    Ok(facts.st_size.unsigned_abs())
}

/// Cuts chunks into lines in a fixed buffer.
struct Lines<F> {
    visit: F,
    line: [u8; LINE_BYTES_MAX],
    length: usize,
    /// Within a line that does not fit.
    skipping: bool,
}

impl<F: FnMut(&[u8]) -> bool> Lines<F> {
    /// `false` when the visitor has seen enough.
    fn add(&mut self, chunk: &[u8]) -> bool {
        for byte in chunk {
            if *byte == b'\n' {
                if !self.end() {
                    return false;
                }
            } else if self.length < LINE_BYTES_MAX {
                self.line[self.length] = *byte;
                self.length += 1;
            } else {
                self.skipping = true;
            }
        }
        true
    }

    fn end(&mut self) -> bool {
        let wanted = self.skipping || (self.visit)(&self.line[..self.length]);
        (self.length, self.skipping) = (0, false);
        wanted
    }
}

#[cfg(any(test, fuzzing))]
pub mod tests {
    use super::*;

    /// The lines of a file read in chunks of `size` are those that any reader finds, but for what is too
    /// long; and an entry is found by its whole name only.
    pub fn agree(file: &[u8], size: usize) {
        let mut found: Vec<Vec<u8>> = Vec::new();
        let visit = |line: &[u8]| {
            found.push(line.to_vec());
            true
        };
        let mut lines = Lines { visit, line: [0; LINE_BYTES_MAX], length: 0, skipping: false };
        assert!(file.chunks(size).all(|chunk| lines.add(chunk)) && lines.end());
        let plain = file.split(|byte| *byte == b'\n');
        let plain: Vec<&[u8]> = plain.filter(|line| line.len() <= LINE_BYTES_MAX).collect();
        assert_eq!(found, plain);
        for line in plain {
            let parts: Vec<&[u8]> = line.split(|byte| *byte == b':').collect();
            let named = fields(line, [0, 2, 3, 5]);
            assert_eq!(named.is_some(), parts.len() > 5);
            if let Some(named) = named {
                assert_eq!(named, [0, 2, 3, 5].map(|place: usize| parts[place]));
            }
        }
    }

    #[test]
    fn ids_are_plain_decimals() {
        for (text, id) in [("0", 0), ("1000", 1000), ("4294967293", 4_294_967_293)] {
            assert_eq!(parse_id(text.as_bytes()), Some(id));
        }
        for text in ["", "00", "01", "-1", "+1", "4294967294", "4294967296", "99999999999", "1a"] {
            assert_eq!(parse_id(text.as_bytes()), None, "{text}");
        }
    }

    #[test]
    fn what_begins_like_a_number_is_a_number_or_an_error() {
        let user = |text: &str| Request::parse(text).map(|request| request.user);
        assert_eq!(user(""), Ok(Name::Number(0)));
        assert_eq!(user("www-data"), Ok(Name::Text("www-data".to_owned())));
        assert_eq!(user("2147483648"), Ok(Name::Number(2_147_483_648)));
        for text in ["4294967296", "-1", "00", "1x", "+0", ":1", "a:", "a:b:c", "a\nb", "root:-1"] {
            assert!(Request::parse(text).is_err(), "{text}");
        }
        assert!(Request::parse("root:99999999999").is_err());
    }

    /// Whatever the text: what is taken as a number is that number as one would write it.
    #[test]
    fn no_text_becomes_another_number() {
        const LETTERS: [char; 20] = [
            '0', '1', '2', '4', '6', '7', '9', '+', '-', ':', 'a', 'x', 'e', '_', ' ', '.', '\n',
            '\0', '\u{660}', '5',
        ];
        let mut state = 0x9e37_79b9_7f4a_7c15_u64;
        let mut below = |end: usize| {
            // xorshift64
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            usize::try_from(state % u64::try_from(end).expect("a usize fits"))
                .expect("below a usize")
        };
        let (mut numbers, mut names) = (0, 0);
        for _ in 0..200_000 {
            let length = below(13);
            let text: String = (0..length).map(|_| LETTERS[below(LETTERS.len())]).collect();
            let Ok(request) = Request::parse(&text) else { continue };
            let shown = |name: &Name| match name {
                Name::Number(id) => id.to_string(),
                Name::Text(text) => text.clone(),
            };
            let mut again = shown(&request.user);
            if let Some(group) = &request.group {
                again = format!("{again}:{}", shown(group));
            }
            assert!(again == text || text.is_empty() && again == "0", "{text:?} became {again:?}");
            let parts = [Some(&request.user), request.group.as_ref()];
            for part in parts.into_iter().flatten() {
                match part {
                    Name::Number(_) => numbers += 1,
                    Name::Text(text) => {
                        names += 1;
                        let first = text.chars().next().expect("a name has letters");
                        assert!(!first.is_ascii_digit() && !"+-".contains(first), "{text:?}");
                    }
                }
            }
        }
        assert!(numbers > 1000 && names > 1000, "{numbers} numbers, {names} names were tried");
    }

    #[test]
    fn lines_are_cut_whatever_the_chunks() {
        let mut seen = Vec::new();
        let visit = |line: &[u8]| {
            seen.push(line.to_vec());
            true
        };
        let mut lines = Lines { visit, line: [0; LINE_BYTES_MAX], length: 0, skipping: false };
        lines.add(b"one\nt");
        lines.add(b"wo\n");
        lines.add(&[b'x'; LINE_BYTES_MAX + 1]);
        lines.add(b"\nlast");
        lines.end();
        assert_eq!(seen, [b"one".to_vec(), b"two".to_vec(), b"last".to_vec()]);
    }

    #[test]
    fn fields_are_found_by_place() {
        assert_eq!(fields(b"a:x:1:2:g:/h:s", [0, 5]), Some([&b"a"[..], &b"/h"[..]]));
        assert_eq!(fields(b"a:x", [0, 2]), None);
    }
}
