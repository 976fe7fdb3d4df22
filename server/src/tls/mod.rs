//! TLS: the certificate that is served, where it comes from, and how a new one takes its place
//! without a restart.
//!
//! Invariants: TLS 1.2 or newer, by rustls; a pair that is not whole, does not fit or is over never
//! takes the place of a good one, but is logged once and shown to operators; connections that are
//! open keep what they began with.

mod generated;
pub mod x509;

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, PoisonError, RwLock};
use std::time::Duration;

use anyhow::{Context as _, Result, bail, ensure};
use rustls::ServerConfig;
use rustls::pki_types::pem::PemObject as _;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::server::{ClientHello, ResolvesServerCert};
use rustls::sign::CertifiedKey;
use tokio::time::{MissedTickBehavior, interval};
use tokio_util::sync::CancellationToken;

use crate::clock::Time;
use crate::config::Config;
use generated::Wanted;
use x509::Facts;

/// How often the files are looked at.
const WATCH_PERIOD: Duration = Duration::from_secs(5);
/// A certificate chain or key is no longer than this.
const FILE_BYTES_MAX: u64 = 256 * 1024;
/// Certificate and key that Berth made, beside the inventory.
const GENERATED_FILE: &str = "tls-generated.pem";

/// What is served and where it comes from.
pub struct Tls {
    source: Source,
    serving: RwLock<Arc<Serving>>,
    refused: Mutex<Option<Refused>>,
}

/// A pair that did not take the place of the one that is served.
#[derive(Debug, Clone)]
pub struct Refused {
    /// When it was looked at.
    pub at: Time,
    /// What is wrong, with the files' names.
    pub why: String,
}

enum Source {
    Own { certificate: PathBuf, key: PathBuf },
    Generated { path: PathBuf, wanted: Wanted },
}

struct Serving {
    key: Arc<CertifiedKey>,
    facts: Facts,
    stamps: Stamps,
}

/// What tells two versions of the files apart without reading them.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Stamps([Option<Stamp>; 2]);

/// Device, inode, time of change in seconds and nanoseconds, size.
type Stamp = (u64, u64, i64, i64, u64);

impl Tls {
    /// Reads the operator's pair, or the generated one, which is made when there is none that does.
    ///
    /// # Errors
    /// When no pair can be served: what is wrong with it and what to do.
    pub fn open(config: &Config) -> Result<Self> {
        let source = match config.tls.own() {
            true => Source::Own {
                certificate: config.tls.certificate.clone(),
                key: config.tls.key.clone(),
            },
            false => Source::Generated {
                path: config.db_dir().join(GENERATED_FILE),
                wanted: Wanted::of(config),
            },
        };
        let serving = match &source {
            Source::Own { .. } => source.load()?,
            Source::Generated { path, wanted } => match source.load() {
                Ok(serving) if wanted.met_by(&serving.facts) => serving,
                _ => {
                    generated::make(path, wanted).context("make a certificate")?;
                    source.load()?
                }
            },
        };
        let tls =
            Self { source, serving: RwLock::new(Arc::new(serving)), refused: Mutex::new(None) };
        if let Err(error) = in_force(&tls.facts()) {
            // Better a warning in the browser than an appliance that is gone after a reboot.
            tracing::error!(error = %error, "the TLS certificate is served all the same");
        }
        Ok(tls)
    }

    /// What a listener needs.
    ///
    /// # Errors
    /// When rustls knows none of the versions.
    pub fn acceptor(self: &Arc<Self>) -> tokio_rustls::TlsAcceptor {
        let versions = [&rustls::version::TLS13, &rustls::version::TLS12];
        let mut config = ServerConfig::builder_with_protocol_versions(&versions)
            .with_no_client_auth()
            .with_cert_resolver(Arc::new(Resolver(self.clone())));
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        Arc::new(config).into()
    }

    /// What the served certificate says.
    pub fn facts(&self) -> Facts {
        self.serving().facts.clone()
    }

    /// Whether Berth made it.
    pub fn is_generated(&self) -> bool {
        matches!(self.source, Source::Generated { .. })
    }

    /// The newest pair, if it was refused.
    pub fn refused(&self) -> Option<Refused> {
        self.refused.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Whether a browser may open this server by `name`: the certificate says so. Wildcards are left
    /// out, since what they cover is more than this server.
    pub fn has_name(&self, name: &str) -> bool {
        !name.contains('*') && self.serving().facts.names.iter().any(|own| own == name)
    }

    /// Looks at the files, and takes a new pair if it is good.
    pub fn reload(&self) {
        let stamps = self.source.stamps();
        let outcome = self.renew().and_then(|()| self.source.load()).and_then(|new| {
            in_force(&new.facts)?;
            Ok(new)
        });
        match outcome {
            Ok(new) => {
                let fingerprint = new.facts.fingerprint.clone();
                let changed = fingerprint != self.facts().fingerprint;
                *self.serving.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(new);
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = None;
                if changed {
                    tracing::info!(fingerprint, "serving a new TLS certificate");
                }
            }
            Err(error) => {
                let why = format!("{error:#}");
                tracing::error!(
                    error = why,
                    "a new TLS certificate was refused; the old one stays"
                );
                let refused = Refused { at: Time::now(), why };
                *self.refused.lock().unwrap_or_else(PoisonError::into_inner) = Some(refused);
                self.looked_at(stamps);
            }
        }
    }

    /// Looks at the files now and then until the server stops. A change is taken when it has stood
    /// for one period: of two files, one is written first.
    pub async fn watch(self: Arc<Self>, stopping: CancellationToken) {
        let mut ticks = interval(WATCH_PERIOD);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut before = self.source.stamps();
        loop {
            tokio::select! {
                _ = ticks.tick() => {}
                () = stopping.cancelled() => return,
            }
            let now = self.source.stamps();
            let settled = now == before && now != self.serving().stamps;
            if settled || self.is_due() {
                self.reload();
            }
            before = now;
        }
    }

    fn serving(&self) -> Arc<Serving> {
        self.serving.read().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Notes that these versions of the files are known, so that each is judged once.
    fn looked_at(&self, stamps: Stamps) {
        let old = self.serving();
        let serving = Serving { key: old.key.clone(), facts: old.facts.clone(), stamps };
        *self.serving.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(serving);
    }

    fn is_due(&self) -> bool {
        match &self.source {
            Source::Own { .. } => false,
            // One that could not be made is tried again with the next change only: it was logged.
            Source::Generated { wanted, .. } => {
                self.refused().is_none() && !wanted.met_by(&self.serving().facts)
            }
        }
    }

    /// Makes a new generated pair when the old one will not do any more.
    fn renew(&self) -> Result<()> {
        match &self.source {
            Source::Generated { path, wanted } if !wanted.met_by(&self.serving().facts) => {
                generated::make(path, wanted).context("make a certificate")
            }
            _ => Ok(()),
        }
    }
}

impl Source {
    fn files(&self) -> [&Path; 2] {
        match self {
            Self::Own { certificate, key } => [certificate, key],
            Self::Generated { path, .. } => [path, path],
        }
    }

    fn stamps(&self) -> Stamps {
        let stamp = |path: &Path| {
            let found = std::fs::metadata(path).ok()?;
            Some((found.dev(), found.ino(), found.mtime(), found.mtime_nsec(), found.size()))
        };
        Stamps(self.files().map(stamp))
    }

    fn load(&self) -> Result<Serving> {
        // Before reading: what changes meanwhile is then seen as a change.
        let stamps = self.stamps();
        let [certificate, key] = self.files();
        let text = read(certificate)?;
        let chain: Result<Vec<CertificateDer<'static>>, _> =
            CertificateDer::pem_slice_iter(&text).collect();
        let shown = certificate.display();
        let chain = chain.with_context(|| format!("{shown} is no certificate in PEM"))?;
        let Some(first) = chain.first() else { bail!("{shown} holds no certificate in PEM") };
        let facts = x509::read(first).with_context(|| format!("{shown} holds no certificate"))?;
        let text = read(key)?;
        let shown = key.display();
        let key = PrivateKeyDer::from_pem_slice(&text)
            .with_context(|| format!("{shown} holds no private key in PEM (without a password)"))?;
        let provider = rustls::crypto::CryptoProvider::get_default()
            .context("find the TLS provider that was chosen at start")?;
        let key = CertifiedKey::from_der(chain, key, provider)
            .with_context(|| format!("{shown} is no key for {}", certificate.display()))?;
        Ok(Serving { key: Arc::new(key), facts, stamps })
    }
}

fn read(path: &Path) -> Result<Vec<u8>> {
    let shown = path.display();
    let found = std::fs::metadata(path).with_context(|| format!("look at {shown}"))?;
    ensure!(found.is_file(), "{shown} is not a file");
    ensure!(found.size() <= FILE_BYTES_MAX, "{shown} is larger than {FILE_BYTES_MAX} bytes");
    std::fs::read(path).with_context(|| {
        format!("read {shown} (the server's user must be allowed to: chgrp berth, chmod 640)")
    })
}

/// What the operator's own certificate says, if there is one and this user may read both files.
///
/// # Errors
/// When the pair cannot be served.
pub fn look(config: &Config) -> Result<Option<Facts>> {
    if !config.tls.own() {
        return Ok(None);
    }
    // That a provider was chosen before is as good.
    rustls::crypto::ring::default_provider().install_default().ok();
    let (certificate, key) = (config.tls.certificate.clone(), config.tls.key.clone());
    Ok(Some(Source::Own { certificate, key }.load()?.facts))
}

/// Whether a certificate holds now.
fn in_force(facts: &Facts) -> Result<()> {
    let now = Time::now();
    ensure!(facts.not_after > now, "the certificate ended at {}", facts.not_after);
    ensure!(facts.not_before <= now, "the certificate begins at {}", facts.not_before);
    Ok(())
}

struct Resolver(Arc<Tls>);

impl std::fmt::Debug for Resolver {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Resolver")
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, _: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        Some(self.0.serving().key.clone())
    }
}
