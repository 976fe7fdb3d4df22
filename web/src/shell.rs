//! What every page has around its content: title, navigation, viewer, notices and the API drawer.

use crate::assets;

/// The frame of a page.
#[derive(Debug, Clone, Default)]
pub struct Shell {
    /// The page's own title, without the product's name.
    pub title: String,
    /// Which entry of the navigation it belongs to.
    pub section: Section,
    /// Who looks at it; nobody on the pages before sign-in.
    pub viewer: Option<Viewer>,
    /// The entries of the navigation that lead somewhere for the viewer, in the order of [`ENTRIES`].
    pub entries: Vec<&'static Entry>,
    /// What everyone must know, above the page.
    pub strips: Vec<Strip>,
    /// The viewer's choice of colours.
    pub theme: Theme,
    /// What title and favicon say of the state.
    pub mark: Mark,
    /// The result of the action that led here.
    pub flash: Option<Flash>,
    /// Where the viewer asks an operator for more of the limit that was just in the way.
    pub ask: Option<String>,
    /// The API calls that this page makes.
    pub calls: Vec<ApiCall>,
    /// Seconds between updates of the live regions; none when nothing on the page moves.
    pub live_secs: Option<u32>,
    /// Seconds after which a browser without a script opens the page again; none where that would take away
    /// what somebody has marked, opened or typed.
    pub reload_secs: Option<u32>,
    /// Path and query of the page, where the theme form returns to.
    pub path: String,
    /// Scheme, host and port as the browser sees them, for the API drawer.
    pub origin: String,
}

/// What a page belongs to, in the navigation.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Section {
    /// None of it.
    #[default]
    None,
    /// One's own space: where signing in leads.
    Home,
    /// Containers, their details and the launch page.
    Containers,
    /// Images.
    Images,
    /// Directories that outlive containers.
    Volumes,
    /// Long actions.
    Operations,
    /// People, for those who oversee them.
    People,
    /// What happened on the machine.
    Events,
    /// Where images may come from.
    Registries,
    /// The machine.
    System,
    /// How things work, and the API.
    Help,
    /// One's own account.
    Account,
}

/// Where an entry of the navigation stands.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Group {
    /// Everybody's.
    Main,
    /// Under the heading for those who oversee the machine.
    Machine,
    /// At the foot, beside the person's name.
    Foot,
}

/// An entry of the navigation. It is shown to whom the route at `path` lets in, and to nobody while
/// there is no such route.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Entry {
    /// What it stands for.
    pub section: Section,
    /// Where it leads.
    pub path: &'static str,
    /// What it is called.
    pub label: &'static str,
    /// A symbol of `icons.svg`.
    pub icon: &'static str,
    /// The key that leads there after `g`.
    pub key: &'static str,
    /// Where it stands.
    pub group: Group,
}

/// All entries.
pub const ENTRIES: &[Entry] = &[
    entry(Section::Home, "/home", "Home", "home", "h", Group::Main),
    entry(Section::Containers, "/containers", "Containers", "container", "c", Group::Main),
    entry(Section::Images, "/images", "Images", "image", "i", Group::Main),
    entry(Section::Volumes, "/volumes", "Volumes", "volume", "v", Group::Main),
    entry(Section::Operations, "/operations", "Operations", "operation", "o", Group::Main),
    entry(Section::People, "/people", "People", "people", "p", Group::Machine),
    entry(Section::Events, "/events", "Events", "event", "e", Group::Machine),
    entry(Section::Registries, "/registries", "Registries", "registry", "r", Group::Machine),
    entry(Section::System, "/system", "System", "system", "s", Group::Machine),
    entry(Section::Help, "/help", "Help", "help", "?", Group::Foot),
];

const fn entry(
    section: Section,
    path: &'static str,
    label: &'static str,
    icon: &'static str,
    key: &'static str,
    group: Group,
) -> Entry {
    Entry { section, path, label, icon, key, group }
}

/// One thing that everyone must know.
#[derive(Debug, Clone)]
pub struct Strip {
    /// The colour: `Bad`, `Attention` or `Neutral`.
    pub tone: Tone,
    /// One sentence.
    pub text: String,
    /// Where there is more, as label and path.
    pub link: Option<(&'static str, String)>,
}

/// The person who looks.
#[derive(Debug, Clone, Default)]
pub struct Viewer {
    /// Their name.
    pub name: String,
    /// Their role, in one word.
    pub role: String,
    /// Whether they may launch and pull.
    pub acts: bool,
}

/// Light or dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Theme {
    /// As the system says.
    #[default]
    System,
    /// Always light.
    Light,
    /// Always dark.
    Dark,
}

impl Theme {
    /// Reads the choice from a form or a cookie; anything unknown is the system's.
    pub fn read(text: &str) -> Self {
        match text {
            "light" => Self::Light,
            "dark" => Self::Dark,
            _ => Self::System,
        }
    }

    /// The name in forms, cookies and the style sheet.
    pub fn name(self) -> &'static str {
        match self {
            Self::System => "system",
            Self::Light => "light",
            Self::Dark => "dark",
        }
    }
}

/// What title and favicon say.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Mark {
    /// Nothing runs.
    #[default]
    Idle,
    /// Something runs and all is well.
    Running,
    /// Something needs the viewer.
    Attention,
}

/// The result of an action, shown once.
#[derive(Debug, Clone)]
pub struct Flash {
    /// Whether it worked.
    pub tone: Tone,
    /// What happened, in one sentence.
    pub text: String,
}

/// What a colour and an icon stand for; always beside a word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tone {
    /// As it should be.
    Good,
    /// Worth a look.
    Attention,
    /// Wrong.
    Bad,
    /// Neither.
    #[default]
    Neutral,
    /// On its way.
    Busy,
}

impl Tone {
    /// The name of its CSS class.
    pub fn class(self) -> &'static str {
        match self {
            Self::Good => "good",
            Self::Attention => "attention",
            Self::Bad => "bad",
            Self::Neutral => "neutral",
            Self::Busy => "busy",
        }
    }
}

/// One call of the API, shown as curl.
#[derive(Debug, Clone)]
pub struct ApiCall {
    /// What it does.
    pub title: String,
    /// The HTTP method.
    pub method: &'static str,
    /// Path and query.
    pub path: String,
    /// The JSON body, if any.
    pub body: Option<String>,
}

impl ApiCall {
    /// A call that reads.
    pub fn get(title: &str, path: impl Into<String>) -> Self {
        Self { title: title.to_owned(), method: "GET", path: path.into(), body: None }
    }

    /// A call that acts.
    pub fn send(
        title: &str,
        method: &'static str,
        path: impl Into<String>,
        body: Option<String>,
    ) -> Self {
        Self { title: title.to_owned(), method, path: path.into(), body }
    }

    /// The command line, for a POSIX shell.
    pub fn curl(&self, origin: &str) -> String {
        let mut line = String::from("curl -H \"Authorization: Bearer $BERTH_TOKEN\"");
        if self.method != "GET" {
            line.push_str(" -X ");
            line.push_str(self.method);
        }
        if let Some(body) = &self.body {
            line.push_str(" -H 'Content-Type: application/json' -d ");
            line.push_str(&quoted(body));
        }
        line.push(' ');
        line.push_str(&quoted(&format!("{origin}{}", self.path)));
        line
    }
}

/// `text` as one word of a POSIX shell.
fn quoted(text: &str) -> String {
    format!("'{}'", text.replace('\'', "'\\''"))
}

impl Shell {
    /// The document's title; a state sign leads it so that a narrow tab still shows it.
    pub(crate) fn document_title(&self) -> String {
        let sign = match self.mark {
            Mark::Idle => "",
            Mark::Running => "● ",
            Mark::Attention => "▲ ",
        };
        if self.title.is_empty() {
            "Berth".into()
        } else {
            format!("{sign}{} · Berth", self.title)
        }
    }

    /// The favicon's path.
    pub(crate) fn favicon(&self) -> &'static str {
        match self.mark {
            Mark::Idle => assets::path("mark-idle", "svg"),
            Mark::Running => assets::path("mark-running", "svg"),
            Mark::Attention => assets::path("mark-attention", "svg"),
        }
    }

    /// `page` on the current entry of the navigation, for `aria-current`.
    pub(crate) fn current(&self, section: Section) -> &'static str {
        if self.section == section { "page" } else { "false" }
    }

    /// The same for an entry.
    pub(crate) fn at(&self, entry: &Entry) -> &'static str {
        self.current(entry.section)
    }

    /// The entries of a group.
    pub(crate) fn group(&self, group: Group) -> impl Iterator<Item = &'static Entry> {
        self.entries.iter().copied().filter(move |entry| entry.group == group)
    }

    /// Whether there is any entry of a group.
    pub(crate) fn has(&self, group: Group) -> bool {
        self.group(group).next().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn curl_lines_cannot_be_broken_out_of() {
        let call = ApiCall::send("x", "POST", "/api/v1/a'b", Some("{\"n\":\"it's\"}".to_owned()));
        assert_eq!(
            call.curl("http://h"),
            "curl -H \"Authorization: Bearer $BERTH_TOKEN\" -X POST -H 'Content-Type: application/json' \
             -d '{\"n\":\"it'\\''s\"}' 'http://h/api/v1/a'\\''b'"
        );
    }
}
