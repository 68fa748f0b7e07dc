//! Every length of padding, and padding for secrecy.

use culvert_aead::Algorithm;

use super::case;
use super::case::Case;
use super::case::Way;
use super::run;
use super::witness::Witness;
use crate::packets::forwarded;

/// E07, E08, E09: for ciphers with and without blocks, in all lengths: padding is what scapy pads
/// with, octet for octet, no longer than the block asks for, and text and trailer end where
/// alignment wants them.
#[test]
fn every_padding_is_the_shortest() {
    let Some(mut witness) = Witness::start() else { return };
    let algorithms = [Algorithm::Aes256Gcm16, Algorithm::Aes256CbcSha512, Algorithm::NullSha256];
    let case = |(number, algorithm)| Case::tunnel(number, algorithm, false);
    let cases: Vec<Case> = (1..).zip(algorithms).map(case).collect();
    let plain = witness.plain(&cases, Way::Out, |_| (0..=64).collect());
    let run = run(&case::config(&cases, Way::Out), "protected-in", &plain.concat());
    run.assert_all("forward");
    let packets: Vec<Vec<u8>> = run.unprotected.into_iter().map(|(_, packet)| packet).collect();
    let packets: Vec<Vec<Vec<u8>>> = packets.chunks(65).map(<[_]>::to_vec).collect();
    let sealed: Vec<Vec<Vec<u8>>> = plain
        .iter()
        .map(|packets| packets.iter().map(|packet| forwarded(packet)).collect())
        .collect();
    let opened = witness.open(&cases, &packets, &sealed);
    for ((case, plain), opened) in cases.iter().zip(&plain).zip(opened) {
        let block = if case.number == 2 { 16 } else { 4 };
        let mut seen = vec![false; block];
        for (plain, facts) in plain.iter().zip(&opened.found) {
            let pad_len = facts.pad_length.unwrap();
            assert!((plain.len() + pad_len + 2).is_multiple_of(block) && pad_len < block);
            seen[pad_len] = true;
        }
        assert!(seen.iter().all(|seen| *seen), "every length of padding came up");
    }
}

/// E12, E13: padding for secrecy stands behind the packet, whose length stays, and before ESP's own
/// padding; scapy takes it for data.
#[test]
fn padding_for_secrecy_is_behind_the_packet() {
    const LEN: usize = 201;
    let Some(mut witness) = Witness::start() else { return };
    let case = Case::tunnel(1, Algorithm::Aes128Gcm16, false);
    let plain = witness.plain(std::slice::from_ref(&case), Way::Out, |_| vec![0, 33, 100, 180]);
    let (sa, policy) = case.sections(Way::Out);
    let config = format!("{}{sa}tfc = {LEN}\n{policy}", case::HEAD);
    let run = run(&config, "protected-in", &plain[0]);
    run.assert_all("forward");
    let packets: Vec<Vec<u8>> = run.unprotected.into_iter().map(|(_, packet)| packet).collect();
    let judged = witness.judge(&case, Way::Out, &packets, &[0; 4]);
    for (judged, plain) in judged.into_iter().zip(&plain[0]) {
        let (found, plain) = (judged.expect("it is authentic"), forwarded(plain));
        assert_eq!(found[..plain.len()], plain);
        assert_eq!(found.len(), LEN.max(plain.len()));
        assert!(found[plain.len()..].iter().all(|octet| *octet == 0));
    }
}
