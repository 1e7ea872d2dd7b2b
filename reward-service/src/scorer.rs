//! Scoring a group: judge, TRACE, route, then remember what was seen. In: a task and its rollouts. Out: scores with the
//! reference and epoch that they were computed against.
//!
//! A group id has one answer: asking again gives the same scores even if a commit fell in between, for as long as the
//! bounded memory reaches. It knows no wire.

use std::collections::hash_map::DefaultHasher;
use std::hash::{Hash, Hasher};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Instant;

use hypereyes_chassis::Remembered;
use hypereyes_domain::{Accuracy, Failure, GroupId, Reference, RolloutGroup, RolloutSummary, Score, Task, TaskId};
use hypereyes_judge::Verdicts;
use hypereyes_scoring::{Candidate, Distilled, Tally, TraceConfig, candidate, score_tally};
use metrics::{counter, histogram};
use thiserror::Error;

use crate::change::{Print, Provenance};
use crate::metrics as names;
use crate::references::References;
use crate::store::StoreError;

/// Bytes of all right answers of a task together. Every answer is normalised once per rollout, so a flood here would be
/// multiplied by the group size.
const MAX_ANSWERS_BYTES: usize = 64 << 10;

/// The scores of a group and what they were measured against.
#[derive(Clone, Debug, PartialEq)]
pub struct Scored {
    /// One per rollout.
    pub scores: Vec<Score>,
    /// The reference used.
    pub reference: Option<Reference>,
    /// The epoch that it belongs to.
    pub epoch: u64,
}

/// A group cannot be scored.
#[derive(Debug, Error)]
pub enum ScoreError {
    /// Group and task do not belong together.
    #[error("group {group} rolls out task {of}, but task {given} was sent with it; send the group's own task")]
    OtherTask {
        /// The group.
        group: GroupId,
        /// Its task.
        of: TaskId,
        /// The task that was sent.
        given: TaskId,
    },
    /// The right answers are too long.
    #[error("the right answers of task {task} have {bytes} bytes, over the limit of {MAX_ANSWERS_BYTES}; drop aliases")]
    LongAnswers {
        /// The task.
        task: TaskId,
        /// Their size.
        bytes: usize,
    },
    /// What was seen could not be made durable.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Scores groups.
#[derive(Debug)]
pub struct Scorer {
    judge: Arc<dyn Verdicts>,
    trace: TraceConfig,
    distilled: Distilled,
    references: References,
    recent: Mutex<Remembered<GroupId, (u64, Arc<Scored>)>>,
}

impl Scorer {
    /// `remember` is how many groups' answers are kept for repeats.
    pub fn new(judge: Arc<dyn Verdicts>, trace: TraceConfig, distilled: Distilled, references: References, remember: usize) -> Self {
        Self { judge, trace, distilled, references, recent: Mutex::new(Remembered::new(remember)) }
    }

    /// Scores a group; what it shows of its task's reference is durable when this returns.
    pub async fn score(&self, task: &Task, group: &RolloutGroup<RolloutSummary>) -> Result<Arc<Scored>, ScoreError> {
        let start = Instant::now();
        if group.task != task.id {
            return Err(ScoreError::OtherTask { group: group.id.clone(), of: group.task.clone(), given: task.id.clone() });
        }
        let bytes = task.answers.iter().map(String::len).sum();
        if bytes > MAX_ANSWERS_BYTES {
            return Err(ScoreError::LongAnswers { task: task.id.clone(), bytes });
        }
        let print = fingerprint(task, group);
        if let Some(known) = self.known(&group.id, print) {
            counter!(names::REPEATS).increment(1);
            return Ok(known);
        }
        let tally = Tally::of(&group.rollouts);
        let accuracies = hypereyes_judge::accuracies(self.judge.as_ref(), task, &tally).await;
        let place = self.references.place(task);
        if place != task.id {
            counter!(names::OTHER_QUESTIONS).increment(1);
            tracing::warn!(task = %task.id, %place, "the reference of this task id belongs to another question; this one has its own");
        }
        let (reference, epoch) = self.references.for_task(task, &place);
        let mut scores = score_tally(&self.trace, &tally, &accuracies, reference);
        scores.iter_mut().for_each(|score| score.route = self.distilled.route(score));
        if let Some(Candidate { rollout, reference: seen }) = candidate(&scores, &group.rollouts) {
            let by = Provenance { group: group.id.clone(), rollout: rollout as u32, actor: group.actor.clone() };
            self.references.observe(&place, Print::of(task), seen, by).await?;
        }
        let scored = self.remember(&group.id, print, Scored { scores, reference, epoch });
        histogram!(names::SCORE_SECONDS).record(start.elapsed().as_secs_f64());
        Ok(scored)
    }

    fn known(&self, group: &GroupId, print: u64) -> Option<Arc<Scored>> {
        self.recent().get(group).filter(|(known, _)| *known == print).map(|(_, scored)| scored.clone())
    }

    /// The result that stands for the group: of two calls that race, the first decides. A group whose judge failed is not
    /// remembered, so that asking again may succeed.
    fn remember(&self, group: &GroupId, print: u64, scored: Scored) -> Arc<Scored> {
        if let Some(first) = self.known(group, print) {
            return first;
        }
        count(&scored.scores);
        let scored = Arc::new(scored);
        if scored.scores.iter().any(|score| score.accuracy == Accuracy::Invalid(Failure::Judge)) {
            return scored;
        }
        let mut recent = self.recent();
        if recent.get(group).is_some() {
            // An id names one lease, so other rollouts under it mean a confused caller. Its scores are right either way.
            counter!(names::CONFLICTS).increment(1);
            tracing::warn!(%group, "scored before with other rollouts; the newer ones count");
        }
        if recent.insert(group.clone(), (print, scored.clone())) {
            counter!(names::FORGOTTEN).increment(1);
        }
        scored
    }

    /// Poison is ignored: the worst that a panic leaves is a forgotten result.
    fn recent(&self) -> std::sync::MutexGuard<'_, Remembered<GroupId, (u64, Arc<Scored>)>> {
        self.recent.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn count(scores: &[Score]) {
    counter!(names::GROUPS).increment(1);
    for score in scores {
        let accuracy = match score.accuracy {
            Accuracy::Correct => "correct",
            Accuracy::Wrong => "wrong",
            Accuracy::NotAttempted => "not_attempted",
            Accuracy::Unparsed => "unparsed",
            Accuracy::Invalid(failure) => {
                counter!(names::MASKED, "reason" => failure.label()).increment(1);
                "invalid"
            }
        };
        counter!(names::ROLLOUTS, "accuracy" => accuracy).increment(1);
        counter!(names::BONUSES, "branch" => score.branch.label()).increment(1);
        if !matches!(score.accuracy, Accuracy::Invalid(_)) {
            histogram!(names::REWARDS).record(score.reward);
        }
    }
}

/// A hash of all that the scores depend on, the committed reference aside.
fn fingerprint(task: &Task, group: &RolloutGroup<RolloutSummary>) -> u64 {
    let mut hasher = DefaultHasher::new();
    (&task.question, &task.answers, task.reference).hash(&mut hasher);
    for rollout in &group.rollouts {
        (rollout.ending, &rollout.answer).hash(&mut hasher);
        for round in &rollout.rounds {
            (round.searches, round.failed_searches).hash(&mut hasher);
        }
        rollout.rounds.len().hash(&mut hasher);
    }
    hasher.finish()
}

#[cfg(test)]
mod tests {
    use super::*;
    use hypereyes_domain::{Ending, Round, TaskKind};
    use hypereyes_scoring::{JudgeKind, ReferenceMode};

    fn task(id: &str) -> Task {
        Task {
            id: id.into(),
            kind: TaskKind::VISUAL_SELECT,
            question: "Which?".into(),
            answers: vec!["Paris".into()],
            pictures: vec![],
            layer: None,
            metadata: Default::default(),
            shown: vec![],
            reference: None,
        }
    }

    fn group(id: &str, task: &str, rounds: usize) -> RolloutGroup<RolloutSummary> {
        let rounds = vec![Round::counted(1, 0); rounds];
        let rollout = RolloutSummary { rounds, ending: Ending::Answered, answer: Some("paris".into()) };
        RolloutGroup { id: id.into(), task: task.into(), actor: "a".into(), rollouts: vec![rollout] }
    }

    fn scorer(mode: ReferenceMode, remember: usize) -> Scorer {
        let references = References::open(mode, None, 0).expect("memory needs no disk");
        Scorer::new(Arc::new(JudgeKind::Alias), TraceConfig::default(), Distilled::default(), references, remember)
    }

    #[tokio::test]
    async fn a_repeat_gives_the_same_scores_across_a_commit() {
        let scorer = scorer(ReferenceMode::Epoch, 8);
        let first = scorer.score(&task("t"), &group("t@1", "t", 2)).await.expect("scores");
        scorer.references.commit(1).await.expect("commits");
        let repeat = scorer.score(&task("t"), &group("t@1", "t", 2)).await.expect("scores");
        let next = scorer.score(&task("t"), &group("t@2", "t", 2)).await.expect("scores");
        assert_eq!(first, repeat);
        assert_eq!((first.reference, first.epoch), (None, 0));
        assert_eq!((next.reference, next.epoch), (Some(Reference { rounds: 2, searches: 2 }), 1));
    }

    #[tokio::test]
    async fn the_memory_of_results_is_bounded() {
        let scorer = scorer(ReferenceMode::Immediate, 2);
        for lease in 0..10 {
            scorer.score(&task("t"), &group(&format!("t@{lease}"), "t", 1)).await.expect("scores");
        }
        assert_eq!(scorer.recent().len(), 2);
    }

    #[tokio::test]
    async fn other_rollouts_under_one_id_are_scored_for_what_they_are() {
        let scorer = scorer(ReferenceMode::Static, 8);
        let with_reference = Task { reference: Some(Reference { rounds: 1, searches: 1 }), ..task("t") };
        let good = scorer.score(&with_reference, &group("t@1", "t", 1)).await.expect("scores");
        let bad = scorer.score(&with_reference, &group("t@1", "t", 3)).await.expect("scores");
        assert_eq!([good.scores[0].reward, bad.scores[0].reward], [1.2, 0.98]);
    }

    #[tokio::test]
    async fn a_group_is_scored_against_its_own_task_only() {
        let scorer = scorer(ReferenceMode::Epoch, 8);
        let error = scorer.score(&task("u"), &group("t@1", "t", 1)).await.expect_err("another task");
        assert!(matches!(error, ScoreError::OtherTask { .. }));
        let long = Task { answers: vec!["x".repeat(MAX_ANSWERS_BYTES + 1)], ..task("t") };
        assert!(matches!(scorer.score(&long, &group("t@1", "t", 1)).await, Err(ScoreError::LongAnswers { .. })));
    }

    #[tokio::test]
    async fn another_question_under_a_known_id_has_a_reference_of_its_own() {
        let scorer = scorer(ReferenceMode::Immediate, 0);
        let other = Task { question: "Another?".into(), answers: vec!["Rome".into()], ..task("t") };
        let rome = |id: &str, rounds: usize| {
            let mut group = group(id, "t", rounds);
            group.rollouts[0].answer = Some("Rome".into());
            group
        };
        let two = |rounds: u32| Some(Reference { rounds, searches: rounds });
        assert_eq!(scorer.score(&task("t"), &group("t@1", "t", 1)).await.expect("scores").reference, None);
        assert_eq!(scorer.score(&other, &rome("t@2", 3)).await.expect("scores").reference, None, "not the first question's");
        assert_eq!(scorer.score(&other, &rome("t@3", 2)).await.expect("scores").reference, two(3), "but its own");
        assert_eq!(scorer.score(&task("t"), &group("t@4", "t", 2)).await.expect("scores").reference, two(1));
        // An alias more is the same question; another right answer to the same words is not.
        let alias = Task { answers: vec!["Paris".into(), "Paname".into()], ..task("t") };
        assert_eq!(scorer.score(&alias, &group("t@5", "t", 2)).await.expect("scores").reference, two(1));
        let answer = Task { answers: vec!["Rome".into()], ..task("t") };
        assert_eq!(scorer.score(&answer, &rome("t@6", 2)).await.expect("scores").reference, None);
        assert_eq!(scorer.references.committed(&"t".into()).0, two(1));
        let kept = scorer.references.export().0;
        assert_eq!(kept.keys().filter(|id| id.as_str().starts_with("t#")).count(), 2, "{kept:?}");
    }

    #[tokio::test]
    async fn a_reference_without_a_question_is_the_first_ones_that_is_scored() {
        let scorer = scorer(ReferenceMode::Static, 0);
        let seen = Reference { rounds: 2, searches: 2 };
        scorer.references.import(1, vec![("t".into(), seen)]).await.expect("imports");
        assert_eq!(scorer.score(&task("t"), &group("t@1", "t", 1)).await.expect("scores").reference, Some(seen));
        // The journal applies commands in order: what was claimed before is known after this.
        scorer.references.import(1, vec![]).await.expect("imports");
        let other = Task { question: "Another?".into(), ..task("t") };
        assert_eq!(scorer.score(&other, &group("t@2", "t", 1)).await.expect("scores").reference, None);
        assert_eq!(scorer.score(&task("t"), &group("t@3", "t", 1)).await.expect("scores").reference, Some(seen));
    }

    /// Groups of several tasks in any order, some of them twice: what a rollout is worth depends on its own group and the
    /// committed references alone.
    #[tokio::test]
    async fn no_score_depends_on_other_groups_within_an_epoch() {
        use rand::seq::SliceRandom;
        use rand::{Rng, SeedableRng};
        for seed in 0..20 {
            let mut random = rand::rngs::StdRng::seed_from_u64(seed);
            let tasks: Vec<Task> = (0..4)
                .map(|at| Task { reference: (at > 1).then_some(Reference { rounds: 3, searches: 3 }), ..task(&format!("t{at}")) })
                .collect();
            let groups: Vec<(usize, RolloutGroup<RolloutSummary>)> = (0..12)
                .map(|lease| {
                    let of = random.random_range(0..4);
                    (of, group(&format!("t{of}@{lease}"), &format!("t{of}"), random.random_range(0..5)))
                })
                .collect();
            let alone = |of: usize, group: RolloutGroup<RolloutSummary>| {
                let task = tasks[of].clone();
                async move { scorer(ReferenceMode::Epoch, 0).score(&task, &group).await.expect("scores").scores.clone() }
            };
            let together = scorer(ReferenceMode::Epoch, 4);
            let mut shuffled = [groups.clone(), groups[3..9].to_vec()].concat();
            shuffled.shuffle(&mut random);
            for (of, group) in shuffled {
                let scored = together.score(&tasks[of], &group).await.expect("scores");
                assert_eq!(scored.scores, alone(of, group).await);
            }
        }
    }
}
