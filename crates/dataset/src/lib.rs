//! Tasks with their pictures: in folders of our own form, as others publish rows to train on, and as benchmarks are published.
//!
//! In: a folder, or tasks and pictures in memory. Out: the other, or what is wrong with the first line of the folder that is none; of a
//! benchmark ([`loaders`]) and of rows to train on ([`mod@import`]) whatever can be used, and each row that cannot with its reason. It
//! knows nothing of how tasks are made or who plays them.
//!
//! A folder holds `tasks.jsonl`, `pictures/<id>.png`, `demonstrations.jsonl`, and in `about.json` which tokenizer made these, and of
//! which format they are.

mod about;
mod demonstrations;
pub mod encoded;
mod error;
pub mod export;
mod growing;
pub mod import;
mod lines;
pub mod loaders;
mod pictures;
mod set;
mod stats;
mod tasks;

pub use about::{ABOUT, FORMAT};
pub use demonstrations::{DEMONSTRATIONS, Demonstration, load_demonstrations};
pub use error::DataError;
pub use growing::Growing;
pub use lines::MAX_TASKS;
pub use pictures::{PICTURES, PictureFiles, load_picture};
pub use set::DataSet;
pub use stats::Stats;
pub use tasks::{TASKS, Tasks, load_tasks};
