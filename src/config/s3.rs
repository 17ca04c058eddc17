//! The settings of `[s3]`, and those that stand with one destination.

use super::{Error, Layers, Origin, Program, Resolved, SETTINGS, bad_value, values};
use crate::storage::s3::{ConditionalWrites, Encryption, Keys, RequestChecksums, S3Settings, Secret};

impl Layers {
    /// How to reach the buckets; `own` is the `[[destination]]`, counted from 0, whose own
    /// settings come before those of `[s3]`.
    pub(super) fn s3(&self, own: Option<usize>) -> Result<S3Settings, Error> {
        let text = |name: &str| Ok::<_, Error>(self.s3_value(name, own)?.map(|(value, _)| value));
        let secret = |name: &str| Ok::<_, Error>(text(name)?.map(Secret::new));
        let keys = match (secret("access-key-id")?, secret("secret-access-key")?, secret("session-token")?) {
            (Some(access_key_id), Some(secret_access_key), session_token) => {
                Some(Keys { access_key_id, secret_access_key, session_token })
            }
            (None, None, None) => None,
            _ => {
                return Err(Error::new((), "access_key_id and secret_access_key need each other")
                    .hint("set both, or neither to use the AWS credentials chain"));
            }
        };
        let key = text("sse-kms-key-id")?;
        let encryption = match (self.s3_parse("sse", own, values::sse)?, key) {
            (None, None) => None,
            (Some(values::Sse::S3), None) => Some(Encryption::S3),
            (Some(values::Sse::Kms), key) => Some(Encryption::Kms(key)),
            (_, Some(_)) => return Err(Error::new((), "sse_kms_key_id needs sse = \"aws:kms\"")),
        };
        let checksums = self.s3_parse("request-checksums", own, values::request_checksums)?;
        let conditional = self.s3_parse("conditional-writes", own, values::conditional_writes)?;
        Ok(S3Settings {
            endpoint: self.s3_parse("endpoint", own, values::http_url)?,
            region: text("region")?,
            path_style: self.s3_parse("path-style", own, values::boolean)?,
            profile: text("profile")?,
            keys,
            ca_bundle: self.s3_parse("ca-bundle", own, values::absolute_path)?,
            proxy: self.s3_parse("proxy", own, values::http_url)?,
            no_proxy: text("no-proxy")?,
            storage_class: text("storage-class")?,
            encryption,
            tags: text("tags")?,
            request_checksums: checksums.unwrap_or(RequestChecksums::WhenSupported),
            conditional_writes: conditional.unwrap_or(ConditionalWrites::Required),
        })
    }

    /// What a destination sets for itself, for `wal-archive config`: its number, counted from 1,
    /// and the setting.
    pub fn own_settings(&self) -> Vec<(usize, &'static str, Resolved)> {
        let Some(file) = &self.file else { return Vec::new() };
        let mut found = Vec::new();
        for index in 0..file.destinations() {
            for setting in SETTINGS.iter().filter(|setting| setting.s3) {
                if let Some((values, key)) =
                    file.get_s3(setting, Some(index)).filter(|(_, key)| key.starts_with("destination"))
                {
                    let origin = Origin::File(file.path().to_owned(), key);
                    found.push((index + 1, setting.name, Resolved { values, origin }));
                }
            }
        }
        found
    }

    fn s3_value(&self, name: &str, own: Option<usize>) -> Result<Option<(String, Origin)>, Error> {
        let above = self.one(name, Program::Archive)?;
        // A flag and our own variable come before the file, all else behind a destination's own.
        let ours = |origin: &Origin| match origin {
            Origin::Flag(_) => true,
            Origin::Environment(variable) => variable.starts_with("WAL_ARCHIVE_"),
            Origin::File(..) | Origin::Default => false,
        };
        if above.as_ref().is_some_and(|(_, origin)| ours(origin)) {
            return Ok(above);
        }
        let setting = SETTINGS.iter().find(|setting| setting.name == name);
        let in_file = self.file.as_ref().zip(setting).and_then(|(file, setting)| {
            let (values, key) = file.get_s3(setting, own)?;
            Some((values.into_iter().next()?, Origin::File(file.path().to_owned(), key)))
        });
        Ok(in_file.or(above))
    }

    fn s3_parse<T>(
        &self,
        name: &str,
        own: Option<usize>,
        parse: impl Fn(&str) -> Result<T, String>,
    ) -> Result<Option<T>, Error> {
        let Some((value, origin)) = self.s3_value(name, own)? else { return Ok(None) };
        parse(&value).map(Some).map_err(|right| bad_value(&value, &origin, &right))
    }
}
