//! The `matmul` task: C = A·B of two n × n matrices of f64, by blocks.
//!
//! Values: splitmix64 (Steele, Lea, Flood, "Fast splittable pseudorandom number generators", 2014) started at `seed`; the k-th output x
//! gives (x >> 11) · 2⁻⁵³ − ½, first A row by row, then B. Checksum: Σ over C row by row of C[i][j], as f64. Each C[i][j] sums over k
//! from 0 up, whatever the blocks, without fused multiply-add: so the checksum is the same on every machine.

use std::time::Instant;

/// Rows of A, columns of A and columns of B that are worked on together; two blocks of B fit the second-level cache.
const BLOCK: (usize, usize, usize) = (64, 64, 512);

/// splitmix64.
pub struct SplitMix64(u64);

impl SplitMix64 {
    /// Starts at `seed`.
    pub fn new(seed: u64) -> Self {
        Self(seed)
    }

    /// The next output.
    pub fn next_u64(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// The next value in −½ .. ½.
    pub fn next_value(&mut self) -> f64 {
        (self.next_u64() >> 11) as f64 * (1.0 / (1u64 << 53) as f64) - 0.5
    }
}

/// What a product gives.
#[derive(Clone, Debug, serde::Serialize)]
pub struct MatmulResult {
    /// Σ C[i][j], row by row.
    pub checksum: f64,
    /// 2 n³ operations by the seconds of the product alone, in 10⁹.
    pub gflops: f64,
    /// Of the matrices.
    pub n: usize,
    /// Of the product alone.
    pub seconds: f64,
}

/// A and B, each n × n, row by row.
pub fn matrices(n: usize, seed: u64) -> (Vec<f64>, Vec<f64>) {
    let mut random = SplitMix64::new(seed);
    let mut matrix = || (0..n * n).map(|_| random.next_value()).collect::<Vec<f64>>();
    let a = matrix();
    (a, matrix())
}

/// C = A·B, n × n, row by row.
pub fn product(a: &[f64], b: &[f64], n: usize) -> Vec<f64> {
    let mut c = vec![0.0; n * n];
    multiply(a, b, n, n, &mut c);
    c
}

/// C += A·B, row by row: A is rows × `depth`, B is `depth` × `columns`, C is rows × `columns`.
pub(crate) fn multiply(a: &[f64], b: &[f64], depth: usize, columns: usize, c: &mut [f64]) {
    let rows = c.len() / columns.max(1);
    for column in (0..columns).step_by(BLOCK.2) {
        let column_end = (column + BLOCK.2).min(columns);
        for inner in (0..depth).step_by(BLOCK.1) {
            let inner_end = (inner + BLOCK.1).min(depth);
            for row in (0..rows).step_by(BLOCK.0) {
                for i in row..(row + BLOCK.0).min(rows) {
                    let target = &mut c[i * columns + column..i * columns + column_end];
                    for k in inner..inner_end {
                        let factor = a[i * depth + k];
                        let source = &b[k * columns + column..k * columns + column_end];
                        for (sum, value) in target.iter_mut().zip(source) {
                            *sum += factor * value;
                        }
                    }
                }
            }
        }
    }
}

/// The whole task.
pub fn run(n: usize, seed: u64) -> MatmulResult {
    let (a, b) = matrices(n, seed);
    let started = Instant::now();
    let c = product(&a, &b, n);
    let seconds = started.elapsed().as_secs_f64().max(1e-9);
    let checksum = c.iter().fold(0.0, |sum, value| sum + value);
    let operations = 2.0 * (n as f64).powi(3);
    MatmulResult { checksum, gflops: operations / seconds / 1e9, n, seconds }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_generator_gives_the_published_sequence() {
        let mut random = SplitMix64::new(1_234_567);
        let first: Vec<u64> = (0..3).map(|_| random.next_u64()).collect();
        assert_eq!(first, [6_457_827_717_110_365_317, 3_203_168_211_198_807_973, 9_817_491_932_198_370_423]);
    }

    #[test]
    fn the_checksum_is_the_one_of_an_independent_program() {
        // Computed with plain loops in Python, whose floats are the same IEEE 754 doubles.
        for (n, seed, bits) in
            [(2, 1, 0x3fc7_ffe5_2b95_ae9f), (64, 7, 0xc040_40b6_ac1c_49cc), (100, 42, 0x4050_b13c_c3ba_8c53)]
        {
            assert_eq!(run(n, seed).checksum.to_bits(), bits, "n = {n}, seed = {seed}");
        }
    }

    #[test]
    fn blocks_change_no_bit() {
        for n in [1, 2, 63, 64, 65, 130, 521] {
            let (a, b) = matrices(n, 7);
            let mut naive = vec![0.0; n * n];
            for i in 0..n {
                for j in 0..n {
                    naive[i * n + j] = (0..n).fold(0.0, |sum, k| sum + a[i * n + k] * b[k * n + j]);
                }
            }
            let blocked = product(&a, &b, n);
            assert!(naive.iter().zip(&blocked).all(|(x, y)| x.to_bits() == y.to_bits()), "n = {n}");
        }
    }
}
