//! What an evaluator asks a learner beside its versions. In: a client. Out: plain facts. The only file here that sees the wire.

use std::time::Duration;

use hypereyes_proto::CallError;
use hypereyes_proto::call::within;
use hypereyes_proto::client::LearnerClient;
use hypereyes_proto::v1;

/// Longest wait for the answer.
const PATIENCE: Duration = Duration::from_secs(2);

/// Whether the run is over.
///
/// # Errors
/// When the learner does not answer in time.
pub async fn is_over(learner: &LearnerClient) -> Result<bool, CallError> {
    let status = within("status", PATIENCE, learner.clone().status(v1::StatusRequest {})).await?;
    Ok(status.finished)
}
