//! `drivefs token`: tokens for scripts.

use anyhow::Context;
use clap::Subcommand;
use drivefs_core::wire::TokenRequest;

use crate::home::AccountFile;
use crate::home::Home;
use crate::remote::Remote;

#[derive(Debug, Subcommand)]
pub enum Token {
    /// Make a token; it is printed alone on the last line, and never again
    Create {
        /// Name by which it is listed and revoked
        name: String,
        /// Lifetime, such as 90d, 12h, 30m or 60s [default: until revoked]
        #[arg(long, value_parser = lifetime)]
        expires: Option<u64>,
    },
    /// List devices and tokens of the account
    List {
        /// Print JSON
        #[arg(long)]
        json: bool,
    },
    /// Revoke a token: it stops working at once
    Revoke { name: String },
}

pub fn run(c: &Token) -> anyhow::Result<()> {
    let home = Home::from_env()?;
    let account = AccountFile::load(&home)?
        .context("this device is not logged in; `drivefs login URL --email E` does it")?;
    let remote = Remote::new(&account.url, Some(account.token))?;
    let runtime = super::runtime()?;
    match c {
        Token::Create { name, expires } => {
            let request = TokenRequest { name: name.clone(), expires_secs: *expires };
            let reply = runtime.block_on(remote.create_token(&request))?;
            eprintln!("token '{name}', shown only this once:");
            println!("{}", reply.token);
        }
        Token::List { json } => {
            let list = runtime.block_on(remote.tokens())?;
            if *json {
                println!("{}", serde_json::to_string_pretty(&list)?);
                return Ok(());
            }
            for t in list.tokens {
                let kind = if t.script { "token" } else { "device" };
                let end = t.expires.map(|e| format!(", expires {}", when(e))).unwrap_or_default();
                println!("{kind:6}  {}  (last seen {}{end})", t.name, when(t.last_seen));
            }
        }
        Token::Revoke { name } => {
            runtime.block_on(remote.revoke_token(name))?;
            println!("revoked {name}");
        }
    }
    Ok(())
}

/// A time, as people say it.
pub(super) fn when(unix_secs: i64) -> String {
    let age = crate::journal::now() / 1_000_000_000 - unix_secs;
    let (n, what) = match age.unsigned_abs() {
        s if s < 120 => (s, "s"),
        s if s < 7_200 => (s / 60, "min"),
        s if s < 172_800 => (s / 3_600, "h"),
        s => (s / 86_400, "d"),
    };
    if age >= 0 { format!("{n} {what} ago") } else { format!("in {n} {what}") }
}

fn lifetime(text: &str) -> Result<u64, String> {
    let parsed = || {
        let unit = text.chars().last()?;
        let number: u64 = text.get(..text.len() - unit.len_utf8())?.parse().ok()?;
        let secs = match unit {
            's' => 1,
            'm' => 60,
            'h' => 3_600,
            'd' => 86_400,
            _ => return None,
        };
        number.checked_mul(secs).filter(|&s| s > 0)
    };
    parsed().ok_or_else(|| format!("'{text}' is not a lifetime like 90d, 12h, 30m or 60s"))
}
