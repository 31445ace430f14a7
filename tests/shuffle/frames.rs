//! The body of an answer that comes piece by piece, each when its turn has come.

use std::future::poll_fn;
use std::pin::Pin;
use std::task::{Context, Poll};

use axum::body::{Body, Bytes};
use hyper::body::{Body as HttpBody, Frame};
use tokio::sync::mpsc;

use crate::shuffler::{Fate, Shuffler, Stop};
use crate::support::Failure;

/// What was let go and not read yet.
pub struct Frames(mpsc::Receiver<Result<Frame<Bytes>, Failure>>);

impl HttpBody for Frames {
    type Data = Bytes;
    type Error = Failure;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<Frame<Bytes>, Failure>>> {
        self.0.poll_recv(cx)
    }
}

/// The next piece of a body.
pub async fn next<B>(body: &mut B) -> Option<Result<Frame<Bytes>, Failure>>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Failure>,
{
    let frame = poll_fn(|cx| Pin::new(&mut *body).poll_frame(cx)).await?;
    Some(frame.map_err(Into::into))
}

/// All that is left of a body, trailers too.
pub async fn all<B>(body: &mut B) -> Result<Vec<Frame<Bytes>>, Failure>
where
    B: HttpBody<Data = Bytes> + Unpin,
    B::Error: Into<Failure>,
{
    let mut frames = Vec::new();
    while let Some(frame) = next(body).await {
        frames.push(frame?);
    }
    Ok(frames)
}

/// A body of these.
pub fn ready(frames: Vec<Frame<Bytes>>) -> Body {
    let (sender, receiver) = mpsc::channel(frames.len().max(1));
    for frame in frames {
        sender.try_send(Ok(frame)).expect("there is room");
    }
    Body::new(Frames(receiver))
}

/// A body that brings what this one brings, each piece in its turn; `lines` when a piece ends where a line does.
pub fn held<B>(
    mut body: B,
    lines: bool,
    shuffler: std::sync::Arc<Shuffler>,
    stop: impl Fn(&[u8]) -> Stop + Send + 'static,
) -> Body
where
    B: HttpBody<Data = Bytes> + Send + Unpin + 'static,
    B::Error: Into<Failure>,
{
    let (sender, receiver) = mpsc::channel(1);
    tokio::spawn(async move {
        let mut begun: Vec<u8> = Vec::new();
        loop {
            let frame = tokio::select! {
                frame = next(&mut body) => frame,
                () = sender.closed() => return,
            };
            let Some(Ok(frame)) = frame else {
                return;
            };
            let mut pieces = Vec::new();
            match frame.into_data() {
                Ok(data) if lines => {
                    begun.extend_from_slice(&data);
                    while let Some(end) = begun.iter().position(|byte| *byte == b'\n') {
                        let rest = begun.split_off(end + 1);
                        let line = std::mem::replace(&mut begun, rest);
                        pieces.push(Frame::data(Bytes::from(line)));
                    }
                }
                Ok(data) => pieces.push(Frame::data(data)),
                Err(other) => pieces.push(other),
            }
            for piece in pieces {
                let text = piece.data_ref().cloned().unwrap_or_default();
                let fate = tokio::select! {
                    fate = shuffler.hold(stop(&text)) => fate,
                    () = sender.closed() => return,
                };
                let last = fate == Fate::Lose;
                let piece = match last {
                    true => Err("the watch is broken".into()),
                    false => Ok(piece),
                };
                if sender.send(piece).await.is_err() || last {
                    return;
                }
            }
        }
    });
    Body::new(Frames(receiver))
}
