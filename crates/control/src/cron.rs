//! When a schedule ticks: a cron line in an IANA time zone. Pure: time zones are data of this program, not of the machine.
//!
//! `croner` says which local times a line means; which moments those are is decided here, as Vixie cron does. A line with one time of day
//! ticks once a day: in the hour that a clock change skips, at the change; in the hour that it repeats, the first time. A line with several
//! goes by the wall clock: it leaves out the skipped hour and ticks in both of the repeated ones.

use std::str::FromStr;

use chrono::{DateTime, Duration, LocalResult, NaiveDateTime, Offset, TimeZone, Utc};
use chrono_tz::Tz;
use croner::parser::{CronParser, Seconds, Year};
use croner::JobType;

/// A clock change moves the clock by less than this.
const CHANGE_MAX: Duration = Duration::hours(25);
/// Local times that are looked at around a clock change.
const LOOKS_MAX: usize = 16 * 1_024;

/// What is wrong with a line or a zone. One line; a retry does not help.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum CronError {
    /// The line does not parse.
    #[error("cron: \"{line}\" is no cron line (minute hour day month weekday): {cause}")]
    Line {
        /// As it was given.
        line: String,
        /// What the parser said.
        cause: String,
    },
    /// It parses, and there is no such day.
    #[error("cron: \"{0}\" never comes")]
    Never(String),
    /// No zone of this name.
    #[error("time_zone: \"{0}\" is no IANA time zone (such as Europe/Vienna or UTC)")]
    Zone(String),
}

/// A line in a zone.
#[derive(Clone, Debug)]
pub struct Cron {
    pattern: croner::Cron,
    zone: Tz,
    /// It has one time of day.
    fixed: bool,
}

impl Cron {
    /// Reads a line and the name of a zone ("" is UTC). Whether the line ever comes is seen from `after_ms` (Unix milliseconds) on.
    pub fn parse(line: &str, zone: &str, after_ms: u64) -> Result<Self, CronError> {
        let zone = match zone {
            "" => Tz::UTC,
            name => Tz::from_str(name).map_err(|_| CronError::Zone(name.to_owned()))?,
        };
        let wrong = |cause: String| CronError::Line { line: line.to_owned(), cause };
        let parser = CronParser::builder().seconds(Seconds::Disallowed).year(Year::Disallowed).build();
        let pattern = parser.parse(line).map_err(|cause| wrong(cause.to_string()))?;
        let fixed = pattern.determine_job_type() == JobType::FixedTime;
        let cron = Self { pattern, zone, fixed };
        match cron.next(after_ms) {
            Some(_) => Ok(cron),
            None => Err(CronError::Never(line.to_owned())),
        }
    }

    /// The first tick after `after_ms`, both in Unix milliseconds; None: never, or out of the calendar.
    pub fn next(&self, after_ms: u64) -> Option<u64> {
        // Whole seconds: the parser's search would keep the rest.
        let after = DateTime::from_timestamp(i64::try_from(after_ms / 1_000).ok()?, 0)?;
        let local = after.with_timezone(&self.zone).naive_local();
        let first = self.next_local(local)?;
        let plain = self.zone.from_local_datetime(&first).single().filter(|_| self.steady(local) && self.steady(first));
        let next = match plain {
            Some(moment) => moment.with_timezone(&Utc),
            None => self.next_by_all(after, local)?,
        };
        u64::try_from(next.timestamp_millis()).ok()
    }

    /// The next local time that the line means, as if clocks never changed.
    fn next_local(&self, local: NaiveDateTime) -> Option<NaiveDateTime> {
        self.pattern.find_next_occurrence(&local.and_utc(), false).ok().map(|found| found.naive_utc())
    }

    /// No clock change is near this local time.
    fn steady(&self, local: NaiveDateTime) -> bool {
        let offset = |at: NaiveDateTime| self.zone.offset_from_utc_datetime(&at).fix().local_minus_utc();
        match (local.checked_sub_signed(CHANGE_MAX), local.checked_add_signed(CHANGE_MAX)) {
            (Some(before), Some(behind)) => offset(before) == offset(behind),
            (None, _) | (_, None) => false,
        }
    }

    /// Near a clock change the order of local times is not that of moments: the earliest moment of all that come into question.
    fn next_by_all(&self, after: DateTime<Utc>, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        let mut at = local.checked_sub_signed(CHANGE_MAX)?;
        let mut best: Option<(DateTime<Utc>, NaiveDateTime)> = None;
        for _ in 0..LOOKS_MAX {
            at = self.next_local(at)?;
            if best.is_some_and(|(_, found)| at > found + CHANGE_MAX) {
                break;
            }
            for moment in self.moments(at).into_iter().flatten().filter(|moment| *moment > after) {
                if best.is_none_or(|(found, _)| moment < found) {
                    best = Some((moment, at));
                }
            }
        }
        best.map(|(moment, _)| moment)
    }

    /// The moments that a local time of the line is.
    fn moments(&self, local: NaiveDateTime) -> [Option<DateTime<Utc>>; 2] {
        let utc = |moment: DateTime<Tz>| moment.with_timezone(&Utc);
        match self.zone.from_local_datetime(&local) {
            LocalResult::Single(moment) => [Some(utc(moment)), None],
            LocalResult::Ambiguous(first, second) => [Some(utc(first)), (!self.fixed).then(|| utc(second))],
            LocalResult::None if self.fixed => [self.end_of_gap(local), None],
            LocalResult::None => [None, None],
        }
    }

    /// The moment at which the clock jumps over `local`.
    fn end_of_gap(&self, local: NaiveDateTime) -> Option<DateTime<Utc>> {
        // The offset of before the change: the moment that the clock would have shown `local` at. The change is at or before it.
        let before = local.checked_sub_signed(CHANGE_MAX)?;
        let offset = i64::from(self.zone.offset_from_utc_datetime(&before).fix().local_minus_utc());
        let mut late = local.and_utc().timestamp().checked_sub(offset)?;
        let mut early = late.checked_sub(CHANGE_MAX.num_seconds())?;
        let offset_at = |seconds: i64| {
            let moment = DateTime::from_timestamp(seconds, 0)?;
            Some(i64::from(self.zone.offset_from_utc_datetime(&moment.naive_utc()).fix().local_minus_utc()))
        };
        while late - early > 1 {
            let middle = early + (late - early) / 2;
            if offset_at(middle)? == offset {
                early = middle;
            } else {
                late = middle;
            }
        }
        DateTime::from_timestamp(late, 0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ms(text: &str) -> u64 {
        DateTime::parse_from_rfc3339(text).expect("a time").timestamp_millis() as u64
    }

    /// The first ticks after a moment, as UTC.
    fn ticks(line: &str, zone: &str, after: &str, count: usize) -> Vec<String> {
        let cron = Cron::parse(line, zone, ms(after)).expect("a good line");
        let mut at = ms(after);
        (0..count)
            .map(|_| {
                at = cron.next(at).expect("another one");
                let moment = DateTime::from_timestamp_millis(at as i64).expect("in range");
                moment.format("%m-%d %H:%M").to_string()
            })
            .collect()
    }

    #[test]
    fn plain_lines_tick_in_their_zone() {
        let begin = "2026-05-01T10:00:30Z";
        assert_eq!(ticks("*/20 * * * *", "", begin, 3), ["05-01 10:20", "05-01 10:40", "05-01 11:00"]);
        assert_eq!(ticks("30 9 * * *", "Europe/Vienna", begin, 2), ["05-02 07:30", "05-03 07:30"]);
        assert_eq!(ticks("0 0 1 * *", "Asia/Kolkata", begin, 1), ["05-31 18:30"]);
        assert_eq!(ticks("@daily", "UTC", begin, 1), ["05-02 00:00"]);
        assert_eq!(ticks("0 12 * * mon-fri", "UTC", "2026-05-01T12:00:00Z", 1), ["05-04 12:00"]);
    }

    #[test]
    fn a_fixed_time_in_a_skipped_hour_ticks_once_at_the_change() {
        // Vienna: 2026-03-29 02:00 becomes 03:00, at 01:00 UTC.
        let got = ticks("30 2 * * *", "Europe/Vienna", "2026-03-27T12:00:00Z", 3);
        assert_eq!(got, ["03-28 01:30", "03-29 01:00", "03-30 00:30"]);
    }

    #[test]
    fn a_wildcard_skips_the_skipped_hour() {
        let got = ticks("*/30 * * * *", "Europe/Vienna", "2026-03-29T00:10:00Z", 4);
        assert_eq!(got, ["03-29 00:30", "03-29 01:00", "03-29 01:30", "03-29 02:00"]);
    }

    #[test]
    fn a_fixed_time_in_a_repeated_hour_ticks_the_first_time_only() {
        // Vienna: 2026-10-25 03:00 becomes 02:00, at 01:00 UTC; 02:30 is at 00:30 and at 01:30.
        let got = ticks("30 2 * * *", "Europe/Vienna", "2026-10-24T12:00:00Z", 2);
        assert_eq!(got, ["10-25 00:30", "10-26 01:30"]);
    }

    #[test]
    fn a_wildcard_ticks_in_both_repeated_hours() {
        let got = ticks("*/30 * * * *", "Europe/Vienna", "2026-10-24T23:40:00Z", 6);
        assert_eq!(got, ["10-25 00:00", "10-25 00:30", "10-25 01:00", "10-25 01:30", "10-25 02:00", "10-25 02:30"]);
    }

    #[test]
    fn clock_changes_of_other_sizes_and_places() {
        // Lord Howe Island changes by half an hour: 2026-10-04 02:00 becomes 02:30, at 15:30 UTC of the day before.
        let got = ticks("15 2 * * *", "Australia/Lord_Howe", "2026-10-02T00:00:00Z", 3);
        assert_eq!(got, ["10-02 15:45", "10-03 15:30", "10-04 15:15"]);
        // Samoa left out 2011-12-30 altogether.
        let got = ticks("0 12 * * *", "Pacific/Apia", "2011-12-29T00:00:00Z", 3);
        assert_eq!(got, ["12-29 22:00", "12-30 10:00", "12-30 22:00"]);
    }

    #[test]
    fn ticks_rise_through_all_changes_of_a_year_whatever_the_line() {
        for zone in ["Europe/Vienna", "America/New_York", "Australia/Lord_Howe", "Africa/Casablanca", "UTC"] {
            for line in ["*/15 * * * *", "30 2 * * *", "0 */3 * * *", "5 1,2,3 * * *", "* 2 * * sun"] {
                let cron = Cron::parse(line, zone, ms("2026-01-01T00:00:00Z")).expect("good");
                let mut at = ms("2026-01-01T00:00:00Z");
                while at < ms("2027-01-01T00:00:00Z") {
                    let next = cron.next(at).expect("another one");
                    assert!(next > at, "{line} in {zone} goes back from {at} to {next}");
                    // Asked from any moment in between, the answer is the same.
                    for between in [at + 1, at + (next - at) / 2 + 1, next - 1] {
                        assert_eq!(cron.next(between), Some(next), "{line} in {zone} after {between}");
                    }
                    at = next;
                }
            }
        }
    }

    #[test]
    fn each_mistake_is_told_with_its_field() {
        let wrong =
            |line: &str, zone: &str| Cron::parse(line, zone, ms("2026-01-01T00:00:00Z")).expect_err(line).to_string();
        for line in ["", "soon", "* * * *", "61 * * * *", "* * * * * *", "0 25 * * *"] {
            assert!(wrong(line, "").starts_with("cron: "), "{line}");
        }
        assert_eq!(wrong("0 0 31 2 *", ""), "cron: \"0 0 31 2 *\" never comes");
        assert!(wrong("* * * * *", "Europe/Wien").contains("Europe/Wien"));
    }
}
