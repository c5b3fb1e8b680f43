//! `drivefs-server openapi`: the document that the server serves, for tools.

use std::io::Write;

use crate::api;

pub fn run() -> anyhow::Result<()> {
    std::io::stdout().write_all(api::openapi_text()?.as_bytes())?;
    Ok(())
}
