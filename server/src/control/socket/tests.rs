//! Peers of every kind, over socket pairs.

use super::*;
use crate::control::watch::{Happened, WatchEvent};
use serde_json::{Value, json};
use tokio::io::AsyncReadExt;

const OTHER: u32 = 65534;

/// Runs a test with a socket that other users may use.
fn with<F: Future<Output = ()>>(test: impl FnOnce(Socket) -> F) {
    let dir = tempfile::tempdir().unwrap();
    let group = nix::unistd::Group::from_gid(nix::unistd::getegid());
    let group = group.unwrap().unwrap().name;
    let mut builder = tokio::runtime::Builder::new_current_thread();
    // Waiting costs no time: the clock jumps to what is waited for.
    let runtime = builder.enable_all().start_paused(true).build().unwrap();
    runtime.block_on(async {
        let path = dir.path().join("run/control");
        test(Socket::bind(&path, Some(&group)).unwrap()).await;
    });
}

/// Lets a peer in, and gives its end.
fn peer(socket: &mut Socket, uid: u32) -> UnixStream {
    let (ours, theirs) = UnixStream::pair().unwrap();
    socket.admit(ours, uid);
    theirs
}

async fn say(peer: &mut UnixStream, line: &str) {
    peer.write_all(line.as_bytes()).await.unwrap();
}

async fn all(mut peer: UnixStream) -> Vec<Value> {
    let mut bytes = Vec::new();
    // What has arrived before a reset counts.
    while peer.read_buf(&mut bytes).await.is_ok_and(|read| read > 0) {}
    let text = String::from_utf8(bytes).unwrap();
    let lines = text.lines();
    lines
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

const STATUS: &str = "{\"v\":1,\"command\":\"status\"}\n";
const WATCH: &str = "{\"v\":1,\"command\":\"watch\"}\n";

fn event(at: u64) -> WatchMessage {
    WatchMessage::Event(WatchEvent::new(at, Happened::Granted, "laptop", None))
}

#[test]
fn command_reaches_the_loop_and_its_answer_the_peer() {
    with(async |mut socket| {
        let mut asking = peer(&mut socket, OTHER);
        say(&mut asking, STATUS).await;
        let request = socket.next().await;
        assert_eq!((request.uid, &request.command), (OTHER, &Command::Status));
        request.reply.send(Ok("fine"));
        assert_eq!(all(asking).await, [json!({"v": 1, "ok": "fine"})]);
    });
}

#[test]
fn line_that_is_no_command_is_answered_without_the_loop() {
    with(async |mut socket| {
        let long = "x".repeat(10 * MAX_LINE);
        for line in ["hello\n", "{\"v\":2}\n", &long] {
            let mut asking = peer(&mut socket, OTHER);
            say(&mut asking, line).await;
            let answer = &all(asking).await[0];
            assert!(answer["error"]["message"].is_string(), "{answer}");
        }
        assert!(socket.requests.try_recv().is_err());
    });
}

#[test]
fn other_users_cannot_keep_root_out() {
    with(async |mut socket| {
        let (most, _) = OTHERS;
        let _peers: Vec<_> = (0..most).map(|_| peer(&mut socket, OTHER)).collect();
        let late = peer(&mut socket, OTHER);
        let answer = &all(late).await[0];
        assert_eq!(
            answer["error"]["message"],
            "too many connections: try again"
        );
        let mut root = peer(&mut socket, 0);
        say(&mut root, STATUS).await;
        assert_eq!(socket.next().await.uid, 0);
    });
}

#[test]
fn peer_that_asks_nothing_is_disconnected_and_frees_its_place() {
    with(async |mut socket| {
        let (most, _) = ROOTS;
        let mut idle: Vec<_> = (0..most).map(|_| peer(&mut socket, 0)).collect();
        assert_eq!(idle[0].read(&mut [0; 1]).await.unwrap(), 0);
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut asking = peer(&mut socket, 0);
        say(&mut asking, STATUS).await;
        assert_eq!(socket.next().await.command, Command::Status);
    });
}

#[test]
fn watcher_is_told_events_and_how_many_it_missed() {
    with(async |mut socket| {
        let mut watching = peer(&mut socket, OTHER);
        say(&mut watching, WATCH).await;
        let request = socket.next().await;
        socket.watch(request.reply, [event(1)]);
        assert_eq!(socket.watchers(), 1);
        for at in 0..1000 {
            socket.publish(&event(2 + at));
        }
        // The peer's task has not run yet: the backlog holds the latest.
        let reading = tokio::spawn(all(watching));
        tokio::task::yield_now().await;
        tokio::time::sleep(Duration::from_secs(1)).await;
        drop(socket);
        let lines = reading.await.unwrap();
        assert_eq!(lines[0], json!({"v": 1, "ok": {}}));
        assert_eq!(lines[1]["at"], "1970-01-01T00:00:00.001Z");
        assert_eq!(lines[2], json!({"dropped": 1000 - BACKLOG as u64}));
        assert_eq!(lines.len(), 3 + BACKLOG);
        assert_eq!(lines.last().unwrap()["at"], "1970-01-01T00:00:01.001Z");
    });
}

#[test]
fn only_some_peers_may_watch_at_a_time() {
    with(async |mut socket| {
        let (_, most) = OTHERS;
        let mut watching = Vec::new();
        for _ in 0..most {
            let mut one = peer(&mut socket, OTHER);
            say(&mut one, WATCH).await;
            let request = socket.next().await;
            socket.watch(request.reply, []);
            watching.push(one);
        }
        let mut late = peer(&mut socket, OTHER);
        say(&mut late, WATCH).await;
        let answer = &all(late).await[0];
        assert_eq!(answer["error"]["message"], "too many are watching");
        // The end of one makes room.
        watching.pop();
        tokio::time::sleep(Duration::from_secs(1)).await;
        let mut next = peer(&mut socket, OTHER);
        say(&mut next, WATCH).await;
        assert_eq!(socket.next().await.command, Command::Watch);
    });
}

#[test]
fn answer_too_long_becomes_an_error() {
    let text = answer(Ok::<_, ErrorBody>("x".repeat(MAX_ANSWER)));
    assert!(text.contains("too long"), "{text}");
}
