//! A container's making: one commit when its image is here; else a row that waits for the pull.
//!
//! The row, its layers, the audit row, the event and the idempotency key are one transaction, and
//! with `start` the intent of its first run too. The kernel is not touched before that is on disk.

use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::Failure;
use serde_json::json;

use super::actions::{event, in_background, launch_wished, name_taken};
use super::spec::{self, CreateRequest, ImageDefaults};
use super::view::{DetailView, request};
use super::{detail, find};
use crate::app::App;
use crate::auth::keys::random_id;
use crate::auth::{Actor, Caller, Role, TokenScope, Via};
use crate::config::ContainersConfig;
use crate::error::{Error, Result};
use crate::inventory::containers::{self, Container, ImagePart, Intent, NewContainer, Start};
use crate::inventory::events::NewEvent;
use crate::inventory::idempotency::{self, IdempotencyKey};
use crate::inventory::operations::OperationState;
use crate::inventory::people;
use crate::registry::manifest::RunConfig;
use crate::service::images::{self, ImageForStart};
use crate::service::{admission, data_sets, lifetimes, maintenance, operations, ports, volumes};
use crate::timing::Phases;

/// Makes a container; the same key makes it once.
pub async fn create(
    app: &App,
    caller: &Caller,
    mut request: CreateRequest,
    key: Option<IdempotencyKey>,
) -> Result<DetailView> {
    maintenance::admit(app, caller)?;
    let config = admission::config(app, caller.principal).await?;
    spec::check(&request, &config, &app.config.runtime)?;
    if let Some(kept) = images::kept_for_launch(app, caller, &request.image).await? {
        request.image = kept;
    }
    let (task_app, task_caller) = (app.clone(), caller.clone());
    let id = in_background(async move {
        create_whole(&task_app, &task_caller, (&request, &config), key.as_ref()).await
    })
    .await?;
    let row = find(app, caller, id.as_str()).await?;
    detail(app, caller, &row)
}

async fn create_whole(
    app: &App,
    caller: &Caller,
    (request, config): (&CreateRequest, &ContainersConfig),
    key: Option<&IdempotencyKey>,
) -> Result<ContainerId> {
    let id = new_id()?;
    let mut db = app.inventory.read().acquire().await?;
    let lives = lifetimes::policy(&mut db, caller.principal).await?;
    drop(db);
    lives.check(request.lifetime_secs)?;
    let mut phases = Phases::begin("create", id.short());
    let found = find_image(app, caller.principal, &request.image).await?;
    let name = request.name.clone().unwrap_or_else(|| made_up_name(&request.image, &id));
    let image = match &found {
        Some(found) => {
            let spec = spec::merge(request, &name, &(&found.config).into(), config)?;
            let spec = serde_json::to_string(&spec)
                .map_err(|source| Error::broken("write a container's spec", source))?;
            Some(ImagePart { id: &found.id, layers: &found.layers, spec })
        }
        None => None,
    };
    let intent = match (&image, request.start) {
        (None, _) => Intent::Pulling,
        (Some(_), true) => Intent::Running,
        (Some(_), false) => Intent::Created,
    };
    let (restart_policy, restart_attempts_max) = request.restart.columns();
    let new = NewContainer {
        id: &id,
        owner: caller.principal,
        name: &name,
        image_reference: &request.image,
        request: serde_json::to_string(request)
            .map_err(|source| Error::broken("write a container's request", source))?,
        limits: spec::merge_limits(&request.limits, &config.default_limits),
        intent,
        start_when_pulled: request.start,
        restart_policy,
        restart_attempts_max,
        lifetime_secs: request.lifetime_secs,
        life: lives.begin(request.lifetime_secs),
        image,
    };
    let _lock = app.containers.lock(&id).await;
    phases.done("find the image, merge, check");
    if let Some(known) = insert(app, caller, &new, request, key).await? {
        return Ok(known);
    }
    phases.done("commit container, intent, audit, event");
    let row = row(app, &id).await?;
    match found {
        None => begin_pull(app, caller, &row).await?,
        Some(found) if request.start => {
            launch_wished(app, &row, row.run, found.layers).await?;
            phases.done("supervisor and monitor: from request to answer");
        }
        Some(_) => {}
    }
    Ok(id)
}

/// Commits the row; answers the id of the container that the key has made before, if it has.
async fn insert(
    app: &App,
    caller: &Caller,
    new: &NewContainer<'_>,
    request: &CreateRequest,
    key: Option<&IdempotencyKey>,
) -> Result<Option<ContainerId>> {
    let mut write = app.inventory.change(&caller.actor, "container.create").await?;
    if let Some(known) = idempotency::recall(&mut write, caller, key).await? {
        let known = known.parse();
        return known.map(Some).map_err(|source| Error::broken("read what a key made", source));
    }
    admission::check_containers(app, write.db(), new.owner).await?;
    if let Some(found) = admission::exceeded(write.db(), new.owner, &new.limits, None).await? {
        drop(write);
        return Err(admission::refuse(app, found).await);
    }
    if containers::name_taken(write.db(), new.owner, new.name).await? {
        return Err(name_taken(new.name));
    }
    if let Some(image) = &new.image
        && !containers::image_is_here(write.db(), image.id).await?
    {
        return Err(Error::conflict("image.removed", "the image was removed just now"));
    }
    containers::insert(write.db(), new).await?;
    let own = (new.id, new.owner);
    ports::lease(app, caller, write.db(), own, &request.ports).await?;
    volumes::attach(write.db(), own, &request.mounts).await?;
    data_sets::attach(app, write.db(), own, &request.data_sets).await?;
    idempotency::remember(&mut write, caller, key, new.id.as_str()).await?;
    write.subject("container", new.id, new.owner);
    let (subject, owner) = (new.id.as_str(), new.owner);
    let data = json!({"name": new.name, "image": new.image_reference});
    let kind = "container.created";
    let event = NewEvent { owner, kind, subject_kind: "container", subject, data };
    write.event(event).await?;
    if new.intent == Intent::Running {
        let (kind, data) = ("container.started", json!({"run": 1, "by": caller.name}));
        let started = NewEvent { owner, kind, subject_kind: "container", subject, data };
        write.event(started).await?;
    }
    write.commit().await?;
    Ok(None)
}

/// Sees to the image of a container that an earlier server has left waiting.
pub(crate) fn resume_pull(app: &App, row: &Container) {
    let (app, row) = (app.clone(), row.clone());
    tokio::spawn(async move {
        let caller = owner(&row);
        if let Err(error) = begin_pull(&app, &caller, &row).await {
            tracing::warn!(container = %row.id, error = %error, "a pull was not taken up again");
        }
    });
}

/// Pulls the image, and completes (and starts) the container when it is here.
async fn begin_pull(app: &App, caller: &Caller, row: &Container) -> Result<()> {
    if !app.containers.begin_pull(&row.id) {
        return Ok(());
    }
    // It may have come by another way since.
    let operation = match find_image(app, row.owner, &row.image_reference).await? {
        Some(_) => None,
        None => match images::pull(app, caller, &row.image_reference, None).await {
            Ok(operation) => Some(operation.id),
            Err(error) => {
                app.containers.end_pull(&row.id);
                keep_failure(app, row, &error.to_failure()).await?;
                return Ok(());
            }
        },
    };
    if let Some(operation) = &operation {
        let mut write = app.inventory.observe().await?;
        containers::set_operation(write.db(), &row.id, operation).await?;
        write.commit().await?;
    }
    let (app, caller, row) = (app.clone(), caller.clone(), row.clone());
    tokio::spawn(async move {
        let done = await_image(&app, &caller, &row, operation.as_deref()).await;
        app.containers.end_pull(&row.id);
        if let Err(error) = done {
            let error = anyhow::Error::from(error);
            tracing::warn!(container = %row.id, error = format!("{error:#}"), "no image for it");
        }
    });
    Ok(())
}

async fn await_image(
    app: &App,
    caller: &Caller,
    row: &Container,
    operation: Option<&str>,
) -> Result<()> {
    if let Some(operation) = operation {
        let mut follow = operations::follow(app, caller, operation).await?;
        let mut last = None;
        while let Some(state) = follow.next(app, caller).await? {
            last = Some(state);
        }
        let failure = match last {
            Some(last) if last.state == OperationState::Succeeded => None,
            // The server stops; the next one takes it up.
            Some(last) if last.state == OperationState::Interrupted => return Ok(()),
            Some(last) => Some(pull_failure(last.state, last.failure)),
            None => Some(pull_failure(OperationState::Failed, None)),
        };
        if let Some(failure) = failure {
            return keep_failure(app, row, &failure).await;
        }
    }
    let _lock = app.containers.lock(&row.id).await;
    let Some(row) = containers::find_any(app.inventory.read(), &row.id).await? else {
        return Ok(());
    };
    if row.intent != Intent::Pulling {
        return Ok(());
    }
    match complete(app, &row).await {
        Err(error @ (Error::Invalid { .. } | Error::Conflict(_))) => {
            keep_failure(app, &row, &error.to_failure()).await
        }
        other => other,
    }
}

/// The image is here: merges, checks and commits, and starts if that was asked for.
async fn complete(app: &App, row: &Container) -> Result<()> {
    let Some(found) = find_image(app, row.owner, &row.image_reference).await? else {
        return Err(Error::conflict("image.removed", "its image was removed again"));
    };
    let spec =
        spec::merge(&request(row)?, &row.name, &(&found.config).into(), &app.config.containers)?;
    let spec = serde_json::to_string(&spec)
        .map_err(|source| Error::broken("write a container's spec", source))?;
    let image = ImagePart { id: &found.id, layers: &found.layers, spec };
    let mut write = app.inventory.record().await?;
    containers::set_image(write.db(), &row.id, &image).await?;
    let ended = people::has_ended(write.db(), row.owner).await?;
    let run = match row.start_when_pulled && !ended {
        true => {
            let life = lifetimes::begin(write.db(), row).await?;
            let start = Start { run_before: row.run, attempts: 0, life };
            Some(containers::set_running(write.db(), &row.id, start).await?)
        }
        false => None,
    };
    event(&mut write, row, "container.pulled", json!({"image": found.id})).await?;
    if let Some(run) = run {
        event(&mut write, row, "container.started", json!({"run": run})).await?;
    }
    write.commit().await?;
    app.containers.tell();
    if let Some(run) = run {
        let row = self::row(app, &row.id).await?;
        launch_wished(app, &row, run, found.layers).await?;
    }
    Ok(())
}

async fn keep_failure(app: &App, row: &Container, failure: &Failure) -> Result<()> {
    let mut write = app.inventory.record().await?;
    containers::set_pull_failure(write.db(), &row.id, failure).await?;
    event(&mut write, row, "container.pull_failed", json!({"reason": failure.message})).await?;
    write.commit().await?;
    app.containers.tell();
    Ok(())
}

fn pull_failure(state: OperationState, failure: Option<serde_json::Value>) -> Failure {
    use berth_runtime::record::FailureClass;
    if state == OperationState::Cancelled {
        return Failure::new(FailureClass::Conflict, "image.cancelled", "the pull was cancelled");
    }
    let told = failure.and_then(|value| serde_json::from_value(value).ok());
    told.unwrap_or_else(|| Failure::new(FailureClass::Broken, "internal", "the pull has failed"))
}

/// The image that `owner` means: one of their own, or of the system's; `None` when it has to be
/// pulled.
async fn find_image(app: &App, owner: PrincipalId, text: &str) -> Result<Option<ImageForStart>> {
    match images::resolve(app, owner, text).await {
        Ok(image) => Ok(Some(image)),
        Err(Error::NotFound(_)) => Ok(None),
        Err(Error::Invalid { refusal, .. }) => Err(Error::field("/image", refusal.detail)),
        Err(error) => Err(error),
    }
}

impl From<&RunConfig> for ImageDefaults {
    fn from(run: &RunConfig) -> Self {
        Self {
            entrypoint: run.entrypoint.clone(),
            command: run.cmd.clone(),
            env: run.env.clone(),
            working_dir: run.working_dir.clone(),
            user: run.user.clone(),
            stop_signal: run.stop_signal.clone(),
        }
    }
}

async fn row(app: &App, id: &ContainerId) -> Result<Container> {
    let row = containers::find_any(app.inventory.read(), id).await?;
    row.ok_or_else(|| Error::defect("find the container that was just made"))
}

fn new_id() -> Result<ContainerId> {
    random_id()?.parse().map_err(|source| Error::broken("make a container's id", source))
}

/// The image's last name and the id's first digits.
fn made_up_name(image: &str, id: &ContainerId) -> String {
    let last = image.rsplit('/').next().unwrap_or("");
    let last = last.split([':', '@']).next().unwrap_or("");
    let good = |c: &char| c.is_ascii_lowercase() || c.is_ascii_digit() || "._-".contains(*c);
    let stem: String = last.chars().filter(good).take(40).collect();
    let stem = stem.trim_start_matches(['.', '_', '-']);
    let stem = if stem.is_empty() { "container" } else { stem };
    // A hyphen keeps it from reading like an id.
    format!("{stem}-{}", &id.as_str()[..6])
}

/// The owner, as the one on whose behalf an interrupted pull is taken up.
fn owner(row: &Container) -> Caller {
    let actor = Actor {
        principal: Some(row.owner),
        name: row.owner_name.clone(),
        via: Via::Nothing,
        address: None,
        request_id: "reconcile".to_owned(),
    };
    let role = if row.owner == PrincipalId::SYSTEM { Role::System } else { Role::User };
    Caller {
        principal: row.owner,
        name: row.owner_name.clone(),
        role,
        scope: TokenScope::Operate,
        expires_at: None,
        account_expires_at: None,
        factor_due: false,
        actor,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn made_up_names_are_good_names() {
        let id = ContainerId::from_bytes([0xab; 16]);
        for (image, expected) in [
            ("busybox", "busybox-ababab"),
            ("registry.test:5000/a/My_App:1.2", "y_pp-ababab"),
            ("debian@sha256:00", "debian-ababab"),
            ("-:", "container-ababab"),
            ("0123456789abcdef0123456789abcdef", "0123456789abcdef0123456789abcdef-ababab"),
        ] {
            let name = made_up_name(image, &id);
            assert_eq!(name, expected);
            assert!(spec::check_name("/name", &name).is_ok(), "{name}");
        }
    }
}
