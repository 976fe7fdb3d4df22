//! `berth login` and `berth logout`: a password becomes a token of limited scope and life, which is all
//! that is kept; and that token ends at the server, not only here.

use std::time::Duration;

use clap::{Args, ValueEnum};
use reqwest::Method;
use serde_json::{Value, json};

use super::api::{Api, CALL_TIMEOUT, Proof};
use super::credentials::{Credential, Kept, Store};
use super::error::{Failure, Outcome};
use super::output::{say, tell};
use super::place::{self, Trust};
use super::terminal::{Ends, ask, ask_secret, read_secret};
use super::{Server, harmless};

/// A certificate authority's file at most.
const AUTHORITY_BYTES_MAX: usize = 1 << 20;
/// How long the first answer of a server may take.
const GREETING_TIMEOUT: Duration = Duration::from_secs(5);

/// What `login` takes.
#[derive(Args)]
pub struct LoginArgs {
    /// The server's address, such as https://berth.lab:7443; this machine's if nothing is said.
    server: Option<String>,
    /// Your name there; asked for if nothing is said.
    #[arg(short, long)]
    user: Option<String>,
    /// Read the password from the first line of the standard input.
    #[arg(long)]
    password_stdin: bool,
    /// A code of your second factor, or a recovery code; asked for if nothing is said and one is needed.
    #[arg(long)]
    code: Option<String>,
    /// Believe certificates of the authority in this PEM file, and no others.
    #[arg(long, value_name = "FILE", conflicts_with = "fingerprint")]
    ca: Option<std::path::PathBuf>,
    /// Believe the certificate with this SHA-256 fingerprint (`berth certificate` prints it), and no other.
    #[arg(long, value_name = "SHA256", value_parser = place::fingerprint)]
    fingerprint: Option<String>,
    /// Allow plain HTTP to another machine: everybody on the way can read the password.
    #[arg(long)]
    insecure_http: bool,
    /// How much of your rights the token carries.
    #[arg(long, value_enum, default_value_t = Scope::Operate)]
    scope: Scope,
    /// Days until the token ends by itself.
    #[arg(long, default_value_t = 30, value_parser = clap::value_parser!(u32).range(1..))]
    days: u32,
}

/// A token's scope. Only what operators do to people, groups and asks needs `manage`.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Scope {
    /// Look.
    Read,
    /// Also pull, run, stop, remove.
    Operate,
    /// Also people, groups and limits, for operators.
    Manage,
}

/// What `logout` takes.
#[derive(Args)]
pub struct LogoutArgs {
    #[command(flatten)]
    server: Server,
    /// Forget the token here also when the server cannot be reached; there it lives on.
    #[arg(long)]
    forget: bool,
}

/// `berth login`. A signal ends it with the terminal as it was.
///
/// # Errors
/// When the server refuses, or the token cannot be kept.
pub async fn login(args: LoginArgs) -> Outcome {
    let mut ends = Ends::listen()?;
    tokio::select! {
        done = sign_in(args) => done,
        number = ends.next() => Err(Failure::Signal(number)),
    }
}

async fn sign_in(args: LoginArgs) -> Outcome {
    let store = Store::find()?;
    // Before any password is asked for: what cannot be kept need not be made.
    let before = store.read()?;
    let text = args.server.as_deref().unwrap_or(place::LOCAL);
    let base = place::parse(text, args.insecure_http)?;
    let trust = trust(&args)?;
    let anonymous = Api::new(base.clone(), trust.clone(), &Proof::None)?;
    let origin = anonymous.origin();
    // Nobody types a password for a server that is not there.
    anonymous.act(Method::GET, &["problems"], &[], None, GREETING_TIMEOUT).await?;
    let user = match args.user {
        Some(user) => user,
        None => ask(&format!("Name at {origin}")).await?,
    };
    let password = match args.password_stdin {
        true => tokio::task::spawn_blocking(read_secret)
            .await
            .map_err(|error| Failure::Here(format!("read the standard input: {error}")))??,
        false => ask_secret(&format!("Password of {}", harmless::line(&user))).await?,
    };
    let mut body = json!({"name": user, "password": password, "code": args.code});
    let mut cookies = anonymous.sign_in(&body).await;
    let needs_code = |failure: &Failure| matches!(failure, Failure::Refused(problem) if problem.code == "session.second-factor");
    if cookies.as_ref().is_err_and(needs_code) && args.code.is_none() && !args.password_stdin {
        body["code"] = json!(ask("Code of your second factor").await?);
        cookies = anonymous.sign_in(&body).await;
    }
    let cookies = cookies.map_err(|failure| failure.while_doing("cannot sign in"))?;
    let session = Api::new(base, trust.clone(), &Proof::Cookies(&cookies))?;
    let old = before.servers.get(&origin).map(|old| old.token_id.clone());
    let asked = Asked { scope: args.scope, days: args.days, insecure_http: args.insecure_http };
    let made = make_token(&session, &store, trust, &asked, old).await;
    // The session has served; that it ends by itself later is good enough when this fails.
    drop(session.act(Method::DELETE, &["me", "session"], &[], None, CALL_TIMEOUT).await);
    let kept = made?;
    let scope = asked.scope.word();
    say(&format!(
        "signed in at {origin} as {}: a token of scope {scope} until {}",
        harmless::line(&kept.name),
        harmless::line(&kept.expires_at)
    ))?;
    Ok(0)
}

struct Asked {
    scope: Scope,
    days: u32,
    insecure_http: bool,
}

/// Makes a token and keeps it; one that cannot be kept is ended, and so is the one before.
async fn make_token(
    session: &Api,
    store: &Store,
    trust: Trust,
    asked: &Asked,
    old: Option<String>,
) -> Result<Credential, Failure> {
    let me = session.get(&["me"], &[]).await?;
    let body = json!({"name": token_name()?, "scope": asked.scope.word(), "days": asked.days});
    let made = session.post(&["tokens"], Some(&body)).await?;
    let text = |value: &Value| value.as_str().unwrap_or_default().to_owned();
    let credential = Credential {
        name: text(&me["name"]),
        token: text(&made["secret"]),
        token_id: text(&made["token"]["id"]),
        expires_at: text(&made["token"]["expires_at"]),
        trust,
        insecure_http: asked.insecure_http,
    };
    let origin = session.origin();
    let kept = store.change(|kept| {
        kept.servers.insert(origin.clone(), credential.clone());
        kept.current = Some(origin);
    });
    let over = match &kept {
        Ok(()) => old,
        Err(_) => Some(credential.token_id.clone()),
    };
    if let Some(id) = over.filter(|id| !id.is_empty()) {
        // It may have ended, or be another person's.
        drop(session.act(Method::DELETE, &["tokens", &id], &[], None, CALL_TIMEOUT).await);
    }
    kept.map(|()| credential)
}

/// `berth logout`: ends the token at the server and forgets it here.
///
/// # Errors
/// When the server cannot be reached and nothing was said of forgetting.
pub async fn logout(args: LogoutArgs) -> Outcome {
    let store = Store::find()?;
    let (origin, credential) = args.server.credential(&store.read()?)?;
    let base = place::parse(&origin, credential.insecure_http)?;
    let proof = Proof::Token(&credential.token);
    let api = Api::new(base, credential.trust.clone(), &proof)?;
    let ended = api.act(Method::DELETE, &["me", "session"], &[], None, CALL_TIMEOUT).await;
    match ended {
        Ok(_) => {}
        Err(Failure::Refused(problem)) if problem.status == 401 => {}
        Err(failure) if args.forget => {
            let text = failure.told().unwrap_or_default();
            tell(&format!("{text}; the token lives there until {}", credential.expires_at));
        }
        Err(failure) => {
            return Err(failure.while_doing("the token was not ended (--forget forgets it here)"));
        }
    }
    store.change(|kept: &mut Kept| {
        kept.servers.remove(&origin);
        if kept.current.as_deref() == Some(&origin) {
            kept.current = kept.servers.keys().next().cloned();
        }
    })?;
    say(&format!("signed out of {origin}"))?;
    Ok(0)
}

impl Scope {
    fn word(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Operate => "operate",
            Self::Manage => "manage",
        }
    }
}

fn trust(args: &LoginArgs) -> Result<Trust, Failure> {
    use std::io::Read;
    if let Some(digits) = &args.fingerprint {
        return Ok(Trust::Fingerprint(digits.clone()));
    }
    let Some(path) = &args.ca else { return Ok(Trust::System) };
    let failed = |error: &dyn std::fmt::Display| {
        Failure::Here(format!("read the certificate authority {}: {error}", path.display()))
    };
    let file = std::fs::File::open(path).map_err(|error| failed(&error))?;
    let mut pem = String::new();
    let most = AUTHORITY_BYTES_MAX as u64 + 1;
    file.take(most).read_to_string(&mut pem).map_err(|error| failed(&error))?;
    if pem.len() > AUTHORITY_BYTES_MAX {
        return Err(failed(&"it is larger than 1 MiB"));
    }
    Ok(Trust::Authority(pem))
}

/// A name that no token of the person's has yet, and that says where it is.
fn token_name() -> Result<String, Failure> {
    let host = nix::unistd::gethostname().map(|name| name.to_string_lossy().into_owned());
    let host: String = host
        .unwrap_or_default()
        .chars()
        .filter(|letter| letter.is_ascii_alphanumeric() || "-_.".contains(*letter))
        .take(40)
        .collect();
    let mut random = [0; 4];
    getrandom::fill(&mut random)
        .map_err(|error| Failure::Here(format!("get random bytes: {error}")))?;
    Ok(format!("berth on {host} {:08x}", u32::from_be_bytes(random)))
}
