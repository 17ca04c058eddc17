//! Times for people: in the zone of this machine, or of `TZ`. JSON and messages have UTC.

use jiff::Timestamp;
use jiff::fmt::strtime;
use jiff::tz::TimeZone;
use std::sync::LazyLock;
use std::time::SystemTime;

static ZONE: LazyLock<TimeZone> = LazyLock::new(|| TimeZone::try_system().unwrap_or(TimeZone::UTC));

/// `2026-11-21 13:04:05 CET`, as PostgreSQL's log has it; `-` for a time beyond all calendars.
pub(super) fn local(time: SystemTime) -> String {
    written(time, "%Y-%m-%d %H:%M:%S %Z", &ZONE)
}

/// `2026-11-21 13:04:05.123456+01`, which `--at` and `recovery_target_time` take as well.
pub(super) fn exact(time: SystemTime) -> String {
    written(time, "%Y-%m-%d %H:%M:%S%.f%:::z", &ZONE)
}

/// The name of the zone: `Europe/Berlin`, or of one that is only described how it is called now.
pub(super) fn zone() -> String {
    ZONE.iana_name().map_or_else(|| written(SystemTime::now(), "%Z", &ZONE), str::to_owned)
}

fn written(time: SystemTime, format: &str, zone: &TimeZone) -> String {
    let moment = Timestamp::try_from(time).ok().map(|moment| moment.to_zoned_datetime(zone.clone()));
    moment.and_then(|moment| strtime::format(format, &moment).ok()).unwrap_or_else(|| "-".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::restore::target;

    #[test]
    fn a_time_has_its_zone_and_what_is_exact_can_be_given_to_restore() {
        let berlin = TimeZone::posix("CET-1CEST,M3.5.0,M10.5.0/3").unwrap();
        let format = "%Y-%m-%d %H:%M:%S %Z";
        for (utc, named) in [
            ("2026-11-21T12:04:05.123456Z", "2026-11-21 13:04:05 CET"),
            ("2026-07-21T12:04:05Z", "2026-07-21 14:04:05 CEST"),
            ("2026-12-31T23:30:00Z", "2027-01-01 00:30:00 CET"),
        ] {
            let time = humantime::parse_rfc3339(utc).unwrap();
            assert_eq!(written(time, format, &berlin), named);
            assert_eq!(target::time(&written(time, "%Y-%m-%d %H:%M:%S%.f%:::z", &berlin)), Ok(time));
        }
        let far = SystemTime::UNIX_EPOCH + std::time::Duration::from_secs(1 << 50);
        assert_eq!(written(far, format, &berlin), "-");
    }
}
