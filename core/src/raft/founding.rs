//! How a cluster of several servers begins.
//!
//! The first membership names members, so it must know everyone's disk (see [`super::member`]). Until it does, nobody
//! may vote: with two of three servers, one that was wiped in between would be taken for a new one, and could join
//! once with either of the others; neither of them can know of it alone. So whoever founds a cluster first asks all of its
//! members which disk they have, and needs an answer from each. All of them must be up once, when the cluster is founded.
//!
//! Several servers may be told to found a cluster of the same list. If they all hear the same, they write the same
//! first entry, and it is one cluster: its id follows from what they heard. If a server is wiped meanwhile, they hear
//! different things. So each asks twice, and founds only if both times all answer, with the same disks, and none of them
//! has ever taken part in a cluster. Then there is a moment, between the two rounds, at which all those disks existed; and
//! as each had still done nothing after it, none had done anything at it. Two foundings that heard different things can't
//! then both come to something. Take the one whose moment is later. The founder of the earlier one, if it still
//! had the same disk, had done nothing at that moment, and none acts in a cluster before its founder does: so of that
//! cluster no disk had acted that was lost by then, and none can act that will be lost as long as a minority is. The disks
//! that are the same in both belong to the first of the two clusters that addresses them, and to that one only: two
//! majorities of them meet in one. (If the earlier founder's own disk was lost as well, its cluster had a majority only
//! with a disk that was not: that one had acted by the later moment, and the later founder would have heard of it.)

use std::collections::BTreeMap;

use futures_util::future::join_all;

use super::{
    ServerAddress, ServerId,
    identity::Identity,
    member::MemberId,
    message::{self, Addressee, Answer, Envelope, PeerMessage},
};
use crate::{
    limits,
    runtime::{Network, Runtime},
};

/// What a server says of itself to those who don't know it.
pub(crate) struct Introduction {
    /// Its name, and the disk that it has.
    pub(crate) member: MemberId,
    /// Whether that disk has ever taken part in a cluster.
    pub(crate) is_used: bool,
}

/// Asks the server at an address who it is.
///
/// # Errors
/// It does not answer, or is another server: says in words why nothing can be done with it.
pub(crate) async fn introduce<R: Runtime>(
    me: &Identity,
    network: &R::Network,
    id: &ServerId,
    address: &ServerAddress,
) -> Result<Introduction, String> {
    let envelope = Envelope::<R> {
        from: me.member().clone(),
        cluster: None,
        to: Addressee::Server(id.clone()),
        message: PeerMessage::Introduce,
    };
    let frame = message::encode(&envelope, &[]);
    let answer = network
        .call(&address.raft, frame, limits::PEER_CALL_TIMEOUT)
        .await
        .map_err(|error| error.to_string())?;
    match message::decode::<Answer<R>>(&answer) {
        Ok((Answer::Introduced { member, is_used }, _)) => Ok(Introduction { member, is_used }),
        Ok((Answer::WrongServer(actual), _)) => Err(format!(
            "the server at {} is {}, not {id}",
            address.raft, actual.server
        )),
        Ok((Answer::Stopped(reason), _)) => Err(format!("{id} stopped: {reason}")),
        Ok(_) => Err(format!("{id} does not understand this server")),
        Err(error) => Err(error.to_string()),
    }
}

/// The first members of a cluster, with their disks: see the module's page.
///
/// # Errors
/// One of them does not answer, or has taken part in a cluster, or changed its disk meanwhile.
pub(crate) async fn gather<R: Runtime>(
    me: &Identity,
    network: &R::Network,
    servers: &BTreeMap<ServerId, ServerAddress>,
) -> Result<BTreeMap<MemberId, ServerAddress>, String> {
    let before = ask_all::<R>(me, network, servers).await?;
    let after = ask_all::<R>(me, network, servers).await?;
    match before == after {
        true => Ok(after),
        false => Err("a server lost its data in this very moment".to_string()),
    }
}

async fn ask_all<R: Runtime>(
    me: &Identity,
    network: &R::Network,
    servers: &BTreeMap<ServerId, ServerAddress>,
) -> Result<BTreeMap<MemberId, ServerAddress>, String> {
    let asked = servers.iter().map(async |(id, address)| {
        // Whether this server is new, the library looks at when it begins.
        if id == me.id() {
            return Ok((me.member().clone(), address.clone()));
        }
        let introduction = introduce::<R>(me, network, id, address).await?;
        match introduction.is_used {
            false => Ok((introduction.member, address.clone())),
            true => Err(format!("{id} has taken part in a cluster already")),
        }
    });
    join_all(asked).await.into_iter().collect()
}
