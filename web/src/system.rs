//! The machine: how it is set up and used, what it lacks, and where images may come from.

use askama::Template;

use crate::format::Moment;
use crate::parts::{Badge, Fact, FactKind, Field, Meter, Scope};
use crate::shell::Shell;

/// The machine now, and how it is set up.
#[derive(Debug, Clone, Template)]
#[template(path = "system/overview.html")]
pub struct OverviewPage {
    /// The frame.
    pub shell: Shell,
    /// The views.
    pub tabs: Vec<Scope>,
    /// Processor, memory, disk, and what waits.
    pub gauges: Vec<Meter>,
    /// How long work waited for what; empty when the kernel does not count it.
    pub pressure: Vec<PressureRow>,
    /// Who uses how much, most memory first.
    pub people: Vec<PersonRow>,
    /// How many of them are not shown.
    pub more_people: u64,
    /// Risky settings, warnings first.
    pub risks: Vec<RiskRow>,
    /// Versions and times.
    pub software: Vec<Fact>,
    /// The host.
    pub host: Vec<Fact>,
    /// Where things lie.
    pub storage: Vec<Fact>,
    /// What containers may have.
    pub limits: Vec<LimitRow>,
    /// What people may have beyond single limits.
    pub more_limits: Vec<Fact>,
    /// Whether what is stored is what it was.
    pub layers: StoredLayers,
}

/// How the stored layers were found.
#[derive(Debug, Clone, Default)]
pub struct StoredLayers {
    /// In a sentence.
    pub says: String,
    /// Whether the viewer may have them checked.
    pub checks: bool,
    /// The newest check: its page, and how it stands.
    pub newest: Option<(String, Badge)>,
    /// Those that are not as they should be.
    pub harmed: Vec<HarmedRow>,
}

/// A layer that is not as it should be.
#[derive(Debug, Clone, Default)]
pub struct HarmedRow {
    /// Its digest.
    pub digest: String,
    /// What of it.
    pub state: Badge,
    /// The first differences, in words.
    pub what: String,
    /// Images with it, by id.
    pub images: Vec<String>,
}

/// Where maintenance is begun and ended.
#[derive(Debug, Clone, Template)]
#[template(path = "system/maintenance.html")]
pub struct MaintenancePage {
    /// The frame.
    pub shell: Shell,
    /// The views.
    pub tabs: Vec<Scope>,
    /// Why the form was refused; may be empty.
    pub error: String,
    /// What people are told.
    pub message: Field,
    /// Since when they are.
    pub since: Option<Moment>,
    /// Who has begun it.
    pub by: String,
}

/// For what share of time work stood still.
#[derive(Debug, Clone)]
pub struct PressureRow {
    /// For want of what.
    pub of: &'static str,
    /// Some of it, over 10 s, 60 s and 300 s.
    pub some: [String; 3],
    /// All of it.
    pub full: [String; 3],
}

/// A risky setting.
#[derive(Debug, Clone)]
pub struct RiskRow {
    /// Warning or note.
    pub level: Badge,
    /// The setting, or the file.
    pub setting: String,
    /// What may come of it.
    pub what: String,
    /// What to do.
    pub cure: String,
}

/// One person's use.
#[derive(Debug, Clone)]
pub struct PersonRow {
    /// The name.
    pub name: String,
    /// Their page; empty for the system.
    pub path: String,
    /// `2 of 5`.
    pub containers: String,
    /// The processor.
    pub cpu: Meter,
    /// Memory.
    pub memory: Meter,
    /// Processes.
    pub pids: String,
    /// Images on disk.
    pub images: String,
}

/// One limit.
#[derive(Debug, Clone)]
pub struct LimitRow {
    /// What is limited.
    pub name: &'static str,
    /// What a container gets when nothing is said.
    pub default: String,
    /// What it may be given at most.
    pub ceiling: String,
}

/// What the host has and lacks.
#[derive(Debug, Clone, Template)]
#[template(path = "system/doctor.html")]
pub struct DoctorPage {
    /// The frame.
    pub shell: Shell,
    /// The views.
    pub tabs: Vec<Scope>,
    /// Why there is no report; empty when there is.
    pub error: String,
    /// When it was made.
    pub at: Option<Moment>,
    /// Whether Berth can run here, with the counts.
    pub verdict: Badge,
    /// What lacks, first; then what is as it should be.
    pub rows: Vec<CheckRow>,
}

/// One thing looked at.
#[derive(Debug, Clone)]
pub struct CheckRow {
    /// Its identifier.
    pub id: String,
    /// How it stands.
    pub state: Badge,
    /// What was found.
    pub found: String,
    /// What a lack costs; empty when nothing is lacking.
    pub costs: String,
    /// How to mend it.
    pub mend: String,
}

/// The server's own newest warnings.
#[derive(Debug, Clone, Template)]
#[template(path = "system/warnings.html")]
pub struct WarningsPage {
    /// The frame.
    pub shell: Shell,
    /// The views.
    pub tabs: Vec<Scope>,
    /// Newest first.
    pub rows: Vec<WarningRow>,
}

/// One warning.
#[derive(Debug, Clone)]
pub struct WarningRow {
    /// When.
    pub at: Moment,
    /// Warning or error.
    pub level: Badge,
    /// What.
    pub text: String,
}

/// Where images may come from.
#[derive(Debug, Clone, Template)]
#[template(path = "system/registries.html")]
pub struct RegistriesPage {
    /// The frame.
    pub shell: Shell,
    /// Whether the viewer may ask a registry.
    pub asks: bool,
    /// Whether images may come from any registry.
    pub open: bool,
    /// Those that are configured.
    pub rows: Vec<RegistryRow>,
    /// Networks that nothing is fetched from.
    pub forbidden: Vec<String>,
    /// More of the configuration.
    pub facts: Vec<Fact>,
    /// The configuration as it would be written.
    pub written: String,
}

/// One registry.
#[derive(Debug, Clone)]
pub struct RegistryRow {
    /// As in references.
    pub name: String,
    /// What is allowed with it, a few words each.
    pub rights: Vec<&'static str>,
    /// What it said just now; none when it was not asked.
    pub said: Option<Badge>,
}
