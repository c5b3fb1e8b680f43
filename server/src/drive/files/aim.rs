//! Where an upload goes, and what it may replace there: decided anew until a commit takes it.

use drivefs_core::id::NodeId;
use drivefs_core::id::OpKey;
use drivefs_core::id::UserId;
use drivefs_core::id::VersionNo;
use drivefs_core::name::Name;
use drivefs_core::node::Attrs;
use drivefs_core::node::NodeKind;
use drivefs_core::node::TimeNs;
use drivefs_core::node::Xattrs;
use drivefs_core::wire::Blob;
use drivefs_core::wire::Change;
use drivefs_core::wire::NodeRow;
use drivefs_core::wire::Op;
use drivefs_core::wire::Place;
use serde::Deserialize;
use serde::Serialize;

use super::FilesError;
use super::error::Taken;
use super::fresh_key;
use super::fresh_node;
use super::path::FilePath;
use super::path::Target;
use super::stamp::rev_of_text;
use super::walk;
use super::walk::Folder;
use super::walk::Spot;
use crate::auth::Asker;
use crate::clock;
use crate::drive::places;
use crate::metadata::Sql;
use crate::metadata::nodes;

/// Mode of folders and files that the API makes.
pub const DIR_MODE: u32 = 0o755;
pub const FILE_MODE: u32 = 0o644;
/// Names tried by `autorename`.
const NAMES_TRIED_MAX: u32 = 1000;

/// What may stand where the file goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mode {
    /// Nothing, or a file of the same content.
    Add,
    /// Any file.
    Overwrite,
    /// A file at this rev.
    Update(String),
    /// A file at this version; 0: nothing.
    Base(VersionNo),
}

/// Where a file goes.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Aim {
    pub path: String,
    pub mode: Mode,
    /// Takes another name where that one is taken.
    #[serde(default)]
    pub autorename: bool,
    /// The same content is a conflict, too.
    #[serde(default)]
    pub strict: bool,
    /// When the content was changed where it comes from.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub modified: Option<TimeNs>,
    /// The same place from the root of its namespace, for its other members.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub within: Option<String>,
}

/// What a file is made of.
#[derive(Debug, Clone)]
pub struct Content {
    /// Encoded manifest root.
    pub root: Vec<u8>,
    /// Id that the file gets if it is new, and the key of the op that puts it.
    pub node: NodeId,
    pub op: OpKey,
}

/// A decision.
pub enum Plan {
    /// These ops; the last puts the file, and tells which node that is.
    Commit { folder: Folder, owner: UserId, ops: Vec<Op>, node: NodeId, is_new: bool },
    /// The same content is there already.
    Same(Spot),
}

/// Decides by the tree as it is now.
pub fn plan(
    sql: &mut dyn Sql,
    asker: &Asker,
    aim: &Aim,
    content: &Content,
) -> Result<Plan, FilesError> {
    let spot = aimed_at(sql, asker, aim)?;
    let Aimed { folder, missing, name, there } = spot;
    let owner = folder.space.namespace.owner;
    let mut name = name;
    let there = match there {
        None => None,
        Some(there) => match check(sql, aim, content, &there)? {
            Verdict::Replace(row) => Some(*row),
            Verdict::Same => return Ok(Plan::Same(there)),
            Verdict::Taken(taken) if aim.autorename => {
                name = free_name(sql, asker, aim, &folder, &name, taken)?;
                None
            }
            Verdict::Taken(taken) => return Err(taken_error(taken, &there.path)),
        },
    };
    if there.is_none()
        && let Mode::Base(1..) | Mode::Update(_) = aim.mode
        && !aim.autorename
    {
        // What was to be replaced is gone.
        return Err(match aim.mode {
            Mode::Base(base) => base_error(base, 0),
            _ => FilesError::Conflict(Taken::File, format!("{}: the file is gone", aim.path)),
        });
    }
    let (mut ops, parent) = make_folders(&folder, &missing);
    let now = clock::now_ns();
    let mtime = aim.modified.unwrap_or(now);
    let (node, create, base_version, attrs) = match &there {
        Some(row) => (row.node, None, row.version, Attrs { mtime, ..row.attrs }),
        None => {
            let attrs = Attrs { mode: FILE_MODE, uid: None, gid: None, mtime, btime: now };
            (content.node, Some(Place { parent, name }), 0, attrs)
        }
    };
    let is_new = create.is_some();
    let change = Change::Put {
        node,
        create,
        base_version,
        content: Blob(content.root.clone()),
        attrs,
        xattrs: Xattrs::new(),
        source: None,
    };
    ops.push(Op { key: content.op, change });
    Ok(Plan::Commit { folder, owner, ops, node, is_new })
}

/// The place of an aim.
pub struct Aimed {
    /// The deepest folder that is there, and the folders that have to be made below it.
    pub folder: Folder,
    pub missing: Vec<Name>,
    pub name: Name,
    pub there: Option<Spot>,
}

impl Aimed {
    /// The place from the root of its namespace.
    pub fn within(&self, sql: &mut dyn Sql) -> Result<FilePath, FilesError> {
        let space = &self.folder.space.namespace;
        let mut names = places::path_of(sql, space, self.folder.node)?;
        names.extend(self.missing.iter().cloned());
        names.push(self.name.clone());
        Ok(FilePath(names))
    }
}

/// Finds the place; fails where nothing can ever be put.
pub fn aimed_at(sql: &mut dyn Sql, asker: &Asker, aim: &Aim) -> Result<Aimed, FilesError> {
    let mut target = Target::parse(&aim.path)?;
    if let Target::Rev(_) = target {
        // An id names what is there; its path is where the bytes go.
        target = Target::Path(walk::found(sql, asker, &target)?.path);
    }
    place_for(sql, asker, &target)
}

/// Where something new can be put.
pub fn place_for(sql: &mut dyn Sql, asker: &Asker, target: &Target) -> Result<Aimed, FilesError> {
    let (path, above) = match target {
        Target::Path(path) => (path.clone(), None),
        Target::Within(ns, path) => (path.clone(), Some(*ns)),
        Target::Rev(_) => return Err(FilesError::BadRequest("a path is needed here".into())),
    };
    let Some((name, parents)) = path.0.split_last() else {
        return Err(FilesError::Conflict(Taken::Folder, "the root is a folder".into()));
    };
    let parents = FilePath(parents.to_vec());
    let above = match above {
        Some(ns) => Target::Within(ns, parents),
        None => Target::Path(parents),
    };
    let walk = walk::walk(sql, asker, &above)?;
    let folder = walk::inside(sql, asker, &walk.spot).map_err(|e| match e {
        FilesError::NotFolder => taken_error(Taken::FileAncestor, &walk.spot.path),
        other => other,
    })?;
    let there = if walk.rest.is_empty() { walk::child(sql, &folder, name)? } else { None };
    if !folder.is_writable() {
        return Err(FilesError::NoWrite);
    }
    Ok(Aimed { folder, missing: walk.rest, name: name.clone(), there })
}

enum Verdict {
    Replace(Box<NodeRow>),
    Same,
    Taken(Taken),
}

fn check(
    sql: &mut dyn Sql,
    aim: &Aim,
    content: &Content,
    there: &Spot,
) -> Result<Verdict, FilesError> {
    if there.kind.is_folder() {
        return Ok(Verdict::Taken(Taken::Folder));
    }
    if there.kind != NodeKind::File {
        return Ok(Verdict::Taken(Taken::File));
    }
    let ns = there.space.namespace.ns;
    let row = nodes::row(sql, ns, there.node)?.ok_or(FilesError::NotFound)?;
    let is_same = row.content.as_ref().is_some_and(|c| c.0 == content.root);
    Ok(match &aim.mode {
        Mode::Overwrite => Verdict::Replace(Box::new(row)),
        Mode::Base(base) if *base == row.version => Verdict::Replace(Box::new(row)),
        Mode::Base(base) if !aim.autorename => return Err(base_error(*base, row.version)),
        Mode::Update(rev) => {
            let rev = rev_of_text(rev);
            match rev {
                Some(rev) if rev.ns == ns && rev.node == row.node && rev.version == row.version => {
                    Verdict::Replace(Box::new(row))
                }
                _ if is_same && !aim.strict => Verdict::Same,
                _ => Verdict::Taken(Taken::File),
            }
        }
        Mode::Add if is_same && !aim.strict => Verdict::Same,
        Mode::Add | Mode::Base(_) => Verdict::Taken(Taken::File),
    })
}

pub fn base_error(base: VersionNo, head: VersionNo) -> FilesError {
    FilesError::Conflict(
        Taken::File,
        format!("the file stands at version {head}, not {base}; 0 is no file"),
    )
}

pub fn taken_error(taken: Taken, path: &FilePath) -> FilesError {
    let what = match taken {
        Taken::File => "there is another file",
        Taken::Folder => "there is a folder",
        Taken::FileAncestor => "this is a file, and cannot hold anything",
    };
    FilesError::Conflict(taken, format!("{path}: {what}"))
}

/// A free name like the one that is taken: `report (1).txt`, or where an edit lost, that of a
/// conflict file.
fn free_name(
    sql: &mut dyn Sql,
    asker: &Asker,
    aim: &Aim,
    folder: &Folder,
    name: &Name,
    taken: Taken,
) -> Result<Name, FilesError> {
    let lost_edit = matches!(aim.mode, Mode::Update(_) | Mode::Base(1..));
    let date = super::stamp::time_text(clock::now_ns());
    for n in 1..=NAMES_TRIED_MAX {
        let candidate = match lost_edit {
            true => name.conflicted_copy(&asker.device_name, &date[..10], n),
            false => numbered(name, n)?,
        };
        if walk::child(sql, folder, &candidate)?.is_none() {
            return Ok(candidate);
        }
    }
    Err(taken_error(taken, &folder.path.join(name)))
}

/// `report (1).txt`.
pub fn numbered(name: &Name, n: u32) -> Result<Name, FilesError> {
    let bytes = name.as_bytes();
    let dot = bytes.iter().rposition(|&c| c == b'.').filter(|&at| at > 0);
    let (stem, extension) = bytes.split_at(dot.unwrap_or(bytes.len()));
    let mut out = stem.to_vec();
    out.extend_from_slice(format!(" ({n})").as_bytes());
    out.extend_from_slice(extension);
    Name::new(out).map_err(|e| super::path::PathError::Name(e).into())
}

/// Ops that make folders in each other below `folder`; the id of the last.
pub fn make_folders(folder: &Folder, names: &[Name]) -> (Vec<Op>, NodeId) {
    let now = clock::now_ns();
    let attrs = Attrs { mode: DIR_MODE, uid: None, gid: None, mtime: now, btime: now };
    let mut parent = folder.node;
    let mut ops = Vec::new();
    for name in names {
        let node = fresh_node();
        let place = Place { parent, name: name.clone() };
        let change = Change::Mkdir { node, place, attrs, xattrs: Xattrs::new() };
        ops.push(Op { key: fresh_key(), change });
        parent = node;
    }
    (ops, parent)
}
