//! The keys that an issuer of tokens publishes: fetched, kept, and fetched anew when a token names one that is not
//! known. An issuer that is away changes nothing: what was known goes on.

use std::{
    collections::HashSet,
    sync::{Arc, PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard},
    time::Duration,
};

use anyhow::{Context, ensure};
use firstcome_process::certificates;
use reqwest::{Client, Url, redirect};
use tokio::{
    sync::{Notify, watch},
    time::{Instant, sleep, timeout},
};
use tokio_util::sync::CancellationToken;

use super::keys::{Key, Terms};
use crate::config::SecretArgs;

/// How often the keys are fetched though nobody asks: those that the issuer took back are forgotten by then.
const REFRESH_INTERVAL: Duration = Duration::from_secs(300);
/// How often a token can have them fetched: anybody can make one that names an unknown key.
const ASK_INTERVAL: Duration = Duration::from_secs(60);
/// How soon it is tried again while there is none.
const RETRY_INTERVAL: Duration = Duration::from_secs(2);
/// How long the issuer may take.
const FETCH_TIMEOUT: Duration = Duration::from_secs(5);
/// How long a request waits for a key that is being fetched.
const WAIT_TIMEOUT: Duration = Duration::from_secs(2);
/// The most bytes of a set.
const MAX_SET: usize = 1024 * 1024;
/// The most names that are remembered to be none of the issuer's keys.
const MAX_MISSED: usize = 1_000;

/// What is known of an issuer's keys.
pub(super) struct Issuer {
    known: RwLock<Known>,
    /// Wakes the task that fetches.
    asked: Notify,
    /// How often it was fetched, or tried.
    tried: watch::Sender<u64>,
}

#[derive(Default)]
struct Known {
    /// None before the first set.
    keys: Option<Arc<[Key]>>,
    /// Names that were not in the last set.
    missed: HashSet<String>,
    /// When a token last had the keys fetched.
    asked_at: Option<Instant>,
    is_fetching: bool,
}

/// Why there is no key for a token.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Missing {
    /// The issuer has none of that name.
    Unknown,
    /// Nobody can tell for so long.
    Untold(Duration),
}

impl Issuer {
    /// Begins to fetch; ends on `stop`.
    ///
    /// # Errors
    /// With a hint, if the URL or the file is of no use.
    pub(super) fn start(
        url: &str,
        secrets: &SecretArgs,
        stop: &CancellationToken,
    ) -> anyhow::Result<Arc<Self>> {
        // Not shown: there may be a password in it.
        let url: Url = url.parse().context("JWT_JWKS_URL")?;
        ensure!(
            ["http", "https"].contains(&url.scheme()),
            "JWT_JWKS_URL: only https:// and http:// are supported"
        );
        let host = url.host_str().unwrap_or_default();
        if url.scheme() == "http" && !["127.0.0.1", "[::1]", "localhost"].contains(&host) {
            tracing::warn!(host, "JWT_JWKS_URL is http://: whoever is on the way can make tokens");
        }
        let pem = secrets.jwt_jwks_ca_file.as_ref().map(std::fs::read).transpose();
        let trusted = certificates::trusted(pem.context("JWT_JWKS_CA_FILE")?.as_deref());
        let client = Client::builder()
            .timeout(FETCH_TIMEOUT)
            .tls_certs_only(trusted.context("JWT_JWKS_CA_FILE")?)
            // Whom it points to is not who was configured.
            .redirect(redirect::Policy::none())
            .build()
            .context("cannot make an HTTP client")?;
        let issuer = Arc::new(Self {
            known: RwLock::new(Known { is_fetching: true, ..Known::default() }),
            asked: Notify::new(),
            tried: watch::Sender::new(0),
        });
        let fetching = fetch_on(Arc::clone(&issuer), client, url, Terms::new(secrets));
        tokio::spawn(stop.clone().run_until_cancelled_owned(fetching));
        Ok(issuer)
    }

    /// What is known now.
    pub(super) fn keys(&self) -> Option<Arc<[Key]>> {
        self.read().keys.clone()
    }

    /// Waits for a set with a key of this name (for any set if the token names none), if it may be asked for.
    pub(super) async fn look_up(&self, id: Option<&str>) -> Result<Arc<[Key]>, Missing> {
        let mut tried = self.tried.subscribe();
        let before = self.keys();
        self.ask(id)?;
        let untold = Missing::Untold(RETRY_INTERVAL);
        timeout(WAIT_TIMEOUT, tried.changed())
            .await
            .map_err(|_| untold)?
            .map_err(|_| Missing::Unknown)?;
        let mut known = self.write();
        let Some(keys) = known.keys.clone() else { return Err(Missing::Untold(RETRY_INTERVAL)) };
        let Some(id) = id.filter(|id| !has(&keys, id)) else { return Ok(keys) };
        let is_new = before.is_none_or(|before| !Arc::ptr_eq(&before, &keys));
        if !is_new {
            return Err(Missing::Untold(ASK_INTERVAL));
        }
        if known.missed.len() < MAX_MISSED {
            known.missed.insert(id.to_owned());
        }
        Err(Missing::Unknown)
    }

    /// Has the keys fetched, unless that is under way, or was done too lately.
    fn ask(&self, id: Option<&str>) -> Result<(), Missing> {
        let mut known = self.write();
        if known.is_fetching {
            return Ok(());
        }
        // It is tried again soon.
        if known.keys.is_none() {
            return Err(Missing::Untold(RETRY_INTERVAL));
        }
        if id.is_some_and(|id| known.missed.contains(id)) {
            return Err(Missing::Unknown);
        }
        let wait = known.asked_at.map(|at| ASK_INTERVAL.saturating_sub(at.elapsed()));
        if let Some(wait) = wait.filter(|wait| !wait.is_zero()) {
            return Err(Missing::Untold(wait));
        }
        known.asked_at = Some(Instant::now());
        known.is_fetching = true;
        self.asked.notify_one();
        Ok(())
    }

    /// Keeps what was fetched; how soon to fetch again.
    fn keep(&self, fetched: anyhow::Result<Vec<Key>>) -> Duration {
        let mut known = self.write();
        known.is_fetching = false;
        let after = match fetched {
            Ok(keys) => {
                if known.keys.as_ref().is_none_or(|before| !is_same(before, &keys)) {
                    tracing::info!(keys = keys.len(), "the issuer's keys");
                }
                known.keys = Some(keys.into());
                known.missed.clear();
                REFRESH_INTERVAL
            }
            Err(error) => {
                let known_keys = known.keys.as_ref().map_or(0, |keys| keys.len());
                tracing::warn!(
                    error = format!("{error:#}"),
                    known_keys,
                    "cannot fetch JWT_JWKS_URL"
                );
                if known.keys.is_some() { ASK_INTERVAL } else { RETRY_INTERVAL }
            }
        };
        drop(known);
        self.tried.send_modify(|tried| *tried += 1);
        after
    }

    fn read(&self) -> RwLockReadGuard<'_, Known> {
        self.known.read().unwrap_or_else(PoisonError::into_inner)
    }

    fn write(&self) -> RwLockWriteGuard<'_, Known> {
        self.known.write().unwrap_or_else(PoisonError::into_inner)
    }
}

/// Whether one of the keys may be meant by that name.
pub(super) fn has(keys: &[Key], id: &str) -> bool {
    keys.iter().any(|key| key.id.as_deref().is_none_or(|known| known == id))
}

fn is_same(before: &[Key], now: &[Key]) -> bool {
    before.iter().map(|key| &key.id).eq(now.iter().map(|key| &key.id))
}

async fn fetch_on(issuer: Arc<Issuer>, client: Client, url: Url, terms: Terms) {
    loop {
        let after = issuer.keep(fetch(&client, &url, &terms).await);
        tokio::select! {
            () = sleep(after) => issuer.write().is_fetching = true,
            () = issuer.asked.notified() => {}
        }
    }
}

async fn fetch(client: &Client, url: &Url, terms: &Terms) -> anyhow::Result<Vec<Key>> {
    let answer = client.get(url.clone()).send().await.map_err(reqwest::Error::without_url)?;
    ensure!(answer.status().is_success(), "it answers with {}", answer.status());
    let (mut answer, mut set) = (answer, Vec::new());
    while let Some(chunk) = answer.chunk().await.map_err(reqwest::Error::without_url)? {
        ensure!(set.len() + chunk.len() <= MAX_SET, "it is larger than {MAX_SET} bytes");
        set.extend_from_slice(&chunk);
    }
    let keys = terms.strong(&set).context("it is no JWKS")?;
    ensure!(!keys.is_empty(), "there is no key in it that can sign tokens");
    Ok(keys)
}
