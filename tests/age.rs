//! Sealed objects: those that must be read or refused for ever, stock `age`, and 10,000 mutations.
//! `vectors/age/make.py` and stock tools made the former, without this project's code.

#![allow(clippy::unwrap_used, clippy::panic, clippy::indexing_slicing, reason = "a test")]

use std::fs;
use std::io::{Cursor, Write};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use wal_archive::object::age::{Content, Identities, Identity, Recipient, Seal, Sealer, decode, read_seal};
use wal_archive::object::{Checks, DecodeError, Sha256Sum, Trailer, codec};
use wal_archive::wal::WalName;

fn vectors(folder: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/age").join(folder)
}

fn files(folder: &str) -> Vec<(WalName, String, Vec<u8>)> {
    let mut found: Vec<_> = fs::read_dir(vectors(folder))
        .unwrap()
        .map(|entry| -> (WalName, String, Vec<u8>) {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let (name, reason) = stem.split_once("--").unwrap();
            (name.parse().unwrap(), reason.to_owned(), fs::read(&path).unwrap())
        })
        .collect();
    found.sort_by_key(|(name, reason, _)| (name.to_string(), reason.clone()));
    found
}

fn identities(file: &str) -> Identities {
    Identities::parse(&fs::read_to_string(vectors(file)).unwrap()).unwrap()
}

/// What became of an object.
#[derive(Debug, PartialEq)]
enum Came {
    Open(Vec<u8>),
    Shut,
    Damaged(String),
}

fn read(name: WalName, identities: &Identities, object: &[u8]) -> Came {
    let mut raw = Vec::new();
    match decode(name, Checks::Header, identities, &mut Cursor::new(object), &mut raw) {
        Ok(Content::Open(decoded, seal)) => {
            assert_eq!((decoded.size, decoded.sha256), (raw.len() as u64, Sha256Sum::of(&raw)));
            assert_eq!(seal.unwrap().name, name);
            Came::Open(raw)
        }
        Ok(Content::Shut(seal)) => {
            assert_eq!(seal.name, name);
            Came::Shut
        }
        Err(DecodeError::Damaged(reason)) => Came::Damaged(reason),
        Err(error) => panic!("{error}"),
    }
}

/// The WAL file of that name.
fn wal(name: WalName) -> Vec<u8> {
    let objects = vectors("../objects/accepted").join(format!("{name}--version-1.zst"));
    zstd::decode_all(fs::File::open(objects).unwrap()).unwrap()
}

fn sealed(name: WalName, raw: &[u8], recipients: &[Recipient]) -> (Vec<u8>, Seal) {
    let mut sealer = Sealer::begin(recipients, Vec::new()).unwrap();
    let trailer: Trailer =
        codec::encode(name, raw.len() as u64, None, 1, &mut Cursor::new(raw), &mut sealer).unwrap();
    let (payload, sealed) = sealer.finish(&trailer).unwrap();
    let mut object = sealed.header;
    object.extend(payload);
    (object, sealed.seal)
}

#[test]
fn every_accepted_object_is_read_and_without_its_identity_it_is_whole() {
    let ours = identities("identity");
    let files = files("accepted");
    assert_eq!(files.len(), 14);
    for (name, reason, object) in files {
        assert_eq!(read(name, &ours, &object), Came::Open(wal(name)), "{name} {reason}");
        assert_eq!(read(name, &Identities::default(), &object), Came::Shut, "{name} {reason}");
        let stranger = Identities::parse(&Identity::generate().unwrap().write("")).unwrap();
        assert_eq!(read(name, &stranger, &object), Came::Shut, "{name} {reason}");
        let (seal, header) = read_seal(&object, object.len() as u64).unwrap();
        assert_eq!((seal.name, seal.payload), (name, (object.len() - header.len()) as u64));
        assert!(object.starts_with(&header));
    }
}

#[test]
fn every_rejected_object_is_damaged_with_its_identity_and_never_more_than_whole_without() {
    /// What nobody sees who has no identity.
    const ONLY_WITH_IT: [&str; 13] = [
        "mac-of-another",
        "content-of-another-name",
        "size-of-another",
        "cluster-of-another",
        "tag-of-another",
        "tag-missing",
        "key-without-secret",
        "last-chunk-not-marked",
        "no-trailer-inside",
        "not-an-object-inside",
        "nothing-inside",
        "padded-base64",
        "carriage-return",
    ];
    let ours = identities("identity");
    let files = files("rejected");
    assert_eq!(files.len(), 86);
    for (name, reason, object) in files {
        let with = read(name, &ours, &object);
        assert!(matches!(with, Came::Damaged(_)), "{name} {reason}: {with:?}");
        let without = read(name, &Identities::default(), &object);
        let hidden = ONLY_WITH_IT[..11].contains(&reason.as_str());
        assert_eq!(matches!(without, Came::Shut), hidden, "{name} {reason}: {without:?}");
    }
}

#[test]
fn an_object_of_an_independent_writer_is_read() {
    let name: WalName = "00000001000000000000001B".parse().unwrap();
    let object = fs::read(vectors("fixture").join("00000001000000000000001B.age")).unwrap();
    let sum = fs::read_to_string(vectors("fixture").join("00000001000000000000001B.sha256")).unwrap();
    let (ours, mut raw) = (identities("fixture/a.identity"), Vec::new());
    // It has a segment's size, and no pages.
    let content = decode(name, Checks::NoHeader, &ours, &mut Cursor::new(&object), &mut raw);
    assert!(matches!(content, Ok(Content::Open(..))), "{content:?}");
    assert_eq!(Sha256Sum::of(&raw).to_string(), sum.trim());
    let (seal, _) = read_seal(&object, object.len() as u64).unwrap();
    for (recipient, tagged) in ["a", "b"].iter().zip(&seal.recipients) {
        let text = fs::read_to_string(vectors("fixture").join(format!("{recipient}.recipient"))).unwrap();
        let recipient: Recipient = text.trim().parse().unwrap();
        assert_eq!(recipient.id(), tagged.id);
        use wal_archive::object::age::Comparison::{CannotTell, Different, Same};
        let known = [recipient];
        assert_eq!(seal.compare(&Sha256Sum::of(&raw), &known), Same);
        assert_eq!(seal.compare(&Sha256Sum::of(b"x"), &known), Different);
        assert_eq!(seal.compare(&Sha256Sum::of(&raw), &[]), CannotTell);
    }
}

/// Runs a stock program with this standard input.
fn piped(program: &str, arguments: &[&str], input: &[u8]) -> Vec<u8> {
    let child = Command::new(program)
        .args(arguments)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .spawn()
        .unwrap_or_else(|error| panic!("{program}: {error}; scripts/setup.sh installs it"));
    let mut stdin = child.stdin.as_ref().unwrap();
    std::thread::scope(|scope| {
        scope.spawn(move || stdin.write_all(input).and_then(|()| stdin.flush()));
    });
    let _ = stdin;
    let output = child.wait_with_output().unwrap();
    assert!(output.status.success(), "{program} {arguments:?}");
    output.stdout
}

#[test]
fn stock_age_and_zstd_read_what_is_sealed_here_and_sed_and_openssl_prove_it_without_a_key() {
    let folder = tempfile::tempdir().unwrap();
    let [one, two] = [(); 2].map(|()| Identity::generate().unwrap());
    let recipients = [one.recipient().clone(), two.recipient().clone()];
    for name in ["000000010000000000000015", "00000002.history"] {
        let name: WalName = name.parse().unwrap();
        let (object, seal) = sealed(name, &wal(name), &recipients);
        let path = folder.path().join("object");
        fs::write(&path, &object).unwrap();
        for identity in [&one, &two] {
            let key = folder.path().join("key");
            fs::write(&key, identity.write("2026-11-26T00:00:00Z").as_bytes()).unwrap();
            let inner = piped("age", &["-d", "-i", key.to_str().unwrap()], &object);
            assert_eq!(piped("zstd", &["-dcq", "-"], &inner), wal(name));
        }
        let shell = |script: &str| {
            let script = format!("set -e; O='{}'; {script}", path.display());
            String::from_utf8(piped("bash", &["-c", &script], b"")).unwrap().trim().to_owned()
        };
        let digest = "LC_ALL=C sed -n '1,/^--- /{3d;s/^--- .*/---/;p}' $O | head -c -1 | openssl dgst -sha256 -binary \
                      | base64 | tr -d =";
        assert_eq!(shell(digest), shell("sed -n 3p $O"));
        let stored =
            "tail -c \"$(grep -a -m1 '^-> wal-archive' $O | cut -d' ' -f3 | jq .payload)\" $O | sha256sum";
        assert!(shell(stored).starts_with(&seal.stored.to_string()));
    }
}

/// SplitMix64.
struct Random(u64);

impl Random {
    fn below(&mut self, limit: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = (self.0 ^ self.0 >> 30).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ z >> 27).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ z >> 31) % limit as u64) as usize
    }
}

/// An object without the 43 characters of which only an identity can tell whether they are right.
fn but_for_the_mac(object: &[u8]) -> Vec<u8> {
    let mac = object.windows(5).position(|five| five == b"\n--- ").unwrap() + 5;
    [&object[..mac], &object[mac + 43..]].concat()
}

#[test]
fn ten_thousand_mutations_are_damage_or_refused_or_the_same_bytes() {
    let ours = identities("identity");
    let recipient = ours.iter().next().unwrap().recipient().clone();
    let other = Identity::generate().unwrap().recipient().clone();
    let name: WalName = "00000002.history".parse().unwrap();
    let raw = wal(name);
    let (object, _) = sealed(name, &raw, &[recipient.clone(), other.clone()]);
    let (twin, _) = sealed(name, b"1\t0/9000000\tx\n", &[other, recipient]);
    let mut random = Random(14);
    for number in 0..10_000 {
        let mut changed = object.clone();
        let at = random.below(changed.len());
        match random.below(6) {
            0 => changed[at] ^= 1 << random.below(8),
            1 => changed[at] = random.below(256) as u8,
            2 => changed.truncate(at),
            3 => changed.extend((0..=random.below(40)).map(|_| random.below(256) as u8).collect::<Vec<_>>()),
            // Lines of another object of the same name.
            4 => {
                let lines =
                    |bytes: &[u8]| bytes.split(|b| *b == b'\n').map(<[u8]>::to_vec).collect::<Vec<_>>();
                let (mut mine, theirs) = (lines(&object), lines(&twin));
                let line = random.below(9);
                mine[line].clone_from(&theirs[random.below(9)]);
                changed = mine.join(&b'\n');
            }
            _ => {
                let end = random.below(changed.len());
                let (from, to) = (at.min(end), at.max(end));
                drop(changed.drain(from..to));
            }
        }
        for identities in [&ours, &Identities::default()] {
            let came = read(name, identities, &changed);
            match &came {
                Came::Open(bytes) => assert!(*bytes == raw && changed == object, "{number}"),
                Came::Shut => assert!(but_for_the_mac(&changed) == but_for_the_mac(&object), "{number}"),
                Came::Damaged(_) => {}
            }
        }
    }
}
