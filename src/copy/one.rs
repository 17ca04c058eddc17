//! One WAL file brought into the destination: read, proved, created, or told why not.

use super::names::Named;
use super::object::Object;
use super::{Brought, Copier};
use crate::archive::forms::Objects;
use crate::archive::lookup;
use crate::archive::object::{Kept, Label, SHUT_HINT, Verdict, label};
use crate::archive::quarantine;
use crate::finding::{Finding, FindingKind};
use crate::object::age::{self, Recipient, Seal};
use crate::object::{Decoded, EncodeError, Encryption, Key, Stored, Trailer, encode};
use crate::storage::{Body, BodyWriter, Error, Kind, Result, Storage};
use crate::wal::WalName;
use std::io::{self, Read, Write};

/// What became of one file.
#[derive(Default)]
pub(super) struct Done {
    pub(super) outcomes: Vec<Brought>,
    pub(super) findings: Vec<Finding>,
}

/// What a copy at the source holds.
enum Held {
    File(Decoded),
    /// The very bytes that were written; nothing here decrypts them.
    Sealed(Seal),
}

/// An intact copy at the source.
struct Good {
    kept: Kept,
    held: Held,
    /// What it holds, where it was kept while it was read.
    raw: Option<Body>,
}

impl Copier<'_> {
    /// Brings everything that the source holds of a name.
    pub(super) fn bring(&self, named: &Named, done: &mut Done) -> Result<()> {
        let own = Key::of(named.name, self.encryption.1);
        if !named.copies.is_empty() {
            self.bring_one(named.name, &named.copies, &own, done)?;
        }
        if named.copies.is_empty() || done.outcomes.is_empty() && done.findings.is_empty() {
            done.findings.extend(
                named.unread.iter().map(|key| not_intact(self.from, named.name, key, &Verdict::Unread)),
            );
        }
        for variant in &named.variants {
            self.bring_one(named.name, std::slice::from_ref(variant), variant, done)?;
        }
        Ok(())
    }

    fn bring_one(&self, name: WalName, from: &[Key], to: &Key, done: &mut Done) -> Result<()> {
        // Our own object is the same where its trailer is: no need to read it.
        if let Some(first) = from.first()
            && first == to
            && self.passes_on
            && self.is_labelled_alike(first)?
        {
            done.outcomes.push(Brought::Identical);
            return Ok(());
        }
        let mut faults = Vec::new();
        let object = self.read(name, from, to, &mut faults)?;
        let repaired = match &object {
            Some(object) => {
                let before = done.outcomes.len();
                // Another encryption has other variants.
                let is_variant = matches!(Stored::of(to), Stored::Variant(..));
                let variant = (is_variant && !self.passes_on).then(|| object.variant(name));
                self.put(name, object, variant.as_ref().unwrap_or(to), done)?;
                let new = done.outcomes.get(before..).unwrap_or_default();
                new.iter().any(|outcome| matches!(outcome, Brought::Repaired { .. }))
            }
            None => false,
        };
        // Converted in place, the damaged object of the source is the one that was repaired.
        faults.retain(|fault: &Finding| {
            !(repaired && self.in_place && fault.key.as_deref() == Some(to.as_str()))
        });
        done.findings.extend(faults);
        Ok(())
    }

    /// Whether the source and the destination have the same object of ours under a key, by their labels.
    fn is_labelled_alike(&self, key: &Key) -> Result<bool> {
        if self.encryption.0 == Encryption::Age {
            let [here, there] = [own_seal(self.from, key)?, own_seal(self.to, key)?];
            return Ok(!self.repair && here.zip(there).is_some_and(|(here, there)| here.is_like(&there)));
        }
        let Some(here) = own_trailer(self.from, key)? else { return Ok(false) };
        Ok(self.trailer_at_destination(key)?.is_some_and(|there| same(&here, &there)))
    }

    /// The trailer of the object at the destination; with `--repair` only of one that is intact.
    fn trailer_at_destination(&self, key: &Key) -> Result<Option<Trailer>> {
        if !self.repair {
            return own_trailer(self.to, key);
        }
        Ok(self.opener.intact(self.to, key)?.and_then(|decoded| decoded.trailer))
    }

    /// Reads the first intact copy, in our own encoding. `None`: there is none, or it was deleted
    /// meanwhile.
    fn read(
        &self,
        name: WalName,
        from: &[Key],
        to: &Key,
        faults: &mut Vec<Finding>,
    ) -> Result<Option<Object>> {
        let Some(Good { kept, held, raw }) = self.first_intact(name, from, to, faults)? else {
            return Ok(None);
        };
        let source = kept.key;
        let decoded = match held {
            Held::File(decoded) => decoded,
            Held::Sealed(seal) => {
                let size = seal.size;
                let seal = Some(seal);
                return Ok(Some(Object { body: kept.body, size, sha256: None, seal, source, ours: true }));
            }
        };
        let (size, sha256) = (decoded.size, decoded.sha256);
        let ours = decoded.trailer.is_some() && self.passes_on;
        // Another tool's zstd under our own key cannot be replaced, and need not be.
        if ours || self.in_place && source == *to {
            let seal = seal_of(&kept.body).filter(|_| self.encryption.0 == Encryption::Age);
            let sha256 = Some(sha256);
            return Ok(Some(Object { body: kept.body, size, sha256, seal, source, ours }));
        }
        let raw = match raw {
            Some(raw) => raw,
            None => {
                let mut raw = room();
                let again = self.opener.open(self.from, &source, &mut raw)?.map(|opened| opened.verdict);
                match again {
                    Some(Verdict::Intact(again)) if again.sha256 == sha256 => raw.finish(),
                    _ => return Ok(None), // replaced or deleted while it was read
                }
            }
        };
        let objects = self.encode(name, &decoded, &raw)?;
        let seal = objects.seal().map(|(seal, _)| seal.clone());
        let body = objects.stored(self.encryption.1).cloned();
        let sha256 = Some(sha256);
        Ok(body.map(|body| Object { body, size, sha256, seal, source, ours }))
    }

    /// As wal-fetch would: our own object is believed alone, others must be the same.
    fn first_intact(
        &self,
        name: WalName,
        from: &[Key],
        to: &Key,
        faults: &mut Vec<Finding>,
    ) -> Result<Option<Good>> {
        let mut good: Option<Good> = None;
        for key in from {
            // Our own object is passed on as it is, and a further copy only compared.
            let mut raw = (good.is_none() && !(key == to && self.passes_on)).then(room);
            let mut nowhere = io::sink();
            let output = raw.as_mut().map_or(&mut nowhere as &mut (dyn Write + Send), |raw| raw);
            let Some(kept) = self.opener.keep(self.from, key, output)? else { continue };
            let decoded = match &kept.verdict {
                Verdict::Intact(decoded) => decoded.clone(),
                // Ours alone, so no other copy is looked at.
                Verdict::Shut(seal) if self.passes_on && good.is_none() => {
                    let held = Held::Sealed(seal.clone());
                    return Ok(Some(Good { kept, held, raw: None }));
                }
                verdict => {
                    faults.push(not_intact(self.from, name, key, verdict));
                    continue;
                }
            };
            match &good {
                Some(Good { kept: first, held: Held::File(other), .. }) if other.sha256 != decoded.sha256 => {
                    let what =
                        format!("\"{key}\" is intact and differs from \"{}\", which is, too", first.key);
                    let finding = Finding::new(FindingKind::Conflict, name, self.from.place(), what);
                    faults.push(finding.key(key));
                    return Ok(None);
                }
                Some(_) => {}
                None => {
                    let ours = decoded.trailer.is_some();
                    good = Some(Good { kept, held: Held::File(decoded), raw: raw.map(BodyWriter::finish) });
                    if ours {
                        break;
                    }
                }
            }
        }
        Ok(good)
    }

    /// Our own object of what another tool stored, or of what is to be encrypted or decrypted.
    fn encode(&self, name: WalName, decoded: &Decoded, raw: &Body) -> Result<Objects> {
        let system_id = decoded.system_id().or(self.opener.system_id);
        let encoded = self.forms.writer(room).map_err(EncodeError::Write).and_then(|mut forms| {
            let trailer = encode(name, decoded.size, system_id, self.level, &mut raw.reader(), &mut forms)?;
            forms.finish(&trailer).map_err(EncodeError::Write)
        });
        encoded.map_err(|error| {
            let what = format!("cannot encode \"{name}\" anew");
            match error {
                EncodeError::Read(error) | EncodeError::Write(error) => {
                    Error::new(Kind::Invalid, what).caused_by(error).hint("make room in $TMPDIR")
                }
                EncodeError::Length(read) => {
                    Error::new(Kind::Invalid, format!("{what}: {read} bytes of {}", decoded.size))
                }
            }
        })
    }

    /// Creates the object, or tells how what stands there differs.
    fn put(&self, name: WalName, object: &Object, to: &Key, done: &mut Done) -> Result<()> {
        if self.in_place && object.source == *to {
            done.outcomes.push(if object.ours { Brought::Identical } else { Brought::Left });
            return Ok(());
        }
        let mut set_aside = false;
        // Variants are in our own encoding only. Whose a timeline is, a history tells that was put there by
        // hand, too.
        let by_hand = matches!(name, WalName::TimelineHistory(_)) && !self.in_place;
        if (self.other_encodings || by_hand) && *to == Key::of(name, self.encryption.1) {
            match self.settle_others(name, object, to, done)? {
                Others::Settled => return Ok(()),
                Others::OtherPartial => {
                    return self.put(name, object, &object.variant(name), done);
                }
                Others::Free(repaired) => set_aside = repaired,
            }
        }
        let known = self.to.keys().known();
        // Again where it vanishes between "exists" and the look at it, or was moved aside.
        for _ in 0..4 {
            match self.to.create(to, &object.body) {
                Ok(()) => {
                    done.outcomes.push(match set_aside {
                        true => Brought::Repaired { bytes: object.body.len() },
                        false => Brought::Created {
                            bytes: object.body.len(),
                            encoded: !object.ours,
                            for_others: self.is_for_others(object),
                            sealed: object.sha256.is_none(),
                        },
                    });
                    return Ok(());
                }
                Err(error) if error.kind() == Kind::AlreadyExists => {}
                Err(error) => return Err(error),
            }
            let Some(there) = self.opener.keep(self.to, to, &mut io::sink())? else { continue };
            match (&there.verdict, object.is_same(&there.verdict, &known)) {
                (_, Some(true)) => {
                    // Whoever wrote it may have died before it was durable.
                    self.to.make_durable(to)?;
                    done.outcomes.push(Brought::Identical);
                    return Ok(());
                }
                // Two standbys promoted from one parent leave different ones; push keeps both, too.
                (_, Some(false))
                    if matches!(name, WalName::Partial(_)) && *to == Key::of(name, self.encryption.1) =>
                {
                    return self.put(name, object, &object.variant(name), done);
                }
                (Verdict::Damaged(_) | Verdict::OtherCluster(_), _) if self.repair => {
                    quarantine::set_aside(self.to, &there, name, false)?;
                    set_aside = true;
                }
                (verdict, _) => {
                    done.findings.push(self.found_there(name, object, to, verdict));
                    return Ok(());
                }
            }
        }
        let what = format!("\"{}/{to}\" comes and goes", self.to.place());
        Err(Error::new(Kind::Unavailable, what))
    }

    /// Whether none of those for whom the destination encrypts could read it.
    fn is_for_others(&self, object: &Object) -> bool {
        let ids = || self.to.keys().recipients.iter().map(Recipient::id);
        let reads = |seal: &Seal| ids().any(|id| seal.recipients.iter().any(|one| one.id == id));
        object.seal.as_ref().is_some_and(|seal| !reads(seal))
    }

    /// The name may stand there in another encoding.
    fn settle_others(&self, name: WalName, object: &Object, to: &Key, done: &mut Done) -> Result<Others> {
        let around = lookup::copies(self.to, name, self.other_encodings)?;
        let known = self.to.keys().known();
        let mut repaired = false;
        for key in around.keys.iter().filter(|key| *key != to) {
            let Some(there) = self.opener.keep(self.to, key, &mut io::sink())? else { continue };
            let is_read = Stored::of(key).encoding().is_some_and(|one| one.is_read(self.encryption.1));
            let same = object.is_same(&there.verdict, &known);
            match &there.verdict {
                Verdict::Intact(_) if !is_read && same != Some(false) => {} // a sign, which is read by nobody
                _ if same == Some(true) => {
                    self.to.make_durable(key)?;
                    done.outcomes.push(Brought::Identical);
                    return Ok(Others::Settled);
                }
                Verdict::Intact(_) if matches!(name, WalName::Partial(_)) => {
                    return Ok(Others::OtherPartial);
                }
                Verdict::Damaged(_) | Verdict::OtherCluster(_) if self.repair => {
                    quarantine::set_aside(self.to, &there, name, false)?;
                    repaired = true;
                }
                verdict => {
                    done.findings.push(self.found_there(name, object, key, verdict));
                    return Ok(Others::Settled);
                }
            }
        }
        if let Some(key) = around.unknown.as_deref().and_then(Key::parse) {
            done.findings.push(self.found_there(name, object, &key, &Verdict::Unread));
            return Ok(Others::Settled);
        }
        Ok(Others::Free(repaired))
    }

    fn found_there(&self, name: WalName, object: &Object, key: &Key, verdict: &Verdict) -> Finding {
        let theirs = format!("\"{}/{}\"", self.from.place(), object.source);
        let what = match verdict {
            Verdict::Intact(decoded) => format!(
                "\"{key}\" is intact and differs from {theirs}: {} bytes and sha256 {}, there {} bytes and {}",
                decoded.size,
                decoded.sha256.short(),
                object.size,
                object.sha256.map_or_else(|| "another one, by its tags".to_owned(), |sum| sum.short())
            ),
            Verdict::Shut(seal) if object.is_same(verdict, &self.to.keys().known()) == Some(false) => {
                format!(
                    "\"{key}\" is not decrypted here, and by its tags and sizes differs from {theirs}: {} bytes, there {}",
                    seal.size, object.size
                )
            }
            verdict => return not_intact(self.to, name, key, verdict),
        };
        Finding::new(FindingKind::Conflict, name, self.to.place(), what).key(key).hint(
            "find out which of both belongs to this history; \"wal-archive quarantine --force\" moves the other one aside",
        )
    }
}

fn not_intact(storage: &dyn Storage, name: WalName, key: &Key, verdict: &Verdict) -> Finding {
    let (kind, hint) = match verdict {
        Verdict::Shut(_) => (FindingKind::NotRead, SHUT_HINT),
        Verdict::Unread => {
            let (why, hint) = lookup::unread(key.as_str());
            let what = format!("\"{key}\" is {why}");
            return Finding::new(FindingKind::UnknownEncoding, name, storage.place(), what)
                .key(key)
                .hint(hint);
        }
        Verdict::OtherCluster(_) => (
            FindingKind::OtherCluster,
            "find out which cluster's archive this is; \"wal-archive quarantine\" moves the object aside",
        ),
        Verdict::Damaged(_) | Verdict::Intact(_) => (
            FindingKind::Damaged,
            "\"wal-archive copy --repair\" from an archive that has it intact moves it aside and creates it anew",
        ),
    };
    Finding::new(kind, name, storage.place(), format!("\"{key}\" is {verdict}")).key(key).hint(hint)
}

/// What stands at the destination in other encodings.
enum Others {
    /// It is known what becomes of the file.
    Settled,
    /// A partial segment of another promotion: both are kept.
    OtherPartial,
    /// Nothing intact; whether something damaged was moved aside.
    Free(bool),
}

fn room() -> BodyWriter {
    BodyWriter::new(vec![std::env::temp_dir()])
}

fn same(one: &Trailer, other: &Trailer) -> bool {
    (one.name, one.size, one.sha256) == (other.name, other.size, other.sha256)
}

/// The trailer of our own object, where there is one and it is whole.
pub(super) fn own_trailer(storage: &dyn Storage, key: &Key) -> Result<Option<Trailer>> {
    match label(storage, key) {
        Ok(Label::Ours(trailer)) => Ok(Some(trailer)),
        Ok(Label::None | Label::Sealed(..) | Label::Damaged(_)) => Ok(None),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

/// The same of an encrypted one.
pub(super) fn own_seal(storage: &dyn Storage, key: &Key) -> Result<Option<Seal>> {
    match label(storage, key) {
        Ok(Label::Sealed(seal, _)) => Ok(Some(seal)),
        Ok(Label::None | Label::Ours(_) | Label::Damaged(_)) => Ok(None),
        Err(error) if error.kind() == Kind::NotFound => Ok(None),
        Err(error) => Err(error),
    }
}

fn seal_of(body: &Body) -> Option<Seal> {
    let mut head = Vec::new();
    body.reader().take(age::MAX_HEADER as u64).read_to_end(&mut head).ok()?;
    age::read_seal(&head, body.len()).ok().map(|(seal, _)| seal)
}
