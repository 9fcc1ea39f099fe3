//! The tags of a template and what is written in them.
//!
//! This is no parser: the engine has accepted the template before anything here reads it, so brackets close and blocks are well nested.
//! It splits as the engine's lexer does, for [`analysis`](super::analysis) to see which variables go where.

use std::ops::Range;

/// A `{{ expression }}` or `{% statement %}`, with what is inside.
#[derive(Debug)]
pub(super) struct Tag<'a> {
    /// The statement's first word; `None` for an expression.
    pub(super) statement: Option<&'a str>,
    /// Where the content lies in the source, without the delimiters.
    pub(super) body: Range<usize>,
    /// The content, without the statement's first word.
    pub(super) tokens: Vec<Token<'a>>,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Token<'a> {
    pub(super) kind: Kind<'a>,
    /// The first byte.
    pub(super) start: usize,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Kind<'a> {
    Name(&'a str),
    Number(&'a str),
    /// A string literal, as it stands between its quotes.
    Text(&'a str),
    /// An operator or a bracket.
    Sign(&'a str),
}

impl<'a> Token<'a> {
    pub(super) fn is_sign(&self, sign: &str) -> bool {
        self.kind == Kind::Sign(sign)
    }

    pub(super) fn is_name(&self, name: &str) -> bool {
        self.kind == Kind::Name(name)
    }

    pub(super) fn name(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Name(name) => Some(name),
            _ => None,
        }
    }

    /// A string literal without escapes.
    pub(super) fn plain_text(&self) -> Option<&'a str> {
        match self.kind {
            Kind::Text(text) if !text.contains('\\') => Some(text),
            _ => None,
        }
    }
}

/// All tags in order. Comments and raw blocks are passed over.
pub(super) fn tags(source: &str) -> Vec<Tag<'_>> {
    let mut found = Vec::new();
    let mut at = 0;
    while let Some(offset) = source[at..].find('{') {
        let start = at + offset;
        at = match source.as_bytes().get(start + 1) {
            Some(b'#') => {
                let body = start + 2;
                source[body..].find("#}").map_or(source.len(), |end| body + end + 2)
            }
            Some(b'{') => {
                let (tag, end) = tag(source, start + 2, "}}");
                found.push(tag);
                end
            }
            Some(b'%') => {
                let (mut tag, end) = tag(source, start + 2, "%}");
                match tag.tokens.first().and_then(Token::name) {
                    Some("raw") if tag.tokens.len() == 1 => end_of_raw(source, end),
                    word => {
                        tag.statement = Some(word.unwrap_or_default());
                        tag.tokens.drain(..usize::from(word.is_some()));
                        found.push(tag);
                        end
                    }
                }
            }
            _ => start + 1,
        };
    }
    found
}

/// Where the lines of a text begin, to find the line of a byte.
#[derive(Debug, Clone)]
pub(super) struct Lines(Vec<usize>);

impl Lines {
    pub(super) fn new(source: &str) -> Self {
        Self(source.bytes().enumerate().filter(|(_, byte)| *byte == b'\n').map(|(at, _)| at).collect())
    }

    /// The line of the byte `at`, from 1.
    pub(super) fn of(&self, at: usize) -> usize {
        1 + self.0.partition_point(|newline| *newline < at)
    }
}

/// The index of the bracket that closes the one at `open`, or the end.
pub(super) fn closing(tokens: &[Token<'_>], open: usize) -> usize {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate().skip(open) {
        match token.kind {
            Kind::Sign("(" | "[" | "{") => depth += 1,
            Kind::Sign(")" | "]" | "}") => {
                depth = depth.saturating_sub(1);
                if depth == 0 {
                    return index;
                }
            }
            _ => {}
        }
    }
    tokens.len()
}

/// The first token outside brackets for which `wanted` holds.
pub(super) fn find_outside<'a>(tokens: &[Token<'a>], wanted: impl Fn(&Token<'a>) -> bool) -> Option<usize> {
    let mut depth = 0_usize;
    for (index, token) in tokens.iter().enumerate() {
        if depth == 0 && wanted(token) {
            return Some(index);
        }
        match token.kind {
            Kind::Sign("(" | "[" | "{") => depth += 1,
            Kind::Sign(")" | "]" | "}") => depth = depth.saturating_sub(1),
            _ => {}
        }
    }
    None
}

/// The parts between the commas outside brackets; none where there is nothing.
pub(super) fn split_commas<'t, 'a>(mut tokens: &'t [Token<'a>]) -> Vec<&'t [Token<'a>]> {
    let mut parts = Vec::new();
    while !tokens.is_empty() {
        let end = find_outside(tokens, |token| token.is_sign(",")).unwrap_or(tokens.len());
        parts.push(&tokens[..end]);
        tokens = tokens.get(end + 1..).unwrap_or_default();
    }
    parts
}

fn tag<'a>(source: &'a str, mut at: usize, close: &str) -> (Tag<'a>, usize) {
    let bytes = source.as_bytes();
    at += usize::from(matches!(bytes.get(at), Some(b'-' | b'+')));
    let start = at;
    let mut tokens = Vec::new();
    // Within brackets `}}` and `%}` close nothing.
    let mut depth = 0_isize;
    while let Some(&byte) = bytes.get(at) {
        let rest = &source[at..];
        if depth == 0 {
            let marked = rest.strip_prefix(['-', '+']).filter(|rest| rest.starts_with(close));
            if marked.is_some() || rest.starts_with(close) {
                let end = at + usize::from(marked.is_some()) + close.len();
                return (Tag { statement: None, body: start..at, tokens }, end);
            }
        }
        let (kind, length) = match byte {
            byte if byte.is_ascii_whitespace() => {
                at += 1;
                continue;
            }
            b'"' | b'\'' => {
                let end = string_end(bytes, at);
                (Kind::Text(source.get(at + 1..end).unwrap_or_default()), end + 1 - at)
            }
            byte if is_name_byte(byte) => {
                let length = bytes[at..].iter().take_while(|byte| is_name_byte(**byte)).count();
                let word = &source[at..at + length];
                (if byte.is_ascii_digit() { Kind::Number(word) } else { Kind::Name(word) }, length)
            }
            _ => {
                let two = rest.get(..2).filter(|two| ["==", "!=", "<=", ">=", "**", "//"].contains(two));
                let sign = two.unwrap_or(&rest[..1]);
                match sign {
                    "(" | "[" | "{" => depth += 1,
                    ")" | "]" | "}" => depth -= 1,
                    _ => {}
                }
                (Kind::Sign(sign), sign.len())
            }
        };
        tokens.push(Token { kind, start: at });
        at += length;
    }
    (Tag { statement: None, body: start..source.len(), tokens }, source.len())
}

/// The index of the quote that closes the string opened at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != bytes[at] {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    end.min(bytes.len())
}

fn end_of_raw(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(offset) = source[at..].find("{%") {
        let body = at + offset + 2;
        let inside = source[body..].trim_start_matches(['-', '+']).trim_ascii_start();
        if let Some(rest) = inside.strip_prefix("endraw") {
            let rest = rest.trim_ascii_start();
            let rest = rest.strip_prefix(['-', '+']).unwrap_or(rest);
            if let Some(rest) = rest.strip_prefix("%}") {
                return source.len() - rest.len();
            }
        }
        at = body;
    }
    source.len()
}

fn is_name_byte(byte: u8) -> bool {
    // Names beyond ASCII are split nowhere: all their bytes are 0x80 or higher.
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shown(source: &str) -> Vec<String> {
        let word = |token: &Token<'_>| match token.kind {
            Kind::Name(word) | Kind::Number(word) | Kind::Sign(word) => word.to_owned(),
            Kind::Text(text) => format!("'{text}'"),
        };
        tags(source)
            .iter()
            .map(|tag| {
                let words: Vec<String> = tag.tokens.iter().map(word).collect();
                format!("{}:{}", tag.statement.unwrap_or("="), words.join(" "))
            })
            .collect()
    }

    #[test]
    fn tags_are_split_into_tokens() {
        assert_eq!(
            shown("a\n{{ b.c[1] | d('}}') -}} {%- if x == 2 %}"),
            ["=:b . c [ 1 ] | d ( '}}' )", "if:x == 2"]
        );
        assert_eq!(
            shown(r#"{{ {"a": {"b": c}}["a"] }}{{ 名 }}"#),
            ["=:{ 'a' : { 'b' : c } } [ 'a' ]", "=:名"]
        );
    }

    #[test]
    fn comments_and_raw_blocks_are_passed_over() {
        assert_eq!(shown("{# {{ a }} #}{% raw %}{{ b }}{% x %}{%- endraw +%}{{ c }}"), ["=:c"]);
    }

    #[test]
    fn unfinished_templates_do_not_panic() {
        for source in
            ["{{", "{{ '", "{{ 'a\\", "{% raw %}", "{#", "{", "{% raw %}{%", "{{ { }}", "{{ é", "{%", "{%-"]
        {
            tags(source);
        }
    }

    #[test]
    fn lines_are_counted_from_one() {
        let lines = Lines::new("a\nb\n\nc");
        assert_eq!([0, 1, 2, 3, 4, 5].map(|at| lines.of(at)), [1, 1, 2, 2, 3, 4]);
    }
}
