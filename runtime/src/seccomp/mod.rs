//! System call filters: an OCI `linux.seccomp` compiled to BPF by [`bpf`], for every instruction set
//! that the processor can run ([`Architecture`]), so that no call gets past by being made another way.

pub mod bpf;
pub mod listener;
pub mod profile;
#[cfg(any(test, fuzzing))]
pub mod reading_tests;
pub mod table;

use std::collections::BTreeMap;

use oci_spec::runtime::{
    Arch, LinuxSeccomp, LinuxSeccompAction, LinuxSeccompArg, LinuxSeccompFilterFlag,
    LinuxSeccompOperator,
};

use crate::spec::{SpecError, invalid, unsupported};
use crate::sys::seccomp::Instruction;
use bpf::{Calls, Condition, Operator, Rule};

/// A compiled filter.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Filter {
    /// The program.
    pub program: Vec<Instruction>,
    /// `SECCOMP_FILTER_FLAG_*`.
    pub flags: u64,
}

impl Filter {
    /// Whether another program decides about some calls.
    pub fn listens(&self) -> bool {
        self.flags & NEW_LISTENER != 0
    }
}

// linux/seccomp.h.
const TSYNC: u64 = 1;
const LOG: u64 = 1 << 1;
const SPEC_ALLOW: u64 = 1 << 2;
const NEW_LISTENER: u64 = 1 << 3;
const TSYNC_ESRCH: u64 = 1 << 4;
const WAIT_KILLABLE_RECV: u64 = 1 << 5;

/// An instruction set with its own call numbers.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Architecture {
    /// 64-bit calls of x86-64.
    X86_64,
    /// `int 0x80` and sysenter.
    I386,
    /// 64-bit ARM.
    Aarch64,
}

impl Architecture {
    /// `AUDIT_ARCH_*` (linux/audit.h).
    pub fn audit(self) -> u32 {
        match self {
            Self::X86_64 => 0xc000_003e,
            Self::I386 => 0x4000_0003,
            Self::Aarch64 => 0xc000_00b7,
        }
    }

    fn number(self, row: &table::Row) -> Option<u32> {
        let number = match self {
            Self::X86_64 => row.1,
            Self::I386 => row.2,
            Self::Aarch64 => row.3,
        };
        (number != table::NONE).then_some(number)
    }

    /// Those that this build's processor runs. x32 is x86-64 with a bit set ([`Calls::x32`]); a 32-bit
    /// ARM call is of an unknown architecture, which kills.
    fn native() -> &'static [Self] {
        if cfg!(target_arch = "aarch64") { &[Self::Aarch64] } else { &[Self::X86_64, Self::I386] }
    }

    fn is_named_by(self, name: Arch) -> bool {
        match self {
            // The native one always is, as with libseccomp (seccomp_arch_add(3)).
            Self::X86_64 | Self::Aarch64 => true,
            Self::I386 => name == Arch::ScmpArchX86,
        }
    }
}

/// Compiles a configuration's filter. The native architecture's calls are filtered by name, and those of
/// other ones that `architectures` names and the processor can run; of the rest of these every call has the
/// default action, but those of x32 are refused. Names of architectures of other processors have no effect.
pub fn compile(spec: &LinuxSeccomp) -> Result<Filter, SpecError> {
    let default = action(spec.default_action(), spec.default_errno_ret())?;
    let names = spec.architectures().as_deref().unwrap_or_default();
    let names: Vec<Arch> =
        [Arch::ScmpArchNative].into_iter().chain(names.iter().copied()).collect();
    let mut tables = Vec::new();
    for architecture in Architecture::native() {
        let named = names.iter().any(|name| architecture.is_named_by(*name));
        let own = |row: &table::Row| architecture.number(row);
        let rules = if named { rules(spec, &own, default)? } else { BTreeMap::new() };
        let with_x32 = *architecture == Architecture::X86_64 && names.contains(&Arch::ScmpArchX32);
        let x32 = with_x32.then(|| rules_of_x32(spec, default)).transpose()?;
        let newest = newest(*architecture);
        tables.push(Calls { architecture: *architecture, rules, x32, newest });
    }
    let program = bpf::compile(&tables, default);
    if program.len() > bpf::INSTRUCTIONS_MAX {
        let (most, now) = (bpf::INSTRUCTIONS_MAX, program.len());
        let why = format!("{now} instructions, and the kernel takes {most}");
        return Err(invalid("linux.seccomp.syscalls", why));
    }
    Ok(Filter { program, flags: flags(spec, listens(spec, &tables, default)?)? })
}

/// Calls of x32: x86-64's with a bit set, but those whose structs differ have numbers of their own.
fn rules_of_x32(spec: &LinuxSeccomp, default: u32) -> Result<BTreeMap<u32, Vec<Rule>>, SpecError> {
    let number = |row: &table::Row| {
        let own = table::X32.iter().find(|(name, _)| *name == row.0);
        own.map(|(_, number)| *number).or(Architecture::X86_64.number(row))
    };
    rules(spec, &number, default)
}

/// Whether another program decides about some calls. It is at the listener's path, and while it is told
/// the first program waits with read(2), which therefore is not for it to decide.
fn listens(spec: &LinuxSeccomp, tables: &[Calls], default: u32) -> Result<bool, SpecError> {
    let path = spec.listener_path().as_deref();
    if path.is_none() && spec.listener_metadata().as_deref().is_some_and(|text| !text.is_empty()) {
        let why = "there is no listenerPath for it";
        return Err(invalid("linux.seccomp.listenerMetadata", why));
    }
    let asks = |action: LinuxSeccompAction| action == LinuxSeccompAction::ScmpActNotify;
    let mut calls = spec.syscalls().iter().flatten();
    if !asks(spec.default_action()) && !calls.any(|call| asks(call.action())) {
        return Ok(false);
    }
    let field = "linux.seccomp.listenerPath";
    let path = path.ok_or_else(|| invalid(field, "missing, and SCMP_ACT_NOTIFY needs it"))?;
    if !path.is_absolute() {
        return Err(invalid(field, format!("{} is not an absolute path", path.display())));
    }
    let passes = |action: u32| matches!(action & 0xffff_0000, 0x7fff_0000 | 0x7ffc_0000);
    let native = tables.first();
    let row = table::CALLS.iter().find(|row| row.0 == "read");
    let read =
        native.zip(row).and_then(|(calls, row)| calls.rules.get(&calls.architecture.number(row)?));
    let rules = read.map(Vec::as_slice).unwrap_or_default();
    let decided = rules.iter().any(|rule| rule.conditions.is_empty());
    if !rules.iter().all(|rule| passes(rule.action)) || !decided && !passes(default) {
        let why = "with SCMP_ACT_NOTIFY the call read has to be allowed: by it the first program \
            waits until the listener has been told";
        return Err(invalid("linux.seccomp.syscalls", why));
    }
    Ok(true)
}

/// The highest call number known: above it are calls newer than this build, answered as such.
fn newest(architecture: Architecture) -> u32 {
    let numbers = table::CALLS.iter().filter_map(|row| architecture.number(row));
    numbers.max().unwrap_or_default()
}

fn rules(
    spec: &LinuxSeccomp,
    number: &dyn Fn(&table::Row) -> Option<u32>,
    default: u32,
) -> Result<BTreeMap<u32, Vec<Rule>>, SpecError> {
    let mut rules: BTreeMap<u32, Vec<Rule>> = BTreeMap::new();
    for (index, entry) in spec.syscalls().iter().flatten().enumerate() {
        let field = format!("linux.seccomp.syscalls[{index}]");
        let action = action(entry.action(), entry.errno_ret())?;
        if action == default {
            continue;
        }
        let arguments = entry.args().as_deref().unwrap_or_default();
        let conditions = conditions(arguments, &field)?;
        for name in entry.names() {
            // A name that this architecture (or this build) does not know needs no rule.
            let row = table::CALLS.binary_search_by(|row| row.0.cmp(name.as_str()));
            let Some(number) = row.ok().and_then(|at| number(&table::CALLS[at])) else {
                continue;
            };
            let rule = Rule { conditions: conditions.clone(), action };
            rules.entry(number).or_default().push(rule);
        }
    }
    for list in rules.values_mut() {
        let plain = list.extract_if(.., |rule| rule.conditions.is_empty());
        let plain = strictest(plain.map(|rule| rule.action).collect())?;
        // A rule without conditions decides; what has conditions is asked before it.
        list.extend(plain.map(|action| Rule { conditions: Vec::new(), action }));
    }
    Ok(rules)
}

/// Of several answers to one call the one that the kernel would take, were each in a filter of its own
/// (seccomp(2), "Filters"): podman's default profile allows and refuses `setns`. Between two error
/// numbers the kernel takes that of the newest filter, of which a list has none.
fn strictest(actions: Vec<u32>) -> Result<Option<u32>, SpecError> {
    // The kernel compares the actions as signed numbers, the lowest first.
    let rank = |action: u32| (action & 0xffff_0000).cast_signed();
    let Some(lowest) = actions.iter().copied().min_by_key(|action| rank(*action)) else {
        return Ok(None);
    };
    if actions.iter().any(|action| rank(*action) == rank(lowest) && *action != lowest) {
        let why = "one call has two answers of one kind with different numbers (errnoRet)";
        return Err(invalid("linux.seccomp.syscalls", why));
    }
    Ok(Some(lowest))
}

/// As runc does it: the conditions must all hold, but several on one argument are alternatives. That
/// ambiguity is refused instead.
fn conditions(arguments: &[LinuxSeccompArg], field: &str) -> Result<Vec<Condition>, SpecError> {
    let mut seen = [false; 6];
    let mut conditions = Vec::new();
    for argument in arguments {
        let index = argument.index();
        let number = u32::try_from(index).unwrap_or(u32::MAX);
        if index >= seen.len() || seen[index] {
            return Err(unsupported(
                format!("{field}.args"),
                "an index above 5, or one used twice",
            ));
        }
        seen[index] = true;
        let value = argument.value();
        let (operator, value) = match argument.op() {
            LinuxSeccompOperator::ScmpCmpEq => (Operator::Equal, value),
            LinuxSeccompOperator::ScmpCmpNe => (Operator::NotEqual, value),
            LinuxSeccompOperator::ScmpCmpLt => (Operator::Less, value),
            LinuxSeccompOperator::ScmpCmpLe => (Operator::AtMost, value),
            LinuxSeccompOperator::ScmpCmpGt => (Operator::Greater, value),
            LinuxSeccompOperator::ScmpCmpGe => (Operator::AtLeast, value),
            LinuxSeccompOperator::ScmpCmpMaskedEq => {
                let wanted = argument.value_two().unwrap_or_default();
                (Operator::MaskedEqual { mask: value }, wanted)
            }
        };
        conditions.push(Condition { argument: number, operator, value });
    }
    Ok(conditions)
}

fn action(action: LinuxSeccompAction, errno: Option<u32>) -> Result<u32, SpecError> {
    use LinuxSeccompAction as Action;
    let field = "linux.seccomp: errnoRet";
    match action {
        Action::ScmpActErrno => match errno.unwrap_or(1) {
            value @ 0..=4095 => Ok(action.as_u32(Some(value))),
            value => Err(invalid(field, format!("{value} is no errno"))),
        },
        // What the tracer is told, of 16 bits (seccomp(2), "SECCOMP_RET_DATA").
        Action::ScmpActTrace => match errno.unwrap_or(1) {
            value @ 0..=0xffff => Ok(action.as_u32(Some(value))),
            value => Err(invalid(field, format!("{value} is above 65535"))),
        },
        _ if errno.is_some() => Err(invalid(field, "only for SCMP_ACT_ERRNO and SCMP_ACT_TRACE")),
        _ => Ok(action.as_u32(None)),
    }
}

fn flags(spec: &LinuxSeccomp, listens: bool) -> Result<u64, SpecError> {
    let mut bits = if listens { NEW_LISTENER } else { 0 };
    for flag in spec.flags().iter().flatten() {
        bits |= match flag {
            LinuxSeccompFilterFlag::SeccompFilterFlagLog => LOG,
            LinuxSeccompFilterFlag::SeccompFilterFlagSpecAllow => SPEC_ALLOW,
            // The kernel wants to know that a thread which cannot be taken along is said by an error.
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync if listens => TSYNC | TSYNC_ESRCH,
            LinuxSeccompFilterFlag::SeccompFilterFlagTsync => TSYNC,
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv if listens => {
                WAIT_KILLABLE_RECV
            }
            LinuxSeccompFilterFlag::SeccompFilterFlagWaitKillableRecv => {
                let why = "SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV is about calls with SCMP_ACT_NOTIFY, \
                    and there are none";
                return Err(invalid("linux.seccomp.flags", why));
            }
        };
    }
    Ok(bits)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// SCMP_ACT_* as the kernel knows them, the strictest first (seccomp(2)).
    const ORDER: [u32; 7] =
        [bpf::KILL_PROCESS, 0, 0x0003_0000, bpf::ERRNO | 1, 0x7ff0_0000, 0x7ffc_0000, 0x7fff_0000];

    #[test]
    fn the_strictest_answer_is_the_kernels() {
        for (index, strict) in ORDER.into_iter().enumerate() {
            for loose in &ORDER[index..] {
                assert_eq!(strictest(vec![strict, *loose]), Ok(Some(strict)));
                assert_eq!(strictest(vec![*loose, strict]), Ok(Some(strict)));
            }
        }
        assert_eq!(strictest(Vec::new()), Ok(None));
        assert!(strictest(vec![bpf::ERRNO | 1, bpf::ERRNO | 2, 0x7fff_0000]).is_err());
        // Of two that nobody comes to, the numbers don't matter.
        assert_eq!(strictest(vec![bpf::ERRNO | 1, bpf::ERRNO | 2, 0]), Ok(Some(0)));
    }
}
