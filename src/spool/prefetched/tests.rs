use super::*;
use crate::failure::Failure;
use crate::host::data_directory::DataDirectory;
use std::fs::OpenOptions;
use std::os::unix::fs::{PermissionsExt, symlink};
use tempfile::TempDir;

const NAME: &str = "000000010000000000000003";
const CLUSTER: SystemId = SystemId(7);

fn segment(address: u64) -> Vec<u8> {
    let mut bytes = vec![0; 1 << 20];
    bytes[0..4].copy_from_slice(&[0x10, 0xD1, 6, 0]);
    bytes[4..8].copy_from_slice(&1u32.to_le_bytes());
    bytes[8..16].copy_from_slice(&address.to_le_bytes());
    bytes[24..32].copy_from_slice(&CLUSTER.0.to_le_bytes());
    bytes[32..36].copy_from_slice(&(1u32 << 20).to_le_bytes());
    bytes[36..40].copy_from_slice(&8192u32.to_le_bytes());
    bytes
}

/// A spool with one sealed segment.
struct Case {
    _base: TempDir,
    prefetched: Prefetched,
    sealed: SystemTime,
}

impl Case {
    fn with(content: &[u8]) -> Case {
        let base = tempfile::tempdir().unwrap();
        let prefetched = Prefetched { folder: base.path().join("prefetch-0123456789abcdef") };
        prefetched.create().unwrap();
        let case = Case { _base: base, prefetched, sealed: SystemTime::now() };
        case.put(content);
        case.seal();
        case
    }

    fn new() -> Case {
        Case::with(&segment(3 << 20))
    }

    fn name() -> SegmentName {
        NAME.parse().unwrap()
    }

    fn put(&self, content: &[u8]) {
        let path = self.prefetched.path(Case::name());
        fs::write(&path, content).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
    }

    fn seal(&self) {
        let sum = Sha256Sum::of(b"whatever it was");
        self.prefetched
            .seal(Case::name(), sum, vec![Failure::new((), "a warning").hint("a hint")], self.sealed)
            .unwrap();
    }

    fn hit_at(&self, now: SystemTime) -> Option<Hit> {
        self.prefetched.hit(Case::name(), Checks::Header, CLUSTER, now)
    }

    fn hit(&self) -> Option<Hit> {
        self.hit_at(self.sealed + Duration::from_secs(1))
    }

    #[track_caller]
    fn is_a_miss_and_gone(&self) {
        assert!(self.hit().is_none());
        let left: Vec<_> = fs::read_dir(self.prefetched.folder()).unwrap().collect();
        assert!(left.is_empty(), "{left:?}");
    }

    fn edit_seal(&self, from: &str, to: &str) {
        let path = self.prefetched.seal_of(Case::name());
        let text = fs::read_to_string(&path).unwrap();
        assert!(text.contains(from), "{text}");
        fs::write(path, text.replacen(from, to, 1)).unwrap();
    }
}

#[test]
fn a_sealed_segment_is_a_hit_with_what_was_said_of_it() {
    let case = Case::new();
    let hit = case.hit().unwrap();
    assert_eq!(hit.path, case.prefetched.path(Case::name()));
    assert_eq!(
        (hit.size.bytes(), hit.warnings),
        (1 << 20, vec![Failure::new((), "a warning").hint("a hint")])
    );
    assert_eq!(hit.sha256, Sha256Sum::of(b"whatever it was"));
    assert!(case.hit().is_some(), "looking changes nothing");
    case.prefetched.discard(Case::name());
    case.is_a_miss_and_gone();
}

#[test]
fn a_seal_is_void_after_ten_minutes_and_when_the_clock_went_back() {
    for (age, believed) in [(0, true), (599, true), (600, false), (100_000, false)] {
        let case = Case::new();
        assert_eq!(case.hit_at(case.sealed + Duration::from_secs(age)).is_some(), believed, "{age}");
        assert_eq!(case.prefetched.path(Case::name()).exists(), believed, "{age}");
    }
    let case = Case::new();
    assert!(case.hit_at(case.sealed - Duration::from_secs(1)).is_none());
    case.is_a_miss_and_gone();
}

#[test]
fn a_file_that_was_touched_in_any_way_is_a_miss() {
    type Touch<'a> = (&'a str, &'a dyn Fn(&Path));
    let touched: [Touch<'_>; 7] = [
        ("other content", &|path| {
            let mut file = OpenOptions::new().write(true).open(path).unwrap();
            file.write_all(b"x").unwrap();
        }),
        ("longer", &|path| fs::write(path, vec![1; 2 << 20]).unwrap()),
        ("another file", &|path| {
            fs::copy(path, path.with_extension("copy")).unwrap();
            fs::rename(path.with_extension("copy"), path).unwrap();
        }),
        ("renamed away and back", &|path| {
            fs::rename(path, path.with_extension("away")).unwrap();
            fs::rename(path.with_extension("away"), path).unwrap();
        }),
        ("other mode", &|path| fs::set_permissions(path, fs::Permissions::from_mode(0o400)).unwrap()),
        ("gone", &|path| fs::remove_file(path).unwrap()),
        ("a link to the very file", &|path| {
            let other = path.parent().unwrap().parent().unwrap().join("other");
            fs::rename(path, &other).unwrap();
            symlink(&other, path).unwrap();
        }),
    ];
    for (what, touch) in touched {
        let case = Case::new();
        // The clock that stamps files ticks every few milliseconds.
        std::thread::sleep(Duration::from_millis(20));
        touch(&case.prefetched.path(Case::name()));
        assert!(case.hit().is_none(), "{what}");
        assert!(fs::symlink_metadata(case.prefetched.path(Case::name())).is_err(), "{what}");
        assert!(!case.prefetched.seal_of(Case::name()).exists(), "{what}");
    }
}

#[test]
fn a_pipe_is_not_waited_for() {
    let case = Case::new();
    let path = case.prefetched.path(Case::name());
    fs::remove_file(&path).unwrap();
    assert!(std::process::Command::new("mkfifo").arg(&path).status().unwrap().success());
    case.is_a_miss_and_gone(); // and the test ends
}

#[test]
fn a_seal_is_read_strictly() {
    let edits = [
        ("{", ""),
        ("{", "{\"more\":1,"),
        (NAME, "000000010000000000000004"),
        ("\"sha256\":\"", "\"sha256\":\"x"),
        ("\"inode\":", "\"inode\":1"),
        ("\"device\":", "\"device\":1"),
        ("\"size\":", "\"size\":1"),
        ("\"modified\":[", "\"modified\":[1"),
        ("\"changed\":[", "\"changed\":[1"),
        ("\"made\":", "\"made\":-"),
        ("\"made\":", "\"made\":9"),
        ("\"made\":", "\"else\":"),
    ];
    for (from, to) in edits {
        let case = Case::new();
        case.edit_seal(from, to);
        case.is_a_miss_and_gone();
    }
    let case = Case::new();
    fs::write(case.prefetched.seal_of(Case::name()), vec![b' '; 1 << 20]).unwrap();
    case.is_a_miss_and_gone();
}

#[test]
fn a_sealed_file_must_still_be_the_segment_of_its_name_and_cluster() {
    for bad in [segment(4 << 20), vec![0; 1 << 20], segment(3 << 20)[..1 << 19].to_vec(), Vec::new()] {
        Case::with(&bad).is_a_miss_and_gone();
    }
    let case = Case::new();
    let other = case.prefetched.hit(Case::name(), Checks::Header, SystemId(8), case.sealed);
    assert!(other.is_none());
    let case = Case::with(&[1; 1 << 20]);
    let encrypted = case.prefetched.hit(Case::name(), Checks::NoHeader, CLUSTER, case.sealed);
    assert!(encrypted.is_some(), "the pages of a fork that encrypts are not looked at");
}

#[test]
fn a_file_without_a_seal_is_never_used() {
    let case = Case::new();
    fs::remove_file(case.prefetched.seal_of(Case::name())).unwrap();
    assert!(case.hit().is_none());
    assert_eq!(case.prefetched.progress(Case::name()), Some(u64::MAX), "it may be sealed in a moment");
    case.prefetched.discard(Case::name());
    assert_eq!(case.prefetched.progress(Case::name()), None);
    fs::write(case.prefetched.part(Case::name()), "four").unwrap();
    assert_eq!(case.prefetched.progress(Case::name()), Some(4));
}

#[test]
fn the_position_is_a_name_and_a_size_or_nothing() {
    let base = tempfile::tempdir().unwrap();
    let prefetched = Prefetched { folder: base.path().join("prefetch-0123456789abcdef") };
    assert_eq!(prefetched.position(), None);
    for size in [1 << 20, 1 << 30, 16 << 20] {
        let size = SegmentSize::new(size).unwrap();
        prefetched.set_position(Case::name(), size).unwrap();
        assert_eq!(prefetched.position(), Some((Case::name(), size)));
    }
    let path = prefetched.folder().join(POSITION);
    let text = fs::read_to_string(&path).unwrap();
    for torn in [&text[..30], &text[1..], "", "x\n", "000000010000000000000003 0000000003\n"] {
        fs::write(&path, torn).unwrap();
        assert_eq!(prefetched.position(), None, "{torn:?}");
    }
}

#[test]
fn what_is_not_wanted_any_more_is_deleted() {
    let case = Case::new();
    let folder = case.prefetched.folder();
    case.prefetched.set_position(Case::name(), SegmentSize::new(1 << 20).unwrap()).unwrap();
    for name in
        ["junk", "000000010000000000000004.part", "000000010000000000000005.part", ".wal-archive.x.tmp"]
    {
        fs::write(folder.join(name), "x").unwrap();
    }
    let names = || {
        let mut names: Vec<_> =
            fs::read_dir(folder).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.sort();
        names
    };
    let four = |name: SegmentName, part| part == name.to_string().ends_with('4');
    case.prefetched.retain(true, four).unwrap();
    assert_eq!(names()[0], ".wal-archive.x.tmp", "a seal that is just being written");
    case.prefetched.retain(false, four).unwrap();
    let kept = [NAME, "000000010000000000000003.seal", "000000010000000000000004.part", POSITION];
    assert_eq!(names(), kept);
    case.prefetched.retain(false, |_, _| false).unwrap();
    assert_eq!(names(), [POSITION]);
}

fn server(base: &Path, pid: u32, start: u32) -> RunningServer {
    let data = base.join("data");
    fs::create_dir_all(&data).unwrap();
    fs::write(data.join("PG_VERSION"), "15\n").unwrap();
    fs::write(data.join("postmaster.pid"), format!("{pid}\n/data\n{start}\n")).unwrap();
    DataDirectory::at(&data).unwrap().server().unwrap()
}

#[test]
fn the_folder_is_another_one_for_every_other_purpose() {
    let base = tempfile::tempdir().unwrap();
    let spool = Spool::open(base.path().join("spool")).unwrap();
    let (one, other) = (server(base.path(), 10, 20), server(base.path(), 10, 21));
    let reused = server(base.path(), 11, 20);
    let folder = |addresses: &[&str], terms: &str, system_id, server: &RunningServer| {
        let addresses = addresses.iter().map(|address| (*address).to_owned()).collect();
        spool
            .prefetched(&Purpose { addresses, terms: Sha256Sum::of(terms.as_bytes()), system_id, server })
            .unwrap()
            .folder
    };
    let folders: std::collections::BTreeSet<_> = [
        folder(&["/a", "/b"], "terms", CLUSTER, &one),
        folder(&["/b", "/a"], "terms", CLUSTER, &one),
        folder(&["/a"], "terms", CLUSTER, &one),
        folder(&["/a\", \"/b"], "terms", CLUSTER, &one),
        folder(&["/a", "/b"], "others", CLUSTER, &one),
        folder(&["/a", "/b"], "terms", SystemId(8), &one),
        folder(&["/a", "/b"], "terms", CLUSTER, &other),
        folder(&["/a", "/b"], "terms", CLUSTER, &reused),
    ]
    .into();
    assert_eq!(folders.len(), 8);
    assert!(folders.contains(&folder(&["/a", "/b"], "terms", CLUSTER, &one)));
}

#[test]
fn clearing_takes_all_that_is_prefetched_and_nothing_else() {
    let base = tempfile::tempdir().unwrap();
    let spool = Spool::open(base.path().join("spool")).unwrap();
    let folder = |name: &str| {
        let folder = spool.folder().join(name);
        fs::create_dir(&folder).unwrap();
        fs::write(folder.join(NAME), "x").unwrap();
        folder
    };
    let one = folder("prefetch-0123456789abcdef");
    let two = folder("prefetch-fedcba9876543210");
    let others = [folder("prefetch-"), folder("prefetch-0123456789abcdex"), folder("marks")];
    spool.clear_prefetched(Some(&Prefetched { folder: two.clone() })).unwrap();
    assert_eq!((one.exists(), two.exists()), (false, true));
    spool.clear_prefetched(None).unwrap();
    assert!(!two.exists() && others.iter().all(|other| other.join(NAME).exists()));
}

#[test]
fn a_spool_has_one_prefetcher() {
    let base = tempfile::tempdir().unwrap();
    let spool = Spool::open(base.path().join("spool")).unwrap();
    assert!(!spool.has_prefetcher());
    let lock = spool.be_prefetcher().unwrap().unwrap();
    assert!(spool.has_prefetcher());
    assert!(spool.be_prefetcher().unwrap().is_none());
    drop(lock);
    assert!(!spool.has_prefetcher());
    assert!(spool.be_prefetcher().unwrap().is_some());
}
