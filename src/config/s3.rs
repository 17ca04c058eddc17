//! The settings of `[s3]`, and those of one destination.

use super::table::{
    ACCESS_KEY_ID, CA_BUNDLE, CONDITIONAL_WRITES, ENDPOINT, NO_PROXY, PATH_STYLE, PROFILE, PROXY, REGION,
    REQUEST_CHECKSUMS, SECRET_ACCESS_KEY, SESSION_TOKEN, SSE, SSE_KMS_KEY_ID, STORAGE_CLASS, TAGS,
};
use super::values::Sse;
use super::{Error, Layers, Program, Resolved, Row, SETTINGS, Scope, Setting};
use crate::storage::s3::{Encryption, Keys, S3Settings};

impl Layers {
    /// How to reach the buckets; `own` is the `[[destination]]`, counted from 0, whose own
    /// settings come before those of `[s3]`.
    pub(super) fn s3(&self, own: Option<usize>) -> Result<S3Settings, Error> {
        let keys = (self.s3_get(&ACCESS_KEY_ID, own)?, self.s3_get(&SECRET_ACCESS_KEY, own)?);
        let keys = match (keys, self.s3_get(&SESSION_TOKEN, own)?) {
            ((Some(access_key_id), Some(secret_access_key)), session_token) => {
                Some(Keys { access_key_id, secret_access_key, session_token })
            }
            ((None, None), None) => None,
            _ => {
                return Err(Error::new((), "access_key_id and secret_access_key need each other")
                    .hint("set both, or neither to use the AWS credentials chain"));
            }
        };
        let encryption = match (self.s3_get(&SSE, own)?, self.s3_get(&SSE_KMS_KEY_ID, own)?) {
            (None, None) => None,
            (Some(Sse::S3), None) => Some(Encryption::S3),
            (Some(Sse::Kms), key) => Some(Encryption::Kms(key)),
            (_, Some(_)) => return Err(Error::new((), "sse_kms_key_id needs sse = \"aws:kms\"")),
        };
        Ok(S3Settings {
            endpoint: self.s3_get(&ENDPOINT, own)?,
            region: self.s3_get(&REGION, own)?,
            path_style: self.s3_get(&PATH_STYLE, own)?,
            profile: self.s3_get(&PROFILE, own)?,
            keys,
            ca_bundle: self.s3_get(&CA_BUNDLE, own)?,
            proxy: self.s3_get(&PROXY, own)?,
            no_proxy: self.s3_get(&NO_PROXY, own)?,
            storage_class: self.s3_get(&STORAGE_CLASS, own)?,
            encryption,
            tags: self.s3_get(&TAGS, own)?,
            request_checksums: self.s3_get(&REQUEST_CHECKSUMS, own)?,
            conditional_writes: self.s3_get(&CONDITIONAL_WRITES, own)?,
        })
    }

    /// What each destination sets for itself, for `wal-archive config`: its number, counted from 1,
    /// the setting and its value.
    pub fn own_settings(&self) -> Vec<(usize, &'static Row, Resolved)> {
        let Some(file) = &self.file else { return Vec::new() };
        let rows =
            || SETTINGS.iter().copied().filter(|row| matches!(row.scope, Scope::Destination | Scope::Own));
        let of = |index: usize| {
            rows()
                .filter_map(move |row| Some((index + 1, row, file.get_own(row, index, self.cluster_name())?)))
        };
        (0..file.destination_tables(self.cluster_name())).flat_map(of).collect()
    }

    /// Whether the destinations in force, where the file names them, are tables.
    pub(super) fn has_destination_tables(&self) -> bool {
        self.file.as_ref().is_some_and(|file| file.destination_tables(self.cluster_name()) > 0)
    }

    /// A flag and our own variable come before what a destination sets for itself, all else after it.
    fn s3_get<T>(&self, setting: &Setting<T>, own: Option<usize>) -> Result<T, Error> {
        let row = &setting.row;
        let of_destination = || self.file.as_ref()?.get_own(row, own?, self.cluster_name());
        match self.caller_value(row).or_else(of_destination) {
            Some(found) => setting.value(&found),
            None => self.get(setting, Program::Archive),
        }
    }
}
