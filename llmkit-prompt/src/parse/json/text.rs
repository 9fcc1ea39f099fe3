//! Quoted texts and keys of the tolerant reader: where they end, and what they say.

use super::repair::{Reader, is_space};
use super::report::RepairKind as Kind;

/// How far a key is looked for ahead, in bytes.
const KEY: usize = 128;

/// What a quoted text is, which says what may follow it.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// The key of an entry.
    Key,
    /// The value of an entry.
    Entry,
    /// An element of a list, or the whole.
    Element,
}

/// An opening quote.
#[derive(Clone, Copy)]
pub(super) struct Quote {
    mark: char,
    escaped: bool,
}

impl Quote {
    fn len(self) -> usize {
        self.mark.len_utf8() + usize::from(self.escaped)
    }

    /// Whether `c` closes what this opens, wherever it makes sense.
    fn closed_by(self, c: char) -> bool {
        match self.mark {
            '“' | '„' => matches!(c, '”' | '"'),
            '‘' => matches!(c, '’' | '\''),
            '«' => c == '»',
            '`' => matches!(c, '`' | '\''),
            mark => c == mark,
        }
    }
}

/// The kind of quote that `c` is, whichever way it leans.
pub(super) fn family(c: char) -> Option<char> {
    Some(match c {
        '"' | '“' | '”' | '„' | '＂' => '"',
        '\'' | '‘' | '’' => '\'',
        '`' | '´' => '`',
        '«' | '»' => '«',
        _ => return None,
    })
}

impl Reader<'_> {
    /// The quote at the offset, which may have a backslash before it.
    pub(super) fn quote_at(&self, at: usize) -> Option<Quote> {
        let rest = self.text.get(at..self.limit)?;
        let unescaped = rest.strip_prefix('\\').unwrap_or(rest);
        let mark = unescaped.chars().next().filter(|c| family(*c).is_some())?;
        Some(Quote { mark, escaped: rest.len() != unescaped.len() })
    }

    /// Reads the text whose opening quote is here.
    pub(super) fn quoted(&mut self, quote: Quote, role: Role) -> String {
        if let Some(text) = self.tripled() {
            return text;
        }
        if quote.mark != '"' || quote.escaped {
            self.log.add(self.at, Kind::Quotes);
        }
        self.at += quote.len();
        let start = self.at;
        let mark = self.log.mark();
        let text = match self.text_until(quote, role) {
            Ok(text) => return text,
            Err(text) => text,
        };
        // The quote does not come.
        let end = match role {
            Role::Key => self.key_end(start, self.limit),
            // If all that is open is closed at the very end, it was left out before that; else the text was cut off.
            _ => self.before_closers(start),
        };
        let Some(end) = end else { return text };
        self.log.back_to(mark);
        let limit = std::mem::replace(&mut self.limit, end);
        self.at = start;
        let (Ok(text) | Err(text)) = self.text_until(quote, Role::Element);
        self.limit = limit;
        self.at = end;
        self.log.add(end, Kind::MissingQuote);
        text.trim_end().to_owned()
    }

    /// A text between `"""`, as in Python.
    fn tripled(&mut self) -> Option<String> {
        let rest = &self.text[self.at..self.limit];
        let body = rest.strip_prefix("\"\"\"").filter(|_| !self.no_triple)?;
        let Some(length) = body.find("\"\"\"") else {
            self.no_triple = true;
            return None;
        };
        self.log.add(self.at, Kind::Quotes);
        self.at += length + 6;
        Some(body[..length].to_owned())
    }

    /// The text up to its closing quote; what there is as an error if the end comes first.
    fn text_until(&mut self, quote: Quote, role: Role) -> Result<String, String> {
        let start = self.at;
        let mut text = String::new();
        // `""text""`
        let mut doubled = false;
        while let Some(c) = self.peek() {
            let here = self.at;
            if c == '\\' {
                let inner = self.quote_at(here).filter(|inner| quote.escaped && quote.closed_by(inner.mark));
                match inner {
                    Some(inner) if self.ends(here + inner.len(), role) => {
                        self.at += inner.len();
                        return Ok(text);
                    }
                    _ => self.escape(&mut text),
                }
                continue;
            }
            if role == Role::Key
                && c == '\n'
                && let Some(end) = self.key_end(start, here)
            {
                return Ok(self.cut(text, here, end));
            }
            let natural = quote.closed_by(c) && !quote.escaped;
            let foreign = !natural && family(c).is_some_and(|kind| Some(kind) == family(quote.mark));
            let behind = here + c.len_utf8();
            if natural && self.certainly_ends(behind, role) || foreign && self.closes_entry(behind, role) {
                self.at = behind;
                if doubled && text.ends_with(c) {
                    text.pop();
                }
                return Ok(text);
            }
            if natural {
                if let Some(end) = self.ended_before(start, here, role) {
                    return Ok(self.cut(text, here, end));
                }
                if self.ends(behind, role) {
                    self.at = behind;
                    return Ok(text);
                }
                self.at = behind;
                if here == start && self.peek().is_some_and(|next| !is_space(next)) {
                    self.log.add(here, Kind::Quotes);
                    doubled = true;
                    continue;
                }
                self.log.add(here, Kind::InnerQuote);
                text.push(c);
                continue;
            }
            if c < ' ' {
                self.log.add(here, Kind::ControlCharacter);
            }
            text.push(c);
            self.at = behind;
        }
        Err(text)
    }

    /// What of `text`, read up to `here`, comes before `end`; reading goes on there. Between the two there is nothing that was escaped.
    fn cut(&mut self, mut text: String, here: usize, end: usize) -> String {
        self.log.add(end, Kind::MissingQuote);
        self.at = end;
        let length = text.len().saturating_sub(here - end);
        text.truncate(text.floor_char_boundary(length));
        text.truncate(text.trim_end().len());
        text
    }

    /// Whether what follows leaves no doubt that a text ends here.
    fn certainly_ends(&self, at: usize, role: Role) -> bool {
        if role == Role::Key { self.colon_at(self.skipped(at)) } else { self.ends(at, role) }
    }

    /// Whether a text ends before `at`, by what follows.
    fn ends(&self, at: usize, role: Role) -> bool {
        let next = self.skipped(at);
        let rest = &self.text[next..self.limit];
        let Some(c) = rest.chars().next() else { return true };
        let spaced = next > at;
        let comment = spaced && (rest.starts_with("//") || rest.starts_with("/*") || rest.starts_with('#'));
        match role {
            _ if comment => true,
            Role::Key => spaced || !c.is_alphanumeric(),
            Role::Entry => match c {
                '}' => true,
                ']' => self.has_open(false),
                ',' | '，' | ';' => {
                    let after = self.skipped(next + c.len_utf8());
                    after >= self.limit || self.bytes[after] == b'}' || self.key_at(after).is_some()
                }
                _ => spaced && self.key_at(next) == Some(true),
            },
            Role::Element if self.in_object().is_none() => false,
            Role::Element => match c {
                ']' | ')' | ':' => true,
                '}' => self.has_open(true),
                ',' | '，' | '、' => self.value_at(self.skipped(next + c.len_utf8())),
                _ => spaced && self.quote_at(next).is_some(),
            },
        }
    }

    /// As [`ends`](Self::ends), for a quote that is not quite the opening one's counterpart.
    fn closes_entry(&self, at: usize, role: Role) -> bool {
        let next = self.skipped(at);
        match (role, self.bytes[..self.limit].get(next)) {
            (Role::Key, Some(b':')) => true,
            (Role::Entry, Some(b'}')) => true,
            (Role::Entry, Some(b',')) => self.key_at(self.skipped(next + 1)) == Some(true),
            (Role::Element, Some(b']')) => self.in_object().is_some(),
            _ => false,
        }
    }

    /// Where a text ended for lack of its closing quote, if the quote at `here` opens the next one.
    fn ended_before(&self, start: usize, here: usize, role: Role) -> Option<usize> {
        if role == Role::Key {
            return self.key_end(start, here);
        }
        let before = self.text[start..here].trim_end_matches(is_space);
        let end = start + before.len();
        let comma = before.ends_with(',');
        let newline = self.text[end..here].contains('\n');
        let next = match role {
            Role::Entry => (comma || newline) && self.key_at(here) == Some(true),
            _ => comma && self.element_at(here),
        };
        (next && here > start).then(|| end - usize::from(comma))
    }

    /// Where a key ends that has no closing quote: at a colon behind one word.
    fn key_end(&self, start: usize, here: usize) -> Option<usize> {
        let window = self.text.floor_char_boundary(here.min(start + KEY));
        let colon = self.text[start..window].find(':')?;
        let key = &self.text[start..start + colon];
        (!key.is_empty() && key.chars().all(|c| c.is_alphanumeric() || matches!(c, '_' | '-' | ' ')))
            .then_some(start + colon)
    }

    /// Where the text from `start` on ends if only what closes everything follows.
    fn before_closers(&self, start: usize) -> Option<usize> {
        let mut rest = &self.text[start..self.limit];
        let mut closers: Vec<u8> = self.closers().collect();
        while let Some(closer) = closers.pop() {
            rest = rest.trim_end_matches(is_space).strip_suffix(char::from(closer))?;
        }
        (rest.len() < self.limit - start).then_some(start + rest.len())
    }

    /// Whether an entry's key begins here: surely, if a colon follows it.
    pub(super) fn key_at(&self, at: usize) -> Option<bool> {
        let end = self.text.floor_char_boundary(self.limit.min(at + KEY));
        let window = self.text.get(at..end)?;
        let Some(quote) = self.quote_at(at) else {
            let word = window.find(|c: char| !(c.is_alphanumeric() || matches!(c, '_' | '$' | '-')))?;
            let colon = self.skipped(at + word);
            let is_key = self.bare_keys && word > 0 && self.colon_at(colon);
            return (is_key && !self.text[colon..self.limit].starts_with("://")).then_some(true);
        };
        for (offset, c) in window.char_indices().skip_while(|(offset, _)| *offset < quote.len()) {
            if quote.closed_by(c) {
                let next = self.skipped(at + offset + c.len_utf8());
                return match self.text[next..self.limit].chars().next() {
                    _ if self.colon_at(next) => Some(true),
                    Some('0'..='9' | '{' | '[' | '-' | ',' | '}') | None => Some(false),
                    Some(_) => self.quote_at(next).map(|_| false),
                };
            }
            match c {
                '\n' => return None,
                ':' => return (offset > quote.len()).then_some(false),
                _ => {}
            }
        }
        None
    }

    fn colon_at(&self, at: usize) -> bool {
        self.text
            .get(at..self.limit)
            .is_some_and(|rest| rest.starts_with([':', '：']) || rest.starts_with("=>"))
    }

    /// Whether a short quoted element of a list begins here.
    fn element_at(&self, at: usize) -> bool {
        let end = self.text.floor_char_boundary(self.limit.min(at + KEY));
        let Some(quote) = self.quote_at(at) else { return false };
        let body = self.text.get(at + quote.len()..end).unwrap_or_default();
        body.char_indices().find(|(_, c)| quote.closed_by(*c)).is_some_and(|(offset, c)| {
            offset > 0
                && matches!(self.next_visible(at + quote.len() + offset + c.len_utf8()), Some(b',' | b']'))
        })
    }

    /// Whether a value can begin here, or a list end.
    fn value_at(&self, at: usize) -> bool {
        at >= self.limit
            || matches!(self.bytes[at], b'0'..=b'9' | b'-' | b'+' | b'.' | b'{' | b'[' | b']')
            || self.quote_at(at).is_some()
            || self.literal_at(at)
    }

    /// Reads the escape whose backslash is here.
    fn escape(&mut self, text: &mut String) {
        let here = self.at;
        self.at += 1;
        let Some(c) = self.peek() else { return };
        let plain = match c {
            '"' | '\\' | '/' => c,
            'n' => '\n',
            't' => '\t',
            'r' => '\r',
            'b' => '\u{8}',
            'f' => '\u{c}',
            'u' => return self.unicode(text),
            _ => {
                self.log.add(here, Kind::Escape);
                match c {
                    '\n' => {}
                    _ if family(c).is_some() => text.push(c),
                    'x' => match self.hex(self.at + 1, 2) {
                        Some(code) => {
                            text.extend(char::from_u32(code));
                            self.at += 2;
                        }
                        None => text.push_str("\\x"),
                    },
                    // A path or a formula: the backslash was meant.
                    _ => text.extend(['\\', c]),
                }
                self.at += c.len_utf8();
                return;
            }
        };
        text.push(plain);
        self.at += 1;
    }

    fn unicode(&mut self, text: &mut String) {
        let here = self.at;
        let Some(first) = self.hex(here + 1, 4) else {
            self.log.add(here, Kind::Escape);
            // Cut off at the end, it says nothing.
            if self.limit - here > 5 {
                text.push_str("\\u");
            }
            self.at += 1;
            return;
        };
        self.at += 5;
        let low =
            if self.bytes[self.at..self.limit].starts_with(b"\\u") { self.hex(self.at + 2, 4) } else { None };
        let c = match (first, low) {
            (0xd800..0xdc00, Some(low @ 0xdc00..0xe000)) => {
                self.at += 6;
                char::from_u32(0x10000 + ((first - 0xd800) << 10) + (low - 0xdc00))
            }
            _ => char::from_u32(first),
        };
        if c.is_none() {
            self.log.add(here, Kind::Escape);
        }
        text.push(c.unwrap_or(char::REPLACEMENT_CHARACTER));
    }

    fn hex(&self, at: usize, digits: usize) -> Option<u32> {
        let digits = self.bytes[..self.limit].get(at..at + digits)?;
        digits.iter().try_fold(0, |code, byte| Some(code * 16 + char::from(*byte).to_digit(16)?))
    }
}
