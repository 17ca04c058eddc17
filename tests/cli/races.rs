//! Two servers that push different files of one name at the same time.

use crate::util::{CLUSTER, MIB, Run, Sandbox, rounds, segment};
use std::fs;
use std::sync::Barrier;

#[test]
fn of_two_primaries_exactly_one_wins_each_round() {
    let sandbox = Sandbox::new();
    let primaries = [sandbox.data(), sandbox.make_data_directory("other", CLUSTER)];
    let rounds = rounds("WAL_ARCHIVE_RACES", 200);
    let mut wins = [0; 2];
    for round in 0..rounds {
        let name = format!("00000001{:08X}{:08X}", round / 4096, round % 4096);
        let contents = [1, 2].map(|seed| segment(&name, MIB, CLUSTER, seed + 2 * round as u64));
        for (primary, content) in primaries.iter().zip(&contents) {
            fs::write(primary.join("pg_wal").join(&name), content).unwrap();
        }
        let start = Barrier::new(2);
        let push = |primary: &std::path::Path| {
            let mut command = sandbox.program("wal-push");
            command
                .current_dir(primary)
                .arg("--archive")
                .arg(sandbox.archive())
                .arg(format!("pg_wal/{name}"));
            start.wait();
            Run::of(&mut command)
        };
        let runs = std::thread::scope(|scope| {
            let other = scope.spawn(|| push(&primaries[1]));
            [push(&primaries[0]), other.join().unwrap()]
        });
        let winner =
            runs.iter().position(|run| run.code == Some(0)).unwrap_or_else(|| panic!("nobody won: {runs:?}"));
        assert_eq!(runs[1 - winner].code, Some(12), "round {round}: {runs:?}");
        wins[winner] += 1;
        sandbox.fetch(&name, &[]).succeeds();
        assert!(sandbox.fetched() == contents[winner], "round {round}: the archived object is the winner's");
        for primary in &primaries {
            fs::remove_file(primary.join("pg_wal").join(&name)).unwrap();
        }
    }
    assert_eq!(sandbox.objects().len(), rounds, "one object a round and nothing else");
    println!("{rounds} rounds, wins {wins:?}");
}
