//! What every request shares: configuration, inventory, keys, and what lives in memory only.
//!
//! Nothing here decides anything. Services are functions that take an [`App`] and a caller.

use std::collections::HashMap;
use std::ops::Deref;
use std::sync::{Arc, Mutex, PoisonError};

use berth_runtime::id::PrincipalId;
use tokio::sync::{Semaphore, mpsc, watch};
use tokio_util::sync::CancellationToken;

use crate::auth::Via;
use crate::auth::budget::Budgets;
use crate::auth::keys::Keys;
use crate::auth::password::Passwords;
use crate::auth::throttle::Throttle;
use crate::clock::Time;
use crate::config::Config;
use crate::error::{Error, Result};
use crate::inventory::{Inventory, audit};
use crate::runtime_client::RuntimeClient;
use crate::service::asks::Asks;
use crate::service::audit::Checks;
use crate::service::containers::Containers;
use crate::service::data::Moves;
use crate::service::days::Days;
use crate::service::execs::Execs;
use crate::service::files::Files;
use crate::service::history::History;
use crate::service::idle::Idle;
use crate::service::images::Images;
use crate::service::maintenance::Maintenance;
use crate::service::noise::Noise;
use crate::service::operations::Operations;
use crate::service::usage::Looks;
use crate::service::volumes::Volumes;
use crate::tls::Tls;

/// A handle to what every request shares; cheap to clone.
#[derive(Clone)]
pub struct App(Arc<Parts>);

/// The parts of an [`App`].
pub struct Parts {
    /// The configuration.
    pub config: Config,
    /// What people asked for.
    pub inventory: Inventory,
    /// The supervisor.
    pub runtime: RuntimeClient,
    /// Image content and the way to registries.
    pub images: Images,
    /// The secret key.
    pub keys: Keys,
    /// The certificate, where TLS is spoken.
    pub tls: Option<Arc<Tls>>,
    /// Password derivation.
    pub passwords: Passwords,
    /// Failed sign-ins.
    pub throttle: Throttle,
    /// How many requests addresses and people may still make.
    pub budgets: Budgets,
    /// What is known of containers.
    pub containers: Containers,
    /// What is known of volumes.
    pub volumes: Volumes,
    /// Uploads of files that go on.
    pub files: Files,
    /// Programs that are run beside containers' first ones.
    pub execs: Execs,
    /// What containers have used in the last hour.
    pub history: History,
    /// For how long nothing was seen of their use.
    pub idle: Idle,
    /// What people have used, not yet written down.
    pub days: Days,
    /// Processor time at the last look, of people and of the machine.
    pub looks: Looks,
    /// What people keep on disk, where it is not where it is to be.
    pub data: Moves,
    /// Wakes what ends what was granted for a time.
    pub asks: Asks,
    /// Held while somebody's allowance is changed, by whoever changes it.
    pub allowances: tokio::sync::Mutex<()>,
    /// Whether the machine is in maintenance.
    pub maintenance: Maintenance,
    /// Long work going on.
    pub operations: Operations,
    /// Cancelled when the server is to stop: streams end, and long work is interrupted.
    pub stopping: CancellationToken,
    /// Requests being answered.
    pub requests: Arc<Semaphore>,
    /// Refused requests, to be audited.
    pub refusals: mpsc::Sender<audit::Row>,
    /// Rows of the audit that are counted instead.
    pub noise: Noise,
    /// What checks of the audit's chain have found.
    pub audit_checks: Checks,
    credentials: watch::Sender<u64>,
    streams: Mutex<HashMap<PrincipalId, u32>>,
    used: Mutex<HashMap<Used, Time>>,
}

/// A session or token that was used.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub enum Used {
    /// A session, by id.
    Session(String),
    /// A token, by id.
    Token(String),
}

/// One stream of a person's; counted until dropped.
pub struct StreamPlace {
    app: App,
    person: PrincipalId,
}

impl App {
    /// Puts the parts together.
    ///
    /// # Errors
    /// When the kernel has no random bytes.
    pub fn new(
        config: Config,
        inventory: Inventory,
        keys: Keys,
        images: Images,
        tls: Option<Arc<Tls>>,
        refusals: mpsc::Sender<audit::Row>,
    ) -> Result<Self> {
        let requests = Arc::new(Semaphore::new(config.server.requests_max));
        Ok(Self(Arc::new(Parts {
            runtime: RuntimeClient::new(&config.supervisor_socket()),
            inventory,
            images,
            keys,
            tls,
            passwords: Passwords::new()?,
            throttle: Throttle::default(),
            budgets: Budgets::new(&config.rates),
            containers: Containers::default(),
            volumes: Volumes::default(),
            files: Files::default(),
            execs: Execs::default(),
            days: Days::default(),
            history: History::open(config.db_dir().join("history")),
            idle: Idle::default(),
            looks: Looks::default(),
            data: Moves::default(),
            asks: Asks::default(),
            allowances: tokio::sync::Mutex::default(),
            maintenance: Maintenance::default(),
            operations: Operations::default(),
            stopping: CancellationToken::new(),
            requests,
            refusals,
            noise: Noise::default(),
            audit_checks: Checks::default(),
            credentials: watch::channel(0).0,
            streams: Mutex::default(),
            used: Mutex::default(),
            config,
        })))
    }

    /// Makes every open stream check at once whether its session, token or person is still good.
    /// To be called after the commit that ends one.
    pub fn credentials_changed(&self) {
        self.credentials.send_modify(|number| *number = number.wrapping_add(1));
    }

    /// Changes when some session, token or person has ended.
    pub fn credentials(&self) -> watch::Receiver<u64> {
        self.credentials.subscribe()
    }

    /// Notes that a session or token was used; written by [`App::take_used`]'s caller in a while.
    pub fn note_used(&self, via: &Via) {
        let key = match via {
            Via::Session(id) => Used::Session(id.clone()),
            Via::Token(id) => Used::Token(id.clone()),
            Via::RootSocket | Via::LocalUser(_) | Via::Nothing | Via::Policy => return,
        };
        self.used.lock().unwrap_or_else(PoisonError::into_inner).insert(key, Time::now());
    }

    /// What was used since the last call.
    pub fn take_used(&self) -> HashMap<Used, Time> {
        std::mem::take(&mut *self.used.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// A place for one more stream.
    ///
    /// # Errors
    /// When the person has too many.
    pub fn stream_place(&self, person: PrincipalId) -> Result<StreamPlace> {
        let mut streams = self.streams.lock().unwrap_or_else(PoisonError::into_inner);
        let count = streams.entry(person).or_insert(0);
        if *count as usize >= self.config.server.streams_max {
            return Err(Error::exhausted(
                "stream.too-many",
                format!("{count} streams are open, the most that is allowed; close one first"),
            ));
        }
        *count += 1;
        Ok(StreamPlace { app: self.clone(), person })
    }
}

impl Drop for StreamPlace {
    fn drop(&mut self) {
        let mut streams = self.app.streams.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(count) = streams.get_mut(&self.person) {
            *count -= 1;
            if *count == 0 {
                streams.remove(&self.person);
            }
        }
    }
}

impl Deref for App {
    type Target = Parts;

    fn deref(&self) -> &Parts {
        &self.0
    }
}
