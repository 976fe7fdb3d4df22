//! Help: the manual, the API's reference, and what each code of a problem means. All of it can be
//! read without having signed in.

use askama::Template;

use crate::shell::Shell;

/// The views of help, for its own navigation.
#[derive(Debug, Clone)]
pub struct View {
    /// What it is called.
    pub label: &'static str,
    /// Where it is.
    pub path: String,
    /// Whether it is the one shown.
    pub current: bool,
}

/// A part of the manual.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Topic {
    /// From signing in to the first container's end.
    Start,
    /// Launching with limits, life, logs, figures.
    Containers,
    /// Pulling, importing, registries.
    Images,
    /// The program `berth` in a terminal.
    CommandLine,
    /// Tokens, calls, long work, streams.
    Scripts,
    /// For those who run the machine.
    Operators,
    /// The runtime under other engines, and alone.
    Runtime,
    /// The keyboard.
    Keys,
}

impl Topic {
    /// All of them, in the order in which they are read.
    pub const ALL: [Self; 8] = [
        Self::Start,
        Self::Containers,
        Self::Images,
        Self::CommandLine,
        Self::Scripts,
        Self::Operators,
        Self::Runtime,
        Self::Keys,
    ];

    /// Its place in the path.
    pub fn slug(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Containers => "containers",
            Self::Images => "images",
            Self::CommandLine => "command-line",
            Self::Scripts => "scripts",
            Self::Operators => "operators",
            Self::Runtime => "runtime",
            Self::Keys => "keys",
        }
    }

    /// What it is called.
    pub fn title(self) -> &'static str {
        match self {
            Self::Start => "First steps",
            Self::Containers => "Containers",
            Self::Images => "Images",
            Self::CommandLine => "Command line",
            Self::Scripts => "Scripts",
            Self::Operators => "Running the machine",
            Self::Runtime => "The runtime elsewhere",
            Self::Keys => "Keyboard",
        }
    }

    /// What is in it.
    pub fn about(self) -> &'static str {
        match self {
            Self::Start => "Sign in, launch something, look at it, remove it.",
            Self::Containers => "Limits, life, network, files, logs, figures.",
            Self::Images => "Pull, import, private registries, what is whose.",
            Self::CommandLine => "Sign in, run, look, open a shell: from a terminal.",
            Self::Scripts => "Tokens, calls, repeats, long work, streams, errors.",
            Self::Operators => {
                "People, the lab’s network, keys, health, maintenance, backup, removal."
            }
            Self::Runtime => "berth-runtime under Podman and Docker, and alone with a bundle.",
            Self::Keys => "Every page without a mouse.",
        }
    }
}

/// What of this machine the manual speaks of.
#[derive(Debug, Clone, Default)]
pub struct Here {
    /// Scheme, host and port, for commands.
    pub origin: String,
    /// Containers that one person may have.
    pub containers_max: String,
    /// What of a log is kept.
    pub log_kept: String,
    /// What an archive may be in size.
    pub import_max: String,
    /// How long a session lasts.
    pub session: String,
    /// How long a token may last at most, in days.
    pub token_days: String,
    /// How long an invitation can be used.
    pub invitation: String,
    /// How long an `Idempotency-Key` is remembered.
    pub idempotency: String,
    /// What stops before the kill.
    pub grace: String,
    /// Limits that a container gets when nothing is said.
    pub defaults: String,
    /// The most that a container may be given.
    pub ceilings: String,
    /// The data directory.
    pub data_dir: String,
    /// The socket of root's own.
    pub root_socket: String,
}

/// The commands of the manual, for a POSIX shell.
impl Here {
    pub(crate) fn shell_function(&self) -> String {
        "api() { curl -sS -H \"Authorization: Bearer $BERTH_TOKEN\" -H 'Content-Type: application/json' \
         \"$@\"; }"
            .to_owned()
    }

    pub(crate) fn launch(&self) -> String {
        format!(
            "api {}/api/v1/containers -d '{{\"name\": \"hello\", \"image\": \"berth/starter\", \
             \"start\": true, \"command\": [\"sh\", \"-c\", \"while date; do sleep 1; done\"], \
             \"limits\": {{\"memory_bytes\": 67108864, \"cpu_millis\": 500}}}}'",
            self.origin
        )
    }

    pub(crate) fn read_log(&self) -> String {
        format!("api '{}/api/v1/containers/hello/logs?tail=10'", self.origin)
    }

    pub(crate) fn change_limit(&self) -> String {
        format!(
            "api -X PATCH {}/api/v1/containers/hello -d '{{\"limits\": {{\"memory_bytes\": 134217728}}}}'",
            self.origin
        )
    }

    pub(crate) fn remove(&self) -> String {
        format!("api -X DELETE '{}/api/v1/containers/hello?force=true'", self.origin)
    }

    pub(crate) fn follow_events(&self) -> String {
        format!("api -N {}/api/v1/events/stream", self.origin)
    }

    pub(crate) fn generate_client(&self) -> String {
        format!("openapi-python-client generate --url {}/api/v1/openapi.json", self.origin)
    }

    pub(crate) fn login(&self) -> String {
        format!("berth login {}", self.origin)
    }

    pub(crate) fn backup(&self) -> String {
        "berth backup --to /root/berth-backup.tar.gz".to_owned()
    }

    pub(crate) fn downgrade(&self) -> String {
        format!("berth restore --replace {}/db/berth.db.version-N", self.data_dir)
    }

    /// `https` or `http`.
    pub(crate) fn scheme(&self) -> &str {
        self.origin.split_once("://").map_or("http", |(scheme, _)| scheme)
    }

    /// Host and port.
    pub(crate) fn authority(&self) -> &str {
        self.origin.split_once("://").map_or(self.origin.as_str(), |(_, rest)| rest)
    }

    pub(crate) fn root_call(&self) -> String {
        format!("curl --unix-socket {} http://localhost/api/v1/system", self.root_socket)
    }
}

/// Where to begin.
#[derive(Debug, Clone, Template)]
#[template(path = "help/index.html")]
pub struct IndexPage {
    /// The frame.
    pub shell: Shell,
    /// The views of help.
    pub views: Vec<View>,
}

/// A part of the manual.
#[derive(Debug, Clone, Template)]
#[template(path = "help/guide.html")]
pub struct GuidePage {
    /// The frame.
    pub shell: Shell,
    /// The views of help.
    pub views: Vec<View>,
    /// Which part.
    pub topic: Topic,
    /// What of this machine it speaks of.
    pub here: Here,
}

impl GuidePage {
    /// The part that is read next.
    pub(crate) fn next(&self) -> Option<Topic> {
        let at = Topic::ALL.iter().position(|topic| *topic == self.topic)?;
        Topic::ALL.get(at + 1).copied()
    }
}

/// All calls of the API, by resource.
#[derive(Debug, Clone, Template)]
#[template(path = "help/api.html")]
pub struct ApiPage {
    /// The frame.
    pub shell: Shell,
    /// The views of help.
    pub views: Vec<View>,
    /// What the document says of the API as a whole.
    pub about: String,
    /// The resources.
    pub groups: Vec<ApiGroup>,
}

/// The calls of one resource, in full.
#[derive(Debug, Clone, Template)]
#[template(path = "help/resource.html")]
pub struct ResourcePage {
    /// The frame.
    pub shell: Shell,
    /// The views of help.
    pub views: Vec<View>,
    /// The resource.
    pub group: ApiGroup,
    /// The objects that its calls take and give.
    pub objects: Vec<ApiObject>,
}

/// A resource of the API.
#[derive(Debug, Clone, Default)]
pub struct ApiGroup {
    /// Its name in the document.
    pub name: String,
    /// What it is about.
    pub about: String,
    /// Its calls.
    pub calls: Vec<ApiOperation>,
}

/// One call.
#[derive(Debug, Clone, Default)]
pub struct ApiOperation {
    /// Its id in the document; the anchor.
    pub id: String,
    /// The HTTP method.
    pub method: String,
    /// The path with `{parameters}`.
    pub path: String,
    /// What it does: the first line, and more.
    pub summary: String,
    /// The rest of what it does; may be empty.
    pub more: String,
    /// Who may use it.
    pub who: String,
    /// What goes into path, query and headers.
    pub parameters: Vec<ApiField>,
    /// The body that it takes.
    pub body: Option<ApiBody>,
    /// What it answers.
    pub answers: Vec<ApiAnswer>,
    /// An example.
    pub curl: String,
}

/// A field of an object, or a parameter.
#[derive(Debug, Clone, Default)]
pub struct ApiField {
    /// Its name.
    pub name: String,
    /// `path`, `query`, `header`; empty for a field.
    pub place: String,
    /// What it holds.
    pub kind: ApiKind,
    /// Whether it must be there.
    pub required: bool,
    /// What it means.
    pub about: String,
}

/// What a field holds: a type in words, or an object that is described further down.
#[derive(Debug, Clone, Default)]
pub struct ApiKind {
    /// Before the name, such as `list of `.
    pub before: String,
    /// The type, or the object's name.
    pub name: String,
    /// Whether the name is that of an object.
    pub object: bool,
    /// After it, such as ` or null`.
    pub after: String,
}

/// A body that a call takes.
#[derive(Debug, Clone, Default)]
pub struct ApiBody {
    /// Its media type.
    pub media_type: String,
    /// What is in it.
    pub kind: ApiKind,
}

/// What a call answers.
#[derive(Debug, Clone, Default)]
pub struct ApiAnswer {
    /// The status.
    pub status: String,
    /// What it says.
    pub words: String,
    /// Its bodies: media type and what is in it; empty for none.
    pub bodies: Vec<ApiBody>,
}

/// An object of the API.
#[derive(Debug, Clone, Default)]
pub struct ApiObject {
    /// Its name.
    pub name: String,
    /// What it is.
    pub about: String,
    /// Its fields.
    pub fields: Vec<ApiField>,
    /// What it can be, when it is one of several words.
    pub values: Vec<String>,
}

/// All codes of problems.
#[derive(Debug, Clone, Template)]
#[template(path = "help/problems.html")]
pub struct ProblemsPage {
    /// The frame.
    pub shell: Shell,
    /// The views of help.
    pub views: Vec<View>,
    /// The codes, by what they are about.
    pub groups: Vec<(&'static str, Vec<Known>)>,
}

/// One code of a problem.
#[derive(Debug, Clone, Template)]
#[template(path = "help/problem.html")]
pub struct KnownPage {
    /// The frame.
    pub shell: Shell,
    /// The views of help.
    pub views: Vec<View>,
    /// The code.
    pub known: Known,
}

/// What is known of a code.
#[derive(Debug, Clone)]
pub struct Known {
    /// The code.
    pub code: &'static str,
    /// The status and its name, `409 Conflict`.
    pub status: String,
    /// What it means.
    pub title: &'static str,
    /// Why it comes.
    pub cause: &'static str,
    /// What to do.
    pub cure: &'static str,
}

/// A sentence in pieces: what stands between backticks is code (`true`).
pub(crate) fn prose(text: &str) -> impl Iterator<Item = (bool, &str)> {
    text.split('`')
        .enumerate()
        .map(|(at, piece)| (at % 2 == 1, piece))
        .filter(|(_, p)| !p.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn prose_tells_code_from_words() {
        let pieces: Vec<_> = prose("run `berth keys` twice").collect();
        assert_eq!(pieces, [(false, "run "), (true, "berth keys"), (false, " twice")]);
        assert_eq!(prose("`a`").collect::<Vec<_>>(), [(true, "a")]);
    }
}
