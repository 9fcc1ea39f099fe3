use std::fmt;

use serde_json::Value;

/// What takes a secret's place.
const REDACTED: &str = "[redacted]";

/// The fewest bytes that count as a secret: shorter values (a version, a flag) say nothing and would tear holes in messages.
const SHORTEST: usize = 6;

/// What must never appear in an error, a log or a `Debug` output: the API key and the values of the caller's own headers.
#[derive(Clone, Default)]
pub(super) struct Secrets(Vec<String>);

impl Secrets {
    /// Adds `secret`, and its spelling inside a JSON string where that differs.
    pub(super) fn add(&mut self, secret: &str) {
        let secret = secret.trim();
        if secret.len() < SHORTEST {
            return;
        }
        let quoted = Value::from(secret).to_string();
        let escaped = quoted.trim_matches('"').to_owned();
        for spelling in [secret.to_owned(), secret.replace('/', "\\/"), escaped] {
            if !self.0.contains(&spelling) {
                self.0.push(spelling);
            }
        }
        // A secret that contains another goes first, or its remainder would stay.
        self.0.sort_by_key(|secret| std::cmp::Reverse(secret.len()));
    }

    /// Adds the parts of a header's value: in `Bearer x`, the key is `x`, and servers echo either.
    pub(super) fn add_header(&mut self, value: &str) {
        self.add(value);
        for part in value.split_whitespace() {
            // The scheme of an `Authorization` header is no secret.
            if !["bearer", "basic", "digest"].contains(&part.to_ascii_lowercase().as_str()) {
                self.add(part);
            }
        }
    }

    /// `text` without the secrets.
    pub(super) fn redact(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| {
            if text.contains(secret.as_str()) { text.replace(secret.as_str(), REDACTED) } else { text }
        })
    }

    /// `text` as part of an error's message: without secrets, on one line, without control characters (which a terminal would obey), and at most
    /// `limit` characters. Secrets go first, so that no cut leaves half of one.
    pub(super) fn quote(&self, text: &str, limit: usize) -> String {
        let clean = self.redact(text.trim());
        let mut words = String::new();
        let mut length = 0;
        for character in clean.chars() {
            let character = if character.is_control() || character.is_whitespace() { ' ' } else { character };
            if character == ' ' && (words.is_empty() || words.ends_with(' ')) {
                continue;
            }
            if length == limit {
                return format!("{}…", words.trim_end());
            }
            words.push(character);
            length += 1;
        }
        words.truncate(words.trim_end().len());
        words
    }
}

impl fmt::Debug for Secrets {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(REDACTED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_disappears_however_it_is_echoed() {
        let mut secrets = Secrets::default();
        secrets.add(" sk-abc/\"defg\n");
        secrets.add_header("Bearer token-12345");
        for echo in [
            "bad key sk-abc/\"defg here",
            r#"{"message": "bad key sk-abc/\"defg"}"#,
            r#"bad key sk-abc\/"defg"#,
            "got Bearer token-12345",
            "got token-12345!",
        ] {
            let text = secrets.redact(echo);
            assert!(text.contains(REDACTED) && !text.contains("abc") && !text.contains("12345"), "{text}");
        }
        assert_eq!(secrets.redact("Bearer with us"), "Bearer with us");
        assert_eq!(format!("{secrets:?}"), REDACTED);
    }

    #[test]
    fn a_quotation_is_short_and_harmless_and_cuts_no_secret_in_half() {
        let mut secrets = Secrets::default();
        secrets.add("sk-abcdefgh");
        assert_eq!(secrets.quote("a\u{1b}[31m\r\n  b", 20), "a [31m b");
        assert_eq!(secrets.quote("éééé", 2), "éé…");
        assert_eq!(secrets.quote("1234 sk-abcdefgh", 9), "1234 [red…");
        assert_eq!(secrets.quote("ab ", 2), "ab");
    }
}
