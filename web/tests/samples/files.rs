//! Sample pages of files.

use berth_web::files::{FileRow, FolderPage};

use super::*;

/// The pages of this file with their names.
pub(super) fn all(hostile: &str, long: &str, add: &mut impl FnMut(&str, super::Rendered)) {
    add("files-empty", folder(0, "").render());
    add("files", folder(6, "report.txt").render());
    add("files-hundred", folder(100, "part").render());
    add("files-long", folder(5, long).render());
    add("hostile-files", folder(4, hostile).render());
}

fn folder(count: usize, name: &str) -> FolderPage {
    let row = |place: usize| FileRow {
        name: name.to_owned(),
        kind: if place.is_multiple_of(3) { "folder" } else { "file" },
        address: if place == 4 { String::new() } else { "/volumes/x/files?path=a".into() },
        size: if place.is_multiple_of(3) { String::new() } else { "1.4 GiB".into() },
        mode: "0644".into(),
        owner: "1000:1000".into(),
        changed: Moment::new(NOW - 86_400_000, NOW),
        target: if place == 1 { name.to_owned() } else { String::new() },
        remove: if place == 4 { String::new() } else { "/volumes/x/files/remove?path=a".into() },
    };
    FolderPage {
        shell: shell("Files", Section::Volumes),
        head: None,
        title: name.to_owned(),
        base: format!("/volumes/{ID}"),
        error: if count == 4 { format!("{name}: it is read-only there") } else { String::new() },
        way: vec![("top".into(), "/volumes/x/files".into()), (name.to_owned(), "/x".into())],
        here: name.to_owned(),
        query: "a".into(),
        path: name.to_owned(),
        acts: true,
        archive: "/api/v1/volumes/x/files/archive?path=a".into(),
        name: Field { value: name.to_owned(), error: String::new() },
        rows: (0..count).map(row).collect(),
        next: (count > 50).then(|| "/volumes?after=x".into()),
    }
}
