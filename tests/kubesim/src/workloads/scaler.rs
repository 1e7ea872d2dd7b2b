//! Horizontal autoscaling: replicas from a metric's value, with tolerance, stabilisation and rates.

use std::time::{Duration, Instant};

use serde_json::Value;

use crate::amount::{count, quantity, seconds};
use crate::manifest::list;

/// A change smaller than this part of the target is none.
const TOLERANCE: f64 = 0.1;

/// What an autoscaler remembers of its past.
#[derive(Debug, Default)]
pub struct Memory {
    desired: Vec<(Instant, u32)>,
    changes: Vec<(Instant, i64)>,
}

/// What a metric was found to be.
#[derive(Clone, Copy, Debug)]
pub struct Reading {
    /// Sum over all series.
    pub total: f64,
    /// Ready pods among which an average is made: those of the scaled object.
    pub pods: u32,
}

/// How many replicas a metric asks for.
pub fn desired(target: &Value, reading: Reading, replicas: u32) -> Option<u32> {
    let (ratio, desired) = if let Some(average) = quantity(&target["averageValue"]) {
        let ratio = reading.total / (average * f64::from(reading.pods.max(1)));
        (ratio, (reading.total / average).ceil())
    } else {
        let ratio = reading.total / quantity(&target["value"])?;
        (ratio, (ratio * f64::from(reading.pods.max(1))).ceil())
    };
    if !ratio.is_finite() {
        return None;
    }
    Some(if (ratio - 1.0).abs() <= TOLERANCE { replicas } else { desired as u32 })
}

/// Replicas from what every metric asks for (`None`: it could not be read), the past and the object's `behavior`.
/// `pace` is how much faster than Kubernetes' time runs.
pub fn decide(spec: &Value, replicas: u32, desired: &[Option<u32>], memory: &mut Memory, now: Instant, pace: f64) -> u32 {
    let known = desired.iter().flatten().max().copied();
    let blind = desired.iter().any(Option::is_none);
    // With a metric unread, others may still ask for more, never for less.
    let Some(desired) = known.filter(|desired| !blind || *desired > replicas) else { return replicas };
    let (least, most) = (count(&spec["minReplicas"], 1), count(&spec["maxReplicas"], u32::MAX));
    memory.desired.push((now, desired.clamp(least, most)));
    memory.desired.retain(|(at, _)| now - *at <= Duration::from_secs(3600));

    let behaviour = |direction: &str| &spec["behavior"][direction];
    let window = |direction: &str, otherwise| seconds(&behaviour(direction)["stabilizationWindowSeconds"], otherwise).div_f64(pace);
    let within = |memory: &Memory, window: Duration| {
        let recent = memory.desired.iter().filter(move |(at, _)| now - *at <= window).map(|(_, desired)| *desired);
        recent.collect::<Vec<_>>()
    };
    // Up to what was asked for all along, down to what was never exceeded.
    let up = within(memory, window("scaleUp", 0)).into_iter().min().unwrap_or(desired);
    let down = within(memory, window("scaleDown", 300)).into_iter().max().unwrap_or(desired);
    let stable = replicas.max(up).min(down.max(up));
    let allowed = match stable.cmp(&replicas) {
        std::cmp::Ordering::Greater => stable.min(rate(behaviour("scaleUp"), replicas, memory, now, pace, true)),
        std::cmp::Ordering::Less => stable.max(rate(behaviour("scaleDown"), replicas, memory, now, pace, false)),
        std::cmp::Ordering::Equal => stable,
    };
    let decided = allowed.clamp(least, most);
    if decided != replicas {
        memory.changes.push((now, i64::from(decided) - i64::from(replicas)));
    }
    decided
}

/// How far the policies let replicas go now.
fn rate(behaviour: &Value, replicas: u32, memory: &Memory, now: Instant, pace: f64, up: bool) -> u32 {
    if behaviour["selectPolicy"] == "Disabled" {
        return replicas;
    }
    let defaults = if up { vec![("Percent", 100, 15), ("Pods", 4, 15)] } else { vec![("Percent", 100, 15)] };
    let mut policies: Vec<_> = list(&behaviour["policies"])
        .map(|policy| {
            let kind = policy["type"].as_str().unwrap_or_default();
            (kind, count(&policy["value"], 0), count(&policy["periodSeconds"], 15))
        })
        .collect();
    if policies.is_empty() {
        policies = defaults;
    }
    let limit = |(kind, value, period): &(&str, u32, u32)| {
        let since = Duration::from_secs(u64::from(*period)).div_f64(pace);
        let recent = memory.changes.iter().filter(|(at, change)| now - *at <= since && (*change > 0) == up);
        let before = i64::from(replicas) - recent.map(|(_, change)| change).sum::<i64>();
        let step = if *kind == "Percent" { before as f64 * f64::from(*value) / 100.0 } else { f64::from(*value) };
        (if up { before as f64 + step.ceil() } else { before as f64 - step.floor() }).max(0.0) as u32
    };
    let limits = policies.iter().map(limit);
    let widest = if up { limits.clone().max() } else { limits.clone().min() };
    let tightest = if up { limits.min() } else { limits.max() };
    (if behaviour["selectPolicy"] == "Min" { tightest } else { widest }).unwrap_or(replicas)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_metric_asks_in_proportion_beyond_the_tolerance() {
        let average = json!({"type": "AverageValue", "averageValue": "10"});
        let reading = |total| Reading { total, pods: 2 };
        assert_eq!(desired(&average, reading(21.0), 2), Some(2));
        assert_eq!((desired(&average, reading(35.0), 2), desired(&average, reading(5.0), 2)), (Some(4), Some(1)));
        assert_eq!(desired(&json!({"value": "500m"}), reading(1.0), 2), Some(4));
        assert_eq!(desired(&json!({}), reading(1.0), 2), None);
    }

    #[test]
    fn up_is_quick_within_its_rate_and_down_waits_for_its_window() {
        let spec = json!({"minReplicas": 1, "maxReplicas": 8, "behavior": {
            "scaleUp": {"policies": [{"type": "Pods", "value": 2, "periodSeconds": 60}]},
            "scaleDown": {"stabilizationWindowSeconds": 120, "policies": [{"type": "Pods", "value": 1, "periodSeconds": 60}]}}});
        let (mut memory, start) = (Memory::default(), Instant::now());
        let mut at =
            |seconds, replicas, desired| decide(&spec, replicas, &[desired], &mut memory, start + Duration::from_secs(seconds), 1.0);
        assert_eq!(at(0, 1, Some(9)), 3);
        assert_eq!(at(30, 3, Some(9)), 3);
        assert_eq!(at(61, 3, Some(9)), 5);
        assert_eq!(at(90, 5, None), 5);
        assert_eq!(at(100, 5, Some(1)), 5);
        assert_eq!(at(190, 5, Some(1)), 4);
        assert_eq!(at(200, 4, Some(1)), 4);
        assert_eq!(at(260, 4, Some(1)), 3);
    }
}
