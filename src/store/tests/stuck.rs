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
