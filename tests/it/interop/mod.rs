//! Programs that others wrote: libsodium, grpcurl, grpcio, curl.

mod crypto;
mod tools;
