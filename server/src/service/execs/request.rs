//! What a program beside a container's first one is made from: the request, checked field by field, over
//! what the container was started with.

use std::collections::BTreeMap;

use berth_runtime::id::ExecId;
use berth_runtime::wire::{self, TERMINAL_CELLS_MAX};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::error::{Error, Result};
use crate::inventory::containers::Container;
use crate::service::containers::spec::{Faults, Spec, add_terminal_kind, check_program};

/// Where a program lies in a request.
const PROGRAM: &str = "/program";

/// A program to be run. What is left out is as for the container's first one.
#[derive(Debug, Clone, Default, Serialize, Deserialize, ToSchema)]
#[serde(default, deny_unknown_fields)]
#[schema(as = ProgramRequest)]
pub struct ProgramRequest {
    /// Program and arguments; the program is looked up in the `PATH` of its environment.
    #[schema(required = true)]
    pub command: Vec<String>,
    /// Environment, over the container's.
    pub env: BTreeMap<String, String>,
    /// Absolute path inside; made if absent.
    pub working_dir: Option<String>,
    /// `user[:group]` in the container, names or numbers.
    pub user: Option<String>,
}

/// A terminal's size in characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = TerminalSize)]
pub struct Size {
    /// Columns, 1 to 1000.
    #[schema(minimum = 1, maximum = 1000)]
    pub columns: u16,
    /// Rows, 1 to 1000.
    #[schema(minimum = 1, maximum = 1000)]
    pub rows: u16,
}

impl ProgramRequest {
    /// Checks everything that can be judged without the container.
    ///
    /// # Errors
    /// Points at each wrong field.
    pub(super) fn check(&self, terminal: Option<Size>) -> Result<()> {
        let mut faults = Faults::default();
        if self.command.is_empty() {
            faults.add("/command", "name a program to run");
        }
        faults.words("/command", &self.command);
        faults.env(&self.env);
        if let Some(path) = &self.working_dir {
            faults.path("/working_dir", path);
        }
        if let Some(user) = &self.user {
            faults.user("/user", user);
        }
        let mut faults = faults.below(PROGRAM);
        if terminal.is_some_and(|size| !size.is_possible()) {
            faults.add("/terminal", format!("columns and rows are 1 to {TERMINAL_CELLS_MAX}"));
        }
        faults.into_result()
    }

    /// The request to the supervisor.
    ///
    /// # Errors
    /// When it and the container's own together are too much.
    pub(super) fn merge(
        self,
        row: &Container,
        spec: Spec,
        exec: ExecId,
        terminal: Option<Size>,
    ) -> Result<wire::ExecRequest> {
        let first = spec.process;
        let name = |entry: &str| entry.split_once('=').map(|(name, _)| name.to_owned());
        let mut env: Vec<String> = first.env;
        env.retain(|entry| name(entry).is_none_or(|name| !self.env.contains_key(&name)));
        env.extend(self.env.iter().map(|(name, value)| format!("{name}={value}")));
        if terminal.is_some() {
            add_terminal_kind(&mut env);
        }
        check_program(PROGRAM, &self.command, &env)?;
        Ok(wire::ExecRequest {
            container: row.id.clone(),
            exec,
            person: row.owner,
            args: self.command,
            env,
            cwd: self.working_dir.unwrap_or(first.cwd),
            user: self.user.unwrap_or(first.user),
            terminal: terminal.map(Size::on_the_wire),
        })
    }
}

impl Size {
    /// Whether a terminal may have this size.
    pub(super) fn is_possible(self) -> bool {
        [self.columns, self.rows].iter().all(|cells| (1..=TERMINAL_CELLS_MAX).contains(cells))
    }

    /// As the supervisor takes it.
    pub(super) fn on_the_wire(self) -> wire::TerminalSize {
        wire::TerminalSize { columns: self.columns, rows: self.rows }
    }
}

/// The container's specification, which a container that runs has.
pub(super) fn spec_of(row: &Container) -> Result<Spec> {
    let spec = crate::service::containers::view::spec(row)?;
    spec.ok_or_else(|| Error::conflict("container.not-running", "the container does not run"))
}
