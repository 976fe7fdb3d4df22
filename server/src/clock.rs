//! Points in time as the inventory keeps them (milliseconds since 1970) and as JSON shows them
//! (RFC 3339 in UTC with milliseconds).

use std::borrow::Cow;
use std::fmt;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use serde::{Serialize, Serializer};
use time::OffsetDateTime;
use utoipa::openapi::{KnownFormat, ObjectBuilder, RefOr, Schema, SchemaFormat, schema::Type};

/// Milliseconds since 1970 in UTC.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, sqlx::Type)]
#[sqlx(transparent)]
pub struct Time(pub i64);

impl Time {
    /// Now, by the wall clock.
    pub fn now() -> Self {
        let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
        Self(i64::try_from(since.as_millis()).unwrap_or(i64::MAX))
    }

    /// When something is to end, as people write it: a day, through which it is good, or a time.
    ///
    /// # Errors
    /// What is wrong, in words, when it is neither.
    pub fn parse_end(text: &str) -> Result<Self, String> {
        const DAY: Duration = Duration::from_secs(86_400);
        let day = format!("{text}T00:00:00Z");
        let through =
            if text.len() == 10 { Self::parse(&day).map(|at| at.after(DAY)) } else { None };
        through.or_else(|| Self::parse(text)).ok_or_else(|| {
            let shown: String = text.chars().take(40).collect();
            format!(
                "{shown:?} is neither a day, as 2030-12-31, nor a time, as 2030-12-31T18:00:00Z"
            )
        })
    }

    /// A point in time as people and programs write it: RFC 3339, or seconds since 1970.
    pub fn parse(text: &str) -> Option<Self> {
        if let Ok(secs) = text.parse::<i64>() {
            // To the end of the year 9999, which RFC 3339 can still write.
            return (0..=253_402_300_799).contains(&secs).then(|| Self(secs * 1000));
        }
        let format = &time::format_description::well_known::Rfc3339;
        let at = OffsetDateTime::parse(text, format).ok()?;
        i64::try_from(at.unix_timestamp_nanos() / 1_000_000).ok().map(Self)
    }

    /// This much later.
    pub fn after(self, duration: Duration) -> Self {
        Self(self.0.saturating_add(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// This much earlier.
    pub fn before(self, duration: Duration) -> Self {
        Self(self.0.saturating_sub(i64::try_from(duration.as_millis()).unwrap_or(i64::MAX)))
    }

    /// Whole seconds since 1970.
    pub fn secs(self) -> i64 {
        self.0.div_euclid(1000)
    }

    /// How long until then; zero when it is past.
    pub fn until(self) -> Duration {
        Duration::from_millis(u64::try_from(self.0 - Self::now().0).unwrap_or(0))
    }
}

impl fmt::Display for Time {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let at =
            OffsetDateTime::from_unix_timestamp(self.secs()).unwrap_or(OffsetDateTime::UNIX_EPOCH);
        write!(
            f,
            "{:04}-{:02}-{:02}T{:02}:{:02}:{:02}.{:03}Z",
            at.year(),
            u8::from(at.month()),
            at.day(),
            at.hour(),
            at.minute(),
            at.second(),
            self.0.rem_euclid(1000)
        )
    }
}

impl Serialize for Time {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl utoipa::PartialSchema for Time {
    fn schema() -> RefOr<Schema> {
        ObjectBuilder::new()
            .schema_type(Type::String)
            .format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)))
            .description(Some("A time as RFC 3339 has it, in UTC."))
            .into()
    }
}

impl utoipa::ToSchema for Time {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("Time")
    }
}

/// Lets something be said once in a while, whatever strangers do.
pub struct Seldom {
    secs: i64,
    last: std::sync::atomic::AtomicI64,
}

impl Seldom {
    /// At most once in this many seconds.
    pub const fn new(secs: i64) -> Self {
        Self { secs, last: std::sync::atomic::AtomicI64::new(i64::MIN / 2) }
    }

    /// Whether now is the time.
    pub fn now(&self) -> bool {
        use std::sync::atomic::Ordering;
        let now = Time::now().secs();
        let last = self.last.load(Ordering::Relaxed);
        // A clock that was set back must not silence it.
        let due = now - last >= self.secs || now < last;
        due && self.last.compare_exchange(last, now, Ordering::Relaxed, Ordering::Relaxed).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::Time;

    #[test]
    fn reads_what_people_and_programs_write() {
        assert_eq!(Time::parse("1970-01-01T01:00:00.5+01:00"), Some(Time(500)));
        assert_eq!(Time::parse("1763688084"), Some(Time(1_763_688_084_000)));
        for wrong in ["", "yesterday", "-1", "9999999999999", "2025-13-01T00:00:00Z"] {
            assert_eq!(Time::parse(wrong), None, "{wrong}");
        }
    }

    #[test]
    fn shows_utc_with_milliseconds() {
        assert_eq!(Time(0).to_string(), "1970-01-01T00:00:00.000Z");
        assert_eq!(Time(1_763_688_084_007).to_string(), "2025-11-21T01:21:24.007Z");
        assert_eq!(Time(-1).to_string(), "1969-12-31T23:59:59.999Z");
    }
}
