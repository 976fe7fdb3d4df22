//! Sample pages of help.

use berth_web::help::{
    ApiAnswer, ApiBody, ApiField, ApiGroup, ApiKind, ApiObject, ApiOperation, ApiPage, GuidePage,
    Here, IndexPage, Known, KnownPage, ProblemsPage, ResourcePage, Topic, View,
};

use super::*;

/// The pages of this file with their names.
pub(super) fn all(hostile: &str, add: &mut impl FnMut(&str, super::Rendered)) {
    let shell = || super::shell("Help", Section::Help);
    add("help", IndexPage { shell: shell(), views: views() }.render());
    for topic in Topic::ALL {
        let page = GuidePage { shell: shell(), views: views(), topic, here: here("http://lab") };
        add(&format!("help-{}", topic.slug()), page.render());
    }
    let stranger = Shell { viewer: None, entries: Vec::new(), ..shell() };
    let (topic, here) =
        (Topic::Containers, Here { origin: "http://lab".into(), ..Here::default() });
    let page = GuidePage { shell: stranger.clone(), views: views(), topic, here };
    add("help-stranger", page.render());
    let groups = vec![group("containers", "Lists containers, newest first.")];
    add("help-api", ApiPage { shell: shell(), views: views(), about: about(), groups }.render());
    add("help-resource", resource("containers", "Lists containers.").render());
    add("hostile-help-resource", resource(hostile, hostile).render());
    let groups = vec![("The request", vec![known(), known()])];
    add("help-problems", ProblemsPage { shell: shell(), views: views(), groups }.render());
    add("help-problem", KnownPage { shell: stranger, views: views(), known: known() }.render());
}

fn about() -> String {
    "Lists take `limit` and `after`.".to_owned()
}

fn views() -> Vec<View> {
    let view = |label, path: &str, current| View { label, path: path.to_owned(), current };
    let mut all = vec![view("Overview", "/help", true)];
    let topics = Topic::ALL.map(|topic| view(topic.title(), "/help/start", false));
    all.extend(topics);
    all.extend([view("API", "/help/api", false), view("Problems", "/help/problems", false)]);
    all
}

fn here(origin: &str) -> Here {
    let text = str::to_owned;
    Here {
        origin: origin.to_owned(),
        containers_max: text("200"),
        log_kept: text("30 MiB"),
        import_max: text("16 GiB"),
        session: text("7 d"),
        token_days: text("366"),
        invitation: text("3 d"),
        idempotency: text("1 d"),
        grace: text("10 s"),
        defaults: text("1 core, 512 MiB of memory and 512 processes"),
        ceilings: text("8 cores, 32 GiB of memory and 4096 processes"),
        data_dir: text("/var/lib/berth"),
        root_socket: text("/run/berth/server/root.sock"),
    }
}

fn known() -> Known {
    Known {
        code: "container.not-running",
        status: "409 Conflict".into(),
        title: "It does not run",
        cause: "Processes and `figures` are a running container’s.",
        cure: "Start it first.",
    }
}

fn group(name: &str, text: &str) -> ApiGroup {
    let object = ApiKind {
        before: "list of ".into(),
        name: "Container".into(),
        object: true,
        after: " or null".into(),
    };
    let field = ApiField {
        name: "state".into(),
        place: "query".into(),
        kind: ApiKind { name: "string".into(), ..ApiKind::default() },
        required: true,
        about: text.to_owned(),
    };
    let body = ApiBody { media_type: "application/json".into(), kind: object };
    let call = ApiOperation {
        id: "containers_list".into(),
        method: "GET".into(),
        path: format!("/api/v1/{name}"),
        summary: text.to_owned(),
        more: text.to_owned(),
        who: "users; a token needs the scope `read`".into(),
        parameters: vec![field],
        body: Some(body.clone()),
        answers: vec![ApiAnswer {
            status: "200".into(),
            words: "Here it is.".into(),
            bodies: vec![body],
        }],
        curl: ApiCall::get("x", "/api/v1/containers").curl("http://lab"),
    };
    ApiGroup { name: name.to_owned(), about: text.to_owned(), calls: vec![call.clone(), call] }
}

fn resource(name: &str, text: &str) -> ResourcePage {
    let group = group(name, text);
    let fields = group.calls[0].parameters.clone();
    let object = ApiObject {
        name: "Container".into(),
        about: text.to_owned(),
        fields,
        values: vec!["running".into(), "exited".into()],
    };
    ResourcePage {
        shell: shell("API", Section::Help),
        views: views(),
        group,
        objects: vec![object],
    }
}
