//! Every bound of the system, named with its unit, and what happens at it.

use std::time::Duration;

/// Bytes of a request body; more is 413.
pub const BODY_BYTES_MAX: usize = 2 * 1024 * 1024;
/// Bytes that are read of a request body that is too large, so that its sender gets to the answer; beyond it the
/// connection closes.
pub const BODY_DRAIN_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Bytes of a service, node or namespace name and of an instance id; more is 400.
pub const NAME_BYTES_MAX: usize = 512;
/// Bytes of a check's name or id; more is 400. It is the most for a name and what is put around it: `service:` and `:64`,
/// `_service_maintenance:`, `Service '…' check`.
pub const CHECK_NAME_BYTES_MAX: usize = NAME_BYTES_MAX + 64;
/// Bytes of an address; more is 400.
pub const ADDRESS_BYTES_MAX: usize = 256;
/// Tags of one instance; more is 400.
pub const TAGS_PER_INSTANCE_MAX: usize = 1_024;
/// Bytes of one tag; more is 400.
pub const TAG_BYTES_MAX: usize = 8 * 1024;
/// Pairs of one meta map; more is 400.
pub const META_PAIRS_MAX: usize = 64;
/// Characters of a meta key, of `[A-Za-z0-9_-]`; others are 400.
pub const META_KEY_CHARS_MAX: usize = 128;
/// Characters of a meta value; more is 400.
pub const META_VALUE_CHARS_MAX: usize = 512;
/// Tagged addresses of an instance or node; more is 400.
pub const TAGGED_ADDRESSES_MAX: usize = 16;
/// Named ports of an instance; more is 400.
pub const PORTS_PER_INSTANCE_MAX: usize = 64;
/// Bytes of what a proxy of a service mesh says of itself, as JSON; more is 400.
pub const PROXY_BYTES_MAX: usize = 16 * 1024;
/// Levels of lists and objects in JSON that is kept as it is given; more is 400. Answers hold it some levels deeper, and
/// readers of JSON take 128.
pub const KEPT_JSON_LEVELS_MAX: usize = 64;
/// Checks of one registration; more is 400.
pub const CHECKS_PER_INSTANCE_MAX: usize = 64;
/// Longest expression of `?filter=`, in bytes.
pub const FILTER_BYTES_MAX: usize = 8 * 1024;
/// Deepest nesting of parentheses and negations in an expression of `?filter=`.
pub const FILTER_DEPTH_MAX: usize = 64;
/// Most memory for all compiled regular expressions of one `?filter=`, in bytes, and as much for carrying them out; each
/// has an equal share of it.
pub const FILTER_REGEX_BYTES: usize = 1024 * 1024;
/// Bytes of a check's output; the rest is cut off.
pub const CHECK_OUTPUT_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a check's notes; more is 400.
pub const CHECK_NOTES_BYTES_MAX: usize = 4 * 1024;
/// Bytes of what a check runs (URL, headers and body; arguments of a program); more is 400.
pub const CHECK_DEFINITION_BYTES_MAX: usize = 16 * 1024;
/// Weight of an instance; more is 400.
pub const WEIGHT_MAX: u32 = 65_535;
/// Shortest TTL of a check; less is 400.
pub const TTL_MIN: Duration = Duration::from_millis(100);
/// Longest TTL, interval or timeout of a check; more is 400.
pub const TTL_MAX: Duration = Duration::from_secs(87_600 * 3600);
/// Registrations of one batch, applied atomically; more is 413.
pub const BATCH_REGISTRATIONS_MAX: usize = 1_000;
/// Renewals of one batch call; more is 413.
pub const BATCH_RENEWALS_MAX: usize = 10_000;
/// Expiries proposed in one command; the rest follow in the next one.
pub const EXPIRIES_PER_COMMAND_MAX: usize = 1_000;
/// Names of deleted things whose last index is kept per kind; the oldest fold into one floor index beyond it.
pub const TOMBSTONES_MAX: usize = 16_384;
/// One in this many parts of what may be kept of gone names and of superseded versions is dropped at once, so that the
/// floor moves seldom: each move shows as a newer index of unknown names.
pub const FOLD_DIVISOR: usize = 8;

/// Bytes of a prepared query's definition; more is an error.
pub const PREPARED_QUERY_BYTES_MAX: usize = 64 * 1024;

/// Bytes of a key; more is 400.
pub const KEY_BYTES_MAX: usize = 4 * 1024;
/// Bytes of a key's value, unless a server is set otherwise; more is 413.
pub const VALUE_BYTES_MAX: usize = 512 * 1024;
/// Levels of a key, told apart by slashes, of which each knows how new it is; what is deeper is looked through.
pub const KEY_LEVELS_INDEXED: usize = 16;
/// Superseded versions of keys that are kept; beyond it the oldest are compacted.
pub const KEY_VERSIONS_KEPT_MAX: usize = 16_384;
/// Bytes of the values of superseded versions that are kept; beyond it the oldest are compacted, an eighth at once.
pub const KEY_VERSION_BYTES_KEPT_MAX: usize = 64 * 1024 * 1024;
/// Operations of one transaction; more is 413.
pub const OPERATIONS_PER_TRANSACTION_MAX: usize = 128;
/// Bytes of a transaction's body, and of all values in it, unless a server is set otherwise; more is 413.
pub const TRANSACTION_BYTES_MAX: usize = 512 * 1024;
/// Shortest TTL of a session; less is an error.
pub const SESSION_TTL_MIN: Duration = Duration::from_secs(10);
/// A session that is not renewed ends after so many of its TTLs, as in Consul: clients count on it.
pub const SESSION_TTL_FACTOR: u32 = 2;
/// Longest TTL of a session; more is an error.
pub const SESSION_TTL_MAX: Duration = Duration::from_secs(24 * 3600);
/// Delay of the locks of a session that names none.
pub const LOCK_DELAY_DEFAULT: Duration = Duration::from_secs(15);
/// Longest delay of locks; more is cut to it.
pub const LOCK_DELAY_MAX: Duration = Duration::from_secs(60);
/// Checks that one session is bound to; more is 400.
pub const CHECKS_PER_SESSION_MAX: usize = 64;

/// A blocking query's wait when it names none.
pub const WAIT_DEFAULT: Duration = Duration::from_secs(300);
/// A blocking query's longest wait; more is cut to it.
pub const WAIT_MAX: Duration = Duration::from_secs(600);
/// One in this many parts of the wait is added at random at most, so that waiters do not all come back at once.
pub const WAIT_SPREAD_DIVISOR: u32 = 16;
/// Blocking queries and streams parked on one server; more are 429.
pub const WATCHERS_MAX: usize = 200_000;
/// Streams of changes open on one server; more are 429.
pub const STREAMS_MAX: usize = 50_000;
/// A stream on which nothing differs says so this often, with a comment. Before each one, a server asks the leader.
pub const STREAM_KEEP_ALIVE: Duration = Duration::from_secs(15);
/// A stream is ended after this long, up to one part in [`WAIT_SPREAD_DIVISOR`] more; its client goes on with another one.
pub const STREAM_LIFE: Duration = Duration::from_secs(3600);
/// Rendered views kept by one server; the least recently used go first.
pub const VIEWS_MAX: usize = 4_096;
/// A leader looks this often whether its catalog shows the servers as they are, and whether autopilot has to do something.
pub const UPKEEP_INTERVAL: Duration = Duration::from_secs(1);
/// A server that its leader has not heard of for this long, pauses of the leader aside, is shown as failed.
pub const SERVER_SILENCE_MAX: Duration = Duration::from_secs(4);
/// User events that a server keeps, the newest ones, as Consul does.
pub const EVENTS_MAX: usize = 256;
/// Bytes of a user event's payload, as in Consul.
pub const EVENT_PAYLOAD_BYTES_MAX: usize = 512;
/// A watcher that was woken waits this long for more changes before it answers.
pub const COALESCE_WINDOW: Duration = Duration::from_millis(2);

/// A leader that was not heard of for longer than this, or that heard of no quorum, is not told of as known.
pub const LEADER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// A write waits this long for its commit; then its outcome is reported unknown.
pub const WRITE_TIMEOUT: Duration = Duration::from_secs(5);
/// A linearizable read waits this long for its read index; then it fails with `No cluster leader`.
pub const READ_TIMEOUT: Duration = Duration::from_secs(3);
/// A leader leaves a follower that did not take entries alone for so many heartbeats at most, before it sends them again.
pub const REPLICATION_PAUSE_HEARTBEATS: u64 = 2;
/// One attempt of a call to a peer.
pub const PEER_CALL_TIMEOUT: Duration = Duration::from_secs(2);
/// A change of nothing but a check's output is held back this long at most.
pub const OUTPUT_HOLD: Duration = Duration::from_secs(5);
/// How much later than its TTL an unrenewed check turns critical at most, under a stable leader.
pub const EXPIRY_BOUND: Duration = Duration::from_secs(1);
/// Clock drift under which the promises about TTLs hold, in parts per million.
pub const CLOCK_DRIFT_PPM_MAX: u32 = 1_000;

/// Longest heartbeat, election timeout or time between two checkpoints that a server is configured with; more is an error.
pub const RAFT_TIME_MAX: Duration = Duration::from_secs(30 * 24 * 3600);
/// Entries of one append request between servers.
pub const ENTRIES_PER_APPEND_MAX: u64 = 512;
/// Bytes of one chunk of a streamed snapshot.
pub const SNAPSHOT_CHUNK_BYTES: usize = 256 * 1024;
/// Bytes of one frame between servers; a larger one closes the connection.
pub const PEER_FRAME_BYTES_MAX: usize = 16 * 1024 * 1024;
/// Requests under way on one connection between servers; more wait.
pub const PEER_IN_FLIGHT_MAX: usize = 1_024;
/// Writes under way at one server, and as many renewals; more are 429.
pub const PROPOSALS_IN_FLIGHT_MAX: usize = 16_384;
/// Writes that a leader carries out at a time; more wait for their turn.
pub const WRITES_AT_ONCE_MAX: usize = 1_024;
/// A write that has waited for its turn at the leader for so long is 429.
pub const WRITE_TURN_WAIT_MAX: Duration = Duration::from_secs(1);

/// Bytes of a request's head over HTTP; more is 431.
pub const HTTP_HEAD_BYTES_MAX: usize = 32 * 1024;
/// Connections of one HTTP listener; more wait in the backlog.
pub const HTTP_CONNECTIONS_MAX: usize = 100_000;

/// A request's head must have arrived this long after the connection was opened or its last answer sent; then the
/// connection is closed.
pub const HTTP_HEAD_TIMEOUT: Duration = Duration::from_secs(60);
/// Bytes of an answer that this server reads as a client of another one; more is an error.
pub const HTTP_RESPONSE_BYTES_MAX: usize = 64 * 1024 * 1024;
/// Idle connections kept open to one HTTP server; more are closed.
pub const HTTP_IDLE_PER_SERVER_MAX: usize = 32;
/// Opening a connection to a peer or an HTTP server; then it is unreachable.
pub const CONNECT_TIMEOUT: Duration = Duration::from_secs(1);
/// Connections from peers that one server holds open; more wait in the backlog.
pub const PEER_CONNECTIONS_MAX: usize = 256;
/// A connection on which calls wait and nothing arrived for this long is given up at the next timeout of a call.
pub const PEER_SILENCE_MAX: Duration = Duration::from_secs(1);
/// Requests waiting for the disk's thread; more wait to be queued.
pub const DISK_QUEUE_MAX: usize = 1_024;
/// Pairs that a read of the disk may ask for without being moved off the reactor's threads.
pub const DISK_READ_INLINE_MAX: usize = 64;
/// Requests in flight get this long to finish when a server is told to stop; then they are dropped.
pub const SHUTDOWN_GRACE: Duration = Duration::from_secs(3);

/// Timeout of an agent's probe that names none.
pub const PROBE_TIMEOUT_DEFAULT: Duration = Duration::from_secs(10);
/// Requests of one run of an HTTP check, where each but the last is answered with a redirect; one more fails.
pub const PROBE_REQUESTS_MAX: usize = 10;
/// Timeout of an agent's command check that names none.
pub const COMMAND_TIMEOUT_DEFAULT: Duration = Duration::from_secs(30);
/// Bytes of a service's registration with its checks as an agent sends it, so that servers can read it; more is 413.
pub const AGENT_REGISTRATION_BYTES_MAX: usize = BODY_BYTES_MAX - 64 * 1024;
/// Services that one agent keeps; more are refused.
pub const AGENT_SERVICES_MAX: usize = 10_000;

/// Writes waiting for the disk, and at most in one sync; more wait with those who ask for them.
pub const JOURNAL_WRITES_MAX: usize = 1_024;
/// Bytes gathered for one write and sync; what comes beyond them waits for the next.
pub const JOURNAL_GROUP_BYTES: usize = 8 * 1024 * 1024;
/// Recent log entries kept in memory; older ones are read from disk.
pub const LOG_CACHE_ENTRIES_MAX: usize = 16_384;
/// Bytes of recent log entries kept in memory; older ones are read from disk.
pub const LOG_CACHE_BYTES_MAX: usize = 32 * 1024 * 1024;
/// Log entries read from disk in one go.
pub const LOG_READ_ENTRIES: usize = 256;
/// Bytes of log entries in one append request, unless a single entry has more.
pub const APPEND_BYTES: usize = 2 * 1024 * 1024;
/// Append requests under way to one follower; more wait.
pub const APPENDS_IN_FLIGHT_MAX: usize = 8;
/// How long a follower holds an append request back that came before its predecessor; then it refuses it.
pub const APPEND_ORDER_WAIT: Duration = Duration::from_millis(500);
/// Servers whose append requests are kept in order at one time; those of more are refused.
pub const APPENDING_SERVERS_MAX: usize = 64;
/// Rows of a checkpoint read from disk in one go.
pub const SNAPSHOT_ROWS_PER_READ: usize = 256;
/// Times that a chunk of a snapshot is sent before the transfer starts over.
pub const SNAPSHOT_CHUNK_ATTEMPTS: usize = 6;
/// How long the first chunk of a snapshot is waited for at first; twice as long each time that none came, up to
/// [`PEER_CALL_TIMEOUT`].
pub const SNAPSHOT_CHUNK_PATIENCE: Duration = Duration::from_millis(500);
/// How long a follower may take to install a snapshot after its last chunk; then the transfer starts over.
pub const SNAPSHOT_INSTALL_TIMEOUT: Duration = Duration::from_secs(60);
/// Linearizable reads waiting for a read index at the leader; more are refused.
pub const READS_WAITING_MAX: usize = 65_536;
/// Members whose disk is gone that a server remembers to have told of.
pub const LOST_MEMBERS_MAX: usize = 64;
/// How long a new member may take to catch up before it gets its vote; then it stays without one.
pub const JOIN_CATCH_UP_TIMEOUT: Duration = Duration::from_secs(30);
/// Entries that a new member may lack when it gets its vote.
pub const JOIN_LAG_MAX: u64 = 1_024;
/// How long a change of the membership may take to commit; then its outcome is unknown.
pub const MEMBERSHIP_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two tries of a membership change while another is under way.
pub const MEMBERSHIP_RETRY: Duration = Duration::from_millis(50);
/// How long a leader transfer may take; then its outcome is unknown.
pub const TRANSFER_TIMEOUT: Duration = Duration::from_secs(5);
/// The same as it is asked for at any server: what is lost on its way to the leader holds nobody up for longer.
pub const TRANSFER_REQUEST_TIMEOUT: Duration = Duration::from_secs(8);
/// How long a requested checkpoint may take; then its outcome is unknown.
pub const CHECKPOINT_TIMEOUT: Duration = Duration::from_secs(60);

/// A leader looks at its deadlines this often, so that a pause of its process shows as a gap.
pub const EXPIRY_TICK: Duration = Duration::from_millis(100);
/// A server that does not lead looks this often whether it still runs.
pub const FOLLOWER_TICK: Duration = Duration::from_secs(1);
/// A leader that did not look at its clock for this long was paused: the gap is added to every deadline.
pub const PAUSE_MIN: Duration = Duration::from_millis(500);
/// Decisions of a leader (expiries, outputs to write) under way at once; more wait for the next tick.
pub const DECISIONS_IN_FLIGHT_MAX: usize = 16;
/// Updates of checks in one command; the rest follow in the next one.
pub const RENEWALS_PER_COMMAND_MAX: usize = 1_000;
/// Outputs held back at a leader; one more is written at once.
pub const HELD_OUTPUTS_MAX: usize = 16_384;
/// Writes under way from one server to the leader; more wait within their time limit, so that a leader that can't
/// commit does not fill the connection that Raft's own messages need.
pub const FORWARDS_IN_FLIGHT_MAX: usize = 512;
/// Messages of one start of another server that are remembered, to carry out once what is delivered twice; what is
/// older is taken for a second delivery.
pub const RECEIPTS_PER_SERVER: u64 = 8_192;
/// Starts of other servers whose messages are remembered; the one silent for longest is forgotten.
pub const RECEIPT_RUNS_MAX: usize = 64;
/// Between two attempts to reach a leader, unless a change of leadership is heard of before.
pub const LEADER_RETRY_PAUSE: Duration = Duration::from_millis(20);
/// Linearizable reads of one server under way; more are 429.
pub const LINEARIZABLE_READS_MAX: usize = 400_000;
/// A round for a read index is given up after one in this many parts of a read's time limit, and begun again.
pub const READ_ROUNDS_PER_TIMEOUT: u32 = 3;
/// A readiness probe waits this long for a read index.
pub const READY_TIMEOUT: Duration = Duration::from_secs(1);
/// A question to a peer about its status.
pub const PEER_STATUS_TIMEOUT: Duration = Duration::from_secs(1);
/// A request to change the membership waits this long, a new member's catching up included; then the change goes on
/// and its outcome is reported unknown.
pub const MEMBERSHIP_REQUEST_TIMEOUT: Duration = Duration::from_secs(60);
/// A server that is to be added must answer within this time; else the change is refused.
pub const JOIN_CONTACT_TIMEOUT: Duration = Duration::from_secs(10);
/// Between two attempts to begin a cluster of several servers, at first; it doubles up to [`JOIN_RETRY_MAX`].
pub const FOUND_RETRY_MIN: Duration = Duration::from_millis(50);
/// Between two looks at the servers with which a cluster is to begin.
pub const EXPECT_PAUSE: Duration = Duration::from_millis(500);
/// Between two attempts to join, at first; it doubles up to [`JOIN_RETRY_MAX`].
pub const JOIN_RETRY_MIN: Duration = Duration::from_millis(200);
/// Between two attempts to join, at most.
pub const JOIN_RETRY_MAX: Duration = Duration::from_secs(5);
/// The leader compares the digests of the servers' states this often.
pub const DIGEST_INTERVAL: Duration = Duration::from_secs(10);
/// Digests of past states that a server keeps to compare; older ones are forgotten.
pub const DIGESTS_KEPT: usize = 4_096;
/// Routes that requests are counted by; more count as `other`.
pub const METRIC_ROUTES_MAX: usize = 256;
/// Node checks (those of no service) that one agent keeps; more are refused.
pub const AGENT_NODE_CHECKS_MAX: usize = 10_000;
/// TTL of the check by which the servers know that an agent's host is alive, unless it is configured.
pub const AGENT_NODE_TTL: Duration = Duration::from_secs(15);
/// An agent renews that check so often within its TTL.
pub const AGENT_NODE_RENEWALS: u32 = 3;
/// Interval of an agent's probe that names none.
pub const PROBE_INTERVAL_DEFAULT: Duration = Duration::from_secs(10);
/// Shortest interval of an agent's probe; a shorter one is run at this.
pub const PROBE_INTERVAL_MIN: Duration = Duration::from_millis(100);
/// The first run of a check is put off at random by less than this, and by less than its interval.
pub const FIRST_RUN_SPREAD_MAX: Duration = Duration::from_secs(3);
/// Probes that one agent runs at a time; more wait their turn.
pub const AGENT_PROBES_IN_FLIGHT_MAX: usize = 256;
/// Check reports of one call of an agent to its servers; the rest follow in the next one.
pub const AGENT_REPORTS_PER_CALL_MAX: usize = 1_000;
/// Registrations of one call of an agent to its servers; the rest follow in the next one.
pub const AGENT_REGISTRATIONS_PER_CALL_MAX: usize = 200;
/// Bytes that one call of an agent gathers; a single larger item is still sent, alone.
pub const AGENT_CALL_BYTES_MAX: usize = 1024 * 1024;
/// Requests at an agent's own API that wait for the servers; more are 429.
pub const AGENT_WAITERS_MAX: usize = 10_000;
/// One attempt of an agent's call to one server.
pub const AGENT_CALL_TIMEOUT: Duration = Duration::from_secs(3);
/// A request at an agent's own API waits this long for the servers; a registration then answers without an index, a
/// renewal is 500.
pub const AGENT_ANSWER_TIMEOUT: Duration = Duration::from_secs(5);
/// The same for a renewal whose TTL leaves less time than that: a sixth of the TTL, but no less than this.
pub const AGENT_CALL_TIMEOUT_MIN: Duration = Duration::from_millis(250);
/// Shortest wait of an agent after a call that failed at every server.
pub const AGENT_BACKOFF_MIN: Duration = Duration::from_millis(200);
/// Longest such wait.
pub const AGENT_BACKOFF_MAX: Duration = Duration::from_secs(5);
/// Between two comparisons of what the servers hold with what an agent wants, give or take an eighth.
pub const AGENT_SYNC_INTERVAL: Duration = Duration::from_secs(30);
/// After a write that failed at one server and may still be carried out by it, an agent compares at once, and once more
/// after this long.
pub const AGENT_AFTERMATH: Duration = WRITE_TIMEOUT.saturating_add(Duration::from_secs(1));
/// A stopping agent tries to deregister its node for this long.
pub const AGENT_SHUTDOWN_TIMEOUT: Duration = Duration::from_secs(5);
/// Bytes of a snapshot file that is to be restored: the server that restores it holds it in memory while it checks it;
/// more is 413.
pub const RESTORE_BYTES_MAX: usize = 1024 * 1024 * 1024;
/// One step of a restore waits this long for its commit; the last one replaces the whole state.
pub const RESTORE_STEP_TIMEOUT: Duration = Duration::from_secs(30);
/// The leader takes a restore for given up when it lays down nothing for so long: longer than any of its steps takes.
pub const RESTORE_IDLE_MAX: Duration = Duration::from_secs(60);
/// Pieces of a snapshot file that are made before they are taken.
pub const SNAPSHOT_PIECES_AHEAD: usize = 2;
/// A leader looks this often whether all members read a newer version of commands than is written.
pub const UPGRADE_TICK: Duration = Duration::from_secs(1);
/// A command that older members can't read waits this long for all of them to be known to read it; then it is refused.
pub const NEWER_COMMAND_WAIT: Duration = Duration::from_millis(500);
/// Rows deleted in one batch when a disk is wiped.
pub const WIPE_BATCH: usize = 1_000;

/// Lines of the log that wait for one reader of `/v1/agent/monitor`; what comes beyond is counted, and the reader told.
pub const LOG_LINES_WAITING_MAX: usize = 512;
/// Checks that a leader runs at a time; those that are due beyond wait.
pub const SERVER_PROBES_IN_FLIGHT_MAX: usize = 256;
/// Requests that an agent sends on to servers at a time; more are 429.
pub const AGENT_FORWARDS_MAX: usize = 10_000;
/// An agent waits this long for a server's answer to a request that it sent on and that does not block.
pub const AGENT_FORWARD_TIMEOUT: Duration = Duration::from_secs(15);
/// The same for a blocking query, beyond the longest time that the server may wait.
pub const AGENT_FORWARD_SLACK: Duration = Duration::from_secs(10);
/// A blocking query of an agent's that is this late is lost: nobody waits behind it any more.
pub const AGENT_WAIT_SLACK: Duration = Duration::from_secs(1);
/// Who comes to wait behind a blocking query that was sent this long ago asks first whether it is lost.
pub const AGENT_WAIT_DOUBT: Duration = Duration::from_secs(1);
/// Answers that an agent keeps for `?cached`; one that is asked for beyond is fetched and not kept.
pub const AGENT_CACHE_ENTRIES_MAX: usize = 1_000;
/// An answer that nobody asked for in this time is kept no longer.
pub const AGENT_CACHE_IDLE: Duration = Duration::from_secs(600);
/// How long an agent's own question for news of a kept answer waits at the server. With [`AGENT_FORWARD_SLACK`] it is also how
/// long a kept answer may go without news when a server vanishes and its connection does not tell.
pub const AGENT_CACHE_WAIT: Duration = Duration::from_secs(30);
/// The longest wait of one blocking query by which an agent follows another node that an alias stands for.
pub const AGENT_ALIAS_WAIT: Duration = Duration::from_secs(10);
/// Another node that no alias asked about for this long is not followed any more.
pub const AGENT_ALIAS_IDLE: Duration = Duration::from_secs(5);
/// Other nodes that an agent follows for its aliases, one for each namespace; an alias of one more is critical.
pub const AGENT_ELSEWHERE_MAX: usize = 1_000;
/// A leader or an agent looks this often at what a check is an alias of.
pub const ALIAS_INTERVAL: Duration = Duration::from_secs(1);
/// And a leader so soon after that changed.
pub const ALIAS_PAUSE: Duration = Duration::from_millis(50);
/// An agent looks at one alias so often, at most, for one change: aliases may stand for each other, in a circle.
pub const ALIAS_LOOKS_MAX: usize = 8;
