//! A container's states as people see them, and the one table of what may follow what.
//!
//! Pure: it knows neither the inventory nor the kernel. What is *shown* is computed from what was
//! asked for (the inventory's intent) and what is observed (the supervisor's record); nothing here
//! is stored as truth. OCI runtime-spec, runtime.md, "Lifecycle", has the states below these.

use std::fmt;

use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// What a container is doing, in one word.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize, ToSchema)]
#[schema(as = ContainerStatus)]
#[serde(rename_all = "snake_case")]
pub(crate) enum Status {
    /// Waits for its image.
    Pulling,
    /// Complete, never started.
    Created,
    /// Being built and started.
    Starting,
    /// Running.
    Running,
    /// Frozen.
    Paused,
    /// Asked to end, not ended yet.
    Stopping,
    /// Ended; its restart policy starts it again after a pause.
    Restarting,
    /// Ended.
    Exited,
    /// Could not be pulled or started.
    Failed,
    /// Being removed.
    Removing,
}

/// What people, or the reconciliation on their behalf, do to a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub(crate) enum Action {
    /// Start it.
    Start,
    /// Ask it to end, and end it after its grace.
    Stop,
    /// Send it a signal.
    Signal,
    /// Stop and start it.
    Restart,
    /// Freeze it.
    Pause,
    /// Thaw it.
    Resume,
    /// Change its limits.
    Update,
    /// Give it another name.
    Rename,
    /// Remove it when it does not run.
    Remove,
    /// End it and remove it.
    RemoveForced,
}

impl Forbidden {
    /// The problem's code.
    pub(crate) fn code(self) -> String {
        format!("container.{}", self.status)
    }
}

/// All states, in the order of a container's life.
pub(crate) const STATUSES: [Status; 10] = [
    Status::Pulling,
    Status::Created,
    Status::Starting,
    Status::Running,
    Status::Paused,
    Status::Stopping,
    Status::Restarting,
    Status::Exited,
    Status::Failed,
    Status::Removing,
];

/// An action that a state forbids.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
#[error("the container is {status}, so it cannot be {}", action.participle())]
pub(crate) struct Forbidden {
    pub(crate) status: Status,
    pub(crate) action: Action,
}

/// The state that follows `action` in `status`.
pub(crate) fn next(status: Status, action: Action) -> Result<Status, Forbidden> {
    use Action as A;
    use Status as S;
    match (status, action) {
        // Removal wins over everything and is the only thing that may be asked twice.
        (S::Removing, A::Remove | A::RemoveForced) => Ok(S::Removing),
        (S::Removing, _) => Err(Forbidden { status, action }),
        (_, A::RemoveForced) => Ok(S::Removing),
        (S::Pulling | S::Created | S::Restarting | S::Exited | S::Failed, A::Remove) => {
            Ok(S::Removing)
        }
        // Names and limits are the inventory's: any state but the last allows a change.
        (_, A::Rename | A::Update) => Ok(status),
        (S::Created | S::Restarting | S::Exited | S::Failed, A::Start | A::Restart) => {
            Ok(S::Starting)
        }
        (S::Running | S::Paused, A::Restart) => Ok(S::Starting),
        (S::Starting | S::Running | S::Paused | S::Stopping, A::Stop) => Ok(S::Stopping),
        // Nothing runs: only the restart that was to come is called off.
        (S::Restarting, A::Stop) => Ok(S::Exited),
        (S::Running | S::Paused | S::Stopping, A::Signal) => Ok(status),
        (S::Running, A::Pause) => Ok(S::Paused),
        (S::Paused, A::Resume) => Ok(S::Running),
        _ => Err(Forbidden { status, action }),
    }
}

impl Status {
    /// The word in JSON and in filters.
    pub(crate) fn as_str(self) -> &'static str {
        match self {
            Self::Pulling => "pulling",
            Self::Created => "created",
            Self::Starting => "starting",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Stopping => "stopping",
            Self::Restarting => "restarting",
            Self::Exited => "exited",
            Self::Failed => "failed",
            Self::Removing => "removing",
        }
    }

    /// The state of that word.
    pub(crate) fn parse(word: &str) -> Option<Self> {
        STATUSES.into_iter().find(|status| status.as_str() == word)
    }
}

impl fmt::Display for Status {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl Action {
    fn participle(self) -> &'static str {
        match self {
            Self::Start => "started",
            Self::Stop => "stopped",
            Self::Signal => "signalled",
            Self::Restart => "restarted",
            Self::Pause => "paused",
            Self::Resume => "resumed",
            Self::Update => "changed",
            Self::Rename => "renamed",
            Self::Remove => "removed without force",
            Self::RemoveForced => "removed",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const ACTIONS: [Action; 10] = [
        Action::Start,
        Action::Stop,
        Action::Signal,
        Action::Restart,
        Action::Pause,
        Action::Resume,
        Action::Update,
        Action::Rename,
        Action::Remove,
        Action::RemoveForced,
    ];

    /// One row a state, one column an action; `-` is forbidden.
    const TABLE: &str = "
                   start    stop     signal   restart  pause  resume  update     rename     remove   force
        pulling    -        -        -        -        -      -       pulling    pulling    removing removing
        created    starting -        -        starting -      -       created    created    removing removing
        starting   -        stopping -        -        -      -       starting   starting   -        removing
        running    -        stopping running  starting paused -       running    running    -        removing
        paused     -        stopping paused   starting -      running paused     paused     -        removing
        stopping   -        stopping stopping -        -      -       stopping   stopping   -        removing
        restarting starting exited   -        starting -      -       restarting restarting removing removing
        exited     starting -        -        starting -      -       exited     exited     removing removing
        failed     starting -        -        starting -      -       failed     failed     removing removing
        removing   -        -        -        -        -      -       -          -          removing removing
    ";

    #[test]
    fn every_pair_of_state_and_action_is_as_the_table_says() {
        let mut seen = 0;
        for line in TABLE.lines().filter(|line| !line.trim().is_empty()).skip(1) {
            let mut words = line.split_whitespace();
            let status = words.next().and_then(Status::parse).expect("a state");
            for action in ACTIONS {
                let expected = Status::parse(words.next().expect("a column for each action"));
                let forbidden = Forbidden { status, action };
                assert_eq!(next(status, action), expected.ok_or(forbidden), "{forbidden:?}");
                seen += 1;
            }
            assert_eq!(words.next(), None, "{status}");
        }
        assert_eq!(seen, STATUSES.len() * ACTIONS.len());
    }

    #[test]
    fn a_refusal_names_state_and_action() {
        let refusal = next(Status::Paused, Action::Start).expect_err("forbidden");
        assert_eq!(refusal.to_string(), "the container is paused, so it cannot be started");
    }
}
