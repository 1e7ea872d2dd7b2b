//! Scores, and a group with its scores.
//!
//! In: scores of the reward service. Out: their messages, and back; [`join`] puts a reply to the group that was asked about.

use hypereyes_domain::{Accuracy, BonusBranch, Failure, Reference, RolloutGroup, Route, Score, ScoredGroup};

use super::{Invalid, each, finite, present, task};
use crate::limits::MAX_GROUP_SIZE;
use crate::v1;

impl From<Score> for v1::Score {
    fn from(score: Score) -> Self {
        let (accuracy, failure) = match score.accuracy {
            Accuracy::Correct => (v1::AccuracyKind::Correct, v1::FailureKind::Unspecified),
            Accuracy::Wrong => (v1::AccuracyKind::Wrong, v1::FailureKind::Unspecified),
            Accuracy::NotAttempted => (v1::AccuracyKind::NotAttempted, v1::FailureKind::Unspecified),
            Accuracy::Unparsed => (v1::AccuracyKind::Unparsed, v1::FailureKind::Unspecified),
            Accuracy::Invalid(failure) => (v1::AccuracyKind::Invalid, failure.into()),
        };
        let branch = match score.branch {
            BonusBranch::Good => v1::BonusBranch::Good,
            BonusBranch::Bad => v1::BonusBranch::Bad,
            BonusBranch::Guess => v1::BonusBranch::Guess,
            BonusBranch::WrongOutside => v1::BonusBranch::WrongOutside,
            BonusBranch::WrongInside => v1::BonusBranch::WrongInside,
            BonusBranch::None => v1::BonusBranch::None,
        };
        let route = match score.route {
            Route::Reinforce => v1::Route::Reinforce,
            Route::Distill => v1::Route::Distill,
            Route::Skip => v1::Route::Skip,
        };
        Self {
            accuracy: accuracy.into(),
            failure: failure.into(),
            bonus: score.bonus,
            branch: branch.into(),
            reward: score.reward,
            route: route.into(),
        }
    }
}

impl TryFrom<v1::Score> for Score {
    type Error = Invalid;

    fn try_from(score: v1::Score) -> Result<Self, Invalid> {
        let unknown = |what: &str| Invalid::new(what, "is not said, or is of a kind not known here");
        let accuracy = match score.accuracy() {
            v1::AccuracyKind::Correct => Accuracy::Correct,
            v1::AccuracyKind::Wrong => Accuracy::Wrong,
            v1::AccuracyKind::NotAttempted => Accuracy::NotAttempted,
            v1::AccuracyKind::Unparsed => Accuracy::Unparsed,
            v1::AccuracyKind::Invalid => Accuracy::Invalid(Failure::try_from(score.failure())?),
            v1::AccuracyKind::Unspecified => return Err(unknown("accuracy")),
        };
        let branch = match score.branch() {
            v1::BonusBranch::Good => BonusBranch::Good,
            v1::BonusBranch::Bad => BonusBranch::Bad,
            v1::BonusBranch::Guess => BonusBranch::Guess,
            v1::BonusBranch::WrongOutside => BonusBranch::WrongOutside,
            v1::BonusBranch::WrongInside => BonusBranch::WrongInside,
            v1::BonusBranch::None => BonusBranch::None,
            v1::BonusBranch::Unspecified => return Err(unknown("branch")),
        };
        let route = match score.route() {
            v1::Route::Reinforce => Route::Reinforce,
            v1::Route::Distill => Route::Distill,
            v1::Route::Skip => Route::Skip,
            v1::Route::Unspecified => return Err(unknown("route")),
        };
        if matches!(accuracy, Accuracy::Invalid(_)) && route != Route::Skip {
            return Err(Invalid::new("route", format!("is {route:?} for a rollout without a verdict")));
        }
        Ok(Self { accuracy, bonus: finite("bonus", score.bonus)?, branch, reward: finite("reward", score.reward)?, route })
    }
}

impl From<ScoredGroup> for v1::ScoredGroup {
    fn from(scored: ScoredGroup) -> Self {
        Self {
            group: Some(scored.group.into()),
            scores: scored.scores.into_iter().map(Into::into).collect(),
            reference: scored.reference.map(Into::into),
            reference_epoch: scored.reference_epoch,
        }
    }
}

impl TryFrom<v1::ScoredGroup> for ScoredGroup {
    type Error = Invalid;

    fn try_from(scored: v1::ScoredGroup) -> Result<Self, Invalid> {
        let group = RolloutGroup::try_from(present("group", scored.group)?).map_err(|invalid| invalid.within("group"))?;
        let reply = v1::ScoredReply { scores: scored.scores, reference: scored.reference, reference_epoch: scored.reference_epoch };
        join(group, reply)
    }
}

/// The reward service's reply from its parts.
pub fn scored_reply(scores: Vec<Score>, reference: Option<Reference>, reference_epoch: u64) -> v1::ScoredReply {
    v1::ScoredReply { scores: scores.into_iter().map(Into::into).collect(), reference: reference.map(Into::into), reference_epoch }
}

/// Puts the reward service's reply to the group that it was asked about.
///
/// # Errors
/// [`Invalid`] when a score is broken or their number is not that of the rollouts.
pub fn join(group: RolloutGroup, reply: v1::ScoredReply) -> Result<ScoredGroup, Invalid> {
    let scores = each("scores", reply.scores, MAX_GROUP_SIZE, Score::try_from)?;
    let reference = task::reference(reply.reference)?;
    ScoredGroup::new(group, scores, reference, reply.reference_epoch)
        .map_err(|error| Invalid::new("scores", format!("do not fit: {error}")))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::convert::samples;

    #[test]
    fn scores_survive_the_wire() {
        let branches = [
            BonusBranch::Good,
            BonusBranch::Bad,
            BonusBranch::Guess,
            BonusBranch::WrongOutside,
            BonusBranch::WrongInside,
            BonusBranch::None,
        ];
        for branch in branches {
            let score = Score { branch, ..samples::score(Accuracy::Correct, Route::Reinforce) };
            assert_eq!(Score::try_from(v1::Score::from(score)), Ok(score));
        }
        let verdicts = [
            (Accuracy::Wrong, Route::Distill),
            (Accuracy::NotAttempted, Route::Distill),
            (Accuracy::Unparsed, Route::Distill),
            (Accuracy::Invalid(Failure::Judge), Route::Skip),
            (Accuracy::Invalid(Failure::Timeout), Route::Skip),
        ];
        for (accuracy, route) in verdicts {
            let score = samples::score(accuracy, route);
            assert_eq!(Score::try_from(v1::Score::from(score)), Ok(score));
        }
    }

    #[test]
    fn broken_scores_are_rejected_by_name() {
        let good = v1::Score::from(samples::score(Accuracy::Correct, Route::Reinforce));
        let cases = [
            ("accuracy", v1::Score { accuracy: 0, ..good }),
            ("failure", v1::Score { accuracy: v1::AccuracyKind::Invalid.into(), ..good }),
            ("branch", v1::Score { branch: 42, ..good }),
            ("route", v1::Score { route: -1, ..good }),
            ("bonus", v1::Score { bonus: f64::INFINITY, ..good }),
            ("reward", v1::Score { reward: f64::NAN, ..good }),
        ];
        for (what, score) in cases {
            assert_eq!(Score::try_from(score).expect_err(what).what, what);
        }
        let trained_without_verdict = samples::score(Accuracy::Invalid(Failure::Judge), Route::Distill);
        assert_eq!(Score::try_from(v1::Score::from(trained_without_verdict)).expect_err("masked").what, "route");
    }

    #[test]
    fn scored_groups_survive_the_wire() {
        for reference in [None, Some(Reference { rounds: 2, searches: 5 })] {
            let scored = ScoredGroup { reference, ..samples::scored() };
            assert_eq!(ScoredGroup::try_from(v1::ScoredGroup::from(scored.clone())), Ok(scored));
        }
    }

    #[test]
    fn a_reply_joins_only_the_group_that_it_fits() {
        let scored = samples::scored();
        let reply = scored_reply(scored.scores.clone(), scored.reference, scored.reference_epoch);
        assert_eq!(join(scored.group.clone(), reply.clone()), Ok(scored.clone()));
        let mut short = reply;
        short.scores.pop();
        assert_eq!(join(scored.group, short).expect_err("one score is missing").what, "scores");
    }
}
