//! Bech32 (BIP 173), in which age writes its keys: a prefix, `1`, five bits a character, six characters
//! of checksum.

use zeroize::Zeroizing;

const ALPHABET: &[u8; 32] = b"qpzry9x8gf2tvdw0s3jn54khce6mua7l";

const CHECKSUM: usize = 6;

/// The bytes of a text of either case; `None` where it is not Bech32 with this prefix, which is compared
/// as it is written.
pub(super) fn decode(prefix: &str, text: &str) -> Option<Zeroizing<Vec<u8>>> {
    let has = |is: fn(&u8) -> bool| text.bytes().any(|byte| is(&byte));
    if has(u8::is_ascii_lowercase) && has(u8::is_ascii_uppercase) {
        return None;
    }
    let data = text.strip_prefix(prefix)?.strip_prefix('1')?;
    let value = |byte: u8| ALPHABET.iter().position(|known| *known == byte.to_ascii_lowercase());
    let values = data.bytes().map(|byte| value(byte).and_then(|value| u8::try_from(value).ok()));
    let values = Zeroizing::new(values.collect::<Option<Vec<u8>>>()?);
    let end = values.len().checked_sub(CHECKSUM)?;
    if polymod(expanded(prefix).chain(values.iter().copied())) != 1 {
        return None;
    }
    to_bytes(values.get(..end)?)
}

/// The text of some bytes, in lower case.
pub(super) fn encode(prefix: &str, bytes: &[u8]) -> Zeroizing<String> {
    let mut values = to_values(bytes);
    let zeros = [0; CHECKSUM];
    let sum = polymod(expanded(prefix).chain(values.iter().copied()).chain(zeros)) ^ 1;
    values.extend((0..CHECKSUM).map(|at| (sum >> (5 * (CHECKSUM - 1 - at))) as u8 & 31));
    let mut text = Zeroizing::new(String::with_capacity(prefix.len() + 1 + values.len()));
    text.push_str(prefix);
    text.push('1');
    text.extend(values.iter().filter_map(|value| ALPHABET.get(usize::from(*value))).map(|c| char::from(*c)));
    text
}

/// Five bits each; the last ones are padded with zeros.
fn to_values(bytes: &[u8]) -> Zeroizing<Vec<u8>> {
    let mut values = Zeroizing::new(Vec::with_capacity(bytes.len() * 8 / 5 + 1 + CHECKSUM));
    let (mut held, mut bits) = (0u32, 0);
    for byte in bytes {
        held = (held << 8 | u32::from(*byte)) & 0xFFF;
        bits += 8;
        while bits >= 5 {
            bits -= 5;
            values.push((held >> bits) as u8 & 31);
        }
    }
    if bits > 0 {
        values.push((held << (5 - bits)) as u8 & 31);
    }
    values
}

fn to_bytes(values: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let mut bytes = Zeroizing::new(Vec::with_capacity(values.len() * 5 / 8));
    let (mut held, mut bits) = (0u32, 0);
    for value in values {
        held = (held << 5 | u32::from(*value)) & 0xFFF;
        bits += 5;
        if bits >= 8 {
            bits -= 8;
            bytes.push((held >> bits) as u8);
        }
    }
    let padding = held & ((1 << bits) - 1);
    (bits < 5 && padding == 0).then_some(bytes)
}

fn expanded(prefix: &str) -> impl Iterator<Item = u8> {
    let lower = move || prefix.bytes().map(|byte| byte.to_ascii_lowercase());
    lower().map(|byte| byte >> 5).chain([0]).chain(lower().map(|byte| byte & 31))
}

fn polymod(values: impl Iterator<Item = u8>) -> u32 {
    const GENERATOR: [u32; 5] = [0x3b6a_57b2, 0x2650_8e6d, 0x1ea1_19fa, 0x3d42_33dd, 0x2a14_62b3];
    values.fold(1, |sum, value| {
        let top = sum >> 25;
        let sum = (sum & 0x01ff_ffff) << 5 ^ u32::from(value);
        GENERATOR
            .iter()
            .zip(0..)
            .fold(sum, |sum, (term, bit)| if top >> bit & 1 == 1 { sum ^ term } else { sum })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    const RECIPIENT: &str = "age1yespt8c2wn7uvucqfzmv0yz26s6uaeh5jqe8gv4fnk9v89jscgeqnnjcky";

    #[test]
    fn what_is_written_is_read_again() {
        let bytes = decode("age", RECIPIENT).unwrap();
        assert_eq!(bytes.len(), 32);
        assert_eq!(*encode("age", &bytes), RECIPIENT);
        for len in 0..40u8 {
            let bytes: Vec<u8> = (0..len).map(|at| at.wrapping_mul(71) ^ len).collect();
            assert_eq!(*decode("x", &encode("x", &bytes)).unwrap(), bytes);
        }
    }

    #[test]
    fn a_changed_character_another_prefix_or_mixed_case_is_not_read() {
        for at in 4..RECIPIENT.len() {
            let mut text = RECIPIENT.to_owned().into_bytes();
            text[at] = if text[at] == b'q' { b'p' } else { b'q' };
            assert_eq!(decode("age", std::str::from_utf8(&text).unwrap()), None, "{at}");
        }
        let mixed = RECIPIENT.replacen("yes", "YES", 1);
        for bad in ["", "age", "age1", "age1qqqqq", &RECIPIENT[..61], &mixed, &RECIPIENT.to_uppercase()] {
            assert_eq!(decode("age", bad), None, "{bad:?}");
        }
        assert!(decode("AGE", &RECIPIENT.to_uppercase()).is_some());
        assert_eq!(decode("ag", RECIPIENT), None);
    }
}
