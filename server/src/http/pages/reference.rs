//! The API's reference, read from the OpenAPI document that this server gives out: what is not in the
//! document is not on these pages. Pure.

use std::collections::BTreeSet;
use std::sync::LazyLock;

use berth_web::help::{ApiAnswer, ApiBody, ApiField, ApiGroup, ApiKind, ApiObject, ApiOperation};
use berth_web::shell::ApiCall;
use serde_json::{Map, Value, json};

/// Where the calls of the examples go.
#[derive(Debug, Default)]
pub(super) struct Places {
    /// Scheme, host and port.
    pub(super) origin: String,
    /// The socket of root's own.
    pub(super) root_socket: String,
}

/// Objects within objects that are described at most.
const OBJECTS_MAX: usize = 100;
const METHODS: [&str; 5] = ["get", "post", "put", "patch", "delete"];
const OBJECT: &str = "#/components/schemas/";

static DOCUMENT: LazyLock<Value> =
    LazyLock::new(|| serde_json::to_value(crate::http::describe().1).unwrap_or_default());

/// What the document says of the API as a whole.
pub(super) fn about() -> String {
    text(&DOCUMENT["info"], "description")
}

/// All resources, with their calls in short.
pub(super) fn groups(origin: &str) -> Vec<ApiGroup> {
    let places = Places { origin: origin.to_owned(), root_socket: String::new() };
    let tags = DOCUMENT["tags"].as_array().into_iter().flatten();
    tags.filter_map(|tag| group(&text(tag, "name"), &places)).collect()
}

/// One resource.
pub(super) fn group(name: &str, places: &Places) -> Option<ApiGroup> {
    let tags = DOCUMENT["tags"].as_array()?;
    let tag = tags.iter().find(|tag| tag["name"] == name)?;
    let mut calls = Vec::new();
    for (path, item) in DOCUMENT["paths"].as_object()? {
        for method in METHODS {
            let operation = &item[method];
            if operation["tags"][0] == name {
                calls.push(call(method, path, operation, places));
            }
        }
    }
    Some(ApiGroup { name: name.to_owned(), about: text(tag, "description"), calls })
}

/// The objects that a resource's calls take and give, and those in them.
pub(super) fn objects(group: &ApiGroup) -> Vec<ApiObject> {
    let bodies = group.calls.iter().flat_map(|call| {
        let answers = call.answers.iter().flat_map(|answer| &answer.bodies);
        call.body.iter().chain(answers).map(|body| &body.kind)
    });
    let parameters = group.calls.iter().flat_map(|call| &call.parameters).map(|field| &field.kind);
    let mut wanted: Vec<String> =
        bodies.chain(parameters).filter(|kind| kind.object).map(|kind| kind.name.clone()).collect();
    let mut seen = BTreeSet::new();
    let mut objects = Vec::new();
    while let Some(name) = wanted.pop() {
        if objects.len() >= OBJECTS_MAX || !seen.insert(name.clone()) {
            continue;
        }
        let object = object(&name, &DOCUMENT["components"]["schemas"][&name]);
        let within = object.fields.iter().filter(|field| field.kind.object);
        wanted.extend(within.map(|field| field.kind.name.clone()));
        objects.push(object);
    }
    objects.sort_by(|a, b| a.name.cmp(&b.name));
    objects
}

fn call(method: &str, path: &str, operation: &Value, places: &Places) -> ApiOperation {
    let body = operation["requestBody"]["content"].as_object();
    let body = body.and_then(|content| bodies(content).into_iter().next());
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    ApiOperation {
        id: text(operation, "operationId"),
        method: method.to_uppercase(),
        path: path.to_owned(),
        summary: line(&text(operation, "summary")),
        more: more(operation),
        who: who(&operation["x-access"]),
        parameters: parameters.map(parameter).collect(),
        answers: answers(&operation["responses"]),
        curl: curl(method, path, operation, places),
        body,
    }
}

/// What a description says beyond its summary, which it begins with.
fn more(operation: &Value) -> String {
    let (all, summary) = (text(operation, "description"), text(operation, "summary"));
    line(all.strip_prefix(summary.as_str()).unwrap_or(&all).trim())
}

fn parameter(parameter: &Value) -> ApiField {
    ApiField {
        name: text(parameter, "name"),
        place: text(parameter, "in"),
        kind: kind(&parameter["schema"]),
        required: parameter["required"] == true,
        about: line(&text(parameter, "description")),
    }
}

fn answers(responses: &Value) -> Vec<ApiAnswer> {
    let responses = responses.as_object().into_iter().flatten();
    let answer = |(status, response): (&String, &Value)| {
        let response = match response["$ref"].as_str().and_then(|path| path.strip_prefix('#')) {
            Some(path) => DOCUMENT.pointer(path).unwrap_or(response),
            None => response,
        };
        ApiAnswer {
            status: status.clone(),
            words: text(response, "description"),
            bodies: response["content"].as_object().map(bodies).unwrap_or_default(),
        }
    };
    // A problem is a problem, whatever its status: it is said once, by the default.
    responses.filter(|(status, _)| !status.starts_with(['4', '5'])).map(answer).collect()
}

fn bodies(content: &Map<String, Value>) -> Vec<ApiBody> {
    let body = |(media_type, content): (&String, &Value)| ApiBody {
        media_type: media_type.clone(),
        kind: kind(&content["schema"]),
    };
    content.iter().map(body).collect()
}

fn object(name: &str, schema: &Value) -> ApiObject {
    let mut fields = Vec::new();
    add_fields(schema, &mut fields);
    let values = schema["enum"].as_array().into_iter().flatten();
    ApiObject {
        name: name.to_owned(),
        about: line(&text(schema, "description")),
        fields,
        values: values.filter_map(Value::as_str).map(str::to_owned).collect(),
    }
}

/// The fields of an object; one that is made of others has theirs.
fn add_fields(schema: &Value, fields: &mut Vec<ApiField>) {
    for part in ["allOf", "oneOf", "anyOf"] {
        for part in schema[part].as_array().into_iter().flatten() {
            let whole = part["$ref"].as_str().and_then(|path| path.strip_prefix('#'));
            add_fields(whole.and_then(|path| DOCUMENT.pointer(path)).unwrap_or(part), fields);
        }
    }
    let required = schema["required"].as_array();
    for (name, field) in schema["properties"].as_object().into_iter().flatten() {
        if let Some(known) = fields.iter_mut().find(|known| known.name == *name) {
            // One of several forms, told apart by the word in this field.
            known.kind.name = format!("{} | {}", known.kind.name, kind(field).name);
            continue;
        }
        let of_reference = field["oneOf"][0].as_object().map(|of| json!(of)).unwrap_or_default();
        let about = [field, &of_reference].map(|schema| text(schema, "description"));
        fields.push(ApiField {
            name: name.clone(),
            place: String::new(),
            kind: kind(field),
            required: required.is_some_and(|required| required.iter().any(|one| one == name)),
            about: line(about.iter().find(|about| !about.is_empty()).map_or("", String::as_str)),
        });
    }
}

/// A schema in a few words.
fn kind(schema: &Value) -> ApiKind {
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix(OBJECT)) {
        return ApiKind { name: name.to_owned(), object: true, ..ApiKind::default() };
    }
    for of in ["oneOf", "anyOf", "allOf"] {
        let Some(parts) = schema[of].as_array() else { continue };
        let null = parts.iter().any(|part| part["type"] == "null");
        let Some(first) = parts.iter().find(|part| part["type"] != "null") else { continue };
        let mut kind = kind(first);
        kind.after.push_str(if null { " or null" } else { "" });
        return kind;
    }
    let (name, null) = match &schema["type"] {
        Value::String(name) => (name.as_str(), false),
        Value::Array(names) => {
            let words = names.iter().filter_map(Value::as_str);
            (words.clone().find(|word| *word != "null").unwrap_or(""), words.count() > 1)
        }
        _ => ("any value", false),
    };
    let mut found = match name {
        "array" => {
            let mut of = kind(&schema["items"]);
            of.before.insert_str(0, "list of ");
            of
        }
        "object" if schema["additionalProperties"].is_object() => {
            let mut of = kind(&schema["additionalProperties"]);
            of.before.insert_str(0, "map of ");
            of
        }
        "string" if schema["enum"].is_array() => {
            let words = schema["enum"].as_array().into_iter().flatten().filter_map(Value::as_str);
            plain(&words.collect::<Vec<_>>().join(" | "))
        }
        "string" if schema["format"] == "binary" => plain("bytes"),
        name => plain(name),
    };
    found.after.push_str(if null { " or null" } else { "" });
    found
}

fn plain(name: &str) -> ApiKind {
    ApiKind { name: name.to_owned(), ..ApiKind::default() }
}

/// Who may, in words.
fn who(access: &Value) -> String {
    let people = match text(access, "who").as_str() {
        "public" => return "everybody, signed in or not".to_owned(),
        "root" => return "the machine’s root, on the root socket".to_owned(),
        "member" => "users and operators",
        "overseer" => "operators and auditors",
        "operator" => "operators",
        _ => "whoever has signed in",
    };
    format!("{people}; a token needs the scope `{}`", text(access, "scope"))
}

/// The call as a command. Parameters and fields that must be there are, with something to be replaced.
fn curl(method: &str, path: &str, operation: &Value, places: &Places) -> String {
    let parameters = operation["parameters"].as_array().into_iter().flatten();
    let needed = parameters.filter(|one| one["required"] == true && one["in"] == "query");
    let query: Vec<String> = needed.map(|one| format!("{}=…", text(one, "name"))).collect();
    let path = match query.is_empty() {
        true => path.to_owned(),
        false => format!("{path}?{}", query.join("&")),
    };
    let content = &operation["requestBody"]["content"];
    let body = content["application/json"]["schema"].as_object().map(|schema| {
        let example = example(&Value::Object(schema.clone()), 0);
        serde_json::to_string(&example).unwrap_or_default()
    });
    let method = METHODS.into_iter().find(|one| *one == method).unwrap_or("get");
    let method = ["GET", "POST", "PUT", "PATCH", "DELETE"]
        .into_iter()
        .find(|one| one.eq_ignore_ascii_case(method))
        .unwrap_or("GET");
    let mut line = ApiCall::send("", method, path, body).curl(&places.origin);
    if content.get("application/octet-stream").is_some() {
        line = line.replacen(" -X ", " --data-binary @archive.tar -X ", 1);
    }
    let token = "-H \"Authorization: Bearer $BERTH_TOKEN\"";
    match operation["x-access"]["who"].as_str() {
        Some("public") => line.replacen(&format!("{token} "), "", 1),
        Some("root") => line
            .replacen(token, &format!("--unix-socket {}", places.root_socket), 1)
            .replacen(&places.origin, "http://localhost", 1),
        _ => line,
    }
}

/// A value of a schema with what must be in it.
fn example(schema: &Value, depth: usize) -> Value {
    if !schema["example"].is_null() {
        return schema["example"].clone();
    }
    if let Some(name) = schema["$ref"].as_str().and_then(|path| path.strip_prefix(OBJECT)) {
        return match depth {
            0..8 => example(&DOCUMENT["components"]["schemas"][name], depth + 1),
            _ => Value::Null,
        };
    }
    if let Some(first) = schema["enum"].as_array().and_then(|values| values.first()) {
        return first.clone();
    }
    match schema["type"].as_str() {
        Some("integer" | "number") => json!(1),
        Some("boolean") => json!(true),
        Some("array") => json!([]),
        Some("object") => {
            let required = schema["required"].as_array().into_iter().flatten();
            let names = required.filter_map(Value::as_str);
            let field =
                |name: &str| (name.to_owned(), example(&schema["properties"][name], depth + 1));
            Value::Object(names.map(field).collect())
        }
        _ => json!("…"),
    }
}

fn text(value: &Value, key: &str) -> String {
    value[key].as_str().unwrap_or_default().to_owned()
}

/// Words of a comment on one line.
fn line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_call_is_under_one_resource_and_every_object_is_described() {
        let groups = groups("http://h");
        let paths = DOCUMENT["paths"].as_object().expect("paths");
        let count =
            |item: &Value| METHODS.into_iter().filter(|method| item.get(*method).is_some()).count();
        let calls: usize = groups.iter().map(|group| group.calls.len()).sum();
        assert_eq!(calls, paths.values().map(count).sum::<usize>());
        for group in &groups {
            assert!(!group.calls.is_empty(), "{} has no call", group.name);
            for object in objects(group) {
                let told = !object.fields.is_empty() || !object.values.is_empty();
                assert!(told || !object.about.is_empty(), "{} is not described", object.name);
            }
        }
    }

    #[test]
    fn commands_say_what_must_be_said_and_no_more() {
        let places = Places { origin: "http://h".into(), root_socket: "/run/root.sock".into() };
        let of = |name: &str, id: &str| {
            let group = group(name, &places).expect("the resource");
            let call = group.calls.into_iter().find(|call| call.id == id);
            call.expect("the call").curl
        };
        assert_eq!(
            of("containers", "containers_show"),
            "curl -H \"Authorization: Bearer $BERTH_TOKEN\" 'http://h/api/v1/containers/{id}'"
        );
        assert_eq!(of("setup", "setup_show"), "curl 'http://h/api/v1/setup'");
        assert_eq!(
            of("keys", "keys_list"),
            "curl --unix-socket /run/root.sock 'http://localhost/api/v1/keys'"
        );
        assert!(
            of("tokens", "tokens_make").contains("\"days\":1,\"name\":\"…\",\"scope\":\"read\"")
        );
        assert!(of("images", "images_import").contains("--data-binary @archive.tar"));
    }
}
