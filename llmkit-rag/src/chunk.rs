use std::ops::Range;

use serde::{Deserialize, Serialize};

use crate::{ContentHash, Document, Error, Result};

/// A piece of a document, as a range of its bytes: what is embedded, found and cited.
///
/// It holds no text, so that a citation cannot drift from its source; [`text`](Self::text) reads it from the document and refuses
/// one whose text has changed since.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub struct Chunk {
    document_id: String,
    content_hash: ContentHash,
    range: Range<usize>,
}

impl Chunk {
    /// The piece of `document` at the bytes `range`.
    ///
    /// # Errors
    /// [`Error::Range`] if the range runs backwards, leaves the text, or cuts a character.
    pub fn new(document: &Document, range: Range<usize>) -> Result<Self> {
        slice(document, &range)?;
        Ok(Self { document_id: document.id().to_owned(), content_hash: document.content_hash(), range })
    }

    /// The id of the document.
    pub fn document_id(&self) -> &str {
        &self.document_id
    }

    /// Identifies the text that the range belongs to.
    pub fn content_hash(&self) -> ContentHash {
        self.content_hash
    }

    /// Where the piece lies in the document's text, in bytes.
    pub fn range(&self) -> Range<usize> {
        self.range.clone()
    }

    /// A name for the piece, unique within a text of a document: `"handbook#120-480"`.
    pub fn id(&self) -> String {
        format!("{}#{}-{}", self.document_id, self.range.start, self.range.end)
    }

    /// The piece's text.
    ///
    /// # Errors
    /// [`Error::OtherDocument`] if `document` is another one or its text has changed, [`Error::Range`] if the chunk was read from a
    /// file that lies.
    pub fn text<'d>(&self, document: &'d Document) -> Result<&'d str> {
        if self.document_id != document.id() || self.content_hash != document.content_hash() {
            let (expected, found) = (self.document_id.clone(), document.id().to_owned());
            return Err(Error::OtherDocument { expected, found });
        }
        slice(document, &self.range)
    }
}

fn slice<'d>(document: &'d Document, range: &Range<usize>) -> Result<&'d str> {
    document.text().get(range.clone()).ok_or_else(|| Error::Range {
        document: document.id().to_owned(),
        range: range.clone(),
        length: document.text().len(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_chunk_reads_its_text_from_its_document_only() {
        let document = Document::new("d", "a名b");
        let chunk = Chunk::new(&document, 1..4).unwrap();
        assert_eq!(chunk.text(&document).unwrap(), "名");
        assert_eq!(chunk.id(), "d#1-4");
        for other in [Document::new("d", "a名c"), Document::new("e", "a名b")] {
            assert!(matches!(chunk.text(&other), Err(Error::OtherDocument { .. })));
        }
    }

    #[test]
    #[allow(clippy::reversed_empty_ranges)]
    fn ranges_off_the_text_or_inside_a_character_are_errors() {
        let document = Document::new("d", "a名b");
        for range in [0..2, 2..4, 0..6, 6..7, 3..1] {
            assert!(matches!(Chunk::new(&document, range), Err(Error::Range { length: 5, .. })));
        }
        let mut json = serde_json::to_value(Chunk::new(&document, 0..1).unwrap()).unwrap();
        json["range"] = serde_json::json!({ "start": 0, "end": 2 });
        let lying: Chunk = serde_json::from_value(json).unwrap();
        assert!(matches!(lying.text(&document), Err(Error::Range { .. })));
    }
}
