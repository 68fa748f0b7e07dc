//! Which system calls are trapped, which are refused, and which pretend to succeed.
//!
//! | call | becomes of it |
//! |---|---|
//! | `socket` of `NETLINK_XFRM` | trapped |
//! | `bind`, `connect`, `getsockname`, `setsockopt` of `SOL_NETLINK` | trapped, go on if not ours |
//! | `setsockopt` of `UDP_ENCAP` | pretends to succeed |
//! | `setsockopt` of `IP_XFRM_POLICY`, `IPV6_XFRM_POLICY` | pretends to succeed |
//! | `io_uring_setup` | ENOSYS |
//! | 32-bit `socket` of `NETLINK_XFRM`, and `socket` by `socketcall` | EAFNOSUPPORT |
//! | calls of the x32 ABI, and of unknown machines | ENOSYS |
//! | all else | goes on |
//!
//! ESP in UDP is culvert's, and is not to be looked for in IKE's datagrams, which culvert never
//! takes: so the kernel needs neither option. A ring of `io_uring` could open sockets without a
//! system call that can be trapped.
//!
//! It is a list of rules, first match first. One that looks at no argument costs an unconcerned
//! call two instructions, and the kernel remembers for each call number whether any rule can match.

use libc::sock_filter;

/// Identifies the machine's own calls, and those of its 32-bit programs.
#[cfg(target_arch = "x86_64")]
const ARCH: [u32; 2] = [0xc000_003e, 0x4000_0003];
#[cfg(target_arch = "aarch64")]
const ARCH: [u32; 2] = [0xc000_00b7, 0x4000_0028];
#[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
compile_error!("the launcher knows the system calls of x86_64 and aarch64 only");

/// Number of `socket` for 32-bit programs.
const SOCKET_32: u32 = if cfg!(target_arch = "x86_64") { 359 } else { 281 };

/// Number of `socketcall` for 32-bit programs, and what makes it `socket`.
const SOCKETCALL_32: u32 = 102;
const SOCKETCALL_SOCKET: u32 = 1;

/// First call number of the x32 ABI.
const X32: u32 = 0x4000_0000;

/// Socket options that pretend to succeed: level and name.
const PRETENDED: [[u32; 2]; 3] = [
    [constant(libc::SOL_UDP), constant(libc::UDP_ENCAP)],
    [constant(libc::SOL_IP), constant(libc::IP_XFRM_POLICY)],
    [constant(libc::SOL_IPV6), constant(libc::IPV6_XFRM_POLICY)],
];

const ALLOW: u32 = libc::SECCOMP_RET_ALLOW;
const TRAP: u32 = libc::SECCOMP_RET_USER_NOTIF;
/// Returns 0 without doing the call: an error whose number is 0.
const PRETEND: u32 = libc::SECCOMP_RET_ERRNO;

const fn refuse(errno: i32) -> u32 {
    libc::SECCOMP_RET_ERRNO | constant(errno)
}

/// A constant of the system, none of which is negative.
#[expect(clippy::cast_sign_loss, reason = "none is negative")]
const fn constant(number: i32) -> u32 {
    assert!(number >= 0);
    number as u32
}

/// The number of a system call.
#[expect(clippy::cast_sign_loss, clippy::cast_possible_truncation, reason = "small numbers")]
const fn number(call: libc::c_long) -> u32 {
    assert!(call >= 0 && call < 0x1000);
    call as u32
}

/// What becomes of a call with this number, if these arguments are so. Arguments are compared in
/// their low 32 bits, which is what the kernel looks at.
struct Rule {
    call: u32,
    arguments: Vec<(u32, u32)>,
    action: u32,
}

fn rule(call: u32, arguments: &[(u32, u32)], action: u32) -> Rule {
    Rule { call, arguments: arguments.to_vec(), action }
}

const XFRM_SOCKET: [(u32, u32); 2] =
    [(0, constant(libc::AF_NETLINK)), (2, constant(libc::NETLINK_XFRM))];

fn native_rules() -> Vec<Rule> {
    let setsockopt = number(libc::SYS_setsockopt);
    let mut rules = vec![
        rule(number(libc::SYS_socket), &XFRM_SOCKET, TRAP),
        rule(number(libc::SYS_bind), &[], TRAP),
        rule(number(libc::SYS_connect), &[], TRAP),
        rule(number(libc::SYS_getsockname), &[], TRAP),
        rule(setsockopt, &[(1, constant(libc::SOL_NETLINK))], TRAP),
        rule(number(libc::SYS_io_uring_setup), &[], refuse(libc::ENOSYS)),
    ];
    let pretended =
        PRETENDED.map(|[level, name]| rule(setsockopt, &[(1, level), (2, name)], PRETEND));
    rules.extend(pretended);
    rules
}

fn compat_rules() -> Vec<Rule> {
    let refused = refuse(libc::EAFNOSUPPORT);
    let mut rules = vec![
        rule(SOCKET_32, &XFRM_SOCKET, refused),
        rule(number(libc::SYS_io_uring_setup), &[], refuse(libc::ENOSYS)),
    ];
    if cfg!(target_arch = "x86_64") {
        rules.push(rule(SOCKETCALL_32, &[(0, SOCKETCALL_SOCKET)], refused));
    }
    rules
}

/// Where the kernel shows a call (`struct seccomp_data`): its number, the machine, and the low half
/// of an argument of a little-endian machine.
const AT_NUMBER: u32 = 0;
const AT_ARCH: u32 = 4;

const fn at_argument(index: u32) -> u32 {
    16 + 8 * index
}

/// Instructions of classic BPF.
const LOAD: u16 = 0x20;
const JUMP_IF_EQUAL: u16 = 0x15;
const JUMP_IF_AT_LEAST: u16 = 0x35;
const RETURN: u16 = 0x06;

fn load(at: u32) -> sock_filter {
    sock_filter { code: LOAD, jt: 0, jf: 0, k: at }
}

fn end(action: u32) -> sock_filter {
    sock_filter { code: RETURN, jt: 0, jf: 0, k: action }
}

/// Goes on if the accumulator is `value`, and otherwise skips so many instructions.
fn unless(value: u32, skip: usize) -> sock_filter {
    let jf = u8::try_from(skip).expect("a short program");
    sock_filter { code: JUMP_IF_EQUAL, jt: 0, jf, k: value }
}

fn compile(rules: &[Rule]) -> Vec<sock_filter> {
    let mut program = Vec::new();
    for rule in rules {
        let mut left = 2 * rule.arguments.len() + 1;
        program.extend([load(AT_NUMBER), unless(rule.call, left)]);
        for (index, value) in &rule.arguments {
            left -= 2;
            program.extend([load(at_argument(*index)), unless(*value, left)]);
        }
        program.push(end(rule.action));
    }
    program.push(end(ALLOW));
    program
}

/// The whole filter.
pub(crate) fn program() -> Vec<sock_filter> {
    let mut native = Vec::new();
    if cfg!(target_arch = "x86_64") {
        let at_least = sock_filter { code: JUMP_IF_AT_LEAST, jt: 0, jf: 1, k: X32 };
        native.extend([load(AT_NUMBER), at_least, end(refuse(libc::ENOSYS))]);
    }
    native.extend(compile(&native_rules()));
    let mut program = vec![load(AT_ARCH), unless(ARCH[0], native.len())];
    program.extend(native);
    let compat = compile(&compat_rules());
    program.extend([unless(ARCH[1], compat.len())]);
    program.extend(compat);
    program.push(end(refuse(libc::ENOSYS)));
    program
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Runs the filter as the kernel does.
    fn run(arch: u32, call: u32, arguments: [u64; 6]) -> u32 {
        let mut data = Vec::new();
        data.extend(call.to_le_bytes());
        data.extend(arch.to_le_bytes());
        data.extend([0; 8]);
        data.extend(arguments.iter().flat_map(|argument| argument.to_le_bytes()));
        let program = program();
        let (mut at, mut accumulator) = (0, 0);
        loop {
            let instruction = &program[at];
            let k = instruction.k;
            let jump = |is: bool| usize::from(if is { instruction.jt } else { instruction.jf });
            at += 1;
            match instruction.code {
                LOAD => {
                    let from = usize::try_from(k).unwrap();
                    accumulator = u32::from_le_bytes(data[from..from + 4].try_into().unwrap());
                }
                JUMP_IF_EQUAL => at += jump(accumulator == k),
                JUMP_IF_AT_LEAST => at += jump(accumulator >= k),
                RETURN => return k,
                code => panic!("no such instruction: {code:#x}"),
            }
        }
    }

    fn native(call: libc::c_long, arguments: [u64; 6]) -> u32 {
        run(ARCH[0], number(call), arguments)
    }

    const RAW: u64 = 3;

    /// Sockets of NETLINK_XFRM are trapped whatever their type, those of other protocols are not.
    #[test]
    fn only_xfrm_sockets_are_trapped() {
        assert_eq!(native(libc::SYS_socket, [16, RAW, 6, 0, 0, 0]), TRAP);
        assert_eq!(native(libc::SYS_socket, [16, RAW | 0o2_004_000, 6, 0, 0, 0]), TRAP);
        assert_eq!(native(libc::SYS_socket, [16, RAW, 0, 0, 0, 0]), ALLOW);
        assert_eq!(native(libc::SYS_socket, [2, 2, 6, 0, 0, 0]), ALLOW);
    }

    /// The kernel looks at 32 bits of these arguments, so the others hide nothing.
    #[test]
    fn high_halves_of_arguments_hide_nothing() {
        let high = 0xdead_beef << 32;
        assert_eq!(native(libc::SYS_socket, [16 | high, RAW | high, 6 | high, 0, 0, 0]), TRAP);
        assert_eq!(native(libc::SYS_setsockopt, [4, 17 | high, 100 | high, 0, 0, 0]), PRETEND);
    }

    /// ESP in UDP and the kernel's policies for a socket are not set, other options are.
    #[test]
    fn options_for_the_kernels_own_ipsec_pretend_to_succeed() {
        let option = |level, name| native(libc::SYS_setsockopt, [4, level, name, 0, 0, 0]);
        assert_eq!(option(17, 100), PRETEND);
        assert_eq!(option(0, 17), PRETEND);
        assert_eq!(option(41, 35), PRETEND);
        assert_eq!(option(270, 1), TRAP);
        assert_eq!(option(270, 11), TRAP);
        assert_eq!([option(17, 104), option(0, 8), option(41, 26), option(1, 7)], [ALLOW; 4]);
        assert_eq!(PRETEND & libc::SECCOMP_RET_DATA, 0, "the answer is 0");
    }

    /// What 32-bit programs call does not get to the kernel's XFRM either.
    #[test]
    fn programs_of_32_bits_do_not_escape() {
        let refused = refuse(libc::EAFNOSUPPORT);
        assert_eq!(run(ARCH[1], SOCKET_32, [16, RAW, 6, 0, 0, 0]), refused);
        assert_eq!(run(ARCH[1], SOCKET_32, [16, RAW, 0, 0, 0, 0]), ALLOW);
        if cfg!(target_arch = "x86_64") {
            assert_eq!(run(ARCH[1], SOCKETCALL_32, [1, 0, 0, 0, 0, 0]), refused);
            assert_eq!(run(ARCH[1], SOCKETCALL_32, [2, 0, 0, 0, 0, 0]), ALLOW);
            let x32 = X32 | number(libc::SYS_socket);
            assert_eq!(run(ARCH[0], x32, [16, RAW, 6, 0, 0, 0]), refuse(libc::ENOSYS));
        }
        assert_eq!(run(0x1234, SOCKET_32, [0; 6]), refuse(libc::ENOSYS));
    }

    /// A ring could open sockets behind the filter's back.
    #[test]
    fn rings_are_refused() {
        assert_eq!(native(libc::SYS_io_uring_setup, [0; 6]), refuse(libc::ENOSYS));
        assert_eq!(run(ARCH[1], 425, [0; 6]), refuse(libc::ENOSYS));
    }

    /// Calls on the data path of a daemon are not trapped.
    #[test]
    fn sending_and_receiving_cost_nothing() {
        let calls = [libc::SYS_sendto, libc::SYS_recvfrom, libc::SYS_sendmsg, libc::SYS_recvmsg];
        for call in calls.into_iter().chain([libc::SYS_read, libc::SYS_write, libc::SYS_close]) {
            assert_eq!(native(call, [0; 6]), ALLOW);
        }
    }
}
