//! One stored object, read whole and judged: intact, damaged, or in an encoding that is not read.
//!
//! Knows: how to decode each kind of stored object and whose it must be. Does not know: what is to
//! become of it. The stored bytes are kept, so that they can be put elsewhere unchanged.

use crate::object::{Checks, DecodeError, Decoded, Encoding, Key, Stored, decode_as};
use crate::storage::{Body, BodyWriter, Error, Kind, Object, Range, Result, Storage};
use crate::wal::SystemId;
use std::fmt;
use std::io::{self, Read, Write};
use std::time::SystemTime;

/// What the objects of an archive must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Expected {
    /// Whether pages are looked at.
    pub checks: Checks,
    /// The cluster, where it is known.
    pub system_id: Option<SystemId>,
}

/// An object as it was found.
pub struct Examined {
    /// Where it stands.
    pub key: Key,
    /// When it was stored, by the store's clock.
    pub modified: SystemTime,
    /// The stored bytes.
    pub body: Body,
    /// What they are.
    pub verdict: Verdict,
}

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The WAL file that its key names.
    Intact(Decoded),
    /// Not that file. The reason.
    Damaged(String),
    /// In an encoding that is not read here, so that nothing can be said of it.
    Unread,
}

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Intact(_) => f.write_str("intact"),
            Verdict::Damaged(reason) => write!(f, "damaged: {reason}"),
            Verdict::Unread => f.write_str("in an encoding that this version does not read"),
        }
    }
}

/// How often an object is asked for whose body breaks off: that happens behind the back of
/// whoever repeats requests.
const ATTEMPTS: usize = 3;

/// Bytes read at once.
const BLOCK: usize = 256 * 1024;

/// Reads an object and judges it, writing the raw WAL file to what `raw` makes; `None` where it is
/// not there. What was written is the file only where the verdict is [`Verdict::Intact`].
pub fn examine<W: Write + Send>(
    storage: &dyn Storage,
    key: &Key,
    expected: &Expected,
    raw: impl Fn() -> W,
) -> Result<Option<(Examined, W)>> {
    let Some((modified, body)) = read(storage, key)? else { return Ok(None) };
    let mut output = raw();
    let verdict =
        judge(key, &body, expected, &mut output).map_err(|error| Error::of_io(error, storage.place()))?;
    Ok(Some((Examined { key: key.clone(), modified, body, verdict }, output)))
}

/// Reads the stored bytes of an object; `None` where it is not there.
pub fn read(storage: &dyn Storage, key: &Key) -> Result<Option<(SystemTime, Body)>> {
    let mut attempt = 1;
    loop {
        let object = match storage.get(key, Range::Whole) {
            Ok(object) => object,
            Err(error) if error.kind() == Kind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        let modified = object.modified;
        let error = match keep(object, storage.place(), key) {
            Ok(body) => return Ok(Some((modified, body))),
            Err(error) => error,
        };
        if error.kind() != Kind::Unavailable || attempt == ATTEMPTS {
            return Err(error);
        }
        log::debug!("{error}");
        attempt += 1;
    }
}

fn keep(mut object: Object, place: &str, key: &Key) -> Result<Body> {
    let mut stored = BodyWriter::new(vec![std::env::temp_dir()]);
    let mut buffer = Vec::with_capacity(BLOCK);
    loop {
        buffer.clear();
        let read = object.body.by_ref().take(BLOCK as u64).read_to_end(&mut buffer);
        if read.map_err(|error| Error::of_io(error, place))? == 0 {
            break;
        }
        stored.write_all(&buffer).map_err(|error| {
            Error::new(Kind::Invalid, "cannot keep an object while it is looked at")
                .caused_by(error)
                .hint("make room for a temporary file in $TMPDIR")
        })?;
    }
    let body = stored.finish();
    if body.len() != object.size {
        let what = format!("\"{place}/{key}\" gave {} bytes of {}", body.len(), object.size);
        return Err(Error::new(Kind::Unavailable, what));
    }
    Ok(body)
}

fn judge(key: &Key, body: &Body, expected: &Expected, raw: &mut (dyn Write + Send)) -> io::Result<Verdict> {
    let (name, encoding, sum) = match Stored::of(key) {
        Stored::Wal(name, encoding) => (name, encoding, None),
        Stored::Variant(name, sum) => (name, Encoding::Zstd, Some(sum)),
        Stored::Unknown(..) | Stored::Stranger => return Ok(Verdict::Unread),
    };
    let decoded = match decode_as(encoding, name, expected.checks, &mut body.reader(), raw) {
        Ok(decoded) => decoded,
        Err(DecodeError::Damaged(reason)) => return Ok(Verdict::Damaged(reason)),
        Err(DecodeError::Read(error) | DecodeError::Write(error)) => return Err(error),
    };
    if sum.is_some_and(|sum| sum != decoded.sha256.short()) {
        return Ok(Verdict::Damaged("its content is not what its key says".to_owned()));
    }
    Ok(match (decoded.system_id(), expected.system_id) {
        (Some(theirs), Some(ours)) if theirs != ours => Verdict::Damaged(format!(
            "it is of the cluster with system identifier {theirs}, the archive is of {ours}"
        )),
        _ => Verdict::Intact(decoded),
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::encode;
    use crate::storage::faulty::{Fault, Faulty, Request};
    use crate::storage::memory::Memory;
    use crate::wal::WalName;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    const HISTORY: &[u8] = b"1\t0/3000000\tno recovery target specified\n";

    fn object(name: &str, system_id: Option<SystemId>) -> Vec<u8> {
        let name: WalName = name.parse().unwrap();
        let mut bytes = Vec::new();
        encode(name, HISTORY.len() as u64, system_id, 1, &mut &HISTORY[..], &mut bytes).unwrap();
        bytes
    }

    fn verdict(key: &str, bytes: Vec<u8>, system_id: Option<SystemId>) -> Verdict {
        let memory = Memory::default();
        let key = Key::parse(key).unwrap();
        memory.create(&key, &Body::from(bytes)).unwrap();
        let expected = Expected { checks: Checks::Header, system_id };
        let (examined, raw) = examine(&memory, &key, &expected, Vec::new).unwrap().unwrap();
        if matches!(examined.verdict, Verdict::Intact(_)) {
            assert_eq!(raw, HISTORY);
        }
        examined.verdict
    }

    #[test]
    fn an_object_is_what_its_key_says_and_of_this_cluster_or_damaged() {
        let (ours, theirs) = (Some(SystemId(1)), Some(SystemId(2)));
        let own = "wal_005/00000002.history.zst";
        let good = || object("00000002.history", ours);
        assert!(matches!(verdict(own, good(), ours), Verdict::Intact(_)));
        assert!(matches!(verdict(own, good(), None), Verdict::Intact(_)));
        assert!(verdict(own, good(), theirs).to_string().contains("system identifier 1"));
        assert!(matches!(verdict("00000002.history", HISTORY.to_vec(), ours), Verdict::Intact(_)));
        assert!(verdict("00000003.history.zst", good(), ours).to_string().contains("object of"));
        assert!(matches!(verdict(own, b"junk".to_vec(), ours), Verdict::Damaged(_)));
        assert_eq!(verdict("wal_005/00000002.history.gpg", good(), ours), Verdict::Unread);
    }

    #[test]
    fn a_variant_holds_what_its_sum_says_or_is_damaged() {
        let bytes = object("00000002.history", None);
        let sum = crate::object::Sha256Sum::of(HISTORY).short();
        let key = |sum: &str| format!("wal_005/00000002.history.{sum}.zst");
        assert!(matches!(verdict(&key(&sum), bytes.clone(), None), Verdict::Intact(_)));
        assert!(verdict(&key("0123456789abcdef"), bytes, None).to_string().contains("key"));
    }

    #[test]
    fn what_is_not_there_is_nothing_and_a_body_that_breaks_off_is_no_damage() {
        let key = Key::parse("wal_005/00000002.history.zst").unwrap();
        let expected = Expected { checks: Checks::Header, system_id: None };
        let memory = Arc::new(Memory::default());
        assert!(examine(memory.as_ref(), &key, &expected, io::sink).unwrap().is_none());
        memory.create(&key, &Body::from(object("00000002.history", None))).unwrap();
        for (breaks, reads) in [(2, true), (3, false)] {
            let asked = AtomicUsize::new(0);
            let plan = move |_: Request, _: &str| match asked.fetch_add(1, Ordering::Relaxed) < breaks {
                true => Fault::BreakAfter(40),
                false => Fault::None,
            };
            let faulty = Faulty::new(memory.clone(), Box::new(plan));
            let examined = examine(&faulty, &key, &expected, io::sink);
            assert_eq!(examined.is_ok(), reads, "{breaks} broken bodies");
        }
    }
}
