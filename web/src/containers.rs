//! Pages of containers: the list, launching one, and one in detail.

use askama::Template;

use crate::charts::Charts;
use crate::format::Moment;
use crate::parts::{Act, Badge, Fact, FactKind, Field, Meter, Scope};
use crate::shell::{Shell, Tone};

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
    /// The order as the link has it; empty for the usual one.
    pub sort: String,
    /// The columns that are shown, in order.
    pub heads: Vec<ColumnHead>,
    /// All columns, and whether they are shown.
    pub choices: Vec<(Column, bool)>,
    /// Whether somebody has chosen the columns: then none is hidden for want of room.
    pub chosen: bool,
    /// The rows.
    pub rows: Vec<Row>,
    /// Where in the whole list the rows are.
    pub pages: Pages,
    /// Whether there is no container at all, filter or not.
    pub first_use: bool,
}

/// A column of the list beside the name.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Column {
    /// The name; always shown.
    Name,
    /// Whose it is.
    Owner,
    /// What it is doing, and why.
    State,
    /// What it is made from.
    Image,
    /// Processor use beside the limit.
    Cpu,
    /// Memory use beside the limit.
    Memory,
    /// Processes beside the limit.
    Pids,
    /// Where it is on its network.
    Address,
    /// What is done when it ends.
    Restart,
    /// When it was made.
    Created,
    /// Since when it is in its state.
    Since,
}

/// All columns that can be chosen, in the order in which they are shown.
pub const COLUMNS: [Column; 10] = [
    Column::Owner,
    Column::State,
    Column::Image,
    Column::Cpu,
    Column::Memory,
    Column::Pids,
    Column::Address,
    Column::Restart,
    Column::Created,
    Column::Since,
];

impl Column {
    /// The column of this name.
    pub fn read(name: &str) -> Option<Self> {
        COLUMNS.into_iter().chain([Self::Name]).find(|column| column.name() == name)
    }

    /// Its name in links and cookies.
    pub fn name(self) -> &'static str {
        match self {
            Self::Name => "name",
            Self::Owner => "owner",
            Self::State => "state",
            Self::Image => "image",
            Self::Cpu => "cpu",
            Self::Memory => "memory",
            Self::Pids => "pids",
            Self::Address => "address",
            Self::Restart => "restart",
            Self::Created => "created",
            Self::Since => "since",
        }
    }

    /// Its head.
    pub fn label(self) -> &'static str {
        match self {
            Self::Name => "Name",
            Self::Owner => "Owner",
            Self::State => "State",
            Self::Image => "Image",
            Self::Cpu => "Processor",
            Self::Memory => "Memory",
            Self::Pids => "Processes",
            Self::Address => "Address",
            Self::Restart => "When it ends",
            Self::Created => "Made",
            Self::Since => "Since",
        }
    }

    /// Whether its order begins with the greatest.
    pub fn is_figure(self) -> bool {
        matches!(self, Self::Cpu | Self::Memory | Self::Pids | Self::Created | Self::Since)
    }

    /// The CSS class of its cells.
    pub(crate) fn class(self) -> &'static str {
        match self {
            Self::Cpu | Self::Memory | Self::Pids => "use",
            Self::Created => "since",
            other => other.name(),
        }
    }
}

/// The head of a column.
#[derive(Debug, Clone)]
pub struct ColumnHead {
    /// The column.
    pub column: Column,
    /// Where its order leads.
    pub path: String,
    /// `ascending`, `descending` or `none`.
    pub order: &'static str,
}

/// Where in a long list one is.
#[derive(Debug, Clone, Default)]
pub struct Pages {
    /// `101 to 200 of 1 000`; empty when all is shown.
    pub words: String,
    /// The page before.
    pub before: Option<String>,
    /// The page after.
    pub next: Option<String>,
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
    /// Processes.
    pub pids: Meter,
    /// The address on the owner's bridge; may be empty.
    pub address: String,
    /// What is done when it ends.
    pub restart: &'static str,
    /// When it was made.
    pub created: Option<Moment>,
    /// Since when it is in this state.
    pub since: Option<Moment>,
    /// The main thing to do with it.
    pub main: Option<Act>,
    /// The other things.
    pub more: Vec<Act>,
}

/// What an action on many has come to, one by one.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/bulk.html")]
pub struct BulkPage {
    /// The frame.
    pub shell: Shell,
    /// `Stop: 3 done, 1 not`.
    pub title: String,
    /// The results.
    pub rows: Vec<BulkRow>,
    /// Back to the list.
    pub back: String,
}

/// One result.
#[derive(Debug, Clone)]
pub struct BulkRow {
    /// The container's name.
    pub name: String,
    /// Its page, if it has one.
    pub path: Option<String>,
    /// Good, busy or bad.
    pub tone: Tone,
    /// What it is now, or why not.
    pub text: String,
}

impl BulkRow {
    /// The sign of its tone.
    pub(crate) fn badge(&self) -> Badge {
        let (icon, word) = match self.tone {
            Tone::Bad => ("failed", "not done"),
            Tone::Busy => ("busy", "under way"),
            _ => ("check", "done"),
        };
        Badge { tone: self.tone, icon, word: word.to_owned(), reason: self.text.clone() }
    }
}

/// The form that launches a container.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/launch.html")]
pub struct LaunchPage {
    /// Which ports of the host can be leased, in words.
    pub ports_hint: String,
    /// How long it may run, in words.
    pub lifetime_hint: String,
    /// Which volumes the viewer has, in words.
    pub volumes_hint: String,
    /// Which data sets the viewer may have, in words; empty when there are none to be asked for.
    pub data_sets_hint: String,
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
    /// Limits with a name, to choose from.
    pub sizes: Vec<Size>,
    /// What the launch leaves, a sentence each.
    pub left: Vec<String>,
    /// The same as JSON and as a command.
    pub preview: Preview,
}

/// Limits with a name.
#[derive(Debug, Clone)]
pub struct Size {
    /// The name.
    pub name: String,
    /// Cores and memory in words.
    pub words: String,
    /// Whether the form holds just these.
    pub chosen: bool,
    /// Cores, as the field takes them.
    pub cpu: String,
    /// Weight.
    pub cpu_weight: String,
    /// Memory.
    pub memory: String,
    /// Swap.
    pub swap: String,
    /// Processes.
    pub pids: String,
}

/// A launch as the API takes it.
#[derive(Debug, Clone, Default)]
pub struct Preview {
    /// The request's body.
    pub json: String,
    /// The whole request as a command.
    pub curl: String,
    /// What happens to the image first.
    pub image: String,
    /// What is missing or wrong; empty when it can be launched.
    pub not_ready: String,
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
    /// `[host:]container[/protocol]` lines.
    pub ports: Field,
    /// `NAME:/path[:ro]` lines.
    pub volumes: Field,
    /// `NAME:/path` lines.
    pub data_sets: Field,
    /// `no`, `on-failure`, `always` or `unless-stopped`.
    pub restart: Field,
    /// Attempts of `on-failure`.
    pub restart_attempts: Field,
    /// How long it runs.
    pub lifetime: Field,
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
    /// Names of capabilities.
    pub capabilities: Field,
    /// Whether the root is read-only.
    pub read_only_root: bool,
    /// Whether the program has a terminal.
    pub terminal: bool,
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
            &self.capabilities,
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
    /// What the viewer may do with it, for the tabs.
    pub may: May,
}

/// What the viewer of a container may do with it.
#[derive(Debug, Clone, Copy, Default)]
pub struct May {
    /// Read its log.
    pub logs: bool,
    /// See its environment, command and processes.
    pub files: bool,
    /// Run programs in it.
    pub terminal: bool,
    /// Change limits and restart policy.
    pub manage: bool,
    /// See with whom it is shared.
    pub sees_shares: bool,
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
    /// What confines it.
    Posture,
    /// What is in its file system.
    Files,
    /// Programs in it, by hand.
    Terminal,
    /// What can be changed.
    Settings,
    /// Who else has something of it.
    Sharing,
    /// Who did what, and what happened.
    Activity,
    /// As the API and the supervisor have it.
    Raw,
}

impl Head {
    /// `page` on the tab that is shown, for `aria-current`.
    pub(crate) fn current(&self, tab: Tab) -> &'static str {
        if self.tab == tab { "page" } else { "false" }
    }
}

/// With whom a container is shared.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/sharing.html")]
pub struct SharingPage {
    /// The frame.
    pub shell: Shell,
    /// The container.
    pub head: Head,
    /// Why it was not shared; may be empty.
    pub error: String,
    /// With whom it is.
    pub rows: Vec<ShareRow>,
    /// Whether the viewer may share it.
    pub shares: bool,
    /// Whether they may end what was shared.
    pub ends: bool,
    /// `person` or `group`, as chosen.
    pub kind: String,
    /// With whom, as typed.
    pub grantee: Field,
    /// How much, as chosen.
    pub level: String,
    /// Groups that the viewer is in.
    pub groups: Vec<String>,
    /// Whether the viewer is an operator who may look into it.
    pub may_look: bool,
    /// Which operators have, newest first.
    pub looks: Vec<LookRow>,
    /// Why the viewer wants to, as typed.
    pub reason: Field,
}

/// An operator's look into a container.
#[derive(Debug, Clone)]
pub struct LookRow {
    /// Who.
    pub operator: String,
    /// Why.
    pub reason: String,
    /// Since when.
    pub began: Moment,
    /// Until when.
    pub until: Moment,
    /// Whether that is not over.
    pub goes_on: bool,
    /// Whether it is the viewer's own and goes on, so that they may end it.
    pub ends: bool,
}

/// Somebody, or a group, with whom a container is shared.
#[derive(Debug, Clone)]
pub struct ShareRow {
    /// The name.
    pub name: String,
    /// Whether it is a group's.
    pub is_group: bool,
    /// What they may, in words.
    pub may: String,
    /// Since when.
    pub since: Moment,
    /// What the form sends to end it.
    pub value: String,
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
    /// That it is stopped soon, in a sentence; may be empty.
    pub ending: String,
    /// Live figures.
    pub gauges: Vec<Meter>,
    /// The last hour.
    pub hour: Charts,
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
    /// The links that choose an output.
    pub streams: Vec<Scope>,
    /// `all`, `stdout` or `stderr`.
    pub stream: String,
    /// How many lines were asked for.
    pub tail: u32,
    /// What is looked for; may be empty.
    pub find: String,
    /// How far back: empty, `15m`, `1h` or `24h`.
    pub since: String,
    /// Whether each line begins with its time.
    pub times: bool,
    /// Whether long lines are wrapped.
    pub wrap: bool,
    /// What was left out, in a sentence; may be empty.
    pub left_out: String,
    /// Where more lines are shown; none when there are no more.
    pub more: Option<String>,
    /// The lines, oldest first.
    pub lines: Vec<LogLine>,
    /// Where the script follows the log from.
    pub follow: String,
    /// Whether it runs, so that there is something to follow.
    pub live: bool,
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
    /// The limits, and the kernel's files that hold them.
    pub limits: Vec<LimitRow>,
}

/// The page that asks before something is lost.
#[derive(Debug, Clone, Default, Template)]
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
    /// What has to be typed first, as the field `typed`; empty for nothing.
    pub typed: String,
    /// Why the answer was not taken.
    pub error: String,
    /// Where one goes who decides against it.
    pub back: String,
}

/// Who did what to a container, and what happened to it.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/activity.html")]
pub struct ActivityPage {
    /// The frame.
    pub shell: Shell,
    /// The head.
    pub head: Head,
    /// The story, newest first.
    pub rows: Vec<ActivityRow>,
    /// The next page's address.
    pub next: Option<String>,
}

/// One line of the story.
#[derive(Debug, Clone)]
pub struct ActivityRow {
    /// When.
    pub at: Moment,
    /// Who asked for it; empty when nobody did.
    pub by: String,
    /// How they had signed in, in words; may be empty.
    pub via: &'static str,
    /// What.
    pub text: String,
    /// Whether it is something bad.
    pub bad: bool,
}

/// A container as the API and the supervisor have it.
#[derive(Debug, Clone, Template)]
#[template(path = "containers/raw.html")]
pub struct RawPage {
    /// The frame.
    pub shell: Shell,
    /// The head.
    pub head: Head,
    /// Blocks of text with their headings.
    pub blocks: Vec<RawBlock>,
}

/// One block of text.
#[derive(Debug, Clone)]
pub struct RawBlock {
    /// What it is.
    pub title: &'static str,
    /// Where it comes from, in a sentence.
    pub hint: &'static str,
    /// The text.
    pub text: String,
}
