//! What a program inherits of the process that execs it, and only that process itself can set:
//! `linux.personality` and `linux.memoryPolicy` (config-linux.md).

use std::path::Path;

use oci_spec::runtime::{
    Linux, LinuxMemoryPolicy, LinuxPersonality, LinuxPersonalityDomain, MemoryPolicyFlagType,
    MemoryPolicyModeType,
};

use crate::init::{At, Report, Stage};
use crate::ranges;
use crate::spec::{SpecError, invalid};
use crate::sys::sched::{set_memory_policy, set_personality};

/// Planned by the parent, set by the child.
#[derive(Debug, Default)]
pub struct Attributes {
    personality: Option<u32>,
    memory: Option<MemoryPolicy>,
}

#[derive(Debug, PartialEq, Eq)]
struct MemoryPolicy {
    /// Mode and flags in one.
    mode: i32,
    /// Bit n for node n.
    nodes: Vec<u64>,
}

impl Attributes {
    /// Those of a configuration.
    pub fn of(linux: &Linux) -> Result<Self, SpecError> {
        Ok(Self {
            personality: linux.personality().as_ref().map(personality).transpose()?,
            memory: linux.memory_policy().as_ref().map(memory_policy).transpose()?,
        })
    }

    /// Sets them on the calling process. Does not allocate.
    pub fn set(&self) -> Result<(), Report> {
        if let Some(persona) = self.personality {
            set_personality(persona).at(Stage::Personality)?;
        }
        if let Some(policy) = &self.memory {
            set_memory_policy(policy.mode, &policy.nodes).at(Stage::MemoryPolicy)?;
        }
        Ok(())
    }
}

/// linux/personality.h.
fn personality(wanted: &LinuxPersonality) -> Result<u32, SpecError> {
    if let Some(flag) = wanted.flags().iter().flatten().next() {
        let why = format!("{flag:?}: the specification has no flags yet");
        return Err(invalid("linux.personality.flags", why));
    }
    Ok(match wanted.domain() {
        LinuxPersonalityDomain::PerLinux => 0,
        LinuxPersonalityDomain::PerLinux32 => 8,
    })
}

/// linux/mempolicy.h; set_mempolicy(2).
fn memory_policy(wanted: &LinuxMemoryPolicy) -> Result<MemoryPolicy, SpecError> {
    use MemoryPolicyModeType as Mode;
    const STATIC: i32 = 1 << 15;
    const RELATIVE: i32 = 1 << 14;
    let field = |name: &str| format!("linux.memoryPolicy.{name}");
    let mode = wanted.mode();
    let number = match mode {
        Mode::MpolDefault => 0,
        Mode::MpolPreferred => 1,
        Mode::MpolBind => 2,
        Mode::MpolInterleave => 3,
        Mode::MpolLocal => 4,
        Mode::MpolPreferredMany => 5,
        Mode::MpolWeightedInterleave => 6,
    };
    let flags = wanted.flags().iter().flatten().fold(0, |bits, flag| {
        bits | match flag {
            MemoryPolicyFlagType::MpolFStaticNodes => STATIC,
            MemoryPolicyFlagType::MpolFRelativeNodes => RELATIVE,
            MemoryPolicyFlagType::MpolFNumaBalancing => 1 << 13,
        }
    });
    if flags & STATIC != 0 && flags & RELATIVE != 0 {
        let why = "MPOL_F_STATIC_NODES and MPOL_F_RELATIVE_NODES exclude each other";
        return Err(invalid(field("flags"), why));
    }
    let text = wanted.nodes().as_deref().unwrap_or_default();
    match (mode, text) {
        (Mode::MpolDefault | Mode::MpolLocal, "") | (Mode::MpolPreferred, "") => {}
        (Mode::MpolDefault | Mode::MpolLocal, text) => {
            return Err(invalid(field("nodes"), format!("{text:?}: {mode} takes no nodes")));
        }
        (_, "") => return Err(invalid(field("nodes"), format!("{mode} needs nodes"))),
        _ => {}
    }
    if text.is_empty() {
        return Ok(MemoryPolicy { mode: number | flags, nodes: Vec::new() });
    }
    // Relative ones count through what the cpuset has: one that is not there is folded onto one that is.
    let possible = Path::new("/sys/devices/system/node").join(match flags & RELATIVE {
        0 => "online",
        _ => "possible",
    });
    let numbers = ranges::among(text, &possible, "memory node")
        .map_err(|why| invalid(field("nodes"), why))?;
    let mut nodes = Vec::new();
    for number in numbers {
        let word = usize::try_from(number / 64).unwrap_or(usize::MAX);
        if nodes.len() <= word {
            nodes.resize(word + 1, 0_u64);
        }
        nodes[word] |= 1 << (number % 64);
    }
    Ok(MemoryPolicy { mode: number | flags, nodes })
}
