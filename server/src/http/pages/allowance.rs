//! What people may use together: a person's on their page, everybody's on a page of its own.

use axum::extract::{Path, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::id::PrincipalId;
use berth_web::containers::ConfirmPage;
use berth_web::format::{self, bytes, cores};
use berth_web::parts::{Fact, Field};
use berth_web::people::{AllowanceForm, AllowancePage};
use berth_web::shell::{ApiCall, Section};

use super::form::{Posted, Wrong};
use super::frame::Frame;
use super::person::{self, Beside};
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::error::{Error, Result};
use crate::http::routes::{Access, FormFields, Routes};
use crate::inventory::allowances::{Allowance, Whose};
use crate::service::admission::words;
use crate::service::allowances::AllowanceSet;
use crate::service::lifetimes::span;
use crate::service::preview::{self, Preview};
use crate::service::{allowances, people};

/// What an allowance's form sends: its fields, the wish to look only, and that what was looked at is wanted.
pub(super) const FIELDS: FormFields = FormFields::once(&[
    "cpu",
    "cpu_weight",
    "memory",
    "swap",
    "pids",
    "containers",
    "ports",
    "images",
    "image_bytes",
    "data",
    "io_weight",
    "io_read",
    "io_write",
    "net",
    "lifetime",
    "lifetime_default",
    "idle",
    "look",
    "confirmed",
]);
/// Lines of who would be over, at most.
const LINES_MAX: usize = 60;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let manage = Access::Operator(TokenScope::Manage);
    let path = "/people/allowance";
    routes
        .page(Access::Overseer(TokenScope::Read), Method::GET, path, everybody)
        .form(manage, path, FIELDS, set_everybody)
        .form(manage, "/people/{id}/allowance", FIELDS, set)
        .form(manage, "/people/{id}/allowance-default", FormFields::once(&["confirmed"]), reset)
}

async fn everybody(State(app): State<App>, frame: Frame, caller: Caller) -> Result<Response> {
    let allowance = allowances::default(&app).await?;
    let shown = Shown { form: form(&allowance), ..Shown::default() };
    show(&frame, &caller, StatusCode::OK, &allowance, shown)
}

async fn set_everybody(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let path = "/people/allowance";
    let asked =
        Asked { whose: "everybody".to_owned(), path: path.to_owned(), back: path.to_owned() };
    let done = match read(&posted) {
        Ok(allowance) => {
            match asked.first(&frame, &posted, preview::of_default(&app, allowance).await) {
                Ok(Some(question)) => return Ok(question),
                Ok(None) => allowances::set_default(&app, &caller, allowance).await,
                Err(error) => Err(error),
            }
        }
        Err(wrong) => Err(wrong.into_error()),
    };
    match done {
        Ok(set) if set.over.is_empty() => {
            frame.done("/people/allowance", "Everybody’s allowance is saved.")
        }
        Ok(set) => {
            let shown = Shown { form: form(&set.allowance), over: set.over, ..Shown::default() };
            show(&frame, &caller, StatusCode::OK, &set.allowance, shown)
        }
        Err(error) => {
            let now = allowances::default(&app).await?;
            let (status, mut wrong, error) = frame.refusal(error)?;
            let form = typed(&posted, &mut wrong);
            let error = if error.is_empty() { wrong.rest() } else { error };
            show(&frame, &caller, status, &now, Shown { form, error, over: Vec::new() })
        }
    }
}

async fn set(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let done = match read(&posted) {
        Ok(allowance) => {
            let (id, asked) = (PrincipalId(id), of_person(&app, &caller, id, "allowance").await?);
            let preview = preview::of_person(&app, &caller, id, allowance).await;
            match asked.first(&frame, &posted, preview) {
                Ok(Some(question)) => return Ok(question),
                Ok(None) => allowances::set(&app, &caller, id, allowance).await,
                Err(error) => Err(error),
            }
        }
        Err(wrong) => Err(wrong.into_error()),
    };
    match done {
        Ok(set) => frame.done(&format!("/people/{id}"), &saved(&set)),
        Err(error @ (Error::NotFound(_) | Error::Broken { .. })) => Err(error),
        Err(error) => {
            let (status, mut wrong, error) = frame.refusal(error)?;
            let allowance = Some(typed(&posted, &mut wrong));
            let error = if error.is_empty() { wrong.rest() } else { error };
            let beside = Beside { error, allowance, ..Beside::default() };
            person::show(&app, &frame, &caller, (PrincipalId(id), status), beside).await
        }
    }
}

/// What the kernel said to it, in a sentence.
pub(super) fn saved(set: &AllowanceSet) -> String {
    let lacks = set.held.iter().filter(|limit| !limit.held);
    let lacks: Vec<_> = lacks.map(|limit| format!("{} ({})", limit.name, limit.reason)).collect();
    match lacks.is_empty() {
        true => "The allowance is saved, and held.".to_owned(),
        false => format!("The allowance is saved. Not held here: {}.", lacks.join("; ")),
    }
}

async fn reset(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Path(id): Path<u32>,
    posted: Posted,
) -> Result<Response> {
    let asked = of_person(&app, &caller, id, "allowance-default").await?;
    let preview = preview::of_default_for(&app, &caller, PrincipalId(id)).await;
    if let Some(question) = asked.first(&frame, &posted, preview)? {
        return Ok(question);
    }
    let result = allowances::reset(&app, &caller, PrincipalId(id)).await;
    frame.outcome(result, &format!("/people/{id}"), "Everybody’s allowance applies again.")
}

async fn of_person(app: &App, caller: &Caller, id: u32, form: &str) -> Result<Asked> {
    let person = people::find(app, caller, PrincipalId(id)).await?;
    let back = format!("/people/{id}");
    Ok(Asked { whose: person.name, path: format!("{back}/{form}"), back })
}

/// The question that comes before an allowance which somebody would be over is saved.
pub(super) struct Asked {
    /// Whose it is to be, in words.
    pub whose: String,
    /// Where its form is sent.
    pub path: String,
    /// Where one goes who decides against it.
    pub back: String,
}

impl Asked {
    /// The question, when somebody would be over and it has not been answered, or when somebody only
    /// looks; `None` when the allowance is to be saved.
    ///
    /// # Errors
    /// That of the preview.
    pub(super) fn first(
        &self,
        frame: &Frame,
        posted: &Posted,
        preview: Result<Preview>,
    ) -> Result<Option<Response>> {
        let preview = preview?;
        let looks = !posted.text("look").is_empty();
        let answered = !posted.text("confirmed").is_empty() && !looks;
        if answered || (preview.over.is_empty() && !looks) {
            return Ok(None);
        }
        let fields = FIELDS.once.iter().filter(|name| !matches!(**name, "look" | "confirmed"));
        let typed = fields.filter_map(|name| Some(((*name).to_owned(), posted.optional(name)?)));
        let mut hidden: Vec<(String, String)> = typed.collect();
        hidden.push(("confirmed".to_owned(), "yes".to_owned()));
        let page = ConfirmPage {
            shell: frame.shell("Who would be over?", Section::People),
            question: format!("Save this allowance for {}?", self.whose),
            losses: lines(&preview),
            verb: "Save it",
            path: self.path.clone(),
            hidden,
            back: self.back.clone(),
            ..ConfirmPage::default()
        };
        frame.page(&page).map(Some)
    }
}

/// Who would be over, and what would happen, a sentence each.
fn lines(preview: &Preview) -> Vec<String> {
    if preview.over.is_empty() {
        return vec!["Nobody would be over: nothing more than this is in use.".to_owned()];
    }
    let mut lines = Vec::new();
    for over in &preview.over {
        let name = match over.of {
            Whose::Person => over.name.clone(),
            Whose::Group => format!("The group {}", over.name),
        };
        lines.extend(over.limits.iter().map(|limit| format!("{name}: {}.", limit.detail)));
        lines.extend(over.containers.iter().map(|one| {
            format!(
                "{name}: the container {} asks for {} alone, {} proposed for all together: it runs on, and \
                 is not started again until it asks for less.",
                one.name,
                words(one.limit, one.asks),
                words(one.limit, one.proposed)
            )
        }));
    }
    for over in &preview.over {
        let name = &over.name;
        lines.extend(over.endings.iter().map(|one| {
            let then = span(one.secs_left.into());
            let now = one.ends_at.map_or_else(|| "never".to_owned(), |at| at.to_string());
            format!(
                "{name}: the container {} would be stopped {then} after the change; as it is, {now}.",
                one.name
            )
        }));
    }
    let more = lines.len().saturating_sub(LINES_MAX);
    lines.truncate(LINES_MAX);
    if more > 0 || preview.over_total > preview.over.len() as u64 {
        let total = preview.over_total;
        lines.push(format!("And more: {total} would be over in all. The API lists 500 of them."));
    }
    lines
}

/// What the page shows besides what is saved.
#[derive(Default)]
struct Shown {
    form: AllowanceForm,
    error: String,
    over: Vec<String>,
}

fn show(
    frame: &Frame,
    caller: &Caller,
    status: StatusCode,
    now: &Allowance,
    shown: Shown,
) -> Result<Response> {
    let mut shell = frame.shell("Everybody’s allowance", Section::People);
    shell.path = "/people/allowance".to_owned();
    let body = serde_json::to_string(now)
        .map_err(|source| Error::broken("write an allowance as JSON", source))?;
    shell.calls = vec![
        ApiCall::get("Show it", "/api/v1/allowance"),
        ApiCall::send("Change it", "PUT", "/api/v1/allowance", Some(body.clone())),
        ApiCall::send("Who would be over", "POST", "/api/v1/allowance/preview", Some(body)),
    ];
    let Shown { form, error, over } = shown;
    let manages = caller.role == Role::Operator;
    let page = AllowancePage { shell, error, over, manages, allowance: form, facts: facts(now) };
    frame.page_with(status, &page)
}

/// An allowance as facts.
pub(super) fn facts(allowance: &Allowance) -> Vec<Fact> {
    let text = |value: Option<String>| value.unwrap_or_else(|| "no bound".to_owned());
    let configured = |most: Option<u32>| {
        most.map_or_else(|| "as configured".to_owned(), |most| most.to_string())
    };
    vec![
        Fact::text(
            "Processor",
            text(allowance.cpu_millis.map(|most| format!("{} cores", cores(most.into())))),
        ),
        Fact::text("Share", allowance.cpu_weight.to_string()),
        Fact::text("Memory", text(allowance.memory_bytes.map(bytes))),
        Fact::text("Swap", text(allowance.swap_bytes.map(bytes))),
        Fact::text("Processes", text(allowance.pids.map(|most| most.to_string()))),
        Fact::text("Containers", configured(allowance.containers_max)),
        Fact::text("Ports of the host", configured(allowance.ports_max)),
        Fact::text("Images", text(allowance.images_max.map(|most| most.to_string()))),
        Fact::text("Size of images", text(allowance.images_bytes.map(bytes))),
        Fact::text("Kept on disk", text(allowance.data_bytes.map(bytes))),
        Fact::text(
            "Share of the disk",
            allowance.io_weight.map_or_else(|| "as usual".to_owned(), |weight| weight.to_string()),
        ),
        Fact::text("Read from disk", text(allowance.io_read_bytes_per_sec.map(pace))),
        Fact::text("Written to disk", text(allowance.io_write_bytes_per_sec.map(pace))),
        Fact::text("Network, each way", text(allowance.net_bytes_per_sec.map(pace))),
        Fact::text("A container runs at most", text(allowance.lifetime_secs.map(long))),
        Fact::text(
            "It runs, when nobody says",
            allowance.lifetime_default_secs.map_or_else(|| "as long as it may".to_owned(), long),
        ),
        Fact::text("Stopped when not used for", text(allowance.idle_secs.map(long))),
    ]
}

fn long(secs: u32) -> String {
    span(secs.into())
}

fn pace(bytes_per_sec: u64) -> String {
    format!("{} a second", bytes(bytes_per_sec))
}

/// An allowance as a form.
pub(super) fn form(allowance: &Allowance) -> AllowanceForm {
    let field = |value: Option<String>| Field::new(value.unwrap_or_default());
    AllowanceForm {
        cpu: field(allowance.cpu_millis.map(|most| cores(most.into()))),
        cpu_weight: Field::new(allowance.cpu_weight.to_string()),
        memory: field(allowance.memory_bytes.map(bytes)),
        swap: field(allowance.swap_bytes.map(bytes)),
        pids: field(allowance.pids.map(|most| most.to_string())),
        containers: field(allowance.containers_max.map(|most| most.to_string())),
        ports: field(allowance.ports_max.map(|most| most.to_string())),
        images: field(allowance.images_max.map(|most| most.to_string())),
        image_bytes: field(allowance.images_bytes.map(bytes)),
        data: field(allowance.data_bytes.map(bytes)),
        io_weight: field(allowance.io_weight.map(|weight| weight.to_string())),
        io_read: field(allowance.io_read_bytes_per_sec.map(bytes)),
        io_write: field(allowance.io_write_bytes_per_sec.map(bytes)),
        net: field(allowance.net_bytes_per_sec.map(bytes)),
        lifetime: field(allowance.lifetime_secs.map(long)),
        lifetime_default: field(allowance.lifetime_default_secs.map(long)),
        idle: field(allowance.idle_secs.map(long)),
    }
}

/// The form as it was typed, with what is wrong beside each field.
pub(super) fn typed(posted: &Posted, wrong: &mut Wrong) -> AllowanceForm {
    let mut field = |name: &str, pointer: &str| Field {
        value: posted.text(name).to_owned(),
        error: wrong.take(pointer),
    };
    AllowanceForm {
        cpu: field("cpu", "/cpu_millis"),
        cpu_weight: field("cpu_weight", "/cpu_weight"),
        memory: field("memory", "/memory_bytes"),
        swap: field("swap", "/swap_bytes"),
        pids: field("pids", "/pids"),
        containers: field("containers", "/containers_max"),
        ports: field("ports", "/ports_max"),
        images: field("images", "/images_max"),
        image_bytes: field("image_bytes", "/images_bytes"),
        data: field("data", "/data_bytes"),
        io_weight: field("io_weight", "/io_weight"),
        io_read: field("io_read", "/io_read_bytes_per_sec"),
        io_write: field("io_write", "/io_write_bytes_per_sec"),
        net: field("net", "/net_bytes_per_sec"),
        lifetime: field("lifetime", "/lifetime_secs"),
        lifetime_default: field("lifetime_default", "/lifetime_default_secs"),
        idle: field("idle", "/idle_secs"),
    }
}

/// The allowance that was typed.
///
/// # Errors
/// What is wrong beside each field.
pub(super) fn read(posted: &Posted) -> std::result::Result<Allowance, Wrong> {
    let mut wrong = Wrong::default();
    let cpu = posted.text("cpu");
    let cpu_millis = format::read_cores(cpu).and_then(|millis| u32::try_from(millis).ok());
    if cpu_millis.is_none() && !cpu.is_empty() {
        wrong.add("/cpu_millis", format!("{cpu:?} is no number of cores, such as 1.5"));
    }
    let weight = wrong.number(posted, "cpu_weight", "/cpu_weight");
    let allowance = Allowance {
        cpu_millis,
        cpu_weight: weight.unwrap_or(Allowance::FREE.cpu_weight),
        memory_bytes: wrong.size(posted, "memory", "/memory_bytes"),
        swap_bytes: wrong.size(posted, "swap", "/swap_bytes"),
        pids: wrong.number(posted, "pids", "/pids"),
        containers_max: wrong.number(posted, "containers", "/containers_max"),
        ports_max: wrong.number(posted, "ports", "/ports_max"),
        images_max: wrong.number(posted, "images", "/images_max"),
        images_bytes: wrong.size(posted, "image_bytes", "/images_bytes"),
        data_bytes: wrong.size(posted, "data", "/data_bytes"),
        io_weight: wrong.number(posted, "io_weight", "/io_weight"),
        io_read_bytes_per_sec: wrong.size(posted, "io_read", "/io_read_bytes_per_sec"),
        io_write_bytes_per_sec: wrong.size(posted, "io_write", "/io_write_bytes_per_sec"),
        net_bytes_per_sec: wrong.size(posted, "net", "/net_bytes_per_sec"),
        lifetime_secs: wrong.length(posted, "lifetime", "/lifetime_secs"),
        lifetime_default_secs: wrong.length(posted, "lifetime_default", "/lifetime_default_secs"),
        idle_secs: wrong.length(posted, "idle", "/idle_secs"),
    };
    if wrong.is_empty() { Ok(allowance) } else { Err(wrong) }
}
