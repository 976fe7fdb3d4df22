//! Pages of containers: the list, launching one, and one in detail.

use askama::Template;

use crate::format::Moment;
use crate::parts::{Act, Badge, Fact, FactKind, Field, Meter, Scope};
use crate::shell::Shell;

/// All containers that the viewer may see.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/list.html")]
pub struct ListPage {
    /// The frame.
    pub shell: Shell,
    /// What the shown containers use together.
    pub readouts: Vec<Meter>,
    /// The links that narrow the list.
    pub scopes: Vec<Scope>,
    /// The filter as typed.
    pub query: String,
    /// What is wrong with the filter; may be empty.
    pub query_error: String,
    /// Whether the owner is a column.
    pub shows_owner: bool,
    /// The rows.
    pub rows: Vec<Row>,
    /// The next page's address.
    pub next: Option<String>,
    /// Whether there is no container at all, filter or not.
    pub first_use: bool,
}

/// One container in the list.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The whole id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The owner's name.
    pub owner: String,
    /// The state.
    pub state: Badge,
    /// The image's reference.
    pub image: String,
    /// Processor use.
    pub cpu: Meter,
    /// Memory use.
    pub memory: Meter,
    /// The address on the owner's bridge; may be empty.
    pub address: String,
    /// Since when it is in this state.
    pub since: Option<Moment>,
    /// The main thing to do with it.
    pub main: Option<Act>,
    /// The other things.
    pub more: Vec<Act>,
}

/// The form that launches a container.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/launch.html")]
pub struct LaunchPage {
    /// The frame.
    pub shell: Shell,
    /// What is wrong beyond single fields; may be empty.
    pub error: String,
    /// What was typed.
    pub form: LaunchForm,
    /// References of the images that the viewer has.
    pub images: Vec<String>,
    /// What may be asked for, said beside the fields.
    pub ceilings: Ceilings,
}

/// What the launch form holds.
#[derive(Debug, Clone, Default)]
pub struct LaunchForm {
    /// The image's reference.
    pub image: Field,
    /// The container's name.
    pub name: Field,
    /// Command, one shell-like line.
    pub command: Field,
    /// Entrypoint, one shell-like line.
    pub entrypoint: Field,
    /// `NAME=value` lines.
    pub env: Field,
    /// Working directory.
    pub workdir: Field,
    /// User inside.
    pub user: Field,
    /// Host name.
    pub hostname: Field,
    /// `key=value` lines.
    pub labels: Field,
    /// Cores.
    pub cpu: Field,
    /// Weight.
    pub cpu_weight: Field,
    /// Memory.
    pub memory: Field,
    /// Swap.
    pub swap: Field,
    /// Processes.
    pub pids: Field,
    /// `private` or `none`.
    pub network: Field,
    /// `no`, `on-failure`, `always` or `unless-stopped`.
    pub restart: Field,
    /// Attempts of `on-failure`.
    pub restart_attempts: Field,
    /// Signal that stops it.
    pub stop_signal: Field,
    /// Seconds until it is killed.
    pub stop_grace: Field,
    /// `/path=size` lines.
    pub tmpfs: Field,
    /// Size of /dev/shm.
    pub shm: Field,
    /// `name=soft:hard` lines.
    pub ulimits: Field,
    /// Whether the root is read-only.
    pub read_only_root: bool,
}

impl LaunchForm {
    /// Whether one of the fields that are folded away is wrong, so that they must be unfolded.
    pub(crate) fn details_open(&self) -> bool {
        [
            &self.entrypoint,
            &self.workdir,
            &self.user,
            &self.hostname,
            &self.labels,
            &self.cpu_weight,
            &self.stop_signal,
            &self.stop_grace,
            &self.tmpfs,
            &self.shm,
            &self.ulimits,
            &self.restart_attempts,
        ]
        .iter()
        .any(|field| !field.error.is_empty())
    }
}

/// The highest limits that the viewer may ask for, as shown.
#[derive(Debug, Clone, Default)]
pub struct Ceilings {
    /// Cores.
    pub cpu: String,
    /// Memory.
    pub memory: String,
    /// Swap.
    pub swap: String,
    /// Processes.
    pub pids: String,
}

/// What all pages of one container show at their head.
#[derive(Debug, Clone, Default)]
pub struct Head {
    /// The whole id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The owner, shown to those who see other people's.
    pub owner: Option<String>,
    /// The state.
    pub state: Badge,
    /// The image's reference.
    pub image: String,
    /// The main thing to do with it.
    pub main: Option<Act>,
    /// Others, in a row.
    pub acts: Vec<Act>,
    /// The rest, in a menu.
    pub more: Vec<Act>,
    /// Which tab is shown.
    pub tab: Tab,
    /// Whether the viewer may read content (log, processes, settings).
    pub content: bool,
}

/// The tabs of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Tab {
    /// Figures and facts.
    #[default]
    Overview,
    /// What it has said.
    Logs,
    /// What runs in it.
    Processes,
    /// What can be changed.
    Settings,
}

impl Head {
    /// `page` on the tab that is shown, for `aria-current`.
    pub(crate) fn current(&self, tab: Tab) -> &'static str {
        if self.tab == tab { "page" } else { "false" }
    }
}

/// A container at a glance.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/overview.html")]
pub struct OverviewPage {
    /// The frame.
    pub shell: Shell,
    /// The head.
    pub head: Head,
    /// The end of the last run, or why it doesn't run, in a sentence; may be empty.
    pub story: String,
    /// Live figures.
    pub gauges: Vec<Meter>,
    /// The limits, and whether the kernel holds them.
    pub limits: Vec<LimitRow>,
    /// Everything else.
    pub facts: Vec<Fact>,
    /// `NAME=value`, for those who may read it.
    pub env: Vec<String>,
    /// `key=value`.
    pub labels: Vec<String>,
}

/// One limit.
#[derive(Debug, Clone)]
pub struct LimitRow {
    /// What is limited.
    pub name: &'static str,
    /// What was asked for.
    pub asked: String,
    /// What the kernel's file says; empty while nothing runs.
    pub value: String,
    /// The kernel's file; empty while nothing runs.
    pub file: String,
    /// Whether the kernel holds it.
    pub held: Badge,
}

impl LimitRow {
    /// The file's name without its folders, which the title shows.
    pub(crate) fn file_name(&self) -> &str {
        self.file.rsplit('/').next().unwrap_or_default()
    }
}

/// A container's log.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/logs.html")]
pub struct LogsPage {
    /// The frame.
    pub shell: Shell,
    /// The head.
    pub head: Head,
    /// `all`, `stdout` or `stderr`.
    pub stream: String,
    /// How many lines were asked for.
    pub tail: u32,
    /// Whether there are more lines than shown.
    pub truncated: bool,
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// Where the script follows the log from; none when it must not.
    pub follow: Option<String>,
    /// Where the whole log can be fetched as text.
    pub download: String,
}

/// One line of a log.
#[derive(Debug, Clone)]
pub struct LogLine {
    /// Time of day.
    pub clock: String,
    /// The exact time.
    pub exact: String,
    /// Whether it came from standard error.
    pub stderr: bool,
    /// The text, control characters already made visible.
    pub text: String,
}

/// What runs in a container.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/processes.html")]
pub struct ProcessesPage {
    /// The frame.
    pub shell: Shell,
    /// The head.
    pub head: Head,
    /// The processes.
    pub rows: Vec<ProcessRow>,
    /// Whether there are more than shown.
    pub truncated: bool,
}

/// One process.
#[derive(Debug, Clone)]
pub struct ProcessRow {
    /// Its id inside.
    pub pid: i32,
    /// Its parent's id inside.
    pub parent: i32,
    /// Its user inside.
    pub user: String,
    /// What it is doing, in a word.
    pub state: &'static str,
    /// Processor time used.
    pub cpu_time: String,
    /// Resident memory.
    pub memory: String,
    /// How long it has been there.
    pub age: String,
    /// Its command line.
    pub command: String,
}

/// What can be changed of a container.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/settings.html")]
pub struct SettingsPage {
    /// The frame.
    pub shell: Shell,
    /// The head.
    pub head: Head,
    /// What is wrong beyond single fields; may be empty.
    pub error: String,
    /// The name.
    pub name: Field,
    /// Cores.
    pub cpu: Field,
    /// Weight.
    pub cpu_weight: Field,
    /// Memory.
    pub memory: Field,
    /// Swap.
    pub swap: Field,
    /// Processes.
    pub pids: Field,
    /// `no`, `on-failure`, `always` or `unless-stopped`.
    pub restart: Field,
    /// Attempts of `on-failure`.
    pub restart_attempts: Field,
    /// What may be asked for.
    pub ceilings: Ceilings,
    /// Whether a change is felt by running processes at once.
    pub live: bool,
    /// The use now, beside the limits.
    pub gauges: Vec<Meter>,
}

/// The page that asks before something is lost.
#[derive(Debug, Clone, Template)]
#[template(path = "confirm.html")]
pub struct ConfirmPage {
    /// The frame.
    pub shell: Shell,
    /// The question, `Remove train-3?`.
    pub question: String,
    /// What is lost, a sentence each.
    pub losses: Vec<String>,
    /// What the button says.
    pub verb: &'static str,
    /// Where it posts to.
    pub path: String,
    /// Hidden fields.
    pub hidden: Vec<(String, String)>,
    /// Where one goes who decides against it.
    pub back: String,
}
