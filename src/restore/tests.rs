use super::choose::{Wish, choose};
use super::target::Target;
use super::*;
use crate::base_backup::record::tests::record;
use crate::base_backup::tar::tests::tar;
use crate::base_backup::{Stored, id, part};
use crate::object::{Encoder, Encryption, Identity, Key, Sha256Sum};
use crate::storage::faulty::{Fault, Faulty};
use crate::storage::memory::Memory;
use crate::storage::{Body, Kind, Shared, Storage};
use std::sync::Arc;

/// An archive of the cluster of [`record`].
fn archive() -> Arc<Memory> {
    let memory = Memory::default();
    let Record { system_id, segment_size, .. } = record();
    let identity = Identity { system_id, segment_size, foreign: false, encryption: Encryption::None };
    memory.create(&Key::identity(), &Body::from(identity.write())).unwrap();
    Arc::new(memory)
}

fn key(file: &str) -> Key {
    record().id.key(file).unwrap()
}

/// A backup of one tar in two parts at each of these places.
fn backup(places: &[&Arc<Memory>]) -> Record {
    let mut record = record();
    let tar = tar(&[("PG_VERSION", b"15\n")]);
    let mut encoder = Encoder::new(1).unwrap();
    let mut store = |stem: &str, content: &[u8]| {
        let (size, mut bytes) = (content.len() as u64, Vec::new());
        let (of, file) = ((&record.id, stem), part::file(stem, Encryption::None));
        part::encode(&mut encoder, of, size, record.system_id, &mut &content[..], &mut bytes).unwrap();
        let (stored, sha256) = (bytes.len() as u64, Sha256Sum::of(&bytes));
        for place in places {
            place.create(&key(&file), &Body::from(bytes.clone())).unwrap();
        }
        Stored { file, size, stored, sha256 }
    };
    let (first, second) = tar.split_at(600);
    let parts = vec![store("base-00001.tar", first), store("base-00002.tar", second)];
    let manifest = store("manifest", b"manifest");
    record.series = vec![Series { tablespace: None, parts }];
    record.manifest = manifest;
    for place in places {
        place.create(&key(id::RECORD), &Body::from(record.write())).unwrap();
    }
    record
}

fn shared(places: &[&Arc<Memory>]) -> Vec<Shared> {
    places.iter().map(|place| Arc::clone(*place) as Shared).collect()
}

/// A destination that does not answer.
fn dead() -> Shared {
    Arc::new(Faulty::new(archive(), Box::new(|_, _| Fault::Before(Kind::Unavailable))))
}

/// The bytes of its tar.
fn read(sources: &[Source]) -> Result<Vec<u8>> {
    let mut bytes = Vec::new();
    parts::each(sources, (0, 2), 2, &mut |piece| {
        bytes.extend_from_slice(piece);
        Ok(())
    })?;
    Ok(bytes)
}

#[test]
fn two_destinations_that_are_damaged_in_different_places_have_the_whole_backup_together() {
    let (one, two) = (archive(), archive());
    let record = backup(&[&one, &two]);
    one.delete(&key("base-00002.tar.zst")).unwrap();
    two.delete(&key("manifest.zst")).unwrap();
    let found = look(&shared(&[&one, &two])).unwrap();
    assert_eq!(found.backups, std::slice::from_ref(&record));
    let sources = found.sources(record.id);
    assert_eq!(read(sources).unwrap(), tar(&[("PG_VERSION", b"15\n")]));
    two.delete(&key("base-00002.tar.zst")).unwrap();
    assert!(look(&shared(&[&one, &two])).unwrap().backups.is_empty());
}

#[test]
fn a_damaged_record_is_not_believed_where_another_destination_has_it_intact() {
    let (one, two) = (archive(), archive());
    let record = backup(&[&one, &two]);
    let text = String::from_utf8(record.write()).unwrap();
    let sha256 = record.series[0].parts[0].sha256.to_string();
    let other = Sha256Sum::of(b"other").to_string();
    one.delete(&key(id::RECORD)).unwrap();
    one.create(&key(id::RECORD), &Body::from(text.replace(&sha256, &other).into_bytes())).unwrap();
    let found = look(&shared(&[&one, &two])).unwrap();
    assert_eq!(found.backups, std::slice::from_ref(&record));
    assert_eq!(found.sources(record.id).len(), 1);
    assert!(read(found.sources(record.id)).is_ok());
    assert!(look(&shared(&[&one])).unwrap().backups.is_empty());
}

#[test]
fn a_record_of_another_cluster_is_not_believed() {
    let one = archive();
    let record = backup(&[&one]);
    let other = Record { system_id: crate::wal::SystemId(1), ..record };
    one.delete(&key(id::RECORD)).unwrap();
    one.create(&key(id::RECORD), &Body::from(other.write())).unwrap();
    assert!(look(&shared(&[&one])).unwrap().backups.is_empty());
}

#[test]
fn where_one_copy_is_damaged_and_another_cannot_be_read_nobody_knows() {
    let (one, two) = (archive(), archive());
    let record = backup(&[&one, &two]);
    let source = |storage: Shared| Source { storage, record: record.clone(), whole: true };
    two.delete(&key("base-00001.tar.zst")).unwrap();
    two.create(&key("base-00001.tar.zst"), &Body::from(vec![0; 9])).unwrap();
    let dead = || source(dead());
    let kind = |sources: &[Source]| read(sources).map(drop).unwrap_err().kind;
    assert_eq!(kind(&[source(two.clone())]), Cause::Refused);
    assert_eq!(kind(&[dead(), source(two.clone())]), Cause::CouldNot);
    assert_eq!(kind(&[source(two.clone()), dead()]), Cause::CouldNot);
    assert!(read(&[dead(), source(two), source(one)]).is_ok());
}

#[test]
fn what_is_missing_is_no_refusal_while_a_destination_was_not_asked() {
    let wish = Wish { backup: None, target: Target::End, exclusive: false, timeline: None };
    for (places, kind) in
        [(vec![archive() as Shared], Cause::Refused), (vec![archive() as Shared, dead()], Cause::CouldNot)]
    {
        let found = look(&places).unwrap();
        let refused = choose(&found.inventory, &found.backups, &wish, &found).unwrap_err();
        assert_eq!(found.undecided(refused).kind, kind);
    }
}
