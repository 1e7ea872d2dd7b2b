//! Scores of a group: judge, TRACE, route (docs/spec.md#accuracy, #trace, #distillation). In: a task, how its rollouts went, the reference
//! they are measured against. Out: one score per rollout, in order.
//!
//! Rounds and searches come from what was executed, never from parsing text (docs/spec.md#d1, #d3). Where the reference
//! lives, and when it moves, is not known here.

use hypereyes_domain::{Accuracy, BonusBranch, Reference, RolloutSummary, Route, Score, Task};
use serde::{Deserialize, Serialize};

use crate::judge::{Judge, Verdict};
use crate::tally::{Tally, said};
use crate::trace::{TraceConfig, bonuses};

/// Which judged rollouts the teacher's log-probs shape.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Distilled {
    /// Those that failed, as in the paper.
    #[default]
    Failed,
    /// Right ones as well.
    All,
}

impl Distilled {
    /// Where a rollout goes that is scored so.
    pub fn route(self, score: &Score) -> Route {
        match (self, score.route) {
            (Self::All, Route::Reinforce) => Route::Distill,
            (_, route) => route,
        }
    }
}

/// Scores the rollouts of a group with a rule judge.
pub fn score_group(
    config: &TraceConfig,
    judge: &dyn Judge,
    task: &Task,
    rollouts: &[RolloutSummary],
    reference: Option<Reference>,
) -> Vec<Score> {
    let tally = Tally::of(rollouts);
    let verdicts = judge.judge_all(&task.question, tally.to_judge(), &task.answers);
    let accuracies = tally.accuracies(|at| verdicts[at].into());
    score_tally(config, &tally, &accuracies, reference)
}

/// Scores a group whose accuracies are known. `accuracies` must have one entry per rollout; missing ones count as
/// `Invalid(Judge)`, so that a judge that gave up can never turn into a wrong answer.
pub fn score_tally(config: &TraceConfig, tally: &Tally<'_>, accuracies: &[Accuracy], reference: Option<Reference>) -> Vec<Score> {
    let costs = tally.costs(accuracies);
    let bonuses = bonuses(config, reference, &costs);
    costs.iter().zip(&bonuses).map(|((accuracy, ..), (bonus, branch))| score(*accuracy, *bonus, *branch)).collect()
}

/// Looked up, not decided: siblings come in every kind and no order, so that a processor would guess every second jump wrong.
/// The reward of a rollout without an answer.
pub const UNANSWERED: f64 = -0.5;

fn score(accuracy: Accuracy, bonus: f64, branch: BonusBranch) -> Score {
    let kind = match accuracy {
        Accuracy::Correct => 0,
        Accuracy::Wrong | Accuracy::NotAttempted => 1,
        Accuracy::Unparsed => 2,
        Accuracy::Invalid(_) => 3,
    };
    let reward = [1.0 + bonus, bonus, UNANSWERED, 0.0][kind];
    let route = [Route::Reinforce, Route::Distill, Route::Distill, Route::Skip][kind];
    Score { accuracy, bonus, branch, reward, route }
}

/// The accuracy of one rollout by a rule judge.
pub fn accuracy_of(judge: &dyn Judge, task: &Task, summary: &RolloutSummary) -> Accuracy {
    match said(summary, summary.spent().all_failed()) {
        Err(failure) => Accuracy::Invalid(failure),
        Ok("") => Accuracy::Unparsed,
        Ok(answer) => judge.judge(&task.question, answer, &task.answers).into(),
    }
}

impl From<Verdict> for Accuracy {
    fn from(verdict: Verdict) -> Self {
        match verdict {
            Verdict::Correct => Self::Correct,
            Verdict::Wrong => Self::Wrong,
            Verdict::NotAttempted => Self::NotAttempted,
        }
    }
}

#[cfg(test)]
pub(crate) mod tests {
    use super::*;
    use crate::judge::AliasJudge;
    use hypereyes_domain::{Ending, Failure, Round};

    pub(crate) fn task() -> Task {
        let row = serde_json::json!({"id": "t", "kind": "visual_select", "question": "Which city?", "answers": ["Paris"]});
        serde_json::from_value(row).expect("a task")
    }

    /// A rollout with one entry of `searches` per round.
    pub(crate) fn rollout(answer: Option<&str>, searches: &[u32]) -> RolloutSummary {
        RolloutSummary {
            rounds: searches.iter().map(|&searches| Round::counted(searches, 0)).collect(),
            ending: if answer.is_some() { Ending::Answered } else { Ending::NoAction },
            answer: answer.map(str::to_owned),
        }
    }

    #[test]
    fn right_rollouts_go_to_the_teacher_where_all_of_them_do() {
        let score = |accuracy| score(accuracy, 0.0, BonusBranch::None);
        for (accuracy, failed, all) in [
            (Accuracy::Correct, Route::Reinforce, Route::Distill),
            (Accuracy::Wrong, Route::Distill, Route::Distill),
            (Accuracy::Invalid(Failure::Judge), Route::Skip, Route::Skip),
        ] {
            assert_eq!([Distilled::Failed, Distilled::All].map(|which| which.route(&score(accuracy))), [failed, all], "{accuracy:?}");
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
    fn who_declines_is_worth_what_who_is_wrong_is() {
        let rollouts = [rollout(Some("I do not know"), &[]), rollout(Some("Rome"), &[]), rollout(Some("I do not know"), &[2, 2])];
        let accuracies = [Verdict::NotAttempted, Verdict::Wrong, Verdict::NotAttempted].map(Accuracy::from);
        let reference = Some(Reference { rounds: 2, searches: 4 });
        let scores = score_tally(&TraceConfig::default(), &Tally::of(&rollouts), &accuracies, reference);
        let got: Vec<_> = scores.iter().map(|score| (score.accuracy, score.reward, score.route, score.branch)).collect();
        assert_eq!(
            got,
            [
                (Accuracy::NotAttempted, -0.1, Route::Distill, BonusBranch::WrongOutside),
                (Accuracy::Wrong, -0.1, Route::Distill, BonusBranch::WrongOutside),
                (Accuracy::NotAttempted, 0.0, Route::Distill, BonusBranch::WrongInside),
            ]
        );
    }

    #[test]
    fn a_missing_verdict_is_never_a_wrong_answer() {
        let scores = score_tally(&TraceConfig::default(), &Tally::of(&[rollout(Some("Paris"), &[1])]), &[], None);
        assert_eq!((scores[0].accuracy, scores[0].route), (Accuracy::Invalid(Failure::Judge), Route::Skip));
    }
}
