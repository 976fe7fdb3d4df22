//! Foreign text for a terminal: names, refusals and log lines come from people whom nobody here has to
//! trust, and a terminal obeys what it is sent (ECMA-48 control functions).

use std::borrow::Cow;
use std::fmt::Write;

use serde_json::Value;

/// Text that stays on its line: every control character is shown, not sent.
pub fn line(text: &str) -> Cow<'_, str> {
    shown(text, is_obeyed)
}

/// A line of a log: the same, but for tabulators.
pub fn log(text: &str) -> Cow<'_, str> {
    shown(text, |letter| letter != '\t' && is_obeyed(letter))
}

/// JSON, indented, for people and programs: what a terminal would obey is written as JSON escapes, so
/// that the value is the same.
pub fn json(value: &Value) -> String {
    json_text(&serde_json::to_string_pretty(value).expect("a JSON value has string keys only"))
}

/// The same for JSON that is a text already.
pub fn json_text(text: &str) -> String {
    let mut safe = String::with_capacity(text.len());
    for letter in text.chars() {
        // Outside of strings there is nothing of this but line feeds.
        if letter == '\n' || !is_obeyed(letter) {
            safe.push(letter);
            continue;
        }
        for unit in letter.encode_utf16(&mut [0; 2]) {
            write!(safe, "\\u{unit:04x}").expect("a string takes everything");
        }
    }
    safe
}

/// Bytes of a program, as they come, for a terminal that shall not obey them: lines and tabulators stay.
#[derive(Debug, Default)]
pub struct Flow {
    /// A letter whose end has not come yet (UTF-8: three bytes at most).
    begun: Vec<u8>,
}

impl Flow {
    /// What of it can be shown now.
    pub fn push(&mut self, bytes: &[u8]) -> String {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut safe = String::with_capacity(all.len());
        let mut rest = all.as_slice();
        while !rest.is_empty() {
            let error = match std::str::from_utf8(rest) {
                Ok(text) => {
                    safe.push_str(&shown(text, is_obeyed_in_lines));
                    break;
                }
                Err(error) => error,
            };
            let (good, bad) = rest.split_at(error.valid_up_to());
            safe.push_str(&shown(&String::from_utf8_lossy(good), is_obeyed_in_lines));
            let Some(length) = error.error_len() else {
                self.begun = bad.to_vec();
                break;
            };
            for byte in &bad[..length] {
                write!(safe, "\\x{byte:02x}").expect("a string takes everything");
            }
            rest = &bad[length..];
        }
        safe
    }
}

fn is_obeyed_in_lines(letter: char) -> bool {
    !matches!(letter, '\t' | '\n') && is_obeyed(letter)
}

fn shown(text: &str, obeyed: fn(char) -> bool) -> Cow<'_, str> {
    if !text.contains(obeyed) {
        return Cow::Borrowed(text);
    }
    let mut safe = String::with_capacity(text.len() + 16);
    for letter in text.chars() {
        match letter {
            letter if !obeyed(letter) => safe.push(letter),
            '\n' => safe.push_str("\\n"),
            '\r' => safe.push_str("\\r"),
            '\t' => safe.push_str("\\t"),
            letter if letter.is_ascii() => {
                write!(safe, "\\x{:02x}", u32::from(letter)).expect("a string takes everything");
            }
            letter => {
                let number = u32::from(letter);
                write!(safe, "\\u{{{number:x}}}").expect("a string takes everything");
            }
        }
    }
    Cow::Owned(safe)
}

/// Whether a letter does something else than to be seen: C0 and C1 controls, line and paragraph
/// separators, and what turns the direction of writing or cannot be seen (Unicode TR 36, 2.5 and TR 9).
fn is_obeyed(letter: char) -> bool {
    letter.is_control()
        || matches!(letter, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{2028}'..='\u{202e}')
        || matches!(letter, '\u{2060}'..='\u{2069}' | '\u{feff}' | '\u{e0000}'..='\u{e007f}')
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_a_terminal_obeys_is_shown() {
        assert_eq!(line("a\u{1b}]52;c;eA==\u{7}b"), "a\\x1b]52;c;eA==\\x07b");
        assert_eq!(line("\u{9b}2J\u{202e}txt"), "\\u{9b}2J\\u{202e}txt");
        assert_eq!(line("a\nb\rc\td\u{7f}"), "a\\nb\\rc\\td\\x7f");
        assert_eq!(log("a\tb\rc"), "a\tb\\rc");
        assert!(matches!(line("Grüße 日本"), Cow::Borrowed(_)));
    }

    #[test]
    fn letters_may_come_in_pieces() {
        let mut flow = Flow::default();
        let mut seen = String::new();
        for byte in "ü\t日\n\u{9b}1m".as_bytes() {
            seen += &flow.push(&[*byte]);
        }
        seen += &flow.push(b"\xff\x1b[0m\r");
        assert_eq!(seen, "ü\t日\n\\u{9b}1m\\xff\\x1b[0m\\r");
    }

    #[test]
    fn json_keeps_its_value() {
        let value = serde_json::json!({"a\u{9b}": ["\u{1b}[0m\n", "\u{e0041}\u{202e}", "ü"]});
        let text = json(&value);
        assert!(!text.contains(|letter| letter != '\n' && is_obeyed(letter)), "{text:?}");
        assert_eq!(serde_json::from_str::<Value>(&text).expect("JSON"), value);
    }
}
