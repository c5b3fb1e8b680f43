//! What the account is told about itself, in the shapes of the Dropbox API v2.

use axum::Extension;
use axum::Json;
use axum::extract::State;
use serde::Serialize;

use crate::api::Shared;
use crate::api::error::ApiError;
use crate::api::openapi::Refused;
use crate::auth::Asker;

/// Length that account ids have in that API.
const ACCOUNT_ID_CHARS: usize = 40;

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct SpaceUsage {
    /// Bytes.
    pub used: u64,
    pub allocation: Allocation,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(tag = ".tag", rename_all = "snake_case")]
pub enum Allocation {
    Individual { allocated: u64 },
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct FullAccount {
    pub account_id: String,
    pub name: AccountName,
    pub email: String,
    pub email_verified: bool,
    pub disabled: bool,
    pub locale: String,
    pub referral_link: String,
    pub is_paired: bool,
    pub account_type: AccountType,
    pub root_info: RootInfo,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
pub struct AccountName {
    pub given_name: String,
    pub surname: String,
    pub familiar_name: String,
    pub display_name: String,
    pub abbreviated_name: String,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(tag = ".tag", rename_all = "snake_case")]
pub enum AccountType {
    Basic,
}

#[derive(Debug, Serialize, utoipa::ToSchema)]
#[serde(tag = ".tag", rename_all = "snake_case")]
pub enum RootInfo {
    User { root_namespace_id: String, home_namespace_id: String },
}

#[utoipa::path(
    post,
    path = "/users/get_space_usage",
    tag = "files",
    responses((status = 200, description = "Done", body = SpaceUsage), Refused),
)]
pub async fn space_usage(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
) -> Result<Json<SpaceUsage>, ApiError> {
    let account = shared.drive.account(asker).await?;
    let allocation = Allocation::Individual { allocated: account.quota_bytes };
    Ok(Json(SpaceUsage { used: account.used_bytes, allocation }))
}

#[utoipa::path(
    post,
    path = "/users/get_current_account",
    tag = "files",
    responses((status = 200, description = "Done", body = FullAccount), Refused),
)]
pub async fn current_account(
    State(shared): State<Shared>,
    Extension(asker): Extension<Asker>,
) -> Result<Json<FullAccount>, ApiError> {
    let account = shared.drive.account(asker).await?;
    let name = account.email.split('@').next().unwrap_or_default().to_owned();
    let id = format!("dbid:{}", account.user);
    Ok(Json(FullAccount {
        account_id: format!("{id:-<ACCOUNT_ID_CHARS$}"),
        name: AccountName {
            given_name: name.clone(),
            surname: String::new(),
            familiar_name: name.clone(),
            display_name: name.clone(),
            abbreviated_name: name.chars().take(2).collect(),
        },
        email: account.email,
        email_verified: true,
        disabled: false,
        locale: "en".into(),
        referral_link: String::new(),
        is_paired: false,
        account_type: AccountType::Basic,
        root_info: RootInfo::User {
            root_namespace_id: account.root.0.to_string(),
            home_namespace_id: account.root.0.to_string(),
        },
    }))
}
