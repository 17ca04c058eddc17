//! Many deletions in few requests, each counted by what the store says of it.

use super::{Inner, client, errors};
use crate::object::Key;
use crate::storage::{DeletionFailed, Error, Kind, Result};
use aws_sdk_s3::operation::delete_objects::DeleteObjectsOutput;
use aws_sdk_s3::types::{Delete, ObjectIdentifier};
use std::collections::BTreeSet;
use std::sync::atomic::Ordering;

/// Objects that one request deletes at most, by the API.
const BATCH: usize = 1000;

/// Deletes all of them, or says how many are gone.
pub(super) fn delete_all(inner: &Inner, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
    let mut deleted = 0;
    for batch in keys.chunks(BATCH) {
        let (gone, end) = delete_batch(inner, batch);
        deleted += gone;
        end.map_err(|error| DeletionFailed { deleted, error })?;
    }
    Ok(())
}

/// How many of them are gone, and why the others are not.
fn delete_batch(inner: &Inner, keys: &[Key]) -> (u64, Result<()>) {
    if inner.one_by_one.load(Ordering::Relaxed) {
        return delete_singly(inner, keys.iter());
    }
    let output = match request(inner, keys) {
        Ok(output) => output,
        // Not every store has this request, or takes the checksum that it must carry.
        Err(error) if error.kind() == Kind::Invalid => {
            log::debug!("objects are deleted one by one: {error}");
            inner.one_by_one.store(true, Ordering::Relaxed);
            return delete_singly(inner, keys.iter());
        }
        Err(error) => return (0, Err(error)),
    };
    let named: BTreeSet<&str> = output.deleted().iter().filter_map(|gone| gone.key()).collect();
    let gone = |key: &&Key| named.contains(inner.full(key.as_str()).as_str());
    let count = keys.iter().filter(gone).count() as u64;
    if let Some(refused) = output.errors().first() {
        let object = format!("{}/{}", inner.place, inner.short(refused.key().unwrap_or_default()));
        return (count, Err(errors::refused("delete", &object, refused.code(), refused.message())));
    }
    // What the answer does not name may be there still.
    let (rest, end) = delete_singly(inner, keys.iter().filter(|key| !gone(key)));
    (count + rest, end)
}

fn request(inner: &Inner, keys: &[Key]) -> Result<DeleteObjectsOutput> {
    let invalid = |error| Error::new(Kind::Damaged, "cannot name what to delete").caused_by(error);
    let named = keys.iter().map(|key| ObjectIdentifier::builder().key(inner.full(key.as_str())).build());
    let named = named.collect::<std::result::Result<Vec<_>, _>>().map_err(invalid)?;
    // Not quiet: what is gone is what the store names.
    let delete = Delete::builder().set_objects(Some(named)).quiet(false).build().map_err(invalid)?;
    let request = inner.client()?.delete_objects().bucket(&inner.bucket).delete(delete);
    let sent = client::runtime()?.block_on(request.send());
    sent.map_err(|error| errors::classify("delete from", &inner.place, error))
}

fn delete_singly<'a>(inner: &Inner, keys: impl Iterator<Item = &'a Key>) -> (u64, Result<()>) {
    let mut count = 0;
    for key in keys {
        if let Err(error) = delete(inner, key) {
            return (count, Err(error));
        }
        count += 1;
    }
    (count, Ok(()))
}

/// Deletes one object; that there is none is success.
pub(super) fn delete(inner: &Inner, key: &Key) -> Result<()> {
    let request = inner.client()?.delete_object().bucket(&inner.bucket).key(inner.full(key.as_str()));
    let sent = client::runtime()?.block_on(request.send());
    match sent.map_err(|error| errors::classify("delete", &inner.object(key.as_str()), error)) {
        Err(missing) if missing.kind() == Kind::NotFound => Ok(()),
        other => other.map(|_| ()),
    }
}
