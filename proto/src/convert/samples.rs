//! Values for the tests of this crate: one group of three rollouts in all its stages.

use hypereyes_domain::{
    Accuracy, Area, BonusBranch, Call, DistilledGroup, Ending, PictureId, PolicyVersion, Reference, RolloutGroup, RolloutSummary, Round,
    Route, Score, ScoredGroup, Shown, TaskKind, TeacherLogprobs, TeacherVersion, Trajectory,
};

pub(crate) fn task() -> hypereyes_domain::Task {
    hypereyes_domain::Task {
        id: "select-7".into(),
        kind: TaskKind::VISUAL_SELECT,
        question: "Which of these countries has the largest population?\n¿Cuál?".into(),
        answers: vec!["Mexico".into(), "México".into()],
        pictures: vec![picture('a')],
        layer: Some(3),
        metadata: Default::default(),
        shown: vec![Shown { entity: "mx".into(), area: Area::from([0.0, 0.25, 0.5, 1.0]) }],
        reference: Some(Reference { rounds: 2, searches: 5 }),
    }
}

pub(crate) fn picture(digit: char) -> PictureId {
    PictureId::new(digit.to_string().repeat(64))
}

pub(crate) fn trajectory() -> Trajectory {
    Trajectory {
        prompt: vec![1, 151_655, 7],
        response: vec![10, 11, 12, 90, 91, 13, 14, 15, 2],
        mask: vec![true, true, true, false, false, true, true, true, true],
        logprobs: vec![-0.5, -1.25, -0.0, 0.0, 0.0, -2.0, -1e-30, -30.5, -0.125],
        versions: [4, 4, 4, 4, 4, 5, 5, 5, 6].map(PolicyVersion).to_vec(),
        pictures: vec![picture('a'), picture('b')],
        summary: RolloutSummary {
            rounds: vec![
                Round { call: Some(Box::new(Call::image_search("img_0", &[Area::WHOLE]))), ..Round::counted(1, 0) },
                Round::counted(0, 0),
            ],
            ending: Ending::Answered,
            answer: Some("Mexico".into()),
        },
        spoken: None,
    }
}

pub(crate) fn group() -> RolloutGroup {
    RolloutGroup { id: "select-7@12".into(), task: "select-7".into(), actor: "actor-1-9f".into(), rollouts: vec![trajectory(); 3] }
}

pub(crate) fn score(accuracy: Accuracy, route: Route) -> Score {
    Score { accuracy, bonus: 0.1, branch: BonusBranch::Good, reward: 1.1, route }
}

pub(crate) fn scored() -> ScoredGroup {
    let scores = vec![
        score(Accuracy::Correct, Route::Reinforce),
        score(Accuracy::Wrong, Route::Distill),
        score(Accuracy::Invalid(hypereyes_domain::Failure::Judge), Route::Skip),
    ];
    ScoredGroup { group: group(), scores, reference: Some(Reference { rounds: 1, searches: 1 }), reference_epoch: 2 }
}

pub(crate) fn taught() -> DistilledGroup {
    let logprobs = trajectory().logprobs;
    DistilledGroup {
        scored: scored(),
        teacher: vec![None, Some(TeacherLogprobs { teacher: TeacherVersion::new("teacher-8b", 3), logprobs, top: vec![] }), None],
    }
}
