//! Checks of what an op carries, apart from the tree.

use drivefs_core::limits::SYMLINK_MAX_BYTES;
use drivefs_core::limits::XATTR_NAME_MAX_BYTES;
use drivefs_core::limits::XATTR_VALUE_MAX_BYTES;
use drivefs_core::limits::XATTRS_MAX_BYTES;
use drivefs_core::node::Attrs;
use drivefs_core::node::MODE_MASK;
use drivefs_core::node::Xattrs;

use super::work::Refusal;
use super::work::bad_request;

pub fn attrs(attrs: &Attrs) -> Result<(), Refusal> {
    if attrs.mode & !MODE_MASK != 0 {
        return bad_request(format!("mode {:o} has bits beyond {MODE_MASK:o}", attrs.mode));
    }
    Ok(())
}

pub fn xattrs(xattrs: &Xattrs) -> Result<(), Refusal> {
    let mut total = 0;
    for (name, value) in xattrs {
        if name.is_empty() || name.len() > XATTR_NAME_MAX_BYTES || name.contains('\0') {
            return bad_request(format!(
                "an extended attribute's name has 1 to {XATTR_NAME_MAX_BYTES} bytes and no NUL"
            ));
        }
        if value.0.len() > XATTR_VALUE_MAX_BYTES {
            return bad_request(format!(
                "an extended attribute's value has at most {XATTR_VALUE_MAX_BYTES} bytes"
            ));
        }
        total += name.len() + value.0.len();
    }
    if total > XATTRS_MAX_BYTES {
        return bad_request(format!(
            "the extended attributes of a node have at most {XATTRS_MAX_BYTES} bytes together"
        ));
    }
    Ok(())
}

pub fn symlink_target(target: &[u8]) -> Result<(), Refusal> {
    if target.is_empty() || target.len() > SYMLINK_MAX_BYTES || target.contains(&0) {
        return bad_request(format!(
            "a symlink's target has 1 to {SYMLINK_MAX_BYTES} bytes and no NUL"
        ));
    }
    Ok(())
}
