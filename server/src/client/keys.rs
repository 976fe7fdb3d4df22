//! The keys that leave a session without ending it: Ctrl-P and then Ctrl-Q, as docker(1) has them.

const CTRL_P: u8 = 0x10;
const CTRL_Q: u8 = 0x11;

/// Looks for them in what is typed.
#[derive(Debug, Default)]
pub struct DetachKeys {
    /// A Ctrl-P that waits for what comes next.
    held: bool,
}

impl DetachKeys {
    /// What of `typed` is the program's, and whether the keys were pressed: nothing behind them counts.
    pub fn filter(&mut self, typed: &[u8]) -> (Vec<u8>, bool) {
        let mut passed = Vec::with_capacity(typed.len() + 1);
        for &byte in typed {
            match (std::mem::take(&mut self.held), byte) {
                (true, CTRL_Q) => return (passed, true),
                // The first of two was the program's; the second may be the beginning.
                (true, CTRL_P) => {
                    passed.push(CTRL_P);
                    self.held = true;
                }
                (true, byte) => passed.extend([CTRL_P, byte]),
                (false, CTRL_P) => self.held = true,
                (false, byte) => passed.push(byte),
            }
        }
        (passed, false)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_two_keys_together_leave() {
        let mut keys = DetachKeys::default();
        assert_eq!(keys.filter(b"ls\x11"), (b"ls\x11".to_vec(), false));
        assert_eq!(keys.filter(b"a\x10"), (b"a".to_vec(), false));
        assert_eq!(keys.filter(b"b"), (b"\x10b".to_vec(), false));
        assert_eq!(keys.filter(b"\x10\x10"), (b"\x10".to_vec(), false));
        assert_eq!(keys.filter(b"\x11never"), (Vec::new(), true));
    }
}
