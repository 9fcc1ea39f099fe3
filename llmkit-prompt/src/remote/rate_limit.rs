use std::collections::VecDeque;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use llmkit_core::Usage;
use tokio::sync::{OwnedSemaphorePermit, Semaphore};
use tokio::time::{Instant, sleep_until};

/// The time over which requests and tokens are counted.
const MINUTE: Duration = Duration::from_secs(60);

/// How much a client asks of its server. What is over the limit waits its turn, in order.
///
/// In no 60 seconds do more requests or tokens leave than allowed. A request's tokens are known only when it is answered; until then they are
/// estimated as a quarter of its bytes plus its `max_tokens`. A request that is larger than a whole minute's tokens goes out alone.
///
/// ```
/// use llmkit_prompt::remote::RateLimit;
///
/// let limit = RateLimit::default().with_requests_per_minute(60).with_tokens_per_minute(100_000).with_concurrent(4);
/// assert_eq!(limit.concurrent, Some(4));
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[non_exhaustive]
pub struct RateLimit {
    /// Requests in any 60 seconds, retries included. Default no limit.
    pub requests_per_minute: Option<usize>,
    /// Tokens, read and written, in any 60 seconds. Default no limit.
    pub tokens_per_minute: Option<usize>,
    /// Requests at the same time. Default no limit.
    pub concurrent: Option<usize>,
}

impl RateLimit {
    /// Sets [`requests_per_minute`](Self::requests_per_minute); 0 counts as 1.
    pub fn with_requests_per_minute(mut self, requests: usize) -> Self {
        self.requests_per_minute = Some(requests.max(1));
        self
    }

    /// Sets [`tokens_per_minute`](Self::tokens_per_minute); 0 counts as 1.
    pub fn with_tokens_per_minute(mut self, tokens: usize) -> Self {
        self.tokens_per_minute = Some(tokens.max(1));
        self
    }

    /// Sets [`concurrent`](Self::concurrent); 0 counts as 1.
    pub fn with_concurrent(mut self, concurrent: usize) -> Self {
        self.concurrent = Some(concurrent.max(1));
        self
    }
}

/// Lets requests through as a [`RateLimit`] allows.
#[derive(Debug)]
pub(super) struct Limiter {
    limit: RateLimit,
    /// Passed one at a time, first come, first served.
    turnstile: Arc<Semaphore>,
    seats: Option<Arc<Semaphore>>,
    recent: Arc<Mutex<Recent>>,
}

/// The requests of the last minute, oldest first.
#[derive(Debug, Default)]
struct Recent {
    sent: VecDeque<Sent>,
    next: u64,
}

#[derive(Debug)]
struct Sent {
    number: u64,
    at: Instant,
    tokens: usize,
}

/// A request's leave to run; dropped when its answer is complete.
#[derive(Debug)]
pub(super) struct Pass {
    number: u64,
    recent: Arc<Mutex<Recent>>,
    _seat: Option<OwnedSemaphorePermit>,
}

impl Limiter {
    pub(super) fn new(limit: RateLimit) -> Self {
        // None at all would let nothing through, ever.
        let limit = RateLimit {
            requests_per_minute: limit.requests_per_minute.map(|most| most.max(1)),
            tokens_per_minute: limit.tokens_per_minute.map(|most| most.max(1)),
            concurrent: limit.concurrent.map(|most| most.max(1)),
        };
        Self {
            limit,
            turnstile: Arc::new(Semaphore::new(1)),
            seats: limit.concurrent.map(|seats| Arc::new(Semaphore::new(seats.min(Semaphore::MAX_PERMITS)))),
            recent: Arc::default(),
        }
    }

    /// Waits until a request of about `tokens` may leave. Dropped while it waits, it leaves no trace.
    pub(super) async fn pass(&self, tokens: usize) -> Pass {
        const OPEN: &str = "the semaphore is never closed";
        let _turn = self.turnstile.acquire().await.expect(OPEN);
        let seat = match &self.seats {
            Some(seats) => Some(seats.clone().acquire_owned().await.expect(OPEN)),
            None => None,
        };
        loop {
            // The lock is not held while waiting.
            let wait = lock(&self.recent).enter(self.limit, tokens, Instant::now());
            match wait {
                Ok(number) => return Pass { number, recent: self.recent.clone(), _seat: seat },
                Err(until) => sleep_until(until).await,
            }
        }
    }
}

impl Pass {
    /// Corrects the estimate by what the request took.
    pub(super) fn took(&self, usage: Usage) {
        let tokens = usage.prompt_tokens.saturating_add(usage.completion_tokens);
        // A server that reports nothing leaves the estimate.
        if tokens > 0
            && let Some(sent) = lock(&self.recent).sent.iter_mut().find(|sent| sent.number == self.number)
        {
            sent.tokens = tokens;
        }
    }
}

impl Recent {
    /// Enters a request that leaves `now`, or says when to ask again.
    fn enter(&mut self, limit: RateLimit, tokens: usize, now: Instant) -> Result<u64, Instant> {
        while self.sent.front().is_some_and(|sent| sent.at + MINUTE <= now) {
            self.sent.pop_front();
        }
        let counted = limit.requests_per_minute.is_some() || limit.tokens_per_minute.is_some();
        if !counted {
            return Ok(0);
        }
        if let Some(most) = limit.requests_per_minute
            && self.sent.len() >= most
        {
            return Err(self.sent[self.sent.len() - most].at + MINUTE);
        }
        if let Some(most) = limit.tokens_per_minute {
            let mut total = self.sent.iter().fold(tokens, |sum, sent| sum.saturating_add(sent.tokens));
            let mut until = None;
            for sent in &self.sent {
                if total <= most {
                    break;
                }
                total = total.saturating_sub(sent.tokens);
                until = Some(sent.at + MINUTE);
            }
            if let Some(until) = until {
                return Err(until);
            }
        }
        self.next += 1;
        self.sent.push_back(Sent { number: self.next, at: now, tokens });
        Ok(self.next)
    }
}

/// A panic while the lock was held leaves a list that is at worst one entry short.
fn lock(recent: &Mutex<Recent>) -> std::sync::MutexGuard<'_, Recent> {
    recent.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The seconds at which requests of these tokens leave when all are ready at once.
    fn departures(limit: RateLimit, tokens: &[usize]) -> Vec<u64> {
        let start = Instant::now();
        let (mut recent, mut now) = (Recent::default(), start);
        let leave = tokens.iter().map(|tokens| {
            loop {
                match recent.enter(limit, *tokens, now) {
                    Ok(_) => return (now - start).as_secs(),
                    Err(until) => {
                        assert!(until > now, "it must not be asked again at once");
                        now = until;
                    }
                }
            }
        });
        leave.collect()
    }

    #[test]
    fn no_minute_sees_more_requests_or_tokens_than_allowed() {
        let requests = RateLimit::default().with_requests_per_minute(2);
        assert_eq!(departures(requests, &[1; 5]), [0, 0, 60, 60, 120]);
        let tokens = RateLimit::default().with_tokens_per_minute(100);
        assert_eq!(departures(tokens, &[60, 40, 10, 90, 500, 1]), [0, 0, 60, 60, 120, 180]);
        assert_eq!(departures(RateLimit::default(), &[1_000_000; 9]), [0; 9]);
    }

    #[test]
    fn an_answers_true_cost_replaces_the_estimate() {
        let limiter = Limiter::new(RateLimit::default().with_tokens_per_minute(100));
        let pass = pollster::block_on(limiter.pass(90));
        let now = Instant::now();
        assert!(lock(&limiter.recent).enter(limiter.limit, 50, now).is_err());
        pass.took(Usage { prompt_tokens: 15, completion_tokens: 5, cached_tokens: 0 });
        assert!(lock(&limiter.recent).enter(limiter.limit, 50, now).is_ok());
    }
}
