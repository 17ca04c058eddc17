//! Whether an answer is whole and an S3 store's, told from its own bytes.
//!
//! The SDK's XML reader ends silently where a body ends, and a body without a length ends where the
//! connection does: a listing that was cut reads like a short listing. And any status of success
//! with any body counts as success: a captive portal's page would be a stored object. So every
//! answer of success passes here before anyone believes it: [`Whole`] sees its raw bytes.

use aws_sdk_s3::config::interceptors::{
    AfterDeserializationInterceptorContextRef, BeforeTransmitInterceptorContextRef,
};
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_smithy_types::config_bag::{Storable, StoreReplace};
use std::error::Error as StdError;
use std::fmt;

/// Why an answer of success is not to be believed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Flaw {
    /// The document has no end.
    Cut,
    /// No S3 store answers so.
    Foreign(String),
    /// An error that the store noticed after it had sent the status.
    Failed {
        /// Of the error document.
        code: Option<String>,
        message: Option<String>,
    },
    /// The store's checksum of what it stored is not that of what was sent.
    OtherBytes,
}

impl fmt::Display for Flaw {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Flaw::Cut => f.write_str("the answer was cut"),
            Flaw::Foreign(what) => write!(f, "this is no S3 store's answer: {what}"),
            Flaw::Failed { .. } => f.write_str("an error behind a status of success"),
            Flaw::OtherBytes => f.write_str("the store's checksum is not that of the bytes sent"),
        }
    }
}

impl StdError for Flaw {}

/// Passes on only what is whole.
#[derive(Debug)]
pub(super) struct Whole;

impl Intercept for Whole {
    fn name(&self) -> &'static str {
        "Whole"
    }

    fn read_before_transmit(
        &self,
        context: &BeforeTransmitInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let headers = context.request().headers().iter();
        let sums = headers.filter(|(name, _)| name.starts_with("x-amz-checksum-"));
        let sent = sums.map(|(name, value)| (name.to_owned(), value.to_owned())).collect();
        config.interceptor_state().store_put(Sent(sent));
        Ok(())
    }

    fn read_after_deserialization(
        &self,
        context: &AfterDeserializationInterceptorContextRef<'_>,
        _: &RuntimeComponents,
        config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let response = context.response();
        if !response.status().is_success() {
            return Ok(());
        }
        if response.status().as_u16() == 202 {
            // The only promise of this status is that something may happen later.
            return Err(Flaw::Foreign("status 202".to_owned()).into());
        }
        // A streamed object is not in memory; its length proves it.
        document(response.body().bytes().unwrap_or_default())?;
        let differs = |(name, value): &(String, String)| {
            response.headers().get(name).is_some_and(|stored| stored != value)
        };
        match config.load::<Sent>() {
            Some(Sent(sums)) if sums.iter().any(differs) => Err(Flaw::OtherBytes.into()),
            _ => Ok(()),
        }
    }
}

/// The checksums that a request carried.
#[derive(Debug)]
struct Sent(Vec<(String, String)>);

impl Storable for Sent {
    type Storer = StoreReplace<Self>;
}

/// The roots of the documents that this program asks for.
const ROOTS: [&str; 4] =
    ["ListBucketResult", "DeleteResult", "InitiateMultipartUploadResult", "CompleteMultipartUploadResult"];

/// Proves that a body is empty or one whole document of those above.
fn document(body: &[u8]) -> Result<(), Flaw> {
    let text = std::str::from_utf8(body).map_err(|_| Flaw::Foreign("it is not text".to_owned()))?;
    let text = without_prolog(text).trim();
    if text.is_empty() {
        // Some stores keep a line alive with spaces; what must have content is asked for it later.
        return Ok(());
    }
    let Some(tag) = text.strip_prefix('<') else { return Err(Flaw::Foreign("it is not XML".to_owned())) };
    let end = tag.find(|c: char| c.is_whitespace() || c == '>' || c == '/').ok_or(Flaw::Cut)?;
    let root = tag.get(..end).unwrap_or_default();
    if root != "Error" && !ROOTS.contains(&root) {
        return Err(Flaw::Foreign(format!("a document \"{}\"", root.escape_debug())));
    }
    let first = tag.get(..=tag.find('>').ok_or(Flaw::Cut)?).unwrap_or_default();
    let whole = match first.ends_with("/>") {
        true => first.len() == tag.len(),
        false => text.strip_suffix('>').is_some_and(|rest| rest.trim_end().ends_with(&format!("</{root}"))),
    };
    match (whole, root) {
        (false, _) => Err(Flaw::Cut),
        (true, "Error") => {
            Err(Flaw::Failed { code: element(text, "Code"), message: element(text, "Message") })
        }
        (true, _) => Ok(()),
    }
}

/// Skips byte order mark, XML declaration and comments.
fn without_prolog(mut text: &str) -> &str {
    text = text.trim_start_matches('\u{feff}');
    loop {
        text = text.trim_start();
        let end = match (text.starts_with("<?"), text.starts_with("<!--")) {
            (true, _) => "?>",
            (_, true) => "-->",
            _ => return text,
        };
        match text.split_once(end) {
            Some((_, rest)) => text = rest,
            None => return text,
        }
    }
}

/// The text of the first such element.
fn element(text: &str, name: &str) -> Option<String> {
    let (_, rest) = text.split_once(&format!("<{name}>"))?;
    Some(rest.split_once('<')?.0.trim().to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    const LISTING: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<ListBucketResult xmlns=\"http://s3.amazonaws.com/doc/2006-03-01/\"><IsTruncated>false</IsTruncated><Contents><Key>a</Key></Contents></ListBucketResult>\n";

    #[test]
    fn a_document_is_whole_with_its_last_byte_only() {
        document(LISTING.as_bytes()).unwrap();
        let last = LISTING.trim_end().len();
        for end in 1..last {
            let cut = document(&LISTING.as_bytes()[..end]);
            // Of nothing but a declaration nobody can say that it is XML of an S3 store.
            assert!(
                cut.is_err() || end == LISTING.find('\n').unwrap() || end == LISTING.find('\n').unwrap() + 1,
                "{end}"
            );
        }
    }

    #[test]
    fn only_documents_of_s3_are_believed() {
        for whole in [
            "",
            " \n",
            "<DeleteResult/>",
            "<!-- x --><DeleteResult></DeleteResult >",
            "\u{feff}<DeleteResult />",
        ] {
            document(whole.as_bytes()).unwrap();
        }
        for foreign in ["<html><body>Sign in</body></html>", "<!DOCTYPE html><html></html>", "{}", "OK"] {
            assert!(matches!(document(foreign.as_bytes()), Err(Flaw::Foreign(_))), "{foreign}");
        }
        assert!(matches!(document(&[0xff, 0xfe]), Err(Flaw::Foreign(_))));
        for cut in
            ["<DeleteResult", "<DeleteResult>", "<DeleteResult/><x>", "<DeleteResult></DeleteResult></x>"]
        {
            assert_eq!(document(cut.as_bytes()), Err(Flaw::Cut), "{cut}");
        }
    }

    #[test]
    fn an_error_document_is_that_error() {
        let text =
            "  <?xml version=\"1.0\"?><Error><Code>InternalError</Code><Message>try again</Message></Error>";
        let failed =
            Flaw::Failed { code: Some("InternalError".to_owned()), message: Some("try again".to_owned()) };
        assert_eq!(document(text.as_bytes()), Err(failed));
        assert_eq!(document(b"<Error></Error>"), Err(Flaw::Failed { code: None, message: None }));
        assert_eq!(document(b"<Error><Code>InternalErr"), Err(Flaw::Cut));
    }
}
