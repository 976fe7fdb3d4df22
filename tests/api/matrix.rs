//! A01: every route x {anonymous, other user, owner, auditor, operator, token with too small a scope}.
//!
//! The routes come from the server (`berth openapi --routes`, and `GET /api/v1/openapi.json`, which
//! must agree); what each is to answer comes from [`ROWS`]. A route without a row fails the suite, and
//! so does a row without a route.
//!
//! # Your route needs a row
//! ```ignore
//! Row { route: "POST /api/v1/things/{id}/stop", who: Who::Member, scope: "operate",
//!       object: Object::Made(thing, Reach::Changes), body: "" },
//! ```
//! - `who`: [`Who`] may use it; everybody else must get 401 or 403 (pages: led to the sign-in page).
//! - `scope`: what a token needs; one below it must get 403. Empty for public routes.
//! - `object`: for a path with `{id}`: a function that makes a fresh one as its owner and returns what
//!   goes for `{id}`, and how far others reach: `Reach::Own` (nobody else), `Reach::Sees` (operators and
//!   auditors look), `Reach::Changes` (operators act), `Reach::Content` (others who see it get 403). A
//!   stranger must get the very answer that an id gets which never existed.
//! - `body`: JSON to send, as good as needed to get past the parser; empty for none.

use std::future::Future;
use std::pin::Pin;

use serde_json::{Value, json};
use system_tests::client::send;
use system_tests::{
    Answer, Check, Client, Options, TestServer, containers, image, programs, requires_root, socket,
};

pub(crate) type Making<'a> = Pin<Box<dyn Future<Output = String> + 'a>>;
pub(crate) type Maker = for<'a> fn(&'a TestServer, &'a Client) -> Making<'a>;

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Who {
    Public,
    SignedIn,
    Member,
    Overseer,
    Operator,
    Root,
}

#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Reach {
    Own,
    Sees,
    Changes,
    Content,
}

#[derive(Clone, Copy)]
pub(crate) enum Object {
    /// No object in the path.
    No,
    /// An object, and how far others reach.
    Made(Maker, Reach),
}

pub(crate) struct Row {
    pub(crate) route: &'static str,
    pub(crate) who: Who,
    scope: &'static str,
    object: Object,
    pub(crate) body: &'static str,
}

const fn row(route: &'static str, who: Who, scope: &'static str) -> Row {
    Row { route, who, scope, object: Object::No, body: "" }
}

const fn sends(route: &'static str, who: Who, scope: &'static str, body: &'static str) -> Row {
    Row { route, who, scope, object: Object::No, body }
}

/// A page of a container's, or a form of it.
const fn object(route: &'static str, who: Who, scope: &'static str, reach: Reach) -> Row {
    Row { route, who, scope, object: Object::Made(container, reach), body: "back=/containers" }
}

pub(crate) const ROWS: &[Row] = &[
    row("GET /healthz", Who::Public, ""),
    row("GET /readyz", Who::Public, ""),
    row("GET /api/v1/openapi.json", Who::Public, ""),
    row("GET /api/v1/problems", Who::Public, ""),
    row("GET /api/v1/setup", Who::Public, ""),
    sends("POST /api/v1/setup", Who::Public, "", r#"{"secret":"x","name":"x","password":"x"}"#),
    row("POST /api/v1/setup/secret", Who::Root, ""),
    sends("POST /api/v1/sessions", Who::Public, "", r#"{"name":"x","password":"x"}"#),
    row("GET /api/v1/sessions", Who::SignedIn, "manage"),
    Row {
        route: "DELETE /api/v1/sessions/{id}",
        who: Who::SignedIn,
        scope: "manage",
        object: Object::Made(session, Reach::Own),
        body: "",
    },
    row("DELETE /api/v1/me/session", Who::SignedIn, "read"),
    row("GET /api/v1/me", Who::SignedIn, "read"),
    sends(
        "PUT /api/v1/me/password",
        Who::SignedIn,
        "manage",
        r#"{"present_password":"wrong","password":"also quite wrong"}"#,
    ),
    row("GET /api/v1/people", Who::Overseer, "read"),
    sends("POST /api/v1/people", Who::Operator, "manage", r#"{"name":"olga","role":"user"}"#),
    sends(
        "POST /api/v1/people/import",
        Who::Operator,
        "manage",
        r#"{"csv":"name\nNo Name","dry_run":true}"#,
    ),
    Row {
        route: "GET /api/v1/people/{id}",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(oneself, Reach::Sees),
        body: "",
    },
    sends("PATCH /api/v1/people/{id}", Who::Operator, "manage", "{}"),
    Row {
        route: "GET /api/v1/people/{id}/access",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(oneself, Reach::Sees),
        body: "",
    },
    row("DELETE /api/v1/people/{id}/access", Who::Operator, "manage"),
    row("GET /api/v1/me/second-factor", Who::SignedIn, "manage"),
    sends("POST /api/v1/me/second-factor", Who::SignedIn, "manage", r#"{"present_password":"x"}"#),
    sends("POST /api/v1/me/second-factor/confirm", Who::SignedIn, "manage", r#"{"code":"x"}"#),
    sends("POST /api/v1/me/second-factor/codes", Who::SignedIn, "manage", r#"{"code":"x"}"#),
    sends("POST /api/v1/me/second-factor/remove", Who::SignedIn, "manage", r#"{"code":"x"}"#),
    row("DELETE /api/v1/people/{id}/second-factor", Who::Operator, "manage"),
    row("GET /api/v1/maintenance", Who::SignedIn, "read"),
    sends("PUT /api/v1/maintenance", Who::Operator, "manage", r#"{"message":""}"#),
    row("DELETE /api/v1/maintenance", Who::Operator, "manage"),
    row("GET /api/v1/allowance", Who::SignedIn, "read"),
    sends("PUT /api/v1/allowance", Who::Operator, "manage", r#"{"cpu_weight":0}"#),
    Row {
        route: "GET /api/v1/people/{id}/data",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(oneself, Reach::Sees),
        body: "",
    },
    Row {
        route: "GET /api/v1/people/{id}/allowance",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(oneself, Reach::Sees),
        body: "",
    },
    row("GET /api/v1/groups", Who::SignedIn, "read"),
    sends("POST /api/v1/groups", Who::Operator, "manage", r#"{"name":"No Name"}"#),
    row("GET /api/v1/groups/{id}", Who::SignedIn, "read"),
    row("GET /api/v1/groups/{id}/members", Who::SignedIn, "read"),
    sends(
        "PUT /api/v1/groups/{id}/members",
        Who::Member,
        "manage",
        r#"{"name":"nobody-here","role":"member"}"#,
    ),
    row("DELETE /api/v1/groups/{id}/members", Who::Member, "manage"),
    sends("PATCH /api/v1/groups/{id}", Who::Operator, "manage", "{}"),
    row("DELETE /api/v1/groups/{id}", Who::Operator, "manage"),
    row("GET /api/v1/groups/{id}/allowance", Who::Overseer, "read"),
    sends("PUT /api/v1/groups/{id}/allowance", Who::Operator, "manage", r#"{"cpu_weight":0}"#),
    sends("PUT /api/v1/people/{id}/allowance", Who::Operator, "manage", r#"{"cpu_weight":0}"#),
    row("DELETE /api/v1/people/{id}/allowance", Who::Operator, "manage"),
    sends("POST /api/v1/allowance/preview", Who::Operator, "manage", r#"{"cpu_weight":0}"#),
    sends(
        "POST /api/v1/people/{id}/allowance/preview",
        Who::Operator,
        "manage",
        r#"{"cpu_weight":0}"#,
    ),
    sends(
        "POST /api/v1/groups/{id}/allowance/preview",
        Who::Operator,
        "manage",
        r#"{"cpu_weight":0}"#,
    ),
    row("GET /api/v1/me/space", Who::SignedIn, "read"),
    row("GET /space", Who::SignedIn, "read"),
    row("GET /api/v1/asks", Who::SignedIn, "read"),
    sends(
        "POST /api/v1/asks",
        Who::Member,
        "operate",
        r#"{"limit":"containers_max","wanted":0,"reason":"x"}"#,
    ),
    Row {
        route: "GET /api/v1/asks/{id}",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(ask, Reach::Sees),
        body: "",
    },
    Row {
        route: "POST /api/v1/asks/{id}/withdraw",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(ask, Reach::Own),
        body: "",
    },
    sends("POST /api/v1/asks/{id}/approve", Who::Operator, "manage", "{}"),
    sends("POST /api/v1/asks/{id}/decline", Who::Operator, "manage", r#"{"reason":"x"}"#),
    row("POST /api/v1/asks/{id}/end", Who::Operator, "manage"),
    row("GET /api/v1/people/{id}/offboarding", Who::Overseer, "read"),
    sends("POST /api/v1/people/{id}/offboarding", Who::Operator, "manage", r#"{"things":"keep"}"#),
    sends(
        "POST /api/v1/people/{id}/offboarding/preview",
        Who::Operator,
        "manage",
        r#"{"things":"keep"}"#,
    ),
    row("POST /api/v1/people/{id}/invitation", Who::Operator, "manage"),
    sends("POST /api/v1/invitations/look", Who::Public, "", r#"{"secret":"x"}"#),
    sends("POST /api/v1/invitations/accept", Who::Public, "", r#"{"secret":"x","password":"y"}"#),
    row("GET /api/v1/tokens", Who::SignedIn, "manage"),
    sends("POST /api/v1/tokens", Who::SignedIn, "manage", r#"{"name":"","scope":"read","days":1}"#),
    Row {
        route: "DELETE /api/v1/tokens/{id}",
        who: Who::SignedIn,
        scope: "manage",
        object: Object::Made(token, Reach::Own),
        body: "",
    },
    row("GET /api/v1/containers", Who::SignedIn, "read"),
    sends("POST /api/v1/containers", Who::Member, "operate", r#"{"image":"No Reference"}"#),
    Row {
        route: "GET /api/v1/containers/{id}",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    Row {
        route: "PATCH /api/v1/containers/{id}",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: r#"{}"#,
    },
    Row {
        route: "DELETE /api/v1/containers/{id}",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/start",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/stop",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/restart",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/kill",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/pause",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/resume",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/extend",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/wait",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/logs",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/logs/events",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/posture",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/processes",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/exec",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: r#"{"program": {"command": ["true"]}}"#,
    },
    Row {
        route: "GET /api/v1/containers/{id}/execs",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/execs",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: r#"{"program": {"command": ["true"]}}"#,
    },
    Row {
        route: "GET /api/v1/containers/{id}/execs/{number}",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(program, Reach::Content),
        body: "",
    },
    Row {
        route: "DELETE /api/v1/containers/{id}/execs/{number}",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(program, Reach::Content),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/execs/{number}/attach",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(program, Reach::Content),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/attach",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/stats",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/stats/events",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/stats/history",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/activity",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/grants",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    Row {
        route: "PUT /api/v1/containers/{id}/grants",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: r#"{"kind":"person","name":"other","rights":["state"]}"#,
    },
    row("DELETE /api/v1/containers/{id}/grants", Who::Member, "operate"),
    Row {
        route: "GET /api/v1/containers/{id}/looks",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Sees),
        body: "",
    },
    sends("POST /api/v1/containers/{id}/looks", Who::Operator, "manage", r#"{"reason":""}"#),
    row("DELETE /api/v1/containers/{id}/looks", Who::Operator, "manage"),
    row("GET /api/v1/images", Who::SignedIn, "read"),
    row("GET /api/v1/images/{id}", Who::SignedIn, "read"),
    row("DELETE /api/v1/images/{id}", Who::Member, "operate"),
    sends("POST /api/v1/images/pull", Who::Member, "operate", r#"{"reference":"No Reference"}"#),
    sends("POST /api/v1/images/{id}/tags", Who::Member, "operate", r#"{"reference":"a:b"}"#),
    row("DELETE /api/v1/images/{id}/tags", Who::Member, "operate"),
    row("POST /api/v1/images/import", Who::Member, "operate"),
    row("GET /api/v1/registries", Who::Member, "manage"),
    sends(
        "PUT /api/v1/registries",
        Who::Member,
        "manage",
        r#"{"registry":"No Host","username":"a","password":"b"}"#,
    ),
    row("DELETE /api/v1/registries", Who::Member, "manage"),
    row("GET /api/v1/operations", Who::SignedIn, "read"),
    row("GET /api/v1/operations/{id}", Who::SignedIn, "read"),
    row("GET /api/v1/operations/{id}/events", Who::SignedIn, "read"),
    row("POST /api/v1/operations/{id}/cancel", Who::Member, "operate"),
    row("GET /api/v1/events", Who::SignedIn, "read"),
    row("GET /api/v1/events/stream", Who::SignedIn, "read"),
    row("GET /api/v1/events/export", Who::SignedIn, "read"),
    row("GET /api/v1/audit", Who::Overseer, "read"),
    row("GET /api/v1/audit/export", Who::Overseer, "read"),
    row("GET /api/v1/audit/verify", Who::Overseer, "read"),
    row("GET /api/v1/system/facts", Who::Overseer, "read"),
    row("GET /api/v1/system/doctor", Who::Overseer, "read"),
    row("GET /api/v1/system/warnings", Who::Operator, "read"),
    row("GET /api/v1/system/registries", Who::Overseer, "read"),
    sends(
        "POST /api/v1/system/registries/check",
        Who::Operator,
        "operate",
        r#"{"registry":"not.configured"}"#,
    ),
    row("GET /api/v1/system", Who::SignedIn, "read"),
    row("GET /api/v1/me/usage", Who::SignedIn, "read"),
    row("GET /api/v1/metrics", Who::SignedIn, "read"),
    row("GET /api/v1/usage/days", Who::SignedIn, "read"),
    row("GET /usage", Who::SignedIn, "read"),
    Row {
        route: "GET /api/v1/people/{id}/usage",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(oneself, Reach::Sees),
        body: "",
    },
    row("GET /api/v1/system/usage", Who::Overseer, "read"),
    row("GET /api/v1/system/network", Who::Overseer, "read"),
    row("GET /api/v1/keys", Who::Root, ""),
    row("POST /api/v1/keys", Who::Root, ""),
    row("DELETE /api/v1/keys/{id}", Who::Root, ""),
    row("GET /api/v1/images", Who::SignedIn, "read"),
    sends("POST /api/v1/images/pull", Who::Member, "operate", r#"{"reference":"No Reference"}"#),
    sends("POST /api/v1/images/import", Who::Member, "operate", "no archive"),
    row("GET /api/v1/ports", Who::SignedIn, "read"),
    row("GET /api/v1/ports/policy", Who::SignedIn, "read"),
    row("GET /api/v1/data-sets", Who::SignedIn, "read"),
    row("GET /api/v1/volumes", Who::SignedIn, "read"),
    sends("POST /api/v1/volumes", Who::Member, "operate", r#"{"name":"No Name"}"#),
    Row {
        route: "GET /api/v1/volumes/{id}",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(volume, Reach::Sees),
        body: "",
    },
    Row {
        route: "PATCH /api/v1/volumes/{id}",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Changes),
        body: "{}",
    },
    Row {
        route: "DELETE /api/v1/volumes/{id}",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Changes),
        body: "",
    },
    sends("POST /api/v1/volumes/{id}/hand-over", Who::Operator, "manage", r#"{"to":"nobody"}"#),
    Row {
        route: "GET /api/v1/volumes/{id}/grants",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(volume, Reach::Sees),
        body: "",
    },
    Row {
        route: "PUT /api/v1/volumes/{id}/grants",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Content),
        body: r#"{"kind":"person","name":"other","rights":["files"]}"#,
    },
    row("DELETE /api/v1/volumes/{id}/grants", Who::Member, "operate"),
    Row {
        route: "GET /api/v1/volumes/{id}/files",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(volume, Reach::Content),
        body: "",
    },
    Row {
        route: "DELETE /api/v1/volumes/{id}/files",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Content),
        body: "",
    },
    Row {
        route: "GET /api/v1/volumes/{id}/files/entry",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(volume, Reach::Content),
        body: "",
    },
    Row {
        route: "GET /api/v1/volumes/{id}/files/content",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(volume, Reach::Content),
        body: "",
    },
    Row {
        route: "PUT /api/v1/volumes/{id}/files/content",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Content),
        body: "content",
    },
    Row {
        route: "GET /api/v1/volumes/{id}/files/archive",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(volume, Reach::Content),
        body: "",
    },
    Row {
        route: "POST /api/v1/volumes/{id}/files/folder",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Content),
        body: r#"{"path":"/"}"#,
    },
    Row {
        route: "GET /api/v1/containers/{id}/files",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "DELETE /api/v1/containers/{id}/files",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/files/entry",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "GET /api/v1/containers/{id}/files/content",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "PUT /api/v1/containers/{id}/files/content",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: "content",
    },
    Row {
        route: "GET /api/v1/containers/{id}/files/archive",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "POST /api/v1/containers/{id}/files/folder",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: r#"{"path":"/"}"#,
    },
    row("GET /api/v1/gc", Who::SignedIn, "read"),
    row("GET /api/v1/layers", Who::Overseer, "read"),
    row("POST /api/v1/layers/verify", Who::Operator, "operate"),
    row("POST /system/layers/verify", Who::Operator, "operate"),
    sends("POST /api/v1/gc", Who::Member, "operate", r#"{"unneeded_days":3650}"#),
    Row {
        route: "GET /api/v1/images/{id}/grants",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(image, Reach::Sees),
        body: "",
    },
    Row {
        route: "PUT /api/v1/images/{id}/grants",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Content),
        body: r#"{"kind":"person","name":"other","rights":["files"]}"#,
    },
    row("DELETE /api/v1/images/{id}/grants", Who::Member, "operate"),
    Row {
        route: "POST /api/v1/images/{id}/keep",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Content),
        body: "{}",
    },
    Row {
        route: "GET /api/v1/images/{id}",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(image, Reach::Sees),
        body: "",
    },
    Row {
        route: "GET /api/v1/images/{id}/export",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(image, Reach::Content),
        body: "",
    },
    Row {
        route: "DELETE /api/v1/images/{id}",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /api/v1/images/{id}/tags",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Changes),
        body: r#"{"reference":"lab/other:v1"}"#,
    },
    row("DELETE /api/v1/images/{id}/tags", Who::Member, "operate"),
    row("GET /api/v1/registries", Who::Member, "manage"),
    sends("PUT /api/v1/registries", Who::Member, "manage", "{}"),
    row("DELETE /api/v1/registries", Who::Member, "manage"),
    // Pages.
    row("GET /assets/{name}", Who::Public, ""),
    row("GET /", Who::Public, ""),
    row("GET /setup", Who::Public, ""),
    sends("POST /setup", Who::Public, "", "secret=x&name=x&password=x"),
    row("GET /sign-in", Who::Public, ""),
    sends("POST /sign-in", Who::Public, "", "name=x&password=x&next=/"),
    row("GET /invitation/{secret}", Who::Public, ""),
    sends("POST /invitation", Who::Public, "", "token=x&password=x"),
    row("POST /sign-out", Who::SignedIn, "read"),
    sends("POST /theme", Who::Public, "", "theme=dark"),
    row("GET /account", Who::SignedIn, "manage"),
    sends("POST /account/tokens", Who::SignedIn, "manage", "name=&scope=read&days=1"),
    Row {
        route: "POST /account/tokens/{id}/revoke",
        who: Who::SignedIn,
        scope: "manage",
        object: Object::Made(token, Reach::Own),
        body: "",
    },
    Row {
        route: "GET /account/tokens/{id}/revoke",
        who: Who::SignedIn,
        scope: "manage",
        object: Object::Made(token, Reach::Own),
        body: "",
    },
    sends("POST /account/registries", Who::Member, "manage", "registry=No+Host&username=a"),
    row("GET /account/registries/remove", Who::Member, "manage"),
    sends("POST /account/registries/remove", Who::Member, "manage", "registry=none.lab"),
    Row {
        route: "POST /account/sessions/{id}/end",
        who: Who::SignedIn,
        scope: "manage",
        object: Object::Made(session, Reach::Own),
        body: "",
    },
    sends(
        "POST /account/password",
        Who::SignedIn,
        "manage",
        "present_password=wrong&password=also+quite+wrong",
    ),
    sends("POST /account/second-factor", Who::SignedIn, "manage", "current=wrong"),
    sends("POST /account/second-factor/confirm", Who::SignedIn, "manage", "code=x"),
    sends("POST /account/second-factor/codes", Who::SignedIn, "manage", "code=x"),
    sends("POST /account/second-factor/remove", Who::SignedIn, "manage", "code=x"),
    row("GET /home", Who::SignedIn, "read"),
    row("GET /containers", Who::SignedIn, "read"),
    sends("POST /launch/preview", Who::Member, "operate", "image=No+Reference"),
    sends("POST /containers/columns", Who::SignedIn, "read", "back=/containers&column=cpu"),
    sends("POST /containers/bulk/restart", Who::Member, "operate", "back=/containers"),
    sends("POST /containers/bulk/pause", Who::Member, "operate", "back=/containers"),
    sends("POST /containers/bulk/resume", Who::Member, "operate", "back=/containers"),
    sends("POST /containers/bulk/start", Who::Member, "operate", "back=/containers"),
    sends("POST /containers/bulk/stop", Who::Member, "operate", "back=/containers"),
    sends("POST /containers/bulk/remove", Who::Member, "operate", "back=/containers"),
    object("GET /containers/{id}", Who::SignedIn, "read", Reach::Sees),
    object("GET /containers/{id}/logs", Who::SignedIn, "read", Reach::Content),
    object("GET /containers/{id}/activity", Who::SignedIn, "read", Reach::Sees),
    object("GET /containers/{id}/raw", Who::SignedIn, "read", Reach::Sees),
    object("GET /containers/{id}/posture", Who::SignedIn, "read", Reach::Sees),
    object("GET /containers/{id}/processes", Who::SignedIn, "read", Reach::Sees),
    object("GET /containers/{id}/terminal", Who::Member, "operate", Reach::Content),
    object("GET /containers/{id}/settings", Who::Member, "operate", Reach::Changes),
    Row {
        route: "POST /containers/{id}/settings",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "cpu=0.5",
    },
    object("GET /containers/{id}/sharing", Who::SignedIn, "read", Reach::Sees),
    Row {
        route: "POST /containers/{id}/sharing",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: "kind=person&grantee=other&level=view",
    },
    Row {
        route: "POST /containers/{id}/sharing/end",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Changes),
        body: "end=person:other",
    },
    sends("POST /containers/{id}/looks", Who::Operator, "manage", "reason="),
    row("POST /containers/{id}/looks/end", Who::Operator, "manage"),
    object("GET /containers/{id}/remove", Who::Member, "operate", Reach::Changes),
    object("POST /containers/{id}/start", Who::Member, "operate", Reach::Changes),
    object("POST /containers/{id}/stop", Who::Member, "operate", Reach::Changes),
    object("POST /containers/{id}/restart", Who::Member, "operate", Reach::Changes),
    object("POST /containers/{id}/kill", Who::Member, "operate", Reach::Changes),
    object("POST /containers/{id}/pause", Who::Member, "operate", Reach::Changes),
    object("POST /containers/{id}/resume", Who::Member, "operate", Reach::Changes),
    object("POST /containers/{id}/extend", Who::Member, "operate", Reach::Changes),
    object("POST /containers/{id}/remove", Who::Member, "operate", Reach::Changes),
    row("GET /launch", Who::Member, "operate"),
    sends("POST /launch", Who::Member, "operate", "image=No+Reference"),
    row("GET /images", Who::SignedIn, "read"),
    sends("POST /images/pull", Who::Member, "operate", "reference=No+Reference"),
    row("POST /images/import", Who::Member, "operate"),
    row("GET /images/unneeded", Who::SignedIn, "read"),
    sends("POST /images/unneeded", Who::Member, "operate", "unneeded_days=3650"),
    Row {
        route: "GET /images/{id}/sharing",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(image, Reach::Sees),
        body: "",
    },
    Row {
        route: "POST /images/{id}/sharing",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Content),
        body: "kind=person&grantee=other&level=use",
    },
    Row {
        route: "POST /images/{id}/sharing/end",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Changes),
        body: "end=person:other",
    },
    Row {
        route: "POST /images/{id}/keep",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Content),
        body: "reference=a:b",
    },
    Row {
        route: "GET /images/{id}",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(image, Reach::Sees),
        body: "",
    },
    Row {
        route: "GET /images/{id}/remove",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /images/{id}/remove",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /images/{id}/tag",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Changes),
        body: "reference=lab/other:v1",
    },
    Row {
        route: "GET /images/{id}/untag",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(image, Reach::Changes),
        body: "",
    },
    sends("POST /images/{id}/untag", Who::Member, "operate", "reference=a:b"),
    row("GET /operations", Who::SignedIn, "read"),
    Row {
        route: "GET /operations/{id}",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(operation, Reach::Sees),
        body: "",
    },
    Row {
        route: "POST /operations/{id}/cancel",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(operation, Reach::Changes),
        body: "back=/images",
    },
    row("GET /people", Who::Overseer, "read"),
    sends("POST /people", Who::Operator, "manage", "name=olga&role=user"),
    row("GET /people/import", Who::Operator, "manage"),
    sends("POST /people/import", Who::Operator, "manage", "csv=name%0ANo+Name"),
    row("POST /people/{id}/invite", Who::Operator, "manage"),
    row("POST /people/{id}/disable", Who::Operator, "manage"),
    row("POST /people/{id}/enable", Who::Operator, "manage"),
    row("GET /people/{id}", Who::Overseer, "read"),
    sends("POST /people/{id}/role", Who::Operator, "manage", "role=user"),
    sends("POST /people/{id}/expiry", Who::Operator, "manage", "expires=2090-01-01"),
    sends("POST /people/{id}/host-user", Who::Operator, "manage", "host_user=driven"),
    sends("POST /people/{id}/group", Who::Operator, "manage", "group=2"),
    row("GET /volumes", Who::SignedIn, "read"),
    sends("POST /volumes", Who::Member, "operate", "name=No+Name"),
    Row {
        route: "GET /volumes/{id}",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(volume, Reach::Sees),
        body: "",
    },
    Row {
        route: "POST /volumes/{id}",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Changes),
        body: "name=No+Name",
    },
    sends("POST /volumes/{id}/hand-over", Who::Operator, "manage", "to=nobody"),
    Row {
        route: "GET /volumes/{id}/sharing",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(volume, Reach::Sees),
        body: "",
    },
    Row {
        route: "POST /volumes/{id}/sharing",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Content),
        body: "kind=person&grantee=other&level=read",
    },
    Row {
        route: "POST /volumes/{id}/sharing/end",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Changes),
        body: "end=person:other",
    },
    Row {
        route: "GET /volumes/{id}/files",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(volume, Reach::Content),
        body: "",
    },
    Row {
        route: "POST /volumes/{id}/files",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Content),
        body: "",
    },
    Row {
        route: "POST /volumes/{id}/files/folder",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Content),
        body: "path=/&name=x",
    },
    Row {
        route: "GET /volumes/{id}/files/remove",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Content),
        body: "",
    },
    Row {
        route: "POST /volumes/{id}/files/remove",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Content),
        body: "path=/",
    },
    Row {
        route: "GET /containers/{id}/files",
        who: Who::SignedIn,
        scope: "read",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "POST /containers/{id}/files",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "POST /containers/{id}/files/folder",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: "path=/&name=x",
    },
    Row {
        route: "GET /containers/{id}/files/remove",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: "",
    },
    Row {
        route: "POST /containers/{id}/files/remove",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(container, Reach::Content),
        body: "path=/",
    },
    Row {
        route: "GET /volumes/{id}/remove",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Changes),
        body: "",
    },
    Row {
        route: "POST /volumes/{id}/remove",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(volume, Reach::Changes),
        body: "typed=x",
    },
    row("GET /groups", Who::SignedIn, "read"),
    sends("POST /groups", Who::Operator, "manage", "name=No+Name"),
    row("GET /groups/{id}", Who::SignedIn, "read"),
    sends("POST /groups/{id}/members", Who::Member, "manage", "member=nobody-here"),
    sends("POST /groups/{id}/members/remove", Who::Member, "manage", "member=nobody-here"),
    sends("POST /groups/{id}", Who::Operator, "manage", "name=No+Name"),
    sends("POST /groups/{id}/allowance", Who::Operator, "manage", "cpu_weight=0"),
    row("GET /groups/{id}/delete", Who::Operator, "manage"),
    row("POST /groups/{id}/delete", Who::Operator, "manage"),
    row("GET /people/{id}/end-access", Who::Operator, "manage"),
    row("POST /people/{id}/end-access", Who::Operator, "manage"),
    row("GET /people/{id}/offboarding", Who::Operator, "manage"),
    sends("POST /people/{id}/offboarding", Who::Operator, "manage", "things=keep"),
    row("GET /people/{id}/second-factor", Who::Operator, "manage"),
    row("POST /people/{id}/second-factor", Who::Operator, "manage"),
    row("GET /asks", Who::SignedIn, "read"),
    sends("POST /asks", Who::Member, "operate", "limit=containers_max&wanted=none&reason=x"),
    Row {
        route: "POST /asks/{id}/withdraw",
        who: Who::Member,
        scope: "operate",
        object: Object::Made(ask, Reach::Own),
        body: "",
    },
    sends("POST /asks/{id}/approve", Who::Operator, "manage", "granted=none"),
    sends("POST /asks/{id}/decline", Who::Operator, "manage", "reason="),
    row("POST /asks/{id}/end", Who::Operator, "manage"),
    row("GET /people/allowance", Who::Overseer, "read"),
    sends("POST /people/allowance", Who::Operator, "manage", "cpu=none"),
    sends("POST /people/{id}/allowance", Who::Operator, "manage", "cpu=none"),
    row("POST /people/{id}/allowance-default", Who::Operator, "manage"),
    row("GET /system/maintenance", Who::Operator, "manage"),
    sends("POST /system/maintenance", Who::Operator, "manage", "message="),
    row("POST /system/maintenance/end", Who::Operator, "manage"),
    row("GET /events", Who::Overseer, "read"),
    row("GET /audit", Who::Overseer, "read"),
    row("GET /registries", Who::Overseer, "read"),
    sends("POST /registries/check", Who::Operator, "operate", "registry=not.configured"),
    row("GET /system", Who::Overseer, "read"),
    row("GET /system/doctor", Who::Overseer, "read"),
    row("GET /system/warnings", Who::Operator, "read"),
    row("GET /help", Who::Public, ""),
    row("GET /help/{topic}", Who::Public, ""),
    row("GET /help/api", Who::Public, ""),
    row("GET /help/api/{resource}", Who::Public, ""),
    row("GET /help/problems", Who::Public, ""),
    row("GET /problems/{code}", Who::Public, ""),
];

fn session<'a>(_: &'a TestServer, owner: &'a Client) -> Making<'a> {
    Box::pin(async move {
        let me = owner.get("/api/v1/me").await.json();
        let body = json!({"name": me["name"], "password": system_tests::instance::PASSWORD});
        let anonymous = Client::anonymous(owner.base());
        let opened = anonymous.post("/api/v1/sessions", &body).await.expect_status(201);
        opened.json()["session"].as_str().expect("a session has an id").to_owned()
    })
}

fn token<'a>(_: &'a TestServer, owner: &'a Client) -> Making<'a> {
    Box::pin(async move {
        let name = format!("{:?}", std::time::Instant::now()).replace(['{', '}', ':'], "");
        let name: String = name.chars().rev().take(40).collect();
        let body = json!({"name": name.trim(), "scope": "read", "days": 1});
        let made = owner.post("/api/v1/tokens", &body).await.expect_status(201);
        made.json()["token"]["id"].as_str().expect("a token has an id").to_owned()
    })
}

/// A container that has come no further than its row: no registry is there to pull from.
fn container<'a>(_: &'a TestServer, owner: &'a Client) -> Making<'a> {
    Box::pin(async move {
        let body = json!({"image": "127.0.0.1:1/none:latest"});
        let made = owner.post("/api/v1/containers", &body).await;
        // 202 with the pull begun; 201 when that has failed before the answer was written.
        assert!(matches!(made.status, 201 | 202), "{made:?}");
        let made = made.json();
        let id = made["id"].as_str().expect("a container has an id").to_owned();
        let deadline = std::time::Instant::now() + std::time::Duration::from_secs(20);
        loop {
            let shown = owner.get(&format!("/api/v1/containers/{id}")).await.json();
            if shown["status"] == "failed" {
                return id;
            }
            assert!(std::time::Instant::now() < deadline, "{shown}");
            tokio::time::sleep(std::time::Duration::from_millis(10)).await;
        }
    })
}

fn volume<'a>(_: &'a TestServer, owner: &'a Client) -> Making<'a> {
    Box::pin(async move {
        let name = format!("{:?}", std::time::Instant::now());
        let name: String = name.chars().filter(char::is_ascii_digit).collect();
        let body = json!({"name": format!("volume-{name}")});
        let made = owner.post("/api/v1/volumes", &body).await.expect_status(201).json();
        made["id"].as_str().expect("a volume has an id").to_owned()
    })
}

/// A container with a program that can be attached to, its first.
fn program<'a>(_: &'a TestServer, owner: &'a Client) -> Making<'a> {
    Box::pin(async move {
        containers::import(owner).await;
        let name = format!("{:?}", std::time::Instant::now());
        let name: String = name.chars().filter(char::is_ascii_digit).collect();
        let id = containers::run(owner, &format!("s{name}"), "sleep 1000", json!({})).await;
        containers::in_status(owner, &id, "running").await;
        let path = socket::open(owner, &id, "sleep 1000", false).await;
        assert!(path.ends_with("/1"), "{path}");
        id
    })
}

/// An image that differs from every other, so that removing one leaves the others.
fn image<'a>(_: &'a TestServer, owner: &'a Client) -> Making<'a> {
    Box::pin(async move {
        let content = format!("{:?}", std::time::Instant::now());
        let archive = image::archive("lab/app:v1", &[("content", 0o644, content.as_bytes())]);
        image::import(owner, archive).await
    })
}

/// An operation that has ended.
fn operation<'a>(server: &'a TestServer, owner: &'a Client) -> Making<'a> {
    Box::pin(async move {
        image(server, owner).await;
        let list = owner.get("/api/v1/operations").await.expect_status(200).json();
        list["items"][0]["id"].as_str().expect("an operation has an id").to_owned()
    })
}

/// One that waits: a person has one of each limit.
fn ask<'a>(_: &'a TestServer, owner: &'a Client) -> Making<'a> {
    Box::pin(async move {
        let body = json!({"limit": "containers_max", "wanted": 99_000, "reason": "to try"});
        let made = owner.post("/api/v1/asks", &body).await;
        if made.status == 409 {
            let open = owner.get("/api/v1/asks?state=open").await.expect_status(200).json();
            return open["items"][0]["id"].to_string();
        }
        made.expect_status(201).json()["id"].to_string()
    })
}

fn oneself<'a>(_: &'a TestServer, owner: &'a Client) -> Making<'a> {
    Box::pin(async move { owner.get("/api/v1/me").await.json()["id"].to_string() })
}

/// Everybody who tries.
struct Callers {
    anonymous: Client,
    owner: Client,
    other: Client,
    auditor: Client,
    operator: Client,
}

impl Callers {
    async fn new(server: &TestServer) -> Self {
        Self {
            anonymous: server.anonymous(),
            owner: server.person("owner", "user").await,
            other: server.person("other", "user").await,
            auditor: server.person("auditor", "auditor").await,
            operator: server.operator(),
        }
    }

    fn by_role(&self) -> [(&'static str, &Client); 4] {
        [
            ("anonymous", &self.anonymous),
            ("user", &self.owner),
            ("auditor", &self.auditor),
            ("operator", &self.operator),
        ]
    }
}

fn allowed(who: Who, role: &str) -> bool {
    match who {
        Who::Public => true,
        Who::SignedIn => role != "anonymous",
        Who::Member => role == "user" || role == "operator",
        Who::Overseer => role == "auditor" || role == "operator",
        Who::Operator => role == "operator",
        Who::Root => false,
    }
}

/// What the server says it has: method, path and surface.
fn routes() -> Vec<(String, String)> {
    let output = std::process::Command::new(programs::berth())
        .args(["openapi", "--routes"])
        .output()
        .expect("run berth openapi");
    assert!(output.status.success(), "{output:?}");
    let table: Vec<Value> = serde_json::from_slice(&output.stdout).expect("a table in JSON");
    let text = |value: &Value| value.as_str().expect("a text").to_owned();
    table
        .iter()
        .map(|row| {
            let route = format!("{} {}", text(&row["method"]), text(&row["path"]));
            (route, text(&row["surface"]))
        })
        .collect()
}

#[test]
fn every_route_has_a_row_and_every_row_a_route() {
    let routes = routes();
    let lacking: Vec<&String> = routes
        .iter()
        .map(|(route, _)| route)
        .filter(|route| !ROWS.iter().any(|row| row.route == *route))
        .collect();
    assert!(lacking.is_empty(), "routes without a row in tests/api/matrix.rs: {lacking:#?}");
    for row in ROWS {
        assert!(routes.iter().any(|(route, _)| route == row.route), "no route: {}", row.route);
    }
    // The control: a row taken away is missed.
    assert!(!ROWS[1..].iter().any(|row| row.route == ROWS[0].route));
}

#[tokio::test]
async fn the_document_shows_every_api_route_and_refuses_unknown_fields() {
    requires_root!();
    let server = TestServer::start().await;
    let document = server.anonymous().get("/api/v1/openapi.json").await.json();
    assert!(document["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")));
    for (route, surface) in routes().iter().filter(|(_, surface)| surface == "api") {
        let (method, path) = route.split_once(' ').expect("a method and a path");
        let operation = &document["paths"][path][method.to_lowercase()];
        assert!(operation["x-access"].is_object(), "{surface} {route} is not in the document");
        let body = &operation["requestBody"]["content"]["application/json"]["schema"]["$ref"];
        let Some(name) = body.as_str().and_then(|body| body.rsplit('/').next()) else { continue };
        let schema = &document["components"]["schemas"][name];
        let closed = schema["additionalProperties"] == false
            || schema["oneOf"]
                .as_array()
                .is_some_and(|all| all.iter().all(|one| one["additionalProperties"] == false));
        assert!(closed, "{name} lacks #[serde(deny_unknown_fields)]");
    }
}

#[tokio::test]
async fn every_route_answers_each_role_as_its_row_says() {
    requires_root!();
    let server = TestServer::start().await;
    let callers = Callers::new(&server).await;
    let mut tokens = std::collections::BTreeMap::new();
    for scope in ["read", "operate", "manage"] {
        tokens.insert(scope, callers.operator.token(scope).await);
    }
    let surfaces: std::collections::BTreeMap<String, String> = routes().into_iter().collect();
    let mut wrong = Vec::new();
    for row in ROWS {
        let page = surfaces.get(row.route).is_some_and(|surface| surface == "page");
        for (role, client) in callers.by_role() {
            // A fresh session for what ends the session that asks.
            let client = &match (row.route, role) {
                (
                    "DELETE /api/v1/me/session" | "POST /sign-out",
                    "user" | "auditor" | "operator",
                ) => sign_in_again(&server, client).await,
                _ => client.clone(),
            };
            let answer = try_route(client, row, &random_id(row)).await;
            let why = judge(row, role, page, &answer);
            let variant = format!("{} as {role}", row.route);
            let control = "whoever may is not refused; each role is tried on each route";
            let said = why.as_deref().unwrap_or("as its row says");
            if !(Check { id: "A01", variant: &variant, control }.notes("as its row says", said)) {
                wrong.push(format!("{variant}: {said}"));
            }
        }
        if let Some(smaller) = scope_below(row.scope) {
            let token = &tokens[smaller];
            let answer = try_route(token, row, &random_id(row)).await;
            if answer.status != 403 || !refused_by_guard(&answer) {
                wrong.push(format!("{} with scope {smaller}: {}", row.route, answer.status));
            }
            // The control: with the scope of the row it is not refused for that.
            let token = &tokens[row.scope];
            let answer = try_route(token, row, &random_id(row)).await;
            if refused_by_guard(&answer) {
                wrong.push(format!("{} with scope {}: refused", row.route, row.scope));
            }
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn a_foreign_object_answers_exactly_as_one_that_never_existed() {
    requires_root!();
    // A container or volume for each route.
    let sections =
        "[containers]\nper_person_max = 1000\nvolumes_per_person_max = 1000\n".to_owned();
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let callers = Callers::new(&server).await;
    let mut wrong = Vec::new();
    for row in ROWS {
        let Object::Made(make, reach) = row.object else { continue };
        let id = make(&server, &callers.owner).await;
        let foreign = try_route(&callers.other, row, &id).await;
        let never = try_route(&callers.other, row, &random_id(row)).await;
        let same = foreign.status == 404 && foreign.body_without_id() == never.body_without_id();
        let variant = format!("{} of another person", row.route);
        let said = if same { "as one that never existed" } else { "otherwise" };
        let check = Check { id: "A01", variant: &variant, control: "its owner gets through" };
        if !check.notes("as one that never existed", said) {
            wrong.push(format!("{}: {foreign:?} is not {never:?}", row.route));
        }
        for (role, client) in [("auditor", &callers.auditor), ("operator", &callers.operator)] {
            let id = make(&server, &callers.owner).await;
            let answer = try_route(client, row, &id).await;
            let expected = match reach {
                _ if !allowed(row.who, role) => answer.status == 403,
                Reach::Own => answer.status == 404,
                Reach::Content => answer.status == 403,
                Reach::Sees => is_past_the_guard(&answer),
                Reach::Changes => is_past_the_guard(&answer) == (role == "operator"),
            };
            if !expected {
                wrong.push(format!("{} as {role} ({reach:?}): {answer:?}", row.route));
            }
        }
        // The control: its owner gets through.
        let id = make(&server, &callers.owner).await;
        let answer = try_route(&callers.owner, row, &id).await;
        if !is_past_the_guard(&answer) {
            wrong.push(format!("{} as its owner: {answer:?}", row.route));
        }
    }
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[tokio::test]
async fn lists_and_events_show_nobody_elses_things() {
    requires_root!();
    let server = TestServer::start().await;
    let callers = Callers::new(&server).await;
    let marker = "marker-of-the-owner";
    let body = json!({"name": marker, "scope": "read", "days": 1});
    callers.owner.post("/api/v1/tokens", &body).await.expect_status(201);
    for row in ROWS.iter().filter(|row| row.route.starts_with("GET /api/v1/")) {
        if row.who == Who::Public || row.route.contains('{') || row.route.ends_with("/stream") {
            continue;
        }
        let answer = try_route(&callers.other, row, "").await;
        for name in [marker, "\"owner\",", "\"name\":\"owner\""] {
            assert!(!answer.text.contains(name), "{} tells of {name}", row.route);
        }
    }
    // The control: their owner finds it.
    assert!(callers.owner.get("/api/v1/tokens").await.text.contains(marker));
}

async fn sign_in_again(server: &TestServer, client: &Client) -> Client {
    let me = client.get("/api/v1/me").await.json();
    let name = me["name"].as_str().expect("a name");
    let answer = server.sign_in(name, system_tests::instance::PASSWORD).await.expect_status(201);
    server.anonymous().with_cookies_of(&answer)
}

async fn try_route(client: &Client, row: &Row, id: &str) -> Answer {
    let (method, path) = row.route.split_once(' ').expect("a method and a path");
    let path = match path.split_once('{') {
        Some((before, after)) => {
            let (_, after) = after.split_once('}').expect("a closed parameter");
            // Numbers are of the first; further parameters name nothing.
            let after = after.replace("{number}", "1");
            format!("{before}{id}{}", after.replace(['{', '}'], ""))
        }
        None => path.to_owned(),
    };
    let mut request = client.request(method, &path);
    if !row.body.is_empty() {
        let media_type = match row.body.starts_with('{') {
            true => "application/json",
            false => "application/x-www-form-urlencoded",
        };
        request = request.header("content-type", media_type).body(row.body);
    }
    if path.ends_with("/stream") {
        return client.head_of(request).await;
    }
    send(request).await
}

/// Why an answer is not what the row says; `None` when it is.
fn judge(row: &Row, role: &str, page: bool, answer: &Answer) -> Option<String> {
    let refused =
        matches!(answer.code().as_str(), "unauthenticated" | "role.denied" | "token.scope");
    if allowed(row.who, role) {
        return (refused || answer.status >= 500).then(|| format!("{}", answer.status));
    }
    let led_away =
        page && answer.status == 303 && answer.header("location").starts_with("/sign-in");
    let expected = match role {
        "anonymous" => answer.status == 401 || led_away,
        _ => answer.status == 403,
    };
    (!expected).then(|| format!("{} {}", answer.status, answer.text))
}

/// Whether the guard refused, by what its problem or its error page says.
fn refused_by_guard(answer: &Answer) -> bool {
    matches!(answer.code().as_str(), "unauthenticated" | "role.denied" | "token.scope")
        || ["ign in first", "our role does not allow this", "a token with the scope"]
            .iter()
            .any(|text| answer.text.contains(text) && answer.text.contains("<html"))
}

fn is_past_the_guard(answer: &Answer) -> bool {
    !matches!(answer.status, 401 | 403 | 404) && answer.status < 500
}

/// An id of the right form that names nothing.
fn random_id(row: &Row) -> String {
    if ["/people/", "/asks/"].iter().any(|path| row.route.contains(path)) {
        return "999".to_owned();
    }
    "0123456789abcdef0123456789abcdef".to_owned()
}

fn scope_below(scope: &str) -> Option<&'static str> {
    match scope {
        "manage" => Some("operate"),
        "operate" => Some("read"),
        _ => None,
    }
}
