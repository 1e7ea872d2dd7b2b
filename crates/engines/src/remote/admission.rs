//! Looks at servers. In: a pool. Out: servers taken out that are not well, and taken (back) in once they are, hold the newest generation
//! and have shown what they must. A server that was restarted is given the newest weights before it is asked anything.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until, timeout_at};

use super::dialect::{self, Facts, Seeds};
use super::outcome::{Miss, Outcome};
use super::pool::Pool;
use super::server::{Known, Server};
use super::swap::{self, Refusal};

/// Longest wait for a server to say what it is and to answer the few questions of a probe. Some look at their whole machine to say it.
const INTRODUCTION: Duration = Duration::from_secs(120);
/// Longest wait for one answer of it: a few tokens.
const ANSWER: Duration = Duration::from_secs(30);
/// Longest wait for a server to say that it is well: some sample a token first.
const LOOK: Duration = Duration::from_secs(30);

/// Takes a server in, in a task of its own: whoever gives up waiting leaves no server that stands still.
///
/// # Errors
/// [`Miss`]: a final one is of a server that can never take part as it is.
pub async fn admit(pool: &Arc<Pool>, server: &Arc<Server>) -> Result<(), Miss> {
    let (pool, server) = (pool.clone(), server.clone());
    let admitted = tokio::spawn(async move { admitted(&pool, &server).await }).await;
    admitted.unwrap_or_else(|died| Err(Miss::again(Outcome::Server, died)))
}

async fn admitted(pool: &Pool, server: &Server) -> Result<(), Miss> {
    let _swapping = server.swapping.lock().await;
    let (link, speaker) = (&server.link, pool.speaker);
    link.ask(&speaker.health(), Instant::now() + LOOK).await?;
    let facts = dialect::facts(link, speaker, Instant::now() + INTRODUCTION).await?;
    let model = model(&facts, pool)?;
    let mut label = facts.label.clone();
    loop {
        let newest = pool.newest();
        // A name alone is believed nobody: somebody may have failed to put the weights back that it is of.
        if label == newest.label() && server.held().as_ref() == Some(&newest) {
            // Whoever put them there may not have come to let it go on.
            link.ask(&speaker.resume(), Instant::now() + LOOK).await?;
            server.holds(newest.clone());
        } else {
            if server.held().is_some_and(|held| held.label() != label) {
                server.forgets();
            }
            swap::put(server, speaker, &newest, pool.limits.reload).await.map_err(|refusal| {
                let (Refusal::PutBack(reason) | Refusal::Lost(reason)) = refusal;
                Miss::again(Outcome::Server, reason)
            })?;
            label = newest.label();
        }
        let convention =
            pool.probe.ask(link, speaker, &model, &label, pool.limits.request.min(ANSWER), Instant::now() + INTRODUCTION).await?;
        let places = facts.limits.requests.unwrap_or(usize::MAX).min(pool.limits.places);
        let known = Known { model: model.clone(), seeded: !matches!(facts.limits.seeds, Seeds::Fatal(_)) };
        let entered = pool.let_in(server, known, places, convention);
        if entered.map_err(|reason| Miss::last(Outcome::Refused, reason))? {
            if let Seeds::Ignored(advice) | Seeds::Fatal(advice) = facts.limits.seeds {
                tracing::warn!(url = link.url(), advice, "turns are drawn without their seeds there, and cannot be repeated");
            }
            tracing::info!(url = link.url(), model, places, label, ?convention, "a server takes part");
            return Ok(());
        }
    }
}

/// The model's name at a server that serves it with enough tokens.
fn model(facts: &Facts, pool: &Pool) -> Result<String, Miss> {
    let refuse = |reason: String| Err(Miss::last(Outcome::Refused, reason));
    let (wanted, context) = (&pool.limits.model, pool.limits.context);
    let found = facts.models.iter().find(|(name, _)| wanted.is_empty() || name == wanted);
    let Some((name, most)) = found else {
        let served: Vec<&str> = facts.models.iter().map(|(name, _)| name.as_str()).collect();
        return refuse(format!("it serves {}, but model is {wanted:?}", served.join(", ")));
    };
    match most {
        Some(most) if *most < context => {
            refuse(format!("it takes sequences of {most} tokens, but max_context is {context}: give at most {most}, or start it with more"))
        }
        _ => Ok(name.clone()),
    }
}

/// Looks at a server for ever: takes it out when it is not well, and in when it is. Who drops it stops it.
pub async fn watch(pool: Arc<Pool>, server: Arc<Server>) {
    let pause = pool.limits.health;
    let mut changes = pool.changes();
    // Who has just left is looked at soon, but no more often than others.
    let mut tried = Instant::now();
    let mut said = String::new();
    loop {
        let next = Instant::now() + pause;
        while server.is_in() && timeout_at(next, changes.changed()).await.is_ok() {}
        if server.is_in() {
            look(&pool, &server).await;
            continue;
        }
        sleep_until(tried + pause).await;
        tried = Instant::now();
        match admit(&pool, &server).await {
            Ok(()) => said.clear(),
            Err(miss) if miss.reason != said => {
                tracing::warn!(url = server.link.url(), outcome = miss.outcome.label(), message = miss.reason, "a server stays out");
                said = miss.reason;
            }
            Err(_) => {}
        }
    }
}

/// Whether a server that takes part is well. One that stands still for other weights may not be able to say so.
async fn look(pool: &Pool, server: &Server) {
    let looked = server.link.ask(&pool.speaker.health(), Instant::now() + LOOK).await;
    if looked.is_err() && server.swapping.try_lock().is_err() {
        return;
    }
    if server.looked(looked.is_ok())
        && let Err(miss) = looked
    {
        pool.eject(server, "unwell", &miss.reason);
    }
}
