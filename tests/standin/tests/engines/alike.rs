//! Engines outside and the engine of this process are one engine: the same seeds give the same tokens over tool rounds with pictures, and
//! log-probs are those of a forward pass of our own.

use hypereyes_standin::{Dialect, Options, Standin};

use crate::fleet::{Play, alone, config, local, open, push};
use crate::stage::{Forward, Gaps, Stage};
use crate::support::Policy;

/// The largest gap between what a server says of a sampled token and what we say of it.
const GAP: f32 = 1e-5;

#[tokio::test(flavor = "multi_thread")]
async fn the_same_seeds_give_the_same_tokens_as_in_process() {
    let (_alone, _) = alone().await;
    let policy = Policy::new();
    let play = Play::new(&policy);
    let here = local(&policy);
    let weights = policy.scaled(1.1);
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let standin = Standin::start(Options::new(policy.start(), dialect)).await.expect("starts");
        let there = open(&policy, &config(dialect, &[standin.url()], &policy.folder.path().join(format!("policies-{dialect:?}"))));
        there.ready().await.expect("it takes part");
        for seed in [0, 1, 2, 3, u64::MAX / 2, u64::MAX] {
            let (one, other) = (play.roll_out(&here, seed, 4, 8).await, play.roll_out(&there, seed, 4, 8).await);
            assert!(one.error.is_none() && one.turns.len() == 4, "{:?}", one.error);
            assert!(other.error.is_none(), "{:?}", other.error);
            assert_eq!(one.turns, other.turns, "{dialect:?}, seed {seed}");
        }
        // And with other weights.
        let here = local(&policy);
        push(&here, &weights, 1).await.expect("taken");
        push(&there, &weights, 1).await.expect("taken");
        assert_eq!(play.roll_out(&here, 9, 4, 8).await.turns, play.roll_out(&there, 9, 4, 8).await.turns, "{dialect:?}");
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn whole_groups_with_tools_and_pictures_are_the_same_and_their_log_probs_are_ours() {
    let (_alone, _) = alone().await;
    let stage = Stage::new();
    let seeds: Vec<u64> = (0..6).collect();
    let (here, pictures) = stage.group(&local(&stage.policy), &seeds).await;
    assert!(here.iter().any(|one| one.pictures.len() > 1 && one.summary.round_count() > 0), "some call a tool that shows a picture");
    for dialect in [Dialect::Vllm, Dialect::Sglang] {
        let standin = Standin::start(Options::new(stage.policy.start(), dialect)).await.expect("starts");
        let folder = stage.policy.folder.path().join(format!("policies-{dialect:?}"));
        let there = open(&stage.policy, &config(dialect, &[standin.url()], &folder));
        there.ready().await.expect("it takes part");
        // A learning rate of 0: versions come and go, and nothing changes but their number.
        for version in 0..3 {
            if version > 0 {
                push(&there, &stage.policy.weights, version).await.expect("taken");
            }
            let (group, _) = stage.group(&there, &seeds).await;
            for (one, other) in here.iter().zip(&group) {
                assert_eq!((&one.response, &one.mask, &one.pictures), (&other.response, &other.mask, &other.pictures), "{dialect:?}");
                let sampled = (0..other.mask.len()).filter(|at| other.mask[*at]);
                assert!(sampled.into_iter().all(|at| other.versions[at].0 == version));
            }
            let forward = Forward::of(&stage.policy, &stage.policy.weights);
            let mut gaps = Gaps::default();
            group.iter().for_each(|one| gaps.add(forward.of_trajectory(one, &pictures)));
            println!("{dialect:?}, version {version}: {gaps}");
            assert!(gaps.most() < GAP, "{dialect:?}: {gaps}");
        }
    }
}
