//! `culvert --version`; with `--verbose` also which AEAD providers this machine runs.

use std::fmt;

use culvert_aead::Candidate;
use culvert_aead::Provider;
use culvert_aead::Selection;
use culvert_aead::Unusable;

use crate::bench::engine::cpu_model;

/// Prints the version, and with `verbose` of its providers.
///
/// # Errors
/// None yet.
pub fn print(verbose: bool) -> anyhow::Result<()> {
    println!("culvert {}", env!("CARGO_PKG_VERSION"));
    if verbose {
        println!("{}", Details::of_this_machine());
    }
    Ok(())
}

/// The providers of a machine.
struct Details {
    cpu: String,
    chosen: Selection,
    all: Vec<Candidate>,
}

impl Details {
    /// All providers go through their self tests.
    fn of_this_machine() -> Details {
        let all = Provider::candidates().collect();
        Details { cpu: cpu_model(), chosen: Provider::best(), all }
    }
}

impl fmt::Display for Details {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        writeln!(f, "CPU: {}", self.cpu)?;
        writeln!(f, "AEAD provider: {}", self.chosen.reason)?;
        write!(f, "AEAD providers, fastest first:")?;
        for Candidate { name, provider } in &self.all {
            match provider {
                Ok(_) => write!(f, "\n  {name:<12} available, self test passed")?,
                Err(Unusable::Wrong(error)) => write!(f, "\n  {name:<12} FAILED: {error}")?,
                Err(missing) => write!(f, "\n  {name:<12} not available: {missing}")?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use culvert_aead::PassedOver;

    use super::*;

    /// Each provider has a line that says whether it can be used, and why not.
    #[test]
    fn each_provider_has_a_line() {
        let provider = Provider::named("rustcrypto").unwrap();
        let reason = Unusable::Lacks(vec!["avx512f", "vaes"]);
        let chosen = Selection {
            provider,
            reason: "rustcrypto: the fastest here, self test passed".to_owned(),
            passed_over: vec![PassedOver { name: "vaes-avx512", reason: reason.clone() }],
        };
        let all = vec![
            Candidate { name: "vaes-avx512", provider: Err(reason) },
            Candidate { name: "aws-lc-rs", provider: Err(Unusable::NotBuilt("aws-lc")) },
            Candidate { name: "rustcrypto", provider: Ok(provider) },
        ];
        let expected = [
            "CPU: Abacus",
            "AEAD provider: rustcrypto: the fastest here, self test passed",
            "AEAD providers, fastest first:",
            "  vaes-avx512  not available: the CPU lacks avx512f, vaes",
            "  aws-lc-rs    not available: it needs a build with the feature aws-lc",
            "  rustcrypto   available, self test passed",
        ];
        let details = Details { cpu: "Abacus".to_owned(), chosen, all };
        assert_eq!(details.to_string(), expected.join("\n"));
    }
}
