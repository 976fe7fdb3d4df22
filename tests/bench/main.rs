//! Measures Berth beside its peers and prints one table; `tests/bench/run` starts it, where it should
//! be, with everything it needs.
//!
//! What is compared is measured in turns (A B C A B C …), so that a ratio holds whatever else the
//! machine does meanwhile. Nothing here is a test: no time is asserted. What cannot be measured on
//! this machine is said in the table's notes.

mod image;
mod lifecycle;
mod many;
mod memory;
mod neighbours;
mod pages;
mod peers;
mod pull;
mod runtime;
mod streams;
mod table;
mod trace;

use system_tests::programs;

use table::Table;

/// What is measured, in the order of the table.
const PARTS: [&str; 9] =
    ["lifecycle", "runtime", "pull", "memory", "many", "pages", "streams", "neighbours", "trace"];

/// What the command line says.
pub(crate) struct Options {
    parts: Vec<String>,
    /// Rounds of what is compared.
    pub(crate) rounds: usize,
    /// Files of the image that is pulled, in MB.
    pub(crate) image_mb: u64,
    /// Whether there is anything beside Berth.
    pub(crate) peers: bool,
}

impl Options {
    fn read(mut words: impl Iterator<Item = String>) -> Result<Self, String> {
        let mut this = Self { parts: Vec::new(), rounds: 20, image_mb: 300, peers: true };
        while let Some(word) = words.next() {
            let mut number = || {
                let value = words.next().and_then(|text| text.parse::<u64>().ok());
                value.filter(|value| *value > 0).ok_or(format!("{word} takes a number from 1 up"))
            };
            match word.as_str() {
                "--rounds" => this.rounds = usize::try_from(number()?).unwrap_or(usize::MAX),
                "--image-mb" => this.image_mb = number()?,
                "--no-peers" => this.peers = false,
                // For the script.
                "--debug" | "--inside" => {}
                part if PARTS.contains(&part) => this.parts.push(word),
                other => {
                    return Err(format!("{other} is no part; there are {}", PARTS.join(", ")));
                }
            }
        }
        Ok(this)
    }

    fn wants(&self, part: &str) -> bool {
        self.parts.is_empty() || self.parts.iter().any(|wanted| wanted == part)
    }
}

#[tokio::main]
async fn main() -> std::process::ExitCode {
    let options = match Options::read(std::env::args().skip(1)) {
        Ok(options) => options,
        Err(error) => {
            say(&format!("bench: {error}"));
            return std::process::ExitCode::from(2);
        }
    };
    let mut table = Table::new();
    table.note(&machine());
    if options.wants("lifecycle") {
        lifecycle::measure(&options, &mut table).await;
    }
    if options.wants("runtime") {
        runtime::measure(&options, &mut table);
    }
    if options.wants("pull") {
        pull::measure(&options, &mut table).await;
    }
    if options.wants("memory") {
        memory::measure(&options, &mut table).await;
    }
    if options.wants("many") {
        many::measure(&options, &mut table).await;
    }
    if options.wants("pages") {
        pages::measure(&options, &mut table).await;
    }
    if options.wants("streams") {
        streams::measure(&options, &mut table).await;
    }
    if options.wants("neighbours") {
        neighbours::measure(&options, &mut table).await;
    }
    let mut report = table.to_string();
    if options.wants("trace") {
        report += &trace::report(&options).await;
    }
    say(&report);
    std::process::ExitCode::SUCCESS
}

/// A line for whoever started this.
#[expect(clippy::print_stdout, reason = "the report is this program's purpose")]
pub(crate) fn say(text: &str) {
    println!("{text}");
}

/// What the numbers hold for.
fn machine() -> String {
    let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
    let cpu = read("/proc/cpuinfo");
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let cpus = std::thread::available_parallelism().map_or(1, usize::from);
    let kernel = read("/proc/sys/kernel/osrelease");
    let cgroups = if std::path::Path::new("/sys/fs/cgroup/cgroup.controllers").exists() {
        "cgroup v2"
    } else {
        "cgroup v1 or hybrid"
    };
    format!(
        "{cpus} × {}, Linux {}, {cgroups}; Berth from {}",
        model.map_or("unknown processor", |(_, name)| name),
        kernel.trim(),
        programs::berth().display(),
    )
}
