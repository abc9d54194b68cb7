//! Every bound in the system, and the relations between them that the compiler proves.
//!
//! A queue, batch, frame, count or size that can grow is named here. What an operator may change
//! is a setting (`config.rs`), bounded by these; what is here is the same on every node, because
//! nodes must accept what others send.

use std::time::Duration;

use standfast_wal::record::{HEADER_BYTES, PAYLOAD_MAX, record_bytes};

const KIB: usize = 1 << 10;
const MIB: usize = 1 << 20;

// --- What a client may send -------------------------------------------------------------------

/// One argument of a command: the most that `max_bulk` may be set to, and its default.
pub const BULK_BYTES_MAX: usize = 16 * MIB;
/// All arguments of one command together, and all commands of one MULTI together: the most that
/// `max_request` may be set to, and its default.
pub const REQUEST_BYTES_MAX: usize = 20 * MIB;
/// Arguments of one command, and of all commands of one MULTI together.
pub const ARGUMENTS_MAX: usize = 512 * KIB;
/// What encoding an argument may add to its bytes in a record (length, tag, options).
pub const ARGUMENT_OVERHEAD_BYTES: usize = 16;
/// What encoding a command may add besides (its own length, name, fixed options, ONCE's token).
pub const COMMAND_OVERHEAD_BYTES: usize = 1024;
/// Commands of one MULTI.
pub const MULTI_COMMANDS_MAX: usize = 64 * KIB;
/// Events of one batch for the ledger, ids of one look-up, and items of one page of an answer: what
/// clients of the published data model expect.
pub const LEDGER_EVENTS_MAX: usize = 8189;
/// Keys that one connection watches at a time.
pub const WATCHES_MAX: usize = 64 * KIB;
/// An inline command: one line, as Redis has it.
pub const INLINE_BYTES_MAX: usize = 64 * KIB;
/// The token of ONCE.
pub const ONCE_TOKEN_BYTES_MAX: usize = 256;
/// A client's own name for its connection (CLIENT SETNAME, SETINFO).
pub const CLIENT_NAME_BYTES_MAX: usize = 256;
/// Unanswered requests of one session; reading from its socket pauses beyond this.
pub const SESSION_REQUESTS_MAX: usize = 16 * KIB;
/// Unread bytes buffered for one session on top of the request being assembled.
pub const SESSION_READ_BYTES: usize = 64 * KIB;
/// One HTTP request with its headers; there are no bodies.
pub const HTTP_REQUEST_BYTES_MAX: usize = 16 * KIB;
/// Entries that SLOWLOG keeps.
pub const SLOWLOG_ENTRIES_MAX: usize = 128;

// --- The engine and the log -------------------------------------------------------------------

/// A record takes no further command once its payload has this many bytes.
pub const BATCH_BYTES: usize = MIB;
/// Commands of one record.
pub const BATCH_COMMANDS_MAX: usize = 32 * KIB;
/// Bytes of log that are handed to the writer thread and not yet durable; ordering pauses beyond.
pub const WRITER_QUEUE_BYTES_MAX: usize = 64 * MIB;
/// Bytes of ordered commands that are not yet committed; ordering pauses beyond.
pub const UNCOMMITTED_BYTES_MAX: usize = 128 * MIB;
/// Bytes of disk that only records other than `Commands` may use.
pub const WAL_RESERVE_BYTES: usize = MIB;
/// The least a WAL segment may be set to.
pub const WAL_SEGMENT_BYTES_MIN: usize = MIB;
/// What a WAL segment holds besides records: its file header.
pub const WAL_SEGMENT_HEADER_BYTES: usize = 4 * KIB;
/// The node's meta file: identity, fence, register.
pub const META_BYTES_MAX: usize = MIB;
/// Expired keys and tokens that one Tick removes: the same on every node, or states differ.
pub const TICK_SWEEP_MAX: usize = 4096;
/// Hash slots, as in Redis Cluster.
pub const SLOTS: usize = 16384;
/// Bytes of state, before compression, in one snapshot block; a block ends behind the key that
/// passes it.
pub const SNAPSHOT_BLOCK_BYTES: usize = 256 * KIB;

// --- Between nodes ----------------------------------------------------------------------------

/// A frame's fixed part: length, checksum, length of the message.
pub const FRAME_HEADER_BYTES: usize = 12;
/// The message of a frame without its record bytes.
pub const FRAME_HEAD_BYTES_MAX: usize = MIB;
/// A whole frame: what one decoder will take memory for.
pub const FRAME_BYTES_MAX: usize = 40 * MIB;
/// Record bytes that one Append or one read of the log asks for; one record may be larger.
pub const APPEND_BYTES: usize = 4 * MIB;
/// Records of the newest log kept in memory for sending; older ones are read from disk.
pub const TAIL_BYTES_MAX: usize = 40 * MIB;
/// Bytes waiting on one link; a peer that lets more pile up is cut off and catches up from the log.
pub const LINK_QUEUE_BYTES_MAX: usize = 96 * MIB;
/// Appends under way to one backup whose answer has not come.
pub const APPENDS_IN_FLIGHT_MAX: usize = 256;
/// One piece of a snapshot that is streamed to a peer.
pub const SNAPSHOT_PIECE_BYTES: usize = 256 * KIB;
/// Segments of a snapshot that its receiver says it has; those beyond are sent again.
pub const SEGMENTS_NAMED_MAX: usize = 16 * KIB;
/// Commands forwarded to the successor while a switchover is under way.
pub const FORWARDED_MAX: usize = 64 * KIB;

/// zstd level of what is sent to another site.
pub const LINK_COMPRESSION_LEVEL: i32 = 1;
/// Frames that one write to a peer gathers.
pub const LINK_BATCH_FRAMES: usize = 256;
/// Snapshot pieces queued for one peer; reading the file pauses beyond.
pub const BULK_QUEUE_FRAMES: usize = 4;
/// Buffers of one vectored write (the kernel's own bound).
pub const IOV_MAX: usize = 1024;
/// What one read from a peer asks for.
pub const LINK_READ_BYTES: usize = 256 * KIB;
/// How long a peer may take to accept a connection and to greet.
pub const DIAL_TIMEOUT: Duration = Duration::from_secs(1);
/// The pause after a failed attempt to reach a peer: the first, and where doubling ends.
pub const DIAL_PAUSE_MIN: Duration = Duration::from_millis(10);
pub const DIAL_PAUSE_MAX: Duration = Duration::from_millis(200);
/// Processes remembered as replaced by a later one of the same data directory.
pub const REPLACED_PROCESSES_MAX: usize = 64;

// --- The engine's turn ------------------------------------------------------------------------

/// Events, and calls, of one turn.
pub const TURN_EVENTS_MAX: usize = 1024;
/// A turn is taken at least so often.
pub const TURN_INTERVAL_MAX: Duration = Duration::from_millis(100);
/// Record bytes applied in one turn.
pub const APPLY_BYTES_PER_TURN: usize = 2 * MIB;
/// Records taken from memory at a time while applying.
pub const APPLY_RECORDS_AT_ONCE: usize = 64;
/// The view is shown at least so often.
pub const VIEW_INTERVAL: Duration = Duration::from_millis(100);
/// The core is told the wall clock so often.
pub const WALL_CLOCK_INTERVAL: Duration = Duration::from_secs(1);
/// A block that the allocator takes from the system, not from what it keeps of small ones.
pub const LARGE_BLOCK_BYTES: usize = 32 * MIB;
/// The priority of what can wait, as in nice(1): it yields to everybody else, and still comes to an
/// end where a node takes all it can get.
pub const BEHIND_NICE: i32 = 10;
/// Behind each segment that a snapshot writes it rests for as long as that took, and no longer than
/// this: a slow disk is kept busy.
pub const SEGMENT_REST_MAX: Duration = Duration::from_millis(100);
/// The disk's size is looked at so often.
pub const DISK_LOOK_INTERVAL: Duration = Duration::from_secs(1);
/// The pause between two files that the scrubber reads again: a segment each, at a low rate.
pub const SCRUB_PAUSE: Duration = Duration::from_secs(10);
/// Ticks are at least so far apart, in nanoseconds.
pub const TICK_MIN_NS: u64 = 1_000_000;
/// Sessions whose newest write is remembered before applied ones are forgotten.
pub const SESSIONS_REMEMBERED: usize = 4096;
/// Digests after the newest records, kept for the attestations to come.
pub const DIGESTS_KEPT: usize = 64 * KIB;
/// Replies of the newest commands, kept for OUTCOME, and the largest that is.
pub const OUTCOMES_MAX: usize = 64 * KIB;
pub const OUTCOME_BYTES_MAX: usize = 256;
/// Lines of the event list.
pub const EVENTS_KEPT: usize = 256;
/// The longest that WAIT and WAITLSN wait.
pub const WAIT_MAX: Duration = Duration::from_secs(3600);
/// How long a former primary passes commands on after a switchover.
pub const FORWARD_FOR: Duration = Duration::from_secs(5);
/// How long a stopping primary waits for its successor.
pub const SHUTDOWN_FOR: Duration = Duration::from_secs(5);
/// Snapshot blocks copied in one turn, and the pause between turns that copy.
pub const SNAPSHOT_BLOCKS_PER_TURN: usize = 4;
pub const SNAPSHOT_POLL: Duration = Duration::from_millis(1);
/// Log that is kept beyond `wal_keep` for a member that is being sent a snapshot.
pub const OFFERED_LOG_BYTES: u64 = 1 << 30;
/// How long a node waits after a snapshot that could not be written before it tries again.
pub const SNAPSHOT_RETRY: Duration = Duration::from_secs(5);
/// Nodes tell each other of the archive so often.
pub const ARCHIVE_TELL_INTERVAL: Duration = Duration::from_millis(500);
/// How long a node goes on archiving without being told to, and is chosen without being heard.
pub const ARCHIVE_DUTY_FOR: Duration = Duration::from_secs(3);
/// Rounds that fail for so long call for another node, which is left alone as long as the other.
pub const ARCHIVE_FAILING_AFTER: Duration = Duration::from_secs(10);
pub const ARCHIVE_FAILED_FOR: Duration = Duration::from_secs(30);
/// The pause after a round that failed; doubles with each in a row.
pub const ARCHIVE_RETRY_MIN: Duration = Duration::from_millis(250);
pub const ARCHIVE_RETRY_MAX: Duration = Duration::from_secs(5);
/// Snapshots that the archiver asks for, and tries to put, are at least so far apart.
pub const ARCHIVE_SNAPSHOT_INTERVAL: Duration = Duration::from_secs(10);
/// How often the names in the archive are looked through: is what was shipped still there?
pub const ARCHIVE_LOOK_INTERVAL: Duration = Duration::from_secs(15);
/// A proof of the archive that broke off is not tried again sooner, nor is one after another.
pub const ARCHIVE_VERIFY_RETRY: Duration = Duration::from_secs(60);
/// A proof of the archive, or a drill, that is dated further ahead was dated by a wrong clock.
pub const ARCHIVE_DATED_AHEAD: Duration = Duration::from_secs(60);
/// A restore drill that could not be done is not tried again sooner, nor is one after another.
pub const DRILL_RETRY: Duration = Duration::from_secs(60);
/// An archive that is so far behind is an alarm, or ten intervals if they are longer.
pub const ARCHIVE_ALARM_AFTER: Duration = Duration::from_secs(10);
/// A backup whose state may be older does not archive where another node can.
pub const ARCHIVE_BEHIND_MAX: Duration = Duration::from_secs(5);
/// Log that the archive lacks is kept while so much of the disk is free.
pub const ARCHIVE_FREE_PERCENT: u64 = 20;
/// A snapshot by time needs at least so many new commands.
pub const SNAPSHOT_LSNS_MIN: u64 = 1000;

// --- The cluster ------------------------------------------------------------------------------

/// Voters once a change is complete: 1, 3 or 5; one more while it is under way.
pub const VOTERS_MAX: usize = 5;
/// All members.
pub const MEMBERS_MAX: usize = 32;
/// The largest node id.
pub const NODE_ID_MAX: u32 = 65_535;
/// The name of a cluster or a site.
pub const NAME_BYTES_MAX: usize = 64;
/// An address as `host:port`.
pub const ADDRESS_BYTES_MAX: usize = 262;
/// Who did something and why, in an operator's record.
pub const REASON_BYTES_MAX: usize = 1024;

// --- How they hang together -------------------------------------------------------------------

/// The largest payload that one command can make: it travels alone if need be.
pub const COMMAND_BYTES_MAX: usize =
    REQUEST_BYTES_MAX + ARGUMENTS_MAX * ARGUMENT_OVERHEAD_BYTES + COMMAND_OVERHEAD_BYTES;

const _: () = assert!(
    BATCH_BYTES + COMMAND_BYTES_MAX <= PAYLOAD_MAX,
    "a batch that is just not full takes one more command of the largest size"
);
const _: () = assert!(
    BULK_BYTES_MAX < REQUEST_BYTES_MAX,
    "a command with one argument of the largest size fits in a request"
);
const _: () = assert!(
    FRAME_HEADER_BYTES + FRAME_HEAD_BYTES_MAX + record_bytes(PAYLOAD_MAX) <= FRAME_BYTES_MAX,
    "a frame carries the largest record"
);
const _: () = assert!(
    FRAME_HEADER_BYTES + FRAME_HEAD_BYTES_MAX + APPEND_BYTES + record_bytes(PAYLOAD_MAX)
        <= FRAME_BYTES_MAX,
    "an Append that is just not full takes one more record of the largest size"
);
const _: () = assert!(
    SNAPSHOT_PIECE_BYTES + FRAME_HEAD_BYTES_MAX < FRAME_BYTES_MAX,
    "a frame carries a piece of a snapshot"
);
const _: () = assert!(
    FRAME_BYTES_MAX * 2 <= LINK_QUEUE_BYTES_MAX,
    "the largest frame never cuts a link off by itself"
);
const _: () = assert!(
    record_bytes(PAYLOAD_MAX) <= WRITER_QUEUE_BYTES_MAX
        && WRITER_QUEUE_BYTES_MAX <= UNCOMMITTED_BYTES_MAX,
    "the largest record can always be written, and what is being written may be uncommitted"
);
const _: () = assert!(
    record_bytes(PAYLOAD_MAX) <= TAIL_BYTES_MAX,
    "the newest record is always in memory"
);
const _: () = assert!(
    META_BYTES_MAX <= FRAME_HEAD_BYTES_MAX,
    "a register that fits in the meta file fits in a message"
);
const _: () = assert!(
    MEMBERS_MAX * (3 * ADDRESS_BYTES_MAX + NAME_BYTES_MAX + 128) * 4 <= META_BYTES_MAX,
    "the meta file holds several Configs of the largest size"
);
const _: () = assert!(VOTERS_MAX % 2 == 1 && VOTERS_MAX <= MEMBERS_MAX);
const _: () = assert!(
    WAL_SEGMENT_HEADER_BYTES + HEADER_BYTES + WAL_RESERVE_BYTES / 2 < WAL_SEGMENT_BYTES_MIN,
    "the smallest segment holds records"
);
