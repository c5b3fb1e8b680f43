//! Versions and trash: the bodies of `/sync/v1/versions`, `keep`, `past`, `trash` and `trash/empty`.

use serde::Deserialize;
use serde::Serialize;

use super::Blob;
use super::NodeRow;
use super::Place;
use crate::id::NamespaceId;
use crate::id::NodeId;
use crate::id::VersionNo;
use crate::name::Name;
use crate::node::Attrs;
use crate::node::NodeKind;
use crate::node::TimeNs;

/// A node by its id, or by the path where it is or last was: names from the namespace's root.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
#[serde(rename_all = "snake_case")]
pub enum Which {
    Node(NodeId),
    Path(Vec<Name>),
}

/// `POST /sync/v1/versions`: versions of a file, newest first, also of one in the trash.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VersionsRequest {
    pub ns: NamespaceId,
    pub of: Which,
    /// Only versions older than this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub before: Option<VersionNo>,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VersionsReply {
    /// The file as it is now; its `version` is the current one.
    pub row: NodeRow,
    /// Where it is (one of its names), or last was; names from the namespace's root.
    pub path: Vec<Name>,
    pub versions: Vec<VersionRow>,
    /// True when there are older ones.
    pub more: bool,
}

/// One version of a file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct VersionRow {
    pub version: VersionNo,
    /// Length of the content (bytes).
    pub size: u64,
    /// Device that committed it, and when (server clock).
    pub device: String,
    pub committed: TimeNs,
    /// Pinned: no rule removes it.
    #[serde(default, skip_serializing_if = "is_false")]
    pub kept: bool,
    /// Encoded `manifest::Root`.
    pub content: Blob,
}

/// `POST /sync/v1/keep`: pins a version, or lets it go again.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct KeepRequest {
    pub ns: NamespaceId,
    pub node: NodeId,
    pub version: VersionNo,
    pub keep: bool,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct KeepReply {
    /// Versions of the file that are kept now.
    pub kept: u32,
}

/// `POST /sync/v1/past`: what stood in a folder at a time and is another now, in name order. The
/// folder may be in the trash.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PastRequest {
    pub ns: NamespaceId,
    pub folder: NodeId,
    pub at: TimeNs,
    /// Only names behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PastReply {
    pub entries: Vec<PastEntry>,
    /// Where the next page starts; none when this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Name>,
}

/// A node under one name. Told of: every live folder (something may differ below it), live files
/// with another content then, what was deleted since, and what has taken such a name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct PastEntry {
    pub name: Name,
    pub node: NodeId,
    pub kind: NodeKind,
    pub attrs: Attrs,
    /// It is in the trash now.
    #[serde(default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    /// It was made after that time.
    #[serde(default, skip_serializing_if = "is_false")]
    pub newer: bool,
    /// The head version; 0 for what has no content.
    pub head: VersionNo,
    /// The version of that time; 0 for what has no content, or had none yet.
    pub version: VersionNo,
    /// Its encoded `manifest::Root`: of what is in the trash always, else where the head has another.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub content: Option<Blob>,
}

/// `POST /sync/v1/gone`: files and folders whose last place was in a folder and that are in the
/// trash. Without a name, of each name the one that was deleted last, in name order; with one, all
/// that had it, the one that was deleted last first. The folder may be in the trash, too.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GoneRequest {
    pub ns: NamespaceId,
    pub folder: NodeId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<Name>,
    /// Only names behind this one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Name>,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GoneReply {
    pub entries: Vec<GoneEntry>,
    /// Where the next page starts; none when this was the last.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub next: Option<Name>,
}

/// A file or folder in the trash, under its last name.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct GoneEntry {
    pub name: Name,
    pub node: NodeId,
    pub kind: NodeKind,
    pub attrs: Attrs,
    /// When it was deleted (server clock).
    pub deleted: TimeNs,
}

/// `POST /sync/v1/trash`: what is in the trash, newest first; or one thing with all that went along
/// with it, parents first.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TrashRequest {
    pub ns: NamespaceId,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub of: Option<Which>,
    /// Entries to leave out, for the next page.
    #[serde(default)]
    pub skip: u64,
    pub limit: u32,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TrashReply {
    pub entries: Vec<TrashEntry>,
    pub more: bool,
    /// Of one thing: where it goes back to.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub way: Option<WayBack>,
}

/// Something that was deleted.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct TrashEntry {
    pub node: NodeId,
    pub kind: NodeKind,
    /// Its last place.
    pub place: Place,
    /// The same from the namespace's root; told only of what is listed by itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub path: Vec<Name>,
    /// When it was deleted (server clock), and by which device.
    pub deleted: TimeNs,
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub device: String,
    pub version: VersionNo,
    /// Length of its content; of a folder in a list, of all that went along with it (bytes).
    pub size: u64,
    /// How many went along with it.
    #[serde(default)]
    pub below: u64,
}

/// The way back of something deleted: `base` is a live folder, and the folders of `lost` have to
/// come back below it, one in the other, before the thing can.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct WayBack {
    pub base: NodeId,
    pub lost: Vec<LostFolder>,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct LostFolder {
    pub node: NodeId,
    pub name: Name,
}

/// `POST /sync/v1/trash/empty`: nothing that is in the trash now is listed or restored any more.
#[derive(Debug, Clone, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EmptyRequest {
    pub ns: NamespaceId,
}

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[cfg_attr(feature = "schema", derive(utoipa::ToSchema))]
pub struct EmptyReply {
    /// Files and folders that left the trash.
    pub nodes: u64,
}

fn is_false(v: &bool) -> bool {
    !*v
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_asked_for_by_node_or_by_path() {
        let names = ["docs", "a.txt"].map(|n| Name::new(n).expect("valid"));
        let of = Which::Path(names.to_vec());
        let request = VersionsRequest { ns: NamespaceId(7), of, before: None, limit: 5 };
        let mut json = serde_json::to_value(&request).expect("writes");
        assert_eq!(json["of"]["path"], serde_json::json!(["docs", "a.txt"]));
        assert!(json.get("before").is_none());
        let read: VersionsRequest = serde_json::from_value(json.clone()).expect("reads");
        assert_eq!(read.of, request.of);
        for bad in [serde_json::json!(null), serde_json::json!({ "path": ["a/b"] })] {
            json["of"] = bad;
            assert!(serde_json::from_value::<VersionsRequest>(json.clone()).is_err(), "{json}");
        }
    }
}
