//! A place together with the keys of what is stored there.

use super::layer::{Ask, Layer, Order};
use super::{DeletionFailed, Listing, Object, Range, Result, Shared, Storage};
use crate::object::Key;
use crate::object::age::Keyring;
use std::sync::Arc;

/// Passes every request on, and knows the keys.
pub struct Keyed {
    inner: Shared,
    keys: Arc<Keyring>,
}

impl Keyed {
    pub fn new(inner: Shared, keys: Arc<Keyring>) -> Self {
        Keyed { inner, keys }
    }
}

impl Layer for Keyed {
    fn inner(&self) -> &Shared {
        &self.inner
    }

    fn own_keys(&self) -> Option<&Keyring> {
        Some(&self.keys)
    }

    fn ask<T: Send + 'static>(
        &self,
        _: Ask<'_>,
        request: impl Fn(&dyn Storage) -> Result<T> + Clone + Send + 'static,
    ) -> Result<T> {
        request(self.inner.as_ref())
    }

    fn read(&self, key: &Key, range: Range) -> Result<Object> {
        self.inner.get(key, range)
    }

    fn entries(&self, prefix: &str, order: Order<'_>) -> Result<Listing> {
        order.list(self.inner.as_ref(), prefix)
    }

    fn remove(&self, keys: &[Key]) -> std::result::Result<(), DeletionFailed> {
        self.inner.delete_all(keys)
    }
}
