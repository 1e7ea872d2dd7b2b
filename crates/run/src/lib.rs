//! The run folder: one definition of its paths, of the lines in its files, and of the format that they are in.
//!
//! In: paths, and records of the learner and of `up`. Out: files, and the same records read back, also those of the release before.
//! The learner writes with it; report, evaluation, status and the progress of `up` read with it. It knows no process, no model and no
//! protobuf.
//!
//! | file | record | written by |
//! |---|---|---|
//! | `format.json` | [`mod@format`] | `up` and the learner, each in its own folder |
//! | `learner/metrics.jsonl` | [`Step`] | the learner, a line per optimiser step |
//! | `learner/groups.jsonl` | [`ledger::Event`], read as [`ledger::Line`] | the learner, a line per event of a group |
//! | `learner/trajectories.jsonl` | [`Recorded`] | the learner, some steps |
//! | `learner/policy.json` | [`SavedPolicy`] | the learner, with every saved policy |
//! | `held_out_before.jsonl`, `held_out_after.jsonl` | [`Played`] | `up`, a line per rollout |
//! | `evaluations.jsonl`, `best.json` | `hypereyes_eval::Evaluation` | the evaluator and `up`, a line per version that was measured |
//! | `attempts.jsonl` | [`Attempt`] | `up`, a line per start |
//! | `progress.json`, `services/addresses.json` | [`Progress`], [`Addresses`] | `up` |
//!
//! An evaluation by itself has a folder of its own: [`evaluation`]. What must outlive a crash line by line is a [`journal`].

pub mod attempts;
pub mod audit;
pub mod evaluation;
pub mod folder;
pub mod follow;
pub mod format;
pub mod journal;
pub mod ledger;
pub mod lines;
pub mod metrics;
pub mod played;
pub mod saved;
pub mod stalled;
pub mod step;

pub use attempts::{Attempt, Change};
pub use evaluation::{EvaluationFolder, HeldEvaluation};
pub use folder::{Addresses, Held, LearnerFolder, Progress, RUNS, RunFolder, State, day, read_json, write_json};
pub use follow::Follower;
pub use journal::Journal;
pub use lines::Lines;
pub use played::{Played, Recorded, read_played, settle_played, write_played};
pub use saved::SavedPolicy;
pub use step::{Step, TeacherMeans};
