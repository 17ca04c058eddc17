//! A listing, a page at a time, believed only where it proves to be whole.
//!
//! The pages are the SDK's paginator's; it ends where a page names no next one. So each page is
//! asked whether it says how many keys it has and whether there are more, and the keys whether
//! they ascend: a page that comes twice, or a store that does not sort, would hide what is missing.

use super::{Inner, client, errors::classify, time};
use crate::storage::{Entry, Error, Kind, Result};
use aws_sdk_s3::error::SdkError;
use aws_sdk_s3::operation::list_objects_v2::ListObjectsV2Output;
use std::collections::HashSet;
use std::sync::Arc;

/// The next page from the store, `None` behind the last that it knows of.
type Ask = Box<dyn FnMut() -> Option<Result<ListObjectsV2Output>> + Send>;

/// The entries of a listing.
pub(super) struct Pages {
    ask: Ask,
    /// What is listed, for messages.
    what: String,
    /// Of the destination; keys are shown without it.
    root: String,
    /// What every key begins with, in full.
    prefix: String,
    entries: std::vec::IntoIter<Entry>,
    /// The last key, in full; the bound at first.
    last: String,
    /// Since the last key.
    tokens: HashSet<String>,
    more: bool,
    /// What stands for the keys below each folder, in full.
    folders: Vec<String>,
}

/// The names of the folders directly below a prefix.
pub(super) fn folders(inner: &Arc<Inner>, prefix: &str) -> Result<Vec<String>> {
    let mut pages = Pages::first(inner, prefix, "")?;
    for entry in pages.by_ref() {
        entry?;
    }
    let root = pages.prefix.clone();
    let name = |folder: &String| folder.strip_prefix(&root)?.strip_suffix('/').map(str::to_owned);
    let mut names: Vec<String> = pages.folders.iter().filter_map(name).filter(|n| !n.is_empty()).collect();
    names.sort();
    names.dedup();
    Ok(names)
}

impl Pages {
    /// Asks for the first page.
    pub(super) fn first(inner: &Arc<Inner>, prefix: &str, after: &str) -> Result<Self> {
        let what = inner.object(prefix);
        let after = if after.is_empty() { String::new() } else { inner.full(after) };
        let request = inner
            .client()?
            .list_objects_v2()
            .bucket(&inner.bucket)
            .prefix(inner.full(prefix))
            .delimiter("/")
            .set_start_after(Some(after.clone()).filter(|after| !after.is_empty()));
        let mut stream = request.into_paginator().send();
        let (runtime, named) = (client::runtime()?, what.clone());
        let ask = move || {
            let page = runtime.block_on(stream.next())?;
            Some(page.map_err(|error: SdkError<_, _>| match classify("list", &named, error) {
                // A listing of nothing is empty; what is missing is the bucket.
                missing if missing.kind() == Kind::NotFound => Error { kind: Kind::Invalid, ..missing },
                other => other,
            }))
        };
        Pages::of(Box::new(ask), what, (inner.prefix.clone(), inner.full(prefix)), after)
    }

    fn of(ask: Ask, what: String, (root, prefix): (String, String), last: String) -> Result<Self> {
        let (entries, tokens) = (Vec::new().into_iter(), HashSet::new());
        let folders = Vec::new();
        let mut pages = Pages { ask, what, root, prefix, entries, last, tokens, more: true, folders };
        pages.turn()?;
        Ok(pages)
    }

    /// Takes the next page. After an error there is no further one.
    fn turn(&mut self) -> Result<()> {
        self.more = false;
        let Some(page) = (self.ask)() else { return Err(self.not_whole("there is no next page")) };
        let page = page?;
        self.folders.extend(page.common_prefixes().iter().filter_map(|it| it.prefix().map(str::to_owned)));
        let next = next_token(&page).map_err(|reason| self.not_whole(&reason))?.map(str::to_owned);
        let mut entries = Vec::with_capacity(page.contents().len());
        for object in page.contents() {
            let size = object.size().and_then(|size| u64::try_from(size).ok());
            let (Some(key), Some(size)) = (object.key(), size) else {
                return Err(self.not_whole("an entry without key or size"));
            };
            let short = key.strip_prefix(&self.root).filter(|_| key.starts_with(&self.prefix));
            let Some(short) = short else { return Err(self.not_asked_for(key)) };
            if key <= self.last.as_str() {
                return Err(self.out_of_order(key));
            }
            key.clone_into(&mut self.last);
            // Some stores show a folder as an object of its own.
            if !short.is_empty() && !short.ends_with('/') {
                entries.push(Entry { key: short.to_owned(), size, modified: time(object.last_modified()) });
            }
        }
        if !page.contents().is_empty() {
            self.tokens.clear(); // keys ascend, so the listing comes to an end
        }
        if let Some(token) = next {
            if !self.tokens.insert(token) {
                return Err(self.not_whole("it leads to a page that was there before"));
            }
            self.more = true;
        }
        self.entries = entries.into_iter();
        Ok(())
    }

    fn not_whole(&self, reason: &str) -> Error {
        let what = format!("cannot list \"{}\": the answer is not whole: {reason}", self.what);
        Error::new(Kind::Unavailable, what).hint("look at the store, and at any proxy before it")
    }

    fn not_asked_for(&self, key: &str) -> Error {
        let what =
            format!("cannot list \"{}\": the store names \"{key}\", which was not asked for", self.what);
        Error::new(Kind::Invalid, what).hint("see docs/providers.md for what a store must do")
    }

    fn out_of_order(&self, key: &str) -> Error {
        let what =
            format!("cannot list \"{}\": the store names \"{key}\" after \"{}\"", self.what, self.last);
        Error::new(Kind::Invalid, what)
            .hint("the store does not list in the order of names: see docs/providers.md")
    }
}

/// The proof that a page has all its keys: the token of the next page, `None` behind the last.
fn next_token(page: &ListObjectsV2Output) -> std::result::Result<Option<&str>, String> {
    let (keys, folders) = (page.contents().len(), page.common_prefixes().len());
    if let Some(count) = page.key_count() {
        // Most stores count folders, too.
        let fits = usize::try_from(count).is_ok_and(|count| count == keys || count == keys + folders);
        if !fits {
            return Err(format!("it has {keys} keys and {folders} folders, and says {count}"));
        }
    }
    match (page.is_truncated(), page.next_continuation_token().filter(|token| !token.is_empty())) {
        (Some(false), _) => Ok(None),
        (Some(true), Some(token)) => Ok(Some(token)),
        (Some(true), None) => Err("there are more keys, and no token for them".to_owned()),
        (None, _) => Err("it does not say whether there are more keys".to_owned()),
    }
}

impl Iterator for Pages {
    type Item = Result<Entry>;

    fn next(&mut self) -> Option<Result<Entry>> {
        loop {
            if let Some(entry) = self.entries.next() {
                return Some(Ok(entry));
            }
            if !self.more {
                return None;
            }
            if let Err(error) = self.turn() {
                return Some(Err(error));
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use aws_sdk_s3::types::{CommonPrefix, Object};

    fn page(keys: &[&str], truncated: Option<bool>, token: Option<&str>) -> ListObjectsV2Output {
        let object = |key: &&str| Object::builder().key(format!("p/wal_005/{key}")).size(1).build();
        ListObjectsV2Output::builder()
            .set_contents(Some(keys.iter().map(object).collect()))
            .set_is_truncated(truncated)
            .set_next_continuation_token(token.map(str::to_owned))
            .key_count(i32::try_from(keys.len()).unwrap())
            .build()
    }

    fn listed(pages: Vec<ListObjectsV2Output>, after: &str) -> Result<Vec<String>> {
        let mut pages = pages.into_iter();
        let ask = move || pages.next().map(Ok);
        let prefixes = ("p/".to_owned(), "p/wal_005/".to_owned());
        let entries = Pages::of(Box::new(ask), "s3://b/p/wal_005/".to_owned(), prefixes, after.to_owned())?;
        entries.map(|entry| entry.map(|entry| entry.key)).collect()
    }

    fn kind(pages: Vec<ListObjectsV2Output>) -> Kind {
        listed(pages, "").unwrap_err().kind()
    }

    #[test]
    fn pages_follow_each_other_to_the_one_that_says_that_it_is_the_last() {
        let pages = || {
            vec![
                page(&["a", "b"], Some(true), Some("1")),
                page(&[], Some(true), Some("2")),
                page(&["c"], Some(false), Some("a store may name one all the same")),
                page(&["never asked for"], Some(false), None),
            ]
        };
        assert_eq!(listed(pages(), "").unwrap(), ["wal_005/a", "wal_005/b", "wal_005/c"]);
        assert_eq!(listed(vec![page(&[], Some(false), None)], "").unwrap(), [""; 0]);
    }

    #[test]
    fn a_page_that_does_not_say_that_it_is_whole_is_not_believed() {
        let whole = || page(&["a", "b"], Some(false), None);
        assert_eq!(kind(vec![page(&["a"], None, None)]), Kind::Unavailable);
        assert_eq!(kind(vec![page(&["a"], Some(true), None)]), Kind::Unavailable);
        let empty_token = page(&["a"], Some(true), Some(""));
        assert_eq!(kind(vec![empty_token, page(&["b"], Some(false), None)]), Kind::Unavailable);
        assert_eq!(kind(vec![page(&["a"], Some(true), Some("1"))]), Kind::Unavailable, "no second page");
        for count in [0, 1, 3, -1] {
            let mut page = whole();
            page.key_count = Some(count);
            assert_eq!(kind(vec![page]), Kind::Unavailable, "{count}");
        }
        let with_folder = |count| {
            let mut page = whole();
            page.common_prefixes = Some(vec![CommonPrefix::builder().prefix("p/wal_005/x/").build()]);
            page.key_count = count;
            listed(vec![page], "").unwrap().len()
        };
        assert_eq!([Some(2), Some(3), None].map(with_folder), [2, 2, 2]);
        for odd in [Object::builder().size(1).build(), Object::builder().key("p/wal_005/a").build()] {
            let mut page = page(&["x"], Some(false), None);
            page.contents = Some(vec![odd]);
            assert_eq!(kind(vec![page]), Kind::Unavailable);
        }
    }

    #[test]
    fn a_page_that_comes_again_ends_the_listing_with_an_error() {
        let again = |token| page(&[], Some(true), Some(token));
        let last = || page(&["c"], Some(false), None);
        assert_eq!(kind(vec![again("1"), again("1"), last()]), Kind::Unavailable);
        assert_eq!(kind(vec![again("1"), again("2"), again("1"), last()]), Kind::Unavailable);
        // Where keys ascend between them, a store may use a token again.
        let ascending = ["a", "b"].map(|key| page(&[key], Some(true), Some("1")));
        assert_eq!(listed(ascending.into_iter().chain([last()]).collect(), "").unwrap().len(), 3);
        let full = || page(&["a", "b"], Some(true), Some("1"));
        assert_eq!(kind(vec![full(), full()]), Kind::Invalid);
    }

    #[test]
    fn keys_out_of_order_before_the_bound_or_not_asked_for_are_errors() {
        assert_eq!(kind(vec![page(&["b", "a"], Some(false), None)]), Kind::Invalid);
        assert_eq!(kind(vec![page(&["a", "a"], Some(false), None)]), Kind::Invalid);
        let one = || vec![page(&["b"], Some(false), None)];
        assert_eq!(listed(one(), "p/wal_005/a").unwrap(), ["wal_005/b"]);
        assert_eq!(listed(one(), "p/wal_005/b").unwrap_err().kind(), Kind::Invalid);
        for key in ["q/wal_005/a", "p/other/a"] {
            let mut other = page(&["x"], Some(false), None);
            other.contents = Some(vec![Object::builder().key(key).size(1).build()]);
            assert_eq!(kind(vec![other]), Kind::Invalid, "{key}");
        }
    }

    #[test]
    fn folders_shown_as_objects_are_left_out() {
        let pages = vec![page(&["", "a", "b/"], Some(false), None)];
        let shown = listed(pages, "").unwrap();
        assert_eq!(shown, ["wal_005/a"]);
        let mut root = page(&[], Some(false), None);
        root.contents = Some(vec![Object::builder().key("p/").size(0).build()]);
        root.key_count = Some(1);
        let mut root = Some(Ok(root));
        let prefixes = ("p/".to_owned(), "p/".to_owned());
        let mut shown =
            Pages::of(Box::new(move || root.take()), "s3://b/p/".to_owned(), prefixes, String::new());
        assert!(shown.as_mut().unwrap().next().is_none(), "the folder of the destination itself");
    }
}
