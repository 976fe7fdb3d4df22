//! Servers whose certificate no authority of the system has signed: a fingerprint makes one of them good,
//! or the authority's file, and nothing else.

use std::process::Command;

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
