//! One stored object opened: read, decoded and proved on the way, or only what it says of itself.
//!
//! The one way from a key to a WAL file. Knows: what a key promises, and what the objects of an archive
//! must prove; the keys come with the storage. Does not know: which of several copies is believed, or what is to become of a damaged
//! one. A body that breaks off is taken up again below ([`crate::storage::retry`]).

use crate::object::age::{self, Comparison, Content, Seal};
use crate::object::{Checks, DecodeError, Decoded, Encoding, Key, Sha256Sum, Stored, Trailer, decode_as};
use crate::storage::{Body, BodyWriter, Error, Kind, Object, Range, Result, Storage};
use crate::wal::{SegmentSize, SystemId, WalName};
use std::fmt;
use std::io::{self, Read, Write};
use std::time::SystemTime;

/// Opens the objects of an archive: what they must prove.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Opener {
    /// Whether pages are looked at.
    pub checks: Checks,
    /// The cluster, where it is known and another one's files are wrong.
    pub system_id: Option<SystemId>,
    /// Likewise the size of its segments.
    pub segment_size: Option<SegmentSize>,
}

/// What an object is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// The WAL file that its key names.
    Intact(Decoded),
    /// Not that file. The reason.
    Damaged(String),
    /// Intact, and of another cluster. The reason.
    OtherCluster(String),
    /// Encrypted, and no identity here fits. The stored bytes are those that were written for the name in
    /// its key; whether they hold that file, only an identity shows.
    Shut(Seal),
    /// In an encoding that is not read here, so that nothing can be said of it.
    Unread,
}

impl Verdict {
    /// Why it is not the file that belongs here; `None` where it is, or nobody can tell.
    pub fn damage(&self) -> Option<&str> {
        match self {
            Verdict::Damaged(reason) | Verdict::OtherCluster(reason) => Some(reason),
            Verdict::Intact(_) | Verdict::Shut(_) | Verdict::Unread => None,
        }
    }
}

/// What is to be done about [`Verdict::Shut`].
pub const SHUT_HINT: &str = "name a file with the private key as identity_file in [encryption], or a command that \
     prints it as identity_command; \"age-keygen -y FILE\" shows whose key a file holds";

impl fmt::Display for Verdict {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Verdict::Intact(_) => f.write_str("intact"),
            Verdict::Damaged(reason) | Verdict::OtherCluster(reason) => write!(f, "damaged: {reason}"),
            Verdict::Shut(seal) => {
                write!(
                    f,
                    "encrypted, and cannot be decrypted: no identity here fits; written for {}",
                    seal.written_for()
                )
            }
            Verdict::Unread => f.write_str("in an encoding that this version does not read"),
        }
    }
}

/// An object that was read to its end, or as far as it is sound.
pub struct Opened {
    /// When it was stored, by the store's clock.
    pub modified: SystemTime,
    pub verdict: Verdict,
}

/// An object of which the stored bytes were kept, so that they can be put elsewhere unchanged.
pub struct Kept {
    pub key: Key,
    /// When it was stored, by the store's clock.
    pub modified: SystemTime,
    /// The stored bytes.
    pub body: Body,
    pub verdict: Verdict,
}

/// Why nothing can be said of an object.
#[derive(Debug)]
pub enum OpenError {
    Storage(Error),
    /// The raw file could not be written.
    Output(io::Error),
}

impl From<OpenError> for Error {
    fn from(error: OpenError) -> Error {
        match error {
            OpenError::Storage(error) => error,
            OpenError::Output(error) => no_room(error),
        }
    }
}

/// What an object says of itself, unproved.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Label {
    /// This program stored it; its length is the one it says.
    Ours(Trailer),
    /// Likewise, encrypted; and the bytes of its header.
    Sealed(Seal, Vec<u8>),
    /// Nothing: another program's.
    None,
    /// It was this program's. The reason why it is not whole.
    Damaged(String),
}

impl Opener {
    /// For files of whatever cluster.
    pub fn of_any_cluster(checks: Checks) -> Self {
        Opener { checks, system_id: None, segment_size: None }
    }

    /// Reads and proves an object; `None` where it is not there. What was written to `output` is the file
    /// only where it is [`Verdict::Intact`].
    pub fn open(
        &self,
        storage: &dyn Storage,
        key: &Key,
        output: &mut (dyn Write + Send),
    ) -> std::result::Result<Option<Opened>, OpenError> {
        let Some(mut object) = get(storage, key).map_err(OpenError::Storage)? else { return Ok(None) };
        let verdict = self.prove(storage, key, &mut object.body, output)?;
        Ok(Some(Opened { modified: object.modified, verdict }))
    }

    /// The intact file alone; `None` where it is not there, or is anything else.
    pub fn intact(&self, storage: &dyn Storage, key: &Key) -> Result<Option<Decoded>> {
        Ok(match self.open(storage, key, &mut io::sink())?.map(|opened| opened.verdict) {
            Some(Verdict::Intact(decoded)) => Some(decoded),
            _ => None,
        })
    }

    /// Whether it holds a file of this sum, by the object's label, else by all of it; not, where that cannot
    /// be told.
    pub fn holds(&self, storage: &dyn Storage, key: &Key, sum: &Sha256Sum) -> Result<bool> {
        let told = match label(storage, key)? {
            Label::Ours(trailer) => return Ok(trailer.sha256 == *sum),
            Label::Sealed(seal, _) => seal.compare(sum, &storage.keys().known()),
            Label::None | Label::Damaged(_) => Comparison::CannotTell,
        };
        match told {
            Comparison::Same => Ok(true),
            Comparison::Different => Ok(false),
            Comparison::CannotTell => {
                Ok(self.intact(storage, key)?.is_some_and(|decoded| decoded.sha256 == *sum))
            }
        }
    }

    /// As [`Opener::open`], keeping the stored bytes.
    pub fn keep(
        &self,
        storage: &dyn Storage,
        key: &Key,
        output: &mut (dyn Write + Send),
    ) -> Result<Option<Kept>> {
        let Some((modified, body)) = stored_bytes(storage, key)? else { return Ok(None) };
        let verdict = self.prove(storage, key, &mut body.reader(), output)?;
        Ok(Some(Kept { key: key.clone(), modified, body, verdict }))
    }

    /// What an object says of itself against its key and the archive; by its label, so unproved. `None`:
    /// nothing speaks against it.
    pub fn contradiction(&self, key: &Key, name: WalName, trailer: &Trailer) -> Option<Verdict> {
        if trailer.name != name {
            return Some(Verdict::Damaged(format!("it is the object of \"{}\"", trailer.name)));
        }
        self.misfit(key, name, trailer.size, Some(&trailer.sha256.short()), trailer.system_id)
    }

    /// The same of an encrypted one.
    pub fn contradiction_of_seal(&self, key: &Key, name: WalName, seal: &Seal) -> Option<Verdict> {
        if seal.name != name {
            return Some(Verdict::Damaged(format!("it is the object of \"{}\"", seal.name)));
        }
        self.misfit(key, name, seal.size, Some(&seal.digits()), seal.system_id)
    }

    fn prove(
        &self,
        storage: &dyn Storage,
        key: &Key,
        body: &mut dyn Read,
        output: &mut (dyn Write + Send),
    ) -> std::result::Result<Verdict, OpenError> {
        let stored = Stored::of(key);
        let (Some(name), Some(encoding)) = (stored.name(), stored.encoding()) else {
            return Ok(Verdict::Unread);
        };
        let content = match encoding {
            Encoding::Age => age::decode(name, self.checks, &storage.keys().identities, body, output),
            _ => decode_as(encoding, name, self.checks, body, output)
                .map(|decoded| Content::Open(decoded, None)),
        };
        let (misfit, verdict) = match content {
            Ok(Content::Open(decoded, seal)) => {
                let digits = seal.map_or_else(|| decoded.sha256.short(), |seal| seal.digits());
                let misfit = self.misfit(key, name, decoded.size, Some(&digits), decoded.system_id());
                (misfit, Verdict::Intact(decoded))
            }
            Ok(Content::Shut(seal)) => (self.contradiction_of_seal(key, name, &seal), Verdict::Shut(seal)),
            Err(DecodeError::Damaged(reason)) => return Ok(Verdict::Damaged(reason)),
            Err(DecodeError::Read(error)) => {
                return Err(OpenError::Storage(Error::of_io(error, storage.place())));
            }
            Err(DecodeError::Write(error)) => return Err(OpenError::Output(error)),
        };
        Ok(misfit.unwrap_or(verdict))
    }

    /// Whether a file is another one than its key says, or of another cluster than the archive. `digits`:
    /// those that a variant of it would have in its key.
    pub fn misfit(
        &self,
        key: &Key,
        name: WalName,
        size: u64,
        digits: Option<&str>,
        system_id: Option<SystemId>,
    ) -> Option<Verdict> {
        if let (Stored::Variant(_, said, _), Some(digits)) = (Stored::of(key), digits)
            && said != digits
        {
            return Some(Verdict::Damaged("its content is not what its key says".to_owned()));
        }
        if let (Some(theirs), Some(ours)) = (system_id, self.system_id)
            && theirs != ours
        {
            let reason = format!("it is of the cluster with system identifier {theirs}, this one has {ours}");
            return Some(Verdict::OtherCluster(reason));
        }
        let expected = self.segment_size.filter(|expected| name.is_pages() && expected.bytes() != size)?;
        let reason = format!("it has {size} bytes, and a segment of this cluster has {}", expected.bytes());
        Some(Verdict::OtherCluster(reason))
    }
}

/// What an object says of itself, by one ranged request.
pub fn label(storage: &dyn Storage, key: &Key) -> Result<Label> {
    if Stored::of(key).encoding() == Some(Encoding::Age) {
        return label_of_sealed(storage, key);
    }
    let mut object = storage.get(key, Range::Last(Trailer::LEN as u64))?;
    let mut tail = Vec::with_capacity(Trailer::LEN);
    let read = object.body.by_ref().take(Trailer::LEN as u64).read_to_end(&mut tail);
    read.map_err(|error| Error::of_io(error, storage.place()))?;
    if !Trailer::is_here(&tail) {
        return Ok(Label::None);
    }
    Ok(match Trailer::read(&tail) {
        Ok(trailer) if trailer.object_len() == object.size => Label::Ours(trailer),
        Ok(trailer) => {
            Label::Damaged(format!("it has {} bytes, by its trailer {}", object.size, trailer.object_len()))
        }
        Err(reason) => Label::Damaged(reason),
    })
}

/// The same of an encrypted one, whatever its key says.
pub fn label_of_sealed(storage: &dyn Storage, key: &Key) -> Result<Label> {
    let object = storage.get(key, Range::First(age::MAX_HEADER as u64))?;
    let mut head = Vec::with_capacity(age::MAX_HEADER);
    let read = object.body.take(age::MAX_HEADER as u64).read_to_end(&mut head);
    read.map_err(|error| Error::of_io(error, storage.place()))?;
    Ok(match age::read_seal(&head, object.size) {
        Ok((seal, header)) => Label::Sealed(seal, header),
        Err(reason) => Label::Damaged(reason),
    })
}

/// Reads the stored bytes of an object; `None` where it is not there.
pub fn stored_bytes(storage: &dyn Storage, key: &Key) -> Result<Option<(SystemTime, Body)>> {
    let Some(mut object) = get(storage, key)? else { return Ok(None) };
    let mut stored = BodyWriter::new(vec![std::env::temp_dir()]);
    let mut buffer = Vec::with_capacity(BLOCK);
    loop {
        buffer.clear();
        let read = object.body.by_ref().take(BLOCK as u64).read_to_end(&mut buffer);
        if read.map_err(|error| Error::of_io(error, storage.place()))? == 0 {
            break;
        }
        stored.write_all(&buffer).map_err(no_room)?;
    }
    let body = stored.finish();
    if body.len() != object.size {
        let what = format!("\"{}/{key}\" gave {} bytes of {}", storage.place(), body.len(), object.size);
        return Err(Error::new(Kind::Unavailable, what));
    }
    Ok(Some((object.modified, body)))
}

/// Bytes read at once.
const BLOCK: usize = 256 * 1024;

fn get(storage: &dyn Storage, key: &Key) -> Result<Option<Object>> {
    match storage.get(key, Range::Whole) {
        Ok(object) => Ok(Some(object)),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn no_room(error: io::Error) -> Error {
    Error::new(Kind::Invalid, "cannot keep an object while it is looked at")
        .caused_by(error)
        .hint("make room for a temporary file in $TMPDIR")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::object::encode;
    use crate::storage::faulty::{Fault, Faulty, Request};
    use crate::storage::memory::Memory;
    use std::sync::Arc;

    const HISTORY: &[u8] = b"1\t0/3000000\tno recovery target specified\n";

    fn object(name: &str, system_id: Option<SystemId>) -> Vec<u8> {
        let name: WalName = name.parse().unwrap();
        let mut bytes = Vec::new();
        encode(name, HISTORY.len() as u64, system_id, 1, &mut &HISTORY[..], &mut bytes).unwrap();
        bytes
    }

    fn opener(system_id: Option<SystemId>) -> Opener {
        Opener { system_id, ..Opener::of_any_cluster(Checks::Header) }
    }

    /// What it is, whether its stored bytes are kept or not.
    fn verdict(key: &str, bytes: Vec<u8>, system_id: Option<SystemId>) -> Verdict {
        let memory = Memory::default();
        let key = Key::parse(key).unwrap();
        memory.create(&key, &Body::from(bytes.clone())).unwrap();
        let (mut raw, mut again, mut stored) = (Vec::new(), Vec::new(), Vec::new());
        let opened = opener(system_id).open(&memory, &key, &mut raw).unwrap().unwrap();
        let kept = opener(system_id).keep(&memory, &key, &mut again).unwrap().unwrap();
        kept.body.reader().read_to_end(&mut stored).unwrap();
        assert!(kept.verdict == opened.verdict && kept.modified == opened.modified && stored == bytes);
        if matches!(opened.verdict, Verdict::Intact(_)) {
            assert!(raw == HISTORY && again == HISTORY);
        }
        opened.verdict
    }

    #[test]
    fn an_object_is_what_its_key_says_and_of_this_cluster_or_damaged() {
        let (ours, theirs) = (Some(SystemId(1)), Some(SystemId(2)));
        let own = "wal_005/00000002.history.zst";
        let good = || object("00000002.history", ours);
        assert!(matches!(verdict(own, good(), ours), Verdict::Intact(_)));
        assert!(matches!(verdict(own, good(), None), Verdict::Intact(_)));
        let other = verdict(own, good(), theirs);
        assert!(matches!(&other, Verdict::OtherCluster(reason) if reason.contains("system identifier 1")));
        assert!(matches!(verdict("00000002.history", HISTORY.to_vec(), ours), Verdict::Intact(_)));
        assert!(verdict("00000003.history.zst", good(), ours).to_string().contains("object of"));
        assert!(matches!(verdict(own, b"junk".to_vec(), ours), Verdict::Damaged(_)));
        assert_eq!(verdict("wal_005/00000002.history.gpg", good(), ours), Verdict::Unread);
    }

    #[test]
    fn a_variant_holds_what_its_sum_says_or_is_damaged() {
        let bytes = object("00000002.history", None);
        let sum = Sha256Sum::of(HISTORY).short();
        let key = |sum: &str| format!("wal_005/00000002.history.{sum}.zst");
        assert!(matches!(verdict(&key(&sum), bytes.clone(), None), Verdict::Intact(_)));
        assert!(verdict(&key("0123456789abcdef"), bytes, None).to_string().contains("key"));
    }

    #[test]
    fn a_label_is_ours_or_nothing_or_of_an_object_that_was_cut() {
        let memory = Memory::default();
        let whole = object("00000002.history", None);
        let trailer = whole.len() - Trailer::LEN;
        let label_of = |name: &str, bytes: &[u8]| {
            let key = Key::parse(&format!("wal_005/{name}.zst")).unwrap();
            memory.create(&key, &Body::from(bytes.to_vec())).unwrap();
            label(&memory, &key).unwrap()
        };
        assert!(
            matches!(label_of("00000002.history", &whole), Label::Ours(found) if found.size == HISTORY.len() as u64)
        );
        assert_eq!(label_of("00000003.history", &whole[..trailer]), Label::None);
        assert_eq!(label_of("00000004.history", b""), Label::None);
        assert!(matches!(label_of("00000005.history", &whole[1..]), Label::Damaged(_)));
    }

    #[test]
    fn what_is_not_there_is_nothing_and_a_body_that_breaks_off_is_no_damage() {
        let key = Key::parse("wal_005/00000002.history.zst").unwrap();
        let memory = Arc::new(Memory::default());
        let nowhere = &mut io::sink();
        assert!(opener(None).open(memory.as_ref(), &key, nowhere).unwrap().is_none());
        assert!(opener(None).keep(memory.as_ref(), &key, nowhere).unwrap().is_none());
        memory.create(&key, &Body::from(object("00000002.history", None))).unwrap();
        let faulty = Faulty::new(memory, Box::new(|_: Request, _: &str| Fault::BreakAfter(40)));
        assert!(matches!(opener(None).open(&faulty, &key, nowhere), Err(OpenError::Storage(_))));
        assert!(opener(None).keep(&faulty, &key, nowhere).is_err());
    }

    #[test]
    fn an_output_that_fails_says_nothing_about_the_object() {
        struct Full;
        impl Write for Full {
            fn write(&mut self, _: &[u8]) -> io::Result<usize> {
                Err(io::ErrorKind::StorageFull.into())
            }
            fn flush(&mut self) -> io::Result<()> {
                Ok(())
            }
        }
        let memory = Memory::default();
        let key = Key::parse("wal_005/00000002.history.zst").unwrap();
        memory.create(&key, &Body::from(object("00000002.history", None))).unwrap();
        assert!(matches!(opener(None).open(&memory, &key, &mut Full), Err(OpenError::Output(_))));
    }
}
