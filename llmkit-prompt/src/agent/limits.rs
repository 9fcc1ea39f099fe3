use std::fmt;
use std::time::Duration;

use llmkit_core::Usage;
use serde::{Deserialize, Serialize};

/// How far an agent may go. What is reached becomes the run's [`Outcome`](super::Outcome), with everything done so far.
///
/// ```
/// use std::time::Duration;
/// use llmkit_prompt::agent::{Limits, Prices};
///
/// let limits = Limits::default()
///     .with_steps(8)
///     .with_time(Duration::from_secs(60))
///     .with_cost(0.05, Prices::new(0.15, 0.60).with_cached(0.075));
/// assert_eq!(limits.steps, 8);
/// assert_eq!(limits.tool_calls, 50);
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[non_exhaustive]
pub struct Limits {
    /// The model's turns. Default: 20.
    pub steps: usize,
    /// The tools' calls. Default: 50.
    pub tool_calls: usize,
    /// The calls that one turn may have running side by side. Default: 8.
    pub side_by_side: usize,
    /// How often the same tool may be called with the same arguments. Default: 3.
    pub same_call: usize,
    /// The replies in a row that may be unreadable. Default: 3.
    pub unreadable: usize,
    /// Tokens read and written by the model, and by agents among the tools. Looked at before each turn, so the last turn may exceed it.
    /// Default: none.
    pub tokens: Option<usize>,
    /// The time from the start; a call that is under way is dropped. Waiting for an approval doesn't count. Default: none.
    pub time: Option<Duration>,
    /// The cost, in the currency of `prices`. Looked at before each turn, so the last turn may exceed it. Default: none.
    pub cost: Option<f64>,
    /// What the model's tokens cost; without it the cost is that of the tools. Default: none.
    pub prices: Option<Prices>,
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            steps: 20,
            tool_calls: 50,
            side_by_side: 8,
            same_call: 3,
            unreadable: 3,
            tokens: None,
            time: None,
            cost: None,
            prices: None,
        }
    }
}

impl Limits {
    /// At most this many turns of the model.
    pub fn with_steps(mut self, steps: usize) -> Self {
        self.steps = steps;
        self
    }

    /// At most this many calls of tools.
    pub fn with_tool_calls(mut self, tool_calls: usize) -> Self {
        self.tool_calls = tool_calls;
        self
    }

    /// At most this many calls of one turn side by side; at least 1.
    pub fn with_side_by_side(mut self, calls: usize) -> Self {
        self.side_by_side = calls.max(1);
        self
    }

    /// At most this many calls of the same tool with the same arguments.
    pub fn with_same_call(mut self, times: usize) -> Self {
        self.same_call = times;
        self
    }

    /// At most this many unreadable replies in a row.
    pub fn with_unreadable(mut self, replies: usize) -> Self {
        self.unreadable = replies;
        self
    }

    /// At most this many tokens, read and written together.
    pub fn with_tokens(mut self, tokens: usize) -> Self {
        self.tokens = Some(tokens);
        self
    }

    /// At most this long.
    pub fn with_time(mut self, time: Duration) -> Self {
        self.time = Some(time);
        self
    }

    /// At most this cost, at these prices.
    pub fn with_cost(mut self, cost: f64, prices: Prices) -> Self {
        self.cost = Some(cost);
        self.prices = Some(prices);
        self
    }

    /// No limit on the cost, which is still reckoned at these prices.
    pub fn with_prices(mut self, prices: Prices) -> Self {
        self.prices = Some(prices);
        self
    }
}

/// What a model's tokens cost, per million, in a currency of the user's choice.
///
/// ```
/// use llmkit_core::Usage;
/// use llmkit_prompt::agent::Prices;
///
/// let prices = Prices::new(2.0, 8.0).with_cached(0.5);
/// let usage = Usage { prompt_tokens: 3_000, completion_tokens: 500, cached_tokens: 1_000 };
/// // 2,000 tokens at 2.00, 1,000 at 0.50 and 500 at 8.00 a million.
/// assert!((prices.of(usage) - 0.0085).abs() < 1e-12);
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Prices {
    /// A million tokens read.
    pub input: f64,
    /// A million tokens that were remembered from before.
    pub cached: f64,
    /// A million tokens written.
    pub output: f64,
}

impl Prices {
    /// Prices per million tokens read and written; remembered tokens cost what read ones do.
    pub fn new(input: f64, output: f64) -> Self {
        Self { input, cached: input, output }
    }

    /// The prices with this for a million remembered tokens.
    pub fn with_cached(mut self, cached: f64) -> Self {
        self.cached = cached;
        self
    }

    /// What `usage` costs.
    pub fn of(&self, usage: Usage) -> f64 {
        let cached = usage.cached_tokens.min(usage.prompt_tokens);
        let read = usage.prompt_tokens - cached;
        (read as f64 * self.input
            + cached as f64 * self.cached
            + usage.completion_tokens as f64 * self.output)
            / 1e6
    }
}

/// The limit that an agent reached.
///
/// ```
/// use llmkit_prompt::agent::Limit;
///
/// assert_eq!(Limit::Steps { allowed: 20 }.to_string(), "20 turns of the model are done");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Limit {
    /// The model's turns are used up.
    Steps {
        /// The turns allowed.
        allowed: usize,
    },
    /// The tools' calls are used up.
    ToolCalls {
        /// The calls allowed.
        allowed: usize,
    },
    /// The model keeps making the same call.
    SameCall {
        /// The tool.
        tool: String,
        /// The calls allowed.
        allowed: usize,
    },
    /// The model keeps writing replies that can't be read.
    Unreadable {
        /// The replies in a row allowed.
        allowed: usize,
        /// What is wrong with the last one.
        reason: String,
    },
    /// The tokens are used up.
    Tokens {
        /// The tokens allowed.
        allowed: usize,
        /// Those used.
        used: usize,
    },
    /// The time is over.
    Time {
        /// The time allowed.
        allowed: Duration,
    },
    /// The money is spent.
    Cost {
        /// The cost allowed.
        allowed: f64,
        /// What was spent.
        spent: f64,
    },
    /// The model's answer was cut off at its longest length.
    AnswerLength,
}

impl fmt::Display for Limit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Steps { allowed } => write!(f, "{allowed} turns of the model are done"),
            Self::ToolCalls { allowed } => write!(f, "{allowed} calls of tools are done"),
            Self::SameCall { tool, allowed } => {
                write!(f, "`{tool}` was called {allowed} times with the same arguments and asked for again")
            }
            Self::Unreadable { allowed, reason } => {
                write!(f, "{allowed} replies in a row could not be read; the last one: {reason}")
            }
            Self::Tokens { allowed, used } => write!(f, "{used} tokens are used of {allowed}"),
            Self::Time { allowed } => write!(f, "{allowed:?} are over"),
            Self::Cost { allowed, spent } => write!(f, "{spent} is spent of {allowed}"),
            Self::AnswerLength => f.write_str("the answer was cut off at the model's longest length"),
        }
    }
}
