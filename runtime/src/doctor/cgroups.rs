//! The cgroup layout, and each limit tried on a cgroup that is removed again.

use berth_runtime::config::RuntimeConfig;
use berth_runtime::wire::DoctorCheck;

use super::probe::{self, Finding};
use super::{blocker, fine, lack};
use crate::cgroup::Hierarchy;

/// What is tried: the check's id, the probe's names for it, what works, and what its lack costs.
const TRIED: [(&str, &[&str], &str, &str, bool); 6] = [
    (
        "cgroup.cpu",
        &["cpu", "cpu_weight"],
        "quota and weight are held",
        "no limit on processors",
        true,
    ),
    ("cgroup.memory", &["memory"], "the limit is held", "no limit on memory", true),
    (
        "cgroup.swap",
        &["swap"],
        "the limit is held",
        "a container can use all of the host's swap beside its memory",
        false,
    ),
    ("cgroup.pids", &["pids"], "the limit is held", "no limit on processes", true),
    (
        "cgroup.devices",
        &["devices"],
        "an allow-list is held",
        "device nodes are kept out by mount options only, so no container is started",
        true,
    ),
    (
        "cgroup.freeze",
        &["freeze", "kill", "remove"],
        "freezing, killing and removing work",
        "containers could not be paused or ended for certain",
        true,
    ),
];

pub(super) fn checks(config: &RuntimeConfig) -> Vec<DoctorCheck> {
    let mut checks = Vec::new();
    let found = probe::run("cgroups", config);
    for (id, names, works, costs, needed) in TRIED {
        let failure = match &found {
            Err(reason) => Some(format!("could not be tried: {reason}")),
            Ok(findings) => failure(findings, names),
        };
        let mend = match id {
            "cgroup.swap" => "boot with swapaccount=1, or use no swap",
            _ => "use a distribution with cgroup v2 (systemd.unified_cgroup_hierarchy=1), as root",
        };
        checks.push(match (failure, needed) {
            (None, _) => fine(id, works),
            (Some(why), true) => blocker(id, why, costs, mend),
            (Some(why), false) => lack(id, why, costs, mend),
        });
    }
    checks
}

/// The first failure among `names`; one that was not reached has failed with what came before it.
fn failure(findings: &[Finding], names: &[&str]) -> Option<String> {
    names.iter().find_map(|name| match findings.iter().find(|finding| finding.name == *name) {
        Some(finding) => finding.failure.clone(),
        None => {
            let before = findings.iter().find_map(|finding| finding.failure.clone());
            Some(before.unwrap_or_else(|| "not told by the kernel".to_owned()))
        }
    })
}

pub(super) fn layout() -> DoctorCheck {
    let id = "cgroup.layout";
    let costs = "limits are held by v1's controllers: swap only together with memory, nothing for \
                 writes in the background, and no delegation";
    let mend = "boot with systemd.unified_cgroup_hierarchy=1";
    match Hierarchy::detect() {
        Ok(Hierarchy::V2 { root }) => fine(id, format!("cgroup v2 at {}", root.display())),
        Ok(Hierarchy::V1 { unified: Some(root), .. }) => {
            let found =
                format!("v1 controllers, with a unified tree at {} (hybrid)", root.display());
            lack(id, found, costs, mend)
        }
        Ok(Hierarchy::V1 { unified: None, .. }) => {
            lack(id, "v1 controllers only (legacy)", costs, mend)
        }
        Err(error) => blocker(id, error.to_string(), "containers cannot be limited", mend),
    }
}
