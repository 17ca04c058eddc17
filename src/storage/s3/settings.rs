//! What must be known to reach a bucket.

use std::fmt;
use std::path::PathBuf;

/// A text that never reaches a message, a log or `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
    /// Wraps it.
    pub fn new(text: String) -> Self {
        Secret(text)
    }

    pub(super) fn reveal(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("********")
    }
}

/// A URL without the user and password that may be in it, for messages.
pub fn without_password(url: &str) -> String {
    let Some((scheme, rest)) = url.split_once("://") else { return url.to_owned() };
    let end = rest.find(['/', '?', '#']).unwrap_or(rest.len());
    match rest.get(..end).and_then(|authority| authority.rfind('@')) {
        Some(at) => format!("{scheme}://********{}", rest.get(at..).unwrap_or_default()),
        None => url.to_owned(),
    }
}

/// How uploads carry a checksum of the SDK's own, beside the object's.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum RequestChecksums {
    /// CRC32 with every upload.
    #[default]
    WhenSupported,
    /// Only where S3 demands one: for old stores that choke on it.
    WhenRequired,
}

/// Whether the store refuses to create what exists.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ConditionalWrites {
    /// It does; proved before the first push.
    #[default]
    Required,
    /// It does not, and the user accepts the race between look and write.
    Unsupported,
}

/// Server-side encryption.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Encryption {
    /// `AES256`: keys of S3.
    S3,
    /// `aws:kms`, with the id of the key where it is not the default one.
    Kms(Option<String>),
}

/// A pair of static keys.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Keys {
    /// Not secret, but not shown either.
    pub access_key_id: Secret,
    /// See its type.
    pub secret_access_key: Secret,
    /// Of temporary credentials.
    pub session_token: Option<Secret>,
}

/// What is set beyond the AWS chain of environment, profile, web identity, ECS and IMDS.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct S3Settings {
    /// `https://host:port` of a store that is not AWS.
    pub endpoint: Option<String>,
    /// By default the chain's, or `us-east-1` where an endpoint is given.
    pub region: Option<String>,
    /// `http://host/bucket/key`; by default where an endpoint is given.
    pub path_style: Option<bool>,
    /// Of `~/.aws/config` and `~/.aws/credentials`.
    pub profile: Option<String>,
    /// Used instead of the chain.
    pub keys: Option<Keys>,
    /// PEM certificates to trust beside the system's.
    pub ca_bundle: Option<PathBuf>,
    /// `http://host:port` of a proxy.
    pub proxy: Option<String>,
    /// Hosts, domains and networks that are reached without a proxy, with commas between.
    pub no_proxy: Option<String>,
    /// Such as `STANDARD_IA`.
    pub storage_class: Option<String>,
    /// By default the bucket's.
    pub encryption: Option<Encryption>,
    /// `key=value&key=value`, URL-encoded.
    pub tags: Option<String>,
    /// See there.
    pub request_checksums: RequestChecksums,
    /// See there.
    pub conditional_writes: ConditionalWrites,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_url_is_shown_without_its_password() {
        for (url, shown) in [
            ("http://host:1/path", "http://host:1/path"),
            ("http://me:hush@host:1/path", "http://********@host:1/path"),
            ("https://hush@host", "https://********@host"),
            ("http://me:hu@sh@host/a@b", "http://********@host/a@b"),
            ("http://host/a@b", "http://host/a@b"),
            ("not a URL", "not a URL"),
        ] {
            assert_eq!(without_password(url), shown);
        }
    }
}
