//! The compiler from rules to classic BPF (linux/seccomp.h, linux/filter.h).
//!
//! Shape: the architecture first; then, per architecture, a balanced binary tree over call numbers
//! whose leaves are answers or argument checks, so that a call costs about nine comparisons. The
//! kernel answers calls whose answer does not depend on arguments from a bitmap without running it.
//!
//! Invariants: every path ends in a return; an architecture that is not in the list kills the process;
//! x32 calls (x86-64's numbers with bit 30) have rules of their own, or else the default answer or EPERM,
//! whichever refuses.

use std::collections::BTreeMap;

use crate::seccomp::Architecture;
use crate::sys::seccomp::Instruction;

/// `SECCOMP_RET_ALLOW`.
#[cfg(any(test, fuzzing))]
const ALLOW: u32 = 0x7fff_0000;
/// `SECCOMP_RET_KILL_PROCESS`.
pub const KILL_PROCESS: u32 = 0x8000_0000;
/// `SECCOMP_RET_ERRNO` without its errno.
pub const ERRNO: u32 = 0x0005_0000;

/// What is done with one architecture's calls.
#[derive(Debug)]
pub struct Calls {
    /// Which.
    pub architecture: Architecture,
    /// Rules by call number, asked in order; the default answers when none holds.
    pub rules: BTreeMap<u32, Vec<Rule>>,
    /// Of x86-64: rules for x32, by numbers without its bit; none where x32 is refused.
    pub x32: Option<BTreeMap<u32, Vec<Rule>>>,
    /// Calls above this number are newer than this build.
    pub newest: u32,
}

/// An answer and when it is given.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Rule {
    /// All must hold.
    pub conditions: Vec<Condition>,
    /// `SECCOMP_RET_*`.
    pub action: u32,
}

/// A comparison of one argument, as 64 bits without sign.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Condition {
    /// Which argument, from 0 to 5.
    pub argument: u32,
    /// The comparison.
    pub operator: Operator,
    /// What it is compared with.
    pub value: u64,
}

/// How an argument is compared with a value.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Operator {
    Equal,
    NotEqual,
    Less,
    AtMost,
    Greater,
    AtLeast,
    /// Equal in the bits of the mask.
    MaskedEqual {
        mask: u64,
    },
}

// Operation codes: class | size/operation | source.
const LOAD: u16 = 0x20;
const JUMP: u16 = 0x05;
const JUMP_EQUAL: u16 = 0x15;
const JUMP_GREATER: u16 = 0x25;
const JUMP_AT_LEAST: u16 = 0x35;
const AND: u16 = 0x54;
const RETURN: u16 = 0x06;

// Offsets in struct seccomp_data.
const DATA_NUMBER: u32 = 0;
const DATA_ARCHITECTURE: u32 = 4;
const DATA_ARGUMENTS: u32 = 16;

const X32_BIT: u32 = 0x4000_0000;
/// The highest number of x32's own calls.
const X32_NEWEST: u32 = 547;

/// `BPF_MAXINSNS` (linux/bpf_common.h).
pub const INSTRUCTIONS_MAX: usize = 4096;

/// Compiles the tables; `default` answers calls that no rule does.
pub fn compile(tables: &[Calls], default: u32) -> Vec<Instruction> {
    let mut program = vec![load(DATA_ARCHITECTURE)];
    for calls in tables {
        let body = compile_calls(calls, default);
        // Skipping the body may be further than a conditional jump reaches.
        program.push(compare(JUMP_EQUAL, calls.architecture.audit(), 1, 0));
        program.push(jump(body.len()));
        program.extend(body);
    }
    program.push(answer(KILL_PROCESS));
    program
}

/// One leaf of the tree: calls from `first` up to the next leaf's.
struct Leaf {
    first: u32,
    code: Vec<Instruction>,
}

fn compile_calls(calls: &Calls, default: u32) -> Vec<Instruction> {
    let mut leaves: Vec<Leaf> = Vec::new();
    let mut add = |first: u32, code: Vec<Instruction>| {
        // A run of calls with the same plain answer is one leaf.
        if leaves.last().is_none_or(|last| code.len() > 1 || last.code != code) {
            leaves.push(Leaf { first, code });
        }
    };
    add_calls(&calls.rules, (0, calls.newest), default, &mut add);
    match &calls.x32 {
        Some(rules) => add_calls(rules, (X32_BIT, calls.newest.max(X32_NEWEST)), default, &mut add),
        None if calls.architecture == Architecture::X86_64 => {
            let refuses = default & 0xffff_0000 == ERRNO || default == KILL_PROCESS || default == 0;
            add(X32_BIT, vec![answer(if refuses { default } else { ERRNO | 1 })]);
        }
        None => {}
    }
    let mut body = vec![load(DATA_NUMBER)];
    body.extend(tree(&leaves));
    body
}

/// The leaves of numbers that begin at `base`, of which `newest` is the highest known.
fn add_calls(
    rules: &BTreeMap<u32, Vec<Rule>>,
    (base, newest): (u32, u32),
    default: u32,
    add: &mut dyn FnMut(u32, Vec<Instruction>),
) {
    let mut next = 0;
    for (number, rules) in rules {
        if *number > next {
            add(base + next, vec![answer(default)]);
        }
        add(base + number, compile_rules(rules, default));
        next = number + 1;
    }
    add(base + next, vec![answer(default)]);
    add(base + next.max(newest + 1), vec![answer(unknown(default))]);
}

/// Where the default is an error, calls that this build does not know answer ENOSYS, so that programs
/// fall back as on an older kernel.
fn unknown(default: u32) -> u32 {
    const ENOSYS: u32 = 38;
    if default & 0xffff_0000 == ERRNO { ERRNO | ENOSYS } else { default }
}

fn tree(leaves: &[Leaf]) -> Vec<Instruction> {
    if let [leaf] = leaves {
        return leaf.code.clone();
    }
    let (low, high) = leaves.split_at(leaves.len() / 2);
    let boundary = high[0].first;
    let (low, high) = (tree(low), tree(high));
    let mut code = match u8::try_from(low.len()) {
        Ok(skip) => vec![compare(JUMP_AT_LEAST, boundary, skip, 0)],
        Err(_) => vec![compare(JUMP_AT_LEAST, boundary, 0, 1), jump(low.len())],
    };
    code.extend(low);
    code.extend(high);
    code
}

/// Rules in order; falls to the default's answer.
fn compile_rules(rules: &[Rule], default: u32) -> Vec<Instruction> {
    let mut code = Vec::new();
    for rule in rules {
        let mut block = vec![answer(rule.action)];
        // From the last condition to the first, so that each knows how far the next rule is.
        for condition in rule.conditions.iter().rev() {
            let mut part = compile_condition(condition, block.len());
            part.append(&mut block);
            block = part;
        }
        code.extend(block);
        if rule.conditions.is_empty() {
            return code;
        }
    }
    code.push(answer(default));
    code
}

/// Goes on with the `rest` instructions that follow when the condition holds, else skips them.
fn compile_condition(condition: &Condition, rest: usize) -> Vec<Instruction> {
    let skip =
        u8::try_from(rest).expect("one rule has at most six conditions of seven instructions");
    // Little-endian: the low word comes first.
    let offset = DATA_ARGUMENTS + condition.argument * 8;
    let (low, high) = words(condition.value);
    let load_high = load(offset + 4);
    let load_low = load(offset);
    // Each: high word, low word; jump counts are to the end of this block, which is `skip` further on
    // for "does not hold".
    match condition.operator {
        Operator::Equal => vec![
            load_high,
            compare(JUMP_EQUAL, high, 0, skip + 2),
            load_low,
            compare(JUMP_EQUAL, low, 0, skip),
        ],
        Operator::NotEqual => vec![
            load_high,
            compare(JUMP_EQUAL, high, 0, 2),
            load_low,
            compare(JUMP_EQUAL, low, skip, 0),
        ],
        Operator::MaskedEqual { mask } => {
            let (mask_low, mask_high) = words(mask);
            vec![
                load_high,
                and(mask_high),
                compare(JUMP_EQUAL, high, 0, skip + 3),
                load_low,
                and(mask_low),
                compare(JUMP_EQUAL, low, 0, skip),
            ]
        }
        Operator::Greater => ordered(load_high, load_low, (high, low), JUMP_GREATER, skip, true),
        Operator::AtLeast => ordered(load_high, load_low, (high, low), JUMP_AT_LEAST, skip, true),
        Operator::Less => ordered(load_high, load_low, (high, low), JUMP_AT_LEAST, skip, false),
        Operator::AtMost => ordered(load_high, load_low, (high, low), JUMP_GREATER, skip, false),
    }
}

/// Greater-than in two words: the high word decides unless equal. `wanted` is the comparison's result
/// that makes the condition hold.
fn ordered(
    load_high: Instruction,
    load_low: Instruction,
    (high, low): (u32, u32),
    low_test: u16,
    skip: u8,
    wanted: bool,
) -> Vec<Instruction> {
    let outcome = |to_true: u8, to_false: u8| {
        if wanted { (to_true, to_false) } else { (to_false, to_true) }
    };
    // After `load high`: greater decides; then equal goes on to the low word, smaller decides.
    let (greater, _) = outcome(3, skip + 3);
    let (_, smaller) = outcome(2, skip + 2);
    let (at_least, below) = outcome(0, skip);
    vec![
        load_high,
        compare(JUMP_GREATER, high, greater, 0),
        compare(JUMP_EQUAL, high, 0, smaller),
        load_low,
        compare(low_test, low, at_least, below),
    ]
}

fn words(value: u64) -> (u32, u32) {
    let low = u32::try_from(value & 0xffff_ffff).expect("masked to 32 bits");
    let high = u32::try_from(value >> 32).expect("shifted to 32 bits");
    (low, high)
}

fn load(offset: u32) -> Instruction {
    Instruction { code: LOAD, jump_true: 0, jump_false: 0, operand: offset }
}

fn and(mask: u32) -> Instruction {
    Instruction { code: AND, jump_true: 0, jump_false: 0, operand: mask }
}

fn compare(code: u16, operand: u32, jump_true: u8, jump_false: u8) -> Instruction {
    Instruction { code, jump_true, jump_false, operand }
}

fn jump(distance: usize) -> Instruction {
    let operand = u32::try_from(distance).expect("a filter has at most 4096 instructions");
    Instruction { code: JUMP, jump_true: 0, jump_false: 0, operand }
}

fn answer(action: u32) -> Instruction {
    Instruction { code: RETURN, jump_true: 0, jump_false: 0, operand: action }
}

#[cfg(any(test, fuzzing))]
pub(in crate::seccomp) mod tests {
    use super::*;

    /// What a plain reading of the rules says.
    fn by_reading(tables: &[Calls], default: u32, audit: u32, number: u32, args: [u64; 6]) -> u32 {
        let Some(calls) = tables.iter().find(|calls| calls.architecture.audit() == audit) else {
            return KILL_PROCESS;
        };
        if calls.architecture == Architecture::X86_64 && number >= X32_BIT {
            return if default == ALLOW { ERRNO | 1 } else { default };
        }
        for rule in calls.rules.get(&number).into_iter().flatten() {
            if rule.conditions.iter().all(|condition| holds(condition, args)) {
                return rule.action;
            }
        }
        let known = number <= calls.newest || calls.rules.contains_key(&number);
        if known { default } else { unknown(default) }
    }

    fn holds(condition: &Condition, args: [u64; 6]) -> bool {
        let argument = args[condition.argument as usize];
        match condition.operator {
            Operator::Equal => argument == condition.value,
            Operator::NotEqual => argument != condition.value,
            Operator::Less => argument < condition.value,
            Operator::AtMost => argument <= condition.value,
            Operator::Greater => argument > condition.value,
            Operator::AtLeast => argument >= condition.value,
            Operator::MaskedEqual { mask } => argument & mask == condition.value,
        }
    }

    /// The machine of bpf(4), as far as filters use it.
    pub(in crate::seccomp) fn interpret(
        program: &[Instruction],
        audit: u32,
        number: u32,
        args: [u64; 6],
    ) -> u32 {
        let mut data = [0u8; 64];
        data[..4].copy_from_slice(&number.to_le_bytes());
        data[4..8].copy_from_slice(&audit.to_le_bytes());
        for (index, argument) in args.iter().enumerate() {
            data[16 + index * 8..][..8].copy_from_slice(&argument.to_le_bytes());
        }
        let (mut at, mut register) = (0, 0u32);
        loop {
            let step = program[at];
            at += 1;
            let branch =
                |holds: bool| usize::from(if holds { step.jump_true } else { step.jump_false });
            match step.code {
                LOAD => {
                    let from = step.operand as usize;
                    let word = data[from..from + 4].try_into().expect("four bytes");
                    register = u32::from_le_bytes(word);
                }
                AND => register &= step.operand,
                JUMP => at += step.operand as usize,
                JUMP_EQUAL => at += branch(register == step.operand),
                JUMP_GREATER => at += branch(register > step.operand),
                JUMP_AT_LEAST => at += branch(register >= step.operand),
                RETURN => return step.operand,
                other => panic!("unknown operation {other}"),
            }
        }
    }

    fn check(tables: &[Calls], default: u32) {
        let program = compile(tables, default);
        assert!(program.len() <= 4096, "{} instructions", program.len());
        let values = [0, 1, 2, 37, 38, 39, 40, 0x7e02_0000, 0x1_0000_0026, u64::MAX, 1 << 63];
        let numbers = (0..600).chain([X32_BIT - 1, X32_BIT, X32_BIT + 1, u32::MAX]);
        for number in numbers {
            for audit in [0xc000_003e, 0x4000_0003, 0xc000_00b7, 0] {
                for value in values {
                    let args = [value, value ^ 1, value, 0, 0, value];
                    let expected = by_reading(tables, default, audit, number, args);
                    let found = interpret(&program, audit, number, args);
                    assert_eq!(found, expected, "call {number} of {audit:x} with {args:x?}");
                }
            }
        }
    }

    #[test]
    fn programs_answer_as_their_rules_read() {
        let condition = |argument, operator, value| Condition { argument, operator, value };
        let operators = [
            Operator::Equal,
            Operator::NotEqual,
            Operator::Less,
            Operator::AtMost,
            Operator::Greater,
            Operator::AtLeast,
            Operator::MaskedEqual { mask: 0x7e02_0000 },
            Operator::MaskedEqual { mask: 0xffff_ffff_0000_0001 },
        ];
        let mut rules = BTreeMap::new();
        for (index, operator) in operators.into_iter().enumerate() {
            for (step, value) in [0u64, 38, 1 << 32, u64::MAX].into_iter().enumerate() {
                let number = u32::try_from(index * 8 + step).expect("a small number");
                let first = Rule { conditions: vec![condition(0, operator, value)], action: ALLOW };
                let second = Rule {
                    conditions: vec![condition(1, operator, value), condition(5, operator, value)],
                    action: ERRNO | 7,
                };
                rules.insert(number, vec![first, second]);
            }
        }
        for number in (100..460).step_by(2) {
            rules.insert(number, vec![Rule { conditions: Vec::new(), action: ALLOW }]);
        }
        let tables = [
            Calls { architecture: Architecture::X86_64, rules, x32: None, newest: 469 },
            Calls {
                architecture: Architecture::I386,
                rules: BTreeMap::new(),
                x32: None,
                newest: 469,
            },
        ];
        check(&tables, ERRNO | 1);
        check(&tables, ALLOW);
        check(&tables, KILL_PROCESS);
    }
}
