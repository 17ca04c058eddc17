//! The prefetchers that run on this machine.

use std::fs;
use std::path::Path;

/// Those of one data directory.
pub fn prefetchers_of(data: &Path) -> Vec<i32> {
    let data = data.as_os_str().as_encoded_bytes();
    let is_ours = |pid: &i32| {
        let arguments = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
        let mut arguments = arguments.split(|byte| *byte == 0);
        arguments.nth(1) == Some(b"--prefetcher") && arguments.next() == Some(data)
    };
    let all = fs::read_dir("/proc").unwrap().flatten();
    all.filter_map(|entry| entry.file_name().to_str()?.parse().ok()).filter(is_ours).collect()
}
