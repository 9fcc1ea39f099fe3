//! Text to token ids and back, over the `tokenizers` crate.

#[cfg(feature = "constrained")]
mod bytes;
mod encoded;
mod file;
mod folder;
mod gguf;
mod special;
mod stream;

use std::fs;
use std::io::Write;
use std::ops::Range;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::Path;
use std::sync::Arc;

pub use encoded::Encoded;
use special::SpecialTokens;
pub use stream::DecodeStream;

use crate::checkpoint::gguf::Metadata;
use crate::checkpoint::write_atomic;
use crate::{Error, Result, TokenCounter};

/// Text to token ids and back.
///
/// Cloning is cheap: clones share the vocabulary.
///
/// ```no_run
/// use llmkit_core::Tokenizer;
///
/// # fn main() -> llmkit_core::Result<()> {
/// let tokenizer = Tokenizer::from_folder("SmolLM2-135M-Instruct")?;
/// let ids = tokenizer.encode("Where is the library?", true)?;
/// assert_eq!(tokenizer.decode(&ids, true)?, "Where is the library?");
/// # Ok(())
/// # }
/// ```
#[derive(Debug, Clone)]
pub struct Tokenizer {
    inner: Arc<tokenizers::Tokenizer>,
    special: SpecialTokens,
}

impl Tokenizer {
    /// Reads a Hugging Face `tokenizer.json`.
    ///
    /// Truncation and padding that the file asks for are dropped: a text is never shortened behind the caller's back.
    /// The file alone does not say which token begins a text or ends a turn; [`from_folder`](Self::from_folder) reads
    /// the files that do.
    ///
    /// # Errors
    /// [`Error::MissingFile`], [`Error::Io`], or [`Error::Tokenizer`] when the contents are unusable.
    pub fn from_file(path: impl AsRef<Path>) -> Result<Self> {
        Ok(Self::new(file::read(path.as_ref())?, SpecialTokens::default()))
    }

    /// Reads the tokenizer of a Hugging Face model folder.
    ///
    /// `tokenizer.json` is required. The special tokens come from `tokenizer_config.json`, failing that from
    /// `special_tokens_map.json`; further ids that end a turn from `generation_config.json`, failing that from `config.json`.
    ///
    /// # Errors
    /// [`Error::MissingFile`] without `tokenizer.json`, [`Error::Json`] or [`Error::Config`] when another file is unusable or
    /// names a token that the vocabulary lacks, [`Error::Tokenizer`] when `tokenizer.json` is unusable.
    pub fn from_folder(folder: impl AsRef<Path>) -> Result<Self> {
        folder::read(folder.as_ref())
    }

    /// Builds the tokenizer that a GGUF file carries: `tokenizer.ggml.model` `gpt2` (byte-level BPE) or `llama`
    /// (SentencePiece BPE).
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the metadata lacks a field, contradicts itself, or names a kind of tokenizer that is not
    /// supported; the message names those that are.
    pub fn from_gguf(metadata: &Metadata) -> Result<Self> {
        gguf::build(metadata)
    }

    /// The metadata that describe this tokenizer in a GGUF file, the inverse of [`from_gguf`](Self::from_gguf), for
    /// [`GgufOptions::with_tokenizer`](crate::checkpoint::gguf::GgufOptions::with_tokenizer): byte-level BPE whose way of cutting words
    /// has a name in llama.cpp, and SentencePiece BPE. The latter gets both its merges and scores that amount to the same.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when it is of another kind; the message names what has no place in such a file.
    pub fn to_gguf(&self) -> Result<Metadata> {
        gguf::metadata(self)
    }

    fn new(inner: tokenizers::Tokenizer, special: SpecialTokens) -> Self {
        Self { inner: Arc::new(inner), special }
    }

    /// The ids of `text`. With `add_special_tokens` the model's own begin and end tokens are put around it, where it has
    /// any; leave that off for a text that a chat template rendered, which carries them already.
    ///
    /// Special tokens written out in `text` become their ids, so do not pass text of strangers beside a template's
    /// markers without checking it.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the text cannot be tokenized.
    pub fn encode(&self, text: &str, add_special_tokens: bool) -> Result<Vec<u32>> {
        let encoding = guard("encoding", || self.inner.encode_fast(text, add_special_tokens))?;
        Ok(encoding.get_ids().to_vec())
    }

    /// [`encode`](Self::encode), and for each id the range of bytes of `text` that it stands for: empty for a token that was added, and
    /// the whole character for each of several tokens that make one up.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the text cannot be tokenized.
    pub fn encode_with_offsets(
        &self,
        text: &str,
        add_special_tokens: bool,
    ) -> Result<(Vec<u32>, Vec<Range<usize>>)> {
        let encoding = guard("encoding", || self.inner.encode(text, add_special_tokens))?;
        let offsets = encoding.get_offsets().iter().map(|&(start, end)| start..end).collect();
        Ok((encoding.get_ids().to_vec(), offsets))
    }

    /// The ids of each of `texts`, in order, on all cores. Equal to calling [`encode`](Self::encode) on each.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when one of the texts cannot be tokenized.
    pub fn encode_batch(&self, texts: &[impl AsRef<str>], add_special_tokens: bool) -> Result<Vec<Vec<u32>>> {
        let inputs: Vec<&str> = texts.iter().map(AsRef::as_ref).collect();
        let encodings = guard("encoding", || self.inner.encode_batch_fast(inputs, add_special_tokens))?;
        Ok(encodings.iter().map(|encoding| encoding.get_ids().to_vec()).collect())
    }

    /// The text of `ids`. Bytes that are not UTF-8 become U+FFFD. As in Python's `tokenizers`, ids that the vocabulary
    /// lacks stand for no text: models have more output rows than tokens, and may sample one.
    ///
    /// # Errors
    /// [`Error::Tokenizer`] when the decoder refuses the tokens.
    pub fn decode(&self, ids: &[u32], skip_special_tokens: bool) -> Result<String> {
        guard("decoding", || self.inner.decode(ids, skip_special_tokens))
    }

    /// Decodes ids one at a time, for text that is shown while it is generated.
    pub fn decode_stream(&self, skip_special_tokens: bool) -> DecodeStream {
        DecodeStream::new(self.clone(), skip_special_tokens)
    }

    /// The id of `token`, spelled as in the vocabulary.
    pub fn token_to_id(&self, token: &str) -> Option<u32> {
        self.inner.token_to_id(token)
    }

    /// The token with this id, spelled as in the vocabulary: a leading space is `Ġ` or `▁`, not a space.
    pub fn id_to_token(&self, id: u32) -> Option<String> {
        self.inner.id_to_token(id)
    }

    /// The number of tokens, added ones included. A model's output may be wider, because its rows are padded.
    pub fn vocab_size(&self) -> usize {
        self.inner.get_vocab_size(true)
    }

    /// Whether this is the id of a special token: one that `skip_special_tokens` leaves out.
    pub fn is_special(&self, id: u32) -> bool {
        self.inner
            .get_added_vocabulary()
            .get_added_tokens_decoder()
            .get(&id)
            .is_some_and(|token| token.special)
    }

    /// The token that begins a text, if the model has one.
    pub fn bos_token_id(&self) -> Option<u32> {
        self.special.bos
    }

    /// The tokens that end a text or a turn: generation stops at any of them. The first is the tokenizer's own `eos_token`.
    pub fn eos_token_ids(&self) -> &[u32] {
        &self.special.eos
    }

    /// The token that fills up shorter sequences of a batch, if the model names one.
    pub fn pad_token_id(&self) -> Option<u32> {
        self.special.pad
    }

    /// The text of [`bos_token_id`](Self::bos_token_id).
    pub fn bos_token(&self) -> Option<String> {
        self.special.bos.and_then(|id| self.id_to_token(id))
    }

    /// The text of the first of [`eos_token_ids`](Self::eos_token_ids).
    pub fn eos_token(&self) -> Option<String> {
        self.special.eos.first().and_then(|&id| self.id_to_token(id))
    }

    /// Writes `tokenizer.json`, which Python's `tokenizers` and `transformers` load. The file appears complete or not at all.
    ///
    /// # Errors
    /// [`Error::Io`] when the file cannot be written.
    pub fn save(&self, path: impl AsRef<Path>) -> Result<()> {
        let path = path.as_ref();
        let json = guard("saving", || self.inner.to_string(true))?;
        let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
        fs::create_dir_all(folder).map_err(Error::io("create", folder))?;
        write_atomic(path, |file| file.write_all(json.as_bytes()))
    }
}

impl TokenCounter for Tokenizer {
    fn count(&self, text: &str) -> Result<usize> {
        Ok(self.encode(text, false)?.len())
    }
}

/// Runs `work` of the `tokenizers` crate and turns its error, and its panics, into [`Error::Tokenizer`]: some of its components
/// panic on files that a program of good faith would never write.
fn guard<T>(action: &str, work: impl FnOnce() -> tokenizers::Result<T>) -> Result<T> {
    match catch_unwind(AssertUnwindSafe(work)) {
        Ok(result) => {
            result.map_err(|error| Error::Tokenizer { reason: format!("{action} failed: {error}") })
        }
        Err(_) => Err(Error::Tokenizer {
            reason: format!(
                "{action} failed: the tokenizer's configuration is inconsistent; get the files anew from their source"
            ),
        }),
    }
}
