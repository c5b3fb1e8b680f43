//! Why a request failed, sorted by what the caller does next.

use drivefs_core::wire::ErrorCode;

#[derive(Debug, Clone, thiserror::Error)]
pub enum RemoteError {
    /// No answer: the server cannot be reached, or the answer broke off. Try again later.
    #[error("{0}")]
    Offline(String),
    /// The token is not good any more. Nothing works until the next login.
    #[error("{0}")]
    Unauthorized(String),
    /// The server answered with an error.
    #[error("{message}{}", .hint.as_ref().map(|h| format!(" ({h})")).unwrap_or_default())]
    Refused { code: ErrorCode, message: String, hint: Option<String> },
    /// The answer makes no sense to this client.
    #[error("unexpected answer from the server: {0}")]
    Protocol(String),
}

impl RemoteError {
    /// True when the same request may well succeed later.
    pub fn is_passing(&self) -> bool {
        match self {
            Self::Offline(_) => true,
            Self::Refused { code, .. } => matches!(
                code,
                ErrorCode::Unavailable
                    | ErrorCode::BeingRestored
                    | ErrorCode::TooManyRequests
                    | ErrorCode::Internal
            ),
            Self::Unauthorized(_) | Self::Protocol(_) => false,
        }
    }

    pub fn code(&self) -> Option<ErrorCode> {
        match self {
            Self::Refused { code, .. } => Some(*code),
            _ => None,
        }
    }
}
