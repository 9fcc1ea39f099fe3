use std::collections::BTreeMap;
use std::fmt;

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

/// A text with a name: a page, an article, a file.
///
/// The text does not change once the document is made, so that its [hash](Self::content_hash) and the byte ranges of its
/// [chunks](crate::Chunk) stay true; a new text is a new document of the same id.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(from = "Stored", into = "Stored")]
pub struct Document {
    id: String,
    text: String,
    metadata: BTreeMap<String, serde_json::Value>,
    content_hash: ContentHash,
}

/// What is written: the hash follows from the text and is never read from a file.
#[derive(Clone, Serialize, Deserialize)]
struct Stored {
    id: String,
    text: String,
    #[serde(default)]
    metadata: BTreeMap<String, serde_json::Value>,
}

impl Document {
    /// A document without metadata.
    pub fn new(id: impl Into<String>, text: impl Into<String>) -> Self {
        let text = text.into();
        let content_hash = ContentHash::of(&text);
        Self { id: id.into(), text, metadata: BTreeMap::new(), content_hash }
    }

    /// Adds a fact about the document: its title, its source, its date. A second value of the same key replaces the first.
    #[must_use]
    pub fn with_metadata(mut self, key: impl Into<String>, value: impl Into<serde_json::Value>) -> Self {
        self.metadata.insert(key.into(), value.into());
        self
    }

    /// What names the document; the caller keeps it unique.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Facts about the document.
    pub fn metadata(&self) -> &BTreeMap<String, serde_json::Value> {
        &self.metadata
    }

    /// Identifies the text, without id and metadata.
    pub fn content_hash(&self) -> ContentHash {
        self.content_hash
    }
}

impl From<Stored> for Document {
    fn from(Stored { id, text, metadata }: Stored) -> Self {
        Self { metadata, ..Self::new(id, text) }
    }
}

impl From<Document> for Stored {
    fn from(Document { id, text, metadata, .. }: Document) -> Self {
        Self { id, text, metadata }
    }
}

/// The SHA-256 of a document's text in UTF-8. Shown in hexadecimal.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct ContentHash([u8; 32]);

impl ContentHash {
    /// The hash of `text`.
    pub fn of(text: &str) -> Self {
        Self(Sha256::digest(text.as_bytes()).into())
    }
}

impl fmt::Display for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl fmt::Debug for ContentHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "ContentHash({self})")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_hash_is_sha_256_of_the_text_alone() {
        let document = Document::new("a", "abc").with_metadata("title", "A");
        // FIPS 180-2, appendix B.1.
        let expected = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        assert_eq!(document.content_hash().to_string(), expected);
        assert_eq!(document.content_hash(), Document::new("b", "abc").content_hash());
        assert_ne!(document.content_hash(), Document::new("a", "abd").content_hash());
    }

    #[test]
    fn a_document_survives_json_and_a_forged_hash_does_not() {
        let document = Document::new("a", "名🦀").with_metadata("page", 3);
        let json = serde_json::to_value(&document).unwrap();
        assert_eq!(json, serde_json::json!({ "id": "a", "text": "名🦀", "metadata": { "page": 3 } }));
        assert_eq!(serde_json::from_value::<Document>(json).unwrap(), document);

        let forged = r#"{ "id": "a", "text": "new", "content_hash": [0] }"#;
        let read: Document = serde_json::from_str(forged).unwrap();
        assert_eq!(read.content_hash(), ContentHash::of("new"));
    }
}
