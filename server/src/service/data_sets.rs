//! Data sets: directories of the host's that the operator offers to everybody or to groups, to be read in containers.
//!
//! Which there are, and for whom, is in the configuration that root writes (`[runtime.data_sets]`); people know them by
//! name. Where one is nobody learns but those who oversee the machine. Who is in a group is asked when a container is
//! made and at each of its starts; what runs keeps what it has until it ends. The supervisor finds the directory by
//! its own reading of the same file.

use std::collections::BTreeSet;

use berth_runtime::config::DataSet;
use berth_runtime::id::{ContainerId, PrincipalId};
use berth_runtime::record::{Failure, FailureClass};
use berth_runtime::wire;
use serde::Serialize;
use sqlx::SqliteConnection;
use utoipa::ToSchema;

use super::containers::actions::LaunchError;
use super::containers::spec::DataSetRequest;
use super::containers::view::OwnerView;
use crate::app::App;
use crate::auth::Caller;
use crate::error::{Error, Result};
use crate::inventory::data_sets::{self, Mount, User};

/// Places in containers that are told of each.
const USERS_SHOWN: u32 = 20;

/// A data set.
#[derive(Debug, Clone, Serialize, ToSchema)]
#[schema(as = DataSet)]
pub struct DataSetView {
    /// What it is called.
    pub name: String,
    /// What it is, as the operator says it; may be empty.
    pub description: String,
    /// Whether containers of the caller's may have it.
    pub offered: bool,
    /// The groups that it is for; null when it is for everybody, and for those who do not oversee the machine.
    pub groups: Option<Vec<String>>,
    /// Where it is on the host; for those who oversee the machine.
    pub path: Option<String>,
    /// In how many places of containers it is: everybody's for those who oversee the machine, else one's own.
    pub places: u32,
    /// The first twenty of them, by name.
    pub used_by: Vec<DataSetUser>,
}

/// A container that has a data set.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct DataSetUser {
    /// The container's id.
    #[schema(value_type = String)]
    pub container: ContainerId,
    /// Its name.
    pub container_name: String,
    /// Whose it is.
    pub owner: OwnerView,
    /// Where it has it.
    pub target: String,
}

impl From<User> for DataSetUser {
    fn from(user: User) -> Self {
        let User { container, container_name, owner, owner_name, target, .. } = user;
        let owner = OwnerView { id: owner.0, name: owner_name };
        Self { container, container_name, owner, target }
    }
}

/// Whether a data set is offered to who is in these groups.
fn is_offered(set: &DataSet, groups: &BTreeSet<String>) -> bool {
    set.groups.as_ref().is_none_or(|all| all.iter().any(|group| groups.contains(group)))
}

/// Data sets by name: those that containers of the caller's may have; all, for operators and auditors.
pub async fn list(app: &App, caller: &Caller) -> Result<Vec<DataSetView>> {
    let (db, sees) = (app.inventory.read(), caller.sees());
    let groups = data_sets::groups_of(db, caller.principal).await?;
    let mut users = data_sets::users(db, sees, USERS_SHOWN).await?;
    let oversees = sees.owner().is_none();
    let mut found = Vec::new();
    for (name, set) in &app.config.runtime.data_sets {
        let offered = is_offered(set, &groups);
        if !offered && !oversees {
            continue;
        }
        let used_by: Vec<User> = users.extract_if(.., |user| user.name == *name).collect();
        found.push(DataSetView {
            name: name.clone(),
            description: set.description.clone(),
            offered,
            groups: set.groups.clone().filter(|_| oversees),
            path: oversees.then(|| set.path.display().to_string()),
            places: used_by.first().map_or(0, |user| user.places),
            used_by: used_by.into_iter().map(Into::into).collect(),
        });
    }
    Ok(found)
}

/// The names of those that containers of the caller's may have.
pub async fn names(app: &App, caller: &Caller) -> Result<Vec<String>> {
    let groups = data_sets::groups_of(app.inventory.read(), caller.principal).await?;
    let all = app.config.runtime.data_sets.iter();
    Ok(all.filter(|(_, set)| is_offered(set, &groups)).map(|(name, _)| name.clone()).collect())
}

/// Gives a new container what it asks for of data sets.
///
/// # Errors
/// When one is not there for its owner: whether it is for others is not said.
pub(crate) async fn attach(
    app: &App,
    db: &mut SqliteConnection,
    (id, owner): (&ContainerId, PrincipalId),
    wanted: &[DataSetRequest],
) -> Result<()> {
    if wanted.is_empty() {
        return Ok(());
    }
    let groups = data_sets::groups_of(&mut *db, owner).await?;
    for (position, one) in (0..).zip(wanted) {
        let set = app.config.runtime.data_sets.get(&one.name);
        if !set.is_some_and(|set| is_offered(set, &groups)) {
            let text =
                format!("there is no data set {:?} for you; see GET /api/v1/data-sets", one.name);
            return Err(Error::field(format!("/data_sets/{position}/name"), text));
        }
        data_sets::attach(&mut *db, id, position, &one.of()).await?;
    }
    Ok(())
}

/// What a container's start asks the supervisor for.
///
/// # Errors
/// When one is not there for the container's owner any more.
pub(crate) async fn for_start(
    app: &App,
    owner: PrincipalId,
    mounts: &[Mount],
) -> Result<Vec<wire::DataSetMount>, LaunchError> {
    if mounts.is_empty() {
        return Ok(Vec::new());
    }
    let groups = data_sets::groups_of(app.inventory.read(), owner).await;
    let groups = groups.map_err(LaunchError::Unknown)?;
    let one = |Mount { name, target }: &Mount| {
        let set = app.config.runtime.data_sets.get(name);
        match set.is_some_and(|set| is_offered(set, &groups)) {
            true => Ok(wire::DataSetMount { name: name.clone(), target: target.clone() }),
            false => Err(not_offered(name, target)),
        }
    };
    mounts.iter().map(one).collect()
}

fn not_offered(name: &str, target: &str) -> LaunchError {
    let message = format!(
        "the data set {name} on {target} is not offered to the container’s owner any more: they left its group, or \
         the operator has taken it away"
    );
    LaunchError::Refused(Failure::new(FailureClass::Conflict, "data-set.not-offered", message))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_data_set_is_for_everybody_or_for_whoever_is_in_one_of_its_groups() {
        let set = |groups: Option<&[&str]>| DataSet {
            path: "/srv".into(),
            description: String::new(),
            groups: groups.map(|all| all.iter().map(|name| (*name).to_owned()).collect()),
        };
        let mine: BTreeSet<String> = ["lab".to_owned(), "everybody".to_owned()].into();
        assert!(is_offered(&set(None), &BTreeSet::new()));
        assert!(is_offered(&set(Some(&["other", "lab"])), &mine));
        assert!(!is_offered(&set(Some(&["other", "Lab", ""])), &mine));
        assert!(!is_offered(&set(Some(&[])), &mine));
    }
}
