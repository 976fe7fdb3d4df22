//! I12: a TLS connection that is cut at byte k of what the registry sends: handshake, head or body.

use std::io::{Read, Write};
use std::net::{Shutdown, TcpStream};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, PrivateKeyDer};
use rustls::{ServerConfig, ServerConnection, StreamOwned};
use system_tests::{Check, Options, TestServer, requires_root, sample};

use super::faulty::{Fault, Faulty, Place};
use super::registry::{Authority, Image, RATES, pull};

/// A connection that sends so many bytes and no more.
struct Cut {
    stream: TcpStream,
    left: usize,
}

impl Read for Cut {
    fn read(&mut self, out: &mut [u8]) -> std::io::Result<usize> {
        self.stream.read(out)
    }
}

impl Write for Cut {
    fn write(&mut self, bytes: &[u8]) -> std::io::Result<usize> {
        let count = bytes.len().min(self.left);
        let sent = self.stream.write(&bytes[..count])?;
        self.left -= sent;
        if self.left == 0 {
            self.stream.shutdown(Shutdown::Both)?;
            return Err(std::io::Error::other("cut"));
        }
        Ok(sent)
    }

    fn flush(&mut self) -> std::io::Result<()> {
        self.stream.flush()
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn i12_tls_may_be_cut_at_any_byte() {
    requires_root!();
    let authority = Authority::new(&["localhost"]);
    rustls::crypto::ring::default_provider().install_default().ok();
    let chain = CertificateDer::pem_file_iter(&authority.certificate).expect("the certificate");
    let chain: Vec<_> = chain.map(|one| one.expect("a certificate")).collect();
    let key = PrivateKeyDer::from_pem_file(&authority.key).expect("the key");
    let config = ServerConfig::builder().with_no_client_auth().with_single_cert(chain, key);
    let config = Arc::new(config.expect("a pair that fits"));
    let after = Arc::new(AtomicUsize::new(usize::MAX));
    let limit = Arc::clone(&after);
    let registry = Faulty::start_behind("localhost", move |stream| {
        let connection = ServerConnection::new(Arc::clone(&config)).expect("a connection");
        StreamOwned::new(connection, Cut { stream, left: limit.load(Ordering::SeqCst) })
    });
    let sections = format!(
        "[registries]\ninternal = [\"{}\"]\nca_file = \"{}\"\nstall_secs = 2\n{RATES}",
        registry.address,
        authority.ca.display()
    );
    let server = TestServer::with(Options { sections, ..Options::default() }).await;
    let anna = server.person("anna", "user").await;
    // A handshake is some 1,000 bytes, the largest answer some 5,000.
    let all: Vec<usize> = (0..6_000).step_by(17).collect();
    let mut failed = 0;
    for (number, at) in sample(&all, 8).into_iter().enumerate() {
        let name = format!("tls{number}");
        let image = Image::small(&name);
        registry.host(&name, image, Place::Challenge, Fault::Mute, 0);
        let reference = format!("{}/{name}:v1", registry.address);
        after.store(at.max(1), Ordering::SeqCst);
        let done = pull(&anna, &reference).await;
        after.store(usize::MAX, Ordering::SeqCst);
        let variant = format!("TLS cut at byte {at}");
        let word = match (done["state"].as_str(), done["failure"]["code"].as_str()) {
            (Some("failed"), Some("registry.unreachable" | "registry.broken")) => "ends",
            (Some("succeeded"), _) => "ends",
            _ => "otherwise",
        };
        failed += usize::from(done["state"] == "failed");
        Check { id: "I12", variant: &variant, control: "uncut, the same pull succeeds" }
            .sees("ends", if word == "ends" { word.to_owned() } else { done.to_string() });
        let healed = pull(&anna, &reference).await;
        assert_eq!(healed["state"], "succeeded", "uncut: {healed}");
    }
    assert!(failed > 0, "no cut made a difference");
}
