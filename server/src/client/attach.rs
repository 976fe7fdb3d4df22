//! `berth attach` and `berth run -it`: being with a container's own program, which goes on without us.

use std::io::IsTerminal;

use clap::Args;

use super::api::Api;
use super::error::{Failure, Outcome, by_signal};
use super::launch::{outcome, rested};
use super::output::{Output, tell};
use super::session::{End, Manner, Program, Session};
use super::show::text;
use super::terminal::Changed;
use super::{Name, Server};

/// What `attach` takes.
#[derive(Args)]
pub struct AttachArgs {
    #[command(flatten)]
    server: Server,
    /// Leave the standard input alone.
    #[arg(long)]
    no_stdin: bool,
    /// Write the program's own bytes to a terminal also when it has none, control sequences included.
    #[arg(long)]
    raw: bool,
    /// The container's name or id.
    container: Name,
}

/// `berth attach`.
///
/// # Errors
/// When the container was not made for it, does not run, or the connection is lost for long.
pub async fn attach(args: AttachArgs) -> Outcome {
    let api = args.server.api()?;
    let shown = api.get(&["containers", args.container.as_str()], &[]).await?;
    let terminal = shown["terminal"] == true;
    let manner = Manner { interactive: !args.no_stdin, terminal, raw: args.raw };
    check(manner)?;
    let name = text(&shown["name"]).to_owned();
    match be_with(&api, text(&shown["id"]), &name, manner).await? {
        Parting::Ended(code) => Ok(code),
        Parting::Unseen => outcome(&rested(&api, text(&shown["id"])).await?),
        Parting::Left => Ok(0),
    }
}

/// How we part from a program.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Parting {
    /// It has ended; an exit code that says how.
    Ended(u8),
    /// It has ended, nobody here saw how, and not a byte of its output came.
    Unseen,
    /// It goes on, by the person's own wish.
    Left,
}

/// Whether our own standard input can be what is asked for.
///
/// # Errors
/// When a terminal's keys would have to come from no terminal.
pub fn check(manner: Manner) -> Result<(), Failure> {
    if manner.terminal && manner.interactive && !std::io::stdin().is_terminal() {
        let what = "the standard input is no terminal: leave out -t, or use attach --no-stdin";
        return Err(Failure::Usage(what.into()));
    }
    Ok(())
}

/// Carries bytes until the program ends or is left; then ends as it has. Whatever comes, the terminal is
/// as it was.
///
/// # Errors
/// When the server refuses, or cannot be reached for a minute.
pub async fn be_with(api: &Api, id: &str, name: &str, manner: Manner) -> Result<Parting, Failure> {
    let raw = match manner.terminal && manner.interactive {
        true => Some(
            Changed::raw(std::io::stdin())
                .map_err(|error| Failure::Here(format!("take over the terminal: {error}")))?,
        ),
        false => None,
    };
    let (end, seen) = match Session::new(api, id, Program::First, manner) {
        Ok(mut session) => (session.carry().await, session.received() > 0),
        Err(failure) => (Err(failure), false),
    };
    drop(raw);
    let back = format!("`berth attach {name}` comes back, `berth stop {name}` ends it");
    match end {
        Ok(End::Exited { code: Some(code), .. }) => {
            Ok(Parting::Ended(u8::try_from(code).unwrap_or(u8::MAX)))
        }
        Ok(End::Exited { signal: Some(signal), .. }) => Ok(Parting::Ended(by_signal(signal))),
        Ok(End::Exited { .. }) if !seen => Ok(Parting::Unseen),
        // Nobody was there to see it end; what the server knows is all there is.
        Ok(End::Exited { .. }) => outcome(&rested(api, id).await?).map(Parting::Ended),
        Ok(End::Left) => {
            drop(Output::Stderr.write(b"\n"));
            tell(&format!("{name} goes on; {back}"));
            Ok(Parting::Left)
        }
        Ok(End::Replaced) => {
            Err(Failure::Here(format!("{name} was attached to from elsewhere; {back}")))
        }
        Ok(End::RightEnded) => {
            Err(Failure::Here(format!("your right to it has ended; {name} goes on")))
        }
        Ok(End::Signal(signal)) => {
            tell(&format!("{name} may still run; {back}"));
            Err(Failure::Signal(signal))
        }
        Err(failure) => Err(failure),
    }
}
