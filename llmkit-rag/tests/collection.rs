//! Documents in, passages out, over an embedder whose vectors are known.
#![allow(clippy::unwrap_used)]

use std::sync::Mutex;

use async_trait::async_trait;
use llmkit_core::Embedder;
use llmkit_rag::{Added, CharacterSplitter, Collection, Document, Error, Metric, SentenceSplitter};
use pollster::block_on;

const WORDS: [&str; 4] = ["cat", "dog", "fish", "bird"];

/// Counts four words; remembers what it was asked.
#[derive(Default)]
struct Words {
    id: &'static str,
    fault: Option<Fault>,
    asked: Mutex<Vec<String>>,
}

#[derive(Clone, Copy)]
enum Fault {
    OneTooFew,
    Nan,
    Fails,
}

#[async_trait]
impl Embedder for Words {
    fn id(&self) -> &str {
        self.id
    }

    fn dimensions(&self) -> usize {
        WORDS.len()
    }

    async fn embed(&self, texts: &[String]) -> llmkit_core::Result<Vec<Vec<f32>>> {
        self.asked.lock().unwrap().extend_from_slice(texts);
        let mut vectors: Vec<Vec<f32>> = texts
            .iter()
            .map(|text| WORDS.iter().map(|word| text.matches(word).count() as f32).collect())
            .collect();
        match self.fault {
            None => {}
            Some(Fault::OneTooFew) => drop(vectors.pop()),
            Some(Fault::Nan) => vectors.last_mut().unwrap()[2] = f32::NAN,
            Some(Fault::Fails) => {
                return Err(llmkit_core::Error::Model {
                    model: "words".to_owned(),
                    reason: "asleep".to_owned(),
                });
            }
        }
        Ok(vectors)
    }
}

fn words(id: &'static str) -> Words {
    Words { id, ..Words::default() }
}

fn filled(embedder: &Words) -> Collection {
    let mut collection = Collection::new(embedder, Metric::Cosine);
    for (id, text) in
        [("pets", "A cat sat. A dog ran. A cat met a dog.\n\n"), ("wild", "A bird ate a fish. A bird flew.")]
    {
        let added = block_on(collection.add(embedder, &SentenceSplitter::new(20), Document::new(id, text)));
        assert_eq!(added.unwrap(), Added::New);
    }
    collection
}

fn found(collection: &Collection, embedder: &Words, query: &str, k: usize) -> Vec<(String, f32)> {
    let passages = block_on(collection.retrieve(embedder, query, k)).unwrap();
    passages.into_iter().map(|passage| (passage.text.to_owned(), passage.score)).collect()
}

#[test]
fn the_nearest_passages_come_with_their_place() {
    let embedder = words("w");
    let collection = filled(&embedder);
    assert_eq!((collection.len(), collection.chunk_count()), (2, 5));
    let passages = block_on(collection.retrieve(&embedder, "fish or bird", 2)).unwrap();
    assert_eq!(passages[0].text, "A bird ate a fish. ");
    assert_eq!(passages[0].chunk.range(), 0..19);
    assert_eq!(passages[0].document.id(), "wild");
    assert!((passages[0].score - 1.0).abs() < 1e-6);
    assert_eq!(passages[1].text, "A bird flew.");
    assert!((passages[1].score - 0.5_f32.sqrt()).abs() < 1e-6);
}

#[test]
fn the_same_text_is_not_embedded_again_and_its_metadata_is_taken() {
    let embedder = words("w");
    let mut collection = filled(&embedder);
    let asked = embedder.asked.lock().unwrap().len();
    let text = collection.document("wild").unwrap().text().to_owned();
    let again = Document::new("wild", text.clone()).with_metadata("year", 2026);
    assert_eq!(
        block_on(collection.add(&embedder, &SentenceSplitter::new(20), again)).unwrap(),
        Added::Unchanged
    );
    assert_eq!(embedder.asked.lock().unwrap().len(), asked);
    assert_eq!(collection.document("wild").unwrap().metadata()["year"], 2026);

    // Cut elsewhere, the text is new to the index.
    let recut = block_on(collection.add(&embedder, &CharacterSplitter::new(99), Document::new("wild", text)));
    assert_eq!(recut.unwrap(), Added::Replaced);
    assert_eq!(found(&collection, &embedder, "bird", 1)[0].0, "A bird ate a fish. A bird flew.");
}

#[test]
fn a_replaced_or_removed_document_is_found_no_more() {
    let embedder = words("w");
    let mut collection = filled(&embedder);
    let new = Document::new("wild", "A fish swam.");
    assert_eq!(
        block_on(collection.add(&embedder, &SentenceSplitter::new(20), new)).unwrap(),
        Added::Replaced
    );
    assert_eq!(found(&collection, &embedder, "fish", 1), [("A fish swam.".to_owned(), 1.0)]);
    assert_eq!(found(&collection, &embedder, "bird", 1)[0].1, 0.0);
    assert!(collection.remove("pets"));
    assert!(!collection.remove("pets"));
    assert_eq!(found(&collection, &embedder, "cat", 9), [("A fish swam.".to_owned(), 0.0)]);
}

#[test]
fn blank_chunks_are_left_out() {
    let embedder = words("w");
    let mut collection = Collection::new(&embedder, Metric::Dot);
    let document = Document::new("d", "cat\n\n  \n    dog");
    block_on(collection.add(&embedder, &CharacterSplitter::new(3), document)).unwrap();
    assert_eq!(*embedder.asked.lock().unwrap(), ["cat", "dog"]);
}

#[test]
fn another_embedder_is_refused() {
    let collection = filled(&words("w"));
    let error = block_on(collection.retrieve(&words("other"), "cat", 1)).unwrap_err();
    assert!(
        matches!(&error, Error::OtherEmbedder { expected, found } if expected == "w" && found == "other")
    );
}

#[test]
fn a_failing_embedder_leaves_the_collection_as_it_was() {
    let good = words("w");
    let mut collection = filled(&good);
    let before = found(&collection, &good, "bird and cat", 9);
    for fault in [Fault::OneTooFew, Fault::Nan, Fault::Fails] {
        let bad = Words { fault: Some(fault), ..words("w") };
        let document = Document::new("wild", "A cat. A cat and a dog. A fish.");
        let error = block_on(collection.add(&bad, &SentenceSplitter::new(9), document)).unwrap_err();
        match fault {
            Fault::OneTooFew => {
                assert!(matches!(error, Error::EmbeddingCount { expected: 4, found: 3, .. }), "{error}")
            }
            Fault::Nan => assert!(matches!(error, Error::NotFinite { position: 2, .. }), "{error}"),
            Fault::Fails => assert!(matches!(error, Error::Embedder { .. }), "{error}"),
        }
        assert_eq!(found(&collection, &good, "bird and cat", 9), before);
    }
}

#[test]
fn a_query_without_meaning_is_an_error() {
    let embedder = words("w");
    let error = block_on(filled(&embedder).retrieve(&embedder, "nothing known", 1)).unwrap_err();
    assert!(matches!(error, Error::ZeroVector { .. }));
}

#[test]
fn an_empty_collection_finds_nothing() {
    let embedder = words("w");
    let mut collection = Collection::new(&embedder, Metric::Euclidean);
    assert!(found(&collection, &embedder, "cat", 3).is_empty());
    block_on(collection.add(&embedder, &SentenceSplitter::new(20), Document::new("empty", " \n"))).unwrap();
    assert!(found(&collection, &embedder, "cat", 3).is_empty());
    assert_eq!((collection.len(), collection.chunk_count()), (1, 0));
}
