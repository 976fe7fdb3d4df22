//! `cp` and `ls`.

use std::fs;

use serde_json::json;
use system_tests::containers::{import, log_with, run};
use system_tests::{Client, TestServer, requires_root};

use crate::Person;

async fn furnished() -> (TestServer, Person, Client) {
    let server = TestServer::start().await;
    let client = server.person("anna", "user").await;
    import(&client).await;
    let person = Person::at(&server.url());
    person.sign_in("anna").await;
    (server, person, client)
}

#[tokio::test]
async fn files_and_folders_are_copied_both_ways() {
    requires_root!();
    let (_server, person, client) = furnished().await;
    person.gets(&["volume", "create", "data"]).await;
    run(&client, "box", "mkdir /root; echo made > /made; echo said; exec sleep 1000", json!({}))
        .await;
    log_with(&client, "box", "said").await;
    let local = |name: &str| person.home.join(name).display().to_string();
    // Larger than one part.
    let large: Vec<u8> = (0..=250_u8).cycle().take(20_000_000).collect();
    fs::write(person.home.join("large"), &large).expect("a file");
    fs::create_dir_all(person.home.join("tree/inner")).expect("a folder");
    fs::write(person.home.join("tree/inner/file"), "inner").expect("a file");
    for place in ["box:/root", "volume:data:/"] {
        person.gets(&["cp", &local("large"), place]).await;
        let there = format!("{}/large", place.trim_end_matches('/'));
        person.gets(&["cp", &there, &local("back")]).await;
        assert!(fs::read(person.home.join("back")).expect("it is there") == large, "{place}");
        person.gets(&["cp", &local("tree"), place]).await;
        let inner = format!("{}/tree/inner/file", place.trim_end_matches('/'));
        person.gets(&["cp", &inner, &local("inner")]).await;
        assert_eq!(fs::read_to_string(person.home.join("inner")).expect("it is there"), "inner");
        let listed = person.gets(&["ls", place]).await;
        assert!(listed.contains("large") && listed.contains("tree/"), "{listed}");
        let tree = format!("{}/tree", place.trim_end_matches('/'));
        let listed = person.gets_json(&["ls", &tree]).await;
        assert_eq!(listed[0]["kind"], "folder");
        // A folder comes as an archive, named after it.
        person.gets(&["cp", &tree, &local("")]).await;
        let archive = fs::read(person.home.join("tree.tar")).expect("it is there");
        let mut archive = tar::Archive::new(archive.as_slice());
        let names = archive
            .entries()
            .expect("entries")
            .map(|entry| entry.expect("an entry").path().expect("a path").display().to_string());
        assert_eq!(names.collect::<Vec<_>>(), ["tree/", "tree/inner/", "tree/inner/file"]);
    }
    assert_eq!(person.gets(&["cp", "box:/made", "-"]).await, "made\n");
    let left: Vec<_> = fs::read_dir(&person.home).expect("a folder").flatten().collect();
    assert!(!left.iter().any(|entry| entry.file_name().to_string_lossy().contains(".part")));
    // What cannot be.
    person.does(&["cp", "box:/none", &local("x")], "").await.fails(1, "no such file or folder");
    person.does(&["cp", "nobody:/x", &local("x")], "").await.fails(1, "no such container");
    person.does(&["cp", "box:/a", "volume:data:/a"], "").await.fails(2, "exactly one side");
    person.does(&["cp", &local("large"), &local("x")], "").await.fails(2, "exactly one side");
    person.does(&["cp", "box:/proc/1/status", "-"], "").await.fails(1, "hold no files");
    person.does(&["ls", &local("tree")], "").await.fails(2, "CONTAINER:/path");
}
