//! Two ends in memory, and whatever order of events: early answers, resets from both ends, GOAWAY, bodies half sent,
//! bytes that arrive in any pieces. Every request has exactly one outcome, and afterwards nothing is left: no stream, no
//! promise, and every octet of window is back where it was.

use std::collections::HashMap;

use proptest::prelude::*;

use super::*;
use crate::Head;

/// What became of a request, as its sender saw it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Outcome {
    Answered,
    Ended(Ended),
    /// The sender gave it up.
    Cancelled,
}

/// One end's view of a stream.
struct User {
    key: Key,
    /// The final head has come (client) or was sent (server).
    head: bool,
    incoming_done: bool,
    outgoing_done: bool,
    unconsumed: usize,
    over: bool,
}

struct End {
    connection: Connection,
    users: HashMap<u32, User>,
    /// On their way to the other end, and what it has of them that was not whole.
    wire: Vec<u8>,
    head: Head,
}

struct World {
    client: End,
    server: End,
    outcomes: HashMap<u32, Outcome>,
}

const SETTINGS: Settings = Settings {
    stream_window: 20_000,
    connection_window: 65_535,
    max_concurrent_streams: 8,
    max_header_list: 4096,
    max_fields: 64,
    max_frame: 16_384,
    // Tasks of this world look at requests whenever they like.
    max_pending_resets: 1000,
    max_output: 30_000,
    connect_protocol: false,
};

fn end(connection: Connection) -> End {
    End {
        connection,
        users: HashMap::new(),
        wire: Vec::new(),
        head: Head::new(),
    }
}

impl World {
    fn new() -> Self {
        World {
            client: end(Connection::client(SETTINGS)),
            server: end(Connection::server(SETTINGS)),
            outcomes: HashMap::new(),
        }
    }

    fn settle(&mut self, id: u32, outcome: Outcome) {
        let before = self.outcomes.insert(id, outcome);
        assert_eq!(
            before, None,
            "stream {id} has two outcomes, then {outcome:?}"
        );
    }

    /// Hands `count` octets of what one end wrote to the other.
    fn deliver(&mut self, to_server: bool, count: usize) -> bool {
        let (from, to) = if to_server {
            (&mut self.client, &mut self.server)
        } else {
            (&mut self.server, &mut self.client)
        };
        let output = from.connection.output();
        let count = count.min(output.len());
        if count == 0 {
            return false;
        }
        from.wire.extend_from_slice(&output[..count]);
        from.connection.wrote(count);
        let wire = std::mem::take(&mut from.wire);
        let mut input = &wire[..];
        let mut told = Vec::new();
        loop {
            match to.connection.next(&mut input, &mut to.head).unwrap() {
                Event::NeedMore => break,
                Event::Head { stream, end } => told.push((stream, 0, end, to.head.status(), None)),
                Event::Data { stream, data, end } => told.push((stream, data.len(), end, 0, None)),
                Event::Trailers { stream } => told.push((stream, 0, true, 0, None)),
                Event::Ended { stream, why } => told.push((stream, 0, false, 0, Some(why))),
                Event::Pong | Event::Settings | Event::GoAway(_) | Event::Refused(_) => {}
            }
        }
        from.wire = input.to_vec();
        for (key, data, end, status, why) in told {
            self.told(to_server, key, data, end, status, why);
        }
        true
    }

    fn told(
        &mut self,
        by_server: bool,
        key: Key,
        data: usize,
        end: bool,
        status: u16,
        why: Option<Ended>,
    ) {
        let id = key.id();
        let users = if by_server {
            &mut self.server.users
        } else {
            &mut self.client.users
        };
        if by_server && !users.contains_key(&id) {
            assert_eq!(why, None);
            users.insert(id, user(key, false));
        }
        let user = users.get_mut(&id).expect("only held streams are told of");
        assert!(
            !user.incoming_done || why.is_some(),
            "told of {id} after its end"
        );
        assert!(!user.over, "told of {id} when it was over");
        user.head |= !by_server && status >= 200;
        user.unconsumed += data;
        user.incoming_done |= end;
        let answered = !by_server && end;
        if answered {
            self.settle(id, Outcome::Answered);
        } else if let Some(why) = why {
            let unanswered = !user.incoming_done;
            user.over = true;
            if !by_server && unanswered {
                self.settle(id, Outcome::Ended(why));
            }
        }
    }

    fn open(&mut self, whole: bool) {
        let mut head = Head::new();
        head.set_method(b"POST").unwrap();
        head.set_scheme(b"http").unwrap();
        head.set_path(b"/").unwrap();
        head.set_authority(b"voting").unwrap();
        if let Some(key) = self.client.connection.open(&head, whole) {
            self.client.users.insert(key.id(), user(key, whole));
        }
    }

    fn release(&mut self, server: bool, id: u32) {
        let end = self.end(server);
        if let Some(user) = end.users.remove(&id) {
            end.connection.release(user.key);
            if !server && !self.outcomes.contains_key(&id) {
                self.settle(id, Outcome::Cancelled);
            }
        }
    }

    fn end(&mut self, server: bool) -> &mut End {
        if server {
            &mut self.server
        } else {
            &mut self.client
        }
    }

    /// The stream that a number chooses.
    fn choose(&mut self, server: bool, number: usize) -> Option<u32> {
        let mut ids: Vec<u32> = self.end(server).users.keys().copied().collect();
        ids.sort_unstable();
        (!ids.is_empty()).then(|| ids[number % ids.len()])
    }

    fn step(&mut self, kind: u8, number: usize, size: usize) {
        let server = kind >= 8;
        match kind {
            0 | 1 => return self.open(kind == 0),
            2 | 10 => {
                self.deliver(!server, size);
                return;
            }
            8 if size > 24_500 => return self.server.connection.shutdown(),
            _ => {}
        }
        let Some(id) = self.choose(server, number) else {
            return;
        };
        let end = self.end(server);
        match kind {
            3 | 11 => end.send(id, size),
            4 | 12 => end.finish(id, size % 2 == 0),
            5 | 13 => end.consume(id),
            8 | 9 => end.answer(id),
            14 if size % 4 == 0 => {
                if let Some(user) = end.users.get_mut(&id) {
                    end.connection.reset(user.key, Code::INTERNAL_ERROR);
                    user.over = true;
                }
            }
            6 | 15 if size % 4 == 0 => self.release(server, id),
            _ => {}
        }
    }

    /// Everybody does what is left to do.
    fn finish(&mut self) {
        for _ in 0..10_000 {
            let mut moved = self.deliver(true, usize::MAX) | self.deliver(false, usize::MAX);
            for server in [false, true] {
                let end = self.end(server);
                let ids: Vec<u32> = end.users.keys().copied().collect();
                for id in ids {
                    let end = self.end(server);
                    end.consume(id);
                    if server {
                        end.answer(id);
                    }
                    end.finish(id, false);
                    let user = &end.users[&id];
                    let done = user.over || (user.incoming_done && user.outgoing_done);
                    if done {
                        self.release(server, id);
                        moved = true;
                    }
                }
            }
            // What was done just now may have given somebody something to deliver.
            let silent = self.client.connection.output().is_empty()
                && self.server.connection.output().is_empty();
            if !moved && silent {
                return;
            }
        }
        panic!("the world does not come to rest");
    }

    fn is_at_rest(&self) {
        assert!(self.client.users.is_empty() && self.server.users.is_empty());
        for (one, other) in [(&self.client, &self.server), (&self.server, &self.client)] {
            let (one, other) = (&one.connection, &other.connection);
            assert_eq!((one.streams_in_use(), one.open_streams()), (0, 0));
            assert_eq!((one.promised, one.pending_resets), (0, 0));
            assert_eq!(one.send_window, other.receive_window);
            assert_eq!(one.windows().1, i64::from(SETTINGS.connection_window));
        }
    }
}

fn user(key: Key, outgoing_done: bool) -> User {
    User {
        key,
        head: false,
        incoming_done: false,
        outgoing_done,
        unconsumed: 0,
        over: false,
    }
}

impl End {
    fn answer(&mut self, id: u32) {
        let mut head = Head::new();
        head.set_status(200).unwrap();
        if let Some(user) = self.users.get_mut(&id).filter(|user| !user.head) {
            user.head = true;
            self.connection.accept(user.key);
            let sent = self.connection.send_head(user.key, &head, false);
            user.over |= sent.is_err();
        }
    }

    fn may_send(&mut self, id: u32, server: bool) -> Option<&mut User> {
        self.users
            .get_mut(&id)
            .filter(|user| !user.outgoing_done && (!server || user.head))
    }

    fn send(&mut self, id: u32, size: usize) {
        let server = !self.connection.client;
        if let Some(key) = self.may_send(id, server).map(|user| user.key) {
            if let Ok(Some(count)) = self.connection.capacity(key, size) {
                let sent = self.connection.send_data(key, &vec![b'x'; count], false);
                assert_eq!(sent, Ok(()));
            }
            while self.connection.pop_granted().is_some() {}
        }
    }

    fn finish(&mut self, id: u32, trailers: bool) {
        let server = !self.connection.client;
        if let Some(user) = self.may_send(id, server) {
            user.outgoing_done = true;
            let key = user.key;
            let mut fields = Head::new();
            fields.push("grpc-status", "0").unwrap();
            let _over = self.connection.finish(key, trailers.then_some(&fields));
        }
    }

    fn consume(&mut self, id: u32) {
        if let Some(user) = self.users.get_mut(&id) {
            let count = std::mem::take(&mut user.unconsumed);
            self.connection.consume(user.key, count);
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 600, ..ProptestConfig::default() })]

    #[test]
    fn every_request_has_one_outcome_and_nothing_is_left(
        steps in prop::collection::vec((0u8..16, 0usize..64, 0usize..25_000), 1..200),
    ) {
        let mut world = World::new();
        let mut opened = 0;
        for (kind, number, size) in steps {
            world.step(kind, number, size);
            opened = opened.max(world.client.connection.next_id / 2);
        }
        world.finish();
        world.is_at_rest();
        prop_assert_eq!(world.outcomes.len(), opened as usize);
    }
}
