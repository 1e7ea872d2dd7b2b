//! One episode: turn, tool round, turn, ..., answer (docs/spec.md#episodes).
//!
//! In: a started sequence and an episode of the environment. Out: its trajectory and the crops that it was shown. It
//! knows no siblings. It cannot fail: what goes wrong is an ending.

use std::sync::Arc;

use hypereyes_domain::{Ending, Failure, Patches, Sequence, Stop, Trajectory};
use hypereyes_pictures::{Picture, RgbImage};
use hypereyes_search::{Episode, Step};
use tokio::time::timeout;

use crate::Setup;
use crate::recorder::Recorder;

/// Runs an episode to its end.
pub(crate) async fn run<S: Sequence>(
    setup: &Setup,
    mut sequence: S,
    mut episode: Episode,
    mut record: Recorder,
) -> (Trajectory, Vec<Picture>) {
    let mut crops = Vec::new();
    let (ending, answer) = loop {
        match turn(setup, &mut sequence, &mut episode, &mut record, &mut crops).await {
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
    crops: &mut Vec<Picture>,
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
    let text = setup.chat.decode(&sampled.tokens);
    match sampled.stop {
        Stop::EndToken => {}
        // An answer that was closed before the limit stands; a call does not: the rest of the turn is unknown.
        Stop::Length if room > config.max_turn_tokens => return Err((Ending::TurnTruncated, episode.cut(&text))),
        Stop::Length | Stop::ContextFull => return Err((Ending::ContextFull, episode.cut(&text))),
    }
    let step =
        timeout(config.turn_timeout(), episode.step(&text)).await.map_err(|_| failed(Failure::Timeout, "a tool round took too long"))?;
    match step {
        Step::Done { ending, answer } => Err((ending, answer)),
        Step::Observed { text, pictures, round } => {
            record.round(round);
            let shown = pictures.into_iter().map(|picture| see(setup, &picture)).collect::<Result<Vec<_>, _>>()?;
            let grids: Vec<(usize, usize)> = shown.iter().map(|(_, patches)| patches.grid).collect();
            let tokens = setup.chat.observation(&text, &grids);
            if record.len() + tokens.len() >= config.max_context_tokens {
                return Err((Ending::ContextFull, None));
            }
            record.observed(&tokens, shown.iter().map(|(picture, patches)| (picture.id.clone(), patches.clone())).collect());
            crops.extend(shown.into_iter().map(|(picture, _)| picture));
            Ok(())
        }
    }
}

fn see(setup: &Setup, image: &RgbImage) -> Result<(Picture, Arc<Patches>), End> {
    let patches = Arc::new(setup.chat.processor().patches(image));
    Picture::from_image(image.clone())
        .map(|picture| (picture, patches))
        .map_err(|error| failed(Failure::Infrastructure, &error.to_string()))
}

fn failed(failure: Failure, message: &str) -> End {
    tracing::warn!(failure = failure.label(), message, "an episode failed and is masked");
    (Ending::Failed(failure), None)
}
