//! `~/.pgpass`: a password by host, port, database and user.
//!
//! Source: `passwordFromFile` of libpq's `fe-connect.c`.

use std::fs;
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// What a password is looked up by.
#[derive(Clone, Copy, Debug)]
pub struct Asked<'a> {
    /// `localhost` for a socket in the default directory.
    pub host: &'a str,
    pub port: u16,
    pub database: &'a str,
    pub user: &'a str,
}

/// The password in a file; `None` where there is none. A file that others may read is passed over with
/// a warning, as by libpq.
pub fn password(path: &Path, asked: &Asked<'_>) -> Option<String> {
    let metadata = match fs::metadata(path) {
        Ok(metadata) => metadata,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return None,
        Err(error) => {
            log::warn!("cannot read the password file \"{}\": {error}", path.display());
            return None;
        }
    };
    let unfit = match () {
        () if !metadata.is_file() => Some("it is not a regular file"),
        () if metadata.mode() & 0o077 != 0 => Some("its group or others have rights to it: chmod 0600"),
        () => None,
    };
    if let Some(reason) = unfit {
        log::warn!("the password file \"{}\" is not used: {reason}", path.display());
        return None;
    }
    match fs::read(path) {
        Ok(content) => find(&String::from_utf8_lossy(&content), asked),
        Err(error) => {
            log::warn!("cannot read the password file \"{}\": {error}", path.display());
            None
        }
    }
}

fn find(content: &str, asked: &Asked<'_>) -> Option<String> {
    let port = asked.port.to_string();
    let wanted = [asked.host, &port, asked.database, asked.user];
    content.lines().filter(|line| !line.starts_with('#')).find_map(|line| {
        let mut fields = fields(line);
        let fits =
            wanted.iter().all(|want| fields.next().is_some_and(|(raw, text)| raw == "*" || text == *want));
        fits.then(|| fields.next().map(|(_, text)| text)).flatten().filter(|password| !password.is_empty())
    })
}

/// The fields between colons, each as written and without its backslashes.
fn fields(line: &str) -> impl Iterator<Item = (&str, String)> {
    let mut rest = Some(line);
    std::iter::from_fn(move || {
        let text = rest?;
        let (mut value, mut chars) = (String::new(), text.char_indices());
        while let Some((at, c)) = chars.next() {
            match c {
                ':' => {
                    let (field, after) = text.split_at_checked(at)?;
                    rest = after.get(1..);
                    return Some((field, value));
                }
                '\\' => value.extend(chars.next().map(|(_, c)| c)),
                c => value.push(c),
            }
        }
        rest = None;
        Some((text, value))
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    const ASKED: Asked<'static> = Asked { host: "db", port: 5432, database: "replication", user: "backup" };

    #[test]
    fn the_first_line_that_fits_has_the_password() {
        let find = |content: &str| find(content, &ASKED);
        assert_eq!(find("db:5432:replication:backup:one\n*:*:*:*:two\n").as_deref(), Some("one"));
        assert_eq!(find("db:5433:replication:backup:one\n*:*:*:*:two\n").as_deref(), Some("two"));
        assert_eq!(find("#*:*:*:*:no\n*:*:*:backup:it\\:s \\\\:rest\n").as_deref(), Some("it:s \\"));
        assert_eq!(find("other:*:*:*:no\n"), None);
        assert_eq!(find("db:5432:replication:backup\n*:*:*:*:\n"), None);
        assert_eq!(find("\\*:*:*:*:no\n"), None);
    }

    #[test]
    fn a_file_that_others_may_read_is_not_used() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("pgpass");
        fs::write(&path, "*:*:*:*:secret\n").unwrap();
        for (mode, used) in [(0o600, true), (0o400, true), (0o640, false), (0o604, false)] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            assert_eq!(password(&path, &ASKED).is_some(), used, "{mode:o}");
        }
        assert_eq!(password(folder.path(), &ASKED), None);
        assert_eq!(password(&folder.path().join("missing"), &ASKED), None);
    }
}
