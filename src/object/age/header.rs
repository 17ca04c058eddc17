//! The header of an age file: a line of version, stanzas, a MAC. Strict: one text for one meaning.
//!
//! Knows: the grammar of <https://c2sp.org/age>. Does not know: keys, or what a stanza is for.

use base64::Engine;
use base64::engine::general_purpose::STANDARD_NO_PAD;

/// The longest header that is written or read.
pub const MAX_LEN: usize = 16 * 1024;

const VERSION: &[u8] = b"age-encryption.org/v1\n";
const STANZA: &[u8] = b"-> ";
const END: &[u8] = b"---";

/// Characters of base64 in a line.
const COLUMNS: usize = 64;

/// Bytes in as many characters.
const COLUMN_BYTES: usize = COLUMNS / 4 * 3;

/// One stanza.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Stanza {
    /// Its type.
    pub tag: String,
    /// The arguments after it.
    pub arguments: Vec<String>,
    pub body: Vec<u8>,
}

/// A header, and the text that it was read from or is written as.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Header {
    /// Never empty.
    pub stanzas: Vec<Stanza>,
    pub mac: [u8; 32],
    text: Vec<u8>,
    /// Where in the text the lines of the first stanza's body are.
    first_body: (usize, usize),
}

/// The statement of what is wrong.
pub type Malformed = String;

impl Header {
    /// Reads the header at the beginning of these bytes, which are the first [`MAX_LEN`] of a file.
    pub fn read(bytes: &[u8]) -> Result<Self, Malformed> {
        let mut lines = Lines { bytes: bytes.get(..MAX_LEN).unwrap_or(bytes), at: 0 };
        let version = lines.next()?;
        if VERSION.strip_suffix(b"\n") != Some(version) {
            return Err("it is not an age file of version 1".to_owned());
        }
        let (mut stanzas, mut first_body) = (Vec::new(), (0, 0));
        loop {
            let line = lines.next()?;
            if let Some(arguments) = line.strip_prefix(STANZA) {
                let begin = lines.at;
                let mut arguments = read_arguments(arguments)?.into_iter();
                let tag = arguments.next().unwrap_or_default();
                stanzas.push(Stanza { tag, arguments: arguments.collect(), body: read_body(&mut lines)? });
                if stanzas.len() == 1 {
                    first_body = (begin, lines.at);
                }
            } else if let Some(mac) = line.strip_prefix(END) {
                if stanzas.is_empty() {
                    return Err("its header has no stanza".to_owned());
                }
                let mac = mac.strip_prefix(b" ").and_then(array);
                let mac = mac.ok_or("the last line of its header is not a MAC")?;
                let text = bytes.get(..lines.at).unwrap_or_default().to_vec();
                return Ok(Header { stanzas, mac, text, first_body });
            } else {
                return Err("its header has a line that is no stanza and not the last one".to_owned());
            }
        }
    }

    /// Makes one of these stanzas; `mac` computes the MAC of its text.
    pub fn write(stanzas: Vec<Stanza>, mac: impl FnOnce(&[u8]) -> [u8; 32]) -> Self {
        let mut text = VERSION.to_vec();
        let mut first_body = None;
        for stanza in &stanzas {
            text.extend_from_slice(b"->");
            for argument in [&stanza.tag].into_iter().chain(&stanza.arguments) {
                text.push(b' ');
                text.extend_from_slice(argument.as_bytes());
            }
            text.push(b'\n');
            let begin = text.len();
            write_body(&stanza.body, &mut text);
            first_body.get_or_insert((begin, text.len()));
        }
        text.extend_from_slice(END);
        let mac = mac(&text);
        text.push(b' ');
        text.extend_from_slice(base64(&mac).as_bytes());
        text.push(b'\n');
        Header { stanzas, mac, text, first_body: first_body.unwrap_or_default() }
    }

    /// All of it.
    pub fn text(&self) -> &[u8] {
        &self.text
    }

    /// What the MAC is of: up to and including `---`.
    pub fn authenticated(&self) -> &[u8] {
        let mac = 1 + base64(&self.mac).len() + 1;
        self.text.get(..self.text.len().saturating_sub(mac)).unwrap_or_default()
    }

    /// The same without the lines of the first stanza's body.
    pub fn without_first_body(&self) -> [&[u8]; 2] {
        let (begin, end) = self.first_body;
        let text = self.authenticated();
        [text.get(..begin).unwrap_or_default(), text.get(end..).unwrap_or_default()]
    }
}

/// Lines that end with a newline.
struct Lines<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Lines<'a> {
    fn next(&mut self) -> Result<&'a [u8], Malformed> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let end = rest.iter().position(|byte| *byte == b'\n').ok_or_else(|| match self.bytes.len() {
            MAX_LEN => format!("its header is longer than {MAX_LEN} bytes"),
            _ => "its header is cut".to_owned(),
        })?;
        self.at += end + 1;
        Ok(rest.get(..end).unwrap_or_default())
    }
}

fn read_arguments(line: &[u8]) -> Result<Vec<String>, Malformed> {
    let arguments = line.split(|byte| *byte == b' ').map(|argument| {
        let printable = !argument.is_empty() && argument.iter().all(|byte| (0x21..=0x7E).contains(byte));
        String::from_utf8(argument.to_vec()).ok().filter(|_| printable)
    });
    arguments.collect::<Option<_>>().ok_or("its header has an empty or unprintable argument".to_owned())
}

/// Full lines, then a short one, which may be empty.
fn read_body(lines: &mut Lines<'_>) -> Result<Vec<u8>, Malformed> {
    let mut body = Vec::new();
    loop {
        let line = lines.next()?;
        let bytes = STANDARD_NO_PAD.decode(line).ok().filter(|_| line.len() <= COLUMNS);
        body.extend(bytes.ok_or("its header has a line that is not canonical base64")?);
        if line.len() < COLUMNS {
            return Ok(body);
        }
    }
}

fn write_body(body: &[u8], text: &mut Vec<u8>) {
    for line in body.chunks(COLUMN_BYTES) {
        text.extend_from_slice(base64(line).as_bytes());
        text.push(b'\n');
    }
    if body.len().is_multiple_of(COLUMN_BYTES) {
        text.push(b'\n');
    }
}

/// Canonical base64 without padding.
pub(super) fn base64(bytes: &[u8]) -> String {
    STANDARD_NO_PAD.encode(bytes)
}

/// Exactly so many bytes in canonical base64.
pub(super) fn array<const N: usize>(text: &[u8]) -> Option<[u8; N]> {
    STANDARD_NO_PAD.decode(text).ok()?.try_into().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stanza(tag: &str, arguments: &[&str], body: &[u8]) -> Stanza {
        let arguments = arguments.iter().map(|argument| (*argument).to_owned()).collect();
        Stanza { tag: tag.to_owned(), arguments, body: body.to_vec() }
    }

    #[test]
    fn a_header_is_read_as_it_was_written_whatever_the_length_of_a_body() {
        for len in [0, 1, 32, 47, 48, 49, 96, 97] {
            let body = vec![7; len];
            let stanzas = vec![stanza("a", &["b", "~!"], &body), stanza("X25519", &[], &body)];
            let written = Header::write(stanzas.clone(), |text| {
                assert!(text.ends_with(b"\n---"));
                [9; 32]
            });
            let mut file = written.text().to_vec();
            file.extend_from_slice(b"payload\n-> x\n");
            let read = Header::read(&file).unwrap();
            assert_eq!(read, written);
            assert_eq!((read.stanzas, read.mac), (stanzas, [9; 32]));
            assert!(written.text().starts_with(written.authenticated()));
            let [before, after] = written.without_first_body();
            assert!(before.ends_with(b"-> a b ~!\n") && after.starts_with(b"-> X25519\n"), "{len}");
        }
    }

    #[test]
    fn a_header_that_is_too_long_or_cut_is_an_error() {
        let long = Header::write(vec![stanza("a", &[&"b".repeat(MAX_LEN)], b"")], |_| [0; 32]);
        assert!(Header::read(long.text()).unwrap_err().contains("longer"));
        let text = Header::write(vec![stanza("a", &["b"], &[1; 80])], |_| [0; 32]).text().to_vec();
        for len in 0..text.len() {
            assert!(Header::read(&text[..len]).is_err(), "{len}");
        }
    }
}
