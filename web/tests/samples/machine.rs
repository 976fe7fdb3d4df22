//! Sample pages of those who oversee the machine.

use berth_web::asks::{AskForm, AsksPage, LimitChoice, OpenAsk, PastAsk};
use berth_web::events::{AuditPage, AuditRow, Chain, EventRow, EventsPage, Exports, Object};
use berth_web::people::{
    ActivityRow, AllowanceForm, AllowancePage, ContainerRow, GroupChoice, GroupPage, GroupRow,
    GroupsPage, ImageRow, ImportLine, ImportPage, Member, Members, OffboardingPage,
    OffboardingReport, OffboardingRow, PersonPage, UsagePage, UsageRow,
};
use berth_web::space::{EndRow, LimitRow as SpaceLimit, SpacePage, ThingRow};
use berth_web::system::{
    CheckRow, DoctorPage, HarmedRow, LimitRow, MaintenancePage, OverviewPage, PersonRow,
    PressureRow, RegistriesPage, RegistryRow, RiskRow, StoredLayers, WarningRow, WarningsPage,
};

use super::*;

/// The pages of this file with their names.
pub(super) fn all(hostile: &str, long: &str, add: &mut impl FnMut(&str, super::Rendered)) {
    add("person", person("tom", false).render());
    add("person-stale", person(long, true).render());
    add("hostile-person", person(hostile, false).render());
    add("people-import", enrol("kim", true).render());
    add("people-import-wrong", enrol(long, false).render());
    add("hostile-people-import", enrol(hostile, true).render());
    add("offboarding", offboarding("kim", false).render());
    add("offboarding-under-way", offboarding(long, true).render());
    add("hostile-offboarding", offboarding(hostile, true).render());
    add("hostile-offboarding-begin", offboarding(hostile, false).render());
    add("space", space("data", true).render());
    add("space-empty", space(long, false).render());
    add("hostile-space", space(hostile, true).render());
    add("asks", asked("the course", true).render());
    add("asks-own", asked(long, false).render());
    add(
        "asks-empty",
        AsksPage { shell: shell("Asking", Section::Home), ..Default::default() }.render(),
    );
    add("hostile-asks", asked(hostile, true).render());
    add("allowance", everybody(&[]).render());
    add("allowance-over", everybody(&["anna", long, hostile]).render());
    add("groups", groups("course", "").render());
    add("groups-refused", groups(long, "There is a group of this name.").render());
    add("hostile-groups", groups(hostile, "").render());
    add(
        "groups-mine",
        GroupsPage { manages: false, oversees: false, ..groups("course", "") }.render(),
    );
    add("group", group("course", false).render());
    add("group-mine", group_of_member("course").render());
    add("hostile-group-mine", group_of_member(hostile).render());
    add("group-refused", group(long, true).render());
    add("hostile-group", group(hostile, true).render());
    add("usage-empty", usage("", 0).render());
    add("usage", usage("2026-11-28", 30).render());
    add("hostile-usage", usage(hostile, 3).render());
    add("maintenance", maintenance("", false).render());
    add("maintenance-on", maintenance(long, true).render());
    add("hostile-maintenance", maintenance(hostile, true).render());
    add("events-empty", events("", 0).render());
    add("events", events("tom", 100).render());
    add("hostile-events", events(hostile, 3).render());
    add("audit", audit(long, 100).render());
    add("hostile-audit", audit(hostile, 3).render());
    add("system", system(long).render());
    add("hostile-system", system(hostile).render());
    add("doctor", doctor(false).render());
    add("doctor-away", doctor(true).render());
    add("warnings", warnings("", 0).render());
    add("hostile-warnings", warnings(hostile, 3).render());
    add("registries", registries("registry.lab:5000").render());
    add("hostile-registries", registries(hostile).render());
}

fn at(seconds: i64) -> Moment {
    Moment::new(NOW - seconds * 1000, NOW)
}

fn tabs() -> Vec<Scope> {
    let tab = |label, current| Scope { label, count: None, path: "/".into(), current };
    vec![tab("Overview", true), tab("Doctor", false)]
}

fn exports() -> Exports {
    Exports { csv: "/a?format=csv".into(), json: "/a?format=json".into(), most: 50_000 }
}

fn done() -> Badge {
    badge(Tone::Good, "check", "done", "")
}

fn groups(name: &str, error: &str) -> GroupsPage {
    let row = GroupRow {
        id: 1002,
        name: name.into(),
        note: format!("{name}, in the summer"),
        role: "manager",
        members: "30".into(),
        containers: "41".into(),
    };
    GroupsPage {
        shell: shell("Groups", Section::People),
        error: error.into(),
        manages: true,
        oversees: true,
        name: Field::new(name),
        note: Field::new(name),
        rows: vec![row; 3],
        next: Some("/groups?after=x".into()),
    }
}

fn group(name: &str, refused: bool) -> GroupPage {
    let said = if refused { "use lower-case letters" } else { "" };
    GroupPage {
        shell: shell(name, Section::People),
        id: 1002,
        error: if refused { format!("{name} is refused.") } else { String::new() },
        title: name.into(),
        manages: true,
        oversees: true,
        about: name.into(),
        leaves: false,
        me: name.into(),
        begins: refused,
        name: Field { value: name.into(), error: said.into() },
        note: Field::new(name),
        etag: "abc".into(),
        allowance: allowance(refused),
        facts: vec![Fact::text("Memory", "64 GiB")],
        members: Some(Members {
            rows: [(true, true), (true, false), (false, true), (false, false)]
                .map(|(manages, counts)| Member {
                    path: Some("/people/1001".into()),
                    name: name.into(),
                    manages,
                    counts,
                    goes: manages || !counts,
                })
                .into(),
            changes: true,
            appoints: true,
            name: Field { value: name.into(), error: said.into() },
            next: Some("/groups/1002?after=x".into()),
        }),
    }
}

fn group_of_member(name: &str) -> GroupPage {
    let of = group(name, false);
    GroupPage { manages: false, oversees: false, leaves: true, members: None, ..of }
}

fn usage(name: &str, rows: usize) -> UsagePage {
    let row = UsageRow {
        name: name.into(),
        path: Some("/people/1001".into()),
        cpu: "1234.5".into(),
        memory: "12.0".into(),
        images: "0.1".into(),
        containers: "720.0".into(),
    };
    UsagePage {
        shell: shell("Use by day", Section::People),
        span: "From 2026-10-30 to 2026-11-28".into(),
        spans: tabs(),
        of_days: false,
        rows: vec![row; rows],
        csv: "/api/v1/usage/days?format=csv".into(),
    }
}

/// A table of people: with their links, or with what is wrong with it.
fn enrol(name: &str, added: bool) -> ImportPage {
    let shell = shell("People from a table", Section::People);
    if added {
        let link = "http://127.0.0.1:7777/invitation/kX3v9".to_owned();
        let link = people::Invitation { name: name.into(), link, until: at(-90_000) };
        let file = Some("data:text/csv;charset=utf-8;base64,bmFtZQ==".to_owned());
        return ImportPage { shell, links: vec![link], file, ..ImportPage::default() };
    }
    let line = |number, verdict| ImportLine {
        number,
        name: name.into(),
        verdict,
        what: "user, through 2030-12-31".into(),
    };
    let twice = badge(Tone::Bad, "failed", "twice", "kim is there twice");
    ImportPage {
        shell,
        error: String::new(),
        csv: Field { value: format!("name\n{name}\n"), error: "Line 3: a quote.".into() },
        lines: vec![line(2, badge(Tone::Good, "check", "new", "")), line(3, twice)],
        ready: 0,
        ..ImportPage::default()
    }
}

/// Somebody who is to be taken off the machine, or is.
fn offboarding(name: &str, begun: bool) -> OffboardingPage {
    let row = |done| OffboardingRow {
        act: "remove",
        kind: "volume",
        name: name.into(),
        done,
        said: format!("the volume {name} is in use"),
        size: "1.4 GiB".into(),
    };
    OffboardingPage {
        shell: shell("Take off the machine", Section::People),
        id: 1001,
        name: name.into(),
        person: Some("/people/1001".into()),
        may_begin: !begun,
        keep: vec![row(None)],
        keep_says: "1 container".into(),
        delete: vec![row(None), row(None)],
        delete_says: "1 container, 1 volume".into(),
        typed: Field { value: name.into(), error: format!("Type {name} to delete all of it.") },
        report: begun.then(|| OffboardingReport {
            state: badge(Tone::Busy, "busy", "under way", "1 of 2"),
            by: name.into(),
            begun: Some(at(60)),
            ended: None,
            rows: vec![row(Some(at(30))), row(None)],
        }),
    }
}

pub(crate) fn person(name: &str, refused: bool) -> PersonPage {
    let said = if refused { "is auditor now; you chose user" } else { "" };
    PersonPage {
        shell: shell(name, Section::People),
        id: 1001,
        name: name.into(),
        own: false,
        state: badge(Tone::Good, "check", "active", ""),
        acts: vec![act("New link", "link"), act("Disable", "off")],
        invitation: None,
        error: if refused { format!("Somebody has changed {name}.") } else { String::new() },
        manages: true,
        role: Field { value: "user".into(), error: said.into() },
        etag: "abc".into(),
        expires: Field { value: "2030-12-31".into(), error: said.into() },
        groups: vec![GroupChoice { id: "2".into(), name: name.into() }],
        group: "2".into(),
        host_user: Some(Field { value: name.into(), error: said.into() }),
        gauges: gauges(true),
        allowance: allowance(refused),
        allowed: vec![Fact::text("Memory", "64 GiB")],
        extras: vec![format!("{name}, until tomorrow")],
        changes_allowance: true,
        allowance_own: refused,
        facts: vec![Fact::text("Role", "user"), Fact::copy("Id", "1001", "1001")],
        containers: (0..3)
            .map(|_| ContainerRow {
                id: ID.into(),
                name: name.into(),
                state: badge(Tone::Bad, "failed", "killed", "out of memory at its limit of 8 GiB"),
                image: "docker.io/library/alpine:3.22".into(),
                limits: "2 cores, 8 GiB".into(),
                since: Some(at(90)),
            })
            .collect(),
        all_containers: Some("/containers?q=owner:x".into()),
        images: vec![ImageRow {
            id: ID.into(),
            name: format!("registry.lab/{name}:1"),
            size: "1.2 GiB".into(),
            since: at(90_000),
        }],
        all_images: None,
        activity: vec![ActivityRow {
            at: at(30),
            actor: name.into(),
            action: "container.stop".into(),
            outcome: done(),
        }],
        all_activity: "/audit".into(),
    }
}

pub(crate) fn maintenance(message: &str, on: bool) -> MaintenancePage {
    MaintenancePage {
        shell: shell("Maintenance", Section::System),
        tabs: Vec::new(),
        error: String::new(),
        message: Field {
            value: message.to_owned(),
            error: if message.is_empty() { "say why".to_owned() } else { String::new() },
        },
        since: on.then(|| at(7)),
        by: message.to_owned(),
    }
}

fn space(name: &str, used: bool) -> SpacePage {
    let line = (0..96).map(|n| (NOW - (96 - n) * 900_000, (n.unsigned_abs() % 7) << 28)).collect();
    let figures = Figures {
        key: "memory",
        title: "Memory",
        unit: Unit::Bytes,
        since: NOW - 86_400_000,
        until: NOW,
        step: 900_000,
        lines: vec![("", line)],
        limit: vec![(NOW - 86_400_000, 2 << 30)],
        marks: Vec::new(),
    };
    let limit = SpaceLimit {
        name: "Memory",
        used: "1.5 GiB".into(),
        allowed: "2 GiB".into(),
        meter: Some(Meter {
            key: "memory_bytes",
            label: "Memory".into(),
            text: "1.5 of 2 GiB".into(),
            percent: Some(75),
            note: String::new(),
        }),
        ask: Some("/asks?limit=memory_bytes".into()),
    };
    let free = SpaceLimit {
        name: "Network, a second",
        used: "not counted".into(),
        allowed: "no bound".into(),
        ..SpaceLimit::default()
    };
    let thing = ThingRow {
        what: "volume",
        name: name.into(),
        path: "/volumes/1".into(),
        size: "3.1 GiB".into(),
    };
    let end = EndRow { what: "token", name: name.into(), at: at(-86_400), path: "/account" };
    let scope = |label, current| Scope { label, count: None, path: "/space".into(), current };
    SpacePage {
        shell: shell("My space", Section::Home),
        limits: vec![limit, free],
        spans: vec![scope("The last day", true), scope("The last week", false)],
        charts: if used { vec![Chart::draw(&figures)] } else { Vec::new() },
        axis: ["24 h ago", "12", "now"].map(str::to_owned).into(),
        rows: vec![FigureRow { at: at(900), cells: vec!["1".into(), "2 GiB".into(), "3".into()] }],
        ends: if used { vec![end] } else { Vec::new() },
        largest: if used { vec![thing] } else { Vec::new() },
    }
}

fn asked(name: &str, oversees: bool) -> AsksPage {
    let said = |error: &str| Field { value: name.into(), error: error.into() };
    let open = OpenAsk {
        id: 7,
        person: if oversees { name.into() } else { String::new() },
        path: oversees.then(|| "/people/1003".into()),
        what: "16 GiB of memory".into(),
        reason: format!("{name}: the data of the new course does not fit"),
        asked: Some(at(600)),
        facts: vec![
            Fact::text("Allowed now", "8 GiB"),
            Fact::text("All people’s bounds then", "120 GiB; the machine has 64 GiB"),
        ],
        withdraws: !oversees,
        decides: oversees,
        granted: said("\"much\" is no size"),
        until: Field::new("2026-12-31"),
        answer: Field::new(name),
        reason_not: said(""),
    };
    let past = PastAsk {
        id: 6,
        person: name.into(),
        what: "10 containers".into(),
        state: Badge {
            tone: Tone::Good,
            icon: "check",
            word: "granted".into(),
            reason: "8".into(),
        },
        answer: format!("{name} (olga)"),
        decided: Some(at(86_400)),
        ends: Some(at(-86_400)),
        may_end: oversees,
    };
    let form = AskForm {
        limits: vec![LimitChoice {
            name: "memory_bytes".into(),
            label: "8 GiB of memory now, 3.1 GiB in use".into(),
        }],
        limit: Field::new("memory_bytes"),
        wanted: said("say how much"),
        until: Field::new(""),
        reason: said(""),
    };
    AsksPage {
        shell: Shell {
            ask: Some("/asks?limit=memory_bytes".into()),
            ..shell("Asking for more", Section::People)
        },
        error: name.into(),
        oversees,
        form: Some(form),
        open: vec![open],
        past: vec![past; 3],
        next: Some("/asks?after=x".into()),
    }
}

fn allowance(refused: bool) -> AllowanceForm {
    let said = if refused { "\"much\" is no size, such as 512 MiB" } else { "" };
    AllowanceForm {
        cpu: Field::new("16"),
        cpu_weight: Field::new("100"),
        memory: Field { value: if refused { "much" } else { "64 GiB" }.into(), error: said.into() },
        swap: Field::new(""),
        pids: Field::new("20000"),
        containers: Field::new(""),
        ports: Field::new("8"),
        images: Field::new(""),
        image_bytes: Field::new("20 GiB"),
        data: Field::new("10 GiB"),
        io_weight: Field::new(""),
        io_read: Field::new("200 MiB"),
        io_write: Field::new("50 MiB"),
        net: Field::new("10 MiB"),
        lifetime: Field::new("7 d"),
        lifetime_default: Field::new("8 h"),
        idle: Field::new("2 d"),
    }
}

pub(crate) fn everybody(over: &[&str]) -> AllowancePage {
    AllowancePage {
        shell: shell("Everybody’s allowance", Section::People),
        error: String::new(),
        over: over.iter().map(|name| (*name).to_owned()).collect(),
        manages: over.is_empty(),
        allowance: allowance(false),
        facts: vec![Fact::text("Memory", "64 GiB"), Fact::text("Share", "100")],
    }
}

pub(crate) fn events(name: &str, count: usize) -> EventsPage {
    let row = EventRow {
        at: at(7),
        kind: "container.started".into(),
        object: Object {
            kind: "container".into(),
            id: ID.into(),
            path: format!("/containers/{ID}"),
        },
        owner: name.into(),
        facts: format!("by {name}, run 2"),
    };
    EventsPage {
        shell: shell("Events", Section::Events),
        tabs: tabs(),
        error: String::new(),
        kind: Field::new(""),
        owner: Field::new(name),
        subject: Field::default(),
        since: Field::default(),
        until: Field::default(),
        rows: vec![row; count],
        exports: exports(),
        next: (count > 99).then(|| "/events?after=x".to_owned()),
        filtered: count > 0,
    }
}

pub(crate) fn audit(name: &str, count: usize) -> AuditPage {
    let row = AuditRow {
        at: at(7),
        actor: name.into(),
        via: "by session".into(),
        action: "PATCH /api/v1/containers/{id}".into(),
        object: Object { kind: "registry".into(), id: name.into(), path: String::new() },
        owner: name.into(),
        outcome: badge(Tone::Attention, "failed", "refused", "not-found"),
        address: "127.0.0.1".into(),
        request_id: "Tqn4FOV8HvJo".into(),
        times: if count > 3 { 37 } else { 1 },
    };
    let broken = count == 3;
    let chain = Chain {
        state: match broken {
            true => badge(Tone::Bad, "failed", "broken", ""),
            false => badge(Tone::Good, "check", "whole", ""),
        },
        rows: 12_345,
        fault: broken.then(|| "Row 17: it does not hold what was written".to_owned()),
        head: Some(format!("12345:{}", "ab".repeat(32))),
        at: at(7),
    };
    AuditPage {
        shell: shell("Audit", Section::Events),
        tabs: tabs(),
        error: String::new(),
        actor: Field::new(name),
        owner: Field::default(),
        action: Field::default(),
        subject: Field::default(),
        outcome: Field::new("refused"),
        since: Field::default(),
        until: Field::default(),
        chain: (count > 0).then_some(chain),
        rows: vec![row; count],
        exports: exports(),
        next: None,
        filtered: true,
    }
}

pub(crate) fn system(name: &str) -> OverviewPage {
    let figures = || ["0.1 %".to_owned(), "12.0 %".to_owned(), "3.5 %".to_owned()];
    let people = (0..3).map(|_| PersonRow {
        name: name.into(),
        path: "/people/1001".into(),
        containers: "2 of 5".into(),
        cpu: meter("cpu", "Processor", 1200, 4000, ""),
        memory: meter("memory", "Memory", 3 << 30, 8 << 30, ""),
        pids: "41".into(),
        images: "2.1 GiB".into(),
    });
    OverviewPage {
        shell: shell("System", Section::System),
        tabs: tabs(),
        gauges: gauges(true),
        pressure: vec![PressureRow { of: "a disk", some: figures(), full: figures() }],
        people: people.collect(),
        more_people: 4,
        risks: vec![RiskRow {
            level: badge(Tone::Attention, "attention", "warning", ""),
            setting: "server.trusted_proxies".into(),
            what: "Whoever has such an address may claim any other.".into(),
            cure: "Name the proxies one by one.".into(),
        }],
        software: vec![Fact::text("Server", "0.1.0")],
        host: vec![Fact::code("Kernel", "6.18.0 x86_64")],
        storage: vec![Fact::code("Data", "/var/lib/berth")],
        limits: vec![LimitRow {
            name: "Memory",
            default: "512 MiB".into(),
            ceiling: "8 GiB".into(),
        }],
        more_limits: vec![Fact::text("Containers", "200 for each person")],
        layers: StoredLayers {
            says: "3, 1 of them harmed".into(),
            checks: true,
            newest: Some(("/operations/1".into(), badge(Tone::Good, "check", "done", ""))),
            harmed: vec![HarmedRow {
                digest: "0123456789abcdef".into(),
                state: badge(Tone::Bad, "failed", "damaged", ""),
                what: format!("content {name}"),
                images: vec!["0123456789abcdef".into()],
            }],
        },
    }
}

pub(crate) fn doctor(failed: bool) -> DoctorPage {
    let check = |state, costs: &str, mend: &str| CheckRow {
        id: "cgroup.layout".into(),
        state,
        found: "version 1, with an empty unified tree".into(),
        costs: costs.into(),
        mend: mend.into(),
    };
    let lack = badge(Tone::Attention, "attention", "lack", "");
    DoctorPage {
        shell: shell("Doctor", Section::System),
        tabs: tabs(),
        error: if failed { "The supervisor does not answer.".into() } else { String::new() },
        at: (!failed).then(|| at(20)),
        verdict: badge(Tone::Attention, "attention", "1 thing is lacking", ""),
        rows: match failed {
            true => Vec::new(),
            false => vec![
                check(lack, "Weights are not held.", "Boot with the unified hierarchy."),
                check(badge(Tone::Good, "check", "ok", ""), "", ""),
            ],
        },
    }
}

pub(crate) fn warnings(text: &str, count: usize) -> WarningsPage {
    let row = WarningRow {
        at: at(60),
        level: badge(Tone::Bad, "failed", "error", ""),
        text: text.into(),
    };
    WarningsPage { shell: shell("Warnings", Section::System), tabs: tabs(), rows: vec![row; count] }
}

pub(crate) fn registries(name: &str) -> RegistriesPage {
    let row = |said| RegistryRow { name: name.into(), rights: vec!["allowed"], said };
    RegistriesPage {
        shell: Shell { live_secs: None, ..shell("Registries", Section::Registries) },
        asks: true,
        open: false,
        rows: vec![
            row(None),
            row(Some(badge(Tone::Good, "check", "answers", "in 41 ms, wants a sign-in"))),
            row(Some(badge(Tone::Bad, "failed", "no", "the exchange with it failed: timed out"))),
        ],
        forbidden: vec!["10.0.0.0/8".into()],
        facts: vec![Fact::text("Proxy", "none")],
        written: format!("[registries]\nallowed = [{name:?}]"),
    }
}
