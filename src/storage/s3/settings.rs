//! What must be known to reach a bucket.

use crate::host::stamp::Stamp;
use crate::object::Sha256Sum;
use std::fmt;
use std::fs;
use std::path::PathBuf;

/// A text that never reaches a message, a log or `Debug`.
#[derive(Clone, PartialEq, Eq)]
pub struct Secret(String);

impl Secret {
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
    pub secret_access_key: Secret,
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
    pub request_checksums: RequestChecksums,
    pub conditional_writes: ConditionalWrites,
}

impl S3Settings {
    /// Everything that says which objects are read, by which way and on whose word, as a sum, since
    /// secrets are among it. What only says how objects are stored is not.
    pub fn reading(&self) -> Sha256Sum {
        let S3Settings {
            endpoint,
            region,
            path_style,
            profile,
            keys,
            ca_bundle,
            proxy,
            no_proxy,
            storage_class: _,
            encryption: _,
            tags: _,
            request_checksums: _,
            conditional_writes: _,
        } = self;
        let keys = keys.as_ref().map(|keys| {
            let token = keys.session_token.as_ref().map(Secret::reveal);
            (keys.access_key_id.reveal(), keys.secret_access_key.reveal(), token)
        });
        // Other certificates in the file of the same name vouch for other stores.
        let bundle =
            ca_bundle.as_ref().map(|path| (path, fs::metadata(path).map(|file| Stamp::of(&file)).ok()));
        let all = (endpoint, region, path_style, profile, keys, bundle, proxy, no_proxy);
        Sha256Sum::of(format!("{all:?}").as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeSet;

    #[test]
    fn whatever_says_how_objects_are_read_makes_another_sum_and_nothing_else_does() {
        let text = || Some("x".to_owned());
        let keys = |id: &str, key: &str, token: Option<&str>| {
            let secret = |text: &str| Secret::new(text.to_owned());
            Some(Keys {
                access_key_id: secret(id),
                secret_access_key: secret(key),
                session_token: token.map(secret),
            })
        };
        let none = S3Settings::default();
        let folder = tempfile::tempdir().unwrap();
        let ca_bundle = Some(folder.path().join("ca.pem"));
        let reading = [
            none.clone(),
            S3Settings { endpoint: text(), ..none.clone() },
            S3Settings { region: text(), ..none.clone() },
            S3Settings { path_style: Some(true), ..none.clone() },
            S3Settings { profile: text(), ..none.clone() },
            S3Settings { keys: keys("a", "b", None), ..none.clone() },
            S3Settings { keys: keys("a", "c", None), ..none.clone() },
            S3Settings { keys: keys("c", "b", None), ..none.clone() },
            S3Settings { keys: keys("a", "b", Some("t")), ..none.clone() },
            S3Settings { ca_bundle: ca_bundle.clone(), ..none.clone() },
            S3Settings { proxy: text(), ..none.clone() },
            S3Settings { no_proxy: text(), ..none.clone() },
        ];
        let sums: BTreeSet<_> = reading.iter().map(|settings| settings.reading().to_string()).collect();
        assert_eq!(sums.len(), reading.len());
        let storing = S3Settings {
            storage_class: text(),
            encryption: Some(Encryption::S3),
            tags: text(),
            request_checksums: RequestChecksums::WhenRequired,
            conditional_writes: ConditionalWrites::Unsupported,
            ..none.clone()
        };
        assert_eq!(storing.reading(), none.reading());
        let settings = S3Settings { ca_bundle, ..none };
        let before = settings.reading();
        fs::write(folder.path().join("ca.pem"), "another authority").unwrap();
        assert_ne!(settings.reading(), before);
    }

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
