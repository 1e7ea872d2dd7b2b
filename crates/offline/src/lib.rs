//! Commands that read JSON values and write a line for each: scores of groups, cases of the objective, log-probs, continuations.
//!
//! In: a file or stdin, a model folder where one is needed, the settings that count. Out: lines on stdout, each with the `id` of its
//! value. They start no process and keep nothing; how settings are found is the CLI's matter.

pub mod cases;
pub mod generate;
pub mod keys;
pub mod lines;
pub mod logprobs;
pub mod loss;
pub mod score;
pub mod sights;

use hypereyes_chassis::BadInput;

/// What a model could not be used for: wrong input, unless the device itself has failed.
pub fn refusal(error: hypereyes_policy::Error) -> anyhow::Error {
    match error {
        hypereyes_policy::Error::Device(_) => error.into(),
        error => BadInput::new(error.to_string()).into(),
    }
}
