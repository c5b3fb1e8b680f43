//! The account file: which server, which account, which token.

use std::fs;
use std::io;
use std::io::ErrorKind;

use serde::Deserialize;
use serde::Serialize;

use super::Home;
use super::write_atomic;

/// Why the home could not be used.
#[derive(Debug, thiserror::Error)]
pub enum HomeError {
    #[error("neither DRIVEFS_HOME nor HOME is set; set DRIVEFS_HOME to a folder for drivefs")]
    NoHome,
    #[error("{0}: {1}")]
    Io(String, io::Error),
    #[error("{0} is damaged ({1}); log in again with `drivefs login URL --email E`")]
    Damaged(String, String),
}

/// Who this device is. Mode 0600: it holds the token.
#[derive(Clone, Serialize, Deserialize)]
pub struct AccountFile {
    /// Server address, such as `https://drive.example.org`.
    pub url: String,
    pub email: String,
    pub device: String,
    pub token: String,
    /// True when this home runs the server itself.
    #[serde(default)]
    pub embedded: bool,
}

impl AccountFile {
    /// The account of a home; none when it was never logged in.
    pub fn load(home: &Home) -> Result<Option<Self>, HomeError> {
        let path = home.account();
        let name = path.display().to_string();
        match fs::read(&path) {
            Ok(json) => serde_json::from_slice(&json)
                .map(Some)
                .map_err(|e| HomeError::Damaged(name, e.to_string())),
            Err(e) if e.kind() == ErrorKind::NotFound => Ok(None),
            Err(e) => Err(HomeError::Io(name, e)),
        }
    }

    pub fn save(&self, home: &Home) -> Result<(), HomeError> {
        let json = serde_json::to_vec_pretty(self).expect("texts serialise");
        let path = home.account();
        write_atomic(&path, &json, 0o600).map_err(|e| HomeError::Io(path.display().to_string(), e))
    }

    pub fn remove(home: &Home) -> Result<(), HomeError> {
        match fs::remove_file(home.account()) {
            Err(e) if e.kind() != ErrorKind::NotFound => {
                Err(HomeError::Io(home.account().display().to_string(), e))
            }
            _ => Ok(()),
        }
    }
}
