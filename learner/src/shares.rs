//! Who holds how much of what there is. In: who asks, who is served and who is turned away. Out: who must wait because others have
//! less, and which old leases end because somebody has starved for long. Nobody is held back while nobody else wants: an actor alone,
//! or a fast one beside slow ones, takes all that is free.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hypereyes_domain::{ActorId, GroupId};

/// Lives of a lease that somebody may be turned away before old leases of others end.
pub const HUNGRY_LEASES: u32 = 15;
/// An actor that has said nothing for this long is gone.
const GONE: Duration = Duration::from_secs(60);
/// Who was turned away and has not asked since then does not want any more.
const STILL_ASKS: Duration = Duration::from_secs(5);
/// Who was just served and wants more asks again within this.
const ASKS_AGAIN: Duration = Duration::from_secs(2);
/// Actors that are remembered.
const MOST: usize = 1 << 14;

/// Who wants and who was here.
#[derive(Debug, Default)]
pub struct Shares {
    actors: HashMap<ActorId, Seen>,
}

#[derive(Debug)]
struct Seen {
    at: Instant,
    /// Turned away since, and last.
    hungry: Option<(Instant, Instant)>,
}

impl Shares {
    /// An actor lives.
    pub fn seen(&mut self, actor: &ActorId, now: Instant) {
        if let Some(seen) = self.actors.get_mut(actor) {
            seen.at = now;
            return;
        }
        // Names come anew with every start of an actor.
        self.actors.retain(|_, seen| now < seen.at + GONE);
        if self.actors.len() < MOST {
            self.actors.insert(actor.clone(), Seen { at: now, hungry: None });
        }
    }

    /// It got nothing.
    pub fn turned_away(&mut self, actor: &ActorId, now: Instant) {
        if let Some(seen) = self.actors.get_mut(actor) {
            let since = seen.hungry.filter(|(_, last)| now < *last + STILL_ASKS).map_or(now, |(since, _)| since);
            seen.hungry = Some((since, now));
        }
    }

    /// It got a lease. It may want another: what it is owed is left to it for a moment.
    pub fn served(&mut self, actor: &ActorId, now: Instant) {
        if let Some(seen) = self.actors.get_mut(actor) {
            let last = now.checked_sub(STILL_ASKS - ASKS_AGAIN).unwrap_or(now);
            seen.hungry = seen.hungry.map(|(since, _)| (since, last));
        }
    }

    /// Whether another actor lives.
    pub fn others_live(&self, actor: &ActorId, now: Instant) -> bool {
        self.actors.iter().any(|(other, seen)| other != actor && now < seen.at + GONE)
    }

    /// What each may hold when all want, at least one.
    fn share(&self, most: usize, now: Instant) -> usize {
        let live = self.actors.values().filter(|seen| now < seen.at + GONE).count();
        (most / live.max(1)).max(1)
    }

    /// Those who were turned away, ask again and again, and hold less than their share.
    fn hungry<'a>(
        &'a self,
        holdings: &'a HashMap<ActorId, usize>,
        share: usize,
        now: Instant,
    ) -> impl Iterator<Item = (&'a ActorId, Instant)> {
        self.actors.iter().filter_map(move |(actor, seen)| {
            let (since, last) = seen.hungry?;
            let wants = now < last + STILL_ASKS && holdings.get(actor).copied().unwrap_or(0) < share;
            wants.then_some((actor, since))
        })
    }

    /// Whether an actor that holds its share or more must leave what is free to somebody who holds less and was turned away.
    pub fn must_wait(&self, actor: &ActorId, holdings: &HashMap<ActorId, usize>, most: usize, now: Instant) -> bool {
        let share = self.share(most, now);
        holdings.get(actor).copied().unwrap_or(0) >= share && self.hungry(holdings, share, now).any(|(other, _)| other != actor)
    }

    /// Whether somebody has been turned away for `patience`. A first look, which costs little.
    pub fn starves(&self, now: Instant, patience: Duration) -> bool {
        self.actors.values().filter_map(|seen| seen.hungry).any(|(since, last)| now < last + STILL_ASKS && now >= since + patience)
    }

    /// Of old leases, the oldest first, those that end: each belongs to somebody who holds more than its share, and they are no more
    /// than those who starve lack.
    pub fn excess(
        &self,
        old: Vec<(Instant, GroupId, ActorId)>,
        mut holdings: HashMap<ActorId, usize>,
        most: usize,
        now: Instant,
        patience: Duration,
    ) -> Vec<GroupId> {
        let share = self.share(most, now);
        let starving = self.hungry(&holdings, share, now).filter(|(_, since)| now >= *since + patience);
        let mut lacking: usize = starving.map(|(actor, _)| share - holdings.get(actor).copied().unwrap_or(0)).sum();
        let mut excess = vec![];
        for (_, id, actor) in old {
            let held = holdings.entry(actor).or_default();
            if lacking > 0 && *held > share {
                *held -= 1;
                lacking -= 1;
                excess.push(id);
            }
        }
        excess
    }
}
