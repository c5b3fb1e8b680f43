//! Every route and who may use it: what the authorization test goes through. A route that is not
//! here, or here and nowhere else, fails that test.

/// Who gets an answer other than a refusal.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Access {
    /// Everybody, without a token.
    Open,
    /// Who knows e-mail address and password.
    Password,
    /// Every token; it acts on its own account alone.
    Account,
    /// Members of the namespace, viewers too.
    Read,
    /// Members of the namespace who may write.
    Write,
    /// By a path in the asker's own tree, as the roles in shared folders allow.
    PathRead,
    PathWrite,
    /// Who has begun the upload.
    Own,
    /// Without a token: what it carries was sealed by the server itself.
    Sealed,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Route {
    pub method: &'static str,
    /// As the router has it, with its placeholders.
    pub path: &'static str,
    pub access: Access,
}

const fn route(method: &'static str, path: &'static str, access: Access) -> Route {
    Route { method, path, access }
}

pub const ROUTES: &[Route] = &[
    route("GET", "/healthz", Access::Open),
    route("GET", "/readyz", Access::Open),
    route("GET", "/metrics", Access::Open),
    route("POST", "/auth/v1/login", Access::Password),
    route("POST", "/auth/v1/logout", Access::Account),
    route("GET", "/auth/v1/tokens", Access::Account),
    route("POST", "/auth/v1/tokens", Access::Account),
    route("DELETE", "/auth/v1/tokens/{name}", Access::Account),
    route("GET", "/sync/v1/account", Access::Account),
    route("POST", "/sync/v1/missing", Access::Read),
    route("POST", "/sync/v1/packs", Access::Write),
    route("POST", "/sync/v1/blocks", Access::Read),
    route("POST", "/sync/v1/commit", Access::Write),
    route("POST", "/sync/v1/changes", Access::Read),
    route("POST", "/sync/v1/list", Access::Read),
    route("POST", "/sync/v1/poll", Access::Read),
    route("POST", "/sync/v1/versions", Access::Read),
    route("POST", "/sync/v1/keep", Access::Write),
    route("POST", "/sync/v1/events", Access::Read),
    route("POST", "/sync/v1/past", Access::Read),
    route("POST", "/sync/v1/gone", Access::Read),
    route("POST", "/sync/v1/trash", Access::Read),
    route("POST", "/sync/v1/trash/empty", Access::Write),
    route("GET", "/openapi.json", Access::Open),
    route("POST", "/internal/v1/uploads/stored", Access::Sealed),
    route("POST", "/files/list_uploads", Access::PathRead),
    route("PUT", "/files/upload/{upload}", Access::Own),
    route("DELETE", "/files/upload/{upload}", Access::Own),
    route("POST", "/files/list_folder", Access::PathRead),
    route("POST", "/files/list_folder/continue", Access::PathRead),
    route("POST", "/files/list_folder/get_latest_cursor", Access::PathRead),
    route("POST", "/files/list_folder/longpoll", Access::Sealed),
    route("POST", "/files/get_metadata", Access::PathRead),
    route("POST", "/files/create_folder_v2", Access::PathWrite),
    route("POST", "/files/move_v2", Access::PathWrite),
    route("POST", "/files/copy_v2", Access::PathWrite),
    route("POST", "/files/delete_v2", Access::PathWrite),
    route("POST", "/files/restore", Access::PathWrite),
    route("POST", "/files/list_revisions", Access::PathRead),
    route("POST", "/files/upload", Access::PathWrite),
    route("GET", "/files/download", Access::PathRead),
    route("POST", "/files/download", Access::PathRead),
    route("POST", "/files/upload_session/start", Access::Account),
    route("POST", "/files/upload_session/append_v2", Access::Own),
    route("POST", "/files/upload_session/finish", Access::PathWrite),
    route("POST", "/users/get_space_usage", Access::Account),
    route("POST", "/users/get_current_account", Access::Account),
    route("POST", "/2/files/list_folder", Access::PathRead),
    route("POST", "/2/files/list_folder/continue", Access::PathRead),
    route("POST", "/2/files/list_folder/get_latest_cursor", Access::PathRead),
    route("POST", "/2/files/list_folder/longpoll", Access::Sealed),
    route("POST", "/2/files/get_metadata", Access::PathRead),
    route("POST", "/2/files/create_folder_v2", Access::PathWrite),
    route("POST", "/2/files/move_v2", Access::PathWrite),
    route("POST", "/2/files/copy_v2", Access::PathWrite),
    route("POST", "/2/files/delete_v2", Access::PathWrite),
    route("POST", "/2/files/restore", Access::PathWrite),
    route("POST", "/2/files/list_revisions", Access::PathRead),
    route("POST", "/2/files/upload", Access::PathWrite),
    route("GET", "/2/files/download", Access::PathRead),
    route("POST", "/2/files/download", Access::PathRead),
    route("POST", "/2/files/upload_session/start", Access::Account),
    route("POST", "/2/files/upload_session/append_v2", Access::Own),
    route("POST", "/2/files/upload_session/finish", Access::PathWrite),
    route("POST", "/2/users/get_space_usage", Access::Account),
    route("POST", "/2/users/get_current_account", Access::Account),
];
