//! The pages before sign-in (setup, sign-in, invitation) and the page for what went wrong.

use askama::Template;

use crate::parts::Field;
use crate::shell::Shell;

/// The first run: makes the first operator.
#[derive(Debug, Clone, Template)]
#[template(path = "entry/setup.html")]
pub struct SetupPage {
    /// The frame.
    pub shell: Shell,
    /// What is wrong beyond single fields; may be empty.
    pub error: String,
    /// The setup secret.
    pub secret: Field,
    /// The operator's name.
    pub name: Field,
    /// What is wrong with the password; may be empty.
    pub password_error: String,
}

/// Signing in.
#[derive(Debug, Clone, Template)]
#[template(path = "entry/sign_in.html")]
pub struct SignInPage {
    /// The frame.
    pub shell: Shell,
    /// Why it was refused; may be empty.
    pub error: String,
    /// The name as typed.
    pub name: String,
    /// Where to go afterwards, a path of this server.
    pub next: String,
    /// Whether a code of the second factor is asked for, too.
    pub asks_code: bool,
}

/// Setting the password that an invitation asks for.
#[derive(Debug, Clone, Template)]
#[template(path = "entry/invitation.html")]
pub struct InvitationPage {
    /// The frame.
    pub shell: Shell,
    /// Whom it is for; empty when that is not told before it is used.
    pub name: String,
    /// The secret of the link.
    pub token: String,
    /// Why it was refused; may be empty.
    pub error: String,
    /// Whether a code of the second factor is asked for, too.
    pub asks_code: bool,
}

/// Something went wrong.
#[derive(Debug, Clone, Template)]
#[template(path = "entry/problem.html")]
pub struct ProblemPage {
    /// The frame.
    pub shell: Shell,
    /// The HTTP status.
    pub status: u16,
    /// The API's code of it, for programs that read pages.
    pub code: String,
    /// What happened, in a few words.
    pub what: String,
    /// What happened, in a sentence.
    pub detail: String,
    /// What to do about it.
    pub advice: String,
    /// Where the same is asked again; empty where that would not help.
    pub again: String,
    /// The request's id, which the log bears too.
    pub request_id: String,
}

/// The same for somebody who has signed in: the way to everything else stays.
#[derive(Debug, Clone, Template)]
#[template(path = "problem.html")]
pub struct ProblemInFrame {
    /// The frame.
    pub shell: Shell,
    /// What went wrong.
    pub problem: ProblemPage,
}
