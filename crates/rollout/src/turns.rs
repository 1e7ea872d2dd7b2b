//! One episode: turn, tool round, turn, ..., answer (docs/spec.md#episodes).
//!
//! In: a started sequence and an episode of the environment. Out: its trajectory and the crops that it was shown. It
//! knows no siblings. It cannot fail: what goes wrong is an ending.

use std::sync::Arc;

use hypereyes_domain::{Ending, Failure, PictureId, Sequence, Stop, Trajectory};
use hypereyes_environment::{Episode, Step};
use hypereyes_pictures::{Picture, RgbImage};
use tokio::time::timeout;
use tracing::{Instrument as _, Span, field, info_span};

use crate::Setup;
use crate::recorder::Recorder;

/// Runs an episode to its end.
pub(crate) async fn run<S: Sequence>(
    setup: &Setup,
    mut sequence: S,
    mut episode: Episode,
    mut record: Recorder,
) -> (Trajectory, Vec<Arc<Picture>>) {
    let mut crops = Vec::new();
    let mut number = 0u32;
    let (ending, answer) = loop {
        number += 1;
        let span = info_span!("turn", number, sampled = field::Empty);
        match turn(setup, &mut sequence, &mut episode, &mut record, &mut crops).instrument(span).await {
            Ok(()) => {}
            Err(end) => break end,
        }
    };
    (record.finish(ending, answer), crops)
}

type End = (Ending, Option<String>);

/// One turn and what the environment says to it; `Err` is the end of the episode.
async fn turn<S: Sequence>(
    setup: &Setup,
    sequence: &mut S,
    episode: &mut Episode,
    record: &mut Recorder,
    crops: &mut Vec<Arc<Picture>>,
) -> Result<(), End> {
    let config = &setup.config;
    let room = config.max_context_tokens.saturating_sub(record.len());
    if room == 0 {
        return Err((Ending::ContextFull, None));
    }
    let sampled = timeout(config.turn_timeout(), sequence.advance(record.unseen(), room.min(config.max_turn_tokens)))
        .await
        .map_err(|_| failed(Failure::Timeout, "a turn took too long"))?
        .and_then(|sampled| record.sampled(&sampled).map(|()| sampled))
        .map_err(|error| failed(error.failure, &error.message))?;
    Span::current().record("sampled", sampled.tokens.len());
    let text = setup.chat.decode(&sampled.tokens);
    match sampled.stop {
        Stop::EndToken => {}
        // An answer that was closed before the limit stands; a call does not: the rest of the turn is unknown.
        Stop::Length if room > config.max_turn_tokens => return Err((Ending::TurnTruncated, episode.cut(&text))),
        Stop::Length | Stop::ContextFull => return Err((Ending::ContextFull, episode.cut(&text))),
    }
    let step = timeout(config.turn_timeout(), episode.step(&text).instrument(info_span!("tool")))
        .await
        .map_err(|_| failed(Failure::Timeout, "a tool round took too long"))?;
    match step {
        Step::Done { ending, answer } => Err((ending, answer)),
        Step::Observed { text, pictures, round } => {
            sequence.executed(&round);
            record.round(round);
            let shown = encoded(pictures).await.map_err(|reason| failed(Failure::Infrastructure, &reason))?;
            // Lent for as long as the group lasts: the engine looks them up when the next turn begins.
            let shown: Vec<Arc<Picture>> = shown.into_iter().map(|picture| setup.pictures.lend(picture)).collect();
            let grids: Vec<(usize, usize)> = shown.iter().map(|picture| setup.chat.processor().grid(picture.image.dimensions())).collect();
            let tokens = setup.chat.observation(&text, &grids);
            if record.len() + tokens.len() >= config.max_context_tokens {
                return Err((Ending::ContextFull, None));
            }
            let named: Vec<PictureId> = shown.iter().map(|picture| picture.id.clone()).collect();
            record.observed(&tokens, &named);
            crops.extend(shown);
            Ok(())
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
