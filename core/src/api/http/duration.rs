//! Durations as Go writes them (`1m30s`), which is how Consul's API and its clients write them.

use std::time::Duration;

/// Parses what Go's `time.ParseDuration` takes: a sign, then numbers with units (`300ms`, `-1.5h`, `1m30s`, `0`).
/// Gives nanoseconds; `None` for anything else, and beyond ±292 years.
pub fn parse(text: &str) -> Option<i64> {
    let (negative, mut rest) = match text.as_bytes().first()? {
        b'-' => (true, &text[1..]),
        b'+' => (false, &text[1..]),
        _ => (false, text),
    };
    if rest == "0" {
        return Some(0);
    }
    if rest.is_empty() {
        return None;
    }
    let mut total: i128 = 0;
    while !rest.is_empty() {
        let (nanos, after) = parse_part(rest)?;
        total = total.checked_add(nanos)?;
        rest = after;
    }
    i64::try_from(if negative { -total } else { total }).ok()
}

/// Why Go would not parse a text as a duration.
pub fn complaint(text: &str) -> String {
    let unsigned = text.trim_start_matches(['-', '+']);
    let (number, rest) = unsigned.split_at(
        unsigned
            .find(|c: char| !c.is_ascii_digit() && c != '.')
            .unwrap_or(unsigned.len()),
    );
    let end = rest.find(|c: char| c == '.' || c.is_ascii_digit());
    let unit = &rest[..end.unwrap_or(rest.len())];
    match (number, unit) {
        ("" | ".", _) => format!("time: invalid duration {text:?}"),
        (_, "") => format!("time: missing unit in duration {text:?}"),
        (_, unit) if parse(&format!("1{unit}")).is_none() => {
            format!("time: unknown unit {unit:?} in duration {text:?}")
        }
        _ => format!("time: invalid duration {text:?}"),
    }
}

/// One number with its unit, and what follows it.
fn parse_part(text: &str) -> Option<(i128, &str)> {
    let (whole, rest) = split_digits(text);
    let (fraction, rest) = match rest.strip_prefix('.') {
        Some(rest) => split_digits(rest),
        None => ("", rest),
    };
    if whole.is_empty() && fraction.is_empty() {
        return None;
    }
    let end = rest
        .find(|c: char| c == '.' || c.is_ascii_digit())
        .unwrap_or(rest.len());
    let (unit, rest) = rest.split_at(end);
    let unit: i128 = match unit {
        "ns" => 1,
        // Both spellings of the letter mu.
        "us" | "\u{b5}s" | "\u{3bc}s" => 1_000,
        "ms" => 1_000_000,
        "s" => 1_000_000_000,
        "m" => 60_000_000_000,
        "h" => 3_600_000_000_000,
        _ => return None,
    };
    let mut nanos = if whole.is_empty() {
        0
    } else {
        i128::from(whole.parse::<u64>().ok()?).checked_mul(unit)?
    };
    let mut digit_value = unit;
    for digit in fraction.bytes() {
        digit_value /= 10;
        nanos = nanos.checked_add(digit_value.checked_mul(i128::from(digit - b'0'))?)?;
    }
    Some((nanos, rest))
}

fn split_digits(text: &str) -> (&str, &str) {
    text.split_at(text.find(|c: char| !c.is_ascii_digit()).unwrap_or(text.len()))
}

/// Writes a duration like Go's `Duration.String`: `1h0m0s`, `1m30s`, `1.5s`, `500ms`, `0s`.
pub fn format(duration: Duration) -> String {
    let nanos = duration.as_nanos();
    match nanos {
        0 => "0s".to_owned(),
        1..1_000 => format!("{nanos}ns"),
        1_000..1_000_000 => with_fraction(nanos, 1_000, "\u{b5}s"),
        1_000_000..1_000_000_000 => with_fraction(nanos, 1_000_000, "ms"),
        _ => {
            let seconds = with_fraction(nanos % 60_000_000_000, 1_000_000_000, "s");
            let minutes = nanos / 60_000_000_000;
            match (minutes / 60, minutes % 60) {
                (0, 0) => seconds,
                (0, minutes) => format!("{minutes}m{seconds}"),
                (hours, minutes) => format!("{hours}h{minutes}m{seconds}"),
            }
        }
    }
}

/// `nanos` in a unit, with as many decimals as it takes.
fn with_fraction(nanos: u128, unit: u128, name: &str) -> String {
    let (whole, rest) = (nanos / unit, nanos % unit);
    if rest == 0 {
        return format!("{whole}{name}");
    }
    let digits = unit.ilog10() as usize;
    let fraction = format!("{rest:0digits$}");
    format!("{whole}.{}{name}", fraction.trim_end_matches('0'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parses_what_go_parses() {
        let second = 1_000_000_000;
        for (text, nanos) in [
            ("0", 0),
            ("-0", 0),
            ("0s", 0),
            ("15s", 15 * second),
            ("+15s", 15 * second),
            ("1m30s", 90 * second),
            ("1.5h", 5400 * second),
            (".5s", second / 2),
            ("1.s", second),
            ("500ms", second / 2),
            ("1h2m3s4ms5us6ns", 3_723_004_005_006),
            ("1\u{b5}s", 1_000),
            ("1\u{3bc}s", 1_000),
            ("0.000000001s", 1),
            ("-5s", -5 * second),
            ("9223372036854775807ns", i64::MAX),
        ] {
            assert_eq!(parse(text), Some(nanos), "{text}");
        }
        for text in [
            "",
            "-",
            "+",
            "s",
            "10",
            "1",
            "abc",
            "1 s",
            " 1s",
            "1s ",
            "1d",
            ".s",
            "1..5s",
            "1e3s",
            "--1s",
            "99999999999h",
            "9223372036854775808ns",
            "1m30",
            "\u{b5}",
            "1s\u{e9}",
            "184467440737095516160s",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    #[test]
    fn formats_as_go_formats() {
        for (nanos, text) in [
            (0, "0s"),
            (1, "1ns"),
            (1_500, "1.5\u{b5}s"),
            (500_000_000, "500ms"),
            (1_500_000_000, "1.5s"),
            (10_000_000_000, "10s"),
            (60_000_000_000, "1m0s"),
            (90_000_000_000, "1m30s"),
            (5_400_000_000_000, "1h30m0s"),
            (3_600_000_000_001, "1h0m0.000000001s"),
        ] {
            assert_eq!(format(Duration::from_nanos(nanos)), text);
        }
    }

    #[test]
    fn what_is_formatted_parses_back() {
        let mut nanos: u64 = 1;
        while nanos < 1 << 62 {
            let text = format(Duration::from_nanos(nanos));
            assert_eq!(parse(&text), i64::try_from(nanos).ok(), "{text}");
            nanos = nanos * 3 + 7;
        }
    }
}
