//! Capability names and sets (capabilities(7)).

use std::collections::HashSet;

use oci_spec::runtime::{Capability, LinuxCapabilities};

use crate::sys::prctl;

/// In the kernel's order: a name's place is its number (linux/capability.h).
const NAMES: [&str; 41] = [
    "CHOWN",
    "DAC_OVERRIDE",
    "DAC_READ_SEARCH",
    "FOWNER",
    "FSETID",
    "KILL",
    "SETGID",
    "SETUID",
    "SETPCAP",
    "LINUX_IMMUTABLE",
    "NET_BIND_SERVICE",
    "NET_BROADCAST",
    "NET_ADMIN",
    "NET_RAW",
    "IPC_LOCK",
    "IPC_OWNER",
    "SYS_MODULE",
    "SYS_RAWIO",
    "SYS_CHROOT",
    "SYS_PTRACE",
    "SYS_PACCT",
    "SYS_ADMIN",
    "SYS_BOOT",
    "SYS_NICE",
    "SYS_RESOURCE",
    "SYS_TIME",
    "SYS_TTY_CONFIG",
    "MKNOD",
    "LEASE",
    "AUDIT_WRITE",
    "AUDIT_CONTROL",
    "SETFCAP",
    "MAC_OVERRIDE",
    "MAC_ADMIN",
    "SYSLOG",
    "WAKE_ALARM",
    "BLOCK_SUSPEND",
    "AUDIT_READ",
    "PERFMON",
    "BPF",
    "CHECKPOINT_RESTORE",
];

/// The five sets of a process, bit n for capability n.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Sets {
    /// What can ever be gained.
    pub bounding: u64,
    /// Effective, permitted and inheritable.
    pub thread: prctl::Capabilities,
    /// Kept over execve of ordinary files.
    pub ambient: u64,
}

impl Sets {
    /// The sets of an OCI configuration; what it leaves out is empty.
    pub fn from_spec(spec: Option<&LinuxCapabilities>) -> Self {
        let Some(spec) = spec else { return Self::default() };
        let set = |names: &Option<HashSet<Capability>>| names.as_ref().map_or(0, bits);
        let (permitted, inheritable) = (set(spec.permitted()), set(spec.inheritable()));
        Self {
            bounding: set(spec.bounding()),
            thread: prctl::Capabilities {
                effective: set(spec.effective()),
                permitted,
                inheritable,
            },
            // Only what is both can be ambient (capabilities(7)). A configuration may list more
            // (`runc spec` does); what cannot be granted is no reason not to start.
            ambient: set(spec.ambient()) & permitted & inheritable,
        }
    }
}

impl Sets {
    /// What of them whoever has `permitted` can give: to a process in its own user namespace nothing more.
    pub fn within(self, permitted: u64) -> Self {
        let thread = prctl::Capabilities {
            effective: self.thread.effective & permitted,
            permitted: self.thread.permitted & permitted,
            inheritable: self.thread.inheritable & permitted,
        };
        Self { bounding: self.bounding & permitted, thread, ambient: self.ambient & permitted }
    }
}

/// Which capabilities of a configuration whoever has `permitted` cannot give, sorted. What cannot be granted
/// is no reason not to start (config.md, "Linux Process").
pub fn beyond(spec: &LinuxCapabilities, permitted: u64) -> Vec<String> {
    let sets = [spec.bounding(), spec.effective(), spec.permitted(), spec.inheritable()];
    let asked = sets.into_iter().flatten().fold(0, |all, set| all | bits(set));
    let names = NAMES.iter().enumerate();
    let beyond = names.filter(|(number, _)| asked & !permitted & 1 << number != 0);
    let mut names: Vec<String> = beyond.map(|(_, name)| format!("CAP_{name}")).collect();
    names.sort();
    names
}

/// A set as the kernel has it, bit n for capability n.
pub fn bits(names: &HashSet<Capability>) -> u64 {
    names.iter().filter_map(number).fold(0, |set, number| set | 1 << number)
}

/// A capability's name without `CAP_`.
pub fn name(number: u8) -> Option<&'static str> {
    NAMES.get(usize::from(number)).copied()
}

/// Which ambient capabilities of a configuration are left out, sorted: those that are not both permitted
/// and inheritable, or that this runtime does not know.
pub fn left_out(spec: &LinuxCapabilities) -> Vec<String> {
    let granted = Sets::from_spec(Some(spec)).ambient;
    let ambient = spec.ambient().iter().flatten();
    let out = ambient.filter(|one| number(one).is_none_or(|number| granted & 1 << number == 0));
    let mut names: Vec<String> = out.map(|one| format!("CAP_{one}")).collect();
    names.sort();
    names
}

/// Capabilities that the kernel knows, as numbers.
pub fn known() -> impl Iterator<Item = u8> {
    (0..64u8).take_while(|capability| prctl::knows_capability(*capability))
}

/// Names that the kernel knows, with `CAP_`.
pub fn known_names() -> Vec<String> {
    known()
        .filter_map(|number| NAMES.get(usize::from(number)))
        .map(|name| format!("CAP_{name}"))
        .collect()
}

fn number(capability: &Capability) -> Option<usize> {
    let name = capability.to_string();
    NAMES.iter().position(|candidate| *candidate == name)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_have_the_kernels_numbers() {
        assert_eq!(number(&Capability::Chown), Some(0));
        assert_eq!(number(&Capability::SysAdmin), Some(21));
        assert_eq!(number(&Capability::DacReadSearch), Some(2));
        assert_eq!(number(&Capability::CheckpointRestore), Some(40));
    }

    #[test]
    fn ambient_are_only_those_that_the_kernel_would_take() {
        let json = r#"{"permitted":["CAP_KILL","CAP_CHOWN"],"inheritable":["CAP_KILL","CAP_FOWNER"],
            "ambient":["CAP_KILL","CAP_CHOWN","CAP_FOWNER"]}"#;
        let sets: LinuxCapabilities = serde_json::from_str(json).expect("sets");
        assert_eq!(Sets::from_spec(Some(&sets)).ambient, 1 << 5);
    }
}
