//! Keeps a device in step with its server.

mod backoff;
