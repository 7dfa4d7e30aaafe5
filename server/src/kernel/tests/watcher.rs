use super::*;

#[tokio::test]
async fn value_put_before_the_wait_is_not_lost() {
    let latest = Latest::new();
    latest.update(|_| 1);
    latest.update(|before| before.unwrap() + 1);
    assert_eq!(latest.wait().await, 2);
    assert_eq!(latest.take(), None);
}

#[tokio::test]
async fn wait_that_is_dropped_loses_nothing() {
    let latest = Latest::new();
    for _ in 0..2 {
        let wait = tokio::time::timeout(Duration::ZERO, latest.wait());
        assert!(wait.await.is_err());
    }
    latest.update(|_| 7);
    assert_eq!(latest.wait().await, 7);
}
