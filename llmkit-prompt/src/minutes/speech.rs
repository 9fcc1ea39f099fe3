//! Who says what, in lines such as `[00:01:02] Name: text`.

use std::time::Duration;

use super::transcript::{Turn, TurnBuilder};

/// The longest name, in characters and in words.
const MAX_NAME: usize = 48;
const MAX_WORDS: usize = 6;

/// The turns of a transcript in lines.
pub(super) fn turns(text: &str) -> Vec<Turn> {
    let mut turns = Vec::new();
    let mut open = TurnBuilder::default();
    let mut at = 0;
    for line in text.split_inclusive('\n') {
        let start = at;
        at += line.len();
        match label(line) {
            Some(label) => {
                turns.extend(std::mem::take(&mut open).build());
                open.speaker = label.speaker;
                open.start = label.time;
                open.push(text, start + label.length..at);
            }
            // A heading such as `Date: ..` is said by nobody.
            None if is_heading(line) || line.trim().is_empty() && open.speaker.is_none() => {
                turns.extend(std::mem::take(&mut open).build());
                open.push(text, start..at);
                turns.extend(std::mem::take(&mut open).build());
            }
            None => open.push(text, start..at),
        }
    }
    turns.extend(open.build());
    turns
}

/// What stands before the words of a line.
struct Label {
    speaker: Option<String>,
    time: Option<Duration>,
    /// In bytes.
    length: usize,
}

fn label(line: &str) -> Option<Label> {
    let blank = line.len()
        - line
            .trim_start_matches(|letter: char| {
                letter.is_whitespace() || matches!(letter, '\u{feff}' | '*' | '-')
            })
            .len();
    let (time, after_time) = time_at(line, blank).map_or((None, blank), |(time, end)| (Some(time), end));
    if let Some((speaker, late_time, end)) = speaker_at(line, after_time) {
        return Some(Label { speaker: Some(speaker), time: time.or(late_time), length: end });
    }
    time.map(|time| Label { speaker: None, time: Some(time), length: after_time })
}

/// The name in front of a text, as in `Name: text`, and the bytes up to the text.
pub(super) fn name_before(text: &str) -> Option<(String, usize)> {
    speaker_at(text, 0).map(|(name, _, end)| (name, end))
}

/// The words of a quote, without a time and the name of one of `speakers` in front of them.
pub(super) fn without_label<'a>(quote: &'a str, speakers: &[&str]) -> &'a str {
    match label(quote) {
        Some(label) if label.speaker.as_deref().is_none_or(|name| speakers.contains(&name)) => {
            &quote[label.length..]
        }
        _ => quote,
    }
}

/// A name, perhaps a time in brackets, and a colon, from this byte on; and the byte after them.
fn speaker_at(line: &str, from: usize) -> Option<(String, Option<Duration>, usize)> {
    let rest = &line[from..];
    // The first colon that is not part of a time.
    let bytes = rest.char_indices().take(MAX_NAME + 24);
    let colon = bytes.clone().find(|(at, letter)| match letter {
        ':' => {
            let after = rest[at + 1..].chars().next();
            !(rest[..*at].ends_with(|letter: char| letter.is_ascii_digit())
                && after.is_some_and(|letter| letter.is_ascii_digit()))
        }
        '\u{ff1a}' => true,
        _ => false,
    })?;
    let label = &rest[..colon.0];
    let after = &rest[colon.0 + colon.1.len_utf8()..];
    if colon.1 == ':' && after.starts_with("//") {
        return None;
    }
    let (name, time) =
        match label.trim_end().strip_suffix([')', ']']).and_then(|label| label.rsplit_once(['(', '['])) {
            Some((name, inside)) => {
                match time_at(inside, 0).filter(|(_, end)| inside[*end..].trim().is_empty()) {
                    Some((time, _)) => (name, Some(time)),
                    None => (label, None),
                }
            }
            None => (label, None),
        };
    let name = name.trim().trim_matches('*').trim();
    let spaces = after.len() - after.trim_start_matches([' ', '\t', '*']).len();
    let end = from + colon.0 + colon.1.len_utf8() + spaces;
    (is_name(name) && !is_heading(line)).then(|| (name.to_owned(), time, end))
}

/// Whether this may be what somebody is called: a few words, each with a capital letter if its script has them, a role in brackets.
fn is_name(text: &str) -> bool {
    const PARTICLES: [&str; 13] =
        ["de", "da", "del", "der", "den", "di", "du", "la", "le", "van", "von", "bin", "al"];
    if text.is_empty() || text.chars().count() > MAX_NAME || text.split_whitespace().count() > MAX_WORDS {
        return false;
    }
    let role = text.find(['(', '[', '\u{ff08}']).unwrap_or(text.len());
    let name = text[..role].trim();
    let allowed = |letter: char| {
        letter.is_alphanumeric()
            || matches!(letter, ' ' | '.' | '\'' | '\u{2019}' | '-' | '_' | '\u{b7}' | '&' | '/')
    };
    let word = |word: &str| {
        let first = word.chars().next();
        first.is_some_and(|first| !first.is_lowercase()) || PARTICLES.contains(&word)
    };
    // Chinese has no spaces: a longer run is a sentence.
    let han = name.chars().filter(|letter| ('\u{4e00}'..='\u{9fff}').contains(letter)).count();
    name.chars().any(char::is_alphabetic)
        && name.chars().all(allowed)
        && name.split_whitespace().all(word)
        && han <= 8
}

/// Whether the line says something about the meeting, such as its date, and is no speech.
fn is_heading(line: &str) -> bool {
    const WORDS: [&str; 34] = [
        "note",
        "notes",
        "agenda",
        "date",
        "time",
        "subject",
        "topic",
        "topics",
        "attendees",
        "participants",
        "present",
        "absent",
        "location",
        "place",
        "title",
        "meeting",
        "transcript",
        "duration",
        "todo",
        "summary",
        "时间",
        "地点",
        "日期",
        "主题",
        "参会人",
        "参会人员",
        "参加人员",
        "出席",
        "备注",
        "议题",
        "会议",
        "会议主题",
        "记录",
        "记录人",
    ];
    let line = line.trim_start_matches(|letter: char| {
        letter.is_whitespace() || matches!(letter, '#' | '*' | '-' | '\u{feff}')
    });
    let Some(end) = line.find([':', '\u{ff1a}']).filter(|end| *end <= 40) else {
        return false;
    };
    WORDS.contains(&line[..end].trim().to_lowercase().as_str())
}

/// A time such as `00:01:02`, `1:02`, `[00:01:02.500]` or `(1:02)` at this byte, and the byte after it.
fn time_at(line: &str, from: usize) -> Option<(Duration, usize)> {
    let rest = line.get(from..)?;
    let (inner, bracket) = match rest.strip_prefix(['[', '(']) {
        Some(inner) => (inner, true),
        None => (rest, false),
    };
    let length =
        inner.bytes().take_while(|byte| byte.is_ascii_digit() || matches!(byte, b':' | b'.' | b',')).count();
    let time = clock(inner[..length].trim_end_matches(['.', ',']))?;
    let mut end = from + usize::from(bracket) + length;
    if bracket {
        end += line[end..].find([']', ')']).filter(|close| line[end..end + close].trim().is_empty())? + 1;
    }
    let after = &line[end..];
    // `12:30pm` and `3:1` are no such times.
    if after.starts_with(char::is_alphanumeric) {
        return None;
    }
    let spaces = after.len() - after.trim_start_matches([' ', '\t', '-', '\u{2013}', '*']).len();
    Some((time, end + spaces))
}

/// `hours:minutes:seconds` or `minutes:seconds`, with or without a fraction after `.` or `,`.
pub(super) fn clock(text: &str) -> Option<Duration> {
    let (whole, fraction) =
        text.split_once(['.', ',']).map_or((text, ""), |(whole, fraction)| (whole, fraction));
    let number = |part: &str| -> Option<u64> {
        let digits = !part.is_empty() && part.len() <= 4 && part.bytes().all(|byte| byte.is_ascii_digit());
        digits.then(|| part.parse().ok()).flatten()
    };
    let parts: Vec<&str> = whole.split(':').collect();
    let (hours, minutes, seconds) = match parts.as_slice() {
        [minutes, seconds] => (0, number(minutes)?, number(seconds)?),
        [hours, minutes, seconds] => {
            (number(hours)?, number(minutes).filter(|minutes| *minutes < 60)?, number(seconds)?)
        }
        _ => return None,
    };
    if seconds >= 60 || parts.last().is_some_and(|part| part.len() != 2) || fraction.len() > 9 {
        return None;
    }
    let nanos = if fraction.is_empty() {
        0
    } else {
        fraction
            .bytes()
            .all(|byte| byte.is_ascii_digit())
            .then(|| format!("{fraction:0<9}").parse().ok())
            .flatten()?
    };
    Some(Duration::new((hours * 60 + minutes) * 60 + seconds, nanos))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read(text: &str) -> Vec<(Option<String>, Option<u64>, String)> {
        let turns = turns(text);
        for turn in &turns {
            assert_eq!(text[turn.range.clone()], turn.spoken);
        }
        turns
            .into_iter()
            .map(|turn| (turn.speaker, turn.start.map(|start| start.as_secs()), turn.spoken))
            .collect()
    }

    #[test]
    fn lines_are_read_in_their_usual_forms() {
        let text = "Date: 2026-11-24\n\n\
                    [00:01:02] Ana Ruiz: We start at 10:30.\n\
                    It is late.\n\
                    **Ben (PM):** Fine: let's go.\n\
                    1:05:07 Mary-Jane O'Neill: See https://example.org/a: it is there.\n\
                    Luis de la Cruz (01:07): Yes\n\
                    張偉\u{ff1a}好的\u{3002}\n\
                    One more thing: nobody said this line.\n\
                    [02:00] (silence)\n";
        let some = |name: &str| Some(name.to_owned());
        assert_eq!(
            read(text),
            [
                (None, None, "Date: 2026-11-24".to_owned()),
                (some("Ana Ruiz"), Some(62), "We start at 10:30.\nIt is late.".to_owned()),
                (some("Ben (PM)"), None, "Fine: let's go.".to_owned()),
                (some("Mary-Jane O'Neill"), Some(3907), "See https://example.org/a: it is there.".to_owned()),
                (some("Luis de la Cruz"), Some(67), "Yes".to_owned()),
                (some("張偉"), None, "好的\u{3002}\nOne more thing: nobody said this line.".to_owned()),
                (None, Some(120), "(silence)".to_owned()),
            ]
        );
    }

    #[test]
    fn a_clock_is_read_strictly() {
        assert_eq!(clock("00:01:02.5"), Some(Duration::from_millis(62_500)));
        assert_eq!(clock("75:02"), Some(Duration::from_secs(4502)));
        for wrong in ["", "1", "1:2", "1:60", "1:61:00", "a:bb", "1:02.x", "::", "1:02:03:04", "99999:00"] {
            assert_eq!(clock(wrong), None, "{wrong}");
        }
    }
}
