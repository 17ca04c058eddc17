//! `pg_service.conf`: connection parameters by the name of a service.
//!
//! Source: `parseServiceInfo` of libpq's `fe-connect.c`.

use super::keywords::Keywords;
use super::{Result, settings};
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// The parameters of a service, from the first of the files that has it.
pub fn service(name: &str, files: &[PathBuf]) -> Result<Keywords> {
    for path in files {
        if let Some(content) = read(path)?
            && let Some(found) = find(&content, name).map_err(|(line, what)| {
                settings(format!("line {line} of the service file \"{}\": {what}", path.display()))
            })?
        {
            return Ok(found);
        }
    }
    let looked: Vec<String> = files.iter().map(|path| format!("\"{}\"", path.display())).collect();
    Err(settings(format!("there is no service \"{name}\" in {}", looked.join(" or ")))
        .hint("write the connection parameters under [NAME] into one of these files, or give --connection"))
}

fn read(path: &Path) -> Result<Option<String>> {
    match fs::read(path) {
        Ok(content) => Ok(Some(String::from_utf8_lossy(&content).into_owned())),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(error) => Err(settings(format!("cannot read the service file \"{}\": {error}", path.display()))),
    }
}

/// The section of that name; the error has its line.
fn find(content: &str, name: &str) -> std::result::Result<Option<Keywords>, (usize, String)> {
    let mut found: Option<Keywords> = None;
    for (number, line) in (1..).zip(content.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        if let Some(section) = line.strip_prefix('[') {
            if found.is_some() {
                break;
            }
            found = (section.strip_suffix(']') == Some(name)).then(Keywords::new);
            continue;
        }
        let Some(keywords) = &mut found else { continue };
        match line.split_once('=') {
            Some(("service", _)) => return Err((number, "a service cannot name another one".to_owned())),
            Some((keyword, value)) => {
                keywords.entry(keyword.trim().to_owned()).or_insert_with(|| value.to_owned());
            }
            None => return Err((number, format!("\"=\" is missing after \"{line}\""))),
        }
    }
    Ok(found)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_service_is_the_section_of_its_name() {
        let content = "# all\n[one]\nhost=a\n\n[two]\nhost=b\nport=5433\n# end\n[three]\nhost\n";
        let two = find(content, "two").unwrap().unwrap();
        assert_eq!(two.get("host").map(String::as_str), Some("b"));
        assert_eq!(two.get("port").map(String::as_str), Some("5433"));
        assert_eq!(find(content, "four"), Ok(None));
        assert_eq!(find(content, "three").unwrap_err().0, 10);
        assert!(find("[x]\nservice=y\n", "x").is_err());
    }

    #[test]
    fn the_files_are_looked_into_in_order_and_a_service_that_is_nowhere_is_named() {
        let folder = tempfile::tempdir().unwrap();
        let files = [folder.path().join("missing"), folder.path().join("one"), folder.path().join("two")];
        fs::write(&files[1], "[a]\nhost=one\n").unwrap();
        fs::write(&files[2], "[a]\nhost=two\n[b]\nhost=two\n").unwrap();
        assert_eq!(service("a", &files).unwrap().get("host").map(String::as_str), Some("one"));
        assert_eq!(service("b", &files).unwrap().get("host").map(String::as_str), Some("two"));
        assert!(service("c", &files).unwrap_err().message.contains("\"c\""));
    }
}
