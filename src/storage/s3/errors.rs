//! What an S3 store's answer means: the only place that knows its codes.
//!
//! Source: the Amazon S3 API Reference, "Error responses", "PutObject", "GetObject",
//! "CompleteMultipartUpload". Decisions are made by error code, else by HTTP status, never by text.

use super::whole::Flaw;
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
    if let Some(flaw) = sources(&error).find_map(|source| source.downcast_ref()) {
        return flawed(&what, flaw);
    }
    match &error {
        SdkError::ServiceError(service) => {
            let (raw, said) = (service.raw(), service.err());
            if raw.status().as_u16() == 404 && raw.headers().get("x-amz-delete-marker") == Some("true") {
                return deleted(&what);
            }
            answered(&what, raw.status().as_u16(), said.code(), said.message())
        }
        SdkError::ResponseError(response) => {
            let status = response.raw().status().as_u16();
            match status {
                200..=299 => Error::new(Kind::Unavailable, format!("{what}: the answer broke off"))
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

/// An answer of success that is not to be believed.
fn flawed(what: &str, flaw: &Flaw) -> Error {
    if let Flaw::Failed { code, message } = flaw {
        return answered(what, 200, code.as_deref(), message.as_deref());
    }
    let error = Error::new(Kind::Unavailable, format!("{what}: {flaw}"));
    match flaw {
        Flaw::Foreign(_) => {
            error.hint("check the endpoint; a proxy or a sign-in page may stand before the store")
        }
        _ => error.hint("look at the network and any proxy between this machine and the store"),
    }
}

/// The key has versions, and the newest says that it was deleted: its bytes may well be there.
fn deleted(what: &str) -> Error {
    Error::new(Kind::Denied, format!("{what}: it was deleted in a bucket that keeps versions")).hint(
        "remove its delete marker to bring it back (aws s3api list-object-versions shows the versions), or delete \
         every version of it if it is meant to be gone",
    )
}

/// What the store says of one object of many.
pub(super) fn refused(verb: &str, object: &str, code: Option<&str>, message: Option<&str>) -> Error {
    let (kind, hint) = code.and_then(by_code).unwrap_or((Kind::Denied, ""));
    let reason = format!("{}: {}", code.unwrap_or("no code"), message.unwrap_or("no reason given"));
    let error = Error::new(kind, format!("cannot {verb} \"{object}\": {reason}"));
    if hint.is_empty() { error } else { error.hint(hint) }
}

/// An acknowledgement that names nothing.
pub(super) fn unconfirmed(verb: &str, object: &str) -> Error {
    let what = format!("cannot {verb} \"{object}\": the store did not confirm it: its answer has no ETag");
    Error::new(Kind::Unavailable, what)
        .hint("check the endpoint; a proxy or a sign-in page may stand before the store")
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

/// The store answered with an error. Its code says more than the status, which is 200 where the
/// error was noticed late.
fn answered(what: &str, status: u16, code: Option<&str>, message: Option<&str>) -> Error {
    let (kind, hint) = code.and_then(by_code).unwrap_or_else(|| by_status(status));
    let said = match (code, message) {
        (Some(code), Some(message)) => format!("{code}: {message}"),
        (Some(code), None) => code.to_owned(),
        _ => "no reason given".to_owned(),
    };
    let error = Error::new(kind, format!("{what}: the store answered {status}, {said}"));
    if hint.is_empty() { error } else { error.hint(hint) }
}

const RIGHTS: &str = "allow s3:GetObject and s3:ListBucket (without ListBucket S3 answers 403 for a missing object), \
                      and s3:PutObject to archive";
const RACE: &str = "another server writes the same name at this moment; PostgreSQL asks again by itself";
const ELSEWHERE: &str = "the bucket is in another region or at another endpoint: set region (and endpoint)";
const SLOWER: &str = "the store asks for fewer requests; they are repeated by themselves";
const LACKS: &str = "the store lacks this function: see docs/providers.md";
const FULL: &str = "the store is full: make room; PostgreSQL asks again by itself";
const FAULT: &str = "the store has a fault of its own: look at its state";

fn by_code(code: &str) -> Option<(Kind, &'static str)> {
    use Kind::{AlreadyExists, Denied, Invalid, NoPlace, NotFound, Unavailable};
    Some(match code {
        "NoSuchKey" => (NotFound, ""),
        "NoSuchBucket" => (NoPlace, "there is no such bucket: correct the URL, or create it"),
        "PreconditionFailed" | "NoSuchUpload" => (AlreadyExists, ""),
        "ConditionalRequestConflict" | "OperationAborted" => (Unavailable, RACE),
        "InternalError" | "ServiceUnavailable" => (Unavailable, FAULT),
        "AccessDenied" | "AllAccessDisabled" => (Denied, RIGHTS),
        "InvalidObjectState" => (
            Denied,
            "its storage class (GLACIER, DEEP_ARCHIVE) cannot be read at once: restore the object and copy it to \
             STANDARD, and let no lifecycle rule move WAL or archive.json there",
        ),
        "ExpiredToken" | "ExpiredTokenException" | "TokenRefreshRequired" => {
            (Denied, "the session token has expired: renew the credentials")
        }
        "InvalidAccessKeyId" | "InvalidToken" | "UnrecognizedClientException" => {
            (Denied, "the store does not know these credentials: check access key and session token")
        }
        "SignatureDoesNotMatch" => {
            (Denied, "the secret key is wrong, or something between changes the request")
        }
        "RequestTimeTooSkewed" | "RequestExpired" => {
            (Denied, "the clocks of this machine and the store differ by minutes: set this one by NTP")
        }
        "AuthorizationHeaderMalformed" | "IllegalLocationConstraintException" | "PermanentRedirect" => {
            (Invalid, ELSEWHERE)
        }
        "BadDigest" | "InvalidDigest" | "XAmzContentSHA256Mismatch" | "XAmzContentChecksumMismatch" => {
            (Unavailable, "the bytes changed on the way to the store: look at the network between")
        }
        "SlowDown" | "Throttling" | "RequestLimitExceeded" => (Unavailable, SLOWER),
        "RequestTimeout" => (Unavailable, "the store waited too long for the request's bytes"),
        "QuotaExceeded" | "InsufficientStorage" | "XMinioStorageFull" => (Unavailable, FULL),
        "NotImplemented" | "MethodNotAllowed" => (Invalid, LACKS),
        _ => return None,
    })
}

fn by_status(status: u16) -> (Kind, &'static str) {
    use Kind::{AlreadyExists, Denied, Invalid, Unavailable};
    match status {
        301 | 307 => (Invalid, ELSEWHERE),
        401 | 403 => (Denied, RIGHTS),
        // A proxy says so, too: only the code makes it a missing object.
        404 => (
            Unavailable,
            "an S3 store would name the reason: check the endpoint and what is between it and this machine",
        ),
        405 | 501 => (Invalid, LACKS),
        // Another conditional write of the key is under way; the whole create is to be repeated.
        409 => (Unavailable, RACE),
        412 => (AlreadyExists, ""),
        429 | 503 => (Unavailable, SLOWER),
        507 => (Unavailable, FULL),
        500..=599 => (Unavailable, FAULT),
        200..=299 => (Unavailable, "check the endpoint and what is between the store and this machine"),
        _ => (Invalid, ""),
    }
}

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
    use aws_credential_types::provider::error::CredentialsError;
    use aws_sdk_s3::error::ConnectorError;
    use aws_sdk_s3::primitives::SdkBody;

    fn kind(status: u16, code: Option<&str>) -> Kind {
        answered("x", status, code, None).kind()
    }

    #[test]
    fn each_answer_has_its_kind() {
        assert_eq!(kind(404, Some("NoSuchKey")), Kind::NotFound);
        assert_eq!(kind(404, Some("NoSuchBucket")), Kind::NoPlace, "a missing bucket is no missing key");
        assert_eq!(kind(404, Some("NoSuchUpload")), Kind::AlreadyExists);
        assert_eq!(kind(412, Some("PreconditionFailed")), Kind::AlreadyExists);
        assert_eq!(kind(412, None), Kind::AlreadyExists);
        assert_eq!(kind(409, Some("ConditionalRequestConflict")), Kind::Unavailable);
        assert_eq!(kind(403, Some("AccessDenied")), Kind::Denied);
        assert_eq!(kind(403, Some("InvalidObjectState")), Kind::Denied);
        assert_eq!(kind(403, None), Kind::Denied);
        assert_eq!(kind(400, Some("ExpiredToken")), Kind::Denied);
        assert_eq!(kind(403, Some("RequestTimeTooSkewed")), Kind::Denied);
        assert_eq!(kind(301, Some("PermanentRedirect")), Kind::Invalid);
        assert_eq!(kind(400, Some("AuthorizationHeaderMalformed")), Kind::Invalid);
        assert_eq!(kind(400, Some("BadDigest")), Kind::Unavailable);
        assert_eq!(kind(503, Some("SlowDown")), Kind::Unavailable);
        assert_eq!(kind(500, None), Kind::Unavailable);
        assert_eq!(kind(501, Some("NotImplemented")), Kind::Invalid);
        assert_eq!(kind(400, None), Kind::Invalid);
        assert!(answered("x", 400, Some("NeverHeardOf"), None).to_string().contains("NeverHeardOf"));
    }

    #[test]
    fn a_code_says_more_than_a_status() {
        for (status, of_status, of_code, codes) in [
            (400, Kind::Invalid, Kind::NotFound, "NoSuchKey"),
            (400, Kind::Invalid, Kind::NoPlace, "NoSuchBucket"),
            (400, Kind::Invalid, Kind::AlreadyExists, "PreconditionFailed NoSuchUpload"),
            (400, Kind::Invalid, Kind::Unavailable, "ConditionalRequestConflict OperationAborted"),
            (400, Kind::Invalid, Kind::Unavailable, "InternalError ServiceUnavailable"),
            (400, Kind::Invalid, Kind::Denied, "AccessDenied AllAccessDisabled InvalidObjectState"),
            (400, Kind::Invalid, Kind::Denied, "ExpiredToken ExpiredTokenException TokenRefreshRequired"),
            (400, Kind::Invalid, Kind::Denied, "InvalidAccessKeyId InvalidToken UnrecognizedClientException"),
            (400, Kind::Invalid, Kind::Denied, "SignatureDoesNotMatch RequestTimeTooSkewed RequestExpired"),
            (403, Kind::Denied, Kind::Invalid, "AuthorizationHeaderMalformed PermanentRedirect"),
            (403, Kind::Denied, Kind::Invalid, "IllegalLocationConstraintException"),
            (400, Kind::Invalid, Kind::Unavailable, "BadDigest InvalidDigest XAmzContentSHA256Mismatch"),
            (400, Kind::Invalid, Kind::Unavailable, "XAmzContentChecksumMismatch RequestTimeout"),
            (400, Kind::Invalid, Kind::Unavailable, "SlowDown Throttling RequestLimitExceeded"),
            (400, Kind::Invalid, Kind::Unavailable, "QuotaExceeded InsufficientStorage XMinioStorageFull"),
            (403, Kind::Denied, Kind::Invalid, "NotImplemented MethodNotAllowed"),
        ] {
            assert_eq!(kind(status, Some("NeverHeardOf")), of_status);
            codes.split(' ').for_each(|code| assert_eq!(kind(status, Some(code)), of_code, "{code}"));
        }
    }

    #[test]
    fn each_status_says_what_to_do() {
        for (statuses, expected, hint) in [
            (&[301, 307][..], Kind::Invalid, ELSEWHERE),
            (&[401, 403], Kind::Denied, RIGHTS),
            (&[405, 501], Kind::Invalid, LACKS),
            (&[409], Kind::Unavailable, RACE),
            (&[429, 503], Kind::Unavailable, SLOWER),
            (&[507], Kind::Unavailable, FULL),
            (&[500, 502, 504, 599], Kind::Unavailable, FAULT),
        ] {
            statuses.iter().for_each(|status| assert_eq!(by_status(*status), (expected, hint), "{status}"));
        }
        assert_eq!([kind(200, None), kind(404, None)], [Kind::Unavailable; 2]);
    }

    #[test]
    fn an_answer_that_breaks_off_is_an_outage_unless_its_status_says_more() {
        let of = |status: u16| {
            let raw = HttpResponse::new(status.try_into().unwrap(), SdkBody::empty());
            classify("list", "x", Failed::response_error("closed", raw))
        };
        assert_eq!(of(200).kind(), Kind::Unavailable);
        assert!(of(200).to_string().contains("broke off"), "{}", of(200));
        assert_eq!([of(403).kind(), of(503).kind()], [Kind::Denied, Kind::Unavailable]);
    }

    #[test]
    fn a_404_is_a_missing_key_only_where_the_store_says_so() {
        assert_eq!(kind(404, None), Kind::Unavailable);
        assert_eq!(kind(404, Some("404 Not Found")), Kind::Unavailable);
        assert_eq!(deleted("x").kind(), Kind::Denied, "a delete marker hides bytes that may be there");
    }

    #[test]
    fn an_error_behind_a_status_of_success_is_that_error() {
        let kind = |code: Option<&str>| {
            flawed("x", &Flaw::Failed { code: code.map(str::to_owned), message: None }).kind()
        };
        assert_eq!(kind(Some("PreconditionFailed")), Kind::AlreadyExists);
        assert_eq!(kind(Some("InternalError")), Kind::Unavailable);
        assert_eq!(kind(Some("AccessDenied")), Kind::Denied);
        assert_eq!(kind(Some("NeverHeardOf")), Kind::Unavailable);
        assert_eq!(kind(None), Kind::Unavailable);
        for flaw in [Flaw::Cut, Flaw::Foreign("a page".to_owned()), Flaw::OtherBytes] {
            let error = flawed("x", &flaw);
            assert_eq!(error.kind(), Kind::Unavailable);
            let of_a_page = matches!(flaw, Flaw::Foreign(_));
            assert_eq!(error.hint_text().unwrap().contains("sign-in page"), of_a_page, "{error}");
        }
    }

    type Failed = SdkError<aws_sdk_s3::operation::get_object::GetObjectError, HttpResponse>;

    fn of_line(error: ConnectorError) -> Failed {
        SdkError::dispatch_failure(error)
    }

    fn of_io(kind: io::ErrorKind) -> Failed {
        of_line(ConnectorError::io(Box::new(io::Error::other(io::Error::from(kind)))))
    }

    #[test]
    fn a_line_that_fails_is_an_outage_and_never_an_answer() {
        let kind = |error| classify("read", "x", error).kind();
        assert_eq!(kind(SdkError::timeout_error("late")), Kind::Unavailable);
        assert_eq!(kind(of_line(ConnectorError::timeout("late".into()))), Kind::Unavailable);
        for (io, word) in [
            (io::ErrorKind::ConnectionRefused, "nothing listens"),
            (io::ErrorKind::InvalidData, "TLS"),
            (io::ErrorKind::Other, "host name"),
        ] {
            let error = classify("read", "x", of_io(io));
            assert_eq!(error.kind(), Kind::Unavailable, "{io}");
            assert!(error.hint_text().unwrap().contains(word), "{io}");
        }
        let none = CredentialsError::not_loaded("no provider has any");
        assert_eq!(kind(of_line(ConnectorError::other(none.into(), None))), Kind::Denied);
    }

    #[test]
    fn a_request_that_was_cut_is_told_by_the_innermost_reason() {
        use io::ErrorKind::{BrokenPipe, ConnectionAborted, ConnectionRefused, ConnectionReset};
        assert!(
            [BrokenPipe, ConnectionAborted, ConnectionReset].into_iter().all(|kind| was_cut(&of_io(kind)))
        );
        assert!(!was_cut(&of_io(ConnectionRefused)), "nothing was sent");
        assert!(!was_cut(&Failed::timeout_error("late")));
    }

    #[test]
    fn what_is_said_of_one_object_of_many_has_its_kind_too() {
        let kind = |code| refused("delete", "x", code, None).kind();
        assert_eq!(kind(Some("SlowDown")), Kind::Unavailable);
        assert_eq!(kind(Some("AccessDenied")), Kind::Denied);
        assert_eq!([kind(Some("NeverHeardOf")), kind(None)], [Kind::Denied; 2]);
    }
}
