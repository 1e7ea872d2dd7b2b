//! Names of this service's metrics, with their descriptions. In: nothing. Out: constants, and one function that tells the
//! recorder what they mean.

use metrics::{Unit, describe_counter, describe_gauge, describe_histogram};

/// Calls for log-probs, by `outcome` (`ok`, or why not: see [`crate::error::ScoreError::label`]; `invalid`, `no_model`).
pub const CALLS: &str = "hypereyes_teacher_calls_total";
/// Time of calls that were answered.
pub const CALL_SECONDS: &str = "hypereyes_teacher_call_seconds";
/// Sequences scored.
pub const SEQUENCES: &str = "hypereyes_teacher_sequences_total";
/// Tokens that went through a model.
pub const TOKENS: &str = "hypereyes_teacher_tokens_total";
/// Sequences per pass.
pub const BATCH_SEQUENCES: &str = "hypereyes_teacher_batch_sequences";
/// Tokens per pass.
pub const BATCH_TOKENS: &str = "hypereyes_teacher_batch_tokens";
/// Time of one pass.
pub const PASS_SECONDS: &str = "hypereyes_teacher_pass_seconds";
/// Calls dropped before their last pass, by `reason` (`deadline`, `cancelled`).
pub const DROPPED: &str = "hypereyes_teacher_dropped_total";
/// Pictures put, by `outcome` (`stored`, `known`, `refused`).
pub const PICTURES: &str = "hypereyes_teacher_pictures_total";
/// Changes of the registry, by `op` (`load`, `promote`, `retire`) and `outcome` (`ok`, `failed`).
pub const REGISTRY: &str = "hypereyes_teacher_registry_changes_total";
/// The promotion in force.
pub const EPOCH: &str = "hypereyes_teacher_epoch";
/// Bytes that the weights of loaded models take.
pub const MODEL_BYTES: &str = "hypereyes_teacher_model_bytes";
/// Groups that keep to a model.
pub const PINS: &str = "hypereyes_teacher_pinned_groups";
/// Groups forgotten before their time, by `reason` (`room`, `age`: it went on asking for too long).
pub const PINS_DROPPED: &str = "hypereyes_teacher_pins_dropped_total";
/// Answers by `teacher` and `epoch`.
pub const ANSWERS: &str = "hypereyes_teacher_answers_total";
/// Models in memory.
pub const MODELS: &str = "hypereyes_teacher_models";

/// Describes every metric to the installed recorder.
pub fn describe() {
    describe_counter!(CALLS, "calls for log-probs, by outcome");
    describe_histogram!(CALL_SECONDS, Unit::Seconds, "time of calls that were answered");
    describe_counter!(SEQUENCES, "sequences scored");
    describe_counter!(TOKENS, "tokens that went through a model");
    describe_histogram!(BATCH_SEQUENCES, "sequences per pass");
    describe_histogram!(BATCH_TOKENS, "tokens per pass");
    describe_histogram!(PASS_SECONDS, Unit::Seconds, "time of one pass");
    describe_counter!(DROPPED, "calls dropped before their last pass, by reason");
    describe_counter!(PICTURES, "pictures put, by outcome");
    describe_counter!(REGISTRY, "changes of the registry, by operation and outcome");
    describe_gauge!(EPOCH, "the promotion in force");
    describe_gauge!(MODEL_BYTES, Unit::Bytes, "bytes that the weights of loaded models take");
    describe_gauge!(PINS, "groups that keep to a model");
    describe_counter!(PINS_DROPPED, "groups forgotten before their time, by reason");
    describe_counter!(ANSWERS, "answers by teacher and epoch");
    hypereyes_engines::metrics::describe();
    describe_gauge!(MODELS, "models in memory");
}
