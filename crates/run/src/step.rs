//! One optimiser step: the one definition of a line of `metrics.jsonl`.
//!
//! In: what the learner measured, or a line of a file. Out: the other; the numbers for Prometheus; what a progress bar says. A key that a
//! line has not is unknown (`None`), and keys that are not known here are passed over, so that the runs of other releases stay readable.
//! A number that is not finite is written as `null` and read back as unknown.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::metrics::LAST_STEP;

/// One optimiser step. Means are over the rollouts of its groups. The order of the fields is that of the keys.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct Step {
    /// Number, from 1.
    pub step: u64,
    /// Policy version that the step made.
    pub version: Option<u64>,
    /// Pass over the tasks, from 0.
    pub epoch: Option<u64>,
    /// Seconds since the learner began, over all its starts.
    pub seconds: Option<f64>,
    /// Seconds in the step itself.
    pub step_seconds: Option<f64>,
    /// Seconds that the learner waited for the batch.
    pub starved_seconds: Option<f64>,
    /// The objective's value.
    pub loss: Option<f64>,
    /// Gradient norm before clipping, the mean over the updates of the batch.
    pub grad_norm: Option<f64>,
    /// Learning rate.
    pub lr: Option<f64>,
    /// Optimiser updates that the batch made.
    pub updates: Option<u64>,
    /// Mean reward of judged rollouts.
    pub reward: Option<f64>,
    /// Share of judged rollouts that are right, 0..=1.
    pub accuracy: Option<f64>,
    /// Mean tool rounds.
    pub rounds: Option<f64>,
    /// Mean searches.
    pub searches: Option<f64>,
    /// Mean thousands of tokens of a rollout, prompt included.
    pub kilotokens: Option<f64>,
    /// Cost-aware score of the batch's means.
    pub cas: Option<f64>,
    /// Mean rounds of the references that the batch was scored against.
    pub reference_rounds: Option<f64>,
    /// Mean searches of those references.
    pub reference_searches: Option<f64>,
    /// Mean log-prob gap to the teacher over distilled tokens.
    pub opd_reverse_kl: Option<f64>,
    /// Share of rollouts that the teacher's log-probs shaped.
    pub distilled: Option<f64>,
    /// Share of rollouts routed to the teacher without an answer from it.
    pub untaught: Option<f64>,
    /// Share of trained tokens that the teacher's log-probs shaped.
    pub distilled_tokens: Option<f64>,
    /// What each teacher version did, by `name#epoch`.
    pub teachers: BTreeMap<String, TeacherMeans>,
    /// Share of tokens whose ratio was clipped; 0 where a batch makes one update.
    pub clip_fraction: Option<f64>,
    /// Share of tokens held by the dual bound; 0 where a batch makes one update.
    pub dual_clip_fraction: Option<f64>,
    /// Mean of `old - new` over trained tokens: how far the updates of a batch had moved the policy when a token was trained.
    pub ppo_kl: Option<f64>,
    /// Mean importance weight before truncation.
    pub tis_mean: Option<f64>,
    /// Mean absolute log-prob gap between learner and sampler.
    pub train_rollout_logprob_abs_diff: Option<f64>,
    /// Groups whose rewards are all equal, those of one verdict or none among them: they teach nothing but what the teacher says.
    pub zero_variance_groups: Option<u64>,
    /// Groups that were passed over for this step because they would teach nothing.
    pub skipped_groups: Option<u64>,
    /// Mean versions between sampling and training.
    pub staleness: Option<f64>,
    /// The most versions between sampling and training.
    pub staleness_max: Option<u64>,
    /// Tokens passed through the model.
    pub tokens: Option<u64>,
    /// Tokens trained per second of the step.
    pub tokens_per_second: Option<f64>,
    /// Groups trained so far.
    pub groups_trained: Option<u64>,
    /// Groups dropped so far.
    pub groups_dropped: Option<u64>,
    /// Tasks that failed too often and are not leased any more.
    pub tasks_set_aside: Option<u64>,
}

/// Means of a step's rollouts under one teacher version.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
#[serde(default)]
pub struct TeacherMeans {
    /// Rollouts that it shaped.
    pub rollouts: u64,
    /// Their sampled tokens.
    pub tokens: u64,
    /// Mean of `log p_policy - log p_teacher` over those tokens: an estimate of KL(policy || teacher).
    pub reverse_kl: Option<f64>,
    /// Share of the teacher's likeliest tokens that are among the policy's as many likeliest; `None` where nobody asked for them.
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

    /// Sets the gauge [`LAST_STEP`] of every number that is known: a field that is added above is in Prometheus by that alone.
    pub fn publish(&self) {
        for (field, number) in self.numbers() {
            metrics::gauge!(LAST_STEP, "field" => field).set(number);
        }
    }

    /// Every finite number by its key; not those of single teachers.
    fn numbers(&self) -> Vec<(String, f64)> {
        let serde_json::Value::Object(fields) = serde_json::to_value(self).expect("plain values") else { return Vec::new() };
        fields.into_iter().filter_map(|(key, value)| Some((key, value.as_f64()?))).collect()
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

#[cfg(test)]
mod tests {
    use super::*;

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
    fn the_line_leaves_out_what_is_unknown() {
        let step = Step { step: 3, accuracy: Some(0.615), rounds: Some(2.5), cas: Some(f64::NAN), ..Step::default() };
        assert_eq!(step.line(), "acc % 62  rounds 2.50");
    }

    #[test]
    fn what_is_not_finite_is_unknown_to_who_reads_it() {
        let teachers = [("t#1".to_owned(), TeacherMeans { rollouts: 1, tokens: 2, reverse_kl: Some(f64::INFINITY), top_overlap: None })];
        let step = Step { step: 3, loss: Some(f64::NAN), rounds: Some(2.5), teachers: teachers.into(), ..Step::default() };
        let text = serde_json::to_string(&step).expect("plain");
        assert!(text.contains("\"loss\":null") && text.starts_with("{\"step\":3,\"version\":null"), "{text}");
        let read: Step = serde_json::from_str(&text).expect("ours");
        assert_eq!((read.loss, read.rounds, read.teachers["t#1"].reverse_kl), (None, Some(2.5), None));
        assert_eq!(step.numbers(), [("step".to_owned(), 3.0), ("rounds".to_owned(), 2.5)]);
    }
}
