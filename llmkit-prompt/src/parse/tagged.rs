/// A section between a tag and its end, as [`sections`] finds it.
///
/// ```
/// let found = llmkit_prompt::parse::sections(r#"<step id="1">Look.</step> <step id="2">Lea"#, "step");
/// assert_eq!((found[0].attributes, found[0].content, found[0].closed), (r#"id="1""#, "Look.", true));
/// assert_eq!((found[1].attributes, found[1].content, found[1].closed), (r#"id="2""#, "Lea", false));
/// ```
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Section<'a> {
    /// What stands behind the name in the opening tag, trimmed.
    pub attributes: &'a str,
    /// What stands between the tags, trimmed.
    pub content: &'a str,
    /// Whether the closing tag was found. Without it the section ends with the text, as when an answer was cut off or stopped at the tag.
    pub closed: bool,
}

/// The content of the first section `<tag>` ... `</tag>` of `text`, trimmed; none if no such tag opens.
///
/// ```
/// use llmkit_prompt::parse::tagged;
///
/// let text = "I put it into <answer> tags.\n<answer>\n42\n</answer>";
/// assert_eq!(tagged(text, "answer"), Some("42"));
/// assert_eq!(tagged("<answer>4", "answer"), Some("4"));
/// assert_eq!(tagged("42", "answer"), None);
/// ```
pub fn tagged<'a>(text: &'a str, tag: &str) -> Option<&'a str> {
    sections(text, tag).first().map(|section| section.content)
}

/// Every section `<tag>` ... `</tag>` of `text`, in order.
///
/// Case does not matter, and the opening tag may have attributes. Sections of the same name may lie in each other; the outer ones are returned.
/// An opening tag that nothing closes counts only if no complete section follows it: before that, it is a mention of the tag.
///
/// ```
/// let found = llmkit_prompt::parse::sections("<b>one <b>two</b></b><b>three</b>", "b");
/// assert_eq!(found.iter().map(|section| section.content).collect::<Vec<_>>(), ["one <b>two</b>", "three"]);
/// ```
pub fn sections<'a>(text: &'a str, tag: &str) -> Vec<Section<'a>> {
    let mut open: Vec<Tag<'a>> = Vec::new();
    // Complete sections, outermost only: one that encloses earlier ones replaces them.
    let mut complete: Vec<(usize, Section<'a>)> = Vec::new();
    let mut from = 0;
    while let Some(found) = next_tag(text, tag, from) {
        from = found.end;
        if found.closes {
            if let Some(opening) = open.pop() {
                while complete.last().is_some_and(|(start, _)| *start > opening.start) {
                    complete.pop();
                }
                complete.push((opening.start, opening.section(&text[opening.end..found.start], true)));
            }
        } else {
            open.push(found);
        }
    }
    let last = complete.last().map_or(0, |(start, _)| *start);
    let unclosed = open.into_iter().find(|tag| complete.is_empty() || tag.start > last);
    let unclosed = unclosed.map(|tag| tag.section(&text[tag.end..], false));
    complete.into_iter().map(|(_, section)| section).chain(unclosed).collect()
}

#[derive(Clone, Copy)]
struct Tag<'a> {
    start: usize,
    end: usize,
    attributes: &'a str,
    closes: bool,
}

impl<'a> Tag<'a> {
    fn section(&self, content: &'a str, closed: bool) -> Section<'a> {
        Section { attributes: self.attributes, content: content.trim(), closed }
    }
}

fn next_tag<'a>(text: &'a str, name: &str, mut from: usize) -> Option<Tag<'a>> {
    loop {
        let start = from + text[from..].find('<')?;
        from = start + 1;
        let closes = text[from..].starts_with('/');
        let rest = &text[from + usize::from(closes)..];
        let Some(after) = rest.get(..name.len()).filter(|found| found.eq_ignore_ascii_case(name)) else {
            continue;
        };
        let rest = &rest[after.len()..];
        if !rest.starts_with(|c: char| c == '>' || c == '/' || c.is_whitespace()) {
            continue;
        }
        // A tag has no `<` in it; so each character is looked at twice at most.
        let Some(length) = rest.find(['>', '<']).filter(|length| rest[*length..].starts_with('>')) else {
            continue;
        };
        let end = text.len() - rest.len() + length + 1;
        let attributes = rest[..length].trim();
        if !closes && attributes.ends_with('/') {
            continue; // `<tag/>` has no content.
        }
        return Some(Tag { start, end, attributes, closes });
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn contents<'a>(text: &'a str, tag: &str) -> Vec<(&'a str, bool)> {
        sections(text, tag).iter().map(|section| (section.content, section.closed)).collect()
    }

    #[test]
    fn stray_and_similar_tags_do_not_disturb() {
        assert_eq!(contents("</a> <ab>x</ab> <a>1</a> </a> <A >2</a >", "a"), [("1", true), ("2", true)]);
        assert_eq!(contents("<a/> <a <a>1</a", "a"), [("1</a", false)]);
        assert_eq!(contents("<é>1</é>", "é"), [("1", true)]);
        assert_eq!(contents("<é>1</é>", "e"), []);
    }

    #[test]
    fn an_unclosed_tag_counts_only_behind_the_complete_ones() {
        assert_eq!(contents("<a> is the tag: <a>1</a> <a>2", "a"), [("1", true), ("2", false)]);
        assert_eq!(contents("<a>1 <a>2", "a"), [("1 <a>2", false)]);
        assert_eq!(contents("<a>1 <a>2</a>", "a"), [("2", true)]);
    }

    #[test]
    fn many_tags_take_linear_time() {
        let text = "<a x".repeat(200_000);
        assert_eq!(contents(&text, "a"), []);
        let text = "<a>".repeat(200_000) + &"</a>".repeat(200_000);
        assert_eq!(contents(&text, "a").len(), 1);
    }
}
