//! How long containers run. Each start that somebody asks for begins a life; what a restart policy starts again
//! goes on with the one that there is. At its end the container is stopped as its owner would stop it, never
//! removed, and no policy starts it again.
//!
//! How long is said when it is made, else what is usual by its owner's allowance or their group's; never more than
//! these allow. An end can be put off within that, and a lowered allowance counts from the moment of the change.
//!
//! Ends are times of the wall clock, so that they are found when the server was away. When that clock is set while
//! the server runs, they move with it.

use std::time::{Duration, Instant};

use berth_runtime::id::PrincipalId;
use serde_json::json;
use sqlx::SqliteConnection;

use super::containers::actions;
use crate::app::App;
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::allowances;
use crate::inventory::containers::{self, Container, Life, Why};
use crate::inventory::events::NewEvent;

/// The shortest life, in seconds.
pub const SECS_MIN: u32 = 10;
/// The longest: a year.
pub const SECS_MAX: u32 = 31_536_000;
/// An end is told this long before, or a tenth of the life when that is less.
const TOLD_BEFORE: Duration = Duration::from_secs(3600);
/// Between two looks at the clock, which may be set.
const PERIOD: Duration = Duration::from_secs(5);
/// Between two looks when something is due.
const PERIOD_DUE: Duration = Duration::from_millis(500);
/// Containers that are told of, or stopped, in one look.
const AT_ONCE_MAX: u32 = 100;
/// The clocks drift apart by less than this between two looks.
const STEP_MIN_MS: i64 = 1000;
/// Two reads of one clock that are further apart than this say nothing of the other in between.
const READ_MAX_MS: i64 = 50;

/// What is allowed to the containers of one person.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct Policy {
    /// Seconds at most.
    pub(crate) most: Option<u32>,
    /// Seconds when nobody says.
    pub(crate) usual: Option<u32>,
}

/// What applies to the containers of `owner`.
pub(crate) async fn policy(db: &mut SqliteConnection, owner: PrincipalId) -> Result<Policy> {
    let mut policy = Policy::default();
    for sum in allowances::sums(db, owner).await? {
        let most = sum.allowance.lifetime_secs;
        policy.most = match (policy.most, most) {
            (Some(one), Some(other)) => Some(one.min(other)),
            (one, other) => one.or(other),
        };
        policy.usual = policy.usual.or(sum.allowance.lifetime_default_secs);
    }
    Ok(policy)
}

impl Policy {
    /// How long a life is for which `asked` was asked for; `None` for one without an end.
    fn secs(self, asked: Option<u32>) -> Option<u32> {
        let wanted = asked.or(self.usual).or(self.most)?;
        Some(self.most.map_or(wanted, |most| wanted.min(most)))
    }

    /// The life that begins now.
    pub(crate) fn begin(self, asked: Option<u32>) -> Life {
        let now = Time::now();
        let ends_at = self.secs(asked).map(|secs| later(now, secs));
        Life { began_at: now, ends_at }
    }

    /// Refuses what is asked for of a new container.
    pub(crate) fn check(self, asked: Option<u32>) -> Result<()> {
        match (asked, self.most) {
            (Some(asked), Some(most)) if asked > most => {
                let text = format!(
                    "{asked} is more than the {most} seconds ({}) that your containers may run; an operator \
                     can allow more",
                    span(most.into())
                );
                Err(Error::field("/lifetime_secs", text))
            }
            _ => Ok(()),
        }
    }
}

/// Refuses a life that is too short or too long for anybody.
pub(crate) fn check(pointer: &str, secs: Option<u32>) -> Result<()> {
    match secs {
        Some(secs) if !(SECS_MIN..=SECS_MAX).contains(&secs) => {
            Err(Error::field(pointer, format!("{secs} is not from {SECS_MIN} to {SECS_MAX}")))
        }
        _ => Ok(()),
    }
}

/// What applies to a new container of `owner`, in a sentence or two.
pub async fn in_words(app: &App, owner: PrincipalId) -> Result<String> {
    let mut db = app.inventory.read().acquire().await?;
    let policy = policy(&mut db, owner).await?;
    let usual = match policy.secs(None) {
        Some(secs) => format!("Left empty, it is stopped after {}", span(secs.into())),
        None => "Such as 8 h; left empty, it runs without an end".to_owned(),
    };
    let most = match policy.most {
        Some(most) => format!("; at most {}", span(most.into())),
        None => String::new(),
    };
    Ok(format!("{usual}{most}. Nothing of it is removed then."))
}

/// The life of a container that is started because somebody asks for it.
pub(crate) async fn begin(db: &mut SqliteConnection, row: &Container) -> Result<Life> {
    Ok(policy(db, row.owner).await?.begin(row.lifetime_secs))
}

/// The life of one that a policy starts again: that of before, if it has an end.
pub(crate) async fn go_on(db: &mut SqliteConnection, row: &Container) -> Result<Life> {
    match (row.life_began_at, row.ends_at) {
        (Some(began_at), Some(ends_at)) => Ok(Life { began_at, ends_at: Some(ends_at) }),
        _ => begin(db, row).await,
    }
}

/// Bounds what runs by the allowances that were just written.
pub(crate) async fn bound(db: &mut SqliteConnection) -> Result<()> {
    let count = containers::bound_lives(db, Time::now()).await?;
    if count > 0 {
        tracing::info!(containers = count, "their lives end by another allowance now");
    }
    Ok(())
}

/// The end of a life that is put off: by `secs` from now, or by as much as is usual for it.
///
/// # Errors
/// It would be later than is allowed, or no later than it is already.
pub(crate) fn put_off(row: &Container, policy: Policy, secs: Option<u32>) -> Result<Time> {
    let now = Time::now();
    let began_at = row.life_began_at.or(row.started_at).unwrap_or(now);
    let length = |ends_at: Time| u32::try_from((ends_at.0 - began_at.0) / 1000).ok();
    let wanted = secs
        .or_else(|| policy.secs(row.lifetime_secs))
        .or_else(|| row.ends_at.and_then(length))
        .ok_or_else(|| Error::conflict("container.no-end", "it runs without an end already"))?;
    let latest = policy.most.map_or(Time(i64::MAX), |most| later(began_at, most));
    let at = match secs {
        Some(_) => later(now, wanted),
        None => later(now, wanted).min(latest),
    };
    let most = policy.most.map(|most| span(most.into())).unwrap_or_default();
    if at > latest || (secs.is_none() && latest <= row.ends_at.unwrap_or(now)) {
        let text = format!(
            "a container of its owner may run for {most} from its start, which is over at {latest}; start \
             it anew for another {most}, or ask an operator for more"
        );
        return Err(Error::conflict("container.lifetime", text));
    }
    match row.ends_at {
        Some(now) if at <= now => {
            let text = format!("it runs until {now}, which is no earlier than what you ask for");
            Err(Error::conflict("container.no-later", text))
        }
        _ => Ok(at),
    }
}

/// Whether its end is near.
pub(crate) fn ends_soon(row: &Container) -> bool {
    let Some(ends_at) = row.ends_at else { return false };
    let began_at = row.life_began_at.unwrap_or(ends_at);
    let tenth = Duration::from_millis(u64::try_from(ends_at.0 - began_at.0).unwrap_or(0) / 10);
    ends_at.before(tenth.min(TOLD_BEFORE)) <= Time::now()
}

/// Why a rule has stopped it, in words.
pub(crate) fn why_in_words(why: Why) -> String {
    match why {
        Why::Lifetime(secs) => format!("its lifetime of {} ended", span(secs)),
        Why::Idle(secs) => format!("nobody has used it for {}", span(secs)),
    }
}

/// Stops what has come to its end, and tells what is near it, until the server stops.
pub async fn run(app: App) {
    let mut clocks = Clocks::read();
    loop {
        let pause = match pass(&app, &mut clocks).await {
            Ok(pause) => pause,
            Err(error) => {
                let error = anyhow::Error::from(error);
                tracing::warn!(error = format!("{error:#}"), "ends were not looked at");
                PERIOD
            }
        };
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = app.containers.life_noted() => {}
        }
    }
}

async fn pass(app: &App, clocks: &mut Clocks) -> Result<Duration> {
    follow_the_clock(app, clocks).await?;
    let db = app.inventory.read();
    let within_ms = i64::try_from(TOLD_BEFORE.as_millis()).unwrap_or(i64::MAX);
    let due = containers::ended_lives(db, AT_ONCE_MAX).await?;
    let busy = !due.is_empty();
    for ending in due {
        let app = app.clone();
        tokio::spawn(async move {
            let stopped = actions::stop_at_its_end(&app, &ending.id).await;
            // What is being stopped already, or has gone, needs nothing; all else is tried again.
            if let Err(error) = stopped {
                tracing::debug!(container = %ending.id, error = %error, "not stopped at its end");
            }
        });
    }
    let near = containers::lives_near_their_end(db, within_ms, AT_ONCE_MAX).await?;
    if !near.is_empty() {
        let mut write = app.inventory.observe().await?;
        for ending in near {
            containers::set_end_told(write.db(), &ending.id).await?;
            let (owner, subject) = (ending.owner, ending.id.as_str());
            let data = json!({"ends_at": ending.ends_at});
            let kind = "container.ends_soon";
            let event = NewEvent { owner, kind, subject_kind: "container", subject, data };
            write.event(event).await?;
        }
        write.commit().await?;
        app.containers.tell();
    }
    if busy {
        return Ok(PERIOD_DUE);
    }
    let next = containers::next_end(db, within_ms).await?;
    Ok(next.map_or(PERIOD, |at| at.until().min(PERIOD)))
}

/// The wall clock beside the one that nobody sets.
struct Clocks {
    wall: Time,
    steady: Instant,
}

impl Clocks {
    fn read() -> Self {
        // As near to each other as the machine lets it be: a pause in between would look like a step.
        for _ in 0..8 {
            let wall = Time::now();
            let steady = Instant::now();
            if Time::now().0.abs_diff(wall.0) <= READ_MAX_MS.unsigned_abs() {
                return Self { wall, steady };
            }
        }
        Self { wall: Time::now(), steady: Instant::now() }
    }

    /// By how much the wall clock was set since `before`, in milliseconds; 0 when it was not.
    fn step_since(&self, before: &Self) -> i64 {
        let passed = self.steady.saturating_duration_since(before.steady);
        let step = self.wall.0 - before.wall.after(passed).0;
        if step.abs() < STEP_MIN_MS { 0 } else { step }
    }
}

async fn follow_the_clock(app: &App, clocks: &mut Clocks) -> Result<()> {
    let now = Clocks::read();
    let step = now.step_since(clocks);
    if step != 0 {
        let mut write = app.inventory.observe().await?;
        let moved = containers::shift_lives(write.db(), clocks.wall, step).await?;
        write.commit().await?;
        tracing::warn!(step_ms = step, containers = moved, "the clock was set; ends move with it");
    }
    *clocks = now;
    Ok(())
}

fn later(at: Time, secs: u32) -> Time {
    at.after(Duration::from_secs(secs.into()))
}

/// A number of seconds for people, exact: `8 h`, `1 d 30 min`.
pub fn span(secs: u64) -> String {
    let parts = [(86_400, "d"), (3600, "h"), (60, "min"), (1, "s")];
    let mut rest = secs;
    let mut said = Vec::new();
    for (length, unit) in parts {
        if rest >= length {
            said.push(format!("{} {unit}", rest / length));
            rest %= length;
        }
    }
    if said.is_empty() { "0 s".to_owned() } else { said.join(" ") }
}

#[cfg(test)]
mod tests {
    use super::super::containers::view::tests::row;
    use super::*;
    use crate::inventory::containers::Intent;

    #[test]
    fn a_life_is_as_long_as_was_asked_for_within_what_is_allowed() {
        let policy = |most, usual| Policy { most, usual };
        for (policy, asked, expected) in [
            (policy(None, None), None, None),
            (policy(None, None), Some(60), Some(60)),
            (policy(Some(100), None), None, Some(100)),
            (policy(Some(100), Some(50)), None, Some(50)),
            (policy(Some(100), Some(500)), None, Some(100)),
            (policy(Some(100), Some(50)), Some(70), Some(70)),
            (policy(Some(100), None), Some(700), Some(100)),
            (policy(None, Some(50)), Some(700), Some(700)),
        ] {
            assert_eq!(policy.secs(asked), expected, "{policy:?} {asked:?}");
        }
        assert!(policy(Some(100), None).check(Some(101)).is_err());
        assert!(policy(Some(100), None).check(Some(100)).is_ok());
    }

    #[test]
    fn an_end_is_put_off_within_what_is_allowed() {
        let now = Time::now();
        let began_at = now.before(Duration::from_secs(50));
        let ends_at = later(now, 10);
        let row = Container {
            life_began_at: Some(began_at),
            ends_at: Some(ends_at),
            ..row(Intent::Running, 1)
        };
        let policy = |most, usual| Policy { most, usual };
        let at = put_off(&row, policy(Some(1000), Some(60)), None).expect("within");
        assert!(at >= later(now, 60) && at <= later(now, 65));
        let at = put_off(&row, policy(Some(100), Some(60)), None).expect("as late as may be");
        assert_eq!(at, later(began_at, 100));
        assert!(put_off(&row, policy(Some(60), Some(60)), None).is_err());
        assert!(put_off(&row, policy(Some(100), None), Some(90)).is_err());
        assert!(check("?secs", Some(SECS_MAX + 1)).is_err() && check("?secs", None).is_ok());
        // No rule holds any more: as long again as it was.
        assert!(put_off(&row, policy(None, None), None).expect("as long") > ends_at);
    }

    #[test]
    fn a_clock_that_is_set_is_told_from_one_that_goes_on() {
        let before = Clocks::read();
        let at = |wall: i64, steady: u64| Clocks {
            wall: Time(before.wall.0 + wall),
            steady: before.steady + Duration::from_millis(steady),
        };
        for (wall, steady, step) in [
            (5000, 5000, 0),
            (5900, 5000, 0),
            (3_605_000, 5000, 3_600_000),
            (-7_195_000, 5000, -7_200_000),
        ] {
            assert_eq!(at(wall, steady).step_since(&before), step);
        }
    }

    #[test]
    fn lengths_are_said_exactly() {
        let cases =
            [(28_800, "8 h"), (0, "0 s"), (90, "1 min 30 s"), (88_200, "1 d 30 min"), (10, "10 s")];
        for (secs, text) in cases {
            assert_eq!(span(secs), text);
        }
    }
}
