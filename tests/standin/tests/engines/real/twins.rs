//! Two servers behind one engine are one: both are given every version, and the same seeds give the same tokens at either.

use std::time::Duration;

use futures::future::join_all;

use super::relay::Relay;
use super::{GAP, patient, servers};
use crate::fleet::{Play, Rollout, alone, open, push, version};
use crate::stage::{Forward, Gaps, Stage};

/// Rollouts at each server, turns of each and tokens of a turn.
const ROLLOUTS: u64 = 5;
const TURNS: u64 = 3;
const TOKENS: usize = 40;
/// Longest wait for a wave of turns.
const WAVE: Duration = Duration::from_secs(240);

#[tokio::test(flavor = "multi_thread")]
#[ignore = "slow: two real vLLM; bench/peers/vllm/check ENVIRONMENT"]
async fn two_servers_hold_the_same_weights_and_give_the_same_tokens() {
    let Some(urls) = servers(2) else { return };
    let (_alone, mut counts) = alone().await;
    let stage = Stage::new();
    let relays = [Relay::to(&urls[0]).await, Relay::to(&urls[1]).await];
    let engine = open(&stage.policy, &patient(&[relays[0].url(), relays[1].url()], &stage.policy.folder.path().join("policies")));
    engine.ready().await.expect("they take part");
    let play = Play::new(&stage.policy);
    for number in 0..3 {
        let weights = stage.policy.scaled(1.0 + number as f32 / 50.0);
        if number > 0 {
            push(&engine, &weights, number).await.expect("taken");
            // Who samples waits for one server, not for the slowest: until that has them too, all turns would be the other's.
            let both = async {
                while counts.of("server_swaps", "ok") < 2 * number {
                    tokio::time::sleep(Duration::from_millis(20)).await;
                }
            };
            tokio::time::timeout(WAVE, both).await.expect("both take them");
        }
        // Each keeps to the server with the fewest sequences when it starts, so that most twos of a seed are at different ones.
        let seeds = (0..ROLLOUTS).flat_map(|seed| [seed, seed]);
        let rolling = join_all(seeds.map(|seed| play.roll_out(&engine, seed, TURNS, TOKENS)));
        let rollouts: Vec<Rollout> = tokio::time::timeout(WAVE, rolling).await.expect("in time");
        let forward = Forward::of(&stage.policy, &weights);
        let (mut own, mut between) = (Gaps::default(), Gaps::default());
        let (mut answered, mut by_both) = ([0; 2], 0);
        for pair in rollouts.chunks(2) {
            for rollout in pair {
                assert!(rollout.error.is_none() && rollout.turns.len() as u64 == TURNS, "{:?}", rollout.error);
            }
            for (at, (one, other)) in (0..).zip(pair[0].turns.iter().zip(&pair[1].turns)) {
                assert_eq!(one.sampled.tokens, other.sampled.tokens, "version {number}");
                between.add(Gaps::between(&one.sampled.logprobs, &other.sampled.logprobs));
                own.add(forward.of_turn(one, &play.seen(at)));
                own.add(forward.of_turn(other, &play.seen(at)));
                // Whoever has said it did so with these weights; both have, where the two of a seed were at different servers.
                let mut said = 0;
                for (relay, answered) in relays.iter().zip(&mut answered) {
                    let Some(spans) = relay.weights(one) else { continue };
                    assert!(spans.iter().all(|(label, ..)| version(label) == Some(number)), "{spans:?}");
                    *answered += 1;
                    said += 1;
                }
                assert!(said > 0, "nobody has said it");
                by_both += usize::from(said == relays.len());
            }
        }
        println!("version {number}, {answered:?} turns at the two, {by_both} at both: to our pass {own}; to each other {between}");
        assert!(own.mean() < GAP, "{own}");
        assert!(by_both > 0, "no two of a seed were at different servers");
    }
    assert_eq!(counts.of("server_swaps", "ok"), 2 * 2, "each server took both");
}
