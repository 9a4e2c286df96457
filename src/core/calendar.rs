//! Dates and times read from ISO 8601 text: strictly, since a guess about somebody's date is worse than a refusal.

use chrono::{Datelike, NaiveDate};

const MICROS_PER_SECOND: i64 = 1_000_000;

/// Microseconds in a day.
pub const MICROS_PER_DAY: i64 = 86_400 * MICROS_PER_SECOND;

/// 0001-01-01 in days since 1970-01-01. Snowflake promises exact dates for the years 1 to 9999.
pub const FIRST_DAY: i32 = -719_162;

/// 9999-12-31 in days since 1970-01-01.
pub const LAST_DAY: i32 = 2_932_896;

/// Whether Snowflake promises to hold that day, counted from 1970-01-01.
#[must_use]
pub fn day_in_range(days: i32) -> bool {
    (FIRST_DAY..=LAST_DAY).contains(&days)
}

/// Whether Snowflake promises to hold that instant, in microseconds since 1970-01-01.
#[must_use]
pub fn timestamp_in_range(micros: i64) -> bool {
    i32::try_from(micros.div_euclid(MICROS_PER_DAY)).is_ok_and(day_in_range)
}

/// `YYYY-MM-DD` as days since 1970-01-01.
#[must_use]
pub fn parse_date(text: &str) -> Option<i32> {
    let mut cursor = Cursor(text.as_bytes());
    let days = cursor.date()?;
    cursor.end(days)
}

/// `HH:MM[:SS[.ffffff]]` as microseconds since midnight.
#[must_use]
pub fn parse_time(text: &str) -> Option<i64> {
    let mut cursor = Cursor(text.as_bytes());
    let micros = cursor.time()?;
    cursor.end(micros)
}

/// A date, `T` or a space, and a time, without an offset, as microseconds since 1970-01-01.
#[must_use]
pub fn parse_timestamp(text: &str) -> Option<i64> {
    let mut cursor = Cursor(text.as_bytes());
    let micros = cursor.timestamp()?;
    cursor.end(micros)
}

/// The same with an offset (`Z`, `+HH`, `+HHMM` or `+HH:MM`), as microseconds since 1970-01-01 in UTC.
#[must_use]
pub fn parse_timestamp_with_offset(text: &str) -> Option<i64> {
    let mut cursor = Cursor(text.as_bytes());
    let local = cursor.timestamp()?;
    let micros = local - cursor.offset()?;
    cursor
        .end(micros)
        .filter(|micros| timestamp_in_range(*micros))
}

/// Whether `text` is a date or timestamp that `parse` refuses only because of its year: infinite, before Christ (`0044-03-15
/// BC`), or after 9999.
#[must_use]
pub fn is_beyond<T>(text: &str, parse: impl Fn(&str) -> Option<T>) -> bool {
    if matches!(text, "infinity" | "-infinity") {
        return true;
    }
    let (date, is_before) = match text.strip_suffix(" BC") {
        Some(date) => (date, true),
        None => (text, false),
    };
    let Some((digits, rest)) = date.split_once('-') else {
        return false;
    };
    let is_year = (4..=9).contains(&digits.len()) && digits.bytes().all(|b| b.is_ascii_digit());
    let year: i64 = match digits.parse() {
        Ok(year) if is_year && year > 0 => year,
        _ => return false,
    };
    // Years that are 400 apart are of the same lengths; there is no year 0.
    let year = if is_before { 1 - year } else { year };
    parse(text).is_none() && parse(&format!("{}-{rest}", 2000 + year.rem_euclid(400))).is_some()
}

/// Whether `text` is the end of a day, which is a time of day elsewhere: `24:00`.
#[must_use]
pub fn is_end_of_day(text: &str) -> bool {
    text.strip_prefix("24:")
        .is_some_and(|rest| parse_time(&format!("00:{rest}")) == Some(0))
}

/// What is left of the text.
struct Cursor<'a>(&'a [u8]);

impl Cursor<'_> {
    /// The next byte, if it is one of `wanted`.
    fn one_of(&mut self, wanted: &[u8]) -> Option<u8> {
        let (first, rest) = self.0.split_first()?;
        wanted.contains(first).then(|| {
            self.0 = rest;
            *first
        })
    }

    /// A number of exactly `width` digits.
    fn number(&mut self, width: usize) -> Option<u32> {
        let (digits, rest) = self.0.split_at_checked(width)?;
        let mut number = 0;
        for digit in digits {
            number = number * 10 + char::from(*digit).to_digit(10)?;
        }
        self.0 = rest;
        Some(number)
    }

    fn date(&mut self) -> Option<i32> {
        let year = i32::try_from(self.number(4)?).ok()?;
        self.one_of(b"-")?;
        let month = self.number(2)?;
        self.one_of(b"-")?;
        let day = self.number(2)?;
        // chrono counts from the first day of year 1 as day 1, and knows the lengths of months.
        let days = NaiveDate::from_ymd_opt(year, month, day)?.num_days_from_ce() - 1 + FIRST_DAY;
        day_in_range(days).then_some(days)
    }

    fn time(&mut self) -> Option<i64> {
        let hour = self.number(2).filter(|hour| *hour < 24)?;
        self.one_of(b":")?;
        let minute = self.number(2).filter(|minute| *minute < 60)?;
        let mut second = 0;
        let mut micros = 0;
        if self.one_of(b":").is_some() {
            second = self.number(2).filter(|second| *second < 60)?;
            if self.one_of(b".").is_some() {
                micros = self.fraction()?;
            }
        }
        Some(i64::from((hour * 60 + minute) * 60 + second) * MICROS_PER_SECOND + micros)
    }

    /// One or more digits of a second; only zeros may follow the sixth.
    fn fraction(&mut self) -> Option<i64> {
        let mut micros = 0;
        let mut unit = MICROS_PER_SECOND;
        let mut digits = 0;
        while let Some(digit) = self.one_of(b"0123456789") {
            digits += 1;
            unit /= 10;
            if unit == 0 && digit != b'0' {
                return None;
            }
            micros += i64::from(digit - b'0') * unit;
        }
        (digits > 0).then_some(micros)
    }

    fn timestamp(&mut self) -> Option<i64> {
        let days = self.date()?;
        self.one_of(b"T t")?;
        Some(i64::from(days) * MICROS_PER_DAY + self.time()?)
    }

    /// The offset from UTC in microseconds, east positive.
    fn offset(&mut self) -> Option<i64> {
        let sign = match self.one_of(b"Zz+-")? {
            b'+' => 1,
            b'-' => -1,
            _ => return Some(0),
        };
        // Offsets in use reach +14:00; the bound only keeps nonsense out.
        let hours = self.number(2).filter(|hours| *hours < 24)?;
        let mut minutes = 0;
        if self.one_of(b":").is_some() || !self.0.is_empty() {
            minutes = self.number(2).filter(|minutes| *minutes < 60)?;
        }
        Some(sign * i64::from(hours * 60 + minutes) * 60 * MICROS_PER_SECOND)
    }

    /// `value`, if nothing is left.
    fn end<T>(self, value: T) -> Option<T> {
        self.0.is_empty().then_some(value)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use chrono::{DateTime, NaiveDateTime};
    use proptest::prelude::*;

    #[test]
    fn dates_of_the_years_1_to_9999() {
        for (text, days) in [
            ("1970-01-01", 0),
            ("0001-01-01", FIRST_DAY),
            ("9999-12-31", LAST_DAY),
            ("2000-02-29", 11_016),
            ("1969-12-31", -1),
        ] {
            assert_eq!(parse_date(text), Some(days), "{text}");
        }
        for text in [
            "0000-12-31",
            "10000-01-01",
            "1900-02-29",
            "2024-13-01",
            "2024-00-01",
            "2024-1-1",
            "2024-01-01 ",
            "-001-01-01",
            "2024/01/01",
            "",
            "infinity",
            "２０２４-01-01",
        ] {
            assert_eq!(parse_date(text), None, "{text:?}");
        }
    }

    #[test]
    fn times_of_day() {
        for (text, micros) in [
            ("00:00", 0),
            ("23:59:59.999999", MICROS_PER_DAY - 1),
            ("12:34:56", 45_296 * MICROS_PER_SECOND),
            ("00:00:00.1", 100_000),
            ("00:00:00.000001000", 1),
        ] {
            assert_eq!(parse_time(text), Some(micros), "{text}");
        }
        for text in [
            "24:00:00",
            "23:60",
            "23:59:60",
            "1:00",
            "12",
            "12:00:00.",
            "12:00:00.0000001",
            "12:00Z",
            "12:00:00,5",
        ] {
            assert_eq!(parse_time(text), None, "{text:?}");
        }
    }

    #[test]
    fn timestamps_with_and_without_an_offset() {
        let noon = 1_706_702_400 * MICROS_PER_SECOND; // 2024-01-31 12:00 UTC
        for text in [
            "2024-01-31T12:00",
            "2024-01-31 12:00:00",
            "2024-01-31t12:00:00.000",
        ] {
            assert_eq!(parse_timestamp(text), Some(noon), "{text}");
            assert_eq!(
                parse_timestamp_with_offset(text),
                None,
                "{text} has no offset"
            );
        }
        for text in [
            "2024-01-31T12:00Z",
            "2024-01-31 13:00:00+01",
            "2024-01-31T17:30:00+0530",
            "2024-01-31T04:00:00.0-08:00",
            "2024-01-31T12:00:00+00:00",
        ] {
            assert_eq!(parse_timestamp_with_offset(text), Some(noon), "{text}");
            assert_eq!(parse_timestamp(text), None, "{text} has an offset");
        }
        for text in [
            "2024-01-31T12:00+1",
            "2024-01-31T12:00+01:",
            "2024-01-31T12:00+24:00",
            "2024-01-31T12:00+01:60",
            "2024-01-31T12:00ZZ",
            "2024-01-31",
            "0001-01-01T00:00:00+00:01",
            "9999-12-31T23:59:59-00:01",
        ] {
            assert_eq!(parse_timestamp_with_offset(text), None, "{text}");
        }
    }

    #[test]
    fn ranges_end_where_the_years_do() {
        assert!(timestamp_in_range(i64::from(FIRST_DAY) * MICROS_PER_DAY));
        assert!(!timestamp_in_range(
            i64::from(FIRST_DAY) * MICROS_PER_DAY - 1
        ));
        assert!(timestamp_in_range(
            (i64::from(LAST_DAY) + 1) * MICROS_PER_DAY - 1
        ));
        assert!(!timestamp_in_range(
            (i64::from(LAST_DAY) + 1) * MICROS_PER_DAY
        ));
        assert!(!timestamp_in_range(i64::MAX) && !timestamp_in_range(i64::MIN));
    }

    proptest! {
        /// Against chrono's own formatting, over the whole range.
        #[test]
        fn what_chrono_writes_is_read_back(
            days in FIRST_DAY + 1..LAST_DAY,
            micros in 0..MICROS_PER_DAY,
            minutes_east in -18 * 60 + 1..18 * 60,
        ) {
            let at = i64::from(days) * MICROS_PER_DAY + micros;
            let utc = DateTime::from_timestamp_micros(at).unwrap();
            let naive: NaiveDateTime = utc.naive_utc();
            prop_assert_eq!(parse_date(&naive.format("%Y-%m-%d").to_string()), Some(days));
            prop_assert_eq!(parse_time(&naive.format("%H:%M:%S%.6f").to_string()), Some(micros));
            prop_assert_eq!(parse_timestamp(&naive.format("%Y-%m-%dT%H:%M:%S%.f").to_string()), Some(at));
            let zone = chrono::FixedOffset::east_opt(60 * minutes_east).unwrap();
            prop_assert_eq!(parse_timestamp_with_offset(&utc.with_timezone(&zone).to_rfc3339()), Some(at));
        }

        #[test]
        fn no_text_stops_the_reader(text in "\\PC{0,40}") {
            let _ = (parse_date(&text), parse_time(&text), parse_timestamp(&text), parse_timestamp_with_offset(&text));
        }
    }
}
