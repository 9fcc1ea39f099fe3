use std::fmt;
use std::sync::Arc;

use async_trait::async_trait;
use serde::Serialize;

use super::Example;
use crate::Result;

/// Chooses the examples that a prompt shows.
///
/// A selector sees the candidates and the query as texts to compare, and gives back its choice, the best first. It need not know of
/// templates, orders or budgets: those are [`FewShot`](super::FewShot)'s.
///
/// ```
/// use async_trait::async_trait;
/// use llmkit_prompt::few_shot::{Candidate, ExampleSelector, Query, Selected, Why};
/// use llmkit_prompt::Result;
///
/// /// Prefers examples that are about as long as the query.
/// struct Alike;
///
/// #[async_trait]
/// impl ExampleSelector for Alike {
///     fn name(&self) -> &str {
///         "alike"
///     }
///
///     async fn select(&self, candidates: &[Candidate<'_>], query: &Query<'_>, count: usize) -> Result<Vec<Selected>> {
///         let gap = |candidate: &Candidate<'_>| candidate.key.len().abs_diff(query.key.len());
///         let mut nearest: Vec<&Candidate<'_>> = candidates.iter().collect();
///         nearest.sort_by_key(|candidate| gap(candidate));
///         let chosen = nearest.into_iter().take(count).map(|candidate| {
///             let gap = gap(candidate);
///             Selected::new(candidate.index, -(gap as f64), Why::Other(format!("{gap} bytes longer or shorter")))
///         });
///         Ok(chosen.collect())
///     }
/// }
/// ```
#[async_trait]
pub trait ExampleSelector: Send + Sync {
    /// What the method is called, for traces and errors.
    fn name(&self) -> &str;

    /// At most `count` of the candidates, the best first, none twice; fewer if no more are good enough.
    ///
    /// The choice must depend on nothing but the arguments and the selector's own settings.
    ///
    /// # Errors
    /// Whatever keeps it from choosing, for instance an embedder that fails.
    async fn select(
        &self,
        candidates: &[Candidate<'_>],
        query: &Query<'_>,
        count: usize,
    ) -> Result<Vec<Selected>>;
}

#[async_trait]
impl<S: ExampleSelector + ?Sized> ExampleSelector for Arc<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    async fn select(
        &self,
        candidates: &[Candidate<'_>],
        query: &Query<'_>,
        count: usize,
    ) -> Result<Vec<Selected>> {
        (**self).select(candidates, query, count).await
    }
}

#[async_trait]
impl<S: ExampleSelector + ?Sized> ExampleSelector for Box<S> {
    fn name(&self) -> &str {
        (**self).name()
    }

    async fn select(
        &self,
        candidates: &[Candidate<'_>],
        query: &Query<'_>,
        count: usize,
    ) -> Result<Vec<Selected>> {
        (**self).select(candidates, query, count).await
    }
}

/// An example that may be chosen; [`ExampleSelector`] shows it in use.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Candidate<'a> {
    /// Its place among all examples, from 0: what [`Selected::index`] repeats.
    pub index: usize,
    /// All its fields.
    pub example: &'a Example,
    /// The text that is compared with the query's: by default the values of the fields that the input template uses, one a line.
    pub key: &'a str,
    /// What it costs in the prompt, in tokens.
    pub tokens: usize,
}

/// What the examples are chosen for; [`ExampleSelector`] shows it in use.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Query<'a> {
    /// The text that is compared with [`Candidate::key`].
    pub key: &'a str,
    /// What the query itself costs in the prompt, in tokens.
    pub tokens: usize,
}

/// A chosen example, with its score and what the score is made of.
///
/// ```
/// use llmkit_prompt::few_shot::{Selected, Why};
///
/// let selected = Selected::new(3, 0.82, Why::Similarity { cosine: 0.82 });
/// assert_eq!(selected.why.to_string(), "cosine 0.820");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct Selected {
    /// The example's [`Candidate::index`].
    pub index: usize,
    /// How well it serves the query; higher is better. The scale is the selector's own.
    pub score: f64,
    /// Where the score comes from.
    pub why: Why,
}

impl Selected {
    /// The choice of the example `index`.
    pub fn new(index: usize, score: f64, why: Why) -> Self {
        Self { index, score, why }
    }
}

/// What a score is made of; displayed for people.
///
/// ```
/// use llmkit_prompt::few_shot::Why;
///
/// let why = Why::Mmr { lambda: 0.5, similarity: 0.8, redundancy: 0.6, nearest: Some(3) };
/// assert_eq!(why.to_string(), "0.50 x 0.800 like the query - 0.50 x 0.600 like example 3");
/// ```
#[derive(Debug, Clone, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
#[non_exhaustive]
pub enum Why {
    /// It was next, and there was room.
    Room {
        /// What it costs, in tokens.
        tokens: usize,
        /// What was left before it, in tokens; none where there is no limit.
        left: Option<usize>,
    },
    /// It was drawn.
    Draw {
        /// What fixes the draw.
        seed: u64,
    },
    /// It shares words and sequences of words with the query.
    Overlap {
        /// The share of the query's sequences of 1 to 4 words that it has, as far as the query is long enough, smoothed.
        precisions: Vec<f64>,
        /// The factor, up to 1, for a query that is shorter than it.
        brevity: f64,
    },
    /// Its vector is near the query's.
    Similarity {
        /// The cosine of the angle between the two.
        cosine: f64,
    },
    /// It is near the query and unlike those chosen before it.
    Mmr {
        /// The weight of the first of the two.
        lambda: f64,
        /// The cosine with the query.
        similarity: f64,
        /// The largest cosine with an example chosen before it; 0 for the first.
        redundancy: f64,
        /// The example of that cosine.
        nearest: Option<usize>,
    },
    /// It is the best left of its class.
    Class {
        /// The class.
        class: String,
        /// Its rank within it, from 1.
        rank: usize,
        /// What the score within the class is made of.
        why: Box<Why>,
    },
    /// Something else, in words.
    Other(String),
}

impl fmt::Display for Why {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Room { tokens, left: Some(left) } => write!(f, "{tokens} tokens where {left} were left"),
            Self::Room { tokens, left: None } => write!(f, "{tokens} tokens, next in order"),
            Self::Draw { seed } => write!(f, "drawn with seed {seed}"),
            Self::Overlap { precisions, brevity } => {
                for (index, precision) in precisions.iter().enumerate() {
                    write!(f, "{}{}-grams {precision:.3}", if index > 0 { ", " } else { "" }, index + 1)?;
                }
                write!(f, ", brevity {brevity:.3}")
            }
            Self::Similarity { cosine } => write!(f, "cosine {cosine:.3}"),
            Self::Mmr { lambda, similarity, redundancy, nearest } => {
                write!(f, "{lambda:.2} x {similarity:.3} like the query")?;
                match nearest {
                    Some(index) => write!(f, " - {:.2} x {redundancy:.3} like example {index}", 1.0 - lambda),
                    None => write!(f, ", the first"),
                }
            }
            Self::Class { class, rank, why } => write!(f, "number {rank} of `{class}`: {why}"),
            Self::Other(text) => f.write_str(text),
        }
    }
}
