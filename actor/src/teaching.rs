//! The teacher's word on a group's failed rollouts. In: a scored group and its pictures. Out: log-probs where there are any.
//! It cannot fail: whatever goes wrong means no signal, counted by reason, and the group goes on.
//!
//! A teacher that does not answer is left alone for a while, so that no group waits for what will not come.

use std::time::Duration;

use hypereyes_chassis::backoff::{Backoff, BackoffConfig};
use hypereyes_chassis::breaker::Change;
use hypereyes_chassis::{Breaker, Retryable};
use hypereyes_domain::{Failure, ScoredGroup, TeacherLogprobs};
use hypereyes_proto::limits::MAX_MISSING_LISTED;
use metrics::{counter, gauge};
use tokio::time::{Instant, timeout_at};

use crate::config::Config;
use crate::metrics::{NO_SIGNAL, PICTURES, TAUGHT, TEACHER_AWAY, TEACHER_REPEATS};
use crate::pictures::GroupPictures;
use crate::service::{CallError, Peers};

/// How the teacher is asked.
#[derive(Debug)]
pub struct Teaching {
    peers: Peers,
    patience: Duration,
    breaker: Breaker,
    backoff: BackoffConfig,
}

impl Teaching {
    /// Asks through `peers`, each group for at most `patience`.
    pub fn new(peers: Peers, patience: Duration, config: &Config) -> Self {
        Self { peers, patience, breaker: Breaker::new(config.teacher_breaker.clone()), backoff: config.backoff.clone() }
    }

    /// One entry per rollout; `Some` only where the route asks for it and the teacher answered in time.
    pub async fn teach(&self, scored: &ScoredGroup, pictures: &GroupPictures) -> Vec<Option<TeacherLogprobs>> {
        let mut teacher = vec![None; scored.group.rollouts.len()];
        let asked: Vec<usize> = scored.to_distill().filter(|at| scored.group.rollouts[*at].sampled_tokens() > 0).collect();
        if !self.peers.has_teacher() || asked.is_empty() {
            return teacher;
        }
        let reason = if self.breaker.admits() {
            match self.persist(scored, &asked, pictures).await {
                Ok(answers) => {
                    self.heard(self.breaker.answered());
                    for (at, answer) in asked.into_iter().zip(answers) {
                        let labels = [("teacher", answer.teacher.id.as_str().to_owned()), ("epoch", answer.teacher.revision.to_string())];
                        counter!(TAUGHT, &labels).increment(1);
                        teacher[at] = Some(answer);
                    }
                    return teacher;
                }
                Err(error) => {
                    tracing::warn!(group = %scored.group.id, %error, "no signal of the teacher");
                    // Who refuses is there.
                    self.heard(if error.refused { self.breaker.answered() } else { self.breaker.failed() });
                    match &error {
                        CallError { missing, .. } if !missing.is_empty() => "missing_pictures",
                        CallError { refused: true, .. } => "refused",
                        CallError { failure: Failure::Timeout, .. } => "timeout",
                        CallError { failure, .. } => failure.label(),
                    }
                }
            }
        } else {
            "away"
        };
        counter!(NO_SIGNAL, "reason" => reason).increment(asked.len() as u64);
        teacher
    }

    fn heard(&self, change: Change) {
        match change {
            Change::None => {}
            Change::Opened => {
                tracing::warn!("the teacher does not answer: groups go on without it until it does");
                gauge!(TEACHER_AWAY).set(1.0);
            }
            Change::Closed => {
                tracing::info!("the teacher is back");
                gauge!(TEACHER_AWAY).set(0.0);
            }
        }
    }

    /// Asks until there is an answer, a refusal, or no time or budget for another try.
    async fn persist(&self, scored: &ScoredGroup, asked: &[usize], pictures: &GroupPictures) -> Result<Vec<TeacherLogprobs>, CallError> {
        let deadline = Instant::now() + self.patience;
        let mut backoff = Backoff::new(&self.backoff);
        loop {
            let left = deadline.saturating_duration_since(Instant::now());
            let late = |_| CallError::late("score_tokens", self.patience);
            let error = match timeout_at(deadline, self.ask(scored, asked, pictures, left)).await.map_err(late) {
                Ok(Ok(answers)) => return Ok(answers),
                Ok(Err(error)) | Err(error) => error,
            };
            let pause = backoff.next_delay();
            if !error.is_retryable() || Instant::now() + pause >= deadline || !self.breaker.may_repeat() {
                return Err(error);
            }
            counter!(TEACHER_REPEATS).increment(1);
            tokio::time::sleep(pause).await;
        }
    }

    async fn ask(
        &self,
        scored: &ScoredGroup,
        asked: &[usize],
        pictures: &GroupPictures,
        patience: Duration,
    ) -> Result<Vec<TeacherLogprobs>, CallError> {
        let missing = match self.peers.teach(scored, asked, patience).await {
            Err(error) if !error.missing.is_empty() => error.missing,
            answered => return answered,
        };
        // A full list names only the first of them.
        let put = if missing.len() < MAX_MISSING_LISTED { pictures.find(&missing) } else { pictures.all().cloned().collect() };
        counter!(PICTURES, "from" => "teacher_put").increment(put.len() as u64);
        self.peers.put_to_teacher(put, patience).await?;
        self.peers.teach(scored, asked, patience).await
    }
}
