//! Launching a container: sizes to choose from, what that leaves of the machine, and the same as JSON
//! and as a command. The preview is the server's own reading of the form, so it cannot say anything
//! else than the launch does.

use axum::extract::{Query, State};
use axum::http::{Method, StatusCode};
use axum::response::Response;
use berth_runtime::wire::Limits;
use berth_web::containers::{LaunchPage, Preview, Size};
use berth_web::format::{bytes, cores};
use berth_web::shell::{ApiCall, Section};
use serde::Deserialize;
use serde_json::Value;

use super::container::ceilings;
use super::entry::refusal;
use super::form::{Posted, Wrong};
use super::frame::{Frame, sentence};
use super::images::is_shared;
use super::request::{LAUNCH, launch_form, launch_request};
use crate::app::App;
use crate::auth::{Caller, TokenScope};
use crate::error::{Error, Result};
use crate::http::routes::{Access, Routes};
use crate::service::Page;
use crate::service::containers::create;
use crate::service::containers::spec::{self, CreateRequest};
use crate::service::usage::{self, Usage};
use crate::service::{admission, data_sets, images, lifetimes, machine, ports, volumes};

/// References offered beside the field at most.
const IMAGES_MAX: u32 = 200;
/// Volumes named beside theirs at most.
const VOLUMES_NAMED: u32 = 20;

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let act = Access::Member(TokenScope::Operate);
    routes.page(act, Method::GET, "/launch", show).form(act, "/launch", LAUNCH, launch).form(
        act,
        "/launch/preview",
        LAUNCH,
        preview,
    )
}

#[derive(Debug, Default, Deserialize)]
struct LaunchQuery {
    #[serde(default)]
    image: String,
}

async fn show(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<LaunchQuery>,
) -> Result<Response> {
    let mut posted = Posted::default();
    posted.set("image", query.image);
    posted.set("network", "private".to_owned());
    posted.set("restart", "no".to_owned());
    let config = admission::config(&app, caller.principal).await?;
    set_limits(&mut posted, &config.default_limits);
    let page = page(&app, &frame, &caller, &posted, Wrong::default(), String::new()).await?;
    frame.page(&page)
}

/// The form again, with the size that was chosen and all that is wrong; nothing is made.
async fn preview(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    mut posted: Posted,
) -> Result<Response> {
    let wanted = posted.text("size").to_owned();
    if let Some((_, limits)) = sizes(&app).into_iter().find(|(name, _)| *name == wanted) {
        set_limits(&mut posted, &limits);
    }
    let (mut wrong, mut text) = (Wrong::default(), String::new());
    // A size is chosen before the rest is filled in: that is no time for reproaches.
    if wanted.is_empty()
        && let Err(error) = read(&app, &posted)
    {
        (_, wrong, text) = refusal(error)?;
    }
    let page = page(&app, &frame, &caller, &posted, wrong, text).await?;
    frame.page(&page)
}

async fn launch(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    posted: Posted,
) -> Result<Response> {
    let result = match launch_request(&posted) {
        Ok(request) => create::create(&app, &caller, request, None).await,
        Err(wrong) => Err(wrong.into_error()),
    };
    match result {
        Ok(made) => {
            let view = made.container;
            let text = format!("{} is {}.", view.name, view.status.as_str());
            frame.done(&format!("/containers/{}", view.id), &text)
        }
        Err(error @ Error::NotFound(_)) => {
            frame.note(&error);
            let text = sentence(&error.to_string());
            let page = page(&app, &frame, &caller, &posted, Wrong::default(), text).await?;
            frame.page_with(StatusCode::UNPROCESSABLE_ENTITY, &page)
        }
        Err(error) => {
            let (status, wrong, text) = frame.refusal(error)?;
            let page = page(&app, &frame, &caller, &posted, wrong, text).await?;
            frame.page_with(status, &page)
        }
    }
}

/// The request that the form asks for, judged as the launch judges it.
fn read(app: &App, posted: &Posted) -> Result<CreateRequest> {
    let request = launch_request(posted).map_err(Wrong::into_error)?;
    spec::check(&request, &app.config.containers, &app.config.runtime)?;
    Ok(request)
}

/// The sizes to choose from, none above the ceilings.
fn sizes(app: &App) -> Vec<(String, Limits)> {
    let most = &app.config.runtime.ceilings;
    let within = |limits: &Limits| Limits {
        cpu_millis: limits.cpu_millis.min(most.cpu_millis),
        cpu_weight: limits.cpu_weight.min(most.cpu_weight),
        memory_bytes: limits.memory_bytes.min(most.memory_bytes),
        swap_bytes: limits.swap_bytes.min(most.swap_bytes),
        pids: limits.pids.min(most.pids),
    };
    let sizes = app.config.containers.sizes.iter();
    sizes.map(|size| (size.name.clone(), within(&size.limits))).collect()
}

fn set_limits(posted: &mut Posted, limits: &Limits) {
    for (name, value) in [
        ("cpu", cores(limits.cpu_millis.into())),
        ("cpu_weight", limits.cpu_weight.to_string()),
        ("memory", bytes(limits.memory_bytes)),
        ("swap", bytes(limits.swap_bytes)),
        ("pids", limits.pids.to_string()),
    ] {
        posted.set(name, value);
    }
}

async fn page(
    app: &App,
    frame: &Frame,
    caller: &Caller,
    posted: &Posted,
    mut wrong: Wrong,
    error: String,
) -> Result<LaunchPage> {
    let listed = images::list(app, caller, None, &Page { limit: IMAGES_MAX, after: None }).await?;
    // Somebody else's names are not what a launch finds.
    let own = listed.items.iter().filter(|image| !is_shared(caller, image));
    let names: Vec<String> =
        own.flat_map(|image| &image.references).map(ToString::to_string).collect();
    let mut shell = frame.shell("Launch", Section::Containers);
    shell.path = "/launch".to_owned();
    let request = read(app, posted);
    let asked = request
        .as_ref()
        .ok()
        .map(|request| spec::merge_limits(&request.limits, &app.config.containers.default_limits));
    let usage = usage::mine(app, caller).await?;
    let here = match &request {
        Ok(request) => {
            images::resolve(app, caller.principal, &request.image).await.is_ok()
                || images::shared(app, caller, &request.image).await?.is_some()
        }
        Err(_) => false,
    };
    let preview = shown_preview(frame, &request, here)?;
    if let Ok(request) = &request {
        shell.calls = vec![call(request)?];
    }
    let chosen = |limits: &Limits| asked.as_ref() == Some(limits);
    let size = |(name, limits): (String, Limits)| Size {
        words: format!("{} · {}", in_cores(limits.cpu_millis.into()), bytes(limits.memory_bytes)),
        chosen: chosen(&limits),
        cpu: cores(limits.cpu_millis.into()),
        cpu_weight: limits.cpu_weight.to_string(),
        memory: bytes(limits.memory_bytes),
        swap: bytes(limits.swap_bytes),
        pids: limits.pids.to_string(),
        name,
    };
    Ok(LaunchPage {
        shell,
        form: launch_form(posted, &mut wrong),
        error: if error.is_empty() { wrong.rest() } else { error },
        images: names,
        ports_hint: ports_hint(app),
        lifetime_hint: lifetimes::in_words(app, caller.principal).await?,
        volumes_hint: volumes_hint(app, caller).await?,
        data_sets_hint: data_sets_hint(app, caller, posted).await?,
        ceilings: ceilings(app),
        sizes: sizes(app).into_iter().map(size).collect(),
        left: left(&usage, asked.as_ref(), machine_size().await),
        preview,
    })
}

/// How volumes are named, and some that the caller has.
async fn volumes_hint(app: &App, caller: &Caller) -> Result<String> {
    let names = volumes::names(app, caller, VOLUMES_NAMED).await?;
    let how = "One NAME:/path a line, with :ro at the end for reading alone.";
    Ok(match names.is_empty() {
        true => format!("{how} You have no volume yet; make one under Volumes."),
        false => format!("{how} Of yours: {}.", names.join(", ")),
    })
}

/// How data sets are named, and which the caller may have; empty when there are none to be asked for.
async fn data_sets_hint(app: &App, caller: &Caller, posted: &Posted) -> Result<String> {
    let names = data_sets::names(app, caller).await?;
    if names.is_empty() && posted.text("data_sets").is_empty() {
        return Ok(String::new());
    }
    let how = "Directories of this machine’s to read: one NAME:/path a line.";
    Ok(match names.is_empty() {
        true => format!("{how} None is offered to you."),
        false => format!("{how} For you: {}.", names.join(", ")),
    })
}

/// What of the host can be leased, in a sentence or two.
fn ports_hint(app: &App) -> String {
    let policy = ports::policy(app);
    let (Some(first), Some(last)) = (policy.first, policy.last) else {
        return "The operator has given no ports of the host to be leased.".to_owned();
    };
    let here = policy.addresses.iter().all(std::net::IpAddr::is_loopback);
    let reach = if here { ", on this machine alone" } else { "" };
    format!(
        "One a line: 8080 for a free port of the host, 20080:8080 for that one, /udp at the end for UDP. Of \
         the host {first} to {last} can be had{reach}."
    )
}

fn call(request: &CreateRequest) -> Result<ApiCall> {
    let body = serde_json::to_string(&said(request)?)
        .map_err(|error| Error::broken("write a request", error))?;
    Ok(ApiCall::send("Launch this", "POST", "/api/v1/containers", Some(body)))
}

/// The request as somebody would write it: without what is left out anyhow.
fn said(request: &CreateRequest) -> Result<Value> {
    let mut value =
        serde_json::to_value(request).map_err(|error| Error::broken("write a request", error))?;
    if let Value::Object(fields) = &mut value {
        fields.retain(|_, value| match value {
            Value::Null | Value::Bool(false) => false,
            Value::Array(list) => !list.is_empty(),
            Value::Object(map) => !map.is_empty(),
            _ => true,
        });
    }
    Ok(value)
}

fn shown_preview(frame: &Frame, request: &Result<CreateRequest>, here: bool) -> Result<Preview> {
    let request = match request {
        Ok(request) => request,
        Err(error) => {
            return Ok(Preview { not_ready: reason(error), ..Preview::default() });
        }
    };
    let json = serde_json::to_string_pretty(&said(request)?)
        .map_err(|error| Error::broken("write a request", error))?;
    let image = match here {
        true => "You have this image.",
        false => "None of your images has this name: it is pulled first, if it must be.",
    };
    Ok(Preview {
        json,
        curl: call(request)?.curl(frame.origin()),
        image: image.to_owned(),
        not_ready: String::new(),
    })
}

/// Why a request cannot be launched: field by field, where that is known.
fn reason(error: &Error) -> String {
    match error {
        Error::Invalid { fields, .. } if !fields.is_empty() => {
            let details: Vec<&str> = fields.iter().map(|field| field.detail.as_str()).collect();
            sentence(&details.join("; "))
        }
        other => sentence(&other.to_string()),
    }
}

/// What a launch leaves, in sentences. There are no quotas: what is left is the machine's, and
/// everybody's.
fn left(usage: &Usage, asked: Option<&Limits>, machine: Option<(u32, u64)>) -> Vec<String> {
    let count = &usage.containers;
    let mut said = vec![format!(
        "You have {} of the {} containers that one person may have.",
        count.total, count.max
    )];
    let Some(asked) = asked else { return said };
    let each_cpu = usage.cpu.limit_millis.saturating_add(asked.cpu_millis.into());
    let each_memory = usage.memory.limit_bytes.saturating_add(asked.memory_bytes);
    let allowed = &usage.allowance;
    let cpu = allowed.cpu_millis.map_or(each_cpu, |most| each_cpu.min(most.into()));
    let memory = allowed.memory_bytes.map_or(each_memory, |most| each_memory.min(most));
    let held = match (cpu, memory) == (each_cpu, each_memory) {
        true => "",
        false => ", to which your allowance holds them",
    };
    said.push(format!(
        "With this one, what you run may use {} and {} together{held}.",
        in_cores(cpu),
        bytes(memory)
    ));
    let Some((cpus, total)) = machine else { return said };
    let (cpu_of, memory_of) = (u64::from(cpus) * 1000, total);
    let words = match (cpu_of.checked_sub(cpu), memory_of.checked_sub(memory)) {
        (Some(cpu), Some(memory)) => {
            format!("That leaves you {} and {}", in_cores(cpu), bytes(memory))
        }
        (None, Some(memory)) => {
            format!("That is more than all processors, and leaves you {}", bytes(memory))
        }
        (Some(cpu), None) => {
            format!("That is more than all memory, and leaves you {}", in_cores(cpu))
        }
        (None, None) => {
            "That is more than all of it: your containers hold one another up".to_owned()
        }
    };
    said.push(format!(
        "{words} of this machine’s {} and {}, which everybody on it shares.",
        in_cores(cpu_of),
        bytes(memory_of)
    ));
    said
}

fn in_cores(millis: u64) -> String {
    match millis {
        1000 => "1 core".to_owned(),
        millis => format!("{} cores", cores(millis)),
    }
}

/// Processors and memory of the machine, when the kernel tells.
async fn machine_size() -> Option<(u32, u64)> {
    let seen = tokio::task::spawn_blocking(machine::look).await.ok()?.ok()?;
    Some((seen.cpus, seen.memory.total_bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::Time;
    use crate::inventory::allowances::Allowance;

    #[test]
    fn what_is_left_is_said_against_the_machine_and_never_below_nothing() {
        let usage = Usage {
            at: Time(0),
            containers: usage::ContainerCount { running: 1, total: 3, max: 200 },
            cpu: usage::CpuShare { used_millis: 0, limit_millis: 1000 },
            memory: usage::MemoryShare { limit_bytes: 1 << 30, ..usage::MemoryShare::default() },
            pids: usage::PidShare::default(),
            images: usage::ImageShare::default(),
            allowance: Allowance::FREE,
        };
        let asked = Limits {
            cpu_millis: 1000,
            cpu_weight: 100,
            memory_bytes: 2 << 30,
            swap_bytes: 0,
            pids: 1,
        };
        let said = left(&usage, Some(&asked), Some((4, 8 << 30)));
        assert_eq!(said[0], "You have 3 of the 200 containers that one person may have.");
        assert_eq!(said[1], "With this one, what you run may use 2 cores and 3 GiB together.");
        assert!(said[2].starts_with("That leaves you 2 cores and 5 GiB of this machine’s 4 cores"));
        let said = left(&usage, Some(&asked), Some((1, 1 << 30)));
        assert!(said[2].starts_with("That is more than all of it"), "{}", said[2]);
        assert_eq!(left(&usage, None, None).len(), 1);
        let allowance = Allowance { memory_bytes: Some(1 << 30), ..Allowance::FREE };
        let said = left(&Usage { allowance, ..usage }, Some(&asked), Some((4, 8 << 30)));
        let held = "may use 2 cores and 1 GiB together, to which your allowance holds them.";
        assert!(said[1].ends_with(held), "{}", said[1]);
    }
}
