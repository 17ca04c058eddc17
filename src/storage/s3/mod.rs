//! Objects in an S3 bucket below a prefix (aws-sdk-s3).
//!
//! Creation is conditional (`If-None-Match: *`), on PutObject and on CompleteMultipartUpload, so
//! of two racing creators exactly one wins, whichever machine they run on. Some stores accept the
//! condition and ignore it: [`Storage::prove_create`] finds out before the first push. `async`
//! stays in here: callers see plain functions over one runtime and client per process.

mod client;
mod dates;
mod errors;
mod multipart;
mod sending;
mod settings;

pub use settings::{ConditionalWrites, Encryption, Keys, RequestChecksums, S3Settings, Secret};

use super::{Body, DeletionFailed, Entry, Error, Kind, Listing, Object, Range, Result, Storage};
use crate::object::Key;
use crate::object::key::PROBE;
use crate::stamp::Stamp;
use aws_sdk_s3::Client;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{Delete, ObjectIdentifier, ServerSideEncryption, StorageClass};
use dates::Dates;
use errors::classify;
use std::io::{self, Read};
use std::sync::{Arc, OnceLock};
use std::time::{Duration, SystemTime};

/// Bodies up to this size are one request; a segment of 16 MiB that cannot be compressed fits.
const SINGLE: u64 = 20 << 20;

/// Objects that one request deletes at most, by the API.
const BATCH: usize = 1000;

const PROBE_CONTENT: &[u8] =
    b"wal-archive asks whether this store refuses to create what exists; keep this object\n";

/// A bucket and prefix as a destination.
pub struct S3 {
    inner: Arc<Inner>,
}

struct Inner {
    bucket: String,
    /// Empty, or with a slash at its end.
    prefix: String,
    place: String,
    settings: S3Settings,
    client: OnceLock<Client>,
    /// Of the answers.
    dates: Dates,
}

impl S3 {
    /// Nothing is asked of the store yet. `prefix` has no slash at either end.
    pub fn new(bucket: String, prefix: String, settings: S3Settings) -> Self {
        let place =
            if prefix.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") };
        let prefix = if prefix.is_empty() { prefix } else { format!("{prefix}/") };
        let (client, dates) = (OnceLock::new(), Dates::default());
        S3 { inner: Arc::new(Inner { bucket, prefix, place, settings, client, dates }) }
    }
}

impl Inner {
    fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = client::runtime()?.block_on(client::connect(&self.settings, self.dates.clone()))?;
        Ok(self.client.get_or_init(|| client))
    }

    /// One conditional request; without the condition where the user said that it is of no use.
    fn put(&self, key: &str, body: ByteStream) -> Result<()> {
        let client = self.client()?;
        let settings = &self.settings;
        let conditional = settings.conditional_writes == ConditionalWrites::Required;
        let request = client
            .put_object()
            .bucket(&self.bucket)
            .key(self.full(key))
            .body(body)
            .set_if_none_match(conditional.then(|| "*".to_owned()))
            .set_storage_class(self.storage_class())
            .set_server_side_encryption(self.encryption().0)
            .set_ssekms_key_id(self.encryption().1)
            .set_tagging(settings.tags.clone())
            .customize()
            .config_override(client::while_sending());
        // TLS and the checksum protect the body already; hashing it once more costs 1 ms per MiB.
        let tls = !settings.endpoint.as_deref().is_some_and(|endpoint| endpoint.starts_with("http://"));
        let request = if tls { request.disable_payload_signing() } else { request };
        let sent = client::runtime()?.block_on(request.send());
        sent.map(|_| ()).map_err(|error| match errors::was_cut(&error) && self.is_there(key) {
            true => Error::new(Kind::AlreadyExists, format!("\"{}\" already exists", self.object(key))),
            false => classify("create", &self.object(key), error),
        })
    }

    /// Whether the store says that there is such a key; for what no other answer told.
    fn is_there(&self, key: &str) -> bool {
        let (Ok(client), Ok(runtime)) = (self.client(), client::runtime()) else { return false };
        let request = client.head_object().bucket(&self.bucket).key(self.full(key));
        runtime.block_on(request.send()).is_ok()
    }

    fn full(&self, key: &str) -> String {
        format!("{}{key}", self.prefix)
    }

    /// For messages.
    fn object(&self, key: &str) -> String {
        format!("{}/{key}", self.place)
    }

    fn storage_class(&self) -> Option<StorageClass> {
        self.settings.storage_class.as_deref().map(StorageClass::from)
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.settings.encryption {
            None => (None, None),
            Some(Encryption::S3) => (Some(ServerSideEncryption::Aes256), None),
            Some(Encryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }

    fn page(&self, prefix: &str, after: &str, token: Option<String>) -> Result<ListObjectsV2Output> {
        // The service refuses both, and the token remembers where the listing began.
        let after = (token.is_none() && !after.is_empty()).then(|| self.full(after));
        let request = self
            .client()?
            .list_objects_v2()
            .bucket(&self.bucket)
            .prefix(self.full(prefix))
            .delimiter("/")
            .set_start_after(after)
            .set_continuation_token(token);
        let sent = client::runtime()?.block_on(request.send());
        sent.map_err(|error| match classify("list", &self.object(prefix), error) {
            // A listing of nothing is empty; what is missing is the bucket.
            missing if missing.kind() == Kind::NotFound => Error { kind: Kind::Invalid, ..missing },
            other => other,
        })
    }
}

fn time(time: Option<&DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(*time).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `bytes 100-355/356`
fn total_of(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

impl Storage for S3 {
    fn place(&self) -> &str {
        &self.inner.place
    }

    fn address(&self) -> String {
        let endpoint = self.inner.settings.endpoint.as_deref().unwrap_or_default();
        format!("{} at {endpoint}", self.inner.place)
    }

    fn create(&self, key: &Key, body: &Body) -> Result<()> {
        if self.inner.settings.conditional_writes == ConditionalWrites::Unsupported {
            match self.head(key) {
                Ok(_) => {
                    let what = format!("\"{}\" already exists", self.inner.object(key.as_str()));
                    return Err(Error::new(Kind::AlreadyExists, what));
                }
                Err(error) if error.kind() == Kind::NotFound => {}
                Err(error) => return Err(error),
            }
        }
        if body.len() > SINGLE {
            return multipart::create(&self.inner, key.as_str(), body);
        }
        self.inner.put(key.as_str(), sending::whole(body)?)
    }

    fn get(&self, key: &Key, range: Range) -> Result<Object> {
        let inner = &self.inner;
        let request =
            inner.client()?.get_object().bucket(&inner.bucket).key(inner.full(key.as_str())).set_range(
                match range {
                    Range::Whole => None,
                    Range::Last(count) => Some(format!("bytes=-{count}")),
                },
            );
        let runtime = client::runtime()?;
        let output = match runtime.block_on(request.send()) {
            Ok(output) => output,
            Err(error) => {
                // The last bytes of an empty object cannot be had: 416.
                let unsatisfiable = error.raw_response().is_some_and(|raw| raw.status().as_u16() == 416);
                if unsatisfiable && range != Range::Whole {
                    return self.get(key, Range::Whole);
                }
                return Err(classify("read", &inner.object(key.as_str()), error));
            }
        };
        let length = output.content_length().and_then(|length| u64::try_from(length).ok());
        let total = output.content_range().and_then(total_of);
        let Some(size) = total.or(length) else {
            let what = format!("\"{}\" came without a length", inner.object(key.as_str()));
            return Err(Error::new(Kind::Damaged, what));
        };
        let modified = time(output.last_modified());
        let mut body = Incoming {
            stream: output.body,
            piece: io::Cursor::default(),
            left: length,
            place: inner.place.clone(),
        };
        if let (Range::Last(count), None) = (range, total) {
            // A store that does not know ranges sends it all.
            let skipped = io::copy(&mut body.by_ref().take(size.saturating_sub(count)), &mut io::sink());
            skipped.map_err(|error| Error::of_io(error, &inner.place))?;
        }
        Ok(Object { size, modified, body: Box::new(body) })
    }

    fn head(&self, key: &Key) -> Result<Entry> {
        let inner = &self.inner;
        let request = inner.client()?.head_object().bucket(&inner.bucket).key(inner.full(key.as_str()));
        match client::runtime()?.block_on(request.send()) {
            Ok(output) => Ok(Entry {
                key: key.as_str().to_owned(),
                size: output.content_length().and_then(|length| u64::try_from(length).ok()).unwrap_or(0),
                modified: time(output.last_modified()),
            }),
            Err(error) => {
                let error = classify("look at", &inner.object(key.as_str()), error);
                if error.kind() != Kind::NotFound {
                    return Err(error);
                }
                // A HEAD has no body that could tell a missing bucket from a missing key.
                let object = self.get(key, Range::Last(1))?;
                Ok(Entry { key: key.as_str().to_owned(), size: object.size, modified: object.modified })
            }
        }
    }

    fn fingerprint(&self, _key: &Key) -> Result<Option<Stamp>> {
        Ok(None)
    }

    fn clock(&self) -> Result<SystemTime> {
        // Whatever the answer, it has a date.
        let asked = self.head(&Key::identity());
        self.inner.dates.last().ok_or_else(|| {
            asked.err().unwrap_or_else(|| {
                Error::new(Kind::Invalid, format!("\"{}\" answers without a date", self.inner.place))
            })
        })
    }

    fn list(&self, prefix: &str, after: &str) -> Result<Listing> {
        // A bound before the prefix bounds nothing, and one after it leaves nothing.
        if !after.starts_with(prefix) && after > prefix {
            return Ok(Box::new(std::iter::empty()));
        }
        let after = if after.starts_with(prefix) { after } else { "" };
        let first = self.inner.page(prefix, after, None)?;
        Ok(Box::new(
            Pages {
                inner: Arc::clone(&self.inner),
                prefix: prefix.to_owned(),
                entries: Vec::new().into_iter(),
                next: None,
            }
            .with(first),
        ))
    }

    fn delete(&self, key: &Key) -> Result<()> {
        let inner = &self.inner;
        let request = inner.client()?.delete_object().bucket(&inner.bucket).key(inner.full(key.as_str()));
        match client::runtime()?.block_on(request.send()) {
            Ok(_) => Ok(()),
            Err(error) => match classify("delete", &inner.object(key.as_str()), error) {
                missing if missing.kind() == Kind::NotFound => Ok(()),
                other => Err(other),
            },
        }
    }

    fn delete_all(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        let inner = &self.inner;
        let mut deleted = 0;
        for batch in keys.chunks(BATCH) {
            let failed = |error| DeletionFailed { deleted, error };
            let invalid =
                |error| failed(Error::new(Kind::Invalid, "cannot name what to delete").caused_by(error));
            let named =
                batch.iter().map(|key| ObjectIdentifier::builder().key(inner.full(key.as_str())).build());
            let named = named.collect::<std::result::Result<Vec<_>, _>>().map_err(invalid)?;
            let delete = Delete::builder().set_objects(Some(named)).quiet(true).build().map_err(invalid)?;
            let request =
                inner.client().map_err(failed)?.delete_objects().bucket(&inner.bucket).delete(delete);
            let sent = client::runtime().map_err(failed)?.block_on(request.send());
            let output = sent.map_err(|error| failed(classify("delete from", &inner.place, error)))?;
            if let Some(first) = output.errors().first() {
                let object = inner.object(first.key().unwrap_or_default());
                let reason = format!("{}: {}", first.code().unwrap_or("?"), first.message().unwrap_or("?"));
                let gone = batch.len().saturating_sub(output.errors().len()) as u64;
                let error = Error::new(Kind::Denied, format!("cannot delete \"{object}\"")).caused_by(reason);
                return Err(DeletionFailed { deleted: deleted + gone, error });
            }
            deleted += batch.len() as u64;
        }
        Ok(())
    }

    fn prove_create(&self) -> Result<()> {
        if self.inner.settings.conditional_writes == ConditionalWrites::Unsupported {
            log::warn!(
                "\"{}\" is written without conditions (conditional_writes = \"unsupported\"): of two servers that \
                 archive one name at the same moment, the second may silently replace the first one's file",
                self.inner.place
            );
            return Ok(());
        }
        // Whoever comes second must be refused: this time, or when the object is there already.
        for _ in 0..2 {
            match self.inner.put(PROBE, ByteStream::from_static(PROBE_CONTENT)) {
                Ok(()) => {}
                Err(refused) if refused.kind() == Kind::AlreadyExists => return Ok(()),
                Err(error) => return Err(error),
            }
        }
        Err(not_conditional(&self.inner, "If-None-Match"))
    }
}

fn not_conditional(inner: &Inner, what: &str) -> Error {
    Error::new(Kind::Invalid, format!("\"{}\" ignores {what}: it would silently overwrite WAL", inner.place)).hint(
        "use a store that honours conditional writes (docs/providers.md), or accept the race between two servers with \
         conditional_writes = \"unsupported\"",
    )
}

/// The entries of a listing, a page at a time.
struct Pages {
    inner: Arc<Inner>,
    prefix: String,
    entries: std::vec::IntoIter<Entry>,
    next: Option<String>,
}

impl Pages {
    fn with(mut self, page: ListObjectsV2Output) -> Self {
        let entry = |object: &aws_sdk_s3::types::Object| {
            Some(Entry {
                key: object.key()?.strip_prefix(&self.inner.prefix)?.to_owned(),
                size: object.size().and_then(|size| u64::try_from(size).ok()).unwrap_or(0),
                modified: time(object.last_modified()),
            })
        };
        // Some stores show a folder as an object of its own.
        let entries: Vec<_> = page
            .contents()
            .iter()
            .filter_map(entry)
            .filter(|entry| !entry.key.is_empty() && !entry.key.ends_with('/'))
            .collect();
        self.entries = entries.into_iter();
        self.next =
            page.next_continuation_token().filter(|_| page.is_truncated() == Some(true)).map(str::to_owned);
        self
    }
}

impl Iterator for Pages {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            let token = self.next.take()?;
            match self.inner.page(&self.prefix, "", Some(token)) {
                Ok(page) => {
                    let empty = Pages {
                        inner: Arc::clone(&self.inner),
                        prefix: self.prefix.clone(),
                        entries: Vec::new().into_iter(),
                        next: None,
                    };
                    *self = empty.with(page);
                }
                Err(error) => return Some(Err(error)),
            }
        }
    }
}

/// A body on its way in.
struct Incoming {
    stream: ByteStream,
    piece: io::Cursor<Vec<u8>>,
    /// Bytes that must still come, where the store said how many.
    left: Option<u64>,
    place: String,
}

/// Until the next piece of a body.
const PIECE: Duration = Duration::from_secs(15);

impl Read for Incoming {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let read = self.piece.read(buffer)?;
            if read > 0 || buffer.is_empty() {
                return Ok(read);
            }
            let broken = |what: &str| Error::new(Kind::Unavailable, format!("\"{}\": {what}", self.place));
            let runtime = client::runtime().map_err(io::Error::other)?;
            let next = runtime.block_on(async { tokio::time::timeout(PIECE, self.stream.next()).await });
            match next {
                Ok(Some(Ok(bytes))) => {
                    self.left = self.left.map(|left| left.saturating_sub(bytes.len() as u64));
                    self.piece = io::Cursor::new(bytes.into());
                }
                Ok(None) if self.left.is_none_or(|left| left == 0) => return Ok(0),
                Ok(None) => return Err(io::Error::other(broken("a body was cut"))),
                Ok(Some(Err(error))) => {
                    return Err(io::Error::other(broken("a body broke off").caused_by(error)));
                }
                Err(_) => return Err(io::Error::other(broken("a body stalled"))),
            }
        }
    }
}
