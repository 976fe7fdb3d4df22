//! Figures and times as people read them, and sizes as people type them. Pure.
//!
//! Sizes are binary, processors are counted in cores, times are relative with the exact one beside
//! them. Reading is the inverse of showing: what a page shows, its own forms accept.

/// Binary units, smallest first; the factor between neighbours is 1024.
const UNITS: [&str; 6] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];

/// A size such as `3.1 GiB`; exact below one KiB.
pub fn bytes(value: u64) -> String {
    let (number, unit) = scaled(value, unit_of(value));
    format!("{number} {unit}")
}

/// A use beside its limit in the limit's unit, `3.1 of 8 GiB`; small uses keep a unit of their own.
pub fn bytes_of(used: u64, limit: u64) -> String {
    let unit = unit_of(limit);
    let (of, name) = scaled(limit, unit);
    if used != 0 && unit > 0 && used < 1024_u64.pow(unit) {
        return format!("{} of {of} {name}", bytes(used));
    }
    format!("{} of {of} {name}", scaled(used, unit).0)
}

/// Cores out of thousandths, `1.5`; two digits after the point at most, none when whole.
pub fn cores(millis: u64) -> String {
    let text = format!("{}.{:02}", millis / 1000, millis % 1000 / 10);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// A processor use that moves: always two digits after the point, so that nothing jumps.
pub fn cores_used(millis: u64) -> String {
    format!("{}.{:02}", millis / 1000, millis % 1000 / 10)
}

/// A number in groups of three, divided by narrow no-break spaces.
pub fn count(value: u64) -> String {
    let digits = value.to_string();
    let mut out = String::with_capacity(digits.len() * 2);
    for (index, digit) in digits.chars().enumerate() {
        if index != 0 && (digits.len() - index).is_multiple_of(3) {
            out.push('\u{202f}');
        }
        out.push(digit);
    }
    out
}

/// A span in its two largest units, `3 h 12 min`.
pub fn span(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) if minutes < 10 && !seconds.is_multiple_of(60) => {
            format!("{minutes} min {} s", seconds % 60)
        }
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, 0) => format!("{hours} h"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, 0, _) => format!("{days} d"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// How `used` stands to `limit` in percent, 0 to 100; nothing of nothing is nothing.
pub fn percent(used: u64, limit: u64) -> u8 {
    if limit == 0 {
        return if used == 0 { 0 } else { 100 };
    }
    let ratio = u128::from(used) * 100 / u128::from(limit);
    u8::try_from(ratio.min(100)).unwrap_or(100)
}

/// The first twelve digits of an id or of a digest's hash.
pub fn short(id: &str) -> &str {
    let hash = id.split_once(':').map_or(id, |(_, hash)| hash);
    hash.get(..12).unwrap_or(hash)
}

/// An image's reference, cut before its last name: `registry.lab:5000/vision/`, `train:41`.
pub fn reference_parts(reference: &str) -> (&str, &str) {
    let name_ends = reference.find('@').unwrap_or(reference.len());
    let at = reference[..name_ends].rfind('/').map_or(0, |slash| slash + 1);
    reference.split_at(at)
}

/// A point in time, in words and exactly.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Moment {
    /// Relative to the time of rendering, `3 min ago`.
    pub words: String,
    /// `2026-11-21 01:23:45 UTC`.
    pub exact: String,
    /// RFC 3339, for machines.
    pub iso: String,
}

impl Moment {
    /// The moment `at` as seen at `now`, both in milliseconds since 1970.
    pub fn new(at: i64, now: i64) -> Self {
        let words = match now.saturating_sub(at) {
            late if late < -1000 => {
                format!("in {}", span(late.unsigned_abs() / 1000))
            }
            late if late < 5000 => "just now".to_owned(),
            late => format!("{} ago", coarse(late.unsigned_abs() / 1000)),
        };
        let (day, clock) = civil(at);
        Self { words, exact: format!("{day} {clock} UTC"), iso: format!("{day}T{clock}Z") }
    }
}

impl Moment {
    /// Hours and minutes of the exact time, in UTC.
    pub fn clock(&self) -> &str {
        self.exact.get(11..16).unwrap_or(&self.exact)
    }
}

/// One unit is enough for what lies back.
fn coarse(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min", seconds / 60),
        3600..172_800 => format!("{} h", seconds / 3600),
        _ => format!("{} d", seconds / 86_400),
    }
}

/// Date and time of day in UTC (days to civil date: H. Hinnant, "chrono-compatible low-level date
/// algorithms").
fn civil(millis: i64) -> (String, String) {
    let seconds = millis.div_euclid(1000);
    let (days, rest) = (seconds.div_euclid(86_400), seconds.rem_euclid(86_400));
    let shifted = days + 719_468;
    let era = shifted.div_euclid(146_097);
    let day_of_era = shifted.rem_euclid(146_097);
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_index = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_index + 2) / 5 + 1;
    let month = if month_index < 10 { month_index + 3 } else { month_index - 9 };
    let year = year_of_era + era * 400 + i64::from(month <= 2);
    (
        format!("{year:04}-{month:02}-{day:02}"),
        format!("{:02}:{:02}:{:02}", rest / 3600, rest / 60 % 60, rest % 60),
    )
}

/// The unit in which `value` is shown: the largest that leaves at least one before the point.
fn unit_of(value: u64) -> u32 {
    value.checked_ilog2().unwrap_or(0) / 10
}

/// `value` in the given unit: one digit after the point below ten, none above or when exact.
fn scaled(value: u64, unit: u32) -> (String, &'static str) {
    let name = UNITS.get(unit as usize).copied().unwrap_or("PiB");
    let factor = 1024_u64.pow(unit.min(5));
    let tenths = (u128::from(value) * 10 + u128::from(factor) / 2) / u128::from(factor);
    let number = if value.is_multiple_of(factor) || tenths >= 1000 {
        (tenths / 10).to_string()
    } else {
        format!("{}.{}", tenths / 10, tenths % 10)
    };
    (number, name)
}

/// Reads a size as people type it: `512 MiB`, `512m`, `1.5 GiB`, `1073741824`. Units are binary
/// whether or not the `i` is written. `None` when it is not a size.
pub fn read_bytes(text: &str) -> Option<u64> {
    let text = text.trim();
    let split = text.find(|c: char| !c.is_ascii_digit() && c != '.').unwrap_or(text.len());
    let (number, unit) = text.split_at(split);
    let unit = unit.trim().to_ascii_lowercase();
    let power: u32 = match unit.as_str() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 1,
        "m" | "mb" | "mib" => 2,
        "g" | "gb" | "gib" => 3,
        "t" | "tb" | "tib" => 4,
        _ => return None,
    };
    read_decimal(number, 1024_u64.pow(power))
}

/// Reads a length of time as people type it, in seconds: `8 h`, `90min`, `1 d 30 min`, `45 s`. A number without a
/// unit is seconds. `None` when it is none.
pub fn read_span(text: &str) -> Option<u64> {
    let mut rest = text.trim();
    let mut total: u64 = 0;
    if rest.is_empty() {
        return None;
    }
    while !rest.is_empty() {
        let digits = rest.find(|c: char| !c.is_ascii_digit()).unwrap_or(rest.len());
        let (number, after) = rest.split_at(digits);
        let after = after.trim_start();
        let letters = after.find(|c: char| !c.is_ascii_alphabetic()).unwrap_or(after.len());
        let (unit, next) = after.split_at(letters);
        let factor = match unit.to_ascii_lowercase().as_str() {
            "" if next.is_empty() && total == 0 => 1,
            "s" | "sec" | "secs" | "second" | "seconds" => 1,
            "m" | "min" | "mins" | "minute" | "minutes" => 60,
            "h" | "hour" | "hours" => 3600,
            "d" | "day" | "days" => 86_400,
            "w" | "week" | "weeks" => 604_800,
            _ => return None,
        };
        total = total.checked_add(number.parse::<u64>().ok()?.checked_mul(factor)?)?;
        rest = next.trim_start();
    }
    Some(total)
}

/// Reads cores as people type them (`1.5`, `2 cores`) into thousandths.
pub fn read_cores(text: &str) -> Option<u64> {
    let text = text.trim();
    let number = text.trim_end_matches(|c: char| c.is_ascii_alphabetic()).trim_end();
    read_decimal(number, 1000)
}

/// A decimal number times `factor`, without the detour over floating point.
fn read_decimal(number: &str, factor: u64) -> Option<u64> {
    let (whole, fraction) = number.split_once('.').unwrap_or((number, ""));
    if whole.is_empty() && fraction.is_empty() || fraction.len() > 9 {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let part: u64 = if fraction.is_empty() { 0 } else { fraction.parse().ok()? };
    let scale = 10_u128.pow(u32::try_from(fraction.len()).ok()?);
    let total =
        u128::from(whole) * u128::from(factor) + u128::from(part) * u128::from(factor) / scale;
    u64::try_from(total).ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lengths_of_time_are_read_as_people_type_them() {
        for (text, secs) in [
            ("8 h", Some(28_800)),
            ("8h", Some(28_800)),
            ("1 d 30 min", Some(88_200)),
            ("90", Some(90)),
            ("2 weeks", Some(1_209_600)),
            ("", None),
            ("h", None),
            ("-1", None),
            ("1.5 h", None),
            ("1 h 30", None),
            ("1 x", None),
            ("99999999999999999999", None),
            ("18446744073709551615 d", None),
        ] {
            assert_eq!(read_span(text), secs, "{text}");
        }
    }

    #[test]
    fn sizes_read_as_they_are_shown() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1023), "1023 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(8 << 30), "8 GiB");
        assert_eq!(bytes_of(3_328_599_654, 8 << 30), "3.1 of 8 GiB");
        assert_eq!(bytes_of(700 << 10, 8 << 30), "700 KiB of 8 GiB");
        assert_eq!(bytes(u64::MAX), "16384 PiB");
        for value in [0, 1, 512 << 20, 3 << 29, 1 << 40] {
            assert_eq!(read_bytes(&bytes(value)), Some(value), "{value}");
        }
    }

    #[test]
    fn typed_sizes_and_cores_are_read() {
        assert_eq!(read_bytes(" 512m "), Some(512 << 20));
        assert_eq!(read_bytes("1.5 GiB"), Some(3 << 29));
        assert_eq!(read_bytes("1.5 gigs"), None);
        assert_eq!(read_bytes("-1"), None);
        assert_eq!(read_bytes(""), None);
        assert_eq!(read_bytes("99999999999999999999"), None);
        assert_eq!(read_cores("1.5"), Some(1500));
        assert_eq!(read_cores("2 cores"), Some(2000));
        assert_eq!(read_cores("."), None);
        assert_eq!(cores(1500), "1.5");
        assert_eq!(cores(2000), "2");
        assert_eq!(cores(20_000), "20");
        assert_eq!(cores_used(420), "0.42");
    }

    #[test]
    fn moments_are_exact_and_in_words() {
        let at = 1_795_224_225_000;
        let seen = Moment::new(at, at + 200_000);
        assert_eq!(seen.words, "3 min ago");
        assert_eq!(seen.exact, "2026-11-21 01:23:45 UTC");
        assert_eq!(Moment::new(at + 7_200_000, at).words, "in 2 h");
        assert_eq!(Moment::new(-1000, 0).iso, "1969-12-31T23:59:59Z");
        assert_eq!(Moment::new(951_782_400_000, 951_782_400_000).exact, "2000-02-29 00:00:00 UTC");
        assert_eq!(span(3600 * 51), "2 d 3 h");
        assert_eq!(span(75), "1 min 15 s");
    }

    #[test]
    fn shares_and_counts() {
        assert_eq!(percent(0, 0), 0);
        assert_eq!(percent(5, 0), 100);
        assert_eq!(percent(u64::MAX, 1), 100);
        assert_eq!(percent(1, 3), 33);
        assert_eq!(count(1_234_567), "1\u{202f}234\u{202f}567");
        assert_eq!(count(999), "999");
        assert_eq!(short("sha256:0123456789abcdef"), "0123456789ab");
        assert_eq!(short("ab"), "ab");
    }
}
