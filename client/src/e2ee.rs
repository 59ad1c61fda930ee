//! Everything OpenMLS.
