//! One's own account: tokens, logins for registries, sessions, password, colours.

use askama::Template;

use crate::format::Moment;
use crate::parts::{Badge, Field};
use crate::shell::Shell;

/// One's own account.
#[derive(Debug, Clone, Template)]
#[template(path = "account.html")]
pub struct AccountPage {
    /// The frame.
    pub shell: Shell,
    /// When the account ends by itself.
    pub ends: Option<Moment>,
    /// What is wrong with a new password.
    pub password_error: String,
    /// What is wrong with a new token.
    pub token_error: String,
    /// The new token's name, as typed.
    pub token_name: Field,
    /// A token made just now; it is shown this once.
    pub fresh_token: Option<String>,
    /// The personal tokens.
    pub tokens: Vec<TokenRow>,
    /// Logins for registries; none for those who may not pull.
    pub logins: Option<Logins>,
    /// Where the viewer is signed in.
    pub sessions: Vec<SessionRow>,
    /// The second factor.
    pub factor: FactorPart,
}

/// The viewer's second factor.
#[derive(Debug, Clone, Default)]
pub struct FactorPart {
    /// Since when a code is asked for; none while there is no factor.
    pub since: Option<Moment>,
    /// Recovery codes that were not used yet.
    pub codes_left: u32,
    /// Whether the machine wants it of the viewer.
    pub required: bool,
    /// What is wrong; may be empty.
    pub error: String,
    /// What was begun just now.
    pub begun: Option<FactorBegun>,
    /// Recovery codes made just now; they are shown this once.
    pub fresh_codes: Vec<String>,
}

/// A factor that is to be confirmed.
#[derive(Debug, Clone)]
pub struct FactorBegun {
    /// The secret in groups, for typing.
    pub secret: String,
    /// Modules along each side of its picture.
    pub side: i32,
    /// The picture's dark modules, as an SVG path.
    pub path: String,
}

/// A personal token.
#[derive(Debug, Clone)]
pub struct TokenRow {
    /// Its name.
    pub name: String,
    /// What it may do.
    pub scopes: String,
    /// When it ends.
    pub expires: Option<Moment>,
    /// When it was last used.
    pub used: Option<Moment>,
    /// Where it is revoked.
    pub revoke: String,
}

/// What one signs in to registries with.
#[derive(Debug, Clone, Default)]
pub struct Logins {
    /// The logins that are kept.
    pub rows: Vec<LoginRow>,
    /// What is wrong beyond single fields; may be empty.
    pub error: String,
    /// The registry, as typed.
    pub registry: Field,
    /// The name there, as typed.
    pub username: Field,
    /// What is wrong with the password; what was typed is not sent back.
    pub password_error: String,
    /// Whether the form replaces what is kept.
    pub replaces: bool,
}

/// A login for a registry.
#[derive(Debug, Clone)]
pub struct LoginRow {
    /// The registry.
    pub registry: String,
    /// The name there.
    pub username: String,
    /// Since when.
    pub since: Moment,
    /// Whether it is of use.
    pub state: Badge,
    /// Where the form is filled with it.
    pub replace: String,
    /// Where it is asked whether to forget it.
    pub remove: String,
}

/// A place where the viewer is signed in.
#[derive(Debug, Clone)]
pub struct SessionRow {
    /// The browser, as it called itself.
    pub agent: String,
    /// From where.
    pub address: String,
    /// Since when.
    pub since: Moment,
    /// When it was last used.
    pub seen: Moment,
    /// Whether it is this one.
    pub own: bool,
    /// Where it is ended.
    pub revoke: String,
}
