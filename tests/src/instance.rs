//! A whole appliance of a test's own: configuration, directories, supervisor, server. Names in shared
//! name spaces (cgroup, bridges, nft table), id block, subnets and port differ from every other's, and
//! everything is gone when the value is dropped.

use std::fs;
use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::os::unix::fs::PermissionsExt;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use serde_json::json;

use crate::client::{Answer, Client};
use crate::disk::{SmallDisk, unmount, unmount_disks};
use crate::programs;

/// The password of everybody in tests.
pub const PASSWORD: &str = "correct horse battery";
/// How long anything may take to be there or gone.
const LIMIT: Duration = Duration::from_secs(30);
/// The unprivileged user that every system has.
pub(crate) const SERVER_USER: (&str, u32, u32) = ("nobody", 65_534, 65_534);

pub(crate) static STARTED: AtomicU32 = AtomicU32::new(0);

/// What differs from the defaults.
#[derive(Debug, Clone, Default)]
pub struct Options {
    /// Lines for `[server]`.
    pub server: String,
    /// Addresses to listen on besides the first, as the configuration writes them.
    pub listen_too: Vec<String>,
    /// What the server logs, in place of its own steps.
    pub log: Option<String>,
    /// Lines for `[runtime]`.
    pub runtime: String,
    /// One subnet for 252 containers of one person, in place of sixteen for twelve.
    pub one_subnet: bool,
    /// Ids and subnets for sixty-four people, in place of sixteen.
    pub many_people: bool,
    /// Whole sections.
    pub sections: String,
    /// Leave the appliance without a first operator.
    pub fresh: bool,
    /// Start no supervisor: for what needs none.
    pub no_supervisor: bool,
    /// Where its data lies, in place of a folder in its own directory.
    pub data_dir: Option<PathBuf>,
    /// Small disks, mounted before anything starts.
    pub disks: Vec<SmallDisk>,
}

/// A running instance.
pub struct TestServer {
    /// Where everything of it lies.
    pub dir: PathBuf,
    /// Its name in shared name spaces.
    pub instance: String,
    /// Where it listens.
    pub address: SocketAddr,
    data_dir: PathBuf,
    server: Mutex<Option<Child>>,
    supervisor: Mutex<Option<Child>>,
    operator: Option<Client>,
    disks: Vec<PathBuf>,
}

impl TestServer {
    /// An instance with a first operator, `olga`.
    pub async fn start() -> Self {
        Self::with(Options::default()).await
    }

    /// An instance.
    pub async fn with(options: Options) -> Self {
        let number = STARTED.fetch_add(1, Ordering::Relaxed);
        let instance = instance_name(number);
        let dir = std::env::temp_dir().join(format!("berth-{instance}"));
        fs::create_dir_all(&dir).expect("make the instance's directory");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("open the directory");
        let address = free_address();
        let mut this = Self {
            data_dir: options.data_dir.clone().unwrap_or_else(|| dir.join("data")),
            dir,
            instance,
            address,
            server: Mutex::new(None),
            supervisor: Mutex::new(None),
            operator: None,
            disks: Vec::new(),
        };
        for disk in &options.disks {
            this.disks.push(disk.mount(&this.dir, &this.dir));
        }
        fs::create_dir_all(this.dir.join("run/server")).expect("make the run directory");
        fs::write(this.config_path(), this.config(&options, number)).expect("write the config");
        if options.no_supervisor {
            this.make_directories();
        } else {
            this.start_supervisor().await;
        }
        this.start_server().await;
        if !options.fresh {
            this.operator = Some(this.set_up("olga").await);
        }
        this
    }

    /// The configuration file.
    pub fn config_path(&self) -> PathBuf {
        self.dir.join("berth.toml")
    }

    /// The data directory.
    pub fn data_dir(&self) -> PathBuf {
        self.data_dir.clone()
    }

    /// The run directory.
    pub fn run_dir(&self) -> PathBuf {
        self.dir.join("run")
    }

    /// `http://127.0.0.1:<port>`.
    pub fn url(&self) -> String {
        format!("http://{}", self.address)
    }

    /// Nobody.
    pub fn anonymous(&self) -> Client {
        Client::anonymous(&self.url())
    }

    /// The machine's root.
    pub fn root(&self) -> Client {
        Client::root(&self.run_dir().join("server/root.sock"))
    }

    /// The first operator, signed in.
    pub fn operator(&self) -> Client {
        self.operator.clone().expect("this instance has been set up")
    }

    /// A new person, signed in. `role` is `operator`, `user` or `auditor`.
    pub async fn person(&self, name: &str, role: &str) -> Client {
        self.person_by(&self.operator(), name, role).await
    }

    /// The same, added by whom one likes.
    pub async fn person_by(&self, by: &Client, name: &str, role: &str) -> Client {
        let body = json!({"name": name, "role": role});
        let added = by.post("/api/v1/people", &body).await.expect_status(201);
        let added = added.json();
        let body = json!({"secret": added["invitation"]["secret"], "password": PASSWORD});
        let path = "/api/v1/invitations/accept";
        let answer = self.anonymous().post(path, &body).await.expect_status(201);
        self.anonymous().with_cookies_of(&answer)
    }

    /// Signs in by name.
    pub async fn sign_in(&self, name: &str, password: &str) -> Answer {
        let body = json!({"name": name, "password": password});
        self.anonymous().post("/api/v1/sessions", &body).await
    }

    /// A new setup secret from the root socket.
    pub async fn setup_secret(&self) -> String {
        let answer = self.root().post("/api/v1/setup/secret", &json!(null)).await;
        let answer = answer.expect_status(201).json();
        answer["secret"].as_str().expect("there is a secret").to_owned()
    }

    /// Becomes the first operator.
    pub async fn set_up(&self, name: &str) -> Client {
        let secret = self.setup_secret().await;
        let body = json!({"secret": secret, "name": name, "password": PASSWORD});
        let answer = self.anonymous().post("/api/v1/setup", &body).await.expect_status(201);
        self.anonymous().with_cookies_of(&answer)
    }

    /// Starts the supervisor and waits until it listens.
    pub async fn start_supervisor(&self) {
        let socket = self.run_dir().join("supervisor.sock");
        let before = modified(&socket);
        let mut command = self.command(&programs::berth_runtime(), "supervisor.log");
        command.args(["supervise", "--config"]).arg(self.config_path());
        *self.supervisor.lock().expect("not poisoned") =
            Some(command.spawn().expect("start the supervisor"));
        let what = "the supervisor listens";
        self.wait_for(what, &self.supervisor, async || modified(&socket) != before).await;
    }

    /// Starts the server, as a user without privilege, and waits until it answers.
    pub async fn start_server(&self) {
        self.spawn_server(&[]);
        let client = self.anonymous();
        self.wait_for("the server answers", &self.server, async || {
            let answer = client.raw("GET", "/healthz").send().await;
            answer.is_ok_and(|answer| answer.status() == 200)
        })
        .await;
    }

    /// Starts the server and waits until it answers, or has ended; then with which status.
    pub async fn try_start_server(&self) -> Option<std::process::ExitStatus> {
        self.try_start_server_by(&[]).await
    }

    /// The same, run by another program (a tracer) as root.
    pub async fn try_start_server_by(&self, by: &[&str]) -> Option<std::process::ExitStatus> {
        self.spawn_server(by);
        let client = self.anonymous();
        let deadline = Instant::now() + LIMIT;
        loop {
            let mut server = self.server.lock().expect("not poisoned").take();
            let ended =
                server.as_mut().and_then(|child| child.try_wait().expect("look at a child"));
            if ended.is_some() {
                return ended;
            }
            *self.server.lock().expect("not poisoned") = server;
            let answer = client.raw("GET", "/healthz").send().await;
            if answer.is_ok_and(|answer| answer.status() == 200) {
                return None;
            }
            assert!(Instant::now() < deadline, "neither answers nor ends\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// Spawns the server as a user without privilege, or a program that does so.
    fn spawn_server(&self, by: &[&str]) {
        let berth = programs::berth();
        let mut command =
            self.command(by.first().map_or(berth.as_path(), |by| Path::new(by)), "server.log");
        if let Some((_, arguments)) = by.split_first() {
            command.args(arguments).arg(&berth);
        } else if programs::is_root() {
            command.uid(SERVER_USER.1).gid(SERVER_USER.2);
        }
        command.arg("--config").arg(self.config_path()).arg("serve");
        *self.server.lock().expect("not poisoned") =
            Some(command.spawn().expect("start the server"));
    }

    /// Begins the server's log anew.
    pub fn clear_server_log(&self) {
        fs::write(self.dir.join("server.log"), "").expect("empty a log");
    }

    /// Kills the server at once.
    pub fn kill_server(&self) {
        end(&self.server, Signal::SIGKILL);
    }

    /// Stops the server as the service manager would.
    pub fn stop_server(&self) {
        end(&self.server, Signal::SIGTERM);
    }

    /// Kills the supervisor at once.
    pub fn kill_supervisor(&self) {
        end(&self.supervisor, Signal::SIGKILL);
    }

    /// Whether the server, started before, has ended.
    pub fn server_has_ended(&self) -> bool {
        has_ended(&self.server)
    }

    /// Whether the supervisor, started before, has ended.
    pub fn supervisor_has_ended(&self) -> bool {
        has_ended(&self.supervisor)
    }

    /// Ends everything at once, as a power cut does, and takes away what only a kernel remembers.
    pub fn cut_power(&self) {
        self.kill_server();
        self.kill_supervisor();
        remove_cgroups(&self.instance);
        remove_links(&self.instance);
        remove_tables(&self.instance);
        unmount_disks(&self.run_dir());
        fs::remove_dir_all(self.run_dir()).expect("remove the run directory");
        fs::create_dir_all(self.run_dir().join("server")).expect("make the run directory");
    }

    /// The server's process id.
    pub fn server_pid(&self) -> Option<u32> {
        self.server.lock().expect("not poisoned").as_ref().map(Child::id)
    }

    /// The supervisor's process id.
    pub fn supervisor_pid(&self) -> Option<u32> {
        self.supervisor.lock().expect("not poisoned").as_ref().map(Child::id)
    }

    /// The process ids of the monitors that live.
    pub fn monitors(&self) -> Vec<u32> {
        crate::reality::monitors(&self.instance)
    }

    /// The server's log until now.
    pub fn server_log(&self) -> String {
        fs::read_to_string(self.dir.join("server.log")).unwrap_or_default()
    }

    fn command(&self, program: &Path, log: &str) -> Command {
        let log = fs::OpenOptions::new()
            .create(true)
            .append(true)
            .open(self.dir.join(log))
            .expect("open a log");
        let mut command = Command::new(program);
        // Nothing of the tests' environment may configure the instance.
        command.env_clear().env("PATH", std::env::var_os("PATH").unwrap_or_default());
        command.stdin(Stdio::null()).stderr(log.try_clone().expect("share the log")).stdout(log);
        command
    }

    fn config(&self, options: &Options, number: u32) -> String {
        let seed = std::process::id().wrapping_mul(7).wrapping_add(number);
        // Sixteen ranges of 65,536 ids for each instance, out of the product's own block; for many people sixty-four
        // below it.
        let (id_first, ranges) = match options.many_people {
            false => (2_000_224_256 + (seed % 140) * 16 * 65_536, 16),
            true => (1_000_013_824 + (seed % 100) * 64 * 65_536, 64),
        };
        let [.., high, low] = seed.to_be_bytes();
        let (pool, whole) = match options.many_people {
            false => (Ipv4Addr::new(10, 64 + high % 64, low, 0), 24),
            true => (Ipv4Addr::new(10, 128 + high % 64, low & 0xfc, 0), 22),
        };
        let prefix = if options.one_subnet { 24 } else { 28 };
        // Instances that run side by side share the host's ports, too; above are those that the kernel gives.
        let port = 20_000 + (seed % 400) * 30;
        let network = format!(
            "network_pool = \"{pool}/{whole}\"\nnetwork_prefix = {prefix}\nport_first = {port}\n\
             port_last = {}",
            port + 29
        );
        format!(
            "[server]
listen = {listen:?}
log = \"{log}\"
{server}
\
             [runtime]
instance = \"{instance}\"
data_dir = \"{data}\"
run_dir = \"{run}\"
\
             server_user = \"{user}\"
id_first = {id_first}
id_last = {id_last}
\
             {network}
{runtime}
{sections}
",
            listen = std::iter::once(self.address.to_string())
                .chain(options.listen_too.iter().cloned())
                .collect::<Vec<_>>(),
            log = options.log.as_deref().unwrap_or("info,berth=debug"),
            server = options.server,
            instance = self.instance,
            data = self.data_dir().display(),
            run = self.run_dir().display(),
            user = SERVER_USER.0,
            id_last = id_first + ranges * 65_536 - 1,
            runtime = options.runtime,
            sections = options.sections,
        )
    }

    /// What the supervisor would make.
    fn make_directories(&self) {
        for (path, mode) in [("db", 0o700), ("store", 0o700)]
            .map(|(name, mode)| (self.data_dir.join(name), mode))
            .into_iter()
            .chain(
                [("server", 0o700), ("local", 0o711)]
                    .map(|(name, mode)| (self.run_dir().join(name), mode)),
            )
        {
            fs::create_dir_all(&path).expect("make a directory");
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("give it its mode");
            if programs::is_root() {
                std::os::unix::fs::chown(&path, Some(SERVER_USER.1), Some(SERVER_USER.2))
                    .expect("give it away");
            }
        }
    }

    async fn wait_for(
        &self,
        what: &str,
        process: &Mutex<Option<Child>>,
        done: impl AsyncFn() -> bool,
    ) {
        let deadline = Instant::now() + LIMIT;
        while !done().await {
            let status = match process.lock().expect("not poisoned").as_mut() {
                Some(child) => child.try_wait().expect("look at a child"),
                None => None,
            };
            assert!(status.is_none(), "{what}: it ended with {status:?}\n{}", self.logs());
            assert!(Instant::now() < deadline, "{what}: not in time\n{}", self.logs());
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    fn logs(&self) -> String {
        let read = |name: &str| fs::read_to_string(self.dir.join(name)).unwrap_or_default();
        format!("--- server\n{}--- supervisor\n{}", read("server.log"), read("supervisor.log"))
    }

    /// Takes away what the kernel and the disk hold of the instance.
    fn clean(&self) {
        let runtime = programs::berth_runtime();
        if programs::is_root() && runtime.exists() {
            remove_cgroups(&self.instance);
            remove_links(&self.instance);
            remove_tables(&self.instance);
        }
        for disk in &self.disks {
            unmount(disk);
        }
        unmount_disks(&self.run_dir());
        drop(fs::remove_dir_all(&self.dir));
    }
}

impl Drop for TestServer {
    fn drop(&mut self) {
        end(&self.server, Signal::SIGTERM);
        end(&self.supervisor, Signal::SIGTERM);
        if std::thread::panicking() {
            let copy = std::env::temp_dir().join(format!("berth-{}.log", self.instance));
            drop(fs::write(&copy, self.logs()));
        }
        self.clean();
    }
}

fn has_ended(process: &Mutex<Option<Child>>) -> bool {
    let mut process = process.lock().expect("not poisoned");
    let child = process.as_mut().expect("it was started");
    child.try_wait().expect("look at a child").is_some()
}

/// Ends a process and waits for it; after ten seconds by force.
fn end(process: &Mutex<Option<Child>>, signal: Signal) {
    let child = process.lock().unwrap_or_else(std::sync::PoisonError::into_inner).take();
    let Some(mut child) = child else { return };
    let pid = Pid::from_raw(i32::try_from(child.id()).expect("a pid fits"));
    // That it has ended by itself is as good.
    kill(pid, signal).ok();
    let deadline = Instant::now() + Duration::from_secs(15);
    while let Ok(None) = child.try_wait() {
        if Instant::now() > deadline {
            drop(child.kill());
        }
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Kills what is in the instance's cgroups and removes them, in every hierarchy.
pub(crate) fn remove_cgroups(instance: &str) {
    let mut roots = vec![PathBuf::from("/sys/fs/cgroup")];
    roots.extend(children(Path::new("/sys/fs/cgroup")));
    let tops: Vec<PathBuf> =
        roots.iter().map(|root| root.join(instance)).filter(|top| top.is_dir()).collect();
    let deadline = Instant::now() + LIMIT;
    while tops.iter().any(|top| top.is_dir()) && Instant::now() < deadline {
        for top in &tops {
            let mut groups = vec![top.clone()];
            let mut next = 0;
            while let Some(group) = groups.get(next) {
                let below = children(group);
                groups.extend(below);
                next += 1;
            }
            for group in groups.iter().rev() {
                kill_all(group);
                // Busy until the last zombie is reaped: the loop comes back.
                drop(fs::remove_dir(group));
            }
        }
        std::thread::sleep(Duration::from_millis(10));
    }
}

fn kill_all(group: &Path) {
    drop(fs::write(group.join("freezer.state"), "THAWED"));
    let pids = fs::read_to_string(group.join("cgroup.procs")).unwrap_or_default();
    for pid in pids.lines().filter_map(|line| line.parse().ok()).filter(|pid| *pid > 1) {
        // Only what the instance started is in its own cgroup.
        kill(Pid::from_raw(pid), Signal::SIGKILL).ok();
    }
}

/// Removes the instance's nftables tables.
pub(crate) fn remove_tables(instance: &str) {
    for table in [instance.to_owned(), format!("{instance}_ports"), format!("{instance}_rates")] {
        run("nft", &["delete", "table", "inet", &table]);
    }
}

pub(crate) fn remove_links(instance: &str) {
    let prefix = format!("{instance}-");
    for link in children(Path::new("/sys/class/net")) {
        let name = link.file_name().unwrap_or_default().to_string_lossy().into_owned();
        if name.starts_with(&prefix) {
            run("ip", &["link", "delete", &name]);
        }
    }
}

/// Runs a command whose failure means that there was nothing to remove.
pub(crate) fn run(program: &str, arguments: &[&str]) {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null());
    drop(command.status());
}

fn children(path: &Path) -> Vec<PathBuf> {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    entries.map(|entry| entry.path()).filter(|path| path.is_dir()).collect()
}

fn modified(path: &Path) -> Option<(std::time::SystemTime, u64)> {
    use std::os::unix::fs::MetadataExt;
    let found = fs::metadata(path).ok()?;
    Some((found.modified().ok()?, found.ino()))
}

/// `t`, the process in base 36, and a number: at most eight characters, and no other test's.
pub(crate) fn instance_name(number: u32) -> String {
    let mut digits = Vec::new();
    let mut left = u64::from(std::process::id()) * 100 + u64::from(number % 100);
    while left > 0 {
        digits.push(char::from_digit((left % 36) as u32, 36).expect("a digit of base 36"));
        left /= 36;
    }
    format!("t{}", digits.iter().rev().collect::<String>())
}

/// A loopback address with a port that nobody uses now.
pub fn free_address() -> SocketAddr {
    let socket = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("find a free port");
    socket.local_addr().expect("a bound socket has an address")
}
