//! The nodes of this process, as whoever watches them sees them.
//!
//! A node is on the board from before it is opened until after it has ended: to
//! whoever asks in the meantime the board says what it waits for.

use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use super::sample::Collected;

/// Figures that are being collected: some are asked for from threads that may be busy.
pub type Collecting<'a> = Pin<Box<dyn Future<Output = Collected> + Send + 'a>>;

/// A node that serves.
pub trait Source: Send + Sync {
    /// Its figures, without those of the process. Comes within a few seconds, whatever the node does.
    fn collect(&self) -> Collecting<'_>;

    /// Why it does not serve, if so.
    fn unready(&self) -> Option<String>;
}

enum State {
    /// Opening: the stored state is being read.
    Recovering,
    Serving(Arc<dyn Source>),
    Ended,
}

struct Node {
    role: &'static str,
    state: State,
}

/// The nodes of a process.
#[derive(Default)]
pub struct Board {
    nodes: Mutex<Vec<Node>>,
}

impl std::fmt::Debug for Board {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Board").finish_non_exhaustive()
    }
}

impl Board {
    /// A board on which nodes of these roles will be shown.
    pub fn expecting(roles: &[&'static str]) -> Self {
        let nodes = roles.iter().map(|&role| Node {
            role,
            state: State::Recovering,
        });
        Self {
            nodes: Mutex::new(nodes.collect()),
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<Node>> {
        self.nodes.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Shows a node that serves from now on, until what is returned is dropped.
    #[must_use]
    pub fn show(self: &Arc<Self>, role: &'static str, source: Arc<dyn Source>) -> Shown {
        self.set(role, State::Serving(source));
        Shown {
            board: self.clone(),
            role,
        }
    }

    fn set(&self, role: &'static str, state: State) {
        let mut nodes = self.lock();
        match nodes.iter_mut().find(|node| node.role == role) {
            Some(node) => node.state = state,
            None => nodes.push(Node { role, state }),
        }
    }

    /// The nodes that serve.
    pub fn sources(&self) -> Vec<Arc<dyn Source>> {
        let nodes = self.lock();
        let serving = nodes.iter().filter_map(|node| match &node.state {
            State::Serving(source) => Some(source.clone()),
            State::Recovering | State::Ended => None,
        });
        serving.collect()
    }

    /// Why not all nodes serve, one line for each that does not; empty when they do.
    pub fn unready(&self) -> Vec<String> {
        let nodes = self.lock();
        let lines = nodes.iter().filter_map(|node| {
            let role = node.role;
            let why = match &node.state {
                State::Recovering => "recovering: its stored state is being read".to_owned(),
                State::Serving(source) => source.unready()?,
                State::Ended => "ended".to_owned(),
            };
            Some(format!("{role}: {why}"))
        });
        lines.collect()
    }
}

/// A node is shown for as long as this lives.
#[derive(Debug)]
pub struct Shown {
    board: Arc<Board>,
    role: &'static str,
}

impl Drop for Shown {
    fn drop(&mut self) {
        self.board.set(self.role, State::Ended);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    struct Fixed(Option<&'static str>);

    impl Source for Fixed {
        fn collect(&self) -> Collecting<'_> {
            Box::pin(std::future::ready(Collected::default()))
        }

        fn unready(&self) -> Option<String> {
            self.0.map(str::to_owned)
        }
    }

    #[test]
    fn a_node_recovers_serves_and_ends() {
        let board = Arc::new(Board::expecting(&["index", "peer"]));
        let recovering = "recovering: its stored state is being read";
        let told = [
            format!("index: {recovering}"),
            format!("peer: {recovering}"),
        ];
        assert_eq!(board.unready(), told);
        let index = board.show("index", Arc::new(Fixed(None)));
        assert_eq!(board.unready(), told[1..]);
        let peer = board.show("peer", Arc::new(Fixed(Some("shutting down"))));
        assert_eq!(board.unready(), ["peer: shutting down"]);
        assert_eq!(board.sources().len(), 2);
        drop(peer);
        assert_eq!(board.unready(), ["peer: ended"]);
        drop(index);
        assert!(board.sources().is_empty());
    }
}
