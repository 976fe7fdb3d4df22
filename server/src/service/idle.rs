//! Whether containers are used, by what the kernel and this server see of them: processor time, block devices, the
//! network, programs and terminals that people have open. Never by whether a browser shows them.
//!
//! The counters are those that the history reads of everything that runs, every ten seconds; what is added are the
//! two of a container's interface. How long nothing was seen is kept in memory: after a start of the server
//! everything counts as just used. While a container is paused its clock stands still, since somebody has put it
//! aside as it is; nobody's rule ends that.

use std::collections::{HashMap, HashSet};
use std::net::Ipv4Addr;
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use berth_runtime::id::ContainerId;
use serde::Serialize;
use serde_json::json;
use utoipa::ToSchema;

use super::containers::actions;
use crate::app::App;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::containers;
use crate::inventory::events::NewEvent;

/// The shortest time without use that a rule may name, in seconds: three looks.
pub const SECS_MIN: u32 = 30;
/// The longest: a year.
pub const SECS_MAX: u32 = 31_536_000;
/// Processor time that is use: a hundredth of a core.
const CPU_MILLIS: u128 = 10;
/// Traffic of block devices that is use, in bytes a second: less is what the kernel writes behind.
const IO_BYTES_PER_SEC: u128 = 4096;
/// Traffic of the network that is use, in bytes a second: less is what neighbours ask each other.
const NET_BYTES_PER_SEC: u128 = 256;
/// A stop is told this long before, or a tenth of the time when that is less.
const TOLD_BEFORE_SECS: u64 = 3600;

/// What is known of the use of everything that runs.
#[derive(Debug, Default)]
pub struct Idle(Mutex<HashMap<ContainerId, Clock>>);

/// A container that runs, as one look has seen it.
#[derive(Debug, Clone)]
pub(crate) struct Seen {
    pub(crate) id: ContainerId,
    pub(crate) run: u64,
    /// Frozen by somebody.
    pub(crate) paused: bool,
    /// On its owner's network.
    pub(crate) address: Option<Ipv4Addr>,
    /// Processor time so far, in microseconds.
    pub(crate) cpu_usec: u64,
    /// Read and written so far.
    pub(crate) io_bytes: u64,
}

/// That, with what else there is of it.
#[derive(Debug, Clone)]
struct Look {
    seen: Seen,
    /// Sent and received so far; 0 without a network.
    net_bytes: u64,
    /// Somebody has a program or a terminal open in it.
    open: bool,
}

#[derive(Debug)]
struct Clock {
    look: Look,
    looked_at: Instant,
    used_at: Instant,
    /// Seconds after which its owner's rule stops it.
    rule: Option<u32>,
    /// Whether that was told as near.
    told: bool,
}

/// How long nothing was seen of a container's use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[schema(as = ContainerIdle)]
pub struct IdleView {
    /// Seconds without processor, disk, network or an open program; of what is paused, those before that.
    pub idle_secs: u64,
    /// When it is stopped if that goes on; null for never.
    pub stops_at: Option<Time>,
    /// Whether that is near: within an hour, or the last tenth of the time.
    pub stops_soon: bool,
}

impl Idle {
    fn held(&self) -> MutexGuard<'_, HashMap<ContainerId, Clock>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What is known of a container that runs.
    pub(crate) fn of(&self, id: &ContainerId) -> Option<IdleView> {
        let clocks = self.held();
        let clock = clocks.get(id)?;
        let idle_secs = clock.idle_secs();
        let left = clock.rule.map(|rule| u64::from(rule).saturating_sub(idle_secs));
        Some(IdleView {
            idle_secs,
            stops_at: left
                .filter(|_| !clock.look.seen.paused)
                .map(|left| Time::now().after(Duration::from_secs(left))),
            stops_soon: clock.is_near(),
        })
    }

    /// Somebody says that a container is used.
    pub(crate) fn touch(&self, id: &ContainerId) {
        if let Some(clock) = self.held().get_mut(id) {
            clock.used_at = Instant::now();
            clock.told = false;
        }
    }

    fn take(&self, looks: Vec<Look>, now: Instant) {
        let mut clocks = self.held();
        let here: HashSet<ContainerId> = looks.iter().map(|look| look.seen.id.clone()).collect();
        clocks.retain(|id, _| here.contains(id));
        for look in looks {
            let known =
                clocks.get_mut(&look.seen.id).filter(|known| known.look.seen.run == look.seen.run);
            match known {
                Some(clock) => clock.look(look, now),
                None => {
                    let id = look.seen.id.clone();
                    let (rule, told) = (None, false);
                    clocks.insert(id, Clock { look, looked_at: now, used_at: now, rule, told });
                }
            }
        }
    }

    /// Notes the rules; answers what is to be stopped, and what is to be told, once each.
    fn judge(
        &self,
        rules: &HashMap<ContainerId, u32>,
    ) -> (Vec<(ContainerId, u32)>, Vec<ContainerId>) {
        let (mut due, mut near) = (Vec::new(), Vec::new());
        for (id, clock) in self.held().iter_mut() {
            clock.rule = rules.get(id).copied();
            let Some(rule) = clock.rule.filter(|_| !clock.look.seen.paused) else { continue };
            if clock.idle_secs() >= rule.into() {
                due.push((id.clone(), rule));
            } else if clock.is_near() && !clock.told {
                clock.told = true;
                near.push(id.clone());
            }
        }
        (due, near)
    }
}

impl Clock {
    fn look(&mut self, look: Look, now: Instant) {
        let passed = now.saturating_duration_since(self.looked_at);
        if is_used(&self.look, &look, passed) {
            (self.used_at, self.told) = (now, false);
        } else if look.seen.paused {
            self.used_at += passed;
        }
        (self.look, self.looked_at) = (look, now);
    }

    /// Up to now; of what is paused, up to the newest look.
    fn idle_secs(&self) -> u64 {
        let until = if self.look.seen.paused { self.looked_at } else { Instant::now() };
        until.saturating_duration_since(self.used_at).as_secs()
    }

    fn is_near(&self) -> bool {
        let Some(rule) = self.rule.filter(|_| !self.look.seen.paused).map(u64::from) else {
            return false;
        };
        self.idle_secs() >= rule - (rule / 10).min(TOLD_BEFORE_SECS)
    }
}

/// Whether something was done between two looks.
fn is_used(before: &Look, now: &Look, passed: Duration) -> bool {
    let millis = passed.as_millis().max(1);
    let more = |before: u64, now: u64| u128::from(now.saturating_sub(before));
    let (from, to) = (&before.seen, &now.seen);
    now.open
        || more(from.cpu_usec, to.cpu_usec) >= CPU_MILLIS * millis
        || more(from.io_bytes, to.io_bytes) * 1000 >= IO_BYTES_PER_SEC * millis
        || more(before.net_bytes, now.net_bytes) * 1000 >= NET_BYTES_PER_SEC * millis
}

/// Takes what a look at everything has seen, tells what is to be stopped soon, and stops what nobody uses.
///
/// # Errors
/// Those of the inventory; the next look makes up for it.
pub(crate) async fn follow(app: &App, seen: Vec<Seen>) -> Result<()> {
    let open = app.execs.open_in();
    let instance = app.config.runtime.instance.clone();
    let looks = tokio::task::spawn_blocking(move || {
        let look = |seen: Seen| {
            let net_bytes = seen.address.map_or(0, |address| net_bytes(&instance, address));
            Look { net_bytes, open: open.contains(&seen.id), seen }
        };
        seen.into_iter().map(look).collect()
    });
    let looks = looks.await.map_err(|error| Error::broken("read what is used", error))?;
    app.idle.take(looks, Instant::now());
    let rules = containers::idle_rules(app.inventory.read()).await?;
    let secs = rules.iter().map(|rule| (rule.id.clone(), rule.secs)).collect();
    let (due, near) = app.idle.judge(&secs);
    for (id, secs) in due {
        let app = app.clone();
        tokio::spawn(async move {
            // What is being stopped already, or has gone, needs nothing; all else is tried again.
            if let Err(error) = actions::stop_unused(&app, &id, secs).await {
                tracing::debug!(container = %id, error = %error, "not stopped though nobody uses it");
            }
        });
    }
    if near.is_empty() {
        return Ok(());
    }
    let mut write = app.inventory.observe().await?;
    for id in near {
        let Some(rule) = rules.iter().find(|rule| rule.id == id) else { continue };
        let ends_at = app.idle.of(&id).and_then(|idle| idle.stops_at);
        let data = json!({"ends_at": ends_at, "why": "nobody uses it"});
        let (owner, kind, subject) = (rule.owner, "container.ends_soon", id.as_str());
        write.event(NewEvent { owner, kind, subject_kind: "container", subject, data }).await?;
    }
    write.commit().await
}

/// Sent and received by the container of that address: the counters of its interface's end in the host.
fn net_bytes(instance: &str, address: Ipv4Addr) -> u64 {
    let low = u32::from(address) & 0x00ff_ffff;
    let directory = format!("/sys/class/net/{instance}_{low:06x}/statistics");
    let read = |name: &str| {
        let text = std::fs::read_to_string(format!("{directory}/{name}")).unwrap_or_default();
        text.trim().parse::<u64>().unwrap_or(0)
    };
    read("rx_bytes").saturating_add(read("tx_bytes"))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn look(cpu_usec: u64, io_bytes: u64, net_bytes: u64) -> Look {
        let id = ContainerId::from_bytes([1; 16]);
        let seen = Seen { id, run: 1, paused: false, address: None, cpu_usec, io_bytes };
        Look { seen, net_bytes, open: false }
    }

    #[test]
    fn use_is_what_is_more_than_the_kernel_does_by_itself() {
        let ten = Duration::from_secs(10);
        let begin = look(0, 0, 0);
        for (now, used) in [
            (look(0, 0, 0), false),
            (look(99_999, 0, 0), false),
            (look(100_000, 0, 0), true),
            (look(0, 40_959, 0), false),
            (look(0, 40_960, 0), true),
            (look(0, 0, 2559), false),
            (look(0, 0, 2560), true),
            (Look { open: true, ..look(0, 0, 0) }, true),
        ] {
            assert_eq!(is_used(&begin, &now, ten), used, "{now:?}");
        }
    }

    #[test]
    fn the_clock_goes_on_while_nothing_is_done_and_stands_while_it_is_paused() {
        let idle = Idle::default();
        let id = look(0, 0, 0).seen.id;
        // A look so long ago that the time since can be told.
        let Some(begun) = Instant::now().checked_sub(Duration::from_secs(100)) else { return };
        let at = |secs: u64| begun + Duration::from_secs(secs);
        idle.take(vec![look(0, 0, 0)], at(0));
        idle.take(vec![look(1_000_000, 0, 0)], at(20));
        let mut paused = look(1_000_000, 0, 0);
        paused.seen.paused = true;
        idle.take(vec![look(1_000_000, 0, 0)], at(30));
        let secs = |idle: &Idle| idle.of(&id).expect("it is known").idle_secs;
        assert!((80..=82).contains(&secs(&idle)), "since the 20th second: {}", secs(&idle));
        idle.take(vec![paused.clone()], at(50));
        idle.take(vec![paused], at(90));
        assert_eq!(secs(&idle), 10, "as before it was paused");
        let rules = HashMap::from([(id.clone(), 5)]);
        assert!(idle.judge(&rules).0.is_empty(), "what is paused is not stopped");
        idle.take(vec![look(1_000_000, 0, 0)], at(95));
        assert_eq!(idle.judge(&rules).0, [(id.clone(), 5)]);
        idle.touch(&id);
        assert!(idle.judge(&rules).0.is_empty());
        idle.take(Vec::new(), at(100));
        assert!(idle.of(&id).is_none(), "what does not run is forgotten");
    }

    #[test]
    fn a_stop_is_told_once() {
        let idle = Idle::default();
        let id = look(0, 0, 0).seen.id;
        let Some(begun) = Instant::now().checked_sub(Duration::from_secs(95)) else { return };
        idle.take(vec![look(0, 0, 0)], begun);
        let rules = HashMap::from([(id.clone(), 100)]);
        assert_eq!(idle.judge(&rules), (Vec::new(), vec![id.clone()]));
        assert_eq!(idle.judge(&rules), (Vec::new(), Vec::new()));
        assert!(idle.of(&id).is_some_and(|idle| idle.stops_soon));
        let rules = HashMap::from([(id.clone(), 1000)]);
        assert_eq!(idle.judge(&rules), (Vec::new(), Vec::new()));
        assert!(idle.of(&id).is_some_and(|idle| !idle.stops_soon));
    }
}
