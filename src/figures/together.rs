//! Making something that takes a while, once for all who wait for it.
//!
//! Whoever asks gets something whose making began after the question: nothing
//! older, and never two makings at once, however many ask and whether they stay for
//! the answer or not. What was made is kept for some seconds, for those who go on with it.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use tokio::sync::Mutex;

use crate::limits;

/// Makes a `T` for everybody who waits.
#[derive(Debug)]
pub struct Together<T> {
    /// How many have asked.
    asked: Arc<AtomicU64>,
    /// Locked by whoever makes one.
    latest: Arc<Mutex<Option<Made<T>>>>,
}

#[derive(Debug)]
struct Made<T> {
    what: T,
    /// It serves all who had asked when its making began: so many.
    serves: u64,
}

impl<T> Default for Together<T> {
    fn default() -> Self {
        Self {
            asked: Arc::default(),
            latest: Arc::default(),
        }
    }
}

impl<T: Clone + Send + 'static> Together<T> {
    /// What `make` makes, or what another made for somebody who asked later. `None`: the process ends.
    pub async fn get<F>(&self, make: F) -> Option<T>
    where
        F: Future<Output = T> + Send + 'static,
    {
        let number = self.asked.fetch_add(1, Ordering::Relaxed);
        let (asked, latest, kept) = (self.asked.clone(), self.latest.clone(), self.latest.clone());
        // On its own: it is finished, for the others, even if this one does not wait for it.
        let making = tokio::spawn(async move {
            let mut latest = latest.lock().await;
            match &*latest {
                Some(made) if made.serves > number => made.what.clone(),
                _ => {
                    let serves = asked.load(Ordering::Relaxed);
                    let what = make.await;
                    *latest = Some(Made {
                        what: what.clone(),
                        serves,
                    });
                    tokio::spawn(forget(kept, serves));
                    what
                }
            }
        });
        making.await.ok()
    }

    /// What was made last, for [`limits::FIGURES_KEPT`]: for going on with something that was begun.
    pub async fn latest(&self) -> Option<T> {
        self.latest
            .lock()
            .await
            .as_ref()
            .map(|made| made.what.clone())
    }
}

async fn forget<T>(latest: Arc<Mutex<Option<Made<T>>>>, serves: u64) {
    tokio::time::sleep(limits::FIGURES_KEPT).await;
    let mut latest = latest.lock().await;
    if latest.as_ref().is_some_and(|made| made.serves == serves) {
        *latest = None;
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use tokio::sync::{Notify, Semaphore};

    /// Counts makings, each of which waits to be let through.
    struct Maker {
        made: AtomicU64,
        gate: Semaphore,
        begun: Notify,
    }

    async fn make(maker: Arc<Maker>) -> u64 {
        maker.begun.notify_one();
        maker.gate.acquire().await.expect("open").forget();
        maker.made.fetch_add(1, Ordering::Relaxed) + 1
    }

    #[tokio::test]
    async fn who_waits_shares_what_is_made_after_everybody_asked() {
        let together: Arc<Together<u64>> = Arc::default();
        let maker = Arc::new(Maker {
            made: AtomicU64::new(0),
            gate: Semaphore::new(0),
            begun: Notify::new(),
        });
        let ask = || {
            let (together, maker) = (together.clone(), maker.clone());
            tokio::spawn(async move { together.get(make(maker)).await })
        };
        // One that goes away while it is made, and ten that ask meanwhile.
        let gone = ask();
        maker.begun.notified().await;
        gone.abort();
        let waiting: Vec<_> = (0..10).map(|_| ask()).collect();
        while together.asked.load(Ordering::Relaxed) < 11 {
            tokio::task::yield_now().await;
        }
        assert_eq!(maker.made.load(Ordering::Relaxed), 0);
        maker.gate.add_permits(20);
        for answer in waiting {
            assert_eq!(answer.await.expect("no panic"), Some(2));
        }
        assert_eq!(together.latest().await, Some(2));
        assert_eq!(ask().await.expect("no panic"), Some(3), "nothing older");
        assert_eq!(together.latest().await, Some(3));
        let deadline = tokio::time::Instant::now() + 10 * limits::FIGURES_KEPT;
        while together.latest().await.is_some() {
            assert!(tokio::time::Instant::now() < deadline, "kept for ever");
            tokio::time::sleep(limits::FIGURES_KEPT / 50).await;
        }
    }
}
