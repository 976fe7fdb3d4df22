//! The points on disk: one small file, replaced whole. It is a convenience: nothing waits for it to
//! reach the disk, and whatever is wrong with it means that there is no history.
//!
//! Form: magic, then for each container its id (16 bytes), the number of points and the points (seven
//! numbers of four bytes each), all little-endian; at the end the SHA-256 of all before it.

use std::collections::HashMap;
use std::fs::{File, OpenOptions};
use std::io::{Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use anyhow::{Context, Result, bail, ensure};
use berth_runtime::id::ContainerId;
use sha2::{Digest, Sha256};

use super::RINGS_MAX;
use super::ring::{POINTS_MAX, Point, Ring};

/// Changes with the form.
const MAGIC: &[u8; 16] = b"berth history 1\n";
const ID_BYTES: usize = 16;
const HASH_BYTES: usize = 32;
const POINT_BYTES: usize = 28;
const FILE_BYTES_MAX: usize = RINGS_MAX * (ID_BYTES + 4 + POINTS_MAX * POINT_BYTES) + 64;

/// The rings with points in the file's form.
pub(super) fn encode(rings: &HashMap<ContainerId, Ring>) -> Vec<u8> {
    let points: usize = rings.values().map(|ring| ring.points.len()).sum();
    let mut out = Vec::with_capacity(64 + rings.len() * (ID_BYTES + 4) + points * POINT_BYTES);
    out.extend_from_slice(MAGIC);
    for (id, ring) in rings.iter().filter(|(_, ring)| ring.has_points()) {
        let Some(id) = bytes_of(id) else { continue };
        let Ok(count) = u32::try_from(ring.points.len()) else { continue };
        out.extend_from_slice(&id);
        out.extend_from_slice(&count.to_le_bytes());
        for point in &ring.points {
            for number in numbers(point) {
                out.extend_from_slice(&number.to_le_bytes());
            }
        }
    }
    let hash = Sha256::digest(&out);
    out.extend_from_slice(&hash);
    out
}

/// The rings of a file in that form.
pub(super) fn decode(bytes: &[u8]) -> Result<HashMap<ContainerId, Ring>> {
    let Some((body, hash)) = bytes.split_last_chunk::<HASH_BYTES>() else { bail!("it is cut off") };
    ensure!(Sha256::digest(body).as_slice() == hash, "it is torn");
    let mut rest = body.strip_prefix(MAGIC).context("it is another version's")?;
    let mut rings = HashMap::new();
    while !rest.is_empty() {
        ensure!(rings.len() < RINGS_MAX, "it names more than {RINGS_MAX} containers");
        let id = ContainerId::from_bytes(take::<ID_BYTES>(&mut rest)?);
        let count = u32::from_le_bytes(take(&mut rest)?);
        ensure!(count as usize <= POINTS_MAX, "it holds {count} points of one container");
        let mut ring = Ring::default();
        for _ in 0..count {
            ring.points.push_back(point(&mut rest)?);
        }
        rings.insert(id, ring);
    }
    Ok(rings)
}

/// Replaces the file.
pub(super) fn write(path: &Path, bytes: &[u8]) -> Result<()> {
    let new = path.with_extension("new");
    let mut options = OpenOptions::new();
    options.write(true).create(true).truncate(true).mode(0o600);
    let mut file = options.open(&new).with_context(|| format!("open {}", new.display()))?;
    file.write_all(bytes).with_context(|| format!("write {}", new.display()))?;
    std::fs::rename(&new, path).with_context(|| format!("rename to {}", path.display()))
}

/// The file's rings; none when there is no file.
pub(super) fn read(path: &Path) -> Result<HashMap<ContainerId, Ring>> {
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(HashMap::new()),
        Err(error) => return Err(error).with_context(|| format!("open {}", path.display())),
    };
    let mut bytes = Vec::new();
    let limit = FILE_BYTES_MAX as u64 + 1;
    file.take(limit).read_to_end(&mut bytes).with_context(|| format!("read {}", path.display()))?;
    ensure!(bytes.len() <= FILE_BYTES_MAX, "{} is too large", path.display());
    decode(&bytes).with_context(|| format!("use {}", path.display()))
}

fn numbers(point: &Point) -> [u32; 7] {
    [
        point.at,
        point.cpu_millis,
        point.used_kib,
        point.working_set_kib,
        point.pids,
        point.read_units,
        point.write_units,
    ]
}

fn point(rest: &mut &[u8]) -> Result<Point> {
    let mut number = || take(rest).map(u32::from_le_bytes);
    Ok(Point {
        at: number()?,
        cpu_millis: number()?,
        used_kib: number()?,
        working_set_kib: number()?,
        pids: number()?,
        read_units: number()?,
        write_units: number()?,
    })
}

fn take<const N: usize>(rest: &mut &[u8]) -> Result<[u8; N]> {
    let (taken, left) = rest.split_first_chunk::<N>().context("it is cut off")?;
    *rest = left;
    Ok(*taken)
}

fn bytes_of(id: &ContainerId) -> Option<[u8; ID_BYTES]> {
    let number = u128::from_str_radix(id.as_str(), 16).ok()?;
    Some(number.to_be_bytes())
}

#[cfg(test)]
mod tests {
    use super::super::ring::tests::filled;
    use super::*;

    fn rings() -> HashMap<ContainerId, Ring> {
        let id = |byte| ContainerId::from_bytes([byte; ID_BYTES]);
        [(id(0xab), filled(400)), (id(1), filled(3)), (id(2), Ring::default())].into()
    }

    #[test]
    fn what_is_written_is_read_again() {
        let rings = rings();
        let bytes = encode(&rings);
        assert!(bytes.len() <= 2 * (POINTS_MAX * POINT_BYTES + 20) + 64);
        let read = decode(&bytes).expect("our own form");
        assert_eq!(read.len(), 2, "what has no points is not kept");
        for (id, ring) in &read {
            assert_eq!(ring.points, rings[id].points);
        }
    }

    #[test]
    fn what_is_torn_or_foreign_is_refused() {
        let bytes = encode(&rings());
        for end in [0, 10, 31, 32, bytes.len() / 2, bytes.len() - 1] {
            assert!(decode(&bytes[..end]).is_err(), "{end}");
        }
        for at in [0, 20, bytes.len() - 1] {
            let mut bent = bytes.clone();
            bent[at] ^= 1;
            assert!(decode(&bent).is_err(), "{at}");
        }
        // A sum that fits does not make room for more than there may be.
        let mut greedy = MAGIC.to_vec();
        greedy.extend_from_slice(&[7; ID_BYTES]);
        greedy.extend_from_slice(&u32::MAX.to_le_bytes());
        let hash = Sha256::digest(&greedy);
        greedy.extend_from_slice(&hash);
        assert!(decode(&greedy).is_err());
    }
}
