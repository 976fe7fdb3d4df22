//! Data sets over the API: who sees which, who has one in a container, what becomes of that when they leave the group,
//! and that nobody but operators is told where one is.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;

use serde_json::{Value, json};
use system_tests::containers::{IMAGE, act, import, in_status, log_with, run, show};
use system_tests::{Check, Client, Options, TestServer, requires_root};

/// Directories with a file each, gone at the end.
struct Sets(PathBuf);

impl Sets {
    fn new() -> Self {
        let top = std::env::temp_dir().join(format!("berth-shown-sets-{}", std::process::id()));
        for name in ["open", "course"] {
            fs::create_dir_all(top.join(name)).expect("make a directory");
            fs::write(top.join(name).join("file"), format!("{name} data\n")).expect("a file");
            for path in [top.clone(), top.join(name)] {
                fs::set_permissions(path, fs::Permissions::from_mode(0o755)).expect("open it");
            }
        }
        Self(top)
    }

    fn sections(&self) -> String {
        let place = |name| self.0.join(name).display().to_string();
        format!(
            "[runtime.data_sets.all]\npath = {:?}\ndescription = \"For everybody\"\n\
             [runtime.data_sets.few]\npath = {:?}\ngroups = [\"nobodys\", \"course\"]\n\
             [runtime.data_sets.gone]\npath = {:?}\ngroups = [\"course\"]\n",
            place("open"),
            place("course"),
            place("missing")
        )
    }
}

impl Drop for Sets {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.0));
    }
}

fn sets(all: &[(&str, &str)]) -> Value {
    let one = |(name, target): &(&str, &str)| json!({"name": name, "target": target});
    json!({"data_sets": all.iter().map(one).collect::<Value>()})
}

async fn names(client: &Client) -> Vec<String> {
    let listed = client.get("/api/v1/data-sets").await.expect_status(200).json();
    let items = listed["items"].as_array().expect("a list").iter();
    items.map(|item| item["name"].as_str().expect("a name").to_owned()).collect()
}

async fn refused(client: &Client, name: &str) -> Value {
    let mut body = json!({"image": IMAGE, "command": ["true"]});
    body["data_sets"] = json!([{"name": name, "target": "/d"}]);
    client.post("/api/v1/containers", &body).await.expect_status(422).json()
}

#[tokio::test]
async fn a_data_set_is_read_by_whom_it_is_offered_to_as_long_as_they_are_in_its_group() {
    requires_root!();
    let place = Sets::new();
    let server = TestServer::with(Options { sections: place.sections(), ..Options::default() });
    let server = server.await;
    let (anna, tom) = (server.person("anna", "user").await, server.person("tom", "user").await);
    let olga = server.operator();
    import(&anna).await;
    import(&tom).await;
    let made = olga.post("/api/v1/groups", &json!({"name": "course"})).await.expect_status(201);
    let members = format!("/api/v1/groups/{}/members", made.json()["id"]);
    let member = json!({"name": "anna", "role": "member"});
    olga.put(&members, &member).await.expect_status(200);
    assert_eq!(names(&anna).await, ["all", "few", "gone"]);
    assert_eq!(names(&tom).await, ["all"]);
    assert_eq!(names(&olga).await, ["all", "few", "gone"], "operators see all");
    // What is not offered is as what is not there, to operators too.
    for client in [&tom, &olga] {
        let other = refused(client, "few").await["fields"][0]["detail"].to_string();
        let none = refused(client, "none").await["fields"][0]["detail"].to_string();
        let check = Check {
            id: "A01",
            variant: "mount a data set of a group that one is not in",
            control: "whoever is in the group mounts it",
        };
        check.sees(none.replace("none", "NAME"), other.replace("few", "NAME"));
    }
    let text =
        "cat /all/file /few/file; echo x > /few/file; echo ended; while :; do usleep 50000; done";
    let id = run(&anna, "reader", text, sets(&[("few", "/few"), ("all", "//all/")])).await;
    let log = log_with(&anna, &id, "ended").await;
    assert!(log.contains("open data\ncourse data\n") && log.contains("Read-only"), "{log}");
    let shown = show(&anna, &id).await;
    let expected = sets(&[("few", "/few"), ("all", "/all")])["data_sets"].clone();
    assert_eq!(shown["data_sets"], expected, "{shown}");
    assert_eq!(shown["content"]["request"]["data_sets"][0]["name"], "few", "{shown}");
    is_told(&server, (&anna, &tom, &olga), (&id, &place)).await;
    // What runs keeps it; what is to run again does not have it.
    olga.delete(&format!("{members}?name=anna")).await.expect_status(204);
    assert_eq!(names(&anna).await, ["all"]);
    assert_eq!(show(&anna, &id).await["status"], "running");
    act(&anna, &id, "kill").await.expect_status(200);
    in_status(&anna, &id, "exited").await;
    let again = act(&anna, &id, "start").await;
    assert_eq!((again.status, again.code()), (409, "data-set.not-offered".to_owned()));
    assert!(again.text.contains("data set few on /few"), "{}", again.text);
    olga.put(&members, &member).await.expect_status(200);
    act(&anna, &id, "start").await.expect_status(200);
    // One whose directory is away keeps nothing but its own containers from starting.
    let mut body = json!({"image": IMAGE, "command": ["true"], "name": "lost"});
    body["data_sets"] = json!([{"name": "gone", "target": "/d"}]);
    anna.post("/api/v1/containers", &body).await.expect_status(201);
    let lost = act(&anna, "lost", "start").await;
    assert_eq!((lost.status, lost.code()), (409, "data-set.unavailable".to_owned()));
    assert!(!lost.text.contains(&place.0.display().to_string()), "{}", lost.text);
}

/// Who has one is seen by its user and by operators, where it is by operators alone.
async fn is_told(
    server: &TestServer,
    (anna, tom, olga): (&Client, &Client, &Client),
    (id, place): (&str, &Sets),
) {
    let top = place.0.display().to_string();
    let paths = ["/api/v1/data-sets", "/volumes", "/launch"];
    for client in [anna, tom] {
        for path in paths {
            let told = client.get(path).await.expect_status(200).text;
            assert!(told.contains("all") && !told.contains(&top), "{path}: {told}");
            assert!(!told.contains("nobodys"), "no other group's name: {path}: {told}");
        }
    }
    for path in [
        format!("/api/v1/containers/{id}"),
        format!("/containers/{id}"),
        format!("/api/v1/containers/{id}/posture"),
        "/api/v1/events".to_owned(),
    ] {
        let told = anna.get(&path).await.expect_status(200).text;
        assert!(!told.contains(&top), "{path}: {told}");
    }
    let page = anna.get(&format!("/containers/{id}")).await.text;
    assert!(page.contains("few on /few"), "{page}");
    let mine = anna.get("/api/v1/data-sets").await.json()["items"].clone();
    assert_eq!((&mine[1]["places"], &mine[1]["used_by"][0]["container"]), (&json!(1), &json!(id)));
    assert_eq!((&mine[0]["path"], &mine[1]["groups"]), (&Value::Null, &Value::Null), "{mine}");
    let toms = tom.get("/api/v1/data-sets").await.json()["items"].clone();
    assert_eq!((&toms[0]["places"], &toms[0]["used_by"]), (&json!(0), &json!([])), "{toms}");
    let auditor = server.person("ada", "auditor").await;
    for client in [olga, &auditor] {
        let all = client.get("/api/v1/data-sets").await.json()["items"].clone();
        assert_eq!(all[1]["path"], json!(place.0.join("course")), "{all}");
        assert_eq!(all[1]["groups"], json!(["nobodys", "course"]), "{all}");
        assert_eq!((&all[1]["offered"], &all[0]["offered"]), (&json!(false), &json!(true)));
        assert_eq!(all[1]["used_by"][0]["owner"]["name"], "anna", "{all}");
        let page = client.get("/volumes").await.text;
        assert!(page.contains(&top) && page.contains("reader"), "{page}");
    }
}
