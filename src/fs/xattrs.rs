//! Extended attributes: those of programs, and the state that drivefs itself tells.
//!
//! `user.drivefs.*` is readable by name and not listed, so that `cp -a` does not copy it.

use std::sync::atomic::Ordering;

use drivefs_core::limits::XATTR_NAME_MAX_BYTES;
use drivefs_core::node::NodeKind;

use super::DriveFs;
use crate::spool::CAPABILITY_XATTR;
use crate::spool::is_past;
use crate::state::Nid;
use crate::state::Node;
use crate::tree::TreeError;

const OWN: &str = "user.drivefs.";
/// Name spaces that programs may use; others (ACLs) are not supported.
const KNOWN: [&str; 3] = ["user.", "trusted.", "security."];

impl DriveFs {
    /// The value of an attribute; none when it is not set.
    pub fn getxattr(&self, nid: Nid, name: &[u8]) -> Result<Option<Vec<u8>>, TreeError> {
        let Ok(name) = std::str::from_utf8(name) else { return Ok(None) };
        if !KNOWN.iter().any(|k| name.starts_with(k)) {
            return Err(TreeError::Unsupported);
        }
        if is_past(nid) {
            let own = name.strip_prefix(OWN);
            let value = own.map_or(Ok(None), |own| self.past_xattr(nid, own))?;
            return Ok(value.map(String::into_bytes));
        }
        if name == CAPABILITY_XATTR
            && self.spool().loaded(nid).is_some_and(|c| !c.capability.load(Ordering::Relaxed))
        {
            // What the kernel asks before the first write to a file, answered without a look-up.
            return Ok(None);
        }
        let node = self.tree().node(nid)?;
        if let Some(own) = name.strip_prefix(OWN)
            && let Some(value) = self.own_attribute(&node, own)?
        {
            return Ok(Some(value.into_bytes()));
        }
        Ok(node.xattrs.get(name).map(|v| v.0.clone()))
    }

    /// Names of all attributes, each ended by a NUL, as listxattr(2) returns them.
    pub fn listxattr(&self, nid: Nid) -> Result<Vec<u8>, TreeError> {
        if is_past(nid) {
            return Ok(Vec::new());
        }
        let node = self.tree().node(nid)?;
        let mut out = Vec::new();
        for name in node.xattrs.keys().filter(|n| !n.starts_with(OWN)) {
            out.extend_from_slice(name.as_bytes());
            out.push(0);
        }
        Ok(out)
    }

    /// Sets or removes an attribute. `flags` as of setxattr(2).
    pub fn setxattr(
        &self,
        nid: Nid,
        name: &[u8],
        value: Option<&[u8]>,
        flags: i32,
    ) -> Result<(), TreeError> {
        self.check_present(nid, b"")?;
        let name = std::str::from_utf8(name).map_err(|_| TreeError::Unsupported)?;
        if !KNOWN.iter().any(|k| name.starts_with(k)) {
            return Err(TreeError::Unsupported);
        }
        if name.starts_with(OWN) {
            return Err(TreeError::Forbidden);
        }
        if name.len() > XATTR_NAME_MAX_BYTES {
            return Err(TreeError::Limit);
        }
        let create = flags & libc::XATTR_CREATE != 0;
        let replace = flags & libc::XATTR_REPLACE != 0;
        self.with_room(0, || self.tree().set_xattr(nid, name, value, create, replace))
    }

    fn own_attribute(&self, node: &Node, name: &str) -> Result<Option<String>, TreeError> {
        Ok(match name {
            "state" => Some(self.sync_state(node)?.to_owned()),
            "version" => Some(node.version.to_string()),
            "node" => Some(node.id.to_string()),
            "error" => self.tree().db().peek(|c| c.base_node(&node.id))?.and_then(|b| b.error),
            "pinned" => {
                let by = self.tree().pinned_by(node.nid)?;
                Some(if by.is_some() { "yes" } else { "no" }.to_owned())
            }
            "cached" => self.cached(node)?,
            "home" => Some(self.home.clone()),
            _ => None,
        })
    }

    /// Bytes of a file that are here, of how many.
    fn cached(&self, node: &Node) -> Result<Option<String>, TreeError> {
        if node.kind != NodeKind::File {
            return Ok(None);
        }
        let holdings = self.spool().holdings(node)?;
        Ok(Some(format!("{}/{}", holdings.here, holdings.bytes)))
    }

    /// `synced`, `pending`, `uploading`, `conflict` or `offline` (pending, and the server is not there).
    fn sync_state(&self, node: &Node) -> Result<&'static str, TreeError> {
        if node.links > 0 && node.xattrs.contains_key(crate::tree::CONFLICT_XATTR) {
            return Ok("conflict");
        }
        if !self.tree().db().peek(|c| c.is_dirty(&node.id))? {
            return Ok("synced");
        }
        Ok(if !self.link.is_online() {
            "offline"
        } else if self.tree().journal().is_in_hand(&node.id) {
            "uploading"
        } else {
            "pending"
        })
    }
}
