//! Connections that peers have dialled: who may, and what comes in on them.

use super::far::Unpacker;
use super::{LinkEvent, Sink, other, read_head, write_frame};
use crate::limits;
use crate::node::wire::{self, Frame, Head, Hello, WireError};
use futures_util::StreamExt;
use standfast_wal::{Incarnation, NodeId};
use std::collections::{BTreeMap, VecDeque};
use std::io::ErrorKind;
use std::sync::{Arc, Mutex};
use std::time::Duration;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio_util::codec::FramedRead;

/// Which process of each peer dialled us last, to notice two live copies of one data directory.
#[derive(Default)]
struct Guests {
    current: BTreeMap<NodeId, (Incarnation, u64)>,
    /// Processes that a later one of the same incarnation has replaced.
    replaced: VecDeque<(Incarnation, u64)>,
}

impl Guests {
    /// A restarted node comes back once with a new process number; a copied disk comes back
    /// again and again with an old one.
    fn admit(&mut self, hello: &Hello) -> Result<(), String> {
        let life = (hello.incarnation, hello.process);
        if self.replaced.contains(&life) {
            return Err(format!(
                "two processes run on copies of one data directory (node {}, incarnation {}): \
                 stop one of them and give it an empty data directory",
                hello.from, hello.incarnation
            ));
        }
        if let Some(before) = self.current.insert(hello.from, life)
            && before.0 == life.0
            && before.1 != life.1
        {
            self.replaced.push_back(before);
            if self.replaced.len() > limits::REPLACED_PROCESSES_MAX {
                self.replaced.pop_front();
            }
        }
        Ok(())
    }
}

/// Accepts peers for ever; each accepted connection only brings frames in.
pub async fn accept(listener: TcpListener, me: watch::Receiver<Hello>, sink: Sink) {
    let guests = Arc::new(Mutex::new(Guests::default()));
    loop {
        match listener.accept().await {
            Ok((stream, _)) => {
                let (me, sink, guests) = (me.clone(), sink.clone(), guests.clone());
                tokio::spawn(async move {
                    if let Err(error) = receive(stream, me, sink, guests).await {
                        tracing::debug!(%error, "incoming peer connection ended");
                    }
                });
            }
            Err(error) => {
                tracing::warn!(%error, "cannot accept a peer");
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
        }
    }
}

async fn receive(
    mut stream: TcpStream,
    me: watch::Receiver<Hello>,
    sink: Sink,
    guests: Arc<Mutex<Guests>>,
) -> Result<(), WireError> {
    stream.set_nodelay(true)?;
    let greeting = tokio::time::timeout(limits::DIAL_TIMEOUT, read_head(&mut stream))
        .await
        .map_err(|_| WireError::Io(ErrorKind::TimedOut.into()))??;
    let Head::Hello(hello) = greeting else {
        return Err(other("the first frame was no Hello".to_owned()));
    };
    let mine = me.borrow().clone();
    let verdict =
        judge(&mine, &hello).and_then(|()| guests.lock().map_err(|e| e.to_string())?.admit(&hello));
    if let Err(why) = verdict {
        tracing::warn!(from = %hello.from, %why, "peer refused");
        return write_frame(&mut stream, Head::Refused(why)).await;
    }
    write_frame(
        &mut stream,
        Head::Hello(Hello {
            to: hello.from,
            ..mine
        }),
    )
    .await?;
    let (from, incarnation) = (hello.from, hello.incarnation);
    let take = |frame| {
        sink(LinkEvent::Frame {
            from,
            incarnation,
            frame,
        });
    };
    match hello.is_packed {
        true => take_all(stream, Unpacker::new()?, take).await,
        false => take_all(stream, wire::Decoder, take).await,
    }
}

async fn take_all(
    stream: TcpStream,
    decoder: impl tokio_util::codec::Decoder<Item = Frame, Error = WireError>,
    take: impl Fn(Frame),
) -> Result<(), WireError> {
    let frames = FramedRead::with_capacity(stream, decoder, limits::LINK_READ_BYTES);
    let mut frames = std::pin::pin!(frames);
    while let Some(frame) = frames.next().await {
        take(frame?);
    }
    Ok(())
}

/// Whether a peer that says this of itself may talk to us; in words for both logs if not.
fn judge(mine: &Hello, theirs: &Hello) -> Result<(), String> {
    if theirs.version != wire::WIRE_VERSION {
        return Err(format!(
            "peer protocol version {} is not known here ({}); upgrade one of the two",
            theirs.version,
            wire::WIRE_VERSION
        ));
    }
    if theirs.to != mine.from {
        return Err(format!("this is node {}, not {}", mine.from, theirs.to));
    }
    if theirs.from == mine.from {
        return Err(format!(
            "node id {} is mine; ids are unique in a cluster",
            mine.from
        ));
    }
    if theirs.cluster_name != mine.cluster_name {
        return Err(format!(
            "cluster name {:?} is not {:?}; check `cluster` in the settings",
            theirs.cluster_name, mine.cluster_name
        ));
    }
    if theirs.cluster != mine.cluster {
        return Err(format!(
            "cluster id {} is not {}: another cluster of the same name; check `peers`",
            theirs.cluster, mine.cluster
        ));
    }
    Ok(())
}
