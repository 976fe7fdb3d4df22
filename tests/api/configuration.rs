//! Wrong configurations are explained, a damaged or newer inventory is refused and left as it is, and
//! an inherited socket must be the configured one.

use std::fs;
use std::path::Path;
use std::process::{Command, Output};

use system_tests::{Options, TestServer, programs, requires_root};

fn check(name: &str, text: &str) -> Output {
    let path = std::env::temp_dir().join(format!("berth-{}-{name}.toml", std::process::id()));
    fs::write(&path, text).expect("write a configuration");
    let output = Command::new(programs::berth())
        .env_clear()
        .args(["config", "--check", "--config"])
        .arg(&path)
        .output()
        .expect("run berth config");
    fs::remove_file(&path).expect("remove it");
    output
}

#[test]
fn a_wrong_key_is_explained_by_name_and_line() {
    for (name, text, expected) in [
        ("unknown", "[server]\n\nlistn = 1\n", ":3: unknown field `listn`"),
        ("plain", "[server]\nlisten = \"http://0.0.0.0:80\"\n", ":2: server.listen: 0.0.0.0:80"),
        ("twice", "[server]\nlisten = [\"[::1]:1\", \"[::1]:1\"]\n", "is there twice"),
        ("half", "[tls]\ncertificate = \"/c.pem\"\n", "certificate and key go together"),
        ("gone", "[tls]\ncertificate = \"/c.pem\"\nkey = \"/k.pem\"\n", "look at /c.pem"),
        ("proxy", "[server]\ntrusted_proxies = [\"any\"]\n", "no address or network"),
        ("runtime", "[runtime]\ninstance = \"Not Good\"\n", ":2: runtime.instance: "),
        ("syntax", "[server]\nlisten = \n", ":2: "),
    ] {
        let output = check(name, text);
        let said = String::from_utf8_lossy(&output.stderr).into_owned();
        assert!(!output.status.success() && said.contains(expected), "{name}: {said}");
    }
    assert!(check("good", "[server]\nlisten = \"[::1]:1\"\n").status.success(), "the control");
}

/// Starts `berth serve` on an instance whose server was stopped, and waits for it to give up.
fn serve(server: &TestServer) -> String {
    let output = Command::new("timeout")
        .arg("20")
        .arg(programs::berth())
        .args(["serve", "--config"])
        .arg(server.config_path())
        .env_clear()
        .output()
        .expect("run berth serve");
    assert_eq!(output.status.code(), Some(1), "{output:?}");
    String::from_utf8_lossy(&output.stderr).into_owned()
}

#[tokio::test]
async fn a_damaged_inventory_is_refused_and_left_as_it_is() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    server.stop_server();
    let path = server.data_dir().join("db/berth.db");
    let good = fs::read(&path).expect("the inventory");
    let mut zeroed = good.clone();
    zeroed[..100].fill(0);
    let mut torn = good.clone();
    let middle = torn.len() / 2;
    torn[middle..].fill(0x5a);
    let truncated = good[..good.len() / 2].to_vec();
    for (name, bytes) in
        [("zeroed", zeroed), ("torn", torn), ("truncated", truncated), ("empty", Vec::new())]
    {
        fs::write(&path, &bytes).expect("damage it");
        let said = serve(&server);
        assert!(said.contains("berth.db"), "{name}: {said}");
        assert_eq!(fs::read(&path).expect("it is there").len(), bytes.len(), "{name}: changed");
    }
    fs::remove_file(&path).expect("lose it");
    let said = serve(&server);
    assert!(said.contains("is gone"), "{said}");
    assert!(!path.exists(), "an empty inventory took its place");
    // A schema of a newer version.
    put_back(&path, &good);
    let sql = "insert into _sqlx_migrations values (9999, 'x', '2030', 1, x'00', 1)";
    let done = Command::new("sqlite3").arg(&path).arg(sql).status().expect("run sqlite3");
    assert!(done.success());
    let said = serve(&server);
    assert!(said.contains("newer version"), "{said}");
    // The control: the good one is served.
    put_back(&path, &good);
    server.start_server().await;
}

/// The inventory as it was, its user's, without what others have left beside it.
fn put_back(path: &Path, bytes: &[u8]) {
    for suffix in ["-wal", "-shm"] {
        drop(fs::remove_file(format!("{}{suffix}", path.display())));
    }
    fs::write(path, bytes).expect("put it back");
    std::os::unix::fs::chown(path, Some(65_534), Some(65_534)).expect("give it back");
}

#[tokio::test]
async fn an_inherited_socket_must_be_the_configured_one() {
    requires_root!();
    let server = TestServer::with(Options { no_supervisor: true, ..Options::default() }).await;
    server.stop_server();
    // `exec 3<>` cannot make a listener, so the shell's parent does: descriptor 3 of a small Python.
    let script = "import os,socket,sys\n\
        s=socket.socket(); s.setsockopt(socket.SOL_SOCKET,socket.SO_REUSEADDR,1)\n\
        s.bind(('127.0.0.1',int(sys.argv[1]))); s.listen()\n\
        os.dup2(s.fileno(),3); os.set_inheritable(3,True)\n\
        os.environ['LISTEN_PID']=str(os.getpid()); os.environ['LISTEN_FDS']='1'\n\
        os.execv(sys.argv[2],sys.argv[2:])\n";
    let run = |port: u16, secs: &str| {
        Command::new("timeout")
            .args([secs, "python3", "-c", script, &port.to_string()])
            .arg(programs::berth())
            .args(["serve", "--config"])
            .arg(server.config_path())
            .env_clear()
            .env("PATH", std::env::var_os("PATH").unwrap_or_default())
            .output()
            .expect("run berth serve")
    };
    let output = run(0, "20");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.code() == Some(1) && said.contains("socket unit"), "{said}");
    // The control: the right one is taken, and served until the time is over.
    let output = run(server.address.port(), "3");
    let said = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(said.contains("ready") && output.status.code() == Some(124), "{said}");
}
