//! What several tests need.

use culvert_aead::Provider;

/// Every provider of this machine. One whose CPU this is not is passed over, and says so; one that
/// fails its self test is not.
pub(crate) fn providers() -> Vec<Provider> {
    let named = |name: &&str| match Provider::named(name) {
        Ok(provider) => Some(provider),
        Err(error) => {
            assert!(!error.to_string().contains("self test"), "{error}");
            eprintln!("SKIPPED: {error}");
            None
        }
    };
    Provider::NAMES.iter().filter_map(named).collect()
}
