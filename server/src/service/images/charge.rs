//! What images take of their owners' allowances, counted before it is on disk.
//!
//! Whoever holds a layer is charged all of it, stored and unpacked, whoever else holds it: what somebody is
//! charged then says nothing of others. What is on its way is set down here before it is written, one
//! after the other, so that two pulls that have room one by one do not have it together. What is set
//! down goes with its pull; what an image holds is in the inventory by then.
//!
//! What a layer unpacks to is known when it is unpacked. So room for as much as it may be is granted
//! first; who finds too little left waits for those whose grants are open, and is refused when none is.

use std::collections::HashMap;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, PoisonError};

use berth_runtime::digest::Digest;
use berth_runtime::id::PrincipalId;
use tokio::sync::Notify;

use crate::app::App;
use crate::error::{Error, Result};
use crate::inventory::allowances::{self, Bounded, Sum, Whose};
use crate::inventory::{groups, usage};
use crate::service::admission;

/// What is on its way, for all.
#[derive(Default)]
pub struct Ledger {
    /// By owner and layer: what each charge has set down.
    set_down: Mutex<HashMap<PrincipalId, HashMap<Digest, Vec<Part>>>>,
    /// A grant has been closed.
    closed: Notify,
    /// Looking and setting down are one step.
    turn: tokio::sync::Mutex<()>,
    next: AtomicU64,
}

/// What one charge has set down for one layer.
#[derive(Debug, Clone, Copy)]
struct Part {
    charge: u64,
    bytes: u64,
    /// Whether it is a grant, of which some may come back.
    open: bool,
}

/// One pull's or import's part; what it has set down is gone with it.
pub struct Charge {
    app: App,
    owner: PrincipalId,
    number: u64,
}

/// How much a layer may unpack to.
#[derive(Debug, Clone, Copy)]
pub struct Grant {
    /// Bytes of files.
    pub bytes_max: u64,
    /// Whether this is all that there is: no larger one can be had.
    pub whole: bool,
}

/// How much one layer may take in all, and whose sum says so.
struct Room {
    bytes: u64,
    sum: Sum,
    allowed: u64,
    used: u64,
    /// Whether others have grants open in it.
    contended: bool,
}

impl Charge {
    /// For what `owner` is about to bring.
    pub fn begin(app: &App, owner: PrincipalId) -> Self {
        let number = app.images.ledger.next.fetch_add(1, Ordering::Relaxed);
        Self { app: app.clone(), owner, number }
    }

    /// Whose images it is about.
    pub fn owner(&self) -> PrincipalId {
        self.owner
    }

    /// Sets down what a layer takes, instead of what was set down or granted for it before.
    ///
    /// # Errors
    /// It is more than there is room for; nothing has changed.
    pub async fn reserve(&self, layer: &Digest, bytes: u64) -> Result<()> {
        let _turn = self.app.images.ledger.turn.lock().await;
        match self.room(layer).await? {
            Some(room) if bytes > room.bytes => Err(refuse(&room, bytes)),
            _ => {
                self.set_down(layer, bytes, false);
                Ok(())
            }
        }
    }

    /// Grants a layer, of which `stored` bytes are set down, as many unpacked ones as are sought, or all that
    /// there is room for; waits while others may give some back. It is closed by [`Charge::reserve`].
    ///
    /// # Errors
    /// There is no room for what is stored any more.
    pub async fn grant(&self, layer: &Digest, stored: u64, sought: u64) -> Result<Grant> {
        let ledger = &self.app.images.ledger;
        // One that was too small is given back.
        self.set_down(layer, stored, false);
        loop {
            let mut closed = std::pin::pin!(ledger.closed.notified());
            closed.as_mut().enable();
            let turn = ledger.turn.lock().await;
            let Some(room) = self.room(layer).await? else {
                return Ok(Grant { bytes_max: u64::MAX, whole: true });
            };
            let left = room.bytes.checked_sub(stored);
            match left {
                Some(left) if sought <= left || !room.contended => {
                    let bytes_max = sought.min(left);
                    self.set_down(layer, stored + bytes_max, true);
                    return Ok(Grant { bytes_max, whole: bytes_max == left });
                }
                None if !room.contended => return Err(refuse(&room, stored)),
                _ => drop(turn),
            }
            closed.await;
        }
    }

    /// Refuses an archive that is larger than all that its owner may hold, however much of it is double.
    ///
    /// # Errors
    /// It is.
    pub async fn check_archive(&self, bytes: u64) -> Result<()> {
        let mut db = self.app.inventory.read().acquire().await?;
        for sum in allowances::sums(&mut db, self.owner).await? {
            let Some(allowed) = sum.allowance.images_bytes.filter(|most| bytes > *most) else {
                continue;
            };
            let used = usage::counts(&mut db, sum.of, sum.id).await?.image_bytes;
            let room = Room { bytes: allowed, sum, allowed, used, contended: false };
            return Err(refuse(&room, bytes));
        }
        Ok(())
    }

    /// The most that a layer may take in all; `None` where nothing bounds it.
    async fn room(&self, layer: &Digest) -> Result<Option<Room>> {
        let mut db = self.app.inventory.read().acquire().await?;
        let sums = allowances::sums(&mut db, self.owner).await?;
        if sums.iter().all(|sum| sum.allowance.images_bytes.is_none()) {
            return Ok(None);
        }
        let set_down = self.of_others(layer);
        let groups = groups::of_people(self.app.inventory.read()).await?;
        let mut least: Option<Room> = None;
        for sum in sums {
            let Some(allowed) = sum.allowance.images_bytes else { continue };
            let is_in = |owner: &PrincipalId| match sum.of {
                Whose::Person => *owner == sum.id,
                Whose::Group => groups.get(owner) == Some(&sum.id),
            };
            let mut used = usage::counts(&mut db, sum.of, sum.id).await?.image_bytes;
            let (mut own, mut contended) = (0, false);
            for (owner, layers) in set_down.iter().filter(|(owner, _)| is_in(owner)) {
                let digests: Vec<&Digest> = layers.keys().collect();
                let held = usage::layer_bytes(&mut db, *owner, &digests).await?;
                for (digest, part) in layers {
                    let held = held.get(digest).copied().unwrap_or(0);
                    used = used.saturating_add(part.bytes.saturating_sub(held));
                    contended |= part.open;
                    if *owner == self.owner && digest == layer {
                        own = held.max(part.bytes);
                    }
                }
            }
            let bytes = own.saturating_add(allowed.saturating_sub(used));
            if least.as_ref().is_none_or(|least| bytes < least.bytes) {
                least = Some(Room { bytes, sum, allowed, used, contended });
            }
        }
        Ok(least)
    }

    /// What is set down, the largest for each layer, without this charge's for `layer`, which is there in any
    /// case.
    fn of_others(&self, layer: &Digest) -> HashMap<PrincipalId, HashMap<Digest, Part>> {
        let set_down = &self.app.images.ledger.set_down;
        let set_down = set_down.lock().unwrap_or_else(PoisonError::into_inner);
        let mut found: HashMap<PrincipalId, HashMap<Digest, Part>> = HashMap::new();
        let nothing = Part { charge: self.number, bytes: 0, open: false };
        found.entry(self.owner).or_default().insert(layer.clone(), nothing);
        for (owner, layers) in set_down.iter() {
            for (digest, parts) in layers {
                let is_own = |part: &Part| {
                    *owner == self.owner && digest == layer && part.charge == self.number
                };
                let parts = parts.iter().copied().filter(|part| !is_own(part));
                let Some(most) = parts.max_by_key(|part| (part.bytes, part.open)) else { continue };
                found.entry(*owner).or_default().insert(digest.clone(), most);
            }
        }
        found
    }

    fn set_down(&self, layer: &Digest, bytes: u64, open: bool) {
        let ledger = &self.app.images.ledger;
        let mut set_down = ledger.set_down.lock().unwrap_or_else(PoisonError::into_inner);
        let parts = set_down.entry(self.owner).or_default().entry(layer.clone()).or_default();
        parts.retain(|part| part.charge != self.number);
        parts.push(Part { charge: self.number, bytes, open });
        if !open {
            ledger.closed.notify_waiters();
        }
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        let ledger = &self.app.images.ledger;
        let mut set_down = ledger.set_down.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(layers) = set_down.get_mut(&self.owner) {
            layers.retain(|_, parts| {
                parts.retain(|part| part.charge != self.number);
                !parts.is_empty()
            });
            if layers.is_empty() {
                set_down.remove(&self.owner);
            }
        }
        ledger.closed.notify_waiters();
    }
}

fn refuse(room: &Room, asked: u64) -> Error {
    admission::refuse_images(&room.sum, Bounded::ImagesBytes, [room.allowed, room.used, asked])
}
