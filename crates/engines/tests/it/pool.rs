//! Several servers: who is asked, who is taken out, and who comes back.

use std::time::Duration;

use hypereyes_domain::{Chunk, Generate, PolicyVersion, Sampling, Sequence, SetWeights};
use hypereyes_policy::checkpoint::Snapshot;

use crate::fake::{Bed, Kind};

fn prompt() -> Chunk {
    Chunk { tokens: vec![1, 2], pictures: vec![] }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_group_keeps_to_one_server_and_groups_are_shared_out() {
    let bed = Bed::of(Kind::Vllm, 2).await;
    let engine = bed.ready().await;
    let mut groups = Vec::new();
    for seed in 0..2u64 {
        groups.push(engine.start(prompt(), vec![seed, seed + 10], Sampling::GREEDY).await.expect("starts"));
    }
    for _ in 0..2 {
        for sequence in groups.iter_mut().flatten() {
            sequence.advance(Chunk::default(), 3).await.expect("a turn");
        }
    }
    let seeds = |number: usize| {
        let asked = bed.fakes[number].state().asked.clone();
        let lengths: Vec<usize> = asked.iter().map(|body| body["token_ids"].as_array().map_or(0, Vec::len)).collect();
        lengths
    };
    assert_eq!((seeds(0), seeds(1)), (vec![2, 2, 5, 5], vec![2, 2, 5, 5]));
}

#[tokio::test(flavor = "multi_thread")]
async fn no_server_is_asked_for_more_at_once_than_it_takes() {
    for (own, most) in [(None, 3), (Some(2), 2), (Some(50), 3)] {
        let mut bed = Bed::of(Kind::Sglang, 1).await;
        bed.config.max_sequences = 3;
        bed.fakes[0].state().limit = own;
        let engine = bed.ready().await;
        let fake = &bed.fakes[0];
        fake.close_gate();
        let group = engine.start(prompt(), (0..8).collect(), Sampling::GREEDY).await.expect("starts");
        let turns: Vec<_> =
            group.into_iter().map(|mut sequence| tokio::spawn(async move { sequence.advance(Chunk::default(), 3).await })).collect();
        fake.until("it is full", |state| state.under_way == most).await;
        tokio::time::sleep(Duration::from_millis(50)).await;
        fake.open_gate();
        for turn in turns {
            turn.await.expect("no panic").expect("a turn");
        }
        let state = fake.state();
        assert_eq!((state.most, state.asked.len()), (most, 8));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_goes_to_another_server_when_its_own_fails() {
    for (kind, path) in [(Kind::Vllm, "/inference/v1/generate"), (Kind::Sglang, "/generate")] {
        let bed = Bed::of(kind, 2).await;
        let engine = bed.ready().await;
        bed.fakes[0].fail(path, 100, 500);
        let mut group = engine.start(prompt(), vec![1, 2, 3, 4], Sampling::GREEDY).await.expect("starts");
        for sequence in &mut group {
            sequence.advance(Chunk::default(), 3).await.expect("the other answers");
            sequence.advance(Chunk::default(), 3).await.expect("and is kept to");
        }
        assert_eq!(bed.fakes[1].state().asked.len(), 8);
        assert!(bed.fakes[0].state().failing[path].0 >= 96, "nobody goes back to it");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_was_restarted_gets_the_newest_weights_before_it_is_asked() {
    for kind in Kind::BOTH {
        let bed = Bed::of(kind, 1).await;
        let engine = bed.ready().await;
        let fake = &bed.fakes[0];
        let snapshot = Snapshot::new(&bed.weights, PolicyVersion(4));
        engine.set_weights(snapshot, PolicyVersion(4)).await.expect("taken");
        let mut sequence = engine.start(prompt(), vec![1], Sampling::GREEDY).await.expect("starts").remove(0);
        fake.restart();
        // The first answer is of its own weights, and is not believed; the second is of those that it was given again.
        let turn = sequence.advance(Chunk::default(), 3).await.expect("in the end");
        assert_eq!(turn.versions, [PolicyVersion(4); 3]);
        assert!(fake.state().label.starts_with("v4-"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_is_not_well_is_left_alone_until_it_is() {
    let bed = Bed::of(Kind::Vllm, 2).await;
    let engine = bed.ready().await;
    bed.fakes[0].fail("/health", 1_000_000, 503);
    // Three looks, a second apart.
    tokio::time::sleep(Duration::from_secs(6)).await;
    let mut group = engine.start(prompt(), vec![1, 2], Sampling::GREEDY).await.expect("starts");
    for sequence in &mut group {
        sequence.advance(Chunk::default(), 3).await.expect("a turn");
    }
    assert_eq!(bed.fakes[0].state().asked.len(), 0);
    engine.set_weights(Snapshot::new(&bed.weights, PolicyVersion(2)), PolicyVersion(2)).await.expect("the other takes them");
    assert!(bed.fakes[0].state().label.starts_with("v0-"), "it is not even paused");
    bed.fakes[0].fail("/health", 0, 503);
    bed.fakes[0].until("it is given them", |state| state.label.starts_with("v2-")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_comes_back_has_no_more_places_than_before() {
    let mut bed = Bed::of(Kind::Sglang, 1).await;
    bed.config.max_sequences = 3;
    let engine = bed.ready().await;
    let fake = &bed.fakes[0];
    fake.close_gate();
    let group = engine.start(prompt(), (0..8).collect(), Sampling::GREEDY).await.expect("starts");
    let mut group = group.into_iter();
    let turn = |mut sequence: hypereyes_engines::EngineSequence| tokio::spawn(async move { sequence.advance(Chunk::default(), 3).await });
    let mut turns: Vec<_> = group.by_ref().take(2).map(turn).collect();
    fake.until("two are under way", |state| state.under_way == 2).await;
    // The others fail at it, until it is taken out.
    fake.fail("/generate", 3, 500);
    turns.extend(group.map(turn));
    fake.until("it is back, and full", |state| state.failing["/generate"].0 == 0 && state.under_way == 3).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    fake.open_gate();
    for turn in turns {
        turn.await.expect("no panic").expect("a turn");
    }
    assert_eq!(fake.state().most, 3);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_comes_back_with_a_policy_that_is_sure_of_itself() {
    let bed = Bed::of(Kind::Sglang, 1).await;
    let engine = bed.ready().await;
    let mut sequence = engine.start(prompt(), vec![1], Sampling::GREEDY).await.expect("starts").remove(0);
    // What a temperature changes does not show any more, and looks after one prompt as if it never had.
    bed.fakes[0].state().convention = "sure";
    bed.fakes[0].restart();
    sequence.advance(Chunk::default(), 3).await.expect("it is let in again");
}
