//! Follows the learner's `metrics.jsonl` while it grows. In: a path. Out: steps, as they are written.
//!
//! A line that is not yet whole is waited for; a file that became shorter (the learner went back to a checkpoint) is read
//! again from its beginning. Unknown keys are ignored and missing ones are unknown, so that old runs stay readable.

use std::collections::BTreeMap;
use std::fs::File;
use std::io::{self, Read, Seek, SeekFrom};
use std::path::{Path, PathBuf};

use serde::Deserialize;

/// Most bytes read at one look; the rest is read at the next.
const MAX_READ: u64 = 8 << 20;

/// One optimiser step. Means are over the rollouts of its groups.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Number, from 1.
    pub step: u64,
    /// Seconds since the learner began.
    pub seconds: Option<f64>,
    /// Share of right answers.
    pub accuracy: Option<f64>,
    /// Mean reward.
    pub reward: Option<f64>,
    /// Mean tool rounds.
    pub rounds: Option<f64>,
    /// Mean searches.
    pub searches: Option<f64>,
    /// Mean thousands of tokens.
    pub kilotokens: Option<f64>,
    /// Cost-aware score.
    pub cas: Option<f64>,
    /// Mean rounds of the committed references.
    pub reference_rounds: Option<f64>,
    /// Mean searches of the committed references.
    pub reference_searches: Option<f64>,
    /// Distance to the teacher on distilled tokens.
    pub opd_reverse_kl: Option<f64>,
    /// Share of rollouts that were distilled.
    pub distilled: Option<f64>,
    /// Share of rollouts that the teacher should have shaped but said nothing of.
    pub untaught: Option<f64>,
    /// What each teacher version did.
    pub teachers: BTreeMap<String, TeacherMeans>,
    /// Mean age of the rollouts in versions.
    pub staleness: Option<f64>,
    /// The oldest.
    pub staleness_max: Option<f64>,
    /// Seconds that the learner waited for the batch.
    pub starved_seconds: Option<f64>,
    /// Seconds in the step itself.
    pub step_seconds: Option<f64>,
    /// Tokens trained per second.
    pub tokens_per_second: Option<f64>,
    /// The loss.
    pub loss: Option<f64>,
    /// Gradient norm before clipping.
    pub grad_norm: Option<f64>,
    /// Share of tokens whose ratio was clipped.
    pub clip_fraction: Option<f64>,
    /// Mean importance weight.
    pub tis_mean: Option<f64>,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Groups whose rewards teach nothing: all equal, or one verdict alone.
    pub zero_variance_groups: Option<u64>,
    /// Groups trained so far.
    pub groups_trained: Option<u64>,
    /// Groups dropped so far.
    pub groups_dropped: Option<u64>,
}

/// A teacher version in a step.
#[derive(Clone, Debug, Default, PartialEq, Deserialize)]
#[serde(default)]
pub struct TeacherMeans {
    /// Distance to it per token.
    pub reverse_kl: Option<f64>,
    /// Share of its likeliest tokens that are the policy's.
    pub top_overlap: Option<f64>,
}

impl Step {
    /// What a progress bar says.
    pub fn line(&self) -> String {
        let mut parts = Vec::new();
        let mut say = |name: &str, value: Option<f64>, decimals: usize| {
            if let Some(value) = value.filter(|value| value.is_finite()) {
                parts.push(format!("{name} {value:.decimals$}"));
            }
        };
        say("acc %", self.accuracy.map(|share| share * 100.0), 0);
        say("rounds", self.rounds, 2);
        say("searches", self.searches, 2);
        say("CAS", self.cas, 2);
        say("ref", self.reference_rounds, 2);
        say("KL", self.opd_reverse_kl, 2);
        say("no teacher %", self.untaught.filter(|share| *share > 0.0).map(|share| share * 100.0), 0);
        say("stale", self.staleness, 1);
        say("tok/s", self.tokens_per_second, 0);
        parts.join("  ")
    }
}

/// Why steps taught nothing, in words; `None` when one of them did, or when it is not known.
pub fn learned_nothing(steps: &[Step]) -> Option<String> {
    let all = |of: &dyn Fn(&Step) -> Option<f64>| !steps.is_empty() && steps.iter().all(|step| of(step) == Some(0.0));
    let why = if all(&|step| step.lr) {
        "the learning rate was 0 in every step".to_owned()
    } else if all(&|step| step.grad_norm) {
        let flat: u64 = steps.iter().filter_map(|step| step.zero_variance_groups).sum();
        let trained = steps.last().and_then(|step| step.groups_trained).unwrap_or(0);
        let groups = if trained > 0 && flat >= trained {
            format!(": in all {trained} groups every rollout was rewarded alike, or had no sibling to be compared with")
        } else {
            String::new()
        };
        let loss = if all(&|step| step.loss) { "loss and gradient norm were" } else { "the gradient norm was" };
        format!("{loss} 0 in every one of {} steps{groups}", steps.len())
    } else {
        return None;
    };
    Some(format!("nothing was learned: {why}"))
}

/// A file under observation.
#[derive(Debug)]
pub struct Follower {
    path: PathBuf,
    offset: u64,
    partial: Vec<u8>,
}

impl Follower {
    /// Begins at the beginning of `path`, which need not exist yet.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self { path: path.into(), offset: 0, partial: Vec::new() }
    }

    /// What was written since the last look, at most 8 MiB of it.
    ///
    /// # Errors
    /// Those of the file system, except that the file need not be there.
    pub fn look(&mut self) -> io::Result<Vec<Step>> {
        let mut file = match File::open(&self.path) {
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
            opened => opened?,
        };
        if file.metadata()?.len() < self.offset {
            (self.offset, self.partial) = (0, Vec::new());
        }
        file.seek(SeekFrom::Start(self.offset))?;
        let read = file.take(MAX_READ).read_to_end(&mut self.partial)?;
        self.offset += read as u64;
        let Some(end) = self.partial.iter().rposition(|byte| *byte == b'\n') else { return Ok(Vec::new()) };
        let rest = self.partial.split_off(end + 1);
        let whole = std::mem::replace(&mut self.partial, rest);
        Ok(whole.split(|byte| *byte == b'\n').filter_map(|line| serde_json::from_slice(line).ok()).collect())
    }
}

/// All steps of a file in order, each once: what was done again after a restart replaces what came first.
///
/// # Errors
/// As [`Follower::look`].
pub fn read_all(path: &Path) -> io::Result<Vec<Step>> {
    let mut follower = Follower::new(path);
    let mut steps = BTreeMap::new();
    loop {
        let before = follower.offset;
        steps.extend(follower.look()?.into_iter().map(|step| (step.step, step)));
        if follower.offset == before {
            return Ok(steps.into_values().collect());
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Write;

    use super::*;

    #[test]
    fn lines_come_when_they_are_whole_and_again_after_a_restart() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("metrics.jsonl");
        let mut follower = Follower::new(&path);
        assert!(follower.look().expect("not there is fine").is_empty());
        let mut file = File::create(&path).expect("made");
        file.write_all(b"{\"step\":1,\"accuracy\":0.5,\"new_key\":[1]}\n{\"step\":2,\"acc").expect("written");
        let steps = follower.look().expect("read");
        assert_eq!((steps.len(), steps[0].step, steps[0].accuracy), (1, 1, Some(0.5)));
        file.write_all(b"uracy\":null}\n").expect("written");
        let steps = follower.look().expect("read");
        assert_eq!((steps[0].step, steps[0].accuracy), (2, None));
        assert!(follower.look().expect("read").is_empty());
        std::fs::write(&path, "{\"step\":2}\n").expect("shorter");
        assert_eq!(follower.look().expect("read").len(), 1);
    }

    #[test]
    fn a_run_that_learned_nothing_says_why() {
        let step = |norm, lr, groups| Step {
            loss: Some(0.0),
            grad_norm: Some(norm),
            lr: Some(lr),
            zero_variance_groups: Some(2),
            groups_trained: Some(groups),
            ..Step::default()
        };
        let says = learned_nothing(&[step(0.0, 1e-4, 2), step(0.0, 1e-4, 4)]).expect("nothing");
        assert_eq!(
            says,
            "nothing was learned: loss and gradient norm were 0 in every one of 2 steps: in all 4 groups every rollout was rewarded alike, \
             or had no sibling to be compared with"
        );
        assert!(learned_nothing(&[step(1.0, 0.0, 4)]).expect("no rate").contains("learning rate was 0"));
        assert_eq!(learned_nothing(&[step(0.0, 1e-4, 2), step(0.1, 1e-4, 4)]), None);
        assert_eq!(learned_nothing(&[]), None);
        assert_eq!(learned_nothing(&[Step::default()]), None, "an old run does not say");
    }

    #[test]
    fn a_step_that_was_done_twice_counts_once() {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let path = folder.path().join("metrics.jsonl");
        std::fs::write(&path, "{\"step\":1}\n{\"step\":2,\"reward\":0.1}\nnot json\n{\"step\":2,\"reward\":0.2}\n").expect("written");
        let steps = read_all(&path).expect("read");
        assert_eq!(steps.iter().map(|step| (step.step, step.reward)).collect::<Vec<_>>(), [(1, None), (2, Some(0.2))]);
    }

    #[test]
    fn the_line_leaves_out_what_is_unknown() {
        let step = Step { step: 3, accuracy: Some(0.615), rounds: Some(2.5), cas: Some(f64::NAN), ..Step::default() };
        assert_eq!(step.line(), "acc % 62  rounds 2.50");
    }
}
