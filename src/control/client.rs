//! The asking end of the control socket.

use std::fs::File;
use std::io;
use std::io::BufRead;
use std::io::BufReader;
use std::io::Write;
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;

use super::protocol::Reply;
use super::protocol::Request;
use crate::home::Home;

#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// No daemon runs for this home.
    #[error("no drive is mounted from {0}; `drivefs mount DIR` does it")]
    NotRunning(String),
    #[error("the daemon does not answer: {0}")]
    Io(#[from] io::Error),
    #[error("the daemon answered nonsense: {0}")]
    Protocol(String),
}

/// A connection to the daemon of a home.
pub struct Control {
    stream: BufReader<UnixStream>,
}

impl Control {
    pub fn connect(home: &Home) -> Result<Self, ControlError> {
        let socket = home.control_socket();
        let name = home.root().display().to_string();
        // Socket addresses are short (108 bytes) and homes may be deep: go by the folder's handle.
        let dir = File::open(home.root())?;
        let file = socket.file_name().expect("the socket has a name").to_string_lossy();
        let path = format!("/proc/self/fd/{}/{file}", dir.as_raw_fd());
        match UnixStream::connect(path) {
            Ok(stream) => Ok(Self { stream: BufReader::new(stream) }),
            Err(e)
                if matches!(
                    e.kind(),
                    io::ErrorKind::NotFound | io::ErrorKind::ConnectionRefused
                ) =>
            {
                Err(ControlError::NotRunning(name))
            }
            Err(e) => Err(e.into()),
        }
    }

    pub fn send(&mut self, request: &Request) -> Result<(), ControlError> {
        let mut line = serde_json::to_vec(request).expect("requests serialise");
        line.push(b'\n');
        Ok(self.stream.get_mut().write_all(&line)?)
    }

    /// The next answer; none when the daemon closed the connection.
    pub fn next_reply(&mut self) -> Result<Option<Reply>, ControlError> {
        let mut line = String::new();
        if self.stream.read_line(&mut line)? == 0 {
            return Ok(None);
        }
        serde_json::from_str(&line).map(Some).map_err(|e| ControlError::Protocol(e.to_string()))
    }

    /// Asks and returns the result, telling of progress on the way.
    pub fn ask(
        &mut self,
        request: &Request,
        mut progress: impl FnMut(&Reply),
    ) -> Result<Reply, ControlError> {
        self.send(request)?;
        loop {
            match self.next_reply()? {
                Some(reply @ Reply::Progress { .. }) => progress(&reply),
                Some(reply) => return Ok(reply),
                None => return Err(ControlError::Protocol("it hung up".into())),
            }
        }
    }
}
