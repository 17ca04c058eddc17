//! Large bodies in parts, published by a conditional completion.

use super::{
    ConditionalWrites, Inner, PROBE_CONTENT, client, confirmed, errors::classify, not_conditional, sending,
};
use crate::object::key::PROBE;
use crate::storage::{Body, Error, Kind, Result};
use aws_sdk_s3::primitives::ByteStream;
use aws_sdk_s3::types::{ChecksumAlgorithm, CompletedMultipartUpload, CompletedPart};
use std::io::Read;

/// All parts but the last have this size; 10,000 parts, S3's limit, are far beyond 1 GiB.
const PART: u64 = 8 << 20;

/// Creates an object in parts. On any failure the upload is aborted, so that no part is left to
/// be paid for.
pub(super) fn create(inner: &Inner, key: &str, body: &Body) -> Result<()> {
    if inner.settings.conditional_writes == ConditionalWrites::Required {
        prove(inner)?;
    }
    upload(inner, key, &mut body.reader(), body.len())
}

/// Some stores honour the condition on PutObject and ignore it here: completing onto the probe
/// object, which is there or is put there again, must be refused.
fn prove(inner: &Inner) -> Result<()> {
    match inner.put(PROBE, ByteStream::from_static(PROBE_CONTENT)) {
        Err(error) if error.kind() != Kind::AlreadyExists => return Err(error),
        _ => {}
    }
    let content = b"wal-archive asks the same of multipart uploads\n";
    match upload(inner, PROBE, &mut content.as_slice(), content.len() as u64) {
        Err(refused) if refused.kind() == Kind::AlreadyExists => Ok(()),
        Err(error) => Err(error),
        Ok(()) => Err(not_conditional(inner, "If-None-Match on CompleteMultipartUpload")),
    }
}

fn upload(inner: &Inner, key: &str, body: &mut dyn Read, len: u64) -> Result<()> {
    let object = inner.object(key);
    let request = inner
        .client()?
        .create_multipart_upload()
        .bucket(&inner.bucket)
        .key(inner.full(key))
        // Without it some stores do not accept the parts' checksums at completion.
        .checksum_algorithm(ChecksumAlgorithm::Crc32)
        .set_storage_class(inner.storage_class(key))
        .set_server_side_encryption(inner.encryption().0)
        .set_ssekms_key_id(inner.encryption().1)
        .set_tagging(inner.settings.tags.clone());
    let started =
        client::runtime()?.block_on(request.send()).map_err(|error| classify("create", &object, error))?;
    let Some(id) = started.upload_id() else {
        return Err(Error::new(Kind::Damaged, format!("\"{object}\": the store gave no upload id")));
    };
    let published = parts(inner, key, id, body, len).and_then(|parts| complete(inner, key, id, parts));
    if published.is_err() {
        abort(inner, key, id);
    }
    published
}

fn parts(inner: &Inner, key: &str, id: &str, body: &mut dyn Read, len: u64) -> Result<Vec<CompletedPart>> {
    let object = inner.object(key);
    let mut parts = Vec::new();
    for (number, start) in (1..).zip((0..len).step_by(PART as usize)) {
        let request = inner
            .client()?
            .upload_part()
            .bucket(&inner.bucket)
            .key(inner.full(key))
            .upload_id(id)
            .part_number(number)
            .checksum_algorithm(ChecksumAlgorithm::Crc32)
            .body(sending::piece(body, PART.min(len - start))?)
            .customize()
            .config_override(client::while_sending());
        let part = client::runtime()?
            .block_on(request.send())
            .map_err(|error| classify("upload a part of", &object, error))?;
        confirmed("upload a part of", &object, part.e_tag())?;
        parts.push(
            CompletedPart::builder()
                .part_number(number)
                .set_e_tag(part.e_tag().map(str::to_owned))
                .set_checksum_crc32(part.checksum_crc32().map(str::to_owned))
                .build(),
        );
    }
    Ok(parts)
}

fn complete(inner: &Inner, key: &str, id: &str, parts: Vec<CompletedPart>) -> Result<()> {
    let conditional = inner.settings.conditional_writes == ConditionalWrites::Required;
    let request = inner
        .client()?
        .complete_multipart_upload()
        .bucket(&inner.bucket)
        .key(inner.full(key))
        .upload_id(id)
        .set_if_none_match(conditional.then(|| "*".to_owned()))
        .multipart_upload(CompletedMultipartUpload::builder().set_parts(Some(parts)).build());
    let sent = client::runtime()?.block_on(request.send());
    let (verb, object) = ("complete the upload of", inner.object(key));
    let completed = sent.map_err(|error| classify(verb, &object, error))?;
    confirmed(verb, &object, completed.e_tag())
}

/// What fails here is left to the bucket's lifecycle rule for unfinished uploads.
fn abort(inner: &Inner, key: &str, id: &str) {
    let aborted = inner.client().and_then(|client| {
        let request =
            client.abort_multipart_upload().bucket(&inner.bucket).key(inner.full(key)).upload_id(id);
        let sent = client::runtime()?.block_on(request.send());
        sent.map(|_| ()).map_err(|error| classify("abort the upload of", &inner.object(key), error))
    });
    if let Err(error) = aborted {
        log::debug!("{error}");
    }
}
