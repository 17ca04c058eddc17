//! The house rule of `src/lib.rs`: a module uses only those above it, workflows never each other.

#![allow(clippy::expect_used, clippy::panic, reason = "a test")]

use std::fs;
use std::path::{Path, PathBuf};

const WORKFLOWS: [&str; 7] = ["push", "fetch", "verify", "check", "retention", "drain", "copy"];

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

#[test]
fn a_module_uses_only_the_modules_above_it() {
    let src = Path::new(env!("CARGO_MANIFEST_DIR")).join("src");
    let map = fs::read_to_string(src.join("lib.rs")).expect("the map");
    let order: Vec<&str> =
        map.lines().filter_map(|line| line.strip_prefix("pub mod ")?.strip_suffix(';')).collect();
    assert!(order.len() > 5, "the map of lib.rs was not understood: {order:?}");
    let rank = |module: &str| order.iter().position(|known| *known == module);
    let mut uses = 0;
    for path in sources(&src) {
        let inside = path.strip_prefix(&src).expect("below src");
        let module = inside.components().next().expect("a name").as_os_str().to_string_lossy();
        let Some(own) = rank(module.trim_end_matches(".rs")) else { continue };
        let text = fs::read_to_string(&path).expect("a source file");
        for (number, line) in (1..).zip(text.lines()) {
            // Every mention counts, not only `use` lines.
            for mention in line.split("crate::").skip(1) {
                let names = mention.strip_prefix('{').map_or(vec![mention], |list| list.split(',').collect());
                for name in names {
                    let name =
                        name.trim().split(|c: char| !c.is_alphanumeric() && c != '_').next().unwrap_or("");
                    let Some(used) = rank(name) else { continue };
                    uses += 1;
                    let place = format!("{}:{number}: {}", inside.display(), line.trim());
                    assert!(used <= own, "a module below is used: {place}");
                    let both = [own, used].iter().all(|at| WORKFLOWS.contains(&order[*at]));
                    assert!(own == used || !both, "a workflow uses another: {place}");
                }
            }
        }
    }
    assert!(uses > 20, "the scan found only {uses} uses");
}
