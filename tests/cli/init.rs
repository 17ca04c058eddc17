//! `wal-archive init`: the only way to a new archive, but for the takeover of other tools' archives.

use crate::foreign::{archive_of, wal};
use crate::util::{CLUSTER, MIB, Run, Sandbox, init_arguments, names, segment};
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

const ONE: &str = "000000010000000000000001";
const NEXT: &str = "00000002000000000000001D";
const IDENTITY: &str = "archive.json";

fn init(sandbox: &Sandbox, args: &[&str]) -> Run {
    Run::of(sandbox.program("wal-archive").arg("init").args(args))
}

/// For [`CLUSTER`] with segments of a MiB.
fn init_at(sandbox: &Sandbox, place: &Path) -> Run {
    Run::of(sandbox.program("wal-archive").args(init_arguments(MIB)).arg(place))
}

/// What was printed, with the archive's path left out.
fn told(run: &Run, sandbox: &Sandbox) -> String {
    format!("{}{}", run.stdout, run.stderr).replace(sandbox.archive().to_str().unwrap(), "/archive")
}

/// A data directory with the control file of a real server: its id, and segments of 64 MiB.
fn with_a_real_control_file(sandbox: &Sandbox) {
    let control = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/vectors/control/postgresql-15");
    fs::copy(control, sandbox.data().join("global/pg_control")).unwrap();
}

#[test]
fn a_new_archive_has_the_id_and_segment_size_of_the_control_file() {
    let sandbox = Sandbox::without_archive();
    with_a_real_control_file(&sandbox);
    let place = sandbox.archive();
    let place = place.to_str().unwrap();
    let of = "archive of the cluster with system identifier 7712325805637208912, segments of 64 MiB";
    for (args, expected) in [
        // The working directory is the data directory.
        (vec![place], format!("\"/archive\" is now the {of}\n")),
        (vec!["--pgdata", ".", place], format!("\"/archive\" was already the {of}; nothing to do\n")),
        (vec!["--archive", place], format!("\"/archive\" was already the {of}; nothing to do\n")),
    ] {
        let run = init(&sandbox, &args);
        assert_eq!((told(&run, &sandbox), run.code), (expected, Some(0)), "{run:?}");
    }
    let identity = fs::read_to_string(sandbox.archive().join(IDENTITY)).unwrap();
    assert_eq!(
        identity,
        "{\"wal-archive\":1,\"system_id\":\"7712325805637208912\",\"segment_size\":67108864,\"foreign\":false}\n"
    );
    assert_eq!(names(&sandbox.archive()), [IDENTITY], "the first object makes wal_005");
    assert!(!sandbox.path("data.wal-spool").exists(), "whoever runs it leaves no spool to PostgreSQL's user");
}

#[test]
fn every_configured_destination_becomes_an_archive_and_one_that_fails_stops_no_other() {
    let sandbox = Sandbox::without_archive();
    let [good, gone] = ["good", "gone"].map(|name| sandbox.path(name));
    fs::create_dir(&good).unwrap();
    let run = || {
        let mut command = sandbox.program("wal-archive");
        command.env("WAL_ARCHIVE", format!("{},{}", gone.display(), good.display()));
        Run::of(command.args(init_arguments(MIB)))
    };
    let failed = run().says(2, &["good\" is now the archive"]);
    let install = format!("install -d -o postgres -m 0750 {}", gone.display());
    assert!(failed.stderr.contains("cannot open the archive's root") && failed.stderr.contains(&install));
    fs::create_dir(&gone).unwrap();
    run().says(0, &["good\" was already the archive"]).says(0, &["gone\" is now the archive"]);
}

#[test]
fn a_push_makes_no_archive_with_a_spool_or_without_one() {
    for spool in ["data.wal-spool", "no/parent"] {
        let sandbox = Sandbox::without_archive();
        sandbox.segment(ONE);
        sandbox.wal("00000002.history", b"1\t0/2000000\tx\n");
        let spool = sandbox.path(spool);
        let args = ["--spool-dir", spool.to_str().unwrap()];
        for name in [ONE, "00000002.history"] {
            let run = sandbox.push(name, &args);
            assert_eq!(
                (told(&run, &sandbox), run.code),
                (
                    "wal-push: error: \"/archive\" is not an archive: it has no \"archive.json\" HINT: mount its disk or \
                     correct the path; for a new archive run: wal-archive init /archive\n"
                        .to_owned(),
                    Some(13)
                )
            );
        }
        assert!(names(&sandbox.archive()).is_empty());
        sandbox.init();
        sandbox.push(ONE, &args).succeeds();
        // The disk is not mounted, and no spool remembers that it should be.
        fs::rename(sandbox.archive(), sandbox.path("disk")).unwrap();
        fs::create_dir(sandbox.archive()).unwrap();
        sandbox.push(ONE, &args).fails(13, &["no \"archive.json\"", "HINT: mount its disk"]);
        assert!(names(&sandbox.archive()).is_empty());
    }
}

#[test]
fn without_a_data_directory_the_cluster_is_named() {
    // pg_receivewal's host, or a fork with encrypted WAL: files there do not say whose they are.
    let sandbox = Sandbox::without_archive();
    fs::remove_file(sandbox.data().join("PG_VERSION")).unwrap();
    let place = sandbox.archive();
    let place = place.to_str().unwrap();
    init(&sandbox, &[place]).fails(2, &["which cluster", "HINT:", "--pgdata", "--system-id"]);
    init(&sandbox, &["--system-id", "7", place]).fails(2, &["--segment-size"]);
    init(&sandbox, &["--segment-size", "16MB", place]).fails(2, &["--system-id"]);
    init(&sandbox, &["--system-id", "7", "--segment-size", "16", place]).fails(2, &["such as 16MB"]);
    init(&sandbox, &["--system-id", "x", "--segment-size", "16MB", place]).fails(2, &["--system-id"]);
    assert!(names(&sandbox.archive()).is_empty());
    assert_eq!(init_at(&sandbox, &sandbox.archive()).code, Some(0));
    sandbox.wal("00000002.history", b"1\t0/2000000\tx\n");
    sandbox.push("00000002.history", &[]).succeeds();
    sandbox.wal(ONE, &crate::util::noise(5, MIB));
    sandbox.push(ONE, &["--no-header-check"]).succeeds();
}

#[test]
fn code_1_for_the_archive_of_another_cluster_or_segment_size() {
    let sandbox = Sandbox::new();
    let before = fs::read(sandbox.archive().join(IDENTITY)).unwrap();
    let place = sandbox.archive();
    let run = |id: u64, size| {
        init(&sandbox, &["--system-id", &id.to_string(), "--segment-size", size, place.to_str().unwrap()])
    };
    run(42, "1MB").fails(1, &["is the archive of the cluster", &CLUSTER.to_string(), "42", "HINT:"]);
    run(CLUSTER, "16MB").fails(1, &["segments of 1 MiB", "16 MiB", "HINT:", "pg_resetwal"]);
    assert!(fs::read(sandbox.archive().join(IDENTITY)).unwrap() == before);
    fs::write(sandbox.archive().join(IDENTITY), "{").unwrap();
    run(CLUSTER, "1MB").fails(2, &["cannot be understood", "HINT:"]);
}

#[test]
fn bad_usage_ends_with_2() {
    let sandbox = Sandbox::without_archive();
    with_a_real_control_file(&sandbox);
    init(&sandbox, &[]).fails(2, &["no archive is named", "HINT:"]);
    init(&sandbox, &["relative"]).fails(2, &["not an absolute path"]);
    init(&sandbox, &["--pgdata", "/nonexistent", "/x"]).fails(2, &["is not a data directory", "HINT:"]);
    let inside = sandbox.data().join("archive");
    fs::create_dir(&inside).unwrap();
    init(&sandbox, &[inside.to_str().unwrap()]).fails(2, &["inside the data directory", "HINT:"]);
    assert!(names(&inside).is_empty());
    fs::remove_file(sandbox.data().join("global/pg_control")).unwrap();
    let place = sandbox.archive();
    init(&sandbox, &[place.to_str().unwrap()]).fails(2, &["pg_control", "it is not there", "HINT:"]);
    assert!(names(&sandbox.archive()).is_empty());
}

#[test]
fn other_tools_archive_of_this_cluster_is_taken_over_by_init_as_by_the_first_push() {
    for fixture in ["wal-g-lz4", "wal-g-zstd", ""] {
        let sandbox = archive_of(fixture);
        let held = sandbox.objects();
        let run = init_at(&sandbox, &sandbox.archive());
        run.says(0, &["is now the archive", "what other tools stored there is read in place"]);
        let identity = fs::read_to_string(sandbox.archive().join(IDENTITY)).unwrap();
        assert!(identity.contains("\"foreign\":true"), "{fixture}: {identity}");
        for (name, content) in wal() {
            sandbox.wal(&name, &content);
            sandbox.push(&name, &[]).succeeds();
        }
        assert_eq!(sandbox.objects(), held, "{fixture}: identical files are not stored again");
    }
}

#[test]
fn other_tools_archive_is_taken_over_by_nobody_whose_it_is_not_or_may_not_be() {
    let sandbox = archive_of("wal-g-lz4");
    let place = sandbox.archive();
    let place = place.to_str().unwrap();
    init(&sandbox, &["--system-id", "42", "--segment-size", "1MB", place])
        .fails(1, &["holds WAL of the cluster", &CLUSTER.to_string(), "42", "HINT:"]);
    init(&sandbox, &["--system-id", &CLUSTER.to_string(), "--segment-size", "16MB", place])
        .fails(1, &["holds WAL of a cluster with segments of 1 MiB"]);
    // A file that does not tell its cluster, pushed where there is no data directory.
    fs::remove_file(sandbox.data().join("PG_VERSION")).unwrap();
    sandbox.wal("00000003.history", b"1\t0/2000000\tx\n");
    sandbox.push("00000003.history", &[]).fails(13, &["no \"archive.json\"", "wal-archive init"]);
    assert!(!sandbox.archive().join(IDENTITY).exists());
}

#[test]
fn a_place_that_the_spool_remembers_is_not_taken_over() {
    // The disk is not mounted, and what cp once stored below the mount point comes to light.
    let sandbox = archive_of("wal-g-lz4");
    sandbox.segment(NEXT);
    sandbox.push(NEXT, &[]).succeeds();
    fs::remove_file(sandbox.archive().join(IDENTITY)).unwrap();
    sandbox
        .push(NEXT, &[])
        .fails(13, &["not the archive that was there before", "mount", "wal-archive init"]);
    assert!(!sandbox.archive().join(IDENTITY).exists());
}

#[test]
fn of_racing_first_pushes_and_inits_each_succeeds() {
    for round in 0..crate::util::rounds("WAL_ARCHIVE_RACES", 20) {
        let sandbox = archive_of("wal-g-lz4");
        let names = ["00000002000000000000001D", "00000002000000000000001E"];
        for name in names {
            sandbox.wal(name, &segment(name, MIB, CLUSTER, 1));
        }
        std::thread::scope(|scope| {
            let pushes = names.map(|name| scope.spawn(|| sandbox.push(name, &[])));
            let inits = [(); 2].map(|()| scope.spawn(|| init_at(&sandbox, &sandbox.archive())));
            for run in pushes.into_iter().chain(inits) {
                let run = run.join().unwrap();
                assert_eq!(run.code, Some(0), "round {round}: {run:?}");
            }
        });
    }
}

#[test]
fn a_directory_that_postgresqls_user_cannot_write_is_warned_of() {
    if fs::metadata("/proc/self").unwrap().uid() != 0 {
        eprintln!("SKIPPED: needs root");
        return;
    }
    let sandbox = Sandbox::without_archive();
    with_a_real_control_file(&sandbox);
    std::os::unix::fs::chown(sandbox.data(), Some(1234), Some(1234)).unwrap();
    let place = sandbox.archive();
    let run = init(&sandbox, &[place.to_str().unwrap()]).says(0, &["is now the archive"]);
    assert!(run.stderr.contains("HINT: chown -R --reference="), "{run:?}");
    std::os::unix::fs::chown(sandbox.archive(), Some(1234), Some(1234)).unwrap();
    let run = init(&sandbox, &[place.to_str().unwrap()]).says(0, &["was already"]);
    assert!(run.stderr.is_empty(), "{run:?}");
}

#[test]
fn json_says_what_became_of_each_destination() {
    let sandbox = Sandbox::new();
    let fresh = sandbox.path("fresh");
    fs::create_dir(&fresh).unwrap();
    let mut command = sandbox.program("wal-archive");
    command.args(init_arguments(MIB)).arg(sandbox.archive()).arg(&fresh).arg(sandbox.path("gone"));
    let run = Run::of(command.arg("--json"));
    assert_eq!(run.code, Some(2));
    let json: serde_json::Value = serde_json::from_str(&run.stdout).unwrap();
    let outcomes: Vec<_> =
        json["destinations"].as_array().unwrap().iter().map(|row| row["outcome"].as_str().unwrap()).collect();
    assert_eq!(outcomes, ["there", "made", "failed"]);
    assert_eq!(json["destinations"][0]["system_id"], CLUSTER.to_string());
    assert_eq!(json["destinations"][0]["segment_size"], MIB);
    assert!(json["destinations"][2]["message"].as_str().unwrap().contains("cannot open"));
}
