//! The API's description (OpenAPI 3.1), made from the route table. What handlers say of themselves is
//! completed here by what holds for all: ids, answers in words, problems, who may.

use utoipa::OpenApi as _;
use utoipa::openapi::path::Operation;
use utoipa::openapi::response::Response;
use utoipa::openapi::schema::{Components, SchemaType};
use utoipa::openapi::security::{ApiKey, ApiKeyValue, HttpAuthScheme, HttpBuilder, SecurityScheme};
use utoipa::openapi::server::Server;
use utoipa::openapi::tag::Tag;
use utoipa::openapi::{ContentBuilder, OpenApi, Ref, RefOr, Schema, Type};

use super::problem::ProblemBody;
use super::routes;

#[derive(utoipa::OpenApi)]
#[openapi(
    info(
        title = "Berth",
        description = "Containers on one machine, shared by many people. Errors are problem \
                       details (RFC 9457); `GET /api/v1/problems` lists their types with cause and \
                       cure. Lists take `limit` and `after` and answer `{\"items\", \"next\"}`. \
                       Creates take an `Idempotency-Key`, edits an `If-Match`. `x-access` on each \
                       operation says who may use it."
    ),
    components(schemas(ProblemBody))
)]
struct Document;

/// The tags, in the order in which they are shown, and what is under each.
const TAGS: &[(&str, &str)] = &[
    ("containers", "Made, run, limited, looked into, removed."),
    ("images", "Pulled or imported, named, removed."),
    ("operations", "Long work, with progress and cancel."),
    ("events", "What happened, and who did what."),
    ("usage", "What people and the machine use now."),
    ("sessions", "Signing in and out, one’s own account."),
    ("tokens", "One’s own tokens for scripts."),
    ("registries", "One’s own credentials for registries."),
    ("people", "Who may use the machine."),
    ("allowances", "What all that runs for a person may use together."),
    ("groups", "Whose resources count together."),
    ("system", "The machine, the server, its health."),
    ("ports", "Ports of the host that lead to containers."),
    ("volumes", "Directories that outlive containers, and the operator’s data sets."),
    ("maintenance", "Whether something new may be begun."),
    ("keys", "The keys that sign sessions and tokens."),
    ("setup", "The first operator."),
];

/// The media type of problem details.
pub const PROBLEM: &str = "application/problem+json";

/// The document without routes.
pub fn base() -> OpenApi {
    Document::openapi()
}

/// The document with what no route can say.
pub fn complete(mut document: OpenApi) -> OpenApi {
    let components = document.components.get_or_insert_with(Default::default);
    let bearer = HttpBuilder::new().scheme(HttpAuthScheme::Bearer).bearer_format("JWT").build();
    components.add_security_scheme("bearer", SecurityScheme::Http(bearer));
    let cookie = ApiKey::Cookie(ApiKeyValue::new("berth_session"));
    components.add_security_scheme("session", SecurityScheme::ApiKey(cookie));
    add_problem(components);
    for item in document.paths.paths.values_mut() {
        for (_, operation) in routes::operations(item) {
            finish(operation);
        }
    }
    let tag = |(name, about): &(&str, &str)| {
        let mut tag = Tag::new(name);
        tag.description = Some((*about).to_owned());
        tag
    };
    document.tags = Some(TAGS.iter().map(tag).collect());
    document.servers = Some(vec![Server::new("/")]);
    document
}

/// The answer of every refused request.
fn add_problem(components: &mut Components) {
    let schema = Ref::from_schema_name("Problem");
    let mut response = Response::new("A problem: what is wrong, and what to do about it.");
    let content = ContentBuilder::new().schema(Some(schema)).build();
    response.content.insert(PROBLEM.to_owned(), content.into());
    components.responses.insert("Problem".to_owned(), response.into());
}

/// Handlers name themselves within their file; ids are unique in the document. Answers get words,
/// problems their media type.
fn finish(operation: &mut Operation) {
    let tag = operation.tags.as_ref().and_then(|tags| tags.first()).cloned().unwrap_or_default();
    if let Some(id) = &mut operation.operation_id {
        *id = format!("{tag}_{id}");
    }
    for parameter in operation.parameters.iter_mut().flatten() {
        // What is left out of a request is absent: there is no null in a query or a header.
        if let RefOr::T(parameter) = parameter
            && let Some(RefOr::T(Schema::Object(schema))) = &mut parameter.schema
            && let SchemaType::Array(types) = &mut schema.schema_type
        {
            types.retain(|one| *one != Type::Null);
            if let [one] = types.as_slice() {
                schema.schema_type = SchemaType::Type(one.clone());
            }
        }
    }
    for (status, response) in &mut operation.responses.responses {
        let RefOr::T(response) = response else { continue };
        if response.description.is_empty() {
            said(status).clone_into(&mut response.description);
        }
        if status.starts_with(['4', '5']) {
            let content = std::mem::take(&mut response.content);
            response.content =
                content.into_iter().map(|(_, content)| (PROBLEM.to_owned(), content)).collect();
        }
    }
    let default = RefOr::Ref(Ref::from_response_name("Problem"));
    operation.responses.responses.insert("default".to_owned(), default);
}

/// What an answer of this status says.
fn said(status: &str) -> &'static str {
    match status {
        "200" => "Here it is.",
        "201" => "It was made.",
        "202" => "It has begun.",
        "204" => "It was done.",
        "400" => "The request cannot be read.",
        "403" => "It is not allowed.",
        "404" => "There is no such thing.",
        "409" => "Its state forbids it now.",
        "412" => "It was changed since the caller looked.",
        "413" => "The request is too large.",
        "422" => "Part of the request is wrong.",
        "429" => "Too many requests or attempts.",
        "503" => "It passes; the same request may succeed later.",
        "507" => "A limit is reached.",
        _ => "A problem.",
    }
}
