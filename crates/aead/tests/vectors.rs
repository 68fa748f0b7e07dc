//! Vectors made by others, for every algorithm: NIST CAVP, Wycheproof, and those of the RFCs.
//!
//! Each runs over the portable provider and over the best one of the machine, and those of AES-GCM
//! over every provider, since the others are all the portable one's. Where a vector is not
//! an ESP packet it goes through the general entry, and for CBC, which that has not, in a packet
//! around it. The files in `vectors` are made by `pack.py` beside them. Every vector written here
//! was checked with OpenSSL and Python's `hmac`.

use std::sync::LazyLock;

use culvert_aead::Aead;
use culvert_aead::Algorithm;
use culvert_aead::Keymat;
use culvert_aead::Op;
use culvert_aead::Provider;
use culvert_aead::RustCrypto;
use culvert_aead::Status;
use wycheproof::TestResult;

/// A test for each provider.
macro_rules! vectors {
    ($($(#[$doc:meta])* $test:ident;)*) => {
        mod portable {
            $($(#[$doc])* #[test] fn $test() { super::$test(super::RustCrypto); })*
        }
        mod best {
            $($(#[$doc])* #[test] fn $test() { super::$test(*super::BEST); })*
        }
    };
}

/// G01, G04, G06: NIST's vectors of AES-GCM, by every provider that this machine runs.
mod cavp_gcm_by {
    use std::io::Write;

    use culvert_aead::Provider;
    use culvert_aead::ProviderError;
    use culvert_aead::Unusable;

    fn check(name: &str) {
        match Provider::named(name) {
            Ok(provider) => super::cavp_gcm(provider),
            Err(ProviderError::Unavailable {
                reason: reason @ (Unusable::Lacks(_) | Unusable::OtherCpu),
                ..
            }) => {
                // Not `eprintln!`, which is captured.
                let mut stderr = std::io::stderr();
                writeln!(stderr, "SKIPPED cavp_gcm_by {name}: {reason}").unwrap();
            }
            Err(error) => panic!("{error}"),
        }
    }

    #[test]
    fn vaes_avx512() {
        check("vaes-avx512");
    }

    #[test]
    fn vaes_avx2() {
        check("vaes-avx2");
    }

    #[test]
    fn aes_ni() {
        check("aes-ni");
    }

    #[test]
    fn aws_lc_rs() {
        check("aws-lc-rs");
    }
}

static BEST: LazyLock<Provider> = LazyLock::new(|| Provider::best().provider);

fn key<P: Aead>(provider: &P, algorithm: Algorithm, parts: &[&[u8]]) -> P::Key {
    provider.key(algorithm, &Keymat::new(parts.concat())).unwrap()
}

/// The algorithm of ESP with such a keyword, its AES key in bits in the place of `{}`.
fn sized(keyword: &str, key: &[u8]) -> Algorithm {
    keyword.replace("{}", &(key.len() * 8).to_string()).parse().unwrap()
}

fn seal<P: Aead>(provider: &mut P, key: &P::Key, esn_high: Option<u32>, esp: &mut [u8]) {
    provider.seal(&mut [Op { key, esn_high, esp }]);
}

fn open<P: Aead>(provider: &mut P, key: &P::Key, esn_high: Option<u32>, esp: &mut [u8]) -> bool {
    let mut statuses = [Status::Pending];
    provider.open(&mut [Op { key, esn_high, esp }], &mut statuses);
    matches!(statuses, [Status::Authentic(_)])
}

/// Seals and opens by the general entry, with a salt of zeroes, which that ignores.
fn check_general<P: Aead>(
    provider: &mut P,
    key: &P::Key,
    [nonce, aad]: [&[u8]; 2],
    text: Option<&[u8]>,
    sealed: &[u8],
    icv_len: usize,
) {
    let nonce = nonce.try_into().unwrap();
    let mut octets = sealed.to_vec();
    assert_eq!(provider.open_general(key, nonce, aad, &mut octets), text.is_some());
    let Some(text) = text else {
        assert_eq!(octets, sealed, "a forged text was changed");
        return;
    };
    assert_eq!(octets[..text.len()], *text);
    octets = [text, &vec![0; icv_len]].concat();
    provider.seal_general(key, nonce, aad, &mut octets);
    assert_eq!(octets, sealed);
}

/// The next field of a record of `vectors/*.bin`; `None` for one that is absent.
fn field<'a>(octets: &mut &'a [u8]) -> Option<&'a [u8]> {
    let (len, rest) = octets.split_first_chunk().expect("whole records");
    let len = usize::from(u16::from_be_bytes(*len));
    let (field, rest) =
        if len == 0xffff { (None, rest) } else { (Some(&rest[..len]), &rest[len..]) };
    *octets = rest;
    field
}

fn fields<'a, const N: usize>(octets: &mut &'a [u8]) -> [&'a [u8]; N] {
    std::array::from_fn(|_| field(octets).expect("a field that is there"))
}

fn cavp_gcm<P: Aead>(mut provider: P) {
    let mut records = &include_bytes!("vectors/gcm.bin")[..];
    let (mut by_icv, mut forged, mut gmac) = ([0_usize; 17], 0, 0);
    while !records.is_empty() {
        let [octets, nonce, aad] = fields(&mut records);
        let text = field(&mut records);
        let [sealed, icv] = fields(&mut records);
        let algorithm = sized(&format!("aes{{}}gcm{}", icv.len()), octets);
        let gcm = key(&provider, algorithm, &[octets, &[0; 4]]);
        let with_icv = [sealed, icv].concat();
        check_general(&mut provider, &gcm, [nonce, aad], text, &with_icv, icv.len());
        if sealed.is_empty() && icv.len() == 16 {
            let key = key(&provider, sized("aes{}gmac", octets), &[octets, &[0; 4]]);
            check_general(&mut provider, &key, [nonce, aad], text, icv, icv.len());
            gmac += 1;
        }
        by_icv[icv.len()] += 1;
        forged += usize::from(text.is_none());
    }
    // That none is lost: 3 sizes of key, 5 of text, 5 of AAD, 15 cases, encryption for 16 octets.
    assert_eq!([16, 12, 8].map(|len| by_icv[len]), [2250, 1125, 1125]);
    assert!(forged > 1000 && gmac == 450, "{forged} forged, {gmac} of GMAC");
}

/// An ESP packet around an IV and whole blocks, with an ICV by the general entry.
fn cbc_packet<P: Aead>(provider: &mut P, iv: &[u8], blocks: &[u8]) -> Vec<u8> {
    let hmac = key(provider, Algorithm::NullSha256, &[&[0x5a; 32]]);
    let mut octets = [&[0, 0, 0x43, 0x21, 0, 0, 0, 1], iv, blocks, &[0; 16]].concat();
    provider.seal_general(&hmac, &[0; 12], b"", &mut octets);
    octets
}

/// The text of a packet of CBC.
fn open_cbc<P: Aead>(provider: &mut P, octets: &[u8], iv: &[u8], blocks: &[u8]) -> Vec<u8> {
    let key = key(provider, sized("aes{}-sha256", octets), &[octets, &[0x5a; 32]]);
    let mut packet = cbc_packet(provider, iv, blocks);
    assert!(open(provider, &key, None, &mut packet));
    packet[24..24 + blocks.len()].to_vec()
}

fn cavp_cbc<P: Aead>(mut provider: P) {
    let mut records = &include_bytes!("vectors/cbc.bin")[..];
    let mut count = 0;
    while !records.is_empty() {
        let [octets, iv, text, sealed] = fields(&mut records);
        assert_eq!(open_cbc(&mut provider, octets, iv, sealed), text);
        count += 1;
    }
    // Encrypted and decrypted: tables of S-boxes, variable keys and texts, and longer texts.
    assert_eq!(count, 2 * (18 + 61 + 576 + 384 + 30));
}

fn parts_of_blocks<P: Aead>(mut provider: P) {
    let key = key(&provider, Algorithm::Aes128CbcSha256, &[&[1; 16], &[0x5a; 32]]);
    for len in 0..100 {
        let mut packet = cbc_packet(&mut provider, &[7; 16], &vec![9; len]);
        let arrived = packet.clone();
        let authentic = open(&mut provider, &key, None, &mut packet);
        assert_eq!(authentic, len % 16 == 0, "{len}");
        assert_eq!(authentic && len > 0, packet != arrived, "{len}");
    }
}

fn wycheproof_cbc<P: Aead>(mut provider: P) {
    use wycheproof::cipher::TestName;
    use wycheproof::cipher::TestSet;
    let tests = TestSet::load(TestName::AesCbcPkcs5).unwrap().test_groups.into_iter();
    let mut count = 0;
    for test in tests.flat_map(|group| group.tests) {
        // What is invalid is the padding, of which ESP has one of its own, or no block at all.
        if test.result != TestResult::Valid {
            continue;
        }
        let padding = 16 - test.pt.len() % 16;
        let padded = [&test.pt[..], &vec![u8::try_from(padding).unwrap(); padding]].concat();
        assert_eq!(open_cbc(&mut provider, &test.key, &test.nonce, &test.ct), padded);
        count += 1;
    }
    assert_eq!(count, 72);
}

fn wycheproof_gmac<P: Aead>(mut provider: P) {
    use wycheproof::mac_with_nonce::TestName;
    use wycheproof::mac_with_nonce::TestSet;
    let mut count = 0;
    for group in TestSet::load(TestName::Gmac).unwrap().test_groups {
        // Nonces of ESP and AH have 96 bits.
        for test in group.tests.into_iter().filter(|_| group.nonce_size == 96) {
            let key = key(&provider, sized("aes{}gmac", &test.key), &[&test.key, &[0; 4]]);
            let text = (test.result == TestResult::Valid).then_some(&[][..]);
            check_general(&mut provider, &key, [&test.nonce, &test.msg], text, &test.tag, 16);
            count += 1;
        }
    }
    assert_eq!(count, 207);
}

fn wycheproof_chacha<P: Aead>(mut provider: P) {
    use wycheproof::aead::TestName;
    use wycheproof::aead::TestSet;
    let mut count = [0; 2];
    for group in TestSet::load(TestName::ChaCha20Poly1305).unwrap().test_groups {
        for test in group.tests.into_iter().filter(|_| group.nonce_size == 96) {
            let key = key(&provider, Algorithm::ChaCha20Poly1305, &[&test.key, &[0; 4]]);
            let text = (test.result == TestResult::Valid).then_some(&test.pt[..]);
            let sealed = [&test.ct[..], &test.tag].concat();
            check_general(&mut provider, &key, [&test.nonce, &test.aad], text, &sealed, 16);
            count[usize::from(text.is_none())] += 1;
        }
    }
    assert_eq!(count, [256, 60]);
}

fn wycheproof_hmac<P: Aead>(mut provider: P) {
    use wycheproof::mac::TestName;
    use wycheproof::mac::TestSet;
    let sets = [
        (TestName::HmacSha256, Algorithm::NullSha256),
        (TestName::HmacSha384, Algorithm::NullSha384),
        (TestName::HmacSha512, Algorithm::NullSha512),
    ];
    for (name, algorithm) in sets {
        let mut count = 0;
        for group in TestSet::load(name).unwrap().test_groups {
            let has_our_lengths = group.key_size == 8 * algorithm.keymat_len()
                && group.tag_size == 8 * algorithm.icv_len();
            for test in group.tests.into_iter().filter(|_| has_our_lengths) {
                let key = key(&provider, algorithm, &[&test.key]);
                let text = (test.result == TestResult::Valid).then_some(&test.msg[..]);
                let sealed = [&test.msg[..], &test.tag].concat();
                let nonce = [0; 12];
                let icv_len = algorithm.icv_len();
                check_general(&mut provider, &key, [&nonce, b""], text, &sealed, icv_len);
                count += 1;
            }
        }
        assert_eq!(count, 81, "{algorithm}");
    }
}

/// RFC 4868 section 2.7.2: ICVs of messages 1 to 4, by algorithm.
const RFC_4868: [(Algorithm, [&str; 4]); 3] = [
    (
        Algorithm::NullSha256,
        [
            "198a607eb44bfbc69903a0f1cf2bbdc5",
            "167f928588c5cc2eef8e3093caa0e87c",
            "cdcb1220d1ecccea91e53aba3092f962",
            "372efcf9b40b35c2115b1346903d2ef4",
        ],
    ),
    (
        Algorithm::NullSha384,
        [
            "b6a8d5636f5c6a7224f9977dcf7ee6c7fb6d0c48cbdee973",
            "2c7353974f1842fd66d53c452ca42122b28c0b594cfb184d",
            "809f439be00274321d4a538652164b53554a508184a0c316",
            "5b540085c6e6358096532b2493609ed1cb298f774f87bb5c",
        ],
    ),
    (
        Algorithm::NullSha512,
        [
            "637edc6e01dce7e6742a99451aae82df23da3e92439e590e43e761b33e910fb8",
            "cb370917ae8a7ce28cfd1d8f4705d6141c173b2a9362c15df235dfb251b15454",
            "2ee7acd783624ca9398710f3ee05ae41b9f9b0510c87e49e586cc9bf961733d8",
            "5e6688e5a3daec826ca32eaea224eff5e700628947470e13ad01302561bab108",
        ],
    ),
];

/// The keys of those, for a hash of `len` octets.
fn rfc_4868_keys(len: usize) -> [Vec<u8>; 4] {
    let counted: Vec<u8> = (1..=32).chain(if len == 48 { 10..=25 } else { 33..=64 }).collect();
    let name = b"Jefe".iter().copied().cycle().take(len);
    [vec![0x0b; len], name.collect(), vec![0xaa; len], counted[..len].to_vec()]
}

const RFC_4868_MESSAGES: [&[u8]; 4] =
    [b"Hi There", b"what do ya want for nothing?", &[0xdd; 50], &[0xcd; 50]];

fn rfc_4868<P: Aead>(mut provider: P) {
    for (algorithm, icvs) in RFC_4868 {
        let keys = rfc_4868_keys(algorithm.integrity_key_len());
        for ((octets, message), icv) in keys.iter().zip(RFC_4868_MESSAGES).zip(icvs) {
            let key = key(&provider, algorithm, &[octets]);
            // A message is a packet: what should be SPI and number are its first octets.
            let icv = hex::decode(icv).unwrap();
            let expected = [message, &icv].concat();
            let mut esp = [message, &vec![0; icv.len()]].concat();
            seal(&mut provider, &key, None, &mut esp);
            assert_eq!(esp, expected, "{algorithm}");
            assert!(open(&mut provider, &key, None, &mut esp));
            // Its last four octets as the high half, which is covered in that place, and not sent.
            let (sent, high) = message.split_last_chunk::<4>().unwrap();
            let high = Some(u32::from_be_bytes(*high));
            let Some(text_len) = sent.len().checked_sub(8) else { continue };
            let mut esp = [sent, &vec![0; icv.len()]].concat();
            seal(&mut provider, &key, high, &mut esp);
            assert_eq!(esp, [sent, &icv].concat(), "{algorithm}, {text_len} octets of text");
            assert!(open(&mut provider, &key, high, &mut esp));
        }
    }
}

/// A packet of ESP, sealed by someone else.
struct Packet {
    keyword: &'static str,
    keymat: &'static str,
    header_and_iv: &'static str,
    text: &'static str,
    sealed: &'static str,
}

/// RFC 7634 appendix A.
const RFC_7634: Packet = Packet {
    keyword: "chacha20poly1305",
    keymat: "808182838485868788898a8b8c8d8e8f909192939495969798999a9b9c9d9e9fa0a1a2a3",
    header_and_iv: "01020304000000051011121314151617",
    text: concat!(
        "45000054a6f200004001e778c6336405c000020508005b7a3a080000553bec10",
        "0007362708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f20212223",
        "2425262728292a2b2c2d2e2f303132333435363701020204",
    ),
    sealed: concat!(
        "24039428b97f417e3c13753a4f05087b67c352e6a7fab1b982d466ef407ae5c6",
        "14ee8099d52844eb61aa95dfab4c02f72aa71e7c4c4f64c9befe2facc638e8f3",
        "cbec163fac469b502773f6fb94e664da9165b82829f641e0",
        "76aaa8266b7fb0f7b11b369907e1ad43",
    ),
};

/// ESP with GMAC: from Linux's crypto/testmgr.h, and a packet that a driver for crypto hardware is
/// tested with.
const RFC_4543: [Packet; 2] = [
    Packet {
        keyword: "aes128gmac",
        keymat: "4c80cdefbb5d10da906ac73c3613a63422433c64",
        header_and_iv: "00004321000000070000000000000000",
        text: concat!(
            "45000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364",
            "65666768696a6b6c6d6e6f707172737401020201",
        ),
        sealed: concat!(
            "45000030da3a00008001df3bc0a80005c0a800010800c6cd0200070061626364",
            "65666768696a6b6c6d6e6f707172737401020201",
            "f2a9a836e155106aa8dcd618e4099aaa",
        ),
    },
    Packet {
        keyword: "aes128gmac",
        keymat: "f89370ca901af1a99070273f0e90db572f5af3fc",
        header_and_iv: "91909dc90000000173e18b4108000000",
        text: concat!(
            "4500006400050000ff01a28a0c0000010d0000090800294d0005000000000000",
            "016f5389abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd",
            "abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd",
            "abcdabcd01020204",
        ),
        sealed: concat!(
            "4500006400050000ff01a28a0c0000010d0000090800294d0005000000000000",
            "016f5389abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd",
            "abcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcdabcd",
            "abcdabcd01020204",
            "8ff59c004238788f41a38a69c8fe3855",
        ),
    },
];

fn check_packet<P: Aead>(provider: &mut P, packet: &Packet) {
    let unhex = |digits: &str| hex::decode(digits).unwrap();
    let algorithm: Algorithm = packet.keyword.parse().unwrap();
    let key = key(provider, algorithm, &[&unhex(packet.keymat)]);
    let (header, text) = (unhex(packet.header_and_iv), unhex(packet.text));
    let sealed = [&header[..], &unhex(packet.sealed)].concat();
    let mut esp = [&header[..], &text, &vec![0; algorithm.icv_len()]].concat();
    seal(provider, &key, None, &mut esp);
    assert_eq!(hex::encode(&esp), hex::encode(sealed));
    assert!(open(provider, &key, None, &mut esp));
    assert_eq!(esp[header.len()..][..text.len()], text);
}

fn rfc_7634<P: Aead>(mut provider: P) {
    check_packet(&mut provider, &RFC_7634);
}

fn rfc_4543<P: Aead>(mut provider: P) {
    RFC_4543.iter().for_each(|packet| check_packet(&mut provider, packet));
}

/// RFC 3602 section 4: key, IV, text and blocks of cases 1, 2 and 5.
const RFC_3602: [[&str; 4]; 3] = [
    [
        "06a9214036b8a15b512e03d534120006",
        "3dafba429d9eb430b422da802c9fac41",
        "53696e676c6520626c6f636b206d7367",
        "e353779c1079aeb82708942dbe77181a",
    ],
    [
        "c286696d887c9aa0611bbb3e2025a45a",
        "562e17996d093d28ddb3ba695a2e6f58",
        "000102030405060708090a0b0c0d0e0f101112131415161718191a1b1c1d1e1f",
        "d296cd94c2cccf8a3a863028b5e1dc0a7586602d253cfff91b8266bea6d61ab1",
    ],
    [
        "90d382b410eeba7ad938c46cec1a82bf",
        "e96e8c08ab465763fd098d45dd3ff893",
        concat!(
            "08000ebda70a00008e9c083db95b070008090a0b0c0d0e0f1011121314151617",
            "18191a1b1c1d1e1f202122232425262728292a2b2c2d2e2f3031323334353637",
            "0102030405060708090a0b0c0d0e0e01",
        ),
        concat!(
            "f663c25d325c18c6a9453e194e120849a4870b66cc6b9965330013b4898dc856",
            "a4699e523a55db080b59ec3a8e4b7e52775b07d1db34ed9c538ab50c551b874a",
            "a269add047ad2d5913ac19b7cfbad4a6",
        ),
    ],
];

fn rfc_3602<P: Aead>(mut provider: P) {
    for case in RFC_3602 {
        let [key, iv, text, blocks] = case.map(|digits| hex::decode(digits).unwrap());
        assert_eq!(open_cbc(&mut provider, &key, &iv, &blocks), text);
    }
}

/// A packet of an algorithm with a key that others have too, numbered 5, and with `iv` if it has a
/// counter there.
fn numbered<P: Aead>(
    provider: &mut P,
    algorithm: Algorithm,
    esn_high: Option<u32>,
    iv: u64,
) -> Vec<u8> {
    let octets: Vec<u8> = (1..=36).collect();
    let (salt, aes) = octets.split_first_chunk::<4>().unwrap();
    let key = key(provider, algorithm, &[&aes[..algorithm.key_len()], salt]);
    let mut esp = vec![0, 0, 0x10, 1, 0, 0, 0, 5];
    if algorithm.iv_len() > 0 {
        esp.extend(iv.to_be_bytes());
    }
    esp.extend(0..100);
    esp.resize(esp.len() + algorithm.icv_len(), 0);
    seal(provider, &key, esn_high, &mut esp);
    esp
}

fn implicit_ivs<P: Aead>(mut provider: P) {
    let pairs = [
        (Algorithm::Aes128Gcm16, Algorithm::Aes128Gcm16Iiv),
        (Algorithm::Aes192Gcm16, Algorithm::Aes192Gcm16Iiv),
        (Algorithm::Aes256Gcm16, Algorithm::Aes256Gcm16Iiv),
        (Algorithm::ChaCha20Poly1305, Algorithm::ChaCha20Poly1305Iiv),
    ];
    for (explicit, implicit) in pairs {
        for (esn_high, iv) in [(None, 5), (Some(0), 5), (Some(7), 7 << 32 | 5)] {
            let with = numbered(&mut provider, explicit, esn_high, iv);
            let without = numbered(&mut provider, implicit, esn_high, 0);
            assert_eq!(without.len() + 8, with.len());
            assert_eq!(without, [&with[..8], &with[16..]].concat(), "{implicit}");
        }
    }
}

fn short_icvs<P: Aead>(mut provider: P) {
    for bits in [128, 192, 256] {
        let algorithm = |icv: usize| format!("aes{bits}gcm{icv}").parse().unwrap();
        let full = numbered(&mut provider, algorithm(16), None, 5);
        for icv_len in [12, 8] {
            let short = numbered(&mut provider, algorithm(icv_len), None, 5);
            assert_eq!(short, full[..full.len() - 16 + icv_len]);
        }
    }
}

vectors! {
    /// G01, G04, G06: NIST's vectors of AES-GCM, with tags of 16, 12 and 8 octets, and GMAC.
    cavp_gcm;
    /// G10: NIST's vectors of AES-CBC.
    cavp_cbc;
    /// G10: Google's vectors of AES-CBC.
    wycheproof_cbc;
    /// Text of CBC that is not whole blocks is forged, although its ICV is right, and left as it
    /// was; a peer that has the key does not make us panic.
    parts_of_blocks;
    /// G06: Google's vectors of AES-GMAC.
    wycheproof_gmac;
    /// G07: Google's vectors of ChaCha20-Poly1305.
    wycheproof_chacha;
    /// G10: Google's vectors of HMAC, with the lengths of RFC 4868.
    wycheproof_hmac;
    /// G10, E15: the vectors of RFC 4868 as ESP packets, and their ends as the high half of the
    /// sequence number, which is appended to what is covered and not sent.
    rfc_4868;
    /// G07: the packet of RFC 7634 appendix A.
    rfc_7634;
    /// G06: ESP packets with GMAC: SPI, number, IV and text are covered, and nothing is encrypted.
    rfc_4543;
    /// G10: the vectors of RFC 3602 section 4.
    rfc_3602;
    /// G08: with implicit IV a packet is the one whose IV is the sequence number, less that IV.
    implicit_ivs;
    /// G04: an ICV of 12 or 8 octets is the start of the one of 16.
    short_icvs;
}
