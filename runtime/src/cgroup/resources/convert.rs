//! v1's numbers, in which a configuration is written, as v2 has them: runc's conversions.

/// v1's largest `cpu.shares`.
const SHARES_MAX: u32 = 262_144;
/// Lists of numbers such as `0-63`: numbers of one at most, more than there are processors anywhere.
const LIST_MAX: usize = 8192;
/// v2's largest weight.
const WEIGHT_MAX: u32 = 10_000;

/// `cpu.weight` (1 to 10000, 100 is neutral) for `cpu.shares` (2 to 262144, 1024 is neutral): the quadratic
/// curve over logarithms that meets both ends and the neutral values, rounded up. Beyond the ends it is the end.
pub fn cpu_weight(shares: u64) -> u32 {
    let shares = u32::try_from(shares).unwrap_or(SHARES_MAX);
    match shares {
        0..=2 => 1,
        SHARES_MAX.. => WEIGHT_MAX,
        _ => {
            let log = f64::from(shares).log2();
            let exact = 10_f64.powf((log * log + 125.0 * log) / 612.0 - 7.0 / 34.0);
            let below = |weight: &u32| f64::from(*weight) < exact;
            let weights: Vec<u32> = (1..=WEIGHT_MAX).collect();
            weights.get(weights.partition_point(below)).copied().unwrap_or(WEIGHT_MAX)
        }
    }
}

/// `io.weight` (1 to 10000) for `blkio.weight` (10 to 1000), a straight line.
pub(super) fn io_weight(weight: u16) -> u32 {
    1 + (u32::from(weight).saturating_sub(10)) * 9999 / 990
}

/// Swap alone, of which v2 keeps count, for v1's memory and swap together; -1 is no limit.
pub fn swap_alone(total: i64, memory: i64) -> Option<i64> {
    match (total, memory) {
        (-1, _) => Some(-1),
        (total, memory) if memory > 0 && memory <= total => Some(total - memory),
        _ => None,
    }
}

/// The bytes of a huge page of a size such as `2MB`; 1 of one that cannot be read.
pub(super) fn page_bytes(size: &str) -> u64 {
    let units = [("KB", 10), ("MB", 20), ("GB", 30)];
    let bytes = units.iter().find_map(|(unit, bits)| {
        let number: u64 = size.strip_suffix(unit)?.parse().ok()?;
        number.checked_mul(1 << bits)
    });
    bytes.unwrap_or(1).max(1)
}

/// The numbers of a list such as `0-3,7`.
pub fn numbers(list: &str) -> Vec<u32> {
    let range = |part: &str| {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        Some(first.trim().parse().ok()?..=last.trim().parse().ok()?)
    };
    list.split(',').filter_map(range).flatten().take(LIST_MAX).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn shares_meet_both_ends_and_the_neutral_weight() {
        for (shares, weight) in [
            (0, 1),
            (1, 1),
            (2, 1),
            (10, 4),
            (102, 17),
            (256, 35),
            (512, 59),
            (1024, 100),
            (4096, 303),
            (262_143, 10_000),
            (262_144, 10_000),
            (u64::MAX, 10_000),
        ] {
            assert_eq!(cpu_weight(shares), weight, "{shares} shares");
        }
        let mut last = 0;
        for shares in (0..263_000).step_by(777) {
            let weight = cpu_weight(shares);
            assert!(weight >= last, "more shares are no less weight: {shares}");
            last = weight;
        }
        assert_eq!([10, 100, 500, 1000].map(io_weight), [1, 910, 4950, 10_000]);
    }

    #[test]
    fn lists_of_processors_are_numbers() {
        assert_eq!(numbers("0-3,7"), [0, 1, 2, 3, 7]);
        assert!(numbers("").is_empty());
        assert_eq!(numbers("5-4,x,1"), [1]);
        assert_eq!(numbers("0-4294967295").len(), LIST_MAX);
    }

    #[test]
    fn memory_and_swap_together_become_swap_alone() {
        assert_eq!(swap_alone(96, 64), Some(32));
        assert_eq!(swap_alone(64, 64), Some(0));
        assert_eq!(swap_alone(-1, 64), Some(-1));
        assert_eq!(swap_alone(64, 96), None);
        assert_eq!(swap_alone(64, -1), None);
    }
}
