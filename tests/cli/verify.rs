//! `wal-archive verify`.

use crate::util::{CLUSTER, MIB, Run, Sandbox, flip, segment};
use serde_json::Value;
use std::fs;
use std::path::Path;

const BACKUP: &str = "000000010000000000000015.00000028.backup";
const LOST: &str = "000000010000000000000016..000000010000000000000019";

/// The real archive from `1A` on, where nothing is missing.
fn whole() -> Sandbox {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    take_out(&sandbox, "000000010000000000000015");
    take_out(&sandbox, BACKUP);
    sandbox
}

fn take_out(sandbox: &Sandbox, name: &str) {
    fs::remove_file(sandbox.object(name)).unwrap();
}

/// Archives made-up segments of timeline 1.
fn made_up(names: &[&str]) -> Sandbox {
    let sandbox = Sandbox::new();
    for name in names {
        put(&sandbox, name, 1);
    }
    sandbox
}

fn put(sandbox: &Sandbox, name: &str, seed: u64) {
    sandbox.wal(name, &segment(name, MIB, CLUSTER, seed));
    let run = sandbox.push(name, &[]);
    assert_eq!(run.code, Some(0), "{run:?}");
    sandbox.age(name);
}

#[track_caller]
fn sound(sandbox: &Sandbox, args: &[&str]) -> String {
    let told = sandbox.admin("verify", args).told(0, sandbox);
    assert!(told.lines().last().unwrap().starts_with("sound: "), "{told}");
    told
}

/// The findings, as `kind name`.
#[track_caller]
fn findings(sandbox: &Sandbox, args: &[&str]) -> Vec<String> {
    let told = sandbox.admin("verify", &[args, &["--json"]].concat()).told(1, sandbox);
    findings_of(&serde_json::from_str(&told).unwrap())
}

fn findings_of(json: &Value) -> Vec<String> {
    let text = |finding: &Value, key: &str| finding[key].as_str().unwrap().to_owned();
    let all = json["findings"].as_array().unwrap();
    all.iter().map(|finding| format!("{} {}", text(finding, "kind"), text(finding, "name"))).collect()
}

fn recoverable(sandbox: &Sandbox, code: i32, args: &[&str]) -> Vec<Value> {
    let told = sandbox.admin("verify", &[args, &["--json"]].concat()).told(code, sandbox);
    serde_json::from_str::<Value>(&told).unwrap()["recoverable"].as_array().unwrap().clone()
}

#[test]
fn a_whole_archive_is_sound_at_every_depth() {
    let sandbox = whole();
    for depth in [&[][..], &["--quick"], &["--records"], &["--jobs", "1"], &["--records", "--jobs", "7"]] {
        sound(&sandbox, depth);
    }
}

#[test]
fn the_segment_of_a_switch_point_may_stand_on_the_child_timeline_only() {
    let sandbox = whole();
    take_out(&sandbox, "00000001000000000000001B");
    sound(&sandbox, &["--records"]);
    take_out(&sandbox, "00000001000000000000001B.partial");
    sound(&sandbox, &["--records"]);
}

#[test]
fn an_old_primary_may_have_run_on_past_the_switch_point() {
    let sandbox = whole();
    // It knows nothing of the promotion.
    fs::remove_file(sandbox.data().join("pg_wal/00000002.history")).unwrap();
    // Its 1B ends in a switch, as a real one's does; what follows is not a chain made here.
    for name in ["00000001000000000000001C", "00000001000000000000001D"] {
        put(&sandbox, name, 3);
    }
    let told = sound(&sandbox, &[]);
    let to: Vec<&str> = told.lines().filter(|line| line.starts_with("WAL alone")).collect();
    assert!(
        to[0].contains("00000001000000000000001D  to the end")
            && to[1].contains("00000002000000000000001C  to the end"),
        "{told}"
    );
}

#[test]
fn a_hole_cuts_off_what_follows_unless_it_is_accepted() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    let told = sandbox.admin("verify", &[]).told(1, &sandbox);
    let expected = format!(
        "missing {LOST} in \"/archive\": 4 segments are missing, recovery from backup \"pg_basebackup base backup\" (000000010000000000000015) ends before\n    \
         HINT: look into pg_wal of every server and standby; if it is lost, take a new base backup now, then --accept-gap {LOST}\n\n\
         timeline  newest segment            status\n       \
                1  00000001000000000000001B  1 missing\n       \
                2  00000002000000000000001C  sound\n\n\
         recoverable from           segment                   timeline  to segment\n\
         pg_basebackup base backup  000000010000000000000015         1  000000010000000000000015  not to the end\n\
         pg_basebackup base backup  000000010000000000000015         2  000000010000000000000015  not to the end\n\n\
         1 finding: 8 objects, "
    );
    assert!(told.starts_with(&expected), "{told}");
    let told = sound(&sandbox, &["--accept-gap", LOST]);
    assert!(told.starts_with(&format!("accepted {LOST} is missing")), "{told}");
    // Half of it accepted is half of it found.
    let half = ["--accept-gap", "000000010000000000000016", "--accept-gap", "000000010000000000000017"];
    assert_eq!(findings(&sandbox, &half), ["missing 000000010000000000000018..000000010000000000000019"]);
}

#[test]
fn what_is_older_than_every_backup_may_be_missing() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    put(&sandbox, "000000010000000000000009", 1);
    put(&sandbox, "000000010000000000000013", 1);
    assert_eq!(findings(&sandbox, &[]), [format!("missing {LOST}")]);
}

#[test]
fn a_backup_of_ours_needs_its_wal_though_it_left_no_backup_file_as_that_of_a_standby() {
    let segment = |number: u32| format!("0000000100000000{number:08X}");
    let sandbox = made_up(&[3, 4, 6, 7, 8].map(segment).each_ref().map(String::as_str));
    crate::terminal::backup(&sandbox, 0x0030_0028);
    let (file, content) = (format!("{}.00000028.backup", segment(7)), backup_of(&segment(7)));
    sandbox.wal(&file, content.as_bytes());
    sandbox.push(&file, &[]).succeeds();
    assert_eq!(findings(&sandbox, &[]), [format!("missing {}", segment(5))]);
    put(&sandbox, &segment(5), 1);
    sound(&sandbox, &[]);
    // The last segment that it needs is still on its way.
    crate::terminal::backup(&sandbox, 0x0090_0028);
    sound(&sandbox, &[]);
}

#[test]
fn since_begins_later_and_says_nothing_of_backups_before() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    for since in ["00000001000000000000001A", "0/1A00000", "0/1A12345"] {
        let told = sound(&sandbox, &["--since", since]);
        assert!(told.contains("WAL alone") && !told.contains("base backup"), "{told}");
    }
    assert_eq!(findings(&sandbox, &["--since", "0/1900000"]), ["missing 000000010000000000000019"]);
    put(&sandbox, "00000002000000000000001D", 1);
    let touched =
        std::process::Command::new("touch").arg(sandbox.object("00000002000000000000001D")).status();
    assert!(touched.unwrap().success());
    let told = sound(&sandbox, &["--since", "1h"]);
    assert!(told.contains("sound: 3 objects"), "1D and what is no segment: {told}");
    let told = sound(&sandbox, &["--since", "1ms"]);
    assert!(told.contains("no segment as new as"), "{told}");
    let run = sandbox.admin("verify", &["--since", "yesterday"]);
    assert!(run.code == Some(2) && run.stderr.contains("\"yesterday\""), "{run:?}");
}

#[test]
fn a_backup_is_verified_by_its_label() {
    let sandbox = Sandbox::new();
    sandbox.archive_real();
    put(&sandbox, "000000010000000000000010", 1);
    assert_eq!(findings(&sandbox, &["--backup", "pg_basebackup base backup"]), [format!("missing {LOST}")]);
    let run = sandbox.admin("verify", &["--backup", "weekly"]);
    assert!(
        run.code == Some(2) && run.stderr.contains("\"weekly\"") && run.stderr.contains("HINT:"),
        "{run:?}"
    );
}

#[test]
fn damage_is_found_by_decoding_and_a_wrong_trailer_by_a_quick_look() {
    let sandbox = whole();
    let object = sandbox.object("00000002000000000000001B");
    let bit = fs::metadata(&object).unwrap().len() as usize * 4;
    flip(&object, bit);
    assert_eq!(findings(&sandbox, &[]), ["damaged 00000002000000000000001B"]);
    assert_eq!(findings(&sandbox, &["--records"]), ["damaged 00000002000000000000001B"]);
    sound(&sandbox, &["--quick"]);
    let ways = recoverable(&sandbox, 1, &[]);
    assert_eq!((&ways[1]["to"], &ways[1]["complete"]), (&"00000001000000000000001A".into(), &false.into()));
    flip(&object, bit);
    fs::copy(sandbox.object("00000002000000000000001C"), &object).unwrap();
    assert_eq!(findings(&sandbox, &["--quick"]), ["damaged 00000002000000000000001B"]);
    fs::write(&object, "").unwrap();
    assert_eq!(findings(&sandbox, &["--quick"]), ["damaged 00000002000000000000001B"]);
}

#[test]
fn a_history_file_that_is_missing_or_damaged_is_a_finding_once() {
    let sandbox = whole();
    let history = sandbox.object("00000002.history");
    flip(&history, 100);
    assert_eq!(findings(&sandbox, &[]), ["damaged 00000002.history"]);
    fs::remove_file(history).unwrap();
    assert_eq!(findings(&sandbox, &["--quick"]), ["no-history 00000002.history"]);
}

#[test]
fn an_archive_that_began_on_a_later_timeline_needs_no_history_of_it() {
    let sandbox = made_up(&[]);
    put(&sandbox, "000000050000000000000007", 1);
    put(&sandbox, "000000050000000000000008", 1);
    sound(&sandbox, &[]);
    put(&sandbox, "000000060000000000000009", 1);
    assert_eq!(findings(&sandbox, &[]), ["no-history 00000006.history"]);
}

#[test]
fn two_objects_of_one_name_must_agree() {
    let sandbox = made_up(&["000000010000000000000001", "000000010000000000000002"]);
    let same = segment("000000010000000000000001", MIB, CLUSTER, 1);
    let bare = sandbox.archive().join("wal_005/000000010000000000000001");
    fs::write(&bare, &same).unwrap();
    sound(&sandbox, &[]);
    fs::write(&bare, segment("000000010000000000000001", MIB, CLUSTER, 2)).unwrap();
    assert_eq!(findings(&sandbox, &[]), ["conflict 000000010000000000000001"]);
}

#[test]
fn an_object_of_another_cluster_is_a_finding() {
    let sandbox = made_up(&["000000010000000000000001", "000000010000000000000003"]);
    let theirs = segment("000000010000000000000002", MIB, CLUSTER + 1, 1);
    fs::write(sandbox.archive().join("000000010000000000000002"), theirs).unwrap();
    let told = sandbox.admin("verify", &[]).told(1, &sandbox);
    assert!(told.starts_with("other-cluster 000000010000000000000002 in "), "{told}");
    assert!(told.contains(&(CLUSTER + 1).to_string()) && told.contains(&CLUSTER.to_string()), "{told}");
}

#[test]
fn an_unknown_encoding_is_never_called_missing() {
    let sandbox = made_up(&["000000010000000000000001", "000000010000000000000003"]);
    fs::write(sandbox.archive().join("wal_005/000000010000000000000002.gpg"), "x").unwrap();
    assert_eq!(findings(&sandbox, &[]), ["unknown-encoding 000000010000000000000002"]);
}

/// `verify --json` over the sandbox's archive and a second one.
fn both(sandbox: &Sandbox, second: &Path, code: i32) -> Value {
    let run = Run::of(
        sandbox
            .program("wal-archive")
            .args(["verify", "--json", "--archive"])
            .arg(sandbox.archive())
            .arg("--archive")
            .arg(second),
    );
    serde_json::from_str(&run.told(code, sandbox)).unwrap()
}

#[test]
fn destinations_are_compared_with_each_other() {
    let names = ["000000010000000000000001", "000000010000000000000002", "000000010000000000000003"];
    let sandbox = made_up(&names);
    let second = sandbox.path("second");
    assert!(
        std::process::Command::new("cp")
            .arg("-a")
            .arg(sandbox.archive())
            .arg(&second)
            .status()
            .unwrap()
            .success()
    );
    both(&sandbox, &second, 0);

    let object = |name: &str| second.join(format!("wal_005/{name}.zst"));
    let aside = sandbox.path("aside");
    fs::rename(object(names[1]), &aside).unwrap();
    let json = both(&sandbox, &second, 1);
    assert_eq!(findings_of(&json), [format!("missing {}", names[1])]);
    let finding = &json["findings"][0];
    assert!(
        finding["place"] == "/second"
            && finding["hint"].as_str().unwrap().contains("wal-archive copy /archive /second"),
        "{finding}"
    );
    assert_eq!(json["recoverable"][0]["complete"], true, "fetch finds it in the first destination");

    fs::rename(&aside, object(names[1])).unwrap();
    let other = made_up(&[]);
    put(&other, names[1], 9);
    fs::copy(other.object(names[1]), object(names[1])).unwrap();
    let json = both(&sandbox, &second, 1);
    assert_eq!(findings_of(&json), [format!("differs {}", names[1])]);

    // One that cannot be asked: nothing is known to be wrong.
    let json = both(&sandbox, &sandbox.path("unmounted"), 2);
    assert_eq!(json["verdict"], "could-not-tell");
    assert!(findings_of(&json)[0].starts_with("not-read"), "{json}");
}

#[test]
fn nothing_at_all_can_be_told_of_a_place_that_is_no_archive() {
    let sandbox = Sandbox::without_archive();
    let run = sandbox.admin("verify", &[]);
    assert!(run.code == Some(2) && run.stdout.is_empty() && run.stderr.contains("HINT:"), "{run:?}");
    let run = sandbox.admin("verify", &["--accept-gap", "x..y"]);
    assert!(run.code == Some(2) && run.stderr.contains("\"x..y\""), "{run:?}");
}

#[test]
fn a_segment_that_is_just_being_stored_is_no_gap() {
    let (first, second, third) =
        ("000000010000000000000001", "000000010000000000000002", "000000010000000000000003");
    let sandbox = made_up(&[first, third]);
    put(&sandbox, second, 1);
    let (object, aside) = (sandbox.object(second), sandbox.path("aside"));
    fs::rename(&object, &aside).unwrap();
    assert_eq!(findings(&sandbox, &[]), [format!("missing {second}")], "what follows is old");
    assert!(std::process::Command::new("touch").arg(sandbox.object(third)).status().unwrap().success());
    let mut verify = sandbox.program("wal-archive");
    verify.args(["verify", "-vv", "--archive"]).arg(sandbox.archive());
    let run = Run::acting_on(&mut verify, "listing again", || fs::rename(&aside, &object).unwrap());
    run.says(0, &["sound: 3 objects"]);
}

#[test]
fn records_tell_the_end_and_the_last_commit_of_each_branch() {
    let sandbox = whole();
    let ways = recoverable(&sandbox, 0, &["--records"]);
    let of = |way: &Value| (way["timeline"].clone(), way["end"].clone(), way["last_commit"].clone());
    // The ends and times of pg_waldump.
    assert_eq!(of(&ways[0]), (1.into(), "0/1C00000".into(), "2026-11-20T21:05:52.639220Z".into()));
    assert_eq!(of(&ways[1]), (2.into(), "0/1CFE448".into(), "2026-11-20T21:05:53.559351Z".into()));
}

#[test]
fn a_branch_ends_where_its_parent_stood_when_the_child_is_damaged() {
    let sandbox = whole();
    let object = sandbox.object("00000002000000000000001B");
    let bit = fs::metadata(&object).unwrap().len() as usize * 4;
    flip(&object, bit);
    let ways = recoverable(&sandbox, 1, &["--records"]);
    assert_eq!((&ways[0]["end"], &ways[0]["complete"]), (&"0/1C00000".into(), &true.into()));
    assert_eq!((&ways[1]["end"], &ways[1]["to"]), (&"0/1B00000".into(), &"00000001000000000000001A".into()));
    assert_eq!(ways[1]["last_commit"], "2026-11-20T21:05:49.771211Z");
}

#[test]
fn a_chain_of_records_that_breaks_before_the_end_is_a_finding() {
    let sandbox = whole();
    take_out(&sandbox, "00000002000000000000001B");
    put(&sandbox, "00000002000000000000001B", 5);
    sound(&sandbox, &[]);
    assert_eq!(findings(&sandbox, &["--records"]), ["broken-records 00000002000000000000001B"]);
    // At the very end it is only where the WAL ends.
    take_out(&sandbox, "00000002000000000000001C");
    let ways = recoverable(&sandbox, 0, &["--records"]);
    assert_eq!(ways[1]["end"], "0/1B00000");
}

#[test]
fn a_good_copy_in_another_encoding_carries_the_records_on() {
    let sandbox = whole();
    let object = sandbox.object("00000002000000000000001B");
    let vector =
        concat!(env!("CARGO_MANIFEST_DIR"), "/tests/vectors/wal/postgresql-15/00000002000000000000001B.zst");
    let raw = zstd::stream::decode_all(&fs::read(vector).unwrap()[..]).unwrap();
    fs::write(sandbox.archive().join("wal_005/00000002000000000000001B"), raw).unwrap();
    let bit = fs::metadata(&object).unwrap().len() as usize * 4;
    flip(&object, bit);
    assert_eq!(findings(&sandbox, &["--records"]), ["damaged 00000002000000000000001B"]);
    assert_eq!(recoverable(&sandbox, 1, &["--records"])[1]["end"], "0/1CFE448");
}

#[test]
fn a_quick_look_finds_an_object_that_was_cut_in_an_archive_of_our_own() {
    let sandbox = made_up(&["000000010000000000000001", "000000010000000000000002"]);
    let object = sandbox.object("000000010000000000000001");
    let whole = fs::read(&object).unwrap();
    for len in [whole.len() / 2, whole.len() - 256, whole.len() - 1] {
        fs::write(&object, &whole[..len]).unwrap();
        assert_eq!(findings(&sandbox, &["--quick"]), ["damaged 000000010000000000000001"], "{len} bytes");
    }
    fs::write(&object, &whole).unwrap();
    sound(&sandbox, &["--quick"]);
    // Where other tools write, too, an object without a trailer is theirs.
    let identity = sandbox.archive().join("archive.json");
    let text = fs::read_to_string(&identity).unwrap().replace("\"foreign\":false", "\"foreign\":true");
    fs::remove_file(&identity).unwrap();
    fs::write(&identity, text).unwrap();
    fs::write(&object, &whole[..whole.len() - 256]).unwrap();
    sound(&sandbox, &["--quick"]);
}

/// Stores a real file of the vectors under another key of the archive.
fn store_beside(sandbox: &Sandbox, name: &str, key: &str) {
    fs::copy(sandbox.object(name), sandbox.archive().join("wal_005").join(key)).unwrap();
}

#[test]
fn an_unfinished_segment_shows_how_far_recovery_goes_with_it() {
    // Timeline 2 as a dead server left it: 1C, its last segment, was drained.
    let sandbox = whole();
    let (last, partial) = ("00000002000000000000001C", "00000002000000000000001C.partial");
    let raw = fs::read(sandbox.data().join("pg_wal").join(last)).unwrap();
    take_out(&sandbox, last);
    sandbox.wal(partial, &raw);
    sandbox.push(partial, &[]).succeeds();
    let told = sound(&sandbox, &["--records"]);
    let further = format!("with {partial} (--partial) timeline 2 goes on");
    let to = format!("{further} to 0/1CFE448, last commit 2026-11-20 21:05:53 UTC");
    // Timeline 2 leaves timeline 1 in its partial segment.
    let rows: Vec<&str> = told.lines().filter(|line| line.starts_with("with")).collect();
    assert_eq!(rows, [to], "{told}");
    let told = sound(&sandbox, &[]);
    assert!(told.contains(&format!("  to the end\n{further}\n")), "{told}");
    let way = &recoverable(&sandbox, 0, &["--records"])[1];
    assert_eq!(way["to"], "00000002000000000000001B");
    assert_eq!(way["partial"][0]["file"], partial);
    assert_eq!(way["partial"][0]["end"], "0/1CFE448");
    // Where the segment itself is there, nobody needs it.
    sandbox.push(last, &[]).succeeds();
    let way = &recoverable(&sandbox, 0, &["--records"])[1];
    assert_eq!((&way["to"], &way["partial"]), (&last.into(), &serde_json::json!([])));
}

#[test]
fn a_segment_that_was_archived_cut_counts_as_a_partial_one_and_never_as_the_segment() {
    let sandbox = whole();
    let (before, last) = ("00000002000000000000001B", "00000002000000000000001C");
    let trailer = fs::read(sandbox.object(last)).unwrap();
    let text = String::from_utf8_lossy(&trailer[trailer.len() - 248..]).into_owned();
    let sum = text.split("\"sha256\":\"").nth(1).unwrap()[..16].to_owned();
    store_beside(&sandbox, last, &format!("{last}.{sum}.zst"));
    take_out(&sandbox, last);
    let ways = recoverable(&sandbox, 0, &["--records"]);
    assert_eq!((&ways[1]["to"], &ways[1]["end"]), (&before.into(), &"0/1BFEE48".into()));
    assert_eq!(ways[1]["partial"][0]["file"], format!("{last}.{sum}"));
    assert_eq!(ways[1]["partial"][0]["end"], "0/1CFE448");
    // In the middle it closes no hole.
    put(&sandbox, "00000002000000000000001D", 1);
    assert_eq!(findings(&sandbox, &[]), [format!("missing {last}")]);
    let json: Value = serde_json::from_str(&sandbox.admin("list", &["--json"]).stdout).unwrap();
    let timeline = &json["destinations"][0]["timelines"][1];
    assert_eq!(timeline["unfinished"][0]["key"], format!("wal_005/{last}.{sum}.zst"));
    assert_eq!((&timeline["missing"], &timeline["segments"]), (&1.into(), &2.into()));
}

#[test]
fn whatever_is_there_of_a_timeline_without_its_history_is_a_finding() {
    for file in [
        "000000020000000000000003",
        "000000020000000000000003.partial",
        "000000020000000000000003.00000028.backup",
    ] {
        let sandbox = made_up(&["000000010000000000000001", "000000010000000000000002"]);
        let content = match file.len() {
            40 => backup_of("000000020000000000000003").into_bytes(),
            _ => segment(&file[..24], MIB, CLUSTER, 1),
        };
        sandbox.wal(file, &content);
        let pushed = sandbox.push(file, &[]);
        assert_eq!(pushed.code, Some(0), "{pushed:?}");
        // The segment in which a backup began was finished, too.
        let missing = ["missing 000000020000000000000003"].map(str::to_owned);
        let missing = if file.ends_with(".backup") { &missing[..] } else { &[] };
        let expected = [&["no-history 00000002.history".to_owned()][..], missing].concat();
        assert_eq!(findings(&sandbox, &[]), expected, "{file}");
        let told = sandbox.admin("verify", &[]).told(1, &sandbox);
        assert!(told.contains(&format!("although \"{file}\" is there")), "{told}");
        let mut accepted = vec!["--accept-gap", "00000002.history"];
        if !missing.is_empty() {
            accepted.extend(["--accept-gap", "000000020000000000000003..000000020000000000000003"]);
        }
        let told = sound(&sandbox, &accepted);
        assert!(told.starts_with("accepted 00000002.history is missing"), "{told}");
    }
}

fn backup_of(segment: &str) -> String {
    format!(
        "START WAL LOCATION: 0/300028 (file {segment})\nSTOP WAL LOCATION: 0/300100 (file {segment})\n\
         CHECKPOINT LOCATION: 0/300060\nBACKUP METHOD: streamed\nBACKUP FROM: primary\n\
         START TIME: 2026-11-01 21:05:43 UTC\nLABEL: x\nSTART TIMELINE: 2\n\
         STOP TIME: 2026-11-01 21:05:44 UTC\nSTOP TIMELINE: 2\n"
    )
}

#[test]
fn destinations_of_two_clusters_are_one_finding_and_nothing_else() {
    let sandbox = made_up(&["000000010000000000000001", "000000010000000000000002"]);
    let other = Sandbox::of_cluster(CLUSTER + 1);
    for name in ["000000010000000000000001", "000000010000000000000003"] {
        other.wal(name, &segment(name, MIB, CLUSTER + 1, 1));
        other.push(name, &[]).succeeds();
    }
    let json = both(&sandbox, &other.archive(), 1);
    assert_eq!(findings_of(&json), ["other-cluster archive.json"]);
    let reason = json["findings"][0]["reason"].as_str().unwrap();
    assert!(reason.contains(&CLUSTER.to_string()) && reason.contains(&(CLUSTER + 1).to_string()), "{reason}");
    assert_eq!((&json["checked"]["objects"], &json["recoverable"]), (&0.into(), &serde_json::json!([])));
}

#[test]
fn wal_directly_under_the_prefix_of_our_own_archive_is_a_finding() {
    let sandbox = made_up(&["000000010000000000000001", "000000010000000000000002"]);
    let name = "000000010000000000000003";
    fs::write(sandbox.archive().join(name), segment(name, MIB, CLUSTER, 1)).unwrap();
    assert_eq!(findings(&sandbox, &[]), [format!("misplaced {name}")]);
    let told = sandbox.admin("list", &[]).told(1, &sandbox);
    assert!(told.lines().any(|line| line.starts_with("misplaced ") && line.ends_with(name)), "{told}");
}

#[test]
fn json_says_which_destinations_could_not_be_listed_even_where_that_is_all() {
    let sandbox = Sandbox::without_archive();
    let run = sandbox.admin("verify", &["--json"]);
    let json: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{run:?}"));
    assert_eq!((run.code, &json["verdict"]), (Some(2), &"could-not-tell".into()));
    assert_eq!(
        (findings_of(&json), &json["destinations"]),
        (vec!["not-read archive.json".into()], &serde_json::json!([]))
    );
    let run = sandbox.admin("list", &["--json"]);
    let json: Value = serde_json::from_str(&run.stdout).unwrap_or_else(|_| panic!("{run:?}"));
    assert_eq!((run.code, findings_of(&json)), (Some(2), vec!["not-read archive.json".to_owned()]));
}

#[test]
fn an_accepted_gap_of_one_segment_has_the_form_of_every_other() {
    let sandbox = made_up(&["000000010000000000000001", "000000010000000000000003"]);
    let gap = "000000010000000000000002";
    let told = sandbox.admin("verify", &["--json", "--accept-gap", gap]).told(0, &sandbox);
    let json: Value = serde_json::from_str(&told).unwrap();
    assert_eq!(json["accepted_gaps"], serde_json::json!([format!("{gap}..{gap}")]));
}
