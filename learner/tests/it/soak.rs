//! A hundred thousand groups through the intake, with actors that die, hand in twice, miss the receipt or come too late, and
//! a learner that is killed and goes back to its checkpoint: the ledger says of every group that it was trained once, or
//! ended for a reason; and every task of every complete pass was trained once.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use hypereyes_domain::{Failure, PolicyVersion, Receipt, TaskId};
use hypereyes_learner::intake::{Answer, Bounds, Cursor, Grant, Intake};
use hypereyes_run::audit::audit;
use hypereyes_run::ledger::{Event, Ledger};
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::group;

const GROUPS: u64 = 100_000;
const TASKS: usize = 500;
const ACTORS: usize = 12;
const LEASE: Duration = Duration::from_secs(10);

/// What an actor holds, and when it will hand it in.
struct Work {
    lease: Grant,
    version: u64,
    done: Instant,
}

#[derive(Default)]
struct Actor {
    /// Another name after each death, as processes have.
    incarnation: u64,
    work: Vec<Work>,
    /// Handed in, receipt lost.
    unsure: Vec<(Grant, u64)>,
}

#[test]
fn every_group_is_trained_once_or_ends_for_a_reason() {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("groups.jsonl");
    let bounds = Bounds { groups_per_step: 8, max_staleness: 2, lease: LEASE, deterministic: false, tries: 0, ..Bounds::default() };
    let tasks: Vec<TaskId> = (0..TASKS).map(|n| TaskId::new(format!("t{n}"))).collect();
    let mut incarnation = 0u32;
    let mut begin = |cursor: Option<Cursor>, step: u64| {
        incarnation += 1;
        let mut ledger = Ledger::open(&path).unwrap();
        ledger.write(&Event::Started { step });
        Intake::new(bounds.clone(), tasks.clone(), 1, incarnation, cursor, PolicyVersion(step), ledger)
    };
    let mut random = ChaCha8Rng::seed_from_u64(4);
    let (mut now, mut step) = (Instant::now(), 0u64);
    let mut intake = begin(None, 0);
    let mut saved: (Option<Cursor>, u64) = (None, 0);
    // How often each task was trained in each pass, up to the checkpoint and since.
    let mut counts: HashMap<(u64, TaskId), u32> = HashMap::new();
    let mut since: Vec<(u64, TaskId)> = vec![];
    let mut actors: Vec<Actor> = (0..ACTORS).map(|_| Actor::default()).collect();
    let (mut receipts, mut deaths, mut restarts) = (HashMap::<&str, u64>::new(), 0u64, 0u64);
    let mut trained = 0;
    while trained < GROUPS {
        now += Duration::from_millis(random.random_range(1..400));
        let number = random.random_range(0..ACTORS);
        let actor = &mut actors[number];
        let name = format!("a{number}.{}", actor.incarnation);
        match random.random_range(0..1000) {
            0..8 => {
                // It dies with all that it holds; its heir knows nothing.
                deaths += 1;
                *actor = Actor { incarnation: actor.incarnation + 1, ..Actor::default() };
            }
            8..300 => {
                if let Answer::Lease(lease) = intake.lease(&name.as_str().into(), now) {
                    let slow = if random.random_bool(0.05) { 30_000 } else { 1500 };
                    // Some sample with a policy that is old by the time they are done.
                    let version = step.saturating_sub(u64::from(random.random_bool(0.02)) * 4);
                    actor.work.push(Work { lease, version, done: now + Duration::from_millis(random.random_range(0..slow)) });
                }
            }
            300..330 => {
                if let Some(work) = actor.work.pop() {
                    intake.abandon(&work.lease.group, &name.as_str().into(), Failure::Infrastructure);
                }
            }
            330..700 => {
                let ids: Vec<_> = actor.work.iter().map(|work| work.lease.group.clone()).collect();
                let yours = intake.heartbeat(&name.as_str().into(), &ids, now);
                actor.work.retain(|work| yours.contains(&work.lease.group));
            }
            _ => {
                let again = if random.random_bool(0.5) { actor.unsure.pop() } else { None };
                let due = actor.work.iter().position(|work| work.done <= now);
                let (lease, version) = match (again, due) {
                    (Some(again), _) => again,
                    (None, Some(at)) => {
                        let work = actor.work.swap_remove(at);
                        (work.lease, work.version)
                    }
                    (None, None) => continue,
                };
                let receipt = intake.submit(group(&lease, &name, version), now);
                *receipts
                    .entry(match receipt {
                        Receipt::Accepted => "accepted",
                        Receipt::Duplicate => "duplicate",
                        Receipt::Stale => "stale",
                        Receipt::Expired => "expired",
                        Receipt::Invalid => "invalid",
                    })
                    .or_default() += 1;
                // Three in ten receipts are lost, or the message is sent twice.
                if random.random_bool(0.3) {
                    actor.unsure.push((lease, version));
                }
            }
        }
        if let Some(batch) = intake.take_batch() {
            step += 1;
            intake.trained(&batch, PolicyVersion(step), step);
            trained += batch.len() as u64;
            let epoch = intake.counts().3;
            since.extend(batch.iter().map(|group| (epoch, group.scored.group.task.clone())));
        }
        if intake.epoch_is_over() {
            let ended = intake.next_epoch();
            intake.note(&Event::Committed { epoch: ended, tightened: 0 });
        }
        if random.random_bool(0.0005) {
            saved = (Some(intake.cursor()), step);
            for trained in since.drain(..) {
                *counts.entry(trained).or_default() += 1;
            }
        }
        if random.random_bool(0.0002) {
            restarts += 1;
            // What was trained since is undone, and the actors do not notice.
            since.clear();
            step = saved.1;
            intake = begin(saved.0.clone(), step);
        }
    }
    let epoch = intake.counts().3;
    for trained in since {
        *counts.entry(trained).or_default() += 1;
    }
    drop(intake);
    let found = audit(&path).unwrap();
    println!("{found:?}\nreceipts {receipts:?}, {deaths} deaths of actors, {restarts} of the learner, {epoch} passes");
    assert_eq!((found.contradictions, found.torn, found.summary.trained_twice), (0, 0, 0), "{:?}", found.listed);
    assert!(restarts > 5 && deaths > 100 && receipts["duplicate"] > 5_000 && receipts["stale"] > 50 && receipts["expired"] > 50);
    let summary = &found.summary;
    assert_eq!(summary.leased, summary.trained + summary.others.values().sum::<u64>() + summary.void + summary.open);
    for pass in 0..epoch {
        for task in &tasks {
            assert_eq!(counts.get(&(pass, task.clone())), Some(&1), "pass {pass}, task {task}");
        }
    }
}
