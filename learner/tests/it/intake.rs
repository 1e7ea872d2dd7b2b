//! Leases, receipts and batches, told in small stories.

use std::collections::HashSet;
use std::time::{Duration, Instant};

use hypereyes_domain::{Failure, PolicyVersion, Receipt, TaskId};
use hypereyes_learner::intake::{Answer, Bounds, Grant, Intake};
use hypereyes_learner::spread::Skips;
use hypereyes_objective::Options;
use hypereyes_run::ledger::Ledger;
use rand::{Rng, SeedableRng};
use rand_chacha::ChaCha8Rng;

use crate::support::{group, rewarded};

fn intake(tasks: usize, groups_per_step: usize, max_staleness: u64) -> Intake {
    let bounds = Bounds { groups_per_step, max_staleness, lease: Duration::from_secs(10), deterministic: false, ..Bounds::default() };
    with(tasks, bounds)
}

fn with(tasks: usize, bounds: Bounds) -> Intake {
    let tasks = (0..tasks).map(|n| TaskId::new(format!("t{n}"))).collect();
    Intake::new(bounds, tasks, 1, 7, None, PolicyVersion(0), Ledger::nowhere())
}

fn leased(intake: &mut Intake, actor: &str, now: Instant) -> Grant {
    match intake.lease(&actor.into(), now) {
        Answer::Lease(lease) => lease,
        other => panic!("no lease but {other:?}"),
    }
}

#[test]
fn submitting_twice_counts_once() {
    let now = Instant::now();
    let mut intake = intake(4, 1, 1);
    let lease = leased(&mut intake, "a", now);
    assert_eq!(intake.submit(group(&lease, "a", 0), now), Receipt::Accepted);
    assert_eq!(intake.submit(group(&lease, "a", 0), now), Receipt::Duplicate);
    assert_eq!(intake.take_batch().unwrap().len(), 1);
    assert!(intake.take_batch().is_none());
}

#[test]
fn a_lost_lease_is_leased_again_and_its_zombie_refused() {
    let now = Instant::now();
    let mut intake = intake(1, 1, 2);
    let first = leased(&mut intake, "a", now);
    assert_eq!(intake.lease(&"b".into(), now), Answer::EpochEnd);
    let later = now + Duration::from_secs(11);
    let second = leased(&mut intake, "b", later);
    assert_eq!(first.task, second.task);
    assert_ne!(first.group, second.group);
    assert_eq!(intake.submit(group(&first, "a", 0), later), Receipt::Expired);
    assert_eq!(intake.submit(group(&second, "b", 0), later), Receipt::Accepted);
}

#[test]
fn heartbeats_keep_leases_and_tell_losers() {
    let now = Instant::now();
    let mut intake = intake(2, 1, 4);
    let lease = leased(&mut intake, "a", now);
    let soon = now + Duration::from_secs(9);
    assert_eq!(intake.heartbeat(&"a".into(), std::slice::from_ref(&lease.group), soon), vec![lease.group.clone()]);
    assert!(intake.heartbeat(&"b".into(), std::slice::from_ref(&lease.group), soon).is_empty());
    assert_eq!(intake.heartbeat(&"a".into(), std::slice::from_ref(&lease.group), soon + Duration::from_secs(9)).len(), 1);
}

#[test]
fn outstanding_groups_are_bounded() {
    let now = Instant::now();
    let mut intake = intake(10, 2, 2);
    let leases: Vec<_> = (0..4).map(|_| leased(&mut intake, "a", now)).collect();
    assert_eq!(intake.lease(&"a".into(), now), Answer::Backpressure);
    assert!(intake.abandon(&leases[0].group, &"a".into(), Failure::Cancelled));
    assert_eq!(leased(&mut intake, "b", now).task, leases[0].task);
}

#[test]
fn stale_groups_are_dropped_and_their_tasks_done_again() {
    let now = Instant::now();
    let mut intake = intake(3, 1, 2);
    let (first, second) = (leased(&mut intake, "a", now), leased(&mut intake, "a", now));
    assert_eq!(intake.submit(group(&first, "a", 0), now), Receipt::Accepted);
    let batch = intake.take_batch().unwrap();
    intake.trained(&batch, PolicyVersion(3), 3);
    assert_eq!(intake.submit(group(&second, "a", 0), now), Receipt::Stale);
    let seen: Vec<_> = (0..2).map(|_| leased(&mut intake, "a", now).task).collect();
    assert!(seen.contains(&second.task));
    assert_eq!(intake.counts(), (1, 1, 2, 0));
}

#[test]
fn a_deterministic_intake_makes_the_same_batches_whoever_is_fast() {
    let now = Instant::now();
    let bounds = Bounds { groups_per_step: 2, max_staleness: 4, lease: Duration::from_secs(10), deterministic: true, ..Bounds::default() };
    let story = |swap: bool, lose: bool| {
        let mut intake = with(5, bounds.clone());
        let (mut batches, mut clock) = (vec![], now);
        for version in 0..3u64 {
            let count = if version == 2 { 1 } else { 2 };
            let mut leases: Vec<_> = (0..count).map(|_| leased(&mut intake, "a", clock)).collect();
            assert_ne!(std::mem::discriminant(&intake.lease(&"b".into(), clock)), std::mem::discriminant(&Answer::Finished));
            if lose {
                // The actor dies; another gets the same tasks and seeds under other names.
                clock += Duration::from_secs(11);
                let again: Vec<_> = (0..count).map(|_| leased(&mut intake, "a", clock)).collect();
                let told = |leases: &[Grant]| leases.iter().map(|lease| (lease.task.clone(), lease.seed)).collect::<HashSet<_>>();
                assert_eq!(told(&again), told(&leases));
                leases = again;
            }
            if swap {
                leases.reverse();
            }
            for lease in &leases {
                assert_eq!(intake.submit(group(lease, "a", version), clock), Receipt::Accepted);
            }
            let batch = intake.take_batch().unwrap();
            assert_eq!(intake.lease(&"b".into(), clock), Answer::Backpressure, "nothing is sampled with a policy about to be old");
            intake.trained(&batch, PolicyVersion(version + 1), version + 1);
            batches.push(batch.iter().map(|group| group.scored.group.task.clone()).collect::<Vec<_>>());
            batches.push(intake.cursor().remaining);
        }
        batches
    };
    let plain = story(false, false);
    assert_eq!(story(true, false), plain);
    assert_eq!(story(false, true), plain);
}

#[test]
fn a_resumed_intake_forgets_no_task() {
    let now = Instant::now();
    let mut before = intake(6, 1, 3);
    let leases: Vec<_> = (0..3).map(|_| leased(&mut before, "a", now)).collect();
    before.submit(group(&leases[0], "a", 0), now);
    let batch = before.take_batch().unwrap();
    before.trained(&batch, PolicyVersion(1), 1);
    before.submit(group(&leases[1], "a", 0), now);
    let cursor = before.cursor();
    assert_eq!(cursor.remaining.len(), 5);
    assert!(!cursor.remaining.contains(&leases[0].task));
}

#[test]
fn a_lease_ends_however_politely_it_is_renewed() {
    let now = Instant::now();
    let bounds = Bounds { lease_most: Duration::from_secs(60), lease: Duration::from_secs(10), ..Bounds::default() };
    let mut intake = with(1, bounds);
    let lease = leased(&mut intake, "a", now);
    let beats = (1..).take_while(|beat| {
        !intake.heartbeat(&"a".into(), std::slice::from_ref(&lease.group), now + Duration::from_secs(beat * 5)).is_empty()
    });
    assert_eq!(beats.count(), 11, "up to 55 s");
    assert_eq!(leased(&mut intake, "b", now + Duration::from_secs(60)).task, lease.task);
}

#[test]
fn who_holds_everything_gives_up_its_excess_once_another_starves() {
    let start = Instant::now();
    let bounds = Bounds { groups_per_step: 2, max_staleness: 2, lease: Duration::from_secs(10), ..Bounds::default() };
    let mut intake = with(10, bounds);
    let mut hoard: Vec<_> = (0..4).map(|_| leased(&mut intake, "hog", start).group).collect();
    let (mut clock, mut served) = (start, vec![]);
    while served.len() < 2 {
        clock += Duration::from_secs(1);
        assert!(clock < start + Duration::from_secs(400), "it starves for ever");
        hoard.retain(|group| !intake.heartbeat(&"hog".into(), std::slice::from_ref(group), clock).is_empty());
        if let Answer::Lease(lease) = intake.lease(&"hog".into(), clock) {
            hoard.push(lease.group);
        }
        if let Answer::Lease(lease) = intake.lease(&"b".into(), clock) {
            served.push(lease.task);
        }
        intake.heartbeat(&"b".into(), &[], clock);
    }
    assert_eq!(hoard.len(), 2, "its share stays");
    assert!(clock >= start + Duration::from_secs(150), "and nothing is taken from it before that");
    assert!(intake.set_aside().is_empty(), "which says nothing against the tasks");
}

#[test]
fn no_more_is_taken_than_who_starves_lacks() {
    let start = Instant::now();
    let bounds = Bounds { groups_per_step: 2, max_staleness: 2, lease: Duration::from_secs(10), ..Bounds::default() };
    let mut intake = with(10, bounds);
    let mut held = ["a", "a", "b", "b"].map(|actor| (actor, leased(&mut intake, actor, start).group)).to_vec();
    let mut clock = start;
    loop {
        clock += Duration::from_secs(1);
        assert!(clock < start + Duration::from_secs(400), "it starves for ever");
        held.retain(|(actor, group)| !intake.heartbeat(&(*actor).into(), std::slice::from_ref(group), clock).is_empty());
        if let Answer::Lease(_) = intake.lease(&"c".into(), clock) {
            break;
        }
    }
    assert_eq!(held.len(), 3, "one lease is lacking, and one ends");
}

#[test]
fn a_lease_that_is_over_is_not_held_though_nobody_asked_since() {
    let now = Instant::now();
    let mut intake = intake(1, 1, 1);
    leased(&mut intake, "a", now);
    assert!(intake.holds(&"a".into(), now + Duration::from_secs(9)));
    assert!(!intake.holds(&"a".into(), now + Duration::from_secs(11)));
}

#[test]
fn a_run_that_is_to_end_trains_what_waits_however_little_it_is() {
    let now = Instant::now();
    let mut intake = intake(4, 2, 1);
    let (lease, other) = (leased(&mut intake, "a", now), leased(&mut intake, "b", now));
    assert_eq!(intake.submit(group(&lease, "a", 0), now), Receipt::Accepted);
    intake.finish();
    assert!(intake.take_batch().is_none(), "another may come");
    assert!(intake.abandon(&other.group, &"b".into(), Failure::Cancelled));
    assert_eq!(intake.take_batch().expect("no more will come").len(), 1);
}

#[test]
fn a_task_that_fails_again_and_again_rests_and_is_set_aside() {
    let bounds = |deterministic| Bounds { groups_per_step: 2, tries: 3, deterministic, ..Bounds::default() };
    for deterministic in [false, true] {
        let mut intake = with(3, bounds(deterministic));
        let (mut clock, mut done, mut failures) = (Instant::now(), vec![], 0);
        while !intake.epoch_is_over() {
            clock += Duration::from_millis(100);
            let Answer::Lease(lease) = intake.lease(&"a".into(), clock) else {
                if let Some(batch) = intake.take_batch() {
                    done.extend(batch.iter().map(|group| group.scored.group.task.clone()));
                    intake.trained(&batch, PolicyVersion(0), 0);
                }
                continue;
            };
            if lease.task == TaskId::from("t1") {
                failures += 1;
                assert!(intake.give_up(&lease.group, &"a".into(), Failure::Infrastructure, "no picture"));
            } else {
                assert_eq!(intake.submit(group(&lease, "a", 0), clock), Receipt::Accepted);
            }
        }
        done.sort();
        assert_eq!((failures, done), (3, vec!["t0".into(), "t2".into()]), "deterministic: {deterministic}");
        assert_eq!(intake.set_aside().get(&TaskId::from("t1")).map(String::as_str), Some("infrastructure: no picture"));
        intake.next_epoch();
        assert_eq!(intake.cursor().remaining.len(), 2, "nor is it leased in the next epoch");
        assert!(intake.nothing_left().is_none());
    }
}

#[test]
fn who_is_stopped_says_nothing_against_a_task() {
    let now = Instant::now();
    let mut intake = with(1, Bounds { tries: 2, ..Bounds::default() });
    for _ in 0..10 {
        let lease = leased(&mut intake, "a", now);
        assert!(intake.abandon(&lease.group, &"a".into(), Failure::Cancelled));
    }
    assert!(intake.set_aside().is_empty());
}

#[test]
fn a_batch_that_is_put_back_is_the_next_and_forgets_no_task() {
    let now = Instant::now();
    for deterministic in [false, true] {
        let mut intake = with(4, Bounds { groups_per_step: 2, deterministic, ..Bounds::default() });
        for _ in 0..2 {
            let lease = leased(&mut intake, "a", now);
            assert_eq!(intake.submit(group(&lease, "a", 0), now), Receipt::Accepted);
        }
        let batch = intake.take_batch().unwrap();
        assert_eq!(intake.waiting().len(), 2);
        intake.put_back(batch.clone());
        assert_eq!(intake.cursor().remaining.len(), 4);
        assert_eq!(intake.take_batch().unwrap(), batch);
        intake.discard(&batch[0], "picture", "it is damaged", now);
        assert_eq!(intake.waiting().len(), 1);
        intake.trained(&batch[1..], PolicyVersion(1), 1);
        assert_eq!(intake.counts(), (1, 1, 0, 0));
        assert_eq!(intake.cursor().remaining.len(), 3, "its task is done again");
    }
}

#[test]
fn leases_are_granted_at_the_oldest_version_that_the_bound_permits() {
    let now = Instant::now();
    let mut random = ChaCha8Rng::seed_from_u64(7);
    for (groups_per_step, max_staleness) in [(1, 1), (2, 1), (2, 2), (3, 4)] {
        let mut intake = intake(40, groups_per_step, max_staleness);
        let (mut version, mut below, mut training) = (0u64, 0, None);
        let mut out = std::collections::VecDeque::new();
        for _ in 0..2000 {
            match random.random_range(0..3) {
                0 => {
                    if let Answer::Lease(lease) = intake.lease(&"a".into(), now) {
                        assert!(lease.min_version <= PolicyVersion(version));
                        below += u32::from(lease.min_version < PolicyVersion(version));
                        out.push_back(lease);
                    }
                }
                1 => {
                    // Sampled with the oldest version that the lease lets it, and handed in in turn.
                    if let Some(lease) = out.pop_front() {
                        let oldest = lease.min_version.0;
                        assert_eq!(intake.submit(group(&lease, "a", oldest), now), Receipt::Accepted);
                    }
                }
                _ => match training.take() {
                    None => training = intake.take_batch(),
                    Some(batch) => {
                        version += 1;
                        intake.trained(&batch, PolicyVersion(version), version);
                    }
                },
            }
            if intake.epoch_is_over() {
                intake.next_epoch();
            }
        }
        let (trained, dropped, ..) = intake.counts();
        assert!(trained > 50 && dropped == 0, "{groups_per_step} {max_staleness}: {trained} trained, {dropped} stale");
        assert!(below > 0, "{groups_per_step} {max_staleness}: an actor that lags behind need not wait");
    }
}

#[test]
fn a_deterministic_run_samples_with_the_newest_version_only() {
    let now = Instant::now();
    let mut intake = with(4, Bounds { max_staleness: 4, deterministic: true, ..Bounds::default() });
    for version in 0..4 {
        let lease = leased(&mut intake, "a", now);
        assert_eq!(lease.min_version, PolicyVersion(version));
        assert_eq!(intake.submit(group(&lease, "a", version), now), Receipt::Accepted);
        let batch = intake.take_batch().unwrap();
        intake.trained(&batch, PolicyVersion(version + 1), version + 1);
    }
}

#[test]
fn pictures_of_the_groups_that_come_next_are_known_beforehand() {
    let now = Instant::now();
    let mut intake = with(4, Bounds { groups_per_step: 2, max_staleness: 2, ..Bounds::default() });
    for picture in ["b", "a", "c"] {
        let lease = leased(&mut intake, "a", now);
        let mut group = group(&lease, "a", 0);
        group.scored.group.rollouts[0].pictures = vec![picture.into()];
        assert_eq!(intake.submit(group, now), Receipt::Accepted);
    }
    assert_eq!(intake.next_pictures().into_iter().collect::<Vec<_>>(), ["a".into(), "b".into()], "of one step's groups");
    intake.take_batch().unwrap();
    assert_eq!(intake.next_pictures().into_iter().collect::<Vec<_>>(), ["c".into()]);
}

/// Tasks whose number is a multiple of three come back with equal rewards.
fn flat(task: &TaskId) -> bool {
    task.as_str()[1..].parse::<u32>().unwrap().is_multiple_of(3)
}

/// Rolls out whatever is leased, backwards where `swap`, until there is a batch, or none to be had in this epoch.
fn next_batch(intake: &mut Intake, swap: bool, version: u64, now: Instant) -> Option<Vec<TaskId>> {
    loop {
        if let Some(batch) = intake.take_batch() {
            intake.trained(&batch, PolicyVersion(version + 1), version + 1);
            return Some(batch.into_iter().map(|group| group.scored.group.task).collect());
        }
        let mut leases = vec![];
        while let Answer::Lease(lease) = intake.lease(&"a".into(), now) {
            leases.push(lease);
        }
        if leases.is_empty() {
            return None;
        }
        if swap {
            leases.reverse();
        }
        for lease in leases {
            let rewards: &[f64] = if flat(&lease.task) { &[1.0, 1.0] } else { &[1.0, 0.0] };
            assert_eq!(intake.submit(rewarded(&lease, "a", version, rewards, false), now), Receipt::Accepted);
        }
    }
}

#[test]
fn groups_that_teach_nothing_are_replaced_up_to_a_bound_whoever_is_fast() {
    let now = Instant::now();
    let story = |most: usize, deterministic: bool, swap: bool| {
        let skips = Some(Skips { most, objective: Options::default() });
        let bounds = Bounds { groups_per_step: 4, max_staleness: 1, deterministic, skips, ..Bounds::default() };
        let mut intake = with(24, bounds);
        let mut batches = vec![];
        while let Some(mut batch) = next_batch(&mut intake, swap, batches.len() as u64, now) {
            if !deterministic {
                batch.sort();
            }
            batches.push(batch);
        }
        assert!(intake.epoch_is_over(), "what is passed over is done for this epoch");
        (batches, intake.counts().1, intake.take_skipped().len() as u64)
    };
    for deterministic in [false, true] {
        let (batches, dropped, skipped) = story(100, deterministic, false);
        assert!(batches.iter().all(|batch| batch.len() == 4) && batches.len() == 4, "{batches:?}");
        assert!(!batches.concat().iter().any(flat), "{batches:?}");
        assert_eq!((dropped, skipped), (8, 8), "a fate for each, and each is shown once");
        let (bounded, dropped, _) = story(1, deterministic, false);
        assert!(dropped > 0 && dropped <= bounded.len() as u64 + 1, "one per step, and one after the last");
        assert_eq!(bounded.concat().len() as u64 + dropped, 24);
        assert!(bounded.concat().iter().any(flat), "beyond the bound what there is is trained");
    }
    for most in [1, 2, 100] {
        assert_eq!(story(most, true, true), story(most, true, false), "at most {most}");
    }
}

#[test]
fn what_was_passed_over_for_a_step_that_was_not_taken_is_done_again() {
    let now = Instant::now();
    let skips = Some(Skips { most: 9, objective: Options::default() });
    let mut intake = with(4, Bounds { groups_per_step: 3, deterministic: true, skips, ..Bounds::default() });
    for _ in 0..3 {
        let lease = leased(&mut intake, "a", now);
        intake.submit(rewarded(&lease, "a", 0, &[1.0, 1.0], false), now);
    }
    assert!(intake.take_batch().is_none());
    assert_eq!((intake.skipped(), intake.cursor().remaining.len()), (3, 4));
}

#[test]
fn what_an_epoch_passed_over_is_not_done_again_in_the_next() {
    let now = Instant::now();
    let skips = Some(Skips { most: 1, objective: Options::default() });
    let bounds = Bounds { groups_per_step: 1, skips, ..Bounds::default() };
    let mut intake = with(1, bounds);
    let lease = leased(&mut intake, "a", now);
    intake.submit(rewarded(&lease, "a", 0, &[1.0, 1.0], false), now);
    assert!(intake.take_batch().is_none() && intake.epoch_is_over());
    intake.next_epoch();
    let cursor = intake.cursor();
    assert_eq!((cursor.remaining.len(), cursor.skipped, intake.skipped()), (1, 1, 1), "once, and the bound goes on");
    let lease = leased(&mut intake, "a", now);
    intake.submit(rewarded(&lease, "a", 0, &[1.0, 1.0], false), now);
    let batch = intake.take_batch().expect("the bound is reached: what there is is trained");
    intake.trained(&batch, PolicyVersion(1), 1);
    assert_eq!((intake.skipped(), intake.cursor().skipped), (0, 0));
}

#[test]
fn one_quicker_group_may_come_first() {
    let now = Instant::now();
    let mut intake = intake(8, 1, 2);
    let step = |intake: &mut Intake, lease: &Grant, actor: &str, version: u64| {
        assert_eq!(intake.submit(group(lease, actor, lease.min_version.0), now), Receipt::Accepted);
        let batch = intake.take_batch().expect("a batch");
        intake.trained(&batch, PolicyVersion(version), version);
    };
    for version in 1..=3 {
        let lease = leased(&mut intake, "a", now);
        step(&mut intake, &lease, "a", version);
    }
    let (slow, quick) = (leased(&mut intake, "a", now), leased(&mut intake, "b", now));
    assert_eq!(slow.min_version, PolicyVersion(2), "one version is granted, one is kept");
    step(&mut intake, &quick, "b", 4);
    assert_eq!(intake.submit(group(&slow, "a", slow.min_version.0), now), Receipt::Accepted);
    assert_eq!(intake.take_batch().map(|batch| batch.len()), Some(1), "it is not stale");
}

#[test]
fn a_group_teaches_by_spread_or_by_its_teacher() {
    let now = Instant::now();
    let lease = leased(&mut intake(1, 1, 1), "a", now);
    let skips = |objective| Skips { most: 1, objective };
    let usual = skips(Options { opd_coef: 0.2, ..Options::default() });
    let nothing = |skips: Skips, rewards: &[f64], taught| skips.teaches_nothing(&rewarded(&lease, "a", 0, rewards, taught));
    assert!(nothing(usual, &[0.5, 0.5], false) && nothing(usual, &[0.5], false));
    assert!(!nothing(usual, &[0.5, 0.6], false) && !nothing(usual, &[0.5, 0.5], true));
    let without_teacher = skips(Options { opd_coef: 0.0, ..Options::default() });
    assert!(nothing(without_teacher, &[0.5, 0.5], true), "its word counts nothing");
    let teacher_alone = skips(Options { opd_only: true, ..usual.objective });
    assert!(nothing(teacher_alone, &[0.5, 0.6], false) && !nothing(teacher_alone, &[0.5, 0.6], true));
}
