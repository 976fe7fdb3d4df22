//! `berth` as a client of a Berth server, this machine's or another: what people type in place of the
//! dashboard. It speaks the JSON API alone and has no right that a token does not give it.
//!
//! Invariants: no secret is ever in an argument or in the environment; what the server or a container
//! says is shown harmlessly ([`harmless`]) unless bytes were asked for; every wait for the server ends.

mod acts;
mod api;
mod asks;
mod attach;
mod credentials;
mod data_sets;
mod error;
mod events;
mod exec;
mod files;
mod gc;
mod groups;
mod hands;
mod harmless;
mod keys;
mod launch;
mod limits;
mod logs;
mod manual;
mod output;
mod people;
mod place;
mod pull;
mod screen;
mod session;
mod shares;
mod show;
mod sign;
mod stats;
mod terminal;
mod units;
mod verify;
mod volumes;

use std::path::Path;
use std::process::ExitCode;

use clap::{Args, Subcommand};

use api::{Api, Proof};
use credentials::{Credential, Kept, Store};
use error::{Failure, Outcome};
use output::Output;

/// What people do.
#[derive(Subcommand)]
pub enum Command {
    /// Sign in at a server, and keep a token for it.
    Login(sign::LoginArgs),
    /// End the token at the server, and forget it.
    Logout(sign::LogoutArgs),
    /// Pull an image from a registry.
    Pull(pull::PullArgs),
    /// List images.
    Images(show::ImagesArgs),
    /// Make and start a container, show what it writes, and end as it does.
    Run(Box<launch::RunArgs>),
    /// Be with a container's own program, which goes on without you; Ctrl-P Ctrl-Q leaves it.
    Attach(attach::AttachArgs),
    /// List containers.
    Ps(show::PsArgs),
    /// Show what containers have written.
    Logs(logs::LogsArgs),
    /// Run a program beside a container's first one.
    Exec(exec::ExecArgs),
    /// Show what running containers use.
    Stats(stats::StatsArgs),
    /// Start containers.
    Start(acts::Which),
    /// Ask containers to end, and kill them when their grace is over.
    Stop(acts::StopArgs),
    /// Put off the time at which a container is stopped.
    Extend(acts::ExtendArgs),
    /// Send containers a signal.
    Kill(acts::KillArgs),
    /// Remove containers with all that was written in them.
    Rm(acts::RmArgs),
    /// Show all that is known of containers.
    Inspect(show::InspectArgs),
    /// Let others see, use or manage containers of yours: list with whom, add and end.
    Share(shares::ShareArgs),
    /// Ask an operator for more of a limit of yours.
    Ask(asks::AskArgs),
    /// List what was asked for; withdraw it, or as an operator decide.
    Asks(asks::AsksArgs),
    /// Copy files and folders to a container or volume, or from it.
    Cp(files::CpArgs),
    /// List a folder of a container or volume.
    Ls(files::LsArgs),
    /// Directories that outlive containers: list, make, show, rename and remove them.
    Volume(volumes::VolumeArgs),
    /// List data sets: directories of the server’s machine that your containers can be given to read.
    DataSets(data_sets::DataSetsArgs),
    /// People: list, add, disable and enable them, and what they may use (operators).
    People(people::PeopleArgs),
    /// Groups of people: list, make, remove, who is in them, and what they may use.
    Groups(groups::GroupsArgs),
    /// Show what nothing needs any more, and why the rest stays; have it go.
    Gc(gc::GcArgs),
    /// Compare every stored layer with the bytes that it came from (operators).
    Verify(verify::VerifyArgs),
    /// Print completion for a shell.
    Completion(manual::CompletionArgs),
    /// Print the manual page, or write all of them.
    Man(manual::ManArgs),
}

/// Which server.
#[derive(Args)]
struct Server {
    /// The server's address, or unix:PATH; that of the newest login if nothing is said, and before any login this
    /// machine's own socket.
    #[arg(long = "server", value_name = "URL", env = "BERTH_SERVER")]
    address: Option<String>,
}

/// A container's name or id: one part of a path.
#[derive(Debug, Clone)]
struct Name(String);

/// Does what was asked, and says how it went. `whole` describes the whole command line.
pub fn run(command: Command, whole: fn() -> clap::Command) -> ExitCode {
    let outcome = match command {
        Command::Completion(args) => manual::completion(&args, whole()),
        Command::Man(args) => manual::man(&args, whole()),
        command => with_runtime(command),
    };
    ExitCode::from(outcome.unwrap_or_else(|failure| {
        if let Some(text) = failure.told() {
            // There is nobody left to tell when the standard error cannot be written.
            drop(Output::Stderr.write(format!("berth: {text}\n").as_bytes()));
        }
        failure.code()
    }))
}

fn with_runtime(command: Command) -> Outcome {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
    let runtime = runtime.map_err(|error| Failure::Here(format!("start: {error}")))?;
    let outcome = runtime.block_on(speak(command));
    // A read of the terminal or a write that nobody takes may still be under way.
    runtime.shutdown_background();
    outcome
}

async fn speak(command: Command) -> Outcome {
    match command {
        Command::Login(args) => sign::login(args).await,
        Command::Logout(args) => sign::logout(args).await,
        Command::Pull(args) => pull::pull(args).await,
        Command::Images(args) => show::images(args).await,
        Command::Run(args) => launch::run(*args).await,
        Command::Attach(args) => attach::attach(args).await,
        Command::Ps(args) => show::ps(args).await,
        Command::Logs(args) => logs::logs(args).await,
        Command::Exec(args) => exec::exec(args).await,
        Command::Stats(args) => stats::stats(args).await,
        Command::Start(args) => acts::start(args).await,
        Command::Stop(args) => acts::stop(args).await,
        Command::Extend(args) => acts::extend(args).await,
        Command::Kill(args) => acts::kill(args).await,
        Command::Rm(args) => acts::rm(args).await,
        Command::Inspect(args) => show::inspect(args).await,
        Command::Share(args) => shares::share(args).await,
        Command::Ask(args) => asks::ask(args).await,
        Command::Asks(args) => asks::asks(args).await,
        Command::Cp(args) => files::cp(args).await,
        Command::Ls(args) => files::ls(args).await,
        Command::Volume(args) => volumes::volume(args).await,
        Command::DataSets(args) => data_sets::data_sets(args).await,
        Command::People(args) => people::people(args).await,
        Command::Groups(args) => groups::groups(args).await,
        Command::Gc(args) => gc::gc(args).await,
        Command::Verify(args) => verify::verify(args).await,
        Command::Completion(_) | Command::Man(_) => Ok(0),
    }
}

impl Server {
    /// The API of the server that is meant, by the token that is kept for it; of this machine's without one.
    ///
    /// # Errors
    /// When there is none.
    fn api(&self) -> Result<Api, Failure> {
        let named =
            self.address.as_deref().and_then(|text| text.strip_prefix(place::SOCKET_SCHEME));
        if let Some(path) = named {
            return Api::local(Path::new(path));
        }
        let here = Path::new(place::SOCKET);
        if self.address.is_none() && Store::find()?.read()?.current.is_none() && here.exists() {
            return Api::local(here);
        }
        let (origin, credential) = self.credential(&Store::find()?.read()?)?;
        let base = place::parse(&origin, credential.insecure_http)?;
        Api::new(base, credential.trust, &Proof::Token(&credential.token))
    }

    /// The address that is meant, as it is kept, and what is kept for it.
    ///
    /// # Errors
    /// When there is nothing.
    fn credential(&self, kept: &Kept) -> Result<(String, Credential), Failure> {
        let origin = match (&self.address, &kept.current) {
            (Some(address), _) => place::known(address, kept)?,
            (None, Some(current)) => current.clone(),
            (None, None) => place::LOCAL.to_owned(),
        };
        match kept.servers.get(&origin) {
            Some(credential) => Ok((origin, credential.clone())),
            None => Err(Failure::Here(format!(
                "you are not signed in at {origin}: `berth login {origin}` first"
            ))),
        }
    }
}

impl Name {
    /// What the server has called something.
    fn of(text: &str) -> Self {
        Self(text.to_owned())
    }

    fn as_str(&self) -> &str {
        &self.0
    }
}

impl std::str::FromStr for Name {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        // These two would lead out of their place in a path (RFC 3986, 5.2.4).
        match text {
            "" | "." | ".." => Err("is no name of a container".to_owned()),
            text => Ok(Self(text.to_owned())),
        }
    }
}
