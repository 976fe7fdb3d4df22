//! The Berth server: dashboard, JSON API, inventory; and its client on the command line.
//!
//! `berth serve` runs the server; `doctor`, `openapi`, `config`, `certificate`, `keys` and `audit` look at the
//! machine, the API, the configuration and the inventory, `backup` and `restore` keep its state. All else is
//! the client (`client`).

#![forbid(unsafe_code)]
#![expect(unreachable_pub, reason = "a binary has no outside: its modules publish to one another")]

mod app;
mod ask;
mod auth;
mod client;
mod clock;
mod config;
mod doctor;
mod error;
mod hold;
mod http;
mod inventory;
mod listen;
mod notify;
mod registry;
mod risks;
mod runtime_client;
mod serve;
mod service;
mod timing;
mod tls;
mod upkeep;
mod verify;
mod warnings;

use std::io::{IsTerminal, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use anyhow::{Context, Result};
use clap::{CommandFactory, Parser, Subcommand};
use tracing_subscriber::layer::{Layered, SubscriberExt};
use tracing_subscriber::util::SubscriberInitExt;
use tracing_subscriber::{EnvFilter, Layer, Registry};

/// Containers on one machine, shared by many people.
#[derive(Parser)]
#[command(name = "berth", version, propagate_version = true)]
struct Arguments {
    /// The configuration file; /etc/berth/berth.toml if nothing is said.
    #[arg(long, env = "BERTH_CONFIG", global = true)]
    config: Option<PathBuf>,
    #[command(subcommand)]
    command: Command,
}

#[derive(Subcommand)]
enum Command {
    #[command(flatten)]
    Client(Box<client::Command>),
    /// Run the server.
    Serve {
        /// Address and port to listen on, over the file's: plain HTTP on loopback, else TLS.
        #[arg(long)]
        listen: Option<String>,
    },
    /// Say what this host has and lacks for Berth.
    Doctor(doctor::DoctorArgs),
    /// Put the appliance's own state into one file, while the server runs or not (as root).
    Backup(upkeep::BackupArgs),
    /// Put a backup in the place of what is there, or say whether it is whole (as root).
    Restore(upkeep::RestoreArgs),
    /// Print the API's description (OpenAPI 3.1).
    Openapi {
        /// Print the table of all routes instead, pages included.
        #[arg(long)]
        routes: bool,
    },
    /// Look at the configuration.
    Config {
        /// Only say whether it is good, and which settings are risky.
        #[arg(long, conflicts_with = "print")]
        check: bool,
        /// Print every key with the value that holds.
        #[arg(long)]
        print: bool,
        /// Print the addresses to listen on, one a line, as the socket unit needs them.
        #[arg(long, conflicts_with_all = ["print", "check"])]
        sockets: bool,
        /// Print the addresses that people open, one a line.
        #[arg(long, conflicts_with_all = ["print", "check", "sockets"])]
        urls: bool,
    },
    /// Print the TLS certificate's SHA-256 fingerprint, names and end (as root).
    Certificate,
    /// Tell everybody that the machine is in maintenance, and have nothing new begun (as root).
    Maintenance {
        #[command(subcommand)]
        command: ask::MaintenanceCommand,
    },
    /// Look at, rotate and retire the keys that sign sessions and tokens (as root).
    Keys {
        #[command(subcommand)]
        command: ask::KeysCommand,
    },
    /// Say whether the record of who did what is as it was written (as root).
    Audit {
        #[command(subcommand)]
        command: verify::AuditCommand,
    },
}

fn main() -> ExitCode {
    berth_runtime::give_back_freed_memory();
    let arguments = Arguments::parse();
    let (config, command) = (arguments.config, arguments.command);
    let outcome = match command {
        Command::Client(command) => return client::run(*command, Arguments::command),
        Command::Doctor(args) => return doctor::run(&args, config.as_deref()),
        Command::Audit { command } => return verify::run(&command, config.as_deref()),
        command => run(config, command),
    };
    match outcome {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            let text = format!("berth: {error:#}\n");
            // There is nobody left to tell when the standard error cannot be written.
            drop(std::io::stderr().write_all(text.as_bytes()));
            ExitCode::FAILURE
        }
    }
}

fn run(path: Option<PathBuf>, command: Command) -> Result<()> {
    match command {
        Command::Serve { listen } => {
            let flag = listen.map(|listen| ("BERTH_SERVER__LISTEN".to_owned(), listen));
            let config = load(path, flag)?.config;
            begin_log(&config.server)?;
            serve::run(config)
        }
        Command::Client(_) | Command::Doctor(_) | Command::Audit { .. } => Ok(()),
        Command::Openapi { routes } => {
            let (table, document) = http::describe();
            print(&match routes {
                true => serde_json::to_string_pretty(&table)?,
                false => document.to_pretty_json()?,
            })
        }
        Command::Config { check: _, print: show, sockets, urls } => {
            let loaded = load(path, None)?;
            let addresses = loaded.config.server.listen.addresses();
            let lines = |line: fn(&config::ListenAddress) -> String| {
                addresses.iter().map(line).collect::<Vec<_>>().join("\n")
            };
            match (show, sockets, urls) {
                (true, ..) => print(&loaded.config.to_toml()?),
                (_, true, _) => print(&lines(|address| address.socket.to_string())),
                (.., true) => print(&lines(|address| address.url())),
                _ => print(&checked(&loaded)?),
            }
        }
        Command::Backup(args) => match upkeep::backup(&load(path, None)?, &args)? {
            Some(text) => print(&text),
            None => Ok(()),
        },
        Command::Restore(args) => print(&upkeep::restore(&load(path, None)?.config, &args)?),
        Command::Certificate => print(&ask::certificate(&load(path, None)?.config)?),
        Command::Maintenance { command } => {
            print(&ask::maintenance(&load(path, None)?.config, &command)?)
        }
        Command::Keys { command } => print(&ask::keys(&load(path, None)?.config, &command)?),
    }
}

/// Writes the log to standard error from now on.
fn begin_log(server: &config::ServerConfig) -> Result<()> {
    let mut filter = EnvFilter::try_new(&server.log).context("read server.log")?;
    let lines = tracing_subscriber::fmt::layer().with_writer(std::io::stderr);
    let lines: Box<dyn Layer<Layered<EnvFilter, Registry>> + Send + Sync> = match server.log_format
    {
        config::LogFormat::Text => lines.with_ansi(std::io::stderr().is_terminal()).boxed(),
        config::LogFormat::Json => {
            if !server.log.contains(http::guard::REQUESTS) {
                let shown = format!("{}=debug", http::guard::REQUESTS);
                filter = filter.add_directive(shown.parse().context("read a log filter")?);
            }
            let lines = lines.json().flatten_event(true);
            lines.with_current_span(false).with_span_list(false).boxed()
        }
    };
    tracing_subscriber::registry().with(filter).with(lines).with(warnings::Keep).init();
    Ok(())
}

/// That the configuration is good, and which settings are risky.
fn checked(loaded: &config::Loaded) -> Result<String> {
    let facts = tls::look(&loaded.config)?;
    let place = loaded.path.as_ref().map(|path| path.display().to_string());
    let mut lines = vec![format!("{}: good", place.as_deref().unwrap_or("the defaults"))];
    for risk in risks::list(&loaded.config, facts.as_ref()) {
        let word = match risk.severity {
            risks::Severity::Warning => "warning",
            risks::Severity::Note => "note",
        };
        lines.push(format!("{word}: {}: {}", risk.setting, risk.what));
        lines.push(format!("    {}", risk.cure));
    }
    Ok(lines.join("\n"))
}

fn load(path: Option<PathBuf>, flag: Option<(String, String)>) -> Result<config::Loaded> {
    // Names and values that are no UTF-8 are none of ours.
    let variables = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)));
    Ok(config::load(path.as_deref(), variables.chain(flag))?)
}

fn print(text: &str) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{}", text.trim_end()).context("write to the standard output")
}
