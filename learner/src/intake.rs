//! Leases and finished groups: which task is whose, what became of every group, and what waits to be trained.
//!
//! In: requests of actors, the clock, steps of the trainer. Out: leases, receipts, batches, and a ledger line for every
//! event. A group has one fate: it is trained, or dropped for a reason; a lease that expires or is given back goes to the
//! next who asks, under a new group id. A task that fails again and again is set aside ([`crate::trials`]), so that an epoch
//! ends; who holds much while others get nothing gives some of it up ([`crate::shares`]); groups that would teach nothing may be
//! passed over for others ([`crate::spread`]). Pure state: it knows no network and no
//! tensor. Time is monotonic and passed in.

use std::collections::{BTreeSet, HashMap, HashSet, VecDeque};
use std::time::{Duration, Instant};

use hypereyes_domain::{ActorId, DistilledGroup, Failure, GroupId, PictureId, PolicyVersion, Receipt, TaskId};
use hypereyes_run::ledger::{Event, Ledger};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::shares::Shares;
use crate::spread::Skips;
use crate::trials::Trials;

/// Bounds of the intake.
#[derive(Clone, Debug, PartialEq)]
pub struct Bounds {
    /// Groups of one step.
    pub groups_per_step: usize,
    /// Versions that the worst token of a group may lag behind the policy it trains.
    pub max_staleness: u64,
    /// How long a lease lives without a heartbeat.
    pub lease: Duration,
    /// How long it lives at most, however often it is renewed.
    pub lease_most: Duration,
    /// How often a task may fail in a row before it is set aside; 0 for ever.
    pub tries: u32,
    /// Whether every batch is made of the next tasks in order, all of them sampled by the policy that it trains: then what is
    /// trained does not depend on who was fast or died.
    pub deterministic: bool,
    /// Whether groups that would teach nothing are passed over, and how many.
    pub skips: Option<Skips>,
}

impl Default for Bounds {
    /// One group at a time, leases of 20 s and of an hour at most, five tries.
    fn default() -> Self {
        Self {
            groups_per_step: 1,
            max_staleness: 1,
            lease: Duration::from_secs(20),
            lease_most: Duration::from_secs(3600),
            tries: 5,
            deterministic: false,
            skips: None,
        }
    }
}

impl Bounds {
    /// Groups that may be leased or queued: those of the step under way and, for each version that a group may lag, those
    /// of one more step. One version is kept in reserve for the short batches of an epoch's end.
    fn most_outstanding(&self) -> usize {
        if self.deterministic {
            return self.groups_per_step;
        }
        let ahead = usize::try_from(self.max_staleness.max(1)).unwrap_or(usize::MAX);
        self.groups_per_step.saturating_mul(ahead)
    }
}

/// What an actor gets when it asks.
#[derive(Clone, Debug, PartialEq)]
pub enum Answer {
    /// Work.
    Lease(Grant),
    /// Enough is outstanding.
    Backpressure,
    /// The epoch's last groups are out.
    EpochEnd,
    /// No more work, ever.
    Finished,
}

/// A task that is leased: what the intake knows of a [`Lease`](hypereyes_domain::Lease).
#[derive(Clone, Debug, PartialEq)]
pub struct Grant {
    /// Name of the lease.
    pub group: GroupId,
    /// The task.
    pub task: TaskId,
    /// Seed of its rollouts.
    pub seed: u64,
    /// Oldest policy version that may sample for it.
    pub min_version: PolicyVersion,
}

struct Held {
    task: TaskId,
    actor: ActorId,
    since: Instant,
    expires: Instant,
}

/// What a checkpoint keeps of the intake. Leases are not kept: their tasks are simply leased again.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Cursor {
    /// Passes over the tasks begun, from 0.
    pub epoch: u64,
    /// Tasks of the epoch still to be trained, in order.
    pub remaining: Vec<TaskId>,
    /// Leases handed out so far.
    pub leases: u64,
    /// Groups trained so far.
    pub trained: u64,
    /// Groups dropped so far.
    pub dropped: u64,
    /// Groups that the step under way passed over in epochs that are over.
    #[serde(default, skip_serializing_if = "is_zero")]
    pub skipped: usize,
}

fn is_zero(number: &usize) -> bool {
    *number == 0
}

/// The intake.
pub struct Intake {
    bounds: Bounds,
    tasks: Vec<TaskId>,
    seed: u64,
    incarnation: u32,
    epoch: u64,
    order: VecDeque<TaskId>,
    held: HashMap<GroupId, Held>,
    settled: HashSet<GroupId>,
    ready: VecDeque<DistilledGroup>,
    leases: u64,
    trained: u64,
    dropped: u64,
    version: PolicyVersion,
    /// The groups of the batch that is being trained.
    training: HashSet<GroupId>,
    /// Groups that were passed over and not yet asked for, and the tasks of those since the last step.
    skipped: Vec<DistilledGroup>,
    skipped_tasks: Vec<TaskId>,
    /// How many were passed over since the last step in epochs that are over: their tasks are not done again.
    skipped_before: usize,
    /// The next batch is taken as it is, full or not.
    pressed: bool,
    finished: bool,
    /// The last moment that was told.
    now: Option<Instant>,
    trials: Trials,
    shares: Shares,
    ledger: Ledger,
}

impl Intake {
    /// Starts at the beginning of epoch 0, or where a checkpoint stopped.
    /// `incarnation` is another number at each start: a group of one incarnation is not mistaken for one of another.
    pub fn new(
        bounds: Bounds,
        tasks: Vec<TaskId>,
        seed: u64,
        incarnation: u32,
        cursor: Option<Cursor>,
        version: PolicyVersion,
        ledger: Ledger,
    ) -> Self {
        let mut intake = Self {
            bounds,
            tasks,
            seed,
            incarnation,
            epoch: 0,
            order: VecDeque::new(),
            held: HashMap::new(),
            settled: HashSet::new(),
            ready: VecDeque::new(),
            leases: 0,
            trained: 0,
            dropped: 0,
            version,
            training: HashSet::new(),
            skipped: vec![],
            skipped_tasks: vec![],
            skipped_before: 0,
            pressed: false,
            finished: false,
            now: None,
            trials: Trials::default(),
            shares: Shares::default(),
            ledger,
        };
        match cursor {
            Some(cursor) => {
                intake.epoch = cursor.epoch;
                // The set may be another than then.
                let known: HashSet<&TaskId> = intake.tasks.iter().collect();
                intake.order = cursor.remaining.into_iter().filter(|task| known.contains(task)).collect();
                (intake.leases, intake.trained, intake.dropped) = (cursor.leases, cursor.trained, cursor.dropped);
                intake.skipped_before = cursor.skipped;
            }
            None => intake.order = intake.shuffled(0),
        }
        intake
    }

    fn shuffled(&self, epoch: u64) -> VecDeque<TaskId> {
        let mut order = self.tasks.clone();
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(self.seed.wrapping_add(epoch)));
        // Afterwards, so that the others keep their order.
        order.retain(|task| !self.trials.is_aside(task));
        order.into()
    }

    /// Groups leased or waiting, as a share of the bound.
    pub fn fill(&self) -> f64 {
        (self.held.len() + self.ready.len()) as f64 / self.bounds.most_outstanding().max(1) as f64
    }

    /// Whether there are tasks of this epoch that nobody has yet.
    pub fn has_tasks(&self) -> bool {
        !self.order.is_empty()
    }

    /// Someone asks for work.
    pub fn lease(&mut self, actor: &ActorId, now: Instant) -> Answer {
        self.expire(now);
        self.shares.seen(actor, now);
        if self.finished {
            return Answer::Finished;
        }
        let too_early = self.bounds.deterministic && !self.training.is_empty();
        if too_early || self.held.len() + self.ready.len() >= self.bounds.most_outstanding() {
            self.shares.turned_away(actor, now);
            return Answer::Backpressure;
        }
        if self.order.is_empty() {
            return Answer::EpochEnd;
        }
        // A deterministic batch is complete when all of its groups are: whoever is there takes the next one.
        if !self.bounds.deterministic && self.shares.must_wait(actor, &self.holdings(), self.bounds.most_outstanding(), now) {
            return Answer::Backpressure;
        }
        // A task that has just failed rests for a while. In a deterministic run its turn is waited for.
        let ripe = if self.bounds.deterministic {
            self.order.front().is_some_and(|task| !self.trials.rests(task, now)).then_some(0)
        } else {
            self.order.iter().position(|task| !self.trials.rests(task, now))
        };
        let Some(task) = ripe.and_then(|at| self.order.remove(at)) else { return Answer::Backpressure };
        self.leases += 1;
        let group = GroupId::new(format!("{task}@{}.{}-{:x}", self.epoch, self.leases, self.incarnation));
        let seed = self.seed_of(&task);
        self.ledger.write(&Event::Leased { group: &group, actor, epoch: self.epoch });
        let min_version = self.oldest_to_sample();
        let held =
            Held { task: task.clone(), actor: actor.clone(), since: now, expires: now + self.bounds.lease.min(self.bounds.lease_most) };
        self.held.insert(group.clone(), held);
        self.shares.served(actor, now);
        Answer::Lease(Grant { group, task, seed, min_version })
    }

    /// The oldest version that may sample for the next lease, so that its group is not stale when its turn comes: by then the step
    /// under way, and those that what is leased or waits already fills, have each made a version. Where more than a batch may be out,
    /// a quicker group may be trained first: one version is kept for it. An actor that has not fetched the newest yet need not wait.
    fn oldest_to_sample(&self) -> PolicyVersion {
        if self.bounds.deterministic {
            return self.version;
        }
        let before = (self.held.len() + self.ready.len()) / self.bounds.groups_per_step.max(1) + usize::from(!self.training.is_empty());
        let reserve = u64::from(self.bounds.max_staleness > 1);
        let slack = self.bounds.max_staleness.saturating_sub(before as u64 + reserve);
        PolicyVersion(self.version.0.saturating_sub(slack))
    }

    /// What there is to say of a group before anybody looks into it; nothing where it is leased to this actor for this task.
    pub fn standing(&mut self, id: &GroupId, actor: &ActorId, task: &TaskId, now: Instant) -> Option<Receipt> {
        self.expire(now);
        self.shares.seen(actor, now);
        if self.settled.contains(id) {
            return Some(Receipt::Duplicate);
        }
        let owned = self.held.get(id).is_some_and(|held| held.actor == *actor && held.task == *task);
        (!owned).then_some(Receipt::Expired)
    }

    /// A group that is leased to this actor came in and cannot be used: it is dropped, and its task goes to the next.
    pub fn refuse(&mut self, id: &GroupId, actor: &ActorId, detail: &str, now: Instant) -> Receipt {
        let Some(held) = self.held.get(id).filter(|held| held.actor == *actor) else { return Receipt::Expired };
        let (task, actor) = (held.task.clone(), held.actor.clone());
        self.held.remove(id);
        self.settled.insert(id.clone());
        self.drop_group(id, "invalid", detail);
        self.failed(task, Some(&actor), &format!("invalid: {detail}"), now, false);
        Receipt::Invalid
    }

    /// A finished group comes in.
    pub fn submit(&mut self, group: DistilledGroup, now: Instant) -> Receipt {
        let id = group.scored.group.id.clone();
        if let Some(receipt) = self.standing(&id, &group.scored.group.actor, &group.scored.group.task, now) {
            return receipt;
        }
        if let Err(error) = group.check() {
            // The task itself is sound: someone may do better.
            return self.refuse(&id, &group.scored.group.actor, &error.reason, now);
        }
        let held = self.held.remove(&id).expect("its standing was just looked at");
        self.settled.insert(id.clone());
        if self.is_of_another_incarnation(&group) {
            self.drop_group(&id, "future", "its policy is newer than the learner's");
            self.order.push_back(held.task);
            return Receipt::Stale;
        }
        if self.is_stale(&group) {
            self.drop_group(&id, "stale", "");
            self.order.push_back(held.task);
            return Receipt::Stale;
        }
        self.trials.succeeded(&held.task);
        self.ledger.write(&Event::Submitted { group: &id });
        self.ready.push_back(group);
        Receipt::Accepted
    }

    /// The same whoever gets the task, and however often.
    fn seed_of(&self, task: &TaskId) -> u64 {
        let mut hasher = blake3::Hasher::new();
        hasher.update(&self.seed.to_le_bytes()).update(&self.epoch.to_le_bytes()).update(task.as_str().as_bytes());
        u64::from_le_bytes(hasher.finalize().as_bytes()[..8].try_into().expect("eight of thirty-two"))
    }

    fn is_stale(&self, group: &DistilledGroup) -> bool {
        let oldest = group.scored.group.oldest_version().unwrap_or(self.version);
        let most = if self.bounds.deterministic { 0 } else { self.bounds.max_staleness };
        self.version.staleness_of(oldest) > most
    }

    /// Whether a token is of a version that there has not been (in this incarnation).
    fn is_of_another_incarnation(&self, group: &DistilledGroup) -> bool {
        let versions = group.scored.group.rollouts.iter().flat_map(|rollout| &rollout.versions);
        versions.max().is_some_and(|newest| *newest > self.version)
    }

    /// Where each task of the epoch stands.
    fn places(&self) -> HashMap<TaskId, usize> {
        self.shuffled(self.epoch).into_iter().enumerate().map(|(at, task)| (task, at)).collect()
    }

    fn drop_group(&mut self, id: &GroupId, reason: &'static str, detail: &str) {
        self.dropped += 1;
        metrics::counter!(crate::metrics::GROUPS_DROPPED, "reason" => reason).increment(1);
        self.ledger.write(&Event::Dropped { group: id, reason, detail });
    }

    /// A task came to nothing: it goes to the next who asks, or is set aside.
    fn failed(&mut self, task: TaskId, actor: Option<&ActorId>, reason: &str, now: Instant, soon: bool) {
        let alone = actor.is_none_or(|actor| !self.shares.others_live(actor, now));
        if self.bounds.tries > 0 && self.trials.failed(&task, actor, alone, reason, self.bounds.tries, now) {
            let reason = self.trials.aside(&task).unwrap_or(reason).to_owned();
            tracing::warn!(%task, reason, tries = self.bounds.tries, "a task is set aside; the others go on");
            metrics::counter!(crate::metrics::TASKS_SET_ASIDE).increment(1);
            self.ledger.write(&Event::SetAside { task: &task, reason: &reason });
            return;
        }
        if soon || self.bounds.deterministic {
            self.order.push_front(task);
        } else {
            self.order.push_back(task);
        }
    }

    /// A lease is given back.
    pub fn abandon(&mut self, id: &GroupId, actor: &ActorId, failure: Failure) -> bool {
        self.give_up(id, actor, failure, "")
    }

    /// A lease is given back; `detail` says why, for people.
    pub fn give_up(&mut self, id: &GroupId, actor: &ActorId, failure: Failure, detail: &str) -> bool {
        if self.held.get(id).is_none_or(|held| held.actor != *actor) {
            return false;
        }
        let counts = failure != Failure::Cancelled;
        let told = if detail.is_empty() { failure.label().to_owned() } else { format!("{}: {detail}", failure.label()) };
        // A moment that somebody has told: nothing is leased before one is.
        let now = self.now.unwrap_or_else(Instant::now);
        self.release(id.clone(), failure.label(), counts.then_some(told.as_str()), now);
        true
    }

    /// Renews the actor's leases, up to their overall end; says which are still its own.
    pub fn heartbeat(&mut self, actor: &ActorId, groups: &[GroupId], now: Instant) -> Vec<GroupId> {
        self.expire(now);
        self.shares.seen(actor, now);
        let mut yours = vec![];
        for id in groups {
            if let Some(held) = self.held.get_mut(id).filter(|held| held.actor == *actor) {
                held.expires = (now + self.bounds.lease).min(held.since + self.bounds.lease_most);
                yours.push(id.clone());
            }
        }
        yours
    }

    fn expire(&mut self, now: Instant) {
        self.now = Some(now);
        let late: Vec<(GroupId, bool)> = self
            .held
            .iter()
            .filter(|(_, held)| held.expires <= now)
            .map(|(id, held)| (id.clone(), now >= held.since + self.bounds.lease_most))
            .collect();
        for (id, overdue) in late {
            let reason = if overdue { "overdue" } else { "expired" };
            self.release(id, reason, Some(reason), now);
        }
        let patience = self.bounds.lease * crate::shares::HUNGRY_LEASES;
        if self.shares.starves(now, patience) {
            let old = self.held.iter().filter(|(_, held)| now >= held.since + patience);
            let mut old: Vec<(Instant, GroupId, ActorId)> = old.map(|(id, held)| (held.since, id.clone(), held.actor.clone())).collect();
            old.sort();
            let most = self.bounds.most_outstanding();
            let mut excess = self.shares.excess(old, self.holdings(), most, now, patience);
            // What is free already is kept for whoever starves.
            excess.truncate(excess.len().saturating_sub(most.saturating_sub(self.held.len() + self.ready.len())));
            for id in excess {
                self.release(id, "hoarded", None, now);
            }
        }
    }

    /// Leases of each actor.
    fn holdings(&self) -> HashMap<ActorId, usize> {
        let mut holdings = HashMap::new();
        self.held.values().for_each(|held| *holdings.entry(held.actor.clone()).or_default() += 1);
        holdings
    }

    /// Whether an actor holds a lease that is not over.
    pub fn holds(&mut self, actor: &ActorId, now: Instant) -> bool {
        self.expire(now);
        self.held.values().any(|held| held.actor == *actor)
    }

    /// Takes a lease back; `against` is what it says against the task, if it says anything.
    fn release(&mut self, id: GroupId, reason: &'static str, against: Option<&str>, now: Instant) {
        let held = self.held.remove(&id).expect("callers have seen it");
        metrics::counter!(crate::metrics::LEASES_RELEASED, "reason" => reason).increment(1);
        self.ledger.write(&Event::Released { group: &id, reason });
        match against {
            Some(against) => {
                let soon = !self.trials.is_suspect(&held.task);
                self.failed(held.task, Some(&held.actor), against, now, soon);
            }
            None => self.order.push_front(held.task),
        }
    }

    /// What waits is trained before a batch is full: what it holds is needed for more.
    pub fn press(&mut self) {
        if !self.ready.is_empty() && !self.pressed {
            tracing::warn!(groups = self.ready.len(), "a batch is trained before it is full: its pictures leave no room for more");
            metrics::counter!(crate::metrics::BATCHES_PRESSED).increment(1);
            self.pressed = true;
        }
    }

    /// The next batch, if there is one. Where no more groups come, at an epoch's end and once it is finished, a smaller one is taken
    /// rather than none.
    pub fn take_batch(&mut self) -> Option<Vec<DistilledGroup>> {
        self.pass_over();
        let no_more = self.finished || self.order.is_empty();
        let last = no_more && self.held.is_empty() && !self.ready.is_empty();
        let pressed = std::mem::take(&mut self.pressed) && !self.ready.is_empty();
        if self.ready.len() < self.bounds.groups_per_step && !last && !pressed {
            return None;
        }
        let count = self.ready.len().min(self.bounds.groups_per_step);
        let mut batch = vec![];
        for group in self.ready.drain(..count).collect::<Vec<_>>() {
            if self.is_stale(&group) {
                let (id, task) = (group.scored.group.id, group.scored.group.task);
                self.drop_group(&id, "stale", "while queued");
                self.order.push_back(task);
            } else {
                batch.push(group);
            }
        }
        if self.bounds.deterministic {
            let places = self.places();
            batch.sort_by_key(|group| places.get(&group.scored.group.task).copied());
        }
        self.training = batch.iter().map(|group| group.scored.group.id.clone()).collect();
        (!batch.is_empty()).then_some(batch)
    }

    /// Drops what would teach nothing from the front of the queue, as far as the bound goes: what is leased next takes its place.
    fn pass_over(&mut self) {
        let Some(skips) = self.bounds.skips else { return };
        if self.bounds.deterministic {
            // Decided when all are there and in the order of their tasks, or else who was fast would decide what the bound spares.
            let no_more = self.finished || self.order.is_empty();
            if self.ready.len() < self.bounds.groups_per_step && !(no_more && self.held.is_empty()) {
                return;
            }
            let places = self.places();
            self.ready.make_contiguous().sort_by_key(|group| places.get(&group.scored.group.task).copied());
        }
        let mut at = 0;
        while at < self.ready.len().min(self.bounds.groups_per_step) && self.skipped() < skips.most {
            let passed =
                if skips.teaches_nothing(&self.ready[at]) && !self.is_stale(&self.ready[at]) { self.ready.remove(at) } else { None };
            match passed {
                None => at += 1,
                Some(group) => {
                    self.drop_group(&group.scored.group.id, "zero_variance", "");
                    self.skipped_tasks.push(group.scored.group.task.clone());
                    self.skipped.push(group);
                }
            }
        }
    }

    /// The groups that were passed over since somebody last asked: their successes count all the same.
    pub fn take_skipped(&mut self) -> Vec<DistilledGroup> {
        std::mem::take(&mut self.skipped)
    }

    /// How many groups were passed over since the last step.
    pub fn skipped(&self) -> usize {
        self.skipped_before + self.skipped_tasks.len()
    }

    /// A group of the batch that was taken turns out to be of no use, for a reason that lies with its task: the others go on.
    pub fn discard(&mut self, group: &DistilledGroup, reason: &'static str, detail: &str, now: Instant) {
        let group = &group.scored.group;
        self.training.remove(&group.id);
        self.drop_group(&group.id, reason, detail);
        self.failed(group.task.clone(), Some(&group.actor), &format!("{reason}: {detail}"), now, false);
    }

    /// A batch was not trained: it waits again, before all others.
    pub fn put_back(&mut self, batch: Vec<DistilledGroup>) {
        self.training.clear();
        batch.into_iter().rev().for_each(|group| self.ready.push_front(group));
    }

    /// Groups that wait to be trained or are being trained.
    pub fn waiting(&self) -> HashSet<GroupId> {
        self.ready.iter().map(|group| group.scored.group.id.clone()).chain(self.training.iter().cloned()).collect()
    }

    /// Pictures of the groups that come next, as far as they are here already.
    pub fn next_pictures(&self) -> BTreeSet<PictureId> {
        let next = self.ready.iter().take(self.bounds.groups_per_step).flat_map(|group| &group.scored.group.rollouts);
        next.flat_map(|rollout| rollout.pictures.iter().cloned()).collect()
    }

    /// A batch has become a policy version.
    pub fn trained(&mut self, groups: &[DistilledGroup], version: PolicyVersion, step: u64) {
        self.version = version;
        self.training.clear();
        self.skipped_tasks.clear();
        self.skipped_before = 0;
        self.trained += groups.len() as u64;
        for group in groups {
            self.ledger.write(&Event::Trained { group: &group.scored.group.id, step });
        }
    }

    /// True when every task of the epoch is trained: the moment to commit references.
    pub fn epoch_is_over(&self) -> bool {
        self.order.is_empty() && self.held.is_empty() && self.ready.is_empty()
    }

    /// Begins the next epoch; returns the number of the one that ended.
    pub fn next_epoch(&mut self) -> u64 {
        let ended = self.epoch;
        self.skipped_before += std::mem::take(&mut self.skipped_tasks).len();
        self.epoch += 1;
        self.order = self.shuffled(self.epoch);
        ended
    }

    /// Tasks that were set aside, each with the reason.
    pub fn set_aside(&self) -> &std::collections::BTreeMap<TaskId, String> {
        self.trials.all_aside()
    }

    /// Why there is nothing left to train on: every task was set aside.
    pub fn nothing_left(&self) -> Option<String> {
        let aside = self.trials.all_aside();
        let (task, reason) = aside.iter().next()?;
        (aside.len() >= self.tasks.len()).then(|| format!("all {} tasks were set aside; the first, {task}: {reason}", aside.len()))
    }

    /// Adds a line to the ledger.
    pub fn note(&mut self, event: &Event<'_>) {
        self.ledger.write(event);
    }

    /// Tries again what could not be written into the ledger.
    pub fn flush(&mut self) {
        self.ledger.flush();
    }

    /// No more leases.
    pub fn finish(&mut self) {
        self.finished = true;
    }

    /// Whether [`Intake::finish`] was called.
    pub fn is_finished(&self) -> bool {
        self.finished
    }

    /// Where to go on after a restart: what is leased or queued but not trained is to be done again, and so is what was passed over
    /// for the step under way, so that a restart does not change how many more may be.
    pub fn cursor(&self) -> Cursor {
        let skipped = self.skipped_tasks.iter().cloned();
        let queued = self.ready.iter().map(|group| group.scored.group.task.clone());
        let mut held: Vec<TaskId> = self.held.values().map(|held| held.task.clone()).collect();
        held.sort();
        let mut remaining: Vec<TaskId> = skipped.chain(queued).chain(held).chain(self.order.iter().cloned()).collect();
        if self.bounds.deterministic {
            let places = self.places();
            remaining.sort_by_key(|task| places.get(task).copied());
        }
        let skipped = self.skipped_before;
        Cursor { epoch: self.epoch, remaining, leases: self.leases, trained: self.trained, dropped: self.dropped, skipped }
    }

    /// (trained, dropped, leased or queued, epoch). Groups of the step under way count to none of them.
    pub fn counts(&self) -> (u64, u64, u64, u64) {
        (self.trained, self.dropped, (self.held.len() + self.ready.len()) as u64, self.epoch)
    }
}
