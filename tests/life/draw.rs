//! A next step for a life, drawn by chance from what the world has.

use crate::destination::{Outage, Sort};
use crate::rng::Rng;
use crate::step::{Archiving, Snapshot, Step, Target};
use crate::world::World;

const NAMES: [char; 8] = ['B', 'C', 'D', 'E', 'F', 'G', 'H', 'I'];

/// One or two destinations.
pub fn destinations(rng: &mut Rng) -> Vec<Sort> {
    match rng.below(10) {
        0..4 => vec![Sort::Directory],
        4..6 => vec![Sort::Bucket],
        6 => vec![Sort::Careless],
        7 => vec![Sort::Directory, Sort::Directory],
        8 => vec![Sort::Directory, Sort::Bucket],
        _ => vec![Sort::Bucket, Sort::Directory],
    }
}

/// What happens in a life in this order, with whatever else between, so that what takes many steps
/// in a row is not left to chance alone.
pub fn plot(rng: &mut Rng, destinations: &[Sort]) -> Vec<Step> {
    let mut steps = vec![Step::Backup('A'), Step::Write('A', 2)];
    let plot = match destinations {
        [Sort::Careless] if rng.percent(60) => 6,
        _ => rng.below(9),
    };
    match plot {
        // A timeline whose history is lost.
        8 => steps.extend([
            Step::Standby { of: 'A', name: 'B', archiving: Archiving::On },
            Step::Archive { server: 'A', files: 9, look_ahead: 0 },
            Step::Promote { server: 'B', archiving: Archiving::On, blind: false },
            Step::Switch('B'),
            Step::Archive { server: 'B', files: 9, look_ahead: 0 },
            Step::RemoveEverywhere { object: 2 },
            Step::Recover { backup: 0, snapshot: Snapshot::Nothing, target: Target::Latest },
        ]),
        // A snapshot with half of a segment.
        7 => steps.extend([
            Step::CopyWal { of: 'A', backup: 0 },
            Step::Switch('A'),
            Step::Write('A', 1),
            Step::Switch('A'),
            Step::Archive { server: 'A', files: 9, look_ahead: 0 },
            Step::RemoveEverywhere { object: rng.below(5) as u8 },
            Step::Recover { backup: 0, snapshot: Snapshot::Torn, target: Target::Latest },
        ]),
        // Two servers that both believe to be the next primary, while a setting is tried out.
        6 => steps.extend([
            Step::Unconditional(0, true),
            Step::Switch('A'),
            Step::Archive { server: 'A', files: 4, look_ahead: 0 },
            Step::Standby { of: 'A', name: 'B', archiving: Archiving::On },
            Step::Standby { of: 'A', name: 'C', archiving: Archiving::On },
            Step::Write('A', 1),
            Step::Stream { server: 'C', replay: true },
            Step::Promote { server: 'B', archiving: Archiving::On, blind: false },
            Step::Promote { server: 'C', archiving: Archiving::On, blind: rng.percent(50) },
            Step::Switch('B'),
            Step::Archive { server: 'B', files: 4, look_ahead: 0 },
            Step::Unconditional(0, false),
            Step::Switch('C'),
            Step::Archive { server: 'C', files: 4, look_ahead: 4 },
        ]),
        // A standby, and another one that lives from it.
        0 => steps.extend([
            Step::Standby { of: 'A', name: 'B', archiving: archiving(rng) },
            Step::Standby { of: 'B', name: 'C', archiving: Archiving::Always },
            Step::Stream { server: 'B', replay: true },
            Step::Stream { server: 'C', replay: true },
            Step::Write('A', 1),
            Step::Stream { server: 'B', replay: rng.percent(70) },
            Step::Stream { server: 'C', replay: true },
            Step::Promote { server: 'B', archiving: archiving(rng), blind: rng.percent(20) },
            Step::Stream { server: 'C', replay: true },
            Step::Archive { server: 'C', files: 4, look_ahead: 0 },
            Step::Write('A', 1),
            Step::Switch('A'),
            Step::Archive { server: 'A', files: 4, look_ahead: 0 },
        ]),
        1 => steps.extend([
            Step::Standby { of: 'A', name: 'B', archiving: archiving(rng) },
            Step::Stream { server: 'B', replay: rng.percent(70) },
            Step::Write('A', 1),
            Step::Stream { server: 'B', replay: rng.percent(70) },
            Step::Promote { server: 'B', archiving: archiving(rng), blind: rng.percent(20) },
            Step::SetArchiving('B', Archiving::On),
            Step::Switch('B'),
            Step::Checkpoint('B'),
            Step::Archive { server: 'B', files: 4, look_ahead: 0 },
        ]),
        // An archive with something in it.
        2 | 3 => steps.extend([
            Step::Switch('A'),
            Step::Write('A', 1),
            Step::Switch('A'),
            Step::Archive { server: 'A', files: 4, look_ahead: 0 },
        ]),
        _ => {}
    }
    steps
}

fn archiving(rng: &mut Rng) -> Archiving {
    rng.pick(&[Archiving::On, Archiving::On, Archiving::Off, Archiving::Always])
}

/// What may happen next.
pub fn step(rng: &mut Rng, world: &World) -> Step {
    let servers: Vec<char> = world.nodes.keys().copied().collect();
    let standbys: Vec<char> =
        world.nodes.values().filter(|node| node.upstream.is_some()).map(|node| node.name).collect();
    let primaries: Vec<char> =
        world.nodes.values().filter(|node| node.upstream.is_none()).map(|node| node.name).collect();
    let new = NAMES.into_iter().find(|name| !world.nodes.contains_key(name)).unwrap_or('I');
    let byte = |rng: &mut Rng| rng.below(256) as u8;
    let snapshot =
        |rng: &mut Rng| rng.pick(&[Snapshot::Nothing, Snapshot::Nothing, Snapshot::Torn, Snapshot::Whole]);
    let target = |rng: &mut Rng| match rng.below(4) {
        0 => Target::Current,
        1 => Target::Timeline(1 + rng.below(3) as u32),
        _ => Target::Latest,
    };
    let object = |rng: &mut Rng| {
        // Histories are few, and others live by them.
        let objects = world.destinations[0].objects();
        let is_history = |key: &&String| key.contains(".history.");
        let history = objects.keys().position(|key| is_history(&key)).filter(|_| rng.percent(30));
        history.map_or_else(|| rng.below(256), |index| index as u64) as u8
    };
    let primary = if primaries.is_empty() { 'A' } else { rng.pick(&primaries) };
    let any = if servers.is_empty() { 'A' } else { rng.pick(&servers) };
    match rng.below(100) {
        0..16 => Step::Write(primary, 1 + rng.below(3) as u8),
        16..20 => Step::Fill(primary),
        20..34 => Step::Switch(primary),
        34..38 => Step::Checkpoint(any),
        38..39 => match rng.below(3) {
            0 => Step::Backup(primary),
            _ => Step::CopyWal { of: any, backup: byte(rng) },
        },
        39..52 => Step::Archive {
            server: any,
            files: 1 + rng.below(4) as u8,
            look_ahead: if rng.percent(35) { 4 } else { 0 },
        },
        52..55 => Step::ArchiveKilled {
            server: any,
            look_ahead: if rng.percent(50) { 4 } else { 0 },
            destination: byte(rng),
            requests: rng.below(8) as u8,
        },
        55..60 => Step::Standby { of: any, name: new, archiving: archiving(rng) },
        60..68 => Step::Stream {
            server: if standbys.is_empty() { 'B' } else { rng.pick(&standbys) },
            replay: rng.percent(75),
        },
        68..72 => Step::Promote {
            server: if standbys.is_empty() { 'B' } else { rng.pick(&standbys) },
            archiving: archiving(rng),
            blind: rng.percent(20),
        },
        72..74 => Step::SetArchiving(any, archiving(rng)),
        74..76 => Step::Lose(any),
        76..78 => Step::Restore {
            backup: byte(rng),
            name: new,
            snapshot: snapshot(rng),
            target: target(rng),
            archiving: archiving(rng),
        },
        78..83 => Step::Recover { backup: byte(rng), snapshot: snapshot(rng), target: target(rng) },
        83..86 => Step::Fail(byte(rng), rng.pick(&Outage::ALL)),
        86..89 => Step::Heal,
        89..91 => match rng.below(10) {
            0 | 1 => Step::Verify,
            2 | 8 => Step::Check(any),
            3 => Step::Drain(any),
            4 => Step::Copy { from: byte(rng), to: byte(rng), repair: rng.percent(60) },
            5 => Step::Expire { more: rng.below(2) as u8 },
            6 | 7 => Step::Unconditional(byte(rng), rng.percent(50)),
            _ => Step::DropSpool(any),
        },
        91..92 => Step::Damage { destination: byte(rng), object: object(rng) },
        92..93 => Step::Remove { destination: byte(rng), object: object(rng) },
        93..95 => Step::RemoveEverywhere { object: object(rng) },
        95..97 => Step::Quarantine { destination: byte(rng), object: object(rng) },
        97..98 => Step::Verify,
        _ => match rng.below(6) {
            0 => Step::Jump(-1),
            1 => Step::SetSpool(any, rng.percent(50)),
            2 => Step::KillNext { destination: byte(rng), requests: rng.below(8) as u8 },
            3 => Step::Clone { of: any, name: new, spool: rng.percent(50), standby: rng.percent(60) },
            _ => Step::Jump(1),
        },
    }
}
