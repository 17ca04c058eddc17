//! Two servers that push different files of one name at the same time.

use crate::util::{Sandbox, race, rounds};

#[test]
fn of_two_primaries_exactly_one_wins_each_round() {
    let sandbox = Sandbox::new();
    let rounds = rounds("WAL_ARCHIVE_RACES", 200);
    let program = |name: &str| {
        let mut command = sandbox.program(name);
        command.env("WAL_ARCHIVE", sandbox.archive());
        command
    };
    race(&sandbox, rounds, &program);
    assert_eq!(sandbox.objects().len(), rounds, "one object a round and nothing else");
}
