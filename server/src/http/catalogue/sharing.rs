//! Codes about what is shared with whom.

use super::{Known, known};

pub(super) const KNOWN: &[Known] = &[
    known(
        "sharing.not-granted",
        403,
        "This was not shared with you",
        "You see the object, because it was shared with you or because you oversee the machine; what you wanted to do \
         with it takes a right that you do not have. Content (logs, environment, terminals) is its owner’s to share, \
         with operators and auditors too; to rename, remove and share it stays the owner’s.",
        "Ask its owner. An operator who has to see content looks into it with a reason, which the owner is told.",
    ),
    known(
        "look.own",
        409,
        "It is yours",
        "An operator looks into what is somebody else’s; one’s own one reads without that.",
        "Open its log, environment or files.",
    ),
    known(
        "sharing.ended",
        403,
        "The right has ended",
        "While the program ran, its container was shared with you no more, or you were signed out.",
        "Sign in again, or ask the container’s owner.",
    ),
    known(
        "sharing.too-many",
        507,
        "It is shared with as many as can be",
        "One object can be shared with a bounded number of people and groups.",
        "Share it with a group that all of them are in, or end shares that are not needed any more.",
    ),
];
