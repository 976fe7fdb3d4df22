//! Sample pages of volumes.

use berth_web::volumes::{
    DataSetRow, DetailPage, ListPage, Row, SharingPage as VolumeSharing, UserRow,
};

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
    let shared =
        DetailPage { acts: false, sees_shares: false, shared: "read it", ..detail(long, 0) };
    add("volume-shared", shared.render());
    add("volume-sharing", sharing("tom", true).render());
    add(
        "volume-sharing-empty",
        VolumeSharing { rows: Vec::new(), ..sharing("tom", true) }.render(),
    );
    add("image-sharing", sharing("image", true).render());
    add("hostile-volume-sharing", sharing(hostile, true).render());
}

fn sharing(name: &str, shares: bool) -> VolumeSharing {
    let row = |is_group, may: &str| ShareRow {
        name: name.into(),
        is_group,
        may: may.into(),
        since: Moment::new(NOW - 86_400_000, NOW),
        value: format!("person:{name}"),
    };
    VolumeSharing {
        shell: shell(name, Section::Volumes),
        is_image: name == "image",
        path: format!("/volumes/{ID}/sharing"),
        title: name.into(),
        error: String::new(),
        rows: vec![row(true, "read it"), row(false, "read it and write to it")],
        shares,
        ends: shares,
        kind: "person".into(),
        grantee: Field { value: name.into(), error: format!("there is no {name}") },
        level: "read".into(),
        groups: vec![name.into()],
    }
}

fn list(count: usize, name: &str, oversees: bool) -> ListPage {
    let row = |place: usize| Row {
        id: ID.into(),
        name: name.to_owned(),
        owner: name.to_owned(),
        shared: place % 4 == 1,
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
        data_sets: (0..count % 4)
            .map(|place| DataSetRow {
                name: name.to_owned(),
                description: name.to_owned(),
                about: if oversees { format!("for {name}, at /srv/{name}") } else { String::new() },
                used_by: if place == 1 { String::new() } else { "2 places".into() },
                users: vec![(
                    "/containers/x".into(),
                    name.to_owned(),
                    format!(" on /data of {name}"),
                )],
            })
            .collect(),
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
        sees_shares: true,
        mount: name.to_owned(),
        shared: "",
        name: Field { value: name.to_owned(), error: String::new() },
        heir: (users > 0)
            .then(|| Field { value: name.into(), error: format!("there is nobody named {name}") }),
        etag: "x".into(),
        facts: vec![Fact::text("Whose", name), Fact::text("Holds", "1.4 GiB")],
        users: (0..users).map(user).collect(),
        more: users > 2,
        others: (0..users / 2).map(|_| format!("1 container of {name}, of which 1 run")).collect(),
    }
}
