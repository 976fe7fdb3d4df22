//! Who holds which host ids: the supervisor's own record, `state/people.json`.
//!
//! The block of the configuration is cut in slots of 65,536 ids. Slot 0 is the layers', slot 1 holds
//! one uid per person for their monitors, people have the slots from 2. A row is never removed, so a
//! slot is never given twice. Slots that touch ids which this host uses (`/etc/passwd`, `/etc/subuid`
//! and their group files) are passed over. A record that is missing while data of people is there, or
//! that cannot be read, stops the start: guessing would give one person's files to another.

use std::collections::BTreeMap;
use std::net::Ipv4Addr;
use std::os::fd::{AsFd, OwnedFd};

use serde::{Deserialize, Serialize};

use berth_runtime::config::{RANGE_IDS, RuntimeConfig};
use berth_runtime::id::PrincipalId;
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire::{PersonRange, Total};

use crate::disk::Image;
use crate::files::{self, Durability, FileError};
use crate::network::{self, Pool, Subnet};

const FILE: &str = "people.json";
const FILE_BYTES_MAX: u64 = 16 << 20;
/// The first id of a person; lower ones are the system, the groups and a reserve.
const PERSON_FIRST: u32 = 1000;
/// Groups with a total, at most.
const GROUPS_MAX: usize = 10_000;
/// The first slot that a person may hold.
const SLOT_FIRST: u32 = 2;

/// The record.
#[derive(Debug)]
pub(crate) struct People {
    directory: OwnedFd,
    content: Content,
    taken: Vec<(u64, u64)>,
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Content {
    version: u32,
    /// First id of the layers' range.
    layer_first: u32,
    /// First of the monitors' uids.
    monitor_first: u32,
    /// First and last id of the block that new ranges come from.
    block: (u32, u32),
    people: BTreeMap<PrincipalId, Row>,
    /// Groups that have a total.
    #[serde(default)]
    groups: BTreeMap<PrincipalId, Total>,
}

#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
struct Row {
    group: PrincipalId,
    first_id: u32,
    monitor_uid: u32,
    /// Counts people from 0; names their bridge.
    number: u32,
    /// Network address and prefix length, from the first container with a network on.
    #[serde(default)]
    subnet: Option<(Ipv4Addr, u8)>,
    /// What all that runs for them may use together.
    #[serde(default)]
    total: Total,
    /// The file system that holds what they keep; without one it is in the store that all share.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    data: Option<Image>,
}

/// One person, as privileged code knows them.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct Person {
    /// Who.
    pub(crate) person: PrincipalId,
    /// Whose resources they count to.
    pub(crate) group: PrincipalId,
    /// The first of their 65,536 ids.
    pub(crate) first_id: u32,
    /// What their monitors run as.
    pub(crate) monitor_uid: u32,
    /// Counts people from 0; names their bridge.
    pub(crate) number: u32,
    /// What all that runs for them may use together.
    #[serde(default)]
    pub(crate) total: Total,
    /// The file system that holds what they keep; without one it is in the store that all share.
    #[serde(default)]
    pub(crate) data: Option<Image>,
}

impl People {
    /// Reads the record from `state`, or starts one when `fresh` says that nobody's data is there.
    pub(crate) fn load(
        state: impl AsFd,
        config: &RuntimeConfig,
        fresh: bool,
    ) -> Result<Self, FileError> {
        let directory = state
            .as_fd()
            .try_clone_to_owned()
            .map_err(FileError::io("duplicate the descriptor of", "state"))?;
        let taken = taken_ids();
        let bad = |reason: String| FileError::Content { object: FILE.into(), reason };
        let content = match files::read(&directory, FILE, FILE_BYTES_MAX)? {
            Some(bytes) => {
                serde_json::from_slice::<Content>(&bytes).map_err(|error| bad(error.to_string()))?
            }
            None if fresh => Content::new(config, &taken).ok_or_else(|| {
                bad("the first two ranges of the block [runtime] id_first..id_last are not free \
                     on this host (see /etc/subuid, /etc/subgid, /etc/passwd)"
                    .into())
            })?,
            None => return Err(bad("it is missing while containers' data is there".into())),
        };
        if content.version != 1 {
            return Err(bad(format!("version {} is not known to this build", content.version)));
        }
        let mut people = Self { directory, content, taken };
        people.content.block = (config.id_first, config.id_last);
        people.save()?;
        Ok(people)
    }

    /// First id of the range that unpacked layers lie in.
    pub(crate) fn layer_first(&self) -> u32 {
        self.content.layer_first
    }

    /// The person, if the record has them.
    pub(crate) fn get(&self, person: PrincipalId) -> Option<Person> {
        let row = self.content.people.get(&person)?;
        Some(Person {
            person,
            group: row.group,
            first_id: row.first_id,
            monitor_uid: row.monitor_uid,
            number: row.number,
            total: row.total,
            data: row.data,
        })
    }

    /// A person as the server is told.
    pub(crate) fn range(&self, person: &Person) -> PersonRange {
        PersonRange {
            person: person.person,
            group: person.group,
            first_id: person.first_id,
            ids: RANGE_IDS,
            total: person.total,
            group_total: self.group_total(person.group),
            data_bytes: person.data.map(|image| image.bytes),
        }
    }

    /// What all that runs for a group may use together.
    pub(crate) fn group_total(&self, group: PrincipalId) -> Total {
        self.content.groups.get(&group).copied().unwrap_or_default()
    }

    /// Whether a group of this id can have a total.
    pub(crate) fn check_group(&self, group: PrincipalId) -> Result<(), Failure> {
        check_group(group)?;
        let full = self.content.groups.len() >= GROUPS_MAX;
        if full && !self.content.groups.contains_key(&group) {
            let message = format!("{GROUPS_MAX} groups have a total, and no more can");
            return Err(Failure::new(FailureClass::Exhausted, "group.too-many", message));
        }
        Ok(())
    }

    /// Writes down what all that runs for somebody may use together.
    pub(crate) fn set_total(&mut self, person: PrincipalId, total: Total) -> Result<(), Failure> {
        self.known(person)?;
        let before = self.content.clone();
        if let Some(row) = self.content.people.get_mut(&person) {
            row.total = total;
        }
        self.save_or(before)
    }

    /// Writes down what all that runs for a group may use together.
    pub(crate) fn set_group_total(
        &mut self,
        group: PrincipalId,
        total: Total,
    ) -> Result<(), Failure> {
        let before = self.content.clone();
        if total == Total::FREE {
            self.content.groups.remove(&group);
        } else {
            self.check_group(group)?;
            self.content.groups.insert(group, total);
        }
        self.save_or(before)
    }

    /// Saves, or goes back to what was before.
    fn save_or(&mut self, before: Content) -> Result<(), Failure> {
        self.save().map_err(|error| {
            self.content = before;
            let message = format!("keep the record of people: {error}");
            Failure::new(FailureClass::Unavailable, "person.record", message)
        })
    }

    /// Writes down where all that a person keeps is from now on.
    pub(crate) fn set_data(
        &mut self,
        person: PrincipalId,
        data: Option<Image>,
    ) -> Result<(), Failure> {
        self.known(person)?;
        let before = self.content.clone();
        if let Some(row) = self.content.people.get_mut(&person) {
            row.data = data;
        }
        self.save_or(before)
    }

    /// Everybody after `after`, by ascending id.
    pub(crate) fn after(&self, after: Option<PrincipalId>) -> impl Iterator<Item = Person> + '_ {
        let lower = after.map_or(0, |id| id.0.saturating_add(1));
        let upper = if after == Some(PrincipalId(u32::MAX)) { 0 } else { usize::MAX };
        self.content
            .people
            .range(PrincipalId(lower)..)
            .take(upper)
            .filter_map(|(id, _)| self.get(*id))
    }

    /// Gives `person` a range, or confirms the one they have. `busy` says that something of theirs
    /// runs, which holds their group as it is.
    pub(crate) fn add(
        &mut self,
        person: PrincipalId,
        group: PrincipalId,
        busy: bool,
    ) -> Result<Person, Failure> {
        if person != PrincipalId::SYSTEM && person.0 < PERSON_FIRST {
            let message =
                format!("{person} is no person's id: those are 1 and from {PERSON_FIRST}");
            return Err(Failure::new(FailureClass::Invalid, "person.id", message));
        }
        check_group(group)?;
        let before = self.content.clone();
        match self.content.people.get_mut(&person) {
            Some(row) if row.group == group => return self.known(person),
            Some(_) if busy => {
                let message = "the group cannot change while a container of the person runs";
                return Err(Failure::new(FailureClass::Conflict, "person.busy", message));
            }
            Some(row) => row.group = group,
            None => self.insert(person, group)?,
        }
        self.save_or(before)?;
        self.known(person)
    }

    /// The person's subnet, chosen at the first call. One that the pool does not hold any more, because
    /// the operator has changed it, is chosen anew.
    pub(crate) fn subnet(&mut self, person: PrincipalId, pool: Pool) -> Result<Subnet, Failure> {
        let subnet = |(network, prefix)| Subnet::containing(network, prefix);
        let usable = |subnet: &Subnet| pool.whole().contains(subnet.network());
        let row = self.content.people.get(&person);
        if let Some(held) = row.and_then(|row| row.subnet).map(subnet).filter(usable) {
            return Ok(held);
        }
        let others = self.content.people.values().filter_map(|row| row.subnet).map(subnet);
        let chosen = pool.choose(&others.collect::<Vec<_>>(), &network::host_routes()?)?;
        if let Some(row) = self.content.people.get_mut(&person) {
            row.subnet = Some((chosen.network(), chosen.prefix()));
        }
        self.save().map_err(|error| {
            let message = format!("keep the record of people: {error}");
            Failure::new(FailureClass::Unavailable, "person.record", message)
        })?;
        Ok(chosen)
    }

    fn known(&self, person: PrincipalId) -> Result<Person, Failure> {
        self.get(person).ok_or_else(|| {
            let message = format!("person {person} is not known to the supervisor");
            Failure::new(FailureClass::NotFound, "person.unknown", message)
        })
    }

    fn insert(&mut self, person: PrincipalId, group: PrincipalId) -> Result<(), Failure> {
        let exhausted = |what: &str| {
            let message = format!("no {what} is left in the block [runtime] id_first..id_last");
            Failure::new(FailureClass::Exhausted, "person.ids", message)
        };
        let first_id = self.free_range().ok_or_else(|| exhausted("id range"))?;
        let number = u32::try_from(self.content.people.len()).map_err(|_| exhausted("number"))?;
        if number >= RANGE_IDS {
            return Err(exhausted("monitor's uid"));
        }
        let monitor_uid = self.content.monitor_first + number;
        self.content.people.insert(
            person,
            Row {
                group,
                first_id,
                monitor_uid,
                number,
                subnet: None,
                total: Total::FREE,
                data: None,
            },
        );
        Ok(())
    }

    fn free_range(&self) -> Option<u32> {
        let held: std::collections::BTreeSet<u32> = self
            .content
            .people
            .values()
            .map(|row| row.first_id)
            .chain([self.content.layer_first, self.content.monitor_first])
            .collect();
        let (first, last) = self.content.block;
        let free = |candidate: &u32| {
            // The block may have been moved by less than a range, so neighbours count as well.
            let low = candidate.saturating_sub(RANGE_IDS - 1);
            held.range(low..=*candidate + (RANGE_IDS - 1)).next().is_none()
                && is_free(*candidate, &self.taken)
        };
        slots(first, last).skip(SLOT_FIRST as usize).find(free)
    }

    fn save(&self) -> Result<(), FileError> {
        let bad = |error: serde_json::Error| FileError::Content {
            object: FILE.into(),
            reason: error.to_string(),
        };
        let bytes = serde_json::to_vec_pretty(&self.content).map_err(bad)?;
        if files::read(&self.directory, FILE, FILE_BYTES_MAX)?.as_deref() == Some(&bytes) {
            return Ok(());
        }
        files::replace(&self.directory, FILE, &bytes, Durability::Synced)
    }
}

impl Content {
    fn new(config: &RuntimeConfig, taken: &[(u64, u64)]) -> Option<Self> {
        let mut first = slots(config.id_first, config.id_last);
        let layer_first = first.next().filter(|slot| is_free(*slot, taken))?;
        let monitor_first = first.next().filter(|slot| is_free(*slot, taken))?;
        let block = (config.id_first, config.id_last);
        Some(Self {
            version: 1,
            layer_first,
            monitor_first,
            block,
            people: BTreeMap::new(),
            groups: BTreeMap::new(),
        })
    }
}

fn check_group(group: PrincipalId) -> Result<(), Failure> {
    if group != PrincipalId::DEFAULT_GROUP && group.0 < PERSON_FIRST {
        let message = format!("{group} is no group's id");
        return Err(Failure::new(FailureClass::Invalid, "person.group", message));
    }
    Ok(())
}

/// The first ids of the whole slots between `first` and `last`.
fn slots(first: u32, last: u32) -> impl Iterator<Item = u32> {
    let count = (u64::from(last) + 1).saturating_sub(u64::from(first)) / u64::from(RANGE_IDS);
    let count = u32::try_from(count).unwrap_or(0);
    (0..count).map(move |slot| first + slot * RANGE_IDS)
}

fn is_free(first: u32, taken: &[(u64, u64)]) -> bool {
    let (low, high) = (u64::from(first), u64::from(first) + u64::from(RANGE_IDS));
    !taken.iter().any(|(from, to)| *from < high && low < *to)
}

/// The ids that this host uses, as half-open intervals.
fn taken_ids() -> Vec<(u64, u64)> {
    let mut taken = Vec::new();
    for path in ["/etc/subuid", "/etc/subgid"] {
        taken.extend(lines(path).iter().filter_map(|line| {
            let mut fields = line.split(':').skip(1);
            let first: u64 = fields.next()?.trim().parse().ok()?;
            let count: u64 = fields.next()?.trim().parse().ok()?;
            Some((first, first.saturating_add(count)))
        }));
    }
    for (path, fields) in [("/etc/passwd", &[2, 3][..]), ("/etc/group", &[2][..])] {
        for line in lines(path) {
            let ids = fields.iter().filter_map(|field| line.split(':').nth(*field)?.parse().ok());
            taken.extend(ids.map(|id: u64| (id, id + 1)));
        }
    }
    taken
}

fn lines(path: &str) -> Vec<String> {
    // A host without /etc/subuid has given nobody subordinate ids.
    let bytes = std::fs::read(path).unwrap_or_default();
    String::from_utf8_lossy(&bytes).lines().map(str::to_owned).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slots_are_whole_ranges_of_the_block() {
        assert_eq!(slots(0x10000, 0x3_FFFF).collect::<Vec<_>>(), [0x10000, 0x20000, 0x30000]);
        assert_eq!(slots(0x10000, 0x1_FFFE).count(), 0);
        assert_eq!(slots(0x20000, 0x10000).count(), 0);
        let default = RuntimeConfig::default();
        assert_eq!(slots(default.id_first, default.id_last).count(), 2245);
    }

    #[test]
    fn a_range_that_touches_a_used_id_is_not_free() {
        let taken = [(0x2_0005, 0x2_0006), (0x4_FFFF, 0x5_0001)];
        for (first, expected) in
            [(0x10000, true), (0x20000, false), (0x30000, true), (0x40000, false), (0x50000, false)]
        {
            assert_eq!(is_free(first, &taken), expected, "{first:#x}");
        }
    }
}
