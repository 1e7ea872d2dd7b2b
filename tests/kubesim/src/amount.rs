//! Amounts as manifests write them: `25%`, `500m`, `4Gi`, `10m`.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;

/// A number of pods, or a percentage of `whole` rounded up or down.
pub fn share(value: &Value, whole: u32, up: bool, otherwise: &str) -> u32 {
    let written = match value {
        Value::Number(number) => return number.as_u64().unwrap_or(0) as u32,
        Value::String(written) => written.as_str(),
        _ => otherwise,
    };
    match written.strip_suffix('%').and_then(|percent| percent.parse::<u32>().ok()) {
        Some(percent) if up => (whole * percent).div_ceil(100),
        Some(percent) => whole * percent / 100,
        None => written.parse().unwrap_or(0),
    }
}

/// A resource quantity: `500m` is 0.5, `4Gi` is 4·2³⁰.
pub fn quantity(value: &Value) -> Option<f64> {
    let written = match value {
        Value::Number(number) => return number.as_f64(),
        Value::String(written) => written.trim(),
        _ => return None,
    };
    let split = written.find(|c: char| c.is_ascii_alphabetic() && c != 'e').unwrap_or(written.len());
    let (number, unit) = written.split_at(split);
    let factor = match unit {
        "" => 1.0,
        "m" => 1e-3,
        "k" => 1e3,
        "M" => 1e6,
        "G" => 1e9,
        "T" => 1e12,
        "Ki" => 1024.0,
        "Mi" => 1024f64.powi(2),
        "Gi" => 1024f64.powi(3),
        "Ti" => 1024f64.powi(4),
        _ => return None,
    };
    Some(number.parse::<f64>().ok()? * factor)
}

/// A time on the command line: `500ms`, `30s`, `10m`, `1h`.
pub fn duration(written: &str) -> Result<Duration> {
    let split = written.find(|c: char| c.is_ascii_alphabetic()).context("a time needs a unit: 500ms, 30s, 10m")?;
    let number: f64 = written[..split].parse().context("a time starts with a number: 500ms, 30s, 10m")?;
    let seconds = match &written[split..] {
        "ms" => number / 1000.0,
        "s" => number,
        "m" => number * 60.0,
        "h" => number * 3600.0,
        unit => bail!("unknown unit `{unit}`: ms, s, m or h"),
    };
    Duration::try_from_secs_f64(seconds).context("a time is not negative")
}

/// Whole or broken seconds of a manifest's field, with the default that Kubernetes gives it.
pub fn seconds(value: &Value, otherwise: u64) -> Duration {
    value.as_f64().and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or(Duration::from_secs(otherwise))
}

/// A whole number of a manifest's field.
pub fn count(value: &Value, otherwise: u32) -> u32 {
    value.as_u64().map_or(otherwise, |count| count as u32)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn amounts_read_as_kubernetes_reads_them() {
        assert_eq!((share(&json!("25%"), 5, true, "0"), share(&json!("25%"), 5, false, "0")), (2, 1));
        assert_eq!((share(&json!(3), 5, true, "0"), share(&Value::Null, 4, true, "25%")), (3, 1));
        assert_eq!(
            (quantity(&json!("500m")), quantity(&json!("4Gi")), quantity(&json!(2))),
            (Some(0.5), Some(4.0 * 1073741824.0), Some(2.0))
        );
        assert_eq!(quantity(&json!("1x")), None);
        assert_eq!(duration("1.5m").unwrap(), Duration::from_secs(90));
        assert!(duration("10").is_err() && duration("10d").is_err() && duration("-1s").is_err());
    }
}
