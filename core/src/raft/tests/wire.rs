//! Messages between servers survive their encoding, and nothing else does.

use bytes::Bytes;
use openraft::raft::{
    AppendEntriesRequest, AppendEntriesResponse, TransferLeaderError, TransferLeaderRequest, VoteRequest,
    VoteResponse,
};

use super::{entry, id, log_id, member, membership_entry, platform::TestRuntime};
use crate::{
    raft::{
        ServerId,
        message::{
            self, Addressee, Answer, AppendOrder, Envelope, FrameError, PROTOCOL_VERSION, PeerMessage,
        },
        snapshot::{Chunk, ChunkAnswer, End, Header},
        types::{Entry, Payload, SnapshotMeta, StoredMembership, Types, Vote},
    },
    runtime::Runtime,
};

fn messages() -> Vec<PeerMessage<TestRuntime>> {
    let blank = Entry {
        log_id: log_id(1, 1),
        payload: Payload::Blank,
    };
    let request = AppendEntriesRequest {
        vote: Vote::new_committed(3, member("a")),
        prev_log_id: Some(log_id(2, 4)),
        entries: vec![blank, entry(3, 5), membership_entry(3, 6, &["a", "b"])],
        leader_commit: None,
    };
    let Payload::Membership(membership) = membership_entry(3, 6, &["a", "b", "c"]).payload else {
        unreachable!("that is what it is");
    };
    let chunk = Chunk {
        vote: Vote::new_committed(3, member("a")),
        transfer: u64::MAX,
        sequence: 9,
        header: Header {
            meta: SnapshotMeta {
                last_log_id: Some(log_id(3, 6)),
                last_membership: StoredMembership::new(Some(log_id(3, 6)), membership),
            },
            index: 17,
            digest: u128::MAX - 1,
        },
        end: Some(End { rows: 3, checksum: 4 }),
    };
    let mut vote = VoteRequest::new(Vote::new(4, member("b")), Some(log_id(3, 6)));
    vote.leadership_transfer = true;
    vec![
        PeerMessage::Append {
            order: Some(AppendOrder {
                process: 1,
                stream: 2,
                sequence: 3,
            }),
            request,
        },
        PeerMessage::Vote(vote.clone()),
        PeerMessage::PreVote(vote),
        PeerMessage::SnapshotChunk(Box::new(chunk)),
        PeerMessage::TransferLeader(TransferLeaderRequest::new(
            Vote::new_committed(3, member("a")),
            member("b"),
            Some(log_id(3, 6)),
        )),
        PeerMessage::Service,
        PeerMessage::Introduce,
    ]
}

fn answers() -> Vec<Answer<TestRuntime>> {
    let vote = Vote::new_committed(7, member("c"));
    vec![
        Answer::Append(AppendEntriesResponse::Success),
        Answer::Append(AppendEntriesResponse::PartialSuccess(Some(log_id(1, 2)))),
        Answer::Append(AppendEntriesResponse::Conflict),
        Answer::Append(AppendEntriesResponse::HigherVote(vote.clone())),
        Answer::Vote(VoteResponse::new(&vote, Some(log_id(3, 4)), true)),
        Answer::SnapshotChunk(ChunkAnswer::Accepted),
        Answer::SnapshotChunk(ChunkAnswer::Installed(vote.clone())),
        Answer::SnapshotChunk(ChunkAnswer::HigherVote(vote.clone())),
        Answer::SnapshotChunk(ChunkAnswer::Busy),
        Answer::SnapshotChunk(ChunkAnswer::Restart("again".to_string())),
        Answer::TransferLeader(Ok(())),
        Answer::TransferLeader(Err(TransferLeaderError::VoteChanged {
            expected: vote.clone(),
            actual: vote,
        })),
        Answer::Service,
        Answer::WrongServer(member("z")),
        Answer::Introduced {
            member: member("z"),
            is_used: true,
        },
        Answer::WrongCluster,
        Answer::OutOfOrder,
        Answer::Malformed,
        Answer::Stopped("for a reason".to_string()),
    ]
}

fn envelope(message: PeerMessage<TestRuntime>) -> Envelope<TestRuntime> {
    Envelope {
        from: member("a"),
        cluster: Some(5),
        to: Addressee::Member(member("b")),
        message,
    }
}

#[test]
fn messages_survive_their_encoding() {
    for message in messages() {
        let frame = message::encode(&envelope(message), b"and a tail");
        let (decoded, tail): (Envelope<TestRuntime>, Bytes) = message::decode(&frame).unwrap();
        assert_eq!(tail, Bytes::from_static(b"and a tail"));
        assert_eq!(decoded.from, member("a"));
        assert_eq!(decoded.to, Addressee::Member(member("b")));
        assert_eq!(message::encode(&decoded, b"and a tail"), frame);
    }
    let [PeerMessage::Append { request, .. }, ..] = &messages()[..] else {
        unreachable!("that is the first");
    };
    let frame = message::encode(&envelope(messages().swap_remove(0)), &[]);
    let (decoded, _): (Envelope<TestRuntime>, Bytes) = message::decode(&frame).unwrap();
    let PeerMessage::Append { request: decoded, .. } = decoded.message else {
        panic!("another message came out than went in");
    };
    assert_eq!(decoded.entries, request.entries);
    assert_eq!(decoded.vote, request.vote);
}

#[test]
fn answers_survive_their_encoding() {
    for answer in answers() {
        let frame = message::encode(&answer, b"tail");
        let (decoded, tail): (Answer<TestRuntime>, Bytes) = message::decode(&frame).unwrap();
        assert_eq!(tail, Bytes::from_static(b"tail"));
        assert_eq!(message::encode(&decoded, b"tail"), frame);
    }
}

#[test]
fn another_version_is_told_from_nonsense() {
    let mut frame = message::encode(&envelope(PeerMessage::Service), &[]).to_vec();
    frame[0] = PROTOCOL_VERSION + 1;
    let result = message::decode::<Envelope<TestRuntime>>(&frame.into());
    assert_eq!(result.err(), Some(FrameError::Version(PROTOCOL_VERSION + 1)));
    let result = message::decode::<ServerId>(&Bytes::new());
    assert!(matches!(result, Err(FrameError::Malformed(_))));
}

/// Cut off anywhere or with any byte changed, a message is another one or none; it never panics.
#[test]
fn spoilt_messages_never_panic() {
    let mut refused = 0;
    for message in messages() {
        let frame = message::encode(&envelope(message), &[]);
        for length in 0..frame.len() {
            let cut = frame.slice(..length);
            refused += usize::from(message::decode::<Envelope<TestRuntime>>(&cut).is_err());
            for flip in [0x01, 0x80, 0xff] {
                let mut spoilt = frame.to_vec();
                spoilt[length] ^= flip;
                refused += usize::from(message::decode::<Envelope<TestRuntime>>(&spoilt.into()).is_err());
            }
        }
    }
    for _ in 0..20_000 {
        let length = TestRuntime::random_u64() % 64;
        let mut random: Vec<u8> = (0..length).map(|_| TestRuntime::random_u64() as u8).collect();
        random.insert(0, PROTOCOL_VERSION);
        refused += usize::from(message::decode::<Envelope<TestRuntime>>(&random.into()).is_err());
    }
    assert!(refused > 10_000, "{refused}");
}

/// What openraft takes for granted is checked before it gets there.
#[test]
fn unsound_messages_are_refused() {
    let append = |change: fn(&mut AppendEntriesRequest<Types<TestRuntime>>)| {
        let PeerMessage::Append { order, mut request } = messages().swap_remove(0) else {
            unreachable!("that is the first");
        };
        request.prev_log_id = Some(log_id(1, 0));
        change(&mut request);
        envelope(PeerMessage::Append { order, request }).check()
    };
    assert_eq!(append(|request| request.entries.truncate(1)), Ok(()));
    assert_eq!(append(|request| request.entries.clear()), Ok(()));
    assert!(append(|_| {}).is_err(), "a gap");
    assert!(
        append(|request| request.prev_log_id = None).is_err(),
        "a beginning elsewhere than at 0"
    );
    assert!(
        append(|request| request.entries = vec![entry(9, 1)]).is_err(),
        "a term to come"
    );
    assert!(
        append(|request| request.entries = vec![entry(2, 1), entry(1, 2)]).is_err(),
        "a term back"
    );
    assert!(
        append(|request| {
            request.entries.clear();
            request.vote = Vote::new(3, member("a"));
        })
        .is_err()
    );
    assert!(
        append(|request| {
            request.entries.clear();
            request.vote = Vote::new_committed(3, member("x"));
        })
        .is_err()
    );
    for mut message in messages() {
        if let PeerMessage::SnapshotChunk(chunk) = &mut message {
            chunk.vote = Vote::new_committed(1, member("a"));
            assert!(envelope(message).check().is_err());
        }
    }
    let mut nameless = envelope(PeerMessage::Vote(VoteRequest::new(
        Vote::new(4, member("a")),
        None,
    )));
    assert_eq!(nameless.check(), Ok(()));
    nameless.to = Addressee::Server(id("b"));
    assert!(nameless.check().is_err(), "for whatever disk there is");
    nameless.to = Addressee::Member(member("b"));
    nameless.cluster = None;
    assert!(nameless.check().is_err());
}
