//! Figures as people read them.

use std::time::Duration;

/// With separators: 12,345.
#[must_use]
pub fn count(number: usize) -> String {
    let digits = number.to_string();
    let mut text = String::with_capacity(digits.len() + digits.len() / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            text.push(',');
        }
        text.push(digit);
    }
    text
}

/// With separators and sign: −12,345.
#[must_use]
pub fn amount(number: i64) -> String {
    let digits = count(usize::try_from(number.unsigned_abs()).unwrap_or(usize::MAX));
    if number < 0 { format!("−{digits}") } else { digits }
}

/// With three digits or so.
#[must_use]
pub fn duration(duration: Duration) -> String {
    let millis = duration.as_secs_f64() * 1e3;
    match millis {
        ..10.0 => format!("{millis:.1} ms"),
        ..1000.0 => format!("{millis:.0} ms"),
        _ => format!("{:.2} s", millis / 1e3),
    }
}

/// How many there are in a second; 0 if no time passed.
#[must_use]
pub fn per_second(how_many: usize, took: Duration) -> usize {
    let micros = took.as_micros();
    let scaled = u128::try_from(how_many).unwrap_or_default() * 1_000_000;
    scaled.checked_div(micros).and_then(|rate| usize::try_from(rate).ok()).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_are_readable() {
        assert_eq!([0, 999, 1_000, 1_234_567].map(count), ["0", "999", "1,000", "1,234,567"]);
        assert_eq!([0, 1_000, -1_234].map(amount), ["0", "1,000", "−1,234"]);
        let durations =
            [12, 3_460, 34_600, 3_456_000].map(|micros| duration(Duration::from_micros(micros)));
        assert_eq!(durations, ["0.0 ms", "3.5 ms", "35 ms", "3.46 s"]);
        assert_eq!(per_second(1_000, Duration::from_millis(250)), 4_000);
        assert_eq!(per_second(1_000, Duration::ZERO), 0);
    }
}
