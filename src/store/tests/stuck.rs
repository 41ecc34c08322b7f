//! A disk that hangs.

use super::*;

#[test]
fn a_store_that_failed_does_not_wait_for_ever_for_a_thread_that_hangs() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let (release, released) = std::sync::mpsc::channel::<()>();
    let hanging = std::thread::spawn(move || _ = released.recv());
    store
        .threads
        .lock()
        .expect("nobody panicked with it")
        .push(hanging);
    store.shared.fail("the disk is stuck");
    assert_eq!(store.stop(), Err("the disk is stuck".to_owned()));
    drop(release);
}

/// The other threads wait for the writer, and hold the lock of the directory: nobody could open it again.
#[tokio::test]
async fn a_directory_can_be_opened_again_after_the_writer_panicked() {
    let dir = tempfile::tempdir().expect("a scratch directory");
    let (store, _) = open(dir.path());
    let id = create(&store, "a", Durability::Fsync).await;
    publish(&store, id, batch(0, 0, &[b"one"])).await;
    let gone: Result<(), ApiError> = store.change(id, |_| panic!("on purpose")).await;
    assert_eq!(gone.expect_err("refused").name(), "StorageStopped");
    let why = store.stop().expect_err("it failed");
    assert!(why.contains("the thread tidings-writer panicked"), "{why}");
    drop(store);
    let (store, _) = open(dir.path());
    let (_, end) = store.range_of(id).expect("it is there");
    assert_eq!(end.get(), 1);
    store.stop().expect("a clean stop");
}
