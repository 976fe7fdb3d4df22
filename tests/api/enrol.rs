//! People from a table: what would happen is said line by line, and all of them are added or nobody.

use serde_json::{Value, json};
use system_tests::instance::PASSWORD;
use system_tests::{Check, Client, Options, TestServer, requires_root};

const PATH: &str = "/api/v1/people/import";

async fn import(client: &Client, csv: &str, dry_run: bool) -> system_tests::client::Answer {
    client.post(PATH, &json!({"csv": csv, "dry_run": dry_run})).await
}

async fn names(olga: &Client) -> Vec<Value> {
    let people = olga.get("/api/v1/people?limit=500").await.expect_status(200).json();
    let items = people["items"].as_array().expect("people").clone();
    items.into_iter().map(|person| person["name"].clone()).collect()
}

#[tokio::test]
async fn a_table_is_judged_line_by_line_and_taken_whole_or_not_at_all() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let olga = server.operator();
    server.person("tom", "user").await;
    let course = json!({"name": "course", "note": ""});
    olga.post("/api/v1/groups", &course).await.expect_status(201);
    let wrong = "name,role,group,expires\r\nkim,,,\r\ntom,user,,\r\nkim,user,,\r\nKim,,,\r\n\
                 lea,chief,,\r\nlea,,nowhere,\r\nmax,,,2020-01-01\r\nnora\r\n\"ola\",auditor,\"course\",2090-01-31\r\n";
    let seen = import(&olga, wrong, true).await.expect_status(200).json();
    let verdicts: Vec<_> = seen["lines"]
        .as_array()
        .expect("lines")
        .iter()
        .map(|line| format!("{} {}", line["line"], line["verdict"].as_str().unwrap_or_default()))
        .collect();
    assert_eq!(
        verdicts,
        [
            "2 new",
            "3 exists",
            "4 duplicate",
            "5 bad_name",
            "6 bad_role",
            "7 duplicate",
            "8 bad_end",
            "9 bad_cells",
            "10 new",
        ],
        "{seen}"
    );
    let ola = &seen["lines"][8];
    let said = (&ola["role"], &ola["group"], &ola["expires_at"]);
    assert_eq!(said, (&json!("auditor"), &json!("course"), &json!("2090-02-01T00:00:00.000Z")));
    assert_eq!((&seen["people"], &seen["dry_run"]), (&json!(2), &json!(true)));
    let refused = import(&olga, wrong, false).await;
    assert_eq!(refused.status, 422);
    assert!(
        refused.text.contains("nobody was added")
            && refused.text.contains("line 3: there is a person named tom already")
    );
    assert_eq!(
        names(&olga).await,
        ["olga", "tom"],
        "neither the look nor the refusal added anybody"
    );

    let good = "\u{feff}expires,name,group\n2090-01-31,kim,course\n,\"lea\",\n\n";
    let dry = import(&olga, good, true).await.expect_status(200).json();
    assert_eq!(dry["people"], 2, "{dry}");
    assert_eq!(names(&olga).await, ["olga", "tom"]);
    let done = import(&olga, good, false).await.expect_status(201).json();
    assert_eq!(names(&olga).await, ["kim", "lea", "olga", "tom"]);
    let kim = &done["added"][0];
    let shown = olga.get(&format!("/api/v1/people/{}", kim["id"])).await.json();
    let groups = olga.get("/api/v1/groups").await.json();
    let course =
        groups["items"].as_array().expect("groups").iter().find(|group| group["name"] == "course");
    assert_eq!(shown["group"], course.expect("the group")["id"]);
    assert_eq!(shown["expires_at"], "2090-02-01T00:00:00.000Z");
    let body = json!({"secret": done["added"][1]["invitation"]["secret"], "password": PASSWORD});
    let signed_in = server.anonymous().post("/api/v1/invitations/accept", &body).await;
    assert_eq!(signed_in.status, 201, "lea's link is good");
    let rows = olga.get("/api/v1/audit?action=person.*&limit=100").await.json();
    let of = |action: &str| {
        let rows = rows["items"].as_array().expect("rows").iter();
        rows.filter(|row| row["action"] == action && row["outcome"] == "done").count()
    };
    assert_eq!((of("person.import"), of("person.add")), (1, 3), "tom, kim and lea: {rows}");
    let again = import(&olga, good, false).await;
    assert_eq!(again.status, 422, "they are there now");
}

#[tokio::test]
async fn what_is_no_table_of_people_is_refused_and_so_is_whoever_is_no_operator() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let olga = server.operator();
    let many: String = (0..1001).map(|number| format!("p{number}\n")).collect();
    for (csv, said) in [
        (String::new(), "it is empty"),
        ("name\n".to_owned(), "nobody below"),
        ("role\nuser".to_owned(), "must name the column name"),
        ("name,name\na,b".to_owned(), "twice"),
        ("name,=cmd\na,b".to_owned(), "is none of them"),
        ("name\n\"kim".to_owned(), "line 2: a quote is opened"),
        (format!("name\n{many}"), "rows at most"),
    ] {
        for dry_run in [true, false] {
            let refused = import(&olga, &csv, dry_run).await;
            assert_eq!(refused.status, 422, "{csv:.20?}");
            assert!(
                refused.text.contains("/csv") && refused.text.contains(said),
                "{}",
                refused.text
            );
        }
    }
    let most: String = (0..1000).map(|number| format!("p{number}\n")).collect();
    let all = import(&olga, &format!("name\n{most}"), false).await.expect_status(201).json();
    assert_eq!(all["people"], 1000, "the most that is taken");
    let huge = import(&olga, &"a".repeat(1 << 20), true).await;
    assert_eq!((huge.status, huge.code().as_str()), (413, "request.too-large"));
    for role in ["user", "auditor"] {
        let other = server.person(&format!("other-{role}"), role).await;
        let control = "an operator gets 422 for what is wrong with the table";
        let refused = import(&other, "name\nkim", true).await.status;
        Check { id: "A01", variant: &format!("a table of people by {role}"), control }
            .sees(403, refused);
    }
}

#[tokio::test]
async fn no_cell_of_the_links_is_a_formula() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    let olga = server.operator();
    // What a name may be leaves no room for one; it is refused before it comes near a file.
    for name in ["=1+1", "@sum", "+a", "-a", "\"=cmd|' /C calc'!A0\""] {
        let seen = import(&olga, &format!("name\n{name}\n"), true).await.expect_status(200).json();
        assert_eq!(seen["lines"][0]["verdict"], "bad_name", "{seen}");
    }
}
