//! Batcher's merge exchange for any number of inputs (Knuth, The Art of Computer Programming 3, 5.2.2, algorithm M): which pairs to compare,
//! in which order, does not depend on the data, so the same comparison is done for a block of elements at once.

/// Pairs (i, j), i < j: after "smaller to i, larger to j" for each in order, `count` inputs are sorted. O(n log² n) pairs.
pub(crate) fn comparators(count: usize) -> Vec<(usize, usize)> {
    let mut pairs = Vec::new();
    if count < 2 {
        return pairs;
    }
    let top = count.next_power_of_two() / 2;
    let mut p = top;
    while p > 0 {
        let (mut q, mut r, mut d) = (top, 0, p);
        loop {
            pairs.extend((0..count - d).filter(|i| i & p == r).map(|i| (i, i + d)));
            if q == p {
                break;
            }
            d = q - p;
            q /= 2;
            r = p;
        }
        p /= 2;
    }
    pairs
}

#[cfg(test)]
mod tests {
    use super::comparators;

    /// A network that sorts all inputs of zeros and ones sorts all inputs (Knuth, theorem Z).
    #[test]
    fn all_inputs_of_zeros_and_ones_are_sorted() {
        for count in 0..=13_usize {
            let pairs = comparators(count);
            for bits in 0..1_u32 << count {
                let mut values: Vec<u32> = (0..count).map(|i| bits >> i & 1).collect();
                for (i, j) in &pairs {
                    if values[*i] > values[*j] {
                        values.swap(*i, *j);
                    }
                }
                assert!(values.is_sorted(), "{count} inputs, {bits:b}");
            }
        }
    }
}
