//! A bare connection: frames out, frames in, and nothing that costs time.
//!
//! The client library's connection has a task, a table of waiting callers and a
//! way to wake each. Where a million questions are asked a second that would be
//! most of what is measured, and of ten thousand idle ones only the server's
//! side is of interest.

use std::io;

use bytes::{Buf, BytesMut};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::cli::fail::{Failure, Result};
use crate::limits;
use crate::protocol::api::{Api, Hello, HelloAnswer, MAGIC, PROTOCOL_MAX, PROTOCOL_MIN, Request};
use crate::protocol::error::ApiError;
use crate::protocol::frame::{Frame, FrameHeader, PREFIX_BYTES, Prefix};
use crate::types::Address;

/// What is read at once at least, in bytes.
const READ_BYTES: usize = 64 * limits::KIB;

/// An open connection that said hello.
#[derive(Debug)]
pub struct Line {
    stream: TcpStream,
    address: Address,
    received: BytesMut,
}

impl Line {
    /// Connects and says hello.
    pub async fn open(address: &Address) -> Result<(Self, HelloAnswer)> {
        let opened = tokio::time::timeout(limits::DIAL_TIMEOUT, Self::dial(address)).await;
        opened.unwrap_or_else(|_| {
            let seconds = limits::DIAL_TIMEOUT.as_secs();
            Err(Failure::server(format!(
                "{address}: no hello within {seconds} s"
            )))
        })
    }

    async fn dial(address: &Address) -> Result<(Self, HelloAnswer)> {
        let stream = TcpStream::connect(address.as_str())
            .await
            .and_then(|stream| stream.set_nodelay(true).map(|()| stream))
            .map_err(|error| Failure::io(address.as_str(), &error))?;
        let mut line = Self {
            stream,
            address: address.clone(),
            received: BytesMut::new(),
        };
        let hello = Hello {
            magic: MAGIC,
            protocol_min: PROTOCOL_MIN,
            protocol_max: PROTOCOL_MAX,
            client: concat!("tidings bench ", env!("CARGO_PKG_VERSION")).to_owned(),
            features: 0,
        };
        let body = hello.encode().map_err(ApiError::from)?;
        let header = FrameHeader::request(Api::Hello as u16, Hello::VERSION, 0);
        line.send(&[&header.encode(body.len())[..], &body].concat())
            .await?;
        let answer = loop {
            if let Some(frame) = line.frame()? {
                break frame;
            }
            line.receive().await?;
        };
        if answer.header.is_error() {
            let refusal = ApiError::decode(&answer.body).map_err(ApiError::from)?;
            return Err(refusal.into());
        }
        let hello = Hello::decode_answer(&answer.body).map_err(ApiError::from)?;
        // Nothing is kept for a connection that only lies there.
        line.received = BytesMut::new();
        Ok((line, hello))
    }

    fn failed(&self, error: &io::Error) -> Failure {
        Failure::io(self.address.as_str(), error)
    }

    /// Writes frames.
    pub async fn send(&mut self, frames: &[u8]) -> Result {
        let sent = self.stream.write_all(frames).await;
        sent.map_err(|error| self.failed(&error))
    }

    /// Waits for more bytes. It may be given up; nothing is lost then.
    pub async fn receive(&mut self) -> Result {
        self.received.reserve(READ_BYTES);
        match self.stream.read_buf(&mut self.received).await {
            Ok(0) => Err(Failure::server(format!(
                "{} closed the connection",
                self.address
            ))),
            Ok(_) => Ok(()),
            Err(error) => Err(self.failed(&error)),
        }
    }

    /// The next whole frame among what was received.
    pub fn frame(&mut self) -> Result<Option<Frame>> {
        Frame::parse(&mut self.received, limits::FRAME_BYTES_MAX)
            .map_err(|error| Failure::server(format!("{}: {error}", self.address)))
    }

    /// Shows all whole frames among what was received, where they lie, and forgets them.
    pub fn frames(&mut self, mut see: impl FnMut(FrameHeader, &[u8]) -> Result) -> Result {
        let mut rest = &self.received[..];
        while let Some(prefix) = Prefix::parse(rest, limits::FRAME_BYTES_MAX)
            .map_err(|error| Failure::server(format!("{}: {error}", self.address)))?
            && let Some((frame, others)) = rest.split_at_checked(prefix.frame_bytes())
        {
            see(prefix.header, &frame[PREFIX_BYTES..])?;
            rest = others;
        }
        let seen = self.received.len() - rest.len();
        self.received.advance(seen);
        Ok(())
    }

    /// Whether the other side has neither closed it nor said anything.
    pub fn is_idle(&self) -> bool {
        let mut byte = [0];
        let read = self.stream.try_read(&mut byte);
        read.is_err_and(|error| error.kind() == io::ErrorKind::WouldBlock)
    }
}
