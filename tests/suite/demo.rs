//! The demo is what a newcomer runs first: it has to end well, and to say so.

use tempfile::tempdir;

use crate::support::command;

#[test]
fn the_demo_loses_nothing_and_proves_it() {
    let dir = tempdir().expect("a scratch directory");
    let ran = command(dir.path()).arg("demo").output().expect("it runs");
    let story = String::from_utf8_lossy(&ran.stdout);
    assert!(
        ran.status.success(),
        "{story}\n{}",
        String::from_utf8_lossy(&ran.stderr)
    );
    assert_eq!(
        story.matches("exactly once, in order").count(),
        12,
        "one line for each network:\n{story}"
    );
    assert_eq!(
        story.matches("SIGKILL").count(),
        2,
        "a peer and the index are killed:\n{story}"
    );
    assert!(
        story.contains("Nothing was lost, nothing was doubled"),
        "{story}"
    );
    let left: Vec<_> = dir.path().read_dir().expect("a directory").collect();
    assert!(left.is_empty(), "it left something where it ran: {left:?}");
}
