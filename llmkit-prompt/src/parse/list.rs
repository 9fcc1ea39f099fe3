use super::code_blocks;

/// The items of the list in `text`: bulleted, numbered or lettered, else a JSON array of strings, else one item a line, else separated by commas.
///
/// - Markers: `-`, `*`, `+`, `•` and their kin; `1.`, `1)`, `(1)`, `1、`, `（1）`, `①`; `a.`, `a)`, `(a)` (if there are two or more);
///   `一、`, `（一）`. Check boxes (`- [x]`) are taken off too.
/// - Text before, between and behind the items is left out. Indented lines continue their item; a list within an item stays in its text.
/// - Where nothing is marked, several lines are an item each, and one line is cut at its commas (`,`, `，`, `、`, `;`; not
///   between quotes or parentheses).
///
/// An empty text has no items. Time and memory are linear in the text.
///
/// ```
/// use llmkit_prompt::parse::list;
///
/// assert_eq!(list("Some dishes:\n\n1) tureen\n2) bowl,\n   deep\n\nEnjoy!"), ["tureen", "bowl,\ndeep"]);
/// assert_eq!(list("一、汤碗\n二、盘子"), ["汤碗", "盘子"]);
/// assert_eq!(list("tureen, \"bowl, deep\", plate"), ["tureen", "bowl, deep", "plate"]);
/// ```
pub fn list(text: &str) -> Vec<String> {
    let marked = marked_items(text);
    if !marked.is_empty() {
        return marked;
    }
    let block = code_blocks(text).into_iter().next();
    let body = block.as_ref().map_or(text, |block| &block.code).trim();
    if let Ok(items) = serde_json::from_str::<Vec<String>>(body) {
        return items;
    }
    if body.lines().filter(|line| !line.trim().is_empty()).count() > 1 {
        return body.lines().map(str::trim).filter(|line| !line.is_empty()).map(str::to_owned).collect();
    }
    separated(body)
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Kind {
    Bullet,
    Number,
    Letter,
    Chinese,
}

fn marked_items(text: &str) -> Vec<String> {
    let marks: Vec<Option<(Kind, usize, &str)>> = text.lines().map(marker).collect();
    // One line that begins `A.` is a name or a sentence.
    let letters = marks.iter().flatten().filter(|(kind, ..)| *kind == Kind::Letter).count();
    let counts = |kind: Kind| kind != Kind::Letter || letters > 1;
    let Some((kind, indent)) =
        marks.iter().flatten().find(|(kind, ..)| counts(*kind)).map(|(kind, indent, _)| (*kind, *indent))
    else {
        return Vec::new();
    };
    let mut items: Vec<String> = Vec::new();
    // Whether the item goes on: until a line that is neither indented nor a mark of another kind.
    let mut open = false;
    for (line, mark) in text.lines().zip(&marks) {
        match mark {
            Some((found, at, content)) if *found == kind && *at <= indent + 1 => {
                items.push(content.trim().to_owned());
                open = true;
            }
            _ if line.trim().is_empty() => {}
            Some((found, ..)) if open && counts(*found) => push_line(&mut items, line),
            _ if open && line.starts_with([' ', '\t', '\u{3000}']) => push_line(&mut items, line),
            _ => open = false,
        }
    }
    items
}

fn push_line(items: &mut [String], line: &str) {
    if let Some(item) = items.last_mut() {
        if !item.is_empty() {
            item.push('\n');
        }
        item.push_str(line.trim());
    }
}

/// The kind of the mark that begins the line, its indentation in characters, and the text behind it.
fn marker(line: &str) -> Option<(Kind, usize, &str)> {
    let body = line.trim_start();
    let indent = line[..line.len() - body.len()].chars().map(|c| if c == '\t' { 4 } else { 1 }).sum();
    let first = body.chars().next()?;
    let rest = &body[first.len_utf8()..];
    if matches!(first, '-' | '*' | '+' | '•' | '‣' | '◦' | '▪' | '●' | '○' | '■' | '·' | '–' | '—')
    {
        // `**bold**`, `---` and `-5` are no items; the marks that are nothing else need no space.
        let spaced = rest.starts_with([' ', '\t']) || rest.is_empty();
        let typographic = !first.is_ascii() && !matches!(first, '–' | '—');
        return (spaced || typographic).then(|| (Kind::Bullet, indent, unchecked(rest)));
    }
    if ('①'..='⑳').contains(&first) {
        return Some((Kind::Number, indent, rest));
    }
    let (body, parenthesis) = match first {
        '(' | '（' => (rest, true),
        _ => (body, false),
    };
    let end = body.find(|c: char| !(c.is_ascii_alphanumeric() || CHINESE.contains(c) || is_wide_digit(c)))?;
    let (label, rest) = body.split_at(end);
    let kind = kind_of_label(label)?;
    let mark = rest.chars().next()?;
    let behind = &rest[mark.len_utf8()..];
    let fits = match mark {
        ')' | '）' if parenthesis => true,
        '、' | '．' | '）' => !parenthesis,
        '.' | ')' => !parenthesis && (behind.is_empty() || behind.starts_with(char::is_whitespace)),
        _ => false,
    };
    fits.then(|| (kind, indent, unchecked(behind)))
}

const CHINESE: &str = "一二三四五六七八九十";

fn is_wide_digit(c: char) -> bool {
    ('０'..='９').contains(&c)
}

/// Longer numbers are years and amounts.
fn kind_of_label(label: &str) -> Option<Kind> {
    let length = label.chars().count();
    if length == 0 || length > 4 {
        None
    } else if label.chars().all(|c| c.is_ascii_digit() || is_wide_digit(c)) {
        (length <= 3).then_some(Kind::Number)
    } else if label.chars().all(|c| CHINESE.contains(c)) {
        Some(Kind::Chinese)
    } else {
        let roman = label.bytes().all(|c| b"ivxIVX".contains(&c));
        ((length == 1 || roman) && label.bytes().all(|c| c.is_ascii_alphabetic())).then_some(Kind::Letter)
    }
}

/// Without a check box.
fn unchecked(item: &str) -> &str {
    let body = item.trim_start();
    ["[ ]", "[x]", "[X]"].iter().find_map(|mark| body.strip_prefix(mark)).unwrap_or(item)
}

fn separated(line: &str) -> Vec<String> {
    let line = line.trim_end_matches(['.', '。']);
    let mut items = Vec::new();
    let (mut item, mut depth, mut quoted) = (String::new(), 0usize, None);
    for c in line.chars() {
        match (quoted, c) {
            (Some(end), _) if c == end => quoted = None,
            (Some(_), _) => {}
            (None, '"') if item.trim().is_empty() => quoted = Some('"'),
            (None, '“') => quoted = Some('”'),
            (None, '(' | '（' | '[') => depth += 1,
            (None, ')' | '）' | ']') => depth = depth.saturating_sub(1),
            (None, ',' | '，' | '、' | ';' | '；') if depth == 0 => {
                items.push(std::mem::take(&mut item));
                continue;
            }
            _ => {}
        }
        item.push(c);
    }
    items.push(item);
    items.iter().map(|item| unquoted(item.trim()).to_owned()).filter(|item| !item.is_empty()).collect()
}

fn unquoted(item: &str) -> &str {
    [('"', '"'), ('“', '”'), ('\'', '\'')]
        .iter()
        .find_map(|(open, close)| item.strip_prefix(*open)?.strip_suffix(*close))
        .unwrap_or(item)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_kind_of_mark() {
        for text in [
            "- a\n- b",
            "* a\n+ b",
            "  • a\n  • b",
            "1. a\n2. b",
            "1) a\n2) b",
            "(1) a\n(2) b",
            "a. a\nb. b",
            "(i) a\n(ii) b",
            "一、a\n二、b",
            "（一）a\n（二）b",
            "1、a\n2、b",
            "（1）a\n（2）b",
            "① a\n② b",
            "- [ ] a\n- [x] b",
            "Here:\n- a\nand\n- b\nDone",
            "a\nb",
            "a, b.",
            "a、b。",
            "[\"a\", \"b\"]",
            "```\n- a\n- b\n```",
        ] {
            assert_eq!(list(text), ["a", "b"], "{text}");
        }
    }

    #[test]
    fn what_only_looks_like_a_mark_is_none() {
        assert_eq!(list("A. Smith went home"), ["A. Smith went home"]);
        assert_eq!(
            list("**Bold**\n-5 degrees\n1.5 litres\n2026. A year"),
            ["**Bold**", "-5 degrees", "1.5 litres", "2026. A year"]
        );
        assert_eq!(list("  \n"), Vec::<String>::new());
        assert_eq!(list("bowl (small, deep); plate"), ["bowl (small, deep)", "plate"]);
    }

    #[test]
    fn inner_lists_and_continued_lines_stay_with_their_item() {
        assert_eq!(
            list("1. one\n   - deep\n   more\n- flat\n\n2. two"),
            ["one\n- deep\nmore\n- flat", "two"]
        );
        assert_eq!(list("- a\n    - b\n- c"), ["a\n- b", "c"]);
    }
}
