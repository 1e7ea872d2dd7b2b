//! What each teacher did in a batch: how far the policy is from it, how much of its choice the policy shares. In: log-probs of both.
//! Out: means per teacher version, so that a swap is seen in what follows it.

use std::collections::{BTreeMap, HashSet};

use hypereyes_domain::TeacherLogprobs;
use hypereyes_run::TeacherMeans;
use serde::{Deserialize, Serialize};

/// Sums of a part of a batch; parts add up.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub struct Sums(BTreeMap<String, Sum>);

#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
struct Sum {
    rollouts: usize,
    tokens: usize,
    gap: f64,
    shared: usize,
    named: usize,
}

impl Sums {
    /// Adds a rollout: log-probs of policy and teacher for its sampled tokens.
    pub fn add(&mut self, teacher: &TeacherLogprobs, policy: &[f64], own: &[f64]) {
        let sum = self.0.entry(teacher.teacher.to_string()).or_default();
        sum.rollouts += 1;
        sum.tokens += policy.len();
        sum.gap += policy.iter().zip(own).map(|(policy, own)| policy - own).sum::<f64>();
    }

    /// Adds what the policy finds likeliest at a rollout's sampled tokens, as many for each as the teacher named.
    pub fn compare(&mut self, teacher: &TeacherLogprobs, policy: &[u32], tokens: usize) {
        let count = teacher.top.len() / tokens.max(1);
        if count == 0 || policy.len() != teacher.top.len() {
            return;
        }
        let sum = self.0.entry(teacher.teacher.to_string()).or_default();
        for (theirs, ours) in teacher.top.chunks_exact(count).zip(policy.chunks_exact(count)) {
            let theirs: HashSet<u32> = theirs.iter().copied().collect();
            sum.shared += ours.iter().filter(|id| theirs.contains(id)).count();
            sum.named += count;
        }
    }

    /// Adds another part.
    pub fn absorb(&mut self, other: &Self) {
        for (teacher, part) in &other.0 {
            let sum = self.0.entry(teacher.clone()).or_default();
            sum.rollouts += part.rollouts;
            sum.tokens += part.tokens;
            sum.gap += part.gap;
            sum.shared += part.shared;
            sum.named += part.named;
        }
    }

    /// The means, per teacher version as `name#epoch`.
    pub fn means(&self) -> BTreeMap<String, TeacherMeans> {
        let mean = |(teacher, sum): (&String, &Sum)| {
            let overlap = (sum.named > 0).then(|| sum.shared as f64 / sum.named as f64);
            let reverse_kl = sum.gap / sum.tokens.max(1) as f64;
            let (rollouts, tokens) = (sum.rollouts as u64, sum.tokens as u64);
            (teacher.clone(), TeacherMeans { rollouts, tokens, reverse_kl: Some(reverse_kl), top_overlap: overlap })
        };
        self.0.iter().map(mean).collect()
    }
}

#[cfg(test)]
mod tests {
    use hypereyes_domain::TeacherVersion;

    use super::*;

    #[test]
    fn parts_add_up_and_teachers_stay_apart() {
        let teacher = |epoch, top: Vec<u32>| TeacherLogprobs { teacher: TeacherVersion::new("t", epoch), logprobs: vec![], top };
        let (mut one, mut other) = (Sums::default(), Sums::default());
        one.add(&teacher(1, vec![]), &[-1.0, -2.0], &[-2.0, -3.0]);
        one.compare(&teacher(1, vec![5, 6, 7, 8]), &[6, 9, 8, 7], 2);
        other.add(&teacher(1, vec![]), &[-1.0], &[-5.0]);
        other.add(&teacher(2, vec![]), &[-1.0], &[-1.5]);
        other.compare(&teacher(2, vec![1, 2]), &[1], 1);
        one.absorb(&other);
        let means = one.means();
        assert_eq!(means["t#1"], TeacherMeans { rollouts: 2, tokens: 3, reverse_kl: Some(2.0), top_overlap: Some(0.75) });
        assert_eq!(means["t#2"], TeacherMeans { rollouts: 1, tokens: 1, reverse_kl: Some(0.5), top_overlap: None });
    }
}
