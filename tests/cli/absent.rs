//! Exit 1 of wal-fetch means that nothing but PostgreSQL's own pg_wal could satisfy the request.

use crate::util::{CLUSTER, MIB, NOW, Run, Sandbox, names, segment, unless_late};
use crate::wal::{Control, Log, State, write_control};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::{Duration, SystemTime};
use wal_archive::wal::{Lsn, SegmentSize, SystemId, Timeline};

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";
const THREE: &str = "000000010000000000000003";
const FIVE: &str = "000000010000000000000005";

fn size(bytes: usize) -> SegmentSize {
    SegmentSize::new(bytes as u64).unwrap()
}

fn timeline(id: u32) -> Timeline {
    Timeline::new(id).unwrap()
}

/// The control file of a server on that timeline.
fn control(id: u32, minimum: Option<u32>) -> Control {
    Control {
        system_id: SystemId(CLUSTER),
        size: size(MIB),
        state: State::InArchiveRecovery,
        timeline: timeline(id),
        redo: Lsn(0x10_0028),
        minimum_recovery: minimum.map(|id| (Lsn(0x10_0100), timeline(id))),
    }
}

/// Archives a file and forgets it.
fn archive(sandbox: &Sandbox, name: &str, content: &[u8]) {
    let path = sandbox.wal(name, content);
    sandbox.push(name, &[]).succeeds();
    fs::remove_file(path).unwrap();
}

/// An archive of the segments with these names.
fn archived(all: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    for name in all {
        archive(&sandbox, name, &segment(name, MIB, CLUSTER, 1));
    }
    sandbox
}

/// Segments 1, 2 and 3 as a server writes them; the third is unfinished.
fn written() -> [(String, Vec<u8>); 3] {
    let mut log = Log::new(SystemId(CLUSTER), size(MIB));
    log.fill();
    log.fill();
    log.commit(SystemTime::UNIX_EPOCH + Duration::from_secs(1_700_000_000));
    let third = (log.current().to_string(), log.current_image().unwrap().bytes());
    let finished = log.take_finished().into_iter().map(|(name, image)| (name.to_string(), image.bytes()));
    let [first, second] = finished.collect::<Vec<_>>().try_into().unwrap();
    [first, second, third]
}

/// Whoever asks gets this code at once, and these words.
#[track_caller]
fn answers(sandbox: &Sandbox, name: &str, args: &[&str], code: i32, words: &[&str]) {
    let run = sandbox.fetch_now(name, args);
    assert!(run.code == Some(code), "expected {code}: {run:?}");
    let told = run.stderr.lines().any(|line| words.iter().all(|word| line.contains(word)));
    assert!(told || words.is_empty(), "expected {words:?}: {run:?}");
}

#[test]
fn every_later_file_of_the_timeline_makes_a_hole() {
    let sandbox = archived(&[ONE]);
    answers(&sandbox, THREE, &[], 1, &[]);
    let folder = sandbox.archive().join("wal_005");
    for file in [
        format!("{FIVE}.zst"),
        format!("{FIVE}.gpg"),
        format!("{FIVE}.partial.zst"),
        format!("{FIVE}.0123456789abcdef.zst"),
        format!("{FIVE}.partial.0123456789abcdef.zst"),
        format!("{FIVE}.00000028.backup.zst"),
        // The segment was finished before the backup was.
        format!("{THREE}.00000028.backup.zst"),
        "000000010000000700000000.zst".to_owned(),
        format!("../{FIVE}"),
        format!("../{FIVE}.gz"),
    ] {
        fs::write(folder.join(&file), "whatever it holds").unwrap();
        let name = file.trim_start_matches("../").split('.').next().unwrap();
        answers(&sandbox, THREE, &[], 224, &["a hole", THREE, name, "--accept-gap"]);
        answers(&sandbox, THREE, &["--accept-gap", THREE], 1, &["warning", THREE, name]);
        fs::remove_file(folder.join(&file)).unwrap();
    }
    for file in [
        format!("{THREE}.partial.zst"),
        format!("{THREE}.0123456789abcdef.zst"),
        "000000020000000000000009.zst".to_owned(),
        format!("{FIVE}.json"),
    ] {
        fs::write(folder.join(&file), "no evidence").unwrap();
        answers(&sandbox, THREE, &[], 1, &[]);
        fs::remove_file(folder.join(&file)).unwrap();
    }
}

#[test]
fn a_hole_at_the_end_of_a_log_is_one() {
    // The last segment of 1 MiB of log 3, and the first of log 4.
    let sandbox = archived(&["000000010000000300000FFE", "000000010000000400000000"]);
    answers(&sandbox, "000000010000000300000FFF", &[], 224, &["a hole", "000000010000000400000000"]);
    answers(&sandbox, "000000010000000400000001", &[], 1, &[]);
}

#[test]
fn a_copy_in_pg_wal_closes_a_hole_only_where_its_records_reach_its_end() {
    let [first, second, third] = written();
    let sandbox = archived(&[]);
    archive(&sandbox, &first.0, &first.1);
    archive(&sandbox, FIVE, &segment(FIVE, MIB, CLUSTER, 1));
    sandbox.wal(&second.0, &second.1);
    answers(&sandbox, &second.0, &[], 1, &["warning", &second.0, FIVE, "own copy in pg_wal"]);
    // What a snapshot holds of the segment that was just written.
    sandbox.wal(&third.0, &third.1);
    answers(&sandbox, &third.0, &[], 224, &["a hole", &third.0, FIVE]);
    let mut cut = second.1.clone();
    cut[MIB / 2..].fill(0);
    for junk in [vec![0; MIB], second.1[..MIB / 2].to_vec(), segment(&second.0, MIB, 42, 1), third.1, cut] {
        sandbox.wal(&second.0, &junk);
        answers(&sandbox, &second.0, &[], 224, &["a hole", &second.0, FIVE]);
    }
    // pg_rewind asks for the file under its own name: that is no second copy.
    sandbox.wal(&second.0, &second.1);
    let rewind = unless_late(&NOW, |timeout| {
        let mut command = sandbox.program("wal-fetch");
        command.arg("--archive").arg(sandbox.archive()).args(["--timeout", timeout]);
        Run::of(command.args([&second.0, &format!("pg_wal/{}", second.0)]))
    });
    rewind.fails(224, &[&second.0, FIVE]);
    // Without anything later, pg_wal does not matter.
    sandbox.wal(FIVE, &vec![0; MIB]);
    answers(&sandbox, "000000010000000000000006", &[], 1, &[]);
}

#[test]
fn a_history_is_lost_and_not_absent_where_its_timeline_has_files() {
    let sandbox = archived(&[ONE, TWO]);
    let history = "00000002.history";
    let folder = sandbox.archive().join("wal_005");
    let on_two = "000000020000000000000002";
    for file in [
        format!("{on_two}.zst"),
        format!("{on_two}.partial.zst"),
        format!("{on_two}.00000028.backup.zst"),
        format!("{on_two}.0123456789abcdef.zst"),
        format!("../{on_two}.gz"),
    ] {
        fs::write(folder.join(&file), "whatever it holds").unwrap();
        answers(&sandbox, history, &[], 224, &["a lost history", history, on_two, "HINT:", "--accept-gap"]);
        answers(&sandbox, history, &["--on-error", "retry"], 24, &[history, on_two]);
        answers(&sandbox, history, &["--accept-gap", history], 1, &["warning", history, on_two]);
        answers(&sandbox, "00000003.history", &[], 1, &[]);
        if file.ends_with(&format!("{on_two}.zst")) {
            continue;
        }
        fs::remove_file(folder.join(&file)).unwrap();
    }
    answers(&sandbox, history, &["--accept-gap", TWO], 224, &[history]);
    answers(&sandbox, history, &["--accept-gap", "00000002.partial"], 202, &["timeline history"]);
    // A data directory that is on the timeline already knows where it came from.
    let data = sandbox.data();
    write_control(&data, &control(1, None));
    answers(&sandbox, history, &[], 224, &[history]);
    write_control(&data, &control(2, None));
    answers(&sandbox, history, &[], 1, &[]);
    write_control(&data, &control(1, Some(2)));
    answers(&sandbox, history, &[], 1, &[]);
    write_control(&data, &control(1, None));
    fs::write(data.join("backup_label"), "START WAL LOCATION: 0/2000028\nSTART TIMELINE: 2\n").unwrap();
    answers(&sandbox, history, &[], 1, &[]);
}

#[test]
fn a_history_that_leaves_the_timeline_later_makes_a_hole() {
    let sandbox = archived(&[ONE, TWO]);
    // Segment 3 of 1 MiB ends at 0/400000.
    let within = b"1\t0/3FFFF8\tno recovery target specified\n";
    let later = b"1\t0/600000\tno recovery target specified\n";
    archive(&sandbox, "00000002.history", within);
    answers(&sandbox, THREE, &[], 1, &[]);
    archive(&sandbox, "00000004.history", later);
    answers(&sandbox, THREE, &[], 224, &["a hole", THREE, "00000004.history"]);
    fs::remove_file(sandbox.object("00000004.history")).unwrap();
    answers(&sandbox, THREE, &[], 1, &[]);
    // PostgreSQL keeps in pg_wal what it restored.
    sandbox.wal("00000004.history", later);
    answers(&sandbox, THREE, &[], 224, &["a hole", THREE, "00000004.history", "pg_wal"]);
    answers(&sandbox, "000000010000000000000006", &[], 1, &[]);
    sandbox.wal("00000004.history", b"");
    answers(&sandbox, THREE, &[], 1, &[]);
}

#[test]
fn a_link_that_leads_nowhere_is_a_fault() {
    let sandbox = archived(&[ONE]);
    let folder = sandbox.archive().join("wal_005");
    fs::rename(&folder, sandbox.path("elsewhere")).unwrap();
    symlink(sandbox.path("unmounted"), &folder).unwrap();
    for name in [ONE, TWO, "00000002.history"] {
        answers(&sandbox, name, &[], 220, &["wal_005", "leads nowhere", "HINT:"]);
        answers(&sandbox, name, &["--allow-empty"], 220, &["leads nowhere"]);
    }
    fs::rename(sandbox.path("elsewhere"), sandbox.path("unmounted")).unwrap();
    sandbox.fetch(ONE, &[]).succeeds();
    answers(&sandbox, TWO, &[], 1, &[]);
    // A single object, too.
    symlink(sandbox.path("no-such-file"), sandbox.object(TWO)).unwrap();
    answers(&sandbox, TWO, &[], 220, &[TWO, "leads nowhere"]);
    answers(&sandbox, ONE, &[], 0, &[]);
    fs::remove_file(sandbox.object(TWO)).unwrap();
    symlink(sandbox.path("no-such-file"), sandbox.object(THREE)).unwrap();
    answers(&sandbox, TWO, &[], 224, &[TWO, THREE]);
}

#[test]
fn allow_empty_overrides_the_lack_of_wal_files_and_never_the_identity() {
    let sandbox = archived(&[ONE]);
    fs::remove_dir_all(sandbox.archive().join("wal_005")).unwrap();
    answers(&sandbox, ONE, &[], 220, &["holds no WAL file"]);
    answers(&sandbox, ONE, &["--allow-empty"], 1, &[]);
    sandbox.make_data_directory("data", 42);
    for args in [&[][..], &["--allow-empty"]] {
        answers(&sandbox, ONE, args, 220, &["42", &CLUSTER.to_string(), "HINT:"]);
    }
}

#[test]
fn a_file_that_does_not_say_whose_it_is_is_that_of_its_archive() {
    let sandbox = archived(&[ONE]);
    let history = b"1\t0/200000\tx\n";
    fs::write(sandbox.archive().join("wal_005/00000002.history"), history).unwrap();
    let backup = format!("{ONE}.00000028.backup");
    fs::write(sandbox.archive().join(&backup), "START WAL LOCATION").unwrap();
    for name in ["00000002.history", &backup] {
        sandbox.fetch(name, &[]).succeeds();
        sandbox.fetched();
    }
    let identity = sandbox.archive().join("archive.json");
    sandbox.make_data_directory("data", 42);
    for name in ["00000002.history", &backup] {
        answers(&sandbox, name, &[], 220, &["42", &CLUSTER.to_string()]);
    }
    // By the WAL files that stand there, where there is no identity.
    fs::remove_file(&identity).unwrap();
    answers(&sandbox, "00000002.history", &[], 220, &["42", &CLUSTER.to_string()]);
    answers(&sandbox, TWO, &[], 220, &["42", &CLUSTER.to_string()]);
    sandbox.nothing_fetched();
}

#[test]
fn files_at_the_root_of_our_own_directory_are_seen() {
    let sandbox = archived(&[ONE]);
    let two = segment(TWO, MIB, CLUSTER, 2);
    fs::write(sandbox.archive().join(TWO), &two).unwrap();
    sandbox.fetch(TWO, &[]).succeeds();
    assert!(sandbox.fetched() == two);
    fs::write(sandbox.archive().join(FIVE), "one that cp is just writing").unwrap();
    answers(&sandbox, THREE, &[], 224, &[THREE, FIVE]);
    answers(&sandbox, FIVE, &[], 221, &[FIVE, "damaged"]);
    fs::write(sandbox.archive().join(format!("{THREE}.gpg")), "x").unwrap();
    answers(&sandbox, THREE, &[], 220, &[THREE, "encoding"]);
}

#[test]
fn a_bare_history_that_was_cut_is_damaged() {
    let sandbox = archived(&[ONE]);
    let path = sandbox.archive().join("wal_005/00000002.history");
    for cut in ["1\t0/1B6", "1\t0/1B6BDA0\tno recovery"] {
        fs::write(&path, cut).unwrap();
        answers(&sandbox, "00000002.history", &[], 221, &["00000002.history", "cut"]);
    }
    fs::write(&path, "1\t0/1B6BDA0\tno recovery target specified\n").unwrap();
    sandbox.fetch("00000002.history", &[]).succeeds();
}

#[test]
fn a_segment_of_another_size_is_not_this_clusters() {
    let sandbox = archived(&[ONE]);
    let other = Control { size: size(16 * MIB), ..control(1, None) };
    write_control(&sandbox.data(), &other);
    answers(&sandbox, ONE, &[], 221, &[ONE, "1048576", "16777216"]);
    answers(&sandbox, TWO, &[], 220, &["segments of"]);
    // Without a control file that tells, the segments of pg_wal do.
    sandbox.make_data_directory("data", CLUSTER);
    answers(&sandbox, ONE, &[], 0, &[]);
    let large = "000000010000000000000009";
    sandbox.wal(large, &segment(large, 16 * MIB, CLUSTER, 1));
    answers(&sandbox, ONE, &[], 221, &[ONE, "1048576", "16777216"]);
}

#[test]
fn hints_name_what_is_to_be_done() {
    let sandbox = archived(&[ONE, TWO, THREE]);
    let object = fs::read(sandbox.object(TWO)).unwrap();
    fs::remove_file(sandbox.object(TWO)).unwrap();
    answers(&sandbox, TWO, &[], 224, &["HINT:", "recovery_prefetch = off"]);
    fs::write(sandbox.object(TWO), &object[..1000]).unwrap();
    answers(&sandbox, TWO, &[], 221, &["HINT:", "recovery_prefetch = off"]);
    fs::write(sandbox.archive().join(format!("wal_005/{FIVE}.tmp")), "left behind").unwrap();
    let run = sandbox.fetch_now(FIVE, &[]);
    let (_, hint) = run.stderr.split_once("HINT:").unwrap_or_else(|| panic!("{run:?}"));
    assert!(run.code == Some(220) && hint.contains(&format!("{FIVE}.tmp")), "{run:?}");
}

#[test]
fn one_destination_that_lacks_proof_takes_the_answer_from_all() {
    let sandbox = archived(&[ONE, TWO]);
    let second = sandbox.path("second");
    fs::create_dir(&second).unwrap();
    let ask = |name: &str| sandbox.fetch_now(name, &["--archive", second.to_str().unwrap()]);
    ask(THREE).fails(220, &["second", "holds no WAL file"]);
    fs::remove_dir(&second).unwrap();
    copy(&sandbox.archive(), &second);
    assert_eq!(ask(THREE).code, Some(1));
    // A hole is told although another destination is away, and before it.
    fs::remove_file(sandbox.object(ONE)).unwrap();
    fs::remove_dir_all(&second).unwrap();
    let run = ask(ONE).fails(224, &["a hole", ONE, TWO]);
    assert!(run.stderr.contains("cannot open the archive's root"), "{run:?}");
    fs::remove_file(sandbox.object(TWO)).unwrap();
    ask(ONE).fails(220, &["cannot open the archive's root"]);
    // What the second one has of later WAL counts for what the first one lacks.
    copy(&sandbox.archive(), &second);
    fs::write(second.join(format!("wal_005/{FIVE}.zst")), "x").unwrap();
    fs::write(sandbox.object(ONE), "damaged").unwrap();
    ask(TWO).fails(224, &["a hole", TWO, FIVE, "second"]);
}

fn copy(from: &Path, to: &Path) {
    assert!(std::process::Command::new("cp").arg("-a").arg(from).arg(to).status().unwrap().success());
}

#[test]
fn an_outage_is_waited_for_where_a_failure_would_stop_the_server() {
    let sandbox = archived(&[ONE]);
    let away = sandbox.path("away");
    fs::rename(sandbox.archive(), &away).unwrap();
    // A standby asks again by itself.
    sandbox.fetch(ONE, &["--on-error", "retry"]).fails(20, &["cannot open the archive's root"]);
    let come_back = || fs::rename(&away, sandbox.archive()).unwrap();
    let run = sandbox.fetch_waiting(ONE, &[], come_back).fails(0, &["warning", ONE, "asked for again"]);
    let told = run.stderr.lines().filter(|line| line.contains("asked for again")).count();
    assert_eq!(told, 1, "{run:?}");
    assert!(sandbox.fetched() == segment(ONE, MIB, CLUSTER, 1));
}

#[test]
fn a_hole_is_waited_for_once_and_then_told_to_a_standby_at_once() {
    let sandbox = archived(&[ONE, TWO]);
    fs::remove_file(sandbox.object(ONE)).unwrap();
    let retry = ["--on-error", "retry", "--timeout", "8s"];
    let first = sandbox.fetch(ONE, &retry).fails(24, &["a hole", ONE, TWO]);
    assert!(first.stderr.contains("asked for again"), "{first:?}");
    let second = sandbox.fetch(ONE, &retry).fails(24, &["a hole", ONE, TWO]);
    assert!(!second.stderr.contains("asked for again"), "{second:?}");
    assert!(names(&sandbox.path("data.wal-spool")).contains(&"holes".to_owned()));
    // A failure that stops a server is never answered from memory.
    let abort = sandbox.fetch(ONE, &["--timeout", "8s"]).fails(224, &["a hole", ONE, TWO]);
    assert!(abort.stderr.contains("asked for again"), "{abort:?}");
}

#[test]
fn the_form_and_the_identity_are_those_of_one_data_directory() {
    let sandbox = archived(&[ONE]);
    let standby = sandbox.make_data_directory("standby", CLUSTER);
    fs::write(standby.join("standby.signal"), "").unwrap();
    let ask = |working: &Path, target: &Path| {
        let run = unless_late(&NOW, |timeout| {
            let mut command = sandbox.program("wal-fetch");
            command.current_dir(working).arg("--archive").arg(sandbox.path("gone"));
            command.args(["--timeout", timeout, TWO]);
            Run::of(command.arg(target.join("pg_wal/RECOVERYXLOG")))
        });
        run.code
    };
    assert_eq!(ask(&sandbox.data(), &standby), Some(20));
    assert_eq!(ask(&standby, &sandbox.data()), Some(220));
    assert_eq!(ask(Path::new("/"), &standby), Some(20));
}

#[test]
fn decoding_ends_at_the_deadline() {
    let sandbox = archived(&[ONE]);
    // Members without content: gzip makes nothing of them, and there is always a next one.
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), flate2::Compression::fast());
    std::io::Write::write_all(&mut encoder, b"").unwrap();
    let member = encoder.finish().unwrap();
    fs::write(sandbox.archive().join(format!("wal_005/{TWO}.gz")), member.repeat(3_000_000)).unwrap();
    sandbox.fetch(TWO, &["--timeout", "300ms"]).fails(223, &["in time"]);
}
