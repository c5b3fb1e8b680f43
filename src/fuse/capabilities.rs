//! What is asked of the kernel when a mount begins.

use fuser::InitFlags;
use fuser::KernelConfig;

const REQUEST_BYTES: u32 = 1024 * 1024;

pub(super) fn ask(config: &mut KernelConfig) {
    let wanted = [
        InitFlags::FUSE_DO_READDIRPLUS,
        InitFlags::FUSE_READDIRPLUS_AUTO,
        InitFlags::FUSE_PARALLEL_DIROPS,
        InitFlags::FUSE_CACHE_SYMLINKS,
        InitFlags::FUSE_EXPLICIT_INVAL_DATA,
        InitFlags::FUSE_ASYNC_DIO,
        // Privileges go with writes here; else the kernel asks for file capabilities before
        // each one.
        InitFlags::FUSE_HANDLE_KILLPRIV_V2,
    ];
    for flag in wanted {
        if let Err(missing) = config.add_capabilities(flag) {
            tracing::info!(?missing, "the kernel lacks a capability");
        }
    }
    // An older kernel names the most it takes.
    if let Err(most) = config.set_max_write(REQUEST_BYTES) {
        let _ = config.set_max_write(most);
    }
    if let Err(most) = config.set_max_readahead(REQUEST_BYTES) {
        let _ = config.set_max_readahead(most);
    }
    let _ = config.set_max_background(64);
}
