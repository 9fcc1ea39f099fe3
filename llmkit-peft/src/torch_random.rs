/// The generator behind `torch.Generator(device="cpu")`, so that what PEFT draws from a seed is drawn here bit for bit.
///
/// The Mersenne Twister MT19937 (Matsumoto and Nishimura 1998).
#[derive(Debug, Clone)]
pub(crate) struct TorchGenerator {
    state: [u32; LEN],
    next: usize,
}

const LEN: usize = 624;
const SHIFT: usize = 397;

impl TorchGenerator {
    /// As `manual_seed` starts it: only the seed's low 32 bits count.
    pub(crate) fn new(seed: i64) -> Self {
        let mut state = [seed as u32; LEN];
        for index in 1..LEN {
            let before = state[index - 1];
            state[index] = (before ^ (before >> 30)).wrapping_mul(1_812_433_253).wrapping_add(index as u32);
        }
        Self { state, next: LEN }
    }

    fn next_u32(&mut self) -> u32 {
        if self.next == LEN {
            self.turn();
        }
        let mut bits = self.state[self.next];
        self.next += 1;
        bits ^= bits >> 11;
        bits ^= (bits << 7) & 0x9d2c_5680;
        bits ^= (bits << 15) & 0xefc6_0000;
        bits ^ (bits >> 18)
    }

    fn turn(&mut self) {
        for index in 0..LEN {
            let both = (self.state[index] & 0x8000_0000) | (self.state[(index + 1) % LEN] & 0x7fff_ffff);
            let twist = if both & 1 == 1 { 0x9908_b0df } else { 0 };
            self.state[index] = self.state[(index + SHIFT) % LEN] ^ (both >> 1) ^ twist;
        }
        self.next = 0;
    }

    /// What `tensor.uniform_(-bound, bound)` fills an f32 tensor of `len` elements with.
    pub(crate) fn uniform(&mut self, len: usize, bound: f64) -> Vec<f32> {
        let (from, width) = (f64::from(-bound as f32), f64::from(bound as f32 - -bound as f32));
        (0..len)
            .map(|_| {
                // 24 bits by 24 bits are exact in f64, so that rounding once gives what torch's fused multiply-add gives.
                let unit = f64::from(self.next_u32() & 0x00ff_ffff) / 16_777_216.0;
                (unit * width + from) as f32
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::TorchGenerator;

    #[test]
    fn draws_are_torchs_bit_for_bit() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/tests/fixtures/scalers/torch_uniform.json");
        let cases: Vec<serde_json::Value> = serde_json::from_slice(&std::fs::read(path).unwrap()).unwrap();
        assert_eq!(cases.len(), 6);
        for case in cases {
            let (key, bound) = (case["key"].as_i64().unwrap(), case["bound"].as_f64().unwrap());
            let mut generator = TorchGenerator::new(key);
            let mut draws = generator.uniform(35, bound);
            draws.extend(generator.uniform(5 * 133, bound));
            let bits: Vec<u32> = draws.iter().map(|draw| draw.to_bits()).collect();
            let read = |name: &str| -> Vec<u32> {
                let values = case[name].as_array().unwrap().iter();
                values.map(|bits| bits.as_i64().unwrap() as i32 as u32).collect()
            };
            assert_eq!(bits.len() as u64, case["count"].as_u64().unwrap());
            assert_eq!(bits[..8], read("first"), "key {key}");
            assert_eq!(bits[bits.len() - 8..], read("last"), "key {key}");
            let sum: u64 = bits.iter().map(|bits| u64::from(*bits)).sum();
            assert_eq!(sum, case["sum"].as_u64().unwrap(), "key {key}");
        }
    }
}
