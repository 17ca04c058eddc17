//! Whether the keys fit the archive: those that encrypt, and one decryption, so that a lost or wrong
//! identity is found before the disaster.

use super::{Finding, Rights, State};
use crate::archive::identity;
use crate::archive::object::{Opener, SHUT_HINT, Verdict};
use crate::object::key::WAL_FOLDER;
use crate::object::{Checks, Encoding, Encryption, Identity, Key, Stored};
use crate::storage::{Error, Result, Storage};
use std::io;

const CHECK: &str = "encryption";

/// What is to be said of the keys of one destination.
pub(super) fn findings(storage: &dyn Storage, archive: &Identity, rights: Rights) -> Vec<Finding> {
    let of = storage.place();
    let mut findings = Vec::new();
    if rights != Rights::Fetch
        && let Err((message, hint)) = identity::refuse_to_write(storage, archive)
    {
        findings.push(Finding::new(State::Critical, CHECK, of, message).hint(hint));
    }
    // A server that only archives needs no private key.
    let decrypts = rights == Rights::Fetch || !storage.keys().identities.is_empty();
    if archive.encryption == Encryption::Age && rights != Rights::Push && decrypts {
        findings.extend(decryption(storage));
    }
    findings
}

/// One object decrypted.
fn decryption(storage: &dyn Storage) -> Option<Finding> {
    let of = storage.place();
    let is_encrypted = |key: &Key| Stored::of(key).encoding() == Some(Encoding::Age);
    let mut listed = storage.list(WAL_FOLDER, "").ok()?.map_while(Result::ok);
    let key = listed.find_map(|entry| Key::parse(&entry.key).filter(is_encrypted))?;
    let opener = Opener::of_any_cluster(Checks::NoHeader);
    let opened = opener.open(storage, &key, &mut io::sink()).map_err(Error::from);
    Some(match opened.map(|opened| opened.map(|opened| opened.verdict)) {
        Ok(None) => return None, // expired meanwhile
        Ok(Some(Verdict::Intact(_))) => {
            Finding::fine(CHECK, of, format!("\"{key}\", the first object of \"{of}\", is decrypted here"))
        }
        Ok(Some(shut @ Verdict::Shut(_))) => {
            let what = format!("\"{key}\", the first object of \"{of}\", is {shut}");
            Finding::new(State::Critical, CHECK, of, what).hint(SHUT_HINT)
        }
        Ok(Some(verdict)) => {
            let what = format!("\"{key}\", the first object of \"{of}\", is {verdict}");
            Finding::new(State::Critical, CHECK, of, what).hint("\"wal-archive verify\" looks at all of them")
        }
        Err(error) => {
            let hint = error.hint_text().unwrap_or("try it again").to_owned();
            Finding::new(State::Warning, CHECK, of, error.to_string()).hint(hint)
        }
    })
}
