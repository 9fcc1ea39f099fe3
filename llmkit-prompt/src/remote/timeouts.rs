use std::time::Duration;

/// How long a request may take, part by part. What runs out is an error that names the part.
///
/// ```
/// use std::time::Duration;
/// use llmkit_prompt::remote::Timeouts;
///
/// let patient = Timeouts::default().with_first_byte(Duration::from_secs(1200));
/// assert_eq!(patient.connect, Duration::from_secs(10));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Timeouts {
    /// Until a connection stands, TLS included. Default 10 seconds.
    pub connect: Duration,
    /// From sending the request to the first byte of the answer's head. A server that doesn't stream sends it when the answer is complete, and one
    /// that queues requests when it is their turn. Default 10 minutes.
    pub first_byte: Duration,
    /// Between two pieces of the answer. Default 2 minutes.
    pub idle: Duration,
    /// For everything: waiting for the rate limit, all attempts and the pauses between them, and the reading of a stream. Default 30 minutes.
    pub total: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Self {
            connect: Duration::from_secs(10),
            first_byte: Duration::from_secs(600),
            idle: Duration::from_secs(120),
            total: Duration::from_secs(1800),
        }
    }
}

impl Timeouts {
    /// Sets [`connect`](Self::connect).
    pub fn with_connect(mut self, connect: Duration) -> Self {
        self.connect = connect;
        self
    }

    /// Sets [`first_byte`](Self::first_byte).
    pub fn with_first_byte(mut self, first_byte: Duration) -> Self {
        self.first_byte = first_byte;
        self
    }

    /// Sets [`idle`](Self::idle).
    pub fn with_idle(mut self, idle: Duration) -> Self {
        self.idle = idle;
        self
    }

    /// Sets [`total`](Self::total).
    pub fn with_total(mut self, total: Duration) -> Self {
        self.total = total;
        self
    }
}
