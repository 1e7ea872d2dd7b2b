//! Weights into servers: in which order, what a turn beside it counts as, and what happens when a server does not take them.

use std::time::Duration;

use hypereyes_domain::{Chunk, Failure, Generate, PolicyVersion, Sampling, Sequence, SetWeights};
use hypereyes_policy::checkpoint::{self, HostWeights, Snapshot, StoredDtype};

use crate::fake::{Bed, Kind, PATIENCE};

fn moved(weights: &HostWeights, by: f32) -> HostWeights {
    let mut moved = weights.clone();
    moved.values_mut().for_each(|tensor| tensor.values.iter_mut().for_each(|value| *value += by));
    moved
}

fn snapshot(bed: &Bed, version: u64) -> Snapshot {
    Snapshot::new(&moved(&bed.weights, version as f32), PolicyVersion(version))
}

fn prompt() -> Chunk {
    Chunk { tokens: vec![1, 2], pictures: vec![] }
}

#[tokio::test(flavor = "multi_thread")]
async fn servers_read_the_policy_in_place_between_two_steps() {
    for kind in Kind::BOTH {
        let bed = Bed::of(kind, 2).await;
        let engine = bed.ready().await;
        engine.set_weights(snapshot(&bed, 3), PolicyVersion(3)).await.expect("taken");
        let order: &[&str] = match kind {
            // Labelled as unfinished before anything is read: a load that breaks off is never taken for whole.
            Kind::Vllm => {
                &["/pause", "/update_weight_version", "/collective_rpc", "/reset_encoder_cache", "/update_weight_version", "/resume"]
            }
            Kind::Sglang => &["/pause_generation", "/update_weights_from_disk", "/continue_generation"],
        };
        for fake in &bed.fakes {
            let state = fake.state();
            assert_eq!(state.calls, order);
            assert!(!state.paused && state.label.starts_with("v3-"), "{}", state.label);
            let (_, read) = checkpoint::read(std::path::Path::new(&state.folder)).expect("a whole policy");
            assert!(read == moved(&bed.weights, 3.0), "what a server reads is what was published");
        }
        // The one in force: no server can have to go back to the one before.
        let generations = std::fs::read_dir(bed.config.policy_folder.join("generations")).expect("there").count();
        assert_eq!(generations, 1);
        let mut sequence = engine.start(prompt(), vec![1], Sampling::GREEDY).await.expect("starts").remove(0);
        assert_eq!(sequence.advance(Chunk::default(), 2).await.expect("a turn").versions, [PolicyVersion(3); 2]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn what_servers_were_given_last_is_there_for_the_next_process() {
    let bed = Bed::of(Kind::Vllm, 1).await;
    let kept = || hypereyes_engines::kept(&bed.config, &bed.start());
    assert_eq!(kept(), None, "nobody was here");
    let engine = bed.ready().await;
    assert_eq!(kept(), Some(Snapshot::new(&bed.weights, PolicyVersion(0))));
    for dtype in [StoredDtype::Bf16, StoredDtype::F32] {
        let newest = Snapshot::stored(&moved(&bed.weights, 3.0), PolicyVersion(3), dtype);
        engine.set_weights(newest.clone(), PolicyVersion(3)).await.expect("taken");
        assert_eq!(kept(), Some(newest), "in the type in which it was published");
    }
    // Another value than the one that was written.
    let current = bed.config.policy_folder.join("current");
    let weights = std::fs::read_dir(&current).expect("a generation").flatten().map(|entry| entry.path());
    let weights = weights.into_iter().find(|path| path.extension().is_some_and(|end| end == "safetensors")).expect("weights");
    let mut bytes = std::fs::read(&weights).expect("a file");
    *bytes.last_mut().expect("not empty") ^= 1;
    std::fs::write(&weights, bytes).expect("written");
    assert_eq!(kept(), None);
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_across_a_swap_counts_as_the_older_version() {
    for kind in Kind::BOTH {
        let bed = Bed::of(kind, 1).await;
        let engine = bed.ready().await;
        let fake = &bed.fakes[0];
        let before = fake.state().label.clone();
        let mut sequence = engine.start(prompt(), vec![1], Sampling::GREEDY).await.expect("starts").remove(0);
        fake.close_gate();
        let turn = tokio::spawn(async move { (sequence.advance(Chunk::default(), 9).await, sequence) });
        fake.until("the turn is asked", |state| state.under_way == 1).await;
        engine.set_weights(snapshot(&bed, 1), PolicyVersion(1)).await.expect("a turn under way is waited for by nobody");
        fake.state().straddle = Some((before, 2));
        fake.open_gate();
        let (across, mut sequence) = turn.await.expect("no panic");
        assert_eq!(across.expect("a turn").versions, [PolicyVersion(0); 4]);
        fake.state().straddle = None;
        assert_eq!(sequence.advance(Chunk::default(), 9).await.expect("a turn").versions, [PolicyVersion(1); 4]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_turn_has_the_time_for_which_its_server_stands_still_on_top() {
    for (kind, path) in [(Kind::Vllm, "/collective_rpc"), (Kind::Sglang, "/update_weights_from_disk")] {
        let mut bed = Bed::of(kind, 1).await;
        (bed.config.request_timeout_s, bed.config.max_sequences) = (4, 1);
        let engine = bed.ready().await;
        let fake = &bed.fakes[0];
        // As long as a turn may take with all of its repeats, and longer.
        fake.state().slow.insert(path.to_owned(), Duration::from_secs(9));
        let mut group = engine.start(prompt(), vec![1, 2], Sampling::GREEDY).await.expect("starts");
        let (mut first, mut second) = (group.remove(0), group.remove(0));
        fake.close_gate();
        let asked = tokio::spawn(async move { first.advance(Chunk::default(), 2).await });
        fake.until("the turn is asked", |state| state.under_way == 1).await;
        let waits = tokio::spawn(async move { second.advance(Chunk::default(), 2).await });
        engine.set_weights(snapshot(&bed, 1), PolicyVersion(1)).await.expect("taken");
        fake.open_gate();
        asked.await.expect("no panic").expect("the first is answered where it was asked");
        waits.await.expect("no panic").expect("and the other had its place in time");
        assert_eq!(fake.state().asked.len(), 2, "nobody asked again");
        // A server that does nothing at all is late as ever.
        fake.close_gate();
        let began = std::time::Instant::now();
        let mut third = engine.start(prompt(), vec![3], Sampling::GREEDY).await.expect("starts").remove(0);
        let error = third.advance(Chunk::default(), 2).await.expect_err("nobody answers");
        assert!(error.failure == Failure::Timeout && began.elapsed() < Duration::from_secs(20), "{error}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn weights_that_are_not_taken_leave_the_ones_before_in_place() {
    for (kind, path) in [(Kind::Vllm, "/collective_rpc"), (Kind::Sglang, "/update_weights_from_disk")] {
        let bed = Bed::of(kind, 1).await;
        let engine = bed.ready().await;
        let fake = &bed.fakes[0];
        let holds = || {
            let state = fake.state();
            (state.label.clone(), state.folder.clone(), state.paused)
        };
        let before = holds();
        fake.fail(path, 1, 500);
        let error = engine.set_weights(snapshot(&bed, 1), PolicyVersion(1)).await.expect_err("refused");
        assert!(error.message.contains("v1-") && error.message.contains("is spoilt") && error.message.contains("was put back"), "{error}");
        assert_eq!(holds(), before, "and it goes on");
        let in_force = std::fs::canonicalize(bed.config.policy_folder.join("current")).expect("there is one");
        assert_eq!(in_force, std::fs::canonicalize(&before.1).expect("there"), "who begins anew begins with what the server holds");
        let mut sequence = engine.start(prompt(), vec![1], Sampling::GREEDY).await.expect("starts").remove(0);
        assert_eq!(sequence.advance(Chunk::default(), 2).await.expect("a turn").versions, [PolicyVersion(0); 2]);
        // The same weights are tried again by whoever follows the learner.
        engine.set_weights(snapshot(&bed, 1), PolicyVersion(1)).await.expect("taken");
        assert_eq!(sequence.advance(Chunk::default(), 2).await.expect("a turn").versions, [PolicyVersion(1); 2]);
        // One that can neither go on nor back is out until it has taken the newest.
        fake.fail(path, 2, 500);
        let error = engine.set_weights(snapshot(&bed, 2), PolicyVersion(2)).await.expect_err("refused");
        assert!(error.message.contains("could not be put back"), "{error}");
        assert_eq!(sequence.advance(Chunk::default(), 2).await.expect("it came back").versions, [PolicyVersion(1); 2]);
        assert!(!fake.state().paused);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_only_says_that_it_took_weights_is_found_out() {
    let bed = Bed::of(Kind::Vllm, 2).await;
    let engine = bed.ready().await;
    // Its label stays what it was.
    bed.fakes[0].fail("/update_weight_version", 9, 200);
    engine.set_weights(snapshot(&bed, 1), PolicyVersion(1)).await.expect("the other took them");
    let mut group = engine.start(prompt(), vec![1, 2, 3], Sampling::GREEDY).await.expect("starts");
    for sequence in &mut group {
        assert_eq!(sequence.advance(Chunk::default(), 2).await.expect("a turn").versions, [PolicyVersion(1); 2]);
    }
    bed.fakes[0].fail("/update_weight_version", 0, 200);
    bed.fakes[0].until("it has them too", |state| state.label.starts_with("v1-")).await;
}

#[tokio::test(flavor = "multi_thread")]
async fn a_server_that_takes_long_keeps_the_others_from_no_version() {
    for (kind, path) in [(Kind::Vllm, "/collective_rpc"), (Kind::Sglang, "/update_weights_from_disk")] {
        let mut bed = Bed::of(kind, 2).await;
        // Longer than this test: nobody waits for that.
        bed.config.reload_timeout_s = 600;
        let engine = bed.ready().await;
        bed.fakes[0].hold(path);
        for version in [1, 2] {
            let set = engine.set_weights(snapshot(&bed, version), PolicyVersion(version));
            tokio::time::timeout(PATIENCE, set).await.expect("the other is enough").expect("taken");
            let mut group = engine.start(prompt(), vec![1, 2, 3], Sampling::GREEDY).await.expect("starts");
            for sequence in &mut group {
                assert_eq!(sequence.advance(Chunk::default(), 2).await.expect("a turn").versions, [PolicyVersion(version); 2]);
            }
        }
        bed.fakes[0].until("it is at the first of them still", |state| state.asked.is_empty() && state.paused).await;
        bed.fakes[0].release(path);
        bed.fakes[0].until("it has the newest too", |state| state.label.starts_with("v2-") && !state.paused).await;
    }
}
