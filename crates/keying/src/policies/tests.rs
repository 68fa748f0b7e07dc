//! Tests of the policy database.
