//! A property of the whole way from a configuration to a program: the program answers each call as a plain
//! reading of the configuration does, whatever the configuration.

use oci_spec::runtime::{Arch, LinuxSeccomp, LinuxSeccompArg, LinuxSeccompOperator};
use serde_json::{Value, json};

use super::bpf::{ERRNO, KILL_PROCESS, tests::interpret};
use super::{Architecture, Filter, action, compile, strictest, table};

const X32_BIT: u32 = 0x4000_0000;

/// xorshift64*: the same numbers in every run.
struct Dice(u64);

impl Dice {
    fn roll(&mut self, sides: usize) -> usize {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let high = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 33;
        usize::try_from(high).expect("31 bits") % sides
    }

    fn pick<T: Copy>(&mut self, list: &[T]) -> T {
        list[self.roll(list.len())]
    }
}

const ACTIONS: [&str; 8] = [
    "SCMP_ACT_ALLOW",
    "SCMP_ACT_ERRNO",
    "SCMP_ACT_KILL",
    "SCMP_ACT_KILL_THREAD",
    "SCMP_ACT_KILL_PROCESS",
    "SCMP_ACT_LOG",
    "SCMP_ACT_TRACE",
    "SCMP_ACT_TRAP",
];
/// Of all architectures, of some, with numbers of x32's own, and of none.
const NAMES: [&str; 10] = [
    "read",
    "mkdir",
    "ioctl",
    "readv",
    "socketcall",
    "clone",
    "openat2",
    "futex_time64",
    "waitid",
    "no_such_call",
];
const ARCHITECTURES: [&str; 6] = [
    "SCMP_ARCH_X86_64",
    "SCMP_ARCH_X86",
    "SCMP_ARCH_X32",
    "SCMP_ARCH_ARM",
    "SCMP_ARCH_S390X",
    "SCMP_ARCH_AARCH64",
];
const OPERATORS: [&str; 7] = [
    "SCMP_CMP_EQ",
    "SCMP_CMP_NE",
    "SCMP_CMP_LT",
    "SCMP_CMP_LE",
    "SCMP_CMP_GT",
    "SCMP_CMP_GE",
    "SCMP_CMP_MASKED_EQ",
];
const VALUES: [u64; 8] = [0, 1, 2, 0xffff_ffff, 1 << 32, (1 << 32) + 1, 1 << 63, u64::MAX];

fn any_configuration(dice: &mut Dice) -> LinuxSeccomp {
    let calls: Vec<Value> = (0..dice.roll(9)).map(|_| any_call(dice)).collect();
    let names: Vec<&str> = (0..dice.roll(5)).map(|_| dice.pick(&ARCHITECTURES)).collect();
    let mut spec = json!({ "defaultAction": dice.pick(&ACTIONS), "syscalls": calls });
    if dice.roll(3) > 0 {
        spec["architectures"] = json!(names);
    }
    serde_json::from_value(spec).expect("it is a configuration")
}

fn any_call(dice: &mut Dice) -> Value {
    let names: Vec<&str> = (0..=dice.roll(3)).map(|_| dice.pick(&NAMES)).collect();
    let name = dice.pick(&ACTIONS);
    let mut call = json!({ "names": names, "action": name });
    if ["SCMP_ACT_ERRNO", "SCMP_ACT_TRACE"].contains(&name) && dice.roll(2) == 0 {
        call["errnoRet"] = dice.pick(&[2, 38]).into();
    }
    let first = dice.roll(6);
    let args: Vec<Value> = (0..dice.roll(4))
        .map(|step| {
            json!({ "index": (first + step) % 6, "value": dice.pick(&VALUES),
                "valueTwo": dice.pick(&VALUES), "op": dice.pick(&OPERATORS) })
        })
        .collect();
    call["args"] = json!(args);
    call
}

fn holds(condition: &LinuxSeccompArg, args: [u64; 6]) -> bool {
    use LinuxSeccompOperator as Op;
    let (found, value) = (args[condition.index()], condition.value());
    match condition.op() {
        Op::ScmpCmpEq => found == value,
        Op::ScmpCmpNe => found != value,
        Op::ScmpCmpLt => found < value,
        Op::ScmpCmpLe => found <= value,
        Op::ScmpCmpGt => found > value,
        Op::ScmpCmpGe => found >= value,
        Op::ScmpCmpMaskedEq => found & value == condition.value_two().unwrap_or_default(),
    }
}

/// The call's name on one architecture.
fn name_of(architecture: Architecture, number: u32, x32: bool) -> Option<&'static str> {
    let own = |name: &str| table::X32.iter().find(|(of, _)| x32 && *of == name);
    let numbered = table::CALLS.iter().find(|row| match own(row.0) {
        Some((_, of)) => *of == number,
        None => architecture.number(row) == Some(number),
    });
    numbered.map(|row| row.0)
}

/// What the configuration says of a call.
fn by_reading(spec: &LinuxSeccomp, audit: u32, number: u32, args: [u64; 6]) -> u32 {
    let default = action(spec.default_action(), spec.default_errno_ret()).expect("it compiled");
    let native = Architecture::native();
    let Some(architecture) = native.iter().copied().find(|one| one.audit() == audit) else {
        return KILL_PROCESS;
    };
    let names = spec.architectures().as_deref().unwrap_or_default();
    let x32 = architecture == Architecture::X86_64 && number & X32_BIT != 0;
    let mut newest = table::CALLS.iter().filter_map(|row| architecture.number(row)).max();
    if x32 {
        newest = newest.max(Some(547));
        if !names.contains(&Arch::ScmpArchX32) {
            let refuses = matches!(default & 0xffff_0000, ERRNO | KILL_PROCESS | 0);
            return if refuses { default } else { ERRNO | 1 };
        }
    }
    let number = if x32 { number & !X32_BIT } else { number };
    let filtered = architecture == native[0] || names.contains(&Arch::ScmpArchX86);
    if let Some(name) = name_of(architecture, number, x32).filter(|_| filtered) {
        let mut plain = Vec::new();
        for call in spec.syscalls().iter().flatten() {
            let answer = action(call.action(), call.errno_ret()).expect("it compiled");
            if !call.names().iter().any(|of| of == name) || answer == default {
                continue;
            }
            match call.args().as_deref().unwrap_or_default() {
                [] => plain.push(answer),
                conditions if conditions.iter().all(|one| holds(one, args)) => return answer,
                _ => {}
            }
        }
        if let Some(answer) = strictest(plain).expect("it compiled") {
            return answer;
        }
    }
    let unknown = Some(number) > newest && default & 0xffff_0000 == ERRNO;
    if unknown { ERRNO | 38 } else { default }
}

/// Calls that the configuration names, on each architecture, with the values that it compares with and
/// their neighbours, and the calls beside them.
pub fn agree(spec: &LinuxSeccomp, filter: &Filter) {
    let calls = || spec.syscalls().iter().flatten();
    let conditions = calls().flat_map(|call| call.args().iter().flatten());
    let values = conditions.flat_map(|one| [one.value(), one.value_two().unwrap_or_default()]);
    let mut values: Vec<u64> = values.take(8).collect();
    values.extend([0, u64::MAX]);
    let names = calls().flat_map(|call| call.names()).take(12).map(String::as_str);
    for name in names.chain(["read", "openat2"]) {
        let Some(row) = table::CALLS.iter().find(|row| row.0 == name) else { continue };
        for number in [row.1, row.2, row.3] {
            for number in [number, number.wrapping_add(1), number | X32_BIT] {
                for audit in [0xc000_003e, 0x4000_0003, 0xc000_00b7] {
                    for (index, value) in values.iter().enumerate() {
                        let next = values[(index + 1) % values.len()];
                        let args = [*value, value.wrapping_add(1), next, *value, next, *value];
                        let found = interpret(&filter.program, audit, number, args);
                        let expected = by_reading(spec, audit, number, args);
                        assert_eq!(found, expected, "{number:x} of {audit:x} with {args:x?}");
                    }
                }
            }
        }
    }
}

#[test]
fn programs_answer_as_their_configurations_read() {
    let mut dice = Dice(0x9e37_79b9_7f4a_7c15);
    let mut compared = 0_u32;
    for round in 0..600 {
        let spec = any_configuration(&mut dice);
        // Two numbers for one answer are refused.
        let Ok(filter) = compile(&spec) else { continue };
        for _ in 0..60 {
            let audit = dice.pick(&[0xc000_003e, 0xc000_003e, 0x4000_0003, 0xc000_00b7, 1]);
            let row = table::CALLS[dice.roll(table::CALLS.len())];
            let mut number = match dice.roll(3) {
                0 => row.1,
                1 => u32::try_from(dice.roll(600)).expect("a small number"),
                _ => {
                    let name = dice.pick(&NAMES);
                    let row = table::CALLS.iter().find(|row| row.0 == name);
                    row.map_or(7, |row| if audit == 0x4000_0003 { row.2 } else { row.1 })
                }
            };
            if dice.roll(4) == 0 {
                number |= X32_BIT;
            }
            let args = [(); 6].map(|()| dice.pick(&VALUES));
            let found = interpret(&filter.program, audit, number, args);
            let expected = by_reading(&spec, audit, number, args);
            assert_eq!(
                found, expected,
                "round {round}: call {number:x} of {audit:x} with {args:x?} under {spec:?}"
            );
            compared += 1;
        }
    }
    assert!(compared > 20_000, "{compared} comparisons");
}

#[test]
fn what_cannot_be_held_is_refused() {
    let refused = |change: Value| {
        let mut spec = json!({ "defaultAction": "SCMP_ACT_ALLOW" });
        let fields = change.as_object().expect("an object").clone();
        spec.as_object_mut().expect("an object").extend(fields);
        let spec: LinuxSeccomp = serde_json::from_value(spec).expect("it is a configuration");
        compile(&spec).expect_err("it cannot be").to_string()
    };
    let asks = |name: &str| json!([{ "names": [name], "action": "SCMP_ACT_NOTIFY" }]);
    let path = "/run/agent.sock";
    let said = refused(json!({ "syscalls": asks("mkdir") }));
    assert!(said.contains("listenerPath: missing"), "{said}");
    let said = refused(json!({ "syscalls": asks("mkdir"), "listenerPath": "agent" }));
    assert!(said.contains("agent is not an absolute path"), "{said}");
    let said = refused(json!({ "syscalls": asks("read"), "listenerPath": path }));
    assert!(said.contains("read has to be allowed"), "{said}");
    let said = refused(json!({ "defaultAction": "SCMP_ACT_NOTIFY", "listenerPath": path }));
    assert!(said.contains("read has to be allowed"), "{said}");
    let said = refused(json!({ "listenerMetadata": "a" }));
    assert!(said.contains("listenerMetadata"), "{said}");
    let said = refused(json!({ "flags": ["SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"] }));
    assert!(said.contains("WAIT_KILLABLE_RECV"), "{said}");
}
