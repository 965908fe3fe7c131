//! Ledger entries as bytes.
