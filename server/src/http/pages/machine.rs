//! The machine now, for those who oversee it: what it has, what is used, and by whom.

use berth_web::format::{bytes, bytes_of, cores_used, count, percent, span};
use berth_web::home::{MachineNow, PersonShare, Stack};
use berth_web::parts::Meter;

use super::frame::leads;
use crate::app::App;
use crate::auth::Caller;
use crate::error::Result;
use crate::service::machine::{Disk, Pressure};
use crate::service::usage::{self, MachineUsage, PersonUsage, SystemUsage};

/// People with a hue of their own in the bars, and a row.
const HUES: usize = 6;
const PEOPLE_MAX: usize = 8;

/// What the machine and everybody on it use.
pub(super) async fn now(app: &App, caller: &Caller) -> Result<MachineNow> {
    let usage = usage::system(app).await?;
    let machine = &usage.machine;
    let person = leads("/people/{id}", Some(caller)).is_some();
    let shown = usage.people.iter().take(PEOPLE_MAX).enumerate();
    Ok(MachineNow {
        readouts: readouts(machine),
        note: format!(
            "{} containers run; up for {}",
            count(usage.containers.running),
            span(machine.uptime_secs)
        ),
        people: shown.map(|(place, who)| share(place, who, machine, person)).collect(),
        people_more: usage.people_total.saturating_sub(PEOPLE_MAX as u64),
        bars: bars(&usage),
    })
}

fn readouts(machine: &MachineUsage) -> Vec<Meter> {
    let cpus = u64::from(machine.cpus);
    let (load, memory) = (&machine.load, &machine.memory);
    let mut out = vec![
        Meter {
            key: "cpu",
            label: "Processor".to_owned(),
            text: format!("{} of {cpus} cores", cores_used(machine.cpu_used_millis)),
            percent: Some(percent(machine.cpu_used_millis, cpus * 1000)),
            note: format!(
                "load {:.1}, {:.1}, {:.1}",
                load.minutes_1, load.minutes_5, load.minutes_15
            ),
        },
        Meter {
            key: "memory",
            label: "Memory".to_owned(),
            text: bytes_of(memory.used_bytes, memory.total_bytes),
            percent: Some(percent(memory.used_bytes, memory.total_bytes)),
            note: match memory.swap_used_bytes {
                0 => "no swap in use".to_owned(),
                used => format!("swap {}", bytes_of(used, memory.swap_total_bytes)),
            },
        },
    ];
    out.extend(machine.disk.as_ref().map(disk));
    out.push(pressure(machine.pressure.as_ref()));
    out
}

fn disk(disk: &Disk) -> Meter {
    let used = disk.total_bytes.saturating_sub(disk.available_bytes);
    Meter {
        key: "disk",
        label: "Disk".to_owned(),
        text: bytes_of(used, disk.total_bytes),
        percent: Some(percent(used, disk.total_bytes)),
        note: format!("{} left for images and files", bytes(disk.available_bytes)),
    }
}

/// The share of the last minute in which work stood still for want of something.
fn pressure(pressure: Option<&Pressure>) -> Meter {
    let (text, note) = match pressure {
        None => ("–".to_owned(), "this kernel does not count it".to_owned()),
        Some(p) => {
            let of = [p.cpu, p.memory, p.io].map(|of| of.some_percent_60s);
            let [cpu, memory, io] = of;
            let most = of.into_iter().fold(0.0, f64::max);
            (
                format!("{most:.1} %"),
                format!("processor {cpu:.1}, memory {memory:.1}, disk {io:.1}"),
            )
        }
    };
    Meter { key: "pressure", label: "Waiting".to_owned(), text, percent: None, note }
}

fn share(place: usize, who: &PersonUsage, machine: &MachineUsage, has_page: bool) -> PersonShare {
    let (usage, cpus) = (&who.usage, u64::from(machine.cpus));
    let meter = |key, label: &str, text, share| Meter {
        key,
        label: label.to_owned(),
        text,
        percent: Some(share),
        note: String::new(),
    };
    PersonShare {
        id: who.person.id.to_string(),
        name: who.person.name.clone(),
        path: if has_page { format!("/people/{}", who.person.id) } else { String::new() },
        hue: hue(place),
        containers: format!("{} of {} run", usage.containers.running, usage.containers.total),
        cpu: meter(
            "cpu",
            "Processor",
            format!("{} of {cpus} cores", cores_used(usage.cpu.used_millis)),
            percent(usage.cpu.used_millis, cpus * 1000),
        ),
        memory: meter(
            "memory",
            "Memory",
            bytes_of(usage.memory.used_bytes, machine.memory.total_bytes),
            percent(usage.memory.used_bytes, machine.memory.total_bytes),
        ),
        images: bytes(usage.images.bytes),
    }
}

/// The first six have a hue each; the rest share one.
fn hue(place: usize) -> usize {
    if place < HUES { place + 1 } else { 0 }
}

fn bars(usage: &SystemUsage) -> Vec<Stack> {
    let cpus = u64::from(usage.machine.cpus) * 1000;
    let memory = usage.machine.memory.total_bytes;
    vec![
        bar("Processor", &usage.people, |who| who.usage.cpu.used_millis, cpus),
        bar("Memory", &usage.people, |who| who.usage.memory.used_bytes, memory),
    ]
}

fn bar(
    label: &'static str,
    people: &[PersonUsage],
    of: impl Fn(&PersonUsage) -> u64,
    whole: u64,
) -> Stack {
    let thousandths = |used: u64| {
        let share = u128::from(used) * 1000 / u128::from(whole.max(1));
        u32::try_from(share).unwrap_or(1000).min(1000)
    };
    let mut parts: Vec<(usize, u32)> = Vec::new();
    let mut rest = 0;
    for (place, who) in people.iter().enumerate() {
        match hue(place) {
            0 => rest += of(who),
            hue => parts.push((hue, thousandths(of(who)))),
        }
    }
    parts.push((0, thousandths(rest)));
    parts.retain(|(_, share)| *share > 0);
    let named = people.iter().take(HUES).map(|who| {
        let share = thousandths(of(who));
        format!("{} {}.{} %", who.person.name, share / 10, share % 10)
    });
    let summary = format!("{label} in use by person: {}", named.collect::<Vec<_>>().join(", "));
    Stack { label, summary, parts }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn six_people_have_a_hue_and_the_rest_share_one() {
        assert_eq!((0..8).map(hue).collect::<Vec<_>>(), [1, 2, 3, 4, 5, 6, 0, 0]);
    }

    #[test]
    fn pressure_that_is_not_counted_is_not_made_up() {
        assert_eq!(pressure(None).text, "–");
    }
}
