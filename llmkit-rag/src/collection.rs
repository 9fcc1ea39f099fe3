use std::collections::BTreeMap;

use llmkit_core::Embedder;

use crate::{Chunk, Document, Error, FlatIndex, Hit, Metric, Result, Splitter};

/// Documents, their chunks, and the chunks' vectors: what questions are asked of.
///
/// A collection belongs to the embedder that it was made with: vectors of two models cannot be compared, so another
/// [identity](Embedder::id) is an error.
#[derive(Debug, Clone)]
pub struct Collection {
    embedder: String,
    documents: BTreeMap<String, Entry>,
    // Found chunks, by the id that the index knows them under.
    chunks: BTreeMap<String, Chunk>,
    index: FlatIndex,
}

#[derive(Debug, Clone)]
struct Entry {
    document: Document,
    chunks: Vec<String>,
}

/// A chunk that was found, with its text and its document: enough to quote and to cite.
#[derive(Debug, Clone, PartialEq)]
pub struct Passage<'c> {
    /// The document that the passage is from.
    pub document: &'c Document,
    /// Where it is in the document.
    pub chunk: &'c Chunk,
    /// The passage's text.
    pub text: &'c str,
    /// How near it is to the query, by the collection's [`Metric`]; higher is nearer.
    pub score: f32,
}

/// What [`Collection::add`] did.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Added {
    /// The document is new.
    New,
    /// A document of this id had another text or was cut elsewhere; it is replaced.
    Replaced,
    /// The text and its chunks are the same, so nothing was embedded; the metadata is the new one's.
    Unchanged,
}

impl Collection {
    /// An empty collection for the vectors of `embedder`.
    pub fn new(embedder: &dyn Embedder, metric: Metric) -> Self {
        Self {
            embedder: embedder.id().to_owned(),
            documents: BTreeMap::new(),
            chunks: BTreeMap::new(),
            index: FlatIndex::new(embedder.dimensions(), metric),
        }
    }

    /// The number of documents.
    pub fn len(&self) -> usize {
        self.documents.len()
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.documents.is_empty()
    }

    /// The number of chunks in all documents.
    pub fn chunk_count(&self) -> usize {
        self.chunks.len()
    }

    /// The document of this id.
    pub fn document(&self, id: &str) -> Option<&Document> {
        self.documents.get(id).map(|entry| &entry.document)
    }

    /// Splits and embeds `document` and takes it in, in place of an earlier one of the same id. All its chunks are embedded in one
    /// call. Chunks of nothing but white space can be found by no question and are left out.
    ///
    /// # Errors
    /// [`Error::OtherEmbedder`], [`Error::Embedder`] or [`Error::EmbeddingCount`], the splitter's errors, or those of
    /// [`FlatIndex::insert`] for a vector that is unusable. The collection is then as it was.
    pub async fn add(
        &mut self,
        embedder: &dyn Embedder,
        splitter: &dyn Splitter,
        document: Document,
    ) -> Result<Added> {
        self.check_embedder(embedder)?;
        let mut chunks = BTreeMap::new();
        let mut texts = Vec::new();
        for chunk in splitter.split(&document)? {
            let text = chunk.text(&document)?;
            if !text.trim().is_empty() && !chunks.contains_key(&chunk.id()) {
                texts.push((chunk.id(), text.to_owned()));
                chunks.insert(chunk.id(), chunk);
            }
        }
        let ids: Vec<String> = chunks.keys().cloned().collect();
        let added = match self.documents.get_mut(document.id()) {
            None => Added::New,
            Some(entry)
                if entry.document.content_hash() == document.content_hash() && entry.chunks == ids =>
            {
                entry.document = document;
                return Ok(Added::Unchanged);
            }
            Some(_) => Added::Replaced,
        };

        let (names, texts): (Vec<String>, Vec<String>) = texts.into_iter().unzip();
        let vectors = embed(embedder, &texts).await?;
        // Tried on an index of its own first, so that a bad vector leaves the collection as it was.
        let mut fresh = FlatIndex::new(self.index.dimensions(), self.index.metric());
        for (name, vector) in names.iter().zip(&vectors) {
            fresh.insert(name.clone(), vector)?;
        }
        self.remove(document.id());
        for (name, vector) in names.into_iter().zip(&vectors) {
            self.index.insert(name, vector)?;
        }
        self.chunks.extend(chunks);
        self.documents.insert(document.id().to_owned(), Entry { document, chunks: ids });
        Ok(added)
    }

    /// Removes a document with its chunks and says whether it was there.
    pub fn remove(&mut self, id: &str) -> bool {
        let Some(entry) = self.documents.remove(id) else { return false };
        for chunk in entry.chunks {
            self.index.remove(&chunk);
            self.chunks.remove(&chunk);
        }
        true
    }

    /// The `k` passages nearest to `query`, nearest first.
    ///
    /// # Errors
    /// [`Error::OtherEmbedder`], [`Error::Embedder`] or [`Error::EmbeddingCount`], or those of [`FlatIndex::search`] for the query's
    /// vector.
    pub async fn retrieve(&self, embedder: &dyn Embedder, query: &str, k: usize) -> Result<Vec<Passage<'_>>> {
        self.check_embedder(embedder)?;
        let vectors = embed(embedder, &[query.to_owned()]).await?;
        self.index.search(&vectors[0], k)?.into_iter().map(|hit| self.passage(hit)).collect()
    }

    fn passage(&self, Hit { id, score }: Hit) -> Result<Passage<'_>> {
        let chunk = self.chunks.get(&id).expect("every vector has a chunk");
        let document = self.document(chunk.document_id()).expect("every chunk has a document");
        Ok(Passage { document, chunk, text: chunk.text(document)?, score })
    }

    fn check_embedder(&self, embedder: &dyn Embedder) -> Result<()> {
        if embedder.id() != self.embedder {
            let (expected, found) = (self.embedder.clone(), embedder.id().to_owned());
            return Err(Error::OtherEmbedder { expected, found });
        }
        Ok(())
    }
}

/// One vector for each text.
async fn embed(embedder: &dyn Embedder, texts: &[String]) -> Result<Vec<Vec<f32>>> {
    if texts.is_empty() {
        return Ok(Vec::new());
    }
    let name = || embedder.id().to_owned();
    let vectors = embedder
        .embed(texts)
        .await
        .map_err(|source| Error::Embedder { embedder: name(), source: Box::new(source) })?;
    if vectors.len() != texts.len() {
        return Err(Error::EmbeddingCount { embedder: name(), expected: texts.len(), found: vectors.len() });
    }
    Ok(vectors)
}
