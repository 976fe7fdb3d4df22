//! Sample pages of images, long actions and one's own account.

use berth_web::account::{
    AccountPage, FactorBegun, FactorPart, LoginRow, Logins, SessionRow, TokenRow,
};
use berth_web::images::{
    DetailPage, HistoryRow, LayerRow, Link, ListPage, NameRow, Row, UnneededPage, UnneededRow,
};
use berth_web::operations::{self, Failure, Work, WorkLayer};

use super::*;

const DIGEST: &str = "sha256:9f86d081884c7d659a2feaa0c55ad015a3bf4f1b2b0b822cd15d6c15b0f00a08";

/// The pages of this file with their names.
pub(super) fn all(hostile: &str, long: &str, add: &mut impl FnMut(&str, super::Rendered)) {
    add("images-empty", list(0, "", false).render());
    add("images", list(4, "train", false).render());
    add("images-hundred", list(100, "train", true).render());
    add("images-long", list(5, &long.repeat(3), true).render());
    add("images-error", wrong().render());
    add("unneeded-empty", unneeded(0, "", false).render());
    add("unneeded", unneeded(5, "docker.io/library/alpine:3.22", true).render());
    add("unneeded-long", unneeded(3, &long.repeat(3), true).render());
    add("hostile-unneeded", unneeded(3, hostile, true).render());
    add("hostile-images", list(4, hostile, true).render());
    add("image", image("registry.lab:5000/vision/train", true).render());
    add("image-overseen", image(&long.repeat(3), false).render());
    add("hostile-image", image(hostile, true).render());
    add("operations-empty", operations_list(0, "").render());
    add("operations", operations_list(4, "docker.io/library/alpine:3.22").render());
    add("operations-hundred", operations_list(100, "docker.io/library/alpine:3.22").render());
    add("operations-long", operations_list(5, &long.repeat(3)).render());
    add("hostile-operations", operations_list(4, hostile).render());
    add("operation", operation("docker.io/library/alpine:3.22", false).render());
    add("operation-failed", operation(&long.repeat(3), true).render());
    add("hostile-operation", operation(hostile, true).render());
    add("account", account("anna", true).render());
    add("account-first", account("", false).render());
    add("account-long", account(long, true).render());
    add("hostile-account", account(hostile, true).render());
}

fn unneeded(count: usize, name: &str, everyone: bool) -> UnneededPage {
    let row = |place: usize| UnneededRow {
        name: name.to_owned(),
        path: (place > 0).then(|| format!("/images/{place}")),
        owner: name.to_owned(),
        size: "1.4 GiB".into(),
        needed: at(86_400 * 9),
        verdict: match place % 2 {
            0 => badge(Tone::Attention, "remove", "goes", ""),
            _ => badge(Tone::Neutral, "check", "stays", ""),
        },
        why: format!("the container {name} uses it"),
    };
    UnneededPage {
        shell: shell("What nothing needs", Section::Images),
        error: String::new(),
        days: Field { value: name.to_owned(), error: String::new() },
        tagged: everyone,
        everyone,
        oversees: everyone,
        acts: true,
        going: count / 2,
        frees: "1.4 GiB".into(),
        rows: (0..count).map(row).collect(),
        more: everyone,
    }
}

fn at(seconds: i64) -> Moment {
    Moment::new(NOW - seconds * 1000, NOW)
}

/// A pull in each state.
fn work(subject: &str, place: usize, why: &str) -> Work {
    let layer = |digest: &str, phase: &str, text: &str, percent, done| WorkLayer {
        digest: digest.into(),
        phase: phase.into(),
        text: text.into(),
        percent,
        done,
    };
    let (state, percent) = match place % 4 {
        0 => (badge(Tone::Busy, "busy", "pulling", "2 of 4 layers here"), 45),
        1 => (badge(Tone::Good, "check", "done", ""), 100),
        2 => (badge(Tone::Bad, "failed", "failed", why), 45),
        _ => (badge(Tone::Neutral, "cancel", "cancelled", ""), 10),
    };
    Work {
        id: place.to_string(),
        what: "Pull".into(),
        subject: subject.into(),
        state,
        text: "1.4 of 3.1 GiB".into(),
        percent,
        layers: vec![
            layer("a1b2c3d4e5f6", "here", "28.2 MiB", 100, true),
            layer("0f1e2d3c4b5a", "downloading", "1.1 of 2.6 GiB", 42, false),
            layer("778899aabbcc", "unpacking", "310 of 410 MiB", 76, false),
            layer("deadbeef0123", "waiting", "0 of 2 MiB", 0, false),
        ],
        cancel: place.is_multiple_of(4).then(|| format!("/operations/{place}/cancel")),
    }
}

fn scopes(labels: [&'static str; 3]) -> Vec<Scope> {
    let scope = |label: &'static str| Scope {
        label,
        count: None,
        path: "/".into(),
        current: label == labels[0],
    };
    labels.into_iter().map(scope).collect()
}

fn list(count: usize, text: &str, oversees: bool) -> ListPage {
    let row = |index: usize| Row {
        id: index.to_string(),
        name: match index {
            0 => "docker.io/library/alpine:3.22".into(),
            1 => "docker.io/berth/starter:latest".into(),
            3 => "quay.io/jupyter/scipy-notebook@9f86d081884c".into(),
            _ => format!("registry.lab:5000/vision/{text}:41"),
        },
        also: if index == 2 { format!("also lab/{text}:best") } else { String::new() },
        digest: DIGEST.into(),
        system: index == 1,
        shared_by: if index % 4 == 3 { text.into() } else { String::new() },
        owner: if index == 1 { "system".into() } else { "anna".into() },
        unique: if index == 2 { "1.4 GiB".into() } else { "8.2 MiB".into() },
        shared: if index < 2 { String::new() } else { "5.1 GiB".into() },
        used_by: ["", "1 container", "12 containers", ""][index % 4].into(),
        used: (index % 4 == 2).then(|| at(7_300)),
        pulled: Some(at(9_000)),
        launch: Some("/launch?image=x".into()),
        more: vec![act("Remove…", "remove")],
    };
    ListPage {
        shell: shell("Images", Section::Images),
        reference: Field::default(),
        import_error: String::new(),
        import_limit: "16 GiB".into(),
        pulls: if count == 4 { vec![work(text, 0, ""), work(text, 2, text)] } else { Vec::new() },
        scopes: scopes(["All", "Mine", "The system’s"]),
        query: String::new(),
        oversees,
        rows: (0..count).map(row).collect(),
        next: (count > 50).then(|| "/images?after=x".into()),
        first_use: count == 0,
    }
}

fn wrong() -> ListPage {
    ListPage {
        reference: Field {
            value: "No Reference".into(),
            error: "\"No Reference\" is no reference to an image.".into(),
        },
        import_error: "The archive is refused: it is cut off.".into(),
        query: "nothing".into(),
        rows: Vec::new(),
        first_use: false,
        ..list(0, "", false)
    }
}

fn image(text: &str, own: bool) -> DetailPage {
    let link = |label: &str| Link { label: label.into(), path: "/images/1".into() };
    let layer = |place: usize| LayerRow {
        digest: DIGEST.into(),
        size: "3.6 MiB".into(),
        media_type: "gzip, 1.2 MiB".into(),
        shared_with: (place == 0).then(|| link(text)),
        more: 2,
    };
    let step =
        |text: &str, empty| HistoryRow { created_by: format!("RUN {text} # buildkit"), empty };
    DetailPage {
        shell: shell("train:41", Section::Images),
        id: ID.into(),
        name: format!("{text}:41"),
        system: false,
        owner: if own { String::new() } else { "anna".into() },
        launch: own.then(|| "/launch?image=x".into()),
        download: own.then(|| "/api/v1/images/x/export".into()),
        sharing: own.then(|| "/images/x/sharing".into()),
        keep: (!own).then(|| Field { value: text.into(), error: format!("{text} is no name") }),
        download_size: "1.2 GiB".into(),
        acts: if own { vec![act("Remove…", "remove")] } else { Vec::new() },
        facts: vec![
            Fact::copy("Manifest", "9f86d081884c", DIGEST),
            Fact::text("Size", "6.5 GiB"),
            Fact::text("Its alone", "1.4 GiB"),
            Fact::text("Shared", "5.1 GiB"),
            Fact::text("Last use", "2 h ago"),
        ],
        config: if own { vec![Fact::code("Command", text)] } else { Vec::new() },
        content: own,
        env: if own { vec![format!("PATH=/usr/bin:{text}")] } else { Vec::new() },
        names: vec![
            NameRow { name: format!("{text}:41"), untag: own.then(|| "/images/x/untag".into()) },
            NameRow { name: format!("{text}@{DIGEST}"), untag: None },
        ],
        tag: own.then(|| Field {
            value: "no name".into(),
            error: "A name with a tag is needed, and no digest.".into(),
        }),
        containers: if own { vec![link("train-3"), link(text)] } else { Vec::new() },
        images: vec![link(text)],
        layers: (0..4).map(layer).collect(),
        history: vec![step("apt-get install", false), step(text, true)],
    }
}

fn operations_list(count: usize, subject: &str) -> operations::ListPage {
    let row = |place: usize| operations::Row {
        work: work(subject, place, "the exchange with registry-1.docker.io failed"),
        owner: "anna".into(),
        began: Some(at(400)),
        took: "3 min 20 s".into(),
    };
    operations::ListPage {
        shell: shell("Operations", Section::Operations),
        scopes: scopes(["All", "Under way", "Failed"]),
        query: String::new(),
        oversees: count > 4,
        rows: (0..count).map(row).collect(),
        next: (count > 50).then(|| "/operations?after=x".into()),
        first_use: count == 0,
    }
}

fn operation(subject: &str, failed: bool) -> operations::DetailPage {
    let reload_secs = (!failed).then_some(5);
    operations::DetailPage {
        shell: Shell { reload_secs, ..shell("Pull", Section::Operations) },
        work: work(subject, if failed { 2 } else { 0 }, subject),
        facts: vec![
            Fact::code("Kind", "image.pull"),
            Fact::text("Begun by", "anna"),
            Fact::text("Took", "3 min 20 s"),
        ],
        made: if failed { Vec::new() } else { vec![(subject.into(), "/images/1".into())] },
        failure: failed
            .then(|| Failure { message: subject.into(), code: "registry.broken".into() }),
    }
}

fn account(text: &str, full: bool) -> AccountPage {
    let token = TokenRow {
        name: text.into(),
        scopes: "read, operate".into(),
        expires: Some(at(-2_592_000)),
        used: None,
        revoke: "/account/tokens/1/revoke".into(),
    };
    let login = |state| LoginRow {
        registry: "registry.lab:5000".into(),
        username: text.into(),
        since: at(90_000),
        state,
        replace: "/account?registry=x#registries".into(),
        remove: "/account/registries/remove?registry=x".into(),
    };
    let refused = badge(Tone::Bad, "failed", "refused", "by the registry, 2 h ago; replace it");
    let lost = badge(
        Tone::Attention,
        "attention",
        "unreadable",
        "the server’s key is another; replace it",
    );
    let kept = badge(Tone::Good, "check", "kept", "not refused so far");
    let form = Logins {
        rows: vec![login(kept), login(refused), login(lost)],
        error: String::new(),
        registry: Field {
            value: text.into(), error: "A registry’s host, such as ghcr.io.".into()
        },
        username: Field::new(text),
        password_error: "1 to 8192 bytes.".into(),
        replaces: false,
    };
    AccountPage {
        ends: full.then(|| at(-864_000)),
        factor: match text.is_empty() {
            true => FactorPart {
                required: true,
                begun: Some(FactorBegun {
                    secret: "GEZD GNBV".into(),
                    side: 2,
                    path: "M0 0h1v1h-1z".into(),
                }),
                ..FactorPart::default()
            },
            false => FactorPart {
                since: Some(at(86_400)),
                codes_left: 9,
                error: text.to_owned(),
                fresh_codes: vec![text.to_owned()],
                ..FactorPart::default()
            },
        },
        shell: Shell { live_secs: None, ..shell("Account", Section::Account) },
        password_error: String::new(),
        token_error: String::new(),
        token_name: Field::default(),
        fresh_token: full.then(|| "eyJhbGciOiJIUzI1NiJ9.eyJpc3MiOiJiZXJ0aCJ9.c2lnbmF0dXJl".into()),
        tokens: if full { vec![token] } else { Vec::new() },
        logins: Some(if full { form } else { Logins::default() }),
        sessions: vec![SessionRow {
            agent: "Firefox on Linux".into(),
            address: "127.0.0.1".into(),
            since: at(60),
            seen: at(5),
            own: true,
            revoke: "/account/sessions/1/end".into(),
        }],
    }
}
