//! The teacher's word on a group's failed rollouts. In: a scored group and its pictures. Out: log-probs where there are any.
//! It cannot fail: whatever goes wrong means no signal, counted by reason, and the group goes on.

use std::time::Duration;

use hypereyes_domain::{ScoredGroup, TeacherLogprobs};
use hypereyes_proto::limits::MAX_MISSING_LISTED;
use metrics::counter;
use tokio::time::timeout;

use crate::metrics::{NO_SIGNAL, PICTURES, TAUGHT};
use crate::pictures::GroupPictures;
use crate::service::{CallError, Peers};

/// One entry per rollout; `Some` only where the route asks for it and the teacher answered within `patience`.
pub async fn teach(peers: &Peers, scored: &ScoredGroup, pictures: &GroupPictures, patience: Duration) -> Vec<Option<TeacherLogprobs>> {
    let mut teacher = vec![None; scored.group.rollouts.len()];
    let asked: Vec<usize> = scored.to_distill().filter(|at| scored.group.rollouts[*at].sampled_tokens() > 0).collect();
    if !peers.has_teacher() || asked.is_empty() {
        return teacher;
    }
    let reason = match timeout(patience, ask(peers, scored, &asked, pictures, patience)).await {
        Ok(Ok(answers)) => {
            counter!(TAUGHT).increment(answers.len() as u64);
            for (at, answer) in asked.into_iter().zip(answers) {
                teacher[at] = Some(answer);
            }
            return teacher;
        }
        Ok(Err(error)) => {
            tracing::warn!(group = %scored.group.id, %error, "no signal of the teacher");
            match &error {
                CallError { missing, .. } if !missing.is_empty() => "missing_pictures",
                CallError { refused: true, .. } => "refused",
                CallError { failure, .. } => failure.label(),
            }
        }
        Err(_) => {
            tracing::warn!(group = %scored.group.id, ?patience, "the teacher is late");
            "timeout"
        }
    };
    counter!(NO_SIGNAL, "reason" => reason).increment(asked.len() as u64);
    teacher
}

async fn ask(
    peers: &Peers,
    scored: &ScoredGroup,
    asked: &[usize],
    pictures: &GroupPictures,
    patience: Duration,
) -> Result<Vec<TeacherLogprobs>, CallError> {
    let missing = match peers.teach(scored, asked, patience).await {
        Err(error) if !error.missing.is_empty() => error.missing,
        answered => return answered,
    };
    // A full list names only the first of them.
    let put = if missing.len() < MAX_MISSING_LISTED { pictures.find(&missing) } else { pictures.all().cloned().collect() };
    counter!(PICTURES, "from" => "teacher_put").increment(put.len() as u64);
    peers.put_to_teacher(put, patience).await?;
    peers.teach(scored, asked, patience).await
}
