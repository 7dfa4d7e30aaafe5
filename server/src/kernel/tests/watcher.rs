use super::*;

#[tokio::test]
async fn value_put_before_the_wait_is_not_lost() {
    let (stop, there) = UnixStream::pair().unwrap();
    let (latest, thread) = Watcher::new(stop, there);
    thread.tell(|_| 1);
    thread.tell(|before| before.unwrap() + 1);
    assert_eq!(latest.wait().await, 2);
    assert_eq!(latest.take(), None);
}

#[tokio::test]
async fn wait_that_is_dropped_loses_nothing() {
    let (stop, there) = UnixStream::pair().unwrap();
    let (latest, thread) = Watcher::new(stop, there);
    for _ in 0..2 {
        let wait = tokio::time::timeout(Duration::ZERO, latest.wait());
        assert!(wait.await.is_err());
    }
    thread.tell(|_| 7);
    assert_eq!(latest.wait().await, 7);
}
