//! Restart policies: whether an end is followed by a start, and when. Pure; times are handed in.

use std::time::Duration;

use berth_runtime::record::{ExitCause, ExitRecord};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

/// The pause before the first restart; it doubles with each.
const PAUSE_FIRST: Duration = Duration::from_millis(200);
/// The longest pause.
const PAUSE_MAX: Duration = Duration::from_secs(60);
/// A run of at least this long was a success: counting starts anew.
const RUN_SOUND: Duration = Duration::from_secs(10);
/// The greatest count of `on-failure`.
pub(crate) const ATTEMPTS_MAX: u32 = 1000;

/// When a container that has ended is started again.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize, ToSchema)]
#[serde(try_from = "Form", tag = "name", rename_all = "kebab-case")]
pub(crate) enum RestartPolicy {
    /// Never.
    #[default]
    No,
    /// After an end other than exit code 0, so many times in a row; without a number, always.
    OnFailure {
        #[serde(skip_serializing_if = "Option::is_none")]
        max_attempts: Option<u32>,
    },
    /// After every end that nobody asked for, and after a reboot even when it was stopped before.
    Always,
    /// After every end that nobody asked for, and after a reboot.
    UnlessStopped,
}

/// A policy as it is read: serde lets unknown fields pass beside a variant without any.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Form {
    name: String,
    max_attempts: Option<u32>,
}

impl TryFrom<Form> for RestartPolicy {
    type Error = String;

    fn try_from(form: Form) -> Result<Self, String> {
        match (form.name.as_str(), form.max_attempts) {
            ("on-failure", max_attempts) => Ok(Self::OnFailure { max_attempts }),
            ("no", None) => Ok(Self::No),
            ("always", None) => Ok(Self::Always),
            ("unless-stopped", None) => Ok(Self::UnlessStopped),
            (_, Some(_)) => Err("max_attempts goes with on-failure only".to_owned()),
            (name, None) => Err(format!(
                "{name:?} is none of \"no\", \"on-failure\", \"always\", \"unless-stopped\""
            )),
        }
    }
}

impl RestartPolicy {
    /// How the inventory keeps it: the word, and the most attempts.
    pub(crate) fn columns(self) -> (&'static str, Option<u32>) {
        match self {
            Self::No => ("no", None),
            Self::OnFailure { max_attempts } => ("on-failure", max_attempts),
            Self::Always => ("always", None),
            Self::UnlessStopped => ("unless-stopped", None),
        }
    }
}

/// What a policy makes of an end.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Verdict {
    /// It stays as it is.
    Stay,
    /// It is started again at `at_ms`, as attempt number `attempt` since it last ran soundly.
    Again { at_ms: i64, attempt: u32 },
}

/// What follows `exit`, which nobody had asked for; `attempts` restarts came before it in a row.
pub(crate) fn after_end(
    policy: RestartPolicy,
    exit: &ExitRecord,
    attempts: u32,
    now_ms: i64,
) -> Verdict {
    let host = matches!(exit.cause, ExitCause::HostShutdown | ExitCause::HostLost);
    let attempts = if host || ran_soundly(exit) { 0 } else { attempts };
    let again = match policy {
        RestartPolicy::No => false,
        // The host's end is nobody's stop and no failure of the container's: it was running and may
        // restart, so it does.
        RestartPolicy::OnFailure { .. } if host => true,
        RestartPolicy::OnFailure { max_attempts } => {
            exit.code != Some(0) && attempts < max_attempts.unwrap_or(u32::MAX)
        }
        RestartPolicy::Always | RestartPolicy::UnlessStopped => true,
    };
    if !again {
        return Verdict::Stay;
    }
    let pause = if host { Duration::ZERO } else { pause_before(attempts) };
    let pause_ms = i64::try_from(pause.as_millis()).unwrap_or(i64::MAX);
    Verdict::Again { at_ms: now_ms.saturating_add(pause_ms), attempt: attempts.saturating_add(1) }
}

/// The pause after `attempts` restarts in a row.
fn pause_before(attempts: u32) -> Duration {
    let factor = 1_u32.checked_shl(attempts).unwrap_or(u32::MAX);
    PAUSE_FIRST.saturating_mul(factor).min(PAUSE_MAX)
}

fn ran_soundly(exit: &ExitRecord) -> bool {
    let sound_ms = i64::try_from(RUN_SOUND.as_millis()).unwrap_or(i64::MAX);
    exit.started_ms > 0 && exit.ended_ms.saturating_sub(exit.started_ms) >= sound_ms
}

#[cfg(test)]
mod tests {
    use super::*;

    fn exit(code: Option<i32>, cause: ExitCause, ran_ms: i64) -> ExitRecord {
        ExitRecord {
            run: 1,
            code,
            signal: None,
            cause,
            oom_kills: 0,
            memory_bytes_max: 1 << 26,
            started_ms: 1_000,
            ended_ms: 1_000 + ran_ms,
            log_bytes_lost: 0,
            failure: None,
        }
    }

    fn attempts_until_stay(policy: RestartPolicy, exit: &ExitRecord) -> u32 {
        let mut attempts = 0;
        while let Verdict::Again { attempt, .. } = after_end(policy, exit, attempts, 0) {
            attempts = attempt;
            if attempts > 50 {
                break;
            }
        }
        attempts
    }

    #[test]
    fn each_policy_follows_its_name() {
        let good = exit(Some(0), ExitCause::Exited, 5);
        let bad = exit(Some(3), ExitCause::Exited, 5);
        let three = RestartPolicy::OnFailure { max_attempts: Some(3) };
        assert_eq!(attempts_until_stay(RestartPolicy::No, &bad), 0);
        assert_eq!(attempts_until_stay(three, &bad), 3);
        assert_eq!(attempts_until_stay(three, &good), 0);
        assert_eq!(attempts_until_stay(RestartPolicy::OnFailure { max_attempts: None }, &bad), 51);
        assert_eq!(attempts_until_stay(RestartPolicy::Always, &good), 51);
        assert_eq!(attempts_until_stay(RestartPolicy::UnlessStopped, &bad), 51);
    }

    #[test]
    fn the_hosts_end_is_nobodys_stop() {
        for cause in [ExitCause::HostShutdown, ExitCause::HostLost] {
            let exit = exit(None, cause, 5);
            let policy = RestartPolicy::OnFailure { max_attempts: Some(1) };
            let now = Verdict::Again { at_ms: 77, attempt: 1 };
            assert_eq!(after_end(policy, &exit, 9, 77), now);
            assert_eq!(after_end(RestartPolicy::UnlessStopped, &exit, 9, 77), now);
            assert_eq!(after_end(RestartPolicy::No, &exit, 0, 77), Verdict::Stay);
        }
    }

    #[test]
    fn pauses_double_up_to_a_minute_and_a_sound_run_starts_anew() {
        let bad = exit(Some(1), ExitCause::Exited, 5);
        let pause = |attempts| match after_end(RestartPolicy::Always, &bad, attempts, 0) {
            Verdict::Again { at_ms, .. } => at_ms,
            Verdict::Stay => -1,
        };
        assert_eq!([0, 1, 2, 8].map(pause), [200, 400, 800, 51_200]);
        assert_eq!([9, 40, u32::MAX].map(pause), [60_000; 3]);
        let sound = exit(Some(1), ExitCause::Exited, 10_000);
        let anew = Verdict::Again { at_ms: 200, attempt: 1 };
        assert_eq!(after_end(RestartPolicy::Always, &sound, 40, 0), anew);
    }

    #[test]
    fn policies_have_one_json_form() {
        let text = r#"{"name":"on-failure","max_attempts":3}"#;
        let policy: RestartPolicy = serde_json::from_str(text).expect("policy");
        assert_eq!(policy, RestartPolicy::OnFailure { max_attempts: Some(3) });
        assert_eq!(serde_json::to_string(&policy).expect("text"), text);
        let always: RestartPolicy = serde_json::from_str(r#"{"name":"always"}"#).expect("policy");
        assert_eq!(always, RestartPolicy::Always);
        assert!(serde_json::from_str::<RestartPolicy>(r#"{"name":"always","x":1}"#).is_err());
    }
}
