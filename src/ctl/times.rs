//! Times as people write and read them: spans such as `10m`, and moments in UTC. PURE.
#![deny(clippy::disallowed_methods, clippy::disallowed_types)]

use std::time::Duration;

use toml::value::{Datetime, Offset};

const DAY_S: i64 = 86_400;

/// `30s`, `10m`, `2h` or `1d`.
///
/// # Errors
/// A sentence that says what would be right.
pub fn span(text: &str) -> Result<Duration, String> {
    let wrong = || format!("{text:?} is no span of time; write 30s, 10m, 2h or 1d");
    let unit = text.chars().last().ok_or_else(wrong)?;
    let seconds: u64 = match unit {
        's' => 1,
        'm' => 60,
        'h' => 3600,
        'd' => 86_400,
        _ => return Err(wrong()),
    };
    let digits = text.strip_suffix(unit).filter(|digits| digits.bytes().all(|byte| byte.is_ascii_digit()));
    let count: u64 = digits.and_then(|digits| digits.parse().ok()).ok_or_else(wrong)?;
    count.checked_mul(seconds).map(Duration::from_secs).ok_or_else(wrong)
}

/// A moment in microseconds since 1970: so long before `now_us`, or a date with or without a time, in UTC unless it says
/// otherwise.
///
/// # Errors
/// A sentence that says what would be right.
pub fn moment(text: &str, now_us: u64) -> Result<u64, String> {
    moment_in(
        text,
        now_us,
        &Zone { name: "UTC", seconds: &|text| seconds_of(text).and_then(|s| u64::try_from(s).ok()) },
    )
}

/// A time zone, for dates that do not say theirs.
pub struct Zone<'a> {
    /// For people.
    pub name: &'a str,
    /// Seconds since 1970 of `2026-01-31 12:00:00` there; `None` before 1970.
    pub seconds: &'a dyn Fn(&str) -> Option<u64>,
}

/// The same in another zone than UTC.
///
/// # Errors
/// A sentence that says what would be right.
pub fn moment_in(text: &str, now_us: u64, zone: &Zone<'_>) -> Result<u64, String> {
    if let Ok(span) = span(text) {
        return Ok(now_us.saturating_sub(u64::try_from(span.as_micros()).unwrap_or(u64::MAX)));
    }
    let zone_name = zone.name;
    let wrong = || {
        format!(
            "{text:?} is no time; write 10m, 2h or 1d (so long ago), 2026-01-31 or \"2026-01-31 12:00\" ({zone_name})"
        )
    };
    let written: Datetime = text.parse().map_err(|_| wrong())?;
    let date = written.date.ok_or_else(wrong)?;
    let (hour, minute, second) =
        written.time.map_or((0, 0, 0), |time| (time.hour, time.minute, time.second.unwrap_or(0)));
    let plain = format!("{:04}-{:02}-{:02} {hour:02}:{minute:02}:{second:02}", date.year, date.month, date.day);
    let seconds = match written.offset {
        Some(Offset::Custom { minutes }) => {
            seconds_of(&plain).and_then(|s| u64::try_from(s - i64::from(minutes) * 60).ok())
        }
        Some(Offset::Z) => seconds_of(&plain).and_then(|s| u64::try_from(s).ok()),
        None => (zone.seconds)(&plain),
    };
    seconds.and_then(|seconds| seconds.checked_mul(1_000_000)).ok_or_else(wrong)
}

/// Seconds since 1970 of a date and a time in UTC.
fn seconds_of(text: &str) -> Option<i64> {
    let written: Datetime = text.parse().ok()?;
    let (date, time) = (written.date?, written.time?);
    let of_day = i64::from(time.hour) * 3600 + i64::from(time.minute) * 60 + i64::from(time.second.unwrap_or(0));
    Some(days(i64::from(date.year), i64::from(date.month), i64::from(date.day)) * DAY_S + of_day)
}

/// `2026-11-21 10:40:00Z`, out of microseconds since 1970.
pub fn utc(us: u64) -> String {
    format!("{}Z", without_zone(us))
}

/// The same with milliseconds: `2026-11-21 10:40:00.250Z`.
pub fn utc_precise(us: u64) -> String {
    format!("{}.{:03}Z", without_zone(us), us / 1000 % 1000)
}

fn without_zone(us: u64) -> String {
    // Of any `u64` of microseconds, the seconds fit.
    let seconds = i64::try_from(us / 1_000_000).unwrap_or_default();
    let (year, month, day) = date(seconds / DAY_S);
    let second = seconds % DAY_S;
    format!("{year:04}-{month:02}-{day:02} {:02}:{:02}:{:02}", second / 3600, second / 60 % 60, second % 60)
}

/// A span for people: `45 s`, `10 min`, `2 h`, `1 d`; what is not whole, in the next smaller unit.
pub fn words(span: Duration) -> String {
    match span.as_secs() {
        seconds if seconds > 0 && seconds.is_multiple_of(86_400) => format!("{} d", seconds / 86_400),
        seconds if seconds > 0 && seconds.is_multiple_of(3600) => format!("{} h", seconds / 3600),
        seconds if seconds > 0 && seconds.is_multiple_of(60) => format!("{} min", seconds / 60),
        seconds => format!("{seconds} s"),
    }
}

/// Days from 1970-01-01 to a date of the Gregorian calendar; after
/// <https://howardhinnant.github.io/date_algorithms.html>, `days_from_civil`. Years begin in March, so that the day that
/// is there every four years is the last.
fn days(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let (era, of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    era * 146_097 + of_era * 365 + of_era / 4 - of_era / 100 + of_year - 719_468
}

/// The opposite, `civil_from_days` there.
fn date(days: i64) -> (i64, i64, i64) {
    let days = days + 719_468;
    let (era, of_era) = (days.div_euclid(146_097), days.rem_euclid(146_097));
    let year = (of_era - of_era / 1460 + of_era / 36_524 - of_era / 146_096) / 365;
    let of_year = of_era - (365 * year + year / 4 - year / 100);
    let march = (5 * of_year + 2) / 153;
    let month = if march < 10 { march + 3 } else { march - 9 };
    (era * 400 + year + i64::from(month <= 2), month, of_year - (153 * march + 2) / 5 + 1)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn spans_are_read() {
        let seconds = |text: &str| span(text).ok().map(|span| span.as_secs());
        assert_eq!(["30s", "10m", "2h", "1d", "0s"].map(seconds), [30, 600, 7200, 86_400, 0].map(Some));
        for wrong in
            ["", "s", "10", "+1s", "-1s", "1.5h", "1 h", "1w", "99999999999999999999s", "9999999999999999999d", "1é"]
        {
            assert!(span(wrong).is_err_and(|why| why.contains("10m")), "{wrong}");
        }
        assert_eq!(
            [45, 90, 600, 7200, 86_400].map(|s| words(Duration::from_secs(s))),
            ["45 s", "90 s", "10 min", "2 h", "1 d"]
        );
    }

    #[test]
    fn moments_are_read_and_written() {
        const NOW: u64 = 1_795_240_000_250_000;
        assert_eq!(utc_precise(NOW), "2026-11-21 05:46:40.250Z");
        assert_eq!(utc(951_782_400_000_000), "2000-02-29 00:00:00Z");
        assert_eq!(utc(0), "1970-01-01 00:00:00Z");
        let read = |text: &str| moment(text, NOW).map(utc).unwrap_or_default();
        assert_eq!(read("1d"), "2026-11-20 05:46:40Z");
        assert_eq!(read("2026-11-21"), "2026-11-21 00:00:00Z");
        assert_eq!(read("2026-11-21 05:46"), "2026-11-21 05:46:00Z");
        assert_eq!(read("2026-11-21 05:46:40Z"), "2026-11-21 05:46:40Z");
        assert_eq!(read("2026-11-21T05:46:40+01:00"), "2026-11-21 04:46:40Z");
        for wrong in ["", "yesterday", "12:00", "1900-01-01", "2026-13-01", "2026-02-30"] {
            assert!(moment(wrong, NOW).is_err(), "{wrong}");
        }
        assert_eq!(moment("9999d", 5), Ok(0));
    }

    #[test]
    fn a_zone_is_for_dates_that_do_not_say_theirs() {
        let zone = Zone { name: "local time", seconds: &|text| Some(u64::from(text == "2026-11-21 00:00:00")) };
        let read = |text: &str| moment_in(text, 9_000_000, &zone);
        assert_eq!(read("2026-11-21"), Ok(1_000_000));
        assert_eq!(read("2026-11-21 05:46:40Z"), Ok(1_795_240_000_000_000));
        assert_eq!(read("2s"), Ok(7_000_000));
        assert!(read("soon").unwrap_err().ends_with("(local time)"));
    }

    proptest! {
        #[test]
        fn what_is_written_is_read_again(seconds in 0_u64..253_402_300_799) {
            let us = seconds * 1_000_000;
            prop_assert_eq!(moment(&utc(us), 0), Ok(us));
        }
    }
}
