//! Sample pages.

mod files;
mod help;
mod home;
mod images;
mod machine;
mod volumes;

use berth_web::Template;
use berth_web::charts::{Chart, Charts, FigureRow, Figures, MarkKind, MarkRow, Unit};
use berth_web::containers::{
    ActivityPage, ActivityRow, BulkPage, BulkRow, COLUMNS, Ceilings, Column, ColumnHead,
    ConfirmPage, Head, LaunchForm, LaunchPage, LimitRow, ListPage, LogLine, LogsPage, LookRow, May,
    OverviewPage, Pages, Preview, ProcessRow, ProcessesPage, RawBlock, RawPage, Row, SettingsPage,
    ShareRow, SharingPage, Size, Tab,
};
use berth_web::entry::{InvitationPage, ProblemInFrame, ProblemPage, SetupPage, SignInPage};
use berth_web::format::{Moment, bytes_of, cores_used, percent};
use berth_web::parts::{Act, Badge, Fact, Field, Meter, Scope};
use berth_web::people::{self, Invitation};
use berth_web::posture::{Look, PostureChange, PostureGroup, PosturePage, PostureRow};
use berth_web::shell::{ApiCall, ENTRIES, Flash, Mark, Section, Shell, Theme, Tone, Viewer};

const NOW: i64 = 1_795_224_225_000;
const ID: &str = "3f9a6c0d51e84b7c9a2e6f1d0c8b7a65";

/// A page, or why it is none.
type Rendered = Result<String, berth_web::Error>;

/// Every page with its name; `hostile` stands wherever people can put text.
pub(crate) fn all(hostile: &str) -> Vec<(String, String)> {
    let long = "a-very-long-name-that-somebody-gave-to-a-container-because-they-could-63";
    let mut out = Vec::new();
    let mut add = |name: &str, html: Rendered| {
        out.push((name.to_owned(), html.expect("the page renders")));
    };
    home::all(hostile, long, &mut add);
    help::all(hostile, &mut add);
    files::all(hostile, long, &mut add);
    volumes::all(hostile, long, &mut add);
    add("containers-empty", list(&[], true).render());
    add("containers-three", list(&rows(3, "train"), false).render());
    add("containers-dark", dark(list(&rows(7, "train"), false)).render());
    add("containers-nine", list(&rows(9, "train"), false).render());
    add("containers-thousand", list(&rows(1000, "sweep"), false).render());
    add("containers-long", list(&rows(5, long), false).render());
    add("hostile-containers", list(&rows(3, hostile), false).render());
    add("launch", launch(LaunchForm::default(), "").render());
    add("launch-errors", launch(wrong_form(), "Berth can’t give that much.").render());
    add("overview", overview("train-3", false).render());
    add("overview-ended", overview("train-3", true).render());
    add("hostile-overview", overview(hostile, false).render());
    add(
        "overview-new",
        OverviewPage { hour: Charts::default(), ..overview("train-3", false) }.render(),
    );
    add("bulk", bulk("train").render());
    add("hostile-bulk", bulk(hostile).render());
    add("activity", activity("train-3", "changed limits: memory 4 GiB → 8 GiB").render());
    add("hostile-activity", activity(hostile, hostile).render());
    add("raw", raw("train-3", "{\n  \"id\": \"3f9a6c0d\"\n}").render());
    add("hostile-raw", raw(hostile, hostile).render());
    add("logs", logs("train-3", "step 1200 loss=0.4312 lr=3.0e-4 tokens/s=18231").render());
    add("hostile-logs", logs(hostile, hostile).render());
    add("processes", processes("train-3").render());
    add("posture", posture("train-3").render());
    add("hostile-posture", posture(hostile).render());
    let failed = Look::Failed { why: "The supervisor does not answer.".into() };
    let failed = PosturePage { look: failed, groups: Vec::new(), ..posture("train-3") };
    add("posture-failed", failed.render());
    add("settings", settings().render());
    add("sharing", sharing("tom", true).render());
    add("sharing-empty", SharingPage { rows: Vec::new(), ..sharing("tom", true) }.render());
    add("sharing-looked-at", sharing("tom", false).render());
    add("hostile-sharing", sharing(hostile, true).render());
    add("confirm", confirm("train-3").render());
    add("hostile-confirm", confirm(hostile).render());
    add("confirm-typed", typed(confirm("train-3"), "train-3").render());
    add("hostile-confirm-typed", typed(confirm(hostile), hostile).render());
    images::all(hostile, long, &mut add);
    add("people", people_page("tom", None).render());
    add("people-link", people_page("tom", Some("tom")).render());
    add("hostile-people", people_page(hostile, Some(hostile)).render());
    machine::all(hostile, long, &mut add);
    add("setup", setup("").render());
    add("setup-errors", setup("That is not the setup secret.").render());
    add("sign-in", sign_in("").render());
    add("sign-in-errors", sign_in("Name and password don’t fit.").render());
    add("invitation", invitation("tom").render());
    add("hostile-invitation", invitation(hostile).render());
    add("problem-404", problem(404).render());
    add("problem-503", problem(503).render());
    let inside = ProblemInFrame { shell: shell("Not found", Section::None), problem: problem(404) };
    add("problem-inside", inside.render());
    out
}

fn shell(title: &str, section: Section) -> Shell {
    Shell {
        title: title.to_owned(),
        section,
        viewer: Some(Viewer { name: "anna".into(), role: "operator".into(), acts: true }),
        entries: ENTRIES.iter().collect(),
        strips: Vec::new(),
        theme: Theme::System,
        mark: Mark::Running,
        flash: None,
        ask: None,
        calls: vec![ApiCall::get("List containers", "/api/v1/containers?limit=50")],
        live_secs: Some(3),
        reload_secs: None,
        path: "/containers".into(),
        origin: "http://127.0.0.1:7777".into(),
    }
}

fn dark(mut page: ListPage) -> ListPage {
    page.shell.theme = Theme::Dark;
    page.shell.flash = Some(Flash { tone: Tone::Good, text: "train-3 was stopped.".into() });
    page
}

fn entry_shell(title: &str) -> Shell {
    Shell { title: title.into(), ..Shell::default() }
}

fn badge(tone: Tone, icon: &'static str, word: &str, reason: &str) -> Badge {
    Badge { tone, icon, word: word.into(), reason: reason.into() }
}

fn meter(key: &'static str, label: &str, used: u64, limit: u64, note: &str) -> Meter {
    let text = if key == "cpu" {
        format!("{} of {} cores", cores_used(used), limit / 1000)
    } else {
        bytes_of(used, limit)
    };
    Meter { key, label: label.into(), text, percent: Some(percent(used, limit)), note: note.into() }
}

fn act(label: &'static str, icon: &'static str) -> Act {
    let path = format!("/containers/{ID}/{}", label.to_lowercase());
    let asks = label == "Remove";
    Act { label, icon, path, asks, danger: asks }
}

fn rows(count: u64, name: &str) -> Vec<Row> {
    let states = [
        badge(Tone::Good, "running", "running", ""),
        badge(Tone::Good, "running", "running", ""),
        badge(Tone::Bad, "failed", "failed", "over its 8 GiB memory limit"),
        badge(Tone::Busy, "busy", "stopping", "4 s of 10 s"),
        badge(Tone::Attention, "paused", "paused", ""),
        badge(Tone::Neutral, "stopped", "stopped", "by anna"),
        badge(Tone::Neutral, "stopped", "ended", "exit code 0"),
    ];
    let images = ["pytorch/pytorch:2.9-cuda12", "alpine:3.22", "registry.lab:5000/vision/train:41"];
    (0..count)
        .map(|index| {
            let state = states[usize::try_from(index).unwrap_or(0) % states.len()].clone();
            let on = matches!(state.word.as_str(), "running" | "stopping" | "paused");
            let idle = |text: &str| Meter { text: text.into(), ..Meter::default() };
            Row {
                id: format!("{index:032x}"),
                name: format!("{name}-{index}"),
                owner: if index % 2 == 0 { "anna".into() } else { "tom".into() },
                image: images[usize::try_from(index).unwrap_or(0) % 3].into(),
                cpu: if on {
                    meter("cpu", "Processor", 420 + index * 517 % 2000, 2000, "")
                } else {
                    idle("–")
                },
                memory: if on {
                    meter("memory", "Memory", (1 + index * 3 % 8) * 1_070_000_000, 8 << 30, "")
                } else {
                    idle("–")
                },
                pids: idle("–"),
                restart: "stays stopped",
                created: Some(Moment::new(NOW - 90_000_000, NOW)),
                address: if on { format!("10.210.4.{}", 2 + index % 250) } else { String::new() },
                since: Some(Moment::new(
                    NOW - 61_000 * i64::try_from(index * index + 1).unwrap_or(1),
                    NOW,
                )),
                main: Some(if on { act("Stop", "stop") } else { act("Start", "start") }),
                more: vec![
                    act("Restart", "restart"),
                    act("Pause", "pause"),
                    act("Kill", "kill"),
                    act("Remove", "remove"),
                ],
                state,
            }
        })
        .collect()
}

fn list(rows: &[Row], first_use: bool) -> ListPage {
    let scope = |label, count, current| Scope {
        label,
        count: Some(count),
        path: "/containers".into(),
        current,
    };
    ListPage {
        shell: shell("Containers", Section::Containers),
        readouts: vec![
            Meter {
                key: "running",
                label: "Running".into(),
                text: "2 of 7".into(),
                percent: None,
                note: "1 needs you".into(),
            },
            meter("cpu", "Processor", 1640, 6000, "of what the running ones may use"),
            meter("memory", "Memory", 7 << 30, 16 << 30, "of what the running ones may use"),
            Meter {
                key: "pids",
                label: "Processes".into(),
                text: "41 of 1536".into(),
                percent: Some(2),
                note: String::new(),
            },
        ],
        scopes: vec![
            scope("All", 7, true),
            scope("Running", 2, false),
            scope("Stopped", 4, false),
            scope("Failed", 1, false),
        ],
        query: String::new(),
        sort: "-memory".into(),
        heads: [Column::Name]
            .into_iter()
            .chain(COLUMNS)
            .filter(|column| !matches!(column, Column::Pids | Column::Restart | Column::Created))
            .map(|column| ColumnHead {
                column,
                path: format!("/containers?sort={}", column.name()),
                order: if column == Column::Memory { "descending" } else { "none" },
            })
            .collect(),
        choices: COLUMNS.map(|column| (column, column != Column::Pids)).into(),
        chosen: false,
        rows: rows.to_vec(),
        pages: if rows.len() > 50 {
            Pages {
                words: "101 to 200 of 1 000".into(),
                before: Some("/containers".into()),
                next: Some("/containers?page=3".into()),
            }
        } else {
            Pages::default()
        },
        first_use,
    }
}

fn ceilings() -> Ceilings {
    Ceilings { cpu: "4".into(), memory: "16 GiB".into(), swap: "2 GiB".into(), pids: "4096".into() }
}

fn launch(mut form: LaunchForm, error: &str) -> LaunchPage {
    for (field, value) in [
        (&mut form.cpu, "1"),
        (&mut form.memory, "1 GiB"),
        (&mut form.swap, "0"),
        (&mut form.pids, "256"),
        (&mut form.network, "private"),
        (&mut form.restart, "no"),
        (&mut form.stop_signal, "SIGTERM"),
        (&mut form.stop_grace, "10"),
        (&mut form.shm, "64 MiB"),
        (&mut form.cpu_weight, "100"),
    ] {
        if field.value.is_empty() {
            field.value = value.into();
        }
    }
    LaunchPage {
        shell: Shell { live_secs: None, ..shell("Launch", Section::Containers) },
        error: error.into(),
        form,
        images: vec!["alpine:3.22".into(), "starter:1".into()],
        lifetime_hint: "Left empty, it is stopped after 8 h; at most 7 d.".into(),
        ports_hint: "Of the host 20000 to 20999 can be had.".into(),
        volumes_hint: "One NAME:/path a line. Of yours: data, results.".into(),
        data_sets_hint: "One NAME:/path a line. For you: dogs.".into(),
        ceilings: ceilings(),
        sizes: [("small", "0.5", "256 MiB"), ("medium", "1", "1 GiB"), ("large", "4", "8 GiB")]
            .map(|(name, cpu, memory)| Size {
                name: name.into(),
                words: format!("{cpu} cores · {memory}"),
                chosen: name == "medium",
                cpu: cpu.into(),
                cpu_weight: "100".into(),
                memory: memory.into(),
                swap: "0".into(),
                pids: "512".into(),
            })
            .into(),
        left: vec![
            "You have 3 of the 200 containers that one person may have.".into(),
            "With this one, what you run may use 3 cores and 5 GiB together.".into(),
        ],
        preview: Preview {
            json: "{\n  \"image\": \"alpine:3.22\"\n}".into(),
            curl: "curl -X POST http://127.0.0.1:7777/api/v1/containers".into(),
            image: "You have this image.".into(),
            not_ready: String::new(),
        },
    }
}

fn wrong_form() -> LaunchForm {
    LaunchForm {
        image: Field::new("alpine:3.22"),
        memory: Field {
            value: "900 GiB".into(),
            error: "You may ask for 16 GiB at most; an operator can lift that.".into(),
        },
        cpu: Field { value: "some".into(), error: "Not a number of cores.".into() },
        workdir: Field { value: "data".into(), error: "Must start with a slash.".into() },
        ..LaunchForm::default()
    }
}

fn head(name: &str, tab: Tab, ended: bool) -> Head {
    Head {
        id: ID.into(),
        name: name.into(),
        owner: Some("anna".into()),
        state: if ended {
            badge(Tone::Bad, "failed", "failed", "over its 8 GiB memory limit")
        } else {
            badge(Tone::Good, "running", "running", "for 3 h 12 min")
        },
        image: "registry.lab:5000/vision/train:41".into(),
        main: Some(if ended { act("Start", "start") } else { act("Stop", "stop") }),
        acts: if ended { vec![] } else { vec![act("Restart", "restart"), act("Pause", "pause")] },
        more: vec![act("Kill", "kill"), act("Remove", "remove")],
        tab,
        may: May { logs: true, files: true, terminal: true, manage: true, sees_shares: true },
    }
}

fn gauges(on: bool) -> Vec<Meter> {
    if !on {
        let idle = |key, label: &str, text: &str| Meter {
            key,
            label: label.into(),
            text: text.into(),
            percent: None,
            note: "not running".into(),
        };
        return vec![
            idle("cpu", "Processor", "– of 2 cores"),
            idle("memory", "Memory", "– of 8 GiB"),
            idle("pids", "Processes", "– of 256"),
        ];
    }
    vec![
        meter("cpu", "Processor", 1420, 2000, "throttled 0.4 s"),
        meter("memory", "Memory", 7_328_599_654, 8 << 30, "peak 7.1 GiB, swap 0 of 0 B"),
        Meter {
            key: "pids",
            label: "Processes".into(),
            text: "14 of 256".into(),
            percent: Some(5),
            note: String::new(),
        },
    ]
}

fn overview(name: &str, ended: bool) -> OverviewPage {
    let row = |name, asked: &str, value: &str, file: &str, held| LimitRow {
        name,
        asked: asked.into(),
        value: if ended { String::new() } else { value.into() },
        file: if ended { String::new() } else { file.into() },
        held,
    };
    let held = || badge(Tone::Good, "held", "held", "");
    OverviewPage {
        shell: shell(&format!("{name} running"), Section::Containers),
        head: head(name, Tab::Overview, ended),
        story: if ended {
            "The kernel ended it 4 min ago because it went over its 8 GiB memory limit.".into()
        } else {
            String::new()
        },
        ending: match ended {
            true => String::new(),
            false => {
                "Its time is nearly over: it is stopped in 12 min, at 2026-11-28 16:00:00 UTC."
                    .into()
            }
        },
        gauges: gauges(!ended),
        hour: hour(),
        limits: vec![
            row("Processor", "2 cores", "200000 100000", "berth/c3f9a6c0/cpu.max", held()),
            row("Memory", "8 GiB", "8589934592", "berth/c3f9a6c0/memory.max", held()),
            row("Swap", "0 B", "0", "berth/c3f9a6c0/memory.swap.max", held()),
            row(
                "Processes",
                "256",
                "256",
                "berth/c3f9a6c0/pids.max",
                badge(Tone::Attention, "attention", "not held", "no pids controller on this host"),
            ),
        ],
        facts: vec![
            Fact::copy("Id", "3f9a6c0d51e8", ID),
            Fact::code("Command", "python -m train --epochs 30 --data /data/imagenet"),
            Fact::text("Started", "3 h ago").with_exact("2026-11-21 01:23:45 UTC"),
            Fact::code("Address", "10.210.4.7"),
            Fact::text("When it ends", "started again after failures, up to 3 times"),
            Fact::text("Stops by", "SIGTERM, killed after 10 s"),
        ],
        env: vec!["PATH=/usr/bin:/bin".into(), format!("WANDB_PROJECT={name}")],
        labels: vec![format!("course={name}")],
    }
}

fn logs(name: &str, text: &str) -> LogsPage {
    let line = |index: u32| LogLine {
        clock: format!("01:23:{:02}.{:03}", index % 60, index * 37 % 1000),
        exact: "2026-11-21T01:23:45.123456789Z".into(),
        stderr: index % 9 == 4,
        text: if index % 9 == 4 {
            format!("warning: dataloader worker {index} is slow: {}", text.repeat(4))
        } else {
            format!("{text} #{index}")
        },
    };
    LogsPage {
        shell: Shell { live_secs: Some(3), ..shell(name, Section::Containers) },
        head: head(name, Tab::Logs, false),
        streams: ["All", "Output", "Errors"]
            .map(|label| Scope { label, count: None, path: "/".into(), current: label == "All" })
            .into(),
        stream: "all".into(),
        tail: 200,
        find: text.into(),
        since: "1h".into(),
        times: true,
        wrap: true,
        left_out: "Older lines are left out.".into(),
        more: Some("/".into()),
        lines: (0..60).map(line).collect(),
        follow: format!("/api/v1/containers/{ID}/logs/events"),
        live: true,
        download: format!("/api/v1/containers/{ID}/logs"),
    }
}

fn processes(name: &str) -> ProcessesPage {
    let row = |pid, parent, command: &str| ProcessRow {
        pid,
        parent,
        user: "0".into(),
        state: if pid == 1 { "waiting" } else { "running" },
        cpu_time: "1 h 12 min".into(),
        memory: "1.2 GiB".into(),
        age: "3 h 12 min".into(),
        command: command.into(),
    };
    ProcessesPage {
        shell: shell(name, Section::Containers),
        head: head(name, Tab::Processes, false),
        rows: vec![
            row(1, 0, "/bin/sh -c python -m train"),
            row(7, 1, "python -m train --epochs 30 --data /data/imagenet --batch 256 --resume"),
            row(31, 7, "python: dataloader 0"),
        ],
        truncated: false,
    }
}

fn posture(name: &str) -> PosturePage {
    let row = |name: &str, word, value: &str, reason: &str| PostureRow {
        name: name.into(),
        word,
        loosened: word == "loosened",
        value: value.into(),
        reason: reason.into(),
        changed: None,
    };
    let changed = PostureChange {
        text: "processes 20 → 30".into(),
        by: name.into(),
        at: Moment::new(NOW - 60_000, NOW),
    };
    let pids = row("pids", "holds", "30", "the kernel holds it");
    PosturePage {
        shell: shell(name, Section::Containers),
        head: head(name, Tab::Posture, false),
        look: Look::Seen { loosened: 1 },
        groups: vec![
            PostureGroup {
                title: "Who it is",
                rows: vec![row("User ids", "holds", "0 2000224256 65536", "nobody on the host")],
            },
            PostureGroup {
                title: "Limits",
                rows: vec![
                    row("memory", "loosened", "1073741824", "somebody with root on the host"),
                    row("swap", "not here", "none", "this host does not count swap"),
                    PostureRow { changed: Some(changed), ..pids },
                ],
            },
        ],
    }
}

fn sharing(name: &str, shares: bool) -> SharingPage {
    let row = |is_group, may: &str| ShareRow {
        name: name.into(),
        is_group,
        may: may.into(),
        since: Moment::new(NOW - 86_400_000, NOW),
        value: format!("person:{name}"),
    };
    SharingPage {
        shell: shell("train-3", Section::Containers),
        head: head("train-3", Tab::Sharing, false),
        error: String::new(),
        rows: vec![row(true, "see it"), row(false, "see it, read its log, use terminals")],
        shares,
        ends: shares,
        kind: "group".into(),
        grantee: Field { value: name.into(), error: format!("you are in no group named {name}") },
        level: "use".into(),
        groups: vec![name.into(), "everybody".into()],
        may_look: !shares,
        looks: vec![LookRow {
            operator: name.into(),
            reason: format!("it sends mail, says {name}"),
            began: Moment::new(NOW - 60_000, NOW),
            until: Moment::new(NOW + 3_540_000, NOW),
            goes_on: true,
            ends: !shares,
        }],
        reason: Field { value: name.into(), error: "say why".into() },
    }
}

fn settings() -> SettingsPage {
    SettingsPage {
        shell: shell("train-3", Section::Containers),
        head: head("train-3", Tab::Settings, false),
        error: String::new(),
        name: Field::new("train-3"),
        cpu: Field::new("2"),
        cpu_weight: Field::new("100"),
        memory: Field::new("8 GiB"),
        swap: Field::new("0 B"),
        pids: Field::new("256"),
        restart: Field::new("on-failure"),
        restart_attempts: Field::new("3"),
        ceilings: ceilings(),
        live: true,
        gauges: gauges(true),
        limits: overview("train-3", false).limits,
    }
}

fn confirm(name: &str) -> ConfirmPage {
    ConfirmPage {
        shell: shell("Remove", Section::Containers),
        question: format!("Remove {name}?"),
        losses: vec![
            "Its files and its log are lost; nothing brings them back.".into(),
            "It is running and is killed first.".into(),
        ],
        verb: "Remove it",
        path: format!("/containers/{ID}/remove"),
        hidden: vec![("back".into(), "/containers".into())],
        back: format!("/containers/{ID}"),
        ..ConfirmPage::default()
    }
}

fn typed(page: ConfirmPage, name: &str) -> ConfirmPage {
    ConfirmPage { typed: name.into(), error: format!("Type {name} to remove it."), ..page }
}

fn people_page(name: &str, fresh: Option<&str>) -> people::ListPage {
    let row = |id, name: &str, role: &str, state, own| people::Row {
        id,
        name: name.into(),
        own,
        role: role.into(),
        state,
        added: Some(Moment::new(NOW - 900_000_000, NOW)),
        containers: "2 of 5".into(),
        memory: "3.1 GiB".into(),
        acts: vec![act("Disable", "off")],
    };
    people::ListPage {
        shell: Shell { live_secs: None, ..shell("People", Section::People) },
        error: String::new(),
        name: Field::default(),
        role: Field::new("user"),
        expires: Field::default(),
        invitation: fresh.map(|name| Invitation {
            name: name.into(),
            link: "http://127.0.0.1:7777/invitation#kX3v9".into(),
            until: Moment::new(NOW + 259_200_000, NOW),
        }),
        manages: true,
        rows: vec![
            row(1000, "anna", "operator", badge(Tone::Good, "check", "active", ""), true),
            row(1001, name, "user", badge(Tone::Attention, "link", "invited", ""), false),
            row(1002, "kim", "auditor", badge(Tone::Neutral, "off", "disabled", ""), false),
        ],
        next: None,
    }
}

fn setup(error: &str) -> SetupPage {
    SetupPage {
        shell: entry_shell("Set up"),
        error: error.into(),
        secret: Field::default(),
        name: Field::default(),
        password_error: String::new(),
    }
}

fn sign_in(error: &str) -> SignInPage {
    SignInPage {
        asks_code: !error.is_empty(),
        shell: entry_shell("Sign in"),
        error: error.into(),
        name: String::new(),
        next: "/containers".into(),
    }
}

fn invitation(name: &str) -> InvitationPage {
    InvitationPage {
        asks_code: name.is_empty(),
        shell: entry_shell("Welcome"),
        name: name.into(),
        token: "kX3v9".into(),
        error: String::new(),
    }
}

fn problem(status: u16) -> ProblemPage {
    let (what, detail, advice) = match status {
        404 => (
            "Not found",
            "There is no such thing here, or it is not yours to see.",
            "Look for it in your list.",
        ),
        _ => (
            "Not available now",
            "The supervisor does not answer.",
            "Running containers are not touched. Try again in a moment.",
        ),
    };
    ProblemPage {
        shell: entry_shell(what),
        status,
        code: "not-found".into(),
        what: what.into(),
        detail: detail.into(),
        advice: advice.into(),
        again: if status == 503 { "/containers".into() } else { String::new() },
        request_id: "01JD7Q8ZK3".into(),
    }
}

/// An hour with a gap, a limit that was raised and a kill.
fn hour() -> Charts {
    let since = NOW - 3_600_000;
    let points = |high: u64| -> Vec<(i64, u64)> {
        let all = (0..360_u64).filter(|n| !(120..150).contains(n));
        let value = |n: u64| high / 4 + high * (n * n * 7919 % 97) / 200 + n * high / 2000;
        all.map(|n| (since + i64::try_from(n).unwrap_or(0) * 10_000, value(n))).collect()
    };
    let figures = |key, title, unit, lines, limit: Vec<(i64, u64)>| {
        Chart::draw(&Figures {
            key,
            title,
            unit,
            since,
            until: NOW,
            step: 10_000,
            lines,
            limit,
            marks: vec![
                (since + 1_200_000, MarkKind::OutOfMemory),
                (since + 1_500_000, MarkKind::Start),
                (since + 2_400_000, MarkKind::Limits),
            ],
        })
    };
    let mark = |kind, minutes: i64, text: &str| MarkRow {
        kind,
        at: Moment::new(since + minutes * 60_000, NOW),
        text: text.into(),
    };
    let (gib, cut) = (1 << 30, since + 2_400_000);
    Charts {
        charts: vec![
            figures("cpu", "Processor", Unit::Cores, vec![("", points(1600))], vec![(since, 2000)]),
            figures(
                "memory",
                "Memory",
                Unit::Bytes,
                vec![("all", points(4 * gib)), ("without file cache", points(2 * gib))],
                vec![(since, 4 * gib), (cut, 8 * gib)],
            ),
            figures("pids", "Processes", Unit::Count, vec![("", points(12))], vec![(since, 512)]),
            figures(
                "disk",
                "Disk traffic",
                Unit::Rate,
                vec![("read", points(40 << 20)), ("written", points(9 << 20))],
                vec![],
            ),
        ],
        axis: ["60 min ago", "45", "30", "15", "now"].map(str::to_owned).into(),
        marks: vec![
            mark(MarkKind::Limits, 40, "memory 4 GiB → 8 GiB"),
            mark(MarkKind::Start, 25, "started again by its policy (start 4)"),
            mark(MarkKind::OutOfMemory, 20, "killed: out of memory at its limit of 4 GiB"),
        ],
        more_marks: 2,
        columns: vec!["Processor", "Memory", "Processes", "Read", "Written"],
        rows: (0..60)
            .map(|minute| FigureRow {
                at: Moment::new(NOW - minute * 60_000, NOW),
                cells: ["0.42 cores", "3.1 GiB", "12", "0 B/s", "4 KiB/s"]
                    .map(str::to_owned)
                    .into(),
            })
            .collect(),
        csv: format!("/api/v1/containers/{ID}/stats/history?format=csv"),
    }
}

fn activity(name: &str, text: &str) -> ActivityPage {
    let row = |minutes: i64, by: &str, text: &str, bad| ActivityRow {
        at: Moment::new(NOW - minutes * 60_000, NOW),
        by: by.into(),
        via: if by.is_empty() { "" } else { "by a token" },
        text: text.into(),
        bad,
    };
    ActivityPage {
        shell: shell(name, Section::Containers),
        head: head(name, Tab::Activity, false),
        rows: vec![
            row(1, "anna", text, false),
            row(30, "", "killed: out of memory at its limit of 4 GiB", true),
            row(90, "anna", "started it", false),
        ],
        next: Some("/containers".into()),
    }
}

fn raw(name: &str, text: &str) -> RawPage {
    RawPage {
        shell: shell(name, Section::Containers),
        head: head(name, Tab::Raw, false),
        blocks: vec![RawBlock {
            title: "As the API gives it",
            hint: "The answer to GET /api/v1/containers/{id}.",
            text: text.into(),
        }],
    }
}

fn bulk(name: &str) -> BulkPage {
    let row = |number, tone, text: &str| BulkRow {
        name: format!("{name}-{number}"),
        path: Some(format!("/containers/{ID}")),
        tone,
        text: text.into(),
    };
    BulkPage {
        shell: Shell { live_secs: None, ..shell("Stop", Section::Containers) },
        title: "Stop: 2 done, 1 not".into(),
        rows: vec![
            row(1, Tone::Good, "exited"),
            row(2, Tone::Busy, "being worked on: stop goes on"),
            row(3, Tone::Bad, "It does not run: it is created."),
        ],
        back: "/containers".into(),
    }
}
