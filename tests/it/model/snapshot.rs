//! What a tree looks like: names, types, modes, owners, sizes, contents, link counts, extended
//! attributes and modification times.

use std::collections::BTreeMap;
use std::collections::BTreeSet;
use std::ffi::OsString;
use std::fs::FileType;
use std::fs::Metadata;
use std::os::unix::fs::FileTypeExt;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::path::PathBuf;
use std::time::SystemTime;
use std::time::UNIX_EPOCH;

use rustix::io::Errno;

/// A time that nobody set is that of the operation: how far both sides may be apart (seconds).
const APART_SECS: i64 = 60;
/// Times further from now than this were set (seconds).
const NEAR_SECS: i64 = 7 * 24 * 3600;
/// Differences that are told.
const SHOWN: usize = 12;

/// What stat(2) tells, as far as both sides must agree.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Facts {
    pub kind: char,
    mode: u32,
    uid: u32,
    gid: u32,
    rdev: u64,
    size: u64,
    links: u64,
    mtime: (i64, i64),
}

impl Facts {
    pub fn of(m: &Metadata) -> Self {
        let kind = kind(&m.file_type());
        // A folder's size and link count are each file system's own: drivefs says 4096 and 1
        // ("not counted"), ext4 counts blocks and subfolders.
        let (size, links) = if kind == 'd' { (0, 0) } else { (m.size(), m.nlink()) };
        Self {
            kind,
            mode: m.mode() & 0o7777,
            uid: m.uid(),
            gid: m.gid(),
            rdev: m.rdev(),
            size,
            links,
            mtime: (m.mtime(), m.mtime_nsec()),
        }
    }

    /// Equal, but for the moments at which the two sides did the same thing.
    pub fn agrees(&self, other: &Self) -> bool {
        let times = if is_near(self.mtime) {
            is_near(other.mtime) && (self.mtime.0 - other.mtime.0).abs() <= APART_SECS
        } else {
            self.mtime == other.mtime
        };
        times && Self { mtime: other.mtime, ..self.clone() } == *other
    }
}

fn is_near(time: (i64, i64)) -> bool {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).expect("after 1970").as_secs();
    (time.0 - now as i64).abs() < NEAR_SECS
}

pub fn kind(t: &FileType) -> char {
    match t {
        t if t.is_dir() => 'd',
        t if t.is_symlink() => 'l',
        t if t.is_fifo() => 'p',
        t if t.is_file() => 'f',
        _ => '?',
    }
}

/// Names of extended attributes.
pub fn xattr_names(path: &Path) -> Result<BTreeSet<Vec<u8>>, Errno> {
    let mut names = Vec::with_capacity(64 * 1024);
    rustix::fs::llistxattr(path, rustix::buffer::spare_capacity(&mut names))?;
    let names = names.split(|&b| b == 0).filter(|n| !n.is_empty());
    // A label that the machine's policy gives is none of the test's.
    Ok(names.filter(|n| *n != b"security.selinux").map(<[u8]>::to_vec).collect())
}

#[derive(Debug, Clone, PartialEq, Eq)]
struct Entry {
    facts: Facts,
    /// Of a file its hash, of a symlink its target.
    content: String,
    xattrs: BTreeMap<Vec<u8>, Vec<u8>>,
    /// The first path of the same inode: which names are links of each other.
    first: PathBuf,
}

/// A whole tree, by path.
pub struct Snapshot(BTreeMap<PathBuf, Entry>);

impl Snapshot {
    pub fn of(top: &Path) -> Result<Self, String> {
        let mut out = BTreeMap::new();
        let mut inodes = BTreeMap::new();
        let mut folders = vec![PathBuf::new()];
        while let Some(dir) = folders.pop() {
            let mut names: Vec<OsString> = std::fs::read_dir(top.join(&dir))
                .and_then(|entries| entries.map(|e| e.map(|e| e.file_name())).collect())
                .map_err(|e| format!("{} cannot be listed: {e}", top.join(&dir).display()))?;
            names.sort();
            for name in names {
                let path = dir.join(name);
                let entry = entry(top, &path, &mut inodes)
                    .map_err(|e| format!("{} cannot be read: {e}", top.join(&path).display()))?;
                if entry.facts.kind == 'd' {
                    folders.push(path.clone());
                }
                out.insert(path, entry);
            }
        }
        Ok(Self(out))
    }

    /// How another tree differs from this one, which is as it should be.
    pub fn differences(&self, found: &Self) -> Option<String> {
        self.differences_by(found, Entry::agrees)
    }

    /// The same, with the very same times.
    pub fn exact_differences(&self, found: &Self) -> Option<String> {
        self.differences_by(found, Entry::eq)
    }

    fn differences_by(
        &self,
        found: &Self,
        agree: impl Fn(&Entry, &Entry) -> bool,
    ) -> Option<String> {
        let mut out = Vec::new();
        for path in self.0.keys().chain(found.0.keys()).collect::<BTreeSet<_>>() {
            match (self.0.get(path), found.0.get(path)) {
                (Some(a), Some(b)) if agree(a, b) => {}
                (Some(a), Some(b)) => out.push(format!("{path:?}: {b:?}\n  instead of {a:?}")),
                (Some(_), None) => out.push(format!("{path:?} is missing")),
                (None, _) => out.push(format!("{path:?} should not be there")),
            }
        }
        out.truncate(SHOWN);
        (!out.is_empty()).then(|| out.join("\n"))
    }
}

impl Entry {
    fn agrees(&self, other: &Self) -> bool {
        self.facts.agrees(&other.facts)
            && Self { facts: other.facts.clone(), ..self.clone() } == *other
    }
}

fn entry(top: &Path, path: &Path, inodes: &mut BTreeMap<u64, PathBuf>) -> std::io::Result<Entry> {
    let full = top.join(path);
    let m = std::fs::symlink_metadata(&full)?;
    let facts = Facts::of(&m);
    let content = match facts.kind {
        'f' => blake3::hash(&std::fs::read(&full)?).to_hex()[..16].to_owned(),
        'l' => format!("{:?}", std::fs::read_link(&full)?),
        _ => String::new(),
    };
    let mut xattrs = BTreeMap::new();
    for name in xattr_names(&full)? {
        let mut value = Vec::with_capacity(64 * 1024);
        let into = rustix::buffer::spare_capacity(&mut value);
        rustix::fs::lgetxattr(&full, name.as_slice(), into)?;
        xattrs.insert(name, value);
    }
    let first = inodes.entry(m.ino()).or_insert_with(|| path.to_owned()).clone();
    Ok(Entry { facts, content, xattrs, first })
}
