//! Where an object stands under a destination's prefix, and what a name found there means.
//!
//! The layout is WAL-G's (`wal_005/NAME.EXT`), so that either tool can read the other's archive.
//! Archives made with `cp` or `gzip` hold the same names directly under the prefix.

use super::digest::Sha256Sum;
use super::encoding::Encoding;
use super::identity::Encryption;
use crate::wal::{SegmentName, WalName};
use std::fmt;
use std::time::{Duration, SystemTime};

/// The folder of all WAL objects, with its slash.
pub const WAL_FOLDER: &str = "wal_005/";

/// The folder of objects that were moved aside, with its slash.
pub const QUARANTINE_FOLDER: &str = "quarantine/";

/// The folder of the records of what `wal-archive expire` removed between backups, with its slash.
pub const EXPIRED_FOLDER: &str = "expired/";

/// The folder of the records of what `wal-archive rehearse` recovered, with its slash.
pub const REHEARSALS_FOLDER: &str = "rehearsals/";

/// The constant object by which a bucket shows that it honours conditions. It stays there.
pub const PROBE: &str = "wal-archive-probe";

const IDENTITY: &str = "archive.json";

/// Whether the key is the archive's own: neither a WAL file nor a stranger.
pub fn is_of_the_archive_itself(key: &str) -> bool {
    key == IDENTITY || key == PROBE
}

/// A key of an object, relative to the destination's prefix.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Key(String);

impl Key {
    /// A WAL file's own key in an archive.
    pub fn of(name: WalName, encryption: Encryption) -> Self {
        Key(format!("{WAL_FOLDER}{name}.{}", Encoding::own(encryption).extension()))
    }

    /// Every key that a WAL file may have in an archive that is not encrypted, our own first, in the order in
    /// which they are believed. In an encrypted one it has only its own.
    pub fn all_of(name: WalName) -> impl Iterator<Item = Self> {
        [WAL_FOLDER, ""].into_iter().flat_map(move |folder| {
            Encoding::PLAIN.into_iter().map(move |encoding| {
                let dot = if encoding == Encoding::Bare { "" } else { "." };
                Key(format!("{folder}{name}{dot}{}", encoding.extension()))
            })
        })
    }

    /// Brings copies of a file into the order in which they are believed.
    pub fn sort(name: WalName, keys: &mut [Self]) {
        let encrypted = Key::of(name, Encryption::Age);
        let places: Vec<_> = Key::all_of(name).chain([encrypted]).collect();
        keys.sort_by_key(|key| places.iter().position(|place| place == key).unwrap_or(places.len()));
    }

    /// The key beside it for different content of the same name, told apart by 16 digits: of its sum, or
    /// where it is encrypted, of its first tag.
    pub fn variant(name: WalName, digits: &str, encryption: Encryption) -> Self {
        Key(format!("{WAL_FOLDER}{name}.{digits}.{}", Encoding::own(encryption).extension()))
    }

    /// What the key of every [`Key::probe`] begins with.
    pub const PROBES: &str = "wal_005/wal-archive-check.";

    /// Where `wal-archive check` puts an object for a moment: among the WAL files, whose folder
    /// may have an owner and rights of its own.
    pub fn probe(unique: u64) -> Self {
        Key(format!("{}{unique:016x}", Key::PROBES))
    }

    /// Where an object of a name is moved aside to, told apart by the sum of its stored bytes.
    pub fn quarantine(name: WalName, stored: &Sha256Sum) -> Self {
        Key(format!("{QUARANTINE_FOLDER}{name}.{}", stored.short()))
    }

    /// Where the record of what was expired at a time is kept: microseconds in the name, so that the
    /// order of the names is that of the times. `None` for a time that cannot be written so.
    pub fn expired(at: SystemTime) -> Option<Self> {
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let whole = Duration::from_micros(u64::try_from(since_epoch.as_micros()).ok()?);
        let text = humantime::format_rfc3339_micros(SystemTime::UNIX_EPOCH.checked_add(whole)?).to_string();
        let compact: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        Some(Key(format!("{EXPIRED_FOLDER}{compact}.json")))
    }

    /// Where the record of a rehearsal is kept, by the second in which it began.
    pub fn rehearsal(at: SystemTime) -> Option<Self> {
        let since_epoch = at.duration_since(SystemTime::UNIX_EPOCH).ok()?;
        let whole = Duration::from_secs(since_epoch.as_secs());
        let text = humantime::format_rfc3339_seconds(SystemTime::UNIX_EPOCH.checked_add(whole)?).to_string();
        let compact: String = text.chars().filter(|c| !matches!(c, '-' | ':')).collect();
        Some(Key(format!("{REHEARSALS_FOLDER}{compact}.json")))
    }

    /// What `wal-archive quarantine` is to be given for the object: the WAL file whose it is, or the
    /// key itself where that does not tell.
    pub fn to_quarantine(&self) -> String {
        match Stored::of(self) {
            Stored::Wal(name, _) => name.to_string(),
            Stored::Variant(..) | Stored::Unknown(..) | Stored::Stranger => self.to_string(),
        }
    }

    /// The identity of the archive.
    pub fn identity() -> Self {
        Key(IDENTITY.to_owned())
    }

    /// As text, with `/` between folder and name.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// A key from a listing, or one that a test makes up; `None` where a part is empty, `.`, `..`
    /// or begins with a dot (which is how unfinished local files are named).
    pub fn parse(text: &str) -> Option<Self> {
        let fine = text.split('/').all(|part| !part.is_empty() && !part.starts_with('.'));
        (fine && !text.contains('\0')).then(|| Key(text.to_owned()))
    }
}

impl fmt::Display for Key {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// What a key in a listing of an archive is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Stored {
    /// A WAL file, ours or another's.
    Wal(WalName, Encoding),
    /// Different content of that name, kept beside it: the 16 digits that tell it apart, and whether it is
    /// [`Encoding::Zstd`] or [`Encoding::Age`].
    Variant(WalName, String, Encoding),
    /// A WAL file in an encoding that is not read here: the extension.
    Unknown(WalName, String),
    /// Anything else: reported, never touched.
    Stranger,
}

impl Stored {
    /// Tells what a key of [`WAL_FOLDER`] or directly under the prefix means, from the part after
    /// the folder.
    pub fn parse(file: &str) -> Self {
        if let Ok(name) = file.parse() {
            return Stored::Wal(name, Encoding::Bare);
        }
        let Some((stem, extension)) = file.rsplit_once('.') else { return Stored::Stranger };
        if let Ok(name) = stem.parse::<WalName>() {
            let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
            return match (extension, Encoding::of_extension(extension)) {
                ("" | "json", _) => Stored::Stranger, // WAL-G keeps metadata in `.json`
                (_, Some(encoding)) => Stored::Wal(name, encoding),
                (other, None) if other.bytes().all(plain) => Stored::Unknown(name, other.to_owned()),
                _ => Stored::Stranger,
            };
        }
        let own = Encoding::of_extension(extension).filter(|e| matches!(e, Encoding::Zstd | Encoding::Age));
        match (stem.rsplit_once('.'), own) {
            (Some((stem, digits)), Some(encoding)) if is_short_sum(digits) => match stem.parse() {
                Ok(name) => Stored::Variant(name, digits.to_owned(), encoding),
                Err(_) => Stored::Stranger,
            },
            _ => Stored::Stranger,
        }
    }

    /// What it is in such an archive, where only some encodings are read.
    pub fn within(self, encryption: Encryption) -> Self {
        match self {
            Stored::Wal(name, encoding) | Stored::Variant(name, _, encoding)
                if !encoding.is_read(encryption) =>
            {
                Stored::Unknown(name, encoding.extension().to_owned())
            }
            other => other,
        }
    }

    /// In which it is to be read.
    pub fn encoding(&self) -> Option<Encoding> {
        match self {
            Stored::Wal(_, encoding) | Stored::Variant(_, _, encoding) => Some(*encoding),
            Stored::Unknown(..) | Stored::Stranger => None,
        }
    }

    /// Tells what a key means; what stands in other folders is a stranger.
    pub fn of(key: &Key) -> Self {
        Stored::parse(key.0.strip_prefix(WAL_FOLDER).unwrap_or(&key.0))
    }

    /// The unfinished segment that the object is: a `.partial`, another one of that name, or a segment
    /// that was archived cut. None of them stands in for the segment.
    pub fn partial(&self) -> Option<SegmentName> {
        match self {
            Stored::Wal(WalName::Partial(segment), _)
            | Stored::Unknown(WalName::Partial(segment), _)
            | Stored::Variant(WalName::Segment(segment) | WalName::Partial(segment), ..) => Some(*segment),
            _ => None,
        }
    }

    /// The WAL file in words, with the digits by which a variant is told from others.
    pub fn title(&self) -> Option<String> {
        match self {
            Stored::Wal(name, _) | Stored::Unknown(name, _) => Some(name.to_string()),
            Stored::Variant(name, digits, _) => Some(format!("{name}.{digits}")),
            Stored::Stranger => None,
        }
    }

    /// The WAL file that the key belongs to.
    pub fn name(&self) -> Option<WalName> {
        match self {
            Stored::Wal(name, _) | Stored::Variant(name, ..) | Stored::Unknown(name, _) => Some(*name),
            Stored::Stranger => None,
        }
    }
}

fn is_short_sum(text: &str) -> bool {
    text.len() == 16 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn name(text: &str) -> WalName {
        text.parse().unwrap()
    }

    #[test]
    fn keys_are_those_of_wal_g() {
        let own = |encryption| Key::of(name("00000002.history"), encryption).to_string();
        assert_eq!(own(Encryption::None), "wal_005/00000002.history.zst");
        assert_eq!(own(Encryption::Age), "wal_005/00000002.history.age");
        let aside = Key::quarantine(name("00000002.history"), &Sha256Sum::of(b""));
        assert_eq!(aside.as_str(), "quarantine/00000002.history.e3b0c44298fc1c14");
        assert_eq!(Stored::of(&aside), Stored::Stranger);
        let (partial, digits) = (name("00000001000000000000001B.partial"), Sha256Sum::of(b"").short());
        let variant = Key::variant(partial, &digits, Encryption::None);
        assert_eq!(variant.as_str(), "wal_005/00000001000000000000001B.partial.e3b0c44298fc1c14.zst");
        assert_eq!(variant.to_quarantine(), variant.as_str());
        assert_eq!(Key::parse(&own(Encryption::Age)).unwrap().to_quarantine(), "00000002.history");
        assert_eq!(Key::probe(27).as_str(), "wal_005/wal-archive-check.000000000000001b");
    }

    #[test]
    fn records_of_what_was_expired_stand_in_a_folder_of_their_own_in_the_order_of_their_times() {
        let at = |micros| Key::expired(SystemTime::UNIX_EPOCH + Duration::from_micros(micros)).unwrap();
        assert_eq!(at(1_795_666_500_000_017).as_str(), "expired/20261126T041500.000017Z.json");
        assert!(at(1) < at(2) && at(999_999) < at(1_000_000));
        assert_eq!(Stored::of(&at(0)), Stored::Stranger);
        assert_eq!(Key::expired(SystemTime::UNIX_EPOCH - Duration::from_secs(1)), None);
    }

    #[test]
    fn a_cut_segment_is_a_partial_one_and_never_the_segment() {
        let name = "00000001000000000000001B";
        for (file, title) in [
            (format!("{name}.partial.zst"), format!("{name}.partial")),
            (format!("{name}.partial"), format!("{name}.partial")),
            (format!("{name}.e3b0c44298fc1c14.zst"), format!("{name}.e3b0c44298fc1c14")),
            (format!("{name}.partial.e3b0c44298fc1c14.zst"), format!("{name}.partial.e3b0c44298fc1c14")),
        ] {
            let stored = Stored::parse(&file);
            assert_eq!(stored.partial(), Some(name.parse().unwrap()), "{file}");
            assert_eq!(stored.title(), Some(title));
        }
        for file in [format!("{name}.zst"), name.to_owned(), "00000002.history.e3b0c44298fc1c14.zst".into()] {
            assert_eq!(Stored::parse(&file).partial(), None, "{file}");
        }
    }

    #[test]
    fn every_key_that_is_written_is_known_again() {
        for text in [
            "00000001000000000000001B",
            "00000001000000000000001B.partial",
            "00000001000000000000001B.00000028.backup",
            "00000002.history",
        ] {
            let digits = Sha256Sum::of(text.as_bytes()).short();
            let file = |key: &Key| key.as_str().strip_prefix(WAL_FOLDER).unwrap().to_owned();
            for (encryption, other) in
                [(Encryption::None, Encryption::Age), (Encryption::Age, Encryption::None)]
            {
                let encoding = Encoding::own(encryption);
                let own = Stored::parse(&file(&Key::of(name(text), encryption)));
                assert_eq!(own, Stored::Wal(name(text), encoding));
                let beside = Stored::parse(&file(&Key::variant(name(text), &digits, encryption)));
                assert_eq!(beside, Stored::Variant(name(text), digits.clone(), encoding));
                for stored in [own, beside] {
                    assert_eq!(stored.clone().within(encryption), stored);
                    let extension = encoding.extension().to_owned();
                    assert_eq!(stored.within(other), Stored::Unknown(name(text), extension));
                }
            }
            for (key, encoding) in Key::all_of(name(text)).zip(Encoding::PLAIN.repeat(2)) {
                assert_eq!(Stored::of(&key), Stored::Wal(name(text), encoding), "{key}");
            }
            assert_eq!(Stored::parse(&format!("{text}.gpg")), Stored::Unknown(name(text), "gpg".into()));
            assert_eq!(Stored::parse(&format!("{text}.json")), Stored::Stranger);
        }
    }

    #[test]
    fn the_order_of_belief_is_ours_then_the_folders_then_the_roots() {
        let keys: Vec<_> = Key::all_of(name("00000002.history")).map(|key| key.as_str().to_owned()).collect();
        let in_folder = ["zst", "lz4", "lzma", "br", "gz"].map(|x| format!("wal_005/00000002.history.{x}"));
        assert_eq!(keys[0], Key::of(name("00000002.history"), Encryption::None).as_str());
        assert_eq!(keys[..5], in_folder);
        assert_eq!(keys[5], "wal_005/00000002.history");
        let at_root: Vec<_> = keys[..6].iter().map(|key| key.replace(WAL_FOLDER, "")).collect();
        assert_eq!(keys[6..], at_root);
    }

    #[test]
    fn look_alikes_are_strangers() {
        for text in [
            "",
            "zst",
            ".zst",
            "00000001000000000000001b.zst",
            "00000001000000000000001B.ZST",
            "00000001000000000000001B.",
            "00000001000000000000001B.zst.tmp",
            "00000001000000000000001B.E3B0C44298FC1C14.zst",
            "00000001000000000000001B.e3b0c44298fc1c1.zst",
            "backup_label.zst",
        ] {
            assert_eq!(Stored::parse(text), Stored::Stranger, "{text:?}");
        }
    }

    #[test]
    fn a_key_never_climbs_or_hides() {
        for bad in ["", "/", "a//b", "../a", "a/..", "./a", ".hidden", "a/.tmp", "/a", "a/", "a\0b"] {
            assert_eq!(Key::parse(bad), None, "{bad:?}");
        }
        assert_eq!(Key::parse("wal_005/x.zst").unwrap().as_str(), "wal_005/x.zst");
    }
}
