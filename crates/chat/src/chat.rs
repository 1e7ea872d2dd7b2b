//! The chat of one model: prompts and observations as tokens, sampled tokens as text (spec 1.6).
//!
//! In: texts, and the patch grids of pictures. Out: token ids in the model's layout. It does not know what a tool is.

use std::path::Path;

use hypereyes_pictures::Processor;
use serde::{Deserialize, Serialize};

use crate::template::Frame;
use crate::vocabulary::Vocabulary;
use crate::{ChatError, files, special};

/// How observations are laid out.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ChatConfig {
    /// Leaves out the newline between the policy's end token and an observation, as the released code does (spec 1.6).
    /// Default false: the newline is what templates and cold-start data have.
    pub compat_no_newline: bool,
}

/// One model's tokenizer, chat layout and picture processor. Cheap to share (`Arc`), immutable, made once.
pub struct Chat {
    vocabulary: Vocabulary,
    processor: Processor,
    with_system: Encoded,
    without_system: Encoded,
    observation_opening: Vec<u32>,
    end: u32,
    vision_start: u32,
    image_pad: u32,
    vision_end: u32,
}

/// A [`Frame`] as tokens.
struct Encoded {
    opening: Vec<u32>,
    before: Vec<u32>,
    between: Vec<u32>,
    closing: Vec<u32>,
}

impl Chat {
    /// Loads a model folder with the default layout.
    pub fn load(model: &Path) -> Result<Self, ChatError> {
        Self::load_with(model, &ChatConfig::default())
    }

    /// Loads a model folder: `tokenizer.json`, `chat_template.jinja` (or `chat_template` of `tokenizer_config.json`) and
    /// `preprocessor_config.json`.
    pub fn load_with(model: &Path, config: &ChatConfig) -> Result<Self, ChatError> {
        let vocabulary = Vocabulary::load(&model.join("tokenizer.json"))?;
        let template = template(model)?;
        let encoded = |with_system| Frame::cut(&template, with_system).map(|frame| Encoded::new(&vocabulary, &frame));
        let (with_system, without_system) = (encoded(true)?, encoded(false)?);
        let newline = if config.compat_no_newline { "" } else { "\n" };
        let observation_opening = vocabulary.encode_control(&format!("{newline}{}user\n", special::IM_START));
        let id = |name: &'static str| vocabulary.id(name).ok_or(ChatError::MissingToken { name });
        let (end, vision_start) = (id(special::IM_END)?, id(special::VISION_START)?);
        let (image_pad, vision_end) = (id(special::IMAGE_PAD)?, id(special::VISION_END)?);
        let processor = Processor::load(model)?;
        Ok(Self { vocabulary, processor, with_system, without_system, observation_opening, end, vision_start, image_pad, vision_end })
    }

    /// A prompt: system text (none if empty), one run of placeholders per picture grid (patches: height, width), the
    /// question, and the opening of the policy's turn.
    pub fn prompt(&self, system: &str, question: &str, grids: &[(usize, usize)]) -> Vec<u32> {
        let frame = if system.is_empty() { &self.without_system } else { &self.with_system };
        let mut tokens = frame.opening.clone();
        tokens.extend(self.encode(system));
        tokens.extend(&frame.before);
        self.push_pictures(&mut tokens, grids);
        tokens.extend(&frame.between);
        tokens.extend(self.encode(question));
        tokens.extend(&frame.closing);
        tokens
    }

    /// What follows a turn that made a call: a user message with the returned pictures before the text, and the opening
    /// of the policy's next turn.
    pub fn observation(&self, text: &str, grids: &[(usize, usize)]) -> Vec<u32> {
        let mut tokens = self.observation_opening.clone();
        self.push_pictures(&mut tokens, grids);
        tokens.extend(self.encode(text));
        tokens.extend(&self.with_system.closing);
        tokens
    }

    /// Text of tokens, control tokens kept.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.vocabulary.decode(ids)
    }

    /// Tokens of text from outside or of a policy's words; control tokens in it stay plain text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.vocabulary.encode(text)
    }

    /// The token that ends a turn.
    pub fn end_token(&self) -> u32 {
        self.end
    }

    /// The placeholder of one merged picture cell.
    pub fn image_pad(&self) -> u32 {
        self.image_pad
    }

    /// One more than the largest token id. A model's own vocabulary may be padded beyond it.
    pub fn vocab_size(&self) -> usize {
        self.vocabulary.size()
    }

    /// The picture processor that the model was made with.
    pub fn processor(&self) -> &Processor {
        &self.processor
    }

    fn push_pictures(&self, tokens: &mut Vec<u32>, grids: &[(usize, usize)]) {
        for grid in grids {
            tokens.push(self.vision_start);
            tokens.extend(std::iter::repeat_n(self.image_pad, self.processor.tokens(*grid)));
            tokens.push(self.vision_end);
        }
    }
}

impl Encoded {
    fn new(vocabulary: &Vocabulary, frame: &Frame) -> Self {
        let encode = |text: &str| vocabulary.encode_control(text);
        Self {
            opening: encode(&frame.opening),
            before: encode(&frame.before),
            between: encode(&frame.between),
            closing: encode(&frame.closing),
        }
    }
}

/// The template's text: its own file, or an entry of the tokenizer's configuration (a text, or a list with a `default`).
fn template(model: &Path) -> Result<String, ChatError> {
    let own = model.join("chat_template.jinja");
    if own.is_file() {
        return files::read_text(&own);
    }
    let path = model.join("tokenizer_config.json");
    let fault = |reason: String| ChatError::File { path: path.clone(), reason };
    let config: serde_json::Value = serde_json::from_str(&files::read_text(&path)?).map_err(|error| fault(error.to_string()))?;
    let entry = &config["chat_template"];
    let named = |list: &Vec<serde_json::Value>| list.iter().find(|one| one["name"] == "default").map(|one| one["template"].clone());
    let text = entry.as_array().and_then(named).unwrap_or_else(|| entry.clone());
    text.as_str().map(str::to_owned).ok_or_else(|| fault("it has no chat_template, and there is no chat_template.jinja".into()))
}
