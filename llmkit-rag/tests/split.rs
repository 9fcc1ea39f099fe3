//! The splitters on texts of many scripts: what must hold for every text, and what comes out of some.
#![allow(clippy::unwrap_used)]

use std::ops::Range;

use llmkit_rag::{CharacterSplitter, Document, Error, SentenceSplitter, Splitter, TextSplitter};
use proptest::prelude::*;
use unicode_segmentation::UnicodeSegmentation;

fn chars(text: &str, range: Range<usize>) -> usize {
    text[range].chars().count()
}

/// Sentences, and what is no sentence, in scripts of one to four bytes a character.
fn texts() -> impl Strategy<Value = String> {
    let piece = prop_oneof![
        "[a-z]{1,9}",
        "[一-龥]{1,7}",
        Just("Really?! ".to_owned()),
        Just(". ".to_owned()),
        Just("。".to_owned()),
        Just("！".to_owned()),
        Just("\n\n".to_owned()),
        Just("👩‍👩‍👧 ".to_owned()),
        Just("🦀".to_owned()),
        Just("e\u{301}".to_owned()),
        "\\PC{0,5}",
    ];
    prop::collection::vec(piece, 0..60).prop_map(|pieces| pieces.concat())
}

fn settings() -> impl Strategy<Value = (usize, usize)> {
    (1_usize..40).prop_flat_map(|max_chars| (Just(max_chars), 0..max_chars))
}

/// In order, from the first byte to the last, without a gap, each piece beyond its predecessor, within the limit. That slicing does not
/// panic shows that the borders are those of characters.
fn assert_covers(text: &str, ranges: &[Range<usize>], max_chars: usize) {
    assert_eq!(ranges.is_empty(), text.is_empty());
    let mut end = 0;
    for (index, range) in ranges.iter().enumerate() {
        assert!(range.start <= end && range.end > end, "{ranges:?}");
        assert!(index == 0 || range.start > ranges[index - 1].start, "{ranges:?}");
        assert!(chars(text, range.clone()) <= max_chars, "{ranges:?}");
        end = range.end;
    }
    assert_eq!(end, text.len());
}

proptest! {
    #[test]
    fn character_pieces_cover_the_text_and_share_exactly_the_overlap(
        text in texts(), (max_chars, overlap) in settings(),
    ) {
        let ranges = CharacterSplitter::new(max_chars).with_overlap(overlap).ranges(&text).unwrap();
        assert_covers(&text, &ranges, max_chars);
        for pair in ranges.windows(2) {
            prop_assert_eq!(chars(&text, pair[0].clone()), max_chars);
            prop_assert_eq!(chars(&text, pair[1].start..pair[0].end), overlap);
        }
    }

    #[test]
    fn sentence_pieces_cover_the_text_and_cut_only_what_is_too_long(
        text in texts(), (max_chars, overlap) in settings(),
    ) {
        let ranges = SentenceSplitter::new(max_chars).with_overlap(overlap).ranges(&text).unwrap();
        assert_covers(&text, &ranges, max_chars);
        let sentences: Vec<Range<usize>> = text
            .split_sentence_bound_indices()
            .map(|(start, sentence)| start..start + sentence.len())
            .collect();
        let is_border = |position| position == 0 || sentences.iter().any(|sentence| sentence.end == position);
        let around = |position| sentences.iter().find(|sentence| sentence.contains(&position)).unwrap().clone();
        for range in &ranges {
            for position in [range.start, range.end] {
                prop_assert!(is_border(position) || chars(&text, around(position)) > max_chars);
            }
        }
        for pair in ranges.windows(2) {
            let shared = chars(&text, pair[1].start..pair[0].end);
            prop_assert!(shared <= overlap);
            if !is_border(pair[1].start) {
                prop_assert_eq!(shared, overlap);
            }
            // Not one whole sentence more could be shared.
            let before = sentences.iter().find(|sentence| sentence.end == pair[1].start);
            if let Some(before) = before.filter(|before| before.start > pair[0].start) {
                let too_much = chars(&text, before.start..pair[0].end) > overlap;
                let too_long = chars(&text, before.start..around(pair[0].end).end) > max_chars;
                prop_assert!(too_much || (too_long && is_border(pair[0].end)), "{:?}", pair);
            }
        }
    }

    #[test]
    fn chunks_without_overlap_join_to_the_document(text in texts(), max_chars in 1_usize..40) {
        let document = Document::new("d", text);
        for splitter in [
            TextSplitter::Character(CharacterSplitter::new(max_chars)),
            TextSplitter::Sentence(SentenceSplitter::new(max_chars)),
        ] {
            let chunks = splitter.split(&document).unwrap();
            let joined: String = chunks.iter().map(|chunk| chunk.text(&document).unwrap()).collect();
            prop_assert_eq!(&joined, document.text());
        }
    }
}

fn pieces(splitter: &dyn Splitter, text: &str) -> Vec<String> {
    splitter.ranges(text).unwrap().into_iter().map(|range| text[range].to_owned()).collect()
}

#[test]
fn characters_are_counted_and_not_bytes() {
    let splitter = CharacterSplitter::new(3).with_overlap(1);
    assert_eq!(pieces(&splitter, "大语言模型🦀a"), ["大语言", "言模型", "型🦀a"]);
}

#[test]
fn sentences_stay_whole_and_the_overlap_is_whole_sentences() {
    let text = "Is it? It is! 这是第一句。这是第二句。\nEnd.";
    assert_eq!(
        pieces(&SentenceSplitter::new(14).with_overlap(8), text),
        ["Is it? It is! ", "It is! 这是第一句。", "这是第一句。这是第二句。\n", "这是第二句。\nEnd."]
    );
}

#[test]
fn a_long_sentence_is_cut_with_the_exact_overlap() {
    let text = "Go. Abcdefghijklmnop. Stop.";
    assert_eq!(
        pieces(&SentenceSplitter::new(8).with_overlap(2), text),
        ["Go. ", "Abcdefgh", "ghijklmn", "mnop. ", "Stop."]
    );
}

#[test]
fn settings_out_of_range_are_errors() {
    for (max_chars, overlap, name) in [(0, 0, "max_chars"), (5, 5, "overlap"), (5, 9, "overlap")] {
        let character = CharacterSplitter::new(max_chars).with_overlap(overlap).ranges("text");
        let sentence = SentenceSplitter::new(max_chars).with_overlap(overlap).ranges("text");
        for result in [character, sentence] {
            assert!(matches!(result, Err(Error::Splitter { setting, .. }) if setting == name));
        }
    }
}

#[test]
fn a_splitter_is_read_from_a_configuration() {
    let read = |json: &str| serde_json::from_str::<TextSplitter>(json);
    assert_eq!(
        read(r#"{"type": "sentence", "max_chars": 800, "overlap": 100}"#).unwrap(),
        TextSplitter::Sentence(SentenceSplitter::new(800).with_overlap(100))
    );
    assert_eq!(
        read(r#"{"type": "character", "max_chars": 9}"#).unwrap(),
        TextSplitter::Character(CharacterSplitter::new(9))
    );
    assert!(read(r#"{"type": "character", "max_chars": 9, "overlpa": 3}"#).is_err());
}

#[test]
fn a_long_text_of_one_sentence_is_split_in_time() {
    let text = "名".repeat(1_000_000);
    let ranges = SentenceSplitter::new(100).with_overlap(50).ranges(&text).unwrap();
    assert_eq!(ranges.len(), 19_999);
}
