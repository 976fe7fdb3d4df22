//! Sample pages of volumes.

use berth_web::volumes::{DetailPage, ListPage, Row, UserRow};

use super::*;

/// The pages of this file with their names.
pub(super) fn all(hostile: &str, long: &str, add: &mut impl FnMut(&str, super::Rendered)) {
    add("volumes-empty", list(0, "", false).render());
    add("volumes", list(4, "results", true).render());
    add("volumes-hundred", list(100, "sweep", false).render());
    add("volumes-long", list(5, long, true).render());
    add("hostile-volumes", list(3, hostile, true).render());
    add("volume", detail("results", 3).render());
    add("volume-unused", detail(long, 0).render());
    add("hostile-volume", detail(hostile, 3).render());
}

fn list(count: usize, name: &str, oversees: bool) -> ListPage {
    let row = |place: usize| Row {
        id: ID.into(),
        name: name.to_owned(),
        owner: name.to_owned(),
        used_by: if place.is_multiple_of(2) { "2 containers".into() } else { String::new() },
        size: if place.is_multiple_of(3) { String::new() } else { "more than 1.4 GiB".into() },
        made: Moment::new(NOW - 86_400_000, NOW),
    };
    ListPage {
        shell: shell("Volumes", Section::Volumes),
        error: if count == 3 {
            format!("a volume named {name} is there already")
        } else {
            String::new()
        },
        name: Field { value: name.to_owned(), error: String::new() },
        acts: true,
        oversees,
        rows: (0..count).map(row).collect(),
        next: (count > 50).then(|| "/volumes?after=x".into()),
    }
}

fn detail(name: &str, users: usize) -> DetailPage {
    let user = |place: usize| UserRow {
        id: ID.into(),
        name: name.to_owned(),
        target: format!("/data/{name}"),
        how: if place == 0 { String::new() } else { format!("its {name}, read-only") },
    };
    DetailPage {
        shell: shell(name, Section::Volumes),
        error: String::new(),
        id: ID.into(),
        title: name.to_owned(),
        acts: true,
        reads: true,
        name: Field { value: name.to_owned(), error: String::new() },
        etag: "x".into(),
        facts: vec![Fact::text("Whose", name), Fact::text("Holds", "1.4 GiB")],
        users: (0..users).map(user).collect(),
        more: users > 2,
    }
}
