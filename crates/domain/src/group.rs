//! A group (n rollouts of one task) in its stages. The stage is the type: what a later stage holds, an earlier cannot.

use std::fmt;

use serde::{Deserialize, Serialize};

use crate::{
    ActorId, GroupId, PolicyVersion, Reference, RolloutSummary, Route, Score, TaskId, TeacherLogprobs, TeacherVersion, Trajectory,
};

/// n rollouts of one task, owned by the actor that leased it: with their tokens, or as [`RolloutSummary`]s alone.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct RolloutGroup<R = Trajectory> {
    /// The lease.
    pub id: GroupId,
    /// The task.
    pub task: TaskId,
    /// Who rolled it out.
    pub actor: ActorId,
    /// The rollouts; never empty.
    pub rollouts: Vec<R>,
}

impl RolloutGroup {
    /// The oldest version that sampled a token of the group.
    pub fn oldest_version(&self) -> Option<PolicyVersion> {
        self.rollouts.iter().filter_map(Trajectory::oldest_version).min()
    }

    /// What it takes to score the group: neither tokens nor calls.
    pub fn summaries(&self) -> RolloutGroup<RolloutSummary> {
        let rollouts = self.rollouts.iter().map(|rollout| rollout.summary.without_calls()).collect();
        RolloutGroup { id: self.id.clone(), task: self.task.clone(), actor: self.actor.clone(), rollouts }
    }
}

/// A group with one score per rollout and the reference that the scores were computed against.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct ScoredGroup {
    /// The rollouts.
    pub group: RolloutGroup,
    /// One score per rollout.
    pub scores: Vec<Score>,
    /// The committed reference used; `None` when the task had none.
    pub reference: Option<Reference>,
    /// Number of the epoch commit that the reference belongs to.
    pub reference_epoch: u64,
}

impl ScoredGroup {
    /// Joins rollouts and scores; they must be equally many.
    pub fn new(group: RolloutGroup, scores: Vec<Score>, reference: Option<Reference>, reference_epoch: u64) -> Result<Self, InvalidGroup> {
        if scores.len() != group.rollouts.len() {
            return Err(InvalidGroup { group: group.id, reason: format!("{} scores for {} rollouts", scores.len(), group.rollouts.len()) });
        }
        Ok(Self { group, scores, reference, reference_epoch })
    }

    /// Indices of the rollouts that the teacher should score.
    pub fn to_distill(&self) -> impl Iterator<Item = usize> + '_ {
        self.scores.iter().enumerate().filter(|(_, score)| score.route == Route::Distill).map(|(index, _)| index)
    }
}

/// A scored group with the teacher's word on its failed rollouts; what the learner trains on.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct DistilledGroup {
    /// Rollouts and scores.
    pub scored: ScoredGroup,
    /// One entry per rollout: `Some` only where the route is `Distill`; `None` there means the teacher gave no signal.
    pub teacher: Vec<Option<TeacherLogprobs>>,
}

impl DistilledGroup {
    /// Joins a scored group and the teacher's answers, checking that they fit.
    pub fn new(scored: ScoredGroup, teacher: Vec<Option<TeacherLogprobs>>) -> Result<Self, InvalidGroup> {
        let invalid = |reason: String| InvalidGroup { group: scored.group.id.clone(), reason };
        if teacher.len() != scored.scores.len() {
            return Err(invalid(format!("{} teacher entries for {} rollouts", teacher.len(), scored.scores.len())));
        }
        for (index, (answer, (score, rollout))) in teacher.iter().zip(scored.scores.iter().zip(&scored.group.rollouts)).enumerate() {
            let Some(answer) = answer else { continue };
            if score.route != Route::Distill {
                return Err(invalid(format!("rollout {index} has teacher log-probs but is routed to {:?}", score.route)));
            }
            if answer.logprobs.len() != rollout.response.len() {
                return Err(invalid(format!(
                    "rollout {index} has {} teacher log-probs for {} response tokens",
                    answer.logprobs.len(),
                    rollout.response.len()
                )));
            }
            if let Some(at) = answer.logprobs.iter().position(|value| !value.is_finite()) {
                return Err(invalid(format!("rollout {index}: teacher log-prob {at} is not finite")));
            }
            let sampled = rollout.sampled_tokens();
            if answer.top.len() % sampled.max(1) != 0 {
                return Err(invalid(format!("rollout {index} has {} likeliest tokens for {sampled} sampled ones", answer.top.len())));
            }
        }
        let mut versions = teacher.iter().flatten().map(|answer| &answer.teacher);
        if let Some(first) = versions.next()
            && let Some(other) = versions.find(|other| *other != first)
        {
            return Err(invalid(format!("two teachers speak, {first} and {other}; a group keeps to one")));
        }
        Ok(Self { scored, teacher })
    }

    /// The teacher that spoke, if one did.
    pub fn taught_by(&self) -> Option<&TeacherVersion> {
        self.teacher.iter().flatten().map(|answer| &answer.teacher).next()
    }

    /// Checks every trajectory and that the group has rollouts at all.
    pub fn check(&self) -> Result<(), InvalidGroup> {
        let group = &self.scored.group;
        let invalid = |reason: String| InvalidGroup { group: group.id.clone(), reason };
        if group.rollouts.is_empty() {
            return Err(invalid("no rollouts".into()));
        }
        for (index, rollout) in group.rollouts.iter().enumerate() {
            rollout.check().map_err(|error| invalid(format!("rollout {index}: {error}")))?;
        }
        Ok(())
    }
}

/// A group whose parts do not fit together.
#[derive(Clone, Debug, PartialEq)]
pub struct InvalidGroup {
    /// Which group.
    pub group: GroupId,
    /// What does not fit.
    pub reason: String,
}

impl fmt::Display for InvalidGroup {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "group {}: {}", self.group, self.reason)
    }
}

impl std::error::Error for InvalidGroup {}
