//! ICVs computed with OpenSSL and Python's `hmac`, for the self test.
//!
//! Octet `i` of all keys together is `7 i + 1`, of the text `31 i + number`; salt a0a1a2a3, SPI
//! c0ffee01, sequence number and IV `number`. Odd numbers are extended, with the high half `number
//! ^ deadbeef`. The text has `number` octets, for CBC rounded up to whole blocks. The IV of CBC is
//! made as [`port`](crate::port) says, its key being HMAC-SHA-256 of "culvert: key of the IVs of
//! AES-CBC" under all of KEYMAT.
//!
//! For AH octet `i` of the header, which has 20, is `5 i + 3`; the next header is 4; odd numbers
//! are padded to a multiple of 8 octets, with octets ee; the payload is the text above.
//!
//! Of ICVs longer than 16 octets the first 16 are given; shorter ones are the start of a full one.

use crate::algorithm::Algorithm;

/// The numbers of the packets whose ICVs follow, in order.
pub(super) const ESP_NUMBERS: [u16; 3] = [17, 513, 1420];

/// For [`KNOWN_AH`].
pub(super) const AH_NUMBERS: [u16; 2] = [17, 512];

/// AES-GCM with IV: shorter ICVs are the start of the longest.
const AES128_GCM: [u128; ESP_NUMBERS.len()] = [
    0x9ae4_7c98_ff58_721b_e8ea_3dee_8f8a_682d,
    0xce32_cdcc_0daa_cc29_1c78_1718_aced_9279,
    0x4c78_520d_2ab8_2813_005e_9f31_c1b8_afb3,
];
const AES192_GCM: [u128; ESP_NUMBERS.len()] = [
    0xfe0b_adaa_149b_675d_9b01_b8cf_2297_41f3,
    0x37f3_60a5_08ac_685c_0983_7ce2_308b_308b,
    0x7452_de27_b42b_3164_6b24_038c_2e87_8eb6,
];
const AES256_GCM: [u128; ESP_NUMBERS.len()] = [
    0x60b3_dbaf_0b7a_bbcd_0f27_cf49_78ef_a9a0,
    0x64cf_59aa_371a_4f62_3ca5_d3ad_7fa5_a3fe,
    0xfaa7_301c_a7bc_7552_b068_d853_51d7_69d1,
];

/// By algorithm, and then by number.
pub(super) const KNOWN_ESP: [[u128; ESP_NUMBERS.len()]; Algorithm::ALL.len()] = [
    // aes128gcm16
    AES128_GCM,
    // aes192gcm16
    AES192_GCM,
    // aes256gcm16
    AES256_GCM,
    // aes128gcm12
    AES128_GCM,
    // aes192gcm12
    AES192_GCM,
    // aes256gcm12
    AES256_GCM,
    // aes128gcm8
    AES128_GCM,
    // aes192gcm8
    AES192_GCM,
    // aes256gcm8
    AES256_GCM,
    // chacha20poly1305
    [
        0xf45d_c1d3_9984_a2e9_67c2_fbbb_8f67_9d05,
        0x3285_2e5e_f988_e3c4_a2ca_9ee5_3261_cfb8,
        0xff71_a026_82d5_bc6e_ded2_6814_3173_a4b0,
    ],
    // aes128gcm16iiv
    [
        0x4941_0678_41fa_8b9c_a61b_2859_f8ae_8ea2,
        0x8112_ef21_5ab1_ce88_0dda_5055_7a08_63af,
        0x4c78_520d_2ab8_2813_005e_9f31_c1b8_afb3,
    ],
    // aes192gcm16iiv
    [
        0x61dc_0c2d_3d8f_7ee8_2a0b_d23a_2362_5d6c,
        0x99e7_fcec_96e6_1edd_1b5e_7454_9cec_ab5c,
        0x7452_de27_b42b_3164_6b24_038c_2e87_8eb6,
    ],
    // aes256gcm16iiv
    [
        0xf4c1_7a02_334b_f5d7_6163_fb7a_2f3d_919a,
        0x8491_1f5f_3b10_8a99_27b5_a523_ce11_1d1d,
        0xfaa7_301c_a7bc_7552_b068_d853_51d7_69d1,
    ],
    // chacha20poly1305iiv
    [
        0x6a62_329d_6299_1ba6_a2ce_dbfc_b509_27f1,
        0x5f54_b620_a9ed_986e_ab0c_f471_45a1_2d91,
        0xff71_a026_82d5_bc6e_ded2_6814_3173_a4b0,
    ],
    // aes128-sha256
    [
        0xe2d7_0e3a_3ec1_515e_3619_db92_e51e_dbfd,
        0xa235_72ec_beb8_115d_e77d_00aa_72c9_4ccb,
        0xee96_47dc_6783_981a_41a9_df71_861e_71b6,
    ],
    // aes192-sha256
    [
        0x889a_7f57_0454_5fb7_2f31_e203_fe05_a1d4,
        0x8b00_3ac1_79cc_1a18_a171_1a3b_fbd8_47de,
        0x4205_3274_7c51_888d_bd57_05ef_56d8_2a15,
    ],
    // aes256-sha256
    [
        0xd7e1_5703_d649_5274_9e24_484c_3d08_c585,
        0xaf88_6734_1e58_3dd3_af33_6690_2e8e_61a9,
        0x9fae_6253_8d5b_b0e8_4bf2_b87e_8606_92e7,
    ],
    // aes128-sha384
    [
        0x41f1_c916_6913_1f66_3476_3ba0_1ac1_d504,
        0xe27f_5c92_171f_d356_abb2_0f3c_bed3_de7a,
        0x5444_4f6f_bd21_0aec_0660_2263_498f_a34a,
    ],
    // aes192-sha384
    [
        0x99c6_1b8a_87a7_2055_b798_076f_e645_4f25,
        0x925d_213c_8e53_5e56_fc94_98ab_4241_597f,
        0x4dbb_0d2f_378b_52d4_d847_5ef5_aa38_c596,
    ],
    // aes256-sha384
    [
        0xfd49_dfe1_0f67_4ad8_cb29_eb83_6309_2456,
        0xd3b4_abe5_f89e_0423_f002_bd08_8536_7e55,
        0xcdef_8d35_14dd_17f5_bb65_ab7c_f757_df57,
    ],
    // aes128-sha512
    [
        0xa377_673e_b059_2ec2_2a56_2511_4b77_fd79,
        0xd00b_ced3_424e_ba00_a29f_ab49_0b13_4cd3,
        0x4b1a_aa2f_23a1_9e95_044c_020e_687c_4a03,
    ],
    // aes192-sha512
    [
        0xc3fe_d027_8d2f_a463_ba19_24f0_354b_0998,
        0xc51c_7509_6e0f_ac67_1287_8c39_6937_0ea0,
        0xd83e_afb1_924f_0f60_859d_55eb_b243_df3c,
    ],
    // aes256-sha512
    [
        0xed71_c1fe_020c_2ea9_34af_9df7_363a_4d52,
        0x9528_9d68_e254_1418_a30b_6215_1617_d668,
        0x757f_8bbc_6461_f401_a80b_1be1_d108_8b2d,
    ],
    // aes128gmac
    [
        0x59c1_b5ad_47fc_b82c_29a8_31f9_2345_df2b,
        0x2e39_1149_d57e_3eab_bca1_b3a2_0930_26d3,
        0x71a0_1486_3615_f10f_5852_1023_708a_bc78,
    ],
    // aes192gmac
    [
        0x6633_6b4a_38cd_3328_b901_6777_3d6c_6314,
        0xa3b7_15ef_718c_480a_1ab5_ed7c_6525_68cb,
        0x86c3_1902_b153_18e0_b1f5_dfbd_86fa_6515,
    ],
    // aes256gmac
    [
        0x74a8_cc69_17cb_4ff4_c7b1_06e2_5023_d69d,
        0xa7e4_0296_4c91_9847_1fb3_1ec3_0e6d_634b,
        0x6508_8583_9e04_3b72_5085_5d81_02b2_d99e,
    ],
    // null-sha256
    [
        0x07be_2090_f8a0_94ba_076a_2dba_df09_294c,
        0xf760_77eb_d09e_264b_4c68_9708_0611_424c,
        0xaf6c_530e_1b61_bb6d_3f39_6882_600f_0195,
    ],
    // null-sha384
    [
        0xb09e_8eca_7a1f_599f_f733_72ff_180e_c5af,
        0x46ef_1d18_c72a_2dfe_884e_fc2e_f1ed_53a4,
        0xb42c_5930_b8fb_4b5c_3dbb_2889_2f10_ed22,
    ],
    // null-sha512
    [
        0xeea7_4862_d300_0798_6d58_b781_a9db_d91d,
        0x5c9d_65ed_a28e_0233_8801_f571_218f_d40c,
        0x2535_de7e_785f_c37b_c217_28f6_d0bd_6ffb,
    ],
];

/// By algorithm, and then by number.
pub(super) const KNOWN_AH: [[u128; AH_NUMBERS.len()]; Algorithm::ALL_AH.len()] = [
    // sha256
    [0x32e2_b33d_5c2b_f15e_9b52_488e_ef58_c1ab, 0x4390_a6ef_ac50_9a10_e889_3d07_43e8_7814],
    // sha384
    [0x8aca_fd7a_153b_4885_2077_b28a_3eac_cb4f, 0x654d_e9e5_ecc6_c396_b493_8273_645e_0614],
    // sha512
    [0x23af_262c_d40b_5d43_d5ae_764f_cfaf_a60b, 0x35eb_f7b1_2ec4_b4da_5f8b_6b02_dd9f_e7e4],
    // aes128gmac
    [0x0c30_04e8_4103_7747_28ce_3714_5277_3611, 0xd466_795d_eebd_5750_9f2f_4f5d_320b_ddd4],
    // aes192gmac
    [0x9e1a_0271_c202_c21b_4c1d_8d17_9061_b275, 0x9ea1_9717_4431_1a6b_d9ae_1083_fcab_c870],
    // aes256gmac
    [0xf8ff_aa16_d21d_511d_8b32_2a87_3369_b6e1, 0x649e_57d6_5e09_751e_6eca_ddbb_8de8_3b5e],
];
