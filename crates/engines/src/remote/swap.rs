//! Weights into a server. In: a server, a generation that it can read, and the one that it holds. Out: the new one in its place, or the
//! old one put back, or a server that nobody knows any more. The order is: stand still between two steps, read in place (there is never a
//! second copy on the device), label, look at the label, go on. It waits for no request: those under way stay where they are.

use std::time::Duration;

use hypereyes_policy::checkpoint::Generation;
use tokio::time::Instant;

use super::dialect::Speak;
use super::metrics;
use super::outcome::{Miss, Outcome};
use super::server::{Server, Still};

/// Longest wait for a server to go on again.
const GO_ON: Duration = Duration::from_secs(30);

/// Weights were not taken.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    /// The weights of before are in place.
    PutBack(String),
    /// Nobody knows what is in place.
    Lost(String),
}

/// Puts `generation` into a server, within `patience`; where that fails, what it held is put back, within as much again. The caller holds
/// the server's lock.
///
/// # Errors
/// [`Refusal`].
pub async fn put(server: &Server, speaker: &dyn Speak, generation: &Generation, patience: Duration) -> Result<(), Refusal> {
    let before = server.held();
    server.reads(Some(generation.clone()));
    let (done, still) = attempt(server, speaker, generation, patience).await;
    let result = match done {
        Ok(()) => {
            server.holds(generation.clone());
            Ok(())
        }
        Err((miss, touched)) => {
            let reason = format!("{} was not taken: {}", generation.label(), miss.reason);
            match (touched, before) {
                (false, _) => Err(Refusal::PutBack(reason)),
                // What may still be loading cannot be put back.
                (true, _) if miss.outcome == Outcome::Slow => Err(Refusal::Lost(format!("{reason}; it may still be at it"))),
                (true, None) => Err(Refusal::Lost(format!("{reason}; it held none of ours before"))),
                (true, Some(before)) => match read(server, speaker, &before, Instant::now() + patience).await {
                    Ok(()) => Err(Refusal::PutBack(format!("{reason}; {} was put back", before.label()))),
                    Err(worse) => Err(Refusal::Lost(format!("{reason}; {} could not be put back: {}", before.label(), worse.reason))),
                },
            }
        }
    };
    // Whatever came of it: requests that wait in it would wait for ever.
    let went_on = server.link.ask(&speaker.resume(), Instant::now() + GO_ON).await;
    server.reads(None);
    if let Some(still) = still {
        metrics::paused(still.ended());
    }
    match (result, went_on) {
        (result, Ok(_)) => result,
        (Ok(()), Err(miss)) => Err(Refusal::Lost(format!("it took {} and does not go on: {}", generation.label(), miss.reason))),
        (Err(Refusal::PutBack(reason) | Refusal::Lost(reason)), Err(miss)) => {
            Err(Refusal::Lost(format!("{reason}; it does not go on: {}", miss.reason)))
        }
    }
}

/// What came of it (and, of a failure, whether weights may have changed), and the server as it stands still, if it does.
async fn attempt<'a>(
    server: &'a Server,
    speaker: &dyn Speak,
    generation: &Generation,
    patience: Duration,
) -> (Result<(), (Miss, bool)>, Option<Still<'a>>) {
    let until = Instant::now() + patience;
    if let Err(miss) = server.link.ask(&speaker.pause(), until).await {
        return (Err((miss, false)), None);
    }
    let still = server.stands_still();
    (read(server, speaker, generation, until).await.map_err(|miss| (miss, true)), Some(still))
}

/// Has a server that stands still read a generation, and looks whether it says so.
async fn read(server: &Server, speaker: &dyn Speak, generation: &Generation, until: Instant) -> Result<(), Miss> {
    let folder = generation.path.to_str().ok_or_else(|| {
        let message = format!("policy_folder: {} cannot be written in JSON", generation.path.display());
        Miss::last(Outcome::Refused, message)
    })?;
    let label = generation.label();
    let said = server.link.ask(&speaker.label(), until).await.and_then(|reply| speaker.read_label(&reply))?;
    for _ in 0..speaker.loads(&said) {
        for call in speaker.reload(folder, &label) {
            server.link.ask(&call, until).await.map_err(|miss| Miss { reason: format!("{}: {}", call.path, miss.reason), ..miss })?;
        }
    }
    let said = server.link.ask(&speaker.label(), until).await.and_then(|reply| speaker.read_label(&reply))?;
    if said == label {
        return Ok(());
    }
    Err(Miss::last(Outcome::StaleVersion, format!("it says that it took it, and that it holds {said:?}")))
}
