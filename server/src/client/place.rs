//! Which server, and what makes us believe that it is the one: the system's authorities, one
//! certificate authority, or the fingerprint of its certificate alone.

use std::net::IpAddr;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::crypto::{CryptoProvider, verify_tls12_signature, verify_tls13_signature};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::{CertificateError, ClientConfig, DigitallySignedStruct, Error, SignatureScheme};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};
use url::{Host, Url};

use super::credentials::Kept;
use super::error::Failure;

/// The server when nothing was ever said: Berth's own default on this machine.
pub const LOCAL: &str = "http://127.0.0.1:7777";

/// The socket for users of this machine, where Berth puts it unless its configuration says otherwise.
pub const SOCKET: &str = "/run/berth/local/berth.sock";
/// What is written before a socket's path.
pub const SOCKET_SCHEME: &str = "unix:";

/// What makes a server's certificate good.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trust {
    /// One of the system's certificate authorities has signed it.
    #[default]
    System,
    /// One of these (PEM) has, and no other counts.
    Authority(String),
    /// It has this SHA-256 fingerprint (lower-case hexadecimal digits), whatever else it says.
    Fingerprint(String),
}

/// Reads an address: `https://berth.lab:7443`, `berth.lab:7443`, `127.0.0.1:7777`. Without a scheme,
/// loopback is plain HTTP and all else TLS, as servers listen. Answers scheme, host and port alone.
///
/// # Errors
/// When it is none, or plain HTTP to another machine and `plain` is not allowed.
pub fn parse(text: &str, plain: bool) -> Result<Url, Failure> {
    let wrong = |why: &str| {
        Err(Failure::Usage(format!(
            "the server's address is wrong: {why}; write it like https://berth.lab:7443"
        )))
    };
    let has_scheme = text.contains("://");
    let Ok(mut url) = Url::parse(&if has_scheme { text.into() } else { format!("http://{text}") })
    else {
        return wrong("it is no address");
    };
    if !url.username().is_empty() || url.password().is_some() {
        return wrong("name and password do not belong into it");
    }
    if url.path() != "/" || url.query().is_some() || url.fragment().is_some() {
        return wrong("there is something behind the port");
    }
    let local = is_loopback(&url);
    if !has_scheme && !local && !plain {
        let secure = format!("https://{text}");
        url = Url::parse(&secure).or_else(|_| wrong("it is no address"))?;
    }
    match url.scheme() {
        "https" => Ok(url),
        "http" if local || plain => Ok(url),
        "http" => Err(Failure::Usage(format!(
            "{url} is plain HTTP to another machine: everybody on the way could read the password; \
             use https://, a tunnel (ssh -L), or say --insecure-http"
        ))),
        _ => wrong("only https:// and http:// are known"),
    }
}

/// The address by which a server is kept. Whether plain HTTP may be spoken there was decided at its login.
///
/// # Errors
/// When it is no address.
pub fn known(text: &str, kept: &Kept) -> Result<String, Failure> {
    let plain = origin(&parse(text, true)?);
    if kept.servers.get(&plain).is_some_and(|server| server.insecure_http) {
        return Ok(plain);
    }
    parse(text, false).map(|base| origin(&base))
}

/// Scheme, host and port, as credentials are kept by.
pub fn origin(base: &Url) -> String {
    base.origin().ascii_serialization()
}

/// Whether no other machine is on the way. `localhost` is loopback by RFC 6761, 6.3.
pub fn is_loopback(url: &Url) -> bool {
    match url.host() {
        Some(Host::Ipv4(address)) => IpAddr::V4(address).is_loopback(),
        Some(Host::Ipv6(address)) => IpAddr::V6(address).is_loopback(),
        Some(Host::Domain(name)) => name == "localhost" || name.ends_with(".localhost"),
        None => false,
    }
}

/// A SHA-256 fingerprint, with or without `SHA256:` and colons, as `berth certificate` prints it.
///
/// # Errors
/// When it is none.
pub fn fingerprint(text: &str) -> Result<String, String> {
    let lower = text.trim().to_ascii_lowercase();
    let digits = lower.strip_prefix("sha256:").unwrap_or(&lower).replace(':', "");
    if digits.len() != 64 || !digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Err("a SHA-256 fingerprint is 64 hexadecimal digits".to_owned());
    }
    Ok(digits)
}

/// TLS that takes the one certificate with this fingerprint.
pub fn pinned(fingerprint: &str) -> Result<ClientConfig, Error> {
    let provider = Arc::new(rustls::crypto::ring::default_provider());
    let verifier = Pinned { fingerprint: fingerprint.to_owned(), provider: provider.clone() };
    let config =
        ClientConfig::builder_with_provider(provider).with_safe_default_protocol_versions()?;
    let config = config.dangerous().with_custom_certificate_verifier(Arc::new(verifier));
    Ok(config.with_no_client_auth())
}

/// Names and dates of a pinned certificate say nothing that its fingerprint does not; that the other
/// end holds its key is proved as always.
#[derive(Debug)]
struct Pinned {
    fingerprint: String,
    provider: Arc<CryptoProvider>,
}

impl ServerCertVerifier for Pinned {
    fn verify_server_cert(
        &self,
        certificate: &CertificateDer<'_>,
        _intermediates: &[CertificateDer<'_>],
        _name: &ServerName<'_>,
        _ocsp: &[u8],
        _now: UnixTime,
    ) -> Result<ServerCertVerified, Error> {
        let found = Sha256::digest(certificate);
        let found: String = found.iter().map(|byte| format!("{byte:02x}")).collect();
        if found == self.fingerprint {
            return Ok(ServerCertVerified::assertion());
        }
        Err(CertificateError::ApplicationVerificationFailure.into())
    }

    fn verify_tls12_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls12_signature(message, certificate, signature, known)
    }

    fn verify_tls13_signature(
        &self,
        message: &[u8],
        certificate: &CertificateDer<'_>,
        signature: &DigitallySignedStruct,
    ) -> Result<HandshakeSignatureValid, Error> {
        let known = &self.provider.signature_verification_algorithms;
        verify_tls13_signature(message, certificate, signature, known)
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.provider.signature_verification_algorithms.supported_schemes()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn plain_http_leaves_the_machine_only_when_it_may() {
        let read = |text| parse(text, false).map(String::from).map_err(|error| error.code());
        assert_eq!(read("127.0.0.1:7777").as_deref(), Ok("http://127.0.0.1:7777/"));
        assert_eq!(read("localhost:7777").as_deref(), Ok("http://localhost:7777/"));
        assert_eq!(read("[::1]:7777").as_deref(), Ok("http://[::1]:7777/"));
        assert_eq!(read("berth.lab:7443").as_deref(), Ok("https://berth.lab:7443/"));
        assert_eq!(read("https://127.0.0.1:1").as_deref(), Ok("https://127.0.0.1:1/"));
        for wrong in [
            "http://berth.lab",
            "http://127.0.0.1.evil.lab",
            "http://localhost.evil.lab",
            "http://a:b@127.0.0.1",
            "http://127.0.0.1/x",
            "ftp://127.0.0.1",
            "",
        ] {
            assert_eq!(read(wrong), Err(2), "{wrong}");
        }
        let plain = parse("http://berth.lab", true).map(String::from).map_err(|error| error.code());
        assert_eq!(plain.as_deref(), Ok("http://berth.lab/"));
    }

    #[test]
    fn fingerprints_are_read_as_they_are_printed() {
        let digits = "ab".repeat(32);
        let colons: Vec<&str> = vec!["AB"; 32];
        for text in [digits.clone(), format!("SHA256:{digits}"), colons.join(":")] {
            assert_eq!(fingerprint(&text), Ok(digits.clone()), "{text}");
        }
        assert!(fingerprint("ab").is_err() && fingerprint(&"zz".repeat(32)).is_err());
    }
}
