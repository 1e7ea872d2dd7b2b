//! How large things from the wire may be. Everything beyond is rejected before memory is set aside for it.
//!
//! In: nothing. Out: named constants. They bound honest use with room to spare; they are not settings.

/// Rollouts in one group.
pub const MAX_GROUP_SIZE: usize = 256;
/// Groups of one batch.
pub const MAX_BATCH_GROUPS: usize = 65_536;
/// Prompt tokens of one sequence.
pub const MAX_PROMPT_TOKENS: usize = 262_144;
/// Response tokens of one sequence.
pub const MAX_RESPONSE_TOKENS: usize = 262_144;
/// Pictures of one task, one rollout, or one request for pictures.
pub const MAX_PICTURES: usize = 1024;
/// Encoded bytes of one picture.
pub const MAX_PICTURE_BYTES: usize = 16 << 20;
/// Tool rounds of one rollout.
pub const MAX_ROUNDS: usize = 1024;
/// Areas or queries of one call.
pub const MAX_SEARCHES_PER_CALL: usize = 1024;
/// Bytes of the arguments of one call, as JSON.
pub const MAX_ARGUMENTS_BYTES: usize = 1 << 20;
/// Bytes of one text query.
pub const MAX_QUERY_BYTES: usize = 64 << 10;
/// Bytes of a question.
pub const MAX_QUESTION_BYTES: usize = 64 << 10;
/// Bytes of one right answer or of the policy's answer. The policy's can be as long as a turn.
pub const MAX_ANSWER_BYTES: usize = 1 << 20;
/// Right answers (aliases) of one task.
pub const MAX_ANSWERS: usize = 256;
/// Entities shown by one task.
pub const MAX_SHOWN: usize = 1024;
/// Bytes of an id other than a picture's.
pub const MAX_ID_BYTES: usize = 256;
/// Hex digits of a BLAKE3 hash: a picture id, a digest.
pub const DIGEST_HEX: usize = 64;
/// Bytes of a text for people that travels in a status or a receipt. Statuses travel in headers, which hyper caps at 16 KiB,
/// and percent encoding may triple them.
pub const MAX_DETAIL_BYTES: usize = 1024;
/// Missing pictures named in one failure; the next attempt names the rest.
pub const MAX_MISSING_LISTED: usize = 64;
/// Least log-prob that a teacher may give; servers write -9999 for what they rule out.
pub const LEAST_TAUGHT: f32 = -1e4;
/// References in one batch.
pub const MAX_REFERENCES_PER_BATCH: usize = 4096;
/// The highest number of an epoch that is taken from elsewhere: counting on from it never wraps.
pub const MAX_EPOCH: u64 = 1 << 40;
/// Payload bytes of one weights chunk.
pub const MAX_WEIGHTS_CHUNK_BYTES: usize = 1 << 20;
/// Bytes of one message in either direction: a full group with log-probs fits, a flood does not.
pub const MAX_MESSAGE_BYTES: usize = 64 << 20;
/// Bytes of one message to the reward service: groups come to it without their tokens.
pub const MAX_REWARD_MESSAGE_BYTES: usize = 16 << 20;
/// Models or promotions in one list.
pub const MAX_ROSTER: usize = 1024;
/// Bytes of the text that says where a model is.
pub const MAX_SOURCE_BYTES: usize = 4096;
/// Likeliest tokens named at one place.
pub const MAX_TOP: usize = 64;
