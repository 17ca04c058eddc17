//! Every exit code of wal-push, and what it does to the archive.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, hang, names, segment};
use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";

#[test]
fn all_four_kinds_are_stored_silently_and_again() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let partial = format!("{TWO}.partial");
    sandbox.wal(&partial, &segment(TWO, MIB, CLUSTER, 2));
    let backup = format!("{ONE}.00000028.backup");
    sandbox.wal(
        &backup,
        format!(
            "START WAL LOCATION: 0/100028 (file {ONE})\nSTOP WAL LOCATION: 0/100100 (file {ONE})\n\
                 START TIME: x\nLABEL: x\nSTOP TIME: x\n"
        )
        .as_bytes(),
    );
    sandbox.wal("00000002.history", b"1\t0/2000000\tno recovery target specified\n");
    for _ in 0..2 {
        for name in [ONE, &partial, &backup, "00000002.history"] {
            sandbox.push(name, &[]).succeeds();
        }
    }
    let stored: Vec<_> =
        [&backup, ONE, &partial, "00000002.history"].map(|name| format!("{name}.zst")).into();
    assert_eq!(sandbox.objects(), stored);
    let identity = fs::read_to_string(sandbox.archive().join("archive.json")).unwrap();
    assert_eq!(
        identity,
        format!(
            "{{\"wal-archive\":1,\"system_id\":\"{CLUSTER}\",\"segment_size\":{MIB},\"foreign\":false}}\n"
        )
    );
}

#[test]
fn stock_tools_read_an_object() {
    let sandbox = Sandbox::new();
    let content = sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    let object = sandbox.object(ONE);
    let shell = |script: &str| {
        let run = Run::of(Command::new("sh").args(["-euc", script, "sh"]).arg(&object));
        assert_eq!(run.code, Some(0), "{run:?}");
        run.stdout.trim().to_owned()
    };
    let sum = shell("zstd -dcq \"$1\" | sha256sum | cut -d' ' -f1");
    assert_eq!(sum, shell("tail -c 248 \"$1\" | jq -r .sha256"));
    assert_eq!(sum, wal_archive::object::Sha256Sum::of(&content).to_string());
    assert_eq!(
        shell("tail -c 248 \"$1\" | jq -r '\"\\(.name) \\(.size) \\(.system_id)\"'"),
        format!("{ONE} {MIB} {CLUSTER}")
    );
    let frame: u64 = shell("tail -c 248 \"$1\" | jq .frame").parse().unwrap();
    assert_eq!(frame + 256, fs::metadata(&object).unwrap().len());
}

#[test]
fn what_is_made_is_readable_by_the_group_whatever_the_umask() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    let mode = |path| fs::metadata(path).unwrap().permissions().mode() & 0o777;
    assert_eq!(mode(sandbox.object(ONE)), 0o640);
    assert_eq!(mode(sandbox.archive().join("archive.json")), 0o640);
    assert_eq!(mode(sandbox.archive().join("wal_005")), 0o750);
    assert_eq!(mode(sandbox.path("data.wal-spool")), 0o700);
}

#[test]
fn what_root_makes_belongs_to_the_owner_of_the_root() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let sandbox = Sandbox::without_archive();
    std::os::unix::fs::chown(sandbox.archive(), Some(1234), Some(4321)).unwrap();
    sandbox.init();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    for path in
        [sandbox.object(ONE), sandbox.archive().join("archive.json"), sandbox.archive().join("wal_005")]
    {
        let metadata = fs::metadata(&path).unwrap();
        assert_eq!((metadata.uid(), metadata.gid()), (1234, 4321), "{}", path.display());
    }
}

#[test]
fn code_2_for_bad_arguments_and_configuration() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let run = |args: &[&str]| Run::of(sandbox.program("wal-push").args(args));
    run(&[]).fails(2, &["required", "HINT:"]);
    run(&["--no-such", "x"]).fails(2, &["--no-such", "HINT:"]);
    run(&[&format!("pg_wal/{ONE}")]).fails(2, &["no archive is named", "HINT:"]);
    run(&["--archive", "relative", &format!("pg_wal/{ONE}")]).fails(2, &["relative", "not an absolute path"]);
    run(&["--archive", "/x", "--level", "99", &format!("pg_wal/{ONE}")]).fails(2, &["--level", "99"]);
    run(&["--archive", "/x", "--config", "/no/such.toml", ONE])
        .fails(2, &["--config", "/no/such.toml", "cannot read"]);
    for name in
        ["RECOVERYXLOG", "00000001000000000000001b", "0000000100000000000000010", "x.zst", "archive_status"]
    {
        sandbox.push(name, &[]).fails(2, &[name, "not the name of a WAL file"]);
    }
    let inside = sandbox.data().join("archive");
    run(&["--archive", inside.to_str().unwrap(), &format!("pg_wal/{ONE}")])
        .fails(2, &["inside the data directory", "HINT:"]);
    assert!(sandbox.objects().is_empty());
}

#[test]
fn help_and_version_are_no_failures() {
    let sandbox = Sandbox::new();
    for (program, word) in [("wal-push", "%p"), ("wal-fetch", "%f %p"), ("wal-archive", "config")] {
        let help = Run::of(sandbox.program(program).arg("--help"));
        assert!(help.code == Some(0) && help.stdout.contains(word) && help.stderr.is_empty(), "{help:?}");
        let version = Run::of(sandbox.program(program).arg("--version"));
        assert_eq!(
            (version.code, version.stdout.trim()),
            (Some(0), &*format!("{program} {}", env!("CARGO_PKG_VERSION")))
        );
    }
}

#[test]
fn code_10_where_the_source_cannot_be_read() {
    let sandbox = Sandbox::new();
    sandbox.push(ONE, &[]).fails(10, &["cannot read", ONE]);
    fs::create_dir(sandbox.data().join("pg_wal").join(ONE)).unwrap();
    sandbox.push(ONE, &[]).fails(10, &["not a regular file"]);
    assert!(sandbox.objects().is_empty(), "nothing was created");
}

#[test]
fn code_10_where_the_source_changes_while_it_is_read() {
    let sandbox = Sandbox::with_segments_of(64 * MIB);
    let path = sandbox.wal(ONE, &segment(ONE, 64 * MIB, CLUSTER, 1));
    let push_while_it_changes = || {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            let file = fs::OpenOptions::new().write(true).open(&path).unwrap();
            let done = &done;
            scope.spawn(move || {
                while !done.load(Ordering::Relaxed) {
                    file.set_modified(SystemTime::now()).unwrap();
                    std::thread::sleep(Duration::from_millis(1));
                }
            });
            let run = sandbox.push(ONE, &[]);
            done.store(true, Ordering::Relaxed);
            run
        })
    };
    // On a busy machine the file may stay the same all the while.
    let unchanged = |run: &Run| {
        let unchanged = run.code == Some(0);
        if unchanged {
            fs::remove_file(sandbox.object(ONE)).unwrap();
        }
        unchanged
    };
    let mut runs = std::iter::repeat_with(push_while_it_changes).take(50).skip_while(unchanged);
    let run = runs.next().expect("the file changes while it is read");
    run.fails(10, &["changed while it was read", "HINT:"]);
    assert!(sandbox.objects().is_empty(), "nothing was created");
    sandbox.push(ONE, &[]).succeeds();
}

#[test]
fn code_11_for_what_is_no_valid_wal_file_of_its_name() {
    let sandbox = Sandbox::new();
    let good = segment(ONE, MIB, CLUSTER, 1);
    let cases: [(&str, &str, Vec<u8>); 8] = [
        ("empty", ONE, Vec::new()),
        ("100 bytes of junk", ONE, vec![7; 100]),
        ("a stump", ONE, good[..MIB / 2].to_vec()),
        ("too long", ONE, [&good[..], &good].concat()),
        ("all zero", ONE, vec![0; MIB]),
        ("under another name", TWO, good.clone()),
        ("junk as partial", &format!("{ONE}.partial"), vec![7; MIB]),
        ("a later timeline's", ONE, segment("000000020000000000000001", MIB, CLUSTER, 1)),
    ];
    for (case, name, content) in &cases {
        sandbox.wal(name, content);
        let run = sandbox.push(name, &[]);
        assert!(run.code == Some(11) && run.stderr.contains("not a valid"), "{case}: {run:?}");
    }
    for content in [&b""[..], b"junk\n", b"2\t0/1\tx\n"] {
        sandbox.wal("00000002.history", content);
        sandbox.push("00000002.history", &[]).fails(11, &["00000002.history", "not a valid"]);
    }
    assert!(sandbox.objects().is_empty(), "nothing was created");
}

#[test]
fn a_segment_whose_tail_is_garbage_is_legitimate() {
    // A cascading archive_mode=always standby archives such a file (walreceiver.c).
    let sandbox = Sandbox::new();
    let mut content = segment(ONE, MIB, CLUSTER, 1);
    content[MIB / 2..].copy_from_slice(&crate::util::noise(9, MIB / 2));
    sandbox.wal(ONE, &content);
    sandbox.push(ONE, &[]).succeeds();
    sandbox.fetch(ONE, &[]).succeeds();
    assert!(sandbox.fetched() == content);
}

#[test]
fn a_backup_history_that_makes_no_sense_is_stored_with_a_warning() {
    // PostgreSQL writes it without fsync and never reads it: it must not block what follows.
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let name = format!("{ONE}.00000028.backup");
    sandbox.wal(&name, b"");
    let run = sandbox.push(&name, &[]).fails(0, &["warning", &name, "archived all the same"]);
    assert_eq!(run.stderr.lines().count(), 1);
    sandbox.fetch(&name, &[]).succeeds();
    assert!(sandbox.fetched().is_empty());
}

#[test]
fn code_11_for_a_file_of_another_cluster_than_the_data_directory() {
    let sandbox = Sandbox::new();
    sandbox.wal(ONE, &segment(ONE, MIB, 42, 1));
    sandbox.push(ONE, &[]).fails(11, &["42", &CLUSTER.to_string(), "pg_upgrade", "HINT:"]);
    assert!(sandbox.objects().is_empty());
}

#[test]
fn code_11_for_the_archive_of_another_cluster_or_segment_size_for_every_kind() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    let other = sandbox.make_data_directory("other", 42);
    let push = |name: &str, content: &[u8]| {
        fs::write(other.join("pg_wal").join(name), content).unwrap();
        let archive = sandbox.archive();
        let path = other.join("pg_wal").join(name);
        Run::of(sandbox.program("wal-push").current_dir(&other).arg("--archive").arg(archive).arg(path))
    };
    let both = ["42", &CLUSTER.to_string(), "system identifier", "HINT:"];
    push(TWO, &segment(TWO, MIB, 42, 1)).fails(11, &both);
    push(&format!("{TWO}.partial"), &segment(TWO, MIB, 42, 1)).fails(11, &both);
    push("00000002.history", b"1\t0/1\tx\n").fails(11, &both);
    push(&format!("{TWO}.00000028.backup"), b"").fails(11, &both);
    assert_eq!(sandbox.objects(), [format!("{ONE}.zst")]);

    let two = "000000010000000000000002";
    sandbox.wal(two, &segment(two, 2 * MIB, CLUSTER, 1));
    sandbox.push(two, &[]).fails(11, &["1 MiB", "2 MiB", "pg_resetwal", "HINT:"]);
}

#[test]
fn a_lost_identity_is_not_replaced_by_another_clusters() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    fs::remove_file(sandbox.archive().join("archive.json")).unwrap();
    let other = sandbox.make_data_directory("other", 42);
    let path = other.join("pg_wal").join(TWO);
    fs::write(&path, segment(TWO, MIB, 42, 1)).unwrap();
    let push = Run::of(
        sandbox.program("wal-push").current_dir(&other).arg("--archive").arg(sandbox.archive()).arg(path),
    );
    push.fails(11, &["42", &CLUSTER.to_string(), "holds WAL of"]);
}

#[test]
fn code_12_for_a_different_file_of_the_same_name() {
    let sandbox = Sandbox::new();
    let first = sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    let before = fs::read(sandbox.object(ONE)).unwrap();
    sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 2));
    let words = ["already exists", &CLUSTER.to_string(), "timeline 1", "HINT:", "nothing was overwritten"];
    for _ in 0..2 {
        sandbox.push(ONE, &[]).fails(12, &words);
    }
    assert!(fs::read(sandbox.object(ONE)).unwrap() == before);
    sandbox.fetch(ONE, &[]).succeeds();
    assert!(sandbox.fetched() == first);

    sandbox.wal("00000002.history", b"1\t0/1\tx\n");
    sandbox.push("00000002.history", &[]).succeeds();
    sandbox.wal("00000002.history", b"1\t0/2\tx\n");
    sandbox.push("00000002.history", &[]).fails(12, &["00000002.history", "already exists"]);
}

#[test]
fn code_12_for_a_damaged_object_with_the_way_out() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    let len = fs::metadata(sandbox.object(ONE)).unwrap().len() as usize;
    for bit in [len * 4, (len - 300) * 8] {
        flip(&sandbox.object(ONE), bit);
        sandbox.push(ONE, &[]).fails(12, &["damaged", "HINT:", &format!("\"wal-archive quarantine {ONE}\"")]);
        flip(&sandbox.object(ONE), bit);
    }
    fs::write(sandbox.object(ONE), b"").unwrap();
    sandbox.push(ONE, &[]).fails(12, &["damaged"]);
    fs::remove_file(sandbox.object(ONE)).unwrap();
    sandbox.push(ONE, &[]).succeeds();
}

#[test]
fn the_same_content_at_another_level_or_without_trailer_is_identical() {
    let sandbox = Sandbox::new();
    let content = sandbox.segment(ONE);
    sandbox.push(ONE, &["--level", "9"]).succeeds();
    sandbox.push(ONE, &["--level", "-5"]).succeeds();
    fs::write(sandbox.object(ONE), zstd::encode_all(&content[..], 1).unwrap()).unwrap();
    sandbox.push(ONE, &[]).succeeds();
}

#[test]
fn a_different_partial_segment_is_stored_beside_the_first() {
    let sandbox = Sandbox::new();
    let name = format!("{ONE}.partial");
    let contents: Vec<_> = (1..=3).map(|seed| segment(ONE, MIB, CLUSTER, seed)).collect();
    sandbox.wal(&name, &contents[0]);
    sandbox.push(&name, &[]).succeeds();
    for content in &contents[1..] {
        sandbox.wal(&name, content);
        for _ in 0..2 {
            let run = sandbox.push(&name, &[]).fails(0, &["warning", "stored beside it"]);
            assert_eq!(run.stderr.lines().count(), 1);
        }
    }
    let mut expected = vec![format!("{name}.zst")];
    for content in &contents[1..] {
        let sum = wal_archive::object::Sha256Sum::of(content).short();
        expected.push(format!("{name}.{sum}.zst"));
    }
    expected.sort();
    assert_eq!(sandbox.objects(), expected);
    sandbox.wal(&name, &contents[0]);
    sandbox.push(&name, &[]).succeeds();
    sandbox.fetch(&name, &[]).succeeds();
    assert!(sandbox.fetched() == contents[0]);
}

#[test]
fn code_13_where_the_root_does_not_exist_and_nothing_is_created() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    fs::remove_dir_all(sandbox.archive()).unwrap();
    let install = format!("install -d -o postgres -m 0750 {}", sandbox.archive().display());
    sandbox.push(ONE, &[]).fails(13, &["cannot open the archive's root", "HINT:", "mount", &install]);
    assert!(!sandbox.archive().exists());
}

#[test]
fn code_13_where_a_known_archive_is_suddenly_empty() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    sandbox.segment(TWO);
    sandbox.push(ONE, &[]).succeeds();
    // What an unmounted disk looks like: the bare mount point.
    fs::rename(sandbox.archive(), sandbox.path("disk")).unwrap();
    fs::create_dir(sandbox.archive()).unwrap();
    for name in [ONE, TWO] {
        sandbox.push(name, &[]).fails(13, &["not the archive that was there before", "HINT:", "mount"]);
    }
    assert!(sandbox.objects().is_empty(), "nothing was created below the mount point");
    fs::remove_dir(sandbox.archive()).unwrap();
    fs::rename(sandbox.path("disk"), sandbox.archive()).unwrap();
    sandbox.push(TWO, &[]).succeeds();
}

#[test]
fn without_a_spool_everything_works() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    // A file where the spool would be.
    fs::write(sandbox.path("data.wal-spool"), "").unwrap();
    sandbox.push(ONE, &[]).succeeds();
    sandbox.push(ONE, &[]).succeeds();
    let elsewhere = sandbox.path("spool");
    sandbox.push(ONE, &["--spool-dir", elsewhere.to_str().unwrap()]).succeeds();
    assert_eq!(names(&elsewhere).len(), 1);
}

#[test]
fn every_destination_is_tried_and_the_gravest_failure_counts() {
    let sandbox = Sandbox::new();
    let content = sandbox.segment(ONE);
    let [good, conflicting] = ["good", "conflicting"].map(|name| sandbox.make_archive(name));
    let gone = sandbox.path("gone");
    let push = |roots: &[&std::path::Path]| {
        let mut command = sandbox.program("wal-push");
        for root in roots {
            command.arg("--archive").arg(root);
        }
        Run::of(command.arg(format!("pg_wal/{ONE}")))
    };
    push(&[&gone, &good]).fails(13, &["gone"]);
    assert!(good.join(format!("wal_005/{ONE}.zst")).exists(), "the good one was tried all the same");
    sandbox.make_archive("gone");
    push(&[&gone, &good]).succeeds();
    assert!(gone.join(format!("wal_005/{ONE}.zst")).exists(), "the repeat finished it");

    sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 2));
    push(&[&conflicting]).succeeds();
    sandbox.wal(ONE, &content);
    fs::remove_dir_all(&gone).unwrap();
    let fresh = sandbox.make_archive("fresh");
    push(&[&gone, &conflicting, &fresh]).fails(12, &["conflicting", "different content"]);
    assert!(!fresh.join(format!("wal_005/{ONE}.zst")).exists(), "the archive would be of two servers");
    flip(&conflicting.join(format!("wal_005/{ONE}.zst")), 100 * 8);
    let run = push(&[&gone, &conflicting, &fresh]).fails(12, &["conflicting", "damaged"]);
    assert!(run.stderr.contains("gone"), "every failure is told: {run:?}");
    assert!(fresh.join(format!("wal_005/{ONE}.zst")).exists());
}

#[test]
fn a_write_protected_root_is_refused_with_what_to_do() {
    if fs::metadata("/proc/self").unwrap().uid() == 0 {
        // Permissions do not stop root; a directory in the object's place refuses everybody.
        let sandbox = Sandbox::new();
        sandbox.segment(ONE);
        fs::create_dir_all(sandbox.object(ONE)).unwrap();
        sandbox.push(ONE, &[]).fails(13, &["not a regular file"]);
        return;
    }
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    fs::set_permissions(sandbox.archive(), fs::Permissions::from_mode(0o500)).unwrap();
    sandbox.push(ONE, &[]).fails(13, &["Permission denied", "HINT:"]);
}

#[test]
fn code_14_where_a_destination_hangs_and_the_others_are_done_all_the_same() {
    let sandbox = Sandbox::new();
    sandbox.segment(ONE);
    let hung = sandbox.path("hung");
    fs::create_dir(&hung).unwrap();
    hang(&hung.join("archive.json"));
    let run = sandbox.push(ONE, &["--archive", hung.to_str().unwrap(), "--timeout", "8s"]);
    run.fails(14, &["hung", "did not answer in time"]);
    assert!(sandbox.object(ONE).exists());
}

#[test]
fn a_history_file_may_be_the_first_of_an_archive() {
    // Nothing beside it tells the segment size, nor, without a data directory, the cluster.
    for data_directory in [true, false] {
        let sandbox = Sandbox::new();
        sandbox.wal("00000002.history", b"1\t0/2000000\tx\n");
        if !data_directory {
            fs::remove_file(sandbox.data().join("PG_VERSION")).unwrap();
        }
        sandbox.push("00000002.history", &[]).succeeds();
        sandbox.push("00000002.history", &["--no-header-check"]).succeeds();
        sandbox.segment(ONE);
        sandbox.push(ONE, &[]).succeeds();
    }
}

#[test]
fn a_stale_temporary_file_is_swept_and_a_fresh_one_is_not() {
    let sandbox = Sandbox::new();
    let folder = sandbox.archive().join("wal_005");
    fs::create_dir(&folder).unwrap();
    for (name, hours) in [(".wal-archive.old.tmp", 25), (".wal-archive.new.tmp", 1), (".stranger.tmp", 99)] {
        let file = fs::File::create(folder.join(name)).unwrap();
        file.set_modified(SystemTime::now() - Duration::from_secs(hours * 3600)).unwrap();
    }
    sandbox.segment(ONE);
    sandbox.push(ONE, &[]).succeeds();
    assert_eq!(sandbox.objects(), [".stranger.tmp", ".wal-archive.new.tmp", &format!("{ONE}.zst")]);
}

#[test]
fn encrypted_wal_of_a_fork_is_stored_without_a_look_at_its_pages() {
    let sandbox = Sandbox::new();
    let content = crate::util::noise(5, MIB);
    sandbox.wal(ONE, &content);
    sandbox.push(ONE, &[]).fails(11, &["not a valid"]);
    sandbox.push(ONE, &["--no-header-check"]).succeeds();
    sandbox.fetch(ONE, &[]).fails(221, &["damaged"]);
    sandbox.fetch(ONE, &["--no-header-check"]).succeeds();
    assert!(sandbox.fetched() == content);
    sandbox.wal(TWO, &content[..MIB - 8192]);
    sandbox.push(TWO, &["--no-header-check"]).fails(11, &["no size of a segment"]);
}

#[test]
fn a_pipe_in_the_place_of_the_file_is_refused_at_once() {
    let sandbox = Sandbox::new();
    hang(&sandbox.data().join("pg_wal").join(ONE));
    sandbox.push(ONE, &["--timeout", "1h"]).fails(10, &["is not a regular file"]);
}
