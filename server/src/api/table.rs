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
];
