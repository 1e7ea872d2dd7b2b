//! Services with the limits of messages and the version of the wire.
//!
//! In: an implementation of a service. Out: the tonic service to add to a server's routes. They live here, not with the
//! server, because tonic sets message limits on the generated type.

use crate::limits::{MAX_MESSAGE_BYTES, MAX_REWARD_MESSAGE_BYTES};
use crate::v1::learner_server::{Learner, LearnerServer};
use crate::v1::reward_server::{Reward, RewardServer};
use crate::v1::teacher_server::{Teacher, TeacherServer};
use crate::wire::Versioned;

/// The learner service.
pub fn learner<S: Learner>(service: S) -> Versioned<LearnerServer<S>> {
    Versioned(LearnerServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// The reward service.
pub fn reward<S: Reward>(service: S) -> Versioned<RewardServer<S>> {
    Versioned(RewardServer::new(service).max_decoding_message_size(MAX_REWARD_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
}

/// The teacher service.
pub fn teacher<S: Teacher>(service: S) -> Versioned<TeacherServer<S>> {
    Versioned(TeacherServer::new(service).max_decoding_message_size(MAX_MESSAGE_BYTES).max_encoding_message_size(MAX_MESSAGE_BYTES))
}
