//! Certificates that are made for a test: an authority, and pairs that it vouches for.

use std::fs;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::PathBuf;
use std::sync::atomic::{AtomicU32, Ordering};

use crate::client::builder;
use crate::{Client, Options};
use rcgen::{
    BasicConstraints, CertificateParams, DistinguishedName, DnType, IsCa, Issuer, KeyPair,
};

/// The user that the server runs as in tests.
const SERVER_USER: u32 = 65_534;

static MADE: AtomicU32 = AtomicU32::new(0);

/// An authority, and a folder with the pair that is configured.
pub struct Authority {
    issuer: Issuer<'static, KeyPair>,
    certificate: rcgen::Certificate,
    dir: PathBuf,
}

/// A pair in PEM.
pub struct Pair {
    /// The certificate.
    pub certificate: String,
    /// Its key.
    pub key: String,
}

impl Authority {
    /// One that nobody has heard of yet.
    #[expect(clippy::new_without_default, reason = "each is another one")]
    pub fn new() -> Self {
        let number = MADE.fetch_add(1, Ordering::Relaxed);
        let dir = std::env::temp_dir().join(format!("berth-tls-{}-{number}", std::process::id()));
        fs::create_dir_all(&dir).expect("make a folder");
        fs::set_permissions(&dir, fs::Permissions::from_mode(0o755)).expect("open it");
        let mut params = CertificateParams::default();
        let mut name = DistinguishedName::new();
        name.push(DnType::CommonName, "an authority of a test's");
        params.distinguished_name = name;
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        let key = KeyPair::generate().expect("a key");
        let certificate = params.self_signed(&key).expect("a certificate");
        Self { issuer: Issuer::new(params, key), certificate, dir }
    }

    /// A pair for these names, good from `year` on for two years.
    pub fn pair(&self, names: &[&str], year: i32) -> Pair {
        let names: Vec<String> = names.iter().map(|name| (*name).to_owned()).collect();
        let mut params = CertificateParams::new(names).expect("good names");
        params.not_before = rcgen::date_time_ymd(year, 1, 1);
        params.not_after = rcgen::date_time_ymd(year + 2, 1, 1);
        let key = KeyPair::generate().expect("a key");
        let made = params.signed_by(&key, &self.issuer).expect("a certificate");
        Pair { certificate: made.pem(), key: key.serialize_pem() }
    }

    /// A pair that is good now.
    pub fn good(&self, names: &[&str]) -> Pair {
        self.pair(names, this_year())
    }

    /// Its own certificate in a file, as people are given it.
    pub fn authority_path(&self) -> PathBuf {
        let path = self.dir.join("authority.pem");
        put(&path, &self.certificate.pem(), 0o644);
        path
    }

    /// Where the pair's certificate is.
    pub fn certificate_path(&self) -> PathBuf {
        self.dir.join("chain.pem")
    }

    /// Where the pair's key is.
    pub fn key_path(&self) -> PathBuf {
        self.dir.join("key.pem")
    }

    /// Puts a pair where the configuration says.
    pub fn install(&self, pair: &Pair) {
        put(&self.certificate_path(), &pair.certificate, 0o644);
        put(&self.key_path(), &pair.key, 0o600);
    }

    /// The section that names the pair, and more lines of it.
    pub fn section(&self, more: &str) -> String {
        let (certificate, key) = (self.certificate_path(), self.key_path());
        format!("[tls]\ncertificate = {certificate:?}\nkey = {key:?}\n{more}\n")
    }

    /// Nobody, by a client that trusts this authority and no other, and finds `name` on loopback.
    pub fn client(&self, name: &str, address: std::net::SocketAddr) -> Client {
        trusting(self.certificate.der(), name, address)
    }
}

impl Drop for Authority {
    fn drop(&mut self) {
        drop(fs::remove_dir_all(&self.dir));
    }
}

/// Nobody, by a client that trusts one certificate (in DER).
pub fn trusting(certificate: &[u8], name: &str, address: std::net::SocketAddr) -> Client {
    let trusted = reqwest::Certificate::from_der(certificate).expect("a certificate");
    let http = builder()
        .tls_certs_only([trusted])
        .tls_info(true)
        .resolve(name, address)
        .redirect(reqwest::redirect::Policy::none())
        .build()
        .expect("build a client");
    Client::over(http, &format!("https://{name}:{}", address.port()))
}

/// Written beside and renamed, as careful programs do.
pub fn put(path: &std::path::Path, text: &str, mode: u32) {
    let temporary = path.with_extension("tmp");
    fs::write(&temporary, text).expect("write a file");
    fs::set_permissions(&temporary, fs::Permissions::from_mode(mode)).expect("set its mode");
    chown(&temporary, Some(SERVER_USER), Some(SERVER_USER)).expect("give it away");
    fs::rename(&temporary, path).expect("name it");
}

/// The year, as good as certificates need it.
pub fn this_year() -> i32 {
    let since = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH);
    let days = since.expect("the clock is after 1970").as_secs() / 86_400;
    // Within a day of the true one, which is all that these certificates need.
    1970 + i32::try_from(days * 10_000 / 3_652_425).expect("a year")
}

/// An instance that also listens with TLS at `address`.
pub fn with_tls(address: std::net::SocketAddr, server: &str, sections: String) -> Options {
    Options {
        listen_too: vec![format!("https://{address}")],
        server: server.to_owned(),
        sections,
        no_supervisor: true,
        ..Options::default()
    }
}
