//! The supervisor's record of who has which ids, of a backup, beside the one that is here.
//!
//! Ids that were given to somebody on this machine are never given to another: their files may still be
//! here. So a restore adds to the record and takes nothing out of it but people who have no files; what
//! contradicts it is refused.

use std::collections::{BTreeMap, BTreeSet};

use anyhow::{Context, Result, ensure};
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

/// The record, as far as it has to be understood; all else is kept as it is.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Record {
    version: u32,
    layer_first: u64,
    monitor_first: u64,
    people: BTreeMap<String, Row>,
    #[serde(flatten)]
    other: Map<String, Value>,
}

#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
struct Row {
    first_id: u64,
    monitor_uid: u64,
    number: u64,
    #[serde(flatten)]
    other: Map<String, Value>,
}

impl Row {
    fn ids(&self) -> [u64; 3] {
        [self.first_id, self.monitor_uid, self.number]
    }
}

/// What is on this machine that belongs to ids.
#[derive(Debug, Default)]
pub(super) struct Here {
    /// The first ids of those who have files here.
    pub(super) first_ids: BTreeSet<u64>,
    /// Whether layers are unpacked here.
    pub(super) layers: bool,
}

/// The record that is to be here after a restore; `None` when what is here can stay.
///
/// # Errors
/// When both speak of the same files and say different things.
pub(super) fn merged(
    present: Option<&[u8]>,
    backup: &[u8],
    here: &Here,
) -> Result<Option<Vec<u8>>> {
    let backup: Record = read(backup).context("understand the backup's record of people")?;
    let present: Option<Record> =
        present.map(|bytes| read(bytes).context("understand state/people.json")).transpose()?;
    let Some(present) = present else {
        ensure!(
            here.first_ids.is_empty() && !here.layers,
            "files of people or layers are here, but not the record of whose they are \
             (state/people.json): restore into an empty data directory, or move `people` and `layers` away"
        );
        return write(&backup).map(Some);
    };
    ensure!(
        !here.layers || present.layer_first == backup.layer_first,
        "the layers that are here belong to ids from {}, those of the backup to ids from {}: move \
         `layers` away first; images are pulled again",
        present.layer_first,
        backup.layer_first
    );
    let mut whole = backup.clone();
    for (person, row) in &present.people {
        let has_files = here.first_ids.contains(&row.first_id);
        match whole.people.get(person) {
            Some(theirs) if theirs.ids() == row.ids() => {
                whole.people.insert(person.clone(), row.clone());
            }
            Some(_) if has_files => {
                anyhow::bail!(
                    "person {person} has other ids in the backup than on this machine, and files here: \
                     it is not this machine's backup. Restore into an empty data directory (--to)"
                );
            }
            None if has_files || !overlaps(row, &backup) => {
                whole.people.insert(person.clone(), row.clone());
            }
            _ => {}
        }
    }
    let mut seen = BTreeSet::new();
    for (person, row) in &whole.people {
        let free = row.ids().into_iter().enumerate().all(|id| seen.insert(id));
        ensure!(
            free,
            "person {person} has ids that somebody else has on this machine, with files here: it is not \
             this machine's backup. Restore into an empty data directory (--to)"
        );
    }
    if same(&whole, &present) { Ok(None) } else { write(&whole).map(Some) }
}

fn overlaps(row: &Row, record: &Record) -> bool {
    let same = |other: &Row| row.ids().iter().zip(other.ids()).any(|(one, two)| *one == two);
    record.people.values().any(same)
}

/// Whether the two give the same ids to the same people.
fn same(one: &Record, other: &Record) -> bool {
    (one.layer_first, one.monitor_first) == (other.layer_first, other.monitor_first)
        && one.people == other.people
}

fn read(bytes: &[u8]) -> Result<Record> {
    let record: Record = serde_json::from_slice(bytes)?;
    ensure!(record.version == 1, "version {} is not known", record.version);
    Ok(record)
}

fn write(record: &Record) -> Result<Vec<u8>> {
    serde_json::to_vec_pretty(record).context("write the record of people")
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    /// People with the number of the slot that each has.
    fn record(people: &[(u32, u64)]) -> Vec<u8> {
        let row = |slot: u64| {
            json!({"group": 2, "first_id": 65_536 * slot, "monitor_uid": 900_000 + slot,
                "number": slot, "subnet": null})
        };
        let people: BTreeMap<String, Value> =
            people.iter().map(|(person, slot)| (person.to_string(), row(*slot))).collect();
        json!({"version": 1, "layer_first": 1, "monitor_first": 2, "block": [3, 4], "people": people})
            .to_string()
            .into_bytes()
    }

    fn here(slots: &[u64]) -> Here {
        Here { first_ids: slots.iter().map(|slot| 65_536 * slot).collect(), layers: true }
    }

    fn people_of(merged: &[u8]) -> Vec<String> {
        read(merged).expect("a record").people.into_keys().collect()
    }

    #[test]
    fn what_this_machine_knows_beyond_the_backup_stays() {
        let (present, backup) = (record(&[(1000, 2), (1001, 3)]), record(&[(1000, 2)]));
        assert_eq!(merged(Some(&present), &backup, &here(&[2, 3])).expect("fits"), None);
        let (present, backup) = (record(&[(1000, 2)]), record(&[(1000, 2), (1001, 3)]));
        let whole = merged(Some(&present), &backup, &here(&[2])).expect("fits").expect("more");
        assert_eq!(people_of(&whole), ["1000", "1001"]);
        let text = String::from_utf8(whole).expect("JSON");
        assert!(text.contains("\"block\"") && text.contains("\"subnet\""), "{text}");
    }

    #[test]
    fn a_machine_set_up_anew_takes_the_backups_unless_files_speak_against_it() {
        let (present, backup) = (record(&[(5000, 2)]), record(&[(1000, 2), (1001, 3)]));
        let fresh = Here::default();
        let whole = merged(Some(&present), &backup, &fresh).expect("fits").expect("other");
        assert_eq!(people_of(&whole), ["1000", "1001"]);
        let refused = merged(Some(&present), &backup, &here(&[2])).expect_err("files are here");
        assert!(refused.to_string().contains("not this machine's backup"), "{refused}");
        let moved = record(&[(1000, 3)]);
        assert!(merged(Some(&moved), &backup, &here(&[3])).is_err());
        assert!(merged(None, &backup, &here(&[2])).is_err());
        assert!(merged(None, &backup, &fresh).expect("fits").is_some());
    }
}
