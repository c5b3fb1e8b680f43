//! Errors of the file API on their way out: unions of tags with 409 as the Dropbox API v2 has them,
//! or our own shape with the code that fits.

use axum::Json;
use axum::http::StatusCode;
use axum::response::IntoResponse;
use axum::response::Response;
use drivefs_core::wire::ErrorCode;
use serde_json::Map;
use serde_json::Value;
use serde_json::json;

use crate::api::error::ApiError;
use crate::drive::DriveError;
use crate::drive::files::FilesError;
use crate::drive::files::change::Side;
use crate::drive::files::error::Taken;
use crate::drive::files::path::PathError;

/// Whose shapes an answer has.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Style {
    Own,
    Dropbox,
}

/// Which union the route's errors are.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Slot {
    /// `{path: LookupError}`
    Lookup,
    Upload,
    Append,
    Finish,
    /// `{path: WriteError}`
    Create,
    Delete,
    Restore,
    From,
    To,
    Cursor,
}

/// An error, and how it is to be shown.
#[derive(Debug)]
pub struct Failure {
    pub error: FilesError,
    pub style: Style,
    pub slot: Slot,
}

impl Failure {
    pub fn side(style: Style, side: Side) -> Self {
        match side {
            Side::From(error) => Self { error, style, slot: Slot::From },
            Side::To(error) => Self { error, style, slot: Slot::To },
        }
    }
}

/// For `map_err`.
pub fn fails<E: Into<FilesError>>(style: Style, slot: Slot) -> impl Fn(E) -> Failure {
    move |error| Failure { error: error.into(), style, slot }
}

impl IntoResponse for Failure {
    fn into_response(self) -> Response {
        let union = match self.style {
            Style::Own => None,
            Style::Dropbox => union_of(self.slot, &self.error),
        };
        let error = own(self.error);
        let Some(tags) = union else { return error.into_response() };
        let summary = format!("{}/", tags.names.join("/"));
        (StatusCode::CONFLICT, Json(told(&summary, tags.body(), &error))).into_response()
    }
}

/// A refusal in the manner of that API; its clients take no unknown fields inside a union.
fn told(summary: &str, union: Value, error: &ApiError) -> Value {
    let hint = error.hint.as_ref().map(|hint| format!(" ({hint})")).unwrap_or_default();
    let text = format!("{}{hint}", error.message);
    json!({
        "error_summary": summary, "error": union,
        "user_message": { "locale": "en", "text": text },
    })
}

/// The error in our own shape.
fn own(error: FilesError) -> ApiError {
    match error {
        FilesError::Drive(e) => e.into(),
        error => {
            let out = ApiError::new(error.code(), error.to_string());
            match error.hint() {
                Some(hint) => out.hint(hint),
                None => out,
            }
        }
    }
}

/// Tags from the outside in, and a number that the innermost carries.
struct Union {
    names: Vec<&'static str>,
    field: Option<(&'static str, u64)>,
    /// The payload of the first tag is a struct with this union as its `reason`.
    is_reason: bool,
}

impl Union {
    fn body(&self) -> Value {
        let mut inner: Option<(&str, Map<String, Value>)> = None;
        for (depth, name) in self.names.iter().enumerate().rev() {
            let mut union = Map::from_iter([(".tag".to_owned(), json!(name))]);
            match inner.take() {
                None => {
                    if let Some((field, value)) = self.field {
                        union.insert(field.into(), json!(value));
                    }
                }
                Some((_, payload)) if self.is_reason && depth == 0 => {
                    union.insert("reason".into(), Value::Object(payload));
                    union.insert("upload_session_id".into(), json!(""));
                }
                Some((_, payload)) => {
                    union.insert((*name).to_owned(), Value::Object(payload));
                }
            }
            inner = Some((name, union));
        }
        Value::Object(inner.map(|(_, union)| union).unwrap_or_default())
    }
}

fn union_of(slot: Slot, error: &FilesError) -> Option<Union> {
    let (names, field) = match slot {
        Slot::Lookup => (under("path", lookup(error)?), None),
        Slot::Cursor => match error {
            FilesError::Reset => (vec!["reset"], None),
            error => (under("path", lookup(error)?), None),
        },
        Slot::Upload => match error {
            FilesError::TooLarge(_) => (vec!["payload_too_large"], None),
            FilesError::Hash => (vec!["content_hash_mismatch"], None),
            error => (under("path", write(error)?), None),
        },
        Slot::Append => session(error)?,
        Slot::Finish => match session(error) {
            Some((names, field)) if matches!(error, FilesError::Hash) => (names, field),
            Some((_, None)) if matches!(error, FilesError::TooLarge(_)) => {
                (vec!["payload_too_large"], None)
            }
            Some((names, field)) => (under("lookup_failed", names), field),
            None => (under("path", write(error)?), None),
        },
        Slot::Create => (under("path", write(error)?), None),
        Slot::Delete => match (lookup(error), write(error)) {
            (Some(names), _) => (under("path_lookup", names), None),
            (None, names) => (under("path_write", names?), None),
        },
        Slot::Restore => match (error, lookup(error)) {
            (FilesError::NoRevision, _) => (vec!["invalid_revision"], None),
            (_, Some(names)) => (under("path_lookup", names), None),
            (error, None) => (under("path_write", write(error)?), None),
        },
        Slot::From => match (error, lookup(error)) {
            (FilesError::SharedFolder(_), _) => (vec!["cant_move_shared_folder"], None),
            (FilesError::TooMany(_), _) => (vec!["too_many_files"], None),
            (_, Some(names)) => (under("from_lookup", names), None),
            (error, None) => (under("from_write", write(error)?), None),
        },
        Slot::To => match error {
            FilesError::IntoItself => (vec!["cant_move_folder_into_itself"], None),
            FilesError::NoSpace(_) => (vec!["insufficient_quota"], None),
            error => (under("to", write(error)?), None),
        },
    };
    let is_reason = slot == Slot::Upload && names.len() > 1;
    Some(Union { names, field, is_reason })
}

fn under(outer: &'static str, mut names: Vec<&'static str>) -> Vec<&'static str> {
    names.insert(0, outer);
    names
}

fn lookup(error: &FilesError) -> Option<Vec<&'static str>> {
    Some(vec![match error {
        FilesError::Path(_) => "malformed_path",
        FilesError::NotFound | FilesError::NoRevision => "not_found",
        FilesError::NotFile => "not_file",
        FilesError::NotFolder => "not_folder",
        _ => return None,
    }])
}

fn write(error: &FilesError) -> Option<Vec<&'static str>> {
    Some(match error {
        FilesError::Path(PathError::Malformed(_)) => vec!["malformed_path"],
        FilesError::Path(PathError::Name(_)) => vec!["disallowed_name"],
        FilesError::Conflict(Taken::File, _) => vec!["conflict", "file"],
        FilesError::Conflict(Taken::Folder, _) => vec!["conflict", "folder"],
        FilesError::Conflict(Taken::FileAncestor, _) => vec!["conflict", "file_ancestor"],
        FilesError::NoWrite | FilesError::SharedFolder(_) | FilesError::NotFound => {
            vec!["no_write_permission"]
        }
        FilesError::NoSpace(_) => vec!["insufficient_space"],
        FilesError::TooMany(_) => vec!["too_many_write_operations"],
        FilesError::Drive(DriveError::Conflict(_)) => vec!["too_many_write_operations"],
        _ => return None,
    })
}

type Tags = (Vec<&'static str>, Option<(&'static str, u64)>);

fn session(error: &FilesError) -> Option<Tags> {
    Some(match error {
        FilesError::NoUpload => (vec!["not_found"], None),
        FilesError::Offset(at) => (vec!["incorrect_offset"], Some(("correct_offset", *at))),
        FilesError::Closed => (vec!["closed"], None),
        FilesError::TooLarge(_) => (vec!["too_large"], None),
        FilesError::Hash => (vec!["content_hash_mismatch"], None),
        _ => return None,
    })
}

/// A token that is missing or opens nothing.
pub fn unauthorized(style: Style, error: ApiError) -> Response {
    if error.code != ErrorCode::Unauthorized || style == Style::Own {
        return error.into_response();
    }
    let tag = "invalid_access_token";
    let body = told(&format!("{tag}/"), json!({ ".tag": tag }), &error);
    (StatusCode::UNAUTHORIZED, Json(body)).into_response()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn body(slot: Slot, error: FilesError) -> Value {
        union_of(slot, &error).expect("a union").body()
    }

    #[test]
    fn unions_are_nested_as_clients_expect_them() {
        assert_eq!(
            body(Slot::Lookup, FilesError::NotFound),
            json!({".tag": "path", "path": {".tag": "not_found"}})
        );
        assert_eq!(
            body(Slot::Upload, FilesError::Conflict(Taken::File, String::new())),
            json!({".tag": "path", "upload_session_id": "",
                "reason": {".tag": "conflict", "conflict": {".tag": "file"}}})
        );
        assert_eq!(
            body(Slot::Finish, FilesError::Offset(7)),
            json!({".tag": "lookup_failed",
                "lookup_failed": {".tag": "incorrect_offset", "correct_offset": 7}})
        );
        assert_eq!(
            body(Slot::Append, FilesError::Offset(7)),
            json!({".tag": "incorrect_offset", "correct_offset": 7})
        );
        assert_eq!(body(Slot::Cursor, FilesError::Reset), json!({".tag": "reset"}));
    }
}
