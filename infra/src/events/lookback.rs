//! How far back a search goes.

use std::{fmt, str::FromStr, time::Duration};

use thiserror::Error;

/// The longest retention of a log in CloudWatch Logs, in days.
const MAX_DAYS: u64 = 3653;

/// Units, and the seconds of each.
const UNITS: [(char, u64); 3] = [('m', 60), ('h', 3600), ('d', 24 * 3600)];

/// How far back a search goes, such as `24h`. It is shown as it was written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Lookback {
    text: String,
    duration: Duration,
}

/// The text is no such time.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Error)]
#[error("write a number and its unit, such as 30m, 24h or 7d, of at most {MAX_DAYS} days")]
pub struct InvalidLookback;

impl Lookback {
    /// Returns the time.
    pub fn duration(&self) -> Duration {
        self.duration
    }
}

impl FromStr for Lookback {
    type Err = InvalidLookback;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let (unit, seconds) = UNITS.into_iter().find(|(unit, _)| text.ends_with(*unit)).ok_or(InvalidLookback)?;
        let number = text.strip_suffix(unit).filter(|number| number.bytes().all(|byte| byte.is_ascii_digit()));
        let number: u64 = number.and_then(|number| number.parse().ok()).ok_or(InvalidLookback)?;
        let total = number.checked_mul(seconds).filter(|total| (1..=MAX_DAYS * 24 * 3600).contains(total));
        let duration = Duration::from_secs(total.ok_or(InvalidLookback)?);
        Ok(Self { text: text.to_owned(), duration })
    }
}

impl fmt::Display for Lookback {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&self.text)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_number_with_its_unit_is_a_lookback() {
        for (text, seconds) in [("30m", 1800), ("24h", 86_400), ("90m", 5400), ("7d", 604_800), ("5h", 18_000)] {
            let lookback: Lookback = text.parse().expect("a lookback");
            assert_eq!((lookback.duration().as_secs(), lookback.to_string().as_str()), (seconds, text));
        }
        for bad in ["", "h", "24", "0h", "-1h", "+1h", "1.5h", "24 h", "24H", "3654d", "99999999999999999999d", "2w"] {
            assert_eq!(bad.parse::<Lookback>(), Err(InvalidLookback), "{bad}");
        }
    }
}
