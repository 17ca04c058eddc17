//! Two clusters on one machine with one configuration file: each archives, recovers and is checked as
//! its own.

use crate::archive::Archive;
use crate::server::{Server, lines_of};
use crate::world::{World, told};
use std::fs;
use std::os::unix::fs::symlink;
use std::process::Output;

/// One file for both, and commands that name neither a cluster nor an archive.
struct Machine<'w> {
    world: &'w World,
    file: String,
}

impl<'w> Machine<'w> {
    /// Clusters by name, each in the data directory of that name.
    fn new(world: &'w World, clusters: &[(&str, &Archive<'_>)]) -> Self {
        let table = |(name, archive): &(&str, &Archive<'_>)| {
            let (pgdata, root) = (world.path(name), archive.root());
            format!("[cluster.{name}]\npgdata = \"{}\"\narchive = \"{}\"\n", pgdata.display(), root.display())
        };
        let file = world.path("config.toml");
        fs::write(&file, clusters.iter().map(table).collect::<String>()).unwrap();
        Machine { world, file: file.display().to_string() }
    }

    fn push_command(&self) -> String {
        format!("{} --config {} %p", self.world.program("wal-push").display(), self.file)
    }

    fn fetch_command(&self) -> String {
        format!("{} --config {} %f %p", self.world.program("wal-fetch").display(), self.file)
    }

    fn admin(&self, args: &[&str]) -> Output {
        let mut command = self.world.command(self.world.program("wal-archive").to_str().unwrap());
        let output = command.args(args).args(["--config", &self.file]).output().unwrap();
        println!("{}", told(&command, &output));
        output
    }

    /// A new server that archives, with its archive made.
    fn server(&self, name: &str) -> Server<'w> {
        let mut server = Server::init(self.world, name);
        let made = self.admin(&["init", "--cluster", name]);
        assert!(made.status.success());
        server.set("archive_command", self.push_command());
        server.start();
        server.create_ledger();
        server
    }
}

fn system_id(server: &Server<'_>) -> String {
    server.psql("select system_identifier from pg_control_system()")
}

#[test]
fn two_clusters_with_one_configuration_file_archive_recover_and_are_checked_each_its_own() {
    let Some(world) = World::open() else { return };
    let archives = ["main-archive", "crm-archive"].map(|name| Archive::new(&world, name));
    let machine = Machine::new(&world, &[("main", &archives[0]), ("crm", &archives[1])]);
    let mut servers = ["main", "crm"].map(|name| machine.server(name));
    let backups = [servers[0].base_backup("main-backup"), servers[1].base_backup("crm-backup")];
    for round in 0..3 {
        servers[0].write(1 + round);
        servers[1].write(11 + round);
        servers.iter_mut().for_each(|server| drop(server.archive_segment()));
    }
    servers.iter_mut().for_each(Server::wait_archived);

    for (server, archive) in servers.iter().zip(&archives) {
        let identity = fs::read_to_string(archive.root().join("archive.json")).unwrap();
        assert!(identity.contains(&system_id(server)), "{identity}");
        archive.assert_sound(1);
        assert!(!server.run_log().contains("wal-push"), "success is not silent\n{}", server.run_log());
    }
    let limits = ["--free-warning", "1MiB", "--free-critical", "1MiB"];
    let checked = machine.admin(&[&["check", "--all"], &limits[..]].concat());
    assert_eq!(checked.status.code(), Some(0));
    let listed = String::from_utf8(machine.admin(&["list", "--all"]).stdout).unwrap();
    for (name, server) in [("main", &servers[0]), ("crm", &servers[1])] {
        let (_, section) = listed.split_once(&format!("cluster {name}\n")).unwrap();
        assert!(section.lines().next().unwrap().contains(&system_id(server)), "{listed}");
        assert!(machine.admin(&["verify", "--cluster", name]).status.success());
    }

    // Both are lost. Each is recovered at the place that the file names, here behind a link.
    servers.into_iter().for_each(Server::destroy);
    for (name, backup, batches) in [("main", &backups[0], 1..=3), ("crm", &backups[1], 11..=13)] {
        let restored = format!("{name}-restored");
        symlink(world.path(&restored), world.path(name)).unwrap();
        let server = Server::recovered(&world, backup, &restored, machine.fetch_command());
        assert_eq!(server.ledger(), lines_of(batches), "{}", server.story());
    }
}

#[test]
fn a_server_that_the_file_does_not_list_archives_nothing_and_recovers_from_nobody() {
    let Some(world) = World::open() else { return };
    let archives = ["main-archive", "crm-archive"].map(|name| Archive::new(&world, name));
    let machine = Machine::new(&world, &[("main", &archives[0]), ("crm", &archives[1])]);
    let mut main = machine.server("main");
    let backup = main.base_backup("backup");
    main.write(1);
    main.archive_segment();
    main.wait_archived();
    let before = archives[0].names();

    let mut unlisted = Server::init(&world, "unlisted");
    unlisted.set("archive_command", machine.push_command());
    unlisted.start();
    unlisted.create_ledger();
    unlisted.write(1);
    unlisted.switch_segment();
    unlisted.wait_for_log("archive command failed with exit code 2", 1);
    let log = unlisted.run_log();
    let (main_data, crm_data) = (world.path("main"), world.path("crm"));
    for words in
        ["no cluster of", "unlisted", main_data.to_str().unwrap(), crm_data.to_str().unwrap(), "HINT: "]
    {
        assert!(log.contains(words), "{words}: {log}");
    }
    assert_eq!(archives[0].names(), before);
    unlisted.destroy();

    // A copy elsewhere stops, and is not promoted, until it says whose archive it wants.
    let mut copy = Server::restoring(&world, &backup, "copy", machine.fetch_command(), "recovery.signal");
    copy.launch();
    let log = copy.expect_fatal(202);
    assert!(log.contains("no cluster of") && log.contains("--cluster"), "{log}");
    copy.set("restore_command", machine.fetch_command().replace(" %f", " --cluster main %f"));
    copy.launch();
    copy.wait_promoted();
    assert_eq!(copy.ledger(), lines_of(1..=1), "{}", copy.story());
}
