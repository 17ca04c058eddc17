//! New lives, by chance, and those that broke a promise once.

use crate::destination::Outage;
use crate::destination::Sort::{self, Bucket, Careless, Directory};
use crate::lives::{Broken, kind, live, replay, shrink};
use crate::step::Snapshot::{Nothing, Torn, Whole};
use crate::step::Step::{self, *};
use crate::step::{Archiving::*, Life, Programs, Target};
use std::collections::BTreeMap;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

fn number(variable: &str, without: u64) -> u64 {
    std::env::var(variable).map_or(without, |text| text.parse().expect("a number"))
}

/// Lives lives until the time is over, at least one. `WAL_ARCHIVE_LIFE_ALL`: a broken one is not the
/// last.
fn live_on(programs: Programs, seconds: u64) {
    let end = Instant::now() + Duration::from_secs(number("WAL_ARCHIVE_LIFE_SECONDS", seconds));
    let first = number("WAL_ARCHIVE_LIFE_SEED", 1);
    let most = number("WAL_ARCHIVE_LIVES", u64::MAX);
    let go_on = std::env::var("WAL_ARCHIVE_LIFE_ALL").is_ok();
    let (next, lived, stop) = (AtomicU64::new(0), AtomicU64::new(0), AtomicBool::new(false));
    let broken: Mutex<Vec<(u64, Broken)>> = Mutex::default();
    let work = || {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            let over = number > 0 && Instant::now() >= end;
            if over || number >= most || stop.load(Ordering::Relaxed) {
                return;
            }
            let seed = first.wrapping_add(number);
            if let Err(one) = live(programs, seed) {
                stop.store(!go_on, Ordering::Relaxed);
                broken.lock().unwrap().push((seed, one));
            }
            lived.fetch_add(1, Ordering::Relaxed);
        }
    };
    std::thread::scope(|scope| {
        (0..number("WAL_ARCHIVE_LIFE_THREADS", 4)).for_each(|_| drop(scope.spawn(work)));
    });
    println!("{} lives, from seed {first}", lived.into_inner());
    let broken = broken.into_inner().unwrap();
    let count = broken.len();
    let mut kinds: BTreeMap<String, Vec<(u64, Broken)>> = BTreeMap::new();
    for (seed, one) in broken {
        kinds.entry(kind(&one.why)).or_default().push((seed, one));
    }
    for mut alike in kinds.into_values() {
        alike.sort_by_key(|(_, one)| one.life.steps.len());
        let times = alike.len();
        let (seed, one) = alike.swap_remove(0);
        let one = shrink(one);
        println!("seed {seed}, {times} times: {}\n{}", one.why, one.life.as_test());
    }
    assert!(count == 0, "{count} lives broke a promise");
}

#[test]
fn no_life_breaks_a_promise() {
    live_on(Programs::Library, 20);
}

#[test]
fn no_life_over_encrypted_archives_breaks_a_promise() {
    live_on(Programs::Encrypted, 20);
}

#[test]
fn no_life_of_the_real_programs_breaks_a_promise() {
    live_on(Programs::Real, 10);
}

#[track_caller]
fn holds(programs: Programs, destinations: &[Sort], steps: &[Step]) {
    let encrypted = (programs == Programs::Library).then_some(Programs::Encrypted);
    for programs in [programs].into_iter().chain(encrypted) {
        let life = Life { programs, destinations: destinations.to_vec(), steps: steps.to_vec() };
        if let Err(why) = replay(&life) {
            panic!("{programs:?}: {why}");
        }
    }
}

#[test]
fn a_mark_is_void_once_its_object_was_removed() {
    let steps = [
        Backup('A'),
        Switch('A'),
        Fill('A'),
        Switch('A'),
        Archive { server: 'A', files: 3, look_ahead: 4 },
        RemoveEverywhere { object: 203 },
    ];
    holds(Programs::Library, &[Directory], &steps);
}

#[test]
fn a_segment_that_a_cascading_standby_archived_cut_does_not_take_the_name_of_the_whole_one() {
    let steps = [
        Backup('A'),
        Switch('A'),
        Standby { of: 'A', name: 'B', archiving: Off },
        Archive { server: 'A', files: 3, look_ahead: 4 },
        Standby { of: 'B', name: 'C', archiving: Always },
        Write('A', 1),
        Stream { server: 'B', replay: true },
        Promote { server: 'B', archiving: Off, blind: false },
        Stream { server: 'C', replay: true },
        Archive { server: 'C', files: 4, look_ahead: 0 },
        Write('A', 1),
        Switch('A'),
    ];
    for sort in [Directory, Bucket] {
        holds(Programs::Library, &[sort], &steps);
    }
}

#[test]
fn a_server_promoted_with_archiving_off_stores_its_history_before_its_segments() {
    let steps = [
        Backup('A'),
        Standby { of: 'A', name: 'B', archiving: On },
        Switch('A'),
        Promote { server: 'B', archiving: Off, blind: true },
        SetArchiving('B', On),
        Switch('B'),
    ];
    for sort in [Directory, Bucket] {
        holds(Programs::Library, &[sort], &steps);
    }
}

#[test]
fn a_bucket_that_ignores_conditions_is_not_believed_for_what_another_setting_accepted() {
    let steps = [
        Backup('A'),
        Unconditional(0, true),
        Standby { of: 'A', name: 'B', archiving: On },
        Standby { of: 'A', name: 'C', archiving: On },
        Write('A', 1),
        Stream { server: 'C', replay: true },
        Promote { server: 'B', archiving: On, blind: true },
        Promote { server: 'C', archiving: On, blind: true },
        Switch('B'),
        Archive { server: 'B', files: 4, look_ahead: 0 },
        Archive { server: 'C', files: 4, look_ahead: 0 },
        Unconditional(0, false),
        Archive { server: 'C', files: 4, look_ahead: 0 },
    ];
    holds(Programs::Library, &[Careless], &steps);
}

#[test]
fn an_unmounted_folder_of_objects_is_no_end_of_the_archive() {
    for outage in [Outage::Dangling, Outage::EmptyFolder] {
        let steps = [
            Backup('A'),
            Archive { server: 'A', files: 4, look_ahead: 0 },
            Fail(0, outage),
            Recover { backup: 0, snapshot: Torn, target: Target::Current },
            Recover { backup: 0, snapshot: Nothing, target: Target::Latest },
        ];
        holds(Programs::Library, &[Directory], &steps);
    }
}

#[test]
fn a_lost_history_stops_a_recovery_that_would_give_its_timeline_away_again() {
    let steps = [
        Backup('A'),
        Standby { of: 'A', name: 'B', archiving: On },
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Stream { server: 'B', replay: true },
        Promote { server: 'B', archiving: On, blind: false },
        Switch('B'),
        Archive { server: 'B', files: 4, look_ahead: 0 },
        // The histories come first.
        RemoveEverywhere { object: 2 },
        Recover { backup: 0, snapshot: Nothing, target: Target::Latest },
    ];
    for sort in [Directory, Bucket] {
        holds(Programs::Library, &[sort], &steps);
    }
}

#[test]
fn a_half_written_copy_in_pg_wal_does_not_close_a_hole() {
    let steps = [
        Backup('A'),
        Write('A', 1),
        // The snapshot has half of the segment that is lost in the archive.
        CopyWal { of: 'A', backup: 0 },
        Switch('A'),
        Write('A', 1),
        Switch('A'),
        Archive { server: 'A', files: 9, look_ahead: 0 },
        RemoveEverywhere { object: 2 },
        Recover { backup: 0, snapshot: Torn, target: Target::Latest },
    ];
    for sort in [Directory, Bucket] {
        holds(Programs::Library, &[sort], &steps);
    }
}

#[test]
fn a_history_that_was_moved_aside_damaged_is_not_replaced_by_that_of_another_server() {
    let steps = [
        Backup('A'),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Standby { of: 'A', name: 'B', archiving: On },
        Standby { of: 'A', name: 'C', archiving: On },
        Write('A', 1),
        Stream { server: 'C', replay: true },
        Promote { server: 'B', archiving: On, blind: false },
        Promote { server: 'C', archiving: On, blind: true },
        Switch('B'),
        Archive { server: 'B', files: 4, look_ahead: 0 },
        // The first object of timeline 2, its history.
        Damage { destination: 0, object: 2 },
    ];
    holds(Programs::Library, &[Directory, Directory], &steps);
    holds(Programs::Library, &[Bucket, Directory], &steps);
}

#[test]
fn what_is_missing_before_an_unfinished_segment_is_found_by_verify_as_by_a_recovery() {
    let steps = [
        Backup('A'),
        Write('A', 2),
        Switch('A'),
        Write('A', 1),
        Switch('A'),
        Archive { server: 'A', files: 9, look_ahead: 0 },
        RemoveEverywhere { object: 3 },
        Write('A', 2),
        Drain('A'),
        Verify,
    ];
    for sort in [Directory, Bucket] {
        holds(Programs::Library, &[sort], &steps);
    }
}

#[test]
fn the_segments_of_a_server_that_parted_are_not_drained_behind_the_others() {
    let steps = [
        Backup('A'),
        Write('A', 2),
        Standby { of: 'A', name: 'B', archiving: Off },
        Standby { of: 'B', name: 'C', archiving: Always },
        Clone { of: 'C', name: 'D', spool: true, standby: false },
        Write('A', 1),
        Switch('D'),
        Switch('A'),
        Write('D', 2),
        Archive { server: 'A', files: 3, look_ahead: 4 },
        Switch('D'),
        Fill('D'),
        Drain('D'),
    ];
    for sort in [Directory, Bucket] {
        holds(Programs::Library, &[sort], &steps);
    }
}

#[test]
fn what_is_missing_before_a_fork_is_found_by_verify_as_by_a_recovery() {
    let steps = [
        Backup('A'),
        Archive { server: 'A', files: 9, look_ahead: 0 },
        Standby { of: 'A', name: 'B', archiving: On },
        Write('A', 1),
        Switch('A'),
        Stream { server: 'B', replay: true },
        Promote { server: 'B', archiving: On, blind: false },
        // Its history alone; the segment before the fork is still with A.
        Archive { server: 'B', files: 1, look_ahead: 0 },
        Verify,
    ];
    holds(Programs::Library, &[Directory], &steps);
}

#[test]
fn where_only_a_timelines_history_is_archived_verify_tells_no_end_of_a_recovery_along_it() {
    let steps = [
        Backup('A'),
        Standby { of: 'A', name: 'B', archiving: On },
        Standby { of: 'B', name: 'C', archiving: Always },
        Promote { server: 'B', archiving: Off, blind: true },
        Stream { server: 'C', replay: true },
        Archive { server: 'C', files: 4, look_ahead: 0 },
        // The old primary goes on, and its segment serves whoever follows the new timeline.
        Write('A', 3),
        Switch('A'),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Verify,
    ];
    holds(Programs::Library, &[Bucket], &steps);
}

#[test]
fn the_history_of_a_server_that_archived_nothing_else_is_not_replaced_by_another_ones() {
    let steps = [
        Backup('A'),
        Write('A', 2),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Standby { of: 'A', name: 'B', archiving: On },
        Standby { of: 'A', name: 'C', archiving: On },
        Write('A', 1),
        Stream { server: 'C', replay: true },
        Promote { server: 'B', archiving: On, blind: false },
        Promote { server: 'C', archiving: On, blind: true },
        Archive { server: 'B', files: 4, look_ahead: 0 },
        Damage { destination: 76, object: 3 },
    ];
    holds(Programs::Library, &[Directory, Directory], &steps);
}

#[test]
fn check_misses_the_segment_in_which_a_backup_begins() {
    let steps = [
        Backup('A'),
        Write('A', 2),
        Switch('A'),
        Write('A', 1),
        Switch('A'),
        Archive { server: 'A', files: 2, look_ahead: 4 },
        RemoveEverywhere { object: 17 },
        Check('A'),
    ];
    holds(Programs::Library, &[Bucket], &steps);
}

#[test]
fn verify_tells_no_end_along_a_timeline_that_another_one_left_before_it_began() {
    let steps = [
        Backup('A'),
        Standby { of: 'A', name: 'B', archiving: On },
        Standby { of: 'B', name: 'C', archiving: Always },
        Archive { server: 'A', files: 3, look_ahead: 0 },
        Promote { server: 'B', archiving: On, blind: false },
        Stream { server: 'C', replay: true },
        Archive { server: 'C', files: 4, look_ahead: 0 },
        Write('A', 1),
        Switch('A'),
        Restore { backup: 212, name: 'D', snapshot: Nothing, target: Target::Latest, archiving: Always },
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Archive { server: 'D', files: 4, look_ahead: 0 },
        Verify,
    ];
    holds(Programs::Library, &[Bucket], &steps);
}

#[test]
fn a_segment_that_was_moved_aside_is_not_replaced_by_a_clones_while_another_destination_has_it() {
    let steps = [
        Backup('A'),
        Write('A', 2),
        Switch('A'),
        Standby { of: 'A', name: 'B', archiving: Off },
        Write('A', 1),
        Stream { server: 'B', replay: true },
        Write('A', 1),
        Switch('A'),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Damage { destination: 132, object: 187 },
        Standby { of: 'B', name: 'E', archiving: On },
        Lose('B'),
        Clone { of: 'E', name: 'B', spool: true, standby: false },
        Switch('B'),
    ];
    holds(Programs::Library, &[Directory, Directory], &steps);
}

#[test]
fn the_loser_of_a_split_brain_leaves_no_segment_behind_the_winners() {
    let steps = [
        Backup('A'),
        Write('A', 2),
        Clone { of: 'A', name: 'B', spool: false, standby: false },
        Standby { of: 'A', name: 'D', archiving: Off },
        Switch('B'),
        Write('A', 3),
        Switch('A'),
        Write('A', 1),
        Switch('A'),
        Archive { server: 'B', files: 4, look_ahead: 0 },
        Stream { server: 'D', replay: true },
        Archive { server: 'A', files: 4, look_ahead: 4 },
        Promote { server: 'D', archiving: Always, blind: false },
        Switch('D'),
    ];
    holds(Programs::Library, &[Bucket], &steps);
}

#[test]
fn a_history_that_only_a_server_has_still_is_copied_by_hand() {
    let segments_are_gone = [
        Backup('A'),
        Write('A', 2),
        Standby { of: 'A', name: 'B', archiving: On },
        Archive { server: 'A', files: 9, look_ahead: 0 },
        Promote { server: 'B', archiving: On, blind: false },
        Switch('B'),
        RemoveEverywhere { object: 2 },
        Archive { server: 'B', files: 4, look_ahead: 0 },
        Checkpoint('B'),
        Switch('B'),
        Damage { destination: 177, object: 38 },
        RemoveEverywhere { object: 3 },
    ];
    let of_an_upstream = [
        Backup('A'),
        Standby { of: 'A', name: 'B', archiving: On },
        Switch('A'),
        Archive { server: 'A', files: 9, look_ahead: 0 },
        Promote { server: 'B', archiving: On, blind: false },
        Switch('B'),
        Archive { server: 'B', files: 9, look_ahead: 0 },
        RemoveEverywhere { object: 2 },
        Standby { of: 'B', name: 'C', archiving: On },
        Damage { destination: 99, object: 3 },
        RemoveEverywhere { object: 148 },
        Standby { of: 'C', name: 'D', archiving: Off },
        Promote { server: 'D', archiving: On, blind: false },
    ];
    holds(Programs::Library, &[Directory], &segments_are_gone);
    holds(Programs::Library, &[Bucket], &of_an_upstream);
}

#[test]
fn check_misses_what_a_restored_server_archived_into_an_emptied_folder() {
    let steps = [
        Backup('A'),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Restore { backup: 253, name: 'B', snapshot: Torn, target: Target::Latest, archiving: On },
        Switch('B'),
        Archive { server: 'B', files: 4, look_ahead: 0 },
        Fail(156, Outage::EmptyFolder),
        Check('B'),
    ];
    holds(Programs::Library, &[Directory], &steps);
}

#[test]
fn what_others_removed_leaves_its_name_to_the_look_ahead_of_a_clone() {
    let steps = [
        Backup('A'),
        Archive { server: 'A', files: 4, look_ahead: 4 },
        Fill('A'),
        Switch('A'),
        Write('A', 1),
        Clone { of: 'A', name: 'C', spool: false, standby: false },
        Write('A', 1),
        Switch('C'),
        Switch('A'),
        Archive { server: 'A', files: 9, look_ahead: 0 },
        RemoveEverywhere { object: 4 },
        RemoveEverywhere { object: 62 },
        Archive { server: 'C', files: 1, look_ahead: 4 },
        Restore { backup: 223, name: 'E', snapshot: Nothing, target: Target::Current, archiving: Off },
    ];
    holds(Programs::Library, &[Bucket], &steps);
}

#[test]
fn a_history_that_others_removed_leaves_its_name_to_that_of_a_server_promoted_blind() {
    let steps = [
        Backup('A'),
        Write('A', 2),
        Archive { server: 'A', files: 2, look_ahead: 4 },
        Standby { of: 'A', name: 'B', archiving: On },
        Restore { backup: 17, name: 'C', snapshot: Whole, target: Target::Latest, archiving: On },
        RemoveEverywhere { object: 27 },
        Archive { server: 'C', files: 1, look_ahead: 0 },
        Promote { server: 'B', archiving: Off, blind: true },
        SetArchiving('B', On),
        Switch('B'),
        RemoveEverywhere { object: 103 },
    ];
    holds(Programs::Library, &[Directory], &steps);
}

#[test]
fn a_history_that_one_destination_refuses_is_stored_at_none() {
    let steps = [
        Backup('A'),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Standby { of: 'A', name: 'B', archiving: On },
        Standby { of: 'A', name: 'C', archiving: On },
        Write('A', 1),
        Stream { server: 'C', replay: true },
        Promote { server: 'B', archiving: On, blind: false },
        Promote { server: 'C', archiving: On, blind: true },
        Switch('B'),
        Archive { server: 'B', files: 4, look_ahead: 0 },
        RemoveEverywhere { object: 18 },
        Remove { destination: 128, object: 71 },
    ];
    holds(Programs::Library, &[Directory, Directory], &steps);
}

#[test]
fn a_history_that_others_removed_is_replaced_while_the_destination_that_has_it_cannot_be_asked() {
    let steps = [
        Backup('A'),
        Write('A', 2),
        Archive { server: 'A', files: 2, look_ahead: 0 },
        Standby { of: 'A', name: 'B', archiving: On },
        Standby { of: 'B', name: 'C', archiving: Always },
        Promote { server: 'B', archiving: Off, blind: true },
        Stream { server: 'C', replay: true },
        Archive { server: 'C', files: 4, look_ahead: 0 },
        Switch('A'),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Lose('C'),
        Remove { destination: 158, object: 4 },
        Standby { of: 'A', name: 'C', archiving: On },
        Fail(59, Outage::Denied),
        Promote { server: 'C', archiving: On, blind: true },
        Archive { server: 'C', files: 1, look_ahead: 0 },
    ];
    holds(Programs::Library, &[Bucket, Directory], &steps);
}

#[test]
fn the_backup_of_a_server_that_lost_its_timeline_to_another_leads_nowhere() {
    let steps = [
        Switch('A'),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Standby { of: 'A', name: 'B', archiving: On },
        Standby { of: 'A', name: 'C', archiving: On },
        Write('A', 1),
        Stream { server: 'C', replay: true },
        Promote { server: 'B', archiving: On, blind: false },
        Promote { server: 'C', archiving: On, blind: false },
        Switch('B'),
        Write('B', 3),
        Switch('B'),
        Backup('C'),
    ];
    holds(Programs::Library, &[Careless], &steps);
}

#[test]
fn an_unfinished_segment_of_another_timeline_in_a_copied_pg_wal_does_not_take_the_whole_ones_name() {
    // The old primary ran on, and a restored server follows it, with what was saved of the new one's pg_wal.
    let steps = [
        Backup('A'),
        Archive { server: 'A', files: 9, look_ahead: 0 },
        Write('A', 1),
        Standby { of: 'A', name: 'B', archiving: On },
        Promote { server: 'B', archiving: On, blind: false },
        CopyWal { of: 'B', backup: 0 },
        Switch('A'),
        Archive { server: 'A', files: 9, look_ahead: 0 },
        Restore { backup: 0, name: 'D', snapshot: Whole, target: Target::Timeline(1), archiving: Always },
        Switch('D'),
        Checkpoint('D'),
    ];
    for destinations in [&[Directory][..], &[Bucket], &[Directory, Bucket]] {
        holds(Programs::Library, destinations, &steps);
    }
}

#[test]
fn what_lies_behind_the_fork_in_a_copied_pg_wal_is_archived_by_nobody() {
    let steps = [
        Backup('A'),
        Archive { server: 'A', files: 2, look_ahead: 0 },
        Standby { of: 'A', name: 'B', archiving: On },
        Promote { server: 'B', archiving: On, blind: false },
        CopyWal { of: 'B', backup: 246 },
        Restore { backup: 133, name: 'D', snapshot: Whole, target: Target::Timeline(1), archiving: Always },
        Switch('D'),
        Checkpoint('D'),
    ];
    holds(Programs::Library, &[Bucket], &steps);
}

#[test]
fn a_server_restored_before_the_first_segment_of_its_timeline_was_archived_goes_astray_by_postgresql_alone() {
    let steps = [
        Backup('A'),
        Write('A', 1),
        Standby { of: 'A', name: 'B', archiving: Always },
        Switch('A'),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Promote { server: 'B', archiving: On, blind: false },
        Archive { server: 'B', files: 1, look_ahead: 0 },
        Switch('B'),
        Restore { backup: 114, name: 'C', snapshot: Nothing, target: Target::Latest, archiving: On },
        Fill('C'),
        Fill('C'),
    ];
    for sort in [Directory, Bucket] {
        holds(Programs::Library, &[sort], &steps);
    }
}

#[test]
fn a_timeline_behind_what_a_clone_on_its_parent_archived_first_goes_astray_by_postgresql_alone() {
    let steps = [
        Standby { of: 'A', name: 'B', archiving: On },
        Backup('A'),
        Clone { of: 'B', name: 'C', spool: false, standby: false },
        Stream { server: 'B', replay: true },
        Switch('C'),
        Archive { server: 'C', files: 3, look_ahead: 4 },
        Promote { server: 'B', archiving: On, blind: false },
        Fill('B'),
        Switch('B'),
        Archive { server: 'B', files: 9, look_ahead: 0 },
        Verify,
    ];
    for sort in [Directory, Bucket] {
        holds(Programs::Library, &[sort], &steps);
    }
}

#[test]
fn a_history_of_an_ancestor_that_conflicts_at_one_destination_comes_to_none() {
    let steps = [
        Backup('A'),
        Write('A', 2),
        Archive { server: 'A', files: 4, look_ahead: 0 },
        Standby { of: 'A', name: 'B', archiving: On },
        Standby { of: 'A', name: 'C', archiving: On },
        Write('A', 1),
        Stream { server: 'C', replay: true },
        Promote { server: 'B', archiving: On, blind: false },
        Promote { server: 'C', archiving: On, blind: false },
        Switch('B'),
        Archive { server: 'B', files: 4, look_ahead: 0 },
        Standby { of: 'C', name: 'F', archiving: Off },
        Standby { of: 'F', name: 'G', archiving: On },
        Damage { destination: 142, object: 123 },
        Promote { server: 'G', archiving: On, blind: false },
    ];
    holds(Programs::Library, &[Directory, Directory], &steps);
}
