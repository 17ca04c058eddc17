//! What an S3 store's answer means: the only place that knows its codes.
//!
//! Source: the Amazon S3 API Reference, "Error responses", "PutObject", "GetObject",
//! "CompleteMultipartUpload". Decisions are made by HTTP status and error code, never by text.

use crate::storage::{Error, Kind};
use aws_sdk_s3::config::http::HttpResponse;
use aws_sdk_s3::error::{ProvideErrorMetadata, SdkError};
use std::error::Error as StdError;
use std::io;

/// A failed request: what was asked ("create"), of what ("s3://bucket/key").
pub(super) fn classify<E>(verb: &str, object: &str, error: SdkError<E, HttpResponse>) -> Error
where
    E: ProvideErrorMetadata + StdError + Send + Sync + 'static,
{
    let what = format!("cannot {verb} \"{object}\"");
    match &error {
        SdkError::ServiceError(service) => {
            let status = service.raw().status().as_u16();
            answered(&what, status, service.err().code(), service.err().message())
        }
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            match status {
                200..300 => Error::new(Kind::Unavailable, format!("{what}: the answer broke off"))
                    .caused_by(chain(&error)),
                _ => answered(&what, status, None, None),
            }
        }
        SdkError::TimeoutError(_) => late(&what),
        SdkError::DispatchFailure(failure) if failure.is_timeout() => late(&what),
        SdkError::DispatchFailure(_) => unreachable_store(&what, &error),
        _ => {
            let error = Error::new(Kind::Invalid, what).caused_by(chain(&error));
            error.hint("check the credentials and settings that \"wal-archive config\" shows")
        }
    }
}

/// Whether the store closed the line before it had all of the request: one that refuses at once
/// does not wait for the body, and then its answer may be lost.
pub(super) fn was_cut<E: StdError + 'static>(error: &SdkError<E, HttpResponse>) -> bool {
    use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionReset};
    let io = sources(error).find_map(|source| source.downcast_ref()).map(innermost_kind);
    matches!(io, Some(BrokenPipe | ConnectionAborted | ConnectionReset))
}

fn late(what: &str) -> Error {
    Error::new(Kind::Unavailable, format!("{what}: no answer in time"))
        .hint("look at the store and the network between")
}

/// The store answered with an error.
fn answered(what: &str, status: u16, code: Option<&str>, message: Option<&str>) -> Error {
    use Kind::{AlreadyExists, Denied, Invalid, NotFound, Unavailable};
    let (kind, hint) = match (status, code.unwrap_or_default()) {
        (_, "NoSuchBucket") => (Invalid, "there is no such bucket: correct the URL, or create it"),
        (_, "NoSuchUpload") => (AlreadyExists, ""),
        (_, "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired") => {
            (Denied, "the session token has expired: renew the credentials")
        }
        (_, "InvalidAccessKeyId" | "InvalidToken" | "UnrecognizedClientException") => {
            (Denied, "the store does not know these credentials: check access key and session token")
        }
        (_, "SignatureDoesNotMatch") => {
            (Denied, "the secret key is wrong, or something between changes the request")
        }
        (_, "RequestTimeTooSkewed" | "RequestExpired") => {
            (Denied, "the clocks of this machine and the store differ by minutes: set this one by NTP")
        }
        (_, "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "PermanentRedirect")
        | (301 | 307, _) => {
            (Invalid, "the bucket is in another region or at another endpoint: set region (and endpoint)")
        }
        (_, "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch") => {
            (Unavailable, "the bytes changed on the way to the store: look at the network between")
        }
        (_, "SlowDown" | "Throttling" | "RequestLimitExceeded") | (429 | 503, _) => {
            (Unavailable, "the store asks for fewer requests; they are repeated by themselves")
        }
        (_, "RequestTimeout") => (Unavailable, "the store waited too long for the request's bytes"),
        (_, "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull") | (507, _) => {
            (Unavailable, "the store is full: make room; PostgreSQL asks again by itself")
        }
        (404, _) => (NotFound, ""),
        (412, _) => (AlreadyExists, ""),
        // Another conditional write of the key is under way; the whole create is to be repeated.
        (409, _) => (
            Unavailable,
            "another server writes the same name at this moment; PostgreSQL asks again by itself",
        ),
        (401 | 403, _) => (
            Denied,
            "allow s3:GetObject and s3:ListBucket (without ListBucket S3 answers 403 for a missing object), \
             and s3:PutObject to archive",
        ),
        (501, _) => (Invalid, "the store lacks this function: see docs/providers.md"),
        (500..600, _) => (Unavailable, "the store has a fault of its own: look at its state"),
        _ => (Invalid, ""),
    };
    let said = match (code, message) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => "no reason given".to_owned(),
    };
    let error = Error::new(kind, format!("{what}: the store answered {status}, {said}"));
    if hint.is_empty() { error } else { error.hint(hint) }
}

/// No answer came.
fn unreachable_store(what: &str, error: &(dyn StdError + 'static)) -> Error {
    let io = sources(error).find_map(|source| source.downcast_ref()).map(innermost_kind);
    let credentials =
        sources(error).any(|source| source.is::<aws_credential_types::provider::error::CredentialsError>());
    let (kind, hint) = match io {
        _ if credentials => (
            Kind::Denied,
            "give credentials: access_key_id and secret_access_key in the configuration file, AWS_ACCESS_KEY_ID and \
             AWS_SECRET_ACCESS_KEY, a profile, or a role of this machine",
        ),
        Some(io::ErrorKind::ConnectionRefused) => {
            (Kind::Unavailable, "nothing listens there: check the endpoint, and that the store runs")
        }
        Some(io::ErrorKind::InvalidData) => (
            Kind::Unavailable,
            "TLS failed: check that the endpoint speaks it, its certificate's name, and ca_bundle for a private authority",
        ),
        _ => (Kind::Unavailable, "check the endpoint's host name, the network and the proxy"),
    };
    Error::new(kind, what).caused_by(chain(error)).hint(hint)
}

/// I/O errors wrap I/O errors without showing them as their source.
fn innermost_kind(mut error: &io::Error) -> io::ErrorKind {
    while let Some(inner) = error.get_ref().and_then(|inner| inner.downcast_ref()) {
        error = inner;
    }
    error.kind()
}

fn sources<'a>(error: &'a (dyn StdError + 'static)) -> impl Iterator<Item = &'a (dyn StdError + 'static)> {
    let mut next = Some(error);
    std::iter::from_fn(move || {
        let now = next?;
        next = now.source();
        Some(now)
    })
}

/// The innermost reason: the outer ones only say that something failed.
fn chain(error: &(dyn StdError + 'static)) -> String {
    let mut said: Vec<String> = sources(error).map(ToString::to_string).collect();
    said.dedup();
    let kept = said.len().saturating_sub(2);
    said.split_off(kept).join(": ")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_answer_has_its_kind() {
        let kind = |status, code| answered("x", status, code, None).kind();
        assert_eq!(kind(404, Some("NoSuchKey")), Kind::NotFound);
        assert_eq!(kind(404, Some("NoSuchBucket")), Kind::Invalid, "a missing bucket is no missing key");
        assert_eq!(kind(404, Some("NoSuchUpload")), Kind::AlreadyExists);
        assert_eq!(kind(412, Some("PreconditionFailed")), Kind::AlreadyExists);
        assert_eq!(kind(409, Some("ConditionalRequestConflict")), Kind::Unavailable);
        assert_eq!(kind(403, Some("AccessDenied")), Kind::Denied);
        assert_eq!(kind(403, None), Kind::Denied);
        assert_eq!(kind(400, Some("ExpiredToken")), Kind::Denied);
        assert_eq!(kind(403, Some("RequestTimeTooSkewed")), Kind::Denied);
        assert_eq!(kind(301, Some("PermanentRedirect")), Kind::Invalid);
        assert_eq!(kind(400, Some("AuthorizationHeaderMalformed")), Kind::Invalid);
        assert_eq!(kind(400, Some("BadDigest")), Kind::Unavailable);
        assert_eq!(kind(503, Some("SlowDown")), Kind::Unavailable);
        assert_eq!(kind(500, None), Kind::Unavailable);
        assert_eq!(kind(400, None), Kind::Invalid);
    }
}
