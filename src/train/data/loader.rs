//! `DataLoader`: the samples of a data set in batches, epoch after epoch.
//!
//! The order of an epoch is a function of the seed, the epoch and the number of samples: a Fisher-Yates shuffle (Knuth,
//! *The Art of Computer Programming* 2, 3.4.2, algorithm P) whose numbers come from the crate's counter-based
//! generator. So a run can stop after any batch and go on there, on another machine too: a [`Position`] says all.
//!
//! With prefetching, a thread reads ahead into a bounded queue. Batches, their order and their bits are the same
//! without; the thread ends with the iterator that started it.

use std::sync::Arc;
use std::sync::mpsc::{Receiver, sync_channel};
use std::thread::JoinHandle;

use serde::{Deserialize, Serialize};

use super::Dataset;
use super::draw::{Purpose, below};
use crate::array::Array;
use crate::error::Result;

/// A place between two batches. The default is the start of a run.
#[derive(
    Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Debug, Default, Serialize, Deserialize,
)]
pub struct Position {
    /// The epoch, from 0.
    pub epoch: u64,
    /// How many batches of it are behind.
    pub batch: usize,
}

/// Some samples, one array a field, and where they stand.
#[derive(Clone, Debug, PartialEq)]
pub struct Batch {
    /// The arrays, `[samples, ...]`, in the order of the data set's fields.
    pub arrays: Vec<Array>,
    /// The place after this batch: where a run that has used it goes on.
    pub next: Position,
}

/// Makes batches of a data set.
///
/// ```
/// use brain_blitz::array::{Array, Data};
/// use brain_blitz::train::data::{DataLoader, Position, TensorDataset};
/// let numbers = Array::new(vec![10], Data::I32((0..10).collect()));
/// let loader = DataLoader::new(TensorDataset::new(vec![numbers])?, 4).shuffle(7);
/// let mut seen = Vec::new();
/// for epoch in 0..2 {
///     for batch in loader.epoch(epoch) {
///         seen.extend(batch?.arrays[0].to_i32());
///     }
/// }
/// assert_eq!(seen.len(), 20);
/// // A run that stopped after the second batch of epoch 1 goes on with the third.
/// let rest = loader.resume(Position { epoch: 1, batch: 2 }).next().expect("a third batch")?;
/// assert_eq!(rest.arrays[0].to_i32(), seen[18..]);
/// # Ok::<(), brain_blitz::Error>(())
/// ```
#[derive(Debug)]
pub struct DataLoader<D> {
    plan: Arc<Plan<D>>,
    prefetch: usize,
}

/// What an iterator needs to know of its loader.
#[derive(Debug)]
struct Plan<D> {
    data: Arc<D>,
    batch_size: usize,
    seed: Option<u64>,
    drop_last: bool,
}

impl<D> Clone for Plan<D> {
    fn clone(&self) -> Plan<D> {
        Plan {
            data: Arc::clone(&self.data),
            ..*self
        }
    }
}

impl<D: Dataset + 'static> DataLoader<D> {
    /// Batches of `batch_size` samples in the data set's order, the last one smaller when they do not divide; read
    /// by the thread that asks.
    ///
    /// # Panics
    /// If `batch_size` is 0.
    #[track_caller]
    pub fn new(data: D, batch_size: usize) -> DataLoader<D> {
        assert!(batch_size > 0, "a batch needs a sample");
        DataLoader {
            plan: Arc::new(Plan {
                data: Arc::new(data),
                batch_size,
                seed: None,
                drop_last: false,
            }),
            prefetch: 0,
        }
    }

    fn with(self, change: impl FnOnce(&mut Plan<D>)) -> DataLoader<D> {
        let mut plan = Plan::clone(&self.plan);
        change(&mut plan);
        DataLoader {
            plan: Arc::new(plan),
            ..self
        }
    }

    /// Another order in every epoch, drawn from `seed`.
    pub fn shuffle(self, seed: u64) -> DataLoader<D> {
        self.with(|plan| plan.seed = Some(seed))
    }

    /// Whether samples that do not fill a batch at the end of an epoch are left out.
    pub fn drop_last(self, drop: bool) -> DataLoader<D> {
        self.with(|plan| plan.drop_last = drop)
    }

    /// How many batches a thread reads ahead; 0 is no thread.
    pub fn prefetch(self, batches: usize) -> DataLoader<D> {
        DataLoader {
            prefetch: batches,
            ..self
        }
    }

    /// The data set.
    pub fn data(&self) -> &D {
        &self.plan.data
    }

    /// The number of batches in an epoch.
    pub fn n_batches(&self) -> usize {
        self.plan.n_batches()
    }

    /// The indices of all samples in the order in which `epoch` takes them, those included that
    /// [`DataLoader::drop_last`] leaves out.
    pub fn order(&self, epoch: u64) -> Vec<usize> {
        self.plan.order(epoch)
    }

    /// The batches of an epoch. The iterator ends after the first error.
    pub fn epoch(&self, epoch: u64) -> Epoch<D> {
        self.resume(Position { epoch, batch: 0 })
    }

    /// The batches of an epoch that come after `position`.
    pub fn resume(&self, position: Position) -> Epoch<D> {
        let reader = Reader {
            order: self.plan.order(position.epoch),
            plan: Arc::clone(&self.plan),
            at: position,
        };
        let left = reader.left();
        let source = match self.prefetch {
            0 => Source::Here(reader),
            depth => Source::ahead(reader, depth),
        };
        Epoch { source, left }
    }
}

impl<D: Dataset> Plan<D> {
    fn n_batches(&self) -> usize {
        match self.drop_last {
            true => self.data.len() / self.batch_size,
            false => self.data.len().div_ceil(self.batch_size),
        }
    }

    fn order(&self, epoch: u64) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.data.len()).collect();
        if let Some(seed) = self.seed {
            for last in (1..order.len()).rev() {
                let bound = last as u64 + 1;
                let other = below(Purpose::Order, seed, epoch, last as u64, bound);
                order.swap(last, other as usize);
            }
        }
        order
    }
}

/// Reads one batch after the other.
struct Reader<D> {
    plan: Arc<Plan<D>>,
    order: Vec<usize>,
    at: Position,
}

impl<D: Dataset> Reader<D> {
    fn left(&self) -> usize {
        self.plan.n_batches().saturating_sub(self.at.batch)
    }
}

impl<D: Dataset> Iterator for Reader<D> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.left() == 0 {
            return None;
        }
        let start = self.at.batch * self.plan.batch_size;
        let end = (start + self.plan.batch_size).min(self.order.len());
        let arrays = self.plan.data.batch(&self.order[start..end], self.at.epoch);
        self.at.batch += 1;
        let next = match self.left() {
            0 => Position {
                epoch: self.at.epoch + 1,
                batch: 0,
            },
            _ => self.at,
        };
        Some(arrays.map(|arrays| Batch { arrays, next }))
    }
}

/// The batches of one epoch.
pub struct Epoch<D: Dataset> {
    source: Source<D>,
    left: usize,
}

enum Source<D> {
    Here(Reader<D>),
    Ahead {
        /// Taken to end the thread.
        queue: Option<Receiver<Result<Batch>>>,
        thread: Option<JoinHandle<()>>,
    },
}

impl<D: Dataset + 'static> Source<D> {
    fn ahead(reader: Reader<D>, depth: usize) -> Source<D> {
        let (sender, queue) = sync_channel(depth);
        let read = move || {
            for batch in reader {
                let failed = batch.is_err();
                // Nobody waits for more when the iterator is gone.
                if sender.send(batch).is_err() || failed {
                    return;
                }
            }
        };
        let builder = std::thread::Builder::new().name("data loader".to_owned());
        let thread = builder.spawn(read).expect("the system starts a thread");
        Source::Ahead {
            queue: Some(queue),
            thread: Some(thread),
        }
    }
}

impl<D: Dataset> Iterator for Epoch<D> {
    type Item = Result<Batch>;

    fn next(&mut self) -> Option<Result<Batch>> {
        if self.left == 0 {
            return None;
        }
        let batch = match &mut self.source {
            Source::Here(reader) => reader.next(),
            Source::Ahead { queue, thread } => {
                let batch = queue.as_ref().and_then(|queue| queue.recv().ok());
                if batch.is_none()
                    && let Some(Err(panic)) = thread.take().map(JoinHandle::join)
                {
                    // The data set panicked in the thread; here, it would have done so now.
                    std::panic::resume_unwind(panic);
                }
                batch
            }
        };
        self.left = match &batch {
            Some(Ok(_)) => self.left - 1,
            _ => 0,
        };
        batch
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        // An error ends the epoch early.
        (usize::from(self.left > 0), Some(self.left))
    }
}

impl<D: Dataset> Drop for Epoch<D> {
    fn drop(&mut self) {
        if let Source::Ahead { queue, thread } = &mut self.source {
            *queue = None;
            if let Some(thread) = thread.take() {
                // A panic of a thread whose batches nobody wants any more concerns nobody.
                let _ = thread.join();
            }
        }
    }
}
