//! The rule where a local and a remote change of one node meet. Pure.
//!
//! `base` is what both sides last agreed on. Per field: only one side changed, that change counts;
//! both changed, the committed (remote) one counts for attributes. For content both count: the
//! committed one keeps the name, the local one becomes a conflict file.

use drivefs_core::node::Attrs;
use drivefs_core::node::Xattrs;

/// What becomes of a node's content.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Verdict {
    /// The remote content did not change (or is our own put coming back): local goes on.
    KeepLocal,
    /// Both sides have the same content.
    Same,
    /// Only the remote content changed.
    TakeRemote,
    /// Both changed, differently.
    Conflict,
}

/// The three contents of a node, each an encoded manifest root; none for "no content".
#[derive(Debug, Clone, Copy)]
pub struct Contents<'a> {
    pub base: Option<&'a [u8]>,
    pub remote: Option<&'a [u8]>,
    /// Under the layers.
    pub local: Option<&'a [u8]>,
    /// Bytes were written that `local` does not show yet.
    pub has_layers: bool,
    /// Puts that were sent and not answered.
    pub inflight: &'a [Vec<u8>],
}

/// Decides about the content.
pub fn resolve_content(c: &Contents<'_>) -> Verdict {
    let local_changed = c.has_layers || c.local != c.base;
    if c.remote == c.base {
        return if local_changed { Verdict::KeepLocal } else { Verdict::Same };
    }
    if c.local == c.remote && !c.has_layers {
        return Verdict::Same;
    }
    if !local_changed {
        return Verdict::TakeRemote;
    }
    // Our own put came back before its answer: what was written since goes on from there.
    if c.remote.is_some_and(|remote| c.inflight.iter().any(|sent| sent == remote)) {
        return Verdict::KeepLocal;
    }
    // Layers over exactly the remote content are an edit of it.
    if c.local == c.remote {
        return Verdict::KeepLocal;
    }
    Verdict::Conflict
}

/// Merges attributes field by field. Without a base our own creation comes back: local counts.
pub fn merge_attrs(base: Option<&Attrs>, local: &Attrs, remote: &Attrs) -> Attrs {
    let Some(base) = base else { return *local };
    fn pick<T: PartialEq + Copy>(base: T, local: T, remote: T) -> T {
        if remote != base { remote } else { local }
    }
    Attrs {
        mode: pick(base.mode, local.mode, remote.mode),
        uid: pick(base.uid, local.uid, remote.uid),
        gid: pick(base.gid, local.gid, remote.gid),
        mtime: pick(base.mtime, local.mtime, remote.mtime),
        btime: pick(base.btime, local.btime, remote.btime),
    }
}

/// Merges extended attributes name by name.
pub fn merge_xattrs(base: Option<&Xattrs>, local: &Xattrs, remote: &Xattrs) -> Xattrs {
    let Some(base) = base else { return local.clone() };
    let mut merged = remote.clone();
    for (name, value) in local {
        if base.get(name) != Some(value) && remote.get(name) == base.get(name) {
            merged.insert(name.clone(), value.clone());
        }
    }
    for name in base.keys() {
        if !local.contains_key(name) && remote.get(name) == base.get(name) {
            merged.remove(name);
        }
    }
    merged
}

#[cfg(test)]
mod tests {
    use super::*;
    use drivefs_core::wire::Blob;
    use proptest::prelude::*;

    fn content() -> impl Strategy<Value = Option<Vec<u8>>> {
        proptest::option::of(proptest::collection::vec(0u8..3, 1..2))
    }

    fn attrs() -> impl Strategy<Value = Attrs> {
        (0u32..3, proptest::option::of(0u32..2), 0i64..3).prop_map(|(mode, uid, mtime)| Attrs {
            mode,
            uid,
            gid: uid,
            mtime,
            btime: 0,
        })
    }

    fn xattrs() -> impl Strategy<Value = Xattrs> {
        proptest::collection::btree_map("[ab]", (0u8..2).prop_map(|v| Blob(vec![v])), 0..3)
    }

    proptest! {
        #[test]
        fn no_content_that_only_one_side_has_is_dropped(
            base in content(), remote in content(), local in content(), has_layers: bool,
            inflight in proptest::collection::vec(proptest::collection::vec(0u8..3, 1..2), 0..3),
        ) {
            let verdict = resolve_content(&Contents {
                base: base.as_deref(), remote: remote.as_deref(), local: local.as_deref(),
                has_layers, inflight: &inflight,
            });
            let local_changed = has_layers || local != base;
            match verdict {
                // The remote content goes unread only if it is nothing new to us.
                Verdict::KeepLocal => {
                    let own = remote.as_ref().is_some_and(|r| inflight.contains(r));
                    prop_assert!(remote == base || own || remote == local);
                }
                // The local content goes only if nobody wrote it here.
                Verdict::TakeRemote => prop_assert!(!local_changed),
                Verdict::Same => prop_assert!(!has_layers && (local == remote)),
                Verdict::Conflict => prop_assert!(local_changed && remote != base && remote != local),
            }
        }

        #[test]
        fn attributes_changed_on_one_side_stay_changed(base in attrs(), one in attrs()) {
            prop_assert_eq!(merge_attrs(Some(&base), &base, &one), one);
            prop_assert_eq!(merge_attrs(Some(&base), &one, &base), one);
        }

        #[test]
        fn extended_attributes_changed_on_one_side_stay_changed(base in xattrs(), one in xattrs(), two in xattrs()) {
            prop_assert_eq!(merge_xattrs(Some(&base), &base, &one), one.clone());
            prop_assert_eq!(merge_xattrs(Some(&base), &one, &base), one.clone());
            let merged = merge_xattrs(Some(&base), &one, &two);
            for name in ["a", "b"] {
                let (b, l, r) = (base.get(name), one.get(name), two.get(name));
                prop_assert_eq!(merged.get(name), if r == b { l } else { r });
            }
        }
    }
}
