//! Scores of a group: judge, TRACE, route (spec 2.2, 2.3, 3). In: a task, its rollouts, the reference they are measured
//! against. Out: one score per rollout, in order.
//!
//! Rounds and searches come from what was executed, never from parsing text (resolutions D1, D3). Where the reference
//! lives, and when it moves, is not known here.

use std::iter;

use hypereyes_domain::{Accuracy, Course, Ending, Failure, Reference, Route, Score, Task};
use smallvec::SmallVec;

use crate::judge::{Judge, Verdict};
use crate::trace::{TraceConfig, bonuses};

/// One entry per rollout: groups of eight and smaller need no memory of their own.
pub type Few<T> = SmallVec<[T; 8]>;

/// Scores the rollouts of a group with a rule judge.
pub fn score_group(config: &TraceConfig, judge: &dyn Judge, task: &Task, rollouts: &[Course], reference: Option<Reference>) -> Vec<Score> {
    let mut costs = Few::new();
    let (predictions, which) = distinct(rollouts.iter().map(|course| {
        costs.push((Accuracy::Unparsed, course.round_count(), course.searches()));
        answer_to_judge(course)
    }));
    let verdicts = judge.judge_all(&task.question, &predictions, &task.answers);
    for (cost, which) in costs.iter_mut().zip(which) {
        cost.0 = which.map_or_else(|known| known, |at| verdicts[at].into());
    }
    score_costs(config, &costs, reference)
}

/// The answers of a group that need a judge, each once; and for every rollout either its place among them or the accuracy
/// that needs none.
pub fn distinct_answers(rollouts: &[Course]) -> (Few<&str>, Few<Result<usize, Accuracy>>) {
    distinct(rollouts.iter().map(answer_to_judge))
}

fn distinct<'a>(answers: impl Iterator<Item = Result<&'a str, Accuracy>>) -> (Few<&'a str>, Few<Result<usize, Accuracy>>) {
    let mut distinct = Few::new();
    let mut place = |answer: &'a str| {
        distinct.iter().position(|known| *known == answer).unwrap_or_else(|| {
            distinct.push(answer);
            distinct.len() - 1
        })
    };
    let which = answers.map(|answer| answer.map(&mut place)).collect();
    (distinct, which)
}

/// The accuracy of one rollout by a rule judge.
pub fn accuracy_of(judge: &dyn Judge, task: &Task, course: &Course) -> Accuracy {
    match answer_to_judge(course) {
        Err(accuracy) => accuracy,
        Ok(answer) => judge.judge(&task.question, answer, &task.answers).into(),
    }
}

/// The answer of a rollout that needs a judge, or the accuracy of one that does not: `Unparsed` without an answer,
/// `Invalid` when the rollout says nothing about the policy, because it failed for an outside reason or every one of its
/// searches did.
fn answer_to_judge(course: &Course) -> Result<&str, Accuracy> {
    if let Ending::Failed(failure) = course.ending {
        return Err(Accuracy::Invalid(failure));
    }
    if course.searches_all_failed() {
        return Err(Accuracy::Invalid(Failure::Tool));
    }
    course.answer.as_deref().map(str::trim).filter(|answer| !answer.is_empty()).ok_or(Accuracy::Unparsed)
}

impl From<Verdict> for Accuracy {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Correct => Self::Correct,
            Verdict::Wrong => Self::Wrong,
        }
    }
}

/// Scores the rollouts of a group whose accuracies are known. `accuracies` must have one entry per rollout; missing ones count as
/// `Invalid(Judge)`, so that a judge that gave up can never turn into a wrong answer.
pub fn score_accuracies(config: &TraceConfig, accuracies: &[Accuracy], rollouts: &[Course], reference: Option<Reference>) -> Vec<Score> {
    let given = accuracies.iter().copied().chain(iter::repeat(Accuracy::Invalid(Failure::Judge)));
    let costs = rollouts.iter().zip(given).map(|(course, accuracy)| (accuracy, course.round_count(), course.searches()));
    score_costs(config, &costs.collect::<Few<_>>(), reference)
}

fn score_costs(config: &TraceConfig, costs: &[(Accuracy, u32, u32)], reference: Option<Reference>) -> Vec<Score> {
    let given = bonuses(config, reference, costs);
    costs.iter().zip(given).map(|((accuracy, _, _), (bonus, branch))| score(*accuracy, bonus, branch)).collect()
}

fn score(accuracy: Accuracy, bonus: f64, branch: hypereyes_domain::BonusBranch) -> Score {
    let (reward, route) = match accuracy {
        Accuracy::Correct => (1.0 + bonus, Route::Reinforce),
        Accuracy::Wrong => (bonus, Route::Distill),
        Accuracy::Unparsed => (-0.5, Route::Distill),
        Accuracy::Invalid(_) => (0.0, Route::Skip),
    };
    Score { accuracy, bonus, branch, reward, route }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::judge::AliasJudge;
    use hypereyes_domain::{BonusBranch, Round, TaskKind};

    pub(crate) fn task() -> Task {
        Task {
            id: "t".into(),
            kind: TaskKind::VisualSelect,
            question: "Which city?".into(),
            answers: vec!["Paris".into()],
            pictures: vec![],
            layer: 0,
            shown: vec![],
            reference: None,
        }
    }

    /// A rollout with one entry of `searches` per round.
    pub(crate) fn rollout(answer: Option<&str>, searches: &[u32]) -> Course {
        Course {
            rounds: searches.iter().map(|&searches| Round { call: None, searches, failed_searches: 0 }).collect(),
            ending: if answer.is_some() { Ending::Answered } else { Ending::NoAction },
            answer: answer.map(str::to_owned),
        }
    }

    #[test]
    fn every_kind_of_rollout_gets_its_reward_and_route() {
        let mut broken = rollout(Some("Paris"), &[1]);
        broken.ending = Ending::Failed(Failure::Timeout);
        let mut blind = rollout(Some("Rome"), &[2]);
        blind.rounds[0].failed_searches = 2;
        let rollouts = vec![
            rollout(Some("paris."), &[2, 1]),
            rollout(Some("Rome"), &[1, 1]),
            rollout(None, &[1]),
            rollout(Some(" "), &[]),
            broken,
            blind,
        ];
        let reference = Some(Reference { rounds: 2, searches: 4 });
        let scores = score_group(&TraceConfig::default(), &AliasJudge, &task(), &rollouts, reference);
        let got: Vec<_> = scores.iter().map(|score| (score.accuracy, score.reward, score.route, score.branch)).collect();
        assert_eq!(
            got,
            [
                (Accuracy::Correct, 1.2, Route::Reinforce, BonusBranch::Good),
                (Accuracy::Wrong, 0.0, Route::Distill, BonusBranch::WrongInside),
                (Accuracy::Unparsed, -0.5, Route::Distill, BonusBranch::None),
                (Accuracy::Unparsed, -0.5, Route::Distill, BonusBranch::None),
                (Accuracy::Invalid(Failure::Timeout), 0.0, Route::Skip, BonusBranch::None),
                (Accuracy::Invalid(Failure::Tool), 0.0, Route::Skip, BonusBranch::None),
            ]
        );
    }

    #[test]
    fn list_calls_count_every_search() {
        let wide = rollout(Some("Paris"), &[6]);
        let narrow = rollout(Some("Paris"), &[1]);
        let reference = Some(Reference { rounds: 1, searches: 3 });
        let scores = score_group(&TraceConfig::default(), &AliasJudge, &task(), &[wide, narrow], reference);
        assert_eq!([scores[0].branch, scores[1].branch], [BonusBranch::Bad, BonusBranch::Good]);
    }

    #[test]
    fn a_missing_verdict_is_never_a_wrong_answer() {
        let scores = score_accuracies(&TraceConfig::default(), &[], &[rollout(Some("Paris"), &[1])], None);
        assert_eq!((scores[0].accuracy, scores[0].route), (Accuracy::Invalid(Failure::Judge), Route::Skip));
    }
}
