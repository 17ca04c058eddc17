//! The store's clock, by the `Date` of its answers.

use aws_sdk_s3::config::interceptors::BeforeDeserializationInterceptorContextRef;
use aws_sdk_s3::config::{ConfigBag, Intercept, RuntimeComponents};
use aws_sdk_s3::error::BoxError;
use aws_sdk_s3::primitives::{DateTime, DateTimeFormat};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::SystemTime;

/// Remembers the date of the last answer.
#[derive(Clone, Debug, Default)]
pub(super) struct Dates(Arc<Mutex<Option<SystemTime>>>);

impl Dates {
    /// Of the last answer that had one.
    pub(super) fn last(&self) -> Option<SystemTime> {
        *self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Intercept for Dates {
    fn name(&self) -> &'static str {
        "dates"
    }

    fn read_before_deserialization(
        &self,
        context: &BeforeDeserializationInterceptorContextRef<'_>,
        _components: &RuntimeComponents,
        _config: &mut ConfigBag,
    ) -> Result<(), BoxError> {
        let date = context.response().headers().get("date").and_then(|text| {
            let date = DateTime::from_str(text, DateTimeFormat::HttpDate).ok()?;
            SystemTime::try_from(date).ok()
        });
        if date.is_some() {
            *self.0.lock().unwrap_or_else(PoisonError::into_inner) = date;
        }
        Ok(())
    }
}
