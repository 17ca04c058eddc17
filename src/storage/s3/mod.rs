//! Objects in an S3 bucket below a prefix (aws-sdk-s3).
//!
//! Creation is conditional (`If-None-Match: *`), on PutObject and on CompleteMultipartUpload, so
//! of two racing creators exactly one wins, whichever machine they run on. Some stores accept the
//! condition and ignore it: [`Storage::prove_create`] finds out before the first push. `async`
//! stays in here: callers see plain functions over one runtime and client per process.

mod client;
mod dates;
mod deletion;
mod errors;
mod incoming;
mod listing;
mod multipart;
mod proxy;
mod resolved;
mod sending;
mod settings;
mod whole;

pub use settings::{
    ConditionalWrites, Encryption, Keys, RequestChecksums, S3Settings, Secret, without_password,
};

use super::{Body, DeletionFailed, Entry, Error, Kind, Listing, Nature, Object, Range, Result, Storage};
use crate::host::stamp::Stamp;
use crate::object::Key;
use crate::object::age::{Keyring, NO_KEYS};
use crate::object::key::PROBE;
use aws_sdk_s3::Client;
use aws_sdk_s3::primitives::{ByteStream, DateTime};
use aws_sdk_s3::types::{ServerSideEncryption, StorageClass};
use dates::Dates;
use errors::classify;
use incoming::Incoming;
use listing::Pages;
use resolved::Resolved;
use std::io::{self, Read};
use std::sync::atomic::AtomicBool;
use std::sync::{Arc, OnceLock};
use std::time::SystemTime;

/// Bodies up to this size are one request; a segment of 16 MiB that cannot be compressed fits.
const SINGLE: u64 = 20 << 20;

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
    resolved: OnceLock<Resolved>,
    address: OnceLock<String>,
    client: OnceLock<Client>,
    /// Whether the store was found to lack the request that deletes many objects.
    one_by_one: AtomicBool,
    dates: Dates,
}

impl S3 {
    /// Nothing is asked of the store yet. `prefix` has no slash at either end.
    pub fn new(bucket: String, prefix: String, settings: S3Settings) -> Self {
        let place =
            if prefix.is_empty() { format!("s3://{bucket}") } else { format!("s3://{bucket}/{prefix}") };
        let prefix = if prefix.is_empty() { prefix } else { format!("{prefix}/") };
        let (resolved, address, client) = (OnceLock::new(), OnceLock::new(), OnceLock::new());
        let (one_by_one, dates) = (AtomicBool::new(false), Dates::default());
        S3 {
            inner: Arc::new(Inner {
                bucket,
                prefix,
                place,
                settings,
                resolved,
                address,
                client,
                one_by_one,
                dates,
            }),
        }
    }
}

impl Inner {
    fn client(&self) -> Result<&Client> {
        if let Some(client) = self.client.get() {
            return Ok(client);
        }
        let client = client::runtime()?.block_on(client::connect(
            &self.bucket,
            &self.settings,
            self.resolved(),
            self.dates.clone(),
        ))?;
        Ok(self.client.get_or_init(|| client))
    }

    /// What settings and machine say about the store.
    fn resolved(&self) -> &Resolved {
        self.resolved.get_or_init(|| Resolved::of(&self.settings))
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
            .set_storage_class(self.storage_class(key))
            .set_server_side_encryption(self.encryption().0)
            .set_ssekms_key_id(self.encryption().1)
            .set_tagging(settings.tags.clone())
            .customize()
            .config_override(client::while_sending());
        // TLS and the checksum protect the body already; hashing it once more costs 1 ms per MiB.
        let request = if self.resolved().is_plain() { request } else { request.disable_payload_signing() };
        match client::runtime()?.block_on(request.send()) {
            Ok(output) => confirmed("create", &self.object(key), output.e_tag()),
            Err(error) if errors::was_cut(&error) && self.is_there(key) => {
                Err(Error::new(Kind::AlreadyExists, format!("\"{}\" already exists", self.object(key))))
            }
            Err(error) => Err(classify("create", &self.object(key), error)),
        }
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

    fn object(&self, key: &str) -> String {
        format!("{}/{key}", self.place)
    }

    /// Without the destination's prefix.
    fn short<'a>(&self, full: &'a str) -> &'a str {
        full.strip_prefix(&self.prefix).unwrap_or(full)
    }

    /// What every call may ask for must be readable at once, whatever becomes of the WAL.
    fn storage_class(&self, key: &str) -> Option<StorageClass> {
        let class = self.settings.storage_class.as_deref().map(StorageClass::from);
        let of_the_archive = key == PROBE || key == Key::identity().as_str();
        class.map(|class| if of_the_archive { StorageClass::Standard } else { class })
    }

    fn encryption(&self) -> (Option<ServerSideEncryption>, Option<String>) {
        match &self.settings.encryption {
            None => (None, None),
            Some(Encryption::S3) => (Some(ServerSideEncryption::Aes256), None),
            Some(Encryption::Kms(key)) => (Some(ServerSideEncryption::AwsKms), key.clone()),
        }
    }
}

/// Only an answer with an ETag says that something was stored.
fn confirmed(verb: &str, object: &str, e_tag: Option<&str>) -> Result<()> {
    match e_tag.map(|tag| tag.trim_matches('"')) {
        Some(tag) if !tag.is_empty() => Ok(()),
        _ => Err(errors::unconfirmed(verb, object)),
    }
}

fn time(time: Option<&DateTime>) -> SystemTime {
    time.and_then(|time| SystemTime::try_from(*time).ok()).unwrap_or(SystemTime::UNIX_EPOCH)
}

/// `bytes 100-355/356`
fn total_of(content_range: &str) -> Option<u64> {
    content_range.rsplit_once('/')?.1.parse().ok()
}

/// Reads so many bytes of a body away.
fn skip(mut object: Object, bytes: u64, place: &str) -> Result<Object> {
    let skipped = io::copy(&mut object.body.by_ref().take(bytes), &mut io::sink());
    skipped.map_err(|error| Error::of_io(error, place))?;
    Ok(object)
}

impl S3 {
    /// An object's length where a first answer came without: with a range it must be named.
    fn size_by_range(&self, key: &Key, asked: Range) -> Result<u64> {
        if asked == Range::Last(1) {
            let what = format!("\"{}\" came without a length", self.inner.object(key.as_str()));
            return Err(Error::new(Kind::Unavailable, what)
                .hint("something between this machine and the store takes the Content-Length away"));
        }
        self.get(key, Range::Last(1)).map(|object| object.size)
    }
}

impl Storage for S3 {
    fn place(&self) -> &str {
        &self.inner.place
    }

    fn address(&self) -> String {
        self.inner.address.get_or_init(|| resolved::address(&self.inner.place, &self.inner.settings)).clone()
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
                    Range::First(count) => Some(format!("bytes=0-{}", count.saturating_sub(1))),
                    Range::From(offset) => Some(format!("bytes={offset}-")),
                    Range::Last(count) => Some(format!("bytes=-{count}")),
                },
            );
        let output = match client::runtime()?.block_on(request.send()) {
            Ok(output) => output,
            Err(error) => {
                // The last bytes of an empty object cannot be had, nor what is behind an object's end: 416.
                let unsatisfiable = error.raw_response().is_some_and(|raw| raw.status().as_u16() == 416);
                if unsatisfiable && range != Range::Whole {
                    let object = self.get(key, Range::Whole)?;
                    let start = range.start(object.size);
                    return skip(object, start, &inner.place);
                }
                return Err(classify("read", &inner.object(key.as_str()), error));
            }
        };
        let length = output.content_length().and_then(|length| u64::try_from(length).ok());
        let total = output.content_range().and_then(total_of);
        let modified = time(output.last_modified());
        let size = match total.or(length) {
            Some(size) => size,
            None => self.size_by_range(key, range)?,
        };
        let (start, end) = (range.start(size), range.end(size));
        // A store that does not know ranges sends it all.
        let (ignored, sent) = if total.is_some() { (0, end - start) } else { (start, size) };
        let body = Incoming::new(output.body, sent, inner.place.clone());
        let mut object = skip(Object { size, modified, body: Box::new(body) }, ignored, &inner.place)?;
        object.body = Box::new(object.body.take(end - start));
        Ok(object)
    }

    fn head(&self, key: &Key) -> Result<Entry> {
        let inner = &self.inner;
        let request = inner.client()?.head_object().bucket(&inner.bucket).key(inner.full(key.as_str()));
        let entry = |size, modified| Ok(Entry { key: key.as_str().to_owned(), size, modified });
        match client::runtime()?.block_on(request.send()) {
            Ok(output) => match output.content_length().and_then(|length| u64::try_from(length).ok()) {
                Some(size) => entry(size, time(output.last_modified())),
                None => entry(self.size_by_range(key, Range::Whole)?, time(output.last_modified())),
            },
            // It has no body that could tell a missing bucket from a missing key.
            Err(error) if error.raw_response().is_some_and(|raw| raw.status().as_u16() == 404) => {
                let object = self.get(key, Range::Last(1))?;
                entry(object.size, object.modified)
            }
            Err(error) => Err(classify("look at", &inner.object(key.as_str()), error)),
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
        Ok(Box::new(Pages::first(&self.inner, prefix, after)?))
    }

    fn list_unordered(&self, prefix: &str) -> Result<Listing> {
        self.list(prefix, "")
    }

    fn folders(&self, prefix: &str) -> Result<Vec<String>> {
        listing::folders(&self.inner, prefix)
    }

    fn delete(&self, key: &Key) -> Result<()> {
        deletion::delete(&self.inner, key)
    }

    fn delete_all(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        deletion::delete_all(&self.inner, keys)
    }

    /// What is acknowledged is durable.
    fn make_durable(&self, _: &Key) -> Result<()> {
        Ok(())
    }

    /// Uploads that were never completed are the bucket's lifecycle rules' to remove.
    fn sweep(&self, _: SystemTime) -> Result<()> {
        Ok(())
    }

    fn keys(&self) -> &Keyring {
        &NO_KEYS
    }

    fn nature(&self) -> Nature {
        Nature::Bucket
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
