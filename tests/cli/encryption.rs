//! Encrypted archives: a server that holds only a public key, and a host with the private one.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, names, race, rounds, segment, unless_late};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const ONE: &str = "000000010000000000000001";
const TWO: &str = "000000010000000000000002";
const HISTORY: &str = "00000002.history";

/// A sandbox with an encrypted archive, a pair of keys, and a configuration for each side: "primary" with
/// the recipient only, "restore" with the identity only, "both", and "plain" with neither.
struct Vault {
    sandbox: Sandbox,
    recipient: String,
}

/// The new identity's recipient.
fn keygen(sandbox: &Sandbox, file: &str) -> String {
    let made = Run::of(sandbox.program("wal-archive").arg("keygen").arg(sandbox.path(file)));
    assert!(made.code == Some(0) && made.stderr.is_empty(), "{made:?}");
    let recipient = made.stdout.trim().to_owned();
    assert!(recipient.starts_with("age1") && recipient.len() == 62, "{recipient}");
    recipient
}

impl Vault {
    fn new() -> Self {
        let vault = Vault::without_archive();
        let made = vault.init("primary", &vault.sandbox.archive());
        assert!(made.code == Some(0) && made.stderr.is_empty(), "{made:?}");
        vault
    }

    fn without_archive() -> Self {
        let sandbox = Sandbox::without_archive();
        let recipient = keygen(&sandbox, "key");
        let vault = Vault { sandbox, recipient };
        let recipients = format!("recipients = [\"{}\"]\n", vault.recipient);
        let identity = format!("identity_file = \"{}\"\n", vault.sandbox.path("key").display());
        vault.configure("primary", &recipients);
        vault.configure("restore", &identity);
        vault.configure("both", &format!("{recipients}{identity}"));
        vault.configure("plain", "");
        vault
    }

    fn configure(&self, host: &str, encryption: &str) {
        fs::write(self.config(host), format!("[encryption]\n{encryption}")).unwrap();
    }

    fn config(&self, host: &str) -> PathBuf {
        self.sandbox.path(&format!("{host}.toml"))
    }

    fn program(&self, host: &str, name: &str) -> Command {
        let mut command = self.sandbox.program(name);
        command.env("WAL_ARCHIVE_CONFIG", self.config(host));
        command
    }

    fn init(&self, host: &str, root: &Path) -> Run {
        fs::create_dir_all(root).unwrap();
        let (id, size) = (CLUSTER.to_string(), MIB.to_string());
        let mut init = self.program(host, "wal-archive");
        Run::of(init.args(["init", "--system-id", &id, "--segment-size", &size]).arg(root))
    }

    fn push(&self, host: &str, name: &str) -> Run {
        let mut push = self.program(host, "wal-push");
        Run::of(push.arg("--archive").arg(self.sandbox.archive()).arg(format!("pg_wal/{name}")))
    }

    fn fetch(&self, host: &str, name: &str) -> Run {
        unless_late(&crate::util::NOW, |timeout| {
            let mut fetch = self.program(host, "wal-fetch");
            fetch.arg("--archive").arg(self.sandbox.archive()).args(["--timeout", timeout]);
            Run::of(fetch.args([name, "pg_wal/RECOVERYXLOG"]))
        })
    }

    fn admin(&self, host: &str, args: &[&str]) -> Run {
        let mut admin = self.program(host, "wal-archive");
        Run::of(admin.arg(args[0]).arg("--archive").arg(self.sandbox.archive()).args(&args[1..]))
    }

    fn copy(&self, host: &str, args: &[&str], from: &str, to: &str) -> Run {
        let mut copy = self.program(host, "wal-archive");
        Run::of(copy.arg("copy").args(args).arg(self.sandbox.path(from)).arg(self.sandbox.path(to)))
    }

    fn object(&self, name: &str) -> PathBuf {
        self.sandbox.archive().join("wal_005").join(format!("{name}.age"))
    }

    fn store(&self, name: &str) -> Vec<u8> {
        let content = self.sandbox.segment(name);
        self.push("primary", name).succeeds();
        content
    }
}

/// A run that went well, and what its table says.
fn tells(run: &Run, words: &[&str]) {
    let missing = words.iter().find(|words| !run.stdout.contains(**words));
    assert!(run.code == Some(0) && missing.is_none(), "expected {missing:?}: {run:?}");
}

#[test]
fn a_server_with_only_a_public_key_archives_and_only_the_private_one_reads_it() {
    let vault = Vault::new();
    let content = vault.store(ONE);
    assert_eq!(vault.sandbox.objects(), [format!("{ONE}.age")]);
    let identity = fs::read_to_string(vault.sandbox.archive().join("archive.json")).unwrap();
    assert!(identity.starts_with("{\"wal-archive\":2,\"encryption\":\"age\","), "{identity}");
    vault.fetch("restore", ONE).succeeds();
    assert!(vault.sandbox.fetched() == content);
    // Nothing of the content is to be seen.
    let stored = fs::read(vault.object(ONE)).unwrap();
    let sum = wal_archive::object::Sha256Sum::of(&content).to_string();
    for secret in [&content[0..16], &content[4096..4112], sum.as_bytes(), &sum.as_bytes()[..16]] {
        assert!(!stored.windows(16).any(|window| window == &secret[..16]));
    }
}

#[test]
fn stock_tools_read_every_object() {
    let vault = Vault::new();
    let content = vault.store(ONE);
    vault.sandbox.wal(HISTORY, b"1\t0/300000\tx\n");
    vault.push("primary", HISTORY).succeeds();
    for (name, content) in [(ONE, content.as_slice()), (HISTORY, b"1\t0/300000\tx\n")] {
        let script = "age -d -i \"$0\" \"$1\" | zstd -dcq";
        let read = Command::new("sh")
            .args(["-c", script])
            .arg(vault.sandbox.path("key"))
            .arg(vault.object(name))
            .stdin(Stdio::null())
            .output()
            .unwrap();
        assert!(read.status.success() && read.stdout == content, "{read:?}");
    }
}

#[test]
fn pushed_again_without_an_identity_identical_is_success_different_and_damaged_are_conflicts() {
    let vault = Vault::new();
    vault.store(ONE);
    let before = fs::read(vault.object(ONE)).unwrap();
    vault.push("primary", ONE).succeeds();
    vault.push("both", ONE).succeeds();
    vault.sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 7));
    vault.push("primary", ONE).fails(12, &["already exists with different content"]);
    assert!(fs::read(vault.object(ONE)).unwrap() == before, "never replaced");
    flip(&vault.object(ONE), before.len() * 8 - 400);
    vault.push("primary", ONE).fails(12, &["already exists and is damaged"]);
    vault.admin("plain", &["quarantine", ONE]).says(0, &[ONE]);
    vault.push("primary", ONE).succeeds();
}

#[test]
fn two_racing_primaries_have_one_winner() {
    let vault = Vault::new();
    race(&vault.sandbox, rounds("WAL_ARCHIVE_RACES", 20), &|name| {
        let mut command = vault.program(if name == "wal-push" { "primary" } else { "restore" }, name);
        command.arg("--archive").arg(vault.sandbox.archive());
        command
    });
}

#[test]
fn no_or_a_wrong_identity_is_neither_absence_nor_damage() {
    let vault = Vault::new();
    vault.store(ONE);
    keygen(&vault.sandbox, "other");
    vault.configure("wrong", &format!("identity_file = \"{}\"\n", vault.sandbox.path("other").display()));
    for name in [ONE, TWO, HISTORY] {
        vault.fetch("plain", name).fails(220, &["encrypted", "no identity", "HINT", "identity_file"]);
        vault.fetch("primary", name).fails(220, &["encrypted", "no identity", "HINT", "identity_file"]);
    }
    // That a file is not there, too, is said by nobody who can read none that is.
    for name in [ONE, TWO, "000000010000000000000009", HISTORY] {
        let words = ["cannot be decrypted: no identity here fits; written for ", "HINT"];
        vault.fetch("wrong", name).fails(220, &words);
    }
    for name in [TWO, "000000010000000000000009", HISTORY] {
        assert_eq!(vault.fetch("restore", name).code, Some(1));
        // What is remembered of one identity is nothing for another.
        assert_eq!(vault.fetch("wrong", name).code, Some(220));
    }
    fs::write(vault.sandbox.data().join("standby.signal"), "").unwrap();
    assert_eq!(vault.fetch("wrong", TWO).code, Some(20));
    assert_eq!(vault.fetch("plain", TWO).code, Some(20));
    vault.sandbox.nothing_fetched();
}

#[test]
fn what_does_not_fit_the_archive_is_a_matter_of_configuration() {
    let vault = Vault::new();
    vault.sandbox.segment(ONE);
    let nothing = |root: &Path| assert_eq!(names(&root.join("wal_005")), Vec::<String>::new());
    vault.push("plain", ONE).fails(2, &["is encrypted", "no recipients", "HINT"]);
    nothing(&vault.sandbox.archive());
    vault.init("plain", &vault.sandbox.archive()).fails(2, &["is encrypted", "no recipients"]);
    let plain = vault.sandbox.make_archive("plain");
    let push = |host: &str| {
        Run::of(vault.program(host, "wal-push").arg("--archive").arg(&plain).arg(format!("pg_wal/{ONE}")))
    };
    push("primary").fails(2, &["is not encrypted", "recipients are configured", "HINT"]);
    push("restore").fails(2, &["is not encrypted", "encryption is required", "HINT"]);
    vault.configure("lax", &format!("recipients = [\"{}\"]\nrequired = false\n", vault.recipient));
    push("lax").fails(2, &["is not encrypted", "recipients are configured"]);
    nothing(&plain);
    push("plain").succeeds();
    vault.init("primary", &plain).fails(2, &["is not encrypted", "recipients are configured"]);
    let fetch = |host: &str| {
        unless_late(&crate::util::NOW, |timeout| {
            let mut fetch = vault.program(host, "wal-fetch");
            fetch.args(["--timeout", timeout]).arg("--archive").arg(&plain);
            Run::of(fetch.args([ONE, "pg_wal/RECOVERYXLOG"]))
        })
    };
    fetch("restore").fails(220, &["is not encrypted", "encryption is required", "HINT"]);
    let identity = format!("identity_file = \"{}\"\nrequired = false\n", vault.sandbox.path("key").display());
    vault.configure("lax", &identity);
    fetch("lax").succeeds();
}

#[test]
fn an_encrypted_archive_begins_where_no_plain_file_is() {
    let vault = Vault::without_archive();
    vault.sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 1));
    let root = vault.sandbox.path("taken");
    fs::create_dir_all(root.join("wal_005")).unwrap();
    fs::write(root.join("wal_005").join(ONE), segment(ONE, MIB, CLUSTER, 1)).unwrap();
    vault.init("primary", &root).fails(2, &["holds WAL files already", ONE, "not encrypted", "HINT"]);
    let mut push = vault.program("primary", "wal-push");
    Run::of(push.arg("--archive").arg(&root).arg(format!("pg_wal/{ONE}"))).fails(2, &["not encrypted"]);
    assert!(!root.join("archive.json").exists());
}

#[test]
fn another_encoding_in_an_encrypted_archive_is_neither_delivered_nor_absent() {
    let vault = Vault::new();
    let content = vault.store(ONE);
    let folder = vault.sandbox.archive().join("wal_005");
    fs::write(folder.join(TWO), segment(TWO, MIB, CLUSTER, 1)).unwrap();
    vault.fetch("restore", TWO).fails(220, &[TWO, "not encrypted, and the archive is", "HINT"]);
    fs::write(folder.join(format!("{TWO}.gpg")), "x").unwrap();
    fs::remove_file(folder.join(TWO)).unwrap();
    vault.fetch("restore", TWO).fails(220, &[TWO, "in an encoding"]);
    // An age file without our stanza.
    let foreign = folder.join(format!("{HISTORY}.age"));
    let age = Command::new("age")
        .args(["-r", &vault.recipient, "-o"])
        .arg(&foreign)
        .arg(vault.sandbox.path("primary.toml"))
        .status();
    assert!(age.unwrap().success());
    vault.fetch("restore", HISTORY).fails(221, &["another program"]);
    vault.fetch("restore", ONE).succeeds();
    assert!(vault.sandbox.fetched() == content);
}

/// Every file as a plain archive of this cluster would hold it, in the folder of the encrypted one.
fn put_plain(vault: &Vault, names: &[&str]) {
    let root = vault.sandbox.make_archive("stray");
    for name in names {
        let push = ["--archive", root.to_str().unwrap(), &format!("pg_wal/{name}")].map(str::to_owned);
        Run::of(vault.program("plain", "wal-push").args(push)).succeeds();
        let object = format!("wal_005/{name}.zst");
        fs::rename(root.join(&object), vault.sandbox.archive().join(&object)).unwrap();
    }
}

#[test]
fn a_plain_object_in_an_encrypted_archive_is_given_to_nobody_and_is_not_absent() {
    let vault = Vault::new();
    vault.store(ONE);
    let third = "000000010000000000000003.partial";
    vault.sandbox.segment(TWO);
    vault.sandbox.wal(HISTORY, b"1\t0/300000\tx\n");
    vault.sandbox.wal(third, &segment(third, MIB, CLUSTER, 3));
    put_plain(&vault, &[TWO, HISTORY, third]);
    fs::remove_file(vault.sandbox.data().join("pg_wal").join(HISTORY)).unwrap();
    for name in [TWO, HISTORY] {
        for host in ["plain", "primary"] {
            vault.fetch(host, name).fails(220, &["is encrypted", "no identity", "HINT"]);
        }
        for host in ["restore", "both"] {
            let key = format!("wal_005/{name}.zst");
            vault
                .fetch(host, name)
                .fails(220, &["not encrypted, and the archive is", &key, "HINT", "quarantine"]);
        }
    }
    // Not even what is wrong with it is said.
    let stray = vault.sandbox.archive().join(format!("wal_005/{TWO}.zst"));
    flip(&stray, 1000);
    vault.fetch("plain", TWO).fails(220, &["is encrypted", "no identity", "HINT"]);
    flip(&stray, 1000);
    vault.sandbox.nothing_fetched();
    // Nor where a partial segment may stand in.
    let mut fetch = vault.program("restore", "wal-fetch");
    fetch.args(["--partial", "--timeout", "10s", "--archive"]).arg(vault.sandbox.archive());
    let run = Run::of(fetch.args(["000000010000000000000003", "pg_wal/RECOVERYXLOG"]));
    run.fails(220, &["not encrypted, and the archive is", third]);
    vault.sandbox.nothing_fetched();
    // It is found, and passed on by nobody.
    let verified = vault.admin("restore", &["verify"]);
    assert!(verified.code == Some(1) && verified.stdout.contains(TWO), "{verified:?}");
    vault.init("primary", &vault.sandbox.path("copy")).says(0, &["is now the archive"]);
    let copied = vault.copy("both", &[], "archive", "copy");
    assert!(
        copied.code == Some(1) && copied.stdout.contains("not encrypted, and the archive is"),
        "{copied:?}"
    );
    let arrived = names(&vault.sandbox.path("copy").join("wal_005"));
    assert_eq!(arrived, [format!("{ONE}.age")], "and nothing of the timeline of that history");
    // A push stores the file encrypted, and the other one can be moved aside.
    vault.push("primary", TWO).succeeds();
    vault.fetch("restore", TWO).succeeds();
    let key = format!("wal_005/{TWO}.zst");
    vault.admin("restore", &["quarantine", "--force", &key]).says(0, &[&key]);
    assert!(!vault.sandbox.objects().contains(&format!("{TWO}.zst")));
}

#[test]
fn a_history_put_by_hand_lets_the_servers_own_one_be_archived_encrypted() {
    let vault = Vault::new();
    let of_two = "000000020000000000000001";
    vault.store(ONE);
    vault.sandbox.wal(of_two, &segment(of_two, MIB, CLUSTER, 1));
    vault.push("primary", of_two).fails(0, &["warning", "no recovery finds its way"]);
    let stray = vault.sandbox.archive().join("wal_005").join(HISTORY);
    fs::write(&stray, b"1\t0/300000\tx\n").unwrap();
    vault.push("primary", of_two).fails(0, &["warning", "no recovery finds its way"]);
    fs::remove_file(&stray).unwrap();
    // This server has other files of that timeline, and says that they belong together.
    vault.sandbox.wal(HISTORY, b"1\t0/300000\tx\n");
    fs::remove_file(vault.sandbox.data().join("pg_wal").join(of_two)).unwrap();
    let next = "000000020000000000000002";
    vault.sandbox.wal(next, &segment(next, MIB, CLUSTER, 2));
    let words = ["none of them is this server's", "HINT", "by hand", "which stores it encrypted", "remove"];
    vault.push("primary", next).fails(12, &words);
    // Whose the timeline is, it tells without being read as an object.
    fs::write(&stray, b"1\t0/400000\tx\n").unwrap();
    vault.push("primary", next).fails(12, &[HISTORY, "different content"]);
    fs::write(&stray, b"1\t0/300000\tx\n").unwrap();
    vault.push("primary", next).succeeds();
    fs::remove_file(&stray).unwrap();
    vault.fetch("restore", HISTORY).succeeds();
    assert_eq!(vault.sandbox.fetched(), b"1\t0/300000\tx\n");
    let verified = vault.admin("restore", &["verify"]);
    assert!(!verified.stdout.contains(HISTORY), "{verified:?}");
}

#[test]
fn a_damaged_history_that_was_moved_aside_tells_by_its_tags_whose_it_was() {
    let vault = Vault::new();
    let (of_two, next) = ("000000020000000000000001", "000000020000000000000002");
    let (own, other) = (b"1\t0/300000\tx\n", b"1\t0/400000\tx\n");
    for name in [of_two, next] {
        vault.sandbox.wal(name, &segment(name, MIB, CLUSTER, 1));
    }
    vault.sandbox.wal(HISTORY, own);
    vault.push("primary", of_two).succeeds();
    let end = fs::metadata(vault.object(HISTORY)).unwrap().len() as usize;
    flip(&vault.object(HISTORY), end * 8 - 100);
    vault.admin("restore", &["quarantine", HISTORY]).says(0, &[HISTORY]);
    fs::remove_file(vault.sandbox.data().join("pg_wal").join(of_two)).unwrap();
    vault.sandbox.wal(HISTORY, other);
    vault.push("primary", HISTORY).fails(12, &["none of them is this server's"]);
    vault.sandbox.wal(HISTORY, own);
    vault.push("primary", next).succeeds();
    vault.fetch("restore", HISTORY).succeeds();
    assert_eq!(vault.sandbox.fetched(), own);
}

#[test]
fn after_a_rotation_old_objects_are_told_by_the_recipients_to_compare_with() {
    let vault = Vault::new();
    let content = vault.store(ONE);
    let new = keygen(&vault.sandbox, "new");
    vault.configure("rotated", &format!("recipients = [\"{new}\"]\n"));
    let run =
        vault.push("rotated", ONE).fails(12, &["cannot be told: written for ", "HINT", "compare_recipients"]);
    assert!(!run.stderr.contains("different content"), "{run:?}");
    let compare = format!("recipients = [\"{new}\"]\ncompare_recipients = [\"{}\"]\n", vault.recipient);
    vault.configure("rotated", &compare);
    vault.push("rotated", ONE).succeeds();
    vault.sandbox.wal(ONE, &segment(ONE, MIB, CLUSTER, 9));
    vault.push("rotated", ONE).fails(12, &["different content"]);
    let second = vault.sandbox.segment(TWO);
    vault.push("rotated", TWO).succeeds();
    // Recovery needs both.
    let keys =
        [vault.sandbox.path("key"), vault.sandbox.path("new")].map(|path| fs::read_to_string(path).unwrap());
    fs::write(vault.sandbox.path("key"), keys.concat()).unwrap();
    for (name, content) in [(ONE, &content), (TWO, &second)] {
        vault.fetch("restore", name).succeeds();
        assert!(vault.sandbox.fetched() == *content);
    }
}

#[test]
fn each_of_two_recipients_reads_it() {
    let vault = Vault::without_archive();
    let other = keygen(&vault.sandbox, "other");
    fs::write(vault.sandbox.path("list"), format!("# the safe\n{other}\n")).unwrap();
    let list = vault.sandbox.path("list");
    let both = format!("recipients = [\"{}\"]\nrecipients_file = \"{}\"\n", vault.recipient, list.display());
    vault.configure("primary", &both);
    assert_eq!(vault.init("primary", &vault.sandbox.archive()).code, Some(0));
    let content = vault.store(ONE);
    vault.configure("safe", &format!("identity_file = \"{}\"\n", vault.sandbox.path("other").display()));
    for host in ["restore", "safe"] {
        vault.fetch(host, ONE).succeeds();
        assert!(vault.sandbox.fetched() == content);
    }
}

#[test]
fn a_partial_segment_and_its_variants_are_stored_listed_and_given() {
    let vault = Vault::new();
    let partial = format!("{ONE}.partial");
    for seed in [1, 2, 2] {
        vault.sandbox.wal(&partial, &segment(ONE, MIB, CLUSTER, seed));
        assert_eq!(vault.push("primary", &partial).code, Some(0));
    }
    let objects = vault.sandbox.objects();
    assert_eq!(objects.len(), 2, "{objects:?}");
    let variant = objects.iter().max_by_key(|object| object.len()).unwrap();
    let digits = variant.strip_prefix(&format!("{partial}.")).unwrap().strip_suffix(".age").unwrap();
    assert_eq!(digits.len(), 16);
    let sum = wal_archive::object::Sha256Sum::of(&segment(ONE, MIB, CLUSTER, 2)).short();
    assert_ne!(digits, sum, "nothing derived from the content alone");
    vault.admin("restore", &["verify"]).says(0, &["objects"]);
    // Where the history of a timeline is lost, a variant tells whose the timeline is.
    vault.sandbox.wal(HISTORY, b"1\t0/100100\tx\n");
    let of_two = "000000020000000000000001";
    let partial = format!("{of_two}.partial");
    for seed in [1, 2] {
        vault.sandbox.wal(&partial, &segment(of_two, MIB, CLUSTER, seed));
        assert_eq!(vault.push("primary", &partial).code, Some(0));
    }
    for lost in [HISTORY, &partial] {
        fs::remove_file(vault.object(lost)).unwrap();
    }
    vault.push("primary", HISTORY).succeeds();
}

#[test]
fn verify_with_the_key_proves_content_and_without_it_the_stored_bytes() {
    let vault = Vault::new();
    vault.store(ONE);
    vault.store(TWO);
    let with = vault.admin("restore", &["verify"]);
    assert_eq!(with.code, Some(0), "{with:?}");
    let without = vault.admin("plain", &["verify"]);
    assert!(without.stdout.contains("not decrypted"), "{without:?}");
    assert!(!with.stdout.contains("not decrypted"), "{with:?}");
    let len = fs::metadata(vault.object(TWO)).unwrap().len() as usize;
    flip(&vault.object(TWO), len * 8 - 100);
    for host in ["restore", "plain"] {
        let run = vault.admin(host, &["verify"]);
        assert!(run.code == Some(1) && run.stdout.contains("damaged"), "{host}: {run:?}");
    }
}

/// That of a backup in the first segment.
fn backup_history() -> String {
    format!(
        "START WAL LOCATION: 0/100028 (file {ONE})\nSTOP WAL LOCATION: 0/100100 (file {ONE})\n\
         CHECKPOINT LOCATION: 0/100060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
         START TIME: 2026-11-26 00:00:00 UTC\nLABEL: nightly\nSTART TIMELINE: 1\n\
         STOP TIME: 2026-11-26 00:00:01 UTC\nSTOP TIMELINE: 1\n"
    )
}

#[test]
fn verify_without_a_key_proves_names_and_stored_bytes_of_every_timeline_and_compares_copies_by_tags() {
    let vault = Vault::new();
    let names: Vec<String> = (1..=5).map(|n| format!("0000000{}00000000{n:08X}", 1 + n / 4)).collect();
    vault.sandbox.wal(HISTORY, b"1\t0/400000\tx\n");
    let backup = format!("{ONE}.00000028.backup");
    for name in &names {
        vault.store(name);
    }
    vault.sandbox.wal(&backup, backup_history().as_bytes());
    vault.push("primary", &backup).succeeds();
    keygen(&vault.sandbox, "stranger");
    vault.configure("wrong", &format!("identity_file = \"{}\"\n", vault.sandbox.path("stranger").display()));
    let blind = ["plain", "primary", "wrong"];
    is_sound(&vault, "archive", &blind);
    is_sound(&vault, "archive", &["restore"]);
    for host in blind {
        let run = vault.admin(host, &["verify"]);
        assert!(run.stdout.contains("7 objects not decrypted") && run.stdout.contains("fork"), "{run:?}");
        let run = vault.admin(host, &["verify", "--quick"]);
        assert_eq!(run.code, Some(0), "{run:?}");
        assert_eq!(vault.admin(host, &["verify", "--records"]).code, Some(2));
        assert_eq!(vault.admin(host, &["verify", "--backup", "nightly"]).code, Some(2));
    }
    // Both copies are of the same file, or they are not.
    let root = vault.sandbox.path("second");
    vault.init("primary", &root).says(0, &["is now the archive"]);
    tells(&vault.copy("primary", &[], "archive", "second"), &["copied     7"]);
    let both = |host: &str, how: &[&str]| {
        let second = root.display().to_string();
        vault.admin(host, &[&["verify", "--archive", second.as_str()], how].concat())
    };
    for host in blind {
        assert_eq!(both(host, &[]).code, Some(0));
    }
    fs::remove_file(root.join("wal_005").join(format!("{TWO}.age"))).unwrap();
    vault.sandbox.wal(TWO, &segment(TWO, MIB, CLUSTER, 55));
    let mut push = vault.program("primary", "wal-push");
    Run::of(push.arg("--archive").arg(&root).arg(format!("pg_wal/{TWO}"))).succeeds();
    for host in ["plain", "primary", "wrong", "restore"] {
        for how in [&[][..], &["--quick"]] {
            let run = both(host, how);
            assert!(run.code == Some(1) && run.stdout.contains("hold different content"), "{host}: {run:?}");
        }
    }
    // A segment that is missing in the middle of a timeline.
    fs::remove_file(vault.object(&names[1])).unwrap();
    for host in blind {
        let run = vault.admin(host, &["verify"]);
        assert!(run.code == Some(1) && run.stdout.contains("missing"), "{host}: {run:?}");
    }
    fs::remove_file(vault.object(HISTORY)).unwrap();
    let run = vault.admin("plain", &["verify"]);
    assert!(run.code == Some(1) && run.stdout.contains("the history of timeline 2 is missing"), "{run:?}");
}

#[test]
fn an_identity_that_others_can_read_or_that_is_none_is_refused() {
    let vault = Vault::new();
    vault.store(ONE);
    let key = vault.sandbox.path("key");
    for (mode, code) in [(0o644, 202), (0o660, 202), (0o604, 202), (0o640, 0), (0o400, 0), (0o600, 0)] {
        fs::set_permissions(&key, fs::Permissions::from_mode(mode)).unwrap();
        assert_eq!(vault.fetch("restore", ONE).code, Some(code), "{mode:o}");
    }
    let secret = fs::read_to_string(&key).unwrap();
    for (text, words) in [
        ("AGE-PLUGIN-YUBIKEY-1QQQQ\n", ["plugin", "identity_command"]),
        ("-----BEGIN AGE ENCRYPTED FILE-----\n", ["passphrase", "identity_command"]),
        ("age-encryption.org/v1\n-> scrypt x 10\n", ["passphrase", "identity_command"]),
        ("nonsense\n", ["not a key", "keygen"]),
    ] {
        fs::write(&key, text).unwrap();
        vault.fetch("restore", ONE).fails(202, &words);
    }
    fs::remove_file(&key).unwrap();
    vault.fetch("restore", ONE).fails(202, &["cannot be read", "HINT"]);
    // Mistaken for a recipient, it is not shown.
    let secret = secret.lines().last().unwrap();
    vault.configure("primary", &format!("recipients = [\"{secret}\"]\n"));
    let run = vault.push("primary", ONE).fails(2, &["an identity, and here a recipient", "HINT"]);
    assert!(!run.stderr.contains(&secret[16..]), "{run:?}");
}

#[test]
fn an_identity_may_come_from_a_command_in_time() {
    let vault = Vault::new();
    let content = vault.store(ONE);
    let key = vault.sandbox.path("key").display().to_string();
    let command = |arguments: &[&str]| {
        let quoted: Vec<_> = arguments.iter().map(|argument| format!("{argument:?}")).collect();
        vault.configure("command", &format!("identity_command = [{}]\n", quoted.join(", ")));
    };
    command(&["cat", &key]);
    vault.fetch("command", ONE).succeeds();
    assert!(vault.sandbox.fetched() == content);
    let shown = vault.admin("command", &["config"]);
    assert!(
        shown.stdout.contains("encryption.identity_command") && !shown.stdout.contains(&key),
        "{shown:?}"
    );
    command(&["sh", "-c", "echo sorry >&2; exit 3"]);
    vault.fetch("command", ONE).fails(220, &["identity_command", "exit status: 3"]);
    command(&["/nonexistent/program"]);
    vault.fetch("command", ONE).fails(202, &["cannot be started"]);
    command(&["sh", "-c", "head -c 70000 /dev/zero"]);
    vault.fetch("command", ONE).fails(202, &["more than 65536 bytes"]);
    command(&["sleep", "600"]);
    let late = vault.fetch("command", ONE);
    assert!(matches!(late.code, Some(220 | 223)), "{late:?}");
}

#[test]
fn a_plain_copy_beside_an_encrypted_one_is_allowed_by_name() {
    let vault = Vault::new();
    let plain = vault.sandbox.make_archive("own-disk");
    let text = format!(
        "[[destination]]\nurl = \"{}\"\nencryption = \"none\"\n[[destination]]\nurl = \"{}\"\n[encryption]\nrecipients = [\"{}\"]\n",
        plain.display(),
        vault.sandbox.archive().display(),
        vault.recipient
    );
    fs::write(vault.config("two"), text).unwrap();
    let content = vault.sandbox.segment(ONE);
    Run::of(vault.program("two", "wal-push").arg(format!("pg_wal/{ONE}"))).succeeds();
    assert_eq!(names(&plain.join("wal_005")), [format!("{ONE}.zst")]);
    assert_eq!(vault.sandbox.objects(), [format!("{ONE}.age")]);
    Run::of(vault.program("two", "wal-push").arg(format!("pg_wal/{ONE}"))).succeeds();
    // Without any identity the plain one is given.
    Run::of(vault.program("two", "wal-fetch").args([ONE, "pg_wal/RECOVERYXLOG"])).succeeds();
    assert!(vault.sandbox.fetched() == content);
}

#[test]
fn copy_encrypts_a_plain_archive_passes_on_encrypts_anew_and_decrypts() {
    let vault = Vault::new();
    let content = vault.store(ONE);
    let plain = vault.sandbox.make_archive("plain");
    vault.copy("both", &[], "archive", "plain").fails(2, &["is not encrypted", "recipients are configured"]);
    vault.copy("restore", &[], "archive", "plain").fails(2, &["encryption is required"]);
    let decrypted = vault.copy("both", &["--decrypt"], "archive", "plain");
    assert_eq!(decrypted.code, Some(0), "{decrypted:?}");
    assert_eq!(names(&plain.join("wal_005")), [format!("{ONE}.zst")]);
    // The way into encryption.
    assert_eq!(vault.init("primary", &vault.sandbox.path("again")).code, Some(0));
    tells(&vault.copy("primary", &[], "plain", "again"), &["encoded", "1"]);
    tells(&vault.copy("primary", &[], "plain", "again"), &["identical", "1"]);
    // Passed on byte for byte.
    assert_eq!(vault.init("primary", &vault.sandbox.path("off-site")).code, Some(0));
    tells(&vault.copy("both", &[], "archive", "off-site"), &["copied     1", "sealed     0"]);
    tells(&vault.copy("both", &[], "archive", "off-site"), &["identical  1"]);
    let passed = fs::read(vault.sandbox.path("off-site").join("wal_005").join(format!("{ONE}.age"))).unwrap();
    assert!(passed == fs::read(vault.object(ONE)).unwrap());
    // For new recipients.
    let new = keygen(&vault.sandbox, "new");
    let key = vault.sandbox.path("key");
    vault.configure("moving", &format!("recipients = [\"{new}\"]\nidentity_file = \"{}\"\n", key.display()));
    assert_eq!(vault.init("moving", &vault.sandbox.path("moved")).code, Some(0));
    tells(&vault.copy("moving", &[], "archive", "moved"), &["old keys", "1"]);
    assert_eq!(vault.init("moving", &vault.sandbox.path("anew")).code, Some(0));
    tells(&vault.copy("moving", &["--reencrypt"], "archive", "anew"), &["encoded", "1"]);
    vault.configure("new", &format!("identity_file = \"{}\"\n", vault.sandbox.path("new").display()));
    let mut fetch = vault.program("new", "wal-fetch");
    fetch.arg("--archive").arg(vault.sandbox.path("anew")).args([ONE, "pg_wal/RECOVERYXLOG"]);
    Run::of(&mut fetch).succeeds();
    assert!(vault.sandbox.fetched() == content);
}

#[test]
fn an_encrypted_and_two_plain_destinations_of_one_configuration_get_what_they_lack_of_each_other() {
    let vault = Vault::new();
    let sealed = vault.sandbox.archive();
    let plain = ["own-disk", "own-mirror"].map(|name| vault.sandbox.make_archive(name));
    let mut text = format!("[[destination]]\nurl = \"{}\"\n", sealed.display());
    for place in &plain {
        text += &format!("[[destination]]\nurl = \"{}\"\nencryption = \"none\"\n", place.display());
    }
    let key = vault.sandbox.path("key");
    text += &format!(
        "[encryption]\nrecipients = [\"{}\"]\nidentity_file = \"{}\"\n",
        vault.recipient,
        key.display()
    );
    fs::write(vault.config("mixed"), text).unwrap();
    vault.store(ONE);
    vault.sandbox.segment(TWO);
    let mut push = vault.program("plain", "wal-push");
    Run::of(push.arg("--archive").arg(&plain[0]).arg(format!("pg_wal/{TWO}"))).succeeds();
    let copy = |args: &[&str]| Run::of(vault.program("mixed", "wal-archive").arg("copy").args(args));
    let refused = copy(&[]);
    assert!(refused.code == Some(2) && refused.stderr.contains("--decrypt"), "{refused:?}");
    for _ in 0..2 {
        let run = copy(&["--decrypt"]);
        assert!(run.code == Some(0) && run.stderr.is_empty(), "{run:?}");
    }
    assert_eq!(vault.sandbox.objects(), [format!("{ONE}.age"), format!("{TWO}.age")]);
    for place in &plain {
        assert_eq!(names(&place.join("wal_005")), [format!("{ONE}.zst"), format!("{TWO}.zst")]);
    }
    // From all of them into a plain one.
    let another = vault.sandbox.make_archive("another");
    assert_eq!(copy(&["--decrypt", another.to_str().unwrap()]).code, Some(0));
    assert_eq!(names(&another.join("wal_005")), [format!("{ONE}.zst"), format!("{TWO}.zst")]);
}

/// What `verify` finds wrong, of all configurations the same.
fn is_sound(vault: &Vault, root: &str, hosts: &[&str]) {
    for host in hosts {
        let mut verify = vault.program(host, "wal-archive");
        let run = Run::of(verify.args(["verify", "--archive"]).arg(vault.sandbox.path(root)));
        assert!(run.code == Some(0) && run.stdout.contains("sound"), "{host}: {run:?}");
    }
}

#[test]
fn whoever_has_no_identity_passes_encrypted_objects_on_and_sees_what_is_damaged_or_different() {
    let vault = Vault::new();
    let of_two = "000000020000000000000002";
    let contents = [ONE, TWO].map(|name| vault.store(name));
    vault.sandbox.wal(HISTORY, b"1\t0/300000\tx\n");
    vault.store(of_two);
    let root = vault.sandbox.path("off-site");
    vault.init("primary", &root).says(0, &["is now the archive"]);
    tells(
        &vault.copy("primary", &[], "archive", "off-site"),
        &["copied     4", "sealed     4", "findings   0"],
    );
    tells(&vault.copy("primary", &[], "archive", "off-site"), &["copied     0", "identical  4"]);
    let there = |name: &str| root.join("wal_005").join(format!("{name}.age"));
    for name in [ONE, TWO, HISTORY, of_two] {
        assert!(fs::read(there(name)).unwrap() == fs::read(vault.object(name)).unwrap());
    }
    is_sound(&vault, "off-site", &["plain", "primary", "restore"]);
    // Without a key nothing is stored anew.
    let refused = vault.copy("primary", &["--reencrypt"], "archive", "off-site");
    refused.fails(2, &["encrypted", "no identity", "HINT"]);
    // What is damaged is replaced where that is asked for, by whoever can tell.
    for host in ["primary", "both"] {
        for bit in [8 * 100, fs::read(there(TWO)).unwrap().len() * 8 - 100] {
            flip(&there(TWO), bit);
            let found = vault.copy(host, &[], "archive", "off-site");
            assert!(bit > 800 || found.code == Some(1), "a flip in the header: {found:?}");
            tells(&vault.copy(host, &["--repair"], "archive", "off-site"), &["repaired   1", "findings   0"]);
            assert!(fs::read(there(TWO)).unwrap() == fs::read(vault.object(TWO)).unwrap());
        }
    }
    // Nor is damage passed on.
    flip(&vault.object(ONE), 8 * 100);
    fs::remove_file(there(ONE)).unwrap();
    let found = vault.copy("primary", &[], "archive", "off-site");
    assert!(found.code == Some(1) && found.stdout.contains("damaged") && !there(ONE).exists(), "{found:?}");
    flip(&vault.object(ONE), 8 * 100);
    tells(&vault.copy("primary", &[], "archive", "off-site"), &["copied     1"]);
    // Another file of one name is a conflict, by its tags.
    let other = vault.sandbox.path("other");
    vault.init("primary", &other).says(0, &["is now the archive"]);
    vault.sandbox.wal(TWO, &segment(TWO, MIB, CLUSTER, 77));
    let mut push = vault.program("primary", "wal-push");
    Run::of(push.arg("--archive").arg(&other).arg(format!("pg_wal/{TWO}"))).succeeds();
    for host in ["primary", "both"] {
        let found = vault.copy(host, &[], "other", "off-site");
        assert!(found.code == Some(1) && found.stdout.contains("differs from"), "{host}: {found:?}");
        let repaired = vault.copy(host, &["--repair"], "other", "off-site");
        assert!(repaired.code == Some(1) && repaired.stdout.contains("differs from"), "{host}: {repaired:?}");
    }
    assert!(fs::read(there(TWO)).unwrap() == fs::read(vault.object(TWO)).unwrap());
    let mut fetch = vault.program("restore", "wal-fetch");
    Run::of(fetch.arg("--archive").arg(&root).args([TWO, "pg_wal/RECOVERYXLOG"])).succeeds();
    assert!(vault.sandbox.fetched() == contents[1]);
}

#[test]
fn another_servers_timeline_is_held_back_from_a_copy_by_whoever_has_no_identity_too() {
    let vault = Vault::new();
    let of_two = "000000020000000000000002";
    vault.store(ONE);
    vault.sandbox.wal(HISTORY, b"1\t0/300000\tx\n");
    vault.store(of_two);
    let root = vault.sandbox.path("off-site");
    vault.init("primary", &root).says(0, &["is now the archive"]);
    // There it is another server's, whose history was lost.
    fs::remove_file(vault.sandbox.data().join("pg_wal").join(HISTORY)).unwrap();
    vault.sandbox.wal(of_two, &segment(of_two, MIB, CLUSTER, 99));
    let mut push = vault.program("primary", "wal-push");
    Run::of(push.arg("--archive").arg(&root).arg(format!("pg_wal/{of_two}"))).fails(0, &["neither in"]);
    for host in ["primary", "both"] {
        let found = vault.copy(host, &[], "archive", "off-site");
        let words = ["held back  1", "another server used the same timeline id"];
        assert!(found.code == Some(1) && words.iter().all(|words| found.stdout.contains(words)), "{found:?}");
    }
    assert!(!root.join("wal_005").join(format!("{HISTORY}.age")).exists());
    // The same file shows that they belong together.
    fs::remove_file(root.join("wal_005").join(format!("{of_two}.age"))).unwrap();
    fs::copy(vault.object(of_two), root.join("wal_005").join(format!("{of_two}.age"))).unwrap();
    tells(&vault.copy("primary", &[], "archive", "off-site"), &["held back  0", "findings   0"]);
    assert!(root.join("wal_005").join(format!("{HISTORY}.age")).exists());
}

#[test]
fn a_configuration_is_checked_for_an_identity_that_is_open_or_that_nobody_here_needs() {
    let vault = Vault::new();
    let data = vault.sandbox.data();
    let warned = vault.admin("both", &["config", "--check"]);
    assert!(warned.code == Some(0) && warned.stderr.contains("warning: this server archives"), "{warned:?}");
    vault.admin("primary", &["config", "--check"]).says(0, &["can be used"]);
    fs::write(data.join("standby.signal"), "").unwrap();
    let standby = vault.admin("both", &["config", "--check"]);
    assert!(standby.code == Some(0) && !standby.stderr.contains("archives"), "{standby:?}");
    let key = vault.sandbox.path("key");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).unwrap();
    for host in ["both", "restore"] {
        vault.admin(host, &["config", "--check"]).fails(2, &["is open to others", "HINT", "chmod"]);
    }
}

#[test]
fn a_key_is_made_once_for_its_owner_alone() {
    let sandbox = Sandbox::without_archive();
    let recipient = keygen(&sandbox, "key");
    let path = sandbox.path("key");
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o600);
    let public = Command::new("age-keygen").arg("-y").arg(&path).output().unwrap();
    assert_eq!(String::from_utf8(public.stdout).unwrap().trim(), recipient);
    let again = Run::of(sandbox.program("wal-archive").arg("keygen").arg(&path));
    again.fails(2, &["cannot write", "exists", "never replaced"]);
}

#[test]
fn a_check_finds_a_missing_identity_and_keys_that_do_not_fit_before_they_are_needed() {
    let vault = Vault::new();
    vault.store(ONE);
    let check = |host: &str, rights: &str| {
        let mut check = vault.program(host, "wal-archive");
        check.args([
            "check",
            "--rights",
            rights,
            "--free-warning",
            "0%",
            "--free-critical",
            "0%",
            "--archive",
        ]);
        Run::of(check.arg(vault.sandbox.archive()))
    };
    let says = |run: Run, words: &str| assert!(run.stdout.contains(words), "expected {words:?}: {run:?}");
    says(check("restore", "fetch"), "is decrypted here");
    for host in ["plain", "primary"] {
        let run = check(host, "fetch");
        assert_eq!(run.code, Some(2), "{run:?}");
        says(run, "no identity here fits");
    }
    let run = check("plain", "push");
    assert_eq!(run.code, Some(2), "{run:?}");
    says(run, "no recipients to encrypt for");
    let run = check("primary", "push");
    assert!(!run.stdout.contains("CRITICAL"), "{run:?}");
}

#[test]
fn a_process_that_holds_an_identity_leaves_no_core_dump() {
    let vault = Vault::new();
    let content = vault.store(ONE);
    let limits = vault.sandbox.path("limits");
    let script =
        format!("cat /proc/$PPID/limits > {}; cat {}", limits.display(), vault.sandbox.path("key").display());
    vault.configure("command", &format!("identity_command = [\"sh\", \"-c\", {script:?}]\n"));
    vault.fetch("command", ONE).succeeds();
    assert!(vault.sandbox.fetched() == content);
    let limits = fs::read_to_string(limits).unwrap();
    let core = limits.lines().find_map(|line| line.strip_prefix("Max core file size")).unwrap();
    assert_eq!(core.split_whitespace().take(2).collect::<Vec<_>>(), ["0", "0"], "{limits}");
}

#[test]
fn nothing_expires_and_no_record_is_walked_where_nothing_decrypts() {
    let vault = Vault::new();
    vault.store(ONE);
    vault.store(TWO);
    let backup = format!("{ONE}.00000028.backup");
    vault.sandbox.wal(&backup, backup_history().as_bytes());
    vault.push("primary", &backup).succeeds();
    let before = vault.sandbox.objects();
    for host in ["plain", "primary"] {
        let run = vault.admin(host, &["expire", "--label", "nightly", "--yes"]);
        assert_eq!(run.code, Some(2), "{run:?}");
        let run = vault.admin(host, &["verify", "--records"]);
        assert!(
            run.code == Some(2) && run.stderr.contains("no") && run.stderr.contains("identity"),
            "{run:?}"
        );
    }
    assert_eq!(vault.sandbox.objects(), before);
    let run = vault.admin("restore", &["expire", "--label", "nightly"]);
    assert!(matches!(run.code, Some(0)), "{run:?}");
}

#[test]
fn a_drain_without_recipients_is_refused_before_anything_is_stored() {
    let vault = Vault::new();
    vault.sandbox.segment(ONE);
    let data = vault.sandbox.data().display().to_string();
    vault.admin("plain", &["drain", "--pgdata", &data]).fails(2, &["is encrypted", "no recipients", "HINT"]);
    assert_eq!(vault.sandbox.objects(), Vec::<String>::new());
}
