//! `berth exec`: a program beside a container's first one, at the terminal or between pipes.

use std::io::IsTerminal;

use clap::Args;
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, CALL_TIMEOUT};
use super::error::{Failure, Outcome, by_signal};
use super::launch::environment;
use super::output::{Output, tell};
use super::session::{End, Manner, Program, Session};
use super::show::number;
use super::terminal::{Changed, size};
use super::{Name, Server};

/// What `exec` takes.
#[derive(Args)]
pub struct ExecArgs {
    #[command(flatten)]
    server: Server,
    /// Give it the standard input.
    #[arg(short, long)]
    interactive: bool,
    /// Give it a terminal, of the size of this one; Ctrl-P Ctrl-Q leaves it.
    #[arg(short, long)]
    tty: bool,
    /// A variable of its environment; without a value, your own one's.
    #[arg(short, long, value_name = "NAME[=VALUE]")]
    env: Vec<String>,
    /// The working directory, an absolute path inside.
    #[arg(short, long, value_name = "DIR")]
    workdir: Option<String>,
    /// Who it runs as, names or numbers.
    #[arg(short, long, value_name = "USER[:GROUP]")]
    user: Option<String>,
    /// Come back to the session with this number, in place of a new program.
    #[arg(long, value_name = "NUMBER", conflicts_with_all = ["env", "workdir", "user", "command"])]
    attach: Option<u64>,
    /// Write the program's own bytes to a terminal also without -t, control sequences included.
    #[arg(long)]
    raw: bool,
    /// The container's name or id.
    container: Name,
    /// Program and arguments.
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required_unless_present = "attach")]
    command: Vec<String>,
}

/// `berth exec`.
///
/// # Errors
/// When the server refuses, or the connection is lost for longer than a minute.
pub async fn exec(args: ExecArgs) -> Outcome {
    if args.tty && !std::io::stdin().is_terminal() {
        return Err(Failure::Usage("the standard input is no terminal: leave out -t".into()));
    }
    let environment = environment(&args.env)?;
    let api = args.server.api()?;
    match run(&args, environment, &api).await {
        Err(failure) => match failure.program_code() {
            Some(code) => {
                tell(&failure.told().unwrap_or_default());
                Ok(code)
            }
            None => Err(failure),
        },
        done => done,
    }
}

async fn run(
    args: &ExecArgs,
    mut environment: serde_json::Map<String, Value>,
    api: &Api,
) -> Outcome {
    let container = args.container.as_str();
    let (number, terminal) = match args.attach {
        Some(number) => {
            let parts = ["containers", container, "execs", &number.to_string()];
            let shown = api.get(&parts, &[]).await?;
            (number, shown["terminal"] == true)
        }
        None => {
            if args.tty
                && let Ok(kind) = std::env::var("TERM")
            {
                environment.entry("TERM").or_insert(kind.into());
            }
            let terminal = args
                .tty
                .then(size)
                .map(|(columns, rows)| json!({"columns": columns, "rows": rows}));
            let body = json!({
                "program": {
                    "command": args.command, "env": environment, "working_dir": args.workdir,
                    "user": args.user,
                },
                "terminal": terminal,
            });
            let opened = api.post(&["containers", container, "execs"], Some(&body)).await?;
            (number(&opened["id"]), args.tty)
        }
    };
    if terminal && !args.tty {
        return Err(Failure::Usage(format!("session {number} has a terminal: say -it")));
    }
    let manner = Manner { interactive: args.interactive, terminal, raw: args.raw };
    finish(api, container, number, manner).await
}

/// Carries bytes until the session ends or is left. Whatever comes, the terminal is as it was.
async fn finish(api: &Api, container: &str, number: u64, manner: Manner) -> Outcome {
    let raw = match manner.terminal {
        true => Some(
            Changed::raw(std::io::stdin())
                .map_err(|error| Failure::Here(format!("take over the terminal: {error}")))?,
        ),
        false => None,
    };
    // Not before: what is typed from here on is the program's, key by key.
    let end = match Session::new(api, container, Program::Beside(number), manner) {
        Ok(mut session) => session.carry().await,
        Err(failure) => Err(failure),
    };
    drop(raw);
    let number = number.to_string();
    let parts = ["containers", container, "execs", &number];
    match end {
        Ok(End::Exited { code: Some(code), .. }) => Ok(u8::try_from(code).unwrap_or(u8::MAX)),
        Ok(End::Exited { signal: Some(signal), .. }) => Ok(by_signal(signal)),
        Ok(End::Exited { .. }) => {
            Err(Failure::Here("how the program has ended is not known".into()))
        }
        Ok(End::Left) => {
            drop(Output::Stderr.write(b"\n"));
            tell(&format!(
                "session {number} of {container} is left; it ends in a minute unless you come back: \
                 berth exec -it --attach {number} {container}"
            ));
            Ok(0)
        }
        Ok(End::Replaced) => {
            Err(Failure::Here(format!("session {number} was attached to from elsewhere")))
        }
        Ok(End::RightEnded) => {
            Err(Failure::Here("your right to it has ended, and with it the program".into()))
        }
        Ok(End::Signal(signal)) => {
            // A program without a terminal has nobody to come back to it.
            if !manner.terminal {
                drop(api.act(Method::DELETE, &parts, &[], None, CALL_TIMEOUT).await);
            }
            Err(Failure::Signal(signal))
        }
        Err(Failure::Unread) => {
            drop(api.act(Method::DELETE, &parts, &[], None, CALL_TIMEOUT).await);
            Err(Failure::Unread)
        }
        Err(failure) => Err(failure),
    }
}
