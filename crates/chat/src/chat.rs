//! The chat of one model: prompts and observations as tokens, sampled tokens as text (docs/spec.md#tokens).
//!
//! In: texts, and the patch grids of pictures. Out: token ids in the model's layout. It does not know what a tool is.

use std::path::Path;
use std::sync::Arc;

use hypereyes_pictures::Processor;
use serde::{Deserialize, Serialize};

use crate::dialogue::Dialogue;
use crate::renderer::Renderer;
use crate::template::{Frame, Template};
use crate::vocabulary::Vocabulary;
use crate::{ChatError, agreement, special};

/// How observations are laid out.
#[derive(Serialize, Deserialize, Clone, Debug, Default, PartialEq, Eq)]
#[serde(deny_unknown_fields, default)]
pub struct ChatConfig {
    /// Leaves out the newline between the policy's end token and an observation, as the released code does (docs/spec.md#tokens).
    /// Default false: the newline is what templates and cold-start data have.
    pub compat_no_newline: bool,
}

/// One model's tokenizer, chat layout and picture processor. Cheap to share (`Arc`), immutable, made once.
pub struct Chat {
    renderer: Renderer,
    processor: Processor,
    observation: Observation,
    end: u32,
    vision_start: u32,
    image_pad: u32,
    vision_end: u32,
}

/// What surrounds an observation, as tokens.
struct Observation {
    opening: Vec<u32>,
    between: Vec<u32>,
    closing: Vec<u32>,
}

impl Chat {
    /// Loads a model folder with the default layout.
    pub fn load(model: &Path) -> Result<Self, ChatError> {
        Self::load_with(model, &ChatConfig::default())
    }

    /// Loads a model folder: `tokenizer.json`, its chat template (`places.rs` says where it stands) and its picture settings. What
    /// was assumed, and disagreements of its files that do not matter here, are logged.
    pub fn load_with(model: &Path, config: &ChatConfig) -> Result<Self, ChatError> {
        let (chat, remarks) = Self::load_with_remarks(model, config)?;
        for remark in remarks {
            tracing::warn!("{}: {remark}", model.display());
        }
        Ok(chat)
    }

    /// As [`Chat::load_with`], and gives what there is to say instead of logging it.
    pub fn load_with_remarks(model: &Path, config: &ChatConfig) -> Result<(Self, Vec<String>), ChatError> {
        let vocabulary = Arc::new(Vocabulary::load(&model.join("tokenizer.json"))?);
        let mut remarks = agreement::tokens(model, &vocabulary)?;
        let (renderer, more) = Renderer::load_for(model, vocabulary.clone(), |template| {
            Frame::of_prompt(template, true)?;
            Frame::of_prompt(template, false)?;
            Frame::of_observation(template).map(drop)
        })?;
        remarks.extend(more);
        let observation = Observation::new(&vocabulary, renderer.template(), config)?;
        let id = |name: &'static str| vocabulary.id(name).ok_or(ChatError::MissingToken { name });
        let (end, vision_start) = (id(special::IM_END)?, id(special::VISION_START)?);
        let (image_pad, vision_end) = (id(special::IMAGE_PAD)?, id(special::VISION_END)?);
        let loaded = Processor::load_from(model)?;
        remarks.extend(agreement::pictures(model, &loaded)?);
        Ok((Self { renderer, processor: loaded.processor, observation, end, vision_start, image_pad, vision_end }, remarks))
    }

    /// A prompt: system text (none if empty), one run of placeholders per picture grid (patches: height, width), the
    /// question, and the opening of the policy's turn, as the template renders them together.
    ///
    /// # Errors
    /// [`ChatError::Template`] where the template refuses these texts; that it renders prompts at all was seen while loading.
    pub fn prompt(&self, system: &str, question: &str, grids: &[(usize, usize)]) -> Result<Vec<u32>, ChatError> {
        self.prompt_offering(system, question, grids, &[])
    }

    /// As [`Chat::prompt`], with tools offered to the policy where the template has a place for them ([`Dialogue::offering`]).
    ///
    /// # Errors
    /// As [`Chat::prompt`].
    pub fn prompt_offering(
        &self,
        system: &str,
        question: &str,
        grids: &[(usize, usize)],
        tools: &[serde_json::Value],
    ) -> Result<Vec<u32>, ChatError> {
        let sizes: Vec<usize> = grids.iter().map(|grid| self.processor.tokens(*grid)).collect();
        self.renderer.tokens(&Dialogue::of_task(system, question, grids.len()).offering(tools), &sizes)
    }

    /// What follows a turn that made a call: a user message with the returned pictures before the text, and the opening
    /// of the policy's next turn. It is appended to the tokens that are there, even where the template would render earlier turns
    /// in another way once there are more: nothing is tokenised again.
    pub fn observation(&self, text: &str, grids: &[(usize, usize)]) -> Vec<u32> {
        let mut tokens = self.observation.opening.clone();
        self.push_pictures(&mut tokens, grids);
        tokens.extend(&self.observation.between);
        tokens.extend(self.encode(text));
        tokens.extend(&self.observation.closing);
        tokens
    }

    /// Text of tokens, control tokens kept.
    pub fn decode(&self, ids: &[u32]) -> String {
        self.renderer.vocabulary().decode(ids)
    }

    /// Tokens of text from outside or of a policy's words; control tokens in it stay plain text.
    pub fn encode(&self, text: &str) -> Vec<u32> {
        self.renderer.vocabulary().encode(text)
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
        self.renderer.vocabulary().size()
    }

    /// The same for pictures of at most so many tokens: larger ones are scaled down, as the processor does with those beyond its own
    /// bound. 0 bounds nothing more.
    pub fn seeing_at_most(mut self, tokens: usize) -> Self {
        let one = self.processor.factor() * self.processor.factor();
        let most = tokens.saturating_mul(one);
        if tokens > 0 && most < self.processor.max_pixels {
            self.processor.max_pixels = most;
            self.processor.min_pixels = self.processor.min_pixels.min(most);
        }
        self
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

impl Observation {
    /// What the template renders between the policy's words and the texts of the next message, without the token that ends the
    /// policy's turn: the policy says that itself.
    fn new(vocabulary: &Vocabulary, template: &Template, config: &ChatConfig) -> Result<Self, ChatError> {
        let frame = Frame::of_observation(template)?;
        let opening = frame.before.strip_prefix(special::IM_END).ok_or_else(|| {
            let found: String = frame.before.chars().take(24).collect();
            ChatError::Template { reason: format!("it ends a turn with {found:?}, the tokenizer and rollouts with {}", special::IM_END) }
        })?;
        let opening = if config.compat_no_newline { opening.strip_prefix('\n').unwrap_or(opening) } else { opening };
        let encode = |text: &str| vocabulary.encode_control(text);
        Ok(Self { opening: encode(opening), between: encode(&frame.between), closing: encode(&frame.closing) })
    }
}
