/// Finds stop texts in a text that arrives in pieces.
///
/// Text is released as soon as it can no longer be part of a stop text, and not before; so what has been released is never taken
/// back, wherever the pieces are cut. The text ends before the stop text whose last character comes first; of several that end
/// there, before the longest.
#[derive(Debug, Clone)]
pub struct StopScanner {
    stops: Vec<String>,
    held: String,
    found: Option<usize>,
}

impl StopScanner {
    /// Looks for `stops`; empty ones are passed over.
    pub fn new(stops: &[String]) -> Self {
        let stops = stops.iter().filter(|stop| !stop.is_empty()).cloned().collect();
        Self { stops, held: String::new(), found: None }
    }

    /// Takes the next piece; the text that is now known to be outside every stop text. Empty once one was found.
    pub fn push(&mut self, piece: &str) -> String {
        if self.found.is_some() {
            return String::new();
        }
        self.held.push_str(piece);
        if let Some((start, stop)) = self.first_match() {
            self.found = Some(stop);
            self.held.truncate(start);
            return std::mem::take(&mut self.held);
        }
        let kept = self.held.split_off(self.start_of_possible_stop());
        std::mem::replace(&mut self.held, kept)
    }

    /// Ends the text: what was held back in case a stop text would follow.
    pub fn finish(&mut self) -> String {
        std::mem::take(&mut self.held)
    }

    /// The stop text that was found.
    pub fn found(&self) -> Option<&str> {
        self.found.map(|stop| self.stops[stop].as_str())
    }

    /// Where the text held ends because of a stop text, and which one.
    fn first_match(&self) -> Option<(usize, usize)> {
        let matches = self.stops.iter().enumerate().filter_map(|(index, stop)| {
            let start = self.held.find(stop.as_str())?;
            Some((start + stop.len(), start, index))
        });
        matches.min().map(|(_, start, index)| (start, index))
    }

    /// Where the longest ending of the text held starts that a stop text may start with.
    fn start_of_possible_stop(&self) -> usize {
        let starts = self.held.char_indices().map(|(start, _)| start);
        let mut possible =
            starts.filter(|&start| self.stops.iter().any(|stop| stop.starts_with(&self.held[start..])));
        possible.next().unwrap_or(self.held.len())
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn scan(stops: &[&str], pieces: &[&str]) -> (Vec<String>, String, Option<String>) {
        let stops: Vec<String> = stops.iter().map(|&stop| stop.into()).collect();
        let mut scanner = StopScanner::new(&stops);
        let released: Vec<String> = pieces.iter().map(|piece| scanner.push(piece)).collect();
        let rest = scanner.finish();
        (released, rest, scanner.found().map(str::to_owned))
    }

    #[test]
    fn a_stop_text_spans_pieces() {
        let (released, rest, found) = scan(&["\nUser:"], &["Hi there", ".\n", "Us", "er", ": more"]);
        assert_eq!(released, ["Hi there", ".", "", "", ""]);
        assert_eq!((rest.as_str(), found.as_deref()), ("", Some("\nUser:")));
    }

    #[test]
    fn a_false_start_is_released_when_it_is_known() {
        let (released, rest, found) = scan(&["\nUser:"], &["a\nU", "S", "\nUs"]);
        assert_eq!(released, ["a", "\nUS", ""]);
        assert_eq!((rest.as_str(), found), ("\nUs", None));
    }

    #[test]
    fn a_false_start_may_hide_the_true_one() {
        let (released, rest, found) = scan(&["aab"], &["a", "a", "a", "b", "c"]);
        assert_eq!(released, ["", "", "a", "", ""]);
        assert_eq!((rest.as_str(), found.as_deref()), ("", Some("aab")));
    }

    #[test]
    fn of_several_the_one_that_ends_first_counts() {
        for pieces in [&["xabcd"][..], &["x", "a", "b", "c", "d"]] {
            let (released, _, found) = scan(&["abcd", "bc"], pieces);
            assert_eq!((released.concat().as_str(), found.as_deref()), ("xa", Some("bc")));
            let (released, _, found) = scan(&["cd", "abcd"], pieces);
            assert_eq!((released.concat().as_str(), found.as_deref()), ("x", Some("abcd")));
        }
    }

    #[test]
    fn characters_of_several_bytes_are_not_cut() {
        let (released, rest, found) = scan(&["é→"], &["caf", "é", "é", "→!"]);
        assert_eq!(released, ["caf", "", "é", ""]);
        assert_eq!((rest.as_str(), found.as_deref()), ("", Some("é→")));
    }

    /// The rule read off the whole text at once: the earliest end, then the earliest start.
    fn whole(stops: &[String], text: &str) -> String {
        for end in text.char_indices().map(|(start, c)| start + c.len_utf8()) {
            let ending = stops.iter().filter(|stop| text[..end].ends_with(stop.as_str()));
            if let Some(longest) = ending.map(String::len).max() {
                return text[..end - longest].to_owned();
            }
        }
        text.to_owned()
    }

    proptest! {
        #[test]
        fn pieces_give_what_the_whole_text_gives(
            stops in prop::collection::vec("[abé]{1,4}", 0..4),
            pieces in prop::collection::vec("[abé]{0,4}", 0..12),
        ) {
            let mut scanner = StopScanner::new(&stops);
            let expected = whole(&stops, &pieces.concat());
            let mut released = String::new();
            for piece in &pieces {
                released += &scanner.push(piece);
                prop_assert!(expected.starts_with(&released));
            }
            released += &scanner.finish();
            prop_assert_eq!(released, expected);
        }
    }
}
