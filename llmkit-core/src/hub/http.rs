use std::io::Read;
use std::time::Duration;

use ureq::http::{HeaderMap, Response};
use ureq::tls::{PemItem, RootCerts, TlsConfig, parse_pem};
use ureq::{Agent, Body};

use super::refused;
use crate::{Error, Result};

/// How long the first question may take in all: where the network is closed, the answer must not be minutes away.
const ASK: Duration = Duration::from_secs(9);
const CONNECT: Duration = Duration::from_secs(5);
/// The longest silence in the middle of a download.
const SILENCE: Duration = Duration::from_secs(60);
/// The longest listing that is read, in bytes.
const MAX_TEXT: u64 = 32 << 20;
const MAX_REDIRECTS: usize = 8;

/// Why a download failed, by what helps.
#[derive(Debug)]
pub(super) enum Failure {
    /// The cache may serve instead.
    Unreachable(String),
    /// The hub answered, and asking again would not help.
    Refused(String),
    /// The disk failed.
    Local(Error),
}

impl From<Error> for Failure {
    fn from(error: Error) -> Self {
        Self::Local(error)
    }
}

/// Speaks to one hub.
pub(super) struct Client<'a> {
    agent: Agent,
    endpoint: &'a str,
    token: Option<&'a str>,
}

/// A file that is about to be received.
pub(super) struct RemoteFile {
    /// Identifies the content: its SHA-256 for large files, else git's hash. Safe as a file name.
    pub(super) etag: String,
    /// Of the whole file, in bytes.
    pub(super) size: Option<u64>,
    /// Where in the file `content` begins.
    pub(super) offset: u64,
    pub(super) content: Box<dyn Read>,
}

impl<'a> Client<'a> {
    pub(super) fn new(endpoint: &'a str, token: Option<&'a str>) -> Result<Self, Failure> {
        let config = Agent::config_builder()
            .user_agent(concat!("llmkit/", env!("CARGO_PKG_VERSION")))
            .tls_config(TlsConfig::builder().root_certs(root_certificates()?).build())
            .http_status_as_error(false)
            // Followed by `open`, which must see the headers on the way and must not pass the token on.
            .max_redirects(0)
            .timeout_resolve(Some(CONNECT))
            .timeout_connect(Some(CONNECT))
            .timeout_recv_response(Some(SILENCE))
            .timeout_per_read(Some(SILENCE))
            .build();
        Ok(Self { agent: config.new_agent(), endpoint, token })
    }

    /// A short text below the endpoint.
    pub(super) fn text(&self, path: &str) -> Result<String, Failure> {
        let url = format!("{}/{path}", self.endpoint);
        let (mut response, _) = self.follow(url, Some(ASK), 0)?;
        let body = response.body_mut().with_config().limit(MAX_TEXT);
        body.read_to_string().map_err(unreachable)
    }

    /// A file below the endpoint, from its byte `from` on if the server can do that, else from its first.
    pub(super) fn open(&self, path: &str, from: u64) -> Result<RemoteFile, Failure> {
        let (response, linked) = self.follow(format!("{}/{path}", self.endpoint), None, from)?;
        let etag = linked.etag.or_else(|| header(response.headers(), "etag"));
        let etag = etag.as_deref().and_then(plain_etag);
        let etag = etag.ok_or_else(|| refused(format!("the hub does not identify the content of {path}")))?;
        let length =
            header(response.headers(), "content-length").and_then(|length| length.parse::<u64>().ok());
        let offset = if response.status().as_u16() == 206 { from } else { 0 };
        if offset > 0 {
            let range = header(response.headers(), "content-range").unwrap_or_default();
            if !range.starts_with(&format!("bytes {offset}-")) {
                return Err(refused(format!("the hub sent another part of {path} than it was asked for")));
            }
        }
        let size = linked.size.or(length.map(|length| length.saturating_add(offset)));
        let content = response.into_body().into_with_config().limit(u64::MAX).reader();
        Ok(RemoteFile { etag, size, offset, content: Box::new(content) })
    }

    fn follow(
        &self,
        url: String,
        limit: Option<Duration>,
        from: u64,
    ) -> Result<(Response<Body>, Linked), Failure> {
        let mut url = url;
        let mut linked = Linked::default();
        for _ in 0..MAX_REDIRECTS {
            let mut request = self.agent.get(&url);
            if let Some(token) = self.token.filter(|_| self.is_ours(&url)) {
                request = request.header("authorization", format!("Bearer {token}"));
            }
            if from > 0 {
                request = request.header("range", format!("bytes={from}-"));
            }
            let request = request.config().timeout_global(limit).build();
            let response = request.call().map_err(unreachable)?;
            // Large files lie elsewhere; only the hub itself says what they are.
            linked.note(response.headers());
            match response.status().as_u16() {
                200 => return Ok((response, linked)),
                206 if from > 0 => return Ok((response, linked)),
                301 | 302 | 303 | 307 | 308 => url = self.next(&url, response.headers())?,
                status => return Err(self.explain(status)),
            }
        }
        Err(refused("the hub redirects in circles"))
    }

    fn next(&self, from: &str, headers: &HeaderMap) -> Result<String, Failure> {
        let target = header(headers, "location").ok_or_else(|| refused("the hub redirects to nowhere"))?;
        if target.starts_with('/') && !target.starts_with("//") {
            let host_end = from.find("://").and_then(|at| Some(at + 3 + from[at + 3..].find('/')?));
            return Ok(format!("{}{target}", &from[..host_end.unwrap_or(from.len())]));
        }
        let secure = target.starts_with("https://");
        if secure || (target.starts_with("http://") && self.endpoint.starts_with("http://")) {
            Ok(target)
        } else {
            Err(refused(format!("the hub redirects to an unusable address, `{target}`")))
        }
    }

    fn is_ours(&self, url: &str) -> bool {
        url.strip_prefix(self.endpoint).is_some_and(|rest| rest.starts_with('/'))
    }

    fn explain(&self, status: u16) -> Failure {
        match (status, self.token) {
            (401 | 403, None) => refused(
                "it does not exist, or it is private or gated (check the name; if that is right, set HF_TOKEN to a token of yours that may read it)",
            ),
            (401 | 403, Some(_)) => refused(
                "the token may not read it (accept the model's terms on its page, or set HF_TOKEN to a token with that right)",
            ),
            (404, _) => refused("there is no such model or revision (check the name)"),
            (429 | 500.., _) => Failure::Unreachable(format!("it answered with status {status}")),
            _ => refused(format!("it answered with status {status}")),
        }
    }
}

/// What the hub says of a file that lies elsewhere.
#[derive(Default)]
struct Linked {
    etag: Option<String>,
    size: Option<u64>,
}

impl Linked {
    fn note(&mut self, headers: &HeaderMap) {
        self.etag = self.etag.take().or_else(|| header(headers, "x-linked-etag"));
        self.size = self.size.or_else(|| header(headers, "x-linked-size")?.parse().ok());
    }
}

fn header(headers: &HeaderMap, name: &str) -> Option<String> {
    headers.get(name)?.to_str().ok().map(str::to_owned)
}

/// An entity tag without its quotes, if it may serve as a file's name.
fn plain_etag(etag: &str) -> Option<String> {
    let etag = etag.trim_start_matches("W/").trim_matches('"');
    let plain = etag.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'-');
    (plain && (1..=128).contains(&etag.len())).then(|| etag.to_owned())
}

fn unreachable(error: ureq::Error) -> Failure {
    Failure::Unreachable(error.to_string())
}

fn root_certificates() -> Result<RootCerts, Failure> {
    let Some(path) = std::env::var_os("SSL_CERT_FILE").filter(|path| !path.is_empty()) else {
        return Ok(RootCerts::WebPki);
    };
    let pem = std::fs::read(&path).map_err(Error::io("read", &path))?;
    let certificates: Vec<_> = parse_pem(&pem)
        .filter_map(|item| match item {
            Ok(PemItem::Certificate(certificate)) => Some(certificate),
            _ => None,
        })
        .collect();
    if certificates.is_empty() {
        return Err(refused(format!("SSL_CERT_FILE names {}, which has no certificate", path.display())));
    }
    Ok(RootCerts::new_with_certs(&certificates))
}

#[cfg(test)]
mod tests {
    use super::plain_etag;

    #[test]
    fn tags_that_are_no_file_names_are_refused() {
        assert_eq!(plain_etag("W/\"ab-01\"").as_deref(), Some("ab-01"));
        for tag in ["", "\"\"", "../x", "a/b", "a\\b", "a b", ".", "é"] {
            assert_eq!(plain_etag(tag), None, "{tag}");
        }
    }
}
