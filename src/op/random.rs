//! Counter-based random numbers: the same bits on every machine, in any order, on any number of threads.
//!
//! Philox4x32-10 (Salmon et al., *Parallel random numbers: as easy as 1, 2, 3*, SC 2011). The key is the seed, the
//! counter holds the step and the element's block; element `i` is word `i % 4` of block `i / 4`.

const MULTIPLIERS: [u32; 2] = [0xD251_1F53, 0xCD9E_8D57];
const WEYL: [u32; 2] = [0x9E37_79B9, 0xBB67_AE85];
const ROUNDS: usize = 10;

fn mul_hi_lo(a: u32, b: u32) -> (u32, u32) {
    let product = u64::from(a) * u64::from(b);
    ((product >> 32) as u32, product as u32)
}

/// One block of the generator: four random words for a counter and a key.
pub fn philox(mut counter: [u32; 4], mut key: [u32; 2]) -> [u32; 4] {
    for round in 0..ROUNDS {
        if round > 0 {
            key = [key[0].wrapping_add(WEYL[0]), key[1].wrapping_add(WEYL[1])];
        }
        let (hi0, lo0) = mul_hi_lo(MULTIPLIERS[0], counter[0]);
        let (hi1, lo1) = mul_hi_lo(MULTIPLIERS[1], counter[2]);
        counter = [
            hi1 ^ counter[1] ^ key[0],
            lo1,
            hi0 ^ counter[3] ^ key[1],
            lo0,
        ];
    }
    counter
}

/// The four words of block `block` of stream `seed` at `step`.
pub fn block(seed: u64, step: u64, block: u64) -> [u32; 4] {
    let counter = [
        block as u32,
        (block >> 32) as u32,
        step as u32,
        (step >> 32) as u32,
    ];
    philox(counter, [seed as u32, (seed >> 32) as u32])
}

/// A word as a float in [0, 1): its upper 24 bits.
pub fn unit(word: u32) -> f32 {
    (word >> 8) as f32 * (1.0 / 16_777_216.0)
}

/// The first `n` uniform numbers of stream `seed` at `step`.
pub fn uniform(seed: u64, step: u64, n: usize) -> Vec<f32> {
    let mut out = Vec::with_capacity(n);
    for index in 0..n.div_ceil(4) {
        let words = block(seed, step, index as u64);
        out.extend(words.into_iter().take(n - out.len()).map(unit));
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn philox_gives_the_published_known_answers() {
        // Known-answer tests of the Random123 distribution, philox4x32 with 10 rounds.
        assert_eq!(
            philox([0; 4], [0; 2]),
            [0x6627_e8d5, 0xe169_c58d, 0xbc57_ac4c, 0x9b00_dbd8]
        );
        assert_eq!(
            philox([u32::MAX; 4], [u32::MAX; 2]),
            [0x408f_276d, 0x41c8_3b0e, 0xa20b_c7c6, 0x6d54_51fd]
        );
        assert_eq!(
            philox(
                [0x243f_6a88, 0x85a3_08d3, 0x1319_8a2e, 0x0370_7344],
                [0xa409_3822, 0x299f_31d0]
            ),
            [0xd16c_fe09, 0x94fd_cceb, 0x5001_e420, 0x2412_6ea1]
        );
    }

    #[test]
    fn uniform_numbers_fill_the_unit_interval_evenly() {
        let n = 40_000;
        let numbers = uniform(7, 0, n);
        let mean = numbers.iter().map(|&x| f64::from(x)).sum::<f64>() / n as f64;
        assert!((mean - 0.5).abs() < 0.01, "mean {mean}");
        assert!(numbers.iter().all(|x| (0.0..1.0).contains(x)));
        assert_ne!(
            numbers,
            uniform(7, 1, n),
            "another step draws other numbers"
        );
        assert_ne!(
            numbers,
            uniform(8, 0, n),
            "another seed draws other numbers"
        );
    }
}
