//! Every limit of drivefs, with its unit. A limit that is checked nowhere does not belong here.

/// Smallest block that content-defined chunking cuts, except for the last of a file (bytes).
pub const BLOCK_MIN_BYTES: usize = 256 * 1024;
/// Block length that chunking aims at (bytes).
pub const BLOCK_AVG_BYTES: usize = 1024 * 1024;
/// Largest block (bytes). Decoders never allocate more than this for one block.
pub const BLOCK_MAX_BYTES: usize = 4 * 1024 * 1024;

/// Most entries in one manifest segment.
pub const SEGMENT_ENTRIES_MAX: usize = 1024;
/// A segment ends after an entry whose hash falls in one of this many classes, on average.
pub const SEGMENT_ENTRIES_AVG: u16 = 128;
/// Files of at most this many blocks carry their block list in the manifest root itself.
pub const INLINE_ENTRIES_MAX: usize = 32;
/// Most segments one root may list: over 60 TiB of content.
pub const ROOT_SEGMENTS_MAX: usize = 64 * 1024;
/// Longest encoded manifest root (bytes).
pub const ROOT_MAX_BYTES: usize = 6 + ROOT_SEGMENTS_MAX * 44;

/// Most plaintext bytes that one pack upload holds.
pub const PACK_MAX_BYTES: usize = 16 * 1024 * 1024;
/// Most blocks in one pack.
pub const PACK_BLOCKS_MAX: usize = 4096;
/// Largest body of a pack upload (bytes): the blocks and their frame heads.
pub const PACK_BODY_MAX_BYTES: usize = PACK_MAX_BYTES + PACK_BLOCKS_MAX * 128 + 4096;

/// Longest name of a directory entry (bytes), as on Linux file systems.
pub const NAME_MAX_BYTES: usize = 255;
/// Longest symlink target (bytes), PATH_MAX less the terminating NUL.
pub const SYMLINK_MAX_BYTES: usize = 4095;
/// Longest name of an extended attribute (bytes), XATTR_NAME_MAX.
pub const XATTR_NAME_MAX_BYTES: usize = 255;
/// Longest value of an extended attribute (bytes), XATTR_SIZE_MAX.
pub const XATTR_VALUE_MAX_BYTES: usize = 64 * 1024;
/// Most bytes (names and values) of all extended attributes of one node.
pub const XATTRS_MAX_BYTES: usize = 128 * 1024;
/// Deepest directory nesting that the server accepts.
pub const DEPTH_MAX: usize = 4096;

/// Largest file by default (bytes); configurable on the server.
pub const FILE_MAX_BYTES_DEFAULT: u64 = 10 * 1024 * 1024 * 1024;
/// Free quota of a user by default (bytes); configurable on the server.
pub const QUOTA_BYTES_DEFAULT: u64 = 10 * 1024 * 1024 * 1024;

/// Most ops in one commit.
pub const COMMIT_OPS_MAX: usize = 1000;
/// Most hashes in one `missing` or `blocks` request.
pub const HASHES_MAX: usize = 4096;
/// Epochs of a namespace that a client remembers and tells: runs of the server that it has met.
pub const TRAIL_MAX: usize = 64;
/// Most rows a page of changes aims at; a page always ends with a whole commit.
pub const CHANGES_ROWS_MAX: u32 = 2000;
/// Largest file that `resolve --keep merge` merges (bytes), and most lines of it: what comparing
/// takes grows with the product of lines and changes.
pub const MERGE_MAX_BYTES: u64 = 4 * 1024 * 1024;
pub const MERGE_MAX_LINES: usize = 10_000;
/// Most versions in one answer, and most bytes of their manifest roots together.
pub const VERSIONS_ROWS_MAX: u32 = 500;
pub const VERSIONS_BYTES_MAX: usize = 8 * 1024 * 1024;
/// Most versions of one file that `keep` pins.
pub const VERSIONS_KEPT_MAX: u32 = 200;
/// Most entries in one answer about the trash or the past of a folder.
pub const TRASH_ROWS_MAX: u32 = 2000;
/// Most names of deleted things that one listing of `.versions` shows, and most versions of one
/// file; what is beyond is found by its name, and by `drivefs versions`.
pub const PAST_NAMES_MAX: usize = 50_000;
pub const PAST_VERSIONS_MAX: usize = 10_000;
/// Deleted things of one name that are shown, the last ones.
pub const PAST_FORMER_MAX: u32 = 100;
/// Files and folders below `.versions` that a mount lets the kernel know at once.
pub const PAST_INODES_MAX: usize = 65_536;
/// Memory for what the server said about the past (bytes).
pub const PAST_ANSWERS_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Deletions with no longer pause between them are one: a folder comes back with what went in the
/// same go (seconds).
pub const TRASH_PAUSE_SECS: i64 = 5 * 60;
/// Most events that one answer aims at; a commit is never split.
pub const EVENTS_MAX: u32 = 2000;
/// Events of a namespace that are kept: for so long (seconds), and so many.
pub const EVENTS_KEPT_SECS: i64 = 90 * 24 * 3600;
pub const EVENTS_KEPT_MAX: u64 = 500_000;
/// How long a removal is remembered for devices that were away (seconds); who was away for longer
/// lists anew. Shorter than events are kept, which tell when a commit was made.
pub const TOMBSTONES_KEPT_SECS: i64 = 60 * 24 * 3600;
/// Files that one device deletes or rewrites within `MASS_WINDOW_SECS` until it is told as a mass
/// change; in a small namespace half of all, if they are `MASS_HALF_FILES` at least.
pub const MASS_FILES: u64 = 500;
pub const MASS_HALF_FILES: u64 = 50;
pub const MASS_WINDOW_SECS: i64 = 5 * 60;
/// Largest JSON body of a request (bytes).
pub const JSON_BODY_MAX_BYTES: usize = 32 * 1024 * 1024;

/// Shortest password (characters).
pub const PASSWORD_MIN_CHARS: usize = 8;
/// Longest password (bytes): bounds the work of hashing.
pub const PASSWORD_MAX_BYTES: usize = 1024;
/// Longest e-mail address (bytes), RFC 5321.
pub const EMAIL_MAX_BYTES: usize = 254;
/// Longest name of a device or token (bytes).
pub const DEVICE_NAME_MAX_BYTES: usize = 64;

/// Entries of the operator's audit list that are kept: for so long (seconds), and so many.
pub const AUDIT_KEPT_SECS: i64 = 365 * 24 * 3600;
pub const AUDIT_KEPT_MAX: i64 = 100_000;

/// Longest time that the server holds a long poll (seconds).
pub const POLL_SECS_MAX: u64 = 90;
/// Most namespaces watched by one long poll.
pub const POLL_NAMESPACES_MAX: usize = 1000;

/// Unit of the parts of a resumable upload (bytes): all but the last are multiples of it.
pub const UPLOAD_UNIT_BYTES: u64 = 256 * 1024;
/// How long an upload that nothing is sent to is kept (seconds).
pub const UPLOAD_KEPT_SECS: i64 = 7 * 24 * 3600;
/// Most uploads of one account that have begun and not ended.
pub const UPLOADS_OPEN_MAX: u64 = 1000;
/// Longest wait for the next bytes of a body (seconds).
pub const BODY_PAUSE_SECS: u64 = 60;
/// Longest path in the file API (bytes).
pub const PATH_MAX_BYTES: usize = 64 * 1024;
/// Most entries that one answer of `list_folder` aims at, and how many without a limit.
pub const FOLDER_ENTRIES_MAX: u32 = 2000;
pub const FOLDER_ENTRIES_DEFAULT: u32 = 500;
/// Most revisions in one answer of `list_revisions`, and how many without a limit.
pub const REVISIONS_MAX: u32 = 100;
pub const REVISIONS_DEFAULT: u32 = 10;
/// Shortest and longest wait of `list_folder/longpoll` (seconds), and the wait without a timeout.
pub const LONGPOLL_SECS_MIN: u64 = 30;
pub const LONGPOLL_SECS_MAX: u64 = 480;
/// Most nodes that one copy, move between namespaces, or delete of the file API takes along.
pub const SUBTREE_NODES_MAX: usize = 100_000;
