//! Dialogues as tokens: the template renders the whole of it, the tokenizer reads the whole of what it renders.
//!
//! In: a [`Dialogue`], and how many tokens each of its pictures has. Out: token ids. Text from outside never becomes a control
//! token. A dialogue without such text has the tokens that transformers gives it.

use std::path::Path;
use std::sync::Arc;

use serde_json::Value;

use crate::dialogue::Dialogue;
use crate::marks::{Marks, Piece};
use crate::template::Template;
use crate::vocabulary::Vocabulary;
use crate::{ChatError, special};

/// A tokenizer with a template.
#[derive(Clone)]
pub struct Renderer {
    vocabulary: Arc<Vocabulary>,
    template: Arc<Template>,
}

impl Renderer {
    /// The template of a model folder with its tokenizer; what there is to say of them.
    ///
    /// # Errors
    /// As [`Template::load`].
    pub fn load(model: &Path, vocabulary: Arc<Vocabulary>) -> Result<(Self, Vec<String>), ChatError> {
        Self::load_for(model, vocabulary, |_| Ok(()))
    }

    /// The same with the first template of the folder that `fits`.
    ///
    /// # Errors
    /// As [`Template::load`], and what `fits` says.
    pub(crate) fn load_for(
        model: &Path,
        vocabulary: Arc<Vocabulary>,
        fits: impl Fn(&Template) -> Result<(), ChatError>,
    ) -> Result<(Self, Vec<String>), ChatError> {
        let (template, remarks) = Template::load_for(model, fits)?;
        Ok((Self { vocabulary, template: Arc::new(template) }, remarks))
    }

    /// The template.
    pub fn template(&self) -> &Template {
        &self.template
    }

    /// The tokenizer.
    pub fn vocabulary(&self) -> &Vocabulary {
        &self.vocabulary
    }

    /// The tokens of a dialogue, up to where the policy goes on; `pictures` has the tokens of each picture, in order.
    ///
    /// # Errors
    /// [`ChatError::Template`]: the template refuses the dialogue, or does not show all of its pictures.
    pub fn tokens(&self, dialogue: &Dialogue, pictures: &[usize]) -> Result<Vec<u32>, ChatError> {
        let fault = |reason: String| ChatError::Template { reason };
        let (mut messages, mut tools) = (Value::Array(dialogue.messages().to_vec()), Value::Array(dialogue.tools().to_vec()));
        let (written, offered, control) = (messages.to_string(), tools.to_string(), self.vocabulary.control_tokens());
        let marks =
            Marks::apart_from(&[&written, &offered]).ok_or_else(|| fault("the dialogue holds every private-use character".into()))?;
        marks.mark(&mut messages, control);
        marks.mark(&mut tools, control);
        let rendered = self.template.render_offering(&messages, &tools)?;
        let mut tokens = vec![];
        for piece in marks.pieces(&rendered, control) {
            match piece {
                Piece::Rendered(text) => tokens.extend(self.vocabulary.encode_control(text)),
                Piece::Text(text) => {
                    let ids = self.vocabulary.encode(text);
                    if self.vocabulary.id(text).is_some_and(|id| ids.contains(&id)) {
                        return Err(fault(format!("the tokenizer reads {text} in a text as the control token")));
                    }
                    tokens.extend(ids);
                }
            }
        }
        self.with_pictures(tokens, pictures)
    }

    /// Puts as many placeholders as a picture has tokens in the place of each.
    fn with_pictures(&self, tokens: Vec<u32>, pictures: &[usize]) -> Result<Vec<u32>, ChatError> {
        let pad = self.vocabulary.id(special::IMAGE_PAD);
        let places = tokens.iter().filter(|id| Some(**id) == pad).count();
        if places != pictures.len() {
            let reason = format!("it has places for {places} pictures in a dialogue with {}", pictures.len());
            return Err(ChatError::Template { reason });
        }
        let mut all = Vec::with_capacity(tokens.len() + pictures.iter().sum::<usize>());
        let mut sizes = pictures.iter();
        for id in tokens {
            let count = if Some(id) == pad { sizes.next().copied().unwrap_or(1) } else { 1 };
            all.extend(std::iter::repeat_n(id, count));
        }
        Ok(all)
    }
}
