//! Floor 2, what is computed from books and markets.
