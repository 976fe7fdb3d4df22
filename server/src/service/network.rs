//! How this server can be reached, with which certificate, and which of its settings are risky.

use serde::Serialize;
use utoipa::ToSchema;

use crate::app::App;
use crate::clock::Time;
use crate::risks::{self, Risk};

/// How this server can be reached.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct NetworkState {
    /// The addresses that it listens on, as URLs.
    pub listen: Vec<String>,
    /// The host names that it answers to, loopback ones aside.
    pub hosts: Vec<String>,
    /// The proxies whose word it takes.
    pub trusted_proxies: Vec<String>,
    /// The certificate, where TLS is spoken.
    pub certificate: Option<CertificateState>,
    /// Risky settings, warnings first.
    pub risks: Vec<Risk>,
}

/// The certificate that is served.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct CertificateState {
    /// SHA-256 of it, as browsers show it.
    pub fingerprint_sha256: String,
    /// Whether Berth made it.
    pub generated: bool,
    /// Host names that it is good for.
    pub names: Vec<String>,
    /// Addresses that it is good for.
    pub addresses: Vec<String>,
    /// From then.
    pub not_before: Time,
    /// Until then.
    pub not_after: Time,
    /// A newer one that was refused, so that this one stayed.
    pub refused: Option<RefusedCertificate>,
}

/// A certificate that was not taken.
#[derive(Debug, Clone, Serialize, ToSchema)]
pub struct RefusedCertificate {
    /// When it was looked at.
    pub at: Time,
    /// What is wrong with it.
    pub why: String,
}

/// The state now.
pub fn state(app: &App) -> NetworkState {
    let server = &app.config.server;
    let facts = app.tls.as_ref().map(|tls| tls.facts());
    let risks = risks::list(&app.config, facts.as_ref());
    let mut hosts = server.hosts.clone();
    hosts.extend(facts.iter().flat_map(|facts| facts.names.clone()));
    hosts.retain(|name| name != "localhost" && !name.contains('*'));
    hosts.sort();
    hosts.dedup();
    let certificate = app.tls.as_ref().map(|tls| {
        let facts = tls.facts();
        CertificateState {
            fingerprint_sha256: facts.fingerprint,
            generated: tls.is_generated(),
            names: facts.names,
            addresses: facts.addresses.iter().map(ToString::to_string).collect(),
            not_before: facts.not_before,
            not_after: facts.not_after,
            refused: tls
                .refused()
                .map(|refused| RefusedCertificate { at: refused.at, why: refused.why }),
        }
    });
    NetworkState {
        listen: server.listen.addresses().iter().map(|address| address.url()).collect(),
        hosts,
        trusted_proxies: server.trusted_proxies.iter().map(|proxy| proxy.0.to_string()).collect(),
        certificate,
        risks,
    }
}
