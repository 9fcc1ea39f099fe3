//! What stands without quotes: literals, numbers, bare keys and texts.

use serde_json::Value;

use super::repair::{Reader, is_space};
use super::report::RepairKind as Kind;
use super::text::family;

/// The longest word that is tried as a number or literal, in bytes.
const WORD: usize = 48;

impl Reader<'_> {
    /// Reads a key without quotes, or skips words that are none.
    pub(super) fn bare_key(&mut self) -> Option<String> {
        let here = self.at;
        let rest = &self.text[here..self.limit];
        let stops = |c: char| {
            matches!(c, ':' | '：' | '=' | ',' | '{' | '}' | '[' | ']' | '\n') || family(c) == Some('"')
        };
        let end = rest.find(stops).unwrap_or(rest.len());
        let mut behind = here + end;
        let quoted = self.quote_at(behind).is_some();
        if quoted {
            behind += self.text[behind..].chars().next().map_or(0, char::len_utf8);
        }
        let name = rest[..end].trim();
        let colon = self.skipped(behind);
        let is_key = !name.is_empty() && self.text[colon..self.limit].starts_with([':', '：', '=']);
        self.at =
            if is_key { colon } else { behind.max(here + rest.chars().next().map_or(0, char::len_utf8)) };
        if !is_key {
            self.log.add(here, Kind::StrayText);
            return None;
        }
        self.bare_keys |= !quoted;
        self.log.add(here, if quoted { Kind::MissingQuote } else { Kind::UnquotedKey });
        Some(name.to_owned())
    }

    /// Reads a value without quotes.
    pub(super) fn unquoted(&mut self) -> Option<Value> {
        let start = self.at;
        let in_object = self.in_object();
        let (mut parentheses, mut spaced) = (0usize, false);
        while let Some(c) = self.peek() {
            let here = self.at;
            let behind = here + c.len_utf8();
            let so_far = self.text[start..here].trim_end();
            let begun = here > start;
            match c {
                '\n' | '\r' | '}' | ']' => break,
                '(' => parentheses += 1,
                ')' if parentheses == 0 => break,
                ')' => parentheses -= 1,
                '{' | '[' if begun && is_plain(so_far) => break,
                ',' | '，' | '、' if in_object != Some(true) => break,
                ',' | '，' | '、' => {
                    let next = self.skipped(behind);
                    let line_ends = self.text[behind..next].contains('\n') || next >= self.limit;
                    let thousands = next == behind && self.groups_of_three(so_far, behind);
                    if line_ends
                        || self.bytes[next] == b'}'
                        || self.key_at(next).is_some()
                        || is_plain(so_far) && !thousands
                    {
                        break;
                    }
                }
                '/' if begun
                    && (self.text[here..].starts_with("/*") || self.text[here..].starts_with("//"))
                    && (is_plain(so_far) || self.text[..here].ends_with(is_space)) =>
                {
                    break;
                }
                '#' if self.text[..here].ends_with(is_space) => break,
                _ if is_space(c) && !spaced => {
                    spaced = true;
                    let next = self.skipped(here);
                    let another = next < self.limit
                        && (matches!(self.bytes[next], b'0'..=b'9' | b'-' | b'+' | b'/' | b'#')
                            || self.literal_at(next));
                    if is_plain(so_far) && (another || self.key_at(next) == Some(true)) {
                        break;
                    }
                }
                _ if family(c) == Some('"') && begun => {
                    if is_plain(so_far) || self.key_at(here) == Some(true) {
                        break;
                    }
                    if matches!(self.next_visible(behind), Some(b',' | b'}' | b']') | None) {
                        self.log.add(start, Kind::MissingQuote);
                        self.at = behind;
                        return Some(Value::String(so_far.to_owned()));
                    }
                }
                _ => {}
            }
            self.at = behind;
        }
        let word = self.text[start..self.at].trim();
        let cut_off = self.at >= self.limit && in_object.is_some();
        if word.is_empty() {
            return None;
        }
        let (value, kind) = plain(word)
            .or_else(|| unfinished(word).filter(|_| cut_off))
            .unwrap_or_else(|| (Value::String(word.to_owned()), Some(Kind::UnquotedText)));
        if let Some(kind) = kind {
            self.log.add(start, kind);
        }
        Some(value)
    }

    /// Whether `1` here is followed by `,000` and no more digits.
    fn groups_of_three(&self, so_far: &str, at: usize) -> bool {
        let digits =
            self.bytes[at..self.limit].iter().take(4).take_while(|byte| byte.is_ascii_digit()).count();
        let last = so_far.rsplit(',').next().unwrap_or_default().trim_start_matches(['-', '+']);
        digits == 3 && (1..=3).contains(&last.len()) && last.bytes().all(|byte| byte.is_ascii_digit())
    }

    /// Whether a word like `true` or `None` begins here.
    pub(super) fn literal_at(&self, at: usize) -> bool {
        let rest = self.text.get(at..self.limit).unwrap_or_default();
        let end = rest.bytes().take(10).take_while(u8::is_ascii_alphabetic).count();
        !rest[end..].starts_with(|c: char| c.is_alphanumeric() || c == '_') && literal(&rest[..end]).is_some()
    }
}

/// Whether the word is a number or a literal.
fn is_plain(word: &str) -> bool {
    plain(word).is_some()
}

fn plain(word: &str) -> Option<(Value, Option<Kind>)> {
    if word.len() > WORD {
        return serde_json::from_str(word).ok().filter(Value::is_number).map(|value| (value, None));
    }
    literal(word).or_else(|| number(word))
}

fn literal(word: &str) -> Option<(Value, Option<Kind>)> {
    let value = match word {
        "true" => return Some((Value::Bool(true), None)),
        "false" => return Some((Value::Bool(false), None)),
        "null" => return Some((Value::Null, None)),
        _ => match word.to_ascii_lowercase().as_str() {
            "true" => Value::Bool(true),
            "false" => Value::Bool(false),
            "null" | "none" | "nil" | "undefined" => Value::Null,
            "nan" | "infinity" | "-infinity" | "+infinity" | "inf" | "-inf" => {
                return Some((Value::Null, Some(Kind::NotANumber)));
            }
            _ => return None,
        },
    };
    Some((value, Some(Kind::Literal)))
}

/// A literal that was cut off.
fn unfinished(word: &str) -> Option<(Value, Option<Kind>)> {
    let value = match word {
        _ if "true".starts_with(word) || "True".starts_with(word) => Value::Bool(true),
        _ if "false".starts_with(word) || "False".starts_with(word) => Value::Bool(false),
        _ if "null".starts_with(word) || "None".starts_with(word) => Value::Null,
        _ => return None,
    };
    Some((value, Some(Kind::Literal)))
}

fn number(word: &str) -> Option<(Value, Option<Kind>)> {
    if !word.contains(|c: char| c.is_ascii_digit()) {
        return None;
    }
    if let Ok(value @ Value::Number(_)) = serde_json::from_str(word) {
        return Some((value, None));
    }
    let (sign, body) = match word.strip_prefix(['-', '+']) {
        Some(body) => (if word.starts_with('-') { "-" } else { "" }, body),
        None => ("", word),
    };
    if let Some(hex) = body.strip_prefix("0x").or_else(|| body.strip_prefix("0X")) {
        let value = i64::from_str_radix(hex, 16).ok().filter(|_| !hex.starts_with(['+', '-']))?;
        return Some((Value::from(if sign.is_empty() { value } else { -value }), Some(Kind::Number)));
    }
    let body = ungrouped(body)?;
    let (mantissa, exponent) = match body.find(['e', 'E']) {
        Some(at) => body.split_at(at),
        None => (body.as_str(), ""),
    };
    let (whole, fraction) = mantissa.split_once('.').unwrap_or((mantissa, ""));
    let whole = whole.trim_start_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    let point = if mantissa.contains('.') { "." } else { "" };
    let zero = if point == "." && fraction.is_empty() { "0" } else { "" };
    let standard = format!("{sign}{whole}{point}{fraction}{zero}{exponent}");
    match serde_json::from_str(&standard) {
        Ok(value @ Value::Number(_)) => Some((value, Some(Kind::Number))),
        _ => None,
    }
}

/// Without separators of thousands: `1,000` and `1_000`.
fn ungrouped(body: &str) -> Option<String> {
    if body.contains(',') {
        let whole = body.split('.').next().unwrap_or_default();
        let mut groups = whole.split(',');
        let first = groups.next().unwrap_or_default();
        if !(1..=3).contains(&first.len()) || !groups.all(|group| group.len() == 3) {
            return None;
        }
    }
    let begins = body.starts_with(|c: char| c.is_ascii_digit() || c == '.');
    begins.then(|| body.replace([',', '_'], ""))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn numbers_in_other_notations() {
        for (word, expected) in [
            ("+1", json!(1)),
            (".5", json!(0.5)),
            ("-.5", json!(-0.5)),
            ("5.", json!(5.0)),
            ("007", json!(7)),
            ("1,234,567.5", json!(1_234_567.5)),
            ("1_000", json!(1000)),
            ("0x1F", json!(31)),
            ("1.e3", json!(1000.0)),
        ] {
            assert_eq!(number(word), Some((expected, Some(Kind::Number))), "{word}");
        }
        for word in ["1,00", "1.2.3", "10kg", "--1", "1e999", "0x", "2024-01-01", "1/2", "."] {
            assert_eq!(number(word), None, "{word}");
        }
    }
}
