//! Rates of the network: who has one while something of theirs has a network. The table is made with the first such
//! container and goes with the last; who is in it stays until then, so that nobody gets a full bucket by
//! starting containers.

use berth_runtime::id::PrincipalId;
use berth_runtime::record::{Failure, LimitState};
use berth_runtime::wire::Total;

use super::{Supervisor, say};
use crate::network::rates::{self, Rates};
use crate::people::Person;
use crate::undo::Sum;

impl Supervisor {
    /// Sees to it that what is about to be started has the rate that is written down.
    pub(super) fn hold_rates_for(&mut self, person: &Person) -> Result<(), Failure> {
        let wanted = self.wanted_rates(Some(person), None);
        self.set_rates(wanted)
    }

    /// Puts a total's rate to the kernel, for what runs and has a network; what it then holds, if a rate was asked for.
    pub(super) fn hold_rate(
        &mut self,
        sum: Sum,
        total: &Total,
    ) -> Result<Vec<LimitState>, Failure> {
        let wanted = self.wanted_rates(None, Some((sum, total)));
        self.set_rates(wanted)?;
        let number =
            sum.person.and_then(|person| self.people.get(person)).map(|known| known.number);
        let held = match number {
            Some(number) => self.rates.people.get(&number).and_then(|(rate, _)| *rate),
            None => self.rates.groups.get(&sum.group.0).copied().flatten(),
        };
        let Some(rate) = total.net_bytes_per_sec.filter(|rate| held == Some(*rate)) else {
            return Ok(Vec::new());
        };
        Ok(vec![LimitState {
            name: "net".to_owned(),
            held: true,
            file: format!("nft table inet {}", rates::table_name(&self.config.instance)),
            value: rate.to_string(),
            reason: String::new(),
        }])
    }

    /// Makes the table agree with what is written down; nothing of what a former supervisor or somebody else has left
    /// in it is believed.
    pub(super) fn recover_rates(&mut self) {
        self.rates = Rates::default();
        let wanted = self.wanted_rates(None, None);
        // Nobody has one: then there is to be no table.
        let done = match wanted.is_empty() {
            true => rates::change(&self.config.instance, &wanted, &wanted).map_err(Failure::from),
            false => self.set_rates(wanted),
        };
        if let Err(failure) = done {
            say(&format!("hold the rates of the network: {failure}"));
        }
    }

    /// Takes the table away when nothing that runs has a network any more.
    pub(super) fn drop_rates(&mut self) {
        if !self.has_networks()
            && let Err(failure) = self.set_rates(Rates::default())
        {
            say(&format!("end the rates of the network: {failure}"));
        }
    }

    /// Makes the table again when somebody has taken it away.
    pub(super) fn restore_rates(&mut self) {
        if !self.rates.is_empty() && !matches!(rates::exists(&self.config.instance), Ok(true)) {
            say("the nftables table of rates is gone: making it again");
            self.recover_rates();
        }
    }

    fn has_networks(&self) -> bool {
        let active = self.containers.values().filter(|entry| entry.is_active());
        active.filter_map(|entry| entry.start.as_ref()).any(|start| start.place.is_some())
    }

    /// Who has a rate, or a group that has one: of what has a network, of who is about to, and who was in the table
    /// before. `change` is a total that is not written down yet.
    fn wanted_rates(&self, starting: Option<&Person>, change: Option<(Sum, &Total)>) -> Rates {
        let mut found: Vec<(PrincipalId, PrincipalId)> = Vec::new();
        for entry in self.containers.values().filter(|entry| entry.is_active()) {
            let Some(start) = &entry.start else { continue };
            if start.place.is_some() {
                found.push((entry.person, start.group));
            }
        }
        found.extend(starting.map(|person| (person.person, person.group)));
        let changed = |sum: Sum| change.filter(|(of, _)| *of == sum).map(|(_, total)| *total);
        let mut wanted = self.rates.clone();
        for (person, group) in found {
            let Some(known) = self.people.get(person) else { continue };
            let own = changed(Sum { group, person: Some(person) }).unwrap_or(known.total);
            let groups = changed(Sum { group, person: None })
                .unwrap_or_else(|| self.people.group_total(group))
                .net_bytes_per_sec;
            let was = self.rates.people.contains_key(&known.number);
            if was || own.net_bytes_per_sec.is_some() || groups.is_some() {
                wanted.people.insert(known.number, (own.net_bytes_per_sec, group.0));
                wanted.groups.insert(group.0, groups);
            }
        }
        wanted
    }

    fn set_rates(&mut self, wanted: Rates) -> Result<(), Failure> {
        if wanted == self.rates {
            return Ok(());
        }
        rates::change(&self.config.instance, &self.rates, &wanted)?;
        self.rates = wanted;
        Ok(())
    }
}
