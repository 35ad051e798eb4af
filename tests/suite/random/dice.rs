//! Choices drawn from a seed: the same on every machine.

use brain_blitz::op::random;

/// A stream of random choices.
pub struct Dice {
    seed: u64,
    stream: u64,
    block: u64,
    words: Vec<u32>,
}

impl Dice {
    /// Stream number `stream` of `seed`.
    pub fn new(seed: u64, stream: u64) -> Dice {
        Dice {
            seed,
            stream,
            block: 0,
            words: Vec::new(),
        }
    }

    fn word(&mut self) -> u32 {
        if self.words.is_empty() {
            self.words = random::block(self.seed, self.stream, self.block).to_vec();
            self.block += 1;
        }
        self.words.pop().expect("just refilled")
    }

    /// A number in `0..n`.
    pub fn below(&mut self, n: usize) -> usize {
        assert!(n > 0, "a choice of nothing");
        ((u64::from(self.word()) * n as u64) >> 32) as usize
    }

    /// A number in `low..=high`.
    pub fn between(&mut self, low: i64, high: i64) -> i64 {
        low + self.below((high - low + 1) as usize) as i64
    }

    /// True once in `n` times.
    pub fn one_in(&mut self, n: usize) -> bool {
        self.below(n) == 0
    }

    /// One of these.
    pub fn pick<T: Clone>(&mut self, choices: &[T]) -> T {
        choices[self.below(choices.len())].clone()
    }

    /// These in random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for i in (1..items.len()).rev() {
            items.swap(i, self.below(i + 1));
        }
    }

    /// A real number in `-1..1`.
    pub fn unit(&mut self) -> f64 {
        f64::from(random::unit(self.word())) * 2.0 - 1.0
    }
}
