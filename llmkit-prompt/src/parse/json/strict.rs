//! Where a value of valid JSON ends, without building it.

use super::MAX_DEPTH;

/// The end of the valid JSON value that begins at `start`, or none. Iterative; looks at each byte once.
pub(super) fn value_end(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start;
    // Whether each open bracket is an object's.
    let mut open: Vec<bool> = Vec::new();
    loop {
        at = skip_space(bytes, at);
        // A value.
        match *bytes.get(at)? {
            bracket @ (b'{' | b'[') => {
                at = skip_space(bytes, at + 1);
                let close = if bracket == b'{' { b'}' } else { b']' };
                if bytes.get(at) == Some(&close) {
                    at += 1;
                } else {
                    open.push(bracket == b'{');
                    if open.len() > MAX_DEPTH {
                        return None;
                    }
                    if bracket == b'{' {
                        at = key(bytes, at)?;
                    }
                    continue;
                }
            }
            b'"' => at = string(bytes, at)?,
            b't' => at = literal(bytes, at, b"true")?,
            b'f' => at = literal(bytes, at, b"false")?,
            b'n' => at = literal(bytes, at, b"null")?,
            _ => at = number(bytes, at)?,
        }
        // What follows a value.
        loop {
            let Some(is_object) = open.last() else { return Some(at) };
            at = skip_space(bytes, at);
            match (bytes.get(at)?, is_object) {
                (b'}', true) | (b']', false) => {
                    open.pop();
                    at += 1;
                }
                (b',', true) => {
                    at = key(bytes, skip_space(bytes, at + 1))?;
                    break;
                }
                (b',', false) => {
                    at += 1;
                    break;
                }
                _ => return None,
            }
        }
    }
}

fn skip_space(bytes: &[u8], mut at: usize) -> usize {
    while matches!(bytes.get(at), Some(b' ' | b'\n' | b'\r' | b'\t')) {
        at += 1;
    }
    at
}

/// Behind the key and its colon.
fn key(bytes: &[u8], at: usize) -> Option<usize> {
    let at = skip_space(bytes, string(bytes, at)?);
    (bytes.get(at) == Some(&b':')).then_some(at + 1)
}

fn literal(bytes: &[u8], at: usize, word: &[u8]) -> Option<usize> {
    bytes[at..].starts_with(word).then_some(at + word.len())
}

fn string(bytes: &[u8], mut at: usize) -> Option<usize> {
    if bytes.get(at) != Some(&b'"') {
        return None;
    }
    at += 1;
    loop {
        at = match *bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => escape(bytes, at + 1)?,
            0..0x20 => return None,
            _ => at + 1,
        }
    }
}

fn escape(bytes: &[u8], at: usize) -> Option<usize> {
    match bytes.get(at)? {
        b'"' | b'\\' | b'/' | b'b' | b'f' | b'n' | b'r' | b't' => Some(at + 1),
        b'u' => match hex(bytes, at + 1)? {
            0xd800..0xdc00 => {
                let low =
                    bytes.get(at + 5..at + 7)? == b"\\u" && (0xdc00..0xe000).contains(&hex(bytes, at + 7)?);
                low.then_some(at + 11)
            }
            0xdc00..0xe000 => None,
            _ => Some(at + 5),
        },
        _ => None,
    }
}

fn hex(bytes: &[u8], at: usize) -> Option<u32> {
    let digits = bytes.get(at..at + 4)?;
    digits.iter().try_fold(0, |code, byte| Some(code * 16 + char::from(*byte).to_digit(16)?))
}

fn number(bytes: &[u8], start: usize) -> Option<usize> {
    let digits = |mut at: usize| {
        let from = at;
        while matches!(bytes.get(at), Some(b'0'..=b'9')) {
            at += 1;
        }
        (at > from).then_some(at)
    };
    let sign = usize::from(bytes.get(start) == Some(&b'-'));
    let mut at =
        if bytes.get(start + sign) == Some(&b'0') { start + sign + 1 } else { digits(start + sign)? };
    if bytes.get(at) == Some(&b'.') {
        at = digits(at + 1)?;
    }
    if matches!(bytes.get(at), Some(b'e' | b'E')) {
        let sign = usize::from(matches!(bytes.get(at + 1), Some(b'+' | b'-')));
        at = digits(at + 1 + sign)?;
    }
    // `01`, `1.2.3`, `1a` are none.
    if let Some(b'0'..=b'9' | b'a'..=b'z' | b'A'..=b'Z' | b'.' | b'_' | b'-' | b'+') = bytes.get(at) {
        return None;
    }
    let value: f64 = std::str::from_utf8(&bytes[start..at]).ok()?.parse().ok()?;
    value.is_finite().then_some(at)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ends_of_values() {
        for (text, end) in [
            ("{} x", Some(2)),
            ("[1, {\"a\": [null, -0.5e+3]}] tail", Some(27)),
            ("\"a\\\"b\"", Some(6)),
            ("{\"a\": 1", None),
            ("[1,]", None),
            ("{a: 1}", None),
            ("[01]", None),
            ("\"a\nb\"", None),
            ("\"a\\", None),
        ] {
            assert_eq!(value_end(text.as_bytes(), 0), end, "{text}");
        }
        assert_eq!(value_end("[".repeat(1 << 20).as_bytes(), 0), None);
    }
}
