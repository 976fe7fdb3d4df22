//! How fast somebody's containers may send and receive: a table of their own, `<instance>_rates`, in which each person
//! with a rate, or whose group has one, has two chains, one for each way, and so has each such group.
//!
//! What is above the rate is dropped, to which TCP adapts; who was quiet may catch up for a second (the kernel's
//! bucket). It is counted where a person's bridge meets the host, after the rules that say what may pass at all; what
//! one's containers send each other is not counted. A change makes only the chains anew that differ: a chain
//! that is made begins with a full bucket, which must not be had by starting containers.
//!
//! The table is the supervisor's alone, which makes all changes itself, one after the other.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use super::{Error, table};

/// Bytes beyond those of a second that may come at once: no packet is larger, offloaded ones included.
const BURST_BYTES: u64 = 128 << 10;

/// Rates in bytes per second, each way.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Rates {
    /// People by the number of their bridge: their own rate, and their group.
    pub people: BTreeMap<u32, (Option<u64>, u32)>,
    /// Those people's groups.
    pub groups: BTreeMap<u32, Option<u64>>,
}

impl Rates {
    /// Whether nobody has any.
    pub fn is_empty(&self) -> bool {
        self.people.is_empty()
    }
}

/// Makes the table say what `rates` says, where it says `before`; nothing before is a table to be made anew.
pub fn change(instance: &str, before: &Rates, rates: &Rates) -> Result<(), Error> {
    match (before.is_empty(), rates.is_empty()) {
        (_, true) => table::delete(&table_name(instance)),
        (true, false) => table::run_nft(&(made(instance) + &changed(instance, before, rates))),
        (false, false) => table::run_nft(&changed(instance, before, rates)),
    }
}

/// Whether the kernel has the table.
pub fn exists(instance: &str) -> Result<bool, Error> {
    table::exists(&table_name(instance))
}

/// The table's name.
pub fn table_name(instance: &str) -> String {
    format!("{instance}_rates")
}

/// The table without anybody in it, as text for `nft -f -`, whatever was there.
fn made(instance: &str) -> String {
    let name = table_name(instance);
    format!(
        r#"table inet {name}
delete table inet {name}
table inet {name} {{
    map from {{
        typeof iifname : verdict
    }}
    map to {{
        typeof oifname : verdict
    }}
    chain passed {{
        type filter hook forward priority 10; policy accept;
        iifname vmap @from
        oifname vmap @to
    }}
    chain arrived {{
        type filter hook input priority 10; policy accept;
        iifname vmap @from
    }}
    chain sent {{
        type filter hook output priority 10; policy accept;
        oifname vmap @to
    }}
}}
"#
    )
}

/// What differs, as commands.
fn changed(instance: &str, before: &Rates, rates: &Rates) -> String {
    let name = table_name(instance);
    let mut text = String::new();
    // Writing to a string cannot fail.
    let mut line = |line: String| writeln!(text, "{line}").expect("a string takes everything");
    let limit =
        |rate: u64| format!("limit rate over {rate} bytes/second burst {BURST_BYTES} bytes drop");
    for (group, rate) in &rates.groups {
        if before.groups.get(group) == Some(rate) {
            continue;
        }
        for way in ["from", "to"] {
            line(format!("add chain inet {name} {way}_g{group}"));
            line(format!("flush chain inet {name} {way}_g{group}"));
            if let Some(rate) = rate {
                line(format!("add rule inet {name} {way}_g{group} {}", limit(*rate)));
            }
        }
    }
    for (slot, person) in &rates.people {
        if before.people.get(slot) == Some(person) {
            continue;
        }
        let (rate, group) = person;
        let bridge = format!("\"{instance}-{slot}\"");
        for (way, other) in [("from", "oifname"), ("to", "iifname")] {
            line(format!("add chain inet {name} {way}_{slot}"));
            line(format!("flush chain inet {name} {way}_{slot}"));
            line(format!("add rule inet {name} {way}_{slot} {other} {bridge} return"));
            if let Some(rate) = rate {
                line(format!("add rule inet {name} {way}_{slot} {}", limit(*rate)));
            }
            line(format!("add rule inet {name} {way}_{slot} jump {way}_g{group}"));
            line(format!("add element inet {name} {way} {{ {bridge} : jump {way}_{slot} }}"));
        }
    }
    text
}
