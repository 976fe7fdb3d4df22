//! Amounts as people write them on a command line, and as tables show them.

use std::time::Duration;

/// Bytes: a number with `k`, `m`, `g` or `t` (of 1024), `KiB` and `KB` alike, as in `512m`.
///
/// # Errors
/// Says what is wrong.
pub fn bytes(text: &str) -> Result<u64, String> {
    let lower = text.trim().to_ascii_lowercase();
    let split = lower.find(|letter: char| !letter.is_ascii_digit() && letter != '.');
    let (number, unit) = lower.split_at(split.unwrap_or(lower.len()));
    let power = match unit.trim() {
        "" | "b" => 0,
        "k" | "kb" | "kib" => 10,
        "m" | "mb" | "mib" => 20,
        "g" | "gb" | "gib" => 30,
        "t" | "tb" | "tib" => 40,
        _ => return Err(format!("{text:?} is no size; write it like 512m or 2g")),
    };
    let thousandths = thousandths(number).ok_or_else(|| format!("{text:?} is no size"))?;
    let whole = u128::from(thousandths) * (1_u128 << power) / 1000;
    u64::try_from(whole).map_err(|_| format!("{text:?} is too large"))
}

/// Processor time: cores, as in `1.5`, in thousandths of a core.
///
/// # Errors
/// Says what is wrong.
pub fn cpus(text: &str) -> Result<u32, String> {
    let millis = thousandths(text.trim()).and_then(|millis| u32::try_from(millis).ok());
    millis.ok_or_else(|| format!("{text:?} is no number of cores; write it like 0.5 or 2"))
}

/// A length of time in seconds: a number with `s`, `m`, `h`, `d` or `w`, as in `8h`; several add up.
///
/// # Errors
/// Says what is wrong.
pub fn secs(text: &str) -> Result<u64, String> {
    let wrong = || format!("{text:?} is no length of time; write it like 90m, 8h or 2d");
    let (mut total, mut number) = (0_u64, String::new());
    for letter in text.trim().to_ascii_lowercase().chars() {
        let factor = match letter {
            '0'..='9' => {
                number.push(letter);
                continue;
            }
            's' => 1,
            'm' => 60,
            'h' => 3600,
            'd' => 86_400,
            'w' => 604_800,
            _ => return Err(wrong()),
        };
        let part = number.parse::<u64>().ok().and_then(|count| count.checked_mul(factor));
        total = part.and_then(|part| total.checked_add(part)).ok_or_else(wrong)?;
        number.clear();
    }
    match number.is_empty() {
        true if total > 0 => Ok(total),
        true => Err(wrong()),
        false if total == 0 => number.parse().map_err(|_| wrong()),
        false => Err(wrong()),
    }
}

/// A decimal number in thousandths; more digits than three behind the point are left out.
fn thousandths(text: &str) -> Option<u64> {
    let (whole, rest) = text.split_once('.').unwrap_or((text, ""));
    let digits = |text: &str| text.bytes().all(|letter| letter.is_ascii_digit());
    if (whole.is_empty() && rest.is_empty()) || !digits(whole) || !digits(rest) {
        return None;
    }
    let whole: u64 = if whole.is_empty() { 0 } else { whole.parse().ok()? };
    let mut rest: String = rest.chars().take(3).collect();
    while rest.len() < 3 {
        rest.push('0');
    }
    whole.checked_mul(1000)?.checked_add(rest.parse().ok()?)
}

/// Bytes for a table: three figures and a binary unit.
pub fn shown_bytes(count: u64) -> String {
    for (power, unit) in [(40, "TiB"), (30, "GiB"), (20, "MiB"), (10, "KiB")] {
        let whole = count >> power;
        if whole >= 100 || (whole > 0 && count.is_multiple_of(1 << power)) {
            return format!("{whole} {unit}");
        }
        if whole > 0 {
            let tenths = u128::from(count) * 10 / (1_u128 << power);
            return format!("{}.{} {unit}", tenths / 10, tenths % 10);
        }
    }
    format!("{count} B")
}

/// Thousandths of a core for a table.
pub fn shown_cpus(millis: u64) -> String {
    let text = format!("{}.{:03}", millis / 1000, millis % 1000);
    text.trim_end_matches('0').trim_end_matches('.').to_owned()
}

/// How long ago, in the largest unit that fits.
pub fn shown_age(age: Duration) -> String {
    let seconds = age.as_secs();
    let units = [(86_400, "day"), (3600, "hour"), (60, "minute")];
    let unit = units.iter().find(|(length, _)| seconds >= *length).unwrap_or(&(1, "second"));
    let count = seconds / unit.0;
    let many = if count == 1 { "" } else { "s" };
    format!("{count} {}{many} ago", unit.1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_as_people_write_them() {
        for (text, count) in [
            ("0", 0),
            ("512", 512),
            ("512m", 512 << 20),
            ("1.5G", 3 << 29),
            ("64 MiB", 64 << 20),
            (".5k", 512),
            ("1kb", 1024),
        ] {
            assert_eq!(bytes(text), Ok(count), "{text}");
        }
        for text in ["", "m", "-1", "1.2.3", "1x", "1e3", "99999999999g", "0x10", "."] {
            assert!(bytes(text).is_err(), "{text}");
        }
        assert_eq!((cpus("0.5"), cpus("2"), cpus("1.2345")), (Ok(500), Ok(2000), Ok(1234)));
        let times = [("8h", 28_800), ("90", 90), ("1d30m", 88_200), ("2W", 1_209_600)];
        for (text, count) in times {
            assert_eq!(secs(text), Ok(count), "{text}");
        }
        for text in ["", "h", "-1h", "1.5h", "1h30", "1x", "99999999999999999999s", "0h"] {
            assert!(secs(text).is_err(), "{text}");
        }
        assert!(cpus("two").is_err() && cpus("99999999").is_err());
    }

    #[test]
    fn tables_show_few_figures() {
        assert_eq!(shown_bytes(0), "0 B");
        assert_eq!(shown_bytes(64 << 20), "64 MiB");
        assert_eq!(shown_bytes((64 << 20) + 300_000), "64.2 MiB");
        assert_eq!(shown_bytes(u64::MAX), "16777215 TiB");
        assert_eq!(shown_cpus(1500), "1.5");
        assert_eq!(shown_cpus(2000), "2");
        assert_eq!(shown_age(Duration::from_secs(3700)), "1 hour ago");
    }
}
