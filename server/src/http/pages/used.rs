//! What is used of what may be, as meters.

use berth_runtime::id::PrincipalId;
use berth_web::format::{bytes, bytes_of, cores, cores_used, count, percent};
use berth_web::parts::Meter;

use crate::app::App;
use crate::auth::Caller;
use crate::service::data::{self, PendingData};
use crate::service::usage::Usage;

/// Containers, processor, memory, processes and images of one person.
pub(super) fn gauges(usage: &Usage) -> Vec<Meter> {
    let containers = &usage.containers;
    vec![
        Meter {
            key: "running",
            label: "Running".to_owned(),
            text: format!("{} of {}", containers.running, containers.total),
            percent: None,
            note: format!("{} containers at most", count(containers.max)),
        },
        cpu(usage),
        memory(usage),
        Meter {
            key: "pids",
            label: "Processes".to_owned(),
            text: format!("{} of {}", count(usage.pids.used), count(usage.pids.limit)),
            percent: on(usage, percent(usage.pids.used, usage.pids.limit)),
            note: together(usage.allowance.pids.map(|most| count(most.into()))),
        },
        Meter {
            key: "images",
            label: "Images".to_owned(),
            text: match usage.allowance.images_bytes {
                Some(most) => bytes_of(usage.images.bytes, most),
                None => bytes(usage.images.bytes),
            },
            percent: usage.allowance.images_bytes.map(|most| percent(usage.images.bytes, most)),
            note: match usage.images.count {
                1 => "1 image, each layer counted once".to_owned(),
                many => format!("{} images, each layer counted once", count(many)),
            },
        },
    ]
}

/// What is kept on disk, where something bounds it or is to bound it; nothing while the supervisor is away.
pub(super) async fn data(app: &App, caller: &Caller, person: PrincipalId) -> Option<Meter> {
    let data = data::of_person(app, caller, person).await.ok()?;
    let meter = match (data.used_bytes, data.limit_bytes) {
        (Some(used), Some(most)) => (bytes_of(used, most), Some(percent(used, most))),
        _ => ("not bounded".to_owned(), None),
    };
    if data.limit_bytes.is_none() && data.pending.is_none() {
        return None;
    }
    let note = match data.pending {
        None => "written by containers, volumes, uploads; nobody else can fill it".to_owned(),
        Some(PendingData { limit_bytes, reason }) => {
            let then = limit_bytes.map_or_else(|| "no bound".to_owned(), bytes);
            format!("to be {then}: {reason}")
        }
    };
    let (text, percent) = meter;
    Some(Meter { key: "data", label: "Kept on disk".to_owned(), text, percent, note })
}

/// Processor use.
pub(super) fn cpu(usage: &Usage) -> Meter {
    let (used, limit) = (usage.cpu.used_millis, usage.cpu.limit_millis);
    Meter {
        key: "cpu",
        label: "Processor".to_owned(),
        text: format!("{} of {} cores", cores_used(used), cores(limit)),
        percent: on(usage, percent(used, limit)),
        note: together(
            usage.allowance.cpu_millis.map(|most| format!("{} cores", cores(most.into()))),
        ),
    }
}

/// What the running ones may use together is less than what each may.
fn together(most: Option<String>) -> String {
    match most {
        Some(most) => format!("of the running ones’ own limits; {most} together"),
        None => "of what the running ones may use".to_owned(),
    }
}

/// Memory use.
pub(super) fn memory(usage: &Usage) -> Meter {
    let memory = &usage.memory;
    Meter {
        key: "memory",
        label: "Memory".to_owned(),
        text: bytes_of(memory.used_bytes, memory.limit_bytes),
        percent: on(usage, percent(memory.used_bytes, memory.limit_bytes)),
        note: match memory.swap_used_bytes {
            0 => together(usage.allowance.memory_bytes.map(bytes)),
            swapped => format!("{} swapped out", bytes(swapped)),
        },
    }
}

/// A bar is drawn while something runs.
fn on(usage: &Usage, percent: u8) -> Option<u8> {
    (usage.containers.running > 0).then_some(percent)
}
