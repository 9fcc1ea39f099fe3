use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, SystemTime};

use chrono::{DateTime, Utc};
use reqwest::StatusCode;
use reqwest::header::{HeaderMap, RETRY_AFTER};

/// When a request that failed is made again, and how long after.
///
/// A request is made again when no connection stood, when the connection broke before the answer was complete, and on the statuses 408, 409, 429 and
/// 500 to 599; never when a stream has handed over part of an answer, when a time ran out (the server may still be working on it, and would be
/// paid twice), or when the account's quota is used up. All attempts carry the same `Idempotency-Key`.
///
/// The pause before attempt `n` is drawn evenly from 0 to `base * 2^(n-1)`, at most `longest` ("full jitter": Brooker, *Exponential backoff and
/// jitter*, 2015); where the server names a time (`Retry-After`, as seconds or as a date, or `retry-after-ms`), it is that long, and a little more so
/// that not all come back at once. A server that asks for more than `longest_asked` gets no retry: the error says how long it asked for.
///
/// ```
/// use std::time::Duration;
/// use llmkit_prompt::remote::Retries;
///
/// let stubborn = Retries::default().with_attempts(6).with_longest_asked(Duration::from_secs(300));
/// assert_eq!(stubborn.base, Duration::from_millis(500));
/// assert_eq!(Retries::never().attempts, 1);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Retries {
    /// How often a request is made, the first time included. Default 3.
    pub attempts: u32,
    /// The longest pause before the second attempt; it doubles with each further one. Default 0.5 seconds.
    pub base: Duration,
    /// The longest pause that the client chooses. Default 30 seconds.
    pub longest: Duration,
    /// The longest pause that a server may ask for. Default 60 seconds.
    pub longest_asked: Duration,
}

impl Default for Retries {
    fn default() -> Self {
        Self {
            attempts: 3,
            base: Duration::from_millis(500),
            longest: Duration::from_secs(30),
            longest_asked: Duration::from_secs(60),
        }
    }
}

impl Retries {
    /// Each request is made once.
    pub fn never() -> Self {
        Self { attempts: 1, ..Self::default() }
    }

    /// Sets [`attempts`](Self::attempts); 0 counts as 1.
    pub fn with_attempts(mut self, attempts: u32) -> Self {
        self.attempts = attempts.max(1);
        self
    }

    /// Sets [`base`](Self::base).
    pub fn with_base(mut self, base: Duration) -> Self {
        self.base = base;
        self
    }

    /// Sets [`longest`](Self::longest).
    pub fn with_longest(mut self, longest: Duration) -> Self {
        self.longest = longest;
        self
    }

    /// Sets [`longest_asked`](Self::longest_asked).
    pub fn with_longest_asked(mut self, longest_asked: Duration) -> Self {
        self.longest_asked = longest_asked;
        self
    }

    /// The pause after `failed` attempts when the server asked for `asked`; none when there is to be no further attempt.
    pub(super) fn pause(&self, failed: u32, asked: Option<Duration>) -> Option<Duration> {
        if failed >= self.attempts {
            return None;
        }
        match asked {
            Some(asked) if asked > self.longest_asked => None,
            Some(asked) => Some(asked + self.base.min(asked).mul_f64(0.2 * random_fraction())),
            None => {
                let doublings = 2_u32.saturating_pow(failed.saturating_sub(1));
                Some(self.base.saturating_mul(doublings).min(self.longest).mul_f64(random_fraction()))
            }
        }
    }
}

/// Whether a request that got this status may be made again.
pub(super) fn may_retry(status: StatusCode, headers: &HeaderMap, code: Option<&str>) -> bool {
    // OpenAI's servers say it themselves.
    match headers.get("x-should-retry").map(|value| value.as_bytes()) {
        Some(b"true") => return true,
        Some(b"false") => return false,
        _ => {}
    }
    // No pause refills an account.
    if code == Some("insufficient_quota") {
        return false;
    }
    matches!(status.as_u16(), 408 | 409 | 429 | 500..=599)
}

/// How long the server asks to be left alone.
pub(super) fn retry_after(headers: &HeaderMap, now: SystemTime) -> Option<Duration> {
    let text = |name: &str| headers.get(name)?.to_str().ok().map(str::trim);
    if let Some(milliseconds) = text("retry-after-ms").and_then(|text| text.parse::<f64>().ok()) {
        return Duration::try_from_secs_f64(milliseconds / 1000.0).ok();
    }
    let text = text(RETRY_AFTER.as_str())?;
    if let Ok(seconds) = text.parse::<f64>() {
        return Duration::try_from_secs_f64(seconds).ok();
    }
    // An HTTP date is RFC 2822's with "GMT" for a zone.
    let until = DateTime::parse_from_rfc2822(text).ok()?;
    Some((until.with_timezone(&Utc) - DateTime::<Utc>::from(now)).to_std().unwrap_or_default())
}

/// A number in [0, 1) that differs from call to call. Nothing secret hangs on it.
fn random_fraction() -> f64 {
    (random_bits() >> 11) as f64 / (1_u64 << 53) as f64
}

/// 64 bits that differ from call to call and from process to process: the standard library seeds its hashers from the system.
pub(super) fn random_bits() -> u64 {
    use std::sync::atomic::{AtomicU64, Ordering};
    static CALLS: AtomicU64 = AtomicU64::new(0);
    RandomState::new().hash_one(CALLS.fetch_add(1, Ordering::Relaxed))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn pauses_double_are_jittered_and_have_a_ceiling() {
        let retries = Retries::default().with_attempts(20).with_longest(Duration::from_secs(3));
        for (failed, most) in [(1, 0.5), (2, 1.0), (3, 2.0), (4, 3.0), (19, 3.0)] {
            let pauses: Vec<f64> =
                (0..300).map(|_| retries.pause(failed, None).unwrap().as_secs_f64()).collect();
            assert!(pauses.iter().all(|pause| (0.0..=most).contains(pause)));
            // The mean of 300 draws from [0, most] is half of it, give or take 0.017.
            let mean = pauses.iter().sum::<f64>() / 300.0 / most;
            assert!((mean - 0.5).abs() < 0.1, "{failed}: {mean}");
        }
        assert_eq!(retries.pause(20, None), None);
        assert_eq!(Retries::never().pause(1, None), None);
    }

    #[test]
    fn a_server_gets_the_pause_that_it_asks_for_up_to_a_limit() {
        let retries = Retries::default();
        let pause = retries.pause(1, Some(Duration::from_secs(7))).unwrap();
        assert!((Duration::from_secs(7)..Duration::from_secs(8)).contains(&pause));
        assert_eq!(retries.pause(1, Some(Duration::from_secs(61))), None);
        assert_eq!(retries.pause(1, Some(Duration::ZERO)), Some(Duration::ZERO));
    }

    #[test]
    fn what_servers_ask_for_is_read_in_each_of_its_forms() {
        let now = DateTime::parse_from_rfc3339("2026-01-05T10:00:00Z").unwrap().into();
        let read = |name: &'static str, value: &'static str| {
            retry_after(&HeaderMap::from_iter([(name.parse().unwrap(), value.parse().unwrap())]), now)
        };
        assert_eq!(read("retry-after", "3"), Some(Duration::from_secs(3)));
        assert_eq!(read("retry-after", "0.25"), Some(Duration::from_millis(250)));
        assert_eq!(read("retry-after-ms", "1500"), Some(Duration::from_millis(1500)));
        assert_eq!(read("retry-after", "Mon, 05 Jan 2026 10:00:09 GMT"), Some(Duration::from_secs(9)));
        assert_eq!(read("retry-after", "Mon, 05 Jan 2026 09:00:00 GMT"), Some(Duration::ZERO));
        for nonsense in ["", "soon", "-1", "NaN", "inf", "1e300", "Mon, 99 Jan 2026 10:00:09 GMT"] {
            assert_eq!(read("retry-after", nonsense), None, "{nonsense}");
        }
    }

    #[test]
    fn a_used_up_account_and_a_bad_request_are_final() {
        let none = HeaderMap::new();
        for status in [408, 409, 429, 500, 502, 503, 504, 529] {
            assert!(may_retry(StatusCode::from_u16(status).unwrap(), &none, None), "{status}");
        }
        for status in [400, 401, 403, 404, 413, 422] {
            assert!(!may_retry(StatusCode::from_u16(status).unwrap(), &none, None), "{status}");
        }
        assert!(!may_retry(StatusCode::TOO_MANY_REQUESTS, &none, Some("insufficient_quota")));
        let told = HeaderMap::from_iter([("x-should-retry".parse().unwrap(), "false".parse().unwrap())]);
        assert!(!may_retry(StatusCode::BAD_GATEWAY, &told, None));
    }
}
