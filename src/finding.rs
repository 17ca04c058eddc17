//! What verify, list, check, copy and drain find: one form for all of them, in text and in JSON.
//!
//! Knows the words for what is wrong, which are part of the interface (`docs/json.md`). Does not know
//! how a finding is shown, or what exit code it makes.

use crate::failure::Failure;
use serde::{Serialize, Serializer};

/// One thing that was looked at; of all but check, one that is wrong or could not be told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding<K = FindingKind> {
    /// What is wrong; of check, how bad it is.
    pub kind: K,
    /// The destination or directory, as it was named; of check also `server` and `settings`.
    pub place: String,
    /// A WAL file, `FROM..TO`, a key, or `archive.json` for the destination; of check, what was looked at.
    pub name: String,
    /// The object that is at fault, where it is a single one.
    pub key: Option<String>,
    /// A lower-case statement.
    pub reason: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl<K> Finding<K> {
    pub fn new(kind: K, name: impl ToString, place: &str, reason: impl Into<String>) -> Self {
        let (place, name, reason) = (place.to_owned(), name.to_string(), reason.into());
        Finding { kind, place, name, key: None, reason, hint: None }
    }

    /// Keeps a failure's sentence and hint.
    pub fn of_failure<E>(kind: K, name: impl ToString, place: &str, failure: &Failure<E>) -> Self {
        Finding { hint: failure.hint.clone(), ..Finding::new(kind, name, place, failure.message.clone()) }
    }

    pub fn key(mut self, key: impl ToString) -> Self {
        self.key = Some(key.to_string());
        self
    }

    /// Says what to do.
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The sentence and the hint, as a message.
    pub fn message(&self) -> Failure {
        Failure { kind: (), message: self.reason.clone(), hint: self.hint.clone() }
    }
}

/// What is wrong in an archive, or in a `pg_wal` that is to be archived.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum FindingKind {
    /// Recovery asks for it, and it is not there.
    Missing,
    /// A timeline has segments and no history file.
    NoHistory,
    /// An object does not hold what its name promises.
    Damaged,
    /// Two objects of one name at one destination, or at both places of a copy, hold different content.
    Conflict,
    /// Two destinations hold different content.
    Differs,
    /// The records do not go on although later segments are there.
    BrokenRecords,
    /// No base backup leads to the newest timeline.
    NoBackup,
    /// It is of another cluster.
    OtherCluster,
    /// It is in an encoding that is not read here.
    UnknownEncoding,
    /// A WAL file stands where another program put it and wal-push puts none.
    Misplaced,
    /// It could not be read, which says nothing about it.
    NotRead,
}

impl FindingKind {
    pub fn word(self) -> &'static str {
        match self {
            FindingKind::Missing => "missing",
            FindingKind::NoHistory => "no-history",
            FindingKind::Damaged => "damaged",
            FindingKind::Conflict => "conflict",
            FindingKind::Differs => "differs",
            FindingKind::BrokenRecords => "broken-records",
            FindingKind::NoBackup => "no-backup",
            FindingKind::OtherCluster => "other-cluster",
            FindingKind::UnknownEncoding => "unknown-encoding",
            FindingKind::Misplaced => "misplaced",
            FindingKind::NotRead => "not-read",
        }
    }
}

impl Serialize for FindingKind {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.word())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn a_finding_has_the_same_fields_in_json_whatever_it_knows() {
        let finding = Finding::new(FindingKind::NotRead, "X", "/mnt/a", "it is away");
        let fields = json!({
            "kind": "not-read", "place": "/mnt/a", "name": "X", "key": null, "reason": "it is away", "hint": null
        });
        assert_eq!(json!(finding), fields);
        let finding = finding.key("wal_005/X.zst").hint("wait");
        assert_eq!(
            (&json!(finding)["key"], &json!(finding)["hint"]),
            (&json!("wal_005/X.zst"), &json!("wait"))
        );
    }
}
