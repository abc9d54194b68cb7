//! Connections to peers: each node dials every other one and sends only on what it dialled.
//!
//! Owns the sockets, one task per direction. Frames leave in the order they were queued; what was
//! queued for a connection that broke is dropped, for the protocol repairs itself from what the
//! peer says it has. Nothing here decides anything.

mod far;
mod incoming;

pub use far::{Manner, Packer, Unpacker};
pub use incoming::accept;

use crate::limits;
use crate::node::wire::{self, Frame, Head, Hello, WireError};
use bytes::Bytes;
use far::Pace;
use standfast_wal::{Incarnation, NodeId};
use std::collections::{BTreeMap, VecDeque};
use std::io::{ErrorKind, IoSlice};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::sync::{mpsc, watch};

/// What the engine hears from the links.
#[derive(Debug)]
pub enum LinkEvent {
    /// The outgoing connection to `peer` stands; it is this life of it.
    Up {
        peer: NodeId,
        hello: Box<Hello>,
    },
    Down {
        peer: NodeId,
    },
    /// The peer's port refuses: its process is dead.
    Refused {
        peer: NodeId,
    },
    Frame {
        from: NodeId,
        incarnation: Incarnation,
        frame: Frame,
    },
}

/// Takes what the links tell; must not block.
pub type Sink = Arc<dyn Fn(LinkEvent) + Send + Sync>;

/// The outgoing side of every link of this node.
pub struct Links {
    me: watch::Sender<Hello>,
    sink: Sink,
    peers: BTreeMap<NodeId, Outgoing>,
    far: Manner,
}

/// A peer, as the Config has it.
#[derive(Clone, PartialEq, Eq, Debug)]
pub struct Peering {
    pub address: String,
    /// At another site.
    pub is_far: bool,
    /// Nothing waits for it now.
    pub is_spare: bool,
}

impl Peering {
    /// One of whom nothing is known but its address.
    pub fn near(address: &str) -> Peering {
        Peering {
            address: address.to_string(),
            is_far: false,
            is_spare: false,
        }
    }

    /// Bytes a second. A limit slows nobody whom anything waits for.
    fn limit(&self, far: Manner) -> Option<u64> {
        far.limit.filter(|_| self.is_far && self.is_spare)
    }

    fn is_same_way(&self, other: &Peering) -> bool {
        (&self.address, self.is_far) == (&other.address, other.is_far)
    }
}

struct Outgoing {
    peering: Peering,
    frames: mpsc::UnboundedSender<Frame>,
    queued: Arc<AtomicUsize>,
    /// Changes with every frame that its queue had no room for.
    overflow: watch::Sender<u64>,
    limit: watch::Sender<Option<u64>>,
    bulk: mpsc::Sender<Frame>,
    task: tokio::task::JoinHandle<()>,
}

impl Links {
    /// `me` is sent as this node's Hello with `to` filled in; `far` is how to write to other
    /// sites; `sink` must not block.
    pub fn new(me: Hello, far: Manner, sink: Sink) -> Links {
        Links {
            me: watch::Sender::new(me),
            sink,
            peers: BTreeMap::new(),
            far,
        }
    }

    /// Whom to keep connected; links to others are closed, those that lead elsewhere dialled anew.
    pub fn set_peers(&mut self, peers: &BTreeMap<NodeId, Peering>) {
        self.peers.retain(|id, link| {
            let keep = peers
                .get(id)
                .is_some_and(|to| to.is_same_way(&link.peering));
            if !keep {
                link.task.abort();
            }
            keep
        });
        for (id, peering) in peers {
            let limit = peering.limit(self.far);
            if let Some(link) = self.peers.get(id) {
                link.limit.send_replace(limit);
            } else {
                let manner = Manner {
                    is_packed: self.far.is_packed && peering.is_far,
                    limit,
                };
                let me = self.me.subscribe();
                let link = Outgoing::start(*id, peering.clone(), manner, me, &self.sink);
                self.peers.insert(*id, link);
            }
        }
    }

    /// A view of this node's Hello for the accepting side.
    pub fn hello(&self) -> watch::Receiver<Hello> {
        self.me.subscribe()
    }

    /// Queues a frame; drops it when the peer is not known or its queue is full. A full queue
    /// means a peer that reads nothing: the connection ends, since on one that stands nothing may
    /// be missing between two frames.
    pub fn send(&self, to: NodeId, frame: Frame) {
        let Some(link) = self.peers.get(&to) else {
            return;
        };
        let size: usize = frame
            .records
            .iter()
            .map(|record| record.bytes().len())
            .sum();
        if link.queued.load(Ordering::Relaxed) > limits::LINK_QUEUE_BYTES_MAX {
            return link.overflow.send_modify(|lost| *lost += 1);
        }
        link.queued
            .fetch_add(size + wire::HEADER_BYTES, Ordering::Relaxed);
        // The receiver lives as long as the task, which is only aborted with the entry.
        let _ = link.frames.send(frame);
    }

    /// A queue with back-pressure for snapshot pieces; they yield to all other frames.
    pub fn bulk(&self, to: NodeId) -> Option<mpsc::Sender<Frame>> {
        self.peers.get(&to).map(|link| link.bulk.clone())
    }
}

impl Outgoing {
    fn start(
        peer: NodeId,
        peering: Peering,
        manner: Manner,
        me: watch::Receiver<Hello>,
        sink: &Sink,
    ) -> Outgoing {
        let (frames, frames_out) = mpsc::unbounded_channel();
        let (bulk, bulk_out) = mpsc::channel(limits::BULK_QUEUE_FRAMES);
        let queued = Arc::new(AtomicUsize::new(0));
        let overflow = watch::Sender::new(0);
        let limit = watch::Sender::new(manner.limit);
        let dialler = Dialler {
            peer,
            address: peering.address.clone(),
            is_packed: manner.is_packed,
            limit: limit.subscribe(),
            me,
            sink: sink.clone(),
            frames: frames_out,
            bulk: bulk_out,
            queued: queued.clone(),
            overflow: overflow.subscribe(),
        };
        let task = tokio::spawn(dialler.run());
        Outgoing {
            peering,
            frames,
            queued,
            overflow,
            limit,
            bulk,
            task,
        }
    }
}

struct Dialler {
    peer: NodeId,
    address: String,
    is_packed: bool,
    limit: watch::Receiver<Option<u64>>,
    me: watch::Receiver<Hello>,
    sink: Sink,
    frames: mpsc::UnboundedReceiver<Frame>,
    bulk: mpsc::Receiver<Frame>,
    queued: Arc<AtomicUsize>,
    overflow: watch::Receiver<u64>,
}

impl Dialler {
    async fn run(mut self) {
        let mut pause = limits::DIAL_PAUSE_MIN;
        let mut complaint = String::new();
        loop {
            match self.connect().await {
                Ok((stream, hello)) => {
                    tracing::info!(peer = %self.peer, address = %self.address, "link up");
                    pause = limits::DIAL_PAUSE_MIN;
                    complaint.clear();
                    self.discard_queued();
                    self.overflow.mark_unchanged();
                    (self.sink)(LinkEvent::Up {
                        peer: self.peer,
                        hello: Box::new(hello),
                    });
                    let error = self.pump(stream).await;
                    tracing::info!(peer = %self.peer, %error, "link down");
                    (self.sink)(LinkEvent::Down { peer: self.peer });
                    continue;
                }
                Err(error) => {
                    if error.is_refusal() {
                        (self.sink)(LinkEvent::Refused { peer: self.peer });
                    }
                    if complaint != error.to_string() {
                        complaint = error.to_string();
                        tracing::warn!(peer = %self.peer, address = %self.address, %error, "no link");
                    }
                }
            }
            tokio::time::sleep(pause).await;
            pause = (pause * 2).min(limits::DIAL_PAUSE_MAX);
            self.discard_queued();
        }
    }

    fn discard_queued(&mut self) {
        while self.frames.try_recv().is_ok() {}
        while self.bulk.try_recv().is_ok() {}
        self.queued.store(0, Ordering::Relaxed);
    }

    async fn connect(&mut self) -> Result<(TcpStream, Hello), WireError> {
        let timed_out = || WireError::Io(ErrorKind::TimedOut.into());
        let dial = TcpStream::connect(&self.address);
        let mut stream = tokio::time::timeout(limits::DIAL_TIMEOUT, dial)
            .await
            .map_err(|_| timed_out())??;
        stream.set_nodelay(true)?;
        let hello = Hello {
            to: self.peer,
            is_packed: self.is_packed,
            ..self.me.borrow().clone()
        };
        write_frame(&mut stream, Head::Hello(hello)).await?;
        let answer = tokio::time::timeout(limits::DIAL_TIMEOUT, read_head(&mut stream))
            .await
            .map_err(|_| timed_out())??;
        match answer {
            Head::Hello(hello) if hello.from == self.peer => Ok((stream, hello)),
            Head::Hello(hello) => Err(other(format!("node {} answered there", hello.from))),
            Head::Refused(why) => Err(other(format!("refused: {why}"))),
            _ => Err(other("no Hello came back".to_owned())),
        }
    }

    /// Writes what is queued until the connection breaks; returns why.
    async fn pump(&mut self, mut stream: TcpStream) -> std::io::Error {
        let (mut reader, writer) = stream.split();
        let mut writer = match Writer::new(writer, self.is_packed, self.limit.clone()) {
            Ok(writer) => writer,
            Err(error) => return error,
        };
        let mut buffers = Vec::new();
        let mut batch = Vec::new();
        let mut byte = [0u8; 1];
        loop {
            let bulk_frame = tokio::select! {
                biased;
                n = self.frames.recv_many(&mut batch, limits::LINK_BATCH_FRAMES) => {
                    if n == 0 {
                        return ErrorKind::ConnectionAborted.into();
                    }
                    None
                }
                Some(frame) = self.bulk.recv() => Some(frame),
                read = reader.read(&mut byte) => {
                    // Nothing is ever sent this way: any result ends the connection.
                    return read.err().unwrap_or_else(|| ErrorKind::UnexpectedEof.into());
                }
            };
            let mut size = 0;
            for frame in batch.drain(..) {
                let body: usize = frame
                    .records
                    .iter()
                    .map(|record| record.bytes().len())
                    .sum();
                size += body + wire::HEADER_BYTES;
                wire::encode(&frame, &mut buffers);
            }
            if let Some(frame) = bulk_frame {
                wire::encode(&frame, &mut buffers);
            }
            tokio::select! {
                written = writer.write(&mut buffers) => {
                    if let Err(error) = written {
                        return error;
                    }
                }
                _ = self.overflow.changed() => {
                    return std::io::Error::other("the peer does not read what it is sent");
                }
            }
            let _ = self
                .queued
                .fetch_update(Ordering::Relaxed, Ordering::Relaxed, |queued| {
                    Some(queued.saturating_sub(size))
                });
        }
    }
}

/// The sending half of a connection, behind the Hello.
struct Writer<W> {
    to: W,
    packer: Option<Packer>,
    pace: Pace,
}

impl<W: AsyncWriteExt + Unpin> Writer<W> {
    fn new(
        to: W,
        is_packed: bool,
        limit: watch::Receiver<Option<u64>>,
    ) -> std::io::Result<Writer<W>> {
        Ok(Writer {
            to,
            packer: is_packed.then(Packer::new).transpose()?,
            pace: Pace::new(limit),
        })
    }

    /// Writes all buffers, and empties the list.
    async fn write(&mut self, buffers: &mut Vec<Bytes>) -> std::io::Result<()> {
        if let Some(packer) = &mut self.packer {
            packer.pack(buffers)?;
        }
        if !self.pace.is_limited() {
            return write_all(&mut self.to, buffers).await;
        }
        for bytes in buffers.drain(..) {
            self.pace.write_all(&mut self.to, &bytes).await?;
        }
        Ok(())
    }
}

fn other(text: String) -> WireError {
    WireError::Io(std::io::Error::other(text))
}

/// Writes all buffers with as few calls as the kernel allows, and empties the list.
async fn write_all(
    writer: &mut (impl AsyncWriteExt + Unpin),
    buffers: &mut Vec<Bytes>,
) -> std::io::Result<()> {
    let mut left: VecDeque<Bytes> = buffers.drain(..).collect();
    while !left.is_empty() {
        let slices: Vec<IoSlice<'_>> = left
            .iter()
            .take(limits::IOV_MAX)
            .map(|bytes| IoSlice::new(bytes))
            .collect();
        let mut written = writer.write_vectored(&slices).await?;
        if written == 0 {
            return Err(ErrorKind::WriteZero.into());
        }
        while let Some(front) = left.front_mut() {
            if written < front.len() {
                let _ = front.split_to(written);
                break;
            }
            written -= front.len();
            left.pop_front();
        }
    }
    Ok(())
}

async fn write_frame(stream: &mut TcpStream, head: Head) -> Result<(), WireError> {
    let mut buffers = Vec::new();
    wire::encode(&Frame::plain(head), &mut buffers);
    Ok(write_all(stream, &mut buffers).await?)
}

async fn read_head(stream: &mut TcpStream) -> Result<Head, WireError> {
    let mut buffer = bytes::BytesMut::new();
    loop {
        if let Some(frame) = wire::decode(&mut buffer)? {
            return Ok(frame.head);
        }
        if stream.read_buf(&mut buffer).await? == 0 {
            return Err(WireError::Io(ErrorKind::UnexpectedEof.into()));
        }
    }
}
