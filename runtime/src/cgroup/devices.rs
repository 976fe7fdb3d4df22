//! Which device nodes a container may open: a list of exceptions from a rule for all, which is to deny
//! wherever a configuration does not say otherwise.
//!
//! v1 has a controller for it; on v2 it is a fixed eBPF program of type `cgroup_device`, assembled
//! here, one comparison after the other, without maps or helpers (bpf(2)). Both give the same
//! answers, which the tests compare. Nodes that exist in a container come by bind mount from the
//! host and its root is mounted `nodev`; this is the second fence.

use std::os::fd::AsFd;

use super::{Cgroup, Controller, Error, Hierarchy, files};
use crate::sys::bpf::{self, Instruction};

/// What kind of node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum DeviceKind {
    /// A character device.
    Character,
    /// A block device.
    Block,
}

/// What may be done with it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceAccess {
    /// Open for reading.
    pub read: bool,
    /// Open for writing.
    pub write: bool,
    /// Make a node of it.
    pub mknod: bool,
}

/// One exception; a number left out stands for every number.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct DeviceRule {
    /// The kind.
    pub kind: DeviceKind,
    /// The major number.
    pub major: Option<u16>,
    /// The minor number.
    pub minor: Option<u32>,
    /// What is allowed, or denied.
    pub access: DeviceAccess,
}

impl DeviceRule {
    /// A character device that may be read and written.
    const fn character(major: u16, minor: Option<u32>) -> Self {
        let access = DeviceAccess { read: true, write: true, mknod: false };
        Self { kind: DeviceKind::Character, major: Some(major), minor, access }
    }
}

/// A rule for every device, and the exceptions from it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Fence {
    /// Whether what no exception names is allowed.
    pub open: bool,
    /// What is allowed in a closed fence, or denied in an open one. An access is an exception in a closed
    /// fence when one of them has all of it, in an open one when one has any of it, as v1 has it.
    pub exceptions: Vec<DeviceRule>,
}

/// The devices of every container: null, zero, full, random, urandom, tty, ptmx and all of devpts.
pub const CONTAINER_DEVICES: [DeviceRule; 8] = [
    DeviceRule::character(1, Some(3)),
    DeviceRule::character(1, Some(5)),
    DeviceRule::character(1, Some(7)),
    DeviceRule::character(1, Some(8)),
    DeviceRule::character(1, Some(9)),
    DeviceRule::character(5, Some(0)),
    DeviceRule::character(5, Some(2)),
    DeviceRule::character(136, None),
];

/// mknod, read and write, as the kernel numbers them.
const ALL_ACCESS: i32 = 7;

impl Cgroup {
    /// Denies every device but those of `allowed`. For a new cgroup, before a process is in it.
    pub fn restrict_devices(&self, allowed: &[DeviceRule]) -> Result<(), Error> {
        self.fence_devices(&Fence { open: false, exceptions: allowed.to_vec() })
    }

    /// Sets up a fence. For a new cgroup, before a process is in it.
    pub fn fence_devices(&self, fence: &Fence) -> Result<(), Error> {
        match &self.hierarchy {
            Hierarchy::V2 { root } => {
                let path = self.below(root);
                let directory = files::open_directory(&path)?;
                let failed = |step| {
                    let path = path.clone();
                    move |errno: nix::errno::Errno| Error::DeviceProgram {
                        path,
                        step,
                        source: errno.into(),
                    }
                };
                let program = bpf::load_device_program(&program(fence)).map_err(failed("load"))?;
                bpf::attach_device_program(directory.as_fd(), program.as_fd())
                    .map_err(failed("attach"))
            }
            Hierarchy::V1 { .. } => {
                let missing = || Error::Layout("the devices controller is not mounted".to_owned());
                let directory = self.directory(Controller::Devices).ok_or_else(missing)?;
                let (deny, allow) =
                    (directory.join("devices.deny"), directory.join("devices.allow"));
                let (all, exception) = if fence.open { (allow, deny) } else { (deny, allow) };
                files::write(&all, "a")?;
                fence
                    .exceptions
                    .iter()
                    .try_for_each(|rule| files::write(&exception, &v1_line(rule)))
            }
        }
    }
}

/// A rule as v1 writes it, such as `c 136:* rw`.
fn v1_line(rule: &DeviceRule) -> String {
    let kind = match rule.kind {
        DeviceKind::Character => 'c',
        DeviceKind::Block => 'b',
    };
    let number = |number: Option<u32>| number.map_or_else(|| "*".to_owned(), |n| n.to_string());
    let (major, minor) = (number(rule.major.map(u32::from)), number(rule.minor));
    let mut line = format!("{kind} {major}:{minor} ");
    let DeviceAccess { read, write, mknod } = rule.access;
    for (letter, allowed) in [('r', read), ('w', write), ('m', mknod)] {
        if allowed {
            line.push(letter);
        }
    }
    line
}

/// The program: the exception's answer (1 allows, 0 denies) as soon as one of them matches, and the
/// fence's own at the end.
///
/// Its context is `struct bpf_cgroup_dev_ctx {u32 access_type, major, minor}`, with the kind of node
/// in the lower half of `access_type` (1 block, 2 character) and the access in the upper (1 mknod,
/// 2 read, 4 write).
fn program(fence: &Fence) -> Vec<Instruction> {
    use bpf::{R0, R1, R2, R3, R4, R5};
    let mut code = vec![
        Instruction::load_word(R2, R1, 0),
        Instruction::load_word(R4, R1, 4),
        Instruction::load_word(R5, R1, 8),
        Instruction::copy(R3, R2),
        Instruction::and(R3, 0xffff),
        Instruction::shift_right(R2, 16),
    ];
    for rule in &fence.exceptions {
        let kind = match rule.kind {
            DeviceKind::Block => 1,
            DeviceKind::Character => 2,
        };
        let DeviceAccess { read, write, mknod } = rule.access;
        let named = i32::from(mknod) | i32::from(read) << 1 | i32::from(write) << 2;
        let mut tests = vec![(R3, kind)];
        // Numbers are below 2^31 in the kernel (12 and 20 bits), so a comparison with an immediate
        // value, which is signed, is exact.
        tests.extend(rule.major.map(|major| (R4, i32::from(major))));
        tests.extend(rule.minor.map(|minor| (R5, i32::try_from(minor).unwrap_or(i32::MAX))));
        // What follows the tests: three for the access, two for the answer.
        let mut left = i16::try_from(tests.len()).expect("at most three tests") + 5;
        for (register, value) in tests {
            left -= 1;
            code.push(Instruction::jump_unless_equal(register, value, left));
        }
        code.push(Instruction::copy(R1, R2));
        if fence.open {
            code.extend([Instruction::and(R1, named), Instruction::jump_if_equal(R1, 0, 2)]);
        } else {
            let others = named ^ ALL_ACCESS;
            code.extend([Instruction::and(R1, others), Instruction::jump_unless_equal(R1, 0, 2)]);
        }
        code.extend([Instruction::set(R0, i32::from(!fence.open)), Instruction::exit()]);
    }
    code.extend([Instruction::set(R0, i32::from(fence.open)), Instruction::exit()]);
    code
}
