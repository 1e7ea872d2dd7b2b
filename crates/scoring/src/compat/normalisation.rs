//! Group normalisation of raw rewards with the anomaly mask (docs/spec.md#normalisation). In: the rewards of one prompt. Out: advantages.
//!
//! A formula for checking; the learner has its own.

/// Rewards at or below this are anomalies: outside mean and deviation, advantage 0.
const ANOMALY: f64 = -99.0;

/// `(r - mean) / (std + 1e-6)` over the valid rewards, std with n - 1; anomalies, and everything when at most one reward
/// is valid, give 0.
pub fn group_normalisation(rewards: &[f64]) -> Vec<f64> {
    let valid: Vec<f64> = rewards.iter().copied().filter(|reward| *reward > ANOMALY).collect();
    if valid.len() <= 1 {
        return vec![0.0; rewards.len()];
    }
    let mean = valid.iter().sum::<f64>() / valid.len() as f64;
    let variance = valid.iter().map(|reward| (reward - mean).powi(2)).sum::<f64>() / (valid.len() - 1) as f64;
    let scale = variance.sqrt() + 1e-6;
    rewards.iter().map(|reward| if *reward > ANOMALY { (reward - mean) / scale } else { 0.0 }).collect()
}
