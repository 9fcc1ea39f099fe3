//! Numbers as people write them, in any script's decimal digits, brought to one spelling.

use std::iter::Peekable;
use std::str::CharIndices;

/// A number found in a text.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Found {
    /// Where it stands, in bytes, with its sign.
    pub(crate) start: usize,
    pub(crate) end: usize,
    /// `-1234.5`: ASCII digits, no separators, no needless zeros; `3/4` for a fraction.
    pub(crate) canonical: String,
}

/// The digit zero of every script of Unicode's basic plane that has decimal digits, and of the mathematical alphabets.
const ZEROS: [u32; 42] = [
    0x30, 0x660, 0x6F0, 0x7C0, 0x966, 0x9E6, 0xA66, 0xAE6, 0xB66, 0xBE6, 0xC66, 0xCE6, 0xD66, 0xDE6, 0xE50,
    0xED0, 0xF20, 0x1040, 0x1090, 0x17E0, 0x1810, 0x1946, 0x19D0, 0x1A80, 0x1A90, 0x1B50, 0x1BB0, 0x1C40,
    0x1C50, 0xA620, 0xA8D0, 0xA900, 0xA9D0, 0xA9F0, 0xAA50, 0xABF0, 0xFF10, 0x1D7CE, 0x1D7D8, 0x1D7E2,
    0x1D7EC, 0x1D7F6,
];

/// The value of a decimal digit of any script.
pub(crate) fn digit(character: char) -> Option<u8> {
    if character.is_ascii() {
        return character.to_digit(10).and_then(|value| u8::try_from(value).ok());
    }
    let code = u32::from(character);
    let zero = ZEROS[..ZEROS.partition_point(|zero| *zero <= code)].last()?;
    u8::try_from(code - zero).ok().filter(|value| *value < 10)
}

/// All numbers of `text`, in order. Time grows with the text's length.
pub(crate) fn numbers(text: &str) -> Vec<Found> {
    let mut found: Vec<Found> = Vec::new();
    let mut characters = text.char_indices().peekable();
    // What stands before the current character: a letter makes `A4` or `x2` a name, not a number.
    let mut before: Option<char> = None;
    while let Some((start, character)) = characters.peek().copied() {
        let starts = digit(character).is_some()
            || is_point(character)
                && digit_after(text, start, character)
                && before.is_none_or(|before| digit(before).is_none());
        if !starts
            || before.is_some_and(|before| before.is_alphabetic() && !is_ideograph(before) || before == '_')
        {
            // The whole of `A4` or `v1.2` is passed over.
            characters.next();
            before = Some(if starts { before.unwrap_or(character) } else { character });
            continue;
        }
        let groups = read_groups(text, &mut characters);
        let last = groups.last().expect("it starts with a digit, or a point before one");
        let mut end = last.end;
        let Some((mut whole, mut fraction)) = split(&groups) else {
            // `1,2,3` is three numbers.
            found.extend(groups.into_iter().map(|group| Found {
                start: group.start,
                end: group.end,
                canonical: spelled(&group.digits, ""),
            }));
            before = text[..end].chars().next_back();
            continue;
        };
        if let Some((length, power)) = exponent(&text[end..]) {
            end += length;
            shift(&mut whole, &mut fraction, power);
        }
        let mut canonical = spelled(&whole, &fraction);
        let mut start = start;
        if let Some((sign, negative)) = sign_before(text, start) {
            start = sign;
            if negative && canonical != "0" {
                canonical.insert(0, '-');
            }
        }
        if let Some(below) = text[end..].strip_prefix('/').or_else(|| text[end..].strip_prefix('⁄')) {
            let digits = below.chars().take_while(|next| digit(*next).is_some());
            let (length, digits) = digits.fold((0, String::new()), |(length, mut digits), next| {
                digits.extend(digit(next).map(|value| char::from(b'0' + value)));
                (length + next.len_utf8(), digits)
            });
            if length > 0 {
                end = text.len() - below.len() + length;
                canonical = format!("{canonical}/{}", spelled(&digits, ""));
            }
        }
        while characters.next_if(|(at, _)| *at < end).is_some() {}
        before = text[..end].chars().next_back();
        found.push(Found { start, end, canonical });
    }
    found
}

/// The one spelling of `text` where all of it is one number, with or without a currency sign before it.
pub(crate) fn whole(text: &str) -> Option<String> {
    let text =
        text.trim().trim_start_matches(['$', '€', '£', '¥', '￥', '₹']).trim_end_matches(['€', '元']).trim();
    let mut found = numbers(text);
    let number = found.pop().filter(|number| number.start == 0 && number.end == text.len())?;
    found.is_empty().then_some(number.canonical)
}

fn is_point(character: char) -> bool {
    matches!(character, '.' | '٫' | '．')
}

fn is_ideograph(character: char) -> bool {
    // Scripts without spaces put numbers straight after words.
    matches!(u32::from(character), 0x0E00..=0x0EFF | 0x1000..=0x109F | 0x1780..=0x17FF | 0x3040..=0x30FF | 0x3400..=0x9FFF | 0xAC00..=0xD7AF)
}

fn digit_after(text: &str, at: usize, character: char) -> bool {
    text[at + character.len_utf8()..].chars().next().is_some_and(|next| digit(next).is_some())
}

/// The sign directly before a number, and whether it is a minus. `3-4` has none: there the dash stands between two things.
fn sign_before(text: &str, number: usize) -> Option<(usize, bool)> {
    // A currency sign may stand between: `-$5`.
    let before = text[..number].trim_end_matches(['$', '€', '£', '¥']);
    let (at, sign) = before.char_indices().next_back()?;
    let negative = match sign {
        '-' | '−' | '－' => true,
        '+' | '＋' => false,
        _ => return None,
    };
    let free = before[..at].chars().next_back().is_none_or(|before| {
        before.is_whitespace() || matches!(before, '(' | '[' | '{' | '=' | ':' | ',' | '*' | '"' | '：')
    });
    free.then_some((at, negative))
}

/// Digits that stand together, after a separator unless they are the first.
struct Group {
    separator: Option<char>,
    start: usize,
    end: usize,
    digits: String,
}

/// Reads digits and the separators between them. A first group without digits stands before a point that begins the number.
fn read_groups(text: &str, characters: &mut Peekable<CharIndices<'_>>) -> Vec<Group> {
    let start = characters.peek().map_or(text.len(), |(at, _)| *at);
    let mut groups = vec![Group { separator: None, start, end: start, digits: String::new() }];
    while let Some((at, character)) = characters.peek().copied() {
        let after = at + character.len_utf8();
        let pointed = groups[0].digits.is_empty();
        if let Some(value) = digit(character) {
            let group = groups.last_mut().expect("there is a first group");
            group.digits.push(char::from(b'0' + value));
            group.end = after;
        // After `.5` no separator is part of the number.
        } else if is_separator(character)
            && digit_after(text, at, character)
            && !(pointed && groups.len() > 1)
        {
            groups.push(Group {
                separator: Some(character),
                start: after,
                end: after,
                digits: String::new(),
            });
        } else {
            break;
        }
        characters.next();
    }
    groups
}

fn is_separator(character: char) -> bool {
    matches!(
        character,
        ',' | '.' | '\'' | '’' | '_' | '٬' | '٫' | '．' | '，' | '\u{a0}' | '\u{202f}' | '\u{2009}'
    )
}

/// Which groups of digits are thousands and which is the fraction; none where they are no single number.
///
/// The last of two kinds of separator is the decimal one (`1,234.5`, `1.234,5`). A single kind that occurs once is the decimal one
/// (`2.125`, `3,5`), except a comma before exactly three digits (`1,234`); one that repeats groups thousands (`1.234.567`), or lakhs
/// (`12,34,567`).
fn split(groups: &[Group]) -> Option<(String, String)> {
    let last = groups.last()?;
    let repeats = groups.iter().filter(|group| group.separator == last.separator).count() > 1;
    let decimal = match last.separator {
        Some('٫') => true,
        Some('.' | '．') => !repeats,
        Some(',' | '，') => !repeats && (last.digits.len() != 3 || groups.len() > 2),
        _ => false,
    };
    let (whole, fraction) =
        if decimal { (&groups[..groups.len() - 1], last.digits.as_str()) } else { (groups, "") };
    if let [first, middle @ .., last] = whole {
        let alike = middle.iter().all(|group| group.separator == last.separator);
        let thousands = middle.iter().all(|group| group.digits.len() == 3);
        let lakhs = middle.iter().all(|group| group.digits.len() == 2);
        if !(1..=3).contains(&first.digits.len()) || last.digits.len() != 3 || !alike || !(thousands || lakhs)
        {
            return None;
        }
    }
    Some((whole.iter().map(|group| group.digits.as_str()).collect(), fraction.to_owned()))
}

/// `e-3` or `E+5` after a number: its length and value. Beyond 100 it is no number that anyone means.
fn exponent(rest: &str) -> Option<(usize, i32)> {
    let after = rest.strip_prefix(['e', 'E'])?;
    let unsigned = after.strip_prefix(['-', '+']).unwrap_or(after);
    let digits = unsigned.bytes().take_while(u8::is_ascii_digit).count();
    let length = 1 + after.len() - unsigned.len() + digits;
    let is_word = rest[length..].chars().next().is_some_and(char::is_alphanumeric);
    let value: i32 = after[..length - 1].parse().ok()?;
    (digits > 0 && !is_word && value.abs() <= 100).then_some((length, value))
}

fn shift(whole: &mut String, fraction: &mut String, power: i32) {
    for _ in 0..power.unsigned_abs() {
        if power > 0 {
            whole.push(if fraction.is_empty() { '0' } else { fraction.remove(0) });
        } else {
            fraction.insert(0, whole.pop().unwrap_or('0'));
        }
    }
}

fn spelled(whole: &str, fraction: &str) -> String {
    let whole = whole.trim_start_matches('0');
    let fraction = fraction.trim_end_matches('0');
    let whole = if whole.is_empty() { "0" } else { whole };
    if fraction.is_empty() { whole.to_owned() } else { format!("{whole}.{fraction}") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found(text: &str) -> Vec<String> {
        numbers(text).into_iter().map(|number| number.canonical).collect()
    }

    #[test]
    fn numbers_have_one_spelling() {
        for (text, expected) in [
            ("1,234.50", "1234.5"),
            ("1.234,5", "1234.5"),
            ("1,234", "1234"),
            ("1,234,567", "1234567"),
            ("1.234.567", "1234567"),
            ("2.125", "2.125"),
            ("3,5", "3.5"),
            ("12\u{202f}345", "12345"),
            ("1'234'567", "1234567"),
            ("007", "7"),
            (".5", "0.5"),
            ("-0.0", "0"),
            ("−12", "-12"),
            ("+3", "3"),
            ("-$5", "-5"),
            ("2e3", "2000"),
            ("1.5E-3", "0.0015"),
            ("3/4", "3/4"),
            ("٣٫٥", "3.5"),
            ("१२", "12"),
            ("４２", "42"),
            ("共有42个", "42"),
        ] {
            assert_eq!(found(text), [expected], "{text}");
        }
    }

    #[test]
    fn names_dates_and_ranges_are_no_single_numbers() {
        assert_eq!(found("A4 x2 v1.2"), [""; 0]);
        assert_eq!(found("3-4 apples"), ["3", "4"]);
        assert_eq!(found("5 - 3 = 2."), ["5", "3", "2"]);
        assert_eq!(found("1, 2, 3"), ["1", "2", "3"]);
        assert_eq!(found("3 euros"), ["3"]);
        assert_eq!(found("1,2,3 and 192.168.1.10"), ["1", "2", "3", "192", "168", "1", "10"]);
        assert_eq!(found("12,34,567 or 1\u{a0}2"), ["1234567", "1", "2"]);
        assert_eq!(found("9e9999"), ["9"]);
        assert_eq!(found(".5.6 7."), ["0.5", "6", "7"]);
    }

    #[test]
    fn every_decimal_digit_of_unicode_is_known_by_its_value() {
        for zero in ZEROS {
            for value in 0..10_u8 {
                let character = char::from_u32(zero + u32::from(value)).unwrap();
                assert_eq!(digit(character), Some(value), "{character}");
                assert!(character.is_numeric());
            }
        }
        assert!(ZEROS.is_sorted());
        assert_eq!(digit('½'), None);
        assert_eq!(digit('三'), None);
    }

    #[test]
    fn only_a_number_alone_is_whole() {
        assert_eq!(whole(" $1,200 ").as_deref(), Some("1200"));
        assert_eq!(whole("-7").as_deref(), Some("-7"));
        assert_eq!(whole("7 apples"), None);
        assert_eq!(whole("7 8"), None);
        assert_eq!(whole(""), None);
    }
}
