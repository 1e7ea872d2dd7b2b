//! The released reward, number by number (docs/spec.md#reward): what the golden vectors are checked against.
//!
//! In: golden cases as JSON. Out: JSON in the shape of their `expected`. Training does not use this: it counts searches
//! from executed calls and treats a missing reference as unknown (docs/spec.md#d1 to #d5). Here the released behaviour is
//! kept, so that the vectors stay valid tests.

mod asks;
mod baseline;
mod bonus;
mod call;
mod json;
mod normalisation;
mod plain;
mod python;
mod reward;
mod tags;
mod transcript;
mod turns;

use std::fmt;
use std::str::FromStr;

use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use thiserror::Error;

use crate::judge::{ContainsJudge, Judge};

pub use baseline::{
    BaselineCache, BaselineEntry, CacheAnswer, CacheOp, CacheRun, RolloutTools, ToolUse, best_rollout_baseline, run_cache_sequence,
};
pub use bonus::{BonusInput, BonusRollout, group_bonus};
pub use call::Name;
pub use normalisation::group_normalisation;
pub use reward::{Branch, Sample, SampleScore, original_reference, reward_func};
pub use transcript::{Action, Completion, Segment, TurnCount, extract_completion};

/// Longest completion that is parsed, in bytes; 38K tokens of context are far below.
pub const MAX_COMPLETION_BYTES: usize = 8 << 20;

/// A family of golden cases.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Family {
    /// `{"input": {sft_tc, sft_total_search, rollouts}}` to a list of bonuses.
    GroupBonus,
    /// `{"completion": text}` to what was read from it.
    ExtractCompletion,
    /// `{"preload", "ops"}` to one answer per operation.
    CacheSequences,
    /// `{"input": [rollouts]}` to the candidate reference or null.
    BestRolloutBaseline,
    /// `{"samples": [..]}` to a list of `{score, opd_branch}`, judged by containment.
    RewardFunc,
    /// `{"rewards": [..]}` to normalised rewards.
    GroupNormalisation,
}

impl Family {
    /// Every family.
    pub const ALL: [Family; 6] = [
        Family::GroupBonus,
        Family::ExtractCompletion,
        Family::CacheSequences,
        Family::BestRolloutBaseline,
        Family::RewardFunc,
        Family::GroupNormalisation,
    ];

    /// The name used in the vectors and on the command line.
    pub fn label(self) -> &'static str {
        match self {
            Family::GroupBonus => "group_bonus",
            Family::ExtractCompletion => "extract_completion",
            Family::CacheSequences => "cache_sequences",
            Family::BestRolloutBaseline => "best_rollout_baseline",
            Family::RewardFunc => "reward_func",
            Family::GroupNormalisation => "group_normalisation",
        }
    }
}

impl fmt::Display for Family {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.label())
    }
}

impl FromStr for Family {
    type Err = CompatError;

    fn from_str(text: &str) -> Result<Self, CompatError> {
        Family::ALL.into_iter().find(|family| family.label() == text).ok_or_else(|| CompatError::UnknownFamily {
            given: text.chars().take(64).collect(),
            known: Family::ALL.map(Family::label).join(", "),
        })
    }
}

/// A case that cannot be run.
#[derive(Debug, Error)]
pub enum CompatError {
    /// The family does not exist.
    #[error("no family {given:?}; use one of {known}")]
    UnknownFamily {
        /// What was asked for.
        given: String,
        /// What exists.
        known: String,
    },
    /// The case lacks a part.
    #[error("a {family} case needs {key:?}; add it to the line")]
    Missing {
        /// Which family.
        family: Family,
        /// The key that is missing.
        key: &'static str,
    },
    /// A part of the case has another shape than the vectors.
    #[error("{key:?} of a {family} case cannot be read: {source}; compare it with the golden vectors")]
    Shape {
        /// Which family.
        family: Family,
        /// The key.
        key: &'static str,
        /// What is wrong.
        source: serde_json::Error,
    },
    /// The released code would end with an exception.
    #[error("sample {at}: {reason}; the released reward ends with an exception there")]
    Refused {
        /// Which sample, from 0.
        at: usize,
        /// What is wrong with it.
        reason: String,
    },
    /// A text is too long.
    #[error("a completion of {bytes} bytes is over the limit of {MAX_COMPLETION_BYTES}; shorten it")]
    TooLong {
        /// Its length.
        bytes: usize,
    },
}

/// Runs one golden case; the result has the shape of the case's `expected`.
pub fn run_case(family: Family, case: &Value) -> Result<Value, CompatError> {
    match family {
        Family::GroupBonus => json(family, "input", &group_bonus(&read::<BonusInput>(family, case, "input")?)),
        Family::ExtractCompletion => {
            let text = read::<Option<String>>(family, case, "completion")?.unwrap_or_default();
            fits(&text)?;
            json(family, "completion", &extract_completion(&text))
        }
        Family::CacheSequences => {
            let ops = read::<Vec<CacheOp>>(family, case, "ops")?;
            json(family, "ops", &run_cache_sequence(case.get("preload"), &ops).results)
        }
        Family::BestRolloutBaseline => json(family, "input", &best_rollout_baseline(&read::<Vec<RolloutTools>>(family, case, "input")?)),
        Family::RewardFunc => run_reward_func(case, &ContainsJudge),
        Family::GroupNormalisation => json(family, "rewards", &group_normalisation(&read::<Vec<f64>>(family, case, "rewards")?)),
    }
}

/// Runs a case of [`Family::RewardFunc`] with a judge of one's own.
pub fn run_reward_func(case: &Value, judge: &dyn Judge) -> Result<Value, CompatError> {
    let family = Family::RewardFunc;
    let samples = read::<Vec<Sample>>(family, case, "samples")?;
    for (at, sample) in samples.iter().enumerate() {
        fits(&sample.response)?;
        if let Some(reason) = sample.refused() {
            return Err(CompatError::Refused { at, reason });
        }
    }
    json(family, "samples", &reward_func(&samples, judge))
}

/// The keys of a case that its family reads, and of its samples; those of golden files beside them are free.
pub fn keys(family: Family) -> &'static [&'static str] {
    match family {
        Family::GroupBonus | Family::BestRolloutBaseline => &["input"],
        Family::ExtractCompletion => &["completion"],
        Family::CacheSequences => &["preload", "ops", "final_memory", "final_disk"],
        Family::RewardFunc => &["samples", "judge_calls"],
        Family::GroupNormalisation => &["rewards"],
    }
}

fn fits(text: &str) -> Result<(), CompatError> {
    if text.len() > MAX_COMPLETION_BYTES { Err(CompatError::TooLong { bytes: text.len() }) } else { Ok(()) }
}

fn read<T: DeserializeOwned>(family: Family, case: &Value, key: &'static str) -> Result<T, CompatError> {
    let part = case.get(key).ok_or(CompatError::Missing { family, key })?;
    serde_json::from_value(part.clone()).map_err(|source| CompatError::Shape { family, key, source })
}

fn json<T: Serialize>(family: Family, key: &'static str, output: &T) -> Result<Value, CompatError> {
    serde_json::to_value(output).map_err(|source| CompatError::Shape { family, key, source })
}
