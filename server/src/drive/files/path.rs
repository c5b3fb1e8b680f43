//! Paths of the file API: `/folder/name` from the root of the account. Pure.
//!
//! `""` is the root. A name that is valid UTF-8 stands as it is; any other is written `/x` and its
//! bytes in hexadecimal, as in the sync protocol, so that its path has `//x...`: no other path has an
//! empty name, and the two never meet. A path may also begin with `id:` (a node), `rev:` (one of its
//! versions) or `ns:` (a namespace and a path in it).

use std::fmt;

use drivefs_core::id::NamespaceId;
use drivefs_core::limits::DEPTH_MAX;
use drivefs_core::limits::PATH_MAX_BYTES;
use drivefs_core::name::Name;
use drivefs_core::name::NameError;

use super::stamp::Rev;
use super::stamp::id_of_text;
use super::stamp::rev_of_text;

/// Why a text is no path.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum PathError {
    #[error("{0}")]
    Malformed(&'static str),
    #[error("{0}")]
    Name(NameError),
}

/// Names from the root of the account.
#[derive(Debug, Clone, PartialEq, Eq, Hash, Default)]
pub struct FilePath(pub Vec<Name>);

/// What a request names.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Target {
    Path(FilePath),
    /// Names from the root of a namespace.
    Within(NamespaceId, FilePath),
    /// A node, or with a version above 0 one of its versions.
    Rev(Rev),
}

impl Target {
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if let Some(id) = text.strip_prefix("id:") {
            let (ns, node) = id_of_text(id).ok_or(PathError::Malformed("not an id"))?;
            return Ok(Self::Rev(Rev { ns, node, version: 0 }));
        }
        if let Some(rev) = text.strip_prefix("rev:") {
            return rev_of_text(rev).map(Self::Rev).ok_or(PathError::Malformed("not a rev"));
        }
        if let Some(rest) = text.strip_prefix("ns:") {
            let (ns, path) = match rest.find('/') {
                Some(at) => rest.split_at(at),
                None => (rest, ""),
            };
            let ns = ns.parse().map_err(|_| PathError::Malformed("not a namespace"))?;
            return Ok(Self::Within(NamespaceId(ns), FilePath::parse(path)?));
        }
        FilePath::parse(text).map(Self::Path)
    }
}

impl FilePath {
    pub fn parse(text: &str) -> Result<Self, PathError> {
        if text.len() > PATH_MAX_BYTES {
            return Err(PathError::Malformed("the path is too long"));
        }
        let text = match text {
            "" | "/" => return Ok(Self::default()),
            text => text.strip_prefix('/').ok_or(PathError::Malformed("a path begins with '/'"))?,
        };
        let mut names = Vec::new();
        let mut parts = text.split('/');
        while let Some(part) = parts.next() {
            let bytes = match part {
                "" => {
                    let hex = parts.next().and_then(|part| part.strip_prefix('x'));
                    hex.and_then(unhex).ok_or(PathError::Malformed("a name is empty"))?
                }
                part => part.as_bytes().to_vec(),
            };
            let name = Name::new(bytes).map_err(PathError::Name)?;
            if part.is_empty() && std::str::from_utf8(name.as_bytes()).is_ok() {
                return Err(PathError::Malformed("only a name that is no text stands in hex"));
            }
            names.push(name);
            if names.len() > DEPTH_MAX {
                return Err(PathError::Malformed("the path is too deep"));
            }
        }
        Ok(Self(names))
    }

    pub fn is_root(&self) -> bool {
        self.0.is_empty()
    }

    /// The path of something in this folder.
    pub fn join(&self, name: &Name) -> Self {
        let mut names = self.0.clone();
        names.push(name.clone());
        Self(names)
    }

    /// The same with another last name.
    pub fn with_name(&self, name: Name) -> Self {
        let mut names = self.0.clone();
        names.pop();
        names.push(name);
        Self(names)
    }
}

impl fmt::Display for FilePath {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for name in &self.0 {
            f.write_str("/")?;
            f.write_str(&shown(name))?;
        }
        Ok(())
    }
}

/// A name as it stands in paths.
pub fn shown(name: &Name) -> String {
    match std::str::from_utf8(name.as_bytes()) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            let hex: String = name.as_bytes().iter().map(|b| format!("{b:02x}")).collect();
            format!("/x{hex}")
        }
    }
}

fn unhex(hex: &str) -> Option<Vec<u8>> {
    if !hex.len().is_multiple_of(2) || !hex.bytes().all(|b| b.is_ascii_hexdigit()) {
        return None;
    }
    (0..hex.len()).step_by(2).map(|i| u8::from_str_radix(&hex[i..i + 2], 16).ok()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn any_names_survive_their_path(
            names in proptest::collection::vec(proptest::collection::vec(1u8.., 1..20), 0..6),
        ) {
            let names: Result<Vec<_>, _> = names.into_iter().map(Name::new).collect();
            if let Ok(names) = names {
                let path = FilePath(names);
                prop_assert_eq!(FilePath::parse(&path.to_string()), Ok(path));
            }
        }

        #[test]
        fn hostile_text_is_an_error_or_one_path(text in "(/|[a-z.]|//x|ff|id:|rev:|ns:|\\PC){0,12}") {
            if let Ok(path) = FilePath::parse(&text) {
                prop_assert_eq!(FilePath::parse(&path.to_string()), Ok(path));
            }
            let _ = Target::parse(&text);
        }
    }

    #[test]
    fn what_cannot_be_a_path_is_refused() {
        for wrong in ["a", "/a/", "//", "/a//b", "/./a", "/..", "//x61", "/a\0b", "/.versions/a"] {
            assert!(FilePath::parse(wrong).is_err(), "{wrong:?}");
        }
        assert_eq!(FilePath::parse("/"), FilePath::parse(""));
        let odd = FilePath::parse("/a//xff41").expect("a name in hex");
        assert_eq!(odd.0[1].as_bytes(), b"\xffA");
    }

    #[test]
    fn ids_revs_and_namespaces_are_told_apart() {
        let rev = Rev {
            ns: NamespaceId(5),
            node: drivefs_core::id::NodeId::from_parts(1, [2; 10]),
            version: 9,
        };
        assert_eq!(Target::parse(&format!("rev:{rev}")), Ok(Target::Rev(rev)));
        let id = Rev { version: 0, ..rev };
        assert_eq!(Target::parse(&id.id()), Ok(Target::Rev(id)));
        let within = Target::parse("ns:5/a").expect("a namespace");
        assert_eq!(within, Target::Within(NamespaceId(5), FilePath::parse("/a").expect("a path")));
    }
}
