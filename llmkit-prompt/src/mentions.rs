//! Where a template mentions a name.
//!
//! Which names are free variables is minijinja's to say, but it does not say on which line. This scanner only has to find them
//! again, so it knows tags, strings, comments and raw blocks, and no grammar.

/// A name inside a tag.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) struct Mention<'a> {
    pub(crate) name: &'a str,
    /// From 1.
    pub(crate) line: usize,
    /// Whether the name opens a `{% ... %}` tag, so that it is a statement's keyword.
    pub(crate) is_statement: bool,
}

/// All names that may be variables or keywords of statements: not attributes, filters, or names of arguments.
pub(crate) fn mentions(source: &str) -> Vec<Mention<'_>> {
    let mut found = Vec::new();
    let mut rest = 0;
    while let Some((start, kind)) = next_tag(source, rest) {
        let body = start + 2;
        let (end, close) = match kind {
            Tag::Comment => (find(source, body, "#}"), 2),
            Tag::Expression => (tag_end(source, body, "}}"), 2),
            Tag::Statement => (tag_end(source, body, "%}"), 2),
        };
        rest = end.saturating_add(close).min(source.len());
        if kind == Tag::Comment {
            continue;
        }
        let first = found.len();
        names_in(source, body, end, &mut found);
        if kind == Tag::Statement && found.len() > first {
            found[first].is_statement = true;
            if found[first].name == "raw" {
                rest = end_of_raw(source, rest);
            }
        }
    }
    found
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Tag {
    Expression,
    Statement,
    Comment,
}

fn next_tag(source: &str, from: usize) -> Option<(usize, Tag)> {
    source.as_bytes().get(from..)?.windows(2).enumerate().find_map(|(offset, pair)| {
        let kind = match pair {
            b"{{" => Tag::Expression,
            b"{%" => Tag::Statement,
            b"{#" => Tag::Comment,
            _ => return None,
        };
        Some((from + offset, kind))
    })
}

fn find(source: &str, from: usize, needle: &str) -> usize {
    source[from..].find(needle).map_or(source.len(), |offset| from + offset)
}

/// The end of a tag's content; a closing mark inside a string does not count.
fn tag_end(source: &str, from: usize, close: &str) -> usize {
    let bytes = source.as_bytes();
    let mut at = from;
    // `{{ {"a": {"b": 1}} }}`: braces that the expression opened are its own.
    let mut depth = 0_usize;
    while at < bytes.len() {
        match bytes[at] {
            b'"' | b'\'' => at = string_end(bytes, at),
            b'{' => depth += 1,
            b'}' if depth > 0 => depth -= 1,
            _ if bytes[at..].starts_with(close.as_bytes()) => return at,
            _ => {}
        }
        at += 1;
    }
    bytes.len()
}

/// The index of the quote that closes the string opened at `at`.
fn string_end(bytes: &[u8], at: usize) -> usize {
    let mut end = at + 1;
    while end < bytes.len() && bytes[end] != bytes[at] {
        end += if bytes[end] == b'\\' { 2 } else { 1 };
    }
    end
}

fn end_of_raw(source: &str, from: usize) -> usize {
    let mut at = from;
    while let Some(offset) = source[at..].find("{%") {
        let body = at + offset + 2;
        if source[body..].trim_start_matches(['-', '+']).trim_start().starts_with("endraw") {
            return at + offset;
        }
        at = body;
    }
    source.len()
}

fn names_in<'a>(source: &'a str, start: usize, end: usize, found: &mut Vec<Mention<'a>>) {
    let bytes = source.as_bytes();
    let mut at = start;
    let mut before = b' ';
    let mut line = 1 + bytes[..start].iter().filter(|byte| **byte == b'\n').count();
    while at < end {
        let byte = bytes[at];
        if byte == b'"' || byte == b'\'' {
            let close = string_end(bytes, at).min(end);
            line += bytes[at..close].iter().filter(|byte| **byte == b'\n').count();
            (before, at) = (byte, close + 1);
        } else if is_name_byte(byte) {
            let length = bytes[at..end].iter().take_while(|byte| is_name_byte(**byte)).count();
            let after = source[at + length..end].trim_start();
            let is_argument_name =
                after.starts_with('=') && !after.starts_with("==") && matches!(before, b'(' | b',');
            if !byte.is_ascii_digit() && before != b'.' && before != b'|' && !is_argument_name {
                found.push(Mention { name: &source[at..at + length], line, is_statement: false });
            }
            (before, at) = (b'a', at + length);
        } else {
            line += usize::from(byte == b'\n');
            if !byte.is_ascii_whitespace() {
                before = byte;
            }
            at += 1;
        }
    }
}

fn is_name_byte(byte: u8) -> bool {
    // Names beyond ASCII are split nowhere: all their bytes are 0x80 or higher.
    byte.is_ascii_alphanumeric() || byte == b'_' || byte >= 0x80
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(source: &str) -> Vec<(&str, usize)> {
        mentions(source).into_iter().map(|mention| (mention.name, mention.line)).collect()
    }

    #[test]
    fn names_come_with_their_lines() {
        assert_eq!(found("a\n{{ b }} c\n{% if d\n == e %}"), [("b", 2), ("if", 3), ("d", 3), ("e", 4)]);
        assert_eq!(found("{{\n\n名 }}"), [("名", 3)]);
    }

    #[test]
    fn attributes_filters_arguments_strings_comments_and_raw_text_are_no_mentions() {
        assert_eq!(found("{{ a.b | c }}{# d #}{{ 'e }}' }}{{ f(g = h) }}"), [("a", 1), ("f", 1), ("h", 1)]);
        assert_eq!(found("{% raw %}{{ a }}{%- endraw %}{{ b }}"), [("raw", 1), ("endraw", 1), ("b", 1)]);
        assert_eq!(found(r#"{{ {"a": {"b": c}}["a"] }}{{ d }}"#), [("c", 1), ("d", 1)]);
    }

    #[test]
    fn unfinished_templates_do_not_panic() {
        for source in ["{{", "{{ '", "{{ 'a\\", "{% raw %}", "{#", "{", "{% raw %}{%", "{{ { }}", "{{ é"] {
            mentions(source);
        }
    }
}
