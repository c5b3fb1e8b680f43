//! What is kept on this disk by request, as part of the tree: a pin holds a node and all below it.

use super::Tree;
use super::TreeError;
use super::mount_place;
use super::path_of;
use crate::state::Conn;
use crate::state::Nid;
use crate::state::Node;
use crate::state::ROOT;

impl Tree {
    /// Pins a node: its content and that of all below it stay on this disk.
    pub fn pin(&self, nid: Nid) -> Result<(), TreeError> {
        let node = self.node(nid)?;
        Ok(self.db().write(|c| c.add_pin(&node.id))?)
    }

    /// Takes the pins of a node and of all below it away; returns how many there were.
    pub fn unpin(&self, nid: Nid) -> Result<usize, TreeError> {
        let mut gone = Vec::new();
        self.db().read(|c| {
            for id in c.pins()? {
                if let Some(pinned) = c.nid_of(&id)?
                    && is_at_or_below(c, pinned, nid)?
                {
                    gone.push(id);
                }
            }
            Ok::<_, TreeError>(())
        })?;
        self.db().write(|c| {
            for id in &gone {
                c.remove_pin(id)?;
            }
            Ok::<_, TreeError>(gone.len())
        })
    }

    /// The path of the pin that holds a node: its own or that of a folder above it.
    pub fn pinned_by(&self, nid: Nid) -> Result<Option<String>, TreeError> {
        self.db().read(|c| {
            let mut found = None;
            each_above(c, nid, |node| {
                if found.is_none() && c.is_pin(&node.id)? {
                    found = Some(path_of(c, node.nid)?);
                }
                Ok(found.is_none())
            })?;
            Ok(found)
        })
    }

    /// All pinned nodes that are here.
    pub fn pinned(&self) -> Result<Vec<Nid>, TreeError> {
        self.db().read(|c| {
            let mut out = Vec::new();
            for id in c.pins()? {
                out.extend(c.nid_of(&id)?);
            }
            Ok(out)
        })
    }

    /// Calls `f` for a node and every one below it that is no folder, some at a time.
    pub fn each_file(
        &self,
        nid: Nid,
        mut f: impl FnMut(Vec<Node>) -> Result<(), TreeError>,
    ) -> Result<(), TreeError> {
        let top = self.node(nid)?;
        if !top.kind.is_folder() {
            return f(vec![top]);
        }
        let mut folders = vec![top.nid];
        while let Some(folder) = folders.pop() {
            let mut after = Vec::new();
            loop {
                let entries = self.list(folder, &after, super::CHUNK)?;
                let Some(last) = entries.last() else { break };
                after.clone_from(&last.name);
                let mut files = Vec::new();
                for entry in entries {
                    if entry.node.kind.is_folder() {
                        folders.push(entry.node.nid);
                    } else {
                        files.push(entry.node);
                    }
                }
                f(files)?;
            }
        }
        Ok(())
    }
}

fn is_at_or_below(c: &Conn<'_>, nid: Nid, top: Nid) -> Result<bool, TreeError> {
    let mut met = top == ROOT;
    each_above(c, nid, |node| {
        met |= node.nid == top;
        Ok(!met)
    })?;
    Ok(met)
}

/// Calls `f` for a node and each folder above it, until it returns false.
fn each_above(
    c: &Conn<'_>,
    nid: Nid,
    mut f: impl FnMut(&Node) -> Result<bool, TreeError>,
) -> Result<(), TreeError> {
    let mut at = Some(nid);
    for _ in 0..drivefs_core::limits::DEPTH_MAX {
        let Some(nid) = at else { return Ok(()) };
        let Some(node) = c.node(nid)? else { return Ok(()) };
        if !f(&node)? || nid == ROOT {
            return Ok(());
        }
        at = match c.places(nid)?.into_iter().next() {
            Some((parent, _)) => Some(parent),
            None => mount_place(c, nid)?,
        };
    }
    Ok(())
}
