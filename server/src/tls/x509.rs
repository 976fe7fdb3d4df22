//! What is shown of a certificate: its names, and from when to when it holds. Reads DER (X.690) as
//! far as RFC 5280 section 4.1 needs; whether the certificate is good is rustls's to say.

use std::net::IpAddr;

use sha2::{Digest, Sha256};
use time::{Date, Month, PrimitiveDateTime, Time as Clock};

use crate::clock::Time;

/// Names of one certificate that are read at most.
const NAMES_MAX: usize = 256;

const SEQUENCE: u8 = 0x30;
const UTC_TIME: u8 = 0x17;
const GENERALIZED_TIME: u8 = 0x18;
const VERSION: u8 = 0xa0;
const EXTENSIONS: u8 = 0xa3;
const OCTET_STRING: u8 = 0x04;
const DNS_NAME: u8 = 0x82;
const IP_ADDRESS: u8 = 0x87;
/// 2.5.29.17, subjectAltName.
const SUBJECT_ALT_NAME: [u8; 3] = [0x55, 0x1d, 0x11];

/// What a certificate says of itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    /// Host names, in lower case; one may begin with `*.`.
    pub names: Vec<String>,
    /// Addresses.
    pub addresses: Vec<IpAddr>,
    /// Good from then.
    pub not_before: Time,
    /// Good until then.
    pub not_after: Time,
    /// SHA-256 of the certificate, as browsers show it: pairs of digits with colons.
    pub fingerprint: String,
}

/// Reads a certificate; `None` when it is none.
pub fn read(certificate: &[u8]) -> Option<Facts> {
    let (_, whole, _) = item(certificate)?;
    let (_, mut body, _) = item(whole)?;
    if *body.first()? == VERSION {
        body = item(body)?.2;
    }
    // Serial number, signature algorithm, issuer.
    for _ in 0..3 {
        body = item(body)?.2;
    }
    let (_, validity, mut body) = item(body)?;
    let (tag, text, rest) = item(validity)?;
    let not_before = moment(tag, text)?;
    let (tag, text, _) = item(rest)?;
    let not_after = moment(tag, text)?;
    let mut facts = Facts {
        names: Vec::new(),
        addresses: Vec::new(),
        not_before,
        not_after,
        fingerprint: fingerprint(certificate),
    };
    while let Some((tag, content, rest)) = item(body) {
        if tag == EXTENSIONS {
            read_extensions(&mut facts, item(content)?.1);
        }
        body = rest;
    }
    Some(facts)
}

fn read_extensions(facts: &mut Facts, mut list: &[u8]) {
    while let Some((_, extension, rest)) = item(list) {
        list = rest;
        let Some((_, id, mut parts)) = item(extension) else { continue };
        if id != SUBJECT_ALT_NAME {
            continue;
        }
        while let Some((tag, content, rest)) = item(parts) {
            if let (OCTET_STRING, Some((SEQUENCE, names, _))) = (tag, item(content)) {
                read_names(facts, names);
            }
            parts = rest;
        }
    }
}

fn read_names(facts: &mut Facts, mut names: &[u8]) {
    while let Some((tag, content, rest)) = item(names) {
        names = rest;
        if facts.names.len() + facts.addresses.len() >= NAMES_MAX {
            return;
        }
        match tag {
            DNS_NAME => {
                let text = std::str::from_utf8(content).ok().filter(|text| text.is_ascii());
                facts.names.extend(text.map(str::to_ascii_lowercase));
            }
            IP_ADDRESS => {
                let v4 = <[u8; 4]>::try_from(content).map(IpAddr::from);
                let v6 = <[u8; 16]>::try_from(content).map(IpAddr::from);
                facts.addresses.extend(v4.or(v6));
            }
            _ => {}
        }
    }
}

/// Tag, content and what follows. Short tags and lengths of at most four bytes, which is all that
/// certificates have.
fn item(bytes: &[u8]) -> Option<(u8, &[u8], &[u8])> {
    let (&tag, rest) = bytes.split_first()?;
    let (&first, rest) = rest.split_first()?;
    let (length, rest) = match first {
        0..=0x7f => (usize::from(first), rest),
        0x81..=0x84 => {
            let (digits, rest) = rest.split_at_checked(usize::from(first & 0x0f))?;
            let length = digits.iter().fold(0usize, |sum, digit| sum << 8 | usize::from(*digit));
            (length, rest)
        }
        _ => return None,
    };
    let (content, rest) = rest.split_at_checked(length)?;
    Some((tag, content, rest))
}

/// `YYMMDDHHMMSSZ` or `YYYYMMDDHHMMSSZ`.
fn moment(tag: u8, text: &[u8]) -> Option<Time> {
    let text = std::str::from_utf8(text).ok()?.strip_suffix('Z')?;
    let two = |at: usize| text.get(at..at + 2)?.parse::<u8>().ok();
    let (year, rest) = match tag {
        // RFC 5280, section 4.1.2.5.1: 50 to 99 are of the last century.
        UTC_TIME => (i32::from(two(0)?) + if two(0)? >= 50 { 1900 } else { 2000 }, 2),
        GENERALIZED_TIME => (text.get(..4)?.parse().ok()?, 4),
        _ => return None,
    };
    let date = Date::from_calendar_date(year, Month::try_from(two(rest)?).ok()?, two(rest + 2)?);
    let clock = Clock::from_hms(two(rest + 4)?, two(rest + 6)?, two(rest + 8)?);
    let at = PrimitiveDateTime::new(date.ok()?, clock.ok()?).assume_utc();
    Some(Time(at.unix_timestamp().saturating_mul(1000)))
}

fn fingerprint(certificate: &[u8]) -> String {
    let digest = Sha256::digest(certificate);
    digest.iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>().join(":")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_made_certificate_reads_as_it_was_made() {
        let names = vec!["berth.lab".to_owned(), "192.0.2.1".to_owned(), "2001:db8::1".to_owned()];
        let mut params = rcgen::CertificateParams::new(names).expect("good names");
        params.not_before = rcgen::date_time_ymd(2026, 2, 3);
        params.not_after = rcgen::date_time_ymd(2055, 12, 31);
        let key = rcgen::KeyPair::generate().expect("a key");
        let made = params.self_signed(&key).expect("a certificate");
        let facts = read(made.der()).expect("it reads");
        assert_eq!(facts.names, ["berth.lab"]);
        let addresses: Vec<String> = facts.addresses.iter().map(ToString::to_string).collect();
        assert_eq!(addresses, ["192.0.2.1", "2001:db8::1"]);
        assert_eq!(facts.not_before.to_string(), "2026-02-03T00:00:00.000Z");
        assert_eq!(facts.not_after.to_string(), "2055-12-31T00:00:00.000Z");
        assert_eq!(facts.fingerprint.len(), 32 * 3 - 1);
        for cut in 0..made.der().len() {
            // Cut short anywhere it is refused or read in part, and never panics.
            read(&made.der()[..cut]);
        }
    }
}
