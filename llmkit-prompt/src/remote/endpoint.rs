use std::fmt;
use std::future::Future;
use std::net::IpAddr;
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

use reqwest::header::{ACCEPT, AUTHORIZATION, CONTENT_TYPE, HeaderMap, HeaderName, HeaderValue, USER_AGENT};
use reqwest::{Client, Response, Url};
use tokio::time::{Instant, sleep, timeout, timeout_at};

use super::failure::{Failure, QUOTE, ServerError, chain, explain};
use super::rate_limit::{Limiter, Pass};
use super::retries::{may_retry, random_bits, retry_after};
use super::secrets::Secrets;
use super::{RateLimit, Retries, Timeouts};

/// The most that an answer may weigh, in bytes.
const MAX_BODY_BYTES: usize = 64 << 20;

/// How much of an error's body is read, in bytes.
const MAX_ERROR_BYTES: usize = 64 << 10;

/// A server, and how it is spoken to.
#[derive(Clone)]
pub(super) struct Endpoint {
    base: Url,
    headers: Vec<(String, String)>,
    key: Option<String>,
    secrets: Secrets,
    proxy: Option<String>,
    max_body_bytes: usize,
    timeouts: Timeouts,
    retries: Retries,
    limiter: Arc<Limiter>,
    /// Made with the first request, then shared by clones: its open connections are used again.
    client: OnceLock<Client>,
}

/// One request, the same for every attempt.
pub(super) struct Call {
    url: Url,
    body: String,
    accept: &'static str,
    idempotency_key: String,
    /// How many tokens it will take, roughly.
    tokens: usize,
}

/// An answer whose head has come.
pub(super) struct Opened {
    pub(super) response: Response,
    pub(super) pass: Pass,
}

/// The attempts at one call.
pub(super) struct Attempts {
    retries: Retries,
    failed: u32,
}

impl Endpoint {
    /// # Errors
    /// What is wrong with the address.
    pub(super) fn new(base_url: &str) -> Result<Self, Failure> {
        // The address may hold a password, so a refusal does not repeat it.
        let base = Url::parse(base_url.trim()).map_err(|error| {
            Failure::new(format!(
                "the base URL is not a URL ({error}): expected one such as `https://api.openai.com/v1`"
            ))
        })?;
        if !matches!(base.scheme(), "http" | "https") || base.host_str().is_none() {
            return Err(Failure::new(format!(
                "the base URL begins with `{}:`: expected `http://` or `https://` and a host",
                base.scheme()
            )));
        }
        if !base.username().is_empty() || base.password().is_some() {
            return Err(Failure::new(
                "the base URL holds a user's name or password: give them as a header with `with_header`",
            ));
        }
        let mut secrets = Secrets::default();
        for (_, value) in base.query_pairs() {
            secrets.add(&value);
        }
        Ok(Self {
            base,
            headers: Vec::new(),
            key: None,
            secrets,
            proxy: None,
            max_body_bytes: MAX_BODY_BYTES,
            timeouts: Timeouts::default(),
            retries: Retries::default(),
            limiter: Arc::new(Limiter::new(RateLimit::default())),
            client: OnceLock::new(),
        })
    }

    pub(super) fn set_key(&mut self, key: &str) {
        let key = key.trim();
        self.secrets.add(key);
        self.key = Some(key.to_owned()).filter(|key| !key.is_empty());
    }

    pub(super) fn add_header(&mut self, name: String, value: String) {
        self.secrets.add_header(&value);
        self.headers.push((name, value));
    }

    pub(super) fn set_timeouts(&mut self, timeouts: Timeouts) {
        self.timeouts = timeouts;
        self.client = OnceLock::new();
    }

    pub(super) fn set_proxy(&mut self, proxy: String) {
        self.proxy = Some(proxy);
        self.client = OnceLock::new();
    }

    pub(super) fn set_retries(&mut self, retries: Retries) {
        self.retries = retries;
    }

    pub(super) fn set_limit(&mut self, limit: RateLimit) {
        self.limiter = Arc::new(Limiter::new(limit));
    }

    pub(super) fn set_max_body_bytes(&mut self, bytes: usize) {
        self.max_body_bytes = bytes;
    }

    pub(super) fn secrets(&self) -> &Secrets {
        &self.secrets
    }

    pub(super) fn attempts(&self) -> Attempts {
        Attempts { retries: self.retries, failed: 0 }
    }

    /// A call of `path` under the base URL.
    pub(super) fn call(&self, path: &str, body: &serde_json::Value, stream: bool, tokens: usize) -> Call {
        let mut url = self.base.clone();
        url.set_path(&format!("{}/{path}", self.base.path().trim_end_matches('/')));
        let body = body.to_string();
        Call {
            url,
            accept: if stream { "text/event-stream" } else { "application/json" },
            idempotency_key: format!("llmkit-{:016x}{:016x}", random_bits(), random_bits()),
            tokens: body.len() / 4 + tokens,
            body,
        }
    }

    /// Waits for the rate limit, sends the call and waits for the head of the answer, which is a success.
    pub(super) async fn open(&self, call: &Call) -> Result<Opened, Failure> {
        let (client, headers) = (self.client()?, self.header_map(call)?);
        let pass = self.limiter.pass(call.tokens).await;
        let request = client.post(call.url.clone()).headers(headers).body(call.body.clone());
        let address = self.address(&call.url);
        let Ok(sent) = timeout(self.timeouts.first_byte, request.send()).await else {
            return Err(Failure::new(format!(
                "no answer from {address} within {:?}: raise `Timeouts::first_byte` if the server needs longer",
                self.timeouts.first_byte
            )));
        };
        let response = sent.map_err(|error| self.no_connection(error, &address))?;
        let status = response.status();
        if status.is_success() {
            return Ok(Opened { response, pass });
        }
        let headers = response.headers().clone();
        let body = self.beginning(response, MAX_ERROR_BYTES).await;
        let error = ServerError::read(&body, &self.secrets);
        let retry = may_retry(status, &headers, error.code.as_deref());
        Err(Failure {
            status: Some(status.as_u16()),
            retry_after: retry_after(&headers, SystemTime::now()),
            retry,
            ..Failure::new(explain(status, &error, &address))
        })
    }

    /// The whole body of an answer that is JSON.
    pub(super) async fn json(&self, response: Response) -> Result<serde_json::Value, Failure> {
        let kind = content_type(&response);
        if !kind.is_empty() && kind != "application/json" && !kind.ends_with("+json") {
            return Err(self.wrong_type(response, &kind, "application/json").await);
        }
        let body = self.body(response).await?;
        serde_json::from_slice(&body).map_err(|error| {
            let words = self.secrets.quote(&String::from_utf8_lossy(&body), QUOTE);
            Failure::new(format!("the answer is not JSON ({error}): {words}"))
        })
    }

    /// The next piece of an answer; none at its end. `read` bytes of it have come before.
    pub(super) async fn piece(
        &self,
        response: &mut Response,
        read: usize,
    ) -> Result<Option<Vec<u8>>, Failure> {
        let Ok(piece) = timeout(self.timeouts.idle, response.chunk()).await else {
            return Err(Failure::new(format!(
                "the server has sent nothing for {:?}: raise `Timeouts::idle` if it needs longer",
                self.timeouts.idle
            )));
        };
        let piece = piece.map_err(|error| {
            let error = error.without_url();
            let reason = format!("the connection broke: {}", self.secrets.quote(&chain(&error), QUOTE));
            Failure { source: Some(error), ..Failure::new(reason).transient() }
        })?;
        if read + piece.as_ref().map_or(0, |piece| piece.len()) > self.max_body_bytes {
            return Err(Failure::new(format!(
                "the answer is longer than {} bytes: is this the right server? For a model, `with_max_body_bytes` allows more; for an embedder, a smaller \
                 `with_batch` makes answers shorter",
                self.max_body_bytes
            )));
        }
        Ok(piece.map(Into::into))
    }

    /// That an answer is not of the `expected` type, with its beginning.
    pub(super) async fn wrong_type(&self, response: Response, found: &str, expected: &str) -> Failure {
        let status = response.status().as_u16();
        let address = self.address(response.url());
        let body = self.beginning(response, MAX_ERROR_BYTES).await;
        let words = self.secrets.quote(&String::from_utf8_lossy(&body), QUOTE);
        let found = self.secrets.quote(found, 100);
        Failure {
            status: Some(status),
            ..Failure::new(format!(
                "{address} answered with `{found}`, expected `{expected}`: check the base URL (it usually ends in `/v1`); it says: {words}"
            ))
        }
    }

    async fn body(&self, mut response: Response) -> Result<Vec<u8>, Failure> {
        let mut body = Vec::new();
        while let Some(piece) = self.piece(&mut response, body.len()).await? {
            body.extend_from_slice(&piece);
        }
        Ok(body)
    }

    /// Up to `limit` bytes of a body that explains something; a body that breaks off or dawdles has said enough.
    async fn beginning(&self, mut response: Response, limit: usize) -> Vec<u8> {
        let mut body = Vec::new();
        let read = async {
            while body.len() < limit
                && let Ok(Some(piece)) = response.chunk().await
            {
                body.extend_from_slice(&piece[..piece.len().min(limit - body.len())]);
            }
        };
        let _ = timeout(self.timeouts.idle.min(Duration::from_secs(10)), read).await;
        body
    }

    fn no_connection(&self, error: reqwest::Error, address: &str) -> Failure {
        let error = error.without_url();
        let reason = if error.is_timeout() {
            format!("no connection to {address} within {:?}: is the server up?", self.timeouts.connect)
        } else {
            let words = self.secrets.quote(&chain(&error), QUOTE);
            let doing = if error.is_connect() { "cannot connect to" } else { "no answer from" };
            format!("{doing} {address}: {words}; check the base URL, and that the server is up")
        };
        let hopeless = error.is_builder() || error.is_redirect();
        Failure { retry: !hopeless, source: Some(error), ..Failure::new(reason) }
    }

    fn client(&self) -> Result<&Client, Failure> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        if self.key.is_some() && self.base.scheme() == "http" && !is_near(&self.base) {
            tracing::warn!(address = self.address(&self.base), "the API key travels unencrypted: use https");
        }
        // reqwest takes its cryptography from the process; where the program has chosen one, that stays.
        if rustls::crypto::CryptoProvider::get_default().is_none() {
            let _ = rustls::crypto::ring::default_provider().install_default();
        }
        let mut builder = Client::builder()
            .connect_timeout(self.timeouts.connect)
            // A redirect would take the conversation to a server that nobody named.
            .redirect(reqwest::redirect::Policy::none())
            // Nor does an environment variable decide where it goes.
            .no_proxy();
        if let Some(proxy) = &self.proxy {
            let proxy =
                reqwest::Proxy::all(proxy).map_err(|_| Failure::new("the proxy's address is not a URL"))?;
            builder = builder.proxy(proxy);
        }
        let client = builder.build().map_err(|error| {
            Failure::new(format!(
                "the HTTP client cannot be made: {}",
                self.secrets.quote(&chain(&error), QUOTE)
            ))
        })?;
        Ok(self.client.get_or_init(|| client))
    }

    fn header_map(&self, call: &Call) -> Result<HeaderMap, Failure> {
        let mut headers = HeaderMap::new();
        headers.insert(CONTENT_TYPE, HeaderValue::from_static("application/json"));
        headers.insert(ACCEPT, HeaderValue::from_static(call.accept));
        headers.insert(USER_AGENT, HeaderValue::from_static(concat!("llmkit/", env!("CARGO_PKG_VERSION"))));
        let idempotency_key = HeaderValue::try_from(call.idempotency_key.as_str());
        headers.insert("idempotency-key", idempotency_key.expect("letters and digits are a header's value"));
        if let Some(key) = &self.key {
            let mut value = HeaderValue::try_from(format!("Bearer {key}")).map_err(|_| {
                Failure::new(
                    "the API key has characters that no header may have: was more copied than the key?",
                )
            })?;
            value.set_sensitive(true);
            headers.insert(AUTHORIZATION, value);
        }
        for (name, value) in &self.headers {
            let header = HeaderName::try_from(name).map_err(|_| {
                Failure::new(format!("`{}` is not a header's name", self.secrets.quote(name, 100)))
            })?;
            let mut value = HeaderValue::try_from(value).map_err(|_| {
                Failure::new(format!(
                    "the value of the header `{header}` has characters that no header may have"
                ))
            })?;
            value.set_sensitive(true);
            headers.insert(header, value);
        }
        Ok(headers)
    }

    /// Where a request goes, without the query, which may hold a key.
    fn address(&self, url: &Url) -> String {
        let mut url = url.clone();
        url.set_query(None);
        self.secrets.redact(url.as_str())
    }

    /// `work`, but no longer than a call may take altogether.
    pub(super) async fn in_time<T>(
        &self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        let deadline = Instant::now() + self.timeouts.total.min(Duration::from_secs(u32::MAX.into()));
        timeout_at(deadline, work).await.unwrap_or_else(|_| {
            Err(Failure::new(format!(
                "not done within {:?}, all attempts and pauses together: raise `Timeouts::total`",
                self.timeouts.total
            )))
        })
    }
}

impl Attempts {
    /// Waits before the next attempt, if there is to be one; otherwise gives the failure back.
    pub(super) async fn after(&mut self, failure: Failure) -> Result<(), Failure> {
        self.failed += 1;
        let pause = if failure.retry { self.retries.pause(self.failed, failure.retry_after) } else { None };
        let Some(pause) = pause else {
            let tried = if self.failed > 1 { format!(" ({} attempts)", self.failed) } else { String::new() };
            return Err(Failure { reason: failure.reason + &tried, ..failure });
        };
        tracing::warn!(
            attempt = self.failed,
            pause_ms = u64::try_from(pause.as_millis()).unwrap_or(u64::MAX),
            status = failure.status,
            reason = failure.reason,
            "a request failed and is made again"
        );
        sleep(pause).await;
        Ok(())
    }
}

/// The type of an answer in lower case, without its parameters; empty where the server names none.
pub(super) fn content_type(response: &Response) -> String {
    let value = response.headers().get(CONTENT_TYPE).map(HeaderValue::as_bytes).unwrap_or_default();
    let text = String::from_utf8_lossy(value);
    text.split(';').next().unwrap_or_default().trim().to_ascii_lowercase()
}

/// Whether a server is on this machine or in a private network.
fn is_near(url: &Url) -> bool {
    let host = url.host_str().unwrap_or_default();
    match host.trim_matches(['[', ']']).parse() {
        Ok(IpAddr::V4(address)) => address.is_loopback() || address.is_private(),
        Ok(IpAddr::V6(address)) => address.is_loopback() || address.is_unique_local(),
        Err(_) => host == "localhost" || host.ends_with(".localhost"),
    }
}

/// Without the key and the headers' values.
impl fmt::Debug for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let headers: Vec<&str> = self.headers.iter().map(|(name, _)| name.as_str()).collect();
        f.debug_struct("Endpoint")
            .field("base", &self.address(&self.base))
            .field("key", &self.key.as_ref().map(|_| &self.secrets))
            .field("headers", &headers)
            .field("timeouts", &self.timeouts)
            .field("retries", &self.retries)
            .finish_non_exhaustive()
    }
}
