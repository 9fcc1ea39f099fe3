use super::excerpt;
use super::place::unreadable;
use crate::Result;

/// Which of `labels` the text names: the index in `labels`.
///
/// A text that is a label and nothing else (but punctuation, quotes and Markdown's emphasis) is that label. Otherwise the label that occurs
/// in it as a whole word, in any case; a label within a longer one that occurs ("spam" in "not spam") does not count. In a text
/// of several lines, the last line may decide alone.
///
/// # Errors
/// [`Error::Parse`](crate::Error::Parse) when none of the labels occurs, or several do.
///
/// ```
/// use llmkit_prompt::parse::choice;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// let labels = ["positive", "negative", "not sure"];
/// assert_eq!(choice("**Negative.**", labels)?, 1);
/// assert_eq!(choice("I am not sure about it.", labels)?, 2);
///
/// let error = choice("Positive, or negative?", labels).unwrap_err().to_string();
/// assert_eq!(error, "expected one of \"positive\", \"negative\", \"not sure\", found several of them (\"positive\", \"negative\") in `Positive, or negative?`");
/// # Ok(())
/// # }
/// ```
pub fn choice<L: AsRef<str>>(text: &str, labels: impl IntoIterator<Item = L>) -> Result<usize> {
    let labels: Vec<String> = labels.into_iter().map(|label| label.as_ref().to_owned()).collect();
    let folded: Vec<String> = labels.iter().map(|label| bare(label).to_lowercase()).collect();
    let answer = bare(text).to_lowercase();
    if let Some(index) = labels.iter().position(|label| label == text.trim()) {
        return Ok(index);
    }
    if let Some(index) = folded.iter().position(|label| *label == answer) {
        return Ok(index);
    }
    let found = occurring(&answer, &folded);
    let found = match (found.as_slice(), answer.trim_end().rsplit_once('\n')) {
        ([_, _, ..], Some((_, last))) => {
            Some(occurring(last, &folded)).filter(|last| last.len() == 1).unwrap_or(found)
        }
        _ => found,
    };
    let names =
        |chosen: &[usize]| chosen.iter().map(|i| format!("{:?}", labels[*i])).collect::<Vec<_>>().join(", ");
    let what = match found.as_slice() {
        [index] => return Ok(*index),
        [] => excerpt(text),
        several => format!("several of them ({}) in {}", names(several), excerpt(text)),
    };
    let all: Vec<usize> = (0..labels.len()).collect();
    Err(unreadable(format!("one of {}", names(&all)), what))
}

/// Whether the text says yes: its first word does if it is an answer (yes, no, true, false and their like, in English and Chinese, or 1, 0),
/// else the only such word in it.
///
/// # Errors
/// [`Error::Parse`](crate::Error::Parse) when it says neither, or both.
///
/// ```
/// use llmkit_prompt::parse::boolean;
///
/// # fn main() -> Result<(), llmkit_prompt::Error> {
/// assert!(boolean("Yes, although there is no proof.")?);
/// assert!(!boolean("The answer is: **False**")?);
/// assert!(boolean("Perhaps.").is_err());
/// # Ok(())
/// # }
/// ```
pub fn boolean(text: &str) -> Result<bool> {
    let answer = bare(text).to_lowercase();
    let first = answer.split(|c: char| !c.is_alphanumeric()).next().unwrap_or_default();
    for (says, words) in [(true, YES), (false, NO)] {
        // "1." begins a list and "N/A" an evasion: one letter or digit answers only by itself.
        let alone = answer.trim_matches(|c: char| !c.is_alphanumeric()) == first;
        if words.contains(&first) && (first.len() > 1 || alone) {
            return Ok(says);
        }
    }
    let clear = |words: &[&str]| {
        let words: Vec<String> =
            words.iter().filter(|word| word.len() > 1).map(|word| (*word).to_owned()).collect();
        !occurring(&answer, &words).is_empty()
    };
    match (clear(YES), clear(NO)) {
        (true, false) => Ok(true),
        (false, true) => Ok(false),
        (true, true) => Err(unreadable("yes or no", format!("both in {}", excerpt(text)))),
        (false, false) => Err(unreadable("yes or no", excerpt(text))),
    }
}

const YES: &[&str] = &["yes", "true", "y", "1", "correct", "是", "是的", "对", "真"];
const NO: &[&str] = &["no", "false", "n", "0", "incorrect", "否", "不是", "不", "错", "假"];

fn bare(text: &str) -> &str {
    text.trim_matches(|c: char| c.is_whitespace() || "*_`\"'“”‘’.!。！:：()[]".contains(c))
}

/// The labels that occur as whole words, the longer first: what they cover is not searched again.
fn occurring(text: &str, labels: &[String]) -> Vec<usize> {
    let mut longest: Vec<usize> = (0..labels.len()).filter(|index| !labels[*index].is_empty()).collect();
    longest.sort_by_key(|index| std::cmp::Reverse(labels[*index].len()));
    let mut text = text.to_owned();
    let mut found = Vec::new();
    for index in longest {
        let label = &labels[index];
        let places: Vec<usize> = text
            .match_indices(label.as_str())
            .map(|(at, _)| at)
            .filter(|at| is_word(&text, *at, label))
            .collect();
        if !places.is_empty() {
            found.push(index);
        }
        let mut bytes = text.into_bytes();
        for at in places {
            bytes[at..at + label.len()].fill(0);
        }
        text = String::from_utf8(bytes).expect("whole labels were blanked");
    }
    found.sort_unstable();
    found
}

fn is_word(text: &str, at: usize, label: &str) -> bool {
    // Chinese has no spaces; a word there may touch others.
    let joins =
        |c: char| c.is_alphanumeric() && c.is_ascii() || c == '_' || (c.is_alphabetic() && c < '\u{2e80}');
    let edge =
        |inner: Option<char>, outer: Option<char>| !(inner.is_some_and(joins) && outer.is_some_and(joins));
    edge(label.chars().next(), text[..at].chars().next_back())
        && edge(label.chars().next_back(), text[at + label.len()..].chars().next())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn labels_are_whole_words_and_the_longest_wins() {
        assert_eq!(choice("It is not spam", ["spam", "not spam"]).unwrap(), 1);
        assert_eq!(choice("(B)", ["A", "B"]).unwrap(), 1);
        assert_eq!(choice("Answer: B", ["A", "B"]).unwrap(), 1);
        assert_eq!(choice("a", ["A", "a"]).unwrap(), 1);
        assert_eq!(choice("情感是正面的", ["正面", "负面"]).unwrap(), 0);
        assert_eq!(choice("Either red or blue.\nFinal: blue", ["red", "blue"]).unwrap(), 1);
        assert!(choice("blueish", ["red", "blue"]).is_err());
        assert!(choice("", ["red", ""]).is_ok());
        assert!(choice("x", Vec::<String>::new()).is_err());
    }

    #[test]
    fn yes_and_no() {
        for (text, expected) in [
            ("TRUE", true),
            ("no.", false),
            ("1", true),
            ("是的。", true),
            ("不是", false),
            ("So it is correct", true),
        ] {
            assert_eq!(boolean(text).unwrap(), expected, "{text}");
        }
        assert!(boolean("").is_err());
        assert!(boolean("It could be true or false").unwrap_err().to_string().contains("both in"));
    }
}
