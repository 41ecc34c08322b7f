//! Short fixed-width stand-ins for texts: what two programs that know the same text agree on without asking.

/// FNV-1a of 128 bits over the parts, one after the other, most significant byte first. Anybody can compute it in
/// a few lines. It is no secret and proves nothing: whoever may use a name or an id may use any.
pub(super) fn fnv128(parts: &[&[u8]]) -> [u8; 16] {
    const BASIS: u128 = 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d;
    const PRIME: u128 = 0x0000_0000_0100_0000_0000_0000_0000_013b;
    let bytes = parts.iter().flat_map(|part| part.iter());
    let hash = bytes.fold(BASIS, |hash, &byte| {
        (hash ^ u128::from(byte)).wrapping_mul(PRIME)
    });
    hash.to_be_bytes()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_is_the_hash_of_that_name() {
        let of = |text: &str| u128::from_be_bytes(fnv128(&[text.as_bytes()]));
        assert_eq!(of(""), 0x6c62_272e_07bb_0142_62b8_2175_6295_c58d);
        assert_eq!(of("a"), 0xd228_cb69_6f1a_8caf_7891_2b70_4e4a_8964);
        assert_eq!(fnv128(&[b"foo", b"bar"]), fnv128(&[b"foobar"]));
        assert_eq!(of("foobar"), 0x343e_1662_793c_64bf_6f0d_3597_ba44_6f18);
    }
}
