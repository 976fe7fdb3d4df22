//! Servers whose certificate no authority of the system has signed: a fingerprint makes one of them good,
//! or the authority's file, and nothing else.

use std::process::Command;

use system_tests::certificates::{Authority, put, with_tls};
use system_tests::instance::{PASSWORD, free_address};
use system_tests::{Options, TestServer, programs, requires_root};

use crate::Person;

#[tokio::test]
async fn a_generated_certificate_is_believed_by_its_fingerprint_alone() {
    requires_root!();
    let address = free_address();
    let server = TestServer::with(Options {
        listen_too: vec![format!("https://{address}")],
        no_supervisor: true,
        ..Options::default()
    })
    .await;
    server.person("anna", "user").await;
    let mut command = Command::new(programs::berth());
    let output = command.arg("--config").arg(server.config_path()).arg("certificate").output();
    let text = String::from_utf8(output.expect("run berth").stdout).expect("text");
    let is_one = |word: &&str| word.len() == 95 && word.matches(':').count() == 31;
    let fingerprint = text.split_whitespace().find(is_one);
    let fingerprint = fingerprint.unwrap_or_else(|| panic!("no fingerprint in {text:?}"));

    let person = Person::at(&format!("https://{address}"));
    let login = ["login", &person.url, "--user", "anna", "--password-stdin"];
    person.does(&login, PASSWORD).await.fails(1, "--fingerprint");
    let other = "00".repeat(32);
    let words = [&login[..], &["--fingerprint", &other]].concat();
    person.does(&words, PASSWORD).await.fails(1, "somebody is in between");
    let words = [&login[..], &["--fingerprint", fingerprint]].concat();
    person.does(&words, PASSWORD).await.good();
    // From here on it is kept.
    person.gets(&["ps"]).await;
    person.gets(&["logout"]).await;
}

#[tokio::test]
async fn a_certificate_is_believed_by_the_authority_that_has_signed_it() {
    requires_root!();
    let (authority, stranger) = (Authority::new(), Authority::new());
    authority.install(&authority.good(&["127.0.0.1"]));
    let address = free_address();
    let server = TestServer::with(with_tls(address, "", authority.section(""))).await;
    server.person("anna", "user").await;
    let person = Person::at(&format!("https://{address}"));
    let path = authority.authority_path();
    let folder = path.parent().expect("it lies in a folder");
    let (empty, large) = (folder.join("empty.pem"), folder.join("large.pem"));
    put(&empty, "no certificate\n", 0o644);
    put(&large, &"x".repeat((1 << 20) + 1), 0o644);
    let signs_in = async |ca: &std::path::Path| {
        let ca = ca.to_str().expect("a plain path");
        let words = ["login", &person.url, "--user", "anna", "--password-stdin", "--ca", ca];
        person.does(&words, PASSWORD).await
    };
    signs_in(&stranger.authority_path()).await.fails(1, "somebody is in between");
    signs_in(&empty).await.fails(1, "no certificate is in it");
    signs_in(&large).await.fails(1, "larger than 1 MiB");
    signs_in(&folder.join("none.pem")).await.fails(1, "none.pem");
    signs_in(&path).await.good();
    // It is kept with the token: the file is not needed any more, and another key is not believed.
    std::fs::remove_file(&path).expect("remove it");
    person.gets(&["ps"]).await;
    authority.install(&stranger.good(&["127.0.0.1"]));
    server.kill_server();
    server.start_server().await;
    person.does(&["ps"], "").await.fails(1, "somebody is in between");
}
