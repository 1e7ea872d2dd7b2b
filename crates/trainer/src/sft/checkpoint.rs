//! What a cold start that was cut goes on from: weights, moments, the cursor, and on what terms it began.
//!
//! In: the same. Out: a [`sealed`] folder, and what differs between the terms of then and now.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;

use hypereyes_policy::checkpoint::HostWeights;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Cursor;
use crate::moments::Moments;
use crate::sealed;
pub use crate::sealed::CheckpointError;

/// Keys that may change when a run goes on: they say how its next steps are taken, not what it is.
const FREE: [&str; 14] = [
    "sft.checkpoint_every",
    "sft.device",
    "sft.final_lr",
    "sft.lr",
    "sft.micro_tokens",
    "sft.steps",
    "sft.warmup",
    "sft_optim.beta1",
    "sft_optim.beta2",
    "sft_optim.clip_norm",
    "sft_optim.eps",
    "sft_optim.weight_decay",
    "sft_optim.groups",
    "bf16",
];

/// What a run's result depends on, key by key: the same terms give the same bits on the same machine.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Terms(BTreeMap<String, String>);

/// One term that is not what it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Change {
    /// Which.
    pub key: String,
    /// When the run began.
    pub was: String,
    /// Now.
    pub is: String,
    /// Whether a run may go on with it.
    pub free: bool,
}

impl std::fmt::Display for Change {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} is {} and was {}", self.key, self.is, self.was)
    }
}

impl Terms {
    /// Adds settings under the name of their section, or one value under its own name.
    pub fn with(mut self, name: &str, value: &impl Serialize) -> Self {
        match serde_json::to_value(value).expect("settings are plain values") {
            // As texts: numbers are then the same when they are read again.
            Value::Object(map) => self.0.extend(map.into_iter().map(|(key, value)| (format!("{name}.{key}"), value.to_string()))),
            value => drop(self.0.insert(name.to_owned(), value.to_string())),
        }
        self
    }

    /// What differs between these terms, of when the run began, and those of now.
    pub fn changes(&self, now: &Terms) -> Vec<Change> {
        let keys: BTreeSet<&String> = self.0.keys().chain(now.0.keys()).collect();
        let of = |terms: &Terms, key: &String| terms.0.get(key).cloned().unwrap_or_else(|| "not known".into());
        let changes = keys.into_iter().map(|key| Change {
            key: key.clone(),
            was: of(self, key),
            is: of(now, key),
            free: FREE.contains(&key.as_str()),
        });
        changes.filter(|change| change.was != change.is).collect()
    }
}

/// All of a run's state.
#[derive(Clone, Debug, PartialEq)]
pub struct State {
    /// On what terms it began, as far as they have not been changed since.
    pub terms: Terms,
    /// Where it is.
    pub cursor: Cursor,
    /// Training seconds so far.
    pub seconds: f64,
    /// Master weights, and adapters beside them.
    pub weights: HostWeights,
    /// The optimiser's state.
    pub moments: Moments,
}

#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Manifest {
    folder: String,
    terms: Terms,
    cursor: Cursor,
    optimiser_steps: u64,
    milliseconds: u64,
    digests: BTreeMap<String, String>,
}

impl sealed::Manifest for Manifest {
    fn folder(&self) -> &str {
        &self.folder
    }

    fn digests(&self) -> &BTreeMap<String, String> {
        &self.digests
    }
}

/// Writes a checkpoint under `dir` and removes the one before.
///
/// # Errors
/// [`CheckpointError`]; the one before is then still in force.
pub fn save(dir: &Path, state: &State) -> Result<(), CheckpointError> {
    let manifest = |folder, digests| Manifest {
        folder,
        terms: state.terms.clone(),
        cursor: state.cursor.clone(),
        optimiser_steps: state.moments.steps,
        milliseconds: (state.seconds * 1000.0) as u64,
        digests,
    };
    sealed::save(dir, state.cursor.step as u64, [&state.weights, &state.moments.first, &state.moments.second], manifest, 1)
}

/// Reads the checkpoint under `dir`; `None` when there is none.
///
/// # Errors
/// [`CheckpointError`] that says what to do.
pub fn load(dir: &Path) -> Result<Option<State>, CheckpointError> {
    let Some((manifest, [weights, first, second])) = sealed::load::<Manifest>(dir)? else { return Ok(None) };
    Ok(Some(State {
        terms: manifest.terms,
        cursor: manifest.cursor,
        seconds: manifest.milliseconds as f64 / 1000.0,
        weights,
        moments: Moments { steps: manifest.optimiser_steps, first, second },
    }))
}

#[cfg(test)]
mod tests {
    use hypereyes_policy::checkpoint::HostTensor;

    use super::super::SftConfig;
    use super::*;

    #[test]
    fn what_is_saved_is_loaded_and_the_one_before_goes() {
        let dir = tempfile::tempdir().unwrap();
        assert_eq!(load(dir.path()).unwrap(), None);
        let weights: HostWeights = [("w".to_owned(), HostTensor { shape: vec![2], values: vec![0.1, -3.0] })].into();
        let state = |step| State {
            terms: Terms::default().with("sft", &SftConfig::default()).with("seed", &3),
            cursor: Cursor { step, ..Cursor::new(3) },
            seconds: 0.25,
            moments: Moments { steps: step as u64, first: weights.clone(), second: weights.clone() },
            weights: weights.clone(),
        };
        save(dir.path(), &state(50)).unwrap();
        save(dir.path(), &state(100)).unwrap();
        assert_eq!(load(dir.path()).unwrap().unwrap(), state(100));
        assert_eq!(sealed::folders(dir.path()), ["step-000100"]);
    }

    #[test]
    fn changed_terms_are_named_with_both_values() {
        let terms = |lr, seed: u64| Terms::default().with("sft", &SftConfig { lr: Some(lr), ..SftConfig::default() }).with("seed", &seed);
        let began = terms(0.1 + 0.2, 3);
        let kept: Terms = serde_json::from_str(&serde_json::to_string(&began).unwrap()).unwrap();
        assert_eq!(kept.changes(&began), []);
        let changes = kept.changes(&terms(0.5, 4));
        let said: Vec<(String, bool)> = changes.iter().map(|change| (change.to_string(), change.free)).collect();
        assert_eq!(said, [("seed is 4 and was 3".into(), false), ("sft.lr is 0.5 and was 0.30000000000000004".into(), true)]);
        assert_eq!(kept.changes(&Terms::default().with("seed", &3)).first().unwrap().is, "not known");
    }
}
