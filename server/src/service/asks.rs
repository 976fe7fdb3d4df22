//! Asking for more: a person asks for more of one limit of their own, says why and until when; operators see what is in
//! use, what is allowed and what everybody would have together, and decide. What is granted for good goes into the
//! person's own allowance. What is granted for a time lies on top of whatever their allowance says, and is over by
//! itself: each reading of an allowance looks at the time, so that it ends also while the server is down.

use std::collections::HashMap;
use std::time::Duration;

use berth_runtime::id::PrincipalId;
use serde::{Deserialize, Serialize};
use serde_json::json;
use tokio::sync::Notify;
use utoipa::ToSchema;

use super::admission::words;
use super::containers::view::OwnerView;
use super::in_use::{self, InUse};
use super::space::SpaceLimit;
use super::{Listed, Page, allowances, data, machine};
use crate::app::App;
use crate::auth::{Caller, Visibility};
use crate::clock::Time;
use crate::config::ContainersConfig;
use crate::error::{Error, Result};
use crate::inventory::allowances::{self as stored, Allowance, Bounded, Whose};
use crate::inventory::asks::{self as rows, Ask, AskState, Decision, Extra, Filter, NewAsk};
use crate::inventory::audit::{By, Row};
use crate::inventory::events::NewEvent;
use crate::inventory::people;
use crate::inventory::{Write, usage};

/// What one person may have open.
pub const OPEN_MAX: usize = 5;
/// Asks of one person that are kept; the oldest that are over go first.
const KEPT: u32 = 50;
/// Characters of a reason, and of an answer.
const REASON_CHARS: std::ops::RangeInclusive<usize> = 1..=500;
/// How far ahead an end may lie.
const ENDS_WITHIN: Duration = Duration::from_secs(366 * 86_400);
/// What is ended in one go; the rest follows in the next.
const DUE_MAX: u32 = 64;
/// Between two tries to have the kernel hold what holds without what is over, and looks at the wall clock.
const PERIOD: Duration = Duration::from_secs(30);
/// People whose data is looked at for one list; a process each.
const DATA_LOOKS_MAX: usize = 20;

/// Wakes what ends at its hour.
#[derive(Default)]
pub struct Asks(Notify);

/// An ask.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = Ask)]
pub struct AskView {
    /// Its number.
    pub id: i64,
    /// Who asks.
    pub person: OwnerView,
    /// For more of what: `memory_bytes`, `containers_max`, and so on, as an allowance names it.
    pub limit: Bounded,
    /// How much they would have in all: bytes, thousandths of a core, a number, or bytes per second.
    pub wanted: u64,
    /// Until when they ask for it; null is for good.
    pub until: Option<Time>,
    /// Why, in their words.
    pub reason: String,
    /// When they asked.
    pub asked_at: Time,
    /// How it stands.
    pub state: AskState,
    /// Which operator has decided.
    pub decided_by: Option<String>,
    /// When.
    pub decided_at: Option<Time>,
    /// What the operator said to it; may be empty.
    pub answer: String,
    /// How much was granted in all.
    pub granted: Option<u64>,
    /// Until when; null is for good.
    pub ends_at: Option<Time>,
    /// How it is now; only while it is open.
    pub now: Option<AskNow>,
}

/// What an open ask is about.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct AskNow {
    /// What they may have now, with what was granted for a time; null is no bound.
    pub allowed: Option<u64>,
    /// What is in use, as far as it is counted: of rates the most of the last hour.
    pub used: Option<u64>,
    /// What everybody might use together if it were granted; for operators and auditors.
    pub whole: Option<AskWhole>,
}

/// What everybody may use of a limit.
#[derive(Debug, Clone, Copy, Serialize, ToSchema)]
pub struct AskWhole {
    /// The sum of all people's bounds with this one as it is asked for.
    pub together: u64,
    /// How many people have no bound.
    pub unbounded: u32,
    /// What the machine has: thousandths of a core, bytes of memory, swap or disk; null where nothing says.
    pub machine: Option<u64>,
}

/// A wish.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(example = json!({"limit": "memory_bytes", "wanted": 17_179_869_184_u64, "until": "2030-12-31",
    "reason": "The data of the new course does not fit into 8 GiB"}))]
pub struct AskRequest {
    /// Of what.
    pub limit: Bounded,
    /// How much in all, in the limit's unit; more than is allowed now.
    pub wanted: u64,
    /// Until when: a day in UTC, through which it holds, or a time; for good when left out. At most a year ahead.
    #[serde(default)]
    pub until: Option<String>,
    /// Why, 1 to 500 characters on one line. Operators read it.
    pub reason: String,
}

/// A yes.
#[derive(Debug, Clone, Default, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct ApproveRequest {
    /// How much in all; as asked for when left out.
    #[serde(default)]
    pub granted: Option<u64>,
    /// Until when: a day in UTC, through which it holds, or a time; as asked for when left out.
    #[serde(default)]
    pub until: Option<String>,
    /// For good, whatever was asked for.
    #[serde(default)]
    pub for_good: bool,
    /// A word to whoever asked, up to 500 characters on one line.
    #[serde(default)]
    pub answer: String,
}

/// A no.
#[derive(Debug, Clone, Deserialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub struct DeclineRequest {
    /// Why, 1 to 500 characters on one line. Whoever asked reads it.
    pub reason: String,
}

/// Asks, newest first: one's own, or for operators and auditors everybody's.
///
/// # Errors
/// The page is none.
pub async fn list(
    app: &App,
    caller: &Caller,
    mut filter: Filter,
    page: &Page,
) -> Result<Listed<AskView>> {
    if let Some(after) = &page.after {
        let before = after.parse().map_err(|_| Error::field("?after", "no such page"))?;
        filter.before = Some(before);
    }
    let asks = rows::list(app.inventory.read(), caller.sees(), filter, page.rows()).await?;
    let Listed { items, next } = page.cut(asks, |ask| ask.id.to_string());
    Ok(Listed { items: views(app, caller, items).await?, next })
}

/// How many wait for an operator.
///
/// # Errors
/// As the inventory's.
pub async fn waiting(app: &App) -> Result<u64> {
    Ok(u64::try_from(rows::count_open(app.inventory.read()).await?).unwrap_or(0))
}

/// One ask.
///
/// # Errors
/// There is none, or it is somebody else's.
pub async fn find(app: &App, caller: &Caller, id: i64) -> Result<AskView> {
    let mut db = app.inventory.read().acquire().await?;
    let ask = rows::find(&mut db, caller.sees(), id).await?;
    drop(db);
    one(app, caller, ask).await
}

/// Each limit of the caller's own, what it is now, and what of it is in use.
///
/// # Errors
/// As the kernel's files'.
pub async fn limits(app: &App, caller: &Caller) -> Result<Vec<SpaceLimit>> {
    let person = caller.person()?;
    let allowance = allowances::found(app, person).await?.allowance;
    let seen = in_use::look(app, &[(Whose::Person, person)]).await?;
    let seen = seen.first().copied().unwrap_or_default();
    let kept = data_use(app, person).await;
    let line = |limit| SpaceLimit {
        limit,
        allowed: bound(&app.config.containers, &allowance, limit),
        used: used_of(&seen, kept, limit),
    };
    Ok(Bounded::ALL.into_iter().map(line).collect())
}

/// Asks operators for more.
///
/// # Errors
/// It is not more than is allowed, nothing bounds it, or as much is open already.
pub async fn ask(app: &App, caller: &Caller, request: &AskRequest) -> Result<AskView> {
    let person = caller.person()?;
    let reason = sentence("/reason", &request.reason, REASON_CHARS)?;
    let until = request.until.as_deref().map(end_of).transpose()?.flatten();
    let AskRequest { limit, wanted, .. } = *request;
    let mut write = app.inventory.change(&caller.actor, "ask.make").await?;
    let allowance = stored::of(write.db(), person).await?.allowance;
    more_than(app, &allowance, (limit, wanted), "/wanted")?;
    let open = rows::open_of(write.db(), person).await?;
    if open.contains(&limit) {
        let text = "you have asked for more of this already; withdraw that first to ask for something else";
        return Err(Error::conflict("ask.open", text));
    }
    if open.len() >= OPEN_MAX {
        let text = format!(
            "{OPEN_MAX} of your asks wait for an answer, the most that may; withdraw one first"
        );
        return Err(Error::exhausted("ask.too-many", text));
    }
    let id = rows::insert(write.db(), &NewAsk { person, limit, wanted, until, reason }).await?;
    rows::prune(write.db(), person, KEPT).await?;
    write.subject("ask", id, person);
    told(&mut write, (id, person), "ask.made", (words(limit, wanted).as_str(), reason)).await?;
    let ask = rows::find(write.db(), Visibility::Everyone, id).await?;
    write.commit().await?;
    one(app, caller, ask).await
}

/// Takes an ask of one's own back.
///
/// # Errors
/// It is not open any more.
pub async fn withdraw(app: &App, caller: &Caller, id: i64) -> Result<AskView> {
    let own = Visibility::Only(caller.person()?);
    let decision =
        Decision { state: AskState::Withdrawn, by: None, answer: "", granted: None, ends_at: None };
    decide(app, caller, (own, id), ("ask.withdraw", "ask.withdrawn"), &decision).await
}

/// Says no; whoever asked reads why.
///
/// # Errors
/// It is not open any more, or no reason is given.
pub async fn decline(
    app: &App,
    caller: &Caller,
    id: i64,
    request: &DeclineRequest,
) -> Result<AskView> {
    let answer = sentence("/reason", &request.reason, REASON_CHARS)?;
    let decision = Decision {
        state: AskState::Declined,
        by: Some(&caller.name),
        answer,
        granted: None,
        ends_at: None,
    };
    let whose = (caller.changes(), id);
    decide(app, caller, whose, ("ask.decline", "ask.declined"), &decision).await
}

/// Grants it, or less, for a time or for good; the kernel holds it from now on.
///
/// # Errors
/// It is not open any more, what is granted is not more than is allowed, or the disk has not as much.
pub async fn approve(
    app: &App,
    caller: &Caller,
    id: i64,
    request: &ApproveRequest,
) -> Result<AskView> {
    let answer = sentence("/answer", &request.answer, 0..=*REASON_CHARS.end())?;
    let until = request.until.as_deref().map(end_of).transpose()?.flatten();
    if request.for_good && until.is_some() {
        return Err(Error::field("/for_good", "it is for good or until a day, not both"));
    }
    let _one = app.allowances.lock().await;
    let mut db = app.inventory.read().acquire().await?;
    let ask = rows::find(&mut db, caller.changes(), id).await?;
    let now = stored::of(&mut db, ask.person).await?.allowance;
    let base = stored::base(&mut db, ask.person).await?.allowance;
    let extras = rows::extras_of(&mut db, ask.person, Time::now()).await?;
    drop(db);
    still_open(&ask)?;
    let granted = request.granted.unwrap_or(ask.wanted);
    more_than(app, &now, (ask.limit, granted), "/granted")?;
    let ends_at = if request.for_good { None } else { until.or(ask.until) };
    if ends_at.is_some_and(|at| at <= Time::now()) {
        let text = "the time that was asked for is past; say until when, or for good";
        return Err(Error::field("/until", text));
    }
    let raised = base.with_bound(ask.limit, granted);
    let held = match ends_at {
        None => raised.with_extras(&extras),
        Some(_) => now.with_bound(ask.limit, granted),
    };
    let person = people::find(app.inventory.read(), Visibility::Everyone, ask.person).await?;
    let range = app.runtime.person_add(ask.person, person.group).await?;
    data::grow(app, &range, held.data_bytes).await?;
    app.runtime.person_total(ask.person, held.total()).await?;
    let mut write = app.inventory.change(&caller.actor, "ask.approve").await?;
    write.subject("ask", id, ask.person);
    let decision = Decision {
        state: AskState::Approved,
        by: Some(&caller.name),
        answer,
        granted: Some(granted),
        ends_at,
    };
    if !rows::decide(write.db(), id, &decision).await? {
        drop(write);
        app.runtime.person_total(ask.person, now.total()).await?;
        return Err(decided());
    }
    if ends_at.is_none() {
        stored::set(write.db(), ask.person, &raised).await?;
    }
    let term = ends_at.map_or_else(|| "for good".to_owned(), |at| format!("until {at}"));
    let text = match answer {
        "" => format!("{term}, by {}", caller.name),
        answer => format!("{term}, by {}: {answer}", caller.name),
    };
    let what = words(ask.limit, granted);
    told(&mut write, (id, ask.person), "ask.approved", (what.as_str(), text.as_str())).await?;
    let ask = rows::find(write.db(), Visibility::Everyone, id).await?;
    write.commit().await?;
    app.data.wake();
    app.asks.0.notify_one();
    one(app, caller, ask).await
}

/// Ends what was granted for a time before its hour.
///
/// # Errors
/// It is not granted for a time, or over.
pub async fn end(app: &App, caller: &Caller, id: i64) -> Result<AskView> {
    let mut write = app.inventory.change(&caller.actor, "ask.end").await?;
    let ask = rows::find(write.db(), caller.changes(), id).await?;
    write.subject("ask", id, ask.person);
    if !rows::end(write.db(), id, Time::now()).await? {
        let text = "only what is granted for a time, and goes on, can be ended; what is granted for good is in \
             the person's own allowance";
        return Err(Error::conflict("ask.not-for-a-time", text));
    }
    let what = words(ask.limit, ask.granted.unwrap_or(0));
    let text = format!("by {}", caller.name);
    told(&mut write, (id, ask.person), "ask.ended", (what.as_str(), text.as_str())).await?;
    let ask = rows::find(write.db(), Visibility::Everyone, id).await?;
    write.commit().await?;
    app.asks.0.notify_one();
    one(app, caller, ask).await
}

/// Ends what was granted for a time when that is over, until the server stops.
pub async fn run(app: App) {
    loop {
        let pause = match end_due(&app).await {
            // By the wall clock, which may be set: never longer than a period.
            Ok(next) => next.map_or(PERIOD, |at| at.until().min(PERIOD)),
            Err(error) => {
                tracing::warn!(error = %error, "what was granted for a time was not looked after");
                PERIOD
            }
        };
        tokio::select! {
            () = app.stopping.cancelled() => return,
            () = tokio::time::sleep(pause) => {}
            () = app.asks.0.notified() => {}
        }
    }
}

/// Ends what is over; when the next is.
async fn end_due(app: &App) -> Result<Option<Time>> {
    let now = Time::now();
    for ask in rows::due(app.inventory.read(), now, DUE_MAX).await? {
        if ask.state == AskState::Approved {
            let mut write = app.inventory.record().await?;
            if rows::end(write.db(), ask.id, now).await? {
                let number = ask.id.to_string();
                write.note(Row::unasked(
                    By::Policy,
                    "ask.end",
                    ("ask", number.as_str(), ask.person),
                ));
                let what = words(ask.limit, ask.granted.unwrap_or(0));
                told(&mut write, (ask.id, ask.person), "ask.ended", (what.as_str(), "")).await?;
                write.commit().await?;
            }
        }
        if let Err(error) = settle(app, &ask).await {
            tracing::info!(person = %ask.person, error = %error, "what holds now is not held yet");
        }
    }
    rows::next_end(app.inventory.read()).await
}

/// Has the kernel hold what holds without what was granted.
async fn settle(app: &App, ask: &Ask) -> Result<()> {
    let _one = app.allowances.lock().await;
    let person = people::find(app.inventory.read(), Visibility::Everyone, ask.person).await?;
    let range = app.runtime.person_add(ask.person, person.group).await?;
    allowances::hold(app, &range).await?;
    app.data.wake();
    let mut write = app.inventory.record().await?;
    rows::settle(write.db(), ask.id).await?;
    write.commit().await
}

async fn decide(
    app: &App,
    caller: &Caller,
    (visible, id): (Visibility, i64),
    (action, event): (&'static str, &'static str),
    decision: &Decision<'_>,
) -> Result<AskView> {
    let mut write = app.inventory.change(&caller.actor, action).await?;
    let ask = rows::find(write.db(), visible, id).await?;
    write.subject("ask", id, ask.person);
    if !rows::decide(write.db(), id, decision).await? {
        return Err(decided());
    }
    let what = words(ask.limit, ask.wanted);
    told(&mut write, (id, ask.person), event, (what.as_str(), decision.answer)).await?;
    let ask = rows::find(write.db(), Visibility::Everyone, id).await?;
    write.commit().await?;
    one(app, caller, ask).await
}

fn still_open(ask: &Ask) -> Result<()> {
    if ask.state == AskState::Open { Ok(()) } else { Err(decided()) }
}

fn decided() -> Error {
    Error::conflict("ask.decided", "it is not open any more: somebody has decided, or withdrawn it")
}

/// For whoever asked, and those who see everybody's.
async fn told(
    write: &mut Write,
    (id, owner): (i64, PrincipalId),
    kind: &'static str,
    (what, text): (&str, &str),
) -> Result<()> {
    let subject = id.to_string();
    let data = json!({"name": what, "text": text});
    write.event(NewEvent { owner, kind, subject_kind: "ask", subject: &subject, data }).await
}

/// Refuses what is not more than is allowed, or cannot be.
fn more_than(
    app: &App,
    now: &Allowance,
    (limit, wanted): (Bounded, u64),
    pointer: &'static str,
) -> Result<()> {
    let Some(allowed) = bound(&app.config.containers, now, limit) else {
        let text = format!("nothing bounds {} here: there is no more to ask for", limit.name());
        return Err(Error::conflict("ask.not-bounded", text));
    };
    if wanted <= allowed {
        let text =
            format!("{} are allowed now: ask for more than that in all", words(limit, allowed));
        return Err(Error::field(pointer, text));
    }
    // What an allowance may be at all is said by its own check, of the one field.
    let whole = if u32::try_from(wanted).is_err() && is_small(limit) {
        u64::from(u32::MAX)
    } else {
        wanted
    };
    match allowances::check(&Allowance::FREE.with_bound(limit, whole)) {
        Err(Error::Invalid { fields, .. }) => {
            let detail = fields.into_iter().next().map(|field| field.detail);
            Err(Error::field(pointer, detail.unwrap_or_else(|| "is no such bound".to_owned())))
        }
        other => other,
    }
}

/// Whether an allowance has it in 32 bits.
fn is_small(limit: Bounded) -> bool {
    use Bounded::{ContainersMax, CpuMillis, ImagesMax, Pids, PortsMax};
    matches!(limit, CpuMillis | Pids | ContainersMax | PortsMax | ImagesMax)
}

/// What bounds somebody; the configuration where their allowance does not.
fn bound(config: &ContainersConfig, allowance: &Allowance, limit: Bounded) -> Option<u64> {
    let configured = match limit {
        Bounded::ContainersMax => Some(u64::from(config.per_person_max)),
        Bounded::PortsMax => Some(u64::from(config.ports_per_person_max)),
        _ => None,
    };
    allowance.bound(limit).or(configured)
}

/// When something is to end: a day, through which it holds, or a time; empty for never.
///
/// # Errors
/// Points at `/until` when it is neither, or does not lie ahead, or does too far.
fn end_of(text: &str) -> Result<Option<Time>> {
    let text = text.trim();
    if text.is_empty() {
        return Ok(None);
    }
    let at = Time::parse_end(text).map_err(|rule| Error::field("/until", rule))?;
    let now = Time::now();
    if at <= now {
        return Err(Error::field(
            "/until",
            format!("{at} is past; name a later one, or none for good"),
        ));
    }
    if at > now.after(ENDS_WITHIN) {
        let rule = format!("{at} is more than a year ahead; name an earlier one, or none for good");
        return Err(Error::field("/until", rule));
    }
    Ok(Some(at))
}

fn sentence<'a>(
    pointer: &'static str,
    text: &'a str,
    chars: std::ops::RangeInclusive<usize>,
) -> Result<&'a str> {
    let text = text.trim();
    if !chars.contains(&text.chars().count()) {
        let (least, most) = (chars.start(), chars.end());
        return Err(Error::field(pointer, format!("say why in {least} to {most} characters")));
    }
    if text.contains(char::is_control) {
        return Err(Error::field(pointer, "it holds a control character; it is one line"));
    }
    Ok(text)
}

async fn one(app: &App, caller: &Caller, ask: Ask) -> Result<AskView> {
    let mut views = views(app, caller, vec![ask]).await?;
    views.pop().ok_or(Error::NotFound("ask"))
}

/// What everybody may use, read once for a list.
struct Everybody {
    people: Vec<PrincipalId>,
    own: HashMap<PrincipalId, Allowance>,
    default: Allowance,
    extras: HashMap<PrincipalId, Vec<Extra>>,
    cpus: Option<u64>,
    memory_bytes: Option<u64>,
    swap_bytes: Option<u64>,
    disk_bytes: Option<u64>,
}

impl Everybody {
    async fn look(app: &App) -> Result<Self> {
        let db = app.inventory.read();
        let host = tokio::task::spawn_blocking(machine::look).await;
        let host = host.ok().and_then(std::result::Result::ok);
        let memory = host.as_ref().map(|host| host.memory);
        Ok(Self {
            people: usage::names(db).await?.into_keys().collect(),
            own: stored::all(db).await?,
            default: stored::default(db).await?,
            extras: rows::extras(db, Time::now()).await?,
            cpus: host.map(|host| u64::from(host.cpus)),
            memory_bytes: memory.map(|memory| memory.total_bytes),
            swap_bytes: memory.map(|memory| memory.swap_total_bytes),
            disk_bytes: machine::disk(&app.config.store_dir()).ok().map(|disk| disk.total_bytes),
        })
    }

    /// What holds for one of them.
    fn of(&self, person: PrincipalId) -> Allowance {
        let base = self.own.get(&person).copied().unwrap_or(self.default);
        base.with_extras(self.extras.get(&person).map(Vec::as_slice).unwrap_or_default())
    }

    fn whole(&self, config: &ContainersConfig, ask: &Ask) -> AskWhole {
        let (mut together, mut unbounded) = (0_u64, 0_u32);
        for person in &self.people {
            match bound(config, &self.of(*person), ask.limit) {
                _ if *person == ask.person => together = together.saturating_add(ask.wanted),
                Some(bound) => together = together.saturating_add(bound),
                None => unbounded = unbounded.saturating_add(1),
            }
        }
        let machine = match ask.limit {
            Bounded::CpuMillis => self.cpus.map(|cpus| cpus * 1000),
            Bounded::MemoryBytes => self.memory_bytes,
            Bounded::SwapBytes => self.swap_bytes,
            Bounded::DataBytes | Bounded::ImagesBytes => self.disk_bytes,
            _ => None,
        };
        AskWhole { together, unbounded, machine }
    }
}

async fn views(app: &App, caller: &Caller, asks: Vec<Ask>) -> Result<Vec<AskView>> {
    let mut people: Vec<PrincipalId> = Vec::new();
    for ask in asks.iter().filter(|ask| ask.state == AskState::Open) {
        if !people.contains(&ask.person) {
            people.push(ask.person);
        }
    }
    let mut known = HashMap::new();
    let mut everybody = None;
    if !people.is_empty() {
        let sums: Vec<_> = people.iter().map(|person| (Whose::Person, *person)).collect();
        known = people.into_iter().zip(in_use::look(app, &sums).await?).collect();
        everybody = Some(Everybody::look(app).await?);
    }
    let oversees = caller.sees() == Visibility::Everyone;
    let mut looks = 0;
    let mut views = Vec::new();
    for ask in asks {
        let mut now = None;
        if let (Some(everybody), Some(seen)) = (&everybody, known.get(&ask.person))
            && ask.state == AskState::Open
        {
            let mut kept = None;
            if ask.limit == Bounded::DataBytes && looks < DATA_LOOKS_MAX {
                looks += 1;
                kept = data_use(app, ask.person).await;
            }
            let config = &app.config.containers;
            now = Some(AskNow {
                allowed: bound(config, &everybody.of(ask.person), ask.limit),
                used: used_of(seen, kept, ask.limit),
                whole: oversees.then(|| everybody.whole(config, &ask)),
            });
        }
        views.push(view(ask, now));
    }
    Ok(views)
}

/// What somebody keeps on a file system of their own; none while the supervisor is away.
async fn data_use(app: &App, person: PrincipalId) -> Option<u64> {
    data::of_person(app, &Caller::policy(), person).await.ok()?.used_bytes
}

/// What is in use; what nobody counts is not known.
fn used_of(seen: &InUse, kept: Option<u64>, limit: Bounded) -> Option<u64> {
    match limit {
        Bounded::DataBytes => kept,
        Bounded::NetBytesPerSec => None,
        limit => Some(seen.of(limit)),
    }
}

fn view(ask: Ask, now: Option<AskNow>) -> AskView {
    AskView {
        id: ask.id,
        person: OwnerView { id: ask.person.0, name: ask.name },
        limit: ask.limit,
        wanted: ask.wanted,
        until: ask.until,
        reason: ask.reason,
        asked_at: ask.asked_at,
        state: ask.state,
        decided_by: ask.decided_by,
        decided_at: ask.decided_at,
        answer: ask.answer,
        granted: ask.granted,
        ends_at: ask.ends_at,
        now,
    }
}
