//! `linux.resources.devices`: an ordered list of rules as one rule for all and the exceptions from it, which
//! is what v1 can hold; v2 is given the same, so that both answer alike.

use oci_spec::runtime::{LinuxDeviceCgroup, LinuxDeviceType, LinuxResources};

use crate::cgroup::{CONTAINER_DEVICES, DeviceAccess, DeviceKind, DeviceRule, Error, Fence};

/// Rules of a configuration at most.
const RULES_MAX: usize = 4096;

/// What the rules of a configuration come to. Nothing is allowed to begin with; the devices that every
/// container has to have ("Default Devices") are allowed whatever the rules say.
pub fn fence(resources: Option<&LinuxResources>) -> Result<Fence, Error> {
    let mut fence = Fence { open: false, exceptions: Vec::new() };
    let rules = resources.and_then(|resources| resources.devices().as_deref()).unwrap_or_default();
    if rules.len() > RULES_MAX {
        return Err(invalid("", format!("{} rules are more than {RULES_MAX}", rules.len())));
    }
    for (index, rule) in rules.iter().enumerate() {
        let field = format!("[{index}]");
        let (kinds, one) = read(rule, &field)?;
        let all = one.major.is_none() && one.minor.is_none() && !one.access.lacks_any();
        if kinds.len() == 2 && all {
            fence = Fence { open: rule.allow(), exceptions: Vec::new() };
            continue;
        }
        for &kind in kinds {
            apply(&mut fence, rule.allow(), DeviceRule { kind, ..one }, &field)?;
        }
    }
    for one in CONTAINER_DEVICES {
        apply(&mut fence, true, one, "").map_err(|_| {
            let numbers = (one.major.unwrap_or_default(), one.minor);
            let (major, minor) = (numbers.0, numbers.1.map_or("*".to_owned(), |n| n.to_string()));
            let text = format!(
                ": a rule denies c {major}:{minor}, which every container has, along with others"
            );
            invalid("", text)
        })?;
    }
    Ok(fence)
}

/// The kinds of node that a rule is for, and the rule (of the first of them).
fn read(
    rule: &LinuxDeviceCgroup,
    field: &str,
) -> Result<(&'static [DeviceKind], DeviceRule), Error> {
    let kinds: &[DeviceKind] = match rule.typ() {
        None | Some(LinuxDeviceType::A) => &[DeviceKind::Character, DeviceKind::Block],
        Some(LinuxDeviceType::B) => &[DeviceKind::Block],
        Some(LinuxDeviceType::C | LinuxDeviceType::U) => &[DeviceKind::Character],
        Some(other) => {
            let text = format!(".type: {:?} is no kind of device with numbers", other.as_str());
            return Err(invalid(field, text));
        }
    };
    // -1 is "every number" to runc and to those who write for it.
    let major = rule.major().filter(|number| *number != -1).map(u16::try_from).transpose();
    let minor = rule.minor().filter(|number| *number != -1).map(u32::try_from).transpose();
    let fits = major.is_ok_and(|major| major.is_none_or(|major| major < 1 << 12))
        && minor.is_ok_and(|minor| minor.is_none_or(|minor| minor < 1 << 20));
    let (Ok(major), Ok(minor), true) = (major, minor, fits) else {
        let number = |number: Option<i64>| number.unwrap_or(-1);
        let text = format!(": {}:{} is no device", number(rule.major()), number(rule.minor()));
        return Err(invalid(field, text));
    };
    let letters = rule.access().as_deref().unwrap_or("rwm");
    if letters.is_empty() || !letters.bytes().all(|letter| b"rwm".contains(&letter)) {
        return Err(invalid(
            field,
            format!(".access: {letters:?} is not of the letters r, w and m"),
        ));
    }
    let access = DeviceAccess {
        read: letters.contains('r'),
        write: letters.contains('w'),
        mknod: letters.contains('m'),
    };
    Ok((kinds, DeviceRule { kind: kinds[0], major, minor, access }))
}

/// One rule more: an exception, or the end of exceptions made before.
fn apply(fence: &mut Fence, allow: bool, one: DeviceRule, field: &str) -> Result<(), Error> {
    if allow != fence.open {
        let same = |known: &&mut DeviceRule| DeviceRule { access: one.access, ..**known } == one;
        match fence.exceptions.iter_mut().find(same) {
            Some(known) => known.access = known.access.or(one.access),
            None => fence.exceptions.push(one),
        }
        return Ok(());
    }
    for known in &mut fence.exceptions {
        if !overlap(known.major, one.major) || !overlap(known.minor, one.minor) {
            continue;
        }
        if known.kind != one.kind || !known.access.has_any(one.access) {
            continue;
        }
        let covered = covers(one.major, known.major) && covers(one.minor, known.minor);
        if !covered {
            let text = ": it takes back a part of what a rule before it says, which the kernel cannot hold";
            return Err(invalid(field, text.to_owned()));
        }
        known.access = known.access.without(one.access);
    }
    fence.exceptions.retain(|known| known.access.is_any());
    Ok(())
}

fn overlap<T: PartialEq>(one: Option<T>, other: Option<T>) -> bool {
    one.is_none() || other.is_none() || one == other
}

fn covers<T: PartialEq>(wide: Option<T>, narrow: Option<T>) -> bool {
    wide.is_none() || wide == narrow
}

impl DeviceAccess {
    fn is_any(self) -> bool {
        self.read || self.write || self.mknod
    }

    fn lacks_any(self) -> bool {
        !(self.read && self.write && self.mknod)
    }

    fn or(self, other: Self) -> Self {
        Self {
            read: self.read || other.read,
            write: self.write || other.write,
            mknod: self.mknod || other.mknod,
        }
    }

    fn without(self, other: Self) -> Self {
        Self {
            read: self.read && !other.read,
            write: self.write && !other.write,
            mknod: self.mknod && !other.mknod,
        }
    }

    fn has_any(self, other: Self) -> bool {
        self.without(other) != self
    }
}

fn invalid(field: &str, text: String) -> Error {
    Error::Invalid(format!("linux.resources.devices{field}{text}"))
}

#[cfg(any(test, fuzzing))]
pub mod tests {
    use serde_json::{Value, json};

    use super::*;

    #[test]
    fn device_rules_become_one_rule_and_exceptions() {
        let of = |rules: Value| {
            let resources = serde_json::from_value(json!({ "devices": rules }));
            fence(Some(&resources.expect("good resources")))
        };
        let lines = |fence: &Fence| -> Vec<String> {
            let number = |number: Option<u32>| number.map_or("*".to_owned(), |n| n.to_string());
            let line = |rule: &DeviceRule| {
                let kind = if rule.kind == DeviceKind::Block { 'b' } else { 'c' };
                let access =
                    [(rule.access.read, 'r'), (rule.access.write, 'w'), (rule.access.mknod, 'm')];
                let access: String =
                    access.iter().filter(|(has, _)| *has).map(|(_, letter)| letter).collect();
                format!(
                    "{kind} {}:{} {access}",
                    number(rule.major.map(u32::from)),
                    number(rule.minor)
                )
            };
            fence.exceptions.iter().map(line).collect()
        };
        let all = json!({ "allow": true, "access": "rwm" });
        let none = json!({ "allow": false, "access": "rwm" });
        let closed = of(json!([none])).expect("a fence");
        assert_eq!((closed.open, closed.exceptions.len()), (false, 8));
        assert_eq!(fence(None).expect("a fence"), closed);
        let open = of(json!([none, all])).expect("a fence");
        assert_eq!((open.open, open.exceptions.len()), (true, 0));
        let tape = |allow: bool, access: &str| {
            json!({ "allow": allow, "type": "c", "major": 9,
            "minor": 2, "access": access })
        };
        let grown = of(json!([none, tape(true, "r"), tape(true, "wm"), tape(false, "m")]));
        assert_eq!(lines(&grown.expect("a fence"))[0], "c 9:2 rw");
        let both =
            of(json!([none, { "allow": true, "major": 7, "access": "r" }])).expect("a fence");
        assert_eq!(lines(&both)[..2], ["c 7:* r", "b 7:* r"]);
        let taken = of(json!([all, tape(false, "rw"), { "allow": true, "type": "c", "major": 9,
            "access": "w" }]));
        assert_eq!(lines(&taken.expect("a fence")), ["c 9:2 r"]);
        // As Docker has it: a denial of what nothing allows, and nodes of every kind to be made.
        let node = |major: u32, minor: u32, allow: bool| {
            json!({ "allow": allow, "type": "c",
            "major": major, "minor": minor, "access": "rwm" })
        };
        let any = json!({ "allow": true, "type": "c", "access": "m" });
        let docker =
            of(json!([none, node(1, 3, true), node(5, 1, true), node(10, 229, false), any]));
        let docker = lines(&docker.expect("a fence"));
        assert_eq!(docker[..3], ["c 1:3 rwm", "c 5:1 rwm", "c *:* m"]);
        assert!(!docker.iter().any(|line| line.contains("229")));
        for (rules, said) in [
            (json!([{ "allow": true, "type": "c", "major": 4096, "access": "r" }]), "[0]: 4096:-1"),
            (json!([{ "allow": true, "type": "p", "access": "r" }]), "[0].type"),
            (json!([{ "allow": true, "type": "b", "access": "rx" }]), "[0].access"),
            (json!([{ "allow": true, "type": "b", "access": "" }]), "[0].access"),
            (json!([all, { "allow": false, "type": "c", "access": "r" }]), "a rule denies c 1:3"),
            (
                json!([none, { "allow": true, "type": "c", "major": 9, "access": "r" }, tape(false, "r")]),
                "[2]: it takes back a part",
            ),
        ] {
            let text = of(rules.clone()).expect_err("it is refused").to_string();
            assert!(text.contains(said), "{rules}: {text}");
        }
    }

    /// Numbers that look like chance and are the same in every run (Knuth's constants).
    struct Chance(u64);

    impl Chance {
        fn of<T: Clone>(&mut self, list: &[T]) -> T {
            let (factor, step) = (6_364_136_223_846_793_005, 1_442_695_040_888_963_407);
            self.0 = self.0.wrapping_mul(factor).wrapping_add(step);
            let index = (self.0 >> 33) % list.len() as u64;
            list[usize::try_from(index).expect("a short list")].clone()
        }
    }

    /// For each single access the last rule that names the device decides; lists that the kernel cannot
    /// hold are refused.
    #[test]
    fn a_fence_answers_as_the_last_rule_that_fits() {
        let mut chance = Chance(7);
        let (mut accepted, mut opened) = (0, 0);
        for _ in 0..5_000 {
            let count = chance.of(&[1, 2, 3, 5, 8]);
            let rules: Vec<LinuxDeviceCgroup> = (0..count)
                .map(|_| {
                    let rule = json!({
                        "allow": chance.of(&[true, false]),
                        "type": chance.of(&["a", "c", "c", "c", "b"]),
                        "major": chance.of(&[json!(null), json!(1), json!(10), json!(-1)]),
                        "minor": chance.of(&[json!(null), json!(3), json!(200), json!(201)]),
                        "access": chance.of(&["rwm", "rwm", "r", "w", "m", "rw"]),
                    });
                    serde_json::from_value(rule).expect("a good rule")
                })
                .collect();
            let mut resources = LinuxResources::default();
            resources.set_devices(Some(rules.clone()));
            let Ok(fence) = fence(Some(&resources)) else { continue };
            accepted += 1;
            opened += u32::from(fence.open);
            agree(&rules, &fence);
        }
        assert!(accepted > 500 && opened > 20, "only {accepted} lists, {opened} open");
    }

    /// Each single access to each device is answered as the last rule that names it has it.
    pub fn agree(rules: &[LinuxDeviceCgroup], fence: &Fence) {
        for (kind, major, minor, letter) in every_access(rules) {
            let fits = |rule: &&LinuxDeviceCgroup| {
                let (kinds, one) = read(rule, "").expect("a good rule");
                kinds.contains(&kind)
                    && one.major.is_none_or(|number| number == major)
                    && one.minor.is_none_or(|number| number == minor)
                    && has(one.access, letter)
            };
            let always = CONTAINER_DEVICES.iter().any(|rule| {
                rule.kind == kind
                    && covers(rule.major, Some(major))
                    && covers(rule.minor, Some(minor))
                    && has(rule.access, letter)
            });
            let last = rules.iter().rev().find(fits).is_some_and(LinuxDeviceCgroup::allow);
            let named = fence.exceptions.iter().any(|rule| {
                has(rule.access, letter)
                    && rule.kind == kind
                    && covers(rule.major, Some(major))
                    && covers(rule.minor, Some(minor))
            });
            let asked = format!("{letter} of {kind:?} {major}:{minor} by {rules:?}");
            assert_eq!(named != fence.open, last || always, "{asked}: {fence:?}");
        }
    }

    fn has(access: DeviceAccess, letter: char) -> bool {
        match letter {
            'r' => access.read,
            'w' => access.write,
            _ => access.mknod,
        }
    }

    /// Of devices that the rules name, and of some beside them.
    fn every_access(rules: &[LinuxDeviceCgroup]) -> Vec<(DeviceKind, u16, u32, char)> {
        let beside = [(1, 3), (1, 200), (10, 3), (10, 200), (10, 201), (99, 9)];
        let named = rules.iter().take(8).map(|rule| {
            let (_, one) = read(rule, "").expect("a good rule");
            (one.major.unwrap_or(98), one.minor.unwrap_or(8))
        });
        let numbers = beside.into_iter().chain(named);
        let kinds = numbers.flat_map(|numbers| {
            [DeviceKind::Character, DeviceKind::Block].map(|kind| (kind, numbers))
        });
        kinds
            .flat_map(|(kind, (major, minor))| {
                ['r', 'w', 'm'].map(|letter| (kind, major, minor, letter))
            })
            .collect()
    }
}
