//! Every guarantee has a setting that breaks it, and every such setting is found.
