//! Logging in and out, and the tokens of an account.

use std::net::IpAddr;

use drivefs_core::limits::DEVICE_NAME_MAX_BYTES;
use drivefs_core::wire::LoginReply;
use drivefs_core::wire::LoginRequest;
use drivefs_core::wire::TokenInfo;
use drivefs_core::wire::TokenList;
use drivefs_core::wire::TokenReply;
use drivefs_core::wire::TokenRequest;

use super::Drive;
use super::DriveError;
use super::account;
use super::users;
use crate::auth;
use crate::auth::Asker;
use crate::auth::password;
use crate::auth::token;
use crate::clock;
use crate::host;
use crate::metadata::accounts;
use crate::metadata::audit;
use crate::metadata::audit::Happened;
use crate::metadata::audit::Kind;
use crate::metadata::tokens;
use crate::metadata::tokens::Device;

/// A token's `last_seen` is written at most this often (seconds).
const SEEN_EVERY_SECS: i64 = 60;

impl Drive {
    /// Who holds the token `text`.
    pub async fn asker(&self, text: &str) -> Result<Asker, DriveError> {
        let hash = token::hash(text);
        let now = clock::now_secs();
        let idle = self.limits.session_idle_secs;
        let asker = self.store.read(move |sql| auth::asker_of(sql, &hash, now, idle)).await?;
        if now - asker.last_seen >= SEEN_EVERY_SECS {
            self.note_seen(&asker, now);
        }
        Ok(asker)
    }

    /// Notes the time behind the request's back.
    fn note_seen(&self, asker: &Asker, now: i64) {
        let store = self.store.clone();
        let (user, device) = (asker.user, asker.device);
        tokio::spawn(async move {
            let noted = store.write(move |sql| tokens::set_last_seen(sql, user, device, now)).await;
            if let Err(e) = noted {
                tracing::warn!(error = %e, "last_seen not noted");
            }
        });
    }

    /// Notes what no transaction of its own goes with; the request goes on without, if it must.
    async fn note_audit(&self, happened: Happened) {
        if let Err(e) = self.store.write(move |sql| audit::insert(sql, &happened)).await {
            tracing::error!(error = %e, "not noted in the audit list");
        }
    }

    pub async fn login(
        &self,
        request: LoginRequest,
        peer: IpAddr,
    ) -> Result<LoginReply, DriveError> {
        let device = checked_name(&request.device)?;
        let email = users::checked_email(&request.email).map_err(|_| DriveError::BadCredentials)?;
        let outcome = |outcome: &'static str| {
            metrics::counter!("drivefs_logins_total", "outcome" => outcome).increment(1);
        };
        let told = |kind, device: &str, detail: &str| Happened {
            kind,
            account: email.clone(),
            device: device.to_owned(),
            peer: peer.to_string(),
            detail: detail.to_owned(),
        };
        if let Err(wait) = self.limiter.attempt(&email, peer, clock::now_secs()) {
            outcome("limited");
            if wait.first {
                let why = format!("too many failed; has to wait {} s", wait.secs);
                self.note_audit(told(Kind::LoginLimited, &device, &why)).await;
            }
            return Err(DriveError::TooManyLogins { retry_after_secs: wait.secs.unsigned_abs() });
        }
        let wanted = email.clone();
        let user = self.store.read(move |sql| accounts::by_email(sql, &wanted)).await?;
        let stored = user.as_ref().map(|u| u.password.clone());
        let fits = self
            .work
            .compute(move || password::verify(&request.password, stored.as_deref()))
            .await?;
        let user = match user {
            Some(user) if fits && !user.disabled => user,
            other => {
                let why = match other {
                    None => "no such account",
                    Some(user) if user.disabled => "the account is disabled",
                    Some(_) => "wrong password",
                };
                outcome("failed");
                self.note_audit(told(Kind::LoginFailed, &device, why)).await;
                return Err(DriveError::BadCredentials);
            }
        };
        self.limiter.succeeded(&email, peer);
        outcome("ok");
        let login = told(Kind::Login, &device, "");

        let (text, hash) = token::make();
        let device = new_device(&user, device, false, None);
        let asker = Asker {
            user: user.user,
            email: user.email.clone(),
            root: user.root_ns,
            device: device.device,
            device_name: device.name.clone(),
            last_seen: device.last_seen,
        };
        self.store
            .write(move |sql| {
                if let Some(old) = tokens::by_name(sql, device.user, &device.name)? {
                    if old.script {
                        return Err(DriveError::Conflict(format!(
                            "{} is the name of a script's token; choose another device name",
                            device.name
                        )));
                    }
                    tokens::revoke(sql, device.user, &device.name, device.created)?;
                }
                audit::insert(sql, &login)?;
                Ok(tokens::insert(sql, &device, &hash)?)
            })
            .await?;
        tracing::info!(user = %user.user, device.name = %asker.device_name, "login");
        Ok(LoginReply { token: text, account: account::shown(self, &asker, &user) })
    }

    /// Revokes the token that asks.
    pub async fn logout(&self, asker: Asker) -> Result<(), DriveError> {
        self.revoke_token(&asker, asker.device_name.clone()).await
    }

    /// A token for scripts.
    pub async fn make_token(
        &self,
        asker: Asker,
        request: TokenRequest,
    ) -> Result<TokenReply, DriveError> {
        let name = checked_name(&request.name)?;
        let lifetime = request.expires_secs.map(i64::try_from).transpose();
        let lifetime =
            lifetime.map_err(|_| DriveError::BadRequest("expires_secs is too large".into()))?;
        if let Some(most) = self.limits.token_max_secs
            && lifetime.is_none_or(|secs| secs > most)
        {
            return Err(DriveError::BadRequest(format!(
                "tokens of this server live at most {} days; give --expires {}d or less",
                most / 86_400,
                most / 86_400
            )));
        }
        let made = by(&asker, Kind::TokenMade, &name);
        let (text, hash) = token::make();
        self.store
            .write(move |sql| {
                let user = accounts::by_id(sql, asker.user)?.ok_or(DriveError::BadCredentials)?;
                if tokens::by_name(sql, asker.user, &name)?.is_some() {
                    return Err(DriveError::Conflict(format!(
                        "there is already a device or token called {name}"
                    )));
                }
                audit::insert(sql, &made)?;
                let device = new_device(&user, name, true, lifetime);
                Ok(tokens::insert(sql, &device, &hash)?)
            })
            .await?;
        Ok(TokenReply { token: text })
    }

    pub async fn list_tokens(&self, asker: Asker) -> Result<TokenList, DriveError> {
        let devices = self.store.read(move |sql| tokens::of_user(sql, asker.user)).await?;
        let tokens = devices
            .into_iter()
            .map(|d| TokenInfo {
                name: d.name,
                script: d.script,
                created: d.created,
                last_seen: d.last_seen,
                expires: d.expires,
            })
            .collect();
        Ok(TokenList { tokens })
    }

    pub async fn revoke_token(&self, asker: &Asker, name: String) -> Result<(), DriveError> {
        let user = asker.user;
        let revoked = by(asker, Kind::TokenRevoked, &name);
        self.store
            .write(move |sql| {
                if tokens::revoke(sql, user, &name, clock::now_secs())? {
                    return Ok(audit::insert(sql, &revoked)?);
                }
                Err(DriveError::NotFound(format!("there is no device or token called {name}")))
            })
            .await
    }
}

/// Something that a device did.
fn by(asker: &Asker, kind: Kind, name: &str) -> Happened {
    Happened {
        kind,
        account: asker.email.clone(),
        device: name.to_owned(),
        peer: String::new(),
        detail: format!("by {}", asker.device_name),
    }
}

fn new_device(
    user: &accounts::User,
    name: String,
    script: bool,
    lifetime_secs: Option<i64>,
) -> Device {
    let now = clock::now_secs();
    Device {
        user: user.user,
        device: host::random::<u64>() >> 1,
        name,
        script,
        created: now,
        last_seen: now,
        expires: lifetime_secs.map(|secs| now.saturating_add(secs)),
        revoked: None,
    }
}

fn checked_name(name: &str) -> Result<String, DriveError> {
    let name = name.trim();
    if name.is_empty() || name.len() > DEVICE_NAME_MAX_BYTES || name.contains(char::is_control) {
        return Err(DriveError::BadRequest(format!(
            "a device or token needs a name of 1 to {DEVICE_NAME_MAX_BYTES} bytes without control \
             characters"
        )));
    }
    Ok(name.to_owned())
}
