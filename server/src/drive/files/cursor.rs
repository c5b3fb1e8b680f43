//! Cursors of `list_folder`: all that the server has to know to go on, sealed, so that it keeps
//! nothing. A cursor opens only for what it was given for; a long poll is asked with it alone.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use drivefs_core::id::NamespaceId;
use drivefs_core::id::NodeId;
use drivefs_core::id::UserId;
use drivefs_core::name::Name;
use drivefs_core::wire::Point;
use serde::Deserialize;
use serde::Serialize;

use super::FilesError;
use super::list::Wanted;
use crate::drive::changes::check_point;
use crate::drive::seal::Seal;
use crate::metadata::Sql;
use crate::metadata::epochs;
use crate::metadata::namespaces::Namespace;

const SEAL_BYTES: usize = 32;
const CONTEXT: &str = "drivefs list_folder cursor";

/// A folder: its namespace and node.
pub type Place = (NamespaceId, NodeId);

#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    #[serde(rename = "u")]
    pub user: UserId,
    #[serde(rename = "f")]
    pub folder: Place,
    #[serde(rename = "r", default, skip_serializing_if = "is_false")]
    pub recursive: bool,
    #[serde(rename = "d", default, skip_serializing_if = "is_false")]
    pub deleted: bool,
    #[serde(rename = "l")]
    pub limit: u32,
    /// Up to where each namespace has been told.
    #[serde(rename = "m")]
    pub marks: Marks,
    /// Folders that are being listed or have to be, the present one first.
    #[serde(rename = "t", default, skip_serializing_if = "Vec::is_empty")]
    pub todo: Vec<Place>,
    /// Behind which names the present one goes on.
    #[serde(rename = "a", default, skip_serializing_if = "Option::is_none")]
    pub after: Option<Vec<Name>>,
}

impl Cursor {
    pub fn seal(&self, seal: &Seal) -> Result<String, FilesError> {
        let text = serde_json::to_vec(self)
            .map_err(|e| crate::drive::DriveError::Internal(e.to_string()))?;
        let mut bytes = seal.mark(CONTEXT, &text).to_vec();
        bytes.extend_from_slice(&text);
        Ok(URL_SAFE_NO_PAD.encode(bytes))
    }

    pub fn open(text: &str, seal: &Seal) -> Result<Self, FilesError> {
        let bytes = URL_SAFE_NO_PAD.decode(text).map_err(|_| FilesError::Reset)?;
        let (mark, text) = bytes.split_at_checked(SEAL_BYTES).ok_or(FilesError::Reset)?;
        if !seal.is_mark(CONTEXT, text, mark) {
            return Err(FilesError::Reset);
        }
        serde_json::from_slice(text).map_err(|_| FilesError::Reset)
    }

    pub fn wanted(&self) -> Wanted {
        Wanted { recursive: self.recursive, deleted: self.deleted, limit: self.limit as usize }
    }
}

/// Points of namespaces.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Marks(pub Vec<(NamespaceId, Point)>);

impl Marks {
    /// Marks a namespace at its present head, if it has no mark yet.
    pub fn add(&mut self, sql: &mut dyn Sql, namespace: &Namespace) -> Result<(), FilesError> {
        if self.has(namespace.ns) {
            return Ok(());
        }
        let epoch = epochs::at(sql, namespace.ns, namespace.seq)?;
        self.0.push((namespace.ns, Point { epoch, seq: namespace.seq }));
        Ok(())
    }

    pub fn has(&self, ns: NamespaceId) -> bool {
        self.0.iter().any(|(marked, _)| *marked == ns)
    }
}

/// Fails when what came behind a mark cannot be told any more.
pub fn check(sql: &mut dyn Sql, namespace: &Namespace, mark: &Point) -> Result<(), FilesError> {
    if mark.seq < namespace.pruned_seq {
        return Err(FilesError::Reset);
    }
    check_point(sql, namespace, mark).map_err(|e| match e {
        crate::drive::DriveError::CursorLost => FilesError::Reset,
        other => other.into(),
    })
}

fn is_false(v: &bool) -> bool {
    !*v
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cursor() -> Cursor {
        Cursor {
            user: UserId(1),
            folder: (NamespaceId(2), NodeId::from_parts(3, [4; 10])),
            recursive: true,
            deleted: false,
            limit: 5,
            marks: Marks(vec![(NamespaceId(2), Point { epoch: 6, seq: 7 })]),
            todo: Vec::new(),
            after: Some(vec![Name::new(*b"\xff").expect("a name")]),
        }
    }

    #[test]
    fn a_cursor_opens_as_it_was_sealed_and_for_this_server_alone() {
        let seal = Seal::from_secret("one");
        let text = cursor().seal(&seal).expect("seals");
        assert_eq!(Cursor::open(&text, &seal).expect("opens"), cursor());
        assert!(Cursor::open(&text, &Seal::from_secret("two")).is_err());
    }

    proptest! {
        #[test]
        fn a_changed_cursor_does_not_open(at: prop::sample::Index, with in "[A-Za-z0-9_-]") {
            let seal = Seal::from_secret("one");
            let text = cursor().seal(&seal).expect("seals");
            let at = at.index(text.len());
            let changed = format!("{}{with}{}", &text[..at], &text[at + 1..]);
            prop_assume!(changed != text);
            // The last character has bits that say nothing.
            if at + 1 < text.len() {
                prop_assert!(Cursor::open(&changed, &seal).is_err());
            }
        }

        #[test]
        fn hostile_text_does_not_open(text in ".{0,200}") {
            prop_assert!(Cursor::open(&text, &Seal::from_secret("one")).is_err());
        }
    }
}
