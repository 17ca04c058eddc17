use super::store::read;
use super::*;
use crate::archive::forms::Forms;
use crate::archive::intake::Intake;
use crate::object::{Checks, Encoder, Encryption, Identity, Key};
use crate::storage::faulty::{Fault, Faulty, Request};
use crate::storage::memory::Memory;
use crate::storage::{Body, Storage};
use crate::wal::{Lsn, SegmentSize, WalName};
use std::fs;
use tempfile::TempDir;

/// Of the cluster that made `tests/vectors/wal/postgresql-15`.
const CLUSTER: SystemId = SystemId(7_710_362_819_239_716_105);

/// A WAL file of a real server.
fn real(name: &str) -> Vec<u8> {
    let path = format!("{}/tests/vectors/wal/postgresql-15/{name}.zst", env!("CARGO_MANIFEST_DIR"));
    zstd::stream::decode_all(&fs::read(path).unwrap()[..]).unwrap()
}

/// A pg_wal with these files.
fn pg_wal(files: &[(&str, Vec<u8>)]) -> TempDir {
    let folder = tempfile::tempdir().unwrap();
    fs::create_dir(folder.path().join("archive_status")).unwrap();
    for (name, content) in files {
        fs::write(folder.path().join(name), content).unwrap();
    }
    folder
}

fn status(folder: &TempDir, name: &str) {
    fs::write(folder.path().join("archive_status").join(name), "").unwrap();
}

fn planned(folder: &TempDir, live: bool) -> DrainPlan {
    plan::read(folder.path(), live, Some(CLUSTER)).unwrap()
}

fn names(plan: &DrainPlan) -> Vec<String> {
    plan.items.iter().map(|item| item.name.to_string()).collect()
}

/// Each file that stays, whether that is a finding, and a part of the reason.
#[track_caller]
fn stays(plan: &DrainPlan, expected: &[(&str, bool, &str)]) {
    let left = plan.left.iter().map(|left| (left.name.to_string(), false, &left.reason));
    let found = plan.findings.iter().map(|finding| (finding.name.clone(), true, &finding.reason));
    let mut all: Vec<_> = left.chain(found).collect();
    all.sort();
    assert_eq!(all.len(), expected.len(), "{all:?}");
    for (stays, (name, finding, reason)) in all.iter().zip(expected) {
        assert_eq!((stays.0.as_str(), stays.1), (*name, *finding), "{stays:?}");
        assert!(stays.2.contains(reason), "{stays:?}");
    }
}

const A: &str = "00000001000000000000001A"; // ends with a switch
const B: &str = "00000001000000000000001B";
const CHILD_B: &str = "00000002000000000000001B"; // its last record ends in the next
const CHILD_C: &str = "00000002000000000000001C"; // so does its own
const BACKUP: &str = "000000010000000000000015.00000028.backup";

#[test]
fn what_a_pg_wal_holds_is_told_by_its_records_and_ordered_by_need() {
    let unfinished = real("00000001000000000000001B.partial");
    let folder = pg_wal(&[
        (A, real(A)),
        (B, unfinished),
        (CHILD_B, real(CHILD_B)),
        (CHILD_C, real(CHILD_C)),
        ("00000002000000000000001D", real(CHILD_C)), // recycled
        ("00000002000000000000001E", vec![0; 1 << 20]),
        ("00000002.history", real("00000002.history")),
        (BACKUP, real(BACKUP)),
        ("RECOVERYXLOG", real(A)),
        ("xlogtemp.27", real(A)),
    ]);
    status(&folder, "00000002000000000000001C.ready");
    let plan = planned(&folder, false);
    let partial = format!("{B}.partial");
    assert_eq!(names(&plan), ["00000002.history", BACKUP, A, CHILD_B, CHILD_C, &partial]);
    stays(
        &plan,
        &[
            ("00000002000000000000001D", false, "recycled"),
            ("00000002000000000000001E", false, "preallocated"),
        ],
    );
    let ends: Vec<_> = plan.ends.iter().map(|last| (last.timeline.get(), last.end)).collect();
    // The first is the switch point in the history file.
    assert_eq!(ends[0], (1, Lsn(0x1B6_BDA0)));
    assert_eq!(ends[1].0, 2);
    assert!(plan.ends.iter().all(|last| last.last_commit.is_some()));
}

#[test]
fn a_record_that_crosses_the_end_needs_the_next_segment_or_postgresqls_word() {
    let folder = pg_wal(&[(CHILD_C, real(CHILD_C))]);
    assert_eq!(names(&planned(&folder, false)), [format!("{CHILD_C}.partial")]);
    stays(&planned(&folder, true), &[(CHILD_C, false, "it is being written")]);
    status(&folder, "00000002000000000000001C.done");
    assert_eq!(names(&planned(&folder, false)), [CHILD_C]);

    let folder = pg_wal(&[(CHILD_B, real(CHILD_B)), (CHILD_C, real(CHILD_C))]);
    assert_eq!(names(&planned(&folder, true)), [CHILD_B], "the next one goes on with it");
    // The next one is there, and goes on with another record: one of the two is not of this server.
    let mut other = real(CHILD_C);
    other[16] ^= 1; // xlp_rem_len
    let folder = pg_wal(&[(CHILD_B, real(CHILD_B)), (CHILD_C, other)]);
    let plan = planned(&folder, true);
    assert_eq!(names(&plan), [""; 0]);
    assert!(plan.findings[0].reason.contains("is not continued in"), "{:?}", plan.findings);
}

#[test]
fn a_segment_whose_records_break_off_in_the_middle_is_a_finding() {
    let mut broken = real(CHILD_B);
    broken[300_000..300_100].fill(0xEE);
    let folder = pg_wal(&[(CHILD_B, broken), (CHILD_C, real(CHILD_C))]);
    status(&folder, "00000002000000000000001B.ready");
    let plan = planned(&folder, false);
    stays(&plan, &[(CHILD_B, true, "break off although")]);
    assert_eq!(names(&plan), [format!("{CHILD_C}.partial")]);
}

#[test]
fn a_segment_that_cannot_be_read_is_a_finding_and_the_others_go_on() {
    let folder = pg_wal(&[(A, real(A))]);
    fs::create_dir(folder.path().join(B)).unwrap();
    let plan = planned(&folder, false);
    stays(&plan, &[(B, true, "it cannot be read")]);
    assert_eq!(names(&plan), [A]);
}

#[test]
fn files_of_another_cluster_stay() {
    let folder = pg_wal(&[(A, real(A))]);
    let plan = plan::read(folder.path(), false, Some(SystemId(7))).unwrap();
    stays(&plan, &[(A, true, "7710362819239716105")]);
    assert_eq!(plan::read(folder.path(), false, None).unwrap().system_id, Some(CLUSTER));
}

/// An archive of that cluster.
fn archive() -> Arc<Memory> {
    let memory = Memory::default();
    let segment_size = SegmentSize::new(1 << 20).unwrap();
    let identity =
        Identity { system_id: CLUSTER, segment_size, foreign: false, encryption: Encryption::None };
    memory.create(&Key::identity(), &Body::from(identity.write())).unwrap();
    Arc::new(memory)
}

fn run(pg_wal: &Path, destinations: &[Shared], dry_run: bool) -> Result<Drained, Failure> {
    drain(&Drain {
        pg_wal,
        data_directory: None,
        destinations,
        live: false,
        dry_run,
        spool: None,
        level: 1,
        jobs: 2,
        timeout: Some(Duration::from_secs(60)),
    })
}

fn two_segments() -> TempDir {
    pg_wal(&[(A, real(A)), (B, real("00000001000000000000001B.partial"))])
}

#[test]
fn a_drain_can_be_repeated_and_each_file_is_in_every_destination() {
    let (folder, one, two) = (two_segments(), archive(), archive());
    let both: [Shared; 2] = [one.clone(), two.clone()];
    let only: [Shared; 1] = [one.clone()];
    let became = |destinations: &[Shared], dry_run: bool| -> Vec<String> {
        let report = run(folder.path(), destinations, dry_run).unwrap();
        report.files.iter().map(|file| format!("{:?}", file.became)).collect()
    };
    assert_eq!(became(&only, true), ["Planned(true)", "Planned(true)"]);
    assert_eq!(became(&only, false), ["Stored", "Stored"]);
    assert_eq!(became(&only, false), ["There", "There"]);
    assert_eq!(became(&both, false), ["Stored", "Stored"], "the second one lacked them");
    for storage in [one, two] {
        let partial = Key::of(WalName::Partial(B.parse().unwrap()), Encryption::None);
        assert!(storage.head(&partial).is_ok());
        assert!(
            storage.head(&Key::of(B.parse().unwrap(), Encryption::None)).is_err(),
            "never under the full name"
        );
    }
}

#[test]
fn a_destination_that_fails_is_told_for_each_file_and_the_other_one_gets_them() {
    let (folder, good) = (two_segments(), archive());
    let plan = |request, key: &str| match (request, key.contains("wal_005")) {
        (Request::Create, true) => Fault::Before(Kind::Unavailable),
        _ => Fault::None,
    };
    let bad: Shared = Arc::new(Faulty::new(archive(), Box::new(plan)));
    let report = run(folder.path(), &[bad, good.clone()], false).unwrap();
    assert!(report.files.iter().all(|file| matches!(file.became, Became::Failed(_))), "{report:?}");
    assert!(good.head(&Key::of(A.parse().unwrap(), Encryption::None)).is_ok());
}

#[test]
fn a_destination_that_cannot_be_reached_or_asked_for_a_file_keeps_nothing_from_the_other_one() {
    for (asked, of) in [(Request::Get, "archive.json"), (Request::Head, "wal_005")] {
        let (folder, good) = (two_segments(), archive());
        let plan = move |request, key: &str| match (request == asked, key.contains(of)) {
            (true, true) => Fault::Before(Kind::Unavailable),
            _ => Fault::None,
        };
        let dead: Shared = Arc::new(Faulty::new(archive(), Box::new(plan)));
        let lost = of == "archive.json";
        let both = [dead.clone(), good.clone() as Shared];
        let planned = run(folder.path(), &both, true).unwrap();
        assert_eq!(planned.unreached.len(), usize::from(lost), "{planned:?}");
        let report = run(folder.path(), &both, false).unwrap();
        assert_eq!(report.unreached.len(), usize::from(lost), "{report:?}");
        for name in [WalName::Segment(A.parse().unwrap()), WalName::Partial(B.parse().unwrap())] {
            assert!(good.head(&Key::of(name, Encryption::None)).is_ok(), "{name} {report:?}");
        }
        if lost {
            assert!(report.files.iter().all(|file| matches!(file.became, Became::Failed(_))), "{report:?}");
            assert!(run(folder.path(), &[dead], false).is_err(), "there is nothing to drain to");
        }
    }
}

#[test]
fn only_the_archive_of_the_same_cluster_is_completed() {
    let folder = two_segments();
    let empty: Shared = Arc::new(Memory::default());
    assert!(run(folder.path(), &[empty], false).unwrap_err().message.contains("is not an archive"));
    let other = Memory::default();
    let segment_size = SegmentSize::new(1 << 20).unwrap();
    let identity =
        Identity { system_id: SystemId(7), segment_size, foreign: false, encryption: Encryption::None };
    other.create(&Key::identity(), &Body::from(identity.write())).unwrap();
    let good = archive();
    let refused = run(folder.path(), &[good.clone(), Arc::new(other)], false).unwrap_err();
    assert!(refused.message.contains("system identifier 7,"), "{refused}");
    assert!(good.head(&Key::of(A.parse().unwrap(), Encryption::None)).is_err(), "nothing is done at all");
}

#[test]
fn a_file_that_changed_after_its_records_were_read_is_dropped() {
    let folder = two_segments();
    let plan = planned(&folder, true);
    let intake = Intake {
        data_directory: None,
        spool: None,
        level: 1,
        checks: Checks::Header,
        drop_cache: false,
        forms: Forms::of([]),
        urgent: true,
    };
    let mut encoder = Encoder::new(1).unwrap();
    let item = &plan.items[0];
    assert!(read(item, &intake, &mut encoder).is_ok());
    // Recycled: the same inode under a later name, and another file in its place.
    fs::rename(&item.path, folder.path().join("00000001000000000000002F")).unwrap();
    assert_eq!(read(item, &intake, &mut encoder).err().unwrap().kind, Cause::Source);
    fs::write(&item.path, real(A)).unwrap();
    let dropped = read(item, &intake, &mut encoder).err().unwrap();
    assert!(dropped.message.contains("changed while it was read"), "{dropped}");
    // The stamp alone is not believed: the records of what is to be stored are read, too.
    let path = folder.path().join(B);
    let stamp = crate::spool::Stamp::of(&fs::metadata(&path).unwrap());
    let posing = Item { name: WalName::Segment(B.parse().unwrap()), stamp, path, end: None };
    assert_eq!(read(&posing, &intake, &mut encoder).err().unwrap().kind, Cause::Source);
}
