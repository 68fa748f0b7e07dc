//! The checked-in XDP object: rebuilding it, and proving that it matches its source.
//!
//! `ebpf/prebuilt/steer.bpf.o` is part of the repository, so that building the gateway needs no
//! LLVM. It is built from `ebpf/steer` by Debian's rustc, which comes with a core library for BPF,
//! and Debian's LLVM tools (see [`crate::linker`]). The same source gives the same bytes in any
//! directory on any machine, as long as the compiler's code generation is the same; the compilers
//! that built the object are written beside its checksum, and into the message when a rebuild
//! differs.
//!
//! Settings from outside that could change the bytes (compiler flags, wrappers, profiles) are
//! taken out of the environment of the build.

use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;
use sha2::Digest as _;
use sha2::Sha256;

use crate::linker;

const RUSTC: &str = "/usr/bin/rustc";
const TARGET: &str = "bpfel-unknown-none";
const SOURCE: &str = "ebpf/steer";
const OBJECT: &str = "ebpf/prebuilt/steer.bpf.o";
const OBJECT_NAME: &str = "steer.bpf.o";
const CHECKSUM: &str = "ebpf/prebuilt/steer.bpf.o.sha256";

/// Rebuilds the object and its checksum file in place.
pub(crate) fn rebuild(root: &Path) -> Result<()> {
    let compilers = Compilers::find()?;
    let object = build(root, &root.join("target/ebpf"), &compilers)?;
    let unchanged = fs::read(root.join(OBJECT)).is_ok_and(|old| old == object);
    fs::write(root.join(OBJECT), &object)?;
    fs::write(root.join(CHECKSUM), checksum_text(&object, &compilers.description))?;
    let state = if unchanged { "unchanged" } else { "written" };
    println!("{OBJECT}: {state}, {} bytes, sha256 {}", object.len(), sha256(&object));
    Ok(())
}

/// Rebuilds the object elsewhere and compares it, byte for byte, with the checked-in one.
pub(crate) fn check(root: &Path) -> Result<()> {
    let checked_in =
        fs::read(root.join(OBJECT)).with_context(|| format!("cannot read {OBJECT}"))?;
    let text = fs::read_to_string(root.join(CHECKSUM))
        .with_context(|| format!("cannot read {CHECKSUM}"))?;
    let recorded = Checksum::parse(&text)?;
    ensure!(
        recorded.sha256 == sha256(&checked_in),
        "{OBJECT} has sha256 {}, but {CHECKSUM} says {}; rebuild both with `cargo xtask ebpf`",
        sha256(&checked_in),
        recorded.sha256,
    );
    let compilers = Compilers::find()?;
    let directory = tempfile::tempdir()?;
    let rebuilt = build(root, directory.path(), &compilers)?;
    compare(&checked_in, &rebuilt, &recorded.compilers, &compilers.description)?;
    println!("{OBJECT} matches {SOURCE}: sha256 {}", recorded.sha256);
    Ok(())
}

fn compare(checked_in: &[u8], rebuilt: &[u8], old: &str, new: &str) -> Result<()> {
    let Some(at) = first_difference(checked_in, rebuilt) else {
        return Ok(());
    };
    bail!(
        "{OBJECT} does not match its source: first difference at byte {at}\n  \
         checked in: {} bytes, sha256 {}, built by {old}\n  \
         rebuilt:    {} bytes, sha256 {}, built by {new}\n\
         If the source changed, run `cargo xtask ebpf` and commit the result. If only the \
         compilers differ, their code generation may: install the recorded ones to tell.",
        checked_in.len(),
        sha256(checked_in),
        rebuilt.len(),
        sha256(rebuilt),
    );
}

fn first_difference(a: &[u8], b: &[u8]) -> Option<usize> {
    let common = a.iter().zip(b).take_while(|(a, b)| a == b).count();
    (common < a.len().max(b.len())).then_some(common)
}

/// The compilers of this machine.
struct Compilers {
    llvm_major: String,
    /// One line: both compilers with their versions.
    description: String,
}

impl Compilers {
    fn find() -> Result<Compilers> {
        let install = |major: &str| {
            format!(
                "install the compilers with\n  apt-get install --no-install-recommends \
                 rustc-web libstd-rust-web-dev-bpf llvm-{major}"
            )
        };
        let Some(version) = output(Command::new(RUSTC).arg("-vV")) else {
            bail!("there is no {RUSTC}; {}", install("22"));
        };
        let sysroot = output(Command::new(RUSTC).args(["--print", "sysroot"])).unwrap_or_default();
        let core = Path::new(sysroot.trim()).join("lib/rustlib").join(TARGET);
        let llvm = version.lines().find_map(|line| line.strip_prefix("LLVM version: "));
        let llvm = llvm.with_context(|| format!("`{RUSTC} -vV` names no LLVM version"))?;
        let major = llvm.split('.').next().unwrap_or(llvm).to_owned();
        if !core.is_dir() {
            bail!("{RUSTC} has no core library for {TARGET}; {}", install(&major));
        }
        let opt = output(Command::new(format!("opt-{major}")).arg("--version"));
        let llc = output(Command::new(format!("llc-{major}")).arg("--version"));
        let (Some(opt), Some(_)) = (opt, llc) else {
            bail!("{RUSTC} has LLVM {major}, but there is no opt-{major}; {}", install(&major));
        };
        let rustc = version.lines().next().unwrap_or_default();
        let tool = opt.split("LLVM version ").nth(1).and_then(|rest| rest.lines().next());
        let tool = tool.unwrap_or("of unknown version");
        let description = format!("{rustc}, LLVM {llvm}; opt-{major} and llc-{major} {tool}");
        Ok(Compilers { llvm_major: major, description })
    }
}

fn output(command: &mut Command) -> Option<String> {
    let output = command.output().ok().filter(|output| output.status.success())?;
    String::from_utf8(output.stdout).ok()
}

/// Builds the object into `target` and returns its bytes.
fn build(root: &Path, target: &Path, compilers: &Compilers) -> Result<Vec<u8>> {
    let tools = tempfile::tempdir()?;
    let linker = tools.path().join(linker::NAME);
    std::os::unix::fs::symlink(std::env::current_exe()?, &linker)?;
    let cargo = std::env::var_os("CARGO").map_or_else(|| PathBuf::from("cargo"), PathBuf::from);

    let mut command = Command::new(cargo);
    for (name, _) in std::env::vars_os() {
        if name.to_str().is_some_and(changes_the_build) {
            command.env_remove(name);
        }
    }
    let status = command
        .current_dir(root.join(SOURCE))
        .args(["build", "--release", "--locked", "--target", TARGET])
        .env("CARGO_TARGET_DIR", target)
        .env("CARGO_TARGET_BPFEL_UNKNOWN_NONE_LINKER", &linker)
        // Empty flags in the environment win over flags in a configuration file.
        .env("CARGO_ENCODED_RUSTFLAGS", "")
        .env("RUSTC", RUSTC)
        // aya-ebpf uses the unstable feature for inline BPF assembly.
        .env("RUSTC_BOOTSTRAP", "1")
        .env(linker::LLVM_MAJOR, &compilers.llvm_major)
        .status()
        .context("cannot run cargo")?;
    ensure!(status.success(), "building {SOURCE} failed");
    let object = target.join(TARGET).join("release/steer");
    fs::read(&object).with_context(|| format!("{}", object.display()))
}

/// True for environment variables that are cargo's or the compiler's settings.
fn changes_the_build(name: &str) -> bool {
    let prefixes = ["CARGO_BUILD_", "CARGO_PROFILE_", "CARGO_TARGET_", "RUSTC_", "RUSTFLAGS"];
    prefixes.iter().any(|prefix| name.starts_with(prefix))
}

/// Contents of the checksum file: `sha256sum --check` reads it and skips the comment.
fn checksum_text(object: &[u8], compilers: &str) -> String {
    format!("# built by {compilers}\n{}  {OBJECT_NAME}\n", sha256(object))
}

#[derive(Debug, PartialEq, Eq)]
struct Checksum {
    sha256: String,
    compilers: String,
}

impl Checksum {
    fn parse(text: &str) -> Result<Checksum> {
        let compilers = text.lines().find_map(|line| line.strip_prefix("# built by "));
        let sha256 = text.lines().find_map(|line| line.strip_suffix(OBJECT_NAME));
        let sha256 = sha256.with_context(|| format!("{CHECKSUM} has no line for {OBJECT_NAME}"))?;
        Ok(Checksum {
            sha256: sha256.trim().to_owned(),
            compilers: compilers.unwrap_or("unknown compilers").to_owned(),
        })
    }
}

fn sha256(bytes: &[u8]) -> String {
    hex::encode(Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// What `rebuild` writes beside the object is what `check` reads.
    #[test]
    fn checksum_file_survives() {
        let text = checksum_text(b"abc", "rustc 1, LLVM 2");
        let sha256 = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
        let expected =
            Checksum { sha256: sha256.to_owned(), compilers: "rustc 1, LLVM 2".to_owned() };
        assert_eq!(Checksum::parse(&text).unwrap(), expected);
        assert!(Checksum::parse("0f  other.o\n").is_err());
    }

    /// Equal bytes pass; a changed, a missing and an extra byte are told with both compilers.
    #[test]
    fn differences_are_told_with_both_compilers() {
        assert!(compare(b"abc", b"abc", "old", "new").is_ok());
        for (rebuilt, at) in [("abd", 2), ("ab", 2), ("abcd", 3), ("", 0)] {
            let error = compare(b"abc", rebuilt.as_bytes(), "OLD 1", "NEW 2").unwrap_err();
            let message = error.to_string();
            assert!(message.contains(&format!("at byte {at}\n")), "{message}");
            assert!(message.contains("built by OLD 1") && message.contains("built by NEW 2"));
        }
    }

    /// Flags, wrappers and profiles do not reach the build; the path and cargo's home do.
    #[test]
    fn outside_settings_are_removed() {
        for name in [
            "RUSTFLAGS",
            "RUSTC_WRAPPER",
            "CARGO_BUILD_RUSTFLAGS",
            "CARGO_PROFILE_RELEASE_DEBUG",
            "CARGO_TARGET_DIR",
        ] {
            assert!(changes_the_build(name), "{name}");
        }
        for name in ["PATH", "HOME", "CARGO_HOME", "RUSTUP_HOME", "CARGO_NET_OFFLINE"] {
            assert!(!changes_the_build(name), "{name}");
        }
    }
}
