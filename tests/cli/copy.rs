//! `wal-archive copy`: migration from other tools, off-site copies, repair.

use crate::foreign::{WAL_G, archive_of, wal};
use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, names, noise, rounds, segment};
use std::fs;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

fn copy(sandbox: &Sandbox, args: &[&str], from: &Path, to: &Path) -> Run {
    Run::of(sandbox.program("wal-archive").arg("copy").args(args).arg(from).arg(to))
}

/// One number of the table.
fn count(run: &Run, label: &str) -> u64 {
    let line = run.stdout.lines().find_map(|line| line.strip_prefix(label)?.trim().parse().ok());
    line.unwrap_or_else(|| panic!("no {label}: {run:?}"))
}

/// Every file, by wal-fetch, from a root.
fn delivers(sandbox: &Sandbox, root: &Path, files: &[(String, Vec<u8>)]) {
    for (name, content) in files {
        let mut fetch = sandbox.program("wal-fetch");
        Run::of(fetch.arg("--archive").arg(root).args([name, "pg_wal/RECOVERYXLOG"])).succeeds();
        assert!(sandbox.fetched() == *content, "{name}");
    }
}

/// All files below a root with their content.
fn tree(root: &Path) -> Vec<(PathBuf, Vec<u8>)> {
    let mut all = Vec::new();
    for folder in [root.to_owned(), root.join("wal_005"), root.join("quarantine")] {
        let files = names(&folder).into_iter().map(|name| folder.join(name)).filter(|path| path.is_file());
        all.extend(files.map(|path| (path.strip_prefix(root).unwrap().to_owned(), fs::read(&path).unwrap())));
    }
    all
}

#[test]
fn an_archive_of_wal_g_becomes_one_of_ours_byte_for_byte_in_every_encoding() {
    let files = wal();
    for (fixture, _) in WAL_G {
        let sandbox = archive_of(fixture);
        let before = tree(&sandbox.archive());
        let to = sandbox.make_archive("new");
        let run = copy(&sandbox, &[], &sandbox.archive(), &to);
        assert_eq!(run.code, Some(0), "{fixture}: {run:?}");
        assert_eq!(count(&run, "encoded"), files.len() as u64, "{fixture}");
        delivers(&sandbox, &to, &files);
        let own: Vec<_> = files.iter().map(|(name, _)| format!("{name}.zst")).collect();
        assert_eq!(names(&to.join("wal_005")), own, "{fixture}");
        let identity = fs::read_to_string(to.join("archive.json")).unwrap();
        assert!(identity.contains("\"foreign\":false"), "{identity}");
        assert!(tree(&sandbox.archive()) == before, "{fixture}: the source is only read");
        let again = copy(&sandbox, &[], &sandbox.archive(), &to);
        assert_eq!((count(&again, "identical"), count(&again, "bytes")), (files.len() as u64, 0));
    }
}

#[test]
fn archives_of_cp_gzip_and_zstd_directly_under_the_prefix_are_migrated_too() {
    let files = wal();
    for (tool, extension) in [("cat", ""), ("gzip -1", ".gz"), ("zstd -q", ".zst")] {
        let sandbox = Sandbox::without_archive();
        let source = sandbox.path("source");
        for (name, content) in &files {
            fs::write(&source, content).unwrap();
            let script = format!("{tool} < \"$0\" > \"$1\"");
            let into = sandbox.archive().join(format!("{name}{extension}"));
            assert!(
                Command::new("sh").args(["-c", &script]).arg(&source).arg(into).status().unwrap().success()
            );
        }
        fs::write(sandbox.archive().join("README"), "strange").unwrap();
        let to = sandbox.make_archive("new");
        let run = copy(&sandbox, &[], &sandbox.archive(), &to).says(0, &["stranger", "README"]);
        assert_eq!(count(&run, "encoded"), files.len() as u64, "{tool}");
        delivers(&sandbox, &to, &files);
        assert!(!to.join("README").exists());
    }
}

#[test]
fn our_own_objects_are_passed_on_as_they_are_and_pushing_goes_on_there() {
    let sandbox = Sandbox::new();
    for (name, content) in wal() {
        sandbox.wal(&name, &content);
    }
    // The data directory of a sandbox is of another cluster than the fixtures.
    fs::remove_file(sandbox.data().join("PG_VERSION")).unwrap();
    let push = |root: &Path, name: &str| {
        Run::of(sandbox.program("wal-push").arg("--archive").arg(root).arg(format!("pg_wal/{name}")))
    };
    let files = wal();
    for (name, _) in files.iter().rev() {
        push(&sandbox.archive(), name).succeeds();
    }
    let to = sandbox.make_archive("offsite");
    let run = copy(&sandbox, &["--jobs", "2"], &sandbox.archive(), &to);
    assert_eq!((run.code, count(&run, "copied")), (Some(0), files.len() as u64));
    assert!(tree(&to) == tree(&sandbox.archive()));
    for (name, _) in &files {
        push(&to, name).succeeds();
    }
}

#[test]
fn killed_at_any_moment_the_repeat_completes_the_copy() {
    let sandbox = Sandbox::without_archive();
    let files: Vec<_> = (1..=24u64)
        .map(|number| {
            let name = format!("00000001000000000000{number:04X}");
            (name.clone(), segment(&name, MIB, CLUSTER, number))
        })
        .collect();
    for (name, content) in &files {
        fs::write(sandbox.archive().join(name), content).unwrap();
    }
    let start = Instant::now();
    assert_eq!(copy(&sandbox, &[], &sandbox.archive(), &sandbox.make_archive("whole")).code, Some(0));
    let mut whole = start.elapsed(); // about; the machine's speed may change
    let (kills, mut hit, mut partly) = (rounds("WAL_ARCHIVE_KILLS", 12), 0, 0);
    for kill in 0..kills {
        let to = sandbox.make_archive(&format!("to-{kill}"));
        let mut child = sandbox
            .program("wal-archive")
            .arg("copy")
            .arg(sandbox.archive())
            .arg(&to)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .spawn()
            .unwrap();
        let random = u64::from(noise(kill as u64 + 1, 8)[3]);
        let moment = whole.mul_f64(random as f64 / 256.0) + Duration::from_millis(1);
        std::thread::sleep(moment);
        child.kill().unwrap();
        let is_hit = child.wait().unwrap().signal() == Some(9);
        whole = if is_hit { whole.mul_f64(1.1) } else { moment };
        hit += usize::from(is_hit);
        let there: Vec<_> =
            names(&to.join("wal_005")).into_iter().filter(|name| !name.starts_with('.')).collect();
        partly += usize::from(!there.is_empty() && there.len() < files.len());
        let object = |name: &str| zstd::decode_all(fs::File::open(to.join("wal_005").join(name)).unwrap());
        let intact =
            |(name, content): &(String, Vec<u8>)| object(&format!("{name}.zst")).unwrap() == *content;
        let visible = files.iter().filter(|(name, _)| there.contains(&format!("{name}.zst")));
        assert_eq!(visible.count(), there.len(), "{there:?}");
        for file in files.iter().filter(|(name, _)| there.contains(&format!("{name}.zst"))) {
            assert!(intact(file), "kill {kill}: \"{}\" is visible and not whole", file.0);
        }
        let run = copy(&sandbox, &[], &sandbox.archive(), &to);
        assert_eq!(run.code, Some(0), "kill {kill}: {run:?}");
        assert_eq!(count(&run, "identical"), there.len() as u64, "kill {kill}");
        assert!(files.iter().all(intact), "kill {kill}");
        fs::remove_dir_all(&to).unwrap();
    }
    println!("{kills} kills: {hit} hit a living copy, {partly} left a part of the files");
    assert!(hit > kills / 3 && partly > 0, "{hit} hit, {partly} partly");
}

#[test]
fn a_damaged_or_different_file_is_a_finding_and_nothing_is_replaced() {
    let sandbox = Sandbox::new();
    let to = sandbox.make_archive("offsite");
    let [one, two, three] = [1, 2, 3].map(|number| format!("00000001000000000000000{number}"));
    for name in [&one, &two, &three] {
        sandbox.segment(name);
        sandbox.push(name, &[]).succeeds();
    }
    sandbox.wal(&two, &segment(&two, MIB, CLUSTER, 99));
    Run::of(sandbox.program("wal-push").arg("--archive").arg(&to).arg(format!("pg_wal/{two}"))).succeeds();
    flip(&sandbox.object(&three), 80_000);
    let there = fs::read(to.join(format!("wal_005/{two}.zst"))).unwrap();
    let run = copy(&sandbox, &[], &sandbox.archive(), &to);
    let run = run.says(1, &["conflict", &two, "offsite", "differs"]).says(1, &["damaged", &three]);
    assert_eq!((count(&run, "copied"), count(&run, "findings")), (1, 2));
    assert!(fs::read(to.join(format!("wal_005/{two}.zst"))).unwrap() == there);
    assert!(!to.join(format!("wal_005/{three}.zst")).exists());
    let json = copy(&sandbox, &["--json"], &sandbox.archive(), &to);
    let json: serde_json::Value = serde_json::from_str(&json.stdout).unwrap();
    assert_eq!(json["copies"][0]["findings"][0]["kind"], "conflict");
    assert_eq!(json["copies"][0]["findings"][1]["name"], three.as_str());
}

#[test]
fn repair_brings_each_configured_destination_what_it_lacks_from_the_others() {
    let sandbox = Sandbox::new();
    let second = sandbox.make_archive("second");
    let both = format!("{},{}", sandbox.archive().display(), second.display());
    let [one, two, three] = [1, 2, 3].map(|number| format!("00000001000000000000000{number}"));
    for name in [&one, &two, &three] {
        sandbox.segment(name);
        let path = format!("pg_wal/{name}");
        Run::of(sandbox.program("wal-push").env("WAL_ARCHIVE", &both).arg(path)).succeeds();
    }
    let good = tree(&sandbox.archive());
    flip(&sandbox.object(&one), 80_000);
    flip(&second.join(format!("wal_005/{two}.zst")), 80_000);
    fs::remove_file(second.join(format!("wal_005/{three}.zst"))).unwrap();
    let subcommand = |name: &str, args: &[&str]| {
        Run::of(sandbox.program("wal-archive").env("WAL_ARCHIVE", &both).arg(name).args(args))
    };
    let admin = |args: &[&str]| subcommand("copy", args);
    subcommand("verify", &[])
        .says(1, &["damaged", &one, "archive"])
        .says(1, &["damaged", &two, "second"])
        .says(1, &["missing", &three, "second"])
        .says(1, &["3 findings"]);
    // One of them from the other, then the other way round as well.
    let run = admin(&["--repair", second.to_str().unwrap()]);
    assert_eq!((run.code, count(&run, "repaired"), count(&run, "copied")), (Some(0), 1, 1));
    let stored = |name: &str| fs::metadata(sandbox.object(name)).unwrap().len();
    assert_eq!(count(&run, "bytes"), stored(&two) + stored(&three), "what was repaired counts, too");
    let run = admin(&["--repair"]).says(0, &["repaired", "1"]);
    assert!(run.stderr.is_empty(), "{run:?}");
    subcommand("verify", &[]).says(0, &["sound: 6 objects"]);
    let objects = |root: &Path| {
        let all = tree(root).into_iter();
        all.filter(|(path, _)| !path.starts_with("quarantine")).collect::<Vec<_>>()
    };
    assert!(objects(&sandbox.archive()) == good && objects(&second) == good);
    assert_eq!(names(&sandbox.archive().join("quarantine")).len(), 1);
    assert_eq!(names(&second.join("quarantine")).len(), 1);
}

#[test]
fn what_cannot_begin_ends_with_2() {
    let sandbox = Sandbox::new();
    let empty = sandbox.path("empty");
    fs::create_dir(&empty).unwrap();
    copy(&sandbox, &[], &empty, &sandbox.archive()).fails(2, &["is not an archive"]);
    let gone = sandbox.path("gone");
    sandbox.segment("000000010000000000000001");
    sandbox.push("000000010000000000000001", &[]).succeeds();
    copy(&sandbox, &[], &sandbox.archive(), &gone).fails(2, &["cannot open the archive's root"]);
    // A copy makes no archive either, but knows how to make it.
    let init =
        format!("run: wal-archive init {} --system-id {CLUSTER} --segment-size {MIB}", empty.display());
    copy(&sandbox, &[], &sandbox.archive(), &empty).fails(2, &["is not an archive", &init]);
    assert!(names(&empty).is_empty());
    sandbox.admin("copy", &[sandbox.archive().to_str().unwrap()]).fails(2, &["no other destination"]);
    sandbox.make_data_directory("stranger", CLUSTER + 1);
    let name = "000000010000000000000002";
    fs::write(sandbox.path("stranger/pg_wal").join(name), segment(name, MIB, CLUSTER + 1, 1)).unwrap();
    let in_the_stranger = |mut command: Command| {
        Run::of(command.current_dir(sandbox.path("stranger")).env("WAL_ARCHIVE", &empty))
    };
    let mut init = sandbox.program("wal-archive");
    init.args(["init", "--segment-size", "1MB", "--system-id", &(CLUSTER + 1).to_string()]);
    assert_eq!(in_the_stranger(init).code, Some(0));
    let mut push = sandbox.program("wal-push");
    push.arg(format!("pg_wal/{name}"));
    in_the_stranger(push).succeeds();
    copy(&sandbox, &[], &sandbox.archive(), &empty).fails(2, &["is the archive of the cluster"]);
}
