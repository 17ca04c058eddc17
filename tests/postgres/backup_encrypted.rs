//! Base backups in encrypted archives: taken with public keys only, restored with the private one.

use crate::archive::{Archive, KeyPair};
use crate::backup::{
    assert_done, backups, id, recovered_by_hand, restore_into, started, take_backup, wal_archive,
};
use crate::server::{Server, lines_of};
use crate::world::{World, run, told};
use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Command, Output};

fn config(path: &Path) -> [&str; 2] {
    ["--config", path.to_str().unwrap()]
}

fn verify(world: &World, archive: &Archive<'_>, keys: &Path) -> (Option<i32>, String) {
    let output =
        wal_archive(world, &[archive], &["verify", "--backups"]).args(config(keys)).output().unwrap();
    (output.status.code(), told(&Command::new("verify"), &output))
}

fn assert_could_not(output: &Output, words: &str) {
    let text = told(&Command::new("wal-archive"), output);
    assert_eq!(output.status.code(), Some(2), "{text}");
    assert!(text.contains(words), "{words:?} is not in {text}");
}

#[test]
fn a_host_with_only_the_public_key_takes_backups_and_one_with_the_private_key_restores_them() {
    let Some(world) = World::open() else { return };
    let keys = KeyPair::new(&world, "main", &[]);
    let archive = Archive::encrypted(&world, "archive", &keys);
    let mut primary = Server::archiving(&world, "primary", &archive);
    primary.create_ledger();
    primary.write(1);
    // Nothing is stored in the clear where the public key is forgotten.
    assert_could_not(&take_backup(&world, &primary, &[&archive], &[]), "no recipients");
    assert!(!archive.root().join("backups").exists());
    assert_done(&take_backup(&world, &primary, &[&archive], &config(keys.push())));
    primary.write(2);
    primary.archive_segment();
    primary.wait_archived();
    primary.destroy();

    let backup = &backups(&archive)[0];
    for entry in fs::read_dir(backup).unwrap() {
        let path = entry.unwrap().path();
        let sealed = fs::read(&path).unwrap().starts_with(b"age-encryption.org/v1\n-> wal-archive ");
        let is_record = path.ends_with("backup.json");
        assert!(sealed != is_record && (is_record || path.extension().unwrap() == "age"), "{path:?}");
    }
    // Without the private key it is known to be what was stored, and not restored.
    let (code, text) = verify(&world, &archive, keys.push());
    assert!(code == Some(0) && text.contains("objects not decrypted") && !text.contains("damaged"), "{text}");
    let listed = wal_archive(&world, &[&archive], &["list"]).args(config(keys.push())).output().unwrap();
    let listed = String::from_utf8(listed.stdout).unwrap();
    assert!(listed.contains(&id(backup)) && listed.contains("complete"), "{listed}");
    let output = restore_into(&world, &[&archive], "shut", &config(keys.push()));
    assert_could_not(&output, "no identity here fits");
    assert!(!world.path("shut").join("global/pg_control").exists());
    let (code, text) = verify(&world, &archive, keys.fetch());
    assert!(code == Some(0) && !text.contains("not decrypted"), "{text}");

    let keeping = [config(keys.fetch()).as_slice(), &["--keep-archiving"]].concat();
    assert_done(&restore_into(&world, &[&archive], "restored", &keeping));
    let mut server = started(&world, "restored");
    assert_eq!(server.ledger(), lines_of(1..=2), "{}", server.story());
    // On timeline 2, whose history this host cannot read.
    server.write(3);
    assert_done(&take_backup(&world, &server, &[&archive], &config(keys.push())));
    server.archive_segment();
    server.wait_archived();
    server.destroy();
    let newest = id(backups(&archive).last().unwrap());
    let named = [config(keys.fetch()).as_slice(), &["--backup", &newest]].concat();
    assert_done(&restore_into(&world, &[&archive], "again", &named));
    let server = started(&world, "again");
    assert_eq!((server.ledger(), server.timeline()), (lines_of(1..=3), 3), "{}", server.story());

    // A flipped bit is seen with the key and without it, and refused.
    let part = backup.join("base-00001.tar.age");
    let mut bytes = fs::read(&part).unwrap();
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    fs::write(&part, bytes).unwrap();
    for keys in [keys.push(), keys.fetch()] {
        let (code, text) = verify(&world, &archive, keys);
        assert!(code != Some(0) && text.contains("base-00001.tar.age\" is not what was stored"), "{text}");
    }
    let oldest = id(backup);
    let damaged = [config(keys.fetch()).as_slice(), &["--backup", &oldest]].concat();
    let output = restore_into(&world, &[&archive], "damaged", &damaged);
    assert_eq!(output.status.code(), Some(1), "{}", told(&Command::new("restore"), &output));
    assert!(!world.path("damaged").join("global/pg_control").exists());
}

#[test]
fn stock_age_zstd_and_tar_restore_an_encrypted_backup() {
    let Some(world) = World::open() else { return };
    let keys = KeyPair::new(&world, "main", &[]);
    let archive = Archive::encrypted(&world, "archive", &keys);
    let mut primary = Server::archiving(&world, "primary", &archive);
    let fast = world.make_directory("fast");
    primary.psql(&format!("create tablespace fast location '{}'", fast.display()));
    primary.psql("create table ledger(batch int, line int, text text) tablespace fast");
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[&archive], &config(keys.push())));
    primary.write(2);
    primary.archive_segment();
    primary.destroy();
    fs::remove_dir_all(&fast).unwrap();
    world.make_directory("fast");
    let data = world.make_directory("by-hand");
    fs::set_permissions(&data, PermissionsExt::from_mode(0o700)).unwrap();
    let script = format!(
        "set -e; cd {backup}; open() {{ for part; do age -d -i {key} $part; done | zstd -dc; }}
         open base-*.tar.age | tar x -C {data}
         open [0-9]*.tar.age | tar x -C {fast}
         open manifest.age > {data}/backup_manifest",
        backup = backups(&archive)[0].display(),
        key = keys.identity().display(),
        data = data.display(),
        fast = fast.display(),
    );
    run(world.command("sh").args(["-c", &script]));
    let server = recovered_by_hand(&world, &archive, "by-hand");
    assert_eq!(server.ledger(), lines_of([1, 2]), "{}", server.story());
}

#[test]
fn a_plain_destination_beside_an_encrypted_one_gets_its_own_form_and_serves_where_the_other_is_damaged() {
    let Some(world) = World::open() else { return };
    let keys = KeyPair::new(&world, "main", &[]);
    let (sealed, plain) = (Archive::encrypted(&world, "sealed", &keys), Archive::new(&world, "plain"));
    let path = world.path("both.toml");
    let text = format!(
        "[encryption]\nrecipients = [\"{}\"]\nidentity_file = \"{}\"\n[[destination]]\nurl = \"{}\"\n\
         [[destination]]\nurl = \"{}\"\nencryption = \"none\"\n",
        keys.recipient,
        keys.identity().display(),
        sealed.root().display(),
        plain.root().display()
    );
    fs::write(&path, text).unwrap();
    let both = config(&path);
    let push = format!("{} --config {} %p", world.program("wal-push").display(), path.display());
    let mut primary = Server::archiving_by(&world, "primary", &[&sealed, &plain], push);
    primary.create_ledger();
    primary.write(1);
    assert_done(&take_backup(&world, &primary, &[], &both));
    primary.archive_segment();
    primary.wait_archived();
    primary.destroy();
    let (ours, theirs) = (&backups(&sealed)[0], &backups(&plain)[0]);
    assert!(ours.join("manifest.age").exists() && !ours.join("manifest.zst").exists());
    assert!(theirs.join("manifest.zst").exists() && !theirs.join("manifest.age").exists());
    let verified = |args: &[&str]| wal_archive(&world, &[], args).args(both).output().unwrap();
    assert_done(&verified(&["verify", "--backups"]));
    // Of a host without the private key wal-fetch never says that the WAL ends.
    let public = world.path("public.toml");
    let text = fs::read_to_string(&path).unwrap();
    let text: String = text
        .lines()
        .filter(|line| !line.starts_with("identity_file"))
        .flat_map(|line| [line, "\n"])
        .collect();
    fs::write(&public, text).unwrap();
    let public = config(&public);
    let output = restore_into(&world, &[], "without-the-key", &public);
    assert_done(&output);
    let text = told(&Command::new("restore"), &output);
    assert!(text.contains("recovery stops with 220") && text.contains("no identity to decrypt it"), "{text}");
    let scratch = world.make_directory("scratch");
    let mut rehearse = wal_archive(&world, &[], &["rehearse", "--scratch", scratch.to_str().unwrap()]);
    assert_could_not(&rehearse.args(public).output().unwrap(), "there is no identity to decrypt it");
    assert!(!plain.root().join("rehearsals").exists() && !sealed.root().join("rehearsals").exists());
    let part = ours.join("base-00001.tar.age");
    let len = fs::metadata(&part).unwrap().len();
    fs::write(&part, vec![0; usize::try_from(len).unwrap()]).unwrap();
    assert_eq!(verified(&["verify", "--backups"]).status.code(), Some(1));
    assert_done(&restore_into(&world, &[], "restored", &both));
    let server = started(&world, "restored");
    assert_eq!(server.ledger(), lines_of([1]));
    server.destroy();
    // A backup in the clear that somebody put into the encrypted archive is not restored.
    fs::remove_dir_all(ours).unwrap();
    run(world.command("cp").arg("-r").arg(theirs).arg(ours));
    let output = restore_into(&world, &[&sealed], "planted", &config(keys.fetch()));
    assert_eq!(output.status.code(), Some(1), "{}", told(&Command::new("restore"), &output));
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(text.contains("in the clear") && !world.path("planted").exists(), "{text}");
}
