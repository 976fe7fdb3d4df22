//! Completion for shells and man pages, made from the same description of the command line that reads
//! it, so that they cannot tell of something else.

use std::path::PathBuf;

use clap::{Args, Command};
use clap_complete::{Generator, Shell};
use clap_mangen::Man;

use super::error::{Failure, Outcome};
use super::output::Output;

/// What `completion` takes.
#[derive(Args)]
pub struct CompletionArgs {
    /// For which shell; `source <(berth completion bash)` takes it at once.
    shell: Shell,
}

/// What `man` takes.
#[derive(Args)]
pub struct ManArgs {
    /// Write every page into this directory, such as /usr/local/share/man/man1, in place of the first
    /// one to the standard output.
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
}

/// `berth completion`.
///
/// # Errors
/// When it cannot be written.
pub fn completion(args: &CompletionArgs, mut command: Command) -> Outcome {
    let mut script = Vec::new();
    command.set_bin_name("berth");
    command.build();
    args.shell.generate(&command, &mut script);
    Output::Stdout.write(&script)?;
    Ok(0)
}

/// `berth man`.
///
/// # Errors
/// When it cannot be written.
pub fn man(args: &ManArgs, command: Command) -> Outcome {
    let Some(dir) = &args.dir else {
        let mut page = Vec::new();
        Man::new(command).render(&mut page)?;
        Output::Stdout.write(&page)?;
        return Ok(0);
    };
    clap_mangen::generate_to(command, dir).map_err(|error| {
        Failure::Here(format!("write manual pages into {}: {error}", dir.display()))
    })?;
    Ok(0)
}
