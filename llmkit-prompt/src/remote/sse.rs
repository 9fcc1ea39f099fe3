//! Server-sent events, read as they arrive.

use std::mem;

/// The longest event, in bytes, data and name together.
const MAX_EVENT_BYTES: usize = 4 << 20;

/// An event with data. Ids and retry times mean nothing to an answer and are skipped.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Event {
    /// The event's name; empty where the stream gives none.
    pub(super) name: String,
    /// The data, its lines joined by line feeds.
    pub(super) data: String,
}

/// Why a stream of events is unusable.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Broken {
    /// An event is longer than [`MAX_EVENT_BYTES`].
    TooLong,
    /// A line of data is not UTF-8.
    NotUtf8,
}

/// Reads the event stream format of the HTML standard from bytes that arrive in pieces of any size: lines that end in LF, CRLF or CR, comments,
/// data of several lines, characters split between two pieces. Holds one event at a time, in time linear in what arrives.
#[derive(Debug, Default)]
pub(super) struct Parser {
    /// The line that has not ended yet.
    line: Vec<u8>,
    /// Whether the last byte was a CR, so that an LF right after it ends no second line.
    after_cr: bool,
    /// Whether a line has ended, so that a byte order mark is no longer expected.
    started: bool,
    name: String,
    data: String,
    /// Whether the event has data, which may be empty.
    has_data: bool,
}

impl Parser {
    /// Reads the next piece and adds the events that it completes to `events`.
    pub(super) fn push(&mut self, bytes: &[u8], events: &mut Vec<Event>) -> Result<(), Broken> {
        if bytes.is_empty() {
            return Ok(());
        }
        let mut rest = bytes;
        if mem::take(&mut self.after_cr) && rest.first() == Some(&b'\n') {
            rest = &rest[1..];
        }
        while let Some(end) = rest.iter().position(|byte| matches!(byte, b'\n' | b'\r')) {
            self.extend(&rest[..end])?;
            let cr = rest[end] == b'\r';
            rest = &rest[end + 1..];
            if cr {
                match rest.first() {
                    Some(b'\n') => rest = &rest[1..],
                    None => self.after_cr = true,
                    Some(_) => {}
                }
            }
            self.end_line(events)?;
        }
        self.extend(rest)
    }

    /// The event that the end of the stream leaves without its blank line, if there is one. Some servers end so.
    pub(super) fn finish(mut self) -> Result<Option<Event>, Broken> {
        let mut events = Vec::new();
        if !self.line.is_empty() {
            self.end_line(&mut events)?;
        }
        self.dispatch(&mut events);
        Ok(events.pop())
    }

    fn extend(&mut self, bytes: &[u8]) -> Result<(), Broken> {
        if self.line.len() + self.data.len() + self.name.len() + bytes.len() > MAX_EVENT_BYTES {
            return Err(Broken::TooLong);
        }
        self.line.extend_from_slice(bytes);
        Ok(())
    }

    fn end_line(&mut self, events: &mut Vec<Event>) -> Result<(), Broken> {
        let mut line = mem::take(&mut self.line);
        if !mem::replace(&mut self.started, true) && line.starts_with("\u{feff}".as_bytes()) {
            line.drain(..3);
        }
        if line.is_empty() {
            self.dispatch(events);
            return Ok(());
        }
        let colon = line.iter().position(|byte| *byte == b':').unwrap_or(line.len());
        let (field, value) = line.split_at(colon);
        let value = value.strip_prefix(b":").unwrap_or(value);
        let value = value.strip_prefix(b" ").unwrap_or(value);
        match field {
            b"data" => {
                let value = str::from_utf8(value).map_err(|_| Broken::NotUtf8)?;
                if mem::replace(&mut self.has_data, true) {
                    self.data.push('\n');
                }
                self.data.push_str(value);
            }
            b"event" => {
                self.name.clear();
                self.name.push_str(str::from_utf8(value).map_err(|_| Broken::NotUtf8)?);
            }
            _ => {}
        }
        // The buffer is used again for the next line.
        line.clear();
        self.line = line;
        Ok(())
    }

    fn dispatch(&mut self, events: &mut Vec<Event>) {
        let (name, data) = (mem::take(&mut self.name), mem::take(&mut self.data));
        if mem::take(&mut self.has_data) {
            events.push(Event { name, data });
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn read<'a>(pieces: impl IntoIterator<Item = &'a [u8]>) -> Vec<Event> {
        let (mut parser, mut events) = (Parser::default(), Vec::new());
        for piece in pieces {
            parser.push(piece, &mut events).unwrap();
        }
        events.extend(parser.finish().unwrap());
        events
    }

    fn data(events: &[Event]) -> Vec<&str> {
        events.iter().map(|event| event.data.as_str()).collect()
    }

    const STREAM: &str = "\u{feff}: a comment\r\ndata: one\r\n\r\nevent: error\ndata:two\ndata:  three\n\nid: 7\nretry: 3\n\ndata\r\rdata: späte 🦀\n\ndata: [DONE]";

    #[test]
    fn every_ending_comment_and_field_is_read() {
        let events = read([STREAM.as_bytes()]);
        assert_eq!(data(&events), ["one", "two\n three", "", "späte 🦀", "[DONE]"]);
        assert_eq!(events[1].name, "error");
        assert_eq!(events[3].name, "");
    }

    #[test]
    fn it_does_not_matter_where_the_pieces_are_cut() {
        let whole = read([STREAM.as_bytes()]);
        for size in 1..STREAM.len() {
            assert_eq!(read(STREAM.as_bytes().chunks(size)), whole, "pieces of {size} bytes");
        }
    }

    #[test]
    fn what_is_too_long_or_not_utf8_is_refused_and_bad_comments_are_not() {
        let mut parser = Parser::default();
        let endless = vec![b'x'; MAX_EVENT_BYTES];
        parser.push(&endless, &mut Vec::new()).unwrap();
        assert_eq!(parser.push(b"y", &mut Vec::new()), Err(Broken::TooLong));

        let mut parser = Parser::default();
        let line = [b"data: ".as_slice(), &[b'x'; 1 << 16], b"\n"].concat();
        let result = (0..100).try_for_each(|_| parser.push(&line, &mut Vec::new()));
        assert_eq!(result, Err(Broken::TooLong), "many lines of one event");

        assert_eq!(Parser::default().push(b"data: \xff\n", &mut Vec::new()), Err(Broken::NotUtf8));
        assert_eq!(data(&read([b": \xff\ndata: x\n\n".as_slice()])), ["x"]);
    }

    proptest! {
        #[test]
        fn any_bytes_in_any_pieces_give_the_same_events(bytes: Vec<u8>, size in 1_usize..40) {
            let run = |pieces: Vec<&[u8]>| {
                let (mut parser, mut events) = (Parser::default(), Vec::new());
                for piece in pieces {
                    parser.push(piece, &mut events)?;
                }
                events.extend(parser.finish()?);
                Ok::<_, Broken>(events)
            };
            prop_assert_eq!(run(vec![&bytes]), run(bytes.chunks(size).collect()));
        }
    }
}
