//! The wire form of messages ("Marshaling", "Message Format"), little-endian.

use super::{Error, Method};

/// What comes before a message's length is known.
pub(super) const FIXED_BYTES: usize = 16;

/// Codes of header fields.
mod field {
    pub(super) const PATH: u8 = 1;
    pub(super) const INTERFACE: u8 = 2;
    pub(super) const MEMBER: u8 = 3;
    pub(super) const ERROR_NAME: u8 = 4;
    pub(super) const REPLY_SERIAL: u8 = 5;
    pub(super) const DESTINATION: u8 = 6;
    pub(super) const SIGNATURE: u8 = 8;
}

/// What a message is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Kind {
    /// A call, or something newer than this.
    Other,
    /// The answer to a call.
    Answer,
    /// A call's failure.
    Error,
    /// Something that has happened.
    Signal,
}

/// Values one after the other, and their types.
#[derive(Debug, Clone, Default)]
pub struct Body {
    bytes: Vec<u8>,
    signature: String,
}

impl Body {
    /// Adds to the types of the whole; what follows has to be of them.
    pub fn of(signature: &str) -> Self {
        Self { bytes: Vec::new(), signature: signature.to_owned() }
    }

    fn align(&mut self, to: usize) {
        self.bytes.resize(self.bytes.len().next_multiple_of(to), 0);
    }

    /// `u`.
    pub fn number(&mut self, number: u32) -> &mut Self {
        self.align(4);
        self.bytes.extend(number.to_le_bytes());
        self
    }

    /// `b`.
    pub fn flag(&mut self, flag: bool) -> &mut Self {
        self.number(flag.into())
    }

    /// `t`.
    pub fn long(&mut self, number: u64) -> &mut Self {
        self.align(8);
        self.bytes.extend(number.to_le_bytes());
        self
    }

    /// `y`.
    pub fn byte(&mut self, byte: u8) -> &mut Self {
        self.bytes.push(byte);
        self
    }

    /// `s` or `o`.
    pub fn text(&mut self, text: &str) -> &mut Self {
        self.number(u32::try_from(text.len()).expect("texts here are names"));
        self.bytes.extend(text.as_bytes());
        self.byte(0)
    }

    /// `g`, also the type of a variant.
    pub fn signature(&mut self, signature: &str) -> &mut Self {
        self.byte(u8::try_from(signature.len()).expect("types here are few"));
        self.bytes.extend(signature.as_bytes());
        self.byte(0)
    }

    /// An array of values that are aligned to so many bytes.
    pub fn array(&mut self, aligned: usize, fill: impl FnOnce(&mut Self)) -> &mut Self {
        self.number(0);
        let at = self.bytes.len();
        self.align(aligned);
        let begin = self.bytes.len();
        fill(self);
        let length = u32::try_from(self.bytes.len() - begin).expect("lists here are short");
        self.bytes[at - 4..at].copy_from_slice(&length.to_le_bytes());
        self
    }

    /// The bytes alone.
    #[cfg(test)]
    pub(super) fn into_bytes(self) -> Vec<u8> {
        self.bytes
    }

    /// The beginning of a structure.
    pub fn structure(&mut self) -> &mut Self {
        self.align(8);
        self
    }
}

/// The bytes of a method call. Without a bus the destination is for form's sake.
pub(super) fn call(serial: u32, method: Method<'_>, body: &Body) -> Vec<u8> {
    let mut whole = Body::default();
    // Little-endian, a call, without flags, version 1.
    whole.byte(b'l').byte(1).byte(0).byte(1);
    whole.number(u32::try_from(body.bytes.len()).expect("calls are short")).number(serial);
    whole.array(8, |fields| {
        for (code, kind, text) in [
            (field::PATH, "o", method.object),
            (field::INTERFACE, "s", method.interface),
            (field::MEMBER, "s", method.member),
            (field::DESTINATION, "s", "org.freedesktop.systemd1"),
        ] {
            fields.structure().byte(code).signature(kind).text(text);
        }
        if !body.signature.is_empty() {
            fields.structure().byte(field::SIGNATURE).signature("g").signature(&body.signature);
        }
    });
    whole.align(8);
    whole.bytes.extend(&body.bytes);
    whole.bytes
}

/// A message that came.
#[derive(Debug, Clone)]
pub struct Message {
    /// What it is.
    pub kind: Kind,
    /// A signal's name.
    pub member: String,
    /// The error's name.
    pub(super) error: String,
    /// The call that it answers.
    pub(super) answers: Option<u32>,
    signature: String,
    body: Vec<u8>,
}

impl Message {
    /// Its values.
    pub fn reader(&self) -> Reader<'_> {
        // Whoever sends no text has none to be read.
        let bytes = if self.signature.is_empty() { &[][..] } else { &self.body };
        Reader { bytes, at: 0 }
    }
}

/// The whole length of the message that begins with these bytes.
pub(super) fn length(fixed: &[u8]) -> Result<usize, Error> {
    let mut reader = Reader { bytes: fixed, at: 0 };
    if reader.byte()? != b'l' {
        return Err(Error::Malformed("it is not little-endian"));
    }
    reader.at = 4;
    let body = reader.number()? as usize;
    reader.at = 12;
    let fields = reader.number()? as usize;
    Ok((FIXED_BYTES + fields).next_multiple_of(8) + body)
}

/// A message from its bytes, as many as [`length`] says.
pub(super) fn message(bytes: &[u8]) -> Result<Message, Error> {
    let mut reader = Reader { bytes, at: 1 };
    let kind = match reader.byte()? {
        2 => Kind::Answer,
        3 => Kind::Error,
        4 => Kind::Signal,
        _ => Kind::Other,
    };
    reader.at = 12;
    let end = FIXED_BYTES + reader.number()? as usize;
    let (mut member, mut error, mut signature, mut answers) =
        (String::new(), String::new(), String::new(), None);
    while reader.at < end {
        reader.align(8);
        let code = reader.byte()?;
        let kind = reader.signature()?.to_owned();
        match kind.as_str() {
            "s" | "o" => {
                let text = reader.text()?;
                match code {
                    field::MEMBER => member = text.to_owned(),
                    field::ERROR_NAME => error = text.to_owned(),
                    _ => {}
                }
            }
            "g" => signature = reader.signature()?.to_owned(),
            "u" => {
                let number = reader.number()?;
                answers = if code == field::REPLY_SERIAL { Some(number) } else { answers };
            }
            _ => return Err(Error::Malformed("a header field has a type of its own")),
        }
    }
    let body = bytes.get(end.next_multiple_of(8)..).unwrap_or_default().to_vec();
    Ok(Message { kind, member, error, answers, signature, body })
}

/// Reads values in their order.
#[derive(Debug)]
pub struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn align(&mut self, to: usize) {
        self.at = self.at.next_multiple_of(to);
    }

    fn take(&mut self, count: usize) -> Result<&'a [u8], Error> {
        let end = self.at.checked_add(count);
        let taken = end.and_then(|end| self.bytes.get(self.at..end));
        self.at = self.at.saturating_add(count);
        taken.ok_or(Error::Malformed("a message ends too early"))
    }

    /// `y`.
    pub fn byte(&mut self) -> Result<u8, Error> {
        Ok(self.take(1)?[0])
    }

    /// `u`.
    pub fn number(&mut self) -> Result<u32, Error> {
        self.align(4);
        let bytes = self.take(4)?;
        Ok(u32::from_le_bytes(bytes.try_into().expect("four bytes were taken")))
    }

    /// `s` or `o`.
    pub fn text(&mut self) -> Result<&'a str, Error> {
        let length = self.number()? as usize;
        let bytes = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(bytes).map_err(|_| Error::Malformed("a text is not UTF-8"))
    }

    /// `g`, also the type of a variant.
    pub fn signature(&mut self) -> Result<&'a str, Error> {
        let length = usize::from(self.byte()?);
        let bytes = self.take(length)?;
        self.take(1)?;
        std::str::from_utf8(bytes).map_err(|_| Error::Malformed("a type is not UTF-8"))
    }
}
