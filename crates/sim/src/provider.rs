//! Which provider of cryptography gateways use: by turns in simulations, the portable one else.
//!
//! `CULVERT_PROVIDER` names another for all of them: one of [`Provider::NAMES`], or `auto`.

use std::env;
use std::sync::LazyLock;

use culvert_aead::Provider;
use culvert_aead::ProviderError;
use culvert_aead::RustCrypto;

/// What the variable says.
static ASKED: LazyLock<Option<Provider>> = LazyLock::new(|| {
    let name = env::var("CULVERT_PROVIDER").ok()?;
    let selection = Provider::selected(&name);
    Some(selection.unwrap_or_else(|error| panic!("CULVERT_PROVIDER: {error}")).provider)
});

/// The one that was asked for, or the portable one, which is not tested first.
///
/// # Panics
/// When `CULVERT_PROVIDER` names none that runs here.
#[must_use]
pub fn provider() -> Provider {
    ASKED.unwrap_or(Provider::RustCrypto(RustCrypto))
}

/// The one that was asked for, or the seed's: they take turns, and the portable one stands in for
/// those that do not run here. What happens to packets is the same with each.
///
/// # Errors
/// When one goes wrong in its self test.
///
/// # Panics
/// When `CULVERT_PROVIDER` names none that runs here.
pub fn of_seed(seed: u64) -> Result<Provider, ProviderError> {
    let name = |turn| Provider::NAMES[usize::try_from(turn).expect("a small number")];
    let of_turn = || Provider::named(name(seed % Provider::NAMES.len() as u64));
    ASKED.map_or_else(
        || match of_turn() {
            Err(error) if !error.is_wrong() => Ok(Provider::RustCrypto(RustCrypto)),
            result => result,
        },
        Ok,
    )
}

#[cfg(test)]
mod tests {
    use culvert_aead::Aead;

    use super::*;

    /// Every provider that runs here has its turn.
    #[test]
    fn all_take_turns() {
        if ASKED.is_some() {
            eprintln!("SKIPPED: CULVERT_PROVIDER names one");
            return;
        }
        let turns: Vec<&str> = (0..5).map(|seed| of_seed(seed).unwrap().name()).collect();
        for candidate in Provider::candidates().filter(|candidate| candidate.provider.is_ok()) {
            assert!(turns.contains(&candidate.name), "{turns:?} without {}", candidate.name);
        }
    }
}
