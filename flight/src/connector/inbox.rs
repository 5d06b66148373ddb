//! What has come over a network and has not been read: bounded in bytes, and a part of the process's memory budget. Whoever
//! puts something in waits for room, and so does not read from the network meanwhile.

use std::sync::Arc;

use millstream_engine::memory::{Held, MemoryBudget};
use tokio::sync::{OwnedSemaphorePermit, Semaphore, mpsc};

/// How many items wait at most.
const ITEMS: usize = 1024;
/// What is taken out at once.
const TAKEN_BYTES: usize = 1 << 20;

struct Item<T> {
    content: T,
    bytes: usize,
    _room: OwnedSemaphorePermit,
    _held: Held,
}

/// Where things are put in.
pub(crate) struct Inlet<T> {
    sender: mpsc::Sender<Item<T>>,
    room: Arc<Semaphore>,
    most: usize,
    budget: Arc<MemoryBudget>,
}

impl<T> Clone for Inlet<T> {
    fn clone(&self) -> Self {
        let Inlet { sender, room, most, budget } = self;
        Inlet { sender: sender.clone(), room: room.clone(), most: *most, budget: budget.clone() }
    }
}

/// Where they are taken out.
pub(crate) struct Outlet<T> {
    receiver: mpsc::Receiver<Item<T>>,
}

/// An inbox for `most` bytes, which are a part of `budget`.
pub(crate) fn inbox<T>(most: usize, budget: Arc<MemoryBudget>) -> (Inlet<T>, Outlet<T>) {
    let most = most.clamp(1, u32::MAX as usize);
    let (sender, receiver) = mpsc::channel(ITEMS);
    (Inlet { sender, room: Arc::new(Semaphore::new(most)), most, budget }, Outlet { receiver })
}

impl<T> Inlet<T> {
    /// Puts `content` of `bytes` in as soon as there is room; one that is larger than all the room waits until there is
    /// nothing else. Says whether anybody will take it out.
    pub(crate) async fn put(&self, content: T, bytes: usize) -> bool {
        let permits = bytes.clamp(1, self.most) as u32;
        let Ok(room) = self.room.clone().acquire_many_owned(permits).await else { return false };
        let item = Item { content, bytes, _room: room, _held: self.budget.hold(bytes) };
        self.sender.send(item).await.is_ok()
    }

    /// The budget that what waits is a part of.
    pub(crate) fn budget(&self) -> &MemoryBudget {
        &self.budget
    }
}

impl<T> Outlet<T> {
    /// What there is, in order; waits for the first. `None` when nobody puts anything in any more.
    pub(crate) async fn take(&mut self) -> Option<Vec<T>> {
        let first = self.receiver.recv().await?;
        let (mut bytes, mut taken) = (first.bytes, vec![first.content]);
        while bytes < TAKEN_BYTES
            && let Ok(item) = self.receiver.try_recv()
        {
            bytes += item.bytes;
            taken.push(item.content);
        }
        Some(taken)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_puts_in_waits_for_room() {
        let budget = MemoryBudget::new(1 << 20);
        let (inlet, mut outlet) = inbox(100, budget.clone());
        assert!(inlet.put(1, 60).await && inlet.put(2, 40).await);
        assert_eq!(budget.used(), 100);
        let mut third = Box::pin(inlet.put(3, 500));
        assert!(futures::poll!(&mut third).is_pending());
        assert_eq!(outlet.take().await, Some(vec![1, 2]));
        assert!(third.await);
        assert_eq!((outlet.take().await, budget.used()), (Some(vec![3]), 0));
        let other = inlet.clone();
        drop(inlet);
        assert!(futures::poll!(std::pin::pin!(outlet.take())).is_pending());
        drop(other);
        assert_eq!(outlet.take().await, None);
    }

    #[tokio::test]
    async fn nobody_waits_for_a_reader_who_is_gone() {
        let (inlet, outlet) = inbox(100, MemoryBudget::new(1 << 20));
        drop(outlet);
        assert!(!inlet.put(1, 60).await);
    }
}
