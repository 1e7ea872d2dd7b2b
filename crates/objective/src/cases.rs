//! Golden cases of the objective as JSON. In: one case (options, rewards, masks, log-probs). Out: the computed values in
//! the shape of the case's `expected`. It does not know files.
//!
//! The case format speaks of groups by position (`group_size` samples each) and of invalid samples by reward; this file
//! is the only one that does.

use serde::Deserialize;
use serde_json::{Map, Value, json};

use crate::advantage::Normalisation;
use crate::aggregate::Aggregation;
use crate::evaluate::evaluate;
use crate::importance::Correction;
use crate::options::Options;
use crate::sequence::{Credit, Sequence};
use crate::{ObjectiveError, Output};

/// Most samples of one case.
pub const MAX_SAMPLES: usize = 1 << 16;

/// Most response tokens of one case, over all samples.
pub const MAX_TOKENS: usize = 1 << 24;

/// Options of a case. Unknown keys are refused: an option that is not applied would make the result wrong in silence.
#[derive(Clone, Debug, PartialEq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct CaseOptions {
    /// Consecutive samples of one prompt.
    pub group_size: usize,
    /// Number of groups; checked when given.
    #[serde(default)]
    pub groups: Option<usize>,
    /// Divide by the standard deviation.
    pub std_normalisation: bool,
    /// Lower clip.
    pub eps_clip: f64,
    /// Upper clip.
    pub eps_clip_high: f64,
    /// Dual bound.
    #[serde(default)]
    pub dual_clip: Option<f64>,
    /// Clamp of the importance weight, [low, high].
    #[serde(default)]
    pub tis: Option<[f64; 2]>,
    /// Range of the importance weight outside of which tokens are dropped, [low, high]; not together with `tis`.
    #[serde(default)]
    pub icepop: Option<[f64; 2]>,
    /// Denominators.
    pub aggregation: Aggregation,
    /// Strength of the teacher; `null` is off, and then no distance to it is reported.
    #[serde(default)]
    pub opd_coef: Option<f64>,
}

/// A mask entry: 0 and 1 or false and true. Anything else is refused: a weight would be taken as 1 in silence.
#[derive(Clone, Copy, Debug, PartialEq, Deserialize)]
#[serde(try_from = "Value")]
pub struct Flag(bool);

impl Flag {
    fn is_set(self) -> bool {
        self.0
    }
}

impl TryFrom<Value> for Flag {
    type Error = String;

    fn try_from(value: Value) -> Result<Self, String> {
        match (&value, value.as_f64()) {
            (Value::Bool(set), _) => Ok(Self(*set)),
            (_, Some(0.0)) => Ok(Self(false)),
            (_, Some(1.0)) => Ok(Self(true)),
            _ => Err(format!("a mask holds {value}; give 0 or 1")),
        }
    }
}

/// The keys of a [`Case`] that the objective reads.
pub const KEYS: [&str; 9] =
    ["id", "options", "raw_rewards", "masks", "old_logprobs", "new_logprobs", "rollout_logprobs", "teacher_logprobs", "distill"];

/// The keys of a [`Case`] that are its author's own.
pub const FREE_KEYS: [&str; 4] = ["expected", "note", "notes", "metadata"];

/// One case. Lists have one entry per sample, inner lists one per response token. A key that is neither of [`KEYS`] nor of
/// [`FREE_KEYS`] is refused: a list under a misspelt name would be missing without a word.
#[derive(Clone, Debug, PartialEq, Deserialize)]
pub struct Case {
    /// Its name, for messages: a text or a number.
    #[serde(default)]
    pub id: Value,
    /// Options.
    pub options: CaseOptions,
    /// Raw rewards; `null` or at most -99 is invalid.
    pub raw_rewards: Vec<Option<f64>>,
    /// Loss masks.
    pub masks: Vec<Vec<Flag>>,
    /// Log-probs before the update.
    pub old_logprobs: Vec<Vec<f64>>,
    /// Log-probs now.
    pub new_logprobs: Vec<Vec<f64>>,
    /// Log-probs of the sampler; without them those before the update.
    #[serde(default)]
    pub rollout_logprobs: Option<Vec<Vec<f64>>>,
    /// Log-probs of the teacher; without them nothing is distilled.
    #[serde(default)]
    pub teacher_logprobs: Option<Vec<Option<Vec<f64>>>>,
    /// Which samples are distilled; without it none.
    #[serde(default)]
    pub distill: Option<Vec<bool>>,
}

/// Why a case has no result.
#[derive(Debug, thiserror::Error)]
pub enum CaseError {
    /// The JSON is not a case.
    #[error("not an objective case: {0}; see the fields of `Case`")]
    Shape(#[from] serde_json::Error),
    /// Nobody reads one of its keys.
    #[error("a case has no `{key}`; its keys are {}", KEYS.join(", "))]
    Unknown {
        /// The key.
        key: String,
    },
    /// The parts do not fit together or are too large.
    #[error("case `{id}`: {reason}")]
    Parts {
        /// The case.
        id: String,
        /// What does not fit.
        reason: String,
    },
    /// The objective refused it.
    #[error("case `{id}`: {source}")]
    Objective {
        /// The case.
        id: String,
        /// Why.
        source: ObjectiveError,
    },
}

/// Reads one case and evaluates it; `expected`, if it is there, is not looked at.
pub fn evaluate_case(case: &Value) -> Result<Value, CaseError> {
    let case = Case::read(case)?;
    let (sequences, options) = (case.sequences()?, case.objective_options()?);
    let output = evaluate(&sequences, &options).map_err(|source| CaseError::Objective { id: case.name(), source })?;
    Ok(case.report(&output))
}

impl Case {
    /// Reads a case.
    pub fn read(case: &Value) -> Result<Self, CaseError> {
        let unknown = |key: &&String| !KEYS.contains(&key.as_str()) && !FREE_KEYS.contains(&key.as_str());
        if let Some(key) = case.as_object().and_then(|case| case.keys().find(unknown)) {
            return Err(CaseError::Unknown { key: key.clone() });
        }
        Ok(Self::deserialize(case)?)
    }

    /// The options as the objective names them.
    pub fn objective_options(&self) -> Result<Options, CaseError> {
        let options = &self.options;
        let correction = match (options.tis, options.icepop) {
            (None, None) => Correction::Off,
            (Some([low, high]), None) => Correction::Tis { low, high },
            (None, Some([low, high])) => Correction::Icepop { low, high },
            (Some(_), Some(_)) => return Err(self.parts("both `tis` and `icepop` are given; choose one".into())),
        };
        Ok(Options {
            normalisation: if options.std_normalisation { Normalisation::Std } else { Normalisation::Mean },
            clip_low: options.eps_clip,
            clip_high: options.eps_clip_high,
            dual_clip: options.dual_clip,
            correction,
            aggregation: options.aggregation,
            opd_coef: options.opd_coef.unwrap_or(0.0),
            opd_only: false,
        })
    }

    /// The samples as sequences; groups are cut by position.
    pub fn sequences(&self) -> Result<Vec<Sequence>, CaseError> {
        self.check_counts()?;
        let sequence = |index: usize| Sequence {
            group: (index / self.options.group_size) as u64,
            credit: Credit::Reward(self.raw_rewards[index]),
            valid: true,
            mask: self.masks[index].iter().map(|flag| flag.is_set()).collect(),
            new: self.new_logprobs[index].clone(),
            old: self.old_logprobs[index].clone(),
            rollout: self.rollout_logprobs.as_ref().unwrap_or(&self.old_logprobs)[index].clone(),
            teacher: self.teacher_logprobs.as_ref().and_then(|teacher| teacher[index].clone()),
            distill: self.distill.as_ref().is_some_and(|distill| distill[index]),
        };
        Ok((0..self.raw_rewards.len()).map(sequence).collect())
    }

    /// The output in the shape of `expected`.
    fn report(&self, output: &Output) -> Value {
        let metrics = &output.metrics;
        let mut report = Map::new();
        let mut put = |key: &str, value: Value| report.insert(key.to_owned(), value);
        put("sequence_advantages", json!(output.sequence_advantages));
        put("token_advantages", json!(output.advantages));
        put("loss", json!(output.loss));
        put("dloss_dnew", json!(output.gradients));
        put("pg_clipfrac", json!(metrics.pg_clipfrac));
        put("ppo_kl", json!(metrics.ppo_kl));
        put("train_rollout_logprob_abs_diff", json!(metrics.train_rollout_logprob_abs_diff));
        if self.options.tis.is_some() || self.options.icepop.is_some() {
            put("tis", json!(metrics.tis));
            put("tis_clipfrac", json!(metrics.tis_clipfrac));
            put("tis_abs", json!(metrics.tis_abs));
        }
        put("opd_reverse_kl", json!(self.options.opd_coef.map(|_| metrics.opd_reverse_kl_diluted)));
        Value::Object(report)
    }

    fn check_counts(&self) -> Result<(), CaseError> {
        let samples = self.raw_rewards.len();
        let tokens: usize = self.masks.iter().map(Vec::len).sum();
        if samples > MAX_SAMPLES || tokens > MAX_TOKENS {
            return Err(self.parts(format!("{samples} samples with {tokens} tokens; at most {MAX_SAMPLES} and {MAX_TOKENS}")));
        }
        let lists = [
            ("masks", Some(self.masks.len())),
            ("old_logprobs", Some(self.old_logprobs.len())),
            ("new_logprobs", Some(self.new_logprobs.len())),
            ("rollout_logprobs", self.rollout_logprobs.as_ref().map(Vec::len)),
            ("teacher_logprobs", self.teacher_logprobs.as_ref().map(Vec::len)),
            ("distill", self.distill.as_ref().map(Vec::len)),
        ];
        if let Some((list, got)) = lists.into_iter().find_map(|(list, got)| got.filter(|got| *got != samples).map(|got| (list, got))) {
            return Err(self.parts(format!("{got} entries in `{list}` for {samples} rewards")));
        }
        let size = self.options.group_size;
        let whole = size > 0 && samples.is_multiple_of(size) && self.options.groups.is_none_or(|groups| groups == samples / size);
        if !whole {
            return Err(self.parts(format!("{samples} samples are not {:?} groups of {size}", self.options.groups)));
        }
        Ok(())
    }

    fn name(&self) -> String {
        self.id.as_str().map_or_else(|| self.id.to_string(), str::to_owned)
    }

    fn parts(&self, reason: String) -> CaseError {
        CaseError::Parts { id: self.name(), reason }
    }
}

/// Where two values differ by more than `tolerance` (numbers absolutely; keys and lengths exactly), as `path: got, want`.
pub fn first_difference(got: &Value, want: &Value, tolerance: f64) -> Option<String> {
    match (got, want) {
        (Value::Number(left), Value::Number(right)) => {
            let near = matches!((left.as_f64(), right.as_f64()), (Some(left), Some(right)) if (left - right).abs() <= tolerance);
            (!near).then(|| format!(": got {got}, want {want}"))
        }
        (Value::Array(left), Value::Array(right)) if left.len() == right.len() => {
            let pairs = left.iter().zip(right).enumerate();
            pairs.into_iter().find_map(|(at, (got, want))| Some(format!("[{at}]{}", first_difference(got, want, tolerance)?)))
        }
        (Value::Object(left), Value::Object(right)) => {
            let extra = left.keys().find(|key| !right.contains_key(*key)).map(|key| format!(".{key}: not expected"));
            let differ = |(key, want): (&String, &Value)| match left.get(key) {
                Some(got) => Some(format!(".{key}{}", first_difference(got, want, tolerance)?)),
                None => Some(format!(".{key}: missing")),
            };
            extra.or_else(|| right.iter().find_map(differ))
        }
        _ => (got != want).then(|| format!(": got {got}, want {want}")),
    }
}
