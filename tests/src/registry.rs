//! Debian's own `docker-registry` on a loopback port, and images pushed to it with skopeo.

use std::fs;
use std::net::{SocketAddr, TcpStream};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use crate::instance::free_address;

const LIMIT: Duration = Duration::from_secs(30);

/// A running registry; it and its files end with the value.
#[derive(Debug)]
pub struct DockerRegistry {
    /// Where it listens.
    pub address: SocketAddr,
    dir: PathBuf,
    child: Child,
}

impl DockerRegistry {
    /// Starts one that asks nobody who they are.
    pub fn start() -> Self {
        let address = free_address();
        let dir = std::env::temp_dir().join(format!("berth-registry-{}", address.port()));
        fs::create_dir_all(&dir).expect("make the registry's directory");
        let config = format!(
            "version: 0.1\nlog: {{level: error}}\nhttp: {{addr: {address}}}\n\
             storage: {{filesystem: {{rootdirectory: {}}}}}\n",
            dir.join("content").display()
        );
        let file = dir.join("config.yml");
        fs::write(&file, config).expect("write the registry's configuration");
        let mut command = Command::new("docker-registry");
        command.arg("serve").arg(&file).stdout(Stdio::null()).stderr(Stdio::null());
        let child = command.spawn().expect("start docker-registry");
        let begun = Instant::now();
        while TcpStream::connect(address).is_err() {
            assert!(begun.elapsed() < LIMIT, "docker-registry does not listen");
            std::thread::sleep(Duration::from_millis(20));
        }
        Self { address, dir, child }
    }

    /// Lines for a server's configuration that allow it.
    pub fn section(&self) -> String {
        format!("[registries]\ninsecure = [\"{}\"]\n", self.address)
    }

    /// Pushes a `docker save` archive as `name`; answers what to pull.
    pub fn push(&self, archive: &[u8], name: &str) -> String {
        let file = self.dir.join("pushed.tar");
        fs::write(&file, archive).expect("write an archive");
        let reference = format!("{}/{name}", self.address);
        let output = Command::new("skopeo")
            .args(["copy", "--insecure-policy", "--dest-tls-verify=false"])
            .arg(format!("docker-archive:{}", file.display()))
            .arg(format!("docker://{reference}"))
            .output()
            .expect("run skopeo");
        assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
        reference
    }
}

impl Drop for DockerRegistry {
    fn drop(&mut self) {
        drop(self.child.kill());
        drop(self.child.wait());
        drop(fs::remove_dir_all(&self.dir));
    }
}
