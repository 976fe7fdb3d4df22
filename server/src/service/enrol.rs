//! Many people at once, from a table: each line is judged, then all of them are added or none.

use std::collections::{HashMap, HashSet};

use berth_runtime::id::PrincipalId;
use serde::Serialize;
use sqlx::SqliteConnection;
use utoipa::ToSchema;

use super::people::{self as one, Invitation, NewPerson};
use super::table;
use crate::app::App;
use crate::auth::{Caller, Role};
use crate::clock::Time;
use crate::error::{Error, Result};
use crate::inventory::audit::Row;
use crate::inventory::{groups, people};

/// People in one table at most.
pub const PEOPLE_MAX: usize = 1000;
/// The columns, of which `name` must be there.
pub const COLUMNS: [&str; 4] = ["name", "role", "group", "expires"];

/// What becomes of a line.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, ToSchema)]
#[serde(rename_all = "snake_case")]
#[schema(as = EnrolVerdict)]
pub enum Verdict {
    /// A person is added.
    New,
    /// There is a person of this name already.
    Exists,
    /// A line before it has the same name.
    Duplicate,
    /// The name is none.
    BadName,
    /// The role is none.
    BadRole,
    /// There is no such group.
    NoGroup,
    /// The end is neither a day nor a time, or does not lie ahead.
    BadEnd,
    /// It has more or fewer cells than the first line.
    BadCells,
}

/// A line of the table, judged.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = EnrolLine)]
pub struct Line {
    /// Where it begins in the table, the first line being 1.
    pub line: u32,
    /// The name, as it is there, cut after 64 characters.
    pub name: String,
    /// What becomes of it.
    pub verdict: Verdict,
    /// The same in words.
    pub said: String,
    /// The role.
    pub role: Option<Role>,
    /// The group's name; null for the one in which everybody begins.
    pub group: Option<String>,
    /// When the account ends by itself.
    pub expires_at: Option<Time>,
    #[serde(skip)]
    group_id: Option<PrincipalId>,
}

/// Somebody who was added.
#[derive(Debug)]
pub struct Added {
    /// Who.
    pub id: PrincipalId,
    /// Their name.
    pub name: String,
    /// Their link, shown once.
    pub invitation: Invitation,
}

/// Says line by line what would become of a table, and changes nothing.
///
/// # Errors
/// What is no table of people.
pub async fn look(app: &App, text: &str) -> Result<Vec<Line>> {
    let mut db = app.inventory.read().acquire().await?;
    judge(&mut db, text).await
}

/// Adds everybody in a table, in one transaction.
///
/// # Errors
/// What is no table of people; lines that are not somebody new: then nobody is added.
pub async fn add(app: &App, caller: &Caller, text: &str) -> Result<Vec<Added>> {
    // Not while others wait for their turn to write.
    look(app, text).await?;
    let mut write = app.inventory.change(&caller.actor, "person.import").await?;
    let lines = judge(write.db(), text).await?;
    refuse_wrong(&lines)?;
    let mut added = Vec::with_capacity(lines.len());
    for line in &lines {
        let role = line.role.unwrap_or(Role::User);
        let new = NewPerson { name: &line.name, role, expires_at: line.expires_at };
        let (id, invitation) = one::insert(app, caller, write.db(), &new).await?;
        if let Some(group) = line.group_id {
            people::update_group(write.db(), id, group).await?;
        }
        let mut row = Row::of(&caller.actor, "person.add");
        (row.subject_kind, row.subject, row.owner) = ("person", id.to_string(), Some(id));
        write.note(row);
        added.push(Added { id, name: line.name.clone(), invitation });
    }
    write.commit().await?;
    app.credentials_changed();
    let app = app.clone();
    tokio::spawn(async move {
        if let Err(error) = one::place_all(&app).await {
            // They get one at the server's next start, or with their first container.
            tracing::warn!(error = %error, "not everybody has an id range yet");
        }
    });
    Ok(added)
}

fn refuse_wrong(lines: &[Line]) -> Result<()> {
    const NAMED_MAX: usize = 5;
    let wrong: Vec<&Line> = lines.iter().filter(|line| line.verdict != Verdict::New).collect();
    if wrong.is_empty() {
        return Ok(());
    }
    let named =
        wrong.iter().take(NAMED_MAX).map(|line| format!("line {}: {}", line.line, line.said));
    let mut text = named.collect::<Vec<_>>().join("; ");
    if wrong.len() > NAMED_MAX {
        text.push_str(&format!("; and {} more", wrong.len() - NAMED_MAX));
    }
    Err(Error::field(
        "/csv",
        format!("nobody was added, since not every line is somebody new: {text}"),
    ))
}

async fn judge(db: &mut SqliteConnection, text: &str) -> Result<Vec<Line>> {
    let rows = table::read(text, PEOPLE_MAX + 1).map_err(|text| Error::field("/csv", text))?;
    let (head, rows) = rows.split_first().ok_or_else(|| {
        Error::field(
            "/csv",
            "it is empty; the first line names the columns, as name,role,group,expires",
        )
    })?;
    let columns = columns(&head.cells)?;
    if rows.is_empty() {
        return Err(Error::field("/csv", "there is nobody below the line that names the columns"));
    }
    let mut seen = HashSet::new();
    let mut lines = Vec::with_capacity(rows.len());
    for row in rows {
        let cell = |name: &str| {
            let found = columns.get(name).and_then(|index| row.cells.get(*index));
            found.map_or("", |cell| cell.trim())
        };
        let mut line = Line {
            line: row.line,
            name: cell("name").chars().take(64).collect(),
            verdict: Verdict::New,
            said: String::new(),
            role: None,
            group: None,
            expires_at: None,
            group_id: None,
        };
        let judged = match row.cells.len() == head.cells.len() {
            true => fill(&mut *db, &mut line, cell, &mut seen).await?,
            false => {
                let (has, wants) = (row.cells.len(), head.cells.len());
                Err((Verdict::BadCells, format!("it has {has} cells, and the first line {wants}")))
            }
        };
        (line.verdict, line.said) =
            judged.err().unwrap_or_else(|| (Verdict::New, "is added".to_owned()));
        lines.push(line);
    }
    Ok(lines)
}

/// Which column stands where.
fn columns(cells: &[String]) -> Result<HashMap<&str, usize>> {
    let mut columns = HashMap::new();
    for (index, cell) in cells.iter().enumerate() {
        let name = cell.trim();
        if !COLUMNS.contains(&name) {
            let shown: String = name.chars().take(40).collect();
            let rule = format!(
                "line 1 must name the columns, of {}; {shown:?} is none of them",
                COLUMNS.join(", ")
            );
            return Err(Error::field("/csv", rule));
        }
        if columns.insert(name, index).is_some() {
            return Err(Error::field("/csv", format!("line 1 names the column {name} twice")));
        }
    }
    if columns.contains_key("name") {
        return Ok(columns);
    }
    Err(Error::field("/csv", "line 1 must name the column name"))
}

/// Reads a line's cells; else what is wrong with it.
async fn fill<'c>(
    db: &mut SqliteConnection,
    line: &mut Line,
    cell: impl Fn(&str) -> &'c str,
    seen: &mut HashSet<String>,
) -> Result<Result<(), (Verdict, String)>> {
    let said = |error: Error| match error {
        Error::Invalid { fields, .. } if !fields.is_empty() => fields[0].detail.clone(),
        other => other.to_string(),
    };
    if let Err(error) = one::check_name(cell("name")) {
        return Ok(Err((Verdict::BadName, format!("{:?} is no name: {}", line.name, said(error)))));
    }
    if !seen.insert(line.name.clone()) {
        return Ok(Err((Verdict::Duplicate, format!("{} is there twice", line.name))));
    }
    if people::is_named(&mut *db, &line.name).await? {
        let text = format!("there is a person named {} already", line.name);
        return Ok(Err((Verdict::Exists, text)));
    }
    line.role = match cell("role") {
        "" | "user" => Some(Role::User),
        "auditor" => Some(Role::Auditor),
        "operator" => Some(Role::Operator),
        other => {
            let shown: String = other.chars().take(40).collect();
            let text = format!("{shown:?} is no role; write user, auditor or operator");
            return Ok(Err((Verdict::BadRole, text)));
        }
    };
    if !cell("group").is_empty() {
        let name: String = cell("group").chars().take(64).collect();
        line.group_id = groups::named(&mut *db, cell("group")).await?;
        if line.group_id.is_none() {
            return Ok(Err((Verdict::NoGroup, format!("there is no group {name:?}"))));
        }
        line.group = Some(name);
    }
    match one::end_of_account(cell("expires")) {
        Ok(at) => line.expires_at = at,
        Err(error) => return Ok(Err((Verdict::BadEnd, said(error)))),
    }
    Ok(Ok(()))
}
