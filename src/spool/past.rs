//! Contents of old versions: block lists that never change, of files that may be gone.

use std::sync::Arc;

use drivefs_core::id::NamespaceId;
use drivefs_core::manifest::Root;

use super::Content;
use super::Spool;
use super::SpoolError;
use super::content::Base;
use super::content::Parts;
use crate::state::Nid;

/// Numbers from here on are not those of rows: they stand for what is in the past.
const PAST: Nid = 1 << 63;

/// True for the number of something in the past.
pub fn is_past(nid: Nid) -> bool {
    nid & PAST != 0
}

/// The number that some bits make in the past.
pub fn past_nid(bits: u64) -> Nid {
    bits | PAST
}

impl Spool {
    /// The content behind an encoded manifest root of a namespace, to be read and nothing else.
    pub fn past(&self, nid: Nid, ns: NamespaceId, root: &[u8]) -> Result<Arc<Content>, SpoolError> {
        assert!(is_past(nid), "what has a row has layers, too");
        let root = Root::decode(root)?;
        let parts = Parts {
            size: root.size(),
            live: None,
            frozen: None,
            base: Base::new(root),
            superseded: None,
            mtime: None,
            unsaved: false,
            time_was_set: false,
        };
        Ok(Arc::new(Content::new(nid, ns, parts)))
    }
}
