//! The one place where errors become error numbers.

use std::io;

use fuser::Errno;

use drivefs_core::name::NameError;

use crate::cache::CacheError;
use crate::spool::SpoolError;
use crate::state::DbError;
use crate::tree::TreeError;

/// The error number that a program sees. Anything unexpected is logged here, once.
pub fn errno(e: &TreeError) -> Errno {
    match e {
        TreeError::NotFound => Errno::ENOENT,
        TreeError::Exists => Errno::EEXIST,
        TreeError::NotDir => Errno::ENOTDIR,
        TreeError::IsDir => Errno::EISDIR,
        TreeError::NotEmpty => Errno::ENOTEMPTY,
        TreeError::Forbidden => Errno::EPERM,
        TreeError::ReadOnly => Errno::EROFS,
        TreeError::Busy => Errno::EBUSY,
        TreeError::IntoItself => Errno::EINVAL,
        TreeError::CrossDevice => Errno::EXDEV,
        TreeError::Limit => Errno::E2BIG,
        // As ext4 and XFS say it.
        TreeError::XattrsFull => Errno::ENOSPC,
        TreeError::NoAttribute => Errno::from_i32(libc::ENODATA),
        TreeError::Unsupported => Errno::from_i32(libc::EOPNOTSUPP),
        TreeError::Name(NameError::TooLong) => Errno::ENAMETOOLONG,
        TreeError::Name(NameError::Reserved) => Errno::EPERM,
        TreeError::Name(_) => Errno::EINVAL,
        TreeError::Db(e) => db(e),
        TreeError::Spool(e) => spool(e),
        TreeError::Protocol(_) | TreeError::Torn | TreeError::Moved => logged(e),
    }
}

/// The same for errors of the spool.
pub fn spool(e: &SpoolError) -> Errno {
    match e {
        SpoolError::Gone => Errno::from_i32(libc::ESTALE),
        SpoolError::TooLarge(_) => Errno::EFBIG,
        SpoolError::Db(e) => db(e),
        SpoolError::Disk(e) | SpoolError::Cache(CacheError::Disk(e)) => disk(e),
        SpoolError::Cache(CacheError::Db(e)) => db(e),
        // The reason stands in `drivefs status`; a program knows EIO.
        SpoolError::Cache(CacheError::Remote(_)) => Errno::EIO,
        SpoolError::Cache(CacheError::NoRoom) => Errno::ENOSPC,
        SpoolError::Cache(CacheError::Lost(_))
        | SpoolError::Manifest(_)
        | SpoolError::Superseded => logged(e),
    }
}

fn db(e: &DbError) -> Errno {
    match e {
        DbError::Full => Errno::ENOSPC,
        other => logged(other),
    }
}

fn disk(e: &io::Error) -> Errno {
    match e.raw_os_error() {
        Some(code @ (libc::ENOSPC | libc::EDQUOT | libc::EFBIG)) => Errno::from_i32(code),
        _ => logged(e),
    }
}

fn logged(e: &dyn std::error::Error) -> Errno {
    tracing::error!(error = %e, "a file system operation failed");
    Errno::EIO
}
