//! The machine: its use and set-up, the doctor's findings, the server's own warnings.

use axum::extract::{Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::wire::LayerHarm;
use berth_web::format::{Moment, bytes, bytes_of, cores, cores_used, percent, span};
use berth_web::parts::{Badge, Fact, Meter, Scope};
use berth_web::shell::{ApiCall, Section, Tone};
use berth_web::system::{
    CheckRow, DoctorPage, HarmedRow, LimitRow, OverviewPage, PersonRow, PressureRow, RiskRow,
    StoredLayers, WarningRow, WarningsPage,
};
use serde::Deserialize;

use super::frame::{Frame, sentence};
use super::{operations as work, used};
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::http::problem;
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::operations::Filter;
use crate::risks::{Risk, Severity};
use crate::service::Page;
use crate::service::containers::view::LimitsView;
use crate::service::images::{self, LayersView};
use crate::service::machine::{Pressure, PressureOf};
use crate::service::network::{self, NetworkState};
use crate::service::operations;
use crate::service::system::{self, Check, Facts, Fresh, NetworkFacts, Report};
use crate::service::usage::{self, MachineUsage, PersonUsage, SystemUsage};

/// Differences of one layer that the page shows.
const HARMS_SHOWN: usize = 5;
/// People that the page shows.
const PEOPLE: usize = 20;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let oversee = Access::Overseer(TokenScope::Read);
    let operate = Access::Operator(TokenScope::Read);
    routes
        .page(oversee, Method::GET, "/system", overview)
        .page(oversee, Method::GET, "/system/doctor", doctor)
        .page(operate, Method::GET, "/system/warnings", warnings)
        .form(
            Access::Operator(TokenScope::Operate),
            "/system/layers/verify",
            FormFields::once(&[]),
            verify_layers,
        )
}

/// Begins to check the stored layers; its own page says how far it is.
async fn verify_layers(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    match images::verify_layers(&app, &caller).await {
        Ok(operation) => frame.on(&format!("/operations/{}", operation.id)),
        Err(error) => frame.refused("/system", error),
    }
}

async fn layers_shown(app: &App, caller: &Caller, found: &LayersView) -> Result<StoredLayers> {
    let filter = Filter { kind: Some("layers.verify".to_owned()), ..Filter::default() };
    let newest = operations::list(app, caller, filter, &Page { limit: 1, after: None }).await?;
    let newest = newest.items.first();
    let harmed = found.items.iter().map(|layer| {
        let (tone, word) = match layer.state {
            "damaged" => (Tone::Bad, "damaged"),
            _ => (Tone::Attention, "archive damaged"),
        };
        let shown = layer.shown.iter().take(HARMS_SHOWN);
        let mut what: Vec<String> = shown
            .map(|harm| format!("{} {}", words(harm.harm), harm.path.trim_matches('"')))
            .collect();
        let more = layer.differences.saturating_sub(what.len() as u64);
        if more > 0 {
            what.push(format!("{more} more"));
        }
        let state = Badge { tone, icon: "failed", word: word.to_owned(), reason: String::new() };
        let digest = layer.digest.trim_start_matches("sha256:").to_owned();
        HarmedRow { digest, state, what: what.join("; "), images: layer.images.clone() }
    });
    Ok(StoredLayers {
        says: format!("{}.", sentence(&layers_in_words(found)).trim_end_matches('.')),
        checks: caller.role == Role::Operator,
        newest: newest.map(|operation| {
            (format!("/operations/{}", operation.id), work::work(operation, caller).state)
        }),
        harmed: harmed.collect(),
    })
}

/// A difference, in the API's own word.
fn words(harm: LayerHarm) -> String {
    let word = serde_json::to_value(harm).ok();
    word.as_ref().and_then(|word| word.as_str()).unwrap_or_default().to_owned()
}

async fn overview(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    let usage = usage::system(&app).await?;
    let facts = system::facts(&app).await?;
    let network = network::state(&app);
    let layers = images::layers_found(&app).await?;
    let mut shell = frame.shell("System", Section::System);
    shell.live_secs = Some(5);
    shell.calls = vec![
        ApiCall::get("What the machine uses", "/api/v1/system/usage"),
        ApiCall::get("How it is set up", "/api/v1/system/facts"),
        ApiCall::get("Whether stored layers are whole", "/api/v1/layers"),
    ];
    if caller.role == Role::Operator {
        shell.calls.push(ApiCall::send("Verify them", "POST", "/api/v1/layers/verify", None));
    }
    let shown = usage.people.len().min(PEOPLE) as u64;
    let view = OverviewPage {
        shell,
        tabs: tabs(&caller, "/system"),
        gauges: gauges(&usage),
        pressure: usage.machine.pressure.as_ref().map(pressure).unwrap_or_default(),
        people: usage.people.iter().take(PEOPLE).map(person_row).collect(),
        more_people: usage.people_total.saturating_sub(shown),
        software: software(&facts, &network),
        risks: network.risks.iter().map(risk_row).collect(),
        host: host(&facts),
        storage: storage(&facts),
        limits: limits(&facts.limits.defaults, &facts.limits.ceilings),
        more_limits: more_limits(&facts),
        layers: layers_shown(&app, &caller, &layers).await?,
    };
    frame.page(&view)
}

fn gauges(usage: &SystemUsage) -> Vec<Meter> {
    let machine = &usage.machine;
    let memory = &machine.memory;
    let all_millis = u64::from(machine.cpus) * 1000;
    vec![
        Meter {
            key: "running",
            label: "Containers".to_owned(),
            text: format!("{} of {}", usage.containers.running, usage.containers.total),
            percent: None,
            note: "running, everybody’s".to_owned(),
        },
        Meter {
            key: "cpu",
            label: "Processor".to_owned(),
            text: format!("{} of {} cores", cores_used(machine.cpu_used_millis), machine.cpus),
            percent: Some(percent(machine.cpu_used_millis, all_millis)),
            note: format!(
                "load {:.2}, {:.2}, {:.2}",
                machine.load.minutes_1, machine.load.minutes_5, machine.load.minutes_15
            ),
        },
        Meter {
            key: "memory",
            label: "Memory".to_owned(),
            text: bytes_of(memory.used_bytes, memory.total_bytes),
            percent: Some(percent(memory.used_bytes, memory.total_bytes)),
            note: match memory.swap_total_bytes {
                0 => "no swap".to_owned(),
                total => format!("swap {}", bytes_of(memory.swap_used_bytes, total)),
            },
        },
        disk(machine, usage.images.bytes),
    ]
}

fn disk(machine: &MachineUsage, images: u64) -> Meter {
    let label = "Disk".to_owned();
    let Some(disk) = &machine.disk else {
        let text = "not known".to_owned();
        return Meter { key: "disk", label, text, ..Meter::default() };
    };
    let used = disk.total_bytes.saturating_sub(disk.available_bytes);
    Meter {
        key: "disk",
        label,
        text: bytes_of(used, disk.total_bytes),
        percent: Some(percent(used, disk.total_bytes)),
        note: format!("{} of it images", bytes(images)),
    }
}

fn pressure(pressure: &Pressure) -> Vec<PressureRow> {
    let row = |of, figures: &PressureOf| {
        let text = |figure: f64| format!("{figure:.1} %");
        PressureRow {
            of,
            some: [figures.some_percent_10s, figures.some_percent_60s, figures.some_percent_300s]
                .map(text),
            full: [figures.full_percent_10s, figures.full_percent_60s, figures.full_percent_300s]
                .map(text),
        }
    };
    vec![
        row("a processor", &pressure.cpu),
        row("memory", &pressure.memory),
        row("a disk", &pressure.io),
    ]
}

fn person_row(person: &PersonUsage) -> PersonRow {
    let usage = &person.usage;
    let is_person = person.person.id != berth_runtime::id::PrincipalId::SYSTEM.0;
    PersonRow {
        name: person.person.name.clone(),
        path: if is_person { format!("/people/{}", person.person.id) } else { String::new() },
        containers: format!("{} of {}", usage.containers.running, usage.containers.total),
        cpu: used::cpu(usage),
        memory: used::memory(usage),
        pids: usage.pids.used.to_string(),
        images: bytes(usage.images.bytes),
    }
}

fn software(facts: &Facts, network: &NetworkState) -> Vec<Fact> {
    let started = Moment::new(facts.started_at.0, Time::now().0);
    let supervisor = match &facts.supervisor {
        Some(found) => format!("{}, protocol {}", found.version, found.protocol),
        None => "does not answer".to_owned(),
    };
    let mut facts = vec![
        Fact::text("Server", facts.version),
        Fact::text("Started", started.words).with_exact(started.exact),
        Fact::text("Supervisor", supervisor),
        Fact::code("Reached at", network.listen.join(" ")),
        Fact::text(
            "Host names",
            match network.hosts.is_empty() {
                true => "loopback ones only".to_owned(),
                false => network.hosts.join(", "),
            },
        ),
    ];
    if let Some(certificate) = &network.certificate {
        let until = Moment::new(certificate.not_after.0, Time::now().0);
        let made = if certificate.generated { "made by Berth, ends" } else { "ends" };
        let text = format!("{made} {}", until.words);
        facts.push(Fact::text("Certificate", text).with_exact(until.exact));
        let print = &certificate.fingerprint_sha256;
        facts.push(Fact::copy("Its SHA-256", print.get(..23).unwrap_or(print), print.clone()));
    }
    facts
}

fn risk_row(risk: &Risk) -> RiskRow {
    let (tone, word) = match risk.severity {
        Severity::Warning => (Tone::Attention, "warning"),
        Severity::Note => (Tone::Neutral, "note"),
    };
    RiskRow {
        level: Badge { tone, icon: "attention", word: word.to_owned(), reason: String::new() },
        setting: risk.setting.clone(),
        what: sentence(&risk.what),
        cure: sentence(&risk.cure),
    }
}

fn host(facts: &Facts) -> Vec<Fact> {
    let host = &facts.host;
    vec![
        Fact::text("Name", &host.name),
        Fact::text("System", &host.os),
        Fact::code("Kernel", format!("{} {}", host.kernel, host.architecture)),
        Fact::text("Processors", host.cpus.to_string()),
        Fact::text("Memory", bytes(host.memory_bytes)),
        Fact::text("All containers together", together(facts)),
        Fact::text("Up", span(host.uptime_secs)),
        Fact::text(
            "Control groups",
            match host.cgroup_layout {
                "v2" => "version 2",
                "hybrid" => "version 1, with an empty unified tree (hybrid)",
                _ => "version 1",
            },
        ),
        Fact::code(
            "All containers in",
            match &facts.containers_cgroup {
                Some(path) => path.as_str(),
                None => "shown while one runs",
            },
        ),
    ]
}

/// What containers may use of the host's memory and processors, as the kernel holds it.
fn together(facts: &Facts) -> String {
    let Some(held) = &facts.containers_held else {
        return "told by the supervisor, which is away".to_owned();
    };
    let Some(memory) = held.iter().find(|limit| limit.name == "memory") else {
        return "no bound".to_owned();
    };
    match memory.value.parse().ok().filter(|most| *most < facts.host.memory_bytes) {
        Some(most) if memory.held => format!("{} of memory at most", bytes(most)),
        _ if memory.held => "as much memory as there is".to_owned(),
        _ => format!("not held: {}", memory.reason),
    }
}

fn storage(facts: &Facts) -> Vec<Fact> {
    let storage = &facts.storage;
    let mut all = vec![
        Fact::code("Data", storage.data_dir.display().to_string()),
        Fact::code("Live state", storage.run_dir.display().to_string()),
    ];
    if let Some(disk) = &storage.disk {
        let left = format!("{} of {}", bytes(disk.available_bytes), bytes(disk.total_bytes));
        all.push(Fact::text("Disk left", left));
        all.push(Fact::text("Files left", disk.files_available.to_string()));
    }
    let NetworkFacts { pool, prefix, pool6 } = &facts.network;
    all.push(Fact::code(
        "Addresses from",
        match pool6 {
            Some(pool6) => format!("{pool}, a /{prefix} each; {pool6}"),
            None => format!("{pool}, a /{prefix} each; no IPv6"),
        },
    ));
    all
}

/// How the stored layers were found when somebody last looked.
fn layers_in_words(found: &LayersView) -> String {
    let LayersView { layers, whole, harmed, .. } = found;
    let unseen = layers.saturating_sub(whole + harmed);
    let words = match (harmed, unseen) {
        (0, 0) => format!("{layers}, all found whole"),
        (0, unseen) => format!("{layers}, {unseen} of them never looked at"),
        (harmed, _) => format!("{layers}, {harmed} of them harmed"),
    };
    match found.oldest_checked_at.map(|at| Moment::new(at.0, Time::now().0)) {
        Some(at) => format!("{words}; the oldest look was {}", at.words),
        None => words,
    }
}

fn more_limits(facts: &Facts) -> Vec<Fact> {
    let limits = &facts.limits;
    vec![
        Fact::text("Containers", format!("{} for each person", limits.containers_per_person)),
        Fact::text("Log kept", format!("{} for each container", bytes(limits.log_bytes))),
        Fact::text("One layer", format!("{} unpacked at most", bytes(limits.layer_bytes))),
    ]
}

fn limits(defaults: &LimitsView, ceilings: &LimitsView) -> Vec<LimitRow> {
    let row = |name, of: fn(&LimitsView) -> String| LimitRow {
        name,
        default: of(defaults),
        ceiling: of(ceilings),
    };
    vec![
        row("Processor", |limits| format!("{} cores", cores(limits.cpu_millis.into()))),
        row("Weight", |limits| limits.cpu_weight.to_string()),
        row("Memory", |limits| bytes(limits.memory_bytes)),
        row("Swap", |limits| bytes(limits.swap_bytes)),
        row("Processes", |limits| limits.pids.to_string()),
    ]
}

#[derive(Debug, Default, Deserialize)]
struct DoctorQuery {
    #[serde(default)]
    fresh: bool,
}

async fn doctor(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<DoctorQuery>,
) -> Result<Response> {
    let mut shell = frame.shell("Doctor", Section::System);
    shell.path = "/system/doctor".to_owned();
    shell.calls = vec![ApiCall::get("What the host has and lacks", "/api/v1/system/doctor")];
    let fresh = if query.fresh { Fresh::Yes } else { Fresh::No };
    let (status, error, report) = match system::doctor(&app, fresh).await {
        Ok(report) => (StatusCode::OK, String::new(), Some(report)),
        Err(error @ Error::Broken { .. }) => return Err(error),
        Err(error) => (problem::status(&error), sentence(&error.to_string()), None),
    };
    let view = DoctorPage {
        shell,
        tabs: tabs(&caller, "/system/doctor"),
        error,
        at: report.as_ref().map(|report| Moment::new(report.at.0, Time::now().0)),
        verdict: verdict(report.as_ref()),
        rows: report.map(check_rows).unwrap_or_default(),
    };
    frame.page_with(status, &view)
}

fn verdict(report: Option<&Report>) -> Badge {
    let (tone, icon, word) = match report {
        None => (Tone::Attention, "attention", "no report".to_owned()),
        Some(report) => match (report.blockers, report.lacks) {
            (0, 0) => (Tone::Good, "check", "nothing is lacking".to_owned()),
            (0, 1) => (Tone::Attention, "attention", "1 thing is lacking".to_owned()),
            (0, lacks) => (Tone::Attention, "attention", format!("{lacks} things are lacking")),
            (blockers, _) => (Tone::Bad, "failed", format!("{blockers} keep Berth from running")),
        },
    };
    Badge { tone, icon, word, reason: String::new() }
}

/// What needs somebody first.
fn check_rows(report: Report) -> Vec<CheckRow> {
    let mut checks = report.checks;
    let rank = |check: &Check| match check.status {
        "blocker" => 0,
        "lack" => 1,
        _ => 2,
    };
    checks.sort_by_key(rank);
    let state = |status| match status {
        "blocker" => (Tone::Bad, "failed", "blocker"),
        "lack" => (Tone::Attention, "attention", "lack"),
        _ => (Tone::Good, "check", "ok"),
    };
    checks
        .into_iter()
        .map(|check| {
            let (tone, icon, word) = state(check.status);
            CheckRow {
                id: check.id,
                state: Badge { tone, icon, word: word.to_owned(), reason: String::new() },
                found: check.found,
                costs: check.costs,
                mend: check.mend,
            }
        })
        .collect()
}

async fn warnings(frame: Frame, caller: Caller) -> Result<Response> {
    let mut shell = frame.shell("Warnings", Section::System);
    shell.calls = vec![ApiCall::get("The newest warnings", "/api/v1/system/warnings")];
    let now = Time::now().0;
    let row = |warning: crate::warnings::Warning| WarningRow {
        at: Moment::new(warning.at.0, now),
        level: match warning.level {
            "error" => {
                Badge { tone: Tone::Bad, icon: "failed", word: "error".into(), ..Badge::default() }
            }
            word => {
                let (tone, icon) = (Tone::Attention, "attention");
                Badge { tone, icon, word: word.to_owned(), ..Badge::default() }
            }
        },
        text: warning.text,
    };
    let view = WarningsPage {
        shell,
        tabs: tabs(&caller, "/system/warnings"),
        rows: system::warnings().into_iter().map(row).collect(),
    };
    frame.page(&view)
}

pub(super) fn tabs(caller: &Caller, here: &str) -> Vec<Scope> {
    let tab = |label, path: &str| Scope {
        label,
        count: None,
        path: path.to_owned(),
        current: path == here,
    };
    let mut tabs = vec![tab("Overview", "/system"), tab("Doctor", "/system/doctor")];
    if caller.role == Role::Operator {
        tabs.push(tab("Warnings", "/system/warnings"));
        tabs.push(tab("Maintenance", "/system/maintenance"));
    }
    tabs
}
