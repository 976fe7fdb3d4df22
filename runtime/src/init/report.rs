//! What a child says to its parent: where in its life it is, and what failed there.

/// Where in its life a child was; [`crate::launch`] has the words for people.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[repr(u16)]
pub enum Stage {
    /// Not a failure: everything is built.
    Ready,
    Wait,
    Session,
    BecomeRoot,
    Join,
    CgroupNamespace,
    Keyring,
    Propagation,
    Root,
    Overlay,
    Mount,
    Sysctl,
    ReadOnlyPath,
    Mask,
    ReadOnlyRoot,
    Pivot,
    Hostname,
    Domainname,
    Loopback,
    UnknownUser,
    UnknownGroup,
    Passwd,
    Group,
    Home,
    Stdio,
    Terminal,
    Console,
    Descriptors,
    Cwd,
    CwdOutside,
    Bounding,
    Groups,
    GroupId,
    UserId,
    Capabilities,
    Ambient,
    NoNewPrivileges,
    AppArmor,
    Program,
    Seccomp,
    Execute,
    /// Not a failure: the mounts are made, and the root is entered when the parent says so.
    Held,
    /// A hook could not be run.
    Hook,
    /// A hook has failed; in place of an error number its exit status, or minus the signal that ended it.
    HookFailed,
    HookSlow,
    Personality,
    MemoryPolicy,
    /// Not a failure: a filter is about to be loaded, whose listener will be the descriptor `index`.
    Listener,
    /// The v1 cgroups.
    Cgroups,
}

/// All stages, by number.
const STAGES: [Stage; 49] = [
    Stage::Ready,
    Stage::Wait,
    Stage::Session,
    Stage::BecomeRoot,
    Stage::Join,
    Stage::CgroupNamespace,
    Stage::Keyring,
    Stage::Propagation,
    Stage::Root,
    Stage::Overlay,
    Stage::Mount,
    Stage::Sysctl,
    Stage::ReadOnlyPath,
    Stage::Mask,
    Stage::ReadOnlyRoot,
    Stage::Pivot,
    Stage::Hostname,
    Stage::Domainname,
    Stage::Loopback,
    Stage::UnknownUser,
    Stage::UnknownGroup,
    Stage::Passwd,
    Stage::Group,
    Stage::Home,
    Stage::Stdio,
    Stage::Terminal,
    Stage::Console,
    Stage::Descriptors,
    Stage::Cwd,
    Stage::CwdOutside,
    Stage::Bounding,
    Stage::Groups,
    Stage::GroupId,
    Stage::UserId,
    Stage::Capabilities,
    Stage::Ambient,
    Stage::NoNewPrivileges,
    Stage::AppArmor,
    Stage::Program,
    Stage::Seccomp,
    Stage::Execute,
    Stage::Held,
    Stage::Hook,
    Stage::HookFailed,
    Stage::HookSlow,
    Stage::Personality,
    Stage::MemoryPolicy,
    Stage::Listener,
    Stage::Cgroups,
];

/// What a child says: where it is, which item of that stage's list, and what the kernel answered.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Report {
    /// Where.
    pub stage: Stage,
    /// Which item, 0 where there is no list.
    pub index: u16,
    /// The error.
    pub errno: i32,
}

/// Bytes of a [`Report`] on the socket: stage, index, errno.
pub const REPORT_BYTES: usize = 8;

impl Report {
    pub(super) fn to_bytes(self) -> [u8; REPORT_BYTES] {
        let mut bytes = [0; REPORT_BYTES];
        bytes[..2].copy_from_slice(&(self.stage as u16).to_ne_bytes());
        bytes[2..4].copy_from_slice(&self.index.to_ne_bytes());
        bytes[4..].copy_from_slice(&self.errno.to_ne_bytes());
        bytes
    }

    /// The report that these bytes are, if they are one.
    pub fn from_bytes(bytes: &[u8]) -> Option<Self> {
        let bytes: [u8; REPORT_BYTES] = bytes.try_into().ok()?;
        let number = u16::from_ne_bytes([bytes[0], bytes[1]]);
        Some(Self {
            stage: *STAGES.get(usize::from(number))?,
            index: u16::from_ne_bytes([bytes[2], bytes[3]]),
            errno: i32::from_ne_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
        })
    }
}

/// Says at which stage a call failed.
pub trait At<T> {
    /// At a stage without a list.
    fn at(self, stage: Stage) -> Result<T, Report>;
    /// At one item of a stage's list.
    fn at_index(self, stage: Stage, index: usize) -> Result<T, Report>;
}

impl<T> At<T> for nix::Result<T> {
    fn at(self, stage: Stage) -> Result<T, Report> {
        self.at_index(stage, 0)
    }

    fn at_index(self, stage: Stage, index: usize) -> Result<T, Report> {
        let index = u16::try_from(index).unwrap_or(u16::MAX);
        self.map_err(|errno| Report { stage, index, errno: errno as i32 })
    }
}
