//! How long a caller will wait. In: the `grpc-timeout` header. Out: a duration. Knows no message.

use std::time::Duration;

/// The wait granted to callers that name none, and the longest granted to any.
pub const LONGEST: Duration = Duration::from_secs(600);

/// Reads a `grpc-timeout` value: up to eight digits and a unit (`H`, `M`, `S`, `m`, `u`, `n`). What cannot be read, and what is
/// absent, is [`LONGEST`].
pub fn parse(header: Option<&str>) -> Duration {
    let read = |text: &str| {
        let (digits, unit) = text.split_at_checked(text.len().checked_sub(1)?)?;
        if digits.is_empty() || digits.len() > 8 || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
            return None;
        }
        let number: u64 = digits.parse().ok()?;
        Some(match unit {
            "H" => Duration::from_secs(number * 3600),
            "M" => Duration::from_secs(number * 60),
            "S" => Duration::from_secs(number),
            "m" => Duration::from_millis(number),
            "u" => Duration::from_micros(number),
            "n" => Duration::from_nanos(number),
            _ => return None,
        })
    };
    header.and_then(read).unwrap_or(LONGEST).min(LONGEST)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_unit_is_read_and_nonsense_is_the_longest_wait() {
        for (text, expected) in [("2S", 2_000), ("1500m", 1_500), ("3000000u", 3_000), ("1M", 60_000), ("99999999n", 99), ("0S", 0)] {
            assert_eq!(parse(Some(text)).as_millis(), expected, "{text}");
        }
        for text in ["", "S", "1", "-1S", "1s", "123456789S", "99999999H", "é"] {
            assert_eq!(parse(Some(text)), LONGEST, "{text}");
        }
        assert_eq!(parse(None), LONGEST);
    }
}
