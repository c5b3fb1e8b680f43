//! The calls of the file API in the OpenAPI document.

use utoipa::OpenApi;

use super::args::CommitArg;
use super::args::SessionAppendArg;
use super::args::SessionFinishArg;
use super::args::SessionStartArg;
use super::download;
use super::folders;
use super::resumable;
use super::resumable::BeginArg;
use super::resumable::BeginResult;
use super::revisions;
use super::sessions;
use super::upload;
use super::users;

#[derive(OpenApi)]
#[openapi(
    paths(
        folders::list,
        folders::list_on,
        folders::latest_cursor,
        folders::longpoll,
        folders::get_metadata,
        folders::list_uploads,
        folders::create,
        folders::relocate,
        folders::copy,
        folders::delete,
        revisions::list,
        revisions::restore,
        users::space_usage,
        users::current_account,
        upload::upload,
        download::download,
        sessions::start,
        sessions::append,
        sessions::finish,
        resumable::part,
        resumable::cancel,
    ),
    components(schemas(
        CommitArg,
        SessionStartArg,
        SessionAppendArg,
        SessionFinishArg,
        BeginArg,
        BeginResult,
    ))
)]
pub struct FileCalls;
