//! The dialogue with a policy behind the token port. In: a started sequence, texts of the environment. Out: the policy's turns as text,
//! and a trajectory token by token. It knows no tool and no ending's reason.

use std::sync::Arc;

use hypereyes_domain::{Ending, GenerateError, PictureId, Round, Sequence, Trajectory};
use hypereyes_pictures::Picture;

use crate::Setup;
use crate::recorder::Recorder;
use crate::turns::{Dialogue, Said};

/// A sequence, and the record of what it holds.
pub(crate) struct TokenDialogue<'a, S> {
    pub(crate) setup: &'a Setup,
    pub(crate) sequence: S,
    pub(crate) record: Recorder,
}

impl<S: Sequence> Dialogue for TokenDialogue<'_, S> {
    fn tokens(&self) -> usize {
        self.record.len()
    }

    async fn turn(&mut self, most: usize) -> Result<Said, GenerateError> {
        let sampled = self.sequence.advance(self.record.unseen(), most).await?;
        self.record.sampled(&sampled)?;
        Ok(Said { text: self.setup.chat.decode(&sampled.tokens), tokens: sampled.tokens.len(), stop: sampled.stop })
    }

    fn executed(&mut self, round: Round) {
        self.sequence.executed(&round);
        self.record.round(round);
    }

    fn observed(&mut self, text: &str, shown: Vec<Picture>, most: usize) -> Result<Option<Vec<Arc<Picture>>>, String> {
        let Self { setup, record, .. } = self;
        // Lent for as long as the group lasts: the engine looks them up when the next turn begins.
        let shown: Vec<Arc<Picture>> = shown.into_iter().map(|picture| setup.pictures.lend(picture)).collect();
        let grids: Vec<(usize, usize)> = shown.iter().map(|picture| setup.chat.processor().grid(picture.image.dimensions())).collect();
        let tokens = setup.chat.observation(text, &grids);
        if record.len() + tokens.len() >= most {
            return Ok(None);
        }
        let named: Vec<PictureId> = shown.iter().map(|picture| picture.id.clone()).collect();
        record.observed(&tokens, &named);
        Ok(Some(shown))
    }

    fn finish(self, ending: Ending, answer: Option<String>) -> Trajectory {
        self.record.finish(ending, answer)
    }
}
