//! `{% generation %} .. {% endgeneration %}`, with which templates mark the assistant's words for training masks.

use std::ops::Range;

/// The variables that the replaced tags show: empty texts, or marks to find the assistant's words by.
pub(super) const BEGIN: &str = "__assistant_begins";
pub(super) const END: &str = "__assistant_ends";

/// A template without generation tags.
pub(super) struct Stripped {
    pub(super) source: String,
    /// How often the template marks the assistant's words.
    pub(super) tags: usize,
}

/// The template with the tags replaced by `{% with %}`, which renders its body alike and keeps assignments inside, and by the
/// variables [`BEGIN`] and [`END`]. An assignment stands where a tag ends whose blanks and line breaks are trimmed, since a variable's
/// are not. Whitespace markers and line numbers stay as they are.
pub(super) fn strip(source: &str) -> Stripped {
    let mut tags = 0;
    let mut out = String::with_capacity(source.len());
    let mut rest = source;
    while let Some(at) = rest.find('{') {
        out.push_str(&rest[..at]);
        rest = &rest[at..];
        let end = match rest.as_bytes().get(1) {
            Some(b'#') => rest.find("#}").map(|end| end + 2),
            Some(b'{') => tag_end(rest, "}}"),
            Some(b'%') => tag_end(rest, "%}"),
            _ => Some(1),
        };
        // An unfinished tag is for the parser to report.
        let Some(end) = end else { break };
        let (tag, after) = rest.split_at(end);
        rest = after;
        match name(tag) {
            Some("generation") => {
                tags += 1;
                let inside = format!("with %}}{{{{ {BEGIN} }}}}{{% set {BEGIN} = '' ");
                out.push_str(&tag.replacen("generation", &inside, 1));
            }
            Some("endgeneration") => {
                let inside = format!("set {BEGIN} = '' %}}{{{{ {END} }}}}{{% endwith ");
                out.push_str(&tag.replacen("endgeneration", &inside, 1));
            }
            Some("raw") => {
                out.push_str(tag);
                let end = raw_end(rest);
                out.push_str(&rest[..end]);
                rest = &rest[end..];
            }
            _ => out.push_str(tag),
        }
    }
    out.push_str(rest);
    Stripped { source: out, tags }
}

/// Takes the marks out of `text` and gives the ranges of bytes between them; none if they don't pair up.
pub(super) fn take_marks(text: &str, begin: &str, end: &str) -> Option<(String, Vec<Range<usize>>)> {
    let mut out = String::with_capacity(text.len());
    let mut ranges = Vec::new();
    let mut rest = text;
    while let Some((before, after)) = rest.split_once(begin) {
        out.push_str(before);
        let (inside, after) = after.split_once(end)?;
        ranges.push(out.len()..out.len() + inside.len());
        out.push_str(inside);
        rest = after;
    }
    out.push_str(rest);
    (!out.contains(begin) && !out.contains(end)).then_some((out, ranges))
}

/// The only word of a `{% word %}`.
fn name(tag: &str) -> Option<&str> {
    let inner = tag.strip_prefix("{%")?.strip_suffix("%}")?;
    let inner = inner.strip_prefix(['-', '+']).unwrap_or(inner);
    let inner = inner.strip_suffix(['-', '+']).unwrap_or(inner);
    Some(inner.trim())
}

/// Where the tag at the start of `text` ends, past `close`; a `close` within quotes does not count.
fn tag_end(text: &str, close: &str) -> Option<usize> {
    let bytes = text.as_bytes();
    let mut quote = None;
    let mut at = 2;
    while at < bytes.len() {
        match (quote, bytes[at]) {
            (Some(_), b'\\') => at += 1,
            (Some(open), byte) if byte == open => quote = None,
            (Some(_), _) => {}
            (None, b'"' | b'\'') => quote = Some(bytes[at]),
            (None, _) if bytes[at..].starts_with(close.as_bytes()) => return Some(at + close.len()),
            (None, _) => {}
        }
        at += 1;
    }
    None
}

/// Where the text of a raw block ends: at its `{% endraw %}`.
fn raw_end(text: &str) -> usize {
    let mut from = 0;
    while let Some(at) = text[from..].find("{%") {
        let start = from + at;
        if let Some(end) = tag_end(&text[start..], "%}")
            && name(&text[start..start + end]) == Some("endraw")
        {
            return start;
        }
        from = start + 2;
    }
    text.len()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_tags_are_replaced() {
        const B: &str = "with %}{{ __assistant_begins }}{% set __assistant_begins = '' ";
        const E: &str = "set __assistant_begins = '' %}{{ __assistant_ends }}{% endwith ";
        let cases = [
            ("a{% generation %}b{% endgeneration %}c", format!("a{{% {B} %}}b{{% {E} %}}c"), 1),
            ("a{%- generation -%}\nb{%+endgeneration+%}c", format!("a{{%- {B} -%}}\nb{{%+{E}+%}}c"), 1),
            ("{# {% generation %} #}", "{# {% generation %} #}".to_owned(), 0),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}".to_owned(), 0),
            ("{{ '\\'{% generation %}' }}", "{{ '\\'{% generation %}' }}".to_owned(), 0),
            (
                "{% raw %}{% generation %}{% endraw %}{% generation %}",
                format!("{{% raw %}}{{% generation %}}{{% endraw %}}{{% {B} %}}"),
                1,
            ),
            ("{% if generation %}{ {%", "{% if generation %}{ {%".to_owned(), 0),
        ];
        for (source, expected, tags) in cases {
            let stripped = strip(source);
            assert_eq!((stripped.source, stripped.tags), (expected, tags));
        }
    }

    #[test]
    fn marks_become_ranges() {
        let found = take_marks("a<é>b<>", "<", ">");
        assert_eq!(found, Some(("aéb".to_owned(), vec![1..3, 4..4])));
        for unpaired in ["a<b", "a>b", "<a<b>>"] {
            assert_eq!(take_marks(unpaired, "<", ">"), None, "{unpaired}");
        }
    }
}
