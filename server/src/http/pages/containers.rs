//! The list of containers: filtered, ordered and paged by its address, with the columns that its
//! reader has chosen. What is done from it is in [`super::bulk`].
//!
//! Figures are the newest look's, from memory: a list of a thousand reads no file of the kernel's.

use std::collections::HashMap;

use axum::extract::{Query, State};
use axum::http::Method;
use axum::response::Response;
use berth_web::containers::{COLUMNS, Column, ColumnHead, ListPage, Pages, Row};
use berth_web::format::{Moment, bytes_of, cores, cores_used, count, percent};
use berth_web::parts::{Meter, Scope};
use berth_web::shell::{ApiCall, Mark, Section};
use serde::Deserialize;

use super::filter::{Order, Wanted};
use super::form::Posted;
use super::frame::{Frame, encoded, local};
use super::shown::{self, Class};
use crate::app::App;
use crate::auth::{Caller, TokenScope, Visibility};
use crate::clock::Time;
use crate::error::Result;
use crate::http::routes::{Access, FormFields, Routes};
use crate::service::containers;
use crate::service::containers::view::ContainerView;
use crate::service::history::Used;

/// Rows on one page.
const ROWS: usize = 100;
/// The cookie that keeps the chosen columns.
const COLUMNS_COOKIE: &str = "columns";
/// Shown to whom has chosen nothing; the owner is added for those who see other people's.
const USUAL: [Column; 6] =
    [Column::State, Column::Image, Column::Cpu, Column::Memory, Column::Address, Column::Since];

/// Adds the routes.
pub(super) fn routes(routes: Routes) -> Routes {
    let read = Access::SignedIn(TokenScope::Read);
    let columns = FormFields::once(&["back", "usual"]).and_many(&["column"]);
    routes.page(read, Method::GET, "/containers", list).form(
        read,
        "/containers/columns",
        columns,
        choose_columns,
    )
}

#[derive(Debug, Default, Deserialize)]
struct ListQuery {
    #[serde(default)]
    q: String,
    #[serde(default)]
    sort: String,
    page: Option<usize>,
}

impl ListQuery {
    /// The address of another page, order or filter of the same list.
    fn path(q: &str, sort: &str, page: usize) -> String {
        let mut parts = Vec::new();
        if !q.is_empty() {
            parts.push(format!("q={}", encoded(q)));
        }
        if !sort.is_empty() {
            parts.push(format!("sort={sort}"));
        }
        if page > 1 {
            parts.push(format!("page={page}"));
        }
        match parts.is_empty() {
            true => "/containers".to_owned(),
            false => format!("/containers?{}", parts.join("&")),
        }
    }
}

async fn list(
    State(app): State<App>,
    frame: Frame,
    caller: Caller,
    Query(query): Query<ListQuery>,
) -> Result<Response> {
    let all = containers::glance(&app, &caller).await?;
    app.history.watch();
    let used: HashMap<&str, Used> = all
        .iter()
        .filter(|view| shown::is_live(view))
        .filter_map(|view| {
            let used = app.history.latest(&view.id).filter(|used| used.run == view.run)?;
            Some((view.id.as_str(), used))
        })
        .collect();
    let wanted = Wanted::read(&query.q, &caller.name);
    let mut fits: Vec<&ContainerView> = all.iter().filter(|view| wanted.fits(view)).collect();
    let order = Order::read(&query.sort);
    order.sort(&mut fits, |view| used.get(view.id.as_str()).cloned());
    let last = fits.len().div_ceil(ROWS).max(1);
    let page = query.page.unwrap_or(1).clamp(1, last);
    let here = fits.iter().skip((page - 1) * ROWS).take(ROWS);
    let others = all.iter().any(|view| view.owner.id != caller.principal.0);
    let cookie = frame.cookie(COLUMNS_COOKIE);
    let columns = columns(cookie.as_deref(), others);
    let mut shell = frame.shell(title(&all), Section::Containers);
    shell.mark = mark(&all);
    shell.live_secs = Some(3);
    shell.calls = vec![
        ApiCall::get("List containers", "/api/v1/containers"),
        ApiCall::get("Follow what happens", "/api/v1/events/stream"),
    ];
    let view = ListPage {
        shell,
        readouts: readouts(&all, &used),
        scopes: scopes(&all, &caller, &query.q),
        heads: heads(&columns, order, &query.q),
        choices: COLUMNS.map(|column| (column, columns.contains(&column))).into(),
        chosen: cookie.is_some(),
        rows: here.map(|view| row(view, used.get(view.id.as_str()))).collect(),
        pages: pages(&query, fits.len(), page),
        sort: query.sort,
        query: query.q,
        first_use: all.is_empty(),
    };
    frame.page(&view)
}

fn title(all: &[ContainerView]) -> String {
    match all.iter().filter(|view| shown::class(view) == Class::Running).count() {
        0 => "Containers".to_owned(),
        running => format!("{running} running"),
    }
}

/// The columns of a cookie, else the usual ones; the name always comes first.
fn columns(cookie: Option<&str>, others: bool) -> Vec<Column> {
    let chosen = cookie.map(|names| names.split('.').filter_map(Column::read).collect::<Vec<_>>());
    let shows = |column: Column| match &chosen {
        Some(chosen) => chosen.contains(&column),
        None => USUAL.contains(&column) || (others && column == Column::Owner),
    };
    let shown = COLUMNS.into_iter().filter(|column| shows(*column));
    std::iter::once(Column::Name).chain(shown).collect()
}

fn heads(columns: &[Column], order: Order, query: &str) -> Vec<ColumnHead> {
    let head = |&column: &Column| ColumnHead {
        column,
        path: ListQuery::path(query, &order.after_click(column), 1),
        order: match (order.by == Some(column), order.down) {
            (false, _) => "none",
            (true, false) => "ascending",
            (true, true) => "descending",
        },
    };
    columns.iter().map(head).collect()
}

/// Keeps the chosen columns in this browser.
async fn choose_columns(frame: Frame, posted: Posted) -> Result<Response> {
    let back = posted.optional("back");
    let back = back.as_deref().map_or("/containers", local);
    if !posted.text("usual").is_empty() {
        return frame.kept(COLUMNS_COOKIE, None, back);
    }
    let names: Vec<&str> =
        posted.all("column").filter_map(Column::read).map(Column::name).collect();
    // Nothing but the name is a choice, too.
    let names = if names.is_empty() { Column::Name.name().to_owned() } else { names.join(".") };
    frame.kept(COLUMNS_COOKIE, Some(&names), back)
}

fn pages(query: &ListQuery, total: usize, page: usize) -> Pages {
    if total <= ROWS {
        return Pages::default();
    }
    let (from, to) = ((page - 1) * ROWS + 1, (page * ROWS).min(total));
    let path = |page| ListQuery::path(&query.q, &query.sort, page);
    Pages {
        words: format!("{from} to {to} of {}", count(total as u64)),
        before: (page > 1).then(|| path(page - 1)),
        next: (to < total).then(|| path(page + 1)),
    }
}

/// One container's row.
pub(super) fn row(view: &ContainerView, used: Option<&Used>) -> Row {
    let now = Time::now().0;
    let (main, acts, more) = shown::acts(view);
    Row {
        id: view.id.to_string(),
        name: view.name.clone(),
        owner: view.owner.name.clone(),
        state: shown::badge(view, now),
        image: view.image.reference.clone(),
        cpu: shown::cpu(view, used),
        memory: shown::memory(view, used),
        pids: shown::pids(view, used),
        address: view.address.map(|address| address.to_string()).unwrap_or_default(),
        restart: shown::restart_word(view),
        created: Some(Moment::new(view.created_at.0, now)),
        since: shown::since(view).map(|at| Moment::new(at.0, now)),
        main,
        more: acts.into_iter().chain(more).collect(),
    }
}

fn readouts(all: &[ContainerView], used: &HashMap<&str, Used>) -> Vec<Meter> {
    let live = || all.iter().filter_map(|view| Some((view, used.get(view.id.as_str())?)));
    let sum =
        |of: fn(&ContainerView, &Used) -> u64| live().map(|(view, used)| of(view, used)).sum();
    let running = all.iter().filter(|view| shown::class(view) == Class::Running).count();
    let failed = all.iter().filter(|view| shown::class(view) == Class::Failed).count();
    let meter = |key, label: &str, text: String, percent| Meter {
        key,
        label: label.to_owned(),
        text,
        percent: (running > 0).then_some(percent),
        note: "of what the running ones may use".to_owned(),
    };
    let (cpu, cpu_of): (u64, u64) =
        (sum(|_, used| used.cpu_millis.unwrap_or(0)), sum(|view, _| view.limits.cpu_millis.into()));
    let (memory, memory_of): (u64, u64) =
        (sum(|_, used| used.sample.memory.used_bytes), sum(|view, _| view.limits.memory_bytes));
    let (pids, pids_of): (u64, u64) =
        (sum(|_, used| used.sample.pids), sum(|view, _| view.limits.pids.into()));
    vec![
        Meter {
            key: "running",
            label: "Running".to_owned(),
            text: format!("{running} of {}", all.len()),
            percent: None,
            note: match failed {
                0 => "nothing needs you".to_owned(),
                1 => "1 needs you".to_owned(),
                failed => format!("{failed} need you"),
            },
        },
        meter(
            "cpu",
            "Processor",
            format!("{} of {} cores", cores_used(cpu), cores(cpu_of)),
            percent(cpu, cpu_of),
        ),
        meter("memory", "Memory", bytes_of(memory, memory_of), percent(memory, memory_of)),
        meter(
            "pids",
            "Processes",
            format!("{} of {}", count(pids), count(pids_of)),
            percent(pids, pids_of),
        ),
    ]
}

fn scopes(all: &[ContainerView], caller: &Caller, query: &str) -> Vec<Scope> {
    let scope = |label, fits: &dyn Fn(&ContainerView) -> bool, query_of: &str| Scope {
        label,
        count: u64::try_from(all.iter().filter(|view| fits(view)).count()).ok(),
        path: ListQuery::path(query_of, "", 1),
        current: query.trim() == query_of,
    };
    let is = |class| move |view: &ContainerView| shown::class(view) == class;
    let mut scopes = vec![
        scope("All", &|_| true, ""),
        scope("Running", &is(Class::Running), "state:running"),
        scope("Stopped", &is(Class::Stopped), "state:stopped"),
        scope("Failed", &is(Class::Failed), "state:failed"),
    ];
    let mine = |view: &ContainerView| view.owner.id == caller.principal.0;
    if caller.sees() == Visibility::Everyone || !all.iter().all(mine) {
        scopes.insert(1, scope("Mine", &mine, "owner:me"));
    }
    if caller.sees() != Visibility::Everyone && !all.iter().all(mine) {
        let others = |view: &ContainerView| !mine(view);
        scopes.insert(2, scope("Shared with me", &others, "owner:others"));
    }
    scopes
}

fn mark(all: &[ContainerView]) -> Mark {
    if all.iter().any(|view| shown::class(view) == Class::Failed) {
        Mark::Attention
    } else if all.iter().any(|view| shown::class(view) == Class::Running) {
        Mark::Running
    } else {
        Mark::Idle
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chosen_columns_are_kept_in_their_order_and_unknown_ones_left_out() {
        assert_eq!(
            columns(Some("since.evil.state"), true),
            [Column::Name, Column::State, Column::Since]
        );
        assert_eq!(columns(Some("name"), true), [Column::Name]);
        assert_eq!(columns(None, false).len(), 1 + USUAL.len());
        assert_eq!(columns(None, true)[1], Column::Owner);
    }

    #[test]
    fn addresses_of_lists_hold_only_what_is_said() {
        assert_eq!(ListQuery::path("", "", 1), "/containers");
        assert_eq!(
            ListQuery::path("state:failed a&b", "-cpu", 2),
            "/containers?q=state%3Afailed+a%26b&sort=-cpu&page=2"
        );
    }
}
