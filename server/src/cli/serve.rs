//! `drivefs-server serve`: prints one line when ready, logs to stderr, stops cleanly on a signal.

use std::io::Write;

use clap::Args;
use clap::ValueEnum;
use tokio::signal::unix::SignalKind;
use tokio::signal::unix::signal;
use tracing_subscriber::EnvFilter;

use crate::app::Server;
use crate::config::Config;
use crate::config::Place;
use crate::config::Settings;

#[derive(Debug, Args)]
pub struct Serve {
    #[command(flatten)]
    settings: Settings,
    #[command(flatten)]
    place: Place,
    /// How log lines look; what is logged is up to RUST_LOG [default level: info]
    #[arg(long, value_enum, default_value = "text")]
    log_format: LogFormat,
}

#[derive(Debug, Clone, Copy, ValueEnum)]
enum LogFormat {
    Text,
    Json,
}

pub fn run(serve: Serve) -> anyhow::Result<()> {
    let config = Config::resolve(&serve.place, serve.settings)?;
    start_log(serve.log_format);
    super::runtime()?.block_on(async {
        let mut term = signal(SignalKind::terminate())?;
        let mut int = signal(SignalKind::interrupt())?;
        let data = config.data.display().to_string();
        let scheme = if config.tls.is_some() { "https" } else { "http" };
        let mut server = Server::start(config).await?;
        tracing::info!(addr = %server.addr(), %data, "serving");
        let mut out = std::io::stdout();
        writeln!(out, "listening on {scheme}://{}", server.addr())?;
        out.flush()?;
        tokio::select! {
            _ = term.recv() => {}
            _ = int.recv() => {}
            error = server.broken() => return Err(error),
        }
        tracing::info!("stopping");
        server.stop().await
    })
}

fn start_log(format: LogFormat) {
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    let log = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    match format {
        LogFormat::Text => log.with_ansi(false).init(),
        LogFormat::Json => log.json().init(),
    }
}
