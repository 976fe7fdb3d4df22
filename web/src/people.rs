//! Pages of people, for operators.

use askama::Template;

use crate::format::Moment;
use crate::parts::{Act, Badge, Fact, FactKind, Field, Meter, Scope};
use crate::shell::Shell;

/// Everyone.
#[derive(Debug, Clone, Template)]
#[template(path = "people/list.html")]
pub struct ListPage {
    /// The frame.
    pub shell: Shell,
    /// What is wrong beyond single fields; may be empty.
    pub error: String,
    /// The new person's name, as typed.
    pub name: Field,
    /// The new person's role, as chosen.
    pub role: Field,
    /// The last day of the new person's account, as typed.
    pub expires: Field,
    /// A link made just now; it is shown this once.
    pub invitation: Option<Invitation>,
    /// Whether the viewer may change anything here.
    pub manages: bool,
    /// The people.
    pub rows: Vec<Row>,
    /// The next page's address.
    pub next: Option<String>,
}

/// People from a table.
#[derive(Debug, Clone, Default, Template)]
#[template(path = "people/import.html")]
pub struct ImportPage {
    /// The frame.
    pub shell: Shell,
    /// What is wrong beyond the table; may be empty.
    pub error: String,
    /// The table, as typed, and what is wrong with it.
    pub csv: Field,
    /// What would become of each line.
    pub lines: Vec<ImportLine>,
    /// How many people would be added; 0 when not every line is somebody new.
    pub ready: usize,
    /// The links of those who were added, as a file's address; they are shown this once.
    pub file: Option<String>,
    /// The same to be read.
    pub links: Vec<Invitation>,
}

/// A line of a table of people.
#[derive(Debug, Clone, Default)]
pub struct ImportLine {
    /// Where it begins.
    pub number: u32,
    /// The name.
    pub name: String,
    /// What becomes of it.
    pub verdict: Badge,
    /// Role, group and end, in words.
    pub what: String,
}

/// Taking somebody off the machine.
#[derive(Debug, Clone, Default, Template)]
#[template(path = "people/offboarding.html")]
pub struct OffboardingPage {
    /// The frame.
    pub shell: Shell,
    /// The person's id.
    pub id: u32,
    /// Their name.
    pub name: String,
    /// Their page, while there is an account.
    pub person: Option<String>,
    /// Whether it can be begun.
    pub may_begin: bool,
    /// What would be stopped.
    pub keep: Vec<OffboardingRow>,
    /// The same in numbers.
    pub keep_says: String,
    /// What would be removed.
    pub delete: Vec<OffboardingRow>,
    /// The same in numbers.
    pub delete_says: String,
    /// The name, as typed to confirm.
    pub typed: Field,
    /// How it stands, once it was asked for.
    pub report: Option<OffboardingReport>,
}

/// How somebody's leaving stands.
#[derive(Debug, Clone, Default)]
pub struct OffboardingReport {
    /// In a word.
    pub state: Badge,
    /// Who asked for it.
    pub by: String,
    /// When.
    pub begun: Option<Moment>,
    /// When all of it was done.
    pub ended: Option<Moment>,
    /// The steps.
    pub rows: Vec<OffboardingRow>,
}

/// A step of it.
#[derive(Debug, Clone, Default)]
pub struct OffboardingRow {
    /// `stop` or `remove`.
    pub act: &'static str,
    /// What kind of thing.
    pub kind: &'static str,
    /// Its name.
    pub name: String,
    /// When it was done.
    pub done: Option<Moment>,
    /// What stood in the way; may be empty.
    pub said: String,
    /// How much is in it, in words; empty where nobody has looked.
    pub size: String,
}

/// A one-time link, shown once.
#[derive(Debug, Clone)]
pub struct Invitation {
    /// Whom it is for.
    pub name: String,
    /// The link.
    pub link: String,
    /// Until when it can be used.
    pub until: Moment,
}

/// One person.
#[derive(Debug, Clone, Default)]
pub struct Row {
    /// The id.
    pub id: u32,
    /// The name.
    pub name: String,
    /// Whether this is the viewer.
    pub own: bool,
    /// The role.
    pub role: String,
    /// Active, invited, disabled or ended.
    pub state: Badge,
    /// How many of their containers run, `2 of 5`.
    pub containers: String,
    /// Memory in use; empty when nothing runs.
    pub memory: String,
    /// When they were added.
    pub added: Option<Moment>,
    /// What can be done.
    pub acts: Vec<Act>,
}

/// Groups.
#[derive(Debug, Clone, Template)]
#[template(path = "people/groups.html")]
pub struct GroupsPage {
    /// The frame.
    pub shell: Shell,
    /// Why one was not made; may be empty.
    pub error: String,
    /// Whether the viewer may make one.
    pub manages: bool,
    /// Whether the viewer sees all of them; else those that they are in.
    pub oversees: bool,
    /// The new one's name, as typed.
    pub name: Field,
    /// What it is for, as typed.
    pub note: Field,
    /// The groups.
    pub rows: Vec<GroupRow>,
    /// The next page's address.
    pub next: Option<String>,
}

/// A group in the list.
#[derive(Debug, Clone, Default)]
pub struct GroupRow {
    /// The id.
    pub id: u32,
    /// The name.
    pub name: String,
    /// What it is for.
    pub note: String,
    /// What the viewer is in it; may be empty.
    pub role: &'static str,
    /// How many people are in it, where the viewer may know.
    pub members: String,
    /// How many containers they have.
    pub containers: String,
}

/// One group.
#[derive(Debug, Clone, Template)]
#[template(path = "people/group.html")]
pub struct GroupPage {
    /// The frame.
    pub shell: Shell,
    /// The id.
    pub id: u32,
    /// Why a change was refused; may be empty.
    pub error: String,
    /// The name as it is saved.
    pub title: String,
    /// Whether the viewer may change anything here.
    pub manages: bool,
    /// Whether the viewer sees all groups, and what they may use.
    pub oversees: bool,
    /// What it is for, for those who do not change it.
    pub about: String,
    /// Whether the viewer may take themselves out.
    pub leaves: bool,
    /// The viewer's name.
    pub me: String,
    /// Whether people begin in it, so that it stays.
    pub begins: bool,
    /// The name, as typed.
    pub name: Field,
    /// What it is for, as typed.
    pub note: Field,
    /// What the form was made from.
    pub etag: String,
    /// What its people may use together, for those who change it.
    pub allowance: AllowanceForm,
    /// The same for those who look.
    pub facts: Vec<Fact>,
    /// Who is in it, for those who may know.
    pub members: Option<Members>,
}

/// Who is in a group.
#[derive(Debug, Clone, Default)]
pub struct Members {
    /// The people, by name.
    pub rows: Vec<Member>,
    /// Whether the viewer may add and take out.
    pub changes: bool,
    /// Whether they may also say who manages it.
    pub appoints: bool,
    /// The name in the form, as typed.
    pub name: Field,
    /// The next page's address.
    pub next: Option<String>,
}

/// Somebody who is in a group.
#[derive(Debug, Clone, Default)]
pub struct Member {
    /// Their page, for those who may see it.
    pub path: Option<String>,
    /// Their name.
    pub name: String,
    /// Whether they manage it.
    pub manages: bool,
    /// Whether their resources count to it.
    pub counts: bool,
    /// Whether the viewer may take them out.
    pub goes: bool,
}

/// A group that can be chosen.
#[derive(Debug, Clone, Default)]
pub struct GroupChoice {
    /// Its id.
    pub id: String,
    /// Its name.
    pub name: String,
}

/// What was used, by day or by person.
#[derive(Debug, Clone, Template)]
#[template(path = "people/usage.html")]
pub struct UsagePage {
    /// The frame.
    pub shell: Shell,
    /// From which day to which, in words.
    pub span: String,
    /// Other spans.
    pub spans: Vec<Scope>,
    /// Whether rows are one's own days; else they are people.
    pub of_days: bool,
    /// The sums.
    pub rows: Vec<UsageRow>,
    /// The same as a file.
    pub csv: String,
}

/// A day's or a person's sums, in hours.
#[derive(Debug, Clone, Default)]
pub struct UsageRow {
    /// The day or the name.
    pub name: String,
    /// The person's page.
    pub path: Option<String>,
    /// Core-hours.
    pub cpu: String,
    /// GiB-hours of memory.
    pub memory: String,
    /// GiB-hours of images.
    pub images: String,
    /// Container-hours.
    pub containers: String,
}

/// One person, for those who oversee people.
#[derive(Debug, Clone, Template)]
#[template(path = "people/person.html")]
pub struct PersonPage {
    /// The frame.
    pub shell: Shell,
    /// The id.
    pub id: u32,
    /// The name.
    pub name: String,
    /// Whether this is the viewer.
    pub own: bool,
    /// Active, invited, disabled or ended.
    pub state: Badge,
    /// What can be done.
    pub acts: Vec<Act>,
    /// A link made just now; it is shown this once.
    pub invitation: Option<Invitation>,
    /// Why a change was refused; may be empty.
    pub error: String,
    /// Whether the viewer may give another role.
    pub manages: bool,
    /// The role, as chosen.
    pub role: Field,
    /// What the form was made from.
    pub etag: String,
    /// The last day of their account, as typed.
    pub expires: Field,
    /// The groups that they can count to, for those who may move them.
    pub groups: Vec<GroupChoice>,
    /// The one that they count to.
    pub group: String,
    /// The user of this host that they are, as typed; for those who may say so.
    pub host_user: Option<Field>,
    /// What they use.
    pub gauges: Vec<Meter>,
    /// What they may use together, for those who change it.
    pub allowance: AllowanceForm,
    /// The same for those who look.
    pub allowed: Vec<Fact>,
    /// What was granted for a time on top of that.
    pub extras: Vec<String>,
    /// Whether the viewer may change it.
    pub changes_allowance: bool,
    /// Whether it is theirs alone; else it is everybody's.
    pub allowance_own: bool,
    /// Who they are and how they get in.
    pub facts: Vec<Fact>,
    /// Their containers' state.
    pub containers: Vec<ContainerRow>,
    /// All of them, when there are more.
    pub all_containers: Option<String>,
    /// Their images.
    pub images: Vec<ImageRow>,
    /// All of them, when there are more.
    pub all_images: Option<String>,
    /// The newest of what they did and what was done to what is theirs.
    pub activity: Vec<ActivityRow>,
    /// All of it.
    pub all_activity: String,
}

/// What somebody, or everybody, may use together, as typed.
#[derive(Debug, Clone, Default)]
pub struct AllowanceForm {
    /// Cores.
    pub cpu: Field,
    /// The share under contention.
    pub cpu_weight: Field,
    /// A size.
    pub memory: Field,
    /// A size.
    pub swap: Field,
    /// Processes and threads.
    pub pids: Field,
    /// Containers.
    pub containers: Field,
    /// Ports of the host.
    pub ports: Field,
    /// Images.
    pub images: Field,
    /// A size.
    pub image_bytes: Field,
    /// A size.
    pub data: Field,
    /// The share of the disk under contention.
    pub io_weight: Field,
    /// A size, each second.
    pub io_read: Field,
    /// A size, each second.
    pub io_write: Field,
    /// A size, each second and way.
    pub net: Field,
    /// How long a container runs at most.
    pub lifetime: Field,
    /// How long when nobody says.
    pub lifetime_default: Field,
    /// How long it may be unused.
    pub idle: Field,
}

/// Everybody's allowance.
#[derive(Debug, Clone, Template)]
#[template(path = "people/allowance.html")]
pub struct AllowancePage {
    /// The frame.
    pub shell: Shell,
    /// What is wrong beyond single fields; may be empty.
    pub error: String,
    /// Those who use more now.
    pub over: Vec<String>,
    /// Whether the viewer may change it.
    pub manages: bool,
    /// The form.
    pub allowance: AllowanceForm,
    /// The same for those who look.
    pub facts: Vec<Fact>,
}

/// A container of a person's.
#[derive(Debug, Clone)]
pub struct ContainerRow {
    /// The id.
    pub id: String,
    /// The name.
    pub name: String,
    /// The state with its reason.
    pub state: Badge,
    /// The image's reference.
    pub image: String,
    /// What it may use, in words.
    pub limits: String,
    /// Since when it is so.
    pub since: Option<Moment>,
}

/// An image of a person's.
#[derive(Debug, Clone)]
pub struct ImageRow {
    /// The id.
    pub id: String,
    /// What it is called.
    pub name: String,
    /// Its size as unpacked.
    pub size: String,
    /// Since when it is here.
    pub since: Moment,
}

/// One act.
#[derive(Debug, Clone)]
pub struct ActivityRow {
    /// When.
    pub at: Moment,
    /// Who.
    pub actor: String,
    /// What.
    pub action: String,
    /// With what result.
    pub outcome: Badge,
}
