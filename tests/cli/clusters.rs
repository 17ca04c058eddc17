//! Several clusters in one configuration file: each call uses its own one's settings, or none.

use crate::prefetchers::prefetchers_of;
use crate::util::{CLUSTER, MIB, Run, Sandbox, names, says_state, segment};
use std::fs;
use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";
/// The system identifier of the second cluster.
const OTHER: u64 = CLUSTER + 1;

/// Two clusters, `main` in "data" and `crm` in "crm", with one file for both; their archives are not
/// made yet.
struct Machine {
    sandbox: Sandbox,
}

impl Machine {
    fn new() -> Self {
        let sandbox = Sandbox::without_archive();
        sandbox.make_data_directory("crm", OTHER);
        fs::create_dir(sandbox.path("crm-archive")).unwrap();
        let machine = Machine { sandbox };
        machine.configure(TWO_CLUSTERS);
        machine
    }

    /// With `@` for the sandbox.
    fn configure(&self, text: &str) {
        let folder = self.path("").display().to_string();
        fs::write(self.path("c.toml"), text.replace("@/", &folder)).unwrap();
    }

    fn path(&self, name: &str) -> PathBuf {
        self.sandbox.path(name)
    }

    /// A program in a directory, with the file for both.
    fn program(&self, name: &str, directory: &str) -> Command {
        let mut command = self.sandbox.program(name);
        command.env("WAL_ARCHIVE_CONFIG", self.path("c.toml")).current_dir(self.path(directory));
        command
    }

    fn run(&self, name: &str, directory: &str, args: &[&str]) -> Run {
        Run::of(self.program(name, directory).args(args))
    }

    fn admin(&self, args: &[&str]) -> Run {
        self.run("wal-archive", "", args)
    }

    /// Makes an archive of 1 MiB segments for each.
    fn init(&self) {
        for (cluster, id) in [("main", CLUSTER), ("crm", OTHER)] {
            let (id, size) = (id.to_string(), MIB.to_string());
            let run =
                self.admin(&["init", "--cluster", cluster, "--system-id", &id, "--segment-size", &size]);
            assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:?}");
        }
    }

    fn segment(&self, directory: &str, name: &str, cluster: u64) -> Vec<u8> {
        let content = segment(name, MIB, cluster, cluster);
        fs::write(self.path(directory).join("pg_wal").join(name), &content).unwrap();
        content
    }

    fn push(&self, directory: &str, name: &str, args: &[&str]) -> Run {
        self.run("wal-push", directory, &[args, &[&format!("pg_wal/{name}")]].concat())
    }

    fn fetch(&self, directory: &str, name: &str, args: &[&str]) -> Run {
        self.run("wal-fetch", directory, &[args, &[name, "pg_wal/RECOVERYXLOG"]].concat())
    }

    fn fetched(&self, directory: &str) -> Vec<u8> {
        let path = self.path(directory).join("pg_wal/RECOVERYXLOG");
        let content = fs::read(&path).unwrap();
        fs::remove_file(path).unwrap();
        content
    }

    fn objects(&self, archive: &str) -> Vec<String> {
        names(&self.path(archive).join("wal_005"))
    }

    /// Each has archived its first segment.
    fn archived() -> Self {
        let machine = Machine::new();
        machine.init();
        for (directory, cluster) in BOTH {
            machine.segment(directory, ONE, cluster);
            machine.push(directory, ONE, &[]).succeeds();
        }
        machine
    }
}

const BOTH: [(&str, u64); 2] = [("data", CLUSTER), ("crm", OTHER)];

const TWO_CLUSTERS: &str = "[cluster.main]\npgdata = \"@/data\"\narchive = \"@/archive\"\n\
                            [cluster.crm]\npgdata = \"@/crm\"\narchive = \"@/crm-archive\"\n";

#[test]
fn each_server_archives_into_its_own_clusters_archive_and_fetches_from_it() {
    let machine = Machine::archived();
    assert_eq!((machine.objects("archive").len(), machine.objects("crm-archive").len()), (1, 1));
    for (directory, cluster) in BOTH {
        machine.fetch(directory, ONE, &["--prefetch", "0"]).succeeds();
        assert!(machine.fetched(directory) == segment(ONE, MIB, cluster, cluster));
    }
}

#[test]
fn a_data_directory_that_fits_none_is_an_error_that_names_them_and_stores_nothing() {
    let machine = Machine::archived();
    machine.sandbox.make_data_directory("unlisted", CLUSTER);
    machine.segment("unlisted", TWO, CLUSTER);
    let (data, crm) = (machine.path("data"), machine.path("crm"));
    let words = [
        "no cluster of",
        "c.toml",
        "unlisted",
        "\"main\" is for",
        data.to_str().unwrap(),
        "\"crm\" is for",
        crm.to_str().unwrap(),
        "HINT:",
        "--cluster",
    ];
    machine.push("unlisted", TWO, &[]).fails(2, &words);
    machine.fetch("unlisted", ONE, &[]).fails(202, &words);
    machine.fetch("unlisted", ONE, &["--on-error", "retry"]).fails(2, &words);
    fs::write(machine.path("unlisted/standby.signal"), "").unwrap();
    machine.fetch("unlisted", ONE, &[]).fails(2, &words);
    machine.run("wal-archive", "unlisted", &["list"]).fails(2, &words);
    machine.run("wal-archive", "unlisted", &["verify"]).fails(2, &words);
    says_state(&machine.run("wal-archive", "unlisted", &["check"]), 2, &words);
    assert_eq!((machine.objects("archive").len(), machine.objects("crm-archive").len()), (1, 1));
    // Called from anywhere, nothing tells which is meant.
    machine
        .admin(&["list"])
        .fails(2, &["no data directory tells which cluster", "\"main\"", "\"crm\"", "HINT:"]);
}

#[test]
fn two_clusters_for_one_data_directory_are_an_error_that_names_them() {
    let machine = Machine::archived();
    std::os::unix::fs::symlink(machine.path("data"), machine.path("link")).unwrap();
    machine.configure(&TWO_CLUSTERS.replace("@/crm\"", "@/link\""));
    machine.segment("data", TWO, CLUSTER);
    let words = ["the clusters \"crm\" and \"main\"", "for one data directory", "HINT:"];
    machine.push("data", TWO, &[]).fails(2, &words);
    machine.fetch("data", ONE, &[]).fails(202, &words);
    machine.push("data", TWO, &["--cluster", "main"]).succeeds();
}

#[test]
fn a_cluster_is_named_by_flag_before_the_environment_before_the_data_directory() {
    let machine = Machine::archived();
    // A copy in a directory of its own, restored from the archive of crm.
    machine.sandbox.make_data_directory("copy", OTHER);
    machine.fetch("copy", ONE, &["--cluster", "crm", "--prefetch", "0"]).succeeds();
    assert!(machine.fetched("copy") == segment(ONE, MIB, OTHER, OTHER));
    let fetch = |args: &[&str]| {
        let mut command = machine.program("wal-fetch", "copy");
        command.env("WAL_ARCHIVE_CLUSTER", "crm").args(args).args([
            "--prefetch",
            "0",
            ONE,
            "pg_wal/RECOVERYXLOG",
        ]);
        Run::of(&mut command)
    };
    fetch(&[]).succeeds();
    machine.fetched("copy");
    // The flag wins, and the file of another cluster is refused as ever.
    fetch(&["--cluster", "main"]).fails(221, &["cluster"]);
    machine
        .fetch("data", ONE, &["--cluster", "other"])
        .fails(202, &["no cluster \"other\"", "\"crm\", \"main\"", "HINT:"]);
    machine
        .push("data", ONE, &["--cluster", "a b"])
        .fails(2, &["--cluster", "\"a b\" cannot be the name", "HINT:"]);
}

#[test]
fn the_only_cluster_needs_no_data_directory_unless_it_names_one() {
    let machine = Machine::archived();
    machine.sandbox.make_data_directory("unlisted", CLUSTER);
    machine.segment("unlisted", TWO, CLUSTER);
    machine.configure("[cluster.main]\npgdata = \"@/data\"\narchive = \"@/archive\"\n");
    machine.push("unlisted", TWO, &[]).fails(2, &["no cluster", "\"main\" is for"]);
    machine.configure("[cluster.main]\narchive = \"@/archive\"\n");
    machine.push("unlisted", TWO, &[]).succeeds();
    assert_eq!(machine.admin(&["list"]).code, Some(0));
}

#[test]
fn the_target_of_pg_rewind_chooses_the_cluster() {
    let machine = Machine::archived();
    let target = machine.path("crm").join("pg_wal").join(ONE);
    fs::remove_file(&target).unwrap();
    // pg_rewind may be run anywhere, in another cluster's directory, too.
    for directory in ["", "data"] {
        let path = target.to_str().unwrap();
        machine.run("wal-fetch", directory, &[ONE, path]).succeeds();
        assert!(fs::read(&target).unwrap() == segment(ONE, MIB, OTHER, OTHER));
    }
}

#[test]
fn a_call_that_names_its_archive_needs_no_cluster() {
    let machine = Machine::archived();
    let archive = machine.path("archive");
    let archive = archive.to_str().unwrap();
    assert_eq!(machine.admin(&["list", "--archive", archive]).code, Some(0));
    assert_eq!(
        Run::of(machine.program("wal-archive", "").env("WAL_ARCHIVE", archive).arg("list")).code,
        Some(0)
    );
    machine.sandbox.make_data_directory("unlisted", CLUSTER);
    machine.segment("unlisted", TWO, CLUSTER);
    machine.push("unlisted", TWO, &["--archive", archive]).succeeds();
    fs::create_dir(machine.path("off-site")).unwrap();
    let to = machine.path("off-site");
    let to = to.to_str().unwrap();
    let init = ["init", "--system-id", &CLUSTER.to_string(), "--segment-size", "1MB", to];
    assert_eq!(machine.admin(&init).code, Some(0));
    assert_eq!(machine.admin(&["copy", archive, to]).code, Some(0));
    machine.admin(&["copy", to]).fails(2, &["which cluster", "HINT:"]);
    machine.admin(&["copy", to, "--cluster", "main"]).says(0, &["identical", "2"]);
    machine.admin(&["quarantine", ONE, "--from", to]).says(1, &[ONE, "intact", "stays"]);
    machine.admin(&["quarantine", ONE]).fails(2, &["which cluster", "HINT:"]);
}

#[test]
fn wal_archive_init_and_drain_choose_by_the_data_directory_that_they_are_given() {
    let machine = Machine::new();
    let crm = machine.path("crm");
    let crm = crm.to_str().unwrap();
    for (directory, cluster) in BOTH {
        machine.segment(directory, ONE, cluster);
    }
    // In the directory of main, for crm.
    let run = machine.run("wal-archive", "data", &["init", "--pgdata", crm]);
    run.says(0, &["crm-archive", &OTHER.to_string()]);
    assert!(names(&machine.path("archive")).is_empty());
    // A named cluster's own data directory comes before the one that the call is made in.
    let run = machine.run("wal-archive", "crm", &["init", "--cluster", "main"]);
    run.says(0, &["/archive\"", &CLUSTER.to_string()]);
    let unlisted = machine.sandbox.make_data_directory("unlisted", CLUSTER);
    let unlisted = unlisted.to_str().unwrap();
    machine.run("wal-archive", "data", &["init", "--pgdata", unlisted]).fails(2, &["no cluster", "unlisted"]);
    let drain = |args: &[&str]| machine.run("wal-archive", "data", &[&["drain", "--dry-run"], args].concat());
    let told = drain(&["--pgdata", crm, "--json"]);
    assert!(told.stdout.contains(&OTHER.to_string()), "{told:?}");
    drain(&["--pgdata", unlisted]).fails(2, &["no cluster", "unlisted", "HINT:"]);
    let loose = machine.path("loose");
    fs::create_dir(&loose).unwrap();
    drain(&["--wal-dir", loose.to_str().unwrap()]).fails(2, &["which cluster", "HINT:"]);
}

#[test]
fn list_goes_over_all_clusters_and_says_which_is_which() {
    let machine = Machine::archived();
    let run = machine.admin(&["list", "--all"]);
    assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:?}");
    let at = |text: &str| run.stdout.find(text).unwrap_or_else(|| panic!("{text}: {run:?}"));
    assert!(at("cluster crm\n") < at("/crm-archive:") && at("/crm-archive:") < at("cluster main\n"));
    assert!(at("cluster main\n") < at("/archive:"));
    let answer = |run: &Run| -> serde_json::Value { serde_json::from_str(&run.stdout).unwrap() };
    let all = answer(&machine.admin(&["list", "--all", "--json"]));
    assert_eq!((&all["version"], &all["clusters"][0]["cluster"]), (&2.into(), &"crm".into()));
    assert_eq!(all["clusters"][1]["destinations"][0]["system_id"], CLUSTER.to_string());
    assert_eq!(answer(&machine.admin(&["list", "--json", "--cluster", "crm"]))["cluster"], "crm");
    let objects = machine.admin(&["list", "--all", "--segments", "--json"]).stdout;
    let of = |line: &str| serde_json::from_str::<serde_json::Value>(line).unwrap()["cluster"].clone();
    assert_eq!(objects.lines().map(of).collect::<Vec<_>>(), ["crm", "main"]);
    // One that cannot be listed hides no other.
    fs::rename(machine.path("crm-archive"), machine.path("away")).unwrap();
    let run = machine.admin(&["list", "--all"]);
    assert!(
        run.code == Some(2) && run.stdout.contains("/archive:") && run.stderr.contains("crm-archive"),
        "{run:?}"
    );
    machine.configure(&TWO_CLUSTERS.replace("archive = \"@/crm-archive\"", ""));
    let run = machine.admin(&["list", "--all"]);
    assert!(run.code == Some(2) && run.stdout.contains("/archive:"), "{run:?}");
    assert!(run.stderr.contains("cluster \"crm\": no archive is named"), "{run:?}");
}

#[test]
fn check_goes_over_all_clusters_with_their_data_directories_and_ends_with_the_gravest() {
    let machine = Machine::archived();
    let limits = ["--free-warning", "1MiB", "--free-critical", "1MiB"];
    let check = |args: &[&str]| machine.admin(&[&["check"], &limits[..], args].concat());
    says_state(&check(&["--all"]), 0, &["OK: crm: nothing waits to be archived"]);
    says_state(&check(&["--all"]), 0, &["OK: main: nothing waits to be archived"]);
    says_state(&check(&["--cluster", "crm"]), 0, &["OK: crm: nothing waits to be archived"]);
    fs::write(machine.path("crm/pg_wal/archive_status").join(format!("{TWO}.ready")), "").unwrap();
    let file = machine.path("wal.prom");
    let age = ["--all", "--files-warning", "0", "--prometheus", file.to_str().unwrap()];
    let run = check(&age);
    says_state(&run, 1, &["WARNING: crm: 1 file waits"]);
    let first = run.stdout.lines().next().unwrap();
    assert!(first.starts_with("WAL-ARCHIVE WARNING - crm: 1 file waits"), "{run:?}");
    assert!(
        first.contains("'crm backlog_files'=1;0;1024") && first.contains("'main backlog_files'=0;"),
        "{run:?}"
    );
    let metrics = fs::read_to_string(&file).unwrap();
    for sample in [
        "check_state{cluster=\"crm\"} 1",
        "check_state{cluster=\"main\"} 0",
        "backlog_files{cluster=\"crm\"} 1",
    ] {
        assert!(metrics.contains(&format!("\nwal_archive_{sample}\n")), "{sample}: {metrics}");
    }
    let answer: serde_json::Value =
        serde_json::from_str(&check(&[&age[..], &["--json"]].concat()).stdout).unwrap();
    assert_eq!((&answer["state"], &answer["version"]), (&"WARNING".into(), &2.into()));
    assert_eq!(
        (&answer["clusters"][1]["cluster"], &answer["clusters"][1]["state"]),
        (&"main".into(), &"OK".into())
    );
    // A cluster whose settings cannot be used is that cluster's finding.
    machine.configure(&TWO_CLUSTERS.replace("archive = \"@/crm-archive\"", ""));
    says_state(&check(&["--all"]), 2, &["CRITICAL: crm: no archive is named"]);
    assert!(check(&["--all"]).stdout.contains("\nOK: main: nothing waits to be archived"));
}

#[test]
fn all_clusters_are_not_one_and_not_one_archive() {
    let machine = Machine::archived();
    for args in [&["--cluster", "main"][..], &["--archive", "/x"], &["--archive=/x"]] {
        machine.admin(&[&["list", "--all"], args].concat()).fails(2, &["--all", "cannot be used with"]);
        machine.admin(&[&["check", "--all"], args].concat()).fails(3, &["--all", "cannot be used with"]);
    }
    machine.admin(&["check", "--all", "--pgdata", "."]).fails(3, &["--all", "cannot be used with"]);
    let run = Run::of(machine.program("wal-archive", "").env("WAL_ARCHIVE", "/x").args(["list", "--all"]));
    run.fails(2, &["WAL_ARCHIVE names one archive for all clusters", "HINT:"]);
    machine.configure("archive = \"@/archive\"\n");
    machine.admin(&["list", "--all"]).fails(2, &["has no clusters", "HINT:"]);
    machine.admin(&["check", "--all"]).fails(3, &["has no clusters", "HINT:"]);
}

#[test]
fn config_shows_which_cluster_was_chosen_and_why() {
    let machine = Machine::archived();
    let file = machine.path("c.toml");
    let file = file.display();
    let row = |run: &Run, setting: &str| -> Vec<String> {
        let columns = |line: &str| {
            line.split("  ").map(str::trim).filter(|c| !c.is_empty()).map(str::to_owned).collect::<Vec<_>>()
        };
        run.stdout.lines().map(columns).find(|row| row[0] == setting).unwrap()[1..].to_vec()
    };
    let config =
        |directory: &str, args: &[&str]| machine.run("wal-archive", directory, &[&["config"], args].concat());
    let by_directory = config("crm", &[]);
    assert_eq!(by_directory.code, Some(0), "{by_directory:?}");
    assert_eq!(row(&by_directory, "cluster"), ["crm", &format!("{file} (cluster.crm.pgdata)")]);
    let archive = machine.path("crm-archive").display().to_string();
    assert_eq!(row(&by_directory, "archive"), [archive, format!("{file} (cluster.crm.archive)")]);
    assert_eq!(row(&config("crm", &["--cluster", "main"]), "cluster"), ["main", "--cluster"]);
    let unlisted = config("", &[]);
    assert_eq!(row(&unlisted, "cluster"), ["-", "not set"]);
    assert!(unlisted.code == Some(2) && unlisted.stderr.contains("which cluster"), "{unlisted:?}");
    config("", &["--check"]).fails(2, &["which cluster"]);
    config("", &["--check", "--cluster", "crm"]).says(0, &["can be used"]);
    let checked = |text: &str| {
        machine.configure(text);
        config("data", &["--check"])
    };
    // Inside the data directory that the cluster names, wherever it is asked.
    checked(&TWO_CLUSTERS.replace("@/archive\"", "@/data/pg_wal\"")).fails(2, &["inside the data directory"]);
    checked(&format!("archive = \"/x\"\n{TWO_CLUSTERS}"))
        .fails(2, &["\"archive\" is set at the top", "HINT:"]);
    checked(&format!("{TWO_CLUSTERS}levle = 3\n")).fails(2, &["[cluster.crm]: unknown key \"levle\""]);
    checked("[cluster.\"my crm\"]\n").fails(2, &["\"my crm\" cannot be the name of a cluster", "HINT:"]);
}

#[test]
fn the_prefetcher_is_that_of_its_wal_fetchs_cluster() {
    let machine = Machine::archived();
    for name in [TWO, "000000010000000000000003"] {
        machine.segment("crm", name, OTHER);
        machine.push("crm", name, &[]).succeeds();
    }
    let server = format!("{}\n/data\n1700000000\n5432\n", std::process::id());
    fs::write(machine.path("crm/postmaster.pid"), server).unwrap();
    fs::write(machine.path("crm/recovery.signal"), "").unwrap();
    machine.fetch("crm", ONE, &[]).succeeds();
    machine.fetched("crm");
    let sealed = || {
        let spool = machine.path("crm.wal-spool");
        let folders = names(&spool).into_iter().filter(|name| name.starts_with("prefetch-"));
        let files = folders.flat_map(|folder| names(&spool.join(folder)));
        files.filter(|name| name.ends_with(".seal")).count()
    };
    wait_until("two segments are prefetched", || sealed() == 2);
    // What comes now comes from the spool.
    fs::rename(machine.path("crm-archive"), machine.path("away")).unwrap();
    machine.fetch("crm", TWO, &[]).succeeds();
    assert!(machine.fetched("crm") == segment(TWO, MIB, OTHER, OTHER));
    fs::remove_file(machine.path("crm/recovery.signal")).unwrap();
    wait_until("the prefetcher ends", || prefetchers_of(&machine.path("crm")).is_empty());
}

#[track_caller]
fn wait_until(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < Duration::from_secs(120), "never: {what}");
        thread::sleep(Duration::from_millis(20));
    }
}

#[test]
fn a_file_for_one_data_directory_serves_no_other() {
    let machine = Machine::archived();
    machine.sandbox.make_data_directory("unlisted", CLUSTER);
    machine.segment("unlisted", TWO, CLUSTER);
    machine.segment("data", TWO, CLUSTER);
    machine.configure("pgdata = \"@/data\"\narchive = \"@/archive\"\n");
    machine
        .push("unlisted", TWO, &[])
        .fails(2, &["is for the data directory", "/data\"", "unlisted", "HINT:"]);
    machine.push("data", TWO, &[]).succeeds();
    assert_eq!(machine.admin(&["list"]).code, Some(0));
    let limits = ["check", "--free-warning", "1MiB", "--free-critical", "1MiB"];
    says_state(&machine.admin(&limits), 0, &["nothing waits to be archived"]);
}
