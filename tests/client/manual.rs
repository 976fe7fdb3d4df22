//! Completion and man pages, as shells and man(1) take them.

use std::process::Command;

use crate::Person;

/// Subcommands that everything generated has to know.
const VERBS: [&str; 21] = [
    "login", "logout", "pull", "images", "run", "ps", "logs", "exec", "stats", "start", "stop",
    "kill", "rm", "inspect", "cp", "ls", "extend", "ask", "asks", "people", "groups",
];

#[tokio::test]
async fn completion_knows_every_verb_and_the_shell_takes_it() {
    let person = Person::at("");
    for shell in ["bash", "zsh", "fish"] {
        let script = person.gets(&["completion", shell]).await;
        for verb in VERBS {
            assert!(script.contains(verb), "{shell}: {verb}");
        }
    }
    let script = person.gets(&["completion", "bash"]).await;
    let asked =
        "COMP_WORDS=(berth exe); COMP_CWORD=1; _berth berth exe berth; echo \"${COMPREPLY[@]}\"";
    // Longer than one argument may be (execve(2)).
    let file = person.home.join("completion");
    std::fs::write(&file, format!("{script}\n{asked}")).expect("write the script");
    let output = Command::new("bash").arg(&file).output();
    let output = output.expect("run bash");
    assert_eq!(String::from_utf8_lossy(&output.stdout).trim(), "exec", "{output:?}");
}

#[tokio::test]
async fn every_command_has_a_man_page() {
    let person = Person::at("");
    let page = person.gets(&["man"]).await;
    assert!(page.contains(".TH berth 1"), "{page}");
    let dir = person.home.join("man1");
    std::fs::create_dir(&dir).expect("make a directory");
    person.gets(&["man", "--dir", dir.to_str().expect("UTF-8")]).await;
    for verb in VERBS {
        let page = std::fs::read_to_string(dir.join(format!("berth-{verb}.1")));
        let page = page.unwrap_or_else(|error| panic!("{verb}: {error}"));
        assert!(page.contains(&format!(".TH berth-{verb} 1")), "{page}");
    }
}
