//! Log-probs and versions: every turn is of the weights that it counts as, to the last tensor, and one into which a swap falls is counted.

use std::time::Duration;

use futures::future::join_all;
use hypereyes_domain::Ending;
use hypereyes_policy::checkpoint::HostWeights;
use tokio::time::Instant;

use super::relay::Relay;
use super::{GAP, patient, servers};
use crate::fleet::{Play, alone, ending, open, push, version};
use crate::stage::{Forward, Gaps, Stage};

/// Versions of a test, each with other values in every tensor.
const VERSIONS: u64 = 3;
/// Turns at once into which a swap is to fall, and tokens of each.
const AT_ONCE: u64 = 6;
const LONG: usize = 320;
/// Swaps that are to fall into turns.
const SWAPS: u64 = 4;
/// Longest wait for a wave of turns.
const WAVE: Duration = Duration::from_secs(240);

/// The weights of a version. A step of training changes them by less, and would not tell one head from the other.
fn weights(stage: &Stage, version: u64) -> HostWeights {
    stage.policy.scaled(1.0 + version as f32 / 50.0)
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: a real vLLM; bench/peers/vllm/check ENVIRONMENT"]
async fn log_probs_within_a_version_are_those_of_its_weights() {
    let Some(urls) = servers(1) else { return };
    let (_alone, _) = alone().await;
    let stage = Stage::new();
    let engine = open(&stage.policy, &patient(&[&urls[0]], &stage.policy.folder.path().join("policies")));
    engine.ready().await.expect("it takes part");
    let all: Vec<HostWeights> = (0..VERSIONS).map(|version| weights(&stage, version)).collect();
    let forwards: Vec<Forward<'_>> = all.iter().map(|weights| Forward::of(&stage.policy, weights)).collect();
    let check = |what: &str, own: &Gaps, others: &Gaps| {
        println!("{what}: {own}; to the weights of another version {others}");
        assert!(own.mean() < GAP, "{own}");
        assert!(others.mean() > 100.0 * own.mean(), "another version would pass as this one: {others}");
    };

    // Groups that begin and end with a version.
    for version in 0..VERSIONS {
        if version > 0 {
            push(&engine, &all[version as usize], version).await.expect("taken");
        }
        let (group, pictures) = stage.group(&engine, &(0..8).collect::<Vec<_>>()).await;
        let (mut own, mut others) = (Gaps::default(), Gaps::default());
        for one in &group {
            assert!(!matches!(one.summary.ending, Ending::Failed(_)), "{:?}", one.summary);
            assert!(one.versions.iter().all(|own| own.0 == version));
            own.add(forwards[version as usize].of_trajectory(one, &pictures));
            others.add(forwards[((version + 1) % VERSIONS) as usize].of_trajectory(one, &pictures));
        }
        let rounds: u32 = group.iter().map(|one| one.summary.round_count()).sum();
        let shown: usize = group.iter().map(|one| one.pictures.len()).sum();
        assert!(rounds > 0 && shown > group.len(), "tools are called, and show pictures");
        check(&format!("version {version}, {} rollouts with {rounds} tool rounds and {shown} pictures", group.len()), &own, &others);
    }

    // Sequences that outlive a version: what older weights have read of them is not used.
    let play = Play::new(&stage.policy);
    let (mut own, mut others) = (Gaps::default(), Gaps::default());
    for seed in 0..4 {
        let number = |turn: u64| VERSIONS * (seed + 1) + turn;
        let swap = async |turn: u64| push(&engine, &all[turn as usize], number(turn)).await.expect("taken");
        let rollout = play.roll_out_with(&engine, seed, VERSIONS, 40, swap).await;
        assert!(rollout.error.is_none(), "{:?}", rollout.error);
        for (at, turn) in (0..).zip(&rollout.turns) {
            assert!(turn.sampled.versions.iter().all(|version| version.0 == number(at)));
            let pictures = play.seen(at);
            own.add(forwards[at as usize].of_turn(turn, &pictures));
            others.add(forwards[((at + 1) % VERSIONS) as usize].of_turn(turn, &pictures));
        }
    }
    check("turns with other weights than the turn before", &own, &others);
}

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: a real vLLM; bench/peers/vllm/check ENVIRONMENT"]
async fn a_turn_across_a_swap_is_counted_and_is_the_older_versions_until_then() {
    let Some(urls) = servers(1) else { return };
    let (_alone, mut counts) = alone().await;
    let stage = Stage::new();
    let relay = Relay::to(&urls[0]).await;
    // Nothing ends a turn but its limit: there is time for a swap.
    let engine = ending(&stage.policy, &patient(&[relay.url()], &stage.policy.folder.path().join("policies")), vec![]);
    engine.ready().await.expect("it takes part");
    let play = Play::new(&stage.policy);
    let wave = async |number: u64| {
        let seeds = number * AT_ONCE..(number + 1) * AT_ONCE;
        let rolling = join_all(seeds.map(|seed| play.roll_out(&engine, seed, 1, LONG)));
        tokio::time::timeout(WAVE, rolling).await.expect("in time")
    };
    let began = Instant::now();
    wave(0).await;
    let took = began.elapsed();
    let all: Vec<HostWeights> = (0..=SWAPS).map(|version| weights(&stage, version)).collect();
    let forwards: Vec<Forward<'_>> = all.iter().map(|weights| Forward::of(&stage.policy, weights)).collect();
    let (mut across, mut within) = (0, Gaps::default());
    let (mut before, mut after, mut after_newer) = (Gaps::default(), Gaps::default(), Gaps::default());
    for newer in 1..=SWAPS {
        let swapping = async {
            tokio::time::sleep(took.mul_f64(newer as f64 / (SWAPS + 1) as f64)).await;
            push(&engine, &all[newer as usize], newer).await.expect("taken");
        };
        let (rollouts, ()) = tokio::join!(wave(newer), swapping);
        for rollout in rollouts {
            assert!(rollout.error.is_none(), "{:?}", rollout.error);
            let turn = &rollout.turns[0];
            let counts_as = turn.sampled.versions[0].0;
            assert!(turn.sampled.versions.iter().all(|version| version.0 == counts_as));
            let spans = relay.weights(turn).expect("it went this way");
            let of: Vec<u64> = spans.iter().map(|(label, ..)| version(label).expect("one of ours")).collect();
            assert_eq!(of[0], counts_as, "the older one");
            let gaps = forwards[counts_as as usize].of_turn(turn, &play.seen(0));
            if spans.len() == 1 {
                within.add(gaps);
                continue;
            }
            assert_eq!(of, [newer - 1, newer]);
            across += 1;
            let (older, newer_tokens) = gaps.part(|at| at < spans[0].2);
            before.add(older);
            after.add(newer_tokens);
            after_newer.add(forwards[newer as usize].of_turn(turn, &play.seen(0)).part(|at| at >= spans[0].2).0);
        }
    }
    println!("{across} turns across a swap and {} within a version: {within}", SWAPS * AT_ONCE - across);
    println!("of those across, to the older version: before the swap {before}; after it {after}");
    println!("and after it to a pass of the newer version, which would have read all of it anew: {after_newer}");
    assert!(across > 0, "no swap fell into a turn");
    assert_eq!((counts.of("turns", "across"), counts.of("turns", "within")), (across, (SWAPS + 1) * AT_ONCE - across));
    assert!(before.mean() < GAP && within.mean() < GAP, "{before}; {within}");
    assert!(after.mean() > 100.0 * before.mean(), "it made no difference: {after}");
}
