//! Parts of a blob: what was asked for, and what is being sent (`Range`, `Content-Range`).

use reqwest::header::{CONTENT_RANGE, HeaderMap, HeaderValue};

/// Whether a partial answer begins where it was asked to and goes on to the end (RFC 9110
/// section 14.4): ranges are only ever asked for as `bytes=FIRST-`.
pub fn fits(range: Option<&HeaderValue>, headers: &HeaderMap) -> bool {
    let first = |value: &HeaderValue| {
        value.to_str().ok()?.strip_prefix("bytes=")?.strip_suffix('-')?.parse::<u64>().ok()
    };
    let sent = |value: &HeaderValue| {
        let (range, whole) = value.to_str().ok()?.strip_prefix("bytes ")?.split_once('/')?;
        let (first, last) = range.split_once('-')?;
        let last: u64 = last.parse().ok()?;
        // A registry may not know the whole size while it sends (`*`).
        let ends = whole == "*" || whole.parse::<u64>().ok()?.checked_sub(1)? == last;
        ends.then_some(first.parse::<u64>().ok()?)
    };
    let asked = range.and_then(first);
    asked.is_some() && asked == headers.get(CONTENT_RANGE).and_then(sent)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_range_that_was_asked_for_fits() {
        let fits = |asked: &'static str, sent: &'static str| {
            let mut headers = HeaderMap::new();
            headers.insert(CONTENT_RANGE, HeaderValue::from_static(sent));
            fits(Some(&HeaderValue::from_static(asked)), &headers)
        };
        assert!(fits("bytes=100-", "bytes 100-199/200"));
        assert!(fits("bytes=0-", "bytes 0-199/200"));
        assert!(fits("bytes=100-", "bytes 100-199/*"));
        for sent in [
            "bytes 0-199/200",
            "bytes 101-199/200",
            "bytes 1000-1999/2000",
            "bytes 100-150/200",
            "bytes 100-199/0",
            "bytes */200",
            "100-199/200",
            "",
        ] {
            assert!(!fits("bytes=100-", sent), "{sent:?}");
        }
        assert!(!super::fits(None, &HeaderMap::new()));
    }
}
