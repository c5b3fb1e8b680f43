//! What the file API is asked: arguments as the Dropbox API v2 names them, from a JSON body, the
//! header `Dropbox-API-Arg`, or the query.

use axum::extract::FromRequestParts;
use axum::http::HeaderMap;
use axum::http::request::Parts;
use drivefs_core::wire::ErrorCode;
use serde::Deserialize;
use serde::de::DeserializeOwned;

use super::failure::Failure;
use super::failure::Slot;
use super::failure::Style;
use crate::api::error::ApiError;
use crate::drive::files::FilesError;
use crate::drive::files::aim::Aim;
use crate::drive::files::aim::Mode;
use crate::drive::files::path::Target;
use crate::drive::files::stamp::Rev;
use crate::drive::files::stamp::rev_of_text;
use crate::drive::files::stamp::time_of_text;

pub const ARG_HEADER: &str = "dropbox-api-arg";

impl FromRequestParts<crate::api::Shared> for Style {
    type Rejection = std::convert::Infallible;

    /// Whose shapes a request expects.
    async fn from_request_parts(
        parts: &mut Parts,
        _: &crate::api::Shared,
    ) -> Result<Self, Self::Rejection> {
        Ok(style_of(parts.uri.path(), &parts.headers))
    }
}

pub fn style_of(path: &str, headers: &HeaderMap) -> Style {
    let is_theirs = path.starts_with("/2/") || headers.contains_key(ARG_HEADER);
    if is_theirs { Style::Dropbox } else { Style::Own }
}

/// The argument in the header, if there is one.
pub fn of_header<T: DeserializeOwned>(headers: &HeaderMap) -> Result<Option<T>, ApiError> {
    let Some(value) = headers.get(ARG_HEADER) else { return Ok(None) };
    let wrong = |why: String| {
        ApiError::new(ErrorCode::BadRequest, format!("the header Dropbox-API-Arg: {why}"))
    };
    // Clients escape what is no ASCII; some send UTF-8 as it is.
    let text = std::str::from_utf8(value.as_bytes()).map_err(|e| wrong(e.to_string()))?;
    serde_json::from_str(text).map(Some).map_err(|e| wrong(e.to_string()))
}

pub fn needs_header<T: DeserializeOwned>(headers: &HeaderMap) -> Result<T, ApiError> {
    of_header(headers)?.ok_or_else(|| {
        ApiError::new(ErrorCode::BadRequest, "this call takes its argument in a header")
            .hint("send the header Dropbox-API-Arg with the argument as JSON")
    })
}

pub fn target(style: Style, slot: Slot, text: &str) -> Result<Target, Failure> {
    Target::parse(text).map_err(|e| Failure { error: e.into(), style, slot })
}

/// A rev that was given, if one was.
pub fn rev(style: Style, slot: Slot, text: Option<&str>) -> Result<Option<Rev>, Failure> {
    let no_rev = || Failure { error: FilesError::NoRevision, style, slot };
    text.map(|text| rev_of_text(text).ok_or_else(no_rev)).transpose()
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct PathArg {
    pub path: String,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct GetMetadataArg {
    pub path: String,
    #[serde(default)]
    pub include_deleted: bool,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct ListFolderArg {
    pub path: String,
    #[serde(default)]
    pub recursive: bool,
    #[serde(default)]
    pub include_deleted: bool,
    #[serde(default)]
    pub limit: Option<u32>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct CursorArg {
    pub cursor: String,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct LongpollArg {
    pub cursor: String,
    #[serde(default)]
    pub timeout: Option<u64>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct CreateFolderArg {
    pub path: String,
    #[serde(default)]
    pub autorename: bool,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct RelocationArg {
    pub from_path: String,
    pub to_path: String,
    #[serde(default)]
    pub autorename: bool,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct DeleteArg {
    pub path: String,
    #[serde(default)]
    pub parent_rev: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct RestoreArg {
    pub path: String,
    pub rev: String,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct ListRevisionsArg {
    pub path: String,
    #[serde(default)]
    pub limit: Option<u32>,
    #[serde(default)]
    pub before_rev: Option<String>,
}

/// Of `download`: in a JSON body, the header or the query.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct DownloadArg {
    pub path: String,
    #[serde(default)]
    pub rev: Option<String>,
}

/// What may stand where the file goes: `"add"`, or `{".tag": "update", "update": REV}`.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
#[serde(untagged)]
pub enum WriteMode {
    Name(String),
    Tagged {
        #[serde(rename = ".tag")]
        tag: String,
        #[serde(default)]
        update: Option<String>,
    },
}

/// Where a file goes; with `base_version` as our own calls have it.
#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct CommitArg {
    pub path: String,
    #[serde(default)]
    pub mode: Option<WriteMode>,
    #[serde(default)]
    pub base_version: Option<u64>,
    #[serde(default)]
    pub autorename: bool,
    #[serde(default)]
    pub client_modified: Option<String>,
    #[serde(default)]
    pub strict_conflict: bool,
    #[serde(default)]
    pub content_hash: Option<String>,
}

impl CommitArg {
    /// `default`: what may be replaced where the caller does not say.
    pub fn aim(&self, default: Mode) -> Result<Aim, FilesError> {
        let wrong =
            |what: &str| FilesError::BadRequest(format!("{what}: not a value that there is"));
        let mode = match (&self.mode, self.base_version) {
            (_, Some(base)) => Mode::Base(base),
            (None, None) => default,
            (Some(WriteMode::Name(name)), _) => match name.as_str() {
                "add" => Mode::Add,
                "overwrite" => Mode::Overwrite,
                _ => return Err(wrong("mode")),
            },
            (Some(WriteMode::Tagged { tag, update }), _) => match (tag.as_str(), update) {
                ("add", _) => Mode::Add,
                ("overwrite", _) => Mode::Overwrite,
                ("update", Some(rev)) => Mode::Update(rev.clone()),
                _ => return Err(wrong("mode")),
            },
        };
        let modified = match &self.client_modified {
            None => None,
            Some(text) => Some(time_of_text(text).ok_or_else(|| wrong("client_modified"))?),
        };
        Ok(Aim {
            path: self.path.clone(),
            mode,
            autorename: self.autorename,
            strict: self.strict_conflict,
            modified,
            within: None,
        })
    }
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct SessionCursor {
    pub session_id: String,
    pub offset: u64,
}

#[derive(Debug, Default, Deserialize, utoipa::ToSchema)]
pub struct SessionStartArg {
    #[serde(default)]
    pub close: bool,
    #[serde(default)]
    pub content_hash: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct SessionAppendArg {
    pub cursor: SessionCursor,
    #[serde(default)]
    pub close: bool,
    #[serde(default)]
    pub content_hash: Option<String>,
}

#[derive(Debug, Deserialize, utoipa::ToSchema)]
pub struct SessionFinishArg {
    pub cursor: SessionCursor,
    pub commit: CommitArg,
    #[serde(default)]
    pub content_hash: Option<String>,
}
