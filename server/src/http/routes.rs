//! The one table of routes: path, method, access rule. Router, OpenAPI document, guard and test
//! matrix are made from it.

use std::pin::Pin;
use std::sync::Arc;

use axum::Router;
use axum::extract::{DefaultBodyLimit, Request};
use axum::handler::Handler;
use axum::http::Method;
use axum::middleware::from_fn_with_state;
use axum::response::Response;
use axum::routing::{MethodFilter, MethodRouter, on};
use serde::Serialize;
use utoipa::openapi::OpenApi;
use utoipa::openapi::extensions::ExtensionsBuilder;
use utoipa::openapi::path::{Operation, PathItem};
use utoipa::openapi::security::SecurityRequirement;
use utoipa_axum::router::{OpenApiRouter, UtoipaMethodRouter};

use super::{guard, pages};
use crate::app::App;
use crate::auth::{Caller, Role, TokenScope};
use crate::error::{Error, Result};

/// Who may use a route. With a token, at least this scope.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(tag = "who", content = "scope", rename_all = "snake_case")]
pub enum Access {
    /// Everybody, signed in or not.
    Public,
    /// Whoever has signed in, auditors too: looking, and one's own account.
    SignedIn(TokenScope),
    /// Operators and users: whatever makes or changes objects.
    Member(TokenScope),
    /// Operators and auditors: looking at what is everybody's.
    Overseer(TokenScope),
    /// Operators.
    Operator(TokenScope),
    /// Only the machine's root, on the root socket.
    Root,
}

/// Whether a route belongs to the API or is a page.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Surface {
    /// JSON; refused requests get problem details.
    Api,
    /// HTML; refused requests get an error page, or are led to the sign-in page.
    Page,
}

/// One row of the table.
#[derive(Debug, Clone, Serialize)]
pub struct RouteRow {
    /// `GET`, `POST`, …
    pub method: String,
    /// The path with `{parameters}`.
    pub path: String,
    /// Who may use it.
    pub access: Access,
    /// API or page.
    pub surface: Surface,
    /// What its form may hold, for what a page's form is sent to.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub form: Option<FormFields>,
}

/// The fields that a form may hold; what else is sent is refused, so that nothing is set by a name
/// that nobody has thought of.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize)]
pub struct FormFields {
    /// At most once each.
    pub once: &'static [&'static str],
    /// As often as there are things to choose.
    pub many: &'static [&'static str],
}

/// What the guard knows of a matched route.
#[derive(Debug, Clone, Copy)]
pub struct Rule {
    /// Who may use it.
    pub access: Access,
    /// API or page.
    pub surface: Surface,
    /// Seconds that the handler may take; `None` for uploads.
    pub timeout_secs: Option<u64>,
}

/// A request's body is read up to this, uploads aside.
pub const BODY_BYTES_MAX: usize = 1 << 20;
const TIMEOUT_SECS: u64 = 60;

/// The table while it is filled.
pub struct Routes {
    router: OpenApiRouter<App>,
    table: Vec<RouteRow>,
}

/// A handler, whatever it takes: one type for all of them. Of each type of handler axum makes a tower of
/// services of its own, and to make 250 of those took a third of the time that the server takes to compile.
#[derive(Clone)]
pub struct Erased(Arc<dyn Fn(Request, App) -> Answering + Send + Sync>);

type Answering = Pin<Box<dyn Future<Output = Response> + Send>>;

impl Handler<(), App> for Erased {
    type Future = Answering;

    fn call(self, request: Request, app: App) -> Answering {
        (self.0)(request, app)
    }
}

/// The handler behind that type.
pub fn erased<H, T>(handler: H) -> Erased
where
    H: Handler<T, App>,
    T: 'static,
{
    Erased(Arc::new(move |request, app| Box::pin(handler.clone().call(request, app))))
}

/// API handlers of one path for [`Routes::add`], with what their `#[utoipa::path]` says: what
/// `utoipa_axum::routes!` makes of them, but [`erased`].
macro_rules! routes {
    ($($handler:path),+ $(,)?) => {{
        use utoipa_axum::PathItemExt as _;
        let mut schemas = Vec::new();
        let mut paths = utoipa::openapi::path::Paths::new();
        let mut methods = axum::routing::MethodRouter::new();
        $(
            let (path, operation, kinds) =
                utoipa_axum::routes!(@resolve_types $handler : schemas);
            for kind in &kinds {
                let handler = $crate::http::routes::erased($handler);
                methods = methods.on(kind.to_method_filter(), handler);
            }
            paths.add_path_operation(&path, kinds, operation);
        )+
        (schemas, paths, methods)
    }};
}
pub(crate) use routes;

impl FormFields {
    /// These, at most once each.
    pub const fn once(once: &'static [&'static str]) -> Self {
        Self { once, many: &[] }
    }

    /// These, too, as often as there are.
    #[must_use]
    pub const fn and_many(self, many: &'static [&'static str]) -> Self {
        Self { many, ..self }
    }
}

impl Access {
    /// Whether `caller` may use the route.
    ///
    /// # Errors
    /// Why not.
    pub fn allows(self, caller: Option<&Caller>) -> Result<()> {
        let (roles, scope): (&[Role], _) = match self {
            Self::Public => return Ok(()),
            Self::SignedIn(scope) => {
                (&[Role::User, Role::Auditor, Role::Operator, Role::System], scope)
            }
            Self::Member(scope) => (&[Role::User, Role::Operator, Role::System], scope),
            Self::Overseer(scope) => (&[Role::Auditor, Role::Operator, Role::System], scope),
            Self::Operator(scope) => (&[Role::Operator, Role::System], scope),
            Self::Root => (&[Role::System], TokenScope::Manage),
        };
        let caller = caller.ok_or(Error::Unauthenticated)?;
        if !roles.contains(&caller.role) {
            return Err(Error::denied("role.denied", "your role does not allow this"));
        }
        if caller.scope < scope {
            let needed = scope.as_str();
            return Err(Error::denied(
                "token.scope",
                format!("this needs a token with the scope {needed}"),
            ));
        }
        Ok(())
    }
}

impl Routes {
    /// An empty table.
    pub fn new() -> Self {
        Self { router: OpenApiRouter::with_openapi(super::openapi::base()), table: Vec::new() }
    }

    /// Adds API handlers of one path, made by `routes!`.
    #[must_use]
    pub fn add(self, access: Access, handlers: UtoipaMethodRouter<App>) -> Self {
        self.api(access, Some(TIMEOUT_SECS), handlers)
    }

    /// Adds an API handler that reads a body without limit and takes its time; it counts the bytes
    /// itself.
    #[must_use]
    pub fn upload(self, access: Access, handlers: UtoipaMethodRouter<App>) -> Self {
        let (schemas, paths, methods) = handlers;
        self.api(access, None, (schemas, paths, methods.layer(DefaultBodyLimit::disable())))
    }

    /// Adds a page to look at.
    #[must_use]
    pub fn page<H, T>(mut self, access: Access, method: Method, path: &str, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let rule = Rule { access, surface: Surface::Page, timeout_secs: Some(TIMEOUT_SECS) };
        self.row(&method, path, rule, None);
        self.router = self.router.route(path, guarded(rule, on(filter(&method), erased(handler))));
        self
    }

    /// Adds what a page's form is sent to. The handler takes the form by [`Posted`].
    ///
    /// [`Posted`]: super::pages::Posted
    #[must_use]
    pub fn form<H, T>(mut self, access: Access, path: &str, fields: FormFields, handler: H) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let rule = Rule { access, surface: Surface::Page, timeout_secs: Some(TIMEOUT_SECS) };
        self.row(&Method::POST, path, rule, Some(fields));
        let methods = on(MethodFilter::POST, erased(handler));
        let methods = methods.layer(from_fn_with_state(fields, pages::read_form));
        self.router = self.router.route(path, guarded(rule, methods));
        self
    }

    /// Adds what a page's upload is sent to: a body without limit that takes its time; the handler
    /// counts the bytes itself.
    #[must_use]
    pub fn page_upload<H, T>(
        mut self,
        access: Access,
        path: &str,
        fields: FormFields,
        handler: H,
    ) -> Self
    where
        H: Handler<T, App>,
        T: 'static,
    {
        let rule = Rule { access, surface: Surface::Page, timeout_secs: None };
        self.row(&Method::POST, path, rule, Some(fields));
        let methods = on(MethodFilter::POST, erased(handler)).layer(DefaultBodyLimit::disable());
        self.router = self.router.route(path, guarded(rule, methods));
        self
    }

    /// Router, table and document.
    pub fn into_parts(self) -> (Router<App>, Vec<RouteRow>, OpenApi) {
        let (router, document) = self.router.split_for_parts();
        (router, self.table, document)
    }

    fn api(
        mut self,
        access: Access,
        timeout_secs: Option<u64>,
        handlers: UtoipaMethodRouter<App>,
    ) -> Self {
        let rule = Rule { access, surface: Surface::Api, timeout_secs };
        let (schemas, mut paths, methods) = handlers;
        for (path, item) in &mut paths.paths {
            for (method, operation) in operations(item) {
                self.row(&method, path, rule, None);
                describe(access, operation);
            }
        }
        self.router = self.router.routes((schemas, paths, guarded(rule, methods)));
        self
    }

    fn row(&mut self, method: &Method, path: &str, rule: Rule, form: Option<FormFields>) {
        self.table.push(RouteRow {
            method: method.to_string(),
            path: path.to_owned(),
            access: rule.access,
            surface: rule.surface,
            form,
        });
    }
}

fn filter(method: &Method) -> MethodFilter {
    MethodFilter::try_from(method.clone()).unwrap_or(MethodFilter::GET)
}

fn guarded(rule: Rule, methods: MethodRouter<App>) -> MethodRouter<App> {
    methods.route_layer(from_fn_with_state(rule, guard::enforce))
}

pub(super) fn operations(item: &mut PathItem) -> impl Iterator<Item = (Method, &mut Operation)> {
    [
        (Method::GET, &mut item.get),
        (Method::PUT, &mut item.put),
        (Method::POST, &mut item.post),
        (Method::DELETE, &mut item.delete),
        (Method::PATCH, &mut item.patch),
    ]
    .into_iter()
    .filter_map(|(method, operation)| Some((method, operation.as_mut()?)))
}

/// Writes the rule into the document: `security`, and `x-access` for the test matrix.
fn describe(access: Access, operation: &mut Operation) {
    let rule = serde_json::to_value(access).unwrap_or_default();
    let extension = ExtensionsBuilder::new().add("x-access", rule).build();
    match &mut operation.extensions {
        Some(extensions) => extensions.merge(extension),
        none => *none = Some(extension),
    }
    operation.security = Some(match access {
        Access::Public | Access::Root => Vec::new(),
        _ => vec![
            SecurityRequirement::new("bearer", Vec::<String>::new()),
            SecurityRequirement::new("session", Vec::<String>::new()),
        ],
    });
}
