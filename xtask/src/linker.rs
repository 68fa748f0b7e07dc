//! The BPF linker: one bitcode file in, one BPF object out, by LLVM's `opt` and `llc`.
//!
//! With fat link-time optimisation rustc has linked everything into one module before it calls
//! the linker; what is left is
//!
//! 1. make every symbol that is not exported private, drop debug information and what is unused,
//!    and optimise again ([`passes`]);
//! 2. give the module a fixed source name, which becomes a symbol of the object: rustc's contains
//!    a hash that differs between machines;
//! 3. generate code.
//!
//! rustc speaks to it in the arguments of bpf-linker, of which it needs `-o`, `--cpu`,
//! `--export-symbols` and the input. The LLVM tools are those named by [`LLVM_MAJOR`] in the
//! environment, so that they can be of the same major version as rustc's LLVM.

use std::ffi::OsStr;
use std::ffi::OsString;
use std::fs;
use std::path::Path;
use std::path::PathBuf;
use std::process::Command;

use anyhow::Context as _;
use anyhow::Result;
use anyhow::bail;
use anyhow::ensure;

/// File name under which this program is a linker.
pub(crate) const NAME: &str = "culvert-bpf-linker";

/// Environment variable that holds the major version of the LLVM tools.
pub(crate) const LLVM_MAJOR: &str = "CULVERT_LLVM_MAJOR";

const SOURCE_NAME: &str = r#"source_filename = "culvert-steer""#;
const EXPAND_IN_ORDER: &str = "-bpf-expand-memcpy-in-order";
const BITCODE_MAGIC: &[u8] = b"BC\xc0\xde";

/// What rustc asks for.
#[derive(Debug, PartialEq, Eq)]
struct Job {
    input: PathBuf,
    output: PathBuf,
    /// File with one exported symbol a line.
    exports: PathBuf,
    cpu: OsString,
}

/// Links as the command line says.
pub(crate) fn run(arguments: impl Iterator<Item = OsString>) -> Result<()> {
    let job = parse(arguments)?;
    let major = std::env::var(LLVM_MAJOR).with_context(|| format!("{LLVM_MAJOR} is not set"))?;
    link(&job, &major)
}

fn parse(mut arguments: impl Iterator<Item = OsString>) -> Result<Job> {
    let mut inputs = Vec::new();
    let mut output = None;
    let mut exports = None;
    let mut cpu = OsString::from("generic");
    while let Some(argument) = arguments.next() {
        let mut value = || arguments.next().with_context(|| format!("{argument:?} lacks a value"));
        match argument.to_str() {
            Some("-o") => output = Some(value()?.into()),
            Some("--export-symbols") => exports = Some(value()?.into()),
            Some("--cpu") => cpu = value()?,
            Some("-L" | "--cpu-features" | "--target" | "--llvm-args" | "--log-level") => {
                value()?;
            }
            Some(option) if option.starts_with('-') => {}
            _ => inputs.push(PathBuf::from(argument)),
        }
    }
    // Libraries come along although link-time optimisation has taken in their code already.
    inputs.retain(|input| input.extension() != Some(OsStr::new("rlib")));
    let [input] = inputs.as_slice() else {
        bail!("expected one bitcode file (is `lto = true` in the profile?), got {inputs:?}");
    };
    Ok(Job {
        input: input.clone(),
        output: output.context("no -o argument")?,
        exports: exports.context("no --export-symbols argument")?,
        cpu,
    })
}

fn passes() -> &'static str {
    "internalize,strip,globaldce,default<O3>,globaldce"
}

fn link(job: &Job, major: &str) -> Result<()> {
    let head = fs::read(&job.input).with_context(|| format!("{}", job.input.display()))?;
    ensure!(head.starts_with(BITCODE_MAGIC), "{} is not bitcode", job.input.display());
    let directory = tempfile::tempdir()?;
    let text = directory.path().join("module.ll");

    let mut exported = OsString::from("-internalize-public-api-file=");
    exported.push(&job.exports);
    execute(
        Command::new(format!("opt-{major}"))
            .arg(format!("-passes={}", passes()))
            .arg(exported)
            .args([EXPAND_IN_ORDER, "-S", "-o"])
            .arg(&text)
            .arg(&job.input),
    )?;
    fs::write(&text, with_fixed_name(&fs::read_to_string(&text)?))?;
    execute(
        Command::new(format!("llc-{major}"))
            .args(["-march=bpfel", EXPAND_IN_ORDER, "-filetype=obj", "-mcpu"])
            .arg(&job.cpu)
            .arg("-o")
            .arg(&job.output)
            .arg(Path::new(&text)),
    )
}

/// The module text with [`SOURCE_NAME`] instead of its own source name.
fn with_fixed_name(module: &str) -> String {
    let mut fixed = String::with_capacity(module.len());
    for line in module.lines() {
        let own = line.starts_with("source_filename = ");
        fixed.push_str(if own { SOURCE_NAME } else { line });
        fixed.push('\n');
    }
    fixed
}

fn execute(command: &mut Command) -> Result<()> {
    let status = command.status().with_context(|| format!("cannot run {command:?}"))?;
    ensure!(status.success(), "{command:?} failed: {status}");
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn parsed(line: &str) -> Result<Job> {
        parse(line.split(' ').map(OsString::from))
    }

    /// The command line that rustc writes gives the four things the linker needs.
    #[test]
    fn rustc_command_line_is_understood() {
        let line = "--export-symbols /t/symbols /t/steer.rcgu.o -L /t/deps /t/libcore.rlib \
                    --cpu v3 --cpu-features  -L /lib -o /t/steer -O3 --debug";
        let job = Job {
            input: "/t/steer.rcgu.o".into(),
            output: "/t/steer".into(),
            exports: "/t/symbols".into(),
            cpu: "v3".into(),
        };
        assert_eq!(parsed(line).unwrap(), job);
    }

    /// Two modules, no output and a cut-off option are refused.
    #[test]
    fn incomplete_command_lines_are_refused() {
        for line in ["--export-symbols s a.o b.o -o out", "--export-symbols s a.o", "a.o -o"] {
            assert!(parsed(line).is_err(), "{line}");
        }
    }

    /// Only the source name changes.
    #[test]
    fn source_name_is_fixed() {
        let module =
            "; ModuleID = 'x'\nsource_filename = \"steer.0f-cgu.0\"\ntarget triple = \"bpfel\"\n";
        let fixed =
            "; ModuleID = 'x'\nsource_filename = \"culvert-steer\"\ntarget triple = \"bpfel\"\n";
        assert_eq!(with_fixed_name(module), fixed);
    }
}
