use std::ops::Range;

/// What can go wrong between documents and answers. Each message says what was expected, what was found, and where.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Error {
    /// A splitter's setting is out of range.
    #[error("splitter setting `{setting}`: expected {expected}, found {found}")]
    Splitter {
        /// The setting's name.
        setting: &'static str,
        /// The accepted range.
        expected: String,
        /// The value given.
        found: usize,
    },
    /// A range does not lie in its document on the borders of characters.
    #[error("document `{document}` has no text at bytes {}..{}: it is {length} bytes long", range.start, range.end)]
    Range {
        /// The document's id.
        document: String,
        /// The range in bytes.
        range: Range<usize>,
        /// The document's length in bytes.
        length: usize,
    },
    /// A chunk was cut from another document, or from an earlier text of this one.
    #[error(
        "the chunk was cut from `{expected}` and not from this text of `{found}`: split the document again"
    )]
    OtherDocument {
        /// The id of the chunk's document.
        expected: String,
        /// The id of the document that was given.
        found: String,
    },
    /// A vector's length is not that of the index.
    #[error(
        "the vector of `{id}` has {found} dimensions, expected {expected}: use the model that the index was made with"
    )]
    Dimensions {
        /// The vector's id, or `"the query"`.
        id: String,
        /// The index's dimensions.
        expected: usize,
        /// The vector's.
        found: usize,
    },
    /// A vector holds NaN or an infinity.
    #[error("the vector of `{id}` is {value} at position {position}: the model that made it failed")]
    NotFinite {
        /// The vector's id, or `"the query"`.
        id: String,
        /// Where, from 0.
        position: usize,
        /// The value there.
        value: f32,
    },
    /// A vector is zero, or empty: it points nowhere, and every comparison with it is meaningless.
    #[error("the vector of `{id}` is zero and has no direction: the model that made it failed")]
    ZeroVector {
        /// The vector's id, or `"the query"`.
        id: String,
    },
    /// The index has a vector of this id.
    #[error("`{id}` is in the index: remove it first")]
    DuplicateId {
        /// The id.
        id: String,
    },
    /// The collection was embedded with another model.
    #[error("the collection was embedded by `{expected}` and cannot be searched or extended with `{found}`")]
    OtherEmbedder {
        /// The identity of the collection's model.
        expected: String,
        /// That of the model given.
        found: String,
    },
    /// The embedder answered with the wrong number of vectors.
    #[error("embedder `{embedder}` returned {found} vectors for {expected} texts")]
    EmbeddingCount {
        /// The embedder's identity.
        embedder: String,
        /// The number of texts.
        expected: usize,
        /// The number of vectors.
        found: usize,
    },
    /// The embedder failed.
    #[error("embedder `{embedder}` failed: {source}")]
    Embedder {
        /// The embedder's identity.
        embedder: String,
        /// The cause.
        #[source]
        source: Box<llmkit_core::Error>,
    },
}

/// A result whose error is [`Error`].
pub type Result<T, E = Error> = std::result::Result<T, E>;
