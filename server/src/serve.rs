//! `berth serve`: the order in which the server comes up and goes down.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::signal::unix::{SignalKind, signal};
use tokio::sync::mpsc::Receiver;
use tokio::task::JoinHandle;

use crate::app::App;
use crate::auth::keys::Keys;
use crate::config::Config;
use crate::inventory::{Inventory, KEY_FILE, audit};
use crate::notify::notify;
use crate::risks::{self, Severity};
use crate::service::images::{self, Images};
use crate::service::noise::Which;
use crate::service::{
    asks, data, history, housekeeping, lifetimes, looks, maintenance, offboard, operations,
    reconcile, system,
};
use crate::tls::Tls;
use crate::{hold, http, listen};

/// Refused requests that wait to be audited, at most.
const REFUSALS_MAX: usize = 4096;
/// Small stacks: nothing here recurses, and a blocking thread per connection of SQLite counts.
const STACK_BYTES: usize = 1 << 20;
const WORKERS: usize = 2;
/// How long the server before, or a restore, may still have the inventory.
const HOLD_PATIENCE: Duration = Duration::from_secs(10);

/// Runs the server until it is told to stop.
///
/// # Errors
/// Why it cannot start.
pub fn run(config: Config) -> Result<()> {
    // Its memory holds passwords for moments and the secret key always: no core dump, no ptrace.
    nix::sys::prctl::set_dumpable(false).context("forbid core dumps")?;
    rustls::crypto::ring::default_provider()
        .install_default()
        .map_err(|_| anyhow::anyhow!("choose the TLS provider: one was chosen before"))?;
    tokio::runtime::Builder::new_multi_thread()
        .worker_threads(WORKERS)
        .thread_stack_size(STACK_BYTES)
        .enable_all()
        .build()
        .context("start the server's threads")?
        .block_on(serve(config))
}

/// Begins what goes on beside the answers, until the server stops.
fn look_after(app: &App, refused: Receiver<audit::Row>) {
    tokio::spawn(images::reconcile(app.clone()));
    tokio::spawn(housekeeping::give_back_memory(app.clone()));
    tokio::spawn(data::run(app.clone()));
    tokio::spawn(looks::run(app.clone()));
    tokio::spawn(asks::run(app.clone()));
    tokio::spawn(housekeeping::end_accounts(app.clone()));
    tokio::spawn(lifetimes::run(app.clone()));
    tokio::spawn(housekeeping::audit_refusals(app.clone(), refused));
}

async fn serve(config: Config) -> Result<()> {
    system::note_start();
    let mut terminate = signal(SignalKind::terminate()).context("watch for SIGTERM")?;
    let mut interrupt = signal(SignalKind::interrupt()).context("watch for SIGINT")?;
    let mut hangup = signal(SignalKind::hangup()).context("watch for SIGHUP")?;
    let tcp = listen::tcp(&config.server.listen)?;
    let db_dir = config.db_dir();
    std::fs::create_dir_all(&db_dir).with_context(|| format!("create {}", db_dir.display()))?;
    // Until the process ends.
    let _hold = hold::take(&db_dir, HOLD_PATIENCE).context("another has the inventory")?;
    let inventory = Inventory::open(&db_dir.join("berth.db")).await?;
    let keys = Keys::open(&db_dir.join(KEY_FILE), &config.runtime.instance)?;
    let (refusals, refused) = tokio::sync::mpsc::channel(REFUSALS_MAX);
    let images = Images::open(&config)?;
    let tls = match config.server.listen.any_tls() {
        true => Some(Arc::new(Tls::open(&config).context("prepare TLS")?)),
        false => None,
    };
    let app = App::new(config, inventory, keys, images, tls, refusals)?;
    maintenance::load(&app).await?;

    let interrupted = operations::interrupt_all(&app).await?;
    if interrupted > 0 {
        tracing::info!(interrupted, "marked operations that a stop had interrupted");
    }
    let root = listen::root(&app.config.root_socket())?;
    let local = listen::local(&app.config.local_socket())?;
    let keeper = tokio::spawn(housekeeping::run(app.clone()));
    let looks = tokio::spawn(history::run(app.clone()));
    look_after(&app, refused);
    reconcile::spawn(&app);
    offboard::resume_all(&app).await?;
    if let Some(tls) = app.tls.clone() {
        let facts = tls.facts();
        tracing::info!(fingerprint = facts.fingerprint, until = %facts.not_after, "TLS certificate");
        tokio::spawn(tls.clone().watch(app.stopping.clone()));
        tokio::spawn(async move {
            while hangup.recv().await.is_some() {
                tls.reload();
            }
        });
    }
    for risk in risks::list(&app.config, app.tls.as_ref().map(|tls| tls.facts()).as_ref()) {
        let (setting, what, cure) = (risk.setting, risk.what, risk.cure);
        match risk.severity {
            Severity::Warning => tracing::warn!(setting, cure, "risky setting: {what}"),
            Severity::Note => tracing::info!(setting, cure, "setting: {what}"),
        }
    }
    let router = http::router(&app);

    notify("READY=1");
    tracing::info!(url = app.config.urls(), "ready");
    let stopping = app.stopping.clone();
    tokio::spawn(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        notify("STOPPING=1");
        tracing::info!("stopping");
        stopping.cancel();
    });
    listen::serve(&app, router, tcp, (root, local)).await;

    wind_down(&app, keeper, looks).await;
    Ok(())
}

/// What is left to do when no request is answered any more.
async fn wind_down(app: &App, keeper: JoinHandle<()>, looks: JoinHandle<()>) {
    app.operations.idle().await;
    if let Err(error) = keeper.await.context("end housekeeping") {
        tracing::warn!(error = format!("{error:#}"));
    }
    if let Err(error) = looks.await.context("end the looks at what containers use") {
        tracing::warn!(error = format!("{error:#}"));
    }
    if let Err(error) = housekeeping::flush(app).await {
        tracing::warn!(error = %error, "last uses were not written down");
    }
    housekeeping::audit_counted(app, Which::All).await;
    app.inventory.close().await;
}
