//! Whether a registry answers: one request to `/v2/`, without credentials, over the transport of
//! every pull.

use std::time::{Duration, Instant};

use reqwest::Method;
use reqwest::header::HeaderMap;
use url::Url;

use super::outbound::Outbound;
use super::policy::RegistriesConfig;
use crate::error::{Error, Result};

/// An answer later than this is none.
const ANSWER_TIMEOUT: Duration = Duration::from_secs(10);

/// What a registry said.
#[derive(Debug, Clone, Copy)]
pub struct Said {
    /// The HTTP status.
    pub status: u16,
    /// How long it took.
    pub elapsed: Duration,
}

/// Asks `registry` (as in references) for `/v2/` (OCI distribution, "Determining Support").
///
/// # Errors
/// When it may not be asked, or does not answer.
pub async fn ask(config: &RegistriesConfig, registry: &str) -> Result<Said> {
    let outbound = Outbound::new(config)?;
    let policy = outbound.policy();
    policy.check_registry(registry)?;
    let endpoint = match registry {
        "docker.io" => "registry-1.docker.io",
        other => other,
    };
    let wrong = || Error::invalid("image.reference", format!("{registry:?} is no registry"));
    let url = format!("{}://{endpoint}/v2/", policy.scheme(endpoint));
    let url = Url::parse(&url).map_err(|_| wrong())?;
    let started = Instant::now();
    let headers = HeaderMap::new();
    let answer = tokio::time::timeout(ANSWER_TIMEOUT, outbound.send(&Method::GET, url, &headers));
    match answer.await {
        Ok(answer) => Ok(Said { status: answer?.status().as_u16(), elapsed: started.elapsed() }),
        Err(_late) => {
            let text = format!("{registry} did not answer within {} s", ANSWER_TIMEOUT.as_secs());
            Err(Error::unavailable("registry.unreachable", text))
        }
    }
}
