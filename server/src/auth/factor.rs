//! The second factor: codes of a program on a person's phone (TOTP, RFC 6238: SHA-1, six digits, 30 seconds, as
//! every such program has them), and recovery codes for when that is lost. Pure, but for random bytes.

use qrcodegen::{QrCode, QrCodeEcc};
use totp_rs::{Builder, Secret, Totp};

use super::keys::{SecretHash, hash_secret, random_bytes};
use crate::error::{Error, Result};

/// RFC 4226, 4, R6 recommends 160 bits.
const SECRET_BYTES: usize = 20;
/// Steps before and after now whose code is taken: clocks differ (RFC 6238, 5.2).
const SKEW_STEPS: u16 = 1;
/// Recovery codes that somebody gets.
pub const RECOVERY_CODES: usize = 10;
/// Crockford's base 32, which has no letters that look like others: 60 bits.
const RECOVERY_ALPHABET: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";
const RECOVERY_CHARS: usize = 12;
/// What is longer than any code with its spaces.
const TYPED_CHARS_MAX: usize = 64;

/// A code, as somebody has typed it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Code {
    /// Six digits.
    Timed(String),
    /// A recovery code's hash.
    Recovery(SecretHash),
}

/// A picture of a text that a phone's camera reads.
#[derive(Debug, Clone)]
pub struct Picture {
    /// Modules along each side, the quiet zone not among them.
    pub side: i32,
    /// The dark ones, as an SVG path.
    pub path: String,
}

impl Code {
    /// Reads what was typed; spaces and hyphens are for people. `None` when it is no code at all.
    pub fn read(text: &str) -> Option<Self> {
        if text.len() > TYPED_CHARS_MAX {
            return None;
        }
        let plain: String = text.chars().filter(|c| !c.is_whitespace() && *c != '-').collect();
        let plain = plain.to_ascii_lowercase();
        if plain.len() == 6 && plain.bytes().all(|byte| byte.is_ascii_digit()) {
            return Some(Self::Timed(plain));
        }
        let good = |byte: u8| RECOVERY_ALPHABET.contains(&byte);
        (plain.len() == RECOVERY_CHARS && plain.bytes().all(good))
            .then(|| Self::Recovery(hash_secret(&plain)))
    }
}

/// A new secret, in base 32 as people type it.
///
/// # Errors
/// When the kernel has no random bytes.
pub fn new_secret() -> Result<String> {
    Ok(Secret::from(random_bytes::<SECRET_BYTES>()?.to_vec()).to_base32())
}

/// The address that programs on phones read (Key URI Format): whose code, and of which machine.
///
/// # Errors
/// When the secret is none.
pub fn address(secret: &str, name: &str, machine: &str) -> Result<String> {
    let factor = factor(secret, name, machine)?;
    factor.to_url().map_err(|source| Error::broken("write a factor's address", source))
}

/// Which step's code it is, among those that are near `now_secs` (since 1970) and after `last_step`.
///
/// # Errors
/// When the secret is none.
pub fn check(secret: &str, code: &str, now_secs: u64, last_step: u64) -> Result<Option<u64>> {
    let step = factor(secret, "", "Berth")?.check(code, now_secs);
    Ok(step.filter(|step| *step > last_step))
}

/// New recovery codes, as people keep them.
///
/// # Errors
/// When the kernel has no random bytes.
pub fn recovery_codes() -> Result<Vec<String>> {
    let code = || -> Result<String> {
        let letters = random_bytes::<RECOVERY_CHARS>()?
            .map(|byte| char::from(RECOVERY_ALPHABET[usize::from(byte & 31)]));
        let groups = letters.chunks(4).map(|group| group.iter().collect::<String>());
        Ok(groups.collect::<Vec<_>>().join("-"))
    };
    (0..RECOVERY_CODES).map(|_| code()).collect()
}

/// The picture of an address.
///
/// # Errors
/// When it is too long for one.
pub fn picture(address: &str) -> Result<Picture> {
    let code = QrCode::encode_text(address, QrCodeEcc::Medium)
        .map_err(|source| Error::broken("draw a factor's address", source))?;
    let side = code.size();
    let dark = (0..side).flat_map(|y| (0..side).map(move |x| (x, y)));
    let path = dark
        .filter(|(x, y)| code.get_module(*x, *y))
        .map(|(x, y)| format!("M{x} {y}h1v1h-1z"))
        .collect();
    Ok(Picture { side, path })
}

fn factor(secret: &str, name: &str, machine: &str) -> Result<Totp> {
    let bytes = Secret::try_from_base32(secret)
        .map_err(|source| Error::broken("read a factor's secret", source))?;
    // The library refuses a colon in either, which divides them in the address.
    let plain = |text: &str| text.replace(':', " ");
    Builder::new()
        .with_secret(bytes)
        .with_skew(SKEW_STEPS)
        .with_account_name(plain(name))
        .with_issuer(Some(plain(machine)))
        .build()
        .map_err(|source| Error::broken("read a factor", source))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 6238, appendix B, in base 32; its eight digits end with our six.
    const SECRET: &str = "GEZDGNBVGY3TQOJQGEZDGNBVGY3TQOJQ";

    #[test]
    fn codes_are_those_of_the_rfc_and_each_is_taken_once() {
        for (secs, code) in [(59, "287082"), (1_111_111_109, "081804"), (2_000_000_000, "279037")] {
            let step = secs / 30;
            assert_eq!(check(SECRET, code, secs, 0).expect("a secret"), Some(step));
            assert_eq!(check(SECRET, code, secs + 30, 0).expect("a secret"), Some(step), "late");
            assert_eq!(check(SECRET, code, secs + 60, 0).expect("a secret"), None, "too late");
            assert_eq!(check(SECRET, code, secs, step).expect("a secret"), None, "again");
        }
    }

    #[test]
    fn codes_are_read_as_people_type_them() {
        let timed = Some(Code::Timed("012345".to_owned()));
        assert_eq!(Code::read(" 012 345 "), timed);
        let codes = recovery_codes().expect("random bytes");
        assert_eq!(codes.len(), RECOVERY_CODES);
        let typed = codes[0].to_ascii_uppercase().replace('-', " ");
        assert_eq!(Code::read(&codes[0]), Code::read(&typed));
        assert!(matches!(Code::read(&codes[0]), Some(Code::Recovery(_))));
        let long = "0".repeat(65);
        for text in
            ["", "12345", "1234567", "abcdef", "iiii-iiii-iiii", long.as_str(), "\u{662}12345"]
        {
            assert_eq!(Code::read(text), None, "{text}");
        }
    }

    #[test]
    fn an_address_has_all_that_a_phone_needs_and_can_be_drawn() {
        let secret = new_secret().expect("random bytes");
        let address = address(&secret, "anna", "berth: lab").expect("an address");
        assert!(address.starts_with("otpauth://totp/"), "{address}");
        assert!(address.contains(&format!("secret={secret}")) && address.contains("anna"));
        let drawn = picture(&address).expect("it fits");
        assert!(drawn.side > 20 && drawn.path.starts_with("M0 0h1v1h-1z"), "{}", drawn.side);
    }
}
