//! The program `berth` as a client, driven as people drive it: by its command line, its standard
//! streams, its exit code and a terminal; the server's own answers are the judge.

mod containers;
mod exec;
mod files;
mod manual;
mod people;
mod sign;
mod terminal;
mod tls;

use std::fs;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::Stdio;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::Duration;

use serde_json::Value;
use system_tests::instance::PASSWORD;
use system_tests::{TestServer, programs};
use tokio::io::AsyncWriteExt;

/// How long a command may take.
pub(crate) const LIMIT: Duration = Duration::from_secs(40);

/// Somebody's home directory, and the server that they mean.
pub(crate) struct Person {
    pub(crate) home: PathBuf,
    pub(crate) url: String,
}

/// What has come of a command.
#[derive(Debug)]
pub(crate) struct Done {
    pub(crate) code: Option<i32>,
    pub(crate) stdout: String,
    pub(crate) stderr: String,
}

impl Person {
    /// Somebody who is signed in nowhere.
    pub(crate) fn at(url: &str) -> Self {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let home = std::env::temp_dir().join(format!("berth-home-{}-{number}", std::process::id()));
        fs::create_dir_all(&home).expect("make a home directory");
        Self { home, url: url.to_owned() }
    }

    /// A new person of the server's, signed in.
    pub(crate) async fn signed_in(server: &TestServer, name: &str) -> Self {
        server.person(name, "user").await;
        let person = Self::at(&server.url());
        person.sign_in(name).await;
        person
    }

    /// Signs in by password.
    pub(crate) async fn sign_in(&self, name: &str) {
        let words = ["login", &self.url, "--user", name, "--password-stdin"];
        self.does(&words, PASSWORD).await.good();
    }

    /// The program with these words; nothing of the tests' environment reaches it.
    pub(crate) fn command(&self, words: &[&str]) -> std::process::Command {
        let mut command = std::process::Command::new(programs::berth());
        command.args(words).env_clear().env("HOME", &self.home);
        command.env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command
    }

    /// Runs it to its end with this standard input.
    pub(crate) async fn does(&self, words: &[&str], input: impl AsRef<[u8]>) -> Done {
        let mut command = tokio::process::Command::from(self.command(words));
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.kill_on_drop(true).spawn().expect("run berth");
        let mut stdin = child.stdin.take().expect("it is a pipe");
        let input = input.as_ref().to_vec();
        // What reads nothing of it closes its end.
        let feed = tokio::spawn(async move { drop(stdin.write_all(&input).await) });
        let output = tokio::time::timeout(LIMIT, child.wait_with_output()).await;
        let output = output.unwrap_or_else(|_| panic!("berth {words:?} does not end"));
        feed.abort();
        let output = output.expect("wait for berth");
        let text = |bytes: Vec<u8>| String::from_utf8_lossy(&bytes).into_owned();
        Done {
            code: output.status.code(),
            stdout: text(output.stdout),
            stderr: text(output.stderr),
        }
    }

    /// Runs it without input, to a good end; its standard output.
    pub(crate) async fn gets(&self, words: &[&str]) -> String {
        self.does(words, "").await.good().stdout
    }

    /// The same with `--json`.
    pub(crate) async fn gets_json(&self, words: &[&str]) -> Value {
        let words: Vec<&str> = words.iter().copied().chain(["--json"]).collect();
        let text = self.gets(&words).await;
        serde_json::from_str(&text).unwrap_or_else(|error| panic!("not JSON ({error}): {text}"))
    }

    /// Where its credentials are.
    pub(crate) fn credentials(&self) -> PathBuf {
        self.home.join(".config/berth/credentials.json")
    }

    /// The token that is kept for the server.
    pub(crate) fn token(&self) -> String {
        let text = fs::read_to_string(self.credentials()).expect("there are credentials");
        let kept: Value = serde_json::from_str(&text).expect("JSON");
        let token = kept["servers"][&self.url]["token"].as_str();
        token.unwrap_or_else(|| panic!("no token for {} in {kept}", self.url)).to_owned()
    }
}

impl Drop for Person {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.home));
    }
}

impl Done {
    /// This, if all went well.
    pub(crate) fn good(self) -> Self {
        assert_eq!(self.code, Some(0), "{self:?}");
        self
    }

    /// This, if it ended with `code` and said `words`.
    pub(crate) fn fails(self, code: i32, words: &str) -> Self {
        assert_eq!(self.code, Some(code), "{self:?}");
        assert!(self.stderr.contains(words), "{words:?} is not in {self:?}");
        self
    }
}

/// The URL of a loopback address.
pub(crate) fn url_of(address: SocketAddr) -> String {
    format!("http://{address}")
}
