//! Every bound, once, with its unit in the name and its reason beside it.
//!
//! What users may set is [`Limits`], with its values in `config`; the others hold whatever they set, and
//! the relations between them are checked when the crate is compiled.

use std::time::Duration;

/// Bounds that users may set, and that protect the node; sizes are in bytes.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Larger payloads are refused.
    pub payload_max: usize,
    /// Connections per port.
    pub connections_max: usize,
    /// Bytes accepted and not yet in the master's log.
    pub inflight_max: usize,
    /// Appends waiting, per connection.
    pub waiting_max: usize,
    /// Output that a client has not taken, per connection.
    pub output_max: usize,
    /// A client that takes no output for so long is closed.
    pub write_timeout: Duration,
}

/// Most nodes in a roster, the master included: a `NodeSet` is one `u128`, and every frame to a
/// secondary carries one level per node.
pub const NODES_MAX: usize = 128;

/// Largest payload that can be configured (`limits.payload_max`).
pub const PAYLOAD_BYTES_MAX: usize = 16 << 20;

/// Head of a record: fixed, see `store::record`.
pub const RECORD_HEADER_BYTES: usize = 48;

/// What a record can need besides header and payload: the producer's id and number.
pub const RECORD_PRODUCER_BYTES_MAX: usize = 1 + 64 + 8;

/// Longest run of records in one APPEND or ENTRIES frame, unless a single record is longer.
///
/// A heartbeat waits for at most one such frame: 256 KiB take 0.3 ms at 1 GB/s and 20 ms on a
/// 100 Mbit line, far below the shortest heartbeat interval of 50 ms.
pub const RUN_BYTES_MAX: usize = 256 << 10;

/// Most records in one frame, so that the tables made per frame stay small.
pub const RUN_ENTRIES_MAX: usize = 8192;

/// Largest body of a frame between introduced peers: the largest record and its head.
pub const FRAME_BODY_BYTES_MAX: usize = PAYLOAD_BYTES_MAX + (64 << 10);

/// Largest body of a frame before the peer has introduced itself.
pub const FRAME_BODY_BYTES_MAX_UNINTRODUCED: usize = 8 << 10;

/// Smallest `frame_bytes_max` that is kept for a client; one that says less is sent bodies up to this
/// all the same, so that every answer but entries fits.
pub const CLIENT_FRAME_BYTES_MIN: usize = FRAME_BODY_BYTES_MAX_UNINTRODUCED;

/// Longest name of a client.
pub const CLIENT_NAME_BYTES_MAX: usize = 64;

/// Longest address in a HELLO.
pub const ADDRESS_BYTES_MAX: usize = 255;

/// How long a peer may take to introduce itself.
pub const INTRODUCTION_TIMEOUT: Duration = Duration::from_secs(5);

/// Connecting to a name: the next address is tried when the one before has had so long (what RFC
/// 8305 recommends), or has failed. Less where the time allowed is short for all of them.
pub const NEXT_ADDRESS_AFTER: Duration = Duration::from_millis(250);

/// A client with several servers goes to the next one when the one before has had so long to
/// introduce itself: more than any healthy one needs, and little to lose to a frozen one.
pub const NEXT_SERVER_AFTER: Duration = Duration::from_secs(1);

/// Of the time for an introduction, what is kept to find out who is silent there.
pub const NUDGE_PATIENCE: Duration = Duration::from_millis(500);

/// The kernel asks on a connection that was idle for so long, and again so much later, so many
/// times: a peer whose machine is gone is noticed though nobody sends anything. Where the kernel
/// counts time and not questions, it is cut after [`CLIENT_DEAD_AFTER`], or what a node allows.
pub const KEEPALIVE_TIME: Duration = Duration::from_secs(10);
/// See [`KEEPALIVE_TIME`].
pub const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(5);
/// See [`KEEPALIVE_TIME`].
pub const KEEPALIVE_PROBES: u32 = 3;

/// A client's connection whose bytes the node's machine does not acknowledge for so long is cut by
/// the kernel. It is the last resort, for an append without a timeout: everything else ends after
/// [`SILENT_AFTER`].
pub const CLIENT_DEAD_AFTER: Duration = Duration::from_secs(60);

/// A client that waits for an answer calls a node silent when no frame came for so long, though it
/// was asked with a PING. A process that is frozen keeps its connection, so that nothing else tells.
pub const SILENT_AFTER: Duration = Duration::from_secs(5);

/// What may be set between these two: see `ConnectOptions::silent_after`. Shorter, and a busy machine
/// is called silent; the longer is for ever, in a form that can be added to a moment.
pub const SILENT_AFTER_MIN: Duration = Duration::from_millis(100);
/// See [`SILENT_AFTER_MIN`]; also the longest time for connecting.
pub const CLIENT_PATIENCE_MAX: Duration = Duration::from_secs(365 * 24 * 3600);

/// A node has answered an append or a wait so long after the timeout it was given, or the client
/// calls its outcome unknown: enough for the way there and back and for a busy machine.
pub const ANSWER_MARGIN: Duration = Duration::from_secs(2);

/// Entry bytes on their way to one secondary and not yet acknowledged.
///
/// 16 MiB cover 1 GB/s at a round trip of 16 ms; it is also the most that a secondary holds back.
/// A single larger record may exceed it alone.
pub const WINDOW_BYTES_MAX: usize = 16 << 20;

/// APPEND frames on their way to one secondary; bounds the list of them beside their bytes.
pub const WINDOW_FRAMES_MAX: usize = 1024;

/// Frames waiting in the queue to the writer of one replication connection, control frames aside.
/// Small: a frame not yet handed over can still be chosen better.
pub const LINK_FRAMES_MAX: usize = 16;

/// Most ranges of early entries listed in one ACK; more are held all the same and listed later.
pub const ACK_RANGES_MAX: usize = 64;

/// Rows of the epoch table in a HELLO: the newest. Bounded so that a HELLO fits into the frame that
/// is taken before an introduction.
pub const EPOCH_TABLE_ROWS_MAX: usize = 128;

/// Bytes that a secondary holds back because an earlier entry is missing.
pub const HOLD_BACK_BYTES_MAX: usize = WINDOW_BYTES_MAX + FRAME_BODY_BYTES_MAX;

/// Runs that a secondary holds back: as many as a master has frames under way.
pub const HOLD_BACK_RUNS_MAX: usize = WINDOW_FRAMES_MAX;

/// Connections of masters at one secondary: the one it follows, and some that only ask. When one
/// more comes, the one that has asked for longest goes.
pub const MASTER_LINKS_MAX: usize = 16;

/// Entries handed to a secondary by `STORE` and not yet replaced by the master's: number and bytes.
pub const PROVISIONAL_ENTRIES_MAX: usize = 4096;
/// See [`PROVISIONAL_ENTRIES_MAX`].
pub const PROVISIONAL_BYTES_MAX: usize = 16 << 20;

/// Frames kept by the fault verb DELAY at one time; beyond it the connection is not read.
pub const DELAYED_FRAMES_MAX: usize = 4096;

/// What a gateway line may be longer than the largest payload: verb and options.
pub const GATEWAY_LINE_EXTRA_BYTES: usize = 4 << 10;

/// So much of a line or frame may be there without its end, for as long as its sender likes: what is
/// typed by hand.
pub const UNFINISHED_FREE_BYTES: usize = 16 << 10;

/// Lines and frames that have begun and not ended, of all clients of a node together: as long as they
/// will be at most. Whoever finds no room is not read on until there is.
///
/// With 1,024 clients on each of two ports, each with as much as one read brings, strangers cost
/// 2 × 1,024 × 64 KiB + 32 MiB = 160 MiB, whatever `payload_max` is.
pub const UNFINISHED_BYTES_MAX: usize = 32 << 20;

/// While others wait for room, whoever has some must send as fast as below after so long.
pub const UNFINISHED_GRACE: Duration = Duration::from_secs(1);

/// What has room must be whole within `limits.write_timeout` and, beside it, as long as it takes at
/// this rate: half a megabit per second.
pub const UNFINISHED_BYTES_PER_SECOND: usize = 64 << 10;

/// Bytes read from a socket at a time.
pub const READ_CHUNK_BYTES: usize = 64 << 10;

/// Output made ahead for a reader before the socket has taken what is there.
pub const OUTPUT_CHUNK_BYTES: usize = 64 << 10;

/// Messages waiting for a driver. Each stands for a whole batch.
pub const DRIVER_QUEUE_MAX: usize = 1024;

/// Reads and tails under way on one client connection.
pub const STREAMS_PER_CONNECTION_MAX: usize = 16;

/// Commands under way on one client connection.
pub const COMMANDS_PER_CONNECTION_MAX: usize = 64;

/// A stop is carried out within this time, whatever the peers do.
pub const STOP_TIMEOUT: Duration = Duration::from_secs(4);

/// How long a starting master waits for the whole roster before a quorum is enough.
pub const ROSTER_WAIT: Duration = Duration::from_secs(2);

/// Connections on one port, beyond the places of clients, that have not said who they are. A node says
/// it within a round trip; when one more comes, the one that has been silent for longest goes.
pub const STRANGERS_MAX: usize = 64;

/// Connections on one port that are being told, for a second at most, that there is no place. Those
/// beyond are just closed.
pub const TURNED_AWAY_MAX: usize = 64;

/// Operators on one port who find a place when all those of clients are taken, to see what is going
/// on. When one more comes, the one who came first goes.
pub const OPERATORS_MAX: usize = 4;

/// How long a connection to the text gateway for which there is no client's place is waited for to
/// ask for something that operators may ask for.
pub const OPERATOR_TIMEOUT: Duration = Duration::from_secs(1);

/// Log lines that wait for stderr, or for the log file, each. More are dropped and counted: about five
/// thousand lines, far more than a node writes while a disk or a terminal is slow.
pub const LOG_QUEUE_BYTES_MAX: usize = 1 << 20;

/// So much more of lines that must not be missed: errors, the ready line, and that lines are missing.
pub const LOG_QUEUE_RESERVE_BYTES: usize = 64 << 10;

/// At its end a process waits so long for its last log lines to be taken. With [`STOP_TIMEOUT`] it is
/// below the five seconds in which a node stops.
pub const LOG_FLUSH_TIMEOUT: Duration = Duration::from_millis(500);

/// A start waits so long for the log file to be opened; after that it is opened beside the running node.
pub const LOG_OPEN_TIMEOUT: Duration = Duration::from_secs(1);

/// Clients that are cut because they do not take their output get so many log lines in
/// [`CUT_LINES_INTERVAL`], however many they are.
pub const CUT_LINES_MAX: u32 = 10;
/// See [`CUT_LINES_MAX`].
pub const CUT_LINES_INTERVAL: Duration = Duration::from_secs(10);

/// Text that a peer supplied is cut to so many bytes in our log.
pub const LOGGED_TEXT_BYTES_MAX: usize = 128;

/// Distance of the places in a segment's index: what is read in vain, at most, to find an entry.
pub const INDEX_STEP_BYTES: usize = 64 << 10;

/// The active segment gets room on the disk in steps of so many bytes, so that an append writes into
/// room it has and a sync writes no length: fdatasync takes a third less time.
pub const PREALLOCATE_BYTES: u64 = 8 << 20;

/// Where room is scarce the steps are an eighth of what is free, but not less than this.
pub const PREALLOCATE_BYTES_MIN: u64 = 64 << 10;

/// Kept free on the disk by a file that does nothing else, beside room for the longest run that is let
/// in: what `meta`, the head of a segment and the names of files need while nothing else is free.
/// Footers have room in their segments.
pub const RESERVE_CONTROL_BYTES: u64 = 256 << 10;

/// What a run can need on the disk beside its own bytes: marks, a header, places in a footer, and that
/// file systems count in blocks.
pub const RUN_DISK_EXTRA_BYTES: u64 = 64 << 10;

/// The file with the reserve grows in such steps, so that ever longer runs are not each a call.
pub const RESERVE_STEP_BYTES: u64 = 256 << 10;

/// How often a full disk is tried again.
pub const ROOM_RETRY: Duration = Duration::from_millis(500);

/// A disk that is full and has room again by turns is told in the log once in so long.
pub const ROOM_TOLD_INTERVAL: Duration = Duration::from_secs(10);

/// How often a node looks whether its data directory is still where it was.
pub const HOME_LOOK_INTERVAL: Duration = Duration::from_secs(1);

/// Bytes of the newest entries kept in memory beside the disk, for secondaries that keep up.
pub const TAIL_CACHE_BYTES: usize = 64 << 20;

/// Reads from disk for clients that may be under way at once, each of at most `RUN_BYTES_MAX` bytes or
/// one record, each in a thread of its own.
pub const COLD_READS_MAX: usize = 4;

/// With fewer descriptors a node does not start: it could not even say in each case what it lacks.
pub const DESCRIPTORS_MIN: u64 = 24;

/// Descriptors that are kept open for nothing, so that the log can open a file when there are no
/// others: a segment, `meta`, what is moved aside or repaired and its copy, the directory, and a
/// connection that is told so.
pub const SPARE_DESCRIPTORS: usize = 8;

/// Sealed segments whose file and index are kept at hand for readers.
pub const OPEN_SEGMENTS_MAX: usize = 32;

/// Segments sealed and not yet synced. With so many, the next one is not sealed but grows.
pub const SEALED_UNSYNCED_MAX: usize = 8;

/// Epochs that begin in one segment: bounds its footer. It is sealed earlier.
pub const SEGMENT_EPOCHS_MAX: usize = 4096;

/// What is fetched to repair a damaged range is kept in memory until the range is whole, or so many
/// bytes: each repair may write a segment anew, which is 64 MiB long unless configured otherwise.
pub const REPAIR_BYTES_MAX: usize = 64 << 20;

/// The same on a secondary, to which the master sends no more than its window before it hears that
/// something is stored.
pub const REPAIR_WINDOW_BYTES_MAX: usize = WINDOW_BYTES_MAX / 2;

/// A repair for which there was no room, or that did not fit, is tried again so much later.
pub const REPAIR_RETRY: Duration = Duration::from_secs(10);

const _: () = {
    assert!(NODES_MAX <= 128, "NodeSet has 128 bits");
    assert!(
        STOP_TIMEOUT.as_millis() + LOG_FLUSH_TIMEOUT.as_millis() < 5000,
        "clients and log lines that nobody takes leave a node time to stop within five seconds"
    );
    assert!(RUN_BYTES_MAX < FRAME_BODY_BYTES_MAX);
    assert!(
        PAYLOAD_BYTES_MAX + RECORD_HEADER_BYTES + RECORD_PRODUCER_BYTES_MAX + 4096
            <= FRAME_BODY_BYTES_MAX,
        "the largest record and the head of its APPEND fit into a frame"
    );
    assert!(FRAME_BODY_BYTES_MAX <= u32::MAX as usize);
    assert!(LINK_FRAMES_MAX <= WINDOW_FRAMES_MAX);
    assert!(
        FRAME_BODY_BYTES_MAX + GATEWAY_LINE_EXTRA_BYTES < UNFINISHED_BYTES_MAX,
        "the longest request finds room when it is alone"
    );
    assert!(
        SEGMENT_EPOCHS_MAX as u64 * 16 + 4096 <= RESERVE_CONTROL_BYTES,
        "a footer written anew at a start fits into the room for control records"
    );
};
