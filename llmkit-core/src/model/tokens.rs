use crate::Result;

/// Counts the tokens of a text, to keep prompts within a budget.
pub trait TokenCounter: Send + Sync {
    /// How many tokens `text` has, without special tokens around it.
    ///
    /// # Errors
    /// Where the tokenizer refuses the text.
    fn count(&self, text: &str) -> Result<usize>;
}

/// Estimates tokens without a tokenizer: four characters of a script with an alphabet make one, and each other character (Chinese, Japanese,
/// Korean, emoji) is one by itself.
///
/// Good to about a quarter for English and Chinese on today's tokenizers; leave room, or count with the model's own tokenizer.
///
/// ```
/// use llmkit_core::{ApproximateTokens, TokenCounter};
///
/// assert_eq!(ApproximateTokens.count("What is a tureen?")?, 5);
/// assert_eq!(ApproximateTokens.count("什么是汤盘")?, 5);
/// # Ok::<(), llmkit_core::Error>(())
/// ```
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ApproximateTokens;

impl TokenCounter for ApproximateTokens {
    fn count(&self, text: &str) -> Result<usize> {
        let (mut alphabetic, mut other) = (0_usize, 0_usize);
        for character in text.chars() {
            // What comes before U+2E80 are the alphabets of Europe, the Near East and India, and their punctuation.
            if character < '\u{2E80}' { alphabetic += 1 } else { other += 1 }
        }
        Ok(alphabetic.div_ceil(4) + other)
    }
}
