//! One episode: turn, tool round, turn, ..., answer (docs/spec.md#episodes).
//!
//! In: a dialogue with a policy and an episode of the environment. Out: its trajectory and the crops that it was shown. It
//! knows no siblings, and not whether the policy speaks tokens or text. It cannot fail: what goes wrong is an ending.

use std::sync::Arc;

use hypereyes_domain::{Ending, Failure, GenerateError, Round, Stop, Trajectory};
use hypereyes_environment::{Episode, Step};
use hypereyes_pictures::{Picture, RgbImage};
use tokio::time::timeout;
use tracing::{Instrument as _, Span, field, info_span};

use crate::RolloutConfig;

/// A turn of the policy.
pub(crate) struct Said {
    /// What it said.
    pub(crate) text: String,
    /// Tokens of it.
    pub(crate) tokens: usize,
    /// Why it stopped.
    pub(crate) stop: Stop,
}

/// What a policy was told and said so far.
pub(crate) trait Dialogue: Send {
    /// Tokens so far, prompt included; 0 where nobody has counted them yet.
    fn tokens(&self) -> usize;

    /// The policy's next turn, of at most so many tokens.
    fn turn(&mut self, most: usize) -> impl Future<Output = Result<Said, GenerateError>> + Send;

    /// Told what was executed for the last turn.
    fn executed(&mut self, round: Round);

    /// Tells the policy what it is to see next, pictures before text, and gives the pictures as they are kept; nothing, and nothing is
    /// told, where `most` tokens have no space for it.
    fn observed(&mut self, text: &str, shown: Vec<Picture>, most: usize) -> Result<Option<Vec<Arc<Picture>>>, String>;

    /// The end. A failure outside the policy masks every token.
    fn finish(self, ending: Ending, answer: Option<String>) -> Trajectory;
}

/// Runs an episode to its end.
pub(crate) async fn run(config: &RolloutConfig, mut dialogue: impl Dialogue, mut episode: Episode) -> (Trajectory, Vec<Arc<Picture>>) {
    let mut crops = Vec::new();
    let mut number = 0u32;
    let (ending, answer) = loop {
        number += 1;
        let span = info_span!("turn", number, sampled = field::Empty);
        match turn(config, &mut dialogue, &mut episode).instrument(span).await {
            Ok(shown) => crops.extend(shown),
            Err(end) => break end,
        }
    };
    (dialogue.finish(ending, answer), crops)
}

type End = (Ending, Option<String>);

/// One turn and what the environment says to it, with the crops that it returns; `Err` is the end of the episode.
async fn turn(config: &RolloutConfig, dialogue: &mut impl Dialogue, episode: &mut Episode) -> Result<Vec<Arc<Picture>>, End> {
    let room = config.max_context_tokens.saturating_sub(dialogue.tokens());
    if room == 0 {
        return Err((Ending::ContextFull, None));
    }
    let said = timeout(config.turn_timeout(), dialogue.turn(room.min(config.max_turn_tokens)))
        .await
        .map_err(|_| failed(Failure::Timeout, "a turn took too long"))?
        .map_err(|error| failed(error.failure, &error.message))?;
    Span::current().record("sampled", said.tokens);
    match said.stop {
        Stop::EndToken => {}
        // An answer that was closed before the limit stands; a call does not: the rest of the turn is unknown.
        Stop::Length if room > config.max_turn_tokens => return Err((Ending::TurnTruncated, episode.cut(&said.text))),
        Stop::Length | Stop::ContextFull => return Err((Ending::ContextFull, episode.cut(&said.text))),
    }
    let step = timeout(config.turn_timeout(), episode.step(&said.text).instrument(info_span!("tool")))
        .await
        .map_err(|_| failed(Failure::Timeout, "a tool round took too long"))?;
    match step {
        Step::Done { ending, answer } => Err((ending, answer)),
        Step::Observed { text, pictures, round } => {
            dialogue.executed(round);
            let broken = |reason: String| failed(Failure::Infrastructure, &reason);
            let shown = encoded(pictures).await.map_err(broken)?;
            let kept = dialogue.observed(&text, shown, config.max_context_tokens).map_err(broken)?;
            kept.ok_or((Ending::ContextFull, None))
        }
    }
}

/// Crops with the bytes that name them. Encoding takes milliseconds each: on a thread where nobody waits.
async fn encoded(crops: Vec<Arc<RgbImage>>) -> Result<Vec<Picture>, String> {
    if crops.is_empty() {
        return Ok(vec![]);
    }
    let encode = move || crops.into_iter().map(Picture::from_image).collect::<Result<Vec<_>, _>>();
    let encoded = tokio::task::spawn_blocking(encode).await.map_err(|error| error.to_string())?;
    encoded.map_err(|error| error.to_string())
}

fn failed(failure: Failure, message: &str) -> End {
    tracing::warn!(failure = failure.label(), message, "an episode failed and is masked");
    (Ending::Failed(failure), None)
}
