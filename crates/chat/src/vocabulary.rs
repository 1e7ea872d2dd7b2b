//! A byte-level tokenizer with an exact inverse.
//!
//! In: `tokenizer.json`. Out: ids of text, bytes of ids. It knows no chat layout.
//!
//! Decoding is done here and not by the tokenizer library, because the library reads an added token such as `Réunion`
//! as byte-alphabet characters and breaks it. Encoding never fails: text that the library refuses becomes single bytes.

use std::path::Path;

use tokenizers::Tokenizer;

use crate::{ChatError, bytes, files};

/// What an id without a text decodes to: ids of a model's padded vocabulary, which only an untrained policy samples.
const UNKNOWN: &str = "\u{FFFD}";

/// Text to ids and back.
pub struct Vocabulary {
    /// Reads control tokens as text: nothing from outside can forge the end of a message.
    plain: Tokenizer,
    /// Reads control tokens as such.
    control: Tokenizer,
    /// Bytes of each id.
    pieces: Vec<Box<[u8]>>,
    /// Id of each single byte.
    single: [u32; 256],
    /// Texts of the control tokens, longest first.
    special: Vec<String>,
}

impl Vocabulary {
    /// Loads `tokenizer.json`; it must be byte-level (all published Qwen tokenizers are).
    pub fn load(path: &Path) -> Result<Self, ChatError> {
        let fault = |reason: String| ChatError::Tokenizer { path: path.to_owned(), reason };
        let mut control = Tokenizer::from_bytes(files::read(path, files::TOKENIZER_LIMIT)?).map_err(|error| fault(error.to_string()))?;
        // A prompt that the tokenizer silently cuts or pads would break the prefix that the engine holds.
        control.with_truncation(None).map_err(|error| fault(error.to_string()))?;
        control.with_padding(None);
        let mut single = [0; 256];
        for byte in 0..=u8::MAX {
            let name = bytes::to_char(byte).to_string();
            single[usize::from(byte)] =
                control.token_to_id(&name).ok_or_else(|| fault(format!("it is not byte-level: no token for byte {byte}")))?;
        }
        let pieces = pieces(&control).map_err(fault)?;
        let added = control.get_added_tokens_decoder();
        let mut special: Vec<String> = added.into_values().filter(|token| token.special).map(|token| token.content).collect();
        special.sort_by(|one, other| other.len().cmp(&one.len()).then_with(|| one.cmp(other)));
        let mut plain = control.clone();
        plain.set_encode_special_tokens(true);
        Ok(Self { plain, control, pieces, single, special })
    }

    /// Ids of text from outside: control tokens in it stay text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.ids(&self.plain, text)
    }

    /// Ids of text of our own, in which control tokens are control tokens.
    pub fn encode_control(&self, text: &str) -> Vec<u32> {
        self.ids(&self.control, text)
    }

    /// Text of ids, control tokens included; bytes that are not UTF-8 (a turn cut inside a character) are replaced.
    pub fn decode(&self, ids: &[u32]) -> String {
        let mut joined = Vec::with_capacity(ids.len() * 4);
        for id in ids {
            let piece = usize::try_from(*id).ok().and_then(|id| self.pieces.get(id));
            joined.extend_from_slice(piece.map_or(UNKNOWN.as_bytes(), AsRef::as_ref));
        }
        String::from_utf8(joined).unwrap_or_else(|error| String::from_utf8_lossy(error.as_bytes()).into_owned())
    }

    /// The id of a token by its text.
    pub fn id(&self, token: &str) -> Option<u32> {
        self.control.token_to_id(token)
    }

    /// Texts of the control tokens, longest first: what a text from outside may hold and must not say.
    pub fn control_tokens(&self) -> &[String] {
        &self.special
    }

    /// One more than the largest id.
    pub fn size(&self) -> usize {
        self.pieces.len()
    }

    fn ids(&self, tokenizer: &Tokenizer, text: &str) -> Vec<u32> {
        match tokenizer.encode_fast(text, false) {
            Ok(encoding) => encoding.get_ids().to_vec(),
            // Hostile text can exhaust the pre-tokenizer's backtracking; bytes are always right.
            Err(_) => text.bytes().map(|byte| self.single[usize::from(byte)]).collect(),
        }
    }
}

fn pieces(tokenizer: &Tokenizer) -> Result<Vec<Box<[u8]>>, String> {
    let added = tokenizer.get_added_tokens_decoder();
    let vocabulary = tokenizer.get_vocab(true);
    let largest = vocabulary.values().copied().max().unwrap_or(0);
    // Ids are nearly dense in every sound vocabulary; a wild id must not make us allocate gigabytes.
    if usize::try_from(largest).unwrap_or(usize::MAX) > vocabulary.len() * 2 + 1024 {
        return Err(format!("its largest id is {largest}, for {} tokens", vocabulary.len()));
    }
    let mut pieces: Vec<Box<[u8]>> = vec![UNKNOWN.as_bytes().into(); largest as usize + 1];
    for (token, id) in vocabulary {
        let text = match added.get(&id) {
            Some(added) => added.content.as_bytes().to_vec(),
            None => bytes::from_chars(&token).unwrap_or_else(|| token.into_bytes()),
        };
        pieces[id as usize] = text.into();
    }
    Ok(pieces)
}
