//! Events in words, with a sign and a way to the object.

use std::collections::HashMap;

use berth_web::format::{Moment, short};
use berth_web::home::Happened;
use berth_web::parts::Badge;
use berth_web::shell::Tone;
use serde_json::Value;

use crate::app::App;
use crate::auth::Caller;
use crate::clock::Time;
use crate::error::Result;
use crate::inventory::events::{Event, Filter};
use crate::inventory::people::Person;
use crate::service::containers::view::ContainerView;
use crate::service::{Page, events};

const SHOWN_MAX: u32 = 8;

/// What happened last, of all that the caller sees.
pub(super) async fn last(
    app: &App,
    caller: &Caller,
    containers: &[ContainerView],
    people: &[Person],
) -> Result<Vec<Happened>> {
    let names: HashMap<&str, &str> =
        containers.iter().map(|view| (view.id.as_str(), view.name.as_str())).collect();
    let page = Page { limit: SHOWN_MAX, after: None };
    let listed = events::list(app, caller, &Filter::default(), &page).await?;
    let now = Time::now().0;
    let shown = |event: &Event| {
        let live = names.get(event.subject.as_str()).copied();
        let told = event.data.get("name").and_then(Value::as_str);
        let reference = event.data.get("references").and_then(|list| list.get(0)?.as_str());
        let name = live.or(told).or(reference).unwrap_or_else(|| short(&event.subject));
        let owner = people.iter().find(|person| person.id == event.owner);
        Happened {
            id: event.number.to_string(),
            at: Moment::new(event.at.0, now),
            what: badge(event),
            name: name.to_owned(),
            path: path(event, live.is_some()),
            owner: match owner {
                Some(owner) if owner.id != caller.principal => owner.name.clone(),
                _ => String::new(),
            },
        }
    };
    Ok(listed.items.iter().map(shown).collect())
}

fn path(event: &Event, live: bool) -> String {
    match (event.subject_kind.as_str(), event.kind.as_str()) {
        ("container", _) if live => format!("/containers/{}", event.subject),
        ("image", kind) if kind != "image.removed" => format!("/images/{}", event.subject),
        ("ask", _) => "/asks".to_owned(),
        ("volume", kind) if kind != "volume.removed" => format!("/volumes/{}", event.subject),
        _ => String::new(),
    }
}

/// The sign and the word; the reason stays on the object's own page.
fn badge(event: &Event) -> Badge {
    let (tone, icon, word) = match event.kind.as_str() {
        "container.started" => (Tone::Good, "running", "started"),
        "container.restarted" => (Tone::Attention, "restart", "started again"),
        "container.stopping" => (Tone::Neutral, "stop", "told to stop"),
        "container.ended" if ended_badly(event) => (Tone::Bad, "failed", "ended badly"),
        "container.ended" => (Tone::Neutral, "stopped", "ended"),
        "container.start_failed" => (Tone::Bad, "failed", "did not start"),
        "container.pull_failed" => (Tone::Bad, "failed", "got no image"),
        "container.pulled" => (Tone::Neutral, "image", "got its image"),
        "container.paused" => (Tone::Attention, "paused", "paused"),
        "container.resumed" => (Tone::Good, "running", "resumed"),
        "container.ends_soon" => (Tone::Attention, "attention", "is stopped soon"),
        "container.extended" => (Tone::Good, "plus", "kept running"),
        "container.changed" => (Tone::Neutral, "settings", "changed"),
        "container.created" => (Tone::Neutral, "new", "created"),
        "container.removed" => (Tone::Neutral, "remove", "removed"),
        "image.pulled" | "image.imported" | "image.added" | "image.kept" => {
            (Tone::Neutral, "image", "arrived")
        }
        "person.local_user" => (Tone::Attention, "attention", "is another user of this host"),
        "person.second_factor_reset" => (Tone::Attention, "attention", "lost the second factor"),
        "image.tagged" => (Tone::Neutral, "image", "named"),
        "image.removed" => (Tone::Neutral, "remove", "removed"),
        "ask.made" => (Tone::Attention, "event", "asked for"),
        "ask.approved" => (Tone::Good, "check", "granted"),
        "ask.declined" => (Tone::Bad, "failed", "declined"),
        "ask.withdrawn" => (Tone::Neutral, "remove", "withdrawn"),
        "ask.ended" => (Tone::Attention, "attention", "is over"),
        "volume.created" => (Tone::Neutral, "volume", "made"),
        "volume.changed" => (Tone::Neutral, "settings", "renamed"),
        "volume.removed" => (Tone::Neutral, "remove", "removed"),
        "volume.handing_over" => (Tone::Neutral, "volume", "being handed over"),
        "volume.given" => (Tone::Neutral, "volume", "given away"),
        "volume.received" => (Tone::Neutral, "volume", "handed over to you"),
        "volume.kept" => (Tone::Attention, "attention", "not handed over"),
        "volume.unshared" | "image.unshared" => (Tone::Neutral, "event", "shared no more"),
        other => (Tone::Neutral, "event", other.rsplit('.').next().unwrap_or(other)),
    };
    Badge { tone, icon, word: word.replace('_', " "), reason: String::new() }
}

/// By itself, and with a code that is not 0.
fn ended_badly(event: &Event) -> bool {
    let text = event.data.get("text").and_then(Value::as_str).unwrap_or("");
    event.data.get("code").and_then(Value::as_i64) != Some(0)
        && !text.contains(" by ")
        && !text.starts_with("stopped:")
}
