//! What an operator's files may hold: configurations and captures.

use std::fs;

use culvert::cli::LinkType;
use culvert::cli::ReplayArgs;
use culvert::config::Config;
use culvert_fuzz::Draft;
use culvert_fuzz::target;

/// Lines of the example, and others that are nearly right.
fn lines() -> Vec<&'static str> {
    let more = "[[sa]]\n[[policy]]\n[gateway]\nspi = 0\nspi = 0x1_0000_0000\nname = \"\"\n\
        algorithm = \"aes128gcm8\"\nkey = \"zz\"\nsource = \"10.1.0.0/33\"\nwindow = 63\n= 1\n[a";
    Config::example().lines().chain(more.lines()).collect()
}

/// Any text is a configuration or an error that says where it is wrong.
#[test]
fn configuration_text() {
    let lines = lines();
    target!().for_each(|input: &[u8]| {
        let mut draft = Draft(input);
        let text = match draft.below(4) {
            0 => String::from_utf8_lossy(draft.0).into_owned(),
            1 => {
                // The example with some octets changed.
                let mut text = Config::example().as_bytes().to_vec();
                while !draft.is_empty() {
                    let at = usize::from(draft.word()) % text.len();
                    text[at] = draft.octet();
                }
                String::from_utf8_lossy(&text).into_owned()
            }
            // Lines in any order, or the example without some.
            2 => draft
                .0
                .iter()
                .map(|&at| lines[usize::from(at) % lines.len()].to_owned() + "\n")
                .collect(),
            _ => lines
                .iter()
                .filter(|line| !line.is_empty() && draft.octet() % 16 != 1)
                .map(|line| (*line).to_owned() + "\n")
                .collect(),
        };
        if let Err(error) = Config::parse("fuzz.toml", &text) {
            assert!(error.to_string().contains("fuzz.toml"), "{error}");
        }
    });
}

/// A capture of one frame of each kind; little-endian pcap, and pcapng.
fn captures() -> [Vec<u8>; 2] {
    let frame = [[2; 12].as_slice(), &[8, 0], &[0x45; 46]].concat();
    let number = |number: usize| u32::try_from(number).unwrap().to_le_bytes();
    let len = number(frame.len());
    let pcap_header = [0xa1b2_c3d4, 0x0004_0002, 0, 0, 65535, 1].map(number).concat();
    let record = [&number(1)[..], &number(2), &len, &len, &frame].concat();
    let pcap = [&pcap_header[..], &record, &record].concat();
    let section =
        [0x0a0d_0d0a, 28, 0x1a2b_3c4d, 1, 0xffff_ffff, 0xffff_ffff, 28].map(number).concat();
    let interface = [1, 20, 1, 65535, 20].map(number).concat();
    let packet = [6, 92, 0, 0, 0].map(number).concat();
    let packet = [&packet[..], &len, &len, &frame, &number(92)].concat();
    [pcap, [&section[..], &interface, &packet, &packet].concat()]
}

/// Any file is a capture or an error; no length in it is believed.
#[test]
fn capture_file() {
    let directory = tempfile::tempdir().unwrap();
    let (config, capture) = (directory.path().join("c.toml"), directory.path().join("in.pcap"));
    fs::write(&config, Config::example()).unwrap();
    let captures = captures();
    let run = |octets: &[u8]| {
        fs::write(&capture, octets).unwrap();
        culvert::replay::replay(&ReplayArgs {
            config: config.clone(),
            protected_in: None,
            unprotected_in: Some(capture.clone()),
            protected_out: None,
            unprotected_out: None,
            report: None,
            verdicts: None,
            audit: None,
            events: None,
            provider: culvert_aead::Provider::AUTO.to_owned(),
            mtu: 1600,
            link: LinkType::Ethernet,
        })
    };
    for capture in &captures {
        run(capture).expect("a genuine capture");
    }
    target!().for_each(|input: &[u8]| {
        _ = run(&culvert_fuzz::changed(&captures, input));
    });
}
