//! The index of decisions on ledgers that were really written.
