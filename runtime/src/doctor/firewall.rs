//! The host's side of container networks: our own table, forwarding, name servers, the address pool,
//! and what other firewalls do to forwarded packets.
//!
//! An accept in Berth's table is not the last word: every base chain of the forward hook is asked, and
//! one that drops by policy ends containers' egress. Those are found here; nothing of them is changed.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::Duration;

use berth_runtime::config::RuntimeConfig;
use berth_runtime::wire::DoctorCheck;
use serde_json::Value;

use super::probe::output;
use super::{fine, lack};
use crate::network::{Network, Subnet, nft_program, resolv_conf};

/// Time for listing other programs' rules.
const LIST_LIMIT: Duration = Duration::from_secs(5);

pub(super) fn pool(config: &RuntimeConfig) -> DoctorCheck {
    let id = "network.pool";
    let mend = "set [runtime] network_pool to a private network that the host does not use";
    let costs = "people without a subnet cannot start containers with a network";
    let network = match Network::new(config) {
        Ok(network) => network,
        Err(error) => return lack(id, error.to_string(), costs, mend),
    };
    let routes = match network.foreign_routes() {
        Ok(routes) => routes,
        Err(error) => return lack(id, format!("the host's routes: {error}"), costs, mend),
    };
    let pool = network.pool();
    let total = pool.subnets().count();
    let taken =
        |subnet: &Subnet| routes.iter().any(|route| route.prefix() > 0 && route.overlaps(*subnet));
    let lost = pool.subnets().filter(taken).count();
    let found = format!("{} of {total} subnets of {} are free", total - lost, pool.whole());
    if lost == total {
        return lack(id, found, costs, mend);
    }
    fine(id, if lost == 0 { found } else { format!("{found}; the host has routes to the others") })
}

pub(super) fn forwarding() -> DoctorCheck {
    let id = "network.forwarding";
    let on = fs::read_to_string("/proc/sys/net/ipv4/ip_forward");
    match on.as_deref().map(str::trim) {
        Ok("1") => fine(id, "on"),
        Ok(_) => fine(
            id,
            "off; the first container with a network switches it on (net.ipv4.ip_forward, a switch \
             of the whole host)",
        ),
        Err(error) => lack(id, error.to_string(), "containers cannot reach other machines", ""),
    }
}

pub(super) fn resolver(config: &RuntimeConfig) -> DoctorCheck {
    let text = resolv_conf(&config.nameservers);
    let servers: Vec<&str> =
        text.lines().filter_map(|line| line.strip_prefix("nameserver ")).collect();
    if servers.is_empty() {
        return lack(
            "network.resolver",
            "no name server that a container could reach (loopback and IPv6 ones are left out)",
            "containers cannot resolve names",
            "set [runtime] nameservers",
        );
    }
    fine("network.resolver", format!("containers ask {}", servers.join(", ")))
}

/// Base chains of others that drop what is forwarded unless told otherwise.
pub(super) fn others(config: &RuntimeConfig) -> DoctorCheck {
    let id = "network.firewall";
    let Some(nft) = nft_program() else {
        return lack(id, "the nft program is not installed", "not known", "install nftables");
    };
    let mut list = Command::new(nft);
    list.args(["-j", "list", "chains"]);
    let chains = match output(list, LIST_LIMIT) {
        Ok(text) => text,
        Err(why) => return lack(id, format!("rules cannot be listed: {why}"), "not known", ""),
    };
    let families: &[&str] =
        if config.network_pool6.is_some() { &["ip", "ip6", "inet"] } else { &["ip", "inet"] };
    let mut dropping = dropping_chains(&chains, &config.instance, families);
    if let Some(chain) = legacy_drop() {
        dropping.push(chain);
    }
    if dropping.is_empty() {
        return fine(id, "no other firewall drops forwarded packets by policy");
    }
    let instance = &config.instance;
    let mend = if chains.contains("\"DOCKER-USER\"") {
        format!(
            "iptables -I DOCKER-USER -i {instance}-+ -j ACCEPT; iptables -I DOCKER-USER -o \
             {instance}-+ -m conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT (after each start of \
             Docker)"
        )
    } else if chains.contains("ufw-user-forward") {
        format!("ufw route allow from {}", config.network_pool)
    } else {
        format!(
            "let that firewall accept what comes in on interfaces {instance}-* and answers to it: \
             iptables -I FORWARD -i {instance}-+ -j ACCEPT; iptables -I FORWARD -o {instance}-+ -m \
             conntrack --ctstate ESTABLISHED,RELATED -j ACCEPT"
        )
    };
    let mend = match dropping.iter().any(|chain| chain.contains("table ip6 ")) {
        true => format!("{mend}; the same by ip6tables"),
        false => mend,
    };
    let found = format!("{} drops forwarded packets by policy", dropping.join(", "));
    lack(id, found, "containers reach no other machine", &mend)
}

/// Names of forward chains with a policy of drop in nft's JSON, of these families and Berth's own aside.
fn dropping_chains(json: &str, instance: &str, families: &[&str]) -> Vec<String> {
    let whole: Value = serde_json::from_str(json).unwrap_or_default();
    let rows = whole["nftables"].as_array().map(Vec::as_slice).unwrap_or_default();
    let name = |row: &Value| {
        let chain = &row["chain"];
        let of = |key: &str| chain[key].as_str().unwrap_or_default();
        let ours = of("table") == instance && of("family") == "inet";
        let asked = families.contains(&of("family"));
        let drops = of("hook") == "forward" && of("policy") == "drop";
        (drops && asked && !ours)
            .then(|| format!("{} of table {} {}", of("name"), of("family"), of("table")))
    };
    rows.iter().filter_map(name).collect()
}

/// The legacy back end of iptables keeps rules that nft does not list.
fn legacy_drop() -> Option<String> {
    let names = fs::read_to_string("/proc/net/ip_tables_names").unwrap_or_default();
    if !names.lines().any(|name| name == "filter") {
        return None;
    }
    let program = ["/usr/sbin/iptables-legacy", "/usr/sbin/iptables", "/sbin/iptables"];
    let program = program.into_iter().find(|path| Path::new(path).exists())?;
    let mut list = Command::new(program);
    list.args(["-S", "FORWARD"]);
    let rules = output(list, LIST_LIMIT).ok()?;
    rules.contains("-P FORWARD DROP").then(|| "FORWARD of legacy iptables".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn others_drop_policies_are_found_and_ours_are_not() {
        let json = r#"{"nftables": [{"metainfo": {"version": "1.0.6"}},
            {"chain": {"family": "ip", "table": "filter", "name": "FORWARD", "handle": 1,
                       "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "ip6", "table": "filter", "name": "FORWARD", "handle": 1,
                       "type": "filter", "hook": "forward", "prio": 0, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "berth", "name": "between", "handle": 1,
                       "type": "filter", "hook": "forward", "prio": -10, "policy": "drop"}},
            {"chain": {"family": "inet", "table": "x", "name": "input", "handle": 1,
                       "type": "filter", "hook": "input", "prio": 0, "policy": "drop"}}]}"#;
        let ipv4 = ["ip", "inet"];
        assert_eq!(dropping_chains(json, "berth", &ipv4), ["FORWARD of table ip filter"]);
        assert_eq!(dropping_chains(json, "other", &ipv4).len(), 2);
        assert_eq!(dropping_chains(json, "berth", &["ip", "ip6", "inet"]).len(), 2);
        assert!(dropping_chains("", "berth", &ipv4).is_empty());
    }
}
