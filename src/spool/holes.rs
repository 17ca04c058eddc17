//! Holes of the archive that a wal-fetch waited for in vain: in the retry form the next one that is
//! asked for the same file answers at once. A cache: losing it costs a wait.

use super::{Spool, read};
use crate::host::durable;
use crate::wal::WalName;
use std::io;
use std::path::PathBuf;

/// How many are remembered.
const KEPT: usize = 16;

impl Spool {
    /// Whether the file was waited for.
    pub fn knows_hole(&self, name: WalName) -> bool {
        self.holes().contains(&name)
    }

    /// Remembers that it was.
    pub fn note_hole(&self, name: WalName) -> io::Result<()> {
        let mut names: Vec<_> = self.holes().into_iter().filter(|known| *known != name).collect();
        names.push(name);
        let kept = names.iter().skip(names.len().saturating_sub(KEPT));
        let text: String = kept.map(|name| format!("{name}\n")).collect();
        durable::replace_cached(&self.holes_path(), text.as_bytes())
    }

    fn holes(&self) -> Vec<WalName> {
        let text = read(&self.holes_path()).unwrap_or_default();
        String::from_utf8_lossy(&text).lines().filter_map(|line| line.parse().ok()).collect()
    }

    fn holes_path(&self) -> PathBuf {
        self.folder.join("holes")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn the_last_holes_are_remembered() {
        let base = tempfile::tempdir().unwrap();
        let spool = Spool::open(base.path().join("spool")).unwrap();
        let name = |number: usize| format!("0000000100000000{number:08X}").parse().unwrap();
        assert!(!spool.knows_hole(name(1)));
        for number in [0, 1, 1, 2, 3] {
            spool.note_hole(name(number)).unwrap();
        }
        assert!(spool.knows_hole(name(0)) && spool.knows_hole(name(3)) && !spool.knows_hole(name(4)));
        (10..10 + KEPT).for_each(|number| spool.note_hole(name(number)).unwrap());
        assert!(!spool.knows_hole(name(3)) && spool.knows_hole(name(10)));
        fs::write(base.path().join("spool/holes"), "junk").unwrap();
        assert!(!spool.knows_hole(name(10)));
    }
}
