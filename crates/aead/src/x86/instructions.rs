//! Which instructions the CPU has, known at run time.

/// A value is the proof that the CPU has some instruction sets: [`Instructions::detect`] is the
/// only way to one. All unsafe calls into code that needs them rest on that.
pub(crate) trait Instructions: Copy {
    /// What the provider that needs them is called.
    const NAME: &'static str;

    /// The proof, if the CPU has the instructions and the operating system saves the registers.
    fn detect() -> Option<Self>;

    /// The instruction sets that this machine has not.
    fn missing() -> Vec<&'static str>;
}

/// Implements [`Instructions`] for a type that only this can make. Of the sets, those can be left
/// out that others imply, but none of [`AesNi`](crate::x86::AesNi): keys of all kernels are set up
/// with those, and that is too late for a kind answer.
macro_rules! instructions {
    ($type:ident, $name:literal: $($feature:tt)*) => {
        impl $crate::x86::instructions::Instructions for $type {
            const NAME: &'static str = $name;

            fn detect() -> Option<$type> {
                Self::missing().is_empty().then_some($type(()))
            }

            fn missing() -> Vec<&'static str> {
                let all = [$(($feature, is_x86_feature_detected!($feature))),*];
                all.into_iter().filter_map(|(name, has)| (!has).then_some(name)).collect()
            }
        }
    };
}
pub(crate) use instructions;
