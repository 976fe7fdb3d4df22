//! Who may do what with whose container, volume and image, drawn at random: people with every role, groups with members and managers,
//! shares given and ended, and after each step somebody who tries something. What has to come of it is said by a
//! model of a few plain sentences ([`Model::may`]), which knows nothing of how the server decides.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::{Value, json};
use system_tests::{Answer, Check, Client, Dice, TestServer, image, requires_root, times};

/// What can be shared, and what is tried, each a request that nothing but a right decides about.
struct Kind {
    path: &'static str,
    rights: &'static [&'static str],
    acts: &'static [&'static str],
}

const CONTAINER: Kind = Kind {
    path: "/api/v1/containers",
    rights: &["logs", "terminal", "files", "manage"],
    acts: &[
        "state",
        "logs",
        "terminal",
        "files",
        "manage",
        "remove",
        "see_shares",
        "share",
        "unshare",
    ],
};
const VOLUME: Kind = Kind {
    path: "/api/v1/volumes",
    rights: &["write"],
    acts: &["state", "files", "write", "remove", "see_shares", "share", "unshare"],
};

const IMAGE: Kind = Kind {
    path: "/api/v1/images",
    rights: &[],
    acts: &["state", "files", "remove", "see_shares", "share", "unshare"],
};

/// Something of somebody's.
struct Thing {
    owner: usize,
    kind: &'static Kind,
    id: String,
}

impl Thing {
    fn path(&self) -> String {
        format!("{}/{}", self.kind.path, self.id)
    }

    fn is_volume(&self) -> bool {
        self.kind.path == VOLUME.path
    }

    fn is_image(&self) -> bool {
        self.kind.path == IMAGE.path
    }
}

/// Somebody, and as what.
struct Person {
    name: &'static str,
    role: &'static str,
    client: Client,
}

/// What was said so far.
#[derive(Default)]
struct Model {
    /// By group, who was made a member.
    members: BTreeMap<usize, BTreeSet<usize>>,
    /// By thing: with whom it is shared and how.
    shares: BTreeMap<usize, BTreeMap<Grantee, BTreeSet<&'static str>>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Grantee {
    Person(usize),
    Group(usize),
}

impl Model {
    /// Everything that was shared of a thing with somebody; nothing at all, or its state and more.
    fn shared(&self, who: usize, what: usize) -> Option<BTreeSet<&'static str>> {
        let shares = self.shares.get(&what)?;
        let is_theirs = |with: &Grantee| match with {
            Grantee::Person(one) => *one == who,
            Grantee::Group(group) => {
                self.members.get(group).is_some_and(|members| members.contains(&who))
            }
        };
        let mut theirs = shares.iter().filter(|(with, _)| is_theirs(with)).peekable();
        theirs.peek()?;
        Some(theirs.flat_map(|(_, rights)| rights.iter().copied()).collect())
    }

    /// Whether somebody may do something to a thing; none when it is not there for them.
    fn may(
        &self,
        (who, role): (usize, &str),
        (what, owner): (usize, usize),
        act: &str,
    ) -> Option<bool> {
        let own = who == owner;
        let shared = self.shared(who, what);
        let oversees = role != "user";
        if !own && !oversees && shared.is_none() {
            return None;
        }
        let given = shared.is_some_and(|rights| rights.contains(act));
        let operates = role == "operator";
        Some(match act {
            "state" => true,
            "logs" | "files" => own || given,
            // No operator either.
            "write" => (own || given) && role != "auditor",
            // Whoever only looks, only looks.
            _ if role == "auditor" => act == "see_shares",
            "terminal" => own || given,
            "manage" => own || operates || given,
            "remove" | "unshare" => own || operates,
            "see_shares" => own || oversees,
            "share" => own,
            other => unreachable!("no act: {other}"),
        })
    }
}

/// The server's word for it.
async fn tried(client: &Client, thing: &Thing, act: &str) -> Answer {
    let path = thing.path();
    match act {
        "files" if thing.is_volume() => client.get(&format!("{path}/files?path=/")).await,
        "files" if thing.is_image() => client.get(&format!("{path}/export")).await,
        "state" | "files" => client.get(&path).await,
        "logs" => client.get(&format!("{path}/logs")).await,
        // The top is there already, and no folder to be made: whoever may is told that.
        "write" => client.post(&format!("{path}/files/folder"), &json!({"path": "/"})).await,
        "terminal" => {
            let body = json!({"program": {"command": ["true"]}});
            client.post(&format!("{path}/exec"), &body).await
        }
        "manage" => client.patch(&path, &json!({"limits": {"pids": 60}})).await,
        // A version that it never had: whoever may is told that.
        "remove" => {
            let request = client.request("DELETE", &path).header("if-match", "\"none\"");
            system_tests::client::send(request).await
        }
        "see_shares" => client.get(&format!("{path}/grants")).await,
        // Their own name: whoever may is told that it is theirs, and nothing is shared.
        "share" => {
            let me = client.get("/api/v1/me").await.json()["name"].clone();
            let body = json!({"kind": "person", "name": me, "rights": ["state"]});
            client.put(&format!("{path}/grants"), &body).await
        }
        "unshare" => client.delete(&format!("{path}/grants?kind=person&name=nobody")).await,
        other => unreachable!("no act: {other}"),
    }
}

/// What an answer says: allowed, refused, or that nothing is there.
fn read(act: &str, answer: &Answer) -> &'static str {
    match (act, answer.status) {
        (_, 404) => "not there",
        (_, 403) => "refused",
        ("files", 200)
            if answer.text.starts_with('{')
                && answer.json().get("content").is_some_and(Value::is_null) =>
        {
            "refused"
        }
        ("state" | "files" | "logs" | "manage" | "see_shares", 200) => "allowed",
        // It does not run, is another version, is shared with oneself, was not shared with them.
        ("terminal", 409) | ("remove", 412) | ("share", 422) | ("unshare", 204) => "allowed",
        ("write", 409 | 422) => "allowed",
        _ => "neither",
    }
}

#[tokio::test]
async fn whatever_is_shared_each_request_is_answered_as_the_model_says() {
    requires_root!();
    let server = TestServer::with(crate::fields::generous()).await;
    let olga = server.operator();
    let mut people = vec![Person { name: "olga", role: "operator", client: olga.clone() }];
    for (name, role) in
        [("anna", "user"), ("tom", "user"), ("eve", "user"), ("max", "user"), ("argus", "auditor")]
    {
        people.push(Person { name, role, client: server.person(name, role).await });
    }
    let mut groups = Vec::new();
    for name in ["course", "project", "lab"] {
        let made = olga.post("/api/v1/groups", &json!({"name": name})).await.expect_status(201);
        groups.push((name, format!("/api/v1/groups/{}", made.json()["id"])));
    }
    let mut model = Model::default();
    let things = made(&people).await;
    let mut dice = Dice::new();
    let mut seen: BTreeMap<String, usize> = BTreeMap::new();
    for _ in 0..times(1500, 150) {
        step(&mut dice, &people, &groups, &things, &mut model).await;
        for _ in 0..3 {
            let (who, what) = (dice.below(people.len()), dice.below(things.len()));
            let thing = &things[what];
            let act = thing.kind.acts[dice.below(thing.kind.acts.len())];
            let Person { name, role, client } = &people[who];
            let owner = thing.owner;
            let expected = match model.may((who, *role), (what, owner), act) {
                None => "not there",
                Some(true) => "allowed",
                Some(false) => "refused",
            };
            let answer = tried(client, thing, act).await;
            let variant = format!(
                "{name} ({role}) tries {act} on {} of {}'s, of which they have {:?}",
                thing.kind.path,
                people[owner].name,
                model.shared(who, what),
            );
            let control = "each answer comes for somebody, counted at the end";
            Check { id: "A01", variant: &variant, control }.sees(expected, read(act, &answer));
            *seen.entry(format!("{act} {expected}")).or_default() += 1;
        }
        let who = dice.below(people.len());
        lists_what_is_seen(&people[who], who, &things, &model).await;
    }
    for act in [
        "state allowed",
        "state not there",
        "logs refused",
        "share refused",
        "manage allowed",
        "write allowed",
        "write refused",
    ] {
        assert!(seen.contains_key(act), "the control: {act} did not come, {seen:?}");
    }
}

/// A container, a volume and an image of each of a few.
async fn made(people: &[Person]) -> Vec<Thing> {
    let mut things = Vec::new();
    for owner in [1, 2, 0] {
        let client = &people[owner].client;
        let image =
            image::import(client, image::archive("lab/app:v1", &[("a", 0o755, b"a")])).await;
        let body =
            json!({"name": "thing", "image": &image, "command": ["a"], "limits": {"pids": 60}});
        let made = client.post("/api/v1/containers", &body).await.expect_status(201).json();
        let id = made["id"].as_str().expect("an id").to_owned();
        things.push(Thing { owner, kind: &CONTAINER, id });
        let body = json!({"name": "data"});
        let made = client.post("/api/v1/volumes", &body).await.expect_status(201).json();
        let id = made["id"].as_str().expect("an id").to_owned();
        things.push(Thing { owner, kind: &VOLUME, id });
        things.push(Thing { owner, kind: &IMAGE, id: image });
    }
    things
}

/// Somebody is put into a group or taken out, something is shared or not any more.
async fn step(
    dice: &mut Dice,
    people: &[Person],
    groups: &[(&'static str, String)],
    things: &[Thing],
    model: &mut Model,
) {
    let (group, who) = (dice.below(groups.len()), dice.below(people.len()));
    let members = model.members.entry(group).or_default();
    let olga = &people[0].client;
    let (path, name) = (&groups[group].1, people[who].name);
    match dice.below(5) {
        0 if members.insert(who) => {
            let body = json!({"name": name, "role": "member"});
            olga.put(&format!("{path}/members"), &body).await.expect_status(200);
        }
        1 if members.remove(&who) => {
            olga.delete(&format!("{path}/members?name={name}")).await.expect_status(204);
        }
        2 | 3 => give(dice, (people, groups, things), model).await,
        _ => {
            let what = dice.below(things.len());
            let shares = model.shares.entry(what).or_default();
            let all: Vec<Grantee> = shares.keys().copied().collect();
            if all.is_empty() {
                return;
            }
            let with = all[dice.below(all.len())];
            shares.remove(&with);
            let thing = &things[what];
            let (kind, name) = called(with, people, groups);
            // Its owner or an operator, as it falls.
            let by = if dice.below(2) == 0 { thing.owner } else { 0 };
            let path = format!("{}/grants?kind={kind}&name={name}", thing.path());
            people[by].client.delete(&path).await.expect_status(204);
        }
    }
}

/// Who there is, which groups by name and id, and which things.
type World<'a> = (&'a [Person], &'a [(&'static str, String)], &'a [Thing]);

async fn give(dice: &mut Dice, (people, groups, things): World<'_>, model: &mut Model) {
    let what = dice.below(things.len());
    let thing = &things[what];
    let owner = thing.owner;
    let with = match dice.below(2) {
        0 => Grantee::Person(dice.below(people.len())),
        _ => Grantee::Group(dice.below(groups.len())),
    };
    let (kind, name) = called(with, people, groups);
    let all = thing.kind.rights.iter().copied();
    let mut rights: BTreeSet<_> = all.filter(|_| dice.below(3) == 0).collect();
    if thing.is_volume() || thing.is_image() {
        rights.insert("files");
    }
    let mut sent: Vec<_> = rights.iter().copied().collect();
    sent.push("state");
    let body = json!({"kind": kind, "name": name, "rights": sent});
    let path = format!("{}/grants", thing.path());
    let answer = people[owner].client.put(&path, &body).await;
    let is_in = |group: &usize| model.members.get(group).is_some_and(|all| all.contains(&owner));
    let may = match with {
        Grantee::Person(who) => who != owner,
        // Operators see every group.
        Grantee::Group(group) => owner == 0 || is_in(&group),
    };
    assert_eq!(answer.status == 200, may, "{kind} {name}: {answer:?}");
    if may {
        model.shares.entry(what).or_default().insert(with, rights);
    }
}

fn called(
    with: Grantee,
    people: &[Person],
    groups: &[(&'static str, String)],
) -> (&'static str, &'static str) {
    match with {
        Grantee::Person(who) => ("person", people[who].name),
        Grantee::Group(group) => ("group", groups[group].0),
    }
}

/// The lists have exactly what somebody sees, and say of each what they may.
async fn lists_what_is_seen(person: &Person, who: usize, things: &[Thing], model: &Model) {
    let mut found: BTreeMap<String, Value> = BTreeMap::new();
    for kind in [&CONTAINER, &VOLUME, &IMAGE] {
        let listed = person.client.get(kind.path).await.expect_status(200).json();
        for item in listed["items"].as_array().expect("a list") {
            found.insert(item["id"].as_str().expect("an id").to_owned(), item["rights"].clone());
        }
    }
    let mut expected = BTreeSet::new();
    for (what, thing) in things.iter().enumerate() {
        let may = |act| model.may((who, person.role), (what, thing.owner), act);
        if may("state").is_none() {
            continue;
        }
        expected.insert(thing.id.clone());
        let told = found.get(&thing.id).cloned().unwrap_or_default();
        for act in thing.kind.acts {
            let said = told.as_array().is_some_and(|all| all.contains(&json!(act)));
            assert_eq!(Some(said), may(act), "{}: {act} in {told}", person.name);
        }
        let known = told.as_array().map_or(0, Vec::len);
        let allowed = thing.kind.acts.iter().filter(|act| may(act) == Some(true)).count();
        assert_eq!(known, allowed, "{}: nothing else, {told}", person.name);
    }
    assert_eq!(found.into_keys().collect::<BTreeSet<_>>(), expected, "{}", person.name);
}
