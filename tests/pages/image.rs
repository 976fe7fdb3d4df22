//! An image of busybox as an OCI layout archive, and a real registry (`docker-registry`) that has it.

use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use sha2::{Digest, Sha256};

/// An image in parts.
pub(crate) struct Image {
    layer: Vec<u8>,
    config: Vec<u8>,
    manifest: Vec<u8>,
}

/// A running registry with the image as `tools/busybox:1`.
pub(crate) struct Registry {
    process: Child,
    dir: PathBuf,
    /// `127.0.0.1:1234`.
    pub(crate) host: String,
}

impl Image {
    /// Of the host's static busybox.
    pub(crate) fn busybox() -> Self {
        Self::saying(json!({
            "config": {"Cmd": ["/bin/sh"], "Env": ["PATH=/bin"]},
            "history": [{"created_by": "busybox for tests"}],
        }))
    }

    /// The same, whose configuration says this of itself.
    pub(crate) fn saying(mut config: Value) -> Self {
        let program = std::fs::read("/usr/bin/busybox").or_else(|_| std::fs::read("/bin/busybox"));
        let program = program.expect("read busybox (Debian package busybox-static)");
        let mut tar = tar::Builder::new(Vec::new());
        for folder in ["bin/", "tmp/", "etc/"] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Directory);
            header.set_mode(0o755);
            header.set_size(0);
            tar.append_data(&mut header, folder, std::io::empty()).expect("add a folder");
        }
        let mut header = tar::Header::new_ustar();
        header.set_mode(0o755);
        header.set_size(program.len() as u64);
        tar.append_data(&mut header, "bin/busybox", program.as_slice()).expect("add busybox");
        for name in ["sh", "sleep", "echo", "cat", "printf"] {
            let mut header = tar::Header::new_ustar();
            header.set_entry_type(tar::EntryType::Symlink);
            header.set_size(0);
            tar.append_link(&mut header, format!("bin/{name}"), "busybox").expect("add a link");
        }
        let layer = tar.into_inner().expect("end the layer");
        config["architecture"] =
            json!(if cfg!(target_arch = "aarch64") { "arm64" } else { "amd64" });
        config["os"] = json!("linux");
        config["rootfs"] = json!({"type": "layers", "diff_ids": [digest(&layer)]});
        let config = serde_json::to_vec(&config).expect("write the config");
        let manifest = json!({
            "schemaVersion": 2,
            "mediaType": "application/vnd.oci.image.manifest.v1+json",
            "config": {
                "mediaType": "application/vnd.oci.image.config.v1+json",
                "digest": digest(&config), "size": config.len(),
            },
            "layers": [{
                "mediaType": "application/vnd.oci.image.layer.v1.tar",
                "digest": digest(&layer), "size": layer.len(),
            }],
        });
        let manifest = serde_json::to_vec(&manifest).expect("write the manifest");
        Self { layer, config, manifest }
    }

    /// As an archive of an OCI layout, called `name`.
    pub(crate) fn archive(&self, name: &str) -> Vec<u8> {
        let index = json!({
            "schemaVersion": 2,
            "manifests": [{
                "mediaType": "application/vnd.oci.image.manifest.v1+json",
                "digest": digest(&self.manifest), "size": self.manifest.len(),
                "annotations": {
                    "io.containerd.image.name": name, "org.opencontainers.image.ref.name": name,
                },
            }],
        });
        let mut tar = tar::Builder::new(Vec::new());
        let mut add = |path: String, bytes: &[u8]| {
            let mut header = tar::Header::new_ustar();
            header.set_mode(0o644);
            header.set_size(bytes.len() as u64);
            tar.append_data(&mut header, path, bytes).expect("add a file");
        };
        add("oci-layout".into(), br#"{"imageLayoutVersion":"1.0.0"}"#);
        add("index.json".into(), &serde_json::to_vec(&index).expect("write the index"));
        for bytes in [&self.layer, &self.config, &self.manifest] {
            let name = digest(bytes).replace(':', "/");
            add(format!("blobs/{name}"), bytes);
        }
        tar.into_inner().expect("end the archive")
    }
}

impl Registry {
    /// Starts a registry and pushes the image.
    pub(crate) async fn start(image: &Image) -> Self {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("find a free port");
        let host = listener.local_addr().expect("know it").to_string();
        drop(listener);
        let port = host.rsplit(':').next().unwrap_or_default();
        let dir =
            std::env::temp_dir().join(format!("berth-registry-{}-{port}", std::process::id()));
        std::fs::create_dir_all(&dir).expect("make the registry's folder");
        let config = format!(
            "version: 0.1\nstorage:\n  filesystem:\n    rootdirectory: {}\nhttp:\n  addr: {host}\n",
            dir.join("data").display()
        );
        let path = dir.join("config.yml");
        std::fs::write(&path, config).expect("write the registry's configuration");
        let process = Command::new("docker-registry")
            .arg("serve")
            .arg(&path)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .expect("start docker-registry (Debian package docker-registry)");
        let this = Self { process, dir, host };
        this.push(image).await;
        this
    }

    async fn push(&self, image: &Image) {
        let http = system_tests::client::builder().build().expect("build a client");
        let base = format!("http://{}/v2/tools/busybox", self.host);
        let deadline = Instant::now() + Duration::from_secs(20);
        let ping = format!("http://{}/v2/", self.host);
        while !http.get(&ping).send().await.is_ok_and(|answer| answer.status().is_success()) {
            assert!(Instant::now() < deadline, "the registry is not ready in time");
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        for bytes in [&image.layer, &image.config] {
            let begun = http.post(format!("{base}/blobs/uploads/")).send().await;
            let begun = begun.expect("begin an upload");
            let place = begun.headers().get("location").expect("an upload has a place");
            let place = place.to_str().expect("a place is text");
            let glue = if place.contains('?') { '&' } else { '?' };
            let url = format!("{place}{glue}digest={}", digest(bytes));
            let put = http.put(url).header("content-type", "application/octet-stream");
            let put = put.body((*bytes).clone()).send().await.expect("push a blob");
            assert_eq!(put.status(), 201);
        }
        let kind = "application/vnd.oci.image.manifest.v1+json";
        let put = http.put(format!("{base}/manifests/1")).header("content-type", kind);
        let put = put.body(image.manifest.clone()).send().await.expect("push the manifest");
        assert_eq!(put.status(), 201);
    }
}

impl Drop for Registry {
    fn drop(&mut self) {
        drop(self.process.kill());
        drop(self.process.wait());
        drop(std::fs::remove_dir_all(&self.dir));
    }
}

/// A value's field as text.
pub(crate) fn text<'a>(value: &'a Value, key: &str) -> &'a str {
    value[key].as_str().unwrap_or_else(|| panic!("{value} has no {key}"))
}

fn digest(bytes: &[u8]) -> String {
    let hash = Sha256::digest(bytes);
    let digits: String = hash.iter().map(|byte| format!("{byte:02x}")).collect();
    format!("sha256:{digits}")
}
