//! One turn, asked until it is answered. In: a question, a pool, the seat of its sequence. Out: what was sampled, checked, with the version
//! that it counts as. A turn is whole or not there: it has its own seed and carries all that it goes on from, so that any server that
//! holds the weights may be asked again.

use std::sync::Arc;

use hypereyes_domain::PolicyVersion;
use tokio::time::Instant;

use super::attempts::Attempts;
use super::check::{self, Checked};
use super::exchange::{Question, exchange};
use super::metrics;
use super::outcome::{Miss, Outcome};
use super::pool::Pool;
use super::request::Ask;
use super::server::{Place, Seat, Server};

/// Attempts that servers may answer with failures of their own: the turn itself may be what they fail at.
const FAILURES: u32 = 5;

/// Asks until there is an answer, for at most twice as long as one answer may take. The time for which its server stands still for other
/// weights does not count.
///
/// # Errors
/// [`Miss`] of the last attempt; its reason names the server.
pub async fn ask(pool: &Pool, seat: &mut Option<Seat>, ask: Arc<Ask>, max_tokens: usize) -> Result<(Checked, PolicyVersion), Miss> {
    let began = Instant::now();
    let mut until = began + pool.limits.request * 2;
    let mut attempts = Attempts::patient(until, FAILURES);
    let mut avoid: Option<Arc<Server>> = None;
    loop {
        let place = pool.place(seat, avoid.as_ref(), &mut until).await?;
        let server = seat.as_ref().expect("a place is at the seat's server").server().clone();
        let stood = server.stood_still();
        let miss = match attempt(pool, &server, &place, ask.clone(), max_tokens, until).await {
            Ok(checked) => {
                metrics::answer(Outcome::Ok);
                metrics::turn(checked.tokens.len(), checked.straddles, Instant::now() - began);
                server.answered();
                return Ok((checked, place.held.version));
            }
            Err(miss) => Miss { reason: format!("{}: {}", server.link.url(), miss.reason), ..miss },
        };
        drop(place);
        metrics::answer(miss.outcome);
        pool.blame(&server, &miss);
        avoid = Some(server.clone());
        until += server.stood_still() - stood;
        attempts.lasts_until(until);
        attempts.again(miss).await?;
        metrics::repeated();
    }
}

async fn attempt(
    pool: &Pool,
    server: &Arc<Server>,
    place: &Place,
    ask: Arc<Ask>,
    max_tokens: usize,
    until: Instant,
) -> Result<Checked, Miss> {
    let question = Question { ask, model: place.known.model.clone(), label: place.held.label(), seeded: place.known.seeded };
    let late = server.late(until.min(Instant::now() + pool.limits.request));
    let reply = exchange(&server.link, pool.speaker, &question, late, |speaker, reply, _| speaker.turn(reply)).await?;
    // After the reply: what sampled its last token has been noted by now.
    check::turn(&question.ask, max_tokens, &server.labels_since(place), reply)
}
