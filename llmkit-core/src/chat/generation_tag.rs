//! `{% generation %} .. {% endgeneration %}`, with which templates mark the assistant's words for training masks.

/// The template with the tags replaced by `{% with %}`, which renders its body alike and keeps assignments inside. Whitespace
/// markers and line numbers stay as they are.
pub(super) fn strip(source: &str) -> String {
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
            Some("generation") => out.push_str(&tag.replacen("generation", "with", 1)),
            Some("endgeneration") => out.push_str(&tag.replacen("endgeneration", "endwith", 1)),
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
    out
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
    use super::strip;

    #[test]
    fn only_the_tags_are_replaced() {
        let cases = [
            ("a{% generation %}b{% endgeneration %}c", "a{% with %}b{% endwith %}c"),
            ("a{%- generation -%}\nb{%+endgeneration+%}c", "a{%- with -%}\nb{%+endwith+%}c"),
            ("{# {% generation %} #}", "{# {% generation %} #}"),
            ("{{ '{% generation %}' }}", "{{ '{% generation %}' }}"),
            ("{{ '\\'{% generation %}' }}", "{{ '\\'{% generation %}' }}"),
            (
                "{% raw %}{% generation %}{% endraw %}{% generation %}",
                "{% raw %}{% generation %}{% endraw %}{% with %}",
            ),
            ("{% if generation %}{ {%", "{% if generation %}{ {%"),
        ];
        for (source, expected) in cases {
            assert_eq!(strip(source), expected);
        }
    }
}
