//! Turns that were read wrongly once (`tests/cases`), through whole episodes: what a policy says, what it is told, what is kept.

use hypereyes_domain::{Call, Ending, Sampling, Trajectory};
use hypereyes_environment::BoxUnits;
use hypereyes_environment::tools::ImageArguments;
use serde_json::Value;

use crate::scripted::{Scripted, Turn, setup, task};
use crate::{Setup, run_group};

/// The turn of a name.
fn turn(case: &str, name: &str) -> &'static str {
    let turns: Vec<Value> = serde_json::from_str(case).expect("a list of turns");
    let turn = turns.iter().find(|turn| turn["name"] == name).unwrap_or_else(|| panic!("no turn {name}"));
    turn["turn"].as_str().expect("text").to_owned().leak()
}

/// Plays a turn, and an answer if it does not end the episode: what was kept, and what the policy was told.
async fn play(setup: &Setup, turn: &'static str) -> (Trajectory, String) {
    let (task, pictures) = task();
    let policy = Scripted::new(setup, vec![vec![Turn::Says(turn), Turn::Says("<answer>Mexico</answer>")]]);
    let rollouts = run_group(setup, &policy, &task, &pictures, &[0], Sampling::GREEDY).await.expect("starts");
    let trajectory = rollouts.trajectories.into_iter().next().expect("one rollout");
    trajectory.summary.check().expect("what the environment counts agrees");
    let observed: Vec<u32> =
        trajectory.response.iter().zip(&trajectory.mask).filter(|(_, sampled)| !**sampled).map(|(id, _)| *id).collect();
    let told = setup.chat.decode(&observed);
    (trajectory, told)
}

#[tokio::test]
async fn case_tag_named_in_reasoning() {
    const CASE: &str = include_str!("../../../tests/cases/tag-named-in-reasoning/turns.json");
    let setup = setup();
    let (searched, told) = play(&setup, turn(CASE, "example in reasoning")).await;
    let call = searched.summary.rounds[0].call.as_deref();
    assert_eq!(call, Some(&Call::text_search(&["Iceland capital"])));
    assert!(searched.summary.rounds[0].searches == 1 && told.contains("Iceland's capital"), "{told}");
    for name in ["tag mentioned before the answer", "think block", "control"] {
        let (answered, _) = play(&setup, turn(CASE, name)).await;
        let summary = &answered.summary;
        assert_eq!((summary.ending, summary.answer.as_deref(), summary.rounds.len()), (Ending::Answered, Some("Argentina"), 0), "{name}");
    }
}

#[tokio::test]
async fn a_thought_that_is_cut_off_answers_nothing() {
    let setup = setup();
    let (task, pictures) = task();
    for (thought, answer) in [("<think>maybe <answer>Peru</answer> or", None), ("<think>so</think><answer>Peru</answer> as", Some("Peru"))]
    {
        let policy = Scripted::new(&setup, vec![vec![Turn::Cut(thought)]]);
        let rollouts = run_group(&setup, &policy, &task, &pictures, &[0], Sampling::GREEDY).await.expect("starts");
        let summary = &rollouts.trajectories[0].summary;
        assert_eq!((summary.ending, summary.answer.as_deref()), (Ending::TurnTruncated, answer), "{thought}");
    }
}

#[tokio::test]
async fn case_box_in_thousandths() {
    const CASE: &str = include_str!("../../../tests/cases/box-in-thousandths/turns.json");
    let mut setup = setup();
    for name in ["thousandths", "pixels", "inside, thousandths"] {
        let (refused, told) = play(&setup, turn(CASE, name)).await;
        let round = &refused.summary.rounds[0];
        assert_eq!((&round.call, round.searches), (&None, 0), "{name}");
        assert!(told.contains("Error: area[0] is [") && told.contains("edges are ratios of width and height, 0 to 1"), "{name}: {told}");
    }
    let (swapped, told) = play(&setup, turn(CASE, "swapped corners")).await;
    assert_eq!(swapped.summary.searches(), 0);
    assert!(told.contains("all crops failed") && told.contains("[x1,y1,x2,y2] with x1 < x2 and y1 < y2"), "{told}");
    let (misnamed, told) = play(&setup, turn(CASE, "wrong key")).await;
    assert_eq!(misnamed.summary.searches(), 0);
    assert!(told.contains("text_search has no argument \"query\": did you mean input?"), "{told}");

    // Where they are the units of the environment they are understood, and kept as ratios.
    let areas = |trajectory: &Trajectory| {
        let call = trajectory.summary.rounds[0].call.as_deref().expect("a call");
        let arguments = ImageArguments::of(call).unwrap_or_else(|| panic!("{call:?}"));
        arguments.area.into_iter().map(<[f64; 4]>::from).collect::<Vec<_>>()
    };
    setup.config.env.box_units = BoxUnits::Thousandths;
    let (halves, told) = play(&setup, turn(CASE, "thousandths")).await;
    assert_eq!(areas(&halves), [[0.0, 0.0, 0.5, 1.0], [0.5, 0.0, 1.0, 1.0]]);
    assert!(halves.summary.searches() == 2 && told.contains("Mexico") && told.contains("Peru"), "{told}");
    assert!(setup.chat.decode(&halves.prompt).contains("in thousandths of the picture's width and height, 0 to 1000"));
    let (inside, _) = play(&setup, turn(CASE, "inside, thousandths")).await;
    assert_eq!(areas(&inside), [[0.1, 0.1, 0.5, 0.9]]);
    setup.config.env.box_units = BoxUnits::Pixels;
    // The policy sees the picture of 128 x 48 in 128 x 64.
    let (part, _) = play(&setup, turn(CASE, "pixels")).await;
    assert_eq!(areas(&part), [[0.0, 0.0, 0.75, 1.0]]);
}
