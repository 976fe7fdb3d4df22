//! Codes about signing in, roles, people, tokens, set-up and signing keys.

use super::{Known, known};

pub(super) const KNOWN: &[Known] = &[
    known(
        "unauthenticated",
        401,
        "Sign in first",
        "No session or token came, or it has ended, was revoked, or its person was disabled.",
        "Sign in again, or make a new token under Account.",
    ),
    known(
        "session.refused",
        403,
        "Name or password is wrong",
        "There is no such person with this password. Which of the two is wrong is told to nobody.",
        "Try again with care. An operator can make a one-time link that sets a new password.",
    ),
    known(
        "session.second-factor",
        403,
        "A code of the second factor is needed",
        "The password is right, and its owner has a second factor: no code came, or it was wrong, over, or used \
         before. Each code is good once.",
        "Send the six digits that the program on your phone shows now, or a recovery code, as `code`. Whoever \
         has lost both asks an operator to take the second factor away.",
    ),
    known(
        "session.second-factor-due",
        403,
        "Set up a second factor first",
        "This machine wants a second factor of you (`auth.second_factor`), and you have none.",
        "Set it up under Account, or by `POST /api/v1/me/second-factor`.",
    ),
    known(
        "second-factor.on",
        409,
        "You have a second factor",
        "There is one at a time.",
        "Remove it first, with a code of it.",
    ),
    known(
        "second-factor.not-begun",
        409,
        "No second factor was begun",
        "A code was sent to turn a second factor on, and none waits for that.",
        "Begin anew under Account.",
    ),
    known(
        "second-factor.required",
        403,
        "The second factor cannot be removed",
        "This machine wants one of you (`auth.second_factor`).",
        "For a new phone, have an operator take it away, and set up another.",
    ),
    known(
        "second-factor.lost",
        409,
        "The second factor can no longer be read",
        "The server’s key is another than the one that had sealed it, as after a backup of another machine.",
        "Sign in with a recovery code, or have an operator take it away.",
    ),
    known(
        "too-many-attempts",
        429,
        "Too many failed attempts",
        "Wrong passwords were tried for this name or from this address. Each further one waits longer, up \
         to five minutes.",
        "Wait for as long as is said. From a browser that has signed in before, the attempts of others do \
         not count.",
    ),
    known(
        "sign-in.busy",
        503,
        "Too many people are signing in",
        "Passwords are checked one at a time, and the queue is full.",
        "Try again in a moment.",
    ),
    known(
        "session.none",
        409,
        "Signed in with neither session nor token",
        "To sign out is to end the session or token that asks, and the root socket has neither.",
        "Sign in with name and password, or use a token.",
    ),
    known(
        "role.denied",
        403,
        "Your role does not allow this",
        "Users make and change what is theirs, auditors look, operators run the machine; a few things are \
         for the machine’s root alone.",
        "Ask an operator to do it, or to give you the role.",
    ),
    known(
        "token.scope",
        403,
        "The token’s scope is too small",
        "A token carries a part of your rights: `read` looks, `operate` also makes and changes, `manage` \
         also handles tokens, sessions and credentials. A token cannot make one with a larger scope.",
        "Make a token with the scope that is named, under Account.",
    ),
    known(
        "content.owner-only",
        403,
        "Only its owner may read this",
        "Logs, environment, command and files of a container are its owner’s, not an operator’s and not \
         an auditor’s.",
        "Ask the owner.",
    ),
    known(
        "person.none",
        403,
        "The root socket has no account",
        "The request came on the root socket, which acts as the system and owns no tokens, sessions or \
         credentials.",
        "Sign in as a person.",
    ),
    known(
        "person.name-taken",
        409,
        "There is a person of this name",
        "Names of people are unique on a machine.",
        "Choose another name.",
    ),
    known(
        "person.local-user-taken",
        409,
        "Another person is this user of the host",
        "A user of this host is one person here, so that it is clear whose containers they see.",
        "Take the user from the other person first.",
    ),
    known(
        "local.no-account",
        403,
        "You have no account here",
        "This user of the host is nobody here.",
        "Ask an operator to name your user on your page, or sign in: berth login.",
    ),
    known(
        "person.disabled",
        409,
        "The person is disabled",
        "A disabled person cannot be sent a link.",
        "Enable the person first.",
    ),
    known(
        "person.last-operator",
        409,
        "The last operator",
        "It would leave nobody who can operate the machine.",
        "Make another person an operator first.",
    ),
    known(
        "group.name-taken",
        409,
        "There is a group of this name",
        "Names of groups are unique on a machine.",
        "Choose another name.",
    ),
    known(
        "group.not-empty",
        409,
        "People count to this group",
        "A group can be removed when nobody’s resources count to it.",
        "Give them another group first.",
    ),
    known(
        "group.default",
        409,
        "People begin in this group",
        "Whoever is added counts to it until an operator gives them another.",
        "Rename it instead.",
    ),
    known(
        "group.too-many",
        507,
        "Too many groups have an allowance",
        "The supervisor keeps a bounded number of them.",
        "Take the bounds of groups that are not used any more away.",
    ),
    known(
        "token.name-taken",
        409,
        "You have a token of this name",
        "Names of your tokens are unique, so that you know which one to revoke.",
        "Choose another name, or revoke the old token.",
    ),
    known(
        "token.too-many",
        507,
        "Too many tokens",
        "You have as many tokens as one person may.",
        "Revoke those that are not used any more, under Account.",
    ),
    known(
        "setup.done",
        409,
        "The machine is set up already",
        "The setup secret works once, for the first operator.",
        "Sign in. Another account is made by an operator, under People.",
    ),
    known(
        "setup.wrong-secret",
        403,
        "Not the setup secret",
        "The secret is another one than the installer printed, or a newer one has been made.",
        "Copy it from `/etc/berth/setup-secret`, which root can read.",
    ),
    known(
        "key.signs",
        409,
        "The key is in use",
        "It is the key that signs new sessions and tokens.",
        "Rotate first (`berth keys rotate`), then retire the old key.",
    ),
    known(
        "key.too-many",
        507,
        "Too many signing keys",
        "Old keys verify what they have signed until that ends, and as many are kept as can be.",
        "Retire an old one: `berth keys list`, then `berth keys retire ID`.",
    ),
];
