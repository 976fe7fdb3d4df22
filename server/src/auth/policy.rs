//! Who may do what with which object: the one place that decides it.
//!
//! [`rights`] is a plain function of who asks, whose the object is, and what was shared with whoever asks.
//! Queries find what somebody has any right to see (their own, what was shared with them, everything for those who
//! oversee), with what was shared in the row; services ask for one right of it by [`Rights::need`]. So what one
//! may not see is not there, and what one sees and may not do is refused.
//!
//! - An owner may do everything that there is for an object of its kind ([`Kind`]).
//! - What is shared of a container gives the state, and of the log, terminals, files and management as much as was said. It gives
//!   neither removal nor names nor further sharing: who has an object stays its owner's to say, and whether a name is
//!   free would tell of the owner's other objects. What is shared of a volume gives its files to be read, and to be
//!   written to as well where that was said.
//!   What is shared of an image lets all of it be read, and be kept as an image of one's own. The system's images are
//!   shared with everybody in that way.
//! - Operators see everybody's state, end and remove everything, and see and take away what was shared; they read no
//!   content and give nothing of what is not theirs, to themselves neither. One who looks into it with a reason, of
//!   which its owner is told, has for an hour what a share of log and files would give (`service/looks.rs`).
//! - Auditors look. What was shared with one lets them read; neither that nor owning lets them act.

use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use super::caller::{Caller, Role};
use crate::error::{Error, Result};

/// What can be allowed of an object.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(rename_all = "snake_case")]
pub enum Right {
    /// See that it is there, what it does and what it uses.
    State,
    /// Read what it has written to its output.
    Logs,
    /// Run programs in it, and be with its own.
    Terminal,
    /// See its environment, its command and the command lines in it; of a volume, read the files in it; of an image,
    /// read all of it, launch from it and keep it.
    Files,
    /// Change the files of a volume.
    Write,
    /// Start and stop it, change limits and restart policy.
    Manage,
    /// Rename and remove it.
    Remove,
    /// See with whom it is shared.
    SeeShares,
    /// Share it.
    Share,
    /// End what was shared.
    Unshare,
}

/// All of them, in the order in which they are told.
const ALL: [Right; 10] = [
    Right::State,
    Right::Logs,
    Right::Terminal,
    Right::Files,
    Right::Write,
    Right::Manage,
    Right::Remove,
    Right::SeeShares,
    Right::Share,
    Right::Unshare,
];

/// What rights are about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A container.
    Container,
    /// A volume.
    Volume,
    /// An image.
    Image,
}

impl Kind {
    /// All that can be shared.
    pub const SHARED: [Self; 3] = [Self::Container, Self::Volume, Self::Image];
}

/// What was shared of an object with somebody, all that they have of it together. Its state always is.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Deserialize)]
#[serde(default)]
pub struct Granted {
    /// [`Right::Logs`].
    pub logs: bool,
    /// [`Right::Terminal`].
    pub terminal: bool,
    /// [`Right::Files`].
    pub files: bool,
    /// [`Right::Manage`].
    pub manage: bool,
    /// [`Right::Write`].
    pub write: bool,
}

/// A set of rights.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Rights(u16);

/// What somebody may do with an object of `owner`, of which `granted` was shared with them.
pub fn rights(
    (who, role): (PrincipalId, Role),
    (kind, owner): (Kind, PrincipalId),
    granted: Option<Granted>,
) -> Rights {
    let by_role: &[Right] = match role {
        Role::Operator | Role::System => {
            &[Right::State, Right::Manage, Right::Remove, Right::SeeShares, Right::Unshare]
        }
        Role::Auditor => &[Right::State, Right::SeeShares],
        Role::User => &[],
    };
    let by_owning = if who == owner { &ALL[..] } else { &[] };
    let granted = match (kind, owner) {
        (Kind::Image, PrincipalId::SYSTEM) => Some(Granted { files: true, ..Granted::default() }),
        _ => granted,
    };
    let by_grant = granted.map(Rights::from).unwrap_or_default();
    let all = Rights::of(by_role).and(Rights::of(by_owning)).and(by_grant).only(kind.rights());
    match role {
        // Routes that change things refuse auditors outright; this is the second lock.
        Role::Auditor => all.only(&[Right::State, Right::Logs, Right::Files, Right::SeeShares]),
        Role::Operator | Role::System | Role::User => all,
    }
}

impl Caller {
    /// What the caller may do with an object of `owner`, of which `granted` was shared with them.
    pub fn rights(&self, object: (Kind, PrincipalId), granted: Option<Granted>) -> Rights {
        rights((self.principal, self.role), object, granted)
    }
}

impl Kind {
    /// The word in grants, events and the audit.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Container => "container",
            Self::Volume => "volume",
            Self::Image => "image",
        }
    }

    /// What there is to be allowed.
    fn rights(self) -> &'static [Right] {
        const OF_CONTAINERS: [Right; 9] = [
            Right::State,
            Right::Logs,
            Right::Terminal,
            Right::Files,
            Right::Manage,
            Right::Remove,
            Right::SeeShares,
            Right::Share,
            Right::Unshare,
        ];
        const OF_VOLUMES: [Right; 7] = [
            Right::State,
            Right::Files,
            Right::Write,
            Right::Remove,
            Right::SeeShares,
            Right::Share,
            Right::Unshare,
        ];
        const OF_IMAGES: [Right; 6] = [
            Right::State,
            Right::Files,
            Right::Remove,
            Right::SeeShares,
            Right::Share,
            Right::Unshare,
        ];
        match self {
            Self::Container => &OF_CONTAINERS,
            Self::Volume => &OF_VOLUMES,
            Self::Image => &OF_IMAGES,
        }
    }
}

impl Rights {
    fn of(all: &[Right]) -> Self {
        Self(all.iter().fold(0, |set, right| set | 1 << (*right as u16)))
    }

    fn and(self, other: Self) -> Self {
        Self(self.0 | other.0)
    }

    fn only(self, those: &[Right]) -> Self {
        Self(self.0 & Self::of(those).0)
    }

    /// Whether it is among them.
    pub fn has(self, right: Right) -> bool {
        self.0 & 1 << (right as u16) != 0
    }

    /// All that are among them.
    pub fn list(self) -> Vec<Right> {
        ALL.into_iter().filter(|right| self.has(*right)).collect()
    }

    /// Whether it is among them.
    ///
    /// # Errors
    /// It is not: what was to be done is refused.
    pub fn need(self, right: Right) -> Result<()> {
        if self.has(right) {
            return Ok(());
        }
        let text = match right {
            Right::State => "see it",
            Right::Logs => "read its log",
            Right::Terminal => "run programs in it",
            Right::Files => "see its environment, command and files",
            Right::Write => "change what is in it",
            Right::Manage => "start, stop or change it",
            Right::Remove => "rename or remove it",
            Right::SeeShares => "see with whom it is shared",
            Right::Share => "share it: only its owner does",
            Right::Unshare => "end what was shared",
        };
        Err(Error::denied("sharing.not-granted", format!("you may not {text}")))
    }
}

impl From<Granted> for Rights {
    fn from(granted: Granted) -> Self {
        let Granted { logs, terminal, files, manage, write } = granted;
        let given = [
            (true, Right::State),
            (logs, Right::Logs),
            (terminal, Right::Terminal),
            (files, Right::Files),
            (manage, Right::Manage),
            (write, Right::Write),
        ];
        let given: Vec<_> = given.iter().filter(|(given, _)| *given).map(|(_, r)| *r).collect();
        Self::of(&given)
    }
}

impl Right {
    /// The word in JSON.
    pub fn as_str(self) -> &'static str {
        match self {
            Self::State => "state",
            Self::Logs => "logs",
            Self::Terminal => "terminal",
            Self::Files => "files",
            Self::Write => "write",
            Self::Manage => "manage",
            Self::Remove => "remove",
            Self::SeeShares => "see_shares",
            Self::Share => "share",
            Self::Unshare => "unshare",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ROLES: [Role; 4] = [Role::Operator, Role::System, Role::Auditor, Role::User];
    const KINDS: [Kind; 3] = Kind::SHARED;

    fn every_grant() -> Vec<Option<Granted>> {
        let bit = |number: u8, at: u8| number >> at & 1 == 1;
        let grant = |number| Granted {
            logs: bit(number, 0),
            terminal: bit(number, 1),
            files: bit(number, 2),
            manage: bit(number, 3),
            write: bit(number, 4),
        };
        (0..32).map(grant).map(Some).chain([None]).collect()
    }

    /// Every case there is, against sentences that each say one thing.
    #[test]
    fn each_right_is_given_by_what_the_head_of_this_file_says_and_by_nothing_else() {
        let (me, other) = (PrincipalId(5000), PrincipalId(6000));
        for (role, kind) in ROLES.into_iter().flat_map(|role| KINDS.map(|kind| (role, kind))) {
            for owner in [me, other] {
                for granted in every_grant() {
                    let rights = rights((me, role), (kind, owner), granted);
                    let runs = kind == Kind::Container;
                    let own = owner == me;
                    let oversees = role != Role::User;
                    let operates = matches!(role, Role::Operator | Role::System);
                    let acts = role != Role::Auditor;
                    let given = granted.unwrap_or_default();
                    let expected = [
                        (Right::State, own || oversees || granted.is_some()),
                        (Right::Logs, runs && (own || given.logs)),
                        (Right::Files, own || given.files),
                        (Right::Write, kind == Kind::Volume && acts && (own || given.write)),
                        (Right::Terminal, runs && acts && (own || given.terminal)),
                        (Right::Manage, runs && acts && (own || operates || given.manage)),
                        (Right::Remove, acts && (own || operates)),
                        (Right::SeeShares, own || oversees),
                        (Right::Share, acts && own),
                        (Right::Unshare, acts && (own || operates)),
                    ];
                    for (right, has) in expected {
                        let case = format!("{role:?} {kind:?} {own} {granted:?} {right:?}");
                        assert_eq!(rights.has(right), has, "{case}");
                        assert_eq!(rights.need(right).is_ok(), has, "{case}");
                        assert_eq!(rights.list().contains(&right), has, "{case}");
                    }
                }
            }
        }
    }

    #[test]
    fn the_systems_images_are_everybodys_to_use_and_nobodys_to_change() {
        for role in [Role::Operator, Role::Auditor, Role::User] {
            let rights =
                rights((PrincipalId(5000), role), (Kind::Image, PrincipalId::SYSTEM), None);
            assert!(rights.has(Right::State) && rights.has(Right::Files), "{role:?}");
            assert!(!rights.has(Right::Share), "{role:?}");
            assert_eq!(rights.has(Right::Remove), role == Role::Operator, "{role:?}");
        }
    }

    #[test]
    fn nothing_else_than_state_comes_by_itself() {
        for kind in KINDS {
            let theirs = (kind, PrincipalId(6000));
            let nobody = rights((PrincipalId(5000), Role::User), theirs, None);
            assert_eq!(nobody, Rights::default());
            let seen = rights((PrincipalId(5000), Role::User), theirs, Some(Granted::default()));
            assert_eq!(seen.list(), [Right::State]);
        }
    }

    #[test]
    fn words_are_those_of_json() {
        for right in ALL {
            let json = serde_json::to_value(right).expect("a word");
            assert_eq!(json, right.as_str());
        }
    }
}
