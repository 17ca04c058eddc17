//! The house rule of `src/lib.rs`: a module uses only those above it, workflows never each other;
//! inside `src/archive/` likewise.

#![allow(clippy::expect_used, clippy::indexing_slicing, clippy::panic, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

const WORKFLOWS: [&str; 10] =
    ["push", "fetch", "verify", "check", "expire", "drain", "copy", "backup", "restore", "rehearse"];

fn sources(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in fs::read_dir(folder).expect("a folder of sources") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            found.extend(sources(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            found.push(path);
        }
    }
    found
}

/// The modules that a map file declares, in its order.
fn order(map: &Path) -> Vec<String> {
    let text = fs::read_to_string(map).expect("a map");
    let modules = text.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';'));
    modules.map(str::to_owned).collect()
}

/// The names behind each `prefix` of a line, those in braces one by one.
fn mentions<'a>(line: &'a str, prefix: &str) -> Vec<&'a str> {
    let mut found = Vec::new();
    for mention in line.split(prefix).skip(1) {
        let names = mention.strip_prefix('{').map_or(vec![mention], |list| list.split(',').collect());
        let word = |name: &'a str| name.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next();
        found.extend(names.into_iter().filter_map(word));
    }
    found
}

/// Calls `found` for each use of a module that the map declares by another one: where it is, and both
/// their ranks. The number of uses.
fn uses(folder: &Path, prefix: &str, order: &[String], found: impl Fn(&str, usize, usize)) -> usize {
    let rank = |module: &str| order.iter().position(|known| known == module);
    let mut count = 0;
    for path in sources(folder) {
        let inside = path.strip_prefix(folder).expect("below the folder");
        let module = inside.components().next().expect("a name").as_os_str().to_string_lossy();
        let Some(own) = rank(module.trim_end_matches(".rs")) else { continue };
        let text = fs::read_to_string(&path).expect("a source file");
        for (number, line) in (1..).zip(text.lines()) {
            // Every mention counts, not only `use` lines.
            for used in mentions(line, prefix).into_iter().filter_map(rank) {
                count += 1;
                found(&format!("{}:{number}: {}", inside.display(), line.trim()), own, used);
            }
        }
    }
    count
}

fn source() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("src")
}

#[test]
fn a_module_uses_only_the_modules_above_it() {
    let order = order(&source().join("lib.rs"));
    assert!(order.len() > 5, "the map of lib.rs was not understood: {order:?}");
    let uses = uses(&source(), "crate::", &order, |place, own, used| {
        assert!(used <= own, "a module below is used: {place}");
        let both = [own, used].iter().all(|at| WORKFLOWS.contains(&order[*at].as_str()));
        assert!(own == used || !both, "a workflow uses another: {place}");
    });
    assert!(uses > 20, "the scan found only {uses} uses");
}

#[test]
fn a_module_of_the_archive_uses_only_those_above_it() {
    let folder = source().join("archive");
    let order = order(&folder.join("mod.rs"));
    assert!(order.len() > 5, "the map of archive/mod.rs was not understood: {order:?}");
    let uses = uses(&folder, "crate::archive::", &order, |place, own, used| {
        assert!(used <= own, "a module below is used: {place}");
    });
    assert!(uses > 10, "the scan found only {uses} uses");
}
