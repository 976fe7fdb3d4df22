//! Samples of the home page.

use berth_web::Template;
use berth_web::format::Moment;
use berth_web::home::{FirstSteps, Happened, HomePage, MachineNow, Need, PersonShare, Stack, Task};
use berth_web::parts::{Act, Badge, Meter};
use berth_web::shell::{Section, Tone};

use super::{ID, NOW, rows, shell};

/// The pages of this file with their names.
pub(super) fn all(hostile: &str, long: &str, add: &mut impl FnMut(&str, super::Rendered)) {
    add("home", page("train", true).render());
    add("home-user", page("train", false).render());
    add("home-first", first(false).render());
    add("home-long", page(long, true).render());
    add("hostile-home", page(hostile, true).render());
}

/// The home page; an overseer sees the machine.
pub(super) fn page(name: &str, overseer: bool) -> HomePage {
    HomePage {
        shell: shell("Home", Section::Home),
        acts: true,
        readouts: readouts(),
        needs: needs(name),
        needs_more: 3,
        rows: rows(5, name),
        rows_more: 2,
        tasks: vec![Task {
            id: "t".into(),
            title: format!("Pull {name}/pytorch:2.9-cuda"),
            owner: String::new(),
            percent: Some(43),
            text: "1.2 of 2.8 GiB".into(),
            cancel: Some("/operations/t/cancel".into()),
        }],
        happened: vec![
            happened(1, name, "started", (Tone::Good, "running")),
            happened(2, name, "ended", (Tone::Neutral, "stopped")),
            happened(3, name, "ended badly", (Tone::Bad, "failed")),
            happened(40, name, "removed", (Tone::Neutral, "remove")),
            happened(900, name, "arrived", (Tone::Neutral, "image")),
        ],
        happened_path: "/events".into(),
        machine: overseer.then(|| machine(name)),
        first: None,
    }
}

/// The same before there is any container.
pub(super) fn first(has_image: bool) -> HomePage {
    HomePage {
        readouts: Vec::new(),
        needs: Vec::new(),
        needs_more: 0,
        rows: Vec::new(),
        rows_more: 0,
        tasks: Vec::new(),
        happened: Vec::new(),
        first: Some(FirstSteps { has_image, adds_people: true }),
        ..page("train", false)
    }
}

fn meter(key: &'static str, label: &str, text: &str, percent: u8, note: &str) -> Meter {
    Meter { key, label: label.into(), text: text.into(), percent: Some(percent), note: note.into() }
}

fn plain(key: &'static str, label: &str, text: &str, note: &str) -> Meter {
    Meter { percent: None, ..meter(key, label, text, 0, note) }
}

fn badge(tone: Tone, icon: &'static str, word: &str, reason: &str) -> Badge {
    Badge { tone, icon, word: word.into(), reason: reason.into() }
}

fn readouts() -> Vec<Meter> {
    vec![
        plain("running", "Running", "5 of 8", "2 things need you"),
        meter("cpu", "Processor", "1.64 of 6 cores", 27, "sum of the running limits"),
        meter("memory", "Memory", "13.2 of 16 GiB", 83, "sum of the running limits"),
        meter("pids", "Processes", "41 of 1 536", 3, "sum of the running limits"),
        plain("images", "Images", "4.2 GiB", "7 images on disk"),
    ]
}

fn needs(name: &str) -> Vec<Need> {
    vec![
        Need {
            id: "a".into(),
            state: badge(Tone::Bad, "failed", "killed", "out of memory at its limit of 64 MiB"),
            name: name.to_owned(),
            path: format!("/containers/{ID}"),
            act: Some(Act {
                label: "Start",
                icon: "start",
                path: format!("/containers/{ID}/start"),
                asks: false,
                danger: false,
            }),
        },
        Need {
            id: "b".into(),
            state: badge(Tone::Attention, "attention", "token ends", "in 2 days"),
            name: "ci-deploy".into(),
            path: "/account".into(),
            act: None,
        },
    ]
}

fn happened(minutes: u32, name: &str, word: &str, sign: (Tone, &'static str)) -> Happened {
    Happened {
        id: minutes.to_string(),
        at: Moment::new(NOW - i64::from(minutes) * 97_000, NOW),
        what: badge(sign.0, sign.1, word, ""),
        name: name.to_owned(),
        path: format!("/containers/{ID}"),
        owner: if minutes.is_multiple_of(3) { "tom".into() } else { String::new() },
    }
}

fn machine(name: &str) -> MachineNow {
    let person = |hue: usize, name: &str| PersonShare {
        id: hue.to_string(),
        name: name.to_owned(),
        path: format!("/people/{hue}"),
        hue,
        containers: "3 of 5 run".into(),
        cpu: meter("cpu", "Processor", "1.64 of 16 cores", 10, ""),
        memory: meter("memory", "Memory", "7.2 of 64 GiB", 11, ""),
        images: "12 GiB".into(),
    };
    let bar = |label, parts: &[(usize, u32)]| Stack {
        label,
        summary: "anna 30 %, tom 12 %, kim 4 %".into(),
        parts: parts.to_vec(),
    };
    MachineNow {
        readouts: vec![
            meter("cpu", "Processor", "9.1 of 16 cores", 56, "load 9.3, 8.8, 7.9"),
            meter("memory", "Memory", "41.3 of 64 GiB", 64, "no swap in use"),
            meter("disk", "Disk", "812 of 938 GiB", 86, "126 GiB left for images and files"),
            plain("pressure", "Waiting", "2.4 %", "processor 2.4, memory 0.0, disk 0.3"),
        ],
        note: "23 containers run; up for 42 days".into(),
        people: vec![person(1, "anna"), person(2, name), person(3, "kim"), person(0, "lee")],
        people_more: 12,
        bars: vec![
            bar("Processor", &[(1, 300), (2, 120), (3, 40), (0, 60)]),
            bar("Memory", &[(1, 220), (2, 200), (3, 80), (0, 10)]),
        ],
    }
}
